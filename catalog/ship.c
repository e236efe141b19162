/*
 * ship.c - the catalog leaves the machine: segments of its redo log, snapshots
 * of its state, and their import into another catalog.
 *
 * A piece, integers big-endian:
 *     header    "varveSHP", u16 format version, u16 kind, 16 bytes store id, u64 from
 *     body      one zstd frame of entries: u8 op (1 put, 2 delete), u16 key length, key, and for a put u32 value
 *               length, value
 *     trailer   u64 entries, u64 to, u32 CRC-32C of everything before it
 * A segment holds the mutations of the updates (from, to], in order; a snapshot the state after update `to`.
 * Only portable records (schema_is_portable) are in a piece; one with any other is refused as damaged, so that no
 * store can plant jobs or settings.
 *
 * How a snapshot is exact although writers go on: it is the rows as short views found them one after another, from
 * update N on, and behind them the mutations (N, M], M being the newest update once the last view has ended. A key
 * that some update in (N, M] touched ends as the last of those left it, put or deleted, whatever the views saw; a key
 * that none touched was the same in every view. So what results is the state after M.
 *
 * Nothing is exported that a power cut here could still take back (kv_sync first): its number would be given again, to
 * something else.
 *
 * An import checks the whole piece before it applies anything, then applies it in updates of bounded size. A mark (a
 * setting, so local) says what was imported and what is unfinished: a segment must begin at or before the number the
 * catalog was imported at and nothing portable may have changed here since; after a crash half-way only the same piece
 * again, one reaching further, or a snapshot is taken.
 *
 * Threads: exports run beside everything else; imports are for a catalog that nobody uses yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "buf.h"
#include "catalog.h"
#include "catalog/catalog_internal.h"
#include "catalog/kv.h"
#include "catalog/schema.h"
#include "checksum.h"
#include "cleanup.h"

#define MAGIC "varveSHP"
#define MAGIC_SIZE 8
#define FORMAT_VERSION 1
#define HEADER_SIZE (MAGIC_SIZE + 2 + 2 + CAT_STORE_ID_SIZE + 8)
#define TRAILER_SIZE (8 + 8 + 4)
#define LEVEL 3
#define WINDOW_LOG_MAX 23 /* what an import will give a frame: 8 MiB; LEVEL uses less */
#define VALUE_MAX ((size_t)16 << 20)
#define CHUNK_ROWS 2000 /* of one view of a snapshot */
#define CHUNK_SIZE ((size_t)1 << 20)
#define BATCH_SIZE ((size_t)1 << 20) /* of one update of an import */
#define SPOOL_MEMORY ((size_t)4 << 20)
#define MARK_NAME "imported"

enum piece_kind { PIECE_NONE, PIECE_SEGMENT, PIECE_SNAPSHOT };
enum op { OP_PUT = 1, OP_DELETE = 2 };

/* --- writing a piece --------------------------------------------------------------------------------- */

struct writer {
	cat_sink sink;
	void *arg;
	ZSTD_CCtx *zstd;
	struct buf entry;
	uint64_t entries;
	uint32_t crc;
	uint8_t out[64 << 10];
};

static struct writer *writer_new(cat_sink sink, void *arg)
{
	struct writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return NULL;
	writer->sink = sink;
	writer->arg = arg;
	buf_init(&writer->entry);
	writer->zstd = ZSTD_createCCtx();
	if (!writer->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(writer->zstd, ZSTD_c_compressionLevel, LEVEL))) {
		ZSTD_freeCCtx(writer->zstd);
		free(writer);
		return NULL;
	}
	return writer;
}

static void writer_free(struct writer *writer)
{
	if (writer) {
		ZSTD_freeCCtx(writer->zstd);
		buf_free(&writer->entry);
		free(writer);
	}
}

static int emit(struct writer *writer, const void *bytes, size_t len)
{
	writer->crc = crc32c_update(writer->crc, bytes, len);
	return writer->sink(writer->arg, bytes, len);
}

static int compress_some(struct writer *writer, const void *bytes, size_t len, ZSTD_EndDirective directive)
{
	ZSTD_inBuffer in = {.src = bytes, .size = len};
	size_t left;

	do {
		ZSTD_outBuffer out = {.dst = writer->out, .size = sizeof(writer->out)};
		int rc;

		left = ZSTD_compressStream2(writer->zstd, &out, &in, directive);
		if (ZSTD_isError(left))
			return -ENOMEM; /* the only way it fails: parameters and buffers are ours */
		rc = out.pos ? emit(writer, out.dst, out.pos) : 0;
		if (rc)
			return rc;
	} while (in.pos < in.size || (directive == ZSTD_e_end && left));
	return 0;
}

