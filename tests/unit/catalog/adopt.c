/* adopt.c - the store's word against ours: what is new, replaced, gone; who wins; clashes; older versions. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

#include "catalog/catalog_internal.h"
#include "escape.h"

TestSuite(adopt, .init = setup, .fini = teardown);

#define T0 (INT64_C(1700000000) * NS_PER_SEC)

static struct buf changes; /* "name:ino " of the changed callback */

static void note_change(void *arg, uint64_t parent, const char *name, uint64_t ino)
{
	(void)arg;
	(void)parent;
	(void)catalog_number(catalog); /* the catalog can be used from the callback */
	buf_addf(&changes, "%s:%" PRIu64 " ", name, ino);
}

static int adopt_at(uint64_t dir, const struct cat_found *found, size_t count, int64_t listed_at)
{
	struct cat_adopt request = {.dir = dir,
				    .found = found,
				    .count = count,
				    .file_mode = 0640,
				    .dir_mode = 0750,
				    .uid = 11,
				    .gid = 12,
				    .listed_at = listed_at,
				    .changed = note_change};

	buf_free(&changes);
	return catalog_adopt(catalog, &request);
}

/* A listing begun now. */
static void adopt(uint64_t dir, const struct cat_found *found, size_t count)
{
	struct cat_inode dir_inode;

	cr_assert_eq(adopt_at(dir, found, count, clock_wall()), 0);
	dir_inode = inode_of(dir);
	cr_assert(dir_inode.flags & CAT_LISTED);
	cr_assert_gt(dir_inode.listed_at, 0);
	(void)assert_clean();
}

static struct cat_found object(const char *name, const char *etag, uint64_t size)
{
	return (struct cat_found){.name = name, .key = name, .etag = etag, .size = size, .modified_ns = T0};
}

static struct cat_found prefix(const char *name, const char *key)
{
	return (struct cat_found){.name = name, .key = key, .directory = true};
}

static int put_place(struct cat_txn *txn, void *arg)
{
	const struct cat_job *job = arg;

	return cat_job_add(txn, CAT_JOB_PLACE, job->ino, job->key);
}

Test(adopt, unknown_objects_become_inodes_with_a_version)
{
	struct cat_found found[] = {object("a", "e1", 5), prefix("d", "d/")};
	struct cat_inode file, dir;

	adopt(ROOT, found, 2);
	file = inode_of(ino_of(ROOT, "a"));
	dir = inode_of(ino_of(ROOT, "d"));
	cr_assert_eq(file.mode, S_IFREG | 0640);
	cr_assert_eq(dir.mode, S_IFDIR | 0750);
	cr_assert(file.uid == 11 && file.gid == 12 && file.size == 5 && file.mtime == T0);
	cr_assert(file.flags & CAT_UNRESOLVED);
	cr_assert_neq(file.version, 0);
	cr_assert_eq(inode_of(ROOT).nlink, 3);
	assert_history(ROOT, "a", "A5*");
	assert_jobs("");
	cr_assert_eq(changes.len, 0, "nothing was known before, so nothing can be cached");
}

Test(adopt, the_same_listing_again_changes_nothing)
{
	struct cat_found found[] = {object("a", "e1", 5), prefix("d", "d/")};
	struct cat_inode before;
	uint64_t ino;

	adopt(ROOT, found, 2);
	before = inode_of(ROOT);
	ino = ino_of(ROOT, "a");
	adopt(ROOT, found, 2);
	cr_assert_eq(ino_of(ROOT, "a"), ino);
	cr_assert_eq(inode_of(ROOT).mtime, before.mtime);
	cr_assert_eq(changes.len, 0);
	assert_history(ROOT, "a", "A5*");
}

Test(adopt, replaced_object_is_a_new_inode_that_takes_the_name)
{
	struct cat_found first = object("a", "e1", 5), second = object("a", "e2", 6);
	uint64_t old;
	char expected[64];

	adopt(ROOT, &first, 1);
	old = ino_of(ROOT, "a");
	second.modified_ns = T0 + NS_PER_SEC;
	adopt(ROOT, &second, 1);
	cr_assert_neq(ino_of(ROOT, "a"), old);
	cr_assert_eq(inode_of(old).nlink, 0);
	assert_history(ROOT, "a", "A5 A6*");
	(void)snprintf(expected, sizeof(expected), "a:%" PRIu64 " ", old);
	cr_assert_str_eq(changes.data, expected);
	assert_jobs("");
}

Test(adopt, what_others_wrote_comes_last_whatever_their_clock_says)
{
	struct cat_found first = object("a", "e1", 5), second = object("a", "e2", 6);

	first.modified_ns = T0 + 100 * NS_PER_SEC;
	adopt(ROOT, &first, 1);
	adopt(ROOT, &second, 1);
	assert_history(ROOT, "a", "A5 A6*");
	first.etag = "e3";
	first.size = 7;
	first.modified_ns = T0 - NS_PER_SEC;
	adopt(ROOT, &first, 1);
	assert_history(ROOT, "a", "A5 A6 A7*");
}

Test(adopt, directory_found_later_was_not_there_before)
{
	struct cat_found both[] = {prefix("d", "d/"), prefix("e", "e/")};

	adopt(ROOT, both, 1);
	cr_assert_eq(inode_of(ino_of(ROOT, "d")).btime, 0, "nobody knows since when");
	adopt(ROOT, both, 2);
	cr_assert_gt(inode_of(ino_of(ROOT, "e")).btime, 0);
}

Test(adopt, directory_in_one_found_later_was_not_there_before_either)
{
	struct cat_found top[] = {prefix("d", "d/"), prefix("e", "e/")}, in_d = prefix("s", "d/s/"),
			 in_e = prefix("s", "e/s/");

	adopt(ROOT, top, 1);
	adopt(ROOT, top, 2);
	adopt(ino_of(ROOT, "d"), &in_d, 1);
	adopt(ino_of(ROOT, "e"), &in_e, 1);
	cr_assert_eq(inode_of(ino_of(ino_of(ROOT, "d"), "s")).btime, 0, "nobody knows since when");
	cr_assert_eq(inode_of(ino_of(ino_of(ROOT, "e"), "s")).btime, inode_of(ino_of(ROOT, "e")).btime);
}

