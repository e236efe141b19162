/*
 * kv.h - an ordered, transactional key-value store: the narrow interface
 * under the catalog. kv_lmdb.c is the embedded engine; a distributed one can
 * stand here later, so nothing of LMDB shows.
 *
 *  - Keys are 1..KV_KEY_MAX bytes, ordered as unsigned bytes. Values are 0..16 MiB.
 *  - Work runs in closures. A view sees one consistent state; an update sees its
 *    own writes, is atomic, and all updates are serialised. A closure may be run
 *    again from the start (conflict on a distributed engine): it has no side
 *    effects but through its transaction and its outputs.
 *  - Pointers got from a transaction die with the next call on it and at its end.
 *  - No closure may wait for the network, a lock ranked below LOCK_CATALOG, or a reply.
 *  - An update that returned 0 is in the redo log: it survives kill -9. It survives
 *    power loss once kv_sync returned after it.
 *  - Each update that changes anything has a number, one more than the last.
 *
 * Thread-safe, all of it but one struct kv_txn.
 */
#ifndef VARVE_CATALOG_KV_H
#define VARVE_CATALOG_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_KEY_MAX 480

struct kv;
struct kv_txn;

struct kv_bytes {
	const void *data;
	size_t len;
};

struct kv_options {
	uint64_t log_segment_size; /* 0: 16 MiB; a new redo log file is begun at this size */
	int64_t fold_interval_ns;  /* 0: 250 ms */
	bool read_only;            /* no log, no folder: views only */
};

/* Opens or creates in `dir` (0700), locks it against a second process (-EBUSY),
 * recovers: replays whole records newer than the last fold, drops a torn tail. */
int kv_open(const char *dir, const struct kv_options *options, struct kv **ret_kv);
/* Folds everything, syncs, closes. */
void kv_close(struct kv *kv);

typedef int (*kv_closure)(struct kv_txn *txn, void *arg);
/* What the closure returned, or -errno of the engine. */
int kv_view(struct kv *kv, kv_closure closure, void *arg);
/* Non-zero from the closure: nothing happened. -ENOSPC: the log could not grow, nothing happened. */
int kv_update(struct kv *kv, kv_closure closure, void *arg);

/* 0, -ENOENT. */
int kv_get(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes *ret_value);
int kv_put(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes value);
int kv_delete(struct kv_txn *txn, struct kv_bytes key); /* a missing key is success */

/* Visits from <= key < to in order (or from the greatest down, when backward), at most `max` (0: no bound).
 * Non-zero from visit stops the scan and is returned. visit must not write through txn. */
typedef int (*kv_visit)(void *arg, struct kv_bytes key, struct kv_bytes value);
enum kv_direction { KV_FORWARD, KV_BACKWARD };
int kv_scan(struct kv_txn *txn, struct kv_bytes from, struct kv_bytes to, enum kv_direction direction, size_t max,
	    kv_visit visit, void *arg);

/* Number of the newest update done. */
uint64_t kv_number(struct kv *kv);
/* Returns when every update up to now is on the platter: one fdatasync shared by all who wait. 0 or -errno, and then
 * for good: after a failed sync nothing is promised any more. */
int kv_sync(struct kv *kv);

/*
 * The mutations of updates (after, upto] as they were logged, in order: for
 * log shipping. Redo log files are kept until kv_log_release says up to where
 * they are no longer needed. -ESTALE when `after` is older than what is kept.
 */
typedef int (*kv_mutation_visit)(void *arg, uint64_t number, struct kv_bytes key,
				 const struct kv_bytes *value /* NULL: deleted */);
int kv_log_each(struct kv *kv, uint64_t after, uint64_t upto, kv_mutation_visit visit, void *arg);
void kv_log_release(struct kv *kv, uint64_t upto);

struct kv_figures {
	uint64_t updates, folds, log_bytes, map_bytes, memtable_bytes, syncs;
};
void kv_figures(struct kv *kv, struct kv_figures *ret_figures);

#endif
