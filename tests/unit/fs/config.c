/*
 * What a mount is asked to do: every option, every refusal, every path.
 */
#include "fs/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

#define WORDS_MAX 16

static struct config config;
static struct err err;

static int parse_as(enum config_form form, const char *const words[])
{
	char *argv[WORDS_MAX + 1] = {"mount"};
	int argc = 1;

	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)words[argc - 1];
	return config_parse(argc, argv, form, &config, &err);
}
#define parse(...) parse_as(CONFIG_VERB, (const char *const[]){__VA_ARGS__, NULL})
#define parse_helper(...) parse_as(CONFIG_HELPER, (const char *const[]){__VA_ARGS__, NULL})

static void options(const char *list)
{
	config_init(&config);
	cr_assert_eq(config_options(&config, list, &err), 0, "%s: %s", list, err.message);
}

static void refused(const char *list, const char *part)
{
	config_init(&config);
	cr_assert_eq(config_options(&config, list, &err), -EINVAL, "%s was taken", list);
	cr_assert_eq(err.kind, ERR_CONFIGURATION);
	cr_assert(strstr(err.message, part), "\"%s\" does not say \"%s\"", err.message, part);
	config_clear(&config);
}

static void url_refused(const char *url, const char *part)
{
	cr_assert_lt(parse(url, "/mnt"), 0, "%s was taken", url);
	cr_assert(strstr(err.message, part), "%s: \"%s\" does not say \"%s\"", url, err.message, part);
}

static void url_taken(const char *url, const char *as)
{
	cr_assert_eq(parse(url, "/mnt"), 0, "%s: %s", url, err.message);
	cr_assert_str_eq(config.url, as);
	config_clear(&config);
}

Test(config, takes_url_directory_options_and_foreground_in_any_order)
{
	cr_assert_eq(parse("-f", "s3://bucket/a/b/", "-o", "ro,region=eu-central-1", "/mnt", "-o", "threads=8"), 0);
	cr_assert_str_eq(config.url, "s3://bucket/a/b");
	cr_assert_str_eq(config.mountpoint, "/mnt");
	cr_assert_str_eq(config.region, "eu-central-1");
	cr_assert(config.foreground);
	cr_assert(config.read_only);
	cr_assert_eq(config.threads, 8);
	config_clear(&config);
}

Test(config, defaults_are_the_safe_ones)
{
	cr_assert_eq(parse("s3://bucket", "/mnt"), 0);
	cr_assert_eq(config.close, CONFIG_CLOSE_JOURNAL);
	cr_assert_eq(config.fsync, CONFIG_FSYNC_STORE);
	cr_assert_eq(config.snapdir, CONFIG_SNAPDIR_HIDDEN);
	cr_assert_null(config.snapdir_name);
	cr_assert_eq(config.fsync_timeout_ns, 60 * NS_PER_SEC);
	cr_assert_eq(config.umask, 022);
	cr_assert_eq(config.uid, getuid());
	cr_assert_eq(config.gid, getgid());
	cr_assert_eq(config.log_level, LOG_LEVEL_INFO);
	cr_assert_not(config.create || config.read_only || config.allow_other || config.foreground || config.fake);
	cr_assert_null(config.endpoint);
	cr_assert_null(config.state_dir);
	config_clear(&config);
}

Test(config, helper_reads_minus_f_as_fake_and_takes_what_mount_passes)
{
	cr_assert_eq(parse_helper("s3://bucket", "/mnt", "-sfnv", "-N", "ns", "-t", "fuse.varve", "-o", "rw,noexec"),
		     0);
	cr_assert(config.fake);
	cr_assert_not(config.foreground);
	cr_assert(config.noexec);
	config_clear(&config);
}

Test(config, accepts_what_fstab_lines_carry)
{
	options("defaults,rw,dev,nodev,suid,nosuid,exec,noatime,auto,noauto,user,user=alice,users,nofail,_netdev,"
		"x-systemd.automount,x-systemd.idle-timeout=60,X-mount.mkdir,comment=a b,relatime,nodiratime");
	cr_assert_not(config.read_only);
	cr_assert_not(config.noatime, "relatime came later");
	config_clear(&config);
}

Test(config, later_options_win)
{
	options("ro,rw,noexec,exec,umask=077,umask=027,region=a,region=b,,");
	cr_assert_not(config.read_only);
	cr_assert_not(config.noexec);
	cr_assert_eq(config.umask, 027);
	cr_assert_str_eq(config.region, "b");
	config_clear(&config);
}

Test(config, backslash_guards_commas_and_itself)
{
	options("state=/a\\,b\\\\c\\d=e,ro");
	cr_assert_str_eq(config.state_dir, "/a,b\\c\\d=e");
	cr_assert(config.read_only);
	config_clear(&config);
}

