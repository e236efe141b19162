/*
 * versions.c - lookup, attributes and content in `.versions`.
 *
 * Every operation turns a node number into its key, answers from the catalog by
 * the key, and keeps nothing; only histories are cached, a few, because each of
 * the lookups that follow a listing would read the whole of it again.
 *
 * A cached history is used as it is for a name found in it, which means the
 * same for ever; whatever is not found, or is relative to the newest entry, is
 * answered from one that is as new as the catalog.
 */
#include "fs/versions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/content.h"
#include "fs/reconcile.h"
#include "fs/versions_attr.h"
#include "fs/versions_internal.h"
#include "fs/versions_log.h"
#include "fs/xattr_varve.h"
#include "log.h"

#define DEFAULT_PATIENCE (10 * NS_PER_SEC)
#define GMT_PREFIX "@GMT-"

/* --- the store ------------------------------------------------------------------------------------------ */

static struct call patient_call(const struct versions *versions)
{
	return (struct call){.deadline_ns = clock_monotonic() + versions->store_patience_ns};
}

/* For what the catalog can answer without. */
static struct call hasty_call(const struct versions *versions)
{
	struct call call = patient_call(versions);

	call.hasty = true;
	return call;
}

/* Nothing is asked while the store is known to be out of reach: all else that is done with it shows when it is back. */
static bool is_silent(const struct versions *versions)
{
	return !versions->reconcile || reconcile_offline(versions->reconcile);
}

int versions_prepare_directory(struct versions *versions, uint64_t dir)
{
	struct call call = patient_call(versions);
	struct call hasty = hasty_call(versions);
	struct cat_inode inode;
	struct err err = {0};
	int ret = catalog_getattr(versions->catalog, dir, &inode);

	if (ret)
		return ret;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	if (!versions->reconcile)
		return 0;
	if (inode.nlink && !(inode.flags & CAT_LISTED))
		ret = reconcile_directory(versions->reconcile, dir, &call, &err);
	if (ret) {
		log_warn("versions", "directory %llu was never listed and cannot be: %s", (unsigned long long)dir,
			 err.message);
		return ret;
	}
	/* What others deleted before we saw it. What the store does not tell in time is not shown this time. */
	if (!is_silent(versions) && reconcile_past(versions->reconcile, dir, &hasty, &err))
		log_info("versions", "what others deleted in directory %llu: %s", (unsigned long long)dir, err.message);
	return 0;
}

/* Owner and mode of an inode known from a listing only: without them nobody can tell who may read its versions. */
static void resolve(struct versions *versions, const struct cat_inode *inode)
{
	struct call call = hasty_call(versions);
	struct err err = {0};

	if (!inode->nlink || !(inode->flags & CAT_UNRESOLVED))
		return;
	if (reconcile_resolve(versions->reconcile, inode->ino, &call, NULL, &err))
		log_debug("versions", "inode %llu: %s", (unsigned long long)inode->ino, err.message);
}

static int take_last(void *arg, const struct cat_past *past)
{
	*(uint64_t *)arg = past->ino;
	return 0;
}

/* Who has the name, or had it last and has no other: whoever removed him need not have known what came before him. */
static int holder_of(const struct versions *versions, uint64_t dir, const char *name, struct cat_inode *ret_inode)
{
	uint64_t last = 0;
	int ret = catalog_lookup(versions->catalog, dir, name, ret_inode);

	if (ret != -ENOENT)
		return ret;
	ret = catalog_past(versions->catalog, dir, name, take_last, &last);
	if (!ret)
		ret = last ? catalog_getattr(versions->catalog, last, ret_inode) : -ENOENT;
	return !ret && ret_inode->nlink ? -ENOENT : ret;
}

/* What the store does not tell in time is not shown this time: the catalog's own history is. */
void versions_prepare_name(struct versions *versions, uint64_t dir, const char *name)
{
	struct call call;
	struct cat_inode inode;
	struct err err = {0};

	if (holder_of(versions, dir, name, &inode) || !S_ISREG(inode.mode))
		return;
	if (versions->contents && content_settle(versions->contents, inode.ino))
		log_warn("versions", "the newest change of inode %llu has no version yet",
			 (unsigned long long)inode.ino);
	if (is_silent(versions))
		return;
	resolve(versions, &inode);
	call = hasty_call(versions);
	if (reconcile_versions(versions->reconcile, inode.ino, &call, &err))
		log_info("versions", "versions of inode %llu made by others: %s", (unsigned long long)inode.ino,
			 err.message);
}

