/*
 * facts.h - what objects begun before their version cannot say themselves (fs/ahead.h) is let go once the catalog's log
 * tells it.
 *
 * Thread-safe; blocks for the store.
 */
#ifndef VARVE_FS_FACTS_H
#define VARVE_FS_FACTS_H

#include "catalog.h"
#include "transfer.h"

struct lease;

struct facts_tidy {
	struct catalog *catalog;
	struct transfer *transfer;
	struct lease *lease;
	/* Returns when all that the catalog knows now is in the store. */
	int (*ship)(void *arg, const struct call *call, struct err *err);
	void *ship_arg;
};
/*
 * Removes every object under `.varve/facts/` whose version the catalog knows to be stored, after the log that says so
 * has been shipped. *ret_waiting: so many belong to versions that are on their way.
 */
int facts_tidy(const struct facts_tidy *tidy, const struct call *call, uint64_t *ret_waiting, struct err *err);

#endif
