/*
 * s3_url.c - names of S3: URLs, endpoints, encodings.
 */
#include "backends/s3_url.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void expect_location(const char *url, const char *bucket, const char *prefix)
{
	struct s3_location location;
	struct err err;
	cr_assert_eq(s3_location_parse(url, &location, &err), 0, "%s", url);
	cr_assert_str_eq(location.bucket, bucket);
	cr_assert_str_eq(location.prefix, prefix);
	s3_location_clear(&location);
}

Test(s3_url, prefixes_end_in_one_slash_or_are_empty)
{
	expect_location("s3://bucket", "bucket", "");
	expect_location("s3://bucket/", "bucket", "");
	expect_location("s3://bucket/a/b", "bucket", "a/b/");
	expect_location("s3://bucket/a/b//", "bucket", "a/b/");
	expect_location("s3://my.bucket//a", "my.bucket", "a/");
}

Test(s3_url, refuses_what_is_no_bucket)
{
	static const char *const urls[] = {
		"http://bucket/x", "s3://",       "s3:///x",           "s3://ab",
		"s3://a..b/x",     "s3://a b c/", "s3://user:pw@bkt/", "s3://bucket?versioning",
		"s3://.hidden/x"};
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct s3_location location;
		struct err err;
		cr_assert_lt(s3_location_parse(urls[i], &location, &err), 0, "%s", urls[i]);
		cr_assert_eq(err.kind, ERR_CONFIGURATION);
	}
}

static void expect_target(const char *endpoint, const char *bucket, const char *host, const char *path)
{
	struct s3_endpoint parsed;
	struct err err;
	struct buf text = BUF_INIT;
	cr_assert_eq(s3_endpoint_parse(endpoint, bucket, &parsed, &err), 0, "%s", endpoint);
	s3_endpoint_host(&parsed, bucket, "eu-west-1", &text);
	cr_assert_str_eq(text.data, host);
	buf_reset(&text);
	s3_endpoint_path(&parsed, bucket, "a b/ä+~", &text);
	cr_assert_str_eq(text.data, path);
	buf_free(&text);
	s3_endpoint_clear(&parsed);
}

Test(s3_url, hosts_and_paths)
{
	expect_target(NULL, "bucket", "bucket.s3.eu-west-1.amazonaws.com", "/a%20b/%C3%A4%2B~");
	expect_target(NULL, "my.bucket", "s3.eu-west-1.amazonaws.com", "/my.bucket/a%20b/%C3%A4%2B~");
	expect_target("http://127.0.0.1:9000/", "bucket", "127.0.0.1:9000", "/bucket/a%20b/%C3%A4%2B~");
	expect_target("https://store.example/s3/", "bucket", "store.example", "/s3/bucket/a%20b/%C3%A4%2B~");
	expect_target("https://store.example:443", "bucket", "store.example", "/bucket/a%20b/%C3%A4%2B~");
	expect_target("http://store.example:443", "bucket", "store.example:443", "/bucket/a%20b/%C3%A4%2B~");
}

Test(s3_url, refuses_endpoints_with_credentials_and_does_not_repeat_them)
{
	struct s3_endpoint endpoint;
	struct err err;
	cr_assert_lt(s3_endpoint_parse("https://user:hunter2@host", "bucket", &endpoint, &err), 0);
	cr_assert_eq(err.kind, ERR_CONFIGURATION);
	cr_assert_null(strstr(err.message, "hunter2"));
	cr_assert_lt(s3_endpoint_parse("ftp://host", "bucket", &endpoint, &err), 0);
	cr_assert_lt(s3_endpoint_parse("https://", "bucket", &endpoint, &err), 0);
}

Test(s3_url, encoding_is_reversible)
{
	char all[256];
	struct buf encoded = BUF_INIT, decoded = BUF_INIT;
	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	s3_url_encode(&encoded, all, S3_SLASH_ENCODED);
	cr_assert_null(strpbrk(encoded.data, "/+ &=?#"));
	cr_assert_eq(s3_url_decode(&decoded, encoded.data), 0);
	cr_assert_str_eq(decoded.data, all);
	buf_free(&encoded);
	buf_free(&decoded);
}

Test(s3_url, decoding_refuses_malformed_escapes_and_nul)
{
	static const char *const bad[] = {"%", "%4", "%zz", "a%00b", "a%+1"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct buf out = BUF_INIT;
		cr_assert_eq(s3_url_decode(&out, bad[i]), -EINVAL, "%s", bad[i]);
		buf_free(&out);
	}
}

Test(s3_url, queries_are_sorted_and_encoded)
{
	struct http_fields query = {0};
	struct buf out = BUF_INIT;
	http_fields_add(&query, "prefix", "a b/c&d");
	http_fields_add(&query, "list-type", "2");
	http_fields_add(&query, "continuation-token", "x=y");
	cr_assert_eq(s3_url_query(&out, &query), 0);
	cr_assert_str_eq(out.data, "continuation-token=x%3Dy&list-type=2&prefix=a%20b%2Fc%26d");
	buf_free(&out);
	http_fields_clear(&query);
}
