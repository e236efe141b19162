/*
 * catalog.c - opening and closing, transactions, settings, and the leases of
 * sequence numbers, inode numbers and times.
 *
 * Invariants
 *  1. A number is handed out only below a lease that is in the store, or that
 *     the same update writes: after a crash counting goes on at the lease.
 *  2. cat_now never gives a time twice, nor an earlier one than before, also
 *     across restarts and clock steps.
 *  3. Callbacks (notify) run without any lock and after the update is done.
 *
 * Threads: any; kv serialises updates.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "clock.h"
#include "log.h"

#define SEQ_RANGE (1024 * CAT_SEQ_STRIDE)
#define INO_RANGE 1024
#define CLOCK_RANGE (100 * NS_PER_MS) /* a restart within this time may run so much ahead of the wall clock */
#define SETTING_NAME_MAX 255

/* --- transactions ------------------------------------------------------------------------------- */

struct frame {
	struct cat_txn txn;
	cat_closure closure;
	void *arg;
};

static int run_frame(struct kv_txn *kv, void *arg)
{
	struct frame *frame = arg;
	struct cat_txn *txn = &frame->txn;
	int rc;

	/* The engine may run a closure again: everything of the last attempt is forgotten. */
	*txn = (struct cat_txn){.catalog = txn->catalog, .kv = kv, .writing = txn->writing, .scratch = txn->scratch};
	rc = frame->closure(txn, frame->arg);
	return rc ? rc : txn->error;
}

int catalog_view(struct catalog *catalog, cat_closure closure, void *arg)
{
	struct frame frame = {.txn = {.catalog = catalog, .scratch = BUF_INIT}, .closure = closure, .arg = arg};
	int rc = kv_view(catalog->kv, run_frame, &frame);

	buf_free(&frame.txn.scratch);
	return rc;
}

static void raise_to(_Atomic uint64_t *number, uint64_t least)
{
	uint64_t now = atomic_load(number);

	while (now < least && !atomic_compare_exchange_weak(number, &now, least))
		;
}

static void notify_jobs(struct catalog *catalog)
{
	void (*notify)(void *arg);
	void *arg;

	{
		LOCK_GUARD(&catalog->notify_lock);
		notify = catalog->notify;
		arg = catalog->notify_arg;
	}
	if (notify)
		notify(arg);
}

int catalog_update(struct catalog *catalog, cat_closure closure, void *arg)
{
	struct frame frame = {
		.txn = {.catalog = catalog, .writing = true, .scratch = BUF_INIT}, .closure = closure, .arg = arg};
	struct cat_txn *txn = &frame.txn;
	int rc;

	if (catalog->read_only)
		return -EROFS;
	rc = kv_update(catalog->kv, run_frame, &frame);
	buf_free(&txn->scratch);
	if (rc)
		return rc;
	raise_to(&catalog->seq.leased, txn->seq_leased);
	raise_to(&catalog->ino.leased, txn->ino_leased);
	raise_to(&catalog->clock.leased, txn->clock_leased);
	atomic_fetch_add(&catalog->jobs, txn->jobs_added - txn->jobs_deleted);
	if (txn->jobs_added)
		notify_jobs(catalog);
	return 0;
}

void catalog_on_jobs(struct catalog *catalog, void (*notify)(void *arg), void *arg)
{
	LOCK_GUARD(&catalog->notify_lock);
	catalog->notify = notify;
	catalog->notify_arg = arg;
}

/* --- numbers and times -------------------------------------------------------------------------- */

/* Makes the store say that numbers below `limit` are taken. */
static void lease_write(struct cat_txn *txn, enum schema_meta which, uint64_t limit)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;
	int rc;

	schema_key_meta(&key, which);
	schema_encode_u64(limit, value);
	rc = cat_put(txn, &key, value);
	if (rc < 0 && !txn->error)
		txn->error = rc;
}

uint64_t cat_next_seq(struct cat_txn *txn)
{
	struct lease *lease = &txn->catalog->seq;
	uint64_t seq = atomic_fetch_add(&lease->next, CAT_SEQ_STRIDE);

	assert(txn->writing);
	if (seq >= atomic_load(&lease->leased) && seq >= txn->seq_leased) {
		txn->seq_leased = seq + SEQ_RANGE;
		lease_write(txn, SCHEMA_META_SEQ, txn->seq_leased);
	}
	return seq;
}

