/*
 * The CLI on a real mount: what each verb says, changes and exits with.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/mounted.h"

static struct mounted m;
static char out[64 << 10];

static void enter(void)
{
	mounted_new(&m, MOUNTED_LOCAL);
}

static void start(void)
{
	enter();
	mounted_start(&m, "");
}

static void leave(void)
{
	mounted_free(&m);
}

TestSuite(verbs, .init = start, .fini = leave, .timeout = 300);
TestSuite(verbs_unmounted, .init = enter, .fini = leave, .timeout = 300);

/* Exit status of a command line; stdout and stderr are in `out`. */
static int run(const char *command)
{
	char line[2048];

	snprintf(line, sizeof(line), "{ %s ; } 2>&1", command);
	return mounted_shell(&m, line, out, sizeof(out));
}

static void ok(const char *command)
{
	int status = run(command);

	cr_assert_eq(status, 0, "%s: %d: %s", command, status, out);
}

static void fails(const char *command, int expected, const char *part)
{
	int status = run(command);

	cr_assert_eq(status, expected, "%s: %d: %s", command, status, out);
	cr_assert(strstr(out, part), "%s: \"%s\" does not say \"%s\"", command, out, part);
	cr_assert_eq(strchr(out, '\n'), out + strlen(out) - 1, "more than one line: %s", out);
}

/* Three versions of `name`: "one", "two", "three". */
static void save_thrice(const char *name)
{
	file_puts(mounted_path(&m, name), "one\n");
	file_puts(mounted_path(&m, name), "two\n");
	file_puts(mounted_path(&m, name), "three\n");
}

static unsigned lines_of(const char *text)
{
	unsigned count = 0;

	for (; *text; text++)
		count += *text == '\n';
	return count;
}

/* --- log ---------------------------------------------------------------------------------------- */

Test(verbs, log_lists_each_version_once_newest_last)
{
	save_thrice("f.txt");
	ok("\"$VARVE\" log \"$MNT/f.txt\" | cut -f3,6,8");
	cr_assert_str_eq(out, "4\tcreate\t0\n4\twrite\t0\n6\twrite\t1\n");
	ok("\"$VARVE\" log \"$MNT/f.txt\" | cut -f9 | while read -r v; do cat \"$MNT/.versions/f.txt/$v\"; done");
	cr_assert_str_eq(out, "one\ntwo\nthree\n");
}

Test(verbs, log_works_for_a_name_that_is_gone)
{
	save_thrice("f.txt");
	cr_assert_eq(unlink(mounted_path(&m, "f.txt")), 0);
	ok("cd \"$MNT\" && \"$VARVE\" log f.txt");
	cr_assert_eq(lines_of(out), 3);
}

Test(verbs, log_json_has_typed_facts)
{
	json_t *list = json_array(), *last;
	char *rest = out, *line;

	save_thrice("f.txt");
	ok("\"$VARVE\" log --json \"$MNT/f.txt\"");
	while ((line = strsep(&rest, "\n")) && *line)
		cr_assert_eq(json_array_append_new(list, json_loads(line, 0, NULL)), 0, "%s", line);
	cr_assert_eq(json_array_size(list), 3);
	last = json_array_get(list, 2);
	cr_assert_eq(json_integer_value(json_object_get(last, "size")), 6);
	cr_assert(json_is_true(json_object_get(last, "is_current")));
	cr_assert(json_is_false(json_object_get(json_array_get(list, 0), "is_current")));
	cr_assert_gt(json_integer_value(json_object_get(last, "seq")),
		     json_integer_value(json_object_get(json_array_get(list, 1), "seq")));
	cr_assert_eq(strlen(json_string_value(json_object_get(last, "version"))), 8);
	json_decref(list);
}

Test(verbs, log_shows_a_file_called_like_a_special_entry)
{
	save_thrice("+log");
	ok("\"$VARVE\" log \"$MNT/+log\"");
	cr_assert_eq(lines_of(out), 3);
}

Test(verbs, log_says_why_there_is_none)
{
	fails("\"$VARVE\" log \"$MNT/never\"", 1, "no such name ever lived");
	fails("\"$VARVE\" log \"$ROOT/x\"", 1, "not on a varve mount");
	fails("\"$VARVE\" log", 2, "varve log --help");
}

/* --- restore ------------------------------------------------------------------------------------ */

static void live_is(const char *name, const char *text)
{
	cr_assert(file_is(mounted_path(&m, name), text, strlen(text)), "%s is not \"%s\"", name, text);
}

