/*
 * transfer_retry.h - inside transfer: the engine, and the pace of attempts.
 *
 * Private to backends/transfer*.c.
 */
#ifndef VARVE_TRANSFER_RETRY_H
#define VARVE_TRANSFER_RETRY_H

#include "clock.h"
#include "lock.h"
#include "pace.h"
#include "transfer.h"

struct transfer_pool;

/* What a probe said; never changed once published, so readers need no lock. */
struct transfer_info {
	struct transfer_info *older;
	struct backend_info info;
};

struct transfer {
	struct backend *backend;
	struct transfer_options options; /* constant */
	struct transfer_pool *pool;
	struct transfer_info *_Atomic info; /* the newest; all are freed with the engine */
	struct pace up, down;

	pthread_cond_t room;   /* an attempt ended, or more are allowed */
	struct lock lock;      /* LOCK_LEAF: guards what follows */
	int64_t gap_ns;        /* between starts of attempts; 0: the store does not throttle us */
	int64_t next_start_ns; /* CLOCK_MONOTONIC */
	unsigned attempts;     /* under way */
	unsigned allowed;      /* so many at once; 0: as many as come */
	unsigned good;         /* successes since `allowed` changed */
	int64_t halved_ns;     /* when it was halved last */
	bool online;
	int64_t latency_ns; /* of a small request, near the least of late; 0: not known */
	int64_t last_error_wall;
	char last_error[256];

	atomic_bool far;
	_Atomic uint64_t retries;
	_Atomic uint64_t heads, gets, lists; /* attempts */
};

/* One call with all its attempts. */
struct retry {
	struct transfer *transfer;
	struct call call; /* with a deadline */
	int64_t started_ns;
	bool small; /* an attempt takes little more than the way to the store and back */
	unsigned failures;
	unsigned corruptions;
};

/* `bytes`: how much the call moves; patience grows with it. */
void retry_begin(struct retry *retry, struct transfer *transfer, const struct call *call, uint64_t bytes);
/* Waits until an attempt may start. 0 or -errno with err filled. Each 0 is answered by one retry_note or retry_again.
 */
int retry_start(struct retry *retry, struct err *err);
/* Notes what an attempt came to, for the figures and the pace. */
void retry_note(struct retry *retry, int r, const struct err *err);
/* retry_note, and for r < 0 whether there may be another, after the wait that is due. err is not changed. */
bool retry_again(struct retry *retry, int r, const struct err *err);

/* The end of a call of which an attempt's reply was lost: whatever the last one met, the lost one may have been done.
 * Returns -errno, with err saying so. */
int retry_still_in_doubt(struct err *err);
/* How far a call, or a part, has come: what a failed attempt moved counts once, however often it is moved again. */
struct progress {
	_Atomic uint64_t *moved; /* of the call; may be NULL */
	uint64_t now, most;      /* bytes of this attempt; of the best one */
};
void progress_restart(struct progress *progress);
void progress_add(struct progress *progress, uint64_t bytes);
/* All of it is there, `bytes`. */
void progress_done(struct progress *progress, uint64_t bytes);

/* transfer_pool.c */
int transfer_pool_new(unsigned threads, struct transfer_pool **ret_pool);
void transfer_pool_free(struct transfer_pool *pool);
void transfer_pool_submit(struct transfer_pool *pool, struct transfer_task *task);
bool transfer_pool_withdraw(struct transfer_pool *pool, struct transfer_task *task);
/* Whether background tasks may run on more of the threads than otherwise. */
void transfer_pool_widen(struct transfer_pool *pool, bool wide);
unsigned transfer_pool_threads(const struct transfer_pool *pool);
void transfer_pool_count(struct transfer_pool *pool, unsigned *ret_queued, unsigned *ret_running);

#endif
