/*
 * expired.c - the store removes versions by rules of its own (a bucket's lifecycle) that changes still to be stored
 * were made on: what the cache has is stored all the same, what nobody has any more is said, and nothing waits for it.
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

#define MIB ((size_t)1 << 20)
#define SIZE (40 * MIB + 777)
#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static struct mounted m;
static struct proxy proxy;
static char *bytes;

static void leave(void)
{
	mounted_free(&m);
	if (proxy.name[0])
		proxy_free(&proxy);
	free(bytes);
}

TestSuite(expired, .fini = leave, .timeout = 300);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

/* Through a proxy, with the file "f" of SIZE bytes, stored. */
static void begin(void)
{
	char options[128];

	bytes = malloc(SIZE);
	fill_random(bytes, SIZE, 3);
	proxy_new(&proxy);
	mounted_new(&m, MOUNTED_S3);
	(void)snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_start(&m, options);
	file_write(at("f"), bytes, SIZE);
	mounted_settle(&m, 60);
}

static int open_file(void)
{
	int fd = open(at("f"), O_RDWR);

	cr_assert_geq(fd, 0, "%s", strerror(errno));
	return fd;
}

static void change(int fd, size_t offset, const char *text)
{
	memcpy(bytes + offset, text, strlen(text));
	cr_assert_eq(pwrite(fd, text, strlen(text), (off_t)offset), (ssize_t)strlen(text), "%s", strerror(errno));
}

/* That many uploads, though a file is open and changed. */
static void wait_stored(int64_t count)
{
	for (int tries = 0; mounted_status(&m, "writeback.done") < count; tries++) {
		cr_assert_lt(tries, 900, "not stored");
		usleep(100000);
	}
}

/* Past varve, all versions of "f" but the newest `kept`. */
static void expire(unsigned kept)
{
	char *list = s3_ask(&m, "versions f"), *rest = list, *line;
	unsigned count = 0, n = 0;

	for (const char *p = list; *p; p++)
		count += *p == '\n';
	count += *list != '\0';
	cr_assert_gt(count, kept);
	while ((line = strsep(&rest, "\n")) && n++ < count - kept) {
		char words[200];

		(void)snprintf(words, sizeof(words), "delete f %s", strsep(&line, " "));
		s3_do(&m, words);
	}
	free(list);
}

static bool object_is_whole(void)
{
	char path[400];

	OK(mounted_shell(&m, "\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" get f >\"$ROOT/object\"", NULL,
			 0));
	(void)snprintf(path, sizeof(path), "%s/object", m.root);
	return file_is(path, bytes, SIZE);
}

static void end_clean(void)
{
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

/* It is changed again whenever a version of it is stored, and so never clean. */
Test(expired, a_file_always_being_written_counts_on_its_newest_stored_version)
{
	int64_t before;
	int fd;

	begin();
	proxy_cut(&proxy);
	for (size_t i = 1; i <= 2; i++) {
		fd = open_file();
		change(fd, i * 9 * MIB, "changed");
		OK(close(fd));
	}
	fd = open_file();
	change(fd, 30 * MIB, "and again");
	proxy_restore(&proxy);
	wait_stored(3);
	expire(1);
	before = mounted_status(&m, "store.bytes_sent");
	OK(close(fd));
	mounted_settle(&m, 60);
	cr_assert(object_is_whole());
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - before, (int64_t)(30 * MIB), "nothing was copied");
	end_clean();
}

Test(expired, what_the_cache_holds_is_sent_whole_when_its_base_is_gone)
{
	int fd;

	begin();
	fd = open_file();
	change(fd, 20 * MIB, "changed");
	expire(0);
	OK(close(fd));
	mounted_settle(&m, 60);
	cr_assert(object_is_whole());
	cr_assert_eq(mounted_status(&m, "writeback.failed"), 0);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 0);
	end_clean();
}

Test(expired, what_nobody_has_any_more_is_said_and_keeps_nobody_waiting)
{
	char state[16] = {0}, page[4097] = {0}, text[4096] = {0};
	int fd;

	begin();
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"/cache", NULL, 0));
	mounted_start(&m, NULL);
	memset(page, 'c', sizeof(page) - 1);
	fd = open_file();
	change(fd, 20 * MIB, page);
	expire(0);
	OK(close(fd));
	file_puts(at("other"), "goes on");
	mounted_settle(&m, 60);
	cr_assert_gt(getxattr(at("f"), "user.varve.state", state, sizeof(state) - 1), 0);
	cr_assert_str_eq(state, "failed");
	OK(mounted_shell(&m, "test \"$(cat \"$MNT/other\")\" = 'goes on'", NULL, 0));
	fd = open_file(); /* what was changed here is not lost */
	cr_assert_eq(pread(fd, text, sizeof(text), 20 * MIB), (ssize_t)sizeof(text), "%s", strerror(errno));
	cr_assert_eq(memcmp(text, page, sizeof(text)), 0);
	OK(close(fd));
	file_write(at("f"), bytes, SIZE); /* and made anew it is a file like any other */
	mounted_settle(&m, 60);
	cr_assert(object_is_whole());
	end_clean();
}
