/* Tests of content_refer: copies whose bytes stay in the version that they are from. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "fs/cache.h"
#include "fs/reconcile.h"
#include "tests/unit/fs/content_fixture.h"

#define LARGE ((size_t)6 << 20) /* more than is fetched in one piece */
#define OTHER_BOOT "11111111-2222-3333-4444-555555555555"

static uint64_t number_of(struct world *world, const char *name)
{
	struct cat_inode inode;

	cr_assert(zero(int, catalog_lookup(world->machine.catalog, CAT_ROOT_INO, name, &inode)));
	return inode.ino;
}

/* A file of others, `LARGE` times the byte, seen. */
static uint64_t put_large(struct world *world, const char *name, char byte)
{
	AUTO_FREE char *bytes = malloc(LARGE + 1);
	struct reconcile_options options = {.catalog = world->machine.catalog, .transfer = world->machine.transfer};
	struct reconcile *reconcile;
	struct err err = {0};

	cr_assert(ne(ptr, bytes, NULL));
	memset(bytes, byte, LARGE);
	bytes[LARGE] = '\0';
	store_put(world->store, name, bytes, NULL);
	cr_assert(zero(int, reconcile_new(&options, &reconcile)));
	cr_assert(zero(int, reconcile_directory(reconcile, CAT_ROOT_INO, &(struct call){0}, &err)), "%s", err.message);
	reconcile_free(reconcile);
	return number_of(world, name);
}

static struct content *get(struct world *world, uint64_t ino, uint64_t seq)
{
	struct content *content;

	cr_assert(zero(int, content_get(world->contents, ino, seq, &content)));
	return content;
}

/* How much of it is other than `LARGE` times the byte. */
static size_t differing(struct content *content, char byte)
{
	AUTO_FREE char *bytes = malloc(LARGE + 1);
	size_t count = 0;

	cr_assert(ne(ptr, bytes, NULL));
	cr_assert(eq(i64, (int64_t)content_pread(content, bytes, LARGE + 1, 0, NULL), (int64_t)LARGE));
	for (size_t i = 0; i < LARGE; i++)
		count += bytes[i] != byte;
	return count;
}

/* A new file all of which is in the other's version. */
static struct content *copy_to(struct world *world, const char *name, struct content *from)
{
	struct content *content = get(world, make_empty(world, name), 0);

	content_writer_came(content);
	cr_assert(eq(i64, (int64_t)content_refer(content, from, 0, UINT32_MAX, NULL), (int64_t)LARGE));
	return content;
}

static uint64_t current_of(struct world *world, uint64_t ino)
{
	struct cat_inode inode;

	cr_assert(zero(int, catalog_getattr(world->machine.catalog, ino, &inode)));
	return inode.version;
}

static void say_problem(void *arg, const struct cat_problem *problem)
{
	(void)arg;
	cr_fail("%s of %" PRIu64 ": %s", problem->kind, problem->ino, problem->detail);
}

static void expect_sound(struct world *world)
{
	struct cat_check check = {0};

	cr_assert(zero(int, catalog_check(world->machine.catalog, say_problem, NULL, &check)));
}

static int get_version(struct cat_txn *txn, void *arg)
{
	struct cat_version *version = arg;

	return cat_version_get(txn, version->ino, version->seq, version);
}

static struct cat_version version_of(struct world *world, uint64_t ino)
{
	struct cat_version version = {.ino = ino, .seq = current_of(world, ino)};

	cr_assert(zero(int, catalog_view(world->machine.catalog, get_version, &version)));
	return version;
}

