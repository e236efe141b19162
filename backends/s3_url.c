/*
 * s3_url.c - names of S3: s3://bucket/prefix, endpoints, hosts, paths, queries.
 *
 * The encoded path and query made here are both what is sent and what is signed, so the two can never differ.
 * Pure functions, no state.
 */
#include "s3_url.h"
#include "array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"

static bool is_unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

void s3_url_encode(struct buf *out, const char *text, enum s3_slash slash)
{
	static const char digits[] = "0123456789ABCDEF";
	for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
		if (is_unreserved(*at) || (*at == '/' && slash == S3_SLASH_KEPT)) {
			buf_addc(out, (char)*at);
		} else {
			char escape[3] = {'%', digits[*at >> 4], digits[*at & 15]};
			buf_add(out, escape, sizeof(escape));
		}
	}
}

int s3_url_decode(struct buf *out, const char *text)
{
	for (const char *at = text; *at; at++) {
		if (*at == '+') {
			buf_addc(out, ' ');
		} else if (*at == '%') {
			char digits[3] = {0};
			uint8_t byte;
			if (!at[1] || !at[2])
				return -EINVAL;
			memcpy(digits, at + 1, 2);
			if (hex_decode(digits, 1, &byte) < 0 || byte == 0)
				return -EINVAL;
			buf_addc(out, (char)byte);
			at += 2;
		} else {
			buf_addc(out, *at);
		}
	}
	return buf_failed(out) ? -ENOMEM : 0;
}

/* --- queries --------------------------------------------------------------------------------------- */

/* Sorting whole pairs is sorting by name then value as long as no name is another's start followed by a character below
 * '=' (a digit, '-', '.', '%'); none of S3's parameters is. */
int s3_url_query(struct buf *out, const struct http_fields *query)
{
	AUTO_FREE char **pairs = calloc(query->count + 1, sizeof(*pairs));
	int r = pairs ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < query->count; i++) {
		AUTO_BUF pair = BUF_INIT;
		s3_url_encode(&pair, query->items[i].name, S3_SLASH_ENCODED);
		buf_addc(&pair, '=');
		s3_url_encode(&pair, query->items[i].value, S3_SLASH_ENCODED);
		pairs[i] = buf_detach(&pair);
		if (!pairs[i])
			r = -ENOMEM;
	}
	if (r == 0) {
		qsort(pairs, query->count, sizeof(*pairs), array_by_string);
		for (size_t i = 0; i < query->count; i++) {
			if (i > 0)
				buf_addc(out, '&');
			buf_adds(out, pairs[i]);
		}
	}
	for (size_t i = 0; pairs && i < query->count; i++)
		free(pairs[i]);
	return r == 0 && (buf_failed(out) || query->failed) ? -ENOMEM : r;
}

/* --- s3://bucket/prefix ---------------------------------------------------------------------------------- */

/* What a host name and a path segment can carry; the store has the last word on the rest. */
static bool bucket_is_valid(const char *bucket)
{
	size_t len = strlen(bucket);
	if (len < 3 || len > 255 || bucket[0] == '.' || bucket[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_unreserved((unsigned char)bucket[i]) || bucket[i] == '~')
			return false;
	return strstr(bucket, "..") == NULL;
}

int s3_location_parse(const char *url, struct s3_location *ret_location, struct err *err)
{
	static const char scheme[] = "s3://";
	if (strncmp(url, scheme, sizeof(scheme) - 1) != 0)
		return err_set(err, ERR_CONFIGURATION, "not an s3://bucket/prefix URL: %.100s", url);
	const char *at = url + sizeof(scheme) - 1;
	if (strpbrk(at, "?#"))
		return err_set(err, ERR_CONFIGURATION, "'?' and '#' have no place in an S3 URL: %.100s", url);

	size_t bucket_len = strcspn(at, "/");
	struct s3_location location = {.bucket = strndup(at, bucket_len)};
	at += bucket_len;
	at += strspn(at, "/");
	AUTO_BUF prefix = BUF_INIT;
	buf_adds(&prefix, at);
	while (prefix.len > 0 && prefix.data[prefix.len - 1] == '/')
		prefix.data[--prefix.len] = '\0';
	if (prefix.len > 0)
		buf_addc(&prefix, '/');
	location.prefix = buf_detach(&prefix);

	int r = 0;
	if (!location.bucket || !location.prefix)
		r = err_set(err, ERR_NO_MEMORY, "S3 URL");
	else if (!bucket_is_valid(location.bucket))
		r = err_set(err, ERR_CONFIGURATION, "no bucket name: \"%.100s\"", location.bucket);
	if (r < 0) {
		s3_location_clear(&location);
		return r;
	}
	*ret_location = location;
	return 0;
}

void s3_location_clear(struct s3_location *location)
{
	free(location->bucket);
	free(location->prefix);
	*location = (struct s3_location){0};
}

/* --- endpoints ----------------------------------------------------------------------------------------------- */

/* The port must not be in the Host header when it is the scheme's own: libcurl leaves it out, and it is signed. */
static size_t host_length(const char *host, size_t len, bool https)
{
	const char *port = https ? ":443" : ":80";
	size_t port_len = strlen(port);
	if (len > port_len && memcmp(host + len - port_len, port, port_len) == 0)
		return len - port_len;
	return len;
}

static bool host_is_valid(const char *host)
{
	return *host &&
	       host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]")] == '\0';
}

