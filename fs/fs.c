/* fs.c - what the groups of operations share. Threads: FUSE workers; no state of its own. */
#include "fs/fs.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/crawl.h"
#include "fs/reconcile.h"
#include "fs/ship.h"
#include "fs/writeback.h"
#include "log.h"

#define LISTING_PATIENCE_NS (30 * NS_PER_SEC)

static bool request_interrupted(void *arg)
{
	return fuse_req_interrupted(arg);
}

struct waiter fs_waiter(fuse_req_t req)
{
	return (struct waiter){.interrupted = request_interrupted, .arg = req};
}

static void interrupt_came(fuse_req_t req, void *arg)
{
	struct fs_interrupt *interrupt = arg;

	(void)req;
	atomic_store(&interrupt->came, true);
}

void fs_interrupt_begin(struct fs_interrupt *interrupt, fuse_req_t req)
{
	interrupt->req = req;
	atomic_init(&interrupt->came, false);
	fuse_req_interrupt_func(req, interrupt_came, interrupt);
}

void fs_interrupt_end(struct fs_interrupt *interrupt)
{
	fuse_req_interrupt_func(interrupt->req, NULL, NULL);
}

struct cat_actor fs_actor(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct cat_actor){.uid = ctx->uid, .gid = ctx->gid};
}

int fs_may_change(const struct fs *fs, fuse_ino_t ino)
{
	return versions_is_node(ino) || fs->config->read_only ? -EROFS : 0;
}

bool fs_is_reserved(fuse_ino_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID && strcmp(name, ".varve") == 0;
}

const char *fs_name(const struct fs *fs, fuse_ino_t parent, const char *name)
{
	const char *meant = versions_meant(fs->versions, name);
	struct cat_inode inode;

	return *meant && catalog_lookup(fs->catalog, parent, name, &inode) == -ENOENT ? meant : name;
}

int fs_getattr(const struct fs *fs, uint64_t ino, struct cat_inode *ret_inode)
{
	int err = catalog_getattr(fs->catalog, ino, ret_inode);
	struct content *content;

	if (err)
		return err == -ENOENT ? -ESTALE : err;
	if (!S_ISREG(ret_inode->mode))
		return 0;
	content = content_peek(fs->contents, ino);
	if (content) {
		content_overlay(content, ret_inode);
		content_put(content);
	}
	return 0;
}

void fs_stat(const struct cat_inode *inode, struct stat *ret_stat)
{
	*ret_stat = (struct stat){
		.st_ino = inode->ino,
		.st_mode = inode->mode,
		.st_nlink = inode->nlink,
		.st_uid = inode->uid,
		.st_gid = inode->gid,
		.st_rdev = makedev(inode->rdev >> 20, inode->rdev & 0xfffff),
		.st_size = (off_t)inode->size,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)((inode->size + 511) / 512),
		.st_atim = clock_to_timespec(inode->atime),
		.st_mtim = clock_to_timespec(inode->mtime),
		.st_ctim = clock_to_timespec(inode->ctime),
	};
}

/* Says so, unless the caller has been interrupted. Returns the errno. */
static int not_listed(const char *what, uint64_t dir, const struct err *why)
{
	if (why->kind == ERR_CANCELLED)
		return -EINTR;
	log_warn("fs", "directory %llu %s: %s", (unsigned long long)dir, what, why->message);
	return why->kind == ERR_DENIED ? -EACCES : -EIO;
}

int fs_list_known(fuse_req_t req, uint64_t dir)
{
	struct fs *fs = fs_of(req);
	struct fs_interrupt interrupt;
	struct call call = {.deadline_ns = clock_monotonic() + LISTING_PATIENCE_NS, .cancelled = &interrupt.came};
	struct cat_inode inode;
	struct err error = {0};
	int err = catalog_getattr(fs->catalog, dir, &inode);

	if (err)
		return err == -ENOENT ? -ESTALE : err;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	if (inode.flags & CAT_LISTED) {
		reconcile_refresh_soon(fs->reconcile, dir);
		return 0;
	}
	fs_interrupt_begin(&interrupt, req);
	err = reconcile_directory(fs->reconcile, dir, &call, &error);
	fs_interrupt_end(&interrupt);
	return err ? not_listed("cannot be listed", dir, &error) : 0;
}

int fs_list_tree(fuse_req_t req, uint64_t dir)
{
	struct fs *fs = fs_of(req);
	struct fs_interrupt interrupt;
	struct crawl crawl = {.catalog = fs->catalog, .reconcile = fs->reconcile};
	struct call call = {.deadline_ns = clock_monotonic() + LISTING_PATIENCE_NS, .cancelled = &interrupt.came};
	struct err error = {0};
	int err;

	fs_interrupt_begin(&interrupt, req);
	err = crawl_unlisted(&crawl, dir, &call, &error);
	fs_interrupt_end(&interrupt);
	if (!err)
		return 0;
	err = not_listed("cannot be renamed: what is beneath it cannot be listed", dir, &error);
	return error.kind == ERR_TIMED_OUT ? -EXDEV : err;
}

