/*
 * facts.c - see facts.h.
 *
 * Keeps no state: the store is listed, each object names the version that it tells of, and the catalog knows what has
 * become of that. So it does not matter who left them, nor when somebody was killed.
 *
 * Invariants
 *  1. Between the catalog's word that a version is stored and the removal of its facts lies a complete shipping of the
 *     log.
 *  2. Facts of a version that the catalog does not know are another's: they stay.
 *  3. Nothing is removed without the lease.
 */
#include "fs/facts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "cleanup.h"
#include "fs/ahead.h"
#include "fs/killpoint.h"
#include "fs/lease.h"
#include "fs/objmeta.h"

/* An object, a version of it, or a delete marker; both malloc'd. */
struct object {
	char *key, *native_id;
};

struct objects {
	struct object *cells;
	size_t count, cap;
};

static void objects_clear(struct objects *objects)
{
	for (size_t i = 0; i < objects->count; i++) {
		free(objects->cells[i].key);
		free(objects->cells[i].native_id);
	}
	free(objects->cells);
	*objects = (struct objects){0};
}

static int objects_add(struct objects *objects, struct object_info *info)
{
	if (ARRAY_ROOM(objects->cells, objects->cap, objects->count))
		return -ENOMEM;
	objects->cells[objects->count++] = (struct object){.key = info->key, .native_id = info->native_id};
	info->key = info->native_id = NULL;
	return 0;
}

/* --- what became of the version ------------------------------------------------------------------------------- */

enum fate { UNKNOWN, WAITING, STORED };

struct subject {
	const struct objmeta *meta;
	enum fate fate;
};

static int take_version(void *arg, const struct cat_version *version)
{
	struct subject *subject = arg;

	if (version->commit_ns != subject->meta->commit_ns)
		return 0;
	subject->fate = version->state == CAT_LOCAL || version->state == CAT_UPLOADING ? WAITING : STORED;
	return 1;
}

/* By its time: in a catalog rebuilt from the listing it has another number. */
static int find_version(struct cat_txn *txn, void *arg)
{
	struct subject *subject = arg;
	uint64_t ino;
	int rc = cat_file_find(txn, subject->meta->file_id, &ino);

	subject->fate = UNKNOWN;
	if (!rc)
		rc = cat_version_each(txn, ino, 0, UINT64_MAX, take_version, subject);
	return rc < 0 && rc != -ENOENT ? rc : 0;
}

static int fate_of(const struct facts_tidy *tidy, const struct objmeta *meta, enum fate *ret_fate)
{
	static const unsigned needed = OBJMETA_FILE_ID | OBJMETA_COMMIT;
	struct subject subject = {.meta = meta};
	int rc = 0;

	if ((meta->has & needed) == needed)
		rc = catalog_view(tidy->catalog, find_version, &subject);
	*ret_fate = subject.fate;
	return rc;
}

/* --- looking -------------------------------------------------------------------------------------------------- */

static int head(const struct facts_tidy *tidy, const struct call *call, struct object_info *info, struct err *err)
{
	struct object_ref object = {.key = info->key, .native_id = info->native_id};
	struct object_info told = {0};
	int rc = info->flags & OBJECT_META ? 0 : transfer_head(tidy->transfer, call, &object, &told, err);

	if (rc || (info->flags & OBJECT_META))
		return rc;
	info->meta = told.meta;
	told.meta = (struct meta){0};
	object_info_clear(&told);
	return 0;
}

struct looked {
	struct objects done; /* to be removed */
	uint64_t waiting;
};

/* A delete marker is what is left of one that was removed. */
static int look_at(const struct facts_tidy *tidy, const struct call *call, struct object_info *info,
		   struct looked *looked, struct err *err)
{
	enum fate fate = STORED;
	struct objmeta meta;
	int rc = 0;

	if (!(info->flags & OBJECT_DELETE_MARKER)) {
		rc = head(tidy, call, info, err);
		if (rc)
			return err->kind == ERR_NOT_FOUND ? 0 : rc;
		objmeta_decode(&info->meta, &meta);
		rc = fate_of(tidy, &meta, &fate);
	}
	looked->waiting += fate == WAITING;
	if (!rc && fate == STORED)
		rc = objects_add(&looked->done, info);
	return rc ? err_from_errno(err, -rc, "%s", AHEAD_FACTS_PREFIX) : 0;
}

static int look(const struct facts_tidy *tidy, const struct call *call, struct looked *looked, struct err *err)
{
	AUTO_FREE char *token = NULL;
	struct list_request request = {
		.prefix = AHEAD_FACTS_PREFIX, .versions = transfer_can(tidy->transfer, BACKEND_VERSIONS), .meta = true};
	int rc;

	do {
		struct list_page page = {0};

		request.token = token;
		rc = transfer_list(tidy->transfer, call, &request, &page, err);
		for (size_t i = 0; !rc && i < page.count; i++)
			rc = look_at(tidy, call, &page.entries[i], looked, err);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (!rc && token);
	return rc;
}

static int remove_all(const struct facts_tidy *tidy, const struct call *call, const struct objects *done,
		      struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < done->count && !rc; i++) {
		struct object_ref object = {.key = done->cells[i].key, .native_id = done->cells[i].native_id};

		rc = lease_check(tidy->lease, err);
		if (!rc)
			rc = transfer_remove(tidy->transfer, call, &object, NULL, err);
		killpoint("facts-removed");
	}
	return rc;
}

int facts_tidy(const struct facts_tidy *tidy, const struct call *call, uint64_t *ret_waiting, struct err *err)
{
	struct looked looked = {0};
	struct err why = {0};
	int rc = look(tidy, call, &looked, &why);

	if (!rc && looked.done.count)
		rc = tidy->ship(tidy->ship_arg, call, &why);
	if (!rc && looked.done.count)
		killpoint("facts-shipped");
	if (!rc)
		rc = remove_all(tidy, call, &looked.done, &why);
	objects_clear(&looked.done);
	if (!rc)
		*ret_waiting = looked.waiting;
	else if (err)
		*err = why;
	return rc;
}
