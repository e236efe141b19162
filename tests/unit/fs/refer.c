/* Tests of content_refer: copies whose bytes stay in the version that they are from. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/cache.h"
#include "fs/content_internal.h"
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

/* --- what comes between --------------------------------------------------------------------------------------- */

static struct content *race_from;
static bool race_armed;

static void *race_writer(void *arg)
{
	struct content_write write = {.offset = SIZE, .len = 3, .fill = fill, .arg = (char *)"xyz"};

	(void)arg;
	cr_assert(eq(i64, (int64_t)content_write(race_from, &write), 3));
	return NULL;
}

/* In place of libc's: another thread writes to the source just before its cache file is copied. */
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned flags)
{
	pthread_t thread;

	if (race_armed) {
		race_armed = false;
		cr_assert(zero(int, pthread_create(&thread, NULL, race_writer, NULL)));
		cr_assert(zero(int, pthread_join(thread, NULL)));
	}
	return syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
}

Test(refer, a_writer_to_the_source_is_not_taken_along)
{
	struct content_plan plan;
	struct content *from, *content;
	struct world world;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	cr_assert(zero(sz, differing(from, 'a'))); /* all here */
	content_writer_came(from);
	race_from = from;
	race_armed = true;
	content = copy_to(&world, "g", from);
	cr_assert(zero(int, race_armed));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(zero(int, content_plan(content, &plan)));
	cr_assert(zero(sz, plan.dirty.count)); /* so the store makes it of f's version: 'a' all over */
	content_plan_clear(&plan);
	cr_expect(zero(sz, differing(content, 'a')), "the cache shows other bytes than the version gets");
	content_put(content);
	content_put(from);
	world_close(&world);
}

Test(refer, an_older_version_of_the_target_does_not_become_the_base)
{
	struct cat_found old = {.name = "g",
				.component = "g",
				.key = "g",
				.etag = "other",
				.native_id = "n0",
				.size = LARGE,
				.modified_ns = NS_PER_SEC};
	struct content_plan plan;
	struct content *from, *content;
	struct world world;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = copy_to(&world, "g", from);
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(zero(int, catalog_adopt_versions(world.machine.catalog, number_of(&world, "g"), &old, 1)));
	cr_assert(zero(int, content_plan(content, &plan)));
	cr_expect(eq(str, plan.copy.key, (char *)"f"), "parts would be copied from what others once had at g");
	content_plan_clear(&plan);
	content_put(content);
	content_put(from);
	world_close(&world);
}

/* Nor without any copy. */
Test(refer, an_older_version_does_not_become_the_base_of_a_change)
{
	struct cat_found old = {
		.name = "f", .component = "f", .key = "f", .etag = "other", .native_id = "n0", .size = LARGE};
	struct content_write write = {.offset = SIZE, .len = 3, .fill = fill, .arg = (char *)"xyz"};
	struct content_plan plan;
	struct content *from;
	struct world world;
	uint64_t ino, first;

	world_open(&world);
	ino = put_large(&world, "f", 'a');
	first = current_of(&world, ino);
	from = get(&world, ino, 0);
	old.modified_ns = clock_wall() + 2 * NS_PER_MS;
	usleep(10000);
	content_writer_came(from);
	cr_assert(eq(i64, (int64_t)content_write(from, &write), 3));
	cr_assert(zero(int, content_writer_gone(from, 0)));
	cr_assert(zero(int, catalog_adopt_versions(world.machine.catalog, ino, &old, 1)));
	cr_assert(zero(int, content_plan(from, &plan)));
	cr_expect(eq(u64, plan.base, first));
	cr_expect(ne(str, plan.copy.etag, (char *)"other"));
	content_plan_clear(&plan);
	content_put(from);
	world_close(&world);
}

static int fail_version(struct cat_txn *txn, void *arg)
{
	struct cat_version *version = arg;
	int rc = cat_version_get(txn, version->ino, version->seq, version);

	version->state = CAT_FAILED;
	return rc ? rc : cat_version_put(txn, version);
}

