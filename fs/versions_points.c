/*
 * versions_points.c - restore points: a walk through a directory's tree in space and time.
 *
 * The walk carries an interval: what is beneath a directory counts only while
 * the directory was beneath the one asked about. Intervals only shrink on the
 * way down, and no directory is its own descendant at one instant, so the walk
 * ends although moved directories are met more than once.
 * No state of its own; safe from any thread.
 */
#include "fs/versions_points.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog.h"
#include "clock.h"
#include "fs/versions_at.h"
#include "log.h"

#define MINUTE (60 * NS_PER_SEC)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define WEEK (7 * DAY)
#define THIN_FIRST 4096
#define BATCH 256 /* inodes whose versions are read in one view */

/* --- thinning --------------------------------------------------------------------------------------- */

void versions_points_clear(struct versions_points *points)
{
	free(points->times);
	*points = (struct versions_points){0};
}

static int64_t width_at(const struct versions_points *points, int64_t ns)
{
	int64_t age = points->now_ns - ns;

	if (age < HOUR)
		return MINUTE;
	return age < WEEK ? HOUR : DAY;
}

static int compare_times(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

	return (left > right) - (left < right);
}

void versions_points_thin(struct versions_points *points)
{
	size_t count = 0;

	if (!points->count)
		return;
	qsort(points->times, points->count, sizeof(*points->times), compare_times);
	for (size_t i = 0; i < points->count; i++) {
		int64_t ns = points->times[i], width = width_at(points, ns);

		if (count && width_at(points, points->times[count - 1]) == width &&
		    points->times[count - 1] / width == ns / width)
			count--;
		points->times[count++] = ns;
	}
	points->count = count;
}

int versions_points_note(struct versions_points *points, int64_t ns)
{
	if (points->count && points->times[points->count - 1] == ns)
		return 0;
	if (points->count == points->cap && points->cap >= points->thin_at && points->count) {
		versions_points_thin(points);
		/* As long again before the next time: what is left may be many days. */
		points->thin_at = points->count * 2 < THIN_FIRST ? THIN_FIRST : points->count * 2;
	}
	if (ARRAY_ROOM(points->times, points->cap, points->count))
		return -ENOMEM;
	points->times[points->count++] = ns;
	return 0;
}

/* --- the walk ----------------------------------------------------------------------------------------- */

/* An inode beneath, while it was. */
struct held {
	uint64_t ino;
	int64_t from_ns, to_ns; /* [from, to) */
};
struct held_list {
	struct held *items;
	size_t count, cap;
};

struct walk {
	struct catalog *catalog;
	struct versions_points *points;
	struct held_list dirs;  /* still to be read */
	struct held_list files; /* of the directory being read */
	struct held here;
};

static int push(struct held_list *list, const struct held *held)
{
	if (ARRAY_ROOM(list->items, list->cap, list->count))
		return -ENOMEM;
	list->items[list->count++] = *held;
	return 0;
}

static int note_within(struct walk *walk, const struct held *held, int64_t ns)
{
	return ns >= held->from_ns && ns < held->to_ns ? versions_points_note(walk->points, ns) : 0;
}

/* A binding in the directory being read: its own ends are changes, what it holds is read later. */
static int take_binding(struct walk *walk, struct held held, uint32_t type, enum cat_how began)
{
	int ret = 0;

	if (began == CAT_HOW_ADOPT)
		held.from_ns = INT64_MIN; /* was there before varve looked: see versions_at.h */
	else
		ret = note_within(walk, &walk->here, held.from_ns);
	if (!ret && held.to_ns != INT64_MAX)
		ret = note_within(walk, &walk->here, held.to_ns);
	if (held.from_ns < walk->here.from_ns)
		held.from_ns = walk->here.from_ns;
	if (held.to_ns > walk->here.to_ns)
		held.to_ns = walk->here.to_ns;
	if (ret || held.from_ns >= held.to_ns)
		return ret;
	if (S_ISDIR(type))
		return push(&walk->dirs, &held);
	return S_ISREG(type) ? push(&walk->files, &held) : 0;
}

static int take_live(void *arg, const struct cat_name *name)
{
	struct held held = {.ino = name->ino, .from_ns = name->since_ns, .to_ns = INT64_MAX};

	return take_binding(arg, held, name->type, name->how);
}

static int take_past(void *arg, const struct cat_past *past)
{
	struct held held = {.ino = past->ino, .from_ns = past->since_ns, .to_ns = past->until_ns};

	return take_binding(arg, held, past->type, past->began);
}

struct versions_of {
	struct walk *walk;
	const struct held *held;
};

static int take_version(void *arg, const struct cat_version *version)
{
	struct versions_of *of = arg;

	return note_within(of->walk, of->held, version->commit_ns);
}

/* Noting an instant twice changes nothing, so this may run again. */
static int read_files(struct cat_txn *txn, void *arg)
{
	struct walk *walk = arg;
	size_t count = walk->files.count, last = count > BATCH ? count - BATCH : 0;
	int ret = 0;

	for (size_t i = count; !ret && i-- > last;) {
		struct versions_of of = {.walk = walk, .held = &walk->files.items[i]};

		ret = cat_version_each(txn, of.held->ino, 0, UINT64_MAX, take_version, &of);
		if (ret == -ENOENT)
			ret = 0;
	}
	return ret;
}

static int read_directory(struct walk *walk)
{
	int ret = catalog_each_name(walk->catalog, walk->here.ino, take_live, walk);

	if (!ret || ret == -ENOENT)
		ret = catalog_past(walk->catalog, walk->here.ino, NULL, take_past, walk);
	if (ret == -ENOENT)
		ret = 0;
	while (!ret && walk->files.count) {
		ret = catalog_view(walk->catalog, read_files, walk);
		walk->files.count -= walk->files.count > BATCH ? BATCH : walk->files.count;
	}
	return ret;
}

int versions_points_find(struct catalog *catalog, uint64_t dir, int64_t patience_ns, struct versions_points *ret_points)
{
	struct versions_points points = {.now_ns = clock_wall(), .thin_at = THIN_FIRST};
	struct walk walk = {.catalog = catalog, .points = &points};
	struct held top = {.ino = dir, .from_ns = INT64_MIN, .to_ns = INT64_MAX};
	int64_t deadline = clock_monotonic() + patience_ns;
	int ret = push(&walk.dirs, &top);

	while (!ret && walk.dirs.count) {
		walk.here = walk.dirs.items[--walk.dirs.count];
		ret = read_directory(&walk);
		if (!ret && walk.dirs.count && clock_monotonic() > deadline) {
			log_info("versions", "directory %llu is too large to list all its restore points",
				 (unsigned long long)dir);
			break;
		}
	}
	versions_points_thin(&points);
	free(walk.dirs.items);
	free(walk.files.items);
	if (ret)
		versions_points_clear(&points);
	else
		*ret_points = points;
	return ret;
}
