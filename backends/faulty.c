/*
 * faulty.c - a backend around a backend that fails as a plan says (faulty.h).
 *
 * Threads and locks: plan->lock guards rules, counts and the hook; it is held
 * neither across the hook nor across inner calls. A wrapper is immutable.
 */
#include "backends/faulty.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "lock.h"

#define NAP_NS (5 * NS_PER_MS)

struct faulty_plan {
	struct lock lock; /* guards all below */
	struct faulty_rule *rules;
	size_t count;
	unsigned calls[FAULTY_OPS]; /* [FAULTY_ANY]: all */
	unsigned hits;
	faulty_hook_fn hook;
	void *hook_arg;
};

struct faulty {
	const struct backend_ops *ops; /* &own */
	struct backend_ops own;        /* the inner's, where it has one at all */
	struct backend *inner;
	struct faulty_plan *plan;
};

static const char *const op_names[FAULTY_OPS] = {
	[FAULTY_ANY] = "any",
	[FAULTY_PROBE] = "probe",
	[FAULTY_HEAD] = "head",
	[FAULTY_GET] = "get",
	[FAULTY_PUT] = "put",
	[FAULTY_COPY] = "copy",
	[FAULTY_REMOVE] = "remove",
	[FAULTY_LIST] = "list",
	[FAULTY_UPLOAD_BEGIN] = "upload_begin",
	[FAULTY_UPLOAD_PART] = "upload_part",
	[FAULTY_UPLOAD_PART_COPY] = "upload_part_copy",
	[FAULTY_UPLOAD_COMPLETE] = "upload_complete",
	[FAULTY_UPLOAD_ABORT] = "upload_abort",
	[FAULTY_OPEN_LOCAL] = "open_local",
};

/* --- the plan ----------------------------------------------------------------------------------------- */

struct faulty_plan *faulty_plan_new(void)
{
	struct faulty_plan *plan = calloc(1, sizeof(*plan));

	if (plan)
		lock_init(&plan->lock, LOCK_LEAF);
	return plan;
}

void faulty_plan_free(struct faulty_plan *plan)
{
	if (!plan)
		return;
	lock_destroy(&plan->lock);
	free(plan->rules);
	free(plan);
}

int faulty_plan_add(struct faulty_plan *plan, const struct faulty_rule *rule)
{
	struct faulty_rule *rules;

	LOCK_GUARD(&plan->lock);
	rules = reallocarray(plan->rules, plan->count + 1, sizeof(*rules));
	if (!rules)
		return -ENOMEM;
	plan->rules = rules;
	rules[plan->count++] = *rule;
	return 0;
}

void faulty_plan_reset(struct faulty_plan *plan)
{
	LOCK_GUARD(&plan->lock);
	plan->count = 0;
	plan->hits = 0;
	memset(plan->calls, 0, sizeof(plan->calls));
}

void faulty_plan_hook(struct faulty_plan *plan, faulty_hook_fn hook, void *arg)
{
	LOCK_GUARD(&plan->lock);
	plan->hook = hook;
	plan->hook_arg = arg;
}

unsigned faulty_plan_calls(struct faulty_plan *plan, enum faulty_op op)
{
	LOCK_GUARD(&plan->lock);
	return plan->calls[op];
}

unsigned faulty_plan_hits(struct faulty_plan *plan)
{
	LOCK_GUARD(&plan->lock);
	return plan->hits;
}

static bool rule_matches(const struct faulty_plan *plan, const struct faulty_rule *rule, enum faulty_op op)
{
	unsigned count;

	if (rule->op != FAULTY_ANY && rule->op != op)
		return false;
	count = plan->calls[rule->op];
	return rule->from_then ? count >= rule->nth : count == rule->nth;
}

