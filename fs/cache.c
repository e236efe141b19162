/*
 * cache.c - the cache directory and its space.
 *
 * Invariants
 *  1. Every file with data in the directory has an entry; an entry's bytes are what was last accounted.
 *  2. used is the sum of the entries' bytes.
 *  3. Entries are in order of use, the stalest first. Eviction asks the owner of a content (content.c), which alone
 *     knows what is dirty, shared or in use; the cache itself never removes data it was not told to.
 *
 * Files lie in 256 folders by the low byte of their number, so no folder grows past what ext4 likes.
 * Threads: any. Lock: LOCK_CACHE_LRU, never held over I/O or over the evict callback.
 */
#include "fs/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "lock.h"
#include "log.h"
#include "table.h"

#define FOLDERS 256
#define NAME_SIZE 32
/* How often the filesystem's own free space is asked for: every so many bytes reserved. */
#define STATVFS_EVERY (UINT64_C(16) << 20)
/* Evicting a little ahead spares a round for every write that follows. */
#define SURPLUS_MAX (UINT64_C(64) << 20)

struct entry {
	struct table_node node;
	struct list lru;
	uint64_t id;
	uint64_t bytes;
};

struct cache {
	char *dir;
	int dirfd;               /* its number never changes */
	uint64_t limit, reserve; /* limit UINT64_MAX: none */
	cache_evict_fn evict;
	void *evict_arg;
	struct lock lock;
	struct table entries; /* guarded by lock, as all below */
	struct list lru;      /* stalest first */
	uint64_t used;
	uint64_t evicted;
	uint64_t since_statvfs; /* bytes reserved since free space was asked for */
	_Atomic uint64_t fits;  /* what `used` could grow to then: no lock */
};

static void name_of(uint64_t id, char ret_name[static NAME_SIZE])
{
	(void)snprintf(ret_name, NAME_SIZE, "%02" PRIx64 "/%" PRIx64, id & (FOLDERS - 1), id);
}

static bool entry_matches(const struct table_node *node, const void *key)
{
	return container_of(node, struct entry, node)->id == *(const uint64_t *)key;
}

static struct entry *entry_find(const struct cache *cache, uint64_t id)
{
	struct table_node *node = table_find(&cache->entries, hash_u64(id), entry_matches, &id);

	return node ? container_of(node, struct entry, node) : NULL;
}

static void entry_drop(struct cache *cache, struct entry *entry)
{
	table_remove(&cache->entries, &entry->node);
	list_remove(&entry->lru);
	cache->used -= entry->bytes;
	free(entry);
}

void cache_account(struct cache *cache, uint64_t id, uint64_t bytes)
{
	LOCK_GUARD(&cache->lock);
	struct entry *entry = entry_find(cache, id);

	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			return; /* uncounted until its next use: the reserve still keeps the disk from filling */
		entry->id = id;
		list_init(&entry->lru);
		table_insert(&cache->entries, &entry->node, hash_u64(id));
	}
	cache->used += bytes - entry->bytes;
	entry->bytes = bytes;
	list_remove(&entry->lru);
	list_add_tail(&cache->lru, &entry->lru);
}

void cache_shrunk(struct cache *cache, uint64_t id, uint64_t bytes)
{
	LOCK_GUARD(&cache->lock);
	struct entry *entry = entry_find(cache, id);

	if (entry) {
		cache->used += bytes - entry->bytes;
		entry->bytes = bytes;
	}
}

void cache_touch(struct cache *cache, uint64_t id)
{
	LOCK_GUARD(&cache->lock);
	struct entry *entry = entry_find(cache, id);

	if (entry) {
		list_remove(&entry->lru);
		list_add_tail(&cache->lru, &entry->lru);
	}
}

/* Bytes free on the filesystem; UINT64_MAX when it does not say: a write will tell. */
static uint64_t ask_disk(struct cache *cache)
{
	struct statvfs vfs;
	uint64_t free_bytes;

	if (fstatvfs(cache->dirfd, &vfs))
		return UINT64_MAX;
	free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	LOCK_GUARD(&cache->lock);
	cache->fits = cache->used + (free_bytes > cache->reserve ? free_bytes - cache->reserve : 0);
	return free_bytes;
}

