/* Tests of fs/recover.c: what is kept of a file that was open when the power went. */
#include <inttypes.h>
#include <stdlib.h>

#include "fs/cache.h"
#include "tests/unit/fs/content_fixture.h"

#define OTHER_BOOT "11111111-2222-3333-4444-555555555555"
#define NUMBERS_AHEAD 200 /* they go up in steps */

/* `SIZE` times 'b' of a file that is still open. */
static uint64_t write_unclosed(struct world *world)
{
	AUTO_FREE char *bytes = malloc(SIZE);
	struct content_write write = {.len = SIZE, .fill = fill, .arg = bytes};
	uint64_t ino = make_empty(world, "f");
	struct content *content;

	cr_assert(ne(ptr, bytes, NULL));
	memset(bytes, 'b', SIZE);
	cr_assert(zero(int, content_get(world->contents, ino, 0, &content)));
	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)SIZE));
	content_put(content);
	return ino;
}

/* What linking the next version's file would meet: one that lies there, and no way around it. */
static void obstruct_links(struct world *world)
{
	struct cat_commit commit = {.ino = make_empty(world, "g")};
	struct cat_version last;

	cr_assert(zero(int, catalog_commit(world->machine.catalog, &commit, &last)));
	for (uint64_t seq = last.seq + 1; seq < last.seq + NUMBERS_AHEAD; seq++) {
		uint64_t id = CACHE_VERSION | seq;
		char path[256];
		FILE *file;

		(void)snprintf(path, sizeof(path), "%s/%02" PRIx64, world->cache, id & 0xff);
		(void)mkdir(path, 0700);
		(void)snprintf(path, sizeof(path), "%s/%02" PRIx64 "/%" PRIx64, world->cache, id & 0xff, id);
		file = fopen(path, "w");
		cr_assert(ne(ptr, file, NULL));
		(void)fclose(file);
		(void)snprintf(path, sizeof(path), "%s/%02" PRIx64 "/%" PRIx64 ".link", world->cache, id & 0xff, id);
		cr_assert(zero(int, mkdir(path, 0700)));
	}
}

/* The file is empty again, and its cache file goes: it had the only name of what the version held. */
Test(recover, a_suspect_version_keeps_its_bytes_though_its_file_cannot_be_linked)
{
	struct world world;
	struct cat_inode inode;
	uint64_t ino, seq, recovered;

	world_open(&world);
	ino = write_unclosed(&world);
	contents_free(world.contents);
	cr_assert(zero(int, setenv("VARVE_TEST_BOOT_ID", OTHER_BOOT, 1)));
	contents_open(&world);
	obstruct_links(&world);
	cr_assert(zero(int, contents_recover(world.contents, &recovered)));
	seq = upload_of(&world, ino).version;
	cr_assert(zero(int, catalog_getattr(world.machine.catalog, ino, &inode)));
	cr_assert(zero(u64, inode.size), "the suspect bytes are the file");
	cr_assert(is_all(&world, ino, seq, 'b'), "the suspect bytes are gone");
	world_close(&world);
}
