/*
 * takeover.c - two machines and one bucket: who holds it, what the one who lost it may still do, and what becomes of
 * what it never sent.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

static struct mounted one, two;
static char out[8192];

static void leave(void)
{
	if (two.root[0])
		mounted_free(&two);
	mounted_free(&one);
}

TestSuite(takeover, .fini = leave, .timeout = 300);

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static int shell(const struct mounted *mounted, const char *command)
{
	return mounted_text(mounted, command, out, sizeof(out));
}

#define SAYS(mounted, command, text)                                                                                   \
	do {                                                                                                           \
		int status_ = shell(mounted, command);                                                                 \
		cr_assert_str_eq(out, text, "%s (%d): %s", command, status_, out);                                     \
	} while (0)

/* A second machine: everything of its own but the store. */
static void second_machine(void)
{
	mounted_new(&two, MOUNTED_LOCAL);
	two.store = one.store;
	memcpy(two.url, one.url, sizeof(two.url));
	memcpy(two.bucket, one.bucket, sizeof(two.bucket));
}

static enum mounted_store both[] = {MOUNTED_LOCAL, MOUNTED_S3};

#define ON_BOTH(name)                                                                                                  \
	ParameterizedTestParameters(takeover, name)                                                                    \
	{                                                                                                              \
		return cr_make_param_array(enum mounted_store, both, 2);                                               \
	}                                                                                                              \
	ParameterizedTest(enum mounted_store *store, takeover, name, .timeout = 300, .fini = leave)

/* One writes, the other writes, the first comes back: it sees what the second did, and the second's history. */
ON_BOTH(machines_take_turns)
{
	mounted_new(&one, *store);
	mounted_start(&one, NULL);
	OK(shell(&one, "cd \"$MNT\" && echo one >f && mkdir d && echo x >d/x && chmod 640 f"));
	cr_assert_eq(mounted_stop(&one), 0);
	second_machine();
	mounted_start(&two, NULL);
	SAYS(&two, "cd \"$MNT\" && cat f d/x && stat -c %a f", "one\nx\n640");
	OK(shell(&two, "cd \"$MNT\" && echo two >f && mv d e && chmod 600 f"));
	cr_assert_eq(mounted_stop(&two), 0);
	mounted_start(&one, NULL);
	SAYS(&one, "cd \"$MNT\" && ls && cat f e/x .versions/f/* && stat -c %a f", "e\nf\ntwo\nx\none\ntwo\n600");
	SAYS(&one, "ls \"$STATE\"", "cache\ncatalog\ntmp");
	OK(shell(&one, "echo three >\"$MNT/f\""));
	cr_assert_eq(mounted_stop(&one), 0);
	mounted_start(&two, NULL);
	SAYS(&two, "cd \"$MNT\" && cat .versions/f/*", "one\ntwo\nthree");
	cr_assert_eq(mounted_stop(&two), 0);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
	OK(shell(&two, "\"$VARVE\" fsck \"$STATE\""));
}

/* What was closed and never sent is kept as files, whole, though the store has gone on. */
Test(takeover, what_was_never_sent_is_saved)
{
	struct proxy proxy;
	char options[128];

	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_new(&one, MOUNTED_S3);
	mounted_start(&one, options);
	OK(shell(&one, "mkdir \"$MNT/d\" && head -c 20000000 /dev/zero >\"$MNT/d/big\" && echo stored >\"$MNT/f\""));
	mounted_settle(&one, 60);
	proxy_cut(&proxy);
	OK(shell(&one,
		 "cd \"$MNT\" && echo unsent >f && mv f g && printf Z | dd of=d/big conv=notrunc bs=1 seek=7 2>&1"));
	mounted_kill(&one);
	second_machine();
	mounted_start(&two, "takeover");
	SAYS(&two, "cat \"$MNT/f\"", "stored");
	OK(shell(&two, "echo newer >\"$MNT/f\""));
	cr_assert_eq(mounted_stop(&two), 0);
	proxy_restore(&proxy);
	mounted_start(&one, options);
	SAYS(&one, "cat \"$MNT/f\"", "newer");
	SAYS(&one,
	     "cd \"$STATE\"/unsent/*/ && cat g~* && stat -c %s d/big~* && head -c 9 d/big~* | od -An -c | tr -d ' '",
	     "unsent\n20000000\n\\0\\0\\0\\0\\0\\0\\0Z\\0");
	SAYS(&one, "cut -f1,2 \"$STATE\"/unsent/*/CHANGES | tr '\t' '>'", "f>g");
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
}

