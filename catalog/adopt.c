/*
 * adopt.c - takes what the store shows into the catalog: listings, HEADs, and
 * versions older than our knowledge.
 *
 * Who is believed
 *  - What we changed and the store does not have yet always wins: a name is left
 *    alone while a job is pending on its inode, its key or a directory above, while
 *    its file is dirty or its version not stored, and when it changed after the
 *    listing was begun.
 *  - Otherwise the store wins. Content is never changed in place: another object
 *    under a known key is a new inode that takes the name.
 *
 * A listing is worked off in updates of at most BATCH names: first the names that
 * vanished, then what was found; `listed_at` is set by the last update only, so
 * that a crash in between just lists again.
 *
 * `a` beside `a/…`: the directory has the name, the file its clash name.
 * Sequence numbers and file ids in metadata are strangers' words: they make the
 * identity of a version and push our counter on, but are never used as keys.
 *
 * Threads: any. `changed` callbacks run between the updates, without locks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "log.h"

#define BATCH 500
#define VANISH_BUDGET 2000 /* names of vanished directories looked at in one update */
#define VANISH_DEPTH 64

struct adopt {
	const struct cat_adopt *request;
	const struct cat_found **sorted; /* by name, files before directories */
	size_t count, next;              /* of sorted; the first not yet adopted */
	char last[CAT_NAME_MAX + 1];     /* the last live name asked whether it vanished; "": none */
	bool names_done;
	/* Of the update that runs: */
	bool was_listed, held; /* held: a directory above is being moved; all names are left alone */
	int64_t oldest;        /* what the listed directory holds cannot have been there before; 0: not known */
	struct buf dir_key;    /* with its '/', or empty for the root */
	int nlink_change;
	bool touched;
	size_t taken; /* how many of `sorted` the update did */
	char reached[CAT_NAME_MAX + 1];
	bool reached_end;
	struct cat_changes changes;
};

/* --- the listing -------------------------------------------------------------------------------- */

static int found_compare(const void *a, const void *b)
{
	const struct cat_found *x = *(const struct cat_found *const *)a, *y = *(const struct cat_found *const *)b;
	int order = strcmp(x->name, y->name);

	return order ? order : x->directory - y->directory;
}

/* A directory's own object, which tells more, before the common prefix of the same name. */
static int found_sort(const void *a, const void *b)
{
	const struct cat_found *x = *(const struct cat_found *const *)a, *y = *(const struct cat_found *const *)b;
	int order = found_compare(a, b);

	return order ? order : (y->etag != NULL) - (x->etag != NULL);
}

static const struct cat_found *listing_find(const struct adopt *adopt, const char *name, bool directory)
{
	struct cat_found wanted = {.name = name, .directory = directory};
	const struct cat_found *key = &wanted;
	const struct cat_found **cell =
		adopt->count ? bsearch(&key, adopt->sorted, adopt->count, sizeof(*adopt->sorted), found_compare) : NULL;

	return cell ? *cell : NULL;
}

/* The listing's name for a live one: a clash name's object is listed under its plain component. */
static int listed_name(struct cat_txn *txn, const struct cat_name *name, struct buf *ret_name)
{
	AUTO_BUF component = BUF_INIT;
	int rc;

	if (!escape_is_clash(name->name, strlen(name->name))) {
		buf_adds(ret_name, name->name);
	} else {
		rc = cat_component_of(txn, name->parent, name->name, &component);
		if (rc < 0)
			return rc;
		(void)escape_component(component.data, component.len, ret_name); /* escaped or not: that is its name */
	}
	return buf_failed(ret_name) ? -ENOMEM : 0;
}

static int found_component(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found,
			   struct buf *ret_component)
{
	if (!found->component)
		return cat_component_of(txn, adopt->request->dir, found->name, ret_component);
	buf_adds(ret_component, found->component);
	return buf_failed(ret_component) ? -ENOMEM : 0;
}

static int clash_name(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found,
		      struct buf *ret_name)
{
	AUTO_BUF component = BUF_INIT;
	int rc = found_component(txn, adopt, found, &component);

	if (rc < 0)
		return rc;
	escape_clash(component.data, component.len, ret_name);
	return buf_failed(ret_name) ? -ENOMEM : 0;
}

/* Only the catalog can tell the component of a digest name. */
static int record_component(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found,
			    const char *name)
{
	AUTO_BUF component = BUF_INIT;
	int rc;

	if (!escape_is_digest(name, strlen(name)))
		return 0;
	rc = found_component(txn, adopt, found, &component);
	return rc ? rc : cat_component_put(txn, adopt->request->dir, name, component.data);
}

static int note_change(struct adopt *adopt, const char *name, uint64_t ino)
{
	adopt->touched = true;
	return cat_change_note(&adopt->changes, adopt->request->dir, name, ino);
}

/* Is a job pending that concerns this key or moves a directory above it? 1, 0, -errno. */
static int held_above(struct cat_txn *txn, const char *dir_key)
{
	AUTO_FREE char *key = strdup(dir_key);
	struct schema_key jobs;
	char *slash;
	int rc;

	if (!key)
		return -ENOMEM;
	schema_key_begin(&jobs, SCHEMA_JOB);
	rc = cat_any(txn, &jobs);
	if (rc <= 0)
		return rc;
	while ((slash = strrchr(key, '/'))) {
		*slash = '\0';
		rc = cat_jobs_on_key(txn, key);
		if (rc)
			return rc;
	}
	return 0;
}

static int adopt_begin(struct cat_txn *txn, struct adopt *adopt)
{
	struct cat_inode dir;
	int rc = cat_dir_get(txn, adopt->request->dir, &dir);

	adopt->changes.count = 0;
	adopt->nlink_change = 0;
	adopt->touched = false;
	adopt->taken = 0;
	buf_reset(&adopt->dir_key);
	if (rc == 0)
		rc = cat_key_of(txn, adopt->request->dir, &adopt->dir_key);
	if (rc < 0)
		return rc;
	if (adopt->dir_key.len)
		buf_addc(&adopt->dir_key, '/');
	if (buf_failed(&adopt->dir_key))
		return -ENOMEM;
	adopt->was_listed = dir.flags & CAT_LISTED;
	adopt->oldest = dir.ino == CAT_ROOT_INO ? 0 : dir.btime; /* the root was there before us */
	rc = held_above(txn, adopt->dir_key.data);
	adopt->held = rc == 1;
	return rc < 0 ? rc : 0;
}

static int adopt_end(struct cat_txn *txn, const struct adopt *adopt)
{
	struct cat_inode dir;
	int rc;

	if (!adopt->touched && !adopt->nlink_change)
		return 0;
	rc = cat_inode_get(txn, adopt->request->dir, &dir);
	if (rc < 0)
		return rc;
	dir.nlink = (uint32_t)((int64_t)dir.nlink + adopt->nlink_change);
	if (adopt->was_listed) /* a first listing only learns what was there all along */
		dir.mtime = dir.ctime = cat_now(txn);
	return cat_inode_put(txn, &dir);
}

/* --- what may be touched ------------------------------------------------------------------------ */

/* When the object that we know at a key got there; 0: not known. */
static int stored_at(struct cat_txn *txn, const struct cat_key *record, int64_t *ret_ns)
{
	struct cat_copy copy;
	int rc = record->seq ? cat_copy_get(txn, record->ino, record->seq, &copy) : -ENOENT;

	if (rc < 0 && rc != -ENOENT)
		return rc;
	*ret_ns = 0;
	if (rc == 0) {
		*ret_ns = copy.stored_ns;
		cat_copy_clear(&copy);
	}
	return 0;
}

/* May the store's word change this live name? 1, 0, -errno. */
static int is_settled(struct cat_txn *txn, const struct adopt *adopt, const struct cat_name *name)
{
	struct cat_version version;
	struct cat_inode inode;
	int rc;

	if (name->since_ns >= adopt->request->listed_at)
		return 0;
	rc = cat_jobs_on_inode(txn, name->ino);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_inode_get(txn, name->ino, &inode);
	if (rc < 0)
		return rc;
	if (inode.flags & CAT_DIRTY)
		return 0;
	if (!S_ISREG(inode.mode))
		return 1;
	if (!inode.version)
		return 0;
	rc = cat_version_get(txn, inode.ino, inode.version, &version);
	if (rc < 0)
		return rc;
	return version.state == CAT_STORED || version.state == CAT_EXPIRED;
}

static int take_past(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	int rc = cat_check_row(key, schema_decode_past(key, value, arg));

	return rc ? rc : 1;
}

/* Did a name that is free now end after the listing was begun? 1, 0, -errno. */
static int ended_lately(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found, const char *name)
{
	struct schema_key from, to;
	struct cat_past past;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, adopt->request->dir, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, name, 0);
	schema_key_past(&to, past_dir, name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 1, take_past, &past);
	if (rc <= 0)
		return rc;
	if (past.ended == CAT_HOW_RENAME && escape_is_clash(past.to_name, strlen(past.to_name)))
		return 0; /* by this listing: it made room for the directory that is to come */
	if (past.ended == CAT_HOW_VANISH && S_ISDIR(past.type) != found->directory)
		return 0; /* likewise: others put the one in the other's place */
	return past.until_ns >= adopt->request->listed_at;
}

