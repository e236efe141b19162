/*
 * posix.c - what applications expect of a filesystem, through a real mount on a file:// store.
 *
 * One mount for each test: tests must not see each other's files.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/mounted.h"

static struct mounted m;

static void setup(void)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, NULL);
}

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0, "fsck is not clean");
	mounted_free(&m);
}

TestSuite(posix, .init = setup, .fini = teardown, .timeout = 180);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))
#define FAILS(call, error)                                                                                             \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		cr_assert((call) < 0 && errno == (error), "%s: %s instead of %s", #call, strerror(errno), #error);     \
	} while (0)

static int open_at(const char *path, int flags)
{
	int fd = open(at(path), flags, 0644);

	cr_assert_geq(fd, 0, "open %s: %s", path, strerror(errno));
	return fd;
}

static int versions_of(const char *name)
{
	char path[600];
	char *names;
	int count = 0;

	snprintf(path, sizeof(path), "%s/.versions/%s", m.dir, name);
	names = dir_names(path);
	for (const char *p = names; *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : p + strlen(p))
		count++;
	free(names);
	return count;
}

static off_t size_of(const char *path)
{
	struct stat st;

	OK(stat(at(path), &st));
	return st.st_size;
}

Test(posix, writes_and_reads_back)
{
	static char bytes[3 << 20];

	fill_random(bytes, sizeof(bytes), 1);
	file_write(at("f"), bytes, sizeof(bytes));
	cr_assert(file_is(at("f"), bytes, sizeof(bytes)));
	cr_assert_eq(size_of("f"), sizeof(bytes));
}

Test(posix, overwrites_in_the_middle_and_beyond_the_end)
{
	int fd = open_at("f", O_RDWR | O_CREAT);
	char bytes[20] = {0};

	cr_assert_eq(pwrite(fd, "0123456789", 10, 0), 10);
	cr_assert_eq(pwrite(fd, "ab", 2, 4), 2);
	cr_assert_eq(pwrite(fd, "z", 1, 15), 1);
	cr_assert_eq(pread(fd, bytes, sizeof(bytes), 0), 16);
	cr_assert_eq(memcmp(bytes, "0123ab6789\0\0\0\0\0z", 16), 0);
	OK(close(fd));
}

static int64_t mtime_ns(const char *path)
{
	struct stat st;

	OK(stat(at(path), &st));
	return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

/* `: >stamp` is how make and others mark a time. */
Test(posix, truncating_to_the_same_size_is_a_change)
{
	int64_t before, after;
	int fd;

	OK(close(open_at("stamp", O_WRONLY | O_CREAT)));
	cr_assert_eq(versions_of("stamp"), 1);
	before = mtime_ns("stamp");
	usleep(20000);
	fd = open_at("stamp", O_WRONLY | O_TRUNC);
	after = mtime_ns("stamp");
	cr_assert_gt(after, before);
	OK(close(fd));
	cr_assert_geq(mtime_ns("stamp"), after);
	cr_assert_eq(versions_of("stamp"), 2);

	file_puts(at("f"), "text");
	before = mtime_ns("f");
	usleep(20000);
	fd = open_at("f", O_RDWR);
	OK(ftruncate(fd, 4));
	OK(close(fd));
	cr_assert_gt(mtime_ns("f"), before);
	cr_assert(file_is(at("f"), "text", 4));
}

Test(posix, appends_from_two_descriptors)
{
	int a = open_at("log", O_WRONLY | O_CREAT | O_APPEND), b = open_at("log", O_WRONLY | O_APPEND);

	cr_assert_eq(write(a, "one ", 4), 4);
	cr_assert_eq(write(b, "two ", 4), 4);
	cr_assert_eq(write(a, "three", 5), 5);
	OK(close(a));
	OK(close(b));
	cr_assert(file_is(at("log"), "one two three", 13));
}

