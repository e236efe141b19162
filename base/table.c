/*
 * table.c - chained hash tables over intrusive nodes, and the two hashes.
 *
 * Invariants: the number of slots is a power of two and a node hangs in slot
 * hash & mask; there are at most as many nodes as slots, unless memory was
 * short. A table that is zeroed or destroyed has no slots: it may be searched
 * and walked, and table_init comes before the first insertion.
 */
#include "table.h"
#include "checksum.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_SLOTS 16

static int table_resize(struct table *table, size_t slots)
{
	struct table_node **bigger = calloc(slots, sizeof(struct table_node *));

	if (!bigger)
		return -ENOMEM;
	for (size_t i = 0; table->slots && i <= table->mask; i++) {
		struct table_node *node = table->slots[i];

		while (node) {
			struct table_node *next = node->next;
			struct table_node **slot = &bigger[node->hash & (slots - 1)];

			node->next = *slot;
			*slot = node;
			node = next;
		}
	}
	free(table->slots);
	table->slots = bigger;
	table->mask = slots - 1;
	return 0;
}

int table_init(struct table *table, size_t expected)
{
	size_t slots = LEAST_SLOTS;

	while (slots < expected && slots <= SIZE_MAX / 2 / sizeof(struct table_node *))
		slots *= 2;
	*table = (struct table){0};
	return table_resize(table, slots);
}

void table_destroy(struct table *table)
{
	free(table->slots);
	*table = (struct table){0};
}

void table_insert(struct table *table, struct table_node *node, uint64_t hash)
{
	struct table_node **slot;

	assert(table->slots);
	if (table->count > table->mask)
		(void)table_resize(table, (table->mask + 1) * 2); /* without memory: longer chains, nothing worse */
	slot = &table->slots[hash & table->mask];
	node->hash = hash;
	node->next = *slot;
	*slot = node;
	table->count++;
}

void table_remove(struct table *table, struct table_node *node)
{
	struct table_node **link = &table->slots[node->hash & table->mask];

	while (*link != node) {
		assert(*link); /* removing what was never inserted */
		link = &(*link)->next;
	}
	*link = node->next;
	node->next = NULL;
	table->count--;
}

struct table_node *table_find(const struct table *table, uint64_t hash, table_match_fn match, const void *key)
{
	struct table_node *node = table->slots ? table->slots[hash & table->mask] : NULL;

	while (node && !(node->hash == hash && match(node, key)))
		node = node->next;
	return node;
}

void table_each(struct table *table, table_visit_fn visit, void *arg)
{
	for (size_t i = 0; table->slots && i <= table->mask; i++) {
		struct table_node *node = table->slots[i];

		while (node) {
			struct table_node *next = node->next; /* visit may remove and free the node */

			visit(node, arg);
			node = next;
		}
	}
}

/* The finalizer of splitmix64: a bijection in which every input bit reaches every output bit. */
uint64_t hash_u64(uint64_t value)
{
	value += UINT64_C(0x9e3779b97f4a7c15);
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

static pthread_once_t seed_once = PTHREAD_ONCE_INIT;
static uint64_t seed[2];

static void seed_draw(void)
{
	random_bytes(seed, sizeof(seed));
}

struct sip {
	uint64_t v[4];
};

static inline uint64_t rotate_left(uint64_t value, int by)
{
	return value << by | value >> (64 - by);
}

static inline void sip_round(struct sip *s)
{
	s->v[0] += s->v[1];
	s->v[2] += s->v[3];
	s->v[1] = rotate_left(s->v[1], 13) ^ s->v[0];
	s->v[3] = rotate_left(s->v[3], 16) ^ s->v[2];
	s->v[0] = rotate_left(s->v[0], 32);
	s->v[2] += s->v[1];
	s->v[0] += s->v[3];
	s->v[1] = rotate_left(s->v[1], 17) ^ s->v[2];
	s->v[3] = rotate_left(s->v[3], 21) ^ s->v[0];
	s->v[2] = rotate_left(s->v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein): without the seed nobody can choose names that collide. */
uint64_t hash_bytes(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t last = (uint64_t)len << 56;
	struct sip s;

	(void)pthread_once(&seed_once, seed_draw); /* cannot fail with a static once */
	s = (struct sip){{seed[0] ^ UINT64_C(0x736f6d6570736575), seed[1] ^ UINT64_C(0x646f72616e646f6d),
			  seed[0] ^ UINT64_C(0x6c7967656e657261), seed[1] ^ UINT64_C(0x7465646279746573)}};
	for (; len >= sizeof(uint64_t); at += sizeof(uint64_t), len -= sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, at, sizeof(word));
		s.v[3] ^= word;
		sip_round(&s);
		s.v[0] ^= word;
	}
	for (size_t i = 0; i < len; i++)
		last |= (uint64_t)at[i] << (8 * i);
	s.v[3] ^= last;
	sip_round(&s);
	s.v[0] ^= last;
	s.v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(&s);
	return s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}