/* --- vanishing ---------------------------------------------------------------------------------- */

/* The live name ends for a reason the store gave. Where the inode has others, its object may have been at this one's
 * key. */
static int end_name(struct cat_txn *txn, const struct cat_name *name, enum cat_how how, uint64_t until)
{
	struct cat_ending ending = {.how = how, .until = until};
	struct cat_inode inode;
	int rc = cat_inode_get(txn, name->ino, &inode);

	if (rc == 0)
		rc = cat_end(txn, name, &ending);
	if (rc < 0)
		return rc;
	inode.nlink = S_ISDIR(inode.mode) || inode.nlink == 0 ? 0 : inode.nlink - 1;
	inode.ctime = cat_now(txn);
	if (S_ISREG(inode.mode) && inode.nlink == 0)
		inode.flags |= CAT_TAKEN;
	rc = cat_inode_put(txn, &inode);
	return rc == 0 && inode.nlink ? cat_job_add(txn, CAT_JOB_PLACE, inode.ino, NULL) : rc;
}

struct vanish {
	const struct adopt *adopt;
	size_t budget;
	int depth;
};

/* 1: the name ended; 0: it stays. */
static int vanish_file(struct cat_txn *txn, const struct adopt *adopt, const struct cat_name *name, const char *key)
{
	struct cat_key record;
	int64_t stored_ns = 0;
	bool ours;
	int rc = is_settled(txn, adopt, name);

	if (rc <= 0)
		return rc;
	rc = cat_jobs_on_key(txn, key);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_get(txn, 0, key, &record);
	if (rc < 0) /* it never was at this key: that it is missing there says nothing */
		return rc == -ENOENT ? 0 : rc;
	ours = record.ino == name->ino;
	rc = stored_at(txn, &record, &stored_ns);
	cat_key_clear(&record);
	if (rc < 0 || !ours || stored_ns >= adopt->request->listed_at)
		return rc;
	rc = cat_key_delete(txn, 0, key);
	if (rc == 0)
		rc = end_name(txn, name, CAT_HOW_VANISH, cat_next_seq(txn));
	return rc ? rc : 1;
}

static int vanish_dir(struct cat_txn *txn, struct vanish *vanish, const struct cat_name *name, const char *key);

/* One child of a vanished directory. 1: ended; 0: stays. */
static int vanish_child(struct cat_txn *txn, struct vanish *vanish, const struct cat_name *child, const char *dir_key)
{
	AUTO_BUF key = BUF_INIT;
	int rc;

	if (vanish->budget == 0)
		return 0;
	vanish->budget--;
	buf_adds(&key, dir_key);
	buf_addc(&key, '/');
	rc = cat_component_of(txn, child->parent, child->name, &key);
	if (rc == 0 && buf_failed(&key))
		rc = -ENOMEM;
	if (rc < 0)
		return rc;
	if (child->type == S_IFDIR)
		return vanish_dir(txn, vanish, child, key.data);
	return vanish_file(txn, vanish->adopt, child, key.data);
}

/* Removes what can vanish beneath. *ret_ended: how many children did. */
static int vanish_children(struct cat_txn *txn, struct vanish *vanish, const struct cat_name *name, const char *key,
			   size_t *ret_ended)
{
	struct kv_bytes row_key, value;
	struct schema_key prefix;
	struct cat_name child;
	struct rows rows;
	size_t ended = 0;
	int rc = 0;

	schema_key_number(&prefix, SCHEMA_NAME, name->ino);
	rows_open(&rows, &prefix, KV_FORWARD);
	rows.batch = 128;
	while (vanish->budget > 0) {
		rc = rows_next(&rows, txn, &row_key, &value);
		if (rc < 0) {
			rc = rc == -ENOENT ? 0 : rc;
			break;
		}
		rc = cat_check_row(row_key, schema_decode_name(row_key, value, &child));
		if (rc == 0)
			rc = vanish_child(txn, vanish, &child, key);
		if (rc < 0)
			break;
		ended += rc == 1;
	}
	rows_close(&rows);
	if (rc < 0)
		return rc;
	*ret_ended = ended;
	return 0;
}

static int unlist(struct cat_txn *txn, uint64_t ino)
{
	struct cat_inode dir;
	int rc = cat_inode_get(txn, ino, &dir);

	if (rc < 0)
		return rc;
	dir.flags &= ~(uint32_t)CAT_LISTED;
	dir.listed_at = 0;
	return cat_inode_put(txn, &dir);
}

/* 1: the directory is gone with all beneath; 0: something stays, and so does it. */
static int vanish_dir(struct cat_txn *txn, struct vanish *vanish, const struct cat_name *name, const char *key)
{
	AUTO_BUF marker = BUF_INIT;
	size_t ended = 0;
	int rc = is_settled(txn, vanish->adopt, name);

	if (rc == 1) {
		rc = cat_jobs_on_key(txn, key);
		rc = rc < 0 ? rc : !rc;
	}
	if (rc <= 0 || vanish->depth >= VANISH_DEPTH)
		return rc < 0 ? rc : 0;
	vanish->depth++;
	rc = vanish_children(txn, vanish, name, key, &ended);
	vanish->depth--;
	if (rc < 0)
		return rc;
	rc = cat_dir_any(txn, name->ino);
	if (rc == 1) /* looked at again when it is next opened */
		return ended || vanish->budget == 0 ? unlist(txn, name->ino) : 0;
	if (rc < 0)
		return rc;
	buf_adds(&marker, key);
	buf_addc(&marker, '/');
	if (buf_failed(&marker))
		return -ENOMEM;
	rc = cat_key_delete(txn, 0, marker.data);
	if (rc == 0)
		rc = end_name(txn, name, CAT_HOW_VANISH, cat_next_seq(txn));
	if (rc == 0 && vanish->depth > 0)
		rc = cat_dir_touch(txn, name->parent, -1);
	return rc ? rc : 1;
}

/* A live name of the listed directory: ends when the listing does not have it. */
static int vanish_name(struct cat_txn *txn, struct adopt *adopt, struct vanish *vanish, const struct cat_name *name)
{
	AUTO_BUF listed = BUF_INIT;
	AUTO_BUF key = BUF_INIT;
	bool is_dir = name->type == S_IFDIR;
	int rc = listed_name(txn, name, &listed);

	if (rc < 0)
		return rc;
	if (listing_find(adopt, listed.data, is_dir))
		return 0;
	rc = cat_key_of_name(txn, name->parent, name->name, &key);
	if (rc == 0)
		rc = is_dir ? vanish_dir(txn, vanish, name, key.data) : vanish_file(txn, adopt, name, key.data);
	if (rc <= 0)
		return rc;
	adopt->nlink_change -= is_dir;
	return note_change(adopt, name->name, name->ino);
}

static int vanish_closure(struct cat_txn *txn, void *arg)
{
	struct adopt *adopt = arg;
	struct vanish vanish = {.adopt = adopt, .budget = VANISH_BUDGET};
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct cat_name name;
	struct rows rows;
	int rc = adopt_begin(txn, adopt);

	adopt->reached_end = true;
	if (rc < 0 || adopt->held)
		return rc;
	schema_key_number(&prefix, SCHEMA_NAME, adopt->request->dir);
	rows_open(&rows, &prefix, KV_FORWARD);
	if (adopt->last[0]) {
		schema_key_named(&rows.from, SCHEMA_NAME, adopt->request->dir, adopt->last);
		schema_key_u8(&rows.from, 0);
	}
	rows.batch = BATCH;
	adopt->reached_end = false;
	for (size_t i = 0; i < BATCH && rc == 0; i++) {
		rc = rows_next(&rows, txn, &key, &value);
		if (rc == -ENOENT)
			adopt->reached_end = true;
		if (rc == 0)
			rc = cat_check_row(key, schema_decode_name(key, value, &name));
		if (rc == 0) {
			cat_name_set(adopt->reached, name.name);
			rc = vanish_name(txn, adopt, &vanish, &name);
		}
	}
	rows_close(&rows);
	if (rc == -ENOENT)
		rc = 0;
	return rc ? rc : adopt_end(txn, adopt);
}

/* --- newcomers ---------------------------------------------------------------------------------- */

static bool same_string(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

/* A hard link's object tells of its file, not of itself. */
static bool is_link(const struct cat_found *found)
{
	return found->resolved && found->link_id && !found->directory;
}

static bool is_ours(const struct cat_found *found)
{
	return !is_link(found) && found->file_id && found->seq && found->seq < CAT_SEQ_MAX;
}

/* Strangers' metadata gives no privilege: no set-id bits, no device nodes. */
static uint32_t found_mode(const struct cat_found *found, uint32_t fallback)
{
	uint32_t type = found->mode & S_IFMT;
	uint32_t bits = found->resolved && found->mode ? found->mode & 01777 : fallback & 07777;

	if (found->directory)
		return S_IFDIR | bits;
	if (found->resolved && found->target)
		return S_IFLNK | 0777;
	if (found->resolved && (type == S_IFIFO || type == S_IFSOCK))
		return type | bits;
	return S_IFREG | (bits & 0777);
}

static enum cat_key_kind kind_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return CAT_KEY_DATA;
	case S_IFDIR:
		return CAT_KEY_DIRECTORY;
	case S_IFLNK:
		return CAT_KEY_SYMLINK;
	default:
		return CAT_KEY_SPECIAL;
	}
}