Test(refer, a_copy_needs_no_byte_and_the_store_is_told_where_to_take_it)
{
	struct content_plan plan;
	struct content *from, *content;
	struct cat_version version;
	struct world world;
	uint64_t source, ino;

	world_open(&world);
	source = put_large(&world, "f", 'a');
	from = get(&world, source, 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(zero(uint, atomic_load(&world.store->calls[SHIM_GET])), "bytes were fetched");
	version = version_of(&world, ino);
	cr_assert(eq(u64, version.size, LARGE));
	cr_assert(zero(int, content_plan(content, &plan)));
	cr_assert(eq(str, plan.copy.key, (char *)"f"));
	cr_assert(eq(u64, plan.base_limit, LARGE));
	cr_assert(zero(sz, plan.dirty.count));
	content_plan_clear(&plan);
	cr_assert(zero(sz, differing(content, 'a')));
	expect_sound(&world);
	content_put(content);
	content_put(from);
	world_close(&world);
}

Test(refer, what_is_here_comes_along)
{
	struct content *from, *content;
	struct world world;
	unsigned gets;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	cr_assert(zero(sz, differing(from, 'a')));
	gets = atomic_load(&world.store->calls[SHIM_GET]);
	content = copy_to(&world, "g", from);
	cr_assert(zero(sz, differing(content, 'a')));
	cr_assert(eq(uint, atomic_load(&world.store->calls[SHIM_GET]), gets));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	content_put(from);
	world_close(&world);
}

/* Its own versions since then are of other bytes; those that come after the copy have the same. */
Test(refer, a_file_can_be_what_it_was_before)
{
	struct cat_copy copy = {.key = (char *)"f", .etag = (char *)"e", .native_id = (char *)"n"};
	struct content_write write = {.offset = LARGE, .len = 3, .fill = fill, .arg = (char *)"new"};
	struct content *live, *old;
	struct content_plan plan;
	struct upload upload;
	struct world world;
	uint64_t ino, first;

	world_open(&world);
	ino = put_large(&world, "f", 'a');
	first = current_of(&world, ino);
	live = get(&world, ino, 0);
	content_writer_came(live);
	cr_assert(zero(int, content_truncate(live, 0, NULL)));
	cr_assert(zero(int, content_writer_gone(live, 0)));
	upload = upload_of(&world, ino);
	copy.ino = ino;
	copy.seq = upload.version;
	cr_assert(zero(int, content_stored(world.contents, ino, upload.version, upload.job, &copy)));
	old = get(&world, ino, first);
	content_writer_came(live);
	cr_assert(eq(i64, (int64_t)content_refer(live, old, 0, LARGE, NULL), (int64_t)LARGE));
	cr_assert(zero(sz, differing(live, 'a')));
	cr_assert(eq(i64, (int64_t)content_write(live, &write), 3));
	cr_assert(zero(int, content_writer_gone(live, 0)));
	cr_assert(zero(int, content_plan(live, &plan)));
	cr_assert(eq(u64, plan.base, first));
	cr_assert(eq(u64, ranges_total(&plan.dirty), 3));
	content_plan_clear(&plan);
	cr_assert(eq(int, catalog_prune(world.machine.catalog, ino, first), -EBUSY));
	upload = upload_of(&world, ino);
	copy.seq = upload.version;
	cr_assert(zero(int, content_stored(world.contents, ino, upload.version, upload.job, &copy)));
	cr_assert(zero(int, catalog_prune(world.machine.catalog, ino, first)), "nothing needs it any more");
	expect_sound(&world);
	content_put(old);
	content_put(live);
	world_close(&world);
}

Test(refer, the_version_copied_from_is_not_pruned_before_the_copy_is_stored)
{
	struct content_write write = {.len = 1, .fill = fill, .arg = (char *)"x"};
	struct content_plan plan;
	struct cat_copy copy;
	struct content *from, *content;
	struct cat_unlinked gone = {0};
	struct upload upload;
	struct world world;
	uint64_t source, seq, ino;

	world_open(&world);
	source = put_large(&world, "f", 'a');
	seq = current_of(&world, source);
	from = get(&world, source, 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, catalog_unlink(world.machine.catalog, CAT_ROOT_INO, "f", (struct cat_actor){0}, &gone)));
	cr_assert(eq(int, catalog_prunable(world.machine.catalog, source, seq), -EBUSY), "while it is open");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(eq(int, catalog_prunable(world.machine.catalog, source, seq), -EBUSY), "while it waits");
	upload = upload_of(&world, ino);
	content_writer_came(content);
	cr_assert(eq(i64, (int64_t)content_write(content, &write), 1)); /* the version has a file of its own now */
	cr_assert(zero(int, content_plan(content, &plan)));
	copy = plan.copy; /* as good a place as any */
	copy.ino = ino;
	copy.seq = upload.version;
	cr_assert(zero(int, content_stored(world.contents, ino, upload.version, upload.job, &copy)));
	content_plan_clear(&plan);
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	content = get(&world, ino, 0);
	cr_assert(eq(sz, differing(content, 'a'), 1));
	content_put(content);
	content_put(from);
	expect_sound(&world);
	world_close(&world);
}

