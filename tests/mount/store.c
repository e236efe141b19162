/*
 * store.c - what ends up in the store under which key, what is asked of it and when, and what is refused at mount.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
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
static char line[4096];

static void leave(void)
{
	mounted_free(&m);
}

TestSuite(store, .fini = leave, .timeout = 480);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static void begin(enum mounted_store store, const char *options)
{
	mounted_new(&m, store);
	mounted_start(&m, options);
}

static void end_clean(void)
{
	cr_assert_eq(mounted_stop(&m), 0);
	OK(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0));
}

static void forget_everything(void)
{
	end_clean();
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
}

static void keys_are(const char *expected)
{
	char *keys = s3_ask(&m, "keys");

	cr_assert_str_eq(keys, expected);
	free(keys);
}

static void object_is(const char *key, const char *text)
{
	char words[300], *body;

	snprintf(words, sizeof(words), "get '%s'", key);
	body = s3_ask(&m, words);
	cr_assert_str_eq(body, text, "at %s", key);
	free(body);
}

static bool is(const char *path, const char *text)
{
	return file_is(at(path), text, strlen(text));
}

/* The contents of all versions of a name, oldest first, each followed by '|'. */
static char *past_of(const char *name)
{
	static char text[4096];
	char command[300];

	snprintf(command, sizeof(command), "cd \"$MNT/.versions/%s\" && for v in *; do cat -- \"$v\"; printf '|'; done",
		 name);
	OK(mounted_shell(&m, command, text, sizeof(text)));
	return text;
}

/* --- what is refused at mount ------------------------------------------------------------------------------ */

/* It fails within a second or two of its deadline, with one line that has `part` in it. */
static void refused(const char *options, const char *part)
{
	char said[4096];
	size_t lines = 0;

	OK(mounted_shell(&m, "rm -f \"$ROOT/varve.log\"", NULL, 0));
	cr_assert_gt(mounted_start_fails(&m, options, line, sizeof(line)), 0, "it mounted");
	cr_assert(strstr(line, part), "\"%s\" does not say \"%s\"", line, part);
	OK(mounted_shell(&m, "sed '/^varve: info: /d' \"$ROOT/varve.log\"", said, sizeof(said)));
	for (const char *p = said; *p; p++)
		lines += *p == '\n';
	cr_assert_eq(lines, 1, "more than one line: %s", said);
}

Test(store, mount_refuses_what_cannot_work)
{
	char dir[300], bucket_url[400];

	mounted_new(&m, MOUNTED_S3_UNVERSIONED);
	snprintf(bucket_url, sizeof(bucket_url), "%s", m.url);

	snprintf(m.url, sizeof(m.url), "s3://no-such-bucket-%d", getpid());
	refused(NULL, "does not exist");
	snprintf(m.url, sizeof(m.url), "s3://");
	refused(NULL, "bucket");
	snprintf(m.url, sizeof(m.url), "%s", bucket_url);

	refused("endpoint=http://127.0.0.1:1", "127.0.0.1 port 1");
	refused("endpoint=nonsense", "endpoint");

	snprintf(dir, sizeof(dir), "%s", m.dir);
	snprintf(m.dir, sizeof(m.dir), "%s/missing", m.root);
	refused(NULL, "No such file");
	snprintf(m.dir, sizeof(m.dir), "%s", dir);
	setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
	refused(NULL, "");
	cr_assert(strstr(line, "SignatureDoesNotMatch"), "%s", line);
	setenv("AWS_ACCESS_KEY_ID", "nobody", 1);
	refused(NULL, "");
	cr_assert(strstr(line, "InvalidAccessKeyId"), "%s", line);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	setenv("HOME", m.root, 1);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	refused(NULL, "credentials");
}

Test(store, one_writer_and_one_state_directory_for_each_store)
{
	struct mounted first, other;

	mounted_new(&first, MOUNTED_S3);
	mounted_start(&first, NULL);
	file_puts(mounted_path(&first, "f"), "first");
	mounted_settle(&first, 30);

	/* The same bucket from elsewhere, while it is mounted. */
	mounted_new(&m, MOUNTED_S3_UNVERSIONED);
	snprintf(m.url, sizeof(m.url), "%s", first.url);
	refused(NULL, "is mounted for writing by");

	/* The same state directory, while it is mounted. */
	mounted_new(&other, MOUNTED_S3_UNVERSIONED);
	snprintf(m.state, sizeof(m.state), "%s", first.state);
	refused(NULL, "in use");

	/* The state directory of another bucket, when it is not. */
	cr_assert_eq(mounted_stop(&first), 0);
	snprintf(m.url, sizeof(m.url), "%s", other.url);
	refused(NULL, "belong");

	/* And the bucket is free again at once. */
	snprintf(m.url, sizeof(m.url), "%s", first.url);
	snprintf(m.state, sizeof(m.state), "%s/state", m.root);
	mounted_start(&m, NULL);
	cr_assert(is("f", "first"));
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_free(&first);
	mounted_free(&other);
}

