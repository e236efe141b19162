/*
 * rebuilt.c - makes an imported catalog one that can be worked with: journal,
 * extents and dirty marks stayed on the lost machine, so what leans on them is
 * let go, and the jobs are derived again from where things lie and should lie.
 *
 * Works through inodes and keys in updates of at most BATCH rows; each leaves
 * its rows as they must be, so that it may be interrupted and repeated. An inode
 * with a pending job is left to that job.
 *
 * Threads: any; meant for one, before the tree is served.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog/catalog_internal.h"

#define BATCH 200
#define KEPT ".varve/versions/"

struct pass {
	enum schema_tag tag;
	int (*row)(struct cat_txn *txn, struct kv_bytes key, struct kv_bytes value);
	struct schema_key from; /* of the next batch; len 0: the first */
	struct schema_key next; /* of the update that runs */
	bool at_end;
};

/* --- files -------------------------------------------------------------------------------------- */

struct lost {
	struct cat_version *versions;
	size_t count, cap;
};

static int take_lost(void *arg, const struct cat_version *version)
{
	struct lost *lost = arg;

	if (version->state != CAT_LOCAL && version->state != CAT_UPLOADING)
		return 0;
	if (ARRAY_ROOM(lost->versions, lost->cap, lost->count))
		return -ENOMEM;
	lost->versions[lost->count++] = *version;
	return 0;
}

static int fail_lost_versions(struct cat_txn *txn, uint64_t ino)
{
	struct lost lost = {0};
	int rc = cat_version_each(txn, ino, 0, UINT64_MAX, take_lost, &lost);

	for (size_t i = 0; i < lost.count && rc == 0; i++) {
		lost.versions[i].state = CAT_FAILED;
		rc = cat_version_put(txn, &lost.versions[i]);
	}
	free(lost.versions);
	return rc;
}

/* Was it the file's content? A conflict is, as long as nobody else's object has taken the name. */
static bool was_content(const struct cat_inode *inode, const struct cat_version *version)
{
	return version->origin != CAT_ORIGIN_SUSPECT &&
	       (version->origin != CAT_ORIGIN_CONFLICT || version->seq == inode->version);
}

/* Steps back to the newest version that reached the store and was the file's content; that it is gone from there since
 * makes no older one the newest. */
