/*
 * placement.c - uploads, relocations and removals.
 *
 * Invariants
 *  1. A version's copy record is written only after the store said it has the object.
 *  2. What lies at a key is overwritten or removed only when every version it holds has another copy: by the store's
 * own versioning, or, without it, by a copy under `.varve/versions/` made first (preserve) and a conditional write.
 *  3. A key is removed only while our record says it is this inode's and the store agrees by etag or native id.
 *  4. A relocation copies, verifies, records the copy, and only then removes the old key.
 *  5. An upload or a relocation replaces what the catalog knows to lie at the key, and nothing else. Where somebody
 *     else's object is there by now, that one is the file: ours goes to a key of its own, as a version of origin
 * `conflict`, and the next listing gives theirs the name. Where the store knows no conditions, ours is written and
 * theirs found beneath it.
 *  6. Where keys are paths, nobody waits for ever for a place that a file or a directory of another name has: what is
 *     ours leaves every place that has no name of its own any more (leave_all), and to what is others' ours gives way.
 *
 * Every step reads the catalog anew, so a job can stop anywhere and run again.
 * Threads: pool threads; no state but the pointers and `cancelled`.
 */
#include "fs/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/ahead.h"
#include "fs/content.h"
#include "fs/killpoint.h"
#include "fs/lease.h"
#include "fs/objmeta.h"
#include "fs/plan.h"
#include "fs/retention.h"
#include "log.h"
#include "table.h"
#include "transfer.h"

#define PUT_MAX (UINT64_C(16) << 20) /* larger goes up in parts */
#define READ_STEP (256u << 10)
/* A call that moves no bytes is ended by its backend; this bound is for what moves, at the least rate worth waiting
 * for. */
#define JOB_PATIENCE_NS (120 * NS_PER_SEC)
#define JOB_LEAST_RATE_SHIFT 14 /* bytes per second: 16 KiB */
#define TREE_BATCH 256
#define REPROBE_PAUSE_NS (60 * NS_PER_SEC)
#define CONFLICTS_MIN 3 /* refusals, until others may be the reason */
#define KEPT CAT_OWN_KEYS "versions/"

struct placement {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	struct ahead *ahead; /* NULL: read only */
	struct placement_others others;
	atomic_bool cancelled;
	_Atomic uint64_t conflicts;
	_Atomic uint64_t facts; /* put */
	_Atomic int64_t probed; /* monotonic: when versioning was last asked for because of a reply */
	char host[64];
};

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

static bool versioned(const struct placement *placement)
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
static void doubt_versioning(struct placement *placement)
{
	int64_t now = clock_monotonic(), last = atomic_load(&placement->probed);
	struct err error = {0};

	if ((last && now - last < REPROBE_PAUSE_NS) || !atomic_compare_exchange_strong(&placement->probed, &last, now))
		return;
	placement_reprobe(placement, &error);
}

/* Has the store given, or would it keep, what lies there under an id of its own? */
static bool has_own_id(const char *native_id)
{
	return native_id && strcmp(native_id, "null") != 0;
}

/* What pins an object beside its id: where that tells nothing, the etag. */
static char *pin_of(const char *native_id, char *etag)
{
	return has_own_id(native_id) ? NULL : etag;
}

/* Of the job that this thread runs; NULL: none. */
static _Thread_local struct placement_progress *progress_here;

static struct call call_for(const struct placement *placement, uint64_t bytes)
{
	return (struct call){.deadline_ns = clock_monotonic() + JOB_PATIENCE_NS +
					    (int64_t)(bytes >> JOB_LEAST_RATE_SHIFT) * NS_PER_SEC,
			     .cancelled = &placement->cancelled,
			     .moved = progress_here ? &progress_here->moved : NULL};
}

/* A version's content, for sending it. To be put back by put_content. */
static int get_content(struct placement *placement, const struct cat_version *version, struct content **ret_content)
{
	int err = content_get(placement->contents, version->ino, version->seq, ret_content);

	if (!err && progress_here)
		content_count_fetched(*ret_content, &progress_here->fetched);
	return err;
}

static void put_content(struct content *content)
{
	content_count_fetched(content, NULL);
	content_put(content);
}

/* A job that is gone was done by the attempt whose last step failed. */
static int job_done(struct placement *placement, const struct cat_job *job)
{
	int err = catalog_job_done(placement->catalog, job->seq);

	return err == -ENOENT ? 0 : err;
}

/* --- keys -------------------------------------------------------------------------------------------------- */

static bool key_fits(const struct placement *placement, const char *key)
{
	const struct backend_limits *limits = transfer_limits(placement->transfer);
	size_t len = strlen(key);

	if (len > limits->max_key)
		return false;
	for (const char *at = key; limits->max_component && *at;) {
		size_t component = strcspn(at, "/");

		if (component > limits->max_component)
			return false;
		at += component + (at[component] == '/');
	}
	return true;
}

/* A key the store cannot hold is replaced by one of the file's own, so that no rename fails on a descendant. */
static int fit_key(const struct placement *placement, const uint8_t *file_id, struct buf *key)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	if (!buf_failed(key) && key_fits(placement, key->data))
		return 0;
	hex_encode(file_id, CAT_FILE_ID_SIZE, hex);
	buf_reset(key);
	buf_adds(key, CAT_OWN_KEYS "long/");
	buf_adds(key, hex);
	return buf_failed(key) ? -ENOMEM : 0;
}

/* --- what the catalog says, read in one view ------------------------------------------------------------------ */

struct link {
	char *key;
	struct link *next;
};

struct facts {
	const struct placement *placement;
	struct cat_job *job;
	struct cat_inode inode;
	struct cat_version version; /* the job's, or the current one */
	bool has_version;
	struct link *links;   /* keys of the live names, oldest first */
	struct cat_copy copy; /* of the version; key NULL: not stored */
	struct buf target;
};

static void facts_clear(struct facts *facts)
{
	while (facts->links) {
		struct link *link = facts->links;

		facts->links = link->next;
		free(link->key);
		free(link);
	}
	cat_copy_clear(&facts->copy);
	buf_free(&facts->target);
}

struct link_walk {
	struct facts *facts;
	struct cat_txn *txn;
	struct link **tail;
};

static int add_link(void *arg, const struct cat_name *name)
{
	struct link_walk *walk = arg;
	AUTO_BUF key = BUF_INIT;
	struct link *link;
	int err = cat_key_of_name(walk->txn, name->parent, name->name, &key);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (S_ISDIR(walk->facts->inode.mode))
		buf_addc(&key, '/');
	err = fit_key(walk->facts->placement, walk->facts->inode.file_id, &key);
	link = err ? NULL : calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->key = buf_detach(&key);
	*walk->tail = link;
	walk->tail = &link->next;
	return link->key ? 0 : -ENOMEM;
}

static int read_facts(struct cat_txn *txn, void *arg)
{
	struct facts *facts = arg;
	struct link_walk walk = {.facts = facts, .txn = txn, .tail = &facts->links};
	uint64_t seq;
	int err = cat_inode_get(txn, facts->job->ino, &facts->inode);

	if (err)
		return err;
	seq = facts->job->type == CAT_JOB_UPLOAD ? facts->job->version : facts->inode.version;
	if (seq) {
		err = cat_version_get(txn, facts->inode.ino, seq, &facts->version);
		if (err)
			return err;
		facts->has_version = true;
		err = cat_copy_get(txn, facts->inode.ino, seq, &facts->copy);
		if (err && err != -ENOENT)
			return err;
	}
	if (S_ISLNK(facts->inode.mode)) {
		err = cat_symlink_get(txn, facts->inode.ino, &facts->target);
		if (err)
			return err;
	}
	if (!facts->inode.nlink || facts->inode.ino == CAT_ROOT_INO)
		return 0;
	return cat_link_each(txn, facts->inode.ino, add_link, &walk);
}

static int facts_of(struct placement *placement, struct cat_job *job, struct facts *ret_facts)
{
	int err;

	*ret_facts = (struct facts){.placement = placement, .job = job};
	buf_init(&ret_facts->target);
	err = catalog_view(placement->catalog, read_facts, ret_facts);
	if (err)
		facts_clear(ret_facts);
	return err;
}

