/*
 * outside.c - others change the store behind the mount: what they made, replaced, removed or expired is seen without
 * mounting again, what they removed is never shown as something else, and where they and we changed the same, both
 * stay.
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

#include "support/mounted.h"
#include "support/network.h"

static struct mounted m;
static struct proxy proxy;

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	if (m.root[0])
		cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	mounted_free(&m);
	if (proxy.name[0])
		proxy_free(&proxy);
	proxy = (struct proxy){0};
}

TestSuite(outside, .fini = teardown, .timeout = 300);

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

/* What happens in the background is waited for, long enough for a busy machine. */
#define SOON(condition)                                                                                                \
	do {                                                                                                           \
		int tries_ = 0;                                                                                        \
		while (!(condition) && ++tries_ < 600)                                                                 \
			usleep(100000);                                                                                \
		cr_assert_lt(tries_, 600, "never: %s", #condition);                                                    \
	} while (0)

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

static void new_store(enum mounted_store store)
{
	mounted_new(&m, store);
	if (store == MOUNTED_S3)
		s3_do(&m, "make versioned");
}

/* Through a proxy that can be cut, where there is a network. */
static void start_through_proxy(const char *more)
{
	char options[200];

	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s,%s", proxy.endpoint, more);
	mounted_start(&m, options);
}

/* --- another program at the same store ------------------------------------------------------------------ */

static void other_puts(const char *key, const char *text)
{
	char words[600];

	if (m.store != MOUNTED_LOCAL) {
		snprintf(words, sizeof(words), "put %s <<'E'\n%s\nE", key, text);
		s3_do(&m, words);
		return;
	}
	snprintf(words, sizeof(words),
		 "f=\"$ROOT/store/%s\"; mkdir -p \"${f%%/*}\" && printf '%%s\\n' '%s' >\"$f.new\" && mv \"$f.new\" "
		 "\"$f\"",
		 key, text);
	OK(mounted_shell(&m, words, NULL, 0));
}

static void other_deletes(const char *key)
{
	char words[600];

	if (m.store != MOUNTED_LOCAL) {
		snprintf(words, sizeof(words), "delete %s", key);
		s3_do(&m, words);
		return;
	}
	snprintf(words, sizeof(words), "rm \"$ROOT/store/%s\"", key);
	OK(mounted_shell(&m, words, NULL, 0));
}

/* The id of the n-th of the key's versions, oldest first, from 0. */
static void version_id(const char *key, int n, char ret_id[static 128])
{
	char words[400], *lines, *line, *save = NULL;

	snprintf(words, sizeof(words), "versions %s", key);
	lines = s3_ask(&m, words);
	line = strtok_r(lines, "\n", &save);
	while (line && n-- > 0)
		line = strtok_r(NULL, "\n", &save);
	cr_assert(line, "%s has no such version", key);
	cr_assert_eq(sscanf(line, "%127s", ret_id), 1);
	free(lines);
}

static void other_deletes_version(const char *key, int n)
{
	char id[128], words[600];

	version_id(key, n, id);
	snprintf(words, sizeof(words), "delete %s '%s'", key, id);
	s3_do(&m, words);
}

static bool object_is(const char *key, const char *text)
{
	char words[300], *body;
	bool is;

	snprintf(words, sizeof(words), "get %s", key);
	body = s3_ask(&m, words);
	is = strcmp(body, text) == 0;
	free(body);
	return is;
}

/* --- what the mount shows --------------------------------------------------------------------------------- */

static bool shows(const char *path, const char *text)
{
	char line[600];

	snprintf(line, sizeof(line), "%s\n", text);
	return file_is(at(path), line, strlen(line));
}

static bool is_absent(const char *path)
{
	struct stat st;

	return stat(at(path), &st) != 0 && errno == ENOENT;
}

static int count_names(const char *path)
{
	char *names = dir_names(at(path));
	int count = names[0] != '\0';

	for (const char *c = names; *c; c++)
		count += *c == '\n';
	free(names);
	return count;
}

/* The path of the n-th entry of a name's history, oldest first, from 0. */
static void entry_path(const char *name, int n, char ret_path[static 400])
{
	char path[300], *names, *line, *save = NULL;

	snprintf(path, sizeof(path), ".versions/%s", name);
	names = dir_names(at(path));
	line = strtok_r(names, "\n", &save);
	while (line && n-- > 0)
		line = strtok_r(NULL, "\n", &save);
	cr_assert(line, "%s has no such entry", name);
	snprintf(ret_path, 400, "%s/%s", path, line);
	free(names);
}

static int count_in_log(const char *text)
{
	char command[400], answer[32];

	snprintf(command, sizeof(command), "grep -c '%s' \"$ROOT/varve.log\"", text);
	(void)mounted_shell(&m, command, answer, sizeof(answer));
	return (int)strtol(answer, NULL, 10);
}

static void write_line(const char *path, const char *text)
{
	char line[600];

	snprintf(line, sizeof(line), "%s\n", text);
	file_puts(at(path), line);
}

/* Versions of origin `conflict` that hold the text. */
static int count_conflicts(const char *name, const char *text)
{
	char dir[300], path[700], value[64];
	char *names, *save = NULL;
	int found = 0;

	snprintf(dir, sizeof(dir), ".versions/%s", name);
	names = dir_names(at(dir));
	for (char *line = strtok_r(names, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, line);
		n = getxattr(at(path), "user.varve.origin", value, sizeof(value) - 1);
		cr_assert_gt(n, 0, "%s: %s", path, strerror(errno));
		value[n] = '\0';
		found += strcmp(value, "conflict") == 0 && shows(path, text);
	}
	free(names);
	return found;
}

/* --- versions that vanish ---------------------------------------------------------------------------------- */

Test(outside, a_version_that_others_removed_is_gone_and_the_others_stay)
{
	char first[400], second[400], third[400];
	int fd;

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=0");
	write_line("f", "one");
	mounted_settle(&m, 30);
	write_line("f", "two");
	mounted_settle(&m, 30);
	write_line("f", "three");
	mounted_settle(&m, 30);
	entry_path("f", 0, first);
	entry_path("f", 1, second);
	entry_path("f", 2, third);
	cr_assert_eq(count_names(".versions/f"), 3);
	other_deletes_version("f", 1);
	fd = open(at(second), O_RDONLY);
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	cr_assert_lt(read(fd, (char[16]){0}, 16), 0);
	cr_assert_eq(errno, ENOENT, "%s", strerror(errno));
	OK(close(fd));
	cr_assert_lt(open(at(second), O_RDONLY), 0, "it was opened again");
	cr_assert_eq(count_names(".versions/f"), 2);
	cr_assert(shows(first, "one") && shows(third, "three") && shows("f", "three"));
	cr_assert_eq(count_in_log("no longer has f"), 1);
	cr_assert_eq(mounted_status(&m, "others.expired"), 1);
}

Test(outside, a_live_file_whose_object_vanished_is_told_from_the_one_that_is_there_now)
{
	int fd;

	new_store(MOUNTED_S3);
	other_puts("f", "one");
	other_puts("f", "two");
	mounted_start(&m, "sweep=0");
	fd = open(at("f"), O_RDONLY);
	cr_assert_geq(fd, 0);
	other_deletes_version("f", 1); /* the store shows "one" again */
	cr_assert_lt(read(fd, (char[16]){0}, 16), 0);
	cr_assert_eq(errno, ESTALE, "%s", strerror(errno));
	OK(close(fd));
	SOON(shows("f", "one"));
	other_deletes("f");
}

Test(outside, a_version_known_without_its_id_is_found_beneath_what_replaced_it)
{
	char path[400];

	new_store(MOUNTED_S3);
	other_puts("f", "one");
	mounted_start(&m, "sweep=1");
	OK(access(at("f"), F_OK)); /* known from a listing, which tells no ids */
	other_puts("f", "two");
	SOON(shows("f", "two"));
	SOON(mounted_status(&m, "others.sweeps") > 2);
	cr_assert_eq(mounted_status(&m, "others.expired"), 0);
	cr_assert_eq(count_names(".versions/f"), 2);
	entry_path("f", 0, path);
	cr_assert(shows(path, "one"));
}

Test(outside, an_object_replaced_without_versions_is_not_mixed_with_the_new_one)
{
	int fd;

	new_store(MOUNTED_S3_UNVERSIONED);
	other_puts("f", "one");
	mounted_start(&m, "sweep=0");
	fd = open(at("f"), O_RDONLY);
	cr_assert_geq(fd, 0);
	other_puts("f", "two");
	cr_assert_lt(read(fd, (char[16]){0}, 16), 0);
	cr_assert_eq(errno, ESTALE, "%s", strerror(errno));
	OK(close(fd));
	SOON(shows("f", "two"));
}

/* --- the sweep ---------------------------------------------------------------------------------------------- */

static void sweep_finds_what_others_did(enum mounted_store store)
{
	struct stat st;

	new_store(store);
	mounted_start(&m, "sweep=1");
	OK(mkdir(at("d"), 0755));
	write_line("d/kept", "kept");
	write_line("d/replaced", "ours");
	write_line("d/removed", "removed");
	OK(symlink("kept", at("d/link")));
	mounted_settle(&m, 30);
	cr_assert(is_absent("d/new") && is_absent("d/sub"));
	OK(lstat(at("d/link"), &st));
	cr_assert(shows("d/replaced", "ours") && shows("d/removed", "removed"));

	other_puts("d/new", "new");
	other_puts("d/replaced", "theirs");
	other_puts("d/sub/deep", "deep");
	other_deletes("d/removed");
	other_deletes("d/link");
	SOON(is_absent("d/removed"));
	SOON(is_absent("d/link"));
	SOON(shows("d/new", "new"));
	SOON(shows("d/replaced", "theirs"));
	SOON(shows("d/sub/deep", "deep"));
	cr_assert(shows("d/kept", "kept"));
	if (store == MOUNTED_S3)
		cr_assert_eq(count_names("d/.versions/replaced"), 2);
	cr_assert_gt(mounted_status(&m, "others.sweeps"), 0);
	cr_assert_gt(mounted_status(&m, "others.seen"), 0);
	cr_assert_eq(mounted_status(&m, "others.broken_off"), 0);
}

Test(outside, the_sweep_finds_what_others_did_in_a_versioned_bucket)
{
	sweep_finds_what_others_did(MOUNTED_S3);
}

Test(outside, the_sweep_finds_what_others_did_in_a_plain_bucket)
{
	sweep_finds_what_others_did(MOUNTED_S3_UNVERSIONED);
}

Test(outside, the_sweep_finds_what_others_did_in_a_directory)
{
	sweep_finds_what_others_did(MOUNTED_LOCAL);
}

/* Asked for, it tells what it found, and only what is news. */
Test(outside, a_sweep_on_demand_tells_what_it_found)
{
	char answer[500];

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=0");
	OK(mkdir(at("d"), 0755));
	write_line("d/kept", "kept");
	write_line("d/removed", "removed");
	mounted_settle(&m, 30);
	cr_assert(is_absent("d/new"));
	other_puts("d/new", "new");
	other_deletes("d/removed");
	OK(mounted_shell(&m, "\"$VARVE\" sweep --json \"$MNT\"", answer, sizeof(answer)));
	cr_assert(strstr(answer, "\"listed\":1,"), "%s", answer);
	cr_assert(strstr(answer, "\"complete\":true"), "%s", answer);
	cr_assert(shows("d/new", "new") && is_absent("d/removed"), "it is done when the verb ends");
	OK(mounted_shell(&m, "\"$VARVE\" sweep \"$MNT/d\"", answer, sizeof(answer)));
	cr_assert(strstr(answer, "\n0 directories differed"), "%s", answer);
	cr_assert_eq(mounted_status(&m, "others.sweeps"), 2);
	cr_assert_neq(mounted_shell(&m, "\"$VARVE\" sweep /", NULL, 0), 0);
	cr_assert_neq(mounted_shell(&m, "\"$VARVE\" sweep", NULL, 0), 0);
}

Test(outside, the_sweep_expires_what_lifecycle_rules_took)
{
	char last[400];

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	for (int i = 0; i < 4; i++) {
		write_line("f", (char[]){(char)('0' + i), '\0'});
		mounted_settle(&m, 30);
	}
	write_line("g", "stays");
	mounted_settle(&m, 30);
	cr_assert_eq(count_names(".versions/f"), 4);
	other_deletes_version("f", 0);
	other_deletes_version("f", 0);
	SOON(mounted_status(&m, "others.expired") == 2);
	cr_assert_eq(count_names(".versions/f"), 2);
	entry_path("f", 0, last);
	cr_assert(shows(last, "2") && shows("f", "3") && shows("g", "stays"));
	cr_assert_eq(count_names(".versions/g"), 1);
}

Test(outside, a_sweep_that_breaks_off_expires_nothing)
{
	int64_t broken;

	new_store(MOUNTED_S3);
	start_through_proxy("sweep=1");
	write_line("f", "one");
	mounted_settle(&m, 30);
	write_line("f", "two");
	mounted_settle(&m, 30);
	SOON(mounted_status(&m, "others.sweeps") > 0);
	proxy_toxic(&proxy, "limit_data", "\"bytes\":3000"); /* listings come in part */
	broken = mounted_status(&m, "store.errors");
	SOON(mounted_status(&m, "store.errors") > broken);
	cr_assert_eq(mounted_status(&m, "others.expired"), 0);
	proxy_clear(&proxy);
	broken = mounted_status(&m, "others.sweeps");
	SOON(mounted_status(&m, "others.sweeps") > broken);
	cr_assert_eq(mounted_status(&m, "others.expired"), 0);
	cr_assert_eq(count_names(".versions/f"), 2);
}

Test(outside, what_others_removed_before_our_own_removal_is_nowhere)
{
	new_store(MOUNTED_S3_UNVERSIONED);
	start_through_proxy("sweep=0");
	write_line("f", "one");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	OK(unlink(at("f")));
	other_deletes("f");
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	cr_assert_eq(count_names(".versions/f"), 0);
}

/* --- what they take from a file with several names, or one on its way to another --------------------------------- */

static void sweep(void)
{
	OK(mounted_shell(&m, "\"$VARVE\" sweep \"$MNT\" >&2", NULL, 0));
	mounted_settle(&m, 30);
}

/* The content lies at the oldest name's key, and is not theirs to take from the others. */
static void first_name_taken(enum mounted_store store, void (*takes)(const char *key))
{
	new_store(store);
	mounted_start(&m, "sweep=0");
	write_line("a", "shared");
	OK(link(at("a"), at("b")));
	mounted_settle(&m, 30);
	cr_assert(object_is("b", ""));
	takes("a");
	sweep();
}

static void overwrites(const char *key)
{
	other_puts(key, "theirs");
}

Test(outside, the_next_name_is_promoted_when_others_overwrite_the_first)
{
	first_name_taken(MOUNTED_S3, overwrites);
	cr_assert(shows("a", "theirs") && shows("b", "shared"));
	cr_assert(object_is("b", "shared"));
}

Test(outside, the_next_name_is_promoted_when_others_delete_the_first)
{
	first_name_taken(MOUNTED_S3, other_deletes);
	cr_assert(is_absent("a") && shows("b", "shared"));
	cr_assert(object_is("b", "shared"));
}

Test(outside, the_next_name_is_promoted_after_a_conflict_at_the_first)
{
	new_store(MOUNTED_S3);
	start_through_proxy("sweep=0");
	write_line("a", "base");
	OK(link(at("a"), at("b")));
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	write_line("a", "ours");
	other_puts("a", "theirs");
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	sweep();
	cr_assert(shows("a", "theirs") && shows("b", "ours"));
	cr_assert(object_is("b", "ours"));
}

/* What others put at a name while a file of ours is on its way to it is the file, as where a change of ours is. */
static void name_taken_meanwhile(enum mounted_store store)
{
	new_store(store);
	start_through_proxy("sweep=0");
	write_line("f", "ours");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	OK(rename(at("f"), at("g")));
	cr_assert(shows("g", "ours"));
	other_puts("g", "theirs");
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	SOON(shows("g", "theirs"));
	cr_assert(object_is("g", "theirs"));
	cr_assert(is_absent("f"));
	cr_assert_eq(count_conflicts("g", "ours"), 1);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 1);
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, "sweep=0");
	cr_assert(shows("g", "theirs") && is_absent("f"));
	cr_assert_eq(count_conflicts("g", "ours"), 1);
}

