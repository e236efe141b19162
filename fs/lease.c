/*
 * lease.c - see lease.h.
 *
 * The object is JSON: epoch, nonce, beat, state ("held", "released"), holder
 * host and pid, duration in ms. `beat` grows with every write, so that each
 * renewal changes the ETag, which is all an observer looks at.
 *
 * States of a struct lease
 *
 *	HELD --(half its life without a renewal)--> may_write false --(renewed)--> HELD
 *	  |                                              |
 *	  +------------(a renewal finds another holder)--+--> lost, for good
 *	  +--lease_release--> released
 *
 * Invariants
 *  1. `valid_ns` is the CLOCK_BOOTTIME just before the request that last proved
 *     us holder was sent: never later than the moment the store took it.
 *  2. Each write replaces exactly the object we wrote or read before (If-Match),
 *     where the store has conditional writes.
 *  3. Our nonce is in the catalog before it can be in the store, so that after
 *     kill -9 the next process knows its own lease.
 *
 * Threads: one renews. `valid_ns` and `lost` are atomics for lease_may_write,
 * which is on the path of every write; the rest is guarded by `lock`, which is
 * never held across a call of the store or the catalog.
 */
#include "fs/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/ship.h"
#include "lock.h"
#include "log.h"

#define MODULE "lease"
#define DURATION_DEFAULT (30 * NS_PER_SEC)
#define DURATION_MAX (600 * NS_PER_SEC)
#define BODY_MAX 4096
#define EPOCH_LIMIT (UINT64_C(1) << 62) /* no honest epoch comes near; counting on never overflows */
#define NONCE_SIZE 16
#define NONCE_HEX_SIZE (2 * NONCE_SIZE + 1)
#define HOST_SIZE 65
#define NONCES_MAX 32
#define SETTING_NONCE "lease.nonce"
#define SETTING_FOREIGN "lease.foreign" /* "1": see lease_was_foreign */
#define SETTING_URL "store.url"
#define CANCEL_POLL (200 * NS_PER_MS)

/* What the lease object says. */
struct record {
	uint64_t epoch;
	uint64_t beat;
	int64_t pid;
	int64_t duration_ns; /* 0: it does not say */
	bool released;
	bool readable; /* false: not ours to understand; only its ETag counts */
	char nonce[NONCE_HEX_SIZE];
	char host[HOST_SIZE];
	char *etag, *native_id;
};

struct lease {
	struct catalog *catalog;
	struct transfer *transfer;
	int64_t duration_ns;
	enum lease_guarantee guarantee;
	uint64_t epoch;     /* fixed once acquired: read without a lock */
	bool releasing;     /* what is written from here on says "released" */
	struct record ours; /* as last written; the renewing thread's, and release's once that has ended */

	_Atomic int64_t valid_ns;
	atomic_bool lost;
	atomic_bool stop; /* also cancels a renewal in flight */

	pthread_t thread;
	bool running; /* the thread was started and not joined: acquire's and release's caller */

	struct lock lock;
	pthread_cond_t wake;
	uint64_t renewals, failures; /* lock */
	char last_error[256];        /* lock */
};

/* --- the record ------------------------------------------------------------------------------------ */

static void record_clear(struct record *record)
{
	free(record->etag);
	free(record->native_id);
	*record = (struct record){0};
}

static int64_t json_int(const json_t *root, const char *name, int64_t max)
{
	int64_t value = (int64_t)json_integer_value(json_object_get(root, name)); /* 0 when absent or no integer */

	return value >= 0 && value <= max ? value : 0;
}

static bool json_text(const json_t *root, const char *name, char *ret_text, size_t cap)
{
	const char *text = json_string_value(json_object_get(root, name));
	size_t len = text ? strlen(text) : 0;

	if (!len || len >= cap)
		return false;
	memcpy(ret_text, text, len + 1);
	return true;
}

