/*
 * verb_diff.c - `varve diff`: two versions of a file, or a version and the live file. diff_tree.c has directories.
 *
 * Text goes through the system's diff(1), which reads both sides by descriptor.
 * What is not text, or too large to be worth it, is told by size, time and
 * checksum: the recorded ones where they differ, since then nothing needs to be
 * fetched, else SHA-256 of what is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "tools/cli.h"
#include "tools/compare.h"
#include "tools/diff_tree.h"
#include "tools/past.h"

#define TEXT_MAX (INT64_C(16) << 20)
#define PROBE 8000 /* a NUL in so many bytes: not text, as git has it */
#define CHUNK (1 << 20)

static const char help[] =
	"varve diff PATH [V1] [V2] [--json]\n"
	"varve diff DIR TIME [TIME] [--json]\n"
	"\n"
	"Compares two versions of the file PATH; with one of them that and the live file; with none what the file was\n"
	"before and what it is. Text by diff -u, else sizes, times and checksums. A side that is not there is empty.\n"
	"\n"
	"  V     a name in .versions, its 8 hex digits, -1 (the newest), -2, …, @TIME or a time\n"
	"  TIME  2026-11-21T10:00:00Z, 2026-11-20, 2h, 3d\n"
	"\n"
	"Of a directory, what was added, removed, changed and renamed beneath it between two times, or since one, as\n"
	"lines \"WORD<tab>PATH\"; a renamed one has \"<tab>FROM\" behind it.\n"
	"\n"
	"  --json  an object: of a file both sides and the difference; of a directory one a line\n"
	"\n"
	"Exit status, as of diff(1): 0 the same, 1 different, 2 trouble or wrong usage.\n";

struct side {
	bool exists;
	int fd;
	struct stat st;
	char *label;    /* PATH or the version */
	char *seq;      /* "" where there is none */
	char *checksum; /* as recorded; "" */
	int64_t time_ns;
	bool is_live;
	char sha256[SHA256_HEX_SIZE]; /* once it was read for that; else "" */
};

static void side_close(struct side *side)
{
	if (side->fd >= 0)
		(void)close(side->fd); /* only read */
	free(side->label);
	free(side->seq);
	free(side->checksum);
}

static char *fact_of(int fd, const char *fact)
{
	AUTO_BUF value = BUF_INIT;

	(void)past_fact_at(fd, "", fact, &value); /* it may not have it */
	return buf_detach(&value);
}

/* Takes `path_fd`, which is O_PATH, and `label`. */
static int side_open(int path_fd, char *label, struct side *ret_side)
{
	struct side side = {.exists = true, .fd = -1, .label = label};
	char path[32];
	int rc = -ENOMEM;

	if (!label || fstat(path_fd, &side.st) < 0)
		goto out;
	side.seq = fact_of(path_fd, "seq");
	side.checksum = fact_of(path_fd, "checksum");
	rc = side.seq && side.checksum ? 0 : -ENOMEM;
	side.time_ns = clock_from_timespec(side.st.st_ctim); /* of a version, its commit */
	if (rc == 0 && S_ISREG(side.st.st_mode)) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd); /* fits */
		side.fd = open(path, O_RDONLY | O_CLOEXEC);
		rc = side.fd < 0 ? -errno : 0;
	} else if (rc == 0) {
		rc = -EINVAL;
	}
out:
	(void)close(path_fd); /* only a path */
	if (rc < 0)
		side_close(&side);
	else
		*ret_side = side;
	return rc;
}

/* --- which two --------------------------------------------------------------------------------------- */

static int side_of_pick(const struct past *past, struct past_pick *pick, struct side *ret_side)
{
	AUTO_BUF label = BUF_INIT;
	int rc;

	buf_addf(&label, "%s/%s/%s/%s", past->dir, past_versions(past->fd), past->name, pick->entry);
	rc = side_open(pick->fd, buf_detach(&label), ret_side);
	pick->fd = -1;
	if (rc == -EINVAL)
		rc = cli_fail("version %s of %s is not a file", pick->entry, past->name);
	else if (rc < 0)
		rc = cli_fail("version %s of %s: %s", pick->entry, past->name, strerror(-rc));
	past_pick_close(pick);
	return rc;
}

