/*
 * s3_sign.h - AWS Signature Version 4 in the Authorization header.
 *
 * Pure functions, but for the cache of the derived key.
 */
#ifndef VARVE_S3_SIGN_H
#define VARVE_S3_SIGN_H

#include "buf.h"
#include "checksum.h"
#include "http.h"
#include "lock.h"

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define S3_DATE_SIZE 17 /* 20150830T123600Z and the NUL */

void s3_sign_date(int64_t wall_ns, char ret_date[static S3_DATE_SIZE]);

/* What is signed. Every header in `headers` is; "host" and "x-amz-date" must be among them. */
struct s3_sign_request {
	const char *method;
	const char *path;  /* encoded, as sent */
	const char *query; /* encoded and sorted, as sent; "" for none */
	const struct http_fields *headers;
	const char *payload; /* hex of the body's SHA-256, or S3_UNSIGNED_PAYLOAD */
	const char *date;    /* s3_sign_date */
	const char *region;
	const char *service; /* "s3" */
};

/* The canonical request, and the list of its headers ("host;x-amz-date"). 0 or -ENOMEM. */
int s3_sign_canonical(const struct s3_sign_request *request, struct buf *ret_canonical, struct buf *ret_signed_headers);

/* The key that signs a day's requests to one region. */
void s3_sign_derive(const char *secret, const struct s3_sign_request *request, uint8_t ret_key[static SHA256_SIZE]);

/* Appends the value of the Authorization header. 0 or -ENOMEM. */
int s3_sign_authorization(const struct s3_sign_request *request, const char *access_key,
			  const uint8_t key[static SHA256_SIZE], struct buf *ret_value);

/* The last derived key: four HMACs saved per request. Thread-safe. */
struct s3_sign_cache {
	struct lock lock;
	uint8_t scope[SHA256_SIZE]; /* digest of secret, day, region, service: what the key was derived from */
	uint8_t key[SHA256_SIZE];
	bool filled;
};
void s3_sign_cache_init(struct s3_sign_cache *cache);
void s3_sign_cache_clear(struct s3_sign_cache *cache); /* wipes */
void s3_sign_cache_key(struct s3_sign_cache *cache, const char *secret, const struct s3_sign_request *request,
		       uint8_t ret_key[static SHA256_SIZE]);

#endif
