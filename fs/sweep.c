/*
 * sweep.c - see sweep.h.
 *
 * A pass:
 *   1. lists everything, page by page (all versions where the store has them), and compares each page in one view;
 *      directories that differ are listed anew at once, each at most once a pass
 *   2. when the listing was complete: looks through all key records and copies for what it did not show
 *
 * Invariants
 *  1. A pass that broke off expires nothing; nor does one that did not see the store's identity, for it looked at
 *     something else.
 *  2. What is missing in a listing is asked for by itself before it is believed to be gone: a listing takes its time,
 * and a store's times (those of multipart uploads above all) do not tell what came after its beginning.
 *  3. Directories that nobody has opened yet are passed over: they are listed when somebody does.
 *  4. Of what was listed 8 bytes are kept for each object, 16 for each version with an id, in `seen`.
 *
 * Threads: one, which waits between passes; pages are fetched on the pool in the background class. `lock` guards what
 * figures show and what wakes the thread; the rest is the thread's own.
 */
#include "fs/sweep.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/reconcile.h"
#include "lock.h"
#include "log.h"
#include "table.h"

#define MODULE "sweep"
#define FIRST_AFTER (60 * NS_PER_SEC) /* what a mount begins with goes first */
#define IDENTITY ".varve/id"
#define ROWS 512 /* looked at in one view */
#define IDLE_PAGES_MAX 100

enum act { ACT_LIST, ACT_PAST, ACT_VERSIONS, ACTS };

/* Keys of versions beside their files, of which one page has shown no more than it has entries. */
struct asides {
	char **cells;
	size_t count, cap;
};

/* The key whose entries are coming. */
struct at {
	char *key;
	bool recorded, is_data; /* the catalog has a current object there */
	uint64_t ino;           /* whose */
	uint64_t dir;           /* that shows it; 0: not one to be looked at */
};

struct sweep {
	struct sweep_options options;
	pthread_t thread;
	atomic_bool stop;

	struct lock lock;
	pthread_cond_t wake;
	bool asked;                   /* lock */
	bool fetched;                 /* lock: the page is there */
	struct sweep_figures figures; /* lock */

	/* The pass that runs: */
	bool versions, identity;
	int64_t begun;
	struct numbers seen;       /* hashes; sorted when the listing is complete */
	struct numbers done[ACTS]; /* numbers of inodes acted on */
	struct numbers wanted[ACTS];
	struct asides asides; /* not known yet */
	struct at last;       /* of the last page; its key malloc'd */
	struct at at;         /* in the page that is compared; its key borrowed */
	/* The page under way: */
	struct transfer_task task;
	const struct list_request *request;
	struct list_page page;
	struct err err;
	int rc;
};

/* --- what was seen -------------------------------------------------------------------------------------------------
 */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Two objects meet in one hash by chance only; what is then taken for seen is found by the read that misses it. */
static uint64_t seen_hash(const char *key, const char *native_id, const char *etag)
{
	const char *id = cat_object_id(native_id, etag);

	return hash_u64(hash_bytes(key, strlen(key))) ^ hash_bytes(id, strlen(id));
}

static int see_as(struct sweep *sweep, const char *key, const char *native_id, const char *etag)
{
	int rc = ARRAY_ROOM(sweep->seen.cells, sweep->seen.cap, sweep->seen.count);

	if (!rc)
		sweep->seen.cells[sweep->seen.count++] = seen_hash(key, native_id, etag);
	return rc;
}

/* By its id, and by its etag: plain listings tell no ids, so what is known from them has none. */
static int see(struct sweep *sweep, const struct object_info *info)
{
	int rc = see_as(sweep, info->key, info->native_id, info->etag);

	return rc || !info->etag || cat_object_id(info->native_id, info->etag) == info->etag
		       ? rc
		       : see_as(sweep, info->key, NULL, info->etag);
}

/* --- comparing ---------------------------------------------------------------------------------------------------- */

static int want(struct sweep *sweep, enum act act, uint64_t ino)
{
	if (numbers_has(&sweep->done[act], ino))
		return 0;
	return numbers_add(&sweep->wanted[act], ino) < 0 ? -ENOMEM : 0;
}

/* The directory that would show the key: the deepest one the catalog knows on the way to it; 0 when that was never
 * listed. Where it is the key's own, *ret_own. */
