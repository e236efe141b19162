/* reply.c - see reply.h. Threads: any; no state. */
#include "fs/reply.h"

#include <errno.h>
#include <string.h>

void reply_err(fuse_req_t req, int err)
{
	(void)fuse_reply_err(req, err < 0 ? -err : err); /* see reply.h */
}

void reply_fill_entry(const struct cat_inode *inode, struct fuse_entry_param *ret_entry)
{
	struct fuse_entry_param entry = {
		.ino = inode->ino, .generation = 1, .attr_timeout = REPLY_LONG, .entry_timeout = REPLY_LONG};

	fs_stat(inode, &entry.attr);
	*ret_entry = entry;
}

static void reply_fill_versions_entry(const struct versions_entry *from, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){
		.ino = from->nodeid,
		.generation = 1,
		.attr = from->stat,
		.attr_timeout = REPLY_SHORT,
		/* "-1" means another version as soon as there is one. */
		.entry_timeout = from->immutable ? REPLY_LONG : 0,
	};
}

void reply_entry(fuse_req_t req, const struct cat_inode *inode)
{
	struct fuse_entry_param entry;

	reply_fill_entry(inode, &entry);
	(void)fuse_reply_entry(req, &entry); /* see reply.h */
}

void reply_versions_entry(fuse_req_t req, const struct versions_entry *from)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;

	reply_fill_versions_entry(from, &entry);
	if (fuse_reply_entry(req, &entry)) /* the kernel never saw it, so it will never forget it */
		versions_forget(fs->versions, entry.ino, 1);
}

void reply_no_entry(fuse_req_t req)
{
	struct fuse_entry_param entry = {.entry_timeout = REPLY_LONG};

	(void)fuse_reply_entry(req, &entry); /* see reply.h */
}

void reply_attr(fuse_req_t req, const struct cat_inode *inode)
{
	struct stat st;

	fs_stat(inode, &st);
	(void)fuse_reply_attr(req, &st, REPLY_LONG); /* see reply.h */
}

void reply_bytes(fuse_req_t req, const void *bytes, size_t len)
{
	(void)fuse_reply_buf(req, bytes, len); /* see reply.h */
}

void reply_xattr(fuse_req_t req, const struct buf *value, size_t size)
{
	if (buf_failed(value))
		reply_err(req, -ENOMEM);
	else if (!size)
		(void)fuse_reply_xattr(req, value->len); /* see reply.h */
	else if (value->len > size)
		reply_err(req, -ERANGE);
	else
		reply_bytes(req, value->data, value->len);
}
