/*
 * kv_lmdb.c - kv.h on LMDB: a redo log and ordered memtables in front of a
 * folded B+tree.
 *
 * An update collects its mutations in a private overlay, appends them to the
 * redo log as one numbered record, enters them into the active memtable under
 * that number and publishes the number. A few times a second the folder makes
 * the active table the folding one, puts a fresh one in its place, and writes
 * the folding table to LMDB in one durable transaction, which also notes the
 * last number it holds.
 *
 * Invariants
 *  - The state is overlay > active > folding > LMDB: for each key the first that knows it is right. A tombstone is
 *    knowledge.
 *  - A transaction takes its tables, its number and its LMDB snapshot in one critical section of `state`, so they fit:
 *    LMDB may already hold what the folding table says (the same values), but never anything newer than both tables,
 *    and folding is dropped only after its commit.
 *  - Tables only grow, entries carry numbers: readers never wait for writers nor the other way round. A table lives
 *    until the last transaction that took it has ended.
 *  - Only the folder writes LMDB (and kv_open, before it runs). LMDB's map is replaced only while no transaction is
 *    inside: `growing` keeps new ones out, `inside` counts those that are in.
 *  - Memory is bounded: the active table is exchanged when it reaches TABLE_MAX, and while the folding one is not done
 *    either, updates wait for the folder; when it fails for want of space they fail as it does.
 *  - LMDB runs with full sync, without WRITEMAP: a full disk is an error, not a SIGBUS, and power loss tears nothing.
 *
 * Threads and locks: any thread may call; `writer` (LOCK_CATALOG) is held by the one update that runs, `state`
 * (LOCK_LEAF) for moments only. The tables are exchanged under `state` and never while an update is inside; the folder,
 * if it finds one, leaves a fresh table for it to exchange at its end, and so cannot be starved by a busy writer. The
 * folder thread runs folder_main.
 *
 * Directory: LOCK (flock), data.mdb and lock.mdb (LMDB: tables "data" and "meta"), redo-*.log (kv_log.h).
 */
#include "catalog/kv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "buf.h"
#include "catalog/kv_log.h"
#include "catalog/memtable.h"
#include "clock.h"
#include "lock.h"
#include "log.h"

#define MODULE "kv"
#define FORMAT_VERSION 1
#define VALUE_MAX ((size_t)16 << 20)
#define BOUND_MAX 511               /* LMDB's longest key: bounds of scans may be longer than keys, but not than this */
#define TABLE_MAX ((size_t)8 << 20) /* a skip list larger than the processor cache is slow */
#define MAP_MIN ((size_t)64 << 20)
#define READERS_MAX 510
#define SEGMENT_SIZE_DEFAULT ((uint64_t)16 << 20)
#define FOLD_INTERVAL_DEFAULT (250 * NS_PER_MS)
#define FOLD_RETRY (1 * NS_PER_SEC)

/* A memtable and those who use it: kv itself, and every transaction that took it. */
struct generation {
	struct memtable *table;
	size_t bytes;  /* state */
	unsigned refs; /* state */
	uint64_t last; /* number of its newest entries; set when it becomes the folding one */
};

/* An LMDB read transaction, reset and renewed rather than made anew: that is most of its cost. */
struct reader {
	struct reader *next; /* state: in the pool of idle ones */
	MDB_txn *txn;
	MDB_cursor *cursor; /* NULL: not made yet */
	bool cursor_taken;
};

struct kv_txn {
	struct kv *kv;
	struct reader *reader;
	struct generation *active, *folding; /* folding may be NULL */
	uint64_t number;                     /* sees updates up to this one */
	struct memtable *overlay;            /* own writes; NULL in a view */
	unsigned scanning;
	const struct kv *outer; /* the kv this thread was in before */
};

struct kv {
	int dir_fd, lock_fd;
	bool read_only;
	int64_t fold_interval_ns;
	MDB_env *env;
	MDB_dbi data, meta;
	struct kvlog *log;
	pthread_t folder;
	bool folder_runs; /* kv_open's and kv_close's own */

	struct lock writer;
	struct memtable *overlay; /* writer */
	struct buf record;        /* writer */

	struct lock state;
	pthread_cond_t folder_cond; /* something to fold, or stop */
	pthread_cond_t change_cond; /* folding done or failed, nobody inside, growing over, a reader idle */
	/* All below: state. While `updating`, `active` and `number` belong to the update. */
	struct generation *active, *folding;
	struct generation *fresh; /* to become the active one when the update ends; else NULL */
	bool updating;
	uint64_t number;
	int64_t fold_due; /* monotonic; 0: active is empty */
	int fold_error;   /* of the last attempt; 0 once one succeeded */
	bool failed;      /* LMDB failed in a way that will not pass: no more updates */
	bool stop, growing;
	unsigned inside, readers;
	struct reader *idle;
	uint64_t updates, folds;
};

