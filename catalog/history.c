/*
 * history.c - what a name showed over time, and every name a directory ever had.
 *
 * A name's life is a row of intervals in which one inode held it: PAST records
 * in order of `until`, then the live NAME. history(name) is, for each interval,
 * the version current when the inode took the name and the versions made while
 * it held it. Where an interval began by a rename to a free name, the history of
 * the name it came from, up to then, stands before it; that name may in turn
 * have come from another, so names still to be walked wait on a stack.
 *
 * Each interval is walked once (it is known by its `since`, which is unique), so
 * the work is linear in intervals and versions, and rings of renames end.
 * Whoever still had a file open when others took its name may have written to it: the versions of such an inode
 * (CAT_TAKEN) stay with the name it lost last, however late they came.
 *
 * A name is walked from its newest interval down to the first already walked:
 * all older ones have been, too. Its entries are then made from the oldest
 * interval on, and none is older than what an earlier interval showed last: the
 * order of bindings rules, so that what others wrote comes after what it took
 * the name from, whatever their clock said, and the newest entry is what lives.
 *
 * Threads: any; everything is collected in one view and shown after it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog/catalog_internal.h"

/* --- intervals ---------------------------------------------------------------------------------- */

struct interval {
	uint64_t ino, since, until; /* until UINT64_MAX: lives */
	int64_t since_ns;
	enum cat_how how;
	bool directory;
	bool taken; /* ended as others' doing ends one */
	uint64_t from_parent;
	char from_name[CAT_NAME_MAX + 1];
};

static void interval_of_past(const struct cat_past *past, struct interval *ret_interval)
{
	*ret_interval = (struct interval){
		.ino = past->ino,
		.since = past->since,
		.until = past->until,
		.since_ns = past->since_ns,
		.how = past->began,
		.directory = S_ISDIR(past->type),
		.taken = past->ended == CAT_HOW_REPLACE || past->ended == CAT_HOW_VANISH,
		.from_parent = past->from_parent,
	};
	cat_name_set(ret_interval->from_name, past->from_name);
}

static void interval_of_name(const struct cat_name *name, struct interval *ret_interval)
{
	*ret_interval = (struct interval){
		.ino = name->ino,
		.since = name->since,
		.until = UINT64_MAX,
		.since_ns = name->since_ns,
		.how = name->how,
		.directory = S_ISDIR(name->type),
		.from_parent = name->from_parent,
	};
	cat_name_set(ret_interval->from_name, name->from_name);
}

/* A name to be walked, its intervals that ended at or before `upto`. */
struct walk {
	uint64_t parent, upto;
	char name[CAT_NAME_MAX + 1];
};

enum beginning { TOOK_FREE_NAME, TOOK_OVER };

/* The intervals of one walk, newest first. */
struct turn {
	struct interval interval;
	enum beginning beginning;
};

struct item {
	struct cat_entry entry;
	uint64_t event; /* sequence number of the commit or the binding: settles equal times */
	size_t added;   /* and this, equal events: adopted versions come with one binding */
};

struct history {
	uint64_t parent;
	const char *name;
	struct cat_txn *txn;
	struct walk *stack;
	size_t depth, stack_cap;
	struct numbers seen; /* `since` of the intervals walked */
	struct turn *turns;  /* of the walk under way */
	size_t turn_count, turn_cap;
	struct item *items;
	size_t count, cap;
	uint64_t live_ino, live_version; /* 0: the name does not live */
	bool lived;
	/* While one interval is added: */
	const struct interval *interval;
	const char *brought_from; /* NULL: of the name asked for itself */
	int64_t newest;           /* no entry is older than the one before it */
};

static int push(struct history *history, uint64_t parent, const char *name, uint64_t upto)
{
	struct walk *walk;
	int rc = ARRAY_ROOM(history->stack, history->stack_cap, history->depth);

	if (rc < 0)
		return rc;
	walk = &history->stack[history->depth++];
	walk->parent = parent;
	walk->upto = upto;
	cat_name_set(walk->name, name);
	return 0;
}

/* --- entries ------------------------------------------------------------------------------------ */

