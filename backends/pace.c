/*
 * pace.c - a token bucket kept as one instant: when the units handed out so far are paid for.
 *
 * Invariant: next_ns never lies further than burst_ns in the past when units are handed out, so an idle bucket holds
 * at most a burst. The lock covers the arithmetic only; the waiting is done outside, each caller until its own instant.
 */
#include "pace.h"

#include <errno.h>
#include <time.h>

#include "clock.h"

#define PACE_SLICE_NS (20 * NS_PER_MS) /* how late a cancellation may be seen */

bool call_cancelled(const struct call *call)
{
	return call && call->cancelled && atomic_load_explicit(call->cancelled, memory_order_relaxed);
}

void pace_init(struct pace *pace, uint64_t per_second, int64_t burst_ns)
{
	lock_init(&pace->lock, LOCK_LEAF);
	pace->per_second = per_second;
	pace->burst_ns = burst_ns;
	pace->next_ns = 0;
}

void pace_destroy(struct pace *pace)
{
	lock_destroy(&pace->lock);
}

static int64_t pace_reserve(struct pace *pace, uint64_t units, int64_t now)
{
	LOCK_GUARD(&pace->lock);
	if (pace->next_ns < now - pace->burst_ns)
		pace->next_ns = now - pace->burst_ns;
	int64_t turn = pace->next_ns;
	pace->next_ns += (int64_t)((double)units / (double)pace->per_second * (double)NS_PER_SEC);
	return turn;
}

int pace_sleep_until(int64_t until_ns, const struct call *call)
{
	for (;;) {
		int64_t now = clock_monotonic();
		if (call_cancelled(call))
			return -ECANCELED;
		if (now >= until_ns)
			return 0;
		if (call && call->deadline_ns && now >= call->deadline_ns)
			return -ETIMEDOUT;
		int64_t slice = until_ns - now < PACE_SLICE_NS ? until_ns - now : PACE_SLICE_NS;
		struct timespec ts = clock_to_timespec(slice);
		(void)nanosleep(&ts, NULL); /* a signal only makes the loop look again */
	}
}

int pace_wait(struct pace *pace, uint64_t units, const struct call *call)
{
	if (pace->per_second == 0)
		return 0;
	return pace_sleep_until(pace_reserve(pace, units, clock_monotonic()), call);
}
