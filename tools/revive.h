/*
 * revive.h - makes a live directory what a directory of the past was, or adds what it had.
 *
 * What is there already is compared before it is touched: on a varve mount by
 * version, elsewhere by size and mtime. Equal files are left alone, so a run that
 * was interrupted is completed by running it again.
 *
 * Names that were one file are one file again, within the tree. A file that has
 * other hard links now is parted from them, unless they are the same ones: nothing
 * outside the tree changes.
 *
 * Metadata makes no versions, so what it was at an instant is known only where
 * content was written: files and directories that are left alone keep theirs.
 */
#ifndef VARVE_TOOLS_REVIVE_H
#define VARVE_TOOLS_REVIVE_H

#include "tools/report.h"

enum revive_mode {
	REVIVE_EXACT, /* what was not there goes */
	REVIVE_ADD,   /* what is there stays as it is */
	REVIVE_COPY,  /* what was there replaces what is there, nothing else goes */
};

struct revive {
	enum revive_mode mode;
	const char *path; /* of what comes into being, for telling */
	int source;       /* O_PATH: a file, symlink or directory of the past */
	int dir;          /* where to; with `name` */
	const char *name;
	struct report *report;
};
/* Failures go to the report, each with its path. Returns -EINTR when it was told to stop, -ENOSPC, -EROFS and the like
 * when going on is useless, else 0. */
int revive(const struct revive *request);

#endif
