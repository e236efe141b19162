/*
 * unlisted.c - see unlisted.h.
 */
#include "fs/unlisted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "buf.h"

#define ASKED 8 /* objects, before all are believed to be gone */

/* What the catalog has recorded of a directory's key. */
struct recorded {
	uint64_t dir;
	struct buf key; /* with its '/' */
	bool marker;    /* the directory has an object of its own */
	struct object {
		char *key, *etag;
	} beneath[ASKED];
	unsigned count;
};

static void recorded_clear(struct recorded *recorded)
{
	buf_free(&recorded->key);
	for (unsigned i = 0; i < recorded->count; i++) {
		free(recorded->beneath[i].key);
		free(recorded->beneath[i].etag);
	}
}

static int take_record(void *arg, const char *key, const struct cat_key *record)
{
	struct recorded *recorded = arg;
	struct object *object = &recorded->beneath[recorded->count];

	if (strcmp(key, recorded->key.data) == 0) {
		recorded->marker = true;
		return 0;
	}
	recorded->count++;
	object->key = strdup(key);
	object->etag = record->etag ? strdup(record->etag) : NULL;
	return !object->key || (record->etag && !object->etag) ? -ENOMEM : recorded->count == ASKED;
}

static int recorded_closure(struct cat_txn *txn, void *arg)
{
	struct recorded *recorded = arg;
	int rc;

	recorded_clear(recorded); /* the closure may run again */
	*recorded = (struct recorded){.dir = recorded->dir, .key = BUF_INIT};
	rc = cat_key_of(txn, recorded->dir, &recorded->key);
	buf_addc(&recorded->key, '/');
	if (!rc && buf_failed(&recorded->key))
		rc = -ENOMEM;
	if (!rc)
		rc = cat_key_each(txn, 0, recorded->key.data, take_record, recorded);
	return rc < 0 ? rc : 0;
}

static int any_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)arg;
	(void)name;
	(void)inode; /* that there is one says it all */
	return 1;
}

int unlisted_is_bare(struct catalog *catalog, uint64_t dir)
{
	struct cat_readdir first = {.parent = dir, .max = 1};
	struct recorded recorded = {.dir = dir, .key = BUF_INIT};
	int rc = dir == CAT_ROOT_INO ? 1 : catalog_readdir(catalog, &first, any_name, NULL);

	if (rc)
		return rc < 0 ? rc : 0;
	rc = catalog_view(catalog, recorded_closure, &recorded);
	if (!rc)
		rc = !recorded.marker;
	recorded_clear(&recorded);
	return rc;
}

/* 1, 0, -errno. */
static int is_there(const struct unlisted *unlisted, const struct object *object)
{
	struct object_ref ref = {.key = object->key, .etag = object->etag};
	struct object_info info = {0};
	struct err why = {0};
	int rc = transfer_head(unlisted->transfer, unlisted->call, &ref, &info, &why);

	object_info_clear(&info);
	return !rc ? 1 : why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION ? 0 : rc;
}

int unlisted_is_there(const struct unlisted *unlisted, uint64_t dir)
{
	struct recorded recorded = {.dir = dir, .key = BUF_INIT};
	int rc = dir == CAT_ROOT_INO ? 0 : catalog_view(unlisted->catalog, recorded_closure, &recorded);

	for (unsigned i = 0; !rc && i < recorded.count; i++)
		rc = is_there(unlisted, &recorded.beneath[i]);
	recorded_clear(&recorded);
	return rc;
}

int unlisted_marker_is_there(const struct unlisted *unlisted, uint64_t dir)
{
	struct recorded recorded = {.dir = dir, .key = BUF_INIT};
	int rc = dir == CAT_ROOT_INO ? 0 : catalog_view(unlisted->catalog, recorded_closure, &recorded);

	if (!rc)
		rc = recorded.marker ? is_there(unlisted, &(struct object){.key = recorded.key.data}) : 1;
	recorded_clear(&recorded);
	return rc;
}

struct walk {
	const char *const *names;
	size_t count;
	struct cat_name *missing;
	size_t missing_count, missing_cap;
};

static int take_name(void *arg, const struct cat_name *name)
{
	struct walk *walk = arg;
	const char *text = name->name;

	if (name->type != S_IFDIR ||
	    (walk->count && bsearch(&text, walk->names, walk->count, sizeof(*walk->names), array_by_string)))
		return 0;
	if (ARRAY_ROOM(walk->missing, walk->missing_cap, walk->missing_count))
		return -ENOMEM;
	walk->missing[walk->missing_count++] = *name;
	return 0;
}

int unlisted_each(struct catalog *catalog, uint64_t dir, const char *const *names, size_t count, unlisted_visit visit,
		  void *arg)
{
	struct walk walk = {.names = names, .count = count};
	int rc = catalog_each_name(catalog, dir, take_name, &walk);

	for (size_t i = 0; !rc && i < walk.missing_count; i++)
		rc = visit(arg, &walk.missing[i]);
	free(walk.missing);
	return rc;
}