/* Counts the call; true and the rule when one acts on it. */
static bool plan_next(struct faulty_plan *plan, enum faulty_op op, const char *key, struct faulty_rule *ret_rule)
{
	faulty_hook_fn hook;
	void *hook_arg;
	unsigned count;
	bool found = false;

	lock_acquire(&plan->lock);
	count = ++plan->calls[FAULTY_ANY];
	plan->calls[op]++;
	for (size_t i = 0; !found && i < plan->count; i++) {
		found = rule_matches(plan, &plan->rules[i], op);
		if (found)
			*ret_rule = plan->rules[i];
	}
	plan->hits += found;
	hook = plan->hook;
	hook_arg = plan->hook_arg;
	lock_release(&plan->lock);
	if (hook)
		hook(hook_arg, op, key, count);
	return found;
}

/* --- one call ------------------------------------------------------------------------------------------- */

struct attempt {
	enum faulty_op op;
	struct faulty_rule rule;
	bool ruled;
};

static int fail(const struct attempt *attempt, struct err *err)
{
	int rc = err_set(err, attempt->rule.kind, "planned fault in %s", op_names[attempt->op]);

	if (err)
		err->retry_after_ms = attempt->rule.retry_after_ms;
	return rc;
}

static int delay(const struct call *call, int64_t delay_ns, struct err *err)
{
	int64_t until = clock_monotonic() + delay_ns;

	for (int64_t now = clock_monotonic(); now < until; now = clock_monotonic()) {
		struct timespec nap = clock_to_timespec(until - now < NAP_NS ? until - now : NAP_NS);

		if (call && call->cancelled && atomic_load(call->cancelled))
			return err_set(err, ERR_CANCELLED, "cancelled while delayed");
		if (call && call->deadline_ns && now >= call->deadline_ns)
			return err_set(err, ERR_TIMED_OUT, "delayed past the deadline");
		(void)nanosleep(&nap, NULL); /* woken early, it looks early */
	}
	return 0;
}

/* Before the inner call: 0 when it shall be made. */
static int before(struct faulty *faulty, const struct call *call, const char *key, struct attempt *attempt,
		  struct err *err)
{
	attempt->ruled = plan_next(faulty->plan, attempt->op, key, &attempt->rule);
	if (!attempt->ruled)
		return 0;
	if (attempt->rule.action == FAULTY_FAIL)
		return fail(attempt, err);
	if (attempt->rule.action == FAULTY_DELAY)
		return delay(call, attempt->rule.delay_ns, err);
	return 0;
}

/* After it. When this turns success into failure the caller drops the outputs. */
static int after(const struct attempt *attempt, int rc, struct err *err)
{
	if (rc || !attempt->ruled || attempt->rule.action != FAULTY_LOSE_REPLY)
		return rc;
	return fail(attempt, err);
}

static struct faulty *faulty_of(struct backend *backend)
{
	return (struct faulty *)backend;
}

static void give_info(int rc, struct object_info *info, struct object_info *ret_info)
{
	if (!rc && ret_info)
		*ret_info = *info;
	else
		object_info_clear(info);
}

static void give_string(int rc, char *string, char **ret_string)
{
	if (!rc && ret_string)
		*ret_string = string;
	else
		free(string);
}

static void give_part(int rc, struct upload_part *part, struct upload_part *ret_part)
{
	if (rc)
		upload_part_clear(part);
	else
		*ret_part = *part;
}

/* --- operations ------------------------------------------------------------------------------------------ */

static int faulty_open(const struct backend_options *options, struct backend **ret_backend, struct err *err)
{
	(void)options;
	(void)ret_backend;
	return err_set(err, ERR_UNSUPPORTED, "made by faulty_wrap only");
}

static void faulty_close(struct backend *backend)
{
	struct faulty *faulty = faulty_of(backend);

	backend_ops(faulty->inner)->close(faulty->inner);
	free(faulty);
}

static int faulty_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info,
			struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_PROBE};
	struct backend_info info;
	int rc = before(faulty, call, NULL, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->probe(faulty->inner, call, &info, err), err);
	if (!rc)
		*ret_info = info;
	return rc;
}

static int faulty_head(struct backend *backend, const struct call *call, const struct object_ref *object,
		       struct object_info *ret_info, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_HEAD};
	struct object_info info = {0};
	int rc = before(faulty, call, object->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->head(faulty->inner, call, object, &info, err), err);
	give_info(rc, &info, ret_info);
	return rc;
}