void cat_seq_above(struct cat_txn *txn, uint64_t seq)
{
	struct lease *lease = &txn->catalog->seq;
	uint64_t next;

	if (seq >= CAT_SEQ_MAX)
		return;
	next = (seq / CAT_SEQ_STRIDE + 1) * CAT_SEQ_STRIDE;
	raise_to(&lease->next, next);
	if (next > atomic_load(&lease->leased) && next > txn->seq_leased) {
		txn->seq_leased = next + SEQ_RANGE;
		lease_write(txn, SCHEMA_META_SEQ, txn->seq_leased);
	}
}

uint64_t cat_next_ino(struct cat_txn *txn)
{
	struct lease *lease = &txn->catalog->ino;
	uint64_t ino = atomic_fetch_add(&lease->next, 1);

	assert(txn->writing);
	if (ino >= atomic_load(&lease->leased) && ino >= txn->ino_leased) {
		txn->ino_leased = ino + INO_RANGE;
		lease_write(txn, SCHEMA_META_INO, txn->ino_leased);
	}
	return ino;
}

int64_t cat_now(struct cat_txn *txn)
{
	struct lease *lease = &txn->catalog->clock;
	uint64_t wall, now;

	if (txn->now)
		return txn->now;
	wall = (uint64_t)clock_wall();
	now = atomic_load(&lease->next);
	if (now < wall)
		now = wall;
	if (txn->writing) {
		raise_to(&lease->next, now + 1);
		if (now >= atomic_load(&lease->leased)) {
			txn->clock_leased = now + CLOCK_RANGE;
			lease_write(txn, SCHEMA_META_CLOCK, txn->clock_leased);
		}
	}
	txn->now = (int64_t)now;
	return txn->now;
}

/* --- rows --------------------------------------------------------------------------------------- */

struct buf *cat_scratch(struct cat_txn *txn)
{
	buf_reset(&txn->scratch);
	return &txn->scratch;
}

int cat_get(struct cat_txn *txn, const struct schema_key *key, struct kv_bytes *ret_value)
{
	return kv_get(txn->kv, schema_bytes(key), ret_value);
}

int cat_put(struct cat_txn *txn, const struct schema_key *key, const struct buf *value)
{
	if (buf_failed(value))
		return -ENOMEM;
	return kv_put(txn->kv, schema_bytes(key), (struct kv_bytes){.data = value->data, .len = value->len});
}

int cat_put_empty(struct cat_txn *txn, const struct schema_key *key)
{
	return kv_put(txn->kv, schema_bytes(key), (struct kv_bytes){.data = "", .len = 0});
}

int cat_delete(struct cat_txn *txn, const struct schema_key *key)
{
	return kv_delete(txn->kv, schema_bytes(key));
}

int cat_check_row(struct kv_bytes key, int rc)
{
	const uint8_t *bytes = key.data;
	char text[2 * 64 + 1];
	size_t len = key.len < 64 ? key.len : 64;

	if (rc == -EBADMSG) {
		hex_encode(bytes, len, text);
		log_error("catalog", "damaged %s record, key %s%s",
			  schema_tag_name(len > 4 ? (enum schema_tag)bytes[4] : (enum schema_tag)0), text,
			  len < key.len ? "…" : "");
	}
	return rc;
}

void rows_open(struct rows *rows, const struct schema_key *prefix, enum kv_direction direction)
{
	*rows = (struct rows){.from = *prefix, .direction = direction, .bytes = BUF_INIT};
	schema_key_after(&rows->to, prefix);
}

void rows_close(struct rows *rows)
{
	buf_free(&rows->bytes);
	free(rows->cells);
	rows->cells = NULL;
	rows->count = rows->cap = rows->at = 0;
}

