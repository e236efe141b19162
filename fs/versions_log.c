/*
 * versions_log.c - a directory's events, gathered from names that live, names that ended, and versions.
 *
 * Every event is told by one record only: a rename within the directory by the
 * name that ended, because that one knows who did it; a write by each name the
 * file had in the directory while it was written.
 * No state of its own; safe from any thread.
 */
#include "fs/versions_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog.h"
#include "clock.h"
#include "escape.h"
#include "fs/versions.h"
#include "fs/versions_at.h"

#define NOBODY UINT32_MAX
#define BATCH 256 /* files whose versions are read in one view */

struct event {
	uint64_t seq; /* order */
	int64_t time_ns;
	const char *op;
	uint64_t size;
	uint32_t uid;      /* NOBODY: not known */
	uint32_t identity; /* of the version, when is_write */
	uint32_t type;     /* S_IFMT */
	bool is_write;
	size_t name, host, other; /* offsets in texts; 0: none */
};

/* A file while it had a name here. */
struct tenure {
	uint64_t ino, since, until;
	size_t name;
};

struct history_log {
	struct catalog *catalog;
	const struct versions *versions;
	uint64_t dir, past_dir;
	struct event *events;
	size_t count, cap;
	struct tenure *tenures;
	size_t tenure_count, tenure_cap;
	size_t tenure_next; /* the first whose versions have not been read */
	size_t known;       /* events there were when the view began */
	struct buf texts;   /* strings, each with its NUL; the first is empty */
};

static size_t add_text(struct history_log *log, const char *prefix, const char *text)
{
	size_t at = log->texts.len;

	buf_adds(&log->texts, prefix);
	buf_add(&log->texts, text, strlen(text) + 1);
	return at;
}

static int add_event(struct history_log *log, const struct event *event)
{
	if (ARRAY_ROOM(log->events, log->cap, log->count))
		return -ENOMEM;
	log->events[log->count++] = *event;
	return buf_failed(&log->texts) ? -ENOMEM : 0;
}

static int add_tenure(struct history_log *log, const struct tenure *tenure)
{
	if (ARRAY_ROOM(log->tenures, log->tenure_cap, log->tenure_count))
		return -ENOMEM;
	log->tenures[log->tenure_count++] = *tenure;
	return 0;
}

/* --- names ------------------------------------------------------------------------------------------- */

/* The other end of a rename: where in the catalog, and with what word before it. */
struct far_end {
	const struct history_log *log;
	const char *word;
	uint64_t parent;
	const char *name;
};

struct key_of {
	uint64_t ino;
	struct buf *key;
};

static int get_key(struct cat_txn *txn, void *arg)
{
	const struct key_of *of = arg;

	buf_reset(of->key);
	return cat_key_of(txn, of->ino, of->key);
}

/* Visitors may not ask the catalog for paths, so the parent is kept as a number until all is read. */
static size_t add_far_end(struct history_log *log, const struct far_end *end)
{
	AUTO_BUF text = BUF_INIT;

	if (end->parent != log->dir)
		buf_addf(&text, "%s\t%" PRIu64 "\t%s", end->word, end->parent, end->name);
	else
		buf_addf(&text, "%s\t\t%s", end->word, end->name);
	return buf_failed(&text) ? (size_t)0 : add_text(log, "", text.data);
}

static int add_beginning(struct history_log *log, const struct cat_past *held, size_t name)
{
	struct event event = {
		.seq = held->since, .time_ns = held->since_ns, .uid = NOBODY, .type = held->type, .name = name};

	switch (held->began) {
	case CAT_HOW_CREATE:
		event.op = "create";
		break;
	case CAT_HOW_LINK:
		event.op = "link";
		break;
	case CAT_HOW_ADOPT:
		event.op = "adopt";
		break;
	case CAT_HOW_RENAME:
		if (held->from_parent == log->dir)
			return 0; /* the name it came from tells */
		event.op = "rename";
		event.other = add_far_end(
			log, &(struct far_end){.word = "from", .parent = held->from_parent, .name = held->from_name});
		break;
	default:
		return 0;
	}
	return add_event(log, &event);
}