/* What an earlier mount left behind, counted by what it takes on disk. */
static int scan_folder(struct cache *cache, unsigned folder)
{
	char name[8];
	int fd, err = 0;
	DIR *dir;

	(void)snprintf(name, sizeof(name), "%02x", folder);
	if (mkdirat(cache->dirfd, name, 0700) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	fd = openat(cache->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		err = -errno;
		(void)close(fd);
		return err;
	}
	for (struct dirent *at = readdir(dir); at; at = readdir(dir)) {
		struct stat st;
		char *end;
		uint64_t id = strtoull(at->d_name, &end, 16);

		if (at->d_name[0] == '.')
			continue;
		if (*end) { /* a clone that a crash cut short */
			(void)unlinkat(fd, at->d_name, 0);
			continue;
		}
		if (fstatat(fd, at->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			cache_account(cache, id, (uint64_t)st.st_blocks * 512);
	}
	(void)closedir(dir);
	return err;
}

int cache_open(const struct cache_options *options, cache_evict_fn evict, void *evict_arg, struct cache **ret_cache)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	int err;

	if (!cache)
		return -ENOMEM;
	*cache = (struct cache){.dir = strdup(options->dir),
				.dirfd = -1,
				.limit = options->limit ? options->limit : UINT64_MAX,
				.reserve = options->reserve,
				.evict = evict,
				.evict_arg = evict_arg};
	lock_init(&cache->lock, LOCK_CACHE_LRU);
	list_init(&cache->lru);
	err = table_init(&cache->entries, 1024);
	if (!err && !cache->dir)
		err = -ENOMEM;
	if (err)
		goto fail;
	if (mkdir(options->dir, 0700) && errno != EEXIST) {
		err = -errno;
		goto fail;
	}
	cache->dirfd = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cache->dirfd < 0) {
		err = -errno;
		goto fail;
	}
	for (unsigned folder = 0; folder < FOLDERS && !err; folder++)
		err = scan_folder(cache, folder);
	if (err)
		goto fail;
	(void)ask_disk(cache);
	*ret_cache = cache;
	return 0;
fail:
	cache_close(cache);
	return err;
}

void cache_close(struct cache *cache)
{
	if (!cache)
		return;
	while (!list_empty(&cache->lru))
		entry_drop(cache, list_entry(cache->lru.next, struct entry, lru));
	table_destroy(&cache->entries);
	if (cache->dirfd >= 0)
		(void)close(cache->dirfd);
	lock_destroy(&cache->lock);
	free(cache->dir);
	free(cache);
}

/* The directory that dirfd is was deleted: dirfd becomes the one that has its name. */
static int make_directory(struct cache *cache)
{
	int fd, err = 0;

	if (mkdir(cache->dir, 0700) && errno != EEXIST)
		return -errno;
	fd = open(cache->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || dup3(fd, cache->dirfd, O_CLOEXEC) < 0)
		err = -errno;
	else
		log_warn("cache", "the cache directory was deleted: it is made anew");
	if (fd >= 0)
		(void)close(fd);
	return err;
}

/* Somebody may have deleted the whole cache below a running mount: the folder of `name` is made again. */
static int make_folder(struct cache *cache, const char *name)
{
	char folder[3] = {name[0], name[1], '\0'};
	int err;

	if (mkdirat(cache->dirfd, folder, 0700) == 0 || errno == EEXIST)
		return 0;
	err = errno == ENOENT ? make_directory(cache) : -errno;
	return err || mkdirat(cache->dirfd, folder, 0700) == 0 || errno == EEXIST ? err : -errno;
}

static int open_in_folder(struct cache *cache, const char *name, int flags)
{
	int err, fd = openat(cache->dirfd, name, flags | O_CLOEXEC, 0600);

	if (fd >= 0 || errno != ENOENT || !(flags & O_CREAT))
		return fd >= 0 ? fd : -errno;
	err = make_folder(cache, name);
	if (err)
		return err;
	fd = openat(cache->dirfd, name, flags | O_CLOEXEC, 0600);
	return fd >= 0 ? fd : -errno;
}

int cache_file_open(struct cache *cache, uint64_t id, int flags, int *ret_fd)
{
	char name[NAME_SIZE];
	int fd;

	name_of(id, name);
	fd = open_in_folder(cache, name, flags);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int cache_file_scratch(struct cache *cache, int *ret_fd)
{
	int fd = openat(cache->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

void cache_file_unlink(struct cache *cache, uint64_t id)
{
	char name[NAME_SIZE];

	name_of(id, name);
	if (unlinkat(cache->dirfd, name, 0) && errno != ENOENT)
		log_warn("cache", "cannot remove cache file %s: %m", name);
	LOCK_GUARD(&cache->lock);
	struct entry *entry = entry_find(cache, id);

	if (entry)
		entry_drop(cache, entry);
}

/* The old file may be the only one with a version's bytes, and we may be killed at any time: the name always has one of
 * the two. */
static int link_over(struct cache *cache, const char *from, const char *to)
{
	char temporary[NAME_SIZE + 8];
	int err;

	(void)snprintf(temporary, sizeof(temporary), "%s.link", to);
	if (unlinkat(cache->dirfd, temporary, 0) && errno != ENOENT)
		return -errno;
	if (linkat(cache->dirfd, from, cache->dirfd, temporary, 0))
		return -errno;
	err = renameat(cache->dirfd, temporary, cache->dirfd, to) ? -errno : 0;
	/* It does nothing if the two are one file. */
	(void)unlinkat(cache->dirfd, temporary, 0);
	return err;
}

int cache_file_link(struct cache *cache, uint64_t id, uint64_t version_id)
{
	char from[NAME_SIZE], to[NAME_SIZE];

	name_of(id, from);
	name_of(version_id, to);
	if (linkat(cache->dirfd, from, cache->dirfd, to, 0) == 0)
		return 0;
	if (errno == ENOENT)
		return make_folder(cache, to) || linkat(cache->dirfd, from, cache->dirfd, to, 0) ? -ENOENT : 0;
	return errno == EEXIST ? link_over(cache, from, to) : -errno;
}

/* Data segments only, so that a sparse file stays sparse. */
static int copy_data(int from, int to)
{
	struct stat st;
	off_t at = 0;

	if (fstat(from, &st) || ftruncate(to, st.st_size))
		return -errno;
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(from, at, SEEK_HOLE), in = at, out = at;

		if (end < 0)
			return -errno;
		while (in < end) {
			ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);

			if (n <= 0)
				return n ? -errno : -EIO;
		}
		at = end;
	}
	return errno == ENXIO ? 0 : -errno;
}

static int copy_file(int from, int to, bool synced)
{
	int err = ioctl(to, FICLONE, from) ? copy_data(from, to) : 0;

	return !err && synced && fdatasync(to) ? -errno : err;
}

int cache_file_copy(struct cache *cache, int source_fd, bool synced, int *ret_fd)
{
	int fd, err = cache_file_scratch(cache, &fd);

	if (err)
		return err;
	err = copy_file(source_fd, fd, synced);
	if (err)
		(void)close(fd); /* it has no name */
	else
		*ret_fd = fd;
	return err;
}

int cache_file_name(struct cache *cache, int fd, uint64_t id)
{
	char from[40], name[NAME_SIZE];
	int err;

	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	name_of(id, name);
	for (int tries = 0;; tries++) {
		if (linkat(AT_FDCWD, from, cache->dirfd, name, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		err = -errno;
		if (tries || (err != -ENOENT && err != -EEXIST))
			return err;
		err = err == -ENOENT ? make_folder(cache, name) : unlinkat(cache->dirfd, name, 0) ? -errno : 0;
		if (err)
			return err;
	}
}

int cache_file_clone(struct cache *cache, int source_fd, uint64_t version_id, bool synced, int *ret_fd)
{
	char name[NAME_SIZE], temporary[NAME_SIZE + 8];
	int fd, err;

	name_of(version_id, name);
	(void)snprintf(temporary, sizeof(temporary), "%s.new", name);
	fd = open_in_folder(cache, temporary, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	err = copy_file(source_fd, fd, synced);
	if (!err && renameat(cache->dirfd, temporary, cache->dirfd, name))
		err = -errno;
	if (err) {
		(void)close(fd);
		(void)unlinkat(cache->dirfd, temporary, 0);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* --- space ---------------------------------------------------------------------------------- */

static uint64_t bytes_over_reserve(struct cache *cache, uint64_t len)
{
	uint64_t free_bytes = ask_disk(cache);

	return free_bytes >= cache->reserve + len ? 0 : cache->reserve + len - free_bytes;
}

/* How many bytes must go before `len` more fit. */
static uint64_t bytes_needed(struct cache *cache, uint64_t len)
{
	uint64_t over_limit = 0;
	bool ask = false;

	{
		LOCK_GUARD(&cache->lock);
		if (cache->limit != UINT64_MAX && cache->used + len > cache->limit)
			over_limit = cache->used + len - cache->limit;
		cache->since_statvfs += len;
		if (cache->since_statvfs >= STATVFS_EVERY || cache->since_statvfs == len) {
			cache->since_statvfs = 1;
			ask = true;
		}
	}
	uint64_t over_reserve = ask ? bytes_over_reserve(cache, len) : 0;

	return over_limit > over_reserve ? over_limit : over_reserve;
}

/* Takes the stalest entry to the fresh end, so that what cannot be evicted is asked once a round. */
static bool next_victim(struct cache *cache, uint64_t *ret_id)
{
	LOCK_GUARD(&cache->lock);
	if (list_empty(&cache->lru))
		return false;
	struct entry *entry = list_entry(cache->lru.next, struct entry, lru);

	list_remove(&entry->lru);
	list_add_tail(&cache->lru, &entry->lru);
	*ret_id = entry->id;
	return true;
}

bool cache_disk_has_room(struct cache *cache, uint64_t len)
{
	return bytes_over_reserve(cache, len) == 0;
}

/* It gave enough, and may have more: the next time it is the first again. */
static void stay_stalest(struct cache *cache, uint64_t id)
{
	LOCK_GUARD(&cache->lock);
	struct entry *entry = entry_find(cache, id);

	if (entry) {
		list_remove(&entry->lru);
		list_add_tail(cache->lru.next, &entry->lru);
	}
}

/* One round over all that were there when it began. */
static uint64_t evict_round(struct cache *cache, uint64_t wanted, enum cache_effort effort)
{
	uint64_t freed = 0, tries, id;

	{
		LOCK_GUARD(&cache->lock);
		tries = cache->entries.count;
	}
	while (freed < wanted && tries-- > 0 && next_victim(cache, &id))
		freed += cache->evict(cache->evict_arg, id, wanted - freed, effort);
	if (freed >= wanted && wanted)
		stay_stalest(cache, id);
	LOCK_GUARD(&cache->lock);
	cache->evicted += freed;
	cache->since_statvfs = 0;
	return freed;
}

int cache_reserve(struct cache *cache, uint64_t len)
{
	uint64_t needed = bytes_needed(cache, len), surplus = cache_limit(cache) / 64, freed;

	if (!needed)
		return 0;
	freed = evict_round(cache, needed + (surplus < SURPLUS_MAX ? surplus : SURPLUS_MAX), CACHE_EASY);
	if (freed < needed)
		(void)evict_round(cache, needed - freed, CACHE_HARD);
	return bytes_needed(cache, len) ? -ENOSPC : 0;
}

uint64_t cache_limit(const struct cache *cache)
{
	return cache->limit == UINT64_MAX ? cache->fits : cache->limit;
}

void cache_figures(struct cache *cache, struct cache_figures *ret_figures)
{
	(void)ask_disk(cache);
	LOCK_GUARD(&cache->lock);
	*ret_figures = (struct cache_figures){.used = cache->used,
					      .limit = cache_limit(cache),
					      .files = cache->entries.count,
					      .evicted = cache->evicted};
}
