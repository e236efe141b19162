/*
 * placement_clear.c - removing what no live name owns.
 *
 * Invariant: a key is removed only while our record says it is this inode's and the store agrees: by etag or native id,
 * or by what the object says of itself; where only that tells, it is looked at first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
#include "cleanup.h"
#include "fs/killpoint.h"
#include "fs/placement_internal.h"
#include "log.h"

struct removed {
	const char *key;
	const struct cat_key *record;
	bool copy_gone;
};

/* What others had removed before we could preserve it is nowhere any more. */
static int drop_copy(struct cat_txn *txn, const struct removed *removed)
{
	const struct cat_key *record = removed->record;
	int err = cat_copy_drop(txn, record->ino, record->seq, removed->key, record->native_id);
	bool expired;

	if (err && err != -ENOENT)
		return err;
	return cat_expire_uncopied(txn, record->ino, record->seq, &expired);
}

static int record_removed(struct cat_txn *txn, void *arg)
{
	const struct removed *removed = arg;
	const struct cat_key *record = removed->record;
	struct key_get now = {.key = removed->key};
	int err = removed->copy_gone && record->kind == CAT_KEY_DATA ? drop_copy(txn, removed) : 0;
	bool same;

	if (!err)
		err = placement_get_key(txn, &now);
	if (err)
		return err == -ENOENT ? 0 : err;
	same = now.record.ino == record->ino &&
	       cat_same_object(now.record.native_id, now.record.etag, record->native_id, record->etag);
	cat_key_clear(&now.record);
	return same ? cat_key_delete(txn, 0, removed->key) : 0; /* else another has the key by now */
}

/* What an attempt put and did not record is not others', either. */
static int remove_looked_at(struct placement *placement, const struct facts *facts, struct removed *removed,
			    struct err *err)
{
	struct call call = placement_call(placement, 0);
	const char *key = removed->key;
	struct object_info info = {0};
	struct object_ref ref = {.key = key};
	int result = placement_head_current(placement, key, &info, err);

	if (!result && info.key && !placement_still_ours(removed->record, &info) &&
	    !placement_is_of(&info, &facts->inode)) {
		log_info("placement", "%s was changed by others and is left as it is", key);
		removed->copy_gone = false;
		goto out;
	}
	if (!result && info.key && !placement_versioned(placement))
		result = placement_preserve_object(placement, &info, KEEP_OTHERS, err);
	if (!result && info.key) {
		if (transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH))
			ref.etag = info.etag;
		result = transfer_remove(placement->transfer, &call, &ref, NULL, err);
		killpoint("key-removed");
	}
out:
	object_info_clear(&info);
	return result;
}

/* One conditional request where that is enough: the store compares, and what it removes it keeps as a version. */
static int remove_compared(struct placement *placement, const struct facts *facts, struct removed *removed,
			   struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct object_ref ref = {.key = removed->key, .etag = removed->record->etag};
	int result = transfer_remove(placement->transfer, &call, &ref, NULL, err);

	killpoint("key-removed");
	if (!result || err->kind != ERR_PRECONDITION)
		return result;
	*err = (struct err){0};
	return remove_looked_at(placement, facts, removed, err);
}

static int remove_recorded(struct placement *placement, const struct facts *facts, const char *key,
			   const struct cat_key *record, struct err *err)
{
	struct removed removed = {.key = key, .record = record, .copy_gone = !placement_versioned(placement)};
	bool compare = placement_versioned(placement) && record->etag &&
		       transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH);
	int result = compare ? remove_compared(placement, facts, &removed, err)
			     : remove_looked_at(placement, facts, &removed, err);

	return result ? result : catalog_update(placement->catalog, record_removed, &removed);
}

/* The only copy of a version, where versions are kept: there is nothing that it could make way for. 1, 0, -errno. */
static int is_kept(struct placement *placement, const char *key, const struct cat_key *record)
{
	struct sole sole = {.key = key, .record = record};
	int result = strncmp(key, CAT_OWN_VERSIONS, strlen(CAT_OWN_VERSIONS)) == 0
			     ? catalog_view(placement->catalog, placement_is_sole_copy, &sole)
			     : 0;

	return result ? result : sole.is_sole;
}

