/*
 * readers.c - how much is asked of the store for which reads, how far the asking runs ahead of the reader, and that
 * many readers of more than the cache holds get the right bytes within its bounds.
 *
 * Time is judged against what reads without any foresight take in the same run, through the same slow proxy: however
 * busy the machine is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define LATENCY 100
#define LONE_BLOCK (64 * KIB)
#ifdef __SANITIZE_THREAD__ /* it takes several times as much */
#define MOST_MEMORY_KIB (2000 * KIB)
#else
#define MOST_MEMORY_KIB (200 * KIB)
#endif

static struct mounted m;
static struct proxy proxy;

static void setup(void)
{
	proxy_new(&proxy);
	mounted_new(&m, MOUNTED_S3);
}

static void teardown(void)
{
	mounted_free(&m);
	proxy_free(&proxy);
}

TestSuite(readers, .init = setup, .fini = teardown, .timeout = 300);

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

static void start(const char *more)
{
	char options[256];

	snprintf(options, sizeof(options), "endpoint=%s%s%s", proxy.endpoint, more ? "," : "", more ? more : "");
	mounted_start(&m, options);
}

/* Nothing of what files hold is here any more; what the catalog knows of them is. */
static void start_cold(const char *more)
{
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE/cache\"", NULL, 0));
	start(more);
}

static void slow(int latency)
{
	char attributes[64];

	snprintf(attributes, sizeof(attributes), "\"latency\":%d", latency);
	proxy_toxic(&proxy, "latency", attributes);
}

/* --- files of which every eight bytes say where they lie --- */

static uint64_t word_at(uint64_t offset)
{
	return offset * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

static void fill(char *bytes, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = word_at(offset + i);

		memcpy(bytes + i, &word, 8);
	}
}

static bool is_filled(const char *bytes, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = word_at(offset + i);

		if (memcmp(bytes + i, &word, 8) != 0)
			return false;
	}
	return true;
}

static void make_file(const char *path, uint64_t size)
{
	char *block = malloc(MIB);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	cr_assert(fd >= 0 && block, "%s: %s", path, strerror(errno));
	for (uint64_t offset = 0; offset < size; offset += MIB) {
		fill(block, MIB, offset);
		cr_assert_eq(write(fd, block, MIB), MIB, "%s", strerror(errno));
	}
	OK(close(fd));
	free(block);
}

/* Whether [offset, offset + len) came and is right. */
static bool read_right(int fd, char *bytes, size_t len, uint64_t offset)
{
	return pread(fd, bytes, len, (off_t)offset) == (ssize_t)len && is_filled(bytes, len, offset);
}

static int open_cold(const char *name)
{
	int fd = open(at(name), O_RDONLY);

	cr_assert_geq(fd, 0, "%s", strerror(errno));
	return fd;
}

static int64_t requests(void)
{
	return mounted_status(&m, "store.gets");
}

static int64_t received(void)
{
	return mounted_status(&m, "store.bytes_received");
}

/* What is under way ahead arrives, and what it brings with it. */
static void wait_until_quiet(void)
{
	for (int quiet = 0; quiet < 5; quiet++) {
		usleep(100000);
		if (mounted_status(&m, "store.running") || mounted_status(&m, "store.queued"))
			quiet = -1;
	}
}

/* --- foresight --- */

#define LONE 6

/* What a read of so many bytes takes that nothing foresees. */
static long lone_read_ms(size_t len)
{
	char *bytes = malloc(len), name[32];
	long began = now_ms();

	for (unsigned i = 0; i < LONE; i++) {
		int fd;

		snprintf(name, sizeof(name), "lone%u/f", i);
		fd = open_cold(name);
		cr_assert_eq(pread(fd, bytes, len, 0), (ssize_t)len, "%s", strerror(errno));
		close(fd);
	}
	free(bytes);
	return (now_ms() - began) / LONE;
}

