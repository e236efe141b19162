/*
 * listing.h - the names of a directory, in order, without "." and ".." and without .versions.
 *
 * What readdir tells is kept, and no more is asked for: in the past that is
 * enough to know a version, because its number is its sequence.
 */
#ifndef VARVE_TOOLS_LISTING_H
#define VARVE_TOOLS_LISTING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"

struct listing_entry {
	size_t name;     /* offset in names */
	uint64_t number; /* d_ino */
	mode_t type;     /* S_IFMT */
};
struct listing {
	struct listing_entry *entries;
	size_t count, cap;
	struct buf names;
};
/* Of an open directory, O_PATH too. 0 or -errno. */
int listing_read(int dir, struct listing *ret_listing);
void listing_free(struct listing *listing);
static inline const char *listing_name(const struct listing *listing, size_t at)
{
	return listing->names.data + listing->entries[at].name;
}
/* The entry of that name, or NULL. */
const struct listing_entry *listing_find(const struct listing *listing, const char *name);

#endif