void fs_kill_privileges(fuse_req_t req, uint64_t ino)
{
	struct fs *fs = fs_of(req);
	struct cat_inode inode;

	if (!fs->killpriv || catalog_getattr(fs->catalog, ino, &inode) || !S_ISREG(inode.mode) ||
	    !(inode.mode & (S_ISUID | (inode.mode & S_IXGRP ? S_ISGID : 0u))))
		return;
	if (catalog_setattr(fs->catalog, ino, CAT_DROP_PRIVILEGES, &inode, &inode))
		log_warn("fs", "file %llu keeps its setuid bit", (unsigned long long)ino);
	/* The kernel leaves it to us, and does not ask what came of it. */
	(void)fuse_lowlevel_notify_inval_inode(fs->fuse, ino, -1, 0);
}

void fs_written(fuse_req_t req, uint64_t ino)
{
	if (fuse_req_ctx(req)->uid)
		fs_kill_privileges(req, ino);
}

struct stored {
	uint64_t ino, seq;
	bool stands_alone;
};

/* Does the object tell all there is: name by its key, owner, mode and time by its metadata? */
static int look_alone(struct cat_txn *txn, void *arg)
{
	struct stored *stored = arg;
	AUTO_BUF key = BUF_INIT;
	struct cat_version version;
	struct cat_inode inode;
	struct cat_copy copy;
	int err = cat_inode_get(txn, stored->ino, &inode);

	if (!err)
		err = cat_version_get(txn, stored->ino, stored->seq, &version);
	if (!err)
		err = cat_copy_get(txn, stored->ino, stored->seq, &copy);
	if (err)
		return err;
	/* Attributes set since the commit may have missed the object. */
	stored->stands_alone = inode.version == stored->seq && inode.nlink == 1 && inode.ctime <= version.commit_ns &&
			       cat_key_of(txn, stored->ino, &key) == 0 && !buf_failed(&key) &&
			       strcmp(key.data, copy.key) == 0;
	cat_copy_clear(&copy);
	return 0;
}

/* True when a rebuild from the bucket would show the file as it is without a word of the catalog's log. */
static bool stands_alone(const struct fs *fs, uint64_t ino, uint64_t seq)
{
	struct stored stored = {.ino = ino, .seq = seq};
	AUTO_BUF names = BUF_INIT;

	return seq && catalog_view(fs->catalog, look_alone, &stored) == 0 && stored.stands_alone &&
	       catalog_xattr_list(fs->catalog, ino, &names) == 0 && !names.len;
}

/*
 * In the bucket first, then what the object itself cannot tell (other names, attributes; a change without a new
 * version), then our own log on the disk: after a power cut the catalog must not be older than the store. The cached
 * bytes need not be on the disk: from then on they are the store's, and what a cut leaves of them is fetched again.
 */
int fs_store(fuse_req_t req, uint64_t ino, uint64_t seq)
{
	struct fs *fs = fs_of(req);
	struct waiter waiter = fs_waiter(req);
	struct fs_interrupt interrupt;
	struct call call = {.cancelled = &interrupt.came};
	struct err error = {0};
	bool uploaded = seq && !writeback_is_stored(fs->writeback, ino, seq);
	int err = uploaded ? writeback_wait(fs->writeback, ino, seq, fs->config->fsync_timeout_ns, &waiter) : 0;

	if (err || !fs->ship || (uploaded && stands_alone(fs, ino, seq)))
		return err ? err : catalog_sync(fs->catalog);
	call.deadline_ns = clock_monotonic() + fs->config->fsync_timeout_ns; /* the upload had its own */
	fs_interrupt_begin(&interrupt, req);
	err = ship_now(fs->ship, &call, &error);
	fs_interrupt_end(&interrupt);
	if (err && error.kind == ERR_CANCELLED)
		return -EINTR;
	if (err) {
		log_warn("fs", "file %llu is stored, but not what the catalog says of it: %s", (unsigned long long)ino,
			 error.message);
		return -EIO;
	}
	return catalog_sync(fs->catalog);
}

void fs_handle_open(struct fs *fs, struct list *all, struct list *node)
{
	LOCK_GUARD(&fs->handles_lock);
	list_add_tail(all, node);
}

void fs_handle_closed(struct fs *fs, struct list *node)
{
	LOCK_GUARD(&fs->handles_lock);
	list_remove(node);
}
