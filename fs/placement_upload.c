/*
 * placement_upload.c - an UPLOAD job: a version to the key of its file's first name, once.
 *
 * Whoever runs it again after a restart looks first whether it is there: the object of an upload made ahead, one with
 * our mark, one of an earlier process (find_completed, find_sent, find_left_over).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/ahead.h"
#include "fs/content.h"
#include "fs/killpoint.h"
#include "fs/objmeta.h"
#include "fs/placement_internal.h"
#include "fs/plan.h"
#include "log.h"

static int read_nothing(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)ret_bytes;
	return len || offset ? -EIO : 0;
}

/* What the object of an upload begun before its version cannot say: an empty object whose metadata does. */
static int put_facts(struct placement *placement, const struct stream *stream, const struct put_request *of,
		     struct err *err)
{
	struct call call = placement_call(placement, 0);
	AUTO_BUF key = BUF_INIT;
	struct put_request request = {
		.source = read_nothing, .meta = of->meta, .content_type = of->content_type, .has_crc32c = true};

	buf_addf(&key, AHEAD_FACTS_PREFIX "%s", ahead_mark(stream));
	if (buf_failed(&key))
		return -ENOMEM;
	request.key = key.data;
	atomic_fetch_add(&placement->facts, 1); /* before it may be there */
	return transfer_put(placement->transfer, &call, &request, NULL, err);
}

/* The parts sent ahead, what is missing of them, and the object is there. */
static int finish_stream(struct placement *placement, struct stream *stream, struct put_request *request,
			 struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, request->size);
	struct content *content = request->source_arg;
	AUTO_FREE struct upload_part *done = NULL;
	const struct meta *meta = request->meta;
	struct content_plan known;
	struct transfer_begun begun;
	struct meta mark = {0};
	struct plan plan = {0};
	int result = content_plan(content, &known);

	if (result)
		return result;
	cat_copy_clear(&known.copy); /* it is a new file: nothing can be copied */
	result = plan_parts(&known, transfer_limits(placement->transfer), &plan);
	content_plan_clear(&known);
	if (!result)
		result = meta_set(&mark, TRANSFER_UPLOAD_META, ahead_mark(stream));
	done = result ? NULL : calloc(plan.count, sizeof(*done));
	if (!result)
		result = done ? ahead_claim(stream) : -ENOMEM;
	killpoint("stream-claimed");
	if (!result)
		result = put_facts(placement, stream, request, err);
	killpoint("stream-told");
	if (!result) {
		request->meta = &mark;
		ahead_begun(stream, plan.cells, plan.count, done, &begun);
		result = transfer_upload_finish(placement->transfer, &call, request, &begun, plan.cells, plan.count,
						ret_info, err);
		request->meta = meta;
		for (size_t i = 0; i < plan.count; i++)
			upload_part_clear(&done[i]);
	}
	killpoint("stream-completed");
	meta_clear(&mark);
	plan_clear(&plan);
	return result;
}

/* 0: the upload made ahead became the object. -ENOENT: there is none that can be used, and nothing was done. */
static int send_stream(struct placement *placement, const struct facts *facts, struct put_request *request,
		       struct object_info *ret_info, struct err *err)
{
	struct stream *stream =
		placement->ahead ? ahead_take(placement->ahead, facts->inode.ino, facts->version.seq) : NULL;
	enum ahead_outcome outcome = AHEAD_ABORT;
	int result = -ENOENT;

	if (!stream)
		return result;
	if (strcmp(ahead_key(stream), request->key) == 0) {
		result = finish_stream(placement, stream, request, ret_info, err);
		outcome = !result ? AHEAD_GONE : err->kind == ERR_INDETERMINATE ? AHEAD_DOUBT : AHEAD_ABORT;
	}
	ahead_end(stream, outcome);
	return result;
}

