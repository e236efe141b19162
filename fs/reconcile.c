/*
 * reconcile.c - see reconcile.h.
 *
 * Every piece of work is a flight: (kind, ino) with one answer for all who ask
 * while it is under way.
 *
 *	          flight_start                   pool thread
 *	(none) ------------------> QUEUED --------------------------> RUNNING ---> landed: out of the table,
 *	   |                          |  reconcile_join withdraws it     ^         its waiters take rc and err
 *	   +--------------------------+----------------------------------+
 *	        reconcile_join: run by the one who needs it
 *
 * So nobody waits behind a queue: who needs a queued flight runs it himself.
 * A flight that ended only because its own runner gave up (interrupted, out of
 * time) is no answer for the others; the next of them flies again. What happened while a flight was under way
 * it may have missed: who tells of something (`..._soon` after an upload) has it fly once more after its landing.
 *
 * What a flight does, and what it keeps true, is said in the file of its kind (reconcile_internal.h).
 *
 * Threads: the callers', and pool threads in the background. `lock` guards the
 * tables and all fields of flights but what only their runner uses; it ranks
 * before the transfer's queue and is never held across a call of the store or
 * the catalog.
 */
#include "fs/reconcile_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

#define MAX_AGE_DEFAULT (60 * NS_PER_SEC)
#define ENTRIES_DEFAULT (UINT64_C(4) << 20)
#define FILE_MODE_DEFAULT 0644
#define DIR_MODE_DEFAULT 0755
#define PREFETCH 64       /* siblings resolved with one that is asked for */
#define PREFETCH_LOOK 512 /* names looked at to find them */
#define ASKED_MAX 65536
#define PAST_AGES 10                 /* the past of a directory is asked for again after so many max_age */
#define RETRY_PAUSE (5 * NS_PER_SEC) /* after a failure in the background */
#define CANCEL_POLL (200 * NS_PER_MS)

enum flight_state { FLIGHT_QUEUED, FLIGHT_RUNNING, FLIGHT_LANDED };

struct flight {
	struct table_node node;
	struct reconcile *owner;
	enum reconcile_kind kind;
	uint64_t ino;
	enum flight_state state;
	unsigned refs; /* the runner's and each waiter's */
	bool again;    /* something happened after it began */
	int rc;
	struct err err;
	struct transfer_task task;
};

/* When an inode's versions were last asked for. */
struct asked {
	struct table_node node;
	uint64_t ino;
	int64_t at; /* monotonic */
};

const struct call reconcile_patient;

/* --- when an inode was last asked about ------------------------------------------------------------------------- */

static bool asked_match(const struct table_node *node, const void *key)
{
	return container_of(node, struct asked, node)->ino == *(const uint64_t *)key;
}

static struct asked *asked_find(struct reconcile *reconcile, uint64_t ino)
{
	struct table_node *node = table_find(&reconcile->asked, hash_u64(ino), asked_match, &ino);

	return node ? container_of(node, struct asked, node) : NULL;
}

static void asked_drop(struct table_node *node, void *arg)
{
	struct reconcile *reconcile = arg;

	table_remove(&reconcile->asked, node);
	free(container_of(node, struct asked, node));
}

static bool asked_lately(struct reconcile *reconcile, uint64_t ino, unsigned ages)
{
	LOCK_GUARD(&reconcile->lock);
	const struct asked *asked = asked_find(reconcile, ino);

	return asked && clock_monotonic() - asked->at < ages * reconcile->options.max_age_ns;
}

static void asked_note(struct reconcile *reconcile, uint64_t ino)
{
	LOCK_GUARD(&reconcile->lock);
	struct asked *asked = asked_find(reconcile, ino);

	if (!asked) {
		if (reconcile->asked.count >= ASKED_MAX) /* forgetting only means asking again */
			table_each(&reconcile->asked, asked_drop, reconcile);
		asked = calloc(1, sizeof(*asked));
		if (!asked)
			return; /* as above */
		asked->ino = ino;
		table_insert(&reconcile->asked, &asked->node, hash_u64(ino));
	}
	asked->at = clock_monotonic();
}

