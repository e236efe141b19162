/*
 * http.c - the one file that knows libcurl.
 *
 * A slot is an easy handle with a multi handle of its own, which holds its kept-alive connections. Idle slots wait on a
 * stack, so the connection used last is used next and the others may age. TLS sessions and DNS answers are shared by
 * all slots; connections are not: libcurl does not support that between threads.
 *
 * Invariants
 *  1. A slot belongs to one thread from slot_take to slot_give; its exchange lives on that thread's stack.
 *  2. A changing request goes out at most once. libcurl silently repeats a request whose reused connection turns out to
 *     be dead; the pre-request callback counts the sendings and refuses the second one.
 *  3. exchange->sendings == 0 means that not one byte of the request left this machine.
 *  4. The sink sees bytes of a 2xx reply only, and only after `accept` agreed to status and headers.
 *
 * Cancellation, deadline and stall are looked at in one place, the loop of http_drive, at least every HTTP_TICK_MS.
 */
#include "http.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>

#include "cleanup.h"
#include "clock.h"
#include "lock.h"
#include "pace.h"

#define HTTP_TICK_MS 100
#define HTTP_STALL_BYTES 1024
#define HTTP_IDLE_MAX 96
#define HTTP_HEADERS_MAX (64 * 1024)
#define HTTP_BODY_MAX (1024 * 1024)
#define HTTP_EXPECT_FROM (1024 * 1024)
#define HTTP_DOWNLOAD_BUFFER (256 * 1024L)
#define HTTP_DOWNLOAD_BUFFER_SMALL (96 * 1024L)
#define HTTP_DOWNLOAD_SMALL (64 * 1024) /* a reply up to this, with its headers, fits the small one */
#define HTTP_UPLOAD_BUFFER (2 * 1024 * 1024L)
#define HTTP_UPLOAD_BUFFER_SMALL (64 * 1024L)
#define HTTP_RETRY_AFTER_MAX_MS (60 * 60 * 1000)

struct http_slot {
	struct http_slot *next;
	CURL *easy;
	CURLM *multi;
	char error_text[CURL_ERROR_SIZE];
};

struct http {
	struct http_options options; /* constant */
	char *ca_bundle;             /* constant; NULL: libcurl's own */
	CURLSH *share;
	/* Taken by libcurl in its own order and for its own data only, hence without a rank. */
	pthread_mutex_t share_mutexes[CURL_LOCK_DATA_LAST];
	struct lock lock;
	struct http_slot *idle; /* guarded by lock */
	unsigned idle_count;    /* guarded by lock */
};

enum stop { STOP_NONE, STOP_CANCELLED, STOP_DEADLINE, STOP_STALLED };

/* One request under way. */
struct exchange {
	const struct http *http;
	const struct call *call;
	const struct http_request *request;
	struct http_reply reply;
	struct err err; /* kind set: a callback ended the request, and this is why */
	unsigned sendings;
	uint64_t body_taken; /* bytes libcurl has read from the body */
	uint64_t body_told; /* of these, in the counters already: who waits wants to see that a slow request comes on */
	size_t header_bytes;
	bool accepted;
	bool body_cut; /* an error reply over max_body: its status is worth more than the rest of it */
	enum stop stop;
	int64_t mark_bytes; /* progress when the stall window began */
	int64_t mark_ns;
};

const char *http_method_name(enum http_method method)
{
	static const char *const names[] = {
		[HTTP_GET] = "GET",   [HTTP_HEAD] = "HEAD",   [HTTP_PUT] = "PUT",
		[HTTP_POST] = "POST", [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
	};
	return names[method];
}

/* --- replies --------------------------------------------------------------------------------------- */

void http_reply_clear(struct http_reply *reply)
{
	http_fields_clear(&reply->headers);
	if (reply->body.data)
		buf_free(&reply->body);
	*reply = (struct http_reply){.body = BUF_INIT};
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
	return http_fields_get(&reply->headers, name);
}

int http_reply_length(const struct http_reply *reply, uint64_t *ret_length)
{
	const char *text = http_reply_header(reply, "content-length");
	if (!text)
		return -ENODATA;
	if (*text < '0' || *text > '9')
		return -EBADMSG;
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end || value > INT64_MAX)
		return -EBADMSG;
	*ret_length = value;
	return 0;
}

static bool reply_is_success(const struct http_reply *reply)
{
	return reply->status >= 200 && reply->status < 300;
}