/* What give_up (placement_upload.c) leaves when the store lost the source. */
static void expect_writable_when_failed(bool by_reference)
{
	struct content_write write = {.offset = SIZE, .len = 3, .fill = fill, .arg = (char *)"xyz"};
	struct cat_version version = {0};
	struct content *from, *content;
	struct world world;
	uint64_t ino;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	if (by_reference) {
		content = copy_to(&world, "g", from);
	} else {
		content = from;
		content_hold(from);
		content_writer_came(from);
		cr_assert(eq(i64, (int64_t)content_write(from, &write), 3));
	}
	ino = number_of(&world, by_reference ? "g" : "f");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	version.ino = ino;
	version.seq = current_of(&world, ino);
	cr_assert(zero(int, catalog_update(world.machine.catalog, fail_version, &version)));
	content_put(content);
	content_put(from);
	cr_assert(zero(int, content_get(world.contents, ino, 0, &content)), "cannot even be opened to be overwritten");
	cr_assert(zero(int, content_truncate(content, 0, NULL)));
	content_put(content);
	world_close(&world);
}

Test(refer, a_failed_copy_can_be_overwritten)
{
	expect_writable_when_failed(true);
}

Test(refer, a_failed_change_can_be_overwritten)
{
	expect_writable_when_failed(false);
}

Test(refer, what_was_appended_and_not_closed_is_not_believed_after_the_loss_of_power)
{
	struct content_write write = {.offset = LARGE, .len = 3, .fill = fill, .arg = (char *)"\0\0\0"};
	struct content *from, *content;
	struct cat_version version;
	struct world world;
	uint64_t ino, recovered;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_flush(content, 0)));
	cr_assert(eq(i64, (int64_t)content_write(content, &write), 3)); /* torn: zeros */
	contents_free(world.contents);
	cr_assert(zero(int, setenv("VARVE_TEST_BOOT_ID", OTHER_BOOT, 1)));
	contents_open(&world);
	cr_assert(zero(int, contents_recover(world.contents, &recovered)));
	version = version_of(&world, ino);
	cr_expect(eq(u64, version.size, LARGE), "size %" PRIu64 " origin %d", version.size, (int)version.origin);
	world_close(&world);
}

Test(refer, a_store_that_copies_no_parts_is_not_referred_to)
{
	struct content *from, *content;
	struct world world;

	world.store = store_new(STORE_MEMORY);
	world.store->hidden = BACKEND_PART_COPY;
	world.machine = machine_on(world.store, "here");
	world.cache = fixture_path(world.store->dir, "cache");
	cr_assert(zero(int, mkdir(world.cache, 0700)));
	contents_open(&world);
	cr_assert(zero(int, transfer_can(world.machine.transfer, BACKEND_PART_COPY)));
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = get(&world, make_empty(&world, "g"), 0);
	content_writer_came(content);
	cr_expect(zero(i64, (int64_t)content_refer(content, from, 0, UINT32_MAX, NULL)));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	content_put(from);
	world_close(&world);
}

/* As it happens: the bucket remembers what others had at the new name once, and somebody looks there. */
Test(refer, looking_at_the_history_of_a_fresh_copy_changes_no_byte)
{
	struct reconcile_options options = {0};
	struct reconcile *reconcile;
	struct content_plan plan;
	struct content *from, *content;
	struct err err = {0};
	struct world world;
	uint64_t source;
	AUTO_FREE char *bytes = malloc(LARGE + 1);

	world_open(&world);
	cr_assert(transfer_can(world.machine.transfer, BACKEND_VERSIONS));
	memset(bytes, 'b', LARGE);
	bytes[LARGE] = '\0';
	store_put(world.store, "g", bytes, NULL);
	store_remove(world.store, "g");
	source = put_large(&world, "f", 'a');
	from = get(&world, source, 0);
	content = copy_to(&world, "g", from);
	cr_assert(zero(int, content_writer_gone(content, 0)));
	options.catalog = world.machine.catalog;
	options.transfer = world.machine.transfer;
	cr_assert(zero(int, reconcile_new(&options, &reconcile)));
	cr_assert(zero(int, reconcile_versions(reconcile, number_of(&world, "g"), &(struct call){0}, &err)), "%s",
		  err.message);
	reconcile_free(reconcile);
	cr_assert(zero(int, content_plan(content, &plan)));
	cr_expect(eq(str, plan.copy.key, (char *)"f"), "parts would be copied from what others once had at g");
	content_plan_clear(&plan);
	cr_expect(zero(sz, differing(content, 'a')), "and they are read");
	content_put(content);
	content_put(from);
	world_close(&world);
}

