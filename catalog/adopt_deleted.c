/*
 * adopt_deleted.c - names that the store knows from the past alone: what others deleted before we saw it, and
 * directories that a listing shows though nothing is in them.
 *
 * Invariant: what lives here, is to come, or was changed here under the name is left alone (may_take_deleted).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "cleanup.h"
#include "clock.h"

#define BATCH 500

struct deleting {
	const struct cat_deleted *request;
	const struct cat_found **newer; /* unknown, and newer than what the name held last; oldest first */
	struct cat_found *older;        /* unknown, of `heir` */
	size_t newer_count, older_count;
	uint64_t heir; /* had the name last; 0: nobody, or no file */
	uint64_t made; /* the new inode */
};

/* 1: it may be taken; 0: something of ours is there. */
static int may_take_deleted(struct cat_txn *txn, const struct cat_deleted *request)
{
	struct cat_key record;
	struct cat_name name;
	int rc = cat_name_get(txn, request->dir, request->name, &name);

	if (rc != -ENOENT)
		return rc;
	rc = cat_jobs_on_key(txn, request->key);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_get(txn, 0, request->key, &record);
	if (rc == 0)
		cat_key_clear(&record);
	return rc == 0 ? 0 : rc == -ENOENT ? 1 : rc;
}

/* Its newest content is older than this. INT64_MIN: all is. */
static int heir_of(struct cat_txn *txn, struct deleting *deleting, int64_t *ret_newest)
{
	struct cat_version version;
	struct cat_inode inode;
	struct cat_past past;
	int rc = cat_past_last(txn, deleting->request->dir, deleting->request->name, &past);

	*ret_newest = INT64_MIN;
	deleting->heir = 0;
	if (rc < 0 || !S_ISREG(past.type))
		return rc == -ENOENT ? 0 : rc;
	rc = cat_inode_get(txn, past.ino, &inode);
	if (rc < 0 || !inode.version)
		return rc;
	rc = cat_version_get(txn, past.ino, inode.version, &version);
	if (rc < 0)
		return rc;
	*ret_newest = version.commit_ns;
	deleting->heir = past.ino;
	return 0;
}

static int newest_last(const void *a, const void *b)
{
	const struct cat_found *x = *(const struct cat_found *const *)a, *y = *(const struct cat_found *const *)b;

	return (x->modified_ns > y->modified_ns) - (x->modified_ns < y->modified_ns);
}

/* Shares what nobody knows yet out between the one who had the name last and a new inode. */
static int share_out(struct cat_txn *txn, struct deleting *deleting)
{
	const struct cat_deleted *request = deleting->request;
	int64_t newest;
	int rc = heir_of(txn, deleting, &newest);

	deleting->newer_count = deleting->older_count = 0;
	for (size_t i = 0; i < request->count && rc >= 0; i++) {
		const struct cat_found *found = &request->versions[i];
		uint64_t ino, seq;

		rc = cat_place_get(txn, 0, found->key, cat_object_id(found->native_id, found->etag), &ino, &seq);
		if (rc == -ENOENT)
			rc = cat_holds_found(txn, found);
		else if (rc == 0)
			continue;
		if (rc < 0)
			return rc;
		if (rc == 1)
			continue;
		if (deleting->heir && found->modified_ns <= newest)
			deleting->older[deleting->older_count++] = *found;
		else
			deleting->newer[deleting->newer_count++] = found;
	}
	if (deleting->newer_count)
		qsort(deleting->newer, deleting->newer_count, sizeof(*deleting->newer), newest_last);
	return rc < 0 ? rc : 0;
}

