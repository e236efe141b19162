/*
 * recover.c - what a crash left in the cache.
 *
 * After kill -9 the cache files hold every byte that was written. After a power cut they hold what was synced, and of
 * the rest nobody knows; the boot id in an extent record tells which it was.
 *
 *	                 not stored version                    changes without a version (CAT_DIRTY)
 *	same boot        its upload goes on                    a version: origin close if a close acknowledged it,
 *	                                                       else recovered
 *	other boot,      its upload goes on                    the same
 *	  synced
 *	other boot       its checksum is compared: equal, its  a version, suspect: nobody knows its bytes
 *	                 upload goes on; else it is suspect
 *
 * A suspect version is kept, under `.varve/versions/` in the store and in the history, but it is never the file: the
 * file goes back to the newest version that is whole.
 *
 * Runs once, at mount, before anything else uses the contents.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "fs/backing.h"
#include "fs/content_internal.h"
#include "log.h"

#define STEP (256u << 10)

struct pair {
	uint64_t ino, seq; /* seq 0: changes without a version */
};

struct pairs {
	struct pair *cells;
	size_t count, cap;
};

static int pairs_add(struct pairs *pairs, uint64_t ino, uint64_t seq)
{
	if (ARRAY_ROOM(pairs->cells, pairs->cap, pairs->count))
		return -ENOMEM;
	pairs->cells[pairs->count++] = (struct pair){.ino = ino, .seq = seq};
	return 0;
}

static int note_dirty(void *arg, const struct cat_inode *inode)
{
	return S_ISREG(inode->mode) ? pairs_add(arg, inode->ino, 0)
				    : 0; /* a removed directory's job holds no content */
}

static int note_upload(void *arg, struct cat_job *job)
{
	return job->type == CAT_JOB_UPLOAD ? pairs_add(arg, job->ino, job->version) : 0;
}

/* --- what is known of one -------------------------------------------------------------------------------- */

struct found {
	struct pair of;
	struct cat_inode inode;
	struct cat_version version;
	struct cat_extent extent;
	uint64_t extent_id; /* whose record it is; 0: there is none */
};

static int read_found(struct cat_txn *txn, void *arg)
{
	struct found *found = arg;
	int err = cat_inode_get(txn, found->of.ino, &found->inode);

	if (!err && found->of.seq)
		err = cat_version_get(txn, found->of.ino, found->of.seq, &found->version);
	if (err)
		return err;
	found->extent_id = found->of.seq ? CACHE_VERSION | found->of.seq : found->of.ino;
	err = cat_extent_get(txn, found->extent_id, &found->extent);
	if (err == -ENOENT && found->of.seq) {
		found->extent_id = found->of.ino;
		err = cat_extent_get(txn, found->extent_id, &found->extent);
	}
	if (err == -ENOENT)
		found->extent_id = 0;
	return err == -ENOENT ? 0 : err;
}

static bool is_trusted(const struct contents *contents, const struct found *found)
{
	return !found->extent_id || found->extent.synced || memcmp(found->extent.boot_id, contents->boot_id, 16) == 0;
}

static int put_extent(struct cat_txn *txn, void *arg)
{
	const struct found *found = arg;

	return cat_extent_put(txn, found->extent_id, &found->extent);
}

/* What was copied from another file's version without its bytes has lost none: what was fetched of it is fetched again.
 */
static int trust_elsewhere(struct contents *contents, struct found *found)
{
	int err;

	if (is_trusted(contents, found) || !found->extent.base_ino || found->extent.dirty.count ||
	    !(found->of.seq || found->inode.flags & CAT_FLUSHED))
		return 0;
	ranges_clear(&found->extent.present);
	memcpy(found->extent.boot_id, contents->boot_id, sizeof(found->extent.boot_id));
	err = catalog_update(contents->catalog, put_extent, found);
	if (!err) { /* it may be longer than the file, or hold what was cut */
		cache_file_unlink(contents->cache, found->extent_id);
		if (found->of.seq)
			cache_file_unlink(contents->cache, CACHE_VERSION | found->of.seq);
	}
	return err;
}

