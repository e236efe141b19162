/*
 * diff_tree.c - compares two trees of the past, or one with the live tree, names first.
 *
 * Where both have a name, versions decide without reading anything, mostly. What
 * only one of them has is gathered with everything beneath it and then matched: a
 * directory is known by its number, a file by its version. So a renamed directory
 * is told once, and within it only what changed. A file that was renamed and
 * changed is one that is gone and one that came.
 *
 * Only what differs is held in memory.
 */
#include "tools/diff_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "buf.h"
#include "cleanup.h"
#include "escape.h"
#include "tools/cli.h"
#include "tools/compare.h"
#include "tools/listing.h"
#include "tools/past.h"

enum word { ADDED, REMOVED, CHANGED, RENAMED };

struct item {
	char *path;  /* relative to the tree */
	char *from;  /* RENAMED */
	uint64_t id; /* of a directory its number, of a file its version; 0: not known */
	mode_t type;
	bool taken;  /* it has its counterpart */
	size_t twin; /* of a directory that went: where it is among what came; else SIZE_MAX */
	enum word word;
};
struct items {
	struct item *items;
	size_t count, cap;
};

struct trees {
	int from, to;            /* O_PATH */
	struct items gone, come; /* names that only one side has, and everything beneath; sorted once all is walked */
	struct items told;       /* what there is to tell */
	bool failed;             /* something could not be read: told */
};

/* A directory on both sides. */
struct pair {
	int from, to;
	const char *path;
};

static char *join(const char *path, const char *name)
{
	AUTO_BUF joined = BUF_INIT;

	buf_addf(&joined, "%s%s%s", path, *path ? "/" : "", name);
	return buf_detach(&joined);
}

static int open_path(int dir, const char *name)
{
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int complain(struct trees *trees, const char *path, int rc)
{
	if (rc == -ENOMEM)
		return rc;
	trees->failed = true;
	(void)cli_fail("%s: %s", *path ? path : ".", strerror(-rc)); /* noted */
	return 0;
}

static int add(struct items *list, const struct item *item)
{
	if (!item->path)
		return -ENOMEM;
	if (ARRAY_ROOM(list->items, list->cap, list->count)) {
		free(item->path);
		return -ENOMEM;
	}
	list->items[list->count] = *item;
	list->items[list->count++].twin = SIZE_MAX;
	return 0;
}

static void items_free(struct items *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].path);
		free(list->items[i].from);
	}
	free(list->items);
}

static int tell(struct trees *trees, enum word word, const char *path, const char *from)
{
	struct item item = {.path = strdup(path), .from = from ? strdup(from) : NULL, .word = word};

	if (from && !item.from) {
		free(item.path);
		return -ENOMEM;
	}
	return add(&trees->told, &item);
}

/* --- what differs ---------------------------------------------------------------------------------- */

static uint64_t id_of(int fd, const struct stat *st)
{
	AUTO_BUF fact = BUF_INIT;
	struct stat versions;

	if (S_ISDIR(st->st_mode))
		return fstatat(fd, past_versions(fd), &versions, 0) == 0 ? versions.st_ino : 0;
	if (!S_ISREG(st->st_mode))
		return 0;
	if (st->st_ino & PAST_VERSION_BIT)
		return st->st_ino & ~PAST_VERSION_BIT;
	return past_fact_at(fd, "", "seq", &fact) == 0 ? strtoull(fact.data, NULL, 10) : 0;
}

/* Everything beneath is as new, or as gone, as this. */
static int add_all(struct trees *trees, int dir, const char *name, const char *path, struct items *items)
{
	AUTO_CLOSE int fd = open_path(dir, name);
	struct listing list = {.names = BUF_INIT};
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fd == -ENOENT ? 0 : complain(trees, path, fd < 0 ? fd : -errno);
	rc = add(items, &(struct item){.path = strdup(path), .id = id_of(fd, &st), .type = st.st_mode & S_IFMT});
	if (rc < 0 || !S_ISDIR(st.st_mode))
		return rc;
	rc = listing_read(fd, &list);
	if (rc < 0)
		return complain(trees, path, rc);
	for (size_t i = 0; rc == 0 && i < list.count; i++) {
		AUTO_FREE char *below = join(path, listing_name(&list, i));

		rc = below ? add_all(trees, fd, listing_name(&list, i), below, items) : -ENOMEM;
	}
	listing_free(&list);
	return rc;
}

static bool same_target(int from, int to)
{
	char left[4096], right[4096];
	ssize_t n = readlinkat(from, "", left, sizeof(left)), m = readlinkat(to, "", right, sizeof(right));

	return n >= 0 && n == m && memcmp(left, right, (size_t)n) == 0;
}

static int walk(struct trees *trees, const struct pair *pair);

