/*
 * verb_restore.c - `varve restore`: brings a version back by writing it anew.
 *
 * Nothing of the past is touched: the restored content is one more version.
 *
 * A name that is free or the only one of its file is replaced by renaming a
 * finished copy over it, so a reader sees the old file or the whole new one.
 * A file with other hard links is rewritten in place, or they would part.
 *
 * .versions shows modes without write permission, so that comes from the file
 * that is replaced; where there is none, its owner may write.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "tools/cli.h"
#include "tools/past.h"

#define COPY_CHUNK (1 << 20)
#define TEMP_RANDOM 8
#define TEMP_SIZE (sizeof(".varve-restore-") + 2 * TEMP_RANDOM)

static const char help[] = "varve restore PATH --version V | --at TIME [--to DEST]\n"
			   "\n"
			   "Writes an old version of PATH back, as one more version; PATH may be deleted by now.\n"
			   "\n"
			   "  --version V  a name in .versions, its 8 hex digits, -1 (the newest), -2, … or @TIME\n"
			   "  --at TIME    as it was then: 2026-11-21T10:00:00Z, 2026-11-20, 2h, 3d\n"
			   "  --to DEST    write it there instead: a file, or a directory to put it in\n";

/* The version that is restored, and where to. */
struct restore {
	struct past past;
	int source;
	struct stat st;   /* of the version */
	char *shown;      /* how to call the version */
	int dir;          /* of the destination */
	char *dest;       /* the destination as people wrote it */
	const char *name; /* its last component, within `dest` */
	bool exists;
	struct stat live; /* when it exists */
};

/* --- which version ------------------------------------------------------------------------------- */

/* The entry a version goes by in .versions, for telling; V itself where it is not listed. */
static char *entry_of(const struct restore *restore, const char *wanted)
{
	struct past_version *versions;
	char *entry = NULL;
	size_t count;

	if (past_list(&restore->past, &versions, &count) < 0)
		return strdup(wanted);
	for (size_t i = 0; i < count && !entry; i++) {
		if (versions[i].st.st_ino == restore->st.st_ino)
			entry = strdup(versions[i].entry);
	}
	past_versions_free(versions, count);
	return entry ? entry : strdup(wanted);
}