/* Pure. A record that cannot be read comes out with `readable` false. */
static void record_decode(const char *bytes, size_t len, struct record *ret_record)
{
	json_t *root = json_loadb(bytes, len, 0, NULL);
	const char *state = json_string_value(json_object_get(root, "state"));

	ret_record->epoch = (uint64_t)json_int(root, "epoch", EPOCH_LIMIT);
	ret_record->beat = (uint64_t)json_int(root, "beat", EPOCH_LIMIT);
	ret_record->pid = json_int(root, "pid", INT32_MAX);
	ret_record->duration_ns = json_int(root, "duration_ms", DURATION_MAX / NS_PER_MS) * NS_PER_MS;
	ret_record->readable = json_text(root, "nonce", ret_record->nonce, sizeof(ret_record->nonce)) &&
			       json_text(root, "host", ret_record->host, sizeof(ret_record->host)) && state &&
			       ret_record->epoch;
	ret_record->released = ret_record->readable && !strcmp(state, "released");
	json_decref(root);
}

static char *record_encode(const struct record *record)
{
	json_t *root = json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:I}", "epoch", (json_int_t)record->epoch, "beat",
				 (json_int_t)record->beat, "state", record->released ? "released" : "held", "nonce",
				 record->nonce, "host", record->host, "pid", (json_int_t)record->pid, "duration_ms",
				 (json_int_t)(record->duration_ns / NS_PER_MS));
	char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_ENSURE_ASCII) : NULL;

	json_decref(root);
	return text;
}

/* --- small objects ----------------------------------------------------------------------------------- */

struct text {
	const char *key; /* of the object it comes from or goes to */
	char bytes[BODY_MAX];
	size_t len;
	bool overflow; /* longer than anything we write */
};

static int text_sink(void *arg, const void *bytes, size_t len)
{
	struct text *text = arg;

	text->overflow = len > sizeof(text->bytes) - text->len;
	if (text->overflow)
		return -EFBIG;
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
	return 0;
}

static int text_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct text *text = arg;

	if (offset > text->len || len > text->len - offset)
		return -EINVAL;
	memcpy(ret_bytes, text->bytes + offset, len);
	return 0;
}

/* An object over BODY_MAX comes back empty: as unreadable as any other that is not ours. */
static int text_get(struct transfer *transfer, const struct call *call, struct text *text, struct object_info *ret_info,
		    struct err *err)
{
	struct get_request request = {
		.object = {.key = text->key},
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = text_sink,
		.sink_arg = text,
	};
	int rc;

	text->len = 0;
	text->overflow = false;
	rc = transfer_get(transfer, call, &request, ret_info, err);
	if (!rc || !text->overflow)
		return rc;
	text->len = 0;
	return transfer_head(transfer, call, &request.object, ret_info, err);
}

struct text_put {
	struct text *text;
	const char *mark; /* unique to this content: how a lost reply is resolved */
	struct put_condition condition;
	uint64_t epoch;
};

static int text_put(struct transfer *transfer, const struct call *call, const struct text_put *what,
		    struct object_info *ret_info, struct err *err)
{
	char epoch[24];
	struct meta meta = {0};
	struct put_request request = {
		.key = what->text->key,
		.source = text_source,
		.source_arg = what->text,
		.size = what->text->len,
		.meta = &meta,
		.content_type = "application/json",
		.condition = what->condition,
		.crc32c = crc32c_update(0, what->text->bytes, what->text->len),
		.has_crc32c = true,
	};
	int rc;

	(void)snprintf(epoch, sizeof(epoch), "%" PRIu64, what->epoch);
	rc = meta_set(&meta, TRANSFER_UPLOAD_META, what->mark);
	if (!rc)
		rc = meta_set(&meta, "varve-epoch", epoch);
	if (rc)
		rc = err_from_errno(err, -rc, "%s", what->text->key);
	else
		rc = transfer_put(transfer, call, &request, ret_info, err);
	meta_clear(&meta);
	return rc;
}

/* Old versions of our own bookkeeping serve nobody. Best effort: a store that keeps them keeps them. */
static void drop_version(struct transfer *transfer, const struct call *call, const char *key, const char *native_id)
{
	if (native_id && transfer_can(transfer, BACKEND_VERSIONS))
		(void)transfer_remove(transfer, call, &(struct object_ref){.key = key, .native_id = native_id}, NULL,
				      NULL);
}

/* --- reading and writing the lease ---------------------------------------------------------------------- */

