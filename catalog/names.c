/*
 * names.c - the live tree: create, link, unlink, rename, lookup, readdir,
 * attributes and xattrs, each one update with all its rules.
 *
 * Invariants, each kept by every update
 *  1. NAME(p,n), COOKIE(p,c) and LINK(ino,since,p) exist together or not at all.
 *  2. A name that ends becomes one PAST record; where the next holder takes the
 *     name in the same update, its `since` equals the other's `until`. That
 *     equality alone tells a replacement from a rename to a free name (history.c).
 *  3. A file's nlink is the number of its live names; a directory's is 2 and one
 *     for each directory in it, and 0 once removed. A directory has one name.
 *  4. A replaced name keeps its cookie: a readdir under way sees it once.
 *  5. What must change in the store stands in the journal in the same update.
 *  6. PAST rows lie under inode.past_dir of their directory: one that is removed and made again under its name goes
 *     on with the past it had. At most one of those that share a past lives.
 *
 * Threads: any.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "cleanup.h"

#define XATTR_TOTAL_MAX (64 << 10)
#define NAMES_PAGE 1024  /* names read in one view */
#define GOES_ON_BACK 256 /* past holders of a name looked at for a directory */

/* --- building blocks ---------------------------------------------------------------------------- */

int cat_name_check(const char *name)
{
	size_t len = strnlen(name, CAT_NAME_MAX + 1);

	if (len > CAT_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || memchr(name, '/', len))
		return -EINVAL;
	return 0;
}

void cat_name_set(char ret_field[static CAT_NAME_MAX + 1], const char *name)
{
	size_t len = strnlen(name, CAT_NAME_MAX);

	memcpy(ret_field, name, len);
	ret_field[len] = '\0';
}

/* A name about to be made: well formed, and some key maps to it. */
static int new_name_check(struct cat_txn *txn, uint64_t parent, const char *name)
{
	AUTO_BUF component = BUF_INIT;
	int rc = cat_name_check(name);

	return rc ? rc : cat_component_of(txn, parent, name, &component);
}

int cat_dir_get(struct cat_txn *txn, uint64_t ino, struct cat_inode *ret_dir)
{
	struct cat_inode dir;
	int rc = cat_inode_get(txn, ino, &dir);

	if (rc < 0)
		return rc;
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	if (dir.nlink == 0)
		return -ENOENT;
	*ret_dir = dir;
	return 0;
}

int cat_dir_any(struct cat_txn *txn, uint64_t ino)
{
	struct schema_key prefix;

	schema_key_number(&prefix, SCHEMA_COOKIE, ino);
	return cat_any(txn, &prefix);
}

int cat_dir_touch(struct cat_txn *txn, uint64_t ino, int nlink_change)
{
	struct cat_inode dir;
	int rc = cat_inode_get(txn, ino, &dir);

	if (rc < 0)
		return rc;
	dir.mtime = dir.ctime = cat_now(txn);
	dir.nlink = (uint32_t)((int64_t)dir.nlink + nlink_change);
	return cat_inode_put(txn, &dir);
}

int cat_past_dir(struct cat_txn *txn, uint64_t dir, uint64_t *ret_dir)
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, dir, &inode);

	*ret_dir = rc == 0 && inode.past_dir ? inode.past_dir : dir;
	return rc == -ENOENT ? 0 : rc;
}

static int take_past(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	int rc = cat_check_row(key, schema_decode_past(key, value, arg));

	return rc ? rc : 1;
}

int cat_past_last(struct cat_txn *txn, uint64_t dir, const char *name, struct cat_past *ret_past)
{
	struct schema_key from, to;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, dir, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, name, 0);
	schema_key_past(&to, past_dir, name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, 1, take_past, ret_past);
	return rc < 0 ? rc : rc == 1 ? 0 : -ENOENT;
}

static int take_past_directory(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_past *past = arg;
	int rc = cat_check_row(key, schema_decode_past(key, value, past));

	return rc ? rc : S_ISDIR(past->type);
}

int cat_dir_goes_on(struct cat_txn *txn, uint64_t parent, const char *name, struct cat_inode *dir)
{
	struct schema_key from, to;
	struct cat_past past;
	uint64_t past_dir;
	int rc = cat_past_dir(txn, parent, &past_dir);

	if (rc < 0)
		return rc;
	schema_key_past(&from, past_dir, name, 0);
	schema_key_past(&to, past_dir, name, UINT64_MAX);
	rc = kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_BACKWARD, GOES_ON_BACK, take_past_directory,
		     &past);
	/* One that was moved away has taken its past along. */
	if (rc <= 0 || (past.ended != CAT_HOW_UNLINK && past.ended != CAT_HOW_VANISH))
		return rc < 0 ? rc : 0;
	return cat_past_dir(txn, past.ino, &dir->past_dir);
}

int cat_bind(struct cat_txn *txn, struct cat_name *name)
{
	struct schema_key key;
	struct buf *value;
	int rc;

	if (!name->cookie)
		name->cookie = name->since; /* grows and is never given twice, as the sequence */
	value = cat_scratch(txn);
	schema_key_named(&key, SCHEMA_NAME, name->parent, name->name);
	schema_encode_name(name, value);
	rc = cat_put(txn, &key, value);
	if (rc < 0)
		return rc;
	value = cat_scratch(txn);
	schema_key_pair(&key, SCHEMA_COOKIE, name->parent, name->cookie);
	schema_encode_blob(name->name, strlen(name->name), value);
	rc = cat_put(txn, &key, value);
	if (rc < 0)
		return rc;
	schema_key_link(&key, name->ino, name->since, name->parent);
	return cat_put(txn, &key, value);
}

