/*
 * placement_move.c - PLACE and TREE jobs: what is stored comes to where its names are, what is made from the catalog
 * alone is put there, and what they left is cleared.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content.h"
#include "fs/killpoint.h"
#include "fs/objmeta.h"
#include "fs/placement_internal.h"
#include "log.h"

#define TREE_BATCH 256

struct placed {
	struct cat_copy *copy; /* NULL: kinds without versions */
	const char *key;
	struct cat_key record;
};

static int record_placed(struct cat_txn *txn, void *arg)
{
	const struct placed *placed = arg;
	int err = cat_key_overwritten(txn, placed->key, &placed->record);

	if (!err && placed->copy)
		err = cat_copy_add(txn, placed->copy);
	if (!err)
		err = cat_key_put(txn, placed->key, &placed->record);
	return err ? err : cat_key_left(txn, placed->record.ino, placed->key);
}

/* Is the key's record already of this inode, this kind and this version? */
static bool at_key(struct placement *placement, const char *key, enum cat_key_kind kind, uint64_t ino, uint64_t seq)
{
	struct key_get get = {.key = key};
	bool there;

	if (catalog_view(placement->catalog, placement_get_key, &get))
		return false;
	there = get.record.kind == kind && get.record.ino == ino && get.record.seq == seq;
	cat_key_clear(&get.record);
	return there;
}

/* A small object without versions: directory, symlink, special file or link marker. */
struct small {
	const char *key;
	enum cat_key_kind kind;
	const void *body;
	size_t len;
};

static int read_small(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct small *small = arg;

	if (offset + len > small->len)
		return -EIO;
	memcpy(ret_bytes, (const char *)small->body + offset, len);
	return 0;
}

/* From here on an object of ours may lie at the key without a record: whoever runs the job again looks there. */
static int note_placing(struct placement *placement, struct cat_job *job, const char *key)
{
	char *copy;

	if (job->sent && strcmp(job->sent, key) == 0)
		return 0;
	copy = strdup(key);
	if (!copy)
		return -ENOMEM;
	free(job->sent);
	job->sent = copy;
	return catalog_job_update(placement->catalog, job);
}

static int put_small_to(struct placement *placement, const struct facts *facts, const struct small *small,
			const struct target *target, struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct put_request request = {
		.key = small->key,
		.source = read_small,
		.source_arg = (void *)small, /* only read */
		.size = small->len,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode, NULL),
		.crc32c = crc32c_update(0, small->body, small->len),
		.has_crc32c = true,
	};
	int result = small->kind == CAT_KEY_LINK ? placement_link_meta_of(placement, facts, &meta)
						 : placement_meta_of(placement, facts, &meta);

	if (!result)
		result = placement_guard_key(placement, small->key, target->guard, target->seen, &request.condition,
					     &etag, err);
	if (!result)
		result = note_placing(placement, facts->job, small->key);
	if (!result)
		result = transfer_put(placement->transfer, &call, &request, ret_info, err);
	killpoint("small-sent");
	meta_clear(&meta);
	return result;
}

/* The store refused the condition. 1: somebody else's is there, and stays: nothing of ours is needed beneath a
 * directory that others made, and any other name goes to theirs with the next listing. */
static int put_small_where_others_are(struct placement *placement, const struct facts *facts, const struct small *small,
				      struct object_info *ret_info, struct err *err)
{
	struct object_info info = {0};
	struct target again;
	int result = placement_look_again(placement, facts, small->key, &info, &again, err);

	/* What is made from the catalog alone has no versions to be known by. */
	if (result == 1 && !S_ISREG(facts->inode.mode) && placement_is_of(&info, &facts->inode))
		result = 0;
	if (!result)
		result = put_small_to(placement, facts, small, &again, ret_info, err);
	else if (result == 1)
		log_info("placement", "%s was written by others meanwhile: it stays as it is", small->key);
	object_info_clear(&info);
	return result;
}

/* 1: somebody else's object is there. Where keys are paths a directory is there as soon as anything is beneath it, so
 * that something is there says little. */
static int put_small(struct placement *placement, const struct facts *facts, const struct small *small, struct err *err)
{
	struct object_info info = {0};
	struct placed placed = {.key = small->key, .record = {.kind = small->kind, .ino = facts->inode.ino}};
	bool tree = transfer_can(placement->transfer, BACKEND_TREE_KEYS);
	const struct target target = {.key = small->key, .guard = tree ? GUARD_NONE : GUARD_RECORDED};
	int result;

	if (at_key(placement, small->key, small->kind, facts->inode.ino, 0))
		return 0;
	result = put_small_to(placement, facts, small, &target, &info, err);
	if (result && err->kind == ERR_PRECONDITION)
		result = put_small_where_others_are(placement, facts, small, &info, err);
	if (!result) {
		placed.record.native_id = info.native_id;
		placed.record.etag = info.etag;
		result = catalog_update(placement->catalog, record_placed, &placed);
	}
	object_info_clear(&info);
	return result;
}

