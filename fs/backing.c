/*
 * backing.c - see backing.h.
 *
 * What the kernel gives to build on (Linux 6.18, fs/fuse/iomode.c and fs/locks.c): every open of an inode that has a
 * backing file must name the same one; a mapping of a BACKED or DIRECT handle is one of the cache file and outlives
 * RELEASE, holding its struct file; leases count struct files of an inode, F_RDLCK the writing ones, F_WRLCK all but
 * the one that asks. That every store through a mapping shows in the mtime, again after each fdatasync, holds where
 * pages are made writable by a fault that the filesystem hears of; on tmpfs it does not. So it is tried out once, and
 * where it does not hold nothing passes through.
 *
 * Threads: FUSE workers, and `watch`, which probes loose contents that no handle writes to any more.
 */
#include "fs/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/content_internal.h"
#include "log.h"

/* Below this the page cache of a small file costs less than to make its cache file known and unknown again. */
#define WORTH_BACKING (UINT64_C(256) << 10)
#define WORTH_DROPPING (UINT64_C(64) << 20)
#define PROBE_NS (500 * NS_PER_MS)

/* No clock of today says this. */
static const struct timespec sentinel = {.tv_sec = 0x7661, .tv_nsec = 0x727665};

static int64_t mtime_of(const struct stat *st)
{
	return clock_from_timespec(st->st_mtim);
}

static int reopen(int fd, int flags)
{
	char path[40];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

/* 0, or -EAGAIN when others are in the way; or the filesystem has no leases. */
static int lease(int fd, int type)
{
	if (fcntl(fd, F_SETLEASE, type))
		return -errno;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK); /* our own: it cannot fail */
	return 0;
}

bool backing_alone(const struct content *content)
{
	/* Where there are no leases no file was ever backed. */
	return !content->backed && lease(content->fd, F_WRLCK) != -EAGAIN;
}

/*
 * Whether somebody's mapping can still store. Only a descriptor for reading may ask, when nobody has one for writing:
 * for that moment ours is one. Reads under way go on through the old one and are taken for writers.
 */
static bool is_written(struct content *content)
{
	AUTO_CLOSE int reader = reopen(content->fd, O_RDONLY);
	AUTO_CLOSE int writer = -1;
	bool alone;

	if (reader < 0 || dup3(reader, content->fd, O_CLOEXEC) < 0)
		return true;
	alone = lease(reader, F_RDLCK) == 0;
	writer = reopen(reader, O_RDWR);
	if (writer < 0 || dup3(writer, content->fd, O_CLOEXEC) < 0)
		log_error("backing", "file %llu can only be read until it is opened anew: %s",
			  (unsigned long long)content->ino, strerror(errno));
	return !alone;
}

/* --- loose and tight -------------------------------------------------------------------------------------- */

static int all_is_dirty(struct content *content)
{
	int err = ranges_add(&content->present, 0, content->size);

	content->stale = true;
	return err ? err : ranges_add(&content->dirty, 0, content->size);
}

/* From here on a store shows in the mtime: pages that a mapping has already written to are made to fault again. */
static int arm(struct content *content)
{
	if (futimens(content->fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, sentinel}))
		return -errno;
	return content->loose && fdatasync(content->fd) ? -errno : 0;
}

static int set_sentinel(int fd)
{
	return futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, sentinel}) || fdatasync(fd) ? -errno : 0;
}

/* Does a store to a page that the mapping has read, or written, before tell? */
static bool store_tells(int fd, volatile char *mapped)
{
	struct stat st;

	if (set_sentinel(fd))
		return false;
	mapped[0] = (char)(mapped[0] + 1);
	return fstat(fd, &st) == 0 && mtime_of(&st) != clock_from_timespec(sentinel);
}

static bool try_stores(struct contents *contents)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	AUTO_CLOSE int fd = -1;
	bool tells;
	char *mapped;

	if (cache_file_scratch(contents->cache, &fd) || ftruncate(fd, (off_t)page))
		return false;
	mapped = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped == MAP_FAILED)
		return false;
	tells = store_tells(fd, mapped) && store_tells(fd, mapped);
	(void)munmap(mapped, page); /* it was mapped so */
	return tells;
}

/* Does the mtime of cache files tell of stores through mappings? */
static bool mappings_tell(struct contents *contents)
{
	if (!atomic_load(&contents->tells) && !atomic_load(&contents->tells_not)) {
		bool tells = try_stores(contents);

		if (!tells && !atomic_exchange(&contents->tells_not, true))
			log_info("backing", "the filesystem of the cache directory does not tell of stores through "
					    "mappings: reads are served by varve, not by the kernel itself");
		atomic_store(&contents->tells, tells);
	}
	return atomic_load(&contents->tells);
}