static uint32_t parse_retry_after(const char *text)
{
	if (!text)
		return 0;
	int64_t ms;
	if (*text >= '0' && *text <= '9') {
		long seconds = strtol(text, NULL, 10);
		ms = seconds > HTTP_RETRY_AFTER_MAX_MS / 1000 ? HTTP_RETRY_AFTER_MAX_MS : seconds * 1000;
	} else {
		int64_t at;
		if (clock_parse_http(text, &at) < 0)
			return 0;
		ms = (at - clock_wall()) / NS_PER_MS;
	}
	if (ms < 0)
		return 0;
	return ms > HTTP_RETRY_AFTER_MAX_MS ? HTTP_RETRY_AFTER_MAX_MS : (uint32_t)ms;
}

/* --- libcurl's callbacks --------------------------------------------------------------------------- */

static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *arg)
{
	(void)easy;
	(void)access;
	struct http *http = arg;
	pthread_mutex_lock(&http->share_mutexes[data]);
}

static void share_unlock(CURL *easy, curl_lock_data data, void *arg)
{
	(void)easy;
	struct http *http = arg;
	pthread_mutex_unlock(&http->share_mutexes[data]);
}

static bool request_changes(const struct http_request *request)
{
	return http_method_changes(request->method) && !request->idempotent;
}

/* The connection stands and the request is about to be written to it. */
static int on_sending(void *arg, char *peer, char *local, int peer_port, int local_port)
{
	(void)peer;
	(void)local;
	(void)peer_port;
	(void)local_port;
	struct exchange *ex = arg;
	if (ex->sendings > 0 && request_changes(ex->request))
		return CURL_PREREQFUNC_ABORT;
	ex->sendings++;
	ex->mark_ns = clock_monotonic();
	if (ex->http->options.counters)
		ex->http->options.counters->requests++;
	return CURL_PREREQFUNC_OK;
}

static size_t on_body_wanted(char *bytes, size_t size, size_t count, void *arg)
{
	struct exchange *ex = arg;
	const struct http_request *request = ex->request;
	uint64_t left = request->body_size - ex->body_taken;
	size_t n = size * count < left ? size * count : (size_t)left;
	if (n == 0)
		return 0;
	if (request->body) {
		memcpy(bytes, (const char *)request->body + ex->body_taken, n);
	} else {
		int r = request->source(request->source_arg, bytes, n, ex->body_taken);
		if (r < 0) {
			err_from_errno(&ex->err, -r, "reading the content to send");
			return CURL_READFUNC_ABORT;
		}
	}
	ex->body_taken += n;
	return n;
}

/* "HTTP/1.1 200 OK": a new header block begins; what stood before was an interim reply (100). */
static void begin_reply(struct exchange *ex, const char *line, size_t len)
{
	const char *space = memchr(line, ' ', len);
	http_fields_clear(&ex->reply.headers);
	ex->reply.status = space ? (int)strtol(space + 1, NULL, 10) : 0;
	ex->header_bytes = 0;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
	struct exchange *ex = arg;
	size_t len = size * count;
	ex->header_bytes += len;
	if (ex->header_bytes > HTTP_HEADERS_MAX) {
		err_set(&ex->err, ERR_CORRUPT, "reply headers over %d bytes", HTTP_HEADERS_MAX);
		return 0;
	}
	if (len > 5 && memcmp(line, "HTTP/", 5) == 0) {
		begin_reply(ex, line, len);
		return len;
	}
	const char *colon = memchr(line, ':', len);
	if (!colon)
		return len;
	const char *value = colon + 1, *end = line + len;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
		end--;
	AUTO_FREE char *name = strndup(line, (size_t)(colon - line));
	AUTO_FREE char *text = strndup(value, (size_t)(end - value));
	if (name && text)
		http_fields_add(&ex->reply.headers, name, text);
	else
		ex->reply.headers.failed = true;
	return len;
}

static int accept_reply(struct exchange *ex)
{
	if (ex->accepted || !reply_is_success(&ex->reply))
		return 0;
	ex->accepted = true;
	if (!ex->request->accept)
		return 0;
	int r = ex->request->accept(ex->request->accept_arg, &ex->reply, &ex->err);
	if (r < 0 && ex->err.kind == ERR_NONE)
		err_set(&ex->err, ERR_INTERNAL, "reply refused without a reason");
	return r;
}

