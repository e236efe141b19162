/* Unit tests of fs/versions.c and fs/versions_dir.c: the tree as a program sees it. */
#include "fs/versions.h"
#include "tests/unit/fs/versions_fixture.h"

#include <pthread.h>

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

TestSuite(versions, .init = setup, .fini = teardown);

static void entry_name(const struct cat_version *version, const char *ext, char ret_name[static 64])
{
	char time[CLOCK_NAME_SIZE];

	clock_format_name(version->shown_ms * NS_PER_MS, time);
	(void)snprintf(ret_name, 64, "%s~%08x%s", time, version->identity, ext);
}

/* --- the snapdir --------------------------------------------------------------------------------- */

Test(versions, lists_every_name_that_ever_lived)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");

	make_file(&world, ROOT, "kept.txt", 1);
	make_file(&world, ROOT, "gone.txt", 2);
	make_file(&world, ROOT, "old.txt", 3);
	drop(&world, ROOT, "gone.txt");
	move_to(&world, ROOT, "old.txt", sub, "new.txt");
	expect_list(&world, ROOT, ".", "gone.txt\nkept.txt\nold.txt\nsub\n");
	expect_list(&world, sub, ".", "new.txt\n");
}

Test(versions, snapdir_is_there_by_its_name_only)
{
	struct versions_entry entry;

	cr_assert(versions_is_snapdir(world.versions, ".versions"));
	cr_assert_not(versions_is_visible(world.versions));
	cr_assert_eq(versions_lookup(world.versions, ROOT, ".versions", &entry), 0);
	cr_assert(versions_is_node(entry.nodeid));
	cr_assert_eq(entry.stat.st_ino, entry.nodeid);
	cr_assert_eq(versions_snapdir_ino(ROOT), entry.nodeid);
	cr_assert_eq(entry.stat.st_mode, S_IFDIR | 0555);
	cr_assert_eq(versions_lookup(world.versions, ROOT, ".snapshots", &entry), -ENOENT);
	cr_assert_eq(versions_lookup(world.versions, make_file(&world, ROOT, "f", 1).ino, ".versions", &entry),
		     -ENOTDIR);
}

Test(versions, snapdir_has_the_name_and_visibility_asked_for)
{
	struct versions_options options = {
		.catalog = world.catalog, .snapdir_name = ".snap", .snapdir = VERSIONS_SNAPDIR_VISIBLE};
	struct versions *versions;

	cr_assert_eq(versions_new(&options, &versions), 0);
	cr_assert(versions_is_visible(versions));
	cr_assert(versions_is_snapdir(versions, ".snap"));
	cr_assert_not(versions_is_snapdir(versions, ".versions"));
	versions_free(versions);
	options.snapdir = VERSIONS_SNAPDIR_OFF;
	cr_assert_eq(versions_new(&options, &versions), 0);
	cr_assert_not(versions_is_visible(versions));
	cr_assert_not(versions_is_snapdir(versions, ".snap"));
	versions_free(versions);
}

Test(versions, special_names_of_the_directory_get_a_plus)
{
	make_file(&world, ROOT, "+log", 1);
	make_file(&world, ROOT, "++at", 2);
	make_file(&world, ROOT, "+other", 3);
	expect_list(&world, ROOT, ".", "+++at\n++log\n+other\n");
}

Test(versions, a_name_that_never_lived_is_not_there)
{
	struct versions_entry entry;

	cr_assert_eq(walk(&world, ROOT, "nobody", &entry), -ENOENT);
}

Test(versions, a_directory_has_an_empty_history)
{
	make_dir(&world, ROOT, "sub");
	expect_list(&world, ROOT, "sub", "");
}

/* --- one name ------------------------------------------------------------------------------------- */

Test(versions, history_is_oldest_first_with_the_extension)
{
	struct cat_version first = make_file(&world, ROOT, "report.doc", 10);
	struct cat_version second = commit(&world, first.ino, 20);
	struct versions_entry entry;
	char name[64], both[160];
	char second_name[64];

	entry_name(&first, ".doc", name);
	entry_name(&second, ".doc", second_name);
	(void)snprintf(both, sizeof(both), "report.doc/%s", name);
	entry = walked(&world, ROOT, both);
	cr_assert_eq(entry.stat.st_size, 10);
	cr_assert_eq(entry.stat.st_ino, CACHE_VERSION | first.seq);
	cr_assert_eq(entry.stat.st_mtim.tv_sec, 1000000000);
	cr_assert_eq(clock_from_timespec(entry.stat.st_ctim), first.commit_ns);
	cr_assert_eq(entry.stat.st_mode, S_IFREG | 0444);
	cr_assert(entry.immutable);
	(void)snprintf(both, sizeof(both), "%s\n%s\n", name, second_name);
	expect_list(&world, ROOT, "report.doc", both);
}