static bool has_link(const struct facts *facts, const char *key)
{
	for (const struct link *link = facts->links; link; link = link->next)
		if (strcmp(link->key, key) == 0)
			return true;
	return false;
}

struct key_get {
	const char *key;
	struct cat_key record;
};

static int get_key(struct cat_txn *txn, void *arg)
{
	struct key_get *get = arg;

	return cat_key_get(txn, 0, get->key, &get->record);
}

/* --- metadata --------------------------------------------------------------------------------------------------- */

static int meta_of(const struct placement *placement, const struct facts *facts, struct meta *ret_meta)
{
	const struct cat_inode *inode = &facts->inode;
	const struct cat_version *version = &facts->version;
	struct objmeta meta = {
		.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME | OBJMETA_FILE_ID | OBJMETA_EPOCH,
		.mode = inode->mode,
		.uid = inode->uid,
		.gid = inode->gid,
		/* cp, tar and rsync set the time right after the close that made the version. */
		.mtime = facts->has_version && version->seq != inode->version ? version->mtime : inode->mtime,
		.epoch = placement->lease ? lease_epoch(placement->lease) : 0,
	};

	memcpy(meta.file_id, inode->file_id, sizeof(meta.file_id));
	if (facts->has_version) {
		meta.has |= OBJMETA_SEQ | OBJMETA_COMMIT | OBJMETA_ORIGIN | OBJMETA_AUTHOR | OBJMETA_HOST;
		meta.seq = version->seq;
		meta.commit_ns = version->commit_ns;
		meta.origin = version->origin;
		meta.author = version->author;
		memcpy(meta.host, version->host[0] ? version->host : placement->host, sizeof(meta.host));
	} else {
		meta.has |= OBJMETA_SEQ;
		meta.seq = facts->job->seq;
	}
	if (facts->has_version && (version->flags & CAT_HAS_CRC32C)) {
		meta.has |= OBJMETA_CRC32C;
		meta.crc32c = version->crc32c;
	}
	return objmeta_encode(&meta, ret_meta);
}

/* --- preserving what would be lost ---------------------------------------------------------------------------------
 */

/* The copy is there, whole, and ours: its etag says so, else the store is asked. *info is cleared when it is not. */
static int verify_copy(struct placement *placement, const char *etag, uint64_t size, struct object_info *info,
		       struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_ref ref = {.key = info->key, .native_id = info->native_id};
	struct object_info seen = {0};
	int result;

	if (etag && info->etag && strcmp(etag, info->etag) == 0)
		return 0;
	result = transfer_head(placement->transfer, &call, &ref, &seen, err);
	if (!result && seen.size != size)
		result = err_set(err, ERR_CORRUPT, "the copy at %s has %" PRIu64 " bytes instead of %" PRIu64,
				 info->key, seen.size, size);
	if (!result && !seen.native_id) {
		seen.native_id = info->native_id;
		info->native_id = NULL;
	}
	object_info_clear(info);
	if (result) {
		object_info_clear(&seen);
		*info = (struct object_info){0};
	} else {
		*info = seen;
	}
	return result;
}

/* The current object of a key is copied to `to`, pinned, its metadata kept. */
static int copy_aside(struct placement *placement, const struct object_info *info, const char *to,
		      struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, info->size);
	struct copy_request request = {
		.source = {.key = info->key, .native_id = info->native_id, .etag = pin_of(info->native_id, info->etag)},
		.key = to,
		.meta = &info->meta,
		.storage_class = info->storage_class,
	};
	struct transfer_part part = {.size = info->size, .copy_from = request.source};
	struct put_request put = {
		.key = to, .size = info->size, .meta = &info->meta, .storage_class = info->storage_class};
	int result;

	if (info->size <= transfer_limits(placement->transfer)->max_copy)
		result = transfer_copy(placement->transfer, &call, &request, ret_info, err);
	else
		result = transfer_upload(placement->transfer, &call, &put, &part, 1, ret_info, err);
	return result ? result : verify_copy(placement, info->etag, info->size, ret_info, err);
}

static int add_copy(struct cat_txn *txn, void *arg)
{
	return cat_copy_add(txn, arg);
}

static int copy_recorded(struct placement *placement, const struct cat_key *of, const struct object_info *info)
{
	struct cat_copy copy = {
		.ino = of->ino,
		.seq = of->seq,
		.state = CAT_STORED,
		.stored_ns = clock_wall(),
		.key = info->key,
		.native_id = info->native_id,
		.etag = info->etag,
		.storage_class = info->storage_class,
	};

	return catalog_update(placement->catalog, add_copy, &copy);
}

struct sole {
	const char *key;
	const struct cat_key *record;
	struct cat_inode inode;
	bool is_sole;
};

static int is_sole_copy(struct cat_txn *txn, void *arg)
{
	struct sole *sole = arg;
	struct cat_copy copy;
	int err = cat_inode_get(txn, sole->record->ino, &sole->inode);

	if (!err)
		err = cat_copy_get(txn, sole->record->ino, sole->record->seq, &copy);
	if (err)
		return err == -ENOENT ? 0 : err;
	sole->is_sole = strcmp(copy.key, sole->key) == 0;
	cat_copy_clear(&copy);
	return 0;
}

/* Where what we did not make is kept before we write over it. */
static void external_key(const struct object_info *info, struct buf *ret_key)
{
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	sha256_of(info->key, strlen(info->key), digest);
	hex_encode(digest, 16, hex);
	buf_addf(ret_key, CAT_OWN_KEYS "versions/external/%s/", hex);
	sha256_of(info->etag ? info->etag : "", info->etag ? strlen(info->etag) : 0, digest);
	hex_encode(digest, 8, hex);
	buf_adds(ret_key, hex);
}

static void own_key(const struct cat_inode *inode, uint64_t seq, struct buf *ret_key)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	hex_encode(inode->file_id, CAT_FILE_ID_SIZE, hex);
	buf_addf(ret_key, CAT_OWN_KEYS "versions/%s/%016" PRIx64, hex, seq);
}

static bool is_own_key(const char *key)
{
	return strncmp(key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) == 0;
}

/* That nothing is there is an answer, too: an info without a key. */
static int free_is_fine(int result, struct object_info *ret_info, struct err *err)
{
	if (!result || err->kind != ERR_NOT_FOUND)
		return result;
	*ret_info = (struct object_info){0};
	*err = (struct err){0};
	return 0;
}

/* What is at the key now, if anything: 0 with key NULL when it is free. */
static int head_current(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_ref ref = {.key = key};
	int result = transfer_head(placement->transfer, &call, &ref, ret_info, err);

	return free_is_fine(result, ret_info, err);
}

enum others { KEEP_OTHERS, MIND_OTHERS };

/* The object at `key` as the store shows it gets another copy, unless it has one. MIND_OTHERS: ERR_PRECONDITION when it
 * is not the one we know. */
static int preserve_object(struct placement *placement, struct object_info *info, enum others others, struct err *err)
{
	struct key_get get = {.key = info->key};
	struct sole sole = {.key = info->key, .record = &get.record};
	struct object_info kept = {0};
	AUTO_BUF to = BUF_INIT;
	bool known = catalog_view(placement->catalog, get_key, &get) == 0;
	bool ours = known && get.record.etag && info->etag && strcmp(get.record.etag, info->etag) == 0;
	int result = 0;

	if (!ours && others == MIND_OTHERS) {
		result = err_set(err, ERR_PRECONDITION, "%s was written by others", info->key);
		goto out;
	}
	if (ours && get.record.kind != CAT_KEY_DATA)
		goto out; /* markers, links and directories are made anew from the catalog */
	if (ours) {
		result = catalog_view(placement->catalog, is_sole_copy, &sole);
		if (result || !sole.is_sole)
			goto out;
		own_key(&sole.inode, get.record.seq, &to);
	} else {
		external_key(info, &to);
	}
	result = buf_failed(&to) ? -ENOMEM : copy_aside(placement, info, to.data, &kept, err);
	if (!result && ours)
		result = copy_recorded(placement, &get.record, &kept);
	if (!result && !ours)
		log_info("placement", "an object made by others at %s is kept as %s", info->key, to.data);
out:
	object_info_clear(&kept);
	if (known)
		cat_key_clear(&get.record);
	return result;
}

