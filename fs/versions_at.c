/*
 * versions_at.c - the tree at an instant, put together from live names, past names and versions.
 *
 * Live names are read before past ones: a name that ends in between is then
 * seen twice, not never, and one of the two is dropped.
 * No state of its own; safe from any thread.
 */
#include "fs/versions_at.h"
#include "array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE 1024 /* names resolved in one view */

/* --- who held a name -------------------------------------------------------------------------------- */

/* An interval in which an inode held a name. */
struct holding {
	struct versions_at_entry entry; /* seq not known yet */
	int64_t since_ns;
	uint64_t seq_limit; /* versions up to here count */
	bool supposed; /* adopted later than asked for: counts when nobody else held the name, and it may be as old */
};

struct holdings {
	struct holding *items;
	size_t count, cap;
	struct buf names;
	int64_t when_ns;
};
#define HOLDINGS(...)                                                                                                  \
	{                                                                                                              \
		.names = BUF_INIT, __VA_ARGS__                                                                         \
	}

static void holdings_clear(struct holdings *holdings)
{
	free(holdings->items);
	buf_free(&holdings->names);
}

static const char *name_of(const struct holdings *holdings, const struct holding *holding)
{
	return holdings->names.data + holding->entry.name;
}

static int holdings_add(struct holdings *holdings, const struct holding *holding, const char *name)
{
	if (ARRAY_ROOM(holdings->items, holdings->cap, holdings->count))
		return -ENOMEM;
	holdings->items[holdings->count] = *holding;
	holdings->items[holdings->count++].entry.name = holdings->names.len;
	buf_add(&holdings->names, name, strlen(name) + 1);
	return buf_failed(&holdings->names) ? -ENOMEM : 0;
}

static struct holding holding_of(uint64_t ino, uint32_t type)
{
	return (struct holding){.entry = {.ino = ino, .type = type & S_IFMT}, .seq_limit = UINT64_MAX};
}

static int take_live(void *arg, const struct cat_name *name)
{
	struct holdings *holdings = arg;
	struct holding holding = holding_of(name->ino, name->type);

	holding.since_ns = name->since_ns;
	holding.supposed = name->since_ns > holdings->when_ns;
	if (holding.supposed && name->how != CAT_HOW_ADOPT)
		return 0;
	return holdings_add(holdings, &holding, name->name);
}

static int take_past(void *arg, const struct cat_past *past)
{
	struct holdings *holdings = arg;
	struct holding holding = holding_of(past->ino, past->type);

	holding.since_ns = past->since_ns;
	holding.supposed = past->since_ns > holdings->when_ns;
	if (holding.supposed ? past->began != CAT_HOW_ADOPT : past->until_ns <= holdings->when_ns)
		return 0;
	return holdings_add(holdings, &holding, past->name);
}

static int compare_holdings(const void *a, const void *b, void *arg)
{
	const struct holding *left = a, *right = b;
	int order = strcmp(name_of(arg, left), name_of(arg, right));

	if (order)
		return order;
	if (left->supposed != right->supposed)
		return left->supposed ? 1 : -1;
	return (left->since_ns > right->since_ns) - (left->since_ns < right->since_ns);
}

/* One for each name: who surely held it, else the first that was adopted under it. */
static void keep_one_each(struct holdings *holdings)
{
	size_t count = 0;

	if (!holdings->count)
		return;
	qsort_r(holdings->items, holdings->count, sizeof(*holdings->items), compare_holdings, holdings);
	for (size_t i = 0; i < holdings->count; i++) {
		if (count &&
		    !strcmp(name_of(holdings, &holdings->items[count - 1]), name_of(holdings, &holdings->items[i])))
			continue;
		holdings->items[count++] = holdings->items[i];
	}
	holdings->count = count;
}

/* --- the version then -------------------------------------------------------------------------------- */

struct version_then {
	int64_t when_ns;
	struct cat_version found; /* seq 0: none */
};

static bool was_ever_current(const struct cat_version *version)
{
	return version->origin != CAT_ORIGIN_SUSPECT;
}

static int take_version(void *arg, const struct cat_version *version)
{
	struct version_then *then = arg;

	if (version->commit_ns <= then->when_ns && was_ever_current(version))
		then->found = *version;
	return 0;
}

static int find_version(struct cat_txn *txn, const struct holding *holding, int64_t when_ns, uint64_t *ret_seq)
{
	struct version_then then = {.when_ns = when_ns};
	struct cat_inode inode;
	int ret = cat_inode_get(txn, holding->entry.ino, &inode);

	if (ret)
		return ret;
	/* Mostly nothing has changed since: then the current one is it. */
	if (inode.version && inode.version <= holding->seq_limit) {
		struct cat_version version;

		ret = cat_version_get(txn, inode.ino, inode.version, &version);
		if (!ret && version.commit_ns <= when_ns)
			then.found = version;
		else if (ret && ret != -ENOENT)
			return ret;
	}
	if (!then.found.seq) {
		ret = cat_version_each(txn, inode.ino, 0, holding->seq_limit, take_version, &then);
		if (ret && ret != -ENOENT)
			return ret;
	}
	if (!then.found.seq || then.found.state == CAT_EXPIRED)
		return -ENOENT;
	*ret_seq = then.found.seq;
	return 0;
}

