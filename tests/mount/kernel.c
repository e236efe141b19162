/*
 * kernel.c - what the kernel may keep and need not ask us again, counted in libfuse's trace of every request; and what
 * it must ask again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fs/kernel.h"
#include "support/mounted.h"

static struct mounted m;

static void setup(void)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, "debug=fuse");
}

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	mounted_free(&m);
}

TestSuite(kernel, .init = setup, .fini = teardown, .timeout = 60);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

/* Requests of this kind so far. */
static unsigned asked(const char *kind)
{
	char word[40];
	unsigned count = 0;
	size_t len;
	char *trace = file_read(m.log, &len);

	cr_assert_not_null(trace);
	(void)snprintf(word, sizeof(word), "opcode: %s (", kind);
	for (const char *found = trace; (found = strstr(found, word)); found++)
		count++;
	free(trace);
	return count;
}

static bool is(const char *path, const char *text)
{
	return file_is(at(path), text, strlen(text));
}

Test(kernel, an_old_version_is_looked_up_and_read_once)
{
	char path[300], *names, *rest;
	unsigned lookups, reads;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	file_puts(at("d/f"), "two");
	names = dir_names(at("d/.versions/f"));
	rest = names;
	(void)snprintf(path, sizeof(path), "d/.versions/f/%s", strsep(&rest, "\n"));
	cr_assert(is(path, "one"));
	lookups = asked("LOOKUP");
	reads = asked("READ");
	cr_assert_gt(lookups, 0);
	cr_assert_gt(reads, 0);
	for (int i = 0; i < 20; i++)
		cr_assert(is(path, "one"));
	cr_assert_eq(asked("LOOKUP"), lookups);
	cr_assert_eq(asked("READ"), reads);
	free(names);
}

Test(kernel, an_instant_of_the_past_is_looked_up_once)
{
	char path[300], text[100];
	unsigned lookups;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	cr_assert_eq(mounted_text(&m, "sleep 0.3; date -u +%Y-%m-%dT%H:%M:%S.%NZ; sleep 0.3", text, sizeof(text)), 0);
	file_puts(at("d/f"), "two");
	(void)snprintf(path, sizeof(path), ".versions/+at/%s/d/f", text);
	cr_assert(is(path, "one"));
	lookups = asked("LOOKUP");
	for (int i = 0; i < 20; i++)
		cr_assert(is(path, "one"));
	cr_assert_eq(asked("LOOKUP"), lookups);
}

Test(kernel, what_means_another_version_tomorrow_is_asked_each_time)
{
	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("f"), "one");
	cr_assert(is(".versions/f/-1", "one"));
	cr_assert(is(".versions/f/0s", "one"));
	file_puts(at("f"), "two");
	cr_assert(is(".versions/f/-1", "two"));
	cr_assert(is(".versions/f/-2", "one"));
	cr_assert_not(is(".versions/f/-3", "one"));
	file_puts(at("f"), "three");
	cr_assert(is(".versions/f/-3", "one"), "that there was none was remembered");
}

Test(kernel, live_names_files_and_absences_are_kept)
{
	struct stat st;
	unsigned lookups, attributes;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	mounted_settle(&m, 30);
	cr_assert_eq(stat(at("d/f"), &st), 0);
	cr_assert_neq(stat(at("d/none"), &st), 0);
	lookups = asked("LOOKUP");
	cr_assert_gt(lookups, 0);
	attributes = asked("GETATTR");
	sleep(2); /* longer than a second, which is what others would keep it */
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(stat(at("d/f"), &st), 0);
		cr_assert_neq(stat(at("d/none"), &st), 0);
	}
	cr_assert_eq(asked("LOOKUP"), lookups);
	cr_assert_leq(asked("GETATTR"), attributes + 2); /* of the directories on the way, which changed */
	file_puts(at("d/none"), "now");
	cr_assert(is("d/none", "now"));
}

/* --- writing past the page cache -------------------------------------------------------------------------------- */