/* The facts a found object tells of the version it is; ino, seq and shown_ms are the caller's. */
static void fill_facts(const struct cat_found *found, const struct cat_inode *inode, struct cat_version *version)
{
	bool ours = is_ours(found);

	version->size = found->size;
	version->mtime = found->resolved ? found->mtime : found->modified_ns;
	version->commit_ns = ours && found->commit_ns ? found->commit_ns : found->modified_ns;
	version->identity = ours ? cat_identity_own(found->file_id, found->seq)
				 : cat_identity_foreign(found->key, found->native_id ? found->native_id : found->etag);
	version->mode = inode->mode;
	version->uid = version->author = inode->uid;
	version->gid = inode->gid;
	version->state = CAT_STORED;
	version->origin = ours ? found->origin : CAT_ORIGIN_EXTERNAL;
	if (ours && found->has_author)
		version->author = found->author;
	if (ours && found->has_crc32c) {
		version->crc32c = found->crc32c;
		version->flags |= CAT_HAS_CRC32C;
	}
	if (ours && found->host)
		(void)snprintf(version->host, sizeof(version->host), "%s", found->host); /* cut where it is longer */
}

static void fill_copy(const struct cat_found *found, uint64_t ino, uint64_t seq, struct cat_copy *ret_copy)
{
	*ret_copy = (struct cat_copy){
		.ino = ino,
		.seq = seq,
		.state = CAT_STORED,
		.stored_ns = found->modified_ns,
		.key = (char *)found->key,
		.native_id = (char *)found->native_id,
		.etag = (char *)found->etag,
		.storage_class = (char *)found->storage_class,
	};
}

static int put_key_record(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_key record = {
		.kind = kind_of(inode->mode),
		.ino = inode->ino,
		.seq = S_ISREG(inode->mode) ? inode->version : 0,
		.native_id = (char *)found->native_id,
		.etag = (char *)found->etag,
	};

	/* A common prefix is no object. */
	if (found->directory && !found->etag && !found->native_id && !found->resolved)
		return 0;
	return cat_key_put(txn, found->key, &record);
}

/* The first version of a newly found file, and where it lies. */
static int put_content(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode)
{
	struct cat_version version = {.ino = inode->ino, .seq = cat_next_seq(txn)};
	struct cat_copy copy;
	int rc;

	fill_facts(found, inode, &version);
	version.shown_ms = version.commit_ns / NS_PER_MS;
	fill_copy(found, version.ino, version.seq, &copy);
	if (copy.stored_ns >
	    cat_now(txn)) /* a store's clock that runs ahead must not make it look like news for long */
		copy.stored_ns = cat_now(txn);
	inode->version = version.seq;
	rc = cat_version_put(txn, &version);
	return rc ? rc : cat_copy_add(txn, &copy);
}

static void fill_inode(struct cat_txn *txn, const struct cat_adopt *request, const struct cat_found *found,
		       struct cat_inode *ret_inode)
{
	int64_t mtime = found->resolved ? found->mtime : found->modified_ns;
	bool is_dir = found->directory;

	if (!mtime)
		mtime = cat_now(txn); /* a common prefix has no time */
	*ret_inode = (struct cat_inode){
		.ino = cat_next_ino(txn),
		.mode = found_mode(found, is_dir ? request->dir_mode : request->file_mode),
		.uid = found->resolved ? found->uid : request->uid,
		.gid = found->resolved ? found->gid : request->gid,
		.nlink = is_dir ? 2 : 1,
		.size = is_dir ? 0 : found->size,
		.atime = mtime,
		.mtime = mtime,
		.ctime = found->modified_ns ? found->modified_ns : mtime,
		.btime = mtime,
		.parent = is_dir ? request->dir : 0,
		.flags = found->resolved ? 0 : CAT_UNRESOLVED,
	};
	if (found->file_id && !is_link(found))
		memcpy(ret_inode->file_id, found->file_id, CAT_FILE_ID_SIZE);
	else
		random_bytes(ret_inode->file_id, CAT_FILE_ID_SIZE);
}

/* A found file whose object is a hard link's joins its file, `inode` then is that; others are joined by who waited. */
static int meet_links(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
		      struct cat_changes *changes)
{
	int rc;

	if (!found->resolved || !S_ISREG(inode->mode))
		return 0;
	if (!is_link(found))
		return found->file_id ? cat_links_join(txn, inode, changes) : 0;
	rc = cat_link_found(txn, found->link_id, inode->ino, changes, inode);
	return rc < 0 ? rc : 0;
}

/* A new inode takes `name`; `replaced`, if any, loses it. */
static int put_newcomer(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found, const char *name,
			const struct cat_name *replaced)
{
	struct cat_name bound = {.parent = adopt->request->dir, .how = CAT_HOW_ADOPT, .since_ns = cat_now(txn)};
	struct cat_inode inode;
	int rc = 0;

	fill_inode(txn, adopt->request, found, &inode);
	if (S_ISDIR(inode.mode) && !adopt->was_listed)
		inode.btime = adopt->oldest; /* it may have been there all along; else it came after the last listing */
	if (is_ours(found))
		cat_seq_above(txn, found->seq);
	if (S_ISREG(inode.mode))
		rc = put_content(txn, found, &inode);
	else if (S_ISLNK(inode.mode))
		rc = cat_symlink_put(txn, inode.ino, found->target, inode.size = strlen(found->target));
	if (rc < 0)
		return rc;
	bound.ino = inode.ino;
	bound.type = inode.mode & S_IFMT;
	bound.since = cat_next_seq(txn);
	cat_name_set(bound.name, name);
	if (S_ISDIR(inode.mode))
		rc = cat_dir_goes_on(txn, bound.parent, name, &inode);
	if (rc == 0 && replaced) {
		bound.cookie = replaced->cookie;
		rc = end_name(txn, replaced, CAT_HOW_REPLACE, bound.since);
	}
	if (rc == 0)
		rc = record_component(txn, adopt, found, name);
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = cat_file_put(txn, &inode);
	if (rc == 0)
		rc = cat_bind(txn, &bound);
	if (rc == 0)
		rc = put_key_record(txn, found, &inode);
	if (rc == 0)
		rc = meet_links(txn, found, &inode, &adopt->changes);
	adopt->nlink_change += S_ISDIR(inode.mode);
	if (rc < 0 || !(replaced || adopt->was_listed))
		return rc;
	return note_change(adopt, name, replaced ? replaced->ino : 0);
}

/* --- resolving ---------------------------------------------------------------------------------- */

