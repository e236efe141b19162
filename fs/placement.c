/*
 * placement.c - see placement.h: jobs, what they touch, and their calls. What they do, and what all of it keeps true,
 * is said in placement_internal.h and the files it names.
 *
 * Threads: pool threads; no state but the pointers, `cancelled` and counters.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/content.h"
#include "fs/lease.h"
#include "fs/placement_internal.h"
#include "fs/retention.h"
#include "log.h"
#include "table.h"

/* A call that moves no bytes is ended by its backend; this bound is for what moves, at the least rate worth waiting
 * for. */
#define JOB_LEAST_RATE_SHIFT 14 /* bytes per second: 16 KiB */
#define REPROBE_PAUSE_NS (60 * NS_PER_SEC)

int placement_new(const struct placement_options *options, struct placement **ret_placement)
{
	struct placement *placement = calloc(1, sizeof(*placement));

	if (!placement)
		return -ENOMEM;
	placement->catalog = options->catalog;
	placement->transfer = options->transfer;
	placement->contents = options->contents;
	placement->lease = options->lease;
	placement->ahead = options->ahead;
	placement->others = options->others;
	(void)gethostname(placement->host, sizeof(placement->host) - 1); /* without a name the field stays empty */
	*ret_placement = placement;
	return 0;
}

void placement_cancel(struct placement *placement)
{
	atomic_store(&placement->cancelled, true);
}

void placement_free(struct placement *placement)
{
	free(placement);
}

void placement_reprobe(struct placement *placement, struct err *err)
{
	struct call call = {.cancelled = &placement->cancelled};

	if (transfer_probe(placement->transfer, &call, err))
		log_debug("placement", "cannot ask the store what it can: %s", err->message);
}

bool placement_versioned(const struct placement *placement)
{
	return transfer_can(placement->transfer, BACKEND_VERSIONS);
}

uint64_t placement_conflicts(struct placement *placement)
{
	return atomic_load(&placement->conflicts);
}

uint64_t placement_facts_put(struct placement *placement)
{
	return atomic_load(&placement->facts);
}

/* Versioning may have been switched: asked now, unless that was done just now. */
void placement_doubt_versioning(struct placement *placement)
{
	int64_t now = clock_monotonic(), last = atomic_load(&placement->probed);
	struct err error = {0};

	if ((last && now - last < REPROBE_PAUSE_NS) || !atomic_compare_exchange_strong(&placement->probed, &last, now))
		return;
	placement_reprobe(placement, &error);
}

/* Has the store given, or would it keep, what lies there under an id of its own? */
bool placement_has_own_id(const char *native_id)
{
	return native_id && strcmp(native_id, "null") != 0;
}

/* What pins an object beside its id: where that tells nothing, the etag. */
char *placement_pin_of(const char *native_id, char *etag)
{
	return placement_has_own_id(native_id) ? NULL : etag;
}

/* Of the job that this thread runs; NULL: none. */
static _Thread_local struct placement_progress *progress_here;

struct call placement_call(const struct placement *placement, uint64_t bytes)
{
	return (struct call){.deadline_ns = clock_monotonic() + JOB_PATIENCE_NS +
					    (int64_t)(bytes >> JOB_LEAST_RATE_SHIFT) * NS_PER_SEC,
			     .cancelled = &placement->cancelled,
			     .moved = progress_here ? &progress_here->moved : NULL};
}

/* A version's content, for sending it. To be put back by put_content. */
int placement_get_content(struct placement *placement, const struct cat_version *version, struct content **ret_content)
{
	int err = content_get(placement->contents, version->ino, version->seq, ret_content);

	if (!err && progress_here)
		content_count_fetched(*ret_content, &progress_here->fetched);
	return err;
}

void placement_put_content(struct content *content)
{
	content_count_fetched(content, NULL);
	content_put(content);
}

