/* Tests of shipping: segments and snapshots, their import, what is refused, and exactness beside a writer. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <zstd.h>

#include "catalog.h"
#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "kv_support.h"

static const uint8_t store_a[CAT_STORE_ID_SIZE] = {1, 2, 3}, store_b[CAT_STORE_ID_SIZE] = {9};

struct side {
	char *dir;
	struct catalog *catalog;
};

static void open_side(struct side *side)
{
	struct catalog_options options = {.root_mode = 0755};

	side->dir = make_temp_dir();
	cr_assert_eq(catalog_open(side->dir, &options, &side->catalog), 0);
	cr_assert_eq(catalog_set_store_id(side->catalog, store_a), 0);
}

static void close_side(struct side *side)
{
	catalog_close(side->catalog);
	free_temp_dir(side->dir);
}

static int to_buf(void *arg, const void *bytes, size_t len)
{
	buf_add(arg, bytes, len);
	return 0;
}

struct feed {
	const struct buf *bytes;
	size_t at, step;
};

static ssize_t from_buf(void *arg, void *ret_bytes, size_t cap)
{
	struct feed *feed = arg;
	size_t len = feed->bytes->len - feed->at;

	if (len > cap)
		len = cap;
	if (feed->step && len > feed->step)
		len = feed->step;
	memcpy(ret_bytes, feed->bytes->data + feed->at, len);
	feed->at += len;
	return (ssize_t)len;
}

static int import(struct catalog *catalog, const struct buf *piece)
{
	struct feed feed = {.bytes = piece, .step = 999};

	return catalog_import(catalog, from_buf, &feed);
}

static uint64_t export_snapshot(struct catalog *catalog, struct buf *ret_piece)
{
	uint64_t number;

	buf_reset(ret_piece);
	cr_assert_eq(catalog_export_snapshot(catalog, to_buf, ret_piece, &number), 0);
	return number;
}

static uint64_t export_segment(struct catalog *catalog, uint64_t after, struct buf *ret_piece)
{
	uint64_t upto;

	buf_reset(ret_piece);
	cr_assert_eq(catalog_export_segment(catalog, after, to_buf, ret_piece, &upto), 0);
	return upto;
}

/* --- rows ---------------------------------------------------------------------------------------------- */

struct row_write {
	unsigned ino;
	const char *name, *value; /* value NULL: delete */
	enum schema_tag tag;
};

static int write_row(struct kv_txn *txn, void *arg)
{
	struct row_write *row = arg;
	struct schema_key key;

	if (row->tag == SCHEMA_JOB)
		schema_key_number(&key, SCHEMA_JOB, row->ino);
	else
		schema_key_named(&key, SCHEMA_XATTR, row->ino, row->name);
	return row->value ? kv_put(txn, schema_bytes(&key), bytes_of(row->value)) : kv_delete(txn, schema_bytes(&key));
}

static void set(struct catalog *catalog, unsigned ino, const char *name, const char *value)
{
	struct row_write row = {.ino = ino, .name = name, .value = value};

	cr_assert_eq(kv_update(catalog->kv, write_row, &row), 0);
}

static int dump_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	if (!schema_is_portable(key))
		return 0;
	buf_add_blob(arg, key.data, key.len);
	buf_add_blob(arg, value.data, value.len);
	return 0;
}

static int dump_rows(struct kv_txn *txn, void *arg)
{
	return kv_scan(txn, (struct kv_bytes){"", 0}, (struct kv_bytes){"\xff", 1}, KV_FORWARD, 0, dump_row, arg);
}

static void dump(struct catalog *catalog, struct buf *ret_rows)
{
	buf_reset(ret_rows);
	cr_assert_eq(kv_view(catalog->kv, dump_rows, ret_rows), 0);
	cr_assert_not(buf_failed(ret_rows));
}

static bool same(struct catalog *a, struct catalog *b)
{
	AUTO_BUF rows_a = BUF_INIT;
	AUTO_BUF rows_b = BUF_INIT;

	dump(a, &rows_a);
	dump(b, &rows_b);
	return rows_a.len == rows_b.len && memcmp(rows_a.data, rows_b.data, rows_a.len) == 0;
}