static int add_ending(struct history_log *log, const struct cat_past *past, size_t name)
{
	struct event event = {
		.seq = past->until, .time_ns = past->until_ns, .uid = past->actor, .type = past->type, .name = name};

	switch (past->ended) {
	case CAT_HOW_UNLINK:
		event.op = "delete";
		break;
	case CAT_HOW_REPLACE:
		event.op = "replace";
		break;
	case CAT_HOW_VANISH:
		event.op = "vanish";
		event.uid = NOBODY;
		break;
	case CAT_HOW_RENAME:
		event.op = "rename";
		event.other = add_far_end(
			log, &(struct far_end){.word = "to", .parent = past->to_parent, .name = past->to_name});
		break;
	default:
		return 0;
	}
	return add_event(log, &event);
}

static int add_held(struct history_log *log, const struct cat_past *held, size_t name)
{
	struct tenure tenure = {.ino = held->ino, .since = held->since, .until = held->until, .name = name};
	int ret = add_beginning(log, held, name);

	if (ret || !S_ISREG(held->type))
		return ret;
	if (held->began == CAT_HOW_ADOPT)
		tenure.since = 0; /* what it was before varve looked happened under this name */
	return add_tenure(log, &tenure);
}

static int take_live(void *arg, const struct cat_name *name)
{
	struct history_log *log = arg;
	struct cat_past held = {
		.ino = name->ino,
		.since = name->since,
		.until = UINT64_MAX,
		.since_ns = name->since_ns,
		.type = name->type,
		.began = name->how,
		.from_parent = name->from_parent,
	};

	memcpy(held.from_name, name->from_name, sizeof(held.from_name));
	return add_held(log, &held, add_text(log, "", name->name));
}

static int take_past(void *arg, const struct cat_past *past)
{
	struct history_log *log = arg;
	size_t name = add_text(log, "", past->name);
	int ret = add_held(log, past, name);

	return ret ? ret : add_ending(log, past, name);
}

/* --- writes --------------------------------------------------------------------------------------------- */

struct writes {
	struct history_log *log;
	const struct tenure *tenure;
};

static int take_version(void *arg, const struct cat_version *version)
{
	struct writes *writes = arg;
	struct event event = {
		.seq = version->seq,
		.time_ns = version->commit_ns,
		.op = "write",
		.size = version->size,
		.uid = version->origin == CAT_ORIGIN_EXTERNAL ? NOBODY : version->author,
		.identity = version->identity,
		.type = S_IFREG,
		.is_write = true,
		.name = writes->tenure->name,
	};

	if (version->host[0])
		event.host = add_text(writes->log, "", version->host);
	return add_event(writes->log, &event);
}

static int read_writes(struct cat_txn *txn, void *arg)
{
	struct history_log *log = arg;
	size_t last = log->tenure_next + BATCH < log->tenure_count ? log->tenure_next + BATCH : log->tenure_count;
	int ret = 0;

	log->count = log->known;
	for (size_t i = log->tenure_next; !ret && i < last; i++) {
		struct writes writes = {.log = log, .tenure = &log->tenures[i]};

		ret = cat_version_each(txn, writes.tenure->ino, writes.tenure->since, writes.tenure->until,
				       take_version, &writes);
		if (ret == -ENOENT)
			ret = 0;
	}
	return ret;
}

/* --- text ----------------------------------------------------------------------------------------------- */

static int compare_events(const void *a, const void *b)
{
	const struct event *left = a, *right = b;

	if (left->seq != right->seq)
		return left->seq < right->seq ? -1 : 1;
	/* Of one update, first what ended: both rows of a replacing rename have its seq. */
	return strcmp(right->op, left->op);
}

static void put_field(struct buf *text, const char *field)
{
	buf_addc(text, '\t');
	if (field[0])
		escape_text(field, strlen(field), text);
	else
		buf_addc(text, '-');
}