/*
 * Before the object of `key` is overwritten or removed on a store without versions. Says on which condition the key may
 * be written: the etag that was preserved (malloc'd), or that it be free.
 */
static int preserve_from(struct placement *placement, const char *key, enum others others,
			 struct put_condition *ret_condition, char **ret_etag, struct err *err)
{
	struct object_info info = {0};
	int result = head_current(placement, key, &info, err);

	if (!result && info.key)
		result = preserve_object(placement, &info, others, err);
	if (!result && info.key && transfer_can(placement->transfer, BACKEND_IF_MATCH)) {
		*ret_etag = info.etag;
		info.etag = NULL;
		ret_condition->if_match = *ret_etag;
	}
	if (!result && !info.key && transfer_can(placement->transfer, BACKEND_IF_NONE_MATCH))
		ret_condition->if_none_match = true;
	object_info_clear(&info);
	return result;
}

static int preserve(struct placement *placement, const char *key, struct put_condition *ret_condition, char **ret_etag,
		    struct err *err)
{
	return versioned(placement) ? 0 : preserve_from(placement, key, KEEP_OTHERS, ret_condition, ret_etag, err);
}

/* --- what an upload may replace -------------------------------------------------------------------------------------
 */

enum guard {
	GUARD_RECORDED, /* what the catalog knows to lie there, or nothing */
	GUARD_SEEN,     /* what was seen there */
	GUARD_NONE,
};

/* The condition of a put on a store with versions. ret_etag: malloc'd, what it borrows. */
static int condition_of(struct placement *placement, const char *key, struct put_condition *ret_condition,
			char **ret_etag)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, get_key, &get);

	if (result == -ENOENT) {
		ret_condition->if_none_match = transfer_can(placement->transfer, BACKEND_IF_NONE_MATCH);
		return 0;
	}
	if (result)
		return result;
	if (transfer_can(placement->transfer, BACKEND_IF_MATCH) && get.record.etag) {
		*ret_etag = get.record.etag;
		get.record.etag = NULL;
		ret_condition->if_match = *ret_etag;
	}
	if (get.record.kind == CAT_KEY_DATA && !has_own_id(get.record.native_id))
		doubt_versioning(placement); /* only while it is on does this one survive */
	cat_key_clear(&get.record);
	return 0;
}

/* `seen`: of GUARD_SEEN. Makes safe what lies at the key, and says on which condition the key may be written. */
static int guard_key(struct placement *placement, const char *key, enum guard guard, const char *seen,
		     struct put_condition *ret_condition, char **ret_etag, struct err *err)
{
	int result = 0;

	if (is_own_key(key))
		guard = GUARD_NONE;
	if (guard == GUARD_RECORDED && versioned(placement)) {
		result = condition_of(placement, key, ret_condition, ret_etag);
		if (result || versioned(placement))
			return result;
		*ret_condition = (struct put_condition){0}; /* it was switched off */
		free(*ret_etag);
		*ret_etag = NULL;
	}
	if (!versioned(placement))
		return preserve_from(placement, key, guard == GUARD_RECORDED ? MIND_OTHERS : KEEP_OTHERS, ret_condition,
				     ret_etag, err);
	if (guard == GUARD_SEEN && transfer_can(placement->transfer, BACKEND_IF_MATCH))
		ret_condition->if_match = seen;
	return 0;
}

/* --- upload
 * ------------------------------------------------------------------------------------------------------------ */

static int read_content(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	return content_pread_all(arg, ret_bytes, len, offset, NULL);
}

/* A content sent in parts: what a part lacks of the stored version is fetched in one go. */
struct parted {
	struct content *content;
	const struct plan *plan;
};

static int by_offset(const void *key, const void *cell)
{
	uint64_t offset = *(const uint64_t *)key;
	const struct transfer_part *part = cell;

	return offset < part->offset ? -1 : offset > part->offset;
}

static int read_parted(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct parted *parted = arg;
	const struct transfer_part *part =
		bsearch(&offset, parted->plan->cells, parted->plan->count, sizeof(*parted->plan->cells), by_offset);
	struct waiter patient = {0};
	int err = 0;

	if (part) { /* its first byte */
		patient.deadline_ns = clock_monotonic() + JOB_PATIENCE_NS;
		err = content_bring(parted->content, part->offset, part->offset + part->size, &patient);
	}
	return err ? err : read_content(parted->content, ret_bytes, len, offset);
}

static int read_nothing(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)ret_bytes;
	return len || offset ? -EIO : 0;
}

static int crc_of(struct content *content, uint64_t size, uint32_t *ret_crc)
{
	AUTO_FREE char *bytes = malloc(READ_STEP);
	uint32_t crc = 0;

	if (!bytes)
		return -ENOMEM;
	for (uint64_t at = 0; at < size;) {
		size_t len = size - at < READ_STEP ? (size_t)(size - at) : READ_STEP;
		int err = read_content(content, bytes, len, at);

		if (err)
			return err;
		crc = crc32c_update(crc, bytes, len);
		at += len;
	}
	*ret_crc = crc;
	return 0;
}

/* Parts are copied from where known->copy says, if anywhere. */
static int send_planned(struct placement *placement, struct content *content, const struct content_plan *known,
			struct put_request *request, struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, request->size);
	struct plan plan = {0};
	struct parted parted = {.content = content, .plan = &plan};
	int result = plan_parts(known, transfer_limits(placement->transfer), &plan);

	request->source = read_parted;
	request->source_arg = &parted;
	if (!result)
		result = transfer_upload(placement->transfer, &call, request, plan.cells, plan.count, ret_info, err);
	plan_clear(&plan);
	return result;
}

static bool is_missing(const struct err *err)
{
	return err->kind == ERR_NOT_FOUND || err->kind == ERR_PRECONDITION;
}

/* Is it no more where it, or parts of it, were to be copied from? Others or a rule of the bucket may have removed it.
 */
static bool copy_is_gone(struct placement *placement, const struct cat_copy *copy)
{
	struct call call = call_for(placement, 0);
	const struct object_ref ref = {
		.key = copy->key, .native_id = copy->native_id, .etag = pin_of(copy->native_id, copy->etag)};
	struct object_info info;
	struct err err = {0};

	if (transfer_head(placement->transfer, &call, &ref, &info, &err) == 0) {
		object_info_clear(&info);
		return false;
	}
	return is_missing(&err);
}

static int send_parts(struct placement *placement, struct content *content, struct put_request *request,
		      struct object_info *ret_info, struct err *err)
{
	struct content_plan known;
	int result = content_plan(content, &known);

	if (result)
		return result;
	if (!transfer_can(placement->transfer, BACKEND_PART_COPY))
		cat_copy_clear(&known.copy);
	result = send_planned(placement, content, &known, request, ret_info, err);
	if (result && known.copy.key && is_missing(err) && copy_is_gone(placement, &known.copy)) {
		log_info("placement", "%s: the version that parts were to be copied from is gone: all of it is sent",
			 request->key);
		cat_copy_clear(&known.copy);
		*err = (struct err){0};
		result = send_planned(placement, content, &known, request, ret_info, err);
	}
	content_plan_clear(&known);
	return result;
}