Test(config, takes_every_value)
{
	options("close=store,fsync=disk,fsync_timeout=5m,snapdir=visible,snapdir_name=.snap,cache_size=3G,reserve=1T,"
		"uid=12,gid=34,"
		"max_requests=9,max_upload_rate=2M,max_download_rate=1g,"
		"umask=0007,threads=256,allow_other,foreground,create,debug,profile=p,endpoint=https://h:9000");
	cr_assert_eq(config.close, CONFIG_CLOSE_STORE);
	cr_assert_eq(config.fsync, CONFIG_FSYNC_DISK);
	cr_assert_eq(config.fsync_timeout_ns, 300 * NS_PER_SEC);
	cr_assert_eq(config.snapdir, CONFIG_SNAPDIR_VISIBLE);
	cr_assert_str_eq(config.snapdir_name, ".snap");
	cr_assert_eq(config.cache_size, UINT64_C(3) << 30);
	cr_assert_eq(config.reserve, UINT64_C(1) << 40);
	cr_assert_eq(config.uid, 12);
	cr_assert_eq(config.gid, 34);
	cr_assert_eq(config.umask, 07);
	cr_assert_eq(config.threads, 256);
	cr_assert_eq(config.max_requests, 9);
	cr_assert_eq(config.max_upload_rate, UINT64_C(2) << 20);
	cr_assert_eq(config.max_download_rate, UINT64_C(1) << 30);
	cr_assert(config.allow_other && config.foreground && config.create);
	cr_assert_eq(config.log_level, LOG_LEVEL_DEBUG);
	cr_assert_str_eq(config.profile, "p");
	cr_assert_str_eq(config.endpoint, "https://h:9000");
	config_clear(&config);
}

Test(config, takes_users_and_groups_by_name)
{
	options("uid=root,gid=root");
	cr_assert_eq(config.uid, 0);
	cr_assert_eq(config.gid, 0);
	config_clear(&config);
}

Test(config, debug_takes_a_level_or_fuse)
{
	options("debug=warn");
	cr_assert_eq(config.log_level, LOG_LEVEL_WARN);
	cr_assert_not(config.debug_fuse);
	config_clear(&config);
	options("debug=fuse");
	cr_assert_eq(config.log_level, LOG_LEVEL_DEBUG);
	cr_assert(config.debug_fuse);
	config_clear(&config);
}

Test(config, complaint_names_option_value_and_what_is_allowed)
{
	refused("close=never", "option close=never: allowed is journal or store");
	refused("snapdir=yes", "snapdir=yes: allowed is hidden, visible or off");
	refused("snapdir_name=a/b", "a file name");
	refused("snapdir_name=..", "a file name");
	refused("snapdir_name=", "a file name");
	refused("snapdir_name=.varve", "a file name");
	refused("snapdir_name=%~x", "a file name");
	refused("fsync=always", "store or disk");
	refused("debug=loud", "error, warn, info, debug");
	refused("umask=8", "umask=8: allowed is an octal mask");
	refused("umask=1777", "umask=1777");
	refused("umask=", "umask=");
	refused("uid=no-such-user-here", "uid=no-such-user-here");
	refused("uid=4294967295", "uid=4294967295");
	refused("max_requests=0", "1 to 256");
	refused("max_requests=257", "1 to 256");
	refused("max_requests=2x", "1 to 256");
	refused("max_upload_rate=100K", "at least 256K");
	refused("max_upload_rate=0", "at least 256K");
	refused("max_upload_rate=fast", "bytes a second");
	refused("max_download_rate=1Q", "bytes a second");
	refused("threads=3", "4 to 256");
	refused("threads=257", "4 to 256");
	refused("threads=8x", "4 to 256");
	refused("fsync_timeout=0", "fsync_timeout=0");
	refused("fsync_timeout=5d", "fsync_timeout=5d");
	refused("region=eu central", "region=eu central");
	refused("state=", "state=");
}

Test(config, sizes_are_bounded)
{
	refused("cache_size=16383K", "at least 16M");
	refused("cache_size=-1", "cache_size=-1");
	refused("cache_size=10Q", "cache_size=10Q");
	refused("cache_size=10MB", "cache_size=10MB");
	refused("cache_size=8388608T", "cache_size=8388608T");
	refused("cache_size=99999999999999999999", "cache_size=99999999999999999999");
	options("cache_size=16777216,reserve=0");
	cr_assert_eq(config.cache_size, 16777216);
	cr_assert_eq(config.reserve, 0);
	config_clear(&config);
	options("cache_size=8388607T");
	config_clear(&config);
}

