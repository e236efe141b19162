/*
 * check.c - reads every record and compares it with those it must agree with.
 *
 * One pass over each keyspace, in one view; what a record refers to is fetched
 * as it is met, so memory is bounded by one batch of rows, and the numbers of
 * those versions of one file that wait to be stored. A damaged record is a
 * problem like another and the check goes on; only the engine's own failure
 * (-EIO, -ENOMEM) ends it.
 *
 * Threads: any.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog/catalog_internal.h"

struct check {
	struct cat_txn *txn;
	cat_problem_visit visit;
	void *arg;
	struct cat_check result;
	uint64_t waiting_ino;   /* the file whose versions were looked at last; 0: none */
	struct numbers waiting; /* those of its versions that have an UPLOAD job */
};

static void problem(struct check *check, const char *kind, uint64_t ino, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void problem(struct check *check, const char *kind, uint64_t ino, const char *format, ...)
{
	struct cat_problem found = {.kind = kind, .ino = ino};
	va_list args;

	va_start(args, format);
	(void)vsnprintf(found.detail, sizeof(found.detail), format, args); /* a cut detail is still one */
	va_end(args);
	check->result.problems++;
	if (check->visit)
		check->visit(check->arg, &found);
}

/* Damage and absence are findings; everything else is an error of the engine. */
static bool is_fatal(int rc)
{
	return rc < 0 && rc != -EBADMSG && rc != -ENOENT;
}

/* Does the inode exist? 1, 0, -errno. */
static int inode_exists(struct check *check, uint64_t ino, struct cat_inode *ret_inode)
{
	int rc = cat_inode_get(check->txn, ino, ret_inode);

	if (is_fatal(rc))
		return rc;
	return rc == 0;
}

static int row_exists(struct check *check, const struct schema_key *key)
{
	struct kv_bytes value;
	int rc = cat_get(check->txn, key, &value);

	if (is_fatal(rc))
		return rc;
	return rc == 0;
}

/* --- inodes ------------------------------------------------------------------------------------- */

static int count_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	(void)key;
	(void)value;
	(*(uint64_t *)arg)++;
	return 0;
}

static int count_links(struct check *check, uint64_t ino, uint64_t *ret_count)
{
	struct schema_key from, to;

	*ret_count = 0;
	schema_key_number(&from, SCHEMA_LINK, ino);
	schema_key_after(&to, &from);
	return kv_scan(check->txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, count_row, ret_count);
}

static int count_dir(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_name name;

	if (schema_decode_name(key, value, &name) == 0 && name.type == S_IFDIR)
		(*(uint64_t *)arg)++;
	return 0;
}

static int count_subdirs(struct check *check, uint64_t ino, uint64_t *ret_count)
{
	struct schema_key from, to;

	*ret_count = 0;
	schema_key_number(&from, SCHEMA_NAME, ino);
	schema_key_after(&to, &from);
	return kv_scan(check->txn->kv, schema_bytes(&from), schema_bytes(&to), KV_FORWARD, 0, count_dir, ret_count);
}

static int check_dir(struct check *check, const struct cat_inode *dir, uint64_t links)
{
	struct cat_inode parent;
	uint64_t subdirs;
	int rc = count_subdirs(check, dir->ino, &subdirs);

	if (rc < 0)
		return rc;
	if (dir->nlink == 0) {
		rc = cat_dir_any(check->txn, dir->ino);
		if (rc == 1)
			problem(check, "name in removed directory", dir->ino, "the directory has no name but children");
		if (links)
			problem(check, "link count", dir->ino, "removed, but %" PRIu64 " names live", links);
		return rc < 0 ? rc : 0;
	}
	if (dir->nlink != 2 + subdirs)
		problem(check, "link count", dir->ino, "nlink %u, directories in it %" PRIu64, dir->nlink, subdirs);
	if (links != (dir->ino == CAT_ROOT_INO ? 0u : 1u))
		problem(check, "directory names", dir->ino, "%" PRIu64 " live names", links);
	rc = inode_exists(check, dir->parent, &parent);
	if (rc == 0 || (rc == 1 && !S_ISDIR(parent.mode)))
		problem(check, "directory parent", dir->ino, "its parent %" PRIu64 " is no directory", dir->parent);
	if (rc >= 0 && dir->past_dir) {
		rc = inode_exists(check, dir->past_dir, &parent);
		if (rc == 0 || (rc == 1 && (!S_ISDIR(parent.mode) || parent.nlink || parent.past_dir)))
			problem(check, "directory past", dir->ino, "%" PRIu64 " is no removed directory",
				dir->past_dir);
	}
	return rc < 0 ? rc : 0;
}

