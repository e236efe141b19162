/*
 * ops.c - what single calls cost on two mounted filesystems side by side: the first is the measure (null_fs), the
 * second is judged.
 *
 *     ops MEASURE JUDGED [OP]
 *
 * Both hold 1,000 files f0000 to f0999 of 4,096 bytes in a directory "d" and a file "f". Each call is made so that it
 * is a request: attributes are asked for with AT_STATX_FORCE_SYNC, pages and directory entries are dropped before. The
 * two take turns, ROUNDS times; before each turn of the judged one OPS_SETTLE is run by the shell, until what earlier
 * calls left to do in the background is done. The figure is the lower quartile of the rounds' averages: the machine may
 * be busy otherwise. Not part of varve.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "clock.h"

#define ROUNDS 16
#define CALLS 100
#define ENTRIES 1000

static char page[4096];

static void must(long result, const char *what)
{
	if (result < 0) {
		(void)fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

/* Names that no round has used. */
static const char *fresh(const char *kind, unsigned round, int i)
{
	static char name[4][64];
	static unsigned turn;
	char *at = name[turn++ % 4];

	(void)snprintf(at, sizeof(name[0]), "new-%s-%u-%d", kind, round, i);
	return at;
}

static unsigned round_now;

static int make(const char *kind, int i)
{
	int fd = open(fresh(kind, round_now, i), O_WRONLY | O_CREAT | O_EXCL, 0644);

	must(fd, "create");
	return fd;
}

static void make_all(const char *kind)
{
	for (int i = 0; i < CALLS; i++)
		must(close(make(kind, i)), "close");
}

static int open_f(int flags)
{
	int fd = open("f", flags);

	must(fd, "open f");
	return fd;
}

/* Each does CALLS calls and gives the nanoseconds of one. */

#define TIMED(call)                                                                                                    \
	do {                                                                                                           \
		int64_t began = clock_monotonic();                                                                     \
		for (int i = 0; i < CALLS; i++)                                                                        \
			must((call), #call);                                                                           \
		return (clock_monotonic() - began) / CALLS;                                                            \
	} while (0)

static int64_t op_getattr(void)
{
	struct statx st;

	TIMED(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st));
}

static int64_t op_lookup_missing(void)
{
	TIMED(access(fresh("missing", round_now, i), F_OK) ? 0 : -1);
}

static int64_t op_lookup(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	char name[32];
	struct stat st;
	int64_t began;

	if (fd < 0)
		return 0;
	must(write(fd, "2", 1), "drop_caches");
	(void)close(fd);
	must(stat("d", &st), "stat d");
	began = clock_monotonic();
	for (int i = 0; i < CALLS; i++) {
		(void)snprintf(name, sizeof(name), "d/f%04d", i);
		must(stat(name, &st), name);
	}
	return (clock_monotonic() - began) / CALLS;
}

static int64_t op_open_close(void)
{
	TIMED(close(open_f(O_RDONLY)));
}

