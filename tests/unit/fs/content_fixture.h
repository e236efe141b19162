/*
 * content_fixture.h - contents on a memory store that nobody uploads to.
 */
#ifndef VARVE_TESTS_UNIT_FS_CONTENT_FIXTURE_H
#define VARVE_TESTS_UNIT_FS_CONTENT_FIXTURE_H

#include <sys/stat.h>

#include "fs/content.h"
#include "tests/unit/fs/fixture.h"

#define SIZE ((size_t)1 << 20)

struct world {
	struct store *store;
	struct machine machine;
	struct contents *contents;
	char *cache;
};

static inline void contents_open(struct world *world)
{
	struct contents_options options = {.cache_limit = 64 << 20,
					   .catalog = world->machine.catalog,
					   .transfer = world->machine.transfer,
					   .cache_dir = world->cache};

	cr_assert(zero(int, contents_new(&options, &world->contents)));
}

static inline void world_open(struct world *world)
{
	world->store = store_new(STORE_MEMORY);
	world->machine = machine_on(world->store, "here");
	world->cache = fixture_path(world->store->dir, "cache");
	cr_assert(zero(int, mkdir(world->cache, 0700)));
	contents_open(world);
}

static inline void world_close(struct world *world)
{
	transfer_free(world->machine.transfer);
	contents_free(world->contents);
	catalog_close(world->machine.catalog);
	free(world->machine.dir);
	store_free(world->store);
	free(world->cache);
}

static inline ssize_t fill(void *arg, int fd, uint64_t offset, size_t len)
{
	return pwrite(fd, arg, len, (off_t)offset);
}

static inline uint64_t make_empty(struct world *world, const char *name)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFREG | 0644};
	struct cat_inode inode;

	cr_assert(zero(int, catalog_create(world->machine.catalog, &create, &inode)));
	return inode.ino;
}

/* `SIZE` times 'a', closed and its version not stored; the reference is the caller's. */
static inline struct content *make_file(struct world *world, const char *name)
{
	AUTO_FREE char *bytes = malloc(SIZE);
	struct content_write write = {.len = SIZE, .fill = fill, .arg = bytes};
	struct content *content;

	cr_assert(ne(ptr, bytes, NULL));
	memset(bytes, 'a', SIZE);
	cr_assert(zero(int, content_get(world->contents, make_empty(world, name), 0, &content)));
	content_writer_came(content);
	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)SIZE));
	cr_assert(zero(int, content_writer_gone(content, 0)));
	return content;
}

/* All of it, and nothing else. */
static inline bool is_all(struct world *world, uint64_t ino, uint64_t seq, char byte)
{
	AUTO_FREE char *bytes = calloc(1, SIZE);
	struct content *content;
	bool all = false;

	if (content_get(world->contents, ino, seq, &content))
		return false;
	if (content_pread(content, bytes, SIZE, 0, NULL) == (ssize_t)SIZE)
		all = bytes[0] == byte && memcmp(bytes, bytes + 1, SIZE - 1) == 0;
	content_put(content);
	return all;
}

struct upload {
	uint64_t job, version;
};

static inline int upload_take(void *arg, struct cat_job *job)
{
	if (job->type == CAT_JOB_UPLOAD)
		*(struct upload *)arg = (struct upload){.job = job->seq, .version = job->version};
	return 0;
}

/* The one that waits. */
static inline struct upload upload_of(struct world *world, uint64_t ino)
{
	struct upload upload = {0};

	cr_assert(zero(int, catalog_jobs_of(world->machine.catalog, ino, 0, upload_take, &upload)));
	cr_assert(ne(u64, upload.job, 0));
	return upload;
}

#endif
