/*
 * placement_others.c - who has the key: ourselves by an attempt that was not recorded, a version that we know, or
 * others, to whom ours gives way.
 *
 * Invariant: nothing of others is written over because it was not recognized; in doubt ours stands aside.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cleanup.h"
#include "fs/ahead.h"
#include "fs/killpoint.h"
#include "fs/objmeta.h"
#include "fs/placement_internal.h"
#include "log.h"

#define CONFLICTS_MIN 3 /* refusals, until others may be the reason */

/* What is at the key now, with what facts it has elsewhere: an upload made ahead, too, must be known for ours. */
int placement_head_whole(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct object_ref ref = {.key = key};
	int result = ahead_head(placement->transfer, &call, &ref, ret_info, err);

	return placement_free_is_fine(result, ret_info, err);
}

/* Sent by an earlier process, whose mark holds another epoch? */
bool placement_is_this_version(const struct facts *facts, const struct object_info *info)
{
	static const unsigned both = OBJMETA_FILE_ID | OBJMETA_SEQ;
	const struct cat_version *version = &facts->version;
	struct objmeta meta;

	objmeta_decode(&info->meta, &meta);
	if ((meta.has & both) != both || meta.seq != version->seq || info->size != version->size ||
	    memcmp(meta.file_id, facts->inode.file_id, sizeof(meta.file_id)) != 0)
		return false;
	return !(meta.has & OBJMETA_CRC32C) || !(version->flags & CAT_HAS_CRC32C) || meta.crc32c == version->crc32c;
}

/* Is it a version that we know, only not as the key's current object? Or sent by us and not recorded, before a kill:
 * then it is a copy of one. */
static int is_known(struct cat_txn *txn, void *arg)
{
	static const unsigned both = OBJMETA_FILE_ID | OBJMETA_SEQ;
	const struct object_info *info = arg;
	struct cat_version version;
	struct objmeta meta;
	uint64_t ino, seq;
	int err = cat_place_get(txn, 0, info->key, cat_object_id(info->native_id, info->etag), &ino, &seq);

	if (err != -ENOENT)
		return err;
	objmeta_decode(&info->meta, &meta);
	if ((meta.has & both) != both)
		return -ENOENT;
	err = cat_holds_known(txn, meta.file_id, meta.seq, meta.has & OBJMETA_COMMIT ? meta.commit_ns : 0);
	if (err <= 0)
		return err ? err : -ENOENT;
	err = cat_file_find(txn, meta.file_id, &ino);
	if (!err)
		err = cat_version_get(txn, ino, meta.seq, &version);
	if (err == -ENOENT) /* a rebuilt catalog gave it another number */
		return 0;
	return !err && version.size != info->size ? -ENOENT : err;
}

/* A marker of the file's own further name, put by an attempt that was not recorded: its content belongs there by now.
 */
static bool is_own_marker(const struct facts *facts, const struct object_info *info)
{
	struct objmeta meta;

	objmeta_decode(&info->meta, &meta);
	return (meta.has & OBJMETA_LINK) && !info->size &&
	       memcmp(meta.link_id, facts->inode.file_id, sizeof(meta.link_id)) == 0;
}

bool placement_is_ours(struct placement *placement, const struct facts *facts, const struct object_info *info)
{
	return is_own_marker(facts, info) ||
	       catalog_view(placement->catalog, is_known, (void *)info) == 0; /* only read */
}

bool placement_is_of(const struct object_info *info, const struct cat_inode *inode)
{
	struct objmeta meta;

	objmeta_decode(&info->meta, &meta);
	return (meta.has & OBJMETA_FILE_ID) && memcmp(meta.file_id, inode->file_id, sizeof(meta.file_id)) == 0;
}

int placement_look_again(struct placement *placement, const struct facts *facts, const char *key,
			 struct object_info *ret_info, struct target *ret_again, struct err *err)
{
	int result;

	*err = (struct err){0};
	*ret_again = (struct target){.key = key, .guard = GUARD_NONE};
	result = placement_head_whole(placement, key, ret_info, err);
	if (result || !ret_info->key)
		return result;
	ret_again->guard = GUARD_SEEN;
	ret_again->seen = ret_info->etag;
	return !placement_is_ours(placement, facts, ret_info);
}

