/*
 * content.c - changes to a file's bytes and the versions made of them.
 *
 * States and invariants are in content.h. Who moves a content on:
 *   CLEAN or LOCAL -> CHANGED   modify_begin
 *   CHANGED -> LOCAL            content_commit
 *   LOCAL -> CLEAN              content_stored
 *   any -> gone                 content_discard_locked (the last name and handle went)
 *
 * Threads: FUSE workers and upload jobs. Each function takes the content's lock itself unless its name ends in _locked
 * or it is static.
 */
#include "array.h"
#include "fs/content_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/backing.h"
#include "fs/killpoint.h"
#include "log.h"

/* A version larger than this is not copied to keep it from a writer at once: its upload is waited for a while first. */
#define FREEZE_COPY_MAX (UINT64_C(64) << 20)
#define FREEZE_WAIT_NS (10 * NS_PER_SEC)
#define NO_UPLOADS_NS (10 * NS_PER_SEC)
/* How far the extent record may be behind an open file's writes. */
#define JOURNAL_EVERY (UINT64_C(64) << 20)
#define JOURNAL_EVERY_NS NS_PER_SEC
/* Versions up to this size get their checksum when they are made; larger ones when they are uploaded. */
#define CRC_AT_COMMIT_MAX (UINT64_C(1) << 20)
#define POLL_NS (100 * NS_PER_MS)
#define WORTH_SEEKING ((size_t)64 << 10)
/* From so many ranges on, those that a write adds are joined to their neighbours: the extent record, which is
 * journalled every second, must not grow for ever, and the catalog takes 500,000 at the most. */
#define RANGES_MAX ((size_t)1 << 16)
#define JOIN_PATIENCE_NS (2 * NS_PER_SEC)
/* A new file of this size is likely to become larger still: its parts go ahead. */
#define AHEAD_FROM (UINT64_C(32) << 20)
#define AHEAD_STEP (UINT64_C(16) << 20)
#define ALONG_STEP (UINT64_C(4) << 20)

void content_extent(const struct content *content, struct cat_extent *ret_extent)
{
	*ret_extent = (struct cat_extent){
		.present = content->present,
		.dirty = content->dirty,
		.base = content->base,
		.base_limit = content->base_limit,
		.base_ino = content->base_ino,
		.base_after = content->base_after,
		.synced = content->synced,
	};
	memcpy(ret_extent->boot_id, content->owner->boot_id, sizeof(ret_extent->boot_id));
}

struct extent_arg {
	uint64_t id;
	const struct cat_extent *extent;
};

static int put_extent(struct cat_txn *txn, void *arg)
{
	const struct extent_arg *put = arg;

	return cat_extent_put(txn, put->id, put->extent);
}

/* After an fsync=disk no record of these changes may say that they could be lost. */
static int keep_promise(struct content *content)
{
	if (!content->promised || content->synced)
		return 0;
	if (fdatasync(content->fd))
		return -errno;
	content->synced = true;
	return 0;
}

int content_save_as(struct content *content, uint64_t id)
{
	struct cat_extent extent;
	int err = keep_promise(content);

	if (err)
		return err;
	content_extent(content, &extent);
	return catalog_update(content->owner->catalog, put_extent, &(struct extent_arg){.id = id, .extent = &extent});
}

int content_save(struct content *content)
{
	int err = content_save_as(content, content->id);

	if (!err) {
		content->stale = false;
		content->unjournaled = 0;
		content->journaled = clock_wall();
	}
	return err;
}

/* --- telling who sends ahead --------------------------------------------------------------------------- */

void contents_watch(struct contents *contents, const struct contents_watch *watch)
{
	atomic_store(&contents->watch, watch);
}

int content_take_ahead(struct content *content, uint64_t end)
{
	LOCK_GUARD(&content->lock);
	if (!content->changed || content->discarded || content->shared || end > content->size)
		return -ESTALE;
	if (end > content->taken_ahead)
		content->taken_ahead = end;
	return 0;
}

void content_stop_ahead(struct content *content)
{
	LOCK_GUARD(&content->lock);
	content->ahead_off = true;
}

static void note_rewritten(struct content *content, uint64_t start, uint64_t end)
{
	if (end > content->taken_ahead)
		end = content->taken_ahead;
	if (start < end && ranges_add(&content->rewritten, start, end))
		content->all_rewritten = true;
}

/* After a write; `size` is what the file had before it. */
static void tell_grown(struct content *content, struct range written, uint64_t size)
{
	const struct contents_watch *watch = atomic_load(&content->owner->watch);

	note_rewritten(content, written.start, written.end);
	if (content->base_limit || content->seq || written.start != size)
		content->ahead_off = true;
	if (!watch || content->ahead_off || content->size < AHEAD_FROM ||
	    content->size - content->told_ahead < AHEAD_STEP)
		return;
	content->told_ahead = content->size;
	watch->grown(watch->arg, content, content->ino, content->size);
}

static void tell_committed(struct content *content, uint64_t seq)
{
	const struct contents_watch *watch = atomic_load(&content->owner->watch);

	if (watch)
		watch->committed(watch->arg, content->ino, seq, content->all_rewritten ? NULL : &content->rewritten);
	ranges_clear(&content->rewritten);
	content->all_rewritten = false;
	content->taken_ahead = content->told_ahead = 0;
	content->ahead_off = true;
}

/* --- freezing ---------------------------------------------------------------------------------------- */

/* Nobody reads through the old descriptor and none begins to, until swap_end. Called with the frozen one's lock held.
 */
static void swap_begin(struct content *frozen)
{
	frozen->swapping = true;
	frozen->settling++;
	while (frozen->io > 0 || fetch_is_writing(frozen, 0, UINT64_MAX))
		(void)lock_wait(&frozen->lock, &frozen->cond, 0); /* local reads and writes: soon */
	frozen->settling--;
}