Test(config, unknown_option_is_answered_with_the_nearest)
{
	refused("cachesize=1G", "unknown option \"cachesize\"; did you mean \"cache_size\"?");
	refused("readonly,nofial", "\"readonly\"");
	refused("nofial", "did you mean \"nofail\"?");
	refused("endpiont=http://h", "did you mean \"endpoint\"?");
	refused("remount", "unmount and mount again");
}

Test(config, flags_take_no_value_and_values_are_needed)
{
	refused("ro=1", "option ro takes no value");
	refused("create=yes", "option create takes no value");
	refused("state", "option state needs a value");
}

Test(config, endpoint_is_an_http_address_without_secrets)
{
	refused("endpoint=localhost:9000", "http:// or https://");
	refused("endpoint=ftp://h", "http:// or https://");
	refused("endpoint=http://", "http:// or https://");
	refused("endpoint=http://key:hunter2@host", "credentials do not belong in a URL");
	cr_assert_null(strstr(err.message, "hunter2"));
	refused("endpoint=http://host?token=hunter2", "credentials do not belong in a URL");
	cr_assert_null(strstr(err.message, "hunter2"));
}

Test(config, credentials_in_urls_are_refused_and_not_repeated)
{
	static const char *const urls[] = {"s3://key:hunter2@bucket/x", "s3://hunter2@bucket", "s3://key:hunter2",
					   "s3://bucket/x?X-Amz-Signature=hunter2", "s3://bucket?sig=hunter2"};

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		url_refused(urls[i], "credentials do not belong in a URL");
		cr_assert_null(strstr(err.message, "hunter2"));
	}
}

Test(config, urls_are_checked)
{
	url_refused("bucket", "no URL");
	url_refused("ftp://host/dir", "ftp");
	url_refused("file://relative/dir", "absolute path");
	url_refused("s3://", "no bucket name");
	url_refused("s3://ab", "3 to 63");
	url_refused("s3://Bucket", "\"Bucket\" is no bucket name");
	url_refused("s3://under_score", "no bucket name");
	url_refused("s3://a..b", "no bucket name");
	url_refused("s3://-bucket", "no bucket name");
	url_refused("s3://bucket-/x", "no bucket name");
	url_refused("s3://bucket/a//b", "empty");
	url_refused("s3://bucket/../b", "\"..\"");
	url_refused("s3://bucket/.varve/x", "keeps for itself");
	url_refused("s3://bucket/a\nb", "control characters");
	url_taken("s3://my-bucket.v2/a b?c", "s3://my-bucket.v2/a b?c");
	url_taken("s3://bucket///", "s3://bucket");
	url_taken("file:///", "file:///");
	url_taken("file:///a/b//", "file:///a/b");
}

Test(config, counts_arguments)
{
	cr_assert_lt(parse("s3://bucket"), 0);
	cr_assert(strstr(err.message, "missing"));
	cr_assert_lt(parse("s3://bucket", "/mnt", "more"), 0);
	cr_assert(strstr(err.message, "too many"));
	cr_assert_lt(parse("s3://bucket", "/mnt", "-o"), 0);
	cr_assert(strstr(err.message, "-o needs"));
	cr_assert_lt(parse("s3://bucket", "/mnt", "-x"), 0);
	cr_assert(strstr(err.message, "-x"));
	cr_assert_lt(parse("s3://bucket", "/mnt", "-o", "create,ro"), 0);
	cr_assert(strstr(err.message, "exclude"));
}

/* --- this machine ------------------------------------------------------------------------------ */

static char top[] = "/tmp/varve-config-XXXXXX";

static void make_top(void)
{
	static const char *const dirs[] = {"mnt", "mnt/sub", "store", "state"};

	cr_assert_not_null(mkdtemp(top));
	cr_assert_eq(chdir(top), 0);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		cr_assert_eq(mkdir(dirs[i], 0700), 0);
	cr_assert_eq(symlink("mnt", "link"), 0);
	cr_assert_eq(close(open("file", O_WRONLY | O_CREAT, 0600)), 0);
}

