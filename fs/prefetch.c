/*
 * prefetch.c - sweeps: readers that go through the small files of a directory.
 *
 * A sweep is the trace of one such reader, one for each directory, the stalest making place for a new one:
 *
 *   FOUND      the first file of the directory was read cold
 *   FOLLOWED   another one was, at most NEAR after it in the order of cookies (readdir) or of names (sorted): that is
 * the order from here on, and the next `window` files are under way
 *
 * Each file that was fetched ahead and is then opened doubles the window up to WINDOW_MAX, and once half of it is used
 * up the next files follow. A cold read that is neither in the window nor near the last one ends the sweep: it is FOUND
 * anew there, and what is still queued is let go. A reader that comes from a sweep of another directory brings its
 * order and half its window along: it goes through a tree. When what is left of its directory is under way, the first
 * files of the directory that a walk comes to next follow, and so on while there is room in the window, through at most
 * TREE_AHEAD directories: a tree of small directories is no slower over a long way than one large directory.
 *
 * Invariants
 *  1. Files under way and not yet opened are at most WINDOW_MAX and `bytes_max` bytes a sweep, and half as many more in
 *     the directories after it; so that much is what a reader that leaves has cost. What they bring is evictable like
 *     everything else, and given up when there is no room.
 *  2. A sweep's window holds only files after `ahead` that were stored, clean and small when it was made.
 *  3. The catalog is asked and tasks are submitted without the lock; `planning` keeps two from planning one sweep.
 *
 * Threads: FUSE workers note and plan, pool threads fetch. Lock: LOCK_LEAF, guards all sweeps.
 */
#include "fs/prefetch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/cache.h"
#include "fs/content.h"
#include "lock.h"
#include "transfer.h"

#define SWEEPS 16
#define NEAR 4 /* directories and files that need no fetch may lie between */
#define WINDOW_FIRST 2
#define WINDOW_MAX 64
#define RING (2 * WINDOW_MAX)
#define BYTES_MAX (UINT64_C(64) << 20)
#define SIZE_MAX_SMALL (UINT64_C(4) << 20)
#define SCAN_MAX 256 /* names looked at to find the next files */
#define TREE_AHEAD 4
#define CLIMB_MAX 8
#define COMES_ALONG_NS NS_PER_SEC

#define NOWHERE UINT64_MAX

enum order { ORDER_COOKIES, ORDER_NAMES, ORDERS };

/* Where a file stands in its directory. */
struct place {
	uint64_t dir, cookie;
	char name[CAT_NAME_MAX + 1];
};

struct ahead {
	uint64_t ino, size;
	bool opened;
};

struct sweep {
	uint64_t dir; /* 0: free */
	uint64_t generation;
	int64_t used_ns;
	enum order order;
	unsigned window; /* 0: FOUND */
	struct place last, ahead;
	struct ahead ring[RING]; /* the newest files fetched ahead, from ring[head] backwards */
	unsigned head, pending;  /* pending: of them not opened yet */
	uint64_t bytes;          /* of the pending */
	bool planning, at_end;
	bool walks;        /* the reader came from another directory */
	uint64_t next_dir; /* where the walk goes on, once that was looked for; NOWHERE */
};

struct prefetch {
	struct catalog *catalog;
	struct contents *contents;
	struct transfer *transfer;
	uint64_t bytes_max;
	struct lock lock;
	struct sweep sweeps[SWEEPS]; /* guarded by lock, as all below */
	uint64_t generations;
};

/* --- fetching ------------------------------------------------------------------------------------------------- */

struct item {
	struct transfer_task task;
	struct prefetch *prefetch;
	struct item *next;
	uint64_t ino, size, dir, generation;
};

static struct sweep *find_sweep(struct prefetch *prefetch, uint64_t dir)
{
	for (size_t i = 0; i < SWEEPS; i++)
		if (prefetch->sweeps[i].dir == dir)
			return &prefetch->sweeps[i];
	return NULL;
}

static bool is_wanted(const struct item *item)
{
	struct prefetch *prefetch = item->prefetch;

	LOCK_GUARD(&prefetch->lock);
	const struct sweep *sweep = find_sweep(prefetch, item->dir);

	return sweep && sweep->generation == item->generation;
}

static void item_run(struct transfer_task *task)
{
	struct item *item = container_of(task, struct item, task);
	struct cat_inode inode;

	if (is_wanted(item) && catalog_getattr(item->prefetch->catalog, item->ino, &inode) == 0 && inode.nlink)
		content_fetch_whole(item->prefetch->contents, item->ino);
	free(item);
}