static size_t keep_body(struct exchange *ex, const char *bytes, size_t len)
{
	size_t cap = ex->request->max_body ? ex->request->max_body : HTTP_BODY_MAX;
	if (len > cap - ex->reply.body.len) {
		if (reply_is_success(&ex->reply))
			err_set(&ex->err, ERR_CORRUPT, "reply over %zu bytes", cap);
		else
			ex->body_cut = true;
		return 0;
	}
	buf_add(&ex->reply.body, bytes, len);
	return len;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct exchange *ex = arg;
	size_t len = size * count;
	if (accept_reply(ex) < 0)
		return 0;
	ex->reply.received += len;
	if (!ex->request->sink || !reply_is_success(&ex->reply))
		return keep_body(ex, bytes, len);
	if (ex->request->sink(ex->request->sink_arg, bytes, len) != 0) {
		err_set(&ex->err, ERR_CANCELLED, "the reader of the reply wants no more");
		return 0;
	}
	return len;
}

/* --- slots ------------------------------------------------------------------------------------------- */

static void slot_free(struct http_slot *slot)
{
	curl_easy_cleanup(slot->easy);
	curl_multi_cleanup(slot->multi);
	free(slot);
}

static struct http_slot *slot_take(struct http *http)
{
	{
		LOCK_GUARD(&http->lock);
		struct http_slot *slot = http->idle;
		if (slot) {
			http->idle = slot->next;
			http->idle_count--;
			return slot;
		}
	}
	struct http_slot *slot = calloc(1, sizeof(*slot));
	if (!slot)
		return NULL;
	slot->easy = curl_easy_init();
	slot->multi = curl_multi_init();
	if (!slot->easy || !slot->multi) {
		slot_free(slot);
		return NULL;
	}
	(void)curl_multi_setopt(slot->multi, CURLMOPT_MAXCONNECTS, 2L); /* a known option cannot fail */
	return slot;
}

static void slot_give(struct http *http, struct http_slot *slot)
{
	{
		LOCK_GUARD(&http->lock);
		if (http->idle_count < HTTP_IDLE_MAX) {
			slot->next = http->idle;
			http->idle = slot;
			http->idle_count++;
			return;
		}
	}
	slot_free(slot);
}

/* --- the client ---------------------------------------------------------------------------------------- */

static pthread_once_t http_global_once = PTHREAD_ONCE_INIT;
static CURLcode http_global_result;

static void http_global_start(void)
{
	http_global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static char *find_ca_bundle(void)
{
	static const char *const names[] = {"AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *path = getenv(names[i]);
		if (path && *path)
			return strdup(path);
	}
	return NULL;
}

int http_new(const struct http_options *options, struct http **ret_http, struct err *err)
{
	pthread_once(&http_global_once, http_global_start);
	if (http_global_result != CURLE_OK)
		return err_set(err, ERR_INTERNAL, "libcurl: %s", curl_easy_strerror(http_global_result));

	struct http *http = calloc(1, sizeof(*http));
	CURLSH *share = http ? curl_share_init() : NULL;
	if (!share) {
		free(http);
		return err_set(err, ERR_NO_MEMORY, "http client");
	}
	http->options = *options;
	if (http->options.connect_timeout_ns == 0)
		http->options.connect_timeout_ns = 10 * NS_PER_SEC;
	if (http->options.stall_timeout_ns == 0)
		http->options.stall_timeout_ns = 20 * NS_PER_SEC;
	http->ca_bundle = find_ca_bundle();
	http->share = share;
	lock_init(&http->lock, LOCK_BACKEND);
	for (size_t i = 0; i < ARRAY_SIZE(http->share_mutexes); i++)
		pthread_mutex_init(&http->share_mutexes[i], NULL);
	/* None of these can fail: the share is in nobody's use yet, and a libcurl without TLS refuses only the third.
	 */
	(void)curl_share_setopt(share, CURLSHOPT_LOCKFUNC, share_lock);
	(void)curl_share_setopt(share, CURLSHOPT_UNLOCKFUNC, share_unlock);
	(void)curl_share_setopt(share, CURLSHOPT_USERDATA, http);
	(void)curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	(void)curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	*ret_http = http;
	return 0;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	while (http->idle) {
		struct http_slot *slot = http->idle;
		http->idle = slot->next;
		slot_free(slot);
	}
	curl_share_cleanup(http->share);
	for (size_t i = 0; i < ARRAY_SIZE(http->share_mutexes); i++)
		pthread_mutex_destroy(&http->share_mutexes[i]);
	lock_destroy(&http->lock);
	free(http->ca_bundle);
	free(http);
}

/* --- one request ------------------------------------------------------------------------------------------ */

static bool append_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);
	if (longer)
		*list = longer;
	return longer != NULL;
}

