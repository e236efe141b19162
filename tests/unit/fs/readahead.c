/* Unit tests of fs/readahead.c: what is fetched for which reads. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "fs/readahead.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define SIZE (UINT64_C(1) << 30)

static struct readahead readahead;
static struct readahead_limits limits;
static struct readahead_plan plan;

static void setup(void)
{
	memset(&readahead, 0, sizeof(readahead));
	limits = (struct readahead_limits){.size = SIZE, .window = 64 * MIB};
}

TestSuite(readahead, .init = setup);

static uint64_t ahead_bytes(void)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < plan.count; i++)
		total += plan.ahead[i].end - plan.ahead[i].start;
	return total;
}

/* Reads, and checks what holds for every plan. */
static void read_at(uint64_t start, uint64_t len)
{
	readahead_note(&readahead, start, start + len, &limits, &plan);
	cr_assert_leq(plan.need.start, start);
	cr_assert_geq(plan.need.end, start + len);
	cr_assert_leq(plan.need.end, limits.size);
	for (unsigned i = 0; i < plan.count; i++) {
		cr_assert_lt(plan.ahead[i].start, plan.ahead[i].end);
		cr_assert_leq(plan.ahead[i].end, limits.size);
	}
}

/* From `start` on, `count` requests; what was asked for ahead in all. */
static uint64_t read_on(uint64_t start, uint64_t len, unsigned count)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++) {
		read_at(start + i * len, len);
		total += ahead_bytes();
	}
	return total;
}

Test(readahead, a_lone_read_brings_a_little_and_nothing_ahead)
{
	read_at(300 * MIB + 5000, 4096);
	cr_assert_eq(plan.pattern, READAHEAD_LONE);
	cr_assert_eq(plan.count, 0);
	cr_assert_eq(plan.need.start, 300 * MIB);
	cr_assert_eq(plan.need.end, 300 * MIB + 64 * KIB);
}

Test(readahead, a_sequence_gets_a_window_that_grows_with_what_was_read)
{
	uint64_t asked, before = 0, read = 0;

	for (unsigned i = 0; i < 64; i++) {
		read_at(i * MIB, MIB);
		read += MIB;
		asked = readahead.streams[0].ahead;
		cr_assert_eq(plan.pattern, READAHEAD_SEQUENTIAL);
		cr_assert_leq(asked, read + 4 * read + MIB, "%zu MiB for %u", (size_t)(asked / MIB), i + 1);
		cr_assert_geq(asked, before);
		before = asked;
	}
	cr_assert_geq(before, 64 * MIB + 32 * MIB, "the full window, but for pieces not begun");
	cr_assert_leq(before, 64 * MIB + 64 * MIB);
}

Test(readahead, what_is_ahead_is_asked_for_once_and_without_gaps)
{
	uint64_t reached = 0;

	for (unsigned i = 0; i < 512; i++) {
		read_at(i * 128 * KIB, 128 * KIB);
		if (plan.need.end > reached)
			reached = plan.need.end;
		if (plan.count) {
			cr_assert_eq(plan.ahead[0].start, reached);
			reached = plan.ahead[0].end;
		}
	}
}

Test(readahead, a_sequence_ends_with_the_file)
{
	limits.size = 10 * MIB + 77;
	(void)read_on(0, MIB, 10);
	cr_assert_eq(readahead.streams[0].ahead, limits.size);
	read_at(10 * MIB, 77);
	cr_assert_eq(plan.count, 0);
}

/* The kernel sends several requests at once, and they arrive in any order. */
Test(readahead, requests_out_of_order_are_one_sequence)
{
	static const unsigned order[] = {1, 0, 3, 2, 5, 7, 4, 6, 9, 8, 11, 10};

	read_at(0, 128 * KIB);
	for (unsigned round = 0; round < 8; round++)
		for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
			read_at((1 + round * 12 + order[i]) * 128 * KIB, 128 * KIB);
			cr_assert_eq(plan.pattern, READAHEAD_SEQUENTIAL, "%u %zu", round, i);
		}
	cr_assert_eq(readahead_active(&readahead), 1);
}

Test(readahead, a_sequence_from_the_middle_is_seen_at_its_second_read)
{
	read_at(100 * MIB, 128 * KIB);
	cr_assert_eq(plan.pattern, READAHEAD_LONE);
	read_at(100 * MIB + 128 * KIB, 128 * KIB);
	cr_assert_eq(plan.pattern, READAHEAD_SEQUENTIAL);
	cr_assert_gt(ahead_bytes() + plan.need.end - plan.need.start, 512 * KIB);
}

Test(readahead, streams_do_not_reset_each_other)
{
	for (unsigned step = 0; step < 40; step++)
		for (unsigned stream = 0; stream < READAHEAD_STREAMS; stream++) {
			read_at(stream * 16 * MIB + step * 64 * KIB, 64 * KIB);
			if (step)
				cr_assert_eq(plan.pattern, READAHEAD_SEQUENTIAL, "%u of %u", step, stream);
		}
	cr_assert_eq(readahead_active(&readahead), READAHEAD_STREAMS);
}