static int put_past(struct cat_txn *txn, const struct cat_deleted *request, const struct cat_inode *inode,
		    int64_t since_ns)
{
	struct cat_past past = {
		.ino = inode->ino,
		.since = cat_next_seq(txn),
		.since_ns = since_ns,
		.until_ns = request->until_ns,
		.type = inode->mode & S_IFMT,
		.began = CAT_HOW_ADOPT,
		.ended = CAT_HOW_VANISH,
	};
	struct cat_found named = {.name = request->name, .component = request->component, .key = request->key};
	struct schema_key key;
	struct buf *value;
	int rc = cat_found_put_component(txn, request->dir, &named, request->name);

	if (rc == 0)
		rc = cat_past_dir(txn, request->dir, &past.parent);
	if (rc < 0)
		return rc;
	past.until = cat_next_seq(txn);
	if (!past.until_ns)
		past.until_ns = cat_now(txn);
	if (past.until_ns <= past.since_ns) /* two clocks, or one that was set back */
		past.until_ns = past.since_ns + 1;
	cat_name_set(past.name, request->name);
	value = cat_scratch(txn);
	schema_key_past(&key, past.parent, past.name, past.until);
	schema_encode_past(&past, value);
	return cat_put(txn, &key, value);
}

static void deleted_inode(struct cat_txn *txn, const struct cat_deleted *request, const struct cat_found *newest,
			  struct cat_inode *ret_inode)
{
	const struct cat_found directory = {.directory = true, .modified_ns = request->since_ns};
	const struct cat_adopt defaults = {
		.dir = request->dir,
		.file_mode = request->file_mode,
		.dir_mode = request->dir_mode,
		.uid = request->uid,
		.gid = request->gid,
	};

	cat_found_inode(txn, &defaults, newest ? newest : &directory, ret_inode);
	ret_inode->nlink = 0;
	ret_inode->flags = 0; /* nothing current is there to be asked */
	if (newest)           /* content is shown as content */
		ret_inode->mode = S_IFREG | (ret_inode->mode & 0777);
}

static int put_deleted_versions(struct cat_txn *txn, const struct deleting *deleting, struct cat_inode *inode)
{
	size_t first = deleting->newer_count > BATCH ? deleting->newer_count - BATCH : 0;
	int64_t shown_ms = INT64_MIN;
	int rc = 0;

	for (size_t i = first; i < deleting->newer_count && rc == 0; i++) {
		const struct cat_found *found = deleting->newer[i];
		struct cat_version version = {.ino = inode->ino};
		struct cat_copy copy;

		if (cat_found_is_ours(found))
			cat_seq_above(txn, found->seq);
		version.seq = cat_next_seq(txn);
		cat_found_version(found, inode, &version);
		version.shown_ms = version.commit_ns / NS_PER_MS;
		if (version.shown_ms <= shown_ms)
			version.shown_ms = shown_ms + 1;
		shown_ms = version.shown_ms;
		cat_found_copy(found, version.ino, version.seq, &copy);
		inode->version = version.seq;
		inode->size = version.size;
		rc = cat_version_put(txn, &version);
		if (rc == 0)
			rc = cat_copy_add(txn, &copy);
		if (rc == 0 && cat_found_is_ours(found))
			rc = cat_file_claim(txn, found->file_id, version.ino);
	}
	return rc;
}

#define EARLIER_MAX 16 /* directories of one name; what was deleted before all of these is not shown */
#define EARLIER_ROWS 256

/* Directories that had a name before, the latest first. */
struct earlier {
	struct {
		uint64_t ino;
		int64_t since_ns;
		bool found;
	} cells[EARLIER_MAX];
	size_t count;
};

static int take_earlier(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct earlier *earlier = arg;
	struct cat_past past;
	int rc = cat_check_row(key, schema_decode_past(key, value, &past));

	if (rc || !S_ISDIR(past.type))
		return rc;
	earlier->cells[earlier->count].ino = past.ino;
	earlier->cells[earlier->count].since_ns = past.since_ns;
	earlier->cells[earlier->count].found = past.began == CAT_HOW_ADOPT;
	return ++earlier->count == EARLIER_MAX;
}

/* Did a directory of this name with whose past this one goes on have it at that time? 1, 0, -errno. */
static int went_on_then(struct cat_txn *txn, const struct cat_name *name, int64_t at)
{
	struct schema_key from, to;
	struct earlier earlier = {0};
	uint64_t past_dir, own, others;
	int rc = cat_past_dir(txn, name->parent, &past_dir);

	if (rc == 0)
		rc = cat_past_dir(txn, name->ino, &own);
	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, name->name, 0);
	schema_key_past(&to, past_dir, name->name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, EARLIER_ROWS, take_earlier,
		     &earlier);
	for (size_t i = 0; i < earlier.count && rc >= 0; i++) {
		rc = cat_past_dir(txn, earlier.cells[i].ino, &others);
		if (rc < 0 || others != own)
			return rc;
		if (earlier.cells[i].found || at > earlier.cells[i].since_ns)
			return 1;
	}
	return rc < 0 ? rc : 0;
}

