/*
 * gone.c - what the store has no more, and walks over all we believe it has.
 *
 * A version ends here for want of copies, as by pruning for want of need: it is
 * CAT_EXPIRED, shown nowhere, and its number is never used again. The name that
 * showed it is the listing's affair (adopt.c), which knows what is there instead.
 *
 * Threads: any.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/catalog_internal.h"

/* --- gone --------------------------------------------------------------------------------------- */

struct going {
	const struct cat_gone *gone;
	struct cat_gone_effect effect;
	struct cat_copy copy; /* key NULL: not found */
};

static int take_copy(void *arg, const struct cat_copy *copy)
{
	struct going *going = arg;
	const struct cat_gone *gone = going->gone;

	if (strcmp(copy->key, gone->key) != 0 ||
	    !cat_same_object(copy->native_id, copy->etag, gone->native_id, gone->etag))
		return 0;
	going->copy = *copy;
	going->copy.key = strdup(copy->key);
	going->copy.native_id = copy->native_id ? strdup(copy->native_id) : NULL;
	going->copy.etag = copy->etag ? strdup(copy->etag) : NULL;
	going->copy.storage_class = copy->storage_class ? strdup(copy->storage_class) : NULL;
	return going->copy.key && (going->copy.native_id || !copy->native_id) && (going->copy.etag || !copy->etag)
		       ? 1
		       : -ENOMEM;
}

static int find_copy(struct cat_txn *txn, struct going *going)
{
	int rc;

	cat_copy_clear(&going->copy);
	rc = cat_copy_each(txn, going->gone->ino, going->gone->seq, take_copy, going);
	return rc < 0 ? rc : rc == 1 ? 0 : -ENOENT;
}

static int first_name(void *arg, const struct cat_name *name)
{
	struct cat_gone_effect *effect = arg;

	effect->parent = name->parent;
	cat_name_set(effect->name, name->name);
	return 1;
}

/* The key's record says that the object is there: only a live name's is left, for the listing to see the difference. */
static int drop_record(struct cat_txn *txn, const struct going *going)
{
	const struct cat_copy *copy = &going->copy;
	struct cat_key record;
	int rc = cat_key_get(txn, copy->backend, copy->key, &record);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (record.ino == copy->ino && record.seq == copy->seq &&
	    cat_same_object(record.native_id, record.etag, copy->native_id, copy->etag))
		rc = cat_key_delete(txn, copy->backend, copy->key);
	cat_key_clear(&record);
	return rc;
}

int cat_expire_uncopied(struct cat_txn *txn, uint64_t ino, uint64_t seq, bool *ret_expired)
{
	struct cat_version version;
	struct cat_copy other;
	int rc = cat_version_get(txn, ino, seq, &version);

	*ret_expired = false;
	if (rc < 0 || version.state != CAT_STORED)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_copy_get(txn, version.ino, version.seq, &other);
	if (rc == 0)
		cat_copy_clear(&other);
	if (rc != -ENOENT)
		return rc;
	version.state = CAT_EXPIRED;
	*ret_expired = true;
	return cat_version_put(txn, &version);
}

static int gone_closure(struct cat_txn *txn, void *arg)
{
	struct going *going = arg;
	struct cat_inode inode;
	int rc = find_copy(txn, going);

	going->effect = (struct cat_gone_effect){.dropped = rc == 0};
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_inode_get(txn, going->gone->ino, &inode);
	if (rc == 0 && inode.version == going->gone->seq && inode.nlink)
		rc = cat_link_each(txn, inode.ino, first_name, &going->effect);
	if (rc >= 0 && !going->effect.parent)
		rc = drop_record(txn, going);
	if (rc >= 0)
		rc = cat_copy_drop(txn, going->copy.ino, going->copy.seq, going->copy.key, going->copy.native_id);
	return rc < 0 ? rc : cat_expire_uncopied(txn, going->gone->ino, going->gone->seq, &going->effect.expired);
}

int catalog_gone(struct catalog *catalog, const struct cat_gone *gone, struct cat_gone_effect *ret_effect)
{
	struct going going = {.gone = gone};
	int rc = catalog_update(catalog, gone_closure, &going);

	cat_copy_clear(&going.copy);
	if (rc == 0)
		*ret_effect = going.effect;
	return rc;
}

/* --- directories -------------------------------------------------------------------------------- */

struct unmarked {
	uint64_t dir;
	int64_t since_ns;
};

static int marker_closure(struct cat_txn *txn, void *arg)
{
	const struct unmarked *unmarked = arg;
	AUTO_BUF key = BUF_INIT;
	struct cat_inode inode;
	int rc = cat_dir_get(txn, unmarked->dir, &inode);

	if (rc < 0 || inode.ctime >= unmarked->since_ns)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_jobs_on_inode(txn, inode.ino);
	if (rc == 0)
		rc = cat_key_of(txn, inode.ino, &key);
	if (rc == 0)
		rc = buf_failed(&key) ? -ENOMEM : cat_jobs_on_key(txn, key.data);
	if (rc)
		return rc < 0 ? rc : 0;
	buf_addc(&key, '/');
	return buf_failed(&key) ? -ENOMEM : cat_key_delete(txn, 0, key.data);
}

