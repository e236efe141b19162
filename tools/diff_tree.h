/*
 * diff_tree.h - `varve diff DIR`: what is different beneath a directory between two instants.
 */
#ifndef VARVE_TOOLS_DIFF_TREE_H
#define VARVE_TOOLS_DIFF_TREE_H

#include <stdbool.h>
#include <stdint.h>

struct diff_tree {
	const char *path;
	int64_t from_ns, to_ns;
	bool to_live; /* to what is there now, not to an instant */
	bool as_json;
};
/* 0 the same, 1 different, 2 trouble, told. stdout is not flushed. */
int diff_tree(const struct diff_tree *request);

#endif
