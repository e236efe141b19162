/* names.c - the live tree: POSIX rules, link counts, times, cookies, jobs, and all of it undone when a call fails. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

#include <stdarg.h>

TestSuite(names, .init = setup, .fini = teardown);

static char expected[256];

static const char *format(const char *text, ...) __attribute__((format(printf, 1, 2)));
static const char *format(const char *text, ...)
{
	va_list args;

	va_start(args, text);
	(void)vsnprintf(expected, sizeof(expected), text, args);
	va_end(args);
	return expected;
}

static int create_rc(uint64_t parent, const char *name)
{
	struct cat_create request = {.parent = parent, .name = name, .mode = S_IFREG | 0600};
	struct cat_inode inode;

	return catalog_create(catalog, &request, &inode);
}

static int rmdir_rc(uint64_t parent, const char *name)
{
	struct cat_unlinked unlinked;

	return catalog_rmdir(catalog, parent, name, actor, &unlinked);
}

static uint64_t link_to(uint64_t ino, uint64_t parent, const char *name)
{
	struct cat_inode inode;

	cr_assert_eq(catalog_link(catalog, ino, parent, name, actor, &inode), 0);
	return inode.nlink;
}

Test(names, new_catalog_has_an_empty_root_as_asked)
{
	struct cat_inode root = inode_of(ROOT);

	cr_assert(S_ISDIR(root.mode));
	cr_assert_eq(root.mode & 07777, 0755);
	cr_assert_eq(root.uid, 7);
	cr_assert_eq(root.gid, 8);
	cr_assert_eq(root.nlink, 2);
	cr_assert_eq(root.parent, ROOT);
}

Test(names, created_file_is_found_and_waits_for_its_first_close)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode inode = inode_of(ino);

	cr_assert_eq(ino_of(ROOT, "a"), ino);
	cr_assert_eq(inode.nlink, 1);
	cr_assert_eq(inode.version, 0);
	cr_assert_eq(inode.mtime, inode.btime);
	assert_jobs("");
}

Test(names, directory_symlink_and_fifo_are_placed_at_once)
{
	uint64_t dir = make_dir(ROOT, "d"), symlink = make(ROOT, "s", S_IFLNK | 0777), fifo = make(dir, "f", S_IFIFO);

	cr_assert_eq(inode_of(symlink).size, strlen("there"));
	assert_jobs(format("place %" PRIu64 "; place %" PRIu64 "; place %" PRIu64 "; ", dir, symlink, fifo));
}

Test(names, create_refuses_what_cannot_be)
{
	uint64_t file = make_file(ROOT, "a");
	char name[300];

	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	cr_assert_eq(create_rc(ROOT, "a"), -EEXIST);
	cr_assert_eq(create_rc(ROOT, name), -ENAMETOOLONG);
	cr_assert_eq(create_rc(file, "b"), -ENOTDIR);
	cr_assert_eq(create_rc(4711, "b"), -ENOENT);
	cr_assert_eq(create_rc(ROOT, ".."), -EINVAL);
	cr_assert_eq(create_rc(ROOT, "a/b"), -EINVAL);
	cr_assert_eq(create_rc(ROOT, ""), -EINVAL);
	cr_assert_eq(create_rc(ROOT, "%~zz"), -EINVAL, "no key has this name");
	name[255] = '\0';
	cr_assert_eq(create_rc(ROOT, name), 0);
	cr_assert_eq(ino_of(ROOT, name + 1), 0);
}

Test(names, lookup_of_an_impossible_name_finds_nothing)
{
	struct cat_inode inode;
	char name[300];

	memset(name, 'x', sizeof(name));
	name[299] = '\0';
	cr_assert_eq(catalog_lookup(catalog, ROOT, "nothing", &inode), -ENOENT);
	cr_assert_eq(catalog_lookup(catalog, ROOT, "", &inode), -ENOENT);
	cr_assert_eq(catalog_lookup(catalog, ROOT, name, &inode), -ENAMETOOLONG);
}

Test(names, parent_times_and_links_follow_its_children)
{
	struct cat_inode before = inode_of(ROOT), after;

	make_dir(ROOT, "d");
	after = inode_of(ROOT);
	cr_assert_eq(after.nlink, 3);
	cr_assert_gt(after.mtime, before.mtime);
	cr_assert_eq(after.ctime, after.mtime);
	cr_assert_eq(rmdir_rc(ROOT, "d"), 0);
	cr_assert_eq(inode_of(ROOT).nlink, 2);
}

Test(names, unlink_and_rmdir_keep_to_their_types)
{
	uint64_t dir = make_dir(ROOT, "d");

	make_file(dir, "a");
	cr_assert_eq(remove_file(ROOT, "d"), -EISDIR);
	cr_assert_eq(rmdir_rc(dir, "a"), -ENOTDIR);
	cr_assert_eq(rmdir_rc(ROOT, "d"), -ENOTEMPTY);
	cr_assert_eq(remove_file(dir, "b"), -ENOENT);
	cr_assert_eq(remove_file(dir, "a"), 0);
	cr_assert_eq(rmdir_rc(ROOT, "d"), 0);
	cr_assert_eq(inode_of(dir).nlink, 0);
	cr_assert_eq(create_rc(dir, "late"), -ENOENT);
}

Test(names, unlink_before_the_first_close_is_never_stored)
{
	uint64_t ino = make_file(ROOT, "a");

	cr_assert_eq(remove_file(ROOT, "a"), 0);
	cr_assert(inode_of(ino).flags & CAT_DISCARDED);
	assert_jobs("");
}

Test(names, unlink_of_a_stored_file_leaves_a_job_with_the_key)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");

	make_file(dir, "other");
	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(remove_file(dir, "a"), 0);
	cr_assert_eq(inode_of(ino).nlink, 0);
	assert_jobs(format("place %" PRIu64 " d/a; ", ino));
}

Test(names, directory_that_lost_its_last_child_is_kept_in_the_store)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(remove_file(dir, "a"), 0);
	assert_jobs(format("place %" PRIu64 " d/a; place %" PRIu64 "; ", ino, dir));
}

static int key_of(struct cat_txn *txn, void *arg)
{
	struct cat_copy *copy = arg;
	struct buf key = BUF_INIT;
	int rc = cat_key_of(txn, copy->ino, &key);

	if (rc == 0)
		copy->key = buf_detach(&key);
	buf_free(&key);
	return rc;
}

static void assert_key(uint64_t ino, const char *key)
{
	struct cat_copy copy = {.ino = ino};

	cr_assert_eq(catalog_view(catalog, key_of, &copy), 0);
	cr_assert_str_eq(copy.key, key);
	free(copy.key);
}

Test(names, object_lies_at_the_oldest_name_and_unlink_promotes_the_next)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(ROOT, "a");

	cr_assert_eq(link_to(ino, dir, "b"), 2);
	assert_key(ino, "a");
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	assert_key(ino, "d/b");
	cr_assert_eq(inode_of(ino).nlink, 1);
	cr_assert_not(inode_of(ino).flags & CAT_DISCARDED);
}

Test(names, key_joins_components_through_renamed_directories)
{
	uint64_t top = make_dir(ROOT, "top"), sub = make_dir(top, "sub"), ino = make_file(sub, "%~%01x");

	assert_key(ino, "top/sub/\001x");
	cr_assert_eq(move(ROOT, "top", ROOT, "summit"), 0);
	assert_key(ino, "summit/sub/\001x");
}

Test(names, directories_are_not_linked)
{
	uint64_t dir = make_dir(ROOT, "d");
	struct cat_inode inode;

	cr_assert_eq(catalog_link(catalog, dir, ROOT, "e", actor, &inode), -EPERM);
	cr_assert_eq(catalog_link(catalog, 999, ROOT, "e", actor, &inode), -ENOENT);
}

Test(names, rename_to_a_free_name_moves_the_inode)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(ROOT, "a");

	commit(ino, 1);
	finish_jobs();
	cr_assert_eq(move(ROOT, "a", dir, "b"), 0);
	cr_assert_eq(ino_of(ROOT, "a"), 0);
	cr_assert_eq(ino_of(dir, "b"), ino);
	assert_jobs(format("place %" PRIu64 " a; ", ino));
}

Test(names, rename_over_file_extends_history)
{
	uint64_t old = make_file(ROOT, "a"), new;

	commit(old, 1);
	commit(old, 2);
	new = make_file(ROOT, ".a.tmp");
	commit(new, 3);
	finish_jobs();
	cr_assert_eq(move(ROOT, ".a.tmp", ROOT, "a"), 0);
	cr_assert_eq(inode_of(old).nlink, 0);
	assert_history(ROOT, "a", "1 2 R3*");
	commit(new, 4);
	assert_history(ROOT, "a", "1 2 R3 4*");
	assert_history(ROOT, ".a.tmp", "3");
}

Test(names, rename_over_makes_jobs_for_both)
{
	uint64_t old = make_file(ROOT, "a"), new = make_file(ROOT, "b");

	commit(old, 1);
	commit(new, 2);
	finish_jobs();
	cr_assert_eq(move(ROOT, "b", ROOT, "a"), 0);
	assert_jobs(format("place %" PRIu64 " a; place %" PRIu64 " b; ", old, new));
}

Test(names, rename_of_a_directory_is_one_tree_job)
{
	uint64_t top = make_dir(ROOT, "top"), sub = make_dir(top, "sub"), other = make_dir(ROOT, "other");

	make_file(sub, "a");
	finish_jobs();
	cr_assert_eq(move(top, "sub", other, "moved"), 0);
	cr_assert_eq(inode_of(sub).parent, other);
	cr_assert_eq(inode_of(top).nlink, 2);
	cr_assert_eq(inode_of(other).nlink, 3);
	assert_jobs(format("tree %" PRIu64 " top/sub; place %" PRIu64 "; ", sub, top));
}

Test(names, rename_obeys_posix)
{
	uint64_t dir = make_dir(ROOT, "d"), sub = make_dir(dir, "sub"), full = make_dir(ROOT, "full"), ino;

	make_file(full, "x");
	ino = make_file(ROOT, "a");
	cr_assert_eq(move(ROOT, "d", sub, "in"), -EINVAL);
	cr_assert_eq(move(ROOT, "d", dir, "in"), -EINVAL);
	cr_assert_eq(move(ROOT, "d", ROOT, "full"), -ENOTEMPTY);
	cr_assert_eq(move(ROOT, "d", ROOT, "a"), -ENOTDIR);
	cr_assert_eq(move(ROOT, "a", ROOT, "d"), -EISDIR);
	cr_assert_eq(move(ROOT, "none", ROOT, "b"), -ENOENT);
	cr_assert_eq(move(ROOT, "a", 999, "b"), -ENOENT);
	cr_assert_eq(rename_flags(ROOT, "a", ROOT, "d", RENAME_NOREPLACE), -EEXIST);
	cr_assert_eq(rename_flags(ROOT, "a", ROOT, "none", RENAME_EXCHANGE), -ENOENT);
	cr_assert_eq(rename_flags(ROOT, "a", ROOT, "b", 1u << 7), -EINVAL);
	cr_assert_eq(rename_flags(ROOT, "a", ROOT, "b", RENAME_NOREPLACE), 0);
	cr_assert_eq(ino_of(ROOT, "b"), ino);
}

Test(names, rename_between_two_names_of_one_inode_does_nothing)
{
	uint64_t ino = make_file(ROOT, "a");

	link_to(ino, ROOT, "b");
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	cr_assert_eq(ino_of(ROOT, "a"), ino);
	cr_assert_eq(inode_of(ino).nlink, 2);
}

Test(names, rename_replaces_an_empty_directory)
{
	uint64_t dir = make_dir(ROOT, "d"), empty = make_dir(ROOT, "empty");

	make_file(dir, "a");
	cr_assert_eq(move(ROOT, "d", ROOT, "empty"), 0);
	cr_assert_eq(ino_of(ROOT, "empty"), dir);
	cr_assert_eq(inode_of(empty).nlink, 0);
	cr_assert_eq(inode_of(ROOT).nlink, 3);
}

Test(names, exchange_swaps_a_file_and_a_directory)
{
	uint64_t top = make_dir(ROOT, "top"), dir = make_dir(top, "d"), ino = make_file(ROOT, "a");

	commit(ino, 5);
	make_file(dir, "in");
	finish_jobs();
	cr_assert_eq(rename_flags(ROOT, "a", top, "d", RENAME_EXCHANGE), 0);
	cr_assert_eq(ino_of(ROOT, "a"), dir);
	cr_assert_eq(ino_of(top, "d"), ino);
	cr_assert_eq(inode_of(dir).parent, ROOT);
	cr_assert_eq(inode_of(ROOT).nlink, 4);
	cr_assert_eq(inode_of(top).nlink, 2);
	assert_jobs(format("place %" PRIu64 " a; tree %" PRIu64 " top/d; ", ino, dir));
	cr_assert_eq(rename_flags(top, "d", ROOT, "a", RENAME_EXCHANGE), 0);
	cr_assert_eq(ino_of(ROOT, "a"), ino);
	cr_assert_eq(rename_flags(ROOT, "top", top, "d", RENAME_EXCHANGE), -EINVAL);
	cr_assert_eq(rename_flags(top, "d", ROOT, "top", RENAME_EXCHANGE), -EINVAL);
}

/* --- readdir ------------------------------------------------------------------------------------ */

