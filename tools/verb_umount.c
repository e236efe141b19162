/*
 * verb_umount.c - `varve umount`: store what is left, unmount, and see the daemon to its end.
 *
 * Waiting comes before unmounting, so that breaking off leaves everything as it
 * was. What was written in between is stored after it, while we stay connected.
 * Exit status 0 means that the store has everything.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/control.h"
#include "tools/cli.h"

#define PLAIN_INTERVAL (2 * NS_PER_SEC) /* between lines that nobody watches */
#define ANSWER_TIMEOUT_MS 10000         /* to what the daemon need not wait for */
#define END_TIMEOUT_MS 30000            /* from the last word of a daemon to its end */
#define USERS_SHOWN 5

static const char help[] = "varve umount DIR [--no-wait]\n"
			   "\n"
			   "Stores what is left, then unmounts DIR. Exit status 0: the store has everything.\n"
			   "\n"
			   "  --no-wait  unmount now; what is left stays in the journal for the next mount\n";

/* --- progress ---------------------------------------------------------------------------------- */

struct figures {
	uint64_t pending, bytes, failed;
	bool done, has_done;
	char error[256];
};

static int parse_figures(const char *line, struct figures *ret_figures)
{
	json_t *object = json_loads(line, 0, NULL), *done = json_object_get(object, "done");
	json_t *pending = json_object_get(object, "pending");
	const char *error = json_string_value(json_object_get(object, "error"));
	int rc = json_is_integer(pending) ? 0 : -EPROTO;

	if (rc == 0) {
		*ret_figures = (struct figures){
			.pending = (uint64_t)json_integer_value(pending),
			.bytes = (uint64_t)json_integer_value(json_object_get(object, "bytes")),
			.failed = (uint64_t)json_integer_value(json_object_get(object, "failed")),
			.done = json_is_true(done),
			.has_done = done != NULL,
		};
		(void)snprintf(ret_figures->error, sizeof(ret_figures->error), "%s", error ? error : ""); /* cut */
	}
	json_decref(object);
	return rc;
}

struct progress {
	bool quiet;
	bool terminal;
	bool line_open; /* the cursor stands behind a line */
	int64_t shown_ns;
};

static void progress_end(struct progress *progress)
{
	if (progress->line_open)
		(void)fputc('\n', stderr); /* decoration */
	progress->line_open = false;
}

static void progress_show(struct progress *progress, const struct figures *figures)
{
	char size[CLI_SIZE_TEXT];
	int64_t now = clock_monotonic();

	if (progress->quiet || figures->pending == 0)
		return;
	if (!progress->terminal && progress->shown_ns && now - progress->shown_ns < PLAIN_INTERVAL)
		return;
	progress->shown_ns = now;
	cli_format_size(figures->bytes, size);
	(void)fprintf(stderr, "%s%" PRIu64 " %s left to store, %s", progress->terminal ? "\r\033[K" : "",
		      figures->pending, figures->pending == 1 ? "change" : "changes", size);
	if (figures->failed)
		(void)fprintf(stderr, "; %" PRIu64 " failed so far", figures->failed);
	if (figures->error[0])
		(void)fprintf(stderr, " (%.120s)", figures->error);
	if (!progress->terminal)
		(void)fputc('\n', stderr);
	progress->line_open = progress->terminal;
	(void)fflush(stderr); /* decoration, all of it */
}

/* Shows figures until a line says "done", and gives that line. -ENODATA: the daemon hung up before. */
static int follow(struct cli_daemon *daemon, struct progress *progress, struct figures *ret_last)
{
	struct figures figures;
	const char *line;
	int rc;

	do {
		rc = cli_daemon_read(daemon, -1, &line);
		if (rc == -EINTR)
			continue;
		if (rc == 0)
			rc = parse_figures(line, &figures);
		if (rc < 0)
			break;
		progress_show(progress, &figures);
	} while (rc == -EINTR || !figures.has_done);
	progress_end(progress);
	if (rc == 0)
		*ret_last = figures;
	return rc;
}