/* Pages of a file that the kernel has. */
static size_t pages_kept(const char *path)
{
	int fd = open(path, O_RDONLY);
	size_t bytes;

	cr_assert_geq(fd, 0);
	bytes = file_resident(fd);
	(void)close(fd);
	return bytes / 4096;
}

static void write_pages(const char *path, int flags, size_t pages)
{
	char block[4096];
	int fd = open(path, flags | O_CREAT, 0644);

	cr_assert_geq(fd, 0);
	memset(block, 'x', sizeof(block));
	for (size_t i = 0; i < pages; i++)
		cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
	cr_assert_eq(close(fd), 0);
}

Test(kernel, who_only_writes_fills_no_page_cache)
{
	struct utsname name;
	bool past;

	cr_assert_eq(uname(&name), 0);
	past = kernel_drops_what_is_written(name.release);
	write_pages(at("w"), O_WRONLY, 16);
	write_pages(at("rw"), O_RDWR, 16);
	cr_assert_eq(pages_kept(at("w")), past ? 0 : 16);
	cr_assert_eq(pages_kept(at("rw")), 16);
	write_pages(at("rw"), O_WRONLY, 1);
	cr_assert_eq(pages_kept(at("rw")), past ? 15 : 16);
}

/* A file of BLOCKS blocks, each filled with the number of the round that wrote it last. */
#define BLOCKS 24
#define BLOCK 6000 /* no block begins where a page does */
#define ROUNDS 4000

static _Atomic uint32_t written[BLOCKS];
static atomic_bool stop;

static void *write_rounds(void *arg)
{
	uint32_t block[BLOCK / 4];
	int fd = *(int *)arg;

	for (uint32_t round = 1; round <= ROUNDS; round++) {
		unsigned at_block = round * 7 % BLOCKS;

		for (size_t i = 0; i < BLOCK / 4; i++)
			block[i] = round;
		if (pwrite(fd, block, BLOCK, (off_t)at_block * BLOCK) != BLOCK)
			break;
		atomic_store(&written[at_block], round);
	}
	atomic_store(&stop, true);
	return NULL;
}

/* NULL: no word was older than its write's end. */
static void *read_rounds(void *arg)
{
	uint32_t block[BLOCK / 4];
	int fd = *(int *)arg;

	for (unsigned i = 0; !atomic_load(&stop); i++) {
		unsigned at_block = i % BLOCKS;
		uint32_t least = atomic_load(&written[at_block]);

		if (pread(fd, block, BLOCK, (off_t)at_block * BLOCK) != BLOCK)
			return "too short";
		for (size_t word = 0; word < BLOCK / 4; word++)
			if (block[word] < least)
				return "old bytes";
	}
	return NULL;
}

Test(kernel, what_is_written_past_the_page_cache_shows_to_who_reads_through_it, .timeout = 120)
{
	static char zeros[BLOCKS * BLOCK];
	pthread_t writer, readers[3];
	int to, from[3];

	file_write(at("f"), zeros, sizeof(zeros));
	to = open(at("f"), O_WRONLY);
	cr_assert_geq(to, 0);
	cr_assert_eq(pthread_create(&writer, NULL, write_rounds, &to), 0);
	for (int i = 0; i < 3; i++) {
		from[i] = open(at("f"), O_RDONLY);
		cr_assert_geq(from[i], 0);
		cr_assert_eq(pthread_create(&readers[i], NULL, read_rounds, &from[i]), 0);
	}
	cr_assert_eq(pthread_join(writer, NULL), 0);
	for (int i = 0; i < 3; i++) {
		void *wrong;

		cr_assert_eq(pthread_join(readers[i], &wrong), 0);
		cr_assert_null(wrong, "%s", (char *)wrong);
		(void)close(from[i]);
	}
	cr_assert_eq(close(to), 0);
	for (int i = 0; i < BLOCKS; i++)
		cr_assert_gt(atomic_load(&written[i]), 0, "the writer stopped early");
}