/* On record before the first store can come. */
static int loosen(struct content *content)
{
	bool pending = content->changed;
	struct stat st;
	int err = content_modify_begin(content);

	if (!err)
		err = all_is_dirty(content);
	if (!err)
		err = content_save(content);
	if (!err && !pending)
		err = arm(content);
	if (!err && fstat(content->fd, &st))
		err = -errno;
	if (err)
		return err;
	content->loose = true;
	content->stored = pending;
	content->seen_mtime = pending ? mtime_of(&st) : clock_from_timespec(sentinel);
	return 0;
}

int backing_note(struct content *content)
{
	struct stat st;
	int64_t mtime;

	if (!content->loose)
		return 0;
	if (fstat(content->fd, &st))
		return -errno;
	mtime = mtime_of(&st);
	if (mtime == content->seen_mtime)
		return 0;
	content->seen_mtime = mtime;
	content->stored = true;
	content->flushed = content->synced = false;
	/* Our own writes tell it too, but a little later. */
	if (mtime > content->ctime)
		content->mtime = content->ctime = mtime;
	return all_is_dirty(content);
}

struct newest {
	struct content *content;
	uint64_t seq;
	enum cat_state state;
	struct cat_extent extent;
};

static int find_newest(struct cat_txn *txn, void *arg)
{
	struct newest *newest = arg;
	struct cat_inode inode;
	struct cat_version version;
	int err = cat_inode_get(txn, newest->content->ino, &inode);

	if (!err)
		err = inode.version ? cat_version_get(txn, inode.ino, inode.version, &version) : -ENOENT;
	if (err)
		return err;
	newest->seq = inode.version;
	newest->state = version.state;
	return 0;
}

static int put_unchanged(struct cat_txn *txn, void *arg)
{
	const struct newest *newest = arg;
	struct cat_inode inode;
	int err = cat_inode_get(txn, newest->content->ino, &inode);

	if (err)
		return err;
	inode.flags &= ~(uint32_t)(CAT_DIRTY | CAT_FLUSHED);
	err = cat_inode_put(txn, &inode);
	return err ? err : cat_extent_put(txn, inode.ino, &newest->extent);
}

/* The cache file holds the newest version's bytes: stored, it is clean; else it becomes that version's file again. */
int backing_tighten(struct content *content)
{
	struct contents *owner = content->owner;
	struct newest newest = {.content = content};
	int err = catalog_view(owner->catalog, find_newest, &newest);

	if (err)
		return err;
	content->loose = false;
	if (newest.state == CAT_STORED || newest.state == CAT_EXPIRED) {
		ranges_clear(&content->dirty);
		content_base_on(content, newest.seq);
	} else {
		err = cache_file_link(owner->cache, content->id, CACHE_VERSION | newest.seq);
		if (err)
			return err;
		content->shared = newest.seq;
	}
	content_extent(content, &newest.extent);
	err = catalog_update(owner->catalog, put_unchanged, &newest);
	if (err)
		return err;
	content->changed = content->flushed = content->stale = content->stored = false;
	return content_load_copy(content);
}

static void watch(struct content *content);

/*
 * Mappings may go on, so the version gets a file of its own, and gets it first: without room for it there is no
 * version. The sentinel is set before: a store during the copy may be in the version or not, so it must count as one
 * that came after it.
 */
static int commit_loose(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq)
{
	bool synced = content->synced || content->promised;
	AUTO_CLOSE int own = -1;
	int err = arm(content);

	if (!err)
		err = cache_file_copy(content->owner->cache, content->fd, synced, &own);
	if (!err)
		err = content_commit_locked(content, origin, author, own, ret_seq);
	if (!err) /* it has its file, unless that could not get its name */
		err = content_freeze_now(content);
	if (!err)
		err = content_modify_begin(content);
	if (!err)
		err = all_is_dirty(content);
	if (!err)
		err = content_save(content);
	if (err)
		return err;
	content->stored = false;
	content->seen_mtime = clock_from_timespec(sentinel);
	return backing_note(content);
}