/* In parts, or through this machine where the store cannot copy. -EIDRM: the store has it no more, which the catalog
 * knows from here on, nor has the cache what was fetched of it. */
static int copy_through(struct placement *placement, const struct facts *facts, const struct copy_request *request,
			struct object_info *ret_info, struct err *err)
{
	struct content *content = NULL;
	struct put_request put = {.key = request->key,
				  .source = placement_read_content,
				  .size = facts->version.size,
				  .meta = request->meta,
				  .content_type = request->content_type,
				  .condition = request->condition};
	int result = placement_get_content(placement, &facts->version, &content);

	if (result)
		return result;
	put.source_arg = content;
	result = placement_send(placement, content, &put, ret_info, err);
	if (result && content_is_missing_bytes(content)) {
		*err = (struct err){0};
		result = -EIDRM;
	}
	placement_put_content(content);
	return result;
}

static int copy_to(struct placement *placement, const struct facts *facts, const struct target *target,
		   struct object_info *ret_info, struct err *err)
{
	const char *key = target->key;
	struct call call = placement_call(placement, facts->version.size);
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct copy_request request = {
		.source = {.key = facts->copy.key,
			   .native_id = facts->copy.native_id,
			   .etag = placement_pin_of(facts->copy.native_id, facts->copy.etag)},
		.key = key,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode, &facts->attributes),
		.storage_class = facts->copy.storage_class,
	};
	bool copies = transfer_can(placement->transfer, BACKEND_COPY) &&
		      facts->version.size <= transfer_limits(placement->transfer)->max_copy;
	int result = placement_meta_of(placement, facts, &meta);

	if (!result)
		result = placement_guard_key(placement, key, target->guard, target->seen, &request.condition, &etag,
					     err);
	if (!result)
		result = note_placing(placement, facts->job, key);
	if (!result) {
		result = copies ? transfer_copy(placement->transfer, &call, &request, ret_info, err)
				: copy_through(placement, facts, &request, ret_info, err);
		if (result && copies && placement_is_missing(err) && placement_copy_is_gone(placement, &facts->copy)) {
			log_info("placement", "%s was removed by others before it was copied to %s", facts->copy.key,
				 key);
			*err = (struct err){0};
			result = copy_through(placement, facts, &request, ret_info, err);
		}
	}
	if (!result)
		result = placement_verify_copy(placement, facts->copy.etag, facts->version.size, ret_info, err);
	meta_clear(&meta);
	return result;
}

/* The store refused the condition: what is at the new key is not what we knew. -EAGAIN: somebody else's, who has the
 * name. */
static int copy_where_others_are(struct placement *placement, const struct facts *facts, const struct target *refused,
				 struct object_info *ret_info, struct err *err)
{
	struct object_info info = {0};
	struct target again;
	int result = placement_look_again(placement, facts, refused->key, &info, &again, err);

	if (result < 0)
		return result;
	if (info.key && placement_is_this_version(facts, &info)) { /* put there by an attempt that was not recorded */
		*ret_info = info;
		return 0;
	}
	result = result ? placement_stand_aside(placement, facts, refused->key)
			: copy_to(placement, facts, &again, ret_info, err);
	object_info_clear(&info);
	return result;
}

static int relocate(struct placement *placement, const struct facts *facts, const char *key, struct err *err)
{
	struct object_info made = {0};
	struct cat_copy copy = {.ino = facts->inode.ino,
				.seq = facts->version.seq,
				.state = CAT_STORED,
				.key = (char *)key, /* borrowed: the catalog copies */
				.storage_class = facts->copy.storage_class};
	struct placed placed = {.copy = &copy, .key = key};
	const struct target target = {.key = key, .guard = GUARD_RECORDED};
	int result = copy_to(placement, facts, &target, &made, err);

	if (result && err->kind == ERR_PRECONDITION)
		result = copy_where_others_are(placement, facts, &target, &made, err);
	killpoint("relocation-copied");
	if (!result) {
		copy.stored_ns = clock_wall();
		copy.native_id = made.native_id;
		copy.etag = made.etag;
		placed.record = (struct cat_key){.kind = CAT_KEY_DATA,
						 .ino = copy.ino,
						 .seq = copy.seq,
						 .native_id = copy.native_id,
						 .etag = copy.etag};
		result = catalog_update(placement->catalog, record_placed, &placed);
	}
	killpoint("relocation-recorded");
	object_info_clear(&made);
	return result;
}

