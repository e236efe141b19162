/*
 * revive.c - the walk that `varve restore -r` and `varve undelete` share.
 *
 * First the past tree is read once, names only: how much there is, and which
 * versions have several names: hard links, since a version belongs to one inode.
 * Eight bytes a file are kept of it, and the paths of hard links. Then both trees
 * are walked side by side, depth first, a directory's listing at a time; its own
 * time is set when everything within it is done.
 *
 * A directory that does not exist yet is -1 below: in a dry run all is, beneath it.
 * Single-threaded.
 */
#include "tools/revive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "buf.h"
#include "cleanup.h"
#include "tools/bring.h"
#include "tools/cli.h"
#include "tools/compare.h"
#include "tools/listing.h"
#include "tools/past.h"

/* One of several names of a version; `path` is relative to the tree. */
struct link_name {
	uint64_t seq;
	char *path;
	bool done; /* it has the content */
};

struct tree {
	const struct revive *request;
	struct report *report;
	bool on_varve; /* where to: versions can be compared */
	int top;       /* the live tree, or -1 */
	uint64_t *seqs;
	size_t seq_count, seq_cap;
	struct link_name *links; /* by seq */
	size_t link_count, link_cap;
};

/* A place in both trees. `path` is relative to the tree, "" for its top. */
struct place {
	int source, dir;
	const char *path;
};

/* --- telling --------------------------------------------------------------------------------------- */

/* The path as people wrote the tree's, malloc'd or NULL. */
static char *shown(struct tree *tree, const char *path)
{
	AUTO_BUF text = BUF_INIT;

	buf_addf(&text, "%s%s%s", tree->request->path, *path ? "/" : "", path);
	return buf_detach(&text);
}

static void tell(struct tree *tree, enum report_op op, const char *path, uint64_t size)
{
	AUTO_FREE char *text = shown(tree, path);

	report_change(tree->report, &(struct report_change){.op = op, .path = text ? text : path, .size = size});
}

static void tell_link(struct tree *tree, const char *path, const char *from)
{
	AUTO_FREE char *text = shown(tree, path);
	AUTO_FREE char *first = shown(tree, from);

	report_change(
		tree->report,
		&(struct report_change){.op = REPORT_LINK, .path = text ? text : path, .from = first ? first : from});
}

/* Counts a failure; -errno where nothing more can succeed, else 0. */
static int fail(struct tree *tree, const char *path, int rc)
{
	AUTO_FREE char *text = NULL;

	if (rc >= 0 || rc == -EINTR)
		return rc;
	text = shown(tree, path);
	report_failure(tree->report, text ? text : path, rc);
	return rc == -ENOSPC || rc == -EDQUOT || rc == -EROFS || rc == -ENOMEM || rc == -ENOTCONN ? rc : 0;
}

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

/* --- the first look --------------------------------------------------------------------------------- */

static uint64_t seq_of(const struct listing_entry *entry)
{
	return S_ISREG(entry->type) && entry->number & PAST_VERSION_BIT ? entry->number & ~PAST_VERSION_BIT : 0;
}

static int note_seq(struct tree *tree, uint64_t seq)
{
	if (ARRAY_ROOM(tree->seqs, tree->seq_cap, tree->seq_count))
		return -ENOMEM;
	tree->seqs[tree->seq_count++] = seq;
	return 0;
}

