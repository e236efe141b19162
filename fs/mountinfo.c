/*
 * mountinfo.c - reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
 *
 * A line: id parent major:minor root mountpoint options [tags…] - type source super-options.
 * Space, tab, newline and backslash inside a field are octal escapes.
 *
 * No shared state: every call reads the file anew.
 */
#include "fs/mountinfo.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

#define FIELD_MOUNTPOINT 4

void mountinfo_clear(struct mountinfo *info)
{
	free(info->mountpoint);
	free(info->source);
	free(info->type);
	*info = (struct mountinfo){0};
}

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

static char *unescaped(const char *field, size_t len)
{
	char *text = malloc(len + 1);
	size_t out = 0;

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		if (field[i] == '\\' && len - i > 3 && is_octal(field[i + 1]) && is_octal(field[i + 2]) &&
		    is_octal(field[i + 3])) {
			text[out++] =
				(char)((field[i + 1] - '0') << 6 | (field[i + 2] - '0') << 3 | (field[i + 3] - '0'));
			i += 3;
		} else {
			text[out++] = field[i];
		}
	}
	text[out] = '\0';
	return text;
}

/* Next field of the line, or NULL at its end. Fields are separated by single spaces and may be empty. */
static const char *next_field(const char **at, size_t *ret_len)
{
	const char *field = *at;

	if (!field)
		return NULL;
	*ret_len = strcspn(field, " \n");
	*at = field[*ret_len] == ' ' ? field + *ret_len + 1 : NULL;
	return field;
}

static uid_t user_of(const char *options, size_t len)
{
	static const char key[] = "user_id=";
	const size_t key_len = sizeof(key) - 1;

	while (len) {
		const char *comma = memchr(options, ',', len);
		size_t word = comma ? (size_t)(comma - options) : len;

		if (word > key_len && memcmp(options, key, key_len) == 0)
			return (uid_t)strtoul(options + key_len, NULL, 10);
		options += word;
		len -= word;
		if (len) {
			options++;
			len--;
		}
	}
	return 0;
}

int mountinfo_parse(const char *line, struct mountinfo *ret_info)
{
	const char *at = line, *field, *mountpoint = NULL, *type, *source;
	size_t len = 0, mountpoint_len = 0, type_len = 0, source_len = 0;
	struct mountinfo info = {0};

	for (unsigned n = 0; (field = next_field(&at, &len)); n++) {
		if (n == FIELD_MOUNTPOINT) {
			mountpoint = field;
			mountpoint_len = len;
		} else if (n > FIELD_MOUNTPOINT && len == 1 && *field == '-') {
			break;
		}
	}
	type = next_field(&at, &type_len);
	source = next_field(&at, &source_len);
	field = next_field(&at, &len);
	if (!mountpoint || !type || !source || !field)
		return -EINVAL;
	info.mountpoint = unescaped(mountpoint, mountpoint_len);
	info.type = unescaped(type, type_len);
	info.source = unescaped(source, source_len);
	info.user = user_of(field, len);
	if (!info.mountpoint || !info.type || !info.source) {
		mountinfo_clear(&info);
		return -ENOMEM;
	}
	*ret_info = info;
	return 0;
}

/* Is `path` the directory `dir` or beneath it? Both canonical. */
static bool lies_in(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1)
		return true; /* "/" */
	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

enum wanted { WANTED_EXACT, WANTED_CONTAINING };

/* Mounts are listed in the order they were made: of two that fit equally well, the later one covers the other. */
static int find(const char *path, enum wanted wanted, struct mountinfo *ret_info)
{
	AUTO_FREE char *line = NULL;
	struct mountinfo best = {0};
	size_t size = 0;
	FILE *file = fopen("/proc/self/mountinfo", "re");
	int rc = -ENOENT;

	if (!file)
		return -errno;
	while (getline(&line, &size, file) > 0) {
		struct mountinfo info;
		bool fits;
		int parsed = mountinfo_parse(line, &info);

		if (parsed == -EINVAL)
			continue;
		if (parsed < 0) {
			rc = parsed;
			goto out;
		}
		fits = wanted == WANTED_EXACT ? strcmp(path, info.mountpoint) == 0 : lies_in(path, info.mountpoint);
		if (fits && (!best.mountpoint || strlen(info.mountpoint) >= strlen(best.mountpoint))) {
			struct mountinfo worse = best;

			best = info;
			info = worse;
		}
		mountinfo_clear(&info);
	}
	if (best.mountpoint)
		rc = 0;
out:
	(void)fclose(file); /* only read */
	if (rc == 0)
		*ret_info = best;
	else
		mountinfo_clear(&best);
	return rc;
}

int mountinfo_at(const char *mountpoint, struct mountinfo *ret_info)
{
	return find(mountpoint, WANTED_EXACT, ret_info);
}

/* The path with its parent resolved and its last component as written: a dead mount cannot be entered, only named. */
static char *named(const char *path)
{
	size_t len = strlen(path), base;
	AUTO_FREE char *parent = NULL;
	AUTO_FREE char *real = NULL;
	char *joined = NULL;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (base = len; base > 0 && path[base - 1] != '/'; base--)
		;
	if (base == len || (len - base <= 2 && path[base] == '.' && path[len - 1] == '.'))
		return NULL;
	parent = base ? strndup(path, base) : strdup(".");
	real = parent ? realpath(parent, NULL) : NULL;
	if (!real ||
	    asprintf(&joined, "%s/%.*s", strcmp(real, "/") == 0 ? "" : real, (int)(len - base), path + base) < 0)
		return NULL;
	return joined;
}

static bool is_varve(const struct mountinfo *info)
{
	return strcmp(info->type, MOUNTINFO_TYPE) == 0;
}

static int find_varve(const char *path, enum wanted wanted, struct mountinfo *ret_info)
{
	struct mountinfo info;
	int rc = find(path, wanted, &info);

	if (rc < 0)
		return rc;
	if (!is_varve(&info)) {
		mountinfo_clear(&info);
		return -ENOENT;
	}
	*ret_info = info;
	return 0;
}

int mountinfo_named(const char *path, struct mountinfo *ret_info)
{
	AUTO_FREE char *name = named(path);
	AUTO_FREE char *real = NULL;
	int rc = name ? find_varve(name, WANTED_EXACT, ret_info) : -ENOENT;

	if (rc != -ENOENT)
		return rc;
	real = realpath(path, NULL); /* it may be a symbolic link to the mount, or "." */
	return real ? find_varve(real, WANTED_EXACT, ret_info) : -ENOENT;
}

int mountinfo_of(const char *path, struct mountinfo *ret_info)
{
	AUTO_FREE char *real = NULL;
	int rc = mountinfo_named(path, ret_info);

	if (rc != -ENOENT)
		return rc;
	real = realpath(path, NULL);
	return real ? find_varve(real, WANTED_CONTAINING, ret_info) : -ENOENT;
}
