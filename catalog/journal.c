/*
 * journal.c - the jobs that make the store follow the catalog, and the inodes
 * that recovery must look at.
 *
 * A job's seq is its place in the order of commits and its name. Who works a
 * job off deletes it in the update that records its result (catalog_stored), or
 * by catalog_job_done.
 *
 * Threads: any.
 */
#include <errno.h>
#include <stdlib.h>

#include "array.h"
#include "catalog/catalog_internal.h"

struct jobs {
	uint64_t after;
	size_t max;
	cat_job_visit visit;
	void *arg;
};

static int jobs_closure(struct cat_txn *txn, void *arg)
{
	const struct jobs *jobs = arg;
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	int rc = 0;

	if (jobs->after == UINT64_MAX)
		return 0;
	schema_key_begin(&prefix, SCHEMA_JOB);
	rows_open(&rows, &prefix, KV_FORWARD);
	schema_key_number(&rows.from, SCHEMA_JOB, jobs->after + 1);
	rows.batch = jobs->max < 256 ? jobs->max : 256;
	for (size_t left = jobs->max; left > 0 && rc == 0; left--) {
		struct cat_job job;

		rc = rows_next(&rows, txn, &key, &value);
		if (rc == 0)
			rc = cat_check_row(key, schema_decode_job(key, value, &job));
		if (rc == 0) {
			rc = jobs->visit(jobs->arg, &job);
			cat_job_clear(&job);
		}
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

int catalog_jobs(struct catalog *catalog, uint64_t after, size_t max, cat_job_visit visit, void *arg)
{
	struct jobs jobs = {.after = after, .max = max ? max : SIZE_MAX, .visit = visit, .arg = arg};

	return catalog_view(catalog, jobs_closure, &jobs);
}

int cat_jobs_of(struct cat_txn *txn, uint64_t ino, uint64_t after, cat_job_visit visit, void *arg)
{
	struct kv_bytes key, value;
	struct schema_parts parts;
	struct schema_key prefix;
	struct rows rows;
	int rc = 0;

	if (after == UINT64_MAX)
		return 0;
	schema_key_number(&prefix, SCHEMA_JOB_INODE, ino);
	rows_open(&rows, &prefix, KV_FORWARD);
	schema_key_pair(&rows.from, SCHEMA_JOB_INODE, ino, after + 1);
	rows.batch = 16;
	while (rc == 0) {
		struct cat_job job;

		rc = rows_next(&rows, txn, &key, &value);
		if (rc == 0)
			rc = cat_check_row(key, schema_parse(key, &parts));
		if (rc == 0)
			rc = cat_job_get(txn, parts.second, &job);
		if (rc == 0) {
			rc = visit(arg, &job);
			cat_job_clear(&job);
		}
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

struct jobs_of {
	uint64_t ino, after;
	cat_job_visit visit;
	void *arg;
};

static int jobs_of_closure(struct cat_txn *txn, void *arg)
{
	const struct jobs_of *of = arg;

	return cat_jobs_of(txn, of->ino, of->after, of->visit, of->arg);
}

int catalog_jobs_of(struct catalog *catalog, uint64_t ino, uint64_t after, cat_job_visit visit, void *arg)
{
	struct jobs_of of = {.ino = ino, .after = after, .visit = visit, .arg = arg};

	return catalog_view(catalog, jobs_of_closure, &of);
}

static int update_closure(struct cat_txn *txn, void *arg)
{
	struct cat_job job = *(const struct cat_job *)arg, before;
	int rc = cat_job_get(txn, job.seq, &before);

	if (rc < 0)
		return rc;
	cat_job_clear(&before);
	return cat_job_put(txn, &job);
}

int catalog_job_update(struct catalog *catalog, const struct cat_job *job)
{
	struct cat_job copy = *job;

	return catalog_update(catalog, update_closure, &copy);
}

static int done_closure(struct cat_txn *txn, void *arg)
{
	return cat_job_delete(txn, *(const uint64_t *)arg);
}

int catalog_job_done(struct catalog *catalog, uint64_t seq)
{
	return catalog_update(catalog, done_closure, &seq);
}

/* --- recovery ----------------------------------------------------------------------------------- */

static int take_number(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct numbers *numbers = arg;
	struct schema_parts parts;
	int rc = cat_check_row(key, schema_parse(key, &parts));

	(void)value;
	if (rc < 0)
		return rc;
	if (numbers->count && numbers->cells[numbers->count - 1] == parts.number)
		return 0; /* an inode's jobs lie side by side */
	if (ARRAY_ROOM(numbers->cells, numbers->cap, numbers->count))
		return -ENOMEM;
	numbers->cells[numbers->count++] = parts.number;
	return 0;
}

static int scan_numbers(struct cat_txn *txn, enum schema_tag tag, struct numbers *numbers)
{
	struct schema_key from, to;

	schema_key_begin(&from, tag);
	schema_key_after(&to, &from);
	return kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, take_number, numbers);
}

static int number_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct each {
	cat_inode_visit visit;
	void *arg;
};

static int visit_inodes(struct cat_txn *txn, const struct each *each, const struct numbers *numbers)
{
	struct cat_inode inode;

	for (size_t i = 0; i < numbers->count; i++) {
		int rc;

		if (i > 0 && numbers->cells[i] == numbers->cells[i - 1])
			continue;
		rc = cat_inode_get(txn, numbers->cells[i], &inode);
		if (rc == -ENOENT) /* a mark without an inode: catalog_check names it, recovery has nothing to save */
			continue;
		if (rc == 0 && (inode.flags & CAT_DIRTY || inode.nlink == 0))
			rc = each->visit(each->arg, &inode);
		if (rc)
			return rc;
	}
	return 0;
}

static int each_dirty_closure(struct cat_txn *txn, void *arg)
{
	struct numbers numbers = {0};
	int rc = scan_numbers(txn, SCHEMA_DIRTY, &numbers);

	if (rc == 0)
		rc = scan_numbers(txn, SCHEMA_JOB_INODE, &numbers);
	if (rc == 0)
		rc = scan_numbers(txn, SCHEMA_EXTENT, &numbers);
	if (rc == 0 && numbers.count) {
		qsort(numbers.cells, numbers.count, sizeof(*numbers.cells), number_compare);
		rc = visit_inodes(txn, arg, &numbers);
	}
	free(numbers.cells);
	return rc;
}

int catalog_each_dirty(struct catalog *catalog, cat_inode_visit visit, void *arg)
{
	struct each each = {.visit = visit, .arg = arg};

	return catalog_view(catalog, each_dirty_closure, &each);
}
