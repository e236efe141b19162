/*
 * ranges.c - ordered sets of byte ranges in one sorted array.
 *
 * Invariant, for all i: cells[i].start < cells[i].end < cells[i + 1].start.
 * Every change finds the run of cells it concerns by two binary searches and
 * replaces that run in one move, after the only allocation that can fail.
 */
#include "ranges.h"
#include "buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 8

void ranges_free(struct ranges *set)
{
	free(set->cells);
	*set = (struct ranges)RANGES_INIT;
}

void ranges_clear(struct ranges *set)
{
	set->count = 0;
	set->total = 0;
}

int ranges_copy(struct ranges *ret_set, const struct ranges *set)
{
	struct ranges copy = {.count = set->count, .cap = set->count, .total = set->total};

	if (set->count) {
		copy.cells = malloc(set->count * sizeof(*copy.cells));
		if (!copy.cells)
			return -ENOMEM;
		memcpy(copy.cells, set->cells, set->count * sizeof(*copy.cells));
	}
	*ret_set = copy;
	return 0;
}

/* Index of the first cell that ends after `position`, count when there is none. */
static size_t first_ending_after(const struct ranges *set, uint64_t position)
{
	size_t low = 0;
	size_t high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->cells[middle].end > position)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Index of the first cell that starts at `position` or after it, count when there is none. */
static size_t first_starting_at(const struct ranges *set, uint64_t position)
{
	size_t low = 0;
	size_t high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->cells[middle].start >= position)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static uint64_t sum(const struct range *cells, size_t count)
{
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += cells[i].end - cells[i].start;
	return total;
}

/* Puts `count` cells in the place of [first, last). 0 or -ENOMEM, and then nothing has changed. */
static int splice(struct ranges *set, size_t first, size_t last, const struct range *cells, size_t count)
{
	size_t need = set->count - (last - first) + count;

	if (need > set->cap) {
		size_t cap = set->cap * 2 > FIRST_CAP ? set->cap * 2 : FIRST_CAP;
		struct range *grown = reallocarray(set->cells, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		set->cells = grown;
		set->cap = cap;
	}
	if (need == 0) {
		ranges_clear(set);
		return 0;
	}
	set->total += sum(cells, count) - sum(set->cells + first, last - first);
	memmove(set->cells + first + count, set->cells + last, (set->count - last) * sizeof(*cells));
	for (size_t i = 0; i < count; i++)
		set->cells[first + i] = cells[i];
	set->count = need;
	return 0;
}

int ranges_add(struct ranges *set, uint64_t start, uint64_t end)
{
	struct range merged = {start, end};
	size_t first;
	size_t last;

	if (start >= end)
		return 0;
	/* Cells that only touch belong to the run: one that ends at start, one that starts at end. */
	first = first_ending_after(set, start);
	if (first > 0 && set->cells[first - 1].end == start)
		first--;
	last = first_starting_at(set, end);
	if (last < set->count && set->cells[last].start == end)
		last++;
	if (first < last) {
		if (set->cells[first].start < start)
			merged.start = set->cells[first].start;
		if (set->cells[last - 1].end > end)
			merged.end = set->cells[last - 1].end;
	}
	return splice(set, first, last, &merged, 1);
}

int ranges_remove(struct ranges *set, uint64_t start, uint64_t end)
{
	struct range rest[2];
	size_t rest_count = 0;
	size_t first;
	size_t last;

	if (start >= end)
		return 0;
	first = first_ending_after(set, start);
	last = first_starting_at(set, end);
	if (first >= last)
		return 0;
	if (set->cells[first].start < start)
		rest[rest_count++] = (struct range){set->cells[first].start, start};
	if (set->cells[last - 1].end > end)
		rest[rest_count++] = (struct range){end, set->cells[last - 1].end};
	return splice(set, first, last, rest, rest_count);
}

bool ranges_contains(const struct ranges *set, uint64_t start, uint64_t end)
{
	struct range gap;

	return !ranges_next_gap(set, start, end, &gap);
}

bool ranges_intersects(const struct ranges *set, uint64_t start, uint64_t end)
{
	struct range piece;

	return ranges_next_piece(set, start, end, &piece);
}

uint64_t ranges_total(const struct ranges *set)
{
	return set->total;
}

uint64_t ranges_end(const struct ranges *set)
{
	return set->count ? set->cells[set->count - 1].end : 0;
}

bool ranges_next_gap(const struct ranges *set, uint64_t start, uint64_t end, struct range *ret_gap)
{
	size_t next = first_ending_after(set, start);

	if (next < set->count && set->cells[next].start <= start)
		start = set->cells[next++].end;
	if (start >= end)
		return false;
	/* Cells never touch, so what follows one is always a gap. */
	if (next < set->count && set->cells[next].start < end)
		end = set->cells[next].start;
	*ret_gap = (struct range){start, end};
	return true;
}

bool ranges_gap_around(const struct ranges *set, uint64_t position, struct range *ret_gap)
{
	size_t next = first_ending_after(set, position);

	if (next < set->count && set->cells[next].start <= position)
		return false;
	*ret_gap = (struct range){
		.start = next ? set->cells[next - 1].end : 0,
		.end = next < set->count ? set->cells[next].start : UINT64_MAX,
	};
	return true;
}

bool ranges_next_piece(const struct ranges *set, uint64_t start, uint64_t end, struct range *ret_piece)
{
	size_t next = first_ending_after(set, start);
	const struct range *cell;

	if (start >= end || next == set->count || set->cells[next].start >= end)
		return false;
	cell = &set->cells[next];
	*ret_piece = (struct range){
		.start = cell->start > start ? cell->start : start,
		.end = cell->end < end ? cell->end : end,
	};
	return true;
}

/* u32 count, then start and end of each, u64. */
void ranges_encode(const struct ranges *set, struct buf *buf)
{
	if (set->count > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	buf_add_u32(buf, (uint32_t)set->count);
	for (size_t i = 0; i < set->count; i++) {
		buf_add_u64(buf, set->cells[i].start);
		buf_add_u64(buf, set->cells[i].end);
	}
}

int ranges_decode(struct ranges *ret_set, struct cursor *cursor)
{
	struct ranges set = RANGES_INIT;
	size_t count = cursor_u32(cursor);
	const uint8_t *bytes = cursor_bytes(cursor, count * 2 * sizeof(uint64_t));
	struct cursor cells;

	/* The bytes are there, so that a count from a damaged record cannot ask for more memory than the record has. */
	if (!bytes)
		return -EBADMSG;
	cells = cursor_of(bytes, count * 2 * sizeof(uint64_t));
	if (count) {
		set.cells = calloc(count, sizeof(*set.cells));
		if (!set.cells)
			return -ENOMEM;
		set.cap = count;
	}
	for (; set.count < count; set.count++) {
		struct range *cell = &set.cells[set.count];

		cell->start = cursor_u64(&cells);
		cell->end = cursor_u64(&cells);
		if (cell->start >= cell->end || (set.count && cell[-1].end >= cell->start)) {
			cursor->failed = true;
			ranges_free(&set);
			return -EBADMSG;
		}
	}
	set.total = sum(set.cells, set.count);
	*ret_set = set;
	return 0;
}
