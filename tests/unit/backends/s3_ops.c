/*
 * s3_ops.c - the S3 backend against replies that must not be believed.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3.h"
#include "clock.h"
#include "http_server.h"

#define OK_HEAD "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"e1\"\r\n"
#define PARTIAL_HEAD "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nETag: \"e1\"\r\n"

static struct server *server;
static struct backend *backend;

/* A backend of s3://bucket/pre at a server that gives these replies, and closes after each. */
static void start(const char *reply, const char *const *replies)
{
	char endpoint[64];
	struct err err = {0};
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	server = server_start(REPLY_AND_CLOSE, reply);
	server->replies = replies;
	(void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", server->port);
	const struct backend_options options = {.url = "s3://bucket/pre", .endpoint = endpoint, .region = "us-east-1"};
	cr_assert_eq(s3_backend_ops.open(&options, &backend, &err), 0, "%s", err.message);
}

static void stop(void)
{
	s3_backend_ops.close(backend);
	server_stop(server);
}

static uint64_t sunk;

static int count(void *arg, const void *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	sunk += len;
	return 0;
}

static int get(struct get_request request, struct err *err)
{
	request.object.key = "k";
	request.sink = count;
	sunk = 0;
	*err = (struct err){0};
	return s3_backend_ops.get(backend, NULL, &request, NULL, err);
}

static const struct get_request middle = {.offset = 10, .length = 5, .expected_size = 100};
static const struct get_request whole = {.length = UINT64_MAX, .expected_size = UINT64_MAX};

static void expect_refused(const char *reply, struct get_request request, enum err_kind kind)
{
	struct err err;
	start(reply, NULL);
	cr_assert_lt(get(request, &err), 0, "accepted: %s", reply);
	cr_assert_eq(err.kind, kind, "%s: %s", err_kind_name(err.kind), err.message);
	stop();
}

Test(s3_ops, a_right_range_is_delivered)
{
	struct err err;
	start(PARTIAL_HEAD "Content-Range: bytes 10-14/100\r\nContent-Length: 5\r\n\r\nhello", NULL);
	cr_assert_eq(get(middle, &err), 0, "%s", err.message);
	cr_assert_eq(sunk, 5);
	cr_assert_not_null(strstr(server->last, "GET /bucket/pre/k HTTP/1.1\r\n"));
	cr_assert_not_null(strcasestr(server->last, "range: bytes=10-14\r\n"));
	stop();
}

Test(s3_ops, wrong_ranges_never_reach_the_sink)
{
	static const char *const replies[] = {
		OK_HEAD "Content-Length: 5\r\n\r\nhello",
		PARTIAL_HEAD "Content-Length: 5\r\n\r\nhello",
		PARTIAL_HEAD "Content-Range: bytes 11-15/100\r\nContent-Length: 5\r\n\r\nhello",
		PARTIAL_HEAD "Content-Range: bytes 10-13/100\r\nContent-Length: 4\r\n\r\nhell",
		PARTIAL_HEAD "Content-Range: bytes 10-14/101\r\nContent-Length: 5\r\n\r\nhello",
		PARTIAL_HEAD "Content-Range: bytes 10-14/100\r\nContent-Length: 6\r\n\r\nhello!",
		PARTIAL_HEAD "Content-Range: bytes 10-14/100\r\n\r\nhello",
	};
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		expect_refused(replies[i], middle, ERR_CORRUPT);
		cr_assert_eq(sunk, 0, "%s", replies[i]);
	}
}

Test(s3_ops, another_object_than_asked_for_is_refused)
{
	struct get_request request = whole;
	request.object.native_id = "v1";
	expect_refused(OK_HEAD "x-amz-version-id: v2\r\nContent-Length: 0\r\n\r\n", request, ERR_CORRUPT);
	request = whole;
	request.object.etag = "e9";
	expect_refused(OK_HEAD "Content-Length: 0\r\n\r\n", request, ERR_PRECONDITION);
	request = whole;
	request.expected_size = 6;
	expect_refused(OK_HEAD "Content-Length: 5\r\n\r\nhello", request, ERR_CORRUPT);
}

Test(s3_ops, content_is_compared_with_the_store_s_checksum)
{
	struct err err;
	expect_refused(OK_HEAD "x-amz-checksum-crc32c: AAAAAA==\r\nContent-Length: 5\r\n\r\nhello", whole, ERR_CORRUPT);
	start(OK_HEAD "x-amz-checksum-crc32c: mnG7TA==\r\nContent-Length: 5\r\n\r\nhello", NULL);
	cr_assert_eq(get(whole, &err), 0, "%s", err.message);
	stop();
}

Test(s3_ops, truncated_content_is_unavailable)
{
	expect_refused(OK_HEAD "Content-Length: 50\r\n\r\nhello", whole, ERR_UNAVAILABLE);
}

