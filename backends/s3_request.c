/*
 * s3_request.c - one signed exchange with the store.
 *
 * Invariant: the URL sent is made of the very path and query that were signed, and every header is signed but
 * Authorization itself.
 * Payloads: content in memory is signed by its SHA-256 over plain http, where nothing else would protect it from being
 * changed on the way; over https, and for content that is streamed, the payload is UNSIGNED-PAYLOAD: hashing 5 GiB
 * would cost more than sending it, TLS guards the bytes, and the signed x-amz-checksum-crc32c header covers them either
 * way. Threads: region, skew and credentials are shared; each has its own guard and is copied for one sending.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "s3.h"

#define SKEW_TOLERATED_NS (5 * 60 * NS_PER_SEC)
#define SHA256_OF_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* What was put right already during one exchange. */
enum mended { MENDED_CLOCK = 1 << 0, MENDED_REGION = 1 << 1, MENDED_CREDENTIALS = 1 << 2 };

void s3_request_clear(struct s3_request *request)
{
	http_fields_clear(&request->query);
	http_fields_clear(&request->headers);
}

int s3_check_key(const struct s3 *s3, const char *key, struct err *err)
{
	size_t len = strlen(key);
	if (len == 0)
		return err_set(err, ERR_INTERNAL, "empty key");
	if (len > s3->max_key)
		return err_set(err, ERR_TOO_LARGE, "key of %zu bytes, the store takes %u", len, s3->max_key);
	return 0;
}

/* --- signing --------------------------------------------------------------------------------------------- */

struct sending {
	struct buf host, path, query, url;
	struct http_fields headers;
	char region[S3_REGION_SIZE];
	char date[S3_DATE_SIZE];
	char payload[SHA256_HEX_SIZE];
	struct s3_credentials credentials;
};

static void sending_clear(struct sending *sending)
{
	buf_free(&sending->host);
	buf_free(&sending->path);
	buf_free(&sending->query);
	buf_free(&sending->url);
	http_fields_clear(&sending->headers);
	s3_credentials_clear(&sending->credentials);
}

static void hash_payload(const struct s3 *s3, const struct http_request *http, char ret_text[static SHA256_HEX_SIZE])
{
	uint8_t digest[SHA256_SIZE];
	if (http->body_size == 0) {
		memcpy(ret_text, SHA256_OF_NOTHING, SHA256_HEX_SIZE);
	} else if (http->body && !s3->endpoint.https) {
		sha256_of(http->body, http->body_size, digest);
		hex_encode(digest, sizeof(digest), ret_text);
	} else {
		memcpy(ret_text, S3_UNSIGNED_PAYLOAD, sizeof(S3_UNSIGNED_PAYLOAD));
	}
}

static int build_target(struct s3 *s3, const struct s3_request *request, struct sending *sending)
{
	AUTO_BUF key = BUF_INIT;
	if (request->key)
		buf_addf(&key, "%s%s", s3->location.prefix, request->key);
	s3_endpoint_host(&s3->endpoint, s3->location.bucket, sending->region, &sending->host);
	s3_endpoint_path(&s3->endpoint, s3->location.bucket, request->key ? key.data : NULL, &sending->path);
	int r = s3_url_query(&sending->query, &request->query);
	buf_addf(&sending->url, "http%s://%s", s3->endpoint.https ? "s" : "", sending->host.data);
	buf_add(&sending->url, sending->path.data, sending->path.len);
	if (sending->query.len > 0) {
		buf_addc(&sending->url, '?');
		buf_add(&sending->url, sending->query.data, sending->query.len);
	}
	return buf_failed(&key) || buf_failed(&sending->host) || buf_failed(&sending->path) || buf_failed(&sending->url)
		       ? -ENOMEM
		       : r;
}

static void build_headers(const struct s3_request *request, struct sending *sending)
{
	struct http_fields *headers = &sending->headers;
	for (size_t i = 0; i < request->headers.count; i++)
		http_fields_add(headers, request->headers.items[i].name, request->headers.items[i].value);
	headers->failed |= request->headers.failed;
	http_fields_add(headers, "host", sending->host.data);
	http_fields_add(headers, "x-amz-date", sending->date);
	http_fields_add(headers, "x-amz-content-sha256", sending->payload);
	if (sending->credentials.session_token)
		http_fields_add(headers, "x-amz-security-token", secret_reveal(sending->credentials.session_token));
}

static int sign(struct s3 *s3, const struct s3_request *request, struct sending *sending)
{
	uint8_t key[SHA256_SIZE];
	AUTO_BUF authorization = BUF_INIT;
	const struct s3_sign_request to_sign = {
		.method = http_method_name(request->method),
		.path = sending->path.data,
		.query = sending->query.data,
		.headers = &sending->headers,
		.payload = sending->payload,
		.date = sending->date,
		.region = sending->region,
		.service = "s3",
	};
	s3_sign_cache_key(&s3->sign_cache, secret_reveal(sending->credentials.secret), &to_sign, key);
	int r = s3_sign_authorization(&to_sign, sending->credentials.access_key, key, &authorization);
	explicit_bzero(key, sizeof(key));
	http_fields_add(&sending->headers, "authorization", authorization.data);
	return sending->headers.failed ? -ENOMEM : r;
}

