/*
 * reconcile_list.c - a directory by its listing.
 *
 * Invariants
 *  1. A listing is adopted whole or not at all, and `listed_at` is from before its first page.
 *  2. The reserved prefix `.varve/` is never shown.
 *  3. A directory is neither believed to be there nor to be gone because of what a listing of a store with delete
 *     markers shows or hides: such are asked for by name (is_phantom, unlisted.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "cleanup.h"
#include "fs/reconcile_internal.h"
#include "fs/unlisted.h"
#include "log.h"

#define IDLE_PAGES_MAX 100 /* of a listing, in a row */

/* Where to list, and since when what it shows holds. */
struct place {
	uint64_t dir;
	struct buf prefix; /* of every key beneath */
	int64_t now;
	bool listed; /* before */
};

static int place_closure(struct cat_txn *txn, void *arg)
{
	struct place *place = arg;
	struct cat_inode inode;
	int rc;

	buf_reset(&place->prefix); /* the closure may run again */
	place->now = cat_now(txn); /* the catalog's clock can be ahead of the wall's; names are compared by it */
	if (place->dir == CAT_ROOT_INO)
		return 0;
	rc = cat_inode_get(txn, place->dir, &inode);
	if (rc)
		return rc;
	place->listed = inode.flags & CAT_LISTED;
	rc = cat_key_of(txn, place->dir, &place->prefix);
	buf_addc(&place->prefix, '/');
	return !rc && buf_failed(&place->prefix) ? -ENOMEM : rc;
}

struct listing {
	struct reconcile *reconcile;
	const char *prefix;
	size_t prefix_len;
	bool meta;   /* wished for */
	bool marker; /* the directory's own was there */
	struct findings findings;
};

static int list_entry_add(struct listing *list, const struct object_info *info)
{
	struct findings *findings = &list->findings;
	struct cat_found found = {0};
	const char *component = info->key + list->prefix_len;
	size_t len;
	int rc;

	if (strncmp(info->key, list->prefix, list->prefix_len) != 0)
		return -EBADMSG;
	len = strlen(component);
	if (!len) {
		list->marker = true; /* HEAD asks for it */
		return 0;
	}
	if (!list->prefix_len && !strcmp(component, CAT_OWN_KEYS))
		return 0;
	found.directory = component[len - 1] == '/';
	len -= found.directory;
	if (memchr(component, '/', len) || (!found.directory && (info->flags & OBJECT_PREFIX)))
		return -EBADMSG; /* a store that does not know delimiters */
	rc = found_name(&findings->arena, component, len, &found);
	if (!rc)
		rc = found_store_facts(&findings->arena, info, &found);
	if (found.directory) /* a common prefix has no facts of an object */
		found.size = 0;
	else if (!rc)
		rc = found_told(&list->reconcile->options, &findings->arena, info, &found);
	return rc ? rc : findings_add(findings, &found, list->reconcile->options.max_entries);
}

/* Keys come in byte order. A page may bring nothing new when all of it was deleted meanwhile, but not one page after
 * another: a store that lies could go on like that for ever. */
static bool listing_stalls(const struct list_page *page, struct buf *last, unsigned *idle)
{
	const char *newest = page->count ? page->entries[page->count - 1].key : "";

	if (strcmp(newest, last->len ? last->data : "") <= 0)
		return ++*idle > IDLE_PAGES_MAX;
	*idle = 0;
	buf_reset(last);
	buf_adds(last, newest);
	return false;
}

static int list_pages(struct listing *list, const struct call *call, struct err *err)
{
	AUTO_FREE char *token = NULL;
	AUTO_BUF last = BUF_INIT;
	struct list_request request = {.prefix = list->prefix, .delimiter = '/', .meta = list->meta};
	unsigned idle = 0;
	int rc;

	do {
		struct list_page page = {0};

		request.token = token;
		rc = transfer_list(list->reconcile->options.transfer, call, &request, &page, err);
		if (rc)
			return rc;
		atomic_fetch_add(&list->reconcile->pages, 1);
		for (size_t i = 0; i < page.count && !rc; i++)
			rc = list_entry_add(list, &page.entries[i]);
		if (!rc && listing_stalls(&page, &last, &idle))
			rc = -ELOOP;
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (!rc && token);
	if (rc == -EBADMSG)
		return err_set(err, ERR_CORRUPT, "listing of %s: a key that was not asked for", list->prefix);
	if (rc == -ELOOP)
		return err_set(err, ERR_CORRUPT, "listing of %s: page after page brings nothing new", list->prefix);
	if (rc == -E2BIG)
		return err_set(err, ERR_TOO_LARGE, "%s has more than %zu entries", list->prefix, list->findings.count);
	return rc ? err_from_errno(err, -rc, "listing of %s", list->prefix) : 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct cat_found *)a)->key, ((const struct cat_found *)b)->key);
}

