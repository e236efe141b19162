/*
 * fixture.h - a store and machines that share it, for the unit tests of fs/.
 *
 * A store is a backend of one kind behind a shim that counts calls, hides
 * capabilities and runs a hook before each; a machine is a catalog and a
 * transfer of its own on such a store. All of it lives in one directory under
 * TMPDIR that goes away with the store.
 *
 * Kinds: memory and file always; s3 when VARVE_TEST_S3_ENDPOINT names a server.
 */
#ifndef VARVE_TESTS_UNIT_FS_FIXTURE_H
#define VARVE_TESTS_UNIT_FS_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "transfer.h"

enum shim_call { SHIM_HEAD, SHIM_GET, SHIM_PUT, SHIM_COPY, SHIM_REMOVE, SHIM_LIST, SHIM_CALLS };

struct store;
/* Before each call: non-zero (with err filled) fails it without reaching the store. */
typedef int (*shim_hook)(struct store *store, enum shim_call call, const char *key, struct err *err);

struct store {
	const struct backend_ops *ops; /* first: the shim is a backend */
	struct backend *inner;
	char *dir;
	uint32_t hidden; /* capabilities to deny */
	unsigned page;   /* entries of a listing page; 0: the store's */
	_Atomic(shim_hook) hook;
	atomic_uint calls[SHIM_CALLS];
	atomic_uint countdown; /* for hooks */
};

static inline int shim_before(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	shim_hook hook = atomic_load(&store->hook);

	atomic_fetch_add(&store->calls[call], 1);
	return hook ? hook(store, call, key, err) : 0;
}

static inline int shim_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info,
			     struct err *err)
{
	struct store *store = (struct store *)backend;
	int rc = backend_ops(store->inner)->probe(store->inner, call, ret_info, err);

	if (!rc)
		ret_info->capabilities &= ~store->hidden;
	return rc;
}

static inline int shim_head(struct backend *backend, const struct call *call, const struct object_ref *object,
			    struct object_info *ret_info, struct err *err)
{
	struct store *store = (struct store *)backend;
	int rc = shim_before(store, SHIM_HEAD, object->key, err);

	return rc ? rc : backend_ops(store->inner)->head(store->inner, call, object, ret_info, err);
}

static inline int shim_get(struct backend *backend, const struct call *call, const struct get_request *request,
			   struct object_info *ret_info, struct err *err)
{
	struct store *store = (struct store *)backend;
	int rc = shim_before(store, SHIM_GET, request->object.key, err);

	return rc ? rc : backend_ops(store->inner)->get(store->inner, call, request, ret_info, err);
}

static inline int shim_put(struct backend *backend, const struct call *call, const struct put_request *request,
			   struct object_info *ret_info, struct err *err)
{
	struct store *store = (struct store *)backend;
	struct put_request plain = *request;
	int rc = shim_before(store, SHIM_PUT, request->key, err);

	if (store->hidden & BACKEND_IF_NONE_MATCH)
		plain.condition.if_none_match = false;
	if (store->hidden & BACKEND_IF_MATCH)
		plain.condition.if_match = NULL;
	return rc ? rc : backend_ops(store->inner)->put(store->inner, call, &plain, ret_info, err);
}

static inline int shim_copy(struct backend *backend, const struct call *call, const struct copy_request *request,
			    struct object_info *ret_info, struct err *err)
{
	struct store *store = (struct store *)backend;
	int rc = shim_before(store, SHIM_COPY, request->key, err);

	return rc ? rc : backend_ops(store->inner)->copy(store->inner, call, request, ret_info, err);
}

static inline int shim_remove(struct backend *backend, const struct call *call, const struct object_ref *object,
			      char **ret_marker_id, struct err *err)
{
	struct store *store = (struct store *)backend;
	int rc = shim_before(store, SHIM_REMOVE, object->key, err);

	return rc ? rc : backend_ops(store->inner)->remove(store->inner, call, object, ret_marker_id, err);
}

static inline int shim_list(struct backend *backend, const struct call *call, const struct list_request *request,
			    struct list_page *ret_page, struct err *err)
{
	struct store *store = (struct store *)backend;
	struct list_request paged = *request;
	int rc = shim_before(store, SHIM_LIST, request->prefix, err);

