/*
 * catalog.h - what varve knows: inodes, names and their past, versions and
 * where they lie, and the journal of unfinished work.
 *
 * The catalog knows nothing of the network; it answers from the local machine
 * in microseconds. Every change is one atomic update that survives kill -9 when
 * the call returns, and power loss after catalog_sync.
 *
 * Two layers:
 *  - operations (catalog_create, catalog_rename, …): one whole update each, with all the rules (past names, journal
 *    entries, link counts, times, sequence). This is what fs/ calls.
 *  - records inside a closure (cat_*): for the few callers that compose their own.
 *
 * Units: times are wall ns; sizes bytes; `seq` is the catalog's commit sequence,
 * strictly increasing over names and versions alike, never reused.
 * Records returned own nothing unless a field says so; strings in them are
 * inline arrays or malloc'd and freed by the _clear function named.
 * Thread-safe, except a struct cat_txn, which belongs to its closure.
 */
#ifndef VARVE_CATALOG_H
#define VARVE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "ranges.h"

struct catalog;
struct cat_txn;

#define CAT_ROOT_INO 1
#define CAT_NAME_MAX 255
#define CAT_FILE_ID_SIZE 16
#define CAT_STORE_ID_SIZE 16

/* --- records ----------------------------------------------------------------------------------- */

#define CAT_OWN_KEYS ".varve/"                    /* keys that begin so are varve's own: no name maps to them */
#define CAT_OWN_VERSIONS CAT_OWN_KEYS "versions/" /* of these, where versions lie that have no other place */

enum cat_inode_flag {
	CAT_DIRTY = 1 << 0,      /* the cache file holds changes that no version has yet */
	CAT_LISTED = 1 << 1,     /* directory: all children are known, as of listed_at */
	CAT_UNRESOLVED = 1 << 2, /* known from a listing only: HEAD it before showing owner, mode, times */
	CAT_OWN_ATTRS = 1 << 3,  /* directory: chmod/chown/utimens/xattr gave it attributes worth a `d/` object */
	CAT_FLUSHED = 1 << 4,    /* with CAT_DIRTY: a close() or fsync(disk) acknowledged these changes */
	CAT_DISCARDED = 1 << 5,  /* unlinked before its first close: never to be stored */
	CAT_TAKEN = 1 << 6, /* file: others took or removed its last name. What is written to it yet is a conflict */
};

struct cat_inode {
	uint64_t ino;                      /* never reused */
	uint8_t file_id[CAT_FILE_ID_SIZE]; /* the same after a rebuild; in every object's metadata */
	uint32_t mode, uid, gid, nlink, rdev;
	uint32_t flags; /* enum cat_inode_flag */
	uint64_t size;
	int64_t atime, mtime, ctime;
	int64_t btime;     /* of a directory that was found: not there before; 0: it may have been there all along */
	uint64_t parent;   /* directory: its parent's ino (the root: itself). Else 0 */
	uint64_t past_dir; /* directory: the first that had this name, was removed and made again; 0: itself. Their past
			    * names are one past, under that one's number. Else 0 */
	uint64_t version;  /* file: seq of the current content version; 0: none yet. Else 0 */
	int64_t listed_at; /* directory: 0 never. Else 0 */
	uint64_t taken;    /* CAT_TAKEN: seq at which its last name ended; 0: not noted. Else 0 */
};

enum cat_how { /* how a name came to be, or ended */
	       CAT_HOW_CREATE,
	       CAT_HOW_LINK,
	       CAT_HOW_RENAME,  /* came from / went to the other name */
	       CAT_HOW_REPLACE, /* ended because another inode was renamed or adopted over it */
	       CAT_HOW_UNLINK,
	       CAT_HOW_ADOPT,  /* found in the store */
	       CAT_HOW_VANISH, /* removed in the store by others */
};

/* A live name. */
struct cat_name {
	uint64_t parent, ino;
	uint64_t since; /* seq at which this inode took this name */
	int64_t since_ns;
	uint64_t cookie; /* readdir position: > 0, grows within the parent, never reused there */
	uint32_t type;   /* mode & S_IFMT */
	enum cat_how how;
	uint64_t from_parent; /* how == RENAME: where it came from */
	char from_name[CAT_NAME_MAX + 1];
	char name[CAT_NAME_MAX + 1];
};

/* A name that ended. */
struct cat_past {
	uint64_t parent, ino, since, until;
	int64_t since_ns, until_ns;
	uint32_t type;
	enum cat_how began, ended;
	uint64_t from_parent, to_parent;
	uint32_t actor; /* uid that ended it */
	char from_name[CAT_NAME_MAX + 1];
	char to_name[CAT_NAME_MAX + 1];
	char name[CAT_NAME_MAX + 1];
};