/* libcurl writes header lines as they are given: a line break in one would be a header of somebody's choice. */
static int build_headers(const struct http_request *request, struct curl_slist **list, struct err *err)
{
	AUTO_BUF line = BUF_INIT;
	bool ok = append_line(list, "Accept:");
	if (request->body_size <= HTTP_EXPECT_FROM)
		ok = ok && append_line(list, "Expect:");
	for (size_t i = 0; request->headers && i < request->headers->count; i++) {
		const struct http_field *field = &request->headers->items[i];
		if (strpbrk(field->name, "\r\n: ") || strpbrk(field->value, "\r\n"))
			return err_set(err, ERR_INTERNAL, "line break in header %.32s", field->name);
		buf_reset(&line);
		buf_adds(&line, field->name);
		/* libcurl's notation for a header without a value ("Name:" would remove it). */
		buf_adds(&line, *field->value ? ": " : ";");
		buf_adds(&line, field->value);
		ok = ok && !buf_failed(&line) && append_line(list, line.data);
	}
	if (!ok || (request->headers && request->headers->failed))
		return err_set(err, ERR_NO_MEMORY, "request headers");
	return 0;
}

#define SET(option, value)                                                                                             \
	do {                                                                                                           \
		if (code == CURLE_OK)                                                                                  \
			code = curl_easy_setopt(easy, option, value);                                                  \
	} while (0)

static CURLcode set_connection(CURL *easy, const struct http *http)
{
	CURLcode code = CURLE_OK;
	SET(CURLOPT_SHARE, http->share);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L); /* a deadline must not wait for a resolver thread */
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PATH_AS_IS, 1L); /* keys may hold "/../" */
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (http->ca_bundle)
		SET(CURLOPT_CAINFO, http->ca_bundle);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(http->options.connect_timeout_ns / NS_PER_MS));
	SET(CURLOPT_USERAGENT, "varve");
	return code;
}

static CURLcode set_method(CURL *easy, const struct http_request *request)
{
	CURLcode code = CURLE_OK;
	bool has_body = request->method == HTTP_PUT || request->method == HTTP_POST || request->method == HTTP_PATCH;
	if (request->method == HTTP_HEAD) {
		SET(CURLOPT_NOBODY, 1L);
	} else if (has_body) {
		SET(CURLOPT_UPLOAD, 1L);
		SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_size);
		SET(CURLOPT_UPLOAD_BUFFERSIZE,
		    request->body_size > HTTP_UPLOAD_BUFFER_SMALL ? HTTP_UPLOAD_BUFFER : HTTP_UPLOAD_BUFFER_SMALL);
	}
	if (request->method != HTTP_HEAD && request->method != HTTP_GET)
		SET(CURLOPT_CUSTOMREQUEST, http_method_name(request->method));
	return code;
}

static CURLcode set_exchange(struct http_slot *slot, struct exchange *ex, struct curl_slist *headers)
{
	CURL *easy = slot->easy;
	curl_easy_reset(easy);
	slot->error_text[0] = '\0';
	CURLcode code = set_connection(easy, ex->http);
	if (code == CURLE_OK)
		code = set_method(easy, ex->request);
	/* libcurl allocates it anew for each request. */
	SET(CURLOPT_BUFFERSIZE, ex->request->expected && ex->request->expected <= HTTP_DOWNLOAD_SMALL
					? HTTP_DOWNLOAD_BUFFER_SMALL
					: HTTP_DOWNLOAD_BUFFER);
	SET(CURLOPT_URL, ex->request->url);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_ERRORBUFFER, slot->error_text);
	SET(CURLOPT_PREREQFUNCTION, on_sending);
	SET(CURLOPT_PREREQDATA, ex);
	SET(CURLOPT_READFUNCTION, on_body_wanted);
	SET(CURLOPT_READDATA, ex);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, ex);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, ex);
	return code;
}

#undef SET

static void tell_sent(struct exchange *ex, int64_t sent)
{
	struct backend_counters *counters = ex->http->options.counters;

	if (!counters || sent <= (int64_t)ex->body_told || sent > (int64_t)ex->body_taken)
		return;
	counters->bytes_sent += (uint64_t)sent - ex->body_told;
	ex->body_told = (uint64_t)sent;
}