static int record_read(struct transfer *transfer, const struct call *call, struct record *ret_record, struct err *err)
{
	struct text text = {.key = LEASE_KEY};
	struct object_info info = {0};
	struct record record = {0};
	int rc = text_get(transfer, call, &text, &info, err);

	if (rc)
		return rc;
	record_decode(text.bytes, text.len, &record);
	if (!record.epoch) { /* metadata says it too: an unreadable body must not turn epochs back */
		const char *epoch = meta_get(&info.meta, "varve-epoch");

		if (epoch)
			record.epoch = strtoull(epoch, NULL, 10) % EPOCH_LIMIT;
	}
	record.etag = info.etag;
	record.native_id = info.native_id;
	info.etag = info.native_id = NULL;
	object_info_clear(&info);
	*ret_record = record;
	return 0;
}

/* Writes `next` in place of `before` (NULL: of nothing). On success next has the new etag and native id. */
static int record_write(struct lease *lease, const struct call *call, const struct record *before, struct record *next,
			struct err *err)
{
	struct text text = {.key = LEASE_KEY};
	struct object_info info = {0};
	char mark[NONCE_HEX_SIZE + 48];
	AUTO_FREE char *body = record_encode(next);
	struct text_put put = {.text = &text, .mark = mark, .epoch = next->epoch};
	int rc;

	if (!body || strlen(body) > BODY_MAX)
		return err_set(err, ERR_NO_MEMORY, "lease");
	text.len = strlen(body);
	memcpy(text.bytes, body, text.len);
	(void)snprintf(mark, sizeof(mark), "%s-%" PRIu64 "-%" PRIu64, next->nonce, next->beat, next->epoch);
	if (lease->guarantee == LEASE_CONDITIONAL) {
		put.condition.if_none_match = !before;
		put.condition.if_match = before ? before->etag : NULL;
	}
	rc = text_put(lease->transfer, call, &put, &info, err);
	if (rc)
		return rc;
	next->etag = info.etag;
	next->native_id = info.native_id;
	info.etag = info.native_id = NULL;
	object_info_clear(&info);
	if (before)
		drop_version(lease->transfer, call, LEASE_KEY, before->native_id);
	return 0;
}

/* What we write next: ours, one beat on. */
static struct record record_next(const struct lease *lease)
{
	struct record next = lease->ours;

	next.beat++;
	next.released = lease->releasing;
	next.etag = next.native_id = NULL;
	return next;
}

static void record_replace(struct record *record, struct record next)
{
	record_clear(record);
	*record = next;
}

/* --- waiting --------------------------------------------------------------------------------------------- */

/* Sleeps; -errno with err when the call is over before that. */
static int call_sleep(const struct call *call, int64_t ns, struct err *err)
{
	int64_t until = clock_monotonic() + ns;

	for (;;) {
		int64_t now = clock_monotonic();
		int64_t left = until - now;

		if (call->cancelled && atomic_load(call->cancelled))
			return err_set(err, ERR_CANCELLED, "interrupted while waiting for the lease");
		if (call->deadline_ns && now >= call->deadline_ns)
			return err_set(err, ERR_TIMED_OUT, "no time left to wait for the lease");
		if (left <= 0)
			return 0;
		struct timespec pause = clock_to_timespec(left < CANCEL_POLL ? left : CANCEL_POLL);

		(void)nanosleep(&pause, NULL); /* an early return only looks at the clock sooner */
	}
}

static int refuse(struct transfer *transfer, const struct record *record, struct err *err)
{
	AUTO_BUF host = BUF_INIT;

	if (!record->readable)
		return err_set(err, ERR_CONFLICT,
			       "%s is mounted for writing by somebody whose lease cannot be read; unmount it there, "
			       "mount it read-only, or take it over",
			       transfer_description(transfer));
	escape_text(record->host, strlen(record->host), &host);
	return err_set(err, ERR_CONFLICT,
		       "%s is mounted for writing by %s (pid %" PRId64 "), lease epoch %" PRIu64
		       "; unmount it there, mount it read-only, or take it over",
		       transfer_description(transfer), host.data, record->pid, record->epoch);
}

static bool same_state(const struct record *a, const struct record *b)
{
	if (a->etag && b->etag && strcmp(a->etag, b->etag))
		return false;
	return a->epoch == b->epoch && a->beat == b->beat && !strcmp(a->nonce, b->nonce);
}

