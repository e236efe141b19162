/*
 * reconcile_past.c - what listings of versions tell of a directory: names that are no more, and, for who rebuilds a
 * catalog, all of it.
 *
 * Invariants
 *  1. What the catalog knows already is left out before anything is asked of the store (losses_sift, whole_sift).
 *  2. The entries of one key come side by side; of a whole directory they may go on in the next page (carried).
 *  3. Memory does not grow with the versions of a whole directory: each page is taken over before the next comes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "fs/ahead.h"
#include "fs/reconcile_internal.h"

#define UNKNOWN_MAX 16      /* versions in a directory, asked whose they are */
#define EXTENT_PAGES_MAX 64 /* of a deleted directory, looked through for when it was deleted */

/* --- the past of a directory -------------------------------------------------------------------------------------- */

/* One name that is not there any more. */
struct lost {
	struct cat_found named; /* name, component, key, directory */
	int64_t deleted_ns, since_ns;
	size_t first, count; /* of findings */
	bool live;           /* of a whole directory: the key has a current object */
	bool latest;         /* the first of the findings is that */
	uint64_t ino;        /* whose; 0: no file's */
};

struct losses {
	struct reconcile *reconcile;
	const struct call *call;
	uint64_t dir;
	struct buf prefix;
	struct findings findings; /* versions; its arena holds all strings */
	struct lost *cells;
	size_t count, cap;
	/* The key whose entries are coming: */
	struct buf key;
	struct lost now;
	bool current; /* something lives there */
	/* Of a whole directory: */
	struct buf carried_key; /* its entries may go on in the next page */
	struct lost carried;
	struct reconcile_whole whole;
};

static void losses_clear(struct losses *losses)
{
	findings_clear(&losses->findings);
	free(losses->cells);
	buf_free(&losses->prefix);
	buf_free(&losses->key);
	buf_free(&losses->carried_key);
}

static int loss_add(struct losses *losses, const struct lost *lost)
{
	if (ARRAY_ROOM(losses->cells, losses->cap, losses->count))
		return -ENOMEM;
	losses->cells[losses->count++] = *lost;
	return 0;
}

/* The entries of one key have come to their end, or to that of their page. */
static int loss_end(struct losses *losses)
{
	struct lost *lost = &losses->now;
	bool wanted = losses->key.len && !losses->current && (lost->count || (lost->named.directory && !lost->live));
	int rc = 0;

	if (wanted)
		rc = loss_add(losses, lost);
	else
		losses->findings.count = lost->first;
	buf_reset(&losses->key);
	return rc;
}

static int loss_begin(struct losses *losses, const struct object_info *info)
{
	struct arena *arena = &losses->findings.arena;
	const char *component = info->key + losses->prefix.len;
	size_t len = strlen(component);
	struct cat_found *named = &losses->now.named;
	int rc;

	losses->now = (struct lost){.first = losses->findings.count};
	losses->current = !len || (!losses->prefix.len && !strcmp(component, CAT_OWN_KEYS)); /* of no interest */
	buf_adds(&losses->key, info->key);
	if (buf_failed(&losses->key))
		return -ENOMEM;
	if (losses->current)
		return 0;
	named->directory = component[len - 1] == '/';
	len -= named->directory;
	if (!len || memchr(component, '/', len))
		return -EBADMSG; /* a store that does not know delimiters */
	rc = found_name(arena, component, len, named);
	return rc ? rc : arena_string(arena, info->key, &named->key);
}

