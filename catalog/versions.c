/*
 * versions.c - from the first change of a file to its version in the store.
 *
 *   clean --catalog_mark_dirty--> dirty --catalog_flush--> dirty, acknowledged
 *     ^                             |                          |
 *     +------catalog_commit---------+--------------------------+
 *   version: local --catalog_stored--> stored --catalog_prune--> expired
 *
 * Invariants
 *  1. A version's facts are written once, here or by adopt.c; only its state and its protection change.
 *  2. A local version has its UPLOAD job until catalog_stored deletes it.
 *  3. Within an inode, shown_ms grows with seq.
 *  4. A version that is held, retained, current or the newest in the store is not pruned.
 *  5. CAT_LOCKED is only set while the store enforces exactly what the record says.
 *
 * Threads: any.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "clock.h"

struct change {
	uint64_t ino, size;
	int64_t mtime;
	const struct cat_extent *extent;
	bool acknowledged;
};

/* A file that content may be recorded for. */
static int file_get(struct cat_txn *txn, uint64_t ino, struct cat_inode *ret_inode)
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc < 0)
		return rc;
	if (!S_ISREG(inode.mode))
		return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
	*ret_inode = inode;
	return 0;
}

static void set_content(struct cat_txn *txn, struct cat_inode *inode, uint64_t size, int64_t mtime)
{
	if (inode->size != size || inode->mtime != mtime)
		inode->ctime = cat_now(txn);
	inode->size = size;
	inode->mtime = mtime;
}

static int change_closure(struct cat_txn *txn, void *arg)
{
	const struct change *change = arg;
	struct cat_inode inode;
	int rc = file_get(txn, change->ino, &inode);

	if (rc < 0)
		return rc;
	inode.flags |= CAT_DIRTY;
	if (change->acknowledged) {
		inode.flags |= CAT_FLUSHED;
		set_content(txn, &inode, change->size, change->mtime);
	}
	rc = cat_inode_put(txn, &inode);
	if (rc == 0 && change->extent)
		rc = cat_extent_put(txn, change->ino, change->extent);
	return rc;
}

int catalog_mark_dirty(struct catalog *catalog, uint64_t ino, const struct cat_extent *extent)
{
	struct change change = {.ino = ino, .extent = extent};

	return catalog_update(catalog, change_closure, &change);
}

int catalog_flush(struct catalog *catalog, uint64_t ino, uint64_t size, int64_t mtime, const struct cat_extent *extent)
{
	struct change change = {.ino = ino, .size = size, .mtime = mtime, .extent = extent, .acknowledged = true};

	return catalog_update(catalog, change_closure, &change);
}

/* --- commit ------------------------------------------------------------------------------------- */

struct commit {
	const struct cat_commit *request;
	struct cat_version version;
};

static int fill_version(struct cat_txn *txn, const struct cat_commit *request, const struct cat_inode *inode,
			struct cat_version *ret_version)
{
	struct cat_version before;
	struct cat_version version = {
		.ino = inode->ino,
		.seq = cat_next_seq(txn),
		.size = request->size,
		.mtime = request->mtime,
		.commit_ns = cat_now(txn),
		.mode = inode->mode,
		.uid = inode->uid,
		.gid = inode->gid,
		.author = request->author,
		.crc32c = request->has_crc32c ? request->crc32c : 0,
		.flags = request->has_crc32c ? CAT_HAS_CRC32C : 0,
		.state = CAT_LOCAL,
		.origin = request->origin,
	};
	int rc = cat_version_at(txn, inode->ino, UINT64_MAX, &before);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	version.shown_ms = version.commit_ns / NS_PER_MS;
	if (rc == 0 && version.shown_ms <= before.shown_ms)
		version.shown_ms = before.shown_ms + 1;
	version.identity = cat_identity_own(inode->file_id, version.seq);
	memcpy(version.host, txn->catalog->host, sizeof(version.host));
	*ret_version = version;
	return 0;
}

static int commit_closure(struct cat_txn *txn, void *arg)
{
	struct commit *commit = arg;
	const struct cat_commit *request = commit->request;
	struct cat_version *version = &commit->version;
	struct cat_job job = {.type = CAT_JOB_UPLOAD, .ino = request->ino};
	struct cat_inode inode;
	int rc = file_get(txn, request->ino, &inode);

	if (rc < 0)
		return rc;
	if (inode.flags & CAT_DISCARDED)
		return -ENOENT;
	rc = fill_version(txn, request, &inode, version);
	if (rc == 0)
		rc = cat_version_put(txn, version);
	if (rc < 0)
		return rc;
	if (request->extent) {
		struct cat_extent extent = *request->extent; /* borrows the ranges */

		rc = cat_extent_put(txn, inode.ino, &extent);
		if (rc < 0)
			return rc;
	}
	if (request->origin != CAT_ORIGIN_SUSPECT) { /* not provably whole: kept, never shown as the file */
		inode.version = version->seq;
		inode.flags &= ~(uint32_t)CAT_UNRESOLVED; /* what the store's metadata said is overtaken */
		set_content(txn, &inode, request->size, request->mtime);
	}
	if (!request->still_dirty)
		inode.flags &= ~(uint32_t)(CAT_DIRTY | CAT_FLUSHED);
	rc = cat_inode_put(txn, &inode);
	job.version = version->seq;
	return rc ? rc : cat_job_put(txn, &job);
}