Test(readahead, random_reads_are_hardly_ever_taken_for_a_sequence)
{
	unsigned sequential = 0;
	uint64_t ahead = 0;

	srandom(1);
	for (unsigned i = 0; i < 4000; i++) {
		read_at((uint64_t)(random() % (long)(SIZE / 4096)) * 4096, 4096);
		sequential += plan.pattern != READAHEAD_LONE;
		ahead += ahead_bytes();
	}
	cr_assert_lt(sequential, 100);
	cr_assert_lt(ahead, 4000 * 64 * KIB);
}

static void expect_strides(int64_t stride, uint64_t from)
{
	uint64_t at = from, asked_to = 0;

	for (unsigned i = 0; i < 20; i++, at += (uint64_t)stride) {
		read_at(at, 4096);
		if (i < 3)
			continue;
		cr_assert_eq(plan.pattern, READAHEAD_STRIDED, "read %u of stride %lld", i, (long long)stride);
		cr_assert_eq(plan.ahead[0].start, at + (uint64_t)stride);
		cr_assert_eq(plan.ahead[0].end, at + (uint64_t)stride + 4096);
		cr_assert_geq(plan.count, asked_to, "the depth does not shrink");
		asked_to = plan.count;
	}
	cr_assert_geq(asked_to, 16);
}

Test(readahead, strides_are_followed_either_way)
{
	expect_strides((int64_t)MIB, 10 * MIB + 4096);
	expect_strides(-(int64_t)MIB, 900 * MIB);
}

Test(readahead, what_could_not_be_begun_is_asked_for_again)
{
	struct range wanted;

	(void)read_on(0, MIB, 4);
	while (read_at(readahead.streams[0].next, MIB), plan.count == 0)
		;
	wanted = plan.ahead[0];
	readahead_short(&readahead, &plan, wanted.start + MIB);
	while (read_at(readahead.streams[0].next, MIB), plan.count == 0)
		;
	cr_assert_eq(plan.ahead[0].start, wanted.start + MIB);
}

Test(readahead, eviction_keeps_what_a_reader_comes_to_next_and_has_just_read)
{
	struct ranges kept = RANGES_INIT;

	(void)read_on(0, MIB, 32);
	cr_assert_eq(readahead_keep(&readahead, &kept), 0);
	cr_assert(ranges_contains(&kept, 31 * MIB, 48 * MIB));
	cr_assert_not(ranges_intersects(&kept, 0, 31 * MIB));
	ranges_free(&kept);
}

Test(readahead, a_reader_that_comes_no_more_is_forgotten)
{
	(void)read_on(0, MIB, 8);
	cr_assert_eq(readahead_active(&readahead), 1);
	for (unsigned i = 0; i < 2000; i++)
		read_at(200 * MIB + (i * 7919 % 100) * MIB, 4096);
	cr_assert_eq(readahead.streams[0].consumed && readahead_active(&readahead) > 1, 0);
}

/* --- what a reader leaves behind --- */

Test(readahead, what_the_only_sequence_has_passed_is_told_once)
{
	struct range passed, all = {0, 0};

	for (uint64_t at = 0; at < 64 * MIB; at += MIB) {
		read_at(at, MIB);
		if (!readahead_passed(&readahead, &passed))
			continue;
		cr_assert_eq(passed.start, all.end);
		cr_assert_lt(passed.end, at, "it is read yet");
		all.end = passed.end;
	}
	cr_assert_geq(all.end, 32 * MIB);
	cr_assert_not(readahead_passed(&readahead, &passed));
}

Test(readahead, what_others_may_still_read_is_not_passed)
{
	struct range passed;

	for (uint64_t at = 0; at < 64 * MIB; at += MIB) {
		read_at(at, MIB);
		read_at(SIZE / 2 + at, MIB);
		cr_assert_not(at && readahead_passed(&readahead, &passed));
	}
}

/* --- ski rental --- */

#define BANDWIDTH (100 * MIB)

Test(readahead, speculation_is_never_worth_more_than_what_misses_have_cost)
{
	uint64_t total = 0;
	int64_t paid = 0;

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t allowed;

		readahead_paid(&readahead, 20 * 1000000);
		paid += 20 * 1000000;
		allowed = readahead_allowance(&readahead, SIZE, SIZE, BANDWIDTH);
		readahead_speculated(&readahead, allowed);
		total += allowed;
		cr_assert_leq((double)total, (double)paid / 1e9 * BANDWIDTH + 1);
	}
	cr_assert_eq(total, SIZE, "in the end all of it was bought, and not more");
}

Test(readahead, the_first_misses_buy_nothing)
{
	for (unsigned i = 0; i < 7; i++) {
		readahead_paid(&readahead, 1000000000);
		cr_assert_eq(readahead_allowance(&readahead, SIZE, SIZE, BANDWIDTH), 0);
	}
	readahead_paid(&readahead, 1000000000);
	cr_assert_gt(readahead_allowance(&readahead, SIZE, SIZE, BANDWIDTH), 0);
}

Test(readahead, a_file_over_the_cap_is_never_bought)
{
	for (unsigned i = 0; i < 100000; i++)
		readahead_paid(&readahead, 20 * 1000000);
	cr_assert_eq(readahead_allowance(&readahead, UINT64_C(1) << 40, SIZE, BANDWIDTH), 0);
	cr_assert_eq(readahead_allowance(&readahead, SIZE + 1, SIZE, BANDWIDTH), 0);
	cr_assert_eq(readahead_allowance(&readahead, SIZE, SIZE, BANDWIDTH), SIZE);
}
