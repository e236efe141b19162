/*
 * s3_url.h - names of S3: s3://bucket/prefix, endpoints, hosts, paths, queries.
 *
 * Pure functions.
 */
#ifndef VARVE_S3_URL_H
#define VARVE_S3_URL_H

#include "buf.h"
#include "err.h"
#include "http.h"

/* RFC 3986 percent-encoding as SigV4 wants it: all but A-Z a-z 0-9 - . _ ~, upper-case digits. */
enum s3_slash { S3_SLASH_ENCODED, S3_SLASH_KEPT };
void s3_url_encode(struct buf *out, const char *text, enum s3_slash slash);
/* %XX and, as encoding-type=url uses it, '+' for a space. 0, or -EINVAL: malformed, or a NUL byte. */
int s3_url_decode(struct buf *out, const char *text);

/* "name=value&…" sorted by encoded name, then value: both the query sent and the canonical one. */
int s3_url_query(struct buf *out, const struct http_fields *query);

/* What s3://bucket/prefix says. */
struct s3_location {
	char *bucket;
	char *prefix; /* "" or ends in '/' */
};
int s3_location_parse(const char *url, struct s3_location *ret_location, struct err *err);
void s3_location_clear(struct s3_location *location);

/* Where requests go. */
struct s3_endpoint {
	bool https;
	bool custom;     /* not AWS: the host never depends on the region */
	bool path_style; /* /bucket/key instead of bucket.host/key */
	char *host;      /* custom: with the port unless it is the scheme's own */
	char *path;      /* custom: "" or "/…" without a final '/', before the bucket */
};
/* `endpoint` NULL: AWS. */
int s3_endpoint_parse(const char *endpoint, const char *bucket, struct s3_endpoint *ret_endpoint, struct err *err);
void s3_endpoint_clear(struct s3_endpoint *endpoint);

/* The Host header, and the encoded path of a key (NULL: the bucket itself). */
void s3_endpoint_host(const struct s3_endpoint *endpoint, const char *bucket, const char *region, struct buf *out);
void s3_endpoint_path(const struct s3_endpoint *endpoint, const char *bucket, const char *key, struct buf *out);

#endif
