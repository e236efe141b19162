/*
 * retention.h - jobs that remove pruned versions from the store, and tell it which versions it must not let go.
 *
 * Thread-safe: no state. Runs on pool threads, below placement_run.
 */
#ifndef VARVE_FS_RETENTION_H
#define VARVE_FS_RETENTION_H

#include "catalog.h"
#include "transfer.h"

struct retention {
	struct catalog *catalog;
	struct transfer *transfer;
	struct call call; /* deadline and cancellation of this run */
};

/*
 * CAT_JOB_PRUNE: removes every copy for good, then the job. A store that
 * refuses (a lock we did not know of) gets its way: the version is as before,
 * and 0 is returned. 0 or -errno with *err.
 */
int retention_prune(const struct retention *retention, const struct cat_job *job, struct err *err);

/* CAT_JOB_LOCK: what the catalog says about the version's protection is said to the store, if that can enforce it. */
int retention_lock(const struct retention *retention, const struct cat_job *job, struct err *err);

#endif