static int relocate_aside(struct placement *placement, const struct facts *facts, struct err *err)
{
	AUTO_BUF aside = BUF_INIT;

	placement_own_key(&facts->inode, facts->version.seq, &aside);
	return buf_failed(&aside) ? -ENOMEM : relocate(placement, facts, aside.data, err);
}

/* The content to the oldest name's key. 1: that is somebody else's. */
static int place_content(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->links->key;
	int result;

	/* Where it was written over at its own key, it comes back from beneath. */
	if (strcmp(facts->copy.key, key) == 0 &&
	    at_key(placement, key, CAT_KEY_DATA, facts->inode.ino, facts->version.seq))
		return 0;
	result = placement_is_contested(placement, facts, err);
	if (result < 0)
		return result;
	if (!result)
		return relocate(placement, facts, key, err);
	result = placement_is_own_key(facts->copy.key) ? 0 : relocate_aside(placement, facts, err);
	return result ? result : 1;
}

/* One of several, which all get their turn. */
static int put_next(struct placement *placement, const struct facts *facts, const struct small *small, bool *contested,
		    struct err *err)
{
	int result = put_small(placement, facts, small, err);

	*contested |= result == 1;
	return result == 1 ? 0 : result;
}

/* 1: somebody else's object has one of the names. */
static int place_file(struct placement *placement, const struct facts *facts, struct err *err)
{
	bool contested = false;
	int result;

	/* What is not stored yet is placed by its own upload. */
	if (!facts->links || !facts->has_version || facts->version.state != CAT_STORED || !facts->copy.key)
		return 0;
	result = place_content(placement, facts, err);
	for (const struct link *link = facts->links->next; link && !result; link = link->next) {
		struct small marker = {.key = link->key, .kind = CAT_KEY_LINK, .body = ""};

		result = put_next(placement, facts, &marker, &contested, err);
	}
	return result ? result : contested;
}

/* Likewise. */
static int place_special(struct placement *placement, const struct facts *facts, struct err *err)
{
	bool symlink = S_ISLNK(facts->inode.mode);
	bool contested = false;
	int result = 0;

	for (const struct link *link = facts->links; link && !result; link = link->next) {
		struct small small = {
			.key = link->key,
			.kind = link != facts->links ? CAT_KEY_LINK
				: symlink            ? CAT_KEY_SYMLINK
						     : CAT_KEY_SPECIAL,
			.body = facts->target.data,
			.len = symlink && link == facts->links ? facts->target.len : 0,
		};

		result = put_next(placement, facts, &small, &contested, err);
	}
	return result ? result : contested;
}

static int stop_at_first(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)arg;
	(void)name;
	(void)inode;
	return 1;
}

/* A directory needs an object only while nothing else in the store tells of it. 1: somebody else's does. */
static int place_directory(struct placement *placement, const struct facts *facts, struct err *err)
{
	struct cat_readdir first = {.parent = facts->inode.ino, .max = 1};
	struct small marker = {.kind = CAT_KEY_DIRECTORY, .body = ""};

	if (!facts->links)
		return 0;
	if (!(facts->inode.flags & CAT_OWN_ATTRS) &&
	    catalog_readdir(placement->catalog, &first, stop_at_first, NULL) == 1)
		return placement_clear_unrecorded(placement, facts, err);
	marker.key = facts->links->key;
	return put_small(placement, facts, &marker, err);
}

/* What we moved last makes way as well. A file waits under a key of its own, what is made from the catalog alone
 * nowhere. */
static int step_aside(struct placement *placement, const struct facts *facts)
{
	AUTO_FREE char *at = facts->copy.key ? strdup(facts->copy.key) : NULL;
	struct err err = {0};
	int result = 0;

	if (S_ISREG(facts->inode.mode) && at && !placement_has_link(facts, at) && !placement_is_own_key(at)) {
		result = relocate_aside(placement, facts, &err);
		if (!result)
			result = placement_clear_key(placement, facts, at, &err);
	}
	return result ? result : placement_leave_all(placement, facts);
}

/* 0: theirs is there to stay, and nothing more is to be done; 1: so it is, and they are the file; else `refused`, and
 * it is tried again. */