static int write_header(struct writer *writer, struct catalog *catalog, enum piece_kind kind, uint64_t from)
{
	uint8_t store_id[CAT_STORE_ID_SIZE];
	AUTO_BUF header = BUF_INIT;
	int rc = catalog_store_id(catalog, store_id);

	if (rc)
		return rc;
	buf_add(&header, MAGIC, MAGIC_SIZE);
	buf_add_u16(&header, FORMAT_VERSION);
	buf_add_u16(&header, kind);
	buf_add(&header, store_id, sizeof(store_id));
	buf_add_u64(&header, from);
	return buf_failed(&header) ? -ENOMEM : emit(writer, header.data, header.len);
}

/* One entry in the form of the body. value NULL: delete. */
static void add_entry(struct buf *entries, struct kv_bytes key, const struct kv_bytes *value)
{
	buf_add_u8(entries, value ? OP_PUT : OP_DELETE);
	buf_add_u16(entries, (uint16_t)key.len);
	buf_add(entries, key.data, key.len);
	if (value)
		buf_add_blob(entries, value->data, value->len);
}

static int write_trailer(struct writer *writer, uint64_t to)
{
	AUTO_BUF trailer = BUF_INIT;
	int rc = compress_some(writer, NULL, 0, ZSTD_e_end);

	if (rc)
		return rc;
	buf_add_u64(&trailer, writer->entries);
	buf_add_u64(&trailer, to);
	buf_add_u32(&trailer, crc32c_update(writer->crc, trailer.data, trailer.len));
	return buf_failed(&trailer) ? -ENOMEM : emit(writer, trailer.data, trailer.len);
}

/* --- segments ------------------------------------------------------------------------------------------ */

struct export
{
	struct catalog *catalog;
	struct writer *writer;
	uint64_t from;
	bool begun; /* the header is written: a segment without entries is none */
};

static int export_mutation(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	struct export *export = arg;
	struct writer *writer = export->writer;
	int rc = 0;

	(void)number;
	if (!schema_is_portable(key))
		return 0;
	if (!export->begun)
		rc = write_header(writer, export->catalog, PIECE_SEGMENT, export->from);
	if (rc)
		return rc;
	export->begun = true;
	buf_reset(&writer->entry);
	add_entry(&writer->entry, key, value);
	if (buf_failed(&writer->entry))
		return -ENOMEM;
	writer->entries++;
	return compress_some(writer, writer->entry.data, writer->entry.len, ZSTD_e_continue);
}

int catalog_export_segment(struct catalog *catalog, uint64_t after, cat_sink sink, void *arg, uint64_t *ret_upto)
{
	struct export export = {.catalog = catalog, .from = after};
	uint64_t upto = kv_number(catalog->kv);
	int rc = kv_sync(catalog->kv);

	if (rc)
		return rc;
	export.writer = writer_new(sink, arg);
	if (!export.writer)
		return -ENOMEM;
	rc = kv_log_each(catalog->kv, after, upto, export_mutation, &export);
	if (!rc)
		rc = export.begun ? write_trailer(export.writer, upto) : -ENODATA;
	if (!rc || rc == -ENODATA)
		*ret_upto = upto;
	writer_free(export.writer);
	return rc;
}

/* --- snapshots ------------------------------------------------------------------------------------------- */

/* Rows of one short view. */
struct chunk {
	uint8_t from[KV_KEY_MAX + 1];
	size_t from_len;
	struct buf rows; /* as entries */
	uint64_t entries;
	size_t visited;
};

/* After the greatest key there can be. */
static const uint8_t past_all_keys[KV_KEY_MAX + 1] = {[0 ... KV_KEY_MAX] = 0xff};
static const struct kv_bytes end_of_keys = {.data = past_all_keys, .len = sizeof(past_all_keys)};

static int take_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct chunk *chunk = arg;

	chunk->visited++;
	memcpy(chunk->from, key.data, key.len); /* on from the least key after this one */
	chunk->from[key.len] = 0;
	chunk->from_len = key.len + 1;
	if (schema_is_portable(key)) {
		add_entry(&chunk->rows, key, &value);
		chunk->entries++;
	}
	return chunk->rows.len >= CHUNK_SIZE ? 1 : 0;
}

