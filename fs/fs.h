/*
 * fs.h - what every FUSE operation needs of its session, and how operations
 * are written.
 *
 * An operation reads its arguments, calls the layers below, and answers the
 * request exactly once, as its last act (reply.h). Node numbers are the
 * catalog's inode numbers; numbers with bit 62 or 63 are nodes of `.versions`
 * (versions.h). Live nodes have no state in memory: the catalog is the truth,
 * a struct content (content.h) exists only while a file is open, so forget has
 * nothing to do for them. Inode numbers are never reused, so every generation is 1.
 */
#ifndef VARVE_FS_FS_H
#define VARVE_FS_FS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "catalog.h"
#include "fs/backing.h"
#include "fs/config.h"
#include "fs/content.h"
#include "fs/versions.h"
#include "lock.h"
#include "table.h"

struct fs {
	const struct config *config;
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct writeback *writeback;
	struct reconcile *reconcile;
	struct versions *versions;
	struct prefetch *prefetch;
	struct invalidate *invalidate;
	struct ship *ship;   /* NULL: mounted read-only */
	struct lease *lease; /* likewise */
	struct fuse_session *fuse;
	atomic_bool passthrough; /* the kernel can read cache files itself, as far as is known */
	bool uncached_writes;    /* kernel.h; set once, before the first request */
	bool killpriv;           /* kernel.h; set before the first operation */
	struct lock handles_lock;
	struct list files,
		dirs; /* open; guarded by handles_lock. What a torn connection never releases is released from here */
};

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* For content waits: the kernel's interrupt of this request. */
struct waiter fs_waiter(fuse_req_t req);
struct cat_actor fs_actor(fuse_req_t req);

/* EROFS for nodes of the past and for read-only mounts; 0 when the node may be changed. */
int fs_may_change(const struct fs *fs, fuse_ino_t ino);

/* The reserved prefix at the root is not for applications. */
bool fs_is_reserved(fuse_ino_t parent, const char *name);

/* The catalog's name for what the kernel knows as `name`: another one where it has the name of the past's directory. */
const char *fs_name(const struct fs *fs, fuse_ino_t parent, const char *name);

/* The catalog's record with what an open file adds. */
int fs_getattr(const struct fs *fs, uint64_t ino, struct cat_inode *ret_inode);
void fs_stat(const struct cat_inode *inode, struct stat *ret_stat);

/* Between begin and end an interrupt of the request sets `came`: what a struct call of the store is cancelled by. */
struct fs_interrupt {
	fuse_req_t req;
	atomic_bool came;
};
void fs_interrupt_begin(struct fs_interrupt *interrupt, fuse_req_t req);
void fs_interrupt_end(struct fs_interrupt *interrupt);

/* Never listed: waits for the listing. Stale: answers from the catalog, refreshed in the background. */
int fs_list_known(fuse_req_t req, uint64_t dir);
/* The same for all beneath a directory that is to be renamed: what nobody has seen yet would stay behind. -EXDEV: there
 * is too much of it for one rename to wait for. */
int fs_list_tree(fuse_req_t req, uint64_t dir);

/* A write, truncation or chown takes setuid away, and setgid where the group may execute. */
void fs_kill_privileges(fuse_req_t req, uint64_t ino);
/* The same after content was changed, unless by root, who may keep them. */
void fs_written(fuse_req_t req, uint64_t ino);

/* One version of the file is in the store, with what the catalog says of it. For fsync and close=store. */
int fs_store(fuse_req_t req, uint64_t ino, uint64_t seq);

/* What every operation that makes a name does; owner and actor are filled in from the request. */
int ops_create(fuse_req_t req, const struct cat_create *wish, struct cat_inode *ret_inode);
/* What came after that failed: the name goes again, unless it is another's by now. */
void ops_uncreate(fuse_req_t req, uint64_t parent, const char *name, uint64_t ino);

/* An open file. */
struct file {
	struct list node;        /* fs->files */
	struct content *content; /* NULL: text */
	uint64_t ino;            /* of the live file; 0: a version */
	bool writable, append;
	bool joined; /* content, in `mode` */
	enum backing_mode mode;
	bool close_failed; /* the log says why a close of this handle failed: once */
	struct buf text;   /* +log */
};

/* When the kernel is gone: handles whose release never came. */
void ops_data_abandon(struct fs *fs);
void ops_dir_abandon(struct fs *fs);
void fs_handle_open(struct fs *fs, struct list *all, struct list *node);
void fs_handle_closed(struct fs *fs, struct list *node);

/* One group of operations fills its part of the table. */
void ops_meta_register(struct fuse_lowlevel_ops *ops);
void ops_data_register(struct fuse_lowlevel_ops *ops);
void ops_dir_register(struct fuse_lowlevel_ops *ops);
void ops_xattr_register(struct fuse_lowlevel_ops *ops);

#endif