enum cat_state { CAT_LOCAL, CAT_UPLOADING, CAT_STORED, CAT_FAILED, CAT_EXPIRED };
enum cat_origin {
	CAT_ORIGIN_CLOSE, /* a close of a dirty file */
	CAT_ORIGIN_FSYNC,
	CAT_ORIGIN_RECOVERED, /* dirty, never closed, found after a crash */
	CAT_ORIGIN_SUSPECT,   /* not provably whole after a power cut; never current */
	CAT_ORIGIN_EXTERNAL,  /* made by another tool */
	CAT_ORIGIN_CONFLICT,  /* ours, but somebody else's became current first */
};

enum cat_version_flag {
	CAT_HAS_CRC32C = 1 << 0,
	CAT_HELD = 1 << 1,       /* kept until the hold is lifted */
	CAT_RETAINED = 1 << 2,   /* kept until retain_until_ns */
	CAT_COMPLIANCE = 1 << 3, /* retained so that nobody can shorten it, where the store knows the difference */
	CAT_LOCKED = 1 << 4,     /* the store itself enforces what the flags above say */
	CAT_PRUNED = 1 << 5,     /* expired because an administrator's policy said so */
	CAT_FOUND = 1 << 6,      /* not made here: found in the store */
};

/* A content version: facts that never change, but state and protection. */
struct cat_version {
	uint64_t ino, seq;
	uint64_t size;
	int64_t mtime;     /* the file's own, then */
	int64_t commit_ns; /* when it was made; strictly increasing over all versions of one catalog made here */
	int64_t shown_ms;  /* what its name in .versions shows; strictly increasing within the inode */
	uint32_t identity; /* its 8 hex digits: stable across rebuilds (of file id and seq, or key and native id) */
	uint32_t mode, uid, gid; /* as they were */
	uint32_t author;         /* uid that wrote it */
	uint32_t crc32c;
	uint32_t flags;          /* enum cat_version_flag */
	int64_t retain_until_ns; /* wall, with CAT_RETAINED */
	enum cat_state state;
	enum cat_origin origin;
	char host[64];
};

/* Where a version lies; n counts from 0 and the live one is the highest in state CAT_STORED. */
struct cat_copy {
	uint64_t ino, seq;
	uint32_t n;
	uint32_t backend; /* 0: the first store */
	enum cat_state state;
	int64_t stored_ns;
	char *key;           /* malloc'd, never NULL */
	char *native_id;     /* malloc'd or NULL */
	char *etag;          /* malloc'd or NULL */
	char *storage_class; /* malloc'd or NULL */
};
void cat_copy_clear(struct cat_copy *copy);

/* What we believe is the current object of a key. */
enum cat_key_kind { CAT_KEY_DATA, CAT_KEY_LINK, CAT_KEY_DIRECTORY, CAT_KEY_SYMLINK, CAT_KEY_SPECIAL };
struct cat_key {
	uint32_t backend;
	enum cat_key_kind kind;
	uint64_t ino, seq; /* seq 0 for kinds without versions */
	char *native_id;   /* malloc'd or NULL */
	char *etag;        /* malloc'd or NULL */
};
void cat_key_clear(struct cat_key *key);

enum cat_job_type {
	CAT_JOB_UPLOAD, /* send version (ino, version), to where the inode's object belongs when it runs */
	CAT_JOB_PLACE,  /* make the store right for inode `ino` and for `key`, the key it was at when the job was made
			   (NULL: none): move its object to its oldest live name, put or drop link markers, directory,
			   symlink and special objects, remove what no live name owns */
	CAT_JOB_TREE,   /* directory `ino` was renamed away from `key`: make a PLACE job for everything beneath it */
	CAT_JOB_PRUNE,  /* remove every copy of version (ino, version), which is expired */
	CAT_JOB_LOCK,   /* tell the store how version (ino, version) is protected */
};
struct cat_job {
	uint64_t seq; /* order of commit, and the job's name */
	enum cat_job_type type;
	uint64_t ino, version;
	char *key;      /* malloc'd or NULL */
	uint32_t stage; /* the worker's own note of how far it came */
	uint32_t attempts;
	int64_t next_try_ns; /* wall; 0: now */
	char *note;          /* malloc'd or NULL: the last error, or an upload id */
	char *sent; /* malloc'd or NULL: PLACE: a key that an attempt may have put an object at, of which there is no
		       record */
};
void cat_job_clear(struct cat_job *job);

/* The cache file of an inode: what is in it. Local, never shipped. Numbers with one of the bits of CAT_EXTENT_OTHER
 * belong to whoever keeps the cache, for files of its own: the catalog stores their records and knows no more of them
 * than that CAT_EXTENT_VERSION with a seq is of a version that is not stored, and goes when that is. */