/* --- flights ------------------------------------------------------------------------------------------------------ */

struct flight_key {
	enum reconcile_kind kind;
	uint64_t ino;
};

static bool flight_match(const struct table_node *node, const void *arg)
{
	const struct flight *flight = container_of(node, struct flight, node);
	const struct flight_key *key = arg;

	return flight->kind == key->kind && flight->ino == key->ino;
}

static uint64_t flight_hash(enum reconcile_kind kind, uint64_t ino)
{
	return hash_u64(ino << 2 | kind);
}

static struct flight *flight_find(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino)
{
	struct flight_key key = {.kind = kind, .ino = ino};
	struct table_node *node = table_find(&reconcile->flights, flight_hash(kind, ino), flight_match, &key);

	return node ? container_of(node, struct flight, node) : NULL;
}

/* Into the table, with one reference: the runner's. NULL: no memory. */
static struct flight *flight_new(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino,
				 enum flight_state state)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	flight->owner = reconcile;
	flight->kind = kind;
	flight->ino = ino;
	flight->state = state;
	flight->refs = 1;
	table_insert(&reconcile->flights, &flight->node, flight_hash(kind, ino));
	return flight;
}

static void flight_unref(struct flight *flight)
{
	if (!--flight->refs)
		free(flight);
}

static void flight_launch(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino,
			  enum transfer_class class);

static void flight_land(struct flight *flight, int rc, const struct err *err)
{
	struct reconcile *reconcile = flight->owner;

	table_remove(&reconcile->flights, &flight->node);
	if (flight->again && !atomic_load(&reconcile->stop))
		flight_launch(reconcile, flight->kind, flight->ino, TRANSFER_NORMAL);
	flight->state = FLIGHT_LANDED;
	flight->rc = rc;
	flight->err = *err;
	(void)pthread_cond_broadcast(&reconcile->landed);
	flight_unref(flight);
}

static bool gave_up(const struct err *err)
{
	return err->kind == ERR_CANCELLED || err->kind == ERR_TIMED_OUT;
}

static int flight_fly(struct flight *flight, const struct call *call, struct err *err)
{
	static int (*const run[])(struct reconcile * reconcile, uint64_t ino, const struct call *call,
				  struct err *err) = {
		[RECONCILE_KIND_LIST] = reconcile_list_run,
		[RECONCILE_KIND_HEAD] = reconcile_head_run,
		[RECONCILE_KIND_VERSIONS] = reconcile_versions_run,
		[RECONCILE_KIND_PAST] = reconcile_past_run,
	};
	struct reconcile *reconcile = flight->owner;
	int rc = run[flight->kind](reconcile, flight->ino, call, err);

	if (rc && !gave_up(err))
		atomic_fetch_add(&reconcile->failures, 1);
	/* A past that is too long to be listed in time must not be waited for again and again. */
	if ((!rc && flight->kind == RECONCILE_KIND_VERSIONS) || flight->kind == RECONCILE_KIND_PAST)
		asked_note(reconcile, flight->ino);
	return rc;
}

static void background_ended(struct reconcile *reconcile)
{
	reconcile->background--;
	(void)pthread_cond_broadcast(&reconcile->landed);
}

static void flight_task_run(struct transfer_task *task)
{
	struct flight *flight = container_of(task, struct flight, task);
	struct reconcile *reconcile = flight->owner;
	struct call call = {.cancelled = &reconcile->stop};
	struct err why = {0};
	int rc;

	lock_acquire(&reconcile->lock);
	flight->state = FLIGHT_RUNNING;
	lock_release(&reconcile->lock);
	rc = flight_fly(flight, &call, &why);
	if (rc && !atomic_load(&reconcile->stop)) {
		if (err_is_transient(why.kind))
			atomic_store(&reconcile->quiet_until, clock_monotonic() + RETRY_PAUSE);
		log_debug(RECONCILE_MODULE, "in the background: %s", why.message);
	}
	lock_acquire(&reconcile->lock);
	flight_land(flight, rc, &why);
	background_ended(reconcile);
	lock_release(&reconcile->lock);
}

