/*
 * ops_meta.c - names and attributes: lookup, getattr, setattr, create and
 * remove of everything but open files, statfs.
 *
 * Each operation is one catalog operation. Threads: FUSE workers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "clock.h"
#include "fs/fs.h"
#include "fs/reconcile.h"
#include "fs/reply.h"
#include "fs/writeback.h"
#include "log.h"
#include "transfer.h"

#define RESOLVE_PATIENCE_NS (30 * NS_PER_SEC)

/* An inode known from a listing only gets owner, mode and times from its object before anybody sees it. */
static int resolve(fuse_req_t req, uint64_t parent, const char *name, struct cat_inode *inode)
{
	struct fs *fs = fs_of(req);
	struct fs_interrupt interrupt;
	struct call call = {.deadline_ns = clock_monotonic() + RESOLVE_PATIENCE_NS, .cancelled = &interrupt.came};
	int err = 0;

	if (!(inode->flags & CAT_UNRESOLVED))
		return 0;
	fs_interrupt_begin(&interrupt, req);
	for (int tries = 0; !err && inode->flags & CAT_UNRESOLVED; tries++) {
		struct err error = {0};

		err = reconcile_resolve(fs->reconcile, inode->ino, &call, inode, &error);
		if (err == -ESTALE && tries < 3)
			err = catalog_lookup(fs->catalog, parent, name, inode);
		if (err && err != -ENOENT)
			err = error.kind == ERR_CANCELLED ? -EINTR : -EIO;
	}
	fs_interrupt_end(&interrupt);
	return err;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct versions_entry entry;
	struct cat_inode inode;
	int err;

	if (versions_is_node(parent) || versions_is_snapdir(fs->versions, name)) {
		err = versions_lookup(fs->versions, parent, name, &entry);
		if (err)
			reply_err(req, err);
		else
			reply_versions_entry(req, &entry);
		return;
	}
	if (strcmp(name, ".") == 0) { /* NFS asks for a node by itself */
		err = fs_getattr(fs, parent, &inode);
	} else if (strcmp(name, "..") == 0) {
		err = catalog_getattr(fs->catalog, parent, &inode);
		err = err ? err : fs_getattr(fs, inode.parent, &inode);
	} else {
		err = fs_list_known(req, parent);
		name = fs_name(fs, parent, name);
		if (!err)
			err = fs_is_reserved(parent, name) ? -ENOENT
							   : catalog_lookup(fs->catalog, parent, name, &inode);
		if (!err)
			err = resolve(req, parent, name, &inode);
		if (!err)
			err = fs_getattr(fs, inode.ino, &inode);
	}
	if (err == -ENOENT)
		reply_no_entry(req);
	else if (err)
		reply_err(req, err);
	else
		reply_entry(req, &inode);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	if (versions_is_node(ino))
		versions_forget(fs_of(req)->versions, ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		if (versions_is_node(forgets[i].ino))
			versions_forget(fs_of(req)->versions, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct cat_inode inode;
	struct stat st;
	int err;

	(void)fi;
	if (versions_is_node(ino)) {
		err = versions_getattr(fs->versions, ino, &st);
		if (err)
			reply_err(req, err);
		else
			(void)fuse_reply_attr(req, &st, REPLY_SHORT); /* see reply.h */
		return;
	}
	err = fs_getattr(fs, ino, &inode);
	if (err)
		reply_err(req, err);
	else
		reply_attr(req, &inode);
}

/* --- setattr -------------------------------------------------------------------------------------------- */

static unsigned set_mask(int to_set, const struct stat *attr, struct cat_inode *ret_values)
{
	int64_t now = clock_wall();
	unsigned mask = 0;

	*ret_values = (struct cat_inode){.mode = attr->st_mode, .uid = attr->st_uid, .gid = attr->st_gid};
	mask |= to_set & FUSE_SET_ATTR_MODE ? CAT_SET_MODE : 0;
	mask |= to_set & FUSE_SET_ATTR_UID ? CAT_SET_UID : 0;
	mask |= to_set & FUSE_SET_ATTR_GID ? CAT_SET_GID : 0;
	mask |= to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW) ? CAT_SET_ATIME : 0;
	mask |= to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW) ? CAT_SET_MTIME : 0;
	ret_values->atime = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : clock_from_timespec(attr->st_atim);
	ret_values->mtime = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : clock_from_timespec(attr->st_mtim);
	return mask;
}

/* truncate(2) has no close: it makes its version itself. ftruncate(2) has one to come. */
static int set_size(fuse_req_t req, fuse_ino_t ino, uint64_t size, bool has_handle)
{
	struct fs *fs = fs_of(req);
	struct waiter waiter = fs_waiter(req);
	struct content *content;
	int err = content_settle(fs->contents, ino);

	if (!err)
		err = content_get(fs->contents, ino, 0, &content);
	if (err)
		return err;
	err = has_handle ? content_truncate(content, size, &waiter)
			 : content_truncate_closed(content, size, fs_actor(req).uid, &waiter);
	content_put(content);
	return err;
}

