/*
 * keeping.c - prune, hold and retain on real stores: what goes is gone from the bucket, what is kept stays, and where
 * the store can lock versions it is the store that refuses.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

static struct mounted m;
static char out[8192];

static void leave(void)
{
	mounted_free(&m);
}

TestSuite(keeping, .fini = leave, .timeout = 300);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static int shell(const char *command)
{
	int status = mounted_shell(&m, command, out, sizeof(out));

	for (size_t len = strlen(out); len && out[len - 1] == '\n'; len--)
		out[len - 1] = '\0';
	return status;
}

#define SAYS(command, text)                                                                                            \
	do {                                                                                                           \
		int status_ = shell(command);                                                                          \
		cr_assert_str_eq(out, text, "%s (%d): %s", command, status_, out);                                     \
	} while (0)

static void end_clean(void)
{
	cr_assert_eq(mounted_stop(&m), 0);
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

static void write_versions(const char *name, unsigned count)
{
	char text[32];

	for (unsigned i = 1; i <= count; i++) {
		snprintf(text, sizeof(text), "%s %u", name, i);
		file_puts(at(name), text);
		OK(shell("\"$VARVE\" log \"$MNT\" >/dev/null 2>&1 || :"));
	}
}

static enum mounted_store all[] = {MOUNTED_LOCAL, MOUNTED_S3, MOUNTED_S3_UNVERSIONED};

#define ON_ALL(name)                                                                                                   \
	ParameterizedTestParameters(keeping, name)                                                                     \
	{                                                                                                              \
		return cr_make_param_array(enum mounted_store, all, 3);                                                \
	}                                                                                                              \
	ParameterizedTest(enum mounted_store *store, keeping, name, .timeout = 300, .fini = leave)

ON_ALL(a_policy_is_applied_to_a_file)
{
	mounted_new(&m, *store);
	mounted_start(&m, NULL);
	write_versions("f", 6);
	mounted_settle(&m, 30);
	OK(shell("\"$VARVE\" prune --keep-last 4 --dry-run \"$MNT/f\" | grep -c '^would go\t'"));
	cr_assert_str_eq(out, "2");
	SAYS("ls \"$MNT/.versions/f\" | wc -l", "6");
	OK(shell("\"$VARVE\" prune --keep-last 4 \"$MNT/f\" | grep -c '^goes\t'"));
	cr_assert_str_eq(out, "2");
	SAYS("cd \"$MNT/.versions/f\" && cat $(ls) | sed 's/f/\\nf/g' | tail -n +2 | tr '\\n' ,", "f 3,f 4,f 5,f 6");
	OK(shell("\"$VARVE\" prune --keep-last 4 --json \"$MNT/f\" | tail -1 | grep '\"removed\":0,\"refused\":0'"));
	mounted_settle(&m, 30);
	/* In a new catalog, too. */
	end_clean();
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	SAYS("ls \"$MNT/.versions/f\" | wc -l", "4");
	SAYS("cat \"$MNT/f\" \"$MNT/.versions/f/-4\"", "f 6f 3");
	end_clean();
}

Test(keeping, what_goes_is_gone_from_the_bucket)
{
	char *listed;

	mounted_new(&m, MOUNTED_S3);
	mounted_start(&m, NULL);
	write_versions("f", 5);
	mounted_settle(&m, 30);
	listed = s3_ask(&m, "versions f | wc -l");
	cr_assert_str_eq(listed, "5");
	free(listed);
	OK(shell("\"$VARVE\" prune --keep-last 2 \"$MNT/f\""));
	mounted_settle(&m, 30);
	listed = s3_ask(&m, "versions f | wc -l");
	cr_assert_str_eq(listed, "2");
	free(listed);
	end_clean();
}