/* A job that is gone was done by the attempt whose last step failed. */
int placement_job_done(struct placement *placement, const struct cat_job *job)
{
	int err = catalog_job_done(placement->catalog, job->seq);

	return err == -ENOENT ? 0 : err;
}

/* --- claims -------------------------------------------------------------------------------- */

/* Without a directory's '/'. */
size_t placement_bare_length(const char *key)
{
	size_t len = strlen(key);

	return len && key[len - 1] == '/' ? len - 1 : len;
}

/* A directory's marker "d/" and its key "d" are one claim: both forms are in use. */
static void claim_key(struct placement_claims *claims, const char *key)
{
	if (claims->count < PLACEMENT_CLAIMS)
		claims->hashes[claims->count++] = hash_bytes(key, placement_bare_length(key)) | 1;
}

/* What a run of the job with these facts will touch. */
static int claims_of(struct placement *placement, const struct cat_job *job, const struct facts *facts,
		     struct placement_claims *claims)
{
	AUTO_FREE char *sent_to = NULL;
	int err;

	*claims = (struct placement_claims){.hashes = {hash_u64(job->ino) | 1}, .count = 1};
	if (job->key)
		claim_key(claims, job->key);
	if (job->sent)
		claim_key(claims, job->sent);
	if (!facts)
		return 0;
	if (job->type == CAT_JOB_UPLOAD) {
		err = placement_upload_key(placement, facts, job, &sent_to);
		if (err)
			return err;
		claim_key(claims, sent_to);
		return 0;
	}
	for (const struct link *link = facts->links; link; link = link->next)
		claim_key(claims, link->key);
	return 0;
}

void placement_claims(struct placement *placement, struct cat_job *job, struct placement_claims *ret_claims)
{
	struct facts facts;
	bool known = placement_facts_of(placement, job, &facts) == 0;

	/* What cannot be found out now is found out again before anything is done: still_claimed. */
	(void)claims_of(placement, job, known ? &facts : NULL, ret_claims);
	if (known)
		placement_facts_clear(&facts);
}

/* Names may have changed between the claims and the reading of these facts; from here on a change makes a job that
 * waits for this one, or claims what this one does not touch. */
int placement_still_claimed(struct placement *placement, const struct cat_job *job, const struct facts *facts,
			    const struct placement_claims *claims)
{
	struct placement_claims needed;
	int err = claims_of(placement, job, facts, &needed);

	for (unsigned i = 0; i < needed.count && !err; i++) {
		bool claimed = false;

		for (unsigned j = 0; j < claims->count; j++)
			claimed |= claims->hashes[j] == needed.hashes[i];
		if (!claimed)
			err = -EAGAIN;
	}
	return err;
}

static int run(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
	       struct err *err)
{
	struct retention retention = {
		.catalog = placement->catalog, .transfer = placement->transfer, .call = placement_call(placement, 0)};
	int result = placement->lease ? lease_check(placement->lease, err) : 0;

	if (result)
		return result;
	switch (job->type) {
	case CAT_JOB_UPLOAD:
		result = placement_run_upload(placement, job, attempt, err);
		break;
	case CAT_JOB_PLACE:
		result = placement_run_place(placement, job, attempt->claims, err);
		break;
	case CAT_JOB_TREE:
		result = placement_run_tree(placement, job, attempt->claims, err);
		break;
	case CAT_JOB_PRUNE:
		result = retention_prune(&retention, job, err);
		break;
	case CAT_JOB_LOCK:
		result = retention_lock(&retention, job, err);
		break;
	}
	if (result == -ENOENT && !err->kind) {
		/* Its inode is not in the catalog: nothing can be right or wrong about it any more. */
		log_warn("placement", "journal entry %" PRIu64 " names file %" PRIu64 ", which does not exist",
			 job->seq, job->ino);
		result = placement_job_done(placement, job);
	}
	return result;
}

int placement_run(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
		  struct err *err)
{
	int result;

	progress_here = attempt->progress;
	result = run(placement, job, attempt, err);
	progress_here = NULL;
	return result;
}
