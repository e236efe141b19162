/*
 * retention.c - see retention.h.
 *
 * Invariants
 *  1. Only copies of a version that the catalog has expired are removed, each by its own id or, in a store without
 *     versions, under the condition that the key still holds it.
 *  2. A copy leaves the catalog after the store let it go, never before.
 *  3. The version is read anew by every run, so a job can stop anywhere and run again.
 */
#include "fs/retention.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "clock.h"
#include "log.h"

struct copies {
	const struct cat_job *job;
	struct cat_version version;
	struct cat_copy *cells;
	size_t count, cap;
};

static void copies_clear(struct copies *copies)
{
	for (size_t i = 0; i < copies->count; i++)
		cat_copy_clear(&copies->cells[i]);
	free(copies->cells);
	copies->cells = NULL;
	copies->count = copies->cap = 0;
}

static char *dup_or_null(const char *text, bool *failed)
{
	char *copy = text ? strdup(text) : NULL;

	*failed |= text && !copy;
	return copy;
}

static int add_copy(void *arg, const struct cat_copy *copy)
{
	struct copies *copies = arg;
	struct cat_copy *cells;
	bool failed = false;

	if (ARRAY_ROOM(copies->cells, copies->cap, copies->count))
		return -ENOMEM;
	cells = &copies->cells[copies->count++];
	*cells = *copy;
	cells->key = dup_or_null(copy->key, &failed);
	cells->native_id = dup_or_null(copy->native_id, &failed);
	cells->etag = dup_or_null(copy->etag, &failed);
	cells->storage_class = NULL;
	return failed ? -ENOMEM : 0;
}

static int read_copies(struct cat_txn *txn, void *arg)
{
	struct copies *copies = arg;
	int err;

	copies_clear(copies);
	err = cat_version_get(txn, copies->job->ino, copies->job->version, &copies->version);
	return err ? err : cat_copy_each(txn, copies->job->ino, copies->job->version, add_copy, copies);
}

static int job_done(const struct retention *retention, const struct cat_job *job)
{
	int err = catalog_job_done(retention->catalog, job->seq);

	return err == -ENOENT ? 0 : err;
}

/* --- prune ------------------------------------------------------------------------------------------ */

static int drop_copy(struct cat_txn *txn, void *arg)
{
	const struct cat_copy *copy = arg;
	struct cat_key record;
	int err = cat_key_get(txn, copy->backend, copy->key, &record);

	if (!err) {
		bool held_it = record.ino == copy->ino && record.seq == copy->seq && !copy->native_id;

		cat_key_clear(&record);
		err = held_it ? cat_key_delete(txn, copy->backend, copy->key) : 0;
	}
	if (!err || err == -ENOENT)
		err = cat_copy_drop(txn, copy->ino, copy->seq, copy->key, copy->native_id);
	return err == -ENOENT ? 0 : err;
}

static int remove_copy(const struct retention *retention, struct cat_copy *copy, struct err *err)
{
	struct object_ref ref = {.key = copy->key, .native_id = copy->native_id};
	int result = 0;

	/* By name alone a delete marker would be put on whatever is there now. */
	if (!copy->native_id && transfer_can(retention->transfer, BACKEND_VERSIONS))
		return err_set(err, ERR_DENIED, "the store's id of the copy at %s is not known", copy->key);
	if (cat_object_id(copy->native_id, copy->etag) == copy->etag)
		ref.etag = copy->etag;
	if (ref.native_id && ref.etag) { /* "null": not every store honours an etag beside an id when it removes */
		struct object_info info = {0};

		result = transfer_head(retention->transfer, &retention->call, &ref, &info, err);
		object_info_clear(&info);
	}
	/* Without an id or an etag nobody can say that what lies there is this version. */
	if (!result && (ref.native_id || ref.etag))
		result = transfer_remove(retention->transfer, &retention->call, &ref, NULL, err);
	if (result && (err->kind == ERR_NOT_FOUND || (ref.etag && err->kind == ERR_PRECONDITION))) {
		*err = (struct err){0};
		result = 0;
	}
	return result ? result : catalog_update(retention->catalog, drop_copy, copy);
}

int retention_prune(const struct retention *retention, const struct cat_job *job, struct err *err)
{
	struct copies copies = {.job = job};
	int result = catalog_view(retention->catalog, read_copies, &copies);

	if (!result && (copies.version.state != CAT_EXPIRED || !(copies.version.flags & CAT_PRUNED)))
		goto done; /* taken back since */
	for (size_t i = 0; i < copies.count && !result; i++)
		result = remove_copy(retention, &copies.cells[i], err);
	if (result && err->kind == ERR_DENIED) {
		log_warn("retention", "version %" PRIu64 " of file %" PRIu64 " stays, the store will not remove it: %s",
			 job->version, job->ino, err->message);
		*err = (struct err){0};
		result = catalog_prune_refused(retention->catalog, job->seq, job->ino, job->version);
		copies_clear(&copies);
		return result;
	}
done:
	copies_clear(&copies);
	return result ? result : job_done(retention, job);
}

/* --- lock ------------------------------------------------------------------------------------------- */

static struct object_lock lock_of(const struct cat_version *version)
{
	bool retained = version->flags & CAT_RETAINED && version->retain_until_ns > clock_wall();

	return (struct object_lock){
		.hold = version->flags & CAT_HELD,
		.retain_until_ns = retained ? version->retain_until_ns : 0,
		.compliance = version->flags & CAT_COMPLIANCE,
	};
}

static int lock_copies(const struct retention *retention, const struct copies *copies, struct err *err)
{
	struct object_lock lock = lock_of(&copies->version);
	int result = 0;

	for (size_t i = 0; i < copies->count && !result; i++) {
		const struct cat_copy *copy = &copies->cells[i];
		struct object_ref ref = {.key = copy->key, .native_id = copy->native_id};

		result = transfer_lock(retention->transfer, &retention->call, &ref, &lock, err);
	}
	return result;
}

int retention_lock(const struct retention *retention, const struct cat_job *job, struct err *err)
{
	struct copies copies = {.job = job};
	int result = catalog_view(retention->catalog, read_copies, &copies);
	bool enforced = false;

	/* What is not stored yet gets a job of its own when it is. */
	if (!result && copies.count && transfer_can(retention->transfer, BACKEND_LOCK)) {
		result = lock_copies(retention, &copies, err);
		enforced = !result;
		if (result && (err->kind == ERR_DENIED || err->kind == ERR_UNSUPPORTED)) {
			log_warn("retention",
				 "the store does not take the lock of version %" PRIu64 " of file %" PRIu64
				 ", only this catalog keeps it: %s",
				 job->version, job->ino, err->message);
			*err = (struct err){0};
			result = 0;
		}
	}
	if (!result)
		result = catalog_protected(retention->catalog, job->seq, &copies.version, enforced);
	copies_clear(&copies);
	return result;
}
