/*
 * The verbs of the past on trees and versions: log -r, diff, restore -r, undelete; on a plain directory and on S3.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/mounted.h"

static struct mounted m;
static char out[256 << 10];

static void start_local(void)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, "");
}

static void start_s3(void)
{
	mounted_new(&m, MOUNTED_S3);
	mounted_start(&m, "");
}

static void leave(void)
{
	mounted_free(&m);
}

TestSuite(past_local, .init = start_local, .fini = leave, .timeout = 300);
TestSuite(past_s3, .init = start_s3, .fini = leave, .timeout = 300);

/* The same on both kinds of store. */
#define ON_BOTH(name)                                                                                                  \
	static void name(void);                                                                                        \
	Test(past_local, name)                                                                                         \
	{                                                                                                              \
		name();                                                                                                \
	}                                                                                                              \
	Test(past_s3, name)                                                                                            \
	{                                                                                                              \
		name();                                                                                                \
	}                                                                                                              \
	static void name(void)

/* In the mount; exit status, stdout and stderr in `out`. */
static int run(const char *command)
{
	char line[4096];

	snprintf(line, sizeof(line), "{ v() { \"$VARVE\" \"$@\"; }; cd \"$MNT\" && { %s ; } ; } 2>&1", command);
	return mounted_shell(&m, line, out, sizeof(out));
}

static void status(int expected, const char *command)
{
	int got = run(command);

	cr_assert_eq(got, expected, "%s: %d: %s", command, got, out);
}

static void ok(const char *command)
{
	status(0, command);
}

static void says(int expected, const char *command, const char *text)
{
	status(expected, command);
	cr_assert_str_eq(out, text, "%s", command);
}

static void fails(int expected, const char *command, const char *part)
{
	status(expected, command);
	cr_assert(strstr(out, part), "%s: \"%s\" does not say \"%s\"", command, out, part);
	cr_assert_eq(strchr(out, '\n'), out + strlen(out) - 1, "more than one line: %s", out);
}

/* Keeps the time as $ROOT/NAME, of which all that was closed is in the past. The catalog's clock may run some 100 ms
 * ahead. */
static void note_time(const char *name)
{
	char command[128];

	mounted_settle(&m, 60); /* what waits to be stored is a version already; a close becomes one a moment later */
	snprintf(command, sizeof(command), "sleep 0.2; date -u +%%Y-%%m-%%dT%%H:%%M:%%S.%%NZ >\"$ROOT/%s\"; sleep 0.1",
		 name);
	ok(command);
}

#define FACTS                                                                                                          \
	"{ find d ! -type d -printf '%p %y %m %n %s %l\\n' -o -printf '%p %y %m\\n' | sort; find d -type f | sort | "  \
	"xargs -d '\\n' md5sum; }"

static void make_tree(void)
{
	ok("mkdir -p d/sub/deep d/empty; echo one >d/a; echo two >d/b; ln d/a d/hard; ln -s a d/link; mkfifo d/fifo;"
	   "echo deep >d/sub/deep/x; chmod 750 d/sub; chmod 755 d/b; setfattr -n user.colour -v blue d/b;"
	   "echo space >'d/sub/ a\tb '; touch -d 2001-01-01 d/sub/deep/x; head -c 3000000 /dev/urandom >d/large");
	ok(FACTS " >\"$ROOT/before\"");
}

static void change_tree(void)
{
	ok("echo three >>d/a; rm d/b; mv d/sub d/moved; echo new >d/new; mkdir d/newdir; echo q >d/newdir/q;"
	   "rm d/link; echo file >d/link; rmdir d/empty; echo file >d/empty; echo changed >>d/large; rm d/fifo");
}

static void is_as_before(void)
{
	ok(FACTS " | diff \"$ROOT/before\" -");
}

/* --- restore -r ----------------------------------------------------------------------------------- */

