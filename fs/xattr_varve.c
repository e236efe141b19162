/*
 * xattr_varve.c - user.varve.*: facts gathered once for a question, and one function an attribute to write them.
 *
 * The table at the end is the list of attributes. An attribute function appends
 * its value or returns -ENODATA; facts it needs beyond the records (the entry's
 * neighbours, how its name ended) are read only when it asks.
 * No state of its own; safe from any thread.
 */
#include "fs/xattr_varve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/versions_history.h"

struct facts {
	struct catalog *catalog;
	struct xattr_varve_subject subject;
	bool live_file; /* asked of the live file, not of a version */
	struct cat_inode inode;
	struct cat_version version; /* seq 0: the live file has none yet */
	bool stored;
	struct cat_copy copy; /* when stored */
	struct cat_name name; /* the subject's, where the caller gave none */
	struct versions_history *loaded;
	const struct versions_history *history;
	const struct versions_history_item *item;
};

/* --- gathering ------------------------------------------------------------------------------------ */

static int read_records(struct cat_txn *txn, void *arg)
{
	struct facts *facts = arg;
	const struct xattr_varve_subject *subject = &facts->subject;
	uint64_t seq;
	int ret = cat_inode_get(txn, subject->ino, &facts->inode);

	if (ret)
		return ret;
	seq = facts->live_file ? facts->inode.version : subject->seq;
	if (facts->stored)
		cat_copy_clear(&facts->copy);
	facts->stored = false;
	if (seq) {
		ret = cat_version_get(txn, subject->ino, seq, &facts->version);
		if (ret)
			return ret;
		ret = cat_copy_get(txn, subject->ino, seq, &facts->copy);
		if (ret && ret != -ENOENT)
			return ret;
		facts->stored = !ret;
	}
	facts->name.name[0] = '\0';
	ret = cat_first_name(txn, subject->ino, &facts->name);
	return ret == -ENOENT ? 0 : ret;
}

static void clear(struct facts *facts)
{
	if (facts->stored)
		cat_copy_clear(&facts->copy);
	versions_history_put(facts->loaded);
}

static int gather(struct catalog *catalog, const struct xattr_varve_subject *subject, struct facts *ret_facts)
{
	struct facts *facts = ret_facts;
	int ret;

	*facts = (struct facts){.catalog = catalog, .subject = *subject, .live_file = !subject->seq};
	ret = catalog_view(catalog, read_records, facts);
	if (ret) {
		clear(facts);
		return ret == -ENOENT ? -ENODATA : ret;
	}
	facts->subject.seq = facts->version.seq;
	facts->history = subject->history;
	if (!facts->subject.name && facts->name.name[0]) {
		facts->subject.name = facts->name.name;
		facts->subject.dir = facts->name.parent;
	}
	return 0;
}

/* The entry of this version in its name's history. -ENODATA: it is not in it. */
static int need_item(struct facts *facts)
{
	int ret;

	if (facts->item)
		return 0;
	if (!facts->subject.name || !facts->version.seq)
		return -ENODATA;
	if (!facts->history) {
		ret = versions_history_load(facts->catalog, facts->subject.dir, facts->subject.name, &facts->loaded);
		if (ret)
			return ret == -ENOENT ? -ENODATA : ret;
		facts->history = facts->loaded;
	}
	facts->item = versions_history_of(facts->history, facts->version.ino, facts->version.seq);
	return facts->item ? 0 : -ENODATA;
}

/* --- attributes ------------------------------------------------------------------------------------- */

static int add_string(struct buf *value, const char *string)
{
	if (!string || !string[0])
		return -ENODATA;
	buf_adds(value, string);
	return 0;
}

static int add_time(struct buf *value, int64_t ns)
{
	char text[CLOCK_RFC3339_SIZE];

	clock_format_rfc3339(ns, text);
	buf_adds(value, text);
	return 0;
}

static int get_version_id(struct facts *facts, struct buf *value)
{
	if (facts->stored && facts->copy.native_id)
		buf_adds(value, facts->copy.native_id);
	else
		buf_addf(value, "%" PRIu64, facts->version.seq);
	return 0;
}

static int get_seq(struct facts *facts, struct buf *value)
{
	buf_addf(value, "%" PRIu64, facts->version.seq);
	return 0;
}

