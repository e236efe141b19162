/* Unit tests of base/ranges.c: examples, and random changes beside a bitmap. */
#include "ranges.h"
#include "buf.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void expect(const struct ranges *set, const struct range *cells, size_t count)
{
	cr_assert_eq(set->count, count, "%zu cells, not %zu", set->count, count);
	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(set->cells[i].start, cells[i].start);
		cr_assert_eq(set->cells[i].end, cells[i].end);
	}
}

#define EXPECT(set, ...)                                                                                               \
	expect(set, (const struct range[]){__VA_ARGS__},                                                               \
	       sizeof((const struct range[]){__VA_ARGS__}) / sizeof(struct range))

Test(ranges, neighbours_merge)
{
	struct ranges set = RANGES_INIT;

	ranges_add(&set, 10, 20);
	ranges_add(&set, 30, 40);
	EXPECT(&set, {10, 20}, {30, 40});
	ranges_add(&set, 20, 30);
	EXPECT(&set, {10, 40});
	ranges_add(&set, 0, 5);
	ranges_add(&set, 3, 50);
	EXPECT(&set, {0, 50});
	ranges_free(&set);
}

Test(ranges, removing_splits)
{
	struct ranges set = RANGES_INIT;

	ranges_add(&set, 0, 100);
	ranges_remove(&set, 40, 60);
	EXPECT(&set, {0, 40}, {60, 100});
	ranges_remove(&set, 40, 60);
	ranges_remove(&set, 30, 70);
	EXPECT(&set, {0, 30}, {70, 100});
	ranges_remove(&set, 0, UINT64_MAX);
	cr_assert_eq(set.count, 0);
	ranges_free(&set);
}

Test(ranges, empty_and_backward_ranges_change_nothing)
{
	struct ranges set = RANGES_INIT;

	cr_assert_eq(ranges_add(&set, 5, 5), 0);
	cr_assert_eq(ranges_add(&set, 6, 5), 0);
	cr_assert_eq(set.count, 0);
	ranges_add(&set, 0, 10);
	cr_assert_eq(ranges_remove(&set, 5, 5), 0);
	cr_assert_eq(ranges_remove(&set, 7, 5), 0);
	EXPECT(&set, {0, 10});
	cr_assert(ranges_contains(&set, 50, 50));
	cr_assert_not(ranges_intersects(&set, 5, 5));
	ranges_free(&set);
}

Test(ranges, reach_to_the_last_offset)
{
	struct ranges set = RANGES_INIT;
	struct range gap;

	ranges_add(&set, UINT64_MAX - 10, UINT64_MAX);
	ranges_add(&set, 0, 1);
	cr_assert_eq(ranges_total(&set), 11);
	cr_assert_eq(ranges_end(&set), UINT64_MAX);
	cr_assert(ranges_next_gap(&set, 0, UINT64_MAX, &gap));
	cr_assert_eq(gap.start, 1);
	cr_assert_eq(gap.end, UINT64_MAX - 10);
	ranges_free(&set);
}

Test(ranges, an_empty_set_answers)
{
	struct ranges set = RANGES_INIT;
	struct ranges copy;
	struct range found;

	cr_assert_eq(ranges_end(&set), 0);
	cr_assert_eq(ranges_total(&set), 0);
	cr_assert_not(ranges_next_piece(&set, 0, 10, &found));
	cr_assert(ranges_next_gap(&set, 3, 10, &found));
	cr_assert_eq(found.start, 3);
	cr_assert_eq(found.end, 10);
	cr_assert_eq(ranges_remove(&set, 0, 10), 0);
	cr_assert_eq(ranges_copy(&copy, &set), 0);
	cr_assert_eq(copy.count, 0);
}

Test(ranges, outputs_stay_untouched_without_an_answer)
{
	struct ranges set = RANGES_INIT;
	struct range found = {7, 8};

	ranges_add(&set, 0, 10);
	cr_assert_not(ranges_next_gap(&set, 0, 10, &found));
	cr_assert_not(ranges_next_piece(&set, 10, 20, &found));
	cr_assert_eq(found.start, 7);
	cr_assert_eq(found.end, 8);
	ranges_free(&set);
}

Test(ranges, a_gap_is_told_whole)
{
	struct ranges set = RANGES_INIT;
	struct range gap;

	cr_assert(ranges_gap_around(&set, 5, &gap));
	cr_assert(gap.start == 0 && gap.end == UINT64_MAX);
	ranges_add(&set, 10, 20);
	ranges_add(&set, 30, 40);
	cr_assert(ranges_gap_around(&set, 5, &gap));
	cr_assert(gap.start == 0 && gap.end == 10);
	cr_assert(ranges_gap_around(&set, 20, &gap));
	cr_assert(gap.start == 20 && gap.end == 30);
	cr_assert(ranges_gap_around(&set, 50, &gap));
	cr_assert(gap.start == 40 && gap.end == UINT64_MAX);
	cr_assert_not(ranges_gap_around(&set, 10, &gap));
	cr_assert_not(ranges_gap_around(&set, 19, &gap));
	ranges_free(&set);
}