/* What the object of an upload begun before its version cannot say: an empty object whose metadata does. */
static int put_facts(struct placement *placement, const struct stream *stream, const struct meta *meta, struct err *err)
{
	struct call call = call_for(placement, 0);
	AUTO_BUF key = BUF_INIT;
	struct put_request request = {.source = read_nothing, .meta = meta, .has_crc32c = true};

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
	struct call call = call_for(placement, request->size);
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
		result = put_facts(placement, stream, meta, err);
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

static int send(struct placement *placement, struct content *content, struct put_request *request,
		struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, request->size);
	int result = 0;

	if (request->size > transfer_limits(placement->transfer)->max_object)
		return err_set(err, ERR_TOO_LARGE, "%s: %" PRIu64 " bytes are more than the store takes in one object",
			       request->key, request->size);
	if (request->size > PUT_MAX && transfer_can(placement->transfer, BACKEND_MULTIPART))
		return send_parts(placement, content, request, ret_info, err);
	if (!request->has_crc32c) {
		result = crc_of(content, request->size, &request->crc32c);
		request->has_crc32c = result == 0;
	}
	return result ? result : transfer_put(placement->transfer, &call, request, ret_info, err);
}

/* Where to, and what may be there. */
struct target {
	const char *key;
	enum guard guard;
	const char *seen; /* etag of GUARD_SEEN */
};

static int upload_to(struct placement *placement, const struct facts *facts, const struct target *target,
		     struct object_info *ret_info, struct err *err)
{
	const char *key = target->key;
	struct content *content = NULL;
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct put_request request = {
		.key = key,
		.source = read_content,
		.size = facts->version.size,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode),
		.crc32c = facts->version.crc32c,
		.has_crc32c = facts->version.flags & CAT_HAS_CRC32C,
	};
	int result = get_content(placement, &facts->version, &content);

	if (result == -ENODATA)
		return result;
	if (result)
		return err_from_errno(err, -result, "the cached content of %s", key);
	request.source_arg = content;
	result = meta_of(placement, facts, &meta);
	if (!result)
		result = guard_key(placement, key, target->guard, target->seen, &request.condition, &etag, err);
	killpoint("upload-started");
	if (!result)
		result = send_stream(placement, facts, &request, ret_info, err);
	if (result == -ENOENT && !err->kind)
		result = send(placement, content, &request, ret_info, err);
	if (result && content_is_missing_bytes(content)) {
		*err = (struct err){0};
		result = -EIDRM;
	}
	meta_clear(&meta);
	put_content(content);
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
	int result = catalog_view(placement->catalog, get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	holder.ino = get.record.ino;
	cat_key_clear(&get.record);
	if (holder.ino == facts->inode.ino)
		return 0;
	result = facts_of(placement, &holder, &others);
	if (result)
		return result == -ENOENT ? 0 : result;
	result = has_link(&others, key);
	facts_clear(&others);
	return result;
}

