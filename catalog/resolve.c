/*
 * resolve.c - what HEAD tells of an inode that a listing left open: type, owner, times, identity, a symlink's target.
 *
 * Invariant: it is taken only for the object that the key's record names (check_same_object).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/catalog_internal.h"
#include "clock.h"

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
	cat_found_version(found, inode, &version);
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
	cat_found_copy(found, known.ino, known.seq, &copy);
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
int cat_resolve_inode(struct cat_txn *txn, const struct cat_found *found, struct cat_inode *inode,
		      struct cat_changes *changes)
{
	uint32_t type = inode->mode & S_IFMT;
	int rc = S_ISREG(type) ? check_same_object(txn, found, inode) : 0;

	if (rc < 0)
		return rc;
	if (S_ISDIR(type) != found->directory)
		return -ESTALE;
	inode->mode = cat_found_mode(found, inode->mode);
	inode->uid = found->uid;
	inode->gid = found->gid;
	if (found->mtime)
		inode->mtime = found->mtime;
	inode->flags &= ~(uint32_t)CAT_UNRESOLVED;
	if (found->file_id && !cat_found_is_link(found))
		memcpy(inode->file_id, found->file_id, CAT_FILE_ID_SIZE);
	if (cat_found_is_ours(found))
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
		rc = cat_found_put_key(txn, found, inode);
	if (rc == 0)
		rc = cat_found_put_attributes(txn, found, inode->ino);
	if (rc == 0)
		rc = cat_inode_put(txn, inode);
	if (rc == 0)
		rc = cat_file_put(txn, inode);
	return rc ? rc : cat_found_meet_links(txn, found, inode, changes);
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
	return cat_resolve_inode(txn, &found, &resolve->inode, &resolve->changes);
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