int catalog_commit(struct catalog *catalog, const struct cat_commit *request, struct cat_version *ret_version)
{
	struct commit commit = {.request = request};
	int rc = catalog_update(catalog, commit_closure, &commit);

	if (rc == 0 && ret_version)
		*ret_version = commit.version;
	return rc;
}

/* --- stored ------------------------------------------------------------------------------------- */

struct stored {
	uint64_t job;
	const struct cat_copy *copy;
	const struct cat_extent *extent;
};

/* Links made before there was an object to link to were passed over by the jobs that their making left. */
static int place_links(struct cat_txn *txn, uint64_t ino)
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	return rc == 0 && inode.nlink > 1 ? cat_job_add(txn, CAT_JOB_PLACE, ino, NULL) : rc;
}

static int stored_closure(struct cat_txn *txn, void *arg)
{
	const struct stored *stored = arg;
	struct cat_copy copy = *stored->copy; /* borrows the strings */
	struct cat_key record = {
		.backend = copy.backend,
		.kind = CAT_KEY_DATA,
		.ino = copy.ino,
		.seq = copy.seq,
		.native_id = copy.native_id,
		.etag = copy.etag,
	};
	struct cat_version version;
	int rc = cat_job_delete(txn, stored->job);

	if (rc == 0)
		rc = cat_version_get(txn, copy.ino, copy.seq, &version);
	if (rc < 0)
		return rc;
	version.state = CAT_STORED;
	copy.state = CAT_STORED;
	if (!copy.stored_ns)
		copy.stored_ns = cat_now(txn);
	rc = cat_version_put(txn, &version);
	if (rc == 0)
		rc = cat_key_overwritten(txn, copy.key, &record);
	if (rc == 0)
		rc = cat_copy_add(txn, &copy);
	if (rc == 0)
		rc = cat_key_put(txn, copy.key, &record);
	if (rc == 0 && stored->extent)
		rc = cat_extent_put(txn, copy.ino, stored->extent);
	if (rc == 0) /* its own cache file is nobody's any more */
		rc = cat_extent_delete(txn, CAT_EXTENT_VERSION | copy.seq);
	if (rc == 0)
		rc = cat_key_left(txn, copy.ino, copy.key);
	return rc ? rc : place_links(txn, copy.ino);
}

int catalog_stored(struct catalog *catalog, uint64_t job, const struct cat_copy *copy, const struct cat_extent *extent)
{
	struct stored stored = {.job = job, .copy = copy, .extent = extent};

	return catalog_update(catalog, stored_closure, &stored);
}

/* --- protection ----------------------------------------------------------------------------------- */

static int protect_closure(struct cat_txn *txn, void *arg)
{
	const struct cat_protection *request = arg;
	struct cat_job job = {.type = CAT_JOB_LOCK, .ino = request->ino, .version = request->seq};
	struct cat_version version;
	int rc = cat_version_get(txn, request->ino, request->seq, &version);

	if (rc == 0 && version.state == CAT_EXPIRED)
		rc = -ENOENT;
	if (rc < 0)
		return rc;
	if (request->set_hold)
		version.flags = request->hold ? version.flags | CAT_HELD : version.flags & ~(uint32_t)CAT_HELD;
	if (request->retain_until_ns) {
		if (version.flags & CAT_RETAINED && request->retain_until_ns < version.retain_until_ns)
			return -EPERM;
		version.flags |= CAT_RETAINED | (request->compliance ? CAT_COMPLIANCE : 0);
		version.retain_until_ns = request->retain_until_ns;
	}
	version.flags &= ~(uint32_t)CAT_LOCKED;
	rc = cat_version_put(txn, &version);
	return rc ? rc : cat_job_put(txn, &job);
}

int catalog_protect(struct catalog *catalog, const struct cat_protection *request)
{
	return catalog_update(catalog, protect_closure, (void *)request); /* only read */
}

struct told {
	uint64_t job;
	const struct cat_version *version;
	bool enforced;
};