struct listing {
	struct buf names;
	uint64_t last;
	size_t stop;
};

static int list_one(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct listing *listing = arg;

	cr_assert_gt(name->cookie, listing->last);
	cr_assert(!inode || inode->ino == name->ino);
	listing->last = name->cookie;
	buf_addf(&listing->names, "%s ", name->name);
	return listing->stop && --listing->stop == 0 ? 77 : 0;
}

Test(names, readdir_goes_on_after_a_cookie_in_order_of_creation)
{
	struct listing listing = {.names = BUF_INIT};
	struct cat_readdir request = {.parent = ROOT, .max = 2, .with_inodes = true};

	make_file(ROOT, "z");
	make_file(ROOT, "a");
	make_file(ROOT, "m");
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	cr_assert_str_eq(listing.names.data, "z a ");
	request.after = listing.last;
	request.with_inodes = false;
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	cr_assert_str_eq(listing.names.data, "z a m ");
	request.after = listing.last;
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	request.after = UINT64_MAX;
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	cr_assert_str_eq(listing.names.data, "z a m ");
	buf_free(&listing.names);
}

static int list_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)inode;
	buf_addf(arg, "%s ", name->name);
	return 0;
}

Test(names, readdir_by_name_goes_on_after_a_name)
{
	AUTO_BUF names = BUF_INIT;
	uint64_t dir = make_dir(ROOT, "d");
	struct cat_readdir request = {.parent = dir, .after = 7, .max = 3, .after_name = "a"};

	make_file(dir, "z");
	make_file(dir, "ab");
	make_file(dir, "a");
	make_file(dir, "b");
	make_file(dir, "a\x01");
	make_file(ROOT, "aa");
	cr_assert_eq(catalog_readdir(catalog, &request, list_name, &names), 0);
	cr_assert_str_eq(names.data, "a\x01 ab b ");
	request.after_name = "aa"; /* need not be there */
	cr_assert_eq(catalog_readdir(catalog, &request, list_name, &names), 0);
	cr_assert_str_eq(names.data, "a\x01 ab b ab b z ");
	request.after_name = "z";
	cr_assert_eq(catalog_readdir(catalog, &request, list_name, &names), 0);
	cr_assert_str_eq(names.data, "a\x01 ab b ab b z ");
}

