/*
 * transfer.c - retries, resumption, doubt and the pool, over a store that follows a script.
 *
 * The scripted store keeps one object. Each call takes the next step of its script: do as asked, fail, do it and lose
 * the reply, break off in mid-content. When the script is over, everything works.
 */
#include "transfer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

#define CONTENT "0123456789abcdefghijklmnopqrstuvwxyz"
#define SIZE (sizeof(CONTENT) - 1)
/* What a call has when it does not say otherwise, and many times what those have that do. */
#define CALL_TIMEOUT (20 * NS_PER_SEC)

enum step {
	WORK,
	FAIL_UNAVAILABLE,
	FAIL_THROTTLED,
	FAIL_DENIED,
	FAIL_CORRUPT,
	LOSE_REPLY,   /* done, but indeterminate */
	LOSE_REQUEST, /* not done, and indeterminate */
	COME_LATE,    /* as that, but done by the time of the next put */
	BREAK_OFF,    /* a get: half of the bytes, then unavailable */
	DAMAGE,       /* a get: half of the bytes, then corrupt */
};

struct fake {
	const struct backend_ops *ops;
	pthread_mutex_t mutex; /* guards what follows */
	enum step script[16];
	unsigned step;
	unsigned puts, gets, heads, completes, aborts, parts;
	char seen_etag[16]; /* that the last get was pinned by */
	bool stored, late;
	char *mark;                   /* of the object stored */
	unsigned inside, inside_most; /* puts at once */
	useconds_t way;               /* of a head to the store and back */
	bool locked;                  /* nothing may be aborted */
	unsigned awaited;             /* no put ends before there were so many */
	struct backend_counters counters;
};

static struct fake *fake_of(struct backend *backend)
{
	return (struct fake *)backend;
}

static int fail(struct err *err, enum err_kind kind)
{
	*err = (struct err){0};
	return err_set(err, kind, "scripted");
}

/* The next step, and its failure if it is a plain one. */
static enum step next_step(struct fake *fake, int *ret_r, struct err *err)
{
	static const enum err_kind kinds[] = {
		[FAIL_UNAVAILABLE] = ERR_UNAVAILABLE,
		[FAIL_THROTTLED] = ERR_THROTTLED,
		[FAIL_DENIED] = ERR_DENIED,
		[FAIL_CORRUPT] = ERR_CORRUPT,
		[LOSE_REPLY] = ERR_INDETERMINATE,
		[LOSE_REQUEST] = ERR_INDETERMINATE,
		[COME_LATE] = ERR_INDETERMINATE,
		[BREAK_OFF] = ERR_UNAVAILABLE,
		[DAMAGE] = ERR_CORRUPT,
	};
	pthread_mutex_lock(&fake->mutex);
	enum step step = fake->step < ARRAY_SIZE(fake->script) ? fake->script[fake->step++] : WORK;
	pthread_mutex_unlock(&fake->mutex);
	*ret_r = step == WORK ? 0 : fail(err, kinds[step]);
	return step;
}

static int fake_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info, struct err *err)
{
	(void)backend;
	(void)call;
	(void)err;
	*ret_info = (struct backend_info){.capabilities = BACKEND_MULTIPART | BACKEND_VERSIONS | BACKEND_CRC32C,
					  .description = (char *)"fake"};
	return 0;
}

static void fill_info(const struct fake *fake, const char *key, struct object_info *info)
{
	*info = (struct object_info){.key = strdup(key), .etag = strdup("e1"), .native_id = strdup("v1"), .size = SIZE};
	if (fake->mark)
		cr_assert_eq(meta_set(&info->meta, TRANSFER_UPLOAD_META, fake->mark), 0);
}

/* Not scripted: the questions after a doubt must not eat the steps of the answers. */
static int fake_head(struct backend *backend, const struct call *call, const struct object_ref *object,
		     struct object_info *ret_info, struct err *err)
{
	struct fake *fake = fake_of(backend);
	(void)call;
	fake->heads++;
	if (fake->way)
		usleep(fake->way);
	if (!fake->stored)
		return fail(err, ERR_NOT_FOUND);
	fill_info(fake, object->key, ret_info);
	return 0;
}