Test(outside, a_name_that_others_took_before_a_rename_was_done_is_theirs_in_a_versioned_bucket)
{
	name_taken_meanwhile(MOUNTED_S3);
}

Test(outside, a_name_that_others_took_before_a_rename_was_done_is_theirs_in_a_plain_bucket)
{
	name_taken_meanwhile(MOUNTED_S3_UNVERSIONED);
}

/* Nor is it written over by what has no content of its own: a symlink, a file's further name, a directory's marker. */
static void small_name_taken_meanwhile(enum mounted_store store)
{
	new_store(store);
	start_through_proxy("sweep=0");
	write_line("f", "ours");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	OK(symlink("f", at("s")));
	OK(link(at("f"), at("l")));
	OK(mkdir(at("d"), 0755));
	other_puts("s", "their file");
	other_puts("l", "their other file");
	other_puts("d/", "their directory");
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	SOON(shows("s", "their file") && shows("l", "their other file"));
	cr_assert(object_is("s", "their file") && object_is("l", "their other file"));
	cr_assert(object_is("d/", "their directory"));
	cr_assert(shows("f", "ours") && object_is("f", "ours"));
	write_line("d/in", "it");
	mounted_settle(&m, 30);
	cr_assert(object_is("d/in", "it"));
}

Test(outside, what_others_put_at_the_name_of_a_new_symlink_or_link_is_theirs_in_a_versioned_bucket)
{
	small_name_taken_meanwhile(MOUNTED_S3);
}

