/*
 * transfer.c - the only way to a store: one backend call, tried again until it succeeds, cannot, or is out of time.
 *
 * What may be repeated
 *  - reading calls: always. A get goes on at the byte where it broke off, of the object it began with: pinned by
 *    version id or etag, which is asked for first when the caller names neither.
 *  - changing calls that failed for certain (unavailable, throttled): always.
 *  - a put or copy whose reply was lost: only after the store was asked whether the object is there. It is recognised
 * by the mark in its metadata; without a mark the doubt is the caller's.
 *  - a remove whose reply was lost: after the same question, unless it names a version, which can go but once.
 *
 * Threads: any; no lock is held across a backend call.
 */
#include "transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "transfer_retry.h"

#define TRANSFER_THREADS 16
#define SMALL_GET (UINT64_C(64) << 10)
#define TRANSFER_TIMEOUT_NS (60 * NS_PER_SEC)
/* transfer_find_upload: how far back, by the store's own clock, and how many versions are asked. */
#define FIND_WINDOW_NS (24 * 60 * 60 * NS_PER_SEC)
#define FIND_HEADS 32
#define FIND_PAGES 8

/* --- the engine ------------------------------------------------------------------------------------------- */

int transfer_new(struct backend *backend, const struct transfer_options *options, struct transfer **ret_transfer,
		 struct err *err)
{
	struct transfer *transfer = calloc(1, sizeof(*transfer));
	if (!transfer)
		return err_set(err, ERR_NO_MEMORY, "transfer");
	transfer->backend = backend;
	if (options)
		transfer->options = *options;
	if (transfer->options.threads == 0)
		transfer->options.threads = TRANSFER_THREADS;
	if (transfer->options.call_timeout_ns == 0)
		transfer->options.call_timeout_ns = TRANSFER_TIMEOUT_NS;
	transfer->online = true;
	transfer->allowed = transfer->options.max_requests;
	int r = transfer_pool_new(transfer->options.threads, &transfer->pool);
	if (r < 0) {
		free(transfer);
		return err_from_errno(err, -r, "starting transfer threads");
	}
	lock_init(&transfer->lock, LOCK_LEAF);
	lock_cond_init(&transfer->room);
	pace_init(&transfer->up, transfer->options.bytes_per_second_up, NS_PER_SEC / 4);
	pace_init(&transfer->down, transfer->options.bytes_per_second_down, NS_PER_SEC / 4);
	*ret_transfer = transfer;
	return 0;
}

void transfer_free(struct transfer *transfer)
{
	if (!transfer)
		return;
	transfer_pool_free(transfer->pool);
	for (struct transfer_info *info = transfer->info, *older; info; info = older) {
		older = info->older;
		free(info);
	}
	pace_destroy(&transfer->up);
	pace_destroy(&transfer->down);
	(void)pthread_cond_destroy(&transfer->room); /* nobody waits */
	lock_destroy(&transfer->lock);
	free(transfer);
}

bool transfer_can(const struct transfer *transfer, enum backend_capability capability)
{
	const struct transfer_info *info = transfer->info;
	return info && (info->info.capabilities & capability);
}

const struct backend_limits *transfer_limits(const struct transfer *transfer)
{
	static const struct backend_limits none;
	const struct transfer_info *info = transfer->info;
	return info ? &info->info.limits : &none;
}

const char *transfer_description(const struct transfer *transfer)
{
	const struct transfer_info *info = transfer->info;
	return info ? info->info.description : backend_ops(transfer->backend)->name;
}

bool transfer_is_far(const struct transfer *transfer)
{
	return transfer->far;
}

const char *transfer_known(const struct transfer *transfer)
{
	const struct transfer_info *info = transfer->info;
	return info ? info->info.known : NULL;
}