Test(takeover, a_living_holder_is_only_robbed_when_told_so)
{
	char line[1024];

	mounted_new(&one, MOUNTED_S3);
	mounted_start(&one, NULL);
	OK(shell(&one, "echo one >\"$MNT/f\""));
	mounted_settle(&one, 30);
	second_machine();
	cr_assert_neq(mounted_start_fails(&two, NULL, line, sizeof(line)), 0);
	mounted_start(&two, "takeover");
	SAYS(&two, "cat \"$MNT/f\"", "one");
	cr_assert_eq(mounted_stop(&two), 0);
	mounted_kill(&one);
}

#define AWAITED(mounted, command, text)                                                                                \
	do {                                                                                                           \
		for (int tries_ = 0; tries_ < 300; tries_++) {                                                         \
			if (shell(mounted, command) == 0 && strcmp(out, text) == 0)                                    \
				break;                                                                                 \
			usleep(100000);                                                                                \
		}                                                                                                      \
		SAYS(mounted, command, text);                                                                          \
	} while (0)

/* Somebody who only looks, elsewhere, beside the one who writes: sees the same files and the same past, follows what
 * changes, and leaves no trace in the store. */
ON_BOTH(a_read_only_mount_works_beside_the_writer)
{
	char *versions;

	mounted_new(&one, *store);
	mounted_start(&one, NULL);
	OK(shell(&one,
		 "cd \"$MNT\" && mkdir -p d/sub && echo 1 >d/f && echo 2 >d/f && echo g >d/sub/g && ln -s f d/s && "
		 "chmod 600 d/f && echo gone >gone && rm gone"));
	mounted_settle(&one, 30);
	OK(shell(&one, "sync -f \"$MNT\"; sleep 6")); /* a segment of the log is due */
	second_machine();
	mounted_start(&two, "ro,sweep=1");
	SAYS(&two,
	     "cd \"$MNT\" && cat d/f d/sub/g && readlink d/s && stat -c %a d/f && cat .versions/gone/-1 && "
	     "echo x 2>/dev/null >d/new || echo refused",
	     "2\ng\nf\n600\ngone\nrefused");
	OK(shell(&one, "ls \"$MNT/d/.versions/f\""));
	versions = strdup(out);
	SAYS(&two, "ls \"$MNT/d/.versions/f\"", versions);
	free(versions);

	OK(shell(&one, "cd \"$MNT\" && echo 3 >d/f && mv d/sub e && mkdir empty && echo new >new"));
	AWAITED(&two, "cd \"$MNT\" && ls . d && cat d/f e/g new", ".:\nd\ne\nempty\nnew\n\nd:\nf\ns\n3\ng\nnew");
	OK(shell(&one, "ls \"$MNT/d/.versions/f\""));
	versions = strdup(out);
	AWAITED(&two, "ls \"$MNT/d/.versions/f\"", versions);
	free(versions);
	OK(shell(&one, "rm -r \"$MNT/e\""));
	AWAITED(&two, "ls \"$MNT\"", "d\nempty\nnew");
	cr_assert_eq(mounted_status(&two, "store.bytes_sent"), 0);
	cr_assert_eq(mounted_stop(&two), 0);
	OK(shell(&one, "\"$VARVE\" status \"$MNT\" --json | grep -q '\"held\":true'"));
	SAYS(&one, "cat \"$MNT/d/f\"", "3");
	cr_assert_eq(mounted_stop(&one), 0);
}

#define PICTURE                                                                                                        \
	"cd \"$MNT\" && find . -printf '%p %y %m %U %G %s %T@ %l %n\\n' | grep -v '^[.] ' | sort && "                  \
	"find . -type f -exec sha256sum {} + | sort && getfattr -d -m - -R . 2>/dev/null | sort && "                   \
	"for d in . d d/e; do ls \"$d/.versions\"; for n in $(ls \"$d/.versions\"); do ls \"$d/.versions/$n\"; done; " \
	"done"