Test(posix, truncates_both_ways)
{
	char zeros[100] = {0};
	int fd = open_at("f", O_RDWR | O_CREAT);

	cr_assert_eq(write(fd, "hello world", 11), 11);
	OK(ftruncate(fd, 5));
	OK(ftruncate(fd, 100));
	cr_assert_eq(pread(fd, zeros, 100, 0), 100);
	cr_assert_eq(memcmp(zeros, "hello\0\0\0\0\0\0", 11), 0);
	OK(close(fd));
	OK(truncate(at("f"), 3));
	cr_assert(file_is(at("f"), "hel", 3));
	cr_assert_eq(versions_of("f"), 2);
	fd = open_at("f", O_WRONLY | O_TRUNC);
	OK(close(fd));
	cr_assert_eq(size_of("f"), 0);
	cr_assert_eq(versions_of("f"), 3);
}

Test(posix, one_version_for_each_dirty_close_only)
{
	int fd;

	file_puts(at("f"), "1");
	fd = open_at("f", O_RDWR);
	OK(close(fd)); /* nothing written: no version */
	OK(chmod(at("f"), 0600));
	OK(rename(at("f"), at("g")));
	OK(rename(at("g"), at("f")));
	cr_assert_eq(versions_of("f"), 1);
	fd = open_at("f", O_RDWR);
	cr_assert_eq(write(fd, "2", 1), 1);
	OK(close(dup(fd))); /* a flush, not the last close */
	cr_assert_eq(write(fd, "3", 1), 1);
	OK(close(fd));
	cr_assert_eq(versions_of("f"), 2);
	cr_assert(file_is(at("f"), "23", 2));
}

Test(posix, flush_from_a_forked_child_is_not_the_last_close)
{
	int fd = open_at("f", O_RDWR | O_CREAT), status;
	pid_t pid = fork();

	if (pid == 0) {
		_exit(write(fd, "child", 5) != 5);
	}
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
	cr_assert_eq(write(fd, " parent", 7), 7);
	OK(close(fd));
	cr_assert(file_is(at("f"), "child parent", 12));
	cr_assert_eq(versions_of("f"), 1);
}

Test(posix, renames_files_with_all_flags)
{
	file_puts(at("a"), "A");
	file_puts(at("b"), "B");
	FAILS(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_NOREPLACE), EEXIST);
	OK(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_EXCHANGE));
	cr_assert(file_is(at("a"), "B", 1) && file_is(at("b"), "A", 1));
	OK(rename(at("a"), at("b")));
	FAILS(access(at("a"), F_OK), ENOENT);
	cr_assert(file_is(at("b"), "B", 1));
	OK(renameat2(AT_FDCWD, at("b"), AT_FDCWD, at("c"), RENAME_NOREPLACE));
	FAILS(rename(at("nothing"), at("c")), ENOENT);
}

Test(posix, renames_trees)
{
	OK(mkdir(at("d"), 0755));
	OK(mkdir(at("d/e"), 0755));
	file_puts(at("d/e/f"), "deep");
	OK(mkdir(at("full"), 0755));
	file_puts(at("full/x"), "x");
	FAILS(rename(at("d"), at("d/e/inside")), EINVAL);
	FAILS(rename(at("d"), at("full")), ENOTEMPTY);
	FAILS(rename(at("d"), at("full/x")), ENOTDIR);
	FAILS(rename(at("full/x"), at("d")), EISDIR);
	OK(rename(at("d"), at("full/d2")));
	cr_assert(file_is(at("full/d2/e/f"), "deep", 4));
	FAILS(access(at("d"), F_OK), ENOENT);
}

Test(posix, hard_links_share_one_file)
{
	struct stat a, b;

	file_puts(at("a"), "first");
	OK(link(at("a"), at("b")));
	OK(stat(at("a"), &a));
	OK(stat(at("b"), &b));
	cr_assert(a.st_ino == b.st_ino && a.st_nlink == 2);
	file_puts(at("b"), "second");
	cr_assert(file_is(at("a"), "second", 6));
	OK(unlink(at("a")));
	OK(stat(at("b"), &b));
	cr_assert(b.st_nlink == 1 && file_is(at("b"), "second", 6));
	FAILS(link(at("b"), at("b")), EEXIST);
}

