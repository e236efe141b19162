/*
 * pace.h - a token bucket: so many units a second, waited for on the caller's thread.
 *
 * Thread-safe. Callers are served in the order in which they asked.
 */
#ifndef VARVE_PACE_H
#define VARVE_PACE_H

#include "lock.h"
#include "varve/backend.h"

struct pace {
	struct lock lock;
	uint64_t per_second; /* 0: no limit; constant after pace_init */
	int64_t burst_ns;    /* unused time that may be caught up on; constant */
	int64_t next_ns;     /* CLOCK_MONOTONIC at which the bucket is empty of debts; guarded by lock */
};

void pace_init(struct pace *pace, uint64_t per_second, int64_t burst_ns);
void pace_destroy(struct pace *pace);
/* Waits for its turn. 0, -ETIMEDOUT when the call's deadline comes first, -ECANCELED. */
int pace_wait(struct pace *pace, uint64_t units, const struct call *call);

/* Sleeps until then (CLOCK_MONOTONIC), with an eye on the call. 0, -ETIMEDOUT, -ECANCELED. */
int pace_sleep_until(int64_t until_ns, const struct call *call);

bool call_cancelled(const struct call *call);

#endif
