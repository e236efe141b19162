/*
 * kv_log.h - the redo log in front of the folded store: numbered, checksummed
 * records in a row of append-only files.
 *
 *  - kvlog_append is called by one thread at a time (the owner's writer lock). All else is thread-safe.
 *  - A record is whole or it is not there: a short write is taken back, a torn tail dropped when the log is opened.
 *  - Record n+1 follows record n; there are no gaps between the first one kept and the newest.
 *  - A file is deleted once its records are folded and released, or folded and the log longer than keep_size.
 *
 * File `redo-<number of its first record, 16 hex digits>.log`, integers big-endian:
 *     header   magic "varveRDO", u32 format version, u64 first number, u32 CRC-32C of the 20 bytes before
 *     record   u32 CRC-32C of all that follows in the record, u32 payload length, u64 number, payload
 *     payload  mutations: u8 1 (put), u16 key length, key, u32 value length, value; or u8 2 (delete), u16, key
 */
#ifndef VARVE_CATALOG_KV_LOG_H
#define VARVE_CATALOG_KV_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "catalog/kv.h"

#define KVLOG_PAYLOAD_MAX ((size_t)256 << 20)

struct kvlog;

struct kvlog_options {
	int dir_fd;               /* borrowed: outlives the log */
	uint64_t segment_size;    /* a new file is begun at this size */
	uint64_t keep_size;       /* of all files together when nobody releases them; 0: 1 GiB */
	uint64_t folded;          /* records up to this number need no replay */
	bool read_only;           /* nothing on disk is changed, torn tails included */
	kv_mutation_visit replay; /* gets every mutation of the records after `folded`; non-zero stops the opening */
	void *arg;
};

/* -EBADMSG: a record that must be there is missing or damaged (not: a torn tail, which is dropped). */
int kvlog_open(const struct kvlog_options *options, struct kvlog **ret_log);
void kvlog_close(struct kvlog *log); /* does not sync */

/* A record is built in a buf of the caller's, which may be used again. */
void kvlog_record_begin(struct buf *record);
void kvlog_record_add(struct buf *record, struct kv_bytes key, const struct kv_bytes *value /* NULL: deleted */);
/* Gives the record the next number and writes it with one write. -ENOSPC, -E2BIG, -ENOMEM (the buf failed): nothing
 * happened. -EIO: and never will again, a sync failed. */
int kvlog_append(struct kvlog *log, struct buf *record);

uint64_t kvlog_number(struct kvlog *log); /* of the newest record */
/* As kv_sync. */
int kvlog_sync(struct kvlog *log);
/* As kv_log_each and kv_log_release. */
int kvlog_each(struct kvlog *log, uint64_t after, uint64_t upto, kv_mutation_visit visit, void *arg);
void kvlog_release(struct kvlog *log, uint64_t upto);
/* Records up to here are durable elsewhere. */
void kvlog_folded(struct kvlog *log, uint64_t upto);

void kvlog_figures(struct kvlog *log, uint64_t *ret_bytes, uint64_t *ret_syncs);

#endif
