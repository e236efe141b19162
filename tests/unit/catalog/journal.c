/* journal.c - jobs in order, their own notes kept, and what recovery finds; on the real engine, across reopening. */
#include "catalog_fixture.h"

#include "catalog/catalog_internal.h"

TestSuite(journal, .init = setup, .fini = teardown);

struct taken {
	uint64_t seqs[32];
	size_t count, stop;
};

static int take_seq(void *arg, struct cat_job *job)
{
	struct taken *taken = arg;

	taken->seqs[taken->count++] = job->seq;
	return taken->count == taken->stop ? 5 : 0;
}

Test(journal, jobs_come_in_order_of_commit_and_by_pages)
{
	struct taken all = {0}, page = {0}, stopped = {.stop = 1};

	for (int i = 0; i < 5; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "d%d", i);
		make_dir(ROOT, name);
	}
	cr_assert_eq(catalog_jobs(catalog, 0, 100, take_seq, &all), 0);
	cr_assert_eq(all.count, 5);
	for (size_t i = 1; i < all.count; i++)
		cr_assert_gt(all.seqs[i], all.seqs[i - 1]);
	cr_assert_eq(catalog_jobs(catalog, all.seqs[1], 2, take_seq, &page), 0);
	cr_assert_eq(page.count, 2);
	cr_assert_eq(page.seqs[0], all.seqs[2]);
	cr_assert_eq(catalog_jobs(catalog, 0, 100, take_seq, &stopped), 5);
	cr_assert_eq(stopped.count, 1);
	cr_assert_eq(catalog_jobs(catalog, UINT64_MAX, 100, take_seq, &stopped), 0);
}

Test(journal, jobs_of_one_inode_come_in_order_and_no_others)
{
	uint64_t first = make_file(ROOT, "first"), second = make_file(ROOT, "second");
	struct taken all = {0}, later = {0}, stopped = {.stop = 1};

	for (uint64_t size = 1; size <= 20; size++) { /* more than are read at once */
		if (size <= 8)
			commit(first, size);
		commit(second, size);
	}
	cr_assert_eq(catalog_jobs_of(catalog, first, 0, take_seq, &all), 0);
	cr_assert_eq(all.count, 8);
	for (size_t i = 1; i < all.count; i++)
		cr_assert_gt(all.seqs[i], all.seqs[i - 1]);
	cr_assert_eq(catalog_jobs_of(catalog, first, all.seqs[5], take_seq, &later), 0);
	cr_assert_eq(later.count, 2);
	cr_assert_eq(later.seqs[0], all.seqs[6]);
	cr_assert_eq(catalog_jobs_of(catalog, first, 0, take_seq, &stopped), 5);
	cr_assert_eq(catalog_jobs_of(catalog, first, UINT64_MAX, take_seq, &stopped), 0);
	later.count = 0;
	cr_assert_eq(catalog_jobs_of(catalog, second, all.seqs[0], take_seq, &later), 0);
	cr_assert_eq(later.count, 20);
}

Test(journal, worker_keeps_its_notes_across_a_restart)
{
	struct cat_job job;

	make_dir(ROOT, "d");
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	job.stage = 3;
	job.attempts = 7;
	job.next_try_ns = 99;
	job.note = strdup("upload-id");
	job.key = strdup("d/moved");
	cr_assert_eq(catalog_job_update(catalog, &job), 0);
	cat_job_clear(&job);
	reopen();
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert(job.stage == 3 && job.attempts == 7 && job.next_try_ns == 99);
	cr_assert_str_eq(job.note, "upload-id");
	free(job.key);
	job.key = NULL; /* its index must follow */
	cr_assert_eq(catalog_job_update(catalog, &job), 0);
	(void)assert_clean();
	cr_assert_eq(catalog_job_done(catalog, job.seq), 0);
	cr_assert_eq(catalog_job_done(catalog, job.seq), -ENOENT);
	cr_assert_eq(catalog_job_update(catalog, &job), -ENOENT, "a finished job does not come back");
	cat_job_clear(&job);
	assert_jobs("");
}

Test(journal, figures_count_the_jobs)
{
	struct cat_figures figures;

	make_dir(ROOT, "d");
	make_dir(ROOT, "e");
	catalog_figures(catalog, &figures);
	cr_assert_eq(figures.jobs, 2);
	reopen();
	catalog_figures(catalog, &figures);
	cr_assert_eq(figures.jobs, 2);
	finish_jobs();
	catalog_figures(catalog, &figures);
	cr_assert_eq(figures.jobs, 0);
}

