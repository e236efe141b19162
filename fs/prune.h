/*
 * prune.h - walks a tree's whole history, a little at a time, and expires what a policy does not keep.
 *
 * A version is judged under one name only: its file's oldest link, or for a
 * file without a name the one that was removed. The policy sees that name's
 * whole history (catalog.h), as `.versions` lists it.
 *
 * Not thread-safe: one caller steps it. Never waits for the store: the journal does the removing.
 */
#ifndef VARVE_FS_PRUNE_H
#define VARVE_FS_PRUNE_H

#include "buf.h"
#include "policy.h"

struct catalog;
struct prune;

struct prune_request {
	const char *path; /* below the root, without a slash at either end; "": everything. It may be deleted by now */
	struct policy policy;
	bool dry_run;
};
/* -ENOENT: nothing ever had this name. */
int prune_new(struct catalog *catalog, const struct prune_request *request, struct prune **ret_prune);
void prune_free(struct prune *prune);

/*
 * The next name. Appends one line of JSON for each version that goes, or would:
 *	{"path":…,"time":"…","version":"8 hex","size":N,"refused":"held"}      the last only where it stays
 *		(or "retained", "not stored yet")
 * and at the end {"done":true,"names":N,"kept":N,"removed":N,"refused":N,"bytes":N}.
 * 1: call again; 0: that was the end; -errno: it failed and is at its end.
 */
int prune_step(struct prune *prune, struct buf *ret_lines);
/* Names so far. */
uint64_t prune_seen(const struct prune *prune);

#endif