static void create_files(struct catalog *catalog, const char *prefix, int count)
{
	for (int i = 0; i < count; i++) {
		char name[64];
		struct cat_create request = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFREG | 0644};
		struct cat_inode inode;

		snprintf(name, sizeof(name), "%s%05d", prefix, i);
		cr_assert_eq(catalog_create(catalog, &request, &inode), 0);
	}
}

/* --- tests -------------------------------------------------------------------------------------------------- */

Test(ship, a_snapshot_and_its_segments_make_the_same_catalog)
{
	AUTO_BUF piece = BUF_INIT;
	struct cat_inode inode;
	struct cat_unlinked unlinked;
	struct side a, b;
	uint64_t number;

	open_side(&a);
	open_side(&b);
	create_files(a.catalog, "f", 200);
	number = export_snapshot(a.catalog, &piece);
	cr_assert_eq(number, catalog_number(a.catalog));
	cr_assert_eq(import(b.catalog, &piece), 0);
	cr_assert(same(a.catalog, b.catalog));
	create_files(a.catalog, "g", 20);
	cr_assert_eq(catalog_unlink(a.catalog, CAT_ROOT_INO, "f00007", (struct cat_actor){0}, &unlinked), 0);
	number = export_segment(a.catalog, number, &piece);
	cr_assert_eq(import(b.catalog, &piece), 0);
	cr_assert(same(a.catalog, b.catalog));
	cr_assert_eq(import(b.catalog, &piece), 0, "once more changes nothing");
	cr_assert(same(a.catalog, b.catalog));
	cr_assert_eq(catalog_lookup(b.catalog, CAT_ROOT_INO, "g00003", &inode), 0);
	cr_assert_eq(catalog_lookup(b.catalog, CAT_ROOT_INO, "f00007", &inode), -ENOENT);
	/* It is alive: and gives no number that is taken. */
	create_files(b.catalog, "new", 1);
	cr_assert_eq(catalog_lookup(b.catalog, CAT_ROOT_INO, "new00000", &inode), 0);
	struct cat_inode other;
	cr_assert_eq(catalog_lookup(b.catalog, CAT_ROOT_INO, "g00019", &other), 0);
	cr_assert_gt(inode.ino, other.ino);
	close_side(&a);
	close_side(&b);
}

Test(ship, a_segment_from_the_beginning_needs_no_snapshot)
{
	AUTO_BUF piece = BUF_INIT;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	create_files(a.catalog, "f", 10);
	export_segment(a.catalog, 0, &piece);
	cr_assert_eq(import(b.catalog, &piece), 0);
	cr_assert(same(a.catalog, b.catalog));
	close_side(&a);
	close_side(&b);
}

Test(ship, a_snapshot_replaces_what_is_there)
{
	AUTO_BUF piece = BUF_INIT;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	set(a.catalog, 50, "n", "a");
	set(b.catalog, 50, "other", "b");
	set(b.catalog, 51, "n", "b");
	export_snapshot(a.catalog, &piece);
	cr_assert_eq(import(b.catalog, &piece), 0);
	cr_assert(same(a.catalog, b.catalog));
	close_side(&a);
	close_side(&b);
}

Test(ship, a_snapshot_never_sweeps_away_unfinished_work)
{
	struct row_write job = {.ino = 5, .value = "x", .tag = SCHEMA_JOB};
	AUTO_BUF piece = BUF_INIT;
	AUTO_BUF before = BUF_INIT;
	AUTO_BUF after = BUF_INIT;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	set(b.catalog, 50, "n", "b");
	cr_assert_eq(kv_update(b.catalog->kv, write_row, &job), 0);
	dump(b.catalog, &before);
	export_snapshot(a.catalog, &piece);
	cr_assert_eq(import(b.catalog, &piece), -ENOTEMPTY);
	dump(b.catalog, &after);
	cr_assert_eq(before.len, after.len);
	cr_assert_eq(memcmp(before.data, after.data, after.len), 0);
	job.value = NULL;
	cr_assert_eq(kv_update(b.catalog->kv, write_row, &job), 0);
	cr_assert_eq(import(b.catalog, &piece), 0);
	close_side(&a);
	close_side(&b);
}

