/*
 * catalog_internal.h - what the files of catalog/ share: the open catalog, a
 * transaction, scans by batch, and the building blocks of the operations.
 *
 * Numbers (sequence, inode) and times are handed out from memory and leased
 * from the store by ranges: a lease counts only once the update that wrote it
 * has succeeded (`leased`), so a failed update can waste numbers but a crash
 * can never bring one back. kv runs one update at a time, which is the guard of
 * `next`; it is atomic because views and figures may look.
 */
#ifndef VARVE_CATALOG_INTERNAL_H
#define VARVE_CATALOG_INTERNAL_H

#include <stdatomic.h>

#include "catalog.h"
#include "catalog/kv.h"
#include "catalog/schema.h"
#include "lock.h"

struct lease {
	_Atomic uint64_t next;   /* the next number to give */
	_Atomic uint64_t leased; /* numbers below are ours, and the store says so */
};

/* Distance of two sequence numbers: leaves room for versions found later in the store (adopt_versions). */
#define CAT_SEQ_STRIDE 16
#define CAT_SEQ_FIRST (UINT64_C(1) << 48) /* below: versions found older than all that were known of their file */
#define CAT_SEQ_MAX (UINT64_C(1) << 62)   /* a sequence number from a stranger's metadata beyond this is not believed */
#define CAT_DEPTH_MAX 4096                /* directories above one name; beyond it the tree is a ring */

struct catalog {
	struct kv *kv;
	bool read_only;
	struct lease seq, ino, clock;
	_Atomic int64_t jobs; /* how many there are */
	char host[64];
	struct lock notify_lock; /* guards the two below; LOCK_LEAF */
	void (*notify)(void *arg);
	void *notify_arg;
	struct lock watch_lock;    /* guards the next; LOCK_LEAF */
	struct cat_watch *watches; /* listings under way */
};

struct cat_txn {
	struct catalog *catalog;
	struct kv_txn *kv;
	bool writing;
	int error;   /* sticky: fails the update where a function has no way to return it */
	int64_t now; /* 0: not asked yet */
	int64_t jobs_added, jobs_deleted;
	uint64_t seq_leased, ino_leased, clock_leased; /* leases written by this update; 0: none */
	struct buf scratch;                            /* for encoding one value */
};

/* Looks the counters up again after records came in from outside (import): never goes back. */
int catalog_reload_counters(struct catalog *catalog);
/* Later cat_next_seq give more than `seq`. */
void cat_seq_above(struct cat_txn *txn, uint64_t seq);
uint64_t cat_next_ino(struct cat_txn *txn);

/* --- rows ------------------------------------------------------------------------------------- */

int cat_get(struct cat_txn *txn, const struct schema_key *key, struct kv_bytes *ret_value);
int cat_put(struct cat_txn *txn, const struct schema_key *key, const struct buf *value);
int cat_put_empty(struct cat_txn *txn, const struct schema_key *key);
int cat_delete(struct cat_txn *txn, const struct schema_key *key);
/* txn->scratch, empty. */
struct buf *cat_scratch(struct cat_txn *txn);
/* Logs that the record is damaged and returns `rc`; passes every rc but -EBADMSG through silently. */
int cat_check_row(struct kv_bytes key, int rc);

/*
 * Copies of consecutive rows: unlike in a kv_scan visitor, anything may be done
 * while walking them. rows_next fetches the next batch of at most `batch` rows of
 * the range that are after the last one.
 */
struct rows {
	struct schema_key from, to;
	enum kv_direction direction;
	size_t batch; /* rows at once; 0: 512 */
	bool done;
	struct buf bytes;
	struct row {
		size_t key, key_len, value, value_len; /* offsets into bytes */
	} * cells;
	size_t count, cap, at;
};
void rows_open(struct rows *rows, const struct schema_key *prefix, enum kv_direction direction);
void rows_close(struct rows *rows);
/* 0, -ENOENT at the end. The bytes live until the next call. */
int rows_next(struct rows *rows, struct cat_txn *txn, struct kv_bytes *ret_key, struct kv_bytes *ret_value);
/* Is there any row with this prefix? 1, 0 or -errno. */
int cat_any(struct cat_txn *txn, const struct schema_key *prefix);

