/*
 * cleanup.h - scope-bound release of memory, descriptors and mutexes.
 *
 * Only for these three: everything else is released at the one `out:` label of
 * its function, where the order can be read.
 */
#ifndef VARVE_CLEANUP_H
#define VARVE_CLEANUP_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* a reader has nothing to lose; writers close by hand */
}

/* Frees the heap block the variable points at when it leaves scope. NULL is fine. */
#define AUTO_FREE __attribute__((cleanup(cleanup_free)))

/* Closes the descriptor when the variable leaves scope. Negative is fine. */
#define AUTO_CLOSE __attribute__((cleanup(cleanup_close)))

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