/* A name that both have. */
static int compare_both(struct trees *trees, const struct pair *above, const char *name, const char *path)
{
	AUTO_CLOSE int from = open_path(above->from, name);
	AUTO_CLOSE int to = open_path(above->to, name);
	struct stat left, right;
	int same;

	if (from < 0 || to < 0 || fstat(from, &left) < 0 || fstat(to, &right) < 0)
		return complain(trees, path, from < 0 ? from : to < 0 ? to : -errno);
	if ((left.st_mode & S_IFMT) != (right.st_mode & S_IFMT)) {
		int rc = add_all(trees, above->from, name, path, &trees->gone);

		return rc < 0 ? rc : add_all(trees, above->to, name, path, &trees->come);
	}
	if (S_ISDIR(left.st_mode))
		return walk(trees, &(struct pair){.from = from, .to = to, .path = path});
	if (S_ISREG(left.st_mode))
		same = compare_files(from, to);
	else
		same = S_ISLNK(left.st_mode) ? same_target(from, to) : left.st_rdev == right.st_rdev;
	if (same < 0)
		return complain(trees, path, same);
	return same ? 0 : tell(trees, CHANGED, path, NULL);
}

/* Both are versions of the past and readdir told already that they are the same one. */
static bool is_same_version(const struct listing_entry *from, const struct listing_entry *to)
{
	return S_ISREG(from->type) && from->number == to->number && from->number & PAST_VERSION_BIT;
}

static int walk_lists(struct trees *trees, const struct pair *pair, const struct listing *from,
		      const struct listing *to)
{
	size_t i = 0, j = 0;
	int rc = 0;

	while (rc == 0 && (i < from->count || j < to->count)) {
		int order = i == from->count ? 1
			    : j == to->count ? -1
					     : strcmp(listing_name(from, i), listing_name(to, j));
		const char *name = order <= 0 ? listing_name(from, i) : listing_name(to, j);
		AUTO_FREE char *path = join(pair->path, name);

		if (!path)
			rc = -ENOMEM;
		else if (order < 0)
			rc = add_all(trees, pair->from, name, path, &trees->gone);
		else if (order > 0)
			rc = add_all(trees, pair->to, name, path, &trees->come);
		else if (!is_same_version(&from->entries[i], &to->entries[j]))
			rc = compare_both(trees, pair, name, path);
		i += order <= 0;
		j += order >= 0;
	}
	return rc;
}

static int walk(struct trees *trees, const struct pair *pair)
{
	struct listing from = {.names = BUF_INIT}, to = {.names = BUF_INIT};
	int rc = listing_read(pair->from, &from);

	if (rc == 0)
		rc = listing_read(pair->to, &to);
	rc = rc < 0 ? complain(trees, pair->path, rc) : walk_lists(trees, pair, &from, &to);
	listing_free(&from);
	listing_free(&to);
	return rc;
}

/* --- renames ---------------------------------------------------------------------------------------------- */

static int compare_paths(const void *left, const void *right)
{
	const struct item *a = left, *b = right;
	int order = strcmp(a->path, b->path);

	return order ? order : (int)a->word - (int)b->word;
}

static void sort(struct items *list)
{
	if (list->count)
		qsort(list->items, list->count, sizeof(*list->items), compare_paths);
}

static struct item *find(const struct items *list, const char *path)
{
	struct item wanted = {.path = (char *)path}; /* only compared */

	return list->count ? bsearch(&wanted, list->items, list->count, sizeof(wanted), compare_paths) : NULL;
}

/* What came and has an id, by kind and id. */
struct by_id {
	const struct items *come;
	size_t *indexes;
	size_t count;
};

static int compare_kinds(const struct item *a, const struct item *b)
{
	if (S_ISDIR(a->type) != S_ISDIR(b->type))
		return S_ISDIR(a->type) ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

static int compare_indexes(const void *left, const void *right, void *arg)
{
	const struct items *come = arg;
	size_t a = *(const size_t *)left, b = *(const size_t *)right;
	int order = compare_kinds(&come->items[a], &come->items[b]);

	return order ? order : (a > b) - (a < b);
}

static int index_come(struct items *come, struct by_id *ret_by_id)
{
	struct by_id by_id = {.come = come, .indexes = calloc(come->count + 1, sizeof(*by_id.indexes))};

	if (!by_id.indexes)
		return -ENOMEM;
	for (size_t i = 0; i < come->count; i++) {
		if (come->items[i].id)
			by_id.indexes[by_id.count++] = i;
	}
	qsort_r(by_id.indexes, by_id.count, sizeof(*by_id.indexes), compare_indexes, come);
	*ret_by_id = by_id;
	return 0;
}

/* The first that is still free, or NULL. */
static struct item *find_id(const struct by_id *by_id, const struct item *gone)
{
	size_t low = 0, high = by_id->count;

	if (!gone->id)
		return NULL;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_kinds(&by_id->come->items[by_id->indexes[middle]], gone) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < by_id->count; low++) {
		struct item *item = &by_id->come->items[by_id->indexes[low]];

		if (compare_kinds(item, gone) != 0)
			break;
		if (!item->taken)
			return item;
	}
	return NULL;
}