static int inode_word(void *arg, const struct cat_inode *inode)
{
	buf_addf(arg, "%" PRIu64 "%s%s ", inode->ino, inode->flags & CAT_DIRTY ? "d" : "", inode->nlink ? "" : "x");
	return 0;
}

Test(journal, recovery_finds_dirty_files_and_orphans_once)
{
	uint64_t clean = make_file(ROOT, "clean"), dirty = make_file(ROOT, "dirty"), orphan = make_file(ROOT, "orphan"),
		 cached = make_file(ROOT, "cached");
	struct cat_extent extent = {0};
	struct buf text = BUF_INIT, wanted = BUF_INIT;

	commit(clean, 1);
	cr_assert_eq(catalog_mark_dirty(catalog, dirty, &extent), 0);
	commit(orphan, 1);
	cr_assert_eq(catalog_mark_dirty(catalog, orphan, &extent), 0);
	cr_assert_eq(catalog_mark_dirty(catalog, cached, &extent), 0);
	cr_assert_eq(remove_file(ROOT, "orphan"), 0);
	cr_assert_eq(remove_file(ROOT, "cached"), 0);
	reopen();
	cr_assert_eq(catalog_each_dirty(catalog, inode_word, &text), 0);
	buf_addf(&wanted, "%" PRIu64 "d %" PRIu64 "dx %" PRIu64 "dx ", dirty, orphan, cached);
	cr_assert_str_eq(text.data, wanted.data);
	buf_free(&text);
	buf_free(&wanted);
}

Test(journal, settings_and_store_id_are_kept)
{
	uint8_t id[CAT_STORE_ID_SIZE] = {1, 2, 3}, read[CAT_STORE_ID_SIZE], zeros[CAT_STORE_ID_SIZE] = {0};
	char *value;

	cr_assert_eq(catalog_store_id(catalog, read), 0);
	cr_assert_arr_eq(read, zeros, sizeof(zeros));
	cr_assert_eq(catalog_set_store_id(catalog, id), 0);
	cr_assert_eq(catalog_setting_put(catalog, "lease.epoch", "12"), 0);
	reopen();
	cr_assert_eq(catalog_store_id(catalog, read), 0);
	cr_assert_arr_eq(read, id, sizeof(id));
	cr_assert_eq(catalog_setting_get(catalog, "lease.epoch", &value), 0);
	cr_assert_str_eq(value, "12");
	free(value);
	cr_assert_eq(catalog_setting_get(catalog, "none", &value), -ENOENT);
	cr_assert_eq(catalog_setting_put(catalog, "lease.epoch", NULL), 0);
	cr_assert_eq(catalog_setting_get(catalog, "lease.epoch", &value), -ENOENT);
	cr_assert_eq(catalog_setting_put(catalog, "", "x"), -EINVAL);
}

Test(journal, one_process_has_the_catalog)
{
	struct catalog_options options = {0};
	struct catalog *second;

	cr_assert_eq(catalog_open(catalog_dir, &options, &second), -EBUSY);
}

static int newer_schema(struct cat_txn *txn, void *arg)
{
	struct schema_key key;
	struct buf value = BUF_INIT;
	int rc;

	(void)arg;
	schema_key_meta(&key, SCHEMA_META_SCHEMA);
	buf_add_u8(&value, 1);
	buf_add_u32(&value, SCHEMA_VERSION + 1);
	buf_add_u32(&value, SCHEMA_VERSION + 1);
	rc = cat_put(txn, &key, &value);
	buf_free(&value);
	return rc;
}

Test(newer_schema, is_refused, .init = setup)
{
	struct catalog_options options = {0};

	cr_assert_eq(catalog_update(catalog, newer_schema, NULL), 0);
	catalog_close(catalog);
	cr_assert_eq(catalog_open(catalog_dir, &options, &catalog), -EPROTO);
	free_temp_dir(catalog_dir);
}

Test(journal, read_only_catalog_reads_and_refuses_changes)
{
	struct catalog_options options = {.read_only = true};
	struct cat_create request = {.parent = ROOT, .name = "b", .mode = S_IFREG};
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode inode;

	catalog_close(catalog);
	cr_assert_eq(catalog_open(catalog_dir, &options, &catalog), 0);
	cr_assert_eq(ino_of(ROOT, "a"), ino);
	cr_assert_eq(catalog_create(catalog, &request, &inode), -EROFS);
}