/* --- what is asked of the store ------------------------------------------------------------------------------ */

/* A second look at everything: nothing is asked of any file. True when no directory is listed either. Only requests
 * that look something up or read it count: the lease and the log's shipping send others. */
static bool look_again(void)
{
	int64_t lists = mounted_status(&m, "store.lists");
	int64_t files = mounted_status(&m, "store.heads") + mounted_status(&m, "store.gets");

	OK(mounted_shell(&m, "ls -lR \"$MNT\" >/dev/null; find \"$MNT\" -name f7 >/dev/null; du -s \"$MNT\" >/dev/null",
			 NULL, 0));
	cr_assert_eq(mounted_status(&m, "store.heads") + mounted_status(&m, "store.gets"), files);
	return mounted_status(&m, "store.lists") == lists;
}

Test(store, a_warm_listing_of_20000_files_asks_the_store_nothing)
{
	struct fake_s3 fake;
	char prefix[32], count[64];

	fake_s3_start(&fake);
	for (int i = 0; i < 20; i++) {
		snprintf(prefix, sizeof(prefix), "d%d/f", i);
		fake_s3_fill(&fake, prefix, 1000);
	}
	begin(MOUNTED_S3, NULL);
	OK(mounted_shell(&m, "ls -lR \"$MNT\" | grep -c '^-.* f[0-9]*$'", count, sizeof(count)));
	cr_assert_str_eq(count, "20000\n");
	cr_assert_geq(mounted_status(&m, "store.heads"), 20000, "the first listing has to ask what each file is");
	/* What is older than a minute is listed anew, and the first listing may have taken longer. */
	for (int rounds = 0; !look_again(); rounds++)
		cr_assert_lt(rounds, 10, "directories are listed each time");
	end_clean();
	fake_s3_stop(&fake);
}

/* --- what others have put there --------------------------------------------------------------------------------- */

Test(store, objects_of_other_tools_appear_with_their_versions)
{
	char *names, *ids, path[600], id[128] = {0};

	mounted_new(&m, MOUNTED_S3);
	s3_do(&m, "make versioned");
	s3_do(&m, "put dir/report.txt <<'END'\none\nEND");
	s3_do(&m, "put dir/report.txt <<'END'\ntwo\nEND");
	s3_do(&m, "delete dir/report.txt");
	s3_do(&m, "put dir/report.txt <<'END'\nthree\nEND");
	s3_do(&m, "put dir/gone <<'END'\nlost\nEND");
	s3_do(&m, "delete dir/gone");
	s3_do(&m, "put dir/mode mode=33152 uid=12 gid=34 mtime=1234567890.5 colour=blue 'note=two words' "
		  "<<'END'\nmine\nEND");
	mounted_start(&m, NULL);
	names = dir_names(at("dir"));
	cr_assert_str_eq(names, "mode\nreport.txt");
	free(names);
	cr_assert(is("dir/report.txt", "three\n"));
	OK(mounted_shell(&m, "cat \"$MNT\"/dir/.versions/report.txt/* | tr '\\n' ' ' | grep -x 'one two three '", NULL,
			 0));
	OK(mounted_shell(&m, "test \"$(stat -c '%a %u %g %Y' \"$MNT/dir/mode\")\" = '600 12 34 1234567890'", NULL, 0));
	OK(mounted_shell(&m,
			 "cd \"$MNT\" && test \"$(getfattr -d dir/mode | tr '\\n' ,)\" = "
			 "'# file: dir/mode,user.colour=\"blue\",user.note=\"two words\",,'",
			 NULL, 0));
	OK(mounted_shell(&m, "getfattr --only-values -n user.colour \"$MNT/dir/.versions/mode/-1\" | grep -qx blue",
			 NULL, 0));
	names = dir_names(at("dir/.versions/report.txt"));
	*strchr(names, '\n') = '\0';
	snprintf(path, sizeof(path), "dir/.versions/report.txt/%s", names);
	cr_assert_gt(getxattr(at(path), "user.varve.version_id", id, sizeof(id) - 1), 0);
	ids = s3_ask(&m, "versions dir/report.txt");
	cr_assert_eq(strncmp(ids, id, strlen(id)), 0, "%s is not the first of %s", id, ids);
	free(names);
	free(ids);
	file_puts(at("dir/report.txt"), "four\n");
	mounted_settle(&m, 30);
	object_is("dir/report.txt", "four");
	ids = s3_ask(&m, "versions dir/report.txt | wc -l");
	cr_assert_str_eq(ids, "5");
	free(ids);
	end_clean();
}