static void make_lone_files(size_t size)
{
	char *bytes = calloc(1, size), name[32];

	for (unsigned i = 0; i < LONE; i++) {
		snprintf(name, sizeof(name), "lone%u", i);
		OK(mkdir(at(name), 0755));
		snprintf(name, sizeof(name), "lone%u/f", i);
		file_write(at(name), bytes, size);
	}
	free(bytes);
}

Test(readers, a_sequential_reader_does_not_wait_for_each_request)
{
	uint64_t size = 64 * MIB;
	char *bytes = malloc(MIB);
	int64_t before;
	long began, lone;
	int fd;

	start(NULL);
	make_file(at("big"), size);
	make_lone_files(MIB);
	start_cold(NULL);
	slow(2 * LATENCY);
	lone = lone_read_ms(MIB);
	before = requests();
	fd = open_cold("big");
	began = now_ms();
	for (uint64_t offset = 0; offset < size; offset += MIB)
		cr_assert(read_right(fd, bytes, MIB, offset), "at %zu", (size_t)offset);
	cr_assert_lt(now_ms() - began, 64 * lone / 2, "a round trip for each MiB");
	cr_assert_leq(requests() - before, 64 / 3, "small pieces");
	close(fd);
	free(bytes);
	proxy_clear(&proxy);
	OK(mounted_stop(&m));
}

Test(readers, a_strided_reader_does_not_wait_for_each_block)
{
	char bytes[4096];
	long began, lone;
	int64_t before;
	int fd;

	start(NULL);
	make_file(at("big"), 64 * MIB);
	make_lone_files(LONE_BLOCK);
	start_cold("cache_size=64M"); /* a quarter of it is less than the file: it is not bought whole */
	slow(LATENCY);
	lone = lone_read_ms(LONE_BLOCK);
	before = received();
	fd = open_cold("big");
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	began = now_ms();
	for (uint64_t offset = 0; offset < 60 * MIB; offset += MIB / 2)
		cr_assert(read_right(fd, bytes, sizeof(bytes), offset));
	cr_assert_lt(now_ms() - began, 120 * lone / 2, "a round trip for each block");
	cr_assert_lt(received() - before, 120 * LONE_BLOCK + 2 * MIB, "more than the blocks");
	close(fd);
	proxy_clear(&proxy);
	OK(mounted_stop(&m));
}

static void shuffle(unsigned *numbers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		numbers[i] = i;
	for (unsigned i = count - 1; i > 0; i--) {
		unsigned other = (unsigned)random() % (i + 1), kept = numbers[i];

		numbers[i] = numbers[other];
		numbers[other] = kept;
	}
}

#define FILES 200
#define SMALL (8 * KIB)

/* Made in an order that is not that of their names. */
static void make_small_files(unsigned *numbers)
{
	char path[64], *bytes = malloc(SMALL);

	shuffle(numbers, FILES);
	OK(mkdir(at("dir"), 0755));
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "dir/f%03u", numbers[i]);
		fill(bytes, SMALL, numbers[i] * UINT64_C(1000000));
		file_write(at(path), bytes, SMALL);
	}
	free(bytes);
}

static void read_small_file(unsigned number)
{
	char path[64], bytes[SMALL];
	int fd;

	snprintf(path, sizeof(path), "dir/f%03u", number);
	fd = open(at(path), O_RDONLY);
	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(read(fd, bytes, SMALL), SMALL);
	cr_assert(is_filled(bytes, SMALL, number * UINT64_C(1000000)), "%s", path);
	close(fd);
}

/* The numbers in the order to be read in. */
static void expect_fetched_ahead(const unsigned *order)
{
	int64_t before;
	long began, lone;

	start_cold(NULL);
	slow(LATENCY);
	lone = lone_read_ms(SMALL);
	before = requests();
	began = now_ms();
	for (unsigned i = 0; i < FILES; i++)
		read_small_file(order[i]);
	cr_assert_lt(now_ms() - began, FILES * lone / 2, "a round trip for each file");
	cr_assert_leq(requests() - before, FILES, "files were fetched twice");
	proxy_clear(&proxy);
}

