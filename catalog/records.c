/*
 * records.c - single records inside a closure: get, put, visit, with the
 * indexes that belong to each (dirty mark, place of a copy, jobs by inode and
 * key), and the object key of a name.
 *
 * Invariants
 *  1. DIRTY(ino) exists exactly when the inode record has CAT_DIRTY.
 *  2. JOB_INODE and, for a job with a key, JOB_KEY exist exactly when JOB does.
 *  3. A copy that was added has a PLACE record, which names the newest version
 *     stored at that place.
 *
 * Threads: each cat_txn belongs to its closure.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "cleanup.h"
#include "escape.h"
#include "log.h"

void cat_copy_clear(struct cat_copy *copy)
{
	free(copy->key);
	free(copy->native_id);
	free(copy->etag);
	free(copy->storage_class);
	*copy = (struct cat_copy){0};
}

void cat_key_clear(struct cat_key *key)
{
	free(key->native_id);
	free(key->etag);
	*key = (struct cat_key){0};
}

void cat_job_clear(struct cat_job *job)
{
	free(job->key);
	free(job->note);
	free(job->sent);
	*job = (struct cat_job){0};
}

void cat_extent_clear(struct cat_extent *extent)
{
	ranges_free(&extent->present);
	ranges_free(&extent->dirty);
	*extent = (struct cat_extent){0};
}

/* --- inodes ------------------------------------------------------------------------------------- */

int cat_inode_get(struct cat_txn *txn, uint64_t ino, struct cat_inode *ret_inode)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_number(&key, SCHEMA_INODE, ino);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc;
	return cat_check_row(schema_bytes(&key), schema_decode_inode(schema_bytes(&key), value, ret_inode));
}

static int dirty_mark(struct cat_txn *txn, uint64_t ino, uint32_t flags)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_number(&key, SCHEMA_DIRTY, ino);
	rc = cat_get(txn, &key, &value);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (flags & CAT_DIRTY)
		return rc == 0 ? 0 : cat_put_empty(txn, &key);
	return rc == 0 ? cat_delete(txn, &key) : 0;
}

int cat_inode_put(struct cat_txn *txn, const struct cat_inode *inode)
{
	struct buf *value;
	struct schema_key key;
	int rc = 0;

	if (S_ISREG(inode->mode))
		rc = dirty_mark(txn, inode->ino, inode->flags);
	if (rc < 0)
		return rc;
	value = cat_scratch(txn);
	schema_key_number(&key, SCHEMA_INODE, inode->ino);
	schema_encode_inode(inode, value);
	return cat_put(txn, &key, value);
}

/* --- names -------------------------------------------------------------------------------------- */

int cat_name_get(struct cat_txn *txn, uint64_t parent, const char *name, struct cat_name *ret_name)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc = cat_name_check(name);

	if (rc < 0)
		return rc == -EINVAL ? -ENOENT : rc;
	schema_key_named(&key, SCHEMA_NAME, parent, name);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc;
	return cat_check_row(schema_bytes(&key), schema_decode_name(schema_bytes(&key), value, ret_name));
}

/* The name a LINK row stands for. */
static int link_name(struct cat_txn *txn, struct kv_bytes key, struct kv_bytes value, struct cat_name *ret_name)
{
	struct schema_parts parts;
	char name[CAT_NAME_MAX + 1];
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = schema_decode_filename(value, name);
	if (rc < 0)
		return cat_check_row(key, rc);
	rc = cat_name_get(txn, parts.third, name, ret_name);
	if (rc == -ENOENT) /* a link without its name: the catalog contradicts itself */
		rc = cat_check_row(key, -EBADMSG);
	return rc;
}