/* The object says all of that, one to a line, each as s3.py's `meta` has it. */
static void object_says(const char *key, const char *const *lines)
{
	char words[300], wanted[300], *said, *all;

	snprintf(words, sizeof(words), "meta '%s'", key);
	said = s3_ask(&m, words);
	cr_assert_gt(asprintf(&all, "\n%s\n", said), 0);
	for (; *lines; lines++) {
		snprintf(wanted, sizeof(wanted), "\n%s\n", *lines);
		cr_assert(strstr(all, wanted), "%s does not say %s but\n%s", key, *lines, said);
	}
	free(all);
	free(said);
}

static void file_says(const char *path, const char *name, const char *expected)
{
	char value[300] = {0};
	ssize_t n = getxattr(at(path), name, value, sizeof(value) - 1);

	cr_assert(expected ? n >= 0 && strcmp(value, expected) == 0 : n < 0, "%s of %s is \"%s\"", name, path,
		  n < 0 ? "(none)" : value);
}

Test(store, what_others_said_of_an_object_outlives_a_rename_and_a_rewrite)
{
	static const char *const theirs[] = {":content-type=text/html", "colour=blue", "note=two words", NULL};
	static const char *const ours[] = {":content-type=text/css", "colour=red", "season=summer", NULL};
	char *said;

	mounted_new(&m, MOUNTED_S3);
	s3_do(&m, "make versioned");
	s3_do(&m, "put page :content-type=text/html colour=blue 'note=two words' <<'END'\none\nEND");
	mounted_start(&m, NULL);
	file_says("page", "user.mime_type", "text/html");
	OK(rename(at("page"), at("moved")));
	mounted_settle(&m, 30);
	object_says("moved", theirs);
	OK(mounted_shell(&m, "echo two >>\"$MNT/moved\"", NULL, 0));
	mounted_settle(&m, 30);
	object_is("moved", "one\ntwo");
	object_says("moved", theirs);

	/* What is set here is said as well; what the store cannot take is in nobody's way. */
	OK(mounted_shell(
		&m,
		"cd \"$MNT\" && setfattr -n user.colour -v red moved && setfattr -n user.season -v summer moved &&"
		"setfattr -n user.mime_type -v text/css moved && setfattr -n user.Odd -v x moved &&"
		"setfattr -n user.large -v \"$(head -c 5000 /dev/zero | tr '\\0' x)\" moved && echo three >>moved",
		NULL, 0));
	mounted_settle(&m, 30);
	object_is("moved", "one\ntwo\nthree");
	object_says("moved", ours);

	/* The objects alone bring back what they say. */
	end_clean();
	said = s3_ask(&m, "reserved");
	for (char *rest = said, *key; (key = strsep(&rest, "\n"));) {
		char words[300];

		snprintf(words, sizeof(words), "delete '%s'", key);
		if (strncmp(key, ".varve/catalog/", strlen(".varve/catalog/")) == 0)
			s3_do(&m, words);
	}
	free(said);
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	file_says("moved", "user.colour", "red");
	file_says("moved", "user.note", "two words");
	file_says("moved", "user.season", "summer");
	file_says("moved", "user.mime_type", "text/css");
	file_says("moved", "user.large", NULL);
	end_clean();
}

Test(store, keys_that_minio_takes_are_shown_and_round_trip)
{
	static const char *const keys[] = {"sp ace", "pl+us",  "per%25cent", "ctl%01",
					   "%C3%A9", "a&b<c>", "quo\"te",    "%25~x"};
	char *names, *before, *after, words[200];

	mounted_new(&m, MOUNTED_S3);
	s3_do(&m, "make versioned");
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		snprintf(words, sizeof(words), "put '%s' <<'END'\ntext\nEND", keys[i]);
		s3_do(&m, words);
	}
	mounted_start(&m, NULL);
	names = dir_names(m.dir);
	cr_assert_str_eq(names, "%~%25~x\n%~ctl%01\na&b<c>\nper%cent\npl+us\nquo\"te\nsp ace\n\xc3\xa9");
	free(names);
	before = s3_ask(&m, "keys");
	OK(mounted_shell(
		&m,
		"cd \"$MNT\" && for f in *; do echo new >\"$f\" && mv \"$f\" away && mv away \"$f\" || exit 1; done",
		NULL, 0));
	mounted_settle(&m, 60);
	after = s3_ask(&m, "keys");
	cr_assert_str_eq(after, before);
	object_is("ctl%01", "new");
	object_is("%25~x", "new");
	OK(mounted_shell(&m, "cd \"$MNT\" && rm -- *", NULL, 0));
	mounted_settle(&m, 60);
	keys_are("");
	free(before);
	free(after);
	end_clean();
}