Test(ship, segments_must_follow_on)
{
	AUTO_BUF snapshot = BUF_INIT;
	AUTO_BUF first = BUF_INIT;
	AUTO_BUF second = BUF_INIT;
	AUTO_BUF overlapping = BUF_INIT;
	struct side a, b;
	uint64_t start, middle;

	open_side(&a);
	open_side(&b);
	set(a.catalog, 50, "n", "1");
	start = export_snapshot(a.catalog, &snapshot);
	set(a.catalog, 50, "n", "2");
	middle = export_segment(a.catalog, start, &first);
	set(a.catalog, 50, "n", "3");
	export_segment(a.catalog, middle, &second);
	export_segment(a.catalog, start, &overlapping);
	cr_assert_eq(import(b.catalog, &first), -ESTALE, "nothing was imported yet");
	cr_assert_eq(import(b.catalog, &snapshot), 0);
	cr_assert_eq(import(b.catalog, &second), -ESTALE, "one is missing");
	cr_assert_eq(import(b.catalog, &first), 0);
	cr_assert_eq(import(b.catalog, &overlapping), 0);
	cr_assert(same(a.catalog, b.catalog));
	cr_assert_eq(import(b.catalog, &first), 0, "what is there already is left alone");
	cr_assert(same(a.catalog, b.catalog));
	close_side(&a);
	close_side(&b);
}

Test(ship, a_catalog_with_changes_of_its_own_takes_no_segment)
{
	AUTO_BUF snapshot = BUF_INIT;
	AUTO_BUF segment = BUF_INIT;
	struct side a, b;
	uint64_t number;

	open_side(&a);
	open_side(&b);
	number = export_snapshot(a.catalog, &snapshot);
	set(a.catalog, 50, "n", "a");
	export_segment(a.catalog, number, &segment);
	cr_assert_eq(import(b.catalog, &snapshot), 0);
	cr_assert_eq(catalog_setting_put(b.catalog, "local", "is no change"), 0);
	set(b.catalog, 60, "n", "b");
	cr_assert_eq(import(b.catalog, &segment), -ESTALE);
	cr_assert_eq(import(b.catalog, &snapshot), 0);
	cr_assert_eq(catalog_setting_put(b.catalog, "local", "again"), 0);
	cr_assert_eq(import(b.catalog, &segment), 0);
	cr_assert(same(a.catalog, b.catalog));
	close_side(&a);
	close_side(&b);
}

Test(ship, local_records_stay_at_home)
{
	struct row_write job = {.ino = 5, .value = "x", .tag = SCHEMA_JOB};
	AUTO_BUF piece = BUF_INIT;
	struct side a;
	uint64_t number, upto = 0;

	open_side(&a);
	set(a.catalog, 50, "n", "1");
	number = catalog_number(a.catalog);
	cr_assert_eq(kv_update(a.catalog->kv, write_row, &job), 0);
	cr_assert_eq(catalog_export_segment(a.catalog, number, to_buf, &piece, &upto), -ENODATA);
	cr_assert_eq(upto, number + 1);
	cr_assert_eq(piece.len, 0, "not a byte");
	cr_assert_eq(catalog_export_segment(a.catalog, number + 5, to_buf, &piece, &upto), -ESTALE);
	close_side(&a);
}

Test(ship, another_stores_catalog_is_refused)
{
	AUTO_BUF piece = BUF_INIT;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	cr_assert_eq(catalog_set_store_id(b.catalog, store_b), 0);
	export_snapshot(a.catalog, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EXDEV);
	close_side(&a);
	close_side(&b);
}

Test(ship, damage_is_found_before_anything_is_applied, .timeout = 120)
{
	AUTO_BUF piece = BUF_INIT;
	AUTO_BUF before = BUF_INIT;
	AUTO_BUF after = BUF_INIT;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	create_files(a.catalog, "f", 5);
	set(b.catalog, 50, "n", "b");
	export_snapshot(a.catalog, &piece);
	dump(b.catalog, &before);
	for (size_t at = 0; at < piece.len; at++) {
		size_t len = piece.len;

		piece.data[at] ^= (char)(1 << (at % 8));
		cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "flipped at %zu", at);
		piece.data[at] ^= (char)(1 << (at % 8));
		piece.len = at;
		cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "cut at %zu", at);
		piece.len = len;
	}
	dump(b.catalog, &after);
	cr_assert_eq(before.len, after.len);
	cr_assert_eq(memcmp(before.data, after.data, after.len), 0);
	cr_assert_eq(import(b.catalog, &piece), 0);
	close_side(&a);
	close_side(&b);
}