/* The object turned out to be no plain file: what stood for its content goes. */
int cat_content_drop(struct cat_txn *txn, struct cat_inode *inode)
{
	struct schema_key key;
	struct cat_copy copy;
	int rc = cat_copy_get(txn, inode->ino, inode->version, &copy);

	if (rc == 0) {
		rc = cat_copy_drop(txn, copy.ino, copy.seq, copy.key, copy.native_id);
		schema_key_copy(&key, copy.ino, copy.seq, copy.n);
		if (rc == 0)
			rc = cat_delete(txn, &key);
		cat_copy_clear(&copy);
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	schema_key_pair(&key, SCHEMA_VERSION_RECORD, inode->ino, inode->version);
	inode->version = 0;
	return cat_delete(txn, &key);
}

struct retype {
	struct cat_name names[16];
	size_t count;
};

static int take_link(void *arg, const struct cat_name *name)
{
	struct retype *retype = arg;

	if (retype->count == sizeof(retype->names) / sizeof(retype->names[0]))
		return 1;
	retype->names[retype->count++] = *name;
	return 0;
}

/* A found inode has one name, or a few if hard links were made before it was resolved. */
static int retype_names(struct cat_txn *txn, const struct cat_inode *inode)
{
	struct retype *retype = calloc(1, sizeof(*retype));
	int rc = retype ? cat_link_each(txn, inode->ino, take_link, retype) : -ENOMEM;

	for (size_t i = 0; rc >= 0 && retype && i < retype->count; i++) {
		retype->names[i].type = inode->mode & S_IFMT;
		rc = cat_bind(txn, &retype->names[i]);
	}
	free(retype);
	return rc < 0 ? rc : 0;
}

/* The version and copy of an inode now that its object's metadata is known. */
static int resolve_content(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_version version, before;
	struct cat_copy copy, known;
	int rc = cat_version_get(txn, inode->ino, inode->version, &version);

	if (rc < 0)
		return rc;
	fill_facts(found, inode, &version);
	version.shown_ms = version.commit_ns / NS_PER_MS;
	rc = version.seq ? cat_version_at(txn, inode->ino, version.seq - 1, &before) : -ENOENT;
	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (rc == 0 && version.shown_ms <= before.shown_ms)
		version.shown_ms = before.shown_ms + 1;
	rc = cat_version_put(txn, &version);
	if (rc == 0)
		rc = cat_copy_get(txn, inode->ino, inode->version, &known);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	fill_copy(found, known.ino, known.seq, &copy);
	copy.n = known.n;
	copy.key = known.key; /* stays where it is known to lie */
	copy.stored_ns = known.stored_ns;
	if (!copy.native_id)
		copy.native_id = known.native_id;
	if (!copy.etag)
		copy.etag = known.etag;
	if (!copy.storage_class)
		copy.storage_class = known.storage_class;
	rc = cat_copy_replace(txn, &known, &copy);
	cat_copy_clear(&known);
	return rc;
}

/* Is this still the object the current version was taken from? 0, -ESTALE. */
static int check_same_object(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_version version;
	struct cat_copy copy;
	bool differs;
	int rc = cat_version_get(txn, inode->ino, inode->version, &version);

	if (rc == 0)
		rc = cat_copy_get(txn, inode->ino, inode->version, &copy);
	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	differs = version.size != found->size || strcmp(copy.key, found->key) != 0;
	if ((copy.native_id && found->native_id) || (copy.etag && found->etag))
		differs = differs || !cat_same_object(copy.native_id, copy.etag, found->native_id, found->etag);
	cat_copy_clear(&copy);
	return differs ? -ESTALE : 0;
}

/* Applies a HEAD to an unresolved inode and writes it. *inode may be another afterwards, of which it is a name. */
static int resolve_inode(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
			 struct cat_changes *changes)
{
	uint32_t type = inode->mode & S_IFMT;
	int rc = S_ISREG(type) ? check_same_object(txn, found, inode) : 0;

	if (rc < 0)
		return rc;
	if (S_ISDIR(type) != found->directory)
		return -ESTALE;
	inode->mode = found_mode(found, inode->mode);
	inode->uid = found->uid;
	inode->gid = found->gid;
	if (found->mtime)
		inode->mtime = found->mtime;
	inode->flags &= ~(uint32_t)CAT_UNRESOLVED;
	if (found->file_id && !is_link(found))
		memcpy(inode->file_id, found->file_id, CAT_FILE_ID_SIZE);
	if (is_ours(found))
		cat_seq_above(txn, found->seq);
	if (S_ISREG(inode->mode)) {
		rc = resolve_content(txn, found, inode);
	} else if (S_ISREG(type)) {
		rc = cat_content_drop(txn, inode);
		if (rc == 0 && S_ISLNK(inode->mode))
			rc = cat_symlink_put(txn, inode->ino, found->target, inode->size = strlen(found->target));
		if (rc == 0)
			rc = retype_names(txn, inode);
	}
	if (rc == 0)
		rc = put_key_record(txn, found, inode);
	if (rc == 0)
		rc = cat_inode_put(txn, inode);
	if (rc == 0)
		rc = cat_file_put(txn, inode);
	return rc ? rc : meet_links(txn, found, inode, changes);
}

struct resolve {
	uint64_t ino;
	const struct cat_found *found;
	struct cat_inode inode;
	struct cat_changes changes;
};

static int resolve_closure(struct cat_txn *txn, void *arg)
{
	struct resolve *resolve = arg;
	struct cat_found found = *resolve->found;
	int rc = cat_inode_get(txn, resolve->ino, &resolve->inode);

	resolve->changes.count = 0;
	/* Not unresolved: our own changes since the listing count more than the store's metadata. */
	if (rc < 0 || !(resolve->inode.flags & CAT_UNRESOLVED))
		return rc;
	found.resolved = true;
	return resolve_inode(txn, &found, &resolve->inode, &resolve->changes);
}

int catalog_resolve(struct catalog *catalog, uint64_t ino, const struct cat_found *found,
		    const struct cat_watcher *watcher, struct cat_inode *ret_inode)
{
	struct resolve resolve = {.ino = ino, .found = found};
	int rc = catalog_update(catalog, resolve_closure, &resolve);

	for (size_t i = 0; rc == 0 && watcher && watcher->changed && i < resolve.changes.count; i++) {
		const struct cat_change *change = &resolve.changes.cells[i];

		watcher->changed(watcher->arg, change->parent, change->name, change->ino);
	}
	free(resolve.changes.cells);
	if (rc == 0 && ret_inode)
		*ret_inode = resolve.inode;
	return rc;
}

/* --- one found object --------------------------------------------------------------------------- */

struct meeting {              /* what the catalog has where the object was found */
	struct cat_name name; /* the live name that the object's inode has or would take */
	bool lives;
	struct cat_key record;
	bool recorded;
};

static bool same_object(const struct cat_found *found, const struct cat_key *record)
{
	return cat_same_object(found->native_id, found->etag, record->native_id, record->etag);
}

/* The object is the one we know: only what we did not know of it is added. */
static int meet_known(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found,
		      const struct meeting *meeting)
{
	struct cat_inode inode;
	int rc;

	if (!found->resolved)
		return 0;
	rc = cat_inode_get(txn, meeting->name.ino, &inode);
	if (rc < 0 || !(inode.flags & CAT_UNRESOLVED))
		return rc;
	rc = resolve_inode(txn, found, &inode, &adopt->changes);
	return rc == -ESTALE ? 0 : rc;
}

/* Does the name show what could not become the key's object, because somebody else's was there? 1, 0, -errno. */
static int stands_aside(struct cat_txn *txn, uint64_t ino)
{
	struct cat_version version;
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc < 0 || !inode.version)
		return rc;
	rc = cat_version_get(txn, ino, inode.version, &version);
	return rc < 0 ? rc : version.origin == CAT_ORIGIN_CONFLICT;
}

/* A known name over which the listing may have something new. */
static int meet_name(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found,
		     const struct meeting *meeting)
{
	int64_t stored_ns = 0;
	int rc = is_settled(txn, adopt, &meeting->name);

	if (rc <= 0 || meeting->name.type == S_IFDIR)
		return rc < 0 ? rc : 0;
	if (!meeting->recorded) { /* it did not replace what we knew, unless ours had to stand aside for it */
		rc = stands_aside(txn, meeting->name.ino);
		return rc == 1 ? put_newcomer(txn, adopt, found, meeting->name.name, &meeting->name) : rc;
	}
	if (same_object(found, &meeting->record))
		return meeting->record.ino == meeting->name.ino ? meet_known(txn, adopt, found, meeting) : 0;
	rc = stored_at(txn, &meeting->record, &stored_ns);
	if (rc < 0 || stored_ns >= adopt->request->listed_at)
		return rc; /* our own upload overtook the listing */
	return put_newcomer(txn, adopt, found, meeting->name.name, &meeting->name);
}

static int meet_free(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found,
		     const struct meeting *meeting)
{
	int64_t stored_ns = 0;
	int rc = adopt->was_listed || meeting->recorded ? ended_lately(txn, adopt, found, meeting->name.name) : 0;

	if (rc)
		return rc < 0 ? rc : 0;
	if (meeting->recorded) {
		rc = cat_jobs_on_inode(txn, meeting->record.ino);
		if (rc)
			return rc < 0 ? rc : 0;
		rc = stored_at(txn, &meeting->record, &stored_ns);
		if (rc < 0 || stored_ns >= adopt->request->listed_at)
			return rc;
	}
	return put_newcomer(txn, adopt, found, meeting->name.name, NULL);
}

/* A file that must give its name to a directory goes on under the clash name; its key stays the same. */
static int move_to_clash(struct cat_txn *txn, struct adopt *adopt, struct cat_name *name, const char *clash)
{
	struct cat_ending ending = {.how = CAT_HOW_RENAME, .to_parent = name->parent, .to_name = clash};
	struct cat_name bound = *name;
	int rc = is_settled(txn, adopt, name);

	if (rc <= 0)
		return rc;
	ending.until = bound.since = cat_next_seq(txn);
	bound.since_ns = cat_now(txn);
	bound.cookie = 0;
	bound.how = CAT_HOW_RENAME;
	bound.from_parent = name->parent;
	cat_name_set(bound.from_name, name->name);
	cat_name_set(bound.name, clash);
	rc = cat_end(txn, name, &ending);
	if (rc == 0)
		rc = cat_bind(txn, &bound);
	if (rc == 0)
		rc = note_change(adopt, name->name, name->ino);
	*name = bound;
	return rc ? rc : 1;
}