Test(adopt, nothing_vanishes_for_want_of_what_a_listing_hides)
{
	struct cat_found found = object("a", "e1", 5);
	struct cat_adopt request = {.dir = ROOT, .hidden = true};

	adopt(ROOT, &found, 1);
	request.listed_at = clock_wall();
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	cr_assert_neq(ino_of(ROOT, "a"), 0);
	cr_assert_eq(inode_of(ROOT).listed_at, request.listed_at);
}

Test(adopt, object_that_is_gone_goes_to_the_past)
{
	struct cat_found found = object("a", "e1", 5);
	uint64_t ino;

	adopt(ROOT, &found, 1);
	ino = ino_of(ROOT, "a");
	adopt(ROOT, NULL, 0);
	cr_assert_eq(ino_of(ROOT, "a"), 0);
	cr_assert_eq(inode_of(ino).nlink, 0);
	assert_history(ROOT, "a", "A5");
	cr_assert_neq(changes.len, 0);
	assert_jobs("");
}

Test(adopt, directory_in_the_place_of_a_file_has_its_name_at_once)
{
	struct cat_found file = object("a", "e1", 5), dir = prefix("a", "a/");
	uint64_t ino;

	adopt(ROOT, &file, 1);
	ino = ino_of(ROOT, "a");
	adopt(ROOT, &dir, 1);
	cr_assert_eq(inode_of(ino).nlink, 0);
	cr_assert(S_ISDIR(inode_of(ino_of(ROOT, "a")).mode));
	assert_history(ROOT, "a", "A5");
}

Test(adopt, vanished_directory_goes_with_all_beneath)
{
	struct cat_found top = prefix("d", "d/"),
			 inner[] = {prefix("e", "d/e/"), {.name = "a", .key = "d/a", .etag = "x"}},
			 deep = {.name = "b", .key = "d/e/b", .etag = "y", .size = 3};
	uint64_t dir, sub;

	adopt(ROOT, &top, 1);
	dir = ino_of(ROOT, "d");
	adopt(dir, inner, 2);
	sub = ino_of(dir, "e");
	adopt(sub, &deep, 1);
	adopt(ROOT, NULL, 0);
	cr_assert_eq(ino_of(ROOT, "d"), 0);
	cr_assert_eq(ino_of(sub, "b"), 0);
	cr_assert_eq(inode_of(sub).nlink, 0);
	cr_assert_eq(inode_of(ROOT).nlink, 2);
	assert_history(sub, "b", "A3");
}

Test(adopt, vanished_directory_with_our_changes_stays_and_is_listed_again)
{
	struct cat_found top = prefix("d", "d/"), inner = {.name = "a", .key = "d/a", .etag = "x"};
	uint64_t dir;

	adopt(ROOT, &top, 1);
	dir = ino_of(ROOT, "d");
	adopt(dir, &inner, 1);
	make_file(dir, "mine");
	adopt(ROOT, NULL, 0);
	cr_assert_eq(ino_of(ROOT, "d"), dir);
	cr_assert_neq(ino_of(dir, "mine"), 0);
	cr_assert_eq(ino_of(dir, "a"), 0);
	cr_assert_not(inode_of(dir).flags & CAT_LISTED);
}

/* --- ours wins ---------------------------------------------------------------------------------- */

Test(adopt, local_work_is_left_alone)
{
	uint64_t unsaved = make_file(ROOT, "unsaved"), uploading = make_file(ROOT, "uploading"),
		 dirty = make_file(ROOT, "dirty"), stored = make_file(ROOT, "stored"), dir;
	struct cat_found found[] = {object("unsaved", "f", 9), object("uploading", "f", 9), object("dirty", "f", 9),
				    object("stored", "f", 9)};

	commit(dirty, 2);
	commit(stored, 3);
	dir = make_dir(ROOT, "dir");
	finish_jobs();
	commit(uploading, 1);
	cr_assert_eq(catalog_mark_dirty(catalog, dirty, NULL), 0);
	adopt(ROOT, found, 4);
	cr_assert_eq(ino_of(ROOT, "unsaved"), unsaved);
	cr_assert_eq(ino_of(ROOT, "uploading"), uploading);
	cr_assert_eq(ino_of(ROOT, "dirty"), dirty);
	cr_assert_neq(ino_of(ROOT, "stored"), stored);
	cr_assert_eq(ino_of(ROOT, "dir"), 0, "a settled empty directory that the store does not have");
	cr_assert_eq(inode_of(dir).nlink, 0);
	adopt(ROOT, NULL, 0);
	cr_assert_eq(ino_of(ROOT, "unsaved"), unsaved);
	cr_assert_eq(ino_of(ROOT, "uploading"), uploading);
	cr_assert_eq(ino_of(ROOT, "dirty"), dirty);
	cr_assert_eq(ino_of(ROOT, "stored"), 0);
}

Test(adopt, deleted_file_does_not_come_back_while_its_object_still_lies_there)
{
	struct cat_found found = object("a", "v", 1);

	commit(make_file(ROOT, "a"), 1);
	finish_jobs();
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	adopt(ROOT, &found, 1);
	cr_assert_eq(ino_of(ROOT, "a"), 0);
}

Test(adopt, listing_begun_before_a_change_does_not_undo_it)
{
	struct cat_found stale = object("gone", "v", 1);
	int64_t begun;

	commit(make_file(ROOT, "gone"), 1);
	finish_jobs();
	begun = clock_wall();
	cr_assert_eq(remove_file(ROOT, "gone"), 0);
	commit(make_file(ROOT, "new"), 2);
	finish_jobs();
	cr_assert_eq(adopt_at(ROOT, &stale, 1, begun), 0);
	cr_assert_eq(ino_of(ROOT, "gone"), 0);
	cr_assert_neq(ino_of(ROOT, "new"), 0);
}

