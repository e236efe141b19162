/*
 * placement_guard.c - what lies at a key before it is written over or removed: on which condition that may be, and the
 * copy that is made first where the store would not keep it.
 *
 * Invariant: a version whose only copy lies at the key gets another one before anything happens to it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/placement_internal.h"
#include "log.h"

/* The copy is there, whole, and ours: its etag says so, else the store is asked. *info is cleared when it is not. */
int placement_verify_copy(struct placement *placement, const char *etag, uint64_t size, struct object_info *info,
			  struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct object_ref ref = {.key = info->key, .native_id = info->native_id};
	struct object_info seen = {0};
	int result;

	if (etag && info->etag && strcmp(etag, info->etag) == 0)
		return 0;
	result = transfer_head(placement->transfer, &call, &ref, &seen, err);
	if (!result && seen.size != size)
		result = err_set(err, ERR_CORRUPT, "the copy at %s has %" PRIu64 " bytes instead of %" PRIu64,
				 info->key, seen.size, size);
	if (!result && !seen.native_id) {
		seen.native_id = info->native_id;
		info->native_id = NULL;
	}
	object_info_clear(info);
	if (result) {
		object_info_clear(&seen);
		*info = (struct object_info){0};
	} else {
		*info = seen;
	}
	return result;
}

/* The current object of a key is copied to `to`, pinned, its metadata kept. */
static int copy_aside(struct placement *placement, const struct object_info *info, const char *to,
		      struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, info->size);
	struct copy_request request = {
		.source = {.key = info->key,
			   .native_id = info->native_id,
			   .etag = placement_pin_of(info->native_id, info->etag)},
		.key = to,
		.meta = &info->meta,
		.content_type = info->content_type,
		.storage_class = info->storage_class,
	};
	struct transfer_part part = {.size = info->size, .copy_from = request.source};
	struct put_request put = {.key = to,
				  .size = info->size,
				  .meta = &info->meta,
				  .content_type = info->content_type,
				  .storage_class = info->storage_class};
	int result;

	if (info->size <= transfer_limits(placement->transfer)->max_copy)
		result = transfer_copy(placement->transfer, &call, &request, ret_info, err);
	else
		result = transfer_upload(placement->transfer, &call, &put, &part, 1, ret_info, err);
	return result ? result : placement_verify_copy(placement, info->etag, info->size, ret_info, err);
}

static int add_copy(struct cat_txn *txn, void *arg)
{
	return cat_copy_add(txn, arg);
}

static int copy_recorded(struct placement *placement, const struct cat_key *of, const struct object_info *info)
{
	struct cat_copy copy = {
		.ino = of->ino,
		.seq = of->seq,
		.state = CAT_STORED,
		.stored_ns = clock_wall(),
		.key = info->key,
		.native_id = info->native_id,
		.etag = info->etag,
		.storage_class = info->storage_class,
	};

	return catalog_update(placement->catalog, add_copy, &copy);
}

int placement_is_sole_copy(struct cat_txn *txn, void *arg)
{
	struct sole *sole = arg;
	struct cat_copy copy;
	int err = cat_inode_get(txn, sole->record->ino, &sole->inode);

	if (!err)
		err = cat_copy_get(txn, sole->record->ino, sole->record->seq, &copy);
	if (err)
		return err == -ENOENT ? 0 : err;
	sole->is_sole = strcmp(copy.key, sole->key) == 0;
	cat_copy_clear(&copy);
	return 0;
}

/* Where what we did not make is kept before we write over it. */
static void external_key(const struct object_info *info, struct buf *ret_key)
{
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	sha256_of(info->key, strlen(info->key), digest);
	hex_encode(digest, 16, hex);
	buf_addf(ret_key, CAT_OWN_VERSIONS "external/%s/", hex);
	sha256_of(info->etag ? info->etag : "", info->etag ? strlen(info->etag) : 0, digest);
	hex_encode(digest, 8, hex);
	buf_adds(ret_key, hex);
}

/* That nothing is there is an answer, too: an info without a key. */
int placement_free_is_fine(int result, struct object_info *ret_info, struct err *err)
{
	if (!result || err->kind != ERR_NOT_FOUND)
		return result;
	*ret_info = (struct object_info){0};
	*err = (struct err){0};
	return 0;
}

/* What is at the key now, if anything: 0 with key NULL when it is free. */
int placement_head_current(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct object_ref ref = {.key = key};
	int result = transfer_head(placement->transfer, &call, &ref, ret_info, err);

	return placement_free_is_fine(result, ret_info, err);
}

/* The object at `key` as the store shows it gets another copy, unless it has one. MIND_OTHERS: ERR_PRECONDITION when it
 * is not the one we know. */
