/*
 * transfer_retry.c - when a call is tried again, and how fast attempts may start.
 *
 * Backoff: full jitter, a random wait in [0, min(10 s, 100 ms * 2^n)], never shorter than the store's Retry-After,
 * until the deadline. Corruption is tried three times: in transit it passes, in the store it stays.
 *
 * Slow-down: an answer "throttled" halves how many attempts may be under way at once, and as many successes as there
 * may be allow one more (additive increase, multiplicative decrease). Attempts that were under way when it was halved
 * say nothing new. It doubles the gap between starts of attempts besides, which each success shrinks, so many threads
 * together approach the rate that the store allows instead of each hammering on. A call made to resolve the doubt of
 * another, on the same thread, does not wait for room: the other would hold it.
 *
 * Threads: a struct retry belongs to one; what attempts share is guarded by transfer->lock.
 */
#include "transfer_retry.h"

#include <errno.h>
#include <string.h>

#include "checksum.h"

#define FAR_NS (8 * NS_PER_MS)
#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (10 * NS_PER_SEC)
#define RETRY_CORRUPTIONS 3
#define RETRY_DOUBLINGS 7
/* A call that moves bytes may take this much longer for each so many of them: 128 KiB a second is alive. */
#define PATIENCE_BYTES_PER_SECOND (128 * 1024)
#define PATIENCE_SHARERS 16             /* so many transfers at once share a limited rate */
#define PATIENCE_MOST (365 * 24 * 3600) /* seconds */
#define ROOM_SLICE_NS (20 * NS_PER_MS)  /* how late a cancellation may be seen */

#define GAP_FIRST_NS (5 * NS_PER_MS)
#define GAP_MAX_NS NS_PER_SEC
#define GAP_FORGET_NS NS_PER_MS

static _Thread_local unsigned attempts_here; /* of this thread, one within the other */

static int64_t patience(const struct transfer *transfer, uint64_t bytes)
{
	const struct transfer_options *options = &transfer->options;
	uint64_t rate = options->bytes_per_second_down;

	if (options->bytes_per_second_up && (!rate || options->bytes_per_second_up < rate))
		rate = options->bytes_per_second_up;
	rate /= PATIENCE_SHARERS;
	if (!rate || rate > PATIENCE_BYTES_PER_SECOND)
		rate = PATIENCE_BYTES_PER_SECOND;
	bytes /= rate;
	return options->call_timeout_ns + (int64_t)(bytes < PATIENCE_MOST ? bytes : PATIENCE_MOST) * NS_PER_SEC;
}

void retry_begin(struct retry *retry, struct transfer *transfer, const struct call *call, uint64_t bytes)
{
	*retry = (struct retry){.transfer = transfer};
	if (call)
		retry->call = *call;
	if (retry->call.deadline_ns == 0)
		retry->call.deadline_ns = clock_monotonic() + patience(transfer, bytes);
}

static int64_t reserve_start(struct transfer *transfer)
{
	LOCK_GUARD(&transfer->lock);
	int64_t now = clock_monotonic();
	if (transfer->gap_ns == 0)
		return now;
	int64_t start = transfer->next_start_ns > now ? transfer->next_start_ns : now;
	transfer->next_start_ns = start + transfer->gap_ns;
	return start;
}

/* Takes its place among the attempts under way. 0, -ECANCELED, -ETIMEDOUT. */
static int enter(struct retry *retry)
{
	struct transfer *transfer = retry->transfer;

	LOCK_GUARD(&transfer->lock);
	while (!attempts_here && !retry->call.essential && transfer->allowed &&
	       transfer->attempts >= transfer->allowed) {
		int64_t now = clock_monotonic();
		if (call_cancelled(&retry->call))
			return -ECANCELED;
		if (now >= retry->call.deadline_ns)
			return -ETIMEDOUT;
		(void)lock_wait(&transfer->lock, &transfer->room, now + ROOM_SLICE_NS);
	}
	transfer->attempts++;
	attempts_here++;
	retry->started_ns = clock_monotonic();
	return 0;
}

int retry_start(struct retry *retry, struct err *err)
{
	int r = pace_sleep_until(reserve_start(retry->transfer), &retry->call);
	if (r == 0)
		r = enter(retry);
	if (r == -ECANCELED)
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (r == -ETIMEDOUT)
		return err_set(err, ERR_TIMED_OUT, "deadline passed while the store throttles");
	return 0;
}

/* Answers that say nothing bad of the store or the way to it. */
static bool is_ordinary(enum err_kind kind)
{
	return kind == ERR_NONE || kind == ERR_NOT_FOUND || kind == ERR_PRECONDITION || kind == ERR_CANCELLED;
}

static bool reached_store(const struct err *err)
{
	if (err->http_status != 0)
		return true;
	return err->kind != ERR_UNAVAILABLE && err->kind != ERR_TIMED_OUT && err->kind != ERR_INDETERMINATE;
}