static int find_dir(struct cat_txn *txn, const char *key, uint64_t *ret_dir, bool *ret_own)
{
	uint64_t dir = CAT_ROOT_INO;
	const char *at = key, *slash;
	struct cat_inode inode;
	int rc;

	*ret_own = true;
	while ((slash = strchr(at, '/')) && slash[1]) {
		AUTO_BUF name = BUF_INIT;
		struct cat_name found;

		(void)escape_component(at, (size_t)(slash - at), &name); /* escaped or not: that is its name */
		if (buf_failed(&name))
			return -ENOMEM;
		rc = cat_name_get(txn, dir, name.data, &found);
		if (rc == -ENOENT || (!rc && found.type != S_IFDIR)) {
			*ret_own = false;
			break;
		}
		if (rc)
			return rc;
		dir = found.ino;
		at = slash + 1;
	}
	rc = cat_inode_get(txn, dir, &inode);
	*ret_dir = !rc && (inode.flags & CAT_LISTED) ? dir : 0;
	return rc;
}

/* A directory by its marker: known when it lives. Its attributes are not looked at. */
static int compare_marker(struct cat_txn *txn, struct sweep *sweep, const char *key)
{
	AUTO_BUF name = BUF_INIT;
	struct cat_name found;
	size_t len = strlen(key) - 1;
	const char *component = memrchr(key, '/', len);
	int rc;

	component = component ? component + 1 : key;
	(void)escape_component(component, len - (size_t)(component - key), &name); /* as above */
	if (buf_failed(&name))
		return -ENOMEM;
	rc = cat_name_get(txn, sweep->at.dir, name.data, &found);
	return rc == -ENOENT ? want(sweep, ACT_LIST, sweep->at.dir) : rc;
}

/* The newest entry of a key: is the object there the one we know? */
static int compare_latest(struct cat_txn *txn, struct sweep *sweep, const struct object_info *info)
{
	bool marker = info->flags & OBJECT_DELETE_MARKER, own;
	struct cat_key record;
	int rc = find_dir(txn, info->key, &sweep->at.dir, &own);

	sweep->at.recorded = false;
	if (rc || !sweep->at.dir)
		return rc;
	if (!own) { /* beneath a directory that is not known here */
		rc = marker ? 0 : want(sweep, ACT_LIST, sweep->at.dir);
		if (marker && sweep->versions)
			rc = want(sweep, ACT_PAST, sweep->at.dir);
		sweep->at.dir = 0;
		return rc;
	}
	rc = cat_key_get(txn, 0, info->key, &record);
	if (rc && rc != -ENOENT)
		return rc;
	sweep->at.recorded = !rc;
	if (!sweep->at.recorded) {
		if (marker || (sweep->versions && !(info->flags & OBJECT_LATEST)))
			return 0;
		return info->key[strlen(info->key) - 1] == '/' ? compare_marker(txn, sweep, info->key)
							       : want(sweep, ACT_LIST, sweep->at.dir);
	}
	sweep->at.is_data = record.kind == CAT_KEY_DATA;
	sweep->at.ino = record.ino;
	rc = 0;
	if (marker || !cat_same_object(record.native_id, record.etag, info->native_id, info->etag))
		rc = want(sweep, ACT_LIST, sweep->at.dir);
	cat_key_clear(&record);
	return rc;
}

static int compare_version(struct cat_txn *txn, struct sweep *sweep, const struct object_info *info)
{
	uint64_t ino, seq;
	int rc;

	if (!sweep->versions || !sweep->at.dir || (info->flags & (OBJECT_DELETE_MARKER | OBJECT_LATEST)) ||
	    !info->native_id || info->key[strlen(info->key) - 1] == '/' || (sweep->at.recorded && !sweep->at.is_data))
		return 0;
	rc = cat_place_get(txn, 0, info->key, cat_object_id(info->native_id, info->etag), &ino, &seq);
	if (rc != -ENOENT)
		return rc;
	return sweep->at.recorded ? want(sweep, ACT_VERSIONS, sweep->at.ino) : want(sweep, ACT_PAST, sweep->at.dir);
}

static void asides_clear(struct asides *asides)
{
	while (asides->count)
		free(asides->cells[--asides->count]);
}