#define CAT_EXTENT_OTHER (UINT64_C(3) << 62)
#define CAT_EXTENT_VERSION (UINT64_C(1) << 63)
struct cat_extent {
	struct ranges present; /* bytes the cache file holds */
	struct ranges dirty;   /* of these, what version `base` does not have */
	uint64_t base;         /* seq of the version the clean ranges belong to; 0: none */
	uint64_t base_limit;   /* absent bytes at or past this offset are zeros, below they are in `base` */
	uint64_t base_ino;   /* whose version `base` is when the bytes were copied from elsewhere; 0: its own, and later
				ones have the same bytes there */
	uint64_t base_after; /* with base_ino: versions of its own after this one have them, too */
	uint8_t boot_id[16]; /* of the boot that wrote it */
	bool synced;         /* fdatasync of the cache file came before this record */
};
void cat_extent_clear(struct cat_extent *extent);

/* --- opening ------------------------------------------------------------------------------------ */

struct catalog_options {
	bool read_only;
	uint32_t root_uid, root_gid, root_mode; /* for a new catalog's root directory */
};
/* Opens or creates. -EBUSY: another process has it; -EPROTO: written by a newer varve. */
int catalog_open(const char *dir, const struct catalog_options *options, struct catalog **ret_catalog);
void catalog_close(struct catalog *catalog);
int catalog_sync(struct catalog *catalog);

/* The store this catalog belongs to: all zeros until set. */
int catalog_store_id(struct catalog *catalog, uint8_t ret_id[static CAT_STORE_ID_SIZE]);
int catalog_set_store_id(struct catalog *catalog, const uint8_t id[static CAT_STORE_ID_SIZE]);
/* Small named facts: lease epoch, ship cursor, capabilities seen. Value malloc'd. Local, never shipped. */
int catalog_setting_get(struct catalog *catalog, const char *name, char **ret_value);
int catalog_setting_put(struct catalog *catalog, const char *name, const char *value);

/* --- closures ------------------------------------------------------------------------------------- */

typedef int (*cat_closure)(struct cat_txn *txn, void *arg);
int catalog_view(struct catalog *catalog, cat_closure closure, void *arg);
int catalog_update(struct catalog *catalog, cat_closure closure, void *arg);

uint64_t cat_next_seq(struct cat_txn *txn);
/* Time of this update: wall clock, but always later than every earlier update's. */
int64_t cat_now(struct cat_txn *txn);

int cat_inode_get(struct cat_txn *txn, uint64_t ino, struct cat_inode *ret_inode);
int cat_inode_put(struct cat_txn *txn, const struct cat_inode *inode);
int cat_name_get(struct cat_txn *txn, uint64_t parent, const char *name, struct cat_name *ret_name);
int cat_version_get(struct cat_txn *txn, uint64_t ino, uint64_t seq, struct cat_version *ret_version);
int cat_version_put(struct cat_txn *txn, const struct cat_version *version);
/* Oldest first; seq in [from, to]. Non-zero from visit stops and is returned. */
typedef int (*cat_version_visit)(void *arg, const struct cat_version *version);
int cat_version_each(struct cat_txn *txn, uint64_t ino, uint64_t from, uint64_t to, cat_version_visit visit, void *arg);
/* The newest copy in state CAT_STORED. -ENOENT: not stored anywhere. */
int cat_copy_get(struct cat_txn *txn, uint64_t ino, uint64_t seq, struct cat_copy *ret_copy);
/* Every copy of the version that is still there, oldest first. */
typedef int (*cat_copy_visit)(void *arg, const struct cat_copy *copy);
int cat_copy_each(struct cat_txn *txn, uint64_t ino, uint64_t seq, cat_copy_visit visit, void *arg);
int cat_copy_add(struct cat_txn *txn, const struct cat_copy *copy); /* n is assigned */
/* Marks the copy of (ino, seq) at (key, native_id) as gone. */
int cat_copy_drop(struct cat_txn *txn, uint64_t ino, uint64_t seq, const char *key, const char *native_id);
/* The version lying at (key, id), id by cat_object_id. -ENOENT. */
int cat_place_get(struct cat_txn *txn, uint32_t backend, const char *key, const char *id, uint64_t *ret_ino,
		  uint64_t *ret_seq);
/* Does a version that we know lie at a key that begins with `prefix`? 1, 0, -errno. */
int cat_place_any(struct cat_txn *txn, uint32_t backend, const char *prefix);
/* What tells one object of a key from another: its native id; the etag where there is none, or it is "null". */
const char *cat_object_id(const char *native_id, const char *etag);
bool cat_same_object(const char *native_id, const char *etag, const char *other_native_id, const char *other_etag);
/* `by` has been written over what lay at `key`: on a store without versions that copy is gone, if the version has
 * another. And where it was of an inode that lives elsewhere, beneath a renamed directory whose job had not come so
 * far, a job is left that places that one. To be called before the new copy is added. */
int cat_key_overwritten(struct cat_txn *txn, const char *key, const struct cat_key *by);
/* A version that is recorded as stored and has no copy any more is CAT_EXPIRED from here on; *ret_expired: it is, now.
 */
