/*
 * ahead.c - parts of a large file are in the store before its close, and nothing wrong comes of it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "catalog.h"
#include "support/mounted.h"
#include "support/network.h"

#define MIB ((size_t)1 << 20)
#define SIZE (100 * MIB + 12345)
#define PART (16 * MIB)
#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static struct mounted m;
static char *bytes;

static void leave(void)
{
	mounted_free(&m);
	free(bytes);
	bytes = NULL;
}

TestSuite(ahead, .fini = leave, .timeout = 240);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

static void begin(enum mounted_store store)
{
	bytes = malloc(SIZE);
	fill_random(bytes, SIZE, 7);
	mounted_new(&m, store);
	mounted_start(&m, NULL);
}

static void append(int fd, size_t start, size_t end)
{
	while (start < end) {
		ssize_t n = write(fd, bytes + start, end - start < MIB ? end - start : MIB);

		cr_assert_gt(n, 0, "%s", strerror(errno));
		start += (size_t)n;
	}
}

/* Writes the first `len` bytes, and waits until what can be sent of them has been. */
static int open_written(const char *name, size_t len)
{
	int fd = open(at(name), O_RDWR | O_CREAT | O_TRUNC, 0640);
	int64_t before = mounted_status(&m, "store.bytes_sent");
	size_t parts = len / PART;

	cr_assert_geq(fd, 0);
	append(fd, 0, len);
	for (int i = 0; i < 600 && mounted_status(&m, "store.bytes_sent") - before < (int64_t)(parts * PART); i++)
		usleep(100000);
	cr_assert_geq(mounted_status(&m, "store.bytes_sent") - before, (int64_t)(parts * PART),
		      "its parts were not sent ahead");
	return fd;
}

static void object_is_whole(const char *name)
{
	char command[400];
	size_t len = 0;
	char *whole;

	cr_assert(file_is(at(name), bytes, SIZE), "%s is not what was written", name);
	snprintf(command, sizeof(command),
		 "\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" get %s >\"$ROOT/object\"", name);
	OK(mounted_shell(&m, command, NULL, 0));
	snprintf(command, sizeof(command), "%s/object", m.root);
	whole = file_read(command, &len);
	cr_assert_eq(len, SIZE);
	cr_assert_eq(memcmp(whole, bytes, SIZE), 0, "the object of %s is not what was written", name);
	free(whole);
}

/* Lines of what s3.py says. */
static int count(const char *verb, const char *name)
{
	char words[100], *list;
	int lines;

	snprintf(words, sizeof(words), "%s %s", verb, name);
	list = s3_ask(&m, words);
	lines = *list != '\0';
	for (const char *p = list; *p; p++)
		lines += *p == '\n';
	free(list);
	return lines;
}

static int unfinished(const char *name)
{
	return count("uploads", name);
}

static int versions(const char *name)
{
	return count("versions", name);
}

static void end_clean(void)
{
	cr_assert_eq(mounted_stop(&m), 0);
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

/* Only the objects: neither our catalog nor its shipped log. */
static void forget_all_but_objects(void)
{
	OK(mounted_shell(&m,
			 "rm -rf \"$STATE\"; cd \"$VARVE_TEST_SOURCE/tests/support\" && ./s3.py \"$BUCKET\" reserved | "
			 "grep -E '^.varve/(catalog/|lease)' | while read -r key; do ./s3.py \"$BUCKET\" delete "
			 "\"$key\" || exit 1; "
			 "done",
			 NULL, 0));
	mounted_start(&m, NULL);
}

Test(ahead, nothing_is_seen_before_the_close_and_little_is_sent_after_it)
{
	int64_t before;
	char *keys;
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big", SIZE);
	keys = s3_ask(&m, "keys");
	cr_assert_str_eq(keys, "", "seen before its close: %s", keys);
	free(keys);
	before = mounted_status(&m, "store.bytes_sent");
	OK(close(fd));
	mounted_settle(&m, 60);
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - before, (int64_t)(2 * PART), "parts were sent again");
	object_is_whole("big");
	cr_assert_eq(versions("big"), 1);
	cr_assert_eq(unfinished("big"), 0);
	end_clean();
}

Test(ahead, a_part_written_over_is_sent_again)
{
	int64_t before, sent;
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big", SIZE);
	memset(bytes + 20 * MIB, 'x', 4096);
	cr_assert_eq(pwrite(fd, bytes + 20 * MIB, 4096, 20 * MIB), 4096);
	before = mounted_status(&m, "store.bytes_sent");
	OK(close(fd));
	mounted_settle(&m, 60);
	sent = mounted_status(&m, "store.bytes_sent") - before;
	cr_assert_geq(sent, (int64_t)PART);
	cr_assert_lt(sent, (int64_t)(3 * PART), "parts that did not change were sent again");
	object_is_whole("big");
	end_clean();
}