/* Under which name a found file lives or shall live. 1: left alone. */
static int place_file(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found, struct meeting *meeting)
{
	AUTO_BUF clash = BUF_INIT;
	struct cat_name plain, clashed;
	bool has_plain, has_clashed, is_clash;
	int rc = cat_name_get(txn, adopt->request->dir, found->name, &plain);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	has_plain = rc == 0;
	is_clash = listing_find(adopt, found->name, true) || (has_plain && plain.type == S_IFDIR);
	if (has_plain && !is_clash) {
		meeting->name = plain;
		meeting->lives = true;
		return 0;
	}
	cat_name_set(meeting->name.name, found->name);
	if (!is_clash && !meeting->recorded)
		return 0;
	rc = clash_name(txn, adopt, found, &clash);
	if (rc == 0)
		rc = cat_name_get(txn, adopt->request->dir, clash.data, &clashed);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	has_clashed = rc == 0;
	if (has_clashed) {
		meeting->name = clashed;
		meeting->lives = true;
	} else if (is_clash && has_plain && plain.type != S_IFDIR) {
		rc = record_component(txn, adopt, found, clash.data);
		if (rc == 0)
			rc = move_to_clash(txn, adopt, &plain, clash.data);
		meeting->name = plain;
		meeting->lives = true;
		return rc < 0 ? rc : !rc;
	} else if (is_clash) {
		cat_name_set(meeting->name.name, clash.data);
	}
	return 0;
}

static int adopt_file(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found, struct meeting *meeting)
{
	int rc = place_file(txn, adopt, found, meeting);

	if (rc)
		return rc < 0 ? rc : 0;
	if (meeting->lives)
		return meet_name(txn, adopt, found, meeting);
	return meet_free(txn, adopt, found, meeting);
}

/* A directory where a file lives that the listing does not have: one with changes of ours keeps the name for now. */
static int meet_file(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found,
		     const struct meeting *meeting)
{
	int rc = is_settled(txn, adopt, &meeting->name);

	if (rc == 1)
		rc = stands_aside(txn, meeting->name.ino);
	return rc == 1 ? put_newcomer(txn, adopt, found, meeting->name.name, &meeting->name) : rc;
}

static int adopt_dir(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found, struct meeting *meeting)
{
	struct cat_inode inode;
	int rc = cat_name_get(txn, adopt->request->dir, found->name, &meeting->name);

	if (rc == -ENOENT) {
		cat_name_set(meeting->name.name, found->name);
		rc = cat_jobs_beneath(
			txn, found->key); /* what a directory of this name held is still on its way elsewhere */
		return rc ? (rc < 0 ? rc : 0) : meet_free(txn, adopt, found, meeting);
	}
	if (rc == 0 && meeting->name.type != S_IFDIR)
		return meet_file(txn, adopt, found, meeting);
	if (rc < 0)
		return rc;
	if (!found->etag && !found->native_id && !found->resolved)
		return 0;
	if (meeting->recorded && same_object(found, &meeting->record) && !found->resolved)
		return 0;
	rc = is_settled(txn, adopt, &meeting->name);
	if (rc <= 0)
		return rc;
	rc = cat_inode_get(txn, meeting->name.ino, &inode);
	if (rc < 0)
		return rc;
	if (found->resolved && inode.flags & CAT_UNRESOLVED)
		return resolve_inode(txn, found, &inode, &adopt->changes);
	return put_key_record(txn, found, &inode);
}

static int adopt_one(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found)
{
	struct meeting meeting = {.recorded = false};
	AUTO_BUF bare = BUF_INIT; /* jobs name a directory without its '/' */
	int rc = cat_name_check(found->name);

	if (rc < 0 || strncmp(found->key, adopt->dir_key.data, adopt->dir_key.len) != 0) {
		log_warn("catalog", "object '%s' does not belong into its directory's listing", found->key);
		return 0;
	}
	buf_adds(&bare, found->key);
	while (found->directory && bare.len > 0 && bare.data[bare.len - 1] == '/')
		bare.data[--bare.len] = '\0';
	if (buf_failed(&bare))
		return -ENOMEM;
	rc = cat_jobs_on_key(txn, bare.data);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_get(txn, 0, found->key, &meeting.record);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	meeting.recorded = rc == 0;
	rc = found->directory ? adopt_dir(txn, adopt, found, &meeting) : adopt_file(txn, adopt, found, &meeting);
	cat_key_clear(&meeting.record);
	return rc;
}

static int found_closure(struct cat_txn *txn, void *arg)
{
	struct adopt *adopt = arg;
	int rc = adopt_begin(txn, adopt);

	while (rc == 0 && adopt->taken < BATCH && adopt->next + adopt->taken < adopt->count) {
		if (!adopt->held)
			rc = adopt_one(txn, adopt, adopt->sorted[adopt->next + adopt->taken]);
		adopt->taken++;
	}
	return rc ? rc : adopt_end(txn, adopt);
}

static int listed_closure(struct cat_txn *txn, void *arg)
{
	const struct adopt *adopt = arg;
	struct cat_inode dir;
	int rc = cat_dir_get(txn, adopt->request->dir, &dir);

	if (rc < 0)
		return rc;
	if (!adopt->held) /* else nothing of it was taken, and it is as unknown as it was */
		dir.flags |= CAT_LISTED;
	dir.listed_at = adopt->request->listed_at;
	return cat_inode_put(txn, &dir);
}

static void report_changes(const struct adopt *adopt)
{
	const struct cat_adopt *request = adopt->request;

	if (!request->changed)
		return;
	for (size_t i = 0; i < adopt->changes.count; i++) {
		const struct cat_change *change = &adopt->changes.cells[i];

		request->changed(request->changed_arg, change->parent, change->name, change->ino);
	}
}

int catalog_adopt(struct catalog *catalog, const struct cat_adopt *request)
{
	struct adopt adopt = {.request = request, .count = request->count, .dir_key = BUF_INIT};
	int rc = -ENOMEM;

	adopt.sorted = malloc((request->count + 1) * sizeof(*adopt.sorted));
	if (!adopt.sorted)
		goto out;
	for (size_t i = 0; i < request->count; i++)
		adopt.sorted[i] = &request->found[i];
	qsort(adopt.sorted, adopt.count, sizeof(*adopt.sorted), found_sort);
	adopt.reached_end = request->hidden;
	while (!adopt.reached_end) {
		rc = catalog_update(catalog, vanish_closure, &adopt);
		if (rc < 0)
			goto out;
		report_changes(&adopt);
		memcpy(adopt.last, adopt.reached, sizeof(adopt.last));
	}
	while (adopt.next < adopt.count) {
		rc = catalog_update(catalog, found_closure, &adopt);
		if (rc < 0)
			goto out;
		report_changes(&adopt);
		adopt.next += adopt.taken;
	}
	rc = catalog_update(catalog, listed_closure, &adopt);
out:
	free(adopt.sorted);
	free(adopt.changes.cells);
	buf_free(&adopt.dir_key);
	return rc;
}

/* --- older versions ----------------------------------------------------------------------------- */

struct known { /* of an inode's versions, what placing another needs */
	uint64_t seq;
	int64_t commit_ns, shown_ms;
};

struct versions {
	uint64_t ino;
	const struct cat_found **sorted; /* newest first */
	size_t count, next, taken;
	struct known *known; /* by seq */
	size_t known_count, known_cap;
	bool aside; /* not objects of the file's own key */
};

static int take_known(void *arg, const struct cat_version *version)
{
	struct versions *versions = arg;
	int rc = ARRAY_ROOM(versions->known, versions->known_cap, versions->known_count);

	if (rc < 0)
		return rc;
	versions->known[versions->known_count++] =
		(struct known){.seq = version->seq, .commit_ns = version->commit_ns, .shown_ms = version->shown_ms};
	return 0;
}

static int time_compare(const void *a, const void *b)
{
	const struct cat_found *x = *(const struct cat_found *const *)a, *y = *(const struct cat_found *const *)b;

	return (x->modified_ns < y->modified_ns) - (x->modified_ns > y->modified_ns);
}

/*
 * A number between the two that no version of any inode has: cache files and
 * inode numbers of versions are by it. The numbers given are multiples of the
 * stride, and the ones right below a version's are nobody else's; below the
 * oldest, it is the reflection of a new one. 0: there is none.
 */
static uint64_t number_between(struct cat_txn *txn, uint64_t low, uint64_t high)
{
	uint64_t given = low ? UINT64_MAX : cat_next_seq(txn);
	uint64_t mirrored = given < 2 * CAT_SEQ_FIRST ? 2 * CAT_SEQ_FIRST - given : UINT64_MAX;

	if (mirrored < high)
		return mirrored;
	if (high - low >= 2 && (high - 1) % CAT_SEQ_STRIDE)
		return high - 1;
	/* A stranger's metadata drove the numbers up so far: better one that may not be alone than no history. */
	return !low && high > CAT_SEQ_STRIDE ? high - CAT_SEQ_STRIDE : 0;
}

/*
 * Where by its time a version belongs among the known ones, and a sequence
 * number and shown time between its neighbours'. Where they leave no room, the
 * next place below is taken; below the oldest there is always room. Never after
 * the current version: an old version is not news. Returns the index, or -ENOSPC.
 */
static ssize_t choose_place(struct cat_txn *txn, const struct versions *versions, uint64_t current,
			    struct cat_version *version)
{
	const struct known *known = versions->known;
	size_t at = 0;

