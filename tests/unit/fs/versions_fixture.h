/*
 * versions_fixture.h - a catalog in a directory of its own, and short words for what happens to files in it.
 */
#ifndef VARVE_TESTS_UNIT_FS_VERSIONS_FIXTURE_H
#define VARVE_TESTS_UNIT_FS_VERSIONS_FIXTURE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/cache.h"
#include "fs/versions.h"
#include "log.h"

#define ALICE 1000
#define BOB 1001

struct world {
	char dir[64];
	struct catalog *catalog;
	struct versions *versions;
};

static inline void world_open(struct world *world)
{
	struct catalog_options options = {.root_mode = 0755};
	struct versions_options versions = {0};

	log_setup(LOG_LEVEL_ERROR, LOG_SINK_STDERR);
	(void)snprintf(world->dir, sizeof(world->dir), "%s", "/tmp/varve-versions-XXXXXX");
	cr_assert_not_null(mkdtemp(world->dir));
	cr_assert_eq(catalog_open(world->dir, &options, &world->catalog), 0);
	versions.catalog = world->catalog;
	cr_assert_eq(versions_new(&versions, &world->versions), 0);
}

static inline int remove_any(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void world_close(struct world *world)
{
	versions_free(world->versions);
	catalog_close(world->catalog);
	cr_assert_eq(nftw(world->dir, remove_any, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline struct cat_inode make(struct world *world, uint64_t dir, const char *name, uint32_t mode)
{
	struct cat_create request = {.parent = dir,
				     .name = name,
				     .mode = mode,
				     .uid = ALICE,
				     .gid = ALICE,
				     .target = S_ISLNK(mode) ? "the/target" : NULL,
				     .actor = {.uid = ALICE, .gid = ALICE}};
	struct cat_inode inode;

	cr_assert_eq(catalog_create(world->catalog, &request, &inode), 0, "%s", name);
	return inode;
}

static inline uint64_t make_dir(struct world *world, uint64_t dir, const char *name)
{
	return make(world, dir, name, S_IFDIR | 0755).ino;
}

static inline struct cat_version commit(struct world *world, uint64_t ino, uint64_t size)
{
	struct cat_commit request = {.ino = ino,
				     .size = size,
				     .mtime = INT64_C(1000000000) * NS_PER_SEC,
				     .author = ALICE,
				     .crc32c = 0xabcdef,
				     .has_crc32c = true};
	struct cat_version version;

	cr_assert_eq(catalog_commit(world->catalog, &request, &version), 0);
	return version;
}

/* A file with one version. */
static inline struct cat_version make_file(struct world *world, uint64_t dir, const char *name, uint64_t size)
{
	return commit(world, make(world, dir, name, S_IFREG | 0644).ino, size);
}

static inline void drop(struct world *world, uint64_t dir, const char *name)
{
	struct cat_actor actor = {.uid = BOB, .gid = BOB};
	struct cat_unlinked unlinked;

	cr_assert_eq(catalog_unlink(world->catalog, dir, name, actor, &unlinked), 0, "%s", name);
}

static inline void drop_dir(struct world *world, uint64_t dir, const char *name)
{
	struct cat_actor actor = {.uid = BOB, .gid = BOB};
	struct cat_unlinked unlinked;

	cr_assert_eq(catalog_rmdir(world->catalog, dir, name, actor, &unlinked), 0, "%s", name);
}

static inline void move_to(struct world *world, uint64_t dir, const char *name, uint64_t new_dir, const char *new_name)
{
	struct cat_rename request = {.parent = dir,
				     .name = name,
				     .new_parent = new_dir,
				     .new_name = new_name,
				     .actor = {.uid = BOB, .gid = BOB}};
	struct cat_unlinked replaced;

	cr_assert_eq(catalog_rename(world->catalog, &request, &replaced), 0, "%s", name);
}

static inline void chmod_ino(struct world *world, uint64_t ino, uint32_t mode)
{
	struct cat_inode values = {.mode = mode}, inode;

	cr_assert_eq(catalog_setattr(world->catalog, ino, CAT_SET_MODE, &values, &inode), 0);
}

/* --- in .versions ------------------------------------------------------------------------------ */

/* Walks "a/b/c" beneath the snapdir of `dir`; every node stays looked up. */
static inline int walk(struct world *world, uint64_t dir, const char *path, struct versions_entry *ret_entry)
{
	AUTO_FREE char *copy = strdup(path);
	char *rest = copy, *part;
	int ret = versions_lookup(world->versions, dir, ".versions", ret_entry);

	while (!ret && (part = strsep(&rest, "/")))
		ret = versions_lookup(world->versions, ret_entry->nodeid, part, ret_entry);
	return ret;
}

static inline struct versions_entry walked(struct world *world, uint64_t dir, const char *path)
{
	struct versions_entry entry = {0};
	int ret = walk(world, dir, path, &entry);

	cr_assert_eq(ret, 0, "%s: %s", path, strerror(-ret));
	return entry;
}

/* Names of a listing but the dots, each followed by '\n', sorted by nobody. */
struct listed {
	struct buf names;
	size_t count;
	struct world *world;
	uint64_t nodeid;
};

/* Whatever readdir says of an entry, lookup must say, too. */
static inline int take_listed(void *arg, const char *name, const struct stat *stat, uint64_t next)
{
	struct listed *listed = arg;
	struct versions_entry entry;

	(void)next;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	cr_assert_eq(versions_lookup(listed->world->versions, listed->nodeid, name, &entry), 0, "%s", name);
	cr_assert_eq(entry.stat.st_ino, stat->st_ino, "%s", name);
	cr_assert_eq(entry.stat.st_mode & S_IFMT, stat->st_mode, "%s", name);
	cr_assert(S_ISLNK(entry.stat.st_mode) || !(entry.stat.st_mode & 07222), "%s: %o", name, entry.stat.st_mode);
	versions_forget(listed->world->versions, entry.nodeid, 1);
	buf_adds(&listed->names, name);
	buf_addc(&listed->names, '\n');
	listed->count++;
	return 0;
}

static inline size_t list(struct world *world, uint64_t nodeid, struct buf *ret_names)
{
	struct listed listed = {.names = BUF_INIT, .world = world, .nodeid = nodeid};
	struct versions_dir *dir;

	cr_assert_eq(versions_opendir(world->versions, nodeid, &dir), 0);
	cr_assert_eq(versions_readdir(dir, 0, take_listed, &listed), 0);
	versions_closedir(dir);
	if (ret_names)
		buf_add(ret_names, listed.names.data, listed.names.len);
	buf_free(&listed.names);
	return listed.count;
}

static inline void expect_list(struct world *world, uint64_t dir, const char *path, const char *expected)
{
	AUTO_BUF names = BUF_INIT;

	(void)list(world, walked(world, dir, path).nodeid, &names);
	cr_assert_str_eq(names.data, expected, "%s", path);
}

static inline int take_now(struct cat_txn *txn, void *arg)
{
	*(int64_t *)arg = cat_now(txn);
	return 0;
}

/* An instant later than all that happened, and earlier than all that will, in milliseconds of their own. */
static inline int64_t instant(struct world *world)
{
	int64_t now = 0;

	(void)usleep(2000);
	cr_assert_eq(catalog_update(world->catalog, take_now, &now), 0);
	(void)usleep(2000);
	return now;
}

#endif
