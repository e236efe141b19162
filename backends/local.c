/*
 * local.c - file:///dir: a plain directory as a versioned store.
 *
 * The layout and the invariants are in local.h; this file opens and probes the
 * store, and has the operations that only combine what the local_* modules do.
 *
 * Stored means stored: content, stamp and directory entries are synced before a
 * changing call returns 0. A crash leaves nothing but files in .varve/tmp, which
 * the first probe of a later process removes: all of them when nobody else has
 * the store open, else those that are an hour old.
 *
 * Threads: any number; local->root and local->lock_fd are set once, by the
 * first probe, and everything else shared is under local->lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/local.h"
#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "log.h"

#define SCHEME "file://"
#define LEFTOVER_AGE_NS (3600 * NS_PER_SEC)

static struct local *local_of(struct backend *backend)
{
	return (struct local *)backend;
}

/* --- opening --------------------------------------------------------------------------------------- */

/* The absolute path in a file: URL, %XX decoded; what is no such escape stands for itself. */
static char *path_of_url(const char *url)
{
	AUTO_BUF path = BUF_INIT;

	if (strncmp(url, SCHEME, strlen(SCHEME)) != 0)
		return NULL;
	url += strlen(SCHEME);
	if (strncmp(url, "localhost/", strlen("localhost/")) == 0)
		url += strlen("localhost");
	if (*url != '/')
		return NULL;
	for (; *url; url++) {
		uint8_t byte;

		if (*url == '%' && url[1] && hex_decode((char[]){url[1], url[2], '\0'}, 1, &byte) == 0 && byte) {
			buf_addc(&path, (char)byte);
			url += 2;
		} else {
			buf_addc(&path, *url);
		}
	}
	while (path.len > 1 && path.data[path.len - 1] == '/')
		path.data[--path.len] = '\0';
	return buf_detach(&path);
}

static int open_store(const struct backend_options *options, struct backend **ret_backend, struct err *err)
{
	struct local *local;
	char *path = path_of_url(options->url);

	if (!path)
		return err_set(err, ERR_CONFIGURATION, "%s: a directory is named as file:///path", options->url);
	local = calloc(1, sizeof(*local));
	if (!local || asprintf(&local->description, SCHEME "%s", path) < 0) {
		free(local);
		free(path);
		return err_set(err, ERR_NO_MEMORY, "no memory to open %s", options->url);
	}
	local->ops = &local_backend_ops;
	local->path = path;
	local->create = options->create;
	local->read_only = options->read_only;
	local->root = -1;
	local->lock_fd = -1;
	lock_init(&local->lock, LOCK_BACKEND);
	lock_cond_init(&local->unlocked);
	list_init(&local->held);
	*ret_backend = (struct backend *)local;
	return 0;
}

static void close_store(struct backend *backend)
{
	struct local *local = local_of(backend);

	for (size_t i = 0; i < LOCAL_WALKERS; i++)
		local_walker_free(local->walkers[i]);
	if (local->root >= 0)
		(void)close(local->root); /* a directory: nothing to lose */
	if (local->lock_fd >= 0)
		(void)close(local->lock_fd);          /* holds no bytes */
	(void)pthread_cond_destroy(&local->unlocked); /* nobody waits any more */
	lock_destroy(&local->lock);
	free(local->description);
	free(local->path);
	free(local);
}

/* --- probing ------------------------------------------------------------------------------------------ */

static int make_path(const char *path)
{
	AUTO_FREE char *at = strdup(path);

	if (!at)
		return -ENOMEM;
	for (char *slash = at + 1;; slash++) {
		char was;

		slash += strcspn(slash, "/");
		was = *slash;
		*slash = '\0';
		if (mkdir(at, 0777) && errno != EEXIST)
			return -errno;
		if (was == '\0')
			return 0;
		*slash = was;
	}
}

/* Our presence, until lock_fd is closed. *ret_alone: nobody else is here, and whoever comes waits until be_present. */
static void come(int lock_fd, bool *ret_alone)
{
	struct flock presence = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCAL_PRESENT, .l_len = 1};

	*ret_alone = fcntl(lock_fd, F_OFD_SETLK, &presence) == 0;
}

static void be_present(int lock_fd)
{
	struct flock presence = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = LOCAL_PRESENT, .l_len = 1};

	while (fcntl(lock_fd, F_OFD_SETLKW, &presence) && errno == EINTR)
		; /* somebody sweeps */
}