Test(verbs, restore_takes_an_entry_an_identity_and_a_position)
{
	save_thrice("f.txt");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --version \"$(ls \"$MNT/.versions/f.txt\" | head -n 1)\"");
	live_is("f.txt", "one\n");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --version \"$(\"$VARVE\" log \"$MNT/f.txt\" | sed -n 2p | cut -f2)\"");
	live_is("f.txt", "two\n");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --version -2");
	live_is("f.txt", "one\n");
	ok("\"$VARVE\" log \"$MNT/f.txt\" | head -n 3 | cut -f3");
	cr_assert_str_eq(out, "4\n4\n6\n", "the past changed");
}

Test(verbs, restore_goes_back_in_time)
{
	save_thrice("f.txt");
	mounted_settle(&m, 60); /* a close is a version a moment later */
	ok("sleep 0.2; date -u +%Y-%m-%dT%H:%M:%S.%NZ >\"$ROOT/when\"; sleep 0.1");
	file_puts(mounted_path(&m, "f.txt"), "four\n");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --at \"$(cat \"$ROOT/when\")\"");
	live_is("f.txt", "three\n");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --at 2h", 1, "has no version");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --at tomorrow", 2, "is no time");
}

Test(verbs, restore_brings_a_deleted_file_back_with_mode_owner_and_time)
{
	const struct timespec times[] = {{.tv_sec = 1000000000, .tv_nsec = 5}, {.tv_sec = 1100000000, .tv_nsec = 7}};
	struct stat st;

	file_puts(mounted_path(&m, "f"), "text");
	cr_assert_eq(chmod(mounted_path(&m, "f"), 0640), 0);
	cr_assert_eq(chown(mounted_path(&m, "f"), 12, 34), 0);
	cr_assert_eq(utimensat(AT_FDCWD, mounted_path(&m, "f"), times, 0), 0);
	file_puts(mounted_path(&m, "f"), "text 2"); /* a version records what the file was like when it was made */
	cr_assert_eq(utimensat(AT_FDCWD, mounted_path(&m, "f"), times, 0), 0);
	cr_assert_eq(unlink(mounted_path(&m, "f")), 0);
	ok("\"$VARVE\" restore \"$MNT/f\" --version -1");
	live_is("f", "text 2");
	cr_assert_eq(stat(mounted_path(&m, "f"), &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0640, "mode %o", st.st_mode & 07777);
	cr_assert_eq(st.st_uid, 12);
	cr_assert_eq(st.st_gid, 34);
}

Test(verbs, restore_keeps_hard_links_together)
{
	struct stat st;

	save_thrice("f");
	cr_assert_eq(link(mounted_path(&m, "f"), mounted_path(&m, "g")), 0);
	ok("\"$VARVE\" restore \"$MNT/f\" --version -3");
	cr_assert(strstr(out, "in place"), "%s", out);
	live_is("g", "one\n");
	cr_assert_eq(stat(mounted_path(&m, "f"), &st), 0);
	cr_assert_eq(st.st_nlink, 2);
}

Test(verbs, restore_writes_elsewhere_and_leaves_the_file)
{
	save_thrice("f.txt");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --version -3 --to \"$ROOT\" && cat \"$ROOT/f.txt\" | grep one");
	ok("\"$VARVE\" restore \"$MNT/f.txt\" --version -3 --to \"$MNT/copy\"");
	live_is("copy", "one\n");
	live_is("f.txt", "three\n");
}

Test(verbs, restore_refuses_what_it_cannot_do)
{
	save_thrice("f.txt");
	cr_assert_eq(mkdir(mounted_path(&m, "d"), 0755), 0);
	cr_assert_eq(mkdir(mounted_path(&m, "d/f.txt"), 0755), 0);
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --version 00000000", 1, "has no version 00000000");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --version ../f.txt", 2, "names no version");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --version -1 --at 1h", 2, "either");
	fails("\"$VARVE\" restore \"$MNT/f.txt\"", 2, "either");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --version -1 --to \"$MNT/d\"", 1, "is not a file");
	fails("\"$VARVE\" restore \"$MNT/f.txt\" --version -1 --to \"$MNT/no/where\"", 1, "No such file");
	live_is("f.txt", "three\n");
	ok("ls -A \"$MNT\" \"$MNT/d\" | grep -c varve-restore || :");
	cr_assert_str_eq(out, "0\n", "a temporary file was left");
}

/* --- status ------------------------------------------------------------------------------------- */

