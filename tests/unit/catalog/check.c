/* check.c - every kind of contradiction is found, named, and none makes the check or the readers crash. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

#include "catalog/catalog_internal.h"

struct found {
	struct buf kinds;
};

static void note_kind(void *arg, const struct cat_problem *problem)
{
	struct found *found = arg;

	buf_addf(&found->kinds, "%s; ", problem->kind);
}

static void end(void)
{
	catalog_close(catalog);
	free_temp_dir(catalog_dir);
	kv_memory_reset();
}

TestSuite(check, .init = setup, .fini = end);

#define DIR_INO (ROOT + 1)
#define FILE_INO (ROOT + 2)
#define OTHER_INO (ROOT + 3)

/* A directory with a stored file in it, an unstored one, a deleted one, and a symlink. */
static void populate(void)
{
	uint64_t dir = make_dir(ROOT, "d"), file = make_file(dir, "a"), other = make_file(ROOT, "b"), gone;
	struct cat_extent extent = {0};

	cr_assert(dir == DIR_INO && file == FILE_INO && other == OTHER_INO);
	commit(file, 1);
	gone = make_file(ROOT, "gone");
	commit(gone, 2);
	finish_jobs();
	cr_assert_eq(remove_file(ROOT, "gone"), 0);
	make(ROOT, "s", S_IFLNK | 0777);
	commit(other, 3);
	cr_assert_eq(catalog_mark_dirty(catalog, other, &extent), 0);
	cr_assert_eq(catalog_xattr_set(catalog, file, "user.x", "1", 1, CAT_XATTR_SET), 0);
}

static void assert_found(cat_closure damage, const char *kind)
{
	struct found found = {.kinds = BUF_INIT};
	struct cat_check check;

	populate();
	(void)assert_clean();
	cr_assert_eq(catalog_update(catalog, damage, NULL), 0);
	cr_assert_eq(catalog_check(catalog, note_kind, &found, &check), 0);
	cr_assert_gt(check.problems, 0);
	cr_assert_not_null(strstr(found.kinds.data, kind), "%s: found only %s", kind, found.kinds.data);
	buf_free(&found.kinds);
}

Test(check, counts_what_there_is)
{
	struct cat_check check;

	populate();
	check = assert_clean();
	cr_assert_eq(check.inodes, 6);
	cr_assert_eq(check.names, 4);
	cr_assert_eq(check.past_names, 1);
	cr_assert_eq(check.versions, 3);
	cr_assert_eq(check.copies, 2);
	cr_assert_eq(check.jobs, 3);
}

static int delete_number(struct cat_txn *txn, enum schema_tag tag, uint64_t number)
{
	struct schema_key key;

	schema_key_number(&key, tag, number);
	return cat_delete(txn, &key);
}

static int change_inode(struct cat_txn *txn, uint64_t ino, void (*change)(struct cat_inode *inode))
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc == 0) {
		change(&inode);
		rc = cat_inode_put(txn, &inode);
	}
	return rc;
}

/* The first row of a keyspace, deleted. */
static int delete_first(struct cat_txn *txn, enum schema_tag tag)
{
	struct kv_bytes key, value;
	struct schema_key prefix, first;
	struct rows rows;
	int rc;

	schema_key_begin(&prefix, tag);
	rows_open(&rows, &prefix, KV_FORWARD);
	rc = rows_next(&rows, txn, &key, &value);
	if (rc == 0) {
		first.len = 0;
		schema_key_bytes(&first, key.data, key.len);
		rc = cat_delete(txn, &first);
	}
	rows_close(&rows);
	return rc;
}

