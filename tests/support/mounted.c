/* mounted.c - see mounted.h. One thread. */
#include "support/mounted.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/control.h"
#include "fs/mountinfo.h"

static char next_kill[64];

static const char *need(const char *name)
{
	const char *value = getenv(name);

	cr_assert(value && *value, "%s is not set: run this through tests/run", name);
	return value;
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Without versioning; `-o create` makes those with it. curl signs the request itself. */
static void make_bucket(const char *bucket)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "curl -sf -o /dev/null --aws-sigv4 aws:amz:us-east-1:s3 -u "
		 "\"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" "
		 "-X PUT '%s/%s'",
		 need("VARVE_TEST_S3_ENDPOINT"), bucket);
	cr_assert_eq(system(command), 0, "%s", command);
}

void mounted_new(struct mounted *mounted, enum mounted_store store)
{
	static int count;
	const char *tmp = getenv("TMPDIR");
	struct timespec now;

	*mounted = (struct mounted){.store = store};
	snprintf(mounted->root, sizeof(mounted->root), "%s/m-%d-%d-XXXXXX", tmp ? tmp : "/tmp", getpid(), ++count);
	cr_assert(mkdtemp(mounted->root), "mkdtemp: %s", strerror(errno));
	snprintf(mounted->dir, sizeof(mounted->dir), "%s/mnt", mounted->root);
	snprintf(mounted->state, sizeof(mounted->state), "%s/state", mounted->root);
	snprintf(mounted->log, sizeof(mounted->log), "%s/varve.log", mounted->root);
	cr_assert_eq(mkdir(mounted->dir, 0755), 0);
	if (store == MOUNTED_LOCAL) {
		snprintf(mounted->url, sizeof(mounted->url), "file://%s/store", mounted->root);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(mounted->bucket, sizeof(mounted->bucket), "t%d-%d-%lx%lx", getpid(), count, (unsigned long)now.tv_sec,
		 (unsigned long)now.tv_nsec);
	snprintf(mounted->url, sizeof(mounted->url), "s3://%s", mounted->bucket);
	if (store == MOUNTED_S3_UNVERSIONED)
		make_bucket(mounted->bucket);
}

void mounted_free(struct mounted *mounted)
{
	char command[512];

	if (mounted->pid)
		mounted_kill(mounted);
	snprintf(command, sizeof(command), "rm -rf '%s'", mounted->root);
	if (!getenv("VARVE_TEST_KEEP"))
		cr_assert_eq(system(command), 0);
}

static pid_t spawn(struct mounted *mounted, const char *options)
{
	bool only_looks = options && strncmp(options, "ro", 2) == 0 && (!options[2] || options[2] == ',');
	bool makes = mounted->store != MOUNTED_S3_UNVERSIONED && !only_looks;
	char all[1024];
	pid_t pid;

	snprintf(all, sizeof(all), "state=%s%s%s%s%s%s", mounted->state, makes ? ",create" : "",
		 mounted->store == MOUNTED_LOCAL ? "" : ",endpoint=",
		 mounted->store == MOUNTED_LOCAL ? "" : need("VARVE_TEST_S3_ENDPOINT"), options && *options ? "," : "",
		 options ? options : "");
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		int fd = open(mounted->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		if (next_kill[0])
			setenv("VARVE_KILL_AT", next_kill, 1);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execl(need("VARVE"), "varve", "mount", mounted->url, mounted->dir, "-f", "-o", all, (char *)NULL);
		_exit(127);
	}
	next_kill[0] = '\0';
	return pid;
}

static bool is_mounted(const struct mounted *mounted)
{
	struct stat dir, parent;

	return stat(mounted->dir, &dir) == 0 && stat(mounted->root, &parent) == 0 && dir.st_dev != parent.st_dev;
}

static void show_log(const struct mounted *mounted)
{
	char command[400];

	snprintf(command, sizeof(command), "tail -n 40 '%s' >&2", mounted->log);
	(void)!system(command);
}

void mounted_start(struct mounted *mounted, const char *options)
{
	int status;

	mounted->pid = spawn(mounted, options);
	for (int tries = 0; tries < 4800; tries++) {
		if (is_mounted(mounted))
			return;
		if (waitpid(mounted->pid, &status, WNOHANG) == mounted->pid) {
			mounted->pid = 0;
			show_log(mounted);
			cr_assert_fail("varve mount ended with status %x", status);
		}
		sleep_ms(25);
	}
	show_log(mounted);
	cr_assert_fail("varve mount was not ready in time");
}

int mounted_start_fails(struct mounted *mounted, const char *options, char *ret_line, size_t size)
{
	pid_t pid = spawn(mounted, options);
	size_t len;
	char *text;
	int status = 0;

	for (int tries = 0; waitpid(pid, &status, WNOHANG) == 0; tries++) {
		cr_assert_lt(tries, 2400, "varve mount neither failed nor ended");
		sleep_ms(25);
	}
	text = file_read(mounted->log, &len);
	while (text && len && text[len - 1] == '\n')
		text[--len] = '\0';
	snprintf(ret_line, size, "%s", !text ? "" : strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text);
	free(text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void take_away(const struct mounted *mounted)
{
	(void)umount2(mounted->dir, MNT_DETACH);
}

int mounted_stop(struct mounted *mounted)
{
	int result = mounted_shell(mounted, "timeout 300 \"$VARVE\" umount \"$MNT\"", NULL, 0);
	int status;

	if (result == 0 || !is_mounted(mounted)) {
		waitpid(mounted->pid, &status, 0);
		mounted->pid = 0;
		if (result || status) {
			fprintf(stderr, "varve umount ended with %d, the daemon with status %x\n", result,
				(unsigned)status);
			show_log(mounted);
			result = result ? result : -1;
		}
	} else {
		show_log(mounted);
	}
	return result;
}

void mounted_kill(struct mounted *mounted)
{
	int status;

	kill(mounted->pid, SIGKILL);
	waitpid(mounted->pid, &status, 0);
	mounted->pid = 0;
	take_away(mounted);
}

void mounted_kill_at(const char *point)
{
	snprintf(next_kill, sizeof(next_kill), "%s", point ? point : "");
}

bool mounted_died(struct mounted *mounted, int seconds)
{
	int status;

	for (int tries = 0; tries < seconds * 40; tries++) {
		if (waitpid(mounted->pid, &status, WNOHANG) == mounted->pid) {
			mounted->pid = 0;
			take_away(mounted);
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		}
		sleep_ms(25);
	}
	return false;
}

const char *mounted_path(const struct mounted *mounted, const char *path)
{
	static _Thread_local char paths[8][1024];
	static _Thread_local unsigned next;
	char *at = paths[next++ % 8];

	snprintf(at, sizeof(paths[0]), "%s/%s", mounted->dir, path);
	return at;
}

int mounted_shell(const struct mounted *mounted, const char *command, char *ret_output, size_t size)
{
	size_t used = 0, n;
	FILE *pipe;
	int status;

	setenv("MNT", mounted->dir, 1);
	setenv("ROOT", mounted->root, 1);
	setenv("STATE", mounted->state, 1);
	setenv("URL", mounted->url, 1);
	setenv("BUCKET", mounted->bucket, 1);
	if (!ret_output) {
		status = system(command);
		return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	}
	pipe = popen(command, "r");
	cr_assert(pipe);
	while (used + 1 < size && (n = fread(ret_output + used, 1, size - 1 - used, pipe)) > 0)
		used += n;
	ret_output[used] = '\0';
	status = pclose(pipe);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int mounted_text(const struct mounted *mounted, const char *command, char *ret_text, size_t size)
{
	int status = mounted_shell(mounted, command, ret_text, size);

	for (size_t len = strlen(ret_text); len && ret_text[len - 1] == '\n'; len--)
		ret_text[len - 1] = '\0';
	return status;
}

/* What `varve status --json` says, without a child process: it would have, and close, every file that the test has
 * open, and a close makes a version. */
static json_t *ask_status(const struct mounted *mounted)
{
	static const char question[] = "{\"op\":\"status\"}\n";
	struct mountinfo mount;
	json_t *answer;
	FILE *stream;
	int fd;

	cr_assert_eq(mountinfo_named(mounted->dir, &mount), 0, "%s is not mounted", mounted->dir);
	cr_assert_eq(control_connect(&mount, &fd), 0, "nobody serves %s", mounted->dir);
	mountinfo_clear(&mount);
	cr_assert_eq(write(fd, question, sizeof(question) - 1), (ssize_t)sizeof(question) - 1);
	stream = fdopen(fd, "r");
	cr_assert(stream);
	answer = json_loadf(stream, JSON_DISABLE_EOF_CHECK, NULL);
	cr_assert(answer, "no status");
	fclose(stream);
	return answer;
}

int64_t mounted_status(const struct mounted *mounted, const char *path)
{
	char word[64];
	json_t *root = ask_status(mounted), *at = root;
	int64_t value;

	while (*path) {
		size_t len = strcspn(path, ".");

		snprintf(word, sizeof(word), "%.*s", (int)len, path);
		at = json_object_get(at, word);
		cr_assert(at, "no %s in the status", word);
		path += len + (path[len] == '.');
	}
	value = json_is_true(at) ? 1 : json_integer_value(at);
	json_decref(root);
	return value;
}

void mounted_settle(const struct mounted *mounted, int seconds)
{
	int64_t before = -1;

	for (int tries = 0; tries < seconds * 10; tries++) {
		int64_t done = mounted_status(mounted, "writeback.done");

		if (mounted_status(mounted, "writeback.pending") == 0)
			return;
		if (done != before)
			tries = 0;
		before = done;
		sleep_ms(100);
	}
	show_log(mounted);
	(void)mounted_shell(mounted, "\"$VARVE\" status --json \"$MNT\" >&2", NULL, 0);
	cr_assert_fail("still %ld jobs pending", (long)mounted_status(mounted, "writeback.pending"));
}

/* --- files ---------------------------------------------------------------------------------------------- */

void file_write(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	cr_assert_geq(fd, 0, "open %s: %s", path, strerror(errno));
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)bytes + done, len - done);

		cr_assert_gt(n, 0, "write %s: %s", path, strerror(errno));
		done += (size_t)n;
	}
	cr_assert_eq(close(fd), 0, "close %s: %s", path, strerror(errno));
}

void file_puts(const char *path, const char *text)
{
	file_write(path, text, strlen(text));
}

size_t file_resident(int fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size, pages, count = 0;
	unsigned char *present;
	void *mapped;
	struct stat st;
	bool told;

	if (fstat(fd, &st) || st.st_size <= 0)
		return (size_t)-1;
	size = (size_t)st.st_size;
	pages = (size + page - 1) / page;
	mapped = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mapped == MAP_FAILED)
		return (size_t)-1;
	present = malloc(pages);
	told = present && mincore(mapped, size, present) == 0;
	for (size_t i = 0; told && i < pages; i++)
		count += present[i] & 1;
	free(present);
	(void)munmap(mapped, size);
	return told ? count * page : (size_t)-1;
}