static int check_inode(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_key mark;
	struct cat_version version;
	struct cat_inode inode;
	uint64_t links;
	int rc = schema_decode_inode(key, value, &inode);

	if (rc < 0)
		return rc;
	check->result.inodes++;
	rc = count_links(check, inode.ino, &links);
	if (rc < 0)
		return rc;
	if (S_ISDIR(inode.mode)) {
		rc = check_dir(check, &inode, links);
		if (rc < 0)
			return rc;
	} else if (inode.nlink != links) {
		problem(check, "link count", inode.ino, "nlink %u, live names %" PRIu64, inode.nlink, links);
	}
	if (inode.version) {
		rc = cat_version_get(check->txn, inode.ino, inode.version, &version);
		if (is_fatal(rc))
			return rc;
		if (rc < 0)
			problem(check, "missing current version", inode.ino, "version %" PRIu64, inode.version);
	}
	schema_key_number(&mark, SCHEMA_DIRTY, inode.ino);
	rc = inode.flags & CAT_DIRTY ? row_exists(check, &mark) : 1;
	if (rc == 0)
		problem(check, "dirty index", inode.ino, "dirty, but not in the index");
	return rc < 0 ? rc : 0;
}

/* --- names -------------------------------------------------------------------------------------- */

static int check_name_indexes(struct check *check, const struct cat_name *name)
{
	char text[CAT_NAME_MAX + 1] = "";
	struct kv_bytes value;
	struct schema_key key;
	int rc;

	schema_key_pair(&key, SCHEMA_COOKIE, name->parent, name->cookie);
	rc = cat_get(check->txn, &key, &value);
	if (is_fatal(rc))
		return rc;
	if (rc < 0 || schema_decode_filename(value, text) < 0 || strcmp(text, name->name) != 0)
		problem(check, "name without cookie", name->ino, "'%s' in %" PRIu64, name->name, name->parent);
	schema_key_link(&key, name->ino, name->since, name->parent);
	rc = cat_get(check->txn, &key, &value);
	if (is_fatal(rc))
		return rc;
	text[0] = '\0';
	if (rc < 0 || schema_decode_filename(value, text) < 0 || strcmp(text, name->name) != 0)
		problem(check, "name without link", name->ino, "'%s' in %" PRIu64, name->name, name->parent);
	return 0;
}

static int check_name(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode, parent;
	struct cat_name name;
	int rc = schema_decode_name(key, value, &name);

	if (rc < 0)
		return rc;
	check->result.names++;
	rc = inode_exists(check, name.ino, &inode);
	if (rc < 0)
		return rc;
	if (rc == 0)
		problem(check, "dangling name", name.ino, "'%s' in %" PRIu64, name.name, name.parent);
	else if ((inode.mode & S_IFMT) != name.type)
		problem(check, "name type", name.ino, "'%s' in %" PRIu64, name.name, name.parent);
	else if (S_ISDIR(inode.mode) && inode.parent != name.parent)
		problem(check, "directory parent", name.ino, "named in %" PRIu64 ", parent %" PRIu64, name.parent,
			inode.parent);
	rc = inode_exists(check, name.parent, &parent);
	if (rc < 0)
		return rc;
	if (rc == 0 || !S_ISDIR(parent.mode) || parent.nlink == 0)
		problem(check, "name in no directory", name.ino, "'%s' in %" PRIu64, name.name, name.parent);
	return check_name_indexes(check, &name);
}