Test(posix, symlinks_and_special_files)
{
	char target[64] = {0};
	struct stat st;

	OK(symlink("some/where else", at("l")));
	cr_assert_eq(readlink(at("l"), target, sizeof(target)), 15);
	cr_assert_str_eq(target, "some/where else");
	OK(lstat(at("l"), &st));
	cr_assert(S_ISLNK(st.st_mode) && st.st_size == 15);
	OK(mkfifo(at("p"), 0600));
	OK(lstat(at("p"), &st));
	cr_assert(S_ISFIFO(st.st_mode));
	OK(mknod(at("r"), S_IFREG | 0600, 0));
	cr_assert_eq(size_of("r"), 0);
}

Test(posix, unlinked_files_live_until_closed)
{
	int fd = open_at("f", O_RDWR | O_CREAT);
	char bytes[8] = {0};
	struct stat st;

	cr_assert_eq(write(fd, "alive", 5), 5);
	OK(unlink(at("f")));
	FAILS(access(at("f"), F_OK), ENOENT);
	cr_assert_eq(write(fd, "!", 1), 1);
	cr_assert_eq(pread(fd, bytes, 8, 0), 6);
	cr_assert_str_eq(bytes, "alive!");
	OK(fstat(fd, &st));
	cr_assert_eq(st.st_nlink, 0);
	file_puts(at("f"), "another");
	OK(close(fd));
	cr_assert(file_is(at("f"), "another", 7));
	mounted_settle(&m, 30);
	cr_assert_eq(versions_of("f"), 1, "what was unlinked before its first close is never stored");
}

Test(posix, replaced_open_files_keep_their_bytes)
{
	int fd;
	char bytes[8] = {0};

	file_puts(at("f"), "old");
	fd = open_at("f", O_RDONLY);
	file_puts(at("t"), "new");
	OK(rename(at("t"), at("f")));
	cr_assert_eq(read(fd, bytes, 8), 3);
	cr_assert_str_eq(bytes, "old");
	OK(close(fd));
	cr_assert(file_is(at("f"), "new", 3));
	cr_assert_eq(versions_of("f"), 2);
}

Test(posix, directories)
{
	struct stat st;

	OK(mkdir(at("d"), 0750));
	FAILS(mkdir(at("d"), 0750), EEXIST);
	file_puts(at("d/f"), "x");
	FAILS(rmdir(at("d")), ENOTEMPTY);
	FAILS(unlink(at("d")), EISDIR);
	FAILS(rmdir(at("d/f")), ENOTDIR);
	OK(stat(at("d"), &st));
	cr_assert(st.st_nlink == 2 && (st.st_mode & 07777) == 0750);
	OK(mkdir(at("d/sub"), 0700));
	OK(stat(at("d"), &st));
	cr_assert_eq(st.st_nlink, 3);
	OK(unlink(at("d/f")));
	OK(rmdir(at("d/sub")));
	OK(rmdir(at("d")));
	FAILS(stat(at("d"), &st), ENOENT);
}

Test(posix, readdir_while_entries_come_and_go)
{
	char path[300];
	int seen = 0, old = 0;
	DIR *dir;

	OK(mkdir(at("d"), 0755));
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "d/old%04d", i);
		OK(close(open_at(path, O_WRONLY | O_CREAT)));
	}
	dir = opendir(at("d"));
	for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
		old += strncmp(e->d_name, "old", 3) == 0;
		if (++seen % 100 == 0) {
			snprintf(path, sizeof(path), "d/new%04d", seen);
			OK(close(open_at(path, O_WRONLY | O_CREAT)));
			snprintf(path, sizeof(path), "d/%s", e->d_name);
			if (strncmp(e->d_name, "old", 3) == 0)
				OK(unlink(at(path)));
		}
	}
	OK(closedir(dir));
	cr_assert_eq(old, 3000, "every entry that was there all the time is seen exactly once: %d", old);
}

Test(posix, long_and_odd_names)
{
	char name[257];

	memset(name, 'n', 256);
	name[255] = '\0';
	file_puts(at(name), "long");
	cr_assert(file_is(at(name), "long", 4));
	name[255] = 'n';
	name[256] = '\0';
	FAILS(open(at(name), O_CREAT | O_WRONLY, 0600), ENAMETOOLONG);
	file_puts(at("sp ace\ttab\nnl"), "odd");
	FAILS(open(at("%~x"), O_CREAT | O_WRONLY, 0600), EINVAL); /* the marker of escaped keys: escape.h */
	file_puts(at("\xff\xfe"), "bytes");
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	cr_assert(file_is(at("sp ace\ttab\nnl"), "odd", 3));
	cr_assert(file_is(at("\xff\xfe"), "bytes", 5));
}

