/*
 * memory.c - a store in memory (memory.h says what it is like).
 *
 * A store is a sorted array of keys, each with its versions, oldest first; the
 * last is the current one. Content is immutable and counted, so that a reader
 * streams it without any lock while the key moves on.
 *
 * Invariants: a key in the array has at least one version; without versioning
 * it has just one, and that is no delete marker.
 *
 * Threads and locks: stores_lock guards the list of stores, which are never
 * freed, and store->lock all within a store. Sources and sinks are called with
 * neither held.
 */
#include "backends/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "lock.h"

#define SCHEME "memory://"
#define KEY_MAX 1024
#define META_MAX 2048
#define PARTS_MAX 10000
#define OBJECT_MAX (UINT64_C(5) << 40)
#define MD5_SIZE 16
#define SINK_CHUNK ((size_t)64 << 10)

struct content {
	_Atomic unsigned users;
	size_t size;
	uint32_t crc32c;
	uint8_t md5[MD5_SIZE];
	char bytes[];
};

struct version {
	struct object_info info; /* flags without OBJECT_LATEST; native_id NULL when made without versioning */
	struct content *content; /* NULL: delete marker */
};

struct entry {
	char *key;
	struct version *versions; /* oldest first */
	size_t count;
};

struct part {
	unsigned number;
	struct content *content;
	char *etag;
};

struct upload {
	struct upload *next;
	char *id, *key, *storage_class, *content_type;
	struct meta meta;
	struct part *parts;
	size_t count;
};

struct store {
	struct store *next; /* guard: stores_lock */
	char *name;
	struct lock lock; /* guards what follows */
	bool exists;
	struct entry *entries; /* sorted by key */
	size_t count, cap;
	struct upload *uploads;
	int64_t last_ns;
};

struct memory {
	const struct backend_ops *ops;
	struct store *store;
	bool create;
	uint32_t capabilities;
	uint64_t part_min, page;
	char *description;
	struct backend_counters counters;
};

static struct lock stores_lock = LOCK_INITIALIZER(LOCK_BACKEND);
static struct store *stores;

static struct memory *memory_of(struct backend *backend)
{
	return (struct memory *)backend;
}

static int no_memory(struct err *err)
{
	return err_set(err, ERR_NO_MEMORY, "no memory for an object in memory");
}

/* --- content ----------------------------------------------------------------------------------------- */

static struct content *content_new(size_t size)
{
	struct content *content = malloc(sizeof(*content) + size + 1);

	if (!content)
		return NULL;
	content->users = 1;
	content->size = size;
	return content;
}

static void content_seal(struct content *content)
{
	content->crc32c = crc32c_update(0, content->bytes, content->size);
	md5_of(content->bytes, content->size, content->md5);
}

static struct content *content_use(struct content *content)
{
	if (content)
		atomic_fetch_add(&content->users, 1);
	return content;
}

static void content_drop(struct content *content)
{
	if (content && atomic_fetch_sub(&content->users, 1) == 1)
		free(content);
}

static char *etag_of(const struct content *content)
{
	char *etag = malloc(2 * MD5_SIZE + 1);

	if (etag)
		hex_encode(content->md5, MD5_SIZE, etag);
	return etag;
}

static char *new_id(void)
{
	uint8_t bytes[16];
	char *id = malloc(2 * sizeof(bytes) + 1);

	random_bytes(bytes, sizeof(bytes));
	if (id)
		hex_encode(bytes, sizeof(bytes), id);
	return id;
}

static int copy_string(const char *from, char **ret_to)
{
	char *to = from ? strdup(from) : NULL;

	if (from && !to)
		return -ENOMEM;
	*ret_to = to;
	return 0;
}

static int copy_info(const struct object_info *from, struct object_info *ret_info)
{
	struct object_info info = {
		.size = from->size,
		.modified_ns = from->modified_ns,
		.flags = from->flags,
		.crc32c = from->crc32c,
	};

	if (copy_string(from->key, &info.key) || copy_string(from->native_id, &info.native_id) ||
	    copy_string(from->etag, &info.etag) || copy_string(from->storage_class, &info.storage_class) ||
	    copy_string(from->content_type, &info.content_type) || meta_copy(&info.meta, &from->meta)) {
		object_info_clear(&info);
		return -ENOMEM;
	}
	*ret_info = info;
	return 0;
}

/* --- the store: all under its lock ---------------------------------------------------------------------- */

static void version_clear(struct version *version)
{
	object_info_clear(&version->info);
	content_drop(version->content);
}