int cat_unbind(struct cat_txn *txn, const struct cat_name *name)
{
	struct schema_key key;
	int rc;

	schema_key_named(&key, SCHEMA_NAME, name->parent, name->name);
	rc = cat_delete(txn, &key);
	if (rc < 0)
		return rc;
	schema_key_pair(&key, SCHEMA_COOKIE, name->parent, name->cookie);
	rc = cat_delete(txn, &key);
	if (rc < 0)
		return rc;
	schema_key_link(&key, name->ino, name->since, name->parent);
	return cat_delete(txn, &key);
}

int cat_end(struct cat_txn *txn, const struct cat_name *name, const struct cat_ending *ending)
{
	struct cat_past past = {
		.parent = name->parent,
		.ino = name->ino,
		.since = name->since,
		.until = ending->until,
		.since_ns = name->since_ns,
		.until_ns = cat_now(txn),
		.type = name->type,
		.began = name->how,
		.ended = ending->how,
		.from_parent = name->from_parent,
		.to_parent = ending->to_parent,
		.actor = ending->actor,
	};
	struct schema_key key;
	struct buf *value;
	int rc = cat_unbind(txn, name);

	if (rc == 0)
		rc = cat_past_dir(txn, name->parent, &past.parent);
	if (rc < 0)
		return rc;
	cat_name_set(past.name, name->name);
	cat_name_set(past.from_name, name->from_name);
	if (ending->to_name)
		cat_name_set(past.to_name, ending->to_name);
	value = cat_scratch(txn);
	schema_key_past(&key, past.parent, past.name, past.until);
	schema_encode_past(&past, value);
	return cat_put(txn, &key, value);
}

/* Has the store, or may it soon have, an object for this inode or at this key? */
static int concerns_store(struct cat_txn *txn, const struct cat_inode *inode, const char *key)
{
	struct cat_key record;
	int rc;

	if (!S_ISREG(inode->mode) || inode->version)
		return 1;
	rc = cat_key_get(txn, 0, key, &record); /* a link marker may lie there */
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	cat_key_clear(&record);
	return 1;
}

/* A directory that lost its last child exists in the store only as its own object: have it put there. */
static int keep_empty_dir(struct cat_txn *txn, uint64_t ino)
{
	AUTO_BUF key = BUF_INIT;
	struct cat_key record;
	int rc = ino == CAT_ROOT_INO ? 1 : cat_dir_any(txn, ino);

	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_key_of(txn, ino, &key);
	if (rc < 0)
		return rc;
	buf_addc(&key, '/');
	if (buf_failed(&key))
		return -ENOMEM;
	rc = cat_key_get(txn, 0, key.data, &record);
	if (rc == 0)
		cat_key_clear(&record);
	return rc == -ENOENT ? cat_job_add(txn, CAT_JOB_PLACE, ino, NULL) : rc;
}

struct left {
	struct cat_txn *txn;
	const char *key;
	size_t len; /* without a directory's '/' */
};

static int is_at_key(void *arg, const struct cat_name *name)
{
	const struct left *left = arg;
	AUTO_BUF key = BUF_INIT;
	int rc = cat_key_of_name(left->txn, name->parent, name->name, &key);

	if (rc < 0)
		return rc;
	return key.len == left->len && memcmp(key.data, left->key, left->len) == 0;
}

static int clears_key(void *arg, struct cat_job *job)
{
	const char *key = arg;

	return job->type == CAT_JOB_PLACE && job->key && strcmp(job->key, key) == 0;
}

int cat_key_left(struct cat_txn *txn, uint64_t ino, const char *key)
{
	struct left left = {.txn = txn, .key = key, .len = strlen(key)};
	AUTO_FREE char *bare = NULL;
	int rc;

	if (strncmp(key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) == 0)
		return 0;
	left.len -= left.len && key[left.len - 1] == '/';
	rc = cat_link_each(txn, ino, is_at_key, &left);
	if (rc)
		return rc < 0 ? rc : 0;
	bare = strndup(key, left.len);
	rc = bare ? cat_jobs_of(txn, ino, 0, clears_key, bare) : -ENOMEM; /* those of others leave it alone */
	return rc ? (rc < 0 ? rc : 0) : cat_job_add(txn, CAT_JOB_PLACE, ino, bare);
}

/* The inode loses this name; the parent's times and links are the caller's. */
static int lose_name(struct cat_txn *txn, const struct cat_name *name, const struct cat_ending *ending,
		     struct cat_inode *ret_inode)
{
	AUTO_BUF key = BUF_INIT;
	struct cat_inode inode;
	int rc = cat_inode_get(txn, name->ino, &inode);

