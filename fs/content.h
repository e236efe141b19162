/*
 * content.h - the bytes of one file or version while somebody uses them.
 *
 * A content is a cache file seen through three sets:
 *   present  what the cache file holds
 *   dirty    of that, what the stored version `base` does not have (dirty is within present)
 *   the rest, below base_limit, is in `base` in the store; at or past it, zeros.
 * The base is a version of the file itself, or, of what was copied without its bytes, another's (content_refer).
 *
 * A live file's content moves through these states:
 *
 *            open+write              close/fsync              upload done
 *   CLEAN ----------------> CHANGED ---------------> LOCAL ----------------> CLEAN
 *                              ^    content_commit     |    content_stored
 *                              |                       |
 *                              +-- modify_begin  ------+   (freezes first)
 *
 *   CLEAN    dirty empty, base is the current version
 *   CHANGED  `changed` set; the catalog has CAT_DIRTY
 *   LOCAL    `shared` is the seq of the newest version, whose cache file is a second name of ours until somebody
 *            modifies; dirty is not empty unless the version is all zeros or empty
 *
 * Invariants
 *  1. Bytes of a committed version never change: the first modification after a commit gives the version a file of
 *     its own (clone), before the first byte is written.
 *  2. The extent record in the catalog never claims more than the cache file holds: it shrinks before a punch and
 *     grows after a write. CAT_DIRTY with the extent is recorded before the first byte of a change.
 *  3. Fetched bytes only ever fill what is absent: a write is never overwritten by a fetch. A fetch writes without the
 *     lock, but says where; whoever changes bytes there first waits until that one write is over (fetch.c).
 *  4. All fetches of one content come from one pinned copy (key, native id, etag) of `base`.
 *
 * Thread-safe. Lock: content's own (LOCK_CONTENT). Held over local disk I/O, never over the network or a reply.
 */
#ifndef VARVE_FS_CONTENT_H
#define VARVE_FS_CONTENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "catalog.h"
#include "lock.h"
#include "transfer.h"

struct cache;
struct content;
struct contents; /* all contents in use */

/* Whoever waits for the network may be told to stop. Polled a few times a second. */
struct waiter {
	bool (*interrupted)(void *arg);
	void *arg;
	int64_t deadline_ns; /* CLOCK_MONOTONIC; 0: the default read deadline */
};

struct contents_options {
	struct catalog *catalog;
	struct transfer *transfer;
	const char *cache_dir;
	uint64_t cache_limit, cache_reserve;
	int64_t read_timeout_ns; /* 0: 30 s */
	/* The store said that it has no such copy: true when that is so and the catalog has learned it. On a pool
	 * thread, without locks. May be NULL. */
	bool (*gone)(void *arg, const struct cat_gone *gone, const atomic_bool *cancelled);
	void *gone_arg;
	/* For writers who find the cache full: are uploads under way that will make room? *ret_moved grows as they
	 * come on. May be NULL. */
	bool (*uploading)(void *arg, uint64_t *ret_moved);
	void *uploading_arg;
	int64_t stalled_ns; /* so long without their coming on is the end of a writer's patience, 10 s at least */
};
int contents_new(const struct contents_options *options, struct contents **ret_contents);
void contents_free(struct contents *contents);
/* Ends fetches, waits until nobody uses a content any more, and frees. NULL is fine. */
void contents_end(struct contents *contents);
/* Fetches end soon, as failed: before the end of the mount. */
void contents_cancel(struct contents *contents);
struct cache *contents_cache(struct contents *contents);

/* The content of file `ino` (seq 0), or of its version `seq`. Takes a reference. -EIO: no version, or no copy of it.
 * -ENODATA: the version was in the cache alone, and there it is not any more. */
int content_get(struct contents *contents, uint64_t ino, uint64_t seq, struct content **ret_content);
/* One more reference to a content that the caller has one to. */
void content_hold(struct content *content);
/* Drops it; the last one writes the extent record down and closes the cache file. */
void content_put(struct content *content);
/* A reference to it only if somebody uses it already; NULL else. For getattr: catalog answers what is closed. */
struct content *content_peek(struct contents *contents, uint64_t ino);

