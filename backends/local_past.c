/*
 * local_past.c - a key's old versions and delete markers: one folder a key.
 *
 * Old content gets here by hard link, so that keeping a version costs one
 * directory entry whatever its size; where there are no links, or the file has
 * another name that may still be written through, by a copy (which shares its
 * blocks where the filesystem can).
 *
 * Invariants: local.h. Changes are made under the key's lock; loading needs
 * none, and shows only what belongs to the current object it is given.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/local.h"
#include "cleanup.h"

#define MARKER_SUFFIX ".d"
#define PENDING "deleting"
#define MAKE_TRIES 100

struct marker_name {
	char text[LOCAL_ID_SIZE + sizeof(MARKER_SUFFIX)];
};

static struct marker_name marker_name(const char *id)
{
	struct marker_name name;

	memcpy(name.text, id, LOCAL_ID_SIZE - 1);
	memcpy(name.text + LOCAL_ID_SIZE - 1, MARKER_SUFFIX, sizeof(MARKER_SUFFIX));
	return name;
}

/* A folder entry's name as a version; false for what is none. */
static bool parse_name(const char *name, struct local_version *ret_version)
{
	size_t len = strlen(name);
	struct local_version version = {.marker = len == LOCAL_ID_SIZE - 1 + strlen(MARKER_SUFFIX)};

	if (len < LOCAL_ID_SIZE - 1)
		return false;
	memcpy(version.id, name, LOCAL_ID_SIZE - 1);
	if (!local_id_valid(version.id))
		return false;
	if (strcmp(name + LOCAL_ID_SIZE - 1, version.marker ? MARKER_SUFFIX : "") != 0)
		return false;
	*ret_version = version;
	return true;
}

static int newest_first(const void *a, const void *b)
{
	return strcmp(((const struct local_version *)b)->id, ((const struct local_version *)a)->id);
}

static int versions_add(struct local_versions *versions, const struct local_version *version)
{
	struct local_version *items;

	if ((versions->count & (versions->count - 1)) == 0) { /* full: room doubles at the powers of two */
		items = reallocarray(versions->items, versions->count ? versions->count * 2 : 1, sizeof(*items));
		if (!items)
			return -ENOMEM;
		versions->items = items;
	}
	versions->items[versions->count++] = *version;
	return 0;
}

void local_versions_clear(struct local_versions *versions)
{
	free(versions->items);
	*versions = (struct local_versions){0};
}

/* The id in the pending marker; -ENOENT when there is none. */
static int read_pending(int past, char ret_id[static LOCAL_ID_SIZE])
{
	AUTO_CLOSE int fd = local_open(past, PENDING, O_RDONLY, 0);
	char id[LOCAL_ID_SIZE] = {0};

	if (fd < 0)
		return fd;
	if (pread(fd, id, LOCAL_ID_SIZE - 1, 0) != LOCAL_ID_SIZE - 1 || !local_id_valid(id))
		return -ENOENT;
	memcpy(ret_id, id, LOCAL_ID_SIZE);
	return 0;
}

static bool beside(const struct local_object *current, const struct local_version *version)
{
	int order;

	if (current->fd < 0)
		return true;
	order = strcmp(version->id, current->info.native_id);
	/* Newer than the current one: it came after we looked. An id that another tool's file got by its ctime says
	 * nothing about order. */
	return order < 0 || (order > 0 && !current->stamped);
}

int local_past_load(struct local *local, const struct local_place *place, const struct local_object *current,
		    struct local_versions *ret_versions)
{
	struct local_versions versions = {0};
	struct local_version version = {.marker = true};
	int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	const struct dirent *entry;
	DIR *dir;
	int rc = 0;