ON_BOTH(restore_makes_a_tree_what_it_was)
{
	make_tree();
	note_time("then");
	change_tree();
	ok("v restore -r d --at \"$(cat \"$ROOT/then\")\"");
	is_as_before();
	ok("[ d/a -ef d/hard ] && getfattr --only-values -n user.colour d/b | grep -qx blue");
	ok("stat -c %Y d/sub/deep/x");
	cr_assert_str_eq(out, "978307200\n", "an mtime that was set after the close");
	ok("ls d/.versions/new d/.versions/moved >/dev/null");
	ok("[ \"$(cat d/.versions/new/-1)\" = new ] && [ \"$(tail -n 1 d/.versions/a/-2)\" = three ]");
	ok("ls -A d d/sub | grep -c varve-restore || :");
	cr_assert_str_eq(out, "0\n", "a temporary file was left");
}

ON_BOTH(restore_leaves_equal_files_alone_and_can_be_repeated)
{
	make_tree();
	note_time("then");
	ok("v log -r d | wc -l >\"$ROOT/events\"");
	says(0, "v restore -r d --at \"$(cat \"$ROOT/then\")\"", "");
	ok("v log -r d | wc -l | diff \"$ROOT/events\" -");
	change_tree();
	ok("v restore -r d --at \"$(cat \"$ROOT/then\")\" >/dev/null");
	mounted_settle(&m, 60);
	ok("v log -r d | wc -l >\"$ROOT/events\"");
	says(0, "v restore -r d --at \"$(cat \"$ROOT/then\")\"", "");
	ok("v log -r d | wc -l | diff \"$ROOT/events\" -");
}

ON_BOTH(restore_dry_run_tells_all_and_does_nothing)
{
	make_tree();
	note_time("then");
	change_tree();
	ok(FACTS " >\"$ROOT/changed\"; v restore -r d --dry-run --at \"$(cat \"$ROOT/then\")\" >\"$ROOT/would\"; " FACTS
		 " | diff \"$ROOT/changed\" -");
	ok("v restore -r d --at \"$(cat \"$ROOT/then\")\" | diff \"$ROOT/would\" -");
	ok("grep -qx 'remove\td/newdir/q' \"$ROOT/would\" && grep -qx 'make\td/link' \"$ROOT/would\"");
}

ON_BOTH(restore_to_elsewhere_takes_nothing_away)
{
	make_tree();
	note_time("then");
	change_tree();
	ok("mkdir \"$ROOT/to\" && v restore -r d --to \"$ROOT/to\" --at \"$(cat \"$ROOT/then\")\" >/dev/null");
	ok("cd \"$ROOT/to\" && " FACTS " | diff \"$ROOT/before\" -");
	ok("touch \"$ROOT/to/d/mine\"; v restore -r d --to \"$ROOT/to\" --at \"$(cat \"$ROOT/then\")\" && test -e "
	   "\"$ROOT/to/d/mine\"");
	cr_assert_str_eq(out, "", "a file that is equal was written again");
	ok("v restore -r d --to e --at \"$(cat \"$ROOT/then\")\" >/dev/null && cmp d/.versions/large/-2 e/large");
}

ON_BOTH(restore_brings_a_deleted_tree_back_and_the_whole_mount)
{
	make_tree();
	note_time("then");
	ok("rm -r d; mkdir other");
	ok("v restore -r . --at \"$(cat \"$ROOT/then\")\" >/dev/null");
	is_as_before();
	ok("test ! -e other");
	ok("rm -r d; v restore -r d --at \"$(cat \"$ROOT/then\")\" >/dev/null");
	is_as_before();
}

ON_BOTH(restore_parts_what_was_not_linked_and_touches_nothing_outside)
{
	ok("mkdir d; echo one >d/f; echo other >d/g");
	note_time("then");
	ok("echo two >d/f; ln d/f outside; ln -f d/f d/g");
	ok("v restore -r d --at \"$(cat \"$ROOT/then\")\"");
	ok("cat d/f d/g outside; stat -c %h d/f");
	cr_assert_str_eq(out, "one\nother\ntwo\n1\n");
}