static int take_chunk(struct kv_txn *txn, void *arg)
{
	struct chunk *chunk = arg;

	return kv_scan(txn, (struct kv_bytes){chunk->from, chunk->from_len}, end_of_keys, KV_FORWARD, CHUNK_ROWS,
		       take_row, chunk);
}

static int write_rows(struct catalog *catalog, struct writer *writer)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk));
	int rc;

	if (!chunk)
		return -ENOMEM;
	buf_init(&chunk->rows);
	do {
		buf_reset(&chunk->rows);
		chunk->entries = chunk->visited = 0;
		rc = kv_view(catalog->kv, take_chunk, chunk);
		if (rc < 0)
			break;
		rc = buf_failed(&chunk->rows) ? -ENOMEM : 0;
		writer->entries += chunk->entries;
		if (!rc)
			rc = compress_some(writer, chunk->rows.data, chunk->rows.len, ZSTD_e_continue);
	} while (!rc && chunk->visited);
	buf_free(&chunk->rows);
	free(chunk);
	return rc;
}

int catalog_export_snapshot(struct catalog *catalog, cat_sink sink, void *arg, uint64_t *ret_number)
{
	struct export export = {.catalog = catalog, .begun = true};
	uint64_t began = kv_number(catalog->kv), number;
	int rc;

	export.writer = writer_new(sink, arg);
	if (!export.writer)
		return -ENOMEM;
	rc = write_header(export.writer, catalog, PIECE_SNAPSHOT, 0);
	if (!rc)
		rc = write_rows(catalog, export.writer);
	number = kv_number(catalog->kv);
	if (!rc)
		rc = kv_sync(catalog->kv);
	if (!rc)
		rc = kv_log_each(catalog->kv, began, number, export_mutation, &export);
	if (!rc)
		rc = write_trailer(export.writer, number);
	if (!rc)
		*ret_number = number;
	writer_free(export.writer);
	return rc;
}

void catalog_shipped(struct catalog *catalog, uint64_t upto)
{
	kv_log_release(catalog->kv, upto);
}

/* --- a piece at rest ---------------------------------------------------------------------------------------- */

/* The whole piece, so that it can be read twice: in memory, or when large in a nameless file. */
struct spool {
	struct buf memory;
	int fd; /* -1: all in memory */
	uint64_t size;
};

static int spool_to_file(struct spool *spool)
{
	const char *dir = getenv("TMPDIR");
	AUTO_BUF path = BUF_INIT;
	int fd;

	buf_addf(&path, "%s/varve-import-XXXXXX", dir && *dir ? dir : "/var/tmp");
	if (buf_failed(&path))
		return -ENOMEM;
	fd = mkostemp(path.data, O_CLOEXEC); /* 0600 */
	if (fd < 0)
		return -errno;
	(void)unlink(path.data); /* at worst a private file stays behind */
	spool->fd = fd;
	return 0;
}

static int spool_flush(struct spool *spool)
{
	const char *at = spool->memory.data;
	size_t left = spool->memory.len;

	while (left) {
		ssize_t done = write(spool->fd, at, left);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		at += done;
		left -= (size_t)done;
	}
	buf_reset(&spool->memory);
	return 0;
}

static int spool_fill(struct spool *spool, cat_source source, void *arg)
{
	ssize_t got;
	int rc;

	for (;;) {
		if (buf_reserve(&spool->memory, 64 << 10))
			return -ENOMEM;
		got = source(arg, spool->memory.data + spool->memory.len, 64 << 10);
		if (got < 0)
			return (int)got;
		if (got == 0)
			return spool->fd >= 0 ? spool_flush(spool) : 0;
		spool->memory.len += (size_t)got;
		spool->size += (uint64_t)got;
		if (spool->memory.len < SPOOL_MEMORY)
			continue;
		rc = spool->fd < 0 ? spool_to_file(spool) : 0;
		if (!rc)
			rc = spool_flush(spool);
		if (rc)
			return rc;
	}
}