#define DAMAGE(test, kind, body)                                                                                       \
	static int test##_damage(struct cat_txn *txn, void *arg)                                                       \
	{                                                                                                              \
		(void)arg;                                                                                             \
		body;                                                                                                  \
	}                                                                                                              \
	Test(check, test)                                                                                              \
	{                                                                                                              \
		assert_found(test##_damage, kind);                                                                     \
	}

static void more_links(struct cat_inode *inode)
{
	inode->nlink++;
}

static void other_parent(struct cat_inode *inode)
{
	inode->parent = FILE_INO;
}

static void other_version(struct cat_inode *inode)
{
	inode->version += 3;
}

static void to_fifo(struct cat_inode *inode)
{
	inode->mode = S_IFIFO | 0600;
}

DAMAGE(finds_dangling_names, "dangling name", return delete_number(txn, SCHEMA_INODE, FILE_INO))
DAMAGE(finds_missing_root, "no root", return delete_number(txn, SCHEMA_INODE, ROOT))
DAMAGE(finds_names_in_no_directory, "name in no directory", return delete_number(txn, SCHEMA_INODE, DIR_INO))
DAMAGE(finds_link_counts_of_files, "link count", return change_inode(txn, FILE_INO, more_links))
DAMAGE(finds_link_counts_of_directories, "link count", return change_inode(txn, ROOT, more_links))
DAMAGE(finds_wrong_parents, "directory parent", return change_inode(txn, DIR_INO, other_parent))
DAMAGE(finds_wrong_types, "name type", return change_inode(txn, FILE_INO, to_fifo))
DAMAGE(finds_missing_current_versions, "missing current version", return change_inode(txn, FILE_INO, other_version))
DAMAGE(finds_names_without_cookie, "name without cookie", return delete_first(txn, SCHEMA_COOKIE))
DAMAGE(finds_names_without_link, "name without link", return delete_first(txn, SCHEMA_LINK))
DAMAGE(finds_cookies_without_name, "cookie without name", return delete_first(txn, SCHEMA_NAME))
DAMAGE(finds_links_without_name, "link without name", return delete_first(txn, SCHEMA_NAME))
DAMAGE(finds_dangling_past_names, "dangling past name", return delete_number(txn, SCHEMA_INODE, OTHER_INO + 1))
DAMAGE(finds_versions_without_copy, "version without copy", return delete_first(txn, SCHEMA_COPY))
DAMAGE(finds_copies_without_place, "copy without place", return delete_first(txn, SCHEMA_PLACE))
DAMAGE(finds_dangling_copies, "dangling copy", return delete_first(txn, SCHEMA_VERSION_RECORD))
DAMAGE(finds_keys_without_version, "key without version", return delete_first(txn, SCHEMA_VERSION_RECORD))
DAMAGE(finds_dangling_keys, "dangling key", return delete_number(txn, SCHEMA_INODE, FILE_INO))
DAMAGE(finds_jobs_missing_from_their_index, "job index", return delete_first(txn, SCHEMA_JOB_INODE))
DAMAGE(finds_jobs_missing_from_the_key_index, "job index", return delete_first(txn, SCHEMA_JOB_KEY))
DAMAGE(finds_index_rows_without_job, "job index", return delete_first(txn, SCHEMA_JOB))
DAMAGE(finds_dangling_jobs, "dangling job", return delete_number(txn, SCHEMA_INODE, OTHER_INO))
DAMAGE(finds_dangling_extents, "dangling extent", return delete_number(txn, SCHEMA_INODE, OTHER_INO))
DAMAGE(finds_unindexed_dirty_files, "dirty index", return delete_number(txn, SCHEMA_DIRTY, OTHER_INO))
DAMAGE(finds_records_without_inode, "record without inode", return delete_number(txn, SCHEMA_INODE, FILE_INO))

static int drop_upload(struct cat_txn *txn, void *arg)
{
	uint64_t *seq = arg;

	return cat_job_delete(txn, *seq);
}

Test(check, finds_local_versions_without_upload)
{
	struct found found = {.kinds = BUF_INIT};
	struct cat_check check;
	struct cat_job job;

	commit(make_file(ROOT, "a"), 1);
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(catalog_update(catalog, drop_upload, &job.seq), 0);
	cr_assert_eq(catalog_check(catalog, note_kind, &found, &check), 0);
	cr_assert_str_eq(found.kinds.data, "version without upload; ");
	buf_free(&found.kinds);
}

/* --- damaged records ---------------------------------------------------------------------------- */

struct damage {
	size_t row, change;
	size_t count; /* rows there are */
};

static int damage_row(struct cat_txn *txn, void *arg)
{
	struct damage *damage = arg;
	struct kv_bytes key, value;
	struct schema_key prefix, victim = {.len = 0};
	struct buf bytes = BUF_INIT;
	struct rows rows;
	int rc;

	schema_key_begin(&prefix, SCHEMA_META);
	prefix.len = 4; /* all keyspaces */
	rows_open(&rows, &prefix, KV_FORWARD);
	damage->count = 0;
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		if (damage->count++ != damage->row)
			continue;
		schema_key_bytes(&victim, key.data, key.len);
		buf_add(&bytes, value.data, value.len);
	}
	rows_close(&rows);
	if (!victim.len)
		return 0;
	if (bytes.len && damage->change % 2)
		bytes.len -= 1 + damage->change % bytes.len;
	else if (bytes.len)
		bytes.data[damage->change % bytes.len] ^= (char)0xa5;
	rc = cat_put(txn, &victim, &bytes);
	buf_free(&bytes);
	return rc;
}

