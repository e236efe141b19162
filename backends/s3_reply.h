/*
 * s3_reply.h - what S3's status codes, error codes and headers mean to us, and metadata on its way there.
 *
 * Pure functions.
 */
#ifndef VARVE_S3_REPLY_H
#define VARVE_S3_REPLY_H

#include "http.h"
#include "s3_xml.h"

#define S3_META_PREFIX "x-amz-meta-"

enum s3_intent { S3_READS, S3_CHANGES };

/* 0 for a 2xx reply; else *err by S3's code and the status, and *ret_error what the body said. */
int s3_reply_check(const struct http_reply *reply, enum s3_intent intent, struct s3_error *ret_error, struct err *err);

/* CopyObject, UploadPartCopy and CompleteMultipartUpload send 200 first and find out later: a body that is an
 * <Error> is the outcome, and one that is nothing at all leaves it open. */
int s3_reply_check_late(const struct http_reply *reply, struct err *err);

/* Quotes are never part of an etag. */
void s3_strip_quotes(char *etag);

/* What the headers of head, get and put say of an object. info->key is not touched. 0 or -errno with err filled. */
int s3_reply_info(const struct http_reply *reply, struct object_info *ret_info, struct err *err);

/* "bytes 0-9/100". 0 or -EINVAL. */
struct s3_range {
	uint64_t first, last, total;
};
int s3_parse_range(const char *text, struct s3_range *ret_range);

/* x-amz-checksum-crc32c: base64 of 4 bytes, big-endian; false for composite ones ("…-3") and nonsense. */
#define S3_CRC32C_SIZE 9
bool s3_parse_crc32c(const char *text, uint32_t *ret_crc);
void s3_format_crc32c(uint32_t crc, char ret_text[static S3_CRC32C_SIZE]);

/*
 * Metadata values are bytes; header values are printable ASCII whose outer
 * blanks get lost and inner ones may be folded. A value that would not survive,
 * or that starts with the marker itself, becomes "%~" and the value with every
 * byte but A-Z a-z 0-9 - . _ ~ as %XX. All other values are sent as they are, so
 * other tools read them. Reversible: decode(encode(v)) == v for every v.
 */
int s3_meta_encode(struct buf *out, const char *value);
int s3_meta_decode(struct buf *out, const char *text); /* what does not decode is taken as it is */
int s3_meta_headers(struct http_fields *headers, const struct meta *meta, size_t max, struct err *err);

#endif