static void swap_end(struct content *frozen)
{
	frozen->swapping = false;
	(void)pthread_cond_broadcast(&frozen->cond);
}

/* A clone takes the place of the version's second name. Its bytes are synced where its record says so. */
static int clone_to(struct content *content, uint64_t version_id, struct content *frozen)
{
	struct cache *cache = content->owner->cache;
	int fd, err = cache_file_clone(cache, content->fd, version_id, content->synced, &fd);

	if (err)
		return err;
	if (frozen && frozen->loaded) {
		int old = frozen->fd;

		frozen->fd = fd;
		fd = old;
	}
	(void)close(fd);
	cache_account(cache, version_id, ranges_total(&content->present));
	return 0;
}

/*
 * The version `shared` gets a file of its own; whoever reads it goes on there. Its content is locked from before the
 * clone until it has the new descriptor: bytes that a fetch brings for it must land in the file that it keeps.
 */
static int freeze_by_clone(struct content *content)
{
	struct contents *owner = content->owner;
	uint64_t version_id = CACHE_VERSION | content->shared;
	struct content *frozen;
	int err;

	err = content_save_as(content, version_id);
	if (err)
		return err;
	frozen = contents_peek_id(owner, version_id);
	if (frozen) {
		LOCK_GUARD(&frozen->lock);
		swap_begin(frozen);
		err = clone_to(content, version_id, frozen);
		swap_end(frozen);
	} else {
		err = clone_to(content, version_id, NULL);
	}
	if (!err)
		content->shared = 0;
	if (frozen)
		content_put(frozen);
	return err;
}

/*
 * Somebody may have deleted the cache file while we have it open: what it holds gets its names again, before anything
 * is acknowledged that is nowhere else. The descriptor keeps its number, and readers find the same bytes behind it. A
 * discarded file has given its own name up; the version that it shares with has one. Who has that version open goes on
 * in a file of its own.
 */
int content_keep_named(struct content *content)
{
	unsigned names = (content->discarded ? 0 : 1) + (content->shared ? 1 : 0);
	struct cache *cache = content->owner->cache;
	struct content *frozen;
	struct stat st;
	int fd, err;

	if (fstat(content->fd, &st))
		return -errno;
	if (st.st_nlink >= names)
		return 0;
	if (content->discarded)
		return freeze_by_clone(content);
	while (fetch_is_writing(content, 0, UINT64_MAX)) { /* into the file that is about to be replaced */
		content->settling++;
		(void)lock_wait(&content->lock, &content->cond, 0);
		content->settling--;
	}
	err = cache_file_clone(cache, content->fd, content->id, content->synced, &fd);
	if (err)
		return err;
	err = dup3(fd, content->fd, O_CLOEXEC) < 0 ? -errno : 0;
	(void)close(fd);
	if (!err)
		log_warn("content", "the cache file of file %llu was deleted: it is made anew",
			 (unsigned long long)content->ino);
	if (err || !content->shared)
		return err;
	frozen = contents_peek_id(content->owner, CACHE_VERSION | content->shared);
	if (!frozen)
		return cache_file_link(cache, content->id, CACHE_VERSION | content->shared);
	content_put(frozen);
	return freeze_by_clone(content);
}

static bool interrupted(const struct waiter *waiter)
{
	return waiter && waiter->interrupted && waiter->interrupted(waiter->arg);
}

static int freeze(struct content *content, const struct waiter *waiter)
{
	const struct contents_watch *watch = atomic_load(&content->owner->watch);
	int64_t patience = clock_monotonic() + FREEZE_WAIT_NS;

	if (content->shared && watch)
		watch->changing(watch->arg, content->ino);
	while (content->shared) {
		if (ranges_total(&content->present) <= FREEZE_COPY_MAX || clock_monotonic() >= patience)
			return freeze_by_clone(content);
		if (interrupted(waiter))
			return -EINTR;
		(void)lock_wait(&content->lock, &content->cond, clock_monotonic() + POLL_NS);
	}
	return 0;
}

static int modify_begin_settled(struct content *content, const struct waiter *waiter)
{
	struct cat_extent extent;
	int err;

	if (content->seq)
		return -EROFS;
	if (content->lost)
		return -EIO;
	err = freeze(content, waiter);
	if (err)
		return err;
	content->changes++; /* before the first byte */
	content->synced = false;
	if (!content->changed) {
		content_extent(content, &extent);
		err = catalog_mark_dirty(content->owner->catalog, content->ino, &extent);
		if (err)
			return err;
		content->changed = true;
		content->journaled = clock_wall();
	}
	content->flushed = false;
	return 0;
}

/* Everything that must be true before the first byte of a change in [start, end): also that no fetch is in the midst of
 * writing there, or its bytes would come to lie over ours. Whoever waited begins anew. */
static int modify_begin(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter)
{
	int err;

	while (!(err = modify_begin_settled(content, waiter)) && fetch_is_writing(content, start, end)) {
		content->settling++;
		(void)lock_wait(&content->lock, &content->cond, 0); /* for one write to the cache file */
		content->settling--;
	}
	return err;
}

int content_modify_begin(struct content *content)
{
	return modify_begin(content, 0, UINT64_MAX, NULL);
}

int content_freeze_now(struct content *content)
{
	return content->shared ? freeze_by_clone(content) : 0;
}

static void touch(struct content *content)
{
	content->mtime = content->ctime = clock_wall();
}

/* --- writing ------------------------------------------------------------------------------------------ */

/* What a writer who waits for room has seen. */
struct patience {
	int64_t since; /* when the uploads came on last */
	uint64_t moved;
};

static bool is_patient(struct contents *owner, struct patience *patience)
{
	uint64_t moved = patience->moved;
	bool uploading = owner->uploading && owner->uploading(owner->uploading_arg, &moved);
	int64_t now = clock_monotonic();

	if (moved != patience->moved)
		*patience = (struct patience){.since = now, .moved = moved};
	return !atomic_load(&owner->cancelled) &&
	       now - patience->since < (uploading ? owner->stalled_ns : NO_UPLOADS_NS);
}

