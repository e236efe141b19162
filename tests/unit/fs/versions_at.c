/* Unit tests of fs/versions_at.c: who held a name at an instant, and with what content. */
#include "fs/versions_at.h"
#include "tests/unit/fs/versions_fixture.h"

#define ROOT CAT_ROOT_INO
#define DAY (INT64_C(86400) * NS_PER_SEC)

static struct world world;

static void setup(void)
{
	world_open(&world);
}

static void teardown(void)
{
	world_close(&world);
}

TestSuite(versions_at, .init = setup, .fini = teardown);

/* "name:seq " of each entry; and lookup must agree with the listing. */
static void expect_at(uint64_t dir, int64_t when, const char *expected)
{
	struct versions_at_list list;
	AUTO_BUF text = BUF_INIT;

	cr_assert_eq(versions_at_list(world.catalog, dir, when, &list), 0);
	for (size_t i = 0; i < list.count; i++) {
		const struct versions_at_entry *entry = &list.entries[i];
		const char *name = versions_at_name(&list, i);
		struct versions_at_entry found;

		buf_addf(&text, "%s:%llu ", name, (unsigned long long)entry->seq);
		cr_assert_eq(versions_at_lookup(world.catalog, dir, name, when, &found), 0, "%s", name);
		cr_assert_eq(found.ino, entry->ino);
		cr_assert_eq(found.seq, entry->seq);
		cr_assert_eq(found.type, entry->type);
	}
	cr_assert_str_eq(text.data, expected);
	versions_at_clear(&list);
}

static const char *text_of(struct buf *buf, const char *name, uint64_t seq)
{
	buf_addf(buf, "%s:%llu ", name, (unsigned long long)seq);
	return buf->data;
}

Test(versions_at, every_instant_has_its_version)
{
	struct cat_version versions[20];
	struct versions_at_entry entry;

	versions[0] = make_file(&world, ROOT, "f", 0);
	for (size_t i = 1; i < ARRAY_SIZE(versions); i++)
		versions[i] = commit(&world, versions[0].ino, i);
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		AUTO_BUF now = BUF_INIT;

		expect_at(ROOT, versions[i].commit_ns, text_of(&now, "f", versions[i].seq));
	}
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "f", versions[0].commit_ns - 1, &entry), -ENOENT,
		     "made, but never closed");
}

Test(versions_at, a_name_changes_hands_at_one_instant)
{
	struct cat_version first = make_file(&world, ROOT, "f", 1), second = make_file(&world, ROOT, "t", 2);
	struct cat_inode inode;
	AUTO_BUF before = BUF_INIT, after = BUF_INIT;
	int64_t moved;

	move_to(&world, ROOT, "t", ROOT, "f");
	cr_assert_eq(catalog_getattr(world.catalog, ROOT, &inode), 0);
	moved = inode.mtime;
	(void)text_of(&before, "f", first.seq);
	expect_at(ROOT, moved - 1, text_of(&before, "t", second.seq));
	expect_at(ROOT, moved, text_of(&after, "f", second.seq));
}

static int take_back(struct cat_txn *txn, void *arg)
{
	struct cat_version version = *(const struct cat_version *)arg;

	version.commit_ns -= DAY;
	return cat_version_put(txn, &version);
}

Test(versions_at, what_was_adopted_was_there_before)
{
	struct cat_found found = {
		.name = "theirs", .key = "theirs", .etag = "e", .size = 5, .modified_ns = clock_wall() - 2 * DAY};
	struct cat_adopt adopt = {.dir = ROOT,
				  .found = &found,
				  .count = 1,
				  .file_mode = 0644,
				  .dir_mode = 0755,
				  .listed_at = clock_wall()};
	struct cat_version ours = make_file(&world, ROOT, "ours", 1);
	struct versions_at_entry entry;

	cr_assert_eq(catalog_adopt(world.catalog, &adopt), 0);
	cr_assert_eq(catalog_update(world.catalog, take_back, &ours), 0);
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "theirs", clock_wall() - DAY, &entry), 0);
	cr_assert_neq(entry.seq, 0);
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "theirs", clock_wall() - 3 * DAY, &entry), -ENOENT);
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "ours", clock_wall() - DAY / 2, &entry), -ENOENT,
		     "the name is ours, and is younger");
}

static int suspect(struct cat_txn *txn, void *arg)
{
	struct cat_version version = *(const struct cat_version *)arg;

	version.origin = CAT_ORIGIN_SUSPECT;
	return cat_version_put(txn, &version);
}

Test(versions_at, versions_that_never_were_current_are_not_shown)
{
	struct cat_version first = make_file(&world, ROOT, "f", 1), second = commit(&world, first.ino, 2), third;
	AUTO_BUF expected = BUF_INIT;

	cr_assert_eq(catalog_update(world.catalog, suspect, &second), 0);
	third = commit(&world, first.ino, 3);
	expect_at(ROOT, third.commit_ns - 1, text_of(&expected, "f", first.seq));
}

