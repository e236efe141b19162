/* Tests of fs/versions.c with a store beneath: content of the past, and pasts that others made. */
#include <errno.h>
#include <sys/stat.h>

#include "fs/content.h"
#include "fs/reconcile.h"
#include "fs/versions.h"
#include "tests/unit/fs/fixture.h"

#define ROOT CAT_ROOT_INO

struct world {
	struct store *store;
	struct machine machine;
	struct contents *contents;
	struct reconcile *reconcile;
	struct versions *versions;
	char *cache;
};

static void world_open(struct world *world, enum store_kind kind)
{
	struct contents_options contents = {.cache_limit = 1 << 24};
	struct reconcile_options reconcile = {.max_age_ns = 1};
	struct versions_options versions = {0};

	world->store = store_new(kind);
	world->machine = machine_on(world->store, "here");
	world->cache = fixture_path(world->store->dir, "cache");
	cr_assert(zero(int, mkdir(world->cache, 0700)));
	contents.catalog = reconcile.catalog = versions.catalog = world->machine.catalog;
	contents.transfer = reconcile.transfer = world->machine.transfer;
	contents.cache_dir = world->cache;
	cr_assert(zero(int, contents_new(&contents, &world->contents)));
	cr_assert(zero(int, reconcile_new(&reconcile, &world->reconcile)));
	versions.contents = world->contents;
	versions.reconcile = world->reconcile;
	cr_assert(zero(int, versions_new(&versions, &world->versions)));
}

static void world_close(struct world *world)
{
	versions_free(world->versions);
	reconcile_free(world->reconcile);
	transfer_free(world->machine.transfer); /* fetches still running use the contents, and they the catalog */
	contents_free(world->contents);
	catalog_close(world->machine.catalog);
	free(world->machine.dir);
	store_free(world->store);
	free(world->cache);
}

static int look(struct world *world, const char *name, const char *entry, struct versions_entry *ret_entry)
{
	int ret = versions_lookup(world->versions, ROOT, ".versions", ret_entry);

	if (!ret)
		ret = versions_lookup(world->versions, ret_entry->nodeid, name, ret_entry);
	return ret || !entry ? ret : versions_lookup(world->versions, ret_entry->nodeid, entry, ret_entry);
}

static void expect_content(struct world *world, const char *name, const char *entry, const char *expected)
{
	struct versions_entry found;
	struct content *content;
	char bytes[64] = "";

	cr_assert(zero(int, look(world, name, entry, &found)), "%s/%s", name, entry);
	cr_assert(eq(u64, (uint64_t)found.stat.st_size, strlen(expected)));
	cr_assert(zero(int, versions_open(world->versions, found.nodeid, &content)));
	cr_assert(eq(u64, (uint64_t)content_pread(content, bytes, sizeof(bytes) - 1, 0, NULL), strlen(expected)));
	cr_assert(eq(str, bytes, (char *)expected));
	content_put(content);
}

static int count_entry(void *arg, const char *name, const struct stat *stat, uint64_t next)
{
	(void)name;
	(void)stat;
	(void)next;
	++*(size_t *)arg;
	return 0;
}

static size_t count(struct world *world, const char *name)
{
	struct versions_entry entry;
	struct versions_dir *dir;
	size_t entries = 0;

	cr_assert(zero(int, look(world, name, NULL, &entry)), "%s", name);
	cr_assert(zero(int, versions_opendir(world->versions, entry.nodeid, &dir)));
	cr_assert(zero(int, versions_readdir(dir, 0, count_entry, &entries)));
	versions_closedir(dir);
	return entries - 2;
}

/* Nothing was listed before: looking into the past is what asks the store. */
Test(versions_store, shows_what_others_made)
{
	EVERY_STORE(kind)
	{
		struct world world;
		struct versions_entry entry;

		world_open(&world, kind);
		store_put(world.store, "theirs.txt", "first", NULL);
		pause_ms(20);
		store_put(world.store, "theirs.txt", "the second", NULL);
		cr_assert(zero(int, look(&world, "theirs.txt", NULL, &entry)));
		expect_content(&world, "theirs.txt", "-1", "the second");
		if (store_has_versions(&world.machine)) {
			cr_assert(eq(sz, count(&world, "theirs.txt"), 2));
			expect_content(&world, "theirs.txt", "-2", "first");
		}
		cr_assert(eq(int, look(&world, "nobody's", NULL, &entry), -ENOENT));
		world_close(&world);
	}
}

/* The removal is still to be sent: nothing is learned of the key but by who asks for the file's own versions. */
Test(versions_store, shows_what_others_made_before_what_we_removed_unseen)
{
	EVERY_STORE(kind)
	{
		struct cat_unlinked gone = {0};
		struct world world;
		struct err err = {0};

		world_open(&world, kind);
		store_put(world.store, "f", "first", NULL);
		pause_ms(20);
		store_put(world.store, "f", "the second", NULL);
		cr_assert(zero(int, reconcile_directory(world.reconcile, ROOT, &(struct call){0}, &err)));
		cr_assert(zero(int, catalog_unlink(world.machine.catalog, ROOT, "f", (struct cat_actor){0}, &gone)));
		cr_assert(eq(sz, count(&world, "f"), store_has_versions(&world.machine) ? 2 : 1));
		if (store_has_versions(&world.machine))
			expect_content(&world, "f", "-2", "first");
		expect_content(&world, "f", "-1", "the second");
		world_close(&world);
	}
}

static int refuse(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)call;
	return err_set(err, ERR_DENIED, "not now: %s", key ? key : "");
}

Test(versions_store, known_history_is_shown_without_the_store)
{
	struct world world;
	struct err err = {0};
	struct versions_entry entry;

	world_open(&world, STORE_MEMORY);
	store_put(world.store, "f", "one", NULL);
	cr_assert(zero(int, reconcile_directory(world.reconcile, ROOT, &(struct call){0}, &err)));
	atomic_store(&world.store->hook, refuse);
	cr_assert(eq(sz, count(&world, "f"), 1));
	cr_assert(zero(int, look(&world, "f", "-1", &entry)));
	cr_assert(eq(int, look(&world, "g", NULL, &entry), -ENOENT));
	world_close(&world);
}

Test(versions_store, a_directory_that_cannot_be_listed_is_an_error_not_empty)
{
	struct world world;
	struct versions_entry entry;
	struct versions_dir *dir;

	world_open(&world, STORE_MEMORY);
	atomic_store(&world.store->hook, refuse);
	cr_assert(zero(int, versions_lookup(world.versions, ROOT, ".versions", &entry)));
	cr_assert(eq(int, versions_opendir(world.versions, entry.nodeid, &dir), -EACCES));
	world_close(&world);
}