static int side_of_version(const struct past *past, const char *wanted, struct side *ret_side)
{
	struct past_pick pick;
	int rc = past_pick(past, "diff", wanted, &pick);

	return rc ? rc : side_of_pick(past, &pick, ret_side);
}

static int side_of_live(const char *path, struct side *ret_side)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), rc;

	*ret_side = (struct side){.fd = -1, .is_live = true};
	if (fd < 0 && errno == ENOENT) {
		ret_side->label = strdup(path);
		ret_side->seq = strdup("");
		ret_side->checksum = strdup("");
		return ret_side->label && ret_side->seq && ret_side->checksum ? 0 : cli_fail("out of memory");
	}
	if (fd < 0)
		return cli_fail("%s: %s", path, strerror(errno));
	rc = side_open(fd, strdup(path), ret_side);
	ret_side->is_live = true;
	if (rc == -EINVAL)
		return cli_fail("%s is not a file", path);
	return rc < 0 ? cli_fail("%s: %s", path, strerror(-rc)) : 0;
}

/* What the file was before: the newest version that is not what it is now. */
static int side_before(const struct past *past, const struct side *live, struct side *ret_side)
{
	struct side side = {.fd = -1};
	struct stat st;
	bool is_newest;
	int rc;

	if (fstatat(past->fd, "-1", &st, 0) < 0)
		return cli_fail("%s has no version yet", past->name);
	rc = side_of_version(past, "-1", &side);
	if (rc != 0)
		return rc;
	is_newest = live->exists && strcmp(live->seq, side.seq) == 0;
	if (!is_newest) {
		*ret_side = side;
		return 0;
	}
	side_close(&side);
	if (fstatat(past->fd, "-2", &st, 0) < 0)
		return cli_fail("%s has no version before this one", past->name);
	return side_of_version(past, "-2", ret_side);
}

/* --- content ------------------------------------------------------------------------------------------- */

/* 1, 0 or -errno. */
static int is_text(const struct side *side)
{
	char probe[PROBE];
	ssize_t n = compare_read(side->fd, probe, sizeof(probe), 0);

	if (n < 0)
		return (int)n;
	return side->st.st_size <= TEXT_MAX && !memchr(probe, '\0', (size_t)n);
}

/* --- text ---------------------------------------------------------------------------------------------- */

static int label_of(const struct side *side, struct buf *ret_label)
{
	struct timespec ts = clock_to_timespec(side->time_ns);
	struct tm tm;
	char text[32];

	(void)gmtime_r(&ts.tv_sec, &tm);                              /* a time of a file has a year that fits */
	(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm); /* likewise */
	buf_addf(ret_label, "%s\t%s.%09ld +0000", side->label, text, ts.tv_nsec);
	return buf_failed(ret_label) ? -ENOMEM : 0;
}

