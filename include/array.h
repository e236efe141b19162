/*
 * array.h - arrays that grow at their end, and sorted sets of numbers.
 *
 * Not thread-safe: their owner's lock guards them.
 */
#ifndef VARVE_ARRAY_H
#define VARVE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for one more cell behind the `count` first: 0 or -ENOMEM, and then all is as it was. `cells_of` points to the
 * pointer to the cells, which is the owner's to free; NULL with cap 0 to begin with. */
int array_grow(void *cells_of, size_t *cap, size_t count, size_t size);
#define ARRAY_ROOM(cells, cap, count) array_grow(&(cells), &(cap), (count), sizeof(*(cells)))

/* For qsort and bsearch of an array of strings. */
int array_by_string(const void *a, const void *b);

/* In order, each once. {0} is the empty set; freed by numbers_clear. */
struct numbers {
	uint64_t *cells;
	size_t count, cap;
};
void numbers_clear(struct numbers *numbers);
bool numbers_has(const struct numbers *numbers, uint64_t number);
/* 0; 1: it was there; -ENOMEM. */
int numbers_add(struct numbers *numbers, uint64_t number);

#endif