/* What has the path that a name has when its renamed directory is followed; NULL: none has, or it is something else. */
static struct item *find_moved(const struct trees *trees, const struct item *gone)
{
	AUTO_FREE char *above = strdup(gone->path);
	AUTO_BUF moved = BUF_INIT;
	const struct item *directory;
	struct item *item;
	char *slash = above ? strrchr(above, '/') : NULL;

	if (!slash)
		return NULL;
	*slash = '\0';
	directory = find(&trees->gone, above); /* what is gone with its directory is gone beneath one that is listed */
	if (!directory || directory->twin == SIZE_MAX)
		return NULL;
	buf_addf(&moved, "%s/%s", trees->come.items[directory->twin].path, slash + 1);
	item = find(&trees->come, moved.data);
	return item && !item->taken && item->type == gone->type ? item : NULL;
}

/* What went along with its directory is told only when it changed. */
static int tell_moved(struct trees *trees, const struct item *gone, const struct item *item)
{
	AUTO_CLOSE int from = -1;
	AUTO_CLOSE int to = -1;
	int same = 1;

	if (S_ISDIR(gone->type) || (gone->id && gone->id == item->id && S_ISREG(gone->type)))
		return 0;
	from = open_path(trees->from, gone->path);
	to = open_path(trees->to, item->path);
	if (from < 0 || to < 0)
		return complain(trees, item->path, from < 0 ? from : to);
	if (S_ISREG(gone->type))
		same = compare_files(from, to);
	else if (S_ISLNK(gone->type))
		same = same_target(from, to);
	if (same < 0)
		return complain(trees, item->path, same);
	return same ? 0 : tell(trees, CHANGED, item->path, NULL);
}

/* Parents come before what is in them, so a renamed directory is known when its names are looked at. */
static int match(struct trees *trees)
{
	struct by_id by_id;
	int rc;

	sort(&trees->gone);
	sort(&trees->come);
	rc = index_come(&trees->come, &by_id);
	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < trees->gone.count; i++) {
		struct item *gone = &trees->gone.items[i], *item = find_moved(trees, gone);
		bool is_along = item != NULL;

		if (!item)
			item = find_id(&by_id, gone);
		if (!item) {
			rc = tell(trees, REMOVED, gone->path, NULL);
			continue;
		}
		item->taken = true;
		if (S_ISDIR(gone->type))
			gone->twin = (size_t)(item - trees->come.items);
		rc = is_along ? tell_moved(trees, gone, item) : tell(trees, RENAMED, item->path, gone->path);
	}
	for (size_t i = 0; rc == 0 && i < trees->come.count; i++) {
		if (!trees->come.items[i].taken)
			rc = tell(trees, ADDED, trees->come.items[i].path, NULL);
	}
	free(by_id.indexes);
	return rc;
}

/* --- telling ------------------------------------------------------------------------------------------------ */

static void print(const struct diff_tree *request, const struct item *item)
{
	static const char *const words[] = {
		[ADDED] = "added", [REMOVED] = "removed", [CHANGED] = "changed", [RENAMED] = "renamed"};
	AUTO_BUF line = BUF_INIT;

	if (request->as_json) {
		buf_addf(&line, "{\"change\":\"%s\",\"path\":", words[item->word]);
		cli_json_string(&line, item->path);
		if (item->from) {
			buf_adds(&line, ",\"from\":");
			cli_json_string(&line, item->from);
		}
		buf_addc(&line, '}');
	} else {
		buf_addf(&line, "%s\t", words[item->word]);
		escape_text(item->path, strlen(item->path), &line);
		if (item->from) {
			buf_addc(&line, '\t');
			escape_text(item->from, strlen(item->from), &line);
		}
	}
	(void)puts(line.data); /* stdout is checked at the end */
}

static int open_to(const struct diff_tree *request)
{
	int fd;

	if (!request->to_live)
		return past_tree_open(request->path, request->to_ns);
	fd = open(request->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int diff_tree(const struct diff_tree *request)
{
	AUTO_CLOSE int from = past_tree_open(request->path, request->from_ns);
	AUTO_CLOSE int to = -1;
	struct trees trees = {.from = from};
	int rc;

	if (from == -ENOENT)
		return cli_fail("%s was not there then", request->path), 2;
	if (from < 0)
		return past_complain(request->path, from), 2;
	trees.to = to = open_to(request);
	if (to < 0)
		return to == -ENOENT ? (cli_fail("%s was not there at the later time", request->path), 2)
				     : (past_complain(request->path, to), 2);
	cli_raise_files();
	rc = walk(&trees, &(struct pair){.from = from, .to = to, .path = ""});
	if (rc == 0)
		rc = match(&trees);
	sort(&trees.told);
	for (size_t i = 0; rc == 0 && i < trees.told.count; i++)
		print(request, &trees.told.items[i]);
	if (rc == 0)
		rc = trees.failed ? 2 : trees.told.count > 0;
	else
		rc = (cli_fail("%s: %s", request->path, strerror(-rc)), 2);
	items_free(&trees.gone);
	items_free(&trees.come);
	items_free(&trees.told);
	return rc;
}