	while (at < versions->known_count && known[at].seq < current && known[at].commit_ns <= version->commit_ns)
		at++;
	if (at == versions->known_count) { /* the current version is not among them: damaged */
		if (at == 0)
			return -EBADMSG;
		at--;
	}
	for (;; at--) {
		const struct known *high = &known[at];
		uint64_t low_seq = at ? known[at - 1].seq : 0;
		int64_t low_ms = at ? known[at - 1].shown_ms : INT64_MIN / 2;
		int64_t ms = version->commit_ns / NS_PER_MS;

		version->seq = high->shown_ms - low_ms >= 2 ? number_between(txn, low_seq, high->seq) : 0;
		if (version->seq) {
			version->shown_ms = ms <= low_ms ? low_ms + 1 : ms >= high->shown_ms ? high->shown_ms - 1 : ms;
			return (ssize_t)at;
		}
		if (at == 0)
			return -ENOSPC;
	}
}

/* The copy turns out to have this native id. */
static int learn_id(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode,
		    const struct cat_copy *copy)
{
	struct cat_copy better = *copy;
	int rc;

	better.native_id = (char *)found->native_id;
	rc = cat_copy_replace(txn, copy, &better);
	if (rc == 0 && inode->nlink && copy->seq == inode->version) /* else the key is another's by now, or nobody's */
		rc = put_key_record(txn, found, inode);
	return rc;
}

/* The copy of a version that is known from a listing of objects, which tells no native ids, is at the place of its
 * etag. Older ones are known by their time as well: the same content may have come back. */
static int find_nameless(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode,
			 struct cat_copy *ret_copy)
{
	uint64_t ino, seq = inode->version;
	int rc = cat_copy_get(txn, inode->ino, seq, ret_copy);

	if (rc == 0 && !ret_copy->native_id && same_string(ret_copy->etag, found->etag) &&
	    strcmp(ret_copy->key, found->key) == 0)
		return 0;
	if (rc == 0)
		cat_copy_clear(ret_copy);
	if (rc == 0 || rc == -ENOENT)
		rc = cat_place_get(txn, 0, found->key, found->etag, &ino, &seq);
	if (rc == 0 && ino == inode->ino)
		rc = cat_copy_get(txn, ino, seq, ret_copy);
	else if (rc == 0)
		rc = -ENOENT;
	if (rc == 0 && (ret_copy->native_id || ret_copy->stored_ns != found->modified_ns)) {
		cat_copy_clear(ret_copy);
		rc = -ENOENT;
	}
	return rc;
}

/* Is this object one of the versions we know? A copy without native id learns it here. 1, 0, -errno. */
static int is_known(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_copy copy;
	uint64_t ino, seq;
	int rc = cat_place_get(txn, 0, found->key, cat_object_id(found->native_id, found->etag), &ino, &seq);

	if (rc == 0)
		return 1;
	if (rc != -ENOENT || !found->native_id || !found->etag)
		return rc == -ENOENT ? 0 : rc;
	rc = find_nameless(txn, found, inode, &copy);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = learn_id(txn, found, inode, &copy);
	cat_copy_clear(&copy);
	return rc ? rc : 1;
}

/* Of another inode: the key's object now, or one that came after this one had lost its name. 1, 0, -errno. */
static int is_anothers(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_version newest;
	struct cat_key record;
	bool others;
	int rc = cat_key_get(txn, 0, found->key, &record);

	if (rc == 0) {
		others = record.ino != inode->ino && same_object(found, &record);
		cat_key_clear(&record);
		if (others)
			return 1;
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = inode->nlink ? -ENOENT : cat_version_get(txn, inode->ino, inode->version, &newest);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return found->modified_ns > newest.commit_ns;
}

struct same_version {
	uint32_t identity;
	int64_t commit_ns; /* 0: any. Two machines may have given one number to two versions of a file */
};

static int is_same_version(void *arg, const struct cat_version *version)
{
	const struct same_version *same = arg;

	return version->identity == same->identity && (!same->commit_ns || version->commit_ns == same->commit_ns);
}

/* What others made keeps the identity of its first place when we move it and give the copy our metadata: its number is
 * ours, and where a rebuilt catalog gave it to another version the time tells. */
static bool is_same_found(const struct same_version *same, const struct cat_version *version)
{
	return version->origin == CAT_ORIGIN_EXTERNAL && same->commit_ns && version->commit_ns == same->commit_ns;
}

/* Is that version of the file in the catalog, whatever its number here? commit_ns 0: not known. 1, 0, -errno. */
static int holds(struct cat_txn *txn, const uint8_t *file_id, uint64_t seq, int64_t commit_ns)
{
	struct same_version same = {.identity = cat_identity_own(file_id, seq), .commit_ns = commit_ns};
	struct cat_version version;
	uint64_t ino;
	int rc = cat_file_find(txn, file_id, &ino);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_version_get(txn, ino, seq, &version);
	if (rc == 0 && (is_same_version(&same, &version) || is_same_found(&same, &version)))
		return 1;
	if (rc == 0 || rc == -ENOENT) /* in a catalog rebuilt from the listing it has another number */
		rc = cat_version_each(txn, ino, 0, UINT64_MAX, is_same_version, &same);
	return rc == -ENOENT ? 0 : rc;
}

/*
 * One more copy of a version that we made, of this file or of one that had the key before or will have it: a copy whose
 * record is about to be written, or never was, because we were killed before. 1, 0, -errno.
 */
static int is_copy_of_ours(struct cat_txn *txn, const struct cat_found *found)
{
	return is_ours(found) ? holds(txn, found->file_id, found->seq, found->commit_ns) : 0;
}

int cat_holds_known(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t seq,
		    int64_t commit_ns)
{
	return holds(txn, file_id, seq, commit_ns);
}

/* Suspect and conflicting versions never were the file's content, so that they may be newer than what is. */
static ssize_t place_version(struct cat_txn *txn, const struct versions *versions, const struct cat_inode *inode,
			     struct cat_version *version)
{
	const struct known *last = versions->known_count ? &versions->known[versions->known_count - 1] : NULL;
	bool aside = version->origin == CAT_ORIGIN_SUSPECT || version->origin == CAT_ORIGIN_CONFLICT;
	int64_t now_ms = cat_now(txn) / NS_PER_MS;

	if (!aside || !last || version->commit_ns < last->commit_ns)
		return choose_place(txn, versions, inode->version, version);
	version->seq = cat_next_seq(txn);
	version->shown_ms = version->commit_ns / NS_PER_MS;
	if (version->shown_ms > now_ms) /* a clock that runs ahead must not push later versions' times */
		version->shown_ms = now_ms;
	if (version->shown_ms <= last->shown_ms)
		version->shown_ms = last->shown_ms + 1;
	return (ssize_t)versions->known_count;
}

/* Is a version of this inode called so already? Then its object's place names this one. */
static int make_distinct(struct cat_txn *txn, const struct cat_found *found, struct cat_version *version)
{
	struct same_version same = {.identity = version->identity};
	int rc = is_ours(found) ? cat_version_each(txn, version->ino, 0, UINT64_MAX, is_same_version, &same) : 0;

	if (rc == 1)
		version->identity = cat_identity_foreign(found->key, found->native_id ? found->native_id : found->etag);
	return rc < 0 ? rc : 0;
}

static int add_older(struct cat_txn *txn, struct versions *versions, const struct cat_found *found,
		     const struct cat_inode *inode)
{
	struct cat_version version = {.ino = inode->ino};
	struct cat_copy copy;
	ssize_t at;
	int rc = is_known(txn, found, inode);

	if (rc == 0)
		rc = is_copy_of_ours(txn, found);
	if (rc == 0 && !versions->aside)
		rc = is_anothers(txn, found, inode);
	if (rc)
		return rc < 0 ? rc : 0;
	fill_facts(found, inode, &version);
	if (is_ours(found))
		cat_seq_above(txn, found->seq);
	if (versions->aside)
		rc = make_distinct(txn, found, &version);
	if (rc < 0)
		return rc;
	at = place_version(txn, versions, inode, &version);
	if (at < 0)
		return (int)at;
	fill_copy(found, version.ino, version.seq, &copy);
	rc = cat_version_put(txn, &version);
	if (rc == 0)
		rc = cat_copy_add(txn, &copy);
	if (rc == 0 && is_ours(found))
		rc = cat_file_claim(txn, found->file_id, version.ino);
	if (rc == 0)
		rc = ARRAY_ROOM(versions->known, versions->known_cap, versions->known_count);
	if (rc < 0)
		return rc;
	memmove(versions->known + at + 1, versions->known + at,
		(versions->known_count - (size_t)at) * sizeof(*versions->known));
	versions->known_count++;
	versions->known[at] =
		(struct known){.seq = version.seq, .commit_ns = version.commit_ns, .shown_ms = version.shown_ms};
	return 0;
}

static int versions_closure(struct cat_txn *txn, void *arg)
{
	struct versions *versions = arg;
	struct cat_inode inode;
	int rc = cat_inode_get(txn, versions->ino, &inode);

	versions->taken = 0;
	versions->known_count = 0;
	if (rc == 0)
		rc = cat_version_each(txn, versions->ino, 0, UINT64_MAX, take_known, versions);
	if (rc < 0)
		return rc;
	if (!inode.version) { /* nothing to place them before: no file, or never stored */
		versions->taken = versions->count - versions->next;
		return 0;
	}
	while (rc == 0 && versions->taken < BATCH && versions->next + versions->taken < versions->count)
		rc = add_older(txn, versions, versions->sorted[versions->next + versions->taken++], &inode);
	return rc;
}

static int adopt_versions(struct catalog *catalog, struct versions *versions, const struct cat_found *found)
{
	int rc = -ENOMEM;

	versions->sorted = malloc((versions->count + 1) * sizeof(*versions->sorted));
	if (!versions->sorted)
		return rc;
	for (size_t i = 0; i < versions->count; i++)
		versions->sorted[i] = &found[i];
	qsort(versions->sorted, versions->count, sizeof(*versions->sorted), time_compare);
	for (rc = 0; rc == 0 && versions->next < versions->count; versions->next += versions->taken)
		rc = catalog_update(catalog, versions_closure, versions);
	free(versions->sorted);
	free(versions->known);
	return rc;
}

int catalog_adopt_versions(struct catalog *catalog, uint64_t ino, const struct cat_found *found, size_t count)
{
	return adopt_versions(catalog, &(struct versions){.ino = ino, .count = count}, found);
}

struct file_search {
	const uint8_t *file_id;
	uint64_t ino;
};

static int file_closure(struct cat_txn *txn, void *arg)
{
	struct file_search *search = arg;

	return cat_file_find(txn, search->file_id, &search->ino);
}

int catalog_adopt_aside(struct catalog *catalog, const uint8_t file_id[static CAT_FILE_ID_SIZE],
			const struct cat_found *found, size_t count)
{
	struct file_search search = {.file_id = file_id};
	int rc = catalog_view(catalog, file_closure, &search);

	return rc ? rc
		  : adopt_versions(catalog, &(struct versions){.ino = search.ino, .count = count, .aside = true},
				   found);
}

/* --- names of the past alone -------------------------------------------------------------------- */

struct deleting {
	const struct cat_deleted *request;
	const struct cat_found **newer; /* unknown, and newer than what the name held last; oldest first */
	struct cat_found *older;        /* unknown, of `heir` */
	size_t newer_count, older_count;
	uint64_t heir; /* had the name last; 0: nobody, or no file */
	uint64_t made; /* the new inode */
};

/* 1: it may be taken; 0: something of ours is there. */
static int may_take_deleted(struct cat_txn *txn, const struct cat_deleted *request)
{
	struct cat_key record;
	struct cat_name name;
	int rc = cat_name_get(txn, request->dir, request->name, &name);

	if (rc != -ENOENT)
		return rc;
	rc = cat_jobs_on_key(txn, request->key);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_get(txn, 0, request->key, &record);
	if (rc == 0)
		cat_key_clear(&record);
	return rc == 0 ? 0 : rc == -ENOENT ? 1 : rc;
}

/* Who had the name last. -ENOENT: nobody ever. */
static int last_holder(struct cat_txn *txn, const struct cat_deleted *request, struct cat_past *ret_past)
{
	struct schema_key from, to;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, request->dir, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, request->name, 0);
	schema_key_past(&to, past_dir, request->name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 1, take_past, ret_past);
	return rc < 0 ? rc : rc == 1 ? 0 : -ENOENT;
}

