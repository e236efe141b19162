/*
 * objects.c - conformance: storing, reading, naming and describing single objects.
 */
#include "conformance/suite.h"

#include <inttypes.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"

#define MIB ((size_t)1 << 20)

static void round_trip(struct fixture *f, const char *key, size_t size)
{
	struct blob blob = blob_make(size, (unsigned)size);
	struct object_info put = {0};
	struct object_info head = {0};

	OK(do_put(f, key, &blob, &put));
	cr_assert(strcmp(put.key, key) == 0 && put.etag && put.size == size, "put of %s says other facts", key);
	cr_assert(!can(f, BACKEND_VERSIONS) == !put.native_id, "put of %s: a version id just where there are versions",
		  key);
	expect_content(f, &(struct object_ref){.key = key}, &blob);
	OK(do_head(f, &(struct object_ref){.key = key}, &head));
	cr_assert(strcmp(head.key, key) == 0 && strcmp(head.etag, put.etag) == 0 && head.size == size,
		  "head of %s says other facts than put", key);
	cr_assert(!put.native_id || strcmp(head.native_id, put.native_id) == 0, "head of %s: another version", key);
	cr_assert(!(head.flags & OBJECT_CRC32C) || head.crc32c == blob_crc(&blob), "head of %s: wrong CRC", key);
	object_info_clear(&put);
	object_info_clear(&head);
	free(blob.data);
}

CONFORMANCE(round_trip_of_sizes)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, MIB, 17 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		round_trip(f, "size", sizes[i]);
}

CONFORMANCE(modified_is_about_now)
{
	struct object_info info = {0};
	int64_t now = clock_wall();

	OK(do_put_text(f, "k", "x", NULL));
	OK(do_head(f, &(struct object_ref){.key = "k"}, &info));
	cr_assert(info.modified_ns > now - 60 * NS_PER_SEC && info.modified_ns < now + 60 * NS_PER_SEC, "modified %lld",
		  (long long)info.modified_ns);
	object_info_clear(&info);
}

CONFORMANCE(missing_is_not_found)
{
	struct object_info info = {0};
	struct blob blob = {0};

	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "missing"}, &info));
	FAILS(ERR_NOT_FOUND, do_get(f, &(struct object_ref){.key = "missing"}, &blob, NULL));
	FAILS(ERR_NOT_FOUND, do_get(f, &(struct object_ref){.key = "missing/deeper"}, &blob, NULL));
}

CONFORMANCE(ranges_at_every_edge)
{
	static const struct {
		uint64_t offset, length;
	} ranges[] = {
		{0, 1}, {0, 10000}, {9999, 1}, {1, 9998}, {4095, 2}, {4096, 4096}, {5000, UINT64_MAX}, {0, UINT64_MAX},
	};
	struct blob blob = blob_make(10000, 3);

	OK(do_put(f, "ranged", &blob, NULL));
	for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
		uint64_t left = blob.size - ranges[i].offset;
		size_t expected = (size_t)(ranges[i].length < left ? ranges[i].length : left);
		struct blob got = {0};

		OK(do_get_range(f, "ranged", ranges[i].offset, ranges[i].length, &got));
		cr_assert(got.size == expected && memcmp(got.data, blob.data + ranges[i].offset, expected) == 0,
			  "range %zu: wrong bytes", i);
		free(got.data);
	}
	free(blob.data);
}

CONFORMANCE(ranges_beyond_the_end_fail)
{
	struct blob blob = blob_make(100, 4);
	struct blob got = {0};

	OK(do_put(f, "short", &blob, NULL));
	cr_assert(do_get_range(f, "short", 99, 2, &got) < 0, "one byte too many was given");
	cr_assert(do_get_range(f, "short", 100, 1, &got) < 0, "a byte past the end was given");
	cr_assert(do_get_range(f, "short", 5000, 1, &got) < 0, "bytes far past the end were given");
	cr_assert(do_get_range(f, "short", 0, 101, &got) < 0, "more than everything was given");
	free(blob.data);
}

CONFORMANCE(size_is_checked_when_known)
{
	struct blob got = {0};
	struct get_request request = {
		.object.key = "sized",
		.length = UINT64_MAX,
		.expected_size = 4,
		.sink = blob_sink,
		.sink_arg = &got,
	};

	OK(do_put_text(f, "sized", "four", NULL));
	OK(f->ops->get(f->backend, &f->call, &request, NULL, &f->err));
	request.expected_size = 5;
	FAILS(ERR_CORRUPT, f->ops->get(f->backend, &f->call, &request, NULL, &f->err));
	free(got.data);
}