static int loss_entry(struct losses *losses, const struct object_info *info)
{
	struct lost *lost = &losses->now;
	struct cat_found found = {0};
	int rc = 0;

	if (strncmp(info->key, losses->prefix.data, losses->prefix.len) != 0)
		return -EBADMSG;
	if (!losses->key.len || strcmp(losses->key.data, info->key) != 0) {
		rc = loss_end(losses);
		if (!rc)
			rc = loss_begin(losses, info);
	}
	if (rc || losses->current || (info->flags & OBJECT_PREFIX))
		return rc;
	if (info->flags & OBJECT_DELETE_MARKER) {
		if (info->modified_ns > lost->deleted_ns)
			lost->deleted_ns = info->modified_ns;
		return 0;
	}
	losses->current = info->flags & OBJECT_LATEST;
	if (losses->current || lost->named.directory || !info->native_id)
		return 0;
	rc = found_store_facts(&losses->findings.arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = findings_add(&losses->findings, &found, losses->reconcile->options.max_entries);
	lost->count += !rc;
	return rc;
}

int reconcile_walk(struct reconcile *reconcile, const struct call *call, struct reconcile_walk *walk, struct err *err)
{
	AUTO_FREE char *token = NULL;
	unsigned pages = 0;
	int rc = 0;

	do {
		struct list_page page = {0};

		walk->request.token = token;
		rc = transfer_list(reconcile->options.transfer, call, &walk->request, &page, err);
		if (rc)
			return rc;
		atomic_fetch_add(&reconcile->pages, 1);
		for (size_t i = 0; i < page.count && !rc; i++)
			rc = walk->take(walk->arg, &page.entries[i]);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
		if (!rc && walk->page)
			rc = walk->page(walk->arg, err);
	} while (!rc && token && ++pages != walk->max_pages);
	if (rc < 0 && walk->page && err->kind)
		return rc;
	return rc < 0 ? err_from_errno(err, -rc, "versions under %s", walk->request.prefix) : 0;
}

static int take_loss(void *arg, const struct object_info *info)
{
	return loss_entry(arg, info);
}

/* What of a lost name nobody knows yet: 1; nothing: 0. The findings that are known go to the end. */
struct unknown {
	struct losses *losses;
	struct lost *lost;
	bool any;
};

static int unknown_closure(struct cat_txn *txn, void *arg)
{
	struct unknown *unknown = arg;
	struct lost *lost = unknown->lost;
	struct cat_found *found = unknown->losses->findings.found + lost->first;
	struct cat_name name;
	int rc = cat_name_get(txn, unknown->losses->dir, lost->named.name, &name);

	unknown->any = false;
	if (rc != -ENOENT)
		return rc;
	unknown->any = lost->named.directory;
	for (size_t i = 0; i < lost->count; i++) {
		uint64_t ino, seq;

		rc = cat_place_get(txn, 0, found[i].key, cat_object_id(found[i].native_id, found[i].etag), &ino, &seq);
		if (rc && rc != -ENOENT)
			return rc;
		unknown->any |= rc == -ENOENT;
	}
	return 0;
}

/* Those of one key move down to where those before it end. */
static void pack_findings(struct findings *findings, struct lost *lost, size_t *used)
{
	if (lost->count) /* of a directory alone there may be none */
		memmove(findings->found + *used, findings->found + lost->first, lost->count * sizeof(*findings->found));
	lost->first = *used;
	*used += lost->count;
}

/* Every directory that was ever removed takes a listing of its own: while somebody waits, those that we know of are
 * left to the next sweep. */
static bool is_passed_over(const struct losses *losses, const struct lost *lost)
{
	return losses->call->hasty && lost->named.directory &&
	       reconcile_had_name(losses->reconcile, losses->dir, lost->named.name) == 1;
}

/* Keeps the losses that tell something new, and packs their versions. */
static int losses_sift(struct losses *losses)
{
	size_t kept = 0, used = 0;

	for (size_t i = 0; i < losses->count; i++) {
		struct unknown unknown = {.losses = losses, .lost = &losses->cells[i]};
		int rc = is_passed_over(losses, unknown.lost)
				 ? 0
				 : catalog_view(losses->reconcile->options.catalog, unknown_closure, &unknown);

		if (rc)
			return rc;
		if (!unknown.any)
			continue;
		pack_findings(&losses->findings, &losses->cells[i], &used);
		losses->cells[kept++] = losses->cells[i];
	}
	losses->count = kept;
	losses->findings.count = used;
	return 0;
}

struct span {
	struct catalog *catalog;
	int64_t after_ns; /* when the one before ended; INT64_MIN: there was none */
	int64_t since_ns, until_ns;
	bool current;
	struct findings unknown; /* versions made after that, which the catalog does not know: the first few */
};

struct place {
	const char *key, *id;
};

static int find_place(struct cat_txn *txn, void *arg)
{
	const struct place *place = arg;
	uint64_t ino, seq;

	return cat_place_get(txn, 0, place->key, place->id, &ino, &seq);
}

/* 0, 1 when it is a candidate, -errno. */
static int is_unknown(const struct span *span, const struct object_info *info)
{
	struct place place = {.key = info->key};
	int rc;

	if (!info->native_id || info->modified_ns <= span->after_ns)
		return 0;
	place.id = cat_object_id(info->native_id, info->etag);
	rc = catalog_view(span->catalog, find_place, &place);
	return rc == -ENOENT ? 1 : rc < 0 ? rc : 0;
}

static int take_span(void *arg, const struct object_info *info)
{
	struct span *span = arg;
	struct cat_found found = {0};
	int rc;

	if (!(info->flags & OBJECT_DELETE_MARKER) && (info->flags & OBJECT_LATEST)) {
		span->current = true;
		return 1;
	}
	if (!span->since_ns || info->modified_ns < span->since_ns)
		span->since_ns = info->modified_ns;
	if (info->flags & OBJECT_DELETE_MARKER) {
		if (info->modified_ns > span->until_ns)
			span->until_ns = info->modified_ns;
		return 0;
	}
	if (span->after_ns == INT64_MIN || span->unknown.count == UNKNOWN_MAX)
		return 0;
	rc = is_unknown(span, info);
	if (rc <= 0)
		return rc;
	rc = found_store_facts(&span->unknown.arena, info, &found);
	return rc ? rc : findings_add(&span->unknown, &found, UNKNOWN_MAX);
}

static int take_end(void *arg, const struct cat_past *past)
{
	*(int64_t *)arg = past->until_ns;
	return 0;
}

/* When others came to a name that had ended before: what we put ourselves and did not record, as a late upload of what
 * was renamed, says who it is. 1: nobody did. */
static int others_came(struct losses *losses, struct span *span, struct err *err)
{
	struct transfer *transfer = losses->reconcile->options.transfer;

	span->since_ns = 0;
	for (size_t i = 0; i < span->unknown.count; i++) {
		const struct cat_found *found = &span->unknown.found[i];
		struct object_ref object = {.key = found->key, .native_id = found->native_id};
		struct object_info info = {0};
		struct objmeta meta;
		struct err why = {0};
		int rc = ahead_head(transfer, losses->call, &object, &info, &why);

		atomic_fetch_add(&losses->reconcile->heads, 1);
		if (rc && why.kind != ERR_NOT_FOUND) {
			*err = why;
			return rc;
		}
		if (rc) /* removed just now */
			continue;
		objmeta_decode(&info.meta, &meta);
		object_info_clear(&info);
		if (!(meta.has & (OBJMETA_FILE_ID | OBJMETA_LINK)) &&
		    (!span->since_ns || found->modified_ns < span->since_ns))
			span->since_ns = found->modified_ns;
	}
	return !span->since_ns;
}

/* From when to when a directory was there, of which nothing is left. 1: something is, or nobody knows more of it than
 * we do. */
static int loss_span(struct losses *losses, struct lost *lost, struct err *err)
{
	struct span span = {.catalog = losses->reconcile->options.catalog, .after_ns = INT64_MIN};
	struct reconcile_walk walk = {
		.request = {.prefix = lost->named.key, .versions = true},
		.take = take_span,
		.arg = &span,
		.max_pages = EXTENT_PAGES_MAX,
	};
	int rc = catalog_past(span.catalog, losses->dir, lost->named.name, take_end, &span.after_ns);

	if (rc < 0)
		return err_from_errno(err, -rc, "the past of %s", lost->named.key);
	rc = reconcile_walk(losses->reconcile, losses->call, &walk, err);
	if (!rc && span.current)
		rc = 1;
	if (!rc && span.after_ns != INT64_MIN)
		rc = others_came(losses, &span, err);
	lost->since_ns = span.since_ns;
	lost->deleted_ns = span.until_ns;
	findings_clear(&span.unknown);
	return rc;
}

/* Symlinks, special files and markers of links hold nothing that is a file's content. */
static void drop_no_files(struct losses *losses, struct lost *lost)
{
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;

	for (size_t i = 0; i < lost->count; i++) {
		if (!found[i].resolved || (S_ISREG(found[i].mode) && !found[i].link_id))
			found[kept++] = found[i];
	}
	lost->count = kept;
}

static int loss_take(struct losses *losses, struct lost *lost, struct err *err)
{
	const struct reconcile_options *options = &losses->reconcile->options;
	struct cat_deleted deleted = {
		.dir = losses->dir,
		.name = lost->named.name,
		.component = lost->named.component,
		.key = lost->named.key,
		.directory = lost->named.directory,
		.file_mode = options->file_mode,
		.dir_mode = options->dir_mode,
		.uid = options->uid,
		.gid = options->gid,
	};
	int rc = 0;

	if (deleted.directory)
		rc = loss_span(losses, lost, err);
	else
		drop_no_files(losses, lost);
	if (rc || (!deleted.directory && !lost->count))
		return rc < 0 ? rc : 0;
	deleted.since_ns = lost->since_ns;
	deleted.until_ns = lost->deleted_ns;
	deleted.versions = losses->findings.found + lost->first;
	deleted.count = lost->count;
	rc = catalog_adopt_deleted(options->catalog, &deleted);
	return rc ? err_from_errno(err, -rc, "the past of %s", deleted.key) : 0;
}

static int losses_take(struct losses *losses, struct err *err)
{
	size_t count = losses->findings.count < VERSION_HEADS_MAX ? losses->findings.count : VERSION_HEADS_MAX;
	struct reconcile_batch batch = {.reconcile = losses->reconcile,
					.call = losses->call,
					.one = reconcile_version_head,
					.findings = &losses->findings,
					.count = count,
					.as_said = true};
	int rc = 0;

	batch.metas = calloc(count + 1, sizeof(*batch.metas));
	if (!batch.metas)
		return err_set(err, ERR_NO_MEMORY, "versions");
	if (count)
		rc = reconcile_batch_run(&batch, err);
	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = loss_take(losses, &losses->cells[i], err);
	free(batch.metas);
	return rc;
}

static int past_closure(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;

	buf_reset(&losses->prefix);
	return cat_key_ever(txn, losses->dir, &losses->prefix);
}

int reconcile_past_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	struct losses losses = {.reconcile = reconcile, .call = call, .dir = dir, .prefix = BUF_INIT, .key = BUF_INIT};
	struct reconcile_walk walk = {
		.request = {.delimiter = '/', .versions = true}, .take = take_loss, .arg = &losses};
	int rc = catalog_view(reconcile->options.catalog, past_closure, &losses);

	if (rc == -ENOENT) { /* removed here: all of its past is known */
		rc = 0;
		goto out;
	}
	if (rc) {
		rc = err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
		goto out;
	}
	walk.request.prefix = losses.prefix.data ? losses.prefix.data : "";
	rc = reconcile_walk(reconcile, call, &walk, err);
	if (!rc)
		rc = loss_end(&losses);
	if (!rc)
		rc = losses_sift(&losses);
	if (rc && !err->kind)
		rc = err_from_errno(err, -rc, "the past under %s", walk.request.prefix);
	if (!rc && losses.count)
		rc = losses_take(&losses, err);
out:
	losses_clear(&losses);
	return rc;
}

