/*
 * faulty.h - any backend, with faults when and where a test wants them.
 *
 * A plan is a list of rules and a count of calls; every call through a wrapped
 * backend is counted, over all operations and for its own, and the first rule
 * that matches acts on it. One plan may serve several wrapped backends.
 *
 * Thread-safe; rules may be added while calls run.
 */
#ifndef VARVE_BACKENDS_FAULTY_H
#define VARVE_BACKENDS_FAULTY_H

#include <stdbool.h>
#include <stdint.h>

#include "varve/backend.h"

enum faulty_op {
	FAULTY_ANY, /* in rules and counts: every operation */
	FAULTY_PROBE,
	FAULTY_HEAD,
	FAULTY_GET,
	FAULTY_PUT,
	FAULTY_COPY,
	FAULTY_REMOVE,
	FAULTY_LIST,
	FAULTY_UPLOAD_BEGIN,
	FAULTY_UPLOAD_PART,
	FAULTY_UPLOAD_PART_COPY,
	FAULTY_UPLOAD_COMPLETE,
	FAULTY_UPLOAD_ABORT,
	FAULTY_OPEN_LOCAL,
	FAULTY_OPS, /* how many */
};

enum faulty_action {
	FAULTY_FAIL,       /* fails before the inner call: nothing was done */
	FAULTY_LOSE_REPLY, /* the inner call is made; if it succeeds, the caller is told `kind` all the same */
	FAULTY_TRUNCATE,   /* get: the sink sees `bytes` bytes, then the call fails; with ERR_NONE it claims success */
	FAULTY_FLIP,       /* get: one bit of content byte number `bytes` of what is delivered is turned; no error */
	FAULTY_DELAY,      /* delay_ns first, within the call's deadline and cancellation; then the inner call */
};

struct faulty_rule {
	enum faulty_op op;
	unsigned nth;   /* acts on the nth call of `op` from when the plan began or was reset, from 1 */
	bool from_then; /* and on all after it */
	enum faulty_action action;
	enum err_kind kind; /* for FAIL, LOSE_REPLY and TRUNCATE */
	uint64_t bytes;
	int64_t delay_ns;
	uint32_t retry_after_ms; /* in the error, with ERR_THROTTLED */
};

/* Called at each call before anything else, on the call's thread. `count`: of all calls so far, this one included. */
typedef void (*faulty_hook_fn)(void *arg, enum faulty_op op, const char *key, unsigned count);

struct faulty_plan;
struct faulty_plan *faulty_plan_new(void); /* NULL: no memory */
/* After all that use it are closed. */
void faulty_plan_free(struct faulty_plan *plan);
int faulty_plan_add(struct faulty_plan *plan, const struct faulty_rule *rule); /* 0 or -ENOMEM */
/* No rules, counts 0; the hook stays. */
void faulty_plan_reset(struct faulty_plan *plan);
void faulty_plan_hook(struct faulty_plan *plan, faulty_hook_fn hook, void *arg);
unsigned faulty_plan_calls(struct faulty_plan *plan, enum faulty_op op);
/* How many calls a rule acted on. */
unsigned faulty_plan_hits(struct faulty_plan *plan);

/* Takes `inner` over on success: closing the wrapper closes it. The plan is borrowed. 0 or -ENOMEM. */
int faulty_wrap(struct backend *inner, struct faulty_plan *plan, struct backend **ret_backend);

#endif