/* --- names on the move ------------------------------------------------------------------------------------------- */

static enum mounted_store both[] = {MOUNTED_S3, MOUNTED_S3_UNVERSIONED};

#define ON_BOTH(name)                                                                                                  \
	ParameterizedTestParameters(store, name)                                                                       \
	{                                                                                                              \
		return cr_make_param_array(enum mounted_store, both, 2);                                               \
	}                                                                                                              \
	ParameterizedTest(enum mounted_store *store, store, name, .timeout = 480, .fini = leave)

ON_BOTH(swaps_and_chains)
{
	begin(*store, NULL);
	file_puts(at("a"), "A");
	file_puts(at("b"), "B");
	file_puts(at("c"), "C");
	mounted_settle(&m, 30);
	OK(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_EXCHANGE));
	mounted_settle(&m, 30);
	object_is("a", "B");
	object_is("b", "A");
	/* A cycle of three at once. */
	OK(rename(at("a"), at("t")));
	OK(rename(at("b"), at("a")));
	OK(rename(at("c"), at("b")));
	OK(rename(at("t"), at("c")));
	/* And a chain that ends where nothing was. */
	file_puts(at("x"), "X");
	OK(rename(at("x"), at("y")));
	OK(rename(at("y"), at("z")));
	mounted_settle(&m, 30);
	keys_are("a\nb\nc\nz");
	object_is("a", "A");
	object_is("b", "C");
	object_is("c", "B");
	object_is("z", "X");
	forget_everything();
	cr_assert(is("a", "A") && is("b", "C") && is("c", "B") && is("z", "X"));
	end_clean();
}

/* The same while nothing can be sent: all the jobs are there at once when the way opens. */
ON_BOTH(names_reused_while_relocations_wait)
{
	struct proxy proxy;
	char options[128];

	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	begin(*store, options);
	file_puts(at("a"), "first");
	file_puts(at("b"), "B");
	file_puts(at("c"), "C");
	mounted_settle(&m, 30);
	proxy_cut(&proxy);
	OK(rename(at("a"), at("moved")));
	file_puts(at("a"), "second"); /* the name again, before the first has left its key */
	OK(rename(at("a"), at("moved2")));
	file_puts(at("a"), "third");
	OK(renameat2(AT_FDCWD, at("b"), AT_FDCWD, at("c"), RENAME_EXCHANGE));
	OK(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_EXCHANGE));
	OK(unlink(at("moved2")));
	OK(rename(at("moved"), at("moved2")));
	file_puts(at("c"), "new in c");
	proxy_restore(&proxy);
	mounted_settle(&m, 60);
	keys_are("a\nb\nc\nmoved2");
	object_is("a", "C");
	object_is("b", "third");
	object_is("c", "new in c");
	object_is("moved2", "first");
	cr_assert_eq(mounted_stop(&m), 0);
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	cr_assert(is("a", "C") && is("b", "third") && is("c", "new in c") && is("moved2", "first"));
	cr_assert_str_eq(past_of("c"), "C|B|new in c|");
	end_clean();
	proxy_free(&proxy);
}

/* What was removed before it was stored must not come after what took its name. */
ON_BOTH(names_removed_and_made_again_at_once)
{
	char *etags;

	begin(*store, NULL);
	OK(mounted_shell(&m,
			 "cd \"$MNT\" && for i in $(seq 60); do echo old >f$i; rm f$i; echo other >g$i; mv g$i f$i; "
			 "echo new >h$i; "
			 "mv h$i f$i; mkdir d$i; rmdir d$i; mkdir d$i; done",
			 NULL, 0));
	mounted_settle(&m, 60);
	etags = s3_ask(&m, "etags | cut -d' ' -f2 | sort | uniq -c | sed 's/^ *//'");
	cr_assert_str_eq(etags, "60 9cd599a3523898e6a12e13ec787da50a", "not all are \"new\": %s", etags);
	free(etags);
	etags = s3_ask(&m, "keys | grep -c '^d[0-9]*/$'");
	cr_assert_str_eq(etags, "60");
	free(etags);
	forget_everything();
	OK(mounted_shell(&m, "cd \"$MNT\" && test \"$(cat f* | sort -u)\" = new && test $(ls -d d* | wc -l) = 60", NULL,
			 0));
	end_clean();
}