Test(versions, saving_by_rename_extends_the_history)
{
	struct cat_version first = make_file(&world, ROOT, "text", 1);
	struct cat_version second;

	(void)instant(&world);
	second = make_file(&world, ROOT, "text.tmp", 2);
	(void)instant(&world);
	move_to(&world, ROOT, "text.tmp", ROOT, "text");
	cr_assert_eq(list(&world, walked(&world, ROOT, "text").nodeid, NULL), 2);
	cr_assert_eq(walked(&world, ROOT, "text/-1").stat.st_ino, CACHE_VERSION | second.seq);
	cr_assert_eq(walked(&world, ROOT, "text/-2").stat.st_ino, CACHE_VERSION | first.seq);
}

Test(versions, deletion_ends_nothing)
{
	struct cat_version first = make_file(&world, ROOT, "again", 1);
	struct cat_version second;

	drop(&world, ROOT, "again");
	cr_assert_eq(walked(&world, ROOT, "again/-1").stat.st_size, 1);
	second = make_file(&world, ROOT, "again", 2);
	cr_assert_neq(first.ino, second.ino);
	cr_assert_eq(list(&world, walked(&world, ROOT, "again").nodeid, NULL), 2);
	cr_assert_eq(walked(&world, ROOT, "again/-1").stat.st_size, 2);
	cr_assert_eq(walked(&world, ROOT, "again/-2").stat.st_size, 1);
}

Test(versions, hard_links_share_versions_but_not_nodes)
{
	struct cat_version version = make_file(&world, ROOT, "one", 1);
	struct cat_inode inode;
	struct versions_entry one, two;

	cr_assert_eq(catalog_link(world.catalog, version.ino, ROOT, "two", (struct cat_actor){0}, &inode), 0);
	one = walked(&world, ROOT, "one/-1");
	two = walked(&world, ROOT, "two/-1");
	cr_assert_eq(one.stat.st_ino, two.stat.st_ino);
	cr_assert_neq(one.nodeid, two.nodeid);
	commit(&world, version.ino, 2);
	cr_assert_eq(list(&world, walked(&world, ROOT, "one").nodeid, NULL), 2);
	cr_assert_eq(list(&world, walked(&world, ROOT, "two").nodeid, NULL), 2);
}

Test(versions, symlinks_in_history_are_symlinks)
{
	AUTO_BUF target = BUF_INIT;
	struct versions_entry entry;
	struct versions_dir *dir;

	make(&world, ROOT, "name", S_IFLNK | 0777);
	drop(&world, ROOT, "name");
	(void)instant(&world);
	make_file(&world, ROOT, "name", 5);
	cr_assert_eq(list(&world, walked(&world, ROOT, "name").nodeid, NULL), 2);
	entry = walked(&world, ROOT, "name/-2");
	cr_assert(S_ISLNK(entry.stat.st_mode));
	cr_assert_eq(versions_readlink(world.versions, entry.nodeid, &target), 0);
	cr_assert_str_eq(target.data, "the/target");
	cr_assert_eq(versions_opendir(world.versions, entry.nodeid, &dir), -ENOTDIR);
	entry = walked(&world, ROOT, "name/-1");
	cr_assert(S_ISREG(entry.stat.st_mode));
	cr_assert_eq(versions_readlink(world.versions, entry.nodeid, &target), -EINVAL);
}

Test(versions, aliases_are_answered_from_now_not_from_the_cache)
{
	struct cat_version version = make_file(&world, ROOT, "f.txt", 1);
	struct versions_entry entry;

	cr_assert_eq(walked(&world, ROOT, "f.txt/-1").stat.st_size, 1);
	cr_assert_not(walked(&world, ROOT, "f.txt/-1").immutable);
	commit(&world, version.ino, 2);
	cr_assert_eq(walked(&world, ROOT, "f.txt/-1").stat.st_size, 2);
	cr_assert_eq(walked(&world, ROOT, "f.txt/-1.txt").stat.st_size, 2);
	cr_assert_eq(walked(&world, ROOT, "f.txt/@2099-12-31.txt").stat.st_size, 2);
	cr_assert_eq(walk(&world, ROOT, "f.txt/1h", &entry), -ENOENT, "nothing is an hour old");
}