Test(outside, what_others_put_at_the_name_of_a_new_symlink_or_link_is_theirs_in_a_plain_bucket)
{
	small_name_taken_meanwhile(MOUNTED_S3_UNVERSIONED);
}

/* In a plain bucket it is lost, which must not keep the journal waiting. */
Test(outside, nothing_waits_for_what_others_took_from_a_file_of_two_names)
{
	first_name_taken(MOUNTED_S3_UNVERSIONED, overwrites);
	cr_assert(shows("a", "theirs"));
	cr_assert_eq(mounted_status(&m, "others.expired"), 1);
}

Test(outside, nothing_waits_for_what_others_took_before_it_was_renamed)
{
	new_store(MOUNTED_S3_UNVERSIONED);
	mounted_start(&m, "sweep=0");
	write_line("f", "ours");
	mounted_settle(&m, 30);
	other_puts("f", "theirs");
	OK(rename(at("f"), at("g")));
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_status(&m, "others.expired"), 1);
	sweep();
	cr_assert(shows("f", "theirs"));
}

/* --- names known only from the past -------------------------------------------------------------------------- */

Test(outside, what_others_deleted_before_the_first_mount_is_in_the_past)
{
	char path[400];

	new_store(MOUNTED_S3);
	other_puts("gone", "one");
	other_puts("gone", "two");
	other_deletes("gone");
	other_puts("old/deep/f", "deep");
	other_puts("old/g", "g");
	other_deletes("old/deep/f");
	other_deletes("old/g");
	other_puts("alive", "alive");
	mounted_start(&m, "sweep=0");
	cr_assert_eq(count_names(".versions"), 3); /* alive, gone, old */
	cr_assert_eq(count_names(".versions/gone"), 2);
	entry_path("gone", 0, path);
	cr_assert(shows(path, "one"));
	cr_assert(shows(".versions/+deleted/gone", "two"));
	/* MinIO lists prefixes under which all is deleted, as if something were there. */
	cr_assert(shows(".versions/+deleted/old/g", "g"));
	cr_assert(shows(".versions/+deleted/old/deep/f", "deep"));
	cr_assert(is_absent("gone") && is_absent("old/g") && is_absent("old/deep/f"));
	OK(mounted_shell(&m, "cp \"$MNT/.versions/+deleted/gone\" \"$MNT/gone\"", NULL, 0));
	cr_assert(shows("gone", "two"));
	mounted_settle(&m, 30);
	cr_assert_eq(count_names(".versions/gone"), 3);
}

