/* Unit tests of fs/versions_node.c: numbers and lookup counts. */
#include "fs/versions_node.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "fs/cache.h"
#include "fs/versions.h"

static struct versions_nodes nodes;

static void setup(void)
{
	cr_assert_eq(versions_nodes_init(&nodes), 0);
}

static void teardown(void)
{
	versions_nodes_destroy(&nodes);
}

TestSuite(versions_node, .init = setup, .fini = teardown);

static uint64_t take(const struct versions_key *key)
{
	uint64_t number = 0;

	cr_assert_eq(versions_node_take(&nodes, key, &number), 0);
	return number;
}

Test(versions_node, a_number_is_the_key_s_own)
{
	struct versions_key key = {.kind = VERSIONS_NAME, .dir = 7, .name = "report.doc"};
	struct versions_key other = key;
	uint64_t number = take(&key);

	cr_assert_eq(number, versions_node_number(&key));
	cr_assert_eq(number & (UINT64_C(3) << 62), VERSIONS_NODE, "bit 62 and never bit 63");
	cr_assert_eq(number, UINT64_C(0x46fbe777d3e396a0), "the same in every mount: %#llx",
		     (unsigned long long)number);
	other.parent = 9;
	cr_assert_eq(take(&other), number, "from where it was seen is not what it is");
	other.dir = 8;
	cr_assert_neq(take(&other), number);
	other = key;
	other.kind = VERSIONS_AT;
	cr_assert_neq(take(&other), number);
}

Test(versions_node, lives_until_the_last_lookup_is_forgotten)
{
	struct versions_key key = {.kind = VERSIONS_AT, .dir = 3, .when_ns = -5}, found;
	uint64_t number = take(&key);

	cr_assert_eq(take(&key), number);
	cr_assert_eq(take(&key), number);
	cr_assert_eq(versions_nodes_count(&nodes), 1);
	versions_node_forget(&nodes, number, 2);
	cr_assert_eq(versions_node_get(&nodes, number, &found), 0);
	cr_assert_eq(found.kind, VERSIONS_AT);
	cr_assert_eq(found.dir, 3);
	cr_assert_eq(found.when_ns, -5);
	versions_node_forget(&nodes, number, 1);
	cr_assert_eq(versions_node_get(&nodes, number, &found), -ESTALE);
	cr_assert_eq(versions_nodes_count(&nodes), 0);
	versions_node_forget(&nodes, number, 1);
}

Test(versions_node, keeps_the_longest_name)
{
	struct versions_key key = {.kind = VERSIONS_NAME, .dir = 1}, found;

	memset(key.name, 'x', CAT_NAME_MAX);
	cr_assert_eq(versions_node_get(&nodes, take(&key), &found), 0);
	cr_assert_str_eq(found.name, key.name);
}

Test(versions_node, versions_show_their_sequence_as_inode)
{
	struct versions_key key = {.kind = VERSIONS_VERSION, .dir = 1, .ino = 2, .seq = 33, .name = "f"};
	struct versions_key link = {.kind = VERSIONS_INODE, .dir = 1, .ino = 2, .name = "f"};
	uint64_t number = take(&key);

	cr_assert_eq(versions_node_ino(&key, number), CACHE_VERSION | 33);
	number = take(&link);
	cr_assert_eq(versions_node_ino(&link, number), number);
}

Test(versions_node, thousands_have_numbers_of_their_own)
{
	struct versions_key key = {.kind = VERSIONS_NAME, .dir = 1}, found;

	for (int i = 0; i < 20000; i++) {
		(void)snprintf(key.name, sizeof(key.name), "%d", i);
		(void)take(&key);
	}
	cr_assert_eq(versions_nodes_count(&nodes), 20000);
	for (int i = 0; i < 20000; i++) {
		(void)snprintf(key.name, sizeof(key.name), "%d", i);
		cr_assert_eq(versions_node_get(&nodes, versions_node_number(&key), &found), 0);
		cr_assert_str_eq(found.name, key.name);
	}
}
