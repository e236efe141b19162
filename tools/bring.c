/*
 * bring.c - see bring.h, which says how and why.
 *
 * Single-threaded, but for the one flag that a signal sets.
 */
#include "tools/bring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "tools/past.h"

#define COPY_CHUNK (1 << 20)
#define KERNEL_CHUNK (64 << 20) /* between two looks at whether to stop */
#define XATTR_MAX 65536
#define TEMP_NAME ".varve-restore"
#define TEMP_RANDOM 8
#define TEMP_SIZE (sizeof(TEMP_NAME "-") + 2 * TEMP_RANDOM)

static volatile sig_atomic_t interrupted;

static void note_signal(int number)
{
	(void)number; /* all mean the same */
	interrupted = 1;
}

void bring_catch_signals(void)
{
	const struct sigaction action = {.sa_handler = note_signal};
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct sigaction before;

		/* What nohup and the like have us ignore stays ignored. */
		if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &action, NULL); /* these numbers are valid */
	}
}

bool bring_was_interrupted(void)
{
	return interrupted;
}

static void path_of(int fd, char ret_path[static 32])
{
	(void)snprintf(ret_path, 32, "/proc/self/fd/%d", fd); /* fits */
}

static int open_source(const struct bring *bring)
{
	char path[32];
	int fd;

	path_of(bring->source, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* --- content -------------------------------------------------------------------------------------- */

static int write_chunk(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR && !interrupted)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

/* What the kernel leaves, for any reason, is read and written. target < 0: only read. */
static int copy_rest(int source, int target, uint64_t *copied)
{
	AUTO_FREE char *chunk = malloc(COPY_CHUNK);

	if (!chunk)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(source, chunk, COPY_CHUNK);
		int rc;

		if (interrupted)
			return -EINTR;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		rc = target >= 0 ? write_chunk(target, chunk, (size_t)n) : 0;
		if (rc < 0)
			return rc;
		*copied += (uint64_t)n;
	}
}

/* Both files are at their start. */
static int copy_content(int source, int target, uint64_t size)
{
	uint64_t copied = 0;
	ssize_t n = 1;
	int rc;

	while (!interrupted && (n = copy_file_range(source, NULL, target, NULL, KERNEL_CHUNK, 0)) > 0)
		copied += (uint64_t)n;
	if (interrupted)
		return -EINTR;
	if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
		return -errno;
	rc = copy_rest(source, target, &copied);
	if (rc < 0)
		return rc;
	return copied == size ? 0 : -EIO;
}

/* --- attributes ----------------------------------------------------------------------------------- */

/* Those that cannot be set here, such as other systems' namespaces, stay behind. */
static void copy_xattrs(const char *from, int target)
{
	AUTO_FREE char *names = NULL;
	AUTO_FREE char *value = malloc(XATTR_MAX);
	ssize_t len = listxattr(from, NULL, 0);

	if (len <= 0 || !value)
		return;
	names = malloc((size_t)len);
	len = names ? listxattr(from, names, (size_t)len) : 0;
	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t n;

		if (strncmp(name, "user.varve.", 11) == 0)
			continue;
		n = getxattr(from, name, value, XATTR_MAX);
		if (n >= 0)
			(void)fsetxattr(target, name, value, (size_t)n, 0); /* as said above */
	}
}

static void copy_xattrs_of_live(const struct bring *bring, int target)
{
	AUTO_CLOSE int live = openat(bring->dir, bring->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char path[32];

	path_of(live, path);
	if (live >= 0)
		copy_xattrs(path, target);
}

/* The mode that was recorded; stat shows it without what must not be given away. */
static mode_t recorded_mode(int source, mode_t shown)
{
	AUTO_BUF text = BUF_INIT;
	unsigned long mode;
	char *end;

	if (past_fact_at(source, "", "mode", &text) < 0 || !text.len)
		return (shown & 0555) | 0200;
	mode = strtoul(text.data, &end, 8);
	return *end ? (shown & 0555) | 0200 : (mode_t)mode & 0777;
}

static mode_t mode_for(const struct bring *bring)
{
	mode_t mode = recorded_mode(bring->source, bring->st.st_mode), allowed = 0077;

	if (bring->live && S_ISREG(bring->live->st_mode) && !bring_is_unfinished(bring->live, bring->source)) {
		allowed = bring->live->st_mode & 0066;
		allowed |= (allowed & 0044) >> 2; /* who may read it may run it, if it ran then */
	}
	return mode & (0700 | allowed);
}

bool bring_is_unfinished(const struct stat *live, int source)
{
	return S_ISREG(live->st_mode) && (live->st_mode & 0777) == 0 && recorded_mode(source, 0) != 0;
}

/* A file's own; of its last version that may be newer than what stat tells. */
struct timespec bring_mtime(int source, const struct stat *st)
{
	AUTO_BUF text = BUF_INIT;
	int64_t ns;

	if (past_fact_at(source, "", "mtime", &text) < 0 || clock_parse_when(text.data, 0, &ns) < 0)
		return st->st_mtim;
	return clock_to_timespec(ns);
}

/* Only root can give files away; anybody else's restored file is his own, as with cp. */
static int set_owner(const struct bring *bring, int target)
{
	AUTO_BUF text = BUF_INIT;
	unsigned long uid = bring->st.st_uid, gid = bring->st.st_gid;
	char *end;

	if (past_fact_at(bring->source, "", "owner", &text) == 0) {
		uid = strtoul(text.data, &end, 10);
		gid = *end == ':' ? strtoul(end + 1, NULL, 10) : gid;
	}
	return fchown(target, (uid_t)uid, (gid_t)gid) < 0 && errno != EPERM ? -errno : 0;
}

static int set_times(struct timespec mtime, int target)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, mtime};

	return futimens(target, times) < 0 ? -errno : 0;
}

