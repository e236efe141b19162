/*
 * writeback.c - the order of the journal's jobs.
 *
 *            loaded              claims free, time come          placement_run == 0
 *   journal ---------> WAITING ---------------------> RUNNING ----------------------> done
 *                         ^                              |
 *                         +------------------------------+  failed: backoff, noted in the journal
 *
 * Invariants
 *  1. Two jobs that touch one inode or one key never run at the same time, and the older runs first, to its end; unless
 *     they came to touch the same key only by a rename, while the younger was running, or the older is held up: by
 *     something that lies in its way, or behind a job of its inode that is.
 *  2. `pending` holds, in order of seq, every job of the journal up to `loaded`; what is beyond is loaded as room
 * comes. So a job is only ever compared with all that are older. Who is held up takes no room.
 *  3. A job leaves only when it is done. A failure is kept in the journal and tried again, ever more slowly up to
 *     BACKOFF_MAX, at once after writeback_hurry.
 *  4. Nothing starts while the lease does not allow it.
 *
 *  5. Claims are computed by the scheduler, without the lock: until it has taken the lock again such a job is its own
 *     (refreshing), and nobody else starts or frees it.
 *
 * Progress, which those who wait are patient for, is what jobs move further than any of their attempts before, and jobs
 * done. An upload that moves its bytes again and again, to fail again and again, makes none.
 *
 * Threads: jobs run on the transfer pool, and whoever ends one starts what is next as far as claims are known; a
 * scheduler loads the journal and starts what nobody's end starts: the first ones, and those whose time has come. It is
 * left asleep while all places are taken, so that a thousand small files do not wake it a thousand times. Lock:
 * LOCK_QUEUE, not held while a job runs, nor while the catalog is read: file operations take it.
 */
#include "fs/writeback.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/ahead.h"
#include "fs/content.h"
#include "fs/lease.h"
#include "fs/placement.h"
#include "lock.h"
#include "log.h"
#include "table.h"
#include "transfer.h"

#define WINDOW 1024   /* jobs looked at for one that can start; for an urgent one all */
#define REFRESHED 256 /* of which so many get their claims in one round */
#define LOADED_MAX 8192
#define PARALLEL 12
#define PARALLEL_FAR 32 /* where a round trip takes longer than the work */
#define URGENT_EXTRA 4  /* somebody waits: so many more may run */
#define BACKOFF_FIRST (500 * NS_PER_MS)
#define BACKOFF_MAX (60 * NS_PER_SEC)
#define CLAIM_SLOTS 32768
#define CLAIMS_MAX (CLAIM_SLOTS / 4 * 3) /* a round that has claimed so much goes no further */
#define POLL_NS (200 * NS_PER_MS)
#define REPROBE_NS (3600 * NS_PER_SEC)

struct job {
	struct transfer_task task;
	struct list node;
	struct table_node by_ino; /* of the oldest job of an inode */
	struct list siblings;     /* a ring of all of them, in order of seq */
	struct list running_node;
	struct writeback *owner;
	struct cat_job record;
	struct placement_claims claims;
	uint64_t claims_of; /* tree generation they were computed in */
	uint64_t refreshed; /* scheduling round they were computed in */
	uint64_t bytes;
	struct placement_progress progress;
	uint64_t best;      /* progress.moved of the best attempt */
	uint64_t moved;     /* that, and what was fetched */
	int64_t not_before; /* monotonic */
	bool running, again, urgent, refreshing;
	enum err_kind failing; /* of the last attempt; CONFLICT: something lies in its way */
	char error[256];
};

struct writeback {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	struct placement *placement;
	struct ahead *ahead; /* NULL: read only */
	unsigned parallel;   /* 0: as many as the way to the store asks for */
	pthread_t scheduler;
	bool started;