/* --- names (names.c, records.c) ------------------------------------------------------------------ */

int cat_name_check(const char *name); /* 0, -EINVAL, -ENAMETOOLONG */
/* The key component of a name in `parent`. -EINVAL: no key maps to it. */
int cat_component_of(struct cat_txn *txn, uint64_t parent, const char *name, struct buf *ret_component);
int cat_component_put(struct cat_txn *txn, uint64_t parent, const char *name, const char *component);
/* A live directory: -ENOENT, -ENOTDIR. */
int cat_dir_get(struct cat_txn *txn, uint64_t ino, struct cat_inode *ret_dir);
/* 1 when it has a live child, 0, -errno. */
int cat_dir_any(struct cat_txn *txn, uint64_t ino);
/* Writes name, cookie (name->cookie 0: from since) and link. */
int cat_bind(struct cat_txn *txn, struct cat_name *name);
struct cat_ending {
	enum cat_how how;
	uint64_t until;
	uint64_t to_parent; /* how == CAT_HOW_RENAME */
	const char *to_name;
	uint32_t actor;
};
/* Takes all of these away without a trace. */
int cat_unbind(struct cat_txn *txn, const struct cat_name *name);
/* The live name goes to the past. Link counts are the caller's. */
int cat_end(struct cat_txn *txn, const struct cat_name *name, const struct cat_ending *ending);
/* Under whose number the past of the directory's names lies: see inode.past_dir. */
int cat_past_dir(struct cat_txn *txn, uint64_t dir, uint64_t *ret_dir);
/* Sets past_dir of a directory that is to take a free name: it goes on with the past of the one removed last. */
int cat_dir_goes_on(struct cat_txn *txn, uint64_t parent, const char *name, struct cat_inode *dir);
/* The newest row of the past of a name. -ENOENT: it never had any. */
int cat_past_last(struct cat_txn *txn, uint64_t dir, const char *name, struct cat_past *ret_past);
/* mtime and ctime of a directory whose names changed, and its link count. */
int cat_dir_touch(struct cat_txn *txn, uint64_t ino, int nlink_change);
void cat_name_set(char ret_field[static CAT_NAME_MAX + 1], const char *name);

/* --- what others hold in memory and must forget (links.c) ------------------------------------------- */

struct cat_change {
	uint64_t parent, ino;
	char name[CAT_NAME_MAX + 1];
};
struct cat_changes {
	struct cat_change *cells;
	size_t count, cap;
};
int cat_change_note(struct cat_changes *changes, uint64_t parent, const char *name, uint64_t ino);

/* --- objects found in the store (found.c) ------------------------------------------------------------ */

/* A hard link's object tells of its file, not of itself. */
bool cat_found_is_link(const struct cat_found *found);
/* One of a file that we, or another varve, stored. */
bool cat_found_is_ours(const struct cat_found *found);
bool cat_found_is_at(const struct cat_found *found, const struct cat_key *record);
/* Type and permissions. Strangers' metadata gives no privilege: no set-id bits, no device nodes. */
uint32_t cat_found_mode(const struct cat_found *found, uint32_t fallback);
/* The facts that it tells of the version it is; ino, seq and shown_ms are the caller's. */
void cat_found_version(const struct cat_found *found, const struct cat_inode *inode, struct cat_version *version);
/* Borrows found's strings. */
void cat_found_copy(const struct cat_found *found, uint64_t ino, uint64_t seq, struct cat_copy *ret_copy);
/* A new inode; of the request its directory and the defaults are used. */
void cat_found_inode(struct cat_txn *txn, const struct cat_adopt *request, const struct cat_found *found,
		     struct cat_inode *ret_inode);
