/*
 * transfer_upload.c - large objects: one multipart upload, its parts in parallel.
 *
 * Parts may have been sent ahead of the upload that completes them (transfer_upload_part): such a part is read once
 * more and only counts when it still has the checksum that it was sent with; else it is sent again under its number.
 *
 * The caller and helper tasks on the pool take the next part each until none is left, so the upload advances even when
 * the pool is full of others' work. A part may be sent any number of times under its number; only the completion is
 * ambiguous when its reply is lost, and is resolved by the mark, as a put is.
 *
 * Invariants: a helper touches the struct upload only between its submission and its decrement of `helpers`; the caller
 * leaves only when that is 0. The first failure wins and stops the others before their next byte.
 * Threads: upload->lock (LOCK_LEAF) guards helpers and err; `parts_done[i]` belongs to whoever took i.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "transfer_retry.h"

#define UPLOAD_ABORT_NS (10 * NS_PER_SEC)
#define UPLOAD_CHECKSUM_CHUNK (256 * 1024)
/* More parts of one object at a time than this only make a near store slower: MinIO on two processors takes half as
 * much time again for thirty as for eight. */
#define UPLOAD_PARALLEL 8
#define UPLOAD_RATE_EACH (1024 * 1024)

struct upload {
	struct transfer *transfer;
	const struct call *call; /* the caller's; may be NULL */
	const struct put_request *request;
	const struct transfer_part *parts;
	size_t count;
	unsigned first; /* number of parts[0] in the upload */
	const char *id;
	struct upload_part *parts_done;
	_Atomic size_t next;
	atomic_bool failed;

	struct lock lock;
	pthread_cond_t idle;
	unsigned helpers;
	struct err err; /* of the first failure */
};

struct helper {
	struct transfer_task task;
	struct upload *upload;
};

/* --- one part --------------------------------------------------------------------------------------------- */

struct part_source {
	struct upload *upload;
	const struct call *call;
	uint64_t offset; /* of the part in the object */
	struct progress progress;
};

static int part_read(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	struct part_source *source = arg;
	const struct put_request *request = source->upload->request;
	if (source->upload->failed)
		return -ECANCELED;
	int r = pace_wait(&source->upload->transfer->up, len, source->call);
	if (r == 0)
		r = request->source(request->source_arg, ret_bytes, len, source->offset + offset);
	if (r == 0)
		progress_add(&source->progress, len);
	return r;
}

/* Of the part, read straight from the caller's source. 0 or -errno. */
static int part_checksum(const struct upload *upload, const struct transfer_part *part, uint32_t *ret_crc)
{
	const struct put_request *request = upload->request;
	AUTO_FREE char *chunk = malloc(UPLOAD_CHECKSUM_CHUNK);
	if (!chunk)
		return -ENOMEM;
	uint32_t crc = 0;
	for (uint64_t at = 0; at < part->size && !upload->failed;) {
		uint64_t left = part->size - at;
		size_t n = left < UPLOAD_CHECKSUM_CHUNK ? (size_t)left : UPLOAD_CHECKSUM_CHUNK;
		int r = request->source(request->source_arg, chunk, n, part->offset + at);
		if (r < 0)
			return r;
		crc = crc32c_update(crc, chunk, n);
		at += n;
	}
	*ret_crc = crc;
	return 0;
}

static int send_part_once(struct upload *upload, const struct call *call, size_t index, const struct put_request *body,
			  struct err *err)
{
	struct backend *backend = upload->transfer->backend;
	const struct backend_ops *ops = backend_ops(backend);
	const struct transfer_part *part = &upload->parts[index];
	const struct upload_slot slot = {.number = upload->first + (unsigned)index, .offset = part->offset};
	struct upload_part *done = &upload->parts_done[index];
	if (!part->copy_from.key)
		return ops->upload_part(backend, call, upload->request->key, upload->id, body, &slot, done, err);
	const struct get_request source = {
		.object = part->copy_from,
		.offset = part->copy_offset,
		.length = part->size,
		.expected_size = UINT64_MAX,
	};
	return ops->upload_part_copy(backend, call, upload->request->key, upload->id, &source, &slot, done, err);
}

