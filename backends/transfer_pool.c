/*
 * transfer_pool.c - the threads that run transfer tasks, by class.
 *
 * Invariants, with n threads: tasks that are not urgent run on at most n - 2 of them, background tasks on at most half,
 * but no more than BACKGROUND_ENOUGH or a quarter, or, while wide, on three quarters; one background task always gets
 * its turn before further normal ones, so none of the classes starves. A task is either in a queue, or its runner's; a
 * queued task of a closing pool is dropped, exactly once.
 *
 * Threads: all state but background_max is guarded by the pool's lock (LOCK_TRANSFER); tasks run, and are dropped,
 * without it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "cleanup.h"
#include "lock.h"
#include "transfer_retry.h"

#define POOL_CLASSES (TRANSFER_BACKGROUND + 1)
#define BACKGROUND_ENOUGH 16u /* at once, for a store that answers soon */

struct transfer_pool {
	unsigned size;    /* threads wanted; constant */
	unsigned started; /* threads there are; constant after transfer_pool_new */
	_Atomic unsigned background_max;
	struct lock lock;
	pthread_cond_t work; /* something may have become runnable, or stopping */
	struct list queues[POOL_CLASSES];
	unsigned queued;
	unsigned running[POOL_CLASSES];
	bool stopping;
	pthread_t threads[];
};

static bool class_has_room(const struct transfer_pool *pool, enum transfer_class class)
{
	unsigned relaxed = pool->running[TRANSFER_NORMAL] + pool->running[TRANSFER_BACKGROUND];
	unsigned relaxed_max = pool->size > 3 ? pool->size - 2 : (pool->size > 1 ? pool->size - 1 : 1);
	if (class == TRANSFER_URGENT)
		return true;
	if (relaxed >= relaxed_max)
		return false;
	return class == TRANSFER_NORMAL || pool->running[TRANSFER_BACKGROUND] < pool->background_max;
}

static bool class_is_ready(const struct transfer_pool *pool, enum transfer_class class)
{
	return !list_empty(&pool->queues[class]) && class_has_room(pool, class);
}

/* The class to serve next, or POOL_CLASSES. */
static unsigned pick_class(const struct transfer_pool *pool)
{
	if (class_is_ready(pool, TRANSFER_URGENT))
		return TRANSFER_URGENT;
	if (pool->running[TRANSFER_BACKGROUND] == 0 && pool->running[TRANSFER_NORMAL] > 0 &&
	    class_is_ready(pool, TRANSFER_BACKGROUND))
		return TRANSFER_BACKGROUND;
	if (class_is_ready(pool, TRANSFER_NORMAL))
		return TRANSFER_NORMAL;
	return class_is_ready(pool, TRANSFER_BACKGROUND) ? TRANSFER_BACKGROUND : POOL_CLASSES;
}

/* The next task, counted as running; NULL: the pool is closing. */
static struct transfer_task *pool_next(struct transfer_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	for (;;) {
		if (pool->stopping)
			return NULL;
		unsigned class = pick_class(pool);
		if (class < POOL_CLASSES) {
			struct list *node = pool->queues[class].next;
			list_remove(node);
			pool->queued--;
			pool->running[class]++;
			/* Room that this thread made, or left, may be another's. */
			if (pick_class(pool) < POOL_CLASSES)
				pthread_cond_signal(&pool->work);
			return list_entry(node, struct transfer_task, node);
		}
		(void)lock_wait(&pool->lock, &pool->work, 0);
	}
}

static void pool_done(struct transfer_pool *pool, enum transfer_class class)
{
	LOCK_GUARD(&pool->lock);
	pool->running[class]--;
}

static void *pool_main(void *arg)
{
	struct transfer_pool *pool = arg;
	struct transfer_task *task;
	while ((task = pool_next(pool))) {
		enum transfer_class class = task->class; /* the task may be gone once it has run */
		task->run(task);
		pool_done(pool, class);
	}
	return NULL;
}

/* Signals are the session's business: none may land on a transfer thread. */
static int pool_start(struct transfer_pool *pool)
{
	sigset_t all, before;
	(void)sigfillset(&all);
	int r = pthread_sigmask(SIG_SETMASK, &all, &before);
	if (r != 0)
		return -r;
	while (r == 0 && pool->started < pool->size) {
		r = pthread_create(&pool->threads[pool->started], NULL, pool_main, pool);
		if (r == 0)
			pool->started++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL); /* just read from here */
	return -r;
}

void transfer_pool_widen(struct transfer_pool *pool, bool wide)
{
	unsigned half = pool->size / 2, quarter = pool->size / 4;
	unsigned most = wide ? pool->size - quarter : half;

	if (!wide && half > BACKGROUND_ENOUGH)
		most = quarter > BACKGROUND_ENOUGH ? quarter : BACKGROUND_ENOUGH;
	pool->background_max = most ? most : 1;
}

int transfer_pool_new(unsigned threads, struct transfer_pool **ret_pool)
{
	struct transfer_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	if (!pool)
		return -ENOMEM;
	pool->size = threads;
	transfer_pool_widen(pool, false);
	lock_init(&pool->lock, LOCK_TRANSFER);
	lock_cond_init(&pool->work);
	for (size_t i = 0; i < POOL_CLASSES; i++)
		list_init(&pool->queues[i]);
	int r = pool_start(pool);
	if (r < 0) {
		transfer_pool_free(pool);
		return r;
	}
	*ret_pool = pool;
	return 0;
}

/* A queued task, taken out; NULL when there is none. */
static struct transfer_task *pool_drop_one(struct transfer_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	for (size_t i = 0; i < POOL_CLASSES; i++) {
		if (list_empty(&pool->queues[i]))
			continue;
		struct list *node = pool->queues[i].next;
		list_remove(node);
		pool->queued--;
		return list_entry(node, struct transfer_task, node);
	}
	return NULL;
}

void transfer_pool_free(struct transfer_pool *pool)
{
	struct transfer_task *task;
	{
		LOCK_GUARD(&pool->lock);
		pool->stopping = true;
		pthread_cond_broadcast(&pool->work);
	}
	/* Before joining: a running task may wait for queued ones of its own. */
	while ((task = pool_drop_one(pool)))
		task->dropped(task);
	for (unsigned i = 0; i < pool->started; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->work);
	lock_destroy(&pool->lock);
	free(pool);
}

void transfer_pool_submit(struct transfer_pool *pool, struct transfer_task *task)
{
	bool stopping;
	{
		LOCK_GUARD(&pool->lock);
		stopping = pool->stopping;
		if (!stopping) {
			list_add_tail(&pool->queues[task->class], &task->node);
			pool->queued++;
			pthread_cond_signal(&pool->work);
		}
	}
	if (stopping) {
		list_init(&task->node);
		task->dropped(task);
	}
}

bool transfer_pool_withdraw(struct transfer_pool *pool, struct transfer_task *task)
{
	LOCK_GUARD(&pool->lock);
	if (list_empty(&task->node))
		return false;
	list_remove(&task->node);
	pool->queued--;
	return true;
}

unsigned transfer_pool_threads(const struct transfer_pool *pool)
{
	return pool->size;
}

void transfer_pool_count(struct transfer_pool *pool, unsigned *ret_queued, unsigned *ret_running)
{
	LOCK_GUARD(&pool->lock);
	*ret_queued = pool->queued;
	*ret_running = 0;
	for (size_t i = 0; i < POOL_CLASSES; i++)
		*ret_running += pool->running[i];
}