int cat_expire_uncopied(struct cat_txn *txn, uint64_t ino, uint64_t seq, bool *ret_expired);
/* An object of the inode was just recorded at `key`. Where no name of it is there any more, since a directory above was
 * renamed or the name ended while the object was on its way, a job is left that clears the key. */
int cat_key_left(struct cat_txn *txn, uint64_t ino, const char *key);
/* Does an object with this metadata hold a version that we know, of whatever inode and wherever it lies? commit_ns 0:
 * not known. 1, 0, -errno. */
int cat_holds_known(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t seq,
		    int64_t commit_ns);
int cat_key_get(struct cat_txn *txn, uint32_t backend, const char *key, struct cat_key *ret_key);
int cat_key_put(struct cat_txn *txn, const char *key, const struct cat_key *record);
int cat_key_delete(struct cat_txn *txn, uint32_t backend, const char *key);
/* The records of all keys that begin with `prefix`. Non-zero from visit stops and is returned. */
typedef int (*cat_key_visit)(void *arg, const char *key, const struct cat_key *record);
int cat_key_each(struct cat_txn *txn, uint32_t backend, const char *prefix, cat_key_visit visit, void *arg);
/* seq is assigned when 0, and then written back. */
int cat_job_put(struct cat_txn *txn, struct cat_job *job);
int cat_job_delete(struct cat_txn *txn, uint64_t seq);
/* Whose file id it is: the first inode that had it (copies made by other tools carry it too), else one that has older
 * versions of that file. -ENOENT. */
int cat_file_find(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t *ret_ino);
int cat_extent_get(struct cat_txn *txn, uint64_t ino, struct cat_extent *ret_extent);
int cat_extent_put(struct cat_txn *txn, uint64_t ino, const struct cat_extent *extent);
int cat_extent_delete(struct cat_txn *txn, uint64_t ino);
int cat_symlink_get(struct cat_txn *txn, uint64_t ino, struct buf *ret_target);
int cat_symlink_put(struct cat_txn *txn, uint64_t ino, const char *target, size_t len);

/* Live names of an inode, oldest first. */
typedef int (*cat_link_visit)(void *arg, const struct cat_name *name);
int cat_link_each(struct cat_txn *txn, uint64_t ino, cat_link_visit visit, void *arg);
/* The oldest alone. -ENOENT: it has none. */
int cat_first_name(struct cat_txn *txn, uint64_t ino, struct cat_name *ret_name);

/* The inode's xattrs by name. Non-zero from visit, which must not touch the catalog, stops and is returned. */
typedef int (*cat_xattr_visit)(void *arg, const char *name, const void *value, size_t len);
int cat_xattr_each(struct cat_txn *txn, uint64_t ino, cat_xattr_visit visit, void *arg);

/*
 * The object key of (parent, name): the names' key components joined by '/',
 * no leading '/'. Names are decoded by escape.h; a digest name through the
 * component recorded when it was adopted. A clash name ("%~=x") is its plain
 * component. -ENOENT when an ancestor is gone.
 */
int cat_key_of_name(struct cat_txn *txn, uint64_t parent, const char *name, struct buf *ret_key);
/* Of the inode's oldest live name; a directory's without the trailing '/'. -ENOENT when it has none. */
int cat_key_of(struct cat_txn *txn, uint64_t ino, struct buf *ret_key);

/* --- operations on the live tree ------------------------------------------------------------------ */

/* Who asks and when: ctx for times and the audit trail. */
struct cat_actor {
	uint32_t uid, gid;
};

int catalog_getattr(struct catalog *catalog, uint64_t ino, struct cat_inode *ret_inode);
int catalog_lookup(struct catalog *catalog, uint64_t parent, const char *name, struct cat_inode *ret_inode);

struct cat_create {
	uint64_t parent;
	const char *name;
	uint32_t mode, uid, gid, rdev; /* mode with type */
	const char *target;            /* symlink */
	bool own_attrs;                /* directory: it is not what one found in the store would be: CAT_OWN_ATTRS */
	struct cat_actor actor;
};
/* -EEXIST, -ENOTDIR, -ENOENT (parent gone), -ENAMETOOLONG. A directory, symlink or special file gets its PLACE job; a
 * regular file gets none: it is stored at its first close. Updates the parent's mtime, ctime, nlink. */
int catalog_create(struct catalog *catalog, const struct cat_create *request, struct cat_inode *ret_inode);
int catalog_link(struct catalog *catalog, uint64_t ino, uint64_t parent, const char *name, struct cat_actor actor,
		 struct cat_inode *ret_inode);

/* What an unlink or a replacing rename did to the inode that lost a name. */
struct cat_unlinked {
	struct cat_inode inode; /* after; ino 0: nothing was replaced */
};
/* Unlink (directory false) or rmdir (true): -ENOENT, -EISDIR, -ENOTDIR, -ENOTEMPTY. The name goes to the past; a PLACE
 * job is made unless nothing was ever closed. The inode record stays: history reads it. */