static int rows_take(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct rows *rows = arg;
	struct row *row;

	if (ARRAY_ROOM(rows->cells, rows->cap, rows->count))
		return -ENOMEM;
	row = &rows->cells[rows->count++];
	*row = (struct row){
		.key = rows->bytes.len, .key_len = key.len, .value = rows->bytes.len + key.len, .value_len = value.len};
	buf_add(&rows->bytes, key.data, key.len);
	buf_add(&rows->bytes, value.data, value.len);
	return buf_failed(&rows->bytes) ? -ENOMEM : 0;
}

static int rows_fill(struct rows *rows, struct cat_txn *txn)
{
	size_t batch = rows->batch ? rows->batch : 512;
	const struct row *last;
	int rc;

	rows->count = rows->at = 0;
	buf_reset(&rows->bytes);
	rc = kv_scan(txn->kv, schema_bytes(&rows->from), schema_bytes(&rows->to), rows->direction, batch, rows_take,
		     rows);
	if (rc)
		return rc;
	rows->done = rows->count < batch;
	if (rows->done)
		return 0;
	last = &rows->cells[rows->count - 1];
	if (rows->direction == KV_BACKWARD) {
		rows->to.len = 0;
		schema_key_bytes(&rows->to, rows->bytes.data + last->key, last->key_len);
	} else {
		rows->from.len = 0;
		schema_key_bytes(&rows->from, rows->bytes.data + last->key, last->key_len);
		schema_key_u8(&rows->from, 0);
	}
	return 0;
}

int rows_next(struct rows *rows, struct cat_txn *txn, struct kv_bytes *ret_key, struct kv_bytes *ret_value)
{
	const struct row *row;
	int rc;

	if (rows->at == rows->count) {
		if (rows->done)
			return -ENOENT;
		rc = rows_fill(rows, txn);
		if (rc)
			return rc;
		if (rows->count == 0)
			return -ENOENT;
	}
	row = &rows->cells[rows->at++];
	*ret_key = (struct kv_bytes){.data = rows->bytes.data + row->key, .len = row->key_len};
	*ret_value = (struct kv_bytes){.data = rows->bytes.data + row->value, .len = row->value_len};
	return 0;
}

static int stop_at_first(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	(void)arg;
	(void)key;
	(void)value;
	return 1;
}

int cat_any(struct cat_txn *txn, const struct schema_key *prefix)
{
	struct schema_key to;

	schema_key_after(&to, prefix);
	return kv_scan(txn->kv, schema_bytes(prefix), schema_bytes(&to), KV_FORWARD, 1, stop_at_first, NULL);
}

/* --- opening ------------------------------------------------------------------------------------ */

static int put_schema(struct cat_txn *txn)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_meta(&key, SCHEMA_META_SCHEMA);
	buf_add_u8(value, 1);
	buf_add_u32(value, SCHEMA_VERSION);
	buf_add_u32(value, SCHEMA_VERSION);
	return cat_put(txn, &key, value);
}

static int create_closure(struct cat_txn *txn, void *arg)
{
	const struct catalog_options *options = arg;
	uint32_t mode = options->root_mode ? options->root_mode : 0755;
	struct cat_inode root = {
		.ino = CAT_ROOT_INO,
		.mode = S_IFDIR | (mode & 07777),
		.uid = options->root_uid,
		.gid = options->root_gid,
		.nlink = 2,
		.parent = CAT_ROOT_INO,
	};
	int rc = put_schema(txn);

	if (rc < 0)
		return rc;
	root.atime = root.mtime = root.ctime = root.btime = cat_now(txn);
	random_bytes(root.file_id, sizeof(root.file_id));
	return cat_inode_put(txn, &root);
}

static int check_schema(struct cat_txn *txn, void *arg)
{
	bool *found = arg;
	struct schema_key key;
	struct kv_bytes value;
	struct cursor at;
	uint32_t schema, least;
	uint8_t version;
	int rc;

	schema_key_meta(&key, SCHEMA_META_SCHEMA);
	rc = cat_get(txn, &key, &value);
	*found = rc == 0;
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	at = cursor_of(value.data, value.len);
	version = cursor_u8(&at);
	schema = cursor_u32(&at);
	least = cursor_u32(&at);
	if (at.failed || version < 1)
		return cat_check_row(schema_bytes(&key), -EBADMSG);
	if (least > SCHEMA_VERSION) {
		log_error("catalog", "written by a newer varve: schema %u, this one knows %u", schema, SCHEMA_VERSION);
		return -EPROTO;
	}
	return 0;
}

