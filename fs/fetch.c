/*
 * fetch.c - brings absent ranges from the store into the cache file.
 *
 * Invariants
 *  1. A fetch is pinned to the copy of `base` it began with (key, native id, etag); a relocated copy holds the same
 *     bytes, so only the pin is renewed when the old key is gone.
 *  2. A sink fills only what is absent at that moment, under the lock.
 *  3. A small object is fetched whole, into memory, and its checksum compared before a byte of it is shown. A range of
 *     a large one is protected by its pin, its exact length and the transport's checksum.
 *  4. No two fetches in flight overlap; whoever needs bytes under way waits for them.
 *  5. Bytes that the store has no more are never replaced by others: the reader is told. ENOENT of a past version, which
 *     is a name that is no more; ESTALE of a live file, as NFS says it of a handle whose file others removed: by name
 *     he finds what is there now.
 *
 * Threads: waiters on FUSE workers, fetches on the transfer pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content_internal.h"
#include "log.h"

#define WHOLE_MAX (UINT64_C(4) << 20)    /* objects up to this are fetched in one piece */
#define PIECE_MAX (UINT64_C(4) << 20)    /* ranges fetched in parallel are cut to this */
#define RANDOM_MIN (UINT64_C(64) << 10)  /* a lone read brings this much */
#define WINDOW_FIRST (UINT64_C(1) << 20) /* readahead of a sequential reader: from here, doubling, … */
#define WINDOW_MAX (UINT64_C(32) << 20)  /* … to here */
#define IN_FLIGHT_MAX 8
#define COPIES_TRIED 8 /* one after the other, when the store has lost them */
#define POLL_NS (100 * NS_PER_MS)
#define RESERVE_PATIENCE_NS (5 * NS_PER_SEC)
/* When a readahead has failed the kernel asks again for the page that somebody waits for: who comes so soon after
 * another gave up waits no longer than that. */
#define AGAIN_NS NS_PER_SEC

struct fetch {
	struct transfer_task task;
	struct list node; /* content->fetches */
	struct content *content;
	uint64_t start, end;
	char *key, *native_id, *etag; /* the pin */
	uint64_t object_size;
	char *whole; /* invariant 3; NULL for ranges */
	uint64_t at; /* next byte the sink expects */
	bool gone;   /* invariant 5 */
};

static void fetch_free(struct fetch *fetch)
{
	free(fetch->key);
	free(fetch->native_id);
	free(fetch->etag);
	free(fetch->whole);
	free(fetch);
}

/* Fills what is absent of [at, at + len). Called with the lock held. */
static int fill_absent(struct content *content, uint64_t at, const char *bytes, uint64_t len)
{
	uint64_t end = at + len < content->base_limit ? at + len : content->base_limit;
	struct range gap;

	while (at < end && ranges_next_gap(&content->present, at, end, &gap)) {
		const char *from = bytes + (gap.start - at);
		uint64_t size = gap.end - gap.start;
		ssize_t n = pwrite(content->fd, from, size, (off_t)gap.start);

		if (n <= 0)
			return n ? -errno : -EIO;
		if (ranges_add(&content->present, gap.start, gap.start + (uint64_t)n))
			return -ENOMEM;
		bytes += gap.start + (uint64_t)n - at;
		at = gap.start + (uint64_t)n;
	}
	content->stale = true;
	return 0;
}

int content_spare_in_flight(const struct content *content, struct ranges *kept)
{
	int err = 0;

	for (const struct list *at = content->fetches.next; at != &content->fetches && !err; at = at->next) {
		const struct fetch *fetch = list_entry(at, struct fetch, node);

		err = ranges_add(kept, fetch->start, fetch->end);
	}
	return err;
}

/* Readers make room as they go on; one that stopped holds what it has. */
static int reserve(struct content *content, uint64_t len)
{
	int64_t patience = clock_monotonic() + RESERVE_PATIENCE_NS;
	struct timespec pause = clock_to_timespec(POLL_NS / 4);
	int err;

	while ((err = cache_reserve(content->owner->cache, len)) == -ENOSPC && clock_monotonic() < patience)
		(void)nanosleep(&pause, NULL);
	return err;
}

static int fetch_sink(void *arg, const void *bytes, size_t len)
{
	struct fetch *fetch = arg;
	struct content *content = fetch->content;
	int err;

	if (fetch->at + len > fetch->end)
		return -EIO;
	if (fetch->whole) {
		memcpy(fetch->whole + (fetch->at - fetch->start), bytes, len);
		fetch->at += len;
		return 0;
	}
	err = reserve(content, len);
	if (err)
		return err;
	LOCK_GUARD(&content->lock);
	err = fill_absent(content, fetch->at, bytes, len);
	fetch->at += len;
	cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	(void)pthread_cond_broadcast(&content->cond);
	return err;
}

static int take_pin(struct fetch *fetch, const struct cat_copy *copy)
{
	fetch->key = strdup(copy->key);
	fetch->native_id = copy->native_id ? strdup(copy->native_id) : NULL;
	fetch->etag = copy->etag ? strdup(copy->etag) : NULL;
	return fetch->key ? 0 : -ENOMEM;
}