Test(adopt, upload_that_overtook_the_listing_is_not_taken_for_a_strangers)
{
	struct cat_found stale = object("a", "before", 1);
	uint64_t ino = make_file(ROOT, "a");
	int64_t begun;

	commit(ino, 1);
	finish_jobs();
	begun = clock_wall();
	commit(ino, 2);
	finish_jobs();
	cr_assert_eq(adopt_at(ROOT, &stale, 1, begun), 0);
	cr_assert_eq(ino_of(ROOT, "a"), ino);
}

Test(adopt, names_of_a_moved_directory_wait_until_their_objects_have_followed)
{
	uint64_t dir = make_dir(ROOT, "old"), ino = make_file(dir, "a"), fresh;
	struct cat_found left = {.name = "a", .key = "old/a", .etag = "x", .size = 1};

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(move(ROOT, "old", ROOT, "new"), 0);
	fresh = make_dir(ROOT, "old");
	adopt(dir, NULL, 0);
	cr_assert_eq(ino_of(dir, "a"), ino, "not yet at new/a, so its absence there says nothing");
	adopt(fresh, &left, 1);
	cr_assert_eq(ino_of(fresh, "a"), 0, "what still lies at old/a is the moved file's");
}

/* Directory d becomes e; its file's object still lies at d/a, and has a job. */
static void move_with_its_file(uint64_t ino)
{
	struct cat_job job;

	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(catalog_update(catalog, put_place, &(struct cat_job){.ino = ino, .key = (char *)"d/a"}), 0);
	finish_job(&job); /* the tree's: what it held has jobs of its own now */
	cat_job_clear(&job);
}

/* As the worker does once the object is gone. */
static int forget_key(struct cat_txn *txn, void *arg)
{
	return cat_key_delete(txn, 0, arg);
}

/* A listing that began while there were jobs, and is adopted when these are done. */
static void adopt_over(struct cat_watch *watch, const char *gone, const struct cat_found *found, size_t count)
{
	struct cat_adopt request = {.dir = ROOT,
				    .found = found,
				    .count = count,
				    .file_mode = 0640,
				    .dir_mode = 0750,
				    .listed_at = clock_wall(),
				    .watch = watch};

	finish_jobs();
	cr_assert_eq(catalog_update(catalog, forget_key, (void *)gone), 0);
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	(void)assert_clean();
}

static struct cat_watch *watch_root(void)
{
	struct cat_watch *watch;

	cr_assert_eq(catalog_watch(catalog, "", &watch), 0);
	return watch;
}

Test(adopt, a_removal_that_ended_while_the_listing_was_read_is_not_undone)
{
	struct cat_found stale[] = {object("a", "v", 1), object("b", "theirs", 1)};
	struct cat_watch *watch;

	adopt(ROOT, NULL, 0);
	commit(make_file(ROOT, "a"), 1);
	finish_jobs();
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	watch = watch_root();
	adopt_over(watch, "a", stale, 2);
	cr_assert_eq(ino_of(ROOT, "a"), 0, "what was removed is there again");
	cr_assert_neq(ino_of(ROOT, "b"), 0, "what others made is not there");
	cat_watch_free(watch);
	watch = watch_root();
	adopt_over(watch, "a", stale, 1);
	cr_assert_neq(ino_of(ROOT, "a"), 0, "what is there after all our work was done is others'");
	cat_watch_free(watch);
}

Test(adopt, a_directory_that_moved_away_while_the_listing_was_read_does_not_come_back)
{
	struct cat_found stale[] = {prefix("d", "d/")};
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");
	struct cat_watch *watch;

	adopt(ROOT, stale, 1);
	commit(ino, 1);
	finish_jobs();
	move_with_its_file(ino);
	watch = watch_root();
	adopt_over(watch, "d/a", stale, 1);
	cr_assert_eq(ino_of(ROOT, "d"), 0, "for +at it was there");
	cr_assert_eq(ino_of(ROOT, "e"), dir, "it was not there yet when its parent was listed");
	cr_assert_eq(ino_of(dir, "a"), ino);
	cat_watch_free(watch);
}

Test(adopt, nothing_is_believed_of_a_directory_that_was_moved_while_it_was_listed)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");
	struct cat_adopt request = {.dir = dir};
	struct cat_watch *watch;

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(catalog_update(catalog, put_place, &(struct cat_job){.ino = dir, .key = (char *)"d"}), 0);
	request.listed_at = clock_wall();
	cr_assert_eq(catalog_watch(catalog, "d/", &watch), 0);
	request.watch = watch;
	finish_jobs();
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	cr_assert_eq(ino_of(dir, "a"), ino);
	cat_watch_free(watch);
}

/* --- clashes and strange names ------------------------------------------------------------------ */

Test(adopt, moved_directory_does_not_come_back_while_its_files_are_on_their_way)
{
	struct cat_found found = prefix("d", "d/");
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");

	commit(ino, 1);
	finish_jobs();
	move_with_its_file(ino);
	adopt(ROOT, &found, 1);
	cr_assert_eq(ino_of(ROOT, "d"), 0);
	finish_jobs();
	adopt(ROOT, &found, 1);
	cr_assert_neq(ino_of(ROOT, "d"), 0);
}

Test(adopt, file_beside_a_directory_of_its_name_gets_the_clash_name)
{
	struct cat_found found[] = {object("a", "e", 1), prefix("a", "a/")};
	uint64_t file;

	adopt(ROOT, found, 2);
	file = ino_of(ROOT, "%~=a");
	cr_assert_neq(file, 0);
	cr_assert(S_ISDIR(inode_of(ino_of(ROOT, "a")).mode));
	adopt(ROOT, found, 2);
	cr_assert_eq(ino_of(ROOT, "%~=a"), file);
	adopt(ROOT, found, 1);
	cr_assert_eq(ino_of(ROOT, "%~=a"), file, "the directory is gone, the file keeps its name");
	cr_assert_eq(ino_of(ROOT, "a"), 0);
	adopt(ROOT, NULL, 0);
	cr_assert_eq(ino_of(ROOT, "%~=a"), 0);
}