/* A slice of the holdings, resolved in one view. */
struct resolving {
	struct holdings *holdings; /* its names go to the list in the end */
	size_t from, to;
	bool only_free; /* names that live are left out */
	uint64_t dir;
	struct versions_at_list *list;
	size_t list_from; /* the list is this long when the view begins */
};

static int list_add(struct versions_at_list *list, const struct versions_at_entry *entry)
{
	if (ARRAY_ROOM(list->entries, list->cap, list->count))
		return -ENOMEM;
	list->entries[list->count++] = *entry;
	return 0;
}

static int resolve_one(struct cat_txn *txn, const struct resolving *resolving, const struct holding *holding)
{
	struct versions_at_entry entry = holding->entry;
	int ret;

	if (resolving->only_free) {
		struct cat_name name;

		ret = cat_name_get(txn, resolving->dir, name_of(resolving->holdings, holding), &name);
		if (ret != -ENOENT)
			return ret;
	}
	if (S_ISDIR(entry.type) && holding->supposed) {
		struct cat_inode inode;

		ret = cat_inode_get(txn, entry.ino, &inode);
		if (ret || inode.btime > resolving->holdings->when_ns)
			return ret == -ENOENT ? 0 : ret;
	}
	if (S_ISREG(entry.type)) {
		ret = find_version(txn, holding, resolving->holdings->when_ns, &entry.seq);
		if (ret)
			return ret == -ENOENT ? 0 : ret;
	}
	return list_add(resolving->list, &entry);
}

static int resolve_page(struct cat_txn *txn, void *arg)
{
	struct resolving *resolving = arg;
	int ret = 0;

	resolving->list->count = resolving->list_from;
	for (size_t i = resolving->from; !ret && i < resolving->to; i++)
		ret = resolve_one(txn, resolving, &resolving->holdings->items[i]);
	return ret;
}

static int resolve_all(struct catalog *catalog, struct resolving *resolving)
{
	const struct holdings *holdings = resolving->holdings;
	int ret = 0;

	for (size_t from = 0; !ret && from < holdings->count; from = resolving->to) {
		resolving->from = from;
		resolving->to = holdings->count - from > PAGE ? from + PAGE : holdings->count;
		resolving->list_from = resolving->list->count;
		ret = catalog_view(catalog, resolve_page, resolving);
	}
	return ret;
}

void versions_at_clear(struct versions_at_list *list)
{
	free(list->entries);
	buf_free(&list->names);
	*list = (struct versions_at_list){.names = BUF_INIT};
}

static int resolve_into(struct catalog *catalog, struct resolving *resolving, struct versions_at_list *ret_list)
{
	struct versions_at_list list = {.names = BUF_INIT};
	int ret;

	resolving->list = &list;
	ret = resolve_all(catalog, resolving);
	if (ret) {
		versions_at_clear(&list);
		return ret;
	}
	list.names = resolving->holdings->names;
	buf_init(&resolving->holdings->names);
	*ret_list = list;
	return 0;
}

/* --- at an instant ------------------------------------------------------------------------------------ */

int versions_at_list(struct catalog *catalog, uint64_t dir, int64_t when_ns, struct versions_at_list *ret_list)
{
	struct holdings holdings = HOLDINGS(.when_ns = when_ns);
	struct resolving resolving = {.holdings = &holdings, .dir = dir};
	int ret = catalog_each_name(catalog, dir, take_live, &holdings);

	if (!ret || ret == -ENOENT) /* a directory that is gone has no live names */
		ret = catalog_past(catalog, dir, NULL, take_past, &holdings);
	if (ret && ret != -ENOENT)
		goto out;
	keep_one_each(&holdings);
	ret = resolve_into(catalog, &resolving, ret_list);
out:
	holdings_clear(&holdings);
	return ret;
}

struct live_name {
	uint64_t dir;
	const char *name;
	struct cat_name found;
};

static int get_live_name(struct cat_txn *txn, void *arg)
{
	struct live_name *live = arg;

	return cat_name_get(txn, live->dir, live->name, &live->found);
}

/* Resolves the holdings of one name to at most one entry. */
static int resolve_name(struct catalog *catalog, struct resolving *resolving, struct versions_at_entry *ret_entry)
{
	struct versions_at_list list;
	int ret = resolve_into(catalog, resolving, &list);

	if (ret)
		return ret;
	if (list.count)
		*ret_entry = list.entries[0];
	else
		ret = -ENOENT;
	versions_at_clear(&list);
	return ret;
}