static int upload_key(struct placement *placement, const struct facts *facts, const struct cat_job *job, char **ret_key)
{
	AUTO_FREE char *left = NULL;
	AUTO_BUF key = BUF_INIT;
	int err;

	/* Kept, but never as the file. */
	if (facts->version.origin == CAT_ORIGIN_SUSPECT || facts->version.origin == CAT_ORIGIN_CONFLICT) {
		own_key(&facts->inode, facts->version.seq, &key);
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
		own_key(&facts->inode, facts->version.seq, &key);
	err = fit_key(placement, facts->inode.file_id, &key);
	*ret_key = err ? NULL : buf_detach(&key);
	return *ret_key ? 0 : -ENOMEM;
}

/* --- claims
 * ------------------------------------------------------------------------------------------------------------- */

/* Without a directory's '/'. */
static size_t bare_length(const char *key)
{
	size_t len = strlen(key);

	return len && key[len - 1] == '/' ? len - 1 : len;
}

/* A directory's marker "d/" and its key "d" are one claim: both forms are in use. */
static void claim_key(struct placement_claims *claims, const char *key)
{
	if (claims->count < PLACEMENT_CLAIMS)
		claims->hashes[claims->count++] = hash_bytes(key, bare_length(key)) | 1;
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
		err = upload_key(placement, facts, job, &sent_to);
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
	bool known = facts_of(placement, job, &facts) == 0;

	/* What cannot be found out now is found out again before anything is done: still_claimed. */
	(void)claims_of(placement, job, known ? &facts : NULL, ret_claims);
	if (known)
		facts_clear(&facts);
}

/* Names may have changed between the claims and the reading of these facts; from here on a change makes a job that
 * waits for this one, or claims what this one does not touch. */
static int still_claimed(struct placement *placement, const struct cat_job *job, const struct facts *facts,
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

/* What is at the key now, with what facts it has elsewhere: an upload made ahead, too, must be known for ours. */
static int head_whole(struct placement *placement, const char *key, struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_ref ref = {.key = key};
	int result = ahead_head(placement->transfer, &call, &ref, ret_info, err);

	return free_is_fine(result, ret_info, err);
}

/* Sent by an earlier process, whose mark holds another epoch? */
static bool is_this_version(const struct facts *facts, const struct object_info *info)
{
	static const unsigned both = OBJMETA_FILE_ID | OBJMETA_SEQ;
	const struct cat_version *version = &facts->version;
	struct objmeta meta;

	objmeta_decode(&info->meta, &meta);
	if ((meta.has & both) != both || meta.seq != version->seq || info->size != version->size ||
	    memcmp(meta.file_id, facts->inode.file_id, sizeof(meta.file_id)) != 0)
		return false;
	return !(meta.has & OBJMETA_CRC32C) || !(version->flags & CAT_HAS_CRC32C) || meta.crc32c == version->crc32c;
}

/* Did an attempt that we know nothing more of reach the store? */
static int find_sent(struct placement *placement, const struct facts *facts, const char *key,
		     struct object_info *ret_info, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct meta meta = {0};
	int result = meta_of(placement, facts, &meta);
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
	int result = head_whole(placement, key, &info, err);

	if (result)
		return result;
	if (info.key && is_this_version(facts, &info)) {
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
	struct call call = call_for(placement, 0);
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

/* --- conflicts: what lies at the key is not what we replace
 * ------------------------------------------------------------ */

/* Is it a version that we know, only not as the key's current object? Or sent by us and not recorded, before a kill:
 * then it is a copy of one. */
static int known_closure(struct cat_txn *txn, void *arg)
{
	static const unsigned both = OBJMETA_FILE_ID | OBJMETA_SEQ;
	const struct object_info *info = arg;
	struct cat_version version;
	struct objmeta meta;
	uint64_t ino, seq;
	int err = cat_place_get(txn, 0, info->key, cat_object_id(info->native_id, info->etag), &ino, &seq);

	if (err != -ENOENT)
		return err;
	objmeta_decode(&info->meta, &meta);
	if ((meta.has & both) != both)
		return -ENOENT;
	err = cat_holds_known(txn, meta.file_id, meta.seq, meta.has & OBJMETA_COMMIT ? meta.commit_ns : 0);
	if (err <= 0)
		return err ? err : -ENOENT;
	err = cat_file_find(txn, meta.file_id, &ino);
	if (!err)
		err = cat_version_get(txn, ino, meta.seq, &version);
	if (err == -ENOENT) /* a rebuilt catalog gave it another number */
		return 0;
	return !err && version.size != info->size ? -ENOENT : err;
}

/* Theirs is the file; ours becomes a version beside it. -EAGAIN: the job goes on with another key. */
static int stand_aside(struct placement *placement, const struct facts *facts, const char *key)
{
	int result = catalog_conflict(placement->catalog, facts->inode.ino, facts->version.seq);

	if (result)
		return result;
	atomic_fetch_add(&placement->conflicts, 1);
	log_warn("placement",
		 "conflict: %s was written by others while changes made here were on their way: theirs is the file, "
		 "ours is kept as version %08" PRIx32 " in its history",
		 key, facts->version.identity);
	killpoint("conflict-recorded");
	return -EAGAIN;
}

/* The store refused the condition. What is there decides. */
static int meet_others(struct placement *placement, const struct facts *facts, const struct target *refused,
		       struct object_info *ret_info, struct err *err)
{
	struct target again = {.key = refused->key, .guard = GUARD_NONE};
	struct object_info info = {0};
	int result;

	*err = (struct err){0};
	result = find_sent(placement, facts, refused->key, ret_info, err);
	if (result != -ENOENT)
		return result; /* it was ourselves */
	result = head_whole(placement, refused->key, &info, err);
	if (result)
		return result;
	if (!info.key) { /* removed by others: ours brings it back */
		log_info("placement", "%s was removed by others while it was changed here: it is there again",
			 refused->key);
		result = upload_to(placement, facts, &again, ret_info, err);
	} else if (is_this_version(facts, &info)) {
		*ret_info = info;
		return 0;
	} else if (catalog_view(placement->catalog, known_closure, &info) == 0) {
		again.guard = GUARD_SEEN;
		again.seen = info.etag;
		result = upload_to(placement, facts, &again, ret_info, err);
	} else {
		result = stand_aside(placement, facts, refused->key);
	}
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

	if (versioned(placement) != has_own_id(info->native_id))
		doubt_versioning(placement);
	if (facts->version.origin == CAT_ORIGIN_CONFLICT && others->contested)
		others->contested(others->arg, facts->inode.ino);
	else if (versioned(placement) && !conditional && others->overwrote)
		others->overwrote(others->arg, facts->inode.ino);
}

/* Its name is gone and a directory has the key where keys are paths: history finds it anywhere. */
static int send_aside(struct placement *placement, const struct facts *facts, struct cat_job *job, char **key,
		      struct object_info *ret_info, struct err *err)
{
	AUTO_BUF own = BUF_INIT;
	int result;

	own_key(&facts->inode, facts->version.seq, &own);
	free(*key);
	*key = buf_detach(&own);
	*err = (struct err){0};
	result = *key ? note_sending(placement, job, *key) : -ENOMEM;
	return result ? result : send_to(placement, facts, *key, ret_info, err);
}

/* A file or directory that the catalog knows, by what an object of it tells. */
static int is_of_known(struct cat_txn *txn, void *arg)
{
	const struct object_info *info = arg;
	struct objmeta meta;
	uint64_t ino;

	objmeta_decode(&info->meta, &meta);
	return meta.has & OBJMETA_FILE_ID ? cat_file_find(txn, meta.file_id, &ino) : -ENOENT;
}

/* Is an object there that is not ours, recorded or not yet? 1, 0, -errno. */
static int is_others(struct placement *placement, const char *key, struct err *err)
{
	struct key_get get = {.key = key};
	struct object_info info = {0};
	int result = catalog_view(placement->catalog, get_key, &get);

	if (!result)
		cat_key_clear(&get.record);
	if (result != -ENOENT)
		return result;
	result = head_whole(placement, key, &info, err);
	if (!result && info.key) {
		result = catalog_view(placement->catalog, is_of_known, &info);
		result = result == -ENOENT ? 1 : result;
	}
	object_info_clear(&info);
	return result;
}

static int others_above(struct placement *placement, const char *key, struct err *err)
{
	AUTO_FREE char *above = strdup(key);
	int result = above ? 0 : -ENOMEM;
	char *slash;

	while (!result && (slash = strrchr(above, '/'))) {
		*slash = '\0';
		result = is_others(placement, above, err);
	}
	return result;
}

static int others_beneath(struct placement *placement, const char *key, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct list_page page = {0};
	AUTO_BUF prefix = BUF_INIT;
	struct list_request request = {0};
	int result;

	buf_addf(&prefix, "%.*s/", (int)bare_length(key), key);
	if (buf_failed(&prefix))
		return -ENOMEM;
	request.prefix = prefix.data;
	result = transfer_list(placement->transfer, &call, &request, &page, err);
	for (size_t i = 0; !result && i < page.count; i++) {
		const char *beneath = page.entries[i].key;

		/* A directory without anything gives way, and may be what is just left of ours. */
		if (bare_length(beneath) == strlen(beneath))
			result = is_others(placement, beneath, err);
	}
	list_page_clear(&page);
	return result;
}

/* Is it others whose object is in the way, a file where a directory would have to be or the other way? What is ours
 * will go, and mostly has: only who was refused a few times asks. 1, 0, -errno. */
static int others_in_the_way(struct placement *placement, const struct facts *facts, const char *key)
{
	struct err err = {0};
	int result;

	if (facts->job->attempts < CONFLICTS_MIN)
		return 0;
	result = others_above(placement, key, &err);
	return result ? result : others_beneath(placement, key, &err);
}

static int leave_all(struct placement *placement, const struct facts *facts);

/* What lies in the way may be the file's own, and the job that would clear it waits for this one. */
static int send_over_own(struct placement *placement, const struct facts *facts, const char *key,
			 struct object_info *ret_info, struct err *err)
{
	if (leave_all(placement, facts) != 1)
		return -EEXIST; /* another's: it is tried again */
	*err = (struct err){0};
	return send_to(placement, facts, key, ret_info, err);
}

static int run_upload(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
		      struct err *err)
{
	struct facts facts;
	struct object_info info = {0};
	AUTO_FREE char *key = NULL;
	int result = facts_of(placement, job, &facts);

	if (result)
		return result;
	if (!facts.has_version || facts.version.state == CAT_STORED || facts.version.state == CAT_EXPIRED) {
		result = job_done(placement, job);
		goto out;
	}
	result = still_claimed(placement, job, &facts, attempt->claims);
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
		result = upload_key(placement, &facts, job, &key);
		if (!result)
			result = note_sending(placement, job, key);
		if (!result)
			result = send_to(placement, &facts, key, &info, err);
		if (result && err->kind == ERR_CONFLICT && !facts.links && !is_own_key(key))
			result = send_aside(placement, &facts, job, &key, &info, err);
		else if (result && err->kind == ERR_CONFLICT && facts.links)
			result = send_over_own(placement, &facts, key, &info, err);
		if (result && err->kind == ERR_CONFLICT && others_in_the_way(placement, &facts, key) == 1)
			result = stand_aside(placement, &facts, key);
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
	facts_clear(&facts);
	return result;
}

/* --- place
 * --------------------------------------------------------------------------------------------------------------- */

struct placed {
	struct cat_copy *copy; /* NULL: kinds without versions */
	const char *key;
	struct cat_key record;
};

static int record_placed(struct cat_txn *txn, void *arg)
{
	const struct placed *placed = arg;
	int err = cat_key_overwritten(txn, placed->key, &placed->record);

	if (!err && placed->copy)
		err = cat_copy_add(txn, placed->copy);
	if (!err)
		err = cat_key_put(txn, placed->key, &placed->record);
	return err ? err : cat_key_left(txn, placed->record.ino, placed->key);
}

/* Is the key's record already of this inode, this kind and this version? */
static bool at_key(struct placement *placement, const char *key, enum cat_key_kind kind, uint64_t ino, uint64_t seq)
{
	struct key_get get = {.key = key};
	bool there;

	if (catalog_view(placement->catalog, get_key, &get))
		return false;
	there = get.record.kind == kind && get.record.ino == ino && get.record.seq == seq;
	cat_key_clear(&get.record);
	return there;
}

/* A small object without versions: directory, symlink, special file or link marker. */
struct small {
	const char *key;
	enum cat_key_kind kind;
	const void *body;
	size_t len;
};

static int read_small(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	const struct small *small = arg;

	if (offset + len > small->len)
		return -EIO;
	memcpy(ret_bytes, (const char *)small->body + offset, len);
	return 0;
}

static int link_meta(const struct facts *facts, struct meta *meta)
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	hex_encode(facts->inode.file_id, CAT_FILE_ID_SIZE, hex);
	return meta_set(meta, "varve-link", hex);
}

/* From here on an object of ours may lie at the key without a record: whoever runs the job again looks there. */
static int note_placing(struct placement *placement, struct cat_job *job, const char *key)
{
	char *copy;

	if (job->sent && strcmp(job->sent, key) == 0)
		return 0;
	copy = strdup(key);
	if (!copy)
		return -ENOMEM;
	free(job->sent);
	job->sent = copy;
	return catalog_job_update(placement->catalog, job);
}

static int put_small(struct placement *placement, const struct facts *facts, const struct small *small, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_info info = {0};
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct placed placed = {.key = small->key, .record = {.kind = small->kind, .ino = facts->inode.ino}};
	struct put_request request = {
		.key = small->key,
		.source = read_small,
		.source_arg = (void *)small, /* only read */
		.size = small->len,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode),
		.crc32c = crc32c_update(0, small->body, small->len),
		.has_crc32c = true,
	};
	int result;

	if (at_key(placement, small->key, small->kind, facts->inode.ino, 0))
		return 0;
	result = meta_of(placement, facts, &meta);
	if (!result && small->kind == CAT_KEY_LINK)
		result = link_meta(facts, &meta);
	if (!result)
		result = preserve(placement, small->key, &request.condition, &etag, err);
	if (!result)
		result = note_placing(placement, facts->job, small->key);
	if (!result)
		result = transfer_put(placement->transfer, &call, &request, &info, err);
	killpoint("small-sent");
	if (!result) {
		placed.record.native_id = info.native_id;
		placed.record.etag = info.etag;
		result = catalog_update(placement->catalog, record_placed, &placed);
	}
	object_info_clear(&info);
	meta_clear(&meta);
	return result;
}

/* In parts, or through this machine where the store cannot copy. -EIDRM: the store has it no more, which the catalog
 * knows from here on, nor has the cache what was fetched of it. */
static int copy_through(struct placement *placement, const struct facts *facts, const struct copy_request *request,
			struct object_info *ret_info, struct err *err)
{
	struct content *content = NULL;
	struct put_request put = {.key = request->key,
				  .source = read_content,
				  .size = facts->version.size,
				  .meta = request->meta,
				  .content_type = request->content_type,
				  .condition = request->condition};
	int result = get_content(placement, &facts->version, &content);

	if (result)
		return result;
	put.source_arg = content;
	result = send(placement, content, &put, ret_info, err);
	if (result && content_is_missing_bytes(content)) {
		*err = (struct err){0};
		result = -EIDRM;
	}
	put_content(content);
	return result;
}

static int copy_to(struct placement *placement, const struct facts *facts, const struct target *target,
		   struct object_info *ret_info, struct err *err)
{
	const char *key = target->key;
	struct call call = call_for(placement, facts->version.size);
	struct meta meta = {0};
	AUTO_FREE char *etag = NULL;
	struct copy_request request = {
		.source = {.key = facts->copy.key,
			   .native_id = facts->copy.native_id,
			   .etag = pin_of(facts->copy.native_id, facts->copy.etag)},
		.key = key,
		.meta = &meta,
		.content_type = objmeta_content_type(facts->inode.mode),
		.storage_class = facts->copy.storage_class,
	};
	bool copies = transfer_can(placement->transfer, BACKEND_COPY) &&
		      facts->version.size <= transfer_limits(placement->transfer)->max_copy;
	int result = meta_of(placement, facts, &meta);

	if (!result)
		result = guard_key(placement, key, target->guard, target->seen, &request.condition, &etag, err);
	if (!result)
		result = note_placing(placement, facts->job, key);
	if (!result) {
		result = copies ? transfer_copy(placement->transfer, &call, &request, ret_info, err)
				: copy_through(placement, facts, &request, ret_info, err);
		if (result && copies && is_missing(err) && copy_is_gone(placement, &facts->copy)) {
			log_info("placement", "%s was removed by others before it was copied to %s", facts->copy.key,
				 key);
			*err = (struct err){0};
			result = copy_through(placement, facts, &request, ret_info, err);
		}
	}
	if (!result)
		result = verify_copy(placement, facts->copy.etag, facts->version.size, ret_info, err);
	meta_clear(&meta);
	return result;
}

/* The store refused the condition: what is at the new key is not what we knew. -EAGAIN: somebody else's, who has the
 * name. */
static int copy_where_others_are(struct placement *placement, const struct facts *facts, const struct target *refused,
				 struct object_info *ret_info, struct err *err)
{
	struct target again = {.key = refused->key, .guard = GUARD_NONE};
	struct object_info info = {0};
	int result;

	*err = (struct err){0};
	result = head_whole(placement, refused->key, &info, err);
	if (result)
		return result;
	if (info.key && is_this_version(facts, &info)) { /* put there by an attempt that was not recorded */
		*ret_info = info;
		return 0;
	}
	if (!info.key) {
		result = copy_to(placement, facts, &again, ret_info, err);
	} else if (catalog_view(placement->catalog, known_closure, &info) == 0) {
		again.guard = GUARD_SEEN;
		again.seen = info.etag;
		result = copy_to(placement, facts, &again, ret_info, err);
	} else {
		result = stand_aside(placement, facts, refused->key);
	}
	object_info_clear(&info);
	return result;
}

static int relocate(struct placement *placement, const struct facts *facts, const char *key, struct err *err)
{
	struct object_info made = {0};
	struct cat_copy copy = {.ino = facts->inode.ino,
				.seq = facts->version.seq,
				.state = CAT_STORED,
				.key = (char *)key, /* borrowed: the catalog copies */
				.storage_class = facts->copy.storage_class};
	struct placed placed = {.copy = &copy, .key = key};
	const struct target target = {.key = key, .guard = GUARD_RECORDED};
	int result = copy_to(placement, facts, &target, &made, err);

	if (result && err->kind == ERR_PRECONDITION)
		result = copy_where_others_are(placement, facts, &target, &made, err);
	killpoint("relocation-copied");
	if (!result) {
		copy.stored_ns = clock_wall();
		copy.native_id = made.native_id;
		copy.etag = made.etag;
		placed.record = (struct cat_key){.kind = CAT_KEY_DATA,
						 .ino = copy.ino,
						 .seq = copy.seq,
						 .native_id = copy.native_id,
						 .etag = copy.etag};
		result = catalog_update(placement->catalog, record_placed, &placed);
	}
	killpoint("relocation-recorded");
	object_info_clear(&made);
	return result;
}

/* Does the store still hold at the key what our record says? */
static bool still_ours(const struct cat_key *record, const struct object_info *info)
{
	return cat_same_object(record->native_id, record->etag, info->native_id, info->etag);
}

/* Is the object at the key what we know to lie there, or a version that we know? */
static int not_others(struct cat_txn *txn, void *arg)
{
	struct object_info *info = arg;
	struct cat_key record;
	bool ours;
	int err = cat_key_get(txn, 0, info->key, &record);

	if (err == -ENOENT)
		return known_closure(txn, info);
	if (err)
		return err;
	ours = still_ours(&record, info);
	cat_key_clear(&record);
	return ours ? 0 : known_closure(txn, info);
}

/* Somebody else's object is still where a version that had to stand aside would belong. 1, 0, -errno. */
static int is_contested(struct placement *placement, const struct facts *facts, struct err *err)
{
	struct object_info info = {0};
	int result;

	if (facts->version.origin != CAT_ORIGIN_CONFLICT)
		return 0;
	result = head_whole(placement, facts->links->key, &info, err);
	if (!result && info.key) {
		result = catalog_view(placement->catalog, not_others, &info);
		result = result == -ENOENT ? 1 : result;
	}
	object_info_clear(&info);
	return result;
}

static int relocate_aside(struct placement *placement, const struct facts *facts, struct err *err)
{
	AUTO_BUF aside = BUF_INIT;

	own_key(&facts->inode, facts->version.seq, &aside);
	return buf_failed(&aside) ? -ENOMEM : relocate(placement, facts, aside.data, err);
}

/* The content to the oldest name's key. 1: that is somebody else's. */
static int place_content(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->links->key;
	int result;

	/* Where it was written over at its own key, it comes back from beneath. */
	if (strcmp(facts->copy.key, key) == 0 &&
	    at_key(placement, key, CAT_KEY_DATA, facts->inode.ino, facts->version.seq))
		return 0;
	result = is_contested(placement, facts, err);
	if (result < 0)
		return result;
	if (!result)
		return relocate(placement, facts, key, err);
	result = is_own_key(facts->copy.key) ? 0 : relocate_aside(placement, facts, err);
	return result ? result : 1;
}

/* 1: somebody else's object has the name. */
static int place_file(struct placement *placement, const struct facts *facts, struct err *err)
{
	int result;

	/* What is not stored yet is placed by its own upload. */
	if (!facts->links || !facts->has_version || facts->version.state != CAT_STORED || !facts->copy.key)
		return 0;
	result = place_content(placement, facts, err);
	for (const struct link *link = facts->links->next; link && !result; link = link->next) {
		struct small marker = {.key = link->key, .kind = CAT_KEY_LINK, .body = ""};

		result = put_small(placement, facts, &marker, err);
	}
	return result;
}

static int place_special(struct placement *placement, const struct facts *facts, struct err *err)
{
	bool symlink = S_ISLNK(facts->inode.mode);
	int result = 0;

	for (const struct link *link = facts->links; link && !result; link = link->next) {
		struct small small = {
			.key = link->key,
			.kind = link != facts->links ? CAT_KEY_LINK
				: symlink            ? CAT_KEY_SYMLINK
						     : CAT_KEY_SPECIAL,
			.body = facts->target.data,
			.len = symlink && link == facts->links ? facts->target.len : 0,
		};

		result = put_small(placement, facts, &small, err);
	}
	return result;
}

static int stop_at_first(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)arg;
	(void)name;
	(void)inode;
	return 1;
}

static int clear_unrecorded(struct placement *placement, const struct facts *facts, struct err *err);

/* A directory needs an object only while nothing else in the store tells of it. */
static int place_directory(struct placement *placement, const struct facts *facts, struct err *err)
{
	struct cat_readdir first = {.parent = facts->inode.ino, .max = 1};
	struct small marker = {.kind = CAT_KEY_DIRECTORY, .body = ""};

	if (!facts->links)
		return 0;
	if (!(facts->inode.flags & CAT_OWN_ATTRS) &&
	    catalog_readdir(placement->catalog, &first, stop_at_first, NULL) == 1)
		return clear_unrecorded(placement, facts, err);
	marker.key = facts->links->key;
	return put_small(placement, facts, &marker, err);
}

/* --- removing what no live name owns
 * ---------------------------------------------------------------------------------------- */

struct removed {
	const char *key;
	const struct cat_key *record;
	bool copy_gone;
};

/* What others had removed before we could preserve it is nowhere any more. */
static int drop_copy(struct cat_txn *txn, const struct removed *removed)
{
	const struct cat_key *record = removed->record;
	int err = cat_copy_drop(txn, record->ino, record->seq, removed->key, record->native_id);
	bool expired;

	if (err && err != -ENOENT)
		return err;
	return cat_expire_uncopied(txn, record->ino, record->seq, &expired);
}

static int record_removed(struct cat_txn *txn, void *arg)
{
	const struct removed *removed = arg;
	const struct cat_key *record = removed->record;
	struct key_get now = {.key = removed->key};
	int err = removed->copy_gone && record->kind == CAT_KEY_DATA ? drop_copy(txn, removed) : 0;
	bool same;

	if (!err)
		err = get_key(txn, &now);
	if (err)
		return err == -ENOENT ? 0 : err;
	same = now.record.ino == record->ino &&
	       cat_same_object(now.record.native_id, now.record.etag, record->native_id, record->etag);
	cat_key_clear(&now.record);
	return same ? cat_key_delete(txn, 0, removed->key) : 0; /* else another has the key by now */
}

/* One conditional request where that is enough: the store compares, and what it removes it keeps as a version. */
static int remove_compared(struct placement *placement, const char *key, const struct cat_key *record, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_ref ref = {.key = key, .etag = record->etag};
	int result = transfer_remove(placement->transfer, &call, &ref, NULL, err);

	killpoint("key-removed");
	if (result && err->kind == ERR_PRECONDITION) {
		*err = (struct err){0};
		log_info("placement", "%s was changed by others and is left as it is", key);
		result = 0;
	}
	return result;
}

static int remove_looked_at(struct placement *placement, const char *key, struct removed *removed, struct err *err)
{
	struct call call = call_for(placement, 0);
	struct object_info info = {0};
	struct object_ref ref = {.key = key};
	int result = head_current(placement, key, &info, err);

	if (!result && info.key && !still_ours(removed->record, &info)) {
		log_info("placement", "%s was changed by others and is left as it is", key);
		removed->copy_gone = false;
		goto out;
	}
	if (!result && info.key && !versioned(placement))
		result = preserve_object(placement, &info, KEEP_OTHERS, err);
	if (!result && info.key) {
		if (transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH))
			ref.etag = info.etag;
		result = transfer_remove(placement->transfer, &call, &ref, NULL, err);
		killpoint("key-removed");
	}
out:
	object_info_clear(&info);
	return result;
}