Test(s3_ops, a_clock_that_is_off_is_put_right_once)
{
	static const char body[] = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
	char refusal[256];
	struct err err;
	(void)snprintf(refusal, sizeof(refusal),
		       "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\n"
		       "Content-Length: %zu\r\n\r\n%s",
		       strlen(body), body);
	const char *replies[] = {refusal, OK_HEAD "Content-Length: 0\r\n\r\n", NULL};
	start("", replies);
	cr_assert_eq(get(whole, &err), 0, "%s", err.message);
	cr_assert_eq(server->requests, 2);
	cr_assert_null(strcasestr(server->first, "x-amz-date: 20130524T"));
	cr_assert_not_null(strcasestr(server->last, "x-amz-date: 20130524T0000"));
	stop();

	start(refusal, NULL); /* for ever */
	cr_assert_lt(get(whole, &err), 0);
	cr_assert_eq(err.kind, ERR_DENIED);
	cr_assert_eq(server->requests, 2);
	stop();
}

Test(s3_ops, the_region_is_learnt_from_the_store)
{
	static const char *const replies[] = {"HTTP/1.1 301 Moved\r\nConnection: close\r\nx-amz-bucket-region: "
					      "eu-west-1\r\nContent-Length: 0\r\n\r\n",
					      OK_HEAD "Content-Length: 0\r\n\r\n", NULL};
	struct err err;
	start(OK_HEAD "Content-Length: 0\r\n\r\n", replies);
	cr_assert_eq(get(whole, &err), 0, "%s", err.message);
	cr_assert_not_null(strstr(server->first, "/us-east-1/s3/aws4_request"));
	cr_assert_not_null(strstr(server->last, "/eu-west-1/s3/aws4_request"));
	cr_assert_eq(get(whole, &err), 0);
	cr_assert_eq(server->requests, 3, "learnt once and for all");
	stop();
}

Test(s3_ops, a_region_that_would_change_the_host_is_not_believed)
{
	struct err err;
	start("HTTP/1.1 301 Moved\r\nConnection: close\r\nx-amz-bucket-region: evil.example/\r\n"
	      "Location: http://evil.example/\r\nContent-Length: 0\r\n\r\n",
	      NULL);
	cr_assert_lt(get(whole, &err), 0);
	cr_assert_eq(err.kind, ERR_CONFIGURATION);
	cr_assert_eq(server->requests, 1);
	stop();
}

static int list(const char *body, const char *token, struct list_page *page, struct err *err)
{
	static char reply[4096];
	const struct list_request request = {.prefix = "d/", .token = token};
	(void)snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		       strlen(body), body);
	*err = (struct err){0};
	start(reply, NULL);
	int r = s3_backend_ops.list(backend, NULL, &request, page, err);
	stop();
	return r;
}

Test(s3_ops, listings_are_stripped_of_the_prefix_and_stay_inside_it)
{
	struct list_page page;
	struct err err;
	cr_assert_eq(
		list("<ListBucketResult><Contents><Key>pre/d/a</Key></Contents></ListBucketResult>", NULL, &page, &err),
		0, "%s", err.message);
	cr_assert_eq(page.count, 1);
	cr_assert_str_eq(page.entries[0].key, "d/a");
	list_page_clear(&page);
	cr_assert_lt(
		list("<ListBucketResult><Contents><Key>pre/e</Key></Contents></ListBucketResult>", NULL, &page, &err),
		0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_lt(
		list("<ListBucketResult><Contents><Key>d/a</Key></Contents></ListBucketResult>", NULL, &page, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
}

Test(s3_ops, a_listing_must_make_progress)
{
	static const char body[] = "<ListBucketResult><IsTruncated>true</IsTruncated>"
				   "<NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
	struct list_page page;
	struct err err;
	cr_assert_eq(list(body, NULL, &page, &err), 0);
	cr_assert_str_eq(page.next, "t");
	list_page_clear(&page);
	cr_assert_lt(list(body, "t", &page, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
}

Test(s3_ops, a_copy_may_fail_behind_a_200)
{
	const struct copy_request request = {.source = {.key = "a"}, .key = "b"};
	struct object_info info;
	struct err err;
	start("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>", NULL);
	cr_assert_lt(s3_backend_ops.copy(backend, NULL, &request, &info, &err), 0);
	cr_assert_eq(err.kind, ERR_THROTTLED);
	cr_assert_not_null(strcasestr(server->last, "x-amz-copy-source: /bucket/pre/a\r\n"));
	stop();
}

static int text_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	memcpy(ret_bytes, (const char *)arg + offset, len);
	return 0;
}

Test(s3_ops, content_that_is_not_what_was_promised_is_never_sent_whole)
{
	const struct put_request request = {
		.key = "k", .source = text_source, .source_arg = (void *)"hello", .size = 5, .has_crc32c = true};
	struct object_info info;
	struct err err;
	start(OK_HEAD "\r\n", NULL);
	cr_assert_lt(s3_backend_ops.put(backend, NULL, &request, &info, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_eq(server->requests, 0);
	stop();
}

Test(s3_ops, secrets_stay_out_of_description_and_requests)
{
	struct err err;
	start(OK_HEAD "Content-Length: 0\r\n\r\n", NULL);
	cr_assert_eq(get(whole, &err), 0);
	cr_assert_null(strstr(server->last, "secret"));
	cr_assert_null(strstr(((struct s3 *)backend)->description, "secret"));
	stop();
}
