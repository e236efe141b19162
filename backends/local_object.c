/*
 * local_object.c - the current object of a key: finding it, replacing it,
 * taking it away, bringing an older one back.
 *
 * Every change is made under the key's lock and in the order of invariant 2 of
 * local.h; the one step that makes it visible is a rename, an unlink or the
 * write of a directory's stamp. A crash before that step leaves the old state,
 * after it the new one.
 *
 * Locks: a key is held by an entry in local->held, which keeps out this
 * process's threads, and by an open-file-description lock on one byte of
 * LOCAL_LOCK, which keeps out other processes. Two keys that share a byte only
 * wait for each other. No mutex is held across file operations.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/local.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

#define COMMIT_TRIES 100
#define LOCK_POLL_NS (100 * NS_PER_MS)
#define LOCK_PATIENCE_NS (60 * NS_PER_SEC)

/* --- locks ---------------------------------------------------------------------------------------- */

static bool held(const struct local *local, uint64_t offset)
{
	for (const struct list *at = local->held.next; at != &local->held; at = at->next)
		if (list_entry(at, struct local_key_lock, node)->offset == offset)
			return true;
	return false;
}

static int lock_in_process(struct local *local, const struct call *call, struct local_key_lock *lock, struct err *err)
{
	LOCK_GUARD(&local->lock);
	while (held(local, lock->offset)) {
		int rc = local_check(call, err);

		if (rc)
			return rc;
		(void)lock_wait(&local->lock, &local->unlocked, clock_monotonic() + LOCK_POLL_NS); /* checked above */
	}
	list_add_tail(&local->held, &lock->node);
	return 0;
}

static int lock_between_processes(struct local *local, const struct call *call, uint64_t offset, struct err *err)
{
	struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
	struct call patience = *call;
	int64_t pause = NS_PER_MS / 4;

	if (!patience.deadline_ns)
		patience.deadline_ns = clock_monotonic() + LOCK_PATIENCE_NS;
	/* The kernel's own wait knows no deadline. */
	while (fcntl(local->lock_fd, F_OFD_SETLK, &range)) {
		int rc = local_check(&patience, err);
		struct timespec nap = clock_to_timespec(pause);

		if (rc)
			return rc;
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return err_from_errno(err, errno, "locking in %s", local->path);
		(void)nanosleep(&nap, NULL); /* woken early, it looks early */
		pause = pause < LOCK_POLL_NS ? pause * 2 : pause;
	}
	return 0;
}

static void leave(struct local *local, struct local_key_lock *lock)
{
	LOCK_GUARD(&local->lock);
	list_remove(&lock->node);
	(void)pthread_cond_broadcast(&local->unlocked); /* cannot fail on a condition that lives */
}

int local_lock_key(struct local *local, const struct call *call, const struct local_place *place,
		   struct local_key_lock *lock, struct err *err)
{
	int rc;

	if (local->lock_fd < 0)
		return err_set(err, ERR_DENIED, "%s is open for reading only", local->path);
	lock->offset = place->lock;
	list_init(&lock->node);
	rc = lock_in_process(local, call, lock, err);
	if (rc)
		return rc;
	rc = lock_between_processes(local, call, lock->offset, err);
	if (rc)
		leave(local, lock);
	return rc;
}

void local_unlock_key(struct local *local, struct local_key_lock *lock)
{
	struct flock range = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)lock->offset, .l_len = 1};

	(void)fcntl(local->lock_fd, F_OFD_SETLK, &range); /* unlocking a held range of an open file cannot fail */
	leave(local, lock);
}

/* --- finding ---------------------------------------------------------------------------------------- */

static int open_odd(struct local *local, const struct local_place *place, struct local_object *object)
{
	object->fd = local_open(local->root, place->odd, O_RDONLY | O_NONBLOCK, 0);
	object->odd = object->fd >= 0;
	return object->fd < 0 ? object->fd : 0;
}

static int open_directory(struct local *local, const struct local_place *place, struct local_object *object)
{
	bool bare;
	int rc;

	object->fd = local_open(local->root, place->path, O_RDONLY | O_DIRECTORY, 0);
	if (object->fd < 0)
		return object->fd;
	rc = local_stamp_read(local, place, object);
	if (rc || object->stamped)
		return rc;
	rc = local_dir_bare(object->fd, place->path, &bare);
	/* Our own folder is there for what is in it. */
	return rc || (bare && strcmp(place->path, LOCAL_OWN) != 0) ? rc : -ENOENT;
}