#define SPACE 256
#define STEPS 20000

/* xorshift: the same sequence every time. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool slow_next(const bool *map, bool wanted, uint64_t start, uint64_t end, struct range *ret)
{
	uint64_t at = start;
	uint64_t stop;

	while (at < end && map[at] != wanted)
		at++;
	if (at >= end)
		return false;
	for (stop = at; stop < end && map[stop] == wanted; stop++)
		;
	*ret = (struct range){at, stop};
	return true;
}

static void compare(const struct ranges *set, const bool *map, uint64_t start, uint64_t end)
{
	struct range slow;
	struct range fast;
	uint64_t total = 0;

	for (size_t i = 0; i < set->count; i++) {
		cr_assert_lt(set->cells[i].start, set->cells[i].end);
		if (i > 0)
			cr_assert_lt(set->cells[i - 1].end, set->cells[i].start);
		for (uint64_t at = set->cells[i].start; at < set->cells[i].end; at++)
			cr_assert(map[at]);
	}
	for (size_t i = 0; i < SPACE; i++)
		total += map[i];
	cr_assert_eq(ranges_total(set), total);
	for (int wanted = 0; wanted < 2; wanted++) {
		bool expected = slow_next(map, wanted, start, end, &slow);
		bool got = wanted ? ranges_next_piece(set, start, end, &fast) : ranges_next_gap(set, start, end, &fast);

		cr_assert_eq(got, expected);
		if (got) {
			cr_assert_eq(fast.start, slow.start);
			cr_assert_eq(fast.end, slow.end);
		}
	}
	cr_assert_eq(ranges_contains(set, start, end), !slow_next(map, false, start, end, &slow));
	cr_assert_eq(ranges_intersects(set, start, end), slow_next(map, true, start, end, &slow));
}

static void round_trip(const struct ranges *set)
{
	AUTO_BUF buf = BUF_INIT;
	struct ranges decoded;
	struct ranges copy;
	struct cursor cursor;

	ranges_encode(set, &buf);
	cursor = cursor_of(buf.data, buf.len);
	cr_assert_eq(ranges_decode(&decoded, &cursor), 0);
	cr_assert_eq(cursor.at, cursor.end);
	cr_assert_eq(ranges_copy(&copy, set), 0);
	expect(&decoded, set->cells, set->count);
	expect(&copy, set->cells, set->count);
	ranges_free(&decoded);
	ranges_free(&copy);
}

Test(ranges, random_changes_agree_with_a_bitmap)
{
	uint64_t state = UINT64_C(0x2545f4914f6cdd1d);
	struct ranges set = RANGES_INIT;
	bool map[SPACE] = {false};

	for (int step = 0; step < STEPS; step++) {
		uint64_t start = draw(&state) % SPACE;
		uint64_t longest = step % 3 == 0 ? SPACE : 8;
		uint64_t end = start + draw(&state) % longest;
		bool add = draw(&state) % 2;

		if (end > SPACE)
			end = SPACE;
		cr_assert_eq(add ? ranges_add(&set, start, end) : ranges_remove(&set, start, end), 0);
		for (uint64_t at = start; at < end; at++)
			map[at] = add;
		start = draw(&state) % SPACE;
		compare(&set, map, start, start + draw(&state) % (SPACE - start + 1));
		if (step % 100 == 0)
			round_trip(&set);
		if (step % 5000 == 4999) {
			ranges_clear(&set);
			memset(map, 0, sizeof(map));
		}
	}
	ranges_free(&set);
}

static int decode_pairs(uint32_t count, const uint64_t *values, size_t value_count)
{
	AUTO_BUF buf = BUF_INIT;
	struct ranges set = RANGES_INIT;
	struct cursor cursor;
	int res;

	buf_add_u32(&buf, count);
	for (size_t i = 0; i < value_count; i++)
		buf_add_u64(&buf, values[i]);
	cursor = cursor_of(buf.data, buf.len);
	res = ranges_decode(&set, &cursor);
	if (res)
		cr_assert_null(set.cells);
	ranges_free(&set);
	return res;
}

Test(ranges, damaged_bytes_are_refused)
{
	cr_assert_eq(decode_pairs(2, (const uint64_t[]){0, 5, 6, 9}, 4), 0);
	cr_assert_eq(decode_pairs(2, (const uint64_t[]){0, 5, 5, 9}, 4), -EBADMSG);
	cr_assert_eq(decode_pairs(2, (const uint64_t[]){6, 9, 0, 5}, 4), -EBADMSG);
	cr_assert_eq(decode_pairs(1, (const uint64_t[]){5, 5}, 2), -EBADMSG);
	cr_assert_eq(decode_pairs(1, (const uint64_t[]){9, 5}, 2), -EBADMSG);
	cr_assert_eq(decode_pairs(2, (const uint64_t[]){0, 5, 6}, 3), -EBADMSG);
	cr_assert_eq(decode_pairs(UINT32_MAX, (const uint64_t[]){0, 5}, 2), -EBADMSG);
}
