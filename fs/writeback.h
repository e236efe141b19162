/*
 * writeback.h - the journal's jobs, run in the right order until the store
 * holds what the catalog says.
 *
 * A job is done when the catalog says so in the update that deletes it; until
 * then it is tried again, for as long as it takes. See writeback.c for the
 * order, placement.c for what each job does.
 * Thread-safe.
 */
#ifndef VARVE_FS_WRITEBACK_H
#define VARVE_FS_WRITEBACK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "catalog.h"
#include "err.h"
#include "fs/placement.h"

struct contents;
struct lease;
struct transfer;
struct waiter;
struct writeback;

struct writeback_options {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease; /* NULL: may always write (tests) */
	unsigned parallel;   /* jobs at once; 0: 12, or 32 while the store is far */
	bool read_only;      /* the journal waits for a mount that may write */
	struct placement_others others;
};
int writeback_new(const struct writeback_options *options, struct writeback **ret_writeback);
/* Breaks off what runs; it stays in the journal with the rest. */
void writeback_free(struct writeback *writeback);

bool writeback_is_stored(struct writeback *writeback, uint64_t ino, uint64_t seq);
/* Waits until the version is in the store. 0; -EIO after `timeout_ns` without any progress of this file (or, while it
 * is not its turn, of others) or for a permanent kind of failure; -EINTR. */
int writeback_wait(struct writeback *writeback, uint64_t ino, uint64_t seq, int64_t timeout_ns,
		   const struct waiter *waiter);
/* Until no job is left: 0. -ETIMEDOUT: no job came further for timeout_ns, or `cancelled` (may be NULL) was set. -EIO:
 * what is left was refused by the store for good, as far as one can tell. */
int writeback_drain(struct writeback *writeback, int64_t timeout_ns, const atomic_bool *cancelled);
/* Is there anything left that may succeed without anybody's help? *ret_moved: changes when it comes further. */
bool writeback_uploading(struct writeback *writeback, uint64_t *ret_moved);
/* Forget backoffs: try now. */
void writeback_hurry(struct writeback *writeback);
/* A new job may be there. */
void writeback_wake(struct writeback *writeback);
/* Names changed: keys computed for the waiting jobs of this inode (0: of all, a directory moved) are void. */
void writeback_renamed(struct writeback *writeback, uint64_t ino);

struct writeback_figures {
	uint64_t jobs, running, failed, done, conflicts;
	uint64_t bytes; /* of uploads waiting */
	char last_error[256];
};
void writeback_figures(struct writeback *writeback, struct writeback_figures *ret_figures);
/* struct ship_options */
uint64_t writeback_facts_put(void *writeback);

/* Why the newest upload of this file does not succeed: "" when it is not failing. */
void writeback_error_of(struct writeback *writeback, uint64_t ino, char ret_text[static 256]);

#endif