/* A version that lies beside its file's key: do we know it, and if not, its file? */
static int compare_aside(struct cat_txn *txn, struct sweep *sweep, const struct object_info *info)
{
	struct asides *asides = &sweep->asides;
	uint8_t file_id[CAT_FILE_ID_SIZE];
	uint64_t ino, seq;
	int rc;

	if ((info->flags & OBJECT_DELETE_MARKER) || !reconcile_is_aside(info->key, file_id) ||
	    (asides->count && strcmp(asides->cells[asides->count - 1], info->key) == 0))
		return 0;
	rc = cat_place_get(txn, 0, info->key, cat_object_id(info->native_id, info->etag), &ino, &seq);
	if (rc == -ENOENT)
		rc = cat_file_find(txn, file_id, &ino);
	else
		return rc;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (ARRAY_ROOM(asides->cells, asides->cap, asides->count))
		return -ENOMEM;
	asides->cells[asides->count] = strdup(info->key);
	return asides->cells[asides->count++] ? 0 : -ENOMEM;
}

static int compare_page(struct cat_txn *txn, void *arg)
{
	struct sweep *sweep = arg;
	int rc = 0;

	sweep->at = sweep->last; /* the closure may run again */
	asides_clear(&sweep->asides);
	for (size_t i = 0; i < sweep->page.count && !rc; i++) {
		const struct object_info *info = &sweep->page.entries[i];

		if (strncmp(info->key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) == 0) {
			rc = compare_aside(txn, sweep, info);
			continue;
		}
		if (!sweep->at.key || strcmp(sweep->at.key, info->key) != 0) {
			sweep->at.key = info->key;
			rc = compare_latest(txn, sweep, info);
		}
		if (!rc)
			rc = compare_version(txn, sweep, info);
	}
	return rc;
}

/* --- acting ------------------------------------------------------------------------------------------------------- */

static struct call call_of(struct sweep *sweep)
{
	return (struct call){.cancelled = &sweep->stop};
}

static void note_error(struct sweep *sweep, const char *message)
{
	LOCK_GUARD(&sweep->lock);
	(void)snprintf(sweep->figures.last_error, sizeof(sweep->figures.last_error), "%s", message); /* may be cut */
}

static void act_on(struct sweep *sweep, enum act act, uint64_t ino)
{
	static int (*const acts[])(struct reconcile * reconcile, uint64_t ino, const struct call *call,
				   struct err *err) = {
		[ACT_LIST] = reconcile_directory,
		[ACT_PAST] = reconcile_past_now,
		[ACT_VERSIONS] = reconcile_versions_now,
	};
	struct call call = call_of(sweep);
	struct err err = {0};

	if (acts[act](sweep->options.reconcile, ino, &call, &err)) {
		note_error(sweep, err.message);
		log_debug(MODULE, "inode %llu: %s", (unsigned long long)ino, err.message);
	}
	LOCK_GUARD(&sweep->lock);
	if (act == ACT_LIST)
		sweep->figures.listed++;
	else
		sweep->figures.found++;
}

static void take_aside(struct sweep *sweep, const char *key)
{
	struct call call = call_of(sweep);
	struct err err = {0};
	uint64_t adopted = 0;

	if (reconcile_asides(sweep->options.reconcile, key, &call, &adopted, &err)) {
		note_error(sweep, err.message);
		log_debug(MODULE, "%s: %s", key, err.message);
	}
	LOCK_GUARD(&sweep->lock);
	sweep->figures.found += adopted;
}

/* Directories first: what they bring need not be asked for again. */
static int act(struct sweep *sweep)
{
	int rc = 0;

	for (enum act kind = 0; kind < ACTS; kind++) {
		struct numbers *wanted = &sweep->wanted[kind];

		for (size_t i = 0; i < wanted->count && !rc && !atomic_load(&sweep->stop); i++) {
			if (numbers_add(&sweep->done[kind], wanted->cells[i]) < 0)
				rc = -ENOMEM;
			act_on(sweep, kind, wanted->cells[i]);
		}
		wanted->count = 0;
	}
	for (size_t i = 0; i < sweep->asides.count && !rc && !atomic_load(&sweep->stop); i++)
		take_aside(sweep, sweep->asides.cells[i]);
	asides_clear(&sweep->asides);
	return rc;
}

