/*
 * fetch.c - brings absent ranges from the store into the cache file.
 *
 * Invariants
 *  1. A fetch is pinned to the copy of `base` it began with (key, native id, etag); a relocated copy holds the same
 *     bytes, so only the pin is renewed when the old key is gone.
 *  2. A fetch writes to the cache file without the content's lock, but only what is absent, and says under the lock
 * what that is (`writing`) before it begins. Whoever changes bytes there, cuts the file or swaps its descriptor waits
 *     until that write is over (fetch_is_writing), and then holds the lock until its own bytes are in `present`: so the
 *     fetch leaves them out from then on. A write is never overwritten by a fetch.
 *  3. `present` grows after the bytes are in the file, never before.
 *  4. A small object is fetched whole, into memory, and its checksum compared before a byte of it is shown. A range of
 *     a large one is protected by its pin, its exact length and the transport's checksum.
 *  5. No two fetches in flight overlap; whoever needs bytes under way waits for them, and makes them urgent.
 *  6. Nobody waits for room in the cache: what no reader waits for is given up when there is none, what a reader waits
 *     for goes over the limit, as far as the disk's reserve allows. So the cache exceeds its limit by no more than what
 *     readers wait for at one moment (at most one request of the kernel each) and STEP for each fetch under way, and
 *     fetches cannot wait for readers who wait for them.
 *  7. Bytes that the store has no more are never replaced by others: the reader is told. ENOENT of a past version,
 *     which is a name that is no more; ESTALE of a live file, as NFS says it of a handle whose file others removed: by
 *     name he finds what is there now.
 *
 * How much is fetched is readahead.c's decision for files over FETCH_WHOLE_MAX. Beyond that lone reads of a file of
 * moderate size buy the rest of it once their round trips have cost as much (readahead_allowance).
 *
 * A small range from a store that answers fast is fetched by the reader's own thread: two hand-overs between threads
 * take as long as the store itself. It gives up soon and leaves it to the pool, for only there may a reader be
 * interrupted while the store is silent.
 *
 * Threads: readers on FUSE workers, fetches there and on the transfer pool.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content_internal.h"
#include "log.h"

/* Bytes are gathered to this before they go to the cache file: a system call for each of the transport's 16 KiB costs
 * more. Over 64 KiB ext4 takes page cache in large folios, which a virtual machine may have to ask its host for:
 * measured ten times slower than this size. */
#define STEP (UINT64_C(64) << 10)
#define NEED_MAX (UINT64_C(4) << 20)     /* what a reader waits for is cut to this */
#define BRING_PIECE (UINT64_C(16) << 20) /* of what an upload lacks; its parts are brought side by side */
#define WINDOW_MAX (UINT64_C(64) << 20)  /* ahead of one reader */
#define IN_FLIGHT_MAX 16                 /* of one content, beside what readers wait for */
#define SPECULATE_IN_FLIGHT 8
#define SPECULATE_PIECE (UINT64_C(8) << 20)
#define SPECULATE_CAP (UINT64_C(1) << 30)
#define BRIDGED (UINT64_C(128) << 10)
#define SAVE_EVERY (UINT64_C(64) << 20)
#define COPIES_TRIED 8 /* one after the other, when the store has lost them */
#define POLL_NS (100 * NS_PER_MS)
#define ROOM_PATIENCE_NS (5 * NS_PER_SEC)
/* When a readahead has failed the kernel asks again for the page that somebody waits for: who comes so soon after
 * another gave up waits no longer than that. */
#define AGAIN_NS NS_PER_SEC
#define SMALL_RANGE (UINT64_C(256) << 10) /* takes a round trip, hardly more */
#define FAST_STORE_NS (5 * NS_PER_MS)
#define INLINE_PATIENCE_NS (250 * NS_PER_MS)
#define BANDWIDTH_NEAR (UINT64_C(400) << 20)  /* of a store that answers within FAST_STORE_NS */
#define BANDWIDTH_GUESS (UINT64_C(100) << 20) /* bytes a second, until measured; a low one only begins later */
#define BANDWIDTH_RANGE (UINT64_C(1) << 20)   /* what tells of it */
#define METER_NS (2 * NS_PER_SEC)