Test(readers, small_files_of_a_directory_are_fetched_ahead_in_either_order)
{
	unsigned made[FILES], sorted[FILES];

	start(NULL);
	make_small_files(made);
	make_lone_files(SMALL);
	for (unsigned i = 0; i < FILES; i++)
		sorted[i] = i;
	expect_fetched_ahead(made);
	expect_fetched_ahead(sorted);
	OK(mounted_stop(&m));
}

Test(readers, files_opened_here_and_there_bring_no_others)
{
	unsigned made[FILES], order[FILES];
	int64_t before;

	start(NULL);
	make_small_files(made);
	shuffle(order, FILES);
	start_cold(NULL);
	before = requests();
	for (unsigned i = 0; i < 40; i++)
		read_small_file(order[i]);
	wait_until_quiet();
	cr_assert_leq(requests() - before, 40 + 12, "one or the other looks like a neighbour");
	OK(mounted_stop(&m));
}

#define TREE_DIRS 6
#define TREE_FILES 10

static void read_directory(unsigned dir)
{
	char path[64], bytes[SMALL];

	for (unsigned i = 0; i < TREE_FILES; i++) {
		int fd;

		snprintf(path, sizeof(path), "tree/d%u/f%u", dir, i);
		fd = open(at(path), O_RDONLY);
		cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
		cr_assert_eq(read(fd, bytes, SMALL), SMALL);
		close(fd);
	}
}

static void expect_gets(int64_t least, const char *what)
{
	for (int i = 0; i < 300 && mounted_status(&m, "store.gets") < least; i++)
		usleep(100000);
	cr_assert_geq(mounted_status(&m, "store.gets"), least, "%s", what);
}

Test(readers, a_walk_through_a_tree_is_foreseen_beyond_its_directory)
{
	char path[64], bytes[SMALL] = {0};
	int64_t before;

	start(NULL);
	OK(mkdir(at("tree"), 0755));
	for (unsigned dir = 0; dir < TREE_DIRS; dir++) {
		snprintf(path, sizeof(path), "tree/d%u", dir);
		OK(mkdir(at(path), 0755));
		for (unsigned i = 0; i < TREE_FILES; i++) {
			snprintf(path, sizeof(path), "tree/d%u/f%u", dir, i);
			file_write(at(path), bytes, SMALL);
		}
	}
	start_cold(NULL);
	before = mounted_status(&m, "store.gets");
	read_directory(0);
	read_directory(1);
	expect_gets(before + 3 * TREE_FILES, "nothing beyond the second directory was brought");
	for (unsigned dir = 2; dir < TREE_DIRS; dir++)
		read_directory(dir);
	cr_assert_leq(mounted_status(&m, "store.gets") - before, TREE_DIRS * TREE_FILES, "files were fetched twice");
	OK(mounted_stop(&m));
}

/* --- random reads --- */

static void read_randomly(const char *name, uint64_t size, unsigned count)
{
	int fd = open_cold(name);
	char bytes[4096];

	srandom(3);
	for (unsigned i = 0; i < count; i++) {
		uint64_t offset = (uint64_t)random() % (size / 4096) * 4096;

		cr_assert(read_right(fd, bytes, sizeof(bytes), offset), "read %u, at %llu: %s", i,
			  (unsigned long long)offset, strerror(errno));
	}
	close(fd);
}

Test(readers, random_reads_of_a_file_too_large_to_be_bought_fetch_little)
{
	int64_t before;

	start(NULL);
	make_file(at("big"), 64 * MIB);
	start_cold("cache_size=64M");
	slow(LATENCY);
	before = received();
	read_randomly("big", 64 * MIB, 60);
	cr_assert_leq(received() - before, 60 * LONE_BLOCK + MIB);
	proxy_clear(&proxy);
	OK(mounted_stop(&m));
}

Test(readers, random_reads_buy_the_rest_of_a_file_once_they_have_cost_as_much)
{
	int64_t before, bytes;

	start(NULL);
	make_file(at("big"), 64 * MIB);
	start_cold(NULL);
	slow(LATENCY);
	before = requests();
	bytes = received();
	read_randomly("big", 64 * MIB, 400);
	cr_assert_lt(requests() - before, 400 / 3, "a round trip for each read");
	/* What misses brought may come once more, in the midst of a large piece. */
	cr_assert_leq(received() - bytes, 64 * MIB + 2 * 200 * LONE_BLOCK, "bytes were fetched twice");
	proxy_clear(&proxy);
	OK(mounted_stop(&m));
}