Test(names, readdir_stops_when_told)
{
	struct listing listing = {.names = BUF_INIT, .stop = 1};
	struct cat_readdir request = {.parent = ROOT, .max = 100};

	make_file(ROOT, "a");
	make_file(ROOT, "b");
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 77);
	cr_assert_str_eq(listing.names.data, "a ");
	request.parent = ino_of(ROOT, "a");
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), -ENOTDIR);
	buf_free(&listing.names);
}

Test(names, replaced_name_keeps_its_cookie_and_new_ones_are_never_given_twice)
{
	struct listing listing = {.names = BUF_INIT};
	struct cat_readdir request = {.parent = ROOT, .max = 1};

	make_file(ROOT, "a");
	make_file(ROOT, "tmp");
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	cr_assert_eq(move(ROOT, "tmp", ROOT, "a"), 0);
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	make_file(ROOT, "a");
	request.after = listing.last;
	cr_assert_eq(catalog_readdir(catalog, &request, list_one, &listing), 0);
	cr_assert_str_eq(listing.names.data, "a a ");
	buf_free(&listing.names);
}

/* --- attributes --------------------------------------------------------------------------------- */

Test(names, setattr_takes_only_what_the_mask_names)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode values = {.mode = S_IFDIR | 04600, .uid = 5, .gid = 6, .size = 7, .mtime = 8, .atime = 9};
	struct cat_inode before = inode_of(ino), after;

	cr_assert_eq(catalog_setattr(catalog, ino, CAT_SET_MODE | CAT_SET_SIZE, &values, &after), 0);
	cr_assert_eq(after.mode, S_IFREG | 04600);
	cr_assert_eq(after.size, 7);
	cr_assert_eq(after.uid, before.uid);
	cr_assert_eq(after.mtime, before.mtime);
	cr_assert_gt(after.ctime, before.ctime);
	cr_assert_eq(catalog_setattr(catalog, ino, CAT_SET_UID | CAT_SET_GID | CAT_SET_MTIME | CAT_SET_ATIME, &values,
				     &after),
		     0);
	cr_assert_eq(after.uid, 5);
	cr_assert_eq(after.gid, 6);
	cr_assert_eq(after.mtime, 8);
	cr_assert_eq(after.atime, 9);
	cr_assert_eq(inode_of(ino).atime, 9);
	cr_assert_eq(catalog_setattr(catalog, 999, CAT_SET_UID, &values, &after), -ENOENT);
}

