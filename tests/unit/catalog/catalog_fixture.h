/*
 * catalog_fixture.h - what the tests of the catalog's operations share: a
 * catalog of their own, short names for the calls, and histories as text.
 *
 * With FIXTURE_MEMORY the catalog lies on the in-memory twin of kv.h, else on
 * the real engine in a temporary directory.
 */
#ifndef VARVE_TESTS_CATALOG_FIXTURE_H
#define VARVE_TESTS_CATALOG_FIXTURE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "catalog.h"
#include "clock.h"
#include "kv_support.h"

#ifdef FIXTURE_MEMORY
#include "support/kv_memory.c"
#endif

#define ROOT CAT_ROOT_INO
#define MAYBE_UNUSED __attribute__((unused))

static struct catalog *catalog;
static char *catalog_dir;
static struct cat_actor actor = {.uid = 1000, .gid = 100};

static void reopen(void)
{
	struct catalog_options options = {.root_mode = 0755, .root_uid = 7, .root_gid = 8};

	catalog_close(catalog);
	catalog = NULL;
	cr_assert_eq(catalog_open(catalog_dir, &options, &catalog), 0);
}

static void setup(void)
{
	catalog_dir = make_temp_dir();
	reopen();
}

static void print_problem(void *arg, const struct cat_problem *problem)
{
	(void)arg;
	cr_log_error("%s: inode %" PRIu64 ": %s", problem->kind, problem->ino, problem->detail);
}

static struct cat_check assert_clean(void)
{
	struct cat_check check;

	cr_assert_eq(catalog_check(catalog, print_problem, NULL, &check), 0);
	cr_assert_eq(check.problems, 0);
	return check;
}

MAYBE_UNUSED static void teardown(void)
{
	(void)assert_clean();
	catalog_close(catalog);
	free_temp_dir(catalog_dir);
#ifdef FIXTURE_MEMORY
	kv_memory_reset();
#endif
}

MAYBE_UNUSED static uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
	struct cat_create request = {.parent = parent, .name = name, .mode = mode, .target = "there", .actor = actor};
	struct cat_inode inode;

	cr_assert_eq(catalog_create(catalog, &request, &inode), 0, "create %s", name);
	return inode.ino;
}

MAYBE_UNUSED static uint64_t make_file(uint64_t parent, const char *name)
{
	return make(parent, name, S_IFREG | 0644);
}

MAYBE_UNUSED static uint64_t make_dir(uint64_t parent, const char *name)
{
	return make(parent, name, S_IFDIR | 0755);
}

/* A version whose size tells it from others. */
MAYBE_UNUSED static struct cat_version commit(uint64_t ino, uint64_t size)
{
	struct cat_commit request = {.ino = ino, .size = size, .mtime = clock_wall(), .author = 1000};
	struct cat_version version;

	cr_assert_eq(catalog_commit(catalog, &request, &version), 0);
	return version;
}

MAYBE_UNUSED static int rename_flags(uint64_t parent, const char *name, uint64_t to, const char *new_name,
				     unsigned flags)
{
	struct cat_rename request = {
		.parent = parent, .name = name, .new_parent = to, .new_name = new_name, .flags = flags, .actor = actor};
	struct cat_unlinked replaced;

	return catalog_rename(catalog, &request, &replaced);
}

MAYBE_UNUSED static int move(uint64_t parent, const char *name, uint64_t to, const char *new_name)
{
	return rename_flags(parent, name, to, new_name, 0);
}

MAYBE_UNUSED static int remove_file(uint64_t parent, const char *name)
{
	struct cat_unlinked unlinked;

	return catalog_unlink(catalog, parent, name, actor, &unlinked);
}

MAYBE_UNUSED static struct cat_inode inode_of(uint64_t ino)
{
	struct cat_inode inode;

	cr_assert_eq(catalog_getattr(catalog, ino, &inode), 0);
	return inode;
}

/* 0: no such name. */
MAYBE_UNUSED static uint64_t ino_of(uint64_t parent, const char *name)
{
	struct cat_inode inode;
	int rc = catalog_lookup(catalog, parent, name, &inode);

	cr_assert(rc == 0 || rc == -ENOENT);
	return rc == 0 ? inode.ino : 0;
}