/* When dirty data fills the cache a writer waits for uploads to make room, for as long as they come on, however slowly.
 * With none under way it waits a little for a close that will make one. */
static int reserve(struct content *content, uint64_t len, const struct waiter *waiter)
{
	struct contents *owner = content->owner;
	struct patience patience = {.since = clock_monotonic()};
	int err;

	while ((err = cache_reserve(owner->cache, len)) == -ENOSPC) {
		struct timespec pause = clock_to_timespec(POLL_NS);

		if (interrupted(waiter))
			return -EINTR;
		if (!is_patient(owner, &patience))
			break;
		(void)nanosleep(&pause, NULL);
	}
	return err;
}

/* The nearer one of the two gaps beside [start, end), which lies in a gap of `set` and is itself to be covered. False
 * when it touches a range, or there is none. */
static bool nearer_gap(const struct ranges *set, uint64_t start, uint64_t end, struct range *ret_gap)
{
	struct range gap;

	if (!ranges_gap_around(set, start, &gap) || (gap.start && gap.start == start) || gap.end <= end)
		return false;
	if (gap.start && (gap.end == UINT64_MAX || start - gap.start <= gap.end - end))
		*ret_gap = (struct range){gap.start, start};
	else
		*ret_gap = (struct range){end, gap.end};
	return ret_gap->end != UINT64_MAX;
}

/* What lies between a write and its neighbour is fetched before it, if the store has it. May release the lock. */
static int fetch_to_neighbour(struct content *content, const struct content_write *request)
{
	uint64_t offset = request->offset == CONTENT_APPEND ? content->size : request->offset;
	struct waiter waiter = request->waiter ? *request->waiter : (struct waiter){0};
	struct range gap;
	int err;

	if ((content->present.count < RANGES_MAX && content->dirty.count < RANGES_MAX) ||
	    !nearer_gap(&content->present, offset, offset + request->len, &gap) || gap.start >= content->base_limit)
		return 0;
	waiter.deadline_ns = clock_monotonic() + JOIN_PATIENCE_NS;
	err = content_wait_present(content, gap.start, gap.end < content->base_limit ? gap.end : content->base_limit,
				   &waiter);
	return err == -EINTR || content->present.count >= 4 * RANGES_MAX ? err : 0; /* some more are no harm */
}

/* Zeros between what was written and its neighbour are as good as written; so is, once more, what is here already. */
static int join_neighbour(struct content *content, uint64_t start, uint64_t end)
{
	struct range gap;
	int err = 0;

	if (content->present.count >= RANGES_MAX && nearer_gap(&content->present, start, end, &gap) &&
	    gap.start >= content->base_limit) {
		err = ranges_add(&content->present, gap.start, gap.end);
		if (!err)
			err = ranges_add(&content->dirty, gap.start, gap.end);
	}
	if (err || content->dirty.count < RANGES_MAX || !ranges_gap_around(&content->dirty, start, &gap))
		return err;
	if (gap.start && ranges_contains(&content->present, gap.start, start))
		return ranges_add(&content->dirty, gap.start, start);
	if (gap.end != UINT64_MAX && ranges_contains(&content->present, end, gap.end))
		return ranges_add(&content->dirty, end, gap.end);
	return 0;
}

static int wrote(struct content *content, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len, size = content->size;
	int err = join_neighbour(content, offset, end);

	if (!err)
		err = ranges_add(&content->present, offset, end);
	if (!err)
		err = ranges_add(&content->dirty, offset, end);
	if (err)
		return err;
	if (end > content->size)
		content->size = end;
	touch(content);
	content->stale = true;
	content->unjournaled += len;
	if (content->unjournaled >= JOURNAL_EVERY || content->mtime - content->journaled >= JOURNAL_EVERY_NS)
		err = content_save(content);
	cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	tell_grown(content, (struct range){offset, end}, size);
	return err;
}

ssize_t content_write(struct content *content, const struct content_write *request)
{
	uint64_t offset;
	ssize_t written;
	int err = reserve(content, request->len, request->waiter);

	if (err)
		return err;
	LOCK_GUARD(&content->lock);
	err = fetch_to_neighbour(content, request);
	if (err)
		return err;
	/* Where an append goes is known only then. */
	err = request->offset == CONTENT_APPEND
		      ? modify_begin(content, 0, UINT64_MAX, request->waiter)
		      : modify_begin(content, request->offset, request->offset + request->len, request->waiter);
	if (err)
		return err;
	offset = request->offset == CONTENT_APPEND ? content->size : request->offset;
	if (offset > INT64_MAX - request->len)
		return -EFBIG;
	written = request->fill(request->arg, content->fd, offset, request->len);
	if (written > 0) {
		err = wrote(content, offset, (uint64_t)written);
		killpoint("data-written");
	}
	return err ? err : written;
}

/* --- held for reading ---------------------------------------------------------------------------------- */

/* Eviction leaves what is being read. */
static int pin(struct content *content, uint64_t start, uint64_t end)
{
	if (ARRAY_ROOM(content->io_at, content->io_room, content->io))
		return -ENOMEM;
	content->io_at[content->io++] = (struct range){start, end};
	return 0;
}

/* True: it is all there, and stays until content_read_done. */
static bool hold_present(struct content *content, uint64_t offset, size_t len)
{
	uint64_t end = offset + len;
	struct range gap;

	LOCK_GUARD(&content->lock);
	if (content->swapping || end > content->size ||
	    ranges_next_gap(&content->present, offset, end < content->base_limit ? end : content->base_limit, &gap))
		return false;
	return pin(content, offset, end) == 0;
}

/* --- copying without bytes ----------------------------------------------------------------------------- */

/* A version that a stretch of a content is in, as it is. */
struct reference {
	uint64_t ino, seq;
	uint64_t start, end;
	uint64_t changes; /* of the content, when it was seen to be in it */
};

