/*
 * suite.c - the stores of the conformance suite, and calls in short.
 */
#include "conformance/suite.h"

#include <errno.h>
#include <ftw.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

#define PATIENCE_NS (120 * NS_PER_SEC)
#define SHOWN_PAGES 10000

/* --- stores ------------------------------------------------------------------------------------------ */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

/* The endpoint, or NULL when servers are not asked for. A missing variable is a failure, never a silent skip. */
static const char *endpoint_of(enum store_id store)
{
	const char *name = store == STORE_VERSITYGW ? "VARVE_TEST_VERSITYGW_ENDPOINT" : "VARVE_TEST_S3_ENDPOINT";
	const char *local_only = getenv("VARVE_TEST_LOCAL_ONLY");
	const char *endpoint = getenv(name);

	if (endpoint || (local_only && strcmp(local_only, "1") == 0))
		return endpoint;
	cr_assert(false, "%s is not set (VARVE_TEST_LOCAL_ONLY=1 runs without servers)", name);
	return NULL;
}

static void use_versitygw_keys(void)
{
	const char *access = getenv("VARVE_TEST_VERSITYGW_ACCESS");
	const char *secret = getenv("VARVE_TEST_VERSITYGW_SECRET");

	cr_assert(access && secret, "VARVE_TEST_VERSITYGW_ACCESS and _SECRET are not set");
	setenv("AWS_ACCESS_KEY_ID", access, 1);
	setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
	unsetenv("AWS_SESSION_TOKEN");
}

/* The backend makes buckets with versioning; one without has to come from elsewhere. Signed by curl from a config on
 * its standard input, so that the keys are on no command line. */
