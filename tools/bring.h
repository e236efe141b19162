/*
 * bring.h - writes what .versions shows into a live directory: one file, symlink or node at a time.
 *
 * How a file is written, and why so:
 *
 * - A file that is there is replaced by renaming a finished copy over it while
 *   the copy is still open: whoever opens the name meanwhile reads the old file or
 *   the whole new one, and when the store, the disk or we ourselves fail midway
 *   the old file is untouched. Writing in place would make one event less, but a
 *   failure would leave half a file where a whole one was. The copy becomes a
 *   version only at its close, when it has the name already, so neither the store
 *   nor any history ever has the temporary name's content; `+log` tells the rename.
 *   The price: between the rename and the fsync a power cut may leave the name
 *   without content that can be trusted. Both contents are in the history then.
 * - A free name is created and written where it is, with mode 0000 until it is
 *   whole: a rename would take the temporary name's history along. What has that
 *   mode and should not have it is what a killed run left: bring_is_unfinished.
 * - With other hard links that are to stay, the file is rewritten in place, after
 *   the old version was read once, so that the store cannot fail us midway.
 *
 * mode	as recorded with the version; where a file is replaced, group and others get no more reading and writing than
 *	they had there
 * owner, mtime	the version's, where we may
 * attributes	of the file that is replaced, else those it had when it was deleted
 */
#ifndef VARVE_TOOLS_BRING_H
#define VARVE_TOOLS_BRING_H

#include <stdbool.h>
#include <sys/stat.h>

enum bring_sync { BRING_LATER, BRING_STORED }; /* BRING_STORED: fsync before it returns */
enum bring_way { BRING_REPLACE, BRING_IN_PLACE };

struct bring {
	int source; /* O_PATH of what it was */
	struct stat st;
	int dir; /* where to */
	const char *name;
	const struct stat *live; /* what is there now; NULL: nothing. Not a directory */
	enum bring_sync sync;
	enum bring_way way; /* of a regular file over one */
};
/* Any type but directories. 0 or -errno; -EINTR after bring_interrupt. Whatever was there is untouched on failure,
 * unless it was written in place. */
int bring(const struct bring *bring);
/* Makes the directory, open to us alone. */
int bring_directory(int dir, const char *name);
/* Owner, mode, attributes of a directory that was made. Its mtime: bring_directory_time, when nothing more is written
 * into it. */
int bring_directory_attributes(int source, int made);
int bring_directory_time(const struct stat *st, int directory);

/* The mtime that what it was has when it is brought back. */
struct timespec bring_mtime(int source, const struct stat *st);

bool bring_is_unfinished(const struct stat *live, int source);

/* SIGINT, SIGTERM and SIGHUP make whatever runs stop cleanly from here on. */
void bring_catch_signals(void);
bool bring_was_interrupted(void);

#endif