/* Transactions of one store do not nest: a view inside a view could wait for a growing map that waits for the outer. */
static _Thread_local const struct kv *inside_of;

static int from_lmdb(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
	case EDQUOT:
	case EFBIG:
		return -ENOSPC;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
		return -EBADMSG;
	case MDB_VERSION_MISMATCH:
		return -EPROTO;
	case MDB_READERS_FULL:
		return -EAGAIN;
	case MDB_PANIC:
		return -ENOTRECOVERABLE;
	default:
		return rc > 0 ? -rc : -EIO;
	}
}

static MDB_val to_val(struct kv_bytes bytes)
{
	return (MDB_val){.mv_size = bytes.len, .mv_data = (void *)bytes.data};
}

static struct kv_bytes from_val(MDB_val val)
{
	return (struct kv_bytes){.data = val.mv_data, .len = val.mv_size};
}

static uint64_t decode_u64(MDB_val val)
{
	struct cursor cursor = cursor_of(val.mv_data, val.mv_size);

	return cursor_u64(&cursor);
}

static MDB_val meta_key(const char *name)
{
	return (MDB_val){.mv_size = strlen(name), .mv_data = (void *)name};
}

/* --- generations and readers --------------------------------------------------------------------------- */

static struct generation *generation_new(void)
{
	struct generation *generation = calloc(1, sizeof(*generation));

	if (!generation)
		return NULL;
	generation->table = memtable_new();
	generation->refs = 1;
	if (!generation->table) {
		free(generation);
		return NULL;
	}
	return generation;
}

static void generation_free(struct generation *generation)
{
	if (generation) {
		memtable_free(generation->table);
		free(generation);
	}
}

/* State held. Returns it when it was the last use: to be freed once the lock is gone. */
static struct generation *generation_drop(struct generation *generation)
{
	return generation && --generation->refs == 0 ? generation : NULL;
}

static void reader_free(struct reader *reader)
{
	if (reader->cursor)
		mdb_cursor_close(reader->cursor);
	mdb_txn_abort(reader->txn);
	free(reader);
}

/* State held, and an idle reader or room for one more. */
static int reader_take(struct kv *kv, struct reader **ret_reader)
{
	struct reader *reader = kv->idle;
	int rc;

	if (reader) {
		rc = mdb_txn_renew(reader->txn);
		if (rc)
			return from_lmdb(rc);
		kv->idle = reader->next;
		*ret_reader = reader;
		return 0;
	}
	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &reader->txn);
	if (rc) {
		free(reader);
		return from_lmdb(rc);
	}
	kv->readers++;
	*ret_reader = reader;
	return 0;
}

/* --- transactions ------------------------------------------------------------------------------------------ */

/* State held, no update inside, nothing folding: what was active is to be folded. */
static void exchange(struct kv *kv, struct generation *fresh)
{
	assert(!kv->folding && !kv->updating);
	kv->active->last = kv->number;
	kv->folding = kv->active;
	kv->active = fresh;
	kv->fold_due = 0;
	pthread_cond_signal(&kv->folder_cond);
}

static bool must_wait(const struct kv *kv)
{
	return kv->growing || (!kv->idle && kv->readers >= READERS_MAX);
}

static int txn_begin(struct kv *kv, struct memtable *overlay, struct kv_txn *ret_txn)
{
	struct reader *reader = NULL;
	int rc;

	assert(inside_of != kv);
	LOCK_GUARD(&kv->state);
	while (must_wait(kv))
		(void)lock_wait(&kv->state, &kv->change_cond, 0); /* no deadline: transactions are short */
	rc = reader_take(kv, &reader);
	if (rc)
		return rc;
	kv->inside++;
	kv->updating |= overlay != NULL;
	kv->active->refs++;
	if (kv->folding)
		kv->folding->refs++;
	*ret_txn = (struct kv_txn){
		.kv = kv,
		.reader = reader,
		.active = kv->active,
		.folding = kv->folding,
		.number = kv->number,
		.overlay = overlay,
		.outer = inside_of,
	};
	inside_of = kv;
	return 0;
}

