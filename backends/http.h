/*
 * http.h - one blocking HTTP request at a time on the caller's thread.
 *
 * The client keeps idle connections for reuse, verifies TLS always, follows no
 * redirect and tries nothing again: what a reply means is the backends'
 * business, whether to repeat is transfer's.
 *
 * Thread-safe: any number of requests run at once on one struct http.
 */
#ifndef VARVE_HTTP_H
#define VARVE_HTTP_H

#include "buf.h"
#include "varve/backend.h"

/* A growable list of names and values: headers, or the parameters of a query. Both are copied. */
struct http_field {
	char *name;
	char *value;
};
struct http_fields {
	struct http_field *items;
	size_t count;
	size_t room;
	bool failed; /* sticky: no memory; http_perform then refuses the request */
};
void http_fields_add(struct http_fields *fields, const char *name, const char *value);
void http_fields_addf(struct http_fields *fields, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The first of that name, ASCII case ignored; borrowed or NULL. */
const char *http_fields_get(const struct http_fields *fields, const char *name);
void http_fields_clear(struct http_fields *fields);

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_PUT, HTTP_POST, HTTP_PATCH, HTTP_DELETE };
const char *http_method_name(enum http_method method);
/* May the request leave the store different? Then a lost reply is indeterminate. */
static inline bool http_method_changes(enum http_method method)
{
	return method != HTTP_GET && method != HTTP_HEAD;
}

struct http_reply {
	int status;
	struct http_fields headers;
	struct buf body;         /* what did not go to the sink, at most max_body */
	uint64_t received;       /* bytes of the body, wherever they went */
	uint32_t retry_after_ms; /* 0: not said */
};
void http_reply_clear(struct http_reply *reply);
/* Borrowed or NULL; the name's case does not matter. */
const char *http_reply_header(const struct http_reply *reply, const char *name);
/* The length announced by Content-Length. 0 or -ENODATA, -EBADMSG. */
int http_reply_length(const struct http_reply *reply, uint64_t *ret_length);

/*
 * Looks at status and headers once, before the first byte of a 2xx body: the
 * last moment to refuse a reply whose bytes must not reach the sink. Non-zero
 * ends the request; *err is then its outcome.
 */
typedef int (*http_accept_fn)(void *arg, const struct http_reply *reply, struct err *err);

struct http_request {
	enum http_method method;
	const char *url; /* percent-encoded; sent as it is */
	const struct http_fields *headers;

	const void *body;         /* body_size bytes, or NULL: */
	backend_source_fn source; /* asked in order, from offset 0; NULL: no body */
	void *source_arg;
	uint64_t body_size;

	http_accept_fn accept; /* may be NULL */
	void *accept_arg;
	backend_sink_fn sink; /* of a 2xx body; NULL: it goes to reply->body */
	void *sink_arg;
	uint64_t expected; /* bytes of the reply, if known, else 0: how large a buffer pays */
	size_t max_body;   /* cap of reply->body; 0: 1 MiB. A 2xx body over it is ERR_CORRUPT */

	bool idempotent;          /* a POST or PUT that changes nothing, or may be repeated without harm */
	int64_t stall_timeout_ns; /* 0: the client's. Copies and completions think long before they answer */
};

struct http_options {
	int64_t connect_timeout_ns;        /* 0: 10 s */
	int64_t stall_timeout_ns;          /* 0: 20 s. Fewer than 1 KiB moved in so long ends the request */
	struct backend_counters *counters; /* may be NULL; outlives the client */
};

struct http;
int http_new(const struct http_options *options, struct http **ret_http, struct err *err);
void http_free(struct http *http); /* after every request has returned */

/*
 * 0 whenever a whole reply came, whatever its status (*ret_reply is the
 * caller's to clear). Else nothing is written and err says exactly:
 *   ERR_UNAVAILABLE    not sent, or not wholly, or the method changes nothing
 *   ERR_INDETERMINATE  a changing request was sent and no whole reply came, for whatever reason
 *   ERR_TIMED_OUT, ERR_CANCELLED  the call's deadline or flag ended it, and nothing can have changed
 *   ERR_CONFIGURATION  URL, certificate authority, the peer's certificate
 *   ERR_CORRUPT        the reply breaks HTTP or its own Content-Length, or is over max_body
 */
int http_perform(struct http *http, const struct call *call, const struct http_request *request,
		 struct http_reply *ret_reply, struct err *err);

#endif