Test(adopt, known_file_moves_aside_for_a_directory)
{
	struct cat_found found[] = {object("a", "e", 1), prefix("a", "a/")};
	uint64_t file;

	adopt(ROOT, found, 1);
	file = ino_of(ROOT, "a");
	adopt(ROOT, found, 2);
	cr_assert_eq(ino_of(ROOT, "%~=a"), file);
	cr_assert(S_ISDIR(inode_of(ino_of(ROOT, "a")).mode));
	assert_history(ROOT, "%~=a", "R1*");
	assert_jobs("");
}

static int key_of_ino(struct cat_txn *txn, void *arg)
{
	struct buf *key = arg;
	uint64_t ino = 0;
	struct cat_name name;
	int rc = cat_name_get(txn, ROOT, key->data, &name);

	if (rc < 0)
		return rc;
	ino = name.ino;
	buf_reset(key);
	return cat_key_of(txn, ino, key);
}

Test(adopt, key_of_an_over_long_component_is_remembered)
{
	char component[400];
	struct buf name = BUF_INIT;
	struct cat_found found;

	memset(component, 'c', sizeof(component));
	component[399] = '\0';
	cr_assert(escape_component(component, 399, &name));
	found = object(name.data, "e", 1);
	found.component = component;
	found.key = component;
	adopt(ROOT, &found, 1);
	cr_assert_neq(ino_of(ROOT, name.data), 0);
	adopt(ROOT, &found, 1);
	cr_assert_eq(catalog_view(catalog, key_of_ino, &name), 0);
	cr_assert_str_eq(name.data, component);
	buf_free(&name);
}

Test(adopt, object_of_another_directory_is_not_taken)
{
	struct cat_found found[] = {{.name = "a", .key = "elsewhere/a", .etag = "e"},
				    {.name = "..", .key = "d/..", .etag = "e"}};
	uint64_t dir = make_dir(ROOT, "d");

	finish_jobs();
	adopt(dir, found, 2);
	cr_assert_eq(ino_of(dir, "a"), 0);
}

/* --- resolving ---------------------------------------------------------------------------------- */

static const uint8_t file_id[CAT_FILE_ID_SIZE] = "a file of ours!";

Test(adopt, head_of_our_own_object_restores_identity_and_owner)
{
	struct cat_found found = object("a", "e1", 5), head = found;
	struct cat_inode inode;
	struct cat_entry entry = {0};
	struct buf text = BUF_INIT;

	adopt(ROOT, &found, 1);
	head.mode = S_IFREG | 04755;
	head.uid = 1;
	head.gid = 2;
	head.mtime = T0 - 5;
	head.file_id = file_id;
	head.seq = UINT64_C(1) << 40;
	head.commit_ns = T0 + 7 * NS_PER_MS;
	head.native_id = "v9";
	cr_assert_eq(catalog_resolve(catalog, ino_of(ROOT, "a"), &head, NULL, &inode), 0);
	cr_assert_eq(inode.mode, S_IFREG | 0755, "set-id bits are never taken from a bucket");
	cr_assert(inode.uid == 1 && inode.gid == 2 && inode.mtime == T0 - 5);
	cr_assert_not(inode.flags & CAT_UNRESOLVED);
	cr_assert_arr_eq(inode.file_id, file_id, sizeof(file_id));
	assert_history(ROOT, "a", "A5*");
	(void)entry;
	cr_assert_gt(commit(inode.ino, 6).seq, head.seq, "numbers in the store are never given again");
	cr_assert_eq(catalog_resolve(catalog, inode.ino, &head, NULL, &inode), 0);
	cr_assert_eq(inode.size, 6, "resolved once only");
	buf_free(&text);
}

Test(adopt, head_of_another_object_than_listed_is_stale)
{
	struct cat_found found = object("a", "e1", 5), head = object("a", "e2", 5);
	struct cat_inode inode;

	adopt(ROOT, &found, 1);
	cr_assert_eq(catalog_resolve(catalog, ino_of(ROOT, "a"), &head, NULL, &inode), -ESTALE);
	head.etag = "e1";
	head.size = 6;
	cr_assert_eq(catalog_resolve(catalog, ino_of(ROOT, "a"), &head, NULL, &inode), -ESTALE);
	cr_assert(inode_of(ino_of(ROOT, "a")).flags & CAT_UNRESOLVED);
}

static int read_target(struct cat_txn *txn, void *arg)
{
	return cat_symlink_get(txn, ino_of(ROOT, "l") ? ROOT + 1 : 0, arg);
}

Test(adopt, object_that_turns_out_a_symlink_becomes_one)
{
	struct cat_found found = object("l", "e1", 5), head = found;
	struct buf target = BUF_INIT;
	struct cat_inode inode;

	adopt(ROOT, &found, 1);
	head.target = "there";
	head.mode = S_IFLNK | 0777;
	cr_assert_eq(catalog_resolve(catalog, ino_of(ROOT, "l"), &head, NULL, &inode), 0);
	cr_assert(S_ISLNK(inode.mode));
	cr_assert_eq(inode.version, 0);
	cr_assert_eq(inode.ino, ROOT + 1);
	cr_assert_eq(catalog_view(catalog, read_target, &target), 0);
	cr_assert_str_eq(target.data, "there");
	(void)assert_clean();
	adopt(ROOT, &found, 1);
	cr_assert_eq(ino_of(ROOT, "l"), inode.ino);
	buf_free(&target);
}

Test(adopt, device_nodes_are_never_taken_from_a_bucket)
{
	struct cat_found found = object("dev", "e1", 0);

	found.resolved = true;
	found.mode = S_IFBLK | 06777;
	adopt(ROOT, &found, 1);
	cr_assert_eq(inode_of(ino_of(ROOT, "dev")).mode, S_IFREG | 0777);
}

/* --- older versions ----------------------------------------------------------------------------- */

static struct cat_found older(const char *id, uint64_t size, int64_t seconds)
{
	return (struct cat_found){.name = "a",
				  .key = "a",
				  .native_id = id,
				  .etag = id,
				  .size = size,
				  .modified_ns = T0 + seconds * NS_PER_SEC};
}

