/*
 * transfer_pool.c - classes share the threads as promised, and no task is lost.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "backends/transfer_retry.h"
#include "cleanup.h"

struct probe {
	struct transfer_task task;
	atomic_bool *gate; /* run until it opens */
	atomic_uint *running, *ran, *dropped;
};

static void probe_run(struct transfer_task *task)
{
	struct probe *probe = container_of(task, struct probe, task);
	(*probe->running)++;
	while (!*probe->gate)
		usleep(1000);
	(*probe->running)--;
	(*probe->ran)++;
}

static void probe_dropped(struct transfer_task *task)
{
	(*container_of(task, struct probe, task)->dropped)++;
}

static atomic_bool gate;
static atomic_uint running[3], ran, dropped;

static void submit(struct transfer_pool *pool, struct probe *probe, enum transfer_class class)
{
	*probe = (struct probe){.task = {.class = class, .run = probe_run, .dropped = probe_dropped},
				.gate = &gate,
				.running = &running[class],
				.ran = &ran,
				.dropped = &dropped};
	transfer_pool_submit(pool, &probe->task);
}

static bool becomes(const atomic_uint *value, unsigned wanted)
{
	for (int i = 0; i < 20000 && *value != wanted; i++)
		usleep(1000);
	return *value == wanted;
}

Test(transfer_pool, classes_leave_room_for_each_other, .timeout = 30)
{
	struct transfer_pool *pool;
	struct probe probes[30];
	cr_assert_eq(transfer_pool_new(8, &pool), 0);
	for (int i = 0; i < 10; i++)
		submit(pool, &probes[i], TRANSFER_BACKGROUND);
	cr_assert(becomes(&running[TRANSFER_BACKGROUND], 4), "half of the threads");
	for (int i = 10; i < 20; i++)
		submit(pool, &probes[i], TRANSFER_NORMAL);
	cr_assert(becomes(&running[TRANSFER_NORMAL], 2), "two are left for urgent tasks");
	for (int i = 20; i < 30; i++)
		submit(pool, &probes[i], TRANSFER_URGENT);
	cr_assert(becomes(&running[TRANSFER_URGENT], 2));
	usleep(20 * 1000);
	cr_assert_eq(running[TRANSFER_BACKGROUND], 4);
	cr_assert_eq(running[TRANSFER_NORMAL], 2);
	gate = true;
	cr_assert(becomes(&ran, 30), "%u of 30 ran", (unsigned)ran);
	transfer_pool_free(pool);
	cr_assert_eq(dropped, 0);
}

static unsigned background_at_once(unsigned threads, bool wide, struct probe *probes, unsigned count)
{
	struct transfer_pool *pool;
	unsigned most = 0;

	gate = false;
	ran = 0;
	cr_assert_eq(transfer_pool_new(threads, &pool), 0);
	transfer_pool_widen(pool, wide);
	for (unsigned i = 0; i < count; i++)
		submit(pool, &probes[i], TRANSFER_BACKGROUND);
	for (int i = 0; i < 100; i++) {
		most = running[TRANSFER_BACKGROUND];
		usleep(2000);
	}
	gate = true;
	cr_assert(becomes(&ran, count));
	transfer_pool_free(pool);
	return most;
}

Test(transfer_pool, a_wide_pool_runs_more_in_the_background, .timeout = 30)
{
	struct probe probes[100];

	cr_assert_eq(background_at_once(8, false, probes, 100), 4);
	cr_assert_eq(background_at_once(8, true, probes, 100), 6);
	cr_assert_eq(background_at_once(32, false, probes, 100), 16);
	cr_assert_eq(background_at_once(40, false, probes, 100), 16);
	cr_assert_eq(background_at_once(64, false, probes, 100), 16);
	cr_assert_eq(background_at_once(64, true, probes, 100), 48);
	cr_assert_eq(background_at_once(1, true, probes, 100), 1);
	cr_assert_eq(background_at_once(1, false, probes, 100), 1);
}

Test(transfer_pool, one_thread_serves_all_classes, .timeout = 30)
{
	struct transfer_pool *pool;
	struct probe probes[9];
	gate = true;
	cr_assert_eq(transfer_pool_new(1, &pool), 0);
	for (int i = 0; i < 9; i++)
		submit(pool, &probes[i], (enum transfer_class)(i % 3));
	cr_assert(becomes(&ran, 9));
	transfer_pool_free(pool);
}

static void *open_gate(void *arg)
{
	usleep(50 * 1000);
	gate = true;
	return arg;
}

Test(transfer_pool, withdrawn_tasks_do_not_run_and_closing_drops_the_rest, .timeout = 30)
{
	struct transfer_pool *pool;
	struct probe busy, withdrawn, queued;
	cr_assert_eq(transfer_pool_new(1, &pool), 0);
	submit(pool, &busy, TRANSFER_URGENT);
	cr_assert(becomes(&running[TRANSFER_URGENT], 1));
	submit(pool, &withdrawn, TRANSFER_URGENT);
	submit(pool, &queued, TRANSFER_NORMAL);
	cr_assert(transfer_pool_withdraw(pool, &withdrawn.task));
	cr_assert_not(transfer_pool_withdraw(pool, &withdrawn.task), "it is ours again already");
	cr_assert_not(transfer_pool_withdraw(pool, &busy.task), "it is running");
	unsigned in_queue, in_run;
	transfer_pool_count(pool, &in_queue, &in_run);
	cr_assert(in_queue == 1 && in_run == 1);

	pthread_t opener;
	cr_assert_eq(pthread_create(&opener, NULL, open_gate, NULL), 0);
	transfer_pool_free(pool); /* drops `queued`, waits for `busy` */
	pthread_join(opener, NULL);
	cr_assert_eq(ran, 1);
	cr_assert_eq(dropped, 1);
}
