/*
 * unlisted.h - directories that a listing does not show, or shows empty.
 *
 * A listing does not always tell. MinIO lists nothing beneath `d/` while the
 * newest version of `d` is a delete marker (a file that became a directory), and
 * it lists `d/` while all beneath it is deleted. Before such a directory is
 * believed to be gone, or to be there, the store is asked for one object.
 *
 * Thread-safe; no state. No lock and no view of the catalog is held across a
 * call of the store.
 */
#ifndef VARVE_FS_UNLISTED_H
#define VARVE_FS_UNLISTED_H

#include <stdint.h>

#include "catalog.h"
#include "transfer.h"

/* Is the directory empty here, and without an object of its own? 1, 0, -errno. */
int unlisted_is_bare(struct catalog *catalog, uint64_t dir);

struct unlisted {
	struct catalog *catalog;
	struct transfer *transfer;
	const struct call *call;
};
/* Does the store have one of the first objects that the catalog knows beneath the directory? 1, 0, -errno: nobody can
 * say. */
int unlisted_is_there(const struct unlisted *unlisted, uint64_t dir);

/* Is the directory's own object there, that the catalog has recorded and its listing did not show? 1: it is, or none is
 * recorded; 0, -errno. */
int unlisted_marker_is_there(const struct unlisted *unlisted, uint64_t dir);

/* Live directories in `dir` whose names are not among `names`, which are sorted. Non-zero from visit stops and is
 * returned; it is called without any view. */
typedef int (*unlisted_visit)(void *arg, const struct cat_name *name);
int unlisted_each(struct catalog *catalog, uint64_t dir, const char *const *names, size_t count, unlisted_visit visit,
		  void *arg);

#endif
