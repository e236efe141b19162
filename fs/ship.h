/*
 * ship.h - log shipping: what only the catalog knows leaves the machine.
 *
 * Segments of the redo log and, now and then, a snapshot lie under
 * `.varve/catalog/`:
 *
 *	<epoch:016x>-<from:016x>-<to:016x>.seg	updates (from, to]
 *	<epoch:016x>-<number:016x>.snap		everything up to `number`
 *
 * so that a lost state directory is rebuilt from the store.
 *
 * Thread-safe.
 */
#ifndef VARVE_FS_SHIP_H
#define VARVE_FS_SHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "catalog.h"
#include "lease.h"
#include "transfer.h"

struct ship;

#define SHIP_PREFIX ".varve/catalog/"

struct ship_options {
	struct catalog *catalog;
	struct transfer *transfer;
	struct lease *lease;   /* its epoch names what is shipped; nothing is without it */
	const char *tmp_dir;   /* where what does not fit in memory is spooled; copied */
	int64_t interval_ns;   /* 0: 5 s */
	uint64_t snapshot_min; /* bytes of segments that are always worth keeping to a snapshot; 0: 4 MiB */
	/* How many facts (fs/facts.h) were put since the mount: they go when the log tells the same. NULL: never any.
	 */
	uint64_t (*facts_put)(void *arg);
	void *facts_arg;
};

int ship_new(const struct ship_options *options, struct ship **ret_ship, struct err *err);
/* Stops the thread; ships nothing more. NULL is fine. */
void ship_free(struct ship *ship);

/* Returns when everything up to catalog_number() at the call is in the store. All who wait share one PUT. */
int ship_now(struct ship *ship, const struct call *call, struct err *err);
/* At unmount: ship_now, and a snapshot when many segments lie behind the last. */
int ship_finish(struct ship *ship, const struct call *call, struct err *err);

struct ship_figures {
	uint64_t shipped, number;            /* update numbers: in the store, and newest */
	uint64_t segments, snapshots, bytes; /* since mount */
	uint64_t failures;
	char last_error[256]; /* "": the last round succeeded */
};
void ship_figures(struct ship *ship, struct ship_figures *ret_figures);

struct ship_rebuilt {
	uint64_t epoch, number; /* how far it goes */
	uint64_t segments;      /* applied on top of the snapshot */
	uint64_t bytes;
	bool gap; /* something newer lies in the store that does not follow on, or is damaged */
};
typedef void (*ship_progress)(void *arg, const struct ship_rebuilt *so_far);
struct ship_rebuild {
	struct catalog *catalog; /* empty */
	struct transfer *transfer;
	const char *tmp_dir;
	ship_progress progress; /* may be NULL */
	void *progress_arg;
};
/*
 * Into an empty catalog: the newest snapshot that can be used and all segments
 * that follow on. -ENOENT (ERR_NOT_FOUND): the store has none, its listing
 * alone must do.
 */
int ship_rebuild(const struct ship_rebuild *request, const struct call *call, struct ship_rebuilt *ret_rebuilt,
		 struct err *err);

/* The greatest epoch that anything under SHIP_PREFIX was written in; 0: nothing there. */
int ship_highest_epoch(struct transfer *transfer, const struct call *call, uint64_t *ret_epoch, struct err *err);

#endif