static void sweep_leftovers(int tmp, int64_t before)
{
	int fd = dup(tmp);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd); /* only read */
		return;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || fstatat(tmp, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (clock_from_timespec(st.st_mtim) < before)
			local_upload_sweep(tmp, entry->d_name);
	}
	(void)closedir(dir);
}

/* Our own folders; removes what dead processes left. */
static int prepare(int root, int *ret_lock_fd)
{
	static const char *const folders[] = {LOCAL_PAST, LOCAL_ODD, LOCAL_TMP};
	AUTO_CLOSE int fd = -1;
	int lock_fd;
	bool alone;
	size_t made;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		int rc;

		cleanup_close(&fd);
		fd = -1;
		rc = local_mkdirs(root, folders[i], &fd, &made);
		if (!rc)
			rc = local_sync_made(root, folders[i], made);
		if (rc)
			return rc;
	}
	lock_fd = local_open(root, LOCAL_LOCK, O_RDWR | O_CREAT, 0600);
	if (lock_fd < 0)
		return lock_fd;
	come(lock_fd, &alone);
	sweep_leftovers(fd, alone ? INT64_MAX : clock_wall() - LEFTOVER_AGE_NS); /* LOCAL_TMP is the last */
	be_present(lock_fd);
	*ret_lock_fd = lock_fd;
	return 0;
}

static int open_root(struct local *local, int *ret_root, struct err *err)
{
	int root;

	if (local->create && !local->read_only) {
		int rc = make_path(local->path);

		if (rc)
			return err_from_errno(err, -rc, "making %s", local->path);
	}
	/* The admin may name the store through symlinks; keys may not. */
	root = open(local->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 && errno == ENOTDIR)
		return err_set(err, ERR_CONFIGURATION, "%s is not a directory", local->path);
	if (root < 0)
		return err_from_errno(err, errno, "opening %s", local->path);
	if (!local->read_only && faccessat(root, ".", W_OK | X_OK, AT_EACCESS)) {
		int rc = local_fail(err, -errno, "writing to", local->path);

		(void)close(root); /* a directory: nothing to lose */
		return rc;
	}
	*ret_root = root;
	return 0;
}

static int attach(struct local *local, struct err *err)
{
	int root = -1;
	int lock_fd = -1;
	int rc = open_root(local, &root, err);

	if (rc)
		return rc;
	rc = local_open(root, "", O_PATH | O_DIRECTORY, 0);
	if (rc >= 0) {
		(void)close(rc); /* a path only */
		rc = local->read_only ? 0 : prepare(root, &lock_fd);
	} else if (rc == -ENOSYS) {
		(void)close(root); /* a directory: nothing to lose */
		return err_set(err, ERR_UNSUPPORTED, "this kernel has no openat2 (Linux 5.6)");
	}
	if (rc) {
		(void)close(root); /* a directory: nothing to lose */
		return local_fail(err, rc, "preparing", local->path);
	}
	lock_acquire(&local->lock);
	if (local->root < 0) {
		local->lock_fd = lock_fd;
		local->root = root;
		root = lock_fd = -1;
	}
	lock_release(&local->lock);
	cleanup_close(&root); /* another probe was first */
	cleanup_close(&lock_fd);
	return 0;
}