static int refuse(void *arg, const void *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	(void)len;
	return -1;
}

CONFORMANCE(sink_can_stop_a_get)
{
	struct get_request request = {
		.object.key = "stopped",
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = refuse,
	};

	OK(do_put_text(f, "stopped", "some text", NULL));
	FAILS(ERR_CANCELLED, f->ops->get(f->backend, &f->call, &request, NULL, &f->err));
}

/* A listing that tells of metadata tells all of it. */
static void expect_listed_meta(struct fixture *f, const char *key, const struct meta *meta)
{
	for (int versions = 0; versions < 2; versions++) {
		const struct list_request request = {
			.prefix = key, .versions = versions && can(f, BACKEND_VERSIONS), .meta = true};
		struct list_page page = list_all(f, &request);

		cr_assert_geq(page.count, 1);
		cr_assert_str_eq(page.entries[0].key, key);
		if (page.entries[0].flags & OBJECT_META) {
			cr_assert_eq(page.entries[0].meta.count, meta->count);
			for (size_t i = 0; i < meta->count; i++) {
				const char *told = meta_get(&page.entries[0].meta, meta->pairs[i].name);

				cr_assert(told && strcmp(told, meta->pairs[i].value) == 0,
					  "%s of %s: the listing says \"%s\"", meta->pairs[i].name, key,
					  told ? told : "(none)");
			}
		}
		list_page_clear(&page);
	}
}

static bool is_type(const char *told, const char *type)
{
	return type ? told && strcmp(told, type) == 0 : !told || strcmp(told, "application/octet-stream") == 0;
}

/* NULL: the default. */
static void expect_type(struct fixture *f, const char *key, const char *type)
{
	const struct list_request request = {.prefix = key, .meta = true};
	struct list_page page = list_all(f, &request);
	struct object_info head = {0};
	struct object_info got = {0};
	struct blob blob = {0};

	OK(do_head(f, &(struct object_ref){.key = key}, &head));
	OK(do_get(f, &(struct object_ref){.key = key}, &blob, &got));
	cr_assert(is_type(head.content_type, type), "head says %s", head.content_type);
	cr_assert(is_type(got.content_type, type), "get says %s", got.content_type);
	cr_assert_geq(page.count, 1);
	if (page.entries[0].flags & OBJECT_META)
		cr_assert(is_type(page.entries[0].content_type, type), "the listing says %s",
			  page.entries[0].content_type);
	object_info_clear(&head);
	object_info_clear(&got);
	list_page_clear(&page);
	free(blob.data);
}

static void expect_meta(struct fixture *f, const char *key, const struct meta *meta)
{
	struct object_info head = {0};
	struct object_info got = {0};
	struct blob blob = {0};

	OK(do_head(f, &(struct object_ref){.key = key}, &head));
	OK(do_get(f, &(struct object_ref){.key = key}, &blob, &got));
	for (size_t i = 0; i < meta->count; i++) {
		const char *in_head = meta_get(&head.meta, meta->pairs[i].name);
		const char *in_get = meta_get(&got.meta, meta->pairs[i].name);

		cr_assert(in_head && strcmp(in_head, meta->pairs[i].value) == 0, "%s of %s: head says \"%s\"",
			  meta->pairs[i].name, key, in_head ? in_head : "(none)");
		cr_assert(in_get && strcmp(in_get, meta->pairs[i].value) == 0, "%s of %s: get says \"%s\"",
			  meta->pairs[i].name, key, in_get ? in_get : "(none)");
	}
	cr_assert(head.meta.count == meta->count, "%s has %zu names, not %zu", key, head.meta.count, meta->count);
	expect_listed_meta(f, key, meta);
	object_info_clear(&head);
	object_info_clear(&got);
	free(blob.data);
}

static struct meta rich_meta(void)
{
	static char long_value[1201];
	struct meta meta = {0};

	memset(long_value, 'v', sizeof(long_value) - 1);
	meta_set(&meta, "mode", "33188");
	meta_set(&meta, "utf8", "Füße über 日本 🌊");
	meta_set(&meta, "spaces", "  a  b  ");
	meta_set(&meta, "percent", "100%25 %zz %");
	meta_set(&meta, "signs", "a=b&c;d,\"e\" \\ + ?");
	meta_set(&meta, "long-value", long_value);
	return meta;
}

