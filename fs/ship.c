/*
 * ship.c - see ship.h.
 *
 * A line is an unbroken sequence of one catalog's updates. It begins with a
 * snapshot and goes on in segments that follow on each other, through further
 * snapshots and through mounts, as long as nobody else held the lease in
 * between; its random name is in the metadata of everything shipped, so that
 * segments of two catalogs are never mixed whatever their numbers are.
 *
 * How far the line is in the store
 *
 *	shipped   the last segment's end (or the snapshot that began the line anew): where the next one begins
 *	checked   >= shipped; nothing between the two was for shipping
 *
 * Both advance in rounds. One round runs at a time, on the thread of whoever
 * asked first; those who come meanwhile wait for it and, if it did not reach
 * far enough for them, the first of them runs the next.
 *
 * Invariants
 *  1. The cursor in the catalog (a setting) never is ahead of the store. Writing it is an update itself, though not
 *     one to ship, so it is written only when something was.
 *  2. The catalog keeps its log from the cursor on: `shipped` after a crash can always be gone on from.
 *  3. What is removed is covered by the older of two snapshots in the store.
 *  4. Nothing is put or removed without the lease.
 *
 * Threads: one, every interval; and all callers of ship_now. `lock` guards what
 * says so; it is never held across a call of the store or the catalog. Fields of the
 * round or the snapshot belong to whoever set `rounding` or `snapping`.
 */
#include "fs/ship.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/facts.h"
#include "lock.h"
#include "log.h"

#define MODULE "ship"
#define INTERVAL_DEFAULT (5 * NS_PER_SEC)
#define SNAPSHOT_MIN_DEFAULT (UINT64_C(4) << 20)
#define SEGMENT_COST (UINT64_C(4) << 10) /* a segment counts as so much at least: a rebuild asks for each */
#define SEGMENTS_MANY 64                 /* at unmount: worth a snapshot */
#define CHECKED_AHEAD_MAX                                                                                              \
	(UINT64_C(1) << 18) /* updates kept in the log only because nothing was shipped after them                     \
			     */
#define TIDY_TIME (2 * NS_PER_SEC)
#define PUT_MAX (UINT64_C(64) << 20) /* larger ones go in parts */
#define PART_SIZE (UINT64_C(16) << 20)
#define SPOOL_MEMORY (4 << 20)
#define PIECES_MAX (4 << 20)
#define CANCEL_POLL (200 * NS_PER_MS)
#define LINE_SIZE 17
#define LINE_META "varve-line"
#define SETTING_CURSOR "ship.cursor"

/* --- spool: bytes of unknown length, in memory while few, then in an unlinked file ---------------------- */

struct spool {
	const char *dir;
	struct buf memory;
	int fd; /* -1: all in memory */
	uint64_t size;
	uint64_t at; /* where spool_source reads on */
	uint32_t crc32c;
	int error; /* of a sink whose caller cannot pass it on */
};

static void spool_init(struct spool *spool, const char *dir)
{
	*spool = (struct spool){.dir = dir, .fd = -1};
	buf_init(&spool->memory);
}

static void spool_reset(struct spool *spool)
{
	const char *dir = spool->dir;

	buf_free(&spool->memory);
	if (spool->fd >= 0)
		(void)close(spool->fd); /* unlinked: nothing of it is to be kept */
	spool_init(spool, dir);
}