/* --- everything that is to be known of a directory
 * ---------------------------------------------------------------------
 *
 * For who rebuilds a catalog: a listing, what it left unresolved, and one listing of all versions, which is worked off
 * page by page, so that memory does not grow with them.
 */

static int resolve_one(struct reconcile_batch *batch, size_t i, struct err *err)
{
	struct err why = {0};
	int rc = reconcile_join(batch->reconcile, RECONCILE_KIND_HEAD, batch->inos[i], batch->call, &why);

	if (!rc || why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION) /* replaced just now, and listed anew */
		return 0;
	*err = why;
	return rc;
}

#define RESOLVE_PAGE 1000

struct unresolved {
	uint64_t inos[RESOLVE_PAGE], last;
	size_t count, seen;
};

static int take_unresolved(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct unresolved *unresolved = arg;

	unresolved->last = name->cookie;
	unresolved->seen++;
	if (inode->flags & CAT_UNRESOLVED)
		unresolved->inos[unresolved->count++] = inode->ino;
	return 0;
}

static int resolve_children(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	struct unresolved *unresolved = calloc(1, sizeof(*unresolved));
	struct cat_readdir request = {.parent = dir, .max = RESOLVE_PAGE, .with_inodes = true};
	int rc = unresolved ? 0 : -ENOMEM;

	do {
		if (rc)
			break;
		unresolved->count = unresolved->seen = 0;
		request.after = unresolved->last;
		rc = catalog_readdir(reconcile->options.catalog, &request, take_unresolved, unresolved);
		if (!rc && unresolved->count) {
			struct reconcile_batch batch = {.reconcile = reconcile,
							.call = call,
							.one = resolve_one,
							.inos = unresolved->inos,
							.count = unresolved->count};

			rc = reconcile_batch_run(&batch, err);
		}
	} while (!rc && unresolved->seen == RESOLVE_PAGE);
	free(unresolved);
	return rc && !err->kind ? err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir) : rc;
}