/* Exactly `len` bytes at `offset`, which are there. */
static int spool_read(const struct spool *spool, uint64_t offset, void *ret_bytes, size_t len)
{
	uint8_t *to = ret_bytes;

	if (spool->fd < 0) {
		memcpy(to, spool->memory.data + offset, len);
		return 0;
	}
	while (len) {
		ssize_t got = pread(spool->fd, to, len, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		to += got;
		offset += (uint64_t)got;
		len -= (size_t)got;
	}
	return 0;
}

static void spool_free(struct spool *spool)
{
	if (spool->fd >= 0)
		(void)close(spool->fd); /* nameless: nothing is lost */
	buf_free(&spool->memory);
}

/* --- reading a piece ------------------------------------------------------------------------------------------- */

struct piece {
	enum piece_kind kind;
	uint8_t store_id[CAT_STORE_ID_SIZE];
	uint64_t from, to, entries;
};

static int check_crc(const struct spool *spool, uint32_t want)
{
	uint8_t bytes[16 << 10];
	uint64_t at = 0, end = spool->size - 4;
	uint32_t crc = 0;

	while (at < end) {
		size_t len = end - at < sizeof(bytes) ? (size_t)(end - at) : sizeof(bytes);
		int rc = spool_read(spool, at, bytes, len);

		if (rc)
			return rc;
		crc = crc32c_update(crc, bytes, len);
		at += len;
	}
	return crc == want ? 0 : -EBADMSG;
}

/* -EBADMSG; -EPROTO: written by a newer varve. */
static int read_frame(const struct spool *spool, struct piece *ret_piece)
{
	uint8_t header[HEADER_SIZE], trailer[TRAILER_SIZE];
	struct cursor head = cursor_of(header, sizeof(header)), tail = cursor_of(trailer, sizeof(trailer));
	struct piece piece = {0};
	uint16_t version;
	int rc;

	if (spool->size < HEADER_SIZE + TRAILER_SIZE)
		return -EBADMSG;
	rc = spool_read(spool, 0, header, sizeof(header));
	if (!rc)
		rc = spool_read(spool, spool->size - TRAILER_SIZE, trailer, sizeof(trailer));
	if (rc)
		return rc;
	if (memcmp(cursor_bytes(&head, MAGIC_SIZE), MAGIC, MAGIC_SIZE) != 0)
		return -EBADMSG;
	piece.entries = cursor_u64(&tail);
	piece.to = cursor_u64(&tail);
	rc = check_crc(spool, cursor_u32(&tail));
	if (rc)
		return rc;
	version = cursor_u16(&head);
	if (version > FORMAT_VERSION)
		return -EPROTO;
	piece.kind = cursor_u16(&head);
	memcpy(piece.store_id, cursor_bytes(&head, CAT_STORE_ID_SIZE), CAT_STORE_ID_SIZE);
	piece.from = cursor_u64(&head);
	if ((piece.kind != PIECE_SEGMENT && piece.kind != PIECE_SNAPSHOT) || piece.from > piece.to)
		return -EBADMSG;
	*ret_piece = piece;
	return 0;
}

/* Takes the entries out of the body, one after another. */
struct unpack {
	const struct spool *spool;
	ZSTD_DCtx *zstd;
	uint64_t at, end; /* of the body, in the spool */
	ZSTD_inBuffer in;
	bool frame_ended;
	struct buf ready; /* unpacked, taken up to `taken` */
	size_t taken;
	uint8_t chunk[64 << 10];
};

static void unpack_free(struct unpack *unpack)
{
	if (unpack) {
		ZSTD_freeDCtx(unpack->zstd);
		buf_free(&unpack->ready);
		free(unpack);
	}
}

static struct unpack *unpack_new(const struct spool *spool)
{
	struct unpack *unpack = calloc(1, sizeof(*unpack));

	if (!unpack)
		return NULL;
	unpack->spool = spool;
	unpack->at = HEADER_SIZE;
	unpack->end = spool->size - TRAILER_SIZE;
	buf_init(&unpack->ready);
	unpack->zstd = ZSTD_createDCtx();
	if (!unpack->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(unpack->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
		unpack_free(unpack);
		return NULL;
	}
	return unpack;
}

static int unpack_refill(struct unpack *unpack)
{
	size_t len = sizeof(unpack->chunk);
	int rc;

	if (unpack->in.pos < unpack->in.size)
		return 0;
	if (unpack->at == unpack->end)
		return -EBADMSG; /* the frame ends before its end mark */
	if (len > unpack->end - unpack->at)
		len = (size_t)(unpack->end - unpack->at);
	rc = spool_read(unpack->spool, unpack->at, unpack->chunk, len);
	if (rc)
		return rc;
	unpack->at += len;
	unpack->in = (ZSTD_inBuffer){.src = unpack->chunk, .size = len};
	return 0;
}

/* At least `len` bytes ready. -ENODATA: none are left at all; -EBADMSG: fewer are. */
static int unpack_need(struct unpack *unpack, size_t len)
{
	while (unpack->ready.len - unpack->taken < len) {
		ZSTD_outBuffer out = {0};
		size_t left;
		int rc;

		if (unpack->frame_ended && unpack->ready.len == unpack->taken)
			return unpack->in.pos < unpack->in.size || unpack->at < unpack->end ? -EBADMSG : -ENODATA;
		rc = unpack->frame_ended ? -EBADMSG : unpack_refill(unpack);
		if (rc)
			return rc;
		if (unpack->taken) { /* what was taken makes room */
			unpack->ready.len -= unpack->taken;
			memmove(unpack->ready.data, unpack->ready.data + unpack->taken, unpack->ready.len);
			unpack->taken = 0;
		}
		if (buf_reserve(&unpack->ready, 64 << 10))
			return -ENOMEM;
		out.dst = unpack->ready.data + unpack->ready.len;
		out.size = 64 << 10;
		left = ZSTD_decompressStream(unpack->zstd, &out, &unpack->in);
		if (ZSTD_isError(left))
			return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
		unpack->ready.len += out.pos;
		unpack->frame_ended = left == 0;
	}
	return 0;
}

struct entry {
	struct kv_bytes key, value;
	enum op op;
	size_t size; /* in the form of the body, at `raw` */
	const uint8_t *raw;
};

static const uint8_t *unpacked(const struct unpack *unpack, size_t offset)
{
	return (const uint8_t *)unpack->ready.data + unpack->taken + offset;
}

/* -ENODATA after the last. What it points at lives until the next call. */
static int unpack_next(struct unpack *unpack, struct entry *ret_entry)
{
	struct entry entry = {0};
	struct cursor cursor;
	int rc = unpack_need(unpack, 3);

	if (rc)
		return rc;
	cursor = cursor_of(unpacked(unpack, 0), 3);
	entry.op = cursor_u8(&cursor);
	entry.key.len = cursor_u16(&cursor);
	if ((entry.op != OP_PUT && entry.op != OP_DELETE) || entry.key.len == 0 || entry.key.len > KV_KEY_MAX)
		return -EBADMSG;
	entry.size = 3 + entry.key.len;
	if (entry.op == OP_PUT) {
		rc = unpack_need(unpack, entry.size + 4);
		if (rc)
			return rc;
		cursor = cursor_of(unpacked(unpack, entry.size), 4);
		entry.value.len = cursor_u32(&cursor);
		if (entry.value.len > VALUE_MAX)
			return -EBADMSG;
		entry.size += 4 + entry.value.len;
	}
	rc = unpack_need(unpack, entry.size);
	if (rc)
		return rc;
	entry.raw = unpacked(unpack, 0);
	entry.key.data = entry.raw + 3;
	entry.value.data = entry.raw + entry.size - entry.value.len;
	unpack->taken += entry.size;
	*ret_entry = entry;
	return 0;
}

/* Reads it all, for nothing but to know that it can be read. */
static int check_entries(const struct spool *spool, const struct piece *piece)
{
	struct unpack *unpack = unpack_new(spool);
	struct entry entry;
	uint64_t entries = 0;
	int rc;

	if (!unpack)
		return -ENOMEM;
	while (!(rc = unpack_next(unpack, &entry))) {
		entries++;
		if (!schema_is_portable(entry.key)) {
			rc = -EBADMSG;
			break;
		}
	}
	unpack_free(unpack);
	if (rc == -ENODATA)
		rc = entries == piece->entries ? 0 : -EBADMSG;
	return rc;
}

/* --- the mark ---------------------------------------------------------------------------------------------------- */

struct mark {
	uint64_t number;            /* of the catalog that was imported: its state is here up to this one */
	uint64_t local;             /* our own update that completed the import */
	enum piece_kind unfinished; /* NONE, or what is being applied */
	uint64_t unfinished_to;
};

static int mark_read(struct kv_txn *txn, void *arg)
{
	struct mark mark = {0};
	struct schema_key key;
	struct kv_bytes value, blob;
	struct cursor cursor;
	int rc;

	schema_key_setting(&key, MARK_NAME);
	rc = kv_get(txn, schema_bytes(&key), &value);
	if (rc == -ENOENT)
		rc = 0; /* never imported: zeros */
	else if (!rc && !(rc = schema_decode_blob(value, &blob))) {
		cursor = cursor_of(blob.data, blob.len);
		mark.number = cursor_u64(&cursor);
		mark.local = cursor_u64(&cursor);
		mark.unfinished = cursor_u8(&cursor);
		mark.unfinished_to = cursor_u64(&cursor);
		rc = cursor.failed ? -EBADMSG : 0;
	}
	if (!rc)
		*(struct mark *)arg = mark;
	return rc;
}

static int mark_write(struct kv_txn *txn, const struct mark *mark)
{
	AUTO_BUF blob = BUF_INIT;
	AUTO_BUF value = BUF_INIT;
	struct schema_key key;

	buf_add_u64(&blob, mark->number);
	buf_add_u64(&blob, mark->local);
	buf_add_u8(&blob, (uint8_t)mark->unfinished);
	buf_add_u64(&blob, mark->unfinished_to);
	schema_encode_blob(blob.data, blob.len, &value);
	if (buf_failed(&blob) || buf_failed(&value))
		return -ENOMEM;
	schema_key_setting(&key, MARK_NAME);
	return kv_put(txn, schema_bytes(&key), (struct kv_bytes){value.data, value.len});
}

/* --- does it follow on? ------------------------------------------------------------------------------------------- */

static int any_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	(void)arg;
	(void)key;
	(void)value;
	return -ENOTEMPTY;
}

/* -ENOTEMPTY while anything waits here to be stored: a snapshot would take away what it belongs to. */
static int check_idle(struct kv_txn *txn, void *arg)
{
	static const enum schema_tag tags[] = {SCHEMA_JOB, SCHEMA_DIRTY};
	int rc = 0;

	(void)arg;
	for (size_t i = 0; !rc && i < ARRAY_SIZE(tags); i++) {
		struct schema_key from, to;

		schema_key_begin(&from, tags[i]);
		schema_key_after(&to, &from);
		rc = kv_scan(txn, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 1, any_row, NULL);
	}
	return rc;
}

/* Counters are leased by harmless updates too, and never go back anyway. */
static int find_own_change(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	struct schema_parts parts;

	(void)arg;
	(void)number;
	(void)value;
	if (!schema_is_portable(key) || (schema_parse(key, &parts) == 0 && parts.tag == SCHEMA_META))
		return 0;
	return -ESTALE;
}

/* 0; 1: its content is here already; -ESTALE. */
static int check_follows(struct catalog *catalog, const struct piece *piece, const struct mark *mark)
{
	if (piece->kind == PIECE_SNAPSHOT)
		return kv_view(catalog->kv, check_idle, NULL);
	if (mark->unfinished == PIECE_SNAPSHOT || piece->from > mark->number)
		return -ESTALE;
	if (mark->unfinished == PIECE_SEGMENT)
		return piece->to >= mark->unfinished_to ? 0 : -ESTALE;
	if (mark->number && piece->to <= mark->number)
		return 1;
	/* Before the first import there is only what made the catalog itself. */
	return mark->number ? kv_log_each(catalog->kv, mark->local, UINT64_MAX, find_own_change, NULL) : 0;
}

static int check_store(struct catalog *catalog, const struct piece *piece)
{
	static const uint8_t unset[CAT_STORE_ID_SIZE];
	uint8_t ours[CAT_STORE_ID_SIZE];
	int rc = catalog_store_id(catalog, ours);

	if (rc || memcmp(ours, unset, sizeof(ours)) == 0)
		return rc;
	return memcmp(ours, piece->store_id, sizeof(ours)) == 0 ? 0 : -EXDEV;
}

/* --- applying --------------------------------------------------------------------------------------------------------
 */

/* The mutations of one update, in the form of the body, and the mark that goes with them. */
struct batch {
	struct kv *kv;
	struct buf entries;
	struct mark mark;
	enum { BATCH_MORE, BATCH_LAST } place;
};

static int apply_batch(struct kv_txn *txn, void *arg)
{
	struct batch *batch = arg;
	struct cursor cursor = cursor_of(batch->entries.data, batch->entries.len);
	struct mark mark = batch->mark;
	int rc = 0;

	while (!rc && cursor.at < cursor.end) {
		enum op op = cursor_u8(&cursor);
		struct kv_bytes key = {.len = cursor_u16(&cursor)}, value = {0};

		key.data = cursor_bytes(&cursor, key.len);
		if (op == OP_PUT)
			value.data = cursor_blob(&cursor, &value.len);
		rc = op == OP_PUT ? kv_put(txn, key, value) : kv_delete(txn, key);
	}
	if (batch->place == BATCH_LAST)
		mark.local = kv_number(batch->kv) + 1; /* updates are serialised: this is the next */
	return rc ? rc : mark_write(txn, &mark);
}

static int flush_batch(struct batch *batch)
{
	int rc = buf_failed(&batch->entries) ? -ENOMEM : kv_update(batch->kv, apply_batch, batch);

	buf_reset(&batch->entries);
	return rc;
}

static int delete_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct chunk *chunk = arg;

	(void)value;
	chunk->visited++;
	memcpy(chunk->from, key.data, key.len);
	chunk->from[key.len] = 0;
	chunk->from_len = key.len + 1;
	if (schema_is_portable(key))
		add_entry(&chunk->rows, key, NULL);
	return 0;
}

