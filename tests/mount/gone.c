/*
 * gone.c - somebody deletes the cache below a running mount: some of its files, all, its folders, the directory itself.
 *
 * What is stored is fetched again. Changes that a descriptor still holds are kept. Changes that are lost are an error
 * and a line in the log, never zeros; the mount goes on.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define SIZE 300000u
#define FILES 12

static struct mounted m;
static struct proxy proxy;
static char bytes[SIZE], other[SIZE];

static void leave(void)
{
	mounted_free(&m);
	if (proxy.name[0])
		proxy_free(&proxy);
}

TestSuite(gone, .fini = leave, .timeout = 300);

/* The daemon may make a file where rm has just looked: rm is asked again until it had its way. */
static const char *const ways[] = {
	"i=0; for f in \"$STATE\"/cache/*/*; do i=$((i+1)); [ $((i%2)) = 1 ] || rm -f \"$f\"; done",
	"rm -f \"$STATE\"/cache/*/*",
	"until rm -rf \"$STATE\"/cache/*; do :; done",
	"until rm -rf \"$STATE\"/cache; do :; done",
	"truncate -s 100 \"$STATE\"/cache/*/*",
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void take_away(size_t way)
{
	cr_assert_eq(mounted_shell(&m, ways[way], NULL, 0), 0);
}

static const char *file(unsigned n)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "f%02u", n);
	return mounted_path(&m, path);
}

static void begin(enum mounted_store store, const char *options)
{
	fill_random(bytes, SIZE, 7);
	fill_random(other, SIZE, 8);
	mounted_new(&m, store);
	mounted_start(&m, options);
}

/* So that the kernel asks again. */
static void drop_pages(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static bool reads(const char *path, const char *expected)
{
	drop_pages(path);
	return file_is(path, expected, SIZE);
}

static bool log_says(const char *words)
{
	char command[200];

	(void)snprintf(command, sizeof(command), "grep -q '%s' \"$ROOT/varve.log\"", words);
	return mounted_shell(&m, command, NULL, 0) == 0;
}

static bool in_store(const char *name)
{
	char path[400];

	(void)snprintf(path, sizeof(path), "%s/store/%s", m.root, name);
	return file_is(path, other, SIZE);
}

static void works_on(const char *name)
{
	const char *path = mounted_path(&m, name);

	file_write(path, other, SIZE);
	cr_assert(reads(path, other));
	file_write(path, bytes, SIZE);
	cr_assert(reads(path, bytes));
	mounted_settle(&m, 60);
	cr_assert(reads(path, bytes));
}

static void end_clean(void)
{
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
}

Test(gone, stored_files_are_fetched_again)
{
	begin(MOUNTED_LOCAL, NULL);
	for (unsigned i = 0; i < FILES; i++)
		file_write(file(i), bytes, SIZE);
	mounted_settle(&m, 60);
	for (size_t way = 0; way < WAYS; way++) {
		int open_before = open(file(0), O_RDONLY);

		take_away(way);
		for (unsigned i = 1; i < FILES; i++)
			cr_assert(reads(file(i), bytes), "way %zu: %s", way, file(i));
		close(open_before);
		cr_assert(reads(file(0), bytes), "way %zu", way);
		works_on("new");
	}
	end_clean();
}

/* Rewritten in part: what is not in the cache any more comes from the store, what is written is kept. */
Test(gone, an_open_file_keeps_its_changes)
{
	static char expected[SIZE];

	begin(MOUNTED_LOCAL, NULL);
	for (size_t way = 0; way + 1 < WAYS; way++) {
		const char *path = file((unsigned)way);
		int fd;

		file_write(path, bytes, SIZE);
		mounted_settle(&m, 60);
		fd = open(path, O_RDWR);
		cr_assert_eq(pwrite(fd, other, 50000, 10000), 50000);
		take_away(1);
		take_away(way);
		cr_assert_eq(pwrite(fd, other, 50000, 100000), 50000);
		cr_assert_eq(close(fd), 0);
		memcpy(expected, bytes, SIZE);
		memcpy(expected + 10000, other, 50000);
		memcpy(expected + 100000, other, 50000);
		cr_assert(reads(path, expected), "way %zu", way);
		mounted_settle(&m, 60);
		cr_assert(reads(path, expected), "way %zu", way);
		take_away(way);
		cr_assert(reads(path, expected), "way %zu", way);
	}
	works_on("new");
	end_clean();
}

/* Closed, not stored, gone; but an upload under way may have it open. */
Test(gone, changes_under_way_arrive_or_are_an_error)
{
	char options[128];

	proxy_new(&proxy);
	(void)snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	begin(MOUNTED_S3, options);
	for (size_t way = 1; way < WAYS - 1; way++) {
		const char *lost = file((unsigned)way);
		char *have;

		file_write(lost, bytes, SIZE);
		file_write(file(90), bytes, SIZE);
		mounted_settle(&m, 60);
		proxy_cut(&proxy);
		file_write(lost, other, SIZE);
		take_away(way);
		drop_pages(lost);
		have = file_read(lost, NULL);
		cr_assert(!have || memcmp(have, other, SIZE) == 0, "way %zu: other bytes than were written", way);
		free(have);
		proxy_restore(&proxy);
		cr_assert(reads(file(90), bytes), "way %zu: another file", way);
		mounted_settle(&m, 60);
		drop_pages(lost);
		have = file_read(lost, NULL);
		cr_assert(have ? memcmp(have, other, SIZE) == 0 : log_says("with it changes that were not stored"),
			  "way %zu", way);
		free(have);
		file_write(lost, bytes, SIZE);
		mounted_settle(&m, 60);
		cr_assert(reads(lost, bytes), "way %zu", way);
	}
	works_on("new");
	end_clean();
}

static void fails(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY);

	cr_assert(fd < 0 || read(fd, &byte, 1) < 0, "%s: what is lost was read", path);
	cr_assert_eq(errno, EIO, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Nobody has it: it is an error until somebody writes it anew, and the version stands in the history as failed. */
Test(gone, lost_changes_are_an_error_and_not_zeros)
{
	char state[16];
	int fd;

	begin(MOUNTED_LOCAL, NULL);
	file_write(file(1), bytes, SIZE);
	file_write(file(2), bytes, SIZE);
	file_write(file(3), bytes, SIZE);
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_kill_at("upload-started");
	mounted_start(&m, NULL);
	for (unsigned n = 1; n <= 3; n++) { /* the first of them kills; the others may not get so far */
		fd = open(file(n), O_WRONLY);
		if (fd >= 0) {
			(void)!pwrite(fd, other, 1000, 0);
			(void)close(fd);
		}
	}
	cr_assert(mounted_died(&m, 90));
	take_away(2);
	mounted_start(&m, NULL);
	fails(file(1));
	fails(file(1));
	cr_assert(log_says("with it changes that were not stored"));
	cr_assert(reads(file(3), bytes) || errno == EIO);
	mounted_settle(&m, 60);
	cr_assert(log_says("was in the cache alone and is lost"));
	fails(file(1));
	cr_assert_gt(getxattr(file(1), "user.varve.state", state, sizeof(state)), 0);
	cr_assert_eq(strncmp(state, "failed", 6), 0, "%s", state);
	fd = open(file(1), O_WRONLY);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, "x", 1, 5), -1, "a part of what is lost was written");
	close(fd);
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_start(&m, NULL);
	fails(file(1));
	file_write(file(1), other, SIZE); /* anew */
	cr_assert(reads(file(1), other));
	works_on("f02");
	mounted_settle(&m, 60);
	cr_assert(in_store("f01"));
	end_clean();
}
