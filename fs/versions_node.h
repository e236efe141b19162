/*
 * versions_node.h - the nodes of `.versions` that the kernel knows, by number, with their lookup counts.
 *
 * A node is its key: nothing else is remembered of it. Its number is made from
 * the key by SHA-256, so it is the same in every mount; should two keys ever
 * meet, the later one takes the next free number.
 *
 * Thread-safe: keys are copied in and out.
 */
#ifndef VARVE_FS_VERSIONS_NODE_H
#define VARVE_FS_VERSIONS_NODE_H

#include <stdint.h>

#include "catalog.h"
#include "lock.h"
#include "table.h"

enum versions_kind {
	VERSIONS_DIR = 1,  /* DIR/.versions */
	VERSIONS_NAME,     /* DIR/.versions/NAME */
	VERSIONS_VERSION,  /* content version `seq` of `ino`, seen as NAME of DIR */
	VERSIONS_INODE,    /* symlink or special file `ino`, seen as NAME of DIR */
	VERSIONS_LOG,      /* DIR/.versions/+log */
	VERSIONS_DELETED,  /* what was deleted from DIR */
	VERSIONS_AT_LIST,  /* DIR/.versions/+at */
	VERSIONS_GMT_LIST, /* DIR/.versions/+gmt */
	VERSIONS_AT,       /* DIR at `when_ns` */
};

struct versions_key {
	enum versions_kind kind;
	uint64_t dir;
	uint64_t ino;
	/* VERSION: the version. Of directories, how many .versions of the past are above: what is the same directory at
	 * two depths must be two nodes, or one could lie within itself. st_ino is that of depth 0. */
	uint64_t seq;
	int64_t when_ns;
	uint64_t parent; /* st_ino of "..": not part of what the node is */
	char name[CAT_NAME_MAX + 1];
};

struct versions_nodes {
	struct lock lock; /* LOCK_LEAF; guards the table and the counts */
	struct table table;
};
int versions_nodes_init(struct versions_nodes *nodes);
void versions_nodes_destroy(struct versions_nodes *nodes); /* whatever is still counted goes too */

/* The number a key has by itself. */
uint64_t versions_node_number(const struct versions_key *key);
/* What st_ino shows for the node: its number, or CACHE_VERSION | seq. */
uint64_t versions_node_ino(const struct versions_key *key, uint64_t number);
/* Counts one more lookup of the node. -ENOMEM. */
int versions_node_take(struct versions_nodes *nodes, const struct versions_key *key, uint64_t *ret_number);
void versions_node_forget(struct versions_nodes *nodes, uint64_t number, uint64_t count);
/* -ESTALE: not known (any more). */
int versions_node_get(struct versions_nodes *nodes, uint64_t number, struct versions_key *ret_key);
uint64_t versions_nodes_count(struct versions_nodes *nodes);

#endif