static void remove_top(void)
{
	static const char *const files[] = {"link", "file"}, *const dirs[] = {"mnt/sub", "mnt", "store", "state"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		cr_assert_eq(unlink(files[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		cr_assert_eq(rmdir(dirs[i]), 0);
	cr_assert_eq(chdir("/"), 0);
	cr_assert_eq(rmdir(top), 0);
}

TestSuite(config_check, .init = make_top, .fini = remove_top);

static int check(const char *url, const char *dir, const char *state)
{
	AUTO_BUF list = BUF_INIT;
	int rc;

	buf_addf(&list, "state=%s", state);
	cr_assert_eq(parse(url, dir, "-o", list.data), 0, "%s", err.message);
	rc = config_check(&config, &err);
	if (rc < 0)
		config_clear(&config);
	return rc;
}

static void check_refused(const char *url, const char *dir, const char *state, const char *part)
{
	cr_assert_lt(check(url, dir, state), 0, "%s %s %s was taken", url, dir, state);
	cr_assert(strstr(err.message, part), "\"%s\" does not say \"%s\"", err.message, part);
}

static const char *in_top(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

static void url_in_top(const char *name, struct buf *ret_url)
{
	buf_addf(ret_url, "file://%s/%s", top, name);
}

Test(config_check, makes_paths_absolute_and_real)
{
	cr_assert_eq(check("s3://bucket", "link", "state/new/deep"), 0, "%s", err.message);
	cr_assert_str_eq(config.mountpoint, in_top("mnt"));
	cr_assert_str_eq(config.state_dir, in_top("state/new/deep"));
	config_clear(&config);
}

Test(config_check, refuses_directories_that_are_none)
{
	check_refused("s3://bucket", "missing", "state", "missing");
	check_refused("s3://bucket", "file", "state", "not a directory");
}

Test(config_check, keeps_mount_state_and_store_apart)
{
	AUTO_BUF store = BUF_INIT;
	AUTO_BUF inner = BUF_INIT;

	url_in_top("store", &store);
	url_in_top("mnt/sub/store", &inner);
	check_refused("s3://bucket", "mnt", "mnt/sub", "must not lie in one another");
	check_refused("s3://bucket", "mnt/sub", "link", "must not lie in one another");
	check_refused("s3://bucket", "mnt", "mnt", "must not lie in one another");
	check_refused(inner.data, "mnt", "state", "the store");
	check_refused(store.data, "store", "state", "the store");
	check_refused(store.data, "mnt", "store/state", "the store");
	cr_assert_eq(check(store.data, "mnt", "state"), 0, "%s", err.message);
	config_clear(&config);
	/* A common beginning of the name is not a common directory. */
	cr_assert_eq(check("s3://bucket", "mnt", "mnt-state"), 0, "%s", err.message);
	config_clear(&config);
}

Test(config_check, one_store_has_one_url)
{
	AUTO_BUF plain = BUF_INIT;
	AUTO_BUF odd = BUF_INIT;

	url_in_top("store", &plain);
	url_in_top("mnt/../store", &odd);
	cr_assert_eq(check(odd.data, "mnt", "state"), 0, "%s", err.message);
	cr_assert_str_eq(config.url, plain.data);
	config_clear(&config);
}

static int base_of(uid_t uid, char *ret_text, size_t size)
{
	AUTO_BUF dir = BUF_INIT;
	int rc = config_state_base(uid, &dir);

	snprintf(ret_text, size, "%s", dir.data);
	return rc;
}

/* In a process of its own (Criterion's), so the identity can change. */
Test(config, state_lies_where_the_user_keeps_state)
{
	char base[PATH_MAX];

	cr_assert_eq(base_of(0, base, sizeof(base)), 0);
	cr_assert_str_eq(base, "/var/lib/varve");
	if (getuid() == 0)
		cr_assert_eq(setresuid(1234, 1234, 1234), 0);
	setenv("XDG_STATE_HOME", "/x/state", 1);
	setenv("HOME", "/home/h", 1);
	cr_assert_eq(base_of(getuid(), base, sizeof(base)), 0);
	cr_assert_str_eq(base, "/x/state/varve");
	setenv("XDG_STATE_HOME", "relative", 1);
	cr_assert_eq(base_of(getuid(), base, sizeof(base)), 0);
	cr_assert_str_eq(base, "/home/h/.local/state/varve");
}

static void id_of(const char *url, const char *endpoint, char ret_text[static 64])
{
	AUTO_BUF id = BUF_INIT;

	config_state_id(url, endpoint, &id);
	cr_assert_lt(id.len, 64);
	memcpy(ret_text, id.data, id.len + 1);
}

Test(config, state_id_is_readable_stable_and_tells_stores_apart)
{
	char a[64], b[64];

	id_of("s3://bucket/prefix", NULL, a);
	cr_assert_eq(strncmp(a, "s3-bucket-prefix-", 17), 0, "%s", a);
	cr_assert_eq(strlen(a), 17 + 8);
	id_of("s3://bucket/prefix", NULL, b);
	cr_assert_str_eq(a, b);
	id_of("s3://bucket/prefix", "http://127.0.0.1:9000", b);
	cr_assert_str_neq(a, b);
	id_of("s3://bucket-prefix", NULL, b);
	cr_assert_str_neq(a, b);
	id_of("s3://bucket/../../etc/a very long prefix that goes on and on and on and on", NULL, b);
	cr_assert_null(strchr(b, '/'));
	cr_assert_neq(b[0], '.');
}
