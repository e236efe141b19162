/*
 * contents.c - which contents are in use, what their cache files hold when they are opened again, and eviction.
 *
 * Invariants
 *  1. One struct content per cache file in use; it is in the table from the first reference to the last.
 *  2. What an extent record says is believed when this boot wrote it, or when an fdatasync came before it. After a
 * power cut, clean ranges are dropped, and dirty ones must match their version's checksum.
 *  3. Evicted are only clean bytes that the store has, of files that share their cache file with no version and that
 *     nobody else has open or mapped (backing.h).
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
#include "fs/backing.h"
#include "fs/content_internal.h"
#include "log.h"

#define READ_TIMEOUT_NS (30 * NS_PER_SEC)
#define STALLED_LEAST_NS (10 * NS_PER_SEC)
#define PAGE UINT64_C(4096)

static void contents_boot_id(uint8_t ret_id[static 16])
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
	uint64_t ino, base;
	struct cat_copy copy;
	struct cat_version version;
};

static int take_stored(void *arg, const struct cat_version *version)
{
	struct copy_load *load = arg;

	/* What was found between ours, or aside, is of other bytes. */
	if (version->state == CAT_STORED && version->origin != CAT_ORIGIN_SUSPECT && !(version->flags & CAT_FOUND)) {
		load->ino = version->ino;
		load->base = version->seq;
	}
	return 0;
}

/*
 * What is absent, and what is not dirty, has not changed since `base` was made: every later version up to ours has the
 * same bytes there. The newest that is stored is the one to count on. A file that is always being written is never
 * clean, and its first base would be long gone from the store. Where that is another file's, later ones are those of
 * our own since we have it.
 */
static int load_copy(struct cat_txn *txn, void *arg)
{
	struct copy_load *load = arg;
	const struct content *content = load->content;
	uint64_t after = content->base_ino ? content->base_after : content->base;
	int err;

	load->ino = content_base_ino(content);
	load->base = content->base;
	err = cat_version_each(txn, content->ino, after + 1, content->seq ? content->seq : UINT64_MAX, take_stored,
			       load);
	if (!err)
		err = cat_version_get(txn, load->ino, load->base, &load->version);
	return err ? err : cat_copy_get(txn, load->ino, load->base, &load->copy);
}

void content_base_on(struct content *content, uint64_t seq)
{
	content->base = seq;
	content->base_limit = content->size;
	content->base_ino = content->base_after = 0;
}

int content_load_copy(struct content *content)
{
	struct copy_load load = {.content = content};
	struct cat_inode inode;
	int err;

	/* After an upload the current version is the base. */
	if (!content->seq && !content->changed && !content->shared && content->loaded && !content->base_ino &&
	    catalog_getattr(content->owner->catalog, content->ino, &inode) == 0 && inode.version &&
	    ranges_total(&content->dirty) == 0)
		content_base_on(content, inode.version);
	cat_copy_clear(&content->copy);
	memset(&content->copy, 0, sizeof(content->copy));
	if (!content->base)
		return 0;
	err = catalog_view(content->owner->catalog, load_copy, &load);
	if (load.base != content->base) {
		content->base = load.base;
		content->base_ino = content->base_after = 0;
	}
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
	       (load->version.state != CAT_STORED && load->version.state != CAT_EXPIRED) ||
	       (load->inode.flags & CAT_DIRTY);
}