static int get_commit_time(struct facts *facts, struct buf *value)
{
	return add_time(value, facts->version.commit_ns);
}

/* What was set after the close makes no version: it belongs to the one it was set on, which is the last. */
static bool is_last(const struct facts *facts)
{
	return facts->inode.version == facts->version.seq && !(facts->inode.flags & CAT_DIRTY);
}

static int get_mtime(struct facts *facts, struct buf *value)
{
	return add_time(value, is_last(facts) ? facts->inode.mtime : facts->version.mtime);
}

static int get_mode(struct facts *facts, struct buf *value)
{
	uint32_t mode = is_last(facts) ? facts->inode.mode : facts->version.mode;

	buf_addf(value, "%04o", (unsigned)mode & XATTR_VARVE_MODE_BITS);
	return 0;
}

static int get_owner(struct facts *facts, struct buf *value)
{
	uint32_t uid = is_last(facts) ? facts->inode.uid : facts->version.uid;
	uint32_t gid = is_last(facts) ? facts->inode.gid : facts->version.gid;

	buf_addf(value, "%" PRIu32 ":%" PRIu32, uid, gid);
	return 0;
}

static int get_etag(struct facts *facts, struct buf *value)
{
	return facts->stored ? add_string(value, facts->copy.etag) : -ENODATA;
}

static int get_checksum(struct facts *facts, struct buf *value)
{
	if (!(facts->version.flags & CAT_HAS_CRC32C))
		return -ENODATA;
	buf_addf(value, "crc32c:%08" PRIx32, facts->version.crc32c);
	return 0;
}

static int get_backend(struct facts *facts, struct buf *value)
{
	AUTO_FREE char *url = NULL;
	char setting[32];
	int ret;

	if (!facts->stored)
		return -ENODATA;
	(void)snprintf(setting, sizeof(setting), XATTR_VARVE_BACKEND "%" PRIu32, facts->copy.backend); /* fits */
	ret = catalog_setting_get(facts->catalog, setting, &url);
	if (ret == -ENOENT)
		buf_addf(value, "%" PRIu32, facts->copy.backend);
	else if (!ret)
		buf_adds(value, url);
	return ret == -ENOENT ? 0 : ret;
}

static int get_key(struct facts *facts, struct buf *value)
{
	return facts->stored ? add_string(value, facts->copy.key) : -ENODATA;
}

static int get_storage_class(struct facts *facts, struct buf *value)
{
	return facts->stored ? add_string(value, facts->copy.storage_class) : -ENODATA;
}

static int get_state(struct facts *facts, struct buf *value)
{
	static const char *const names[] = {
		[CAT_LOCAL] = "local",   [CAT_UPLOADING] = "uploading", [CAT_STORED] = "stored",
		[CAT_FAILED] = "failed", [CAT_EXPIRED] = "expired",
	};
	bool changed = facts->live_file && (facts->inode.flags & CAT_DIRTY || !facts->version.seq);

	return add_string(value, changed ? "local" : names[facts->version.state]);
}

static int get_author(struct facts *facts, struct buf *value)
{
	if (facts->version.origin == CAT_ORIGIN_EXTERNAL)
		return -ENODATA;
	buf_addf(value, "%" PRIu32, facts->version.author);
	return 0;
}

static int get_host(struct facts *facts, struct buf *value)
{
	return add_string(value, facts->version.host);
}

static int get_op(struct facts *facts, struct buf *value)
{
	const struct versions_history_item *item;
	int ret = need_item(facts);

	if (ret)
		return ret;
	item = facts->item;
	switch (item->how) {
	case CAT_HOW_RENAME:
	case CAT_HOW_REPLACE:
		return add_string(value, "rename");
	case CAT_HOW_LINK:
		return add_string(value, "link");
	case CAT_HOW_ADOPT:
		return add_string(value, "adopt");
	default:
		break;
	}
	return add_string(value, item == facts->history->items || item[-1].ino != item->ino ? "create" : "write");
}

static int add_neighbour(struct facts *facts, ptrdiff_t step, struct buf *value)
{
	char name[VERSIONS_HISTORY_NAME_SIZE];
	ptrdiff_t at;
	int ret = need_item(facts);

	if (ret)
		return ret;
	at = facts->item - facts->history->items + step;
	if (at < 0 || at >= (ptrdiff_t)facts->history->count)
		return -ENODATA;
	versions_history_entry_name(facts->history, &facts->history->items[at], name);
	return add_string(value, name);
}