Test(outside, the_sweep_finds_names_that_came_and_went_between_two_looks)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	cr_assert_eq(count_names(""), 0);
	cr_assert_eq(count_names(".versions"), 0);
	other_puts("brief", "one");
	other_deletes("brief");
	SOON(count_names(".versions") == 1);
	SOON(shows(".versions/+deleted/brief", "one")); /* a pass may have seen it alive */
}

Test(outside, a_directory_that_was_renamed_does_not_come_back)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	OK(mkdir(at("old"), 0755));
	write_line("old/f", "f");
	mounted_settle(&m, 30);
	OK(rename(at("old"), at("new")));
	mounted_settle(&m, 30);
	other_puts("other", "makes the sweep list the root");
	SOON(shows("other", "makes the sweep list the root"));
	cr_assert(is_absent("old"));
	cr_assert(shows("new/f", "f"));
}

/* What nobody has looked into yet must not stay behind, nor be hidden by its new name. */
static void unseen_tree_renamed(enum mounted_store store)
{
	new_store(store);
	other_puts("a/one", "one");
	other_puts("a/b/two", "two");
	other_puts("a/b/c/three", "three");
	other_puts("x/y/four", "four");
	mounted_start(&m, "sweep=0");
	OK(rename(at("a"), at("moved")));
	OK(renameat2(AT_FDCWD, at("moved/b"), AT_FDCWD, at("x"), RENAME_EXCHANGE));
	cr_assert(shows("moved/one", "one") && shows("x/two", "two") && shows("x/c/three", "three"));
	cr_assert(shows("moved/b/y/four", "four"));
	mounted_settle(&m, 30);
	cr_assert(is_absent("a"));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, "sweep=0");
	cr_assert(shows("moved/one", "one") && shows("x/two", "two") && shows("x/c/three", "three"));
	cr_assert(shows("moved/b/y/four", "four") && is_absent("a"));
}