static int add_entry(void *arg, const struct cat_version *version)
{
	struct history *history = arg;
	const struct interval *interval = history->interval;
	bool at_binding = version->seq <= interval->since;
	struct cat_entry *entry;
	int rc = ARRAY_ROOM(history->items, history->cap, history->count);

	if (rc < 0)
		return rc;
	history->items[history->count].event = at_binding ? interval->since : version->seq;
	history->items[history->count].added = history->count;
	entry = &history->items[history->count++].entry;
	*entry = (struct cat_entry){.version = *version, .time_ns = version->commit_ns, .how = CAT_HOW_CREATE};
	if (at_binding)
		entry->how = interval->how;
	if (at_binding && interval->how != CAT_HOW_ADOPT && entry->time_ns < interval->since_ns)
		entry->time_ns = interval->since_ns;
	if (entry->how == CAT_HOW_RENAME) {
		cat_name_set(entry->from_name, interval->from_name);
	} else if (history->brought_from) {
		entry->how = CAT_HOW_RENAME;
		cat_name_set(entry->from_name, history->brought_from);
	}
	/* The order of commits rules; a store's clock that ran ahead must not turn it round. */
	if (entry->time_ns < history->newest)
		entry->time_ns = history->newest;
	if (version->seq < interval->until) /* what came too late for the name moves nothing that others made of it */
		history->newest = entry->time_ns;
	return 0;
}

/* The version that was the file's content at `at`: suspect ones never were. */
static int current_at(struct cat_txn *txn, uint64_t ino, uint64_t at, struct cat_version *ret_version)
{
	struct cat_version version;
	int rc;

	for (;;) {
		rc = cat_version_at(txn, ino, at, &version);
		if (rc < 0)
			return rc;
		if (version.origin != CAT_ORIGIN_SUSPECT)
			break;
		if (version.seq == 0)
			return -ENOENT;
		at = version.seq - 1;
	}
	*ret_version = version;
	return 0;
}

/* A rename to a free name whose old name is on record: that name's history tells what the inode held at binding. */
static int bring_history(struct history *history, const struct interval *interval, enum beginning beginning)
{
	struct schema_key key;
	struct kv_bytes value;
	uint64_t past_dir;
	int rc;

	if (interval->how != CAT_HOW_RENAME || beginning == TOOK_OVER || !interval->from_name[0])
		return 0;
	if (interval->directory) /* files that once had its old name are nothing to it */
		return 0;
	rc = cat_past_dir(history->txn, interval->from_parent, &past_dir);
	if (rc < 0)
		return rc;
	schema_key_past(&key, past_dir, interval->from_name, interval->since);
	rc = cat_get(history->txn, &key, &value);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = push(history, interval->from_parent, interval->from_name, interval->since);
	return rc ? rc : 1;
}

/* The last version that belongs to the interval. */
static int last_of(struct cat_txn *txn, const struct interval *interval, uint64_t *ret_last)
{
	struct cat_inode inode = {0};
	int rc = interval->taken ? cat_inode_get(txn, interval->ino, &inode) : 0;

	if (inode.flags & CAT_TAKEN && !inode.nlink && (!inode.taken || inode.taken == interval->until))
		*ret_last = UINT64_MAX;
	else
		*ret_last = interval->until - 1;
	return rc == -ENOENT ? 0 : rc;
}

static int add_interval(struct history *history, const struct interval *interval, enum beginning beginning)
{
	uint64_t first = interval->since + 1, last;
	struct cat_version version;
	int rc = last_of(history->txn, interval, &last);

	if (rc < 0)
		return rc;
	history->interval = interval;
	rc = bring_history(history, interval, beginning);
	if (rc < 0)
		return rc;
	if (interval->how == CAT_HOW_ADOPT) {
		first = 0; /* the store's own past of the key is the name's */
	} else if (rc == 0) {
		rc = current_at(history->txn, interval->ino, interval->since, &version);
		if (rc == 0)
			rc = add_entry(history, &version);
		if (rc < 0 && rc != -ENOENT)
			return rc;
	}
	return cat_version_each(history->txn, interval->ino, first, last, add_entry, history);
}

/* --- walking names ------------------------------------------------------------------------------ */

static int turn_add(struct history *history, const struct interval *interval, enum beginning beginning)
{
	int rc = numbers_add(&history->seen, interval->since);

	if (rc >= 0)
		rc = ARRAY_ROOM(history->turns, history->turn_cap, history->turn_count);
	if (rc < 0)
		return rc;
	history->turns[history->turn_count++] = (struct turn){.interval = *interval, .beginning = beginning};
	history->lived = true;
	return 0;
}

/* When an interval that another walk has made its entries of showed its last one, near enough. */
static int last_shown(struct history *history, const struct interval *interval, int64_t *ret_ns)
{
	struct cat_version version;
	int rc = cat_version_at(history->txn, interval->ino, interval->until - 1, &version);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	*ret_ns = version.commit_ns;
	return 0;
}