Test(names, directory_gets_an_object_with_its_first_own_attribute_only)
{
	struct cat_inode values = {.mode = 0700}, after;
	uint64_t dir = make_dir(ROOT, "d");

	finish_jobs();
	cr_assert_eq(catalog_setattr(catalog, dir, CAT_SET_ATIME, &values, &after), 0);
	assert_jobs("");
	cr_assert_eq(catalog_setattr(catalog, dir, CAT_SET_MODE, &values, &after), 0);
	cr_assert(after.flags & CAT_OWN_ATTRS);
	cr_assert_eq(catalog_setattr(catalog, dir, CAT_SET_MODE, &values, &after), 0);
	assert_jobs(format("place %" PRIu64 "; ", dir));
}

static int show_xattr(void *arg, const char *name, const void *value, size_t len)
{
	buf_addf(arg, "%s=%.*s; ", name, (int)len, (const char *)value);
	return 0;
}

static int show_xattrs(struct cat_txn *txn, void *arg)
{
	return cat_xattr_each(txn, ROOT + 1, show_xattr, arg);
}

static int stop_at_xattr(void *arg, const char *name, const void *value, size_t len)
{
	(void)arg;
	(void)value;
	return strcmp(name, "user.a") == 0 && len == 3 ? 7 : -EBADMSG;
}