ON_BOTH(restore_json_is_one_object_a_line_with_a_sum)
{
	char *rest = out, *line;
	json_t *last = NULL;

	make_tree();
	note_time("then");
	change_tree();
	ok("v restore -r d --json --at \"$(cat \"$ROOT/then\")\"");
	while ((line = strsep(&rest, "\n")) && *line) {
		json_decref(last);
		last = json_loads(line, 0, NULL);
		cr_assert(json_is_object(last), "%s", line);
	}
	cr_assert_str_eq(json_string_value(json_object_get(last, "op")), "done");
	cr_assert_gt(json_integer_value(json_object_get(last, "written")), 0);
	cr_assert_gt(json_integer_value(json_object_get(last, "removed")), 0);
	cr_assert_eq(json_integer_value(json_object_get(last, "failed")), 0);
	json_decref(last);
}

ON_BOTH(restore_that_was_killed_is_completed_by_the_next)
{
	ok("mkdir d; for i in $(seq 120); do echo old $i >d/f$i; done");
	ok(FACTS " >\"$ROOT/before\"");
	note_time("then");
	ok("for i in $(seq 120); do echo new $i >d/f$i; done; rm d/f11*");
	ok("\"$VARVE\" restore -r d --at \"$(cat \"$ROOT/then\")\" >\"$ROOT/log\" & pid=$!; while ! grep -q old "
	   "d/f100; do :; "
	   "done;"
	   "{ kill -9 $pid; wait $pid; } 2>/dev/null; grep -l new d/* | wc -l");
	cr_assert_neq(strtol(out, NULL, 10), 0, "it was done before it was killed: make the tree larger");
	ok("v restore -r d --at \"$(cat \"$ROOT/then\")\" >/dev/null");
	is_as_before();
}

ON_BOTH(restore_that_was_told_to_stop_leaves_nothing_half_done)
{
	ok("mkdir d; for i in $(seq 120); do echo old $i >d/f$i; done");
	note_time("then");
	ok("for i in $(seq 120); do echo new $i >d/f$i; done");
	status(1, "\"$VARVE\" restore -r d --at \"$(cat \"$ROOT/then\")\" >/dev/null 2>\"$ROOT/err\" & pid=$!;"
		  "while ! grep -q old d/f1; do :; done; kill -TERM $pid; wait $pid; s=$?; cat \"$ROOT/err\"; exit $s");
	cr_assert_str_eq(out, "varve: interrupted; run it again to complete it\n");
	ok("ls -A d | wc -l; cat d/* | grep -Ecv '^(old|new) [0-9]+$' || :");
	cr_assert_str_eq(out, "120\n0\n");
}

ON_BOTH(undelete_completes_what_a_killed_one_left)
{
	ok("echo one >f; rm f; echo o >f; chmod 0 f; v undelete f; cat f; stat -c %a f");
	cr_assert_str_eq(out, "write\tf\none\n644\n");
}

/* The store must never see the temporary name. */
Test(past_s3, restore_leaves_no_key_of_its_own)
{
	ok("echo one >f; echo two >f; \"$VARVE\" restore f --version -2");
	mounted_settle(&m, 60);
	ok("s3=\"$VARVE_TEST_SOURCE/tests/support/s3.py\"; $s3 \"$BUCKET\" versions .varve-restore | wc -l; $s3 "
	   "\"$BUCKET\" "
	   "versions f | grep -c data");
	cr_assert_str_eq(out, "0\n3\n");
	ok("v log f | wc -l");
	cr_assert_str_eq(out, "3\n");
}

ON_BOTH(restore_is_atomic_for_readers)
{
	ok("head -c 8000000 /dev/zero | tr '\\0' a >f; head -c 8000000 /dev/zero | tr '\\0' b >f");
	ok("( i=0; while [ $i -lt 60 ]; do i=$((i + 1)); c=$(tr -d '\\n' <f | fold -w 1000000 | cut -c 1 | sort -u | "
	   "tr -d '\\n');"
	   "  n=$(stat -Lc %s f); [ ${#c} = 1 ] && [ $n = 8000000 ] || { echo torn $c $n; }; done ) >\"$ROOT/seen\" & "
	   "pid=$!;"
	   "for i in 1 2 3 4 5 6; do v restore f --version -2 >/dev/null; done; wait $pid; cat \"$ROOT/seen\"");
	cr_assert_str_eq(out, "");
}