/* Not stored versions keep all their bytes in the cache file, so its checksum is theirs. */
static bool matches_checksum(struct contents *contents, const struct found *found)
{
	AUTO_FREE char *bytes = malloc(STEP);
	AUTO_CLOSE int fd = -1;
	uint32_t crc = 0;
	uint64_t at = 0;

	if (!found->version.size)
		return true;
	if (!bytes || !(found->version.flags & CAT_HAS_CRC32C) ||
	    cache_file_open(contents->cache, CACHE_VERSION | found->of.seq, O_RDONLY, &fd))
		return false;
	while (at < found->version.size) {
		uint64_t left = found->version.size - at;
		ssize_t n = pread(fd, bytes, left < STEP ? (size_t)left : STEP, (off_t)at);

		if (n <= 0)
			return false;
		crc = crc32c_update(crc, bytes, (size_t)n);
		at += (uint64_t)n;
	}
	return crc == found->version.crc32c;
}

/* --- suspects -------------------------------------------------------------------------------------------- */

static int newest_whole(void *arg, const struct cat_version *version)
{
	if (version->origin != CAT_ORIGIN_SUSPECT && version->origin != CAT_ORIGIN_CONFLICT)
		*(struct cat_version *)arg = *version;
	return 0;
}

/* The file goes back to the newest version that is whole; without one it is empty. */
static int go_back(struct cat_txn *txn, struct cat_inode *inode)
{
	struct cat_version version = {0};
	int err = cat_version_each(txn, inode->ino, 0, UINT64_MAX, newest_whole, &version);

	if (err)
		return err;
	inode->version = version.seq;
	/* Changes since then are examined on their own: their record and bytes stay. */
	if (inode->flags & CAT_DIRTY)
		return cat_inode_put(txn, inode);
	inode->size = version.size;
	inode->mtime = version.seq ? version.mtime : inode->mtime;
	err = cat_inode_put(txn, inode);
	return err ? err : cat_extent_delete(txn, inode->ino);
}

static int make_suspect(struct cat_txn *txn, void *arg)
{
	struct found *found = arg;
	struct cat_extent kept = found->extent;
	int err;

	found->version.origin = CAT_ORIGIN_SUSPECT;
	found->version.flags &= ~CAT_HAS_CRC32C; /* of the bytes that were, not of these */
	err = cat_version_put(txn, &found->version);
	kept.present = kept.dirty; /* what was fetched may be torn as well */
	if (!err)
		err = cat_extent_put(txn, CACHE_VERSION | found->of.seq, &kept);
	return err || found->inode.version != found->of.seq ? err : go_back(txn, &found->inode);
}

/* The second name of the cache file may be missing: killed before it was made, or lost with the power. */
static int name_version(struct contents *contents, const struct found *found)
{
	uint64_t version_id = CACHE_VERSION | found->of.seq;
	int fd, err = cache_file_open(contents->cache, version_id, O_RDONLY, &fd);

	if (!err)
		(void)close(fd);
	if (err != -ENOENT || found->extent_id != found->of.ino)
		return err == -ENOENT ? 0 : err;
	err = cache_file_link(contents->cache, found->of.ino, version_id);
	return err == -ENOENT ? 0 : err; /* no file at all: its checksum will not match */
}

static int examine_version(struct contents *contents, const struct pair *pair, uint64_t *suspects)
{
	struct found found = {.of = *pair};
	bool untouched;
	int err = backing_recover(contents, CACHE_VERSION | pair->seq, pair->ino, &untouched);

	err = err ? err : catalog_view(contents->catalog, read_found, &found);
	err = err ? err : trust_elsewhere(contents, &found);
	bool goes_back = found.inode.version == pair->seq && !(found.inode.flags & CAT_DIRTY);

	if (err || is_trusted(contents, &found))
		goto out;
	memcpy(found.extent.boot_id, contents->boot_id, 16);
	err = name_version(contents, &found);
	if (err)
		goto out;
	if (matches_checksum(contents, &found)) {
		err = catalog_update(contents->catalog, put_extent, &found);
		goto out;
	}
	err = catalog_update(contents->catalog, make_suspect, &found);
	if (!err && goes_back)
		cache_file_unlink(contents->cache, pair->ino); /* the version keeps it under its own name */
	if (!err)
		++*suspects;
out:
	cat_extent_clear(&found.extent);
	return err;
}

/* --- changes without a version --------------------------------------------------------------------------- */

/* Without a base the whole cache file is the file; with one, only what the record says is dirty can be told from what
 * was fetched, and the rest is fetched again. */