/* Of the largest file of the cache. */
static size_t resident_of_cache(void)
{
	char command[400], path[300];
	size_t bytes;
	int fd;

	(void)snprintf(command, sizeof(command),
		       "find '%s/cache' -type f -printf '%%s %%p\\n' | sort -n | tail -1 | cut -d' ' -f2", m.state);
	OK(mounted_text(&m, command, path, sizeof(path)));
	fd = open(path, O_RDONLY);
	cr_assert_geq(fd, 0, "%s", path);
	bytes = file_resident(fd);
	(void)close(fd);
	return bytes;
}

Test(readers, what_is_bought_ahead_of_reads_does_not_stay_in_memory)
{
	struct statfs fs;
	int64_t before;

	start(NULL);
	make_file(at("big"), 160 * MIB);
	start_cold(NULL);
	OK(statfs(m.state, &fs));
	before = received();
	slow(3 * LATENCY);
	read_randomly("big", 160 * MIB, 400);
	proxy_clear(&proxy);
	wait_until_quiet();
	cr_assert_geq(received() - before, 150 * MIB, "it was not bought");
	if (fs.f_type == TMPFS_MAGIC)
		cr_log_warn("a cache on tmpfs is memory");
	else
		cr_assert_lt(resident_of_cache(), 112 * MIB);
	OK(mounted_stop(&m));
}

Test(readers, a_few_random_reads_bring_no_more_than_themselves)
{
	int64_t before;

	start(NULL);
	make_file(at("big"), 64 * MIB);
	start_cold(NULL);
	slow(LATENCY);
	before = received();
	read_randomly("big", 64 * MIB, 6);
	proxy_clear(&proxy);
	wait_until_quiet();
	cr_assert_leq(received() - before, 6 * LONE_BLOCK + MIB);
	OK(mounted_stop(&m));
}

/* Half of each 8 KiB is new and not stored yet: what lies between is not asked for piece by piece. */
Test(readers, a_file_written_in_a_thousand_places_is_read_in_few_requests)
{
	char page[4 * KIB];
	int64_t before;
	int fd;

	start(NULL);
	make_file(at("big"), 8 * MIB);
	start_cold(NULL);
	fd = open(at("big"), O_RDWR);
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	for (uint64_t offset = 0; offset < 8 * MIB; offset += 2 * sizeof(page)) {
		fill(page, sizeof(page), offset);
		cr_assert_eq(pwrite(fd, page, sizeof(page), (off_t)offset), (ssize_t)sizeof(page));
	}
	before = requests();
	for (uint64_t offset = 0; offset < 8 * MIB; offset += sizeof(page))
		cr_assert(read_right(fd, page, sizeof(page), offset), "at %llu", (unsigned long long)offset);
	cr_assert_leq(requests() - before, 40);
	OK(close(fd));
	OK(mounted_stop(&m));
}

#define PATCHES 12
#define LEAST_PART (5 * MIB)

/* An upload reads what its parts lack, but it is no reader whose next reads are to be guessed. */
Test(readers, a_patched_file_brings_what_its_parts_lack_and_nothing_else)
{
	int64_t bytes, before;
	int fd;

	start(NULL);
	make_file(at("big"), PATCHES * 2 * LEAST_PART);
	start_cold(NULL);
	before = requests();
	bytes = received();
	fd = open(at("big"), O_RDWR);
	cr_assert_geq(fd, 0);
	for (off_t i = 0; i < PATCHES; i++)
		cr_assert_eq(pwrite(fd, "patch", 5, i * 2 * LEAST_PART + MIB), 5, "%s", strerror(errno));
	OK(fsync(fd));
	cr_assert_leq(received() - bytes, PATCHES * LEAST_PART + MIB);
	cr_assert_leq(requests() - before, PATCHES * 3 + 12, "more than fetch, send and copy");
	OK(close(fd));
	OK(mounted_stop(&m));
}