Test(verbs, status_works_from_within_and_in_both_forms)
{
	cr_assert_eq(mkdir(mounted_path(&m, "d"), 0755), 0);
	ok("\"$VARVE\" status \"$MNT/d\" | grep -q '^mountpoint  *'\"$MNT\"'$'");
	cr_assert_eq(mounted_status(&m, "read_only"), 0);
	ok("\"$VARVE\" status --json \"$MNT\" | wc -l");
	cr_assert_str_eq(out, "1\n");
	fails("\"$VARVE\" status \"$ROOT\"", 1, "not on a varve mount");
}

/* --- umount ------------------------------------------------------------------------------------- */

Test(verbs, umount_of_a_directory_in_use_leaves_it_mounted_and_names_the_user)
{
	ok("cd \"$MNT\" && exec sleep 600 >/dev/null 2>&1 & echo $! >\"$ROOT/pid\"; "
	   "until [ \"$(cat /proc/$!/comm)\" = sleep ]; do sleep 0.05; done");
	fails("\"$VARVE\" umount \"$MNT\"", 1, "is in use by sleep");
	fails("\"$VARVE\" umount --no-wait \"$MNT\"", 1, "is in use");
	file_puts(mounted_path(&m, "f"), "still works");
	ok("p=$(cat \"$ROOT/pid\"); kill $p; while [ -e /proc/$p/cwd ]; do sleep 0.05; done");
	cr_assert_eq(mounted_stop(&m), 0);
	ok("grep -q 'still works' \"${URL#file://}/f\"");
}

Test(verbs, umount_takes_other_names_of_the_directory_and_nothing_inside_it)
{
	cr_assert_eq(mkdir(mounted_path(&m, "d"), 0755), 0);
	fails("\"$VARVE\" umount \"$MNT/d\"", 1, "is not a varve mount");
	fails("\"$VARVE\" umount \"$ROOT\"", 1, "is not a varve mount");
	ok("ln -s mnt \"$ROOT/link\" && \"$VARVE\" umount \"$ROOT/link/\"");
	cr_assert_eq(run("\"$VARVE\" umount \"$MNT\""), 1);
}

Test(verbs, umount_of_a_dead_mount_takes_it_away_and_does_not_claim_success)
{
	file_puts(mounted_path(&m, "f"), "text");
	ok("p=$(\"$VARVE\" status --json \"$MNT\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); kill -9 $p; "
	   "while [ -e /proc/$p/cwd ]; do sleep 0.05; done; sleep 0.3");
	fails("\"$VARVE\" status \"$MNT\"", 1, "its daemon does not answer");
	fails("\"$VARVE\" umount \"$MNT\"", 1, "its daemon was gone");
	m.pid = 0;
	mounted_start(&m, "");
	live_is("f", "text");
}

/* A store that is full keeps jobs waiting for as long as a test wants. */
static void start_full_store(void)
{
	ok("mkdir \"${URL#file://}\" && mount -t tmpfs -o size=1m varve-test \"${URL#file://}\"");
	mounted_start(&m, "");
	ok("head -c 4000000 /dev/urandom >\"$MNT/big\" && cp \"$MNT/big\" \"$ROOT/big\"");
}

static void empty_store(void)
{
	ok("mount -o remount,size=64m \"${URL#file://}\"");
}

static void drop_store(void)
{
	ok("umount -l \"${URL#file://}\"");
}

Test(verbs_unmounted, umount_no_wait_leaves_the_rest_in_the_journal_and_says_how_much)
{
	start_full_store();
	ok("\"$VARVE\" umount --no-wait \"$MNT\"");
	cr_assert(strstr(out, "stay in the journal for the next mount"), "%s", out);
	cr_assert(strstr(out, "3.8 MiB"), "%s", out);
	m.pid = 0;
	empty_store();
	mounted_start(&m, "");
	ok("cmp \"$MNT/big\" \"$ROOT/big\"");
	cr_assert_eq(mounted_stop(&m), 0);
	ok("cmp \"${URL#file://}/big\" \"$ROOT/big\"");
	drop_store();
}

Test(verbs_unmounted, umount_waits_tells_how_far_it_is_and_ends_with_everything_stored)
{
	start_full_store();
	ok("\"$VARVE\" umount \"$MNT\" >\"$ROOT/said\" 2>&1 & p=$!; "
	   "until grep -q 'left to store' \"$ROOT/said\"; do sleep 0.1; kill -0 $p || break; done; "
	   "mount -o remount,size=64m \"${URL#file://}\"; wait $p; s=$?; cat \"$ROOT/said\"; exit $s");
	cr_assert(strstr(out, "left to store, 3.8 MiB"), "%s", out);
	m.pid = 0;
	ok("cmp \"${URL#file://}/big\" \"$ROOT/big\"");
	ok("\"$VARVE\" fsck \"$STATE\"");
	drop_store();
}