/* --- listing ------------------------------------------------------------------------------------------------------ */

static void page_arrived(struct sweep *sweep)
{
	LOCK_GUARD(&sweep->lock);
	sweep->fetched = true;
	(void)pthread_cond_broadcast(&sweep->wake);
}

static void page_run(struct transfer_task *task)
{
	struct sweep *sweep = container_of(task, struct sweep, task);
	struct call call = call_of(sweep);

	sweep->rc = transfer_list(sweep->options.transfer, &call, sweep->request, &sweep->page, &sweep->err);
	page_arrived(sweep);
}

static void page_dropped(struct transfer_task *task)
{
	struct sweep *sweep = container_of(task, struct sweep, task);

	sweep->rc = err_set(&sweep->err, ERR_CANCELLED, "shutting down");
	page_arrived(sweep);
}

/* Behind everything that somebody waits for. */
static int page_fetch(struct sweep *sweep, const struct list_request *request)
{
	sweep->task = (struct transfer_task){.class = TRANSFER_BACKGROUND, .run = page_run, .dropped = page_dropped};
	sweep->request = request;
	sweep->page = (struct list_page){0};
	sweep->err = (struct err){0};
	sweep->fetched = false;
	list_init(&sweep->task.node);
	transfer_submit(sweep->options.transfer, &sweep->task);
	lock_acquire(&sweep->lock);
	while (!sweep->fetched && !atomic_load(&sweep->stop))
		(void)lock_wait(&sweep->lock, &sweep->wake, 0);
	lock_release(&sweep->lock);
	if (atomic_load(&sweep->stop) && transfer_withdraw(sweep->options.transfer, &sweep->task))
		return -ECANCELED;
	lock_acquire(&sweep->lock);
	while (!sweep->fetched)
		(void)lock_wait(&sweep->lock, &sweep->wake, 0); /* `stop` cancels its call */
	lock_release(&sweep->lock);
	return sweep->rc;
}

/* The entries of one key may go on in the next page. */
static int keep_place(struct sweep *sweep)
{
	char *key = sweep->at.key ? strdup(sweep->at.key) : NULL;

	if (sweep->at.key && !key)
		return -ENOMEM;
	free(sweep->last.key);
	sweep->last = sweep->at;
	sweep->last.key = key;
	return 0;
}

static int page_take(struct sweep *sweep)
{
	int rc = 0;

	for (size_t i = 0; i < sweep->page.count && !rc; i++) {
		const struct object_info *info = &sweep->page.entries[i];

		if (info->flags & OBJECT_DELETE_MARKER)
			continue;
		sweep->identity |=
			strcmp(info->key, IDENTITY) == 0 && (!sweep->versions || (info->flags & OBJECT_LATEST));
		rc = see(sweep, info);
	}
	if (!rc)
		rc = catalog_view(sweep->options.catalog, compare_page, sweep);
	if (!rc)
		rc = keep_place(sweep);
	lock_acquire(&sweep->lock);
	sweep->figures.seen += sweep->page.count;
	lock_release(&sweep->lock);
	return rc ? rc : act(sweep);
}

static int list_all(struct sweep *sweep)
{
	AUTO_FREE char *token = NULL;
	struct list_request request = {.prefix = "", .versions = sweep->versions};
	unsigned idle = 0;
	int rc;

	do {
		request.token = token;
		rc = page_fetch(sweep, &request);
		if (rc)
			return rc;
		idle = sweep->page.count ? 0 : idle + 1;
		rc = idle > IDLE_PAGES_MAX ? err_set(&sweep->err, ERR_CORRUPT, "page after page is empty")
					   : page_take(sweep);
		free(token);
		token = sweep->page.next;
		sweep->page.next = NULL;
		list_page_clear(&sweep->page);
	} while (!rc && token && !atomic_load(&sweep->stop));
	return rc ? rc : atomic_load(&sweep->stop) ? -ECANCELED : 0;
}

/* --- what was not listed --------------------------------------------------------------------------------------------
 */

static bool was_seen(const struct sweep *sweep, const char *key, const char *native_id, const char *etag)
{
	return numbers_has(&sweep->seen, seen_hash(key, native_id, etag));
}