static int fake_get(struct backend *backend, const struct call *call, const struct get_request *request,
		    struct object_info *ret_info, struct err *err)
{
	struct fake *fake = fake_of(backend);
	int r;
	(void)call;
	fake->gets++;
	(void)snprintf(fake->seen_etag, sizeof(fake->seen_etag), "%s",
		       request->object.etag ? request->object.etag : "");
	enum step step = next_step(fake, &r, err);
	if (step != WORK && step != BREAK_OFF && step != DAMAGE)
		return r;
	uint64_t len = request->length == UINT64_MAX ? SIZE - request->offset : request->length;
	if (step != WORK)
		len /= 2;
	for (uint64_t i = 0; i < len; i++)
		if (request->sink(request->sink_arg, CONTENT + request->offset + i, 1) != 0)
			return fail(err, ERR_CANCELLED);
	if (r == 0)
		fill_info(fake, request->object.key, ret_info);
	return r;
}

static void fake_store(struct fake *fake, const struct meta *meta)
{
	const char *mark = meta ? meta_get(meta, TRANSFER_UPLOAD_META) : NULL;
	free(fake->mark);
	fake->mark = mark ? strdup(mark) : NULL;
	fake->stored = true;
}

/* With the mutex held, which it leaves meanwhile. Counts how many are here at once. */
static void pass_slowly(struct fake *fake)
{
	if (++fake->inside > fake->inside_most)
		fake->inside_most = fake->inside;
	do {
		pthread_mutex_unlock(&fake->mutex);
		usleep(2000);
		pthread_mutex_lock(&fake->mutex);
	} while (fake->inside_most < fake->awaited);
	fake->inside--;
}

static int fake_put(struct backend *backend, const struct call *call, const struct put_request *request,
		    struct object_info *ret_info, struct err *err)
{
	struct fake *fake = fake_of(backend);
	int r;
	(void)call;
	enum step step = next_step(fake, &r, err);
	pthread_mutex_lock(&fake->mutex);
	fake->puts++;
	if (fake->late)
		fake_store(fake, request->meta);
	fake->late = step == COME_LATE;
	pass_slowly(fake);
	if (request->condition.if_none_match && fake->stored && step == WORK)
		r = fail(err, ERR_PRECONDITION);
	else if (step == WORK || step == LOSE_REPLY)
		fake_store(fake, request->meta);
	if (r == 0)
		fill_info(fake, request->key, ret_info);
	pthread_mutex_unlock(&fake->mutex);
	return r;
}

static int fake_remove(struct backend *backend, const struct call *call, const struct object_ref *object,
		       char **ret_marker_id, struct err *err)
{
	struct fake *fake = fake_of(backend);
	int r;
	(void)call;
	(void)object;
	fake->puts++;
	enum step step = next_step(fake, &r, err);
	if (step == WORK || step == LOSE_REPLY)
		fake->stored = false;
	if (r == 0)
		*ret_marker_id = strdup("m1");
	return r;
}

static int fake_list(struct backend *backend, const struct call *call, const struct list_request *request,
		     struct list_page *ret_page, struct err *err)
{
	struct fake *fake = fake_of(backend);
	(void)call;
	(void)err;
	*ret_page = (struct list_page){0};
	if (fake->stored)
		return 0;
	ret_page->entries = calloc(1, sizeof(*ret_page->entries));
	ret_page->entries[0] = (struct object_info){.key = strdup(request->prefix),
						    .native_id = strdup("marker"),
						    .flags = OBJECT_DELETE_MARKER | OBJECT_LATEST};
	ret_page->count = 1;
	return 0;
}

static int fake_begin(struct backend *backend, const struct call *call, const struct put_request *request,
		      char **ret_upload_id, struct err *err)
{
	(void)backend;
	(void)call;
	(void)err;
	cr_assert(request->has_crc32c, "the store verifies: every part will carry its checksum");
	*ret_upload_id = strdup("u");
	return 0;
}