/* Its newest content is older than this. INT64_MIN: all is. */
static int heir_of(struct cat_txn *txn, struct deleting *deleting, int64_t *ret_newest)
{
	struct cat_version version;
	struct cat_inode inode;
	struct cat_past past;
	int rc = last_holder(txn, deleting->request, &past);

	*ret_newest = INT64_MIN;
	deleting->heir = 0;
	if (rc < 0 || !S_ISREG(past.type))
		return rc == -ENOENT ? 0 : rc;
	rc = cat_inode_get(txn, past.ino, &inode);
	if (rc < 0 || !inode.version)
		return rc;
	rc = cat_version_get(txn, past.ino, inode.version, &version);
	if (rc < 0)
		return rc;
	*ret_newest = version.commit_ns;
	deleting->heir = past.ino;
	return 0;
}

static int newest_last(const void *a, const void *b)
{
	return time_compare(b, a);
}

/* Shares what nobody knows yet out between the one who had the name last and a new inode. */
static int share_out(struct cat_txn *txn, struct deleting *deleting)
{
	const struct cat_deleted *request = deleting->request;
	int64_t newest;
	int rc = heir_of(txn, deleting, &newest);

	deleting->newer_count = deleting->older_count = 0;
	for (size_t i = 0; i < request->count && rc >= 0; i++) {
		const struct cat_found *found = &request->versions[i];
		uint64_t ino, seq;

		rc = cat_place_get(txn, 0, found->key, cat_object_id(found->native_id, found->etag), &ino, &seq);
		if (rc == -ENOENT)
			rc = is_copy_of_ours(txn, found);
		else if (rc == 0)
			continue;
		if (rc < 0)
			return rc;
		if (rc == 1)
			continue;
		if (deleting->heir && found->modified_ns <= newest)
			deleting->older[deleting->older_count++] = *found;
		else
			deleting->newer[deleting->newer_count++] = found;
	}
	if (deleting->newer_count)
		qsort(deleting->newer, deleting->newer_count, sizeof(*deleting->newer), newest_last);
	return rc < 0 ? rc : 0;
}

static int put_past(struct cat_txn *txn, const struct cat_deleted *request, const struct cat_inode *inode,
		    int64_t since_ns)
{
	struct cat_past past = {
		.ino = inode->ino,
		.since = cat_next_seq(txn),
		.since_ns = since_ns,
		.until_ns = request->until_ns,
		.type = inode->mode & S_IFMT,
		.began = CAT_HOW_ADOPT,
		.ended = CAT_HOW_VANISH,
	};
	struct cat_found named = {.name = request->name, .component = request->component, .key = request->key};
	struct cat_adopt adopt_request = {.dir = request->dir};
	struct adopt adopt = {.request = &adopt_request};
	struct schema_key key;
	struct buf *value;
	int rc = record_component(txn, &adopt, &named, request->name);

	if (rc == 0)
		rc = cat_past_dir(txn, request->dir, &past.parent);
	if (rc < 0)
		return rc;
	past.until = cat_next_seq(txn);
	if (!past.until_ns)
		past.until_ns = cat_now(txn);
	if (past.until_ns <= past.since_ns) /* two clocks, or one that was set back */
		past.until_ns = past.since_ns + 1;
	cat_name_set(past.name, request->name);
	value = cat_scratch(txn);
	schema_key_past(&key, past.parent, past.name, past.until);
	schema_encode_past(&past, value);
	return cat_put(txn, &key, value);
}

static void deleted_inode(struct cat_txn *txn, const struct cat_deleted *request, const struct cat_found *newest,
			  struct cat_inode *ret_inode)
{
	const struct cat_found directory = {.directory = true, .modified_ns = request->since_ns};
	const struct cat_adopt defaults = {
		.dir = request->dir,
		.file_mode = request->file_mode,
		.dir_mode = request->dir_mode,
		.uid = request->uid,
		.gid = request->gid,
	};

	fill_inode(txn, &defaults, newest ? newest : &directory, ret_inode);
	ret_inode->nlink = 0;
	ret_inode->flags = 0; /* nothing current is there to be asked */
	if (newest)           /* content is shown as content */
		ret_inode->mode = S_IFREG | (ret_inode->mode & 0777);
}

static int put_deleted_versions(struct cat_txn *txn, const struct deleting *deleting, struct cat_inode *inode)
{
	size_t first = deleting->newer_count > BATCH ? deleting->newer_count - BATCH : 0;
	int64_t shown_ms = INT64_MIN;
	int rc = 0;

	for (size_t i = first; i < deleting->newer_count && rc == 0; i++) {
		const struct cat_found *found = deleting->newer[i];
		struct cat_version version = {.ino = inode->ino};
		struct cat_copy copy;

		if (is_ours(found))
			cat_seq_above(txn, found->seq);
		version.seq = cat_next_seq(txn);
		fill_facts(found, inode, &version);
		version.shown_ms = version.commit_ns / NS_PER_MS;
		if (version.shown_ms <= shown_ms)
			version.shown_ms = shown_ms + 1;
		shown_ms = version.shown_ms;
		fill_copy(found, version.ino, version.seq, &copy);
		inode->version = version.seq;
		inode->size = version.size;
		rc = cat_version_put(txn, &version);
		if (rc == 0)
			rc = cat_copy_add(txn, &copy);
		if (rc == 0 && is_ours(found))
			rc = cat_file_claim(txn, found->file_id, version.ino);
	}
	return rc;
}

static int take_link_name(void *arg, const struct cat_name *link)
{
	*(struct cat_name *)arg = *link;
	return 1;
}

#define EARLIER_MAX 16 /* directories of one name; what was deleted before all of these is not shown */
#define EARLIER_ROWS 256

/* Directories that had a name before, the latest first. */
struct earlier {
	struct {
		uint64_t ino;
		int64_t since_ns;
		bool found;
	} cells[EARLIER_MAX];
	size_t count;
};

