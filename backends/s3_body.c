/*
 * s3_body.c - content on its way out, and what is said of it.
 *
 * Invariant: when the checksum is known, content that differs from it never leaves whole: the last piece is held back
 * and the request fails, so a store cannot commit it.
 * Threads: a body belongs to one request.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "s3.h"

#define BODY_CHUNK (256 * 1024)

static int read_small(struct s3_body *body, struct err *err)
{
	const struct put_request *request = body->request;
	size_t size = (size_t)request->size;
	body->small = malloc(size + 1);
	if (!body->small)
		return err_set(err, ERR_NO_MEMORY, "content of %zu bytes", size);
	int r = size > 0 ? request->source(request->source_arg, body->small, size, 0) : 0;
	if (r < 0)
		return err_from_errno(err, -r, "reading the content to send");
	uint32_t crc = crc32c_update(0, body->small, size);
	if (body->has_crc32c && crc != body->crc32c)
		return err_set(err, ERR_CORRUPT, "content to send is not what its checksum says");
	body->crc32c = crc;
	body->has_crc32c = true;
	return 0;
}

/* One pass more over content that the page cache holds; the store then verifies what it got. */
static int checksum_ahead(struct s3_body *body, struct err *err)
{
	const struct put_request *request = body->request;
	AUTO_FREE char *chunk = malloc(BODY_CHUNK);
	if (!chunk)
		return err_set(err, ERR_NO_MEMORY, "checksum");
	uint32_t crc = 0;
	for (uint64_t at = 0; at < request->size;) {
		size_t n = request->size - at < BODY_CHUNK ? (size_t)(request->size - at) : BODY_CHUNK;
		int r = request->source(request->source_arg, chunk, n, at);
		if (r < 0)
			return err_from_errno(err, -r, "reading the content to send");
		crc = crc32c_update(crc, chunk, n);
		at += n;
	}
	body->crc32c = crc;
	body->has_crc32c = true;
	return 0;
}

int s3_body_open(struct s3 *s3, struct s3_body *body, const struct put_request *request, struct err *err)
{
	*body = (struct s3_body){.request = request, .crc32c = request->crc32c, .has_crc32c = request->has_crc32c};
	int r = 0;
	if (request->size <= S3_SMALL_BODY)
		r = read_small(body, err);
	else if (!request->has_crc32c && (s3->features & S3_FEATURE_CRC32C))
		r = checksum_ahead(body, err);
	if (r < 0)
		s3_body_close(body);
	return r;
}

void s3_body_close(struct s3_body *body)
{
	free(body->small);
	body->small = NULL;
}

/* libcurl asks in order; a resend starts over at 0. */
static int body_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	struct s3_body *body = arg;
	const struct put_request *request = body->request;
	int r = request->source(request->source_arg, ret_bytes, len, offset);
	if (r < 0)
		return r;
	if (offset == 0)
		body->running = 0;
	body->running = crc32c_update(body->running, ret_bytes, len);
	body->position = offset + len;
	if (body->has_crc32c && body->position == request->size && body->running != body->crc32c)
		return -EBADMSG;
	return 0;
}

void s3_body_attach(struct s3_body *body, struct s3_request *request)
{
	request->http.body_size = body->request->size;
	request->http.body = body->small;
	request->http.source = body_source;
	request->http.source_arg = body;
}

void s3_body_declare(const struct s3_body *body, struct s3_request *request)
{
	char text[S3_CRC32C_SIZE];
	if (!body->has_crc32c)
		return;
	s3_format_crc32c(body->crc32c, text);
	http_fields_add(&request->headers, "x-amz-checksum-crc32c", text);
}

int s3_body_check(const struct s3_body *body, const struct http_reply *reply, struct err *err)
{
	uint32_t theirs;
	if (body->has_crc32c && s3_parse_crc32c(http_reply_header(reply, "x-amz-checksum-crc32c"), &theirs) &&
	    theirs != body->crc32c)
		return err_set(err, ERR_CORRUPT, "the store took content with another checksum");
	return 0;
}

/* --- what is said of an object --------------------------------------------------------------------------- */

int s3_describe(struct s3_request *request, const struct put_request *put, struct err *err)
{
	http_fields_add(&request->headers, "content-type",
			put->content_type ? put->content_type : "application/octet-stream");
	if (put->storage_class)
		http_fields_add(&request->headers, "x-amz-storage-class", put->storage_class);
	return s3_meta_headers(&request->headers, put->meta, S3_META_MAX, err);
}

void s3_quote_etag(struct http_fields *headers, const char *name, const char *etag)
{
	http_fields_addf(headers, name, "\"%s\"", etag);
}

void s3_condition(struct s3_request *request, const struct put_condition *condition)
{
	request->if_match = condition->if_none_match ? NULL : condition->if_match;
	if (condition->if_none_match)
		http_fields_add(&request->headers, "if-none-match", "*");
	else if (condition->if_match)
		s3_quote_etag(&request->headers, "if-match", condition->if_match);
}

int s3_copy_source(struct s3 *s3, struct s3_request *request, const struct object_ref *source, struct err *err)
{
	AUTO_BUF plain = BUF_INIT;
	AUTO_BUF value = BUF_INIT;
	int r = s3_check_key(s3, source->key, err);
	if (r < 0)
		return r;
	buf_addf(&plain, "/%s/%s%s", s3->location.bucket, s3->location.prefix, source->key);
	s3_url_encode(&value, plain.data, S3_SLASH_KEPT);
	if (source->native_id) {
		buf_adds(&value, "?versionId=");
		s3_url_encode(&value, source->native_id, S3_SLASH_ENCODED);
	}
	if (buf_failed(&plain) || buf_failed(&value))
		return err_set(err, ERR_NO_MEMORY, "copy");
	http_fields_add(&request->headers, "x-amz-copy-source", value.data);
	if (source->etag)
		s3_quote_etag(&request->headers, "x-amz-copy-source-if-match", source->etag);
	return 0;
}

int s3_finish_info(struct object_info *info, const char *key, struct err *err)
{
	info->key = strdup(key);
	return info->key ? 0 : err_set(err, ERR_NO_MEMORY, "object");
}