static int open_current(struct local *local, const struct local_place *place, struct local_object *object)
{
	int rc = place->odd ? open_odd(local, place, object) : -ENOENT;

	if (rc == -ENOENT && place->kind == LOCAL_DIRECTORY)
		return open_directory(local, place, object);
	if (rc == -ENOENT && place->kind == LOCAL_FILE) {
		object->fd = local_open(local->root, place->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
		/* Not ours to read, but it is there: listings and heads say so. */
		if (object->fd == -EACCES)
			object->fd = local_open(local->root, place->path, O_PATH, 0);
		rc = object->fd < 0 ? object->fd : 0;
	}
	if (!rc)
		rc = local_stamp_read(local, place, object);
	if (!rc && !S_ISREG(object->stat.st_mode))
		rc = -ENOENT;
	return rc;
}

int local_current(struct local *local, const struct local_place *place, struct local_object *ret_object)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	int rc = open_current(local, place, &object);

	if (rc) {
		local_object_clear(&object);
		/* A link, a device, a file where a directory was named: no object of this key. */
		return rc == -ENOTDIR || rc == -ELOOP || rc == -ENXIO || rc == -ENODEV ? -ENOENT : rc;
	}
	object.info.flags |= OBJECT_LATEST;
	*ret_object = object;
	return 0;
}

/* The version with that id. It may move between the past and the key's path while we look: it enters the past
 * before it leaves the path, and a version brought back leaves the past only by entering the path. */
static int find_version(struct local *local, const struct local_place *place, const char *id,
			struct local_object *ret_object)
{
	int rc = -ENOENT;

	if (!local_id_valid(id))
		return -ENOENT;
	for (int i = 0; i < 3 && rc == -ENOENT; i++) {
		struct local_object object = LOCAL_OBJECT_NONE;

		rc = local_current(local, place, &object);
		if (!rc && strcmp(object.info.native_id, id) == 0) {
			*ret_object = object;
			return 0;
		}
		local_object_clear(&object);
		if (rc && rc != -ENOENT)
			return rc;
		rc = local_past_open(local, place, id, ret_object);
	}
	return rc;
}

int local_find(struct local *local, const struct local_place *place, const struct object_ref *ref,
	       struct local_object *ret_object, struct err *err)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	int rc = ref->native_id ? find_version(local, place, ref->native_id, &object)
				: local_current(local, place, &object);

	if (rc == -ENOENT)
		return err_set(err, ERR_NOT_FOUND, "no object %s%s%s", ref->key, ref->native_id ? " version " : "",
			       ref->native_id ? ref->native_id : "");
	if (rc)
		return local_fail(err, rc, "opening", ref->key);
	if (ref->etag && strcmp(ref->etag, object.info.etag) != 0) {
		local_object_clear(&object);
		return err_set(err, ERR_PRECONDITION, "%s is not the object it was", ref->key);
	}
	*ret_object = object;
	return 0;
}

/* --- content on its way --------------------------------------------------------------------------------- */

int local_temp_make(struct local *local, struct local_temp *ret_temp)
{
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);

	if (tmp < 0)
		return tmp;
	temp.name[0] = 't';
	local_new_id(local, NULL, temp.name + 1);
	temp.fd = local_open(tmp, temp.name, O_RDWR | O_CREAT | O_EXCL, 0666);
	if (temp.fd < 0)
		return temp.fd;
	*ret_temp = temp;
	return 0;
}

void local_temp_discard(struct local *local, struct local_temp *temp)
{
	AUTO_CLOSE int tmp = -1;

	if (temp->fd >= 0)
		(void)close(temp->fd); /* what had to last was synced */
	temp->fd = -1;
	if (temp->name[0] == '\0')
		return;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	if (tmp >= 0)
		(void)unlinkat(tmp, temp->name, 0); /* else the next process sweeps it */
	temp->name[0] = '\0';
}

/* --- placing ---------------------------------------------------------------------------------------------- */

/* Moves `name` in directory `from` to `path`, making its parents; durable on return. */
static int place_at(struct local *local, int from, const char *name, const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *parent = strndup(path, slash ? (size_t)(slash - path) : 0);
	int rc = -ENOENT;

	if (!parent)
		return -ENOMEM;
	/* ENOENT: the parent was pruned meanwhile. */
	for (int i = 0; rc == -ENOENT && i < COMMIT_TRIES; i++) {
		AUTO_CLOSE int to = -1;
		size_t made;

		rc = local_mkdirs(local->root, parent, &to, &made);
		if (!rc && renameat(from, name, to, slash ? slash + 1 : path))
			rc = -errno;
		if (!rc) /* it is there; what is left is whether it will last */
			return fsync(to) || local_sync_made(local->root, parent, made) ? -EINPROGRESS : 0;
	}
	local_prune(local, parent); /* what was made for nothing */
	return rc;
}

