/*
 * faulty.c - planned faults come when and where they are planned, and nowhere else.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/faulty.h"
#include "backends/memory.h"
#include "clock.h"

#define TEXT "0123456789"

static struct faulty_plan *plan;
static struct backend *backend;
static struct call call;
static struct err err;

static void set_up(void)
{
	struct backend *inner = NULL;
	struct backend_info info;

	plan = faulty_plan_new();
	cr_assert_eq(memory_backend_ops.open(&(struct backend_options){.url = "memory://faulty", .create = true},
					     &inner, &err),
		     0);
	cr_assert_eq(faulty_wrap(inner, plan, &backend), 0);
	cr_assert_eq(backend_ops(backend)->probe(backend, &call, &info, &err), 0);
	faulty_plan_reset(plan);
}

static void tear_down(void)
{
	backend_ops(backend)->close(backend);
	faulty_plan_free(plan);
}

static void add(struct faulty_rule rule)
{
	cr_assert_eq(faulty_plan_add(plan, &rule), 0);
}

static int text_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	memcpy(ret_bytes, TEXT + offset, len);
	return 0;
}

static int put(const char *key)
{
	struct put_request request = {.key = key, .source = text_source, .size = strlen(TEXT)};

	return backend_ops(backend)->put(backend, &call, &request, NULL, &err);
}

static int head(const char *key)
{
	struct object_info info = {0};
	int rc = backend_ops(backend)->head(backend, &call, &(struct object_ref){.key = key}, &info, &err);

	object_info_clear(&info);
	return rc;
}

static int add_text(void *arg, const void *bytes, size_t len)
{
	char *text = arg;

	memcpy(text + strlen(text), bytes, len);
	return 0;
}

static int get(const char *key, char text[static 32])
{
	struct get_request request = {
		.object.key = key,
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = add_text,
		.sink_arg = text,
	};

	memset(text, 0, 32);
	return backend_ops(backend)->get(backend, &call, &request, NULL, &err);
}

TestSuite(faulty, .init = set_up, .fini = tear_down);

Test(faulty, fails_the_nth_call_once)
{
	add((struct faulty_rule){.op = FAULTY_PUT, .nth = 2, .kind = ERR_UNAVAILABLE});
	cr_assert_eq(put("a"), 0);
	cr_assert_eq(head("a"), 0);
	cr_assert_lt(put("b"), 0);
	cr_assert_eq(err.kind, ERR_UNAVAILABLE);
	cr_assert_lt(head("b"), 0);
	cr_assert_eq(err.kind, ERR_NOT_FOUND);
	cr_assert_eq(put("b"), 0);
	cr_assert_eq(faulty_plan_hits(plan), 1);
	cr_assert_eq(faulty_plan_calls(plan, FAULTY_PUT), 3);
	cr_assert_eq(faulty_plan_calls(plan, FAULTY_ANY), 5);
}

Test(faulty, fails_for_good)
{
	add((struct faulty_rule){.op = FAULTY_ANY, .nth = 2, .from_then = true, .kind = ERR_DENIED});
	cr_assert_eq(put("a"), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_lt(head("a"), 0);
		cr_assert_eq(err.kind, ERR_DENIED);
	}
	faulty_plan_reset(plan);
	cr_assert_eq(head("a"), 0);
}

Test(faulty, lost_reply_was_done)
{
	add((struct faulty_rule){.op = FAULTY_PUT, .nth = 1, .action = FAULTY_LOSE_REPLY, .kind = ERR_INDETERMINATE});
	cr_assert_lt(put("a"), 0);
	cr_assert_eq(err.kind, ERR_INDETERMINATE);
	cr_assert_eq(head("a"), 0);
}

Test(faulty, truncates_a_get)
{
	char text[32];

	cr_assert_eq(put("a"), 0);
	add((struct faulty_rule){
		.op = FAULTY_GET, .nth = 1, .action = FAULTY_TRUNCATE, .bytes = 4, .kind = ERR_CORRUPT});
	add((struct faulty_rule){.op = FAULTY_GET, .nth = 2, .action = FAULTY_TRUNCATE, .bytes = 4, .kind = ERR_NONE});
	cr_assert_lt(get("a", text), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_str_eq(text, "0123");
	cr_assert_eq(get("a", text), 0, "a lying store reports success");
	cr_assert_str_eq(text, "0123");
	cr_assert_eq(get("a", text), 0);
	cr_assert_str_eq(text, TEXT);
}

Test(faulty, flips_one_bit_of_a_get)
{
	char text[32];

	cr_assert_eq(put("a"), 0);
	add((struct faulty_rule){.op = FAULTY_GET, .nth = 1, .action = FAULTY_FLIP, .bytes = 4});
	cr_assert_eq(get("a", text), 0);
	cr_assert_str_eq(text, "0123556789");
}

Test(faulty, delays_within_the_deadline)
{
	int64_t start = clock_monotonic();

	add((struct faulty_rule){
		.op = FAULTY_ANY, .nth = 1, .from_then = true, .action = FAULTY_DELAY, .delay_ns = 30 * NS_PER_MS});
	cr_assert_eq(put("a"), 0);
	cr_assert_geq(clock_monotonic() - start, 30 * NS_PER_MS);
	call.deadline_ns = clock_monotonic() + 10 * NS_PER_MS;
	cr_assert_lt(put("a"), 0);
	cr_assert_eq(err.kind, ERR_TIMED_OUT);
}

Test(faulty, throttles_with_retry_after)
{
	add((struct faulty_rule){.op = FAULTY_PUT, .nth = 1, .kind = ERR_THROTTLED, .retry_after_ms = 250});
	cr_assert_lt(put("a"), 0);
	cr_assert_eq(err.kind, ERR_THROTTLED);
	cr_assert_eq(err.retry_after_ms, 250);
}

struct seen {
	enum faulty_op op;
	char key[8];
	unsigned count;
};

static void see(void *arg, enum faulty_op op, const char *key, unsigned count)
{
	struct seen *seen = arg;

	seen->op = op;
	seen->count = count;
	(void)snprintf(seen->key, sizeof(seen->key), "%s", key);
}

Test(faulty, hook_sees_each_call)
{
	struct seen seen = {0};

	faulty_plan_hook(plan, see, &seen);
	cr_assert_eq(put("a"), 0);
	cr_assert(seen.op == FAULTY_PUT && seen.count == 1 && strcmp(seen.key, "a") == 0, "put");
	cr_assert_eq(head("a"), 0);
	cr_assert(seen.op == FAULTY_HEAD && seen.count == 2, "head");
}

static void *put_many(void *arg)
{
	char key[16];

	for (int i = 0; i < 100; i++) {
		(void)snprintf(key, sizeof(key), "%s%d", (const char *)arg, i);
		struct put_request request = {.key = key, .source = text_source, .size = strlen(TEXT)};
		struct err own = {0};

		(void)backend_ops(backend)->put(backend, &(struct call){0}, &request, NULL, &own); /* some shall fail */
	}
	return NULL;
}

Test(faulty, threads_share_a_plan)
{
	pthread_t threads[4];
	static const char *const names[] = {"a", "b", "c", "d"};

	add((struct faulty_rule){.op = FAULTY_PUT, .nth = 151, .from_then = true, .kind = ERR_UNAVAILABLE});
	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, put_many, (void *)names[i]), 0);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(threads[i], NULL);
	cr_assert_eq(faulty_plan_calls(plan, FAULTY_PUT), 400);
	cr_assert_eq(faulty_plan_hits(plan), 250);
}
