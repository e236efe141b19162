/*
 * memory.c - what is the memory store's own; the rest is in tests/conformance.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "backends/memory.h"

static const struct call now = {0};

static int open_url(const char *url, struct backend **ret_backend, struct err *err)
{
	return memory_backend_ops.open(&(struct backend_options){.url = url, .create = true}, ret_backend, err);
}

static struct backend *open_store(const char *url, struct backend_info *ret_info)
{
	struct backend *backend = NULL;
	struct err err = {0};

	cr_assert_eq(open_url(url, &backend, &err), 0, "%s", err.message);
	cr_assert_eq(memory_backend_ops.probe(backend, &now, ret_info, &err), 0, "%s", err.message);
	return backend;
}

static int zeros(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)offset;
	memset(ret_bytes, 0, len);
	return 0;
}

static int put_zeros(struct backend *backend, const struct put_request *request, struct err *err)
{
	return memory_backend_ops.put(backend, &now, request, NULL, err);
}

Test(memory, options_take_capabilities_away)
{
	static const struct {
		const char *url;
		enum backend_capability gone;
	} options[] = {
		{"memory://o?versions=0", BACKEND_VERSIONS},
		{"memory://o?if_match=0", BACKEND_IF_MATCH},
		{"memory://o?if_none_match=0", BACKEND_IF_NONE_MATCH},
		{"memory://o?remove_if_match=0", BACKEND_REMOVE_IF_MATCH},
		{"memory://o?copy=0", BACKEND_COPY},
		{"memory://o?part_copy=0", BACKEND_PART_COPY},
		{"memory://o?multipart=0", BACKEND_MULTIPART},
		{"memory://o?crc32c=0", BACKEND_CRC32C},
	};
	struct backend_info all, info;
	struct backend *backend = open_store("memory://o", &all);

	memory_backend_ops.close(backend);
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		backend = open_store(options[i].url, &info);
		cr_assert_eq(info.capabilities, all.capabilities & ~(uint32_t)options[i].gone, "%s", options[i].url);
		memory_backend_ops.close(backend);
	}
	backend = open_store("memory://o?part_min=7&page=3", &info);
	cr_assert_eq(info.limits.min_part, 7);
	memory_backend_ops.close(backend);
}

Test(memory, wrong_options_are_refused)
{
	static const char *const urls[] = {
		"memory://",           "memory://o?",       "memory://o?versions", "memory://o?versions=2",
		"memory://o?colour=1", "memory://o?page=0", "memory://o?page=x",   "file:///tmp"};

	for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
		struct backend *backend = NULL;
		struct err err = {0};

		cr_assert_lt(open_url(urls[i], &backend, &err), 0, "%s", urls[i]);
		cr_assert_eq(err.kind, ERR_CONFIGURATION, "%s: %s", urls[i], err.message);
	}
}

Test(memory, missing_capability_is_unsupported)
{
	struct backend_info info;
	struct backend *backend = open_store("memory://m?if_match=0&copy=0&multipart=0&remove_if_match=0", &info);
	struct put_request put = {.key = "k", .source = zeros, .size = 4};
	struct copy_request copy = {.source.key = "k", .key = "c"};
	struct err err = {0};
	char *id;

	cr_assert_eq(put_zeros(backend, &put, &err), 0);
	put.condition.if_match = "x";
	cr_assert_lt(put_zeros(backend, &put, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	cr_assert_lt(memory_backend_ops.copy(backend, &now, &copy, NULL, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	cr_assert_lt(memory_backend_ops.upload_begin(backend, &now, &put, &id, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	cr_assert_lt(
		memory_backend_ops.remove(backend, &now, &(struct object_ref){.key = "k", .etag = "x"}, NULL, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	memory_backend_ops.close(backend);
}

Test(memory, limits_hold)
{
	struct backend_info info;
	struct backend *backend = open_store("memory://l", &info);
	char key[1026] = {0};
	struct put_request put = {.key = key, .source = zeros};
	struct err err = {0};

	memset(key, 'k', 1024);
	cr_assert_eq(put_zeros(backend, &put, &err), 0);
	key[1024] = 'k';
	cr_assert_lt(put_zeros(backend, &put, &err), 0);
	cr_assert_eq(err.kind, ERR_TOO_LARGE);
	memory_backend_ops.close(backend);
}

Test(memory, forgotten_store_is_missing)
{
	struct backend_info info;
	struct backend *backend = open_store("memory://f", &info);
	struct put_request put = {.key = "k", .source = zeros, .size = 4};
	struct object_info head;
	struct err err = {0};

	cr_assert_eq(put_zeros(backend, &put, &err), 0);
	memory_forget("f");
	cr_assert_lt(memory_backend_ops.head(backend, &now, &(struct object_ref){.key = "k"}, &head, &err), 0);
	cr_assert_eq(err.kind, ERR_NOT_FOUND);
	memory_backend_ops.close(backend);
	backend = open_store("memory://f", &info);
	cr_assert_lt(memory_backend_ops.head(backend, &now, &(struct object_ref){.key = "k"}, &head, &err), 0);
	memory_backend_ops.close(backend);
	memory_forget("never seen");
}