int cat_link_each(struct cat_txn *txn, uint64_t ino, cat_link_visit visit, void *arg)
{
	struct schema_key prefix;
	struct kv_bytes key, value;
	struct cat_name name;
	struct rows rows;
	int rc;

	schema_key_number(&prefix, SCHEMA_LINK, ino);
	rows_open(&rows, &prefix, KV_FORWARD);
	rows.batch = 64;
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		rc = link_name(txn, key, value, &name);
		if (rc == 0)
			rc = visit(arg, &name);
		if (rc)
			break;
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

static int take_name(void *arg, const struct cat_name *name)
{
	*(struct cat_name *)arg = *name;
	return 1;
}

int cat_first_name(struct cat_txn *txn, uint64_t ino, struct cat_name *ret_name)
{
	int rc = cat_link_each(txn, ino, take_name, ret_name);

	return rc == 1 ? 0 : rc ? rc : -ENOENT;
}

struct first_link {
	uint64_t parent;
	char name[CAT_NAME_MAX + 1];
};

static int take_first_link(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct first_link *link = arg;
	struct schema_parts parts;
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = schema_decode_filename(value, link->name);
	if (rc < 0)
		return cat_check_row(key, rc);
	link->parent = parts.third;
	return 1;
}

static int first_link_of(struct cat_txn *txn, uint64_t ino, struct first_link *ret_link)
{
	struct schema_key from, to;
	int rc;

	schema_key_number(&from, SCHEMA_LINK, ino);
	schema_key_after(&to, &from);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 1, take_first_link, ret_link);
	if (rc < 0)
		return rc;
	return rc == 1 ? 0 : -ENOENT;
}

int cat_component_put(struct cat_txn *txn, uint64_t parent, const char *name, const char *component)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_named(&key, SCHEMA_COMPONENT, parent, name);
	schema_encode_blob(component, strlen(component), value);
	return cat_put(txn, &key, value);
}

int cat_component_of(struct cat_txn *txn, uint64_t parent, const char *name, struct buf *ret_component)
{
	size_t before = ret_component->len;
	struct schema_key key;
	struct kv_bytes value, blob;
	int rc = escape_decode(name, strlen(name), ret_component);

	if (rc == 0)
		return buf_failed(ret_component) ? -ENOMEM : 0;
	ret_component->len = before;
	schema_key_named(&key, SCHEMA_COMPONENT, parent, name);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc == -ENOENT ? -EINVAL : rc;
	rc = cat_check_row(schema_bytes(&key), schema_decode_blob(value, &blob));
	if (rc == 0)
		buf_add(ret_component, blob.data, blob.len);
	if (rc == 0 && buf_failed(ret_component))
		rc = -ENOMEM;
	return rc;
}

/* The components from the name up to the root, found leaf first, are written root first. */
int cat_key_of_name(struct cat_txn *txn, uint64_t parent, const char *name, struct buf *ret_key)
{
	AUTO_BUF reversed = BUF_INIT; /* components, each followed by its length */
	struct first_link link = {.parent = parent};
	size_t at;
	int rc, depth;

	memccpy(link.name, name, '\0', sizeof(link.name));
	link.name[CAT_NAME_MAX] = '\0';
	for (depth = 0; depth < CAT_DEPTH_MAX; depth++) {
		size_t start = reversed.len;

		rc = cat_component_of(txn, link.parent, link.name, &reversed);
		if (rc < 0)
			return rc;
		buf_add_u64(&reversed, reversed.len - start);
		if (link.parent == CAT_ROOT_INO)
			break;
		rc = first_link_of(txn, link.parent, &link);
		if (rc < 0)
			return rc;
	}
	if (depth == CAT_DEPTH_MAX) {
		log_error("catalog", "directory %llu is its own ancestor", (unsigned long long)parent);
		return -EBADMSG;
	}
	if (buf_failed(&reversed))
		return -ENOMEM;
	for (at = reversed.len; at > 0;) {
		struct cursor cursor = cursor_of(reversed.data + at - 8, 8);
		size_t len = (size_t)cursor_u64(&cursor);

		at -= 8 + len;
		buf_add(ret_key, reversed.data + at, len);
		if (at > 0)
			buf_addc(ret_key, '/');
	}
	return buf_failed(ret_key) ? -ENOMEM : 0;
}

int cat_key_of(struct cat_txn *txn, uint64_t ino, struct buf *ret_key)
{
	struct first_link link;
	int rc;

	if (ino == CAT_ROOT_INO)
		return 0;
	rc = first_link_of(txn, ino, &link);
	return rc ? rc : cat_key_of_name(txn, link.parent, link.name, ret_key);
}