/* --- bounds --- */

#define READERS 64
#define LARGE (160 * (uint64_t)MIB)
#define CACHE (16 * (int64_t)MIB)
/* What 64 readers wait for at one moment, at most a request of the kernel each; fetch.c, invariant 6. */
#define SLACK (READERS * (int64_t)MIB)

static atomic_uint wrong;
static atomic_bool ended;

/* Some in sequence, some at random, some in strides. */
static void *read_some(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg, state = number;
	size_t len = number % 4 == 0 ? 256 * KIB : number % 4 == 1 ? 64 * KIB : 4096;
	uint64_t offset = LARGE / READERS * number;
	char *bytes = malloc(len);
	int fd = open(at("large"), O_RDONLY);

	for (unsigned i = 0; fd >= 0 && i < 24 && !wrong; i++) {
		if (number % 4 == 3)
			offset = (uint64_t)rand_r(&state) % (LARGE / 4096) * 4096;
		if (!read_right(fd, bytes, len, offset))
			wrong++;
		offset = (offset + (number % 4 == 2 ? 512 * KIB : len)) % (LARGE - 256 * KIB);
	}
	if (fd < 0 || close(fd))
		wrong++;
	free(bytes);
	return NULL;
}

static void *watch_cache(void *arg)
{
	int64_t *most = arg;

	while (!ended) {
		int64_t used = mounted_status(&m, "cache.used");

		*most = used > *most ? used : *most;
		usleep(20000);
	}
	return NULL;
}

static long peak_memory_kib(pid_t pid)
{
	char path[64], line[256];
	long kib = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	cr_assert(file);
	while (fgets(line, sizeof(line), file))
		(void)sscanf(line, "VmHWM: %ld", &kib);
	fclose(file);
	return kib;
}

static void run_readers(void)
{
	pthread_t threads[READERS];

	wrong = 0;
	for (uintptr_t i = 0; i < READERS; i++)
		OK(pthread_create(&threads[i], NULL, read_some, (void *)i));
	for (size_t i = 0; i < READERS; i++)
		OK(pthread_join(threads[i], NULL));
}

Test(readers, many_of_a_file_ten_times_the_cache_stay_within_bounds)
{
	pthread_t watcher;
	int64_t most = 0;

	start(NULL);
	make_file(at("large"), LARGE);
	start_cold("cache_size=16M");
	OK(pthread_create(&watcher, NULL, watch_cache, &most));
	run_readers();
	ended = true;
	OK(pthread_join(watcher, NULL));
	cr_assert_eq(wrong, 0);
	most = mounted_status(&m, "cache.used") > most ? mounted_status(&m, "cache.used") : most;
	cr_assert_gt(most, CACHE / 2, "nothing was cached");
	cr_assert_leq(most, CACHE + SLACK, "the cache held %lld MiB", (long long)(most / MIB));
	cr_assert_lt(peak_memory_kib(m.pid), MOST_MEMORY_KIB);
	/* With nobody waiting the next fetch brings it back under its limit. */
	read_randomly("large", LARGE, 4);
	cr_assert_leq(mounted_status(&m, "cache.used"), CACHE);
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

/* Eviction goes behind a reader, not right behind: what was just read may be looked at again. */
Test(readers, what_a_reader_has_just_passed_stays)
{
	char *bytes = malloc(MIB);
	int64_t before;
	int fd;

	start(NULL);
	make_file(at("large"), LARGE);
	start_cold("cache_size=16M");
	fd = open_cold("large");
	for (uint64_t offset = 0; offset < 64 * (uint64_t)MIB; offset += 128 * KIB)
		cr_assert(read_right(fd, bytes, 128 * KIB, offset));
	wait_until_quiet();
	before = requests();
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)); /* the kernel's copy goes */
	cr_assert(read_right(fd, bytes, 512 * KIB, 64 * (uint64_t)MIB - 512 * KIB));
	cr_assert_leq(requests() - before, 1, "it was fetched again"); /* one: the next piece ahead */
	cr_assert_leq(mounted_status(&m, "cache.used"), CACHE + MIB);
	close(fd);
	free(bytes);
	OK(mounted_stop(&m));
}