/* A cookie or link must lead to a name that leads back. */
static int check_index(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	char text[CAT_NAME_MAX + 1];
	struct schema_parts parts;
	struct cat_name name;
	bool is_link, agrees;
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = schema_decode_filename(value, text);
	if (rc < 0)
		return rc;
	is_link = parts.tag == SCHEMA_LINK;
	rc = cat_name_get(check->txn, is_link ? parts.third : parts.number, text, &name);
	if (is_fatal(rc))
		return rc;
	agrees = rc == 0 &&
		 (is_link ? name.ino == parts.number && name.since == parts.second : name.cookie == parts.second);
	if (!agrees)
		problem(check, is_link ? "link without name" : "cookie without name", parts.number, "'%s'", text);
	return 0;
}

static int check_past(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode;
	struct cat_past past;
	int rc = schema_decode_past(key, value, &past);

	if (rc < 0)
		return rc;
	check->result.past_names++;
	if (past.since >= past.until)
		problem(check, "past name order", past.ino, "'%s' ended before it began", past.name);
	rc = inode_exists(check, past.ino, &inode);
	if (rc == 0)
		problem(check, "dangling past name", past.ino, "'%s' in %" PRIu64, past.name, past.parent);
	if (rc >= 0)
		rc = inode_exists(check, past.parent, &inode);
	if (rc == 0)
		problem(check, "past name in no directory", past.ino, "'%s' in %" PRIu64, past.name, past.parent);
	return rc < 0 ? rc : 0;
}

/* --- versions ----------------------------------------------------------------------------------- */

static int note_upload(struct check *check, uint64_t seq)
{
	struct cat_job job;
	int rc = cat_job_get(check->txn, seq, &job);

	if (rc)
		return is_fatal(rc) ? rc : 0;
	if (job.type == CAT_JOB_UPLOAD)
		rc = numbers_add(&check->waiting, job.version);
	cat_job_clear(&job);
	return rc < 0 ? rc : 0;
}

/* Once for all versions of a file: a log that was saved every minute of a week without the store has ten thousand. */
static int load_waiting(struct check *check, uint64_t ino)
{
	struct schema_parts parts;
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	int rc;

	numbers_clear(&check->waiting);
	check->waiting_ino = 0;
	schema_key_number(&prefix, SCHEMA_JOB_INODE, ino);
	rows_open(&rows, &prefix, KV_FORWARD);
	while ((rc = rows_next(&rows, check->txn, &key, &value)) == 0) {
		if (schema_parse(key, &parts)) /* damaged: told when the jobs' turn comes */
			continue;
		rc = note_upload(check, parts.second);
		if (rc)
			break;
	}
	rows_close(&rows);
	if (rc != -ENOENT)
		return rc;
	check->waiting_ino = ino;
	return 0;
}

/* Has the version an UPLOAD job? 1, 0, -errno. */
static int has_upload(struct check *check, uint64_t ino, uint64_t seq)
{
	int rc = check->waiting_ino == ino ? 0 : load_waiting(check, ino);

	return rc ? rc : numbers_has(&check->waiting, seq);
}

static int check_version_stored(struct check *check, const struct cat_version *version)
{
	struct cat_copy copy;
	int rc;

	switch (version->state) {
	case CAT_FAILED:
	case CAT_EXPIRED:
		return 0;
	case CAT_STORED:
		rc = cat_copy_get(check->txn, version->ino, version->seq, &copy);
		if (is_fatal(rc))
			return rc;
		if (rc == 0)
			cat_copy_clear(&copy);
		else
			problem(check, "version without copy", version->ino, "version %" PRIu64, version->seq);
		return 0;
	case CAT_LOCAL:
	case CAT_UPLOADING:
		rc = has_upload(check, version->ino, version->seq);
		if (rc == 0)
			problem(check, "version without upload", version->ino, "version %" PRIu64, version->seq);
		return rc < 0 ? rc : 0;
	}
	return 0;
}