static int whole_entry(void *arg, const struct object_info *info)
{
	struct losses *losses = arg;
	struct lost *lost = &losses->now;
	struct cat_found found = {0};
	int rc = 0;

	if (strncmp(info->key, losses->prefix.data ? losses->prefix.data : "", losses->prefix.len) != 0)
		return -EBADMSG;
	if (!losses->key.len || strcmp(losses->key.data, info->key) != 0) {
		rc = loss_end(losses);
		if (!rc)
			rc = loss_begin(losses, info);
		if (!rc && losses->carried_key.len && strcmp(losses->carried_key.data, info->key) == 0) {
			lost->live = losses->carried.live;
			lost->deleted_ns = losses->carried.deleted_ns;
		}
	}
	if (rc || losses->current || (info->flags & OBJECT_PREFIX))
		return rc;
	if (!losses->whole.since_ns || info->modified_ns < losses->whole.since_ns)
		losses->whole.since_ns = info->modified_ns;
	if (info->flags & OBJECT_DELETE_MARKER) {
		if (info->modified_ns > lost->deleted_ns)
			lost->deleted_ns = info->modified_ns;
		if (lost->deleted_ns > losses->whole.until_ns)
			losses->whole.until_ns = lost->deleted_ns;
		return 0;
	}
	if (info->flags & OBJECT_LATEST)
		lost->live = lost->latest = true;
	if (lost->named.directory || !info->native_id)
		return 0;
	rc = found_store_facts(&losses->findings.arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = found_told(&losses->reconcile->options, &losses->findings.arena, info, &found);
	if (!rc)
		rc = findings_add(&losses->findings, &found, losses->reconcile->options.max_entries);
	lost->count += !rc;
	return rc;
}

/* Leaves those versions of a key that nobody knows yet. */
static int sift_versions(struct cat_txn *txn, struct losses *losses, struct lost *lost)
{
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;

	for (size_t i = 0; i < lost->count; i++) {
		uint64_t ino, seq;
		int rc = cat_place_get(txn, 0, found[i].key, cat_object_id(found[i].native_id, found[i].etag), &ino,
				       &seq);

		if (rc && rc != -ENOENT)
			return rc;
		if (rc)
			found[kept++] = found[i];
		else if (!i)
			lost->latest = false;
	}
	lost->count = kept;
	return 0;
}

static int sift_one(struct cat_txn *txn, struct losses *losses, struct lost *lost)
{
	struct cat_name name;
	struct cat_key record;
	int rc = lost->live ? cat_key_get(txn, 0, lost->named.key, &record)
			    : cat_name_get(txn, losses->dir, lost->named.name, &name);

	if (rc && rc != -ENOENT)
		return rc;
	lost->ino = 0;
	if (lost->live && !rc) {
		lost->ino = record.kind == CAT_KEY_DATA ? record.ino : 0;
		cat_key_clear(&record);
	}
	/* A name that lives though its object does not: what we changed, the store will hear of. */
	if (lost->live ? !lost->ino : !rc) {
		lost->count = 0;
		lost->named.directory = false;
	}
	return sift_versions(txn, losses, lost);
}

static int whole_sift(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;
	int rc = 0;

	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = sift_one(txn, losses, &losses->cells[i]);
	return rc;
}

/* The findings of the keys, without gaps between them. */
static void whole_pack(struct losses *losses)
{
	size_t kept = 0, used = 0;

	for (size_t i = 0; i < losses->count; i++) {
		struct lost *lost = &losses->cells[i];

		if (!lost->count && !lost->named.directory)
			continue;
		pack_findings(&losses->findings, lost, &used);
		losses->cells[kept++] = *lost;
	}
	losses->count = kept;
	losses->findings.count = used;
}

static size_t unresolved_versions(const struct findings *findings)
{
	size_t count = 0;

	for (size_t i = 0; i < findings->count; i++)
		count += !findings->found[i].resolved;
	return count;
}

/* Is it content of a file? What we put there for something else is not; all else is shown as content. */
static bool as_content(const struct reconcile_options *options, struct cat_found *found)
{
	if (!found->resolved)
		return true;
	if (found->file_id && (found->link_id || !S_ISREG(found->mode)))
		return false;
	if (!S_ISREG(found->mode))
		found->mode = S_IFREG | options->file_mode;
	return true;
}

static int take_live(struct losses *losses, struct lost *lost, struct err *err)
{
	const struct reconcile_options *options = &losses->reconcile->options;
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;
	int rc;

	for (size_t i = 0; i < lost->count; i++)
		if (as_content(options, &found[i]))
			found[kept++] = found[i];
	losses->whole.versions += kept > lost->latest ? kept - lost->latest : 0;
	rc = kept ? catalog_adopt_versions(options->catalog, lost->ino, found, kept) : 0;
	return rc ? err_from_errno(err, -rc, "versions of %s", lost->named.key) : 0;
}

static int take_lost(struct losses *losses, struct lost *lost, struct err *err)
{
	if (lost->live)
		return take_live(losses, lost, err);
	losses->whole.versions += lost->count;
	return loss_take(losses, lost, err);
}

static int heads_of(struct losses *losses, struct objmeta **ret_metas, struct err *err)
{
	struct reconcile_batch batch = {.reconcile = losses->reconcile,
					.call = losses->call,
					.one = reconcile_version_head,
					.findings = &losses->findings,
					.count = losses->findings.count,
					.as_said = true};

	if (!unresolved_versions(&losses->findings))
		return 0;
	*ret_metas = batch.metas = calloc(batch.count, sizeof(*batch.metas));
	return batch.metas ? reconcile_batch_run(&batch, err) : err_set(err, ERR_NO_MEMORY, "versions");
}

static void whole_forget(struct losses *losses)
{
	findings_clear(&losses->findings);
	losses->count = 0;
}

static int whole_page(void *arg, struct err *err)
{
	struct losses *losses = arg;
	AUTO_FREE struct objmeta *metas = NULL;
	int rc;

	buf_reset(&losses->carried_key);
	buf_adds(&losses->carried_key, losses->key.len ? losses->key.data : "");
	losses->carried = losses->now;
	rc = buf_failed(&losses->carried_key) ? -ENOMEM : loss_end(losses);
	if (!rc)
		rc = catalog_view(losses->reconcile->options.catalog, whole_sift, losses);
	if (rc)
		return err_from_errno(err, -rc, "versions under %s", losses->prefix.data);
	whole_pack(losses);
	rc = heads_of(losses, &metas, err);
	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = take_lost(losses, &losses->cells[i], err);
	whole_forget(losses);
	return rc;
}

bool reconcile_has_phantoms(struct reconcile *reconcile)
{
	return transfer_can(reconcile->options.transfer, BACKEND_VERSIONS) &&
	       !transfer_can(reconcile->options.transfer, BACKEND_TREE_KEYS);
}

int reconcile_whole(struct reconcile *reconcile, uint64_t dir, const struct call *call,
		    struct reconcile_whole *ret_whole, struct err *err)
{
	struct losses losses = {.reconcile = reconcile,
				.call = call ? call : &reconcile_patient,
				.dir = dir,
				.prefix = BUF_INIT,
				.key = BUF_INIT,
				.carried_key = BUF_INIT};
	struct reconcile_walk walk = {.request = {.delimiter = '/', .versions = true, .meta = true},
				      .take = whole_entry,
				      .page = whole_page,
				      .arg = &losses};
	struct err why = {0};
	int rc = reconcile_list_directory(reconcile, dir, RECONCILE_WISH_META, losses.call, &why);

	if (!rc)
		rc = resolve_children(reconcile, dir, losses.call, &why);
	if (!rc && transfer_can(reconcile->options.transfer, BACKEND_VERSIONS)) {
		rc = catalog_view(reconcile->options.catalog, past_closure, &losses);
		walk.request.prefix = losses.prefix.data ? losses.prefix.data : "";
		if (!rc)
			rc = reconcile_walk(reconcile, losses.call, &walk, &why);
	}
	if (rc && !why.kind)
		rc = err_from_errno(&why, -rc, "directory %llu", (unsigned long long)dir);
	*ret_whole = losses.whole;
	losses_clear(&losses);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- versions beside their files' keys ---------------------------------------------------------------------------- */

/* ".varve/versions/<file id>/…": whose it is. What was preserved of others' objects lies elsewhere there. */
bool reconcile_is_aside(const char *key, uint8_t ret_file_id[static CAT_FILE_ID_SIZE])
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];
	const char *slash;

	if (strncmp(key, CAT_OWN_VERSIONS, strlen(CAT_OWN_VERSIONS)) != 0)
		return false;
	key += strlen(CAT_OWN_VERSIONS);
	slash = strchr(key, '/');
	if (!slash || slash - key != 2 * CAT_FILE_ID_SIZE || !slash[1])
		return false;
	memcpy(hex, key, 2 * CAT_FILE_ID_SIZE);
	hex[2 * CAT_FILE_ID_SIZE] = '\0';
	return hex_decode(hex, CAT_FILE_ID_SIZE, ret_file_id) == 0;
}