static void flight_task_dropped(struct transfer_task *task)
{
	struct flight *flight = container_of(task, struct flight, task);
	struct reconcile *reconcile = flight->owner;
	struct err why = {.kind = ERR_CANCELLED, .message = "shutting down"};

	lock_acquire(&reconcile->lock);
	flight_land(flight, -err_errno(why.kind), &why);
	background_ended(reconcile);
	lock_release(&reconcile->lock);
}

/* In the background. Best effort. */
static void flight_launch(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino,
			  enum transfer_class class)
{
	struct flight *flight = flight_new(reconcile, kind, ino, FLIGHT_QUEUED);

	if (!flight)
		return;
	flight->task.class = class;
	flight->task.run = flight_task_run;
	flight->task.dropped = flight_task_dropped;
	reconcile->background++;
	transfer_submit(reconcile->options.transfer, &flight->task);
}

enum seen { SEEN_BY_ANY, SEEN_BY_THE_NEXT };

/* In the background, unless it flies already. SEEN_BY_THE_NEXT: only one that begins from now on is sure to see what it
 * is started for. */
static void flight_start(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino, enum transfer_class class,
			 enum seen seen)
{
	LOCK_GUARD(&reconcile->lock);
	struct flight *flight;

	if (atomic_load(&reconcile->stop))
		return;
	flight = flight_find(reconcile, kind, ino);
	if (!flight)
		flight_launch(reconcile, kind, ino, class);
	else
		flight->again |= seen == SEEN_BY_THE_NEXT && flight->state == FLIGHT_RUNNING;
}

/* Waits for the landing. 0, or this call is over: -errno. */
static int flight_wait(struct flight *flight, const struct call *call, struct err *err)
{
	while (flight->state != FLIGHT_LANDED) {
		int64_t now = clock_monotonic();
		int64_t poll = now + CANCEL_POLL;

		if (call->cancelled && atomic_load(call->cancelled))
			return err_set(err, ERR_CANCELLED, "interrupted");
		if (call->deadline_ns && now >= call->deadline_ns)
			return err_set(err, ERR_TIMED_OUT, "no time left");
		if (call->deadline_ns && call->deadline_ns < poll)
			poll = call->deadline_ns;
		(void)lock_wait(&flight->owner->lock, &flight->owner->landed, poll); /* the loop looks itself */
	}
	return 0;
}

/* The flight to run on this thread: a new one, or a queued one taken from the pool. NULL: it flies with another. */
static struct flight *flight_take(struct reconcile *reconcile, struct flight *flight, const struct flight_key *key)
{
	if (!flight)
		return flight_new(reconcile, key->kind, key->ino, FLIGHT_RUNNING);
	if (flight->state != FLIGHT_QUEUED || !transfer_withdraw(reconcile->options.transfer, &flight->task))
		return NULL;
	flight->state = FLIGHT_RUNNING;
	background_ended(reconcile);
	return flight;
}

/* The answer of (kind, ino): of whoever gets it already, else of our own. */
int reconcile_join(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino, const struct call *call,
		   struct err *err)
{
	struct flight_key key = {.kind = kind, .ino = ino};
	struct err why = {0};
	int rc;

