/*
 * ops.c - what single calls cost on two mounted filesystems side by side: the first is the measure (null_fs), the
 * second is judged.
 *
 *     ops MEASURE JUDGED [OP]
 *
 * Both hold 1,000 files f0000 to f0999 of 4,096 bytes in a directory "d" and a file "f". Each call is made so that it
 * is a request: attributes are asked for with AT_STATX_FORCE_SYNC, pages and directory entries are dropped before. The
 * two take turns, ROUNDS times; before each turn of the judged one OPS_SETTLE is run by the shell, until what earlier
 * calls left to do in the background is done. The figures are the twentieth from below of a hundred calls and the
 * median: the machine may be busy otherwise. Not part of varve.
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

#define ROUNDS 10
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

static unsigned round_now;

/* Names that no round has used. */
static const char *fresh(const char *kind, int i)
{
	static char name[4][64];
	static unsigned turn;
	char *at = name[turn++ % 4];

	(void)snprintf(at, sizeof(name[0]), "new-%s-%u-%d", kind, round_now, i);
	return at;
}

static int make(const char *kind, int i)
{
	int fd = open(fresh(kind, i), O_WRONLY | O_CREAT | O_EXCL, 0644);

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

static int64_t taken[ROUNDS * CALLS];
static size_t calls;

#define TIMED(prepare, call)                                                                                           \
	for (int i = 0; i < CALLS; i++) {                                                                              \
		prepare;                                                                                               \
		int64_t began = clock_monotonic();                                                                     \
		must((call), #call);                                                                                   \
		taken[calls++] = clock_monotonic() - began;                                                            \
	}

static void op_getattr(void)
{
	struct statx st;

	TIMED(, statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st));
}

static void op_lookup_missing(void)
{
	TIMED(, access(fresh("missing", i), F_OK) ? 0 : -1);
}

static void drop_caches(const char *which)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	must(fd, "drop_caches");
	must(write(fd, which, 1), "drop_caches");
	(void)close(fd);
}

static void op_lookup(void)
{
	struct stat st;
	char name[32];

	drop_caches("2");
	must(stat("d", &st), "stat d");
	TIMED((void)snprintf(name, sizeof(name), "d/f%04d", i), stat(name, &st));
}

static void op_open_close(void)
{
	TIMED(, close(open_f(O_RDONLY)));
}

static void op_read(void)
{
	int fd = open_f(O_RDONLY);

	TIMED(must(-posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise"), pread(fd, page, sizeof(page), 0));
	(void)close(fd);
}

static void op_write(void)
{
	int fd = open_f(O_WRONLY);

	TIMED(, pwrite(fd, page, sizeof(page), 0));
	(void)close(fd);
}

static void op_create(void)
{
	static int fds[CALLS];

	TIMED(, fds[i] = make("create", i));
	for (int i = 0; i < CALLS; i++)
		(void)close(fds[i]);
}

static void op_create_close(void)
{
	TIMED(, close(make("cc", i)));
}

static void op_rename(void)
{
	make_all("rename");
	TIMED(, rename(fresh("rename", i), fresh("renamed", i)));
}

static void op_unlink(void)
{
	make_all("unlink");
	TIMED(, unlink(fresh("unlink", i)));
}

static void op_mkdir(void)
{
	TIMED(, mkdir(fresh("mkdir", i), 0755));
}

static void op_rmdir(void)
{
	for (int i = 0; i < CALLS; i++)
		must(mkdir(fresh("rmdir", i), 0755), "mkdir");
	TIMED(, rmdir(fresh("rmdir", i)));
}

static void op_symlink(void)
{
	TIMED(, symlink("target", fresh("symlink", i)));
}

static void op_link(void)
{
	TIMED(, link("d/f0000", fresh("link", i)));
}

static void op_chmod(void)
{
	TIMED(, chmod("f", i % 2 ? 0600 : 0644));
}

static void op_utimens(void)
{
	TIMED(, utimensat(AT_FDCWD, "f", NULL, 0));
}

static void op_setxattr(void)
{
	TIMED(, setxattr("f", "user.some", page, 100, 0));
}

static void op_getxattr(void)
{
	char value[200];

	must(setxattr("f", "user.some", page, 100, 0), "setxattr");
	TIMED(, getxattr("f", "user.some", value, sizeof(value)));
}

static long list_all(int fd)
{
	char bytes[64 << 10];
	long n;

	while ((n = syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0)
		;
	return n;
}

/* A directory's own pages cannot be dropped alone, so it is listed less often. */
static void op_readdir(void)
{
	int64_t began;
	int fd;

	drop_caches("1");
	fd = open("d", O_RDONLY | O_DIRECTORY);
	must(fd, "open d");
	began = clock_monotonic();
	must(list_all(fd), "getdents");
	taken[calls++] = clock_monotonic() - began;
	(void)close(fd);
}

static const struct op {
	const char *name;
	void (*run)(void);
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
	static int64_t all[2][ROUNDS * CALLS];
	const char *settle = getenv("OPS_SETTLE");
	size_t count[2] = {0};
	double median[2], best[2];

	for (int round = 0; round < ROUNDS; round++, round_now++) {
		for (int i = 0; i < 2; i++) {
			if (i == 1 && settle && system(settle))
				exit(1);
			must(chdir(dirs[i]), dirs[i]);
			calls = 0;
			op->run();
			memcpy(all[i] + count[i], taken, calls * sizeof(taken[0]));
			count[i] += calls;
			(void)usleep(20000); /* the releases of one are no part of the other's turn */
		}
	}
	for (int i = 0; i < 2; i++) {
		qsort(all[i], count[i], sizeof(all[i][0]), by_value);
		median[i] = (double)all[i][count[i] / 2] / 1000;
		best[i] = (double)all[i][count[i] / 20] / 1000;
	}
	(void)printf("| %-17s | %8.1f | %8.1f | %5.2f | %8.1f | %8.1f | %5.2f |%s%s\n", op->name, best[0], best[1],
		     best[1] / best[0], median[0], median[1], median[1] / median[0], op->promise ? " promises " : "",
		     op->promise ? op->promise : "");
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		(void)fprintf(stderr, "usage: ops MEASURE JUDGED [OP]\n");
		return 2;
	}
	(void)printf("| call | null, best us | this | ratio | null, median us | this | ratio "
		     "|\n|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (argc == 3 || strcmp(argv[3], ops[i].name) == 0)
			measure(&ops[i], argv + 1);
	return chdir("/");
}
