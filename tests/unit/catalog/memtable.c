/* Tests of the ordered memtable: order, versions, tombstones, and readers beside a writer. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

#include "catalog/memtable.h"
#include "kv_support.h"

static void put(struct memtable *table, uint64_t number, const char *key, const char *value)
{
	struct kv_bytes bytes = value ? bytes_of(value) : (struct kv_bytes){0};

	cr_assert_eq(memtable_reserve(table, 1, strlen(key) + bytes.len), 0);
	memtable_put(table, number, bytes_of(key), value ? &bytes : NULL);
}

static void expect(const struct memtable *table, uint64_t number, const char *key, const char *value)
{
	struct memtable_entry entry;

	cr_assert(memtable_get(table, number, bytes_of(key), &entry), "%s as of %lu", key, number);
	cr_assert_eq(entry.deleted, value == NULL);
	if (value) {
		cr_assert_eq(entry.value.len, strlen(value));
		cr_assert_eq(memcmp(entry.value.data, value, entry.value.len), 0);
	}
}

Test(memtable, shows_each_number_its_own_value)
{
	struct memtable *table = memtable_new();
	struct memtable_entry entry;

	put(table, 3, "k", "three");
	put(table, 5, "k", NULL);
	put(table, 9, "k", "");
	cr_assert_not(memtable_get(table, 2, bytes_of("k"), &entry));
	expect(table, 3, "k", "three");
	expect(table, 4, "k", "three");
	expect(table, 8, "k", NULL);
	expect(table, 9, "k", "");
	expect(table, MEMTABLE_NEWEST, "k", "");
	cr_assert_not(memtable_get(table, 9, bytes_of("kk"), &entry));
	cr_assert_not(memtable_get(table, 9, bytes_of(""), &entry));
	cr_assert_eq(memtable_count(table), 1);
	memtable_free(table);
}

Test(memtable, orders_keys_as_unsigned_bytes_with_prefixes_first)
{
	static const char *const in_order[] = {"\x01", "a", "a\x01", "ab", "b", "\x7f", "\x80", "\xff", "\xff\xff"};
	struct memtable *table = memtable_new();
	struct memtable_iter iter = {.table = table, .number = MEMTABLE_NEWEST};
	size_t count = sizeof(in_order) / sizeof(in_order[0]), at = 0;

	for (size_t i = 0; i < count; i++)
		put(table, 1, in_order[(i * 5) % count], "v");
	for (memtable_first(&iter); iter.node; memtable_next(&iter))
		cr_assert_eq(kv_compare(iter.entry.key, bytes_of(in_order[at++])), 0);
	cr_assert_eq(at, count);
	for (memtable_seek_below(&iter, bytes_of("\xff\xff\xff")); iter.node; memtable_prev(&iter))
		cr_assert_eq(kv_compare(iter.entry.key, bytes_of(in_order[--at])), 0);
	cr_assert_eq(at, 0);
	memtable_seek(&iter, bytes_of("a\x02"));
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("ab")), 0);
	memtable_seek_below(&iter, bytes_of("ab"));
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("a\x01")), 0);
	memtable_seek_below(&iter, bytes_of("\x01"));
	cr_assert_null(iter.node);
	memtable_seek(&iter, bytes_of("\xff\xff\xff"));
	cr_assert_null(iter.node);
	memtable_free(table);
}

Test(memtable, iterators_skip_keys_that_are_too_new)
{
	struct memtable *table = memtable_new();
	struct memtable_iter iter = {.table = table, .number = 1};

	put(table, 1, "b", "old");
	put(table, 1, "d", "old");
	put(table, 2, "a", "new");
	put(table, 2, "b", "new");
	put(table, 2, "c", "new");
	put(table, 2, "e", "new");
	memtable_first(&iter);
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("b")), 0);
	cr_assert_eq(kv_compare(iter.entry.value, bytes_of("old")), 0);
	memtable_next(&iter);
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("d")), 0);
	memtable_next(&iter);
	cr_assert_null(iter.node);
	memtable_seek_below(&iter, bytes_of("z"));
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("d")), 0);
	memtable_prev(&iter);
	cr_assert_eq(kv_compare(iter.entry.key, bytes_of("b")), 0);
	memtable_prev(&iter);
	cr_assert_null(iter.node);
	memtable_free(table);
}

Test(memtable, reset_empties_and_gives_memory_back)
{
	struct memtable *table = memtable_new();
	size_t before = memtable_bytes(table);
	struct memtable_entry entry;
	struct kv_bytes big = {.data = calloc(1, 3 << 20), .len = 3 << 20};

	cr_assert_eq(memtable_reserve(table, 1, big.len + 1), 0);
	memtable_put(table, 1, bytes_of("k"), &big);
	cr_assert_geq(memtable_bytes(table), big.len);
	memtable_reset(table);
	cr_assert_eq(memtable_bytes(table), before);
	cr_assert_eq(memtable_count(table), 0);
	cr_assert_not(memtable_get(table, MEMTABLE_NEWEST, bytes_of("k"), &entry));
	put(table, 1, "again", "v");
	expect(table, 1, "again", "v");
	free((void *)big.data);
	memtable_free(table);
}

#define MODEL_KEYS 700

/* Every key's value as of each number, by brute force. */
Test(memtable, agrees_with_a_model)
{
	static int32_t model[40][MODEL_KEYS]; /* -1: never, -2: deleted */
	struct memtable *table = memtable_new();
	uint64_t random = 42;

	memset(model, 0xff, sizeof(model));
	for (uint64_t number = 1; number < 40; number++) {
		memcpy(model[number], model[number - 1], sizeof(model[0]));
		for (int i = 0; i < 60; i++) {
			unsigned k = next_random(&random) % MODEL_KEYS;
			bool gone = next_random(&random) % 4 == 0;
			char key[16], value[16];

			snprintf(key, sizeof(key), "%04u", k);
			snprintf(value, sizeof(value), "%d", i);
			put(table, number, key, gone ? NULL : value);
			model[number][k] = gone ? -2 : i;
		}
	}
	for (uint64_t number = 1; number < 40; number += 3) {
		struct memtable_iter iter = {.table = table, .number = number};

		memtable_first(&iter);
		for (unsigned k = 0; k < MODEL_KEYS; k++) {
			int32_t want = model[number][k];
			char key[16], value[16];

			if (want == -1)
				continue;
			snprintf(key, sizeof(key), "%04u", k);
			snprintf(value, sizeof(value), "%d", want);
			cr_assert_not_null(iter.node);
			cr_assert_eq(kv_compare(iter.entry.key, bytes_of(key)), 0);
			expect(table, number, key, want == -2 ? NULL : value);
			memtable_next(&iter);
		}
		cr_assert_null(iter.node);
	}
	memtable_free(table);
}

