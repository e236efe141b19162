/*
 * stale.c - see stale.h.
 *
 * Threads: the one that opens the session; nothing else runs yet.
 */
#include "fs/stale.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content.h"
#include "log.h"

#define COPY_STEP (256u << 10)
#define CACHE_ROOM (UINT64_C(1) << 40) /* nothing is evicted: the disk decides */
#define CATALOG_DIR "catalog"
#define CACHE_DIR "cache"
#define OLD ".stale"

struct save {
	const struct stale *stale;
	struct contents *contents;
	struct err *err;
	int dir; /* -1: nothing saved yet */
	FILE *changes;
	struct stale_saved saved;
};

/* --- where ------------------------------------------------------------------------------------------ */

static int open_dir(struct save *save)
{
	char time[CLOCK_NAME_SIZE];

	if (save->dir >= 0)
		return 0;
	clock_format_name(clock_wall(), time);
	if (asprintf(&save->saved.dir, "%s/unsent/%s", save->stale->state_dir, time) < 0)
		return -ENOMEM;
	*strrchr(save->saved.dir, '/') = '\0';
	if (mkdir(save->saved.dir, 0700) && errno != EEXIST)
		return -errno;
	save->saved.dir[strlen(save->saved.dir)] = '/';
	if (mkdir(save->saved.dir, 0700) && errno != EEXIST)
		return -errno;
	save->dir = open(save->saved.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return save->dir < 0 ? -errno : 0;
}

/* The directories above `path`, which is relative and has no "..". */
static int make_parents(int dir, char *path)
{
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		int result;

		*slash = '\0';
		result = mkdirat(dir, path, 0700) && errno != EEXIST ? -errno : 0;
		*slash = '/';
		if (result)
			return result;
	}
	return 0;
}