static int stop_at_first_xattr(struct cat_txn *txn, void *arg)
{
	return cat_xattr_each(txn, ROOT + 1, stop_at_xattr, arg);
}

Test(names, xattrs_are_visited_by_name)
{
	uint64_t ino = make_file(ROOT, "a"), next = make_file(ROOT, "b");
	struct buf out = BUF_INIT;

	cr_assert_eq(ino, ROOT + 1);
	cr_assert_eq(catalog_xattr_set(catalog, next, "user.other", "z", 1, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.b", "", 0, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.a", "one", 3, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_view(catalog, show_xattrs, &out), 0);
	cr_assert_str_eq(out.data, "user.a=one; user.b=; ");
	cr_assert_eq(catalog_view(catalog, stop_at_first_xattr, NULL), 7);
	buf_free(&out);
}

Test(names, xattrs_are_set_listed_and_removed)
{
	uint64_t ino = make_file(ROOT, "a"), next = make_file(ROOT, "b");
	struct buf out = BUF_INIT;

	cr_assert_eq(catalog_xattr_set(catalog, next, "user.other", "z", 1, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.x", "1\0002", 3, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.e", "", 0, CAT_XATTR_CREATE), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.x", "", 0, CAT_XATTR_CREATE), -EEXIST);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.y", "", 0, CAT_XATTR_REPLACE), -ENODATA);
	cr_assert_eq(catalog_xattr_get(catalog, ino, "user.x", &out), 0);
	cr_assert_eq(out.len, 3);
	cr_assert_arr_eq(out.data, "1\0002", 3);
	cr_assert_eq(catalog_xattr_list(catalog, ino, &out), 0);
	cr_assert_eq(out.len, 14);
	cr_assert_arr_eq(out.data, "user.e\0user.x", 14);
	cr_assert_eq(catalog_xattr_remove(catalog, ino, "user.x"), 0);
	cr_assert_eq(catalog_xattr_remove(catalog, ino, "user.x"), -ENODATA);
	cr_assert_eq(catalog_xattr_get(catalog, ino, "user.x", &out), -ENODATA);
	buf_free(&out);
}

