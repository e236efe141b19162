/*
 * passthrough.c - files that the kernel reads from the cache itself: that it does, and what must hold although no
 * request tells of it (fs/backing.h).
 *
 * That a read comes past varve shows when varve is stopped. Where kernel or libfuse are too old for passthrough these
 * tests check that everything else holds all the same.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "support/mounted.h"
#include "support/network.h"

#define SIZE (1u << 20)

static struct mounted m;
static struct proxy proxy; /* of one test */
static char bytes[SIZE];

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	mounted_free(&m);
	if (proxy.name[0])
		proxy_free(&proxy);
}

TestSuite(passthrough, .fini = teardown, .timeout = 180);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

static bool can_pass_through(void)
{
#ifdef FUSE_CAP_PASSTHROUGH
	struct utsname name;
	int major = 0, minor = 0;

	cr_assert_eq(uname(&name), 0);
	cr_assert_eq(sscanf(name.release, "%d.%d", &major, &minor), 2);
	return geteuid() == 0 && (major > 6 || (major == 6 && minor >= 9));
#else
	return false;
#endif
}

/* A mount with one file "f" of SIZE bytes, stored and in the cache. */
static void start(const char *options)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, options);
	fill_random(bytes, SIZE, 1);
	file_write(at("f"), bytes, SIZE);
	mounted_settle(&m, 30);
}

static int open_for(int flags)
{
	int fd = open(at("f"), flags | O_CLOEXEC);

	cr_assert_geq(fd, 0, "%s", strerror(errno));
	return fd;
}

static char *map(int fd, int protection)
{
	char *mapped = mmap(NULL, SIZE, protection, MAP_SHARED, fd, 0);

	cr_assert_neq(mapped, MAP_FAILED, "%s", strerror(errno));
	return mapped;
}

static bool holds(int fd, const char *expected)
{
	static char got[SIZE];

	return pread(fd, got, SIZE, 0) == SIZE && memcmp(got, expected, SIZE) == 0;
}

/* The names below .versions/f, oldest first. */
static int versions(char ret_names[][128], int max)
{
	char *names = dir_names(at(".versions/f")), *rest = names, *name;
	int count = 0;

	cr_assert_not_null(names);
	while ((name = strsep(&rest, "\n")) && count < max)
		if (*name)
			(void)snprintf(ret_names[count++], 128, ".versions/f/%s", name);
	free(names);
	return count;
}

static int count_versions(void)
{
	char names[16][128];

	return versions(names, 16);
}

/* The probing of mappings runs twice a second. */
static void wait_for_versions(int count)
{
	for (int tries = 0; count_versions() < count; tries++) {
		cr_assert_lt(tries, 1000, "there are %d versions", count_versions());
		usleep(50000);
	}
	cr_assert_eq(count_versions(), count);
}

Test(passthrough, a_cached_file_is_read_past_a_stopped_daemon)
{
	int fd, status;
	pid_t reader;

	start(NULL);
	fd = open_for(O_RDONLY);
	if (!can_pass_through()) {
		cr_assert(holds(fd, bytes));
		close(fd);
		return;
	}
	cr_assert_eq(kill(m.pid, SIGSTOP), 0);
	cr_assert_eq(waitpid(m.pid, &status, WUNTRACED), m.pid);
	reader = fork();
	if (reader == 0)
		_exit(holds(fd, bytes) ? 0 : 1);
	for (int tries = 0; waitpid(reader, &status, WNOHANG) == 0; tries++) {
		if (tries == 2000) {
			kill(m.pid, SIGCONT);
			cr_assert_fail("the read waits for the daemon");
		}
		usleep(25000);
	}
	cr_assert_eq(kill(m.pid, SIGCONT), 0);
	cr_assert_eq(status, 0);
	close(fd);
}