/* Readers may hold pointers into older ones, so these stay: some hundred bytes for each change of a store. */
static int publish_info(struct transfer *transfer, const struct backend_info *info, struct err *err)
{
	struct transfer_info *newest = transfer->info;
	if (newest && memcmp(&newest->info.limits, &info->limits, sizeof(info->limits)) == 0 &&
	    newest->info.capabilities == info->capabilities && newest->info.description == info->description)
		return 0;
	struct transfer_info *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return err_set(err, ERR_NO_MEMORY, "probe");
	fresh->info = *info;
	fresh->older = newest;
	while (!atomic_compare_exchange_weak(&transfer->info, &fresh->older, fresh))
		;
	return 0;
}

int transfer_probe(struct transfer *transfer, const struct call *call, struct err *err)
{
	const struct backend_ops *ops = backend_ops(transfer->backend);
	struct backend_info info = {0};
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	int r;
	retry_begin(&retry, transfer, call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		r = ops->probe(transfer->backend, &retry.call, &info, err);
	} while (retry_again(&retry, r, err));
	return r < 0 ? r : publish_info(transfer, &info, err);
}

void transfer_submit(struct transfer *transfer, struct transfer_task *task)
{
	transfer_pool_submit(transfer->pool, task);
}

bool transfer_withdraw(struct transfer *transfer, struct transfer_task *task)
{
	return transfer_pool_withdraw(transfer->pool, task);
}

void transfer_figures(struct transfer *transfer, struct transfer_figures *ret_figures)
{
	const struct backend_counters *counters = backend_ops(transfer->backend)->counters(transfer->backend);
	struct transfer_figures figures = {
		.requests = counters->requests,
		.bytes_sent = counters->bytes_sent,
		.bytes_received = counters->bytes_received,
		.errors = counters->errors,
		.retries = transfer->retries,
		.heads = transfer->heads,
		.gets = transfer->gets,
		.lists = transfer->lists,
	};
	transfer_pool_count(transfer->pool, &figures.queued, &figures.running);
	LOCK_GUARD(&transfer->lock);
	figures.online = transfer->online;
	figures.allowed = transfer->allowed;
	figures.last_error_wall = transfer->last_error_wall;
	memcpy(figures.last_error, transfer->last_error, sizeof(figures.last_error));
	*ret_figures = figures;
}

/* --- head, list --------------------------------------------------------------------------------------------- */

int transfer_head(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		  struct object_info *ret_info, struct err *err)
{
	const struct backend_ops *ops = backend_ops(transfer->backend);
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	int r;
	retry_begin(&retry, transfer, call, 0);
	retry.small = true;
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		transfer->heads++;
		r = ops->head(transfer->backend, &retry.call, object, ret_info, err);
	} while (retry_again(&retry, r, err));
	return r;
}

int transfer_list(struct transfer *transfer, const struct call *call, const struct list_request *request,
		  struct list_page *ret_page, struct err *err)
{
	const struct backend_ops *ops = backend_ops(transfer->backend);
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	int r;
	retry_begin(&retry, transfer, call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		transfer->lists++;
		r = ops->list(transfer->backend, &retry.call, request, ret_page, err);
	} while (retry_again(&retry, r, err));
	return r;
}

/* --- get ------------------------------------------------------------------------------------------------------ */

struct get_state {
	struct transfer *transfer;
	const struct call *call;
	const struct get_request *request;
	uint64_t delivered; /* over all attempts */
	bool whole;         /* the object from its first byte on: the checksum may be needed */
	uint32_t crc32c;    /* of what was delivered */
	int failure;        /* what the sink, or the wait for its bandwidth, said */
	struct progress progress;
};

static int get_sink(void *arg, const void *bytes, size_t len)
{
	struct get_state *state = arg;
	int r = pace_wait(&state->transfer->down, len, state->call);
	if (r == 0)
		r = state->request->sink(state->request->sink_arg, bytes, len);
	state->failure = r;
	if (r != 0)
		return r;
	if (state->whole)
		state->crc32c = crc32c_update(state->crc32c, bytes, len);
	state->delivered += len;
	progress_add(&state->progress, len);
	return 0;
}

