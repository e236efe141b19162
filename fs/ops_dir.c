/*
 * ops_dir.c - reading directories.
 *
 * A live directory is read by cookie: positions are the catalog's, so they hold
 * across any change and need no state in the handle. Position 1 is ".", 2 is
 * "..", 3 `.versions` where it is visible, and cookie c is at c + COOKIE_BASE.
 * Threads: FUSE workers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "fs/fs.h"
#include "fs/reconcile.h"
#include "fs/reply.h"
#include "fs/ship.h"

#define COOKIE_BASE 3
#define BATCH 512

enum style { NAMES_ONLY, WITH_ATTRIBUTES };

/* One reply being filled. */
struct listing {
	fuse_req_t req;
	struct fs *fs;
	uint64_t dir;
	enum style style;
	char *bytes;
	size_t size, used;
};

/* An opened directory: of the past, or live. */
struct open_dir {
	struct list node;          /* fs->dirs */
	struct versions_dir *past; /* NULL: live */
};

static struct open_dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct open_dir *)(uintptr_t)fi->fh;
}

/* False when it does not fit any more. */
static bool add(struct listing *listing, const char *name, const struct fuse_entry_param *entry, off_t next)
{
	char *at = listing->bytes + listing->used;
	size_t room = listing->size - listing->used;
	size_t need = listing->style == WITH_ATTRIBUTES
			      ? fuse_add_direntry_plus(listing->req, at, room, name, entry, next)
			      : fuse_add_direntry(listing->req, at, room, name, &entry->attr, next);

	if (need > room)
		return false;
	listing->used += need;
	return true;
}

/* The kernel takes no lookup of entries with ino 0 in readdirplus: it asks when somebody wants them. */
static bool add_plain(struct listing *listing, const char *name, uint64_t ino, uint32_t type, off_t next)
{
	struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = type}};

	return add(listing, name, &entry, next);
}

static int add_live(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct listing *listing = arg;
	const char *shown = versions_shown(listing->fs->versions, name->name);
	off_t next = (off_t)(name->cookie + COOKIE_BASE);
	struct fuse_entry_param entry;

	if (fs_is_reserved(listing->dir, name->name))
		return 0;
	/* Whoever asks for an unresolved one waits for its object; a listing does not. */
	if (!inode || (inode->flags & (CAT_UNRESOLVED | CAT_DIRTY)))
		return add_plain(listing, shown, name->ino, name->type, next) ? 0 : 1;
	reply_fill_entry(inode, &entry);
	return add(listing, shown, &entry, next) ? 0 : 1;
}

static int list_live(struct listing *listing, uint64_t offset)
{
	struct cat_inode inode;
	struct cat_readdir request = {
		.parent = listing->dir, .max = BATCH, .with_inodes = listing->style == WITH_ATTRIBUTES};
	int err = catalog_getattr(listing->fs->catalog, listing->dir, &inode);

	if (err)
		return err == -ENOENT ? -ESTALE : err;
	if (offset < 1 && !add_plain(listing, ".", listing->dir, S_IFDIR, 1))
		return 0;
	if (offset < 2 && !add_plain(listing, "..", inode.parent, S_IFDIR, 2))
		return 0;
	if (offset < 3 && versions_is_visible(listing->fs->versions) &&
	    !add_plain(listing, versions_snapdir_name(listing->fs->versions), versions_snapdir_ino(listing->dir),
		       S_IFDIR, 3))
		return 0;
	request.after = offset > COOKIE_BASE ? offset - COOKIE_BASE : 0;
	err = catalog_readdir(listing->fs->catalog, &request, add_live, listing);
	return err > 0 ? 0 : err;
}

static int add_past(void *arg, const char *name, const struct stat *stat, uint64_t next)
{
	return add_plain(arg, name, stat->st_ino, stat->st_mode, (off_t)next) ? 0 : 1;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, enum style style, struct fuse_file_info *fi)
{
	struct open_dir *dir = dir_of(fi);
	struct listing listing = {.req = req, .fs = fs_of(req), .dir = ino, .style = style, .size = size};
	AUTO_FREE char *bytes = malloc(size);
	int err = bytes ? 0 : -ENOMEM;

	listing.bytes = bytes;
	if (!err && dir->past)
		err = versions_readdir(dir->past, (uint64_t)offset, add_past, &listing);
	else if (!err)
		err = list_live(&listing, (uint64_t)offset);
	if (err < 0)
		reply_err(req, err);
	else
		reply_bytes(req, bytes, listing.used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, ino, size, offset, NAMES_ONLY, fi);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	list(req, ino, size, offset, WITH_ATTRIBUTES, fi);
}

static void dir_free(struct fs *fs, struct open_dir *dir)
{
	fs_handle_closed(fs, &dir->node);
	if (dir->past)
		versions_closedir(dir->past);
	free(dir);
}

void ops_dir_abandon(struct fs *fs)
{
	while (!list_empty(&fs->dirs))
		dir_free(fs, list_entry(fs->dirs.next, struct open_dir, node));
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct open_dir *dir = calloc(1, sizeof(*dir));
	int err = dir ? 0 : -ENOMEM;

	if (!err && versions_is_node(ino)) {
		err = versions_opendir(fs->versions, ino, &dir->past);
	} else if (!err) {
		err = fs_list_known(req, ino);
		fi->cache_readdir = fi->keep_cache = 1;
	}
	if (err) {
		free(dir);
		reply_err(req, err);
		return;
	}
	fs_handle_open(fs, &fs->dirs, &dir->node);
	fi->fh = (uintptr_t)dir;
	if (fuse_reply_open(req, fi)) /* interrupted: no releasedir will come */
		dir_free(fs, dir);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_free(fs_of(req), dir_of(fi));
	reply_err(req, 0);
}

/* Names live in the catalog: on disk at once, in the store with the next segment of its log. */
static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	int err = 0;

	(void)datasync;
	(void)fi;
	if (!versions_is_node(ino) && !fs->config->read_only) {
		err = catalog_sync(fs->catalog);
		if (!err && fs->config->fsync == CONFIG_FSYNC_STORE)
			err = fs_store(req, ino, 0);
	}
	reply_err(req, err);
}

void ops_dir_register(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}