static int gather_turns(struct history *history, const struct walk *walk, struct interval *newer, bool has_newer)
{
	struct kv_bytes key, value;
	struct interval older;
	struct schema_key prefix;
	struct cat_past past;
	struct rows rows;
	uint64_t past_dir;
	int rc = cat_past_dir(history->txn, walk->parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_past(&prefix, past_dir, walk->name, 0);
	prefix.len -= 8; /* any time */
	rows_open(&rows, &prefix, KV_BACKWARD);
	rows.batch = 64;
	if (walk->upto < UINT64_MAX)
		schema_key_past(&rows.to, past_dir, walk->name, walk->upto + 1);
	while ((rc = rows_next(&rows, history->txn, &key, &value)) == 0) {
		rc = cat_check_row(key, schema_decode_past(key, value, &past));
		if (rc < 0)
			break;
		interval_of_past(&past, &older);
		if (has_newer)
			rc = turn_add(history, newer, older.until == newer->since ? TOOK_OVER : TOOK_FREE_NAME);
		if (rc < 0)
			break;
		has_newer = !numbers_has(&history->seen, older.since);
		*newer = older;
		if (has_newer)
			continue;
		rc = last_shown(history, &older, &history->newest);
		break;
	}
	rows_close(&rows);
	if (rc == -ENOENT)
		rc = 0;
	return rc == 0 && has_newer ? turn_add(history, newer, TOOK_FREE_NAME) : rc;
}

static int walk_past(struct history *history, const struct walk *walk, struct interval *newer, bool has_newer)
{
	int rc;

	history->turn_count = 0;
	history->newest = INT64_MIN;
	rc = gather_turns(history, walk, newer, has_newer);
	for (size_t i = history->turn_count; rc >= 0 && i > 0; i--)
		rc = add_interval(history, &history->turns[i - 1].interval, history->turns[i - 1].beginning);
	return rc < 0 ? rc : 0;
}

static int walk_name(struct history *history, const struct walk *walk)
{
	struct interval newer;
	struct cat_inode inode;
	struct cat_name name;
	bool live = false;
	int rc;

	if (walk->upto == UINT64_MAX) {
		rc = cat_name_get(history->txn, walk->parent, walk->name, &name);
		if (rc == 0)
			rc = cat_inode_get(history->txn, name.ino, &inode);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		live = rc == 0;
	}
	if (live) {
		interval_of_name(&name, &newer);
		history->live_ino = inode.ino;
		history->live_version = inode.version;
	}
	return walk_past(history, walk, &newer, live);
}

static int history_closure(struct cat_txn *txn, void *arg)
{
	struct history *history = arg;
	struct walk walk;
	int rc;

	history->txn = txn;
	history->depth = history->seen.count = history->count = 0;
	history->live_ino = history->live_version = 0;
	history->lived = false;
	rc = push(history, history->parent, history->name, UINT64_MAX);
	while (rc == 0 && history->depth > 0) {
		walk = history->stack[--history->depth];
		history->brought_from = walk.upto == UINT64_MAX ? NULL : walk.name;
		rc = walk_name(history, &walk);
	}
	return rc;
}

static int item_compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->entry.time_ns != y->entry.time_ns)
		return x->entry.time_ns < y->entry.time_ns ? -1 : 1;
	if (x->event != y->event)
		return x->event < y->event ? -1 : 1;
	return (x->added > y->added) - (x->added < y->added);
}

static int show(struct history *history, cat_entry_visit visit, void *arg)
{
	int rc = 0;

	if (!history->count)
		return 0;
	qsort(history->items, history->count, sizeof(*history->items), item_compare);
	for (size_t i = history->count; i > 0 && history->live_version; i--) {
		struct cat_entry *entry = &history->items[i - 1].entry;

		if (entry->version.ino == history->live_ino && entry->version.seq == history->live_version) {
			entry->is_current = true;
			break;
		}
	}
	for (size_t i = 0; i < history->count && rc == 0; i++)
		rc = visit(arg, &history->items[i].entry);
	return rc;
}

int catalog_history(struct catalog *catalog, uint64_t parent, const char *name, cat_entry_visit visit, void *arg)
{
	struct history history = {.parent = parent, .name = name};
	int rc = cat_name_check(name);

	if (rc < 0)
		return rc == -EINVAL ? -ENOENT : rc;
	rc = catalog_view(catalog, history_closure, &history);
	if (rc == 0)
		rc = history.lived ? show(&history, visit, arg) : -ENOENT;
	free(history.stack);
	numbers_clear(&history.seen);
	free(history.turns);
	free(history.items);
	return rc;
}

/* --- names ever --------------------------------------------------------------------------------- */

/* One of two sorted streams of names. */
struct stream {
	struct rows rows;
	bool has, has_ahead; /* ahead: the row after the current name, PAST only */
	char name[CAT_NAME_MAX + 1];
	uint32_t type;
	struct cat_past ahead;
};

