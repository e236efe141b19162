/* array.c - see array.h. */
#include "array.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 16

int array_grow(void *cells_of, size_t *cap, size_t count, size_t size)
{
	size_t more = *cap ? 2 * *cap : FIRST_CAP;
	void *cells;

	if (count < *cap)
		return 0;
	/* More than there can be; asking for it is an error of its own. */
	if (*cap > SIZE_MAX / 4 || more > SIZE_MAX / 2 / size)
		return -ENOMEM;
	memcpy(&cells, cells_of, sizeof(cells)); /* a pointer to whatever: through void ** it would be another type's */
	cells = reallocarray(cells, more, size);
	if (!cells)
		return -ENOMEM;
	memcpy(cells_of, &cells, sizeof(cells));
	*cap = more;
	return 0;
}

/* --- numbers ---------------------------------------------------------------------------------------- */

/* Of the first that is not less. */
static size_t position_of(const struct numbers *numbers, uint64_t number)
{
	size_t low = 0, high = numbers->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (numbers->cells[middle] < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int array_by_string(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void numbers_clear(struct numbers *numbers)
{
	free(numbers->cells);
	*numbers = (struct numbers){0};
}

bool numbers_has(const struct numbers *numbers, uint64_t number)
{
	size_t at = position_of(numbers, number);

	return at < numbers->count && numbers->cells[at] == number;
}

int numbers_add(struct numbers *numbers, uint64_t number)
{
	size_t at = position_of(numbers, number);

	if (at < numbers->count && numbers->cells[at] == number)
		return 1;
	if (ARRAY_ROOM(numbers->cells, numbers->cap, numbers->count))
		return -ENOMEM;
	memmove(numbers->cells + at + 1, numbers->cells + at, (numbers->count - at) * sizeof(*numbers->cells));
	numbers->cells[at] = number;
	numbers->count++;
	return 0;
}
