/*
 * points.c - kill -9 at each named point of the write path, then look again.
 *
 * What must hold after the next mount: every file whose close returned is there, whole, once; a renamed file is there
 * under its new name only; when everything is drained the catalog checks clean, and a mount from the bucket alone
 * shows the same files.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define FILES 12
#define SIZE_OF(i) ((size_t)((i) % 4 == 3 ? 3000000 : 1000 * (i) + 17))
#define LARGE_FILES 4 /* under load not every one is fast enough for its stream: two of them have to be */
#define SIZE_OF_LARGE(i) ((size_t)(40 << 20) + (size_t)(i))

enum scenario {
	WRITES,  /* new files, closed one by one */
	FSYNCS,  /* the same with an fsync before the close */
	RENAMES, /* stored files are renamed */
	REMOVES, /* stored files are removed */
	STREAMS, /* new files so large that they are sent while they are written */
};

struct crash_case {
	char point[32];
	enum scenario scenario;
	enum mounted_store store;
};

/* What the writing child has been told, shared with its parent. */
struct told {
	int begun, done;
};

static void name_of(const struct mounted *m, const char *prefix, int i, char *ret_path, size_t size)
{
	snprintf(ret_path, size, "%s/%s%02d", m->dir, prefix, i);
}

static int files_of(enum scenario scenario)
{
	return scenario == STREAMS ? LARGE_FILES : FILES;
}

static size_t size_of(enum scenario scenario, int i)
{
	return scenario == STREAMS ? SIZE_OF_LARGE(i) : SIZE_OF(i);
}

/* A large file grows slowly enough for its parts to be sent. */
static int write_all(int fd, const char *bytes, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = write(fd, bytes + at, size - at < 1 << 20 ? size - at : 1 << 20);

		if (n <= 0)
			return 1;
		at += (size_t)n;
		if (at < size)
			usleep(20000);
	}
	return 0;
}

static int write_one(const char *path, int i, enum scenario scenario)
{
	size_t size = size_of(scenario, i);
	char *bytes = malloc(size);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
	int failed = fd < 0;

	fill_random(bytes, size, (uint64_t)i);
	if (!failed)
		failed = write_all(fd, bytes, size);
	if (!failed && scenario == FSYNCS)
		failed = fsync(fd) != 0;
	if (fd >= 0 && close(fd))
		failed = 1;
	free(bytes);
	return failed;
}

static int step(const struct mounted *m, enum scenario scenario, int i)
{
	char from[400], to[400];

	name_of(m, "f", i, from, sizeof(from));
	name_of(m, "moved", i, to, sizeof(to));
	switch (scenario) {
	case WRITES:
	case FSYNCS:
	case STREAMS:
		return write_one(from, i, scenario);
	case RENAMES:
		return rename(from, to);
	case REMOVES:
		return unlink(from);
	}
	return 1;
}

/* In a child, because the mount dies under its hands. */
static void run_until_death(const struct mounted *m, enum scenario scenario, struct told *told)
{
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		for (int i = 0; i < files_of(scenario); i++) {
			told->begun = i + 1;
			if (step(m, scenario, i))
				break;
			told->done = i + 1;
			usleep(20000);
		}
		_exit(0);
	}
	waitpid(pid, &status, 0);
}