/* In a cold tier the store copies no more than it reads: who asks is to be told so now. */
static bool is_archived(const struct cat_copy *copy)
{
	return copy->storage_class &&
	       (!strcmp(copy->storage_class, "GLACIER") || !strcmp(copy->storage_class, "DEEP_ARCHIVE"));
}

/* Where an object is overwritten in place others could do that before the store has made the copy; not so with what
 * varve keeps of the past itself. */
static bool is_kept(const struct content *content)
{
	return transfer_can(content->owner->transfer, BACKEND_VERSIONS) ||
	       !strncmp(content->copy.key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS));
}

/* Whether all of [start, end) that the file has is in its base. */
static bool find_reference(struct content *from, struct reference *reference)
{
	struct range piece;

	LOCK_GUARD(&from->lock);
	if (reference->end > from->size)
		reference->end = from->size;
	reference->ino = content_base_ino(from);
	reference->seq = from->base;
	reference->changes = from->changes;
	return from->loaded && !from->lost && !from->loose && !from->gone && from->base && from->copy.key &&
	       is_kept(from) && !is_archived(&from->copy) && reference->start < reference->end &&
	       reference->end <= from->base_limit &&
	       !ranges_next_piece(&from->dirty, reference->start, reference->end, &piece);
}

static bool goes_on(const struct content *content, const struct reference *reference)
{
	return content->base_ino == reference->ino && content->base == reference->seq &&
	       content->base_limit == reference->start;
}

/* Before it there must be nothing that would need a base of its own. The kernel must not read or write past us: it
 * would find holes. */
static bool can_refer(const struct content *content, const struct reference *reference)
{
	return !content->seq && !content->lost && !content->discarded && !content->loose && !content->backed &&
	       content->size == reference->start &&
	       (reference->start ? goes_on(content, reference) : reference->end > content->owner->refer_least);
}

static int take_version(void *arg, const struct cat_version *version)
{
	*(struct cat_version *)arg = *version;
	return 0;
}

static int find_last(struct cat_txn *txn, void *arg)
{
	struct cat_version *last = arg;

	last->seq = 0; /* the closure may run again */
	return cat_version_each(txn, last->ino, 0, UINT64_MAX, take_version, last);
}

/* First the record: from then on nobody prunes the version. Then it must still be there. */
static int refer_locked(struct content *content, const struct reference *reference)
{
	struct cat_version last = {.ino = content->ino};
	int err = reference->start ? 0 : catalog_view(content->owner->catalog, find_last, &last);

	if (err)
		return err;
	if (!reference->start) {
		content->base = reference->seq;
		content->base_ino = reference->ino;
		content->base_after = last.seq;
		content->speculated_to = 0;
	}
	content->base_limit = content->size = reference->end;
	content->ahead_off = true;
	touch(content);
	err = content_save(content);
	if (!err)
		err = content_load_copy(content);
	if (!err && (content->gone || !content->copy.key || !content->base_ino))
		err = -ESTALE;
	return err ? err : content_lengthen(content);
}

/* Nothing was said of it yet. */
static int unrefer(struct content *content, const struct reference *reference)
{
	content->base_limit = content->size = reference->start;
	if (!reference->start)
		content_base_on(content, 0);
	if (ftruncate(content->fd, (off_t)content->size))
		return -errno;
	return content_save(content);
}

/* What finds no room is left: it is in the store. */
static bool take_along(struct content *content, struct content *from, const struct reference *reference, uint64_t start,
		       uint64_t end)
{
	off_t in = (off_t)start, out = (off_t)start;
	struct range piece;

	if (cache_reserve(content->owner->cache, end - start))
		return false;
	LOCK_GUARD(&content->lock);
	if (content->base_ino != reference->ino || content->base != reference->seq || end > content->base_limit ||
	    content->shared || content->discarded || content->backed || content->loose ||
	    ranges_next_piece(&content->present, start, end, &piece) || fetch_is_writing(content, start, end))
		return false;
	while (in < (off_t)end) {
		if (copy_file_range(from->fd, &in, content->fd, &out, (size_t)((off_t)end - in), 0) <= 0)
			return false;
	}
	/* A writer may have come since find_reference: then it is not the version's. */
	if (from->changes != reference->changes || ranges_add(&content->present, start, end))
		return false;
	content->stale = true;
	cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	return true;
}

/* What is in the source's cache file, as far as it goes: it need not be fetched, also while the store is away. */
static void bring_along(struct content *content, struct content *from, const struct reference *reference)
{
	bool taken = true;

	for (uint64_t at = reference->start; at < reference->end && taken; at += ALONG_STEP) {
		size_t len = reference->end - at < ALONG_STEP ? (size_t)(reference->end - at) : ALONG_STEP;

		if (!hold_present(from, at, len))
			continue;
		taken = take_along(content, from, reference, at, at + len);
		content_read_done(from, at, len);
	}
}

ssize_t content_refer(struct content *content, struct content *from, uint64_t offset, uint64_t len,
		      const struct waiter *waiter)
{
	struct reference reference = {.start = offset, .end = offset + len};
	int err;

	if (content == from || offset > INT64_MAX - len || !transfer_can(content->owner->transfer, BACKEND_MULTIPART) ||
	    !transfer_can(content->owner->transfer, BACKEND_PART_COPY) || !find_reference(from, &reference))
		return 0;
	{
		LOCK_GUARD(&content->lock);
		if (!can_refer(content, &reference))
			return 0;
		err = modify_begin(content, reference.start, reference.end, waiter);
		if (err || !can_refer(content, &reference)) /* it waited */
			return err;
		err = refer_locked(content, &reference);
		if (err) {
			int undone = unrefer(content, &reference);

			return err == -ESTALE || err == -ENOENT ? undone : err;
		}
	}
	bring_along(content, from, &reference);
	return (ssize_t)(reference.end - reference.start);
}

