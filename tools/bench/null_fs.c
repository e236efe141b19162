/*
 * null_fs.c - a filesystem that answers everything from constants: what a FUSE round trip costs here with the same
 * libfuse, the same agreement with the kernel and the same loop as varve, and nothing behind it.
 *
 *     null_fs DIR      in the foreground, until DIR is unmounted
 *
 * Names that begin with "new" do not exist until they are made, all others do; those that begin with "d" are
 * directories. What was made the kernel remembers; we do not. Every file holds FILE_SIZE bytes, every directory
 * ENTRIES files. Not part of varve.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs.h"
#include "fs/kernel.h"
#include "fs/reply.h"

#define FILE_SIZE 4096
#define ENTRIES 1000
#define DIRECTORY (UINT64_C(1) << 40)

static char zeros[1 << 20];

static void fill(fuse_ino_t ino, mode_t type, struct fuse_entry_param *ret_entry)
{
	*ret_entry = (struct fuse_entry_param){.ino = ino,
					       .generation = 1,
					       .attr_timeout = REPLY_LONG,
					       .entry_timeout = REPLY_LONG,
					       .attr = {.st_ino = ino,
							.st_mode = type | 0777,
							.st_nlink = 1,
							.st_size = FILE_SIZE,
							.st_blksize = 4096,
							.st_blocks = FILE_SIZE / 512}};
}

static mode_t type_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID || (ino & DIRECTORY) ? S_IFDIR : S_IFREG;
}

static fuse_ino_t ino_of(const char *name)
{
	return (hash_bytes(name, strlen(name)) >> 28 << 4 | 8) | (name[0] == 'd' ? DIRECTORY : 0);
}

static void reply_new(fuse_req_t req, const char *name, mode_t type)
{
	struct fuse_entry_param entry;
	fuse_ino_t ino = (ino_of(name) & ~DIRECTORY) | (type == S_IFDIR ? DIRECTORY : 0);

	fill(ino, type, &entry);
	(void)fuse_reply_entry(req, &entry);
}

static void on_init(void *arg, struct fuse_conn_info *conn)
{
	(void)arg;
	(void)kernel_negotiate(conn);
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	if (strncmp(name, "new", 3) == 0)
		reply_no_entry(req);
	else
		reply_new(req, name, name[0] == 'd' ? S_IFDIR : S_IFREG);
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	(void)ino;
	(void)count;
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;

	(void)fi;
	fill(ino, type_of(ino), &entry);
	(void)fuse_reply_attr(req, &entry.attr, REPLY_LONG);
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)attr;
	(void)to_set;
	on_getattr(req, ino, fi);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent;
	(void)mode;
	reply_new(req, name, S_IFDIR);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	(void)parent;
	reply_new(req, name, S_IFLNK);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;

	(void)parent;
	(void)name;
	fill(ino, S_IFREG, &entry);
	(void)fuse_reply_entry(req, &entry);
}

static void on_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	reply_err(req, 0);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		      unsigned flags)
{
	(void)parent;
	(void)name;
	(void)new_parent;
	(void)new_name;
	(void)flags;
	reply_err(req, 0);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY;
	(void)fuse_reply_open(req, fi);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;

	(void)parent;
	(void)mode;
	fill(ino_of(name) & ~DIRECTORY, S_IFREG, &entry);
	fi->keep_cache = 1;
	(void)fuse_reply_create(req, &entry, fi);
}

static void on_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	reply_err(req, 0);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	size_t len = offset < FILE_SIZE ? (size_t)(FILE_SIZE - offset) : 0;

	(void)ino;
	(void)fi;
	reply_bytes(req, zeros, len < size ? len : size);
}

static void on_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *from, off_t offset,
			 struct fuse_file_info *fi)
{
	struct fuse_bufvec to = FUSE_BUFVEC_INIT(fuse_buf_size(from));

	(void)ino;
	(void)offset;
	(void)fi;
	to.buf[0].mem = zeros;
	(void)fuse_reply_write(req, (size_t)fuse_buf_copy(&to, from, 0));
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->cache_readdir = fi->keep_cache = 1;
	(void)fuse_reply_open(req, fi);
}

static void list(fuse_req_t req, size_t size, off_t offset, bool plus)
{
	char *bytes = malloc(size), name[16];
	size_t used = 0;

	for (off_t i = offset; bytes && i < ENTRIES; i++) {
		struct fuse_entry_param entry;
		size_t need;

		(void)snprintf(name, sizeof(name), "f%04d", (int)i);
		fill(ino_of(name), S_IFREG, &entry);
		need = plus ? fuse_add_direntry_plus(req, bytes + used, size - used, name, &entry, i + 1)
			    : fuse_add_direntry(req, bytes + used, size - used, name, &entry.attr, i + 1);
		if (need > size - used)
			break;
		used += need;
	}
	reply_bytes(req, bytes, used);
	free(bytes);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	list(req, size, offset, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	list(req, size, offset, true);
}

static void on_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino;
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	reply_err(req, 0);
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	(void)name;
	if (size)
		reply_bytes(req, "constant", 8);
	else
		(void)fuse_reply_xattr(req, 8);
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = on_lookup,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.mkdir = on_mkdir,
	.symlink = on_symlink,
	.link = on_link,
	.unlink = on_remove,
	.rmdir = on_remove,
	.rename = on_rename,
	.open = on_open,
	.create = on_create,
	.flush = on_done,
	.release = on_done,
	.read = on_read,
	.write_buf = on_write_buf,
	.opendir = on_opendir,
	.readdir = on_readdir,
	.readdirplus = on_readdirplus,
	.releasedir = on_done,
	.setxattr = on_setxattr,
	.getxattr = on_getxattr,
};

int main(int argc, char **argv)
{
	char *words[] = {argv[0], (char *)"-odefault_permissions,fsname=null", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, words);
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	struct fuse_session *session;

	if (argc != 2 || !loop) {
		(void)fprintf(stderr, "usage: null_fs DIR\n");
		return 2;
	}
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_session_mount(session, argv[1]))
		return 1;
	kernel_set_readahead(argv[1]);
	kernel_configure_loop(loop);
	(void)fuse_session_loop_mt(session, loop);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	fuse_loop_cfg_destroy(loop);
	return 0;
}