char *file_read(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY);
	size_t len = 0, cap = 4096;
	char *bytes = malloc(cap + 1);
	ssize_t n;

	if (fd < 0 || !bytes) {
		free(bytes);
		return NULL;
	}
	while ((n = read(fd, bytes + len, cap - len)) > 0) {
		len += (size_t)n;
		if (len == cap)
			bytes = realloc(bytes, (cap *= 2) + 1);
	}
	close(fd);
	if (n < 0) {
		free(bytes);
		return NULL;
	}
	bytes[len] = '\0';
	if (ret_len)
		*ret_len = len;
	return bytes;
}

bool file_is(const char *path, const void *bytes, size_t len)
{
	size_t have_len = 0;
	char *have = file_read(path, &have_len);
	bool same = have && have_len == len && memcmp(have, bytes, len) == 0;

	free(have);
	return same;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *dir_names(const char *path)
{
	char **names = NULL, *all;
	size_t count = 0, size = 1;
	DIR *dir = opendir(path);

	cr_assert(dir, "opendir %s: %s", path, strerror(errno));
	for (struct dirent *at = readdir(dir); at; at = readdir(dir)) {
		if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0)
			continue;
		names = realloc(names, (count + 1) * sizeof(*names));
		names[count++] = strdup(at->d_name);
		size += strlen(at->d_name) + 1;
	}
	closedir(dir);
	if (count)
		qsort(names, count, sizeof(*names), by_name);
	all = calloc(1, size);
	for (size_t i = 0, at = 0; i < count; i++) {
		at += (size_t)snprintf(all + at, size - at, "%s%s", i ? "\n" : "", names[i]);
		free(names[i]);
	}
	free(names);
	return all;
}

void fill_random(void *ret_bytes, size_t len, uint64_t seed)
{
	uint8_t *bytes = ret_bytes;
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bytes[i] = (uint8_t)(x >> 32);
	}
}