/* --- cached histories ------------------------------------------------------------------------------------- */

static bool is_of(const struct versions_history *history, uint64_t dir, const char *name)
{
	return history && history->dir == dir && !strcmp(history->name, name);
}

static struct versions_history *cached_history(struct versions *versions, uint64_t dir, const char *name)
{
	LOCK_GUARD(&versions->lock);
	for (int i = 0; i < VERSIONS_CACHED; i++) {
		if (!is_of(versions->cached[i].history, dir, name))
			continue;
		versions->cached[i].used = ++versions->ticks;
		return versions_history_ref(versions->cached[i].history);
	}
	return NULL;
}

/* Takes a reference of its own. In place of the same name's, else of the one unused for longest. */
static void cache_history(struct versions *versions, struct versions_history *history)
{
	struct versions_history *out;
	int at = 0;

	{
		LOCK_GUARD(&versions->lock);
		for (int i = 0; i < VERSIONS_CACHED; i++) {
			if (is_of(versions->cached[i].history, history->dir, history->name)) {
				at = i;
				break;
			}
			if (versions->cached[i].used < versions->cached[at].used)
				at = i;
		}
		out = versions->cached[at].history;
		versions->cached[at].history = versions_history_ref(history);
		versions->cached[at].used = ++versions->ticks;
	}
	versions_history_put(out);
}

int versions_history_get(struct versions *versions, uint64_t dir, const char *name, enum versions_freshness freshness,
			 struct versions_history **ret_history)
{
	struct versions_history *history = cached_history(versions, dir, name);
	int ret;

	if (history && (freshness == VERSIONS_ANY || history->number == catalog_number(versions->catalog))) {
		*ret_history = history;
		return 0;
	}
	versions_history_put(history);
	versions_prepare_name(versions, dir, name);
	ret = versions_history_load(versions->catalog, dir, name, &history);
	if (ret)
		return ret;
	cache_history(versions, history);
	*ret_history = history;
	return 0;
}

/* --- names and keys ----------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum versions_kind kind;
} specials[] = {
	{"+log", VERSIONS_LOG},
	{"+deleted", VERSIONS_DELETED},
	{"+at", VERSIONS_AT_LIST},
	{"+gmt", VERSIONS_GMT_LIST},
};

static enum versions_kind versions_special(const char *shown)
{
	for (size_t i = 0; i < ARRAY_SIZE(specials); i++) {
		if (!strcmp(shown, specials[i].name))
			return specials[i].kind;
	}
	return 0;
}

/* Is it a special name behind one or more '+'? Those, and only those, are shifted by one '+'. */
static bool is_shifted(const char *name)
{
	while (name[0] == '+' && name[1] == '+')
		name++;
	return versions_special(name) != 0;
}

void versions_plus(const char *name, struct buf *ret_shown)
{
	if (is_shifted(name))
		buf_addc(ret_shown, '+');
	buf_adds(ret_shown, name);
}

static const char *versions_unplus(const char *shown)
{
	return is_shifted(shown) ? shown + 1 : shown;
}

static void set_name(struct versions_key *key, const char *name)
{
	(void)snprintf(key->name, sizeof(key->name), "%s", name); /* callers' names are no longer than CAT_NAME_MAX */
}

struct versions_key versions_key_of_name(uint64_t dir, const char *name)
{
	struct versions_key key = {.kind = VERSIONS_NAME, .dir = dir};

	set_name(&key, name);
	return key;
}

static struct versions_key key_of_object(const struct versions_key *parent, const char *name, uint64_t ino,
					 uint64_t seq)
{
	struct versions_key key = {
		.kind = seq ? VERSIONS_VERSION : VERSIONS_INODE,
		.dir = parent->dir,
		.ino = ino,
		.seq = seq,
	};

	set_name(&key, name);
	return key;
}

struct versions_key versions_key_of_item(const struct versions_key *parent, const struct versions_history_item *item)
{
	return key_of_object(parent, parent->name, item->ino, item->seq);
}