Test(names, xattrs_of_an_inode_are_bounded)
{
	uint64_t ino = make_file(ROOT, "a");
	char *value = calloc(1, 64 << 10);

	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.x", value, 40 << 10, CAT_XATTR_SET), 0);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.y", value, 40 << 10, CAT_XATTR_SET), -ENOSPC);
	cr_assert_eq(catalog_xattr_set(catalog, ino, "user.x", value, 60 << 10, CAT_XATTR_SET), 0,
		     "replaced, not added");
	cr_assert_eq(catalog_xattr_set(catalog, ino, "", value, 1, CAT_XATTR_SET), -ERANGE);
	free(value);
}

/* --- failures ----------------------------------------------------------------------------------- */

static int op_create(void)
{
	return create_rc(ROOT, "new");
}

static int op_rename_over(void)
{
	return move(ROOT, "a", ROOT, "b");
}

static int op_rename_dir(void)
{
	return move(ROOT, "d", ROOT, "e");
}

static int op_exchange(void)
{
	return rename_flags(ROOT, "a", ROOT, "d", RENAME_EXCHANGE);
}

static int op_unlink(void)
{
	return remove_file(ROOT, "a");
}

static int op_link(void)
{
	struct cat_inode inode;

	return catalog_link(catalog, ROOT + 1, ROOT + 3, "l", actor, &inode);
}

static int op_xattr(void)
{
	return catalog_xattr_set(catalog, ROOT, "user.x", "1", 1, CAT_XATTR_SET);
}

static int op_commit(void)
{
	struct cat_commit request = {.ino = ROOT + 1, .size = 9};

	return catalog_commit(catalog, &request, NULL);
}

Test(names, operation_that_fails_anywhere_changes_nothing)
{
	static int (*const operations[])(void) = {op_create, op_rename_over, op_rename_dir, op_exchange,
						  op_unlink, op_link,        op_xattr,      op_commit};

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		struct buf before = BUF_INIT, after = BUF_INIT;
		uint64_t number;
		long nth;
		int rc;

		commit(make_file(ROOT, "a"), 1);
		commit(make_file(ROOT, "b"), 2);
		make_file(make_dir(ROOT, "d"), "in");
		jobs_text(&before);
		for (nth = 0; nth < 1000; nth++) {
			number = catalog_number(catalog);
			kv_memory_fail_at(nth);
			rc = operations[i]();
			kv_memory_fail_at(-1);
			if (rc == 0)
				break;
			cr_assert_eq(rc, -EIO, "operation %zu, call %ld: %d", i, nth, rc);
			cr_assert_eq(catalog_number(catalog), number);
			jobs_text(&after);
			cr_assert_str_eq(after.data, before.data);
		}
		cr_assert(nth > 3 && nth < 1000, "operation %zu succeeded after %ld calls", i, nth);
		buf_free(&before);
		buf_free(&after);
		teardown();
		catalog = NULL;
		setup();
	}
}

struct counter {
	int calls;
};

static void count_call(void *arg)
{
	((struct counter *)arg)->calls++;
	cr_assert_eq(ino_of(ROOT, "missing"), 0, "the catalog can be used from the callback");
}

Test(names, jobs_are_announced_after_the_update_that_added_them)
{
	struct counter counter = {0};

	catalog_on_jobs(catalog, count_call, &counter);
	make_file(ROOT, "a");
	cr_assert_eq(counter.calls, 0);
	make_dir(ROOT, "d");
	cr_assert_eq(counter.calls, 1);
	cr_assert_eq(create_rc(ROOT, "d"), -EEXIST);
	cr_assert_eq(counter.calls, 1);
	catalog_on_jobs(catalog, NULL, NULL);
	make_dir(ROOT, "e");
	cr_assert_eq(counter.calls, 1);
}
