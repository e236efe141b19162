/* Unit tests of base/table.c and the lists of table.h. */
#include "table.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <string.h>

struct item {
	uint64_t key;
	int visits;
	struct table_node node;
};

static bool item_matches(const struct table_node *node, const void *key)
{
	return container_of(node, const struct item, node)->key == *(const uint64_t *)key;
}

static struct item *find(const struct table *table, uint64_t key, uint64_t hash)
{
	struct table_node *node = table_find(table, hash, item_matches, &key);

	return node ? container_of(node, struct item, node) : NULL;
}

#define ITEMS 5000

static struct item items[ITEMS];

static void fill(struct table *table, size_t expected)
{
	cr_assert_eq(table_init(table, expected), 0);
	for (uint64_t i = 0; i < ITEMS; i++) {
		items[i].key = i * 7;
		table_insert(table, &items[i].node, hash_u64(items[i].key));
	}
}

Test(table, finds_all_of_many_and_nothing_else)
{
	struct table table;

	fill(&table, 0);
	cr_assert_eq(table.count, ITEMS);
	cr_assert_geq(table.mask + 1, ITEMS, "it grows with its elements");
	for (uint64_t i = 0; i < ITEMS * 7; i++)
		cr_assert_eq(find(&table, i, hash_u64(i)), i % 7 ? NULL : &items[i / 7]);
	table_destroy(&table);
}

Test(table, removed_ones_are_gone_and_the_rest_stays)
{
	struct table table;

	fill(&table, ITEMS);
	for (size_t i = 0; i < ITEMS; i += 2)
		table_remove(&table, &items[i].node);
	cr_assert_eq(table.count, ITEMS / 2);
	for (size_t i = 0; i < ITEMS; i++)
		cr_assert_eq(find(&table, i * 7, hash_u64(i * 7)), i % 2 ? &items[i] : NULL);
	table_destroy(&table);
}

Test(table, one_hash_for_all_still_tells_them_apart)
{
	struct table table;

	cr_assert_eq(table_init(&table, 0), 0);
	for (size_t i = 0; i < 100; i++) {
		items[i].key = i;
		table_insert(&table, &items[i].node, 42);
	}
	for (size_t i = 0; i < 100; i += 3)
		table_remove(&table, &items[i].node);
	for (size_t i = 0; i < 100; i++)
		cr_assert_eq(find(&table, i, 42), i % 3 ? &items[i] : NULL);
	table_destroy(&table);
}

struct removal {
	struct table *table;
	size_t visits;
};

static void visit_and_remove_odd(struct table_node *node, void *arg)
{
	struct item *item = container_of(node, struct item, node);
	struct removal *removal = arg;

	item->visits++;
	removal->visits++;
	if (item->key % 2)
		table_remove(removal->table, node);
}

Test(table, each_visits_once_and_may_remove)
{
	struct table table;
	struct removal removal = {&table, 0};

	fill(&table, 0);
	table_each(&table, visit_and_remove_odd, &removal);
	cr_assert_eq(removal.visits, ITEMS);
	for (size_t i = 0; i < ITEMS; i++)
		cr_assert_eq(items[i].visits, 1);
	cr_assert_eq(table.count, ITEMS / 2);
	table_each(&table, visit_and_remove_odd, &removal);
	cr_assert_eq(removal.visits, ITEMS + ITEMS / 2);
	table_destroy(&table);
}

Test(table, a_destroyed_one_is_empty)
{
	struct table table;
	struct removal removal = {&table, 0};

	fill(&table, 0);
	table_destroy(&table);
	cr_assert_null(find(&table, 0, hash_u64(0)));
	table_each(&table, visit_and_remove_odd, &removal);
	cr_assert_eq(removal.visits, 0);
}

Test(hash, of_integers_spreads_over_low_bits)
{
	int slots[256] = {0};

	for (uint64_t i = 0; i < 256 * 64; i++)
		slots[hash_u64(i << 20) & 255]++;
	for (size_t i = 0; i < 256; i++) {
		cr_assert_gt(slots[i], 16);
		cr_assert_lt(slots[i], 160);
	}
}

Test(hash, of_bytes_depends_on_every_byte_and_on_the_length)
{
	uint8_t bytes[40] = {0};
	uint64_t hashes[2 * sizeof(bytes) + 1];
	size_t count = 0;

	for (size_t len = 0; len <= sizeof(bytes); len++)
		hashes[count++] = hash_bytes(bytes, len);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = 1;
		hashes[count++] = hash_bytes(bytes, sizeof(bytes));
		bytes[i] = 0;
	}
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < i; k++)
			cr_assert_neq(hashes[i], hashes[k]);
	cr_assert_eq(hash_bytes(bytes, 7), hashes[7], "the same bytes hash alike within a process");
}

struct element {
	int number;
	struct list link;
};

Test(list, keeps_order_and_removes_twice)
{
	struct list head = LIST_INIT(head);
	struct element elements[5];
	int expected = 0;

	cr_assert(list_empty(&head));
	for (int i = 0; i < 5; i++) {
		elements[i].number = i;
		list_add_tail(&head, &elements[i].link);
	}
	list_each_safe(at, after, &head)
	{
		struct element *element = list_entry(at, struct element, link);

		cr_assert_eq(element->number, expected++);
		if (element->number % 2)
			list_remove(at);
	}
	cr_assert_eq(expected, 5);
	list_remove(&elements[1].link);
	cr_assert(list_empty(&elements[1].link));
	expected = 0;
	list_each_safe(at, after, &head)
	{
		cr_assert_eq(list_entry(at, struct element, link)->number, expected);
		expected += 2;
		list_remove(at);
	}
	cr_assert(list_empty(&head));
}
