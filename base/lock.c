/*
 * lock.c - ranked mutexes.
 *
 * Invariant (checked unless NDEBUG): the ranks a thread holds are distinct and
 * each was greater than all others held when it was acquired. They are kept as
 * one bit per rank in a word of the thread, so that a check is one comparison.
 * Release may come in any order.
 */
#include "lock.h"
#include "clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(LOCK_LEAF < 32, "a rank is a bit of a 32-bit word");

#ifndef NDEBUG
static _Thread_local uint32_t held_ranks;

static void rank_push(const struct lock *lock)
{
	if (held_ranks >> lock->rank) {
		(void)fprintf(stderr, "varve: lock of rank %d acquired while holding ranks %#x\n", (int)lock->rank,
			      held_ranks);
		abort();
	}
	held_ranks |= UINT32_C(1) << lock->rank;
}

static void rank_pop(const struct lock *lock)
{
	assert(held_ranks & UINT32_C(1) << lock->rank);
	held_ranks &= ~(UINT32_C(1) << lock->rank);
}
#else
static void rank_push(const struct lock *lock)
{
	(void)lock;
}

static void rank_pop(const struct lock *lock)
{
	(void)lock;
}
#endif

/* The calls below fail only when a lock is misused, and going on without mutual exclusion would corrupt data. */
static void must(int error, const char *what)
{
	if (error) {
		(void)fprintf(stderr, "varve: %s: %s\n", what, strerror(error));
		abort();
	}
}

void lock_init(struct lock *lock, enum lock_rank rank)
{
	assert(rank >= LOCK_SESSION && rank <= LOCK_LEAF);
	must(pthread_mutex_init(&lock->mutex, NULL), "pthread_mutex_init");
	lock->rank = rank;
}

void lock_destroy(struct lock *lock)
{
	must(pthread_mutex_destroy(&lock->mutex), "pthread_mutex_destroy");
}

void lock_acquire(struct lock *lock)
{
	rank_push(lock);
	must(pthread_mutex_lock(&lock->mutex), "pthread_mutex_lock");
}

void lock_release(struct lock *lock)
{
	rank_pop(lock); /* first: once it is unlocked its owner may free it */
	must(pthread_mutex_unlock(&lock->mutex), "pthread_mutex_unlock");
}

/* While it waits the thread counts as holding the lock: it can acquire nothing else meanwhile. */
int lock_wait(struct lock *lock, pthread_cond_t *cond, int64_t deadline_ns)
{
	struct timespec deadline = clock_to_timespec(deadline_ns);
	int error;

	if (deadline_ns == 0)
		error = pthread_cond_wait(cond, &lock->mutex);
	else
		error = pthread_cond_timedwait(cond, &lock->mutex, &deadline);
	if (error == ETIMEDOUT)
		return -ETIMEDOUT;
	must(error, "pthread_cond_wait");
	return 0;
}

void lock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	must(pthread_condattr_init(&attributes), "pthread_condattr_init");
	must(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC), "pthread_condattr_setclock");
	must(pthread_cond_init(cond, &attributes), "pthread_cond_init");
	must(pthread_condattr_destroy(&attributes), "pthread_condattr_destroy");
}
