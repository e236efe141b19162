/*
 * versions_at.h - a directory at an instant, and what was deleted from it.
 *
 * A name at T: who held it then; of a file, the version that was current then. A
 * file that had no version yet is not there; pruned ones are not either. What
 * was adopted from the store counts as having held its first name since before
 * varve looked: the times of its versions decide.
 *
 * Only reads the catalog. Thread-safe. Each call sees the catalog in several
 * short views: what was ended or begun meanwhile shows as before or after.
 */
#ifndef VARVE_FS_VERSIONS_AT_H
#define VARVE_FS_VERSIONS_AT_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "catalog.h"

struct versions_at_entry {
	uint64_t ino;
	uint64_t seq;  /* regular file: its version then */
	uint32_t type; /* S_IFMT */
	size_t name;   /* in a list: offset in its names */
};

/* Sorted by name. */
struct versions_at_list {
	struct versions_at_entry *entries;
	size_t count, cap;
	struct buf names; /* each with its NUL */
};
void versions_at_clear(struct versions_at_list *list);
static inline const char *versions_at_name(const struct versions_at_list *list, size_t index)
{
	return list->names.data + list->entries[index].name;
}

/* -ENOENT. */
int versions_at_lookup(struct catalog *catalog, uint64_t dir, const char *name, int64_t when_ns,
		       struct versions_at_entry *ret_entry);
int versions_at_list(struct catalog *catalog, uint64_t dir, int64_t when_ns, struct versions_at_list *ret_list);
/* The directory's mtime then: its own when it has not changed since, else its newest change until then. */
int versions_at_mtime(struct catalog *catalog, uint64_t dir, int64_t when_ns, int64_t *ret_mtime);

/* Names that ended by deletion, here or in the store, and do not live again; files as they were last. Lookup also takes
 * live directories. */
int versions_at_deleted_lookup(struct catalog *catalog, uint64_t dir, const char *name,
			       struct versions_at_entry *ret_entry);
int versions_at_deleted_list(struct catalog *catalog, uint64_t dir, struct versions_at_list *ret_list);

#endif