/* Sent ahead, and the content still is what was sent? 1: nothing to do. */
static int check_ahead(const struct upload *upload, size_t index, uint32_t crc)
{
	struct upload_part *done = &upload->parts_done[index];

	if (!done->etag)
		return 0;
	if (done->has_crc32c && done->crc32c == crc && done->size == upload->parts[index].size)
		return 1;
	upload_part_clear(done);
	*done = (struct upload_part){0};
	return 0;
}

static int send_part(struct upload *upload, size_t index, struct err *err)
{
	const struct transfer_part *part = &upload->parts[index];
	struct retry retry;
	int r;
	retry_begin(&retry, upload->transfer, upload->call, part->size);
	struct part_source source = {
		.upload = upload, .call = &retry.call, .offset = part->offset, .progress = {.moved = retry.call.moved}};
	struct put_request body = {
		.key = upload->request->key, .source = part_read, .source_arg = &source, .size = part->size};
	if (!part->copy_from.key && transfer_can(upload->transfer, BACKEND_CRC32C)) {
		r = part_checksum(upload, part, &body.crc32c);
		if (r < 0)
			return err_from_errno(err, -r, "reading the content to send");
		body.has_crc32c = true;
		if (check_ahead(upload, index, body.crc32c)) {
			progress_done(&source.progress, part->size);
			return 0;
		}
	}
	do {
		if (upload->failed)
			return err_set(err, ERR_CANCELLED, "another part failed");
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		progress_restart(&source.progress);
		r = send_part_once(upload, &retry.call, index, &body, err);
	} while (retry_again(&retry, r, err));
	if (r == 0 && body.has_crc32c) {
		upload->parts_done[index].crc32c = body.crc32c;
		upload->parts_done[index].has_crc32c = true;
	}
	if (r < 0)
		return err_wrap(err, "part %zu of %zu", index + 1, upload->count);
	progress_done(&source.progress, part->size);
	return 0;
}

/* --- all parts ------------------------------------------------------------------------------------------------ */

static void run_parts(struct upload *upload)
{
	struct err err = {0};
	while (!upload->failed) {
		size_t index = upload->next++;
		if (index >= upload->count)
			return;
		if (send_part(upload, index, &err) < 0) {
			LOCK_GUARD(&upload->lock);
			if (!upload->failed)
				upload->err = err;
			upload->failed = true;
		}
	}
}

static void helper_leave(struct upload *upload)
{
	LOCK_GUARD(&upload->lock);
	if (--upload->helpers == 0)
		pthread_cond_signal(&upload->idle);
}

static void helper_run(struct transfer_task *task)
{
	struct upload *upload = container_of(task, struct helper, task)->upload;
	run_parts(upload);
	helper_leave(upload);
}

static void helper_dropped(struct transfer_task *task)
{
	helper_leave(container_of(task, struct helper, task)->upload);
}

unsigned transfer_parallel(const struct transfer *transfer)
{
	uint64_t rate = transfer->options.bytes_per_second_up;
	unsigned most = UPLOAD_PARALLEL;

	/* Many at a crawl would each look stalled. */
	if (rate && rate / UPLOAD_RATE_EACH < most)
		most = (unsigned)(rate / UPLOAD_RATE_EACH);
	if (transfer->options.max_requests && transfer->options.max_requests < most)
		most = transfer->options.max_requests;
	return most ? most : 1;
}

/* Without memory for helpers the caller sends everything itself. */
static struct helper *start_helpers(struct upload *upload, size_t *ret_count)
{
	size_t count = transfer_pool_threads(upload->transfer->pool);
	if (count > transfer_parallel(upload->transfer) - 1)
		count = transfer_parallel(upload->transfer) - 1;
	if (count > upload->count - 1)
		count = upload->count - 1;
	struct helper *helpers = calloc(count + 1, sizeof(*helpers));
	if (!helpers)
		count = 0;
	upload->helpers = (unsigned)count;
	for (size_t i = 0; i < count; i++) {
		helpers[i] = (struct helper){
			.task = {.class = TRANSFER_NORMAL, .run = helper_run, .dropped = helper_dropped},
			.upload = upload};
		transfer_submit(upload->transfer, &helpers[i].task);
	}
	*ret_count = count;
	return helpers;
}