static int upload_to(struct placement *placement, const struct facts *facts, const struct target *target,
		     struct object_info *ret_info, struct err *err)
{
	const char *key = target->key;
	struct content *content = NULL;
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct put_request request = {
		.key = key,
		.source = placement_read_content,
		.size = facts->version.size,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode, &facts->attributes),
		.crc32c = facts->version.crc32c,
		.has_crc32c = facts->version.flags & CAT_HAS_CRC32C,
	};
	int result = placement_get_content(placement, &facts->version, &content);

	if (result == -ENODATA)
		return result;
	if (result)
		return err_from_errno(err, -result, "the cached content of %s", key);
	request.source_arg = content;
	result = placement_meta_of(placement, facts, &meta);
	if (!result)
		result = placement_guard_key(placement, key, target->guard, target->seen, &request.condition, &etag,
					     err);
	killpoint("upload-started");
	if (!result)
		result = send_stream(placement, facts, &request, ret_info, err);
	if (result == -ENOENT && !err->kind)
		result = placement_send(placement, content, &request, ret_info, err);
	if (result && content_is_missing_bytes(content)) {
		*err = (struct err){0};
		result = -EIDRM;
	}
	meta_clear(&meta);
	placement_put_content(content);
	return result;
}

/* The key an unlinked file's last version goes to: the one its name was at. */
static int find_left(void *arg, struct cat_job *job)
{
	char **key = arg;

	if (job->type != CAT_JOB_PLACE || !job->key)
		return 0;
	*key = job->key;
	job->key = NULL;
	return 1;
}

