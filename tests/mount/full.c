/*
 * full.c - the disk under the state directory is full, at every step of a short scenario.
 *
 * The catalog, the cache, or both lie on a tmpfs of their own. For each amount of free space from nothing upward the
 * tmpfs is filled so far, the scenario runs, and the space is freed again. A step ends well or with ENOSPC; what ended
 * well is there afterwards, what did not has changed nothing or, within the bytes it was about, something. Afterwards
 * the same mount works on, stores everything, and is whole for fsck, a kill, and a rebuild.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define STEP_MS_MAX 45000 /* bounded, and generously: a writer waits for uploads to make room */
#define SIZE 40000u
#define STRIDE (UINT64_C(1) << 20)

static struct mounted m;
static char disk[400]; /* the tmpfs */
static unsigned round_number;
static unsigned failed_steps, steps;
static char old_bytes[SIZE], new_bytes[SIZE];

static void leave(void)
{
	if (m.pid)
		mounted_kill(&m);
	(void)umount2(m.dir, MNT_DETACH);
	if (disk[0])
		(void)umount2(disk, MNT_DETACH);
	mounted_free(&m);
}

TestSuite(full, .fini = leave, .timeout = 400);

static const char *at(const char *name)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%u-%s", round_number, name);
	return mounted_path(&m, path);
}

/* --- space ------------------------------------------------------------------------------------------------- */

static void leave_free(uint64_t bytes)
{
	struct statvfs vfs;
	uint64_t have;
	char path[500];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/ballast", disk);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	for (uint64_t taken = 0;;) { /* the daemon takes and frees some itself meanwhile */
		cr_assert_eq(fstatvfs(fd, &vfs), 0);
		have = (uint64_t)vfs.f_bavail * vfs.f_frsize;
		if (have <= bytes)
			break;
		have -= bytes;
		if (fallocate(fd, 0, (off_t)taken, (off_t)(have > STRIDE ? STRIDE : have)) == 0)
			taken += have > STRIDE ? STRIDE : have;
	}
	close(fd);
}

static void free_all(void)
{
	char path[500];

	(void)snprintf(path, sizeof(path), "%s/ballast", disk);
	cr_assert_eq(unlink(path), 0);
}

/* --- steps ------------------------------------------------------------------------------------------------- */

struct step {
	const char *name;
	bool done;
};

/* `ok` is what the call said, errno why not. True when it is done. */
static bool step(const char *name, bool ok, long began)
{
	int err = errno;
	long took = now_ms() - began;

	steps++;
	cr_assert_lt(took, STEP_MS_MAX, "round %u: %s took %ld ms", round_number, name, took);
	if (ok)
		return true;
	failed_steps++;
	cr_assert(err == ENOSPC || err == EIO, "round %u: %s: %s", round_number, name, strerror(err));
	if (getenv("VARVE_TEST_KEEP"))
		fprintf(stderr, "round %u: %s: %s after %ld ms\n", round_number, name, strerror(err), took);
	return false;
}

