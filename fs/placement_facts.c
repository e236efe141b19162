/*
 * placement_facts.c - what the catalog says of a job's inode: names, version, copy, and the keys and metadata that
 * follow from them. All of it is read in one view, so that it fits together.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
#include "cleanup.h"
#include "fs/lease.h"
#include "fs/objmeta.h"
#include "fs/placement_internal.h"

static bool key_fits(const struct placement *placement, const char *key)
{
	const struct backend_limits *limits = transfer_limits(placement->transfer);
	size_t len = strlen(key);

	if (len > limits->max_key)
		return false;
	for (const char *at = key; limits->max_component && *at;) {
		size_t component = strcspn(at, "/");

		if (component > limits->max_component)
			return false;
		at += component + (at[component] == '/');
	}
	return true;
}

/* A key the store cannot hold is replaced by one of the file's own, so that no rename fails on a descendant. */
int placement_fit_key(const struct placement *placement, const uint8_t *file_id, struct buf *key)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	if (!buf_failed(key) && key_fits(placement, key->data))
		return 0;
	hex_encode(file_id, CAT_FILE_ID_SIZE, hex);
	buf_reset(key);
	buf_adds(key, CAT_OWN_KEYS "long/");
	buf_adds(key, hex);
	return buf_failed(key) ? -ENOMEM : 0;
}

void placement_own_key(const struct cat_inode *inode, uint64_t seq, struct buf *ret_key)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	hex_encode(inode->file_id, CAT_FILE_ID_SIZE, hex);
	buf_addf(ret_key, CAT_OWN_VERSIONS "%s/%016" PRIx64, hex, seq);
}

bool placement_is_own_key(const char *key)
{
	return strncmp(key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) == 0;
}

/* --- what the catalog says, read in one view ------------------------------------------------------------------ */

void placement_facts_clear(struct facts *facts)
{
	while (facts->links) {
		struct link *link = facts->links;

		facts->links = link->next;
		free(link->key);
		free(link);
	}
	cat_copy_clear(&facts->copy);
	buf_free(&facts->target);
	buf_free(&facts->attributes);
}

struct link_walk {
	struct facts *facts;
	struct cat_txn *txn;
	struct link **tail;
};

static int add_link(void *arg, const struct cat_name *name)
{
	struct link_walk *walk = arg;
	AUTO_BUF key = BUF_INIT;
	struct link *link;
	int err = cat_key_of_name(walk->txn, name->parent, name->name, &key);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (S_ISDIR(walk->facts->inode.mode))
		buf_addc(&key, '/');
	err = placement_fit_key(walk->facts->placement, walk->facts->inode.file_id, &key);
	link = err ? NULL : calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->key = buf_detach(&key);
	*walk->tail = link;
	walk->tail = &link->next;
	return link->key ? 0 : -ENOMEM;
}

static int read_facts(struct cat_txn *txn, void *arg)
{
	struct facts *facts = arg;
	struct link_walk walk = {.facts = facts, .txn = txn, .tail = &facts->links};
	uint64_t seq;
	int err = cat_inode_get(txn, facts->job->ino, &facts->inode);

	if (err)
		return err;
	seq = facts->job->type == CAT_JOB_UPLOAD ? facts->job->version : facts->inode.version;
	if (seq) {
		err = cat_version_get(txn, facts->inode.ino, seq, &facts->version);
		if (err)
			return err;
		facts->has_version = true;
		err = cat_copy_get(txn, facts->inode.ino, seq, &facts->copy);
		if (err && err != -ENOENT)
			return err;
	}
	if (S_ISLNK(facts->inode.mode)) {
		err = cat_symlink_get(txn, facts->inode.ino, &facts->target);
		if (err)
			return err;
	}
	err = cat_xattr_each(txn, facts->inode.ino, objmeta_take_attribute, &facts->attributes);
	if (err || !facts->inode.nlink || facts->inode.ino == CAT_ROOT_INO)
		return err;
	return cat_link_each(txn, facts->inode.ino, add_link, &walk);
}

int placement_facts_of(struct placement *placement, struct cat_job *job, struct facts *ret_facts)
{
	int err;

	*ret_facts = (struct facts){.placement = placement, .job = job};
	buf_init(&ret_facts->target);
	buf_init(&ret_facts->attributes);
	err = catalog_view(placement->catalog, read_facts, ret_facts);
	if (err)
		placement_facts_clear(ret_facts);
	return err;
}

bool placement_has_link(const struct facts *facts, const char *key)
{
	for (const struct link *link = facts->links; link; link = link->next)
		if (strcmp(link->key, key) == 0)
			return true;
	return false;
}

int placement_get_key(struct cat_txn *txn, void *arg)
{
	struct key_get *get = arg;

	return cat_key_get(txn, 0, get->key, &get->record);
}

/* --- metadata --------------------------------------------------------------------------------------------------- */

static int own_meta(const struct placement *placement, const struct facts *facts, struct meta *ret_meta)
{
	const struct cat_inode *inode = &facts->inode;
	const struct cat_version *version = &facts->version;
	struct objmeta meta = {
		.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME | OBJMETA_FILE_ID | OBJMETA_EPOCH,
		.mode = inode->mode,
		.uid = inode->uid,
		.gid = inode->gid,
		/* cp, tar and rsync set the time right after the close that made the version. */
		.mtime = facts->has_version && version->seq != inode->version ? version->mtime : inode->mtime,
		.epoch = placement->lease ? lease_epoch(placement->lease) : 0,
	};

	memcpy(meta.file_id, inode->file_id, sizeof(meta.file_id));
	if (facts->has_version) {
		meta.has |= OBJMETA_SEQ | OBJMETA_COMMIT | OBJMETA_ORIGIN | OBJMETA_AUTHOR | OBJMETA_HOST;
		meta.seq = version->seq;
		meta.commit_ns = version->commit_ns;
		meta.origin = version->origin;
		meta.author = version->author;
		memcpy(meta.host, version->host[0] ? version->host : placement->host, sizeof(meta.host));
	} else {
		meta.has |= OBJMETA_SEQ;
		meta.seq = facts->job->seq;
	}
	if (facts->has_version && (version->flags & CAT_HAS_CRC32C)) {
		meta.has |= OBJMETA_CRC32C;
		meta.crc32c = version->crc32c;
	}
	return objmeta_encode(&meta, ret_meta);
}

int placement_meta_of(const struct placement *placement, const struct facts *facts, struct meta *ret_meta)
{
	struct objmeta_room room = objmeta_room_in(placement->transfer);
	int err = own_meta(placement, facts, ret_meta);

	return err ? err : objmeta_add_user(&facts->attributes, facts->inode.mode, room, ret_meta);
}

int placement_link_meta_of(const struct placement *placement, const struct facts *facts, struct meta *ret_meta)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];
	int err = own_meta(placement, facts, ret_meta);

	hex_encode(facts->inode.file_id, CAT_FILE_ID_SIZE, hex);
	return err ? err : meta_set(ret_meta, "varve-link", hex);
}