/* Does the object at the key belong to another file's live name? 1, 0, -errno. */
static int is_taken(struct placement *placement, const struct facts *facts, const char *key)
{
	struct key_get get = {.key = key};
	struct cat_job holder = {.type = CAT_JOB_PLACE};
	struct facts others;
	int result = catalog_view(placement->catalog, placement_get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	holder.ino = get.record.ino;
	cat_key_clear(&get.record);
	if (holder.ino == facts->inode.ino)
		return 0;
	result = placement_facts_of(placement, &holder, &others);
	if (result)
		return result == -ENOENT ? 0 : result;
	result = placement_has_link(&others, key);
	placement_facts_clear(&others);
	return result;
}

int placement_upload_key(struct placement *placement, const struct facts *facts, const struct cat_job *job,
			 char **ret_key)
{
	AUTO_FREE char *left = NULL;
	AUTO_BUF key = BUF_INIT;
	int err;

	/* Kept, but never as the file. */
	if (facts->version.origin == CAT_ORIGIN_SUSPECT || facts->version.origin == CAT_ORIGIN_CONFLICT) {
		placement_own_key(&facts->inode, facts->version.seq, &key);
		*ret_key = buf_detach(&key);
		return *ret_key ? 0 : -ENOMEM;
	}
	if (facts->links) {
		*ret_key = strdup(facts->links->key);
		return *ret_key ? 0 : -ENOMEM;
	}
	err = catalog_jobs_of(placement->catalog, job->ino, job->seq, find_left, &left);
	if (err < 0)
		return err;
	err = left ? is_taken(placement, facts, left) : 0;
	if (err < 0)
		return err;
	if (left && !err)
		buf_adds(&key, left);
	if (!key.len) /* nobody says where it was, or another is there by now: history still finds it by its copy */
		placement_own_key(&facts->inode, facts->version.seq, &key);
	err = placement_fit_key(placement, facts->inode.file_id, &key);
	*ret_key = err ? NULL : buf_detach(&key);
	return *ret_key ? 0 : -ENOMEM;
}

/* Did an attempt that we know nothing more of reach the store? */
static int find_sent(struct placement *placement, const struct facts *facts, const char *key,
		     struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct meta meta = {0};
	int result = placement_meta_of(placement, facts, &meta);
	const char *mark = result ? NULL : meta_get(&meta, TRANSFER_UPLOAD_META);

	if (!result)
		result = mark ? transfer_find_upload(placement->transfer, &call, key, mark, ret_info, err) : -ENOENT;
	if (result && err->kind == ERR_NOT_FOUND) {
		*err = (struct err){0};
		result = -ENOENT;
	}
	meta_clear(&meta);
	return result;
}

/* The same of an attempt of an earlier process, whose mark holds another epoch. */
static int find_left_over(struct placement *placement, const struct facts *facts, const char *key,
			  struct object_info *ret_info, struct err *err)
{
	struct object_info info = {0};
	int result = placement_head_whole(placement, key, &info, err);

	if (result)
		return result;
	if (info.key && placement_is_this_version(facts, &info)) {
		*ret_info = info;
		return 0;
	}
	object_info_clear(&info);
	return -ENOENT;
}

/* Or the completion of an upload made ahead? What it left otherwise is aborted. */
static int find_completed(struct placement *placement, const struct facts *facts, struct object_info *ret_info,
			  struct err *err)
{
	struct call call = placement_call(placement, 0);
	struct stream *stream =
		placement->ahead ? ahead_left(placement->ahead, facts->inode.ino, facts->version.seq) : NULL;
	int result = -ENOENT;

	if (!stream)
		return result;
	result = transfer_find_upload(placement->transfer, &call, ahead_key(stream), ahead_mark(stream), ret_info, err);
	if (result && err->kind == ERR_NOT_FOUND) {
		*err = (struct err){0};
		ahead_end(stream, AHEAD_ABORT);
		return -ENOENT;
	}
	ahead_end(stream, result ? AHEAD_DOUBT : AHEAD_GONE);
	return result;
}

static int record_stored(struct placement *placement, const struct facts *facts, uint64_t job, const char *key,
			 const struct object_info *info)
{
	struct cat_copy copy = {
		.ino = facts->inode.ino,
		.seq = facts->version.seq,
		.state = CAT_STORED,
		.stored_ns = clock_wall(),
		.key = (char *)key, /* borrowed: the catalog copies */
		.native_id = info->native_id,
		.etag = info->etag,
		.storage_class = info->storage_class,
	};

	return content_stored(placement->contents, copy.ino, copy.seq, job, &copy);
}

/* From here on a restart must look whether it was sent, and where. */
static int note_sending(struct placement *placement, struct cat_job *job, const char *key)
{
	char *copy = strdup(key);

	if (!copy)
		return -ENOMEM;
	free(job->key);
	job->key = copy;
	job->stage = 1;
	return catalog_job_update(placement->catalog, job);
}

struct given_up {
	const struct cat_version *version;
	uint64_t job;
};

static int record_given_up(struct cat_txn *txn, void *arg)
{
	const struct given_up *given_up = arg;
	int err = cat_version_put(txn, given_up->version);

	return err ? err : cat_job_delete(txn, given_up->job);
}

/* What the version held is nowhere any more, all of it or a part: it stands in the history as failed, and nothing waits
 * for it. What the cache has of it stays there. */
static int give_up(struct placement *placement, const struct facts *facts, uint64_t job, const char *why)
{
	struct cat_version version = facts->version;
	struct given_up given_up = {.version = &version, .job = job};

	log_error("placement", "version %" PRIu64 " of %s cannot be stored: %s", version.seq,
		  facts->links ? facts->links->key : "a removed file", why);
	version.state = CAT_FAILED;
	return catalog_update(placement->catalog, record_given_up, &given_up);
}

/* The store refused the condition. What is there decides. */
static int meet_others(struct placement *placement, const struct facts *facts, const struct target *refused,
		       struct object_info *ret_info, struct err *err)
{
	struct object_info info = {0};
	struct target again;
	int result;

	*err = (struct err){0};
	result = find_sent(placement, facts, refused->key, ret_info, err);
	if (result != -ENOENT)
		return result; /* it was ourselves */
	result = placement_look_again(placement, facts, refused->key, &info, &again, err);
	if (result < 0)
		return result;
	if (info.key && placement_is_this_version(facts, &info)) {
		*ret_info = info;
		return 0;
	}
	if (!info.key) /* removed by others: ours brings it back */
		log_info("placement", "%s was removed by others while it was changed here: it is there again",
			 refused->key);
	result = result ? placement_stand_aside(placement, facts, refused->key)
			: upload_to(placement, facts, &again, ret_info, err);
	object_info_clear(&info);
	return result;
}

static int send_to(struct placement *placement, const struct facts *facts, const char *key,
		   struct object_info *ret_info, struct err *err)
{
	struct target target = {.key = key, .guard = GUARD_RECORDED};
	int result = upload_to(placement, facts, &target, ret_info, err);

	return result && err->kind == ERR_PRECONDITION ? meet_others(placement, facts, &target, ret_info, err) : result;
}

/* What a stored upload tells of others, and of the store. */
static void look_around(struct placement *placement, const struct facts *facts, const struct object_info *info)
{
	const struct placement_others *others = &placement->others;
	bool conditional = transfer_can(placement->transfer, BACKEND_IF_MATCH) &&
			   transfer_can(placement->transfer, BACKEND_IF_NONE_MATCH);

	if (placement_versioned(placement) != placement_has_own_id(info->native_id))
		placement_doubt_versioning(placement);
	if (facts->version.origin == CAT_ORIGIN_CONFLICT && others->contested)
		others->contested(others->arg, facts->inode.ino);
	else if (placement_versioned(placement) && !conditional && others->overwrote)
		others->overwrote(others->arg, facts->inode.ino);
}

/* Its name is gone and a directory has the key where keys are paths: history finds it anywhere. */
static int send_aside(struct placement *placement, const struct facts *facts, struct cat_job *job, char **key,
		      struct object_info *ret_info, struct err *err)
{
	AUTO_BUF own = BUF_INIT;
	int result;

	placement_own_key(&facts->inode, facts->version.seq, &own);
	free(*key);
	*key = buf_detach(&own);
	*err = (struct err){0};
	result = *key ? note_sending(placement, job, *key) : -ENOMEM;
	return result ? result : send_to(placement, facts, *key, ret_info, err);
}

/* What lies in the way may be the file's own, and the job that would clear it waits for this one. */
static int send_over_own(struct placement *placement, const struct facts *facts, const char *key,
			 struct object_info *ret_info, struct err *err)
{
	if (placement_leave_all(placement, facts) != 1)
		return -EEXIST; /* another's: it is tried again */
	*err = (struct err){0};
	return send_to(placement, facts, key, ret_info, err);
}

int placement_run_upload(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
			 struct err *err)
{
	struct facts facts;
	struct object_info info = {0};
	AUTO_FREE char *key = NULL;
	int result = placement_facts_of(placement, job, &facts);

	if (result)
		return result;
	if (!facts.has_version || facts.version.state == CAT_STORED || facts.version.state == CAT_EXPIRED) {
		result = placement_job_done(placement, job);
		goto out;
	}
	result = placement_still_claimed(placement, job, &facts, attempt->claims);
	if (result)
		goto out;
	result = -ENOENT;
	if (attempt->history == PLACEMENT_AGAIN && job->stage && job->key) {
		key = strdup(job->key);
		result = key ? find_completed(placement, &facts, &info, err) : -ENOMEM;
		if (result == -ENOENT)
			result = find_sent(placement, &facts, key, &info, err);
		if (result == -ENOENT)
			result = find_left_over(placement, &facts, key, &info, err);
	}
	if (result == -ENOENT) {
		free(key);
		key = NULL;
		result = placement_upload_key(placement, &facts, job, &key);
		if (!result)
			result = note_sending(placement, job, key);
		if (!result)
			result = send_to(placement, &facts, key, &info, err);
		if (result && err->kind == ERR_CONFLICT && !facts.links && !placement_is_own_key(key))
			result = send_aside(placement, &facts, job, &key, &info, err);
		else if (result && err->kind == ERR_CONFLICT && facts.links)
			result = send_over_own(placement, &facts, key, &info, err);
		if (result && err->kind == ERR_CONFLICT && placement_others_in_the_way(placement, &facts, key) == 1)
			result = placement_stand_aside(placement, &facts, key);
	}
	if ((result == -ENODATA || result == -EIDRM) && !err->kind) {
		result = give_up(placement, &facts, job->seq,
				 result == -ENODATA ? "it was in the cache alone and is lost"
						    : "the store has removed the version that it changed a part of");
		goto out;
	}
	killpoint("upload-sent");
	if (!result)
		result = record_stored(placement, &facts, job->seq, key, &info);
	if (!result) {
		killpoint("journal-retired");
		look_around(placement, &facts, &info);
	}
out:
	object_info_clear(&info);
	placement_facts_clear(&facts);
	return result;
}