static int compare_seqs(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static bool is_linked(struct tree *tree, uint64_t seq)
{
	return seq && tree->seq_count && bsearch(&seq, tree->seqs, tree->seq_count, sizeof(seq), compare_seqs);
}

static int note_link(struct tree *tree, uint64_t seq, const char *path)
{
	if (ARRAY_ROOM(tree->links, tree->link_cap, tree->link_count))
		return -ENOMEM;
	tree->links[tree->link_count] = (struct link_name){.seq = seq, .path = strdup(path)};
	return tree->links[tree->link_count].path ? (tree->link_count++, 0) : -ENOMEM;
}

enum look { LOOK_SEQS, LOOK_LINKS };

/* What cannot be read is told in the walk. */
static int look(struct tree *tree, int dir, const char *path, enum look what)
{
	struct listing list;
	int rc = listing_read(dir, &list);

	if (rc < 0)
		return rc == -ENOMEM ? rc : 0;
	for (size_t i = 0; rc == 0 && i < list.count; i++) {
		const struct listing_entry *entry = &list.entries[i];
		AUTO_FREE char *below = join(path, listing_name(&list, i));
		AUTO_CLOSE int sub = -1;

		if (bring_was_interrupted())
			rc = -EINTR;
		else if (!below)
			rc = -ENOMEM;
		else if (S_ISDIR(entry->type))
			rc = (sub = open_path(dir, listing_name(&list, i))) < 0 ? 0 : look(tree, sub, below, what);
		else if (what == LOOK_LINKS)
			rc = is_linked(tree, seq_of(entry)) ? note_link(tree, seq_of(entry), below) : 0;
		else
			rc = note_seq(tree, seq_of(entry));
	}
	listing_free(&list);
	return rc;
}

static int compare_links(const void *left, const void *right)
{
	const struct link_name *a = left, *b = right;

	return a->seq != b->seq ? (a->seq > b->seq) - (a->seq < b->seq) : strcmp(a->path, b->path);
}

static int find_links(struct tree *tree, int source)
{
	size_t count = 0;
	int rc = look(tree, source, "", LOOK_SEQS);

	if (rc < 0)
		return rc;
	report_expect(tree->report, tree->seq_count);
	if (tree->seq_count)
		qsort(tree->seqs, tree->seq_count, sizeof(*tree->seqs), compare_seqs);
	for (size_t i = 1; i < tree->seq_count; i++) {
		if (tree->seqs[i] && tree->seqs[i] == tree->seqs[i - 1] &&
		    (!count || tree->seqs[count - 1] != tree->seqs[i]))
			tree->seqs[count++] = tree->seqs[i];
	}
	tree->seq_count = count;
	if (!count)
		return 0;
	rc = look(tree, source, "", LOOK_LINKS);
	if (rc == 0 && tree->link_count)
		qsort(tree->links, tree->link_count, sizeof(*tree->links), compare_links);
	return rc;
}

/* The names of a version that has several: the first, and how many. */
static struct link_name *group_of(struct tree *tree, uint64_t seq, size_t *ret_count)
{
	size_t low = 0, high = tree->link_count, end;

	if (!is_linked(tree, seq))
		return NULL;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (tree->links[middle].seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < tree->link_count && tree->links[end].seq == seq; end++)
		;
	*ret_count = end - low;
	return end > low ? &tree->links[low] : NULL;
}

/* --- is it there already? --------------------------------------------------------------------------- */

static bool same_time(const struct bring *bring)
{
	struct timespec mtime = bring_mtime(bring->source, &bring->st);

	return bring->live->st_mtim.tv_sec == mtime.tv_sec && bring->live->st_mtim.tv_nsec == mtime.tv_nsec;
}

/* Another version with the same size, mtime and checksum is what an earlier run wrote. */
static int same_file(struct tree *tree, const struct bring *bring)
{
	AUTO_CLOSE int live = -1;
	int rc;

	if (bring->live->st_size != bring->st.st_size || bring_is_unfinished(bring->live, bring->source))
		return 0;
	if (!tree->on_varve)
		return same_time(bring);
	live = open_path(bring->dir, bring->name);
	if (live < 0)
		return live;
	rc = compare_known(bring->source, live);
	if (rc != -EAGAIN)
		return rc;
	if (same_time(bring) && compare_checksums(bring->source, live))
		return 1;
	return compare_files(bring->source, live);
}

static int same_symlink(const struct bring *bring)
{
	char past[4096], live[4096];
	ssize_t n = readlinkat(bring->source, "", past, sizeof(past));
	ssize_t m = readlinkat(bring->dir, bring->name, live, sizeof(live));

	return n >= 0 && n == m && memcmp(past, live, (size_t)n) == 0;
}

static bool is_stored(int dir, const char *name)
{
	AUTO_BUF state = BUF_INIT;

	return past_fact_at(dir, name, "state", &state) == 0 && strcmp(state.data, "stored") == 0;
}

static int is_same(struct tree *tree, const struct bring *bring)
{
	if (!bring->live || (bring->live->st_mode & S_IFMT) != (bring->st.st_mode & S_IFMT))
		return 0;
	if (S_ISREG(bring->st.st_mode))
		return same_file(tree, bring);
	if (S_ISLNK(bring->st.st_mode))
		return same_symlink(bring);
	return bring->live->st_rdev == bring->st.st_rdev;
}

/* --- taking away ------------------------------------------------------------------------------------- */

static int take_away(struct tree *tree, int dir, const char *name, const char *path);

static int empty(struct tree *tree, int dir, const char *path)
{
	struct listing list;
	int rc = listing_read(dir, &list);

	if (rc < 0)
		return fail(tree, path, rc);
	for (size_t i = 0; rc == 0 && i < list.count; i++) {
		AUTO_FREE char *below = join(path, listing_name(&list, i));

		rc = below ? take_away(tree, dir, listing_name(&list, i), below) : -ENOMEM;
	}
	listing_free(&list);
	return rc;
}

/* By ordinary unlinks: what goes stays in the history. */
static int take_away(struct tree *tree, int dir, const char *name, const char *path)
{
	struct stat st;
	int rc = 0;

	if (bring_was_interrupted())
		return -EINTR;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(tree, path, -errno);
	if (S_ISDIR(st.st_mode)) {
		AUTO_CLOSE int sub = open_path(dir, name);

		rc = sub < 0 ? fail(tree, path, sub) : empty(tree, sub, path);
	}
	if (rc == 0 && !tree->report->is_dry && unlinkat(dir, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
		return fail(tree, path, -errno);
	if (rc == 0)
		tell(tree, REPORT_REMOVE, path, 0);
	return rc;
}

/* --- bringing ---------------------------------------------------------------------------------------- */

/* How many names of the group are links of the live file. */
static size_t links_within(struct tree *tree, const struct link_name *group, size_t count, const struct stat *live)
{
	struct stat st;
	size_t found = 0;

	for (size_t i = 0; i < count; i++)
		found += fstatat(tree->top, group[i].path, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == live->st_ino;
	return found;
}

/* The name that has the content by now, or has it from the beginning. */
static struct link_name *leader_of(struct tree *tree, struct link_name *group, size_t count)
{
	AUTO_BUF seq = BUF_INIT;

	for (size_t i = 0; i < count; i++) {
		if (group[i].done)
			return &group[i];
	}
	for (size_t i = 0; tree->on_varve && i < count; i++) {
		buf_reset(&seq);
		if (tree->top >= 0 && past_fact_at(tree->top, group[i].path, "seq", &seq) == 0 &&
		    strtoull(seq.data, NULL, 10) == group[i].seq && is_stored(tree->top, group[i].path))
			return &group[i];
	}
	return NULL;
}

static int link_to(struct tree *tree, const struct bring *bring, const char *path, const char *leader)
{
	struct stat st;

	if (bring->live && fstatat(tree->top, leader, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_ino == bring->live->st_ino && st.st_dev == bring->live->st_dev) {
		tell(tree, REPORT_SAME, path, 0);
		return 0;
	}
	if (!tree->report->is_dry) {
		if (bring->live && unlinkat(bring->dir, bring->name, 0) < 0)
			return fail(tree, path, -errno);
		if (linkat(tree->top, leader, bring->dir, bring->name, 0) < 0)
			return fail(tree, path, -errno);
	}
	tell_link(tree, path, leader);
	return 0;
}

static int bring_leaf(struct tree *tree, struct bring *leaf, const char *path)
{
	struct link_name *group, *leader = NULL;
	size_t count = 0;
	int rc;

	group = S_ISREG(leaf->st.st_mode) ? group_of(tree, leaf->st.st_ino & ~PAST_VERSION_BIT, &count) : NULL;
	if (group)
		leader = leader_of(tree, group, count);
	if (leader && strcmp(leader->path, path) != 0)
		return link_to(tree, leaf, path, leader->path);
	if (leaf->live && S_ISREG(leaf->live->st_mode) && leaf->live->st_nlink > 1 && group &&
	    links_within(tree, group, count, leaf->live) == leaf->live->st_nlink)
		leaf->way = BRING_IN_PLACE;
	rc = is_same(tree, leaf);
	if (rc == 1)
		tell(tree, REPORT_SAME, path, 0);
	if (rc == 0) {
		rc = tree->report->is_dry ? 0 : bring(leaf);
		if (rc == 0)
			tell(tree, S_ISREG(leaf->st.st_mode) ? REPORT_WRITE : REPORT_MAKE, path,
			     (uint64_t)leaf->st.st_size);
	}
	for (size_t i = 0; rc >= 0 && i < count; i++)
		group[i].done |= strcmp(group[i].path, path) == 0;
	return rc < 0 ? fail(tree, path, rc) : 0;
}

static int revive_directory(struct tree *tree, const struct place *place);

/* Was this directory there then, or another of its name? */
static bool same_directory(int source, int live)
{
	struct stat past, now;

	return fstatat(source, past_versions(source), &past, 0) == 0 &&
	       fstatat(live, past_versions(live), &now, 0) == 0 && past.st_ino == now.st_ino;
}

/* Opens a directory that is there by now, so that we may write into it; *ret_mode is the mode it is to have in the end.
 */
static int enter(struct tree *tree, const struct place *above, const char *name, const struct place *place,
		 mode_t *ret_mode)
{
	int fd = openat(above->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	bool is_new = place->dir < 0;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (is_new || (tree->request->mode != REVIVE_ADD && !same_directory(place->source, fd)))
		rc = bring_directory_attributes(place->source, fd);
	if (rc == 0 && fstat(fd, &st) < 0)
		rc = -errno;
	if (rc < 0) {
		(void)close(fd); /* nothing was written */
		return rc;
	}
	if ((st.st_mode & 0700) != 0700)
		(void)fchmod(fd, (st.st_mode & 07777) | 0700); /* where it fails, what is below says so */
	*ret_mode = st.st_mode & 07777;
	return fd;
}

static int revive_below(struct tree *tree, const struct place *above, const char *name, const struct place *place)
{
	AUTO_CLOSE int made = -1;
	struct place here = *place;
	mode_t mode = 0700;
	struct stat st;
	int rc = 0;

	if (place->dir < 0) {
		rc = tree->report->is_dry ? 0 : bring_directory(above->dir, name);
		if (rc < 0)
			return fail(tree, place->path, rc);
		tell(tree, REPORT_MKDIR, place->path, 0);
	}
	if (!tree->report->is_dry) {
		made = enter(tree, above, name, place, &mode);
		if (made < 0)
			return fail(tree, place->path, made);
		here.dir = made;
		if (tree->top < 0)
			tree->top = fcntl(made, F_DUPFD_CLOEXEC, 0);
	}
	rc = revive_directory(tree, &here);
	if (rc == 0 && made >= 0 && place->dir < 0 && fstat(place->source, &st) == 0)
		(void)bring_directory_time(&st, made); /* where it cannot be set, nothing is lost that was there */
	if (made >= 0 && (mode & 0700) != 0700)
		(void)fchmod(made, mode); /* it had it a moment ago */
	return rc;
}

static int revive_entry(struct tree *tree, const struct place *above, const char *name, const char *path)
{
	AUTO_CLOSE int source = open_path(above->source, name);
	AUTO_CLOSE int sub = -1;
	struct bring leaf = {.source = source, .dir = above->dir, .name = name};
	struct stat live;
	bool exists = above->dir >= 0 && fstatat(above->dir, name, &live, AT_SYMLINK_NOFOLLOW) == 0;
	int rc = 0;

	if (source < 0 || fstat(source, &leaf.st) < 0)
		return source == -ENOENT ? 0 : fail(tree, path, source < 0 ? source : -errno);
	if (!S_ISDIR(leaf.st.st_mode))
		report_step(tree->report);
	if (exists && S_ISDIR(live.st_mode) && S_ISDIR(leaf.st.st_mode)) {
		sub = open_path(above->dir, name);
		if (sub < 0)
			return fail(tree, path, sub);
	} else if (exists && tree->request->mode == REVIVE_ADD && !bring_is_unfinished(&live, source)) {
		tell(tree, REPORT_KEEP, path, 0);
		return 0;
	} else if (exists && (S_ISDIR(live.st_mode) || S_ISDIR(leaf.st.st_mode))) {
		if (tree->request->mode != REVIVE_EXACT)
			return fail(tree, path, S_ISDIR(live.st_mode) ? -EISDIR : -ENOTDIR);
		rc = take_away(tree, above->dir, name, path);
		exists = tree->report->is_dry ? false : rc == 0 && fstatat(above->dir, name, &live, 0) == 0;
		if (rc < 0 || exists)
			return rc; /* what could not be taken away was told */
	}
	if (S_ISDIR(leaf.st.st_mode))
		return revive_below(tree, above, name, &(struct place){.source = source, .dir = sub, .path = path});
	leaf.live = exists ? &live : NULL;
	return bring_leaf(tree, &leaf, path);
}

static int take_away_others(struct tree *tree, const struct place *place, const struct listing *past)
{
	struct listing live = {.names = BUF_INIT};
	int rc = listing_read(place->dir, &live);

	if (rc < 0)
		return fail(tree, place->path, rc);
	for (size_t i = 0; rc == 0 && i < live.count; i++) {
		const char *name = listing_name(&live, i);
		AUTO_FREE char *below = NULL;

		if (listing_find(past, name))
			continue;
		below = join(place->path, name);
		rc = below ? take_away(tree, place->dir, name, below) : -ENOMEM;
	}
	listing_free(&live);
	return rc;
}

static int revive_directory(struct tree *tree, const struct place *place)
{
	const struct report *report = tree->report;
	uint64_t before = report->written + report->made + report->linked + report->removed;
	struct listing past;
	struct stat st;
	int rc = listing_read(place->source, &past);

	if (rc < 0)
		return fail(tree, place->path, rc);
	if (tree->request->mode == REVIVE_EXACT && place->dir >= 0)
		rc = take_away_others(tree, place, &past);
	for (size_t i = 0; rc == 0 && i < past.count; i++) {
		AUTO_FREE char *below = join(place->path, listing_name(&past, i));

		if (bring_was_interrupted())
			rc = -EINTR;
		else
			rc = below ? revive_entry(tree, place, listing_name(&past, i), below) : -ENOMEM;
	}
	listing_free(&past);
	/* Times do not count as changes. */
	if (rc == 0 && !report->is_dry && tree->request->mode != REVIVE_ADD && fstat(place->source, &st) == 0 &&
	    before != report->written + report->made + report->linked + report->removed)
		(void)bring_directory_time(&st, place->dir);
	return rc;
}

/* --- the tree ------------------------------------------------------------------------------------------ */

static int begin(struct tree *tree, const struct stat *source)
{
	struct stat st;

	tree->on_varve = fstatat(tree->request->dir, past_versions(tree->request->dir), &st, 0) == 0;
	if (!S_ISDIR(source->st_mode)) {
		report_expect(tree->report, 1);
		return 0;
	}
	tree->top = openat(tree->request->dir, tree->request->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return find_links(tree, tree->request->source);
}

int revive(const struct revive *request)
{
	struct tree tree = {.request = request, .report = request->report, .top = -1};
	struct place above = {.source = -1, .dir = request->dir, .path = ""};
	struct bring leaf = {.source = request->source, .dir = request->dir, .name = request->name};
	struct stat live;
	bool exists = fstatat(request->dir, request->name, &live, AT_SYMLINK_NOFOLLOW) == 0;
	int rc = fstat(request->source, &leaf.st) < 0 ? fail(&tree, "", -errno) : begin(&tree, &leaf.st);

	if (rc < 0)
		goto out;
	cli_raise_files();
	if (exists && request->mode == REVIVE_ADD && !S_ISDIR(live.st_mode) &&
	    !bring_is_unfinished(&live, request->source)) {
		tell(&tree, REPORT_KEEP, "", 0);
		report_step(tree.report);
	} else if (exists && S_ISDIR(live.st_mode) != S_ISDIR(leaf.st.st_mode)) {
		rc = fail(&tree, "", S_ISDIR(live.st_mode) ? -EISDIR : -ENOTDIR);
	} else if (S_ISDIR(leaf.st.st_mode)) {
		struct place top = {.source = request->source, .dir = tree.top, .path = ""};

		rc = revive_below(&tree, &above, request->name, &top);
	} else {
		leaf.live = exists ? &live : NULL;
		rc = bring_leaf(&tree, &leaf, "");
		report_step(tree.report);
	}
out:
	for (size_t i = 0; i < tree.link_count; i++)
		free(tree.links[i].path);
	free(tree.links);
	free(tree.seqs);
	if (tree.top >= 0)
		(void)close(tree.top); /* only a path */
	return rc;
}