int cat_found_put_key(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode);
/* The first version of a newly found file, and where it lies. */
int cat_found_put_content(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode);
/* Only the catalog can tell the component of a digest name. */
int cat_found_component(struct cat_txn *txn, uint64_t dir, const struct cat_found *found, struct buf *ret_component);
int cat_found_put_component(struct cat_txn *txn, uint64_t dir, const struct cat_found *found, const char *name);
/* One more copy of a version that we made, of this file or of one that had the key before or will have it: a copy whose
 * record is about to be written, or never was, because we were killed before. 1, 0, -errno. (adopt_versions.c) */
int cat_holds_found(struct cat_txn *txn, const struct cat_found *found);
/* Did the directory, or one above it, that we made or moved come to its name after that time, and so did those with
 * whose past it goes on? What lay beneath its key then is another's past. 1, 0, -errno. (adopt_deleted.c) */
int cat_dir_came_after(struct cat_txn *txn, uint64_t dir, int64_t at);
/* The attributes the object came with. */
int cat_found_put_attributes(struct cat_txn *txn, const struct cat_found *found, uint64_t ino);
/* A found file whose object is a hard link's joins its file, `inode` then is that; others are joined by who waited. */
int cat_found_meet_links(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
			 struct cat_changes *changes);
/* HEAD's answer into *inode, which is left to be written. (resolve.c) */
int cat_resolve_inode(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
		      struct cat_changes *changes);

/* --- hard links found in the store (links.c) -------------------------------------------------------- */

/* `ino`, adopted as an empty file, is a name of the file with this id. 1: it joined *ret_file; 0: it waits for one that
 * has the id, or has been changed here and is a file of its own. */
int cat_link_found(struct cat_txn *txn, const uint8_t link_id[static CAT_FILE_ID_SIZE], uint64_t ino,
		   struct cat_changes *changes, struct cat_inode *ret_file);
/* Those who waited for the id of this file join it. */
int cat_links_join(struct cat_txn *txn, const struct cat_inode *inode, struct cat_changes *changes);
/* The current version and its copy go, as if the inode had never had them; *inode is left to be written. */
int cat_content_drop(struct cat_txn *txn, struct cat_inode *inode);

/* --- versions and jobs ----------------------------------------------------------------------------- */

int cat_file_put(struct cat_txn *txn, const struct cat_inode *inode);
/* The inode has versions of the file with this id, which itself is gone: it is what the id leads to, unless there is
 * something better. */
int cat_file_claim(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t ino);
uint32_t cat_identity_own(const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t seq);
uint32_t cat_identity_foreign(const char *key, const char *native_id);
/* The newest version with seq <= at. -ENOENT. */
int cat_version_at(struct cat_txn *txn, uint64_t ino, uint64_t at, struct cat_version *ret_version);
/* Rewrites the copy in place, its place with it. */
int cat_copy_replace(struct cat_txn *txn, const struct cat_copy *before, const struct cat_copy *after);
int cat_job_add(struct cat_txn *txn, enum cat_job_type type, uint64_t ino, const char *key);
int cat_job_get(struct cat_txn *txn, uint64_t seq, struct cat_job *ret_job);
int cat_jobs_on_inode(struct cat_txn *txn, uint64_t ino); /* 1, 0, -errno */
int cat_jobs_of(struct cat_txn *txn, uint64_t ino, uint64_t after, cat_job_visit visit, void *arg);
/* Are bytes of a file that is not stored yet in this version of another? 1, 0, -errno. */
int cat_is_based_on(struct cat_txn *txn, uint64_t seq);
int cat_jobs_on_key(struct cat_txn *txn, const char *key);     /* 1, 0, -errno */
int cat_jobs_beneath(struct cat_txn *txn, const char *prefix); /* likewise, on any key that begins so */
/* Of jobs that ended since the watch began (watch.c); `watch` may be NULL. In an update only. */
void cat_watch_note(struct cat_txn *txn, const struct cat_job *job);
bool cat_watch_above(const struct cat_watch *watch); /* one on a directory above, or what ended is not known */
bool cat_watch_inode(const struct cat_watch *watch, uint64_t ino);
bool cat_watch_key(const struct cat_watch *watch, const char *key); /* "dir/": on any key beneath */

#endif