/* What a store listed twice, on two pages while it changed, stays once. `a` beside `a/` are two: the catalog has the
 * names for both. */
static void list_dedupe(struct findings *findings)
{
	size_t kept = 0;

	if (findings->count)
		qsort(findings->found, findings->count, sizeof(*findings->found), by_key);
	for (size_t i = 0; i < findings->count; i++) {
		if (!kept || by_key(&findings->found[kept - 1], &findings->found[i]))
			findings->found[kept++] = findings->found[i];
	}
	findings->count = kept;
}

static int any_past(void *arg, const struct cat_past *past)
{
	(void)arg;
	(void)past; /* that there is one says it all */
	return 1;
}

int reconcile_had_name(struct reconcile *reconcile, uint64_t dir, const char *name)
{
	return catalog_past(reconcile->options.catalog, dir, name, any_past, NULL);
}

static int any_place(struct cat_txn *txn, void *arg)
{
	const struct cat_found *found = arg;

	return cat_place_any(txn, 0, found->key);
}

/* May there be nothing beneath the prefix? So it may when all that it had here vanished, and when it is news in a
 * directory whose names we know, or the name of what was here before, or where versions lie whose files went on
 * elsewhere. 1, 0, -errno. */
static int is_doubtful(struct reconcile *reconcile, uint64_t dir, const struct cat_found *found)
{
	struct catalog *catalog = reconcile->options.catalog;
	struct cat_inode inode;
	int rc;

	if (!found->directory || found->etag)
		return 0;
	if (catalog_lookup(catalog, dir, found->name, &inode) == 0)
		return S_ISDIR(inode.mode) && inode.flags & CAT_LISTED ? unlisted_is_bare(catalog, inode.ino) : 0;
	rc = catalog_getattr(catalog, dir, &inode);
	if (rc || inode.flags & CAT_LISTED)
		return rc ? rc : 1;
	rc = reconcile_had_name(reconcile, dir, found->name);
	return rc ? rc : catalog_view(catalog, any_place, (void *)found); /* only read */
}

static int is_phantom(struct reconcile *reconcile, const struct call *call, uint64_t dir, const struct cat_found *found,
		      struct err *err)
{
	struct list_request request = {.prefix = found->key, .max = 1};
	struct list_page page = {0};
	int rc = is_doubtful(reconcile, dir, found);

	if (rc <= 0)
		return rc;
	rc = transfer_list(reconcile->options.transfer, call, &request, &page, err);
	if (rc)
		return rc;
	rc = !page.count && !page.next;
	list_page_clear(&page);
	return rc;
}

/* MinIO lists a prefix under which everything is deleted as if something were there, and any listing may be older than
 * the end of a removal: a directory that was removed or renamed must not come back so. */
static int drop_phantoms(struct reconcile *reconcile, const struct call *call, uint64_t dir, struct findings *findings,
			 struct err *err)
{
	size_t kept = 0;
	int rc = 0;

	for (size_t i = 0; i < findings->count && rc >= 0; i++) {
		rc = is_phantom(reconcile, call, dir, &findings->found[i], err);
		if (!rc)
			findings->found[kept++] = findings->found[i];
	}
	if (rc < 0)
		return err->kind ? rc : err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
	findings->count = kept;
	return 0;
}

struct hidden {
	const struct unlisted *unlisted;
	const char *prefix;
	struct findings *findings;
	uint64_t max;
};

static int keep_hidden(void *arg, const struct cat_name *name)
{
	const struct hidden *hidden = arg;
	struct cat_found found = {.directory = true};
	AUTO_BUF key = BUF_INIT;
	int rc = unlisted_is_there(hidden->unlisted, name->ino);

	if (rc <= 0)
		return rc;
	buf_addf(&key, "%s%s/", hidden->prefix, name->name); /* of no interest but where it begins */
	if (buf_failed(&key))
		return -ENOMEM;
	rc = arena_string(&hidden->findings->arena, name->name, &found.name);
	if (!rc)
		rc = arena_string(&hidden->findings->arena, key.data, &found.key);
	return rc ? rc : findings_add(hidden->findings, &found, hidden->max);
}

/* Directories that are there and not in the listing are added to it. */
static int add_hidden(struct reconcile *reconcile, const struct call *call, uint64_t dir, struct listing *list)
{
	const struct unlisted unlisted = {
		.catalog = reconcile->options.catalog, .transfer = reconcile->options.transfer, .call = call};
	struct hidden hidden = {.unlisted = &unlisted,
				.prefix = list->prefix,
				.findings = &list->findings,
				.max = reconcile->options.max_entries};
	AUTO_FREE const char **names = calloc(list->findings.count + 1, sizeof(*names));
	size_t count = 0;

	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < list->findings.count; i++) {
		if (list->findings.found[i].directory)
			names[count++] = list->findings.found[i].name;
	}
	qsort(names, count, sizeof(*names), array_by_string);
	return unlisted_each(unlisted.catalog, dir, names, count, keep_hidden, &hidden);
}