int catalog_unlink(struct catalog *catalog, uint64_t parent, const char *name, struct cat_actor actor,
		   struct cat_unlinked *ret_unlinked);
int catalog_rmdir(struct catalog *catalog, uint64_t parent, const char *name, struct cat_actor actor,
		  struct cat_unlinked *ret_unlinked);

struct cat_rename {
	uint64_t parent;
	const char *name;
	uint64_t new_parent;
	const char *new_name;
	unsigned flags; /* RENAME_NOREPLACE, RENAME_EXCHANGE of <stdio.h> */
	struct cat_actor actor;
};
/* POSIX rename: -EEXIST, -EINVAL (into its own subtree), -ENOTEMPTY, -EISDIR, -ENOTDIR, -ENOENT; two names of one
 * inode: nothing happens. One update however large the tree; jobs PLACE for a file, TREE for a directory. */
int catalog_rename(struct catalog *catalog, const struct cat_rename *request, struct cat_unlinked *ret_replaced);

enum cat_set {
	CAT_SET_MODE = 1,
	CAT_SET_UID = 2,
	CAT_SET_GID = 4,
	CAT_SET_ATIME = 8,
	CAT_SET_MTIME = 16,
	CAT_SET_SIZE = 32,
	CAT_SET_CTIME = 64,
	CAT_DROP_PRIVILEGES = 128 /* setuid, and setgid where the group may execute; no field of `values` */
};
/* Takes the fields of `values` that mask names; ctime is now unless CAT_SET_CTIME. Never makes a version. */
int catalog_setattr(struct catalog *catalog, uint64_t ino, unsigned mask, const struct cat_inode *values,
		    struct cat_inode *ret_inode);

/* Names of a directory with cookie > after, in cookie order, at most max; 0 or what visit returned.
 * visit runs inside a view: it must not call the catalog. inode is NULL unless `with_inodes`. */
typedef int (*cat_readdir_visit)(void *arg, const struct cat_name *name, const struct cat_inode *inode);
struct cat_readdir {
	uint64_t parent, after;
	size_t max;
	bool with_inodes;
	const char *after_name; /* not NULL: in byte order of the names instead, those after this one */
};
int catalog_readdir(struct catalog *catalog, const struct cat_readdir *request, cat_readdir_visit visit, void *arg);
/* All of them, in pages with a view each; likewise. */
int catalog_each_name(struct catalog *catalog, uint64_t dir, cat_link_visit visit, void *arg);

/* xattrs: names without any rule of their own (fs/ops_xattr knows the namespaces). */
enum cat_xattr_mode { CAT_XATTR_SET, CAT_XATTR_CREATE, CAT_XATTR_REPLACE };
int catalog_xattr_get(struct catalog *catalog, uint64_t ino, const char *name, struct buf *ret_value); /* -ENODATA */
int catalog_xattr_set(struct catalog *catalog, uint64_t ino, const char *name, const void *value, size_t len,
		      enum cat_xattr_mode mode); /* -EEXIST, -ENODATA, -ENOSPC over 64 KiB in all */
int catalog_xattr_remove(struct catalog *catalog, uint64_t ino, const char *name);
int catalog_xattr_list(struct catalog *catalog, uint64_t ino, struct buf *ret_names); /* each with its NUL */

/* --- content --------------------------------------------------------------------------------------- */

/* Before the first change to a clean file: CAT_DIRTY is recorded with the extent, so that a crash is seen. */
int catalog_mark_dirty(struct catalog *catalog, uint64_t ino, const struct cat_extent *extent);

/* A close() or fsync(disk) acknowledges the changes so far: size, times and extent in one update; sets CAT_FLUSHED. */
int catalog_flush(struct catalog *catalog, uint64_t ino, uint64_t size, int64_t mtime, const struct cat_extent *extent);

struct cat_commit {
	uint64_t ino;
	uint64_t size;
	int64_t mtime;
	uint32_t author;
	enum cat_origin origin;
	uint32_t crc32c;
	bool has_crc32c;
	const struct cat_extent *extent; /* taken as it is: its base is the stored version that dirty is relative to */
	bool still_dirty;                /* more changes may follow without a new mark_dirty (fsync of an open file) */
};
/* Makes the next version of the file, state local, current, with its UPLOAD job; clears CAT_DIRTY and CAT_FLUSHED
 * (unless still_dirty). The dirty ranges stay in the extent record until the version is stored. */
int catalog_commit(struct catalog *catalog, const struct cat_commit *request, struct cat_version *ret_version);

/* The upload of (ino, seq) arrived as `copy`: state stored, copy and key records, job deleted. `extent`, if not NULL,
 * replaces the extent record in the same update. */