/* --- versions ----------------------------------------------------------------------------------- */

uint32_t cat_identity_own(const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t seq)
{
	uint8_t bytes[CAT_FILE_ID_SIZE + 8], digest[SHA256_SIZE];
	struct cursor at;

	memcpy(bytes, file_id, CAT_FILE_ID_SIZE);
	for (int i = 0; i < 8; i++)
		bytes[CAT_FILE_ID_SIZE + i] = (uint8_t)(seq >> (56 - 8 * i));
	sha256_of(bytes, sizeof(bytes), digest);
	at = cursor_of(digest, 4);
	return cursor_u32(&at);
}

uint32_t cat_identity_foreign(const char *key, const char *native_id)
{
	AUTO_BUF bytes = BUF_INIT;
	uint8_t digest[SHA256_SIZE];
	struct cursor at;

	buf_adds(&bytes, key);
	buf_addc(&bytes, '\0');
	if (native_id)
		buf_adds(&bytes, native_id);
	sha256_of(bytes.data, bytes.len, digest);
	at = cursor_of(digest, 4);
	return cursor_u32(&at);
}

int cat_version_get(struct cat_txn *txn, uint64_t ino, uint64_t seq, struct cat_version *ret_version)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_pair(&key, SCHEMA_VERSION_RECORD, ino, seq);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc;
	return cat_check_row(schema_bytes(&key), schema_decode_version(schema_bytes(&key), value, ret_version));
}

int cat_version_put(struct cat_txn *txn, const struct cat_version *version)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_pair(&key, SCHEMA_VERSION_RECORD, version->ino, version->seq);
	schema_encode_version(version, value);
	return cat_put(txn, &key, value);
}

int cat_version_each(struct cat_txn *txn, uint64_t ino, uint64_t from, uint64_t to, cat_version_visit visit, void *arg)
{
	struct cat_version version;
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	int rc;

	if (from > to)
		return 0;
	schema_key_number(&prefix, SCHEMA_VERSION_RECORD, ino);
	rows_open(&rows, &prefix, KV_FORWARD);
	schema_key_pair(&rows.from, SCHEMA_VERSION_RECORD, ino, from);
	if (to < UINT64_MAX)
		schema_key_pair(&rows.to, SCHEMA_VERSION_RECORD, ino, to + 1);
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		rc = cat_check_row(key, schema_decode_version(key, value, &version));
		if (rc == 0)
			rc = visit(arg, &version);
		if (rc)
			break;
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

static int take_version(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	int rc = cat_check_row(key, schema_decode_version(key, value, arg));

	return rc ? rc : 1;
}

int cat_version_at(struct cat_txn *txn, uint64_t ino, uint64_t at, struct cat_version *ret_version)
{
	struct schema_key from, to;
	int rc;

	schema_key_pair(&from, SCHEMA_VERSION_RECORD, ino, 0);
	schema_key_pair(&to, SCHEMA_VERSION_RECORD, ino, at);
	schema_key_u8(&to, 0); /* inclusive */
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 1, take_version, ret_version);
	if (rc < 0)
		return rc;
	return rc == 1 ? 0 : -ENOENT;
}

/* --- copies ------------------------------------------------------------------------------------- */

/* A suspended bucket gives "null" to one object after the other. */
static bool is_own_id(const char *native_id)
{
	return native_id && strcmp(native_id, "null") != 0;
}

const char *cat_object_id(const char *native_id, const char *etag)
{
	if (is_own_id(native_id))
		return native_id;
	return etag ? etag : native_id ? native_id : "";
}

bool cat_same_object(const char *native_id, const char *etag, const char *other_native_id, const char *other_etag)
{
	if (native_id && other_native_id) {
		if (strcmp(native_id, other_native_id) != 0)
			return false;
		if (is_own_id(native_id) || !etag || !other_etag)
			return true;
	}
	return etag && other_etag && strcmp(etag, other_etag) == 0;
}

static const char *copy_id(const struct cat_copy *copy)
{
	return cat_object_id(copy->native_id, copy->etag);
}

static int copy_put(struct cat_txn *txn, const struct cat_copy *copy)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_copy(&key, copy->ino, copy->seq, copy->n);
	schema_encode_copy(copy, value);
	return cat_put(txn, &key, value);
}