	struct lock lock;        /* guards all below */
	pthread_cond_t wake;     /* the scheduler's */
	pthread_cond_t progress; /* those who wait for jobs */
	bool stop, poked, more;  /* more: the journal may hold jobs beyond `loaded` */
	struct list pending;
	struct list running_jobs;
	struct table by_ino;
	size_t pending_count, failed; /* failed: for good, as it seems */
	size_t in_the_way;            /* jobs that something lies in the way of */
	size_t held_up;               /* these, and who waits behind them for the same inode: of the last round */
	unsigned running;
	uint64_t loaded, done, bytes;
	uint64_t moved;          /* sum of all jobs' */
	uint64_t recovered_upto; /* jobs up to here were in the journal at start */
	uint64_t tree;           /* generation */
	unsigned waiting;        /* in writeback_wait */
	unsigned urgent;         /* jobs that are, and do not run */
	char last_error[256];
	bool outage;  /* a job failed for want of the store; the first success tries all others at once */
	bool blocked; /* a job failed because something lay where it belongs; likewise */
	bool loading;
	int64_t loaded_ns; /* monotonic: when the journal was last looked at */
	int64_t look_at;   /* monotonic: the scheduler sleeps until then, unless it is poked */
	bool hopeless;     /* what is left was refused for good, or waits for such: seen by the last round */

	/* The scheduler's, of one round. */
	uint64_t round;
	struct job *refresh[REFRESHED];
	size_t refresh_count;
	uint64_t claimed[CLAIM_SLOTS];
	uint16_t taken[CLAIM_SLOTS]; /* the slots in use */
	unsigned taken_count;
};

/* --- the jobs of one inode, with the lock held ------------------------------------------------------------ */

static bool is_of_inode(const struct table_node *node, const void *key)
{
	return container_of(node, struct job, by_ino)->record.ino == *(const uint64_t *)key;
}

/* The oldest. */
static struct job *first_of(const struct writeback *writeback, uint64_t ino)
{
	struct table_node *node = table_find(&writeback->by_ino, hash_u64(ino), is_of_inode, &ino);

	return node ? container_of(node, struct job, by_ino) : NULL;
}

/* NULL after the youngest. */
static struct job *next_of(const struct job *first, const struct job *job)
{
	return job->siblings.next == &first->siblings ? NULL : list_entry(job->siblings.next, struct job, siblings);
}

static void pending_add(struct writeback *writeback, struct job *job)
{
	struct job *first = first_of(writeback, job->record.ino);

	list_add_tail(&writeback->pending, &job->node);
	writeback->pending_count++;
	writeback->bytes += job->bytes;
	writeback->hopeless = false;
	list_init(&job->siblings);
	if (first)
		list_add_tail(&first->siblings, &job->siblings);
	else
		table_insert(&writeback->by_ino, &job->by_ino, hash_u64(job->record.ino));
}

static void pending_remove(struct writeback *writeback, struct job *job)
{
	struct job *next = list_entry(job->siblings.next, struct job, siblings);

	if (first_of(writeback, job->record.ino) == job) {
		table_remove(&writeback->by_ino, &job->by_ino);
		if (next != job)
			table_insert(&writeback->by_ino, &next->by_ino, hash_u64(next->record.ino));
	}
	list_remove(&job->siblings);
	list_remove(&job->node);
	writeback->pending_count--;
	writeback->bytes -= job->bytes;
	writeback->failed -= err_is_permanent(job->failing);
	writeback->in_the_way -= job->failing == ERR_CONFLICT;
}

static void set_failing(struct writeback *writeback, struct job *job, enum err_kind kind)
{
	writeback->failed += err_is_permanent(kind);
	writeback->failed -= err_is_permanent(job->failing);
	writeback->in_the_way += kind == ERR_CONFLICT;
	writeback->in_the_way -= job->failing == ERR_CONFLICT;
	job->failing = kind;
}

/* --- loading ------------------------------------------------------------------------------------------ */

static uint64_t bytes_of(struct writeback *writeback, const struct cat_job *record);
static void job_run(struct transfer_task *task);
static void job_dropped(struct transfer_task *task);

static int load_one(void *arg, struct cat_job *record)
{
	struct list *loaded = arg;
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->record = *record;
	record->key = record->note = record->sent = NULL; /* taken over */
	list_add_tail(loaded, &job->node);
	return 0;
}