/* Names that moved, were replaced, linked, removed with their directories: each version is judged once. */
ON_ALL(a_tree_with_a_past_is_pruned)
{
	mounted_new(&m, *store);
	mounted_start(&m, NULL);
	OK(shell("cd \"$MNT\" && mkdir -p t/sub t/gone/deep && "
		 "for i in 1 2 3 4; do echo a$i >t/a; echo b$i >t/sub/b; echo c$i >t/gone/deep/c; echo o$i >outside; "
		 "done && "
		 "for i in 1 2 3; do echo s$i >t/tmp && mv t/tmp t/saved; done && "
		 "ln t/a t/sub/link && mv t/sub/b t/sub/b2 && echo b5 >>t/sub/b2 && rm -r t/gone && mv outside "
		 "t/inside"));
	mounted_settle(&m, 60);
	OK(shell("\"$VARVE\" prune --keep-last 2 --json \"$MNT/t\" | tail -1 | sed 's/,\"bytes.*//'"));
	/* a: 4 of which 2 stay; b2: 5 -> 2; c: 4 -> 2; saved: 3 -> 2; inside: 4 -> 2. */
	cr_assert(strstr(out, "\"removed\":10,\"refused\":0"), "%s", out);
	SAYS("cd \"$MNT/t/.versions\" && for n in a saved inside; do cat $n/*; done | tr '\\n' ,",
	     "a3,a4,s2,s3,o3,o4,");
	SAYS("cat \"$MNT\"/t/.versions/+deleted/gone/deep/c", "c4");
	SAYS("cd \"$MNT/t\" && cat a sub/link sub/b2 saved inside | tr '\\n' ,", "a4,a4,b4,b5,s3,o4,");
	OK(shell("\"$VARVE\" prune --keep-last 2 --json \"$MNT\" | tail -1 | grep '\"removed\":0,\"refused\":0'"));
	mounted_settle(&m, 60);
	end_clean();
}

ON_ALL(what_is_held_or_retained_stays)
{
	mounted_new(&m, *store);
	mounted_start(&m, NULL);
	write_versions("f", 5);
	mounted_settle(&m, 30);
	OK(shell("\"$VARVE\" hold --version -4 \"$MNT/f\""));
	cr_assert(strstr(out, "1 version held; this store cannot lock versions, so only varve keeps them"), "%s", out);
	OK(shell("\"$VARVE\" retain --for 1y --version -3 \"$MNT/f\""));
	cr_assert_eq(shell("\"$VARVE\" retain --for 6m --version -3 \"$MNT/f\" 2>&1"), 1, "shorter than it was");
	cr_assert(strstr(out, "it is retained for longer already"), "%s", out);
	OK(shell("\"$VARVE\" retain --for 1y --version -1 --json \"$MNT/f\""));
	cr_assert(strstr(out, "\"protected_by\":\"catalog\"}\n{\"done\":1,\"failed\":0,\"store\":false}"), "%s", out);
	cr_assert_eq(shell("\"$VARVE\" retain --for 1d --version -1 --json \"$MNT/f\" 2>/dev/null"), 1);
	cr_assert(strstr(out, "\"refused\":\"shorter\"}\n{\"done\":0,\"failed\":1,\"store\":false}"), "%s", out);
	SAYS("getfattr --only-values -n user.varve.legal_hold \"$MNT/.versions/f/-4\"", "on");
	SAYS("getfattr --only-values -n user.varve.protected_by \"$MNT/.versions/f/-3\"", "catalog");
	cr_assert_eq(shell("\"$VARVE\" prune --keep-last 1 \"$MNT/f\" | cut -f1,6 | tr '\\t\\n' ', '"), 0);
	cr_assert_str_eq(out, "goes,- stays,held stays,retained goes,- ");
	SAYS("\"$VARVE\" prune --keep-last 1 \"$MNT/f\" >/dev/null; echo $?", "1");
	SAYS("cat \"$MNT\"/.versions/f/* | tr f '\\n' | tr -d ' \\n'", "235");
	OK(shell("\"$VARVE\" hold --release --version -3 \"$MNT/f\""));
	OK(shell("\"$VARVE\" prune --keep-last 1 --json \"$MNT/f\" | tail -1 | grep '\"removed\":1,\"refused\":1'"));
	end_clean();
}

static void locking_bucket(void)
{
	mounted_new(&m, MOUNTED_S3);
	s3_do(&m, "make locking");
	mounted_start(&m, NULL);
}