CONFORMANCE(metadata_comes_back)
{
	struct meta meta = rich_meta();
	struct put_request request = {.key = "described", .source = blob_source, .meta = &meta};
	struct blob blob = blob_make(10, 1);

	request.source_arg = &blob;
	request.size = blob.size;
	OK(do_put_request(f, &request, NULL));
	expect_meta(f, "described", &meta);
	expect_type(f, "described", NULL);
	request.content_type = "text/html; charset=utf-8";
	OK(do_put_request(f, &request, NULL));
	expect_meta(f, "described", &meta);
	expect_type(f, "described", request.content_type);
	meta_clear(&meta);
	free(blob.data);
}

static const char *const odd_keys[] = {
	"with space",
	" leading and trailing ",
	"plus+sign",
	"question?mark",
	"hash#tag",
	"percent%41%zz%",
	"ampersand&and=equals",
	"semi;colon:and,comma",
	"quote'and\"double",
	"back\\slash",
	"brackets[]{}()<>|^`~",
	"at@dollar$bang!star*",
	"über/日本/🌊",
	".hidden",
	"..two",
	"...three/.git/config",
	"a.txt",
	"a/b",
	"a0",
	"deep/er/and/deep/er/still/file",
};

CONFORMANCE(odd_keys_are_keys)
{
	struct list_page all;
	size_t count = sizeof(odd_keys) / sizeof(*odd_keys);

	for (size_t i = 0; i < count; i++)
		OK(do_put_text(f, odd_keys[i], odd_keys[i], NULL));
	for (size_t i = 0; i < count; i++)
		expect_text(f, odd_keys[i], odd_keys[i]);
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == count, "%zu keys listed, %zu stored", all.count, count);
	for (size_t i = 0; i < count; i++) {
		size_t at = 0;

		while (at < all.count && strcmp(all.entries[at].key, odd_keys[i]) != 0)
			at++;
		cr_assert(at < all.count, "%s is not listed", odd_keys[i]);
	}
	list_page_clear(&all);
	for (size_t i = 0; i < count; i++)
		OK(do_remove(f, &(struct object_ref){.key = odd_keys[i]}, NULL));
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == 0, "%s is left", all.entries[0].key);
	list_page_clear(&all);
}

CONFORMANCE(long_keys_are_keys)
{
	char component[256] = {0};
	char key[900] = {0};

	memset(component, 'c', 255);
	memset(key, 'k', sizeof(key) - 1);
	for (size_t i = 200; i < sizeof(key) - 1; i += 201)
		key[i] = '/';
	OK(do_put_text(f, component, "component", NULL));
	OK(do_put_text(f, key, "key", NULL));
	expect_text(f, component, "component");
	expect_text(f, key, "key");
}

CONFORMANCE(directory_markers_are_objects)
{
	struct list_page all;

	OK(do_put_text(f, "dir/", "", NULL));
	OK(do_put_text(f, "dir/file", "x", NULL));
	expect_text(f, "dir/", "");
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == 2 && strcmp(all.entries[0].key, "dir/") == 0, "%zu entries", all.count);
	list_page_clear(&all);
	OK(do_remove(f, &(struct object_ref){.key = "dir/file"}, NULL));
	expect_text(f, "dir/", "");
	OK(do_remove(f, &(struct object_ref){.key = "dir/"}, NULL));
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == 0, "%s is left", all.entries[0].key);
	list_page_clear(&all);
}

CONFORMANCE(wrong_crc_is_refused)
{
	struct blob blob = blob_make(5000, 9);
	struct put_request request = {
		.key = "checked",
		.source = blob_source,
		.source_arg = &blob,
		.size = blob.size,
		.crc32c = blob_crc(&blob) ^ 1,
		.has_crc32c = true,
	};
	struct object_info info = {0};

	FAILS(ERR_CORRUPT, do_put_request(f, &request, NULL));
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "checked"}, &info));
	request.crc32c ^= 1;
	OK(do_put_request(f, &request, NULL));
	free(blob.data);
}

static int broken_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)ret_bytes;
	(void)len;
	(void)offset;
	return -5;
}

CONFORMANCE(failing_source_stores_nothing)
{
	struct put_request request = {.key = "unread", .source = broken_source, .size = 100};
	struct object_info info = {0};

	cr_assert(do_put_request(f, &request, NULL) < 0, "a put without content succeeded");
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "unread"}, &info));
}

CONFORMANCE(past_deadline_times_out)
{
	struct object_info info = {0};
	struct list_page page;
	struct blob blob = {0};

	OK(do_put_text(f, "k", "x", NULL));
	f->call.deadline_ns = clock_monotonic() - NS_PER_SEC;
	FAILS(ERR_TIMED_OUT, do_put_text(f, "k", "y", NULL));
	FAILS(ERR_TIMED_OUT, do_head(f, &(struct object_ref){.key = "k"}, &info));
	FAILS(ERR_TIMED_OUT, do_get(f, &(struct object_ref){.key = "k"}, &blob, NULL));
	FAILS(ERR_TIMED_OUT, do_remove(f, &(struct object_ref){.key = "k"}, NULL));
	FAILS(ERR_TIMED_OUT, do_list(f, &(struct list_request){.prefix = ""}, &page));
	f->call.deadline_ns = 0;
	expect_text(f, "k", "x");
}