/* A sink that spoils what passes. */
struct spoiler {
	const struct faulty_rule *rule;
	backend_sink_fn sink;
	void *sink_arg;
	uint64_t seen;
	bool cut; /* the sink saw all it shall see */
};

static int spoil_flip(struct spoiler *spoiler, const void *bytes, size_t len)
{
	AUTO_FREE unsigned char *copy = NULL;
	uint64_t at = spoiler->rule->bytes - spoiler->seen;

	copy = malloc(len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, bytes, len);
	copy[at] ^= 1;
	return spoiler->sink(spoiler->sink_arg, copy, len);
}

static int spoil(void *arg, const void *bytes, size_t len)
{
	struct spoiler *spoiler = arg;
	uint64_t target = spoiler->rule->bytes;
	bool here = target >= spoiler->seen && target - spoiler->seen < len;
	int rc = 0;

	if (spoiler->rule->action == FAULTY_FLIP) {
		rc = here ? spoil_flip(spoiler, bytes, len) : spoiler->sink(spoiler->sink_arg, bytes, len);
	} else if (!spoiler->cut) {
		spoiler->cut = here;
		len = here ? (size_t)(target - spoiler->seen) : len;
		rc = len ? spoiler->sink(spoiler->sink_arg, bytes, len) : 0;
	}
	spoiler->seen += len;
	return rc;
}

static int faulty_get(struct backend *backend, const struct call *call, const struct get_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_GET};
	struct spoiler spoiler = {.rule = &attempt.rule, .sink = request->sink, .sink_arg = request->sink_arg};
	struct get_request inner = *request;
	struct object_info info = {0};
	int rc = before(faulty, call, request->object.key, &attempt, err);

	if (!rc && attempt.ruled && (attempt.rule.action == FAULTY_FLIP || attempt.rule.action == FAULTY_TRUNCATE)) {
		inner.sink = spoil;
		inner.sink_arg = &spoiler;
	}
	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->get(faulty->inner, call, &inner, &info, err), err);
	if (!rc && spoiler.cut && attempt.rule.kind != ERR_NONE)
		rc = fail(&attempt, err);
	give_info(rc, &info, ret_info);
	return rc;
}

static int faulty_put(struct backend *backend, const struct call *call, const struct put_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_PUT};
	struct object_info info = {0};
	int rc = before(faulty, call, request->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->put(faulty->inner, call, request, &info, err), err);
	give_info(rc, &info, ret_info);
	return rc;
}

static int faulty_copy(struct backend *backend, const struct call *call, const struct copy_request *request,
		       struct object_info *ret_info, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_COPY};
	struct object_info info = {0};
	int rc = before(faulty, call, request->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->copy(faulty->inner, call, request, &info, err), err);
	give_info(rc, &info, ret_info);
	return rc;
}

static int faulty_remove(struct backend *backend, const struct call *call, const struct object_ref *object,
			 char **ret_marker_id, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_REMOVE};
	char *marker = NULL;
	int rc = before(faulty, call, object->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->remove(faulty->inner, call, object, &marker, err),
			   err);
	give_string(rc, marker, ret_marker_id);
	return rc;
}

static int faulty_list(struct backend *backend, const struct call *call, const struct list_request *request,
		       struct list_page *ret_page, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_LIST};
	struct list_page page = {0};
	int rc = before(faulty, call, request->prefix, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->list(faulty->inner, call, request, &page, err), err);
	if (rc)
		list_page_clear(&page);
	else
		*ret_page = page;
	return rc;
}

static int faulty_upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
			       char **ret_upload_id, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_UPLOAD_BEGIN};
	char *id = NULL;
	int rc = before(faulty, call, request->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->upload_begin(faulty->inner, call, request, &id, err),
			   err);
	give_string(rc, id, ret_upload_id);
	return rc;
}

static int faulty_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			      const struct put_request *body, const struct upload_slot *slot,
			      struct upload_part *ret_part, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_UPLOAD_PART};
	struct upload_part part = {0};
	int rc = before(faulty, call, key, &attempt, err);

	if (!rc)
		rc = after(&attempt,
			   backend_ops(faulty->inner)
				   ->upload_part(faulty->inner, call, key, upload_id, body, slot, &part, err),
			   err);
	give_part(rc, &part, ret_part);
	return rc;
}

