/*
 * local.h - the file:// backend's own header: what its source files share.
 *
 * The directory as other tools see it
 *      a/b                    the object of key "a/b"
 *      d/                     a directory; the object of key "d/" when it is stamped or holds nothing we can see
 *      .varve/catalog/…       keys like any other
 * and what is ours alone, never listed, refused as keys:
 *      .varve/tmp/…           content on its way; who opens the store alone removes what dead processes left there
 *      .varve/odd/DIGEST      objects whose keys no path can hold; DIGEST.key is the key
 *      .varve/objects/lock    byte n is the lock of all keys that hash to n; who may write holds LOCAL_PRESENT, shared
 *      .varve/objects/…       the past, as a tree of its own so that it lists in key order from any prefix:
 *              [d/COMPONENT/]…k/COMPONENT/     of key "…/COMPONENT"
 *              [d/COMPONENT/]…m/               of the directory marker "…/"
 *              odd/DIGEST/                     of an odd key, which the file `key` in it names
 *          and in each such folder
 *              ID              an old version's content, stamped
 *              ID.d            a delete marker
 *              deleting        holds the ID of a delete marker being placed or taken away: it counts exactly while
 *                              the key has no current object, which makes both changes one atomic step
 *              INODE-MTIME-SIZE.s   a stamp that did not fit an extended attribute
 *
 * Invariants
 *  1. What has a key's path is the current object. A content file in the past with the current object's id is the
 *     same object (a crash came between keeping and replacing it) and is not shown.
 *  2. Everything durable comes before what makes it visible: content and stamp, then the kept old version, then the
 *     rename, then the directory.
 *  3. A file is ours while its inode, size and mtime are those in its stamp; else it is another tool's, and its id
 *     derives from inode, size, mtime and ctime. Being kept as a version stamps it with the id it had.
 *  4. Changing a key needs its lock. Reading needs none: an object is read through one descriptor, and it enters the
 *     past before it leaves its path.
 *  5. A kill may leave directories in which nothing is. They count as what other tools made, until a file needs the
 * name.
 */
#ifndef VARVE_BACKENDS_LOCAL_H
#define VARVE_BACKENDS_LOCAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lock.h"
#include "table.h"
#include "varve/backend.h"

#define LOCAL_ID_SIZE 25        /* 16 hex digits of time, 8 more, NUL */
#define LOCAL_KEY_MAX 4000      /* any key */
#define LOCAL_TREE_KEY_MAX 2000 /* as a path: its place in the past must fit PATH_MAX too, and may be twice as long */
#define LOCAL_META_MAX 65536
#define LOCAL_NAME_MAX 255
#define LOCAL_CHUNK ((size_t)1 << 20)

#define LOCAL_OWN ".varve"
#define LOCAL_TMP LOCAL_OWN "/tmp"
#define LOCAL_ODD LOCAL_OWN "/odd"
#define LOCAL_PAST LOCAL_OWN "/objects"
#define LOCAL_LOCK LOCAL_PAST "/lock"
#define LOCAL_PRESENT ((off_t)1 << 62) /* above all keys' bytes */

#define LOCAL_WALKERS 8

struct local {
	const struct backend_ops *ops;
	char *path; /* absolute */
	char *description;
	bool create, read_only;
	_Atomic int root;    /* descriptor of the directory; -1 until probed, then for good */
	_Atomic int lock_fd; /* of LOCAL_LOCK; -1 until probed for writing */
	struct backend_counters counters;

	struct lock lock; /* guards what follows, and the first probe */
	pthread_cond_t unlocked;
	struct list held;                            /* struct local_key_lock: keys this process works on */
	int64_t last_ns;                             /* time in the newest id */
	struct local_walker *walkers[LOCAL_WALKERS]; /* of listings between two pages, oldest first */
	uint64_t walker_serial;
};

/* --- local_path.c: keys and paths ---------------------------------------------------------------- */

enum local_kind {
	LOCAL_FILE,
	LOCAL_DIRECTORY, /* key ends in '/': a directory, or an odd file when it has content */
	LOCAL_UNPATHED,  /* an odd file only */
};

/* Where things of one key are, relative to the root. */
struct local_place {
	const char *key; /* borrowed */
	enum local_kind kind;
	char *path; /* LOCAL_UNPATHED: NULL */
	char *odd;  /* LOCAL_FILE: NULL */
	char *past;
	uint64_t lock; /* offset in LOCAL_LOCK */
};
int local_place_init(struct local_place *ret_place, const char *key, struct err *err);
void local_place_clear(struct local_place *place);

