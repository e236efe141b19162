/*
 * outage.c - the way to the store is cut, slow or breaks off in the middle: what is here keeps working, what is not
 * fails in time, and what was acknowledged arrives once the way is open again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "support/mounted.h"
#include "support/network.h"

#define SIZE (3 << 20)
#define PATIENCE_MS 30000                  /* of whoever waits for the store */
#define READ_DEADLINE_MS (2 * PATIENCE_MS) /* what he and a busy machine take */

static struct mounted m;
static struct proxy proxy;
static char bytes[SIZE];

static void start(const char *more)
{
	char options[256];

	snprintf(options, sizeof(options), "endpoint=%s%s%s", proxy.endpoint, more ? "," : "", more ? more : "");
	mounted_start(&m, options);
}

static void setup(void)
{
	fill_random(bytes, sizeof(bytes), 11);
	proxy_new(&proxy);
	mounted_new(&m, MOUNTED_S3);
	start(NULL);
}

static void teardown(void)
{
	mounted_free(&m);
	proxy_free(&proxy);
}

TestSuite(outage, .init = setup, .fini = teardown, .timeout = 300);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

/* On a machine that knows of the bucket's files and has nothing of them. */
static void start_cold(const char *more)
{
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	start(more);
}

static bool stored_as(const char *key, const void *content, size_t len)
{
	char command[500], path[320];
	bool same;

	snprintf(path, sizeof(path), "%s/got", m.root);
	snprintf(command, sizeof(command), "get %s >'%s'", key, path);
	s3_do(&m, command);
	same = file_is(path, content, len);
	unlink(path);
	return same;
}