struct versions_key versions_key_of_entry(const struct versions_key *parent, const char *name,
					  const struct versions_at_entry *entry)
{
	if (S_ISDIR(entry->type))
		return (struct versions_key){
			.kind = parent->kind, .dir = entry->ino, .seq = parent->seq, .when_ns = parent->when_ns};
	return key_of_object(parent, name, entry->ino, entry->seq);
}

static const char *without_at(const char *name)
{
	return name[0] == '@' && strncmp(name, GMT_PREFIX, strlen(GMT_PREFIX)) != 0 ? name + 1 : name;
}

/* Does the text name the same instant whenever it is asked? Ages do not. */
static bool is_absolute(const char *name)
{
	const char *text = without_at(name);
	int64_t then, later;

	return !clock_parse_when(text, 0, &then) && !clock_parse_when(text, NS_PER_SEC, &later) && then == later;
}

int versions_key_of_time(const struct versions_key *parent, const char *name, struct versions_key *ret_key)
{
	int64_t when_ns;

	if (parent->kind == VERSIONS_GMT_LIST && strncmp(name, GMT_PREFIX, strlen(GMT_PREFIX)) != 0)
		return -ENOENT;
	if (clock_parse_when(without_at(name), clock_wall(), &when_ns))
		return -ENOENT;
	/* One node a second for those who ask for an age again and again. */
	if (!is_absolute(name))
		when_ns -= when_ns % NS_PER_SEC;
	*ret_key =
		(struct versions_key){.kind = VERSIONS_AT, .dir = parent->dir, .seq = parent->seq, .when_ns = when_ns};
	return 0;
}

/* --- lookup --------------------------------------------------------------------------------------------------- */

struct child {
	struct versions_key key;
	bool immutable;
};

struct ever {
	uint64_t dir;
	const char *name;
};

static int get_live(struct cat_txn *txn, void *arg)
{
	const struct ever *ever = arg;
	struct cat_name name;

	return cat_name_get(txn, ever->dir, ever->name, &name);
}

static int stop_at_first(void *arg, const struct cat_past *past)
{
	(void)arg;
	(void)past; /* that there is one says it all */
	return 1;
}

static int has_ever_lived(struct catalog *catalog, uint64_t dir, const char *name)
{
	struct ever ever = {.dir = dir, .name = name};
	int ret = catalog_view(catalog, get_live, &ever);

	if (ret != -ENOENT)
		return ret;
	ret = catalog_past(catalog, dir, name, stop_at_first, NULL);
	if (ret == 1)
		return 0;
	return ret ? ret : -ENOENT;
}

static int find_in_dir(struct versions *versions, const struct versions_key *parent, const char *name,
		       struct child *ret_child)
{
	enum versions_kind special = versions_special(name);
	int ret;

	ret_child->immutable = true;
	if (special) {
		ret_child->key = (struct versions_key){.kind = special, .dir = parent->dir, .seq = parent->seq};
		return 0;
	}
	name = versions_unplus(name);
	ret = has_ever_lived(versions->catalog, parent->dir, name);
	if (ret == -ENOENT) {
		ret = versions_prepare_directory(versions, parent->dir);
		if (!ret)
			ret = has_ever_lived(versions->catalog, parent->dir, name);
	}
	if (ret == -ENOENT && *versions_meant(versions, name)) {
		name = versions_meant(versions, name);
		ret = has_ever_lived(versions->catalog, parent->dir, name);
	}
	if (!ret) {
		ret_child->key = versions_key_of_name(parent->dir, name);
		ret_child->key.seq = parent->seq;
	}
	return ret;
}

static int find_in_name(struct versions *versions, const struct versions_key *parent, const char *name,
			struct child *ret_child)
{
	const struct versions_history_item *item;
	struct versions_history *history;
	int ret = versions_history_get(versions, parent->dir, parent->name, VERSIONS_ANY, &history);

