/* content_internal.h - struct content, for content.c (changes, commits), fetch.c (absent ranges) and contents.c (who is
 * in use, eviction) and recover.c (after a crash) alone. */
#ifndef VARVE_FS_CONTENT_INTERNAL_H
#define VARVE_FS_CONTENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "fs/cache.h"
#include "fs/content.h"
#include "fs/readahead.h"
#include "table.h"

struct contents {
	struct catalog *catalog;
	struct transfer *transfer;
	struct cache *cache;
	int64_t read_timeout_ns;
	uint8_t boot_id[16];
	atomic_bool cancelled;
	atomic_uint streams;    /* readers in sequence, of all contents: they share what may be fetched ahead */
	_Atomic int64_t rtt_ns; /* how long the store takes for a small range, at best; 0: not known */
	bool (*gone)(void *arg, const struct cat_gone *gone, const atomic_bool *cancelled); /* may be NULL */
	void *gone_arg;
	bool (*uploading)(void *arg, uint64_t *ret_moved); /* may be NULL */
	void *uploading_arg;
	int64_t stalled_ns;
	uint64_t refer_least; /* smaller copies carry their bytes */
	/* Contents off the table whose last user is not done with it. Grows under lock; what shrinks it touches nothing
	 * of ours any more. */
	atomic_uint leaving;
	struct lock lock;
	struct table table;  /* guarded by lock, as is what follows */
	struct list watched; /* backing.c: loose contents without a writer, each with a reference */
	bool watching, stop_watching;
	pthread_t watcher;
	pthread_cond_t watch_cond;
	_Atomic uint64_t pinned;      /* bytes of contents that the kernel reads itself */
	atomic_bool tells, tells_not; /* neither: not tried yet; see backing.c */

	struct lock meter_lock; /* guards what follows: how fast the store sends, of large ranges */
	unsigned meter_running;
	int64_t meter_began_ns, meter_busy_ns;
	uint64_t meter_bytes;

	const struct contents_watch *_Atomic watch;
};

struct content {
	struct table_node node;
	uint64_t id;       /* name of the cache file, see cache.h */
	uint64_t ino, seq; /* seq 0: the live file */
	struct contents *owner;
	unsigned refs; /* guarded by owner->lock */

	struct lock lock;    /* guards all below */
	pthread_cond_t cond; /* bytes arrived, an upload ended, io came to 0 */
	bool loaded;
	int fd; /* the cache file. Of a frozen version it may be swapped while io == 0 */
	uint64_t size;
	int64_t mtime, ctime;
	struct ranges present, dirty;
	uint64_t base, base_limit;
	uint64_t base_ino, base_after; /* of struct cat_extent: the base may be another file's version */
	struct cat_copy copy;          /* of base; key NULL: none */
	uint64_t base_size;
	uint32_t base_crc32c;
	bool base_has_crc32c;
	bool gone;                /* the store no longer has base, and no other copy is known */
	uint64_t shared;          /* seq of the version whose cache file is a second name of ours; 0: none */
	bool changed;             /* since the newest version */
	_Atomic uint64_t changes; /* begun, ever. Written under the lock, read by take_along without */
	bool flushed;             /* the journal has all of `changed` */
	bool stale;               /* the extent record says less than we have */
	bool synced;              /* fdatasync came after the last write */
	bool discarded;           /* no name, no future: nothing is written down any more */
	bool lost;                /* the cache file is gone with changes in it: no byte is known until O_TRUNC */
	unsigned writers;
	uint32_t author;     /* who closed it last */
	unsigned io;         /* readers of fd between begin and done, … */
	struct range *io_at; /* … and what each of them reads; io of io_room */
	size_t io_room;
	bool swapping;        /* fd is about to change: new readers wait */
	bool promised;        /* fsync=disk acknowledged some of `changed`: no record may say less until the commit */
	uint64_t unjournaled; /* bytes written since the extent record was */
	int64_t journaled;    /* when that was, while `changed` */