static int shrink(struct content *content, uint64_t size)
{
	int err = ranges_remove(&content->present, size, UINT64_MAX);

	if (!err)
		err = ranges_remove(&content->dirty, size, UINT64_MAX);
	note_rewritten(content, size, UINT64_MAX);
	fetch_cut(content, size);
	if (!err && content->base_limit > size)
		content->base_limit = size;
	content->ahead_off = size > 0; /* emptied, it begins anew */
	if (content->told_ahead > size)
		content->told_ahead = size;
	/* Killed from here to the end, the file is shorter than its record says, and open_kept knows why. */
	if (!err && ftruncate(content->fd, (off_t)size))
		err = -errno;
	killpoint("file-cut");
	/* What was cut must not come back from `base` if we are killed before the next close. */
	return err ? err : content_save(content);
}

static int truncate_locked(struct content *content, uint64_t size, const struct waiter *waiter)
{
	int err;

	if (size > INT64_MAX)
		return -EFBIG;
	if (size == content->size && (size || !content->lost))
		return 0;
	if (!size && content->lost) {
		log_warn("content", "file %llu, whose last changes were lost, begins anew",
			 (unsigned long long)content->ino);
		content->lost = false;
	}
	err = modify_begin(content, size, UINT64_MAX, waiter);
	if (err)
		return err;
	if (size < content->size)
		err = shrink(content, size);
	if (err)
		return err;
	content->size = size;
	content->stale = true;
	touch(content);
	cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	return content_lengthen(content);
}

int content_truncate(struct content *content, uint64_t size, const struct waiter *waiter)
{
	LOCK_GUARD(&content->lock);
	return truncate_locked(content, size, waiter);
}

/* Zeros in [offset, end), which lies within the file. */
static int zero(struct content *content, uint64_t offset, uint64_t end)
{
	int err;

	if (fallocate(content->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)(end - offset)))
		return -errno;
	note_rewritten(content, offset, end);
	err = ranges_add(&content->present, offset, end);
	return err ? err : ranges_add(&content->dirty, offset, end);
}

int content_allocate(struct content *content, int mode, uint64_t offset, uint64_t len, const struct waiter *waiter)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	uint64_t end = offset + len, inside;
	int err;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (!len || end > INT64_MAX)
		return len ? -EFBIG : -EINVAL;
	err = (mode & FALLOC_FL_PUNCH_HOLE) ? 0 : reserve(content, len, waiter);
	if (err)
		return err;
	LOCK_GUARD(&content->lock);
	inside = end < content->size ? end : content->size;
	if (!(zeroes && offset < inside) && (keep || end <= content->size))
		return 0; /* space is reserved, no byte changes */
	err = modify_begin(content, offset, end, waiter);
	inside = end < content->size ? end : content->size; /* it may have been cut while we waited */
	if (!err && zeroes && offset < inside)
		err = zero(content, offset, inside);
	if (err)
		return err;
	if (!keep && end > content->size)
		content->size = end;
	content->stale = true;
	touch(content);
	return content_lengthen(content);
}

void content_set_mtime(struct content *content, int64_t mtime)
{
	LOCK_GUARD(&content->lock);
	content->mtime = mtime;
	content->ctime = clock_wall();
}

int content_mark_new(struct content *content)
{
	LOCK_GUARD(&content->lock);
	int err = modify_begin(content, 0, 0, NULL);

	if (err)
		return err;
	touch(content);
	if (!content->size) /* whatever it was before */
		content->ahead_off = false;
	return 0;
}

/* --- reading ------------------------------------------------------------------------------------------- */

int content_read_begin(struct content *content, uint64_t offset, size_t *len, const struct waiter *waiter)
{
	size_t wanted = *len;
	int err = 0;

	LOCK_GUARD(&content->lock);
	do {
		while (content->swapping)
			(void)lock_wait(&content->lock, &content->cond, 0);
		*len = offset >= content->size           ? 0
		       : wanted < content->size - offset ? wanted
							 : (size_t)(content->size - offset);
		if (*len)
			err = content_wait_present(content, offset, offset + *len, waiter);
	} while (!err && content->swapping);
	/* The file may have been cut while we waited. */
	if (!err && offset + *len > content->size)
		*len = offset < content->size ? (size_t)(content->size - offset) : 0;
	return err ? err : pin(content, offset, offset + *len);
}

void content_read_done(struct content *content, uint64_t offset, size_t len)
{
	LOCK_GUARD(&content->lock);
	for (unsigned i = 0; i < content->io; i++) {
		if (content->io_at[i].start == offset && content->io_at[i].end == offset + len) {
			content->io_at[i] = content->io_at[--content->io];
			break;
		}
	}
	if (content->io == 0 && content->swapping)
		(void)pthread_cond_broadcast(&content->cond);
}

int content_fd(const struct content *content)
{
	return content->fd;
}

/* How many bytes from `offset` on are a hole. Reading them would fill the page cache with zeros. */
static size_t hole_at(int fd, size_t len, uint64_t offset)
{
	off_t data = len >= WORTH_SEEKING ? lseek(fd, (off_t)offset, SEEK_DATA) : (off_t)offset;

	if (data < 0)
		return errno == ENXIO ? len : 0;
	return (uint64_t)data - offset < len ? (size_t)((uint64_t)data - offset) : len;
}