/* Overlays size, mtime and ctime of an open, changed file. */
void content_overlay(struct content *content, struct cat_inode *attr);

/*
 * Makes [offset, offset + *len) readable in content_fd, fetching what is
 * absent; clips *len at the end of the file. The range stays until
 * content_read_done. -EIO, -EINTR, -ETIMEDOUT.
 */
int content_read_begin(struct content *content, uint64_t offset, size_t *len, const struct waiter *waiter);
void content_read_done(struct content *content, uint64_t offset, size_t len); /* as begin left it */
int content_fd(const struct content *content);
/* Did any of its bytes come from the store since this was last asked, or it was opened? */
bool content_take_fetched(struct content *content);
/* Brings the whole of a small file that nobody waits for, on this thread. Nothing to do, or no room: nothing is done.
 */
void content_fetch_whole(struct contents *contents, uint64_t ino);
/* pread through the above, for those who want a buffer. */
ssize_t content_pread(struct content *content, void *ret_bytes, size_t len, uint64_t offset,
		      const struct waiter *waiter);

/* For uploads, on a thread of the transfer pool: brings all of [start, end) into the cache file, and nothing else. */
int content_bring(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter);
/* From now on `arrived` (NULL: nothing) grows by what is fetched of it. Whoever uploads a version counts for himself.
 */
void content_count_fetched(struct content *content, _Atomic uint64_t *arrived);
/* pread of exactly len bytes below the end of the file; what is there is read without a thought of reading ahead. 0 or
 * -errno. */
int content_pread_all(struct content *content, void *ret_bytes, size_t len, uint64_t offset,
		      const struct waiter *waiter);

/* Writes `len` bytes from whoever `fill` gets them (it is called with the cache descriptor, under the lock, and
 * returns the bytes written or -errno). Returns that. */
typedef ssize_t (*content_fill_fn)(void *arg, int fd, uint64_t offset, size_t len);
struct content_write {
	uint64_t offset; /* CONTENT_APPEND: at the end, whatever it is */
	size_t len;
	content_fill_fn fill;
	void *arg;
	const struct waiter *waiter; /* freezing a large version waits for its upload */
};
#define CONTENT_APPEND UINT64_MAX
ssize_t content_write(struct content *content, const struct content_write *request);
int content_truncate(struct content *content, uint64_t size, const struct waiter *waiter);
/* For truncate(2), which no handle makes: the same as a close, unless a writer is amid his changes, whose last close it
 * is left to. One who has changed nothing yet, or whose release is still to come, is none. */
int content_truncate_closed(struct content *content, uint64_t size, uint32_t author, const struct waiter *waiter);
/*
 * For copy_file_range(2): the end of the file becomes [offset, offset + len) of `from` without its bytes, which stay in
 * the version that `from` has them from; the upload lets the store copy them. For what is large and lies at one offset
 * in both, behind nothing that is not from there, too. Returns how much that is; 0: it has to be copied as it is. What
 * is here of the bytes comes along.
 */
ssize_t content_refer(struct content *content, struct content *from, uint64_t offset, uint64_t len,
		      const struct waiter *waiter);
/* fallocate(2) modes 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE (with or without KEEP_SIZE). */
int content_allocate(struct content *content, int mode, uint64_t offset, uint64_t len, const struct waiter *waiter);
/* SEEK_DATA and SEEK_HOLE: the offset or -ENXIO. Absent ranges count as data. */
off_t content_seek(struct content *content, uint64_t offset, int whence);

/* utimens of an open file: the next version carries it, and later writes set it anew. */
void content_set_mtime(struct content *content, int64_t mtime);

/* A file just created, or O_TRUNC'd: it gets a version at close even if nothing is written. */
int content_mark_new(struct content *content);