static int whole_arrived(struct fetch *fetch)
{
	struct content *content = fetch->content;
	int err = reserve(content, fetch->end - fetch->start);

	if (err)
		return err;
	LOCK_GUARD(&content->lock);
	if (content->base_has_crc32c && fetch->start == 0 && fetch->end == content->base_size &&
	    crc32c_update(0, fetch->whole, fetch->end) != content->base_crc32c) {
		log_error("fetch", "object %s of version %llu does not match its checksum: its bytes are not used",
			  fetch->key, (unsigned long long)content->base);
		return -EIO;
	}
	return fill_absent(content, fetch->start, fetch->whole, fetch->end - fetch->start);
}

static int fetch_once(struct fetch *fetch, struct err *error)
{
	struct call call = {.cancelled = &fetch->content->owner->cancelled};
	struct get_request request = {
		.object = {.key = fetch->key, .native_id = fetch->native_id, .etag = fetch->etag},
		.offset = fetch->start,
		.length = fetch->end - fetch->start,
		.expected_size = fetch->object_size,
		.sink = fetch_sink,
		.sink_arg = fetch,
	};
	int err;

	fetch->at = fetch->start;
	err = transfer_get(fetch->content->owner->transfer, &call, &request, NULL, error);
	return err ? err : (fetch->whole ? whole_arrived(fetch) : 0);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_pin(const struct fetch *fetch, const struct cat_copy *copy)
{
	return same_text(fetch->key, copy->key) && same_text(fetch->native_id, copy->native_id) &&
	       same_text(fetch->etag, copy->etag);
}

/* The copy may have been relocated since the pin was taken. */
static bool pin_renewed(struct fetch *fetch)
{
	struct content *content = fetch->content;
	bool renewed = false;

	LOCK_GUARD(&content->lock);
	if (content_load_copy(content) == 0 && content->copy.key && !same_pin(fetch, &content->copy)) {
		free(fetch->key);
		free(fetch->native_id);
		free(fetch->etag);
		renewed = take_pin(fetch, &content->copy) == 0;
	}
	return renewed;
}

static int gone_error(const struct content *content)
{
	return content->id & CACHE_HISTORY && !(content->id & CACHE_VERSION) ? -ENOENT : -ESTALE;
}

/* The store says that it has no such object: if so, the catalog learns it. */
static bool is_gone(struct fetch *fetch)
{
	struct contents *owner = fetch->content->owner;
	struct cat_gone gone = {
		.ino = fetch->content->ino, .key = fetch->key, .native_id = fetch->native_id, .etag = fetch->etag};

	if (!owner->gone)
		return false;
	{
		LOCK_GUARD(&fetch->content->lock);
		gone.seq = fetch->content->base;
	}
	return owner->gone(owner->gone_arg, &gone, &owner->cancelled);
}

static void fetch_end(struct fetch *fetch, int err)
{
	struct content *content = fetch->content;
	struct contents *owner = content->owner;
	uint64_t bytes;

	{
		LOCK_GUARD(&content->lock);
		list_remove(&fetch->node);
		content->fetching--;
		if (err) {
			content->failures++;
			content->failed_at = fetch->start;
			content->failure = err == -ENOSPC || err == -EACCES ? err : -EIO;
			if (fetch->gone) {
				content->gone = true;
				content->failure = gone_error(content);
			}
		}
		bytes = ranges_total(&content->present);
		(void)pthread_cond_broadcast(&content->cond);
	}
	cache_account(owner->cache, content->id, bytes);
	fetch_free(fetch);
	content_put(content);
}

static bool is_missing(const struct err *error)
{
	return error->kind == ERR_NOT_FOUND || error->kind == ERR_PRECONDITION;
}

static void fetch_run(struct transfer_task *task)
{
	struct fetch *fetch = container_of(task, struct fetch, task);
	struct err error = {0};
	int err = fetch_once(fetch, &error);

	for (int tries = 0; err && is_missing(&error) && tries < COPIES_TRIED; tries++) {
		if (!pin_renewed(fetch)) {
			if (!is_gone(fetch))
				break;
			fetch->gone = !pin_renewed(fetch);
			if (fetch->gone)
				break;
		}
		error = (struct err){0};
		err = fetch_once(fetch, &error);
	}
	if (err && !fetch->gone) /* that was said */
		log_warn("fetch", "cannot read %s [%llu, %llu): %s", fetch->key, (unsigned long long)fetch->start,
			 (unsigned long long)fetch->end, error.kind ? error.message : strerror(-err));
	fetch_end(fetch, err);
}

static void fetch_dropped(struct transfer_task *task)
{
	fetch_end(container_of(task, struct fetch, task), -EIO);
}

/* --- planning, with the lock held ------------------------------------------------------------------------ */

/* Is [*start, …) under way? Then *start moves past it. */
static bool skip_in_flight(const struct content *content, uint64_t *start, uint64_t *end)
{
	for (const struct list *at = content->fetches.next; at != &content->fetches; at = at->next) {
		const struct fetch *fetch = list_entry(at, struct fetch, node);

		if (fetch->start <= *start && *start < fetch->end) {
			*start = fetch->end;
			return true;
		}
		if (fetch->start > *start && fetch->start < *end)
			*end = fetch->start;
	}
	return false;
}

static int fetch_start(struct content *content, uint64_t start, uint64_t end, enum transfer_class class)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	int err = -ENOMEM;

	if (!fetch)
		return err;
	fetch->task = (struct transfer_task){.class = class, .run = fetch_run, .dropped = fetch_dropped};
	fetch->start = start;
	fetch->end = end;
	fetch->object_size = content->base_size;
	fetch->content = content;
	list_init(&fetch->task.node);
	if (take_pin(fetch, &content->copy))
		goto fail;
	if (end - start <= WHOLE_MAX && start == 0 && end == content->base_size) {
		fetch->whole = malloc(end - start);
		if (!fetch->whole)
			goto fail;
	}
	{
		LOCK_GUARD(&content->owner->lock);
		content->refs++;
	}
	list_add_tail(&content->fetches, &fetch->node);
	content->fetching++;
	transfer_submit(content->owner->transfer, &fetch->task);
	return 0;
fail:
	fetch_free(fetch);
	return err;
}

