/*
 * sweep.h - the whole store against the whole catalog, now and then.
 *
 * A directory is compared with the store when somebody looks at it; what nobody
 * looks at is found here: objects and versions that other programs made, and
 * what they or lifecycle rules removed. What differs is handed to reconcile,
 * which knows the rules.
 *
 * Thread-safe. No lock is held across a backend call or a catalog call.
 */
#ifndef VARVE_FS_SWEEP_H
#define VARVE_FS_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "catalog.h"
#include "transfer.h"

struct reconcile;
struct sweep;

struct sweep_options {
	struct catalog *catalog;
	struct transfer *transfer;
	struct reconcile *reconcile;
	int64_t period_ns; /* from the end of one pass to the beginning of the next; 0: only when asked */
};
/* The first pass begins soon. */
int sweep_new(const struct sweep_options *options, struct sweep **ret_sweep);
/* Breaks off what runs. NULL is fine. */
void sweep_free(struct sweep *sweep);

/* A pass begins now, or at the end of the one that runs. */
void sweep_hurry(struct sweep *sweep);

struct sweep_figures {
	uint64_t passes, broken_off;
	uint64_t seen;    /* objects and versions listed by the passes so far */
	uint64_t listed;  /* directories found different, and listed anew */
	uint64_t found;   /* files with versions, directories with deleted names, and conflicts, that were not known */
	uint64_t expired; /* versions that the store no longer has */
	bool running;
	int64_t last_wall; /* end of the last complete pass; 0: none yet */
	char last_error[256];
};
void sweep_figures(struct sweep *sweep, struct sweep_figures *ret_figures);

#endif