/* Watches a lease that seems held until it stood still for its whole life, by our clock alone. */
static int observe(struct lease *lease, const struct call *call, struct record *seen, struct err *err)
{
	int64_t life = seen->duration_ns ? seen->duration_ns : lease->duration_ns;
	int64_t until = clock_boottime() + life;

	log_info(MODULE, "a lease of %s, epoch %" PRIu64 ", is not released: watching it for %" PRId64 " s",
		 seen->readable ? seen->host : "an unknown holder", seen->epoch, life / NS_PER_SEC);
	for (;;) {
		int64_t left = until - clock_boottime();
		struct record now = {0};
		int rc;

		if (left <= 0)
			return 0;
		rc = call_sleep(call, left < life / 10 ? left : life / 10, err);
		if (!rc)
			rc = record_read(lease->transfer, call, &now, err);
		if (rc)
			return rc;
		if (!same_state(seen, &now) && !now.released) {
			rc = refuse(lease->transfer, &now, err);
			record_clear(&now);
			return rc;
		}
		record_replace(seen, now);
		if (seen->released)
			return 0;
	}
}

/* --- acquiring ---------------------------------------------------------------------------------------------- */

/* The setting holds nonces, newest first: those of acquisitions that did not end, and last the one that did. */
static bool nonce_is_ours(const char *setting, const char *nonce)
{
	return setting && strlen(nonce) == NONCE_HEX_SIZE - 1 && strstr(setting, nonce);
}

static int nonce_record(struct lease *lease, const char *nonce, const char *before, struct err *err)
{
	char text[NONCES_MAX * NONCE_HEX_SIZE];
	size_t len = before ? strlen(before) : 0;
	int rc;

	/* Of too many those in between go: the oldest was the holder's, for certain. */
	if (len > sizeof(text) - NONCE_HEX_SIZE - 1)
		before += len - (NONCE_HEX_SIZE - 1);
	(void)snprintf(text, sizeof(text), "%s%s%s", nonce, len ? " " : "", len ? before : "");
	rc = catalog_setting_put(lease->catalog, SETTING_NONCE, text);
	if (!rc)
		rc = catalog_sync(lease->catalog);
	return rc ? err_from_errno(err, -rc, "lease nonce") : 0;
}

/* In the catalog before the lease is ours: afterwards nothing would tell. */
static int note_foreign(struct lease *lease, struct err *err)
{
	int rc = catalog_setting_put(lease->catalog, SETTING_FOREIGN, "1");

	if (!rc)
		rc = catalog_sync(lease->catalog);
	return rc ? err_from_errno(err, -rc, "cannot write the catalog") : 0;
}

/* May `before` be replaced? Waits where only waiting can tell. */
static int make_way(struct lease *lease, const struct lease_options *options, const struct call *call,
		    struct record *before, struct err *err)
{
	AUTO_FREE char *nonces = NULL;
	bool mine;

	(void)catalog_setting_get(lease->catalog, SETTING_NONCE, &nonces); /* none: then the lease is not ours */
	mine = before->readable && nonce_is_ours(nonces, before->nonce);
	if (before->readable && !mine) {
		int rc = note_foreign(lease, err);

		if (rc)
			return rc;
	}
	if (before->released)
		return 0;
	if (mine && !strcmp(before->host, lease->ours.host)) {
		log_info(MODULE, "taking over the lease of our own earlier process (pid %" PRId64 "), epoch %" PRIu64,
			 before->pid, before->epoch);
		return 0;
	}
	if (options->takeover) {
		log_warn(MODULE, "taking the lease from %s (pid %" PRId64 "), epoch %" PRIu64 ", by force",
			 before->readable ? before->host : "an unknown holder", before->pid, before->epoch);
		return 0;
	}
	return observe(lease, call, before, err);
}

/* Without conditional writes: who wrote last has it, once everybody who wrote before had time to see that. */
static int settle(struct lease *lease, const struct call *call, struct err *err)
{
	struct record now = {0};
	int rc = call_sleep(call, lease->duration_ns / 10, err);

	if (!rc)
		rc = record_read(lease->transfer, call, &now, err);
	if (rc)
		return rc;
	if (strcmp(now.nonce, lease->ours.nonce))
		rc = refuse(lease->transfer, &now, err);
	record_clear(&now);
	return rc;
}

/* Reads what is there, makes way, writes ours over it. ERR_PRECONDITION: somebody was faster. */
static int acquire_once(struct lease *lease, const struct lease_options *options, const struct call *call,
			struct err *err)
{
	struct record before = {0}, next;
	bool exists = true;
	uint64_t floor = 0;
	int64_t sent;
	struct err why = {0};
	int rc = record_read(lease->transfer, call, &before, &why);