static int show_newest_stored(struct cat_txn *txn, struct cat_inode *inode)
{
	struct cat_version version;
	uint64_t at = inode->version;
	int rc;

	for (;;) {
		rc = cat_version_at(txn, inode->ino, at, &version);
		if (rc < 0)
			break;
		if ((version.state == CAT_STORED || version.state == CAT_EXPIRED) && was_content(inode, &version))
			break;
		if (version.seq == 0) {
			rc = -ENOENT;
			break;
		}
		at = version.seq - 1;
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (rc == 0 && version.seq == inode->version)
		return 0;
	inode->version = rc == 0 ? version.seq : 0;
	inode->size = rc == 0 ? version.size : 0;
	if (rc == 0)
		inode->mtime = version.mtime;
	return 0;
}

static int mend_file(struct cat_txn *txn, struct cat_inode *inode)
{
	int rc = fail_lost_versions(txn, inode->ino);

	if (rc == 0 && inode->version)
		rc = show_newest_stored(txn, inode);
	else if (rc == 0)
		inode->size = 0; /* it was never closed: nothing of it was kept elsewhere */
	inode->flags &= ~(uint32_t)(CAT_DIRTY | CAT_FLUSHED);
	return rc ? rc : cat_inode_put(txn, inode);
}

/* --- jobs --------------------------------------------------------------------------------------- */

/* Is there a record of an object of this inode at the key? 1, 0, -errno. */
static int is_at(struct cat_txn *txn, const char *key, uint64_t ino)
{
	struct cat_key record;
	bool ours;
	int rc = cat_key_get(txn, 0, key, &record);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	ours = record.ino == ino;
	cat_key_clear(&record);
	return ours;
}

static int place_file(struct cat_txn *txn, const struct cat_inode *inode, const char *key)
{
	struct cat_copy copy;
	int rc;

	if (!inode->version)
		return 0;
	if (inode->nlink > 1) /* its markers are cheaper to look at again than to know */
		return cat_job_add(txn, CAT_JOB_PLACE, inode->ino, NULL);
	rc = cat_copy_get(txn, inode->ino, inode->version, &copy);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (strcmp(copy.key, key) != 0)
		rc = cat_job_add(txn, CAT_JOB_PLACE, inode->ino, copy.key);
	cat_copy_clear(&copy);
	return rc;
}

static int place_inode(struct cat_txn *txn, const struct cat_inode *inode)
{
	struct buf key = BUF_INIT;
	int rc = cat_key_of(txn, inode->ino, &key);

	if (rc < 0)
		goto out;
	if (S_ISREG(inode->mode)) {
		rc = place_file(txn, inode, key.data);
		goto out;
	}
	rc = S_ISDIR(inode->mode) && !(inode->flags & CAT_OWN_ATTRS) ? cat_dir_any(txn, inode->ino) : 0;
	if (rc) /* a directory with children exists through them */
		goto out;
	if (S_ISDIR(inode->mode))
		buf_addc(&key, '/');
	rc = buf_failed(&key) ? -ENOMEM : is_at(txn, key.data, inode->ino);
	if (rc == 0)
		rc = cat_job_add(txn, CAT_JOB_PLACE, inode->ino, NULL);
out:
	buf_free(&key);
	return rc < 0 ? rc : 0;
}

static int mend_inode(struct cat_txn *txn, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode;
	int rc = cat_check_row(key, schema_decode_inode(key, value, &inode));

	if (rc == 0)
		rc = cat_jobs_on_inode(txn, inode.ino);
	if (rc)
		return rc < 0 ? rc : 0;
	if (S_ISREG(inode.mode))
		rc = mend_file(txn, &inode);
	if (rc < 0 || inode.nlink == 0 || inode.ino == CAT_ROOT_INO)
		return rc;
	return place_inode(txn, &inode);
}

/* What still lies at a key though its inode is gone. What lies where versions are kept is meant to stay: conflicting
 * and suspect versions lie nowhere else. */
static int mend_key(struct cat_txn *txn, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode;
	struct cat_key record;
	char *object_key;
	int rc = cat_check_row(key, schema_decode_key(key, value, &record, &object_key));

	if (rc < 0)
		return rc;
	rc = strncmp(object_key, KEPT, strlen(KEPT)) == 0 ? -ENOENT : cat_inode_get(txn, record.ino, &inode);
	if (rc == 0 && inode.nlink == 0) {
		rc = cat_jobs_on_key(txn, object_key);
		if (rc == 0)
			rc = cat_job_add(txn, CAT_JOB_PLACE, record.ino, object_key);
	}
	free(object_key);
	cat_key_clear(&record);
	return rc < 0 && rc != -ENOENT ? rc : 0;
}

/* --- all of it ---------------------------------------------------------------------------------- */

static int pass_closure(struct cat_txn *txn, void *arg)
{
	struct pass *pass = arg;
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	int rc = 0;

	schema_key_begin(&prefix, pass->tag);
	rows_open(&rows, &prefix, KV_FORWARD);
	if (pass->from.len)
		rows.from = pass->from;
	rows.batch = BATCH;
	for (size_t i = 0; i < BATCH && rc == 0; i++) {
		rc = rows_next(&rows, txn, &key, &value);
		pass->at_end = rc == -ENOENT;
		if (rc < 0)
			break;
		pass->next.len = 0;
		schema_key_bytes(&pass->next, key.data, key.len);
		schema_key_u8(&pass->next, 0);
		rc = pass->row(txn, key, value);
	}
	rows_close(&rows);
	if (pass->at_end)
		return 0;
	return rc == -ENOENT ? -EBADMSG : rc; /* a row that leads nowhere is no end */
}

static int run_pass(struct catalog *catalog, struct pass *pass)
{
	int rc;

	do {
		rc = catalog_update(catalog, pass_closure, pass);
		pass->from = pass->next;
	} while (rc == 0 && !pass->at_end);
	return rc;
}

int catalog_rebuilt(struct catalog *catalog)
{
	struct pass inodes = {.tag = SCHEMA_INODE, .row = mend_inode}, keys = {.tag = SCHEMA_KEY, .row = mend_key};
	int rc = run_pass(catalog, &inodes);

	return rc ? rc : run_pass(catalog, &keys);
}