static bool path_is_valid(const char *path)
{
	for (const char *at = path; *at; at++)
		if (!is_unreserved((unsigned char)*at) && *at != '/')
			return false;
	return true;
}

int s3_endpoint_parse(const char *endpoint, const char *bucket, struct s3_endpoint *ret_endpoint, struct err *err)
{
	struct s3_endpoint parsed = {.https = true, .path_style = strchr(bucket, '.') != NULL};
	if (!endpoint || !*endpoint) {
		*ret_endpoint = parsed;
		return 0;
	}
	const char *at = endpoint;
	if (strncmp(at, "https://", 8) == 0) {
		at += 8;
	} else if (strncmp(at, "http://", 7) == 0) {
		parsed.https = false;
		at += 7;
	} else if (strstr(at, "://")) {
		return err_set(err, ERR_CONFIGURATION, "endpoint is neither http:// nor https://: %.100s", endpoint);
	}
	size_t authority = strcspn(at, "/");
	const char *path = at + authority;
	size_t path_len = strlen(path);
	while (path_len > 0 && path[path_len - 1] == '/')
		path_len--;
	parsed.custom = true;
	parsed.path_style = true;
	parsed.host = strndup(at, host_length(at, authority, parsed.https));
	parsed.path = strndup(path, path_len);
	int r = 0;
	if (!parsed.host || !parsed.path)
		r = err_set(err, ERR_NO_MEMORY, "endpoint");
	else if (!host_is_valid(parsed.host) || !path_is_valid(parsed.path))
		/* not shown: people put user:password@ there */
		r = err_set(err, ERR_CONFIGURATION, "endpoint is not of the form https://host[:port][/path]");
	if (r < 0) {
		s3_endpoint_clear(&parsed);
		return r;
	}
	*ret_endpoint = parsed;
	return 0;
}

void s3_endpoint_clear(struct s3_endpoint *endpoint)
{
	free(endpoint->host);
	free(endpoint->path);
	*endpoint = (struct s3_endpoint){0};
}

void s3_endpoint_host(const struct s3_endpoint *endpoint, const char *bucket, const char *region, struct buf *out)
{
	if (endpoint->custom) {
		buf_adds(out, endpoint->host);
		return;
	}
	if (!endpoint->path_style)
		buf_addf(out, "%s.", bucket);
	const char *tld = strncmp(region, "cn-", 3) == 0 ? ".cn" : "";
	buf_addf(out, "s3.%s.amazonaws.com%s", region, tld);
}

void s3_endpoint_path(const struct s3_endpoint *endpoint, const char *bucket, const char *key, struct buf *out)
{
	if (endpoint->custom)
		buf_adds(out, endpoint->path);
	if (endpoint->path_style) {
		buf_addc(out, '/');
		s3_url_encode(out, bucket, S3_SLASH_ENCODED);
	}
	if (key || !endpoint->path_style)
		buf_addc(out, '/');
	if (key)
		s3_url_encode(out, key, S3_SLASH_KEPT);
}