static int faulty_upload_part_copy(struct backend *backend, const struct call *call, const char *key,
				   const char *upload_id, const struct get_request *source,
				   const struct upload_slot *slot, struct upload_part *ret_part, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_UPLOAD_PART_COPY};
	struct upload_part part = {0};
	int rc = before(faulty, call, key, &attempt, err);

	if (!rc)
		rc = after(&attempt,
			   backend_ops(faulty->inner)
				   ->upload_part_copy(faulty->inner, call, key, upload_id, source, slot, &part, err),
			   err);
	give_part(rc, &part, ret_part);
	return rc;
}

static int faulty_upload_complete(struct backend *backend, const struct call *call, const struct put_request *request,
				  const char *upload_id, const struct upload_part *parts, size_t count,
				  struct object_info *ret_info, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_UPLOAD_COMPLETE};
	struct object_info info = {0};
	int rc = before(faulty, call, request->key, &attempt, err);

	if (!rc)
		rc = after(&attempt,
			   backend_ops(faulty->inner)
				   ->upload_complete(faulty->inner, call, request, upload_id, parts, count, &info, err),
			   err);
	give_info(rc, &info, ret_info);
	return rc;
}

static int faulty_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			       struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_UPLOAD_ABORT};
	int rc = before(faulty, call, key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->upload_abort(faulty->inner, call, key, upload_id, err),
			   err);
	return rc;
}

static int faulty_open_local(struct backend *backend, const struct object_ref *object, int *ret_fd, struct err *err)
{
	struct faulty *faulty = faulty_of(backend);
	struct attempt attempt = {.op = FAULTY_OPEN_LOCAL};
	int fd = -1;
	int rc = before(faulty, NULL, object->key, &attempt, err);

	if (!rc)
		rc = after(&attempt, backend_ops(faulty->inner)->open_local(faulty->inner, object, &fd, err), err);
	if (!rc)
		*ret_fd = fd;
	else
		cleanup_close(&fd);
	return rc;
}

static const struct backend_counters *faulty_counters(struct backend *backend)
{
	struct faulty *faulty = faulty_of(backend);

	return backend_ops(faulty->inner)->counters(faulty->inner);
}

static const struct backend_ops faulty_ops = {
	.abi = VARVE_BACKEND_ABI,
	.name = "faulty",
	.schemes = "",
	.open = faulty_open,
	.close = faulty_close,
	.probe = faulty_probe,
	.head = faulty_head,
	.get = faulty_get,
	.put = faulty_put,
	.copy = faulty_copy,
	.remove = faulty_remove,
	.list = faulty_list,
	.upload_begin = faulty_upload_begin,
	.upload_part = faulty_upload_part,
	.upload_part_copy = faulty_upload_part_copy,
	.upload_complete = faulty_upload_complete,
	.upload_abort = faulty_upload_abort,
	.open_local = faulty_open_local,
	.counters = faulty_counters,
};

int faulty_wrap(struct backend *inner, struct faulty_plan *plan, struct backend **ret_backend)
{
	const struct backend_ops *ops = backend_ops(inner);
	struct faulty *faulty = calloc(1, sizeof(*faulty));

	assert(ops && plan);
	if (!faulty)
		return -ENOMEM;
	faulty->own = faulty_ops;
	if (!ops->upload_begin) {
		faulty->own.upload_begin = NULL;
		faulty->own.upload_part = NULL;
		faulty->own.upload_part_copy = NULL;
		faulty->own.upload_complete = NULL;
		faulty->own.upload_abort = NULL;
	}
	if (!ops->upload_part_copy)
		faulty->own.upload_part_copy = NULL;
	if (!ops->open_local)
		faulty->own.open_local = NULL;
	faulty->ops = &faulty->own;
	faulty->inner = inner;
	faulty->plan = plan;
	*ret_backend = (struct backend *)faulty;
	return 0;
}