	if (store->page)
		paged.max = store->page;
	return rc ? rc : backend_ops(store->inner)->list(store->inner, call, &paged, ret_page, err);
}

static inline const struct backend_counters *shim_counters(struct backend *backend)
{
	struct store *store = (struct store *)backend;

	return backend_ops(store->inner)->counters(store->inner);
}

static const struct backend_ops shim_ops = {
	.abi = VARVE_BACKEND_ABI,
	.name = "shim",
	.schemes = "shim",
	.probe = shim_probe,
	.head = shim_head,
	.get = shim_get,
	.put = shim_put,
	.copy = shim_copy,
	.remove = shim_remove,
	.list = shim_list,
	.counters = shim_counters,
};

/* --- stores ------------------------------------------------------------------------------------ */

enum store_kind { STORE_MEMORY, STORE_FILE, STORE_S3, STORE_KINDS };

static inline bool store_kind_here(enum store_kind kind)
{
	return kind != STORE_S3 || getenv("VARVE_TEST_S3_ENDPOINT");
}

static inline char *fixture_path(const char *dir, const char *name)
{
	char *path = NULL;

	cr_assert(ge(int, asprintf(&path, "%s/%s", dir, name), 0));
	return path;
}

static inline void store_url(enum store_kind kind, const char *dir, struct backend_options *ret_options, char *ret_url,
			     size_t size)
{
	uint8_t noise[6];
	char unique[2 * sizeof(noise) + 1];

	random_bytes(noise, sizeof(noise));
	hex_encode(noise, sizeof(noise), unique);
	*ret_options = (struct backend_options){.url = ret_url, .create = true};
	switch (kind) {
	case STORE_MEMORY:
		(void)snprintf(ret_url, size, "memory://%s", unique);
		break;
	case STORE_FILE:
		(void)snprintf(ret_url, size, "file://%s/store", dir);
		break;
	default:
		(void)snprintf(ret_url, size, "s3://varve-unit-%s", unique);
		ret_options->endpoint = getenv("VARVE_TEST_S3_ENDPOINT");
		(void)setenv("AWS_ACCESS_KEY_ID", "minioadmin", 0);
		(void)setenv("AWS_SECRET_ACCESS_KEY", "minioadmin", 0);
	}
}

static inline struct store *store_new(enum store_kind kind)
{
	const char *tmp = getenv("TMPDIR");
	char url[512];
	struct backend_options options;
	struct backend_info info;
	struct err err = {0};
	struct store *store = calloc(1, sizeof(*store));
	const struct backend_ops *ops;

	cr_assert(ne(int, !!(store), 0));
	log_setup(getenv("VARVE_TEST_LOUD") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, LOG_SINK_STDERR);
	store->ops = &shim_ops;
	store->dir = fixture_path(tmp ? tmp : "/tmp", "varve-unit-XXXXXX");
	cr_assert(ne(int, !!(mkdtemp(store->dir)), 0));
	store_url(kind, store->dir, &options, url, sizeof(url));
	ops = backend_find(url, &err);
	cr_assert(ne(int, !!(ops), 0), "%s", err.message);
	cr_assert(zero(int, ops->open(&options, &store->inner, &err)), "%s", err.message);
	cr_assert(zero(int, ops->probe(store->inner, &(struct call){0}, &info, &err)), "%s", err.message);
	return store;
}

