/*
 * ops_data.c - open files: create, open, read, write, flush, release, fsync,
 * fallocate, lseek, copy_file_range.
 *
 * Who makes versions: release of the last writer (op_release), fsync to the
 * store, close=store in op_flush, and truncate without a handle (ops_meta).
 * Threads: FUSE workers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/cache.h"
#include "fs/fs.h"
#include "fs/invalidate.h"
#include "fs/kernel.h"
#include "fs/prefetch.h"
#include "fs/reply.h"
#include "fs/writeback.h"
#include "log.h"

/* Reads up to this size are copied once, larger ones spliced from the cache file. */
#define COPY_MAX (64u << 10)
#define COPY_RANGE_STEP (1u << 20)
#define COPY_RANGE_MAX ((size_t)1 << 31) /* the answer has 32 bits */

static struct file *file_of(const struct fuse_file_info *fi)
{
	return (struct file *)(uintptr_t)fi->fh;
}

/* --- open and close -------------------------------------------------------------------------------------- */

/* The request whose session makes cache files known to the kernel; NULL: the kernel is gone, and knows none. */
struct knower {
	struct fs *fs;
	fuse_req_t req;
};

#ifdef FUSE_CAP_PASSTHROUGH
static int make_known(void *arg, int fd)
{
	const struct knower *knower = arg;
	int id = fuse_passthrough_open(knower->req, fd);

	if (id <= 0) {
		atomic_store(&knower->fs->passthrough, false);
		log_info("file", "the kernel does not read cache files itself here (it needs CAP_SYS_ADMIN and a cache "
				 "directory on an ordinary filesystem): reads are served by varve");
	}
	return id;
}

static void make_unknown(void *arg, int id)
{
	const struct knower *knower = arg;

	if (knower->req)
		(void)fuse_passthrough_close(knower->req, id); /* libfuse says why it failed */
}

static struct backing_kernel backing_kernel(const struct knower *knower)
{
	struct backing_kernel kernel = {
		.close = make_unknown, .arg = (void *)knower, .uncached = knower->fs->uncached_writes};

	if (knower->req && atomic_load(&knower->fs->passthrough))
		kernel.open = make_known;
	return kernel;
}
#else
static struct backing_kernel backing_kernel(const struct knower *knower)
{
	return (struct backing_kernel){.uncached = knower->fs->uncached_writes};
}
#endif

static int file_join(fuse_req_t req, struct file *file, struct fuse_file_info *fi)
{
	struct knower knower = {.fs = fs_of(req), .req = req};
	struct backing_kernel kernel = backing_kernel(&knower);
	int id = 0, err = backing_join(file->content, fi->flags, &kernel, &file->mode, &id);

	if (err)
		return err;
	file->joined = true;
#ifdef FUSE_CAP_PASSTHROUGH
	fi->backing_id = id;
#endif
	fi->direct_io = file->mode == BACKING_DIRECT || file->mode == BACKING_UNCACHED;
	fi->noflush = !file->writable; /* its close has nothing to say */
	/* Others' changes come as new inodes, so what the kernel holds of this one stays right. */
	fi->keep_cache =
		(file->mode == BACKING_CACHED || file->mode == BACKING_UNCACHED) && kernel_wants(KERNEL_KEEP_CACHE);
	return 0;
}

static void file_leave(struct fs *fs, fuse_req_t req, struct file *file)
{
	struct knower knower = {.fs = fs, .req = req};
	struct backing_kernel kernel = backing_kernel(&knower);

	if (file->joined)
		backing_leave(file->content, file->mode, &kernel);
}

static int file_new(struct fs *fs, uint64_t ino, int flags, struct file **ret_file)
{
	struct file *file = calloc(1, sizeof(*file));
	int err;

	if (!file)
		return -ENOMEM;
	list_init(&file->node);
	buf_init(&file->text);
	file->ino = ino;
	file->writable = (flags & O_ACCMODE) != O_RDONLY;
	file->append = flags & O_APPEND;
	err = content_get(fs->contents, ino, 0, &file->content);
	if (err) {
		free(file);
		return err;
	}
	if (file->writable)
		content_writer_came(file->content);
	fs_handle_open(fs, &fs->files, &file->node);
	*ret_file = file;
	return 0;
}