struct fetch {
	struct transfer_task task;
	struct list node; /* content->fetches */
	struct content *content;
	uint64_t start, end;
	char *key, *native_id, *etag; /* the pin */
	uint64_t object_size;
	uint64_t limit; /* the file was cut here since: what lies behind is not its content any more. As `shown` */
	bool whole;     /* invariant 4 */
	bool inlined;
	bool speculated; /* see buy */
	bool metered;    /* meter_begin was called */
	bool no_room;    /* given up for lack of it */
	bool gone;       /* invariant 7 */
	char *bytes;     /* [at - held, at): not in the cache file yet */
	uint64_t held, room;
	uint64_t at;              /* next byte the sink expects */
	uint64_t shown;           /* in the cache file up to here; guarded by the content's lock */
	struct range writing;     /* the same */
	_Atomic uint64_t wake_at; /* a reader waits for the bytes up to here. Written under the content's lock */
	atomic_bool needed;       /* by some reader. The same */
};

/* One who waits; on its stack. Guarded by the content's lock. */
struct reader {
	struct list node; /* content->readers */
	uint64_t start, end;
	pthread_cond_t cond;
};

static void fetch_free(struct fetch *fetch)
{
	free(fetch->key);
	free(fetch->native_id);
	free(fetch->etag);
	free(fetch->bytes);
	free(fetch);
}

static bool overlaps(const struct range *range, uint64_t start, uint64_t end)
{
	return range->start < end && start < range->end;
}

bool fetch_is_writing(const struct content *content, uint64_t start, uint64_t end)
{
	for (const struct list *at = content->fetches.next; at != &content->fetches; at = at->next)
		if (overlaps(&list_entry(at, struct fetch, node)->writing, start, end))
			return true;
	return false;
}

int fetch_keep(const struct content *content, enum fetch_keep what, struct ranges *kept)
{
	int err = content->readahead && what == FETCH_KEEP_AHEAD ? readahead_keep(content->readahead, kept) : 0;

	for (const struct list *at = content->fetches.next; at != &content->fetches && !err; at = at->next) {
		const struct fetch *fetch = list_entry(at, struct fetch, node);

		err = ranges_add(kept, fetch->start, fetch->end);
	}
	for (const struct list *at = content->readers.next; at != &content->readers && !err; at = at->next) {
		const struct reader *reader = list_entry(at, struct reader, node);

		err = ranges_add(kept, reader->start, reader->end);
	}
	for (unsigned i = 0; i < content->io && !err; i++)
		err = ranges_add(kept, content->io_at[i].start, content->io_at[i].end);
	return err;
}

/* --- how the store does ----------------------------------------------------------------------------------- */

static void meter_begin(struct contents *contents)
{
	LOCK_GUARD(&contents->meter_lock);
	if (contents->meter_running++ == 0)
		contents->meter_began_ns = clock_monotonic();
}

/* Counted is the time in which anything arrives, so that the way to the store does not look like a lack of bandwidth,
 * and what several fetches bring at once is the store's speed. */
static void meter_end(struct contents *contents, uint64_t bytes)
{
	int64_t now = clock_monotonic();

	LOCK_GUARD(&contents->meter_lock);
	contents->meter_busy_ns += now - contents->meter_began_ns;
	contents->meter_began_ns = now;
	contents->meter_running--;
	contents->meter_bytes += bytes;
	if (contents->meter_busy_ns > METER_NS) { /* the newest counts most */
		contents->meter_busy_ns /= 2;
		contents->meter_bytes /= 2;
	}
}

static uint64_t bandwidth(struct contents *contents)
{
	LOCK_GUARD(&contents->meter_lock);
	if (contents->meter_busy_ns <= 0 || contents->meter_bytes == 0)
		return contents->rtt_ns && contents->rtt_ns < FAST_STORE_NS ? BANDWIDTH_NEAR : BANDWIDTH_GUESS;
	return (uint64_t)((double)contents->meter_bytes * 1e9 / (double)contents->meter_busy_ns);
}

static void note_round_trip(struct contents *contents, int64_t took_ns)
{
	contents->rtt_ns = clock_at_best(contents->rtt_ns, took_ns); /* a lost update costs nothing */
}

/* --- into the cache file ------------------------------------------------------------------------------------ */