/* The first machine stands still while the second takes over and writes; then it goes on, and what it sends is late. */
Test(takeover, a_late_writer_overwrites_nothing_and_loses_nothing)
{
	struct proxy proxy;
	char options[128], *body;

	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_new(&one, MOUNTED_S3);
	mounted_start(&one, options);
	file_puts(mounted_path(&one, "f"), "stored");
	mounted_settle(&one, 30);
	proxy_cut(&proxy);
	file_puts(mounted_path(&one, "f"), "late");
	OK(shell(&one, "ls \"$MNT/.versions/f\" >/dev/null")); /* it is a version now, and in the journal */
	OK(kill(one.pid, SIGSTOP));
	second_machine();
	mounted_start(&two, "takeover");
	file_puts(mounted_path(&two, "f"), "newer");
	mounted_settle(&two, 30);
	proxy_restore(&proxy);
	OK(kill(one.pid, SIGCONT));
	/* It finds its lease lost, or the object another's: both end its attempts. */
	for (int tries = 0; tries < 300 && !mounted_status(&one, "writeback.conflicts"); tries++) {
		if (shell(&one, "\"$VARVE\" status \"$MNT\" --json | grep -o '\"lost\":true'") == 0)
			break;
		usleep(100000);
	}
	body = s3_ask(&two, "get f");
	cr_assert_str_eq(body, "newer");
	free(body);
	SAYS(&two, "cat \"$MNT/f\"", "newer");
	cr_assert_eq(mounted_stop(&two), 0);
	mounted_kill(&one);
	mounted_start(&one, options);
	SAYS(&one, "cat \"$MNT/f\"", "newer");
	/* In the state directory if it was never sent, else in the bucket beside the file. */
	if (shell(&one, "cat \"$STATE\"/unsent/*/f~*")) {
		body = s3_ask(&one, "reserved | grep '^.varve/versions/' | while read -r k; do "
				    "\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" get \"$k\"; done");
		cr_assert(strstr(body, "late"), "%s", body);
		free(body);
	} else {
		cr_assert_str_eq(out, "late");
	}
	cr_assert_eq(mounted_stop(&one), 0);
}

/* Everything is as it was: from what varve keeps in the store, in a state directory that never saw it. */
ON_BOTH(a_rebuilt_catalog_is_the_one_that_was_lost)
{
	char *before;

	mounted_new(&one, *store);
	mounted_start(&one, NULL);
	OK(shell(
		&one,
		"cd \"$MNT\" && mkdir -p d/e && for i in 1 2 3; do echo $i >f; echo x$i >d/x; echo y$i >d/e/y; done && "
		"ln d/x d/link && ln -s d/x s && mv f g && chmod 600 g && touch -d 2001-02-03T04:05:06.789 d/x && "
		"setfattr -n user.note -v kept d/e/y && chmod 750 d/e && mkdir empty && rm d/e/y && echo again "
		">d/e/y"));
	mounted_settle(&one, 30);
	OK(shell(&one, PICTURE));
	before = strdup(out);
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one,
		 "rm -rf \"$STATE\" && o=; [ -z \"$VARVE_TEST_S3_ENDPOINT\" ] || o=endpoint=$VARVE_TEST_S3_ENDPOINT; "
		 "\"$VARVE\" rebuild \"$URL\" --state \"$STATE\" ${o:+-o $o} 2>&1"));
	cr_assert(strstr(out, "4 directories, 5 files"), "%s", out);
	cr_assert_neq(shell(&one, "\"$VARVE\" rebuild \"$URL\" --state \"$STATE\" 2>&1"), 0);
	cr_assert(strstr(out, "has a catalog already"), "%s", out);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
	mounted_start(&one, NULL);
	OK(shell(&one, PICTURE));
	cr_assert_str_eq(out, before);
	free(before);
	cr_assert_eq(mounted_stop(&one), 0);
}

/* As much of it as objects can say: what changed after they were put is in the log alone. A hard link's past is that of
 * its file. */
#define SHAPE                                                                                                          \
	"cd \"$MNT\" && find . -not -type d -printf '%p %y %m %U %G %s %T@ %l %n\\n' | sort && "                       \
	"find . -type d -printf '%p %m\\n' | sort && find . -type f -exec sha256sum {} + | sort && "                   \
	"for d in . d d/e; do ls \"$d/.versions\"; done && for n in .versions/f d/.versions/gone d/.versions/x "       \
	"d/.versions/nothing d/e/.versions/y; do echo $n; ls $n; cat $n/*; done"

#define LOSE_CATALOG                                                                                                   \
	"rm -rf \"$STATE\" && case $URL in file:*) rm -rf \"${URL#file://}/.varve/catalog\" ;; "                       \
	"*) s3=\"$VARVE_TEST_SOURCE/tests/support/s3.py\" && \"$s3\" \"$BUCKET\" reserved | "                          \
	"grep ^.varve/catalog/ | while read -r k; do \"$s3\" \"$BUCKET\" delete \"$k\" || exit 1; done ;; esac"

static void rebuild_from_listing(const struct mounted *mounted)
{
	OK(shell(mounted, LOSE_CATALOG
		 " && o=; [ -z \"$VARVE_TEST_S3_ENDPOINT\" ] || o=endpoint=$VARVE_TEST_S3_ENDPOINT; "
		 "\"$VARVE\" rebuild \"$URL\" --state \"$STATE\" ${o:+-o $o} 2>&1 && \"$VARVE\" fsck \"$STATE\""));
}

/* The log is lost, too: what the objects tell is enough for names, hard links, attributes, and every version by its
 * name. */
#define SUMS "cd \"$MNT\" && getfattr -n user.varve.checksum f d/x d/e/y .versions/f/*"

