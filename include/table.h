/*
 * table.h - hash tables over intrusive nodes, and intrusive lists.
 *
 * The table never allocates for an element and never owns one. It grows by
 * doubling; when growth fails for lack of memory it only becomes slower.
 * Not thread-safe: its owner's lock guards it.
 */
#ifndef VARVE_TABLE_H
#define VARVE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

struct table_node {
	struct table_node *next;
	uint64_t hash;
};

struct table {
	struct table_node **slots;
	size_t mask; /* slots - 1; 0 with slots NULL when empty */
	size_t count;
};

typedef bool (*table_match_fn)(const struct table_node *node, const void *key);
typedef void (*table_visit_fn)(struct table_node *node, void *arg);

int table_init(struct table *table, size_t expected); /* 0 or -ENOMEM */
void table_destroy(struct table *table);              /* the slots only */
void table_insert(struct table *table, struct table_node *node, uint64_t hash);
void table_remove(struct table *table, struct table_node *node);
struct table_node *table_find(const struct table *table, uint64_t hash, table_match_fn match, const void *key);
void table_each(struct table *table, table_visit_fn visit, void *arg); /* visit may remove its own node */

uint64_t hash_u64(uint64_t value);
uint64_t hash_bytes(const void *bytes, size_t len); /* seeded per process: keys come from strangers */

/* Doubly linked, circular, with a head that is a node. */
struct list {
	struct list *next;
	struct list *prev;
};

#define LIST_INIT(head)                                                                                                \
	{                                                                                                              \
		&(head), &(head)                                                                                       \
	}
static inline void list_init(struct list *node)
{
	node->next = node->prev = node;
}
static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}
static inline void list_add_tail(struct list *head, struct list *node)
{
	node->next = head;
	node->prev = head->prev;
	head->prev->next = node;
	head->prev = node;
}
static inline void list_remove(struct list *node) /* leaves it empty: removing twice is harmless */
{
	node->next->prev = node->prev;
	node->prev->next = node->next;
	list_init(node);
}
#define list_entry(node, type, member) container_of(node, type, member)
#define list_each_safe(at, after, head)                                                                                \
	for (struct list *at = (head)->next, *after = at->next; at != (head); at = after, after = at->next)

#endif