static void stop_helpers(struct upload *upload, struct helper *helpers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (transfer_withdraw(upload->transfer, &helpers[i].task))
			helper_leave(upload);
	LOCK_GUARD(&upload->lock);
	while (upload->helpers > 0)
		(void)lock_wait(&upload->lock, &upload->idle, 0);
}

static int send_parts(struct upload *upload, struct err *err)
{
	size_t count;
	struct helper *helpers = start_helpers(upload, &count);
	run_parts(upload);
	stop_helpers(upload, helpers, count);
	free(helpers);
	if (!upload->failed)
		return 0;
	*err = upload->err;
	return -err_errno(err->kind);
}

/* --- begin, complete, abort ------------------------------------------------------------------------------------- */

/* What upload_begin is told: every part will be sent with its checksum. Copied parts have none. */
static bool parts_have_checksums(const struct upload *upload)
{
	for (size_t i = 0; i < upload->count; i++)
		if (upload->parts[i].copy_from.key)
			return false;
	return transfer_can(upload->transfer, BACKEND_CRC32C);
}

/* A lost reply leaves an upload that nobody knows; the store's own rules expire it. */
static int begin_upload(struct upload *upload, char **ret_id, struct err *err)
{
	struct backend *backend = upload->transfer->backend;
	struct put_request request = *upload->request;
	struct retry retry;
	int r;
	request.has_crc32c = parts_have_checksums(upload);
	retry_begin(&retry, upload->transfer, upload->call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		r = backend_ops(backend)->upload_begin(backend, &retry.call, &request, ret_id, err);
	} while (retry_again(&retry, r, err));
	return r;
}

/* 0: done after all; -EAGAIN: not done, err stands; else the doubt remains and err says so. */
static int resolve_completion(struct upload *upload, const struct call *call, struct object_info *ret_info,
			      struct err *err)
{
	const struct meta *meta = upload->request->meta;
	const char *mark = meta ? meta_get(meta, TRANSFER_UPLOAD_META) : NULL;
	struct err doubt = {0};
	if (!mark)
		return err_set(err, ERR_INDETERMINATE, "reply to the completion lost, and the upload bears no mark");
	int r = transfer_find_upload(upload->transfer, call, upload->request->key, mark, ret_info, &doubt);
	if (r == 0)
		return 0;
	if (doubt.kind == ERR_NOT_FOUND)
		return -EAGAIN;
	*err = doubt;
	return retry_still_in_doubt(err);
}

static int complete_upload(struct upload *upload, struct object_info *ret_info, struct err *err)
{
	struct backend *backend = upload->transfer->backend;
	struct retry retry;
	bool doubtful = false;
	int r;
	/* Stores take their time to put large objects together. */
	retry_begin(&retry, upload->transfer, upload->call, upload->request->size / 16);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return doubtful ? retry_still_in_doubt(err) : r;
		r = backend_ops(backend)->upload_complete(backend, &retry.call, upload->request, upload->id,
							  upload->parts_done, upload->count, ret_info, err);
		doubtful |= r < 0 && err->kind == ERR_INDETERMINATE;
		bool ask = r < 0 && doubtful && (err->kind == ERR_INDETERMINATE || !err_is_transient(err->kind));
		if (ask) {
			int resolved = resolve_completion(upload, &retry.call, ret_info, err);
			if (resolved != -EAGAIN) {
				retry_note(&retry, resolved, err);
				return resolved;
			}
		}
	} while (retry_again(&retry, r, err));
	/* "Not found" would be read as the key's; it is the upload that somebody ended. */
	if (r < 0 && err->kind == ERR_NOT_FOUND)
		return err_set(err, ERR_UNAVAILABLE, "the upload is gone before it was completed");
	return r < 0 && doubtful && err->kind != ERR_PRECONDITION ? retry_still_in_doubt(err) : r;
}

/* Also when the caller was cancelled or is out of time: parts cost money until somebody removes them. */
static int abort_upload(struct upload *upload, struct err *err)
{
	struct backend *backend = upload->transfer->backend;
	const struct call call = {.deadline_ns = clock_monotonic() + UPLOAD_ABORT_NS};
	struct retry retry;
	int r;
	retry_begin(&retry, upload->transfer, &call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		r = backend_ops(backend)->upload_abort(backend, &retry.call, upload->request->key, upload->id, err);
	} while (retry_again(&retry, r, err));
	return r;
}

