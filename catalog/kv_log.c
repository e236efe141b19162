/*
 * kv_log.c - the redo log: append, shared sync, replay, retention.
 *
 * Invariants
 *  - Only the last file may have a torn tail: a file is synced before the next one is created, and its successor's
 *    header and directory entry are synced before the first record goes there.
 *  - [0, tail) of the last file holds whole records. Bytes at or past tail are of a failed write; `ragged` says that
 *    they could not be cut off yet, and then no record is written before they are.
 *  - synced <= number. Once a sync failed nothing more is promised or accepted: the kernel may have marked pages clean
 *    that never reached the disk, so a second fdatasync would lie.
 *  - Files are deleted oldest first and by one thread at a time, so that a crash leaves no gap.
 *
 * Threads: the appender (one at a time, by the owner's lock) changes fd, tail, number and the last file, under `lock`,
 * and reads them without it. Everybody else holds `lock`. fdatasync, reading and unlinking are done without it.
 */
#include "catalog/kv_log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "lock.h"
#include "log.h"

#define MODULE "kv_log"
#define MAGIC "varveRDO"
#define MAGIC_SIZE 8
#define FORMAT_VERSION 1
#define FILE_HEADER_SIZE 24
#define RECORD_HEADER_SIZE 16
#define NAME_SIZE (sizeof("redo-0123456789abcdef.log"))
#define KEEP_SIZE_DEFAULT ((uint64_t)1 << 30)
#define WINDOW_SIZE ((size_t)256 << 10)
#define WRITE_BEHIND ((uint64_t)1 << 20)
#define RECORD_KEEP_CAP ((size_t)1 << 20) /* a record buf that grew beyond gives its memory back */

enum mutation { MUTATION_PUT = 1, MUTATION_DELETE = 2 };

struct file {
	uint64_t first; /* number of its first record */
	uint64_t size;  /* of whole records and header; of the last file: tail */
};

struct kvlog {
	int dir_fd;
	uint64_t segment_size, keep_size;
	bool read_only;
	_Atomic bool failed; /* a sync failed; set under lock */
	bool ragged;         /* appender's own, as is the next */
	uint64_t behind;     /* writing of [0, behind) of the last file to disk was begun */

	struct lock lock;
	pthread_cond_t synced_cond;
	/* All below: lock */
	int fd; /* the last file; -1: there is none */
	uint64_t tail;
	uint64_t number, synced, folded, released;
	struct file *files; /* in order */
	size_t count, cap;
	uint64_t bytes; /* of all files */
	uint64_t syncs;
	bool syncing;  /* a thread is in fdatasync(fd) */
	bool trimming; /* a thread is unlinking */
	/* Where the last kvlog_each ended, for the next to go on: record number `number` begins there. */
	struct {
		uint64_t number, file_first, offset;
	} hint;
};

/* --- bytes ------------------------------------------------------------------------------------------------ */

static void put_u32(uint8_t *at, uint32_t value)
{
	for (int i = 3; i >= 0; i--, value >>= 8)
		at[i] = (uint8_t)value;
}

static void put_u64(uint8_t *at, uint64_t value)
{
	put_u32(at, (uint32_t)(value >> 32));
	put_u32(at + 4, (uint32_t)value);
}

static void file_name(uint64_t first, char ret_name[static NAME_SIZE])
{
	(void)snprintf(ret_name, NAME_SIZE, "redo-%016" PRIx64 ".log", first); /* cannot be cut: the width is fixed */
}

static void encode_header(uint64_t first, uint8_t ret_header[static FILE_HEADER_SIZE])
{
	memcpy(ret_header, MAGIC, MAGIC_SIZE);
	put_u32(ret_header + 8, FORMAT_VERSION);
	put_u64(ret_header + 12, first);
	put_u32(ret_header + 20, crc32c_update(0, ret_header, 20));
}