/* The path must still lead to the directory we hold: a disk that is not mounted is an empty directory. */
static int check_root(struct local *local, struct err *err)
{
	struct stat ours, there;

	if (stat(local->path, &there))
		return err_from_errno(err, errno, "looking at %s", local->path);
	if (fstat(local->root, &ours))
		return err_from_errno(err, errno, "looking at %s", local->path);
	if (ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
		return err_set(err, ERR_UNAVAILABLE, "%s is another directory than it was", local->path);
	return 0;
}

static int probe_store(struct backend *backend, const struct call *call, struct backend_info *ret_info, struct err *err)
{
	struct local *local = local_of(backend);
	int rc = local_check(call, err);

	if (!rc)
		rc = local->root < 0 ? attach(local, err) : check_root(local, err);
	if (rc)
		return rc;
	*ret_info = (struct backend_info){
		.capabilities = BACKEND_VERSIONS | BACKEND_IF_NONE_MATCH | BACKEND_IF_MATCH | BACKEND_REMOVE_IF_MATCH |
				BACKEND_COPY | BACKEND_PART_COPY | BACKEND_MULTIPART | BACKEND_CRC32C |
				BACKEND_META_NAMES | BACKEND_TREE_KEYS | BACKEND_LOCAL_READ,
		.limits =
			{
				.max_object = INT64_MAX,
				.max_put = INT64_MAX,
				.max_copy = INT64_MAX,
				.min_part = 1,
				.max_part = INT64_MAX,
				.max_parts = 100000,
				.max_key = LOCAL_KEY_MAX,
				.max_meta = LOCAL_META_MAX,
			},
		.description = local->description,
	};
	return 0;
}

/* --- operations ----------------------------------------------------------------------------------------- */

/* Every operation begins so. */
static int enter(struct local *local, const struct call *call, struct err *err)
{
	if (local->root < 0)
		return err_set(err, ERR_INTERNAL, "%s was not probed", local->description);
	atomic_fetch_add(&local->counters.requests, 1);
	return local_check(call, err);
}

/* And ends so. */
static int leave(struct local *local, int rc)
{
	if (rc && rc != -ENOENT && rc != -ESTALE)
		atomic_fetch_add(&local->counters.errors, 1);
	return rc;
}

static int head_object(struct backend *backend, const struct call *call, const struct object_ref *ref,
		       struct object_info *ret_info, struct err *err)
{
	struct local *local = local_of(backend);
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_place place = {0};
	int rc = enter(local, call, err);

	if (!rc)
		rc = local_place_init(&place, ref->key, err);
	if (!rc)
		rc = local_find(local, &place, ref, &object, err);
	if (!rc) {
		*ret_info = object.info;
		object.info = (struct object_info){0};
	}
	local_object_clear(&object);
	local_place_clear(&place);
	return leave(local, rc);
}

/* The bytes given were those of the object opened: nobody wrote to the file meanwhile, and they are as stored. */
static int check_given(const struct local_object *object, const struct local_range *range, uint32_t crc,
		       struct err *err)
{
	struct stat now;

	if (fstat(object->fd, &now))
		return err_from_errno(err, errno, "looking at %s", object->info.key);
	if (now.st_size != object->stat.st_size || now.st_mtim.tv_sec != object->stat.st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != object->stat.st_mtim.tv_nsec)
		return err_set(err, ERR_CORRUPT, "%s was written by another program while it was read",
			       object->info.key);
	if (object->info.flags & OBJECT_CRC32C && range->length == object->info.size && crc != object->info.crc32c)
		return err_set(err, ERR_CORRUPT, "%s has CRC-32C %08x, and was stored with %08x", object->info.key, crc,
			       object->info.crc32c);
	return 0;
}

static int get_object(struct backend *backend, const struct call *call, const struct get_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct local *local = local_of(backend);
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_place place = {0};
	struct local_range range = {0};
	uint32_t crc = 0;
	int rc = enter(local, call, err);

	if (!rc)
		rc = local_place_init(&place, request->object.key, err);
	if (!rc)
		rc = local_find(local, &place, &request->object, &object, err);
	if (!rc)
		rc = local_range_of(request, object.info.size, &range, err);
	if (rc)
		goto out;
	range.fd = object.fd;
	rc = local_drain(call, &range, request, &crc, err);
	if (!rc && S_ISREG(object.stat.st_mode))
		rc = check_given(&object, &range, crc, err);
	if (rc)
		goto out;
	atomic_fetch_add(&local->counters.bytes_received, range.length);
	if (ret_info) {
		*ret_info = object.info;
		object.info = (struct object_info){0};
	}
out:
	local_object_clear(&object);
	local_place_clear(&place);
	return leave(local, rc);
}

static int check_meta(const struct meta *meta, struct err *err)
{
	size_t size = 0;

	for (size_t i = 0; meta && i < meta->count; i++)
		size += strlen(meta->pairs[i].name) + strlen(meta->pairs[i].value);
	if (size <= LOCAL_META_MAX)
		return 0;
	return err_set(err, ERR_TOO_LARGE, "%zu bytes of metadata: at most %d", size, LOCAL_META_MAX);
}

static int put_object(struct backend *backend, const struct call *call, const struct put_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct local *local = local_of(backend);
	struct local_temp temp = LOCAL_TEMP_NONE;
	struct local_place place = {0};
	struct local_commit commit = {
		.place = &place,
		.temp = &temp,
		.meta = request->meta,
		.content_type = request->content_type,
		.storage_class = request->storage_class,
		.condition = request->condition,
	};
	int rc = enter(local, call, err);

	if (!rc)
		rc = check_meta(request->meta, err);
	if (!rc)
		rc = local_place_init(&place, request->key, err);
	if (rc)
		goto out;
	rc = local_temp_make(local, &temp);
	if (rc) {
		(void)local_fail(err, rc, "storing", request->key);
		goto out;
	}
	rc = local_fill(call, request, &temp, err);
	if (!rc)
		rc = local_commit(local, call, &commit, ret_info, err);
	if (!rc)
		atomic_fetch_add(&local->counters.bytes_sent, request->size);
out:
	local_temp_discard(local, &temp);
	local_place_clear(&place);
	return leave(local, rc);
}

/* The source's content in a temp file, with its CRC when that is known. */
static int clone_source(struct local *local, const struct call *call, const struct object_ref *source,
			struct local_temp *temp, struct err *err)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_place place = {0};
	struct local_range all;
	int rc = local_place_init(&place, source->key, err);

	if (!rc)
		rc = local_find(local, &place, source, &object, err);
	if (rc)
		goto out;
	all = (struct local_range){.fd = object.fd, .length = object.info.size};
	rc = local_temp_make(local, temp);
	if (rc) {
		(void)local_fail(err, rc, "copying", source->key);
		goto out;
	}
	rc = local_append(call, &all, temp, err);
	if (!rc && S_ISREG(object.stat.st_mode))
		rc = check_given(&object, &all, object.info.crc32c, err);
	temp->crc32c = object.info.crc32c;
	temp->has_crc32c = object.info.flags & OBJECT_CRC32C;
out:
	local_object_clear(&object);
	local_place_clear(&place);
	return rc;
}

