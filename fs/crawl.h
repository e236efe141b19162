/*
 * crawl.h - everything a store tells taken into the catalog, several directories at a time: names and attributes, older
 * versions, what was deleted. A mount does it bit by bit as people look around; a rebuild is to be complete.
 */
#ifndef VARVE_FS_CRAWL_H
#define VARVE_FS_CRAWL_H

#include "catalog.h"
#include "transfer.h"

struct reconcile;

struct crawl_figures {
	uint64_t directories, files; /* so far */
	uint64_t versions;           /* so far, of those that the catalog did not know: others than the current ones */
	uint64_t waiting;            /* directories that are known and were not looked into yet */
};
struct crawl {
	struct catalog *catalog;
	struct reconcile *reconcile;
	void (*progress)(void *arg, const struct crawl_figures *so_far); /* now and then, on the caller's thread */
	void *arg;
};
/* 0, or the first failure; what was listed until then stays listed. */
int crawl_all(const struct crawl *crawl, const struct call *call, struct crawl_figures *ret_figures, struct err *err);

/* Lists what was never listed at or beneath the directory. Without threads and requests, a look at each directory that
 * has others in it, when there is nothing such. */
int crawl_unlisted(const struct crawl *crawl, uint64_t dir, const struct call *call, struct err *err);

#endif