/* A writer came or went. The last one makes the version of what was changed, in the same step: nobody can have begun to
 * change it anew meanwhile. */
void content_writer_came(struct content *content);
int content_writer_gone(struct content *content, uint32_t author);

/* A close() acknowledges: size, mtime and extent are in the journal when it returns. Nothing to do: 0. */
int content_flush(struct content *content, uint32_t author);
/* fsync=disk: the cache file is on the platter, then the journal. */
int content_sync_disk(struct content *content);

/*
 * Who sends the parts of a large file while it still grows (ahead.c) is told, under the content's lock:
 *   grown      at its end, without a version yet, by a part's size or more since content_take_ahead or the last call
 *   committed  its bytes are version `seq` now; of those taken, `rewritten` were written again since (NULL: all may be)
 *   changing   the newest version's bytes are about to change in this file
 *   discarded  no version will ever be made of it
 */
struct contents_watch {
	void (*grown)(void *arg, struct content *content, uint64_t ino, uint64_t size);
	void (*committed)(void *arg, uint64_t ino, uint64_t seq, const struct ranges *rewritten);
	void (*changing)(void *arg, uint64_t ino);
	void (*discarded)(void *arg, uint64_t ino);
	void *arg;
};
/* NULL: nobody any more. Must live as long as it is set. */
void contents_watch(struct contents *contents, const struct contents_watch *watch);
/* Before bytes below `end` are read to be sent. -ESTALE: there is a version, or the file is shorter. */
int content_take_ahead(struct content *content, uint64_t end);
/* No more calls of `grown` until there is a version. */
void content_stop_ahead(struct content *content);

/* Makes a version of the changes since the last, if any: 0 and its seq, or that of the newest version when there was no
 * change (0: never had one). Unlinked files make none. */
int content_commit(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq);
/* For changes that no handle made: the same as a close, unless somebody has the file open for writing by now, whose
 * last close it is left to. */
int content_commit_closed(struct content *content, uint32_t author);

/*
 * The kernel sends RELEASE when it likes, so a close() that returned may not have made its version yet. Whoever is
 * about to change the content, take its name away or show its history calls this first: changes that a close()
 * acknowledged and nobody went on with become their version now. Nothing in use or nothing to do is success.
 */
int content_settle(struct contents *contents, uint64_t ino);

/* Files that content_settle would make a version of: work that the journal has no job for yet. */
uint64_t contents_unsettled(struct contents *contents);

/* The upload of version `seq` is in the store as `copy`: one update with job's end; frees what was frozen for it. */
int content_stored(struct contents *contents, uint64_t ino, uint64_t seq, uint64_t job, const struct cat_copy *copy);

/* The file has no name and no handle: its cache goes. */
void content_forget(struct contents *contents, uint64_t ino);

/* The same, if it has no name any more. */
void content_forget_unnamed(struct contents *contents, uint64_t ino);

/* What an uploader must know of the version's content it holds. */
struct content_plan {
	uint64_t size;
	uint64_t base;       /* seq, 0: none */
	uint64_t base_limit; /* below it, absent bytes are in base's copy */
	struct ranges dirty;
	struct cat_copy copy; /* of base; key NULL when there is none */
};
int content_plan(struct content *content, struct content_plan *ret_plan);
/* Are bytes of it gone for good: absent here, and the store has the version no more that they are in? */
bool content_is_missing_bytes(struct content *content);
void content_plan_clear(struct content_plan *plan);

/* At mount, before anything runs: contents of files found CAT_DIRTY become versions (origin close when their close was
 * acknowledged, else recovered); leftovers of files without a name are dropped. ret_recovered: versions made. */
int contents_recover(struct contents *contents, uint64_t *ret_recovered);

/* When the kernel is gone: what is still open, or closed without its release having come, becomes versions. */
void contents_commit_all(struct contents *contents);

/* Wakes whoever waits in content_write for an upload. */
void contents_wake(struct contents *contents);

#endif