static void adopt_extent(struct content *content, struct load *load)
{
	ranges_free(&content->present);
	ranges_free(&content->dirty);
	content->present = load->extent.present;
	content->dirty = load->extent.dirty;
	content->base = load->extent.base;
	content->base_limit = load->extent.base_limit;
	content->base_ino = load->extent.base_ino;
	content->base_after = load->extent.base_after;
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
	if (err == -ENOENT && !load->has_extent && load->version.size)
		return 0;     /* ours was made a moment ago, and holds nothing of it */
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

	if (!content->size)
		return 0;
	if (fstat(content->fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < content->size && ftruncate(content->fd, (off_t)content->size))
		return -errno;
	return 0;
}

static bool is_stored(const struct load *load)
{
	return load->version.state == CAT_STORED || load->version.state == CAT_EXPIRED;
}

/* The cache file is gone, and with it what the store does not have. A file is served all the same, as one whose bytes
 * are errors, so that it can be removed or written anew. */
static int open_lost(struct content *content, struct load *load)
{
	if (content->seq)
		return -ENODATA; /* content_get looks whether it is stored by now */
	log_error("content", "the cache file of file %llu is gone, and with it changes that were not stored",
		  (unsigned long long)content->ino);
	ranges_clear(&load->extent.dirty);
	load->extent.base = load->extent.base_ino = 0;
	load->extent.base_limit = content->size;
	content->lost = true;
	return cache_file_open(content->owner->cache, content->id, O_RDWR | O_CREAT, &content->fd);
}

/* Killed in the midst of a truncation, which cuts the file before its record: it is as long as the file is. */
static int cut_record(struct content *content, struct load *load, uint64_t size)
{
	struct cat_extent *extent = &load->extent;
	int err = ranges_remove(&extent->present, size, UINT64_MAX);

	if (!err)
		err = ranges_remove(&extent->dirty, size, UINT64_MAX);
	if (extent->base_limit > size)
		extent->base_limit = size;
	if (content->size > size)
		content->size = size;
	content->stale = true;
	return err;
}

/* Not the old one cut: what an earlier mount left behind may still map that. */
static int new_file(struct content *content)
{
	struct cache *cache = content->owner->cache;
	int err = cache_file_open(cache, content->id, O_RDWR | O_CREAT | O_EXCL, &content->fd);

	if (err != -EEXIST)
		return err;
	cache_file_unlink(cache, content->id);
	return cache_file_open(cache, content->id, O_RDWR | O_CREAT | O_EXCL, &content->fd);
}

static int drop_record(struct cat_txn *txn, void *arg)
{
	return cat_extent_delete(txn, *(const uint64_t *)arg);
}

/* But for whose version the bytes are in, which nothing else knows. */
static int empty_record(struct cat_txn *txn, void *arg)
{
	const struct load *load = arg;
	uint64_t id = load->content->id;

	return load->extent.base_ino ? cat_extent_put(txn, id, &load->extent) : cat_extent_delete(txn, id);
}

/* Anew and empty. The record goes before the file is as long as it says: killed then, we would believe it. */
static int make_file(struct content *content, struct load *load)
{
	int err = load->has_extent ? catalog_update(content->owner->catalog, empty_record, load) : 0;

	return err ? err : new_file(content);
}

/* The cache file must hold what its record says: somebody may have removed or cut it. */
static int open_kept(struct content *content, struct load *load)
{
	struct stat st;
	int fd = -1, err = cache_file_open(content->owner->cache, content->id, O_RDWR, &fd);

	if (err && err != -ENOENT)
		return err;
	if (!err && fstat(fd, &st))
		st.st_size = -1;
	if (!err && st.st_size >= (off_t)ranges_end(&load->extent.present)) {
		content->fd = fd;
		return 0;
	}
	if (!err && st.st_size >= 0 && !content->seq && (load->inode.flags & CAT_DIRTY)) {
		content->fd = fd;
		return cut_record(content, load, (uint64_t)st.st_size);
	}
	if (fd >= 0)
		(void)close(fd);
	ranges_clear(&load->extent.present);
	if (load->extent.dirty.count && (!is_stored(load) || (load->inode.flags & CAT_DIRTY)))
		return open_lost(content, load);
	if ((content->id & CACHE_VERSION) && is_stored(load))
		return -ENOENT;         /* while we looked */
	if (load->extent.dirty.count) { /* what the record calls dirty has been stored since */
		ranges_clear(&load->extent.dirty);
		load->extent.base = load->version.seq;
		load->extent.base_limit = content->size;
		load->extent.base_ino = 0;
	}
	return make_file(content, load);
}

/* Not believed, and yet the only copy: only recovery may decide about it. */
static bool is_only_copy(const struct content *content, const struct load *load)
{
	return !content->seq && load->has_extent && load->has_version &&
	       ((load->inode.flags & CAT_DIRTY) || (!is_stored(load) && load->version.size));
}

/* The descriptor, and what the file holds. */
static int load_file(struct content *content, struct load *load)
{
	bool keep = believable(content, load);
	int err;

	if (!keep && is_only_copy(content, load))
		return -EIO;
	if (keep) {
		err = open_kept(content, load);
		if (!err)
			adopt_extent(content, load);
		return err;
	}
	/* A frozen file is never made here: an empty one would pass for the version. */
	if (content->id & CACHE_VERSION)
		return -ENOENT;
	content_base_on(content, content->seq ? content->seq : load->inode.version);
	load->extent.base_ino = 0;
	return make_file(content, load);
}

static void unload(struct content *content)
{
	if (content->fd >= 0)
		(void)close(content->fd);
	content->fd = -1;
	content->shared = 0;
	content->lost = false;
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
	if (!err && !content->lost) /* else it would pass for whole the next time */
		err = content_lengthen(content);
	if (err)
		goto out;
	content->changed = !content->seq && !content->lost && (load.inode.flags & CAT_DIRTY);
	content->flushed = content->changed && (load.inode.flags & CAT_FLUSHED);
	err = content->lost ? 0 : load_shared(content, &load);
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
	ranges_free(&content->rewritten);
	cat_copy_clear(&content->copy);
	content->owner->streams -= content->streams;
	free(content->readahead);
	free(content->io_at);
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
	list_init(&content->readers);
	list_init(&content->watch_node);
	table_insert(&contents->table, &content->node, hash_u64(named->id));
	return content;
}

struct content *contents_reach(struct contents *contents, uint64_t ino)
{
	return find_or_add(contents, &(struct content){.id = ino, .ino = ino});
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
 * by load, when a crash came between. So that content is asked for first.
 */
static int get_frozen(struct contents *contents, uint64_t ino, uint64_t seq, struct content **ret_content)
{
	struct content named = {.id = CACHE_VERSION | seq, .ino = ino, .seq = seq};
	struct content *live;
	int err = get_loaded(contents, &(struct content){.id = ino, .ino = ino}, &live);

	if (err)
		return err;
	/* Opened under the lock: a writer who freezes the version meanwhile would not know of us, nor we of its clone.
	 */
	lock_acquire(&live->lock);
	err = live->shared == seq ? content_keep_named(live) : 0;
	if (!err)
		err = get_loaded(contents, &named, ret_content);
	lock_release(&live->lock);
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
	if (of.state != CAT_STORED && of.state != CAT_EXPIRED) {
		err = get_frozen(contents, ino, seq, ret_content);
		if (err != -ENOENT && err != -ENODATA)
			return err;
		/* Stored while we looked: its frozen file is gone. */
		if (err == -ENODATA && (catalog_view(contents->catalog, state_of, &of) ||
					(of.state != CAT_STORED && of.state != CAT_EXPIRED)))
			return err;
	}
	return get_loaded(contents, &(struct content){.id = CACHE_HISTORY | seq, .ino = ino, .seq = seq}, ret_content);
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

/* Drops a reference, but not the last one of a content that was not written down: false. */
static bool drop_ref(struct content *content, bool *ret_last)
{
	bool unsaved = content->loaded && content->stale && !content->discarded && !content->changed;

	LOCK_GUARD(&content->owner->lock);
	if (content->refs == 1 && unsaved)
		return false;
	*ret_last = --content->refs == 0;
	if (*ret_last) {
		atomic_fetch_add(&content->owner->leaving, 1);
		table_remove(&content->owner->table, &content->node);
	}
	return true;
}

void content_put(struct content *content)
{
	struct contents *owner = content->owner;
	bool last;

	/* What we know of the cache file is written down before anybody else can load it. */
	lock_acquire(&content->lock);
	while (!drop_ref(content, &last)) {
		if (content_save(content)) {
			log_warn("content", "the cache of file %llu must be fetched again",
				 (unsigned long long)content->ino);
			content->stale = false;
		}
	}
	lock_release(&content->lock);
	if (last) {
		cache_touch(owner->cache, content->id);
		content_destroy(content);
		atomic_fetch_sub(&owner->leaving, 1);
	}
}

/* --- eviction ------------------------------------------------------------------------------------------------ */

#define PIECES_MAX ((size_t)1 << 17)

/* What is asked of one content. */
struct giving {
	struct content *content;
	struct ranges before, kept;
	uint64_t wanted, freed;
};

/* Takes out of `present` what is clean and not kept of [from, to), page by page, until there is enough. */
static void give_up(struct giving *giving, uint64_t from, uint64_t to)
{
	struct content *content = giving->content;
	struct range piece, clean;

	while (giving->freed < giving->wanted && ranges_next_piece(&giving->before, from, to, &piece)) {
		uint64_t at = piece.start;

		from = piece.end;
		while (giving->freed < giving->wanted && ranges_next_gap(&giving->kept, at, piece.end, &clean)) {
			uint64_t start = (clean.start + PAGE - 1) & ~(PAGE - 1);
			uint64_t most = start + ((giving->wanted - giving->freed + PAGE - 1) & ~(PAGE - 1));
			uint64_t end = clean.end >= content->base_limit ? clean.end : clean.end & ~(PAGE - 1);

			if (end > most)
				end = most;
			if (start < end && ranges_remove(&content->present, start, end) == 0) {
				giving->freed += end - start;
				content->evict_at = end;
			}
			at = clean.end;
		}
	}
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

/*
 * Punches clean ranges of a content in use: the record shrinks first. The hand goes round the file, so that what was
 * brought last goes last, and no more goes than is wanted: of a file larger than the cache the rest may be of use.
 * Fetches in flight only fill what is absent.
 */
static uint64_t evict_clean(struct content *content, uint64_t wanted, enum fetch_keep keep)
{
	struct giving giving = {.content = content, .wanted = wanted};
	uint64_t hand = content->evict_at < content->base_limit ? content->evict_at : 0;

	if (content->shared || content->discarded || !content->copy.key || !backing_alone(content))
		return 0;
	if (ranges_copy(&giving.before, &content->present) == 0 && ranges_copy(&giving.kept, &content->dirty) == 0 &&
	    fetch_keep(content, keep, &giving.kept) == 0) {
		give_up(&giving, hand, content->base_limit);
		give_up(&giving, 0, hand);
	}
	if (giving.freed && content_save(content) == 0) {
		punch_absent(content, &giving.before);
	} else if (giving.freed) { /* it is all still there */
		struct ranges present = content->present;

		content->present = giving.before;
		giving.before = present;
		giving.freed = 0;
	}
	ranges_free(&giving.before);
	ranges_free(&giving.kept);
	return giving.freed;
}

void content_thin(struct content *content)
{
	if (content->present.count > PIECES_MAX)
		(void)evict_clean(content, ranges_total(&content->present) / 2, FETCH_KEEP_NEEDED);
}

/* Nobody uses it: is all of it in the store? */
struct idle {
	uint64_t id;
	bool clean, has_record;
};

static int is_clean(struct cat_txn *txn, void *arg)
{
	struct idle *idle = arg;
	struct cat_extent extent = {0};
	struct cat_inode inode;
	struct cat_version version;
	int err = cat_extent_get(txn, idle->id, &extent);

	idle->has_record = err == 0;
	idle->clean = err == -ENOENT || (!err && extent.dirty.count == 0);
	cat_extent_clear(&extent);
	if (idle->id & CACHE_HISTORY)
		return 0;
	err = cat_inode_get(txn, idle->id, &inode);
	if (err || (inode.flags & CAT_DIRTY))
		idle->clean = idle->clean && err == -ENOENT;
	else if (inode.version && cat_version_get(txn, inode.ino, inode.version, &version) == 0)
		idle->clean = idle->clean && version.state == CAT_STORED;
	return 0;
}

/* A version that waits for its upload may be another than the current one, as a conflict is, and share the cache file:
 * that has to stay although what it holds may be nothing. */
static int is_upload(void *arg, struct cat_job *job)
{
	(void)arg;
	return job->type == CAT_JOB_UPLOAD;
}

bool contents_drop_idle(struct contents *contents, uint64_t id)
{
	struct idle idle = {.id = id};

	if (id & CACHE_VERSION || catalog_view(contents->catalog, is_clean, &idle) || !idle.clean)
		return false;
	if (!(id & CACHE_HISTORY) && catalog_jobs_of(contents->catalog, id, 0, is_upload, NULL))
		return false;
	if (idle.has_record && catalog_update(contents->catalog, drop_record, &id))
		return false;
	cache_file_unlink(contents->cache, id);
	return true;
}

static uint64_t evict_idle(struct contents *contents, uint64_t id)
{
	struct stat st = {0};
	int fd;

	if (cache_file_open(contents->cache, id, O_RDONLY, &fd) == 0) {
		(void)fstat(fd, &st);
		(void)close(fd);
	}
	/* An empty file's entry is a gain, too. */
	return contents_drop_idle(contents, id) ? (uint64_t)st.st_blocks * 512 + 1 : 0;
}

/* What was fetched of a stored version, and whose is not known here: holding the table keeps it idle. */
static uint64_t evict_history(struct contents *contents, uint64_t id, struct content **ret_used)
{
	LOCK_GUARD(&contents->lock);
	*ret_used = find_ref(contents, id);
	return *ret_used ? 0 : evict_idle(contents, id);
}

static uint64_t evict(void *arg, uint64_t id, uint64_t wanted, enum cache_effort effort)
{
	enum fetch_keep keep = effort == CACHE_EASY ? FETCH_KEEP_AHEAD : FETCH_KEEP_NEEDED;
	struct contents *contents = arg;
	struct content *content = NULL;
	uint64_t freed = 0;

	if (id & CACHE_VERSION)
		return 0;
	if (id & CACHE_HISTORY)
		freed = evict_history(contents, id, &content);
	else
		content = find_or_add(contents, &(struct content){.id = id, .ino = id});
	if (!content)
		return freed;
	/* Whoever begins to use it meanwhile waits for its lock before he loads it. */
	lock_acquire(&content->lock);
	if (content->loaded) {
		freed = evict_clean(content, wanted, keep);
		cache_shrunk(contents->cache, id, ranges_total(&content->present));
	} else {
		freed = evict_idle(contents, id);
	}
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
	contents->uploading = options->uploading;
	contents->uploading_arg = options->uploading_arg;
	contents->refer_least = getenv("VARVE_TEST_REFER_LEAST") ? 0 : FETCH_WHOLE_MAX; /* tests do with little */
	contents->stalled_ns = options->stalled_ns > STALLED_LEAST_NS ? options->stalled_ns : STALLED_LEAST_NS;
	contents_boot_id(contents->boot_id);
	lock_init(&contents->lock, LOCK_CONTENTS);
	lock_init(&contents->meter_lock, LOCK_LEAF);
	lock_cond_init(&contents->watch_cond);
	list_init(&contents->watched);
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
	backing_stop(contents);
}

void contents_end(struct contents *contents)
{
	struct timespec pause = clock_to_timespec(10 * NS_PER_MS);
	bool used = contents != NULL;

	if (contents)
		contents_cancel(contents);
	while (used) {
		{
			LOCK_GUARD(&contents->lock);
			used = contents->table.count > 0 || atomic_load(&contents->leaving) > 0;
		}
		if (used)
			(void)nanosleep(&pause, NULL);
	}
	contents_free(contents);
}

void contents_free(struct contents *contents)
{
	if (!contents)
		return;
	backing_stop(contents);
	cache_close(contents->cache);
	table_destroy(&contents->table);
	(void)pthread_cond_destroy(&contents->watch_cond);
	lock_destroy(&contents->lock);
	lock_destroy(&contents->meter_lock);
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
