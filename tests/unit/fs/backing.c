/* Tests of fs/backing.c: what no kernel is needed for. The mapping of a handle is one of the cache file, made here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "fs/backing.h"
#include "fs/content_internal.h"
#include "fs/kernel.h"
#include "tests/unit/fs/content_fixture.h"

static int known(void *arg, int fd)
{
	(void)arg;
	return fd >= 0;
}

static void unknown(void *arg, int id)
{
	(void)arg;
	(void)id;
}

static const struct backing_kernel kernel = {.open = known, .close = unknown};

/* Whether it begins with `text`: the live file (seq 0) or a version. */
static bool begins_with(struct world *world, uint64_t ino, uint64_t seq, const char *text)
{
	char bytes[8] = {0};
	struct content *content;

	cr_assert(zero(int, content_get(world->contents, ino, seq, &content)));
	cr_assert(eq(i64, (int64_t)content_pread(content, bytes, strlen(text), 0, NULL), (int64_t)strlen(text)));
	content_put(content);
	return strcmp(bytes, text) == 0;
}

static char *map(struct content *content)
{
	char path[40], *mapped;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", content_fd(content));
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert(ge(int, fd, 0));
	mapped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert(ne(ptr, mapped, MAP_FAILED));
	(void)close(fd);
	return mapped;
}

/* Files larger than this cannot be written, as on a full disk. */
static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	cr_assert(zero(int, getrlimit(RLIMIT_FSIZE, &limit)));
	limit.rlim_cur = bytes;
	cr_assert(zero(int, setrlimit(RLIMIT_FSIZE, &limit)));
}

Test(backing, without_room_for_its_copy_a_mapped_file_gets_no_version)
{
	enum backing_mode reader, writer;
	struct world world;
	struct content *content;
	uint64_t first, seq = 0;
	char *mapped;
	int id;

	(void)signal(SIGXFSZ, SIG_IGN);
	world_open(&world);
	content = make_file(&world, "f");
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_CLOSE, 0, &first)));
	cr_assert(zero(int, backing_join(content, O_RDONLY, &kernel, &reader, &id)));
	content_writer_came(content);
	cr_assert(zero(int, backing_join(content, O_RDWR, &kernel, &writer, &id)));
	cr_assert(reader == BACKING_BACKED && writer == BACKING_DIRECT, "nothing passes through here");
	mapped = map(content);
	memcpy(mapped, "one", 3);
	limit_files(SIZE / 2);
	cr_assert(lt(int, content_commit(content, CAT_ORIGIN_FSYNC, 0, &seq), 0));
	limit_files(RLIM_INFINITY);
	memcpy(mapped, "two", 3);
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_FSYNC, 0, &seq)));
	cr_assert(begins_with(&world, content->ino, first, "aaa"));
	cr_assert(begins_with(&world, content->ino, seq, "two"));
	memcpy(mapped, "six", 3);
	for (uint64_t between = first + 1; between < seq; between++) {
		struct content *version;

		cr_assert(content_get(world.contents, content->ino, between, &version) != 0,
			  "a version was made without a file of its own");
	}
	cr_assert(begins_with(&world, content->ino, seq, "two"), "a mapping wrote into a version");
	cr_assert(zero(int, munmap(mapped, SIZE)));
	backing_leave(content, writer, &kernel);
	backing_leave(content, reader, &kernel);
	cr_assert(zero(int, content_writer_gone(content, 0)));
	cr_assert(begins_with(&world, content->ino, 0, "six"));
	contents_cancel(world.contents);
	content_put(content);
	world_close(&world);
}

static enum backing_mode join(struct content *content, int flags, const struct backing_kernel *with)
{
	enum backing_mode mode;
	int id;

	cr_assert(zero(int, backing_join(content, flags, with, &mode, &id)));
	return mode;
}

Test(backing, who_only_writes_goes_past_the_page_cache_unless_somebody_reads_through_it)
{
	static const struct backing_kernel older = {0}, newer = {.uncached = true};
	struct world world;
	struct content *content;

	world_open(&world);
	content = make_file(&world, "f");
	cr_assert(eq(int, join(content, O_WRONLY, &older), BACKING_CACHED));
	backing_leave(content, BACKING_CACHED, &older);
	cr_assert(eq(int, join(content, O_WRONLY | O_APPEND, &newer), BACKING_UNCACHED));
	cr_assert(eq(int, join(content, O_WRONLY, &newer), BACKING_UNCACHED));
	cr_assert(eq(int, join(content, O_RDWR, &newer), BACKING_CACHED));
	cr_assert(eq(int, join(content, O_WRONLY, &newer), BACKING_CACHED));
	backing_leave(content, BACKING_CACHED, &newer);
	backing_leave(content, BACKING_CACHED, &newer);
	cr_assert(eq(int, join(content, O_WRONLY, &newer), BACKING_UNCACHED));
	for (int i = 0; i < 3; i++)
		backing_leave(content, BACKING_UNCACHED, &newer);
	cr_assert(zero(uint, content->cached + content->uncached));
	content_put(content);
	world_close(&world);
}

Test(backing, nothing_is_read_past_us_beside_a_writer)
{
	static const struct backing_kernel both = {.open = known, .close = unknown, .uncached = true};
	struct world world;
	struct content *content;
	uint64_t seq;

	world_open(&world);
	content = make_file(&world, "f");
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_CLOSE, 0, &seq)));
	cr_assert(eq(int, join(content, O_WRONLY, &both), BACKING_UNCACHED));
	cr_assert(eq(int, join(content, O_RDONLY, &both), BACKING_CACHED));
	backing_leave(content, BACKING_CACHED, &both);
	backing_leave(content, BACKING_UNCACHED, &both);
	cr_assert(eq(int, join(content, O_RDONLY, &both), BACKING_BACKED));
	cr_assert(eq(int, join(content, O_WRONLY, &both), BACKING_DIRECT));
	backing_leave(content, BACKING_DIRECT, &both);
	backing_leave(content, BACKING_BACKED, &both);
	contents_cancel(world.contents);
	content_put(content);
	world_close(&world);
}

Test(backing, kernels_are_known_that_show_the_old_bytes_beside_an_uncached_writer)
{
	static const char *const repaired[] = {"6.19.0", "7.0-rc1", "6.18.3", "6.18.44-custom", "6.12.70+deb13-amd64",
					       "6.6.120"};
	static const char *const stale[] = {"6.18.2",         "6.17.9", "6.12.64", "6.6.119",
					    "6.1.0-50-amd64", "5.15.0", "?",       ""};

	for (size_t i = 0; i < sizeof(repaired) / sizeof(repaired[0]); i++)
		cr_assert(kernel_drops_what_is_written(repaired[i]), "%s", repaired[i]);
	for (size_t i = 0; i < sizeof(stale) / sizeof(stale[0]); i++)
		cr_assert_not(kernel_drops_what_is_written(stale[i]), "%s", stale[i]);
}
