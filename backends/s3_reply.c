/*
 * s3_reply.c - what S3's status codes, error codes and headers mean to us, and metadata on its way there.
 *
 * Pure functions, no state.
 */
#include "s3_reply.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "s3_url.h"

#define META_MARKER "%~"

/* --- errors ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *code;
	enum err_kind kind;
} code_kinds[] = {
	{"NoSuchKey", ERR_NOT_FOUND},
	{"NoSuchVersion", ERR_NOT_FOUND},
	{"NoSuchBucket", ERR_NOT_FOUND},
	{"NoSuchUpload", ERR_NOT_FOUND},
	{"AccessDenied", ERR_DENIED},
	{"AllAccessDisabled", ERR_DENIED},
	{"AccountProblem", ERR_DENIED},
	{"InvalidAccessKeyId", ERR_DENIED},
	{"SignatureDoesNotMatch", ERR_DENIED},
	{"ExpiredToken", ERR_DENIED},
	{"InvalidToken", ERR_DENIED},
	{"RequestTimeTooSkewed", ERR_DENIED},
	{"AuthorizationHeaderMalformed", ERR_CONFIGURATION},
	{"PermanentRedirect", ERR_CONFIGURATION},
	{"SlowDown", ERR_THROTTLED},
	{"SlowDownRead", ERR_THROTTLED},
	{"SlowDownWrite", ERR_THROTTLED},
	{"RequestLimitExceeded", ERR_THROTTLED},
	{"Throttling", ERR_THROTTLED},
	{"ServiceUnavailable", ERR_THROTTLED},
	{"PreconditionFailed", ERR_PRECONDITION},
	{"ConditionalRequestConflict", ERR_UNAVAILABLE},
	{"OperationAborted", ERR_UNAVAILABLE},
	{"RequestTimeout", ERR_UNAVAILABLE},
	{"IncompleteBody", ERR_UNAVAILABLE},
	{"TemporaryRedirect", ERR_UNAVAILABLE},
	{"InvalidObjectState", ERR_ARCHIVED},
	{"EntityTooLarge", ERR_TOO_LARGE},
	{"KeyTooLongError", ERR_TOO_LARGE},
	{"MetadataTooLarge", ERR_TOO_LARGE},
	{"RequestHeaderSectionTooLarge", ERR_TOO_LARGE},
	{"QuotaExceeded", ERR_QUOTA},
	{"XMinioStorageFull", ERR_QUOTA},
	{"XMinioAdminBucketQuotaExceeded", ERR_QUOTA},
	{"BadDigest", ERR_CORRUPT},
	{"InvalidDigest", ERR_CORRUPT},
	{"XAmzContentSHA256Mismatch", ERR_CORRUPT},
	{"XAmzContentChecksumMismatch", ERR_CORRUPT},
	{"InvalidRange", ERR_CORRUPT},
	{"NotImplemented", ERR_UNSUPPORTED},
	{"MethodNotAllowed", ERR_UNSUPPORTED},
	{"InvalidStorageClass", ERR_CONFIGURATION},
};

static enum err_kind kind_of_status(int status, enum s3_intent intent)
{
	switch (status) {
	case 400:
		return ERR_UNSUPPORTED;
	case 401:
	case 403:
		return ERR_DENIED;
	case 404:
	case 410:
		return ERR_NOT_FOUND;
	case 409:
		return ERR_CONFLICT;
	case 412:
		return ERR_PRECONDITION;
	case 408:
		return ERR_UNAVAILABLE;
	case 413:
		return ERR_TOO_LARGE;
	case 416:
		return ERR_CORRUPT;
	case 429:
	case 503:
		return ERR_THROTTLED;
	case 405:
	case 501:
		return ERR_UNSUPPORTED;
	case 507:
		return ERR_QUOTA;
	default:
		break;
	}
	if (status >= 500)
		return intent == S3_CHANGES ? ERR_INDETERMINATE : ERR_UNAVAILABLE;
	return ERR_CONFIGURATION; /* redirects that s3_exchange could not follow, and other 4xx */
}

static enum err_kind kind_of_reply(const struct http_reply *reply, const char *code, enum s3_intent intent)
{
	const char *marker = http_reply_header(reply, "x-amz-delete-marker");
	if ((reply->status == 404 || reply->status == 405) && marker && strcmp(marker, "true") == 0)
		return ERR_NOT_FOUND;
	for (size_t i = 0; *code && i < ARRAY_SIZE(code_kinds); i++)
		if (strcmp(code_kinds[i].code, code) == 0)
			return code_kinds[i].kind;
	return kind_of_status(reply->status, intent);
}