	if (rc && why.kind == ERR_NOT_FOUND) {
		exists = false;
		rc = 0;
	} else if (rc) {
		if (err)
			*err = why;
		return rc;
	}
	if (exists)
		rc = make_way(lease, options, call, &before, err);
	/* A removed or unreadable lease tells no epoch, but what was shipped does. */
	if (!rc && (!exists || !before.readable))
		rc = ship_highest_epoch(lease->transfer, call, &floor, err);
	if (rc)
		goto out;
	lease->ours.epoch = (before.epoch > floor ? before.epoch : floor) + 1;
	next = record_next(lease);
	sent = clock_boottime();
	rc = record_write(lease, call, exists ? &before : NULL, &next, err);
	if (rc)
		goto out;
	record_replace(&lease->ours, next);
	lease->epoch = next.epoch;
	atomic_store(&lease->valid_ns, sent);
	if (lease->guarantee == LEASE_WEAK)
		rc = settle(lease, call, err);
out:
	record_clear(&before);
	return rc;
}

/* --- renewing -------------------------------------------------------------------------------------------------- */

static void lose(struct lease *lease, const struct record *to)
{
	atomic_store(&lease->lost, true);
	if (to)
		log_error(MODULE,
			  "%s (pid %" PRId64 ") took the lease, epoch %" PRIu64
			  ": nothing more is written to the store from here",
			  to->readable ? to->host : "somebody", to->pid, to->epoch);
	else
		log_error(MODULE, "the lease object was removed: nothing more is written to the store from here");
}

/* Whose is it? Takes the etag of what is there when that is ours. *ret_ours false: the lease is lost. */
static int look(struct lease *lease, const struct call *call, bool *ret_ours, struct err *err)
{
	struct record now = {0};
	struct err why = {0};
	int rc = record_read(lease->transfer, call, &now, &why);

	if (rc && why.kind != ERR_NOT_FOUND) {
		if (err)
			*err = why;
		return rc;
	}
	*ret_ours = !rc && !strcmp(now.nonce, lease->ours.nonce) && now.epoch == lease->ours.epoch;
	if (!*ret_ours) {
		lose(lease, rc ? NULL : &now);
	} else { /* which of our writes it is does not matter: the next one replaces it */
		lease->ours.beat = now.beat > lease->ours.beat ? now.beat : lease->ours.beat;
		free(lease->ours.etag);
		free(lease->ours.native_id);
		lease->ours.etag = now.etag;
		lease->ours.native_id = now.native_id;
		now.etag = now.native_id = NULL;
	}
	record_clear(&now);
	return 0;
}

/* One renewal, or the release. 0 also when the lease turned out to be lost. */
static int write_again(struct lease *lease, const struct call *call, struct err *err)
{
	bool ours = true;
	struct err why = {0};
	struct record next;
	int64_t sent;
	int rc = 0;

	if (lease->guarantee == LEASE_WEAK)
		rc = look(lease, call, &ours, &why);
	for (int tries = 0; !rc && ours && tries < 2; tries++) {
		next = record_next(lease);
		sent = clock_boottime();
		rc = record_write(lease, call, &lease->ours, &next, &why);
		if (!rc) {
			record_replace(&lease->ours, next);
			atomic_store(&lease->valid_ns, sent);
			return 0;
		}
		/* An earlier renewal whose reply was lost may have arrived after all. */
		if (why.kind == ERR_PRECONDITION || why.kind == ERR_NOT_FOUND)
			rc = look(lease, call, &ours, &why);
	}
	if (!rc && ours)
		rc = err_set(&why, ERR_UNAVAILABLE, "the lease changes under our hands");
	if (rc && err)
		*err = why;
	return rc;
}

static void renew_note(struct lease *lease, int rc, const struct err *why)
{
	bool changed;

	lock_acquire(&lease->lock);
	changed = !rc != !lease->last_error[0];
	if (rc) {
		lease->failures++;
		(void)snprintf(lease->last_error, sizeof(lease->last_error), "%s", why->message);
	} else {
		lease->renewals++;
		lease->last_error[0] = '\0';
	}
	lock_release(&lease->lock);
	if (rc && changed)
		log_warn(MODULE, "cannot renew the lease: %s", why->message);
	else if (changed)
		log_info(MODULE, "the lease is renewed again");
}