ON_BOTH(restore_of_trees_refuses_what_makes_no_sense)
{
	make_tree();
	note_time("then");
	fails(2, "v restore d --at \"$(cat \"$ROOT/then\")\"", "say -r");
	fails(2, "v restore -r d --version -1", "directories have no versions");
	fails(1, "v restore -r d --at 9h", "was not there then");
	fails(1, "v restore -r . --at 9h", "all would be removed");
	fails(1, "cd d && v restore -r \"$MNT\" --at 2001-01-01", "all would be removed");
	fails(1, "v restore -r never --at 0s", "was not there then");
	fails(1, "v restore -r \"$ROOT\" --at 1h", "not on a varve mount");
	fails(2, "v restore -r d --at noon", "is no time");
	is_as_before();
}

/* --- undelete ------------------------------------------------------------------------------------------ */

ON_BOTH(undelete_brings_a_file_back_once)
{
	ok("echo one >f; echo two >f; chmod 640 f; echo three >f; setfattr -n user.a -v b f; rm f");
	says(0, "v undelete f", "write\tf\n");
	ok("cat f; stat -c %a f; getfattr --only-values -n user.a f");
	cr_assert_str_eq(out, "three\n640\nb");
	fails(1, "v undelete f", "is there");
	ok("cat f; v undelete f --to g && cat g");
	cr_assert(strstr(out, "three\nwrite\tg\nthree\n"), "%s", out);
}

ON_BOTH(undelete_chooses_among_deletions)
{
	ok("echo one >f; rm f");
	note_time("first");
	ok("echo two >f; rm f");
	note_time("second");
	ok("echo three >f");
	fails(1, "v undelete f", "is there");
	ok("v undelete f --to newest; v undelete f --at \"$(cat \"$ROOT/first\")\" --to oldest; cat newest oldest f");
	cr_assert(strstr(out, "two\none\nthree\n"), "%s", out);
	fails(1, "v undelete f --at 9h --to x", "was never deleted until then");
	fails(1, "v undelete newest", "was never deleted");
	fails(1, "v undelete nothing", "no such name");
}

ON_BOTH(undelete_brings_a_tree_back_as_it_was)
{
	make_tree();
	ok("echo gone >d/earlier; rm d/earlier; echo z >d/z; rm d/z; echo one >>d/a; echo one >d/a");
	ok(FACTS " >\"$ROOT/before\"");
	ok("rm d/b d/sub/deep/x; rmdir d/sub/deep; sleep 0.3; rm -r d");
	fails(2, "v undelete d", "say -r");
	ok("v undelete -r d --all --to all >/dev/null; cat all/earlier all/z; rm -r all");
	cr_assert_str_eq(out, "gone\nz\n");
	ok("v undelete -r d --dry-run >\"$ROOT/would\"; test ! -e d && v undelete -r d | diff \"$ROOT/would\" -");
	is_as_before();
}

ON_BOTH(undelete_of_a_directory_whose_name_lives_again)
{
	make_tree();
	ok("rm -r d; mkdir d; echo other >d/other; echo new >d/b; v undelete -r d >/dev/null; cat d/other d/b");
	cr_assert_str_eq(out, "other\nnew\n", "what lives was overwritten");
	ok("rm d/other; echo two >d/b; setfattr -n user.colour -v blue d/b; chmod 755 d/b; ln -f d/a d/hard");
	is_as_before();
}

ON_BOTH(a_directory_made_again_goes_on_with_its_past)
{
	ok("mkdir d d/sub; echo 1 >d/a; echo 2 >d/a; echo x >d/sub/x; mv d/sub/x d/x; echo moved >d/m; mv d/m d/n");
	note_time("then");
	ok("rm -r d; mkdir d d/sub; echo 3 >d/a");
	says(0, "ls d/.versions", "a\nm\nn\nsub\nx\n");
	says(0, "cat d/.versions/a/*", "1\n2\n3\n");
	says(0, "ls d/.versions/+deleted d/sub/.versions", "d/.versions/+deleted:\nn\nx\n\nd/sub/.versions:\nx\n");
	says(0, "cd d/.versions/+at/$(cat \"$ROOT/then\"); cat a n x; ls sub", "2\nmoved\nx\n");
	says(0, "awk -F '\\t' '$3 ~ /^[mn]$/ {print $2, $3, $8}' d/.versions/+log",
	     "create m -\nwrite m -\nrename m to:n\ndelete n -\n");
	says(0, "v prune --keep-last 1 --dry-run d | grep -c 'would go'", "2\n");
	/* One that was moved away took its past along. */
	ok("mv d e; mkdir d; echo 4 >d/a");
	says(0, "cat d/.versions/a/*; ls e/.versions", "4\na\nm\nn\nsub\nx\n");
	ok("rm -r d; mkdir d; echo 5 >d/a");
	says(0, "cat d/.versions/a/*", "4\n5\n");
}

