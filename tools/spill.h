/*
 * spill.h - sorts more lines than fit in memory: runs go to one unlinked file in TMPDIR and are merged from there.
 */
#ifndef VARVE_TOOLS_SPILL_H
#define VARVE_TOOLS_SPILL_H

#include <stddef.h>
#include <stdint.h>

struct spill;

/* Holds at most about `memory` bytes of lines; a file is made only for more. NULL: no memory. */
struct spill *spill_new(size_t memory);
void spill_free(struct spill *spill); /* NULL is fine */
/* Copies the line. Lines of one key keep their order. 0 or -errno, -ENOSPC among them. */
int spill_add(struct spill *spill, int64_t key, const char *line);
/* All of them, by ascending key; nothing is added after. 0, what visit returned, or -errno. */
int spill_each(struct spill *spill, int (*visit)(void *arg, const char *line), void *arg);

#endif