/* What the last close of a writer owes: a version of all changes. */
static void file_free(struct fs *fs, fuse_req_t req, struct file *file, uint32_t author)
{
	struct cat_inode inode;
	int err = 0;

	fs_handle_closed(fs, &file->node);
	file_leave(fs, req, file);
	if (file->content && file->writable)
		err = content_writer_gone(file->content, author);
	if (err)
		log_error("file",
			  "no version of file %llu could be made: %s; it is tried again at the next close or mount",
			  (unsigned long long)file->ino, strerror(-err));
	if (file->content)
		content_put(file->content);
	if (file->ino && catalog_getattr(fs->catalog, file->ino, &inode) == 0 && !inode.nlink)
		content_forget(fs->contents, file->ino);
	buf_free(&file->text);
	free(file);
}

/* Opened for reading only (lock files are), it was created and closed at once. */
static int mark_created(fuse_req_t req, struct file *file, struct fuse_file_info *fi, uint32_t author)
{
	int err = content_mark_new(file->content);

	if (!err && !file->writable)
		err = content_commit_closed(file->content, author);
	if (!err)
		err = file_join(req, file, fi);
	return err;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct cat_create request = {.parent = parent, .name = name, .mode = (mode & 07777) | S_IFREG};
	struct fuse_entry_param entry;
	struct cat_inode inode;
	struct file *file = NULL;
	int err = ops_create(req, &request, &inode);

	if (err) {
		reply_err(req, err);
		return;
	}
	err = file_new(fs, inode.ino, fi->flags, &file);
	if (!err)
		err = mark_created(req, file, fi, inode.uid);
	if (err) { /* without a name first, so that no version is made of it */
		ops_uncreate(req, parent, name, inode.ino);
		if (file)
			file_free(fs, req, file, inode.uid);
		reply_err(req, err);
		return;
	}
	fi->fh = (uintptr_t)file;
	reply_fill_entry(&inode, &entry);
	if (fuse_reply_create(req, &entry, fi)) /* interrupted: no release will come */
		file_free(fs, req, file, inode.uid);
}

static int open_version(struct fs *fs, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct file *file = calloc(1, sizeof(*file));
	int err;

	if (!file)
		return -ENOMEM;
	buf_init(&file->text);
	list_init(&file->node);
	fs_handle_open(fs, &fs->files, &file->node);
	if (versions_is_text(fs->versions, node)) {
		err = versions_text(fs->versions, node, &file->text);
		fi->direct_io = 1;
	} else {
		err = versions_open(fs->versions, node, &file->content);
		fi->keep_cache = 1;
	}
	fi->noflush = 1;
	if (err)
		file_free(fs, NULL, file, 0);
	else
		fi->fh = (uintptr_t)file;
	return err;
}

static int open_live(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct waiter waiter = fs_waiter(req);
	struct file *file;
	int err = (fi->flags & O_ACCMODE) != O_RDONLY ? content_settle(fs->contents, ino) : 0;

	if (!err)
		err = file_new(fs, ino, fi->flags, &file);
	if (err)
		return err;
	if ((fi->flags & O_TRUNC) && file->writable)
		err = content_truncate(file->content, 0, &waiter);
	if (!err && (fi->flags & O_TRUNC) && file->writable) /* also if it was empty */
		err = content_mark_new(file->content);
	if (!err)
		err = file_join(req, file, fi);
	if (err)
		file_free(fs, req, file, 0);
	else
		fi->fh = (uintptr_t)file;
	return err;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC);
	int err = writes ? fs_may_change(fs, ino) : 0;

	if (!err)
		err = versions_is_node(ino) ? open_version(fs, ino, fi) : open_live(req, ino, fi);
	if (err)
		reply_err(req, err);
	else if (fuse_reply_open(req, fi)) /* interrupted: no release will come */
		file_free(fs, req, file_of(fi), 0);
	else if (!writes)
		prefetch_opened(fs->prefetch, ino);
}

static int flush_to_store(fuse_req_t req, struct file *file)
{
	uint64_t seq = 0;
	int err = content_commit(file->content, CAT_ORIGIN_CLOSE, fs_actor(req).uid, &seq);

	return err ? err : fs_store(req, file->ino, seq);
}