static int ignore_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)arg;
	(void)name;
	(void)inode;
	return 0;
}

static int ignore_entry(void *arg, const struct cat_entry *entry)
{
	(void)arg;
	(void)entry;
	return 0;
}

static int ignore_job(void *arg, struct cat_job *job)
{
	(void)arg;
	(void)job;
	return 0;
}

static void assert_survived(int rc)
{
	cr_assert(rc == 0 || rc == -EBADMSG || rc == -ENOENT || rc == -EEXIST || rc == -ENOTDIR || rc == -EISDIR ||
			  rc == -ENOTEMPTY || rc == -EINVAL || rc == -ELOOP || rc == -EPERM,
		  "%d", rc);
}

static void use_everything(void)
{
	struct cat_readdir readdir = {.parent = ROOT, .max = 100, .with_inodes = true};
	struct cat_check check;
	struct buf out = BUF_INIT;

	assert_survived(catalog_check(catalog, NULL, NULL, &check));
	assert_survived(catalog_readdir(catalog, &readdir, ignore_name, NULL));
	assert_survived(catalog_history(catalog, DIR_INO, "a", ignore_entry, NULL));
	assert_survived(catalog_history(catalog, ROOT, "gone", ignore_entry, NULL));
	assert_survived(catalog_jobs(catalog, 0, 100, ignore_job, NULL));
	assert_survived(catalog_xattr_get(catalog, FILE_INO, "user.x", &out));
	assert_survived(move(ROOT, "b", DIR_INO, "a"));
	assert_survived(move(ROOT, "d", ROOT, "e"));
	assert_survived(remove_file(DIR_INO, "a"));
	buf_free(&out);
}

Test(check, damaged_bytes_anywhere_are_survived)
{
	struct damage damage = {.count = 1};
	int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);

	cr_assert(quiet >= 0 && dup2(quiet, STDERR_FILENO) >= 0); /* each damage is logged, thousands of times */
	for (damage.row = 0; damage.row < damage.count; damage.row++) {
		for (damage.change = 0; damage.change < 12; damage.change++) {
			populate();
			cr_assert_eq(catalog_update(catalog, damage_row, &damage), 0);
			use_everything();
			end();
			catalog = NULL;
			setup();
		}
	}
	cr_assert_gt(damage.row, 40);
}

/* The best of three checks of a file with so many versions that wait to be stored. */
static int64_t cost_of_waiting(const char *name, unsigned versions)
{
	uint64_t ino = make_file(ROOT, name);
	int64_t best = INT64_MAX;

	for (unsigned i = 0; i < versions; i++)
		commit(ino, i);
	for (int tries = 0; tries < 3; tries++) {
		int64_t start = cpu_ns();

		(void)assert_clean();
		best = cpu_ns() - start < best ? cpu_ns() - start : best;
	}
	cr_assert_eq(remove_file(ROOT, name), 0);
	return best;
}

Test(check, many_versions_that_wait_to_be_stored_cost_no_more_each)
{
	int64_t few, many;

	few = cost_of_waiting("few", 500);
	many = cost_of_waiting("many", 4000);
	cr_assert_lt(many, 32 * few, "%" PRId64 " against %" PRId64 " ns", many, few);
}
