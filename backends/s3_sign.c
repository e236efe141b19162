/*
 * s3_sign.c - AWS Signature Version 4 in the Authorization header.
 *
 * After "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference. S3's dialect: the path is encoded
 * once and not normalised.
 *
 * Threads: pure but for s3_sign_cache, whose fields its lock guards.
 */
#include "s3_sign.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"

#define SIGN_ALGORITHM "AWS4-HMAC-SHA256"
#define SIGN_DAY_LEN 8 /* 20150830 */

void s3_sign_date(int64_t wall_ns, char ret_date[static S3_DATE_SIZE])
{
	struct tm tm;
	time_t seconds = (time_t)(wall_ns / NS_PER_SEC);
	gmtime_r(&seconds, &tm);
	(void)strftime(ret_date, S3_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm); /* fits: four-digit years */
}

static int compare_fields(const void *a, const void *b)
{
	const struct http_field *const *x = a, *const *y = b;
	return strcasecmp((*x)->name, (*y)->name);
}

static void add_lower(struct buf *out, const char *text)
{
	for (; *text; text++)
		buf_addc(out, (char)tolower((unsigned char)*text));
}

/* Trimmed, runs of spaces as one. */
static void add_folded(struct buf *out, const char *value)
{
	size_t start = out->len;
	for (; *value; value++) {
		bool space = *value == ' ' || *value == '\t';
		if (!space)
			buf_addc(out, *value);
		else if (out->len > start && out->data[out->len - 1] != ' ')
			buf_addc(out, ' ');
	}
	if (out->len > start && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

int s3_sign_canonical(const struct s3_sign_request *request, struct buf *ret_canonical, struct buf *ret_signed_headers)
{
	size_t count = request->headers->count;
	AUTO_FREE const struct http_field **sorted = calloc(count + 1, sizeof(const struct http_field *));
	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		sorted[i] = &request->headers->items[i];
	qsort(sorted, count, sizeof(*sorted), compare_fields);

	buf_addf(ret_canonical, "%s\n", request->method);
	buf_adds(ret_canonical, request->path);
	buf_addc(ret_canonical, '\n');
	buf_adds(ret_canonical, request->query);
	buf_addc(ret_canonical, '\n');
	for (size_t i = 0; i < count; i++) {
		add_lower(ret_canonical, sorted[i]->name);
		buf_addc(ret_canonical, ':');
		add_folded(ret_canonical, sorted[i]->value);
		buf_addc(ret_canonical, '\n');
		if (i > 0)
			buf_addc(ret_signed_headers, ';');
		add_lower(ret_signed_headers, sorted[i]->name);
	}
	buf_addc(ret_canonical, '\n');
	buf_add(ret_canonical, ret_signed_headers->data, ret_signed_headers->len);
	buf_addc(ret_canonical, '\n');
	buf_adds(ret_canonical, request->payload);
	return buf_failed(ret_canonical) || buf_failed(ret_signed_headers) ? -ENOMEM : 0;
}

static void hmac_text(const uint8_t key[static SHA256_SIZE], const char *text, uint8_t ret_mac[static SHA256_SIZE])
{
	hmac_sha256(key, SHA256_SIZE, text, strlen(text), ret_mac);
}

void s3_sign_derive(const char *secret, const struct s3_sign_request *request, uint8_t ret_key[static SHA256_SIZE])
{
	uint8_t a[SHA256_SIZE], b[SHA256_SIZE];
	AUTO_BUF start = BUF_INIT;
	buf_addf(&start, "AWS4%s", secret);
	hmac_sha256(start.data, start.len, request->date, SIGN_DAY_LEN, a);
	hmac_text(a, request->region, b);
	hmac_text(b, request->service, a);
	hmac_text(a, "aws4_request", ret_key);
	explicit_bzero(start.data, start.len);
	explicit_bzero(a, sizeof(a));
	explicit_bzero(b, sizeof(b));
}

int s3_sign_authorization(const struct s3_sign_request *request, const char *access_key,
			  const uint8_t key[static SHA256_SIZE], struct buf *ret_value)
{
	AUTO_BUF canonical = BUF_INIT;
	AUTO_BUF signed_headers = BUF_INIT;
	AUTO_BUF to_sign = BUF_INIT;
	AUTO_BUF scope = BUF_INIT;
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	if (s3_sign_canonical(request, &canonical, &signed_headers) < 0)
		return -ENOMEM;
	sha256_of(canonical.data, canonical.len, digest);
	hex_encode(digest, sizeof(digest), hex);
	buf_addf(&scope, "%.*s/%s/%s/aws4_request", SIGN_DAY_LEN, request->date, request->region, request->service);
	buf_addf(&to_sign, SIGN_ALGORITHM "\n%s\n%s\n%s", request->date, scope.data, hex);
	hmac_sha256(key, SHA256_SIZE, to_sign.data, to_sign.len, digest);
	hex_encode(digest, sizeof(digest), hex);
	buf_addf(ret_value, SIGN_ALGORITHM " Credential=%s/%s,SignedHeaders=%s,Signature=%s", access_key, scope.data,
		 signed_headers.data, hex);
	return buf_failed(&scope) || buf_failed(&to_sign) || buf_failed(ret_value) ? -ENOMEM : 0;
}

/* --- the key of the day -------------------------------------------------------------------------------- */

void s3_sign_cache_init(struct s3_sign_cache *cache)
{
	*cache = (struct s3_sign_cache){0};
	lock_init(&cache->lock, LOCK_LEAF);
}

void s3_sign_cache_clear(struct s3_sign_cache *cache)
{
	explicit_bzero(cache->key, sizeof(cache->key));
	explicit_bzero(cache->scope, sizeof(cache->scope));
	cache->filled = false;
	lock_destroy(&cache->lock);
}

void s3_sign_cache_key(struct s3_sign_cache *cache, const char *secret, const struct s3_sign_request *request,
		       uint8_t ret_key[static SHA256_SIZE])
{
	uint8_t scope[SHA256_SIZE];
	AUTO_BUF text = BUF_INIT;
	buf_addf(&text, "%s\n%.*s\n%s\n%s", secret, SIGN_DAY_LEN, request->date, request->region, request->service);
	sha256_of(text.data, text.len, scope);
	explicit_bzero(text.data, text.len);

	LOCK_GUARD(&cache->lock);
	if (!cache->filled || memcmp(cache->scope, scope, sizeof(scope)) != 0) {
		s3_sign_derive(secret, request, cache->key);
		memcpy(cache->scope, scope, sizeof(scope));
		cache->filled = true;
	}
	memcpy(ret_key, cache->key, SHA256_SIZE);
}