Test(ahead, what_is_written_after_the_version_was_made_is_not_in_it)
{
	size_t len = 0;
	char *old;
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big", SIZE);
	OK(close(fd));
	fd = open(at("big"), O_RDWR);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, "later", 5, 0), 5);
	OK(close(fd));
	mounted_settle(&m, 60);
	OK(mounted_shell(&m, "cp \"$MNT/.versions/big/-2\" \"$ROOT/old\"", NULL, 0));
	{
		char path[400];

		snprintf(path, sizeof(path), "%s/old", m.root);
		old = file_read(path, &len);
	}
	cr_assert_eq(len, SIZE);
	cr_assert_eq(memcmp(old, bytes, SIZE), 0, "the first version has later bytes");
	free(old);
	memcpy(bytes, "later", 5);
	object_is_whole("big");
	cr_assert_eq(versions("big"), 2);
	end_clean();
}

Test(ahead, a_file_cut_and_written_anew)
{
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big", SIZE);
	OK(ftruncate(fd, 40 * MIB));
	memset(bytes + 40 * MIB, 'z', 30 * MIB);
	cr_assert_eq(lseek(fd, 40 * MIB, SEEK_SET), 40 * MIB);
	append(fd, 40 * MIB, SIZE);
	OK(close(fd));
	mounted_settle(&m, 60);
	object_is_whole("big");
	end_clean();
}

Test(ahead, a_file_renamed_before_its_close_goes_to_its_new_name)
{
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big.tmp", SIZE);
	OK(rename(at("big.tmp"), at("big")));
	OK(close(fd));
	mounted_settle(&m, 60);
	object_is_whole("big");
	cr_assert_eq(versions("big.tmp"), 0);
	cr_assert_eq(unfinished("big.tmp"), 0);
	end_clean();
}

Test(ahead, a_file_removed_before_its_close_leaves_nothing)
{
	int fd;

	begin(MOUNTED_S3);
	/* No child process in between: it would close its copy of the descriptor, and a close makes a version. */
	fd = open(at("big"), O_RDWR | O_CREAT, 0640);
	cr_assert_geq(fd, 0);
	append(fd, 0, SIZE);
	OK(unlink(at("big")));
	OK(close(fd));
	mounted_settle(&m, 60);
	cr_assert_geq(mounted_status(&m, "store.requests"), 2, "nothing was begun");
	end_clean();
	cr_assert_eq(unfinished("big"), 0);
	cr_assert_eq(versions("big"), 0);
}

Test(ahead, a_kill_while_it_is_written_leaves_no_upload)
{
	int fd;

	begin(MOUNTED_S3);
	fd = open_written("big", 70 * MIB);
	mounted_kill(&m);
	(void)close(fd);
	cr_assert_eq(unfinished("big"), 1);
	mounted_start(&m, NULL);
	for (int i = 0; i < 300 && unfinished("big"); i++)
		usleep(100000);
	cr_assert_eq(unfinished("big"), 0);
	end_clean();
}

static int forget_slots(struct catalog *catalog)
{
	int err = 0;

	for (int slot = 0; slot < 8 && !err; slot++) {
		char name[32];

		snprintf(name, sizeof(name), "ahead.%d", slot);
		err = catalog_setting_put(catalog, name, "");
	}
	return err;
}

/* An upload whose completion was taken for a failure: its object lies at the key, and nothing else tells of it. */
Test(ahead, the_object_of_a_forgotten_upload_is_no_conflict)
{
	const struct catalog_options options = {.root_mode = S_IFDIR | 0755};
	struct catalog *catalog;
	char path[400];
	int fd;

	bytes = malloc(SIZE);
	fill_random(bytes, SIZE, 7);
	mounted_new(&m, MOUNTED_S3);
	mounted_kill_at("stream-completed");
	mounted_start(&m, NULL);
	mounted_kill_at(NULL);
	fd = open_written("big", SIZE);
	OK(close(fd));
	cr_assert(mounted_died(&m, 90));
	cr_assert_eq(versions("big"), 1, "it was not completed");
	snprintf(path, sizeof(path), "%s/catalog", m.state);
	OK(catalog_open(path, &options, &catalog));
	OK(forget_slots(catalog));
	catalog_close(catalog);
	mounted_start(&m, NULL);
	mounted_settle(&m, 60);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 0, "a conflict with ourselves");
	cr_assert_eq(versions("big"), 1);
	object_is_whole("big");
	end_clean();
}

