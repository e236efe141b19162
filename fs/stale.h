/*
 * stale.h - a state directory that the store has gone past: another one held the lease meanwhile.
 *
 * Its catalog knows nothing of what the other wrote and cannot be merged with
 * it. What it has that the store does not is written down as plain files, and
 * the catalog is built anew.
 */
#ifndef VARVE_FS_STALE_H
#define VARVE_FS_STALE_H

#include "catalog.h"
#include "transfer.h"

struct stale {
	struct catalog *catalog;
	struct transfer *transfer;
	const char *state_dir;
};

struct stale_saved {
	char *dir; /* malloc'd; NULL when there was nothing to save */
	uint64_t files, changes;
};

/*
 * Every version that was never sent goes to DIR/PATH~TIME, every other change
 * that was not carried out becomes a line of DIR/CHANGES, where DIR is
 * STATE/unsent/TIME; all of it is on the disk when it returns 0. Else -errno
 * with *err, and nothing may be thrown away.
 */
int stale_save(const struct stale *stale, struct stale_saved *ret_saved, struct err *err);

/* Takes the catalog, which is closed by now, and its cache out of the way and removes them. A crash in between leaves
 * either all of it or nothing. */
int stale_discard(const char *state_dir, struct err *err);

#endif