static void *renew_thread(void *arg)
{
	struct lease *lease = arg;
	int64_t period = lease->duration_ns / 3;

	while (!atomic_load(&lease->lost)) {
		struct call call = {.cancelled = &lease->stop, .essential = true};
		struct err why = {0};
		int64_t until = clock_monotonic() + period;
		int rc;

		lock_acquire(&lease->lock);
		while (!atomic_load(&lease->stop) && clock_monotonic() < until)
			(void)lock_wait(&lease->lock, &lease->wake, until); /* the loop looks at the clock itself */
		lock_release(&lease->lock);
		if (atomic_load(&lease->stop))
			break;
		call.deadline_ns = clock_monotonic() + period;
		rc = write_again(lease, &call, &why);
		if (rc && atomic_load(&lease->stop))
			break;
		if (!atomic_load(&lease->lost))
			renew_note(lease, rc, &why);
		/* After a failure try sooner: every third of a period. */
		period = rc ? lease->duration_ns / 9 : lease->duration_ns / 3;
	}
	return NULL;
}

/* --- public ---------------------------------------------------------------------------------------------------- */

static void set_host(char ret_host[static HOST_SIZE])
{
	if (gethostname(ret_host, HOST_SIZE - 1) || !ret_host[0] ||
	    !utf8_valid(ret_host, strnlen(ret_host, HOST_SIZE - 1)))
		(void)snprintf(ret_host, HOST_SIZE, "localhost");
	ret_host[HOST_SIZE - 1] = '\0';
}

static struct lease *lease_alloc(const struct lease_options *options)
{
	struct lease *lease = calloc(1, sizeof(*lease));
	uint8_t nonce[NONCE_SIZE];

	if (!lease)
		return NULL;
	lock_init(&lease->lock, LOCK_LEAF);
	lock_cond_init(&lease->wake);
	lease->catalog = options->catalog;
	lease->transfer = options->transfer;
	lease->duration_ns = options->duration_ns ? options->duration_ns : DURATION_DEFAULT;
	lease->guarantee = transfer_can(options->transfer, BACKEND_IF_NONE_MATCH) &&
					   transfer_can(options->transfer, BACKEND_IF_MATCH)
				   ? LEASE_CONDITIONAL
				   : LEASE_WEAK;
	random_bytes(nonce, sizeof(nonce));
	hex_encode(nonce, sizeof(nonce), lease->ours.nonce);
	set_host(lease->ours.host);
	lease->ours.pid = getpid();
	lease->ours.duration_ns = lease->duration_ns;
	lease->ours.readable = true;
	return lease;
}

int lease_acquire(const struct lease_options *options, const struct call *call, struct lease **ret_lease,
		  struct err *err)
{
	AUTO_FREE char *nonces = NULL;
	struct lease *lease = lease_alloc(options);
	char nonce[NONCE_HEX_SIZE]; /* once the thread runs, `ours` is its own */
	struct err why = {0};
	int rc;

	if (!lease)
		return err_set(err, ERR_NO_MEMORY, "lease");
	memcpy(nonce, lease->ours.nonce, sizeof(nonce));
	(void)catalog_setting_get(lease->catalog, SETTING_NONCE, &nonces); /* none: the first mount */
	rc = nonce_record(lease, nonce, nonces, &why);
	/* Whoever was faster is met again at the second look, as a living holder. */
	for (int tries = 0; !rc && tries < 3; tries++) {
		rc = acquire_once(lease, options, call, &why);
		if (!rc || (why.kind != ERR_PRECONDITION && why.kind != ERR_NOT_FOUND))
			break;
		rc = tries < 2 ? 0 : rc;
	}
	if (!rc) {
		rc = -pthread_create(&lease->thread, NULL, renew_thread, lease);
		if (rc)
			(void)err_from_errno(&why, -rc, "lease thread");
	}
	if (rc) {
		if (err)
			*err = why;
		lease_free(lease);
		return rc;
	}
	lease->running = true;
	if (nonce_record(lease, nonce, NULL, &why)) /* the list is longer than it need be, that is all */
		log_debug(MODULE, "%s", why.message);
	if (lease->guarantee == LEASE_WEAK)
		log_warn(MODULE, "%s has no conditional writes: two mounts at the same moment may not see each other",
			 transfer_description(lease->transfer));
	*ret_lease = lease;
	return 0;
}