	lock_acquire(&reconcile->lock);
	for (;;) {
		struct flight *flight = flight_find(reconcile, kind, ino);
		struct flight *ours = flight_take(reconcile, flight, &key);

		if (ours) {
			lock_release(&reconcile->lock);
			rc = flight_fly(ours, call, &why);
			lock_acquire(&reconcile->lock);
			flight_land(ours, rc, &why);
			break;
		}
		if (!flight) {
			rc = err_set(&why, ERR_NO_MEMORY, "reconcile");
			break;
		}
		flight->refs++;
		rc = flight_wait(flight, call, &why);
		if (!rc && !(flight->rc && gave_up(&flight->err))) {
			rc = flight->rc;
			why = flight->err;
			flight_unref(flight);
			break;
		}
		flight_unref(flight);
		if (rc)
			break;
	}
	lock_release(&reconcile->lock);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- public
 * ------------------------------------------------------------------------------------------------------------ */

int reconcile_new(const struct reconcile_options *options, struct reconcile **ret_reconcile)
{
	struct reconcile *reconcile = calloc(1, sizeof(*reconcile));

	if (!reconcile)
		return -ENOMEM;
	reconcile->options = *options;
	if (!reconcile->options.file_mode)
		reconcile->options.file_mode = FILE_MODE_DEFAULT;
	if (!reconcile->options.dir_mode)
		reconcile->options.dir_mode = DIR_MODE_DEFAULT;
	if (!reconcile->options.max_age_ns)
		reconcile->options.max_age_ns = MAX_AGE_DEFAULT;
	if (!reconcile->options.max_entries)
		reconcile->options.max_entries = ENTRIES_DEFAULT;
	if (table_init(&reconcile->flights, 64) || table_init(&reconcile->asked, 64)) {
		table_destroy(&reconcile->flights);
		free(reconcile);
		return -ENOMEM;
	}
	lock_init(&reconcile->lock, LOCK_QUEUE);
	lock_cond_init(&reconcile->landed);
	*ret_reconcile = reconcile;
	return 0;
}

static void flight_recall(struct table_node *node, void *arg)
{
	struct flight *flight = container_of(node, struct flight, node);
	struct reconcile *reconcile = arg;
	struct err why = {.kind = ERR_CANCELLED, .message = "shutting down"};

	if (flight->state != FLIGHT_QUEUED || !transfer_withdraw(reconcile->options.transfer, &flight->task))
		return;
	flight_land(flight, -err_errno(why.kind), &why);
	background_ended(reconcile);
}

void reconcile_stop(struct reconcile *reconcile)
{
	if (!reconcile)
		return;
	lock_acquire(&reconcile->lock);
	atomic_store(&reconcile->stop, true);
	table_each(&reconcile->flights, flight_recall, reconcile);
	while (reconcile->background)
		(void)lock_wait(&reconcile->lock, &reconcile->landed, 0); /* stop cancels their calls */
	lock_release(&reconcile->lock);
}

void reconcile_free(struct reconcile *reconcile)
{
	if (!reconcile)
		return;
	reconcile_stop(reconcile);
	lock_acquire(&reconcile->lock);
	table_each(&reconcile->asked, asked_drop, reconcile);
	lock_release(&reconcile->lock);
	table_destroy(&reconcile->flights);
	table_destroy(&reconcile->asked);
	(void)pthread_cond_destroy(&reconcile->landed); /* nobody waits */
	lock_destroy(&reconcile->lock);
	free(reconcile);
}

int reconcile_directory(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	return reconcile_join(reconcile, RECONCILE_KIND_LIST, dir, call ? call : &reconcile_patient, err);
}

void reconcile_refresh_soon(struct reconcile *reconcile, uint64_t dir)
{
	struct cat_inode inode;
	int64_t age;

	if (clock_monotonic() < atomic_load(&reconcile->quiet_until) ||
	    catalog_getattr(reconcile->options.catalog, dir, &inode))
		return;
	age = clock_wall() - inode.listed_at;
	/* The catalog's clock may be a little ahead; but one that was set back must not keep a listing young for ever.
	 */
	if ((inode.flags & CAT_LISTED) && age > -reconcile->options.max_age_ns && age < reconcile->options.max_age_ns)
		return;
	flight_start(reconcile, RECONCILE_KIND_LIST, dir, TRANSFER_BACKGROUND, SEEN_BY_ANY);
}

struct siblings {
	uint64_t inos[PREFETCH];
	size_t count;
};

static int sibling_visit(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct siblings *siblings = arg;

	(void)name;
	if (!(inode->flags & CAT_UNRESOLVED))
		return 0;
	siblings->inos[siblings->count++] = inode->ino;
	return siblings->count == PREFETCH;
}

/* Whoever looks at one soon looks at the next ones. */
static void prefetch(struct reconcile *reconcile, uint64_t ino)
{
	struct cat_name name;
	struct siblings siblings = {0};
	struct cat_readdir request = {.max = PREFETCH_LOOK, .with_inodes = true};

	if (clock_monotonic() < atomic_load(&reconcile->quiet_until) || reconcile_name_of(reconcile, ino, &name))
		return;
	request.parent = name.parent;
	request.after = name.cookie;
	if (catalog_readdir(reconcile->options.catalog, &request, sibling_visit, &siblings) < 0)
		return;
	for (size_t i = 0; i < siblings.count; i++)
		flight_start(reconcile, RECONCILE_KIND_HEAD, siblings.inos[i], TRANSFER_NORMAL, SEEN_BY_ANY);
}

int reconcile_resolve(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct cat_inode *ret_inode,
		      struct err *err)
{
	struct cat_inode inode;
	bool flying, named;
	int rc = catalog_getattr(reconcile->options.catalog, ino, &inode);