static void load(struct writeback *writeback)
{
	struct list loaded = LIST_INIT(loaded);
	uint64_t after;
	size_t room;
	int err;

	{
		LOCK_GUARD(&writeback->lock);
		if (!writeback->more || writeback->pending_count >= LOADED_MAX + writeback->held_up)
			return;
		writeback->more = false;
		writeback->loading = true;
		writeback->loaded_ns = clock_monotonic();
		after = writeback->loaded;
		room = LOADED_MAX + writeback->held_up - writeback->pending_count;
	}
	err = catalog_jobs(writeback->catalog, after, room, load_one, &loaded);
	if (err)
		log_error("writeback", "cannot read the journal: %s", strerror(-err));
	for (struct list *at = loaded.next; at != &loaded; at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		job->bytes = bytes_of(writeback, &job->record);
	}
	LOCK_GUARD(&writeback->lock);
	list_each_safe(at, after_at, &loaded)
	{
		struct job *job = list_entry(at, struct job, node);

		list_remove(at);
		job->owner = writeback;
		job->again = job->record.seq <= writeback->recovered_upto;
		job->claims_of = UINT64_MAX;
		job->task.run = job_run;
		job->task.dropped = job_dropped;
		list_init(&job->task.node);
		list_init(&job->running_node);
		pending_add(writeback, job);
		writeback->loaded = job->record.seq;
		room--;
	}
	writeback->loading = false;
	if (!room || err)
		writeback->more = true;
}

struct size_of {
	const struct cat_job *record;
	uint64_t size;
};

static int size_of(struct cat_txn *txn, void *arg)
{
	struct size_of *of = arg;
	struct cat_version version;
	int err = cat_version_get(txn, of->record->ino, of->record->version, &version);

	if (!err)
		of->size = version.size;
	return err;
}

static uint64_t bytes_of(struct writeback *writeback, const struct cat_job *record)
{
	struct size_of of = {.record = record};

	if (record->type == CAT_JOB_UPLOAD)
		(void)catalog_view(writeback->catalog, size_of, &of); /* only a figure */
	return of.size;
}

/* --- scheduling, with the lock held --------------------------------------------------------------------- */

static bool claim_taken(const struct writeback *writeback, uint64_t hash)
{
	uint64_t slot = hash % CLAIM_SLOTS;

	while (writeback->claimed[slot] && writeback->claimed[slot] != hash)
		slot = (slot + 1) % CLAIM_SLOTS;
	return writeback->claimed[slot] == hash;
}

static void claim_take(struct writeback *writeback, uint64_t hash)
{
	uint64_t slot = hash % CLAIM_SLOTS;

	while (writeback->claimed[slot] && writeback->claimed[slot] != hash)
		slot = (slot + 1) % CLAIM_SLOTS;
	if (!writeback->claimed[slot])
		writeback->taken[writeback->taken_count++] = (uint16_t)slot;
	writeback->claimed[slot] = hash;
}

static void claims_forget(struct writeback *writeback)
{
	while (writeback->taken_count)
		writeback->claimed[writeback->taken[--writeback->taken_count]] = 0;
}

static bool claims_free(const struct writeback *writeback, const struct placement_claims *claims)
{
	for (unsigned i = 0; i < claims->count; i++)
		if (claim_taken(writeback, claims->hashes[i]))
			return false;
	return true;
}

static void start(struct writeback *writeback, struct job *job)
{
	job->running = true;
	job->progress.moved = 0;
	list_add_tail(&writeback->running_jobs, &job->running_node);
	writeback->running++;
	writeback->urgent -= job->urgent;
	job->task.class = job->urgent ? TRANSFER_URGENT
				      : (job->record.type == CAT_JOB_UPLOAD ? TRANSFER_NORMAL : TRANSFER_BACKGROUND);
	transfer_submit(writeback->transfer, &job->task);
}

/* A rename can make a waiting job touch what a younger one is busy with already. */
static void claim_running(struct writeback *writeback)
{
	for (struct list *at = writeback->running_jobs.next; at != &writeback->running_jobs; at = at->next) {
		struct job *job = list_entry(at, struct job, running_node);

		for (unsigned i = 0; i < job->claims.count; i++)
			claim_take(writeback, job->claims.hashes[i]);
	}
}

static unsigned parallel(const struct writeback *writeback)
{
	if (writeback->parallel)
		return writeback->parallel;
	return transfer_is_far(writeback->transfer) ? PARALLEL_FAR : PARALLEL;
}

static bool is_full(const struct writeback *writeback)
{
	return !writeback->urgent && writeback->running >= parallel(writeback);
}

static unsigned window_of(const struct writeback *writeback)
{
	return writeback->urgent ? LOADED_MAX : WINDOW;
}

static bool yields(const struct job *job, int64_t now)
{
	return !job->running && job->failing == ERR_CONFLICT && job->not_before > now;
}

/* While something lies in the way of an inode's first job, that one and all behind it keep the inode and no key: what
 * lies there may have to leave, or to come to, any of them. */
