/*
 * versions.c - conformance: old versions, delete markers, conditions, copies, concurrency.
 */
#include "conformance/suite.h"

#include <pthread.h>

#include "checksum.h"
#include "cleanup.h"

static struct list_page versions_of(struct fixture *f, const char *key)
{
	return list_all(f, &(struct list_request){.prefix = key, .versions = true});
}

/* A text as the content of one version. */
static void expect_version(struct fixture *f, const char *key, const char *id, const char *text)
{
	struct blob blob = {.data = (unsigned char *)text, .size = strlen(text)};

	expect_content(f, &(struct object_ref){.key = key, .native_id = id}, &blob);
}

CONFORMANCE(overwriting_keeps_versions_in_order)
{
	static const char *const texts[] = {"one", "two", "three", "four"};
	struct list_page all;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		OK(do_put_text(f, "k", texts[i], NULL));
	expect_text(f, "k", "four");
	all = versions_of(f, "k");
	if (!can(f, BACKEND_VERSIONS)) {
		cr_assert(all.count == 1, "%zu entries without versions", all.count);
		list_page_clear(&all);
		return;
	}
	cr_assert(all.count == ARRAY_SIZE(texts), "%zu versions", all.count);
	for (size_t i = 0; i < all.count; i++) {
		const struct object_info *entry = &all.entries[i];

		cr_assert(!(entry->flags & OBJECT_LATEST) == (i > 0), "version %zu: latest", i);
		cr_assert(entry->size == strlen(texts[3 - i]), "version %zu: size", i);
		expect_version(f, "k", entry->native_id, texts[3 - i]);
	}
	list_page_clear(&all);
}

CONFORMANCE(removing_leaves_a_marker)
{
	struct object_info info = {0};
	struct list_page all;
	AUTO_FREE char *marker = NULL;

	OK(do_put_text(f, "k", "text", NULL));
	OK(do_remove(f, &(struct object_ref){.key = "k"}, &marker));
	cr_assert(!marker == !can(f, BACKEND_VERSIONS), "a marker just where there are versions");
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "k"}, &info));
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == 0, "a removed key is listed");
	list_page_clear(&all);
	all = versions_of(f, "k");
	cr_assert(all.count == (can(f, BACKEND_VERSIONS) ? 2 : 0), "%zu versions", all.count);
	if (marker) {
		cr_assert(all.entries[0].flags & OBJECT_DELETE_MARKER, "the newest is no marker");
		cr_assert(all.entries[0].flags & OBJECT_LATEST, "the marker is not the latest");
		cr_assert(strcmp(all.entries[0].native_id, marker) == 0, "another marker");
		expect_version(f, "k", all.entries[1].native_id, "text");
	}
	list_page_clear(&all);
}

CONFORMANCE(removing_the_marker_undeletes)
{
	struct object_info put = {0};
	struct object_info head = {0};
	AUTO_FREE char *marker = NULL;

	OK(do_put_text(f, "k", "old", NULL));
	OK(do_put_text(f, "k", "text", &put));
	OK(do_remove(f, &(struct object_ref){.key = "k"}, &marker));
	if (marker) {
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = marker}, NULL));
		expect_text(f, "k", "text");
		OK(do_head(f, &(struct object_ref){.key = "k"}, &head));
		cr_assert(strcmp(head.native_id, put.native_id) == 0, "another version came back");
		cr_assert(strcmp(head.etag, put.etag) == 0, "another etag came back");
	} else {
		FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "k"}, &head));
	}
	object_info_clear(&put);
	object_info_clear(&head);
}

CONFORMANCE(putting_after_removing_starts_anew)
{
	struct list_page all;

	OK(do_put_text(f, "k", "one", NULL));
	OK(do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	OK(do_put_text(f, "k", "two", NULL));
	expect_text(f, "k", "two");
	all = versions_of(f, "k");
	cr_assert(all.count == (can(f, BACKEND_VERSIONS) ? 3 : 1), "%zu versions", all.count);
	cr_assert(all.entries[0].flags & OBJECT_LATEST && !(all.entries[0].flags & OBJECT_DELETE_MARKER),
		  "the newest is not the latest");
	cr_assert(all.count == 1 || all.entries[1].flags & OBJECT_DELETE_MARKER, "the marker is not second");
	list_page_clear(&all);
}

CONFORMANCE(removing_one_version_keeps_the_others)
{
	struct object_info infos[3] = {{0}};
	struct list_page all;

	for (size_t i = 0; i < 3; i++)
		OK(do_put_text(f, "k", (const char *[]){"one", "two", "three"}[i], &infos[i]));
	if (can(f, BACKEND_VERSIONS)) {
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = infos[1].native_id}, NULL));
		all = versions_of(f, "k");
		cr_assert(all.count == 2, "%zu versions", all.count);
		list_page_clear(&all);
		expect_text(f, "k", "three");
		/* The current one: what was before it is current again. */
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = infos[2].native_id}, NULL));
		expect_text(f, "k", "one");
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = infos[0].native_id}, NULL));
	} else {
		OK(do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	}
	all = versions_of(f, "");
	cr_assert(all.count == 0, "%s is left", all.entries[0].key);
	list_page_clear(&all);
	for (size_t i = 0; i < 3; i++)
		object_info_clear(&infos[i]);
}