	if (!rc && (inode.flags & CAT_UNRESOLVED)) {
		lock_acquire(&reconcile->lock);
		flying = flight_find(reconcile, RECONCILE_KIND_HEAD, ino) != NULL;
		lock_release(&reconcile->lock);
		if (!flying)
			prefetch(reconcile, ino);
		named = inode.nlink;
		rc = reconcile_join(reconcile, RECONCILE_KIND_HEAD, ino, call ? call : &reconcile_patient, err);
		if (rc)
			return rc;
		rc = catalog_getattr(reconcile->options.catalog, ino, &inode);
		if (!rc && named && !inode.nlink) /* it was a hard link: the name is its file's now */
			return err_set(err, ERR_PRECONDITION, "inode %llu is another's name", (unsigned long long)ino);
	}
	if (rc)
		return err_from_errno(err, -rc, "inode %llu", (unsigned long long)ino);
	if (ret_inode)
		*ret_inode = inode;
	return 0;
}

void reconcile_names_soon(struct reconcile *reconcile, uint64_t ino)
{
	struct cat_name name;

	if (!reconcile_name_of(reconcile, ino, &name))
		flight_start(reconcile, RECONCILE_KIND_LIST, name.parent, TRANSFER_NORMAL, SEEN_BY_THE_NEXT);
}

int reconcile_versions(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	if (asked_lately(reconcile, ino, 1))
		return 0;
	return reconcile_versions_now(reconcile, ino, call, err);
}

int reconcile_versions_now(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	return reconcile_join(reconcile, RECONCILE_KIND_VERSIONS, ino, call ? call : &reconcile_patient, err);
}

void reconcile_versions_soon(struct reconcile *reconcile, uint64_t ino)
{
	if (transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		flight_start(reconcile, RECONCILE_KIND_VERSIONS, ino, TRANSFER_BACKGROUND, SEEN_BY_THE_NEXT);
}

int reconcile_past(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	if (asked_lately(reconcile, dir, PAST_AGES))
		return 0;
	return reconcile_past_now(reconcile, dir, call, err);
}

int reconcile_past_now(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	return reconcile_join(reconcile, RECONCILE_KIND_PAST, dir, call ? call : &reconcile_patient, err);
}

/* --- gone ------------------------------------------------------------------------------------------------------------
 */

/* Is the object there? 1, 0; -errno: nobody can say. */
static int still_there(struct reconcile *reconcile, const struct cat_gone *gone, const char *native_id,
		       const struct call *call)
{
	struct object_ref object = {.key = gone->key, .native_id = native_id, .etag = gone->etag};
	struct object_info info = {0};
	struct err why = {0};
	int rc = transfer_head(reconcile->options.transfer, call, &object, &info, &why);

	atomic_fetch_add(&reconcile->heads, 1);
	object_info_clear(&info);
	if (!rc)
		return 1;
	return why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION ? 0 : rc;
}

/* A bucket that is not there has no objects either, and that says nothing about them. */
static int store_answers(struct reconcile *reconcile, const struct call *call)
{
	struct list_request request = {.prefix = "", .max = 1};
	struct list_page page = {0};
	struct err why = {0};
	int rc = transfer_list(reconcile->options.transfer, call, &request, &page, &why);

	list_page_clear(&page);
	return rc;
}

struct unnamed {
	const struct cat_gone *gone;
	char *native_id; /* malloc'd; NULL: not found */
};

static int take_unnamed(void *arg, const struct object_info *info)
{
	struct unnamed *unnamed = arg;

	if (strcmp(info->key, unnamed->gone->key) != 0)
		return 1; /* the key itself is the first of all that begin with it */
	if ((info->flags & OBJECT_DELETE_MARKER) || !info->native_id || !info->etag ||
	    strcmp(info->etag, unnamed->gone->etag) != 0)
		return 0;
	unnamed->native_id = strdup(info->native_id);
	return unnamed->native_id ? 1 : -ENOMEM;
}

/* Known from a plain listing, or stored before versioning was switched on: the catalog has no id of it. Once there is
 * something newer at the key it is found among its versions. 1: it was, and has its id now; 0; -errno. */
static int found_beneath(struct reconcile *reconcile, const struct cat_gone *gone, const struct call *call)
{
	struct unnamed unnamed = {.gone = gone};
	struct reconcile_walk walk = {
		.request = {.prefix = gone->key, .versions = true}, .take = take_unnamed, .arg = &unnamed};
	struct err why = {0};
	int rc;

	if (gone->native_id || !gone->etag || !transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	rc = reconcile_walk(reconcile, call, &walk, &why);
	if (!rc && unnamed.native_id) {
		rc = catalog_copy_named(reconcile->options.catalog, gone, unnamed.native_id);
		rc = rc ? rc : 1;
	}
	free(unnamed.native_id);
	return rc;
}

int reconcile_gone(struct reconcile *reconcile, const struct cat_gone *gone, enum reconcile_doubt doubt,
		   const struct call *call, bool *ret_gone)
{
	const struct reconcile_options *options = &reconcile->options;
	struct cat_gone_effect effect = {0};
	int rc = still_there(reconcile, gone, gone->native_id, call);

	*ret_gone = false;
	if (!rc)
		rc = found_beneath(reconcile, gone, call);
	if (!rc && doubt == RECONCILE_READ)
		rc = store_answers(reconcile, call);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = catalog_gone(options->catalog, gone, &effect);
	if (rc)
		return rc;
	*ret_gone = true;
	if (!effect.dropped)
		return 0;
	atomic_fetch_add(&reconcile->expired, effect.expired);
	if (doubt == RECONCILE_READ)
		log_warn(RECONCILE_MODULE, "the store no longer has %s%s%s%s: removed by others%s", gone->key,
			 gone->native_id ? " (version " : "", gone->native_id ? gone->native_id : "",
			 gone->native_id ? ")" : "", effect.expired ? "" : "; another copy is used");
	if (effect.parent)
		flight_start(reconcile, RECONCILE_KIND_LIST, effect.parent, TRANSFER_NORMAL, SEEN_BY_ANY);
	return 0;
}

bool reconcile_offline(struct reconcile *reconcile)
{
	struct transfer_figures figures;

	transfer_figures(reconcile->options.transfer, &figures);
	return !figures.online;
}

void reconcile_figures(struct reconcile *reconcile, struct reconcile_figures *ret_figures)
{
	struct reconcile_figures figures = {
		.listings = atomic_load(&reconcile->listings),
		.pages = atomic_load(&reconcile->pages),
		.entries = atomic_load(&reconcile->entries),
		.heads = atomic_load(&reconcile->heads),
		.failures = atomic_load(&reconcile->failures),
		.expired = atomic_load(&reconcile->expired),
	};

	lock_acquire(&reconcile->lock);
	figures.running = reconcile->background;
	lock_release(&reconcile->lock);
	*ret_figures = figures;
}