Test(adopt, older_versions_are_shown_in_order_of_time)
{
	struct cat_found listed = older("v5", 5, 50);
	struct cat_found found[] = {older("v3", 3, 30), older("v5", 5, 50), older("v1", 1, 10), older("v2", 2, 20)};
	struct cat_found more = older("v4", 4, 40), late = older("v9", 9, 90);
	uint64_t ino;

	adopt(ROOT, &listed, 1);
	ino = ino_of(ROOT, "a");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, found, 4), 0);
	assert_history(ROOT, "a", "A1 A2 A3 A5*");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, found, 4), 0);
	assert_history(ROOT, "a", "A1 A2 A3 A5*");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, &more, 1), 0);
	assert_history(ROOT, "a", "A1 A2 A3 A4 A5*");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, &late, 1), 0);
	cr_assert_neq(inode_of(ino).size, 9, "an old version is not news");
	commit(ino, 10);
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	(void)assert_clean();
}

static int take_seq(void *arg, const struct cat_version *version)
{
	uint64_t **at = arg;

	*(*at)++ = version->seq;
	return 0;
}

struct seqs {
	uint64_t ino, *at;
};

static int each_seq(struct cat_txn *txn, void *arg)
{
	struct seqs *seqs = arg;

	return cat_version_each(txn, seqs->ino, 0, UINT64_MAX, take_seq, &seqs->at);
}

/* Cache files and inode numbers of versions are by their sequence number alone. */
Test(adopt, older_versions_share_no_number_with_another_files)
{
	struct cat_found found[] = {object("a", "e1", 1), object("b", "e2", 2), object("c", "e3", 3)};
	uint64_t numbers[200];
	struct seqs seqs = {.at = numbers};
	char ids[120][16];

	adopt(ROOT, found, 3);
	for (int i = 0; i < 120; i++) {
		struct cat_found old = older(ids[i], (uint64_t)i + 10, i);

		(void)snprintf(ids[i], sizeof(ids[i]), "id%d", i);
		old.key = found[i % 3].key;
		old.modified_ns = T0 - (i % 7) * NS_PER_SEC;
		cr_assert_eq(catalog_adopt_versions(catalog, ino_of(ROOT, found[i % 3].name), &old, 1), 0);
	}
	for (int i = 0; i < 3; i++) {
		seqs.ino = ino_of(ROOT, found[i].name);
		cr_assert_eq(catalog_view(catalog, each_seq, &seqs), 0);
	}
	cr_assert_eq(seqs.at - numbers, 123);
	for (uint64_t *one = numbers; one < seqs.at; one++) {
		for (uint64_t *other = one + 1; other < seqs.at; other++)
			cr_assert_neq(*one, *other, "%" PRIu64 " is given twice", *one);
	}
}

Test(adopt, version_listed_without_id_learns_it_instead_of_doubling)
{
	struct cat_found listed = older("v5", 5, 50), found = older("v5", 5, 50);

	listed.native_id = NULL;
	listed.etag = found.etag = "etag";
	adopt(ROOT, &listed, 1);
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(ROOT, "a"), &found, 1), 0);
	assert_history(ROOT, "a", "A5*");
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(ROOT, "a"), &found, 1), 0);
	assert_history(ROOT, "a", "A5*");
}

/* Its record is about to be written, or never was. */
Test(adopt, a_copy_of_what_others_made_is_no_version_of_its_own)
{
	struct cat_found listed = older("v5", 5, 50), copy = older("copied", 5, 90);
	struct cat_inode inode;

	adopt(ROOT, &listed, 1);
	inode = inode_of(ino_of(ROOT, "a"));
	copy.resolved = true;
	copy.mode = S_IFREG | 0644;
	copy.key = "b";
	copy.file_id = inode.file_id;
	copy.seq = inode.version;
	copy.commit_ns = listed.modified_ns;
	copy.origin = CAT_ORIGIN_EXTERNAL;
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	cr_assert_eq(catalog_adopt_versions(catalog, inode.ino, &copy, 1), 0);
	assert_history(ROOT, "b", "R5*");
	copy.commit_ns--; /* of another machine, that gave it the same number */
	cr_assert_eq(catalog_adopt_versions(catalog, inode.ino, &copy, 1), 0);
	assert_history(ROOT, "b", "R5 R5*");
}

static int shown_grows(void *arg, const struct cat_entry *entry)
{
	int64_t *last = arg;

	cr_assert_gt(entry->version.shown_ms, *last);
	*last = entry->version.shown_ms;
	return 0;
}

Test(adopt, thousands_of_versions_of_one_moment_find_room)
{
	struct cat_found listed = older("now", 5, 50), *found = calloc(3000, sizeof(*found));
	char ids[3000][16];
	int64_t shown = INT64_MIN;

	adopt(ROOT, &listed, 1);
	for (int i = 0; i < 3000; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "id%d", i);
		found[i] = older(ids[i], (uint64_t)i + 1, i % 2 ? 50 : 10);
	}
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(ROOT, "a"), found, 3000), 0);
	cr_assert_eq(catalog_history(catalog, ROOT, "a", shown_grows, &shown), 0);
	cr_assert_eq(assert_clean().versions, 3001);
	free(found);
}

/* --- names of the past alone -------------------------------------------------------------------- */

static int deleted(uint64_t dir, const char *name, const struct cat_found *versions, size_t count)
{
	struct cat_deleted request = {
		.dir = dir,
		.name = name,
		.key = versions ? versions[0].key : name,
		.directory = !versions,
		.since_ns = T0,
		.until_ns = T0 + 1000 * NS_PER_SEC,
		.file_mode = 0640,
		.dir_mode = 0750,
		.versions = versions,
		.count = count,
	};

	return catalog_adopt_deleted(catalog, &request);
}

static int take_past_name(void *arg, const struct cat_past *past)
{
	*(struct cat_past *)arg = *past;
	return 0;
}

