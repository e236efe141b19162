/*
 * lease.h - one writer: the lease object under `.varve/`, and the id that ties
 * a bucket to a state directory.
 *
 * Whoever mounts for writing holds `.varve/lease`, and its epoch goes into the
 * metadata of everything written. The holder renews it three times within its
 * life and stops touching the store once half of that passed in vain; another
 * machine takes it only after it stood still for a whole life by its own clock.
 * No two clocks are ever compared.
 *
 * Thread-safe.
 */
#ifndef VARVE_FS_LEASE_H
#define VARVE_FS_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "catalog.h"
#include "transfer.h"

struct lease;

#define LEASE_KEY ".varve/lease"
#define LEASE_ID_KEY ".varve/id"

struct lease_options {
	struct catalog *catalog;
	struct transfer *transfer;
	int64_t duration_ns; /* 0: 30 s */
	bool takeover;       /* take it from a living holder */
};

/*
 * Takes the lease; at once when it is free, released, or left by an earlier
 * process of this state directory on this host, else after having watched it
 * for its whole life. A living holder: ERR_CONFLICT, with who it is.
 */
int lease_acquire(const struct lease_options *options, const struct call *call, struct lease **ret_lease,
		  struct err *err);
/* Stops renewing and leaves the lease marked as released, unless it is lost. Best effort: without the store's answer
 * the next one waits, or is we ourselves. */
void lease_release(struct lease *lease, const struct call *call);
/* After lease_release, or instead of it (the object stays as it is). NULL is fine. */
void lease_free(struct lease *lease);

/* May the store be touched now? False once past half of the lease's life without renewal, until renewed. */
bool lease_may_write(const struct lease *lease);
/* Somebody else holds it: for good. */
bool lease_lost(const struct lease *lease);
uint64_t lease_epoch(const struct lease *lease);
/* A holder before us used another state directory, so what our catalog knows is behind the store. Stays true, over
 * restarts too, until lease_caught_up says that the catalog was built anew. */
bool lease_was_foreign(const struct lease *lease);
int lease_caught_up(struct lease *lease);
/* 0; else why writing is not allowed now: ERR_UNAVAILABLE (may come back) or ERR_PRECONDITION (lost for good). */
int lease_check(const struct lease *lease, struct err *err);

enum lease_guarantee {
	LEASE_CONDITIONAL, /* the store decides who holds it */
	LEASE_WEAK,        /* no conditional writes: write, wait, read back */
};
struct lease_figures {
	uint64_t epoch, renewals, failures;
	enum lease_guarantee guarantee;
	int64_t age_ns; /* since the last renewal was sent */
	bool lost;
	char last_error[256]; /* "": the last renewal succeeded */
};
void lease_figures(struct lease *lease, struct lease_figures *ret_figures);

enum lease_identity_mode { LEASE_IDENTITY_READ, LEASE_IDENTITY_CREATE };
/*
 * Does the state directory belong to this store? Compares `.varve/id` with
 * catalog_store_id: a new catalog adopts the bucket's, a new bucket gets one
 * (CREATE only). ERR_CONFIGURATION with one clear line when they do not match,
 * or when the catalog has content of a store and this one has no id.
 */
int lease_check_identity(const struct lease_options *options, enum lease_identity_mode mode, const struct call *call,
			 struct err *err);

#endif