/* --- permissions ------------------------------------------------------------------------------------ */

Test(versions, closing_the_file_closes_its_past)
{
	struct cat_version first = make_file(&world, ROOT, "secret", 1);

	cr_assert_eq(walked(&world, ROOT, "secret/-1").stat.st_mode, S_IFREG | 0444);
	chmod_ino(&world, first.ino, 0600);
	cr_assert_eq(walked(&world, ROOT, "secret/-1").stat.st_mode, S_IFREG | 0400);
	commit(&world, first.ino, 2);
	chmod_ino(&world, first.ino, 0644);
	cr_assert_eq(walked(&world, ROOT, "secret/-1").stat.st_mode, S_IFREG | 0400, "it was closed then");
	cr_assert_eq(walked(&world, ROOT, "secret/-2").stat.st_mode, S_IFREG | 0444);
}

Test(versions, a_closed_successor_closes_what_had_the_name)
{
	struct cat_version second;

	make_file(&world, ROOT, "text", 1);
	second = make_file(&world, ROOT, "text.tmp", 2);
	chmod_ino(&world, second.ino, 0600);
	move_to(&world, ROOT, "text.tmp", ROOT, "text");
	cr_assert_eq(walked(&world, ROOT, "text/-2").stat.st_mode, S_IFREG | 0400);
	drop(&world, ROOT, "text");
	cr_assert_eq(walked(&world, ROOT, "text/-2").stat.st_mode, S_IFREG | 0444);
}

Test(versions, directories_are_the_live_ones_without_write)
{
	uint64_t sub = make(&world, ROOT, "sub", S_IFDIR | 01770).ino;
	struct versions_entry entry;

	make_file(&world, sub, "f", 1);
	entry = walked(&world, sub, "f");
	cr_assert_eq(entry.stat.st_mode, S_IFDIR | 0550);
	cr_assert_eq(entry.stat.st_uid, ALICE);
}

/* --- nodes -------------------------------------------------------------------------------------------- */

Test(versions, forgotten_nodes_are_stale)
{
	struct versions_entry entry;
	struct stat st;

	make_file(&world, ROOT, "f", 1);
	entry = walked(&world, ROOT, "f");
	cr_assert_eq(versions_getattr(world.versions, entry.nodeid, &st), 0);
	cr_assert_eq(st.st_ino, entry.stat.st_ino);
	versions_forget(world.versions, entry.nodeid, 1);
	cr_assert_eq(versions_getattr(world.versions, entry.nodeid, &st), -ESTALE);
	cr_assert_eq(walked(&world, ROOT, "f").nodeid, entry.nodeid, "the same thing has the same number");
}

Test(versions, a_name_s_mtime_is_its_newest_change)
{
	struct cat_version version = make_file(&world, ROOT, "f", 1);

	cr_assert_eq(clock_from_timespec(walked(&world, ROOT, "f").stat.st_mtim), version.commit_ns);
	drop(&world, ROOT, "f");
	cr_assert_gt(clock_from_timespec(walked(&world, ROOT, "f").stat.st_mtim), version.commit_ns);
}

Test(versions, what_is_no_file_does_not_open)
{
	struct content *content;
	struct versions_entry entry;

	make_file(&world, ROOT, "f", 1);
	entry = walked(&world, ROOT, "f");
	cr_assert_eq(versions_open(world.versions, entry.nodeid, &content), -EISDIR);
	entry = walked(&world, ROOT, "+log");
	cr_assert(versions_is_text(world.versions, entry.nodeid));
	cr_assert_eq(versions_open(world.versions, entry.nodeid, &content), -EOPNOTSUPP);
	entry = walked(&world, ROOT, "f/-1");
	cr_assert_not(versions_is_text(world.versions, entry.nodeid));
	cr_assert_eq(walk(&world, ROOT, "f/-1/x", &entry), -ENOTDIR);
}

/* --- +deleted, +at, +gmt ------------------------------------------------------------------------------- */

