/*
 * versions_node.c - node numbers and lookup counts.
 *
 * Invariant: a node in the table has lookups > 0; the last forget removes it.
 * The lock is a leaf: nothing but memory is touched under it.
 */
#include "fs/versions_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "fs/cache.h"
#include "fs/versions.h"

struct node {
	struct table_node by_number;
	uint64_t number;
	uint64_t lookups;
	uint64_t dir, ino, seq, parent;
	int64_t when_ns;
	enum versions_kind kind;
	char name[]; /* with its NUL */
};

int versions_nodes_init(struct versions_nodes *nodes)
{
	lock_init(&nodes->lock, LOCK_LEAF);
	return table_init(&nodes->table, 256);
}

static void free_node(struct table_node *at, void *arg)
{
	struct table *table = arg;

	table_remove(table, at);
	free(container_of(at, struct node, by_number));
}

void versions_nodes_destroy(struct versions_nodes *nodes)
{
	table_each(&nodes->table, free_node, &nodes->table);
	table_destroy(&nodes->table);
	lock_destroy(&nodes->lock);
}

/* Fixed width, so that no two keys have one encoding. */
static size_t encode(const struct versions_key *key, uint8_t ret_bytes[static 40 + CAT_NAME_MAX])
{
	const uint64_t numbers[] = {key->kind, key->dir, key->ino, key->seq, (uint64_t)key->when_ns};
	size_t len = strlen(key->name), at = 0;

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		for (int shift = 56; shift >= 0; shift -= 8)
			ret_bytes[at++] = (uint8_t)(numbers[i] >> shift);
	}
	memcpy(ret_bytes + at, key->name, len);
	return at + len;
}

uint64_t versions_node_number(const struct versions_key *key)
{
	uint8_t bytes[40 + CAT_NAME_MAX], digest[SHA256_SIZE];
	uint64_t number = 0;

	sha256_of(bytes, encode(key, bytes), digest);
	for (int i = 0; i < 8; i++)
		number = number << 8 | digest[i];
	return VERSIONS_NODE | (number & (VERSIONS_NODE - 1));
}

uint64_t versions_node_ino(const struct versions_key *key, uint64_t number)
{
	struct versions_key shallow;

	if (key->kind == VERSIONS_VERSION)
		return CACHE_VERSION | key->seq;
	if (!key->seq)
		return number;
	shallow = *key;
	shallow.seq = 0;
	return versions_node_number(&shallow);
}

static bool match_number(const struct table_node *at, const void *arg)
{
	return container_of(at, struct node, by_number)->number == *(const uint64_t *)arg;
}

static struct node *find(struct versions_nodes *nodes, uint64_t number)
{
	struct table_node *at = table_find(&nodes->table, hash_u64(number), match_number, &number);

	return at ? container_of(at, struct node, by_number) : NULL;
}

static bool is_key(const struct node *node, const struct versions_key *key)
{
	return node->kind == key->kind && node->dir == key->dir && node->ino == key->ino && node->seq == key->seq &&
	       node->when_ns == key->when_ns && !strcmp(node->name, key->name);
}

static struct node *new_node(const struct versions_key *key, uint64_t number)
{
	size_t size = strlen(key->name) + 1;
	struct node *node = malloc(sizeof(*node) + size);

	if (!node)
		return NULL;
	*node = (struct node){
		.number = number,
		.lookups = 1,
		.dir = key->dir,
		.ino = key->ino,
		.seq = key->seq,
		.parent = key->parent,
		.when_ns = key->when_ns,
		.kind = key->kind,
	};
	memcpy(node->name, key->name, size);
	return node;
}

int versions_node_take(struct versions_nodes *nodes, const struct versions_key *key, uint64_t *ret_number)
{
	uint64_t number = versions_node_number(key);
	struct node *node;

	LOCK_GUARD(&nodes->lock);
	while ((node = find(nodes, number)) && !is_key(node, key))
		number = VERSIONS_NODE | ((number + 1) & (VERSIONS_NODE - 1));
	if (node) {
		node->lookups++;
	} else {
		node = new_node(key, number);
		if (!node)
			return -ENOMEM;
		table_insert(&nodes->table, &node->by_number, hash_u64(number));
	}
	*ret_number = number;
	return 0;
}

void versions_node_forget(struct versions_nodes *nodes, uint64_t number, uint64_t count)
{
	struct node *node;

	LOCK_GUARD(&nodes->lock);
	node = find(nodes, number);
	if (!node)
		return;
	node->lookups -= count < node->lookups ? count : node->lookups;
	if (!node->lookups)
		free_node(&node->by_number, &nodes->table);
}

int versions_node_get(struct versions_nodes *nodes, uint64_t number, struct versions_key *ret_key)
{
	const struct node *node;

	LOCK_GUARD(&nodes->lock);
	node = find(nodes, number);
	if (!node)
		return -ESTALE;
	*ret_key = (struct versions_key){
		.kind = node->kind,
		.dir = node->dir,
		.ino = node->ino,
		.seq = node->seq,
		.when_ns = node->when_ns,
		.parent = node->parent,
	};
	memcpy(ret_key->name, node->name, strlen(node->name) + 1);
	return 0;
}

uint64_t versions_nodes_count(struct versions_nodes *nodes)
{
	LOCK_GUARD(&nodes->lock);
	return nodes->table.count;
}