/* S3's "null" version is overwritten in place while versioning is suspended: it pins nothing. */
static bool is_pinned(const struct object_ref *object)
{
	return object->etag || (object->native_id && strcmp(object->native_id, "null") != 0);
}

/* Bytes of a damaged reply are with the sink already and cannot be called back: only the caller can start over. */
static bool get_can_resume(uint64_t delivered_before, const struct get_state *state, const struct err *err)
{
	return err->kind != ERR_CORRUPT || state->delivered == delivered_before;
}

/* The backend only knows that its sink wanted no more. 0: for no reason of its own. */
static int local_failure(const struct get_state *state, struct err *err)
{
	int r = state->failure;
	if (r >= 0 || r == -ECANCELED || r == -EINTR)
		return 0;
	(void)err_set(err,
		      r == -ENOSPC      ? ERR_QUOTA
		      : r == -ENOMEM    ? ERR_NO_MEMORY
		      : r == -ETIMEDOUT ? ERR_TIMED_OUT
					: ERR_INTERNAL,
		      "taking the bytes: %s", strerror(-r));
	return r;
}

/* No single attempt saw the whole content, so no attempt compared its checksum. */
static int check_whole(const struct get_state *state, const struct object_info *info, struct err *err)
{
	bool whole = state->whole && state->delivered == info->size;
	if (whole && (info->flags & OBJECT_CRC32C) && info->crc32c != state->crc32c)
		return err_set(err, ERR_CORRUPT, "content does not have its checksum");
	return 0;
}

static int get_attempts(struct get_state *state, struct retry *retry, const struct object_ref *object,
			struct object_info *ret_info, struct err *err)
{
	struct transfer *transfer = state->transfer;
	const struct get_request *request = state->request;
	struct get_request rest = *request;
	int r;
	rest.object = *object;
	rest.sink = get_sink;
	rest.sink_arg = state;
	do {
		uint64_t before = state->delivered;
		r = retry_start(retry, err);
		if (r < 0)
			return r;
		rest.offset = request->offset + before;
		if (request->length != UINT64_MAX)
			rest.length = request->length - before;
		transfer->gets++;
		r = backend_ops(transfer->backend)->get(transfer->backend, &retry->call, &rest, ret_info, err);
		int local = r < 0 ? local_failure(state, err) : 0;
		if (local || (r < 0 && !get_can_resume(before, state, err))) {
			retry_note(retry, r, local ? &(struct err){.kind = ERR_CANCELLED} : err);
			return local ? local : r;
		}
	} while (retry_again(retry, r, err));
	return r;
}

static uint64_t get_bytes(const struct get_request *request)
{
	if (request->length != UINT64_MAX)
		return request->length;
	return request->expected_size != UINT64_MAX ? request->expected_size : UINT64_C(1) << 40;
}

int transfer_get(struct transfer *transfer, const struct call *call, const struct get_request *request,
		 struct object_info *ret_info, struct err *err)
{
	struct get_state state = {.transfer = transfer, .request = request};
	struct object_ref object = request->object;
	struct object_info pinned = {0}, info = {0};
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	int r = 0;
	retry_begin(&retry, transfer, call, get_bytes(request));
	retry.small = get_bytes(request) <= SMALL_GET;
	state.call = &retry.call;
	state.progress.moved = retry.call.moved;
	state.whole = request->offset == 0 && (request->length == UINT64_MAX || request->expected_size == UINT64_MAX ||
					       request->length >= request->expected_size);
	if (!is_pinned(&object)) {
		r = transfer_head(transfer, &retry.call, &object, &pinned, err);
		if (r == 0)
			object.etag = pinned.etag;
	}
	if (r == 0)
		r = get_attempts(&state, &retry, &object, &info, err);
	if (r == 0 && retry.failures > 0)
		r = check_whole(&state, pinned.key ? &pinned : &info, err);
	if (r == 0 && ret_info) {
		*ret_info = info;
		info = (struct object_info){0};
	}
	object_info_clear(&info);
	object_info_clear(&pinned);
	return r;
}

