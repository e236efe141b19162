/*
 * meta.c - metadata pairs and the release of what backends hand out.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "varve/backend.h"

Test(meta, sets_replaces_and_finds)
{
	struct meta meta = {0};
	cr_assert_null(meta_get(&meta, "a"));
	cr_assert_eq(meta_set(&meta, "a", "1"), 0);
	cr_assert_eq(meta_set(&meta, "b", ""), 0);
	cr_assert_eq(meta_set(&meta, "a", "2"), 0);
	cr_assert_eq(meta.count, 2);
	cr_assert_str_eq(meta_get(&meta, "a"), "2");
	cr_assert_str_eq(meta_get(&meta, "b"), "");
	meta_clear(&meta);
	cr_assert_eq(meta.count, 0);
	meta_clear(&meta); /* again: harmless */
}

Test(meta, copies_are_independent)
{
	struct meta meta = {0}, copy;
	cr_assert_eq(meta_set(&meta, "a", "1"), 0);
	cr_assert_eq(meta_copy(&copy, &meta), 0);
	cr_assert_eq(meta_set(&meta, "a", "changed"), 0);
	meta_clear(&meta);
	cr_assert_str_eq(meta_get(&copy, "a"), "1");
	meta_clear(&copy);
}

Test(meta, clearing_leaves_nothing_behind)
{
	struct list_page page = {.entries = calloc(1, sizeof(struct object_info)), .count = 1, .next = strdup("t")};
	struct upload_part part = {.number = 1, .etag = strdup("e")};
	cr_assert_not_null(page.entries);
	page.entries[0].key = strdup("k");
	cr_assert_eq(meta_set(&page.entries[0].meta, "a", "1"), 0);
	list_page_clear(&page);
	cr_assert(page.count == 0 && !page.entries && !page.next);
	upload_part_clear(&part);
	cr_assert(part.number == 0 && !part.etag);
}
