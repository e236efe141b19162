/*
 * s3.h - inside the S3 backend: one open store, and one signed exchange with it.
 *
 * Private to backends/s3_*.c.
 */
#ifndef VARVE_S3_H
#define VARVE_S3_H

#include <stdatomic.h>

#include "http.h"
#include "lock.h"
#include "s3_credentials.h"
#include "s3_reply.h"
#include "s3_sign.h"
#include "s3_url.h"
#include "s3_xml.h"
#include "varve/backend.h"

#define S3_REGION_SIZE 64
#define S3_MAX_PUT (UINT64_C(5) << 30)
#define S3_META_MAX 2048
/* Bodies up to this are read once into memory: hashed, signed and sent from there. */
#define S3_SMALL_BODY (64 * 1024)
/* Copies and completions are answered when they are done, which for 5 GiB takes minutes. */
#define S3_SLOW_STALL_NS (10 * 60 * INT64_C(1000000000))

/* What the probe found beyond backend_info. */
enum s3_feature {
	S3_FEATURE_CRC32C = 1 << 0,      /* the store verifies CRC-32C: always send one */
	S3_FEATURE_FULL_CRC32C = 1 << 1, /* multipart uploads can carry the whole object's */
	S3_FEATURE_REMOVE_IF_MATCH = 1 << 2,
	S3_FEATURE_COPY_CONDITION = 1 << 3, /* CopyObject honours conditions on its destination */
	S3_FEATURE_LIST_META = 1 << 4,      /* listings tell metadata when asked to, as MinIO's do */
};

struct s3 {
	const struct backend_ops *ops; /* first, as backend.h demands */
	/* Constant after open: */
	struct s3_location location;
	struct s3_endpoint endpoint;
	struct http *http;
	struct s3_identity *identity;
	char *description;
	bool create;
	bool read_only;
	unsigned max_key;
	char *believed; /* backend_options.known, or NULL */

	struct s3_sign_cache sign_cache;
	struct lock lock;
	char region[S3_REGION_SIZE]; /* guarded by lock: may be learnt from the store */
	struct backend_info info;    /* guarded by lock */
	bool tried;                  /* guarded by lock: info holds the results of trials, or what was believed */
	char *known;                 /* guarded by lock; once it is there it stays */
	_Atomic int64_t skew_ns;     /* the store's clock minus ours */
	_Atomic uint32_t features;   /* enum s3_feature */
	struct backend_counters counters;
};

static inline struct s3 *s3_of(struct backend *backend)
{
	return (struct s3 *)backend;
}

/* One request, before it is signed. Fields are cleared by s3_request_clear. */
struct s3_request {
	enum http_method method;
	const char *key; /* without the store's prefix; NULL: the bucket */
	struct http_fields query;
	struct http_fields headers;
	struct http_request http; /* body, accept, sink, caps; the rest is filled in by s3_exchange */
	const char *if_match;     /* of the condition, if it has one */
};
void s3_request_clear(struct s3_request *request);

/*
 * Signs and sends. A store that answers "your clock is wrong", "other region"
 * or "credentials expired" has done nothing: that is put right and the request
 * sent once more for each. 0: a 2xx reply, the caller's to clear.
 */
int s3_exchange(struct s3 *s3, const struct call *call, struct s3_request *request, struct http_reply *ret_reply,
		struct err *err);

/* Key within limits, else ERR_TOO_LARGE or ERR_INTERNAL. */
int s3_check_key(const struct s3 *s3, const char *key, struct err *err);

/* --- shared by puts and uploads (s3_body.c) -------------------------------------------------------------- */

/* Content on its way out. The bytes sent are compared with the checksum promised, before the last of them leaves. */
struct s3_body {
	const struct put_request *request;
	char *small; /* the whole content when it is small */
	uint32_t crc32c;
	bool has_crc32c;
	uint32_t running; /* of [0, position) */
	uint64_t position;
};
int s3_body_open(struct s3 *s3, struct s3_body *body, const struct put_request *request, struct err *err);
void s3_body_close(struct s3_body *body);
void s3_body_attach(struct s3_body *body, struct s3_request *request);
/* Tells the store the checksum, to verify what it gets. */
void s3_body_declare(const struct s3_body *body, struct s3_request *request);
/* The store's echo of the checksum must be ours. */
int s3_body_check(const struct s3_body *body, const struct http_reply *reply, struct err *err);

/* Content type, storage class, metadata: what put, copy and upload_begin say of the new object. */
int s3_describe(struct s3_request *request, const struct put_request *put, struct err *err);
void s3_condition(struct s3_request *request, const struct put_condition *condition);
/* x-amz-copy-source and its pin. */
int s3_copy_source(struct s3 *s3, struct s3_request *request, const struct object_ref *source, struct err *err);
void s3_quote_etag(struct http_fields *headers, const char *name, const char *etag);

/* info->key from the request, size where the reply cannot know it. */
int s3_finish_info(struct object_info *info, const char *key, struct err *err);

/* --- operations in their own files -------------------------------------------------------------------------- */

int s3_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info, struct err *err);
/* Can objects of this bucket be locked? Who may not ask gets no promise. */
int s3_probe_lock(struct s3 *s3, const struct call *call, uint32_t *ret_capability, struct err *err);
int s3_lock(struct backend *backend, const struct call *call, const struct object_ref *object,
	    const struct object_lock *lock, struct err *err);
int s3_upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
		    char **ret_upload_id, struct err *err);
int s3_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		   const struct put_request *body, const struct upload_slot *slot, struct upload_part *ret_part,
		   struct err *err);
int s3_upload_part_copy(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			const struct get_request *source, const struct upload_slot *slot, struct upload_part *ret_part,
			struct err *err);
int s3_upload_complete(struct backend *backend, const struct call *call, const struct put_request *request,
		       const char *upload_id, const struct upload_part *parts, size_t count,
		       struct object_info *ret_info, struct err *err);
int s3_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		    struct err *err);

extern const struct backend_ops s3_backend_ops;

#endif
