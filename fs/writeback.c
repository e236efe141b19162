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
 *     they came to touch the same only by a rename, while the younger was running, or the older waits for something
 *     that lies in its way.
 *  2. `pending` holds, in order of seq, every job of the journal up to `loaded`; what is beyond is loaded as room
 * comes. So a job is only ever compared with all that are older.
 *  3. A job leaves only when it is done. A failure is kept in the journal and tried again, ever more slowly up to
 *     BACKOFF_MAX, at once after writeback_hurry.
 *  4. Nothing starts while the lease does not allow it.
 *
 * Threads: jobs run on the transfer pool, and whoever ends one starts what is next; a scheduler loads the journal and
 * starts what nobody's end starts: the first ones, and those whose time has come. It is left asleep while all places
 * are taken, so that a thousand small files do not wake it a thousand times. Lock: LOCK_QUEUE, not held while a job
 * runs.
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

#define WINDOW 1024 /* jobs looked at for one that can start; for an urgent one all */
#define LOADED_MAX 8192
#define PARALLEL 12
#define URGENT_EXTRA 4 /* somebody waits: so many more may run */
#define BACKOFF_FIRST (500 * NS_PER_MS)
#define BACKOFF_MAX (60 * NS_PER_SEC)
#define CLAIM_SLOTS 32768
#define CLAIMS_MAX (CLAIM_SLOTS / 4 * 3) /* a round that has claimed so much goes no further */
#define POLL_NS (200 * NS_PER_MS)
#define REPROBE_NS (3600 * NS_PER_SEC)

struct job {
	struct transfer_task task;
	struct list node;
	struct table_node by_inode;
	struct writeback *owner;
	struct cat_job record;
	struct placement_claims claims;
	uint64_t claims_of; /* tree generation they were computed in */
	uint64_t bytes;
	int64_t not_before; /* monotonic */
	bool running, again, urgent;
	enum err_kind failing; /* of the last attempt */
	char error[256];
};

struct writeback {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	struct placement *placement;
	struct ahead *ahead; /* NULL: read only */
	unsigned parallel;
	pthread_t scheduler;
	bool started;

	struct lock lock;        /* guards all below */
	pthread_cond_t wake;     /* the scheduler's */
	pthread_cond_t progress; /* those who wait for jobs */
	bool stop, poked, more;  /* more: the journal may hold jobs beyond `loaded` */
	struct list pending;
	struct table inodes; /* the same, by inode: a name that goes must not look at all of them */
	size_t pending_count;
	unsigned running;
	uint64_t loaded, done, bytes;
	uint64_t recovered_upto; /* jobs up to here were in the journal at start */
	uint64_t tree;           /* generation */
	unsigned waiting;        /* in writeback_wait */
	unsigned urgent;         /* jobs that are, and do not run */
	char last_error[256];
	bool outage;     /* a job failed for want of the store; the first success tries all others at once */
	bool in_the_way; /* a job failed because something lay where it belongs; likewise */
	bool loading;
	int64_t loaded_ns; /* monotonic: when the journal was last looked at */
	int64_t look_at;   /* monotonic: the scheduler sleeps until then, unless it is poked */
	/* Scratch of one scheduling round: a hash table, and which of its slots are taken. */
	uint64_t claimed[CLAIM_SLOTS];
	uint16_t slots[CLAIM_SLOTS];
	unsigned taken;
};

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
		if (!writeback->more || writeback->pending_count >= LOADED_MAX)
			return;
		writeback->more = false;
		writeback->loading = true;
		writeback->loaded_ns = clock_monotonic();
		after = writeback->loaded;
		room = LOADED_MAX - writeback->pending_count;
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
		list_add_tail(&writeback->pending, &job->node);
		table_insert(&writeback->inodes, &job->by_inode, hash_u64(job->record.ino));
		writeback->pending_count++;
		writeback->bytes += job->bytes;
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
		writeback->slots[writeback->taken++] = (uint16_t)slot;
	writeback->claimed[slot] = hash;
}