static int live_advance(struct stream *stream, struct cat_txn *txn)
{
	struct kv_bytes key, value;
	struct cat_name name;
	int rc = rows_next(&stream->rows, txn, &key, &value);

	stream->has = rc == 0;
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_check_row(key, schema_decode_name(key, value, &name));
	if (rc < 0)
		return rc;
	cat_name_set(stream->name, name.name);
	stream->type = name.type;
	return 0;
}

static int past_read(struct stream *stream, struct cat_txn *txn)
{
	struct kv_bytes key, value;
	int rc = rows_next(&stream->rows, txn, &key, &value);

	stream->has_ahead = rc == 0;
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return cat_check_row(key, schema_decode_past(key, value, &stream->ahead));
}

/* Passes over all records of one name; the last tells its type. */
static int past_advance(struct stream *stream, struct cat_txn *txn)
{
	int rc = 0;

	stream->has = stream->has_ahead;
	if (!stream->has)
		return 0;
	cat_name_set(stream->name, stream->ahead.name);
	while (rc == 0 && stream->has_ahead && strcmp(stream->name, stream->ahead.name) == 0) {
		stream->type = stream->ahead.type;
		rc = past_read(stream, txn);
	}
	return rc;
}

struct ever {
	uint64_t parent;
	cat_ever_visit visit;
	void *arg;
};

static int ever_merge(struct cat_txn *txn, const struct ever *ever, struct stream *live, struct stream *past)
{
	int rc = live_advance(live, txn);

	if (rc == 0)
		rc = past_read(past, txn);
	if (rc == 0)
		rc = past_advance(past, txn);
	while (rc == 0 && (live->has || past->has)) {
		int order = !past->has ? -1 : !live->has ? 1 : strcmp(live->name, past->name);

		rc = order <= 0 ? ever->visit(ever->arg, live->name, live->type, true)
				: ever->visit(ever->arg, past->name, past->type, false);
		if (rc == 0 && order <= 0)
			rc = live_advance(live, txn);
		if (rc == 0 && order >= 0)
			rc = past_advance(past, txn);
	}
	return rc;
}

static int ever_closure(struct cat_txn *txn, void *arg)
{
	const struct ever *ever = arg;
	struct stream live = {0}, past = {0};
	struct schema_key prefix;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, ever->parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_number(&prefix, SCHEMA_NAME, ever->parent);
	rows_open(&live.rows, &prefix, KV_FORWARD);
	schema_key_number(&prefix, SCHEMA_PAST, past_dir);
	rows_open(&past.rows, &prefix, KV_FORWARD);
	rc = ever_merge(txn, ever, &live, &past);
	rows_close(&live.rows);
	rows_close(&past.rows);
	return rc;
}

int catalog_names_ever(struct catalog *catalog, uint64_t parent, cat_ever_visit visit, void *arg)
{
	struct ever ever = {.parent = parent, .visit = visit, .arg = arg};

	return catalog_view(catalog, ever_closure, &ever);
}

/* --- past names --------------------------------------------------------------------------------- */

struct past_names {
	uint64_t parent;
	const char *name;
	cat_past_visit visit;
	void *arg;
};

static int past_closure(struct cat_txn *txn, void *arg)
{
	const struct past_names *names = arg;
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct cat_past past;
	struct rows rows;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, names->parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_number(&prefix, SCHEMA_PAST, past_dir);
	if (names->name) {
		schema_key_past(&prefix, past_dir, names->name, 0);
		prefix.len -= 8; /* any time */
	}
	rows_open(&rows, &prefix, KV_FORWARD);
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		rc = cat_check_row(key, schema_decode_past(key, value, &past));
		if (rc == 0)
			rc = names->visit(names->arg, &past);
		if (rc)
			break;
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

int catalog_past(struct catalog *catalog, uint64_t parent, const char *name, cat_past_visit visit, void *arg)
{
	struct past_names names = {.parent = parent, .name = name, .visit = visit, .arg = arg};
	int rc = name ? cat_name_check(name) : 0;

	return rc ? rc : catalog_view(catalog, past_closure, &names);
}

struct past_dir_of {
	uint64_t dir, found;
};

static int past_dir_closure(struct cat_txn *txn, void *arg)
{
	struct past_dir_of *of = arg;

	return cat_past_dir(txn, of->dir, &of->found);
}

int catalog_past_dir(struct catalog *catalog, uint64_t dir, uint64_t *ret_dir)
{
	struct past_dir_of of = {.dir = dir};
	int rc = catalog_view(catalog, past_dir_closure, &of);

	if (rc == 0)
		*ret_dir = of.found;
	return rc;
}