/* Starts what is absent and not under way in [start, end): urgent up to `needed`, in the background past it. */
static int fetch_range(struct content *content, uint64_t start, uint64_t end, uint64_t needed)
{
	struct range gap;

	while (start < end && ranges_next_gap(&content->present, start, end, &gap)) {
		uint64_t from = gap.start, to = gap.end;

		start = gap.end;
		while (from < to) {
			uint64_t piece_end = to;

			if (skip_in_flight(content, &from, &piece_end))
				continue;
			if (piece_end - from > PIECE_MAX)
				piece_end = from + PIECE_MAX;
			if (from >= needed && content->fetching >= IN_FLIGHT_MAX)
				return 0;
			int err = fetch_start(content, from, piece_end,
					      from < needed ? TRANSFER_URGENT : TRANSFER_BACKGROUND);

			if (err)
				return from < needed ? err : 0;
			from = piece_end;
		}
	}
	return 0;
}

/* Several readers must fit into a small cache. */
static uint64_t window_max(const struct content *content)
{
	uint64_t share = cache_limit(content->owner->cache) / 8;

	return share < WINDOW_MAX ? share : WINDOW_MAX;
}

/* What a read of [start, end) shall bring: the whole of a small object, a growing window for a sequential reader, a
 * little more than asked for a lone one. */
static void widen(struct content *content, uint64_t start, uint64_t *from, uint64_t *to)
{
	uint64_t limit = content->base_limit, end = *to;
	bool sequential = start >= content->read_next && start - content->read_next <= WINDOW_FIRST;

	*from = start;
	if (content->base_size <= WHOLE_MAX) {
		*from = 0;
		*to = limit;
		return;
	}
	if (sequential) {
		content->window = content->window ? content->window * 2 : WINDOW_FIRST;
		if (content->window > window_max(content))
			content->window = window_max(content);
		end += content->window;
	} else {
		content->window = 0;
		*from = start & ~(RANDOM_MIN - 1);
		end = (end + RANDOM_MIN - 1) & ~(RANDOM_MIN - 1);
	}
	*to = end < limit ? end : limit;
}

int content_wait_present(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter)
{
	int64_t deadline = waiter && waiter->deadline_ns ? waiter->deadline_ns
							 : clock_monotonic() + content->owner->read_timeout_ns;
	unsigned failures = content->failures;
	uint64_t from, to = end;
	struct range gap;
	bool first = true, again;
	int err;

	if (end > content->base_limit)
		end = content->base_limit;
	if (start >= end)
		return 0;
	again = content->gave_up_ns && clock_monotonic() - content->gave_up_ns < AGAIN_NS;
	if (again)
		deadline = clock_monotonic() + AGAIN_NS;
	widen(content, start, &from, &to);
	content->read_next = end;
	while (ranges_next_gap(&content->present, start, end, &gap)) {
		if (!content->copy.key)
			return content->gone ? gone_error(content) : -EIO;
		if (content->failures != failures && content->failed_at < end)
			return content->failure;
		failures = content->failures;
		err = first ? fetch_range(content, from, to, end) : fetch_range(content, start, end, end);
		if (err)
			return err;
		first = false;
		if (waiter && waiter->interrupted && waiter->interrupted(waiter->arg))
			return -EINTR;
		if (clock_monotonic() >= deadline) {
			if (!again)
				content->gave_up_ns = clock_monotonic();
			return -EIO;
		}
		(void)lock_wait(&content->lock, &content->cond, clock_monotonic() + POLL_NS);
		if (end > content->base_limit)
			end = content->base_limit;
	}
	if (first && content->window) /* all here: keep the window ahead of a sequential reader full */
		(void)fetch_range(content, end, to, end);
	return 0;
}