static void claims_forget(struct writeback *writeback)
{
	while (writeback->taken)
		writeback->claimed[writeback->slots[--writeback->taken]] = 0;
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
	writeback->running++;
	writeback->urgent -= job->urgent;
	job->task.class = job->urgent ? TRANSFER_URGENT
				      : (job->record.type == CAT_JOB_UPLOAD ? TRANSFER_NORMAL : TRANSFER_BACKGROUND);
	transfer_submit(writeback->transfer, &job->task);
}

/* A rename can make a waiting job touch what a younger one is busy with already. */
static void claim_running(struct writeback *writeback)
{
	unsigned left = writeback->running;

	for (struct list *at = writeback->pending.next; at != &writeback->pending && left; at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		left -= job->running;
		for (unsigned i = 0; job->running && i < job->claims.count; i++)
			claim_take(writeback, job->claims.hashes[i]);
	}
}

/* While something lies in a job's way it keeps its inode, but not its keys: what lies there may have to leave them. */
static bool yields(const struct job *job, int64_t now)
{
	return !job->running && job->failing == ERR_CONFLICT && job->not_before > now;
}

static const struct placement_claims *claims_now(struct writeback *writeback, struct job *job)
{
	if (!job->running && job->claims_of != writeback->tree) {
		placement_claims(writeback->placement, &job->record, &job->claims);
		job->claims_of = writeback->tree;
	}
	return &job->claims;
}

/* One walk over the window. Returns when to look again: a backoff's end, 0 for never. */
static int64_t start_ready(struct writeback *writeback)
{
	int64_t now = clock_monotonic(), next = 0;
	unsigned looked = 0, window = writeback->urgent ? LOADED_MAX : WINDOW;

	claims_forget(writeback);
	claim_running(writeback);
	for (struct list *at = writeback->pending.next;
	     at != &writeback->pending && looked < window && writeback->taken < CLAIMS_MAX; at = at->next) {
		struct job *job = list_entry(at, struct job, node);
		const struct placement_claims *claims = claims_now(writeback, job);
		unsigned limit = writeback->parallel + (job->urgent ? URGENT_EXTRA : 0);

		looked += job->not_before <= now; /* those that back off must not hide the others */
		if (!job->running && claims_free(writeback, claims)) {
			if (job->not_before > now)
				next = !next || job->not_before < next ? job->not_before : next;
			else if (writeback->running < limit)
				start(writeback, job);
		}
		for (unsigned i = 0; i < (yields(job, now) ? 1 : claims->count); i++)
			claim_take(writeback, claims->hashes[i]);
		if (!writeback->urgent && writeback->running >= writeback->parallel)
			break;
	}
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
		LOCK_GUARD(&writeback->lock);
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
	if (!writeback->outage && !writeback->in_the_way)
		return;
	for (struct list *at = writeback->pending.next; at != &writeback->pending; at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		if (job->failing == ERR_CONFLICT || (writeback->outage && err_is_transient(job->failing)))
			job->not_before = 0;
	}
	writeback->outage = writeback->in_the_way = false;
}