/* Until others' object took the name. */
Test(versions_at, a_conflicting_version_is_what_was_there)
{
	struct cat_version first = make_file(&world, ROOT, "f", 1), second = commit(&world, first.ino, 2), third;
	AUTO_BUF expected = BUF_INIT;

	cr_assert_eq(catalog_conflict(world.catalog, first.ino, second.seq), 0);
	third = commit(&world, first.ino, 3);
	expect_at(ROOT, third.commit_ns - 1, text_of(&expected, "f", second.seq));
}

Test(versions_at, directories_found_later_were_not_there_before)
{
	struct cat_found found[] = {{.name = "old", .key = "old/", .directory = true},
				    {.name = "young", .key = "young/", .directory = true}};
	struct cat_adopt adopt = {.dir = ROOT, .found = found, .count = 1, .dir_mode = 0755, .listed_at = clock_wall()};
	struct versions_at_entry entry;
	int64_t before;

	cr_assert_eq(catalog_adopt(world.catalog, &adopt), 0);
	before = clock_wall();
	adopt.listed_at = before;
	adopt.count = 2;
	cr_assert_eq(catalog_adopt(world.catalog, &adopt), 0);
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "old", before - DAY, &entry), 0);
	cr_assert_eq(versions_at_lookup(world.catalog, ROOT, "young", before - DAY, &entry), -ENOENT);
}

Test(versions_at, mtime_is_the_newest_change_until_then)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");
	struct cat_inode inode;
	int64_t first, when, mtime;

	make_file(&world, sub, "a", 1);
	cr_assert_eq(catalog_getattr(world.catalog, sub, &inode), 0);
	first = inode.mtime;
	when = instant(&world);
	cr_assert_eq(versions_at_mtime(world.catalog, sub, when, &mtime), 0);
	cr_assert_eq(mtime, first);
	drop(&world, sub, "a");
	cr_assert_eq(versions_at_mtime(world.catalog, sub, when, &mtime), 0);
	cr_assert_eq(mtime, first);
	cr_assert_eq(versions_at_mtime(world.catalog, sub, INT64_MAX, &mtime), 0);
	cr_assert_gt(mtime, when);
}

Test(versions_at, a_deleted_link_is_shown_as_it_was_when_it_went)
{
	struct cat_version first = make_file(&world, ROOT, "one", 1);
	struct versions_at_entry entry;
	struct versions_at_list list;
	struct cat_inode inode;

	cr_assert_eq(catalog_link(world.catalog, first.ino, ROOT, "two", (struct cat_actor){0}, &inode), 0);
	drop(&world, ROOT, "one");
	commit(&world, first.ino, 2);
	cr_assert_eq(versions_at_deleted_lookup(world.catalog, ROOT, "one", &entry), 0);
	cr_assert_eq(entry.seq, first.seq);
	cr_assert_eq(versions_at_deleted_lookup(world.catalog, ROOT, "two", &entry), -ENOENT);
	cr_assert_eq(versions_at_deleted_list(world.catalog, ROOT, &list), 0);
	cr_assert_eq(list.count, 1);
	cr_assert_str_eq(versions_at_name(&list, 0), "one");
	versions_at_clear(&list);
}

Test(versions_at, only_the_last_ending_decides)
{
	struct versions_at_entry entry;

	make_file(&world, ROOT, "f", 1);
	drop(&world, ROOT, "f");
	make_file(&world, ROOT, "f", 2);
	move_to(&world, ROOT, "f", ROOT, "g");
	cr_assert_eq(versions_at_deleted_lookup(world.catalog, ROOT, "f", &entry), -ENOENT, "it moved in the end");
	drop(&world, ROOT, "g");
	cr_assert_eq(versions_at_deleted_lookup(world.catalog, ROOT, "g", &entry), 0);
}

Test(versions_at, large_directories_are_read_in_pages)
{
	struct versions_at_list list;
	char name[24];

	for (int i = 0; i < 3000; i++) {
		(void)snprintf(name, sizeof(name), "%06d", i);
		make_file(&world, ROOT, name, (uint64_t)i);
		if (i % 2)
			drop(&world, ROOT, name);
	}
	cr_assert_eq(versions_at_list(world.catalog, ROOT, INT64_MAX, &list), 0);
	cr_assert_eq(list.count, 1500);
	for (size_t i = 0; i < list.count; i++) {
		(void)snprintf(name, sizeof(name), "%06zu", 2 * i);
		cr_assert_str_eq(versions_at_name(&list, i), name);
	}
	versions_at_clear(&list);
	cr_assert_eq(versions_at_deleted_list(world.catalog, ROOT, &list), 0);
	cr_assert_eq(list.count, 1500);
	versions_at_clear(&list);
}
