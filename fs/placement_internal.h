/*
 * placement_internal.h - what the files of placement share.
 *
 *	placement.c         jobs, their claims and calls
 *	placement_facts.c   what the catalog says of the job's inode
 *	placement_upload.c  UPLOAD
 *	placement_send.c    the bytes
 *	placement_move.c    PLACE, TREE
 *	placement_clear.c   removing
 *	placement_guard.c   what lies there and must not be lost
 *	placement_others.c  who is there
 *
 * Invariants
 *  1. A version's copy record is written only after the store said it has the object.
 *  2. What lies at a key is overwritten or removed only when every version it holds has another copy: by the store's
 *     own versioning, or, without it, by a copy under `.varve/versions/` made first and a conditional write.
 *  3. A key is removed only while our record says it is this inode's and the store agrees by etag or native id, or the
 *     object says of itself that it is this inode's: an attempt that was not recorded put it.
 *  4. A relocation copies, verifies, records the copy, and only then removes the old key.
 *  5. What is put replaces what the catalog knows to lie at the key, and nothing else. Where somebody else's object is
 *     there by now, that one is the file: our content goes to a key of its own, as a version of origin `conflict`, what
 *     is made from the catalog alone goes nowhere, and the next listing gives theirs the name. Where the store knows no
 *     conditions, ours is written and theirs found beneath it.
 *  6. Where keys are paths, nobody waits for ever for a place that a file or a directory of another name has: what is
 *     ours leaves every place that has no name of its own any more, and to what is others' ours gives way.
 *
 * Every step reads the catalog anew, so a job can stop anywhere and run again.
 *
 * Results are 0 or -errno with *err filled where the store was asked; -errno alone with err->kind 0 is the catalog's or
 * this machine's. -EAGAIN: nothing was done, and the job is run again with new claims.
 */
#ifndef VARVE_FS_PLACEMENT_INTERNAL_H
#define VARVE_FS_PLACEMENT_INTERNAL_H

#include <stdatomic.h>

#include "buf.h"
#include "catalog.h"
#include "fs/content.h"
#include "fs/objmeta.h"
#include "fs/placement.h"
#include "transfer.h"

struct placement {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	struct ahead *ahead; /* NULL: read only */
	struct placement_others others;
	atomic_bool cancelled;
	_Atomic uint64_t conflicts;
	_Atomic uint64_t facts; /* put */
	_Atomic int64_t probed; /* monotonic: when versioning was last asked for because of a reply */
	char host[64];
};

#define JOB_PATIENCE_NS (120 * NS_PER_SEC)
/* For a job that moves so many bytes. */
struct call placement_call(const struct placement *placement, uint64_t bytes);
/* A version's content, for sending it. To be put back by placement_put_content. */
int placement_get_content(struct placement *placement, const struct cat_version *version, struct content **ret_content);
void placement_put_content(struct content *content);
int placement_job_done(struct placement *placement, const struct cat_job *job);

/* The store's versioning: whether it is on; that it may have been switched; whether this is an id of its own. */
bool placement_versioned(const struct placement *placement);
void placement_doubt_versioning(struct placement *placement);
bool placement_has_own_id(const char *native_id);
/* What pins an object beside its id: where that tells nothing, the etag. */
char *placement_pin_of(const char *native_id, char *etag);

/* --- facts -------------------------------------------------------------------------------------------- */

struct link {
	char *key;
	struct link *next;
};

struct facts {
	const struct placement *placement;
	struct cat_job *job;
	struct cat_inode inode;
	struct cat_version version; /* the job's, or the current one */
	bool has_version;
	struct link *links;   /* keys of the live names, oldest first */
	struct cat_copy copy; /* of the version; key NULL: not stored */
	struct buf target;
	struct buf attributes; /* that an object could carry: see objmeta_take_attribute */
};
int placement_facts_of(struct placement *placement, struct cat_job *job, struct facts *ret_facts);
void placement_facts_clear(struct facts *facts);
bool placement_has_link(const struct facts *facts, const char *key);
/* What the inode's object says of it, and what one says that marks a further name of it. To be cleared by meta_clear,
 * whatever comes of it. */
int placement_meta_of(const struct placement *placement, const struct facts *facts, struct meta *ret_meta);
int placement_link_meta_of(const struct placement *placement, const struct facts *facts, struct meta *ret_meta);

/* A closure of catalog_view. -ENOENT: nothing is recorded at the key. */
struct key_get {
	const char *key;
	struct cat_key record;
};
int placement_get_key(struct cat_txn *txn, void *arg);

/* A key the store cannot hold is replaced by one of the file's own. */
int placement_fit_key(const struct placement *placement, const uint8_t *file_id, struct buf *key);
/* Where a version lies that has no place of its own. */
void placement_own_key(const struct cat_inode *inode, uint64_t seq, struct buf *ret_key);
bool placement_is_own_key(const char *key);
/* Without a directory's '/'. */
size_t placement_bare_length(const char *key);
/* -EAGAIN: names changed between the claims and these facts. */
int placement_still_claimed(struct placement *placement, const struct cat_job *job, const struct facts *facts,
			    const struct placement_claims *claims);