Test(adopt, a_key_that_holds_only_older_versions_is_a_past_name)
{
	struct cat_found found[] = {older("v2", 2, 20), older("v1", 1, 10)};
	struct cat_past past = {0};

	cr_assert_eq(deleted(ROOT, "a", found, 2), 0);
	assert_history(ROOT, "a", "A1 A2");
	cr_assert_eq(ino_of(ROOT, "a"), 0);
	cr_assert_eq(catalog_past(catalog, ROOT, "a", take_past_name, &past), 0);
	cr_assert_eq(past.until_ns, T0 + 1000 * NS_PER_SEC, "the marker's time");
	cr_assert_eq(past.since_ns, T0 + 10 * NS_PER_SEC);
	cr_assert(past.began == CAT_HOW_ADOPT && past.ended == CAT_HOW_VANISH);
	cr_assert_eq(deleted(ROOT, "a", found, 2), 0);
	assert_history(ROOT, "a", "A1 A2");
	assert_jobs("");
	make_file(ROOT, "a"); /* the name is free */
}

Test(adopt, deleted_versions_go_to_whoever_had_the_name_then)
{
	struct cat_found listed = older("v5", 5, 50);
	struct cat_found found[] = {older("v3", 3, 30), older("v5", 5, 50), older("v7", 7, 70), older("v8", 8, 80)};
	uint64_t ino;

	adopt(ROOT, &listed, 1);
	ino = ino_of(ROOT, "a");
	adopt(ROOT, NULL, 0);
	cr_assert_eq(deleted(ROOT, "a", found, 4), 0);
	assert_history(ROOT, "a", "A3 A5 A7 A8");
	cr_assert_eq(inode_of(ino).size, 5);
}

Test(adopt, what_lives_or_is_on_its_way_is_not_deleted)
{
	struct cat_found found = older("v1", 1, 10);
	uint64_t ino = make_file(ROOT, "a");

	cr_assert_eq(deleted(ROOT, "a", &found, 1), 0);
	assert_history(ROOT, "a", "");
	commit(ino, 3);
	finish_jobs();
	cr_assert_eq(deleted(ROOT, "a", &found, 1), 0);
	assert_history(ROOT, "a", "3*");
	cr_assert_eq(remove_file(ROOT, "a"), 0); /* its marker is not there yet */
	cr_assert_eq(deleted(ROOT, "a", &found, 1), 0);
	assert_history(ROOT, "a", "3");
	finish_jobs();
}

static int key_ever(struct cat_txn *txn, void *arg)
{
	return cat_key_ever(txn, *(uint64_t *)arg, &changes);
}

Test(adopt, directories_of_which_nothing_is_left_have_a_key_and_names_of_their_own)
{
	struct cat_found found = older("v1", 1, 10);
	struct cat_past dir = {0}, deeper = {0};

	cr_assert_eq(deleted(ROOT, "d", NULL, 0), 0);
	cr_assert_eq(catalog_past(catalog, ROOT, "d", take_past_name, &dir), 0);
	cr_assert_eq(dir.type, S_IFDIR);
	cr_assert_eq(deleted(dir.ino, "e", NULL, 0), 0);
	cr_assert_eq(catalog_past(catalog, dir.ino, "e", take_past_name, &deeper), 0);
	buf_free(&changes);
	cr_assert_eq(catalog_view(catalog, key_ever, &deeper.ino), 0);
	cr_assert_str_eq(changes.data, "d/e/");
	found.key = "d/e/a";
	cr_assert_eq(deleted(deeper.ino, "a", &found, 1), 0);
	assert_history(deeper.ino, "a", "A1");
	cr_assert_eq(deleted(ROOT, "d", NULL, 0), 0, "once is enough");
	cr_assert_eq(assert_clean().past_names, 3);
}

Test(adopt, deleted_versions_are_of_the_directory_with_whose_past_a_new_one_goes_on)
{
	struct cat_found found = older("v1", 1, 10), other = older("v2", 2, 20);
	uint64_t dir, moved;

	cr_assert_eq(deleted(ROOT, "d", NULL, 0), 0);
	dir = make_dir(ROOT, "d");
	found.key = "d/a";
	cr_assert_eq(deleted(dir, "a", &found, 1), 0);
	assert_history(dir, "a", "A1");
	/* Not of one that came here from elsewhere, nor of one after that. */
	moved = make_dir(ROOT, "moved");
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	cr_assert_eq(move(ROOT, "moved", ROOT, "d"), 0);
	other.key = "d/b";
	cr_assert_eq(deleted(moved, "b", &other, 1), 0);
	cr_assert_eq(move(ROOT, "d", ROOT, "moved"), 0);
	dir = make_dir(ROOT, "d");
	cr_assert_eq(deleted(dir, "b", &other, 1), 0);
	cr_assert_eq(catalog_past(catalog, moved, "b", take_past_name, &(struct cat_past){0}), 0);
	cr_assert_eq(assert_clean().versions, 1);
	finish_jobs();
}

Test(adopt, older_versions_are_not_of_a_directory_that_came_later)
{
	struct cat_found found[] = {older("v1", 1, 10), older("v2", 2, 20)};
	uint64_t dir = make_dir(ROOT, "was"), deeper = make_dir(dir, "e"), ino, back;

	commit(make_file(deeper, "a"), 3);
	cr_assert_eq(move(ROOT, "was", ROOT, "d"), 0);
	finish_jobs();
	found[0].key = "d/e/a"; /* others put and deleted it when all of d was another */
	found[1].key = "elsewhere/a";
	ino = ino_of(deeper, "a");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, found, 1), 0);
	assert_history(deeper, "a", "3*");
	cr_assert_eq(catalog_adopt_versions(catalog, ino, found + 1, 1), 0);
	assert_history(deeper, "a", "2 3*");
	/* A directory that comes back to its name had it then. */
	cr_assert_eq(deleted(ROOT, "x", NULL, 0), 0);
	back = make_dir(ROOT, "x");
	commit(make_file(back, "a"), 4);
	cr_assert_eq(move(ROOT, "x", ROOT, "y"), 0);
	cr_assert_eq(move(ROOT, "y", ROOT, "x"), 0);
	finish_jobs();
	found[0].key = "x/a";
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(back, "a"), found, 1), 0);
	assert_history(back, "a", "1 4*");
	(void)assert_clean();
}