Test(passthrough, a_file_that_is_not_wholly_cached_is_fetched)
{
	int fd;

	start(NULL);
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"/cache", NULL, 0), 0);
	mounted_start(&m, NULL);
	fd = open_for(O_RDONLY);
	cr_assert(holds(fd, bytes));
	close(fd);
}

static void read_large(int fd, size_t size)
{
	static char block[SIZE];

	for (size_t offset = 0; offset < size; offset += SIZE) {
		cr_assert_eq(pread(fd, block, SIZE, (off_t)offset), (ssize_t)SIZE);
		cr_assert_arr_eq(block, bytes, SIZE);
	}
}

/* "large", of `size` bytes, with nothing of it in the cache. */
static void make_large(size_t size)
{
	int fd = open(at("large"), O_WRONLY | O_CREAT, 0644);

	cr_assert_geq(fd, 0);
	for (size_t offset = 0; offset < size; offset += SIZE)
		cr_assert_eq(write(fd, bytes, SIZE), (ssize_t)SIZE);
	cr_assert_eq(close(fd), 0);
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"/cache", NULL, 0), 0);
	mounted_start(&m, NULL);
}

/* What stays in memory of "large" after `fd` has read it. */
static size_t kept_of_large(int fd, size_t size)
{
	cr_assert_geq(fd, 0);
	read_large(fd, size);
	sleep(1); /* the kernel is told by a thread of its own */
	return file_resident(fd);
}

Test(passthrough, a_large_file_read_in_sequence_is_not_in_memory_twice)
{
	const size_t size = 96 * SIZE;
	size_t kept;
	int fd;

	start(NULL);
	make_large(size);
	fd = open(at("large"), O_RDONLY);
	kept = kept_of_large(fd, size);
	if (can_pass_through())
		cr_assert_lt(kept, size / 2);
	read_large(fd, size);
	close(fd);
}

Test(passthrough, what_others_or_the_same_may_come_back_to_is_kept)
{
	const size_t size = 96 * SIZE;
	int fd, other;

	start(NULL);
	make_large(size);
	other = open(at("large"), O_RDONLY);
	fd = open(at("large"), O_RDONLY);
	cr_assert_gt(kept_of_large(fd, size), size / 2);
	read_large(other, size);
	close(other);
	close(fd);
	make_large(size);
	fd = open(at("large"), O_RDWR);
	cr_assert_gt(kept_of_large(fd, size), size / 2);
	close(fd);
}

Test(passthrough, a_writer_and_a_reader_see_the_same_bytes)
{
	char changed[SIZE], names[4][128];
	int reader, writer;

	start(NULL);
	memcpy(changed, bytes, SIZE);
	memcpy(changed + 5000, "changed", 7);
	reader = open_for(O_RDONLY);
	writer = open_for(O_WRONLY);
	cr_assert_eq(pwrite(writer, "changed", 7, 5000), 7);
	cr_assert(holds(reader, changed), "the reader does not see what was written");
	cr_assert_eq(pwrite(writer, "more", 4, SIZE), 4);
	cr_assert_eq(lseek(reader, 0, SEEK_END), SIZE + 4);
	cr_assert_eq(ftruncate(writer, SIZE), 0);
	cr_assert_eq(close(writer), 0);
	wait_for_versions(2);
	cr_assert(holds(reader, changed));
	cr_assert_eq(versions(names, 4), 2);
	cr_assert(file_is(at(names[0]), bytes, SIZE), "the version changed under the writer");
	cr_assert(file_is(at(names[1]), changed, SIZE));
	close(reader);
}

/* Of the newest version, which needs no store; 0: there is none. */
static long seq(void)
{
	char text[32] = {0};

	return getxattr(at("f"), "user.varve.seq", text, sizeof(text) - 1) > 0 ? strtol(text, NULL, 10) : 0;
}

static long wait_for_seq_after(long before)
{
	for (int tries = 0; seq() <= before; tries++) {
		cr_assert_lt(tries, 1000);
		usleep(50000);
	}
	return seq();
}