int cat_dir_came_after(struct cat_txn *txn, uint64_t dir, int64_t at)
{
	struct cat_name name;
	int rc = 0;

	for (unsigned depth = 0; depth < CAT_DEPTH_MAX; depth++) {
		rc = cat_first_name(txn, dir, &name);
		if (rc) /* the top, or a directory of the past */
			return rc == -ENOENT ? 0 : rc;
		if (name.how != CAT_HOW_ADOPT && at <= name.since_ns) {
			rc = went_on_then(txn, &name, at);
			if (rc <= 0)
				return rc < 0 ? rc : 1;
		}
		dir = name.parent;
	}
	return -EBADMSG; /* its own ancestor */
}

/* Was it deleted before its directory came there? Then it is another's past. */
static int is_older_than_directory(struct cat_txn *txn, const struct cat_deleted *request)
{
	/* The marker that we left for such a directory may be younger: the oldest of what was in it tells. */
	return cat_dir_came_after(txn, request->dir, request->directory ? request->since_ns : request->until_ns);
}

static int deleted_closure(struct cat_txn *txn, void *arg)
{
	struct deleting *deleting = arg;
	const struct cat_deleted *request = deleting->request;
	const struct cat_found *newest = NULL;
	struct cat_inode inode, dir;
	struct cat_past past;
	int rc;

	deleting->made = 0;
	deleting->newer_count = deleting->older_count = 0;
	rc = may_take_deleted(txn, request);
	if (rc > 0) {
		rc = is_older_than_directory(txn, request);
		rc = rc ? (rc < 0 ? rc : 0) : 1;
	}
	if (rc <= 0)
		return rc;
	rc = cat_inode_get(txn, request->dir, &dir);
	if (rc < 0)
		return rc;
	if (request->directory) {
		rc = cat_past_last(txn, request->dir, request->name, &past);
		if (rc == -ENOENT)
			rc = cat_place_any(txn, 0, request->key); /* of the directory that had this name before */
		else if (rc == 0)                                 /* it came after that one, or is the same */
			rc = request->since_ns <= past.until_ns;
		if (rc)
			return rc < 0 ? rc : 0;
	} else {
		rc = share_out(txn, deleting);
		if (rc < 0 || !deleting->newer_count)
			return rc;
		newest = deleting->newer[deleting->newer_count - 1];
	}
	deleted_inode(txn, request, newest, &inode);
	if (newest)
		rc = put_deleted_versions(txn, deleting, &inode);
	else
		rc = 0;
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = put_past(txn, request, &inode, newest ? deleting->newer[0]->modified_ns : request->since_ns);
	deleting->made = inode.ino;
	return rc;
}

int catalog_adopt_deleted(struct catalog *catalog, const struct cat_deleted *deleted)
{
	struct deleting deleting = {.request = deleted};
	int rc = cat_name_check(deleted->name);

	if (rc < 0)
		return rc;
	deleting.newer = calloc(deleted->count + 1, sizeof(*deleting.newer));
	deleting.older = calloc(deleted->count + 1, sizeof(*deleting.older));
	rc = deleting.newer && deleting.older ? catalog_update(catalog, deleted_closure, &deleting) : -ENOMEM;
	if (rc == 0 && deleting.older_count)
		rc = catalog_adopt_versions(catalog, deleting.heir, deleting.older, deleting.older_count);
	if (rc == 0 && deleting.made && deleting.newer_count > BATCH) /* those that one update did not take */
		rc = catalog_adopt_versions(catalog, deleting.made, deleted->versions, deleted->count);
	free(deleting.newer);
	free(deleting.older);
	return rc;
}

/* --- directories that are listed though nothing is there -------------------------------------------- */

struct fading {
	const struct cat_phantom *phantom;
	struct cat_name name;
	bool faded;
};

