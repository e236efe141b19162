/* Tests of fs/cache.c: how much goes when room is needed. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/cache.h"
#include "tests/unit/fs/fixture.h"

#define GIB (UINT64_C(1) << 30)
#define FILES 1024
#define FILE_SIZE (UINT64_C(16) << 20)

static uint64_t asked_for;

/* Everybody gives all he has, and nothing changes on the disk. */
static uint64_t give(void *arg, uint64_t id, uint64_t wanted, enum cache_effort effort)
{
	(void)arg;
	(void)id;
	(void)effort;
	if (wanted > asked_for)
		asked_for = wanted;
	return FILE_SIZE;
}

static uint64_t free_bytes(const char *dir)
{
	struct statvfs vfs;

	cr_assert(zero(int, statvfs(dir, &vfs)));
	return (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

static struct cache *open_cache(const struct store *store, uint64_t limit, uint64_t reserve)
{
	AUTO_FREE char *dir = fixture_path(store->dir, "cache");
	struct cache_options options = {.dir = dir, .limit = limit, .reserve = reserve};
	struct cache *cache;

	cr_assert(zero(int, cache_open(&options, give, NULL, &cache)));
	for (uint64_t id = 1; id <= FILES; id++)
		cache_account(cache, id, FILE_SIZE);
	return cache;
}

/* A disk that others fill: what is lacking, and a little more, but not the whole cache. */
Test(cache, meeting_the_reserve_takes_what_is_needed_from_a_cache_without_a_limit)
{
	struct store *store = store_new(STORE_MEMORY);
	struct cache *cache = open_cache(store, 0, free_bytes(store->dir) + GIB);
	struct cache_figures figures;

	asked_for = 0;
	(void)cache_reserve(cache, 4096);
	cache_figures(cache, &figures);
	/* Others use the disk as well. */
	cr_assert(gt(u64, figures.evicted, GIB / 2));
	cr_assert(lt(u64, figures.evicted, 2 * GIB), "%llu of %llu bytes", (unsigned long long)figures.evicted,
		  (unsigned long long)(FILES * FILE_SIZE));
	cr_assert(lt(u64, asked_for, 2 * GIB));
	cache_close(cache);
	store_free(store);
}

Test(cache, without_a_limit_it_is_what_the_disk_has_room_for)
{
	struct store *store = store_new(STORE_MEMORY);
	uint64_t room = free_bytes(store->dir);
	struct cache *cache = open_cache(store, 0, 0);
	struct cache_figures figures;

	cache_figures(cache, &figures);
	cr_assert(le(u64, figures.limit, room + FILES * FILE_SIZE + 8 * GIB));
	cr_assert(ge(u64, figures.limit, FILES * FILE_SIZE));
	cr_assert(eq(u64, cache_limit(cache), figures.limit));
	cr_assert(zero(int, cache_reserve(cache, 4096)));
	cache_close(cache);
	store_free(store);
}

Test(cache, the_limit_is_kept_by_evicting_a_little_more_than_is_needed)
{
	struct store *store = store_new(STORE_MEMORY);
	struct cache *cache = open_cache(store, FILES * FILE_SIZE, 0);
	struct cache_figures figures;

	(void)cache_reserve(cache, FILE_SIZE);
	cache_figures(cache, &figures);
	cr_assert(eq(u64, figures.evicted, 5 * FILE_SIZE)); /* 64 MiB ahead */
	cr_assert(eq(u64, figures.limit, FILES * FILE_SIZE));
	cache_close(cache);
	store_free(store);
}

struct watcher {
	struct cache *cache;
	uint64_t id;
	atomic_uint looks, misses;
	atomic_bool stop;
};

static void *look(void *arg)
{
	struct watcher *watcher = arg;

	while (!atomic_load(&watcher->stop)) {
		int fd, err = cache_file_open(watcher->cache, watcher->id, O_RDONLY, &fd);

		if (err)
			atomic_fetch_add(&watcher->misses, 1);
		else
			(void)close(fd);
		atomic_fetch_add(&watcher->looks, 1);
	}
	return NULL;
}

static uint64_t number_of(struct cache *cache, uint64_t id, int flags)
{
	struct stat st;
	int fd;

	cr_assert(zero(int, cache_file_open(cache, id, flags, &fd)));
	cr_assert(zero(int, fstat(fd, &st)));
	(void)close(fd);
	return (uint64_t)st.st_ino;
}

/* Killed at any time, there is one or the other. */
Test(cache, a_version_always_has_a_file_while_another_takes_its_place)
{
	struct store *store = store_new(STORE_MEMORY);
	struct cache *cache = open_cache(store, 0, 0);
	struct watcher watcher = {.cache = cache, .id = CACHE_VERSION | 3};
	uint64_t numbers[2] = {number_of(cache, 1, O_RDWR | O_CREAT), number_of(cache, 2, O_RDWR | O_CREAT)};
	pthread_t thread;

	cr_assert(zero(int, cache_file_link(cache, 1, watcher.id)));
	cr_assert(zero(int, pthread_create(&thread, NULL, look, &watcher)));
	for (unsigned i = 0; i < 2000 || atomic_load(&watcher.looks) < 2000; i++) {
		cr_assert(zero(int, cache_file_link(cache, 1 + i / 2 % 2, watcher.id))); /* each twice */
		cr_assert(eq(u64, number_of(cache, watcher.id, O_RDONLY), numbers[i / 2 % 2]));
	}
	atomic_store(&watcher.stop, true);
	(void)pthread_join(thread, NULL);
	cr_assert(eq(u32, atomic_load(&watcher.misses), 0));
	cache_close(cache);
	store_free(store);
}