/* A well-formed snapshot around any body. */
static void forge(const struct buf *body, uint64_t entries, struct buf *ret_piece)
{
	size_t cap = ZSTD_compressBound(body->len), len;
	char *packed = malloc(cap);

	len = ZSTD_compress(packed, cap, body->data, body->len, 3);
	cr_assert_not(ZSTD_isError(len));
	buf_reset(ret_piece);
	buf_add(ret_piece, "varveSHP", 8);
	buf_add_u16(ret_piece, 1);
	buf_add_u16(ret_piece, 2);
	buf_add(ret_piece, store_a, sizeof(store_a));
	buf_add_u64(ret_piece, 0);
	buf_add(ret_piece, packed, len);
	buf_add_u64(ret_piece, entries);
	buf_add_u64(ret_piece, 10);
	buf_add_u32(ret_piece, crc32c_update(0, ret_piece->data, ret_piece->len));
	free(packed);
}

static void add_put(struct buf *body, struct kv_bytes key, const char *value)
{
	buf_add_u8(body, 1);
	buf_add_u16(body, (uint16_t)key.len);
	buf_add(body, key.data, key.len);
	buf_add_blob(body, value, strlen(value));
}

Test(ship, a_forged_piece_is_refused)
{
	AUTO_BUF body = BUF_INIT;
	AUTO_BUF piece = BUF_INIT;
	struct schema_key key;
	struct side b;

	open_side(&b);
	schema_key_named(&key, SCHEMA_XATTR, 7, "n");
	add_put(&body, schema_bytes(&key), "v");
	forge(&body, 1, &piece);
	cr_assert_eq(import(b.catalog, &piece), 0, "the forger knows the trade");
	forge(&body, 2, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "fewer entries than it says");
	buf_add_u8(&body, 1);
	forge(&body, 1, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "half an entry");
	body.data[body.len - 1] = 3;
	buf_add_u16(&body, 1);
	buf_addc(&body, 'x');
	forge(&body, 2, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "an operation that does not exist");
	buf_reset(&body);
	schema_key_setting(&key, "planted");
	add_put(&body, schema_bytes(&key), "v");
	forge(&body, 1, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "a local record");
	buf_reset(&body);
	schema_key_named(&key, SCHEMA_XATTR, 7, "n");
	buf_add_u8(&body, 1);
	buf_add_u16(&body, (uint16_t)key.len);
	buf_add(&body, key.bytes, key.len);
	buf_add_u32(&body, UINT32_MAX);
	forge(&body, 1, &piece);
	cr_assert_eq(import(b.catalog, &piece), -EBADMSG, "a length that cannot be");
	close_side(&b);
}

struct writing {
	struct catalog *catalog;
	_Atomic bool stop;
	_Atomic uint64_t rounds;
};

/* Each update writes the same value at both ends of the key space, and drags a row along in between. */
static int write_both(struct kv_txn *txn, void *arg)
{
	uint64_t round = *(uint64_t *)arg;
	char value[32];
	struct row_write first = {.ino = 1, .name = "first", .value = value};
	struct row_write last = {.ino = 1u << 30, .name = "last", .value = value};
	struct row_write gone = {.ino = 1000 + (unsigned)((round - 1) * 7919 % 5000), .name = "drag"};
	struct row_write here = {.ino = 1000 + (unsigned)(round * 7919 % 5000), .name = "drag", .value = value};
	int rc;

	snprintf(value, sizeof(value), "%lu", round);
	rc = write_row(txn, &first);
	rc = rc ? rc : write_row(txn, &gone);
	rc = rc ? rc : write_row(txn, &here);
	return rc ? rc : write_row(txn, &last);
}

static void *write_on(void *arg)
{
	struct writing *writing = arg;

	for (uint64_t round = 1; !atomic_load(&writing->stop); round++) {
		if (kv_update(writing->catalog->kv, write_both, &round))
			break;
		atomic_store(&writing->rounds, round);
	}
	return NULL;
}

struct both {
	char first[32], last[32];
	unsigned drags;
};

static int find_drag(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct both *both = arg;
	struct schema_parts parts;

	cr_assert_eq(schema_parse(key, &parts), 0);
	if (parts.name_len == 5 && memcmp(parts.name, "first", 5) == 0)
		snprintf(both->first, 32, "%.*s", (int)value.len, (const char *)value.data);
	else if (parts.name_len == 4 && memcmp(parts.name, "last", 4) == 0)
		snprintf(both->last, 32, "%.*s", (int)value.len, (const char *)value.data);
	else if (parts.name_len == 4 && memcmp(parts.name, "drag", 4) == 0)
		both->drags++;
	return 0;
}