int catalog_stored(struct catalog *catalog, uint64_t job, const struct cat_copy *copy, const struct cat_extent *extent);

/* --- protection and pruning --------------------------------------------------------------------------- */

/*
 * How a version is protected from removal. A hold is set or lifted; retention
 * is set or extended, never shortened (-EPERM). -ENOENT: no such version, or
 * expired. Leaves a LOCK job, so that a store that can enforces it as well.
 */
struct cat_protection {
	uint64_t ino, seq;
	bool set_hold, hold;
	int64_t retain_until_ns; /* wall; 0: leave retention as it is */
	bool compliance;
};
int catalog_protect(struct catalog *catalog, const struct cat_protection *request);
/* The store was told: unless the protection changed meanwhile (-EAGAIN), deletes `job`; sets CAT_LOCKED if `enforced`.
 */
int catalog_protected(struct catalog *catalog, uint64_t job, const struct cat_version *as_told, bool enforced);
/*
 * Expires a version for good and leaves the PRUNE job that removes its copies.
 * -EBUSY: current, or what unsent changes are based on; -EPERM: held or
 * retained; -EAGAIN: not stored yet; -ENOENT: no such version, or expired.
 */
int catalog_prune(struct catalog *catalog, uint64_t ino, uint64_t seq);
/* What catalog_prune would say; changes nothing. */
int catalog_prunable(struct catalog *catalog, uint64_t ino, uint64_t seq);
/* The store refused to let a pruned version go: it is there as before. Deletes `job`. */
int catalog_prune_refused(struct catalog *catalog, uint64_t job, uint64_t ino, uint64_t seq);

/* --- journal ---------------------------------------------------------------------------------------- */

typedef int (*cat_job_visit)(void *arg, struct cat_job *job);
/* Jobs after the one of that seq (0: all), oldest first; at most max (0: no bound). Visitors may take over a job's
 * strings, leaving NULL; a non-zero result stops and is returned. */
int catalog_jobs(struct catalog *catalog, uint64_t after, size_t max, cat_job_visit visit, void *arg);
/* The same of one inode. */
int catalog_jobs_of(struct catalog *catalog, uint64_t ino, uint64_t after, cat_job_visit visit, void *arg);
int catalog_job_update(struct catalog *catalog, const struct cat_job *job);
int catalog_job_done(struct catalog *catalog, uint64_t seq);
/* Called after each update that added jobs, from the thread that made it, with no lock of the catalog but whatever that
 * thread holds: wakes the scheduler. */
void catalog_on_jobs(struct catalog *catalog, void (*notify)(void *arg), void *arg);

/* Inodes with CAT_DIRTY, for recovery at mount; and inodes without a live name that still have jobs or cache. */
typedef int (*cat_inode_visit)(void *arg, const struct cat_inode *inode);
int catalog_each_dirty(struct catalog *catalog, cat_inode_visit visit, void *arg);

/* --- history ------------------------------------------------------------------------------------------ */

/* One entry of a name's history: a version, and the instant it became what the name showed. */
struct cat_entry {
	struct cat_version version;
	int64_t time_ns;  /* the later of commit and binding */
	enum cat_how how; /* how the name got it: CREATE for a plain new version */
	bool is_current;
	char from_name[CAT_NAME_MAX + 1]; /* how == RENAME */
};
/*
 * history(name), oldest first: for each interval in which an inode held the
 * name, that inode's versions current in it; a pure rename to a free name
 * brings the old name's history before it.
 * -ENOENT when the name never lived.
 */
typedef int (*cat_entry_visit)(void *arg, const struct cat_entry *entry);
int catalog_history(struct catalog *catalog, uint64_t parent, const char *name, cat_entry_visit visit, void *arg);

/* Every name that ever lived in the directory, each once, with the type it last had and whether it lives. */
typedef int (*cat_ever_visit)(void *arg, const char *name, uint32_t type, bool live);
int catalog_names_ever(struct catalog *catalog, uint64_t parent, cat_ever_visit visit, void *arg);

/*
 * A directory removed and made again under its name goes on with the past of the one before: history, names ever and
 * past names ask for either of them and tell of all. ret_dir: the number they share (inode.past_dir).
 */
int catalog_past_dir(struct catalog *catalog, uint64_t dir, uint64_t *ret_dir);

/* Past names of one directory (name NULL) or one name, in order of name, then time. */
typedef int (*cat_past_visit)(void *arg, const struct cat_past *past);
int catalog_past(struct catalog *catalog, uint64_t parent, const char *name, cat_past_visit visit, void *arg);

/* --- the store's own contents ---------------------------------------------------------------------------- */