Test(posix, attributes_and_times_to_the_nanosecond)
{
	struct timespec times[2] = {{.tv_sec = 1000000000, .tv_nsec = 123456789},
				    {.tv_sec = 1500000000, .tv_nsec = 987654321}};
	struct stat st;

	file_puts(at("f"), "x");
	OK(chmod(at("f"), 0604));
	OK(chown(at("f"), 12, 34));
	OK(utimensat(AT_FDCWD, at("f"), times, 0));
	OK(stat(at("f"), &st));
	cr_assert((st.st_mode & 07777) == 0604 && st.st_uid == 12 && st.st_gid == 34);
	cr_assert(st.st_mtim.tv_sec == 1500000000 && st.st_mtim.tv_nsec == 987654321);
	cr_assert(st.st_atim.tv_sec == 1000000000 && st.st_atim.tv_nsec == 123456789);
	OK(mounted_stop(&m));
	mounted_start(&m, NULL);
	OK(stat(at("f"), &st));
	cr_assert(st.st_mtim.tv_nsec == 987654321 && st.st_uid == 12 && (st.st_mode & 07777) == 0604);
}

Test(posix, futimens_before_close_is_what_stays)
{
	struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1234567890, .tv_nsec = 5}};
	int fd = open_at("f", O_WRONLY | O_CREAT);
	struct stat st;

	cr_assert_eq(write(fd, "x", 1), 1);
	OK(futimens(fd, times));
	OK(close(fd));
	OK(stat(at("f"), &st));
	cr_assert(st.st_mtim.tv_sec == 1234567890 && st.st_mtim.tv_nsec == 5);
}

Test(posix, xattrs)
{
	char value[256], names[512];
	ssize_t n;

	file_puts(at("f"), "x");
	OK(setxattr(at("f"), "user.colour", "blue", 4, XATTR_CREATE));
	FAILS(setxattr(at("f"), "user.colour", "red", 3, XATTR_CREATE), EEXIST);
	FAILS(setxattr(at("f"), "user.none", "red", 3, XATTR_REPLACE), ENODATA);
	cr_assert_eq(getxattr(at("f"), "user.colour", NULL, 0), 4, "size query");
	FAILS(getxattr(at("f"), "user.colour", value, 2), ERANGE);
	cr_assert_eq(getxattr(at("f"), "user.colour", value, sizeof(value)), 4);
	cr_assert_eq(memcmp(value, "blue", 4), 0);
	n = listxattr(at("f"), names, sizeof(names));
	cr_assert(n == 12 && strcmp(names, "user.colour") == 0, "no foreign attribute is listed");
	cr_assert_gt(getxattr(at("f"), "user.varve.seq", value, sizeof(value)), 0);
	FAILS(setxattr(at("f"), "user.varve.seq", "1", 1, 0), EPERM);
	FAILS(getxattr(at("f"), "user.absent", value, sizeof(value)), ENODATA);
	OK(removexattr(at("f"), "user.colour"));
	FAILS(removexattr(at("f"), "user.colour"), ENODATA);
	FAILS(setxattr(at("f"), "system.other", "1", 1, 0), EOPNOTSUPP);
}