static void item_dropped(struct transfer_task *task)
{
	free(container_of(task, struct item, task));
}

/* --- what comes next ---------------------------------------------------------------------------------------------- */

struct next {
	const struct prefetch *prefetch;
	uint64_t dir, generation;
	unsigned wanted;
	uint64_t bytes; /* still allowed */
	struct place at;
	struct item *items, **end;
	unsigned found, seen;
};

static void place_set(struct place *place, const struct cat_name *name)
{
	place->dir = name->parent;
	place->cookie = name->cookie;
	memcpy(place->name, name->name, sizeof(place->name));
}

static bool is_small_and_stored(const struct cat_inode *inode)
{
	return S_ISREG(inode->mode) && inode->size > 0 && inode->size <= SIZE_MAX_SMALL && inode->version &&
	       !(inode->flags & CAT_DIRTY);
}

static int take_next(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct next *next = arg;
	struct item *item;

	if (is_small_and_stored(inode)) {
		if (next->found == next->wanted || inode->size > next->bytes)
			return 1;
		item = calloc(1, sizeof(*item));
		if (!item)
			return 1;
		*item = (struct item){
			.task = {.class = TRANSFER_BACKGROUND, .run = item_run, .dropped = item_dropped},
			.ino = inode->ino,
			.size = inode->size,
			.dir = next->dir,
			.generation = next->generation,
		};
		list_init(&item->task.node);
		*next->end = item;
		next->end = &item->next;
		next->bytes -= inode->size;
		next->found++;
	}
	next->seen++;
	place_set(&next->at, name);
	return 0;
}

static void remember(struct sweep *sweep, const struct item *item)
{
	struct ahead *oldest = &sweep->ring[sweep->head = (sweep->head + 1) % RING];

	if (oldest->ino && !oldest->opened) {
		sweep->pending--;
		sweep->bytes -= oldest->size;
	}
	*oldest = (struct ahead){.ino = item->ino, .size = item->size};
	sweep->pending++;
	sweep->bytes += item->size;
}

/* Fills the window of the sweep of `dir`, if half of it is free. */
static void fill(struct prefetch *prefetch, uint64_t dir)
{
	struct next next = {.prefetch = prefetch, .dir = dir};
	struct cat_readdir request = {.parent = dir, .max = SCAN_MAX, .with_inodes = true};
	struct sweep *sweep;
	char after_name[CAT_NAME_MAX + 1];
	int rc;

	{
		LOCK_GUARD(&prefetch->lock);
		sweep = find_sweep(prefetch, dir);
		if (!sweep || !sweep->window || sweep->planning || sweep->at_end || sweep->pending > sweep->window / 2)
			return;
		sweep->planning = true;
		next.generation = sweep->generation;
		next.wanted = sweep->window - sweep->pending;
		next.bytes = prefetch->bytes_max > sweep->bytes ? prefetch->bytes_max - sweep->bytes : 0;
		next.at = sweep->ahead;
		request.after = next.at.cookie;
		if (sweep->order == ORDER_NAMES)
			request.after_name = memcpy(after_name, next.at.name, sizeof(after_name));
	}
	next.end = &next.items;
	rc = catalog_readdir(prefetch->catalog, &request, take_next, &next);
	{
		LOCK_GUARD(&prefetch->lock);
		sweep = find_sweep(prefetch, dir);
		if (sweep && sweep->generation == next.generation) {
			sweep->planning = false;
			sweep->ahead = next.at;
			sweep->at_end = rc < 0 || (rc == 0 && next.seen < SCAN_MAX);
			for (const struct item *item = next.items; item; item = item->next)
				remember(sweep, item);
		}
	}
	for (struct item *item = next.items, *after; item; item = after) {
		after = item->next;
		item->prefetch = prefetch;
		transfer_submit(prefetch->transfer, &item->task);
	}
}

/* --- the directory after --------------------------------------------------------------------------------------- */

struct locate {
	uint64_t ino;
	struct place place;
};

static int locate(struct cat_txn *txn, void *arg)
{
	struct locate *found = arg;
	struct cat_name name;
	int rc = cat_first_name(txn, found->ino, &name);

	if (rc == 0)
		place_set(&found->place, &name);
	return rc;
}

static int is_directory(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	uint64_t *found = arg;

	if (!S_ISDIR(inode->mode))
		return 0;
	*found = name->ino;
	return 1;
}