ON_BOTH(what_is_overwritten_stays_in_the_past)
{
	begin(*store, NULL);
	file_puts(at("f"), "1");
	mounted_settle(&m, 30);
	file_puts(at("f"), "2");
	file_puts(at("f"), "3");
	mounted_settle(&m, 30);
	file_puts(at("g"), "of g");
	mounted_settle(&m, 30);
	OK(rename(at("g"), at("f")));
	mounted_settle(&m, 30);
	OK(unlink(at("f")));
	mounted_settle(&m, 30);
	file_puts(at("f"), "4");
	mounted_settle(&m, 30);
	keys_are("f");
	cr_assert_str_eq(past_of("f"), "1|2|3|of g|4|");
	forget_everything();
	cr_assert_str_eq(past_of("f"), "1|2|3|of g|4|");
	end_clean();
}

/* One key and one etag, but two versions: the record of the first must not be taken for the second's. */
ON_BOTH(the_same_bytes_take_one_key_twice)
{
	begin(*store, NULL);
	file_puts(at("f"), "same");
	mounted_settle(&m, 30);
	file_puts(at("f"), "same");
	mounted_settle(&m, 30);
	file_puts(at("g"), "same");
	mounted_settle(&m, 30);
	OK(rename(at("g"), at("f")));
	mounted_settle(&m, 30);
	OK(unlink(at("f")));
	mounted_settle(&m, 30);
	cr_assert_str_eq(past_of("f"), "same|same|same|");
	end_clean();
}

/* Overwriting and removing what others made keeps it too. */
ON_BOTH(what_others_made_stays_in_the_past)
{
	mounted_new(&m, *store);
	if (*store == MOUNTED_S3)
		s3_do(&m, "make versioned");
	s3_do(&m, "put f <<'END'\ntheirs\nEND");
	s3_do(&m, "put g <<'END'\ntheirs too\nEND");
	mounted_start(&m, NULL);
	cr_assert(is("f", "theirs\n"));
	file_puts(at("f"), "ours");
	OK(unlink(at("g")));
	mounted_settle(&m, 30);
	cr_assert_str_eq(past_of("f"), "theirs\n|ours|");
	cr_assert_str_eq(past_of("g"), "theirs too\n|");
	end_clean();
}

ON_BOTH(a_renamed_directory_takes_500_files_along)
{
	char *keys;

	begin(*store, NULL);
	OK(mounted_shell(
		&m,
		"mkdir -p \"$MNT/old/sub/empty\" && cd \"$MNT/old\" && for i in $(seq 500); do echo $i >f$i; done; "
		"echo deep >sub/deep; ln -s deep sub/link",
		NULL, 0));
	mounted_settle(&m, 120);
	OK(rename(at("old"), at("new")));
	cr_assert(is("new/f123", "123\n") && is("new/sub/deep", "deep\n"));
	mounted_settle(&m, 120);
	keys = s3_ask(&m, "keys | grep -c '^new/f[0-9]*$'");
	cr_assert_str_eq(keys, "500");
	free(keys);
	keys = s3_ask(&m, "keys | grep -v '^new/f[0-9]*$' | grep -vx -e new/ -e new/sub/");
	cr_assert_str_eq(keys, "new/sub/deep\nnew/sub/empty/\nnew/sub/link");
	free(keys);
	object_is("new/f77", "77");
	forget_everything();
	OK(mounted_shell(&m, "cd \"$MNT/new\" && for i in $(seq 500); do test \"$(cat f$i)\" = $i || exit 1; done",
			 NULL, 0));
	OK(mounted_shell(&m, "test \"$(cat \"$MNT/new/sub/link\")\" = deep && rm -r \"$MNT/new\"", NULL, 0));
	mounted_settle(&m, 120);
	keys_are("");
	end_clean();
}

/* What had the directory's new name keeps its job waiting, while uploads of what came after it are on their way. */
ON_BOTH(what_a_new_file_writes_over_follows_its_renamed_directory)
{
	char options[200];
	struct proxy proxy;

	mounted_new(&m, *store);
	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_start(&m, options);
	file_puts(at("new"), "in the way");
	OK(mkdir(at("old"), 0755));
	file_puts(at("old/f"), "moved");
	OK(symlink("there", at("old/link")));
	mounted_settle(&m, 30);
	proxy_toxic(&proxy, "latency", "\"latency\":200");
	OK(rename(at("new"), at("away")));
	OK(rename(at("old"), at("new")));
	OK(mkdir(at("old"), 0755));
	file_puts(at("old/f"), "after it");
	file_puts(at("old/link"), "and a file");
	mounted_settle(&m, 60);
	proxy_clear(&proxy);
	object_is("away", "in the way");
	object_is("new/f", "moved");
	object_is("new/link", "there");
	object_is("old/f", "after it");
	forget_everything();
	cr_assert(is("new/f", "moved") && is("old/f", "after it") && is("old/link", "and a file"));
	end_clean();
	proxy_free(&proxy);
}

