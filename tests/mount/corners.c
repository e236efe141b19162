/*
 * corners.c - interleavings that once lost or mixed bytes. Each test names the one it guards.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/mounted.h"

static struct mounted m;

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	mounted_free(&m);
}

TestSuite(corners, .fini = teardown, .timeout = 180);

static void start(const char *options)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, options);
}

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

static int in_store(const char *path)
{
	char store[700];

	snprintf(store, sizeof(store), "%s/store/%s", m.root, path);
	return access(store, F_OK) == 0;
}

static void wait_for_daemon(void)
{
	int status;

	for (int tries = 0; waitpid(m.pid, &status, WNOHANG) == 0; tries++) {
		cr_assert_lt(tries, 1200, "the daemon does not end");
		usleep(25000);
	}
	m.pid = 0;
}

Test(corners, releases_dropped_by_an_unmount_are_versions_all_the_same)
{
	char path[64];

	start(NULL);
	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "f%02d", i);
		file_puts(at(path), path);
	}
	cr_assert_eq(umount2(m.dir, 0), 0, "%s", strerror(errno));
	wait_for_daemon();
	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "f%02d", i);
		cr_assert(in_store(path), "%s was closed and is not stored", path);
	}
}

Test(corners, sigterm_ends_it_though_a_file_is_open_and_keeps_what_was_written)
{
	int fd;

	start(NULL);
	fd = open(at("open"), O_WRONLY | O_CREAT, 0644);
	cr_assert_eq(write(fd, "half a book", 11), 11);
	kill(m.pid, SIGTERM);
	wait_for_daemon();
	close(fd);
	cr_assert(in_store("open"));
	mounted_start(&m, NULL);
	cr_assert(file_is(at("open"), "half a book", 11));
}

Test(corners, what_was_appended_before_a_kill_is_recovered_and_nothing_else)
{
	static char bytes[41000], back[5000];
	int fd;

	start(NULL);
	memset(bytes, 'A', 1000);
	memset(bytes + 1000, 'B', 40000);
	file_write(at("log"), bytes, 1000);
	mounted_settle(&m, 30);
	fd = open(at("log"), O_WRONLY | O_APPEND);
	cr_assert_eq(write(fd, bytes + 1000, 40000), 40000);
	mounted_kill(&m);
	close(fd);
	mounted_start(&m, NULL);
	cr_assert(file_is(at("log"), bytes, sizeof(bytes)));
	cr_assert_eq(truncate(at("log"), 1000), 0);
	cr_assert_eq(truncate(at("log"), 5000), 0);
	memset(bytes + 1000, 0, 4000);
	fd = open(at("log"), O_RDONLY);
	cr_assert_eq(read(fd, back, 5000), 5000);
	cr_assert_eq(memcmp(back, bytes, 5000), 0, "cut bytes came back");
	close(fd);
}

Test(corners, a_reader_of_a_version_never_sees_later_writes)
{
	char bytes[8] = {0};
	int old, fd;

	start(NULL);
	file_puts(at("f"), "first");
	old = open(at(".versions/f/-1"), O_RDONLY); /* maybe before it is stored */
	cr_assert_geq(old, 0);
	mounted_settle(&m, 30);
	fd = open(at("f"), O_WRONLY);
	cr_assert_eq(pwrite(fd, "LATER", 5, 0), 5);
	cr_assert_eq(pread(old, bytes, 5, 0), 5);
	cr_assert_str_eq(bytes, "first");
	close(fd);
	close(old);
}

Test(corners, a_renamed_tree_leaves_nothing_behind_whatever_happened_in_it_since)
{
	start(NULL);
	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/a"), "a");
	file_puts(at("d/b"), "b");
	file_puts(at("d/c"), "c");
	mounted_settle(&m, 30);
	cr_assert_eq(rename(at("d"), at("e")), 0);
	cr_assert_eq(unlink(at("e/a")), 0);
	cr_assert_eq(rename(at("e/b"), at("e/bb")), 0);
	mounted_settle(&m, 30);
	cr_assert(!in_store("d/a") && !in_store("d/b") && !in_store("d/c") && !in_store("d"));
	cr_assert(!in_store("e/a") && !in_store("e/b") && in_store("e/bb") && in_store("e/c"));
	cr_assert(file_is(at("e/bb"), "b", 1) && file_is(at("e/c"), "c", 1));
}

