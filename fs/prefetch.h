/*
 * prefetch.h - small files that a reader of their directory will open next.
 *
 * Whoever reads the small files of a directory one after the other would wait
 * a round trip for each. Once two neighbours were read cold, the next ones are
 * fetched ahead of the reader, in parallel.
 *
 * Thread-safe. Both calls are cheap when there is nothing to do, and may be
 * made after the request was answered.
 */
#ifndef VARVE_FS_PREFETCH_H
#define VARVE_FS_PREFETCH_H

#include <stdint.h>

struct catalog;
struct contents;
struct prefetch;
struct transfer;

struct prefetch_options {
	struct catalog *catalog;
	struct contents *contents;
	struct transfer *transfer;
};
int prefetch_new(const struct prefetch_options *options, struct prefetch **ret_prefetch);
void prefetch_free(struct prefetch *prefetch); /* after the transfer engine; NULL is fine */

/* File `ino` is opened for reading. */
void prefetch_opened(struct prefetch *prefetch, uint64_t ino);
/* The first bytes of file `ino` were read, and had to come from the store. */
void prefetch_missed(struct prefetch *prefetch, uint64_t ino);

#endif