static int place_put(struct cat_txn *txn, const struct cat_copy *copy)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_place(&key, copy->backend, copy->key, copy_id(copy));
	schema_encode_place(copy->ino, copy->seq, value);
	return cat_put(txn, &key, value);
}

int cat_place_get(struct cat_txn *txn, uint32_t backend, const char *object_key, const char *id, uint64_t *ret_ino,
		  uint64_t *ret_seq)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_place(&key, backend, object_key, id);
	rc = cat_get(txn, &key, &value);
	return rc ? rc : cat_check_row(schema_bytes(&key), schema_decode_place(value, ret_ino, ret_seq));
}

int cat_place_any(struct cat_txn *txn, uint32_t backend, const char *prefix)
{
	struct schema_key key;

	schema_key_place_prefix(&key, backend, prefix);
	return cat_any(txn, &key);
}

int cat_file_find(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t *ret_ino)
{
	struct schema_key key;
	struct kv_bytes value;
	uint64_t none;
	int rc;

	schema_key_file(&key, file_id);
	rc = cat_get(txn, &key, &value);
	return rc ? rc : cat_check_row(schema_bytes(&key), schema_decode_place(value, ret_ino, &none));
}

static int file_put(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t ino)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_file(&key, file_id);
	schema_encode_place(ino, 0, value);
	return cat_put(txn, &key, value);
}

int cat_file_put(struct cat_txn *txn, const struct cat_inode *inode)
{
	struct cat_inode other;
	uint64_t ino;
	int rc = S_ISREG(inode->mode) ? cat_file_find(txn, inode->file_id, &ino) : 0;

	if (!S_ISREG(inode->mode) || (rc < 0 && rc != -ENOENT))
		return rc;
	if (rc == 0 && cat_inode_get(txn, ino, &other) == 0 &&
	    memcmp(other.file_id, inode->file_id, CAT_FILE_ID_SIZE) == 0)
		return 0;
	return file_put(txn, inode->file_id, inode->ino);
}

int cat_file_claim(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t ino)
{
	uint64_t other;
	int rc = cat_file_find(txn, file_id, &other);

	return rc == -ENOENT ? file_put(txn, file_id, ino) : rc;
}

struct copy_search {
	const char *key, *native_id; /* key NULL: any */
	struct cat_copy copy;
};

static int match_copy(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct copy_search *search = arg;
	struct cat_copy copy;
	int rc = cat_check_row(key, schema_decode_copy(key, value, &copy));

	if (rc < 0)
		return rc;
	if (copy.state == CAT_STORED &&
	    (!search->key ||
	     (strcmp(copy.key, search->key) == 0 &&
	      (!search->native_id || (copy.native_id && strcmp(copy.native_id, search->native_id) == 0))))) {
		search->copy = copy;
		return 1;
	}
	cat_copy_clear(&copy);
	return 0;
}

/* The newest stored copy that fits; search->copy is the caller's to clear. */
static int copy_find(struct cat_txn *txn, uint64_t ino, uint64_t seq, struct copy_search *search)
{
	struct schema_key from, to;
	int rc;

	schema_key_pair(&from, SCHEMA_COPY, ino, seq);
	schema_key_after(&to, &from);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 0, match_copy, search);
	if (rc < 0)
		return rc;
	return rc == 1 ? 0 : -ENOENT;
}

int cat_copy_get(struct cat_txn *txn, uint64_t ino, uint64_t seq, struct cat_copy *ret_copy)
{
	struct copy_search search = {0};
	int rc = copy_find(txn, ino, seq, &search);

	if (rc == 0)
		*ret_copy = search.copy;
	return rc;
}

struct copy_each {
	cat_copy_visit visit;
	void *arg;
};

static int visit_copy(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	const struct copy_each *each = arg;
	struct cat_copy copy;
	int rc = cat_check_row(key, schema_decode_copy(key, value, &copy));

	if (rc < 0)
		return rc;
	if (copy.state == CAT_STORED)
		rc = each->visit(each->arg, &copy);
	cat_copy_clear(&copy);
	return rc;
}