int catalog_marker_gone(struct catalog *catalog, uint64_t dir, int64_t since_ns)
{
	return catalog_update(catalog, marker_closure, &(struct unmarked){.dir = dir, .since_ns = since_ns});
}

/* --- a name for it ------------------------------------------------------------------------------ */

struct naming {
	struct going going;
	const char *native_id;
};

static int named_closure(struct cat_txn *txn, void *arg)
{
	struct naming *naming = arg;
	struct cat_copy named;
	struct cat_key record;
	int rc = find_copy(txn, &naming->going);

	if (rc < 0 || naming->going.copy.native_id)
		return rc == -ENOENT ? 0 : rc;
	named = naming->going.copy;
	named.native_id = (char *)naming->native_id; /* borrowed: only encoded */
	rc = cat_copy_replace(txn, &naming->going.copy, &named);
	if (rc == 0)
		rc = cat_key_get(txn, named.backend, named.key, &record);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (!record.native_id && record.ino == named.ino && record.seq == named.seq) {
		record.native_id = named.native_id;
		rc = cat_key_put(txn, named.key, &record);
		record.native_id = NULL;
	}
	cat_key_clear(&record);
	return rc;
}

int catalog_copy_named(struct catalog *catalog, const struct cat_gone *copy, const char *native_id)
{
	struct naming naming = {.going = {.gone = copy}, .native_id = native_id};
	int rc = catalog_update(catalog, named_closure, &naming);

	cat_copy_clear(&naming.going.copy);
	return rc;
}

/* --- conflicts ------------------------------------------------------------------------------------ */

static int conflict_closure(struct cat_txn *txn, void *arg)
{
	const struct cat_gone *which = arg;
	struct cat_version version;
	int rc = cat_version_get(txn, which->ino, which->seq, &version);

	if (rc < 0 || version.origin == CAT_ORIGIN_SUSPECT)
		return rc;
	version.origin = CAT_ORIGIN_CONFLICT;
	return cat_version_put(txn, &version);
}

int catalog_conflict(struct catalog *catalog, uint64_t ino, uint64_t seq)
{
	return catalog_update(catalog, conflict_closure, &(struct cat_gone){.ino = ino, .seq = seq});
}

/* --- walks ---------------------------------------------------------------------------------------- */

_Static_assert(sizeof(((struct cat_cursor *)0)->at) >= KV_KEY_MAX + 1, "a cursor holds any key");

struct walk {
	struct cat_cursor *cursor;
	enum schema_tag tag;
	size_t max, seen;
	cat_copy_visit copy;
	cat_key_visit key;
	void *arg;
};

static int walk_copy(const struct walk *walk, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_copy copy;
	int rc = cat_check_row(key, schema_decode_copy(key, value, &copy));

	if (rc < 0)
		return rc;
	if (copy.state == CAT_STORED)
		rc = walk->copy(walk->arg, &copy);
	cat_copy_clear(&copy);
	return rc;
}

static int walk_key(const struct walk *walk, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_key record;
	char *object_key;
	int rc = cat_check_row(key, schema_decode_key(key, value, &record, &object_key));

	if (rc < 0)
		return rc;
	rc = walk->key(walk->arg, object_key, &record);
	free(object_key);
	cat_key_clear(&record);
	return rc;
}

static int walk_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct walk *walk = arg;

	memcpy(walk->cursor->at, key.data, key.len);
	walk->cursor->at[key.len] = 0; /* the least key after it */
	walk->cursor->len = key.len + 1;
	walk->seen++;
	return walk->tag == SCHEMA_COPY ? walk_copy(walk, key, value) : walk_key(walk, key, value);
}

static int walk_closure(struct cat_txn *txn, void *arg)
{
	struct walk *walk = arg;
	struct schema_key from, to;
	int rc;

	schema_key_begin(&from, walk->tag);
	schema_key_after(&to, &from);
	if (walk->cursor->len) {
		from.len = 0;
		schema_key_bytes(&from, walk->cursor->at, walk->cursor->len);
	}
	walk->seen = 0;
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, walk->max, walk_row, walk);
	if (rc == 0 && walk->seen < walk->max)
		walk->cursor->done = true;
	return rc;
}

int catalog_copies(struct catalog *catalog, struct cat_cursor *cursor, size_t max, cat_copy_visit visit, void *arg)
{
	struct walk walk = {.cursor = cursor, .tag = SCHEMA_COPY, .max = max, .copy = visit, .arg = arg};

	return catalog_view(catalog, walk_closure, &walk);
}

int catalog_keys(struct catalog *catalog, struct cat_cursor *cursor, size_t max, cat_key_visit visit, void *arg)
{
	struct walk walk = {.cursor = cursor, .tag = SCHEMA_KEY, .max = max, .key = visit, .arg = arg};

	return catalog_view(catalog, walk_closure, &walk);
}
