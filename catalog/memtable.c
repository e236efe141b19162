/*
 * memtable.c - the ordered memtable: a skip list whose nodes hold chains of
 * versions, in an arena.
 *
 * Invariants
 *  - A node or version is complete before a release store makes it reachable, and never changes after, except for its
 *    links; readers follow links with acquire loads. So readers need no lock, only the owner's promise that the table
 *    outlives them.
 *  - A node's versions hang newest first and their numbers never increase along the chain.
 *  - level[0] links all nodes in key order; level[i] a subset of level[i-1].
 *  - The arena's newest block has room for everything that was reserved and not yet put.
 *
 * Threads: one writer (memtable_put, _reserve, _reset, _bytes), many readers.
 */
#include "catalog/memtable.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEIGHT 12 /* with one in four rising: good for 4^12 keys, far more than a table may hold */
#define BLOCK_MIN ((size_t)16 << 10)
#define BLOCK_MAX ((size_t)1 << 20)

struct version {
	uint64_t number;
	const struct version *older;
	uint32_t len;
	bool deleted;
	uint8_t bytes[];
};

struct memtable_node {
	_Atomic(const struct version *) newest;
	const uint8_t *key;
	uint16_t key_len;
	uint16_t height;
	_Atomic(struct memtable_node *) level[];
};

struct block {
	struct block *older;
	size_t size; /* of bytes */
	size_t used;
	_Alignas(16) uint8_t bytes[];
};

struct memtable {
	struct block *blocks; /* newest first */
	size_t held;          /* bytes of all blocks */
	uint64_t random;
	_Atomic size_t count;
	_Atomic unsigned height; /* levels in use; readers may see an old, lower one: only slower */
	struct memtable_node *head;
};

int kv_compare(struct kv_bytes a, struct kv_bytes b)
{
	size_t common = a.len < b.len ? a.len : b.len;
	int order = common ? memcmp(a.data, b.data, common) : 0;

	if (order)
		return order;
	return a.len < b.len ? -1 : a.len > b.len;
}

/* --- arena ------------------------------------------------------------------------------------------ */