static void set_open_mtime(struct fs *fs, fuse_ino_t ino, int64_t mtime)
{
	struct content *content = content_peek(fs->contents, ino);

	if (!content)
		return;
	content_set_mtime(content, mtime);
	content_put(content);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct cat_inode values, inode;
	unsigned mask = set_mask(to_set, attr, &values);
	int err = fs_may_change(fs, ino);

	/* ftruncate(2) sets the time even if it is the size already; the kernel leaves that to us. */
	if (fi && (to_set & FUSE_SET_ATTR_SIZE) && !(mask & CAT_SET_MTIME)) {
		mask |= CAT_SET_MTIME;
		values.mtime = clock_wall();
	}
	if (!err && (to_set & FUSE_SET_ATTR_SIZE))
		err = attr->st_size < 0 ? -EINVAL : set_size(req, ino, (uint64_t)attr->st_size, fi != NULL);
	if (!err && (mask & CAT_SET_MTIME))
		set_open_mtime(fs, ino, values.mtime);
	if (!err && mask)
		err = catalog_setattr(fs->catalog, ino, mask, &values, &inode);
	/* With a size it stands for FATTR_KILL_SUIDGID. */
	if (!err && !(mask & CAT_SET_MODE) &&
	    ((mask & (CAT_SET_UID | CAT_SET_GID)) || (to_set & FUSE_SET_ATTR_KILL_SUID)))
		fs_kill_privileges(req, ino);
	if (!err)
		err = fs_getattr(fs, ino, &inode);
	if (err)
		reply_err(req, err);
	else
		reply_attr(req, &inode);
}

/* --- making and removing names ----------------------------------------------------------------------------- */

static int may_make(struct fs *fs, fuse_ino_t parent, const char *name)
{
	int err = fs_may_change(fs, parent);

	if (err)
		return err;
	if (strlen(name) > CAT_NAME_MAX)
		return -ENAMETOOLONG;
	return fs_is_reserved(parent, name) || versions_is_snapdir(fs->versions, name) ? -EPERM : 0;
}

/* A directory with the setgid bit passes its group on, and to directories the bit itself. */
static int inherit(struct fs *fs, fuse_ino_t parent, struct cat_create *request)
{
	struct cat_inode dir;
	int err = catalog_getattr(fs->catalog, parent, &dir);

	if (!err && (dir.mode & S_ISGID)) {
		request->gid = dir.gid;
		if (S_ISDIR(request->mode))
			request->mode |= S_ISGID;
	}
	return err;
}

int ops_create(fuse_req_t req, const struct cat_create *wish, struct cat_inode *ret_inode)
{
	struct fs *fs = fs_of(req);
	struct cat_create request = *wish;
	int err = may_make(fs, request.parent, request.name);

	request.actor = fs_actor(req);
	request.uid = request.actor.uid;
	request.gid = request.actor.gid;
	if (!err)
		err = fs_list_known(req, request.parent);
	if (!err)
		err = inherit(fs, request.parent, &request);
	request.own_attrs = (request.mode & 07777) != (0777 & ~fs->config->umask) || request.uid != fs->config->uid ||
			    request.gid != fs->config->gid;
	return err ? err : catalog_create(fs->catalog, &request, ret_inode);
}

static void create_and_reply(fuse_req_t req, const struct cat_create *request)
{
	struct cat_inode inode;
	int err = ops_create(req, request, &inode);

	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &inode);
}

/* mknod of a regular file is a file that was created and closed. */
static int close_new(fuse_req_t req, const struct cat_inode *inode)
{
	struct content *content;
	int err = content_get(fs_of(req)->contents, inode->ino, 0, &content);

	if (err)
		return err;
	err = content_mark_new(content);
	if (!err)
		err = content_commit_closed(content, inode->uid);
	content_put(content);
	return err;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct cat_create request = {.parent = parent, .name = name, .mode = mode, .rdev = (uint32_t)rdev};
	struct cat_inode inode;
	int err = ops_create(req, &request, &inode);

	if (!err && S_ISREG(mode)) {
		err = close_new(req, &inode);
		if (err)
			ops_uncreate(req, parent, name, inode.ino);
	}
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &inode);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	create_and_reply(req, &(struct cat_create){.parent = parent, .name = name, .mode = (mode & 07777) | S_IFDIR});
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	create_and_reply(
		req, &(struct cat_create){.parent = parent, .name = name, .mode = S_IFLNK | 0777, .target = target});
}

struct target_get {
	uint64_t ino;
	struct buf *target;
};

static int get_target(struct cat_txn *txn, void *arg)
{
	const struct target_get *get = arg;

	return cat_symlink_get(txn, get->ino, get->target);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	AUTO_BUF target = BUF_INIT;
	int err = versions_is_node(ino)
			  ? versions_readlink(fs->versions, ino, &target)
			  : catalog_view(fs->catalog, get_target, &(struct target_get){.ino = ino, .target = &target});

	if (err || buf_failed(&target))
		reply_err(req, err ? err : -ENOMEM);
	else
		(void)fuse_reply_readlink(req, target.data); /* see reply.h */
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct fs *fs = fs_of(req);
	struct cat_inode inode;
	int err = versions_is_node(ino) ? -EXDEV : may_make(fs, new_parent, new_name);

	if (!err)
		err = fs_list_known(req, new_parent);
	if (!err)
		err = catalog_link(fs->catalog, ino, new_parent, new_name, fs_actor(req), &inode);
	if (!err)
		err = fs_getattr(fs, ino, &inode);
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &inode);
}