/* --- who uses it ------------------------------------------------------------------------------- */

static bool link_lies_in(int dir, const char *name, const char *mountpoint)
{
	char target[4096];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);
	size_t len = strlen(mountpoint);

	if (n < 0)
		return false;
	target[n] = '\0';
	return strncmp(target, mountpoint, len) == 0 && (target[len] == '/' || target[len] == '\0');
}

static bool process_uses(int process, const char *mountpoint)
{
	bool uses = link_lies_in(process, "cwd", mountpoint) || link_lies_in(process, "root", mountpoint) ||
		    link_lies_in(process, "exe", mountpoint);
	int fd = uses ? -1 : openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *fds = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (fd >= 0 && !fds)
		(void)close(fd); /* a reader's */
	while (fds && !uses && (entry = readdir(fds)))
		uses = link_lies_in(dirfd(fds), entry->d_name, mountpoint);
	if (fds)
		(void)closedir(fds); /* likewise */
	return uses;
}

static void add_name(int process, const char *pid, struct buf *ret_text)
{
	AUTO_CLOSE int fd = openat(process, "comm", O_RDONLY | O_CLOEXEC);
	char name[32];
	ssize_t n = fd >= 0 ? read(fd, name, sizeof(name) - 1) : 0;

	name[n > 0 ? n : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
	buf_addf(ret_text, "%s%s (%s)", ret_text->len ? ", " : "", name[0] ? name : "a process", pid);
}

/* "vim (4711), bash (815)": of those we may look into. A mapping alone is not seen. */
static void find_users(const char *mountpoint, struct buf *ret_text)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	unsigned found = 0;

	while (proc && found < USERS_SHOWN && (entry = readdir(proc))) {
		AUTO_CLOSE int process = -1;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		process = openat(dirfd(proc), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (process >= 0 && process_uses(process, mountpoint)) {
			add_name(process, entry->d_name, ret_text);
			found++;
		}
	}
	if (proc)
		(void)closedir(proc); /* only read */
}

/* --- unmounting -------------------------------------------------------------------------------- */

/* What fusermount3 says goes to ret_text. */
static int run_fusermount(const char *mountpoint, struct buf *ret_text)
{
	char *argv[] = {"fusermount3", "-u", "--", (char *)mountpoint, NULL};
	posix_spawn_file_actions_t actions;
	int ends[2], status = 0, rc;
	char bytes[256];
	pid_t child;
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	rc = -posix_spawn_file_actions_init(&actions);
	if (rc < 0)
		goto out;
	rc = -posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	if (rc == 0)
		rc = -posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions); /* only frees */
	if (rc < 0)
		goto out;
	(void)close(ends[1]); /* the child's now */
	ends[1] = -1;
	while ((n = read(ends[0], bytes, sizeof(bytes))) > 0)
		buf_add(ret_text, bytes, (size_t)n);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		rc = strcasestr(ret_text->data, "busy") ? -EBUSY : -EPERM;
out:
	(void)close(ends[0]); /* a pipe: nothing is lost */
	if (ends[1] >= 0)
		(void)close(ends[1]);
	return rc;
}