static int remove_recorded(struct placement *placement, const char *key, const struct cat_key *record, struct err *err)
{
	struct removed removed = {.key = key, .record = record, .copy_gone = !versioned(placement)};
	bool compare =
		versioned(placement) && record->etag && transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH);
	int result = compare ? remove_compared(placement, key, record, err)
			     : remove_looked_at(placement, key, &removed, err);

	return result ? result : catalog_update(placement->catalog, record_removed, &removed);
}

/* The only copy of a version, where versions are kept: there is nothing that it could make way for. 1, 0, -errno. */
static int is_kept(struct placement *placement, const char *key, const struct cat_key *record)
{
	struct sole sole = {.key = key, .record = record};
	int result = strncmp(key, KEPT, strlen(KEPT)) == 0 ? catalog_view(placement->catalog, is_sole_copy, &sole) : 0;

	return result ? result : sole.is_sole;
}

static int clear_key(struct placement *placement, const struct facts *facts, const char *key, struct err *err)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	/* Somebody else lives there by now, or we again. */
	if (get.record.ino == facts->inode.ino && !has_link(facts, key))
		result = is_kept(placement, key, &get.record);
	else
		result = 1;
	if (!result)
		result = remove_recorded(placement, key, &get.record, err);
	else if (result == 1)
		result = 0;
	cat_key_clear(&get.record);
	return result;
}

