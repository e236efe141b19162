/*
 * versions_history.h - the history of one name, as a directory shows it: loaded once, immutable, shared.
 *
 * Items are oldest first, in the catalog's order; shown_ms is made strictly
 * increasing, so a name is found by its time and times never reorder. Content
 * versions, and each symlink that held the name; pruned versions are left out.
 *
 * A history is immutable once loaded; references are counted atomically.
 */
#ifndef VARVE_FS_VERSIONS_HISTORY_H
#define VARVE_FS_VERSIONS_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog.h"

struct versions_history_item {
	uint64_t ino, seq; /* seq 0: a symlink */
	int64_t shown_ms;  /* what its name shows */
	uint32_t identity;
	enum cat_how how; /* how the name came to show it */
	bool is_current;
};

#define VERSIONS_HISTORY_EXT_MAX 16

struct versions_history {
	atomic_uint refs;
	uint64_t number; /* of the catalog when it was read: not older than that */
	uint64_t dir;
	struct versions_history_item *items;
	size_t count;
	char ext[VERSIONS_HISTORY_EXT_MAX + 1]; /* "" or with its dot */
	char name[CAT_NAME_MAX + 1];
};

/* One reference, the caller's. -ENOENT: the name never lived. */
int versions_history_load(struct catalog *catalog, uint64_t dir, const char *name,
			  struct versions_history **ret_history);
struct versions_history *versions_history_ref(struct versions_history *history);
void versions_history_put(struct versions_history *history); /* NULL is fine */

/* The last ".ext" of a name when it has at most VERSIONS_HISTORY_EXT_MAX bytes with its dot and something before it;
 * else "" . Points into the name. */
const char *versions_history_ext(const char *name);

#define VERSIONS_HISTORY_NAME_SIZE 64
/* The entry's name: "2026-11-20T08-00-00.000Z~77aa0b91.doc". */
void versions_history_entry_name(const struct versions_history *history, const struct versions_history_item *item,
				 char ret_name[static VERSIONS_HISTORY_NAME_SIZE]);

/* The item with exactly this entry name, or NULL. O(log n). */
const struct versions_history_item *versions_history_find(const struct versions_history *history, const char *entry);
/* What else people write: "-1", times, an identity. NULL: means nothing here, or more than one thing. */
const struct versions_history_item *versions_history_alias(const struct versions_history *history, const char *alias,
							   int64_t now_ns);
/* The newest item of this version, or NULL. */
const struct versions_history_item *versions_history_of(const struct versions_history *history, uint64_t ino,
							uint64_t seq);

#endif
