/* Tests of fs/content.c: what is a version and what is not. */
#include <errno.h>
#include <inttypes.h>

#include "fs/cache.h"
#include "tests/unit/fs/content_fixture.h"

#define HALF (SIZE / 2)

static void write_half(struct content *content, uint64_t offset)
{
	AUTO_FREE char *bytes = calloc(1, HALF);
	struct content_write write = {.offset = offset, .len = HALF, .fill = fill, .arg = bytes};

	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)HALF));
}

/* A new file, and its content. */
static struct content *open_new(struct world *world, uint64_t *ret_ino)
{
	struct content *content;

	*ret_ino = make_empty(world, "f");
	cr_assert(zero(int, content_get(world->contents, *ret_ino, 0, &content)));
	return content;
}

static uint64_t newest(struct world *world, uint64_t ino, uint64_t *ret_size)
{
	struct cat_inode inode;

	cr_assert(zero(int, catalog_getattr(world->machine.catalog, ino, &inode)));
	*ret_size = inode.size;
	return inode.version;
}

/* truncate(2) has no handle, and its version is made at once; but never of what a writer is in the midst of. */
Test(content, a_truncation_makes_no_version_of_what_a_writer_has_half_written)
{
	uint64_t ino, size, none, first;
	struct content *content;
	struct world world;

	world_open(&world);
	content = open_new(&world, &ino);
	none = newest(&world, ino, &size);
	cr_assert(zero(int, content_truncate(content, 10, NULL)));
	content_writer_came(content);
	write_half(content, 0);
	cr_assert(zero(int, content_commit_closed(content, 0)));
	cr_assert(eq(u64, newest(&world, ino, &size), none), "half a write became a version");
	write_half(content, HALF);
	cr_assert(zero(int, content_writer_gone(content, 0)));
	first = newest(&world, ino, &size);
	cr_assert(gt(u64, first, none));
	cr_assert(eq(u64, size, SIZE));
	cr_assert(zero(int, content_truncate(content, 10, NULL)));
	cr_assert(zero(int, content_commit_closed(content, 0)));
	cr_assert(gt(u64, newest(&world, ino, &size), first));
	cr_assert(eq(u64, size, 10));
	contents_cancel(world.contents);
	content_put(content);
	world_close(&world);
}

/* Its release may come whenever the kernel likes: until then history and +at would show what was before. */
Test(content, a_truncation_is_a_version_at_once_though_somebody_has_the_file_open)
{
	uint64_t ino, size, none, first;
	struct content *content;
	struct world world;

	world_open(&world);
	content = open_new(&world, &ino);
	none = newest(&world, ino, &size);
	content_writer_came(content);
	cr_assert(zero(int, content_truncate_closed(content, 10, 0, NULL)));
	first = newest(&world, ino, &size);
	cr_assert(gt(u64, first, none));
	cr_assert(eq(u64, size, 10));
	write_half(content, 0);
	cr_assert(zero(int, content_truncate_closed(content, 20, 0, NULL)));
	cr_assert(eq(u64, newest(&world, ino, &size), first), "half a write became a version");
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(gt(u64, newest(&world, ino, &size), first));
	cr_assert(eq(u64, size, 20));
	content_put(content);
	world_close(&world);
}

static void count_grown(void *arg, struct content *content, uint64_t ino, uint64_t size)
{
	(void)content;
	(void)ino;
	*(uint64_t *)arg = size;
}

static void ignore_committed(void *arg, uint64_t ino, uint64_t seq, const struct ranges *rewritten)
{
	(void)arg;
	(void)ino;
	(void)seq;
	(void)rewritten;
}

static void ignore(void *arg, uint64_t ino)
{
	(void)arg;
	(void)ino;
}

/* Whoever has the file open still, as an upload of its empty version does, is no reason to send it at its close only.
 */
Test(content, a_file_opened_anew_while_it_is_empty_is_sent_ahead)
{
	AUTO_FREE char *bytes = calloc(1, SIZE);
	uint64_t grown = 0, seq;
	const struct contents_watch watch = {.grown = count_grown,
					     .committed = ignore_committed,
					     .changing = ignore,
					     .discarded = ignore,
					     .arg = &grown};
	struct content *content;
	struct world world;

	world_open(&world);
	contents_watch(world.contents, &watch);
	cr_assert(zero(int, content_get(world.contents, make_empty(&world, "f"), 0, &content)));
	content_writer_came(content);
	cr_assert(zero(int, content_mark_new(content)));
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_CLOSE, 0, &seq)));
	cr_assert(zero(int, content_mark_new(content)));
	for (uint64_t at = 0; at < 40 * SIZE; at += SIZE) {
		struct content_write write = {.offset = at, .len = SIZE, .fill = fill, .arg = bytes};

		cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)SIZE));
	}
	cr_assert(ge(u64, grown, 32 * SIZE));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	content_put(content);
	contents_watch(world.contents, NULL);
	world_close(&world);
}

/* --- what a version that is not stored keeps ------------------------------------------------------------------- */

static void cache_path(const struct world *world, uint64_t id, char ret_path[static 256])
{
	(void)snprintf(ret_path, 256, "%s/%02" PRIx64 "/%" PRIx64, world->cache, id & 0xff, id);
}

