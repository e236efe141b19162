/*
 * suite.h - what every store must do, case by case, over a table of stores.
 *
 * CONFORMANCE(name) { … `f` … } defines one case and a Criterion test of it for
 * each store, so that store and case are reported by name. A case runs on a
 * fresh, empty store of its own. Where a capability is missing the case checks
 * what the store does without it; none is skipped.
 *
 * Stores on servers need VARVE_TEST_S3_ENDPOINT and VARVE_TEST_VERSITYGW_ENDPOINT
 * and fail without, unless VARVE_TEST_LOCAL_ONLY=1 asks for the others alone.
 */
#ifndef VARVE_TESTS_CONFORMANCE_SUITE_H
#define VARVE_TESTS_CONFORMANCE_SUITE_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "varve/backend.h"

enum store_id {
	STORE_MEMORY,
	STORE_MEMORY_UNVERSIONED,
	STORE_LOCAL,
	STORE_S3,
	STORE_S3_UNVERSIONED,
	STORE_VERSITYGW,
};

struct fixture {
	enum store_id store;
	char url[256];
	char dir[160]; /* of a local store */
	const char *endpoint;
	struct backend *backend;
	const struct backend_ops *ops;
	struct backend_info info;
	struct call call;
	struct err err; /* of the newest call */
};

typedef void (*conformance_case)(struct fixture *f);
void fixture_run(enum store_id store, conformance_case run);

#define CONFORMANCE(name)                                                                                              \
	static void case_##name(struct fixture *f);                                                                    \
	Test(memory, name)                                                                                             \
	{                                                                                                              \
		fixture_run(STORE_MEMORY, case_##name);                                                                \
	}                                                                                                              \
	Test(memory_unversioned, name)                                                                                 \
	{                                                                                                              \
		fixture_run(STORE_MEMORY_UNVERSIONED, case_##name);                                                    \
	}                                                                                                              \
	Test(local, name)                                                                                              \
	{                                                                                                              \
		fixture_run(STORE_LOCAL, case_##name);                                                                 \
	}                                                                                                              \
	Test(s3, name)                                                                                                 \
	{                                                                                                              \
		fixture_run(STORE_S3, case_##name);                                                                    \
	}                                                                                                              \
	Test(s3_unversioned, name)                                                                                     \
	{                                                                                                              \
		fixture_run(STORE_S3_UNVERSIONED, case_##name);                                                        \
	}                                                                                                              \
	Test(versitygw, name)                                                                                          \
	{                                                                                                              \
		fixture_run(STORE_VERSITYGW, case_##name);                                                             \
	}                                                                                                              \
	static void case_##name(struct fixture *f)

/* A backend for the fixture's store; the caller closes it. Not probed. */
struct backend *fixture_open(const struct fixture *f, const char *url, bool create);
bool can(const struct fixture *f, enum backend_capability capability);

/* Did it work; the error shows when not. */
#define OK(expression)                                                                                                 \
	do {                                                                                                           \
		int ok_rc = (expression);                                                                              \
		cr_assert(ok_rc == 0, #expression ": %s: %s", err_kind_name(f->err.kind), f->err.message);             \
	} while (0)
/* Did it fail, and as it should. */
#define FAILS(expected, expression)                                                                                    \
	do {                                                                                                           \
		f->err = (struct err){0};                                                                              \
		cr_assert((expression) < 0, #expression " succeeded");                                                 \
		cr_assert(f->err.kind == (expected), #expression ": %s (%s), expected %s", err_kind_name(f->err.kind), \
			  f->err.message, err_kind_name(expected));                                                    \
	} while (0)

/* Content: `size` bytes that differ from place to place and from seed to seed. */
struct blob {
	unsigned char *data;
	size_t size;
};
struct blob blob_make(size_t size, unsigned seed);
int blob_source(void *arg, void *ret_bytes, size_t len, uint64_t offset);
int blob_sink(void *arg, const void *bytes, size_t len); /* appends to a struct blob */
uint32_t blob_crc(const struct blob *blob);

/* Calls with the fixture's frame and error. `info` may be NULL. */
int do_put(struct fixture *f, const char *key, const struct blob *blob, struct object_info *info);
int do_put_text(struct fixture *f, const char *key, const char *text, struct object_info *info);
int do_put_request(struct fixture *f, const struct put_request *request, struct object_info *info);
int do_get(struct fixture *f, const struct object_ref *ref, struct blob *ret_blob, struct object_info *info);
int do_get_range(struct fixture *f, const char *key, uint64_t offset, uint64_t length, struct blob *ret_blob);
int do_head(struct fixture *f, const struct object_ref *ref, struct object_info *ret_info);
int do_copy(struct fixture *f, const struct copy_request *request, struct object_info *info);
int do_remove(struct fixture *f, const struct object_ref *ref, char **ret_marker);
int do_list(struct fixture *f, const struct list_request *request, struct list_page *ret_page);

/* Asserts that the content of `ref` is this. */
void expect_content(struct fixture *f, const struct object_ref *ref, const struct blob *blob);
void expect_text(struct fixture *f, const char *key, const char *text);

/* All pages of a listing in one. Asserts order, progress and page sizes. */
struct list_page list_all(struct fixture *f, const struct list_request *request);

#endif