static int take_earlier(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct earlier *earlier = arg;
	struct cat_past past;
	int rc = cat_check_row(key, schema_decode_past(key, value, &past));

	if (rc || !S_ISDIR(past.type))
		return rc;
	earlier->cells[earlier->count].ino = past.ino;
	earlier->cells[earlier->count].since_ns = past.since_ns;
	earlier->cells[earlier->count].found = past.began == CAT_HOW_ADOPT;
	return ++earlier->count == EARLIER_MAX;
}

/* Did a directory of this name with whose past this one goes on have it at that time? 1, 0, -errno. */
static int went_on_then(struct cat_txn *txn, const struct cat_name *name, int64_t at)
{
	struct schema_key from, to;
	struct earlier earlier = {0};
	uint64_t past_dir, own, others;
	int rc = cat_past_dir(txn, name->parent, &past_dir);

	if (rc == 0)
		rc = cat_past_dir(txn, name->ino, &own);
	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, name->name, 0);
	schema_key_past(&to, past_dir, name->name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, EARLIER_ROWS, take_earlier,
		     &earlier);
	for (size_t i = 0; i < earlier.count && rc >= 0; i++) {
		rc = cat_past_dir(txn, earlier.cells[i].ino, &others);
		if (rc < 0 || others != own)
			return rc;
		if (earlier.cells[i].found || at > earlier.cells[i].since_ns)
			return 1;
	}
	return rc < 0 ? rc : 0;
}

/* Was it deleted before a directory that we made, or moved here, had its name, and before those with whose past it goes
 * on? Then it is another's past. */
static int is_older_than_directory(struct cat_txn *txn, const struct cat_deleted *request)
{
	/* The marker that we left for such a directory may be younger: the oldest of what was in it tells. */
	int64_t at = request->directory ? request->since_ns : request->until_ns;
	struct cat_name name;
	int rc = cat_link_each(txn, request->dir, take_link_name, &name);

	if (rc != 1) /* the top, or a directory of the past */
		return rc == -ENOENT ? 0 : rc;
	if (name.how == CAT_HOW_ADOPT || at > name.since_ns)
		return 0;
	rc = went_on_then(txn, &name, at);
	return rc < 0 ? rc : !rc;
}

static int deleted_closure(struct cat_txn *txn, void *arg)
{
	struct deleting *deleting = arg;
	const struct cat_deleted *request = deleting->request;
	const struct cat_found *newest = NULL;
	struct cat_inode inode, dir;
	struct cat_past past;
	int rc;

	deleting->made = 0;
	deleting->newer_count = deleting->older_count = 0;
	rc = may_take_deleted(txn, request);
	if (rc > 0) {
		rc = is_older_than_directory(txn, request);
		rc = rc ? (rc < 0 ? rc : 0) : 1;
	}
	if (rc <= 0)
		return rc;
	rc = cat_inode_get(txn, request->dir, &dir);
	if (rc < 0)
		return rc;
	if (request->directory) {
		rc = last_holder(txn, request, &past);
		if (rc == -ENOENT)
			rc = cat_place_any(txn, 0, request->key); /* of the directory that had this name before */
		else if (rc == 0)
			return 0;
		if (rc)
			return rc < 0 ? rc : 0;
	} else {
		rc = share_out(txn, deleting);
		if (rc < 0 || !deleting->newer_count)
			return rc;
		newest = deleting->newer[deleting->newer_count - 1];
	}
	deleted_inode(txn, request, newest, &inode);
	if (newest)
		rc = put_deleted_versions(txn, deleting, &inode);
	else
		rc = 0;
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = put_past(txn, request, &inode, newest ? deleting->newer[0]->modified_ns : request->since_ns);
	deleting->made = inode.ino;
	return rc;
}

int catalog_adopt_deleted(struct catalog *catalog, const struct cat_deleted *deleted)
{
	struct deleting deleting = {.request = deleted};
	int rc = cat_name_check(deleted->name);

	if (rc < 0)
		return rc;
	deleting.newer = calloc(deleted->count + 1, sizeof(*deleting.newer));
	deleting.older = calloc(deleted->count + 1, sizeof(*deleting.older));
	rc = deleting.newer && deleting.older ? catalog_update(catalog, deleted_closure, &deleting) : -ENOMEM;
	if (rc == 0 && deleting.older_count)
		rc = catalog_adopt_versions(catalog, deleting.heir, deleting.older, deleting.older_count);
	if (rc == 0 && deleting.made && deleting.newer_count > BATCH) /* those that one update did not take */
		rc = catalog_adopt_versions(catalog, deleting.made, deleted->versions, deleted->count);
	free(deleting.newer);
	free(deleting.older);
	return rc;
}

/* --- directories that are listed though nothing is there -------------------------------------------- */

struct fading {
	const struct cat_phantom *phantom;
	struct cat_name name;
	bool faded;
};

/* 1: nothing is there, and nothing is to come. 0, -errno. */
static int is_phantom(struct cat_txn *txn, struct fading *fading, const struct cat_inode *inode)
{
	AUTO_BUF key = BUF_INIT;
	struct cat_key record;
	int rc = inode->ino == CAT_ROOT_INO || !S_ISDIR(inode->mode) || !inode->nlink || !(inode->flags & CAT_LISTED);

	rc = rc ? 0 : cat_link_each(txn, inode->ino, take_link_name, &fading->name);
	if (rc <= 0 || fading->name.how != CAT_HOW_ADOPT)
		return rc < 0 ? rc : 0;
	rc = cat_dir_any(txn, inode->ino);
	if (rc == 0)
		rc = cat_jobs_on_inode(txn, inode->ino);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_of(txn, inode->ino, &key);
	buf_addc(&key, '/');
	if (rc == 0)
		rc = buf_failed(&key) ? -ENOMEM : cat_key_get(txn, 0, key.data, &record);
	if (rc == 0)
		cat_key_clear(&record);
	return rc == -ENOENT ? 1 : rc;
}

static int fade_closure(struct cat_txn *txn, void *arg)
{
	struct fading *fading = arg;
	const struct cat_phantom *phantom = fading->phantom;
	struct cat_past past = {.type = S_IFDIR, .began = CAT_HOW_ADOPT, .ended = CAT_HOW_VANISH};
	struct cat_inode inode;
	struct schema_key key;
	struct buf *value;
	int rc = cat_inode_get(txn, phantom->ino, &inode);

	fading->faded = false;
	if (rc == 0)
		rc = is_phantom(txn, fading, &inode);
	if (rc <= 0)
		return rc;
	past.parent = fading->name.parent;
	past.ino = inode.ino;
	past.since = fading->name.since;
	past.until = cat_next_seq(txn);
	past.until_ns = phantom->until_ns ? phantom->until_ns : cat_now(txn);
	past.since_ns = phantom->since_ns && phantom->since_ns < past.until_ns ? phantom->since_ns : past.until_ns - 1;
	cat_name_set(past.name, fading->name.name);
	inode.nlink = 0;
	rc = cat_unbind(txn, &fading->name);
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = cat_dir_touch(txn, past.parent, -1);
	value = cat_scratch(txn);
	schema_key_past(&key, past.parent, past.name, past.until);
	schema_encode_past(&past, value);
	fading->faded = true;
	return rc ? rc : cat_put(txn, &key, value);
}

int catalog_phantom(struct catalog *catalog, const struct cat_phantom *phantom, uint64_t *ret_parent)
{
	struct fading fading = {.phantom = phantom};
	int rc = catalog_update(catalog, fade_closure, &fading);

	if (rc || !fading.faded)
		return rc;
	*ret_parent = fading.name.parent;
	return 1;
}

struct past_dir {
	uint64_t ino;
	struct cat_past found;
};

static int find_past_dir(struct cat_txn *txn, uint64_t parent, struct past_dir *dir)
{
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_number(&prefix, SCHEMA_PAST, past_dir);
	rows_open(&rows, &prefix, KV_FORWARD);
	while ((rc = rows_next(&rows, txn, &key, &value)) == 0) {
		rc = cat_check_row(key, schema_decode_past(key, value, &dir->found));
		if (rc < 0 || (dir->found.ino == dir->ino && dir->found.began == CAT_HOW_ADOPT &&
			       dir->found.ended == CAT_HOW_VANISH))
			break;
	}
	rows_close(&rows);
	return rc;
}

int cat_key_ever(struct cat_txn *txn, uint64_t ino, struct buf *ret_key)
{
	struct past_dir dir = {.ino = ino};
	struct cat_inode inode;
	int rc = cat_inode_get(txn, ino, &inode);

	if (rc < 0 || ino == CAT_ROOT_INO)
		return rc;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	if (inode.nlink) {
		rc = cat_key_of(txn, ino, ret_key);
	} else {
		rc = find_past_dir(txn, inode.parent, &dir);
		if (rc == 0)
			rc = cat_key_ever(txn, inode.parent, ret_key);
		if (rc == 0)
			rc = cat_component_of(txn, inode.parent, dir.found.name, ret_key);
	}
	buf_addc(ret_key, '/');
	return rc == 0 && buf_failed(ret_key) ? -ENOMEM : rc;
}
