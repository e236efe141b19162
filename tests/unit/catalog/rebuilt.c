/* rebuilt.c - a catalog from a lost machine: only its portable records, made whole again. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

#include "catalog/catalog_internal.h"

TestSuite(rebuilt, .init = setup, .fini = teardown);

/* Drops all that never leaves a machine, as if the rest had been imported. */
static int lose_closure(struct cat_txn *txn, void *arg)
{
	struct kv_bytes key, value;
	struct schema_key all, victim;
	struct rows rows;
	int rc;

	(void)arg;
	schema_key_begin(&all, SCHEMA_META);
	all.len = 4;
	rows_open(&rows, &all, KV_FORWARD);
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		if (schema_is_portable(key) || ((const uint8_t *)key.data)[4] == SCHEMA_META)
			continue;
		victim.len = 0;
		schema_key_bytes(&victim, key.data, key.len);
		rc = cat_delete(txn, &victim);
		if (rc < 0)
			break;
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

static void lose_and_rebuild(void)
{
	cr_assert_eq(catalog_update(catalog, lose_closure, NULL), 0);
	reopen();
	assert_jobs("");
	cr_assert_eq(catalog_rebuilt(catalog), 0);
	(void)assert_clean();
}

#define assert_one_job(...)                                                                                            \
	do {                                                                                                           \
		char wanted_[128];                                                                                     \
		(void)snprintf(wanted_, sizeof(wanted_), __VA_ARGS__);                                                 \
		assert_jobs(wanted_);                                                                                  \
	} while (0)

Test(rebuilt, file_shows_its_newest_stored_version)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	commit(ino, 2);
	finish_jobs();
	commit(ino, 3);
	cr_assert_eq(catalog_flush(catalog, ino, 4, 5, NULL), 0);
	lose_and_rebuild();
	cr_assert_eq(inode_of(ino).size, 2);
	cr_assert_not(inode_of(ino).flags & (CAT_DIRTY | CAT_FLUSHED));
	assert_history(ROOT, "a", "1 2* 3");
	assert_jobs("");
}

Test(rebuilt, file_that_never_arrived_is_empty)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	lose_and_rebuild();
	cr_assert_eq(inode_of(ino).size, 0);
	cr_assert_eq(inode_of(ino).version, 0);
}

Test(rebuilt, unfinished_rename_is_taken_up_again)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	lose_and_rebuild();
	assert_one_job("place %" PRIu64 " d/a; ", ino);
	cr_assert_eq(catalog_rebuilt(catalog), 0);
	assert_one_job("place %" PRIu64 " d/a; ", ino);
}

Test(rebuilt, unfinished_removal_is_taken_up_again)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	lose_and_rebuild();
	assert_one_job("place %" PRIu64 " a; ", ino);
}

/* The upload of the inode arrives at the key. */
static void arrive_at(uint64_t ino, uint64_t seq, const char *key)
{
	struct cat_copy copy = {.ino = ino, .seq = seq, .key = (char *)key, .etag = (char *)key};
	struct cat_job job;

	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, NULL), 0);
	cat_job_clear(&job);
}

Test(rebuilt, what_lies_only_where_versions_are_kept_stays_there)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 1);

	cr_assert_eq(catalog_conflict(catalog, ino, version.seq), 0);
	arrive_at(ino, version.seq, ".varve/versions/x/1");
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	finish_jobs();
	lose_and_rebuild();
	assert_jobs("");
}

/* Others' object at its key has taken the name, or will when it is listed; until then the file is what it was. */
Test(rebuilt, conflict_that_still_has_the_name_is_the_file)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 1);

	cr_assert_eq(catalog_conflict(catalog, ino, version.seq), 0);
	arrive_at(ino, version.seq, ".varve/versions/x/1");
	finish_jobs();
	lose_and_rebuild();
	cr_assert_eq(inode_of(ino).version, version.seq);
	cr_assert_eq(inode_of(ino).size, 1);
}

Test(rebuilt, expired_version_makes_no_older_one_the_newest)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_gone_effect effect;
	struct cat_version version;
	struct cat_gone gone = {.ino = ino, .key = "a", .etag = "a"};

	commit(ino, 1);
	finish_jobs();
	version = commit(ino, 2);
	arrive_at(ino, version.seq, "a");
	gone.seq = version.seq;
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	finish_jobs();
	cr_assert_eq(catalog_gone(catalog, &gone, &effect), 0);
	cr_assert(effect.expired);
	lose_and_rebuild();
	cr_assert_eq(inode_of(ino).version, version.seq);
}

Test(rebuilt, what_was_never_placed_is_placed)
{
	uint64_t full = make_dir(ROOT, "full"), empty = make_dir(ROOT, "empty"),
		 symlink = make(full, "s", S_IFLNK | 0777);

	lose_and_rebuild();
	assert_one_job("place %" PRIu64 "; place %" PRIu64 "; ", empty, symlink);
}

Test(rebuilt, failure_anywhere_leaves_it_to_be_repeated)
{
	uint64_t ino = make_file(ROOT, "a");
	long nth;

	commit(ino, 1);
	finish_jobs();
	commit(ino, 2);
	make_dir(ROOT, "d");
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	cr_assert_eq(catalog_update(catalog, lose_closure, NULL), 0);
	reopen();
	for (nth = 0; nth < 1000; nth++) {
		int rc;

		kv_memory_fail_at(nth);
		rc = catalog_rebuilt(catalog);
		kv_memory_fail_at(-1);
		if (rc == 0)
			break;
		cr_assert_eq(rc, -EIO);
	}
	cr_assert(nth > 10 && nth < 1000);
	cr_assert_eq(inode_of(ino).size, 1);
}
