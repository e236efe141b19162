/*
 * transfer.h - the only way to a store: bounded concurrency, deadlines and the
 * one place where a call is tried again.
 *
 * Two faces:
 *  - transfer_get/put/… run one backend call on the caller's thread, with
 *    retries: full-jitter exponential backoff (100 ms … 10 s), Retry-After
 *    honoured, until the deadline; kinds that err_is_transient() only. A hasty
 *    call is over when two attempts in a row did not reach the store.
 *    An indeterminate put is never sent blindly again: see transfer_put.
 *  - transfer_submit runs a task on the pool; its `run` uses the first face.
 *
 * Thread-safe. Holds no lock across a backend call.
 */
#ifndef VARVE_TRANSFER_H
#define VARVE_TRANSFER_H

#include "table.h"
#include "varve/backend.h"

struct transfer;

struct transfer_options {
	unsigned threads;        /* pool size; 0: 16 */
	int64_t call_timeout_ns; /* patience for one call with all its retries when call->deadline_ns is 0; 0: 60 s */
	uint64_t bytes_per_second_up, bytes_per_second_down; /* 0: no limit */
	unsigned max_requests; /* at once, from whatever threads; 0: no limit. Fewer while the store throttles */
};

int transfer_new(struct backend *backend, const struct transfer_options *options, struct transfer **ret_transfer,
		 struct err *err);
/* Waits for running tasks, drops queued ones (their `dropped` is called). Does not close the backend. */
void transfer_free(struct transfer *transfer);

/* From the newest probe. */
bool transfer_can(const struct transfer *transfer, enum backend_capability capability);
const struct backend_limits *transfer_limits(const struct transfer *transfer);
const char *transfer_description(const struct transfer *transfer);
const char *transfer_known(const struct transfer *transfer); /* backend_info.known */
int transfer_probe(struct transfer *transfer, const struct call *call, struct err *err);

/* Of late even the quickest answers took so long that it is worth to ask for more at once. */
bool transfer_is_far(const struct transfer *transfer);

int transfer_head(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		  struct object_info *ret_info, struct err *err);
/* A retry goes on where the last attempt broke off, so the sink still sees every byte once, in order;
 * the object is pinned by etag from the first attempt on. A sink's -errno ends the call with it, unless it means that
 * the caller wants no more (-ECANCELED, -EINTR). */
int transfer_get(struct transfer *transfer, const struct call *call, const struct get_request *request,
		 struct object_info *ret_info, struct err *err);
/*
 * request->meta carries TRANSFER_UPLOAD_META, unique to this content; when a
 * reply was lost the store is asked for an object of the key with that mark
 * (transfer_find_upload) before anything is sent again.
 */
int transfer_put(struct transfer *transfer, const struct call *call, const struct put_request *request,
		 struct object_info *ret_info, struct err *err);
int transfer_copy(struct transfer *transfer, const struct call *call, const struct copy_request *request,
		  struct object_info *ret_info, struct err *err);
int transfer_remove(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		    char **ret_marker_id, struct err *err);
/* Saying it twice does no harm, so a lost reply is no matter. */
int transfer_lock(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		  const struct object_lock *lock, struct err *err);
int transfer_list(struct transfer *transfer, const struct call *call, const struct list_request *request,
		  struct list_page *ret_page, struct err *err);

/* One part of a large upload: bytes from the source, or (copy_from.key set) a range of a stored object. */
struct transfer_part {
	uint64_t offset; /* in the new object; parts are contiguous, in order */
	uint64_t size;
	struct object_ref copy_from; /* key NULL: from request->source at `offset` */
	uint64_t copy_offset;
};
/*
 * Multipart upload of the parts in parallel on the pool; must not be called
 * from so many pool threads at once that none is left (it runs parts itself
 * too, so it always makes progress). Aborts the upload on failure. Ambiguity
 * of the completion is resolved as for put.
 */
int transfer_upload(struct transfer *transfer, const struct call *call, const struct put_request *request,
		    const struct transfer_part *parts, size_t count, struct object_info *ret_info, struct err *err);

/*
 * The same step by step, for who sends parts before he knows the whole. request->size is not looked at by begin and
 * part; the source is asked at offsets in the object. A part belongs to the caller until it is cleared.
 */
int transfer_upload_begin(struct transfer *transfer, const struct call *call, const struct put_request *request,
			  char **ret_id, struct err *err);
int transfer_upload_part(struct transfer *transfer, const struct call *call, const struct put_request *request,
			 const char *id, const struct transfer_part *part, unsigned number,
			 struct upload_part *ret_part, struct err *err);
struct transfer_begun {
	const char *id;
	/* One for each part; etag NULL: not sent yet. Those sent ahead count only with the size and checksum that the
	 * content still has; all are filled in. */
	struct upload_part *done;
};
int transfer_upload_finish(struct transfer *transfer, const struct call *call, const struct put_request *request,
			   const struct transfer_begun *begun, const struct transfer_part *parts, size_t count,
			   struct object_info *ret_info, struct err *err);
/* How many parts of one upload to send at a time. */
unsigned transfer_parallel(const struct transfer *transfer);
/* For some seconds; whoever fails has to do it another time. One that is gone is no matter. */
int transfer_upload_abort(struct transfer *transfer, const char *key, const char *id, struct err *err);

#define TRANSFER_UPLOAD_META "varve-upload"
/* Looks for the object of `key` whose metadata carries the mark: the current one first, then its versions.
 * 0 and *ret_info, or ERR_NOT_FOUND. */
int transfer_find_upload(struct transfer *transfer, const struct call *call, const char *key, const char *mark,
			 struct object_info *ret_info, struct err *err);

/* --- the pool ------------------------------------------------------------------------------- */

enum transfer_class {
	TRANSFER_URGENT,     /* somebody waits: a read, an fsync */
	TRANSFER_NORMAL,     /* uploads */
	TRANSFER_BACKGROUND, /* readahead, relocation, listing ahead */
};

/* Embedded in the submitter's own structure. */
struct transfer_task {
	struct list node; /* transfer's while queued */
	enum transfer_class class;
	void (*run)(struct transfer_task *task);     /* on a pool thread; the task is the runner's from here on */
	void (*dropped)(struct transfer_task *task); /* instead of run, at shutdown */
};
/* Background tasks never take more than half the threads, of many 16 or a quarter, or three quarters while the store is
 * far; normal ones leave two to urgent ones. */
void transfer_submit(struct transfer *transfer, struct transfer_task *task);
/* True when it was still queued and is the caller's again. */
bool transfer_withdraw(struct transfer *transfer, struct transfer_task *task);

struct transfer_figures {
	uint64_t requests, bytes_sent, bytes_received, errors, retries;
	uint64_t heads, gets, lists; /* of these requests: those that only ask. Probes are in none of them */
	unsigned queued, running;
	unsigned allowed;        /* requests at once: max_requests, or what throttling made of it; 0: no limit */
	bool online;             /* the last attempt reached the store */
	int64_t last_error_wall; /* 0: never */
	char last_error[256];
};
void transfer_figures(struct transfer *transfer, struct transfer_figures *ret_figures);

#endif