/* 0: there is none. */
static uint64_t file_number(const struct world *world, uint64_t id)
{
	char path[256];
	struct stat st;

	cache_path(world, id, path);
	return stat(path, &st) ? 0 : (uint64_t)st.st_ino;
}

static void delete_file(const struct world *world, uint64_t id)
{
	char path[256];

	cache_path(world, id, path);
	cr_assert(zero(int, unlink(path)));
}

static uint64_t number_of(struct world *world, const char *name)
{
	struct cat_inode inode;

	cr_assert(zero(int, catalog_lookup(world->machine.catalog, CAT_ROOT_INO, name, &inode)));
	return inode.ino;
}

static void unlink_name(struct world *world, const char *name)
{
	struct cat_unlinked gone = {0};

	cr_assert(zero(int, catalog_unlink(world->machine.catalog, CAT_ROOT_INO, name, (struct cat_actor){0}, &gone)));
	cr_assert(zero(int, (int)gone.inode.nlink));
}

/* Whoever reads a version of a removed file that somebody still has open, as an upload does. */
Test(content, a_version_is_left_alone_in_the_cache_file_that_a_removed_file_left_it)
{
	struct content *content;
	uint64_t ino, seq, size, number;
	struct world world;

	world_open(&world);
	content = make_file(&world, "f");
	ino = number_of(&world, "f");
	seq = newest(&world, ino, &size);
	number = file_number(&world, ino);
	cr_assert(ne(u64, number, 0));
	unlink_name(&world, "f");
	content_forget(world.contents, ino);
	cr_assert(eq(u64, file_number(&world, ino), 0));
	cr_assert(is_all(&world, ino, seq, 'a'));
	cr_assert(eq(u64, file_number(&world, ino), 0), "a removed file got a cache file anew");
	cr_assert(eq(u64, file_number(&world, CACHE_VERSION | seq), number), "the version's file was replaced");
	delete_file(&world, CACHE_VERSION | seq); /* the reader has it still */
	cr_assert(is_all(&world, ino, seq, 'a'));
	content_put(content);
	cr_assert(is_all(&world, ino, seq, 'a'), "what was made anew has no name or no record");
	world_close(&world);
}

Test(content, a_file_made_a_moment_ago_never_passes_for_a_version)
{
	struct content *content;
	uint64_t ino, seq, size;
	struct world world;

	world_open(&world);
	content = make_file(&world, "f");
	ino = number_of(&world, "f");
	seq = newest(&world, ino, &size);
	unlink_name(&world, "f");
	content_forget(world.contents, ino);
	content_put(content);
	delete_file(&world, CACHE_VERSION | seq);
	cr_assert(ne(int, content_get(world.contents, ino, seq, &content), 0), "zeros pass for the version");
	world_close(&world);
}

Test(content, a_version_in_use_has_its_own_record_when_the_live_file_was_made_anew)
{
	struct content *content, *version;
	uint64_t ino, seq, size;
	struct world world;

	world_open(&world);
	content = make_file(&world, "f");
	ino = number_of(&world, "f");
	seq = newest(&world, ino, &size);
	cr_assert(zero(int, content_get(world.contents, ino, seq, &version)));
	delete_file(&world, ino);
	delete_file(&world, CACHE_VERSION | seq);
	cr_assert(is_all(&world, ino, seq, 'a'));
	content_put(version);
	unlink_name(&world, "f");
	content_forget(world.contents, ino);
	content_put(content);
	cr_assert(is_all(&world, ino, seq, 'a'));
	world_close(&world);
}

Test(content, a_version_without_its_second_name_gets_it_before_the_removed_file_goes)
{
	struct content *content;
	uint64_t ino, seq, size;
	struct world world;

	world_open(&world);
	content = make_file(&world, "f");
	ino = number_of(&world, "f");
	seq = newest(&world, ino, &size);
	delete_file(&world, CACHE_VERSION | seq);
	unlink_name(&world, "f");
	content_forget(world.contents, ino);
	content_put(content);
	cr_assert(is_all(&world, ino, seq, 'a'));
	world_close(&world);
}

/* The current version is stored, and another one, which is not to be shown as the file, waits. */
Test(content, what_waits_beside_the_current_version_outlives_the_removed_file)
{
	AUTO_FREE char *bytes = malloc(SIZE);
	struct content_write write = {.len = SIZE, .fill = fill, .arg = bytes};
	struct cat_copy copy = {.key = (char *)"f", .etag = (char *)"e"};
	struct content *content;
	uint64_t ino, stored, seq, size;
	struct world world;

	world_open(&world);
	content = make_file(&world, "f");
	ino = number_of(&world, "f");
	stored = newest(&world, ino, &size);
	copy.ino = ino;
	copy.seq = stored;
	cr_assert(zero(int, content_stored(world.contents, ino, stored, upload_of(&world, ino).job, &copy)));
	memset(bytes, 'b', SIZE);
	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)SIZE));
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_SUSPECT, 0, &seq)));
	cr_assert(zero(int, catalog_conflict(world.machine.catalog, ino, seq)));
	cr_assert(eq(u64, newest(&world, ino, &size), stored));
	content_put(content);
	unlink_name(&world, "f");
	content_forget(world.contents, ino);
	cr_assert(eq(u64, file_number(&world, ino), 0));
	cr_assert(is_all(&world, ino, seq, 'b'));
	world_close(&world);
}