/* --- was it done? ------------------------------------------------------------------------------------------------- */

/* 1: *ret_info is the marked object; 0: it is another; -errno. */
static int head_for_mark(struct transfer *transfer, const struct call *call, const struct object_ref *object,
			 const char *mark, struct object_info *ret_info, struct err *err)
{
	struct object_info info;
	int r = transfer_head(transfer, call, object, &info, err);
	if (r < 0)
		return r;
	const char *found = meta_get(&info.meta, TRANSFER_UPLOAD_META);
	if (found && strcmp(found, mark) == 0) {
		*ret_info = info;
		return 1;
	}
	object_info_clear(&info);
	return 0;
}

struct find_state {
	struct transfer *transfer;
	const struct call *call;
	const char *key;
	const char *mark;
	unsigned heads;
	int64_t newest_ns; /* time of the newest version seen */
	bool past_key;     /* the listing has come to other keys */
};

/* 1: found; 0: not on this page; -errno. */
static int find_on_page(struct find_state *find, const struct list_page *page, struct object_info *ret_info,
			struct err *err)
{
	for (size_t i = 0; i < page->count && find->heads < FIND_HEADS; i++) {
		const struct object_info *entry = &page->entries[i];
		if (strcmp(entry->key, find->key) != 0) {
			find->past_key = true;
			return 0;
		}
		if (entry->modified_ns > find->newest_ns)
			find->newest_ns = entry->modified_ns;
		/* A delete marker is no upload; the current object was asked before; what is old was there before. */
		if ((entry->flags & (OBJECT_DELETE_MARKER | OBJECT_LATEST)) ||
		    entry->modified_ns < find->newest_ns - FIND_WINDOW_NS)
			continue;
		const struct object_ref ref = {.key = find->key, .native_id = entry->native_id};
		find->heads++;
		int r = head_for_mark(find->transfer, find->call, &ref, find->mark, ret_info, err);
		if (r != 0 && !(r < 0 && err->kind == ERR_NOT_FOUND))
			return r;
	}
	return 0;
}

static int find_in_versions(struct find_state *find, struct object_info *ret_info, struct err *err)
{
	AUTO_FREE char *token = NULL;
	for (unsigned pages = 0; pages < FIND_PAGES && !find->past_key && find->heads < FIND_HEADS; pages++) {
		const struct list_request list = {.prefix = find->key, .versions = true, .token = token};
		struct list_page page;
		int r = transfer_list(find->transfer, find->call, &list, &page, err);
		if (r < 0)
			return r;
		r = find_on_page(find, &page, ret_info, err);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
		if (r != 0 || !token)
			return r;
	}
	return 0;
}

int transfer_find_upload(struct transfer *transfer, const struct call *call, const char *key, const char *mark,
			 struct object_info *ret_info, struct err *err)
{
	const struct object_ref current = {.key = key};
	struct find_state find = {.transfer = transfer, .call = call, .key = key, .mark = mark};
	struct err own = {0};
	if (!err)
		err = &own;
	int r = head_for_mark(transfer, call, &current, mark, ret_info, err);
	if (r < 0 && err->kind == ERR_NOT_FOUND)
		r = 0;
	if (r == 0 && transfer_can(transfer, BACKEND_VERSIONS))
		r = find_in_versions(&find, ret_info, err);
	if (r == 0)
		return err_set(err, ERR_NOT_FOUND, "no object of %.100s carries the mark", key);
	return r < 0 ? r : 0;
}

/* --- put, copy ------------------------------------------------------------------------------------------------------
 */

struct paced_source {
	struct transfer *transfer;
	const struct call *call;
	const struct put_request *request;
	struct progress progress;
};

