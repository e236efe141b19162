/*
 * versions_internal.h - shared by versions.c (nodes, lookup, attributes) and versions_dir.c (listings); nobody else's.
 */
#ifndef VARVE_FS_VERSIONS_INTERNAL_H
#define VARVE_FS_VERSIONS_INTERNAL_H

#include "catalog.h"
#include "fs/versions.h"
#include "fs/versions_at.h"
#include "fs/versions_history.h"
#include "fs/versions_node.h"
#include "lock.h"

#define VERSIONS_CACHED 16

struct versions {
	struct catalog *catalog;
	struct contents *contents;
	struct reconcile *reconcile;
	char *snapdir_name;
	char *displaced_name; /* under which what is called so itself is shown */
	enum versions_snapdir snapdir;
	int64_t store_patience_ns;
	struct versions_nodes nodes;

	struct lock lock; /* LOCK_LEAF; guards what follows */
	struct {
		struct versions_history *history; /* NULL: free */
		uint64_t used;                    /* of `ticks`, at its last use */
	} cached[VERSIONS_CACHED];
	uint64_t ticks;
};

enum versions_freshness {
	VERSIONS_ANY,     /* as it was at some time: enough for a name found in it */
	VERSIONS_CURRENT, /* nothing has changed since */
};
/* One reference, the caller's. */
int versions_history_get(struct versions *versions, uint64_t dir, const char *name, enum versions_freshness freshness,
			 struct versions_history **ret_history);

/* Asks the store for what the catalog does not know yet: a directory never listed, versions made by others. */
int versions_prepare_directory(struct versions *versions, uint64_t dir);
void versions_prepare_name(struct versions *versions, uint64_t dir, const char *name);

/* The keys of children, as lookup and readdir both make them. */
struct versions_key versions_key_of_name(uint64_t dir, const char *name);
struct versions_key versions_key_of_item(const struct versions_key *parent, const struct versions_history_item *item);
struct versions_key versions_key_of_entry(const struct versions_key *parent, const char *name,
					  const struct versions_at_entry *entry);
/* A TIME under +at or +gmt. -ENOENT. */
int versions_key_of_time(const struct versions_key *parent, const char *name, struct versions_key *ret_key);

/* A name of the directory as `.versions` shows it, and back: "+log" of the directory is "++log" here. */
void versions_plus(const char *name, struct buf *ret_shown);

#endif