Test(adopt, older_versions_are_of_what_others_had_before_our_directory)
{
	struct cat_found listed = older("v5", 5, 50), found = older("v3", 3, 30), moved = older("v1", 1, 10);
	uint64_t dir = make_dir(ROOT, "d");

	listed.key = found.key = "d/a";
	adopt(dir, &listed, 1);
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(dir, "a"), &found, 1), 0);
	assert_history(dir, "a", "A3 A5*");
	/* Not where it came with the directory. */
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	finish_jobs();
	moved.key = "e/a";
	cr_assert_eq(catalog_adopt_versions(catalog, ino_of(dir, "a"), &moved, 1), 0);
	assert_history(dir, "a", "A3 A5*");
	(void)assert_clean();
}

Test(adopt, more_deleted_versions_than_one_update_takes)
{
	struct cat_found *found = calloc(1200, sizeof(*found));
	char ids[1200][16];
	int64_t shown = INT64_MIN;

	for (int i = 0; i < 1200; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "id%d", i);
		found[i] = older(ids[i], (uint64_t)i + 1, i);
	}
	cr_assert_eq(deleted(ROOT, "a", found, 1200), 0);
	cr_assert_eq(catalog_history(catalog, ROOT, "a", shown_grows, &shown), 0);
	cr_assert_eq(assert_clean().versions, 1200);
	free(found);
}

Test(adopt, null_version_written_over_is_another_object)
{
	struct cat_found first = older("null", 5, 50), second = older("null", 6, 60);

	first.etag = "e1";
	second.etag = "e2";
	adopt(ROOT, &first, 1);
	adopt(ROOT, &first, 1);
	assert_history(ROOT, "a", "A5*");
	adopt(ROOT, &second, 1);
	assert_history(ROOT, "a", "A5 A6*");
}

/* --- what had to stand aside --------------------------------------------------------------------- */

Test(adopt, a_conflict_gives_the_name_to_the_object_that_was_first)
{
	struct cat_found found = object("a", "theirs", 7);
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 3);
	struct cat_copy copy = {
		.ino = ino, .seq = version.seq, .key = (char *)".varve/versions/x/1", .etag = (char *)"e"};
	struct cat_job job;

	cr_assert_eq(catalog_conflict(catalog, ino, version.seq), 0);
	adopt(ROOT, &found, 1);
	cr_assert_eq(ino_of(ROOT, "a"), ino, "not before ours is safe");
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, NULL), 0);
	cat_job_clear(&job);
	adopt(ROOT, &found, 1);
	cr_assert_neq(ino_of(ROOT, "a"), ino);
	assert_history(ROOT, "a", "3 A7*");
	cr_assert(inode_of(ino).flags & CAT_TAKEN);
	version = commit(ino, 4); /* by one who still had it open */
	assert_history(ROOT, "a", "3 A7* 4");
	finish_jobs();
}

/* Their jobs met others' objects, and put nothing. */
Test(adopt, a_symlink_or_a_further_name_gives_way_to_the_object_that_was_first)
{
	struct cat_found found[] = {object("a", NULL, 3), object("b", "theirs", 7), object("s", "theirs", 8)};
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode inode;
	char id[32];

	(void)snprintf(id, sizeof(id), "v%" PRIu64, commit(ino, 3).seq);
	found[0].native_id = found[0].etag = id;
	cr_assert_eq(catalog_link(catalog, ino, ROOT, "b", actor, &inode), 0);
	(void)make(ROOT, "s", S_IFLNK | 0777);
	adopt(ROOT, found, 3);
	cr_assert_eq(ino_of(ROOT, "b"), ino, "not before its job is done");
	finish_jobs();
	adopt(ROOT, found, 3);
	assert_history(ROOT, "b", "L3 A7*");
	cr_assert_eq(inode_of(ino_of(ROOT, "s")).size, 8);
	cr_assert_eq(inode_of(ino).nlink, 1);
	finish_jobs();
}

/* What was written before the second one went is no more the first one's than what came later. */
Test(adopt, names_taken_one_after_the_other_do_not_share_what_was_written_since)
{
	struct cat_found found[] = {object("a", "theirs", 7), object("b", "marker", 0)};
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode inode;

	(void)commit(ino, 3);
	cr_assert_eq(catalog_link(catalog, ino, ROOT, "b", actor, &inode), 0);
	finish_jobs();
	adopt(ROOT, found, 1);
	cr_assert_neq(ino_of(ROOT, "a"), ino);
	finish_jobs();
	(void)commit(ino, 5);
	finish_jobs();
	found[1] = object("b", "theirs", 8);
	adopt(ROOT, found, 2);
	cr_assert_neq(ino_of(ROOT, "b"), ino);
	(void)commit(ino, 6); /* by one who still had it open */
	assert_history(ROOT, "a", "3 A7*");
	assert_history(ROOT, "b", "L3 5 A8* 6");
}

/* --- failures ----------------------------------------------------------------------------------- */

Test(adopt, listing_that_fails_anywhere_is_just_listed_again)
{
	struct cat_found first[] = {object("a", "e1", 1), object("b", "e2", 2)};
	struct cat_found second[] = {object("a", "e9", 9), object("c", "e3", 3), prefix("c", "c/")};
	long nth;

	adopt(ROOT, first, 2);
	for (nth = 0; nth < 1000; nth++) {
		int rc;

		kv_memory_fail_at(nth);
		rc = adopt_at(ROOT, second, 3, clock_wall());
		kv_memory_fail_at(-1);
		(void)assert_clean();
		if (rc == 0)
			break;
		cr_assert_eq(rc, -EIO);
	}
	cr_assert(nth > 20 && nth < 1000);
	cr_assert_eq(ino_of(ROOT, "b"), 0);
	cr_assert_neq(ino_of(ROOT, "%~=c"), 0);
	assert_history(ROOT, "a", "A1 A9*");
}

