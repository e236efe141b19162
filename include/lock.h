/*
 * lock.h - mutexes with a rank: the whole program's lock order in one enum.
 *
 * A thread may only acquire a lock whose rank is greater than every rank it
 * holds. Builds without NDEBUG assert it (a per-thread set of held ranks).
 * No lock is held across a backend call, a FUSE reply or a wait for either.
 */
#ifndef VARVE_LOCK_H
#define VARVE_LOCK_H

#include <pthread.h>
#include <stdint.h>

enum lock_rank {
	LOCK_SESSION = 1, /* fs/session: the mount in the kernel */
	LOCK_HANDLE,      /* fs/fs: the open handles */
	LOCK_CONTENT,     /* fs/content: data state of one live file */
	LOCK_FROZEN,      /* fs/content: data state of one version of it */
	LOCK_AHEAD,       /* fs/ahead: uploads begun before their version */
	LOCK_CONTENTS,    /* fs/content: number -> struct content */
	LOCK_CACHE_LRU,   /* fs/cache: space accounting */
	LOCK_QUEUE,       /* fs/writeback: the schedule */
	LOCK_CATALOG,     /* catalog/kv: the one writer */
	LOCK_CATALOG_LOG, /* catalog/kv: redo log tail, sync sharing */
	LOCK_TRANSFER,    /* backends/transfer: task queue */
	LOCK_BACKEND,     /* one backend's own state (credentials, connections) */
	LOCK_LEAF,        /* statistics and the like: nothing is acquired under it */
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
};

#define LOCK_INITIALIZER(r)                                                                                            \
	{                                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (r)                                                        \
	}

void lock_init(struct lock *lock, enum lock_rank rank);
void lock_destroy(struct lock *lock);
void lock_acquire(struct lock *lock);
void lock_release(struct lock *lock);

/* Waits on `cond` (made by lock_cond_init: CLOCK_MONOTONIC) until deadline_ns of CLOCK_MONOTONIC; 0 = no deadline.
 * 0 when woken (possibly for nothing), -ETIMEDOUT. */
int lock_wait(struct lock *lock, pthread_cond_t *cond, int64_t deadline_ns);
void lock_cond_init(pthread_cond_t *cond);

static inline void cleanup_lock(struct lock **lock)
{
	if (*lock)
		lock_release(*lock);
}

#define LOCK_JOIN2(a, b) a##b
#define LOCK_JOIN(a, b) LOCK_JOIN2(a, b)
/* Holds the lock until the end of the enclosing block. */
#define LOCK_GUARD(l)                                                                                                  \
	struct lock *LOCK_JOIN(guard_, __LINE__) __attribute__((cleanup(cleanup_lock), unused)) = (l);                 \
	lock_acquire(LOCK_JOIN(guard_, __LINE__))

#endif