Test(versions, deleted_shows_what_is_gone)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");

	make_file(&world, sub, "inner", 7);
	make_file(&world, ROOT, "gone", 1);
	make_file(&world, ROOT, "back", 1);
	make_file(&world, ROOT, "moved", 1);
	make(&world, ROOT, "never-closed", S_IFREG | 0644);
	make(&world, ROOT, "link", S_IFLNK | 0777);
	drop(&world, ROOT, "gone");
	drop(&world, ROOT, "back");
	drop(&world, ROOT, "never-closed");
	drop(&world, ROOT, "link");
	make_file(&world, ROOT, "back", 2);
	move_to(&world, ROOT, "moved", ROOT, "there");
	expect_list(&world, ROOT, "+deleted", "gone\nlink\n");
	cr_assert_eq(walked(&world, ROOT, "+deleted/gone").stat.st_size, 1);
	drop(&world, sub, "inner");
	expect_list(&world, ROOT, "+deleted/sub", "inner\n");
	drop_dir(&world, ROOT, "sub");
	expect_list(&world, ROOT, "+deleted", "gone\nlink\nsub\n");
	cr_assert_eq(walked(&world, ROOT, "+deleted/sub/inner").stat.st_size, 7);
}

Test(versions, at_shows_the_tree_as_it_was)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");
	struct cat_version first = make_file(&world, sub, "file", 1);
	char then[CLOCK_RFC3339_SIZE], path[128];
	int64_t when = instant(&world);

	commit(&world, first.ino, 2);
	make_file(&world, sub, "later", 3);
	move_to(&world, ROOT, "sub", ROOT, "renamed");
	make_file(&world, ROOT, "sub", 4);
	clock_format_rfc3339(when, then);
	(void)snprintf(path, sizeof(path), "+at/%s", then);
	expect_list(&world, ROOT, path, "sub\n");
	(void)snprintf(path, sizeof(path), "+at/%s/sub", then);
	expect_list(&world, ROOT, path, "file\n");
	(void)snprintf(path, sizeof(path), "+at/%s/sub/file", then);
	cr_assert_eq(walked(&world, ROOT, path).stat.st_size, 1);
	(void)usleep(200000); /* a new catalog's clock runs up to 100 ms ahead */
	cr_assert(walked(&world, ROOT, path).immutable);
	expect_list(&world, ROOT, "+at/1d", "");
	expect_list(&world, ROOT, "+at/2099-12-31", "renamed\nsub\n");
	cr_assert_eq(walked(&world, ROOT, "+at/2099-12-31/sub").stat.st_size, 4);
}

Test(versions, at_survives_the_directory)
{
	uint64_t sub = make_dir(&world, ROOT, "sub");
	char then[CLOCK_RFC3339_SIZE], path[128];
	int64_t when;

	make_file(&world, sub, "file", 1);
	when = instant(&world);
	drop(&world, sub, "file");
	drop_dir(&world, ROOT, "sub");
	clock_format_rfc3339(when, then);
	(void)snprintf(path, sizeof(path), "+at/%s/sub", then);
	expect_list(&world, ROOT, path, "file\n");
}

static int take_first_name(void *arg, const char *name, const struct stat *stat, uint64_t next)
{
	(void)stat;
	if (next == 3)
		(void)snprintf(arg, 64, "%s", name);
	return 0;
}

Test(versions, restore_points_resolve_to_what_they_name)
{
	struct versions_dir *dir;
	char first[64] = "", path[128];

	make_file(&world, ROOT, "file", 1);
	cr_assert_eq(list(&world, walked(&world, ROOT, "+at").nodeid, NULL), 1);
	cr_assert_eq(list(&world, walked(&world, ROOT, "+gmt").nodeid, NULL), 1);
	cr_assert_eq(versions_opendir(world.versions, walked(&world, ROOT, "+at").nodeid, &dir), 0);
	cr_assert_eq(versions_readdir(dir, 0, take_first_name, first), 0);
	versions_closedir(dir);
	(void)snprintf(path, sizeof(path), "+at/%s", first);
	expect_list(&world, ROOT, path, "file\n");
	cr_assert_eq(versions_opendir(world.versions, walked(&world, ROOT, "+gmt").nodeid, &dir), 0);
	cr_assert_eq(versions_readdir(dir, 0, take_first_name, first), 0);
	versions_closedir(dir);
	cr_assert_eq(strncmp(first, "@GMT-", 5), 0);
	(void)snprintf(path, sizeof(path), "+gmt/%s", first);
	expect_list(&world, ROOT, path, "file\n");
}