static int read_both(struct kv_txn *txn, void *arg)
{
	struct schema_key from, to;

	schema_key_begin(&from, SCHEMA_XATTR);
	schema_key_after(&to, &from);
	return kv_scan(txn, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, find_drag, arg);
}

Test(ship, a_snapshot_is_exact_while_a_writer_goes_on, .timeout = 120)
{
	AUTO_BUF piece = BUF_INIT;
	struct writing writing = {0};
	pthread_t thread;
	struct side a;

	open_side(&a);
	for (unsigned i = 0; i < 20000; i++)
		set(a.catalog, 10000 + i, "filler", "x");
	writing.catalog = a.catalog;
	cr_assert_eq(pthread_create(&thread, NULL, write_on, &writing), 0);
	while (atomic_load(&writing.rounds) < 100)
		usleep(100);
	for (int i = 0; i < 5; i++) {
		struct both both = {0};
		uint64_t began = atomic_load(&writing.rounds), number;
		struct side b;

		open_side(&b);
		number = export_snapshot(a.catalog, &piece);
		cr_assert_gt(atomic_load(&writing.rounds), began, "the writer was held up");
		cr_assert_eq(import(b.catalog, &piece), 0);
		cr_assert_eq(kv_view(b.catalog->kv, read_both, &both), 0);
		cr_assert_str_eq(both.first, both.last);
		cr_assert_eq(both.drags, 1);
		if (i == 4) {
			atomic_store(&writing.stop, true);
			pthread_join(thread, NULL);
			export_segment(a.catalog, number, &piece);
			cr_assert_eq(import(b.catalog, &piece), 0);
			cr_assert(same(a.catalog, b.catalog));
		}
		close_side(&b);
	}
	close_side(&a);
}

/* Larger than what is held in memory and than one update; the disk fills in the middle. */
Test(ship, an_import_broken_off_half_way_can_be_done_again, .timeout = 120)
{
	struct rlimit limit = {.rlim_cur = 9 << 20, .rlim_max = RLIM_INFINITY};
	AUTO_BUF snapshot = BUF_INIT;
	AUTO_BUF segment = BUF_INIT;
	AUTO_BUF late = BUF_INIT;
	char value[20001];
	uint64_t number, middle, random = 5;
	struct side a, b;

	open_side(&a);
	open_side(&b);
	number = export_snapshot(a.catalog, &snapshot);
	for (unsigned i = 0; i < 500; i++) {
		for (size_t at = 0; at < sizeof(value) - 1; at++)
			value[at] = (char)('0' + next_random(&random) % 64);
		value[20000] = '\0';
		set(a.catalog, i + 100, "big", value);
	}
	middle = export_segment(a.catalog, number, &segment);
	set(a.catalog, 7, "late", "v");
	export_segment(a.catalog, middle, &late);
	cr_assert_gt(segment.len, 5 << 20, "spooled to a file");
	cr_assert_eq(import(b.catalog, &snapshot), 0);
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(import(b.catalog, &segment), -ENOSPC);
	limit.rlim_cur = RLIM_INFINITY;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(import(b.catalog, &late), -ESTALE);
	cr_assert_eq(import(b.catalog, &segment), 0);
	cr_assert_eq(import(b.catalog, &late), 0);
	cr_assert(same(a.catalog, b.catalog));
	close_side(&a);
	close_side(&b);
}

static int refuse(void *arg, const void *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	return --*(int *)arg ? 0 : -EPIPE;
}

Test(ship, a_sink_that_fails_ends_the_export)
{
	struct side a;
	uint64_t number = 77;

	open_side(&a);
	create_files(a.catalog, "f", 10);
	for (int calls = 1; calls <= 3; calls++) {
		int left = calls;

		cr_assert_eq(catalog_export_snapshot(a.catalog, refuse, &left, &number), -EPIPE);
		left = calls;
		cr_assert_eq(catalog_export_segment(a.catalog, 0, refuse, &left, &number), -EPIPE);
	}
	cr_assert_eq(number, 77);
	close_side(&a);
}