/* Wakes the readers who now have what they wait for, or (err) will not get it from a fetch of this range. */
static void wake_readers(struct content *content, uint64_t start, uint64_t end, int err)
{
	for (struct list *at = content->readers.next; at != &content->readers; at = at->next) {
		struct reader *reader = list_entry(at, struct reader, node);

		if (reader->start < end && start < reader->end &&
		    (err || ranges_contains(&content->present, reader->start, reader->end)))
			(void)pthread_cond_signal(&reader->cond);
	}
}

/* Where the sink should stop gathering: the nearest end of what a reader waits for. */
static void set_wake_at(struct fetch *fetch)
{
	const struct content *content = fetch->content;
	uint64_t nearest = UINT64_MAX;

	for (const struct list *at = content->readers.next; at != &content->readers; at = at->next) {
		const struct reader *reader = list_entry(at, struct reader, node);
		uint64_t end = reader->end < fetch->end ? reader->end : fetch->end;

		if (reader->start < fetch->end && end > fetch->shown && end < nearest)
			nearest = end;
	}
	fetch->wake_at = nearest;
}

/* Invariant 6. 0, or -ENOSPC and the fetch is to end. */
static int make_room(struct fetch *fetch, uint64_t len)
{
	struct cache *cache = fetch->content->owner->cache;
	int64_t patience = clock_monotonic() + ROOM_PATIENCE_NS;
	struct timespec pause = clock_to_timespec(POLL_NS / 4);

	for (;;) {
		if (cache_reserve(cache, len) == 0)
			return 0;
		if (!fetch->needed) {
			fetch->no_room = true;
			return -ENOSPC;
		}
		/* What an upload asks for comes in any case: a cache full of what is not stored gets room by uploads.
		 */
		if (cache_disk_has_room(cache, len) || fetch->content->id & CACHE_VERSION)
			return 0;
		if (clock_monotonic() >= patience)
			return -ENOSPC;
		(void)nanosleep(&pause, NULL); /* others may free some of the disk */
	}
}

