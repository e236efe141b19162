/*
 * past.h - one name's history as the mount itself shows it, below DIR/.versions/NAME/.
 *
 * Nothing here talks to the daemon: what these verbs tell is what ls and
 * getfattr show to anybody.
 */
#ifndef VARVE_TOOLS_PAST_H
#define VARVE_TOOLS_PAST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "buf.h"

struct past {
	char *dir;  /* DIR of DIR/NAME, as given; "." when it was left out */
	char *name; /* NAME */
	int fd;     /* of DIR/.versions/NAME */
};

/* Splits `path` and opens its history; complains and returns an exit status > 0 when there is none. */
int past_open(const char *path, struct past *ret_past);
void past_close(struct past *past);

#define PAST_IDENTITY_SIZE 9
struct past_version {
	char *entry; /* the name in .versions */
	char identity[PAST_IDENTITY_SIZE];
	uint64_t seq; /* 0: unknown */
	struct stat st;
};
void past_versions_free(struct past_version *versions, size_t count);

/* All of them, oldest first. 0 or -errno. */
int past_list(const struct past *past, struct past_version **ret_versions, size_t *ret_count);

/* Appends the value of user.varve.FACT of a version. 0, -ENODATA when it has none, … */
int past_fact(const struct past *past, const char *entry, const char *fact, struct buf *ret_value);

#endif
