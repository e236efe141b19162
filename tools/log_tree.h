/*
 * log_tree.h - `varve log -r`: everything that happened beneath a directory, oldest first.
 */
#ifndef VARVE_TOOLS_LOG_TREE_H
#define VARVE_TOOLS_LOG_TREE_H

#include <stdint.h>

enum log_form { LOG_LINES, LOG_TABLE, LOG_JSON };

struct log_tree {
	const char *path;
	int64_t since_ns, until_ns;
	enum log_form form;
};
/* 0, or an exit status after complaints. stdout is not flushed. */
int log_tree(const struct log_tree *request);

#endif