static int told_closure(struct cat_txn *txn, void *arg)
{
	static const uint32_t said = CAT_HELD | CAT_RETAINED | CAT_COMPLIANCE;
	const struct told *told = arg;
	struct cat_version version;
	int rc = cat_version_get(txn, told->version->ino, told->version->seq, &version);

	if (rc == 0 && told->enforced) {
		if ((version.flags & said) != (told->version->flags & said) ||
		    version.retain_until_ns != told->version->retain_until_ns)
			return -EAGAIN;
		version.flags |= CAT_LOCKED;
		rc = cat_version_put(txn, &version);
	}
	return rc && rc != -ENOENT ? rc : cat_job_delete(txn, told->job);
}

int catalog_protected(struct catalog *catalog, uint64_t job, const struct cat_version *as_told, bool enforced)
{
	struct told told = {.job = job, .version = as_told, .enforced = enforced};

	return catalog_update(catalog, told_closure, &told);
}

/* --- pruning ---------------------------------------------------------------------------------------- */

struct prune {
	uint64_t job, ino, seq;
};

static int is_stored(void *arg, const struct cat_version *version)
{
	(void)arg;
	return version->state == CAT_STORED;
}

/* What a reader of the live file, or an upload of what is not sent yet, still needs. */
static int still_needed(struct cat_txn *txn, const struct cat_version *version)
{
	struct cat_extent extent;
	struct cat_inode inode;
	int rc = cat_is_based_on(txn, version->seq);

	if (rc)
		return rc;
	rc = cat_inode_get(txn, version->ino, &inode);
	if (rc < 0)
		return rc;
	if (!inode.nlink && !(inode.flags & CAT_DIRTY))
		return 0;
	if (inode.version == version->seq)
		return 1;
	rc = cat_extent_get(txn, version->ino, &extent);
	if (rc == 0) {
		bool is_base = extent.base == version->seq; /* absent bytes of what the cache holds are read from it */

		cat_extent_clear(&extent);
		if (is_base)
			return 1;
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = cat_version_each(txn, version->ino, version->seq + 1, UINT64_MAX, is_stored, NULL);
	return rc < 0 ? rc : !rc;
}

static int may_prune(struct cat_txn *txn, const struct prune *prune, struct cat_version *ret_version)
{
	struct cat_version version;
	int rc = cat_version_get(txn, prune->ino, prune->seq, &version);

	if (rc < 0)
		return rc;
	if (version.state == CAT_EXPIRED)
		return -ENOENT;
	rc = still_needed(txn, &version);
	if (rc)
		return rc < 0 ? rc : -EBUSY;
	if (version.state != CAT_STORED)
		return -EAGAIN;
	if (version.flags & CAT_HELD || (version.flags & CAT_RETAINED && version.retain_until_ns > clock_wall()))
		return -EPERM;
	*ret_version = version;
	return 0;
}

static int prunable_closure(struct cat_txn *txn, void *arg)
{
	struct cat_version version;

	return may_prune(txn, arg, &version);
}

int catalog_prunable(struct catalog *catalog, uint64_t ino, uint64_t seq)
{
	return catalog_view(catalog, prunable_closure, &(struct prune){.ino = ino, .seq = seq});
}

static int prune_closure(struct cat_txn *txn, void *arg)
{
	const struct prune *prune = arg;
	struct cat_job job = {.type = CAT_JOB_PRUNE, .ino = prune->ino, .version = prune->seq};
	struct cat_version version;
	int rc = may_prune(txn, prune, &version);

	if (rc < 0)
		return rc;
	version.state = CAT_EXPIRED;
	version.flags |= CAT_PRUNED;
	rc = cat_version_put(txn, &version);
	return rc ? rc : cat_job_put(txn, &job);
}

int catalog_prune(struct catalog *catalog, uint64_t ino, uint64_t seq)
{
	return catalog_update(catalog, prune_closure, &(struct prune){.ino = ino, .seq = seq});
}

static int refused_closure(struct cat_txn *txn, void *arg)
{
	const struct prune *prune = arg;
	struct cat_version version;
	int rc = cat_version_get(txn, prune->ino, prune->seq, &version);

	if (rc == 0) {
		version.state = CAT_STORED;
		version.flags &= ~(uint32_t)CAT_PRUNED;
		rc = cat_version_put(txn, &version);
	}
	return rc && rc != -ENOENT ? rc : cat_job_delete(txn, prune->job);
}

int catalog_prune_refused(struct catalog *catalog, uint64_t job, uint64_t ino, uint64_t seq)
{
	return catalog_update(catalog, refused_closure, &(struct prune){.job = job, .ino = ino, .seq = seq});
}