static int check_parts(const struct put_request *request, const struct transfer_part *parts, size_t count,
		       struct err *err)
{
	uint64_t at = 0;
	for (size_t i = 0; i < count; i++) {
		if (parts[i].offset != at || parts[i].size > UINT64_MAX - at)
			return err_set(err, ERR_INTERNAL, "parts of the upload are not contiguous");
		at += parts[i].size;
	}
	if (count == 0 || at != request->size)
		return err_set(err, ERR_INTERNAL, "parts of the upload do not make up its size");
	return 0;
}

int transfer_upload_begin(struct transfer *transfer, const struct call *call, const struct put_request *request,
			  char **ret_id, struct err *err)
{
	struct upload upload = {.transfer = transfer, .call = call, .request = request};
	struct err own = {0};

	return begin_upload(&upload, ret_id, err ? err : &own);
}

int transfer_upload_part(struct transfer *transfer, const struct call *call, const struct put_request *request,
			 const char *id, const struct transfer_part *part, unsigned number,
			 struct upload_part *ret_part, struct err *err)
{
	struct upload upload = {.transfer = transfer,
				.call = call,
				.request = request,
				.parts = part,
				.count = 1,
				.first = number,
				.id = id};
	struct upload_part done = {0};
	struct err own = {0};

	upload.parts_done = &done;
	int r = send_part(&upload, 0, err ? err : &own);
	if (r == 0)
		*ret_part = done;
	else
		upload_part_clear(&done);
	return r;
}

int transfer_upload_abort(struct transfer *transfer, const char *key, const char *id, struct err *err)
{
	const struct put_request request = {.key = key};
	struct upload upload = {.transfer = transfer, .request = &request, .id = id};

	return abort_upload(&upload, err);
}

int transfer_upload_finish(struct transfer *transfer, const struct call *call, const struct put_request *request,
			   const struct transfer_begun *begun, const struct transfer_part *parts, size_t count,
			   struct object_info *ret_info, struct err *err)
{
	struct upload upload = {.transfer = transfer,
				.call = call,
				.request = request,
				.parts = parts,
				.count = count,
				.first = 1,
				.id = begun->id,
				.parts_done = begun->done};
	struct object_info info;
	struct err own = {0}, aborting = {0};
	if (!err)
		err = &own;
	lock_init(&upload.lock, LOCK_LEAF);
	lock_cond_init(&upload.idle);
	int r = check_parts(request, parts, count, err);
	if (r == 0)
		r = send_parts(&upload, err);
	if (r == 0)
		r = complete_upload(&upload, &info, err);
	/* In doubt the upload may be about to become the object: then it is left alone. */
	if (r < 0 && err->kind != ERR_INDETERMINATE)
		(void)abort_upload(&upload, &aborting); /* a store may expire it */
	pthread_cond_destroy(&upload.idle);
	lock_destroy(&upload.lock);
	if (r == 0 && ret_info)
		*ret_info = info;
	else if (r == 0)
		object_info_clear(&info);
	return r;
}

int transfer_upload(struct transfer *transfer, const struct call *call, const struct put_request *request,
		    const struct transfer_part *parts, size_t count, struct object_info *ret_info, struct err *err)
{
	struct upload upload = {.transfer = transfer, .call = call, .request = request, .parts = parts, .count = count};
	struct err own = {0};
	if (!err)
		err = &own;
	int r = check_parts(request, parts, count, err);
	if (r < 0)
		return r;
	AUTO_FREE char *id = NULL;
	AUTO_FREE struct upload_part *done = calloc(count, sizeof(*done));
	if (!done)
		return err_set(err, ERR_NO_MEMORY, "upload of %zu parts", count);
	r = begin_upload(&upload, &id, err);
	if (r < 0)
		return r;
	const struct transfer_begun begun = {.id = id, .done = done};
	r = transfer_upload_finish(transfer, call, request, &begun, parts, count, ret_info, err);
	for (size_t i = 0; i < count; i++)
		upload_part_clear(&done[i]);
	return r;
}