static void txn_end(struct kv_txn *txn)
{
	struct kv *kv = txn->kv;
	struct generation *active, *folding;
	bool wake;

	assert(!txn->scanning && inside_of == kv);
	inside_of = txn->outer;
	mdb_txn_reset(txn->reader->txn);
	lock_acquire(&kv->state);
	wake = (kv->growing && kv->inside == 1) || (!kv->idle && kv->readers >= READERS_MAX);
	txn->reader->next = kv->idle;
	kv->idle = txn->reader;
	kv->inside--;
	if (txn->overlay) {
		kv->updating = false;
		if (kv->fresh)
			exchange(kv, kv->fresh);
		kv->fresh = NULL;
	}
	active = generation_drop(txn->active);
	folding = generation_drop(txn->folding);
	if (wake)
		pthread_cond_broadcast(&kv->change_cond);
	lock_release(&kv->state);
	generation_free(active);
	generation_free(folding);
}

int kv_view(struct kv *kv, kv_closure closure, void *arg)
{
	struct kv_txn txn;
	int rc = txn_begin(kv, NULL, &txn);

	if (rc)
		return rc;
	rc = closure(&txn, arg);
	txn_end(&txn);
	return rc;
}

static bool key_fits(struct kv_bytes key)
{
	return key.len > 0 && key.len <= KV_KEY_MAX;
}

int kv_get(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes *ret_value)
{
	struct memtable_entry entry;
	MDB_val name = to_val(key), value;
	int rc;

	if (!key_fits(key))
		return -EINVAL;
	if ((txn->overlay && memtable_get(txn->overlay, MEMTABLE_NEWEST, key, &entry)) ||
	    memtable_get(txn->active->table, txn->number, key, &entry) ||
	    (txn->folding && memtable_get(txn->folding->table, txn->number, key, &entry))) {
		if (entry.deleted)
			return -ENOENT;
		*ret_value = entry.value;
		return 0;
	}
	rc = mdb_get(txn->reader->txn, txn->kv->data, &name, &value);
	if (rc)
		return from_lmdb(rc);
	*ret_value = from_val(value);
	return 0;
}

static int overlay_put(struct kv_txn *txn, struct kv_bytes key, const struct kv_bytes *value)
{
	size_t len = value ? value->len : 0;

	assert(!txn->scanning);
	if (!txn->overlay)
		return -EROFS;
	if (!key_fits(key) || len > VALUE_MAX)
		return -EINVAL;
	if (memtable_reserve(txn->overlay, 1, key.len + len))
		return -ENOMEM;
	memtable_put(txn->overlay, 0, key, value);
	return 0;
}

int kv_put(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes value)
{
	return overlay_put(txn, key, &value);
}

int kv_delete(struct kv_txn *txn, struct kv_bytes key)
{
	return overlay_put(txn, key, NULL);
}

/* --- scans -------------------------------------------------------------------------------------------------- */

/* One of the layers a scan merges, standing on its next entry. */
struct source {
	struct memtable_iter iter; /* a table; iter.entry is the entry for both kinds */
	MDB_cursor *cursor;        /* LMDB; else NULL */
	bool valid;
};

struct merge {
	struct source sources[4]; /* newest layer first */
	size_t count;
	enum kv_direction direction;
};

static int source_landed(struct source *source, int rc, MDB_val key, MDB_val value)
{
	source->valid = rc == 0;
	if (rc == 0)
		source->iter.entry = (struct memtable_entry){.key = from_val(key), .value = from_val(value)};
	return rc == MDB_NOTFOUND ? 0 : from_lmdb(rc);
}

static int cursor_seek(struct source *source, struct kv_bytes from, struct kv_bytes to, enum kv_direction direction)
{
	MDB_val key = to_val(direction == KV_FORWARD ? from : to), value = {0};
	int rc;

	if (direction == KV_FORWARD) {
		rc = mdb_cursor_get(source->cursor, &key, &value, from.len ? MDB_SET_RANGE : MDB_FIRST);
	} else {
		rc = mdb_cursor_get(source->cursor, &key, &value, MDB_SET_RANGE);
		if (rc == MDB_SUCCESS || rc == MDB_NOTFOUND)
			rc = mdb_cursor_get(source->cursor, &key, &value, rc ? MDB_LAST : MDB_PREV);
	}
	return source_landed(source, rc, key, value);
}

static int source_step(struct source *source, enum kv_direction direction)
{
	MDB_val key, value;
	int rc;

	if (source->cursor) {
		rc = mdb_cursor_get(source->cursor, &key, &value, direction == KV_FORWARD ? MDB_NEXT : MDB_PREV);
		return source_landed(source, rc, key, value);
	}
	if (direction == KV_FORWARD)
		memtable_next(&source->iter);
	else
		memtable_prev(&source->iter);
	source->valid = source->iter.node != NULL;
	return 0;
}