static int null_or(int fd)
{
	return fd >= 0 ? fd : open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* The child: never returns. */
static void run_diff(const struct side *a, const struct side *b, char *const labels[2], int out)
{
	char left[32], right[32];
	int fds[2] = {null_or(a->fd), null_or(b->fd)};
	char *const argv[] = {"diff", "-u", "--label", labels[0], "--label", labels[1], left, right, NULL};

	/* dup clears close-on-exec: of these two alone. */
	(void)snprintf(left, sizeof(left), "/proc/self/fd/%d", dup(fds[0]));   /* fits */
	(void)snprintf(right, sizeof(right), "/proc/self/fd/%d", dup(fds[1])); /* fits */
	if (out >= 0)
		(void)dup2(out, STDOUT_FILENO);                 /* where it fails, diff's output shows it */
	(void)execvp("diff", argv);                             /* returns only on failure */
	(void)cli_fail("cannot run diff: %s", strerror(errno)); /* the exit status says so */
	_exit(2);
}

/* 0, 1, 2 as diff says. ret_text: takes what it prints; NULL: that goes to stdout. */
static int diff_text(const struct side *a, const struct side *b, struct buf *ret_text)
{
	AUTO_BUF left = BUF_INIT;
	AUTO_BUF right = BUF_INIT;
	int pipes[2] = {-1, -1}, status;
	pid_t child;

	if (label_of(a, &left) < 0 || label_of(b, &right) < 0)
		return cli_fail("out of memory"), 2;
	if (fflush(stdout) != 0 || (ret_text && pipe2(pipes, O_CLOEXEC) < 0))
		return cli_fail("%s", strerror(errno)), 2;
	child = fork();
	if (child == 0)
		run_diff(a, b, (char *const[]){left.data, right.data}, pipes[1]);
	if (pipes[1] >= 0)
		(void)close(pipes[1]); /* the child's */
	while (child > 0 && ret_text && buf_reserve(ret_text, CHUNK) == 0) {
		ssize_t n = read(pipes[0], ret_text->data + ret_text->len, CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		ret_text->len += (size_t)n;
		ret_text->data[ret_text->len] = '\0';
	}
	if (pipes[0] >= 0)
		(void)close(pipes[0]); /* read to its end */
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return cli_fail("cannot run diff: %s", strerror(errno)), 2;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

/* --- the rest ------------------------------------------------------------------------------------------- */

static int take_sha256(struct side *side)
{
	AUTO_FREE char *chunk = malloc(CHUNK);
	struct sha256 *sha = sha256_new();
	uint8_t digest[SHA256_SIZE];
	ssize_t n = -ENOMEM;

	for (off_t at = 0; chunk && sha && (n = compare_read(side->fd, chunk, CHUNK, at)) > 0; at += n)
		sha256_update(sha, chunk, (size_t)n);
	if (n == 0) {
		sha256_final(sha, digest);
		hex_encode(digest, sizeof(digest), side->sha256);
	}
	sha256_free(sha);
	return n < 0 ? (int)n : 0;
}

/* Recorded checksums do where they tell the two apart. */
static int take_checksums(struct side *a, struct side *b)
{
	int rc = 0;

	if (*a->checksum && *b->checksum && compare_known(a->fd, b->fd) == 0 && strcmp(a->checksum, b->checksum) != 0)
		return 0;
	if (a->exists)
		rc = take_sha256(a);
	if (rc == 0 && b->exists)
		rc = take_sha256(b);
	return rc;
}

static void print_side(char mark, const struct side *side)
{
	char mtime[CLOCK_RFC3339_SIZE];

	if (!side->exists) {
		(void)printf("%c %s: not there\n", mark, side->label); /* stdout is checked at the end */
		return;
	}
	clock_format_rfc3339(clock_from_timespec(side->st.st_mtim), mtime);
	(void)printf("%c %s: %" PRIu64 " bytes, mtime %s, %s%s\n", mark, side->label, (uint64_t)side->st.st_size, mtime,
		     *side->sha256 ? "sha256:" : "", *side->sha256 ? side->sha256 : side->checksum); /* as above */
}

static void json_side(struct buf *json, const char *name, const struct side *side)
{
	char time[CLOCK_RFC3339_SIZE];

	buf_addf(json, "\"%s\":{\"path\":", name);
	cli_json_string(json, side->label);
	buf_addf(json, ",\"exists\":%s", side->exists ? "true" : "false");
	if (side->exists) {
		clock_format_rfc3339(side->time_ns, time);
		buf_addf(json, ",\"size\":%" PRIu64 ",\"%s\":\"%s\"", (uint64_t)side->st.st_size,
			 side->is_live ? "ctime" : "commit_time", time);
		clock_format_rfc3339(clock_from_timespec(side->st.st_mtim), time);
		buf_addf(json, ",\"mtime\":\"%s\"", time);
	}
	if (*side->seq)
		buf_addf(json, ",\"seq\":%s", side->seq);
	if (*side->checksum)
		buf_addf(json, ",\"checksum\":\"%s\"", side->checksum);
	if (*side->sha256)
		buf_addf(json, ",\"sha256\":\"%s\"", side->sha256);
	buf_addc(json, '}');
}

struct outcome {
	bool same, text;
	struct buf diff;
};

static void print_json(const struct side *a, const struct side *b, const struct outcome *outcome)
{
	AUTO_BUF json = BUF_INIT;

	buf_addf(&json, "{\"same\":%s,\"text\":%s,", outcome->same ? "true" : "false",
		 outcome->text ? "true" : "false");
	json_side(&json, "from", a);
	buf_addc(&json, ',');
	json_side(&json, "to", b);
	if (outcome->diff.len) {
		buf_adds(&json, ",\"diff\":");
		cli_json_string(&json, outcome->diff.data);
	}
	(void)printf("%s}\n", json.data); /* stdout is checked at the end */
}

static int diff_sides(struct side *a, struct side *b, bool as_json)
{
	struct outcome outcome = {.diff = BUF_INIT};
	int rc = a->exists == b->exists ? compare_files(a->fd, b->fd) : 0, status = 1;

	outcome.same = rc == 1;
	if (rc >= 0)
		rc = is_text(a);
	if (rc == 1)
		rc = is_text(b);
	outcome.text = rc == 1;
	if (rc == 0 && !outcome.same)
		rc = take_checksums(a, b);
	if (rc >= 0 && outcome.same)
		status = 0;
	else if (rc >= 0 && outcome.text)
		status = diff_text(a, b, as_json ? &outcome.diff : NULL);
	else if (rc >= 0 && !as_json) {
		print_side('-', a);
		print_side('+', b);
	}
	if (rc >= 0 && as_json && status < 2)
		print_json(a, b, &outcome);
	buf_free(&outcome.diff);
	if (rc >= 0)
		return status;
	(void)cli_fail("%s: %s", b->label, strerror(-rc)); /* 2 is trouble */
	return 2;
}

static int diff_file(const char *path, char **versions, int count, bool as_json)
{
	struct side a = {.fd = -1}, b = {.fd = -1};
	struct past past;
	int rc = past_open(path, &past);

	if (rc != 0)
		return 2;
	rc = count < 2 ? side_of_live(path, &b) : side_of_version(&past, versions[1], &b);
	if (rc == 0)
		rc = count > 0 ? side_of_version(&past, versions[0], &a) : side_before(&past, &b, &a);
	rc = rc == 0 ? diff_sides(&a, &b, as_json) : 2;
	side_close(&a);
	side_close(&b);
	past_close(&past);
	return rc;
}

/* A directory, now or then. */
static bool is_tree(const char *path, const char *when)
{
	AUTO_CLOSE int was = -1;
	struct stat st;
	int64_t ns;

	if (lstat(path, &st) == 0)
		return S_ISDIR(st.st_mode);
	if (!when || clock_parse_when(when, clock_wall(), &ns) < 0)
		return false;
	was = past_tree_open(path, ns);
	return was >= 0 && fstat(was, &st) == 0 && S_ISDIR(st.st_mode);
}

int verb_diff(int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {{.name = "json", .flag = &as_json}, {0}};
	const struct cli_syntax syntax = {.verb = "diff", .help = help, .options = options, .min = 1, .max = 3};
	struct diff_tree request;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc == CLI_FAILED ? 2 : rc;
	if (!is_tree(words[0], count > 1 ? words[1] : NULL))
		return cli_finish(diff_file(words[0], words + 1, count - 1, as_json), 2);
	if (count < 2)
		return cli_usage("diff", "%s is a directory: say since when", words[0]);
	request = (struct diff_tree){.path = words[0], .to_live = count == 2, .as_json = as_json};
	rc = cli_parse_when("diff", "TIME", words[1], &request.from_ns);
	if (rc == 0 && count > 2)
		rc = cli_parse_when("diff", "TIME", words[2], &request.to_ns);
	return rc ? rc : cli_finish(diff_tree(&request), 2);
}