	if (rc == 0)
		rc = cat_key_of_name(txn, name->parent, name->name, &key);
	if (rc == 0)
		rc = cat_end(txn, name, ending);
	if (rc < 0)
		return rc;
	inode.nlink = S_ISDIR(inode.mode) || inode.nlink == 0 ? 0 : inode.nlink - 1;
	inode.ctime = cat_now(txn);
	if (inode.nlink == 0 && S_ISREG(inode.mode) && !inode.version)
		inode.flags |= CAT_DISCARDED;
	rc = cat_inode_put(txn, &inode);
	if (rc < 0)
		return rc;
	rc = inode.nlink ? 1 : concerns_store(txn, &inode, key.data);
	if (rc == 1)
		rc = cat_job_add(txn, CAT_JOB_PLACE, inode.ino, key.data);
	if (rc == 0)
		*ret_inode = inode;
	return rc;
}

/* --- lookups ------------------------------------------------------------------------------------ */

struct lookup {
	uint64_t parent; /* or the ino, when name is NULL */
	const char *name;
	struct cat_inode inode;
};

static int getattr_closure(struct cat_txn *txn, void *arg)
{
	struct lookup *lookup = arg;

	return cat_inode_get(txn, lookup->parent, &lookup->inode);
}

int catalog_getattr(struct catalog *catalog, uint64_t ino, struct cat_inode *ret_inode)
{
	struct lookup lookup = {.parent = ino};
	int rc = catalog_view(catalog, getattr_closure, &lookup);

	if (rc == 0)
		*ret_inode = lookup.inode;
	return rc;
}

static int lookup_closure(struct cat_txn *txn, void *arg)
{
	struct lookup *lookup = arg;
	struct cat_name name;
	int rc = cat_name_get(txn, lookup->parent, lookup->name, &name);

	return rc ? rc : cat_inode_get(txn, name.ino, &lookup->inode);
}

int catalog_lookup(struct catalog *catalog, uint64_t parent, const char *name, struct cat_inode *ret_inode)
{
	struct lookup lookup = {.parent = parent, .name = name};
	int rc = catalog_view(catalog, lookup_closure, &lookup);

	if (rc == 0)
		*ret_inode = lookup.inode;
	return rc;
}

struct readdir {
	const struct cat_readdir *request;
	cat_readdir_visit visit;
	void *arg;
};

/* A NAME key ends in the name. */
static int name_of_key(uint64_t parent, struct kv_bytes key, char ret_text[static CAT_NAME_MAX + 1])
{
	struct schema_key prefix;
	size_t len;

	schema_key_number(&prefix, SCHEMA_NAME, parent);
	len = key.len > prefix.len ? key.len - prefix.len : 0;
	if (len == 0 || len > CAT_NAME_MAX)
		return -EBADMSG;
	memcpy(ret_text, (const char *)key.data + prefix.len, len);
	ret_text[len] = '\0';
	return 0;
}

/* The rows of the names, in the order asked for. */
static void readdir_rows(const struct cat_readdir *request, struct rows *rows)
{
	struct schema_key prefix;

	schema_key_number(&prefix, request->after_name ? SCHEMA_NAME : SCHEMA_COOKIE, request->parent);
	rows_open(rows, &prefix, KV_FORWARD);
	if (request->after_name) {
		schema_key_named(&rows->from, SCHEMA_NAME, request->parent, request->after_name);
		schema_key_u8(&rows->from, 0);
	} else {
		schema_key_pair(&rows->from, SCHEMA_COOKIE, request->parent, request->after + 1);
	}
	rows->batch = request->max < 256 ? request->max : 256;
}

static int readdir_entry(struct cat_txn *txn, const struct readdir *readdir, struct kv_bytes key, struct kv_bytes value)
{
	char text[CAT_NAME_MAX + 1] = {0};
	struct cat_inode inode;
	struct cat_name name;
	int rc = 0;

	if (readdir->request->after_name)
		rc = name_of_key(readdir->request->parent, key, text);
	else
		rc = schema_decode_filename(value, text);
	if (rc == 0)
		rc = cat_name_get(txn, readdir->request->parent, text, &name);
	if (rc == 0 && readdir->request->with_inodes)
		rc = cat_inode_get(txn, name.ino, &inode);
	if (rc < 0) /* a cookie whose name or inode is missing is damage, not an end */
		return cat_check_row(key, rc == -ENOENT ? -EBADMSG : rc);
	return readdir->visit(readdir->arg, &name, readdir->request->with_inodes ? &inode : NULL);
}