static int sending_build(struct s3 *s3, const struct s3_request *request, enum s3_freshness freshness,
			 struct sending *sending, struct err *err)
{
	int r = s3_identity_get(s3->identity, freshness, &sending->credentials, err);
	if (r < 0)
		return r;
	{
		LOCK_GUARD(&s3->lock);
		memcpy(sending->region, s3->region, sizeof(sending->region));
	}
	s3_sign_date(clock_wall() + s3->skew_ns, sending->date);
	hash_payload(s3, &request->http, sending->payload);
	r = build_target(s3, request, sending);
	if (r == 0) {
		build_headers(request, sending);
		r = sign(s3, request, sending);
	}
	return r < 0 ? err_set(err, ERR_NO_MEMORY, "request") : 0;
}

static int send_once(struct s3 *s3, const struct call *call, const struct s3_request *request,
		     enum s3_freshness freshness, struct http_reply *ret_reply, struct err *err)
{
	struct sending sending = {.host = BUF_INIT, .path = BUF_INIT, .query = BUF_INIT, .url = BUF_INIT};
	int r = sending_build(s3, request, freshness, &sending, err);
	if (r == 0) {
		struct http_request http = request->http;
		http.method = request->method;
		http.url = sending.url.data;
		http.headers = &sending.headers;
		r = http_perform(s3->http, call, &http, ret_reply, err);
	}
	sending_clear(&sending);
	return r;
}

/* --- putting right what the store complains about ------------------------------------------------------------ */

static bool mend_clock(struct s3 *s3, const struct http_reply *reply, const struct s3_error *error)
{
	const char *date = http_reply_header(reply, "date");
	int64_t theirs;
	if (reply->status != 403 || !date || clock_parse_http(date, &theirs) < 0)
		return false;
	int64_t skew = theirs - clock_wall();
	int64_t change = skew - s3->skew_ns;
	bool off = change > SKEW_TOLERATED_NS || change < -SKEW_TOLERATED_NS;
	/* The reply to a HEAD cannot say which kind of 403 it is; a clock that is off makes it likely. */
	if (strcmp(error->code, "RequestTimeTooSkewed") != 0 && !(off && !*error->code))
		return false;
	s3->skew_ns = skew;
	return true;
}

static bool region_is_valid(const char *region)
{
	return *region && strlen(region) < S3_REGION_SIZE &&
	       region[strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")] == '\0';
}

/* The region becomes part of a host name that gets our signature: only one label of plain characters may. */
static bool mend_region(struct s3 *s3, const struct http_reply *reply, const struct s3_error *error)
{
	const char *region = http_reply_header(reply, "x-amz-bucket-region");
	bool asked = reply->status == 301 || reply->status == 307 || reply->status == 400 ||
		     strcmp(error->code, "AuthorizationHeaderMalformed") == 0;
	if (!region)
		region = error->region;
	if (!asked || !region_is_valid(region))
		return false;
	LOCK_GUARD(&s3->lock);
	if (strcmp(s3->region, region) == 0)
		return false;
	memcpy(s3->region, region, strlen(region) + 1);
	return true;
}

static bool is_expired(const struct s3_request *request, const struct http_reply *reply, const struct s3_error *error)
{
	static const char *const codes[] = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired",
					    "InvalidAccessKeyId"};
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (strcmp(codes[i], error->code) == 0)
			return true;
	return request->method == HTTP_HEAD && reply->status == 400;
}

/* What to mend before one more sending; 0: nothing can be. */
static unsigned find_mend(struct s3 *s3, const struct s3_request *request, const struct http_reply *reply,
			  const struct s3_error *error, unsigned mended)
{
	if (!(mended & MENDED_CLOCK) && mend_clock(s3, reply, error))
		return MENDED_CLOCK;
	if (!(mended & MENDED_REGION) && mend_region(s3, reply, error))
		return MENDED_REGION;
	if (!(mended & MENDED_CREDENTIALS) && is_expired(request, reply, error))
		return MENDED_CREDENTIALS;
	return 0;
}

int s3_exchange(struct s3 *s3, const struct call *call, struct s3_request *request, struct http_reply *ret_reply,
		struct err *err)
{
	enum s3_intent intent =
		http_method_changes(request->method) && !request->http.idempotent ? S3_CHANGES : S3_READS;
	unsigned mended = 0, mend = 0;
	for (;;) {
		struct http_reply reply = {.body = BUF_INIT};
		struct s3_error error;
		enum s3_freshness freshness =
			mend == MENDED_CREDENTIALS ? S3_CREDENTIALS_REFRESHED : S3_CREDENTIALS_CURRENT;
		int r = send_once(s3, call, request, freshness, &reply, err);
		if (r < 0)
			return r;
		r = s3_reply_check(&reply, intent, &error, err);
		if (r == 0) {
			*ret_reply = reply;
			return 0;
		}
		/* Not the upload, say, but what If-Match asks for: there is nothing at the key. */
		if (request->if_match && strcmp(error.code, "NoSuchKey") == 0)
			r = err_set(err, ERR_PRECONDITION, "no object has etag %.64s", request->if_match);
		if (r != -ENOENT && r != -ESTALE)
			s3->counters.errors++;
		mend = find_mend(s3, request, &reply, &error, mended);
		http_reply_clear(&reply);
		if (!mend)
			return r;
		mended |= mend;
	}
}