/* The first directory after the place, in its directory; 0: none. */
static uint64_t directory_after(const struct prefetch *prefetch, const struct place *place, enum order order)
{
	uint64_t found = 0;
	const struct cat_readdir request = {.parent = place->dir,
					    .after = place->cookie,
					    .max = SCAN_MAX,
					    .with_inodes = true,
					    .after_name = order == ORDER_NAMES ? place->name : NULL};

	return catalog_readdir(prefetch->catalog, &request, is_directory, &found) == 1 ? found : 0;
}

/* Where a walk through the tree comes to after `dir`: into it, or past it, or past what it is in. */
static uint64_t walk_on(const struct prefetch *prefetch, uint64_t dir, enum order order)
{
	struct locate here = {.place = {.dir = dir}};
	uint64_t next = directory_after(prefetch, &here.place, order);

	for (unsigned i = 0; !next && i < CLIMB_MAX && dir != CAT_ROOT_INO; i++) {
		here.ino = dir;
		if (catalog_view(prefetch->catalog, locate, &here))
			return NOWHERE;
		next = directory_after(prefetch, &here.place, order);
		dir = here.place.dir;
	}
	return next ? next : NOWHERE;
}

static struct sweep *stalest(struct prefetch *prefetch)
{
	struct sweep *found = &prefetch->sweeps[0];

	for (size_t i = 1; i < SWEEPS; i++)
		if (prefetch->sweeps[i].used_ns < found->used_ns)
			found = &prefetch->sweeps[i];
	return found;
}

/* One that no reader goes on with: it came to its end, or stopped. NULL: there is none. */
static struct sweep *spare(struct prefetch *prefetch, int64_t now)
{
	for (size_t i = 0; i < SWEEPS; i++) {
		struct sweep *sweep = &prefetch->sweeps[i];

		if (now - sweep->used_ns > COMES_ALONG_NS || (sweep->at_end && !sweep->pending && sweep->next_dir))
			return sweep;
	}
	return NULL;
}

/* The sweep is at `place` from now on, with nothing under way. */
static void settle(struct prefetch *prefetch, struct sweep *sweep, const struct place *place, unsigned window)
{
	*sweep = (struct sweep){
		.dir = place->dir,
		.generation = ++prefetch->generations,
		.used_ns = clock_monotonic(),
		.order = sweep->order,
		.window = window,
		.last = *place,
		.ahead = *place,
		.walks = sweep->dir == place->dir && sweep->walks,
	};
}

/* When all of `dir` is under way: the directory whose files may follow, with a sweep of its own; else 0. `pending`
 * grows by what was not opened yet. */
static uint64_t follow(struct prefetch *prefetch, uint64_t dir, unsigned *pending)
{
	enum order order;
	unsigned window;
	uint64_t next;

	{
		LOCK_GUARD(&prefetch->lock);
		struct sweep *sweep = find_sweep(prefetch, dir);

		if (!sweep || !sweep->walks || !sweep->at_end)
			return 0;
		*pending += sweep->pending;
		if (*pending > sweep->window / 2 || sweep->next_dir == NOWHERE)
			return 0;
		if (sweep->next_dir && find_sweep(prefetch, sweep->next_dir))
			return sweep->next_dir;
		order = sweep->order;
		window = sweep->window;
	}
	next = walk_on(prefetch, dir, order);
	LOCK_GUARD(&prefetch->lock);
	struct sweep *sweep = find_sweep(prefetch, dir), *fresh = spare(prefetch, clock_monotonic());

	if (!sweep || (next != NOWHERE && (!fresh || fresh == sweep)))
		return 0;
	sweep->next_dir = next;
	if (next == NOWHERE || find_sweep(prefetch, next))
		return 0;
	fresh->order = order;
	settle(prefetch, fresh, &(struct place){.dir = next}, window / 2 > WINDOW_FIRST ? window / 2 : WINDOW_FIRST);
	fresh->walks = true;
	return next;
}

static void plan(struct prefetch *prefetch, uint64_t dir)
{
	unsigned pending = 0;

	fill(prefetch, dir);
	for (unsigned i = 0; i < TREE_AHEAD && (dir = follow(prefetch, dir, &pending)); i++)
		fill(prefetch, dir);
}

/* --- noting ------------------------------------------------------------------------------------------------------ */

static void use(struct sweep *sweep, struct ahead *ahead)
{
	ahead->opened = true;
	sweep->pending--;
	sweep->bytes -= ahead->size;
	sweep->window = sweep->window * 2 < WINDOW_MAX ? sweep->window * 2 : WINDOW_MAX;
	sweep->used_ns = clock_monotonic();
}