Test(versions, gmt_takes_only_its_own_names)
{
	struct versions_entry entry;

	cr_assert_eq(walk(&world, ROOT, "+gmt/2h", &entry), -ENOENT);
	cr_assert_eq(walk(&world, ROOT, "+gmt/@GMT-2026.11.21-10.00.00", &entry), 0);
	cr_assert_eq(walk(&world, ROOT, "+at/@GMT-2026.11.21-10.00.00", &entry), 0);
	cr_assert_eq(walk(&world, ROOT, "+at/yesterday", &entry), -ENOENT);
	cr_assert_eq(walk(&world, ROOT, "+at/2026-11-21T10:00", &entry), -ENOENT, "no zone");
}

/* --- xattrs --------------------------------------------------------------------------------------------- */

Test(versions, versions_list_their_attributes)
{
	AUTO_BUF names = BUF_INIT, value = BUF_INIT;
	struct versions_entry entry;
	bool found = false;

	make_file(&world, ROOT, "f", 1);
	entry = walked(&world, ROOT, "f/-1");
	cr_assert_eq(versions_listxattr(world.versions, entry.nodeid, &names), 0);
	for (size_t at = 0; at < names.len; at += strlen(names.data + at) + 1) {
		found |= !strcmp(names.data + at, "user.varve.seq");
		buf_reset(&value);
		cr_assert_eq(versions_getxattr(world.versions, entry.nodeid, names.data + at, &value), 0, "%s",
			     names.data + at);
	}
	cr_assert(found);
	cr_assert_eq(versions_getxattr(world.versions, entry.nodeid, "user.other", &value), -ENODATA);
	entry = walked(&world, ROOT, "f");
	buf_reset(&names);
	cr_assert_eq(versions_listxattr(world.versions, entry.nodeid, &names), 0);
	cr_assert_eq(names.len, 0);
}

Test(versions, what_users_set_is_seen_on_versions_and_after_deletion)
{
	AUTO_BUF names = BUF_INIT, value = BUF_INIT;
	struct cat_version version = make_file(&world, ROOT, "f", 1);
	struct versions_entry entry;

	cr_assert_eq(catalog_xattr_set(world.catalog, version.ino, "user.colour", "blue", 4, CAT_XATTR_SET), 0);
	drop(&world, ROOT, "f");
	entry = walked(&world, ROOT, "+deleted/f");
	cr_assert_eq(versions_getxattr(world.versions, entry.nodeid, "user.colour", &value), 0);
	cr_assert_str_eq(value.data, "blue");
	cr_assert_eq(versions_listxattr(world.versions, entry.nodeid, &names), 0);
	cr_assert_not_null(memmem(names.data, names.len, "user.colour", 12));
}

Test(versions, a_directory_of_the_past_has_its_own_history)
{
	uint64_t dir = make_dir(&world, ROOT, "d");
	char then[CLOCK_RFC3339_SIZE], path[128];
	struct versions_entry live, past;

	make_file(&world, dir, "f", 1);
	cr_assert_eq(versions_lookup(world.versions, dir, ".versions", &live), 0);
	clock_format_rfc3339(instant(&world), then);
	drop(&world, dir, "f");
	drop_dir(&world, ROOT, "d");
	make_dir(&world, ROOT, "d");
	(void)snprintf(path, sizeof(path), "+at/%s/d/.versions", then);
	past = walked(&world, ROOT, path);
	cr_assert_eq(past.stat.st_ino, live.stat.st_ino, "one directory, one number");
	(void)snprintf(path, sizeof(path), "+at/%s/d/.versions/f/-1", then);
	cr_assert_eq(walked(&world, ROOT, path).stat.st_size, 1);
	(void)snprintf(path, sizeof(path), "+at/%s/d/.versions/+deleted", then);
	expect_list(&world, ROOT, path, "f\n");
	(void)snprintf(path, sizeof(path), "+at/%s/d", then);
	live = walked(&world, ROOT, path);
	(void)snprintf(path, sizeof(path), "+at/%s/d/.versions/+at/%s", then, then);
	past = walked(&world, ROOT, path);
	cr_assert_eq(past.stat.st_ino, live.stat.st_ino);
	cr_assert_neq(past.nodeid, live.nodeid, "no directory lies within itself");
}