Test(outside, a_tree_that_nobody_has_seen_is_renamed_whole_in_a_bucket)
{
	unseen_tree_renamed(MOUNTED_S3);
}

Test(outside, a_tree_that_nobody_has_seen_is_renamed_whole_in_a_directory)
{
	unseen_tree_renamed(MOUNTED_LOCAL);
}

static void sweeps_twice(void)
{
	int64_t before = mounted_status(&m, "others.sweeps");

	SOON(mounted_status(&m, "others.sweeps") > before + 2);
}

static void emptied_directory_goes(enum mounted_store store)
{
	new_store(store);
	other_puts("d/e/f", "deep");
	other_puts("stays/f", "f");
	mounted_start(&m, "sweep=1");
	cr_assert(shows("d/e/f", "deep") && shows("stays/f", "f"));
	other_deletes("d/e/f");
	SOON(is_absent("d"));
	cr_assert(shows("stays/f", "f"));
}

Test(outside, a_directory_that_others_emptied_goes_in_a_versioned_bucket)
{
	emptied_directory_goes(MOUNTED_S3);
}

Test(outside, a_directory_that_others_emptied_goes_in_a_plain_bucket)
{
	emptied_directory_goes(MOUNTED_S3_UNVERSIONED);
}

/* Directories that we made have objects of their own, which others remove as well: rm --recursive of another tool. */
static void emptied_directory_of_ours_goes(enum mounted_store store)
{
	new_store(store);
	mounted_start(&m, "sweep=1");
	OK(mounted_shell(&m, "cd \"$MNT\" && mkdir -p d/e/empty stays/e && echo deep >d/e/f && echo f >stays/f", NULL,
			 0));
	mounted_settle(&m, 30);
	s3_do(&m, "keys | grep '^d/' | while read -r k; do "
		  "\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" delete \"$k\"; done");
	SOON(is_absent("d"));
	cr_assert(shows("stays/f", "f"));
	OK(access(at("stays/e"), F_OK));
}