int cat_copy_each(struct cat_txn *txn, uint64_t ino, uint64_t seq, cat_copy_visit visit, void *arg)
{
	struct copy_each each = {.visit = visit, .arg = arg};
	struct schema_key from, to;

	schema_key_pair(&from, SCHEMA_COPY, ino, seq);
	schema_key_after(&to, &from);
	return kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, visit_copy, &each);
}

static int take_n(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	int rc = cat_check_row(key, schema_parse(key, &parts));

	(void)value;
	if (rc < 0)
		return rc;
	*(uint32_t *)arg = (uint32_t)parts.third + 1;
	return 1;
}

/* A copy of a protected version is not protected until the store was told. */
static int protect_copy(struct cat_txn *txn, const struct cat_copy *copy)
{
	struct cat_job job = {.type = CAT_JOB_LOCK, .ino = copy->ino, .version = copy->seq};
	struct cat_version version;
	int rc = cat_version_get(txn, copy->ino, copy->seq, &version);

	if (rc < 0 || !(version.flags & (CAT_HELD | CAT_RETAINED)))
		return rc == -ENOENT ? 0 : rc;
	version.flags &= ~(uint32_t)CAT_LOCKED;
	rc = cat_version_put(txn, &version);
	return rc ? rc : cat_job_put(txn, &job);
}

int cat_copy_add(struct cat_txn *txn, const struct cat_copy *copy)
{
	struct cat_copy record = *copy;
	struct schema_key from, to;
	int rc;

	record.n = 0;
	schema_key_pair(&from, SCHEMA_COPY, copy->ino, copy->seq);
	schema_key_after(&to, &from);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 1, take_n, &record.n);
	if (rc < 0)
		return rc;
	rc = copy_put(txn, &record);
	if (rc == 0)
		rc = place_put(txn, &record);
	return rc ? rc : protect_copy(txn, &record);
}

/* Removes the place of a copy unless it has become another version's. */
static int place_drop(struct cat_txn *txn, const struct cat_copy *copy)
{
	struct schema_key key;
	uint64_t ino, seq;
	int rc = cat_place_get(txn, copy->backend, copy->key, copy_id(copy), &ino, &seq);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (ino != copy->ino || seq != copy->seq)
		return 0;
	schema_key_place(&key, copy->backend, copy->key, copy_id(copy));
	return cat_delete(txn, &key);
}

int cat_copy_replace(struct cat_txn *txn, const struct cat_copy *before, const struct cat_copy *after)
{
	int rc = place_drop(txn, before);

	if (rc == 0)
		rc = copy_put(txn, after);
	return rc ? rc : place_put(txn, after);
}

int cat_copy_drop(struct cat_txn *txn, uint64_t ino, uint64_t seq, const char *key, const char *native_id)
{
	struct copy_search search = {.key = key, .native_id = native_id};
	int rc = copy_find(txn, ino, seq, &search);

	if (rc < 0)
		return rc;
	search.copy.state = CAT_EXPIRED;
	rc = copy_put(txn, &search.copy);
	if (rc == 0)
		rc = place_drop(txn, &search.copy);
	cat_copy_clear(&search.copy);
	return rc;
}

/* --- keys --------------------------------------------------------------------------------------- */

int cat_key_get(struct cat_txn *txn, uint32_t backend, const char *object_key, struct cat_key *ret_key)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_object(&key, backend, object_key);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc;
	return cat_check_row(schema_bytes(&key), schema_decode_key(schema_bytes(&key), value, ret_key, NULL));
}

int cat_key_put(struct cat_txn *txn, const char *object_key, const struct cat_key *record)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_object(&key, record->backend, object_key);
	schema_encode_key(object_key, record, value);
	return cat_put(txn, &key, value);
}

int cat_key_delete(struct cat_txn *txn, uint32_t backend, const char *object_key)
{
	struct schema_key key;

	schema_key_object(&key, backend, object_key);
	return cat_delete(txn, &key);
}