Test(keeping, the_store_enforces_holds_where_it_can)
{
	char *answer;

	locking_bucket();
	write_versions("f", 3);
	mounted_settle(&m, 30);
	OK(shell("\"$VARVE\" hold --version -3 \"$MNT/f\""));
	cr_assert_str_eq(out, "1 version held; the store enforces it");
	OK(shell("\"$VARVE\" retain --for 1y --version -2 \"$MNT/f\""));
	cr_assert(strstr(out, "the store enforces it"), "%s", out);
	answer = s3_ask(&m, "hold f $(getfattr --only-values -n user.varve.version_id \"$MNT/.versions/f/-3\")");
	cr_assert_str_eq(answer, "ON");
	free(answer);
	answer = s3_ask(&m, "retention f $(getfattr --only-values -n user.varve.version_id \"$MNT/.versions/f/-2\")");
	cr_assert_eq(strncmp(answer, "GOVERNANCE 20", 13), 0, "%s", answer);
	free(answer);
	OK(shell("\"$VARVE\" hold --release --version -3 \"$MNT/f\""));
	mounted_settle(&m, 30);
	answer = s3_ask(&m, "hold f $(getfattr --only-values -n user.varve.version_id \"$MNT/.versions/f/-3\")");
	cr_assert_str_eq(answer, "OFF");
	free(answer);
	end_clean();
}

/* A relocated copy is as safe as the first one. */
Test(keeping, a_hold_follows_a_rename_and_a_hold_before_the_upload_is_not_lost)
{
	char *answer;

	locking_bucket();
	OK(shell("echo one >\"$MNT/f\" && \"$VARVE\" hold \"$MNT/f\""));
	OK(shell("mv \"$MNT/f\" \"$MNT/g\""));
	mounted_settle(&m, 30);
	SAYS("getfattr --only-values -n user.varve.protected_by \"$MNT/g\"", "store");
	answer = s3_ask(&m, "hold g $(getfattr --only-values -n user.varve.version_id \"$MNT/g\")");
	cr_assert_str_eq(answer, "ON");
	free(answer);
	end_clean();
}

/* Somebody else locked it: the store wins, and the version is listed as before. */
Test(keeping, a_refused_removal_is_taken_back)
{
	char command[600], *id;

	locking_bucket();
	write_versions("f", 3);
	mounted_settle(&m, 30);
	OK(shell("getfattr --only-values -n user.varve.version_id \"$MNT/.versions/f/-3\""));
	id = strdup(out);
	snprintf(command, sizeof(command), "lock f %s", id);
	s3_do(&m, command);
	OK(shell("\"$VARVE\" prune --keep-last 1 --json \"$MNT/f\" | tail -1 | grep '\"removed\":2'"));
	mounted_settle(&m, 30);
	SAYS("cat \"$MNT\"/.versions/f/*", "f 1f 3");
	free(id);
	end_clean();
}

Test(keeping, bad_words_are_refused_in_one_line)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, "");
	file_puts(at("f"), "x");
	cr_assert_eq(shell("\"$VARVE\" prune \"$MNT/f\" 2>&1"), 2);
	cr_assert_eq(shell("\"$VARVE\" prune --keep-last 0 --keep-within 0d \"$MNT/f\" 2>&1"), 2);
	cr_assert(strstr(out, "nothing would be kept"), "%s", out);
	cr_assert_eq(shell("\"$VARVE\" prune --keep-last x \"$MNT/f\" 2>&1"), 2);
	cr_assert_eq(shell("\"$VARVE\" prune --keep-within 3w \"$MNT/f\" 2>&1"), 2);
	cr_assert_eq(shell("\"$VARVE\" prune --keep-last 1 / 2>&1"), 1);
	cr_assert(strstr(out, "not on a varve mount"), "%s", out);
	cr_assert_eq(shell("\"$VARVE\" prune --keep-last 1 \"$MNT/none/of/it\" 2>&1"), 1);
	cr_assert(strstr(out, "No such file"), "%s", out);
	cr_assert_eq(shell("\"$VARVE\" hold \"$MNT\" 2>&1"), 1);
	cr_assert(strstr(out, "say -r"), "%s", out);
	cr_assert_eq(shell("\"$VARVE\" retain \"$MNT/f\" 2>&1"), 2);
	cr_assert_eq(shell("\"$VARVE\" retain --until 2001-01-01 \"$MNT/f\" 2>&1"), 2);
	OK(shell("\"$VARVE\" hold -r \"$MNT\" 2>&1"));
	end_clean();
}