/* True for keys, and beginnings of keys up to a slash, that lie in our private folders. */
bool local_is_private(const char *key);
/* Paths of the directory and of its past for "" or a prefix that ends in '/'. -EINVAL when no path can be it. */
int local_level_paths(const char *prefix, char **ret_path, char **ret_past);

/* openat2 that never leaves the root and follows no symlink. A descriptor or -errno. */
int local_open(int root, const char *path, int flags, mode_t mode);
/* The directory that holds `path`; *ret_name is its last component, within `path`. */
int local_open_parent(int root, const char *path, int *ret_fd, const char **ret_name);
/* Makes what is missing of directory `path` ("": the root). *ret_made: where in `path` the first directory made begins,
 * or SIZE_MAX. -ENOENT: another thread removed a part meanwhile. */
int local_mkdirs(int root, const char *path, int *ret_fd, size_t *ret_made);
/* Makes the entries of the directories made durable. */
int local_sync_made(int root, const char *path, size_t made);
int local_sync_dir(int root, const char *path);
/* Removes directory `path` and its ancestors while they are empty and unstamped. */
void local_prune(struct local *local, const char *path);
/* The errno as a kind: what stands in the way of a path is a conflict. Returns -errno of the kind. */
int local_fail(struct err *err, int error, const char *what, const char *key);

/* --- local_stamp.c: what we know of a file beyond its content --------------------------------------- */

/* An object, open. */
struct local_object {
	int fd; /* -1: none */
	struct stat stat;
	struct object_info info;
	bool stamped; /* invariant 3 */
	bool odd;     /* lies at place->odd */
};
#define LOCAL_OBJECT_NONE                                                                                              \
	{                                                                                                              \
		.fd = -1                                                                                               \
	}
void local_object_clear(struct local_object *object);

/* A new id, later than `after` (NULL: any). */
void local_new_id(struct local *local, const char *after, char ret_id[static LOCAL_ID_SIZE]);
bool local_id_valid(const char *id);
/* Writes the stamp for the file behind `fd`, final but for it; in place->past when no attribute can hold it. */
int local_stamp_write(struct local *local, int fd, const struct local_place *place, const struct local_object *object);
/* Fills stat, info, stamped from the file or directory behind object->fd. */
int local_stamp_read(struct local *local, const struct local_place *place, struct local_object *object);
/* Takes the stamp away, wherever it is. */
void local_stamp_drop(struct local *local, const struct local_place *place, int fd);
/* Is directory `path` the object of key "path/", rather than there for what is in it? */
bool local_stamped_dir(struct local *local, const char *path);

/* --- local_past.c: old versions ---------------------------------------------------------------------- */

struct local_version {
	char id[LOCAL_ID_SIZE];
	bool marker;
};
struct local_versions {
	struct local_version *items; /* newest first */
	size_t count;
};
void local_versions_clear(struct local_versions *versions);

/* The key's past as it stands beside `current` (fd -1: none). */
int local_past_load(struct local *local, const struct local_place *place, const struct local_object *current,
		    struct local_versions *ret_versions);
/* The folder, made when missing (with the key's name in it when odd). */
int local_past_make(struct local *local, const struct local_place *place, int *ret_fd);
/* One old version. -ENOENT: no such content. */
int local_past_open(struct local *local, const struct local_place *place, const char *id,
		    struct local_object *ret_object);
/* The object becomes an old version too; durable once the folder is synced. Under the key's lock, as all below. */
int local_past_keep(struct local *local, const struct local_place *place, struct local_object *object);
/* Finishes what a crash left between. */
int local_past_settle(struct local *local, const struct local_place *place, const struct local_object *current);
/* A delete marker that counts once the current object is gone; local_past_settle makes it final. */
int local_past_mark(struct local *local, const struct local_place *place, const char *id);
/* The marker back to that state. */
int local_past_unmark(struct local *local, const struct local_place *place, const char *id);
int local_past_drop(struct local *local, const struct local_place *place, const struct local_version *version);
/* Removes the folder and its ancestors when nothing is left. */
void local_past_prune(struct local *local, const struct local_place *place);

/* --- local_object.c: the current object, and changing it ------------------------------------------------ */