int backing_commit(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq)
{
	int err;

	if (!content->writers && !is_written(content)) {
		/* Asked after the last store was possible. */
		err = backing_note(content);
		if (!err && !content->stored) {
			*ret_seq = 0;
			err = backing_tighten(content);
			return err ? err : content_newest(content, ret_seq);
		}
		content->loose = false;
		return err ? err : content_commit_locked(content, origin, author, -1, ret_seq);
	}
	if (!content->writers)
		watch(content);
	err = backing_note(content);
	if (err || !content->stored)
		return err ? err : content_newest(content, ret_seq);
	return commit_loose(content, origin, author, ret_seq);
}

/* --- mappings that outlive their handles --------------------------------------------------------------------- */

/* True: it is tight, and needs no watching any more. */
static bool probe(struct content *content)
{
	uint64_t seq;
	int err = 0;

	LOCK_GUARD(&content->lock);
	if (content->loose && !content->writers && !content->discarded)
		err = backing_commit(content, CAT_ORIGIN_CLOSE, content->author, &seq);
	if (err)
		log_warn("backing", "file %llu was changed through a mapping and has no version of it yet: %s",
			 (unsigned long long)content->ino, strerror(-err));
	if (content->loose && !content->discarded)
		return false;
	content->watched = false;
	return true;
}

/* The first of the list, which becomes its last. */
static struct content *next_watched(struct contents *contents)
{
	struct content *content = list_entry(contents->watched.next, struct content, watch_node);

	list_remove(&content->watch_node);
	list_add_tail(&contents->watched, &content->watch_node);
	return content;
}

static void *run(void *arg)
{
	struct contents *contents = arg;

	lock_acquire(&contents->lock);
	while (!contents->stop_watching) {
		struct content *content;

		if (list_empty(&contents->watched)) {
			(void)lock_wait(&contents->lock, &contents->watch_cond, 0);
			continue;
		}
		(void)lock_wait(&contents->lock, &contents->watch_cond, clock_monotonic() + PROBE_NS);
		if (contents->stop_watching)
			break;
		content = next_watched(contents);
		lock_release(&contents->lock);
		if (probe(content)) {
			lock_acquire(&contents->lock);
			list_remove(&content->watch_node);
			lock_release(&contents->lock);
			content_put(content);
		}
		lock_acquire(&contents->lock);
	}
	lock_release(&contents->lock);
	return NULL;
}

/* With a reference of its own: what is loose stays in memory. */
static void watch(struct content *content)
{
	struct contents *contents = content->owner;

	if (content->watched)
		return;
	LOCK_GUARD(&contents->lock);
	if (contents->stop_watching)
		return;
	if (!contents->watching)
		contents->watching = pthread_create(&contents->watcher, NULL, run, contents) == 0;
	if (!contents->watching)
		return; /* the next open or the end of the mount must do */
	content->watched = true;
	content->refs++;
	list_add_tail(&contents->watched, &content->watch_node);
	(void)pthread_cond_signal(&contents->watch_cond);
}

void backing_stop(struct contents *contents)
{
	bool watching;

	lock_acquire(&contents->lock);
	watching = contents->watching && !contents->stop_watching;
	contents->stop_watching = true;
	(void)pthread_cond_signal(&contents->watch_cond);
	lock_release(&contents->lock);
	if (watching)
		(void)pthread_join(contents->watcher, NULL);
	while (!list_empty(&contents->watched)) {
		struct content *content = list_entry(contents->watched.next, struct content, watch_node);

		list_remove(&content->watch_node);
		content_put(content);
	}
}

/* --- handles --------------------------------------------------------------------------------------------------- */

/* Of the whole file, and exactly of it: the kernel reads up to the cache file's end. */
static bool is_whole(const struct content *content)
{
	struct range gap;
	struct stat st;

	return !ranges_next_gap(&content->present, 0, content->base_limit, &gap) && fstat(content->fd, &st) == 0 &&
	       (uint64_t)st.st_size == content->size;
}

/* Invariant 4. */
static uint64_t most_pinned(const struct contents *owner)
{
	return cache_limit(owner->cache) / 2;
}

static bool may_pin(struct content *content)
{
	struct contents *owner = content->owner;
	uint64_t most = most_pinned(owner);

	if (atomic_fetch_add(&owner->pinned, content->size) + content->size <= most) {
		content->pinned = content->size;
		return true;
	}
	atomic_fetch_sub(&owner->pinned, content->size);
	return false;
}

static void unpin(struct content *content)
{
	atomic_fetch_sub(&content->owner->pinned, content->pinned);
	content->pinned = 0;
}