static int get_prev(struct facts *facts, struct buf *value)
{
	return add_neighbour(facts, -1, value);
}

static int get_next(struct facts *facts, struct buf *value)
{
	return add_neighbour(facts, 1, value);
}

/* The name and the inode decide: a name that is free, or another's, shows this version no more. */
static int compare_live(struct cat_txn *txn, void *arg)
{
	const struct facts *facts = arg;
	struct cat_name name;
	int ret = cat_name_get(txn, facts->subject.dir, facts->subject.name, &name);

	return ret ? ret : name.ino != facts->subject.ino;
}

static int get_is_current(struct facts *facts, struct buf *value)
{
	int ret = 1;

	if (facts->subject.name && facts->inode.version == facts->version.seq)
		ret = catalog_view(facts->catalog, compare_live, facts);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	return add_string(value, ret ? "0" : "1");
}

static int get_origin(struct facts *facts, struct buf *value)
{
	static const char *const names[] = {
		[CAT_ORIGIN_CLOSE] = "close",         [CAT_ORIGIN_FSYNC] = "fsync",
		[CAT_ORIGIN_RECOVERED] = "recovered", [CAT_ORIGIN_SUSPECT] = "suspect",
		[CAT_ORIGIN_EXTERNAL] = "external",   [CAT_ORIGIN_CONFLICT] = "conflict",
	};

	return add_string(value, names[facts->version.origin]);
}

/* The end of the interval in which the name showed this version. */
struct ending {
	const struct facts *facts;
	bool found;
	struct cat_past past;
};

static int take_ending(void *arg, const struct cat_past *past)
{
	struct ending *ending = arg;
	const struct facts *facts = ending->facts;

	if (past->ino != facts->subject.ino || facts->version.seq > past->until)
		return 0;
	ending->past = *past;
	ending->found = true;
	return 1;
}

static int find_ending(struct facts *facts, struct ending *ret_ending)
{
	int ret;

	*ret_ending = (struct ending){.facts = facts};
	if (facts->live_file || !facts->subject.name)
		return -ENODATA;
	ret = catalog_past(facts->catalog, facts->subject.dir, facts->subject.name, take_ending, ret_ending);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	return ret_ending->found ? 0 : -ENODATA;
}

struct path {
	uint64_t dir;
	struct buf *text;
};

static int add_path(struct cat_txn *txn, void *arg)
{
	const struct path *path = arg;

	buf_reset(path->text);
	return cat_key_of(txn, path->dir, path->text);
}

/* A name of the same directory as it is, another with its path from the top; without where the directory is gone. */
static int get_renamed_to(struct facts *facts, struct buf *value)
{
	AUTO_BUF text = BUF_INIT;
	struct ending ending;
	struct path path = {.text = &text};
	int ret = find_ending(facts, &ending);

	if (ret)
		return ret;
	if (ending.past.ended != CAT_HOW_RENAME)
		return -ENODATA;
	if (ending.past.to_parent != facts->subject.dir) {
		path.dir = ending.past.to_parent;
		ret = catalog_view(facts->catalog, add_path, &path);
		if (ret && ret != -ENOENT)
			return ret;
		if (!ret)
			buf_addf(value, "/%s%s", text.data, text.len ? "/" : "");
	}
	return add_string(value, ending.past.to_name);
}

static int get_deleted_at(struct facts *facts, struct buf *value)
{
	struct ending ending;
	int ret = find_ending(facts, &ending);

	if (ret)
		return ret;
	if (ending.past.ended != CAT_HOW_UNLINK && ending.past.ended != CAT_HOW_VANISH)
		return -ENODATA;
	return add_time(value, ending.past.until_ns);
}

static int get_file(struct facts *facts, struct buf *value)
{
	buf_addf(value, "%" PRIu64, facts->inode.ino);
	return 0;
}

static int get_legal_hold(struct facts *facts, struct buf *value)
{
	return facts->version.flags & CAT_HELD ? add_string(value, "on") : -ENODATA;
}

static int get_retain_until(struct facts *facts, struct buf *value)
{
	return facts->version.flags & CAT_RETAINED ? add_time(value, facts->version.retain_until_ns) : -ENODATA;
}

