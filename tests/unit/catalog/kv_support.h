/*
 * kv_support.h - what the tests of the key-value store share: a directory of
 * their own, whole-file reading and writing, a random source that repeats.
 */
#ifndef VARVE_TESTS_KV_SUPPORT_H
#define VARVE_TESTS_KV_SUPPORT_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "catalog/kv.h"

static inline struct kv_bytes bytes_of(const char *string)
{
	return (struct kv_bytes){.data = string, .len = strlen(string)};
}

/* 0 when they are the same bytes. */
static inline int kv_compare_string(struct kv_bytes bytes, const char *string)
{
	return bytes.len == strlen(string) ? memcmp(bytes.data, string, bytes.len) : 1;
}

static inline int support_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	(void)nftw(path, support_remove, 16,
		   FTW_DEPTH | FTW_PHYS); /* what stays behind lies in a temporary directory */
}

/* The caller frees it, after remove_tree. */
static inline char *make_temp_dir(void)
{
	const char *base = getenv("TMPDIR");
	char *path;

	cr_assert(asprintf(&path, "%s/varve-kv-XXXXXX", base ? base : "/tmp") > 0);
	cr_assert_not_null(mkdtemp(path), "mkdtemp: %s", strerror(errno));
	return path;
}

static inline void free_temp_dir(char *path)
{
	remove_tree(path);
	free(path);
}

/* path = dir/name; the caller frees it. */
static inline char *path_join(const char *dir, const char *name)
{
	char *path;

	cr_assert(asprintf(&path, "%s/%s", dir, name) > 0);
	return path;
}

static inline void read_whole(const char *path, struct buf *ret_bytes)
{
	char chunk[65536];
	ssize_t got;
	int fd = open(path, O_RDONLY);

	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	buf_reset(ret_bytes);
	while ((got = read(fd, chunk, sizeof(chunk))) > 0)
		buf_add(ret_bytes, chunk, (size_t)got);
	cr_assert_eq(got, 0);
	cr_assert_not(buf_failed(ret_bytes));
	close(fd);
}

static inline void write_whole(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

/* Copies the plain files of one directory into another, which is made. */
static inline void copy_dir(const char *from, const char *to)
{
	DIR *dir = opendir(from);
	struct dirent *entry;
	AUTO_BUF bytes = BUF_INIT;

	cr_assert_not_null(dir);
	cr_assert(mkdir(to, 0700) == 0 || errno == EEXIST);
	while ((entry = readdir(dir))) {
		char *source, *target;

		if (entry->d_type != DT_REG)
			continue;
		source = path_join(from, entry->d_name);
		target = path_join(to, entry->d_name);
		read_whole(source, &bytes);
		write_whole(target, bytes.data, bytes.len);
		free(source);
		free(target);
	}
	closedir(dir);
}

/* The redo log files of a directory, oldest first. Returns how many; paths are the caller's to free. */
static inline size_t list_logs(const char *dir, char *ret_paths[], size_t max)
{
	struct dirent **entries;
	int count = scandir(dir, &entries, NULL, alphasort);
	size_t found = 0;

	cr_assert(count >= 0);
	for (int i = 0; i < count; i++) {
		if (strncmp(entries[i]->d_name, "redo-", 5) == 0 && found < max)
			ret_paths[found++] = path_join(dir, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return found;
}

static inline size_t count_logs(const char *dir)
{
	char *paths[256];
	size_t count = list_logs(dir, paths, 256);

	for (size_t i = 0; i < count; i++)
		free(paths[i]);
	return count;
}

static inline off_t size_of(const char *path)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	return st.st_size;
}

static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 11;
}

#endif