static inline int fixture_unlink(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
	(void)stat;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void store_free(struct store *store)
{
	backend_ops(store->inner)->close(store->inner);
	(void)nftw(store->dir, fixture_unlink, 16, FTW_DEPTH | FTW_PHYS); /* the test is over either way */
	free(store->dir);
	free(store);
}

/* --- machines --------------------------------------------------------------------------------------- */

struct machine {
	struct store *store;
	struct catalog *catalog;
	struct transfer *transfer;
	char *dir;
};

/* The state directory `name` is new the first time, and found again later. */
static inline struct machine machine_on(struct store *store, const char *name)
{
	const struct catalog_options catalog_options = {.root_mode = 0755};
	const struct transfer_options transfer_options = {.call_timeout_ns = 20 * NS_PER_SEC};
	struct machine machine = {.store = store, .dir = fixture_path(store->dir, name)};
	struct err err = {0};

	cr_assert(zero(int, catalog_open(machine.dir, &catalog_options, &machine.catalog)));
	cr_assert(zero(int, transfer_new((struct backend *)store, &transfer_options, &machine.transfer, &err)), "%s",
		  err.message);
	cr_assert(zero(int, transfer_probe(machine.transfer, &(struct call){0}, &err)), "%s", err.message);
	return machine;
}

static inline void machine_off(struct machine *machine)
{
	transfer_free(machine->transfer);
	catalog_close(machine->catalog);
	free(machine->dir);
}

/* --- objects ------------------------------------------------------------------------------------------ */

struct bytes {
	const char *data;
	size_t len;
};

static inline int bytes_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct bytes *bytes = arg;

	cr_assert(le(u64, offset + len, bytes->len));
	memcpy(ret_bytes, bytes->data + offset, len);
	return 0;
}

static inline int bytes_sink(void *arg, const void *bytes, size_t len)
{
	buf_add(arg, bytes, len);
	return 0;
}

/* Puts past the shim, as another tool would. */
static inline void store_put(struct store *store, const char *key, const char *content, const struct meta *meta)
{
	struct bytes bytes = {.data = content, .len = strlen(content)};
	struct put_request request = {
		.key = key,
		.source = bytes_source,
		.source_arg = &bytes,
		.size = bytes.len,
		.meta = meta,
	};
	struct object_info info = {0};
	struct err err = {0};
	int rc = backend_ops(store->inner)->put(store->inner, &(struct call){0}, &request, &info, &err);

	cr_assert(zero(int, rc), "%s: %s", key, err.message);
	object_info_clear(&info);
}

/* False when there is none. */
static inline bool store_get(struct store *store, const char *key, struct buf *ret_content)
{
	struct get_request request = {
		.object = {.key = key},
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = bytes_sink,
		.sink_arg = ret_content,
	};
	struct err err = {0};
	int rc = backend_ops(store->inner)->get(store->inner, &(struct call){0}, &request, NULL, &err);

	cr_assert(ne(int, !!(!rc || err.kind == ERR_NOT_FOUND), 0), "%s: %s", key, err.message);
	return !rc;
}

static inline void store_remove(struct store *store, const char *key)
{
	struct object_ref object = {.key = key};
	struct err err = {0};

	cr_assert(zero(int, backend_ops(store->inner)->remove(store->inner, &(struct call){0}, &object, NULL, &err)),
		  "%s: %s", key, err.message);
}

/* How many objects (versions: and old versions and delete markers) lie under a prefix; the keys into ret_keys, each
 * with a newline, when it is not NULL. */
static inline size_t store_count(struct store *store, const char *prefix, bool versions, struct buf *ret_keys)
{
	struct list_request request = {.prefix = prefix, .versions = versions};
	AUTO_FREE char *token = NULL;
	size_t count = 0;

	do {
		struct list_page page = {0};
		struct err err = {0};

		request.token = token;
		cr_assert(zero(int,
			       backend_ops(store->inner)->list(store->inner, &(struct call){0}, &request, &page, &err)),
			  "%s", err.message);
		count += page.count;
		for (size_t i = 0; ret_keys && i < page.count; i++) {
			buf_adds(ret_keys, page.entries[i].key);
			buf_addc(ret_keys, '\n');
		}
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (token);
	return count;
}

static inline bool store_has_versions(struct machine *machine)
{
	return transfer_can(machine->transfer, BACKEND_VERSIONS);
}

static inline void pause_ms(int64_t ms)
{
	struct timespec pause = clock_to_timespec(ms * NS_PER_MS);

	(void)nanosleep(&pause, NULL);
}

#define EVERY_STORE(kind)                                                                                              \
	for (enum store_kind kind = STORE_MEMORY; kind < STORE_KINDS; kind++)                                          \
		if (store_kind_here(kind))

#endif