/* Every close of every descriptor; the version is made by release, when the last of them is gone. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file = file_of(fi);
	char why[256];
	int err = 0;

	(void)ino;
	if (file->content && file->writable) {
		err = content_flush(file->content, fs_actor(req).uid);
		if (!err && fs->config->close == CONFIG_CLOSE_STORE)
			err = flush_to_store(req, file);
		if (err && !file->close_failed) {
			writeback_error_of(fs->writeback, file->ino, why);
			log_error("file", "close of file %llu: %s%s%s", (unsigned long long)file->ino, strerror(-err),
				  why[0] ? ": " : "", why);
			file->close_failed = true;
		}
	}
	reply_err(req, err);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);

	(void)ino;
	file_free(fs, req, file_of(fi), fs_actor(req).uid);
	reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file = file_of(fi);
	uint64_t seq = 0;
	int err = 0;

	(void)ino;
	(void)datasync;
	if (file->content && file->ino && !fs->config->read_only) {
		if (fs->config->fsync == CONFIG_FSYNC_DISK)
			err = content_sync_disk(file->content);
		else
			err = content_commit(file->content, CAT_ORIGIN_FSYNC, fs_actor(req).uid, &seq);
		if (!err && fs->config->fsync != CONFIG_FSYNC_DISK)
			err = fs_store(req, file->ino, seq);
	}
	reply_err(req, err);
}

/* --- reading ------------------------------------------------------------------------------------------------- */

static void read_text(fuse_req_t req, const struct buf *text, size_t size, off_t offset)
{
	size_t from = (size_t)offset < text->len ? (size_t)offset : text->len;
	size_t len = text->len - from < size ? text->len - from : size;

	reply_bytes(req, text->data + from, len);
}

static void read_copied(fuse_req_t req, struct file *file, size_t len, off_t offset)
{
	char bytes[COPY_MAX];
	ssize_t n = pread(content_fd(file->content), bytes, len, offset);
	int err = n < 0 ? -errno : 0;

	content_read_done(file->content, (uint64_t)offset, len);
	if (err)
		reply_err(req, err);
	else
		reply_bytes(req, bytes, (size_t)n);
}

static void read_spliced(fuse_req_t req, struct file *file, size_t len, off_t offset)
{
	struct fuse_bufvec vec = FUSE_BUFVEC_INIT(len);
	struct content *content = file->content;
	struct fs *fs = fs_of(req);
	/* Who writes as well comes back to what he has read; and nobody else is BACKED beside him. */
	bool drops = !file->writable && atomic_load(&fs->passthrough);
	uint64_t ino = file->ino;
	struct range passed;

	vec.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	vec.buf[0].fd = content_fd(content);
	vec.buf[0].pos = offset;
	/* Once the reply is out, the handle may be released by another worker before we go on. */
	content_hold(content);
	(void)fuse_reply_data(req, &vec, 0); /* see reply.h */
	content_read_done(content, (uint64_t)offset, len);
	if (drops && backing_take_passed(content, &passed))
		invalidate_pages(fs->invalidate, ino, &passed);
	content_put(content);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct file *file = file_of(fi);
	struct waiter waiter = fs_waiter(req);
	bool missed = false;
	size_t len = size;
	int err;

	if (!file->content) {
		read_text(req, &file->text, size, offset);
		return;
	}
	err = content_read_begin(file->content, (uint64_t)offset, &len, &waiter);
	if (!err && offset == 0 && file->ino)
		missed = content_take_fetched(file->content);
	if (err)
		reply_err(req, err);
	else if (len <= COPY_MAX)
		read_copied(req, file, len, offset);
	else
		read_spliced(req, file, len, offset);
	if (missed) /* the reader has its bytes already */
		prefetch_missed(fs->prefetch, ino);
}

/* --- writing --------------------------------------------------------------------------------------------------- */

