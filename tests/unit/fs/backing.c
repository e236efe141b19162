/* Tests of fs/backing.c: what no kernel is needed for. The mapping of a handle is one of the cache file, made here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "fs/backing.h"
#include "fs/content_internal.h"
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