static int fake_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		     const struct put_request *body, const struct upload_slot *slot, struct upload_part *ret_part,
		     struct err *err)
{
	struct fake *fake = fake_of(backend);
	char bytes[SIZE];
	int r;
	(void)call;
	(void)key;
	cr_assert_str_eq(upload_id, "u");
	cr_assert(body->has_crc32c);
	next_step(fake, &r, err);
	if (r < 0)
		return r;
	cr_assert_eq(body->source(body->source_arg, bytes, body->size, 0), 0);
	cr_assert_arr_eq(bytes, CONTENT + slot->offset, body->size, "part %u", slot->number);
	pthread_mutex_lock(&fake->mutex);
	fake->parts++;
	pthread_mutex_unlock(&fake->mutex);
	*ret_part = (struct upload_part){.number = slot->number, .size = body->size, .etag = strdup("p")};
	return 0;
}

static int fake_complete(struct backend *backend, const struct call *call, const struct put_request *request,
			 const char *upload_id, const struct upload_part *parts, size_t count,
			 struct object_info *ret_info, struct err *err)
{
	struct fake *fake = fake_of(backend);
	int r;
	(void)call;
	(void)upload_id;
	for (size_t i = 0; i < count; i++)
		cr_assert_eq(parts[i].number, i + 1);
	fake->completes++;
	enum step step = next_step(fake, &r, err);
	if (step == WORK || step == LOSE_REPLY)
		fake_store(fake, request->meta);
	if (r == 0)
		fill_info(fake, request->key, ret_info);
	return r;
}

static int fake_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		      struct err *err)
{
	(void)call;
	(void)key;
	(void)upload_id;
	fake_of(backend)->aborts++;
	return fake_of(backend)->locked ? fail(err, ERR_DENIED) : 0;
}

static const struct backend_counters *fake_counters(struct backend *backend)
{
	return &fake_of(backend)->counters;
}

static const struct backend_ops fake_ops = {
	.name = "fake",
	.probe = fake_probe,
	.head = fake_head,
	.get = fake_get,
	.put = fake_put,
	.remove = fake_remove,
	.list = fake_list,
	.upload_begin = fake_begin,
	.upload_part = fake_part,
	.upload_complete = fake_complete,
	.upload_abort = fake_abort,
	.counters = fake_counters,
};

/* --- fixture ----------------------------------------------------------------------------------------------- */

static struct fake fake;
static struct transfer *transfer;
static struct meta meta;

static void begin(void)
{
	const struct transfer_options options = {.threads = 4, .call_timeout_ns = CALL_TIMEOUT};
	struct err err;
	fake = (struct fake){.ops = &fake_ops, .mutex = PTHREAD_MUTEX_INITIALIZER};
	cr_assert_eq(transfer_new((struct backend *)&fake, &options, &transfer, &err), 0);
	cr_assert_eq(transfer_probe(transfer, NULL, &err), 0);
	cr_assert_eq(meta_set(&meta, TRANSFER_UPLOAD_META, "mine"), 0);
}

static void end(void)
{
	transfer_free(transfer);
	meta_clear(&meta);
	free(fake.mark);
}

TestSuite(transfer, .init = begin, .fini = end, .timeout = 60);

static void script(const enum step *steps, size_t count)
{
	memcpy(fake.script, steps, count * sizeof(*steps));
}
#define SCRIPT(...)                                                                                                    \
	do {                                                                                                           \
		static const enum step steps_[] = {__VA_ARGS__};                                                       \
		script(steps_, ARRAY_SIZE(steps_));                                                                    \
	} while (0)

static int content_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	memcpy(ret_bytes, CONTENT + offset, len);
	return 0;
}

struct sink {
	char bytes[2 * SIZE + 1];
	size_t len;
};

static int take(void *arg, const void *bytes, size_t len)
{
	struct sink *sink = arg;
	cr_assert_leq(sink->len + len, sizeof(sink->bytes));
	memcpy(sink->bytes + sink->len, bytes, len);
	sink->len += len;
	return 0;
}

static int get(uint64_t offset, uint64_t length, struct sink *sink, struct err *err)
{
	const struct get_request request = {.object = {.key = "k"},
					    .offset = offset,
					    .length = length,
					    .expected_size = UINT64_MAX,
					    .sink = take,
					    .sink_arg = sink};
	*err = (struct err){0};
	return transfer_get(transfer, NULL, &request, NULL, err);
}

static int put(struct put_condition condition, struct err *err)
{
	const struct put_request request = {
		.key = "k", .source = content_source, .size = SIZE, .meta = &meta, .condition = condition};
	struct object_info info;
	*err = (struct err){0};
	int r = transfer_put(transfer, NULL, &request, &info, err);
	if (r == 0)
		object_info_clear(&info);
	return r;
}