static void merge_add_table(struct merge *merge, const struct memtable *table, uint64_t number)
{
	if (table && memtable_count(table))
		merge->sources[merge->count++] = (struct source){.iter = {.table = table, .number = number}};
}

static int merge_seek(struct merge *merge, struct kv_bytes from, struct kv_bytes to)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < merge->count; i++) {
		struct source *source = &merge->sources[i];

		if (source->cursor) {
			rc = cursor_seek(source, from, to, merge->direction);
			continue;
		}
		if (merge->direction == KV_FORWARD)
			memtable_seek(&source->iter, from);
		else
			memtable_seek_below(&source->iter, to);
		source->valid = source->iter.node != NULL;
	}
	return rc;
}

/* The next entry of all layers; of equal keys the newest layer's. All that stood on its key step on. -ENOENT: none. */
static int merge_next(struct merge *merge, struct memtable_entry *ret_entry)
{
	struct memtable_entry best;
	size_t at = merge->count;
	int rc = 0;

	for (size_t i = 0; i < merge->count; i++) {
		const struct source *source = &merge->sources[i];
		int order;

		if (!source->valid)
			continue;
		order = at == merge->count ? -1 : kv_compare(source->iter.entry.key, best.key);
		if (order && (at == merge->count || (order < 0) == (merge->direction == KV_FORWARD))) {
			best = source->iter.entry;
			at = i;
		}
	}
	if (at == merge->count)
		return -ENOENT;
	for (size_t i = at; !rc && i < merge->count; i++) {
		struct source *source = &merge->sources[i];

		if (i == at || (source->valid && kv_compare(source->iter.entry.key, best.key) == 0))
			rc = source_step(source, merge->direction);
	}
	*ret_entry = best;
	return rc;
}

static int take_cursor(struct kv_txn *txn, MDB_cursor **ret_cursor)
{
	struct reader *reader = txn->reader;
	int rc;

	if (reader->cursor_taken) /* a scan inside a scan */
		return from_lmdb(mdb_cursor_open(reader->txn, txn->kv->data, ret_cursor));
	if (reader->cursor)
		rc = mdb_cursor_renew(reader->txn, reader->cursor);
	else
		rc = mdb_cursor_open(reader->txn, txn->kv->data, &reader->cursor);
	if (rc)
		return from_lmdb(rc);
	reader->cursor_taken = true;
	*ret_cursor = reader->cursor;
	return 0;
}

static void give_cursor(struct kv_txn *txn, MDB_cursor *cursor)
{
	if (cursor == txn->reader->cursor)
		txn->reader->cursor_taken = false;
	else
		mdb_cursor_close(cursor);
}

int kv_scan(struct kv_txn *txn, struct kv_bytes from, struct kv_bytes to, enum kv_direction direction, size_t max,
	    kv_visit visit, void *arg)
{
	struct merge merge = {.direction = direction};
	struct memtable_entry entry;
	MDB_cursor *cursor;
	size_t visited = 0;
	int rc;

	if (from.len > BOUND_MAX || to.len > BOUND_MAX)
		return -EINVAL;
	if (kv_compare(from, to) >= 0)
		return 0;
	rc = take_cursor(txn, &cursor);
	if (rc)
		return rc;
	merge_add_table(&merge, txn->overlay, MEMTABLE_NEWEST);
	merge_add_table(&merge, txn->active->table, txn->number);
	merge_add_table(&merge, txn->folding ? txn->folding->table : NULL, txn->number);
	merge.sources[merge.count++] = (struct source){.cursor = cursor};
	txn->scanning++;
	rc = merge_seek(&merge, from, to);
	while (!rc && (!max || visited < max)) {
		rc = merge_next(&merge, &entry);
		if (rc == -ENOENT || (!rc && direction == KV_FORWARD && kv_compare(entry.key, to) >= 0) ||
		    (!rc && direction == KV_BACKWARD && kv_compare(entry.key, from) < 0)) {
			rc = 0;
			break;
		}
		if (rc || entry.deleted)
			continue;
		visited++;
		rc = visit(arg, entry.key, entry.value);
	}
	txn->scanning--;
	give_cursor(txn, cursor);
	return rc;
}

/* --- updates ------------------------------------------------------------------------------------------------- */

