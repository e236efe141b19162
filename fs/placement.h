/*
 * placement.h - what one job does to the store.
 *
 * Each function brings the store to what the catalog says now, whatever it
 * found, and ends in the one catalog update that makes the job done. Running
 * one again, after a crash at any point, does no harm.
 * Thread-safe; writeback.c sees to it that jobs on one inode or key run one
 * at a time, in order of commit.
 */
#ifndef VARVE_FS_PLACEMENT_H
#define VARVE_FS_PLACEMENT_H

#include "catalog.h"
#include "err.h"

struct ahead;
struct contents;
struct lease;
struct placement;
struct transfer;

/* What an upload met of others' doing. On a pool thread, without locks; each may be NULL. */
struct placement_others {
	/* The newest version of `ino` had to stand aside: its names are to be listed anew. */
	void (*contested)(void *arg, uint64_t ino);
	/* Written without a condition on a store with versions: something of others may lie beneath. */
	void (*overwrote)(void *arg, uint64_t ino);
	void *arg;
};

struct placement_options {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	struct ahead *ahead; /* NULL: nothing is sent ahead */
	struct placement_others others;
};
int placement_new(const struct placement_options *options, struct placement **ret_placement);
void placement_free(struct placement *placement);
/* Running jobs end soon, as failed, and so does all that are run later: before the end of the mount. */
void placement_cancel(struct placement *placement);

/*
 * Hashes of what the job touches: the inode and the keys it reads, writes or
 * removes. They follow from names, so they hold until the next rename. Of a
 * file with very many hard links the youngest are left out.
 */
#define PLACEMENT_CLAIMS 8
struct placement_claims {
	uint64_t hashes[PLACEMENT_CLAIMS];
	unsigned count;
};
void placement_claims(struct placement *placement, struct cat_job *job, struct placement_claims *ret_claims);

enum placement_history { PLACEMENT_FIRST, PLACEMENT_AGAIN };
/* How far a job has come, for who watches it. Neither grows by what a failing call moves again and again. */
struct placement_progress {
	_Atomic uint64_t moved;   /* bytes, by calls of this attempt */
	_Atomic uint64_t fetched; /* bytes of the file that were not here, by all attempts */
};
struct placement_attempt {
	const struct placement_claims *claims;
	enum placement_history history; /* AGAIN: an earlier process or attempt may have sent it already */
	struct placement_progress *progress;
};
/* The job may be deleted when this returns 0. -EAGAIN: names have changed since the claims, and nothing was done. */
int placement_run(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
		  struct err *err);

/* Uploads that met somebody else's object, since the beginning. */
uint64_t placement_conflicts(struct placement *placement);
/* Facts of objects begun before their version that were put so far (fs/facts.h). */
uint64_t placement_facts_put(struct placement *placement);

/* Capabilities of the store may have changed (versioning switched). */
void placement_reprobe(struct placement *placement, struct err *err);

#endif
