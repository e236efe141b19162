/*
 * past.h - one name's history as the mount itself shows it, below DIR/.versions/NAME/.
 *
 * Nothing here talks to the daemon: what these verbs tell is what ls and
 * getfattr show to anybody.
 */
#ifndef VARVE_TOOLS_PAST_H
#define VARVE_TOOLS_PAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "buf.h"

struct past {
	char *dir;  /* DIR of DIR/NAME, as given; "." when it was left out */
	char *name; /* NAME */
	int fd;     /* of DIR/.versions/NAME */
};

/* The name under which what the descriptor is (O_PATH does) has its past: .versions, or what its mount calls it. Valid
 * until the next call. */
const char *past_versions(int fd);

/* DIR and NAME of a path, malloc'd. -EINVAL when it does not end in a name, -ENOMEM. */
int past_split(const char *path, char **ret_dir, char **ret_name);
/* DIR/.versions, also of a directory that was deleted. A descriptor, -EOPNOTSUPP when DIR has none, -errno. */
int past_versions_open(const char *dir);
/* Says of a path why past_versions_open or past_tree_open failed. Returns CLI_FAILED. */
int past_complain(const char *path, int rc);

/* Opens the history of a path; complains and returns an exit status > 0 when there is none. */
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
/* Of anything on a varve mount, live or past, by directory and name; name "": what the
 * descriptor is, O_PATH does. */
int past_fact_at(int dir, const char *name, const char *fact, struct buf *ret_value);

/* A version that somebody named: an entry, its 8 hex digits, -1, -2, @TIME, or a time. */
struct past_pick {
	int fd; /* O_PATH */
	struct stat st;
	char *entry; /* how .versions lists it, or what was asked for */
	char identity[PAST_IDENTITY_SIZE];
};
/* 0, or complains for `verb` and returns an exit status. */
int past_pick(const struct past *past, const char *verb, const char *wanted, struct past_pick *ret_pick);
/* As of a time; an age means the age it has now. */
int past_pick_at(const struct past *past, const char *verb, const char *when, struct past_pick *ret_pick);
void past_pick_close(struct past_pick *pick);

/* NAME ("" for the directory itself) of a directory at an instant, by its .versions. An O_PATH descriptor or -errno. */
int past_at_open(int versions, int64_t when_ns, const char *name);
/*
 * What lay at `path` at an instant, from the top of its mount: an O_PATH
 * descriptor, or -errno. A live directory that had another name then is found by
 * what it is. -ENOENT: there was nothing; -EOPNOTSUPP: not on a varve mount.
 */
int past_tree_open(const char *path, int64_t when_ns);
/* Is this the whole of a mount, and was nothing in it then? Which also is what an instant before its history shows. */
bool past_is_before_all(const char *path, int tree);

/* A version's number in stat and readdir of the past is its sequence with this bit. */
#define PAST_VERSION_BIT (UINT64_C(1) << 63)

#endif