Test(corners, a_file_created_read_only_is_stored)
{
	start(NULL);
	close(open(at("lock"), O_RDONLY | O_CREAT, 0600));
	mounted_settle(&m, 30);
	cr_assert(in_store("lock"));
}

Test(corners, a_file_larger_than_the_cache_is_read_and_written)
{
	static char bytes[96 << 20];

	fill_random(bytes, sizeof(bytes), 5);
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, NULL);
	file_write(at("big"), bytes, sizeof(bytes));
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE/cache\"", NULL, 0), 0);
	mounted_start(&m, "cache_size=24M");
	cr_assert(file_is(at("big"), bytes, sizeof(bytes)));
	cr_assert_leq(mounted_status(&m, "cache.used"), 28 << 20);
}

Test(corners, a_read_only_mount_leaves_the_journal_alone)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_kill_at("upload-started");
	mounted_start(&m, NULL);
	file_puts(at("f"), "waits");
	cr_assert(mounted_died(&m, 90));
	mounted_start(&m, "ro");
	cr_assert(file_is(at("f"), "waits", 5));
	sleep(1);
	cr_assert(!in_store("f"), "a mount without the lease wrote");
	mounted_kill(&m);
	mounted_start(&m, NULL);
	mounted_settle(&m, 30);
	cr_assert(in_store("f"));
}

Test(corners, saves_in_quick_succession_are_versions_each)
{
	char path[64], *names;
	int lines;

	start(NULL);
	for (int i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), "n%02d", i);
		file_puts(at(path), "one");
		file_puts(at(path), "two");
		file_puts(at(path), "three");
	}
	for (int i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), ".versions/n%02d", i);
		names = dir_names(at(path));
		lines = 1;
		for (const char *c = names; *c; c++)
			lines += *c == '\n';
		cr_assert_eq(lines, 3, "n%02d has %d versions", i, lines);
		free(names);
	}
}

/* Its cache file is cut, its record not yet: nothing is lost, and it has the one length or the other. */
Test(corners, a_truncation_cut_short_by_a_kill_is_done_or_not)
{
	static char bytes[100000], back[sizeof(bytes) + 1];
	ssize_t len;
	int fd;

	fill_random(bytes, sizeof(bytes), 11);
	start(NULL);
	file_write(at("f"), bytes, sizeof(bytes));
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_kill_at("file-cut");
	mounted_start(&m, NULL);
	fd = open(at("f"), O_RDWR);
	cr_assert_eq(pwrite(fd, bytes, 1000, 0), 1000);
	cr_assert_eq(pread(fd, back, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	close(dup(fd)); /* acknowledged, and still open */
	cr_assert_lt(ftruncate(fd, 1234), 0);
	cr_assert(mounted_died(&m, 90));
	close(fd);
	mounted_start(&m, NULL);
	fd = open(at("f"), O_RDONLY);
	len = read(fd, back, sizeof(back));
	cr_assert(len == 1234 || len == (ssize_t)sizeof(bytes), "%zd bytes: %s", len, strerror(errno));
	cr_assert_eq(memcmp(back, bytes, (size_t)len), 0);
	close(fd);
}

/* The cache took no new file, and what could not be created was there all the same, empty. */
Test(corners, a_file_that_cannot_be_created_leaves_no_name)
{
	char *names;

	start(NULL);
	file_puts(at("before"), "text");
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_shell(&m, "cd \"$STATE/cache\" && for d in ??; do mv $d $d.away && : >$d; done", NULL, 0),
		     0);
	errno = 0;
	cr_assert_lt(open(at("new"), O_WRONLY | O_CREAT, 0644), 0);
	cr_assert_lt(open(at("new"), O_RDONLY | O_CREAT | O_EXCL, 0644), 0);
	cr_assert_lt(mknod(at("node"), S_IFREG | 0644, 0), 0);
	names = dir_names(m.dir);
	cr_assert_str_eq(names, "before");
	free(names);
	cr_assert_eq(mounted_shell(&m, "cd \"$STATE/cache\" && for d in ??; do rm $d && mv $d.away $d; done", NULL, 0),
		     0);
	file_puts(at("new"), "text");
	cr_assert_eq(mknod(at("node"), S_IFREG | 0644, 0), 0);
	cr_assert(file_is(at("new"), "text", 4));
	cr_assert_eq(mounted_stop(&m), 0);
}