static int write_all(int fd, const char *bytes, uint64_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, bytes, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		len -= (uint64_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

/*
 * What is bought ahead of any read goes to the disk, and out of memory once it is there: that is for what somebody
 * reads. What this piece brought is on its way only, so it is the pieces of a while ago that go.
 */
static void leave_memory(const struct fetch *fetch, int fd)
{
	const uint64_t behind = SPECULATE_IN_FLIGHT * SPECULATE_PIECE, len = fetch->end - fetch->start;

	/* Hints: what cannot be written or dropped now stays. */
	(void)sync_file_range(fd, (off_t)fetch->start, (off_t)len, SYNC_FILE_RANGE_WRITE);
	if (fetch->start >= behind)
		(void)posix_fadvise(fd, (off_t)(fetch->start - behind), (off_t)len, POSIX_FADV_DONTNEED);
}

/* Writes one absent stretch, with the lock released meanwhile. */
static int fill_gap(struct fetch *fetch, const char *bytes, const struct range *gap)
{
	struct content *content = fetch->content;
	int fd = content->fd, err;

	fetch->writing = *gap;
	lock_release(&content->lock);
	err = write_all(fd, bytes, gap->end - gap->start, gap->start);
	if (fetch->speculated && gap->end == fetch->end)
		leave_memory(fetch, fd);
	lock_acquire(&content->lock);
	fetch->writing = (struct range){0, 0};
	if (!err)
		err = ranges_add(&content->present, gap->start, gap->end);
	if (content->settling)
		(void)pthread_cond_broadcast(&content->cond);
	content->stale = true;
	return err;
}

static uint64_t usable_end(const struct fetch *fetch, uint64_t end)
{
	uint64_t limit = fetch->content->base_limit;

	limit = limit < fetch->limit ? limit : fetch->limit;
	return end < limit ? end : limit;
}

void fetch_cut(struct content *content, uint64_t size)
{
	for (struct list *at = content->fetches.next; at != &content->fetches; at = at->next) {
		struct fetch *fetch = list_entry(at, struct fetch, node);

		if (size < fetch->limit)
			fetch->limit = size;
	}
}

/* Puts what is absent of [start, start + len) there, tells readers, and counts it. */
static int fill_absent(struct fetch *fetch, const char *bytes, uint64_t start, uint64_t len)
{
	struct content *content = fetch->content;
	uint64_t at = start, end = start + len;
	struct range gap;
	int err = make_room(fetch, len);

	if (err)
		return err;
	LOCK_GUARD(&content->lock);
	while (at < usable_end(fetch, end) && !err &&
	       ranges_next_gap(&content->present, at, usable_end(fetch, end), &gap)) {
		err = fill_gap(fetch, bytes + (gap.start - start), &gap);
		at = gap.end;
	}
	fetch->shown = end;
	content->fetched = true;
	content->unsaved += len;
	if (content->arrived)
		*content->arrived += len;
	content_thin(content);
	if (!content->discarded)
		cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	wake_readers(content, start, end, 0);
	return err;
}

static int flush(struct fetch *fetch)
{
	uint64_t len = fetch->held;
	int err = len ? fill_absent(fetch, fetch->bytes, fetch->at - len, len) : 0;

	fetch->held = 0;
	if (!err && fetch->wake_at <= fetch->at) {
		LOCK_GUARD(&fetch->content->lock);
		set_wake_at(fetch);
	}
	return err;
}

static int fetch_sink(void *arg, const void *bytes, size_t len)
{
	struct fetch *fetch = arg;
	const char *from = bytes;
	int err = 0;

	if (fetch->at + len > fetch->end)
		return -EIO;
	if (!fetch->metered && fetch->end - fetch->start >= BANDWIDTH_RANGE) {
		meter_begin(fetch->content->owner);
		fetch->metered = true;
	}
	while (len && !err) {
		uint64_t room = fetch->room - fetch->held, step = STEP - fetch->at % STEP, n;

		if (!fetch->whole &&
		    step < room) /* page cache comes in as large pieces as its place in the file allows */
			room = step;
		n = room < len ? room : len;
		memcpy(fetch->bytes + fetch->held, from, n);
		fetch->held += n;
		fetch->at += n;
		from += n;
		len -= n;
		if (!fetch->whole && (fetch->held == fetch->room || fetch->at % STEP == 0 ||
				      fetch->at >= fetch->wake_at || fetch->at == fetch->end))
			err = flush(fetch);
	}
	return err;
}

/* --- one fetch ---------------------------------------------------------------------------------------------- */

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
	uint32_t expected;
	bool known;

	{
		LOCK_GUARD(&content->lock);
		known = content->base_has_crc32c && fetch->end == content->base_size;
		expected = content->base_crc32c;
	}
	if (known && crc32c_update(0, fetch->bytes, fetch->end) != expected) {
		log_error("fetch", "object %s of version %llu does not match its checksum: its bytes are not used",
			  fetch->key, (unsigned long long)content->base);
		return -EIO;
	}
	return flush(fetch);
}

static int fetch_once(struct fetch *fetch, struct err *error)
{
	struct contents *owner = fetch->content->owner;
	struct call call = {.cancelled = &owner->cancelled,
			    .deadline_ns = fetch->inlined ? clock_monotonic() + INLINE_PATIENCE_NS : 0};
	uint64_t len = fetch->end - fetch->start;
	struct get_request request = {
		.object = {.key = fetch->key, .native_id = fetch->native_id, .etag = fetch->etag},
		.offset = fetch->start,
		.length = len,
		.expected_size = fetch->object_size,
		.sink = fetch_sink,
		.sink_arg = fetch,
	};
	int64_t began = clock_monotonic();
	int err;

	fetch->at = fetch->start;
	fetch->held = 0;
	fetch->room = fetch->whole || len < STEP ? len : STEP;
	if (!fetch->bytes)
		fetch->bytes = malloc(fetch->room);
	if (!fetch->bytes)
		return -ENOMEM;
	err = transfer_get(owner->transfer, &call, &request, NULL, error);
	if (fetch->metered)
		meter_end(owner, fetch->at - fetch->start);
	fetch->metered = false;
	if (!err && len <= SMALL_RANGE)
		note_round_trip(owner, clock_monotonic() - began);
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
	struct cat_gone gone = {.key = fetch->key, .native_id = fetch->native_id, .etag = fetch->etag};

	if (!owner->gone)
		return false;
	{
		LOCK_GUARD(&fetch->content->lock);
		gone.ino = content_base_ino(fetch->content);
		gone.seq = fetch->content->base;
	}
	return owner->gone(owner->gone_arg, &gone, &owner->cancelled);
}

static void buy(struct content *content);

static void fetch_end(struct fetch *fetch, int err)
{
	struct content *content = fetch->content;

	{
		LOCK_GUARD(&content->lock);
		list_remove(&fetch->node);
		content->fetching--;
		/* The next piece at once: the store would be idle until the next miss. */
		if (!err && fetch->speculated && content->cached && content->copy.key && !content->owner->cancelled)
			buy(content);
		if (err && !fetch->no_room) {
			content->failures++;
			content->failed = (struct range){fetch->start, fetch->end};
			content->failure = err == -ENOSPC || err == -EACCES ? err : -EIO;
			if (fetch->gone) {
				content->gone = true;
				content->failure = gone_error(content);
			}
		}
		wake_readers(content, fetch->start, fetch->end, err);
		/* Killed, we may forget what was fetched since the record; that it is not much is all that is asked. */
		if (content->unsaved >= SAVE_EVERY && content->loaded && !content->changed && !content->discarded &&
		    content_save(content) == 0)
			content->unsaved = 0;
	}
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
	if (err && fetch->inlined && err_is_transient(error.kind)) {
		fetch->content->owner->rtt_ns = INLINE_PATIENCE_NS;
		lock_acquire(&fetch->content->lock);
		fetch->inlined = false;
		lock_release(&fetch->content->lock);
		transfer_submit(fetch->content->owner->transfer, &fetch->task);
		return;
	}
	if (err && !fetch->no_room && !fetch->gone) /* that was said */
		log_warn("fetch", "cannot read %s [%llu, %llu): %s", fetch->key, (unsigned long long)fetch->start,
			 (unsigned long long)fetch->end, error.kind ? error.message : strerror(-err));
	fetch_end(fetch, err);
}

static void fetch_dropped(struct transfer_task *task)
{
	fetch_end(container_of(task, struct fetch, task), -EIO);
}

/* --- starting them, with the lock held ------------------------------------------------------------------------- */

/* Is [*start, …) under way? Then *start moves past it. Else *end comes to where the next one begins. */
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

static int fetch_new(struct content *content, uint64_t start, uint64_t end, struct fetch **ret_fetch)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));

	if (!fetch)
		return -ENOMEM;
	fetch->task = (struct transfer_task){.class = TRANSFER_BACKGROUND, .run = fetch_run, .dropped = fetch_dropped};
	fetch->start = fetch->at = fetch->shown = start;
	fetch->end = end;
	fetch->object_size = content->base_size;
	fetch->limit = UINT64_MAX;
	fetch->content = content;
	fetch->whole = start == 0 && end == content->base_size && end <= FETCH_WHOLE_MAX;
	fetch->wake_at = UINT64_MAX;
	list_init(&fetch->task.node);
	if (take_pin(fetch, &content->copy)) {
		fetch_free(fetch);
		return -ENOMEM;
	}
	{
		LOCK_GUARD(&content->owner->lock);
		content->refs++;
	}
	list_add_tail(&content->fetches, &fetch->node);
	content->fetching++;
	*ret_fetch = fetch;
	return 0;
}