/* -1 when it was none, or belongs to no version, or to several. */
static int open_identity(const struct restore *restore, const char *wanted)
{
	struct past_version *versions;
	size_t count, found = 0, matches = 0;
	int fd = -1;

	if (strlen(wanted) != PAST_IDENTITY_SIZE - 1 || past_list(&restore->past, &versions, &count) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (strcasecmp(versions[i].identity, wanted) == 0) {
			found = i;
			matches++;
		}
	}
	if (matches == 1)
		fd = openat(restore->past.fd, versions[found].entry, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	past_versions_free(versions, count);
	return fd;
}

static int open_version(struct restore *restore, const char *wanted)
{
	if (!*wanted || strchr(wanted, '/') || strcmp(wanted, ".") == 0 || strcmp(wanted, "..") == 0)
		return cli_usage("restore", "\"%s\" names no version", wanted);
	restore->source = open_identity(restore, wanted);
	if (restore->source < 0)
		restore->source = openat(restore->past.fd, wanted, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (restore->source < 0 && errno == ENOENT)
		return cli_fail("%s has no version %s; `varve log` lists what there is", restore->past.name, wanted);
	if (restore->source < 0 || fstat(restore->source, &restore->st) < 0)
		return cli_fail("version %s of %s: %s", wanted, restore->past.name, strerror(errno));
	if (!S_ISREG(restore->st.st_mode))
		return cli_fail("version %s of %s is not a file", wanted, restore->past.name);
	restore->shown = entry_of(restore, wanted);
	return restore->shown ? 0 : cli_fail("out of memory");
}

/* A time becomes the alias @TIME, absolute, so that an age means the age it had when it was typed. */
static int open_at(struct restore *restore, const char *when)
{
	char text[CLOCK_RFC3339_SIZE + 1] = "@";
	int64_t ns;

	if (clock_parse_when(when, clock_wall(), &ns) < 0)
		return cli_usage("restore", "--at %s is no time: write 2026-11-21T10:00:00Z, 2026-11-20, 2h or 3d",
				 when);
	clock_format_rfc3339(ns, text + 1);
	return open_version(restore, text);
}

/* --- where to ---------------------------------------------------------------------------------- */

static int find_destination(struct restore *restore, const char *path)
{
	AUTO_FREE char *parent = NULL;
	AUTO_BUF dest = BUF_INIT;
	struct stat st;
	char *slash;

	if (!path)
		path = restore->past.dir;
	buf_adds(&dest, path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		buf_addf(&dest, "%s%s", path[strlen(path) - 1] == '/' ? "" : "/", restore->past.name);
	restore->dest = buf_detach(&dest);
	if (!restore->dest)
		return cli_fail("out of memory");
	slash = strrchr(restore->dest, '/');
	restore->name = slash ? slash + 1 : restore->dest;
	if (!*restore->name)
		return cli_fail("%s is not a directory", restore->dest);
	parent = slash ? strndup(restore->dest, (size_t)(slash - restore->dest) + 1) : strdup(".");
	restore->dir = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (restore->dir < 0)
		return cli_fail("%s: %s", parent ? parent : restore->dest, strerror(errno));
	restore->exists = fstatat(restore->dir, restore->name, &restore->live, AT_SYMLINK_NOFOLLOW) == 0;
	if (!restore->exists && errno != ENOENT)
		return cli_fail("%s: %s", restore->dest, strerror(errno));
	if (restore->exists && !S_ISREG(restore->live.st_mode) && !S_ISLNK(restore->live.st_mode))
		return cli_fail("%s is there and is not a file; move it away or use --to", restore->dest);
	return 0;
}

/* --- writing ----------------------------------------------------------------------------------- */

static int write_chunk(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Both files are at their start. The kernel copies what it can; whatever it leaves, for any reason, is read and
 * written. */
static int copy_content(int source, int target, uint64_t size)
{
	AUTO_FREE char *chunk = malloc(COPY_CHUNK);
	uint64_t copied = 0;
	ssize_t n;

	if (!chunk)
		return -ENOMEM;
	while ((n = copy_file_range(source, NULL, target, NULL, 1 << 30, 0)) > 0)
		copied += (uint64_t)n;
	if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
		return -errno;
	for (;;) {
		int rc;

		n = read(source, chunk, COPY_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		rc = write_chunk(target, chunk, (size_t)n);
		if (rc < 0)
			return rc;
		copied += (uint64_t)n;
	}
	return copied == size ? 0 : -EIO;
}

/* Attributes are no part of a version: what replaces a file takes over the ones the file has. Those that cannot be
 * set here, such as other systems' namespaces, stay behind. */
static void copy_xattrs(const struct restore *restore, int target)
{
	AUTO_CLOSE int live = openat(restore->dir, restore->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	AUTO_FREE char *names = NULL;
	AUTO_FREE char *value = malloc(65536);
	ssize_t len = live >= 0 ? flistxattr(live, NULL, 0) : 0;

	if (len <= 0 || !value)
		return;
	names = malloc((size_t)len);
	len = names ? flistxattr(live, names, (size_t)len) : 0;
	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t n;

		if (strncmp(name, "user.varve.", 11) == 0)
			continue;
		n = fgetxattr(live, name, value, 65536);
		if (n >= 0)
			(void)fsetxattr(target, name, value, (size_t)n, 0); /* as said above */
	}
}

static int set_times(const struct restore *restore, int target)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, restore->st.st_mtim};

	return futimens(target, times) < 0 ? -errno : 0;
}

static int set_attributes(const struct restore *restore, int target)
{
	bool was_file = restore->exists && S_ISREG(restore->live.st_mode);
	mode_t mode = restore->st.st_mode & 0555;

	if (was_file)
		copy_xattrs(restore, target);
	mode |= was_file ? restore->live.st_mode & 0222 : 0200;
	/* Only root can give files away; anybody else's restored file is his own, as with cp. */
	if (fchown(target, restore->st.st_uid, restore->st.st_gid) < 0 && errno != EPERM)
		return -errno;
	if (fchmod(target, mode) < 0)
		return -errno;
	return set_times(restore, target);
}

static int replace(const struct restore *restore)
{
	char temp[TEMP_SIZE], hex[2 * TEMP_RANDOM + 1];
	uint8_t bytes[TEMP_RANDOM];
	int target, rc;

	random_bytes(bytes, sizeof(bytes));
	hex_encode(bytes, sizeof(bytes), hex);
	(void)snprintf(temp, sizeof(temp), ".varve-restore-%s", hex); /* fits */
	target = openat(restore->dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (target < 0)
		return -errno;
	rc = copy_content(restore->source, target, (uint64_t)restore->st.st_size);
	if (rc == 0)
		rc = set_attributes(restore, target);
	if (rc == 0 && fsync(target) < 0)
		rc = -errno;
	if (close(target) < 0 && rc == 0)
		rc = -errno;
	if (rc == 0 && renameat(restore->dir, temp, restore->dir, restore->name) < 0)
		rc = -errno;
	if (rc < 0)
		(void)unlinkat(restore->dir, temp, 0); /* the first error is the one to tell */
	else if (fsync(restore->dir) < 0 && errno != EINVAL)
		rc = -errno;
	return rc;
}

static int rewrite(const struct restore *restore)
{
	int target = openat(restore->dir, restore->name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (target < 0)
		return -errno;
	rc = ftruncate(target, 0) < 0 ? -errno : 0;
	if (rc == 0)
		rc = copy_content(restore->source, target, (uint64_t)restore->st.st_size);
	if (rc == 0)
		rc = set_times(restore, target);
	if (rc == 0 && fsync(target) < 0)
		rc = -errno;
	if (close(target) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

static int write_back(const struct restore *restore)
{
	bool linked = restore->exists && S_ISREG(restore->live.st_mode) && restore->live.st_nlink > 1;
	char size[CLI_SIZE_TEXT];
	int rc = linked ? rewrite(restore) : replace(restore);

	if (rc < 0)
		return cli_fail("%s: %s%s", restore->dest, strerror(-rc),
				linked ? "; it was being rewritten in place" : "; unchanged");
	cli_format_size((uint64_t)restore->st.st_size, size);
	(void)printf("%s: version %s of %s, %s%s\n", restore->dest, restore->shown, restore->past.name, size,
		     linked ? ", rewritten in place for its other hard links" : ""); /* checked below */
	return fflush(stdout) == 0 ? 0 : cli_fail("cannot write: %s", strerror(errno));
}

int verb_restore(int argc, char **argv)
{
	const char *version = NULL, *at = NULL, *to = NULL;
	const struct cli_option options[] = {{.name = "version", .value = &version},
					     {.name = "at", .value = &at},
					     {.name = "to", .value = &to},
					     {0}};
	const struct cli_syntax syntax = {.verb = "restore", .help = help, .options = options, .min = 1, .max = 1};
	struct restore restore = {.source = -1, .dir = -1};
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (!version == !at)
		return cli_usage("restore", "say either --version V or --at TIME");
	rc = past_open(words[0], &restore.past);
	if (rc != 0)
		return rc;
	rc = version ? open_version(&restore, version) : open_at(&restore, at);
	if (rc == 0)
		rc = find_destination(&restore, to);
	if (rc == 0)
		rc = write_back(&restore);
	if (restore.source >= 0)
		(void)close(restore.source); /* only read */
	if (restore.dir >= 0)
		(void)close(restore.dir); /* only read */
	free(restore.shown);
	free(restore.dest);
	past_close(&restore.past);
	return rc;
}