static int check_version(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_version version, before;
	struct cat_inode inode;
	int rc = schema_decode_version(key, value, &version);

	if (rc < 0)
		return rc;
	check->result.versions++;
	rc = inode_exists(check, version.ino, &inode);
	if (rc < 0)
		return rc;
	if (rc == 0)
		problem(check, "dangling version", version.ino, "version %" PRIu64, version.seq);
	rc = version.seq ? cat_version_at(check->txn, version.ino, version.seq - 1, &before) : -ENOENT;
	if (is_fatal(rc))
		return rc;
	if (rc == 0 && before.shown_ms >= version.shown_ms)
		problem(check, "version order", version.ino, "version %" PRIu64 " is shown before the one before it",
			version.seq);
	return check_version_stored(check, &version);
}

static int check_copy(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_version version;
	struct cat_copy copy;
	uint64_t ino, seq;
	int rc = schema_decode_copy(key, value, &copy);

	if (rc < 0)
		return rc;
	check->result.copies++;
	rc = cat_version_get(check->txn, copy.ino, copy.seq, &version);
	if (rc == -ENOENT)
		problem(check, "dangling copy", copy.ino, "of version %" PRIu64 " at '%s'", copy.seq, copy.key);
	if (!is_fatal(rc) && copy.state == CAT_STORED) {
		const char *id = cat_object_id(copy.native_id, copy.etag);

		rc = cat_place_get(check->txn, copy.backend, copy.key, id, &ino, &seq);
		if (rc == -ENOENT)
			problem(check, "copy without place", copy.ino, "at '%s'", copy.key);
	}
	cat_copy_clear(&copy);
	return is_fatal(rc) ? rc : 0;
}

static int check_place(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_version version;
	uint64_t ino, seq;
	int rc = schema_decode_place(value, &ino, &seq);

	(void)key;
	if (rc < 0)
		return rc;
	rc = cat_version_get(check->txn, ino, seq, &version);
	if (rc == -ENOENT)
		problem(check, "dangling place", ino, "of version %" PRIu64, seq);
	return is_fatal(rc) ? rc : 0;
}

static int check_key(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_version version;
	struct cat_inode inode;
	struct cat_key record;
	char *object_key;
	int rc = schema_decode_key(key, value, &record, &object_key);

	if (rc < 0)
		return rc;
	rc = inode_exists(check, record.ino, &inode);
	if (rc == 0)
		problem(check, "dangling key", record.ino, "'%s'", object_key);
	if (rc == 1 && record.seq) {
		rc = cat_version_get(check->txn, record.ino, record.seq, &version);
		if (rc == -ENOENT)
			problem(check, "key without version", record.ino, "'%s'", object_key);
	}
	free(object_key);
	cat_key_clear(&record);
	return is_fatal(rc) ? rc : 0;
}

/* --- journal and local records ------------------------------------------------------------------ */

static int check_job(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_version version;
	struct cat_inode inode;
	struct schema_key index;
	struct cat_job job;
	int rc = schema_decode_job(key, value, &job);

	if (rc < 0)
		return rc;
	check->result.jobs++;
	rc = inode_exists(check, job.ino, &inode);
	if (rc == 0)
		problem(check, "dangling job", job.ino, "job %" PRIu64, job.seq);
	if (rc >= 0 && job.type == CAT_JOB_UPLOAD) {
		rc = cat_version_get(check->txn, job.ino, job.version, &version);
		if (rc == -ENOENT)
			problem(check, "job without version", job.ino, "job %" PRIu64, job.seq);
		rc = is_fatal(rc) ? rc : 0;
	}
	schema_key_pair(&index, SCHEMA_JOB_INODE, job.ino, job.seq);
	if (rc >= 0)
		rc = row_exists(check, &index);
	if (rc == 0)
		problem(check, "job index", job.ino, "job %" PRIu64 " is not found by inode", job.seq);
	if (rc >= 0 && job.key) {
		schema_key_job_key(&index, job.key, job.seq);
		rc = row_exists(check, &index);
		if (rc == 0)
			problem(check, "job index", job.ino, "job %" PRIu64 " is not found by key", job.seq);
	}
	cat_job_clear(&job);
	return rc < 0 ? rc : 0;
}