ON_BOTH(a_catalog_rebuilt_from_the_listing_alone_lacks_nothing_that_objects_tell)
{
	char *before;

	mounted_new(&one, *store);
	mounted_start(&one, NULL);
	OK(shell(&one, "cd \"$MNT\" && mkdir -p a d/e && for i in 1 2 3; do (umask 077; echo $i >f); "
		       "echo x$i >d/x; "
		       "echo y$i >d/e/y; done && ln d/x a/first && ln d/x d/link && ln -s d/x s && mkdir empty && echo "
		       "1 >d/gone && "
		       "echo 2 >d/gone && sync d/gone && rm d/gone && : >d/nothing && mkdir -p p/q && echo f >p/f && "
		       "echo g >p/q/g && "
		       "sync p/f p/q/g && rm -r p"));
	mounted_settle(&one, 30);
	OK(shell(&one, SHAPE));
	before = strdup(out);
	OK(shell(&one, SUMS " >\"$ROOT/sums\" && test -s \"$ROOT/sums\""));
	cr_assert_eq(mounted_stop(&one), 0);
	rebuild_from_listing(&one);
	mounted_start(&one, NULL);
	OK(shell(&one, SHAPE));
	cr_assert_str_eq(out, before);
	free(before);
	OK(shell(&one, SUMS " | diff \"$ROOT/sums\" -"));
	SAYS(&one, "cd \"$MNT\" && cat .versions/+deleted/p/f .versions/+deleted/p/q/g", "f\ng");
	SAYS(&one, "cd \"$MNT\" && echo through >>a/first && cat d/link && [ a/first -ef d/x ] && rm d/x && cat d/link",
	     "x3\nthrough\nx3\nthrough");
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
}

#define CONFLICTS                                                                                                      \
	"cd \"$MNT\" && cat f && for v in .versions/f/*; do "                                                          \
	"[ \"$(getfattr --only-values -n user.varve.origin $v)\" != conflict ] || cat $v; done"

static enum mounted_store buckets[] = {MOUNTED_S3, MOUNTED_S3_UNVERSIONED};

ParameterizedTestParameters(takeover, what_lies_beside_its_file_is_found_by_a_rebuild)
{
	return cr_make_param_array(enum mounted_store, buckets, 2);
}

/* A conflict, and, where the bucket keeps no versions, everything older than the current object. */
ParameterizedTest(enum mounted_store *store, takeover, what_lies_beside_its_file_is_found_by_a_rebuild, .timeout = 300,
		  .fini = leave)
{
	struct proxy proxy;
	char options[128], *before;

	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_new(&one, *store);
	mounted_start(&one, options);
	OK(shell(&one, "cd \"$MNT\" && echo base >f && echo 1 >g && sync g && echo 2 >g && sync g && echo 3 >g"));
	mounted_settle(&one, 30);
	proxy_cut(&proxy);
	OK(shell(&one, "echo ours >\"$MNT/f\" && ls \"$MNT/.versions/f\" >/dev/null"));
	s3_do(&one, "put f <<'E'\ntheirs\nE");
	proxy_restore(&proxy);
	mounted_settle(&one, 60);
	for (int tries = 0; tries < 300 && !mounted_status(&one, "writeback.conflicts"); tries++)
		usleep(100000);
	SAYS(&one, CONFLICTS, "theirs\nours");
	OK(shell(&one, "ls \"$MNT/.versions/g\" && cat \"$MNT\"/.versions/g/*"));
	before = strdup(out);
	cr_assert_eq(mounted_stop(&one), 0);
	rebuild_from_listing(&one);
	mounted_start(&one, NULL);
	/* What others wrote over in a bucket without versions was all that told whose the conflict was. */
	SAYS(&one, CONFLICTS, *store == MOUNTED_S3 ? "theirs\nours" : "theirs");
	SAYS(&one, "ls \"$MNT/.versions/g\" && cat \"$MNT\"/.versions/g/*", before);
	free(before);
	cr_assert_eq(mounted_stop(&one), 0);
}

/* Without a rebuild hard links are found as people look around, in whatever order. */
ON_BOTH(hard_links_are_found_by_looking_around)
{
	mounted_new(&one, *store);
	mounted_start(&one, NULL);
	OK(shell(&one, "cd \"$MNT\" && mkdir a d && echo x >d/x && ln d/x a/first && ln d/x d/link"));
	mounted_settle(&one, 30);
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, LOSE_CATALOG));
	mounted_start(&one, NULL);
	SAYS(&one, "cd \"$MNT\" && stat -c %s a/first && stat -c %s d/x", "0\n2"); /* nobody knew whose name it is */
	SAYS(&one,
	     "cd \"$MNT\" && cat a/first d/link && [ a/first -ef d/x ] && [ d/link -ef d/x ] && stat -c %h a/first",
	     "x\nx\n3");
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
}