/* --- fsck --------------------------------------------------------------------------------------- */

Test(verbs, fsck_is_clean_after_use_and_refuses_what_is_mounted)
{
	save_thrice("f.txt");
	ok("cat \"$MNT\"/.versions/f.txt/* >/dev/null");
	fails("\"$VARVE\" fsck \"$STATE\"", 2, "in use");
	cr_assert_eq(mounted_stop(&m), 0);
	ok("\"$VARVE\" fsck \"$STATE\"");
	cr_assert(strstr(out, "clean"), "%s", out);
}

Test(verbs, fsck_makes_no_catalog_where_there_is_none)
{
	fails("\"$VARVE\" fsck \"$ROOT\"", 2, "no state directory");
	ok("test ! -e \"$ROOT/catalog\"");
}

/* --- mount -------------------------------------------------------------------------------------- */

Test(verbs_unmounted, mount_returns_when_the_directory_is_ready)
{
	ok("\"$VARVE\" mount \"$URL\" \"$MNT\" -o create,state=\"$STATE\" && echo text >\"$MNT/f\" && \"$VARVE\" "
	   "umount "
	   "\"$MNT\" >/dev/null 2>&1 && cat \"${URL#file://}/f\"");
	cr_assert_str_eq(out, "text\n");
}

Test(verbs_unmounted, mount_fails_with_one_line_that_says_why)
{
	fails("\"$VARVE\" mount \"$URL\" \"$MNT\" -o state=\"$STATE\"", 1, "store");
	fails("\"$VARVE\" mount \"$URL\" \"$ROOT/none\" -o create,state=\"$STATE\"", 1, "No such file");
	fails("\"$VARVE\" mount \"$URL\" \"$MNT\" -o create,state=\"$MNT/s\"", 1, "must not lie in one another");
	fails("\"$VARVE\" mount \"$URL\" \"$MNT\" -o creat", 2, "did you mean \"create\"?");
	fails("\"$VARVE\" mount ftp://x \"$MNT\"", 2, "ftp");
	fails("\"$VARVE\" mount \"$URL\"", 2, "missing");
	ok("test -z \"$(ls -A \"$MNT\")\"");
}

Test(verbs, mount_refuses_a_directory_that_is_one_and_a_state_in_use)
{
	fails("\"$VARVE\" mount \"$URL\" \"$MNT\" -o state=\"$ROOT/other\"", 1, "is a varve mount already");
	fails("mkdir \"$ROOT/mnt2\"; \"$VARVE\" mount \"$URL\" \"$ROOT/mnt2\" -o state=\"$STATE\"", 1, "in use");
}

Test(verbs_unmounted, mount_helper_works_as_mount_8_calls_it)
{
	ok("ln -s \"$VARVE\" \"$ROOT/mount.fuse.varve\"");
	ok("\"$ROOT/mount.fuse.varve\" \"$URL\" \"$MNT\" -f -o rw,create,state=\"$STATE\" && test -z \"$(ls -A "
	   "\"$STATE\" "
	   "2>/dev/null)\"");
	ok("\"$ROOT/mount.fuse.varve\" \"$URL\" \"$MNT\" -n -o rw,nosuid,_netdev,create,state=\"$STATE\"");
	ok("echo text >\"$MNT/f\"; umount \"$MNT\"");
	fails("\"$ROOT/mount.fuse.varve\" \"$URL\" \"$ROOT/none\" -o state=\"$STATE\"", 32, "No such file");
	fails("\"$ROOT/mount.fuse.varve\" \"$URL\" -o rw", 1, "missing");
}

Test(verbs_unmounted, help_and_version_are_on_stdout)
{
	static const char *const verbs[] = {"",     "mount",   "umount",   "status", "log",
					    "diff", "restore", "undelete", "fsck"};
	char command[128];

	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		snprintf(command, sizeof(command), "\"$VARVE\" %s --help 2>/dev/null", verbs[i]);
		ok(command);
		cr_assert(strstr(out, "varve"), "%s: %s", command, out);
	}
	ok("\"$VARVE\" --version");
	cr_assert_eq(strncmp(out, "varve ", 6), 0);
	cr_assert_eq(run("\"$VARVE\" explode"), 2);
}
