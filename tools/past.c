/*
 * past.c - reads DIR/.versions/NAME/, and finds a path as it was at an instant.
 *
 * Single-threaded.
 */
#include "tools/past.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "array.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/control.h"
#include "tools/cli.h"

#define VERSIONS ".versions"
#define FACT_MAX 4096

int past_split(const char *path, char **ret_dir, char **ret_name)
{
	size_t len = strlen(path), base, dir_len;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (base = len; base > 0 && path[base - 1] != '/'; base--)
		;
	if (base == len || (len - base == 1 && path[base] == '.') ||
	    (len - base == 2 && path[base] == '.' && path[base + 1] == '.'))
		return -EINVAL;
	for (dir_len = base; dir_len > 1 && path[dir_len - 1] == '/'; dir_len--)
		;
	*ret_dir = dir_len ? strndup(path, dir_len) : strdup(".");
	*ret_name = strndup(path + base, len - base);
	if (*ret_dir && *ret_name)
		return 0;
	free(*ret_dir);
	free(*ret_name);
	return -ENOMEM;
}

/* A file that is called like one of the special entries, +log and so on, has its history behind one more '+'. */
static bool is_shifted(const char *name)
{
	static const char *const specials[] = {"+log", "+deleted", "+at", "+gmt"};

	while (name[0] == '+' && name[1] == '+')
		name++;
	for (size_t i = 0; i < ARRAY_SIZE(specials); i++) {
		if (strcmp(name, specials[i]) == 0)
			return true;
	}
	return false;
}

static int shown_name(const char *name, struct buf *ret_shown)
{
	buf_addf(ret_shown, "%s%s", is_shifted(name) ? "+" : "", name);
	return buf_failed(ret_shown) ? -ENOMEM : 0;
}

/* One answer a mount: trees are walked on one. */
const char *past_versions(int fd)
{
	static char name[NAME_MAX + 1];
	static dev_t mount;
	AUTO_BUF fact = BUF_INIT;
	struct stat st;

	if (*name && fstat(fd, &st) == 0 && st.st_dev == mount)
		return name;
	if (past_fact_at(fd, "", "snapdir", &fact) < 0 || fact.len >= sizeof(name) || fstat(fd, &st) < 0)
		return VERSIONS;
	memcpy(name, fact.data, fact.len + 1);
	mount = st.st_dev;
	return name;
}

/* --- where the past of a directory is --------------------------------------------------------------- */

