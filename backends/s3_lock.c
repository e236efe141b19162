/*
 * s3_lock.c - Object Lock: legal holds and retention of single versions.
 *
 * PutObjectLegalHold and PutObjectRetention both want a Content-MD5; newer AWS takes other checksums, MinIO only this
 * one. A bucket can lock when it was made so, which is why the probe asks and never switches it on.
 *
 * Threads: no state.
 */
#include <stdio.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "s3.h"
#include "s3_xml.h"

#define MD5_SIZE 16

int s3_probe_lock(struct s3 *s3, const struct call *call, uint32_t *ret_capability, struct err *err)
{
	struct s3_request request = {.method = HTTP_GET};
	struct http_reply reply = {.body = BUF_INIT};
	struct s3_xml_leaf enabled = {.name = "ObjectLockEnabled"};

	http_fields_add(&request.query, "object-lock", "");
	int r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = s3_xml_leaves(reply.body.data, reply.body.len, "ObjectLockConfiguration", &enabled, 1, err);
	*ret_capability = r == 0 && enabled.value && strcmp(enabled.value, "Enabled") == 0 ? BACKEND_LOCK : 0;
	/* Stores without it answer in many ways. */
	if (r < 0 && !err_is_transient(err->kind)) {
		*err = (struct err){0};
		r = 0;
	}
	s3_xml_leaves_clear(&enabled, 1);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

static void add_md5(struct s3_request *request, const struct buf *body)
{
	uint8_t digest[MD5_SIZE];
	char text[2 * MD5_SIZE];

	md5_of(body->data, body->len, digest);
	base64_encode(digest, sizeof(digest), text); /* 24 characters */
	http_fields_add(&request->headers, "content-md5", text);
}

/* PUT of a subresource of one version. */
static int put_document(struct s3 *s3, const struct call *call, const struct object_ref *object,
			const char *subresource, const struct buf *document, struct err *err)
{
	struct s3_request request = {.method = HTTP_PUT, .key = object->key};
	struct http_reply reply = {.body = BUF_INIT};
	int r = buf_failed(document) ? err_set(err, ERR_NO_MEMORY, "request") : 0;

	if (r == 0) {
		add_md5(&request, document);
		http_fields_add(&request.query, subresource, "");
		http_fields_add(&request.query, "versionId", object->native_id);
		request.http.body = document->data;
		request.http.body_size = document->len;
		r = s3_exchange(s3, call, &request, &reply, err);
	}
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

static int put_hold(struct s3 *s3, const struct call *call, const struct object_ref *object, bool hold, struct err *err)
{
	AUTO_BUF document = BUF_INIT;

	s3_xml_legal_hold(&document, hold);
	return put_document(s3, call, object, "legal-hold", &document, err);
}

static int put_retention(struct s3 *s3, const struct call *call, const struct object_ref *object,
			 const struct object_lock *lock, struct err *err)
{
	char until[CLOCK_RFC3339_SIZE];
	AUTO_BUF document = BUF_INIT;

	clock_format_rfc3339(lock->retain_until_ns, until);
	s3_xml_retention(&document, until, lock->compliance);
	return put_document(s3, call, object, "retention", &document, err);
}

int s3_lock(struct backend *backend, const struct call *call, const struct object_ref *object,
	    const struct object_lock *lock, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct err own;
	if (!err)
		err = &own;

	int r = s3_check_key(s3, object->key, err);
	if (r == 0 && !object->native_id)
		r = err_set(err, ERR_UNSUPPORTED, "only a version can be locked");
	if (r == 0)
		r = put_hold(s3, call, object, lock->hold, err);
	if (r == 0 && lock->retain_until_ns)
		r = put_retention(s3, call, object, lock, err);
	return r < 0 ? err_wrap(err, "locking %s", object->key) : 0;
}
