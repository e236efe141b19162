/*
 * xattr_varve.h - the attributes user.varve.*: what is known of a file's content and of each of its versions.
 *
 *	version_id seq commit_time mtime mode owner etag checksum backend key storage_class state author host op prev
 *next is_current origin renamed_to deleted_at
 *
 * Versions list them; live files answer them by name and list none, so that cp -a
 * and rsync -X copy none. All are text. What is not known is -ENODATA: a version
 * not stored yet has no etag.
 *
 * mtime, mode, owner	as they were when the version was made; of a file's last version as they are, or were when it
 *was deleted. Permission bits in octal, of which stat shows fewer; "uid:gid"
 * prev, next	entry names in .versions/NAME, so that `cp` can use them
 * state	local, uploading, stored, failed or expired; of a live file that has changes without a version: local
 * op		create, write, link, rename or adopt: how the name came to show this
 * renamed_to, deleted_at	how this version's time under the name ended, if it did
 *
 * Only reads the catalog. Thread-safe.
 */
#ifndef VARVE_FS_XATTR_VARVE_H
#define VARVE_FS_XATTR_VARVE_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

struct catalog;
struct versions_history;

/* With a backend's number behind it the catalog's setting that has its URL: what `backend` tells. */
#define XATTR_VARVE_BACKEND "backend."
#define XATTR_VARVE_PREFIX "user.varve."
#define XATTR_VARVE_MODE_BITS 0777u

bool xattr_varve_is(const char *name);

/* Does the value depend on the versions before and after? For the others nobody needs to ask the store for those. */
bool xattr_varve_is_of_history(const char *name);

/* Appends the value. seq 0: the live file, as its current version has it. -ENODATA. */
int xattr_varve_get(struct catalog *catalog, uint64_t ino, uint64_t seq, const char *name, struct buf *ret_value);

/* The same for a version seen under a name. */
struct xattr_varve_subject {
	uint64_t ino, seq;
	uint64_t dir; /* the name under which it is seen; name NULL: its oldest live one */
	const char *name;
	const struct versions_history *history; /* of that name, or NULL: loaded when needed */
};
int xattr_varve_get_of(struct catalog *catalog, const struct xattr_varve_subject *subject, const char *name,
		       struct buf *ret_value);
/* Appends the full names of those that have a value, each with its NUL. */
int xattr_varve_list(struct catalog *catalog, const struct xattr_varve_subject *subject, struct buf *ret_names);

#endif