Test(passthrough, a_version_not_yet_stored_is_frozen_before_a_mapping_can_store)
{
	char changed[SIZE], names[4][128], options[128];
	long first, second;
	int reader, writer;
	char *mapped;

	proxy_new(&proxy);
	mounted_new(&m, MOUNTED_S3);
	(void)snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_start(&m, options);
	cr_assert_eq(access(at("f"), F_OK), -1); /* it knows the directory now */
	proxy_cut(&proxy);
	fill_random(bytes, SIZE, 1);
	file_write(at("f"), bytes, SIZE);
	first = wait_for_seq_after(0);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	memcpy(mapped, "mapped", 6);
	memcpy(changed, bytes, SIZE);
	memcpy(changed, "mapped", 6);
	cr_assert_eq(versions(names, 4), 1);
	cr_assert(file_is(at(names[0]), bytes, SIZE), "a mapping wrote into a version");
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
	second = wait_for_seq_after(first);
	/* And one that stores nothing leaves the newest version as it is. */
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	close(writer);
	close(reader);
	usleep(700000);
	cr_assert_eq(seq(), second);
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	cr_assert_eq(versions(names, 4), 2);
	cr_assert(file_is(at(names[0]), bytes, SIZE));
	cr_assert(file_is(at(names[1]), changed, SIZE));
	cr_assert(file_is(at("f"), changed, SIZE));
}

Test(passthrough, opening_for_writing_without_storing_makes_no_version)
{
	int reader, writer;
	char *mapped;

	start(NULL);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	cr_assert_eq(memcmp(mapped, bytes, SIZE), 0);
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_start(&m, NULL);
	cr_assert_eq(count_versions(), 1);
	cr_assert(file_is(at("f"), bytes, SIZE));
}

Test(passthrough, a_mapping_that_outlives_its_handles_still_makes_a_version)
{
	struct stat before, after;
	char names[4][128];
	int reader, writer;
	char *mapped;

	start(NULL);
	cr_assert_eq(stat(at("f"), &before), 0);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	close(writer);
	close(reader);
	usleep(700000); /* it is probed meanwhile */
	memcpy(mapped + 123456, "by mapping", 10);
	munmap(mapped, SIZE);
	memcpy(bytes + 123456, "by mapping", 10);
	wait_for_versions(2);
	cr_assert(file_is(at("f"), bytes, SIZE));
	cr_assert_eq(stat(at("f"), &after), 0);
	cr_assert(after.st_mtim.tv_sec > before.st_mtim.tv_sec || (after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
								   after.st_mtim.tv_nsec > before.st_mtim.tv_nsec),
		  "its mtime does not tell of the change");
	mounted_settle(&m, 30);
	cr_assert_eq(versions(names, 4), 2);
	cr_assert(file_is(at(names[1]), bytes, SIZE));
	cr_assert(file_is(mounted_path(&m, "../store/f"), bytes, SIZE), "what was stored by mapping is not uploaded");
}

Test(passthrough, fsync_stores_what_a_mapping_changed_and_later_stores_do_not_reach_that_version)
{
	char first[SIZE], names[4][128];
	int reader, writer;
	char *mapped;

	start(NULL);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	memcpy(mapped, "one", 3);
	cr_assert_eq(fsync(writer), 0);
	memcpy(first, bytes, SIZE);
	memcpy(first, "one", 3);
	cr_assert(file_is(mounted_path(&m, "../store/f"), first, SIZE));
	memcpy(mapped, "two", 3);
	cr_assert_eq(versions(names, 4), 2);
	cr_assert(file_is(at(names[1]), first, SIZE), "a mapping wrote into a stored version");
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
	wait_for_versions(3);
	memcpy(first, "two", 3);
	cr_assert(file_is(at("f"), first, SIZE));
}

