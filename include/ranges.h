/*
 * ranges.h - an ordered set of byte ranges [start, end).
 *
 * Invariants: sorted, disjoint, never touching (adjacent ranges are merged),
 * never empty. Not thread-safe: its owner's lock guards it.
 * Queries are O(log n), the total O(1); changes O(n) moves of 16-byte cells.
 */
#ifndef VARVE_RANGES_H
#define VARVE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t start;
	uint64_t end; /* exclusive */
};

struct ranges {
	struct range *cells;
	size_t count;
	size_t cap;
	uint64_t total; /* bytes covered */
};

#define RANGES_INIT                                                                                                    \
	{                                                                                                              \
		0                                                                                                      \
	}

void ranges_free(struct ranges *set);
void ranges_clear(struct ranges *set); /* keeps memory */
/* Here and in ranges_decode ret_set is written without looking at what it held: free that first. */
int ranges_copy(struct ranges *ret_set, const struct ranges *set);

/* 0 or -ENOMEM, and then the set is unchanged. start >= end changes nothing. */
int ranges_add(struct ranges *set, uint64_t start, uint64_t end);
int ranges_remove(struct ranges *set, uint64_t start, uint64_t end);

bool ranges_contains(const struct ranges *set, uint64_t start, uint64_t end);
bool ranges_intersects(const struct ranges *set, uint64_t start, uint64_t end);
uint64_t ranges_total(const struct ranges *set); /* bytes covered */
uint64_t ranges_end(const struct ranges *set);   /* end of the last, or 0 */

/* First gap within [start, end): true and the gap clipped to it, false when fully covered. */
bool ranges_next_gap(const struct ranges *set, uint64_t start, uint64_t end, struct range *ret_gap);
/* All of the gap that `position` lies in: from 0 or the end of a range to the start of the next or UINT64_MAX. False
 * when it is covered. */
bool ranges_gap_around(const struct ranges *set, uint64_t position, struct range *ret_gap);
/* First covered piece within [start, end), likewise. */
bool ranges_next_piece(const struct ranges *set, uint64_t start, uint64_t end, struct range *ret_piece);

struct buf;
struct cursor;
void ranges_encode(const struct ranges *set, struct buf *buf);
int ranges_decode(struct ranges *ret_set, struct cursor *cursor); /* 0, -EBADMSG, -ENOMEM */

#endif