struct lost_keys {
	struct sweep *sweep;
	char *cells[ROWS];
	size_t count;
};

static int take_key(void *arg, const char *key, const struct cat_key *record)
{
	struct lost_keys *lost = arg;

	if (strncmp(key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) == 0 ||
	    was_seen(lost->sweep, key, record->native_id, record->etag))
		return 0;
	lost->cells[lost->count] = strdup(key);
	return lost->cells[lost->count++] ? 0 : -ENOMEM;
}

static int find_lost_dirs(struct cat_txn *txn, void *arg)
{
	const struct lost_keys *lost = arg;
	int rc = 0;

	for (size_t i = 0; i < lost->count && !rc; i++) {
		uint64_t dir;
		bool own;

		rc = find_dir(txn, lost->cells[i], &dir, &own);
		if (!rc && dir && own)
			rc = want(lost->sweep, ACT_LIST, dir);
	}
	return rc;
}

/* Current objects that are not there any more: their directories tell what became of them. */
static int look_for_keys(struct sweep *sweep)
{
	struct cat_cursor cursor = {0};
	struct lost_keys lost = {.sweep = sweep};
	int rc = 0;

	while (!rc && !cursor.done && !atomic_load(&sweep->stop)) {
		lost.count = 0;
		rc = catalog_keys(sweep->options.catalog, &cursor, ROWS, take_key, &lost);
		if (!rc && lost.count)
			rc = catalog_view(sweep->options.catalog, find_lost_dirs, &lost);
		while (lost.count)
			free(lost.cells[--lost.count]);
		if (!rc)
			rc = act(sweep);
	}
	return rc;
}

struct lost_copies {
	struct sweep *sweep;
	struct cat_copy cells[ROWS];
	size_t count;
};

static char *copy_of(const char *text)
{
	return text ? strdup(text) : NULL;
}

static int take_copy(void *arg, const struct cat_copy *copy)
{
	struct lost_copies *lost = arg;
	struct cat_copy *cell = &lost->cells[lost->count];

	if (copy->stored_ns >= lost->sweep->begun || was_seen(lost->sweep, copy->key, copy->native_id, copy->etag))
		return 0;
	*cell = (struct cat_copy){.ino = copy->ino, .seq = copy->seq};
	cell->key = copy_of(copy->key);
	cell->native_id = copy_of(copy->native_id);
	cell->etag = copy_of(copy->etag);
	lost->count++;
	return cell->key && (cell->native_id || !copy->native_id) && (cell->etag || !copy->etag) ? 0 : -ENOMEM;
}

/* Invariant 2. What nobody can say now is asked again by the next pass. */
static bool ask_for(struct sweep *sweep, const struct cat_copy *copy)
{
	struct cat_gone gone = {
		.ino = copy->ino, .seq = copy->seq, .key = copy->key, .native_id = copy->native_id, .etag = copy->etag};
	struct call call = call_of(sweep);
	bool is_gone = false;

	if (reconcile_gone(sweep->options.reconcile, &gone, RECONCILE_LISTED, &call, &is_gone))
		return false;
	if (is_gone) {
		LOCK_GUARD(&sweep->lock);
		sweep->figures.expired++;
	}
	return is_gone;
}

static int look_for_copies(struct sweep *sweep, uint64_t *ret_gone)
{
	struct lost_copies *lost = calloc(1, sizeof(*lost));
	struct cat_cursor cursor = {0};
	int rc = lost ? 0 : -ENOMEM;

	while (!rc && !cursor.done && !atomic_load(&sweep->stop)) {
		lost->sweep = sweep;
		rc = catalog_copies(sweep->options.catalog, &cursor, ROWS, take_copy, lost);
		for (size_t i = 0; i < lost->count; i++) {
			if (!rc && !atomic_load(&sweep->stop))
				*ret_gone += ask_for(sweep, &lost->cells[i]);
			cat_copy_clear(&lost->cells[i]);
		}
		lost->count = 0;
	}
	free(lost);
	return rc;
}

/* --- passes ---------------------------------------------------------------------------------------------------------
 */