/* --- hard links ----------------------------------------------------------------------------------- */

static const uint8_t file_x[CAT_FILE_ID_SIZE] = "the file's id", file_y[CAT_FILE_ID_SIZE] = "another's id";

static struct cat_found told(const char *name, const char *key, uint64_t size)
{
	return (struct cat_found){.name = name,
				  .key = key,
				  .etag = key,
				  .size = size,
				  .modified_ns = T0,
				  .mtime = T0,
				  .mode = S_IFREG | 0600,
				  .resolved = true,
				  .file_id = file_x,
				  .seq = 7,
				  .commit_ns = T0};
}

static struct cat_found marker(const char *name, const char *key)
{
	struct cat_found found = told(name, key, 0);

	found.link_id = file_x;
	return found;
}

struct place {
	uint64_t ino;
	const char *key;
};

static int belongs_at(struct cat_txn *txn, void *arg)
{
	const struct place *place = arg;
	struct buf key = BUF_INIT;
	int rc = cat_key_of(txn, place->ino, &key);

	if (rc == 0)
		rc = strcmp(key.data, place->key);
	buf_free(&key);
	return rc;
}

Test(adopt, hard_links_join_their_file_whatever_is_listed_first)
{
	struct cat_found dirs[] = {prefix("d", "d/"), prefix("e", "e/"), prefix("f", "f/")};
	struct cat_found early = marker("early", "d/early"), file = told("x", "e/x", 5),
			 late = marker("late", "f/late");
	uint64_t ino, waited;

	adopt(ROOT, dirs, 3);
	adopt(ino_of(ROOT, "d"), &early, 1);
	waited = ino_of(ino_of(ROOT, "d"), "early");
	cr_assert_eq(inode_of(waited).size, 0);
	adopt(ino_of(ROOT, "e"), &file, 1);
	cr_assert_neq(changes.len, 0, "the kernel may know the empty file");
	adopt(ino_of(ROOT, "f"), &late, 1);
	ino = ino_of(ino_of(ROOT, "e"), "x");
	cr_assert_neq(ino, waited);
	cr_assert_eq(ino_of(ino_of(ROOT, "d"), "early"), ino);
	cr_assert_eq(ino_of(ino_of(ROOT, "f"), "late"), ino);
	cr_assert_eq(inode_of(ino).nlink, 3);
	cr_assert_eq(inode_of(ino).size, 5);
	cr_assert_eq(inode_of(waited).nlink, 0);
	cr_assert_eq(catalog_view(catalog, belongs_at, &(struct place){ino, "e/x"}), 0,
		     "the links are the younger names");
	assert_history(ino_of(ROOT, "d"), "early", "A5*");
	assert_jobs("");
	/* The same again is no news. */
	adopt(ino_of(ROOT, "d"), &early, 1);
	adopt(ino_of(ROOT, "e"), &file, 1);
	cr_assert_eq(inode_of(ino).nlink, 3);
	/* One is removed by others. */
	adopt(ino_of(ROOT, "d"), NULL, 0);
	cr_assert_eq(inode_of(ino).nlink, 2);
}

Test(adopt, hard_link_known_from_a_listing_joins_when_it_is_asked_about)
{
	struct cat_found listed[] = {object("link", "l", 0), object("x", "x", 5)};
	struct cat_found link = marker("link", "link"), file = told("x", "x", 5);
	struct cat_inode inode;
	uint64_t waited;

	link.etag = "l";
	adopt(ROOT, listed, 2);
	waited = ino_of(ROOT, "link");
	cr_assert_eq(catalog_resolve(catalog, waited, &link, NULL, &inode), 0);
	cr_assert_eq(inode.ino, waited, "nobody has the id yet");
	cr_assert_eq(catalog_resolve(catalog, ino_of(ROOT, "x"), &file, NULL, &inode), 0);
	cr_assert_eq(ino_of(ROOT, "link"), inode.ino);
	cr_assert_eq(inode_of(inode.ino).nlink, 2);
	(void)assert_clean();
}

Test(adopt, empty_file_that_was_changed_here_is_no_link_any_more)
{
	struct cat_found link = marker("link", "link"), both[] = {link, told("x", "x", 5)};
	uint64_t waited;

	adopt(ROOT, &link, 1);
	waited = ino_of(ROOT, "link");
	(void)commit(waited, 3);
	adopt(ROOT, both, 2);
	cr_assert_eq(ino_of(ROOT, "link"), waited);
	cr_assert_eq(inode_of(ino_of(ROOT, "x")).nlink, 1);
}

/* --- versions of other keys ------------------------------------------------------------------------ */

#define ASIDE_KEY ".varve/versions/00/07"

Test(adopt, conflict_beside_a_file_is_a_version_of_it)
{
	struct cat_found file = told("x", "x", 5), aside = told(NULL, ASIDE_KEY, 6);
	uint64_t ino, current;

	adopt(ROOT, &file, 1);
	ino = ino_of(ROOT, "x");
	current = inode_of(ino).version;
	aside.origin = CAT_ORIGIN_CONFLICT;
	aside.commit_ns = T0 + NS_PER_SEC; /* the same number, given by two machines */
	cr_assert_eq(catalog_adopt_aside(catalog, file_y, &aside, 1), -ENOENT);
	for (int again = 0; again < 2; again++) {
		cr_assert_eq(catalog_adopt_aside(catalog, file_x, &aside, 1), 0);
		cr_assert_eq(inode_of(ino).version, current);
		assert_history(ROOT, "x", "A5* 6");
		(void)assert_clean();
	}
	aside.seq = 9;
	aside.commit_ns++;
	for (int copy = 0; copy < 2; copy++) { /* two copies of one version are one */
		aside.key = aside.etag = copy ? "another place" : "yet another";
		cr_assert_eq(catalog_adopt_aside(catalog, file_x, &aside, 1), 0);
		assert_history(ROOT, "x", "A5* 6 6");
	}
}