Test(outside, a_directory_of_ours_that_others_removed_goes_in_a_versioned_bucket)
{
	emptied_directory_of_ours_goes(MOUNTED_S3);
}

Test(outside, a_directory_of_ours_that_others_removed_goes_in_a_plain_bucket)
{
	emptied_directory_of_ours_goes(MOUNTED_S3_UNVERSIONED);
}

/* MinIO lists nothing beneath a key whose newest version is a delete marker. */
Test(outside, a_file_that_became_a_directory_does_not_vanish)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	write_line("f", "file");
	mounted_settle(&m, 30);
	OK(unlink(at("f")));
	OK(mkdir(at("f"), 0755));
	write_line("f/a", "a");
	write_line("f/b", "b");
	mounted_settle(&m, 30);
	sweeps_twice();
	other_deletes("f/a"); /* one that is gone does not mean that all are */
	other_puts("g", "g");
	SOON(shows("g", "g"));
	sweeps_twice();
	cr_assert(shows("f/b", "b"));
}

Test(outside, what_was_in_a_directory_of_this_name_before_does_not_come_back)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	OK(mkdir(at("d"), 0755));
	OK(mkdir(at("d/sub"), 0755));
	write_line("d/sub/f", "f");
	mounted_settle(&m, 30);
	OK(mounted_shell(&m, "rm -r \"$MNT/d\"", NULL, 0));
	OK(mkdir(at("d"), 0755));
	mounted_settle(&m, 30);
	other_puts("d/new", "new"); /* has d listed */
	SOON(shows("d/new", "new"));
	cr_assert(is_absent("d/sub"));
}

Test(outside, what_moved_on_with_a_directory_does_not_come_back_in_the_next_of_its_name)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=0");
	OK(mkdir(at("d"), 0755));
	OK(mkdir(at("d/sub"), 0755));
	write_line("d/sub/f", "f");
	OK(mkdir(at("d/empty"), 0755));
	mounted_settle(&m, 30);
	OK(rename(at("d"), at("moved")));
	mounted_settle(&m, 30);
	other_puts("d/new", "new");
	OK(mounted_shell(&m, "\"$VARVE\" sweep \"$MNT\"", NULL, 0));
	cr_assert(shows("d/new", "new") && shows("moved/sub/f", "f"));
	cr_assert_eq(count_names("d"), 1);
}

/* Nobody here knows of what was in it; who looks into it sees that there is nothing. */
Test(outside, a_directory_found_empty_at_the_first_look_is_none)
{
	new_store(MOUNTED_S3);
	other_puts("d/stays", "stays");
	other_puts("d/sub/deep/f", "f");
	other_deletes("d/sub/deep/f");
	mounted_start(&m, "sweep=0");
	cr_assert(shows("d/stays", "stays"));
	(void)count_names("d/sub/deep");
	cr_assert(is_absent("d/sub"));
	cr_assert_eq(count_names("d"), 1);
}

Test(outside, times_of_others_objects_are_as_fine_as_the_store_tells_them)
{
	int fine = 0;

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	cr_assert_eq(count_names(""), 0);
	for (char name[] = "a"; name[0] < 'e'; name[0]++) {
		char entry[400];

		other_puts(name, name);
		SOON(shows(name, name));
		entry_path(name, 0, entry);
		fine += strstr(entry, ".000Z") == NULL;
	}
	cr_assert_gt(fine, 0);
}

/* --- suspended versioning --------------------------------------------------------------------------------------- */

Test(outside, a_null_version_that_was_written_over_is_not_read_as_the_older_one)
{
	char null[400], rest[400];

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=0");
	write_line("f", "one");
	mounted_settle(&m, 30);
	s3_do(&m, "versioning Suspended");
	OK(mounted_stop(&m));
	other_puts("f", "null"); /* its id is "null" */
	mounted_start(&m, "sweep=1");
	SOON(shows("f", "null"));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE/cache\"", NULL, 0));
	other_puts("f", "again"); /* and so has this one */
	mounted_start(&m, "sweep=1");
	SOON(shows("f", "again"));
	SOON(mounted_status(&m, "others.sweeps") > 1);
	for (int i = 0, count = count_names(".versions/f"); i < count; i++) {
		entry_path("f", i, null);
		cr_assert(!shows(null, "null"));
		cr_assert(shows(null, "again") || shows(null, "one"), "%s", null);
	}
	entry_path("f", count_names(".versions/f") - 1, rest);
	cr_assert(shows(rest, "again"));
}