static bool whole(enum scenario scenario, const char *path, int i)
{
	size_t size = size_of(scenario, i);
	char *bytes = malloc(size);
	bool same;

	fill_random(bytes, size, (uint64_t)i);
	same = file_is(path, bytes, size);
	free(bytes);
	return same;
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void check_files(const struct mounted *m, const struct crash_case *c, const struct told *told)
{
	char old_path[400], new_path[400];

	for (int i = 0; i < files_of(c->scenario); i++) {
		name_of(m, "f", i, old_path, sizeof(old_path));
		name_of(m, "moved", i, new_path, sizeof(new_path));
		switch (c->scenario) {
		case WRITES:
		case FSYNCS:
		case STREAMS:
			if (i < told->done)
				cr_assert(whole(c->scenario, old_path, i), "%s: %s was closed and is not whole",
					  c->point, old_path);
			break;
		case RENAMES:
			if (i < told->done)
				cr_assert(whole(c->scenario, new_path, i) && !exists(old_path),
					  "%s: %s is not only at its new name", c->point, new_path);
			else if (i >= told->begun)
				cr_assert(whole(c->scenario, old_path, i) && !exists(new_path),
					  "%s: %s was not renamed yet", c->point, old_path);
			else
				cr_assert(exists(old_path) != exists(new_path) &&
						  whole(c->scenario, exists(old_path) ? old_path : new_path, i),
					  "%s: %s is at both names or none", c->point, old_path);
			break;
		case REMOVES:
			if (i < told->done)
				cr_assert(!exists(old_path), "%s: %s was removed and is back", c->point, old_path);
			else if (i >= told->begun)
				cr_assert(whole(c->scenario, old_path, i), "%s: %s was not removed and is gone",
					  c->point, old_path);
			break;
		}
	}
}

/* A closed file that nobody wrote again has one version, however often its upload was begun. */
static void check_once(const struct mounted *m, const struct crash_case *c, const struct told *told)
{
	char path[400];
	int per_file = c->scenario == FSYNCS ? 2 : 1;

	for (int i = 0; i < told->done && c->scenario != RENAMES && c->scenario != REMOVES; i++) {
		int count = 0;
		char *names;

		snprintf(path, sizeof(path), "%s/.versions/f%02d", m->dir, i);
		names = dir_names(path);
		for (const char *at = names; *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : at + strlen(at))
			count++;
		cr_assert(count >= 1 && count <= per_file, "%s: f%02d has %d versions: %s", c->point, i, count, names);
		free(names);
	}
}

/* Parts that nobody will ever use cost money. */
static void check_no_uploads(const struct mounted *m, const struct crash_case *c)
{
	char command[200];

	for (int i = 0; i < LARGE_FILES && c->scenario == STREAMS; i++) {
		snprintf(command, sizeof(command),
			 "test -z \"$(\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" uploads f%02d)\"", i);
		cr_assert_eq(mounted_shell(m, command, NULL, 0), 0, "%s: an upload of f%02d is left", c->point, i);
	}
}

/* What the log tells by now. */
static void check_no_facts(const struct mounted *m, const struct crash_case *c)
{
	if (c->scenario == STREAMS)
		cr_assert_neq(mounted_shell(m,
					    "\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" reserved | "
					    "grep '^.varve/facts/'",
					    NULL, 0),
			      0, "%s: facts are left", c->point);
}

static void check_from_bucket(struct mounted *m, const struct crash_case *c, const struct told *told)
{
	cr_assert_eq(mounted_shell(m, "rm -rf \"$STATE\"", NULL, 0), 0);
	mounted_start(m, NULL);
	check_files(m, c, told);
	check_once(m, c, told); /* from the store's own list of versions */
	cr_assert_eq(mounted_stop(m), 0);
}

static void prepare(struct mounted *m, const struct crash_case *c)
{
	if (c->scenario != RENAMES && c->scenario != REMOVES)
		return;
	mounted_start(m, NULL);
	for (int i = 0; i < FILES; i++) {
		char path[400];

		name_of(m, "f", i, path, sizeof(path));
		cr_assert_eq(write_one(path, i, WRITES), 0);
	}
	cr_assert_eq(mounted_stop(m), 0);
}

#define CASES(store)                                                                                                   \
	{"data-written:3", WRITES, store}, {"journal-committed:4", WRITES, store},                                     \
		{"version-committed:4", WRITES, store}, {"upload-started", WRITES, store},                             \
		{"upload-started:5", WRITES, store}, {"upload-sent", WRITES, store}, {"upload-sent:5", WRITES, store}, \
		{"version-recorded:3", WRITES, store}, {"journal-retired:3", WRITES, store},                           \
		{"cache-synced:3", FSYNCS, store}, {"upload-sent:3", FSYNCS, store},                                   \
		{"relocation-copied:2", RENAMES, store}, {"relocation-recorded:2", RENAMES, store},                    \
		{"key-removed:2", RENAMES, store},                                                                     \
	{                                                                                                              \
		"key-removed:2", REMOVES, store                                                                        \
	}

#define STREAM_CASES(store)                                                                                            \
	{"stream-begun:2", STREAMS, store}, {"stream-part-sent:3", STREAMS, store},                                    \
		{"stream-claimed:2", STREAMS, store}, {"stream-told:2", STREAMS, store},                               \
		{"facts-shipped", STREAMS, store}, {"facts-removed", STREAMS, store},                                  \
	{                                                                                                              \
		"stream-completed:2", STREAMS, store                                                                   \
	}

static struct crash_case cases[] = {CASES(MOUNTED_LOCAL), CASES(MOUNTED_S3), CASES(MOUNTED_S3_UNVERSIONED),
				    STREAM_CASES(MOUNTED_S3), STREAM_CASES(MOUNTED_S3_UNVERSIONED)};