int versions_at_lookup(struct catalog *catalog, uint64_t dir, const char *name, int64_t when_ns,
		       struct versions_at_entry *ret_entry)
{
	struct holdings holdings = HOLDINGS(.when_ns = when_ns);
	struct resolving resolving = {.holdings = &holdings, .dir = dir};
	struct live_name live = {.dir = dir, .name = name};
	int ret = catalog_view(catalog, get_live_name, &live);

	if (!ret)
		ret = take_live(&holdings, &live.found);
	if (!ret || ret == -ENOENT)
		ret = catalog_past(catalog, dir, name, take_past, &holdings);
	if (ret && ret != -ENOENT)
		goto out;
	keep_one_each(&holdings);
	ret = resolve_name(catalog, &resolving, ret_entry);
out:
	holdings_clear(&holdings);
	return ret;
}

struct newest_change {
	int64_t when_ns, found_ns;
};

static void note_change(struct newest_change *newest, int64_t ns)
{
	if (ns <= newest->when_ns && ns > newest->found_ns)
		newest->found_ns = ns;
}

static int note_live(void *arg, const struct cat_name *name)
{
	note_change(arg, name->since_ns);
	return 0;
}

static int note_past(void *arg, const struct cat_past *past)
{
	note_change(arg, past->since_ns);
	note_change(arg, past->until_ns);
	return 0;
}

int versions_at_mtime(struct catalog *catalog, uint64_t dir, int64_t when_ns, int64_t *ret_mtime)
{
	struct newest_change newest = {.when_ns = when_ns};
	struct cat_inode inode;
	int ret = catalog_getattr(catalog, dir, &inode);

	if (ret)
		return ret;
	if (inode.mtime <= when_ns) {
		*ret_mtime = inode.mtime;
		return 0;
	}
	note_change(&newest, inode.btime);
	ret = catalog_each_name(catalog, dir, note_live, &newest);
	if (!ret || ret == -ENOENT)
		ret = catalog_past(catalog, dir, NULL, note_past, &newest);
	if (ret && ret != -ENOENT)
		return ret;
	*ret_mtime = newest.found_ns ? newest.found_ns : when_ns;
	return 0;
}

/* --- deleted ------------------------------------------------------------------------------------------- */

/* The newest ending of each name, if it was a deletion: endings come in order of name, then time. */
static int take_deleted(void *arg, const struct cat_past *past)
{
	struct holdings *holdings = arg;
	struct holding holding = holding_of(past->ino, past->type);
	struct holding *last = holdings->count ? &holdings->items[holdings->count - 1] : NULL;

	if (last && !strcmp(name_of(holdings, last), past->name))
		holdings->count--;
	/* Later versions of it belong to its other names. Endings that were no deletion hold their place until the
	 * name is done: ino 0. */
	holding.seq_limit = past->until;
	if (past->ended != CAT_HOW_UNLINK && past->ended != CAT_HOW_VANISH)
		holding.entry.ino = 0;
	return holdings_add(holdings, &holding, past->name);
}

static void drop_not_deleted(struct holdings *holdings)
{
	size_t count = 0;

	for (size_t i = 0; i < holdings->count; i++) {
		if (holdings->items[i].entry.ino)
			holdings->items[count++] = holdings->items[i];
	}
	holdings->count = count;
}

static int gather_deleted(struct catalog *catalog, uint64_t dir, const char *name, struct holdings *holdings)
{
	int ret = catalog_past(catalog, dir, name, take_deleted, holdings);

	drop_not_deleted(holdings);
	return ret == -ENOENT ? 0 : ret;
}

int versions_at_deleted_list(struct catalog *catalog, uint64_t dir, struct versions_at_list *ret_list)
{
	struct holdings holdings = HOLDINGS(.when_ns = INT64_MAX);
	struct resolving resolving = {.holdings = &holdings, .dir = dir, .only_free = true};
	int ret = gather_deleted(catalog, dir, NULL, &holdings);

	if (!ret)
		ret = resolve_into(catalog, &resolving, ret_list);
	holdings_clear(&holdings);
	return ret;
}

int versions_at_deleted_lookup(struct catalog *catalog, uint64_t dir, const char *name,
			       struct versions_at_entry *ret_entry)
{
	struct holdings holdings = HOLDINGS(.when_ns = INT64_MAX);
	struct resolving resolving = {.holdings = &holdings, .dir = dir, .only_free = true};
	struct live_name live = {.dir = dir, .name = name};
	int ret = catalog_view(catalog, get_live_name, &live);

	if (!ret && S_ISDIR(live.found.type)) {
		*ret_entry = holding_of(live.found.ino, S_IFDIR).entry;
		return 0;
	}
	if (ret != -ENOENT)
		return ret ? ret : -ENOENT;
	ret = gather_deleted(catalog, dir, name, &holdings);
	if (!ret)
		ret = resolve_name(catalog, &resolving, ret_entry);
	holdings_clear(&holdings);
	return ret;
}
