/*
 * versions_log.h - `.versions/+log`: what happened to the names of one directory, oldest first.
 *
 * Tab-separated, one line an event, the first line naming the columns:
 *
 *	time	RFC 3339, UTC
 *	op	create link write rename replace delete adopt vanish
 *	name	in this directory
 *	size	bytes, of a write
 *	uid	who did it, where known
 *	host	where a write was made
 *	version	the 8 hex digits of a write's entry in NAME/
 *	other	of a rename: "from:NAME" or "to:NAME", with its path when it is in another directory
 *	type	file dir link other: what the name was
 *
 * Fields are escaped by escape_text; what is not known is "-".
 */
#ifndef VARVE_FS_VERSIONS_LOG_H
#define VARVE_FS_VERSIONS_LOG_H

#include <stdint.h>

#include "buf.h"

struct catalog;
struct versions;

/* Appends the text, names as `versions` shows them. */
int versions_log_text(struct catalog *catalog, const struct versions *versions, uint64_t dir, struct buf *ret_text);

#endif
