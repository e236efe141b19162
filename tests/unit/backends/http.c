/*
 * http.c - the client against a server that misbehaves on purpose.
 *
 * See http_server.h for how.
 */
#include "backends/http.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "http_server.h"

#define AN_HOUR (3600 * NS_PER_SEC)

/* --- the client's side ----------------------------------------------------------------------------------------- */

struct outcome {
	int r;
	struct err err;
	struct http_reply reply;
	uint64_t sunk;
};

static int count_sink(void *arg, const void *bytes, size_t len)
{
	struct outcome *outcome = arg;
	(void)bytes;
	outcome->sunk += len;
	return 0;
}

static struct http *client_of(int64_t stall_ns, struct backend_counters *counters)
{
	const struct http_options options = {.stall_timeout_ns = stall_ns, .counters = counters};
	struct http *http;
	struct err err;
	cr_assert_eq(http_new(&options, &http, &err), 0);
	return http;
}

static void ask(struct http *http, uint16_t port, const struct call *call, struct http_request request,
		struct outcome *outcome)
{
	char url[64];
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/a/../b?c=d", port);
	request.url = url;
	*outcome = (struct outcome){.reply = {.body = BUF_INIT}};
	if (request.sink)
		request.sink_arg = outcome;
	outcome->r = http_perform(http, call, &request, &outcome->reply, &outcome->err);
}

static struct outcome once_by(int64_t stall_ns, enum behaviour behaviour, const char *reply, const struct call *call,
			      struct http_request request)
{
	struct server *server = server_start(behaviour, reply);
	struct http *http = client_of(stall_ns, NULL);
	struct outcome outcome;
	ask(http, server->port, call, request, &outcome);
	http_free(http);
	server_stop(server);
	return outcome;
}

/* One request to a server that behaves so. */
static struct outcome once(enum behaviour behaviour, const char *reply, const struct call *call,
			   struct http_request request)
{
	return once_by(0, behaviour, reply, call, request);
}

static void expect_kind(const struct outcome *outcome, enum err_kind kind)
{
	cr_assert_lt(outcome->r, 0, "succeeded with HTTP %d", outcome->reply.status);
	cr_assert_eq(outcome->err.kind, kind, "%s: %s", err_kind_name(outcome->err.kind), outcome->err.message);
}

#define PUT_8                                                                                                          \
	{                                                                                                              \
		.method = HTTP_PUT, .body = "12345678", .body_size = 8                                                 \
	}

Test(http, get_brings_status_headers_and_body)
{
	struct outcome o = once(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\nX-Thing:  a b \r\nContent-Length: 5\r\n\r\nhello",
				NULL, (struct http_request){.method = HTTP_GET});
	cr_assert_eq(o.r, 0, "%s", o.err.message);
	cr_assert_eq(o.reply.status, 200);
	cr_assert_str_eq(http_reply_header(&o.reply, "x-thing"), "a b");
	cr_assert_str_eq(o.reply.body.data, "hello");
	cr_assert_eq(o.reply.received, 5);
	http_reply_clear(&o.reply);
}