enum urgency { FETCH_AHEAD, FETCH_NEEDED };

/* What to start, and what came of it. */
struct start {
	uint64_t piece;
	enum urgency urgency;
	enum { ON_POOL, ON_READER, ON_CALLER } where; /* of the first piece: on a reader's thread only if it is small */
	bool speculated;
	struct fetch *here; /* started, and now the caller's to run, without the lock */
	uint64_t stopped;   /* FETCH_AHEAD: nothing from here on was started */
	uint64_t bytes;
};

static int start_piece(struct content *content, uint64_t from, uint64_t to, struct start *start)
{
	struct fetch *fetch;
	int err = fetch_new(content, from, to, &fetch);

	if (err)
		return err;
	start->bytes += to - from;
	fetch->speculated = start->speculated;
	if (start->urgency == FETCH_NEEDED) {
		fetch->needed = true;
		fetch->task.class = TRANSFER_URGENT;
	}
	set_wake_at(fetch);
	if (!start->here && (start->where == ON_CALLER || (start->where == ON_READER && to - from <= SMALL_RANGE))) {
		fetch->inlined = start->where == ON_READER;
		start->here = fetch;
		return 0;
	}
	transfer_submit(content->owner->transfer, &fetch->task);
	return 0;
}

/* Small stretches that are here already are fetched again rather than asked around: a request costs more. A reader is
 * woken by what it waits for, not by the end of the fetch. */