/* Where the listing may hide something: stores with delete markers. */
static int mind_hidden(struct reconcile *reconcile, const struct call *call, struct listing *list,
		       struct cat_adopt *adopt, struct err *err)
{
	const struct unlisted unlisted = {
		.catalog = reconcile->options.catalog, .transfer = reconcile->options.transfer, .call = call};
	int rc = 0;

	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	if (!list->findings.count)
		rc = unlisted_is_there(&unlisted, adopt->dir);
	adopt->hidden = rc == 1;
	if (!rc)
		rc = add_hidden(reconcile, call, adopt->dir, list);
	if (rc < 0)
		return err_from_errno(err, -rc, "what a listing of %s may hide", list->prefix);
	if (adopt->hidden)
		log_debug(RECONCILE_MODULE, "the store lists nothing beneath %s, where there is something",
			  list->prefix);
	return 0;
}

/* The directory's own object was removed by others: with its record in the way an empty directory would be believed for
 * ever, where the store lists a prefix under which all is deleted. */
static int mind_marker(struct reconcile *reconcile, const struct call *call, const struct listing *list,
		       const struct cat_adopt *adopt, struct err *err)
{
	const struct unlisted unlisted = {
		.catalog = reconcile->options.catalog, .transfer = reconcile->options.transfer, .call = call};
	int rc = list->marker || !transfer_can(reconcile->options.transfer, BACKEND_VERSIONS)
			 ? 1
			 : unlisted_marker_is_there(&unlisted, adopt->dir);

	if (!rc)
		rc = catalog_marker_gone(reconcile->options.catalog, adopt->dir, adopt->listed_at);
	return rc < 0 ? err_from_errno(err, -rc, "the object of directory %s", list->prefix) : 0;
}

/* A directory that others emptied, or in which there was nothing from the first look on, and that has no object of its
 * own, is no directory (any more): where it has its name that is seen. */
static void list_above(struct reconcile *reconcile, const struct call *call, uint64_t dir)
{
	struct cat_name name;
	struct err why = {0};

	if (unlisted_is_bare(reconcile->options.catalog, dir) != 1 || reconcile_name_of(reconcile, dir, &name))
		return;
	if (reconcile_join(reconcile, RECONCILE_KIND_LIST, name.parent, call, &why))
		log_debug(RECONCILE_MODULE, "above a directory that others emptied: %s", why.message);
}

int reconcile_list_directory(struct reconcile *reconcile, uint64_t dir, enum reconcile_wish wish,
			     const struct call *call, struct err *err)
{
	const struct reconcile_options *options = &reconcile->options;
	struct place place = {.dir = dir, .prefix = BUF_INIT};
	struct listing list = {.reconcile = reconcile, .meta = wish == RECONCILE_WISH_META};
	struct cat_adopt adopt = {
		.dir = dir,
		.file_mode = options->file_mode,
		.dir_mode = options->dir_mode,
		.uid = options->uid,
		.gid = options->gid,
		.changed = options->changed,
		.changed_arg = options->changed_arg,
	};
	struct cat_watch *watch = NULL;
	int rc = catalog_view(options->catalog, place_closure, &place);
	bool was_bare = unlisted_is_bare(options->catalog, dir) != 0;

	if (rc) {
		rc = err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
		goto out;
	}
	adopt.listed_at = place.now;
	list.prefix = place.prefix.data;
	list.prefix_len = place.prefix.len;
	rc = catalog_watch(options->catalog, list.prefix, &watch);
	if (rc) {
		rc = err_from_errno(err, -rc, "listing of %s", list.prefix);
		goto out;
	}
	adopt.watch = watch;
	atomic_fetch_add(&reconcile->listings, 1);
	rc = list_pages(&list, call, err);
	if (rc)
		goto out;
	list_dedupe(&list.findings);
	rc = drop_phantoms(reconcile, call, dir, &list.findings, err);
	if (!rc)
		rc = mind_hidden(reconcile, call, &list, &adopt, err);
	if (!rc)
		rc = mind_marker(reconcile, call, &list, &adopt, err);
	if (rc)
		goto out;
	adopt.found = list.findings.found;
	adopt.count = list.findings.count;
	rc = catalog_adopt(options->catalog, &adopt);
	if (rc)
		rc = err_from_errno(err, -rc, "listing of %s", list.prefix);
	else
		atomic_fetch_add(&reconcile->entries, adopt.count);
	if (!rc && !list.marker && !(place.listed && was_bare))
		list_above(reconcile, call, dir);
out:
	cat_watch_free(watch);
	findings_clear(&list.findings);
	buf_free(&place.prefix);
	return rc;
}

int reconcile_list_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	return reconcile_list_directory(reconcile, dir, RECONCILE_WISH_NAMES, call, err);
}