/* An object as a listing or a HEAD shows it. */
struct cat_found {
	const char *name;      /* file name in the directory, escaped by escape.h */
	const char *component; /* key component when the name is a digest; else NULL */
	const char *key;
	const char *native_id, *etag, *storage_class; /* may be NULL */
	uint64_t size;
	int64_t modified_ns;
	bool directory; /* a common prefix or a `d/` marker */
	bool resolved;  /* the fields below come from a HEAD */
	uint32_t mode, uid, gid;
	int64_t mtime;
	const char *target;     /* symlink */
	const char *attributes; /* xattrs: name, NUL, value, NUL, and so on; those that the inode has already stay */
	size_t attributes_len;
	const uint8_t *file_id; /* our metadata, or NULL */
	uint64_t seq;           /* our metadata, or 0 */
	int64_t commit_ns;
	enum cat_origin origin; /* counts with file_id and seq, as do the next */
	const char *host;       /* or NULL */
	uint32_t author, crc32c;
	bool has_author, has_crc32c;
	const uint8_t *link_id; /* a hard-link marker: file id of the inode this name belongs to; NULL: not one. The
				   name is an empty file until that inode is known, and then becomes one of its links */
};
/*
 * What of our own work ends while a listing of this prefix (with its '/', or "")
 * is under way. Begun before the first page, given to catalog_adopt, freed
 * before the catalog is closed. 0, -ENOMEM.
 */
struct cat_watch;
int catalog_watch(struct catalog *catalog, const char *prefix, struct cat_watch **ret);
void cat_watch_free(struct cat_watch *watch); /* NULL is fine */

/*
 * Takes what a complete listing of `dir` showed into the catalog: unknown
 * objects become inodes with a version and a copy (origin external unless the
 * metadata is ours); an object that replaced the one we knew becomes a new
 * inode that takes the name (CAT_HOW_ADOPT); a stored name that is no longer
 * there goes to the past (CAT_HOW_VANISH). Names with local changes or jobs
 * pending on their inode or key are left alone. Sets CAT_LISTED and listed_at.
 * Unresolved entries get default modes of the options and CAT_UNRESOLVED.
 * ret_changed, may be NULL: called for every ino or name that must be dropped from the kernel's cache.
 */
struct cat_adopt {
	uint64_t dir;
	const struct cat_found *found;
	size_t count;
	uint32_t file_mode, dir_mode, uid, gid; /* defaults for what says nothing */
	int64_t listed_at;             /* when the listing was begun: names changed here since are left alone */
	const struct cat_watch *watch; /* likewise: those whose jobs ended since; may be NULL when there can be none */
	bool hidden;                   /* the listing does not show what is there: nothing vanishes for want of it */
	void (*changed)(void *arg, uint64_t parent, const char *name, uint64_t ino);
	void *changed_arg;
};
int catalog_adopt(struct catalog *catalog, const struct cat_adopt *request);
/* Who must be told of an ino or name that is to be dropped from the kernel's cache. */
struct cat_watcher {
	void (*changed)(void *arg, uint64_t parent, const char *name, uint64_t ino);
	void *arg;
};
/* A HEAD's answer for one CAT_UNRESOLVED inode; clears the flag. A name that turns out to be a hard link is another
 * inode's from here on, and that is *ret_inode. `watcher` may be NULL. */
int catalog_resolve(struct catalog *catalog, uint64_t ino, const struct cat_found *found,
		    const struct cat_watcher *watcher, struct cat_inode *ret_inode);
/* Older versions the store has of this inode's key, in any order: those we do not know become versions before its
 * oldest own one (or between, by time). */
int catalog_adopt_versions(struct catalog *catalog, uint64_t ino, const struct cat_found *found, size_t count);

/* Versions of the file with this id that the store has under keys of their own: conflicts of another writer, and what
 * was preserved there. -ENOENT: no file that we know has the id. */
int catalog_adopt_aside(struct catalog *catalog, const uint8_t file_id[static CAT_FILE_ID_SIZE],
			const struct cat_found *found, size_t count);

/*
 * A name that the store knows only from the past: a key that holds older
 * versions and nothing current, or a prefix under which nothing is left. It
 * becomes a past name that ended by CAT_HOW_VANISH: a file's versions that we do
 * not know become those of a new inode, or of the one that had the name last
 * when they are older than what that one held. What we know, a name that lives,
 * and keys with a record or a job are left alone; so it may be repeated.
 */
struct cat_deleted {
	uint64_t dir;
	const char *name, *component, *key; /* as of struct cat_found */
	bool directory;
	int64_t since_ns, until_ns; /* until: of the delete marker. 0: not known. Since, where a directory had the name
				       before: of the oldest beneath that came after its end and nobody knows */
	uint32_t file_mode, dir_mode, uid, gid;
	const struct cat_found *versions; /* of a file, in any order */
	size_t count;
};
int catalog_adopt_deleted(struct catalog *catalog, const struct cat_deleted *deleted);
/*
 * An adopted directory of which nothing is there but what was deleted: some stores list such prefixes as if something
 * were. When it has neither names nor an object of its own its name goes to the past, and 1 is returned with its
 * parent, which may be the next; else 0.
 */