	struct list fetches;         /* in flight */
	struct list readers;         /* who waits for bytes; fetch.c's */
	unsigned fetching;           /* how many fetches */
	unsigned settling;           /* who waits on cond until a fetch is not writing where they will change bytes */
	unsigned failures;           /* fetches that failed, ever */
	struct range failed;         /* what the last one was to bring */
	int failure;                 /* -errno of the last one */
	int64_t gave_up_ns;          /* monotonic: when a reader waited in vain for the last time; 0: never */
	bool fetched;                /* some of it, see content_take_fetched */
	_Atomic uint64_t *arrived;   /* see content_count_fetched */
	uint64_t unsaved;            /* fetched since the extent record was written */
	uint64_t evict_at;           /* eviction goes round the file from here */
	struct readahead *readahead; /* of a file larger than FETCH_WHOLE_MAX, from its first read on */
	unsigned streams;            /* our share of owner->streams */
	uint64_t speculated_to;      /* see fetch.c */

	/* backing.c */
	unsigned cached, uncached, backed; /* handles, by mode (backing.h): beside one that is backed none is another */
	int backing_id;                    /* while backed */
	uint64_t pinned;                   /* of owner->pinned */
	bool loose;                        /* a mapping may store into the cache file past us */
	bool stored;                       /* while loose: something was, since the newest version */
	int64_t seen_mtime;                /* while loose: of the cache file */
	bool watched;
	struct list watch_node; /* guarded by owner->lock */

	bool ahead_off;          /* it is not, or no more, a new file that grows at its end */
	uint64_t told_ahead;     /* size at the last call of watch->grown */
	uint64_t taken_ahead;    /* bytes below were or are being read to be sent */
	struct ranges rewritten; /* of these, written again since */
	bool all_rewritten;      /* there was no memory to note it */
};

/* All with content->lock held. */
void content_extent(const struct content *content, struct cat_extent *ret_extent); /* borrows the ranges */
int content_load(struct content *content);
int content_lengthen(const struct content *content);
int content_keep_named(struct content *content);
int content_load_copy(struct content *content);
/* From now on the base is its own version `seq`, of which it is all. */
void content_base_on(struct content *content, uint64_t seq);
/* Whose version the base is. */
static inline uint64_t content_base_ino(const struct content *content)
{
	return content->base_ino ? content->base_ino : content->ino;
}
int content_wait_present(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter);
void content_discard_locked(struct content *content);
/* Before the cache file goes: a version that waits keeps the bytes, under a name and with a record of its own. */
int content_leave_to_version(struct content *content);
/* No name: its bytes live as long as its handles, no longer. Unless it was others who took the name: whoever had the
 * file open for writing did not give his changes up. */
static inline bool content_has_no_future(const struct cat_inode *inode)
{
	return !inode->nlink && !(inode->flags & CAT_TAKEN);
}
/* Objects up to this size are fetched in one piece, and their checksum is compared. */
#define FETCH_WHOLE_MAX (UINT64_C(4) << 20)

/* What eviction leaves: adds the ranges being fetched, waited for and read; with readahead what readers come to next.
 */
enum fetch_keep { FETCH_KEEP_AHEAD, FETCH_KEEP_NEEDED };
int fetch_keep(const struct content *content, enum fetch_keep what, struct ranges *kept);
/* The file is cut at `size`: fetches under way bring nothing past it any more. */
void fetch_cut(struct content *content, uint64_t size);
/* Is a fetch writing into [start, end) of the cache file now? It does so without the lock, see fetch.c. */
bool fetch_is_writing(const struct content *content, uint64_t start, uint64_t end);

/* For backing.c: what content.c does itself around a change and a commit. */
int content_modify_begin(struct content *content);
/* own_fd: a file without a name that becomes the version's; -1: the version shares ours. */
int content_commit_locked(struct content *content, enum cat_origin origin, uint32_t author, int own_fd,
			  uint64_t *ret_seq);
int content_freeze_now(struct content *content);
int content_newest(struct content *content, uint64_t *ret_seq);

/* The extent record becomes what is known now; or that of another cache file with the same bytes. */
int content_save(struct content *content);
int content_save_as(struct content *content, uint64_t id);

/* In very many pieces, it gives up half of what is clean: the extent record must not grow for ever. Locked. */
void content_thin(struct content *content);
/* A referenced content that is in use, by cache number; NULL else. */
struct content *contents_peek_id(struct contents *contents, uint64_t id);
/* The cache file of one that is not loaded, and cannot be meanwhile, goes if all of it is in the store. */
bool contents_drop_idle(struct contents *contents, uint64_t id);
/* The live content, loaded or not. NULL: no memory. */
struct content *contents_reach(struct contents *contents, uint64_t ino);

#endif