static int facts(void)
{
	char *keys = s3_ask(&m, "reserved");
	int found = 0;

	for (const char *key = strstr(keys, ".varve/facts/"); key; key = strstr(key + 1, ".varve/facts/"))
		found++;
	free(keys);
	return found;
}

/* The object is there and its facts are, but nobody recorded it. */
static void die_with_facts(struct stat *ret_was)
{
	int fd;

	mounted_kill_at("stream-completed");
	begin(MOUNTED_S3);
	mounted_kill_at(NULL);
	fd = open_written("big", SIZE);
	usleep(1100000); /* what the upload was begun with is older than this */
	cr_assert_eq(pwrite(fd, bytes + SIZE - 1, 1, SIZE - 1), 1);
	OK(fchmod(fd, 0600));
	OK(fstat(fd, ret_was));
	OK(close(fd));
	cr_assert(mounted_died(&m, 90));
	cr_assert_eq(facts(), 1);
}

static void is_as_it_was(const struct stat *was)
{
	struct stat is;

	OK(stat(at("big"), &is));
	cr_assert_eq(is.st_mtim.tv_sec, was->st_mtim.tv_sec);
	cr_assert_eq(is.st_mtim.tv_nsec, was->st_mtim.tv_nsec);
	cr_assert_eq(is.st_mode, was->st_mode);
}

Test(ahead, the_objects_alone_tell_when_it_was_made)
{
	struct stat was;

	die_with_facts(&was);
	forget_all_but_objects();
	is_as_it_was(&was);
	object_is_whole("big");
	end_clean();
}

static void object_says(const char *key, const char *line)
{
	char words[300], *said;

	snprintf(words, sizeof(words), "meta %s", key);
	said = s3_ask(&m, words);
	cr_assert(strstr(said, line), "%s does not say %s but\n%s", key, line, said);
	free(said);
}

Test(ahead, what_users_say_of_it_the_object_says)
{
	char value[100] = {0};
	int fd;

	begin(MOUNTED_S3);
	file_puts(at("big"), "");
	OK(setxattr(at("big"), "user.colour", "green", 5, 0));
	OK(setxattr(at("big"), "user.mime_type", "video/mp4", 9, 0));
	fd = open_written("big", SIZE);
	OK(close(fd));
	mounted_settle(&m, 90);
	object_says("big", "varve-facts=");
	object_says("big", "colour=green");
	object_says("big", ":content-type=video/mp4");
	end_clean();
	forget_all_but_objects();
	cr_assert_eq(getxattr(at("big"), "user.colour", value, sizeof(value)), 5);
	cr_assert_str_eq(value, "green");
	cr_assert_eq(getxattr(at("big"), "user.mime_type", value, sizeof(value)), 9);
	cr_assert_str_eq(value, "video/mp4");
	end_clean();
}

Test(ahead, facts_go_when_the_log_tells_them)
{
	char name[300], command[700];
	struct stat was;

	die_with_facts(&was);
	mounted_start(&m, NULL);
	for (int i = 0; i < 300 && facts(); i++)
		usleep(100000);
	cr_assert_eq(facts(), 0);
	OK(mounted_shell(&m, "ls \"$MNT/.versions/big\"", name, sizeof(name)));
	name[strcspn(name, "\n")] = '\0';
	/* And those of a mount that ends in peace, at its end at the latest. */
	OK(close(open_written("other", SIZE)));
	end_clean();
	cr_assert_eq(facts(), 0);
	cr_assert_eq(count("beneath", ".varve/facts/"), 0, "versions of them are left");
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	is_as_it_was(&was);
	snprintf(command, sizeof(command), "[ \"$(ls \"$MNT/.versions/big\")\" = %.200s ]", name);
	OK(mounted_shell(&m, command, NULL, 0));
	object_is_whole("big");
	end_clean();
}

Test(ahead, a_store_without_versions_keeps_what_was_there)
{
	int fd;

	begin(MOUNTED_S3_UNVERSIONED);
	file_puts(at("big"), "first");
	mounted_settle(&m, 60);
	fd = open_written("big", SIZE);
	OK(close(fd));
	mounted_settle(&m, 60);
	object_is_whole("big");
	OK(mounted_shell(&m, "test \"$(cat \"$MNT/.versions/big/-2\")\" = first", NULL, 0));
	end_clean();
}