/* A stamped directory at place->path, in one step. */
static int place_directory(struct local *local, const struct local_place *place, struct local_object *object)
{
	AUTO_CLOSE int tmp = -1;
	char name[LOCAL_ID_SIZE + 1] = "m";
	int rc;

	object->fd = local_open(local->root, place->path, O_RDONLY | O_DIRECTORY, 0);
	if (object->fd >= 0) {
		if (fstat(object->fd, &object->stat))
			return -errno;
		rc = local_stamp_write(local, object->fd, place, object);
		return rc || fsync(object->fd) == 0 ? rc : -EINPROGRESS;
	}
	if (object->fd != -ENOENT)
		return object->fd;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	if (tmp < 0)
		return tmp;
	local_new_id(local, NULL, name + 1);
	if (mkdirat(tmp, name, 0777))
		return -errno;
	object->fd = local_open(tmp, name, O_RDONLY | O_DIRECTORY, 0);
	rc = object->fd < 0 ? object->fd : fstat(object->fd, &object->stat) ? -errno : 0;
	if (!rc)
		rc = local_stamp_write(local, object->fd, place, object);
	if (!rc && fsync(object->fd))
		rc = -errno;
	if (!rc)
		rc = place_at(local, tmp, name, place->path);
	if (rc)
		(void)unlinkat(tmp, name, AT_REMOVEDIR); /* or the next process sweeps it */
	return rc;
}

/* The name of an odd object, for listings; before the object itself. */
static int place_odd_key(struct local *local, const struct local_place *place)
{
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	AUTO_FREE char *path = NULL;
	int rc;

	if (asprintf(&path, "%s.key", place->odd) < 0)
		return -ENOMEM;
	rc = tmp < 0 ? tmp : local_temp_make(local, &temp);
	if (!rc)
		rc = local_write_all(temp.fd, place->key, strlen(place->key), 0);
	if (!rc && fsync(temp.fd))
		rc = -errno;
	if (!rc)
		rc = place_at(local, tmp, temp.name, path);
	if (!rc)
		temp.name[0] = '\0';
	local_temp_discard(local, &temp);
	return rc;
}