static struct ahead *find_ahead(struct prefetch *prefetch, uint64_t ino, struct sweep **ret_sweep)
{
	for (size_t i = 0; i < SWEEPS; i++) {
		struct sweep *sweep = &prefetch->sweeps[i];

		for (size_t j = 0; sweep->window && j < RING; j++) {
			if (sweep->ring[j].ino == ino) {
				*ret_sweep = sweep;
				return &sweep->ring[j];
			}
		}
	}
	return NULL;
}

void prefetch_opened(struct prefetch *prefetch, uint64_t ino)
{
	uint64_t dir = 0;

	{
		LOCK_GUARD(&prefetch->lock);
		struct sweep *sweep;
		struct ahead *ahead = find_ahead(prefetch, ino, &sweep);

		if (ahead && !ahead->opened) {
			use(sweep, ahead);
			dir = sweep->dir;
		}
	}
	if (dir)
		plan(prefetch, dir);
}

static int is_it(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)inode;
	return name->ino == *(const uint64_t *)arg;
}

/* ORDERS: the file does not come soon after that place, in neither order. */
static enum order order_between(const struct prefetch *prefetch, const struct place *last, uint64_t ino)
{
	for (enum order order = ORDER_COOKIES; order < ORDERS; order++) {
		const struct cat_readdir request = {.parent = last->dir,
						    .after = last->cookie,
						    .max = NEAR,
						    .after_name = order == ORDER_NAMES ? last->name : NULL};

		if (catalog_readdir(prefetch->catalog, &request, is_it, &ino) == 1)
			return order;
	}
	return ORDERS;
}

/* The sweep that was just going on elsewhere. */
static const struct sweep *newest_following(const struct prefetch *prefetch, int64_t now)
{
	const struct sweep *found = NULL;

	for (size_t i = 0; i < SWEEPS; i++) {
		const struct sweep *sweep = &prefetch->sweeps[i];

		if (sweep->window && now - sweep->used_ns < COMES_ALONG_NS &&
		    (!found || sweep->used_ns > found->used_ns))
			found = sweep;
	}
	return found;
}

static void begin_sweep(struct prefetch *prefetch, const struct place *place)
{
	const struct sweep *before = newest_following(prefetch, clock_monotonic());
	unsigned window = before ? before->window / 2 : 0;
	enum order order = before ? before->order : ORDER_COOKIES;
	struct sweep *sweep = stalest(prefetch);

	sweep->order = order;
	settle(prefetch, sweep, place, window);
	sweep->walks = before != NULL;
}

void prefetch_missed(struct prefetch *prefetch, uint64_t ino)
{
	struct locate found = {.ino = ino};
	struct place last;
	enum order order;

	if (catalog_view(prefetch->catalog, locate, &found))
		return;
	{
		LOCK_GUARD(&prefetch->lock);
		struct sweep *sweep = find_sweep(prefetch, found.place.dir), *other;

		if (find_ahead(prefetch, ino, &other)) /* it was not here in time, that is all */
			return;
		if (!sweep) {
			begin_sweep(prefetch, &found.place);
			goto out;
		}
		last = sweep->last;
	}
	order = order_between(prefetch, &last, ino);
	{
		LOCK_GUARD(&prefetch->lock);
		struct sweep *sweep = find_sweep(prefetch, found.place.dir);

		if (!sweep)
			return;
		if (order < ORDERS)
			sweep->order = order;
		settle(prefetch, sweep, &found.place, order < ORDERS ? WINDOW_FIRST : 0);
	}
out:
	plan(prefetch, found.place.dir);
}

int prefetch_new(const struct prefetch_options *options, struct prefetch **ret_prefetch)
{
	struct prefetch *prefetch = calloc(1, sizeof(*prefetch));
	uint64_t share = cache_limit(contents_cache(options->contents)) / 8;

	if (!prefetch)
		return -ENOMEM;
	prefetch->catalog = options->catalog;
	prefetch->contents = options->contents;
	prefetch->transfer = options->transfer;
	prefetch->bytes_max = share < BYTES_MAX ? share : BYTES_MAX;
	lock_init(&prefetch->lock, LOCK_LEAF);
	*ret_prefetch = prefetch;
	return 0;
}

void prefetch_free(struct prefetch *prefetch)
{
	if (!prefetch)
		return;
	lock_destroy(&prefetch->lock);
	free(prefetch);
}