static int counter_load(struct cat_txn *txn, enum schema_meta which, struct lease *lease)
{
	struct schema_key key;
	struct kv_bytes value;
	uint64_t number;
	int rc;

	schema_key_meta(&key, which);
	rc = cat_get(txn, &key, &value);
	if (rc == -ENOENT)
		return 0;
	if (rc == 0)
		rc = cat_check_row(schema_bytes(&key), schema_decode_u64(value, &number));
	if (rc < 0)
		return rc;
	raise_to(&lease->next, number);
	return 0;
}

static int count_job(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	int64_t *count = arg;

	(void)key;
	(void)value;
	(*count)++;
	return 0;
}

static int reload_closure(struct cat_txn *txn, void *arg)
{
	struct catalog *catalog = txn->catalog;
	struct schema_key from, to;
	int64_t jobs = 0;
	int rc;

	(void)arg;
	rc = counter_load(txn, SCHEMA_META_SEQ, &catalog->seq);
	if (rc == 0)
		rc = counter_load(txn, SCHEMA_META_INO, &catalog->ino);
	if (rc == 0)
		rc = counter_load(txn, SCHEMA_META_CLOCK, &catalog->clock);
	if (rc < 0)
		return rc;
	schema_key_begin(&from, SCHEMA_JOB);
	schema_key_after(&to, &from);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, count_job, &jobs);
	if (rc == 0)
		atomic_store(&catalog->jobs, jobs);
	return rc;
}

int catalog_reload_counters(struct catalog *catalog)
{
	/* What memory believed to be leased may have been overwritten by smaller leases: write new ones at next use. */
	atomic_store(&catalog->seq.leased, 0);
	atomic_store(&catalog->ino.leased, 0);
	atomic_store(&catalog->clock.leased, 0);
	return catalog_view(catalog, reload_closure, NULL);
}

static struct catalog *catalog_new(const struct catalog_options *options)
{
	struct catalog *catalog = calloc(1, sizeof(*catalog));

	if (!catalog)
		return NULL;
	catalog->read_only = options->read_only;
	lock_init(&catalog->notify_lock, LOCK_LEAF);
	lock_init(&catalog->watch_lock, LOCK_LEAF);
	atomic_store(&catalog->seq.next, CAT_SEQ_FIRST);
	atomic_store(&catalog->ino.next, CAT_ROOT_INO + 1);
	if (gethostname(catalog->host, sizeof(catalog->host) - 1) < 0)
		memcpy(catalog->host, "localhost", sizeof("localhost"));
	return catalog;
}

int catalog_open(const char *dir, const struct catalog_options *options, struct catalog **ret_catalog)
{
	struct catalog_options defaults = options ? *options : (struct catalog_options){0};
	struct kv_options kv_options = {.read_only = defaults.read_only};
	struct catalog *catalog = catalog_new(&defaults);
	bool found = false;
	int rc;

	if (!catalog)
		return -ENOMEM;
	rc = kv_open(dir, &kv_options, &catalog->kv);
	if (rc < 0)
		goto out;
	rc = catalog_view(catalog, check_schema, &found);
	if (rc < 0)
		goto out;
	if (found)
		rc = catalog_reload_counters(catalog);
	else
		rc = defaults.read_only ? -ENOENT : catalog_update(catalog, create_closure, &defaults);
	if (rc < 0)
		goto out;
	*ret_catalog = catalog;
	catalog = NULL;
out:
	catalog_close(catalog);
	return rc;
}

static int settle_clock(struct cat_txn *txn, void *arg)
{
	(void)arg;
	lease_write(txn, SCHEMA_META_CLOCK, atomic_load(&txn->catalog->clock.next));
	return 0;
}

void catalog_close(struct catalog *catalog)
{
	if (!catalog)
		return;
	/* Times may go on right here after a clean end. Where it fails, the lease still holds: times run ahead a
	 * little. */
	if (catalog->kv && atomic_load(&catalog->clock.leased))
		(void)catalog_update(catalog, settle_clock, NULL);
	if (catalog->kv)
		kv_close(catalog->kv);
	lock_destroy(&catalog->watch_lock);
	lock_destroy(&catalog->notify_lock);
	free(catalog);
}

