/* Tests of fs/content.c: what is a version and what is not. */
#include <errno.h>

#include "tests/unit/fs/content_fixture.h"

#define HALF (SIZE / 2)

static void write_half(struct content *content, uint64_t offset)
{
	AUTO_FREE char *bytes = calloc(1, HALF);
	struct content_write write = {.offset = offset, .len = HALF, .fill = fill, .arg = bytes};

	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)HALF));
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
	ino = make_empty(&world, "f");
	none = newest(&world, ino, &size);
	cr_assert(zero(int, content_get(world.contents, ino, 0, &content)));
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