static int settle_ranges(struct content *content, const struct cat_inode *inode)
{
	struct stat st;
	int err;

	if (fstat(content->fd, &st))
		return -errno;
	if (!(inode->flags & CAT_FLUSHED) || (uint64_t)st.st_size > content->size)
		content->size = (uint64_t)st.st_size;
	if (content->base_limit > content->size) /* what was cut must not come back */
		content->base_limit = content->size;
	ranges_clear(&content->present);
	if (content->base_limit > 0 && content->base) {
		/* Past the base everything is ours, journalled or not. */
		err = ranges_add(&content->dirty, content->base_limit, content->size);
		ranges_free(&content->present);
		return err ? err : ranges_copy(&content->present, &content->dirty);
	}
	ranges_clear(&content->dirty);
	err = ranges_add(&content->present, 0, content->size);
	return err ? err : ranges_add(&content->dirty, 0, content->size);
}

static int go_back_now(struct cat_txn *txn, void *arg)
{
	struct cat_inode inode;
	int err = cat_inode_get(txn, *(const uint64_t *)arg, &inode);

	return err ? err : go_back(txn, &inode);
}

/* After its version was made: the file itself goes back, the version keeps the cache file. Its link may have failed. */
static int leave_suspect(struct contents *contents, struct content *content)
{
	int err;

	LOCK_GUARD(&content->lock);
	err = content_leave_to_version(content);
	if (!err)
		err = catalog_update(contents->catalog, go_back_now, &content->ino);
	if (!err) {
		content->discarded = true;
		cache_file_unlink(contents->cache, content->id);
	}
	return err;
}

static int commit_found(struct contents *contents, struct content *content, const struct found *found, bool suspect)
{
	enum cat_origin origin = suspect                            ? CAT_ORIGIN_SUSPECT
				 : found->inode.flags & CAT_FLUSHED ? CAT_ORIGIN_CLOSE
								    : CAT_ORIGIN_RECOVERED;
	uint64_t seq;
	int err;

	{
		LOCK_GUARD(&content->lock);
		content->changed = true;
		content->stale = true;
		err = settle_ranges(content, &found->inode);
	}
	if (!err)
		err = content_commit(content, origin, found->inode.uid, &seq);
	return err || !suspect ? err : leave_suspect(contents, content);
}

static int recover_changes(struct contents *contents, const struct pair *pair, uint64_t *suspects)
{
	struct found found = {.of = *pair};
	struct content *content = NULL;
	bool suspect, wanted, untouched = false;
	int err = catalog_view(contents->catalog, read_found, &found);

	if (!err)
		err = backing_recover(contents, pair->ino, 0, &untouched);
	if (!err)
		err = trust_elsewhere(contents, &found);
	suspect = !err && !is_trusted(contents, &found);
	if (suspect) { /* so that it is loaded as it lies there */
		memcpy(found.extent.boot_id, contents->boot_id, 16);
		err = catalog_update(contents->catalog, put_extent, &found);
	}
	if (!err)
		err = content_get(contents, pair->ino, 0, &content);
	if (err)
		goto out;
	/* Also asked for those without a name, of which mostly nothing but the cache file is left. */
	wanted = found.inode.nlink || (!content_has_no_future(&found.inode) && found.inode.flags & CAT_DIRTY);
	if (content->lost && wanted) {
		err = -EIO;
	} else if (wanted && untouched && !suspect && !(found.inode.flags & CAT_FLUSHED)) {
		LOCK_GUARD(&content->lock);
		err = backing_tighten(content);
	} else if (wanted) {
		err = commit_found(contents, content, &found, suspect);
	} else {
		LOCK_GUARD(&content->lock);
		content_discard_locked(content);
	}
	*suspects += suspect;
	content_put(content);
out:
	cat_extent_clear(&found.extent);
	return err;
}

int contents_recover(struct contents *contents, uint64_t *ret_recovered)
{
	struct pairs pairs = {0};
	uint64_t suspects = 0, recovered = 0;
	int err = catalog_jobs(contents->catalog, 0, 0, note_upload, &pairs);

	if (!err)
		err = catalog_each_dirty(contents->catalog, note_dirty, &pairs);
	for (size_t i = 0; i < pairs.count && !err; i++) {
		const struct pair *pair = &pairs.cells[i];
		int failed = pair->seq ? examine_version(contents, pair, &suspects)
				       : recover_changes(contents, pair, &suspects);

		if (failed)
			log_error("recover", "cannot recover the changes of file %llu: %s",
				  (unsigned long long)pair->ino, strerror(-failed));
		else if (!pair->seq)
			recovered++;
	}
	if (suspects)
		log_warn("recover",
			 "%llu versions may have lost bytes in a power cut; they are kept in the history as suspect",
			 (unsigned long long)suspects);
	free(pairs.cells);
	if (!err)
		*ret_recovered = recovered;
	return err;
}