ON_BOTH(undelete_beneath_a_directory_that_lives)
{
	make_tree();
	ok("rm d/b d/hard; rm -r d/sub; echo mine >d/b");
	ok("v undelete -r d >/dev/null; cat d/b d/hard d/sub/deep/x; ls d");
	cr_assert(strstr(out, "mine\none\ndeep\n"), "%s", out);
}

/* --- diff ------------------------------------------------------------------------------------------------ */

ON_BOTH(diff_is_that_of_diff_with_labels)
{
	ok("printf 'a\\nb\\n' >f.txt; printf 'a\\nB\\n' >f.txt; printf 'A\\nB\\n' >f.txt");
	status(1, "v diff f.txt >\"$ROOT/diff\"; s=$?; tail -n +3 \"$ROOT/diff\"; exit $s");
	cr_assert_str_eq(out, "@@ -1,2 +1,2 @@\n-a\n+A\n B\n");
	ok("sed -n 1,2p \"$ROOT/diff\" | grep -Ec '^(---|\\+\\+\\+) .*f.txt.*\t20[0-9-]* [0-9:.]* [+]0000$'");
	cr_assert_str_eq(out, "2\n");
	status(1, "v diff f.txt -3 -2 >\"$ROOT/diff\"; s=$?; tail -n +4 \"$ROOT/diff\"; exit $s");
	cr_assert_str_eq(out, " a\n-b\n+B\n");
	says(0, "v diff f.txt -1", "");
	says(0, "v diff f.txt -1 \"$(v log f.txt | sed -n 3p | cut -f2)\"", "");
	ok("v diff f.txt -3 -1 >\"$ROOT/p\"; cp .versions/f.txt/-3 \"$ROOT/o\"; chmod u+w \"$ROOT/o\"; patch -s "
	   "\"$ROOT/o\" "
	   "\"$ROOT/p\" && cmp \"$ROOT/o\" f.txt");
}

ON_BOTH(diff_of_what_is_no_text_tells_sizes_and_checksums)
{
	ok("head -c 5000 /dev/urandom >b; head -c 6000 /dev/urandom >b");
	status(1, "v diff b");
	cr_assert(strstr(out, "5000 bytes") && strstr(out, "6000 bytes"), "%s", out);
	status(1, "v diff b --json");
	{
		json_t *object = json_loads(out, 0, NULL);

		cr_assert(json_is_false(json_object_get(object, "same")), "%s", out);
		cr_assert(json_is_false(json_object_get(object, "text")), "%s", out);
		cr_assert_eq(json_integer_value(json_object_get(json_object_get(object, "from"), "size")), 5000);
		json_decref(object);
	}
	ok("cp b c; cat c >c2; cat c2 >c; v diff c");
	ok("rm b; v diff b | tail -n 1");
	cr_assert_str_eq(out, "+ b: not there\n");
}

ON_BOTH(diff_of_trees_names_what_changed)
{
	make_tree();
	note_time("then");
	says(0, "v diff d \"$(cat \"$ROOT/then\")\"", "");
	ok("mv d/sub d/moved; echo 2 >>d/moved/deep/x; mv d/b d/B; rm d/fifo; echo n >d/n; echo z >>d/large; "
	   "touch d/a");
	note_time("later");
	status(1, "v diff d \"$(cat \"$ROOT/then\")\"");
	cr_assert_str_eq(out,
			 "renamed\tB\tb\nremoved\tfifo\nchanged\tlarge\nrenamed\tmoved\tsub\nchanged\tmoved/deep/x\n"
			 "added\tn\n");
	ok("rm -r d");
	status(1, "v diff d \"$(cat \"$ROOT/then\")\" \"$(cat \"$ROOT/later\")\"");
	cr_assert(strstr(out, "renamed\tmoved\tsub\n"), "%s", out);
	ok("v diff . \"$(cat \"$ROOT/then\")\" --json | head -n 1");
	cr_assert_str_eq(out, "{\"change\":\"removed\",\"path\":\"d\"}\n");
}

