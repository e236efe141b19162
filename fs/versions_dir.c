/*
 * versions_dir.c - listings of `.versions`: a snapshot for each open directory.
 *
 * Invariant: a struct versions_dir never changes once opened, so an offset,
 * which is an index, means the same entry on every call, and a page costs only
 * what it shows. A history is shared with the cache, not copied.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "clock.h"
#include "fs/cache.h"
#include "fs/versions_internal.h"
#include "fs/versions_points.h"

#define DOTS 2 /* "." and ".." */
#define POINTS_PATIENCE (5 * NS_PER_SEC)

struct shown {
	size_t name; /* offset in names */
	uint64_t ino;
	uint32_t type;
};

struct versions_dir {
	struct versions *versions;
	struct versions_key key;
	uint64_t ino;                     /* its own st_ino */
	struct versions_history *history; /* of a name: entries are made from it */
	struct buf names;                 /* else: entries, each name with its NUL */
	struct shown *entries;
	size_t count, cap;
};

static int add(struct versions_dir *dir, const char *name, const struct versions_key *child, uint32_t type)
{
	struct shown shown = {.name = dir->names.len, .type = type};

	shown.ino = child->kind == VERSIONS_VERSION ? versions_node_ino(child, 0)
						    : versions_node_ino(child, versions_node_number(child));
	if (ARRAY_ROOM(dir->entries, dir->cap, dir->count))
		return -ENOMEM;
	buf_add(&dir->names, name, strlen(name) + 1);
	if (buf_failed(&dir->names))
		return -ENOMEM;
	dir->entries[dir->count++] = shown;
	return 0;
}

/* --- what each kind of directory shows ------------------------------------------------------------------ */

/* Every name that ever lived in the directory. */
struct ever {
	struct versions_dir *dir;
	bool displaced, taken; /* did something have the name of the past itself, or the one that is shown as? */
};

static int add_ever(struct versions_dir *dir, const char *name)
{
	struct versions_key child = versions_key_of_name(dir->key.dir, name);
	AUTO_BUF shown = BUF_INIT;

	versions_plus(versions_shown(dir->versions, name), &shown);
	return buf_failed(&shown) ? -ENOMEM : add(dir, shown.data, &child, S_IFDIR);
}

static int take_ever(void *arg, const char *name, uint32_t type, bool live)
{
	struct ever *ever = arg;

	(void)type; /* each has a history, whatever it is and whether */
	(void)live; /* it lives or not */
	if (versions_is_snapdir(ever->dir->versions, name)) {
		ever->displaced = true;
		return 0;
	}
	ever->taken |= *versions_meant(ever->dir->versions, name) != '\0';
	return add_ever(ever->dir, name);
}

static int fill_names(struct versions *versions, struct versions_dir *dir)
{
	struct ever ever = {.dir = dir};
	int ret = versions_prepare_directory(versions, dir->key.dir);

	if (!ret)
		ret = catalog_names_ever(versions->catalog, dir->key.dir, take_ever, &ever);
	/* One that had to make room for a directory goes on under the other name, whose history has it. */
	if (!ret && ever.displaced && !ever.taken)
		ret = add_ever(dir, versions_snapdir_name(versions));
	return ret;
}

static int fill_history(struct versions *versions, struct versions_dir *dir)
{
	versions_prepare_name(versions, dir->key.dir, dir->key.name);
	return versions_history_get(versions, dir->key.dir, dir->key.name, VERSIONS_CURRENT, &dir->history);
}

static int fill_past(struct versions *versions, struct versions_dir *dir)
{
	struct versions_at_list list = {.names = BUF_INIT};
	int ret = versions_prepare_directory(versions, dir->key.dir);

	if (ret)
		return ret;
	if (dir->key.kind == VERSIONS_AT)
		ret = versions_at_list(versions->catalog, dir->key.dir, dir->key.when_ns, &list);
	else
		ret = versions_at_deleted_list(versions->catalog, dir->key.dir, &list);
	for (size_t i = 0; !ret && i < list.count; i++) {
		const char *name = versions_at_name(&list, i);
		struct versions_key child = versions_key_of_entry(&dir->key, name, &list.entries[i]);

		ret = add(dir, versions_shown(versions, name), &child, list.entries[i].type);
	}
	versions_at_clear(&list);
	return ret;
}