struct beside {
	struct memtable *table;
	_Atomic uint64_t published;
	_Atomic bool stop;
	_Atomic uint64_t rounds, wrong;
};

/* Each number puts both keys: as of any number they are equal, and every table walk is in order. */
static void *read_beside(void *arg)
{
	struct beside *beside = arg;

	while (!atomic_load(&beside->stop)) {
		uint64_t number = atomic_load(&beside->published);
		struct memtable_iter iter = {.table = beside->table, .number = number};
		struct memtable_entry left, right;
		struct kv_bytes last = {.data = "", .len = 0};

		if (!number)
			continue;
		if (!memtable_get(beside->table, number, bytes_of("left"), &left) ||
		    !memtable_get(beside->table, number, bytes_of("right"), &right) ||
		    kv_compare(left.value, right.value) != 0)
			atomic_fetch_add(&beside->wrong, 1);
		for (memtable_first(&iter); iter.node; memtable_next(&iter)) {
			if (kv_compare(last, iter.entry.key) >= 0)
				atomic_fetch_add(&beside->wrong, 1);
			last = iter.entry.key;
		}
		atomic_fetch_add(&beside->rounds, 1);
	}
	return NULL;
}

Test(memtable, readers_need_no_lock, .timeout = 60)
{
	struct beside beside = {.table = memtable_new()};
	pthread_t threads[3];
	uint64_t random = 7;

	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_beside, &beside), 0);
	for (uint64_t number = 1; number < 4000 || atomic_load(&beside.rounds) < 100; number++) {
		char value[24], key[24];

		snprintf(value, sizeof(value), "%lu", number);
		snprintf(key, sizeof(key), "k%lu", next_random(&random) % 5000);
		put(beside.table, number, "left", value);
		put(beside.table, number, key, value);
		put(beside.table, number, "right", value);
		atomic_store(&beside.published, number);
	}
	atomic_store(&beside.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(atomic_load(&beside.wrong), 0);
	memtable_free(beside.table);
}