static int reply_error(const struct http_reply *reply, enum s3_intent intent, const struct s3_error *error,
		       struct err *err)
{
	enum err_kind kind = kind_of_reply(reply, error->code, intent);
	int r = err_set(err, kind, "HTTP %d %s%s%s", reply->status, error->code, *error->message ? ": " : "",
			error->message);
	if (err) {
		err->http_status = reply->status;
		err->retry_after_ms = reply->retry_after_ms;
	}
	return r;
}

int s3_reply_check(const struct http_reply *reply, enum s3_intent intent, struct s3_error *ret_error, struct err *err)
{
	struct s3_error error = {0};
	if (reply->status >= 200 && reply->status < 300)
		return 0;
	/* Proxies answer in HTML and HEAD has no body: then the status has to do. */
	if (reply->body.len > 0)
		(void)s3_xml_error(reply->body.data, reply->body.len, &error, NULL);
	*ret_error = error;
	return reply_error(reply, intent, &error, err);
}

int s3_reply_check_late(const struct http_reply *reply, struct err *err)
{
	struct s3_error error;
	struct err reason;
	int r = s3_xml_error(reply->body.data, reply->body.len, &error, &reason);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_set(err, ERR_INDETERMINATE, "HTTP %d with a body that says nothing: %s", reply->status,
			       reason.message);
	/* The status said 200; an error that we know only by its status would have been a 5xx. */
	struct http_reply late = {.status = 500, .retry_after_ms = reply->retry_after_ms, .body = BUF_INIT};
	return reply_error(&late, S3_CHANGES, &error, err);
}

/* --- headers --------------------------------------------------------------------------------------------------- */

bool s3_parse_crc32c(const char *text, uint32_t *ret_crc)
{
	uint8_t bytes[8];
	size_t len;
	if (!text || strlen(text) != S3_CRC32C_SIZE - 1 || base64_decode(text, bytes, sizeof(bytes), &len) < 0 ||
	    len != sizeof(uint32_t))
		return false;
	uint32_t big_endian;
	memcpy(&big_endian, bytes, sizeof(big_endian));
	*ret_crc = be32toh(big_endian);
	return true;
}

void s3_format_crc32c(uint32_t crc, char ret_text[static S3_CRC32C_SIZE])
{
	uint32_t big_endian = htobe32(crc);
	base64_encode(&big_endian, sizeof(big_endian), ret_text);
}

static bool parse_number(const char **at, uint64_t *ret_value)
{
	if (**at < '0' || **at > '9')
		return false;
	char *end;
	errno = 0;
	unsigned long long value = strtoull(*at, &end, 10);
	if (errno || value > INT64_MAX)
		return false;
	*at = end;
	*ret_value = value;
	return true;
}

int s3_parse_range(const char *text, struct s3_range *ret_range)
{
	struct s3_range range;
	if (strncasecmp(text, "bytes ", 6) != 0)
		return -EINVAL;
	text += 6;
	if (!parse_number(&text, &range.first) || *text++ != '-' || !parse_number(&text, &range.last) ||
	    *text++ != '/' || !parse_number(&text, &range.total) || *text)
		return -EINVAL;
	if (range.first > range.last || range.last >= range.total)
		return -EINVAL;
	*ret_range = range;
	return 0;
}

static int copy_header(const struct http_reply *reply, const char *name, char **ret_value)
{
	const char *value = http_reply_header(reply, name);
	if (!value || !*value)
		return 0;
	*ret_value = strdup(value);
	return *ret_value ? 0 : -ENOMEM;
}

void s3_strip_quotes(char *etag)
{
	size_t len = strlen(etag);
	if (len < 2 || etag[0] != '"' || etag[len - 1] != '"')
		return;
	memmove(etag, etag + 1, len - 2);
	etag[len - 2] = '\0';
}

static int copy_etag(const struct http_reply *reply, char **ret_etag)
{
	const char *value = http_reply_header(reply, "etag");
	if (!value)
		return 0;
	*ret_etag = strdup(value);
	if (!*ret_etag)
		return -ENOMEM;
	s3_strip_quotes(*ret_etag);
	return 0;
}