static size_t align_up(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

static struct block *block_new(size_t size)
{
	struct block *block = malloc(sizeof(*block) + size);

	if (block) {
		block->older = NULL;
		block->size = size;
		block->used = 0;
	}
	return block;
}

static void *arena_take(struct memtable *table, size_t size)
{
	struct block *block = table->blocks;
	void *taken = block->bytes + block->used;

	size = align_up(size);
	assert(size <= block->size - block->used);
	block->used += size;
	return taken;
}

static size_t node_size(unsigned height)
{
	return sizeof(struct memtable_node) + height * sizeof(_Atomic(struct memtable_node *));
}

int memtable_reserve(struct memtable *table, size_t count, size_t bytes)
{
	/* Each part is rounded up to 8: node, key, version. */
	size_t each = node_size(MAX_HEIGHT) + sizeof(struct version) + 3 * 8;
	size_t need = count * each + bytes;
	struct block *block = table->blocks;
	size_t size;

	if (need <= block->size - block->used)
		return 0;
	size = table->held < BLOCK_MIN ? BLOCK_MIN : table->held > BLOCK_MAX ? BLOCK_MAX : table->held;
	block = block_new(size > need ? size : align_up(need));
	if (!block)
		return -ENOMEM;
	block->older = table->blocks;
	table->blocks = block;
	table->held += block->size;
	return 0;
}

/* --- the table ---------------------------------------------------------------------------------------- */

static void make_head(struct memtable *table)
{
	table->head = arena_take(table, node_size(MAX_HEIGHT));
	memset(table->head, 0, node_size(MAX_HEIGHT));
	table->head->height = MAX_HEIGHT;
	atomic_store_explicit(&table->height, 1, memory_order_relaxed);
	atomic_store_explicit(&table->count, 0, memory_order_relaxed);
}

struct memtable *memtable_new(void)
{
	struct memtable *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->blocks = block_new(BLOCK_MIN);
	if (!table->blocks) {
		free(table);
		return NULL;
	}
	table->held = BLOCK_MIN;
	table->random = UINT64_C(0x9e3779b97f4a7c15);
	make_head(table);
	return table;
}

/* Frees all blocks but the oldest, which is BLOCK_MIN long. */
static void free_blocks(struct memtable *table)
{
	while (table->blocks->older) {
		struct block *block = table->blocks;

		table->blocks = block->older;
		free(block);
	}
	table->held = table->blocks->size;
}

void memtable_free(struct memtable *table)
{
	if (!table)
		return;
	free_blocks(table);
	free(table->blocks);
	free(table);
}

void memtable_reset(struct memtable *table)
{
	free_blocks(table);
	table->blocks->used = 0;
	make_head(table);
}

size_t memtable_count(const struct memtable *table)
{
	return atomic_load_explicit(&table->count, memory_order_relaxed);
}

size_t memtable_bytes(const struct memtable *table)
{
	return table->held - (table->blocks->size - table->blocks->used);
}

static struct memtable_node *follow(const struct memtable_node *node, unsigned level)
{
	return atomic_load_explicit(&node->level[level], memory_order_acquire);
}

static int compare_node(const struct memtable_node *node, struct kv_bytes key)
{
	return kv_compare((struct kv_bytes){node->key, node->key_len}, key);
}

/*
 * The last node before `key` (the head if none), and in *ret_next the node that was seen behind it: the first at or
 * after `key`, or NULL. To follow the link once more would not do: a node that is inserted between the two meanwhile,
 * newer than any reader's number, would stand in for it. ret_path, unless NULL, gets the last node before `key` of each
 * level.
 */
static struct memtable_node *find_below(const struct memtable *table, struct kv_bytes key,
					struct memtable_node *ret_path[], struct memtable_node **ret_next)
{
	struct memtable_node *next = NULL;
	struct memtable_node *at = table->head;
	const struct memtable_node *not_below = NULL; /* known >= key: spares comparing it again a level down */
	unsigned level = atomic_load_explicit(&table->height, memory_order_acquire);

	while (level-- > 0) {
		for (;;) {
			next = follow(at, level);
			if (!next || next == not_below)
				break;
			if (compare_node(next, key) >= 0) {
				not_below = next;
				break;
			}
			at = next;
		}
		if (ret_path)
			ret_path[level] = at;
	}
	*ret_next = next;
	return at;
}

static unsigned random_height(struct memtable *table)
{
	unsigned height = 1;
	uint64_t bits;

	/* xorshift64: the shape need not be secret, names come in the catalog's own order */
	table->random ^= table->random << 13;
	table->random ^= table->random >> 7;
	table->random ^= table->random << 17;
	for (bits = table->random >> 20; height < MAX_HEIGHT && (bits & 3) == 0; bits >>= 2)
		height++;
	return height;
}

static struct version *make_version(struct memtable *table, uint64_t number, const struct kv_bytes *value)
{
	size_t len = value ? value->len : 0;
	struct version *version = arena_take(table, sizeof(*version) + len);

	version->number = number;
	version->older = NULL;
	version->len = (uint32_t)len;
	version->deleted = !value;
	if (len)
		memcpy(version->bytes, value->data, len);
	return version;
}

static void insert_node(struct memtable *table, struct kv_bytes key, const struct version *version,
			struct memtable_node *path[])
{
	unsigned used = atomic_load_explicit(&table->height, memory_order_relaxed);
	unsigned height = random_height(table);
	struct memtable_node *node = arena_take(table, node_size(height));
	uint8_t *copy = arena_take(table, key.len);

	memcpy(copy, key.data, key.len);
	node->key = copy;
	node->key_len = (uint16_t)key.len;
	node->height = (uint16_t)height;
	atomic_init(&node->newest, version);
	for (; used < height; used++)
		path[used] = table->head;
	for (unsigned i = 0; i < height; i++)
		atomic_init(&node->level[i], follow(path[i], i));
	for (unsigned i = 0; i < height; i++)
		atomic_store_explicit(&path[i]->level[i], node, memory_order_release);
	if (height > atomic_load_explicit(&table->height, memory_order_relaxed))
		atomic_store_explicit(&table->height, height, memory_order_release);
	atomic_fetch_add_explicit(&table->count, 1, memory_order_relaxed);
}

void memtable_put(struct memtable *table, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	struct memtable_node *path[MAX_HEIGHT];
	struct version *version = make_version(table, number, value);
	struct memtable_node *next;

	(void)find_below(table, key, path, &next); /* the path says it */
	if (next && compare_node(next, key) == 0) {
		const struct version *newest = atomic_load_explicit(&next->newest, memory_order_relaxed);

		assert(newest->number <= number);
		version->older = newest;
		atomic_store_explicit(&next->newest, version, memory_order_release);
		return;
	}
	insert_node(table, key, version, path);
}

/* --- reading ---------------------------------------------------------------------------------------------- */

static bool entry_of(const struct memtable_node *node, uint64_t number, struct memtable_entry *ret_entry)
{
	const struct version *version = atomic_load_explicit(&node->newest, memory_order_acquire);

	while (version && version->number > number)
		version = version->older;
	if (!version)
		return false;
	*ret_entry = (struct memtable_entry){
		.key = {node->key, node->key_len},
		.value = {version->bytes, version->len},
		.deleted = version->deleted,
	};
	return true;
}

bool memtable_get(const struct memtable *table, uint64_t number, struct kv_bytes key, struct memtable_entry *ret_entry)
{
	struct memtable_node *node;

	(void)find_below(table, key, NULL, &node); /* what is behind it counts */
	return node && compare_node(node, key) == 0 && entry_of(node, number, ret_entry);
}

/* From `node` on, the first that existed as of the iterator's number. */
static void settle_forward(struct memtable_iter *iter, const struct memtable_node *node)
{
	while (node && !entry_of(node, iter->number, &iter->entry))
		node = follow(node, 0);
	iter->node = node;
}

void memtable_seek(struct memtable_iter *iter, struct kv_bytes from)
{
	struct memtable_node *node;

	(void)find_below(iter->table, from, NULL, &node); /* what is behind it counts */
	settle_forward(iter, node);
}

void memtable_first(struct memtable_iter *iter)
{
	settle_forward(iter, follow(iter->table->head, 0));
}

void memtable_next(struct memtable_iter *iter)
{
	settle_forward(iter, follow(iter->node, 0));
}

/* There are no links back: each step searches again, which costs a descent and no memory in every node. */
void memtable_seek_below(struct memtable_iter *iter, struct kv_bytes before)
{
	struct memtable_node *next;
	const struct memtable_node *node = find_below(iter->table, before, NULL, &next);

	while (node != iter->table->head && !entry_of(node, iter->number, &iter->entry))
		node = find_below(iter->table, (struct kv_bytes){node->key, node->key_len}, NULL, &next);
	iter->node = node == iter->table->head ? NULL : node;
}

void memtable_prev(struct memtable_iter *iter)
{
	memtable_seek_below(iter, (struct kv_bytes){iter->node->key, iter->node->key_len});
}
