/*
 * found.c - what an object found in the store becomes in the catalog: its records, as adopt*.c and resolve.c write
 * them.
 *
 * Sequence numbers and file ids in metadata are strangers' words: they make the identity of a version and push our
 * counter on, but are never used as keys.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"

#define ATTRIBUTES_MAX (32u << 10) /* half of what an inode may have */

bool cat_found_is_link(const struct cat_found *found)
{
	return found->resolved && found->link_id && !found->directory;
}

bool cat_found_is_ours(const struct cat_found *found)
{
	return !cat_found_is_link(found) && found->file_id && found->seq && found->seq < CAT_SEQ_MAX;
}

uint32_t cat_found_mode(const struct cat_found *found, uint32_t fallback)
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

void cat_found_version(const struct cat_found *found, const struct cat_inode *inode, struct cat_version *version)
{
	bool ours = cat_found_is_ours(found);

	version->size = found->size;
	version->mtime = found->resolved ? found->mtime : found->modified_ns;
	version->commit_ns = ours && found->commit_ns ? found->commit_ns : found->modified_ns;
	version->identity = ours ? cat_identity_own(found->file_id, found->seq)
				 : cat_identity_foreign(found->key, found->native_id ? found->native_id : found->etag);
	version->mode = inode->mode;
	version->uid = version->author = inode->uid;
	version->gid = inode->gid;
	version->state = CAT_STORED;
	version->flags |= CAT_FOUND;
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

void cat_found_copy(const struct cat_found *found, uint64_t ino, uint64_t seq, struct cat_copy *ret_copy)
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

int cat_found_put_key(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
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

int cat_found_put_content(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode)
{
	struct cat_version version = {.ino = inode->ino, .seq = cat_next_seq(txn)};
	struct cat_copy copy;
	int rc;

	cat_found_version(found, inode, &version);
	version.shown_ms = version.commit_ns / NS_PER_MS;
	cat_found_copy(found, version.ino, version.seq, &copy);
	if (copy.stored_ns >
	    cat_now(txn)) /* a store's clock that runs ahead must not make it look like news for long */
		copy.stored_ns = cat_now(txn);
	inode->version = version.seq;
	rc = cat_version_put(txn, &version);
	return rc ? rc : cat_copy_add(txn, &copy);
}

void cat_found_inode(struct cat_txn *txn, const struct cat_adopt *request, const struct cat_found *found,
		     struct cat_inode *ret_inode)
{
	int64_t mtime = found->resolved ? found->mtime : found->modified_ns;
	bool is_dir = found->directory;

	if (!mtime)
		mtime = cat_now(txn); /* a common prefix has no time */
	*ret_inode = (struct cat_inode){
		.ino = cat_next_ino(txn),
		.mode = cat_found_mode(found, is_dir ? request->dir_mode : request->file_mode),
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
	if (found->file_id && !cat_found_is_link(found))
		memcpy(ret_inode->file_id, found->file_id, CAT_FILE_ID_SIZE);
	else
		random_bytes(ret_inode->file_id, CAT_FILE_ID_SIZE);
}

bool cat_found_is_at(const struct cat_found *found, const struct cat_key *record)
{
	return cat_same_object(found->native_id, found->etag, record->native_id, record->etag);
}

int cat_found_component(struct cat_txn *txn, uint64_t dir, const struct cat_found *found, struct buf *ret_component)
{
	if (!found->component)
		return cat_component_of(txn, dir, found->name, ret_component);
	buf_adds(ret_component, found->component);
	return buf_failed(ret_component) ? -ENOMEM : 0;
}

int cat_found_put_component(struct cat_txn *txn, uint64_t dir, const struct cat_found *found, const char *name)
{
	AUTO_BUF component = BUF_INIT;
	int rc;

	if (!escape_is_digest(name, strlen(name)))
		return 0;
	rc = cat_found_component(txn, dir, found, &component);
	return rc ? rc : cat_component_put(txn, dir, name, component.data);
}

int cat_found_put_attributes(struct cat_txn *txn, const struct cat_found *found, uint64_t ino)
{
	const char *at = found->attributes, *end = at ? at + found->attributes_len : NULL;
	int rc = 0;

	if (!found->resolved || cat_found_is_link(found) || found->attributes_len > ATTRIBUTES_MAX)
		return 0;
	while (rc == 0 && at < end) {
		const char *value = at + strlen(at) + 1;
		struct schema_key key;
		struct kv_bytes known;
		struct buf *scratch;

		schema_key_named(&key, SCHEMA_XATTR, ino, at);
		at = value + strlen(value) + 1;
		rc = cat_get(txn, &key, &known);
		if (rc != -ENOENT)
			continue;
		scratch = cat_scratch(txn);
		schema_encode_blob(value, strlen(value), scratch);
		rc = cat_put(txn, &key, scratch);
	}
	return rc;
}

int cat_found_meet_links(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
			 struct cat_changes *changes)
{
	int rc;

	if (!found->resolved || !S_ISREG(inode->mode))
		return 0;
	if (!cat_found_is_link(found))
		return found->file_id ? cat_links_join(txn, inode, changes) : 0;
	rc = cat_link_found(txn, found->link_id, inode->ino, changes, inode);
	return rc < 0 ? rc : 0;
}