/* The directory is no marker any more, and goes when nothing is in it. */
static void unmark_directory(struct local *local, const struct local_place *place)
{
	AUTO_CLOSE int fd = local_open(local->root, place->path, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return;
	local_stamp_drop(local, place, fd);
	(void)fsync(fd); /* on failure the marker may come back after a power cut: an empty directory, no content */
	local_prune(local, place->path);
}

static void unplace_odd(struct local *local, const struct local_place *place)
{
	AUTO_CLOSE int odd = local_open(local->root, LOCAL_ODD, O_RDONLY | O_DIRECTORY, 0);
	AUTO_FREE char *key = NULL;
	const char *name = strrchr(place->odd, '/') + 1;

	if (odd < 0 || unlinkat(odd, name, 0) || fsync(odd))
		return;
	if (asprintf(&key, "%s.key", name) >= 0)
		(void)unlinkat(odd, key, 0); /* a name without object is skipped by listings */
}

/* A stamped file in directory `from` becomes the current object. */
static int place_file(struct local *local, const struct local_place *place, int from, const char *name)
{
	int rc;

	if (place->kind == LOCAL_FILE)
		return place_at(local, from, name, place->path);
	rc = place_odd_key(local, place);
	if (!rc)
		rc = place_at(local, from, name, place->odd);
	if (!rc && place->kind == LOCAL_DIRECTORY)
		unmark_directory(local, place);
	return rc;
}

/* Takes the current object away; durable on return. */
static int unplace(struct local *local, const struct local_place *place, const struct local_object *current)
{
	AUTO_CLOSE int parent = -1;
	const char *name;
	const char *path = current->odd ? place->odd : place->path;
	int rc;

	if (!current->odd && place->kind == LOCAL_DIRECTORY) {
		unmark_directory(local, place);
		return 0;
	}
	rc = local_open_parent(local->root, path, &parent, &name);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (unlinkat(parent, name, 0) && errno != ENOENT)
		return -errno;
	if (fsync(parent))
		return -EINPROGRESS;
	if (current->odd)
		unplace_odd(local, place);
	else if (name != path) {
		AUTO_FREE char *dir = strndup(path, (size_t)(name - path - 1));

		if (dir)
			local_prune(local, dir);
	}
	return 0;
}

/* --- committing --------------------------------------------------------------------------------------------- */

static int check_condition(const struct local_commit *commit, const struct local_object *current, struct err *err)
{
	const struct put_condition *condition = &commit->condition;

	if (condition->if_none_match && current->fd >= 0)
		return err_set(err, ERR_PRECONDITION, "%s exists", commit->place->key);
	if (!condition->if_match)
		return 0;
	if (current->fd < 0 || strcmp(condition->if_match, current->info.etag) != 0)
		return err_set(err, ERR_PRECONDITION, "%s is not the object it was", commit->place->key);
	return 0;
}

/* Opens what is current, nothing being fine, and finishes what a crash left of a deletion. */
static int settle(struct local *local, const struct local_place *place, struct local_object *current, struct err *err)
{
	int rc = local_current(local, place, current);

	if (rc && rc != -ENOENT)
		return local_fail(err, rc, "opening", place->key);
	rc = local_past_settle(local, place, current);
	return rc ? local_fail(err, rc, "settling the past of", place->key) : 0;
}

/* An id later than anything the key has had. */
static int next_id(struct local *local, const struct local_place *place, const struct local_object *current,
		   char ret_id[static LOCAL_ID_SIZE])
{
	struct local_versions versions = {0};
	int rc;

	if (current->fd >= 0) {
		local_new_id(local, current->info.native_id, ret_id);
		return 0;
	}
	rc = local_past_load(local, place, current, &versions);
	if (rc)
		return rc;
	local_new_id(local, versions.count ? versions.items[0].id : NULL, ret_id);
	local_versions_clear(&versions);
	return 0;
}

static int describe(const struct local_commit *commit, const char *id, struct local_object *object)
{
	struct object_info *info = &object->info;

	*info = (struct object_info){
		.key = strdup(commit->place->key),
		.native_id = strdup(id),
		.etag = strdup(id),
		.storage_class = commit->storage_class ? strdup(commit->storage_class) : NULL,
		.content_type = commit->content_type ? strdup(commit->content_type) : NULL,
		.size = commit->temp->size,
		.modified_ns = clock_wall(),
		.flags = OBJECT_LATEST | (commit->temp->has_crc32c ? OBJECT_CRC32C : 0),
		.crc32c = commit->temp->crc32c,
	};
	if (!info->key || !info->native_id || !info->etag || (commit->storage_class && !info->storage_class) ||
	    (commit->content_type && !info->content_type))
		return -ENOMEM;
	return commit->meta ? meta_copy(&info->meta, commit->meta) : 0;
}

/* Directories without an object in them, and that no stamp makes one, are what a kill left of a put or a removal: a
 * file that needs the name has them away. -EISDIR: they are more than that. Whoever removes what was in them may take
 * them away meanwhile. */
static int give_way(struct local *local, const char *path)
{
	AUTO_CLOSE int parent = -1;
	const struct dirent *entry;
	const char *name;
	int rc = local_stamped_dir(local, path) ? -EISDIR : local_open_parent(local->root, path, &parent, &name);
	int fd = rc ? rc : local_open(parent, name, O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd); /* only read */
		return fd == -ENOENT ? 0 : rc ? rc : -EISDIR;
	}
	while (!rc && (entry = readdir(dir))) {
		AUTO_FREE char *below = NULL;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
			rc = -EISDIR;
		else
			rc = asprintf(&below, "%s/%s", path, entry->d_name) < 0 ? -ENOMEM : give_way(local, below);
	}
	(void)closedir(dir); /* only read */
	return rc ? rc : unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT ? -EISDIR : 0;
}

/* What can be known before anything is changed. */
static int check_clash(struct local *local, const struct local_place *place)
{
	AUTO_CLOSE int parent = -1;
	const char *name;
	struct stat st;
	int rc;

	if (place->kind == LOCAL_UNPATHED)
		return 0;
	rc = local_open_parent(local->root, place->path, &parent, &name);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (place->kind == LOCAL_DIRECTORY)
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	if (S_ISDIR(st.st_mode))
		return give_way(local, place->path);
	return S_ISREG(st.st_mode) ? 0 : -ELOOP;
}

