/*
 * destination.h - where a verb writes to: an open directory and a name in it.
 *
 * All complain and return an exit status > 0 when there is no such place.
 */
#ifndef VARVE_TOOLS_DESTINATION_H
#define VARVE_TOOLS_DESTINATION_H

#include <stdbool.h>
#include <sys/stat.h>

struct destination {
	int dir;
	char *path;       /* as people wrote it */
	const char *name; /* within `path`; "." for a directory that is named by no name */
	bool exists;
	struct stat live; /* when it exists */
};
/* `path`, or `name` in it when it is a directory. */
int destination_find(const char *path, const char *name, struct destination *ret_destination);
/* As destination_find, with the name that `source` has. */
int destination_copy(const char *path, const char *source, struct destination *ret_destination);
/* `path`, whatever it is. */
int destination_itself(const char *path, struct destination *ret_destination);
void destination_close(struct destination *destination);

#endif