/* Writer held. Waits for the folder when both tables are full. */
static int make_room(struct kv *kv)
{
	struct generation *fresh;

	LOCK_GUARD(&kv->state);
	while (!kv->failed && kv->active->bytes >= TABLE_MAX && kv->folding) {
		if (kv->fold_error)
			return kv->fold_error;
		(void)lock_wait(&kv->state, &kv->change_cond, 0); /* no deadline: the folder ends or fails */
	}
	if (kv->failed)
		return -EIO;
	if (kv->active->bytes < TABLE_MAX)
		return 0;
	fresh = generation_new();
	if (!fresh)
		return -ENOMEM;
	exchange(kv, fresh);
	return 0;
}

static void publish(struct kv *kv, uint64_t number)
{
	LOCK_GUARD(&kv->state);
	kv->active->bytes = memtable_bytes(kv->active->table);
	kv->number = number;
	kv->updates++;
	if (!kv->fold_due) {
		kv->fold_due = clock_monotonic() + kv->fold_interval_ns;
		pthread_cond_signal(&kv->folder_cond);
	}
}

/* Makes the overlay's mutations the next update. `writer` keeps kv->active and kv->number as they are. */
static int commit(struct kv *kv)
{
	struct memtable *table = kv->active->table;
	struct memtable_iter iter = {.table = kv->overlay, .number = MEMTABLE_NEWEST};
	size_t bytes = 0;
	int rc;

	kvlog_record_begin(&kv->record);
	for (memtable_first(&iter); iter.node; memtable_next(&iter)) {
		kvlog_record_add(&kv->record, iter.entry.key, iter.entry.deleted ? NULL : &iter.entry.value);
		bytes += iter.entry.key.len + iter.entry.value.len;
	}
	if (memtable_reserve(table, memtable_count(kv->overlay), bytes))
		return -ENOMEM;
	rc = kvlog_append(kv->log, &kv->record);
	if (rc)
		return rc;
	/* Nothing can fail from here on: the log has it. Nobody sees it yet: their number is below. */
	for (memtable_first(&iter); iter.node; memtable_next(&iter))
		memtable_put(table, kv->number + 1, iter.entry.key, iter.entry.deleted ? NULL : &iter.entry.value);
	publish(kv, kv->number + 1);
	return 0;
}

int kv_update(struct kv *kv, kv_closure closure, void *arg)
{
	struct kv_txn txn;
	int rc;

	if (kv->read_only)
		return -EROFS;
	LOCK_GUARD(&kv->writer);
	rc = make_room(kv);
	if (!rc)
		rc = txn_begin(kv, kv->overlay, &txn);
	if (rc)
		return rc;
	rc = closure(&txn, arg);
	if (!rc && memtable_count(kv->overlay))
		rc = commit(kv);
	txn_end(&txn);
	memtable_reset(kv->overlay);
	return rc;
}

/* --- folding -------------------------------------------------------------------------------------------------- */

static int fold_entries(struct kv *kv, MDB_txn *txn, const struct generation *generation)
{
	struct memtable_iter iter = {.table = generation->table, .number = generation->last};
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, kv->data, &cursor);

	if (rc)
		return rc;
	/* In key order and with one cursor: LMDB then looks at the leaf it is on before it descends anew. */
	for (memtable_first(&iter); !rc && iter.node; memtable_next(&iter)) {
		MDB_val key = to_val(iter.entry.key), value = to_val(iter.entry.value);

		if (!iter.entry.deleted) {
			rc = mdb_cursor_put(cursor, &key, &value, 0);
			continue;
		}
		rc = mdb_cursor_get(cursor, &key, &value, MDB_SET);
		if (!rc)
			rc = mdb_cursor_del(cursor, 0);
		else if (rc == MDB_NOTFOUND)
			rc = 0;
	}
	mdb_cursor_close(cursor);
	return rc;
}

static int put_meta_u64(struct kv *kv, MDB_txn *txn, const char *name, uint64_t number)
{
	AUTO_BUF bytes = BUF_INIT;
	MDB_val key = meta_key(name), value;

	buf_add_u64(&bytes, number);
	if (buf_failed(&bytes))
		return ENOMEM;
	value = (MDB_val){.mv_size = bytes.len, .mv_data = bytes.data};
	return mdb_put(txn, kv->meta, &key, &value, 0);
}

static int fold_generation(struct kv *kv, const struct generation *generation)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(kv->env, NULL, 0, &txn);

	if (rc)
		return rc;
	rc = fold_entries(kv, txn, generation);
	if (!rc)
		rc = put_meta_u64(kv, txn, "folded", generation->last);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc;
}