/* Stamps the content, keeps what is there, and puts the new in its place: the last step is the visible one. */
static int replace(struct local *local, const struct local_commit *commit, struct local_object *current,
		   struct local_object *object)
{
	const struct local_place *place = commit->place;
	struct local_temp *temp = commit->temp;
	AUTO_CLOSE int tmp = -1;
	int rc = current->fd >= 0 ? local_past_keep(local, place, current) : 0;

	if (rc)
		return rc;
	if (place->kind == LOCAL_DIRECTORY && temp->size == 0) {
		rc = current->fd >= 0 ? local_sync_dir(local->root, place->past) : 0;
		if (!rc)
			rc = place_directory(local, place, object);
		if (!rc && current->odd)
			unplace_odd(local, place);
		return rc;
	}
	if (fstat(temp->fd, &object->stat))
		return -errno;
	rc = local_stamp_write(local, temp->fd, place, object);
	/* This sync commits the link into the past on journalling filesystems too, so that the next costs little. */
	if (!rc && fsync(temp->fd))
		rc = -errno;
	if (!rc && current->fd >= 0)
		rc = local_sync_dir(local->root, place->past);
	if (rc)
		return rc;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	rc = tmp < 0 ? tmp : place_file(local, place, tmp, temp->name);
	if (!rc || rc == -EINPROGRESS)
		temp->name[0] = '\0';
	return rc;
}

static int commit_locked(struct local *local, const struct local_commit *commit, struct object_info *ret_info,
			 struct err *err)
{
	const struct local_place *place = commit->place;
	struct local_object current = LOCAL_OBJECT_NONE;
	struct local_object object = LOCAL_OBJECT_NONE;
	char id[LOCAL_ID_SIZE];
	int rc = settle(local, place, &current, err);

	if (!rc)
		rc = check_condition(commit, &current, err);
	if (rc)
		goto out;
	rc = check_clash(local, place);
	if (!rc)
		rc = next_id(local, place, &current, id);
	if (!rc)
		rc = describe(commit, id, &object);
	if (!rc)
		rc = replace(local, commit, &current, &object);
	if (rc == -EINPROGRESS)
		rc = err_set(err, ERR_INDETERMINATE, "%s is stored, but could not be made durable", place->key);
	else if (rc)
		rc = local_fail(err, rc, "storing", place->key);
	else if (ret_info) {
		*ret_info = object.info;
		object.info = (struct object_info){0};
	}
out:
	local_object_clear(&current);
	local_object_clear(&object);
	return rc;
}

int local_commit(struct local *local, const struct call *call, const struct local_commit *commit,
		 struct object_info *ret_info, struct err *err)
{
	struct local_key_lock lock;
	int rc;

	/* A large file's bytes go to disk before the lock is taken: the sync under it is short then. */
	if (commit->temp->size > LOCAL_CHUNK && fdatasync(commit->temp->fd))
		return local_fail(err, -errno, "storing", commit->place->key);
	rc = local_lock_key(local, call, commit->place, &lock, err);
	if (rc)
		return rc;
	rc = commit_locked(local, commit, ret_info, err);
	local_unlock_key(local, &lock);
	return rc;
}

/* --- removing ------------------------------------------------------------------------------------------------- */

/* The newest old version becomes the current object, over what is there. */
static int bring_back(struct local *local, const struct local_place *place, const struct local_version *version)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	AUTO_CLOSE int past = -1;
	bool directory;
	int rc = local_past_open(local, place, version->id, &object);

	if (rc)
		return rc;
	directory = place->kind == LOCAL_DIRECTORY && object.info.size == 0;
	if (directory) {
		(void)close(object.fd); /* its stamp is read; the directory's descriptor takes the place */
		object.fd = -1;
		rc = place_directory(local, place, &object);
		if (!rc)
			unplace_odd(local, place);
		if (!rc)
			rc = local_past_drop(local, place, version);
	} else {
		past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
		rc = past < 0 ? past : place_file(local, place, past, version->id);
	}
	local_object_clear(&object);
	return rc;
}

/* The current object, for good: what was before it is current again. */
static int remove_current(struct local *local, const struct local_place *place, const struct local_object *current)
{
	struct local_version same = {0};
	struct local_versions versions = {0};
	int rc;

	memcpy(same.id, current->info.native_id, LOCAL_ID_SIZE);
	rc = local_past_drop(local, place, &same); /* invariant 1: else it would come back */
	if (rc && rc != -ENOENT)
		return rc;
	rc = local_past_load(local, place, current, &versions);
	if (rc)
		return rc;
	if (versions.count > 0 && !versions.items[0].marker)
		rc = bring_back(local, place, &versions.items[0]);
	else
		rc = unplace(local, place, current);
	if (!rc && S_ISREG(current->stat.st_mode))
		local_stamp_drop(local, place, current->fd);
	local_versions_clear(&versions);
	return rc;
}