/* --- what lies at a key -------------------------------------------------------------------------------- */

/* That nothing is there is an answer, too: an info without a key. */
int placement_free_is_fine(int result, struct object_info *ret_info, struct err *err);
int placement_head_current(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err);
/* With what facts it has elsewhere: an upload made ahead, too, must be known for ours. */
int placement_head_whole(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err);

/* The object gets another copy, unless it has one. MIND_OTHERS: ERR_PRECONDITION when it is not the one we know. */
enum others { KEEP_OTHERS, MIND_OTHERS };
int placement_preserve_object(struct placement *placement, struct object_info *info, enum others others,
			      struct err *err);
/* Before the object of the key is overwritten on a store without versions; nothing to do on one with. Says on which
 * condition the key may be written. ret_etag: malloc'd, what the condition borrows. */
int placement_preserve(struct placement *placement, const char *key, struct put_condition *ret_condition,
		       char **ret_etag, struct err *err);
/* The copy is there, whole, and ours: its etag says so, else the store is asked. *info is cleared when it is not. */
int placement_verify_copy(struct placement *placement, const char *etag, uint64_t size, struct object_info *info,
			  struct err *err);
/* A closure: is what lies at the key the version's only copy? */
struct sole {
	const char *key;
	const struct cat_key *record;
	struct cat_inode inode;
	bool is_sole;
};
int placement_is_sole_copy(struct cat_txn *txn, void *arg);

enum guard {
	GUARD_RECORDED, /* what the catalog knows to lie there, or nothing */
	GUARD_SEEN,     /* what was seen there */
	GUARD_NONE,
};
/* Where to, and what may be there. */
struct target {
	const char *key;
	enum guard guard;
	const char *seen; /* etag of GUARD_SEEN */
};
/* Makes safe what lies at the key, and says on which condition the key may be written. ret_etag: malloc'd, what the
 * condition borrows. */
int placement_guard_key(struct placement *placement, const char *key, enum guard guard, const char *seen,
			struct put_condition *ret_condition, char **ret_etag, struct err *err);

/* --- who is there -------------------------------------------------------------------------------------- */

bool placement_is_this_version(const struct facts *facts, const struct object_info *info);
/* A version that we know, or what we put for the file itself, though the key's record tells of neither. */
bool placement_is_ours(struct placement *placement, const struct facts *facts, const struct object_info *info);
/* Does the object say of itself that it is this inode's? */
bool placement_is_of(const struct object_info *info, const struct cat_inode *inode);
/*
 * The store refused the condition of a put: what is at the key now, *ret_info with key NULL when it is free, and in
 * *ret_again how ours goes there all the same, borrowing from both. 1: but it is somebody else's; 0; -errno.
 */
int placement_look_again(struct placement *placement, const struct facts *facts, const char *key,
			 struct object_info *ret_info, struct target *ret_again, struct err *err);
bool placement_still_ours(const struct cat_key *record, const struct object_info *info);
/* Theirs is the file; ours becomes a version beside it. -EAGAIN: the job goes on with another key. */
int placement_stand_aside(struct placement *placement, const struct facts *facts, const char *key);
/* Each 1, 0, -errno. */
int placement_is_contested(struct placement *placement, const struct facts *facts, struct err *err);
int placement_others_in_the_way(struct placement *placement, const struct facts *facts, const char *key);

/* --- sending ------------------------------------------------------------------------------------------- */

int placement_read_content(void *arg, void *ret_bytes, size_t len, uint64_t offset);
int placement_send(struct placement *placement, struct content *content, struct put_request *request,
		   struct object_info *ret_info, struct err *err);
bool placement_is_missing(const struct err *err);
bool placement_copy_is_gone(struct placement *placement, const struct cat_copy *copy);
/* Where an upload goes now. malloc'd. */
int placement_upload_key(struct placement *placement, const struct facts *facts, const struct cat_job *job,
			 char **ret_key);

/* --- clearing ------------------------------------------------------------------------------------------ */

int placement_clear_key(struct placement *placement, const struct facts *facts, const char *key, struct err *err);
int placement_clear_left(struct placement *placement, const struct facts *facts, const char *left, struct err *err);
/* What an earlier attempt may have put, and nobody recorded; the same where nothing of this inode belongs any more. */
int placement_clear_unrecorded(struct placement *placement, const struct facts *facts, struct err *err);
int placement_clear_sent(struct placement *placement, const struct facts *facts, struct err *err);
/* 1: something was cleared; 0; -errno. */
int placement_leave_all(struct placement *placement, const struct facts *facts);

/* --- jobs ---------------------------------------------------------------------------------------------- */

int placement_run_upload(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
			 struct err *err);
int placement_run_place(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
			struct err *err);
int placement_run_tree(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
		       struct err *err);

#endif
