/* Unit tests of base/array.c. */
#include "array.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

Test(array, cells_stay_as_it_grows)
{
	struct cell {
		char name[24];
		size_t number;
	} *cells = NULL;
	size_t cap = 0;

	for (size_t i = 0; i < 1000; i++) {
		cr_assert_eq(ARRAY_ROOM(cells, cap, i), 0);
		cr_assert_gt(cap, i);
		cells[i] = (struct cell){.name = "cell", .number = i};
	}
	for (size_t i = 0; i < 1000; i++)
		cr_assert(cells[i].number == i && strcmp(cells[i].name, "cell") == 0);
	cr_assert_lt(cap, 2001);
	free(cells);
}

Test(array, what_cannot_grow_stays_as_it_was)
{
	char(*cells)[1 << 20] = NULL;
	size_t cap = 0;

	cr_assert_eq(ARRAY_ROOM(cells, cap, 0), 0);
	void *before = cells;
	cap = SIZE_MAX / 4;
	cr_assert_eq(ARRAY_ROOM(cells, cap, cap), -ENOMEM);
	cr_assert(cells == before && cap == SIZE_MAX / 4);
	free(cells);
}

Test(array, numbers_are_in_order_and_each_once)
{
	static const uint64_t added[] = {5, 0, UINT64_MAX, 7, 5, 6, 0, 1};
	static const uint64_t expected[] = {0, 1, 5, 6, 7, UINT64_MAX};
	struct numbers numbers = {0};

	for (size_t i = 0; i < sizeof(added) / sizeof(*added); i++)
		cr_assert_eq(numbers_add(&numbers, added[i]), i == 4 || i == 6, "%zu", i);
	cr_assert_eq(numbers.count, sizeof(expected) / sizeof(*expected));
	cr_assert_arr_eq(numbers.cells, expected, sizeof(expected));
	cr_assert(numbers_has(&numbers, 6) && numbers_has(&numbers, UINT64_MAX) && !numbers_has(&numbers, 2));
	numbers_clear(&numbers);
	cr_assert(!numbers.cells && !numbers_has(&numbers, 6));
	for (uint64_t i = 0; i < 5000; i++)
		cr_assert_eq(numbers_add(&numbers, i * 7919 % 5000), 0);
	for (uint64_t i = 0; i < 5000; i++)
		cr_assert_eq(numbers.cells[i], i);
	numbers_clear(&numbers);
}