static void lease_stop(struct lease *lease)
{
	if (!lease->running)
		return;
	lock_acquire(&lease->lock);
	atomic_store(&lease->stop, true);
	(void)pthread_cond_broadcast(&lease->wake);
	lock_release(&lease->lock);
	(void)pthread_join(lease->thread, NULL); /* ours, and joined once: it cannot fail */
	lease->running = false;
}

void lease_release(struct lease *lease, const struct call *call)
{
	struct err why = {0};

	lease_stop(lease);
	if (atomic_load(&lease->lost))
		return;
	lease->releasing = true;
	if (write_again(lease, call, &why))
		log_warn(MODULE, "cannot release the lease: %s", why.message);
	/* Nothing may be written in its name any more. */
	atomic_store(&lease->lost, true);
}

void lease_free(struct lease *lease)
{
	if (!lease)
		return;
	lease_stop(lease);
	record_clear(&lease->ours);
	(void)pthread_cond_destroy(&lease->wake); /* nobody waits */
	lock_destroy(&lease->lock);
	free(lease);
}

bool lease_may_write(const struct lease *lease)
{
	return !atomic_load(&lease->lost) && clock_boottime() - atomic_load(&lease->valid_ns) < lease->duration_ns / 2;
}

bool lease_lost(const struct lease *lease)
{
	return atomic_load(&lease->lost);
}

uint64_t lease_epoch(const struct lease *lease)
{
	return lease->epoch;
}

bool lease_was_foreign(const struct lease *lease)
{
	AUTO_FREE char *foreign = NULL;

	return catalog_setting_get(lease->catalog, SETTING_FOREIGN, &foreign) == 0 && foreign[0];
}

int lease_caught_up(struct lease *lease)
{
	return catalog_setting_put(lease->catalog, SETTING_FOREIGN, "");
}

int lease_check(const struct lease *lease, struct err *err)
{
	if (lease_lost(lease))
		return err_set(err, ERR_PRECONDITION, "the lease on %s is lost to another holder",
			       transfer_description(lease->transfer));
	if (!lease_may_write(lease))
		return err_set(err, ERR_UNAVAILABLE, "the lease on %s could not be renewed in time",
			       transfer_description(lease->transfer));
	return 0;
}

void lease_figures(struct lease *lease, struct lease_figures *ret_figures)
{
	struct lease_figures figures = {
		.epoch = lease_epoch(lease),
		.guarantee = lease->guarantee,
		.age_ns = clock_boottime() - atomic_load(&lease->valid_ns),
		.lost = lease_lost(lease),
	};

	lock_acquire(&lease->lock);
	figures.renewals = lease->renewals;
	figures.failures = lease->failures;
	memcpy(figures.last_error, lease->last_error, sizeof(figures.last_error));
	lock_release(&lease->lock);
	*ret_figures = figures;
}

/* --- identity ---------------------------------------------------------------------------------------------------- */

#define ID_HEX_SIZE (2 * CAT_STORE_ID_SIZE + 1)

static bool id_is_set(const uint8_t id[static CAT_STORE_ID_SIZE])
{
	static const uint8_t none[CAT_STORE_ID_SIZE];

	return memcmp(id, none, sizeof(none)) != 0;
}

/* Pure. */
static bool id_decode(const char *bytes, size_t len, uint8_t ret_id[static CAT_STORE_ID_SIZE])
{
	json_t *root = json_loadb(bytes, len, 0, NULL);
	const char *text = json_string_value(json_object_get(root, "id"));
	bool ok = text && !hex_decode(text, CAT_STORE_ID_SIZE, ret_id) && id_is_set(ret_id);

	json_decref(root);
	return ok;
}

static int id_read(struct transfer *transfer, const struct call *call, uint8_t ret_id[static CAT_STORE_ID_SIZE],
		   struct err *err)
{
	struct text text = {.key = LEASE_ID_KEY};
	struct object_info info = {0};
	int rc = text_get(transfer, call, &text, &info, err);

	if (rc)
		return rc;
	object_info_clear(&info);
	if (!id_decode(text.bytes, text.len, ret_id))
		return err_set(err, ERR_CONFIGURATION, "%s: %s is there but is no store id; restore it or remove it",
			       transfer_description(transfer), LEASE_ID_KEY);
	return 0;
}