/* Who keeps a held or retained version from being removed: the store itself, or only varve. */
static int get_protected_by(struct facts *facts, struct buf *value)
{
	if (!(facts->version.flags & (CAT_HELD | CAT_RETAINED)))
		return -ENODATA;
	return add_string(value, facts->version.flags & CAT_LOCKED ? "store" : "catalog");
}

static const struct attribute {
	const char *name;
	int (*get)(struct facts *facts, struct buf *value);
	bool without_version; /* says something of a file that has no version yet */
} attributes[] = {
	{"version_id", get_version_id, false},
	{"seq", get_seq, false},
	{"commit_time", get_commit_time, false},
	{"mtime", get_mtime, false},
	{"mode", get_mode, false},
	{"owner", get_owner, false},
	{"etag", get_etag, false},
	{"checksum", get_checksum, false},
	{"backend", get_backend, false},
	{"key", get_key, false},
	{"storage_class", get_storage_class, false},
	{"state", get_state, true},
	{"author", get_author, false},
	{"host", get_host, false},
	{"op", get_op, false},
	{"prev", get_prev, false},
	{"next", get_next, false},
	{"is_current", get_is_current, false},
	{"origin", get_origin, false},
	{"renamed_to", get_renamed_to, false},
	{"deleted_at", get_deleted_at, false},
	{"file", get_file, true},
	{"legal_hold", get_legal_hold, false},
	{"retain_until", get_retain_until, false},
	{"protected_by", get_protected_by, false},
};

/* --- public ------------------------------------------------------------------------------------------- */

bool xattr_varve_is(const char *name)
{
	return !strncmp(name, XATTR_VARVE_PREFIX, strlen(XATTR_VARVE_PREFIX));
}

static const struct attribute *find_attribute(const char *name)
{
	if (!xattr_varve_is(name))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		if (!strcmp(attributes[i].name, name + strlen(XATTR_VARVE_PREFIX)))
			return &attributes[i];
	}
	return NULL;
}

bool xattr_varve_is_of_history(const char *name)
{
	const struct attribute *attribute = find_attribute(name);

	return attribute && (attribute->get == get_op || attribute->get == get_prev || attribute->get == get_next);
}

static int get_value(struct facts *facts, const struct attribute *attribute, struct buf *ret_value)
{
	AUTO_BUF value = BUF_INIT;
	int ret;

	if (!S_ISREG(facts->inode.mode) || (!facts->version.seq && !attribute->without_version))
		return -ENODATA;
	ret = attribute->get(facts, &value);
	if (ret)
		return ret;
	buf_add(ret_value, value.data, value.len);
	return buf_failed(&value) || buf_failed(ret_value) ? -ENOMEM : 0;
}

int xattr_varve_get_of(struct catalog *catalog, const struct xattr_varve_subject *subject, const char *name,
		       struct buf *ret_value)
{
	const struct attribute *attribute = find_attribute(name);
	struct facts facts;
	int ret;

	if (!attribute)
		return -ENODATA;
	ret = gather(catalog, subject, &facts);
	if (ret)
		return ret;
	ret = get_value(&facts, attribute, ret_value);
	clear(&facts);
	return ret;
}

int xattr_varve_get(struct catalog *catalog, uint64_t ino, uint64_t seq, const char *name, struct buf *ret_value)
{
	struct xattr_varve_subject subject = {.ino = ino, .seq = seq};

	return xattr_varve_get_of(catalog, &subject, name, ret_value);
}

int xattr_varve_list(struct catalog *catalog, const struct xattr_varve_subject *subject, struct buf *ret_names)
{
	AUTO_BUF value = BUF_INIT;
	struct facts facts;
	int ret = gather(catalog, subject, &facts);

	if (ret)
		return ret;
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		buf_reset(&value);
		ret = get_value(&facts, &attributes[i], &value);
		if (ret == -ENODATA)
			continue;
		if (ret)
			goto out;
		buf_adds(ret_names, XATTR_VARVE_PREFIX);
		buf_add(ret_names, attributes[i].name, strlen(attributes[i].name) + 1);
	}
	ret = buf_failed(ret_names) ? -ENOMEM : 0;
out:
	clear(&facts);
	return ret;
}
