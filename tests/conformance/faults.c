/*
 * faults.c - put, get, copy, remove and list under a fault at every call in turn.
 *
 * For N = 1, 2, … the scenario runs on a fresh store whose Nth call fails,
 * until it passes. After a failure the store must be exactly as the scenario
 * left it before the failing step, or (reply lost) after it.
 */
#include "conformance/suite.h"

#include "backends/faulty.h"
#include "backends/memory.h"
#include "clock.h"

#define STEPS 5

struct scenario {
	struct fixture *f;
	struct faulty_plan *plan;
};

/* The state after `done` steps: content of "k" and "copy", NULL for none. */
static const struct {
	const char *k, *copy;
} states[STEPS + 1] = {{"old", NULL}, {"new", NULL}, {"new", NULL}, {"new", "new"}, {NULL, "new"}, {NULL, "new"}};

static int step(struct fixture *f, unsigned number)
{
	struct copy_request copy = {.source.key = "k", .key = "copy"};
	struct list_page page = {0};
	struct blob blob = {0};
	int rc;

	switch (number) {
	case 0:
		return do_put_text(f, "k", "new", NULL);
	case 1:
		rc = do_get(f, &(struct object_ref){.key = "k"}, &blob, NULL);
		free(blob.data);
		return rc;
	case 2:
		return do_copy(f, &copy, NULL);
	case 3:
		return do_remove(f, &(struct object_ref){.key = "k"}, NULL);
	default:
		rc = do_list(f, &(struct list_request){.prefix = ""}, &page);
		list_page_clear(&page);
		return rc;
	}
}

static void expect_state(struct fixture *f, const char *key, const char *text)
{
	struct object_info info = {0};

	if (text)
		expect_text(f, key, text);
	else
		FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = key}, &info));
}

/* True when the scenario passed. */
static bool run_with_fault(struct fixture *f, const struct faulty_rule *rule)
{
	struct faulty_plan *plan = faulty_plan_new();
	struct fixture faulty = *f;
	unsigned done = 0;
	bool failed = false;

	cr_assert(plan && faulty_plan_add(plan, rule) == 0, "no memory");
	faulty.backend = fixture_open(f, f->url, true);
	OK(backend_ops(faulty.backend)->probe(faulty.backend, &f->call, &faulty.info, &f->err));
	cr_assert(faulty_wrap(faulty.backend, plan, &faulty.backend) == 0, "no memory");
	faulty.ops = backend_ops(faulty.backend);
	while (done < STEPS && !failed) {
		failed = step(&faulty, done) != 0;
		if (failed)
			cr_assert(faulty.err.kind == rule->kind, "step %u: %s", done, faulty.err.message);
		if (!failed || rule->action == FAULTY_LOSE_REPLY)
			done++;
	}
	cr_assert(failed == (faulty_plan_hits(plan) > 0), "a fault that nobody noticed");
	expect_state(f, "k", states[done].k);
	expect_state(f, "copy", states[done].copy);
	faulty.ops->close(faulty.backend);
	faulty_plan_free(plan);
	return !failed;
}

static void empty(struct fixture *f)
{
	struct list_page all = list_all(f, &(struct list_request){.prefix = "", .versions = true});

	for (size_t i = 0; i < all.count; i++)
		OK(do_remove(f, &(struct object_ref){.key = all.entries[i].key, .native_id = all.entries[i].native_id},
			     NULL));
	list_page_clear(&all);
}

static void fail_each_call(struct fixture *f, enum faulty_action action, enum err_kind kind)
{
	struct faulty_rule rule = {.op = FAULTY_ANY, .nth = 1, .action = action, .kind = kind};

	for (;; rule.nth++) {
		empty(f);
		OK(do_put_text(f, "k", "old", NULL));
		if (run_with_fault(f, &rule))
			break;
	}
	cr_assert(rule.nth == STEPS + 1, "passed at call %u already", rule.nth);
}

static void faults_before(struct fixture *f)
{
	fail_each_call(f, FAULTY_FAIL, ERR_UNAVAILABLE);
	fail_each_call(f, FAULTY_FAIL, ERR_THROTTLED);
}

static void faults_after(struct fixture *f)
{
	fail_each_call(f, FAULTY_LOSE_REPLY, ERR_INDETERMINATE);
}

Test(memory, old_state_after_each_failed_call)
{
	fixture_run(STORE_MEMORY, faults_before);
}

Test(memory, new_state_after_each_lost_reply)
{
	fixture_run(STORE_MEMORY, faults_after);
}

Test(local, old_state_after_each_failed_call)
{
	fixture_run(STORE_LOCAL, faults_before);
}

Test(local, new_state_after_each_lost_reply)
{
	fixture_run(STORE_LOCAL, faults_after);
}
