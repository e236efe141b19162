/*
 * plan.c - see plan.h.
 *
 * Invariants: what is copied lies below base_limit and outside of dirty; two parts never overlap, none is empty, and
 * none but the last is smaller than the least part.
 *
 * A dirty range takes its least part from the bytes after it (before it, at the end of the object), so that dirty
 * ranges close to each other share one part; a clean stretch too small to be a part of its own goes with its
 * neighbours. The parts of what is all new lie on a grid that only the part's number decides: they can be sent before
 * anybody knows how large the object becomes.
 */
#include "fs/plan.h"
#include "array.h"

#include <errno.h>
#include <stdlib.h>

#define PART_SIZE (UINT64_C(16) << 20)
#define PART_LEAST (UINT64_C(5) << 20) /* where the store does not care */
#define GRID_STEP 1000                 /* after so many parts they double: 5 TiB are some 8,400 */
/* A store that has to hash what it copies is busiest with few large copies; a distant one copies its pieces side by
 * side. MinIO takes 1.7 s of its processors for 512 MiB in one or two pieces and 2.6 s in sixteen. */
#define COPY_PIECE (UINT64_C(256) << 20)

struct planner {
	const struct content_plan *content;
	uint64_t least;
	size_t cap;
	struct plan plan;
};

void plan_clear(struct plan *plan)
{
	free(plan->cells);
	*plan = (struct plan){0};
}

static uint64_t least_of(const struct backend_limits *limits)
{
	return limits->min_part > PART_LEAST ? limits->min_part : PART_LEAST;
}

void plan_grid(const struct backend_limits *limits, size_t index, uint64_t *ret_start, uint64_t *ret_size)
{
	uint64_t size = least_of(limits) > PART_SIZE ? least_of(limits) : PART_SIZE, start = 0;

	for (; index >= GRID_STEP; index -= GRID_STEP, size *= 2)
		start += GRID_STEP * size;
	*ret_start = start + index * size;
	*ret_size = size;
}

static int add(struct planner *planner, const struct transfer_part *part)
{
	struct plan *plan = &planner->plan;

	if (ARRAY_ROOM(plan->cells, planner->cap, plan->count))
		return -ENOMEM;
	plan->cells[plan->count++] = *part;
	return 0;
}

static int plan_new(struct planner *planner, const struct backend_limits *limits)
{
	uint64_t size = planner->content->size, start, len;
	int err = 0;

	do {
		plan_grid(limits, planner->plan.count, &start, &len);
		if (len > size - start)
			len = size - start;
		err = add(planner, &(struct transfer_part){.offset = start, .size = len, .copy_offset = start});
	} while (!err && start + len < size);
	return err;
}

/* [start, end) in pieces of about `piece`, none smaller than that unless all of it is. */
static int add_split(struct planner *planner, struct range range, uint64_t piece, const struct object_ref *from)
{
	uint64_t len = range.end - range.start, count = len / piece ? len / piece : 1;
	int err = 0;

	for (uint64_t i = 0; i < count && !err; i++) {
		uint64_t start = range.start + len / count * i;
		uint64_t end = i + 1 < count ? range.start + len / count * (i + 1) : range.end;
		struct transfer_part part = {.offset = start, .size = end - start, .copy_offset = start};

		if (from)
			part.copy_from = *from;
		err = add(planner, &part);
	}
	return err;
}

/* The first byte from `at` on that the base does not have. */
static uint64_t next_new(const struct content_plan *content, uint64_t at)
{
	uint64_t end = content->base_limit < content->size ? content->base_limit : content->size;
	struct range piece;

	if (at >= end)
		return at;
	return ranges_next_piece(&content->dirty, at, end, &piece) ? piece.start : end;
}

/* The end of the stretch of new bytes that begins at `at`. */
static uint64_t end_of_new(const struct content_plan *content, uint64_t at)
{
	struct range gap;

	if (at >= content->base_limit || !ranges_next_gap(&content->dirty, at, content->base_limit, &gap) ||
	    gap.start >= content->size)
		return content->size;
	return gap.start;
}

/* How far what is sent from `start` goes: to a clean stretch worth copying, and not less than the least part. */
static uint64_t end_of_sent(const struct planner *planner, uint64_t start)
{
	const struct content_plan *content = planner->content;
	uint64_t size = content->size, end = end_of_new(content, next_new(content, start));

	for (;;) {
		if (end - start < planner->least)
			end = size - start < planner->least ? size : start + planner->least;
		uint64_t next = next_new(content, end);

		if (end >= size || next >= size || next - end >= planner->least)
			return end;
		end = end_of_new(content, next);
	}
}

static int plan_mixed(struct planner *planner)
{
	const struct content_plan *content = planner->content;
	const struct object_ref from = {
		.key = content->copy.key, .native_id = content->copy.native_id, .etag = content->copy.etag};
	uint64_t step = planner->least > PART_SIZE ? planner->least : PART_SIZE;
	int err = 0;

	for (uint64_t at = 0; at < content->size && !err;) {
		uint64_t clean_end = next_new(content, at), end;

		/* The last part may be of any size, but so little at the end is not left to new bytes alone. */
		if (clean_end - at >= planner->least || clean_end == content->size) {
			end = clean_end;
			err = add_split(planner, (struct range){at, end}, COPY_PIECE, &from);
		} else {
			end = end_of_sent(planner, at);
			err = add_split(planner, (struct range){at, end}, step, NULL);
		}
		at = end;
	}
	return err;
}

static bool fits(const struct backend_limits *limits, const struct plan *plan)
{
	return plan->count <= (limits->max_parts ? limits->max_parts : 10000);
}

int plan_parts(const struct content_plan *content, const struct backend_limits *limits, struct plan *ret_plan)
{
	struct planner planner = {.content = content, .least = least_of(limits)};
	bool can_copy = content->copy.key && content->base_limit > planner.least;
	int err = can_copy ? plan_mixed(&planner) : plan_new(&planner, limits);

	/* So many changes all over it: larger parts, fewer stretches between them. */
	while (!err && can_copy && !fits(limits, &planner.plan) && planner.least < content->size) {
		planner.least *= 2;
		planner.plan.count = 0;
		err = plan_mixed(&planner);
	}
	if (!err && !fits(limits, &planner.plan))
		err = -EFBIG;
	if (err)
		plan_clear(&planner.plan);
	else
		*ret_plan = planner.plan;
	return err;
}
