/*
 * backing.h - cache files that the kernel reads itself (FUSE passthrough).
 *
 * A handle is opened in one of four modes; the kernel refuses with EIO what mixes CACHED with the latter two on one
 * inode, so the first handle decides for all that come while it is open:
 *
 *	CACHED    reads and writes come to us, through the kernel's page cache of the file
 *	UNCACHED  only for writing: writes come to us, past the page cache, and what that holds of the range is dropped
 *	BACKED    only for reading, of a file that is wholly in the cache: no request comes at all
 *	DIRECT    a writer of a file that somebody has open BACKED: as UNCACHED, for reads too. But its mappings are
 *	          mappings of the cache file, and what is stored through them tells nobody
 *
 * Whoever only writes has no use for the pages that a CACHED write fills, and what reads the file later is BACKED as a
 * rule. But a writer that finds a CACHED handle is CACHED as well: where the other stores through a mapping while we
 * write, the kernel could not drop the page, and the write would fail with EBUSY.
 *
 * A DIRECT handle that can be mapped for writing makes the content `loose`:
 *
 *   tight --backing_loosen--> loose (CAT_DIRTY in the catalog, all of it dirty, mtime of the cache file a sentinel)
 *   loose --stores through a mapping--> `stored` (the mtime tells, backing_note)
 *   loose --no writer holds the cache file (a lease tells)--> tight, by a version when something was stored, else as it
 *         was before
 *
 * Invariants
 *  1. A loose content shares its cache file with no version: its versions are clones.
 *  2. A loose content has no CACHED handle, and gets none: what the page cache held would go stale.
 *  3. Nothing is evicted from a cache file that anybody but us has open or mapped, this mount's kernel or, after a
 *     crash, what an earlier mount left behind. backing_alone() asks the kernel for it, by a write lease.
 *  4. Bytes read past us are pinned in the cache: at most half of it.
 *
 * All but backing_join, backing_leave and backing_take_passed are called with the content's lock held.
 */
#ifndef VARVE_FS_BACKING_H
#define VARVE_FS_BACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/content.h"

enum backing_mode { BACKING_CACHED, BACKING_UNCACHED, BACKING_BACKED, BACKING_DIRECT };

/* What this mount's kernel can, and how a cache file is made known to it. NULL functions: it cannot be. */
struct backing_kernel {
	int (*open)(void *arg, int fd); /* an id > 0, or 0 */
	void (*close)(void *arg, int id);
	void *arg;
	bool uncached; /* it can be written past the page cache */
};

/* A handle with open(2)'s `flags` comes; *ret_id is for the kernel in the two latter modes. */
int backing_join(struct content *content, int flags, const struct backing_kernel *kernel, enum backing_mode *ret_mode,
		 int *ret_id);
void backing_leave(struct content *content, enum backing_mode mode, const struct backing_kernel *kernel);

/* What the only reader of a large file, CACHED and in sequence, has left behind since this was last asked: it is in
 * memory twice, and who reads the file next is BACKED. False: nothing yet. */
bool backing_take_passed(struct content *content, struct range *ret_passed);

/* Whether nobody else, neither handle nor mapping, has the cache file open. */
bool backing_alone(const struct content *content);

/* Takes note of what was stored past us. Not loose: 0. */
int backing_note(struct content *content);
/* The version of a loose content: as content_commit. */
int backing_commit(struct content *content, enum cat_origin origin, uint32_t author, uint64_t *ret_seq);

/* At mount, with the number of a cache file whose changes have no version yet, or whose version is not stored, and what
 * may be a second name of it (0: nothing): whoever still writes into it from before a crash keeps the old file, and we
 * go on with a copy. *ret_untouched: it was loose, and nothing was stored into it. */
int backing_recover(struct contents *contents, uint64_t id, uint64_t second_id, bool *ret_untouched);
/* Back to what it was before it was loosened. */
int backing_tighten(struct content *content);

/* The end of the probing of loose contents, and of the references held for it. */
void backing_stop(struct contents *contents);

#endif