Test(posix, holes_punching_and_seeking)
{
	static char block[65536], back[65536 * 4];
	int fd = open_at("f", O_RDWR | O_CREAT);

	memset(block, 'd', sizeof(block));
	cr_assert_eq(pwrite(fd, block, sizeof(block), 0), (ssize_t)sizeof(block));
	cr_assert_eq(pwrite(fd, block, sizeof(block), 3 * 65536), (ssize_t)sizeof(block));
	cr_assert_eq(lseek(fd, 0, SEEK_HOLE), 65536);
	cr_assert_eq(lseek(fd, 65536, SEEK_DATA), 3 * 65536);
	cr_assert_eq(lseek(fd, 3 * 65536, SEEK_HOLE), 4 * 65536);
	FAILS(lseek(fd, 4 * 65536, SEEK_DATA), ENXIO);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536));
	cr_assert_eq(pread(fd, back, sizeof(back), 0), (ssize_t)sizeof(back));
	for (size_t i = 0; i < 3 * 65536; i++)
		cr_assert_eq(back[i], 0);
	OK(fallocate(fd, 0, 0, 5 * 65536));
	cr_assert_eq(size_of("f"), 5 * 65536);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 6 * 65536));
	cr_assert_eq(size_of("f"), 5 * 65536);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * 65536, 4096));
	cr_assert(pread(fd, back, 4097, 3 * 65536) == 4097 && back[0] == 0 && back[4096] == 'd');
	FAILS(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
	OK(close(fd));
}

Test(posix, mmap_both_ways)
{
	int fd = open_at("f", O_RDWR | O_CREAT);
	char *map, bytes[6] = {0};

	OK(ftruncate(fd, 8192));
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(map, MAP_FAILED);
	memcpy(map + 4000, "mapped", 6);
	OK(msync(map, 8192, MS_SYNC));
	cr_assert_eq(pread(fd, bytes, 6, 4000), 6);
	cr_assert_eq(memcmp(bytes, "mapped", 6), 0);
	cr_assert_eq(pwrite(fd, "written", 7, 100), 7);
	cr_assert_eq(memcmp(map + 100, "written", 7), 0);
	memcpy(map + 5000, "later", 5);
	OK(close(fd)); /* the mapping outlives the descriptor */
	memcpy(map + 6000, "latest", 6);
	OK(munmap(map, 8192));
	fd = open_at("f", O_RDONLY);
	cr_assert(pread(fd, bytes, 6, 6000) == 6 && memcmp(bytes, "latest", 6) == 0);
	OK(close(fd));
	OK(mounted_stop(&m));
	OK(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0));
	mounted_start(&m, NULL);
	fd = open_at("f", O_RDONLY);
	cr_assert(pread(fd, bytes, 6, 6000) == 6 && memcmp(bytes, "latest", 6) == 0);
	OK(close(fd));
}