CONFORMANCE(removing_what_is_not_there_succeeds)
{
	struct object_info info = {0};

	OK(do_remove(f, &(struct object_ref){.key = "never"}, NULL));
	OK(do_put_text(f, "k", "x", &info));
	OK(do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	OK(do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	if (info.native_id) {
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = info.native_id}, NULL));
		OK(do_remove(f, &(struct object_ref){.key = "k", .native_id = info.native_id}, NULL));
	}
	object_info_clear(&info);
}

/* --- conditions ------------------------------------------------------------------------------------------ */

static int put_if(struct fixture *f, const char *text, struct put_condition condition)
{
	struct blob blob = {.data = (unsigned char *)text, .size = strlen(text)};
	struct put_request request = {
		.key = "k",
		.source = blob_source,
		.source_arg = &blob,
		.size = blob.size,
		.condition = condition,
	};

	return do_put_request(f, &request, NULL);
}

CONFORMANCE(if_none_match_takes_free_keys_only)
{
	struct put_condition condition = {.if_none_match = true};

	if (!can(f, BACKEND_IF_NONE_MATCH)) {
		FAILS(ERR_UNSUPPORTED, put_if(f, "one", condition));
		return;
	}
	OK(put_if(f, "one", condition));
	FAILS(ERR_PRECONDITION, put_if(f, "two", condition));
	expect_text(f, "k", "one");
	OK(do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	if (f->store == STORE_VERSITYGW) /* its one known difference: a delete marker is something to it */
		return;
	OK(put_if(f, "three", condition));
	expect_text(f, "k", "three");
}

CONFORMANCE(if_match_replaces_that_object_only)
{
	struct object_info first = {0};

	OK(do_put_text(f, "k", "one", &first));
	if (!can(f, BACKEND_IF_MATCH)) {
		FAILS(ERR_UNSUPPORTED, put_if(f, "two", (struct put_condition){.if_match = first.etag}));
		object_info_clear(&first);
		return;
	}
	OK(put_if(f, "two", (struct put_condition){.if_match = first.etag}));
	FAILS(ERR_PRECONDITION, put_if(f, "three", (struct put_condition){.if_match = first.etag}));
	expect_text(f, "k", "two");
	object_info_clear(&first);
}

CONFORMANCE(remove_if_match_removes_that_object_only)
{
	struct object_info first = {0};
	struct object_info second = {0};

	if (!can(f, BACKEND_REMOVE_IF_MATCH))
		return; /* MinIO ignores the condition: nothing is promised */
	OK(do_put_text(f, "k", "one", &first));
	OK(do_put_text(f, "k", "two", &second));
	FAILS(ERR_PRECONDITION, do_remove(f, &(struct object_ref){.key = "k", .etag = first.etag}, NULL));
	expect_text(f, "k", "two");
	OK(do_remove(f, &(struct object_ref){.key = "k", .etag = second.etag}, NULL));
	object_info_clear(&first);
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "k"}, &first));
	object_info_clear(&second);
}

CONFORMANCE(etag_pins_a_read)
{
	struct object_info first = {0};
	struct object_info info = {0};
	struct blob blob = {0};
	struct object_ref ref = {.key = "k"};

	OK(do_put_text(f, "k", "one", &first));
	ref.etag = first.etag;
	OK(do_get(f, &ref, &blob, NULL));
	free(blob.data);
	OK(do_put_text(f, "k", "two", NULL));
	FAILS(ERR_PRECONDITION, do_get(f, &ref, &blob, NULL));
	FAILS(ERR_PRECONDITION, do_head(f, &ref, &info));
	if (first.native_id) {
		ref.native_id = first.native_id;
		OK(do_get(f, &ref, &blob, NULL));
		free(blob.data);
	}
	object_info_clear(&first);
}

/* --- copies ------------------------------------------------------------------------------------------------ */

CONFORMANCE(copy_takes_the_pinned_source)
{
	struct object_info first = {0};
	struct copy_request request = {.key = "to/copy"};

	OK(do_put_text(f, "from", "one", &first));
	request.source = (struct object_ref){.key = "from", .native_id = first.native_id, .etag = first.etag};
	OK(do_copy(f, &request, NULL));
	expect_text(f, "to/copy", "one");
	OK(do_put_text(f, "from", "two", NULL));
	if (first.native_id) {
		OK(do_copy(f, &request, NULL));
	} else {
		FAILS(ERR_PRECONDITION, do_copy(f, &request, NULL));
	}
	expect_text(f, "to/copy", "one");
	request.source = (struct object_ref){.key = "missing"};
	FAILS(ERR_NOT_FOUND, do_copy(f, &request, NULL));
	object_info_clear(&first);
}