static void pass_clear(struct sweep *sweep)
{
	numbers_clear(&sweep->seen);
	for (enum act kind = 0; kind < ACTS; kind++) {
		numbers_clear(&sweep->done[kind]);
		numbers_clear(&sweep->wanted[kind]);
	}
	asides_clear(&sweep->asides);
	free(sweep->asides.cells);
	sweep->asides = (struct asides){0};
	free(sweep->last.key);
	sweep->last = (struct at){0};
}

static int pass(struct sweep *sweep)
{
	uint64_t gone = 0;
	int rc;

	sweep->versions = transfer_can(sweep->options.transfer, BACKEND_VERSIONS);
	sweep->identity = false;
	sweep->begun = clock_wall();
	rc = list_all(sweep);
	if (rc)
		return rc;
	if (!sweep->identity) {
		log_info(MODULE, "the listing does not show " IDENTITY ": nothing is concluded from what it lacks");
		return 0;
	}
	if (sweep->seen.count)
		qsort(sweep->seen.cells, sweep->seen.count, sizeof(*sweep->seen.cells), by_number);
	rc = look_for_keys(sweep);
	if (!rc)
		rc = look_for_copies(sweep, &gone);
	if (gone)
		log_warn(MODULE, "the store no longer has %llu versions: removed by others or by its own rules",
			 (unsigned long long)gone);
	return rc;
}

static void run_pass(struct sweep *sweep)
{
	int rc;

	lock_acquire(&sweep->lock);
	sweep->figures.running = true;
	sweep->asked = false;
	lock_release(&sweep->lock);
	rc = pass(sweep);
	pass_clear(sweep);
	if (rc && !atomic_load(&sweep->stop)) {
		note_error(sweep, sweep->err.kind ? sweep->err.message : strerror(-rc));
		log_info(MODULE, "a pass over the store broke off: %s",
			 sweep->err.kind ? sweep->err.message : strerror(-rc));
	}
	LOCK_GUARD(&sweep->lock);
	sweep->figures.running = false;
	if (rc) {
		sweep->figures.broken_off++;
		return;
	}
	sweep->figures.passes++;
	sweep->figures.last_wall = clock_wall();
}

static void *run(void *arg)
{
	struct sweep *sweep = arg;
	int64_t period = sweep->options.period_ns;
	int64_t next = period ? clock_monotonic() + (period < FIRST_AFTER ? period : FIRST_AFTER) : 0;

	while (!atomic_load(&sweep->stop)) {
		lock_acquire(&sweep->lock);
		while (!atomic_load(&sweep->stop) && !sweep->asked && !(next && clock_monotonic() >= next))
			(void)lock_wait(&sweep->lock, &sweep->wake, next);
		lock_release(&sweep->lock);
		if (atomic_load(&sweep->stop))
			break;
		run_pass(sweep);
		next = period ? clock_monotonic() + period : 0;
	}
	return NULL;
}

int sweep_new(const struct sweep_options *options, struct sweep **ret_sweep)
{
	struct sweep *sweep = calloc(1, sizeof(*sweep));

	if (!sweep)
		return -ENOMEM;
	sweep->options = *options;
	lock_init(&sweep->lock, LOCK_LEAF);
	lock_cond_init(&sweep->wake);
	if (pthread_create(&sweep->thread, NULL, run, sweep)) {
		(void)pthread_cond_destroy(&sweep->wake);
		lock_destroy(&sweep->lock);
		free(sweep);
		return -EAGAIN;
	}
	*ret_sweep = sweep;
	return 0;
}

void sweep_free(struct sweep *sweep)
{
	if (!sweep)
		return;
	{
		LOCK_GUARD(&sweep->lock);
		atomic_store(&sweep->stop, true);
		(void)pthread_cond_broadcast(&sweep->wake);
	}
	(void)pthread_join(sweep->thread, NULL);
	pass_clear(sweep);
	(void)pthread_cond_destroy(&sweep->wake); /* nobody waits */
	lock_destroy(&sweep->lock);
	free(sweep);
}

void sweep_hurry(struct sweep *sweep)
{
	LOCK_GUARD(&sweep->lock);
	sweep->asked = true;
	(void)pthread_cond_broadcast(&sweep->wake);
}

void sweep_figures(struct sweep *sweep, struct sweep_figures *ret_figures)
{
	LOCK_GUARD(&sweep->lock);
	*ret_figures = sweep->figures;
}