/* Time this thread worked: what other load the machine has does not count. */
MAYBE_UNUSED static int64_t cpu_ns(void)
{
	struct timespec now;

	cr_assert_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	return clock_from_timespec(now);
}

MAYBE_UNUSED static double seconds_since(int64_t start)
{
	return (double)(cpu_ns() - start) / (double)NS_PER_SEC;
}

/* --- histories as text: sizes, a letter before those that did not come by a commit, '*' after the current one --- */

MAYBE_UNUSED static int history_word(void *arg, const struct cat_entry *entry)
{
	static const char letters[] = " LRPUAV"; /* enum cat_how */
	struct buf *text = arg;

	if (text->len)
		buf_addc(text, ' ');
	if (entry->how != CAT_HOW_CREATE)
		buf_addc(text, letters[entry->how]);
	buf_addf(text, "%" PRIu64 "%s", entry->version.size, entry->is_current ? "*" : "");
	return 0;
}

MAYBE_UNUSED static void history_text(uint64_t parent, const char *name, struct buf *ret_text)
{
	int rc;

	buf_reset(ret_text);
	rc = catalog_history(catalog, parent, name, history_word, ret_text);
	if (rc == -ENOENT)
		buf_adds(ret_text, "never");
	else
		cr_assert_eq(rc, 0);
}

#define assert_history(parent, name, expected)                                                                         \
	do {                                                                                                           \
		struct buf text_ = BUF_INIT;                                                                           \
		history_text(parent, name, &text_);                                                                    \
		cr_assert_str_eq(text_.data, expected, "history of %s: %s", name, text_.data);                         \
		buf_free(&text_);                                                                                      \
	} while (0)

/* --- jobs as text: "place 5 a/b; upload 6; " with numbers of inodes --- */

static int job_word(void *arg, struct cat_job *job)
{
	static const char *const types[] = {"upload", "place", "tree"};

	buf_addf(arg, "%s %" PRIu64 "%s%s; ", types[job->type], job->ino, job->key ? " " : "",
		 job->key ? job->key : "");
	return 0;
}

MAYBE_UNUSED static void jobs_text(struct buf *ret_text)
{
	buf_reset(ret_text);
	cr_assert_eq(catalog_jobs(catalog, 0, 1000, job_word, ret_text), 0);
}

static int take_job(void *arg, struct cat_job *job)
{
	*(struct cat_job *)arg = *job;
	job->key = job->note = NULL;
	return 1;
}

/* Plays the worker: every upload arrives at the inode's key, every other job is done. */
static int key_closure(struct cat_txn *txn, void *arg)
{
	struct cat_copy *copy = arg;
	struct buf key = BUF_INIT;
	int rc = cat_key_of(txn, copy->ino, &key);

	if (rc == 0)
		copy->key = buf_detach(&key);
	buf_free(&key);
	return rc;
}

MAYBE_UNUSED static void finish_job(const struct cat_job *job)
{
	struct cat_copy copy = {.ino = job->ino, .seq = job->version};
	char id[32];

	if (job->type != CAT_JOB_UPLOAD) {
		cr_assert_eq(catalog_job_done(catalog, job->seq), 0);
		return;
	}
	if (catalog_view(catalog, key_closure, &copy) == -ENOENT)
		copy.key = strdup("gone");
	(void)snprintf(id, sizeof(id), "v%" PRIu64, job->version);
	copy.native_id = strdup(id);
	copy.etag = strdup(id);
	cr_assert_eq(catalog_stored(catalog, job->seq, &copy, NULL), 0);
	cat_copy_clear(&copy);
}

MAYBE_UNUSED static void finish_jobs(void)
{
	struct cat_job job;

	while (catalog_jobs(catalog, 0, 1, take_job, &job) == 1) {
		finish_job(&job);
		cat_job_clear(&job);
	}
}

#define assert_jobs(expected)                                                                                          \
	do {                                                                                                           \
		struct buf text_ = BUF_INIT;                                                                           \
		jobs_text(&text_);                                                                                     \
		cr_assert_str_eq(text_.data, expected, "jobs: %s, not %s", text_.data, expected);                      \
		buf_free(&text_);                                                                                      \
	} while (0)

#endif