/* The list of what is no file. */
static int open_changes(struct save *save)
{
	int result = open_dir(save), fd;

	if (result || save->changes)
		return result;
	fd = openat(save->dir, "CHANGES", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	save->changes = fd >= 0 ? fdopen(fd, "w") : NULL;
	return save->changes ? 0 : -errno;
}

static int note_incomplete(struct save *save, const char *path)
{
	int result = open_changes(save);

	log_error("stale", "%s is not complete: what it was based on is gone", path);
	return result ? result : fprintf(save->changes, "incomplete\t%s\n", path) < 0 ? -EIO : 0;
}

/* --- versions --------------------------------------------------------------------------------------- */

struct facts {
	uint64_t ino, seq;
	struct cat_version version;
	struct buf key;
};

/* Object keys may have components that no path can have. */
static bool is_path(const char *key)
{
	for (const char *at = key;; at++) {
		size_t len = strcspn(at, "/");

		if (!len || len > CAT_NAME_MAX || (len <= 2 && strspn(at, ".") >= len))
			return false;
		at += len;
		if (!*at)
			return true;
	}
}

static int read_facts(struct cat_txn *txn, void *arg)
{
	struct facts *facts = arg;
	int err = cat_version_get(txn, facts->ino, facts->seq, &facts->version);

	if (err)
		return err;
	buf_reset(&facts->key);
	err = cat_key_of(txn, facts->ino, &facts->key);
	if (err == -ENOENT || (!err && !buf_failed(&facts->key) && !is_path(facts->key.data))) {
		buf_reset(&facts->key);
		buf_addf(&facts->key, "unnamed/%" PRIu64, facts->ino);
		err = 0;
	}
	return err;
}

static int copy_out(struct save *save, const struct facts *facts, int fd)
{
	AUTO_FREE char *bytes = malloc(COPY_STEP);
	struct content *content;
	uint64_t at = 0;
	int result = bytes ? content_get(save->contents, facts->ino, facts->seq, &content) : -ENOMEM;

	if (result)
		return result;
	while (at < facts->version.size && !result) {
		ssize_t n = content_pread(content, bytes, COPY_STEP, at, NULL), written;

		if (n <= 0) {
			result = n ? (int)n : -EIO;
			break;
		}
		written = pwrite(fd, bytes, (size_t)n, (off_t)at);
		if (written <= 0)
			result = written ? -errno : -EIO;
		else
			at += (uint64_t)written;
	}
	content_put(content);
	return result ? result : fsync(fd) ? -errno : 0;
}

static int save_version(struct save *save, uint64_t ino, uint64_t seq)
{
	struct facts facts = {.ino = ino, .seq = seq, .key = BUF_INIT};
	char time[CLOCK_NAME_SIZE];
	AUTO_FREE char *path = NULL;
	AUTO_CLOSE int fd = -1;
	int result = catalog_view(save->stale->catalog, read_facts, &facts);

	if (result || facts.version.state == CAT_STORED || facts.version.state == CAT_EXPIRED)
		goto out;
	clock_format_name(facts.version.commit_ns, time);
	if (buf_failed(&facts.key) || asprintf(&path, "%s~%s", facts.key.data, time) < 0)
		result = -ENOMEM;
	if (!result)
		result = open_dir(save);
	if (!result)
		result = make_parents(save->dir, path);
	if (!result) {
		fd = openat(save->dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
		result = fd < 0 ? -errno : copy_out(save, &facts, fd);
	}
	/* What it was made of is nowhere any more: what there is stays, and is told. */
	if (result == -ENODATA || result == -ESTALE)
		result = note_incomplete(save, path);
	if (result)
		(void)err_from_errno(save->err, -result, "cannot save the unsent content of %s", path ? path : "?");
	else
		save->saved.files++;
out:
	buf_free(&facts.key);
	return result;
}

/* --- other changes ------------------------------------------------------------------------------------ */

struct where {
	uint64_t ino;
	struct buf key;
};

static int read_key(struct cat_txn *txn, void *arg)
{
	struct where *where = arg;

	buf_reset(&where->key);
	return cat_key_of(txn, where->ino, &where->key);
}

static int save_change(struct save *save, const struct cat_job *job)
{
	struct where where = {.ino = job->ino, .key = BUF_INIT};
	int result = open_changes(save);

	if (!result) {
		bool lives = catalog_view(save->stale->catalog, read_key, &where) == 0;

		if (fprintf(save->changes, "%s\t%s\n", job->key ? job->key : "", lives ? where.key.data : "") < 0)
			result = -EIO;
		save->saved.changes++;
	}
	buf_free(&where.key);
	return result;
}

struct pending {
	struct cat_job *cells;
	size_t count, cap;
};

static int note_job(void *arg, struct cat_job *job)
{
	struct pending *pending = arg;

	if (ARRAY_ROOM(pending->cells, pending->cap, pending->count))
		return -ENOMEM;
	pending->cells[pending->count++] = *job;
	job->key = job->note = job->sent = NULL; /* taken over */
	return 0;
}

static int save_jobs(struct save *save)
{
	struct pending pending = {0};
	int result = catalog_jobs(save->stale->catalog, 0, 0, note_job, &pending);

	for (size_t i = 0; i < pending.count; i++) {
		struct cat_job *job = &pending.cells[i];

		if (!result && job->type == CAT_JOB_UPLOAD)
			result = save_version(save, job->ino, job->version);
		else if (!result && (job->type == CAT_JOB_PLACE || job->type == CAT_JOB_TREE))
			result = save_change(save, job);
		cat_job_clear(job);
	}
	free(pending.cells);
	return result;
}

static int finish(struct save *save, int result)
{
	if (save->changes && fflush(save->changes) == EOF && !result)
		result = -EIO;
	if (save->changes && !result && fsync(fileno(save->changes)))
		result = -errno;
	if (save->changes)
		(void)fclose(save->changes); /* synced above */
	if (save->dir >= 0 && !result && syncfs(save->dir))
		result = -errno;
	if (save->dir >= 0)
		(void)close(save->dir); /* likewise */
	return result;
}

/* Recovery makes versions of all changes; what it could not is only in the cache. */
static int is_unsaved(void *arg, const struct cat_inode *inode)
{
	(void)arg;
	return inode->nlink && inode->flags & CAT_DIRTY ? -EIO : 0;
}

int stale_save(const struct stale *stale, struct stale_saved *ret_saved, struct err *err)
{
	AUTO_FREE char *cache_dir = NULL;
	struct contents_options options = {
		.catalog = stale->catalog, .transfer = stale->transfer, .cache_limit = CACHE_ROOM};
	struct save save = {.stale = stale, .err = err, .dir = -1};
	uint64_t recovered = 0;
	int result;

	if (asprintf(&cache_dir, "%s/" CACHE_DIR, stale->state_dir) < 0)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	if (mkdir(cache_dir, 0700) && errno != EEXIST)
		return err_from_errno(err, errno, "cannot use %s", cache_dir);
	options.cache_dir = cache_dir;
	result = contents_new(&options, &save.contents);
	if (!result)
		result = contents_recover(save.contents, &recovered);
	if (!result)
		result = catalog_each_dirty(stale->catalog, is_unsaved, NULL);
	if (!result)
		result = save_jobs(&save);
	contents_end(save.contents);
	result = finish(&save, result);
	if (result) {
		free(save.saved.dir);
		return err->kind ? result : err_from_errno(err, -result, "cannot save what was never sent");
	}
	*ret_saved = save.saved;
	return 0;
}

/* --- discarding --------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int remove_old(const char *path)
{
	return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT ? -errno : 0;
}

/* The catalog first: without it the cache means nothing. */
int stale_discard(const char *state_dir, struct err *err)
{
	static const char *const names[] = {CATALOG_DIR, CACHE_DIR};
	int result = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names) && !result; i++) {
		AUTO_FREE char *from = NULL, *to = NULL;

		if (asprintf(&from, "%s/%s", state_dir, names[i]) < 0 || asprintf(&to, "%s" OLD, from) < 0)
			return err_set(err, ERR_NO_MEMORY, "out of memory");
		result = remove_old(to); /* of an earlier time */
		if (!result && rename(from, to) && errno != ENOENT)
			result = -errno;
		if (!result)
			result = remove_old(to);
	}
	return result ? err_from_errno(err, -result, "cannot discard the old state in %s", state_dir) : 0;
}