static void finish(struct job *job, int result, const struct err *error)
{
	struct writeback *writeback = job->owner;
	bool done = result == 0, allowed = may_write(writeback);
	int64_t next = 0;

	LOCK_GUARD(&writeback->lock);
	job->running = false;
	writeback->running--;
	writeback->urgent += job->urgent && !done;
	if (done) {
		list_remove(&job->node);
		table_remove(&writeback->inodes, &job->by_inode);
		writeback->pending_count--;
		writeback->bytes -= job->bytes;
		writeback->done++;
		writeback->last_error[0] = '\0';
		went_through(writeback);
	} else if (result == -EAGAIN) {
		job->claims_of = UINT64_MAX;
	} else {
		int64_t wait = backoff_of(job->record.attempts);

		if (error->retry_after_ms * NS_PER_MS > wait)
			wait = error->retry_after_ms * NS_PER_MS;
		job->not_before = clock_monotonic() + wait;
		job->again = true;
		writeback->outage |= err_is_transient(error->kind);
		writeback->in_the_way |= error->kind == ERR_CONFLICT;
		job->failing = error->kind;
		job->claims_of = UINT64_MAX;
		memcpy(job->error, error->message, sizeof(job->error));
		memcpy(writeback->last_error, error->message, sizeof(writeback->last_error));
	}
	if (done)
		job_free(job);
	if (done && allowed && !writeback->stop)
		next = start_ready(writeback);
	if (!done || !allowed || (next && next < writeback->look_at) ||
	    (writeback->more && writeback->running < writeback->parallel))
		poke(writeback);
	(void)pthread_cond_broadcast(&writeback->progress);
}

