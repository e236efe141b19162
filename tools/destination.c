/*
 * destination.c - see destination.h. Single-threaded.
 */
#include "tools/destination.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "tools/cli.h"
#include "tools/past.h"

static int open_within(const char *above, const char *name, struct destination *ret_destination)
{
	struct destination *dest = ret_destination;

	dest->name = name;
	dest->dir = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dest->dir < 0)
		return cli_fail("%s: %s", above, strerror(errno));
	dest->exists = fstatat(dest->dir, name, &dest->live, AT_SYMLINK_NOFOLLOW) == 0;
	if (!dest->exists && errno != ENOENT)
		return cli_fail("%s: %s", dest->path, strerror(errno));
	return 0;
}

/* Takes `path` over. */
static int open_path(char *path, struct destination *ret_destination)
{
	struct destination dest = {.dir = -1, .path = path};
	AUTO_FREE char *above = NULL;
	size_t len = path ? strlen(path) : 0;
	char *slash;
	int rc;

	if (!path)
		return cli_fail("out of memory");
	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	slash = strrchr(path, '/');
	above = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	rc = above ? open_within(above, slash ? slash + 1 : path, &dest) : cli_fail("out of memory");
	if (rc != 0)
		destination_close(&dest);
	else
		*ret_destination = dest;
	return rc;
}

int destination_find(const char *path, const char *name, struct destination *ret_destination)
{
	AUTO_BUF dest = BUF_INIT;
	struct stat st;

	buf_adds(&dest, path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		buf_addf(&dest, "%s%s", path[strlen(path) - 1] == '/' ? "" : "/", name);
	else if (path[strlen(path) - 1] == '/')
		return cli_fail("%s is not a directory", path);
	return open_path(buf_detach(&dest), ret_destination);
}

int destination_copy(const char *path, const char *source, struct destination *ret_destination)
{
	AUTO_FREE char *above = NULL;
	AUTO_FREE char *name = NULL;
	AUTO_FREE char *real = NULL;

	if (past_split(source, &above, &name) < 0) {
		real = realpath(source, NULL);
		if (!real || past_split(real, &above, &name) < 0)
			return cli_fail("%s has no name to go by", source);
	}
	return destination_find(path, name, ret_destination);
}

int destination_itself(const char *path, struct destination *ret_destination)
{
	struct destination dest = {.dir = -1};
	AUTO_FREE char *above = NULL;
	AUTO_FREE char *name = NULL;
	int rc = past_split(path, &above, &name);

	if (rc == 0)
		return open_path(strdup(path), ret_destination);
	if (rc != -EINVAL)
		return cli_fail("out of memory");
	dest.path = strdup(path);
	rc = dest.path ? open_within(path, ".", &dest) : cli_fail("out of memory");
	if (rc != 0)
		destination_close(&dest);
	else
		*ret_destination = dest;
	return rc;
}

void destination_close(struct destination *destination)
{
	if (destination->dir >= 0)
		(void)close(destination->dir); /* only a way to it */
	free(destination->path);
	*destination = (struct destination){.dir = -1};
}