/* "from\t17\tname" as add_far_end left it: the directory's path, when it still has one. */
static int put_far_end(struct history_log *log, const char *end, struct buf *text)
{
	const char *parent, *name;
	AUTO_BUF path = BUF_INIT, key = BUF_INIT;
	int ret = 0;

	buf_addc(text, '\t');
	if (!end[0]) {
		buf_addc(text, '-');
		return 0;
	}
	parent = strchr(end, '\t') + 1;
	name = strchr(parent, '\t') + 1;
	buf_add(&path, end, (size_t)(parent - 1 - end));
	buf_addc(&path, ':');
	if (parent[0] != '\t') {
		struct key_of of = {.ino = strtoull(parent, NULL, 10), .key = &key};
		uint64_t past_dir = 0;

		ret = catalog_past_dir(log->catalog, of.ino, &past_dir);
		if (!ret && past_dir != log->past_dir) {
			ret = catalog_view(log->catalog, get_key, &of);
			if (!ret)
				buf_addf(&path, "/%s%s", key.data, key.len ? "/" : "");
		}
		if (ret && ret != -ENOENT)
			return ret;
	}
	buf_adds(&path, versions_shown(log->versions, name));
	escape_text(path.data, path.len, text);
	return buf_failed(&path) ? -ENOMEM : 0;
}

static const char *word_of(uint32_t type)
{
	switch (type & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "dir";
	case S_IFLNK:
		return "link";
	default:
		return "other";
	}
}

/* Came it from a name of a directory that this one goes on with? Then that name tells. 1, 0, -errno. */
static int is_told_elsewhere(struct history_log *log, const struct event *event)
{
	const char *end = log->texts.data + event->other;
	uint64_t past_dir;
	int ret;

	if (strncmp(end, "from\t", 5) != 0 || end[5] == '\t')
		return 0;
	ret = catalog_past_dir(log->catalog, strtoull(end + 5, NULL, 10), &past_dir);
	return ret ? ret : past_dir == log->past_dir;
}

static int put_event(struct history_log *log, const struct event *event, struct buf *text)
{
	char time[CLOCK_RFC3339_SIZE];
	int ret = is_told_elsewhere(log, event);

	if (ret)
		return ret < 0 ? ret : 0;
	clock_format_rfc3339(event->time_ns, time);
	buf_addf(text, "%s\t%s", time, event->op);
	put_field(text, versions_shown(log->versions, log->texts.data + event->name));
	if (event->is_write)
		buf_addf(text, "\t%" PRIu64, event->size);
	else
		put_field(text, "");
	if (event->uid != NOBODY)
		buf_addf(text, "\t%" PRIu32, event->uid);
	else
		put_field(text, "");
	put_field(text, log->texts.data + event->host);
	if (event->is_write)
		buf_addf(text, "\t%08" PRIx32, event->identity);
	else
		put_field(text, "");
	if (put_far_end(log, log->texts.data + event->other, text))
		return -EIO;
	put_field(text, word_of(event->type));
	buf_addc(text, '\n');
	return 0;
}

static int gather(struct history_log *log)
{
	int ret;

	buf_add(&log->texts, "", 1);
	ret = catalog_each_name(log->catalog, log->dir, take_live, log);
	if (!ret || ret == -ENOENT)
		ret = catalog_past(log->catalog, log->dir, NULL, take_past, log);
	if (ret == -ENOENT)
		ret = 0;
	for (; !ret && log->tenure_next < log->tenure_count; log->tenure_next += BATCH) {
		log->known = log->count;
		ret = catalog_view(log->catalog, read_writes, log);
	}
	return ret;
}

int versions_log_text(struct catalog *catalog, const struct versions *versions, uint64_t dir, struct buf *ret_text)
{
	struct history_log log = {.catalog = catalog, .versions = versions, .dir = dir, .texts = BUF_INIT};
	AUTO_BUF text = BUF_INIT;
	int ret = catalog_past_dir(catalog, dir, &log.past_dir);

	if (!ret)
		ret = gather(&log);
	if (ret)
		goto out;
	if (log.count)
		qsort(log.events, log.count, sizeof(*log.events), compare_events);
	buf_adds(&text, "time\top\tname\tsize\tuid\thost\tversion\tother\ttype\n");
	for (size_t i = 0; !ret && i < log.count; i++)
		ret = put_event(&log, &log.events[i], &text);
	buf_add(ret_text, text.data, text.len);
	if (!ret && (buf_failed(&text) || buf_failed(ret_text)))
		ret = -ENOMEM;
out:
	free(log.events);
	free(log.tenures);
	buf_free(&log.texts);
	return ret;
}