	if (ret)
		return ret;
	item = versions_history_find(history, name);
	ret_child->immutable = item != NULL;
	if (!item) {
		versions_history_put(history);
		ret = versions_history_get(versions, parent->dir, parent->name, VERSIONS_CURRENT, &history);
		if (ret)
			return ret;
		item = versions_history_find(history, name);
		ret_child->immutable = item != NULL;
	}
	if (!item)
		item = versions_history_alias(history, name, clock_wall());
	if (item)
		ret_child->key = versions_key_of_item(parent, item);
	else
		ret = -ENOENT;
	versions_history_put(history);
	return ret;
}

static int look_in_past(struct versions *versions, const struct versions_key *parent, const char *name,
			struct versions_at_entry *ret_entry)
{
	return parent->kind == VERSIONS_AT
		       ? versions_at_lookup(versions->catalog, parent->dir, name, parent->when_ns, ret_entry)
		       : versions_at_deleted_lookup(versions->catalog, parent->dir, name, ret_entry);
}

static int find_in_past(struct versions *versions, const struct versions_key *parent, const char *name,
			struct child *ret_child)
{
	struct versions_at_entry entry;
	struct cat_inode inode;
	int ret;

	/* Its st_ino is that of the live directory's, so it tells which one this was. */
	if (versions_is_snapdir(versions, name)) {
		ret_child->key =
			(struct versions_key){.kind = VERSIONS_DIR, .dir = parent->dir, .seq = parent->seq + 1};
		ret_child->immutable = true;
		return 0;
	}
	ret = versions_prepare_directory(versions, parent->dir);
	if (!ret)
		ret = look_in_past(versions, parent, name, &entry);
	if (ret == -ENOENT && *versions_meant(versions, name)) {
		name = versions_meant(versions, name);
		ret = look_in_past(versions, parent, name, &entry);
	}
	if (ret)
		return ret;
	if (!catalog_getattr(versions->catalog, entry.ino, &inode))
		resolve(versions, &inode);
	ret_child->key = versions_key_of_entry(parent, name, &entry);
	ret_child->immutable = parent->kind == VERSIONS_AT && parent->when_ns < clock_wall();
	return 0;
}

static int find_child(struct versions *versions, const struct versions_key *parent, const char *name,
		      struct child *ret_child)
{
	int ret;

	if (strlen(name) > CAT_NAME_MAX)
		return -ENAMETOOLONG;
	if (!strcmp(name, "..")) /* asked only by NFS servers, for what they have forgotten */
		return -ESTALE;
	switch (parent->kind) {
	case VERSIONS_DIR:
		return find_in_dir(versions, parent, name, ret_child);
	case VERSIONS_NAME:
		return find_in_name(versions, parent, name, ret_child);
	case VERSIONS_AT_LIST:
	case VERSIONS_GMT_LIST:
		ret = versions_key_of_time(parent, name, &ret_child->key);
		ret_child->immutable = !ret && is_absolute(name);
		return ret;
	case VERSIONS_AT:
	case VERSIONS_DELETED:
		return find_in_past(versions, parent, name, ret_child);
	case VERSIONS_VERSION:
	case VERSIONS_INODE:
	case VERSIONS_LOG:
		break;
	}
	return -ENOTDIR;
}

static int show_log(struct versions *versions, const struct versions_key *key, uint64_t st_ino, struct stat *ret_stat)
{
	AUTO_BUF text = BUF_INIT;
	struct stat st;
	int ret = versions_prepare_directory(versions, key->dir);

	if (!ret)
		ret = versions_attr_directory(versions->catalog, key->dir, st_ino, &st);
	if (!ret)
		ret = versions_log_text(versions->catalog, versions, key->dir, &text);
	if (ret)
		return ret;
	st.st_mode = S_IFREG | (st.st_mode & 0444);
	st.st_size = (off_t)text.len;
	st.st_blocks = (blkcnt_t)((text.len + 511) / 512);
	*ret_stat = st;
	return 0;
}

static int show_at(struct versions *versions, const struct versions_key *key, uint64_t st_ino, struct stat *ret_stat)
{
	struct stat st;
	int64_t mtime;
	int ret = versions_attr_directory(versions->catalog, key->dir, st_ino, &st);

	if (!ret)
		ret = versions_at_mtime(versions->catalog, key->dir, key->when_ns, &mtime);
	if (ret)
		return ret;
	st.st_mtim = clock_to_timespec(mtime);
	st.st_atim = st.st_mtim;
	*ret_stat = st;
	return 0;
}