/* A row of JOB_INODE or JOB_KEY must lead to its job. */
static int check_job_index(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	struct schema_key job;
	int rc = schema_parse(key, &parts);

	(void)value;
	if (rc < 0)
		return rc;
	schema_key_number(&job, SCHEMA_JOB, parts.second);
	rc = row_exists(check, &job);
	if (rc == 0)
		problem(check, "job index", parts.number, "job %" PRIu64 " does not exist", parts.second);
	return rc < 0 ? rc : 0;
}

static int check_extent(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_key index;
	struct schema_parts parts;
	struct cat_extent extent;
	struct cat_version version;
	struct cat_inode inode;
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = schema_decode_extent(value, &extent);
	if (rc < 0)
		return rc;
	if (extent.base_ino) {
		schema_key_pair(&index, SCHEMA_BASED, extent.base, parts.number);
		rc = cat_any(check->txn, &index);
		if (rc == 0)
			problem(check, "base index", parts.number, "based on version %" PRIu64 ", but not in the index",
				extent.base);
	}
	if (rc < 0 || parts.number & CAT_EXTENT_OTHER)
		goto out;
	rc = inode_exists(check, parts.number, &inode);
	if (rc == 0)
		problem(check, "dangling extent", parts.number, "no such inode");
	if (rc == 1 && extent.base) {
		rc = cat_version_get(check->txn, extent.base_ino ? extent.base_ino : parts.number, extent.base,
				     &version);
		if (rc == -ENOENT)
			problem(check, "extent without base", parts.number, "version %" PRIu64, extent.base);
	}
out:
	cat_extent_clear(&extent);
	return is_fatal(rc) ? rc : 0;
}

static int check_based(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	struct cat_extent extent;
	int rc = schema_parse(key, &parts);

	(void)value;
	if (rc == 0)
		rc = cat_extent_get(check->txn, parts.second, &extent);
	if (rc == -ENOENT || (rc == 0 && (!extent.base_ino || extent.base != parts.number)))
		problem(check, "base index", parts.second, "not based on version %" PRIu64, parts.number);
	if (rc == 0)
		cat_extent_clear(&extent);
	return is_fatal(rc) ? rc : 0;
}

static int check_dirty(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	struct cat_inode inode;
	int rc = schema_parse(key, &parts);

	(void)value;
	if (rc < 0)
		return rc;
	rc = inode_exists(check, parts.number, &inode);
	if (rc == 0 || (rc == 1 && !(inode.flags & CAT_DIRTY)))
		problem(check, "dirty index", parts.number, "in the index, but not dirty");
	return rc < 0 ? rc : 0;
}

/* A record that belongs to an inode and has nothing else to agree with. */
static int check_owned(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	struct cat_inode inode;
	struct kv_bytes blob;
	int rc = schema_parse(key, &parts);

	if (rc == 0)
		rc = schema_decode_blob(value, &blob);
	if (rc < 0)
		return rc;
	rc = inode_exists(check, parts.number, &inode);
	if (rc == 0)
		problem(check, "record without inode", parts.number, "%s", schema_tag_name(parts.tag));
	return rc < 0 ? rc : 0;
}

/* An id may have passed to another inode, but never to none. */
static int check_file(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode;
	uint64_t ino, none;
	int rc = schema_decode_place(value, &ino, &none);

	(void)key;
	if (rc == 0)
		rc = inode_exists(check, ino, &inode);
	if (rc == 0)
		problem(check, "file id of nobody", ino, "no such inode");
	return rc < 0 ? rc : 0;
}

