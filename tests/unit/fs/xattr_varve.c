/* Unit tests of fs/xattr_varve.c: what is known of a file and of its versions. */
#include "fs/xattr_varve.h"
#include "tests/unit/fs/versions_fixture.h"

#define ROOT CAT_ROOT_INO

static struct world world;

static void setup(void)
{
	world_open(&world);
}

static void teardown(void)
{
	world_close(&world);
}

TestSuite(xattr_varve, .init = setup, .fini = teardown);

static int get(uint64_t ino, uint64_t seq, const char *name, struct buf *ret_value)
{
	AUTO_BUF full = BUF_INIT;

	buf_reset(ret_value);
	buf_addf(&full, XATTR_VARVE_PREFIX "%s", name);
	return xattr_varve_get(world.catalog, ino, seq, full.data, ret_value);
}

static void expect(uint64_t ino, uint64_t seq, const char *name, const char *expected)
{
	AUTO_BUF value = BUF_INIT;
	int ret = get(ino, seq, name, &value);

	if (expected)
		cr_assert_eq(ret, 0, "%s: %s", name, strerror(-ret));
	else
		cr_assert_eq(ret, -ENODATA, "%s: %s", name, value.data);
	if (expected)
		cr_assert_str_eq(value.data, expected, "%s: %s", name, value.data);
}

static int take_job(void *arg, struct cat_job *job)
{
	*(uint64_t *)arg = job->seq;
	return 0;
}

/* The newest job's version arrived in the store. */
static void store(const struct cat_version *version)
{
	struct cat_copy copy = {
		.ino = version->ino,
		.seq = version->seq,
		.key = "dir/f.txt",
		.native_id = "native-7",
		.etag = "e1",
		.storage_class = "STANDARD",
	};
	uint64_t job = 0;

	cr_assert_eq(catalog_jobs(world.catalog, 0, 100, take_job, &job), 0);
	cr_assert_eq(catalog_stored(world.catalog, job, &copy, NULL), 0);
}

Test(xattr_varve, a_new_version_is_local_and_nowhere)
{
	struct cat_version version = make_file(&world, ROOT, "f.txt", 1);
	char seq[24];

	(void)snprintf(seq, sizeof(seq), "%llu", (unsigned long long)version.seq);
	expect(version.ino, 0, "state", "local");
	expect(version.ino, 0, "seq", seq);
	expect(version.ino, 0, "version_id", seq);
	expect(version.ino, version.seq, "state", "local");
	expect(version.ino, version.seq, "checksum", "crc32c:00abcdef");
	expect(version.ino, version.seq, "author", "1000");
	expect(version.ino, version.seq, "origin", "close");
	expect(version.ino, version.seq, "op", "create");
	expect(version.ino, version.seq, "is_current", "1");
	expect(version.ino, version.seq, "mtime", "2001-09-09T01:46:40.000000000Z");
	expect(version.ino, version.seq, "etag", NULL);
	expect(version.ino, version.seq, "key", NULL);
	expect(version.ino, version.seq, "backend", NULL);
	expect(version.ino, version.seq, "prev", NULL);
	expect(version.ino, version.seq, "next", NULL);
	expect(version.ino, version.seq, "deleted_at", NULL);
	expect(version.ino, version.seq, "no-such-thing", NULL);
}

Test(xattr_varve, a_stored_version_knows_its_place)
{
	struct cat_version version = make_file(&world, ROOT, "f.txt", 1);

	store(&version);
	expect(version.ino, 0, "state", "stored");
	expect(version.ino, 0, "version_id", "native-7");
	expect(version.ino, version.seq, "etag", "e1");
	expect(version.ino, version.seq, "key", "dir/f.txt");
	expect(version.ino, version.seq, "backend", "0");
	cr_assert_eq(catalog_setting_put(world.catalog, XATTR_VARVE_BACKEND "0", "s3://bucket/prefix"), 0);
	expect(version.ino, version.seq, "backend", "s3://bucket/prefix");
	expect(version.ino, version.seq, "storage_class", "STANDARD");
}