static void job_run(struct transfer_task *task)
{
	struct job *job = container_of(task, struct job, task);
	struct writeback *writeback = job->owner;
	struct contents *contents = writeback->contents;
	struct err error = {0};
	int result = placement_run(writeback->placement, &job->record, &job->claims,
				   job->again ? PLACEMENT_AGAIN : PLACEMENT_FIRST, &error);

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

static bool is_of_inode(const struct table_node *node, const void *key)
{
	return container_of(node, struct job, by_inode)->record.ino == *(const uint64_t *)key;
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

/* The jobs of the file go first, and with them whatever has to be done before: a removal from the key that one of them
 * goes to, say. Returns the kind of failure the oldest of them shows. With the lock held. */
static enum err_kind hasten(struct writeback *writeback, uint64_t ino)
{
	enum err_kind failing = ERR_NONE;

	if (!table_find(&writeback->inodes, hash_u64(ino), is_of_inode, &ino))
		return ERR_NONE; /* not loaded yet */
	claims_forget(writeback);
	for (struct list *at = writeback->pending.prev; at != &writeback->pending; at = at->prev) {
		struct job *job = list_entry(at, struct job, node);
		bool own = job->record.ino == ino;

		if (!own && !writeback->taken)
			continue;
		const struct placement_claims *claims = claims_now(writeback, job);
		if (!own && (claims_free(writeback, claims) || writeback->taken >= CLAIMS_MAX))
			continue;
		if (own && job->failing)
			failing = job->failing;
		make_urgent(writeback, job);
		for (unsigned i = 0; i < claims->count; i++)
			claim_take(writeback, claims->hashes[i]);
	}
	return failing;
}

static uint64_t progress_of(struct writeback *writeback)
{
	struct transfer_figures figures;

	transfer_figures(writeback->transfer, &figures);
	return figures.bytes_sent + figures.bytes_received;
}

int writeback_wait(struct writeback *writeback, uint64_t ino, uint64_t seq, int64_t timeout_ns,
		   const struct waiter *waiter)
{
	struct standing standing = {.ino = ino, .seq = seq};
	int64_t patience = clock_monotonic() + timeout_ns;
	uint64_t moved = progress_of(writeback), now_moved, done = 0;
	int err;

	for (;;) {
		enum err_kind failing;

		err = catalog_view(writeback->catalog, standing_of, &standing);
		if (err || standing.state == CAT_STORED || standing.state == CAT_EXPIRED)
			return err;
		if (standing.state == CAT_FAILED)
			return -EIO;
		if (waiter && waiter->interrupted && waiter->interrupted(waiter->arg))
			return -EINTR;
		now_moved = progress_of(writeback);
		LOCK_GUARD(&writeback->lock);
		if (now_moved != moved || writeback->done != done)
			patience = clock_monotonic() + timeout_ns;
		moved = now_moved;
		done = writeback->done;
		failing = hasten(writeback, ino);
		if (err_is_permanent(failing))
			return failing == ERR_QUOTA ? -ENOSPC : failing == ERR_TOO_LARGE ? -EFBIG : -EIO;
		if (clock_monotonic() >= patience)
			return -EIO;
		writeback->waiting++;
		poke(writeback);
		(void)lock_wait(&writeback->lock, &writeback->progress, clock_monotonic() + POLL_NS);
		writeback->waiting--;
	}
}

int writeback_drain(struct writeback *writeback, int64_t timeout_ns)
{
	int64_t patience = clock_monotonic() + timeout_ns;
	uint64_t done = UINT64_MAX, moved = 0;

	for (;;) {
		uint64_t now_moved = progress_of(writeback);

		LOCK_GUARD(&writeback->lock);
		if (!writeback->pending_count && !writeback->more && !writeback->loading)
			return 0;
		if (writeback->done != done || now_moved != moved)
			patience = clock_monotonic() + timeout_ns;
		done = writeback->done;
		moved = now_moved;
		if (writeback->stop || (timeout_ns && clock_monotonic() >= patience))
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
	poke(writeback);
}

void writeback_wake(struct writeback *writeback)
{
	LOCK_GUARD(&writeback->lock);
	writeback->more = true;
	if (writeback->running < writeback->parallel || writeback->waiting ||
	    clock_monotonic() - writeback->loaded_ns > POLL_NS)
		poke(writeback);
}

static bool forget_claims(const struct table_node *node, const void *key)
{
	struct job *job = container_of(node, struct job, by_inode);

	if (job->record.ino == *(const uint64_t *)key)
		job->claims_of = UINT64_MAX;
	return false; /* there may be more of them */
}

void writeback_renamed(struct writeback *writeback, uint64_t ino)
{
	LOCK_GUARD(&writeback->lock);
	if (ino)
		(void)table_find(&writeback->inodes, hash_u64(ino), forget_claims, &ino);
	else
		writeback->tree++;
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
		.bytes = writeback->bytes};
	for (struct list *at = writeback->pending.next; at != &writeback->pending; at = at->next)
		ret_figures->failed += err_is_permanent(list_entry(at, struct job, node)->failing);
	memcpy(ret_figures->last_error, writeback->last_error, sizeof(ret_figures->last_error));
}

void writeback_error_of(struct writeback *writeback, uint64_t ino, char ret_text[static 256])
{
	ret_text[0] = '\0';
	LOCK_GUARD(&writeback->lock);
	for (struct list *at = writeback->pending.next; at != &writeback->pending; at = at->next) {
		struct job *job = list_entry(at, struct job, node);

		if (job->record.ino == ino && job->failing) {
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
					.parallel = options->parallel ? options->parallel : PARALLEL,
					.more = true};
	lock_init(&writeback->lock, LOCK_QUEUE);
	lock_cond_init(&writeback->wake);
	lock_cond_init(&writeback->progress);
	list_init(&writeback->pending);
	err = table_init(&writeback->inodes, WINDOW);
	if (!err)
		err = catalog_jobs(writeback->catalog, 0, 0, note_last, &writeback->recovered_upto);
	if (!err && !options->read_only)
		err = ahead_new(&ahead, &writeback->ahead);
	placement.ahead = writeback->ahead;
	if (!err)
		err = placement_new(&placement, &writeback->placement);
	if (!err && !options->read_only)
		err = -pthread_create(&writeback->scheduler, NULL, schedule, writeback);
	if (err) {
		writeback_free(writeback);
		return err;
	}
	writeback->started = !options->read_only;
	catalog_on_jobs(writeback->catalog, notify, writeback);
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
			list_remove(at);
			table_remove(&writeback->inodes, &job->by_inode);
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
	table_destroy(&writeback->inodes);
	(void)pthread_cond_destroy(&writeback->wake);
	(void)pthread_cond_destroy(&writeback->progress);
	lock_destroy(&writeback->lock);
	free(writeback);
}