static int list_rows(struct kv_txn *txn, void *arg)
{
	struct chunk *chunk = arg;

	return kv_scan(txn, (struct kv_bytes){chunk->from, chunk->from_len}, end_of_keys, KV_FORWARD, CHUNK_ROWS,
		       delete_row, chunk);
}

/* A snapshot is all there is: what it does not name must go. */
static int delete_portable(struct batch *batch)
{
	struct chunk *chunk = calloc(1, sizeof(*chunk));
	int rc;

	if (!chunk)
		return -ENOMEM;
	do {
		chunk->visited = 0;
		chunk->rows = batch->entries; /* lent for the view */
		rc = kv_view(batch->kv, list_rows, chunk);
		batch->entries = chunk->rows;
		if (!rc)
			rc = flush_batch(batch);
	} while (!rc && chunk->visited);
	free(chunk);
	return rc;
}

static int apply_entries(struct batch *batch, const struct spool *spool)
{
	struct unpack *unpack = unpack_new(spool);
	struct entry entry;
	int rc = unpack ? 0 : -ENOMEM;

	while (!rc && !(rc = unpack_next(unpack, &entry))) {
		buf_add(&batch->entries, entry.raw, entry.size);
		if (batch->entries.len >= BATCH_SIZE)
			rc = flush_batch(batch);
	}
	unpack_free(unpack);
	return rc == -ENODATA ? 0 : rc;
}