/* tmpfs does not say when a mapping has stored. */
Test(passthrough, a_cache_that_does_not_tell_of_mapped_stores_misses_none)
{
	char first[SIZE], names[4][128];
	int reader, writer;
	char *mapped;

	mounted_new(&m, MOUNTED_LOCAL);
	cr_assert(mkdir(m.state, 0700) == 0 || errno == EEXIST, "%s", strerror(errno));
	if (can_pass_through())
		cr_assert_eq(mount("tmpfs", m.state, "tmpfs", 0, "size=64m"), 0, "%s", strerror(errno));
	mounted_start(&m, NULL);
	fill_random(bytes, SIZE, 1);
	file_write(at("f"), bytes, SIZE);
	mounted_settle(&m, 30);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	memcpy(first, mapped, SIZE); /* read first: nothing faults when it is written to */
	memcpy(mapped, "one", 3);
	memcpy(first, "one", 3);
	cr_assert_eq(fsync(writer), 0);
	cr_assert(file_is(mounted_path(&m, "../store/f"), first, SIZE),
		  "what was stored by mapping is not in the store");
	memcpy(mapped, "two", 3);
	cr_assert_eq(versions(names, 4), 2);
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
	wait_for_versions(3);
	mounted_settle(&m, 30);
	memcpy(first, "two", 3);
	cr_assert(file_is(mounted_path(&m, "../store/f"), first, SIZE));
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	(void)umount(m.state);   /* not mounted where nothing passes through */
	mounted_start(&m, NULL); /* anew, from the store */
	cr_assert(file_is(at("f"), first, SIZE));
}

Test(passthrough, eviction_spares_a_file_that_is_open_or_mapped)
{
	int fd, writer = -1;
	char *mapped;

	start("cache_size=16M");
	fd = open_for(O_RDONLY);
	mapped = map(fd, PROT_READ);
	for (int round = 0; round < 2; round++) {
		cr_assert_eq(mounted_shell(&m, "for i in $(seq 40); do head -c 1M /dev/urandom >\"$MNT/x$i\"; done",
					   NULL, 0),
			     0);
		mounted_settle(&m, 60);
		cr_assert_eq(memcmp(mapped, bytes, SIZE), 0, "evicted under a mapping (round %d)", round);
		if (round == 0) {
			cr_assert(holds(fd, bytes));
			close(fd);
			/* In use, so that it would be punched and not only lose its name; and not read by the kernel.
			 */
			writer = open_for(O_WRONLY);
		}
	}
	cr_assert_gt(mounted_status(&m, "cache.evicted"), 0);
	munmap(mapped, SIZE);
	close(writer);
	cr_assert(file_is(at("f"), bytes, SIZE));
}

Test(passthrough, what_a_dead_mount_left_mapped_writes_into_no_file_of_the_next)
{
	int reader, writer;
	char *mapped;

	start(NULL);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	memcpy(mapped, "before", 6);
	memcpy(bytes, "before", 6);
	mounted_kill(&m);
	mounted_start(&m, NULL);
	memcpy(mapped, "after!", 6);
	cr_assert_eq(msync(mapped, SIZE, MS_SYNC), 0);
	cr_assert(file_is(at("f"), bytes, SIZE), "an orphaned mapping wrote into the file");
	wait_for_versions(2);
	mounted_settle(&m, 30);
	cr_assert(file_is(mounted_path(&m, "../store/f"), bytes, SIZE));
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
}

Test(passthrough, a_crash_with_a_mapping_that_stored_nothing_makes_no_version)
{
	int reader, writer;
	char *mapped;

	start(NULL);
	reader = open_for(O_RDONLY);
	writer = open_for(O_RDWR);
	mapped = map(writer, PROT_READ | PROT_WRITE);
	mounted_kill(&m);
	munmap(mapped, SIZE);
	close(writer);
	close(reader);
	mounted_start(&m, NULL);
	cr_assert_eq(count_versions(), 1);
	cr_assert(file_is(at("f"), bytes, SIZE));
}