/* Killed between the clone of a version and the mark of the change that it was made for; then the store says once
 * that the pinned object is not there (content_load_copy by pin_renewed). */
Test(refer, a_copy_whose_version_has_its_own_file_is_still_read)
{
	struct content *from, *content;
	struct content_plan plan;
	struct world world;
	uint64_t ino;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	lock_acquire(&content->lock);
	cr_assert(zero(int, content_freeze_now(content)));
	lock_release(&content->lock);
	contents_free(world.contents);
	contents_open(&world);
	content = get(&world, ino, 0);
	cr_assert(zero(int, content_plan(content, &plan))); /* content_load_copy once more */
	content_plan_clear(&plan);
	cr_expect(zero(sz, differing(content, 'a')));
	content_put(content);
	world_close(&world);
}

/* Killed between the record that the copy's frozen version is stored and the end of its extent record. */
Test(refer, a_stored_copy_holds_its_source_no_longer_after_a_kill)
{
	struct content_write write = {.len = 1, .fill = fill, .arg = (char *)"x"};
	struct cat_unlinked gone = {0};
	struct content_plan plan;
	struct cat_copy copy;
	struct content *from, *content;
	struct upload upload;
	struct world world;
	uint64_t source, seq, ino, recovered;

	world_open(&world);
	source = put_large(&world, "f", 'a');
	seq = current_of(&world, source);
	from = get(&world, source, 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	upload = upload_of(&world, ino);
	content_writer_came(content);
	cr_assert(eq(i64, (int64_t)content_write(content, &write), 1)); /* the version has a file of its own now */
	cr_assert(zero(int, content_plan(content, &plan)));
	copy = plan.copy;
	copy.ino = ino;
	copy.seq = upload.version;
	/* content_stored up to killpoint("version-recorded"), as live->shared != seq */
	cr_assert(zero(int, catalog_stored(world.machine.catalog, upload.job, &copy, NULL)));
	content_plan_clear(&plan);
	contents_free(world.contents); /* killed */
	contents_open(&world);
	cr_assert(zero(int, contents_recover(world.contents, &recovered)));
	upload = upload_of(&world, ino); /* of what was changed since */
	copy = (struct cat_copy){
		.ino = ino, .seq = upload.version, .key = (char *)"g", .etag = (char *)"e2", .native_id = (char *)"n2"};
	cr_assert(zero(int, content_stored(world.contents, ino, upload.version, upload.job, &copy)));
	cr_assert(zero(int, catalog_unlink(world.machine.catalog, CAT_ROOT_INO, "f", (struct cat_actor){0}, &gone)));
	cr_expect(zero(int, catalog_prunable(world.machine.catalog, source, seq)), "all copies are stored");
	world_close(&world);
}

/* Recovered after a power cut, behind the base lies what the cut file had there before */
Test(refer, zeros_behind_a_copy_are_zeros_after_the_loss_of_power)
{
	char bytes[3];
	struct content *from, *content;
	struct world world;
	uint64_t ino, recovered;
	char path[256];
	int fd;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = copy_to(&world, "g", from);
	ino = number_of(&world, "g");
	cr_assert(zero(int, content_truncate(content, LARGE + 3, NULL)));
	cr_assert(zero(int, content_flush(content, 0)));
	contents_free(world.contents);
	/* the cut of [LARGE, LARGE + 3), before it was made longer again, did not reach the disk */
	(void)snprintf(path, sizeof(path), "%s/%02" PRIx64 "/%" PRIx64, world.cache, ino & 0xff, ino);
	fd = open(path, O_WRONLY);
	cr_assert(eq(i64, (int64_t)pwrite(fd, "old", 3, LARGE), 3));
	close(fd);
	cr_assert(zero(int, setenv("VARVE_TEST_BOOT_ID", OTHER_BOOT, 1)));
	contents_open(&world);
	cr_assert(zero(int, contents_recover(world.contents, &recovered)));
	cr_assert(eq(int, (int)version_of(&world, ino).origin, CAT_ORIGIN_CLOSE));
	content = get(&world, ino, 0);
	cr_assert(eq(i64, (int64_t)content_pread(content, bytes, 3, LARGE, NULL), 3));
	cr_expect(zero(int, memcmp(bytes, "\0\0\0", 3)));
	content_put(content);
	world_close(&world);
}

/* What a fenced writer left aside of the file is of other bytes. */
Test(refer, a_conflict_found_aside_is_not_the_base_of_what_is_open)
{
	struct content_write write = {.offset = SIZE, .len = 3, .fill = fill, .arg = (char *)"xyz"};
	struct cat_found aside = {.name = "v",
				  .component = "v",
				  .key = ".varve/versions/x/v",
				  .etag = "other",
				  .native_id = "n0",
				  .size = LARGE,
				  .resolved = true,
				  .origin = CAT_ORIGIN_CONFLICT};
	struct cat_copy copy = {.key = (char *)"f", .etag = (char *)"e1", .native_id = (char *)"n1"};
	struct content_plan plan;
	struct content *from;
	struct cat_inode inode;
	struct upload upload;
	struct world world;
	uint64_t ino;

	world_open(&world);
	ino = put_large(&world, "f", 'a');
	from = get(&world, ino, 0);
	content_writer_came(from);
	cr_assert(eq(i64, (int64_t)content_write(from, &write), 3));
	cr_assert(zero(int, content_writer_gone(from, 0)));
	upload = upload_of(&world, ino);
	content_writer_came(from);
	cr_assert(eq(i64, (int64_t)content_write(from, &write), 3)); /* open, and changed */
	cr_assert(zero(int, catalog_getattr(world.machine.catalog, ino, &inode)));
	aside.file_id = inode.file_id;
	aside.seq = upload.version + 1000 * 16;
	aside.modified_ns = aside.commit_ns = clock_wall() + NS_PER_SEC;
	cr_assert(zero(int, catalog_adopt_aside(world.machine.catalog, inode.file_id, &aside, 1)));
	copy.ino = ino;
	copy.seq = upload.version;
	cr_assert(zero(int, content_stored(world.contents, ino, upload.version, upload.job, &copy)));
	cr_assert(zero(int, content_plan(from, &plan)));
	cr_expect(eq(u64, plan.base, upload.version));
	cr_expect(eq(str, plan.copy.key, (char *)"f"));
	content_plan_clear(&plan);
	cr_assert(zero(int, content_writer_gone(from, 0)));
	content_put(from);
	world_close(&world);
}

Test(refer, a_copy_that_fails_changes_nothing)
{
	struct cat_inode attr = {.size = 7};
	struct rlimit limit, small;
	struct content *from, *content;
	struct world world;
	ssize_t n;

	world_open(&world);
	from = get(&world, put_large(&world, "f", 'a'), 0);
	content = get(&world, make_empty(&world, "g"), 0);
	content_writer_came(content);
	cr_assert(zero(int, getrlimit(RLIMIT_FSIZE, &limit)));
	(void)signal(SIGXFSZ, SIG_IGN);
	small = limit;
	small.rlim_cur = 5 << 20;
	cr_assert(zero(int, setrlimit(RLIMIT_FSIZE, &small))); /* the cache file cannot become so long */
	n = content_refer(content, from, 0, LARGE, NULL);
	cr_assert(zero(int, setrlimit(RLIMIT_FSIZE, &limit)));
	cr_assert(lt(i64, (int64_t)n, 0));
	content_overlay(content, &attr);
	cr_expect(zero(u64, attr.size), "copy_file_range failed, and the file has grown");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	content_put(from);
	world_close(&world);
}