static bool is_held_up(const struct writeback *writeback, const struct job *job, int64_t now)
{
	return writeback->in_the_way && !job->running && yields(first_of(writeback, job->record.ino), now);
}

/* Those of the window whose claims are not known, or void. From here on a rename makes them void again. */
static void take_stale(struct writeback *writeback)
{
	int64_t now = clock_monotonic();
	unsigned looked = 0;

	LOCK_GUARD(&writeback->lock);
	writeback->round++;
	if (is_full(writeback))
		return;
	for (struct list *at = writeback->pending.next;
	     at != &writeback->pending && looked < window_of(writeback) && writeback->refresh_count < REFRESHED;
	     at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		if (is_held_up(writeback, job, now))
			continue;
		looked += job->not_before <= now;
		if (job->running || job->claims_of == writeback->tree)
			continue;
		job->claims_of = writeback->tree;
		job->refreshed = writeback->round;
		job->refreshing = true;
		writeback->refresh[writeback->refresh_count++] = job;
	}
}

static void refresh_claims(struct writeback *writeback)
{
	take_stale(writeback);
	for (size_t i = 0; i < writeback->refresh_count; i++) {
		struct job *job = writeback->refresh[i];

		placement_claims(writeback->placement, &job->record, &job->claims);
	}
}

/* With the lock held again. */
static void end_refresh(struct writeback *writeback)
{
	while (writeback->refresh_count)
		writeback->refresh[--writeback->refresh_count]->refreshing = false;
}

static bool claims_known(const struct writeback *writeback, const struct job *job)
{
	return job->running ||
	       (!job->refreshing && (job->claims_of == writeback->tree || job->refreshed == writeback->round));
}

/* It failed for good, as it seems, and its time has not come to be tried once more. */
static bool is_refused(const struct job *job, int64_t now)
{
	return err_is_permanent(job->failing) && job->not_before > now;
}

static unsigned limit_of(const struct writeback *writeback, const struct job *job)
{
	return parallel(writeback) + (job->urgent ? URGENT_EXTRA : 0);
}

