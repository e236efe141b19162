/* content_internal.h - struct content, for content.c (changes, commits), fetch.c (absent ranges) and contents.c (who is
 * in use, eviction) and recover.c (after a crash) alone. */
#ifndef VARVE_FS_CONTENT_INTERNAL_H
#define VARVE_FS_CONTENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "fs/cache.h"
#include "fs/content.h"
#include "table.h"

struct contents {
	struct catalog *catalog;
	struct transfer *transfer;
	struct cache *cache;
	int64_t read_timeout_ns;
	uint8_t boot_id[16];
	atomic_bool cancelled;
	bool (*gone)(void *arg, const struct cat_gone *gone, const atomic_bool *cancelled); /* may be NULL */
	void *gone_arg;
	struct lock lock;
	struct table table; /* guarded by lock */
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
	struct cat_copy copy; /* of base; key NULL: none */
	uint64_t base_size;
	uint32_t base_crc32c;
	bool base_has_crc32c;
	bool gone;       /* the store no longer has base, and no other copy is known */
	uint64_t shared; /* seq of the version whose cache file is a second name of ours; 0: none */
	bool changed;    /* since the newest version */
	bool flushed;    /* the journal has all of `changed` */
	bool stale;      /* the extent record says less than we have */
	bool synced;     /* fdatasync came after the last write */
	bool discarded;  /* no name, no future: nothing is written down any more */
	unsigned writers;
	uint32_t author;      /* who closed it last */
	unsigned io;          /* readers of fd between begin and done */
	bool swapping;        /* fd is about to change: new readers wait */
	bool promised;        /* fsync=disk acknowledged some of `changed`: no record may say less until the commit */
	uint64_t unjournaled; /* bytes written since the extent record was */
	int64_t journaled;    /* when that was, while `changed` */

	struct list fetches; /* in flight */
	unsigned fetching;   /* how many */
	unsigned failures;   /* fetches that failed, ever */
	uint64_t failed_at;  /* where the last one began */
	int failure;         /* -errno of the last one */
	int64_t gave_up_ns;  /* monotonic: when a reader waited in vain for the last time; 0: never */
	uint64_t read_next;  /* where a sequential reader would go on */
	uint64_t window;     /* bytes to fetch ahead of it */
};

/* All with content->lock held. */
void content_extent(const struct content *content, struct cat_extent *ret_extent); /* borrows the ranges */
int content_load(struct content *content);
int content_lengthen(const struct content *content);
int content_load_copy(struct content *content);
int content_wait_present(struct content *content, uint64_t start, uint64_t end, const struct waiter *waiter);
void content_discard_locked(struct content *content);
/* Adds the ranges being fetched. */
int content_spare_in_flight(const struct content *content, struct ranges *kept);

/* The extent record becomes what is known now; or that of another cache file with the same bytes. */
int content_save(struct content *content);
int content_save_as(struct content *content, uint64_t id);

void contents_boot_id(uint8_t ret_id[static 16]);
/* A referenced content that is in use, by cache number; NULL else. */
struct content *contents_peek_id(struct contents *contents, uint64_t id);

#endif