/* 0 when it is unmounted, else the exit status, having said why. */
static int unmount(const char *mountpoint)
{
	AUTO_BUF said = BUF_INIT;
	AUTO_BUF users = BUF_INIT;
	int rc = 0;

	if (geteuid() == 0)
		rc = umount2(mountpoint, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
	else
		rc = run_fusermount(mountpoint, &said);
	if (rc == 0)
		return 0;
	if (rc == -EBUSY) {
		find_users(mountpoint, &users);
		return cli_fail("%s is in use%s%s; still mounted", mountpoint, users.len ? " by " : "", users.data);
	}
	said.data[strcspn(said.data, "\n")] = '\0';
	return cli_fail("cannot unmount %s: %s", mountpoint, said.data[0] ? said.data : strerror(-rc));
}

/* After the last word: the process itself must be gone, so that its directories are free. */
static int see_off(struct cli_daemon *daemon)
{
	if (cli_daemon_wait(daemon, END_TIMEOUT_MS) < 0)
		return cli_fail("unmounted, but the daemon does not end");
	return 0;
}

static int unmount_and_wait(const struct mountinfo *mount, struct cli_daemon *daemon)
{
	struct progress progress = {.terminal = isatty(STDERR_FILENO)};
	struct figures last;
	const char *answer;
	int rc;

	if (cli_daemon_ask(daemon, "hurry") < 0 || cli_daemon_read(daemon, ANSWER_TIMEOUT_MS, &answer) < 0)
		return cli_fail("%s: the daemon does not answer; still mounted", mount->mountpoint);
	if (cli_daemon_ask(daemon, "drain") < 0 || follow(daemon, &progress, &last) < 0)
		return cli_fail("%s: the daemon hung up; still mounted", mount->mountpoint);
	if (cli_daemon_ask(daemon, "finish") < 0)
		return cli_fail("%s: the daemon hung up; still mounted", mount->mountpoint);
	rc = unmount(mount->mountpoint);
	if (rc != 0)
		return rc;
	if (follow(daemon, &progress, &last) < 0)
		return cli_fail("unmounted, but the daemon ended early; mount again and the journal goes on");
	rc = see_off(daemon);
	if (rc == 0 && !last.done)
		rc = cli_fail("unmounted, but %" PRIu64 " changes are not stored; mount again and the journal goes on",
			      last.pending);
	return rc;
}

static int unmount_at_once(const struct mountinfo *mount, struct cli_daemon *daemon)
{
	struct progress quiet = {.quiet = true};
	struct figures last;
	char size[CLI_SIZE_TEXT];
	int rc;

	if (cli_daemon_ask(daemon, "leave") < 0)
		return cli_fail("%s: the daemon hung up; still mounted", mount->mountpoint);
	rc = unmount(mount->mountpoint);
	if (rc != 0)
		return rc;
	if (follow(daemon, &quiet, &last) < 0)
		return cli_fail("unmounted, but the daemon ended early; mount again and the journal goes on");
	rc = see_off(daemon);
	if (rc == 0 && last.pending > 0) {
		cli_format_size(last.bytes, size);
		(void)printf("%" PRIu64 " changes, %s, stay in the journal for the next mount\n", last.pending, size);
	}
	return rc;
}

/*
 * Its daemon has ended without unmounting. Only the kernel knows: a socket that
 * is not found may lie where another user's environment says. To somebody who
 * may not look into the mount the kernel does not tell, so that is no.
 */
static bool is_dead(const char *mountpoint)
{
	struct statfs fs;

	return statfs(mountpoint, &fs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

static int unmount_dead(const struct mountinfo *mount, bool no_wait)
{
	int rc = unmount(mount->mountpoint);

	if (rc != 0)
		return rc;
	(void)cli_fail("%s: unmounted; its daemon was gone. Mount again to store what its journal holds",
		       mount->mountpoint);
	return no_wait ? 0 : CLI_FAILED;
}

int verb_umount(int argc, char **argv)
{
	bool no_wait = false;
	const struct cli_option options[] = {{.name = "no-wait", .flag = &no_wait}, {0}};
	const struct cli_syntax syntax = {.verb = "umount", .help = help, .options = options, .min = 1, .max = 1};
	struct cli_daemon daemon;
	struct mountinfo mount;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (mountinfo_named(words[0], &mount) < 0)
		return cli_fail("%s is not a varve mount", words[0]);
	rc = cli_daemon_open(&mount, &daemon);
	if (rc < 0 && is_dead(mount.mountpoint)) {
		rc = unmount_dead(&mount, no_wait);
	} else if (rc < 0) {
		rc = cli_fail("%s: its daemon cannot be reached; unmount it as the user who mounted it, uid %u",
			      mount.mountpoint, mount.user);
	} else {
		rc = no_wait ? unmount_at_once(&mount, &daemon) : unmount_and_wait(&mount, &daemon);
		cli_daemon_close(&daemon);
	}
	mountinfo_clear(&mount);
	return rc;
}
