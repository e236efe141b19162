/*
 * memtable.h - an ordered in-memory map from keys to versioned values: what is
 * newer than the folded part of the key-value store, and the private writes
 * of one running update.
 *
 *  - Each put carries a number; a reader asks "as of number N" and sees, for each key, the newest value put with a
 *    number <= N. Nothing is overwritten, so a reader never blocks the writer and the writer never a reader.
 *  - A deletion is a value of its own (a tombstone): it hides what lies in older tables.
 *  - One writer at a time (its owner's lock), any number of readers at the same time. Numbers never decrease.
 *  - Memory comes from an arena and is given back all at once, by memtable_free or memtable_reset: every pointer got
 *    from the table is good until then. The owner counts who still reads.
 */
#ifndef VARVE_CATALOG_MEMTABLE_H
#define VARVE_CATALOG_MEMTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog/kv.h"

struct memtable;
struct memtable_node;

#define MEMTABLE_NEWEST UINT64_MAX /* as of: whatever is there */

struct memtable *memtable_new(void); /* NULL: no memory */
void memtable_free(struct memtable *table);
/* Empties it; no reader may be inside. Keeps a little memory for the next use. */
void memtable_reset(struct memtable *table);

/* Room for `count` puts of `bytes` of keys and values together. After 0 those puts cannot fail. 0 or -ENOMEM. */
int memtable_reserve(struct memtable *table, size_t count, size_t bytes);
/* Copies both. value NULL: a tombstone. Only within what was reserved. */
void memtable_put(struct memtable *table, uint64_t number, struct kv_bytes key, const struct kv_bytes *value);

size_t memtable_count(const struct memtable *table); /* different keys */
size_t memtable_bytes(const struct memtable *table); /* memory held; the writer's thread or lock only */

struct memtable_entry {
	struct kv_bytes key;
	struct kv_bytes value;
	bool deleted;
};

/* Newest entry of the key as of `number`. False: the table says nothing about it. */
bool memtable_get(const struct memtable *table, uint64_t number, struct kv_bytes key, struct memtable_entry *ret_entry);

/* A position in the key order as of one number; not on an entry: node is NULL. */
struct memtable_iter {
	const struct memtable *table;
	uint64_t number;
	const struct memtable_node *node;
	struct memtable_entry entry; /* of node */
};
void memtable_seek(struct memtable_iter *iter, struct kv_bytes from);         /* the least key >= from */
void memtable_seek_below(struct memtable_iter *iter, struct kv_bytes before); /* the greatest key < before */
void memtable_first(struct memtable_iter *iter);
void memtable_next(struct memtable_iter *iter);
void memtable_prev(struct memtable_iter *iter);

/* Order of keys: unsigned bytes, a prefix before what it begins. <0, 0, >0. */
int kv_compare(struct kv_bytes a, struct kv_bytes b);

#endif
