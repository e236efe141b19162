/*
 * mounted.h - a varve mount of its own for one test: a fresh store, state directory and mountpoint below TMPDIR, the
 * daemon in the foreground as our child, its log in a file.
 *
 * Functions fail the running test by cr_assert where a test could not go on. Everything below TMPDIR is unmounted and
 * removed by tests/run in the end, whatever a test leaves behind.
 */
#ifndef VARVE_TESTS_MOUNTED_H
#define VARVE_TESTS_MOUNTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mounted_store { MOUNTED_LOCAL, MOUNTED_S3, MOUNTED_S3_UNVERSIONED };

struct mounted {
	enum mounted_store store;
	char root[256]; /* everything of this test */
	char dir[300];  /* the mountpoint */
	char state[300];
	char url[400];
	char bucket[64]; /* S3 */
	char log[300];   /* stderr of the daemon */
	pid_t pid;       /* 0: not mounted */
};

void mounted_new(struct mounted *mounted, enum mounted_store store);
void mounted_free(struct mounted *mounted); /* unmounts hard what is still mounted, removes root and bucket */

/* Mounts with `options` added ("" or NULL: none) and waits until the directory answers. */
void mounted_start(struct mounted *mounted, const char *options);
/* As mounted_start, but expects it to fail: the exit status; *ret_line is the last line it said. */
int mounted_start_fails(struct mounted *mounted, const char *options, char *ret_line, size_t size);
/* `varve umount`: its exit status, after the daemon has ended; -1 when that was 0 and the daemon's is not. */
int mounted_stop(struct mounted *mounted);
/* kill -9 of the daemon, and the dead mountpoint taken away. */
void mounted_kill(struct mounted *mounted);
/* The next start gets VARVE_KILL_AT=point; NULL: none. */
void mounted_kill_at(const char *point);
/* Waits until the daemon has died, at most `seconds`: true when SIGKILL ended it. Takes the dead mountpoint away. */
bool mounted_died(struct mounted *mounted, int seconds);

/* dir/path, in one of a few static buffers. */
const char *mounted_path(const struct mounted *mounted, const char *path);

/* A number of `varve status --json`, by path: "store.requests". */
int64_t mounted_status(const struct mounted *mounted, const char *path);
/* Waits until nothing is pending, as long as one more job is done within `seconds`. */
void mounted_settle(const struct mounted *mounted, int seconds);

/* Runs a shell command line with MNT, STATE, URL, BUCKET, VARVE in its environment; its exit status. Output goes to
 * *ret_output (NULL: to the test's own), cut at size. */
int mounted_shell(const struct mounted *mounted, const char *command, char *ret_output, size_t size);
/* The same without the newlines at its end. */
int mounted_text(const struct mounted *mounted, const char *command, char *ret_text, size_t size);

/* Files. */
void file_write(const char *path, const void *bytes, size_t len);
void file_puts(const char *path, const char *text);
char *file_read(const char *path, size_t *ret_len); /* malloc'd with a NUL; NULL when it cannot */
bool file_is(const char *path, const void *bytes, size_t len);
/* How much of it the kernel has in memory, in bytes; (size_t)-1 when that cannot be told. */
size_t file_resident(int fd);
/* Names in a directory, sorted, joined by '\n'; malloc'd. */
char *dir_names(const char *path);
/* Deterministic bytes. */
void fill_random(void *ret_bytes, size_t len, uint64_t seed);

#endif
