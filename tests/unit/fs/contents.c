/* Tests of a file in very many pieces: what fs/content.c and fs/contents.c keep of it stays small. */
#include <errno.h>
#include <sys/stat.h>

#include "fs/cache.h"
#include "fs/content.h"
#include "fs/writeback.h"
#include "tests/unit/fs/fixture.h"

#define PIECES_MAX 65536u /* of content.c */
#define PIECES (PIECES_MAX + 300u)
#define STRIDE 128u
#define FILE_SIZE ((size_t)PIECES * STRIDE)

struct world {
	struct store *store;
	struct machine machine;
	struct contents *contents;
	uint64_t ino;
	char *bytes;
};

static struct world world_new(void)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = "f", .mode = S_IFREG | 0644};
	struct world world = {.store = store_new(STORE_MEMORY), .bytes = malloc(FILE_SIZE)};
	AUTO_FREE char *cache = fixture_path(world.store->dir, "cache");
	struct contents_options options = {.cache_dir = cache, .cache_limit = 64 << 20};
	struct cat_inode inode;

	cr_assert(ne(ptr, world.bytes, NULL));
	world.machine = machine_on(world.store, "here");
	options.catalog = world.machine.catalog;
	options.transfer = world.machine.transfer;
	cr_assert(zero(int, contents_new(&options, &world.contents)));
	cr_assert(zero(int, catalog_create(world.machine.catalog, &create, &inode)));
	world.ino = inode.ino;
	return world;
}

static void world_free(struct world *world)
{
	contents_cancel(world->contents);
	transfer_free(world->machine.transfer);
	contents_free(world->contents);
	catalog_close(world->machine.catalog);
	free(world->machine.dir);
	free(world->bytes);
	store_free(world->store);
}

static ssize_t fill(void *arg, int fd, uint64_t offset, size_t len)
{
	return pwrite(fd, arg, len, (off_t)offset);
}

static void write_at(struct content *content, const char *bytes, size_t len, uint64_t offset)
{
	struct content_write write = {.offset = offset, .len = len, .fill = fill, .arg = (void *)bytes};

	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)len));
}

/* A byte at the start of each stride, every second one first. */
static void write_pieces(struct world *world, struct content *content)
{
	for (unsigned pass = 0; pass < 2; pass++)
		for (size_t i = pass; i < PIECES; i += 2) {
			write_at(content, "b", 1, i * STRIDE);
			world->bytes[i * STRIDE] = 'b';
		}
}

static int get_extent(struct cat_txn *txn, void *arg)
{
	struct cat_extent *extent = arg;

	return cat_extent_get(txn, extent->base, extent);
}

static void check(struct world *world, struct content *content)
{
	struct cat_extent extent = {.base = world->ino};

	cr_assert(zero(int, content_flush(content, 0)));
	cr_assert(zero(int, catalog_view(world->machine.catalog, get_extent, &extent)));
	cr_assert(le(sz, extent.present.count, PIECES_MAX + 1));
	cr_assert(le(sz, extent.dirty.count, PIECES_MAX + 1));
	cat_extent_clear(&extent);
	for (uint64_t at = 0; at < FILE_SIZE - STRIDE; at += FILE_SIZE / 50) {
		char read[STRIDE];

		cr_assert(zero(int, content_pread_all(content, read, STRIDE, at, NULL)));
		cr_assert(zero(int, memcmp(read, world->bytes + at, STRIDE)));
	}
}

Test(contents, a_new_file_in_very_many_pieces_has_a_bounded_record)
{
	struct world world = world_new();
	struct content *content;

	memset(world.bytes, 0, FILE_SIZE);
	cr_assert(zero(int, content_get(world.contents, world.ino, 0, &content)));
	write_pieces(&world, content);
	check(&world, content);
	content_put(content);
	world_free(&world);
}

static void store_it(struct world *world)
{
	struct writeback_options options = {
		.catalog = world->machine.catalog, .transfer = world->machine.transfer, .contents = world->contents};
	struct writeback *writeback;

	cr_assert(zero(int, writeback_new(&options, &writeback)));
	cr_assert(zero(int, writeback_drain(writeback, 60 * NS_PER_SEC, NULL)));
	writeback_free(writeback);
}

Test(contents, so_has_one_whose_other_bytes_are_in_the_store)
{
	struct world world = world_new();
	struct content *content;
	uint64_t seq;

	memset(world.bytes, 'a', FILE_SIZE);
	cr_assert(zero(int, content_get(world.contents, world.ino, 0, &content)));
	write_at(content, world.bytes, FILE_SIZE, 0);
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_CLOSE, 0, &seq)));
	content_put(content);
	store_it(&world);
	(void)cache_reserve(contents_cache(world.contents), 60 << 20); /* nothing of it is here any more */
	cr_assert(zero(int, content_get(world.contents, world.ino, 0, &content)));
	write_pieces(&world, content);
	check(&world, content);
	content_put(content);
	world_free(&world);
}