static void make_plain_bucket(const char *endpoint, const char *bucket)
{
	FILE *curl = popen("curl -sf -o /dev/null -K -", "w");

	cr_assert(curl, "no curl to make a bucket with");
	(void)fprintf(curl, "request = PUT\nurl = \"%s/%s\"\naws-sigv4 = \"aws:amz:us-east-1:s3\"\nuser = \"%s:%s\"\n",
		      endpoint, bucket, getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"));
	cr_assert(pclose(curl) == 0, "bucket %s could not be made", bucket);
}

static bool set_up(struct fixture *f)
{
	const char *tmp = getenv("TMPDIR");
	char name[64];

	(void)snprintf(name, sizeof(name), "varve-%d-%llx", (int)getpid(), (unsigned long long)clock_wall());
	switch (f->store) {
	case STORE_MEMORY:
	case STORE_MEMORY_UNVERSIONED:
		(void)snprintf(f->url, sizeof(f->url), "memory://%s%s", name,
			       f->store == STORE_MEMORY ? "" : "?versions=0");
		return true;
	case STORE_LOCAL:
		(void)snprintf(f->dir, sizeof(f->dir), "%.60s/%s", tmp ? tmp : "/tmp", name);
		(void)snprintf(f->url, sizeof(f->url), "file://%s", f->dir);
		return true;
	case STORE_VERSITYGW:
	case STORE_S3:
	case STORE_S3_UNVERSIONED:
		break;
	}
	f->endpoint = endpoint_of(f->store);
	if (!f->endpoint)
		return false;
	if (f->store == STORE_VERSITYGW)
		use_versitygw_keys();
	if (f->store == STORE_S3_UNVERSIONED)
		make_plain_bucket(f->endpoint, name);
	(void)snprintf(f->url, sizeof(f->url), "s3://%s/some/prefix", name);
	return true;
}

struct backend *fixture_open(const struct fixture *f, const char *url, bool create)
{
	struct backend_options options = {
		.url = url,
		.endpoint = f->endpoint,
		.region = f->endpoint ? "us-east-1" : NULL,
		.create = create,
	};
	struct err err = {0};
	const struct backend_ops *ops = backend_find(url, &err);
	struct backend *backend = NULL;

	cr_assert(ops, "%s", err.message);
	cr_assert(ops->open(&options, &backend, &err) == 0, "open %s: %s", url, err.message);
	return backend;
}

void fixture_run(enum store_id store, conformance_case run)
{
	struct fixture f = {.store = store, .call.deadline_ns = clock_monotonic() + PATIENCE_NS};
	int rc;

	if (!set_up(&f)) {
#ifdef cr_skip_test
		cr_skip_test("without servers, as VARVE_TEST_LOCAL_ONLY asks");
#endif
		return;
	}
	f.backend = fixture_open(&f, f.url, store != STORE_S3_UNVERSIONED);
	f.ops = backend_ops(f.backend);
	rc = f.ops->probe(f.backend, &f.call, &f.info, &f.err);
	cr_assert(rc == 0, "probe: %s: %s", err_kind_name(f.err.kind), f.err.message);
	run(&f);
	f.ops->close(f.backend);
	if (f.dir[0])
		(void)nftw(f.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

bool can(const struct fixture *f, enum backend_capability capability)
{
	return f->info.capabilities & capability;
}

/* --- content ------------------------------------------------------------------------------------------- */

struct blob blob_make(size_t size, unsigned seed)
{
	struct blob blob = {.data = malloc(size + 1), .size = size};
	uint32_t x = seed * 2654435761u + 1;

	cr_assert(blob.data, "no memory");
	for (size_t i = 0; i < size; i++) {
		x = x * 1664525u + 1013904223u;
		blob.data[i] = (unsigned char)(x >> 24);
	}
	return blob;
}

int blob_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct blob *blob = arg;

	if (offset > blob->size || len > blob->size - offset)
		return -EINVAL;
	memcpy(ret_bytes, blob->data + offset, len);
	return 0;
}

int blob_sink(void *arg, const void *bytes, size_t len)
{
	struct blob *blob = arg;
	unsigned char *data = realloc(blob->data, blob->size + len + 1);

	if (!data)
		return -ENOMEM;
	memcpy(data + blob->size, bytes, len);
	blob->data = data;
	blob->size += len;
	return 0;
}

uint32_t blob_crc(const struct blob *blob)
{
	return crc32c_update(0, blob->data, blob->size);
}

/* --- calls ---------------------------------------------------------------------------------------------- */

int do_put_request(struct fixture *f, const struct put_request *request, struct object_info *info)
{
	struct object_info made = {0};
	int rc = f->ops->put(f->backend, &f->call, request, &made, &f->err);

	if (!rc && info)
		*info = made;
	else
		object_info_clear(&made);
	return rc;
}

int do_put(struct fixture *f, const char *key, const struct blob *blob, struct object_info *info)
{
	struct put_request request = {
		.key = key,
		.source = blob_source,
		.source_arg = (void *)blob,
		.size = blob->size,
		.crc32c = blob_crc(blob),
		.has_crc32c = true,
	};

	return do_put_request(f, &request, info);
}

int do_put_text(struct fixture *f, const char *key, const char *text, struct object_info *info)
{
	struct blob blob = {.data = (unsigned char *)text, .size = strlen(text)};

	return do_put(f, key, &blob, info);
}

int do_get(struct fixture *f, const struct object_ref *ref, struct blob *ret_blob, struct object_info *info)
{
	struct blob blob = {0};
	struct get_request request = {
		.object = *ref,
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = blob_sink,
		.sink_arg = &blob,
	};
	int rc = f->ops->get(f->backend, &f->call, &request, info, &f->err);

	if (!rc)
		*ret_blob = blob;
	else
		free(blob.data);
	return rc;
}

int do_get_range(struct fixture *f, const char *key, uint64_t offset, uint64_t length, struct blob *ret_blob)
{
	struct blob blob = {0};
	struct get_request request = {
		.object.key = key,
		.offset = offset,
		.length = length,
		.expected_size = UINT64_MAX,
		.sink = blob_sink,
		.sink_arg = &blob,
	};
	int rc = f->ops->get(f->backend, &f->call, &request, NULL, &f->err);

	if (!rc)
		*ret_blob = blob;
	else
		free(blob.data);
	return rc;
}

int do_head(struct fixture *f, const struct object_ref *ref, struct object_info *ret_info)
{
	return f->ops->head(f->backend, &f->call, ref, ret_info, &f->err);
}

int do_copy(struct fixture *f, const struct copy_request *request, struct object_info *info)
{
	struct object_info made = {0};
	int rc = f->ops->copy(f->backend, &f->call, request, &made, &f->err);

	if (!rc && info)
		*info = made;
	else
		object_info_clear(&made);
	return rc;
}

int do_remove(struct fixture *f, const struct object_ref *ref, char **ret_marker)
{
	return f->ops->remove(f->backend, &f->call, ref, ret_marker, &f->err);
}

int do_list(struct fixture *f, const struct list_request *request, struct list_page *ret_page)
{
	return f->ops->list(f->backend, &f->call, request, ret_page, &f->err);
}

void expect_content(struct fixture *f, const struct object_ref *ref, const struct blob *blob)
{
	struct object_info info = {0};
	struct blob got = {0};

	OK(do_get(f, ref, &got, &info));
	cr_assert(got.size == blob->size, "%s: %zu bytes, expected %zu", ref->key, got.size, blob->size);
	cr_assert(blob->size == 0 || memcmp(got.data, blob->data, blob->size) == 0, "%s: other bytes", ref->key);
	cr_assert(info.size == blob->size && info.etag && strcmp(info.key, ref->key) == 0, "%s: wrong facts", ref->key);
	object_info_clear(&info);
	free(got.data);
}

void expect_text(struct fixture *f, const char *key, const char *text)
{
	struct blob blob = {.data = (unsigned char *)text, .size = strlen(text)};

	expect_content(f, &(struct object_ref){.key = key}, &blob);
}

/* --- listings ---------------------------------------------------------------------------------------------- */

static void append(struct list_page *all, struct list_page *page)
{
	all->entries = reallocarray(all->entries, all->count + page->count + 1, sizeof(*all->entries));
	cr_assert(all->entries, "no memory");
	if (page->count > 0)
		memcpy(all->entries + all->count, page->entries, page->count * sizeof(*page->entries));
	all->count += page->count;
	free(page->entries);
	free(page->next);
}

struct list_page list_all(struct fixture *f, const struct list_request *request)
{
	struct list_request next = *request;
	struct list_page all = {0};
	char *token = NULL;

	for (int pages = 0; pages == 0 || token; pages++) {
		struct list_page page = {0};
		char *before = token;

		cr_assert(pages < SHOWN_PAGES, "a listing without end");
		next.token = token;
		OK(do_list(f, &next, &page));
		cr_assert(!request->max || page.count <= request->max, "%zu entries in a page of %u", page.count,
			  request->max);
		cr_assert(!page.next || !before || strcmp(page.next, before) != 0, "a page without progress");
		token = page.next ? strdup(page.next) : NULL;
		free(before);
		append(&all, &page);
	}
	for (size_t i = 1; i < all.count; i++) {
		int order = strcmp(all.entries[i - 1].key, all.entries[i].key);

		cr_assert(order < 0 || (order == 0 && request->versions), "%s listed before %s", all.entries[i - 1].key,
			  all.entries[i].key);
	}
	return all;
}