/* A new id, unless somebody else makes one at the same moment: then theirs. */
static int id_create(struct transfer *transfer, const struct call *call, uint8_t ret_id[static CAT_STORE_ID_SIZE],
		     struct err *err)
{
	uint8_t id[CAT_STORE_ID_SIZE];
	char hex[ID_HEX_SIZE], created[CLOCK_RFC3339_SIZE];
	struct text text = {.key = LEASE_ID_KEY};
	struct text_put put = {.text = &text, .mark = hex};
	struct object_info info = {0};
	struct err why = {0};
	int rc;

	random_bytes(id, sizeof(id));
	hex_encode(id, sizeof(id), hex);
	clock_format_rfc3339(clock_wall(), created);
	text.len = (size_t)snprintf(text.bytes, sizeof(text.bytes), "{\"id\": \"%s\", \"created\": \"%s\"}\n", hex,
				    created);
	put.condition.if_none_match = transfer_can(transfer, BACKEND_IF_NONE_MATCH);
	rc = text_put(transfer, call, &put, &info, &why);
	if (rc && why.kind != ERR_PRECONDITION) {
		if (err)
			*err = why;
		return rc;
	}
	object_info_clear(&info);
	return id_read(transfer, call, ret_id, err);
}

static int first_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	bool *found = arg;

	(void)name;
	(void)inode;
	*found = true;
	return 0;
}

/*
 * A catalog without an id never wrote to a store; but a read-only mount may
 * have filled it from one that had no id either. That one goes by its address.
 */
static int check_unnamed(const struct lease_options *options, struct err *err)
{
	AUTO_FREE char *url = NULL;
	const char *here = transfer_description(options->transfer);
	struct cat_readdir request = {.parent = CAT_ROOT_INO, .max = 1};
	bool content = false;
	int rc = catalog_setting_get(options->catalog, SETTING_URL, &url);

	if (!rc && strcmp(url, here))
		return err_set(err, ERR_CONFIGURATION, "state directory belongs to another store (%s, this is %s)", url,
			       here);
	if (rc == -ENOENT) {
		rc = catalog_readdir(options->catalog, &request, first_name, &content);
		if (!rc && content)
			return err_set(err, ERR_CONFIGURATION,
				       "state directory has files of a store that is not named; use a new one for %s",
				       here);
		if (!rc)
			rc = catalog_setting_put(options->catalog, SETTING_URL, here);
	}
	return rc ? err_from_errno(err, -rc, "state directory") : 0;
}

static int check_named(const struct lease_options *options, const uint8_t *ours, const uint8_t *theirs, struct err *err)
{
	const char *here = transfer_description(options->transfer);
	char ours_hex[ID_HEX_SIZE], theirs_hex[ID_HEX_SIZE];

	hex_encode(ours, CAT_STORE_ID_SIZE, ours_hex);
	if (!theirs)
		return err_set(err, ERR_CONFIGURATION,
			       "state directory belongs to another store (%s): %s has no %s; was the bucket emptied?",
			       ours_hex, here, LEASE_ID_KEY);
	hex_encode(theirs, CAT_STORE_ID_SIZE, theirs_hex);
	if (memcmp(ours, theirs, CAT_STORE_ID_SIZE))
		return err_set(err, ERR_CONFIGURATION, "state directory belongs to another store (%s, %s is %s)",
			       ours_hex, here, theirs_hex);
	return 0;
}

int lease_check_identity(const struct lease_options *options, enum lease_identity_mode mode, const struct call *call,
			 struct err *err)
{
	uint8_t ours[CAT_STORE_ID_SIZE], theirs[CAT_STORE_ID_SIZE];
	struct err why = {0};
	bool exists;
	int rc = catalog_store_id(options->catalog, ours);

	if (rc)
		return err_from_errno(err, -rc, "state directory");
	rc = id_read(options->transfer, call, theirs, &why);
	if (rc && why.kind != ERR_NOT_FOUND) {
		if (err)
			*err = why;
		return rc;
	}
	exists = !rc;
	if (id_is_set(ours))
		return check_named(options, ours, exists ? theirs : NULL, err);
	rc = check_unnamed(options, err);
	if (rc || (!exists && mode == LEASE_IDENTITY_READ))
		return rc;
	if (!exists)
		rc = id_create(options->transfer, call, theirs, err);
	if (rc)
		return rc;
	rc = catalog_set_store_id(options->catalog, theirs);
	return rc ? err_from_errno(err, -rc, "state directory") : 0;
}