struct local_key_lock {
	struct list node;
	uint64_t offset;
};
int local_lock_key(struct local *local, const struct call *call, const struct local_place *place,
		   struct local_key_lock *lock, struct err *err);
void local_unlock_key(struct local *local, struct local_key_lock *lock);

/* -ENOENT: there is none. */
int local_current(struct local *local, const struct local_place *place, struct local_object *ret_object);
/* What `ref` names; checks its etag. */
int local_find(struct local *local, const struct local_place *place, const struct object_ref *ref,
	       struct local_object *ret_object, struct err *err);

/* Content on its way to a key. */
#define LOCAL_TEMP_SIZE 64
struct local_temp {
	int fd;                     /* -1: none */
	char name[LOCAL_TEMP_SIZE]; /* in LOCAL_TMP; "": moved into place */
	uint64_t size;
	uint32_t crc32c;
	bool has_crc32c;
};
#define LOCAL_TEMP_NONE                                                                                                \
	{                                                                                                              \
		.fd = -1                                                                                               \
	}
int local_temp_make(struct local *local, struct local_temp *ret_temp);
void local_temp_discard(struct local *local, struct local_temp *temp);

/* What a new object shall be: the temp file, and what was said about it. */
struct local_commit {
	const struct local_place *place;
	struct local_temp *temp;
	const struct meta *meta;
	const char *content_type, *storage_class;
	struct put_condition condition;
};
int local_commit(struct local *local, const struct call *call, const struct local_commit *commit,
		 struct object_info *ret_info, struct err *err);
int local_remove(struct backend *backend, const struct call *call, const struct object_ref *ref, char **ret_marker_id,
		 struct err *err);

/* --- local_io.c: moving bytes ---------------------------------------------------------------------------- */

int local_check(const struct call *call, struct err *err);
struct local_range {
	int fd;
	uint64_t offset, length;
};
struct local_spot {
	int fd;
	uint64_t offset;
};
/* Content of a request to a spot where the file has zeros for as long as it is; checks its CRC. Blocks of zeros are not
 * written: the file may end before the content does. */
int local_store(const struct call *call, const struct put_request *request, const struct local_spot *to,
		uint32_t *ret_crc32c, struct err *err);
/* A range of a file to such a spot: blocks shared where the filesystem can, holes kept. */
int local_copy(const struct call *call, const struct local_range *from, const struct local_spot *to, struct err *err);
/* Makes the range one. 0 or -errno. */
int local_clear(const struct local_range *range);
/* The same into the temp file; and to its end, has_crc32c left alone. */
int local_fill(const struct call *call, const struct put_request *request, struct local_temp *temp, struct err *err);
int local_append(const struct call *call, const struct local_range *from, struct local_temp *temp, struct err *err);
/* A range to a sink, with its CRC. */
int local_drain(const struct call *call, const struct local_range *from, const struct get_request *request,
		uint32_t *ret_crc32c, struct err *err);
int local_write_all(int fd, const void *bytes, size_t len, uint64_t offset);
/* Range asked for, within the size. */
int local_range_of(const struct get_request *request, uint64_t size, struct local_range *ret_range, struct err *err);

/* --- local_list.c ------------------------------------------------------------------------------------------ */

struct local_walker;
int local_list(struct backend *backend, const struct call *call, const struct list_request *request,
	       struct list_page *ret_page, struct err *err);
void local_walker_free(struct local_walker *walker);
/* Does the directory hold anything that is an object or a directory to us? */
int local_dir_bare(int fd, const char *path, bool *ret_bare);

/* --- local_upload.c ------------------------------------------------------------------------------------------ */

int local_upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
		       char **ret_upload_id, struct err *err);
int local_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		      const struct put_request *body, const struct upload_slot *slot, struct upload_part *ret_part,
		      struct err *err);
int local_upload_part_copy(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			   const struct get_request *source, const struct upload_slot *slot,
			   struct upload_part *ret_part, struct err *err);
int local_upload_complete(struct backend *backend, const struct call *call, const struct put_request *request,
			  const char *upload_id, const struct upload_part *parts, size_t count,
			  struct object_info *ret_info, struct err *err);
int local_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		       struct err *err);
/* Removes a file or an upload's folder from LOCAL_TMP. */
void local_upload_sweep(int tmp_fd, const char *name);

extern const struct backend_ops local_backend_ops;

#endif