int cat_key_each(struct cat_txn *txn, uint32_t backend, const char *prefix, cat_key_visit visit, void *arg)
{
	struct kv_bytes key, value;
	struct schema_key first;
	struct rows rows;
	int rc = 0;

	schema_key_object_prefix(&first, backend, prefix);
	rows_open(&rows, &first, KV_FORWARD);
	while (rc == 0) {
		struct cat_key record;
		char *object_key;

		rc = rows_next(&rows, txn, &key, &value);
		if (rc == 0)
			rc = cat_check_row(key, schema_decode_key(key, value, &record, &object_key));
		if (rc)
			break;
		if (strncmp(object_key, prefix, strlen(prefix)) == 0)
			rc = visit(arg, object_key, &record);
		free(object_key);
		cat_key_clear(&record);
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

/* An inode whose object is no key's any more: nobody would find by the key that it is not where its name is. */
static int place_displaced(struct cat_txn *txn, uint64_t ino)
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return inode.nlink ? cat_job_add(txn, CAT_JOB_PLACE, ino, NULL) : 0;
}

int cat_key_overwritten(struct cat_txn *txn, const char *object_key, const struct cat_key *by)
{
	struct cat_copy newest = {0};
	struct cat_key old;
	int rc = cat_key_get(txn, by->backend, object_key, &old);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (old.ino != by->ino)
		rc = place_displaced(txn, old.ino);
	if (rc < 0)
		goto out;
	if (old.kind != CAT_KEY_DATA || old.native_id || by->native_id || (old.ino == by->ino && old.seq == by->seq))
		goto out;
	rc = cat_copy_get(txn, old.ino, old.seq, &newest);
	if (rc == 0 && strcmp(newest.key, object_key) != 0)
		rc = cat_copy_drop(txn, old.ino, old.seq, object_key, NULL);
	if (rc == -ENOENT)
		rc = 0;
	cat_copy_clear(&newest);
out:
	cat_key_clear(&old);
	return rc;
}

/* --- jobs --------------------------------------------------------------------------------------- */

int cat_job_get(struct cat_txn *txn, uint64_t seq, struct cat_job *ret_job)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_number(&key, SCHEMA_JOB, seq);
	rc = cat_get(txn, &key, &value);
	if (rc < 0)
		return rc;
	return cat_check_row(schema_bytes(&key), schema_decode_job(schema_bytes(&key), value, ret_job));
}

static int job_unindex(struct cat_txn *txn, const struct cat_job *job)
{
	struct schema_key key;
	int rc;

	cat_watch_note(txn, job);
	schema_key_pair(&key, SCHEMA_JOB_INODE, job->ino, job->seq);
	rc = cat_delete(txn, &key);
	if (rc < 0 || !job->key)
		return rc;
	schema_key_job_key(&key, job->key, job->seq);
	return cat_delete(txn, &key);
}

static int job_index(struct cat_txn *txn, const struct cat_job *job)
{
	struct schema_key key;
	int rc;

	schema_key_pair(&key, SCHEMA_JOB_INODE, job->ino, job->seq);
	rc = cat_put_empty(txn, &key);
	if (rc < 0 || !job->key)
		return rc;
	schema_key_job_key(&key, job->key, job->seq);
	return cat_put_empty(txn, &key);
}

int cat_job_put(struct cat_txn *txn, struct cat_job *job)
{
	struct cat_job before = {0};
	struct schema_key key;
	struct buf *value;
	int rc = job->seq ? cat_job_get(txn, job->seq, &before) : -ENOENT;

	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (rc == 0) {
		rc = job_unindex(txn, &before);
		cat_job_clear(&before);
	} else {
		txn->jobs_added++;
		rc = 0;
	}
	if (!job->seq)
		job->seq = cat_next_seq(txn);
	if (rc == 0)
		rc = job_index(txn, job);
	if (rc < 0)
		return rc;
	value = cat_scratch(txn);
	schema_key_number(&key, SCHEMA_JOB, job->seq);
	schema_encode_job(job, value);
	return cat_put(txn, &key, value);
}

int cat_job_delete(struct cat_txn *txn, uint64_t seq)
{
	struct cat_job job;
	struct schema_key key;
	int rc = cat_job_get(txn, seq, &job);

	if (rc < 0)
		return rc;
	rc = job_unindex(txn, &job);
	cat_job_clear(&job);
	if (rc < 0)
		return rc;
	txn->jobs_deleted++;
	schema_key_number(&key, SCHEMA_JOB, seq);
	return cat_delete(txn, &key);
}