static void bridge(const struct content *content, uint64_t end, struct range *gap)
{
	struct range next;

	while (gap->end < end && ranges_next_gap(&content->present, gap->end, end, &next) &&
	       next.start - gap->end <= BRIDGED)
		gap->end = next.end;
}

/* Starts what is absent and not under way in [from, end). */
static int start_range(struct content *content, uint64_t from, uint64_t end, struct start *start)
{
	struct range gap;

	start->stopped = end;
	while (from < end && ranges_next_gap(&content->present, from, end, &gap)) {
		from = gap.start;
		bridge(content, end, &gap);
		while (from < gap.end) {
			uint64_t to = gap.end;
			int err;

			if (skip_in_flight(content, &from, &to))
				continue;
			/* Pieces end at their multiples, as the parts of the object may. */
			if (to - from > start->piece)
				to = (from + start->piece) / start->piece * start->piece;
			if (start->urgency == FETCH_AHEAD && content->fetching >= IN_FLIGHT_MAX) {
				start->stopped = from;
				return 0;
			}
			err = start_piece(content, from, to, start);
			if (err) {
				start->stopped = from;
				return err;
			}
			from = to;
		}
	}
	return 0;
}

/* What is under way in [start, end) is needed from now on: it jumps the queue. */
static void make_urgent(struct content *content, uint64_t start, uint64_t end)
{
	struct transfer *transfer = content->owner->transfer;

	for (struct list *at = content->fetches.next; at != &content->fetches; at = at->next) {
		struct fetch *fetch = list_entry(at, struct fetch, node);

		if (fetch->start >= end || start >= fetch->end)
			continue;
		set_wake_at(fetch);
		if (atomic_exchange(&fetch->needed, true) || fetch->inlined ||
		    !transfer_withdraw(transfer, &fetch->task))
			continue;
		fetch->task.class = TRANSFER_URGENT;
		transfer_submit(transfer, &fetch->task);
	}
}

/* Readers in sequence share a quarter of the cache. */
static uint64_t window_max(const struct content *content)
{
	unsigned streams = content->owner->streams;
	uint64_t share = cache_limit(content->owner->cache) / 4 / (streams ? streams : 1);

	return share < WINDOW_MAX ? share : WINDOW_MAX;
}

static void count_streams(struct content *content)
{
	unsigned now = readahead_active(content->readahead);

	content->owner->streams += now - content->streams;
	content->streams = now;
}

/* What a read of [start, end) shall bring. */
static int make_plan(struct content *content, uint64_t start, uint64_t end, struct readahead_plan *plan)
{
	struct readahead_limits limits = {.size = content->base_limit, .window = window_max(content)};

	*plan = (struct readahead_plan){.need = {0, content->base_limit}};
	if (content->base_size <= FETCH_WHOLE_MAX)
		return 0;
	if (!content->readahead)
		content->readahead = calloc(1, sizeof(*content->readahead));
	if (!content->readahead)
		return -ENOMEM;
	readahead_note(content->readahead, start, end, &limits, plan);
	count_streams(content);
	return 0;
}

/* Failures do not matter: whoever comes to need it starts it again. */
static void fetch_ahead(struct content *content, const struct readahead_plan *plan)
{
	struct start ahead = {.piece = plan->piece, .urgency = FETCH_AHEAD};

	for (unsigned i = 0; i < plan->count; i++) {
		(void)start_range(content, plan->ahead[i].start, plan->ahead[i].end, &ahead);
		if (ahead.stopped < plan->ahead[i].end) {
			readahead_short(content->readahead, plan, ahead.stopped);
			return;
		}
	}
}