/* A cache file ends where its data does; what lies between that and the file's end is zeros. */
static ssize_t pread_padded(int fd, char *bytes, size_t len, uint64_t offset)
{
	size_t done = hole_at(fd, len, offset);

	memset(bytes, 0, done);
	while (done < len) {
		ssize_t n = pread(fd, bytes + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	memset(bytes + done, 0, len - done);
	return (ssize_t)len;
}

ssize_t content_pread(struct content *content, void *ret_bytes, size_t len, uint64_t offset,
		      const struct waiter *waiter)
{
	int err = content_read_begin(content, offset, &len, waiter);
	ssize_t n;

	if (err)
		return err;
	n = pread_padded(content->fd, ret_bytes, len, offset);
	content_read_done(content, offset, len);
	return n;
}

int content_pread_all(struct content *content, void *ret_bytes, size_t len, uint64_t offset,
		      const struct waiter *waiter)
{
	ssize_t n;

	if (!hold_present(content, offset, len)) {
		n = content_pread(content, ret_bytes, len, offset, waiter);
	} else {
		n = pread_padded(content->fd, ret_bytes, len, offset);
		content_read_done(content, offset, len);
	}
	return n < 0 ? (int)n : (size_t)n == len ? 0 : -EIO;
}

off_t content_seek(struct content *content, uint64_t offset, int whence)
{
	LOCK_GUARD(&content->lock);
	while (offset < content->size) {
		struct range gap;
		bool absent = offset < content->base_limit &&
			      ranges_next_gap(&content->present, offset, content->base_limit, &gap) &&
			      gap.start == offset;
		uint64_t known_end = content->size; /* up to here the cache file itself can tell */
		off_t found;

		if (absent) {
			if (whence == SEEK_DATA)
				return (off_t)offset;
			offset = gap.end;
			continue;
		}
		if (offset < content->base_limit &&
		    ranges_next_gap(&content->present, offset, content->base_limit, &gap))
			known_end = gap.start;
		found = lseek(content->fd, (off_t)offset, whence);
		if (found < 0 && errno != ENXIO)
			return -errno;
		if (found < 0)
			found = whence == SEEK_HOLE ? (off_t)offset : (off_t)known_end;
		if ((uint64_t)found < known_end)
			return found;
		offset = known_end;
	}
	if (whence == SEEK_HOLE && offset == content->size && content->size)
		return (off_t)content->size;
	return -ENXIO;
}

void content_overlay(struct content *content, struct cat_inode *attr)
{
	LOCK_GUARD(&content->lock);
	if (!content->loaded || content->seq)
		return;
	(void)backing_note(content); /* if it cannot tell now, it will at the close */
	attr->size = content->size;
	if (content->changed) {
		attr->mtime = content->mtime;
		if (content->ctime > attr->ctime)
			attr->ctime = content->ctime;
	}
}

/* --- writers come and go --------------------------------------------------------------------------------- */

void content_writer_came(struct content *content)
{
	LOCK_GUARD(&content->lock);
	content->writers++;
}

/* --- acknowledging and committing ------------------------------------------------------------------------- */

static int flush_locked(struct content *content)
{
	struct cat_extent extent;
	int err = backing_note(content);

	if (err || !content->changed || content->flushed || content->discarded || (content->loose && !content->stored))
		return err;
	err = content_keep_named(content);
	if (!err)
		err = keep_promise(content);
	if (err)
		return err;
	content_extent(content, &extent);
	err = catalog_flush(content->owner->catalog, content->ino, content->size, content->mtime, &extent);
	if (err)
		return err;
	content->flushed = true;
	content->stale = false;
	content->unjournaled = 0;
	return 0;
}

int content_flush(struct content *content, uint32_t author)
{
	LOCK_GUARD(&content->lock);
	content->author = author;
	int err = flush_locked(content);

	if (!err)
		killpoint("journal-committed");
	return err;
}

int content_sync_disk(struct content *content)
{
	int err = 0;

	/* The bulk without the lock; what was written meanwhile is synced by the promise. */
	if (fdatasync(content->fd))
		return -errno;
	killpoint("cache-synced");
	{
		LOCK_GUARD(&content->lock);
		if (!content->discarded) {
			content->promised = true;
			content->flushed = false;
			err = content->changed ? flush_locked(content) : content_save(content);
		}
	}
	return err ? err : catalog_sync(content->owner->catalog);
}

/* 0 and the checksum, when the whole of a small file is at hand. */
static int small_crc(struct content *content, uint32_t *ret_crc)
{
	AUTO_FREE char *bytes = NULL;
	struct range gap;

	if (content->size > CRC_AT_COMMIT_MAX || ranges_next_gap(&content->present, 0, content->base_limit, &gap))
		return -ENODATA;
	bytes = malloc(content->size + 1);
	if (!bytes)
		return -ENOMEM;
	if (pread_padded(content->fd, bytes, content->size, 0) < 0)
		return -EIO;
	*ret_crc = crc32c_update(0, bytes, content->size);
	return 0;
}

/* It is the whole of another file's version, and nothing else. */
static bool base_crc(const struct content *content, uint32_t *ret_crc)
{
	*ret_crc = content->base_crc32c;
	return content->base_ino && content->copy.key && content->base_has_crc32c && !content->dirty.count &&
	       content->size == content->base_size && content->base_limit == content->size;
}

int content_newest(struct content *content, uint64_t *ret_seq)
{
	struct cat_inode inode;
	int err = catalog_getattr(content->owner->catalog, content->ino, &inode);

	if (!err)
		*ret_seq = inode.version;
	return err;
}

/* The version gets its file, and what says what that holds. */
static int name_own(struct content *content, int own_fd)
{
	uint64_t version_id = CACHE_VERSION | content->shared;
	int err = content_save_as(content, version_id);

	if (!err)
		err = cache_file_name(content->owner->cache, own_fd, version_id);
	if (err)
		return err;
	content->shared = 0;
	cache_account(content->owner->cache, version_id, ranges_total(&content->present));
	return 0;
}

int content_commit_locked(struct content *content, enum cat_origin origin, uint32_t author, int own_fd,
			  uint64_t *ret_seq)
{
	struct contents *owner = content->owner;
	struct cat_extent extent;
	struct cat_version version;
	struct cat_commit request = {
		.ino = content->ino,
		.size = content->size,
		.mtime = content->mtime,
		.author = author,
		.origin = origin,
		.extent = &extent,
	};
	int err;

	err = content_keep_named(content);
	if (!err)
		err = keep_promise(content);
	if (err)
		return err;
	content_extent(content, &extent);
	/* A mapping may store between this and the clone that is the version. */
	request.has_crc32c =
		!content->loose && (base_crc(content, &request.crc32c) || small_crc(content, &request.crc32c) == 0);
	err = catalog_commit(owner->catalog, &request, &version);
	if (err)
		return err;
	content->promised = false;
	killpoint("version-committed");
	content->changed = content->flushed = content->stale = false;
	content->unjournaled = 0;
	content->shared = version.seq;
	tell_committed(content, version.seq);
	/* Without its second name the version still lies in our file; content_load makes the name anew, and until
	 * then a writer must not pass: the clone of freeze_by_clone is then its first file. */
	err = own_fd < 0 ? cache_file_link(owner->cache, content->id, CACHE_VERSION | version.seq)
			 : name_own(content, own_fd);
	if (err)
		log_warn("content", "cannot link version %llu of file %llu: %s", (unsigned long long)version.seq,
			 (unsigned long long)content->ino, strerror(-err));
	*ret_seq = version.seq;
	return 0;
}

static int commit_locked(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq)
{
	return content->loose ? backing_commit(content, origin, author, ret_seq)
			      : content_commit_locked(content, origin, author, -1, ret_seq);
}

static int commit_if_changed(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq)
{
	struct cat_inode inode;
	int err;

	if (!content->changed || content->discarded)
		return content_newest(content, ret_seq);
	err = catalog_getattr(content->owner->catalog, content->ino, &inode);
	if (err)
		return err;
	if (content_has_no_future(&inode)) {
		*ret_seq = inode.version;
		return 0;
	}
	return commit_locked(content, inode.nlink ? origin : CAT_ORIGIN_CONFLICT, author, ret_seq);
}

int content_commit(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq)
{
	LOCK_GUARD(&content->lock);
	return commit_if_changed(content, origin, author, ret_seq);
}

int content_commit_closed(struct content *content, uint32_t author)
{
	uint64_t seq;

	LOCK_GUARD(&content->lock);
	return content->writers ? 0 : commit_if_changed(content, CAT_ORIGIN_CLOSE, author, &seq);
}

int content_truncate_closed(struct content *content, uint64_t size, uint32_t author, const struct waiter *waiter)
{
	uint64_t seq;
	int err;

	LOCK_GUARD(&content->lock);
	bool amid = content->changed && content->writers;

	err = truncate_locked(content, size, waiter);
	return err || amid ? err : commit_if_changed(content, CAT_ORIGIN_CLOSE, author, &seq);
}

int content_writer_gone(struct content *content, uint32_t author)
{
	uint64_t seq;

	LOCK_GUARD(&content->lock);
	return --content->writers || !content->changed ? 0 : commit_if_changed(content, CAT_ORIGIN_CLOSE, author, &seq);
}

int content_settle(struct contents *contents, uint64_t ino)
{
	struct content *content = content_peek(contents, ino);
	struct cat_inode inode;
	uint64_t seq;
	int err;

	if (!content)
		return 0;
	err = catalog_getattr(contents->catalog, ino, &inode);
	if (!err) {
		LOCK_GUARD(&content->lock);
		bool acknowledged =
			content->loose ? !content->writers || content->flushed : content->changed && content->flushed;

		if (acknowledged && !content->discarded && !content_has_no_future(&inode))
			err = commit_locked(content, inode.nlink ? CAT_ORIGIN_CLOSE : CAT_ORIGIN_CONFLICT,
					    content->author, &seq);
	}
	content_put(content);
	return err;
}

/* --- the end of an upload ------------------------------------------------------------------------------------ */

/*
 * The version is stored, and so it may go from the cache; but whoever has it open reads on. While the live file shares
 * its bytes they get a file of their own first: nothing would hold a later writer back. With the live content's lock
 * held: nobody can come to share the name meanwhile.
 */
static void drop_frozen(struct content *live, uint64_t seq)
{
	struct contents *contents = live->owner;
	uint64_t id = CACHE_VERSION | seq;
	struct content *frozen = contents_peek_id(contents, id);
	int err = 0;

	if (frozen && live->shared == seq)
		err = freeze_by_clone(live);
	if (frozen) {
		LOCK_GUARD(&frozen->lock);
		frozen->discarded = true;
	}
	if (err) { /* it stays shared, and the next writer tries again */
		log_warn("content", "version %llu keeps its cache file: %s", (unsigned long long)seq, strerror(-err));
	} else {
		live->shared = live->shared == seq ? 0 : live->shared;
		cache_file_unlink(contents->cache, id);
	}
	if (frozen)
		content_put(frozen);
}

/* The extent record as it is once everything of it is stored. */
static int stored_clean(struct content *content, uint64_t job, const struct cat_copy *copy)
{
	struct ranges none = RANGES_INIT;
	struct cat_extent extent;
	int err;

	content_extent(content, &extent);
	extent.dirty = none;
	extent.base = copy->seq;
	extent.base_limit = content->size;
	extent.base_ino = extent.base_after = 0;
	err = catalog_stored(content->owner->catalog, job, copy, &extent);
	if (err)
		return err;
	ranges_clear(&content->dirty);
	content_base_on(content, copy->seq);
	content->stale = false;
	return 0;
}

static int delete_extent(struct cat_txn *txn, void *arg)
{
	return cat_extent_delete(txn, *(const uint64_t *)arg);
}

/* Once the catalog has it nothing that fails may call it a failure: the job is done. */
static void stored_locked(struct content *live, uint64_t seq)
{
	uint64_t frozen_id = CACHE_VERSION | seq;
	int err;

	drop_frozen(live, seq);
	err = live->loaded ? content_load_copy(live) : 0;
	if (!err)
		err = catalog_update(live->owner->catalog, delete_extent, &frozen_id);
	if (err)
		log_warn("content", "after the upload of version %llu: %s", (unsigned long long)seq, strerror(-err));
	(void)pthread_cond_broadcast(&live->cond);
}

int content_stored(struct contents *contents, uint64_t ino, uint64_t seq, uint64_t job, const struct cat_copy *copy)
{
	struct content *live = NULL;
	uint64_t newest;
	bool clean;
	int err = content_get(contents, ino, 0, &live);

	if (err)
		return err;
	{
		LOCK_GUARD(&live->lock);
		/* Of a file whose cache file is lost only the uploader had the bytes; now the store has them. */
		clean = (live->shared == seq || (live->lost && content_newest(live, &newest) == 0 && newest == seq)) &&
			!live->discarded;
		live->lost = live->lost && !clean;
		err = clean ? stored_clean(live, job, copy) : catalog_stored(contents->catalog, job, copy, NULL);
		killpoint("version-recorded");
		if (!err)
			stored_locked(live, seq);
	}
	content_put(live);
	content_forget_unnamed(contents, ino);
	return err;
}

int content_plan(struct content *content, struct content_plan *ret_plan)
{
	struct content_plan plan = {0};
	int err;

	LOCK_GUARD(&content->lock);
	err = content_load_copy(content); /* it may have been relocated since */
	if (err)
		return err;
	plan.size = content->size;
	plan.base = content->base;
	plan.base_limit = content->base_limit;
	err = ranges_copy(&plan.dirty, &content->dirty);
	if (!err && content->copy.key) {
		plan.copy = content->copy;
		plan.copy.key = strdup(content->copy.key);
		plan.copy.native_id = content->copy.native_id ? strdup(content->copy.native_id) : NULL;
		plan.copy.etag = content->copy.etag ? strdup(content->copy.etag) : NULL;
		plan.copy.storage_class = NULL;
		/* Without its pin it would be another object that parts are copied from. */
		if (!plan.copy.key || (content->copy.native_id && !plan.copy.native_id) ||
		    (content->copy.etag && !plan.copy.etag))
			err = -ENOMEM;
	}
	if (err)
		content_plan_clear(&plan);
	else
		*ret_plan = plan;
	return err;
}

bool content_is_missing_bytes(struct content *content)
{
	struct range gap;

	LOCK_GUARD(&content->lock);
	return content->gone && ranges_next_gap(&content->present, 0, content->base_limit, &gap);
}

void content_plan_clear(struct content_plan *plan)
{
	ranges_free(&plan->dirty);
	cat_copy_clear(&plan->copy);
}

/* --- no name, no handle ----------------------------------------------------------------------------------------- */

static int forget_changes(struct cat_txn *txn, void *arg)
{
	const struct content *content = arg;
	struct cat_inode inode;
	int err = cat_inode_get(txn, content->ino, &inode);

	if (err)
		return err;
	inode.flags &= ~(uint32_t)(CAT_DIRTY | CAT_FLUSHED);
	err = cat_inode_put(txn, &inode);
	return err ? err : cat_extent_delete(txn, content->ino);
}

/* A version that is newer than the current one waits, and has no record but ours: it shares the cache file. */
static int find_sharing(struct cat_txn *txn, void *arg)
{
	struct content *content = arg;
	struct cat_version version = {.state = CAT_STORED};
	struct cat_extent extent = {0};
	struct cat_inode inode;
	int err = cat_inode_get(txn, content->ino, &inode);

	if (!err)
		err = cat_version_each(txn, content->ino, inode.version + 1, UINT64_MAX, take_version, &version);
	if (err || version.state == CAT_STORED || version.state == CAT_EXPIRED)
		return err;
	err = cat_extent_get(txn, CACHE_VERSION | version.seq, &extent);
	if (err == -ENOENT && cat_extent_get(txn, content->ino, &extent) == 0)
		content->shared = version.seq;
	cat_extent_clear(&extent);
	return err == -ENOENT ? 0 : err;
}

int content_leave_to_version(struct content *content)
{
	struct stat st;
	int err = 0;

	if (!content->shared && !content->changed && !content->lost)
		err = catalog_view(content->owner->catalog, find_sharing, content);
	if (err || !content->shared)
		return err;
	if (fstat(content->fd, &st))
		return -errno;
	return st.st_nlink > 1 ? content_save_as(content, CACHE_VERSION | content->shared) : freeze_by_clone(content);
}

void content_discard_locked(struct content *content)
{
	const struct contents_watch *watch = atomic_load(&content->owner->watch);
	int err;

	if (content->discarded || content->seq)
		return;
	err = content_leave_to_version(content);
	if (!err)
		err = catalog_update(content->owner->catalog, forget_changes, content);
	if (err) {
		log_warn("content", "cannot drop the cache of file %llu: %s", (unsigned long long)content->ino,
			 strerror(-err));
		return;
	}
	content->discarded = true;
	content->changed = content->stale = false;
	if (watch)
		watch->discarded(watch->arg, content->ino);
	cache_file_unlink(content->owner->cache, content->id);
}

static void forget_locked(struct content *content)
{
	struct contents *contents = content->owner;
	struct cat_inode inode;
	int err = catalog_getattr(contents->catalog, content->ino, &inode);

	if (err || inode.nlink)
		return;
	if (!content->loaded && contents_drop_idle(contents, content->id)) /* nothing in it is worth a look */
		return;
	err = content->loaded ? 0 : content_load(content);
	if (!err && !content->writers && (!content->changed || content_has_no_future(&inode)))
		content_discard_locked(content);
}

void content_forget(struct contents *contents, uint64_t ino)
{
	struct content *content = contents_reach(contents, ino);

	if (!content)
		return;
	lock_acquire(&content->lock);
	forget_locked(content);
	lock_release(&content->lock);
	content_put(content);
}

void content_forget_unnamed(struct contents *contents, uint64_t ino)
{
	struct cat_inode inode;

	if (catalog_getattr(contents->catalog, ino, &inode) == 0 && inode.nlink == 0)
		content_forget(contents, ino);
}