static int show(struct versions *versions, const struct versions_key *key, uint64_t number, struct stat *ret_stat)
{
	uint64_t st_ino = versions_node_ino(key, number);

	switch (key->kind) {
	case VERSIONS_VERSION:
	case VERSIONS_INODE: {
		struct versions_object object = {
			.dir = key->dir, .name = key->name, .ino = key->ino, .seq = key->seq, .st_ino = st_ino};

		return versions_attr_object(versions->catalog, &object, ret_stat);
	}
	case VERSIONS_NAME:
		return versions_attr_name(versions->catalog, key->dir, key->name, st_ino, ret_stat);
	case VERSIONS_LOG:
		return show_log(versions, key, st_ino, ret_stat);
	case VERSIONS_AT:
		return show_at(versions, key, st_ino, ret_stat);
	case VERSIONS_DIR:
	case VERSIONS_DELETED:
	case VERSIONS_AT_LIST:
	case VERSIONS_GMT_LIST:
		break;
	}
	return versions_attr_directory(versions->catalog, key->dir, st_ino, ret_stat);
}

int versions_lookup(struct versions *versions, uint64_t parent, const char *name, struct versions_entry *ret_entry)
{
	struct versions_entry entry;
	struct versions_key key;
	struct child child;
	int ret = 0;

	if (!versions_is_node(parent)) {
		if (!versions_is_snapdir(versions, name))
			return -ENOENT;
		child.key = (struct versions_key){.kind = VERSIONS_DIR, .dir = parent, .parent = parent};
		child.immutable = true;
	} else {
		ret = versions_node_get(&versions->nodes, parent, &key);
		if (!ret && !strcmp(name, ".")) {
			child.key = key;
			child.immutable = true;
		} else if (!ret) {
			ret = find_child(versions, &key, name, &child);
			child.key.parent = versions_node_ino(&key, parent);
		}
	}
	if (!ret)
		ret = versions_node_take(&versions->nodes, &child.key, &entry.nodeid);
	if (ret)
		return ret;
	ret = show(versions, &child.key, entry.nodeid, &entry.stat);
	if (ret) {
		versions_node_forget(&versions->nodes, entry.nodeid, 1);
		return ret;
	}
	entry.immutable = child.immutable;
	*ret_entry = entry;
	return 0;
}

void versions_forget(struct versions *versions, uint64_t nodeid, uint64_t count)
{
	versions_node_forget(&versions->nodes, nodeid, count);
}

int versions_getattr(struct versions *versions, uint64_t nodeid, struct stat *ret_stat)
{
	struct versions_key key;
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	return ret ? ret : show(versions, &key, nodeid, ret_stat);
}

/* --- content ------------------------------------------------------------------------------------------------------ */

struct symlink {
	uint64_t ino;
	struct buf *target;
};

static int get_symlink(struct cat_txn *txn, void *arg)
{
	const struct symlink *symlink = arg;

	buf_reset(symlink->target);
	return cat_symlink_get(txn, symlink->ino, symlink->target);
}

int versions_readlink(struct versions *versions, uint64_t nodeid, struct buf *ret_target)
{
	AUTO_BUF target = BUF_INIT;
	struct versions_key key;
	struct symlink symlink = {.target = &target};
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	if (ret)
		return ret;
	if (key.kind != VERSIONS_INODE)
		return -EINVAL;
	symlink.ino = key.ino;
	ret = catalog_view(versions->catalog, get_symlink, &symlink);
	if (ret)
		return ret == -ENOENT ? -EINVAL : ret;
	buf_add(ret_target, target.data, target.len);
	return buf_failed(&target) || buf_failed(ret_target) ? -ENOMEM : 0;
}

static int is_shown(struct cat_txn *txn, void *arg)
{
	const struct versions_key *key = arg;
	struct cat_version version;
	int ret = cat_version_get(txn, key->ino, key->seq, &version);

	return ret ? ret : version.state == CAT_EXPIRED ? -ENOENT : 0;
}