Test(xattr_varve, changes_without_a_version_are_local)
{
	struct cat_version version = make_file(&world, ROOT, "f", 1);
	struct cat_extent extent = {0};

	store(&version);
	cr_assert_eq(catalog_mark_dirty(world.catalog, version.ino, &extent), 0);
	expect(version.ino, 0, "state", "local");
	expect(version.ino, version.seq, "state", "stored");
}

Test(xattr_varve, a_file_without_version_has_only_a_state)
{
	uint64_t ino = make(&world, ROOT, "f", S_IFREG | 0644).ino;

	expect(ino, 0, "state", "local");
	expect(ino, 0, "seq", NULL);
	expect(make_dir(&world, ROOT, "d"), 0, "state", NULL);
	expect(999999, 0, "state", NULL);
}

Test(xattr_varve, neighbours_are_entries_of_the_name)
{
	struct cat_version first = make_file(&world, ROOT, "f.txt", 1);
	struct cat_version second = commit(&world, first.ino, 2);
	AUTO_BUF prev = BUF_INIT, next = BUF_INIT, path = BUF_INIT;

	cr_assert_eq(get(second.ino, second.seq, "prev", &prev), 0);
	cr_assert_eq(get(first.ino, first.seq, "next", &next), 0);
	buf_addf(&path, "f.txt/%s", prev.data);
	cr_assert_eq(walked(&world, ROOT, path.data).stat.st_size, 1);
	buf_reset(&path);
	buf_addf(&path, "f.txt/%s", next.data);
	cr_assert_eq(walked(&world, ROOT, path.data).stat.st_size, 2);
	expect(first.ino, first.seq, "is_current", "0");
	expect(second.ino, second.seq, "is_current", "1");
	expect(second.ino, second.seq, "op", "write");
}

static void expect_of(const char *path, const char *name, const char *expected)
{
	struct versions_entry entry = walked(&world, ROOT, path);
	AUTO_BUF value = BUF_INIT;
	int ret = versions_getxattr(world.versions, entry.nodeid, name, &value);

	cr_assert_eq(ret, expected ? 0 : -ENODATA, "%s %s: %s", path, name, value.data);
	if (expected && *expected)
		cr_assert_str_eq(value.data, expected, "%s %s: %s", path, name, value.data);
}

Test(xattr_varve, a_version_knows_how_its_time_ended)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");
	struct cat_version version = make_file(&world, ROOT, "gone", 1);

	make_file(&world, ROOT, "moved", 1);
	drop(&world, ROOT, "gone");
	move_to(&world, ROOT, "moved", sub, "there");
	expect_of("gone/-1", "user.varve.deleted_at", "");
	expect_of("gone/-1", "user.varve.renamed_to", NULL);
	expect_of("gone/-1", "user.varve.is_current", "0");
	expect_of("moved/-1", "user.varve.renamed_to", "/sub/there");
	expect_of("moved/-1", "user.varve.deleted_at", NULL);
	expect_of("moved/-1", "user.varve.is_current", "0");
	move_to(&world, sub, "there", ROOT, "again");
	expect_of("again/-1", "user.varve.op", "rename");
	expect_of("again/-1", "user.varve.is_current", "1");
	move_to(&world, ROOT, "again", ROOT, "last");
	expect_of("again/-1", "user.varve.renamed_to", "last");
	expect(version.ino, version.seq, "deleted_at", NULL);
}

Test(xattr_varve, a_new_version_is_the_old_one_s_next)
{
	struct cat_version first = make_file(&world, ROOT, "f", 1);
	struct versions_entry entry = walked(&world, ROOT, "f/-1");
	AUTO_BUF value = BUF_INIT;

	cr_assert_eq(versions_getxattr(world.versions, entry.nodeid, "user.varve.next", &value), -ENODATA);
	commit(&world, first.ino, 2);
	cr_assert_eq(versions_getxattr(world.versions, entry.nodeid, "user.varve.next", &value), 0);
}