/* Its last upload is the younger, so that the key is the other's already when it comes. */
ON_BOTH(a_file_replaced_before_it_was_sent_does_not_take_the_key)
{
	char options[200];
	struct proxy proxy;

	mounted_new(&m, *store);
	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_start(&m, options);
	cr_assert_not(is("f", ""));
	proxy_toxic(&proxy, "latency", "\"latency\":300");
	file_puts(at("stays"), "sent as this");
	file_puts(at("f"), "sent as this");
	file_puts(at("stays"), "stays");
	file_puts(at("f"), "replaced");
	OK(rename(at("stays"), at("f")));
	mounted_settle(&m, 60);
	proxy_clear(&proxy);
	object_is("f", "stays");
	cr_assert_str_eq(past_of("f"), "sent as this|replaced|stays|");
	forget_everything();
	cr_assert(is("f", "stays"));
	cr_assert_str_eq(past_of("f"), "sent as this|replaced|stays|");
	end_clean();
	proxy_free(&proxy);
}

/* The job that the link left found nothing stored that it could point to. */
ON_BOTH(a_link_made_before_the_first_close_gets_its_marker)
{
	struct stat a, b;
	int fd;

	begin(*store, NULL);
	fd = open(at("a"), O_WRONLY | O_CREAT, 0644);
	cr_assert(fd >= 0 && write(fd, "shared", 6) == 6);
	OK(link(at("a"), at("b")));
	/* Not until nothing is pending: `varve status` inherits the descriptor, and what is closed waits to be stored.
	 */
	for (int tries = 0; mounted_status(&m, "writeback.done") < 1; tries++) {
		cr_assert_lt(tries, 300);
		usleep(100000);
	}
	OK(close(fd));
	mounted_settle(&m, 30);
	object_is("a", "shared");
	object_is("b", "");
	forget_everything();
	OK(stat(at("a"), &a));
	OK(stat(at("b"), &b));
	cr_assert(a.st_ino == b.st_ino && a.st_nlink == 2 && is("b", "shared"));
	end_clean();
}

ON_BOTH(the_next_hard_link_is_promoted)
{
	struct stat a, b;

	begin(*store, NULL);
	file_puts(at("a"), "shared");
	OK(link(at("a"), at("b")));
	OK(mkdir(at("d"), 0755));
	OK(link(at("a"), at("d/c")));
	mounted_settle(&m, 30);
	object_is("a", "shared");
	object_is("b", "");
	OK(unlink(at("a")));
	mounted_settle(&m, 30);
	object_is("b", "shared");
	object_is("d/c", "");
	file_puts(at("d/c"), "changed");
	mounted_settle(&m, 30);
	object_is("b", "changed");
	forget_everything();
	OK(stat(at("b"), &a));
	OK(stat(at("d/c"), &b));
	cr_assert(a.st_ino == b.st_ino && a.st_nlink == 2);
	cr_assert(is("d/c", "changed"));
	OK(unlink(at("b")));
	mounted_settle(&m, 30);
	object_is("d/c", "changed");
	cr_assert(is("d/c", "changed"));
	end_clean();
}

Test(store, removal_leaves_a_delete_marker)
{
	char *versions;

	begin(MOUNTED_S3, NULL);
	file_puts(at("f"), "kept");
	mounted_settle(&m, 30);
	OK(unlink(at("f")));
	mounted_settle(&m, 30);
	versions = s3_ask(&m, "versions f | cut -d' ' -f2");
	cr_assert_str_eq(versions, "data\nmarker");
	free(versions);
	cr_assert_str_eq(past_of("f"), "kept|");
	end_clean();
}

/* --- what writing costs ------------------------------------------------------------------------------------------ */

#define LARGE ((size_t)64 << 20)

static void put_large(char *bytes)
{
	fill_random(bytes, LARGE, 3);
	file_write(at("large"), bytes, LARGE);
	mounted_settle(&m, 60);
	cr_assert_eq(mounted_stop(&m), 0);
	OK(mounted_shell(&m, "rm -rf \"$STATE/cache\"", NULL, 0));
	mounted_start(&m, NULL);
}

static void change_large(char *bytes, const char *text, size_t offset)
{
	int fd = open(at("large"), O_RDWR);

	cr_assert_geq(fd, 0);
	memcpy(bytes + offset, text, strlen(text));
	cr_assert_eq(pwrite(fd, text, strlen(text), (off_t)offset), (ssize_t)strlen(text));
	OK(fsync(fd));
	OK(close(fd));
}