Test(outside, versioning_switched_off_or_on_is_noticed_by_the_next_upload)
{
	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=0");
	write_line("f", "one");
	mounted_settle(&m, 30);
	cr_assert_eq(mounted_status(&m, "store.versions"), 1);
	s3_do(&m, "versioning Suspended");
	write_line("f", "two");
	mounted_settle(&m, 30);
	SOON(mounted_status(&m, "store.versions") == 0);
	write_line("f", "three");
	mounted_settle(&m, 30);
	write_line("f", "four");
	mounted_settle(&m, 30);
	cr_assert_eq(count_names(".versions/f"), 4);
	for (int i = 0; i < 4; i++) {
		static const char *const texts[] = {"one", "two", "three", "four"};
		char path[400];

		entry_path("f", i, path);
		cr_assert(shows(path, texts[i]), "%s", texts[i]);
	}
}

/* --- conflicts ---------------------------------------------------------------------------------------------------- */

/* Lets `other` happen after a change of f was closed here and before it is sent. */
static void change_while(const char *name, const char *text, void (*other)(const char *name))
{
	if (m.store == MOUNTED_LOCAL) {
		OK(mounted_stop(&m));
		mounted_kill_at("upload-started");
		mounted_start(&m, "sweep=0");
		(void)shows(name, "");
		write_line(name, text);
		cr_assert(mounted_died(&m, 90));
		other(name);
		mounted_start(&m, "sweep=0");
	} else {
		(void)is_absent(name);
		proxy_cut(&proxy);
		write_line(name, text);
		other(name);
		proxy_restore(&proxy);
	}
	mounted_settle(&m, 60);
}

static void theirs(const char *name)
{
	other_puts(name, "theirs");
}

static void start_for_conflict(enum mounted_store store)
{
	new_store(store);
	if (store == MOUNTED_LOCAL)
		mounted_start(&m, "sweep=0");
	else
		start_through_proxy("sweep=0");
}