Test(http, put_sends_what_it_is_told_and_the_path_as_it_is)
{
	struct server *server = server_start(REPLY_AND_KEEP, "HTTP/1.1 100 Continue\r\n\r\n"
							     "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
	struct backend_counters counters = {0};
	struct http *http = client_of(0, &counters);
	struct http_fields headers = {0};
	struct http_request request = PUT_8;
	struct outcome o;
	http_fields_add(&headers, "X-Empty", "");
	http_fields_add(&headers, "X-Full", "v");
	request.headers = &headers;
	ask(http, server->port, NULL, request, &o);
	cr_assert_eq(o.r, 0, "%s", o.err.message);
	cr_assert_eq(o.reply.status, 201);
	cr_assert_not_null(strstr(server->last, "PUT /a/../b?c=d HTTP/1.1\r\n"));
	cr_assert_not_null(strstr(server->last, "X-Empty:\r\n"));
	cr_assert_not_null(strstr(server->last, "X-Full: v\r\n"));
	cr_assert_not_null(strstr(server->last, "Content-Length: 8\r\n"));
	cr_assert_null(strcasestr(server->last, "expect:"));
	cr_assert_eq(counters.requests, 1);
	cr_assert_eq(counters.bytes_sent, 8);
	http_reply_clear(&o.reply);
	http_fields_clear(&headers);
	http_free(http);
	server_stop(server);
}

Test(http, a_line_break_in_a_header_is_never_sent)
{
	struct http_fields headers = {0};
	http_fields_add(&headers, "X-A", "v\r\nX-Injected: 1");
	struct outcome o = once(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\n\r\n", NULL,
				(struct http_request){.method = HTTP_GET, .headers = &headers});
	expect_kind(&o, ERR_INTERNAL);
	http_fields_clear(&headers);
}

Test(http, truncated_body_is_unavailable_for_reads_and_indeterminate_for_changes)
{
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort";
	struct outcome o =
		once(REPLY_AND_CLOSE, reply, NULL, (struct http_request){.method = HTTP_GET, .sink = count_sink});
	expect_kind(&o, ERR_UNAVAILABLE);
	cr_assert_eq(o.sunk, 5);
	o = once(REPLY_AND_CLOSE, reply, NULL, (struct http_request)PUT_8);
	expect_kind(&o, ERR_INDETERMINATE);
}

Test(http, truncated_chunked_body_is_no_success)
{
	struct outcome o = once(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
				NULL, (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_UNAVAILABLE);
}

Test(http, reset_in_mid_reply)
{
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort";
	struct outcome o = once(REPLY_AND_RESET, reply, NULL, (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_UNAVAILABLE);
	o = once(REPLY_AND_RESET, "HTTP/1.1 200 OK\r\nContent-Le", NULL, (struct http_request){.method = HTTP_DELETE});
	expect_kind(&o, ERR_INDETERMINATE);
}

Test(http, what_is_no_http_is_corrupt)
{
	struct outcome o =
		once(REPLY_AND_CLOSE, "SSH-2.0-OpenSSH\r\n", NULL, (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_CORRUPT);
	o = once(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", NULL,
		 (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_CORRUPT);
}

Test(http, nobody_listens)
{
	struct server *server = server_start(HANG, "");
	uint16_t port = server->port;
	server_stop(server);
	struct http *http = client_of(0, NULL);
	struct outcome o;
	ask(http, port, NULL, (struct http_request)PUT_8, &o);
	expect_kind(&o, ERR_UNAVAILABLE);
	http_free(http);
}

/* These servers go on for ever: whatever ends, the client ended. */

Test(http, deadline_ends_a_hanging_server)
{
	const struct call call = {.deadline_ns = clock_monotonic() + 150 * NS_PER_MS};
	struct call put_call;
	struct outcome o = once_by(AN_HOUR, HANG, "", &call, (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_TIMED_OUT);
	int64_t patience = 150 * NS_PER_MS;
	do { /* on a busy machine it may be over before anything is sent */
		put_call = (struct call){.deadline_ns = clock_monotonic() + patience};
		o = once_by(AN_HOUR, HANG, "", &put_call, (struct http_request)PUT_8);
		patience *= 2;
	} while (o.err.kind == ERR_TIMED_OUT && patience < AN_HOUR);
	expect_kind(&o, ERR_INDETERMINATE);
	o = once_by(AN_HOUR, HANG, "", &call, (struct http_request)PUT_8);
	expect_kind(&o, ERR_TIMED_OUT); /* over before it began: nothing was sent */
}

Test(http, stall_ends_silence_and_trickle)
{
	struct outcome o = once_by(300 * NS_PER_MS, HANG, "", NULL, (struct http_request){.method = HTTP_GET});
	expect_kind(&o, ERR_UNAVAILABLE);
	cr_assert_str_eq(o.err.message, "stalled");
	o = once_by(300 * NS_PER_MS, TRICKLE, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", NULL,
		    (struct http_request){.method = HTTP_GET, .sink = count_sink});
	expect_kind(&o, ERR_UNAVAILABLE);
	cr_assert_str_eq(o.err.message, "stalled");
}

static void *cancel_soon(void *arg)
{
	usleep(100 * 1000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

Test(http, cancelled_call_returns)
{
	atomic_bool cancelled = false;
	const struct call call = {.cancelled = &cancelled};
	pthread_t thread;
	cr_assert_eq(pthread_create(&thread, NULL, cancel_soon, &cancelled), 0);
	struct server *server = server_start(HANG, "");
	struct http *http = client_of(AN_HOUR, NULL);
	struct outcome o;
	ask(http, server->port, &call, (struct http_request){.method = HTTP_GET}, &o);
	expect_kind(&o, ERR_CANCELLED);
	pthread_join(thread, NULL);
	http_free(http);
	server_stop(server);
}

Test(http, a_giant_reply_is_cut)
{
	struct server *server = server_start(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\n\r\n");
	struct http *http = client_of(0, NULL);
	struct outcome o;
	server->repeat = 64 * 1024 * 1024;
	ask(http, server->port, NULL, (struct http_request){.method = HTTP_GET, .max_body = 100000}, &o);
	expect_kind(&o, ERR_CORRUPT);
	server->reply = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n";
	ask(http, server->port, NULL, (struct http_request){.method = HTTP_GET, .max_body = 100000}, &o);
	cr_assert_eq(o.r, 0, "the status of an endless error is still an answer");
	cr_assert_eq(o.reply.status, 503);
	cr_assert_eq(o.reply.retry_after_ms, 7000);
	http_reply_clear(&o.reply);
	http_free(http);
	server_stop(server);
}

static int refuse_reply(void *arg, const struct http_reply *reply, struct err *err)
{
	(void)arg;
	return err_set(err, ERR_CORRUPT, "refused a %d", reply->status);
}

Test(http, a_refused_reply_never_reaches_the_sink)
{
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
	struct outcome o = once(REPLY_AND_CLOSE, reply, NULL,
				(struct http_request){.method = HTTP_GET, .sink = count_sink, .accept = refuse_reply});
	expect_kind(&o, ERR_CORRUPT);
	cr_assert_eq(o.sunk, 0);
	o = once(REPLY_AND_CLOSE, "HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello", NULL,
		 (struct http_request){.method = HTTP_GET, .sink = count_sink, .accept = refuse_reply});
	cr_assert_eq(o.r, 0);
	cr_assert_eq(o.sunk, 0);
	cr_assert_str_eq(o.reply.body.data, "hello");
	http_reply_clear(&o.reply);
}

static int failing_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	if (offset > 0)
		return -EIO;
	memset(ret_bytes, 'x', len);
	return 0;
}

Test(http, content_that_cannot_be_read_changes_nothing)
{
	struct outcome o =
		once(REPLY_AND_CLOSE, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", NULL,
		     (struct http_request){.method = HTTP_PUT, .source = failing_source, .body_size = 8 * 1024 * 1024});
	cr_assert_lt(o.r, 0);
	cr_assert_neq(o.err.kind, ERR_INDETERMINATE);
}

static int endless_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)offset;
	memset(ret_bytes, 'x', len);
	return 0;
}

Test(http, a_body_that_never_went_out_whole_is_certainly_not_stored)
{
	struct outcome o = once(
		CLOSE_AT_HEADER, "", NULL,
		(struct http_request){.method = HTTP_PUT, .source = endless_source, .body_size = 256 * 1024 * 1024});
	expect_kind(&o, ERR_UNAVAILABLE);
}

Test(http, a_changing_request_is_never_sent_twice_behind_our_back)
{
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	struct server *server = server_start(DIE_ON_SECOND, reply);
	struct http *http = client_of(0, NULL);
	struct outcome o;
	ask(http, server->port, NULL, (struct http_request){.method = HTTP_DELETE}, &o);
	cr_assert_eq(o.r, 0);
	http_reply_clear(&o.reply);
	ask(http, server->port, NULL, (struct http_request){.method = HTTP_DELETE}, &o);
	expect_kind(&o, ERR_INDETERMINATE);
	cr_assert_eq(server->requests, 2);
	http_free(http);
	server_stop(server);
}

Test(http, connections_are_used_again)
{
	struct server *server = server_start(REPLY_AND_KEEP, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	struct http *http = client_of(0, NULL);
	/* The server takes one connection at a time: a second one would wait for ever. */
	for (int i = 0; i < 20; i++) {
		const struct call call = {.deadline_ns = clock_monotonic() + 60 * NS_PER_SEC};
		struct outcome o;
		ask(http, server->port, &call, (struct http_request){.method = HTTP_GET}, &o);
		cr_assert_eq(o.r, 0, "%s", o.err.message);
		http_reply_clear(&o.reply);
	}
	cr_assert_eq(server->requests, 20);
	http_free(http);
	server_stop(server);
}