/* With the lock held. */
static void allow_fewer(struct transfer *transfer, const struct retry *retry)
{
	if (retry->started_ns < transfer->halved_ns)
		return;
	/* This one has left already. */
	transfer->allowed = (transfer->attempts + 1) / 2 ? (transfer->attempts + 1) / 2 : 1;
	transfer->good = 0;
	transfer->halved_ns = clock_monotonic();
}

static void allow_more(struct transfer *transfer)
{
	unsigned most = transfer->options.max_requests;

	if (!transfer->allowed || (most && transfer->allowed >= most) || ++transfer->good < transfer->allowed)
		return;
	transfer->good = 0;
	transfer->allowed++;
	/* More than anybody asks for at once: no bound is needed any more. */
	if (!most && transfer->allowed > 4 * transfer->options.threads)
		transfer->allowed = 0;
}

/* With the lock held. */
static void note_latency(struct retry *retry)
{
	struct transfer *transfer = retry->transfer;
	bool far;

	transfer->latency_ns = clock_at_best(transfer->latency_ns, clock_monotonic() - retry->started_ns);
	far = transfer->latency_ns > (transfer->far ? FAR_NS / 2 : FAR_NS);
	if (far == transfer->far)
		return;
	transfer->far = far;
	transfer_pool_widen(transfer->pool, far);
}

void retry_note(struct retry *retry, int r, const struct err *err)
{
	struct transfer *transfer = retry->transfer;

	LOCK_GUARD(&transfer->lock);
	if (retry->small && (r == 0 || err->kind == ERR_NOT_FOUND))
		note_latency(retry);
	transfer->attempts--;
	attempts_here--;
	(void)pthread_cond_signal(&transfer->room);
	if (r == 0) {
		transfer->online = true;
		allow_more(transfer);
		transfer->gap_ns -= transfer->gap_ns / 16;
		if (transfer->gap_ns < GAP_FORGET_NS)
			transfer->gap_ns = 0;
		return;
	}
	if (err->kind == ERR_THROTTLED) {
		allow_fewer(transfer, retry);
		transfer->gap_ns = transfer->gap_ns ? 2 * transfer->gap_ns : GAP_FIRST_NS;
		if (transfer->gap_ns > GAP_MAX_NS)
			transfer->gap_ns = GAP_MAX_NS;
	}
	if (err->kind != ERR_CANCELLED)
		transfer->online = reached_store(err);
	if (!is_ordinary(err->kind)) {
		transfer->last_error_wall = clock_wall();
		_Static_assert(sizeof(transfer->last_error) >= sizeof(err->message), "a message fits");
		memcpy(transfer->last_error, err->message, sizeof(err->message));
	}
}

static int64_t backoff(const struct retry *retry, const struct err *err)
{
	unsigned doublings = retry->failures < RETRY_DOUBLINGS ? retry->failures : RETRY_DOUBLINGS;
	int64_t most = RETRY_FIRST_NS << doublings;
	if (most > RETRY_MAX_NS)
		most = RETRY_MAX_NS;
	uint64_t random;
	random_bytes(&random, sizeof(random));
	int64_t wait = (int64_t)(random % (uint64_t)most);
	int64_t asked = (int64_t)err->retry_after_ms * NS_PER_MS;
	return wait < asked ? asked : wait;
}

bool retry_again(struct retry *retry, int r, const struct err *err)
{
	retry_note(retry, r, err);
	if (r == 0 || !err_is_transient(err->kind))
		return false;
	if (err->kind == ERR_CORRUPT && ++retry->corruptions >= RETRY_CORRUPTIONS)
		return false;
	if (retry->call.hasty && retry->failures && !reached_store(err))
		return false;
	int64_t until = clock_monotonic() + backoff(retry, err);
	retry->failures++;
	if (until >= retry->call.deadline_ns || pace_sleep_until(until, &retry->call) < 0)
		return false;
	retry->transfer->retries++;
	return true;
}

int retry_still_in_doubt(struct err *err)
{
	struct err last = *err;

	if (last.kind == ERR_INDETERMINATE)
		return -err_errno(last.kind);
	return err_set(err, ERR_INDETERMINATE, "reply lost, and then: %.150s", last.message);
}

void progress_restart(struct progress *progress)
{
	progress->now = 0;
}

void progress_add(struct progress *progress, uint64_t bytes)
{
	progress->now += bytes;
	if (progress->now <= progress->most)
		return;
	if (progress->moved)
		*progress->moved += progress->now - progress->most;
	progress->most = progress->now;
}

void progress_done(struct progress *progress, uint64_t bytes)
{
	if (bytes > progress->most) {
		progress_restart(progress);
		progress_add(progress, bytes);
	}
}