struct asides {
	struct losses losses; /* its findings alone */
	uint64_t adopted;
};

static int aside_entry(void *arg, const struct object_info *info)
{
	struct asides *asides = arg;
	struct findings *findings = &asides->losses.findings;
	uint8_t file_id[CAT_FILE_ID_SIZE];
	struct cat_found found = {0};
	int rc;

	if ((info->flags & (OBJECT_DELETE_MARKER | OBJECT_PREFIX)) || !reconcile_is_aside(info->key, file_id))
		return 0;
	rc = found_store_facts(&findings->arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = found_told(&asides->losses.reconcile->options, &findings->arena, info, &found);
	return rc ? rc : findings_add(findings, &found, asides->losses.reconcile->options.max_entries);
}

static int asides_sift(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;
	struct lost all = {.count = losses->findings.count};
	int rc = sift_versions(txn, losses, &all);

	losses->findings.count = all.count;
	return rc;
}

/* Those of one file lie together. A file that nobody knows has no name to show them under. */
static int asides_take(struct asides *asides, struct err *err)
{
	struct catalog *catalog = asides->losses.reconcile->options.catalog;
	struct cat_found *found = asides->losses.findings.found;
	size_t count = asides->losses.findings.count;
	int rc = 0;

	for (size_t i = 0, end; i < count && !rc; i = end) {
		uint8_t file_id[CAT_FILE_ID_SIZE], other[CAT_FILE_ID_SIZE];

		(void)reconcile_is_aside(found[i].key, file_id); /* or it were not among them */
		for (end = i + 1; end < count; end++)
			if (!reconcile_is_aside(found[end].key, other) || memcmp(other, file_id, sizeof(other)) != 0)
				break;
		rc = catalog_adopt_aside(catalog, file_id, found + i, end - i);
		asides->adopted += rc ? 0 : end - i;
		rc = rc == -ENOENT ? 0 : rc;
	}
	return rc ? err_from_errno(err, -rc, "versions under %s", CAT_OWN_VERSIONS) : 0;
}

static int aside_page(void *arg, struct err *err)
{
	struct asides *asides = arg;
	AUTO_FREE struct objmeta *metas = NULL;
	int rc = catalog_view(asides->losses.reconcile->options.catalog, asides_sift, &asides->losses);

	if (rc)
		return err_from_errno(err, -rc, "versions under %s", CAT_OWN_VERSIONS);
	rc = heads_of(&asides->losses, &metas, err);
	if (!rc)
		rc = asides_take(asides, err);
	whole_forget(&asides->losses);
	return rc;
}

int reconcile_asides(struct reconcile *reconcile, const char *key, const struct call *call, uint64_t *ret_adopted,
		     struct err *err)
{
	struct asides asides = {.losses = {.reconcile = reconcile, .call = call ? call : &reconcile_patient}};
	struct reconcile_walk walk = {
		.request = {.prefix = key ? key : CAT_OWN_VERSIONS,
			    .versions = transfer_can(reconcile->options.transfer, BACKEND_VERSIONS),
			    .meta = true},
		.take = aside_entry,
		.page = aside_page,
		.arg = &asides};
	struct err why = {0};
	int rc = reconcile_walk(reconcile, asides.losses.call, &walk, &why);

	*ret_adopted = asides.adopted;
	findings_clear(&asides.losses.findings);
	if (rc && err)
		*err = why;
	return rc;
}