/* The key of an object that was left at what a job names. */
static int left_key(const struct placement *placement, const struct facts *facts, const char *left, struct buf *ret_key)
{
	buf_adds(ret_key, left);
	if (S_ISDIR(facts->inode.mode) && ret_key->len && ret_key->data[ret_key->len - 1] != '/')
		buf_addc(ret_key, '/');
	return fit_key(placement, facts->inode.file_id, ret_key);
}

static int clear_left(struct placement *placement, const struct facts *facts, const char *left, struct err *err)
{
	AUTO_BUF key = BUF_INIT;
	int result = left_key(placement, facts, left, &key);

	return result ? result : clear_key(placement, facts, key.data, err);
}

static bool is_of(const struct object_info *info, const struct cat_inode *inode)
{
	const char *id = meta_get(&info->meta, "varve-id");
	char hex[2 * CAT_FILE_ID_SIZE + 1];

	hex_encode(inode->file_id, CAT_FILE_ID_SIZE, hex);
	return id && strcmp(id, hex) == 0;
}

/* What an earlier attempt may have put, and nobody recorded. */
static int clear_unrecorded(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->job->sent;
	struct key_get get = {.key = key};
	struct object_info info = {0};
	int result;

	if (!key)
		return 0;
	if (catalog_view(placement->catalog, get_key, &get) == 0) {
		cat_key_clear(&get.record);
		return clear_key(placement, facts, key, err); /* it was recorded after all, or somebody lives there */
	}
	result = head_current(placement, key, &info, err);
	if (!result && info.key && is_of(&info, &facts->inode)) {
		struct call call = call_for(placement, 0);
		struct object_ref ref = {.key = key,
					 .etag = transfer_can(placement->transfer, BACKEND_REMOVE_IF_MATCH) ? info.etag
													    : NULL};

		result = transfer_remove(placement->transfer, &call, &ref, NULL, err);
	}
	object_info_clear(&info);
	return result;
}

/* The same where nothing of this inode belongs any more. */
static int clear_sent(struct placement *placement, const struct facts *facts, struct err *err)
{
	const char *key = facts->job->sent;

	if (!key || has_link(facts, key) || (facts->copy.key && strcmp(facts->copy.key, key) == 0))
		return 0;
	return clear_unrecorded(placement, facts, err);
}

