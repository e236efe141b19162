/* gone.c - copies that the store has no more, ids that say nothing, walks over everything. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

TestSuite(gone, .init = setup, .fini = teardown);

static struct cat_version stored(uint64_t ino, uint64_t size)
{
	struct cat_version version = commit(ino, size);

	finish_jobs();
	return version;
}

static struct cat_gone_effect lose(uint64_t ino, uint64_t seq, const char *key)
{
	struct cat_gone_effect effect;
	char id[32];
	struct cat_gone gone = {.ino = ino, .seq = seq, .key = key, .native_id = id, .etag = id};

	(void)snprintf(id, sizeof(id), "v%" PRIu64, seq);
	cr_assert_eq(catalog_gone(catalog, &gone, &effect), 0);
	(void)assert_clean();
	return effect;
}

struct version_get {
	uint64_t ino, seq;
	struct cat_version version;
};

static int get_version(struct cat_txn *txn, void *arg)
{
	struct version_get *get = arg;

	return cat_version_get(txn, get->ino, get->seq, &get->version);
}

static enum cat_state state_of(uint64_t ino, uint64_t seq)
{
	struct version_get get = {.ino = ino, .seq = seq};

	cr_assert_eq(catalog_view(catalog, get_version, &get), 0);
	return get.version.state;
}

Test(gone, a_version_without_copies_expires_and_no_other)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version first = stored(ino, 1), second = stored(ino, 2);
	struct cat_gone_effect effect = lose(ino, first.seq, "a");

	cr_assert(effect.dropped && effect.expired);
	cr_assert_eq(effect.parent, 0, "no name shows it");
	cr_assert_eq(state_of(ino, first.seq), CAT_EXPIRED);
	cr_assert_eq(state_of(ino, second.seq), CAT_STORED);
	effect = lose(ino, first.seq, "a");
	cr_assert(!effect.dropped && !effect.expired, "once");
}

static int add_copy(struct cat_txn *txn, void *arg)
{
	return cat_copy_add(txn, arg);
}

Test(gone, a_version_with_another_copy_stays)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = stored(ino, 1);
	struct cat_copy copy = {
		.ino = ino, .seq = version.seq, .state = CAT_STORED, .key = (char *)"b", .etag = (char *)"e"};

	cr_assert_eq(catalog_update(catalog, add_copy, &copy), 0);
	cr_assert(lose(ino, version.seq, "a").dropped);
	cr_assert_eq(state_of(ino, version.seq), CAT_STORED);
}

Test(gone, the_name_that_showed_it_is_told_and_vanishes_with_the_next_listing)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = stored(ino, 1);
	struct cat_gone_effect effect = lose(ino, version.seq, "a");
	struct cat_adopt nothing = {.dir = ROOT};

	cr_assert_eq(effect.parent, ROOT);
	cr_assert_str_eq(effect.name, "a");
	cr_assert_eq(ino_of(ROOT, "a"), ino);
	nothing.listed_at = clock_wall() + NS_PER_SEC;
	cr_assert_eq(catalog_adopt(catalog, &nothing), 0);
	cr_assert_eq(ino_of(ROOT, "a"), 0);
}

Test(gone, another_object_at_the_same_place_is_not_meant)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = stored(ino, 1);
	struct cat_gone gone = {.ino = ino, .seq = version.seq, .key = "a", .native_id = "other", .etag = "other"};
	struct cat_gone_effect effect;

	cr_assert_eq(catalog_gone(catalog, &gone, &effect), 0);
	cr_assert(!effect.dropped);
	cr_assert_eq(state_of(ino, version.seq), CAT_STORED);
}

Test(gone, only_an_id_of_its_own_tells_an_object)
{
	cr_assert_str_eq(cat_object_id("v1", "e"), "v1");
	cr_assert_str_eq(cat_object_id("null", "e"), "e");
	cr_assert_str_eq(cat_object_id(NULL, "e"), "e");
	cr_assert_str_eq(cat_object_id(NULL, NULL), "");
	cr_assert(cat_same_object("v1", "e", "v1", "f"));
	cr_assert(!cat_same_object("v1", "e", "v2", "e"));
	cr_assert(!cat_same_object("null", "e", "null", "f"));
	cr_assert(cat_same_object("null", "e", "null", "e"));
	cr_assert(cat_same_object(NULL, "e", "null", "e"));
	cr_assert(!cat_same_object(NULL, NULL, "v1", NULL));
}

static int count_copy(void *arg, const struct cat_copy *copy)
{
	(void)copy;
	++*(unsigned *)arg;
	return 0;
}

static int count_key(void *arg, const char *key, const struct cat_key *record)
{
	(void)key;
	(void)record;
	++*(unsigned *)arg;
	return 0;
}

Test(gone, walks_meet_everything_once_in_batches_of_any_size)
{
	for (int i = 0; i < 7; i++) {
		char name[16];
		uint64_t ino;

		(void)snprintf(name, sizeof(name), "f%d", i);
		ino = make_file(ROOT, name);
		stored(ino, 1);
		stored(ino, 2);
	}
	for (size_t max = 1; max < 20; max += 3) {
		struct cat_cursor copies = {0}, keys = {0};
		unsigned copy_count = 0, key_count = 0;

		while (!copies.done)
			cr_assert_eq(catalog_copies(catalog, &copies, max, count_copy, &copy_count), 0);
		while (!keys.done)
			cr_assert_eq(catalog_keys(catalog, &keys, max, count_key, &key_count), 0);
		cr_assert_eq(copy_count, 14);
		cr_assert_eq(key_count, 7);
	}
}

/* --- a directory's own object ----------------------------------------------------------------------- */

static int put_marker(struct cat_txn *txn, void *arg)
{
	struct cat_key record = {.kind = CAT_KEY_DIRECTORY, .ino = *(const uint64_t *)arg, .etag = (char *)"e"};

	return cat_key_put(txn, "d/", &record);
}

static int find_marker(struct cat_txn *txn, void *arg)
{
	struct cat_key record;
	int rc = cat_key_get(txn, 0, "d/", &record);

	(void)arg;
	if (rc == 0)
		cat_key_clear(&record);
	return rc;
}

static bool has_marker(void)
{
	return catalog_view(catalog, find_marker, NULL) == 0;
}

Test(gone, the_object_of_a_directory_is_forgotten_unless_something_happened_since)
{
	uint64_t dir = make_dir(ROOT, "d");
	struct cat_inode inode = inode_of(dir);

	cr_assert_eq(catalog_update(catalog, put_marker, &dir), 0);
	cr_assert_eq(catalog_marker_gone(catalog, dir, INT64_MAX), 0);
	cr_assert(has_marker(), "a job is pending");
	finish_jobs();
	cr_assert_eq(catalog_update(catalog, put_marker, &dir), 0);
	cr_assert_eq(catalog_marker_gone(catalog, dir, inode.ctime), 0);
	cr_assert(has_marker(), "it has changed since it was looked for");
	cr_assert_eq(catalog_marker_gone(catalog, dir, INT64_MAX), 0);
	cr_assert_not(has_marker());
	cr_assert_eq(catalog_marker_gone(catalog, dir, INT64_MAX), 0, "once more");
	(void)assert_clean();
}