/* --- changes while bytes are under way --- */

#define CHANGED (24 * (uint64_t)MIB)

static void *read_through(void *arg)
{
	char *bytes = malloc(64 * KIB);
	int fd = open(at("f"), O_RDONLY);

	(void)arg;
	for (uint64_t offset = 0; offset < CHANGED; offset += 64 * KIB)
		if (pread(fd, bytes, 64 * KIB, (off_t)offset) != 64 * KIB)
			wrong++;
	close(fd);
	free(bytes);
	return NULL;
}

/* Odd blocks of 24 KiB are written while a reader goes through the file and fetches come in beside him. */
Test(readers, a_write_into_what_is_being_fetched_wins)
{
	char *block = malloc(24 * KIB), *bytes = malloc(24 * KIB);
	pthread_t reader;
	int fd;

	memset(block, 'w', 24 * KIB);
	start(NULL);
	make_file(at("f"), CHANGED);
	start_cold(NULL);
	proxy_toxic(&proxy, "bandwidth", "\"rate\":16384");
	fd = open(at("f"), O_RDWR);
	cr_assert_geq(fd, 0);
	OK(pthread_create(&reader, NULL, read_through, NULL));
	for (uint64_t i = 1; (i + 1) * 24 * KIB <= CHANGED; i += 2) {
		cr_assert_eq(pwrite(fd, block, 24 * KIB, (off_t)(i * 24 * KIB)), 24 * KIB, "%s", strerror(errno));
		usleep(1000);
	}
	OK(pthread_join(reader, NULL));
	OK(close(fd));
	cr_assert_eq(wrong, 0);
	proxy_clear(&proxy);
	mounted_settle(&m, 60);
	for (int round = 0; round < 2; round++) { /* as it lies here, and as it was stored */
		fd = open_cold("f");
		for (uint64_t i = 0; (i + 1) * 24 * KIB <= CHANGED; i++) {
			cr_assert_eq(pread(fd, bytes, 24 * KIB, (off_t)(i * 24 * KIB)), 24 * KIB);
			cr_assert(i % 2 ? memcmp(bytes, block, 24 * KIB) == 0
					: is_filled(bytes, 24 * KIB, i * 24 * KIB),
				  "block %zu", (size_t)i);
		}
		close(fd);
		start_cold(NULL);
	}
	free(block);
	free(bytes);
	OK(mounted_stop(&m));
}

/* --- the end in the middle --- */

static pid_t fork_reader(unsigned number, atomic_uint *reading)
{
	pid_t pid = fork();

	if (pid == 0) { /* until it fails: the daemon is killed below it */
		char bytes[4096];
		int fd = open(at("large"), O_RDONLY);

		for (unsigned i = 0; fd >= 0; i++) {
			if (pread(fd, bytes, sizeof(bytes), (off_t)((i * 977 + number * 131) % (LARGE / 4096) * 4096)) <
			    0)
				_exit(7);
			*reading += i == 2;
		}
		_exit(1);
	}
	return pid;
}

Test(readers, kill_in_the_middle_of_reads_leaves_nobody_hanging)
{
	atomic_uint *reading = mmap(NULL, sizeof(*reading), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pids[8];
	int status;

	cr_assert_neq(reading, MAP_FAILED);
	start(NULL);
	make_file(at("large"), LARGE);
	start_cold("cache_size=16M");
	slow(LATENCY);
	for (unsigned i = 0; i < 8; i++)
		pids[i] = fork_reader(i, reading);
	while (*reading < 8)
		usleep(10000);
	mounted_kill(&m);
	for (unsigned i = 0; i < 8; i++) {
		cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]); /* the suite's time limit is the judge */
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%d", status);
	}
	proxy_clear(&proxy);
	start("cache_size=16M");
	read_randomly("large", LARGE, 200);
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}