static int copy_object(struct backend *backend, const struct call *call, const struct copy_request *request,
		       struct object_info *ret_info, struct err *err)
{
	struct local *local = local_of(backend);
	struct local_temp temp = LOCAL_TEMP_NONE;
	struct local_place place = {0};
	struct local_commit commit = {
		.place = &place,
		.temp = &temp,
		.meta = request->meta,
		.content_type = request->content_type,
		.storage_class = request->storage_class,
		.condition = request->condition,
	};
	int rc = enter(local, call, err);

	if (!rc)
		rc = check_meta(request->meta, err);
	if (!rc)
		rc = local_place_init(&place, request->key, err);
	if (!rc)
		rc = clone_source(local, call, &request->source, &temp, err);
	if (!rc)
		rc = local_commit(local, call, &commit, ret_info, err);
	local_temp_discard(local, &temp);
	local_place_clear(&place);
	return leave(local, rc);
}

static int remove_object(struct backend *backend, const struct call *call, const struct object_ref *ref,
			 char **ret_marker_id, struct err *err)
{
	struct local *local = local_of(backend);
	int rc = enter(local, call, err);

	return leave(local, rc ? rc : local_remove(backend, call, ref, ret_marker_id, err));
}

static int list_objects(struct backend *backend, const struct call *call, const struct list_request *request,
			struct list_page *ret_page, struct err *err)
{
	struct local *local = local_of(backend);
	int rc = enter(local, call, err);

	return leave(local, rc ? rc : local_list(backend, call, request, ret_page, err));
}

static int upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
			char **ret_upload_id, struct err *err)
{
	struct local *local = local_of(backend);
	int rc = enter(local, call, err);

	if (!rc)
		rc = check_meta(request->meta, err);
	return leave(local, rc ? rc : local_upload_begin(backend, call, request, ret_upload_id, err));
}

static int open_local(struct backend *backend, const struct object_ref *ref, int *ret_fd, struct err *err)
{
	static const struct call now = {0};
	struct local *local = local_of(backend);
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_place place = {0};
	int rc = enter(local, &now, err);

	if (!rc)
		rc = local_place_init(&place, ref->key, err);
	if (!rc)
		rc = local_find(local, &place, ref, &object, err);
	if (!rc && !S_ISREG(object.stat.st_mode))
		rc = err_set(err, ERR_CONFLICT, "%s is a directory", ref->key);
	if (!rc) {
		*ret_fd = object.fd;
		object.fd = -1;
	}
	local_object_clear(&object);
	local_place_clear(&place);
	return leave(local, rc);
}

static const struct backend_counters *counters(struct backend *backend)
{
	return &local_of(backend)->counters;
}

const struct backend_ops local_backend_ops = {
	.abi = VARVE_BACKEND_ABI,
	.name = "local",
	.schemes = "file",
	.open = open_store,
	.close = close_store,
	.probe = probe_store,
	.head = head_object,
	.get = get_object,
	.put = put_object,
	.copy = copy_object,
	.remove = remove_object,
	.list = list_objects,
	.upload_begin = upload_begin,
	.upload_part = local_upload_part,
	.upload_part_copy = local_upload_part_copy,
	.upload_complete = local_upload_complete,
	.upload_abort = local_upload_abort,
	.open_local = open_local,
	.counters = counters,
};