ON_BOTH(diff_says_what_is_wrong_with_status_2)
{
	ok("echo one >f; mkdir d");
	fails(2, "v diff f", "no version before this one");
	fails(2, "v diff f 00000000", "has no version 00000000");
	fails(2, "v diff never", "no such name");
	fails(2, "v diff d", "say since when");
	fails(2, "v diff d noon", "is no time");
	fails(2, "v diff d 9h", "was not there then");
	fails(2, "v diff \"$ROOT/x\"", "not on a varve mount");
	fails(2, "v diff", "missing");
}

/* --- log -r ------------------------------------------------------------------------------------------------ */

ON_BOTH(log_follows_directories_through_time)
{
	static const char expected[] = "create d\ncreate d/s\ncreate d/s/f\nwrite d/s/f\ncreate e\nrename d/s to:/e/t\n"
				       "write e/t/f\nrename e/t to:u\ndelete e/u/f\ndelete e/u\ncreate e/u\n"
				       "create e/u/g\nwrite e/u/g\n";

	ok("mkdir -p d/s; echo 1 >d/s/f; mkdir e; mv d/s e/t; echo 2 >e/t/f; mv e/t e/u; rm -r e/u; mkdir e/u; echo 3 "
	   ">e/u/g");
	ok("v log -r . | cut -f2,3,8 | sed 's/\t-$//; s|\\./||; s/\t/ /g'");
	cr_assert_str_eq(out, expected);
	ok("v log -r e | cut -f2,3 | head -n 1");
	cr_assert_str_eq(out, "rename\te/t\n", "moved in from outside");
	ok("v log -r d | tail -n 1 | cut -f2,3,8");
	cr_assert_str_eq(out, "rename\td/s\tto:/e/t\n", "moved out, and no more is told of it");
	fails(2, "v log e/u", "say -r");
}

ON_BOTH(log_of_trees_is_the_same_sorted_in_memory_and_out_of_it)
{
	ok("for i in 1 2 3; do mkdir d$i; for j in $(seq 20); do echo $j >d$i/f$j; done; done; rm d2/*; mv d1 d2/in");
	ok("v log -r . >\"$ROOT/in\"; VARVE_TEST_SORT_MEMORY=500 v log -r . | cmp - \"$ROOT/in\"; cut -f1 \"$ROOT/in\" "
	   "| sort -c; "
	   "wc -l <\"$ROOT/in\"");
	cr_assert_str_eq(out, "144\n");
	ok("v log -r . --json | wc -l");
	cr_assert_str_eq(out, "144\n");
}

ON_BOTH(log_takes_a_time_span)
{
	ok("mkdir d; echo 1 >d/f");
	note_time("then");
	ok("echo 2 >d/f; echo 2 >d/g");
	ok("v log -r d --since \"$(cat \"$ROOT/then\")\" | wc -l; v log -r d --until \"$(cat \"$ROOT/then\")\" | wc "
	   "-l; v log d/f "
	   "--since \"$(cat \"$ROOT/then\")\" | wc -l; v log d/f --until \"$(cat \"$ROOT/then\")\" | wc -l");
	cr_assert_str_eq(out, "3\n2\n1\n1\n");
}

ON_BOTH(log_works_in_a_directory_that_is_gone)
{
	ok("mkdir -p d/s; echo 1 >d/s/f; echo 2 >d/s/f; rm -r d; v log d/s/f | wc -l; v log -r d | wc -l");
	cr_assert_str_eq(out, "2\n6\n");
	ok("v restore d/s/f --version -2 --to \"$ROOT\" && cat \"$ROOT/f\" | grep -qx 1");
}
