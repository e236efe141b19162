/* Unit tests of base/lock.c. */
#include "lock.h"
#include "clock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static struct lock session_lock = LOCK_INITIALIZER(LOCK_SESSION);
static struct lock queue_lock = LOCK_INITIALIZER(LOCK_QUEUE);
static struct lock leaf_lock = LOCK_INITIALIZER(LOCK_LEAF);

Test(lock, upwards_in_rank_and_released_in_any_order)
{
	for (int i = 0; i < 2; i++) {
		lock_acquire(&session_lock);
		lock_acquire(&queue_lock);
		lock_acquire(&leaf_lock);
		lock_release(&queue_lock);
		lock_release(&session_lock);
		lock_release(&leaf_lock);
	}
	lock_acquire(&session_lock);
	cr_assert_eq(pthread_mutex_trylock(&session_lock.mutex), EBUSY);
	lock_release(&session_lock);
	cr_assert_eq(pthread_mutex_trylock(&session_lock.mutex), 0);
	pthread_mutex_unlock(&session_lock.mutex);
}

/* The message of an abort that is expected is no news. */
static void quiet(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dup2(null, STDERR_FILENO);
}

Test(lock, downwards_in_rank_aborts, .signal = SIGABRT)
{
	quiet();
	lock_acquire(&queue_lock);
	lock_acquire(&session_lock);
}

Test(lock, two_of_one_rank_abort, .signal = SIGABRT)
{
	struct lock other;

	quiet();
	lock_init(&other, LOCK_SESSION);
	lock_acquire(&session_lock);
	lock_acquire(&other);
}

Test(lock, releasing_what_is_not_held_aborts, .signal = SIGABRT)
{
	quiet();
	lock_release(&session_lock);
}

Test(lock, rank_is_free_again_after_a_release_out_of_order)
{
	lock_acquire(&session_lock);
	lock_acquire(&leaf_lock);
	lock_release(&session_lock);
	lock_release(&leaf_lock);
	lock_acquire(&session_lock);
	lock_acquire(&queue_lock);
	lock_release(&queue_lock);
	lock_release(&session_lock);
}

static int guarded(int early)
{
	LOCK_GUARD(&session_lock);
	if (early)
		return 1;
	LOCK_GUARD(&queue_lock);
	return 2;
}

Test(lock, guard_releases_on_every_way_out)
{
	cr_assert_eq(guarded(1), 1);
	cr_assert_eq(guarded(0), 2);
	cr_assert_eq(guarded(1), 1);
	lock_acquire(&session_lock);
	lock_release(&session_lock);
}

static struct counter {
	struct lock lock;
	pthread_cond_t changed;
	int value; /* guarded by lock */
} counter;

#define THREADS 4
#define ROUNDS 10000

static void *count_up(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		LOCK_GUARD(&counter.lock);
		counter.value++;
	}
	return NULL;
}

Test(lock, excludes)
{
	pthread_t threads[THREADS];

	lock_init(&counter.lock, LOCK_LEAF);
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, count_up, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(counter.value, THREADS * ROUNDS);
	lock_destroy(&counter.lock);
}

Test(lock, wait_ends_at_its_deadline)
{
	int64_t start = clock_monotonic();
	int64_t deadline = start + 50 * NS_PER_MS;
	int res;

	lock_init(&counter.lock, LOCK_LEAF);
	lock_cond_init(&counter.changed);
	lock_acquire(&counter.lock);
	do
		res = lock_wait(&counter.lock, &counter.changed, deadline);
	while (res == 0); /* woken for nothing */
	lock_release(&counter.lock);
	cr_assert_eq(res, -ETIMEDOUT);
	cr_assert_geq(clock_monotonic(), deadline);
	cr_assert_lt(clock_monotonic(), start + 30 * NS_PER_SEC);
}

static void *signal_once(void *arg)
{
	(void)arg;
	LOCK_GUARD(&counter.lock);
	counter.value = 1;
	pthread_cond_signal(&counter.changed);
	return NULL;
}

Test(lock, wait_is_woken_with_and_without_deadline)
{
	lock_init(&counter.lock, LOCK_LEAF);
	lock_cond_init(&counter.changed);
	for (int round = 0; round < 2; round++) {
		int64_t deadline = round ? clock_monotonic() + 60 * NS_PER_SEC : 0;
		pthread_t thread;

		lock_acquire(&counter.lock);
		counter.value = 0;
		cr_assert_eq(pthread_create(&thread, NULL, signal_once, NULL), 0);
		while (!counter.value)
			cr_assert_eq(lock_wait(&counter.lock, &counter.changed, deadline), 0);
		lock_release(&counter.lock);
		pthread_join(thread, NULL);
	}
}