/* The copy of what is not here is an entry in the journal, and what was read of it meanwhile is none of it. */
Test(outage, a_copy_made_without_the_store_outlives_a_kill)
{
	size_t len = 8 << 20;
	char *large = malloc(len);

	cr_assert_not_null(large);
	fill_random(large, len, 12);
	file_write(at("large"), large, len);
	start_cold(NULL);
	cr_assert_not_null(dir_names(m.dir));
	proxy_cut(&proxy);
	OK(mounted_shell(&m, "cd \"$MNT\" && cp large copy && cp copy copy2 && printf x >>copy2", NULL, 0));
	mounted_kill(&m);
	proxy_restore(&proxy);
	start(NULL);
	OK(unlink(at("large")));
	mounted_settle(&m, 60);
	cr_assert(file_is(at("copy"), large, len));
	cr_assert(stored_as("copy", large, len));
	large = realloc(large, len + 1);
	large[len] = 'x';
	cr_assert(stored_as("copy2", large, len + 1));
	free(large);
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

Test(outage, what_is_here_keeps_working_and_the_rest_fails_in_time)
{
	char *names;
	struct stat st;
	long began;
	int fd;

	file_write(at("cold"), bytes, sizeof(bytes));
	file_write(at("warm"), bytes, 50000);
	OK(mkdir(at("d"), 0755));
	file_puts(at("d/f"), "text");
	start_cold(NULL);
	cr_assert(file_is(at("warm"), bytes, 50000));
	cr_assert(file_is(at("d/f"), "text", 4));
	fd = open(at("cold"), O_RDONLY);
	cr_assert_geq(fd, 0);
	proxy_cut(&proxy);

	began = now_ms();
	names = dir_names(m.dir);
	cr_assert_str_eq(names, "cold\nd\nwarm");
	free(names);
	OK(stat(at("cold"), &st));
	cr_assert_eq(st.st_size, SIZE);
	OK(rename(at("d/f"), at("d/g")));
	OK(chmod(at("d/g"), 0600));
	OK(symlink("g", at("d/l")));
	OK(unlink(at("d/l")));
	cr_assert(file_is(at("warm"), bytes, 50000));
	file_write(at("new"), bytes, 1000000); /* open, write and close */
	cr_assert(file_is(at("new"), bytes, 1000000));
	cr_assert_lt(now_ms() - began, PATIENCE_MS / 2, "local work took %ld ms", now_ms() - began);

	began = now_ms();
	errno = 0;
	cr_assert_lt(pread(fd, (char[4096]){0}, 4096, 2000000), 0);
	cr_assert_eq(errno, EIO, "%s", strerror(errno));
	cr_assert_lt(now_ms() - began, READ_DEADLINE_MS);
	OK(close(fd));
	cr_assert_gt(mounted_status(&m, "writeback.pending"), 0);
	cr_assert_eq(mounted_status(&m, "store.online"), 0);

	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	cr_assert(file_is(at("cold"), bytes, sizeof(bytes)));
	cr_assert(stored_as("new", bytes, 1000000));
	cr_assert(stored_as("d/g", "text", 4));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

/* The catalog answers; nobody asks a store again and again that is known to be out of reach. */
Test(outage, the_past_is_listed_without_waiting)
{
	int64_t before, after;

	OK(mounted_shell(&m, "cd \"$MNT\" && for i in $(seq 20); do echo 1 >f$i; echo 2 >f$i; done", NULL, 0));
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	OK(mounted_shell(&m, "[ $(ls \"$MNT/.versions/f1\" | wc -l) = 2 ]", NULL, 0));
	while (mounted_status(&m, "store.online"))
		usleep(100000);
	before = mounted_status(&m, "store.requests");
	OK(mounted_shell(&m, "cd \"$MNT/.versions\" && for i in $(seq 2 20); do [ $(ls f$i | wc -l) = 2 ]; done", NULL,
			 0));
	after = mounted_status(&m, "store.requests");
	cr_assert_lt(after - before, 10, "%ld requests", (long)(after - before));
	proxy_restore(&proxy);
	for (int tries = 0; tries < 300 && !mounted_status(&m, "store.online"); tries++)
		usleep(100000);
	before = mounted_status(&m, "store.lists");
	OK(mounted_shell(&m, "ls \"$MNT/.versions/f20\"", NULL, 0));
	cr_assert_gt(mounted_status(&m, "store.lists"), before, "it is asked again when it is back");
}

Test(outage, unmounting_without_waiting_leaves_the_rest_to_the_next_mount)
{
	file_puts(at("before"), "stored");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	file_write(at("f"), bytes, sizeof(bytes));
	OK(rename(at("before"), at("after")));
	OK(mounted_shell(&m, "timeout 40 \"$VARVE\" umount --no-wait \"$MNT\"", NULL, 0));
	m.pid = 0;
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
	proxy_restore(&proxy);
	start(NULL);
	cr_assert(file_is(at("f"), bytes, sizeof(bytes)));
	cr_assert(file_is(at("after"), "stored", 6));
	OK(mounted_stop(&m));
	cr_assert(stored_as("f", bytes, sizeof(bytes)));
	cr_assert(stored_as("after", "stored", 6));
}

Test(outage, fsync_gives_up_and_loses_nothing)
{
	long began;
	int fd;

	OK(mounted_stop(&m));
	start("fsync_timeout=3s");
	fd = open(at("f"), O_RDWR | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	proxy_cut(&proxy);
	cr_assert_eq(write(fd, bytes, 500000), 500000);
	began = now_ms();
	errno = 0;
	cr_assert_eq(fsync(fd), -1);
	cr_assert_eq(errno, EIO, "%s", strerror(errno));
	cr_assert(now_ms() - began >= 2500 && now_ms() - began < PATIENCE_MS, "%ld ms", now_ms() - began);
	cr_assert_eq(write(fd, bytes + 500000, 500000), 500000);
	OK(close(fd));
	cr_assert(file_is(at("f"), bytes, 1000000));
	mounted_kill(&m);
	proxy_restore(&proxy);
	start(NULL);
	cr_assert(file_is(at("f"), bytes, 1000000));
	fd = open(at("f"), O_RDWR);
	OK(fsync(fd));
	OK(close(fd));
	cr_assert(stored_as("f", bytes, 1000000));
	OK(mounted_stop(&m));
}

Test(outage, close_store_does_not_claim_what_is_not_stored)
{
	int fd;

	OK(mounted_stop(&m));
	start("close=store,fsync_timeout=3s");
	file_puts(at("f"), "stored when closed");
	cr_assert(stored_as("f", "stored when closed", 18));
	proxy_cut(&proxy);
	fd = open(at("f"), O_WRONLY | O_TRUNC);
	cr_assert_eq(write(fd, "new", 3), 3);
	errno = 0;
	cr_assert_eq(close(fd), -1);
	cr_assert_eq(errno, EIO, "%s", strerror(errno));
	cr_assert(file_is(at("f"), "new", 3));
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	cr_assert(stored_as("f", "new", 3));
	OK(mounted_stop(&m));
}

/* Every reply ends after so many bytes: a large read needs many attempts, a small one none. */
Test(outage, replies_that_break_off_are_continued_or_refused)
{
	char *have;
	size_t len = 0;

	file_write(at("f"), bytes, sizeof(bytes));
	file_write(at("small"), bytes, 10000);
	start_cold(NULL);
	proxy_toxic(&proxy, "limit_data", "\"bytes\":400000");
	cr_assert(file_is(at("small"), bytes, 10000));
	have = file_read(at("f"), &len);
	cr_assert(!have || (len == sizeof(bytes) && memcmp(have, bytes, len) == 0), "wrong bytes, %zu of them", len);
	free(have);
	file_write(at("g"), bytes, 200000);
	proxy_clear(&proxy);
	cr_assert(file_is(at("f"), bytes, sizeof(bytes)));
	mounted_settle(&m, 60);
	cr_assert(stored_as("g", bytes, 200000));
	OK(mounted_stop(&m));
}

Test(outage, a_slow_way_is_only_slow)
{
	char names[40][32];
	long began;
	int fd;

	proxy_toxic(&proxy, "latency", "\"latency\":1000");
	began = now_ms();
	for (int i = 0; i < 40; i++) {
		snprintf(names[i], sizeof(names[i]), "f%02d", i);
		file_write(at(names[i]), bytes + i, 20000);
	}
	cr_assert_lt(now_ms() - began, 40 * 1000 / 2, "closing 40 files waited for the network: %ld ms",
		     now_ms() - began);
	proxy_clear(&proxy);
	proxy_toxic(&proxy, "latency", "\"latency\":200");
	fd = open(at("f00"), O_RDWR);
	cr_assert_eq(pwrite(fd, bytes, 5, 0), 5);
	OK(fsync(fd));
	OK(close(fd));
	mounted_settle(&m, 60);
	start_cold(NULL);
	for (int i = 1; i < 40; i += 13)
		cr_assert(file_is(at(names[i]), bytes + i, 20000));
	proxy_clear(&proxy);
	proxy_toxic(&proxy, "bandwidth", "\"rate\":600"); /* KB a second */
	file_write(at("large"), bytes, sizeof(bytes));
	mounted_settle(&m, 60);
	start_cold(NULL);
	cr_assert(file_is(at("large"), bytes, sizeof(bytes)));
	OK(mounted_stop(&m));
}

/* The store has it, and before its reply comes the file has another name and we are gone. */
Test(outage, what_was_sent_before_a_kill_is_nobody_else_s)
{
	char *keys = NULL;

	file_puts(at("first"), "known");
	mounted_settle(&m, 30);
	proxy_toxic(&proxy, "latency", "\"latency\":8000");
	file_puts(at("t"), "one");
	for (int tries = 0; tries < 70; tries++) {
		free(keys);
		keys = s3_ask(&m, "keys");
		if (strstr(keys, "\nt"))
			break;
		usleep(100000);
	}
	cr_assert(strstr(keys, "\nt"), "it was not sent: %s", keys);
	free(keys);
	OK(rename(at("t"), at("f")));
	mounted_kill(&m);
	proxy_clear(&proxy);
	start(NULL);
	file_puts(at("t"), "two");
	mounted_settle(&m, 60);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 0, "a conflict with ourselves");
	cr_assert(stored_as("t", "two", 3));
	cr_assert(stored_as("f", "one", 3));
	cr_assert(file_is(at("t"), "two", 3));
	cr_assert(file_is(at("f"), "one", 3));
	OK(mounted_stop(&m));
}

/* The cache holds 16 MiB; 14 of them are one request that takes half a minute. */
Test(outage, a_writer_waits_for_a_slow_store_and_gives_up_on_one_that_is_gone)
{
	size_t written = 0;
	int fd;

	OK(mounted_stop(&m));
	start("cache_size=16M,fsync_timeout=20s");
	OK(access(m.dir, F_OK));
	proxy_slow_down(&proxy, 400);
	OK(mounted_shell(&m, "head -c 14M /dev/urandom >\"$ROOT/slow\" && cp \"$ROOT/slow\" \"$MNT/slow\"", NULL, 0));
	file_write(at("waits"), bytes, sizeof(bytes));
	proxy_cut(&proxy);
	fd = open(at("cut"), O_WRONLY | O_CREAT, 0644);
	cr_assert_geq(fd, 0);
	while (written < (32 << 20)) {
		ssize_t n = write(fd, bytes, 1 << 20);

		if (n < 0)
			break;
		written += (size_t)n;
	}
	cr_assert_eq(errno, ENOSPC, "%zu bytes were written to a cache of 16 MiB: %s", written, strerror(errno));
	OK(close(fd));
	proxy_clear(&proxy);
	mounted_settle(&m, 90);
	cr_assert(stored_as("waits", bytes, sizeof(bytes)));
	OK(mounted_shell(&m, "cmp \"$ROOT/slow\" \"$MNT/slow\"", NULL, 0));
	OK(mounted_stop(&m));
}

static bool in_bucket(const char *key)
{
	AUTO_FREE char *keys = s3_ask(&m, "keys");
	char *rest = keys, *line;

	while ((line = strsep(&rest, "\n")) && strcmp(line, key) != 0)
		;
	return line != NULL;
}

/* A tree is renamed while objects are on their way to where its files were. */
Test(outage, what_is_on_its_way_follows_a_renamed_tree)
{
	static const char *const moved[] = {"other", "sub/file", "link", "empty/"};
	char key[32];

	OK(mkdir(at("old"), 0755));
	OK(mkdir(at("old/sub"), 0755));
	file_puts(at("old/other"), "other");
	mounted_settle(&m, 60);
	proxy_toxic(&proxy, "latency", "\"latency\":400");
	OK(mkdir(at("old/empty"), 0755));
	file_puts(at("old/sub/file"), "file");
	OK(symlink("other", at("old/link")));
	usleep(200000); /* all three are being sent now */
	OK(rename(at("old"), at("new")));
	mounted_settle(&m, 60);
	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		(void)snprintf(key, sizeof(key), "new/%s", moved[i]);
		cr_expect(in_bucket(key), "%s is missing", key);
		(void)snprintf(key, sizeof(key), "old/%s", moved[i]);
		cr_expect(!in_bucket(key), "%s is left", key);
	}
	file_puts(at("old"), "a file takes the name");
	OK(mounted_stop(&m));
}

#define BACKLOG 400

static int make_synced(const char *name, const char *text)
{
	int fd = open(at(name), O_CREAT | O_WRONLY, 0644), result;

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	result = fsync(fd);
	close(fd);
	return result;
}

/* Neither for what has to be stored before it: the removal of what had its name, which comes last in the queue. */
Test(outage, an_fsync_does_not_wait_for_the_backlog)
{
	char name[32];

	OK(make_synced("journal", "first"));
	proxy_toxic(&proxy, "latency", "\"latency\":1000"); /* it stays one, however long its making takes */
	for (int i = 0; i < BACKLOG; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		file_write(at(name), name, strlen(name));
	}
	OK(unlink(at("journal")));
	OK(make_synced("journal", "second"));
	cr_assert_gt(mounted_status(&m, "writeback.pending"), BACKLOG / 2);
	cr_assert(stored_as("journal", "second", 6));
	proxy_clear(&proxy);
	OK(mounted_stop(&m));
}

/* Connections that are accepted and then say nothing. */
Test(outage, a_store_that_falls_silent_does_not_hang_anybody)
{
	long began;

	file_write(at("f"), bytes, 100000);
	start_cold(NULL);
	OK(access(at("f"), R_OK));
	proxy_toxic(&proxy, "timeout", "\"timeout\":0");
	began = now_ms();
	cr_assert_null(file_read(at("f"), NULL));
	cr_assert_lt(now_ms() - began, READ_DEADLINE_MS);
	file_puts(at("g"), "kept");
	cr_assert(file_is(at("g"), "kept", 4));
	proxy_clear(&proxy);
	/* Whoever comes within a second of somebody's giving up waits no longer than that. */
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 200000000}, NULL);
	cr_assert(file_is(at("f"), bytes, 100000));
	mounted_settle(&m, 90);
	cr_assert(stored_as("g", "kept", 4));
	OK(mounted_stop(&m));
}