int catalog_sync(struct catalog *catalog)
{
	return kv_sync(catalog->kv);
}

uint64_t catalog_number(struct catalog *catalog)
{
	return kv_number(catalog->kv);
}

void catalog_figures(struct catalog *catalog, struct cat_figures *ret_figures)
{
	struct kv_figures figures = {0};
	int64_t jobs = atomic_load(&catalog->jobs);

	kv_figures(catalog->kv, &figures);
	*ret_figures = (struct cat_figures){
		.updates = figures.updates,
		.log_bytes = figures.log_bytes,
		.map_bytes = figures.map_bytes,
		.memtable_bytes = figures.memtable_bytes,
		.jobs = jobs > 0 ? (uint64_t)jobs : 0,
	};
}

/* --- store id and settings ---------------------------------------------------------------------- */

static int store_id_get(struct cat_txn *txn, void *arg)
{
	struct schema_key key;
	struct kv_bytes value, blob;
	int rc;

	schema_key_meta(&key, SCHEMA_META_STORE);
	rc = cat_get(txn, &key, &value);
	if (rc == -ENOENT) {
		memset(arg, 0, CAT_STORE_ID_SIZE);
		return 0;
	}
	if (rc == 0)
		rc = schema_decode_blob(value, &blob);
	if (rc == 0 && blob.len != CAT_STORE_ID_SIZE)
		rc = -EBADMSG;
	if (rc == 0)
		memcpy(arg, blob.data, CAT_STORE_ID_SIZE);
	return cat_check_row(schema_bytes(&key), rc);
}

int catalog_store_id(struct catalog *catalog, uint8_t ret_id[static CAT_STORE_ID_SIZE])
{
	return catalog_view(catalog, store_id_get, ret_id);
}

static int store_id_put(struct cat_txn *txn, void *arg)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_meta(&key, SCHEMA_META_STORE);
	schema_encode_blob(arg, CAT_STORE_ID_SIZE, value);
	return cat_put(txn, &key, value);
}

int catalog_set_store_id(struct catalog *catalog, const uint8_t id[static CAT_STORE_ID_SIZE])
{
	uint8_t copy[CAT_STORE_ID_SIZE];

	memcpy(copy, id, sizeof(copy));
	return catalog_update(catalog, store_id_put, copy);
}

struct setting {
	const char *name;
	const char *value;
	char *ret_value;
};

static int setting_name_check(const char *name)
{
	return name[0] && strlen(name) <= SETTING_NAME_MAX ? 0 : -EINVAL;
}

static int setting_get(struct cat_txn *txn, void *arg)
{
	struct setting *setting = arg;
	struct schema_key key;
	struct kv_bytes value, blob;
	int rc;

	schema_key_setting(&key, setting->name);
	rc = cat_get(txn, &key, &value);
	if (rc == 0)
		rc = cat_check_row(schema_bytes(&key), schema_decode_blob(value, &blob));
	if (rc < 0)
		return rc;
	free(setting->ret_value);
	setting->ret_value = strndup(blob.data, blob.len);
	return setting->ret_value ? 0 : -ENOMEM;
}

int catalog_setting_get(struct catalog *catalog, const char *name, char **ret_value)
{
	struct setting setting = {.name = name};
	int rc = setting_name_check(name);

	if (rc == 0)
		rc = catalog_view(catalog, setting_get, &setting);
	if (rc == 0)
		*ret_value = setting.ret_value;
	else
		free(setting.ret_value);
	return rc;
}

static int setting_put(struct cat_txn *txn, void *arg)
{
	const struct setting *setting = arg;
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_setting(&key, setting->name);
	if (!setting->value)
		return cat_delete(txn, &key);
	schema_encode_blob(setting->value, strlen(setting->value), value);
	return cat_put(txn, &key, value);
}

int catalog_setting_put(struct catalog *catalog, const char *name, const char *value)
{
	struct setting setting = {.name = name, .value = value};
	int rc = setting_name_check(name);

	return rc ? rc : catalog_update(catalog, setting_put, &setting);
}