int versions_open(struct versions *versions, uint64_t nodeid, struct content **ret_content)
{
	struct versions_key key;
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	if (ret)
		return ret;
	switch (key.kind) {
	case VERSIONS_VERSION:
		if (catalog_view(versions->catalog, is_shown, &key))
			return -ENOENT; /* the kernel still knows the name of what is gone */
		ret = versions->contents ? content_get(versions->contents, key.ino, key.seq, ret_content) : -EOPNOTSUPP;
		return ret == -ENODATA ? -EIO : ret;
	case VERSIONS_LOG:
		return -EOPNOTSUPP;
	case VERSIONS_INODE:
		return -EINVAL;
	default:
		return -EISDIR;
	}
}

bool versions_is_text(struct versions *versions, uint64_t nodeid)
{
	struct versions_key key;

	return !versions_node_get(&versions->nodes, nodeid, &key) && key.kind == VERSIONS_LOG;
}

int versions_text(struct versions *versions, uint64_t nodeid, struct buf *ret_text)
{
	struct versions_key key;
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	if (ret)
		return ret;
	return key.kind == VERSIONS_LOG ? versions_log_text(versions->catalog, versions, key.dir, ret_text) : -EINVAL;
}

/* --- xattrs ---------------------------------------------------------------------------------------------------------
 */

/* The newest item of a history that is not as new as the catalog may have got a successor. */
static int history_for(struct versions *versions, const struct versions_key *key, struct versions_history **ret_history)
{
	const struct versions_history_item *item;
	struct versions_history *history;
	int ret = versions_history_get(versions, key->dir, key->name, VERSIONS_ANY, &history);

	if (ret)
		return ret;
	item = versions_history_of(history, key->ino, key->seq);
	if (item && item != &history->items[history->count - 1]) {
		*ret_history = history;
		return 0;
	}
	versions_history_put(history);
	return versions_history_get(versions, key->dir, key->name, VERSIONS_CURRENT, ret_history);
}

/* name NULL: all of them. */
static bool needs_history(const char *name)
{
	return !name || xattr_varve_is_of_history(name);
}

static int subject_of(struct versions *versions, uint64_t nodeid, const char *name, struct versions_key *key,
		      struct versions_history **ret_history, struct xattr_varve_subject *ret_subject)
{
	int ret = versions_node_get(&versions->nodes, nodeid, key);

	if (ret)
		return ret;
	if (key->kind != VERSIONS_VERSION)
		return -ENODATA;
	if (needs_history(name))
		ret = history_for(versions, key, ret_history);
	if (ret)
		return ret;
	*ret_subject = (struct xattr_varve_subject){
		.ino = key->ino, .seq = key->seq, .dir = key->dir, .name = key->name, .history = *ret_history};
	return 0;
}

/* The inode whose owner, mode and attributes a node shows; 0: none. */
static uint64_t inode_of(const struct versions_key *key)
{
	switch (key->kind) {
	case VERSIONS_VERSION:
	case VERSIONS_INODE:
		return key->ino;
	case VERSIONS_AT:
	case VERSIONS_DELETED:
		return key->dir;
	default:
		return 0;
	}
}

/* Attributes that users set are the inode's: a version shows them as they are, or were when the file was deleted. */
static int get_inode_xattr(struct versions *versions, uint64_t nodeid, const char *name, struct buf *ret_value)
{
	struct versions_key key;
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	if (ret)
		return ret;
	if (!inode_of(&key))
		return -ENODATA;
	return catalog_xattr_get(versions->catalog, inode_of(&key), name, ret_value);
}

static int get_inode_mode(struct versions *versions, uint64_t nodeid, struct buf *ret_value)
{
	struct versions_key key;
	struct cat_inode inode;
	int ret = versions_node_get(&versions->nodes, nodeid, &key);

	if (ret)
		return ret;
	if (!inode_of(&key))
		return -ENODATA;
	ret = catalog_getattr(versions->catalog, inode_of(&key), &inode);
	if (!ret)
		buf_addf(ret_value, "%04o", (unsigned)inode.mode & XATTR_VARVE_MODE_BITS);
	return !ret && buf_failed(ret_value) ? -ENOMEM : ret;
}