/* By a descriptor for reading: one for writing would be taken for a mapping that writes. */
static bool make_known(struct content *content, const struct backing_kernel *kernel)
{
	AUTO_CLOSE int fd = -1;

	int leased = kernel->open ? lease(content->fd, F_WRLCK) : -ENOSYS;

	if ((leased && leased != -EAGAIN) || !mappings_tell(content->owner) || !may_pin(content))
		return false;
	fd = reopen(content->fd, O_RDONLY);
	content->backing_id = fd >= 0 ? kernel->open(kernel->arg, fd) : 0;
	if (content->backing_id <= 0)
		unpin(content);
	return content->backing_id > 0;
}

static bool begins_backed(struct content *content, int flags, const struct backing_kernel *kernel)
{
	if (content->loose)
		return make_known(content, kernel);
	/* Versions stay out: a frozen one's file is swapped, and one that was frozen when it was opened may be another
	 * content the next time, while for the kernel it is the same inode. */
	return (flags & O_ACCMODE) == O_RDONLY && !content->seq && content->size >= WORTH_BACKING &&
	       !content->discarded && is_whole(content) && make_known(content, kernel);
}

static void leave(struct content *content, const struct backing_kernel *kernel)
{
	if (--content->backed)
		return;
	if (kernel->close)
		kernel->close(kernel->arg, content->backing_id);
	content->backing_id = 0;
	unpin(content);
}

int backing_join(struct content *content, int flags, const struct backing_kernel *kernel, enum backing_mode *ret_mode,
		 int *ret_id)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY, backed;
	int err = 0;

	LOCK_GUARD(&content->lock);
	backed = content->backed > 0 ||
		 (!content->cached && !content->uncached && begins_backed(content, flags, kernel));
	if (!backed && content->loose)
		return -EIO; /* invariant 2 */
	if (!backed) {
		bool past = (flags & O_ACCMODE) == O_WRONLY && kernel->uncached && !content->cached;

		*ret_mode = past ? BACKING_UNCACHED : BACKING_CACHED;
		content->uncached += past;
		content->cached += !past;
		return 0;
	}
	content->backed++;
	*ret_id = content->backing_id;
	*ret_mode = writes ? BACKING_DIRECT : BACKING_BACKED;
	cache_account(content->owner->cache, content->id, ranges_total(&content->present));
	/* A mapping is read too: a handle that cannot read cannot map. */
	if ((flags & O_ACCMODE) == O_RDWR && !content->loose)
		err = loosen(content);
	if (err)
		leave(content, kernel);
	return err;
}

void backing_leave(struct content *content, enum backing_mode mode, const struct backing_kernel *kernel)
{
	LOCK_GUARD(&content->lock);
	if (mode == BACKING_CACHED)
		content->cached--;
	else if (mode == BACKING_UNCACHED)
		content->uncached--;
	else
		leave(content, kernel);
}

bool backing_take_passed(struct content *content, struct range *ret_passed)
{
	LOCK_GUARD(&content->lock);
	return content->cached == 1 && !content->uncached && content->readahead && content->size >= WORTH_DROPPING &&
	       content->size <= most_pinned(content->owner) && !atomic_load(&content->owner->tells_not) &&
	       readahead_passed(content->readahead, ret_passed);
}

/* --- after a crash ---------------------------------------------------------------------------------------------- */

static bool is_file(struct contents *contents, uint64_t id, const struct stat *st)
{
	AUTO_CLOSE int fd = -1;
	struct stat other;

	return cache_file_open(contents->cache, id, O_RDONLY, &fd) == 0 && fstat(fd, &other) == 0 &&
	       other.st_ino == st->st_ino;
}

int backing_recover(struct contents *contents, uint64_t id, uint64_t second_id, bool *ret_untouched)
{
	AUTO_CLOSE int fd = -1;
	AUTO_CLOSE int copy = -1;
	struct stat st;
	bool two_names;
	int err = cache_file_open(contents->cache, id, O_RDONLY, &fd);

	*ret_untouched = false;
	if (err)
		return err == -ENOENT ? 0 : err;
	if (fstat(fd, &st))
		return -errno;
	*ret_untouched = mtime_of(&st) == clock_from_timespec(sentinel);
	if (lease(fd, F_RDLCK) != -EAGAIN)
		return 0;
	log_info("backing", "cache file %llx is still written by what used the last mount: a copy takes its place",
		 (unsigned long long)id);
	two_names = second_id && is_file(contents, second_id, &st);
	err = cache_file_clone(contents->cache, fd, id, true, &copy);
	return err || !two_names ? err : cache_file_link(contents->cache, id, second_id);
}