/* The trials of a probe are forty round trips, which a slow line makes ten seconds. */
Test(store, a_mount_does_not_try_again_what_it_tried_today)
{
	int64_t first, second;

	begin(MOUNTED_S3, "create,sweep=0");
	first = mounted_status(&m, "store.requests");
	OK(mounted_stop(&m));
	mounted_start(&m, "sweep=0");
	second = mounted_status(&m, "store.requests");
	cr_assert_leq(second, 10, "%ld requests", (long)second);
	cr_assert_gt(first, second + 20);
	OK(mounted_shell(&m, "echo text >\"$MNT/f\"", NULL, 0));
	end_clean();
}

Test(store, a_change_of_a_large_file_moves_little_more_than_what_changed)
{
	int64_t sent, received, requests, least = INT64_MAX;
	char *bytes = malloc(LARGE + 64);

	begin(MOUNTED_S3, NULL);
	put_large(bytes);
	sent = mounted_status(&m, "store.bytes_sent");
	received = mounted_status(&m, "store.bytes_received");
	change_large(bytes, "changed", 30 << 20);
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - sent, 6 << 20);
	cr_assert_lt(mounted_status(&m, "store.bytes_received") - received, 6 << 20);

	sent = mounted_status(&m, "store.bytes_sent");
	received = mounted_status(&m, "store.bytes_received");
	/* The segment of every 5 s and the lease's renewal may come in between. */
	for (int tries = 0; tries < 10 && least > 8; tries++) {
		requests = mounted_status(&m, "store.requests");
		change_large(bytes, "appended", LARGE);
		requests = mounted_status(&m, "store.requests") - requests;
		least = requests < least ? requests : least;
	}
	cr_assert_leq(least, 8, "begin, copies, part, complete");
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - sent, 64 << 10);
	cr_assert_lt(mounted_status(&m, "store.bytes_received") - received, 64 << 10);
	mounted_settle(&m, 60);
	cr_assert(file_is(at("large"), bytes, LARGE + 8));
	forget_everything();
	cr_assert(file_is(at("large"), bytes, LARGE + 8));
	free(bytes);
	end_clean();
}

/* cp asks for copies without looking at them: where the store can, it makes them. */
static enum mounted_store every[] = {MOUNTED_S3, MOUNTED_S3_UNVERSIONED, MOUNTED_LOCAL};

ParameterizedTestParameters(store, a_copy_of_a_large_version_moves_no_bytes)
{
	return cr_make_param_array(enum mounted_store, every, 3);
}

ParameterizedTest(enum mounted_store *store, store, a_copy_of_a_large_version_moves_no_bytes, .timeout = 480,
		  .fini = leave)
{
	char *bytes = malloc(LARGE);
	int64_t sent, received;

	begin(*store, NULL);
	put_large(bytes);
	file_puts(at("large"), "short");
	mounted_settle(&m, 60);
	sent = mounted_status(&m, "store.bytes_sent");
	received = mounted_status(&m, "store.bytes_received");
	OK(mounted_shell(&m, "cd \"$MNT\" && cp .versions/large/-2 large", NULL, 0));
	if (*store == MOUNTED_S3_UNVERSIONED) /* what lives there is not safe from others: it is read */
		mounted_settle(&m, 60);
	else
		OK(mounted_shell(&m, "cd \"$MNT\" && cp large again && rm large", NULL, 0));
	mounted_settle(&m, 60);
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - sent, 64 << 10);
	cr_assert_lt(mounted_status(&m, "store.bytes_received") - received, 64 << 10);
	if (*store == MOUNTED_S3_UNVERSIONED)
		OK(mounted_shell(&m, "cd \"$MNT\" && cp large again && rm large", NULL, 0));
	mounted_settle(&m, 60);
	cr_assert(file_is(at("again"), bytes, LARGE));
	sent = mounted_status(&m, "store.bytes_sent");
	OK(mounted_shell(&m, "\"$VARVE\" undelete \"$MNT/large\"", NULL, 0));
	mounted_settle(&m, 60);
	cr_assert_lt(mounted_status(&m, "store.bytes_sent") - sent, 64 << 10);
	OK(mounted_shell(&m,
			 "cd \"$MNT\" && test \"$(getfattr --only-values -n user.varve.checksum again)\" = "
			 "\"$(getfattr --only-values -n user.varve.checksum .versions/large/-1)\"",
			 NULL, 0));
	forget_everything();
	cr_assert(file_is(at("again"), bytes, LARGE));
	cr_assert(file_is(at("large"), bytes, LARGE));
	cr_assert(file_is(at(".versions/large/-2"), bytes, LARGE));
	cr_assert(file_is(at(".versions/large/-3"), "short", 5));
	end_clean();
	free(bytes);
}

