/*
 * past.c - reads DIR/.versions/NAME/.
 *
 * Single-threaded.
 */
#include "tools/past.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "tools/cli.h"

#define VERSIONS ".versions"
#define FACT_MAX 4096

static int split(const char *path, struct past *ret_past)
{
	size_t len = strlen(path), base, dir_len;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (base = len; base > 0 && path[base - 1] != '/'; base--)
		;
	if (base == len || (len - base == 1 && path[base] == '.') ||
	    (len - base == 2 && path[base] == '.' && path[base + 1] == '.'))
		return cli_fail("\"%s\" does not end in a name", path);
	for (dir_len = base; dir_len > 1 && path[dir_len - 1] == '/'; dir_len--)
		;
	ret_past->dir = dir_len ? strndup(path, dir_len) : strdup(".");
	ret_past->name = strndup(path + base, len - base);
	return ret_past->dir && ret_past->name ? 0 : cli_fail("out of memory");
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

static int open_name(struct past *past)
{
	AUTO_BUF shown = BUF_INIT;
	AUTO_CLOSE int dir = open(past->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int versions = -1;

	if (dir < 0)
		return cli_fail("%s: %s", past->dir, strerror(errno));
	versions = openat(dir, VERSIONS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (versions < 0 && errno == ENOENT)
		return cli_fail("%s has no " VERSIONS ": not on a varve mount, or mounted with snapdir=off", past->dir);
	buf_addf(&shown, "%s%s", is_shifted(past->name) ? "+" : "", past->name);
	if (buf_failed(&shown))
		return cli_fail("out of memory");
	if (versions >= 0)
		past->fd = openat(versions, shown.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (versions >= 0 && past->fd < 0 && errno == ENOENT)
		return cli_fail("%s: no such name ever lived in %s", past->name, past->dir);
	if (past->fd < 0)
		return cli_fail("history of %s: %s", past->name, strerror(errno));
	return 0;
}

int past_open(const char *path, struct past *ret_past)
{
	struct past past = {.fd = -1};
	int rc = split(path, &past);

	if (rc == 0)
		rc = open_name(&past);
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

int past_fact(const struct past *past, const char *entry, const char *fact, struct buf *ret_value)
{
	AUTO_FREE char *path = NULL;
	char name[64], value[FACT_MAX];
	ssize_t n;

	/* There is no getxattrat; the entries of .versions are files, so opening one would read it in. */
	if (asprintf(&path, "/proc/self/fd/%d/%s", past->fd, entry) < 0)
		return -ENOMEM;
	(void)snprintf(name, sizeof(name), "user.varve.%s", fact); /* the facts are ours and short */
	n = lgetxattr(path, name, value, sizeof(value));
	if (n < 0)
		return -errno;
	buf_add(ret_value, value, (size_t)n);
	return buf_failed(ret_value) ? -ENOMEM : 0;
}

/* The 8 hex digits behind the '~' of TIME~IDENTITY.EXT. */
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
		if (count == room) {
			struct past_version *more;

			room = room ? room * 2 : 16;
			more = reallocarray(versions, room, sizeof(*versions));
			if (!more) {
				rc = -ENOMEM;
				goto out;
			}
			versions = more;
		}
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