static void expect_after_restart(const char *boot, bool without_file)
{
	struct content *from, *content;
	struct cat_version version;
	struct world world;
	uint64_t ino, recovered;
	char path[256];

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_flush(content, 0)));
	contents_free(world.contents); /* as if killed: what is open stays as it is */
	if (boot)
		cr_assert(zero(int, setenv("VARVE_TEST_BOOT_ID", boot, 1)));
	if (without_file) {
		(void)snprintf(path, sizeof(path), "%s/%02" PRIx64 "/%" PRIx64, world.cache, ino & 0xff, ino);
		cr_assert(zero(int, unlink(path)));
	}
	contents_open(&world);
	cr_assert(zero(int, contents_recover(world.contents, &recovered)));
	content = get(&world, ino, 0);
	cr_assert(zero(sz, differing(content, 'a')));
	version = version_of(&world, ino);
	cr_assert(eq(u64, version.size, LARGE));
	cr_assert(eq(int, (int)version.origin, CAT_ORIGIN_CLOSE));
	content_put(content);
	expect_sound(&world);
	world_close(&world);
}

Test(refer, a_copy_that_was_closed_outlives_a_kill)
{
	expect_after_restart(NULL, false);
}

Test(refer, a_copy_that_was_closed_outlives_the_loss_of_power)
{
	expect_after_restart(OTHER_BOOT, false);
}

Test(refer, a_copy_that_was_closed_outlives_its_cache_file)
{
	expect_after_restart(NULL, true);
}

Test(refer, what_is_no_whole_stretch_of_a_stored_version_is_copied)
{
	struct content_write write = {.offset = LARGE / 2, .len = 1, .fill = fill, .arg = (char *)"x"};
	struct content *from, *content, *small;
	struct world world;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	small = make_file(&world, "small");
	content = get(&world, make_empty(&world, "g"), 0);
	content_writer_came(content);
	cr_assert(zero(i64, (int64_t)content_refer(content, content, 0, LARGE, NULL)), "itself");
	cr_assert(zero(i64, (int64_t)content_refer(content, small, 0, SIZE, NULL)), "what is not stored");
	cr_assert(zero(i64, (int64_t)content_refer(content, from, 0, SIZE, NULL)), "a little");
	cr_assert(zero(i64, (int64_t)content_refer(content, from, SIZE, LARGE, NULL)), "behind a hole");
	cr_assert(eq(i64, (int64_t)content_write(from, &write), 1));
	cr_assert(zero(i64, (int64_t)content_refer(content, from, 0, LARGE, NULL)), "over what changed");
	cr_assert(zero(int, content_truncate(content, 1, NULL)));
	cr_assert(zero(i64, (int64_t)content_refer(content, from, 0, LARGE / 2, NULL)), "over what is there");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(small);
	content_put(content);
	content_put(from);
	world_close(&world);
}

Test(refer, a_copy_goes_on_where_it_was)
{
	struct content *from, *other, *content;
	struct world world;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	other = get(&world, put_large(&world, "o", 'b'), 0);
	content = get(&world, make_empty(&world, "g"), 0);
	content_writer_came(content);
	cr_assert(eq(i64, (int64_t)content_refer(content, from, 0, 5 << 20, NULL), 5 << 20));
	cr_assert(zero(i64, (int64_t)content_refer(content, other, 5 << 20, SIZE, NULL)), "another base");
	cr_assert(eq(i64, (int64_t)content_refer(content, from, 5 << 20, LARGE, NULL), (int64_t)SIZE));
	cr_assert(zero(sz, differing(content, 'a')));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	content_put(other);
	content_put(from);
	world_close(&world);
}