static int64_t op_read(void)
{
	int fd = open_f(O_RDONLY);
	int64_t began = clock_monotonic();

	for (int i = 0; i < CALLS; i++) {
		must(-posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
		must(pread(fd, page, sizeof(page), 0), "read");
	}
	began = clock_monotonic() - began;
	(void)close(fd);
	return began / CALLS;
}

static int64_t op_write(void)
{
	int fd = open_f(O_WRONLY);
	int64_t began;

	must(pwrite(fd, page, sizeof(page), 0), "write"); /* the first freezes what there was */
	began = clock_monotonic();
	for (int i = 0; i < CALLS; i++)
		must(pwrite(fd, page, sizeof(page), 0), "write");
	began = clock_monotonic() - began;
	(void)close(fd);
	return began / CALLS;
}

static int64_t op_create(void)
{
	static int fds[CALLS];
	int64_t began = clock_monotonic();

	for (int i = 0; i < CALLS; i++)
		fds[i] = make("create", i);
	began = clock_monotonic() - began;
	for (int i = 0; i < CALLS; i++)
		(void)close(fds[i]);
	return began / CALLS;
}

static int64_t op_create_close(void)
{
	TIMED(close(make("cc", i)));
}

static int64_t op_rename(void)
{
	make_all("rename");
	TIMED(rename(fresh("rename", round_now, i), fresh("renamed", round_now, i)));
}

static int64_t op_unlink(void)
{
	make_all("unlink");
	TIMED(unlink(fresh("unlink", round_now, i)));
}

static int64_t op_mkdir(void)
{
	TIMED(mkdir(fresh("mkdir", round_now, i), 0755));
}

static int64_t op_rmdir(void)
{
	for (int i = 0; i < CALLS; i++)
		must(mkdir(fresh("rmdir", round_now, i), 0755), "mkdir");
	TIMED(rmdir(fresh("rmdir", round_now, i)));
}

static int64_t op_symlink(void)
{
	TIMED(symlink("target", fresh("symlink", round_now, i)));
}

static int64_t op_link(void)
{
	TIMED(link("d/f0000", fresh("link", round_now, i)));
}

static int64_t op_chmod(void)
{
	TIMED(chmod("f", i % 2 ? 0600 : 0644));
}

static int64_t op_utimens(void)
{
	TIMED(utimensat(AT_FDCWD, "f", NULL, 0));
}

static int64_t op_setxattr(void)
{
	TIMED(setxattr("f", "user.some", page, 100, 0));
}

static int64_t op_getxattr(void)
{
	char value[200];

	must(setxattr("f", "user.some", page, 100, 0), "setxattr");
	TIMED(getxattr("f", "user.some", value, sizeof(value)));
}

/* One listing of ENTRIES names is one call here: CALLS would take long, and each but the first comes from the page
 * cache unless that is dropped. */
static int64_t op_readdir(void)
{
	char bytes[64 << 10];
	int64_t began, took = 0;
	int seen = 0;

	for (int i = 0; i < 5; i++) {
		int fd = open("d", O_RDONLY | O_DIRECTORY);
		long n;

		must(fd, "open d");
		/* A directory's own pages cannot be dropped alone. */
		int drop = open("/proc/sys/vm/drop_caches", O_WRONLY);
		if (drop >= 0) {
			(void)!write(drop, "1", 1);
			(void)close(drop);
		}
		began = clock_monotonic();
		while ((n = syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0)
			seen++;
		took += clock_monotonic() - began;
		must(n, "getdents");
		(void)close(fd);
	}
	return seen ? took / 5 : 0;
}

static const struct op {
	const char *name;
	int64_t (*run)(void);
	const char *promise; /* NULL: none */
} ops[] = {
	{"getattr", op_getattr, NULL},
	{"lookup", op_lookup, NULL},
	{"lookup, missing", op_lookup_missing, NULL},
	{"open + close", op_open_close, NULL},
	{"read 4 KiB", op_read, NULL},
	{"write 4 KiB", op_write, NULL},
	{"create", op_create, NULL},
	{"create + close", op_create_close, "a version in the journal"},
	{"rename", op_rename, NULL},
	{"unlink", op_unlink, NULL},
	{"mkdir", op_mkdir, NULL},
	{"rmdir", op_rmdir, NULL},
	{"symlink", op_symlink, NULL},
	{"link", op_link, NULL},
	{"chmod", op_chmod, NULL},
	{"utimens", op_utimens, NULL},
	{"setxattr", op_setxattr, NULL},
	{"getxattr", op_getxattr, NULL},
	{"readdir of 1,000", op_readdir, NULL},
};

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void measure(const struct op *op, char *const dirs[2])
{
	static int64_t took[2][ROUNDS];
	const char *settle = getenv("OPS_SETTLE");

	for (int round = 0; round < ROUNDS; round++, round_now++) {
		for (int i = 0; i < 2; i++) {
			if (i == 1 && settle && system(settle))
				exit(1);
			must(chdir(dirs[i]), dirs[i]);
			took[i][round] = op->run();
			(void)usleep(20000); /* the releases of one are no part of the other's turn */
		}
	}
	for (int i = 0; i < 2; i++)
		qsort(took[i], ROUNDS, sizeof(took[i][0]), by_value);
	(void)printf("| %-17s | %8.1f | %8.1f | %5.2f |%s%s\n", op->name, (double)took[0][ROUNDS / 4] / 1000,
		     (double)took[1][ROUNDS / 4] / 1000, (double)took[1][ROUNDS / 4] / (double)took[0][ROUNDS / 4],
		     op->promise ? " promises " : "", op->promise ? op->promise : "");
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		(void)fprintf(stderr, "usage: ops MEASURE JUDGED [OP]\n");
		return 2;
	}
	(void)printf("| call              | null, us | this, us | ratio |\n|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (argc == 3 || strcmp(argv[3], ops[i].name) == 0)
			measure(&ops[i], argv + 1);
	return chdir("/");
}
