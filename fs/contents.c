/*
 * contents.c - which contents are in use, what their cache files hold when they are opened again, and eviction.
 *
 * Invariants
 *  1. One struct content per cache file in use; it is in the table from the first reference to the last.
 *  2. What an extent record says is believed when this boot wrote it, or when an fdatasync came before it. After a
 * power cut, clean ranges are dropped, and dirty ones must match their version's checksum.
 *  3. Evicted are only clean bytes that the store has, of files that share their cache file with no version.
 *
 * Threads: any. Locks: content->lock, then contents->lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content_internal.h"
#include "log.h"

#define READ_TIMEOUT_NS (30 * NS_PER_SEC)
#define PAGE UINT64_C(4096)
#define EVICT_BEHIND (UINT64_C(1) << 20) /* what a reader has just passed may be read again */

void contents_boot_id(uint8_t ret_id[static 16])
{
	const char *forced = getenv("VARVE_TEST_BOOT_ID"); /* tests play a power cut with it */
	char text[64] = {0}, hex[33] = {0};
	size_t n = 0;

	memset(ret_id, 0, 16);
	if (forced) {
		(void)snprintf(text, sizeof(text), "%s", forced);
	} else {
		AUTO_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 36)
			return; /* all zeros: equal only to itself, so nothing is dropped for lack of /proc */
	}
	for (const char *at = text; *at && n < 32; at++)
		if (*at != '-' && *at != '\n')
			hex[n++] = *at;
	(void)hex_decode(hex, 16, ret_id);
}

/* --- loading ------------------------------------------------------------------------------------------- */

struct load {
	struct content *content;
	struct cat_inode inode;
	struct cat_version version;
	struct cat_extent extent;
	bool has_version, has_extent;
};

static int load_records(struct cat_txn *txn, void *arg)
{
	struct load *load = arg;
	struct content *content = load->content;
	uint64_t seq = content->seq;
	int err = cat_inode_get(txn, content->ino, &load->inode);

	if (err)
		return err;
	seq = seq ? seq : load->inode.version;
	if (seq) {
		err = cat_version_get(txn, content->ino, seq, &load->version);
		if (err)
			return err;
		load->has_version = true;
	}
	err = cat_extent_get(txn, content->id, &load->extent);
	/* A version that shares its live file's cache file has its record there. */
	if (err == -ENOENT && (content->id & CACHE_VERSION))
		err = cat_extent_get(txn, content->ino, &load->extent);
	load->has_extent = err == 0;
	return err == -ENOENT ? 0 : err;
}

struct copy_load {
	struct content *content;
	struct cat_copy copy;
	struct cat_version version;
};

static int load_copy(struct cat_txn *txn, void *arg)
{
	struct copy_load *load = arg;
	int err = cat_version_get(txn, load->content->ino, load->content->base, &load->version);

	return err ? err : cat_copy_get(txn, load->content->ino, load->content->base, &load->copy);
}

int content_load_copy(struct content *content)
{
	struct copy_load load = {.content = content};
	struct cat_inode inode;
	int err;

	/* After an upload the current version is the base. */
	if (!content->seq && !content->changed && !content->shared && content->loaded &&
	    catalog_getattr(content->owner->catalog, content->ino, &inode) == 0 && inode.version &&
	    ranges_total(&content->dirty) == 0) {
		content->base = inode.version;
		content->base_limit = content->size;
	}
	cat_copy_clear(&content->copy);
	memset(&content->copy, 0, sizeof(content->copy));
	if (!content->base)
		return 0;
	err = catalog_view(content->owner->catalog, load_copy, &load);
	content->gone = load.version.state == CAT_EXPIRED;
	if (err)
		return err == -ENOENT ? 0 : err;
	content->copy = load.copy;
	content->base_size = load.version.size;
	content->base_crc32c = load.version.crc32c;
	content->base_has_crc32c = load.version.flags & CAT_HAS_CRC32C;
	return 0;
}

static bool believable(const struct content *content, const struct load *load)
{
	const struct cat_extent *extent = &load->extent;

	if (!load->has_extent)
		return false;
	if (!extent->synced && memcmp(extent->boot_id, content->owner->boot_id, 16) != 0)
		return false;
	/* A clean record of an older version is of no use. */
	return extent->dirty.count > 0 || extent->base == (content->seq ? content->seq : load->inode.version) ||
	       load->version.state == CAT_LOCAL || (load->inode.flags & CAT_DIRTY);
}