/* The last name went. While a handle is open its content lives on; ops_data lets it go with the last one. Nobody waits
 * for it: it comes behind the reply. */
static void name_gone(struct fs *fs, const struct cat_unlinked *gone)
{
	if (!gone->inode.ino)
		return;
	writeback_renamed(fs->writeback, gone->inode.ino);
	if (S_ISREG(gone->inode.mode) && !gone->inode.nlink)
		content_forget(fs->contents, gone->inode.ino);
}

/* What was closed under the name that goes now is history, though its release may still be under way. */
static int settle_name(struct fs *fs, uint64_t parent, const char *name, struct cat_inode *ret_inode)
{
	int err = catalog_lookup(fs->catalog, parent, name, ret_inode);

	return err || !S_ISREG(ret_inode->mode) ? err : content_settle(fs->contents, ret_inode->ino);
}

void ops_uncreate(fuse_req_t req, uint64_t parent, const char *name, uint64_t ino)
{
	struct fs *fs = fs_of(req);
	struct cat_unlinked gone = {0};
	struct cat_inode inode;
	int err = catalog_lookup(fs->catalog, parent, name, &inode);

	if (!err && inode.ino == ino)
		err = catalog_unlink(fs->catalog, parent, name, fs_actor(req), &gone);
	if (err && err != -ENOENT)
		log_warn("fs", "file %llu could not be opened, but its name stays: %s", (unsigned long long)ino,
			 strerror(-err));
	else if (gone.inode.ino)
		name_gone(fs, &gone);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct cat_unlinked gone = {0};
	struct cat_inode inode;
	int err = fs_may_change(fs, parent);

	if (!err)
		err = fs_list_known(req, parent);
	name = fs_name(fs, parent, name);
	if (!err)
		err = settle_name(fs, parent, name, &inode);
	if (!err)
		err = catalog_unlink(fs->catalog, parent, name, fs_actor(req), &gone);
	reply_err(req, err);
	if (!err)
		name_gone(fs, &gone);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct cat_unlinked gone = {0};
	struct cat_inode inode;
	int err = fs_may_change(fs, parent);

	if (!err && versions_is_snapdir(fs->versions, name))
		err = -EROFS;
	name = fs_name(fs, parent, name);
	if (!err)
		err = catalog_lookup(fs->catalog, parent, name, &inode);
	if (!err && S_ISDIR(inode.mode))
		err = fs_list_known(req, inode.ino); /* is it really empty? */
	if (!err)
		err = catalog_rmdir(fs->catalog, parent, name, fs_actor(req), &gone);
	reply_err(req, err);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		      unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct cat_rename request = {
		.parent = parent, .new_parent = new_parent, .flags = flags, .actor = fs_actor(req)};
	struct cat_unlinked replaced = {0};
	struct cat_inode inode = {0}, target = {0};
	int err = fs_may_change(fs, parent);

	if (!err && versions_is_snapdir(fs->versions, name))
		err = -EROFS;
	if (!err)
		err = may_make(fs, new_parent, new_name);
	if (!err)
		err = fs_list_known(req, new_parent);
	request.name = name = fs_name(fs, parent, name);
	request.new_name = new_name = fs_name(fs, new_parent, new_name);
	if (!err)
		err = settle_name(fs, parent, name, &inode);
	if (!err)
		err = settle_name(fs, new_parent, new_name, &target);
	if (!err && S_ISDIR(target.mode))
		err = flags & RENAME_EXCHANGE ? fs_list_tree(req, target.ino) : fs_list_known(req, target.ino);
	if (err == -ENOENT && inode.ino) /* the new name is free */
		err = 0;
	if (!err && S_ISDIR(inode.mode))
		err = fs_list_tree(req, inode.ino);
	if (!err)
		err = catalog_rename(fs->catalog, &request, &replaced);
	reply_err(req, err);
	if (!err) {
		writeback_renamed(fs->writeback, S_ISDIR(inode.mode) || (flags & RENAME_EXCHANGE) ? 0 : inode.ino);
		name_gone(fs, &replaced);
	}
}

/* The store has no end that anybody could name; the cache's end is met by writers as ENOSPC. */
static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs vfs = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = UINT64_C(1) << 38, /* 1 PiB */
		.f_bfree = UINT64_C(1) << 38,
		.f_bavail = UINT64_C(1) << 38,
		.f_files = UINT64_C(1) << 40,
		.f_ffree = UINT64_C(1) << 40,
		.f_favail = UINT64_C(1) << 40,
		.f_namemax = CAT_NAME_MAX,
	};

	(void)ino;
	(void)fuse_reply_statfs(req, &vfs); /* see reply.h */
}

void ops_meta_register(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->readlink = op_readlink;
	ops->link = op_link;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
	ops->statfs = op_statfs;
}
