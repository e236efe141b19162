/*
 * adopt.c - takes listings of the store into the catalog. (What HEADs tell: resolve.c; older versions:
 * adopt_versions.c; the past alone: adopt_deleted.c.)
 *
 * Who is believed
 *  - What we changed and the store does not have yet always wins: a name is left
 *    alone while a job is pending on its inode, its key or a directory above, while
 *    its file is dirty or its version not stored, and when it changed, or such a job
 *    ended, after the listing was begun (watch.c).
 *  - Otherwise the store wins. Content is never changed in place: another object
 *    under a known key is a new inode that takes the name.
 *
 * A listing is worked off in updates of at most BATCH names: first the names that
 * vanished, then what was found; `listed_at` is set by the last update only, so
 * that a crash in between just lists again.
 *
 * `a` beside `a/…`: the directory has the name, the file its clash name.
 *
 * Threads: any. `changed` callbacks run between the updates, without locks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "cleanup.h"
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

static int clash_name(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found,
		      struct buf *ret_name)
{
	AUTO_BUF component = BUF_INIT;
	int rc = cat_found_component(txn, adopt->request->dir, found, &component);

	if (rc < 0)
		return rc;
	escape_clash(component.data, component.len, ret_name);
	return buf_failed(ret_name) ? -ENOMEM : 0;
}

static int note_change(struct adopt *adopt, const char *name, uint64_t ino)
{
	adopt->touched = true;
	return cat_change_note(&adopt->changes, adopt->request->dir, name, ino);
}

/* Is a job pending on this inode, on this key or on a key beneath this prefix, or was there one since the listing was
 * begun? 1, 0, -errno. */
static int busy_inode(struct cat_txn *txn, const struct adopt *adopt, uint64_t ino)
{
	return cat_watch_inode(adopt->request->watch, ino) ? 1 : cat_jobs_on_inode(txn, ino);
}

static int busy_key(struct cat_txn *txn, const struct adopt *adopt, const char *key)
{
	return cat_watch_key(adopt->request->watch, key) ? 1 : cat_jobs_on_key(txn, key);
}

static int busy_beneath(struct cat_txn *txn, const struct adopt *adopt, const char *prefix)
{
	return cat_watch_key(adopt->request->watch, prefix) ? 1 : cat_jobs_beneath(txn, prefix);
}

/* Is a job pending, or was there one, that concerns this directory or moves one above it? 1, 0, -errno. */
static int held_above(struct cat_txn *txn, const struct adopt *adopt)
{
	AUTO_FREE char *key = strdup(adopt->dir_key.data);
	struct schema_key jobs;
	char *slash;
	int rc;

	if (!key)
		return -ENOMEM;
	if (cat_watch_above(adopt->request->watch))
		return 1;
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
	rc = held_above(txn, adopt);
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
	rc = busy_inode(txn, adopt, name->ino);
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

/* Did a name that is free now end after the listing was begun? 1, 0, -errno. */
static int ended_lately(struct cat_txn *txn, const struct adopt *adopt, const struct cat_found *found, const char *name)
{
	struct cat_past past;
	int rc = cat_past_last(txn, adopt->request->dir, name, &past);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
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
	if (S_ISREG(inode.mode) && inode.nlink == 0) {
		inode.flags |= CAT_TAKEN;
		inode.taken = until;
	}
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
	rc = busy_key(txn, adopt, key);
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
		rc = busy_key(txn, vanish->adopt, key);
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

/* A new inode takes `name`; `replaced`, if any, loses it. */
static int put_newcomer(struct cat_txn *txn, struct adopt *adopt, const struct cat_found *found, const char *name,
			const struct cat_name *replaced)
{
	struct cat_name bound = {.parent = adopt->request->dir, .how = CAT_HOW_ADOPT, .since_ns = cat_now(txn)};
	struct cat_inode inode;
	int rc = 0;

	cat_found_inode(txn, adopt->request, found, &inode);
	if (S_ISDIR(inode.mode) && !adopt->was_listed)
		inode.btime = adopt->oldest; /* it may have been there all along; else it came after the last listing */
	if (cat_found_is_ours(found))
		cat_seq_above(txn, found->seq);
	if (S_ISREG(inode.mode))
		rc = cat_found_put_content(txn, found, &inode);
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
		rc = cat_found_put_component(txn, adopt->request->dir, found, name);
	if (rc == 0)
		rc = cat_inode_put(txn, &inode);
	if (rc == 0)
		rc = cat_file_put(txn, &inode);
	if (rc == 0)
		rc = cat_bind(txn, &bound);
	if (rc == 0)
		rc = cat_found_put_key(txn, found, &inode);
	if (rc == 0)
		rc = cat_found_put_attributes(txn, found, inode.ino);
	if (rc == 0)
		rc = cat_found_meet_links(txn, found, &inode, &adopt->changes);
	adopt->nlink_change += S_ISDIR(inode.mode);
	if (rc < 0 || !(replaced || adopt->was_listed))
		return rc;
	return note_change(adopt, name, replaced ? replaced->ino : 0);
}

/* --- one found object --------------------------------------------------------------------------- */

struct meeting {              /* what the catalog has where the object was found */
	struct cat_name name; /* the live name that the object's inode has or would take */
	bool lives;
	struct cat_key record;
	bool recorded;
};

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
	rc = cat_resolve_inode(txn, found, &inode, &adopt->changes);
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

/*
 * Nothing of the name's lies at its key, and no job is on its way there: because others' object was there first? Of
 * content its version tells. What is made from the catalog alone, a symlink or a file's further name, lies nowhere for
 * no other reason. 1, 0, -errno.
 */
static int gave_way(struct cat_txn *txn, const struct cat_name *name)
{
	struct cat_name first;
	int rc;

	if (name->type != S_IFREG)
		return 1;
	rc = cat_first_name(txn, name->ino, &first);
	if (rc < 0)
		return rc;
	if (first.parent != name->parent || strcmp(first.name, name->name) != 0)
		return 1;
	return stands_aside(txn, name->ino);
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
		rc = gave_way(txn, &meeting->name);
		return rc == 1 ? put_newcomer(txn, adopt, found, meeting->name.name, &meeting->name) : rc;
	}
	if (cat_found_is_at(found, &meeting->record))
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
		rc = busy_inode(txn, adopt, meeting->record.ino);
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
		rc = cat_found_put_component(txn, adopt->request->dir, found, clash.data);
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
		/* What a directory of this name held may be on its way elsewhere. */
		rc = busy_beneath(txn, adopt, found->key);
		return rc ? (rc < 0 ? rc : 0) : meet_free(txn, adopt, found, meeting);
	}
	if (rc == 0 && meeting->name.type != S_IFDIR)
		return meet_file(txn, adopt, found, meeting);
	if (rc < 0)
		return rc;
	if (!found->etag && !found->native_id && !found->resolved)
		return 0;
	if (meeting->recorded && cat_found_is_at(found, &meeting->record) && !found->resolved)
		return 0;
	rc = is_settled(txn, adopt, &meeting->name);
	if (rc <= 0)
		return rc;
	rc = cat_inode_get(txn, meeting->name.ino, &inode);
	if (rc < 0)
		return rc;
	if (found->resolved && inode.flags & CAT_UNRESOLVED)
		return cat_resolve_inode(txn, found, &inode, &adopt->changes);
	return cat_found_put_key(txn, found, &inode);
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
	rc = busy_key(txn, adopt, bare.data);
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
