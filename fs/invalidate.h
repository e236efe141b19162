/*
 * invalidate.h - tells the kernel what it must forget, because others changed the store, or need not keep.
 *
 * A notification may wait for locks that a FUSE request in flight holds, so it
 * is sent from a thread of its own and never from one that serves a request.
 * Thread-safe.
 */
#ifndef VARVE_FS_INVALIDATE_H
#define VARVE_FS_INVALIDATE_H

#include <stdint.h>

#include "ranges.h"

struct fuse_session;
struct invalidate;

int invalidate_new(struct invalidate **ret_invalidate);
/* From here on notifications are sent; before, the kernel knows nothing yet that it could forget. */
void invalidate_start(struct invalidate *invalidate, struct fuse_session *fuse);
/* Before the session is unmounted. What is queued is dropped. */
void invalidate_stop(struct invalidate *invalidate);
void invalidate_free(struct invalidate *invalidate);

/* The name in `parent` (NULL: none) and the inode's attributes and listing (0: none). */
void invalidate_add(struct invalidate *invalidate, uint64_t parent, const char *name, uint64_t ino);

/* Pages of the inode. */
void invalidate_pages(struct invalidate *invalidate, uint64_t ino, const struct range *pages);

#endif