static void adopt_extent(struct content *content, struct load *load)
{
	ranges_free(&content->present);
	ranges_free(&content->dirty);
	content->present = load->extent.present;
	content->dirty = load->extent.dirty;
	content->base = load->extent.base;
	content->base_limit = load->extent.base_limit;
	content->synced = load->extent.synced;
	load->extent.present = load->extent.dirty = (struct ranges)RANGES_INIT;
}

/* The newest version is not stored: its cache file must be a second name of ours, or one of its own. */
static int load_shared(struct content *content, const struct load *load)
{
	struct cache *cache = content->owner->cache;
	uint64_t version_id = CACHE_VERSION | load->version.seq;
	struct stat ours, theirs;
	int fd, err;

	if (content->seq || !load->has_version || load->version.state == CAT_STORED ||
	    load->version.state == CAT_EXPIRED || (load->inode.flags & CAT_DIRTY))
		return 0;
	err = cache_file_open(cache, version_id, O_RDONLY, &fd);
	if (err == -ENOENT) { /* killed between commit and link */
		err = cache_file_link(cache, content->id, version_id);
		content->shared = load->version.seq;
		return err;
	}
	if (err)
		return err;
	if (fstat(content->fd, &ours) || fstat(fd, &theirs))
		err = -errno;
	else if (ours.st_ino == theirs.st_ino)
		content->shared = load->version.seq;
	(void)close(fd);
	return err;
}

/* The cache file is as long as the file, so that a spliced read is never short: a short one would tell the kernel that
 * the file ends there. */