static int paced_read(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	struct paced_source *paced = arg;
	int r = pace_wait(&paced->transfer->up, len, paced->call);
	if (r == 0)
		r = paced->request->source(paced->request->source_arg, ret_bytes, len, offset);
	if (r == 0)
		progress_add(&paced->progress, len);
	return r;
}

/* One attempt of a put or a copy. */
typedef int (*store_fn)(struct transfer *transfer, const struct call *call, const void *request,
			struct object_info *ret_info, struct err *err);

static int put_once(struct transfer *transfer, const struct call *call, const void *request,
		    struct object_info *ret_info, struct err *err)
{
	const struct put_request *put = request;
	struct paced_source *paced = put->source_arg;
	progress_restart(&paced->progress);
	return backend_ops(transfer->backend)->put(transfer->backend, call, put, ret_info, err);
}

static int copy_once(struct transfer *transfer, const struct call *call, const void *request,
		     struct object_info *ret_info, struct err *err)
{
	return backend_ops(transfer->backend)->copy(transfer->backend, call, request, ret_info, err);
}

struct store {
	store_fn once;
	const void *request;
	const char *key;
	const struct meta *meta;
};

/*
 * After a lost reply, and when a later attempt meets its own condition broken
 * (by the object the lost one left?). True: *ret_r is the outcome of the whole
 * call. False: it was not done, the error may be handled as any other.
 */
static bool resolve_store(struct transfer *transfer, const struct call *call, const struct store *store,
			  struct object_info *ret_info, struct err *err, int *ret_r)
{
	const char *mark = store->meta ? meta_get(store->meta, TRANSFER_UPLOAD_META) : NULL;
	struct err doubt = {0};
	if (!mark) {
		*ret_r = -err_errno(err->kind);
		return true;
	}
	int r = transfer_find_upload(transfer, call, store->key, mark, ret_info, &doubt);
	if (r < 0 && doubt.kind == ERR_NOT_FOUND)
		return false;
	if (r < 0)
		*err = doubt;
	*ret_r = r == 0 ? 0 : retry_still_in_doubt(err);
	return true;
}

static int store_with_retries(struct retry *retry, const struct store *store, struct object_info *ret_info,
			      struct err *err)
{
	struct transfer *transfer = retry->transfer;
	bool doubtful = false; /* some attempt's reply was lost */
	int r;
	do {
		r = retry_start(retry, err);
		if (r < 0)
			return doubtful ? retry_still_in_doubt(err) : r;
		r = store->once(transfer, &retry->call, store->request, ret_info, err);
		doubtful |= r < 0 && err->kind == ERR_INDETERMINATE;
		bool ask = r < 0 && doubtful && (err->kind == ERR_INDETERMINATE || !err_is_transient(err->kind));
		if (ask && resolve_store(transfer, &retry->call, store, ret_info, err, &r)) {
			retry_note(retry, r, err);
			return r;
		}
	} while (retry_again(retry, r, err));
	/* Somebody else's object there, and nothing of ours: that is an answer. */
	return r < 0 && doubtful && err->kind != ERR_PRECONDITION ? retry_still_in_doubt(err) : r;
}

int transfer_put(struct transfer *transfer, const struct call *call, const struct put_request *request,
		 struct object_info *ret_info, struct err *err)
{
	struct object_info info;
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	retry_begin(&retry, transfer, call, request->size);
	struct paced_source paced = {
		.transfer = transfer, .call = &retry.call, .request = request, .progress = {.moved = retry.call.moved}};
	struct put_request put = *request;
	put.source = paced_read;
	put.source_arg = &paced;
	const struct store store = {.once = put_once, .request = &put, .key = request->key, .meta = request->meta};
	int r = store_with_retries(&retry, &store, &info, err);
	if (r < 0)
		return r;
	progress_done(&paced.progress, request->size);
	if (ret_info)
		*ret_info = info;
	else
		object_info_clear(&info);
	return 0;
}