Test(posix, locks)
{
	int a = open_at("f", O_RDWR | O_CREAT), b = open_at("f", O_RDWR), status;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	pid_t pid;

	OK(flock(a, LOCK_EX));
	FAILS(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(flock(a, LOCK_UN));
	OK(flock(b, LOCK_EX | LOCK_NB));
	OK(fcntl(a, F_SETLK, &lock));
	pid = fork();
	if (pid == 0)
		_exit(fcntl(b, F_SETLK, &lock) == 0 ? 1 : errno == EAGAIN || errno == EACCES ? 0 : 2);
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
	OK(close(a));
	OK(close(b));
}

Test(posix, copy_file_range_and_statfs)
{
	static char bytes[2 << 20];
	struct statvfs vfs;
	off_t in = 0, out = 0;
	int a, b;

	fill_random(bytes, sizeof(bytes), 7);
	file_write(at("a"), bytes, sizeof(bytes));
	a = open_at("a", O_RDONLY);
	b = open_at("b", O_RDWR | O_CREAT);
	while (in < (off_t)sizeof(bytes))
		cr_assert_gt(copy_file_range(a, &in, b, &out, sizeof(bytes) - (size_t)in, 0), 0);
	OK(close(a));
	OK(close(b));
	cr_assert(file_is(at("b"), bytes, sizeof(bytes)));
	OK(statvfs(m.dir, &vfs));
	cr_assert(vfs.f_namemax == 255 && vfs.f_bavail > 0);
}

Test(posix, fsync_means_stored)
{
	int fd = open_at("f", O_RDWR | O_CREAT);
	char state[16] = {0};

	cr_assert_eq(write(fd, "kept", 4), 4);
	OK(fsync(fd));
	cr_assert_gt(getxattr(at("f"), "user.varve.state", state, sizeof(state) - 1), 0);
	cr_assert_str_eq(state, "stored");
	OK(mounted_shell(&m, "grep -q kept \"$ROOT/store/f\"", NULL, 0));
	cr_assert_eq(write(fd, " more", 5), 5);
	OK(close(fd));
	cr_assert(file_is(at("f"), "kept more", 9));
	cr_assert_eq(versions_of("f"), 2);
	fd = open(m.dir, O_RDONLY | O_DIRECTORY);
	OK(fsync(fd));
	OK(close(fd));
}

Test(posix, the_past_is_read_only)
{
	char *names, path[700];

	file_puts(at("f.txt"), "1");
	file_puts(at("f.txt"), "22");
	names = dir_names(at(".versions/f.txt"));
	*strchr(names, '\n') = '\0';
	snprintf(path, sizeof(path), ".versions/f.txt/%s", names);
	cr_assert(file_is(at(path), "1", 1));
	cr_assert(file_is(at(".versions/f.txt/-1"), "22", 2));
	cr_assert(file_is(at(".versions/f.txt/-2"), "1", 1));
	FAILS(open(at(path), O_WRONLY), EROFS);
	FAILS(open(at(".versions/f.txt/new"), O_WRONLY | O_CREAT, 0600), EROFS);
	FAILS(unlink(at(path)), EROFS);
	FAILS(mkdir(at(".versions/d"), 0700), EROFS);
	FAILS(rename(at(path), at("out")), EROFS);
	FAILS(chmod(at(path), 0600), EROFS);
	free(names);
	names = dir_names(m.dir);
	cr_assert_str_eq(names, "f.txt", ".versions is hidden from readdir");
	free(names);
}

Test(posix, reserved_names_are_refused)
{
	FAILS(mkdir(at(".varve"), 0700), EPERM);
	FAILS(open(at(".versions"), O_CREAT | O_WRONLY, 0600), EISDIR);
	FAILS(access(at(".varve"), F_OK), ENOENT);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	OK(stat(at(path), &st));
	return st.st_mode & 07777;
}

/* The kernel leaves it to us, so that it need not ask for security.capability before each write. */
Test(posix, what_another_writes_or_root_gives_away_runs_as_nobody_else)
{
	int fd, in, status;
	pid_t other;

	cr_assert_eq(mounted_stop(&m), 0);
	mounted_start(&m, "allow_other");
	file_puts(at("f"), "program");
	file_puts(at("g"), "program");
	OK(chmod(m.dir, 0777));
	file_puts(at("h"), "program");
	file_puts(at("i"), "program");
	OK(chmod(at("f"), 06777));
	OK(chmod(at("g"), 06777));
	OK(chmod(at("h"), 06777));
	OK(chmod(at("i"), 06767)); /* setgid without execution stands for something else */
	cr_assert_eq(mode_of("f"), 06777);
	fd = open_at("f", O_WRONLY);
	cr_assert_eq(write(fd, "P", 1), 1);
	OK(close(fd));
	cr_assert_eq(mode_of("f"), 06777, "root's own write takes nothing away");
	other = fork();
	if (other == 0) {
		fd = chdir(m.dir) || setuid(65534) ? -1 : open("f", O_WRONLY);
		if (fd < 0 || write(fd, "p", 1) != 1 || truncate("g", 3))
			_exit(1);
		in = open("g", O_RDONLY);
		fd = open("h", O_WRONLY);
		if (in < 0 || fd < 0 || copy_file_range(in, NULL, fd, NULL, 3, 0) != 3)
			_exit(2);
		fd = open("i", O_WRONLY);
		_exit(fd >= 0 && fallocate(fd, 0, 0, 4096) == 0 ? 0 : 3);
	}
	cr_assert_eq(waitpid(other, &status, 0), other);
	cr_assert_eq(status, 0);
	cr_assert_eq(mode_of("f"), 0777);
	cr_assert_eq(mode_of("g"), 0777);
	cr_assert_eq(mode_of("h"), 0777);
	cr_assert_eq(mode_of("i"), 02767);
	OK(chmod(at("f"), 06755));
	OK(chown(at("f"), 1, 1));
	cr_assert_eq(mode_of("f"), 0755);
}
