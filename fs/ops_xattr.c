/*
 * ops_xattr.c - extended attributes.
 *
 *  - user.varve.*: what varve knows (xattr_varve.h). Read by name on live files and not listed there, so that cp -a and
 *    rsync -X carry none of it along; listed on versions; never set.
 *  - user.*, trusted.*, security.*: kept in the catalog; the kernel decides who may.
 *  - All others: EOPNOTSUPP, POSIX ACLs among them: default_permissions would not heed them.
 *
 * Threads: FUSE workers.
 */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/fs.h"
#include "fs/reply.h"
#include "fs/xattr_varve.h"

#define SNAPDIR XATTR_VARVE_PREFIX "snapdir"

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_kept(const char *name)
{
	return starts_with(name, "user.") || starts_with(name, "trusted.") || starts_with(name, "security.");
}

/* Of everything here: under which name directories have their past. */
static int get_snapdir(const struct fs *fs, struct buf *ret_value)
{
	const char *name = versions_snapdir_name(fs->versions);

	if (!versions_is_snapdir(fs->versions, name)) /* off */
		return -ENODATA;
	buf_adds(ret_value, name);
	return buf_failed(ret_value) ? -ENOMEM : 0;
}

static int get(struct fs *fs, fuse_ino_t ino, const char *name, struct buf *ret_value)
{
	if (strcmp(name, SNAPDIR) == 0)
		return get_snapdir(fs, ret_value);
	if (versions_is_node(ino))
		return versions_getxattr(fs->versions, ino, name, ret_value);
	if (xattr_varve_is(name))
		return xattr_varve_get(fs->catalog, ino, 0, name, ret_value);
	return is_kept(name) ? catalog_xattr_get(fs->catalog, ino, name, ret_value) : -EOPNOTSUPP;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	AUTO_BUF value = BUF_INIT;
	int err = get(fs_of(req), ino, name, &value);

	if (err)
		reply_err(req, err);
	else
		reply_xattr(req, &value, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	AUTO_BUF names = BUF_INIT;
	int err = versions_is_node(ino) ? versions_listxattr(fs->versions, ino, &names)
					: catalog_xattr_list(fs->catalog, ino, &names);

	if (err)
		reply_err(req, err);
	else
		reply_xattr(req, &names, size);
}

static int may_set(const struct fs *fs, fuse_ino_t ino, const char *name)
{
	int err = fs_may_change(fs, ino);

	if (err)
		return err;
	if (xattr_varve_is(name))
		return -EPERM;
	return is_kept(name) ? 0 : -EOPNOTSUPP;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	enum cat_xattr_mode mode = flags & XATTR_CREATE    ? CAT_XATTR_CREATE
				   : flags & XATTR_REPLACE ? CAT_XATTR_REPLACE
							   : CAT_XATTR_SET;
	int err = may_set(fs_of(req), ino, name);

	reply_err(req, err ? err : catalog_xattr_set(fs_of(req)->catalog, ino, name, value, size, mode));
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	int err = may_set(fs_of(req), ino, name);

	reply_err(req, err ? err : catalog_xattr_remove(fs_of(req)->catalog, ino, name));
}

void ops_xattr_register(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
}