static int make_way(struct placement *placement, const struct facts *facts, int refused)
{
	const struct link *link = facts->links;
	bool file = S_ISREG(facts->inode.mode);

	if (step_aside(placement, facts) < 0) {
		log_debug("placement", "file %" PRIu64 " cannot make way", facts->inode.ino);
		return refused;
	}
	while (link && placement_others_in_the_way(placement, facts, link->key) != 1)
		link = link->next;
	if (!link)
		return refused;
	file = file && link == facts->links;
	if (file && catalog_conflict(placement->catalog, facts->inode.ino, facts->version.seq))
		return refused;
	atomic_fetch_add(&placement->conflicts, 1);
	log_warn("placement", "conflict: %s cannot be stored under its name, which others gave to a %s", link->key,
		 S_ISDIR(facts->inode.mode) ? "file" : "directory");
	return file;
}

int placement_run_place(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
			struct err *err)
{
	const struct placement_others *others = &placement->others;
	bool contested = false;
	struct facts facts;
	int result = placement_facts_of(placement, job, &facts);

	if (result)
		return result;
	result = placement_still_claimed(placement, job, &facts, claims);
	if (!result)
		result = placement_clear_sent(placement, &facts, err);
	if (result)
		goto out;
	if (S_ISREG(facts.inode.mode))
		result = place_file(placement, &facts, err);
	else if (S_ISDIR(facts.inode.mode))
		result = place_directory(placement, &facts, err);
	else
		result = place_special(placement, &facts, err);
	if (result < 0 && err->kind == ERR_CONFLICT)
		result = make_way(placement, &facts, result);
	contested = result == 1;
	if (contested || (result == -EIDRM && !err->kind)) /* what it held is nowhere, and that was said */
		result = 0;
	if (!result && job->key)
		result = placement_clear_left(placement, &facts, job->key, err);
	if (!result)
		result = placement_job_done(placement, job);
	if (!result && contested && others->contested) /* a name with a job is not given to others */
		others->contested(others->arg, facts.inode.ino);
out:
	placement_facts_clear(&facts);
	return result;
}

/* --- tree -------------------------------------------------------------------------------- */

/* A key beneath the one that a renamed directory left, and whose object lies there. */
struct left_behind {
	uint64_t ino;
	char *key;
	struct left_behind *next;
};

static int note_left(void *arg, const char *key, const struct cat_key *record)
{
	struct left_behind **list = arg;
	struct left_behind *left = calloc(1, sizeof(*left));

	if (!left)
		return -ENOMEM;
	left->ino = record->ino;
	left->key = strdup(key);
	left->next = *list;
	*list = left;
	return left->key ? 0 : -ENOMEM;
}

struct tree_walk {
	const char *prefix;
	struct left_behind *list;
};

static int list_left(struct cat_txn *txn, void *arg)
{
	struct tree_walk *walk = arg;

	return cat_key_each(txn, 0, walk->prefix, note_left, &walk->list);
}

static struct left_behind *drop_first(struct left_behind *list)
{
	struct left_behind *next = list->next;

	free(list->key);
	free(list);
	return next;
}

/* A batch of PLACE jobs; moves *at past those it made. */
static int put_jobs(struct cat_txn *txn, void *arg)
{
	struct left_behind **at = arg, *left = *at;
	int err = 0;

	for (unsigned i = 0; i < TREE_BATCH && left && !err; i++, left = left->next) {
		struct cat_job job = {.type = CAT_JOB_PLACE, .ino = left->ino, .key = left->key};

		err = cat_job_put(txn, &job);
	}
	if (!err)
		*at = left;
	return err;
}

/*
 * What lies beneath the old key is told by the key records, not by today's
 * names: what was removed or renamed since lies there as well. Running it
 * again makes some PLACE jobs twice, which does no harm.
 */
int placement_run_tree(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
		       struct err *err)
{
	AUTO_BUF prefix = BUF_INIT;
	struct tree_walk walk = {0};
	struct left_behind *at;
	int result;

	buf_addf(&prefix, "%s/", job->key ? job->key : "");
	if (buf_failed(&prefix))
		return -ENOMEM;
	walk.prefix = prefix.data;
	result = catalog_view(placement->catalog, list_left, &walk);
	at = walk.list;
	while (at && !result)
		result = catalog_update(placement->catalog, put_jobs, &at);
	while (walk.list)
		walk.list = drop_first(walk.list);
	if (!result) /* the directory itself: its marker moves, and the job ends */
		result = placement_run_place(placement, job, claims, err);
	return result;
}