int placement_preserve_object(struct placement *placement, struct object_info *info, enum others others,
			      struct err *err)
{
	struct key_get get = {.key = info->key};
	struct sole sole = {.key = info->key, .record = &get.record};
	struct object_info kept = {0};
	AUTO_BUF to = BUF_INIT;
	bool known = catalog_view(placement->catalog, placement_get_key, &get) == 0;
	bool ours = known && get.record.etag && info->etag && strcmp(get.record.etag, info->etag) == 0;
	int result = 0;

	if (!ours && others == MIND_OTHERS) {
		result = err_set(err, ERR_PRECONDITION, "%s was written by others", info->key);
		goto out;
	}
	if (ours && get.record.kind != CAT_KEY_DATA)
		goto out; /* markers, links and directories are made anew from the catalog */
	if (ours) {
		result = catalog_view(placement->catalog, placement_is_sole_copy, &sole);
		if (result || !sole.is_sole)
			goto out;
		placement_own_key(&sole.inode, get.record.seq, &to);
	} else {
		external_key(info, &to);
	}
	result = buf_failed(&to) ? -ENOMEM : copy_aside(placement, info, to.data, &kept, err);
	if (!result && ours)
		result = copy_recorded(placement, &get.record, &kept);
	if (!result && !ours)
		log_info("placement", "an object made by others at %s is kept as %s", info->key, to.data);
out:
	object_info_clear(&kept);
	if (known)
		cat_key_clear(&get.record);
	return result;
}

/*
 * Before the object of `key` is overwritten or removed on a store without versions. Says on which condition the key may
 * be written: the etag that was preserved (malloc'd), or that it be free.
 */
static int preserve_from(struct placement *placement, const char *key, enum others others,
			 struct put_condition *ret_condition, char **ret_etag, struct err *err)
{
	struct object_info info = {0};
	int result = placement_head_current(placement, key, &info, err);

	if (!result && info.key)
		result = placement_preserve_object(placement, &info, others, err);
	if (!result && info.key && transfer_can(placement->transfer, BACKEND_IF_MATCH)) {
		*ret_etag = info.etag;
		info.etag = NULL;
		ret_condition->if_match = *ret_etag;
	}
	if (!result && !info.key && transfer_can(placement->transfer, BACKEND_IF_NONE_MATCH))
		ret_condition->if_none_match = true;
	object_info_clear(&info);
	return result;
}

int placement_preserve(struct placement *placement, const char *key, struct put_condition *ret_condition,
		       char **ret_etag, struct err *err)
{
	return placement_versioned(placement)
		       ? 0
		       : preserve_from(placement, key, KEEP_OTHERS, ret_condition, ret_etag, err);
}

/* --- what may be replaced ---------------------------------------------------------------------------------- */

/* The condition of a put on a store with versions. ret_etag: malloc'd, what it borrows. */
static int condition_of(struct placement *placement, const char *key, struct put_condition *ret_condition,
			char **ret_etag)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, placement_get_key, &get);

	if (result == -ENOENT) {
		ret_condition->if_none_match = transfer_can(placement->transfer, BACKEND_IF_NONE_MATCH);
		return 0;
	}
	if (result)
		return result;
	if (transfer_can(placement->transfer, BACKEND_IF_MATCH) && get.record.etag) {
		*ret_etag = get.record.etag;
		get.record.etag = NULL;
		ret_condition->if_match = *ret_etag;
	}
	if (get.record.kind == CAT_KEY_DATA && !placement_has_own_id(get.record.native_id))
		placement_doubt_versioning(placement); /* only while it is on does this one survive */
	cat_key_clear(&get.record);
	return 0;
}

/* `seen`: of GUARD_SEEN. Makes safe what lies at the key, and says on which condition the key may be written. */
int placement_guard_key(struct placement *placement, const char *key, enum guard guard, const char *seen,
			struct put_condition *ret_condition, char **ret_etag, struct err *err)
{
	int result = 0;

	if (placement_is_own_key(key))
		guard = GUARD_NONE;
	if (guard == GUARD_RECORDED && placement_versioned(placement)) {
		result = condition_of(placement, key, ret_condition, ret_etag);
		if (result || placement_versioned(placement))
			return result;
		*ret_condition = (struct put_condition){0}; /* it was switched off */
		free(*ret_etag);
		*ret_etag = NULL;
	}
	if (!placement_versioned(placement))
		return preserve_from(placement, key, guard == GUARD_RECORDED ? MIND_OTHERS : KEEP_OTHERS, ret_condition,
				     ret_etag, err);
	if (guard == GUARD_SEEN && transfer_can(placement->transfer, BACKEND_IF_MATCH))
		ret_condition->if_match = seen;
	return 0;
}