/* On a store far away; told to stop in the midst of it, it ends, and the next begins anew. */
Test(outage, a_rebuild_is_interrupted_and_repeated)
{
	char line[700];
	long began;

	OK(mounted_shell(&m, "cd \"$MNT\" && for i in $(seq 40); do mkdir d$i && echo $i >d$i/f; done", NULL, 0));
	OK(mounted_stop(&m));
	proxy_toxic(&proxy, "latency", "\"latency\":1000");
	snprintf(line, sizeof(line),
		 "rm -rf \"$STATE\"; \"$VARVE\" rebuild \"$URL\" --state \"$STATE\" -o endpoint=%s >\"$STATE.log\" "
		 "2>&1 & "
		 "p=$!; until grep -q directories \"$STATE.log\"; do sleep 0.1; kill -0 $p || exit 3; done; "
		 "kill -TERM $p; wait $p; [ $? -eq 1 ] && grep -q interrupted \"$STATE.log\"",
		 proxy.endpoint);
	OK(mounted_shell(&m, line, NULL, 0));
	proxy_clear(&proxy);
	snprintf(line, sizeof(line), "\"$VARVE\" rebuild \"$URL\" --state \"$STATE\" -o endpoint=%s", proxy.endpoint);
	OK(mounted_shell(&m, line, NULL, 0));
	start(NULL);
	OK(mounted_shell(&m, "cd \"$MNT\" && test $(cat d*/f | wc -l) = 40", NULL, 0));

	/* As one that waits to mount. */
	OK(mounted_stop(&m));
	proxy_cut(&proxy);
	began = now_ms();
	snprintf(line, sizeof(line),
		 "\"$VARVE\" mount -f \"$URL\" \"$MNT\" -o state=\"$STATE\",endpoint=%s >\"$STATE.log\" 2>&1 & "
		 "p=$!; sleep 2; kill -TERM $p; wait $p; [ $? -ne 0 ] && grep -q interrupted \"$STATE.log\"",
		 proxy.endpoint);
	OK(mounted_shell(&m, line, NULL, 0));
	cr_assert_lt(now_ms() - began, PATIENCE_MS, "it waited for the store all the same");
	proxy_restore(&proxy);
}

static long interrupted_ms(const char *command)
{
	char line[300];
	long began = now_ms();

	snprintf(line, sizeof(line), "timeout -s INT 2 %s", command);
	cr_assert_eq(mounted_shell(&m, line, NULL, 0), 124, "%s was not waiting for the store", command);
	return now_ms() - began;
}

Test(outage, who_waits_for_a_listing_can_be_interrupted)
{
	s3_do(&m, "put d/f <\"$VARVE_TEST_SOURCE/Makefile\"");
	s3_do(&m, "put e/f <\"$VARVE_TEST_SOURCE/Makefile\"");
	OK(mounted_shell(&m, "ls \"$MNT\" >/dev/null", NULL, 0)); /* so much is known */
	proxy_cut(&proxy);
	cr_assert_lt(interrupted_ms("ls \"$MNT/d\""), PATIENCE_MS / 2);
	cr_assert_lt(interrupted_ms("stat \"$MNT/e/f\""), PATIENCE_MS / 2);
	proxy_restore(&proxy);
	OK(mounted_shell(&m, "grep -q varve \"$MNT/d/f\" \"$MNT/e/f\"", NULL, 0));
}