/* Doubles LMDB's map. */
static int grow_map(struct kv *kv)
{
	MDB_envinfo info;
	int rc;

	LOCK_GUARD(&kv->state);
	kv->growing = true;
	while (kv->inside)
		(void)lock_wait(&kv->state, &kv->change_cond, 0); /* no deadline: transactions are short */
	rc = mdb_env_info(kv->env, &info);
	if (!rc)
		rc = info.me_mapsize > SIZE_MAX / 4 ? ENOSPC : mdb_env_set_mapsize(kv->env, info.me_mapsize * 2);
	kv->growing = false;
	pthread_cond_broadcast(&kv->change_cond);
	return rc;
}

/* Makes the active table the folding one, unless there is one or the active one is empty. */
static int begin_fold(struct kv *kv)
{
	struct generation *fresh = generation_new();

	if (!fresh)
		return -ENOMEM;
	lock_acquire(&kv->state);
	if (!kv->folding && memtable_count(kv->active->table)) {
		if (kv->updating) {
			kv->fresh = fresh;
			while (kv->fresh)
				(void)lock_wait(&kv->state, &kv->folder_cond, 0); /* no deadline: updates are short */
		} else {
			exchange(kv, fresh);
		}
		fresh = NULL;
	}
	lock_release(&kv->state);
	generation_free(fresh);
	return 0;
}

/* What may pass by itself. An I/O error is among it: LMDB never writes over pages in use, so a transaction that failed
 * has harmed nothing and the next attempt writes all its pages anew; when a meta page was hit LMDB says panic. After
 * anything else the redo log, which has it all, is replayed by the next open. */
static bool may_pass(int rc)
{
	return rc == -ENOSPC || rc == -ENOMEM || rc == -EIO;
}

/* LMDB says EIO for a short write, which is how most disks tell that they are full. */
static int tell_full_disk(const struct kv *kv, int rc)
{
	struct statvfs st;

	if (rc == -EIO && fstatvfs(kv->dir_fd, &st) == 0 && st.f_bavail < 64)
		return -ENOSPC;
	return rc;
}

static void end_fold(struct kv *kv, int rc)
{
	struct generation *done = NULL;
	uint64_t last = 0;
	int before;

	lock_acquire(&kv->state);
	before = kv->fold_error;
	kv->fold_error = rc;
	if (rc) {
		kv->failed = !may_pass(rc);
	} else {
		last = kv->folding->last;
		kv->folds++;
		done = generation_drop(kv->folding);
		kv->folding = NULL;
	}
	pthread_cond_broadcast(&kv->change_cond);
	lock_release(&kv->state);
	generation_free(done);
	if (!rc)
		kvlog_folded(kv->log, last);
	else if (rc != before)
		log_error(MODULE, "the catalog's log could not be folded: %s", strerror(-rc));
}

/* LMDB's return code. */
static int fold_with_room(struct kv *kv, const struct generation *generation)
{
	int rc = fold_generation(kv, generation);

	while (rc == MDB_MAP_FULL) {
		rc = grow_map(kv);
		if (!rc)
			rc = fold_generation(kv, generation);
	}
	return rc;
}

/* Folds one table. The folder only, or kv_open before there is one. 0, also when there was nothing; -errno. */
static int fold(struct kv *kv)
{
	const struct generation *generation;
	int rc = begin_fold(kv);

	lock_acquire(&kv->state);
	generation = kv->folding; /* stays: only this thread drops it */
	lock_release(&kv->state);
	if (!rc && !generation)
		return 0;
	if (!rc)
		rc = tell_full_disk(kv, from_lmdb(fold_with_room(kv, generation)));
	end_fold(kv, rc);
	return rc;
}

/* State held. 0: nothing to wait for, fold now. Else when to look again; INT64_MAX: when woken. */
static int64_t fold_at(const struct kv *kv, int64_t retry_at)
{
	int64_t at = kv->folding ? 0 : kv->fold_due ? kv->fold_due : INT64_MAX;

	if (kv->failed)
		return INT64_MAX;
	if (kv->fold_error && at < retry_at)
		at = retry_at;
	return at > clock_monotonic() ? at : 0;
}

static bool fold_wanted(struct kv *kv)
{
	LOCK_GUARD(&kv->state);
	return !kv->failed && (kv->folding || memtable_count(kv->active->table));
}

