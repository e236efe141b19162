/*
 * cache.h - the cache directory: one sparse file per content, its space, and
 * who must leave when it runs out.
 *
 * A content is named by a number: a live file's is its ino; a version's that is
 * not stored yet CACHE_VERSION | seq (never evicted: it may be the only copy);
 * what was fetched of a stored one CACHE_HISTORY | seq. What a cache file holds is known by its extent record
 * (catalog) and, while somebody uses it, by its struct content (content.h).
 *
 * Thread-safe.
 */
#ifndef VARVE_FS_CACHE_H
#define VARVE_FS_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "catalog.h"

/* Cache files are written in pieces of this. Over 64 KiB ext4 takes page cache in large folios, which a virtual machine
 * may have to ask its host for: measured up to ten times slower. */
#define CACHE_STEP ((size_t)64 << 10)

struct cache;

#define CACHE_VERSION CAT_EXTENT_VERSION
#define CACHE_HISTORY (UINT64_C(1) << 62)

struct cache_options {
	const char *dir;
	uint64_t limit;   /* bytes; what is dirty may exceed it only by failing writers with ENOSPC. 0: the reserve's */
	uint64_t reserve; /* bytes to leave free on the cache's filesystem */
};

/* Asks the owner of a content to give up `wanted` bytes of its cache file, or what it can; see contents.c. CACHE_HARD
 * is asked for when all have been asked easily and it was not enough: also what readers will come to next. Returns
 * bytes freed. */
enum cache_effort { CACHE_EASY, CACHE_HARD };
typedef uint64_t (*cache_evict_fn)(void *arg, uint64_t id, uint64_t wanted, enum cache_effort effort);

int cache_open(const struct cache_options *options, cache_evict_fn evict, void *evict_arg, struct cache **ret_cache);
void cache_close(struct cache *cache);

/* Opens, or creates empty, the file of `id`: 0 and a descriptor of the caller's. O_TRUNC may be given in flags. */
int cache_file_open(struct cache *cache, uint64_t id, int flags, int *ret_fd);
void cache_file_unlink(struct cache *cache, uint64_t id);
/* An empty file without a name, open read-write; it is gone when it is closed before it gets one. */
int cache_file_scratch(struct cache *cache, int *ret_fd);
/* The same with the bytes of another, on the platter when `synced`. */
int cache_file_copy(struct cache *cache, int source_fd, bool synced, int *ret_fd);
/* It becomes the file of `id`. */
int cache_file_name(struct cache *cache, int fd, uint64_t id);
/* Makes version_id a second name of the file of `id` (replacing what was there). */
int cache_file_link(struct cache *cache, uint64_t id, uint64_t version_id);
/* Gives version_id a file of its own with the same bytes: reflink, else a copy of its data segments; on the platter
 * before it has its name when `synced`. *ret_fd is open read-write. The old name is replaced at once, by rename. */
int cache_file_clone(struct cache *cache, int source_fd, uint64_t version_id, bool synced, int *ret_fd);

/* Before `len` bytes are written: evicts what it must. -ENOSPC when neither the limit nor the disk has room. */
int cache_reserve(struct cache *cache, uint64_t len);
/* After that failed: is it only the limit that is in the way? */
bool cache_disk_has_room(struct cache *cache, uint64_t len);
/* Tells how many bytes the file of `id` holds now and that it was used. */
void cache_account(struct cache *cache, uint64_t id, uint64_t bytes);
/* The first without the second, and the second without the first; nothing for a file that has no entry. */
void cache_shrunk(struct cache *cache, uint64_t id, uint64_t bytes);
void cache_touch(struct cache *cache, uint64_t id);

/* Bytes; without a limit of its own what the filesystem had room for when it was asked last. */
uint64_t cache_limit(const struct cache *cache);

struct cache_figures {
	uint64_t used, limit, files, evicted;
};
void cache_figures(struct cache *cache, struct cache_figures *ret_figures);

#endif