static void both_are_kept(enum mounted_store store)
{
	start_for_conflict(store);
	write_line("f", "base");
	mounted_settle(&m, 30);
	change_while("f", "ours", theirs);
	SOON(shows("f", "theirs"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 1);
	cr_assert_eq(count_in_log("conflict: f"), 1);
	/* And what comes next is an ordinary change of theirs. */
	write_line("f", "next");
	mounted_settle(&m, 30);
	cr_assert(shows("f", "next"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 1);
}

Test(outside, a_conflict_keeps_both_in_a_versioned_bucket)
{
	both_are_kept(MOUNTED_S3);
}

Test(outside, a_conflict_keeps_both_in_a_plain_bucket)
{
	both_are_kept(MOUNTED_S3_UNVERSIONED);
}

Test(outside, a_conflict_keeps_both_in_a_directory)
{
	both_are_kept(MOUNTED_LOCAL);
}

static void their_directory(const char *name)
{
	char words[300];

	snprintf(words, sizeof(words), "f=\"$ROOT/store/%s\"; rm \"$f\"; mkdir \"$f\"; echo theirs >\"$f/x\"", name);
	OK(mounted_shell(&m, words, NULL, 0));
}

Test(outside, a_directory_of_others_takes_the_name_of_a_changed_file)
{
	start_for_conflict(MOUNTED_LOCAL);
	write_line("f", "base");
	mounted_settle(&m, 30);
	change_while("f", "ours", their_directory);
	SOON(shows("f/x", "theirs"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

static void their_file(const char *name)
{
	(void)name;
	OK(mounted_shell(&m, "rm -r \"$ROOT/store/d\"; echo theirs >\"$ROOT/store/d\"", NULL, 0));
}

Test(outside, a_file_of_others_in_the_place_of_a_directory_does_not_hold_up_what_is_in_it)
{
	start_for_conflict(MOUNTED_LOCAL);
	OK(mkdir(at("d"), 0755));
	write_line("d/x", "base");
	mounted_settle(&m, 30);
	change_while("d/x", "ours", their_file);
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 1);
	OK(mounted_shell(&m, "\"$VARVE\" sweep \"$MNT\"", NULL, 0));
	cr_assert(shows("d", "theirs"));
	cr_assert_eq(mounted_shell(&m, "grep -rqx ours \"$ROOT/store/.varve/versions\"", NULL, 0), 0);
}

/* What is moved, not changed. */
Test(outside, a_directory_of_others_takes_the_name_that_a_file_was_moved_to)
{
	start_for_conflict(MOUNTED_LOCAL);
	write_line("f", "ours");
	mounted_settle(&m, 30);
	(void)is_absent("g");
	OK(mounted_shell(&m, "mkdir \"$ROOT/store/g\"; echo theirs >\"$ROOT/store/g/x\"", NULL, 0));
	OK(rename(at("f"), at("g")));
	mounted_settle(&m, 60);
	SOON(shows("g/x", "theirs"));
	cr_assert_eq(count_conflicts("g", "ours"), 1);
}

Test(outside, a_conflict_survives_a_crash_in_its_middle)
{
	new_store(MOUNTED_S3);
	mounted_kill_at("conflict-recorded");
	start_through_proxy("sweep=0");
	write_line("f", "base");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	write_line("f", "ours");
	other_puts("f", "theirs");
	proxy_restore(&proxy);
	cr_assert(mounted_died(&m, 90));
	mounted_start(&m, "sweep=0");
	mounted_settle(&m, 60);
	SOON(shows("f", "theirs"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

static void outlives_the_catalog(enum mounted_store store)
{
	start_for_conflict(store);
	write_line("f", "base");
	mounted_settle(&m, 30);
	change_while("f", "ours", theirs);
	SOON(shows("f", "theirs"));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, "sweep=0");
	mounted_settle(&m, 30);
	cr_assert(shows("f", "theirs"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

Test(outside, a_conflict_outlives_the_catalog_in_a_versioned_bucket)
{
	outlives_the_catalog(MOUNTED_S3);
}

Test(outside, a_conflict_outlives_the_catalog_in_a_plain_bucket)
{
	outlives_the_catalog(MOUNTED_S3_UNVERSIONED);
}

/* Killed between the store's copy and our record of it, with a newer version waiting for the same key. */
Test(outside, a_copy_that_was_never_recorded_is_not_taken_for_a_strangers)
{
	int64_t requests;

	new_store(MOUNTED_S3);
	start_through_proxy("sweep=0");
	write_line("f", "one");
	mounted_settle(&m, 30);
	proxy_toxic(&proxy, "latency", "\"latency\":3000"); /* of replies */
	requests = mounted_status(&m, "store.requests");
	OK(rename(at("f"), at("g")));
	SOON(mounted_status(&m, "store.requests") > requests);
	usleep(300000);
	write_line("g", "two");
	mounted_kill(&m);
	proxy_clear(&proxy);
	mounted_start(&m, "sweep=0");
	mounted_settle(&m, 60);
	cr_assert(shows("g", "two"));
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 0);
	cr_assert_eq(count_names(".versions/g"), 2);
}

static void both_created(enum mounted_store store)
{
	start_for_conflict(store);
	change_while("f", "ours", theirs);
	SOON(shows("f", "theirs"));
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

Test(outside, a_name_made_by_both_keeps_both_in_a_versioned_bucket)
{
	both_created(MOUNTED_S3);
}

Test(outside, a_name_made_by_both_keeps_both_in_a_plain_bucket)
{
	both_created(MOUNTED_S3_UNVERSIONED);
}

Test(outside, a_name_made_by_both_keeps_both_in_a_directory)
{
	both_created(MOUNTED_LOCAL);
}

Test(outside, what_is_written_to_a_file_whose_name_others_took_is_kept)
{
	int fd;

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	write_line("f", "base");
	mounted_settle(&m, 30);
	fd = open(at("f"), O_WRONLY);
	cr_assert_geq(fd, 0);
	other_puts("f", "theirs");
	SOON(shows("f", "theirs"));
	cr_assert_eq(write(fd, "ours\n", 5), 5);
	OK(close(fd));
	SOON(count_conflicts("f", "ours") == 1);
	mounted_settle(&m, 30);
	cr_assert(shows("f", "theirs"));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE/cache\"", NULL, 0));
	mounted_start(&m, "sweep=0");
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

Test(outside, what_was_written_to_such_a_file_survives_a_kill)
{
	int fd;

	new_store(MOUNTED_S3);
	mounted_start(&m, "sweep=1");
	write_line("f", "base");
	mounted_settle(&m, 30);
	fd = open(at("f"), O_WRONLY);
	cr_assert_geq(fd, 0);
	other_deletes("f");
	SOON(is_absent("f"));
	cr_assert_eq(write(fd, "ours\n", 5), 5);
	OK(close(dup(fd))); /* acknowledged, though it is still open */
	mounted_kill(&m);
	(void)close(fd); /* nobody answers */
	mounted_start(&m, "sweep=0");
	cr_assert_eq(count_conflicts("f", "ours"), 1);
}

static void changed_and_deleted(enum mounted_store store)
{
	start_for_conflict(store);
	write_line("f", "base");
	mounted_settle(&m, 30);
	change_while("f", "ours", other_deletes);
	cr_assert(shows("f", "ours"));
	cr_assert_eq(mounted_status(&m, "writeback.conflicts"), 0);
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, "sweep=0");
	cr_assert(shows("f", "ours"));
}

Test(outside, a_change_outlives_a_deletion_by_others_in_a_versioned_bucket)
{
	changed_and_deleted(MOUNTED_S3);
}

Test(outside, a_change_outlives_a_deletion_by_others_in_a_plain_bucket)
{
	changed_and_deleted(MOUNTED_S3_UNVERSIONED);
}

Test(outside, a_change_outlives_a_deletion_by_others_in_a_directory)
{
	changed_and_deleted(MOUNTED_LOCAL);
}