static int spool_open_file(const char *dir, int *ret_fd)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) { /* a filesystem without O_TMPFILE */
		if (snprintf(path, sizeof(path), "%s/ship-XXXXXX", dir) >= (int)sizeof(path))
			return -ENAMETOOLONG;
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path); /* a leftover name costs nothing but its space */
	}
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int write_all(int fd, const void *bytes, size_t len, uint64_t offset)
{
	const char *from = bytes;

	while (len) {
		ssize_t n = pwrite(fd, from, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		from += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int spool_append(struct spool *spool, const void *bytes, size_t len)
{
	int rc = 0;

	if (spool->fd < 0 && spool->size + len <= SPOOL_MEMORY) {
		buf_add(&spool->memory, bytes, len);
		rc = buf_failed(&spool->memory) ? -ENOMEM : 0;
	} else {
		if (spool->fd < 0) {
			rc = spool_open_file(spool->dir, &spool->fd);
			if (!rc)
				rc = write_all(spool->fd, spool->memory.data, spool->memory.len, 0);
			buf_free(&spool->memory);
		}
		if (!rc)
			rc = write_all(spool->fd, bytes, len, spool->size);
	}
	if (rc)
		return rc;
	spool->crc32c = crc32c_update(spool->crc32c, bytes, len);
	spool->size += len;
	return 0;
}

/* cat_sink and backend_sink_fn. */
static int spool_sink(void *arg, const void *bytes, size_t len)
{
	struct spool *spool = arg;

	spool->error = spool_append(spool, bytes, len);
	return spool->error;
}

static ssize_t spool_pread(const struct spool *spool, void *ret_bytes, size_t cap, uint64_t offset)
{
	uint64_t left = offset < spool->size ? spool->size - offset : 0;
	size_t len = left < cap ? (size_t)left : cap;
	ssize_t n;

	if (spool->fd < 0) {
		memcpy(ret_bytes, spool->memory.data + (len ? offset : 0), len);
		return (ssize_t)len;
	}
	do {
		n = pread(spool->fd, ret_bytes, len, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* backend_source_fn */
static int spool_range(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	char *to = ret_bytes;

	while (len) {
		ssize_t n = spool_pread(arg, to, len, offset);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO; /* our own file became shorter */
		to += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* cat_source */
static ssize_t spool_source(void *arg, void *ret_bytes, size_t cap)
{
	struct spool *spool = arg;
	ssize_t n = spool_pread(spool, ret_bytes, cap, spool->at);

	if (n > 0)
		spool->at += (uint64_t)n;
	return n;
}

/* --- names of what is shipped ---------------------------------------------------------------------------- */

struct piece {
	bool snapshot;
	bool current; /* not an old version, not a delete marker */
	bool tried;   /* rebuild: applied, or of no use */
	uint64_t epoch;
	uint64_t from; /* snapshot: same as to */
	uint64_t to;
	char *key;
	char *native_id; /* may be NULL */
	char *etag;      /* likewise */
};

struct pieces {
	struct piece *cells;
	size_t count, cap;
};

static void pieces_clear(struct pieces *pieces)
{
	for (size_t i = 0; i < pieces->count; i++) {
		free(pieces->cells[i].key);
		free(pieces->cells[i].native_id);
		free(pieces->cells[i].etag);
	}
	free(pieces->cells);
	*pieces = (struct pieces){0};
}

/* Sixteen lower-case hex digits. */
static bool parse_hex(const char **text, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (int i = 0; i < 16; i++) {
		char c = (*text)[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*text += 16;
	*ret_value = value;
	return true;
}

/* Pure. Fills all but the strings; false for what is none of ours. */
static bool parse_piece(const char *key, struct piece *ret_piece)
{
	struct piece piece = {0};

	if (strncmp(key, SHIP_PREFIX, strlen(SHIP_PREFIX)) != 0)
		return false;
	key += strlen(SHIP_PREFIX);
	if (!parse_hex(&key, &piece.epoch) || *key++ != '-' || !parse_hex(&key, &piece.from))
		return false;
	piece.to = piece.from;
	piece.snapshot = !strcmp(key, ".snap");
	if (!piece.snapshot) {
		if (*key++ != '-' || !parse_hex(&key, &piece.to) || strcmp(key, ".seg") != 0 || piece.to <= piece.from)
			return false;
	}
	*ret_piece = piece;
	return true;
}

static int pieces_add(struct pieces *pieces, struct object_info *info)
{
	struct piece piece;

	if (!parse_piece(info->key, &piece))
		return 0;
	if (pieces->count == pieces->cap) {
		size_t cap = pieces->cap ? 2 * pieces->cap : 64;
		struct piece *cells = cap <= PIECES_MAX ? reallocarray(pieces->cells, cap, sizeof(*cells)) : NULL;

		if (!cells)
			return -ENOMEM;
		pieces->cells = cells;
		pieces->cap = cap;
	}
	piece.current = !(info->flags & OBJECT_DELETE_MARKER);
	piece.key = info->key;
	piece.native_id = info->native_id;
	piece.etag = info->etag;
	info->key = info->native_id = info->etag = NULL;
	pieces->cells[pieces->count++] = piece;
	return 0;
}

enum what_versions { CURRENT_ONLY, ALL_VERSIONS };

static int pieces_list(struct transfer *transfer, const struct call *call, enum what_versions what,
		       struct pieces *ret_pieces, struct err *err)
{
	AUTO_FREE char *token = NULL;
	struct list_request request = {.prefix = SHIP_PREFIX, .versions = what == ALL_VERSIONS};
	struct pieces pieces = {0};
	int rc;

	do {
		struct list_page page = {0};

		request.token = token;
		rc = transfer_list(transfer, call, &request, &page, err);
		if (rc)
			break;
		for (size_t i = 0; i < page.count && !rc; i++) {
			size_t before = pieces.count;

			rc = pieces_add(&pieces, &page.entries[i]);
			if (!rc && pieces.count > before && what == ALL_VERSIONS)
				pieces.cells[before].current &= !!(page.entries[i].flags & OBJECT_LATEST);
		}
		if (rc)
			rc = err_from_errno(err, -rc, "listing %s", SHIP_PREFIX);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (!rc && token);
	if (rc)
		pieces_clear(&pieces);
	else
		*ret_pieces = pieces;
	return rc;
}

/* --- the shipper -------------------------------------------------------------------------------------------- */

struct ship {
	struct catalog *catalog;
	struct transfer *transfer;
	struct lease *lease;
	char *tmp_dir;
	int64_t interval_ns;
	uint64_t snapshot_min;

	pthread_t thread;
	atomic_bool stop;

	struct lock lock;
	pthread_cond_t changed;  /* a round or snapshot ended, or stop */
	bool rounding, snapping; /* lock: somebody does it */
	uint64_t rounds;         /* lock: ended */
	int round_rc;            /* lock: of the last that ended */
	struct err round_err;    /* lock */

	char line[LINE_SIZE];                                /* lock; changes only in ship_new */
	bool begun;                                          /* lock: the line's first snapshot is in the store */
	uint64_t shipped, checked;                           /* lock */
	uint64_t segment_cost, segment_count, snapshot_size; /* lock: since and of the last snapshot */
	bool untidy;                                         /* lock: there may be something to remove */
	bool facts_left;                                     /* lock: facts of versions that are on their way */
	uint64_t facts_seen;                                 /* lock: put when they were last looked through */
	uint64_t (*facts_put)(void *arg);
	void *facts_arg;

	uint64_t segments, snapshots, bytes, failures; /* lock */
	char last_error[256];                          /* lock */
};

/* --- the cursor ---- */

static int cursor_save(struct ship *ship)
{
	char text[160];

	lock_acquire(&ship->lock);
	(void)snprintf(text, sizeof(text), "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, ship->line,
		       lease_epoch(ship->lease), ship->shipped, ship->segment_cost, ship->segment_count,
		       ship->snapshot_size);
	lock_release(&ship->lock);
	return catalog_setting_put(ship->catalog, SETTING_CURSOR, text);
}

/* True when the line of the cursor goes on: nobody else held the lease since. */
static bool cursor_load(struct ship *ship)
{
	AUTO_FREE char *text = NULL;
	uint64_t epoch;

	if (catalog_setting_get(ship->catalog, SETTING_CURSOR, &text))
		return false;
	if (sscanf(text, "%16[0-9a-f] %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, ship->line, &epoch,
		   &ship->shipped, &ship->segment_cost, &ship->segment_count, &ship->snapshot_size) != 6)
		return false;
	return (epoch == lease_epoch(ship->lease) || epoch + 1 == lease_epoch(ship->lease)) &&
	       ship->shipped <= catalog_number(ship->catalog);
}

static void line_begin(struct ship *ship)
{
	uint8_t name[(LINE_SIZE - 1) / 2];

	random_bytes(name, sizeof(name));
	hex_encode(name, sizeof(name), ship->line);
	ship->shipped = ship->segment_cost = ship->segment_count = ship->snapshot_size = 0;
}

/* --- putting ---- */

static int parts_plan(const struct backend_limits *limits, uint64_t size, struct transfer_part **ret_parts,
		      size_t *ret_count)
{
	uint64_t each = PART_SIZE;
	struct transfer_part *parts;
	size_t count;

	if (each < limits->min_part)
		each = limits->min_part;
	if (limits->max_parts && size / limits->max_parts >= each)
		each = size / limits->max_parts + 1;
	count = (size_t)((size + each - 1) / each);
	parts = calloc(count, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		parts[i].offset = i * each;
		parts[i].size = i + 1 < count ? each : size - i * each;
	}
	*ret_parts = parts;
	*ret_count = count;
	return 0;
}

static int spool_put(struct ship *ship, const struct call *call, const struct put_request *request, struct err *err)
{
	const struct backend_limits *limits = transfer_limits(ship->transfer);
	struct object_info info = {0};
	AUTO_FREE struct transfer_part *parts = NULL;
	size_t count;
	int rc;

	if (transfer_can(ship->transfer, BACKEND_MULTIPART) &&
	    (request->size > PUT_MAX || request->size > limits->max_put)) {
		rc = parts_plan(limits, request->size, &parts, &count);
		if (rc)
			return err_from_errno(err, -rc, "%s", request->key);
		rc = transfer_upload(ship->transfer, call, request, parts, count, &info, err);
	} else {
		rc = transfer_put(ship->transfer, call, request, &info, err);
	}
	if (!rc)
		object_info_clear(&info);
	return rc;
}

/* Puts what is in the spool under `key`. */
static int piece_put(struct ship *ship, const struct call *call, struct spool *spool, const char *key, struct err *err)
{
	char text[160];
	struct meta meta = {0};
	struct put_request request = {
		.key = key,
		.source = spool_range,
		.source_arg = spool,
		.size = spool->size,
		.meta = &meta,
		.crc32c = spool->crc32c,
		.has_crc32c = true,
	};
	int rc = lease_check(ship->lease, err);

	if (rc)
		return rc;
	(void)snprintf(text, sizeof(text), "%s-%s-%08" PRIx32, ship->line, key + strlen(SHIP_PREFIX), spool->crc32c);
	rc = meta_set(&meta, TRANSFER_UPLOAD_META, text);
	if (!rc)
		rc = meta_set(&meta, LINE_META, ship->line);
	(void)snprintf(text, sizeof(text), "%" PRIu64, lease_epoch(ship->lease));
	if (!rc)
		rc = meta_set(&meta, "varve-epoch", text);
	if (rc)
		rc = err_from_errno(err, -rc, "%s", key);
	else
		rc = spool_put(ship, call, &request, err);
	meta_clear(&meta);
	return rc;
}

/* --- snapshots ---- */

/* Whether the next segment begins where the last ended, or at the snapshot. */
enum snapshot_kind { SNAPSHOT_BESIDE, SNAPSHOT_ANEW };

static int snapshot_put(struct ship *ship, const struct call *call, uint64_t *ret_number, uint64_t *ret_size,
			struct err *err)
{
	char key[80];
	struct spool spool;
	uint64_t number;
	int rc;

	spool_init(&spool, ship->tmp_dir);
	rc = catalog_export_snapshot(ship->catalog, spool_sink, &spool, &number);
	if (rc) {
		rc = err_from_errno(err, -rc, "catalog snapshot");
		goto out;
	}
	(void)snprintf(key, sizeof(key), SHIP_PREFIX "%016" PRIx64 "-%016" PRIx64 ".snap", lease_epoch(ship->lease),
		       number);
	rc = piece_put(ship, call, &spool, key, err);
	if (rc)
		goto out;
	log_debug(MODULE, "snapshot at %" PRIu64 ": %" PRIu64 " bytes", number, spool.size);
	*ret_number = number;
	*ret_size = spool.size;
out:
	spool_reset(&spool);
	return rc;
}

static int snapshot(struct ship *ship, const struct call *call, enum snapshot_kind kind, struct err *err)
{
	uint64_t number = 0, size = 0;
	int rc;

	lock_acquire(&ship->lock);
	while (ship->snapping)
		(void)lock_wait(&ship->lock, &ship->changed, 0); /* ends with its own call */
	ship->snapping = true;
	lock_release(&ship->lock);

	rc = snapshot_put(ship, call, &number, &size, err);

	lock_acquire(&ship->lock);
	ship->snapping = false;
	if (!rc) {
		ship->snapshots++;
		ship->bytes += size;
		ship->snapshot_size = size;
		ship->segment_cost = ship->segment_count = 0;
		ship->untidy = true;
		if (kind == SNAPSHOT_ANEW) {
			ship->begun = true;
			ship->shipped = ship->checked = number;
		}
	}
	(void)pthread_cond_broadcast(&ship->changed);
	lock_release(&ship->lock);
	if (!rc) {
		rc = cursor_save(ship);
		if (rc)
			(void)err_from_errno(err, -rc, "ship cursor");
	}
	return rc;
}

static bool snapshot_due(struct ship *ship)
{
	LOCK_GUARD(&ship->lock);
	return ship->begun && ship->segment_cost > ship->snapshot_min && ship->segment_cost > ship->snapshot_size;
}

/* --- rounds ---- */

/* The next segment into the spool. -ENODATA: nothing to ship, `checked` has advanced. */
static int segment_export(struct ship *ship, struct spool *spool, uint64_t *ret_from, uint64_t *ret_upto)
{
	uint64_t shipped, checked, upto;
	int rc;

	lock_acquire(&ship->lock);
	shipped = ship->shipped;
	checked = ship->checked;
	lock_release(&ship->lock);
	rc = catalog_export_segment(ship->catalog, checked, spool_sink, spool, &upto);
	if (!rc && checked > shipped) { /* there is something: now as a segment that follows on the last */
		spool_reset(spool);
		rc = catalog_export_segment(ship->catalog, shipped, spool_sink, spool, &upto);
	}
	if (rc == -ENODATA) {
		lock_acquire(&ship->lock);
		ship->checked = upto;
		if (upto - ship->shipped > CHECKED_AHEAD_MAX)
			rc = -ESTALE; /* as good as: the log behind must go, and only a snapshot lets it */
		lock_release(&ship->lock);
	}
	*ret_from = shipped;
	*ret_upto = upto;
	return rc;
}

static int segment_put(struct ship *ship, const struct call *call, struct spool *spool, const uint64_t range[2],
		       struct err *err)
{
	char key[80];
	int rc;

	(void)snprintf(key, sizeof(key), SHIP_PREFIX "%016" PRIx64 "-%016" PRIx64 "-%016" PRIx64 ".seg",
		       lease_epoch(ship->lease), range[0], range[1]);
	rc = piece_put(ship, call, spool, key, err);
	if (rc)
		return rc;
	lock_acquire(&ship->lock);
	ship->shipped = ship->checked = range[1];
	ship->segments++;
	ship->segment_count++;
	ship->segment_cost += spool->size > SEGMENT_COST ? spool->size : SEGMENT_COST;
	ship->bytes += spool->size;
	lock_release(&ship->lock);
	rc = cursor_save(ship);
	return rc ? err_from_errno(err, -rc, "ship cursor") : 0;
}

static int round_run(struct ship *ship, const struct call *call, struct err *err)
{
	struct spool spool;
	uint64_t range[2], shipped;
	bool begun;
	int rc = lease_check(ship->lease, err);

	if (rc)
		return rc;
	spool_init(&spool, ship->tmp_dir);
	lock_acquire(&ship->lock);
	begun = ship->begun;
	lock_release(&ship->lock);
	rc = begun ? segment_export(ship, &spool, &range[0], &range[1]) : -ESTALE;
	if (rc == -ESTALE)
		rc = snapshot(ship, call, SNAPSHOT_ANEW, err);
	else if (rc == -ENODATA)
		rc = 0;
	else if (rc)
		rc = err_from_errno(err, -rc, "catalog segment");
	else
		rc = segment_put(ship, call, &spool, range, err);
	spool_reset(&spool);
	if (!rc) {
		lock_acquire(&ship->lock);
		shipped = ship->shipped;
		lock_release(&ship->lock);
		catalog_shipped(ship->catalog, shipped);
	}
	return rc;
}

/* Once per change of state. */
static void note(struct ship *ship, int rc, const struct err *why)
{
	bool changed;

	lock_acquire(&ship->lock);
	changed = !rc != !ship->last_error[0];
	ship->failures += rc != 0;
	(void)snprintf(ship->last_error, sizeof(ship->last_error), "%s", rc ? why->message : "");
	lock_release(&ship->lock);
	if (rc && changed)
		log_warn(MODULE, "the catalog's log cannot be shipped: %s", why->message);
	else if (changed)
		log_info(MODULE, "the catalog's log is shipped again");
}

/* Waits for the round of another. With its end *ret_rc is what it came to. 0, or this call is over: -errno. */
static int round_wait(struct ship *ship, const struct call *call, int *ret_rc, struct err *ret_round, struct err *err)
{
	uint64_t seen = ship->rounds;

	while (ship->rounds == seen) {
		int64_t now = clock_monotonic();
		int64_t poll = now + CANCEL_POLL;

		if (call->cancelled && atomic_load(call->cancelled))
			return err_set(err, ERR_CANCELLED, "interrupted while the log is shipped");
		if (call->deadline_ns && now >= call->deadline_ns)
			return err_set(err, ERR_TIMED_OUT, "no time left while the log is shipped");
		if (call->deadline_ns && call->deadline_ns < poll)
			poll = call->deadline_ns;
		(void)lock_wait(&ship->lock, &ship->changed, poll); /* the loop looks itself */
	}
	*ret_rc = ship->round_rc;
	*ret_round = ship->round_err;
	return 0;
}

static void round_own(struct ship *ship, const struct call *call, int *ret_rc, struct err *ret_err)
{
	struct err why = {0};
	int rc;

	ship->rounding = true;
	lock_release(&ship->lock);
	rc = round_run(ship, call, &why);
	/* Somebody gave up: that says nothing of the store. */
	if (!rc || (why.kind != ERR_CANCELLED && why.kind != ERR_TIMED_OUT))
		note(ship, rc, &why);
	lock_acquire(&ship->lock);
	ship->rounding = false;
	ship->rounds++;
	ship->round_rc = rc;
	ship->round_err = why;
	(void)pthread_cond_broadcast(&ship->changed);
	*ret_rc = rc;
	*ret_err = why;
}

int ship_now(struct ship *ship, const struct call *call, struct err *err)
{
	static const struct call patient;
	uint64_t target = catalog_number(ship->catalog);
	struct err why = {0};
	int rc = 0;

	if (!call)
		call = &patient;
	lock_acquire(&ship->lock);
	while (!rc && (!ship->begun || ship->checked < target)) {
		if (!ship->rounding) {
			round_own(ship, call, &rc, &why);
			continue;
		}
		int other = 0;
		struct err theirs = {0};

		rc = round_wait(ship, call, &other, &theirs, &why);
		if (!rc && other && theirs.kind != ERR_CANCELLED && theirs.kind != ERR_TIMED_OUT) {
			rc = other;
			why = theirs;
		}
	}
	lock_release(&ship->lock);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- tidying ---- */

static int newest_first(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? 1 : -1;
	return x->to == y->to ? 0 : x->to < y->to ? 1 : -1;
}

/* The older of the two newest snapshots; NULL when there are not two. Sorts. */
static const struct piece *snapshot_before(struct pieces *pieces)
{
	unsigned seen = 0;

	if (pieces->count)
		qsort(pieces->cells, pieces->count, sizeof(*pieces->cells), newest_first);
	for (size_t i = 0; i < pieces->count; i++) {
		if (pieces->cells[i].snapshot && pieces->cells[i].current && ++seen == 2)
			return &pieces->cells[i];
	}
	return NULL;
}

static bool superseded(const struct piece *piece, const struct piece *by)
{
	if (piece->epoch != by->epoch)
		return piece->epoch < by->epoch;
	return piece->snapshot ? piece->to < by->to : piece->to <= by->to;
}

/* Removes what the older of the two newest snapshots covers; where the store keeps versions, by native id, delete
 * markers too, so that nothing piles up. */
static int tidy(struct ship *ship, const struct call *call, struct err *err)
{
	bool versions = transfer_can(ship->transfer, BACKEND_VERSIONS);
	struct pieces pieces;
	const struct piece *keep;
	int rc = pieces_list(ship->transfer, call, versions ? ALL_VERSIONS : CURRENT_ONLY, &pieces, err);

	if (rc)
		return rc;
	keep = snapshot_before(&pieces);
	for (size_t i = 0; keep && i < pieces.count && !rc; i++) {
		struct piece *piece = &pieces.cells[i];
		struct object_ref object = {.key = piece->key, .native_id = piece->native_id};

		if (!superseded(piece, keep))
			continue;
		rc = lease_check(ship->lease, err);
		if (!rc)
			rc = transfer_remove(ship->transfer, call, &object, NULL, err);
	}
	pieces_clear(&pieces);
	if (!rc) {
		lock_acquire(&ship->lock);
		ship->untidy = false;
		lock_release(&ship->lock);
	}
	return rc;
}

/* Facts that the log tells by now. They are looked for once after a mount, for those who left in a hurry, and when
 * there are new ones. */
static int ship_facts(void *arg, const struct call *call, struct err *err)
{
	return ship_now(arg, call, err);
}

static void tidy_facts(struct ship *ship, const struct call *call)
{
	const struct facts_tidy tidy = {.catalog = ship->catalog,
					.transfer = ship->transfer,
					.lease = ship->lease,
					.ship = ship_facts,
					.ship_arg = ship};
	uint64_t put = ship->facts_put ? ship->facts_put(ship->facts_arg) : 0, waiting = 0;
	struct err why = {0};
	bool due;
	int rc;

	lock_acquire(&ship->lock);
	due = ship->facts_put && (ship->facts_left || ship->facts_seen != put);
	lock_release(&ship->lock);
	if (!due)
		return;
	rc = facts_tidy(&tidy, call, &waiting, &why);
	if (rc) {
		if (why.kind != ERR_TIMED_OUT && why.kind != ERR_CANCELLED)
			log_debug(MODULE, "facts that the log tells cannot be removed: %s", why.message);
		return;
	}
	lock_acquire(&ship->lock);
	ship->facts_seen = put;
	ship->facts_left = waiting > 0;
	lock_release(&ship->lock);
}

/* --- the thread ---- */

static void tick(struct ship *ship)
{
	struct call call = {.cancelled = &ship->stop};
	struct err why = {0};
	bool untidy;
	int rc = ship_now(ship, &call, &why);

	if (!rc && snapshot_due(ship)) {
		rc = snapshot(ship, &call, SNAPSHOT_BESIDE, &why);
		if (!rc || why.kind != ERR_CANCELLED) /* shutting down says nothing of the store */
			note(ship, rc, &why);
	}
	lock_acquire(&ship->lock);
	untidy = ship->untidy;
	lock_release(&ship->lock);
	if (rc)
		return;
	/* A little at a time: the next changes must not wait for it. */
	call.deadline_ns = clock_monotonic() + TIDY_TIME;
	tidy_facts(ship, &call);
	if (!untidy)
		return;
	rc = tidy(ship, &call, &why);
	if (rc && why.kind != ERR_TIMED_OUT)
		log_debug(MODULE, "what is superseded cannot be removed: %s", why.message);
}

static void *ship_thread(void *arg)
{
	struct ship *ship = arg;

	for (;;) {
		int64_t until = clock_monotonic() + ship->interval_ns;

		lock_acquire(&ship->lock);
		while (!atomic_load(&ship->stop) && clock_monotonic() < until)
			(void)lock_wait(&ship->lock, &ship->changed, until); /* the loop looks itself */
		lock_release(&ship->lock);
		if (atomic_load(&ship->stop))
			return NULL;
		if (lease_may_write(ship->lease))
			tick(ship);
	}
}

/* --- public ------------------------------------------------------------------------------------------------ */

static void ship_destroy(struct ship *ship)
{
	(void)pthread_cond_destroy(&ship->changed); /* nobody waits */
	lock_destroy(&ship->lock);
	free(ship->tmp_dir);
	free(ship);
}

int ship_new(const struct ship_options *options, struct ship **ret_ship, struct err *err)
{
	struct ship *ship = calloc(1, sizeof(*ship));
	int rc = -ENOMEM;

	if (!ship)
		return err_from_errno(err, -rc, "ship");
	lock_init(&ship->lock, LOCK_LEAF);
	lock_cond_init(&ship->changed);
	ship->catalog = options->catalog;
	ship->transfer = options->transfer;
	ship->lease = options->lease;
	ship->interval_ns = options->interval_ns ? options->interval_ns : INTERVAL_DEFAULT;
	ship->snapshot_min = options->snapshot_min ? options->snapshot_min : SNAPSHOT_MIN_DEFAULT;
	ship->facts_put = options->facts_put;
	ship->facts_arg = options->facts_arg;
	ship->facts_left = true;
	ship->tmp_dir = strdup(options->tmp_dir);
	if (!ship->tmp_dir)
		goto fail;
	ship->begun = cursor_load(ship);
	if (!ship->begun)
		line_begin(ship);
	ship->checked = ship->shipped;
	rc = ship->begun ? cursor_save(ship) : 0; /* the line goes on under this epoch */
	if (!rc)
		rc = -pthread_create(&ship->thread, NULL, ship_thread, ship);
	if (rc)
		goto fail;
	*ret_ship = ship;
	return 0;
fail:
	ship_destroy(ship);
	return err_from_errno(err, -rc, "ship");
}

void ship_free(struct ship *ship)
{
	if (!ship)
		return;
	lock_acquire(&ship->lock);
	atomic_store(&ship->stop, true);
	(void)pthread_cond_broadcast(&ship->changed);
	lock_release(&ship->lock);
	(void)pthread_join(ship->thread, NULL); /* ours, and joined once: it cannot fail */
	ship_destroy(ship);
}

int ship_finish(struct ship *ship, const struct call *call, struct err *err)
{
	struct err why = {0};
	bool many, untidy;
	int rc = ship_now(ship, call, err);

	if (rc)
		return rc;
	lock_acquire(&ship->lock);
	many = ship->segment_count > SEGMENTS_MANY;
	lock_release(&ship->lock);
	/* Everything is in the store: what fails from here on only makes the next rebuild slower. */
	if (many && snapshot(ship, call, SNAPSHOT_BESIDE, &why))
		log_debug(MODULE, "no snapshot at the end: %s", why.message);
	tidy_facts(ship, call);
	lock_acquire(&ship->lock);
	untidy = ship->untidy;
	lock_release(&ship->lock);
	if (untidy && tidy(ship, call, &why))
		log_debug(MODULE, "what is superseded cannot be removed: %s", why.message);
	return 0;
}

void ship_figures(struct ship *ship, struct ship_figures *ret_figures)
{
	struct ship_figures figures = {.number = catalog_number(ship->catalog)};

	lock_acquire(&ship->lock);
	figures.shipped = ship->checked;
	figures.segments = ship->segments;
	figures.snapshots = ship->snapshots;
	figures.bytes = ship->bytes;
	figures.failures = ship->failures;
	memcpy(figures.last_error, ship->last_error, sizeof(figures.last_error));
	lock_release(&ship->lock);
	*ret_figures = figures;
}

/* --- rebuilding ------------------------------------------------------------------------------------------------ */

struct rebuild {
	const struct ship_rebuild *request;
	const struct call *call;
	struct pieces pieces;
	char line[LINE_SIZE]; /* of the snapshot; "" when it does not say */
	struct ship_rebuilt done;
};

enum applied { APPLIED, USELESS };

static int piece_get(struct rebuild *rebuild, const struct piece *piece, struct spool *spool, char *ret_line,
		     struct err *err)
{
	struct object_info info = {0};
	struct get_request request = {
		.object = {.key = piece->key, .etag = piece->etag}, /* as listed: then there is nothing to ask before */
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = spool_sink,
		.sink_arg = spool,
	};
	const char *line;
	int rc = transfer_get(rebuild->request->transfer, rebuild->call, &request, &info, err);

	if (rc)
		return spool->error ? err_from_errno(err, -spool->error, "%s", rebuild->request->tmp_dir) : rc;
	line = meta_get(&info.meta, LINE_META);
	(void)snprintf(ret_line, LINE_SIZE, "%s", line ? line : "");
	object_info_clear(&info);
	return 0;
}

static bool other_line(const struct rebuild *rebuild, const char *line)
{
	return rebuild->line[0] && line[0] && strcmp(rebuild->line, line) != 0;
}

/* What an import said of the piece: 0 with *ret_applied, or an error that ends the rebuild. */
static int judge(const struct piece *piece, int rc, enum applied *ret_applied, struct err *err)
{
	switch (rc) {
	case 0:
		*ret_applied = APPLIED;
		return 0;
	case -EBADMSG:
		log_warn(MODULE, "%s is damaged", piece->key);
		break;
	case -ESTALE:
		log_warn(MODULE, "%s does not follow on", piece->key);
		break;
	case -EXDEV:
		log_warn(MODULE, "%s is of another store", piece->key);
		break;
	default:
		return err_from_errno(err, -rc, "%s", piece->key);
	}
	*ret_applied = USELESS;
	return 0;
}

static int apply(struct rebuild *rebuild, struct piece *piece, enum applied *ret_applied, struct err *err)
{
	char line[LINE_SIZE];
	struct spool spool;
	struct err why = {0};
	int rc;

	piece->tried = true;
	spool_init(&spool, rebuild->request->tmp_dir);
	rc = piece_get(rebuild, piece, &spool, line, &why);
	if (rc && why.kind == ERR_PRECONDITION) { /* it was put again since the listing */
		free(piece->etag);
		piece->etag = NULL;
		spool_reset(&spool);
		why = (struct err){0};
		rc = piece_get(rebuild, piece, &spool, line, &why);
	}
	if (rc && (why.kind == ERR_CORRUPT || why.kind == ERR_NOT_FOUND)) {
		rc = judge(piece, -EBADMSG, ret_applied, err);
	} else if (rc) {
		if (err)
			*err = why;
	} else if (!piece->snapshot && other_line(rebuild, line)) {
		*ret_applied = USELESS;
	} else {
		rc = judge(piece, catalog_import(rebuild->request->catalog, spool_source, &spool), ret_applied, err);
		if (!rc && *ret_applied == APPLIED) {
			if (piece->snapshot)
				memcpy(rebuild->line, line, sizeof(line));
			rebuild->done.epoch = piece->epoch;
			rebuild->done.number = piece->to;
			rebuild->done.segments += !piece->snapshot;
			rebuild->done.bytes += spool.size;
			if (rebuild->request->progress)
				rebuild->request->progress(rebuild->request->progress_arg, &rebuild->done);
		}
	}
	spool_reset(&spool);
	return rc;
}

static int apply_snapshot(struct rebuild *rebuild, struct err *err)
{
	enum applied applied = USELESS;

	for (size_t i = 0; i < rebuild->pieces.count; i++) {
		struct piece *piece = &rebuild->pieces.cells[i];
		int rc;

		if (!piece->snapshot)
			continue;
		rc = apply(rebuild, piece, &applied, err);
		if (rc || applied == APPLIED)
			return rc;
		rebuild->done.gap = true;
	}
	return err_set(err, ERR_NOT_FOUND, "%s has no usable catalog snapshot",
		       transfer_description(rebuild->request->transfer));
}

/* The segment that goes on from where we are, of the newest epoch, reaching furthest: pieces are sorted so. */
static struct piece *next_segment(struct rebuild *rebuild)
{
	for (size_t i = 0; i < rebuild->pieces.count; i++) {
		struct piece *piece = &rebuild->pieces.cells[i];

		if (piece->epoch < rebuild->done.epoch)
			break;
		if (!piece->snapshot && !piece->tried && piece->from <= rebuild->done.number &&
		    piece->to > rebuild->done.number)
			return piece;
	}
	return NULL;
}

static int apply_segments(struct rebuild *rebuild, struct err *err)
{
	struct piece *piece;
	enum applied applied;

	while ((piece = next_segment(rebuild))) {
		int rc = apply(rebuild, piece, &applied, err);

		if (rc)
			return rc;
	}
	for (size_t i = 0; i < rebuild->pieces.count; i++) {
		piece = &rebuild->pieces.cells[i];
		if (piece->epoch >= rebuild->done.epoch && piece->to > rebuild->done.number)
			rebuild->done.gap = true;
	}
	return 0;
}

int ship_rebuild(const struct ship_rebuild *request, const struct call *call, struct ship_rebuilt *ret_rebuilt,
		 struct err *err)
{
	struct rebuild rebuild = {.request = request, .call = call};
	int rc = pieces_list(request->transfer, call, CURRENT_ONLY, &rebuild.pieces, err);

	if (rc)
		return rc;
	if (rebuild.pieces.count)
		qsort(rebuild.pieces.cells, rebuild.pieces.count, sizeof(*rebuild.pieces.cells), newest_first);
	rc = apply_snapshot(&rebuild, err);
	if (!rc)
		rc = apply_segments(&rebuild, err);
	if (!rc && rebuild.done.gap)
		log_warn(MODULE, "the shipped log is not whole: rebuilt up to epoch %" PRIu64 ", update %" PRIu64,
			 rebuild.done.epoch, rebuild.done.number);
	pieces_clear(&rebuild.pieces);
	if (!rc)
		*ret_rebuilt = rebuild.done;
	return rc;
}

int ship_highest_epoch(struct transfer *transfer, const struct call *call, uint64_t *ret_epoch, struct err *err)
{
	struct pieces pieces;
	uint64_t highest = 0;
	int rc = pieces_list(transfer, call, CURRENT_ONLY, &pieces, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < pieces.count; i++) {
		if (pieces.cells[i].epoch > highest && pieces.cells[i].epoch < UINT64_C(1) << 62)
			highest = pieces.cells[i].epoch;
	}
	pieces_clear(&pieces);
	*ret_epoch = highest;
	return 0;
}