ParameterizedTestParameters(points, killed_at)
{
	return cr_make_param_array(struct crash_case, cases, sizeof(cases) / sizeof(cases[0]));
}

ParameterizedTest(struct crash_case *c, points, killed_at, .timeout = 240)
{
	struct told *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct mounted m;

	mounted_new(&m, c->store);
	prepare(&m, c);
	mounted_kill_at(c->point);
	mounted_start(&m, c->scenario == FSYNCS && strncmp(c->point, "cache-synced", 12) == 0 ? "fsync=disk" : NULL);
	run_until_death(&m, c->scenario, told);
	cr_assert(mounted_died(&m, 90), "the daemon was not killed at %s", c->point);
	cr_assert_gt(told->begun, 0);

	mounted_start(&m, NULL);
	check_files(&m, c, told);
	check_once(&m, c, told);
	mounted_settle(&m, 60);
	check_files(&m, c, told);
	check_once(&m, c, told);
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean after %s",
		     c->point);
	check_no_uploads(&m, c);
	check_no_facts(&m, c);
	check_from_bucket(&m, c, told);
	mounted_free(&m);
}

/* --- renamed on while the copy was under way, and then the plug ------------------------------------------------- */

static struct mounted moved;

static void leave_moved(void)
{
	mounted_free(&moved);
}

/* A mount on what `make` has made, whose replies take their time and which dies at the point. */
static void start_slow(struct proxy *proxy, char options[static 128], const char *point, const char *make)
{
	proxy_new(proxy);
	snprintf(options, 128, "endpoint=%s", proxy->endpoint);
	mounted_new(&moved, MOUNTED_S3);
	mounted_start(&moved, options);
	cr_assert_eq(mounted_shell(&moved, make, NULL, 0), 0);
	mounted_settle(&moved, 30);
	mounted_kill(&moved);
	mounted_kill_at(point);
	mounted_start(&moved, options);
	mounted_kill_at(NULL);
	proxy_toxic(proxy, "latency", "\"latency\":3000"); /* what is done meanwhile is done in time */
}

/* The copy or marker reached the store and nothing here knows of it: the next process must not leave it lying there. */
static void renamed_on(const char *point, const char *make)
{
	struct proxy proxy;
	char options[128], *keys;

	start_slow(&proxy, options, point, make);
	cr_assert_eq(rename(mounted_path(&moved, "one"), mounted_path(&moved, "two")), 0);
	usleep(300000);
	cr_assert_eq(rename(mounted_path(&moved, "two"), mounted_path(&moved, "three")), 0);
	cr_assert(mounted_died(&moved, 90), "%s was not passed", point);
	proxy_clear(&proxy);
	mounted_start(&moved, options);
	mounted_settle(&moved, 30);
	keys = s3_ask(&moved, "keys");
	cr_assert(!strstr(keys, "one") && !strstr(keys, "two") && strstr(keys, "three"), "%s: %s", point, keys);
	free(keys);
	cr_assert_eq(mounted_stop(&moved), 0);
	cr_assert_eq(mounted_shell(&moved, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0);
}

Test(moved, a_file_renamed_on_leaves_no_copy, .fini = leave_moved, .timeout = 240)
{
	renamed_on("relocation-copied", "echo content >\"$MNT/one\"");
}

Test(moved, a_directory_renamed_on_leaves_no_marker, .fini = leave_moved, .timeout = 240)
{
	renamed_on("small-sent", "mkdir \"$MNT/one\"");
}

/* The marker of a new directory is in the store and not recorded, and by the next try the directory needs none. */
Test(moved, a_directory_that_was_filled_meanwhile_leaves_no_marker, .fini = leave_moved, .timeout = 240)
{
	struct proxy proxy;
	char options[128], *keys;

	start_slow(&proxy, options, "small-sent", "echo first >\"$MNT/first\"");
	cr_assert_eq(mounted_shell(&moved, "mkdir \"$MNT/one\" && sleep 0.3 && echo f >\"$MNT/one/f\"", NULL, 0), 0);
	cr_assert(mounted_died(&moved, 90));
	proxy_clear(&proxy);
	mounted_start(&moved, options);
	mounted_settle(&moved, 30);
	keys = s3_ask(&moved, "keys");
	cr_assert_str_eq(keys, "first\none/f");
	free(keys);
	cr_assert_eq(mounted_stop(&moved), 0);
	proxy_free(&proxy);
}