static int remove_old(struct local *local, const struct local_place *place, const struct local_object *current,
		      const char *id)
{
	struct local_versions versions = {0};
	size_t at = 0;
	int rc = local_past_load(local, place, current, &versions);

	if (rc)
		return rc;
	while (at < versions.count && strcmp(versions.items[at].id, id) != 0)
		at++;
	if (at == versions.count)
		goto out;
	/* The marker on top is what hides the version under it. */
	if (current->fd < 0 && at == 0 && versions.items[0].marker && versions.count > 1 && !versions.items[1].marker) {
		struct local_object now = LOCAL_OBJECT_NONE;

		rc = local_past_unmark(local, place, id);
		if (!rc)
			rc = bring_back(local, place, &versions.items[1]);
		if (!rc)
			rc = local_current(local, place, &now);
		if (!rc)
			rc = local_past_settle(local, place, &now);
		local_object_clear(&now);
	} else {
		rc = local_past_drop(local, place, &versions.items[at]);
	}
out:
	local_versions_clear(&versions);
	return rc;
}

static int remove_with_marker(struct local *local, const struct local_place *place, struct local_object *current,
			      char ret_id[static LOCAL_ID_SIZE])
{
	static const struct local_object none = LOCAL_OBJECT_NONE;
	char id[LOCAL_ID_SIZE];
	int rc = next_id(local, place, current, id);

	if (!rc)
		rc = local_past_keep(local, place, current);
	if (!rc)
		rc = local_past_mark(local, place, id);
	if (!rc)
		rc = unplace(local, place, current);
	if (rc)
		return rc;
	/* From here on it is deleted; the marker's final name can wait for the next change of the key. */
	(void)local_past_settle(local, place, &none);
	memcpy(ret_id, id, LOCAL_ID_SIZE);
	return 0;
}

/* ret_id: "" when no marker was made. */
static int remove_locked(struct local *local, const struct local_place *place, const struct object_ref *ref,
			 char ret_id[static LOCAL_ID_SIZE], struct err *err)
{
	struct local_object current = LOCAL_OBJECT_NONE;
	bool is_current;
	int rc = settle(local, place, &current, err);

	if (rc)
		return rc;
	ret_id[0] = '\0';
	is_current = current.fd >= 0 && (!ref->native_id || strcmp(ref->native_id, current.info.native_id) == 0);
	if (ref->etag && strcmp(ref->etag, is_current       ? current.info.etag
					   : ref->native_id ? ref->native_id
							    : ref->etag)) {
		rc = err_set(err, ERR_PRECONDITION, "%s is not the object it was", ref->key);
		goto out;
	}
	if (is_current && ref->native_id)
		rc = remove_current(local, place, &current);
	else if (is_current)
		rc = remove_with_marker(local, place, &current, ret_id);
	else if (ref->native_id)
		rc = remove_old(local, place, &current, ref->native_id);
	if (rc == -EINPROGRESS)
		rc = err_set(err, ERR_INDETERMINATE, "%s is removed, but that could not be made durable", ref->key);
	else if (rc)
		rc = local_fail(err, rc, "removing", ref->key);
	if (ref->native_id)
		local_past_prune(local, place);
out:
	local_object_clear(&current);
	return rc;
}

int local_remove(struct backend *backend, const struct call *call, const struct object_ref *ref, char **ret_marker_id,
		 struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_key_lock lock;
	struct local_place place;
	char id[LOCAL_ID_SIZE];
	char *marker = NULL;
	int rc = local_place_init(&place, ref->key, err);

	if (rc)
		return rc;
	rc = local_lock_key(local, call, &place, &lock, err);
	if (rc)
		goto out;
	rc = remove_locked(local, &place, ref, id, err);
	local_unlock_key(local, &lock);
	if (rc || !ret_marker_id)
		goto out;
	if (id[0])
		marker = strdup(id);
	if (id[0] && !marker)
		rc = err_set(err, ERR_NO_MEMORY, "no memory for a version id");
	else
		*ret_marker_id = marker;
out:
	local_place_clear(&place);
	return rc;
}