int placement_clear_key(struct placement *placement, const struct facts *facts, const char *key, struct err *err)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, placement_get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	/* Somebody else lives there by now, or we again. */
	if (get.record.ino == facts->inode.ino && !placement_has_link(facts, key))
		result = is_kept(placement, key, &get.record);
	else
		result = 1;
	if (!result)
		result = remove_recorded(placement, facts, key, &get.record, err);
	else if (result == 1)
		result = 0;
	cat_key_clear(&get.record);
	return result;
}

/* The key of an object that was left at what a job names. */
static int left_key(const struct placement *placement, const struct facts *facts, const char *left, struct buf *ret_key)
{
	buf_adds(ret_key, left);
	if (S_ISDIR(facts->inode.mode) && ret_key->len && ret_key->data[ret_key->len - 1] != '/')
		buf_addc(ret_key, '/');
	return placement_fit_key(placement, facts->inode.file_id, ret_key);
}

int placement_clear_left(struct placement *placement, const struct facts *facts, const char *left, struct err *err)
{
	AUTO_BUF key = BUF_INIT;
	int result = left_key(placement, facts, left, &key);

	return result ? result : placement_clear_key(placement, facts, key.data, err);
}

/* What an earlier attempt may have put, and nobody recorded. */
int placement_clear_unrecorded(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->job->sent;
	struct key_get get = {.key = key};
	struct object_info info = {0};
	int result;

	if (!key)
		return 0;
	if (catalog_view(placement->catalog, placement_get_key, &get) == 0) {
		cat_key_clear(&get.record);
		return placement_clear_key(placement, facts, key,
					   err); /* it was recorded after all, or somebody lives there */
	}
	result = placement_head_current(placement, key, &info, err);
	if (!result && info.key && placement_is_of(&info, &facts->inode)) {
		struct call call = placement_call(placement, 0);
		struct object_ref ref = {.key = key,
					 .etag = transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH) ? info.etag
													    : NULL};

		result = transfer_remove(placement->transfer, &call, &ref, NULL, err);
	}
	object_info_clear(&info);
	return result;
}

/* The same where nothing of this inode belongs any more. */
int placement_clear_sent(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->job->sent;

	if (!key || placement_has_link(facts, key) || (facts->copy.key && strcmp(facts->copy.key, key) == 0))
		return 0;
	return placement_clear_unrecorded(placement, facts, err);
}

struct left_walk {
	const struct facts *facts;
	struct link *list;
};

static int note_key(struct left_walk *walk, const char *left)
{
	AUTO_BUF key = BUF_INIT;
	struct link *link;
	int err = left ? left_key(walk->facts->placement, walk->facts, left, &key) : 0;

	if (err || !left)
		return err;
	link = calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->key = buf_detach(&key);
	link->next = walk->list;
	walk->list = link;
	return link->key ? 0 : -ENOMEM;
}

static int note_keys(void *arg, struct cat_job *job)
{
	int err = note_key(arg, job->key);

	return err ? err : note_key(arg, job->sent);
}

/* Does an object of the inode lie there, where it has no name? 1, 0, -errno. */
static int lies_left(struct placement *placement, const struct facts *facts, const char *key)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, placement_get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	result = get.record.ino == facts->inode.ino && !placement_has_link(facts, key);
	cat_key_clear(&get.record);
	return result;
}

/*
 * A file and a directory changed places, and where keys are paths neither can take the other's while that is there. So
 * whoever finds his place taken leaves at once every place that is his no more: what younger jobs of the inode would
 * clear, which wait for this one, may be in the way of who is in ours. 1: something was cleared; 0; -errno. The keys
 * are not claimed: what is removed is compared.
 */
int placement_leave_all(struct placement *placement, const struct facts *facts)
{
	struct left_walk walk = {.facts = facts};
	struct err err = {0};
	int result = catalog_jobs_of(placement->catalog, facts->inode.ino, 0, note_keys, &walk), cleared = 0;

	while (walk.list) {
		struct link *link = walk.list;

		walk.list = link->next;
		if (!result)
			result = lies_left(placement, facts, link->key);
		if (result == 1) {
			result = placement_clear_key(placement, facts, link->key, &err);
			cleared = 1;
		}
		free(link->key);
		free(link);
	}
	return result ? result : cleared;
}
