/*
 * versions_attr.c - stat of nodes under `.versions`, from the catalog alone.
 *
 * Invariant: no write bit, setuid, setgid or sticky bit ever leaves this file.
 * No state of its own; safe from any thread.
 */
#include "fs/versions_attr.h"

#include <errno.h>
#include <string.h>

#include "clock.h"

#define MODE_SHOWN 0555

enum who { CLASS_OTHER, CLASS_GROUP, CLASS_OWNER };

static uint32_t class_bits(uint32_t mode, enum who who)
{
	return mode >> (3 * who) & 7;
}

/* What every user of class `who` under `shown` surely has under `other`. */
static uint32_t surely(struct versions_owner shown, struct versions_owner other, enum who who)
{
	bool same_uid = shown.uid == other.uid;
	bool same_gid = shown.gid == other.gid;
	bool may_be_owner = who == CLASS_OWNER ? same_uid : !same_uid;
	bool must_be_owner = who == CLASS_OWNER && same_uid;
	/* Nobody's groups are known here but by the class he is in. */
	bool may_be_group = !must_be_owner && (who != CLASS_OTHER || !same_gid);
	bool may_be_other = !must_be_owner && (who != CLASS_GROUP || !same_gid);
	uint32_t bits = 7;

	if (may_be_owner)
		bits &= class_bits(other.mode, CLASS_OWNER);
	if (may_be_group)
		bits &= class_bits(other.mode, CLASS_GROUP);
	if (may_be_other)
		bits &= class_bits(other.mode, CLASS_OTHER);
	return bits;
}

struct versions_owner versions_attr_both(struct versions_owner shown, struct versions_owner other)
{
	uint32_t mode = 0;

	for (int who = CLASS_OTHER; who <= CLASS_OWNER; who++)
		mode |= (class_bits(shown.mode, who) & surely(shown, other, who)) << (3 * who);
	return (struct versions_owner){.mode = mode, .uid = shown.uid, .gid = shown.gid};
}

static struct versions_owner owner_of(const struct cat_inode *inode)
{
	return (struct versions_owner){.mode = inode->mode, .uid = inode->uid, .gid = inode->gid};
}

struct object_records {
	const struct versions_object *object;
	struct cat_version version; /* when object->seq */
	struct cat_inode inode;
	struct cat_inode live; /* ino 0: the name is free, or the same inode's */
};

static int read_records(struct cat_txn *txn, void *arg)
{
	struct object_records *records = arg;
	const struct versions_object *object = records->object;
	struct cat_name name;
	int ret;

	records->live.ino = 0;
	ret = cat_inode_get(txn, object->ino, &records->inode);
	if (!ret && object->seq)
		ret = cat_version_get(txn, object->ino, object->seq, &records->version);
	if (ret)
		return ret;
	ret = cat_name_get(txn, object->dir, object->name, &name);
	if (!ret && name.ino != object->ino)
		ret = cat_inode_get(txn, name.ino, &records->live);
	return ret == -ENOENT ? 0 : ret;
}

static void set_size(struct stat *st, uint64_t size)
{
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)((size + 511) / 512);
	st->st_blksize = 4096;
}

static void show_version(const struct cat_version *version, struct stat *st)
{
	st->st_mode = S_IFREG;
	st->st_mtim = clock_to_timespec(version->mtime);
	st->st_atim = st->st_mtim;
	st->st_ctim = clock_to_timespec(version->commit_ns);
	set_size(st, version->size);
}

static void show_inode(const struct cat_inode *inode, struct stat *st)
{
	st->st_mode = inode->mode & S_IFMT;
	st->st_rdev = inode->rdev;
	st->st_mtim = clock_to_timespec(inode->mtime);
	st->st_atim = st->st_mtim;
	st->st_ctim = clock_to_timespec(inode->ctime);
	set_size(st, inode->size);
}

int versions_attr_object(struct catalog *catalog, const struct versions_object *object, struct stat *ret_stat)
{
	struct object_records records = {.object = object};
	struct versions_owner owner;
	struct stat st = {.st_ino = object->st_ino, .st_nlink = 1};
	int ret = catalog_view(catalog, read_records, &records);

	if (ret)
		return ret;
	if (object->seq && records.version.state == CAT_EXPIRED)
		return -ENOENT;
	if (object->seq) {
		const struct cat_version *version = &records.version;

		show_version(version, &st);
		owner = (struct versions_owner){.mode = version->mode, .uid = version->uid, .gid = version->gid};
		owner = versions_attr_both(owner, owner_of(&records.inode));
	} else {
		show_inode(&records.inode, &st);
		owner = owner_of(&records.inode);
	}
	if (records.live.ino)
		owner = versions_attr_both(owner, owner_of(&records.live));
	st.st_mode |= S_ISLNK(st.st_mode) ? 0777 : owner.mode & MODE_SHOWN;
	st.st_uid = owner.uid;
	st.st_gid = owner.gid;
	*ret_stat = st;
	return 0;
}

int versions_attr_directory(struct catalog *catalog, uint64_t ino, uint64_t st_ino, struct stat *ret_stat)
{
	struct cat_inode inode;
	struct stat st = {.st_ino = st_ino, .st_nlink = 1}; /* 1: nobody may conclude how many directories are within */
	int ret = catalog_getattr(catalog, ino, &inode);

	if (ret)
		return ret;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	st.st_mode = S_IFDIR | (inode.mode & MODE_SHOWN);
	st.st_uid = inode.uid;
	st.st_gid = inode.gid;
	st.st_mtim = clock_to_timespec(inode.mtime);
	st.st_atim = st.st_mtim;
	st.st_ctim = clock_to_timespec(inode.ctime);
	st.st_blksize = 4096;
	*ret_stat = st;
	return 0;
}

struct name_change {
	uint64_t dir;
	const char *name;
	int64_t newest_ns; /* 0: the name does not live */
};

static int newest_of_live(struct cat_txn *txn, void *arg)
{
	struct name_change *change = arg;
	struct cat_version version;
	struct cat_inode inode;
	struct cat_name name;
	int ret = cat_name_get(txn, change->dir, change->name, &name);

	if (!ret)
		ret = cat_inode_get(txn, name.ino, &inode);
	if (ret)
		return ret;
	change->newest_ns = name.since_ns;
	if (!inode.version)
		return 0;
	ret = cat_version_get(txn, inode.ino, inode.version, &version);
	if (!ret && version.commit_ns > change->newest_ns)
		change->newest_ns = version.commit_ns;
	return ret == -ENOENT ? 0 : ret;
}

static int newest_of_past(void *arg, const struct cat_past *past)
{
	struct name_change *change = arg;

	if (past->until_ns > change->newest_ns)
		change->newest_ns = past->until_ns;
	return 0;
}

int versions_attr_name(struct catalog *catalog, uint64_t dir, const char *name, uint64_t st_ino, struct stat *ret_stat)
{
	struct name_change change = {.dir = dir, .name = name};
	struct stat st;
	int ret = versions_attr_directory(catalog, dir, st_ino, &st);

	if (ret)
		return ret;
	ret = catalog_view(catalog, newest_of_live, &change);
	if (ret == -ENOENT)
		ret = catalog_past(catalog, dir, name, newest_of_past, &change);
	if (ret)
		return ret;
	st.st_mtim = clock_to_timespec(change.newest_ns);
	st.st_atim = st.st_mtim;
	*ret_stat = st;
	return 0;
}