static void name_point(enum versions_kind kind, int64_t ns, char ret_name[static CLOCK_NAME_SIZE])
{
	struct timespec ts = clock_to_timespec(ns);
	struct tm tm;

	if (kind == VERSIONS_AT_LIST) {
		clock_format_name(ns, ret_name);
		return;
	}
	(void)gmtime_r(&ts.tv_sec, &tm); /* a time of the catalog has a year that fits */
	(void)strftime(ret_name, CLOCK_NAME_SIZE, "@GMT-%Y.%m.%d-%H.%M.%S", &tm);
}

static int fill_points(struct versions *versions, struct versions_dir *dir)
{
	struct versions_points points = {0};
	char name[CLOCK_NAME_SIZE], last[CLOCK_NAME_SIZE] = "";
	int ret = versions_points_find(versions->catalog, dir->key.dir, POINTS_PATIENCE, &points);

	for (size_t i = 0; !ret && i < points.count; i++) {
		struct versions_key child;

		name_point(dir->key.kind, points.times[i], name);
		if (!strcmp(name, last) || versions_key_of_time(&dir->key, name, &child))
			continue;
		memcpy(last, name, sizeof(last));
		ret = add(dir, name, &child, S_IFDIR);
	}
	versions_points_clear(&points);
	return ret;
}

static int fill(struct versions *versions, struct versions_dir *dir)
{
	switch (dir->key.kind) {
	case VERSIONS_DIR:
		return fill_names(versions, dir);
	case VERSIONS_NAME:
		return fill_history(versions, dir);
	case VERSIONS_AT:
	case VERSIONS_DELETED:
		return fill_past(versions, dir);
	case VERSIONS_AT_LIST:
	case VERSIONS_GMT_LIST:
		return fill_points(versions, dir);
	case VERSIONS_VERSION:
	case VERSIONS_INODE:
	case VERSIONS_LOG:
		break;
	}
	return -ENOTDIR;
}

/* --- the handle ------------------------------------------------------------------------------------------- */

int versions_opendir(struct versions *versions, uint64_t nodeid, struct versions_dir **ret_dir)
{
	struct versions_dir *dir = calloc(1, sizeof(*dir));
	int ret;

	if (!dir)
		return -ENOMEM;
	buf_init(&dir->names);
	dir->versions = versions;
	ret = versions_node_get(&versions->nodes, nodeid, &dir->key);
	if (!ret)
		ret = fill(versions, dir);
	if (ret) {
		versions_closedir(dir);
		return ret;
	}
	dir->ino = versions_node_ino(&dir->key, nodeid);
	*ret_dir = dir;
	return 0;
}

void versions_closedir(struct versions_dir *dir)
{
	if (!dir)
		return;
	versions_history_put(dir->history);
	buf_free(&dir->names);
	free(dir->entries);
	free(dir);
}

static int show_dot(const struct versions_dir *dir, uint64_t at, versions_visit visit, void *arg)
{
	struct stat st = {.st_ino = at ? dir->key.parent : dir->ino, .st_mode = S_IFDIR};

	return visit(arg, at ? ".." : ".", &st, at + 1);
}

static int show_item(const struct versions_dir *dir, uint64_t at, versions_visit visit, void *arg)
{
	const struct versions_history_item *item = &dir->history->items[at];
	struct versions_key child = versions_key_of_item(&dir->key, item);
	char name[VERSIONS_HISTORY_NAME_SIZE];
	struct stat st = {.st_mode = item->seq ? S_IFREG : S_IFLNK};

	st.st_ino = item->seq ? CACHE_VERSION | item->seq : versions_node_number(&child);
	versions_history_entry_name(dir->history, item, name);
	return visit(arg, name, &st, at + DOTS + 1);
}

static int show_entry(const struct versions_dir *dir, uint64_t at, versions_visit visit, void *arg)
{
	const struct shown *shown = &dir->entries[at];
	struct stat st = {.st_ino = shown->ino, .st_mode = shown->type};

	return visit(arg, dir->names.data + shown->name, &st, at + DOTS + 1);
}

int versions_readdir(struct versions_dir *dir, uint64_t offset, versions_visit visit, void *arg)
{
	size_t count = dir->history ? dir->history->count : dir->count;
	int ret = 0;

	for (; !ret && offset < DOTS; offset++)
		ret = show_dot(dir, offset, visit, arg);
	for (; !ret && offset - DOTS < count; offset++) {
		if (dir->history)
			ret = show_item(dir, offset - DOTS, visit, arg);
		else
			ret = show_entry(dir, offset - DOTS, visit, arg);
	}
	return ret;
}