	if (past < 0) {
		if (past == -ENOENT || past == -ENOTDIR)
			*ret_versions = versions;
		return past == -ENOENT || past == -ENOTDIR ? 0 : past;
	}
	if (current->fd < 0 && !read_pending(past, version.id))
		rc = versions_add(&versions, &version);
	dir = fdopendir(past);
	if (!dir) {
		(void)close(past);
		local_versions_clear(&versions);
		return -ENOMEM;
	}
	while (!rc && (entry = readdir(dir)))
		if (parse_name(entry->d_name, &version) && beside(current, &version))
			rc = versions_add(&versions, &version);
	(void)closedir(dir);
	if (rc) {
		local_versions_clear(&versions);
		return rc;
	}
	if (versions.count > 1)
		qsort(versions.items, versions.count, sizeof(*versions.items), newest_first);
	*ret_versions = versions;
	return 0;
}

/* So that a listing can tell the key from the folder, whose name is a digest. */
static int write_key(struct local *local, const struct local_place *place, int past)
{
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int tmp = -1;
	int rc;

	if (faccessat(past, "key", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	rc = tmp < 0 ? tmp : local_temp_make(local, &temp);
	if (rc)
		return rc;
	rc = local_write_all(temp.fd, place->key, strlen(place->key), 0);
	if (!rc && (fsync(temp.fd) || renameat(tmp, temp.name, past, "key")))
		rc = -errno;
	if (!rc)
		temp.name[0] = '\0';
	local_temp_discard(local, &temp);
	return rc;
}

int local_past_make(struct local *local, const struct local_place *place, int *ret_fd)
{
	size_t made;
	int fd = -1;
	int rc = -ENOENT;

	/* ENOENT: a neighbour's prune took away a folder we had just passed. */
	for (int i = 0; rc == -ENOENT && i < MAKE_TRIES; i++)
		rc = local_mkdirs(local->root, place->past, &fd, &made);
	if (rc)
		return rc;
	rc = local_sync_made(local->root, place->past, made);
	if (!rc && place->kind == LOCAL_UNPATHED)
		rc = write_key(local, place, fd);
	if (rc) {
		(void)close(fd); /* a directory: nothing to lose */
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int local_past_open(struct local *local, const struct local_place *place, const char *id,
		    struct local_object *ret_object)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	int rc;

	if (past < 0)
		return past == -ENOTDIR ? -ENOENT : past;
	object.fd = local_open(past, id, O_RDONLY | O_NONBLOCK, 0);
	if (object.fd < 0)
		return object.fd;
	rc = local_stamp_read(local, place, &object);
	/* A version whose stamp is void was written through a name that we do not know of. It keeps its id, but not its
	 * etag: it is not what it was, and who pinned it learns so. */
	if (!rc && strcmp(object.info.native_id, id) != 0) {
		free(object.info.native_id);
		object.info.native_id = strdup(id);
		rc = object.info.native_id ? 0 : -ENOMEM;
	}
	if (rc) {
		local_object_clear(&object);
		return rc;
	}
	*ret_object = object;
	return 0;
}

/* --- keeping ------------------------------------------------------------------------------------------ */

static bool same_file(int past, const char *name, const struct stat *st)
{
	struct stat other;

	return fstatat(past, name, &other, AT_SYMLINK_NOFOLLOW) == 0 && other.st_ino == st->st_ino &&
	       other.st_dev == st->st_dev;
}

/* A copy with a stamp of its own: also for directories, whose content is none. */
static int keep_copy(struct local *local, const struct local_place *place, const struct local_object *object, int past)
{
	struct local_range all = {.fd = object->fd, .length = object->info.size};
	struct local_object copy = {.info = object->info};
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	struct err err = {0};
	int rc = tmp < 0 ? tmp : local_temp_make(local, &temp);

	if (!rc)
		rc = local_append(&(struct call){0}, &all, &temp, &err);
	if (!rc && fstat(temp.fd, &copy.stat))
		rc = -errno;
	if (!rc)
		rc = local_stamp_write(local, temp.fd, place, &copy);
	if (!rc && (fsync(temp.fd) || renameat(tmp, temp.name, past, object->info.native_id)))
		rc = -errno;
	if (!rc)
		temp.name[0] = '\0';
	local_temp_discard(local, &temp);
	return rc;
}

static int keep_link(struct local *local, const struct local_place *place, struct local_object *object, int past)
{
	AUTO_CLOSE int parent = -1;
	const char *name;
	int rc = local_open_parent(local->root, object->odd ? place->odd : place->path, &parent, &name);

	if (rc)
		return rc;
	if (linkat(parent, name, past, object->info.native_id, 0))
		return -errno;
	/* The path may have been given to another file since it was opened. */
	if (same_file(past, object->info.native_id, &object->stat))
		return 0;
	(void)unlinkat(past, object->info.native_id, 0);
	return -ESTALE;
}

int local_past_keep(struct local *local, const struct local_place *place, struct local_object *object)
{
	AUTO_CLOSE int past = -1;
	int rc = local_past_make(local, place, &past);

	if (rc)
		return rc;
	if (same_file(past, object->info.native_id, &object->stat))
		return 0; /* a crash came right after this step */
	rc = -EMLINK;
	if (S_ISREG(object->stat.st_mode) && object->stat.st_nlink == 1) {
		if (!object->stamped && local_stamp_write(local, object->fd, place, object) == 0)
			object->stamped = true;
		if (object->stamped)
			rc = keep_link(local, place, object, past);
	}
	if (rc == -EMLINK || rc == -EPERM || rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -ESTALE)
		rc = keep_copy(local, place, object, past);
	return rc == -EEXIST ? 0 : rc; /* kept before: ids are unique */
}

/* --- delete markers ------------------------------------------------------------------------------------- */

int local_past_settle(struct local *local, const struct local_place *place, const struct local_object *current)
{
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	char id[LOCAL_ID_SIZE];
	int rc;

	if (past < 0)
		return past == -ENOENT || past == -ENOTDIR ? 0 : past;
	rc = read_pending(past, id);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (current->fd >= 0)
		rc = unlinkat(past, PENDING, 0);
	else
		rc = renameat(past, PENDING, past, marker_name(id).text);
	return rc ? -errno : 0;
}

int local_past_mark(struct local *local, const struct local_place *place, const char *id)
{
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int tmp = -1;
	AUTO_CLOSE int past = -1;
	int rc = local_past_make(local, place, &past);

	if (rc)
		return rc;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	rc = tmp < 0 ? tmp : local_temp_make(local, &temp);
	if (rc)
		return rc;
	rc = local_write_all(temp.fd, id, LOCAL_ID_SIZE - 1, 0);
	if (!rc && (fsync(temp.fd) || renameat(tmp, temp.name, past, PENDING)))
		rc = -errno;
	if (!rc) {
		temp.name[0] = '\0';
		rc = fsync(past) ? -errno : 0;
	}
	local_temp_discard(local, &temp);
	return rc;
}

int local_past_unmark(struct local *local, const struct local_place *place, const char *id)
{
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);

	if (past < 0)
		return past;
	/* Final markers made by local_past_settle hold their id as well, so the name is all that changes. */
	return renameat(past, marker_name(id).text, past, PENDING) || fsync(past) ? -errno : 0;
}

int local_past_drop(struct local *local, const struct local_place *place, const struct local_version *version)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	struct stat st;

	if (past < 0)
		return past;
	if (version->marker)
		return unlinkat(past, marker_name(version->id).text, 0) || fsync(past) ? -errno : 0;
	object.fd = local_open(past, version->id, O_RDONLY | O_NONBLOCK, 0);
	/* Its only name: the stamp goes too. */
	if (object.fd >= 0 && !fstat(object.fd, &st) && st.st_nlink == 1)
		local_stamp_drop(local, place, object.fd);
	local_object_clear(&object);
	return unlinkat(past, version->id, 0) || fsync(past) ? -errno : 0;
}

void local_past_prune(struct local *local, const struct local_place *place)
{
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	struct local_versions versions = {0};
	struct local_object none = LOCAL_OBJECT_NONE;

	if (past < 0 || local_past_load(local, place, &none, &versions))
		return;
	/* The name of an odd key is of use only as long as it has a past. */
	if (versions.count == 0 && place->kind == LOCAL_UNPATHED)
		(void)unlinkat(past, "key", 0);
	local_versions_clear(&versions);
	local_prune(local, place->past);
}
