/*
 * power.c - what a power cut may take: cache files whose bytes were never synced.
 *
 * A kill -9 at the first upload leaves a closed version in the cache only; a new boot id at the next mount says that
 * the page cache was lost, and the test takes bytes away where a disk might have.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/mounted.h"

#define OTHER_BOOT "0123456789abcdef0123456789abcdef"
#define TEAR                                                                                                           \
	"for f in $(find \"$STATE/cache\" -type f -size -64k); do s=$(stat -c %s \"$f\"); truncate -s 0 \"$f\"; "      \
	"truncate -s \"$s\" \"$f\"; done"

static struct mounted m;

static void teardown(void)
{
	unsetenv("VARVE_TEST_BOOT_ID");
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	mounted_free(&m);
}

TestSuite(power, .fini = teardown, .timeout = 240);

/* "old" is stored, "newer" closed and still local when the daemon dies. */
static void old_stored_newer_local(const char *options)
{
	int fd;

	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, NULL);
	file_puts(mounted_path(&m, "f"), "old");
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_kill_at("upload-started");
	mounted_start(&m, options);
	fd = open(mounted_path(&m, "f"), O_WRONLY | O_TRUNC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "newer", 5), 5);
	if (options)
		cr_assert_eq(fsync(fd), 0);
	cr_assert_eq(close(fd), 0);
	cr_assert(mounted_died(&m, 90));
	setenv("VARVE_TEST_BOOT_ID", OTHER_BOOT, 1);
}

/* How many versions of f have this origin. */
static int origins(const char *origin)
{
	char *names = dir_names(mounted_path(&m, ".versions/f")), *next = names;
	int count = 0;

	for (char *name = strsep(&next, "\n"); name; name = strsep(&next, "\n")) {
		char path[600], value[32] = {0};

		snprintf(path, sizeof(path), "%s/.versions/f/%s", m.dir, name);
		cr_assert_gt(getxattr(path, "user.varve.origin", value, sizeof(value) - 1), 0, "%s", path);
		count += strcmp(value, origin) == 0;
	}
	free(names);
	return count;
}

Test(power, whole_bytes_are_believed_by_their_checksum)
{
	old_stored_newer_local(NULL);
	mounted_start(&m, NULL);
	cr_assert(file_is(mounted_path(&m, "f"), "newer", 5));
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_shell(&m, "grep -qx newer \"$ROOT/store/f\"", NULL, 0), 0);
}

Test(power, torn_bytes_become_a_suspect_version_and_never_the_file)
{
	old_stored_newer_local(NULL);
	cr_assert_eq(mounted_shell(&m, TEAR, NULL, 0), 0);
	mounted_start(&m, NULL);
	cr_assert(file_is(mounted_path(&m, "f"), "old", 3), "the file goes back to what is whole");
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_shell(&m, "grep -qx old \"$ROOT/store/f\"", NULL, 0), 0, "and so does the store");
	cr_assert_eq(mounted_shell(&m, "ls \"$ROOT/store/.varve/versions\"/*/* >/dev/null", NULL, 0), 0,
		     "the suspect bytes are kept");
	file_puts(mounted_path(&m, "f"), "newest");
	cr_assert(file_is(mounted_path(&m, "f"), "newest", 6));
}

Test(power, what_was_synced_to_disk_is_believed)
{
	old_stored_newer_local("fsync=disk");
	mounted_start(&m, NULL);
	cr_assert(file_is(mounted_path(&m, "f"), "newer", 5));
	cr_assert_eq(origins("suspect"), 0);
}

/* "old" is stored, and a file is open for writing when the daemon dies. */
static void old_stored_newer_never_closed(void)
{
	int fd;

	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, NULL);
	file_puts(mounted_path(&m, "f"), "old");
	mounted_settle(&m, 30);
	fd = open(mounted_path(&m, "f"), O_WRONLY | O_TRUNC);
	cr_assert_eq(write(fd, "never closed", 12), 12);
	mounted_kill(&m);
	close(fd);
}

Test(power, changes_never_closed_are_not_believed)
{
	old_stored_newer_never_closed();
	setenv("VARVE_TEST_BOOT_ID", OTHER_BOOT, 1);
	mounted_start(&m, NULL);
	cr_assert(file_is(mounted_path(&m, "f"), "old", 3));
}

Test(power, changes_never_closed_are_recovered_after_a_mere_kill)
{
	old_stored_newer_never_closed();
	mounted_start(&m, NULL);
	cr_assert(file_is(mounted_path(&m, "f"), "never closed", 12));
	mounted_settle(&m, 30);
	cr_assert(file_is(mounted_path(&m, ".versions/f/-2"), "old", 3));
}