/* --- get --------------------------------------------------------------------------------------------------------- */

Test(transfer, a_get_that_breaks_off_goes_on_where_it_was)
{
	struct sink sink = {0};
	struct err err;
	fake.stored = true;
	SCRIPT(BREAK_OFF, FAIL_UNAVAILABLE, BREAK_OFF);
	cr_assert_eq(get(0, UINT64_MAX, &sink, &err), 0, "%s", err.message);
	cr_assert_eq(sink.len, SIZE);
	cr_assert_arr_eq(sink.bytes, CONTENT, SIZE);
	cr_assert_eq(fake.gets, 4);
	cr_assert_str_eq(fake.seen_etag, "e1", "pinned by what HEAD said first");
}

Test(transfer, a_range_is_resumed_within_itself)
{
	struct sink sink = {0};
	struct err err;
	fake.stored = true;
	SCRIPT(BREAK_OFF);
	cr_assert_eq(get(10, 8, &sink, &err), 0);
	cr_assert_eq(sink.len, 8);
	cr_assert_arr_eq(sink.bytes, CONTENT + 10, 8);
}

Test(transfer, damaged_bytes_that_were_delivered_end_the_get)
{
	struct sink sink = {0};
	struct err err;
	fake.stored = true;
	SCRIPT(DAMAGE);
	cr_assert_lt(get(0, UINT64_MAX, &sink, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_eq(fake.gets, 1);
}

Test(transfer, corruption_before_the_first_byte_is_tried_three_times)
{
	struct sink sink = {0};
	struct err err;
	fake.stored = true;
	SCRIPT(FAIL_CORRUPT, FAIL_CORRUPT, FAIL_CORRUPT, FAIL_CORRUPT);
	cr_assert_lt(get(0, UINT64_MAX, &sink, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_eq(fake.gets, 3);
}

static int full(void *arg, const void *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	++*(unsigned *)arg;
	return -ENOSPC;
}

static int enough(void *arg, const void *bytes, size_t len)
{
	(void)full(arg, bytes, len);
	return 1;
}

Test(transfer, a_sink_that_fails_ends_the_get_with_its_own_error)
{
	unsigned calls = 0;
	struct get_request request = {.object = {.key = "k"},
				      .length = UINT64_MAX,
				      .expected_size = UINT64_MAX,
				      .sink = full,
				      .sink_arg = &calls};
	struct transfer_figures figures;
	struct err err = {0};
	fake.stored = true;
	cr_assert_eq(transfer_get(transfer, NULL, &request, NULL, &err), -ENOSPC);
	cr_assert_eq(err.kind, ERR_QUOTA);
	cr_assert_eq(calls, 1);
	transfer_figures(transfer, &figures);
	cr_assert_str_eq(figures.last_error, "", "it is not the store's");
	request.sink = enough;
	cr_assert_lt(transfer_get(transfer, NULL, &request, NULL, &err), 0);
	cr_assert_eq(err.kind, ERR_CANCELLED);
	cr_assert_eq(calls, 2);
}

/* --- put ------------------------------------------------------------------------------------------------------------
 */

Test(transfer, a_put_that_failed_for_certain_is_sent_again)
{
	struct err err;
	struct transfer_figures figures;
	SCRIPT(FAIL_UNAVAILABLE, FAIL_THROTTLED, FAIL_UNAVAILABLE);
	cr_assert_eq(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(fake.puts, 4);
	transfer_figures(transfer, &figures);
	cr_assert_eq(figures.retries, 3);
	cr_assert(figures.online);
	cr_assert_str_eq(figures.last_error, "scripted");
	cr_assert_gt(figures.last_error_wall, 0);
}

Test(transfer, a_permanent_failure_is_not_tried_again)
{
	struct err err;
	SCRIPT(FAIL_DENIED);
	cr_assert_lt(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(err.kind, ERR_DENIED);
	cr_assert_eq(fake.puts, 1);
}

Test(transfer, a_put_whose_reply_was_lost_is_found_not_repeated)
{
	struct err err;
	SCRIPT(LOSE_REPLY);
	cr_assert_eq(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(fake.puts, 1);
	cr_assert_geq(fake.heads, 1);
}

Test(transfer, a_put_that_got_lost_is_sent_again_after_looking)
{
	struct err err;
	SCRIPT(LOSE_REQUEST);
	cr_assert_eq(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(fake.puts, 2);
	cr_assert_geq(fake.heads, 1);
}

Test(transfer, another_s_object_is_not_taken_for_ours)
{
	struct err err;
	fake.stored = true;
	fake.mark = strdup("theirs");
	SCRIPT(LOSE_REQUEST);
	cr_assert_eq(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(fake.puts, 2);
	cr_assert_str_eq(fake.mark, "mine");
}

/* The lost one may still become the object: only a look at the store can tell, and not the error that came after. */
Test(transfer, a_doubt_outlives_the_error_that_comes_after_it)
{
	struct err err;
	SCRIPT(LOSE_REQUEST, FAIL_DENIED);
	cr_assert_lt(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(err.kind, ERR_INDETERMINATE);
	cr_assert_eq(fake.puts, 2);
}

Test(transfer, what_is_found_after_a_doubt_counts_whatever_came_between)
{
	struct err err;
	SCRIPT(COME_LATE, FAIL_DENIED);
	cr_assert_eq(put((struct put_condition){0}, &err), 0, "%s", err.message);
	cr_assert_eq(fake.puts, 2);
}

Test(transfer, without_a_mark_the_doubt_is_the_caller_s)
{
	struct err err;
	meta_clear(&meta);
	SCRIPT(LOSE_REPLY);
	cr_assert_lt(put((struct put_condition){0}, &err), 0);
	cr_assert_eq(err.kind, ERR_INDETERMINATE);
	cr_assert_eq(fake.puts, 1);
}

Test(transfer, a_condition_that_fails_is_the_caller_s_news)
{
	struct err err;
	fake.stored = true;
	fake.mark = strdup("theirs");
	cr_assert_lt(put((struct put_condition){.if_none_match = true}, &err), 0);
	cr_assert_eq(err.kind, ERR_PRECONDITION);
	cr_assert_eq(fake.heads, 0, "no doubt, no question");
}

/* --- remove
 * ------------------------------------------------------------------------------------------------------------ */

Test(transfer, a_removal_whose_reply_was_lost_is_not_repeated)
{
	const struct object_ref ref = {.key = "k"};
	char *marker = NULL;
	struct err err;
	fake.stored = true;
	SCRIPT(LOSE_REPLY);
	cr_assert_eq(transfer_remove(transfer, NULL, &ref, &marker, &err), 0);
	cr_assert_eq(fake.puts, 1);
	cr_assert_str_eq(marker, "marker");
	free(marker);
}

Test(transfer, a_removal_that_got_lost_is_sent_again)
{
	const struct object_ref ref = {.key = "k"};
	char *marker = NULL;
	struct err err;
	fake.stored = true;
	SCRIPT(LOSE_REQUEST);
	cr_assert_eq(transfer_remove(transfer, NULL, &ref, &marker, &err), 0);
	cr_assert_eq(fake.puts, 2);
	cr_assert_str_eq(marker, "m1");
	free(marker);
}

/* --- deadline, cancellation
 * ------------------------------------------------------------------------------------------------ */

Test(transfer, the_deadline_ends_the_retries)
{
	const struct object_ref ref = {.key = "k"};
	const struct call call = {.deadline_ns = clock_monotonic() + 200 * NS_PER_MS};
	struct err err = {0};
	for (size_t i = 0; i < ARRAY_SIZE(fake.script); i++)
		fake.script[i] = FAIL_UNAVAILABLE;
	int64_t start = clock_monotonic();
	cr_assert_lt(transfer_remove(transfer, &call, &ref, NULL, &err), 0);
	cr_assert_eq(err.kind, ERR_UNAVAILABLE);
	cr_assert_lt(clock_monotonic() - start, CALL_TIMEOUT / 2);
	struct transfer_figures figures;
	transfer_figures(transfer, &figures);
	cr_assert_not(figures.online);
}

static void *cancel_soon(void *arg)
{
	usleep(50 * 1000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

Test(transfer, a_cancelled_call_does_not_wait_for_its_next_try)
{
	const struct object_ref ref = {.key = "k"};
	atomic_bool cancelled = false;
	const struct call call = {.cancelled = &cancelled};
	pthread_t thread;
	struct err err = {0};
	for (size_t i = 0; i < ARRAY_SIZE(fake.script); i++)
		fake.script[i] = FAIL_UNAVAILABLE;
	cr_assert_eq(pthread_create(&thread, NULL, cancel_soon, &cancelled), 0);
	int64_t start = clock_monotonic();
	cr_assert_lt(transfer_remove(transfer, &call, &ref, NULL, &err), 0);
	cr_assert_lt(clock_monotonic() - start, CALL_TIMEOUT / 2);
	pthread_join(thread, NULL);
}

/* --- uploads
 * ------------------------------------------------------------------------------------------------------------------ */

static int upload(struct err *err)
{
	struct transfer_part parts[SIZE / 4];
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		parts[i] = (struct transfer_part){.offset = 4 * i, .size = 4};
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE, .meta = &meta};
	struct object_info info;
	*err = (struct err){0};
	int r = transfer_upload(transfer, NULL, &request, parts, ARRAY_SIZE(parts), &info, err);
	if (r == 0)
		object_info_clear(&info);
	return r;
}

Test(transfer, an_upload_sends_every_part_once_though_some_fail)
{
	struct err err;
	SCRIPT(WORK, FAIL_UNAVAILABLE, LOSE_REQUEST, FAIL_THROTTLED);
	cr_assert_eq(upload(&err), 0, "%s", err.message);
	cr_assert_eq(fake.parts, SIZE / 4);
	cr_assert_eq(fake.completes, 1);
	cr_assert_eq(fake.aborts, 0);
}

Test(transfer, a_failed_part_aborts_the_upload)
{
	struct err err;
	SCRIPT(WORK, WORK, FAIL_DENIED);
	cr_assert_lt(upload(&err), 0);
	cr_assert_eq(err.kind, ERR_DENIED);
	cr_assert_eq(fake.completes, 0);
	cr_assert_eq(fake.aborts, 1);
}

Test(transfer, a_completion_whose_reply_was_lost_is_found)
{
	struct err err;
	SCRIPT(WORK, WORK, WORK, WORK, WORK, WORK, WORK, WORK, WORK, LOSE_REPLY);
	cr_assert_eq(upload(&err), 0, "%s", err.message);
	cr_assert_eq(fake.completes, 1);
	cr_assert_eq(fake.aborts, 0);
}

Test(transfer, who_aborts_an_upload_hears_whether_it_is_gone)
{
	struct err err = {0};

	fake.locked = true;
	cr_assert_eq(transfer_upload_abort(transfer, "k", "id", &err), -err_errno(ERR_DENIED));
	cr_assert_eq(err.kind, ERR_DENIED);
	fake.locked = false;
	cr_assert_eq(transfer_upload_abort(transfer, "k", "id", &err), 0);
}

Test(transfer, a_completion_in_doubt_is_neither_aborted_nor_called_a_failure)
{
	struct err err;
	SCRIPT(WORK, WORK, WORK, WORK, WORK, WORK, WORK, WORK, WORK, LOSE_REQUEST, FAIL_DENIED);
	cr_assert_lt(upload(&err), 0);
	cr_assert_eq(err.kind, ERR_INDETERMINATE, "%s", err.message);
	cr_assert_eq(fake.aborts, 0);
	cr_assert_eq(fake.completes, 2);
}

Test(transfer, parts_must_make_up_the_content)
{
	const struct transfer_part parts[] = {{.offset = 0, .size = 4}, {.offset = 5, .size = SIZE - 5}};
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE, .meta = &meta};
	struct err err = {0};
	cr_assert_lt(transfer_upload(transfer, NULL, &request, parts, 2, NULL, &err), 0);
	cr_assert_eq(err.kind, ERR_INTERNAL);
}

/* --- pace
 * ------------------------------------------------------------------------------------------------------------------------
 */

/* --- progress -------------------------------------------------------------------------------------------------- */

/* As a store that takes all of it and answers with an error. */
static int put_in_vain(struct backend *backend, const struct call *call, const struct put_request *request,
		       struct object_info *ret_info, struct err *err)
{
	char bytes[SIZE];
	(void)ret_info;
	if (request->source(request->source_arg, bytes, SIZE, 0) < 0)
		return err_set(err, ERR_CANCELLED, "cancelled");
	return ++fake_of(backend)->puts < 4 ? err_set(err, ERR_UNAVAILABLE, "scripted")
					    : fake_put(backend, call, request, ret_info, err);
}

Test(transfer, what_is_moved_again_is_no_progress)
{
	struct backend_ops in_vain = fake_ops;
	_Atomic uint64_t moved = 0;
	const struct call call = {.moved = &moved};
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE, .meta = &meta};
	struct sink sink = {0};
	const struct get_request get = {.object = {.key = "k"},
					.length = UINT64_MAX,
					.expected_size = UINT64_MAX,
					.sink = take,
					.sink_arg = &sink};
	in_vain.put = put_in_vain;
	fake.ops = &in_vain;
	cr_assert_eq(transfer_put(transfer, &call, &request, NULL, NULL), 0);
	cr_assert_geq(fake.puts, 4);
	cr_assert_eq(moved, SIZE);
	SCRIPT(WORK, BREAK_OFF, BREAK_OFF);
	cr_assert_eq(transfer_get(transfer, &call, &get, NULL, NULL), 0);
	cr_assert_eq(moved, 2 * SIZE);
}

Test(transfer, bandwidth_is_limited)
{
	const struct transfer_options options = {.threads = 1, .bytes_per_second_down = 4 * SIZE};
	struct transfer *slow;
	struct err err;
	fake.stored = true;
	cr_assert_eq(transfer_new((struct backend *)&fake, &options, &slow, &err), 0);
	int64_t start = clock_monotonic();
	for (int i = 0; i < 4; i++) {
		struct sink sink = {0};
		const struct get_request request = {.object = {.key = "k", .etag = "e1"},
						    .length = UINT64_MAX,
						    .expected_size = UINT64_MAX,
						    .sink = take,
						    .sink_arg = &sink};
		cr_assert_eq(transfer_get(slow, NULL, &request, NULL, &err), 0);
	}
	/* One second's worth, less the burst of a quarter. */
	cr_assert_geq(clock_monotonic() - start, 600 * NS_PER_MS);
	transfer_free(slow);
}

/* --- how many at once ---------------------------------------------------------------------------------------- */

#define PUTTERS 12

static void *put_some(void *arg)
{
	struct transfer *here = arg;
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE};

	for (int i = 0; i < 5; i++)
		cr_assert_eq(transfer_put(here, NULL, &request, NULL, NULL), 0);
	return NULL;
}

/* Of which there were so many at once at least. */
static unsigned peak_of_puts(struct transfer *here, unsigned awaited)
{
	pthread_t threads[PUTTERS];

	fake.inside_most = 0;
	fake.awaited = awaited;
	for (int i = 0; i < PUTTERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, put_some, here), 0);
	for (int i = 0; i < PUTTERS; i++)
		pthread_join(threads[i], NULL);
	return fake.inside_most;
}

static struct transfer *with_most(unsigned most)
{
	const struct transfer_options options = {.threads = 4, .max_requests = most};
	struct transfer *made;

	cr_assert_eq(transfer_new((struct backend *)&fake, &options, &made, NULL), 0);
	return made;
}

Test(transfer, no_more_requests_at_once_than_allowed)
{
	struct transfer *few = with_most(3);

	cr_assert_eq(peak_of_puts(few, 3), 3);
	transfer_free(few);
	cr_assert_eq(peak_of_puts(transfer, PUTTERS), PUTTERS, "without a limit as many as come");
}

static unsigned allowed_by(struct transfer *here)
{
	struct transfer_figures figures;

	transfer_figures(here, &figures);
	return figures.allowed;
}

Test(transfer, a_store_that_throttles_gets_half_and_then_one_more_at_a_time)
{
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE};
	struct transfer *most = with_most(8);

	SCRIPT(FAIL_THROTTLED);
	cr_assert_eq(allowed_by(most), 8);
	cr_assert_eq(transfer_put(most, NULL, &request, NULL, NULL), 0); /* fails, and succeeds alone */
	cr_assert_eq(allowed_by(most), 2);
	for (unsigned allowed = 2; allowed < 8; allowed++) {
		for (unsigned i = 0; i < allowed; i++) {
			cr_assert_eq(allowed_by(most), allowed);
			cr_assert_eq(transfer_put(most, NULL, &request, NULL, NULL), 0);
		}
	}
	for (int i = 0; i < 20; i++)
		cr_assert_eq(transfer_put(most, NULL, &request, NULL, NULL), 0);
	cr_assert_eq(allowed_by(most), 8, "never above what was asked for");
	transfer_free(most);
}

Test(transfer, a_doubt_is_resolved_in_the_room_of_the_call_in_doubt)
{
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE, .meta = &meta};
	struct transfer *one = with_most(1);

	SCRIPT(LOSE_REPLY);
	cr_assert_eq(transfer_put(one, NULL, &request, NULL, NULL), 0);
	cr_assert_eq(fake.puts, 1);
	transfer_free(one);
}

static unsigned puts_now(void)
{
	pthread_mutex_lock(&fake.mutex);
	unsigned inside = fake.inside;
	pthread_mutex_unlock(&fake.mutex);
	return inside;
}

Test(transfer, who_is_essential_does_not_wait_for_room)
{
	const struct put_request request = {.key = "k", .source = content_source, .size = SIZE};
	const struct call essential = {.essential = true};
	struct transfer *one = with_most(1);
	pthread_t other;

	fake.awaited = 2; /* the other one's put ends when ours was there as well */
	cr_assert_eq(pthread_create(&other, NULL, put_some, one), 0);
	while (!puts_now())
		usleep(1000);
	cr_assert_eq(transfer_put(one, &essential, &request, NULL, NULL), 0);
	pthread_join(other, NULL);
	cr_assert_eq(fake.inside_most, 2);
	transfer_free(one);
}

/* --- parts sent ahead ------------------------------------------------------------------------------------------- */

Test(transfer, parts_sent_ahead_count_only_with_the_content_s_checksum)
{
	const struct put_request request = {
		.key = "k", .source = content_source, .size = SIZE, .meta = &meta, .has_crc32c = true};
	const struct transfer_part parts[] = {{.size = 4}, {.offset = 4, .size = 4}, {.offset = 8, .size = SIZE - 8}};
	struct upload_part done[3] = {{0}};
	struct transfer_begun begun = {.done = done};
	AUTO_FREE char *id = NULL;

	cr_assert_eq(transfer_probe(transfer, NULL, NULL), 0);
	cr_assert_eq(transfer_upload_begin(transfer, NULL, &request, &id, NULL), 0);
	begun.id = id;
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(transfer_upload_part(transfer, NULL, &request, id, &parts[i], i + 1, &done[i], NULL), 0);
	cr_assert_eq(fake.parts, 2);
	done[1].crc32c ^= 1; /* the content is another by now */
	cr_assert_eq(transfer_upload_finish(transfer, NULL, &request, &begun, parts, 3, NULL, NULL), 0);
	cr_assert_eq(fake.parts, 4, "part 2 again, and part 3");
	cr_assert_eq(fake.completes, 1);
	for (unsigned i = 0; i < 3; i++)
		upload_part_clear(&done[i]);
}

/* A machine that is busy now and then makes some answers late, and the store no farther. */
Test(transfer, a_store_is_far_when_even_its_quickest_answers_are_late)
{
	const struct object_ref object = {.key = "k"};
	struct object_info info;

	cr_assert_not(transfer_is_far(transfer));
	fake.way = 30000;
	cr_assert_neq(transfer_head(transfer, NULL, &object, &info, NULL), 0); /* that there is none is an answer */
	cr_assert(transfer_is_far(transfer));
	fake.way = 0;
	for (int i = 0; i < 100 && transfer_is_far(transfer); i++)
		(void)transfer_head(transfer, NULL, &object, &info, NULL);
	cr_assert_not(transfer_is_far(transfer));
	fake.way = 10000;
	for (int i = 0; i < 4; i++)
		(void)transfer_head(transfer, NULL, &object, &info, NULL);
	cr_assert_not(transfer_is_far(transfer));
	fake.way = 30000;
	for (int i = 0; i < 100; i++)
		(void)transfer_head(transfer, NULL, &object, &info, NULL);
	cr_assert(transfer_is_far(transfer));
}