/* 0, -EPROTO (a newer format), -EBADMSG, -errno. */
static int check_header(int fd, uint64_t first)
{
	uint8_t header[FILE_HEADER_SIZE];
	struct cursor cursor = cursor_of(header, sizeof(header));
	ssize_t got = pread(fd, header, sizeof(header), 0);

	if (got < 0)
		return -errno;
	if (got != FILE_HEADER_SIZE || memcmp(cursor_bytes(&cursor, MAGIC_SIZE), MAGIC, MAGIC_SIZE) != 0)
		return -EBADMSG;
	if (cursor_u32(&cursor) > FORMAT_VERSION)
		return -EPROTO;
	if (cursor_u64(&cursor) != first || cursor_u32(&cursor) != crc32c_update(0, header, 20))
		return -EBADMSG;
	return 0;
}

void kvlog_record_begin(struct buf *record)
{
	static const uint8_t header[RECORD_HEADER_SIZE];

	if (record->cap > RECORD_KEEP_CAP)
		buf_free(record);
	else
		buf_reset(record);
	buf_add(record, header, sizeof(header));
}

void kvlog_record_add(struct buf *record, struct kv_bytes key, const struct kv_bytes *value)
{
	buf_add_u8(record, value ? MUTATION_PUT : MUTATION_DELETE);
	buf_add_u16(record, (uint16_t)key.len);
	buf_add(record, key.data, key.len);
	if (value)
		buf_add_blob(record, value->data, value->len);
}

static void seal_record(struct buf *record, uint64_t number)
{
	uint8_t *bytes = (uint8_t *)record->data;

	put_u32(bytes + 4, (uint32_t)(record->len - RECORD_HEADER_SIZE));
	put_u64(bytes + 8, number);
	put_u32(bytes, crc32c_update(0, bytes + 4, record->len - 4));
}

static int visit_payload(struct kv_bytes payload, uint64_t number, kv_mutation_visit visit, void *arg)
{
	struct cursor cursor = cursor_of(payload.data, payload.len);

	while (cursor.at < cursor.end) {
		uint8_t op = cursor_u8(&cursor);
		struct kv_bytes key = {.len = cursor_u16(&cursor)};
		struct kv_bytes value = {0};
		int rc;

		key.data = cursor_bytes(&cursor, key.len);
		if (op == MUTATION_PUT)
			value.data = cursor_blob(&cursor, &value.len);
		else if (op != MUTATION_DELETE)
			return -EBADMSG;
		if (cursor.failed || key.len == 0 || key.len > KV_KEY_MAX)
			return -EBADMSG;
		rc = visit(arg, number, key, op == MUTATION_PUT ? &value : NULL);
		if (rc)
			return rc;
	}
	return 0;
}

/* --- reading a file ----------------------------------------------------------------------------------------- */

/* Reads records one after another through a window of the file. */
struct reader {
	int fd;
	uint64_t at, end; /* offsets: of the next record; of what may be read */
	uint64_t window_at;
	struct buf window;
};

static void reader_close(struct reader *reader)
{
	if (reader->fd >= 0)
		(void)close(reader->fd); /* only read from */
	buf_free(&reader->window);
}