static int readdir_closure(struct cat_txn *txn, void *arg)
{
	const struct readdir *readdir = arg;
	const struct cat_readdir *request = readdir->request;
	struct kv_bytes key, value;
	struct cat_inode dir;
	struct rows rows;
	int rc = cat_inode_get(txn, request->parent, &dir);

	if (rc < 0)
		return rc;
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	if (request->after == UINT64_MAX)
		return 0;
	readdir_rows(request, &rows);
	for (size_t left = request->max; left > 0 && rc == 0; left--) {
		rc = rows_next(&rows, txn, &key, &value);
		if (rc == 0)
			rc = readdir_entry(txn, readdir, key, value);
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

int catalog_readdir(struct catalog *catalog, const struct cat_readdir *request, cat_readdir_visit visit, void *arg)
{
	struct readdir readdir = {.request = request, .visit = visit, .arg = arg};

	return catalog_view(catalog, readdir_closure, &readdir);
}

struct name_page {
	cat_link_visit visit;
	void *arg;
	uint64_t last;
	size_t count;
};

static int take_page(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct name_page *page = arg;

	(void)inode; /* not asked for */
	page->last = name->cookie;
	page->count++;
	return page->visit(page->arg, name);
}

int catalog_each_name(struct catalog *catalog, uint64_t dir, cat_link_visit visit, void *arg)
{
	struct name_page page = {.visit = visit, .arg = arg};
	int rc;

	do {
		struct cat_readdir request = {.parent = dir, .after = page.last, .max = NAMES_PAGE};

		page.count = 0;
		rc = catalog_readdir(catalog, &request, take_page, &page);
	} while (rc == 0 && page.count == NAMES_PAGE);
	return rc;
}

/* --- create and link ---------------------------------------------------------------------------- */

struct create {
	const struct cat_create *request;
	struct cat_inode inode;
};

/* The parent is a live directory and the name is free and possible. */
static int check_free(struct cat_txn *txn, uint64_t parent, const char *name)
{
	struct cat_inode dir;
	struct cat_name there;
	int rc = cat_dir_get(txn, parent, &dir);

	if (rc == 0)
		rc = cat_name_check(name);
	if (rc < 0)
		return rc;
	rc = cat_name_get(txn, parent, name, &there);
	if (rc == 0)
		return -EEXIST;
	return rc == -ENOENT ? new_name_check(txn, parent, name) : rc;
}

static void fill_new_inode(struct cat_txn *txn, const struct cat_create *request, struct cat_inode *ret_inode)
{
	bool is_dir = S_ISDIR(request->mode);
	int64_t now = cat_now(txn);

	*ret_inode = (struct cat_inode){
		.ino = cat_next_ino(txn),
		.mode = request->mode & S_IFMT ? request->mode : request->mode | S_IFREG,
		.uid = request->uid,
		.gid = request->gid,
		.nlink = is_dir ? 2 : 1,
		.rdev = request->rdev,
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
		.parent = is_dir ? request->parent : 0,
		/* A directory made here has no child that we do not know. */
		.flags = is_dir ? CAT_LISTED | (request->own_attrs ? CAT_OWN_ATTRS : 0) : 0,
		.listed_at = is_dir ? now : 0,
	};
	random_bytes(ret_inode->file_id, sizeof(ret_inode->file_id));
}

static int create_closure(struct cat_txn *txn, void *arg)
{
	struct create *create = arg;
	const struct cat_create *request = create->request;
	struct cat_inode *inode = &create->inode;
	struct cat_name name = {.parent = request->parent, .how = CAT_HOW_CREATE};
	int rc = check_free(txn, request->parent, request->name);

	if (rc < 0)
		return rc;
	fill_new_inode(txn, request, inode);
	if (S_ISLNK(inode->mode)) {
		inode->size = strlen(request->target);
		rc = cat_symlink_put(txn, inode->ino, request->target, (size_t)inode->size);
		if (rc < 0)
			return rc;
	}
	name.ino = inode->ino;
	name.since = cat_next_seq(txn);
	name.since_ns = cat_now(txn);
	name.type = inode->mode & S_IFMT;
	cat_name_set(name.name, request->name);
	if (S_ISDIR(inode->mode))
		rc = cat_dir_goes_on(txn, request->parent, request->name, inode);
	if (rc == 0)
		rc = cat_inode_put(txn, inode);
	if (rc == 0)
		rc = cat_file_put(txn, inode);
	if (rc == 0)
		rc = cat_bind(txn, &name);
	if (rc == 0)
		rc = cat_dir_touch(txn, request->parent, S_ISDIR(inode->mode) ? 1 : 0);
	if (rc == 0 && !S_ISREG(inode->mode))
		rc = cat_job_add(txn, CAT_JOB_PLACE, inode->ino, NULL);
	return rc;
}

int catalog_create(struct catalog *catalog, const struct cat_create *request, struct cat_inode *ret_inode)
{
	struct create create = {.request = request};
	int rc;

	if (S_ISLNK(request->mode) && !request->target)
		return -EINVAL;
	rc = catalog_update(catalog, create_closure, &create);
	if (rc == 0)
		*ret_inode = create.inode;
	return rc;
}

struct link {
	uint64_t ino, parent;
	const char *name;
	struct cat_inode inode;
};

static int link_closure(struct cat_txn *txn, void *arg)
{
	struct link *link = arg;
	struct cat_inode *inode = &link->inode;
	struct cat_name name = {.parent = link->parent, .ino = link->ino, .how = CAT_HOW_LINK};
	int rc = cat_inode_get(txn, link->ino, inode);

	if (rc < 0)
		return rc;
	if (S_ISDIR(inode->mode))
		return -EPERM;
	if (inode->nlink == 0)
		return -ENOENT;
	if (inode->nlink == UINT32_MAX)
		return -EMLINK;
	rc = check_free(txn, link->parent, link->name);
	if (rc < 0)
		return rc;
	name.since = cat_next_seq(txn);
	name.since_ns = cat_now(txn);
	name.type = inode->mode & S_IFMT;
	cat_name_set(name.name, link->name);
	inode->nlink++;
	inode->ctime = cat_now(txn);
	rc = cat_inode_put(txn, inode);
	if (rc == 0)
		rc = cat_bind(txn, &name);
	if (rc == 0)
		rc = cat_dir_touch(txn, link->parent, 0);
	return rc ? rc : cat_job_add(txn, CAT_JOB_PLACE, link->ino, NULL);
}

int catalog_link(struct catalog *catalog, uint64_t ino, uint64_t parent, const char *name, struct cat_actor actor,
		 struct cat_inode *ret_inode)
{
	struct link link = {.ino = ino, .parent = parent, .name = name};
	int rc = catalog_update(catalog, link_closure, &link);

	(void)actor; /* only endings are attributed; a link changes no content */
	if (rc == 0)
		*ret_inode = link.inode;
	return rc;
}

/* --- unlink and rmdir --------------------------------------------------------------------------- */

struct removal {
	uint64_t parent;
	const char *name;
	enum { REMOVE_FILE, REMOVE_DIR } what;
	struct cat_actor actor;
	struct cat_inode inode;
};

static int removal_closure(struct cat_txn *txn, void *arg)
{
	struct removal *removal = arg;
	struct cat_ending ending = {.how = CAT_HOW_UNLINK, .actor = removal->actor.uid};
	struct cat_inode dir;
	struct cat_name name;
	int rc = cat_dir_get(txn, removal->parent, &dir);

	if (rc == 0)
		rc = cat_name_get(txn, removal->parent, removal->name, &name);
	if (rc < 0)
		return rc;
	if (removal->what == REMOVE_FILE && name.type == S_IFDIR)
		return -EISDIR;
	if (removal->what == REMOVE_DIR && name.type != S_IFDIR)
		return -ENOTDIR;
	rc = name.type == S_IFDIR ? cat_dir_any(txn, name.ino) : 0;
	if (rc)
		return rc < 0 ? rc : -ENOTEMPTY;
	ending.until = cat_next_seq(txn);
	rc = lose_name(txn, &name, &ending, &removal->inode);
	if (rc == 0)
		rc = cat_dir_touch(txn, removal->parent, name.type == S_IFDIR ? -1 : 0);
	return rc ? rc : keep_empty_dir(txn, removal->parent);
}

static int remove_name(struct catalog *catalog, struct removal *removal, struct cat_unlinked *ret_unlinked)
{
	int rc = catalog_update(catalog, removal_closure, removal);

	if (rc == 0 && ret_unlinked)
		ret_unlinked->inode = removal->inode;
	return rc;
}

int catalog_unlink(struct catalog *catalog, uint64_t parent, const char *name, struct cat_actor actor,
		   struct cat_unlinked *ret_unlinked)
{
	struct removal removal = {.parent = parent, .name = name, .what = REMOVE_FILE, .actor = actor};

	return remove_name(catalog, &removal, ret_unlinked);
}

int catalog_rmdir(struct catalog *catalog, uint64_t parent, const char *name, struct cat_actor actor,
		  struct cat_unlinked *ret_unlinked)
{
	struct removal removal = {.parent = parent, .name = name, .what = REMOVE_DIR, .actor = actor};

	return remove_name(catalog, &removal, ret_unlinked);
}

/* --- rename ------------------------------------------------------------------------------------- */

struct rename {
	const struct cat_rename *request;
	struct cat_name source, target;
	bool has_target;
	struct cat_inode replaced;
};

/* Is `ancestor` the directory `dir` or above it? 1, 0, -errno. */
static int is_within(struct cat_txn *txn, uint64_t dir, uint64_t ancestor)
{
	struct cat_inode inode;

	for (int depth = 0; depth < CAT_DEPTH_MAX; depth++) {
		int rc;

		if (dir == ancestor)
			return 1;
		if (dir == CAT_ROOT_INO)
			return 0;
		rc = cat_inode_get(txn, dir, &inode);
		if (rc < 0)
			return rc;
		dir = inode.parent;
	}
	return -ELOOP;
}

static int rename_check_target(struct cat_txn *txn, const struct rename *rename)
{
	bool source_dir = rename->source.type == S_IFDIR, target_dir = rename->target.type == S_IFDIR;
	int rc;

	if (rename->request->flags & RENAME_EXCHANGE) {
		rc = target_dir ? is_within(txn, rename->request->parent, rename->target.ino) : 0;
		return rc == 1 ? -EINVAL : rc;
	}
	if (source_dir && !target_dir)
		return -ENOTDIR;
	if (!source_dir && target_dir)
		return -EISDIR;
	rc = target_dir ? cat_dir_any(txn, rename->target.ino) : 0;
	return rc == 1 ? -ENOTEMPTY : rc;
}

/* Finds both names and applies POSIX's rules. 1: both are one inode, nothing is to be done. */
static int rename_check(struct cat_txn *txn, struct rename *rename)
{
	const struct cat_rename *request = rename->request;
	struct cat_inode dir;
	int rc = cat_dir_get(txn, request->parent, &dir);

	if (rc == 0)
		rc = cat_dir_get(txn, request->new_parent, &dir);
	if (rc == 0)
		rc = cat_name_check(request->new_name);
	if (rc == 0)
		rc = cat_name_get(txn, request->parent, request->name, &rename->source);
	if (rc < 0)
		return rc;
	rc = cat_name_get(txn, request->new_parent, request->new_name, &rename->target);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	rename->has_target = rc == 0;
	if (rename->has_target && request->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (!rename->has_target && request->flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (rename->has_target && rename->target.ino == rename->source.ino)
		return 1;
	if (rename->source.type == S_IFDIR) {
		rc = is_within(txn, request->new_parent, rename->source.ino);
		if (rc)
			return rc == 1 ? -EINVAL : rc;
	}
	if (rename->has_target)
		return rename_check_target(txn, rename);
	return new_name_check(txn, request->new_parent, request->new_name);
}

/* The inode that now holds `bound` instead of a name at `old_key`: its ctime, its parent and its job. */
static int moved(struct cat_txn *txn, const struct cat_name *bound, const char *old_key)
{
	struct cat_inode inode;
	int rc = cat_inode_get(txn, bound->ino, &inode);

	if (rc < 0)
		return rc;
	inode.ctime = cat_now(txn);
	if (S_ISDIR(inode.mode))
		inode.parent = bound->parent;
	rc = cat_inode_put(txn, &inode);
	if (rc < 0)
		return rc;
	if (S_ISDIR(inode.mode))
		return cat_job_add(txn, CAT_JOB_TREE, inode.ino, old_key);
	rc = inode.nlink > 1 ? 1 : concerns_store(txn, &inode, old_key);
	return rc == 1 ? cat_job_add(txn, CAT_JOB_PLACE, inode.ino, old_key) : rc;
}

/* Ends `from`, whose inode takes the name (parent, name) at sequence `seq`. */
static void moved_name(struct cat_txn *txn, const struct cat_name *from, const struct cat_name *to,
		       struct cat_name *ret_bound)
{
	*ret_bound = (struct cat_name){
		.parent = to->parent,
		.ino = from->ino,
		.since = to->since,
		.since_ns = cat_now(txn),
		.cookie = to->cookie,
		.type = from->type,
		.how = CAT_HOW_RENAME,
		.from_parent = from->parent,
	};
	cat_name_set(ret_bound->from_name, from->name);
	cat_name_set(ret_bound->name, to->name);
}

static int touch_parents(struct cat_txn *txn, const struct cat_rename *request, int old_change, int new_change)
{
	int rc;

	if (request->parent == request->new_parent)
		return cat_dir_touch(txn, request->parent, old_change + new_change);
	rc = cat_dir_touch(txn, request->parent, old_change);
	return rc ? rc : cat_dir_touch(txn, request->new_parent, new_change);
}

static int rename_replace(struct cat_txn *txn, struct rename *rename)
{
	const struct cat_rename *request = rename->request;
	uint64_t seq = cat_next_seq(txn);
	struct cat_ending ending = {.how = CAT_HOW_REPLACE, .until = seq, .actor = request->actor.uid};
	struct cat_name to = {.parent = request->new_parent, .since = seq}, bound;
	bool is_dir = rename->source.type == S_IFDIR;
	AUTO_BUF old_key = BUF_INIT;
	int rc = cat_key_of_name(txn, request->parent, request->name, &old_key);

	if (rc < 0)
		return rc;
	if (rename->has_target) {
		rc = lose_name(txn, &rename->target, &ending, &rename->replaced);
		if (rc < 0)
			return rc;
		to.cookie = rename->target.cookie;
	}
	ending.how = CAT_HOW_RENAME;
	ending.to_parent = request->new_parent;
	ending.to_name = request->new_name;
	cat_name_set(to.name, request->new_name);
	moved_name(txn, &rename->source, &to, &bound);
	rc = cat_end(txn, &rename->source, &ending);
	if (rc == 0)
		rc = cat_bind(txn, &bound);
	if (rc == 0)
		rc = moved(txn, &bound, old_key.data);
	if (rc == 0)
		rc = touch_parents(txn, request, is_dir ? -1 : 0, is_dir && !rename->has_target ? 1 : 0);
	return rc ? rc : keep_empty_dir(txn, request->parent);
}

/* Each name ends and is taken again at one sequence number of its own: neither was ever free. */
static int rename_exchange(struct cat_txn *txn, struct rename *rename)
{
	const struct cat_rename *request = rename->request;
	const struct cat_name *source = &rename->source, *target = &rename->target;
	struct cat_ending source_end = {.how = CAT_HOW_RENAME,
					.until = cat_next_seq(txn),
					.to_parent = target->parent,
					.to_name = target->name,
					.actor = request->actor.uid};
	struct cat_ending target_end = {.how = CAT_HOW_RENAME,
					.until = cat_next_seq(txn),
					.to_parent = source->parent,
					.to_name = source->name,
					.actor = request->actor.uid};
	struct cat_name at_source = *source, at_target = *target, bound_source, bound_target;
	AUTO_BUF source_key = BUF_INIT;
	AUTO_BUF target_key = BUF_INIT;
	int shift = (target->type == S_IFDIR) - (source->type == S_IFDIR);
	int rc = cat_key_of_name(txn, source->parent, source->name, &source_key);

	if (rc == 0)
		rc = cat_key_of_name(txn, target->parent, target->name, &target_key);
	if (rc == 0)
		rc = cat_end(txn, source, &source_end);
	if (rc == 0)
		rc = cat_end(txn, target, &target_end);
	if (rc < 0)
		return rc;
	at_source.since = source_end.until;
	at_target.since = target_end.until;
	moved_name(txn, target, &at_source, &bound_source);
	moved_name(txn, source, &at_target, &bound_target);
	rc = cat_bind(txn, &bound_source);
	if (rc == 0)
		rc = cat_bind(txn, &bound_target);
	if (rc == 0)
		rc = moved(txn, &bound_target, source_key.data);
	if (rc == 0)
		rc = moved(txn, &bound_source, target_key.data);
	return rc ? rc : touch_parents(txn, request, shift, -shift);
}

static int rename_closure(struct cat_txn *txn, void *arg)
{
	struct rename *rename = arg;
	int rc;

	rename->replaced = (struct cat_inode){0};
	rc = rename_check(txn, rename);
	if (rc)
		return rc < 0 ? rc : 0;
	if (rename->request->flags & RENAME_EXCHANGE)
		return rename_exchange(txn, rename);
	return rename_replace(txn, rename);
}

int catalog_rename(struct catalog *catalog, const struct cat_rename *request, struct cat_unlinked *ret_replaced)
{
	struct rename rename = {.request = request};
	int rc;

	if (request->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    request->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	rc = catalog_update(catalog, rename_closure, &rename);
	if (rc == 0 && ret_replaced)
		ret_replaced->inode = rename.replaced;
	return rc;
}

/* --- attributes --------------------------------------------------------------------------------- */

struct setattr {
	uint64_t ino;
	unsigned mask;
	const struct cat_inode *values;
	struct cat_inode inode;
};

/* A directory with attributes of its own is worth an object, from the first of them on. */
static int own_attrs(struct cat_txn *txn, struct cat_inode *inode)
{
	if (!S_ISDIR(inode->mode) || inode->flags & CAT_OWN_ATTRS)
		return 0;
	inode->flags |= CAT_OWN_ATTRS;
	return inode->ino == CAT_ROOT_INO ? 0 : cat_job_add(txn, CAT_JOB_PLACE, inode->ino, NULL);
}

static int setattr_closure(struct cat_txn *txn, void *arg)
{
	struct setattr *set = arg;
	const struct cat_inode *values = set->values;
	struct cat_inode *inode = &set->inode;
	int rc = cat_inode_get(txn, set->ino, inode);

	if (rc < 0)
		return rc;
	if (set->mask & CAT_SET_MODE)
		inode->mode = (inode->mode & S_IFMT) | (values->mode & 07777);
	if (set->mask & CAT_DROP_PRIVILEGES)
		inode->mode &= ~(uint32_t)(S_ISUID | (inode->mode & S_IXGRP ? S_ISGID : 0));
	if (set->mask & CAT_SET_UID)
		inode->uid = values->uid;
	if (set->mask & CAT_SET_GID)
		inode->gid = values->gid;
	if (set->mask & CAT_SET_ATIME)
		inode->atime = values->atime;
	if (set->mask & CAT_SET_MTIME)
		inode->mtime = values->mtime;
	if (set->mask & CAT_SET_SIZE)
		inode->size = values->size;
	inode->ctime = set->mask & CAT_SET_CTIME ? values->ctime : cat_now(txn);
	if (set->mask & (CAT_SET_MODE | CAT_SET_UID | CAT_SET_GID | CAT_SET_MTIME))
		rc = own_attrs(txn, inode);
	return rc ? rc : cat_inode_put(txn, inode);
}

int catalog_setattr(struct catalog *catalog, uint64_t ino, unsigned mask, const struct cat_inode *values,
		    struct cat_inode *ret_inode)
{
	struct setattr set = {.ino = ino, .mask = mask, .values = values};
	int rc = catalog_update(catalog, setattr_closure, &set);

	if (rc == 0 && ret_inode)
		*ret_inode = set.inode;
	return rc;
}

/* --- xattrs ------------------------------------------------------------------------------------- */

struct xattr {
	uint64_t ino;
	const char *name;
	const void *value;
	size_t len;
	enum cat_xattr_mode mode;
	struct buf *out;
	size_t total; /* names and values of the others */
	bool found;
};

static int xattr_name_check(const char *name)
{
	size_t len = strnlen(name, CAT_NAME_MAX + 1);

	return len == 0 || len > CAT_NAME_MAX ? -ERANGE : 0;
}

static int xattr_get_closure(struct cat_txn *txn, void *arg)
{
	const struct xattr *xattr = arg;
	struct kv_bytes value, blob;
	struct schema_key key;
	int rc;

	schema_key_named(&key, SCHEMA_XATTR, xattr->ino, xattr->name);
	rc = cat_get(txn, &key, &value);
	if (rc == 0)
		rc = cat_check_row(schema_bytes(&key), schema_decode_blob(value, &blob));
	if (rc < 0)
		return rc == -ENOENT ? -ENODATA : rc;
	buf_reset(xattr->out);
	buf_add(xattr->out, blob.data, blob.len);
	return buf_failed(xattr->out) ? -ENOMEM : 0;
}

int catalog_xattr_get(struct catalog *catalog, uint64_t ino, const char *name, struct buf *ret_value)
{
	struct xattr xattr = {.ino = ino, .name = name, .out = ret_value};
	int rc = xattr_name_check(name);

	return rc ? rc : catalog_view(catalog, xattr_get_closure, &xattr);
}

static int xattr_weigh(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct xattr *xattr = arg;
	struct schema_parts parts;
	int rc = cat_check_row(key, schema_parse(key, &parts));

	if (rc < 0)
		return rc;
	if (parts.name_len == strlen(xattr->name) && memcmp(parts.name, xattr->name, parts.name_len) == 0)
		xattr->found = true;
	else
		xattr->total += parts.name_len + value.len;
	return 0;
}

/* The inode's ctime, and a directory's mark, after a change of its xattrs. */
static int xattr_touch(struct cat_txn *txn, struct cat_inode *inode)
{
	int rc = own_attrs(txn, inode);

	inode->ctime = cat_now(txn);
	return rc ? rc : cat_inode_put(txn, inode);
}

static int xattr_scan(struct cat_txn *txn, uint64_t ino, kv_visit visit, void *arg)
{
	struct schema_key from, to;

	schema_key_number(&from, SCHEMA_XATTR, ino);
	schema_key_after(&to, &from);
	return kv_scan(txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, visit, arg);
}

struct xattr_walk {
	cat_xattr_visit visit;
	void *arg;
};

static int xattr_show(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	const struct xattr_walk *walk = arg;
	char name[CAT_NAME_MAX + 1];
	struct schema_parts parts;
	struct kv_bytes blob = {0};
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = parts.name_len > CAT_NAME_MAX ? -EBADMSG : schema_decode_blob(value, &blob);
	rc = cat_check_row(key, rc);
	if (rc < 0)
		return rc;
	memcpy(name, parts.name, parts.name_len);
	name[parts.name_len] = '\0';
	return walk->visit(walk->arg, name, blob.data, blob.len);
}

int cat_xattr_each(struct cat_txn *txn, uint64_t ino, cat_xattr_visit visit, void *arg)
{
	struct xattr_walk walk = {.visit = visit, .arg = arg};

	return xattr_scan(txn, ino, xattr_show, &walk);
}

static int xattr_set_closure(struct cat_txn *txn, void *arg)
{
	struct xattr *xattr = arg;
	struct cat_inode inode;
	struct schema_key key;
	struct buf *value;
	int rc = cat_inode_get(txn, xattr->ino, &inode);

	if (rc < 0)
		return rc;
	xattr->total = 0;
	xattr->found = false;
	rc = xattr_scan(txn, xattr->ino, xattr_weigh, xattr);
	if (rc < 0)
		return rc;
	if (xattr->mode == CAT_XATTR_CREATE && xattr->found)
		return -EEXIST;
	if (xattr->mode == CAT_XATTR_REPLACE && !xattr->found)
		return -ENODATA;
	if (xattr->len > XATTR_TOTAL_MAX || xattr->total + strlen(xattr->name) + xattr->len > XATTR_TOTAL_MAX)
		return -ENOSPC;
	value = cat_scratch(txn);
	schema_key_named(&key, SCHEMA_XATTR, xattr->ino, xattr->name);
	schema_encode_blob(xattr->value, xattr->len, value);
	rc = cat_put(txn, &key, value);
	return rc ? rc : xattr_touch(txn, &inode);
}

int catalog_xattr_set(struct catalog *catalog, uint64_t ino, const char *name, const void *value, size_t len,
		      enum cat_xattr_mode mode)
{
	struct xattr xattr = {.ino = ino, .name = name, .value = value, .len = len, .mode = mode};
	int rc = xattr_name_check(name);

	return rc ? rc : catalog_update(catalog, xattr_set_closure, &xattr);
}

static int xattr_remove_closure(struct cat_txn *txn, void *arg)
{
	const struct xattr *xattr = arg;
	struct cat_inode inode;
	struct schema_key key;
	struct kv_bytes value;
	int rc = cat_inode_get(txn, xattr->ino, &inode);

	if (rc < 0)
		return rc;
	schema_key_named(&key, SCHEMA_XATTR, xattr->ino, xattr->name);
	rc = cat_get(txn, &key, &value);
	if (rc == 0)
		rc = cat_delete(txn, &key);
	if (rc < 0)
		return rc == -ENOENT ? -ENODATA : rc;
	return xattr_touch(txn, &inode);
}

int catalog_xattr_remove(struct catalog *catalog, uint64_t ino, const char *name)
{
	struct xattr xattr = {.ino = ino, .name = name};
	int rc = xattr_name_check(name);

	return rc ? rc : catalog_update(catalog, xattr_remove_closure, &xattr);
}

static int xattr_take_name(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct buf *names = arg;
	struct schema_parts parts;
	int rc = cat_check_row(key, schema_parse(key, &parts));

	(void)value;
	if (rc < 0)
		return rc;
	buf_add(names, parts.name, parts.name_len);
	buf_addc(names, '\0');
	return 0;
}

static int xattr_list_closure(struct cat_txn *txn, void *arg)
{
	const struct xattr *xattr = arg;
	int rc;

	buf_reset(xattr->out);
	rc = xattr_scan(txn, xattr->ino, xattr_take_name, xattr->out);
	if (rc < 0)
		return rc;
	return buf_failed(xattr->out) ? -ENOMEM : 0;
}

int catalog_xattr_list(struct catalog *catalog, uint64_t ino, struct buf *ret_names)
{
	struct xattr xattr = {.ino = ino, .out = ret_names};

	return catalog_view(catalog, xattr_list_closure, &xattr);
}
