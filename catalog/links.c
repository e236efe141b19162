/*
 * links.c - hard links as a store tells of them: objects without content whose metadata names the file id of the file
 * that they are names of.
 *
 * Such an object is adopted like any other, as an empty file, and then joins the inode of its file: the name becomes
 * one of that inode's, and what stood for it is an inode without names or versions. Where nobody has that file id
 * yet, an AWAITED row leads from it to the empty file, which joins as soon as a file with the id is known. An empty
 * file that something happened to here meanwhile is a file of its own for good.
 *
 * The oldest name of an inode is where its object lies. A joining name is younger than any other, whatever the order in
 * which the store's directories are listed.
 *
 * Threads: those of the updates.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog/catalog_internal.h"

int cat_change_note(struct cat_changes *changes, uint64_t parent, const char *name, uint64_t ino)
{
	struct cat_change *change;

	if (ARRAY_ROOM(changes->cells, changes->cap, changes->count))
		return -ENOMEM;
	change = &changes->cells[changes->count++];
	change->parent = parent;
	change->ino = ino;
	cat_name_set(change->name, name);
	return 0;
}

/* A name that shall join: all that is known of it. */
struct joining {
	struct cat_inode inode; /* the empty file */
	struct cat_name name;
	struct cat_key record; /* of the object at `key` */
	struct buf key;
};

static void joining_clear(struct joining *joining)
{
	cat_key_clear(&joining->record);
	buf_free(&joining->key);
}

/* Is it still the empty file that the store showed? 1, 0, -errno. */
static int is_untouched(struct cat_txn *txn, const struct cat_inode *inode)
{
	struct cat_version version;
	int rc;

	if (!S_ISREG(inode->mode) || inode->nlink != 1 || inode->size || (inode->flags & CAT_DIRTY) || !inode->version)
		return 0;
	rc = cat_jobs_on_inode(txn, inode->ino);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = cat_version_get(txn, inode->ino, inode->version, &version);
	return rc < 0 ? rc : version.state == CAT_STORED;
}

/* 1: it may join; 0: never again. */
static int joining_load(struct cat_txn *txn, uint64_t ino, struct joining *joining)
{
	int rc = cat_inode_get(txn, ino, &joining->inode);

	if (rc == 0)
		rc = is_untouched(txn, &joining->inode);
	if (rc <= 0)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_first_name(txn, ino, &joining->name);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_key_of(txn, ino, &joining->key);
	if (rc == 0)
		rc = cat_key_get(txn, 0, joining->key.data, &joining->record);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return joining->record.kind == CAT_KEY_DATA && joining->record.ino == ino;
}

/* The name passes to the file: its place in the directory stays what it is. */
static int rebind(struct cat_txn *txn, struct joining *joining, uint64_t ino)
{
	int rc = cat_unbind(txn, &joining->name);

	joining->name.ino = ino;
	joining->name.since = cat_next_seq(txn);
	return rc ? rc : cat_bind(txn, &joining->name);
}

static int join(struct cat_txn *txn, struct joining *joining, struct cat_inode *file, struct cat_changes *changes)
{
	uint64_t before = joining->inode.ino;
	int rc = cat_content_drop(txn, &joining->inode);

	joining->inode.nlink = 0;
	joining->inode.flags &= ~(uint32_t)CAT_UNRESOLVED;
	file->nlink++;
	joining->record.kind = CAT_KEY_LINK;
	joining->record.ino = file->ino;
	joining->record.seq = 0;
	if (rc == 0)
		rc = cat_inode_put(txn, &joining->inode);
	if (rc == 0)
		rc = rebind(txn, joining, file->ino);
	if (rc == 0)
		rc = cat_inode_put(txn, file);
	if (rc == 0)
		rc = cat_key_put(txn, joining->key.data, &joining->record);
	return rc ? rc : cat_change_note(changes, joining->name.parent, joining->name.name, before);
}

/* 1: it joined; 0: it stays a file of its own. */
static int try_join(struct cat_txn *txn, uint64_t ino, struct cat_inode *file, struct cat_changes *changes)
{
	struct joining joining = {.key = BUF_INIT};
	int rc = joining_load(txn, ino, &joining);

	if (rc == 1) {
		rc = join(txn, &joining, file, changes);
		rc = rc ? rc : 1;
	}
	joining_clear(&joining);
	return rc;
}

/* A live file with this id. -ENOENT. */
static int find_file(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], struct cat_inode *ret_file)
{
	uint64_t ino;
	int rc = cat_file_find(txn, file_id, &ino);

	if (rc == 0)
		rc = cat_inode_get(txn, ino, ret_file);
	if (rc)
		return rc;
	/* An inode that only has older versions of it is another file. */
	return S_ISREG(ret_file->mode) && ret_file->nlink && memcmp(ret_file->file_id, file_id, CAT_FILE_ID_SIZE) == 0
		       ? 0
		       : -ENOENT;
}

int cat_link_found(struct cat_txn *txn, const uint8_t link_id[static CAT_FILE_ID_SIZE], uint64_t ino,
		   struct cat_changes *changes, struct cat_inode *ret_file)
{
	struct cat_inode file;
	struct schema_key key;
	int rc = find_file(txn, link_id, &file);

	if (rc == -ENOENT || (rc == 0 && file.ino == ino)) {
		schema_key_awaited(&key, link_id, ino);
		return cat_put_empty(txn, &key);
	}
	if (rc == 0)
		rc = try_join(txn, ino, &file, changes);
	if (rc == 1)
		*ret_file = file;
	return rc;
}

int cat_links_join(struct cat_txn *txn, const struct cat_inode *inode, struct cat_changes *changes)
{
	struct kv_bytes row_key, value;
	struct schema_key prefix, key;
	struct cat_inode file;
	struct rows rows;
	int rc = 0;

	if (!S_ISREG(inode->mode) || !inode->nlink)
		return 0;
	schema_key_awaited(&prefix, inode->file_id, 0);
	rows_open(&rows, &prefix, KV_FORWARD);
	while (rc >= 0 && (rc = rows_next(&rows, txn, &row_key, &value)) == 0) {
		struct cursor at = cursor_of((const char *)row_key.data + prefix.len, row_key.len - prefix.len);
		uint64_t ino = cursor_u64(&at);

		key.len = 0;
		schema_key_bytes(&key, row_key.data, row_key.len);
		rc = at.failed ? cat_check_row(row_key, -EBADMSG) : cat_inode_get(txn, inode->ino, &file);
		if (rc == 0)
			rc = try_join(txn, ino, &file, changes);
		if (rc >= 0)
			rc = cat_delete(txn, &key);
	}
	rows_close(&rows);
	return rc == -ENOENT ? 0 : rc;
}