/*
 * What the waits so far may buy, in bytes: what the store could have sent meanwhile, twice. Half of it tells whether
 * the store sends faster than it has so far, for what little has been asked of it says too little; and it is idle
 * between the lone reads of one reader. (So the bound of readahead.h is three times, not two.)
 */
static uint64_t allowance(const struct content *content)
{
	struct contents *owner = content->owner;
	uint64_t share = cache_limit(owner->cache) / 4, cap = share < SPECULATE_CAP ? share : SPECULATE_CAP;

	return readahead_allowance(content->readahead, content->base_limit, cap, 2 * bandwidth(owner));
}

/* From the beginning of the file on, each byte at most once. */
static void buy(struct content *content)
{
	struct start ahead = {.piece = SPECULATE_PIECE, .urgency = FETCH_AHEAD, .speculated = true};
	uint64_t allowed = allowance(content);

	while (allowed >= SPECULATE_PIECE / 2 && content->speculated_to < content->base_limit &&
	       content->fetching < SPECULATE_IN_FLIGHT) {
		uint64_t to = (content->speculated_to + SPECULATE_PIECE) / SPECULATE_PIECE * SPECULATE_PIECE;

		if (to > content->base_limit)
			to = content->base_limit;
		ahead.bytes = 0;
		(void)start_range(content, content->speculated_to, to, &ahead);
		content->speculated_to = ahead.stopped;
		readahead_speculated(content->readahead, ahead.bytes);
		allowed -= ahead.bytes < allowed ? ahead.bytes : allowed;
	}
}