/* Bytes that reached us, plus bytes that left this machine: what waits in the socket has not moved yet. */
static int64_t bytes_moved(const struct http_slot *slot, struct exchange *ex)
{
	curl_off_t up = 0, down = 0;
	curl_socket_t fd = CURL_SOCKET_BAD;
	int waiting = 0;
	/* Figures that libcurl does not know yet stay zero. */
	(void)curl_easy_getinfo(slot->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	(void)curl_easy_getinfo(slot->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
	if (curl_easy_getinfo(slot->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd != CURL_SOCKET_BAD)
		(void)ioctl(fd, SIOCOUTQ, &waiting);
	tell_sent(ex, up - waiting);
	return up + down - waiting;
}

static enum stop find_stop(const struct http_slot *slot, struct exchange *ex, int64_t now)
{
	if (call_cancelled(ex->call))
		return STOP_CANCELLED;
	if (ex->call && ex->call->deadline_ns && now >= ex->call->deadline_ns)
		return STOP_DEADLINE;
	if (ex->sendings == 0)
		return STOP_NONE; /* the connect timeout watches over this phase */

	int64_t moved = bytes_moved(slot, ex);
	int64_t patience =
		ex->request->stall_timeout_ns ? ex->request->stall_timeout_ns : ex->http->options.stall_timeout_ns;
	if (moved >= ex->mark_bytes + HTTP_STALL_BYTES) {
		ex->mark_bytes = moved;
		ex->mark_ns = now;
	} else if (now - ex->mark_ns > patience) {
		return STOP_STALLED;
	}
	return STOP_NONE;
}

static int tick_ms(const struct exchange *ex, int64_t now)
{
	if (!ex->call || !ex->call->deadline_ns)
		return HTTP_TICK_MS;
	int64_t left = (ex->call->deadline_ns - now) / NS_PER_MS + 1;
	return left < HTTP_TICK_MS ? (int)left : HTTP_TICK_MS;
}

static CURLcode finished_code(const struct http_slot *slot)
{
	int left;
	const CURLMsg *message = curl_multi_info_read(slot->multi, &left);
	return message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_ABORTED_BY_CALLBACK;
}

static CURLcode http_drive(struct http_slot *slot, struct exchange *ex)
{
	CURLcode code = CURLE_ABORTED_BY_CALLBACK;
	if (curl_multi_add_handle(slot->multi, slot->easy) != CURLM_OK)
		return CURLE_OUT_OF_MEMORY;
	for (;;) {
		int running = 0;
		if (curl_multi_perform(slot->multi, &running) != CURLM_OK)
			break;
		if (!running) {
			code = finished_code(slot);
			break;
		}
		int64_t now = clock_monotonic();
		ex->stop = find_stop(slot, ex, now);
		if (ex->stop != STOP_NONE)
			break;
		if (curl_multi_poll(slot->multi, NULL, 0, tick_ms(ex, now), NULL) != CURLM_OK)
			break;
	}
	/* Closes the connection of an unfinished request, so nothing of it can reach the next one. */
	curl_multi_remove_handle(slot->multi, slot->easy);
	return code;
}

/* --- what happened -------------------------------------------------------------------------------------------- */

static enum err_kind kind_of(CURLcode code, const struct exchange *ex)
{
	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		return ERR_NO_MEMORY;
	case CURLE_UNSUPPORTED_PROTOCOL: /* also: a reply that is not HTTP/1 */
	case CURLE_WEIRD_SERVER_REPLY:
		return ex->sendings ? ERR_CORRUPT : ERR_CONFIGURATION;
	case CURLE_URL_MALFORMAT:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return ERR_CONFIGURATION;
	default:
		return ERR_UNAVAILABLE;
	}
}

static const char *reason_of(CURLcode code, const struct http_slot *slot, const struct exchange *ex)
{
	switch (ex->stop) {
	case STOP_CANCELLED:
		return "cancelled";
	case STOP_DEADLINE:
		return "deadline passed";
	case STOP_STALLED:
		return "stalled";
	case STOP_NONE:
		break;
	}
	if (ex->err.kind != ERR_NONE)
		return ex->err.message;
	return slot->error_text[0] ? slot->error_text : curl_easy_strerror(code);
}

/* No whole reply came. A store cannot act on a body that never arrived whole, so only then is "sent" a doubt. */
static int http_classify(CURLcode code, const struct http_slot *slot, const struct exchange *ex, struct err *err)
{
	const struct http_request *request = ex->request;
	const char *reason = reason_of(code, slot, ex);
	bool sent = ex->sendings > 0 && ex->body_taken >= request->body_size;
	if (request_changes(request) && sent) {
		int r = err_set(err, ERR_INDETERMINATE, "reply lost: %s", reason);
		if (err)
			err->http_status = ex->reply.status;
		return r;
	}
	if (ex->err.kind != ERR_NONE) {
		if (err)
			*err = ex->err;
		return -err_errno(ex->err.kind);
	}
	enum err_kind kind = kind_of(code, ex);
	if (ex->stop == STOP_CANCELLED)
		kind = ERR_CANCELLED;
	else if (ex->stop == STOP_DEADLINE)
		kind = ERR_TIMED_OUT;
	else if (ex->stop == STOP_STALLED)
		kind = ERR_UNAVAILABLE;
	return err_set(err, kind, "%s", reason);
}

/* libcurl reports a short body itself; this is for the reader's peace of mind and for servers that end early but clean.
 */
static int check_reply(struct exchange *ex, struct err *err)
{
	struct http_reply *reply = &ex->reply;
	uint64_t length;
	if (reply->headers.failed || buf_failed(&reply->body))
		return err_set(err, ERR_NO_MEMORY, "reply");
	if (ex->body_cut)
		return 0;
	int r = http_reply_length(reply, &length);
	if (r == -EBADMSG)
		return err_set(err, ERR_CORRUPT, "reply with a Content-Length that is no number");
	bool bodiless = ex->request->method == HTTP_HEAD || reply->status == 204 || reply->status == 304;
	if (r == 0 && !bodiless && length != reply->received)
		return err_set(err, ERR_CORRUPT, "%llu bytes announced, %llu came", (unsigned long long)length,
			       (unsigned long long)reply->received);
	return 0;
}

static int http_finish(CURLcode code, const struct http_slot *slot, struct exchange *ex, struct err *err)
{
	bool whole = code == CURLE_OK || (ex->body_cut && ex->stop == STOP_NONE);
	if (whole && ex->reply.status < 200)
		whole = false;
	if (whole && accept_reply(ex) < 0)
		whole = false;
	if (whole) {
		int r = check_reply(ex, &ex->err);
		if (r == 0)
			return 0;
	}
	return http_classify(code, slot, ex, err);
}

static int http_may_begin(const struct call *call, struct err *err)
{
	if (call_cancelled(call))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (call && call->deadline_ns && clock_monotonic() >= call->deadline_ns)
		return err_set(err, ERR_TIMED_OUT, "deadline passed");
	return 0;
}

static void http_count(const struct http *http, const struct exchange *ex, int r)
{
	struct backend_counters *counters = http->options.counters;
	if (!counters)
		return;
	counters->bytes_sent += ex->body_taken - ex->body_told;
	counters->bytes_received += ex->reply.received;
	if (r < 0)
		counters->errors++;
}

int http_perform(struct http *http, const struct call *call, const struct http_request *request,
		 struct http_reply *ret_reply, struct err *err)
{
	struct exchange ex = {.http = http, .call = call, .request = request, .reply = {.body = BUF_INIT}};
	struct curl_slist *headers = NULL;
	struct http_slot *slot = NULL;

	int r = build_headers(request, &headers, err);
	if (r < 0)
		goto out;
	r = http_may_begin(call, err);
	if (r < 0)
		goto out;
	slot = slot_take(http);
	CURLcode code = slot ? set_exchange(slot, &ex, headers) : CURLE_OUT_OF_MEMORY;
	if (code != CURLE_OK) {
		enum err_kind kind = code == CURLE_OUT_OF_MEMORY ? ERR_NO_MEMORY : ERR_CONFIGURATION;
		r = err_set(err, kind, "libcurl: %s", curl_easy_strerror(code));
		goto out;
	}
	code = http_drive(slot, &ex);
	r = http_finish(code, slot, &ex, err);
	http_count(http, &ex, r);
	if (r < 0)
		goto out;
	ex.reply.retry_after_ms = parse_retry_after(http_reply_header(&ex.reply, "retry-after"));
	*ret_reply = ex.reply;
	ex.reply = (struct http_reply){.body = BUF_INIT};
out:
	if (slot)
		slot_give(http, slot);
	curl_slist_free_all(headers);
	http_reply_clear(&ex.reply);
	return r;
}