static int apply_piece(struct catalog *catalog, const struct spool *spool, const struct piece *piece,
		       const struct mark *before)
{
	struct batch batch = {.kv = catalog->kv, .entries = BUF_INIT, .mark = *before};
	int rc = 0;

	batch.mark.unfinished = piece->kind;
	batch.mark.unfinished_to = piece->to;
	if (piece->kind == PIECE_SNAPSHOT)
		rc = delete_portable(&batch);
	if (!rc)
		rc = apply_entries(&batch, spool);
	if (!rc) {
		batch.place = BATCH_LAST;
		batch.mark = (struct mark){.number = piece->to};
		rc = flush_batch(&batch);
	}
	buf_free(&batch.entries);
	return rc;
}

int catalog_import(struct catalog *catalog, cat_source source, void *arg)
{
	struct spool spool = {.memory = BUF_INIT, .fd = -1};
	struct piece piece;
	struct mark mark;
	int rc = spool_fill(&spool, source, arg);

	if (!rc)
		rc = read_frame(&spool, &piece);
	if (!rc)
		rc = check_store(catalog, &piece);
	if (!rc)
		rc = check_entries(&spool, &piece);
	if (!rc)
		rc = kv_view(catalog->kv, mark_read, &mark);
	if (!rc)
		rc = check_follows(catalog, &piece, &mark);
	if (rc) {
		rc = rc == 1 ? 0 : rc;
		goto out;
	}
	rc = apply_piece(catalog, &spool, &piece, &mark);
	if (!rc)
		rc = catalog_reload_counters(catalog);
out:
	spool_free(&spool);
	return rc;
}
