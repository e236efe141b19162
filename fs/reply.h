/*
 * reply.h - answers. Each is the last act of its operation; the request is
 * gone afterwards. A reply that the kernel no longer wants (interrupted,
 * unmounted) fails in libfuse and is nobody's loss but where said.
 */
#ifndef VARVE_FS_REPLY_H
#define VARVE_FS_REPLY_H

#include "fs/fs.h"

/* -errno or 0, as the layers below return it. */
void reply_err(fuse_req_t req, int err);
void reply_entry(fuse_req_t req, const struct cat_inode *inode);
void reply_versions_entry(fuse_req_t req, const struct versions_entry *entry);
/* A name that does not exist, remembered by the kernel until we say otherwise. */
void reply_no_entry(fuse_req_t req);
void reply_attr(fuse_req_t req, const struct cat_inode *inode);
void reply_bytes(fuse_req_t req, const void *bytes, size_t len);
/* getxattr and listxattr: size 0 asks how much there is; -ERANGE when it does not fit. */
void reply_xattr(fuse_req_t req, const struct buf *value, size_t size);

void reply_fill_entry(const struct cat_inode *inode, struct fuse_entry_param *ret_entry);

/* Only we change what we answer for, and what others change is invalidated by reconcile. */
#define REPLY_LONG 3600.0
#define REPLY_SHORT 1.0

#endif