int content_lengthen(const struct content *content)
{
	struct stat st;

	if (fstat(content->fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < content->size && ftruncate(content->fd, (off_t)content->size))
		return -errno;
	return 0;
}

/* The cache file must hold what its record says: somebody may have removed or cut it. Its descriptor, or -1 and not
 * kept. */
static int open_kept(struct content *content, const struct load *load, bool *ret_keep)
{
	struct stat st;
	int fd = -1, err = cache_file_open(content->owner->cache, content->id, O_RDWR, &fd);
	bool whole = !err && fstat(fd, &st) == 0 && (uint64_t)st.st_size >= ranges_end(&load->extent.present);

	if (err && err != -ENOENT)
		return err;
	if (!whole && load->extent.dirty.count) {
		log_error("content", "the cache file of file %llu is gone, and with it changes that were not stored",
			  (unsigned long long)content->ino);
		err = -EIO;
	} else {
		err = 0;
	}
	if (whole) {
		content->fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd);
	*ret_keep = false;
	return err;
}

/* Not believed, and yet the only copy: only recovery may decide about it. */
static bool is_only_copy(const struct content *content, const struct load *load)
{
	bool stored = load->version.state == CAT_STORED || load->version.state == CAT_EXPIRED;

	return !content->seq && load->has_extent && load->has_version &&
	       ((load->inode.flags & CAT_DIRTY) || (!stored && load->version.size));
}

/* The descriptor, and what the file holds. */
static int load_file(struct content *content, struct load *load)
{
	bool keep = believable(content, load);
	int err;

	if (!keep && is_only_copy(content, load))
		return -EIO;
	err = keep ? open_kept(content, load, &keep) : 0;
	if (err)
		return err;
	if (keep) {
		adopt_extent(content, load);
		return 0;
	}
	/* A frozen file is never made here: an empty one would pass for the version. */
	if (content->id & CACHE_VERSION)
		return -ENOENT;
	content->base = content->seq ? content->seq : load->inode.version;
	content->base_limit = content->size;
	content->stale = load->has_extent;
	return cache_file_open(content->owner->cache, content->id, O_RDWR | O_CREAT | O_TRUNC, &content->fd);
}

static void unload(struct content *content)
{
	if (content->fd >= 0)
		(void)close(content->fd);
	content->fd = -1;
	content->shared = 0;
	ranges_clear(&content->present);
	ranges_clear(&content->dirty);
}

int content_load(struct content *content)
{
	struct load load = {.content = content};
	int err = catalog_view(content->owner->catalog, load_records, &load);

	if (err)
		goto out;
	if (S_ISDIR(load.inode.mode) || (content->seq && !load.has_version)) {
		err = S_ISDIR(load.inode.mode) ? -EISDIR : -ENOENT;
		goto out;
	}
	content->size = content->seq ? load.version.size : load.inode.size;
	content->mtime = content->seq ? load.version.mtime : load.inode.mtime;
	content->ctime = content->seq ? load.version.commit_ns : load.inode.ctime;
	err = load_file(content, &load);
	if (!err)
		err = content_lengthen(content);
	if (err)
		goto out;
	content->changed = !content->seq && (load.inode.flags & CAT_DIRTY);
	content->flushed = content->changed && (load.inode.flags & CAT_FLUSHED);
	err = load_shared(content, &load);
	if (!err)
		err = content_load_copy(content);
	if (!err)
		content->loaded = true;
out:
	if (err) /* the next one who asks begins anew */
		unload(content);
	cat_extent_clear(&load.extent);
	return err;
}

/* --- the table -------------------------------------------------------------------------------------------- */

static bool content_matches(const struct table_node *node, const void *key)
{
	return container_of(node, struct content, node)->id == *(const uint64_t *)key;
}

static struct content *find_ref(struct contents *contents, uint64_t id)
{
	struct table_node *node = table_find(&contents->table, hash_u64(id), content_matches, &id);
	struct content *content = node ? container_of(node, struct content, node) : NULL;

	if (content)
		content->refs++;
	return content;
}

static void content_destroy(struct content *content)
{
	if (content->fd >= 0)
		(void)close(content->fd); /* a cache file: what matters was synced or is in the page cache */
	ranges_free(&content->present);
	ranges_free(&content->dirty);
	cat_copy_clear(&content->copy);
	(void)pthread_cond_destroy(&content->cond);
	lock_destroy(&content->lock);
	free(content);
}

static struct content *find_or_add(struct contents *contents, const struct content *named)
{
	struct content *content;

	LOCK_GUARD(&contents->lock);
	content = find_ref(contents, named->id);
	if (content)
		return content;
	content = calloc(1, sizeof(*content));
	if (!content)
		return NULL;
	content->id = named->id;
	content->ino = named->ino;
	content->seq = named->seq;
	content->owner = contents;
	content->refs = 1;
	content->fd = -1;
	lock_init(&content->lock, named->seq ? LOCK_FROZEN : LOCK_CONTENT);
	lock_cond_init(&content->cond);
	list_init(&content->fetches);
	table_insert(&contents->table, &content->node, hash_u64(named->id));
	return content;
}

struct state_of {
	uint64_t ino, seq;
	enum cat_state state;
};

static int state_of(struct cat_txn *txn, void *arg)
{
	struct state_of *of = arg;
	struct cat_version version;
	int err = cat_version_get(txn, of->ino, of->seq, &version);

	if (!err)
		of->state = version.state;
	return err;
}

/* One that is loaded, or the error of loading it. */
static int get_loaded(struct contents *contents, const struct content *named, struct content **ret_content)
{
	struct content *content = find_or_add(contents, named);
	int err = 0;

	if (!content)
		return -ENOMEM;
	lock_acquire(&content->lock);
	if (!content->loaded)
		err = content_load(content);
	lock_release(&content->lock);
	if (err)
		content_put(content);
	else
		*ret_content = content;
	return err;
}

/*
 * The cache file of a version that is not stored is made by its live file: by commit, under the live content's lock, or
 * by load, when a crash came between. So that content is asked for first, and its lock passed once.
 */
static int get_frozen(struct contents *contents, uint64_t ino, uint64_t seq, struct content **ret_content)
{
	struct content named = {.id = CACHE_VERSION | seq, .ino = ino, .seq = seq};
	struct content *live;
	int err = get_loaded(contents, &(struct content){.id = ino, .ino = ino}, &live);

	if (err)
		return err;
	lock_acquire(&live->lock);
	lock_release(&live->lock);
	err = get_loaded(contents, &named, ret_content);
	content_put(live);
	return err;
}

int content_get(struct contents *contents, uint64_t ino, uint64_t seq, struct content **ret_content)
{
	struct state_of of = {.ino = ino, .seq = seq};
	int err;

	if (!seq)
		return get_loaded(contents, &(struct content){.id = ino, .ino = ino}, ret_content);
	err = catalog_view(contents->catalog, state_of, &of);
	if (err)
		return err;
	if (of.state == CAT_STORED || of.state == CAT_EXPIRED)
		return get_loaded(contents, &(struct content){.id = CACHE_HISTORY | seq, .ino = ino, .seq = seq},
				  ret_content);
	err = get_frozen(contents, ino, seq, ret_content);
	/* Stored while we looked: its frozen file is gone. */
	return err == -ENOENT
		       ? get_loaded(contents, &(struct content){.id = CACHE_HISTORY | seq, .ino = ino, .seq = seq},
				    ret_content)
		       : err;
}

struct content *contents_peek_id(struct contents *contents, uint64_t id)
{
	LOCK_GUARD(&contents->lock);
	return find_ref(contents, id);
}

struct content *content_peek(struct contents *contents, uint64_t ino)
{
	return contents_peek_id(contents, ino);
}

void content_hold(struct content *content)
{
	LOCK_GUARD(&content->owner->lock);
	content->refs++;
}

void content_put(struct content *content)
{
	struct contents *owner = content->owner;
	bool last;

	/* What we know of the cache file is written down before anybody else can load it. */
	{
		LOCK_GUARD(&content->lock);
		if (content->loaded && content->stale && !content->discarded && !content->changed &&
		    content_save(content))
			log_warn("content", "the cache of file %llu must be fetched again",
				 (unsigned long long)content->ino);
	}
	{
		LOCK_GUARD(&owner->lock);
		last = --content->refs == 0;
		if (last)
			table_remove(&owner->table, &content->node);
	}
	if (last)
		content_destroy(content);
}

/* --- eviction ------------------------------------------------------------------------------------------------ */

static int drop_record(struct cat_txn *txn, void *arg)
{
	return cat_extent_delete(txn, *(const uint64_t *)arg);
}

/* Ranges that a reader is about to need, or that are just arriving, are no gain. */
static int spare(const struct content *content, struct ranges *kept)
{
	uint64_t behind = content->read_next > EVICT_BEHIND ? content->read_next - EVICT_BEHIND : 0;
	int err = content->fetching || content->window
			  ? ranges_add(kept, behind, content->read_next + content->window + EVICT_BEHIND)
			  : 0;

	return err ? err : content_spare_in_flight(content, kept);
}

/* Takes out of `present` what is clean and not spared, page by page, and says how much that was. */
static uint64_t give_up_clean(struct content *content, const struct ranges *before, const struct ranges *kept)
{
	uint64_t at = 0, freed = 0;
	struct range piece, clean;

	for (; ranges_next_piece(before, at, content->base_limit, &piece); at = piece.end) {
		uint64_t from = piece.start;

		while (from < piece.end && ranges_next_gap(kept, from, piece.end, &clean)) {
			uint64_t start = (clean.start + PAGE - 1) & ~(PAGE - 1);
			uint64_t end = clean.end >= content->base_limit ? clean.end : clean.end & ~(PAGE - 1);

			if (start < end && ranges_remove(&content->present, start, end) == 0)
				freed += end - start;
			from = clean.end;
		}
	}
	return freed;
}

static void punch_absent(const struct content *content, const struct ranges *before)
{
	struct range piece, gone;

	for (uint64_t at = 0; ranges_next_piece(before, at, UINT64_MAX, &piece); at = piece.end) {
		uint64_t from = piece.start;

		while (from < piece.end && ranges_next_gap(&content->present, from, piece.end, &gone)) {
			(void)fallocate(content->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gone.start,
					(off_t)(gone.end - gone.start)); /* what stays is only wasted */
			from = gone.end;
		}
	}
}

/* Punches the clean ranges of a content in use: the record shrinks first. Fetches in flight only fill what is absent.
 */
static uint64_t evict_clean(struct content *content)
{
	struct ranges before = RANGES_INIT, kept = RANGES_INIT;
	uint64_t freed = 0;

	if (content->io || content->shared || content->discarded || !content->copy.key)
		return 0;
	if (ranges_copy(&before, &content->present) == 0 && ranges_copy(&kept, &content->dirty) == 0 &&
	    spare(content, &kept) == 0)
		freed = give_up_clean(content, &before, &kept);
	if (freed && content_save(content) == 0)
		punch_absent(content, &before);
	ranges_free(&before);
	ranges_free(&kept);
	return freed;
}

/* Nobody uses it: is all of it in the store? */
struct idle {
	uint64_t id;
	bool clean;
};

static int is_clean(struct cat_txn *txn, void *arg)
{
	struct idle *idle = arg;
	struct cat_extent extent = {0};
	struct cat_inode inode;
	struct cat_version version;
	int err;

	idle->clean = false;
	if (idle->id & CACHE_VERSION)
		return 0;
	if (idle->id & CACHE_HISTORY) {
		idle->clean = true;
		return 0;
	}
	err = cat_extent_get(txn, idle->id, &extent);
	idle->clean = err == -ENOENT || (!err && extent.dirty.count == 0);
	cat_extent_clear(&extent);
	err = cat_inode_get(txn, idle->id, &inode);
	if (err || (inode.flags & CAT_DIRTY))
		idle->clean = idle->clean && err == -ENOENT;
	else if (inode.version && cat_version_get(txn, inode.ino, inode.version, &version) == 0)
		idle->clean = idle->clean && version.state == CAT_STORED;
	return 0;
}

static uint64_t evict_idle(struct contents *contents, uint64_t id)
{
	struct idle idle = {.id = id};
	struct stat st = {0};
	int fd;

	if (catalog_view(contents->catalog, is_clean, &idle) || !idle.clean)
		return 0;
	if (cache_file_open(contents->cache, id, O_RDONLY, &fd) == 0) {
		(void)fstat(fd, &st);
		(void)close(fd);
	}
	if (catalog_update(contents->catalog, drop_record, &id))
		return 0;
	cache_file_unlink(contents->cache, id);
	return (uint64_t)st.st_blocks * 512 + 1; /* an empty file's entry is a gain too */
}

static uint64_t evict(void *arg, uint64_t id)
{
	struct contents *contents = arg;
	struct content *content;
	uint64_t freed;

	{
		/* Holding the table keeps it idle: nobody can begin to use it meanwhile. */
		LOCK_GUARD(&contents->lock);
		content = find_ref(contents, id);
		if (!content)
			return evict_idle(contents, id);
	}
	lock_acquire(&content->lock);
	freed = content->loaded && !(id & CACHE_VERSION) ? evict_clean(content) : 0;
	cache_account(contents->cache, id, ranges_total(&content->present));
	lock_release(&content->lock);
	content_put(content);
	return freed;
}

int contents_new(const struct contents_options *options, struct contents **ret_contents)
{
	struct contents *contents = calloc(1, sizeof(*contents));
	struct cache_options cache = {
		.dir = options->cache_dir, .limit = options->cache_limit, .reserve = options->cache_reserve};
	int err;

	if (!contents)
		return -ENOMEM;
	contents->catalog = options->catalog;
	contents->transfer = options->transfer;
	contents->read_timeout_ns = options->read_timeout_ns ? options->read_timeout_ns : READ_TIMEOUT_NS;
	contents->gone = options->gone;
	contents->gone_arg = options->gone_arg;
	contents_boot_id(contents->boot_id);
	lock_init(&contents->lock, LOCK_CONTENTS);
	err = table_init(&contents->table, 1024);
	if (!err)
		err = cache_open(&cache, evict, contents, &contents->cache);
	if (err)
		contents_free(contents);
	else
		*ret_contents = contents;
	return err;
}

void contents_cancel(struct contents *contents)
{
	atomic_store(&contents->cancelled, true);
}

void contents_free(struct contents *contents)
{
	if (!contents)
		return;
	cache_close(contents->cache);
	table_destroy(&contents->table);
	lock_destroy(&contents->lock);
	free(contents);
}

struct cache *contents_cache(struct contents *contents)
{
	return contents->cache;
}

static void wake_one(struct table_node *node, void *arg)
{
	(void)arg;
	(void)pthread_cond_broadcast(&container_of(node, struct content, node)->cond);
}

void contents_wake(struct contents *contents)
{
	LOCK_GUARD(&contents->lock);
	table_each(&contents->table, wake_one, NULL);
}

/* --- the end --------------------------------------------------------------------------------------------------- */

struct gather {
	struct content **all;
	size_t count;
};

static void gather_one(struct table_node *node, void *arg)
{
	struct gather *gather = arg;
	struct content *content = container_of(node, struct content, node);

	content->refs++;
	gather->all[gather->count++] = content;
}

/* Every content in use, each with a reference for the caller. */
static struct gather gather_all(struct contents *contents)
{
	struct gather gather = {0};

	LOCK_GUARD(&contents->lock);
	gather.all = calloc(contents->table.count + 1, sizeof(struct content *));
	if (gather.all)
		table_each(&contents->table, gather_one, &gather);
	return gather;
}

uint64_t contents_unsettled(struct contents *contents)
{
	struct gather gather = gather_all(contents);
	uint64_t count = 0;

	for (size_t i = 0; i < gather.count; i++) {
		struct content *content = gather.all[i];

		lock_acquire(&content->lock);
		count += content->changed && content->flushed && !content->discarded;
		lock_release(&content->lock);
		content_put(content);
	}
	free(gather.all);
	return count;
}

void contents_commit_all(struct contents *contents)
{
	struct gather gather = gather_all(contents);

	for (size_t i = 0; i < gather.count; i++) {
		struct content *content = gather.all[i];
		enum cat_origin origin;
		uint64_t seq;
		int err = 0;

		lock_acquire(&content->lock);
		origin = content->flushed ? CAT_ORIGIN_CLOSE : CAT_ORIGIN_RECOVERED;
		lock_release(&content->lock);
		if (!content->seq)
			err = content_commit(content, origin, content->author, &seq);
		if (err)
			log_error("content", "the changes of file %llu wait for the next mount: %s",
				  (unsigned long long)content->ino, strerror(-err));
		content_put(content);
	}
	free(gather.all);
}