#define STEP(call)                                                                                                     \
	({                                                                                                             \
		long began_ = now_ms();                                                                                \
		step(#call, (call) >= 0, began_);                                                                      \
	})

/* Writes all of it; false when some of it could not be. */
static bool put(int fd, const char *bytes, size_t len, off_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t n;
		bool ok = STEP(n = pwrite(fd, bytes + done, len - done, offset + (off_t)done));

		if (!ok)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* The whole of a save: true when it was acknowledged. */
static bool save(const char *path, int flags, const char *bytes, size_t len, off_t offset)
{
	int fd = -1;
	bool ok = STEP(fd = open(path, O_WRONLY | flags, 0644));

	if (!ok)
		return false;
	ok = put(fd, bytes, len, offset);
	return STEP(close(fd)) && ok;
}

struct outcome {
	bool created, saved_twice, overwritten, appended, renamed, unlinked, truncated, directory, symlink, mode, xattr,
		synced, replaced, allocated;
};

static bool save_twice(void)
{
	bool ok = save(at("twice"), O_CREAT, old_bytes, SIZE, 0);

	for (int i = 0; i < 3 && ok; i++) /* the version before may not be stored: it gets a file of its own first */
		ok = save(at("twice"), 0, new_bytes, 9000, i * 9000);
	return ok;
}

static bool replace(void)
{
	return save(at("replacement"), O_CREAT | O_TRUNC, new_bytes, SIZE, 0) &&
	       STEP(rename(at("replacement"), at("replaced")));
}

static bool synced(void)
{
	int fd = -1;
	bool ok = STEP(fd = open(at("synced"), O_WRONLY | O_CREAT, 0644));

	if (!ok)
		return false;
	ok = put(fd, new_bytes, SIZE, 0) && STEP(fsync(fd));
	(void)STEP(close(fd));
	return ok;
}

static bool allocate(void)
{
	int fd = -1;
	bool ok = STEP(fd = open(at("allocated"), O_RDWR));

	if (!ok)
		return false;
	ok = STEP(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192));
	return STEP(close(fd)) && ok;
}

/* What it shows is right, or it fails. */
static void read_the_past(void)
{
	char path[80];
	char *bytes;
	size_t len;

	(void)snprintf(path, sizeof(path), ".versions/%u-past/-2", round_number);
	errno = 0;
	bytes = file_read(mounted_path(&m, path), &len);
	if (step("read of an old version", bytes != NULL, now_ms()))
		cr_assert(len == SIZE && memcmp(bytes, old_bytes, SIZE) == 0, "round %u: the past is wrong",
			  round_number);
	free(bytes);
}

static void look_around(void)
{
	char *names = dir_names(m.dir);
	struct stat st;

	cr_assert(strstr(names, "0-past"), "%s", names);
	free(names);
	cr_assert_eq(stat(at("past"), &st), 0, "round %u: %s", round_number, strerror(errno));
}

static void prepare(void)
{
	static const char *const names[] = {"overwritten", "appended", "renamed", "unlinked",
					    "truncated",   "replaced", "past",    "allocated"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		file_write(at(names[i]), old_bytes, SIZE);
	file_write(at("past"), new_bytes, SIZE);
	mounted_settle(&m, 60);
}

static struct outcome scenario(void)
{
	struct outcome did = {0};

	did.created = save(at("created"), O_CREAT, new_bytes, SIZE, 0);
	did.overwritten = save(at("overwritten"), 0, new_bytes + 4096, 8192, 4096);
	did.appended = save(at("appended"), O_APPEND, new_bytes, 5000, SIZE);
	did.renamed = STEP(rename(at("renamed"), at("renamed-to")));
	did.unlinked = STEP(unlink(at("unlinked")));
	did.truncated = STEP(truncate(at("truncated"), 100));
	did.allocated = allocate();
	read_the_past();
	did.directory = STEP(mkdir(at("directory"), 0755));
	did.symlink = STEP(symlink("target", at("symlink")));
	did.mode = STEP(chmod(at("past"), 0600));
	did.xattr = STEP(setxattr(at("past"), "user.note", "x", 1, 0));
	did.saved_twice = save_twice();
	did.replaced = replace();
	did.synced = synced();
	look_around();
	return did;
}

/* --- afterwards -------------------------------------------------------------------------------------------- */

static void same_when(bool sure, const char *name, const char *expected, size_t len)
{
	cr_assert(!sure || file_is(at(name), expected, len), "round %u: %s is not as it was acknowledged", round_number,
		  name);
}

/* It was about [start, end) of a file that was old: there are old or new bytes, elsewhere the old ones. */
static void changed_within(const char *name, size_t start, size_t end)
{
	size_t len = 0;
	char *bytes = file_read(at(name), &len);

	cr_assert(bytes, "round %u: %s: %s", round_number, name, strerror(errno));
	cr_assert_geq(len, SIZE, "round %u: %s has %zu bytes", round_number, name, len);
	for (size_t i = 0; i < len; i++) {
		char old = i < SIZE ? old_bytes[i] : 0, new = i < SIZE ? new_bytes[i] : new_bytes[i - SIZE];

		cr_assert(bytes[i] == old || (i >= start && i < end && bytes[i] == new),
			  "round %u: %s has a strange byte at %zu", round_number, name, i);
	}
	free(bytes);
}

/* A file that could not be written is not there, or begins as it should. */
static void begins_with(const char *name, const char *expected)
{
	size_t len = 0;
	char *bytes = file_read(at(name), &len);

	cr_assert(!bytes || (len <= SIZE && memcmp(bytes, expected, len) == 0), "round %u: %s is strange", round_number,
		  name);
	free(bytes);
}

static void check_contents(const struct outcome *did)
{
	static char expected[SIZE + 5000];

	same_when(did->created, "created", new_bytes, SIZE);
	begins_with("created", new_bytes);
	memcpy(expected, old_bytes, SIZE);
	memcpy(expected + 4096, new_bytes + 4096, 8192);
	same_when(did->overwritten, "overwritten", expected, SIZE);
	changed_within("overwritten", 4096, 4096 + 8192);
	memcpy(expected, old_bytes, SIZE);
	memset(expected + 4096, 0, 8192);
	same_when(did->allocated, "allocated", expected, SIZE);
	memcpy(expected, old_bytes, SIZE);
	memcpy(expected + SIZE, new_bytes, 5000);
	same_when(did->appended, "appended", expected, SIZE + 5000);
	changed_within("appended", SIZE, SIZE + 5000);
	memcpy(expected, old_bytes, SIZE);
	for (int i = 0; i < 3; i++)
		memcpy(expected + i * 9000, new_bytes, 9000);
	same_when(did->saved_twice, "twice", expected, SIZE);
	same_when(did->synced, "synced", new_bytes, SIZE);
	same_when(did->replaced, "replaced", new_bytes, SIZE);
	same_when(!did->replaced, "replaced", old_bytes, SIZE);
}

static void check(const struct outcome *did)
{
	struct stat st;

	check_contents(did);
	same_when(did->renamed, "renamed-to", old_bytes, SIZE);
	same_when(!did->renamed, "renamed", old_bytes, SIZE);
	cr_assert_eq(stat(at("renamed"), &st) == 0, !did->renamed, "round %u", round_number);
	cr_assert_eq(stat(at("unlinked"), &st) == 0, !did->unlinked, "round %u", round_number);
	cr_assert_eq(stat(at("directory"), &st) == 0, did->directory, "round %u", round_number);
	cr_assert_eq(lstat(at("symlink"), &st) == 0, did->symlink, "round %u", round_number);
	same_when(did->truncated, "truncated", old_bytes, 100);
	same_when(!did->truncated, "truncated", old_bytes, SIZE);
	same_when(true, "past", new_bytes, SIZE);
	cr_assert_eq(stat(at("past"), &st), 0);
	cr_assert_eq((st.st_mode & 0777) == 0600, did->mode, "round %u", round_number);
	cr_assert_eq(getxattr(at("past"), "user.note", NULL, 0) == 1, did->xattr, "round %u", round_number);
}

/* Space is there again: what is asked for now must succeed. */
static void works_on(void)
{
	file_write(at("after"), new_bytes, SIZE);
	same_when(true, "after", new_bytes, SIZE);
	mounted_settle(&m, 60);
}

/* --- trials ------------------------------------------------------------------------------------------------ */

static const uint64_t room[] = {0,        4 << 10,   8 << 10,   16 << 10,  32 << 10,  64 << 10,
				96 << 10, 160 << 10, 256 << 10, 384 << 10, 640 << 10, 16 << 20};
#define ROUNDS (sizeof(room) / sizeof(room[0]))

static void make_disk(const char *part, const char *size)
{
	char options[32];

	(void)snprintf(options, sizeof(options), "size=%s,mode=700", size);
	cr_assert_eq(mkdir(m.state, 0700), 0);
	(void)snprintf(disk, sizeof(disk), "%s%s", m.state, part);
	if (*part)
		cr_assert_eq(mkdir(disk, 0700), 0);
	cr_assert_eq(mount("tmpfs", disk, "tmpfs", 0, options), 0, "%s", strerror(errno));
}

static void end_whole(struct outcome *did)
{
	char command[600];

	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	cr_assert_eq(umount2(disk, 0), 0, "%s", strerror(errno));
	disk[0] = '\0';
	(void)snprintf(command, sizeof(command), "rm -rf \"$STATE\"");
	cr_assert_eq(mounted_shell(&m, command, NULL, 0), 0);
	mounted_start(&m, "reserve=0");
	for (round_number = 0; round_number < ROUNDS; round_number++)
		check(&did[round_number]);
	cr_assert_eq(mounted_stop(&m), 0);
}

static void run(enum mounted_store store, const char *part)
{
	struct outcome did[ROUNDS];

	fill_random(old_bytes, SIZE, 1);
	fill_random(new_bytes, SIZE, 2);
	mounted_new(&m, store);
	make_disk(part, "40M");
	mounted_start(&m, "reserve=0,cache_size=16M");
	for (round_number = 0; round_number < ROUNDS; round_number++) {
		prepare();
		leave_free(room[round_number]);
		failed_steps = steps = 0;
		did[round_number] = scenario();
		if (round_number % 3 == 1) {
			mounted_kill(&m);
			free_all();
			mounted_start(&m, "reserve=0,cache_size=16M");
		} else {
			free_all();
		}
		cr_assert(room[round_number] || failed_steps, "nothing failed on a full disk");
		check(&did[round_number]);
		works_on();
		check(&did[round_number]);
	}
	cr_assert_eq(failed_steps, 0, "with 16 MiB free %u steps failed", failed_steps);
	end_whole(did);
}

Test(full, catalog_and_cache)
{
	run(MOUNTED_LOCAL, "");
}

Test(full, catalog_and_cache_before_a_bucket)
{
	run(MOUNTED_S3, "");
}

Test(full, cache)
{
	run(MOUNTED_LOCAL, "/cache");
}

Test(full, catalog)
{
	run(MOUNTED_S3_UNVERSIONED, "/catalog");
}

/* A rebuild into too little room fails with a word, and with enough it brings everything. */
Test(full, rebuild)
{
	char path[32], line[2048], size[32];
	bool rebuilt = false;

	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, NULL);
	for (int i = 0; i < 300; i++) {
		(void)snprintf(path, sizeof(path), "f%03d", i);
		file_puts(mounted_path(&m, path), path);
	}
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0), 0);
	make_disk("", "64k");
	for (unsigned kib = 64; !rebuilt; kib *= 2) {
		cr_assert_leq(kib, 64u << 10);
		(void)snprintf(size, sizeof(size), "size=%uk", kib);
		cr_assert_eq(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, size), 0);
		(void)mounted_shell(&m,
				    "rm -f \"$ROOT/varve.log\"; timeout 60 \"$VARVE\" mount \"$URL\" \"$MNT\" -o "
				    "\"state=$STATE,reserve=0,cache_size=16M\" 2>\"$ROOT/varve.log\"",
				    line, sizeof(line));
		rebuilt = mounted_shell(&m, "mountpoint -q \"$MNT\"", NULL, 0) == 0;
		cr_assert(rebuilt || mounted_shell(&m, "grep -q 'No space left' \"$ROOT/varve.log\"", NULL, 0) == 0,
			  "with %u KiB it does not say why", kib);
		if (getenv("VARVE_TEST_KEEP"))
			(void)mounted_shell(&m, "cat \"$ROOT/varve.log\" >&2; df \"$STATE\" >&2", NULL, 0);
		cr_assert(kib > 64 || !rebuilt);
	}
	cr_assert_eq(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, "size=64m"), 0);
	for (int i = 0; i < 300; i++) {
		(void)snprintf(path, sizeof(path), "f%03d", i);
		cr_assert(file_is(mounted_path(&m, path), path, 4), "%s", path);
	}
	cr_assert_eq(mounted_shell(&m, "timeout 60 \"$VARVE\" umount \"$MNT\" && \"$VARVE\" fsck \"$STATE\"", NULL, 0),
		     0);
}
