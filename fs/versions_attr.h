/*
 * versions_attr.h - what stat says of the past, and who may read it.
 *
 * The rule: a version is readable by those who may read both it as it was (recorded owner and mode) and the
 * file as it is: the inode it belongs to, and the inode that has its name today if that is another one.
 * A reader sees one owner, one group and nine bits, so where owners or groups
 * differ the recorded ones are shown and each class of users keeps a bit only
 * if every member of it would have that bit under the other set as well,
 * whatever groups he is in. That may refuse too much, never too little.
 *
 * Directories on the way to the live file are not part of it: a file that is
 * reachable only through a closed directory now, and was in an open one then,
 * is readable in the open directory's past.
 */
#ifndef VARVE_FS_VERSIONS_ATTR_H
#define VARVE_FS_VERSIONS_ATTR_H

#include <stdint.h>
#include <sys/stat.h>

#include "catalog.h"

struct versions_owner {
	uint32_t mode, uid, gid;
};

/* Owner and group of `shown`, with bits that grant nobody what `other` refuses. Only rwx bits count and are returned.
 */
struct versions_owner versions_attr_both(struct versions_owner shown, struct versions_owner other);

/* A version, symlink or special file as it is seen under a name. */
struct versions_object {
	uint64_t dir; /* where its name is */
	const char *name;
	uint64_t ino;
	uint64_t seq; /* 0: no version: a symlink or special file, shown as its inode */
	uint64_t st_ino;
};
/* -ENOENT: no such version, or its content was pruned. */
int versions_attr_object(struct catalog *catalog, const struct versions_object *object, struct stat *ret_stat);

/* A directory of ours that stands for directory `ino`, live or not: its owner and mode without write bits, its mtime.
 */
int versions_attr_directory(struct catalog *catalog, uint64_t ino, uint64_t st_ino, struct stat *ret_stat);
/* `.versions/NAME` of directory `dir`: as the directory, its mtime that of the newest thing that happened to the name.
 */
int versions_attr_name(struct catalog *catalog, uint64_t dir, const char *name, uint64_t st_ino, struct stat *ret_stat);

#endif
