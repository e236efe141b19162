/*
 * mountinfo.h - which varve mounts there are, as the kernel tells it in /proc/self/mountinfo.
 *
 * Nothing here touches the mounted directories, so it works on a mount whose daemon hangs or is dead.
 */
#ifndef VARVE_FS_MOUNTINFO_H
#define VARVE_FS_MOUNTINFO_H

#include <sys/types.h>

#define MOUNTINFO_TYPE "fuse.varve"

struct mountinfo {
	char *mountpoint; /* malloc'd, unescaped */
	char *source;     /* malloc'd, unescaped */
	char *type;       /* malloc'd */
	uid_t user;       /* who mounted it, as FUSE's user_id= tells; else 0 */
};
void mountinfo_clear(struct mountinfo *info);

/* One line of the file. 0, -EINVAL when it is not one, -ENOMEM. */
int mountinfo_parse(const char *line, struct mountinfo *ret_info);

/* The topmost mount exactly at `mountpoint` (a canonical path), of any type. -ENOENT: none. */
int mountinfo_at(const char *mountpoint, struct mountinfo *ret_info);

/* The varve mount whose directory `path` is. Works when its daemon is dead. -ENOENT: none. */
int mountinfo_named(const char *path, struct mountinfo *ret_info);

/* The varve mount that `path` is or lies in. -ENOENT: none. */
int mountinfo_of(const char *path, struct mountinfo *ret_info);

#endif
