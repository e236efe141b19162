/*
 * plan.c - the parts of an upload.
 */
#include "fs/plan.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define LEAST (5 * MIB)

static const struct backend_limits s3 = {.min_part = LEAST, .max_parts = 10000};
static struct content_plan content;
static struct plan plan;

static void leave(void)
{
	plan_clear(&plan);
	ranges_free(&content.dirty);
	content = (struct content_plan){0};
}

TestSuite(plan, .fini = leave);

static void stored(uint64_t base_limit, uint64_t size)
{
	content = (struct content_plan){.size = size, .base_limit = base_limit, .copy = {.key = (char *)"k"}};
	cr_assert_eq(ranges_add(&content.dirty, base_limit, size), 0);
}

static void dirty(uint64_t start, uint64_t len)
{
	cr_assert_eq(ranges_add(&content.dirty, start, start + len), 0);
}

static bool copied(const struct transfer_part *part)
{
	return part->copy_from.key != NULL;
}

/* Makes the plan and checks what every plan must be. */
static void make(const struct backend_limits *limits)
{
	uint64_t at = 0;

	cr_assert_eq(plan_parts(&content, limits, &plan), 0);
	cr_assert_leq(plan.count, limits->max_parts);
	for (size_t i = 0; i < plan.count; i++) {
		const struct transfer_part *part = &plan.cells[i];
		uint64_t end = part->offset + part->size;

		cr_assert_eq(part->offset, at, "a hole before part %zu", i);
		if (i + 1 < plan.count)
			cr_assert_geq(part->size, limits->min_part, "part %zu is too small", i);
		if (copied(part)) {
			cr_assert_eq(part->copy_offset, part->offset);
			cr_assert_leq(end, content.base_limit, "part %zu is copied from past the base", i);
			cr_assert_not(ranges_intersects(&content.dirty, part->offset, end), "part %zu is dirty", i);
		}
		at = end;
	}
	cr_assert_eq(at, content.size);
}

static uint64_t bytes_sent(void)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < plan.count; i++)
		bytes += copied(&plan.cells[i]) ? 0 : plan.cells[i].size;
	return bytes;
}

Test(plan, all_new_bytes_lie_on_the_grid)
{
	uint64_t start, size;

	content = (struct content_plan){.size = 100 * MIB + 1};
	make(&s3);
	for (size_t i = 0; i < plan.count; i++) {
		plan_grid(&s3, i, &start, &size);
		cr_assert_eq(plan.cells[i].offset, start);
		cr_assert(plan.cells[i].size == size || i + 1 == plan.count);
	}
}

Test(plan, five_tebibytes_fit_ten_thousand_parts_of_at_most_five_gibibytes)
{
	content = (struct content_plan){.size = UINT64_C(5) << 40};
	make(&s3);
	for (size_t i = 0; i < plan.count; i++)
		cr_assert_leq(plan.cells[i].size, UINT64_C(5) << 30);
}

Test(plan, an_append_sends_what_is_new_and_no_more)
{
	stored(512 * MIB, 512 * MIB + 100000);
	make(&s3);
	cr_assert_eq(bytes_sent(), 100000);
	cr_assert_leq(plan.count, 4, "copied in %zu pieces", plan.count - 1);
}

Test(plan, a_lone_change_costs_one_least_part)
{
	stored(512 * MIB, 512 * MIB);
	dirty(200 * MIB + 12345, 4096);
	make(&s3);
	cr_assert_eq(bytes_sent(), LEAST);
}

Test(plan, changes_close_to_each_other_share_a_part)
{
	stored(512 * MIB, 512 * MIB);
	dirty(200 * MIB, 4096);
	dirty(203 * MIB, 4096);
	make(&s3);
	cr_assert_eq(bytes_sent(), LEAST);
}

Test(plan, a_stretch_too_small_to_be_a_part_goes_with_its_neighbours)
{
	stored(512 * MIB, 512 * MIB);
	dirty(200 * MIB, 6 * MIB);
	dirty(210 * MIB, 6 * MIB); /* 4 MiB between */
	make(&s3);
	cr_assert_eq(bytes_sent(), 16 * MIB);
	content.size = 0; /* leave() */
}

Test(plan, a_change_at_either_end)
{
	stored(100 * MIB, 100 * MIB);
	dirty(0, 1);
	dirty(100 * MIB - 1, 1);
	make(&s3);
	cr_assert_eq(bytes_sent(), LEAST + 1);
	cr_assert_not(copied(&plan.cells[0]));
	cr_assert_not(copied(&plan.cells[plan.count - 1]));
}

Test(plan, a_cut_file_is_copied_only)
{
	content = (struct content_plan){.size = 40 * MIB + 7, .base_limit = 40 * MIB + 7, .copy = {.key = (char *)"k"}};
	make(&s3);
	cr_assert_eq(bytes_sent(), 0);
}

Test(plan, nothing_is_copied_of_what_is_too_small_to_be_a_part)
{
	stored(MIB, 60 * MIB);
	make(&s3);
	cr_assert_eq(bytes_sent(), 60 * MIB);
}

Test(plan, many_changes_get_larger_parts_until_they_fit)
{
	const struct backend_limits few = {.min_part = LEAST, .max_parts = 20};

	stored(1000 * MIB, 1000 * MIB);
	for (uint64_t at = 0; at < 1000 * MIB; at += 20 * MIB)
		dirty(at, 1);
	make(&few);
}

Test(plan, what_cannot_fit_is_refused)
{
	const struct backend_limits few = {.min_part = LEAST, .max_parts = 3};

	content = (struct content_plan){.size = 100 * MIB};
	cr_assert_eq(plan_parts(&content, &few, &plan), -EFBIG);
}

/* Whatever is dirty, every plan is right, and sends no more than a least part and a neighbour's gap for each change. */
Test(plan, any_changes_make_a_sound_plan)
{
	for (unsigned seed = 0; seed < 300; seed++) {
		unsigned changes = seed % 23;
		uint64_t limit, changed;

		srand(seed);
		limit = (uint64_t)rand() % (400 * MIB) + 1;
		stored(limit, limit + (seed % 3 ? 0 : (uint64_t)rand() % (30 * MIB)));
		if (!content.size)
			continue;
		for (unsigned i = 0; i < changes; i++) {
			uint64_t start = (uint64_t)rand() % content.size;
			uint64_t len = (uint64_t)rand() % (seed % 2 ? 9000 : 9 * MIB) + 1;

			dirty(start, len < content.size - start ? len : content.size - start);
		}
		changed = ranges_total(&content.dirty);
		make(&s3);
		if (content.base_limit > LEAST)
			cr_assert_leq(bytes_sent(), changed + (content.dirty.count + 1) * 2 * LEAST, "seed %u", seed);
		leave();
	}
}