/* Theirs is the file; ours becomes a version beside it. -EAGAIN: the job goes on with another key. */
int placement_stand_aside(struct placement *placement, const struct facts *facts, const char *key)
{
	int result = catalog_conflict(placement->catalog, facts->inode.ino, facts->version.seq);

	if (result)
		return result;
	atomic_fetch_add(&placement->conflicts, 1);
	log_warn("placement",
		 "conflict: %s was written by others while changes made here were on their way: theirs is the file, "
		 "ours is kept as version %08" PRIx32 " in its history",
		 key, facts->version.identity);
	killpoint("conflict-recorded");
	return -EAGAIN;
}

/* A file or directory that the catalog knows, by what an object of it tells. */
static int is_of_known(struct cat_txn *txn, void *arg)
{
	const struct object_info *info = arg;
	struct objmeta meta;
	uint64_t ino;

	objmeta_decode(&info->meta, &meta);
	return meta.has & OBJMETA_FILE_ID ? cat_file_find(txn, meta.file_id, &ino) : -ENOENT;
}

/* Is an object there that is not ours, recorded or not yet? 1, 0, -errno. */
static int is_others(struct placement *placement, const char *key, struct err *err)
{
	struct key_get get = {.key = key};
	struct object_info info = {0};
	int result = catalog_view(placement->catalog, placement_get_key, &get);

	if (!result)
		cat_key_clear(&get.record);
	if (result != -ENOENT)
		return result;
	result = placement_head_whole(placement, key, &info, err);
	if (!result && info.key) {
		result = catalog_view(placement->catalog, is_of_known, &info);
		result = result == -ENOENT ? 1 : result;
	}
	object_info_clear(&info);
	return result;
}

static int others_above(struct placement *placement, const char *key, struct err *err)
{
	AUTO_FREE char *above = strdup(key);
	int result = above ? 0 : -ENOMEM;
	char *slash;

	while (!result && (slash = strrchr(above, '/'))) {
		*slash = '\0';
		result = is_others(placement, above, err);
	}
	return result;
}

static int others_beneath(struct placement *placement, const char *key, struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct list_page page = {0};
	AUTO_BUF prefix = BUF_INIT;
	struct list_request request = {0};
	int result;

	buf_addf(&prefix, "%.*s/", (int)placement_bare_length(key), key);
	if (buf_failed(&prefix))
		return -ENOMEM;
	request.prefix = prefix.data;
	result = transfer_list(placement->transfer, &call, &request, &page, err);
	for (size_t i = 0; !result && i < page.count; i++) {
		const char *beneath = page.entries[i].key;

		/* A directory without anything gives way, and may be what is just left of ours. */
		if (placement_bare_length(beneath) == strlen(beneath))
			result = is_others(placement, beneath, err);
	}
	list_page_clear(&page);
	return result;
}

/* Is it others whose object is in the way, a file where a directory would have to be or the other way? What is ours
 * will go, and mostly has: only who was refused a few times asks. 1, 0, -errno. */
int placement_others_in_the_way(struct placement *placement, const struct facts *facts, const char *key)
{
	struct err err = {0};
	int result;

	if (facts->job->attempts < CONFLICTS_MIN)
		return 0;
	result = others_above(placement, key, &err);
	return result ? result : others_beneath(placement, key, &err);
}

/* Does the store still hold at the key what our record says? */
bool placement_still_ours(const struct cat_key *record, const struct object_info *info)
{
	return cat_same_object(record->native_id, record->etag, info->native_id, info->etag);
}

/* Is the object at the key what we know to lie there, or a version that we know? */
static int not_others(struct cat_txn *txn, void *arg)
{
	struct object_info *info = arg;
	struct cat_key record;
	bool ours;
	int err = cat_key_get(txn, 0, info->key, &record);

	if (err == -ENOENT)
		return is_known(txn, info);
	if (err)
		return err;
	ours = placement_still_ours(&record, info);
	cat_key_clear(&record);
	return ours ? 0 : is_known(txn, info);
}

/* Somebody else's object is still where a version that had to stand aside would belong. 1, 0, -errno. */
int placement_is_contested(struct placement *placement, const struct facts *facts, struct err *err)
{
	struct object_info info = {0};
	int result;

	if (facts->version.origin != CAT_ORIGIN_CONFLICT)
		return 0;
	result = placement_head_whole(placement, facts->links->key, &info, err);
	if (!result && info.key && !is_own_marker(facts, &info)) {
		result = catalog_view(placement->catalog, not_others, &info);
		result = result == -ENOENT ? 1 : result;
	}
	object_info_clear(&info);
	return result;
}