/* Of a directory that is gone: what it was when it was deleted, which has its .versions as live ones have. */
static int open_deleted_versions(const char *dir)
{
	AUTO_FREE char *above = NULL;
	AUTO_FREE char *name = NULL;
	AUTO_CLOSE int versions = -1, deleted = -1;
	AUTO_BUF path = BUF_INIT;
	int fd, rc = past_split(dir, &above, &name);

	if (rc < 0)
		return rc == -EINVAL ? -ENOENT : rc;
	versions = past_versions_open(above);
	if (versions < 0)
		return versions;
	buf_addf(&path, "+deleted/%s/%s", name, past_versions(versions));
	if (buf_failed(&path))
		return -ENOMEM;
	fd = openat(versions, path.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int past_versions_open(const char *dir)
{
	AUTO_CLOSE int live = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (live < 0)
		return errno == ENOENT ? open_deleted_versions(dir) : -errno;
	fd = openat(live, past_versions(live), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -EOPNOTSUPP : -errno;
	return fd;
}

int past_complain(const char *path, int rc)
{
	if (rc == -EOPNOTSUPP)
		return cli_fail("%s has no " VERSIONS ": not on a varve mount, or mounted with snapdir=off", path);
	return cli_fail("%s: %s", path, strerror(-rc));
}

static int open_name(struct past *past)
{
	AUTO_BUF shown = BUF_INIT;
	AUTO_CLOSE int versions = past_versions_open(past->dir);

	if (versions < 0)
		return past_complain(past->dir, versions);
	if (shown_name(past->name, &shown) < 0)
		return cli_fail("out of memory");
	past->fd = openat(versions, shown.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (past->fd < 0 && errno == ENOENT)
		return cli_fail("%s: no such name ever lived in %s", past->name, past->dir);
	if (past->fd < 0)
		return cli_fail("history of %s: %s", past->name, strerror(errno));
	return 0;
}

int past_open(const char *path, struct past *ret_past)
{
	struct past past = {.fd = -1};
	int rc = past_split(path, &past.dir, &past.name);

	if (rc == -EINVAL)
		return cli_fail("\"%s\" does not end in a name", path);
	rc = rc < 0 ? cli_fail("out of memory") : open_name(&past);
	if (rc == 0)
		*ret_past = past;
	else
		past_close(&past);
	return rc;
}

void past_close(struct past *past)
{
	free(past->dir);
	free(past->name);
	if (past->fd >= 0)
		(void)close(past->fd); /* only read */
	*past = (struct past){.fd = -1};
}

void past_versions_free(struct past_version *versions, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(versions[i].entry);
	free(versions);
}

/* --- facts and versions ----------------------------------------------------------------------------- */

/* There is no getxattrat; the entries of .versions are files, so opening one would read it in. */
int past_fact_at(int dir, const char *name, const char *fact, struct buf *ret_value)
{
	AUTO_BUF path = BUF_INIT;
	char full[64], value[FACT_MAX];
	ssize_t n;

	(void)snprintf(full, sizeof(full), "user.varve.%s", fact); /* the facts are ours and short */
	buf_addf(&path, "/proc/self/fd/%d%s%s", dir, *name ? "/" : "", name);
	if (buf_failed(&path))
		return -ENOMEM;
	n = *name ? lgetxattr(path.data, full, value, sizeof(value)) : getxattr(path.data, full, value, sizeof(value));
	if (n < 0)
		return -errno;
	buf_add(ret_value, value, (size_t)n);
	return buf_failed(ret_value) ? -ENOMEM : 0;
}

int past_fact(const struct past *past, const char *entry, const char *fact, struct buf *ret_value)
{
	return past_fact_at(past->fd, entry, fact, ret_value);
}

static void take_identity(const char *entry, char ret_identity[static PAST_IDENTITY_SIZE])
{
	const char *tilde = strchr(entry, '~');
	size_t len = 0;

	while (tilde && len < PAST_IDENTITY_SIZE - 1 && isxdigit((unsigned char)tilde[1 + len])) {
		ret_identity[len] = tilde[1 + len];
		len++;
	}
	ret_identity[len] = '\0';
}

static int read_version(const struct past *past, const char *entry, struct past_version *ret_version)
{
	AUTO_BUF seq = BUF_INIT;
	struct past_version version = {0};

	if (fstatat(past->fd, entry, &version.st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (past_fact(past, entry, "seq", &seq) == 0)
		version.seq = strtoull(seq.data, NULL, 10);
	take_identity(entry, version.identity);
	version.entry = strdup(entry);
	if (!version.entry)
		return -ENOMEM;
	*ret_version = version;
	return 0;
}

/* By sequence, which clocks cannot disturb; names sort by time and decide where a sequence is not known. */
static int compare(const void *left, const void *right)
{
	const struct past_version *a = left, *b = right;

	if (a->seq && b->seq && a->seq != b->seq)
		return a->seq < b->seq ? -1 : 1;
	return strcmp(a->entry, b->entry);
}

int past_list(const struct past *past, struct past_version **ret_versions, size_t *ret_count)
{
	struct past_version *versions = NULL;
	size_t count = 0, room = 0;
	struct dirent *entry;
	int fd = openat(past->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			(void)close(fd); /* only read */
		return rc;
	}
	while (errno = 0, (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		rc = ARRAY_ROOM(versions, room, count);
		if (rc < 0)
			goto out;
		rc = read_version(past, entry->d_name, &versions[count]);
		if (rc < 0)
			goto out;
		count++;
	}
	rc = -errno;
out:
	(void)closedir(dir); /* only read */
	if (rc < 0) {
		past_versions_free(versions, count);
		return rc;
	}
	if (count)
		qsort(versions, count, sizeof(*versions), compare);
	*ret_versions = versions;
	*ret_count = count;
	return 0;
}

/* --- one of them ------------------------------------------------------------------------------------- */

void past_pick_close(struct past_pick *pick)
{
	free(pick->entry);
	if (pick->fd >= 0)
		(void)close(pick->fd); /* only a path */
	*pick = (struct past_pick){.fd = -1};
}

/* The entry whose number that is; NULL where it is not listed. */
static char *entry_of(const struct past *past, ino_t number)
{
	int fd = openat(past->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	char *name = NULL;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd); /* only read */
		return NULL;
	}
	while (!name && (entry = readdir(dir))) {
		if (entry->d_ino == number)
			name = strdup(entry->d_name);
	}
	(void)closedir(dir); /* only read */
	return name;
}

int past_pick(const struct past *past, const char *verb, const char *wanted, struct past_pick *ret_pick)
{
	struct past_pick pick = {.fd = -1};

	if (!*wanted || strchr(wanted, '/') || strcmp(wanted, ".") == 0 || strcmp(wanted, "..") == 0)
		return cli_usage(verb, "\"%s\" names no version", wanted);
	pick.fd = openat(past->fd, wanted, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (pick.fd < 0 && errno == ENOENT)
		return cli_fail("%s has no version %s; `varve log` lists what there is", past->name, wanted);
	if (pick.fd < 0 || fstat(pick.fd, &pick.st) < 0) {
		int rc = cli_fail("version %s of %s: %s", wanted, past->name, strerror(errno));

		past_pick_close(&pick);
		return rc;
	}
	pick.entry = entry_of(past, pick.st.st_ino);
	if (!pick.entry)
		pick.entry = strdup(wanted);
	if (!pick.entry) {
		past_pick_close(&pick);
		return cli_fail("out of memory");
	}
	take_identity(pick.entry, pick.identity);
	*ret_pick = pick;
	return 0;
}

int past_pick_at(const struct past *past, const char *verb, const char *when, struct past_pick *ret_pick)
{
	char text[CLOCK_RFC3339_SIZE + 1] = "@";
	int64_t ns;
	int rc = cli_parse_when(verb, "at", when, &ns);

	if (rc != 0)
		return rc;
	clock_format_rfc3339(ns, text + 1);
	return past_pick(past, verb, text, ret_pick);
}

/* --- a path at an instant ------------------------------------------------------------------------------ */

static int open_at(int versions, int64_t when_ns, const char *below)
{
	char time[CLOCK_RFC3339_SIZE];
	AUTO_BUF path = BUF_INIT;
	int fd;

	clock_format_rfc3339(when_ns, time);
	buf_addf(&path, "+at/%s%s%s", time, *below ? "/" : "", below);
	if (buf_failed(&path))
		return -ENOMEM;
	fd = openat(versions, path.data, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int past_at_open(int versions, int64_t when_ns, const char *name)
{
	return open_at(versions, when_ns, name);
}

/* The canonical path, though its end may not be there any more. */
static char *real_path(const char *path)
{
	AUTO_FREE char *above = NULL;
	AUTO_FREE char *name = NULL;
	AUTO_FREE char *real_above = NULL;
	char *real = realpath(path, NULL);

	if (real || errno != ENOENT || past_split(path, &above, &name) < 0)
		return real;
	real_above = real_path(above);
	if (!real_above || asprintf(&real, "%s/%s", strcmp(real_above, "/") == 0 ? "" : real_above, name) < 0)
		return NULL;
	return real;
}

/* By its name from the top of the mount: what lay at this path then, whatever lies there now. */
static int open_by_name(const char *real, const char *top, int64_t when_ns)
{
	AUTO_CLOSE int versions = past_versions_open(top);
	size_t len = strlen(top);

	if (versions < 0)
		return versions;
	return open_at(versions, when_ns, real + len + (real[len] == '/'));
}

static bool is_empty(int path_fd)
{
	int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry = NULL;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd); /* only read */
		return true;
	}
	while ((entry = readdir(dir)) && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
		;
	(void)closedir(dir); /* only read */
	return !entry;
}

/* A directory that had another name then. One that was not made yet looks empty: that is not what it was. */
static int open_by_inode(const char *path, int64_t when_ns)
{
	AUTO_CLOSE int versions = past_versions_open(path);
	int fd = versions < 0 ? versions : open_at(versions, when_ns, "");

	if (fd >= 0 && is_empty(fd)) {
		(void)close(fd); /* only a path */
		return -ENOENT;
	}
	return fd;
}

/* What is gone belongs to no mount; what it lay in does. */
static int mount_above(const char *real, struct mountinfo *ret_mount)
{
	AUTO_FREE char *above = strdup(real);
	char *slash = above;
	int rc = above ? -ENOENT : -ENOMEM;

	while (rc == -ENOENT && slash) {
		rc = mountinfo_of(*above ? above : "/", ret_mount);
		slash = strrchr(above, '/');
		if (slash)
			*slash = '\0';
	}
	return rc == -ENOENT ? -EOPNOTSUPP : rc;
}

int past_tree_open(const char *path, int64_t when_ns)
{
	AUTO_FREE char *real = real_path(path);
	struct mountinfo mount;
	struct stat st;
	int fd;

	if (!real)
		return -errno;
	fd = mount_above(real, &mount);
	if (fd < 0)
		return fd;
	fd = open_by_name(real, mount.mountpoint, when_ns);
	mountinfo_clear(&mount);
	if (fd == -ENOENT && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		fd = open_by_inode(path, when_ns);
	return fd;
}

bool past_is_before_all(const char *path, int tree)
{
	AUTO_FREE char *real = realpath(path, NULL);
	struct mountinfo mount;
	bool is_top;

	if (!real || !is_empty(tree) || mountinfo_of(real, &mount) < 0)
		return false;
	is_top = strcmp(real, mount.mountpoint) == 0;
	mountinfo_clear(&mount);
	return is_top;
}