/* Where the key is, or belongs. */
static size_t entry_index(const struct store *store, const char *key)
{
	size_t low = 0, high = store->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(store->entries[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct entry *entry_find(const struct store *store, const char *key)
{
	size_t at = entry_index(store, key);

	return at < store->count && strcmp(store->entries[at].key, key) == 0 ? &store->entries[at] : NULL;
}

static struct entry *entry_add(struct store *store, const char *key)
{
	size_t at = entry_index(store, key);
	char *copy = strdup(key);

	if (!copy)
		return NULL;
	if (ARRAY_ROOM(store->entries, store->cap, store->count)) {
		free(copy);
		return NULL;
	}
	memmove(&store->entries[at + 1], &store->entries[at], (store->count - at) * sizeof(*store->entries));
	store->entries[at] = (struct entry){.key = copy};
	store->count++;
	return &store->entries[at];
}

static void entry_drop(struct store *store, struct entry *entry)
{
	size_t at = (size_t)(entry - store->entries);

	for (size_t i = 0; i < entry->count; i++)
		version_clear(&entry->versions[i]);
	free(entry->versions);
	free(entry->key);
	memmove(entry, entry + 1, (store->count - at - 1) * sizeof(*entry));
	store->count--;
}

static struct version *entry_current(const struct entry *entry)
{
	struct version *last = entry ? &entry->versions[entry->count - 1] : NULL;

	return last && !(last->info.flags & OBJECT_DELETE_MARKER) ? last : NULL;
}

/* S3's "null": what was stored while there was no versioning. */
static bool id_is(const struct version *version, const char *id)
{
	return strcmp(version->info.native_id ? version->info.native_id : "null", id) == 0;
}

static struct version *entry_version(const struct entry *entry, const char *id)
{
	for (size_t i = entry ? entry->count : 0; i > 0; i--)
		if (id_is(&entry->versions[i - 1], id))
			return &entry->versions[i - 1];
	return NULL;
}

static int find(const struct store *store, const struct object_ref *ref, struct version **ret_version, struct err *err)
{
	struct entry *entry = entry_find(store, ref->key);
	struct version *version = ref->native_id ? entry_version(entry, ref->native_id) : entry_current(entry);

	if (!version || version->info.flags & OBJECT_DELETE_MARKER)
		return err_set(err, ERR_NOT_FOUND, "no object %s", ref->key);
	if (ref->etag && strcmp(ref->etag, version->info.etag) != 0)
		return err_set(err, ERR_PRECONDITION, "%s is not the object it was", ref->key);
	*ret_version = version;
	return 0;
}

static int64_t store_now(struct store *store)
{
	int64_t now = clock_wall();

	store->last_ns = now > store->last_ns ? now : store->last_ns + 1;
	return store->last_ns;
}

/* Makes the version current; takes it over on success. */
static int push_version(struct memory *memory, struct version *version)
{
	struct store *store = memory->store;
	struct entry *entry = entry_find(store, version->info.key);
	struct version *versions;

	if (!(memory->capabilities & BACKEND_VERSIONS) && entry) {
		entry_drop(store, entry);
		entry = NULL;
	}
	if (!entry)
		entry = entry_add(store, version->info.key);
	if (!entry)
		return -ENOMEM;
	versions = reallocarray(entry->versions, entry->count + 1, sizeof(*versions));
	if (!versions) {
		if (entry->count == 0)
			entry_drop(store, entry);
		return -ENOMEM;
	}
	entry->versions = versions;
	versions[entry->count++] = *version;
	*version = (struct version){0};
	return 0;
}

static int check_condition(const struct memory *memory, const char *key, const struct put_condition *condition,
			   struct err *err)
{
	const struct version *current = entry_current(entry_find(memory->store, key));

	if (condition->if_none_match && current)
		return err_set(err, ERR_PRECONDITION, "%s exists", key);
	if (condition->if_match && (!current || strcmp(condition->if_match, current->info.etag) != 0))
		return err_set(err, ERR_PRECONDITION, "%s is not the object it was", key);
	return 0;
}

/* --- what a request may be ------------------------------------------------------------------------------- */

static int check_call(struct memory *memory, const struct call *call, struct err *err)
{
	atomic_fetch_add(&memory->counters.requests, 1);
	if (call->cancelled && atomic_load(call->cancelled))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (call->deadline_ns && clock_monotonic() >= call->deadline_ns)
		return err_set(err, ERR_TIMED_OUT, "the deadline passed");
	return 0;
}

static int check_exists(const struct memory *memory, struct err *err)
{
	return memory->store->exists ? 0 : err_set(err, ERR_NOT_FOUND, "no store %s", memory->description);
}

static int check_can(const struct memory *memory, enum backend_capability capability, struct err *err)
{
	if (memory->capabilities & capability)
		return 0;
	return err_set(err, ERR_UNSUPPORTED, "%s was told not to be able to do this", memory->description);
}

static int check_put(const struct memory *memory, const struct put_request *request, struct err *err)
{
	size_t key_len = strlen(request->key);
	size_t meta_size = 0;

	if (key_len == 0 || key_len > KEY_MAX)
		return err_set(err, ERR_TOO_LARGE, "a key of %zu bytes is not 1..%d", key_len, KEY_MAX);
	for (size_t i = 0; request->meta && i < request->meta->count; i++)
		meta_size += strlen(request->meta->pairs[i].name) + strlen(request->meta->pairs[i].value);
	if (meta_size > META_MAX)
		return err_set(err, ERR_TOO_LARGE, "%zu bytes of metadata: at most %d", meta_size, META_MAX);
	if (request->condition.if_none_match && check_can(memory, BACKEND_IF_NONE_MATCH, err))
		return -err_errno(ERR_UNSUPPORTED);
	if (request->condition.if_match && check_can(memory, BACKEND_IF_MATCH, err))
		return -err_errno(ERR_UNSUPPORTED);
	return 0;
}

/* The source's bytes, whole; checks their CRC. */
static int read_source(const struct put_request *request, struct content **ret_content, struct err *err)
{
	struct content *content;
	int rc;

	if (request->size > OBJECT_MAX)
		return err_set(err, ERR_TOO_LARGE, "%s is too large", request->key);
	content = content_new((size_t)request->size);
	if (!content)
		return no_memory(err);
	rc = content->size ? request->source(request->source_arg, content->bytes, content->size, 0) : 0;
	if (rc) {
		content_drop(content);
		return err_from_errno(err, -rc, "reading what to store at %s", request->key);
	}
	content_seal(content);
	if (request->has_crc32c && request->crc32c != content->crc32c) {
		content_drop(content);
		return err_set(err, ERR_CORRUPT, "content for %s does not have the CRC-32C stated", request->key);
	}
	*ret_content = content;
	return 0;
}

/* --- storing -------------------------------------------------------------------------------------------------- */

/* A version of `content` (a use of which it takes over) as the request says; etag NULL: the content's. */
static int make_version(struct memory *memory, const struct put_request *request, struct content *content,
			const char *etag, struct version *ret_version)
{
	struct version version = {.content = content};
	struct object_info *info = &version.info;
	int rc;

	info->size = content->size;
	info->crc32c = content->crc32c;
	info->flags = OBJECT_CRC32C;
	info->etag = etag ? strdup(etag) : etag_of(content);
	rc = copy_string(request->key, &info->key);
	if (!rc)
		rc = copy_string(request->storage_class, &info->storage_class);
	if (!rc)
		rc = copy_string(request->content_type, &info->content_type);
	if (!rc && request->meta)
		rc = meta_copy(&info->meta, request->meta);
	if (!rc && memory->capabilities & BACKEND_VERSIONS) {
		info->native_id = new_id();
		rc = info->native_id ? 0 : -ENOMEM;
	}
	if (rc || !info->etag) {
		version_clear(&version);
		return -ENOMEM;
	}
	*ret_version = version;
	return 0;
}

/* Takes over a use of `content`. */
static int store_content(struct memory *memory, const struct put_request *request, struct content *content,
			 const char *etag, struct object_info *ret_info, struct err *err)
{
	struct version version = {0};
	struct object_info info = {0};
	int rc;

	if (make_version(memory, request, content, etag, &version))
		return no_memory(err);
	lock_acquire(&memory->store->lock);
	rc = check_exists(memory, err);
	if (!rc)
		rc = check_condition(memory, request->key, &request->condition, err);
	if (rc)
		goto out;
	version.info.modified_ns = store_now(memory->store);
	if (copy_info(&version.info, &info) || push_version(memory, &version)) {
		object_info_clear(&info);
		rc = no_memory(err);
	}
out:
	lock_release(&memory->store->lock);
	version_clear(&version);
	if (rc)
		return rc;
	info.flags |= OBJECT_LATEST;
	if (ret_info)
		*ret_info = info;
	else
		object_info_clear(&info);
	return 0;
}

static int memory_put(struct backend *backend, const struct call *call, const struct put_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct content *content;
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = check_put(memory, request, err);
	if (!rc)
		rc = read_source(request, &content, err);
	if (rc)
		return rc;
	atomic_fetch_add(&memory->counters.bytes_sent, request->size);
	return store_content(memory, request, content, NULL, ret_info, err);
}

/* The content and facts of what `ref` names, for use without the lock. */
static int look_up(struct memory *memory, const struct object_ref *ref, struct object_info *ret_info,
		   struct content **ret_content, struct err *err)
{
	struct version *version = NULL;
	int rc;

	LOCK_GUARD(&memory->store->lock);
	rc = check_exists(memory, err);
	if (!rc)
		rc = find(memory->store, ref, &version, err);
	if (rc)
		return rc;
	if (copy_info(&version->info, ret_info))
		return no_memory(err);
	if (version == entry_current(entry_find(memory->store, ref->key)))
		ret_info->flags |= OBJECT_LATEST;
	if (ret_content)
		*ret_content = content_use(version->content);
	return 0;
}

static int memory_copy(struct backend *backend, const struct call *call, const struct copy_request *request,
		       struct object_info *ret_info, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct put_request put = {
		.key = request->key,
		.meta = request->meta,
		.content_type = request->content_type,
		.storage_class = request->storage_class,
		.condition = request->condition,
	};
	struct object_info info = {0};
	struct content *content;
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = check_can(memory, BACKEND_COPY, err);
	if (!rc)
		rc = check_put(memory, &put, err);
	if (!rc)
		rc = look_up(memory, &request->source, &info, &content, err);
	if (rc)
		return rc;
	object_info_clear(&info);
	return store_content(memory, &put, content, NULL, ret_info, err);
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

static int memory_head(struct backend *backend, const struct call *call, const struct object_ref *ref,
		       struct object_info *ret_info, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct object_info info = {0};
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = look_up(memory, ref, &info, NULL, err);
	if (!rc)
		*ret_info = info;
	return rc;
}

static int check_range(const struct get_request *request, uint64_t size, uint64_t *ret_length, struct err *err)
{
	uint64_t left;

	if (request->expected_size != UINT64_MAX && request->expected_size != size)
		return err_set(err, ERR_CORRUPT, "%s does not have the size expected", request->object.key);
	if (request->offset > size)
		return err_set(err, ERR_CORRUPT, "%s ends before the range asked for", request->object.key);
	left = size - request->offset;
	if (request->length != UINT64_MAX && request->length > left)
		return err_set(err, ERR_CORRUPT, "%s ends within the range asked for", request->object.key);
	*ret_length = request->length == UINT64_MAX ? left : request->length;
	return 0;
}

static int memory_get(struct backend *backend, const struct call *call, const struct get_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct object_info info = {0};
	struct content *content = NULL;
	uint64_t length = 0;
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = look_up(memory, &request->object, &info, &content, err);
	if (!rc)
		rc = check_range(request, info.size, &length, err);
	for (uint64_t at = 0; !rc && at < length;) {
		size_t len = length - at < SINK_CHUNK ? (size_t)(length - at) : SINK_CHUNK;

		if (request->sink(request->sink_arg, content->bytes + request->offset + at, len))
			rc = err_set(err, ERR_CANCELLED, "the reader of %s wants no more", request->object.key);
		else if (call->cancelled && atomic_load(call->cancelled))
			rc = err_set(err, ERR_CANCELLED, "cancelled");
		at += len;
	}
	content_drop(content);
	if (!rc && ret_info) {
		*ret_info = info;
		info = (struct object_info){0};
	}
	if (!rc)
		atomic_fetch_add(&memory->counters.bytes_received, length);
	object_info_clear(&info);
	return rc;
}

/* --- removing ------------------------------------------------------------------------------------------------------
 */

static void remove_version(struct store *store, const struct object_ref *ref)
{
	struct entry *entry = entry_find(store, ref->key);
	struct version *version = entry_version(entry, ref->native_id);
	size_t at;

	if (!version)
		return;
	at = (size_t)(version - entry->versions);
	version_clear(version);
	memmove(version, version + 1, (entry->count - at - 1) * sizeof(*version));
	if (--entry->count == 0)
		entry_drop(store, entry);
}

static int add_marker(struct memory *memory, const char *key, char **ret_id)
{
	struct version marker = {.info = {.flags = OBJECT_DELETE_MARKER, .native_id = new_id()}};
	char *id = NULL;
	int rc = marker.info.native_id ? copy_string(key, &marker.info.key) : -ENOMEM;

	if (!rc)
		rc = copy_string(marker.info.native_id, &id);
	marker.info.modified_ns = store_now(memory->store);
	if (!rc)
		rc = push_version(memory, &marker);
	version_clear(&marker);
	if (rc)
		free(id);
	else
		*ret_id = id;
	return rc;
}

static int remove_locked(struct memory *memory, const struct object_ref *ref, char **ret_id, struct err *err)
{
	struct store *store = memory->store;
	struct entry *entry = entry_find(store, ref->key);
	const struct version *version = ref->native_id ? entry_version(entry, ref->native_id) : entry_current(entry);

	if (ref->etag && version && version->info.etag && strcmp(ref->etag, version->info.etag) != 0)
		return err_set(err, ERR_PRECONDITION, "%s is not the object it was", ref->key);
	if (ref->native_id)
		remove_version(store, ref);
	else if (memory->capabilities & BACKEND_VERSIONS)
		return add_marker(memory, ref->key, ret_id) ? no_memory(err) : 0;
	else if (entry)
		entry_drop(store, entry);
	return 0;
}

static int memory_remove(struct backend *backend, const struct call *call, const struct object_ref *ref,
			 char **ret_marker_id, struct err *err)
{
	struct memory *memory = memory_of(backend);
	char *id = NULL;
	int rc = check_call(memory, call, err);

	if (!rc && ref->etag)
		rc = check_can(memory, BACKEND_REMOVE_IF_MATCH, err);
	if (rc)
		return rc;
	lock_acquire(&memory->store->lock);
	rc = check_exists(memory, err);
	if (!rc)
		rc = remove_locked(memory, ref, &id, err);
	lock_release(&memory->store->lock);
	if (!rc && ret_marker_id)
		*ret_marker_id = id;
	else
		free(id);
	return rc;
}

/* --- listing ---------------------------------------------------------------------------------------------------------
 */

/* Where a page goes on: after version `id` of `key`, or (id "") after all of it, or of all keys with it as prefix. */
struct place {
	char kind; /* 'k' key, 'v' version, 'p' prefix */
	const char *id, *key;
};

/* "KIND:ID:KEY", cut up in place. */
static int parse_token(char *token, struct place *ret_place)
{
	char *key = token[0] && token[1] == ':' ? strchr(token + 2, ':') : NULL;

	if (!key || !strchr("kvp", token[0]))
		return -EINVAL;
	*key = '\0';
	*ret_place = (struct place){.kind = token[0], .id = token + 2, .key = key + 1};
	return 0;
}

struct listing {
	struct memory *memory;
	const struct list_request *request;
	size_t max;
	struct list_page page;
	bool full; /* there was one more */
};

static int listing_add(struct listing *listing, const struct object_info *info, uint32_t flags)
{
	struct list_page *page = &listing->page;
	struct object_info *entries;

	if (page->count == listing->max) {
		listing->full = true;
		return 1;
	}
	entries = reallocarray(page->entries, page->count + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	page->entries = entries;
	if (copy_info(info, &entries[page->count]))
		return -ENOMEM;
	meta_clear(&entries[page->count].meta); /* as with S3 */
	free(entries[page->count].content_type);
	entries[page->count].content_type = NULL;
	entries[page->count++].flags |= flags;
	return 0;
}

/* `from`: how many of its versions, the newest, are passed over. */
static int listing_entry(struct listing *listing, const struct entry *entry, size_t from)
{
	const struct version *current = entry_current(entry);
	int rc = 0;

	if (!listing->request->versions)
		return current ? listing_add(listing, &current->info, OBJECT_LATEST) : 0;
	for (size_t i = from; !rc && i < entry->count; i++)
		rc = listing_add(listing, &entry->versions[entry->count - 1 - i].info, i == 0 ? OBJECT_LATEST : 0);
	return rc;
}

/* The group's end is found by the delimiter's successor: no key of it sorts there or beyond. */
static int listing_group(struct listing *listing, const struct entry *entry, const char *delimiter, size_t *ret_next)
{
	struct store *store = listing->memory->store;
	size_t len = (size_t)(delimiter + 1 - entry->key);
	struct object_info info = {.flags = OBJECT_PREFIX, .key = strndup(entry->key, len)};
	size_t at = (size_t)(entry - store->entries);
	bool any = listing->request->versions;
	int rc = 0;

	if (!info.key)
		return -ENOMEM;
	for (; at < store->count && strncmp(store->entries[at].key, info.key, len) == 0; at++)
		any = any || entry_current(&store->entries[at]);
	if (any)
		rc = listing_add(listing, &info, 0);
	object_info_clear(&info);
	*ret_next = at;
	return rc;
}

static size_t passed_versions(const struct entry *entry, const struct place *after)
{
	for (size_t i = 0; i < entry->count; i++)
		if (id_is(&entry->versions[entry->count - 1 - i], after->id))
			return i + 1;
	return 0; /* gone: better twice than never */
}

/* Index of the first entry to look at, and how many of its versions were given. */
static size_t listing_start(const struct listing *listing, const struct place *after, size_t *ret_passed)
{
	const struct store *store = listing->memory->store;
	size_t at = entry_index(store, after && strcmp(after->key, listing->request->prefix) > 0
					       ? after->key
					       : listing->request->prefix);

	*ret_passed = 0;
	if (!after || at == store->count)
		return at;
	if (after->kind == 'p') {
		while (at < store->count && strncmp(store->entries[at].key, after->key, strlen(after->key)) == 0)
			at++;
	} else if (strcmp(store->entries[at].key, after->key) == 0) {
		if (after->kind == 'v')
			*ret_passed = passed_versions(&store->entries[at], after);
		else
			at++;
	}
	return at;
}

static int listing_fill(struct listing *listing, const struct place *after)
{
	const struct list_request *request = listing->request;
	const struct store *store = listing->memory->store;
	size_t prefix_len = strlen(request->prefix);
	size_t passed;
	size_t at = listing_start(listing, after, &passed);
	int rc = 0;

	while (!rc && at < store->count) {
		const struct entry *entry = &store->entries[at];
		const char *delimiter;

		if (strncmp(entry->key, request->prefix, prefix_len) != 0)
			break;
		delimiter = request->delimiter ? strchr(entry->key + prefix_len, request->delimiter) : NULL;
		if (delimiter) {
			rc = listing_group(listing, entry, delimiter, &at);
		} else {
			rc = listing_entry(listing, entry, passed);
			at++;
		}
		passed = 0;
	}
	return rc < 0 ? rc : 0;
}

static char *make_token(const struct listing *listing)
{
	const struct object_info *last = &listing->page.entries[listing->page.count - 1];
	char kind = last->flags & OBJECT_PREFIX ? 'p' : listing->request->versions ? 'v' : 'k';
	AUTO_BUF token = BUF_INIT;

	buf_addf(&token, "%c:%s:%s", kind, kind == 'v' && last->native_id ? last->native_id : "null", last->key);
	return buf_detach(&token);
}

static int memory_list(struct backend *backend, const struct call *call, const struct list_request *request,
		       struct list_page *ret_page, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct listing listing = {
		.memory = memory,
		.request = request,
		.max = request->max ? request->max : (size_t)memory->page,
	};
	AUTO_FREE char *token = request->token ? strdup(request->token) : NULL;
	struct place after = {0};
	int rc = check_call(memory, call, err);

	if (rc)
		return rc;
	if (request->token && (!token || parse_token(token, &after)))
		return err_set(err, ERR_CONFIGURATION, "no token of a listing: %s", request->token);
	lock_acquire(&memory->store->lock);
	rc = check_exists(memory, err);
	if (!rc && listing_fill(&listing, token ? &after : NULL))
		rc = no_memory(err);
	lock_release(&memory->store->lock);
	if (!rc && listing.full) {
		listing.page.next = make_token(&listing);
		if (!listing.page.next)
			rc = no_memory(err);
	}
	if (rc)
		list_page_clear(&listing.page);
	else
		*ret_page = listing.page;
	return rc;
}

/* --- multipart
 * -------------------------------------------------------------------------------------------------------- */

static void part_clear(struct part *part)
{
	content_drop(part->content);
	free(part->etag);
}

static void upload_free(struct upload *upload)
{
	for (size_t i = 0; i < upload->count; i++)
		part_clear(&upload->parts[i]);
	free(upload->parts);
	meta_clear(&upload->meta);
	free(upload->storage_class);
	free(upload->content_type);
	free(upload->key);
	free(upload->id);
	free(upload);
}

/* Under the store's lock. The link that points to it, so that it can be taken out. */
static int upload_find(struct memory *memory, const char *key, const char *id, struct upload ***ret_link,
		       struct err *err)
{
	for (struct upload **link = &memory->store->uploads; *link; link = &(*link)->next)
		if (strcmp((*link)->id, id) == 0 && strcmp((*link)->key, key) == 0) {
			*ret_link = link;
			return 0;
		}
	return err_set(err, ERR_NOT_FOUND, "no upload %s for %s", id, key);
}

static int memory_upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
			       char **ret_upload_id, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct upload *upload;
	char *id;
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = check_can(memory, BACKEND_MULTIPART, err);
	if (!rc)
		rc = check_put(memory, request, err);
	if (rc)
		return rc;
	upload = calloc(1, sizeof(*upload));
	id = new_id();
	if (!upload || !id || copy_string(id, &upload->id) || copy_string(request->key, &upload->key) ||
	    copy_string(request->storage_class, &upload->storage_class) ||
	    copy_string(request->content_type, &upload->content_type) ||
	    (request->meta && meta_copy(&upload->meta, request->meta))) {
		if (upload)
			upload_free(upload);
		free(id);
		return no_memory(err);
	}
	lock_acquire(&memory->store->lock);
	rc = check_exists(memory, err);
	if (!rc) {
		upload->next = memory->store->uploads;
		memory->store->uploads = upload;
	}
	lock_release(&memory->store->lock);
	if (rc) {
		upload_free(upload);
		free(id);
		return rc;
	}
	*ret_upload_id = id;
	return 0;
}

/* Under the store's lock: replaces a part of that number. Takes `part` over on success. */
static int upload_add(struct upload *upload, struct part *part)
{
	struct part *parts;

	for (size_t i = 0; i < upload->count; i++)
		if (upload->parts[i].number == part->number) {
			part_clear(&upload->parts[i]);
			upload->parts[i] = *part;
			return 0;
		}
	parts = reallocarray(upload->parts, upload->count + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	upload->parts = parts;
	parts[upload->count++] = *part;
	return 0;
}

/* Takes over a use of `content`. */
static int keep_part(struct memory *memory, const char *key, const char *upload_id, struct part part,
		     struct upload_part *ret_part, struct err *err)
{
	struct upload_part made = {
		.number = part.number,
		.size = part.content->size,
		.crc32c = part.content->crc32c,
		.has_crc32c = true,
	};
	struct upload **link;
	int rc = 0;

	part.etag = etag_of(part.content);
	if (!part.etag || copy_string(part.etag, &made.etag)) {
		part_clear(&part);
		return no_memory(err);
	}
	lock_acquire(&memory->store->lock);
	if (part.number < 1 || part.number > PARTS_MAX)
		rc = err_set(err, ERR_TOO_LARGE, "part number %u is not 1..%d", part.number, PARTS_MAX);
	if (!rc)
		rc = upload_find(memory, key, upload_id, &link, err);
	if (!rc && upload_add(*link, &part))
		rc = no_memory(err);
	lock_release(&memory->store->lock);
	if (rc) {
		part_clear(&part);
		free(made.etag);
		return rc;
	}
	*ret_part = made;
	return 0;
}

static int memory_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			      const struct put_request *body, const struct upload_slot *slot,
			      struct upload_part *ret_part, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct put_request request = *body;
	struct part part = {.number = slot->number};
	int rc = check_call(memory, call, err);

	request.key = key;
	if (!rc)
		rc = check_can(memory, BACKEND_MULTIPART, err);
	if (!rc)
		rc = read_source(&request, &part.content, err);
	if (rc)
		return rc;
	atomic_fetch_add(&memory->counters.bytes_sent, body->size);
	return keep_part(memory, key, upload_id, part, ret_part, err);
}

static int memory_upload_part_copy(struct backend *backend, const struct call *call, const char *key,
				   const char *upload_id, const struct get_request *source,
				   const struct upload_slot *slot, struct upload_part *ret_part, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct part part = {.number = slot->number};
	struct object_info info = {0};
	struct content *whole = NULL;
	uint64_t length = 0;
	int rc = check_call(memory, call, err);

	if (!rc)
		rc = check_can(memory, BACKEND_PART_COPY, err);
	if (!rc)
		rc = look_up(memory, &source->object, &info, &whole, err);
	if (!rc)
		rc = check_range(source, info.size, &length, err);
	object_info_clear(&info);
	if (!rc) {
		part.content = content_new((size_t)length);
		rc = part.content ? 0 : no_memory(err);
	}
	if (!rc) {
		memcpy(part.content->bytes, whole->bytes + source->offset, (size_t)length);
		content_seal(part.content);
	}
	content_drop(whole);
	return rc ? rc : keep_part(memory, key, upload_id, part, ret_part, err);
}

static const struct part *stated_part(const struct upload *upload, const struct upload_part *stated)
{
	for (size_t i = 0; i < upload->count; i++)
		if (upload->parts[i].number == stated->number && stated->etag &&
		    strcmp(upload->parts[i].etag, stated->etag) == 0)
			return &upload->parts[i];
	return NULL;
}

/* Under the store's lock: the parts in one. The etag is S3's: MD5 of the parts' MD5s, and their number. */
static int join_parts(const struct memory *memory, const struct upload *upload, const struct upload_part *parts,
		      size_t count, struct content **ret_content, struct err *err)
{
	struct content *content;
	size_t size = 0;

	if (count == 0)
		return err_set(err, ERR_CONFLICT, "an upload without parts");
	for (size_t i = 0; i < count; i++) {
		const struct part *part = stated_part(upload, &parts[i]);

		if (!part || (i > 0 && parts[i].number <= parts[i - 1].number))
			return err_set(err, ERR_CONFLICT, "part %u is not in the upload as stated", parts[i].number);
		if (i + 1 < count && part->content->size < memory->part_min)
			return err_set(err, ERR_CONFLICT, "part %u is too small", parts[i].number);
		size += part->content->size;
	}
	content = content_new(size);
	if (!content)
		return no_memory(err);
	size = 0;
	for (size_t i = 0; i < count; i++) {
		const struct content *part = stated_part(upload, &parts[i])->content;

		memcpy(content->bytes + size, part->bytes, part->size);
		size += part->size;
	}
	*ret_content = content;
	return 0;
}

static char *joined_etag(const struct upload_part *parts, size_t count)
{
	AUTO_BUF sums = BUF_INIT;
	uint8_t sum[MD5_SIZE];
	char hex[2 * MD5_SIZE + 1];
	char *etag;

	for (size_t i = 0; i < count; i++) {
		if (hex_decode(parts[i].etag, MD5_SIZE, sum))
			return NULL;
		buf_add(&sums, sum, sizeof(sum));
	}
	if (buf_failed(&sums))
		return NULL;
	md5_of(sums.data, sums.len, sum);
	hex_encode(sum, sizeof(sum), hex);
	return asprintf(&etag, "%s-%zu", hex, count) < 0 ? NULL : etag;
}

static int memory_upload_complete(struct backend *backend, const struct call *call, const struct put_request *request,
				  const char *upload_id, const struct upload_part *parts, size_t count,
				  struct object_info *ret_info, struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct put_request put = *request;
	struct upload *upload = NULL;
	struct upload **link;
	struct content *content = NULL;
	AUTO_FREE char *etag = NULL;
	int rc = check_call(memory, call, err);

	if (rc)
		return rc;
	/* Out of the store while it is joined: a second completion of it finds nothing, as with S3. */
	lock_acquire(&memory->store->lock);
	rc = upload_find(memory, request->key, upload_id, &link, err);
	if (!rc) {
		upload = *link;
		*link = upload->next;
	}
	lock_release(&memory->store->lock);
	if (rc)
		return rc;
	rc = join_parts(memory, upload, parts, count, &content, err);
	if (rc)
		goto out;
	content_seal(content);
	etag = joined_etag(parts, count);
	put.meta = &upload->meta;
	put.storage_class = upload->storage_class;
	put.content_type = upload->content_type;
	if (!etag)
		rc = no_memory(err);
	else if (request->has_crc32c && request->crc32c != content->crc32c)
		rc = err_set(err, ERR_CORRUPT, "the parts of %s do not have the CRC-32C stated", request->key);
	else
		rc = check_put(memory, &put, err);
	if (!rc)
		rc = store_content(memory, &put, content_use(content), etag, ret_info, err);
out:
	content_drop(content);
	if (!rc) {
		upload_free(upload);
		return 0;
	}
	lock_acquire(&memory->store->lock);
	upload->next = memory->store->uploads;
	memory->store->uploads = upload;
	lock_release(&memory->store->lock);
	return rc;
}

static int memory_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			       struct err *err)
{
	struct memory *memory = memory_of(backend);
	struct upload *upload = NULL;
	struct upload **link;
	int rc = check_call(memory, call, err);

	if (rc)
		return rc;
	lock_acquire(&memory->store->lock);
	rc = upload_find(memory, key, upload_id, &link, err);
	if (!rc) {
		upload = *link;
		*link = upload->next;
	}
	lock_release(&memory->store->lock);
	if (!rc)
		upload_free(upload);
	return rc;
}

/* --- opening
 * -------------------------------------------------------------------------------------------------------------- */

/* The store of that name, made when there is none. */
static struct store *store_named(const char *name)
{
	struct store *store;

	LOCK_GUARD(&stores_lock);
	for (store = stores; store; store = store->next)
		if (strcmp(store->name, name) == 0)
			return store;
	store = calloc(1, sizeof(*store));
	if (!store || copy_string(name, &store->name)) {
		free(store);
		return NULL;
	}
	lock_init(&store->lock, LOCK_BACKEND);
	store->next = stores;
	stores = store;
	return store;
}

static int apply_number(struct memory *memory, const char *name, uint64_t value)
{
	static const struct {
		const char *name;
		enum backend_capability capability;
	} switches[] = {
		{"versions", BACKEND_VERSIONS},   {"if_none_match", BACKEND_IF_NONE_MATCH},
		{"if_match", BACKEND_IF_MATCH},   {"remove_if_match", BACKEND_REMOVE_IF_MATCH},
		{"copy", BACKEND_COPY},           {"part_copy", BACKEND_PART_COPY},
		{"multipart", BACKEND_MULTIPART}, {"crc32c", BACKEND_CRC32C},
	};

	for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
		if (strcmp(name, switches[i].name) != 0)
			continue;
		if (value > 1)
			return -EINVAL;
		if (value)
			memory->capabilities |= switches[i].capability;
		else
			memory->capabilities &= ~(uint32_t)switches[i].capability;
		return 0;
	}
	if (strcmp(name, "part_min") == 0)
		memory->part_min = value;
	else if (strcmp(name, "page") == 0 && value > 0)
		memory->page = value;
	else
		return -EINVAL;
	return 0;
}

/* "name=number&name=number", cut up in place. */
static int apply_options(struct memory *memory, char *options)
{
	char *option;

	while ((option = strsep(&options, "&"))) {
		char *value = strchr(option, '=');
		char *end;
		unsigned long long number;
		int rc;

		if (!value)
			return -EINVAL;
		*value++ = '\0';
		number = strtoull(value, &end, 10);
		rc = end == value || *end ? -EINVAL : apply_number(memory, option, number);
		if (rc)
			return rc;
	}
	return 0;
}

static int memory_open(const struct backend_options *options, struct backend **ret_backend, struct err *err)
{
	AUTO_FREE char *name = NULL;
	struct memory *memory;
	char *query;
	int rc;

	if (strncmp(options->url, SCHEME, strlen(SCHEME)) != 0 || options->url[strlen(SCHEME)] == '\0')
		return err_set(err, ERR_CONFIGURATION, "%s: a store in memory is named as " SCHEME "name",
			       options->url);
	name = strdup(options->url + strlen(SCHEME));
	memory = calloc(1, sizeof(*memory));
	if (!name || !memory) {
		free(memory);
		return no_memory(err);
	}
	memory->ops = &memory_backend_ops;
	memory->create = options->create && !options->read_only;
	memory->part_min = UINT64_C(5) << 20;
	memory->page = 1000;
	memory->capabilities = BACKEND_VERSIONS | BACKEND_IF_NONE_MATCH | BACKEND_IF_MATCH | BACKEND_REMOVE_IF_MATCH |
			       BACKEND_COPY | BACKEND_PART_COPY | BACKEND_MULTIPART | BACKEND_CRC32C |
			       BACKEND_META_NAMES;
	query = strchr(name, '?');
	if (query)
		*query++ = '\0';
	rc = query ? apply_options(memory, query) : 0;
	if (rc) {
		free(memory);
		return err_set(err, ERR_CONFIGURATION, "%s: unknown option or value", options->url);
	}
	memory->store = store_named(name);
	if (!memory->store || asprintf(&memory->description, SCHEME "%s", name) < 0) {
		free(memory);
		return no_memory(err);
	}
	*ret_backend = (struct backend *)memory;
	return 0;
}

static void memory_close(struct backend *backend)
{
	struct memory *memory = memory_of(backend);

	free(memory->description);
	free(memory);
}

static int memory_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info,
			struct err *err)
{
	struct memory *memory = memory_of(backend);
	int rc = check_call(memory, call, err);

	if (rc)
		return rc;
	lock_acquire(&memory->store->lock);
	if (memory->create)
		memory->store->exists = true;
	rc = check_exists(memory, err);
	lock_release(&memory->store->lock);
	if (rc)
		return rc;
	*ret_info = (struct backend_info){
		.capabilities = memory->capabilities,
		.limits =
			{
				.max_object = OBJECT_MAX,
				.max_put = UINT64_C(5) << 30,
				.max_copy = UINT64_C(5) << 30,
				.min_part = memory->part_min,
				.max_part = UINT64_C(5) << 30,
				.max_parts = PARTS_MAX,
				.max_key = KEY_MAX,
				.max_meta = META_MAX,
			},
		.description = memory->description,
	};
	return 0;
}

static const struct backend_counters *memory_counters(struct backend *backend)
{
	return &memory_of(backend)->counters;
}

void memory_forget(const char *name)
{
	struct store *store = store_named(name);

	if (!store)
		return;
	LOCK_GUARD(&store->lock);
	while (store->count > 0)
		entry_drop(store, &store->entries[store->count - 1]);
	while (store->uploads) {
		struct upload *upload = store->uploads;

		store->uploads = upload->next;
		upload_free(upload);
	}
	free(store->entries);
	store->entries = NULL;
	store->cap = 0;
	store->exists = false;
}

const struct backend_ops memory_backend_ops = {
	.abi = VARVE_BACKEND_ABI,
	.name = "memory",
	.schemes = "memory",
	.open = memory_open,
	.close = memory_close,
	.probe = memory_probe,
	.head = memory_head,
	.get = memory_get,
	.put = memory_put,
	.copy = memory_copy,
	.remove = memory_remove,
	.list = memory_list,
	.upload_begin = memory_upload_begin,
	.upload_part = memory_upload_part,
	.upload_part_copy = memory_upload_part_copy,
	.upload_complete = memory_upload_complete,
	.upload_abort = memory_upload_abort,
	.counters = memory_counters,
};