struct left_walk {
	const struct facts *facts;
	struct link *list;
};

static int note_key(struct left_walk *walk, const char *left)
{
	AUTO_BUF key = BUF_INIT;
	struct link *link;
	int err = left ? left_key(walk->facts->placement, walk->facts, left, &key) : 0;

	if (err || !left)
		return err;
	link = calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->key = buf_detach(&key);
	link->next = walk->list;
	walk->list = link;
	return link->key ? 0 : -ENOMEM;
}

static int note_keys(void *arg, struct cat_job *job)
{
	int err = note_key(arg, job->key);

	return err ? err : note_key(arg, job->sent);
}

/* Does an object of the inode lie there, where it has no name? 1, 0, -errno. */
static int lies_left(struct placement *placement, const struct facts *facts, const char *key)
{
	struct key_get get = {.key = key};
	int result = catalog_view(placement->catalog, get_key, &get);

	if (result)
		return result == -ENOENT ? 0 : result;
	result = get.record.ino == facts->inode.ino && !has_link(facts, key);
	cat_key_clear(&get.record);
	return result;
}

/*
 * A file and a directory changed places, and where keys are paths neither can take the other's while that is there. So
 * whoever finds his place taken leaves at once every place that is his no more: what younger jobs of the inode would
 * clear, which wait for this one, may be in the way of who is in ours. 1: something was cleared; 0; -errno. The keys
 * are not claimed: what is removed is compared.
 */
static int leave_all(struct placement *placement, const struct facts *facts)
{
	struct left_walk walk = {.facts = facts};
	struct err err = {0};
	int result = catalog_jobs_of(placement->catalog, facts->inode.ino, 0, note_keys, &walk), cleared = 0;

	while (walk.list) {
		struct link *link = walk.list;

		walk.list = link->next;
		if (!result)
			result = lies_left(placement, facts, link->key);
		if (result == 1) {
			result = clear_key(placement, facts, link->key, &err);
			cleared = 1;
		}
		free(link->key);
		free(link);
	}
	return result ? result : cleared;
}

/* What we moved last makes way as well. A file waits under a key of its own, what is made from the catalog alone
 * nowhere. */
static int step_aside(struct placement *placement, const struct facts *facts)
{
	AUTO_FREE char *at = facts->copy.key ? strdup(facts->copy.key) : NULL;
	struct err err = {0};
	int result = 0;

	if (S_ISREG(facts->inode.mode) && at && !has_link(facts, at) && !is_own_key(at)) {
		result = relocate_aside(placement, facts, &err);
		if (!result)
			result = clear_key(placement, facts, at, &err);
	}
	return result ? result : leave_all(placement, facts);
}

/* 0: theirs is there to stay, and nothing more is to be done; else `refused`, and it is tried again. */
static int make_way(struct placement *placement, const struct facts *facts, int refused)
{
	const struct placement_others *others = &placement->others;
	const struct link *link = facts->links;
	bool file = S_ISREG(facts->inode.mode);

	if (step_aside(placement, facts) < 0) {
		log_debug("placement", "file %" PRIu64 " cannot make way", facts->inode.ino);
		return refused;
	}
	while (link && others_in_the_way(placement, facts, link->key) != 1)
		link = link->next;
	if (!link)
		return refused;
	file = file && link == facts->links;
	if (file && catalog_conflict(placement->catalog, facts->inode.ino, facts->version.seq))
		return refused;
	atomic_fetch_add(&placement->conflicts, 1);
	log_warn("placement", "conflict: %s cannot be stored under its name, which others gave to a %s", link->key,
		 S_ISDIR(facts->inode.mode) ? "file" : "directory");
	if (file && others->contested)
		others->contested(others->arg, facts->inode.ino);
	return 0;
}

static int run_place(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
		     struct err *err)
{
	const struct placement_others *others = &placement->others;
	bool contested = false;
	struct facts facts;
	int result = facts_of(placement, job, &facts);

	if (result)
		return result;
	result = still_claimed(placement, job, &facts, claims);
	if (!result)
		result = clear_sent(placement, &facts, err);
	if (result)
		goto out;
	if (S_ISREG(facts.inode.mode)) {
		result = place_file(placement, &facts, err);
		contested = result == 1;
		if (contested || (result == -EIDRM && !err->kind)) /* what it held is nowhere, and that was said */
			result = 0;
	} else if (S_ISDIR(facts.inode.mode)) {
		result = place_directory(placement, &facts, err);
	} else {
		result = place_special(placement, &facts, err);
	}
	if (result && err->kind == ERR_CONFLICT)
		result = make_way(placement, &facts, result);
	if (!result && job->key)
		result = clear_left(placement, &facts, job->key, err);
	if (!result)
		result = job_done(placement, job);
	if (!result && contested && others->contested)
		others->contested(others->arg, facts.inode.ino);
out:
	facts_clear(&facts);
	return result;
}

/* --- tree
 * -----------------------------------------------------------------------------------------------------------------------
 */

/* A key beneath the one that a renamed directory left, and whose object lies there. */
struct left_behind {
	uint64_t ino;
	char *key;
	struct left_behind *next;
};

static int note_left(void *arg, const char *key, const struct cat_key *record)
{
	struct left_behind **list = arg;
	struct left_behind *left = calloc(1, sizeof(*left));

	if (!left)
		return -ENOMEM;
	left->ino = record->ino;
	left->key = strdup(key);
	left->next = *list;
	*list = left;
	return left->key ? 0 : -ENOMEM;
}

struct tree_walk {
	const char *prefix;
	struct left_behind *list;
};

static int list_left(struct cat_txn *txn, void *arg)
{
	struct tree_walk *walk = arg;

	return cat_key_each(txn, 0, walk->prefix, note_left, &walk->list);
}

static struct left_behind *drop_first(struct left_behind *list)
{
	struct left_behind *next = list->next;

	free(list->key);
	free(list);
	return next;
}

/* A batch of PLACE jobs; moves *at past those it made. */
static int put_jobs(struct cat_txn *txn, void *arg)
{
	struct left_behind **at = arg, *left = *at;
	int err = 0;

	for (unsigned i = 0; i < TREE_BATCH && left && !err; i++, left = left->next) {
		struct cat_job job = {.type = CAT_JOB_PLACE, .ino = left->ino, .key = left->key};

		err = cat_job_put(txn, &job);
	}
	if (!err)
		*at = left;
	return err;
}

/*
 * What lies beneath the old key is told by the key records, not by today's
 * names: what was removed or renamed since lies there as well. Running it
 * again makes some PLACE jobs twice, which does no harm.
 */
static int run_tree(struct placement *placement, struct cat_job *job, const struct placement_claims *claims,
		    struct err *err)
{
	AUTO_BUF prefix = BUF_INIT;
	struct tree_walk walk = {0};
	struct left_behind *at;
	int result;

	buf_addf(&prefix, "%s/", job->key ? job->key : "");
	if (buf_failed(&prefix))
		return -ENOMEM;
	walk.prefix = prefix.data;
	result = catalog_view(placement->catalog, list_left, &walk);
	at = walk.list;
	while (at && !result)
		result = catalog_update(placement->catalog, put_jobs, &at);
	while (walk.list)
		walk.list = drop_first(walk.list);
	if (!result) /* the directory itself: its marker moves, and the job ends */
		result = run_place(placement, job, claims, err);
	return result;
}

static int run(struct placement *placement, struct cat_job *job, const struct placement_attempt *attempt,
	       struct err *err)
{
	struct retention retention = {
		.catalog = placement->catalog, .transfer = placement->transfer, .call = call_for(placement, 0)};
	int result = placement->lease ? lease_check(placement->lease, err) : 0;

	if (result)
		return result;
	switch (job->type) {
	case CAT_JOB_UPLOAD:
		result = run_upload(placement, job, attempt, err);
		break;
	case CAT_JOB_PLACE:
		result = run_place(placement, job, attempt->claims, err);
		break;
	case CAT_JOB_TREE:
		result = run_tree(placement, job, attempt->claims, err);
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
		result = job_done(placement, job);
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