static int set_attributes(const struct bring *bring, int target)
{
	char source[32];
	int rc;

	path_of(bring->source, source);
	if (bring->live && S_ISREG(bring->live->st_mode))
		copy_xattrs_of_live(bring, target);
	else
		copy_xattrs(source, target);
	rc = set_owner(bring, target);
	if (rc == 0)
		rc = set_times(bring_mtime(bring->source, &bring->st), target);
	if (rc == 0 && fchmod(target, mode_for(bring)) < 0)
		rc = -errno;
	return rc;
}

/* --- files ---------------------------------------------------------------------------------------- */

static int fill(const struct bring *bring, int target)
{
	AUTO_CLOSE int source = open_source(bring);
	int rc = source < 0 ? source : copy_content(source, target, (uint64_t)bring->st.st_size);

	return rc < 0 ? rc : set_attributes(bring, target);
}

static int finish(const struct bring *bring, int target, int rc)
{
	if (rc == 0 && bring->sync == BRING_STORED && fsync(target) < 0)
		rc = -errno;
	if (close(target) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

static int create(const struct bring *bring)
{
	int target = openat(bring->dir, bring->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
	int rc;

	if (target < 0)
		return -errno;
	rc = fill(bring, target);
	if (rc < 0)
		(void)unlinkat(bring->dir, bring->name, 0); /* the first error is the one to tell */
	return finish(bring, target, rc);
}

/* The same name each time, so that .versions does not fill with them; another one while that is in use. */
static int make_temp(int dir, char ret_name[static TEMP_SIZE])
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	char hex[2 * TEMP_RANDOM + 1];
	uint8_t bytes[TEMP_RANDOM];
	int fd;

	(void)snprintf(ret_name, TEMP_SIZE, TEMP_NAME); /* fits */
	fd = openat(dir, ret_name, flags, 0);
	if (fd < 0 && errno == EEXIST) {
		random_bytes(bytes, sizeof(bytes));
		hex_encode(bytes, sizeof(bytes), hex);
		(void)snprintf(ret_name, TEMP_SIZE, TEMP_NAME "-%s", hex); /* fits */
		fd = openat(dir, ret_name, flags, 0);
	}
	return fd < 0 ? -errno : fd;
}

static int replace(const struct bring *bring)
{
	char temp[TEMP_SIZE];
	int target = make_temp(bring->dir, temp), rc;

	if (target < 0)
		return target;
	rc = fill(bring, target);
	if (rc == 0 && renameat(bring->dir, temp, bring->dir, bring->name) < 0)
		rc = -errno;
	if (rc < 0)
		(void)unlinkat(bring->dir, temp, 0); /* the first error is the one to tell */
	return finish(bring, target, rc);
}

/* Reads the source through, so that what the store cannot give is known before anything is overwritten. */
static int fetch(const struct bring *bring)
{
	AUTO_CLOSE int source = open_source(bring);
	uint64_t seen = 0;

	return source < 0 ? source : copy_rest(source, -1, &seen);
}

static int rewrite(const struct bring *bring)
{
	AUTO_CLOSE int source = open_source(bring);
	int rc = source < 0 ? source : fetch(bring), target;

	if (rc < 0)
		return rc;
	target = openat(bring->dir, bring->name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (target < 0)
		return -errno;
	rc = ftruncate(target, 0) < 0 ? -errno : copy_content(source, target, (uint64_t)bring->st.st_size);
	if (rc == 0)
		rc = set_times(bring_mtime(bring->source, &bring->st), target);
	return finish(bring, target, rc);
}

static int bring_file(const struct bring *bring)
{
	if (!bring->live)
		return create(bring);
	return bring->way == BRING_IN_PLACE ? rewrite(bring) : replace(bring);
}

/* --- the rest ---------------------------------------------------------------------------------------- */

/* A path without content: made in a moment, so it takes the name as soon as that is free. */
static int make_path(const struct bring *bring)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, bring->st.st_mtim};
	char target[PATH_MAX];
	ssize_t len = 0;
	int rc;

	if (S_ISLNK(bring->st.st_mode)) {
		len = readlinkat(bring->source, "", target, sizeof(target) - 1);
		if (len < 0)
			return -errno;
	}
	if (bring->live && unlinkat(bring->dir, bring->name, 0) < 0 && errno != ENOENT)
		return -errno;
	target[len] = '\0';
	rc = S_ISLNK(bring->st.st_mode)
		     ? symlinkat(target, bring->dir, bring->name)
		     : mknodat(bring->dir, bring->name,
			       (bring->st.st_mode & S_IFMT) | recorded_mode(bring->source, bring->st.st_mode),
			       bring->st.st_rdev);
	if (rc < 0)
		return -errno;
	if (fchownat(bring->dir, bring->name, bring->st.st_uid, bring->st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 &&
	    errno != EPERM)
		return -errno;
	return utimensat(bring->dir, bring->name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int bring(const struct bring *bring)
{
	return S_ISREG(bring->st.st_mode) ? bring_file(bring) : make_path(bring);
}

int bring_directory(int dir, const char *name)
{
	return mkdirat(dir, name, 0700) < 0 ? -errno : 0;
}

int bring_directory_attributes(int source, int made)
{
	char path[32];
	struct stat st;

	path_of(source, path);
	if (fstat(source, &st) < 0)
		return -errno;
	copy_xattrs(path, made);
	if (fchown(made, st.st_uid, st.st_gid) < 0 && errno != EPERM)
		return -errno;
	return fchmod(made, recorded_mode(source, st.st_mode)) < 0 ? -errno : 0;
}

int bring_directory_time(const struct stat *st, int directory)
{
	return set_times(st->st_mtim, directory);
}