int transfer_copy(struct transfer *transfer, const struct call *call, const struct copy_request *request,
		  struct object_info *ret_info, struct err *err)
{
	const struct store store = {.once = copy_once, .request = request, .key = request->key, .meta = request->meta};
	struct object_info info;
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	retry_begin(&retry, transfer, call, transfer_limits(transfer)->max_copy / 16);
	int r = store_with_retries(&retry, &store, &info, err);
	if (r < 0)
		return r;
	if (retry.call.moved)
		++*retry.call.moved; /* how much it was only the store knows */
	if (ret_info)
		*ret_info = info;
	else
		object_info_clear(&info);
	return 0;
}

/* --- remove
 * ------------------------------------------------------------------------------------------------------------- */

/* The delete marker that now stands at the key, malloc'd; NULL when it cannot be told. */
static char *find_marker(struct transfer *transfer, const struct call *call, const char *key)
{
	const struct list_request list = {.prefix = key, .versions = true};
	struct list_page page;
	char *marker = NULL;
	if (!transfer_can(transfer, BACKEND_VERSIONS) || transfer_list(transfer, call, &list, &page, NULL) < 0)
		return NULL;
	if (page.count > 0 && strcmp(page.entries[0].key, key) == 0 && page.entries[0].native_id &&
	    (page.entries[0].flags & OBJECT_DELETE_MARKER))
		marker = strdup(page.entries[0].native_id);
	list_page_clear(&page);
	return marker;
}

/* A removal in doubt: 1: the key is free; 0: an object is still, or again, there; -errno. */
static int is_removed(struct transfer *transfer, const struct call *call, const char *key, struct err *err)
{
	const struct object_ref current = {.key = key};
	struct object_info info;
	struct err doubt = {0};
	int r = transfer_head(transfer, call, &current, &info, &doubt);
	if (r == 0) {
		object_info_clear(&info);
		return 0;
	}
	if (doubt.kind == ERR_NOT_FOUND)
		return 1;
	return err_set(err, ERR_INDETERMINATE, "reply lost, and then: %.150s", doubt.message);
}

int transfer_remove(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		    char **ret_marker_id, struct err *err)
{
	const struct backend_ops *ops = backend_ops(transfer->backend);
	struct retry retry;
	bool doubtful = false;
	char *marker = NULL;
	struct err own = {0};
	if (!err)
		err = &own;
	int r;
	retry_begin(&retry, transfer, call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		r = ops->remove(transfer->backend, &retry.call, object, &marker, err);
		doubtful |= r < 0 && err->kind == ERR_INDETERMINATE;
		if (r < 0 && doubtful && !object->native_id &&
		    (err->kind == ERR_INDETERMINATE || err->kind == ERR_PRECONDITION)) {
			int removed = is_removed(transfer, &retry.call, object->key, err);
			if (removed < 0) {
				retry_note(&retry, removed, err);
				return removed;
			}
			if (removed) {
				marker = find_marker(transfer, &retry.call, object->key);
				r = 0;
			}
		}
	} while (retry_again(&retry, r, err));
	if (r == 0 && ret_marker_id)
		*ret_marker_id = marker;
	else if (r == 0)
		free(marker);
	return r;
}

int transfer_lock(struct transfer *transfer, const struct call *call, const struct object_ref *object,
		  const struct object_lock *lock, struct err *err)
{
	const struct backend_ops *ops = backend_ops(transfer->backend);
	struct retry retry;
	struct err own = {0};
	if (!err)
		err = &own;
	int r;
	if (!ops->lock)
		return err_set(err, ERR_UNSUPPORTED, "this store cannot lock versions");
	retry_begin(&retry, transfer, call, 0);
	do {
		r = retry_start(&retry, err);
		if (r < 0)
			return r;
		r = ops->lock(transfer->backend, &retry.call, object, lock, err);
	} while (retry_again(&retry, r, err));
	return r;
}