struct cat_phantom {
	uint64_t ino;
	int64_t since_ns, until_ns; /* when it was there; 0: not known */
};
int catalog_phantom(struct catalog *catalog, const struct cat_phantom *phantom, uint64_t *ret_parent);
/* The key, with its '/' behind, of a directory that lives, or of one that catalog_adopt or catalog_adopt_deleted let
 * vanish. The root's is empty. -ENOENT: of any other. */
int cat_key_ever(struct cat_txn *txn, uint64_t dir, struct buf *ret_key);

/*
 * The store was asked and has no such object any more: the copy of (ino, seq)
 * that lay there is dropped, and a version without any other copy is CAT_EXPIRED
 * from here on. A live name that showed it is left to the next listing.
 */
struct cat_gone {
	uint64_t ino, seq;
	const char *key, *native_id, *etag; /* of the copy */
};
struct cat_gone_effect {
	bool dropped;    /* false: no such copy was believed to be there */
	bool expired;    /* it was the last one */
	uint64_t parent; /* of the live name that showed the version; 0: none did */
	char name[CAT_NAME_MAX + 1];
};
int catalog_gone(struct catalog *catalog, const struct cat_gone *gone, struct cat_gone_effect *ret_effect);
/* A directory's own object was looked for after `since_ns` and is not in the store: its record goes, unless a job is
 * pending or the directory has changed since. */
int catalog_marker_gone(struct catalog *catalog, uint64_t dir, int64_t since_ns);
/* The copy, of which no native id was known, has this one. */
int catalog_copy_named(struct catalog *catalog, const struct cat_gone *copy, const char *native_id);

/* A walk over everything, a batch at a time: zero it to begin. */
struct cat_cursor {
	unsigned char at[512];
	size_t len;
	bool done;
};
/* All copies in state CAT_STORED, and all key records. Looks at no more than `max` rows; visit runs inside a view. */
int catalog_copies(struct catalog *catalog, struct cat_cursor *cursor, size_t max, cat_copy_visit visit, void *arg);
int catalog_keys(struct catalog *catalog, struct cat_cursor *cursor, size_t max, cat_key_visit visit, void *arg);
/* The upload of (ino, seq) found somebody else's object where its own belongs: the version is CAT_ORIGIN_CONFLICT from
 * here on, and its object lies aside. */
int catalog_conflict(struct catalog *catalog, uint64_t ino, uint64_t seq);

/* --- shipping, rebuild, check ------------------------------------------------------------------------------ */

typedef int (*cat_sink)(void *arg, const void *bytes, size_t len);
typedef ssize_t (*cat_source)(void *arg, void *ret_bytes, size_t cap); /* 0 at the end */

/* Newest update number. */
uint64_t catalog_number(struct catalog *catalog);
/* Everything others would need of updates (after, *ret_upto], as one self-checking segment (header with store id and
 * range, zstd body, CRC). -ENODATA when nothing of it is for shipping (*ret_upto is set all the same), -ESTALE when
 * the log no longer reaches back to `after`: ship a snapshot. */
int catalog_export_segment(struct catalog *catalog, uint64_t after, cat_sink sink, void *arg, uint64_t *ret_upto);
/* The whole portable state as of one update number; reads in short views, so writers go on. */
int catalog_export_snapshot(struct catalog *catalog, cat_sink sink, void *arg, uint64_t *ret_number);
/* Applies a snapshot or a segment; segments must follow on. -EBADMSG: damaged, nothing was applied;
 * -ESTALE: does not follow; -EXDEV: of another store. */
int catalog_import(struct catalog *catalog, cat_source source, void *arg);
/* After the last import of a rebuild, once: what lived only on the lost machine is let go (a version that never arrived
 * becomes CAT_FAILED and the file shows the newest stored one; dirty marks end), and the lost journal is made anew:
 * PLACE jobs for whatever does not lie where its name says. May be repeated. */
int catalog_rebuilt(struct catalog *catalog);
/* The log up to here is safe in the store. */
void catalog_shipped(struct catalog *catalog, uint64_t upto);

struct cat_problem {
	const char *kind; /* "dangling name", "link count", "version without copy", … */
	uint64_t ino;
	char detail[256];
};
typedef void (*cat_problem_visit)(void *arg, const struct cat_problem *problem);
struct cat_check {
	uint64_t inodes, names, past_names, versions, copies, jobs, problems;
};
/* Reads everything and compares every record with those it must agree with. 0 when it could read; see problems. */
int catalog_check(struct catalog *catalog, cat_problem_visit visit, void *arg, struct cat_check *ret_check);

struct cat_figures {
	uint64_t updates, log_bytes, map_bytes, memtable_bytes, jobs;
};
void catalog_figures(struct catalog *catalog, struct cat_figures *ret_figures);

#endif