CONFORMANCE(copy_restates_metadata)
{
	struct meta before = {0};
	struct meta after = {0};
	struct blob blob = blob_make(100000, 5);
	struct put_request put = {.key = "from", .source = blob_source, .source_arg = &blob, .size = blob.size};
	struct copy_request copy = {.source.key = "from", .key = "to", .meta = &after, .content_type = "text/plain"};
	struct object_info info = {0};

	meta_set(&before, "color", "red");
	meta_set(&before, "old", "1");
	meta_set(&after, "color", "grün");
	put.meta = &before;
	put.content_type = "text/html";
	OK(do_put_request(f, &put, NULL));
	OK(do_copy(f, &copy, NULL));
	OK(do_head(f, &(struct object_ref){.key = "to"}, &info));
	cr_assert(meta_get(&info.meta, "color") && strcmp(meta_get(&info.meta, "color"), "grün") == 0, "color");
	cr_assert(!meta_get(&info.meta, "old"), "metadata was inherited");
	cr_assert(info.content_type && strcmp(info.content_type, "text/plain") == 0, "type");
	object_info_clear(&info);
	expect_content(f, &(struct object_ref){.key = "to"}, &blob);
	/* Onto itself: content as it was, metadata as stated. */
	copy.key = "from";
	OK(do_copy(f, &copy, NULL));
	OK(do_head(f, &(struct object_ref){.key = "from"}, &info));
	cr_assert(!meta_get(&info.meta, "old") && meta_get(&info.meta, "color"), "metadata was not restated");
	expect_content(f, &(struct object_ref){.key = "from"}, &blob);
	object_info_clear(&info);
	meta_clear(&before);
	meta_clear(&after);
	free(blob.data);
}

/* --- concurrency --------------------------------------------------------------------------------------------- */

#define THREADS 8
#define PUTS 50

struct worker {
	struct fixture fixture; /* its own error */
	unsigned number;
	bool one_key;
	int failures;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	char key[64];
	char text[64];

	for (unsigned i = 0; i < PUTS; i++) {
		(void)snprintf(text, sizeof(text), "thread %u put %u", worker->number, i);
		(void)snprintf(key, sizeof(key), "many/%u/%u", worker->number % 3, worker->number * PUTS + i);
		if (do_put_text(&worker->fixture, worker->one_key ? "one" : key, text, NULL))
			worker->failures++;
	}
	return NULL;
}

static void run_workers(struct fixture *f, bool one_key)
{
	struct worker workers[THREADS];
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.fixture = *f, .number = i, .one_key = one_key};
		cr_assert(pthread_create(&threads[i], NULL, work, &workers[i]) == 0, "no thread");
	}
	for (unsigned i = 0; i < THREADS; i++) {
		(void)pthread_join(threads[i], NULL);
		cr_assert(workers[i].failures == 0, "thread %u: %d puts failed: %s", i, workers[i].failures,
			  workers[i].fixture.err.message);
	}
}

CONFORMANCE(concurrent_puts_of_many_keys)
{
	struct list_page all;

	run_workers(f, false);
	all = list_all(f, &(struct list_request){.prefix = "many/"});
	cr_assert(all.count == (size_t)THREADS * PUTS, "%zu keys", all.count);
	list_page_clear(&all);
}

static int by_id(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

CONFORMANCE(concurrent_puts_of_one_key)
{
	char *ids[THREADS * PUTS];
	struct object_info head = {0};
	struct list_page all;

	run_workers(f, true);
	all = versions_of(f, "one");
	if (!can(f, BACKEND_VERSIONS)) {
		cr_assert(all.count == 1, "%zu entries", all.count);
		list_page_clear(&all);
		return;
	}
	cr_assert(all.count == ARRAY_SIZE(ids), "%zu versions of %zu puts", all.count, ARRAY_SIZE(ids));
	OK(do_head(f, &(struct object_ref){.key = "one"}, &head));
	cr_assert(strcmp(head.native_id, all.entries[0].native_id) == 0, "the current one is not listed first");
	for (size_t i = 0; i < all.count; i++)
		ids[i] = all.entries[i].native_id;
	qsort(ids, ARRAY_SIZE(ids), sizeof(*ids), by_id);
	for (size_t i = 1; i < ARRAY_SIZE(ids); i++)
		cr_assert(strcmp(ids[i - 1], ids[i]) != 0, "an id twice");
	object_info_clear(&head);
	list_page_clear(&all);
}