/* Who waits for a file may be gone, but not unknown. */
static int check_awaited(struct check *check, struct kv_bytes key, struct kv_bytes value)
{
	struct cat_inode inode;
	struct schema_parts parts;
	struct cursor at;
	uint64_t ino;
	int rc = schema_parse(key, &parts);

	(void)value;
	if (rc < 0 || parts.name_len != CAT_FILE_ID_SIZE + 8)
		return rc < 0 ? rc : -EBADMSG;
	at = cursor_of(parts.name + CAT_FILE_ID_SIZE, 8);
	ino = cursor_u64(&at);
	rc = inode_exists(check, ino, &inode);
	if (rc == 0)
		problem(check, "awaited by nobody", ino, "no such inode");
	return rc < 0 ? rc : 0;
}

/* --- all of it ---------------------------------------------------------------------------------- */

static const struct {
	enum schema_tag tag;
	int (*row)(struct check *check, struct kv_bytes key, struct kv_bytes value);
} passes[] = {
	{SCHEMA_INODE, check_inode},
	{SCHEMA_NAME, check_name},
	{SCHEMA_COOKIE, check_index},
	{SCHEMA_LINK, check_index},
	{SCHEMA_PAST, check_past},
	{SCHEMA_COMPONENT, check_owned},
	{SCHEMA_VERSION_RECORD, check_version},
	{SCHEMA_COPY, check_copy},
	{SCHEMA_PLACE, check_place},
	{SCHEMA_XATTR, check_owned},
	{SCHEMA_SYMLINK, check_owned},
	{SCHEMA_KEY, check_key},
	{SCHEMA_JOB, check_job},
	{SCHEMA_JOB_INODE, check_job_index},
	{SCHEMA_JOB_KEY, check_job_index},
	{SCHEMA_EXTENT, check_extent},
	{SCHEMA_BASED, check_based},
	{SCHEMA_DIRTY, check_dirty},
	{SCHEMA_FILE, check_file},
	{SCHEMA_AWAITED, check_awaited},
};

static int check_pass(struct check *check, enum schema_tag tag,
		      int (*row)(struct check *check, struct kv_bytes key, struct kv_bytes value))
{
	struct kv_bytes key, value;
	struct schema_key prefix;
	struct rows rows;
	int rc;

	schema_key_begin(&prefix, tag);
	rows_open(&rows, &prefix, KV_FORWARD);
	while ((rc = rows_next(&rows, check->txn, &key, &value)) == 0) {
		struct schema_parts parts = {0};

		rc = row(check, key, value);
		if (rc == -EBADMSG) {
			(void)schema_parse(key, &parts); /* may be what is damaged; then the number is 0 */
			problem(check, "damaged record", parts.number, "%s", schema_tag_name(tag));
			rc = 0;
		}
		if (rc < 0)
			break;
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}

static int check_closure(struct cat_txn *txn, void *arg)
{
	struct check *check = arg;
	struct cat_inode root;
	int rc;

	check->txn = txn;
	check->result = (struct cat_check){0};
	check->waiting_ino = 0;
	rc = inode_exists(check, CAT_ROOT_INO, &root);
	if (rc == 0 || (rc == 1 && !S_ISDIR(root.mode)))
		problem(check, "no root", CAT_ROOT_INO, "the root directory is missing");
	for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]) && rc >= 0; i++)
		rc = check_pass(check, passes[i].tag, passes[i].row);
	return rc < 0 ? rc : 0;
}

int catalog_check(struct catalog *catalog, cat_problem_visit visit, void *arg, struct cat_check *ret_check)
{
	struct check check = {.visit = visit, .arg = arg};
	int rc = catalog_view(catalog, check_closure, &check);

	numbers_clear(&check.waiting);
	if (rc == 0 && ret_check)
		*ret_check = check.result;
	return rc;
}