/* --- size ------------------------------------------------------------------------------------------------- */

struct page {
	uint64_t offset;
	size_t left, taken;
	char last[64];
};

static int take_page(void *arg, const char *name, const struct stat *stat, uint64_t next)
{
	struct page *page = arg;

	(void)stat;
	if (!page->left)
		return 1;
	if (name[0] != '.') {
		cr_assert_gt(strcmp(name, page->last), 0, "oldest first, each once");
		(void)snprintf(page->last, sizeof(page->last), "%s", name);
	}
	page->left--;
	page->taken++;
	page->offset = next;
	return 0;
}

/* Time this thread worked: what other load the machine has does not count. */
static int64_t cpu_ns(void)
{
	struct timespec now;

	cr_assert_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	return clock_from_timespec(now);
}

/* Lists NAME in pages, from its lookup on. */
static int64_t cost_of_listing(const char *name, unsigned versions)
{
	struct page page = {.left = 0};
	struct versions_dir *dir;
	int64_t begin = cpu_ns(), took;

	cr_assert_eq(versions_opendir(world.versions, walked(&world, ROOT, name).nodeid, &dir), 0);
	do {
		page.left = 100;
		(void)versions_readdir(dir, page.offset, take_page, &page);
	} while (!page.left);
	took = cpu_ns() - begin;
	cr_assert_eq(page.taken, versions + 2);
	versions_closedir(dir);
	return took;
}

struct cost {
	int64_t listed, looked_up;
};

/* The best of some of each. */
static struct cost cost_of_versions(const char *name, unsigned versions)
{
	struct cat_version version = make_file(&world, ROOT, name, 0);
	struct cost cost = {.listed = INT64_MAX, .looked_up = INT64_MAX};

	for (unsigned i = 1; i < versions; i++)
		commit(&world, version.ino, i);
	for (int i = 0; i < 5; i++) {
		char other[64];
		int64_t took, begin;

		(void)snprintf(other, sizeof(other), "%s-%d", name, i);
		make_file(&world, ROOT, other, 0); /* so that what is cached is old */
		took = cost_of_listing(name, versions);
		cost.listed = took < cost.listed ? took : cost.listed;
		begin = cpu_ns();
		cr_assert_eq(list(&world, walked(&world, ROOT, name).nodeid, NULL), versions);
		took = cpu_ns() - begin;
		cost.looked_up = took < cost.looked_up ? took : cost.looked_up;
	}
	return cost;
}

/* To read the history anew for each page, or for each name looked up, costs 400 times as much for twenty times as many.
 */
Test(versions, ten_thousand_versions_are_listed_in_pages_at_once)
{
	struct cost few = cost_of_versions("quiet.log", 500), many = cost_of_versions("busy.log", 10000);

	(void)fprintf(stderr, "10000 versions: listed in %.1f ms, listed again and each looked up in %.1f ms\n",
		      (double)many.listed / 1e6, (double)many.looked_up / 1e6);
	cr_assert_lt(many.listed, 80 * few.listed);
	cr_assert_lt(many.looked_up, 80 * few.looked_up);
}

/* --- threads ------------------------------------------------------------------------------------------------ */

static void *look_around(void *arg)
{
	struct versions_entry entry;
	const int *rounds = arg;

	for (int i = 0; i < *rounds; i++) {
		int ret = versions_lookup(world.versions, ROOT, ".versions", &entry);
		uint64_t top = entry.nodeid, name;

		cr_assert_eq(ret, 0);
		cr_assert_eq(versions_lookup(world.versions, top, "f", &entry), 0);
		name = entry.nodeid;
		cr_assert_eq(versions_lookup(world.versions, name, "-1", &entry), 0);
		cr_assert_gt(list(&world, name, NULL), 0);
		versions_forget(world.versions, entry.nodeid, 1);
		versions_forget(world.versions, name, 1);
		versions_forget(world.versions, top, 1);
	}
	return NULL;
}

Test(versions, many_may_look_while_versions_are_made)
{
	struct cat_version version = make_file(&world, ROOT, "f", 0);
	pthread_t threads[4];
	int rounds = 50;
	struct versions_entry entry;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, look_around, &rounds), 0);
	for (unsigned i = 1; i < 50; i++)
		commit(&world, version.ino, i);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	entry = walked(&world, ROOT, "f");
	cr_assert_eq(list(&world, entry.nodeid, NULL), 50);
}