int versions_getxattr(struct versions *versions, uint64_t nodeid, const char *name, struct buf *ret_value)
{
	struct xattr_varve_subject subject;
	struct versions_history *history = NULL;
	struct versions_key key;
	int ret;

	if (!xattr_varve_is(name))
		return get_inode_xattr(versions, nodeid, name, ret_value);
	ret = versions_node_get(&versions->nodes, nodeid, &key);
	if (!ret && key.kind != VERSIONS_VERSION && !strcmp(name, XATTR_VARVE_PREFIX "mode"))
		return get_inode_mode(versions, nodeid, ret_value);
	ret = subject_of(versions, nodeid, name, &key, &history, &subject);
	if (!ret)
		ret = xattr_varve_get_of(versions->catalog, &subject, name, ret_value);
	versions_history_put(history);
	return ret;
}

int versions_listxattr(struct versions *versions, uint64_t nodeid, struct buf *ret_names)
{
	struct xattr_varve_subject subject;
	struct versions_history *history = NULL;
	AUTO_BUF set_by_users = BUF_INIT;
	struct versions_key key;
	int ret = subject_of(versions, nodeid, NULL, &key, &history, &subject);

	if (!ret)
		ret = xattr_varve_list(versions->catalog, &subject, ret_names);
	versions_history_put(history);
	if ((!ret || ret == -ENODATA) && inode_of(&key)) {
		ret = catalog_xattr_list(versions->catalog, inode_of(&key), &set_by_users);
		buf_add(ret_names, set_by_users.data, set_by_users.len);
		if (!ret && (buf_failed(&set_by_users) || buf_failed(ret_names)))
			ret = -ENOMEM;
	}
	return ret == -ENODATA ? 0 : ret;
}

/* --- the mount's -------------------------------------------------------------------------------------------------- */

bool versions_is_snapdir(const struct versions *versions, const char *name)
{
	return versions->snapdir != VERSIONS_SNAPDIR_OFF && !strcmp(name, versions->snapdir_name);
}

const char *versions_shown(const struct versions *versions, const char *name)
{
	return versions_is_snapdir(versions, name) ? versions->displaced_name : name;
}

const char *versions_meant(const struct versions *versions, const char *name)
{
	bool displaced =
		versions->snapdir != VERSIONS_SNAPDIR_OFF && name[0] == '%' && !strcmp(name, versions->displaced_name);

	return displaced ? versions->snapdir_name : "";
}

bool versions_is_visible(const struct versions *versions)
{
	return versions->snapdir == VERSIONS_SNAPDIR_VISIBLE;
}

const char *versions_snapdir_name(const struct versions *versions)
{
	return versions->snapdir_name;
}

uint64_t versions_snapdir_ino(uint64_t dir)
{
	return versions_node_number(&(struct versions_key){.kind = VERSIONS_DIR, .dir = dir});
}

bool versions_is_node(uint64_t nodeid)
{
	return nodeid >= VERSIONS_NODE;
}

int versions_new(const struct versions_options *options, struct versions **ret_versions)
{
	struct versions *versions = calloc(1, sizeof(*versions));
	struct buf displaced = BUF_INIT;
	int ret;

	if (!versions)
		return -ENOMEM;
	versions->catalog = options->catalog;
	versions->contents = options->contents;
	versions->reconcile = options->reconcile;
	versions->snapdir = options->snapdir;
	versions->store_patience_ns = options->store_patience_ns ? options->store_patience_ns : DEFAULT_PATIENCE;
	versions->snapdir_name = strdup(options->snapdir_name ? options->snapdir_name : ESCAPE_SNAPDIR);
	lock_init(&versions->lock, LOCK_LEAF);
	ret = versions_nodes_init(&versions->nodes);
	if (versions->snapdir_name)
		escape_clash(versions->snapdir_name, strlen(versions->snapdir_name), &displaced);
	versions->displaced_name = buf_detach(&displaced);
	if (!ret && (!versions->snapdir_name || !versions->displaced_name))
		ret = -ENOMEM;
	if (ret) {
		versions_free(versions);
		return ret;
	}
	*ret_versions = versions;
	return 0;
}

void versions_free(struct versions *versions)
{
	if (!versions)
		return;
	for (int i = 0; i < VERSIONS_CACHED; i++)
		versions_history_put(versions->cached[i].history);
	versions_nodes_destroy(&versions->nodes);
	lock_destroy(&versions->lock);
	free(versions->snapdir_name);
	free(versions->displaced_name);
	free(versions);
}