CONFORMANCE(cancelled_call_ends)
{
	atomic_bool cancelled = true;
	struct object_info info = {0};
	struct list_page page;
	struct blob blob = {0};

	OK(do_put_text(f, "k", "x", NULL));
	f->call.cancelled = &cancelled;
	FAILS(ERR_CANCELLED, do_put_text(f, "k", "y", NULL));
	FAILS(ERR_CANCELLED, do_head(f, &(struct object_ref){.key = "k"}, &info));
	FAILS(ERR_CANCELLED, do_get(f, &(struct object_ref){.key = "k"}, &blob, NULL));
	FAILS(ERR_CANCELLED, do_list(f, &(struct list_request){.prefix = ""}, &page));
	f->call.cancelled = NULL;
	expect_text(f, "k", "x");
}

CONFORMANCE(missing_store_is_not_found_until_created)
{
	char url[300];
	char *query;
	struct backend *other;
	struct backend_info info;
	size_t len = strcspn(strstr(f->url, "://") + 3, "/?") + (size_t)(strstr(f->url, "://") + 3 - f->url);

	/* "-other" after the bucket, the memory store's name, or the whole path of a directory. */
	query = f->url + (f->dir[0] ? strlen(f->url) : len);
	(void)snprintf(url, sizeof(url), "%.*s-other%s", (int)(query - f->url), f->url, query);
	other = fixture_open(f, url, false);
	FAILS(ERR_NOT_FOUND, backend_ops(other)->probe(other, &f->call, &info, &f->err));
	backend_ops(other)->close(other);
	other = fixture_open(f, url, true);
	OK(backend_ops(other)->probe(other, &f->call, &info, &f->err));
	backend_ops(other)->close(other);
	other = fixture_open(f, url, false);
	OK(backend_ops(other)->probe(other, &f->call, &info, &f->err));
	cr_assert(info.description && info.limits.max_key > 0 && info.limits.max_put > 0, "no limits stated");
	backend_ops(other)->close(other);
}

CONFORMANCE(objects_outlive_the_handle)
{
	OK(do_put_text(f, "kept", "text", NULL));
	f->ops->close(f->backend);
	f->backend = fixture_open(f, f->url, false);
	OK(f->ops->probe(f->backend, &f->call, &f->info, &f->err));
	expect_text(f, "kept", "text");
}

/* Requests of a probe that was told this. */
static uint64_t probe_knowing(struct fixture *f, const char *known, struct backend_info *ret_info)
{
	struct backend_options options = {
		.url = f->url, .endpoint = f->endpoint, .region = f->endpoint ? "us-east-1" : NULL, .known = known};
	struct backend *other = NULL;
	uint64_t requests;

	OK(f->ops->open(&options, &other, &f->err));
	OK(f->ops->probe(other, &f->call, ret_info, &f->err));
	requests = f->ops->counters(other)->requests;
	cr_assert_eq(!ret_info->known, !f->info.known);
	cr_assert(!ret_info->known || strcmp(ret_info->known, f->info.known) == 0, "%s", ret_info->known);
	f->ops->close(other);
	return requests;
}

CONFORMANCE(what_is_known_of_a_store_need_not_be_tried_again)
{
	struct backend_info info;
	uint64_t tried = probe_knowing(f, NULL, &info), believed = probe_knowing(f, f->info.known, &info);
	AUTO_BUF other = BUF_INIT;

	cr_assert_eq(info.capabilities, f->info.capabilities);
	cr_assert_eq(info.limits.max_component, f->info.limits.max_component);
	if (!f->info.known) /* there is nothing to find out */
		return;
	cr_assert(believed <= 3 && believed < tried, "%" PRIu64 " requests instead of %" PRIu64, believed, tried);
	/* Of another store, of another form, of none. */
	buf_addf(&other, "%s-other", f->info.known);
	cr_assert_gt(probe_knowing(f, other.data, &info), believed);
	buf_reset(&other);
	buf_addf(&other, "0%s", strchr(f->info.known, ' '));
	cr_assert_gt(probe_knowing(f, other.data, &info), believed);
	cr_assert_gt(probe_knowing(f, "?", &info), believed);
	cr_assert_eq(info.capabilities, f->info.capabilities);
}