/* 1: nothing is there, and nothing is to come. 0, -errno. */
static int is_phantom(struct cat_txn *txn, struct fading *fading, const struct cat_inode *inode)
{
	AUTO_BUF key = BUF_INIT;
	struct cat_key record;
	int rc;

	if (inode->ino == CAT_ROOT_INO || !S_ISDIR(inode->mode) || !inode->nlink || !(inode->flags & CAT_LISTED))
		return 0;
	rc = cat_first_name(txn, inode->ino, &fading->name);
	if (rc || fading->name.how != CAT_HOW_ADOPT)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_dir_any(txn, inode->ino);
	if (rc == 0)
		rc = cat_jobs_on_inode(txn, inode->ino);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_of(txn, inode->ino, &key);
	buf_addc(&key, '/');
	if (rc == 0)
		rc = buf_failed(&key) ? -ENOMEM : cat_key_get(txn, 0, key.data, &record);
	if (rc == 0)
		cat_key_clear(&record);
	return rc == -ENOENT ? 1 : rc;
}

static int fade_closure(struct cat_txn *txn, void *arg)
{
	struct fading *fading = arg;
	const struct cat_phantom *phantom = fading->phantom;
	struct cat_past past = {.type = S_IFDIR, .began = CAT_HOW_ADOPT, .ended = CAT_HOW_VANISH};
	struct cat_inode inode;
	struct schema_key key;
	struct buf *value;
	int rc = cat_inode_get(txn, phantom->ino, &inode);

	fading->faded = false;
	if (rc == 0)
		rc = is_phantom(txn, fading, &inode);
	if (rc <= 0)
		return rc;
	past.parent = fading->name.parent;
	past.ino = inode.ino;
	past.since = fading->name.since;
	past.until = cat_next_seq(txn);
	past.until_ns = phantom->until_ns ? phantom->until_ns : cat_now(txn);
	past.since_ns = phantom->since_ns && phantom->since_ns < past.until_ns ? phantom->since_ns : past.until_ns - 1;
	cat_name_set(past.name, fading->name.name);
	inode.nlink = 0;
	rc = cat_unbind(txn, &fading->name);
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = cat_dir_touch(txn, past.parent, -1);
	value = cat_scratch(txn);
	schema_key_past(&key, past.parent, past.name, past.until);
	schema_encode_past(&past, value);
	fading->faded = true;
	return rc ? rc : cat_put(txn, &key, value);
}

int catalog_phantom(struct catalog *catalog, const struct cat_phantom *phantom, uint64_t *ret_parent)
{
	struct fading fading = {.phantom = phantom};
	int rc = catalog_update(catalog, fade_closure, &fading);

	if (rc || !fading.faded)
		return rc;
	*ret_parent = fading.name.parent;
	return 1;
}

struct past_dir {
	uint64_t ino;
	struct cat_past found;
};

static int find_past_dir(struct cat_txn *txn, uint64_t parent, struct past_dir *dir)
{
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_number(&prefix, SCHEMA_PAST, past_dir);
	rows_open(&rows, &prefix, KV_FORWARD);
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		rc = cat_check_row(key, schema_decode_past(key, value, &dir->found));
		if (rc < 0 || (dir->found.ino == dir->ino && dir->found.began == CAT_HOW_ADOPT &&
			       dir->found.ended == CAT_HOW_VANISH))
			break;
	}
	rows_close(&rows);
	return rc;
}

int cat_key_ever(struct cat_txn *txn, uint64_t ino, struct buf *ret_key)
{
	struct past_dir dir = {.ino = ino};
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc < 0 || ino == CAT_ROOT_INO)
		return rc;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	if (inode.nlink) {
		rc = cat_key_of(txn, ino, ret_key);
	} else {
		rc = find_past_dir(txn, inode.parent, &dir);
		if (rc == 0)
			rc = cat_key_ever(txn, inode.parent, ret_key);
		if (rc == 0)
			rc = cat_component_of(txn, inode.parent, dir.found.name, ret_key);
	}
	buf_addc(ret_key, '/');
	return rc == 0 && buf_failed(ret_key) ? -ENOMEM : rc;
}