static void *folder_main(void *arg)
{
	struct kv *kv = arg;
	int64_t retry_at = 0;

	lock_acquire(&kv->state);
	while (!kv->stop) {
		int64_t at = fold_at(kv, retry_at);

		if (at) {
			(void)lock_wait(&kv->state, &kv->folder_cond, at == INT64_MAX ? 0 : at);
			continue;
		}
		lock_release(&kv->state);
		if (fold(kv))
			retry_at = clock_monotonic() + FOLD_RETRY;
		lock_acquire(&kv->state);
	}
	lock_release(&kv->state);
	while (fold_wanted(kv)) {
		if (fold(kv))
			break; /* logged; the next open replays it */
	}
	return NULL;
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static int replay_mutation(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	struct kv *kv = arg;
	int rc = memtable_reserve(kv->active->table, 1, key.len + (value ? value->len : 0));

	if (!rc)
		memtable_put(kv->active->table, number, key, value);
	return rc;
}

static int open_dir(struct kv *kv, const char *dir)
{
	bool made = false;
	int parent;

	if (!kv->read_only) {
		made = mkdir(dir, 0700) == 0;
		if (!made && errno != EEXIST)
			return -errno;
	}
	kv->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (kv->dir_fd < 0)
		return -errno;
	if (made) {
		parent = openat(kv->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (parent >= 0) {
			(void)fsync(parent); /* best effort: some filesystems cannot, and mkdir was journalled anyway */
			(void)close(parent); /* only read from */
		}
	}
	kv->lock_fd = openat(kv->dir_fd, "LOCK", (kv->read_only ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC, 0600);
	if (kv->lock_fd < 0)
		return -errno;
	if (flock(kv->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}

static int read_meta(struct kv *kv, MDB_txn *txn, uint64_t *ret_folded)
{
	MDB_val key = meta_key("format"), value;
	int rc = mdb_get(txn, kv->meta, &key, &value);

	if (rc == MDB_NOTFOUND && !kv->read_only) {
		rc = put_meta_u64(kv, txn, "format", FORMAT_VERSION);
		if (!rc)
			rc = put_meta_u64(kv, txn, "folded", 0);
		*ret_folded = 0;
		return rc;
	}
	if (rc)
		return rc;
	if (decode_u64(value) > FORMAT_VERSION)
		return MDB_VERSION_MISMATCH;
	key = meta_key("folded");
	rc = mdb_get(txn, kv->meta, &key, &value);
	if (!rc)
		*ret_folded = decode_u64(value);
	return rc;
}

static int open_tables(struct kv *kv, uint64_t *ret_folded)
{
	unsigned create = kv->read_only ? 0 : MDB_CREATE;
	MDB_txn *txn;
	int rc = mdb_txn_begin(kv->env, NULL, kv->read_only ? MDB_RDONLY : 0, &txn);

	if (rc)
		return rc;
	rc = mdb_dbi_open(txn, "data", create, &kv->data);
	if (!rc)
		rc = mdb_dbi_open(txn, "meta", create, &kv->meta);
	if (!rc)
		rc = read_meta(kv, txn, ret_folded);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc;
}

static int open_lmdb(struct kv *kv, const char *dir, uint64_t *ret_folded)
{
	int dead, rc = mdb_env_create(&kv->env);

	if (!rc)
		rc = mdb_env_set_maxdbs(kv->env, 2);
	if (!rc)
		rc = mdb_env_set_maxreaders(kv->env, READERS_MAX + 2);
	if (!rc)
		rc = mdb_env_set_mapsize(kv->env, MAP_MIN);
	if (!rc)
		rc = mdb_env_open(kv->env, dir, MDB_NOTLS | (kv->read_only ? MDB_RDONLY : 0), 0600);
	if (!rc)
		rc = mdb_reader_check(kv->env, &dead); /* slots of a killed process would pin old pages for ever */
	if (!rc)
		rc = open_tables(kv, ret_folded);
	return from_lmdb(rc);
}

static int start_folder(struct kv *kv)
{
	sigset_t all, before;
	int rc;

	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&kv->folder, NULL, folder_main, kv);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	kv->folder_runs = rc == 0;
	return -rc;
}

static int recover(struct kv *kv, const struct kv_options *options, uint64_t folded)
{
	struct kvlog_options log_options = {
		.dir_fd = kv->dir_fd,
		.segment_size = options->log_segment_size ? options->log_segment_size : SEGMENT_SIZE_DEFAULT,
		.folded = folded,
		.read_only = kv->read_only,
		.replay = replay_mutation,
		.arg = kv,
	};
	int rc = kvlog_open(&log_options, &kv->log);

	if (rc)
		return rc;
	kv->number = kvlog_number(kv->log);
	kv->active->bytes = memtable_bytes(kv->active->table);
	if (kv->read_only)
		return 0;
	if (memtable_count(kv->active->table)) {
		/* At once: the process before may have died of a failed sync, and then the log is only in memory. */
		kv->fold_due = clock_monotonic() + kv->fold_interval_ns;
		rc = fold(kv);
		if (rc && !may_pass(rc))
			return rc;
	}
	return start_folder(kv);
}

static struct kv *kv_new(const struct kv_options *options)
{
	struct kv *kv = calloc(1, sizeof(*kv));

	if (!kv)
		return NULL;
	kv->dir_fd = kv->lock_fd = -1;
	kv->read_only = options->read_only;
	kv->fold_interval_ns = options->fold_interval_ns ? options->fold_interval_ns : FOLD_INTERVAL_DEFAULT;
	buf_init(&kv->record);
	lock_init(&kv->writer, LOCK_CATALOG);
	lock_init(&kv->state, LOCK_LEAF);
	lock_cond_init(&kv->folder_cond);
	lock_cond_init(&kv->change_cond);
	kv->overlay = memtable_new();
	kv->active = generation_new();
	return kv;
}

int kv_open(const char *dir, const struct kv_options *options, struct kv **ret_kv)
{
	struct kv *kv = kv_new(options);
	uint64_t folded = 0;
	int rc;

	if (!kv)
		return -ENOMEM;
	rc = kv->overlay && kv->active ? 0 : -ENOMEM;
	if (!rc)
		rc = open_dir(kv, dir);
	if (!rc)
		rc = open_lmdb(kv, dir, &folded);
	if (!rc)
		rc = recover(kv, options, folded);
	if (rc) {
		kv_close(kv);
		return rc;
	}
	*ret_kv = kv;
	return 0;
}

static void stop_folder(struct kv *kv)
{
	int rc;

	lock_acquire(&kv->state);
	kv->stop = true;
	pthread_cond_signal(&kv->folder_cond);
	lock_release(&kv->state);
	pthread_join(kv->folder, NULL);
	rc = kvlog_sync(kv->log);
	if (rc)
		log_error(MODULE, "the redo log could not be synced at closing: %s", strerror(-rc));
}

void kv_close(struct kv *kv)
{
	if (!kv)
		return;
	assert(!kv->inside);
	if (kv->folder_runs)
		stop_folder(kv);
	while (kv->idle) {
		struct reader *reader = kv->idle;

		kv->idle = reader->next;
		reader_free(reader);
	}
	kvlog_close(kv->log);
	if (kv->env)
		mdb_env_close(kv->env);
	generation_free(kv->active);
	generation_free(kv->folding);
	memtable_free(kv->overlay);
	buf_free(&kv->record);
	if (kv->lock_fd >= 0)
		(void)close(kv->lock_fd); /* never written to; lets the next one in, so after all else */
	if (kv->dir_fd >= 0)
		(void)close(kv->dir_fd); /* only read from */
	pthread_cond_destroy(&kv->folder_cond);
	pthread_cond_destroy(&kv->change_cond);
	lock_destroy(&kv->writer);
	lock_destroy(&kv->state);
	free(kv);
}

/* --- the rest ------------------------------------------------------------------------------------------------------
 */

uint64_t kv_number(struct kv *kv)
{
	LOCK_GUARD(&kv->state);
	return kv->number;
}

int kv_sync(struct kv *kv)
{
	return kv->read_only ? 0 : kvlog_sync(kv->log);
}

int kv_log_each(struct kv *kv, uint64_t after, uint64_t upto, kv_mutation_visit visit, void *arg)
{
	return kvlog_each(kv->log, after, upto, visit, arg);
}

void kv_log_release(struct kv *kv, uint64_t upto)
{
	kvlog_release(kv->log, upto);
}

void kv_figures(struct kv *kv, struct kv_figures *ret_figures)
{
	struct kv_figures figures = {0};
	MDB_envinfo info;

	kvlog_figures(kv->log, &figures.log_bytes, &figures.syncs);
	LOCK_GUARD(&kv->state);
	figures.updates = kv->updates;
	figures.folds = kv->folds;
	figures.memtable_bytes = kv->active->bytes + (kv->folding ? kv->folding->bytes : 0);
	if (mdb_env_info(kv->env, &info) == 0) /* fails for a NULL argument only */
		figures.map_bytes = info.me_mapsize;
	*ret_figures = figures;
}