int cat_job_add(struct cat_txn *txn, enum cat_job_type type, uint64_t ino, const char *key)
{
	struct cat_job job = {.type = type, .ino = ino, .key = (char *)key};

	return cat_job_put(txn, &job);
}

int cat_jobs_on_inode(struct cat_txn *txn, uint64_t ino)
{
	struct schema_key prefix;

	schema_key_number(&prefix, SCHEMA_JOB_INODE, ino);
	return cat_any(txn, &prefix);
}

int cat_jobs_on_key(struct cat_txn *txn, const char *object_key)
{
	struct schema_key prefix;

	schema_key_job_key(&prefix, object_key, 0);
	prefix.len -= 8; /* any seq */
	return cat_any(txn, &prefix);
}

int cat_jobs_beneath(struct cat_txn *txn, const char *prefix)
{
	struct schema_key key;

	schema_key_job_prefix(&key, prefix);
	return cat_any(txn, &key);
}

/* --- cache extents and symlinks ----------------------------------------------------------------- */

int cat_extent_get(struct cat_txn *txn, uint64_t ino, struct cat_extent *ret_extent)
{
	struct schema_key key;
	struct kv_bytes value;
	int rc;

	schema_key_number(&key, SCHEMA_EXTENT, ino);
	rc = cat_get(txn, &key, &value);
	return rc ? rc : cat_check_row(schema_bytes(&key), schema_decode_extent(value, ret_extent));
}

/* The index follows the record: `base` of the one that is there now goes. */
static int unbase(struct cat_txn *txn, const struct schema_key *extent, uint64_t ino)
{
	struct schema_key key;
	struct kv_bytes value;
	uint64_t base;
	int rc = cat_get(txn, extent, &value);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	base = schema_extent_based(value);
	if (!base)
		return 0;
	schema_key_pair(&key, SCHEMA_BASED, base, ino);
	return cat_delete(txn, &key);
}

int cat_extent_put(struct cat_txn *txn, uint64_t ino, const struct cat_extent *extent)
{
	struct schema_key key, based;
	struct buf *value;
	int rc;

	schema_key_number(&key, SCHEMA_EXTENT, ino);
	rc = unbase(txn, &key, ino);
	if (rc == 0 && extent->base_ino) {
		schema_key_pair(&based, SCHEMA_BASED, extent->base, ino);
		rc = cat_put_empty(txn, &based);
	}
	if (rc < 0)
		return rc;
	value = cat_scratch(txn);
	schema_encode_extent(extent, value);
	return cat_put(txn, &key, value);
}

int cat_extent_delete(struct cat_txn *txn, uint64_t ino)
{
	struct schema_key key;
	int rc;

	schema_key_number(&key, SCHEMA_EXTENT, ino);
	rc = unbase(txn, &key, ino);
	return rc ? rc : cat_delete(txn, &key);
}

int cat_is_based_on(struct cat_txn *txn, uint64_t seq)
{
	struct schema_key prefix;

	schema_key_number(&prefix, SCHEMA_BASED, seq);
	return cat_any(txn, &prefix);
}

int cat_symlink_get(struct cat_txn *txn, uint64_t ino, struct buf *ret_target)
{
	struct schema_key key;
	struct kv_bytes value, blob;
	int rc;

	schema_key_number(&key, SCHEMA_SYMLINK, ino);
	rc = cat_get(txn, &key, &value);
	if (rc == 0)
		rc = cat_check_row(schema_bytes(&key), schema_decode_blob(value, &blob));
	if (rc < 0)
		return rc;
	buf_reset(ret_target);
	buf_add(ret_target, blob.data, blob.len);
	return buf_failed(ret_target) ? -ENOMEM : 0;
}

int cat_symlink_put(struct cat_txn *txn, uint64_t ino, const char *target, size_t len)
{
	struct buf *value = cat_scratch(txn);
	struct schema_key key;

	schema_key_number(&key, SCHEMA_SYMLINK, ino);
	schema_encode_blob(target, len, value);
	return cat_put(txn, &key, value);
}