static int reader_open(struct kvlog *log, const struct file *file, struct reader *ret_reader)
{
	char name[NAME_SIZE];
	struct reader reader = {.at = FILE_HEADER_SIZE, .end = file->size, .window = BUF_INIT};
	int rc;

	file_name(file->first, name);
	reader.fd = openat(log->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (reader.fd < 0)
		return -errno;
	rc = check_header(reader.fd, file->first);
	if (rc) {
		reader_close(&reader);
		return rc;
	}
	*ret_reader = reader;
	return 0;
}

/* Points at `len` bytes at offset `at`. -EBADMSG: the file ends before. */
static int reader_peek(struct reader *reader, size_t len, const uint8_t **ret_bytes)
{
	uint64_t skip = reader->at - reader->window_at;
	size_t want = len > WINDOW_SIZE ? len : WINDOW_SIZE;

	if (len > reader->end - reader->at)
		return -EBADMSG;
	if (reader->window.len == 0 || skip > reader->window.len || reader->window.len - skip < len) {
		buf_reset(&reader->window);
		if (want > reader->end - reader->at)
			want = (size_t)(reader->end - reader->at);
		if (buf_reserve(&reader->window, want))
			return -ENOMEM;
		while (reader->window.len < want) {
			ssize_t got = pread(reader->fd, reader->window.data + reader->window.len,
					    want - reader->window.len, (off_t)(reader->at + reader->window.len));
			if (got < 0)
				return -errno;
			if (got == 0)
				return -EBADMSG; /* shorter than its size was: somebody else cut it */
			reader->window.len += (size_t)got;
		}
		reader->window_at = reader->at;
		skip = 0;
	}
	*ret_bytes = (const uint8_t *)reader->window.data + skip;
	return 0;
}

/* The next record, which must have this number. -ENODATA at the end, -EBADMSG when there is anything else. */
static int reader_next(struct reader *reader, uint64_t number, struct kv_bytes *ret_payload)
{
	const uint8_t *bytes;
	struct cursor cursor;
	uint32_t crc, len;
	int rc;

	if (reader->at == reader->end)
		return -ENODATA;
	rc = reader_peek(reader, RECORD_HEADER_SIZE, &bytes);
	if (rc)
		return rc;
	cursor = cursor_of(bytes, RECORD_HEADER_SIZE);
	crc = cursor_u32(&cursor);
	len = cursor_u32(&cursor);
	if (cursor_u64(&cursor) != number || len > KVLOG_PAYLOAD_MAX)
		return -EBADMSG;
	rc = reader_peek(reader, RECORD_HEADER_SIZE + (size_t)len, &bytes);
	if (rc)
		return rc;
	if (crc32c_update(0, bytes + 4, RECORD_HEADER_SIZE - 4 + (size_t)len) != crc)
		return -EBADMSG;
	reader->at += RECORD_HEADER_SIZE + (uint64_t)len;
	*ret_payload = (struct kv_bytes){bytes + RECORD_HEADER_SIZE, len};
	return 0;
}

/* --- the row of files ---------------------------------------------------------------------------------------- */

static int files_push(struct kvlog *log, uint64_t first, uint64_t size)
{
	if (ARRAY_ROOM(log->files, log->cap, log->count))
		return -ENOMEM;
	log->files[log->count++] = (struct file){.first = first, .size = size};
	log->bytes += size;
	return 0;
}

static int compare_files(const void *a, const void *b)
{
	uint64_t first_a = ((const struct file *)a)->first, first_b = ((const struct file *)b)->first;

	return first_a < first_b ? -1 : first_a > first_b;
}

/* Is this the name of a log file, and of which? */
static bool parse_name(const char *name, uint64_t *ret_first)
{
	char again[NAME_SIZE];
	uint64_t first;

	if (sscanf(name, "redo-%16" SCNx64 ".log", &first) != 1)
		return false;
	file_name(first, again);
	if (strcmp(name, again) != 0)
		return false;
	*ret_first = first;
	return true;
}

static int list_files(struct kvlog *log)
{
	int fd = openat(log->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			(void)close(fd); /* only read from */
		return rc;
	}
	while (!rc && (errno = 0, entry = readdir(dir))) {
		struct stat st;
		uint64_t first;

		if (!parse_name(entry->d_name, &first))
			continue;
		rc = fstatat(log->dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
		if (!rc && !S_ISREG(st.st_mode))
			rc = -EBADMSG;
		if (!rc)
			rc = files_push(log, first, (uint64_t)st.st_size);
	}
	if (!rc && errno)
		rc = -errno;
	(void)closedir(dir); /* only read from */
	if (log->count)
		qsort(log->files, log->count, sizeof(*log->files), compare_files);
	return rc;
}

static int unlink_file(struct kvlog *log, uint64_t first)
{
	char name[NAME_SIZE];

	file_name(first, name);
	return unlinkat(log->dir_fd, name, 0) < 0 ? -errno : 0;
}

static bool may_drop_first(const struct kvlog *log)
{
	uint64_t last;

	if (log->count < 2)
		return false;
	last = log->files[1].first - 1;
	return last <= log->folded && (last <= log->released || log->bytes > log->keep_size);
}

/* Deletes what is no longer needed. Lock held, and let go meanwhile. */
static void trim(struct kvlog *log)
{
	if (log->trimming)
		return; /* whoever is at it looks again after each file */
	log->trimming = true;
	while (may_drop_first(log)) {
		struct file file = log->files[0];
		int rc;

		memmove(log->files, log->files + 1, --log->count * sizeof(*log->files));
		log->bytes -= file.size;
		lock_release(&log->lock);
		rc = unlink_file(log, file.first);
		if (rc)
			log_warn(MODULE, "redo log file %016" PRIx64 " could not be deleted: %s", file.first,
				 strerror(-rc));
		lock_acquire(&log->lock);
	}
	log->trimming = false;
}

/* --- appending ------------------------------------------------------------------------------------------------ */

/* Regular files take everything at once, or as much as there is room for; then the next call says why. */
static int write_all(int fd, const void *bytes, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t done = pwrite(fd, bytes, len, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
		if (done == 0)
			return -ENOSPC;
		bytes = (const uint8_t *)bytes + done;
		len -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

static int create_file(struct kvlog *log, uint64_t first, int *ret_fd)
{
	uint8_t header[FILE_HEADER_SIZE];
	char name[NAME_SIZE];
	int fd, rc;

	file_name(first, name);
	encode_header(first, header);
	/* A leftover of this name holds nothing: no record `first` was ever acknowledged. */
	fd = openat(log->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == EDQUOT ? -ENOSPC : -errno;
	rc = write_all(fd, header, sizeof(header), 0);
	if (!rc && (fdatasync(fd) < 0 || fsync(log->dir_fd) < 0))
		rc = -errno;
	if (rc) {
		(void)close(fd);                      /* it is given up */
		(void)unlinkat(log->dir_fd, name, 0); /* and if it stays, opening knows it for unborn */
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

/* Lock held. */
static void wait_while_syncing(struct kvlog *log)
{
	while (log->syncing)
		(void)lock_wait(&log->lock, &log->synced_cond, 0); /* no deadline: it only ever wakes */
}

/* Begins the next file. The appender only (or kvlog_open). */
static int begin_file(struct kvlog *log)
{
	uint64_t first = log->number + 1;
	int fd = -1, old, rc;

	rc = log->fd < 0 ? 0 : kvlog_sync(log);
	if (rc)
		return rc;
	rc = create_file(log, first, &fd);
	if (rc)
		return rc;
	LOCK_GUARD(&log->lock);
	wait_while_syncing(log);
	rc = files_push(log, first, FILE_HEADER_SIZE);
	if (rc) {
		(void)close(fd);               /* holds nothing */
		(void)unlink_file(log, first); /* an empty file is harmless */
		return rc;
	}
	old = log->fd;
	log->fd = fd;
	log->tail = FILE_HEADER_SIZE;
	log->behind = 0;
	if (old >= 0)
		(void)close(old); /* it was synced */
	return 0;
}

/* Bytes of a failed write must go before anything is written behind them or the file is left. */
static int cut_ragged(struct kvlog *log)
{
	if (log->ragged) {
		if (ftruncate(log->fd, (off_t)log->tail) < 0)
			return -errno;
		log->ragged = false;
	}
	return 0;
}

static int make_ready(struct kvlog *log)
{
	int rc;

	if (atomic_load_explicit(&log->failed, memory_order_relaxed))
		return -EIO;
	rc = cut_ragged(log);
	if (rc || (log->fd >= 0 && log->tail < log->segment_size))
		return rc;
	rc = begin_file(log);
	if (rc && log->fd >= 0 && !atomic_load_explicit(&log->failed, memory_order_relaxed)) {
		log_debug(MODULE, "no new redo log file: %s; going on in the old one", strerror(-rc));
		rc = 0;
	}
	return rc;
}

/* Has the kernel begin to write what lies behind, so that the sync at the end of the file has little left to do. Whole
 * pages only: one that is being written would hold up the next append. A hint: errors show in the sync. */
static void write_behind(struct kvlog *log)
{
	uint64_t upto = log->tail & ~(uint64_t)4095;

	if (log->tail < log->behind + WRITE_BEHIND)
		return;
	(void)sync_file_range(log->fd, (off_t)log->behind, (off_t)(upto - log->behind), SYNC_FILE_RANGE_WRITE);
	log->behind = upto;
}

int kvlog_append(struct kvlog *log, struct buf *record)
{
	int rc;

	if (buf_failed(record))
		return -ENOMEM;
	if (record->len - RECORD_HEADER_SIZE > KVLOG_PAYLOAD_MAX)
		return -E2BIG;
	rc = make_ready(log);
	if (rc)
		return rc;
	seal_record(record, log->number + 1);
	rc = write_all(log->fd, record->data, record->len, log->tail);
	if (rc) {
		log->ragged = true;
		(void)cut_ragged(log); /* tried again before the next record */
		return rc;
	}
	lock_acquire(&log->lock);
	log->tail += record->len;
	log->bytes += record->len;
	log->files[log->count - 1].size = log->tail;
	log->number++;
	lock_release(&log->lock);
	write_behind(log);
	return 0;
}

uint64_t kvlog_number(struct kvlog *log)
{
	LOCK_GUARD(&log->lock);
	return log->number;
}

int kvlog_sync(struct kvlog *log)
{
	LOCK_GUARD(&log->lock);
	uint64_t target = log->number;

	while (!log->failed && log->synced < target) {
		uint64_t upto = log->number;
		int fd = log->fd, rc;

		if (log->syncing) {
			wait_while_syncing(log);
			continue;
		}
		log->syncing = true;
		lock_release(&log->lock);
		rc = fdatasync(fd) < 0 ? -errno : 0;
		lock_acquire(&log->lock);
		log->syncing = false;
		log->syncs++;
		if (rc) {
			log_error(MODULE, "the redo log could not be synced: %s; no further changes are accepted",
				  strerror(-rc));
			log->failed = true;
		} else if (log->synced < upto) {
			log->synced = upto;
		}
		pthread_cond_broadcast(&log->synced_cond);
	}
	return log->failed ? -EIO : 0;
}

void kvlog_folded(struct kvlog *log, uint64_t upto)
{
	LOCK_GUARD(&log->lock);
	if (log->folded < upto)
		log->folded = upto;
	if (log->synced < upto)
		log->synced = upto; /* what was folded is durable there */
	trim(log);
}

void kvlog_release(struct kvlog *log, uint64_t upto)
{
	LOCK_GUARD(&log->lock);
	if (log->released < upto)
		log->released = upto;
	if (!log->read_only)
		trim(log);
}

void kvlog_figures(struct kvlog *log, uint64_t *ret_bytes, uint64_t *ret_syncs)
{
	LOCK_GUARD(&log->lock);
	*ret_bytes = log->bytes;
	*ret_syncs = log->syncs;
}

/* --- reading it back -------------------------------------------------------------------------------------------- */

/* What one kvlog_each reads: a copy of the files' list, so that the log may change meanwhile. */
struct each {
	struct file *files;
	size_t count;
	uint64_t number; /* of the record at offset `start` of the first of the files */
	uint64_t start;
	uint64_t after, upto;
};

/* Lock held. The plan has no files when there is nothing to read. */
static int plan_each(struct kvlog *log, struct each *each)
{
	size_t at;

	if (each->upto > log->number)
		each->upto = log->number;
	if (each->after > log->number)
		return -ESTALE;
	if (each->after >= each->upto)
		return 0;
	if (log->count == 0 || log->files[0].first > each->after + 1)
		return -ESTALE;
	for (at = log->count - 1; log->files[at].first > each->after + 1; at--)
		;
	each->count = log->count - at;
	each->files = calloc(each->count, sizeof(*each->files));
	if (!each->files)
		return -ENOMEM;
	memcpy(each->files, log->files + at, each->count * sizeof(*each->files));
	each->number = each->files[0].first;
	each->start = FILE_HEADER_SIZE;
	if (log->hint.file_first == each->number && log->hint.number <= each->after + 1) {
		each->number = log->hint.number;
		each->start = log->hint.offset;
	}
	return 0;
}

static void note_hint(struct kvlog *log, const struct file *file, uint64_t number, uint64_t offset)
{
	LOCK_GUARD(&log->lock);
	log->hint.file_first = file->first;
	log->hint.number = number;
	log->hint.offset = offset;
}

static int each_in_file(struct kvlog *log, struct each *each, const struct file *file, kv_mutation_visit visit,
			void *arg)
{
	struct reader reader;
	int rc = reader_open(log, file, &reader);

	if (rc)
		return rc == -ENOENT ? -ESTALE : rc;
	reader.at = each->start;
	while (each->number <= each->upto) {
		struct kv_bytes payload;

		rc = reader_next(&reader, each->number, &payload);
		if (rc) {
			rc = rc == -ENODATA ? 0 : rc;
			break;
		}
		if (each->number > each->after)
			rc = visit_payload(payload, each->number, visit, arg);
		if (rc)
			goto out;
		each->number++;
	}
	if (!rc)
		note_hint(log, file, each->number, reader.at);
out:
	reader_close(&reader);
	return rc;
}

int kvlog_each(struct kvlog *log, uint64_t after, uint64_t upto, kv_mutation_visit visit, void *arg)
{
	struct each each = {.after = after, .upto = upto};
	int rc;

	lock_acquire(&log->lock);
	rc = plan_each(log, &each);
	lock_release(&log->lock);
	for (size_t i = 0; !rc && i < each.count && each.number <= each.upto; i++) {
		if (i > 0) {
			each.start = FILE_HEADER_SIZE;
			if (each.files[i].first != each.number)
				rc = -EBADMSG;
		}
		if (!rc)
			rc = each_in_file(log, &each, &each.files[i], visit, arg);
	}
	if (!rc && each.count && each.number <= each.upto)
		rc = -EBADMSG; /* the files end before the records that were written to them */
	free(each.files);
	return rc;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static void forget_last(struct kvlog *log)
{
	log->bytes -= log->files[--log->count].size;
}

/* A kill between creating the last file and writing its header leaves it without one, and so without records. */
static int drop_unborn(struct kvlog *log)
{
	const struct file *last = log->count ? &log->files[log->count - 1] : NULL;
	struct reader reader;
	int rc;

	if (!last || last->size > FILE_HEADER_SIZE)
		return 0;
	rc = reader_open(log, last, &reader);
	if (!rc)
		reader_close(&reader);
	if (rc != -EBADMSG)
		return rc;
	rc = log->read_only ? 0 : unlink_file(log, last->first);
	if (!rc)
		forget_last(log);
	return rc;
}

/* Replays one file; log->number is the last record before it, and after it the last in it. */
static int replay_file(struct kvlog *log, struct file *file, const struct kvlog_options *options)
{
	bool last = file == &log->files[log->count - 1];
	struct kv_bytes payload;
	struct reader reader;
	int rc;

	if (file->first != log->number + 1) {
		log_error(MODULE, "redo log records %" PRIu64 " to %" PRIu64 " are missing", log->number + 1,
			  file->first - 1);
		return -EBADMSG;
	}
	rc = reader_open(log, file, &reader);
	if (rc)
		return rc;
	while (!(rc = reader_next(&reader, log->number + 1, &payload))) {
		if (log->number + 1 > options->folded)
			rc = visit_payload(payload, log->number + 1, options->replay, options->arg);
		if (rc)
			goto out;
		log->number++;
	}
	if (rc == -ENODATA) {
		rc = 0;
	} else if (rc == -EBADMSG && last) {
		log_warn(MODULE, "dropped %" PRIu64 " bytes of an unfinished record at the end of the redo log",
			 file->size - reader.at);
		log->bytes -= file->size - reader.at;
		file->size = reader.at;
		rc = 0;
	} else if (rc == -EBADMSG) {
		log_error(MODULE, "redo log file %016" PRIx64 " is damaged at offset %" PRIu64, file->first, reader.at);
	}
out:
	reader_close(&reader);
	return rc;
}

static int replay(struct kvlog *log, const struct kvlog_options *options)
{
	size_t at;
	int rc = drop_unborn(log);

	if (rc)
		return rc;
	log->number = options->folded;
	if (log->count == 0)
		return 0;
	for (at = log->count - 1; at > 0 && log->files[at].first > options->folded + 1; at--)
		;
	if (log->files[at].first <= options->folded)
		log->number = log->files[at].first - 1;
	for (; !rc && at < log->count; at++)
		rc = replay_file(log, &log->files[at], options);
	return rc;
}

/* A power cut may take the unsynced tail of the log while the folded store, synced on its own, has what was in it.
 * Then the next record does not follow on the log that is left. */
static int drop_outrun(struct kvlog *log, uint64_t folded)
{
	int rc = 0;

	if (log->number >= folded)
		return 0;
	/* Newest first: a crash half-way leaves a log that is outrun again. */
	while (!rc && log->count) {
		rc = log->read_only ? 0 : unlink_file(log, log->files[log->count - 1].first);
		if (!rc)
			forget_last(log);
	}
	log->number = folded;
	return rc;
}

static int open_tail(struct kvlog *log)
{
	const struct file *last;
	char name[NAME_SIZE];

	if (log->count == 0)
		return begin_file(log);
	last = &log->files[log->count - 1];
	file_name(last->first, name);
	log->fd = openat(log->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (log->fd < 0)
		return -errno;
	log->tail = last->size;
	log->behind = log->tail & ~(uint64_t)4095;
	/* Whatever of it the process before this one did not sync is read from memory: it may not be on disk yet. */
	if (ftruncate(log->fd, (off_t)log->tail) < 0 || fdatasync(log->fd) < 0)
		return -errno;
	return 0;
}

int kvlog_open(const struct kvlog_options *options, struct kvlog **ret_log)
{
	struct kvlog *log = calloc(1, sizeof(*log));
	int rc;

	if (!log)
		return -ENOMEM;
	log->dir_fd = options->dir_fd;
	log->segment_size = options->segment_size;
	log->keep_size = options->keep_size ? options->keep_size : KEEP_SIZE_DEFAULT;
	log->read_only = options->read_only;
	log->folded = options->folded;
	log->fd = -1;
	lock_init(&log->lock, LOCK_CATALOG_LOG);
	lock_cond_init(&log->synced_cond);
	rc = list_files(log);
	if (!rc)
		rc = replay(log, options);
	if (!rc)
		rc = drop_outrun(log, options->folded);
	if (!rc && !log->read_only)
		rc = open_tail(log);
	if (rc) {
		kvlog_close(log);
		return rc;
	}
	log->synced = log->number;
	*ret_log = log;
	return 0;
}

void kvlog_close(struct kvlog *log)
{
	if (!log)
		return;
	if (log->fd >= 0)
		(void)close(log->fd); /* the owner synced it if it wanted to */
	pthread_cond_destroy(&log->synced_cond);
	lock_destroy(&log->lock);
	free(log->files);
	free(log);
}