static int copy_meta(const struct http_reply *reply, struct meta *meta)
{
	size_t prefix_len = strlen(S3_META_PREFIX);
	for (size_t i = 0; i < reply->headers.count; i++) {
		const struct http_field *field = &reply->headers.items[i];
		if (strncasecmp(field->name, S3_META_PREFIX, prefix_len) != 0 || !field->name[prefix_len])
			continue;
		AUTO_BUF value = BUF_INIT;
		AUTO_FREE char *name = strdup(field->name + prefix_len);
		if (!name || s3_meta_decode(&value, field->value) < 0)
			return -ENOMEM;
		for (char *at = name; *at; at++)
			*at = (char)tolower((unsigned char)*at);
		int r = meta_set(meta, name, value.data);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The whole object's size: a partial reply tells it in Content-Range. */
static int reply_size(const struct http_reply *reply, uint64_t *ret_size)
{
	const char *text = http_reply_header(reply, "content-range");
	struct s3_range range;
	if (reply->status != 206)
		return http_reply_length(reply, ret_size);
	if (!text || s3_parse_range(text, &range) < 0)
		return -EBADMSG;
	*ret_size = range.total;
	return 0;
}

int s3_reply_info(const struct http_reply *reply, struct object_info *ret_info, struct err *err)
{
	struct object_info info = {.flags = OBJECT_LATEST};
	int r = copy_etag(reply, &info.etag);
	if (r == 0)
		r = copy_header(reply, "x-amz-version-id", &info.native_id);
	if (r == 0)
		r = copy_header(reply, "x-amz-storage-class", &info.storage_class);
	if (r == 0)
		r = copy_header(reply, "content-type", &info.content_type);
	if (r == 0)
		r = copy_meta(reply, &info.meta);
	if (r < 0) {
		object_info_clear(&info);
		return err_set(err, ERR_NO_MEMORY, "object headers");
	}
	if (reply_size(reply, &info.size) == -EBADMSG) {
		object_info_clear(&info);
		return err_set(err, ERR_CORRUPT, "object headers with a size that cannot be");
	}
	const char *when = http_reply_header(reply, "last-modified");
	if (when)
		(void)clock_parse_http(when, &info.modified_ns); /* stays 0: unknown */
	/* What it says of a range is the whole object's with some stores and the range's with others. */
	if (reply->status != 206 && s3_parse_crc32c(http_reply_header(reply, "x-amz-checksum-crc32c"), &info.crc32c))
		info.flags |= OBJECT_CRC32C;
	*ret_info = info;
	return 0;
}

/* --- metadata ---------------------------------------------------------------------------------------------------- */

static bool survives_as_header(const char *value)
{
	size_t len = strlen(value);
	if (len == 0 || strncmp(value, META_MARKER, strlen(META_MARKER)) == 0)
		return false;
	if (value[0] == ' ' || value[len - 1] == ' ')
		return false;
	/* RFC 2047 words are decoded by some stores on the way out. */
	if (strstr(value, "  ") || strstr(value, "=?"))
		return false;
	for (const unsigned char *at = (const unsigned char *)value; *at; at++)
		if (*at < 0x20 || *at > 0x7e)
			return false;
	return true;
}

int s3_meta_encode(struct buf *out, const char *value)
{
	if (survives_as_header(value)) {
		buf_adds(out, value);
	} else {
		buf_adds(out, META_MARKER);
		s3_url_encode(out, value, S3_SLASH_ENCODED);
	}
	return buf_failed(out) ? -ENOMEM : 0;
}

int s3_meta_decode(struct buf *out, const char *text)
{
	size_t marker = strlen(META_MARKER);
	if (strncmp(text, META_MARKER, marker) == 0 && !strchr(text, '+')) {
		AUTO_BUF decoded = BUF_INIT;
		int r = s3_url_decode(&decoded, text + marker);
		if (r == -ENOMEM)
			return r;
		if (r == 0) {
			buf_add(out, decoded.data, decoded.len);
			return buf_failed(out) ? -ENOMEM : 0;
		}
	}
	buf_adds(out, text);
	return buf_failed(out) ? -ENOMEM : 0;
}

static bool meta_name_is_valid(const char *name)
{
	return *name && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.")] == '\0';
}

int s3_meta_headers(struct http_fields *headers, const struct meta *meta, size_t max, struct err *err)
{
	size_t total = 0;
	for (size_t i = 0; meta && i < meta->count; i++) {
		const struct meta_pair *pair = &meta->pairs[i];
		AUTO_BUF name = BUF_INIT;
		AUTO_BUF value = BUF_INIT;
		if (!meta_name_is_valid(pair->name))
			return err_set(err, ERR_UNSUPPORTED, "metadata name \"%.64s\"", pair->name);
		buf_addf(&name, S3_META_PREFIX "%s", pair->name);
		if (s3_meta_encode(&value, pair->value) < 0 || buf_failed(&name))
			return err_set(err, ERR_NO_MEMORY, "metadata");
		total += strlen(pair->name) + value.len;
		http_fields_add(headers, name.data, value.data);
	}
	if (total > max)
		return err_set(err, ERR_TOO_LARGE, "%zu bytes of metadata, the store takes %zu", total, max);
	return 0;
}