Test(store, an_fsync_of_a_plain_file_is_one_request)
{
	int64_t requests;
	char text[32];
	int fd, ones = 0;

	begin(MOUNTED_S3, NULL);
	fd = open(at("plain"), O_RDWR | O_CREAT, 0640);
	cr_assert_geq(fd, 0);
	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "%010d", i);
		requests = mounted_status(&m, "store.requests");
		cr_assert_eq(pwrite(fd, text, 10, 0), 10);
		OK(fsync(fd));
		ones += mounted_status(&m, "store.requests") - requests == 1;
	}
	/* The segment of every 5 s and the lease's renewal may come in between. */
	cr_assert_geq(ones, 10);
	OK(close(fd));
	end_clean();
}

/* Its lease would be waited for until it ends. */
static void lose_the_machine(int fd)
{
	mounted_kill(&m);
	(void)close(fd);
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	s3_do(&m, "delete .varve/lease");
	mounted_start(&m, NULL);
}

Test(store, what_was_fsynced_is_there_after_the_machine_is_lost)
{
	struct stat st;
	int fd;

	begin(MOUNTED_S3, NULL);
	fd = open(at("kept"), O_RDWR | O_CREAT, 0640);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "one", 3), 3);
	OK(fsync(fd));
	cr_assert_eq(pwrite(fd, "two", 3, 0), 3);
	OK(fsync(fd));
	OK(mkdir(at("d"), 0755));
	OK(link(at("kept"), at("d/other")));
	cr_assert_eq(pwrite(fd, "six", 3, 0), 3);
	OK(fsync(fd)); /* two names: the log must say so */
	lose_the_machine(fd);
	cr_assert(is("kept", "six"));
	OK(stat(at("kept"), &st));
	cr_assert_eq(st.st_mode & 07777, 0640);
	cr_assert(is("d/other", "six"));
	mounted_settle(&m, 60);
	end_clean();
}

/* A segment that was begun after this call is in the store: the log leaves every 5 s while something changes. */
static void wait_for_segment(void)
{
	for (int round = 0; round < 2; round++) { /* the first one may have been cut before */
		int64_t before = mounted_status(&m, "catalog.shipped");

		OK(mounted_shell(&m, "touch \"$MNT\"", NULL, 0));
		for (int tries = 0; mounted_status(&m, "catalog.shipped") == before; tries++) {
			cr_assert_lt(tries, 600, "no segment in a minute");
			usleep(100000);
		}
	}
}

/* Metadata leaves by the log alone: nobody fsyncs, nothing is unmounted, and no object but the files' own tells. */
Test(store, what_changed_in_metadata_before_the_last_segment_outlives_the_machine)
{
	static const char facts[] =
		"cd \"$MNT\" && find . -mindepth 1 -printf '%p %y %m %U %G %n %l %s\\n' | sort && stat -c %Y moved/f "
		"&& "
		"cat moved/f && getfattr --only-values -n user.note moved/f && ls moved/.versions/f && "
		"ls .versions/+deleted";
	char before[2000], after[2000];

	begin(MOUNTED_S3, NULL);
	OK(mounted_shell(&m,
			 "cd \"$MNT\" && mkdir -p d/empty && echo 1 >d/f && echo 2 >d/f && echo x >x && echo y >gone",
			 NULL, 0));
	mounted_settle(&m, 60);
	OK(mounted_shell(&m,
			 "cd \"$MNT\" && chmod 640 d/f && chown 12:34 d/f && touch -d 2001-02-03 d/f && ln d/f hard && "
			 "setfattr -n user.note -v kept d/f && mv d moved && ln -s x link && chmod 1770 moved/empty && "
			 "mkfifo fifo && rm gone",
			 NULL, 0));
	wait_for_segment();
	OK(mounted_shell(&m, facts, before, sizeof(before)));
	lose_the_machine(-1);
	OK(mounted_shell(&m, facts, after, sizeof(after)));
	cr_assert_str_eq(after, before);
	mounted_settle(&m, 60);
	end_clean();
}

Test(store, a_plain_file_fsynced_is_there_without_a_word_of_the_log)
{
	struct stat was, now;
	int fd;

	begin(MOUNTED_S3, NULL);
	fd = open(at("kept"), O_RDWR | O_CREAT, 0640);
	cr_assert_geq(fd, 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(pwrite(fd, "012345" + i, 3, 0), 3);
		OK(fsync(fd));
	}
	OK(fstat(fd, &was));
	lose_the_machine(fd);
	cr_assert(is("kept", "234"));
	OK(stat(at("kept"), &now));
	cr_assert_eq(now.st_mode, was.st_mode);
	cr_assert_eq(now.st_mtim.tv_sec, was.st_mtim.tv_sec);
	cr_assert_eq(now.st_mtim.tv_nsec, was.st_mtim.tv_nsec);
	end_clean();
}