/* From libfuse's buffers (memory, or a pipe that is spliced) into the cache file: in steps, see CACHE_STEP. */
static ssize_t fill_from_bufvec(void *arg, int fd, uint64_t offset, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct fuse_bufvec to = FUSE_BUFVEC_INIT(len - done < CACHE_STEP ? len - done : CACHE_STEP);
		ssize_t n;

		to.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		to.buf[0].fd = fd;
		to.buf[0].pos = (off_t)(offset + done);
		n = fuse_buf_copy(&to, arg, 0);
		if (n <= 0)
			return done ? (ssize_t)done : n;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *from, off_t offset,
			 struct fuse_file_info *fi)
{
	struct file *file = file_of(fi);
	struct waiter waiter = fs_waiter(req);
	struct content_write request = {
		/* The kernel places appends by the size it knows, and only we change it: its offset is the end. */
		.offset = (uint64_t)offset, .len = fuse_buf_size(from), .fill = fill_from_bufvec, .arg = from,
		.waiter = &waiter,
	};
	ssize_t n = file->content && file->writable ? content_write(file->content, &request) : -EBADF;

	if (n < 0) {
		reply_err(req, (int)n);
		return;
	}
	fs_written(req, ino);
	(void)fuse_reply_write(req, (size_t)n); /* see reply.h */
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	struct waiter waiter = fs_waiter(req);
	struct file *file = file_of(fi);
	int err = file->content && file->writable
			  ? content_allocate(file->content, mode, (uint64_t)offset, (uint64_t)len, &waiter)
			  : -EBADF;

	if (!err)
		fs_written(req, ino);
	reply_err(req, err);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct file *file = file_of(fi);
	off_t found;

	(void)ino;
	if (!file->content || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
		reply_err(req, -EINVAL);
		return;
	}
	found = offset < 0 ? -ENXIO : content_seek(file->content, (uint64_t)offset, whence);
	if (found < 0)
		reply_err(req, (int)found);
	else
		(void)fuse_reply_lseek(req, found); /* see reply.h */
}

struct bytes {
	const char *data;
};

static ssize_t fill_from_memory(void *arg, int fd, uint64_t offset, size_t len)
{
	const struct bytes *bytes = arg;
	ssize_t n = pwrite(fd, bytes->data, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

/* Through a buffer. The bytes copied, -errno when there are none. */
static ssize_t copy_bytes(struct content *in, uint64_t off_in, struct content *out, uint64_t off_out, size_t len,
			  const struct waiter *waiter)
{
	AUTO_FREE char *bytes = malloc(COPY_RANGE_STEP);
	size_t done = 0;
	ssize_t n = bytes ? 0 : -ENOMEM;

	while (n >= 0 && done < len) {
		struct bytes from = {.data = bytes};
		struct content_write request = {
			.offset = off_out + done, .fill = fill_from_memory, .arg = &from, .waiter = waiter};

		n = content_pread(in, bytes, len - done < COPY_RANGE_STEP ? len - done : COPY_RANGE_STEP, off_in + done,
				  waiter);
		if (n <= 0)
			break;
		request.len = (size_t)n;
		n = content_write(out, &request);
		if (n > 0)
			done += (size_t)n;
	}
	return done ? (ssize_t)done : n;
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			       fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct file *in = file_of(fi_in), *out = file_of(fi_out);
	struct waiter waiter = fs_waiter(req);
	ssize_t n = 0;

	(void)ino_in;
	(void)flags;
	if (!in->content || !out->content || !out->writable)
		n = -EBADF;
	if (len > COPY_RANGE_MAX)
		len = COPY_RANGE_MAX;
	if (!n && off_in == off_out)
		n = content_refer(out->content, in->content, (uint64_t)off_out, len, &waiter);
	if (!n)
		n = copy_bytes(in->content, (uint64_t)off_in, out->content, (uint64_t)off_out, len, &waiter);
	if (n > 0)
		fs_written(req, ino_out);
	if (n < 0)
		reply_err(req, (int)n);
	else
		(void)fuse_reply_write(req, (size_t)n); /* see reply.h */
}

void ops_data_abandon(struct fs *fs)
{
	while (!list_empty(&fs->files))
		file_free(fs, NULL, list_entry(fs->files.next, struct file, node), 0);
}

void ops_data_register(struct fuse_lowlevel_ops *ops)
{
	ops->create = op_create;
	ops->open = op_open;
	ops->read = op_read;
	ops->write_buf = op_write_buf;
	ops->flush = op_flush;
	ops->release = op_release;
	ops->fsync = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->copy_file_range = op_copy_file_range;
}