/* Of two times; 0: never. */
static int64_t earlier(int64_t a, int64_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* One walk over the window, up to the first whose claims are not known. Returns when to look again: a backoff's end, 0
 * for never. */
static int64_t start_ready(struct writeback *writeback)
{
	int64_t now = clock_monotonic(), next = 0;
	bool hope = false;
	unsigned looked = 0;

	claims_forget(writeback);
	claim_running(writeback);
	writeback->hopeless = false;
	writeback->held_up = 0;
	for (struct list *at = writeback->pending.next;
	     at != &writeback->pending && looked < window_of(writeback) && writeback->taken_count < CLAIMS_MAX;
	     at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		if (is_full(writeback))
			return next;
		if (is_held_up(writeback, job, now)) {
			hope = true;
			writeback->held_up++;
			next = yields(job, now) ? earlier(next, job->not_before) : next;
			continue;
		}
		looked += job->not_before <= now; /* those that back off must not hide the others */
		if (!claims_known(writeback, job))
			return now;
		if (!job->running && claims_free(writeback, &job->claims)) {
			hope |= !is_refused(job, now);
			if (job->not_before > now)
				next = earlier(next, job->not_before);
			else if (writeback->running < limit_of(writeback, job))
				start(writeback, job);
		}
		for (unsigned i = 0; i < job->claims.count; i++)
			claim_take(writeback, job->claims.hashes[i]);
	}
	/* A window that ends early holds some whose time has come. */
	writeback->hopeless = !hope && !writeback->running;
	return next;
}

static bool may_write(const struct writeback *writeback)
{
	return !writeback->lease || lease_may_write(writeback->lease);
}

static void *schedule(void *arg)
{
	struct writeback *writeback = arg;
	int64_t reprobe = clock_monotonic() + REPROBE_NS;

	for (;;) {
		int64_t next = 0;
		bool allowed = may_write(writeback);

		load(writeback);
		if (clock_monotonic() >= reprobe) {
			struct err error = {0};

			placement_reprobe(writeback->placement, &error);
			reprobe = clock_monotonic() + REPROBE_NS;
		}
		if (allowed)
			refresh_claims(writeback);
		LOCK_GUARD(&writeback->lock);
		end_refresh(writeback);
		if (writeback->stop)
			return NULL;
		if (allowed)
			next = start_ready(writeback);
		else if (writeback->pending_count)
			next = clock_monotonic() + NS_PER_SEC;
		writeback->look_at = next ? next : clock_monotonic() + 60 * NS_PER_SEC;
		if (!writeback->poked)
			(void)lock_wait(&writeback->lock, &writeback->wake, writeback->look_at);
		writeback->poked = false;
	}
}

static void poke(struct writeback *writeback)
{
	writeback->poked = true;
	(void)pthread_cond_signal(&writeback->wake);
}

/* --- running --------------------------------------------------------------------------------------------- */

static int64_t backoff_of(uint32_t attempts)
{
	int64_t most = BACKOFF_FIRST << (attempts < 8 ? attempts : 8), wait;
	uint64_t dice;

	most = most < BACKOFF_MAX ? most : BACKOFF_MAX;
	random_bytes(&dice, sizeof(dice));
	wait = most / 2 + (int64_t)(dice % (uint64_t)(most / 2));
	return wait;
}

static void say_failure(const struct job *job, const struct err *error)
{
	static const char *const what[] = {[CAT_JOB_UPLOAD] = "upload",
					   [CAT_JOB_PLACE] = "relocation",
					   [CAT_JOB_TREE] = "tree",
					   [CAT_JOB_PRUNE] = "pruning",
					   [CAT_JOB_LOCK] = "lock"};

	if (job->failing == error->kind)
		return; /* said once; it stands in status */
	log_warn("writeback", "%s of file %llu%s%s failed (%s): %s; it stays in the journal and is tried again",
		 what[job->record.type], (unsigned long long)job->record.ino, job->record.key ? " at " : "",
		 job->record.key ? job->record.key : "", err_kind_name(error->kind), error->message);
}

static void job_free(struct job *job)
{
	cat_job_clear(&job->record);
	free(job);
}

/* A job went through. If the store had not answered, who backed off for want of it need not wait longer; nor need those
 * who found another's object in their way, which may be gone now. */
static void went_through(struct writeback *writeback)
{
	if (!writeback->outage && !writeback->blocked)
		return;
	for (struct list *at = writeback->pending.next; at != &writeback->pending; at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		if (job->failing == ERR_CONFLICT || (writeback->outage && err_is_transient(job->failing)))
			job->not_before = 0;
	}
	writeback->outage = writeback->blocked = false;
}

/* What it moved since this was last asked, if that is news. */
static void note_progress(struct writeback *writeback, struct job *job)
{
	uint64_t moved = job->progress.moved, fetched = job->progress.fetched;
	uint64_t before = job->moved;

	if (moved > job->best)
		job->best = moved;
	job->moved = job->best + fetched;
	writeback->moved += job->moved - before;
}

static void void_claims(struct job *job)
{
	job->claims_of = UINT64_MAX;
	job->refreshed = 0;
}

static void finish(struct job *job, int result, const struct err *error)
{
	struct writeback *writeback = job->owner;
	bool done = result == 0, allowed = may_write(writeback);
	int64_t next = 0;

	LOCK_GUARD(&writeback->lock);
	note_progress(writeback, job);
	job->running = false;
	list_remove(&job->running_node);
	writeback->running--;
	writeback->urgent += job->urgent && !done;
	if (done) {
		pending_remove(writeback, job);
		writeback->done++;
		writeback->last_error[0] = '\0';
		went_through(writeback);
	} else if (result == -EAGAIN) {
		void_claims(job);
	} else {
		int64_t wait = backoff_of(job->record.attempts);

		if (error->retry_after_ms * NS_PER_MS > wait)
			wait = error->retry_after_ms * NS_PER_MS;
		job->not_before = clock_monotonic() + wait;
		job->again = true;
		writeback->outage |= err_is_transient(error->kind);
		writeback->blocked |= error->kind == ERR_CONFLICT;
		set_failing(writeback, job, error->kind);
		void_claims(job);
		memcpy(job->error, error->message, sizeof(job->error));
		memcpy(writeback->last_error, error->message, sizeof(writeback->last_error));
	}
	if (done)
		job_free(job);
	if (done && allowed && !writeback->stop)
		next = start_ready(writeback);
	if (!done || !allowed || (next && next < writeback->look_at) ||
	    (writeback->more && writeback->running < parallel(writeback)))
		poke(writeback);
	(void)pthread_cond_broadcast(&writeback->progress);
}

static void job_run(struct transfer_task *task)
{
	struct job *job = container_of(task, struct job, task);
	struct writeback *writeback = job->owner;
	struct contents *contents = writeback->contents;
	struct placement_attempt attempt = {.claims = &job->claims,
					    .history = job->again ? PLACEMENT_AGAIN : PLACEMENT_FIRST,
					    .progress = &job->progress};
	struct err error = {0};
	int result = placement_run(writeback->placement, &job->record, &attempt, &error);

	if (result && !error.kind)
		(void)err_from_errno(&error, -result, "local error");
	if (result && result != -EAGAIN) {
		say_failure(job, &error);
		job->record.attempts++;
		free(job->record.note);
		job->record.note = strdup(error.message);
		if (catalog_job_update(writeback->catalog, &job->record))
			log_warn("writeback", "cannot note a failure in the journal");
	}
	finish(job, result, &error); /* writeback_free may have come to its end by now; contents outlive the pool */
	contents_wake(contents);
}

static void job_dropped(struct transfer_task *task)
{
	struct job *job = container_of(task, struct job, task);
	struct err error = {.kind = ERR_CANCELLED, .message = "shutting down"};

	finish(job, -ECANCELED, &error);
}

/* --- waiting ----------------------------------------------------------------------------------------------- */

struct standing {
	uint64_t ino, seq;
	enum cat_state state;
};

static int standing_of(struct cat_txn *txn, void *arg)
{
	struct standing *standing = arg;
	struct cat_version version;
	int err = cat_version_get(txn, standing->ino, standing->seq, &version);

	if (!err)
		standing->state = version.state;
	return err;
}

bool writeback_is_stored(struct writeback *writeback, uint64_t ino, uint64_t seq)
{
	struct standing standing = {.ino = ino, .seq = seq};

	return catalog_view(writeback->catalog, standing_of, &standing) == 0 && standing.state == CAT_STORED;
}

static void make_urgent(struct writeback *writeback, struct job *job)
{
	if (job->urgent)
		return;
	job->urgent = true;
	writeback->urgent += !job->running;
	if (job->running && transfer_withdraw(writeback->transfer, &job->task)) {
		job->task.class = TRANSFER_URGENT;
		transfer_submit(writeback->transfer, &job->task);
	}
}

/* Whatever has to be done before a job of the file: a removal from the key that it goes to, say. What is in the way of
 * that has to be done, too. Where claims are not known yet, the next look finds it. */
static void hasten_before(struct writeback *writeback, uint64_t ino)
{
	claims_forget(writeback);
	for (struct list *at = writeback->pending.prev; at != &writeback->pending; at = at->prev) {
		struct job *job = list_entry(at, struct job, node);
		bool own = job->record.ino == ino;

		if (!claims_known(writeback, job) || writeback->taken_count >= CLAIMS_MAX ||
		    (!own && claims_free(writeback, &job->claims)))
			continue;
		make_urgent(writeback, job);
		for (unsigned i = 0; i < job->claims.count; i++)
			claim_take(writeback, job->claims.hashes[i]);
	}
}

/* The jobs of the file go first. Returns the kind of failure the oldest of them shows. With the lock held. */
static enum err_kind hasten(struct writeback *writeback, uint64_t ino)
{
	struct job *first = first_of(writeback, ino);
	enum err_kind failing = ERR_NONE;
	bool waits = false;

	for (struct job *job = first; job; job = next_of(first, job)) {
		if (!failing)
			failing = job->failing;
		waits |= !job->running;
		make_urgent(writeback, job);
	}
	if (waits)
		hasten_before(writeback, ino);
	return failing;
}

/* Changes with every progress that the file's version waits for. With the lock held. */
static uint64_t progress_of(struct writeback *writeback, uint64_t ino)
{
	struct job *first = first_of(writeback, ino);
	bool in_line = true;                                    /* it waits for others' jobs to end */
	uint64_t sum = first ? hash_u64(first->record.seq) : 0; /* another once this one ends */

	for (struct list *at = writeback->running_jobs.next; at != &writeback->running_jobs; at = at->next)
		note_progress(writeback, list_entry(at, struct job, running_node));
	for (struct job *job = first; job; job = next_of(first, job)) {
		sum += job->moved;
		in_line &= !job->running && !job->failing;
	}
	return in_line ? sum + writeback->moved + writeback->done : sum;
}

/* Somebody's patience, which begins anew with each progress. */
struct patience {
	int64_t timeout_ns, until;
	uint64_t progress;
};

static void patience_begin(struct patience *patience, int64_t timeout_ns)
{
	*patience = (struct patience){.timeout_ns = timeout_ns, .until = clock_monotonic() + timeout_ns};
}

static bool is_over(struct patience *patience, uint64_t progress)
{
	int64_t now = clock_monotonic();

	if (progress != patience->progress)
		patience->until = now + patience->timeout_ns;
	patience->progress = progress;
	return now >= patience->until;
}

int writeback_wait(struct writeback *writeback, uint64_t ino, uint64_t seq, int64_t timeout_ns,
		   const struct waiter *waiter)
{
	struct standing standing = {.ino = ino, .seq = seq};
	struct patience patience;
	int err;

	patience_begin(&patience, timeout_ns);
	for (;;) {
		enum err_kind failing;
		uint64_t sent_ahead;

		err = catalog_view(writeback->catalog, standing_of, &standing);
		if (err || standing.state == CAT_STORED || standing.state == CAT_EXPIRED)
			return err;
		if (standing.state == CAT_FAILED)
			return -EIO;
		if (waiter && waiter->interrupted && waiter->interrupted(waiter->arg))
			return -EINTR;
		sent_ahead = writeback->ahead ? ahead_moved(writeback->ahead, ino) : 0;
		LOCK_GUARD(&writeback->lock);
		failing = hasten(writeback, ino);
		if (err_is_permanent(failing))
			return failing == ERR_QUOTA ? -ENOSPC : failing == ERR_TOO_LARGE ? -EFBIG : -EIO;
		if (is_over(&patience, sent_ahead + progress_of(writeback, ino)))
			return -EIO;
		writeback->waiting++;
		poke(writeback);
		(void)lock_wait(&writeback->lock, &writeback->progress, clock_monotonic() + POLL_NS);
		writeback->waiting--;
	}
}

bool writeback_uploading(struct writeback *writeback, uint64_t *ret_moved)
{
	uint64_t sent_ahead = writeback->ahead ? ahead_moved(writeback->ahead, 0) : 0;

	LOCK_GUARD(&writeback->lock);
	*ret_moved = sent_ahead + progress_of(writeback, 0);
	return writeback->more || writeback->loading || (writeback->pending_count && !writeback->hopeless);
}

int writeback_drain(struct writeback *writeback, int64_t timeout_ns, const atomic_bool *cancelled)
{
	struct patience patience;

	patience_begin(&patience, timeout_ns);
	for (;;) {
		uint64_t sent_ahead = writeback->ahead ? ahead_moved(writeback->ahead, 0) : 0;

		LOCK_GUARD(&writeback->lock);
		if (!writeback->pending_count && !writeback->more && !writeback->loading)
			return 0;
		if (writeback->hopeless && !writeback->more && !writeback->loading)
			return -EIO;
		if (writeback->stop || (cancelled && *cancelled) ||
		    is_over(&patience, sent_ahead + progress_of(writeback, 0)))
			return -ETIMEDOUT;
		poke(writeback);
		(void)lock_wait(&writeback->lock, &writeback->progress, clock_monotonic() + POLL_NS);
	}
}

void writeback_hurry(struct writeback *writeback)
{
	LOCK_GUARD(&writeback->lock);
	for (struct list *at = writeback->pending.next; at != &writeback->pending; at = at->next)
		list_entry(at, struct job, node)->not_before = 0;
	writeback->hopeless = false;
	poke(writeback);
}

void writeback_wake(struct writeback *writeback)
{
	LOCK_GUARD(&writeback->lock);
	writeback->more = true;
	if (writeback->running < parallel(writeback) || writeback->waiting ||
	    clock_monotonic() - writeback->loaded_ns > POLL_NS)
		poke(writeback);
}

void writeback_renamed(struct writeback *writeback, uint64_t ino)
{
	LOCK_GUARD(&writeback->lock);
	if (!ino)
		writeback->tree++;
	for (struct job *first = ino ? first_of(writeback, ino) : NULL, *job = first; job; job = next_of(first, job))
		job->claims_of = UINT64_MAX;
}

void writeback_figures(struct writeback *writeback, struct writeback_figures *ret_figures)
{
	struct cat_figures catalog;

	catalog_figures(writeback->catalog, &catalog);
	LOCK_GUARD(&writeback->lock);
	*ret_figures = (struct writeback_figures){
		.jobs = catalog.jobs > writeback->pending_count ? catalog.jobs : writeback->pending_count,
		.running = writeback->running,
		.done = writeback->done,
		.conflicts = placement_conflicts(writeback->placement),
		.failed = writeback->failed,
		.bytes = writeback->bytes};
	memcpy(ret_figures->last_error, writeback->last_error, sizeof(ret_figures->last_error));
}

uint64_t writeback_facts_put(void *arg)
{
	const struct writeback *writeback = arg;

	return placement_facts_put(writeback->placement);
}

void writeback_error_of(struct writeback *writeback, uint64_t ino, char ret_text[static 256])
{
	ret_text[0] = '\0';
	LOCK_GUARD(&writeback->lock);
	for (struct job *first = first_of(writeback, ino), *job = first; job; job = next_of(first, job)) {
		if (job->failing) {
			memcpy(ret_text, job->error, 256);
			return;
		}
	}
}

/* --- life ------------------------------------------------------------------------------------------------------ */

static void notify(void *arg)
{
	writeback_wake(arg);
}

static int note_last(void *arg, struct cat_job *record)
{
	*(uint64_t *)arg = record->seq;
	return 0;
}

int writeback_new(const struct writeback_options *options, struct writeback **ret_writeback)
{
	struct writeback *writeback = calloc(1, sizeof(*writeback));
	struct placement_options placement = {.catalog = options->catalog,
					      .transfer = options->transfer,
					      .contents = options->contents,
					      .lease = options->lease,
					      .others = options->others};
	struct ahead_options ahead = {.catalog = options->catalog,
				      .transfer = options->transfer,
				      .contents = options->contents,
				      .lease = options->lease};
	int err;

	if (!writeback)
		return -ENOMEM;
	*writeback = (struct writeback){.catalog = options->catalog,
					.transfer = options->transfer,
					.contents = options->contents,
					.lease = options->lease,
					.parallel = options->parallel,
					.more = true};
	lock_init(&writeback->lock, LOCK_QUEUE);
	lock_cond_init(&writeback->wake);
	lock_cond_init(&writeback->progress);
	list_init(&writeback->pending);
	list_init(&writeback->running_jobs);
	err = table_init(&writeback->by_ino, LOADED_MAX / 8);
	if (!err)
		err = catalog_jobs(writeback->catalog, 0, 0, note_last, &writeback->recovered_upto);
	if (!err && !options->read_only)
		err = ahead_new(&ahead, &writeback->ahead);
	placement.ahead = writeback->ahead;
	if (!err)
		err = placement_new(&placement, &writeback->placement);
	catalog_on_jobs(writeback->catalog, notify, writeback); /* before the first job runs, which may make others */
	if (!err && !options->read_only)
		err = -pthread_create(&writeback->scheduler, NULL, schedule, writeback);
	if (err) {
		writeback_free(writeback);
		return err;
	}
	writeback->started = !options->read_only;
	*ret_writeback = writeback;
	return 0;
}

void writeback_free(struct writeback *writeback)
{
	if (!writeback)
		return;
	catalog_on_jobs(writeback->catalog, NULL, NULL);
	{
		LOCK_GUARD(&writeback->lock);
		writeback->stop = true;
		poke(writeback);
	}
	if (writeback->placement)
		placement_cancel(writeback->placement);
	if (writeback->ahead)
		ahead_cancel(writeback->ahead);
	if (writeback->started)
		(void)pthread_join(writeback->scheduler, NULL);
	for (;;) {
		LOCK_GUARD(&writeback->lock);
		list_each_safe(at, after, &writeback->pending)
		{
			struct job *job = list_entry(at, struct job, node);

			if (job->running && !transfer_withdraw(writeback->transfer, &job->task))
				continue;
			pending_remove(writeback, job);
			list_remove(&job->running_node);
			if (job->running)
				writeback->running--;
			job_free(job);
		}
		if (!writeback->running)
			break;
		(void)lock_wait(&writeback->lock, &writeback->progress, clock_monotonic() + POLL_NS);
	}
	ahead_free(writeback->ahead);
	placement_free(writeback->placement);
	table_destroy(&writeback->by_ino);
	(void)pthread_cond_destroy(&writeback->wake);
	(void)pthread_cond_destroy(&writeback->progress);
	lock_destroy(&writeback->lock);
	free(writeback);
}