/* A lone read waited: is it time to buy? */
static void speculate(struct content *content, int64_t waited_ns)
{
	readahead_paid(content->readahead, waited_ns);
	buy(content);
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

/* One reader's wait, between content_wait_present and its steps. */
struct wait {
	struct reader reader;
	struct readahead_plan plan;
	const struct waiter *waiter;
	int64_t deadline;
	unsigned failures; /* of the content, when we last looked */
	bool planned;      /* the plan's need has been started */
	bool exactly;      /* there is no plan, and this is a thread of the pool */
	bool again;        /* see AGAIN_NS */
};

static bool may_inline(const struct content *content, const struct wait *wait)
{
	int64_t rtt = content->owner->rtt_ns;

	return !wait->planned && rtt && rtt < FAST_STORE_NS && wait->plan.pattern == READAHEAD_LONE;
}

/* Runs it on this thread. The content stays: our caller has a reference. */
static void run_here(struct content *content, struct fetch *fetch)
{
	lock_release(&content->lock);
	fetch_run(&fetch->task);
	lock_acquire(&content->lock);
}

/* Starts what is missing of the read, and by the way what the plan says. */
static int start_needed(struct content *content, struct wait *wait)
{
	struct reader *reader = &wait->reader;
	struct start needed = {
		.piece = NEED_MAX, .urgency = FETCH_NEEDED, .where = may_inline(content, wait) ? ON_READER : ON_POOL};
	int err;

	if (wait->exactly) {
		needed.piece = BRING_PIECE;
		needed.where = ON_CALLER;
	}
	err = wait->planned ? start_range(content, reader->start, reader->end, &needed)
			    : start_range(content, wait->plan.need.start, wait->plan.need.end, &needed);

	if (!err && !wait->planned)
		fetch_ahead(content, &wait->plan);
	wait->planned = true;
	make_urgent(content, reader->start, reader->end);
	if (needed.here)
		run_here(content, needed.here);
	return err;
}

/* A fetch of something that we miss has failed since we looked. */
static bool has_failed(const struct content *content, struct wait *wait)
{
	bool failed =
		content->failures != wait->failures && overlaps(&content->failed, wait->reader.start, wait->reader.end);

	wait->failures = content->failures;
	return failed;
}

static int wait_more(struct content *content, struct wait *wait)
{
	const struct waiter *waiter = wait->waiter;

	if (waiter && waiter->interrupted && waiter->interrupted(waiter->arg))
		return -EINTR;
	if (clock_monotonic() >= wait->deadline) {
		if (!wait->again)
			content->gave_up_ns = clock_monotonic();
		return -EIO;
	}
	(void)lock_wait(&content->lock, &wait->reader.cond, clock_monotonic() + POLL_NS);
	return 0;
}

static int wait_until_there(struct content *content, struct wait *wait)
{
	struct reader *reader = &wait->reader;
	struct range gap;
	int err = 0;

	while (!err && ranges_next_gap(&content->present, reader->start, reader->end, &gap)) {
		if (!content->copy.key)
			return content->gone ? gone_error(content) : -EIO;
		if (has_failed(content, wait))
			return content->failure;
		err = start_needed(content, wait);
		if (!err && ranges_next_gap(&content->present, reader->start, reader->end, &gap))
			err = wait_more(content, wait);
		if (reader->end > content->base_limit)
			reader->end = content->base_limit;
	}
	return err;
}

/* [start, end) is not empty, and some of it is absent. */
static int wait_present(struct content *content, struct wait *wait, uint64_t start, uint64_t end)
{
	const struct waiter *waiter = wait->waiter;
	int64_t now = clock_monotonic();
	int err;

	wait->failures = content->failures;
	wait->again = content->gave_up_ns && now - content->gave_up_ns < AGAIN_NS;
	wait->deadline = waiter && waiter->deadline_ns ? waiter->deadline_ns : now + content->owner->read_timeout_ns;
	if (wait->again)
		wait->deadline = now + AGAIN_NS;
	wait->reader.start = start;
	wait->reader.end = end;
	lock_cond_init(&wait->reader.cond);
	list_add_tail(&content->readers, &wait->reader.node);
	err = wait_until_there(content, wait);
	list_remove(&wait->reader.node);
	(void)pthread_cond_destroy(&wait->reader.cond);
	if (!err && content->readahead && !wait->exactly && wait->plan.pattern == READAHEAD_LONE)
		speculate(content, clock_monotonic() - now);
	return err;
}

int content_wait_present(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter)
{
	struct wait wait = {.waiter = waiter};
	struct range gap;
	int err;

	if (end > content->base_limit)
		end = content->base_limit;
	if (start >= end)
		return 0;
	/* Of a small file that is here nothing more is to be said. */
	if (content->base_size <= FETCH_WHOLE_MAX && !ranges_next_gap(&content->present, start, end, &gap))
		return 0;
	err = make_plan(content, start, end, &wait.plan);
	if (err)
		return err;
	if (!ranges_next_gap(&content->present, start, end, &gap)) {
		if (content->copy.key)
			fetch_ahead(content, &wait.plan);
		return 0;
	}
	return wait_present(content, &wait, start, end);
}

int content_bring(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter)
{
	struct wait wait = {.waiter = waiter, .exactly = true, .planned = true};
	struct range gap;

	LOCK_GUARD(&content->lock);
	if (end > content->base_limit)
		end = content->base_limit;
	if (!ranges_next_gap(&content->present, start, end, &gap))
		return 0;
	if (content->base_size <= FETCH_WHOLE_MAX)
		return content_wait_present(content, gap.start, end, waiter);
	return wait_present(content, &wait, gap.start, end);
}

void content_count_fetched(struct content *content, _Atomic uint64_t *arrived)
{
	LOCK_GUARD(&content->lock);
	content->arrived = arrived;
}

bool content_take_fetched(struct content *content)
{
	LOCK_GUARD(&content->lock);
	bool fetched = content->fetched;

	content->fetched = false;
	return fetched;
}

/* NULL: there is nothing to fetch, or somebody does already. */
static struct fetch *begin_whole(struct content *content)
{
	struct fetch *fetch;
	struct range gap;

	LOCK_GUARD(&content->lock);
	if (!content->copy.key || content->discarded || content->fetching ||
	    content->base_limit != content->base_size || content->base_size > FETCH_WHOLE_MAX ||
	    !ranges_next_gap(&content->present, 0, content->base_size, &gap))
		return NULL;
	return fetch_new(content, 0, content->base_size, &fetch) ? NULL : fetch;
}

void content_fetch_whole(struct contents *contents, uint64_t ino)
{
	struct content *content;
	struct fetch *fetch;

	if (content_get(contents, ino, 0, &content))
		return;
	fetch = begin_whole(content);
	if (fetch)
		fetch_run(&fetch->task);
	content_put(content);
	content_forget_unnamed(contents, ino);
}
