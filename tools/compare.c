/*
 * compare.c - versions by their sequence, then sizes, then recorded checksums, then bytes.
 *
 * A recorded checksum tells files apart, but that they are the same only bytes do.
 * What is recorded of a live file holds only when it is stored: one that is not may
 * have changes that are in no version yet. Those are in the cache, so reading
 * them costs little.
 */
#include "tools/compare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "tools/bring.h"
#include "tools/past.h"

#define CHUNK (1 << 20)

ssize_t compare_read(int fd, void *ret_bytes, size_t size, off_t at)
{
	size_t len = 0;

	while (fd >= 0 && len < size) {
		ssize_t n = pread(fd, (char *)ret_bytes + len, size - len, at + (off_t)len);

		if (bring_was_interrupted())
			return -EINTR;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

static bool is_its_version(int fd, const struct stat *st)
{
	AUTO_BUF state = BUF_INIT;

	return st->st_ino & PAST_VERSION_BIT ||
	       (past_fact_at(fd, "", "state", &state) == 0 && strcmp(state.data, "stored") == 0);
}

/* 1, 0, or -ENODATA when one of them has none. */
static int same_fact(int a, int b, const char *fact)
{
	AUTO_BUF left = BUF_INIT;
	AUTO_BUF right = BUF_INIT;

	if (past_fact_at(a, "", fact, &left) < 0 || past_fact_at(b, "", fact, &right) < 0)
		return -ENODATA;
	return strcmp(left.data, right.data) == 0;
}

/* 0: it has none. A version's number tells it, without a request. */
static uint64_t seq_of(int fd, const struct stat *st)
{
	AUTO_BUF seq = BUF_INIT;

	if (st->st_ino & PAST_VERSION_BIT)
		return st->st_ino & ~PAST_VERSION_BIT;
	return past_fact_at(fd, "", "seq", &seq) == 0 ? strtoull(seq.data, NULL, 10) : 0;
}

int compare_known(int a, int b)
{
	struct stat left = {0}, right = {0};

	if ((a >= 0 && fstat(a, &left) < 0) || (b >= 0 && fstat(b, &right) < 0))
		return -errno;
	if (left.st_size != right.st_size)
		return 0;
	if (a < 0 || b < 0)
		return -EAGAIN;
	if (left.st_dev != right.st_dev || !is_its_version(a, &left) || !is_its_version(b, &right))
		return -EAGAIN;
	if (seq_of(a, &left) && seq_of(a, &left) == seq_of(b, &right))
		return 1;
	return same_fact(a, b, "checksum") == 0 ? 0 : -EAGAIN;
}

bool compare_checksums(int a, int b)
{
	struct stat left, right;

	return fstat(a, &left) == 0 && fstat(b, &right) == 0 && is_its_version(a, &left) && is_its_version(b, &right) &&
	       same_fact(a, b, "checksum") == 1;
}

static int reopen(int fd)
{
	char path[32];
	int opened;

	if (fd < 0)
		return -1;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); /* fits */
	opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return opened < 0 ? -errno : opened;
}

int compare_files(int a, int b)
{
	AUTO_FREE char *left = NULL;
	AUTO_FREE char *right = NULL;
	AUTO_CLOSE int from = -1;
	AUTO_CLOSE int to = -1;
	int rc = compare_known(a, b);
	ssize_t n, m;

	if (rc != -EAGAIN)
		return rc;
	from = reopen(a);
	to = reopen(b);
	if ((a >= 0 && from < 0) || (b >= 0 && to < 0))
		return from < 0 && a >= 0 ? from : to;
	left = malloc(CHUNK);
	right = malloc(CHUNK);
	if (!left || !right)
		return -ENOMEM;
	for (off_t at = 0;; at += n) {
		n = compare_read(from, left, CHUNK, at);
		m = compare_read(to, right, CHUNK, at);
		if (n < 0 || m < 0)
			return (int)(n < 0 ? n : m);
		if (n != m || memcmp(left, right, (size_t)n) != 0)
			return 0;
		if (n < CHUNK)
			return 1;
	}
}
