/*
 * s3_probe.c - is the bucket there, does it keep versions, and what can this store really do?
 *
 * Stores that speak S3 differ in what they ignore in silence, so each capability is tried: small objects under
 * .varve/probe/<random>/ and a second request that a store with the capability must refuse. The trials are run once per
 * open (never when read-only) and removed for good by version id, unless an earlier open's results are given: they are
 * some forty round trips. Existence and versioning are asked every time.
 *
 * Threads: probes may overlap; each works under a random prefix of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "log.h"
#include "s3.h"

#define PROBE_TEXT "varve probe\n"
#define PROBE_SIZE (sizeof(PROBE_TEXT) - 1)
#define PROBE_SEGMENT 256
#define PROBE_CLEANUPS 4
#define NO_SUCH_ETAG "00000000000000000000000000000000"

struct trial {
	struct backend *backend;
	struct s3 *s3;
	const struct call *call;
	char base[64]; /* ".varve/probe/<random>" */
	uint32_t capabilities;
	uint32_t features;
	unsigned max_component;
	bool known;    /* all of these */
	bool doubtful; /* a request got no answer: what it would have told is taken for missing, and not remembered */
	char *etag;    /* of the object that trials work on */
};

/* --- the bucket ------------------------------------------------------------------------------------------- */

static int bucket_request(struct s3 *s3, const struct call *call, struct s3_request *request, const struct buf *body,
			  struct err *err)
{
	struct http_reply reply = {.body = BUF_INIT};
	if (body) {
		if (buf_failed(body))
			return err_set(err, ERR_NO_MEMORY, "request");
		request->http.body = body->data;
		request->http.body_size = body->len;
	}
	int r = s3_exchange(s3, call, request, &reply, err);
	http_reply_clear(&reply);
	s3_request_clear(request);
	return r;
}

static int create_bucket(struct s3 *s3, const struct call *call, struct err *err)
{
	AUTO_BUF where = BUF_INIT;
	AUTO_BUF versioning = BUF_INIT;
	struct s3_request create = {.method = HTTP_PUT};
	struct s3_request enable = {.method = HTTP_PUT};
	char region[S3_REGION_SIZE];
	{
		LOCK_GUARD(&s3->lock);
		memcpy(region, s3->region, sizeof(region));
	}
	/* The one region that must not be named. */
	bool named = strcmp(region, "us-east-1") != 0;
	if (named)
		s3_xml_create_bucket(&where, region);
	int r = bucket_request(s3, call, &create, named ? &where : NULL, err);
	if (r < 0)
		return err_wrap(err, "creating bucket %s", s3->location.bucket);
	s3_xml_enable_versioning(&versioning);
	http_fields_add(&enable.query, "versioning", "");
	r = bucket_request(s3, call, &enable, &versioning, err);
	return r < 0 ? err_wrap(err, "enabling versioning of bucket %s", s3->location.bucket) : 0;
}

/* A listing of one key needs no right beyond those that every mount needs, and unlike HEAD says what is wrong. */
static int check_bucket(struct s3 *s3, const struct call *call, struct err *err)
{
	struct s3_request request = {.method = HTTP_GET};
	http_fields_add(&request.query, "list-type", "2");
	http_fields_add(&request.query, "max-keys", "1");
	http_fields_add(&request.query, "prefix", s3->location.prefix);
	int r = bucket_request(s3, call, &request, NULL, err);
	if (r == 0 || err->kind != ERR_NOT_FOUND)
		return r;
	if (s3->create && !s3->read_only)
		return create_bucket(s3, call, err);
	return err_set(err, ERR_NOT_FOUND, "bucket %s does not exist%s", s3->location.bucket,
		       s3->endpoint.custom ? " at this endpoint" : "");
}

/* Only Enabled counts: a suspended bucket overwrites. Who may not ask gets no promise. */
static int check_versioning(struct s3 *s3, const struct call *call, uint32_t *ret_capability, struct err *err)
{
	struct s3_request request = {.method = HTTP_GET};
	struct http_reply reply = {.body = BUF_INIT};
	struct s3_xml_leaf status = {.name = "Status"};
	http_fields_add(&request.query, "versioning", "");
	int r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = s3_xml_leaves(reply.body.data, reply.body.len, "VersioningConfiguration", &status, 1, err);
	if (r < 0 && (err->kind == ERR_DENIED || err->kind == ERR_UNSUPPORTED)) {
		log_warn("s3", "cannot tell whether %s keeps versions, assuming not: %s", s3->description,
			 err->message);
		r = 0;
	}
	if (r == 0)
		*ret_capability = status.value && strcmp(status.value, "Enabled") == 0 ? BACKEND_VERSIONS : 0;
	s3_xml_leaves_clear(&status, 1);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

/* --- trials --------------------------------------------------------------------------------------------------- */

static int probe_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	memcpy(ret_bytes, PROBE_TEXT + offset, len);
	return 0;
}

/* What a trial's request came to. */
static int answered(struct trial *trial, int r, const struct err *err)
{
	trial->doubtful |=
		r < 0 && (err->kind == ERR_UNAVAILABLE || err->kind == ERR_TIMED_OUT || err->kind == ERR_THROTTLED ||
			  err->kind == ERR_INDETERMINATE || err->kind == ERR_CANCELLED || err->kind == ERR_NO_MEMORY);
	return r;
}

/* The key of a trial, malloc'd; NULL: no memory. */
static char *trial_key(const struct trial *trial, const char *name)
{
	char *key;
	return asprintf(&key, "%s/%s", trial->base, name) < 0 ? NULL : key;
}

static int trial_put_with(struct trial *trial, const char *name, struct put_condition condition,
			  const struct meta *meta, struct err *err)
{
	AUTO_FREE char *key = trial_key(trial, name);
	struct object_info info;
	if (!key)
		return err_set(err, ERR_NO_MEMORY, "probe");
	const struct put_request put = {
		.key = key, .source = probe_source, .size = PROBE_SIZE, .meta = meta, .condition = condition};
	int r = answered(trial, trial->s3->ops->put(trial->backend, trial->call, &put, &info, err), err);
	if (r == 0 && strcmp(name, "object") == 0) {
		free(trial->etag);
		trial->etag = info.etag;
		info.etag = NULL;
	}
	if (r == 0)
		object_info_clear(&info);
	return r;
}

static int trial_put(struct trial *trial, const char *name, struct put_condition condition, struct err *err)
{
	return trial_put_with(trial, name, condition, NULL, err);
}

/* A request as it stands, for what the operations would not send. Cleared. */
static enum err_kind trial_send(struct trial *trial, const char *name, struct s3_request *request)
{
	AUTO_FREE char *key = trial_key(trial, name);
	struct http_reply reply = {.body = BUF_INIT};
	struct err err = {0};
	request->key = key;
	int r = key ? s3_exchange(trial->s3, trial->call, request, &reply, &err)
		    : err_set(&err, ERR_NO_MEMORY, "probe");
	if (r == 0 && reply.body.len > 0)
		r = s3_reply_check_late(&reply, &err);
	http_reply_clear(&reply);
	s3_request_clear(request);
	return answered(trial, r, &err) < 0 ? err.kind : ERR_NONE;
}

static void try_conditions(struct trial *trial)
{
	struct err err = {0};
	if (trial_put(trial, "object", (struct put_condition){.if_none_match = true}, &err) < 0 &&
	    err.kind == ERR_PRECONDITION)
		trial->capabilities |= BACKEND_IF_NONE_MATCH;
	if (trial_put(trial, "object", (struct put_condition){.if_match = NO_SUCH_ETAG}, &err) == 0 ||
	    err.kind != ERR_PRECONDITION || !trial->etag)
		return;
	/* A store that refuses every If-Match has not understood it either. */
	AUTO_FREE char *etag = strdup(trial->etag);
	if (etag && trial_put(trial, "object", (struct put_condition){.if_match = etag}, &err) == 0)
		trial->capabilities |= BACKEND_IF_MATCH;
}

static void try_checksum(struct trial *trial)
{
	struct s3_request request = {.method = HTTP_PUT, .http = {.body = PROBE_TEXT, .body_size = PROBE_SIZE}};
	char text[S3_CRC32C_SIZE];
	s3_format_crc32c(~crc32c_update(0, PROBE_TEXT, PROBE_SIZE), text);
	http_fields_add(&request.headers, "x-amz-checksum-crc32c", text);
	enum err_kind kind = trial_send(trial, "checksum", &request);
	if (kind != ERR_CORRUPT)
		return;
	trial->capabilities |= BACKEND_CRC32C;
	trial->features |= S3_FEATURE_CRC32C;
}

static enum err_kind send_copy(struct trial *trial, const char *if_none_match)
{
	AUTO_FREE char *source = trial_key(trial, "object");
	struct s3_request request = {.method = HTTP_PUT};
	const struct object_ref ref = {.key = source};
	if (!source || s3_copy_source(trial->s3, &request, &ref, NULL) < 0) {
		s3_request_clear(&request);
		return ERR_NO_MEMORY;
	}
	http_fields_add(&request.headers, "x-amz-metadata-directive", "REPLACE");
	if (if_none_match)
		http_fields_add(&request.headers, "if-none-match", if_none_match);
	return trial_send(trial, "copy", &request);
}

static void try_copy(struct trial *trial)
{
	if (send_copy(trial, NULL) != ERR_NONE)
		return;
	trial->capabilities |= BACKEND_COPY;
	if (send_copy(trial, "*") == ERR_PRECONDITION)
		trial->features |= S3_FEATURE_COPY_CONDITION;
}

static void try_remove_condition(struct trial *trial)
{
	struct s3_request request = {.method = HTTP_DELETE};
	s3_quote_etag(&request.headers, "if-match", NO_SUCH_ETAG);
	if (trial_send(trial, "object", &request) != ERR_PRECONDITION)
		return;
	trial->capabilities |= BACKEND_REMOVE_IF_MATCH;
	trial->features |= S3_FEATURE_REMOVE_IF_MATCH;
}

/* Copied parts go into an upload that declares no checksums: see s3_upload.c. */
static void try_part_copy(struct trial *trial, const char *key)
{
	const struct backend_ops *ops = trial->s3->ops;
	const struct put_request put = {.key = key, .size = PROBE_SIZE};
	AUTO_FREE char *source = trial_key(trial, "object");
	AUTO_FREE char *id = NULL;
	const struct get_request copied = {
		.object = {.key = source}, .length = PROBE_SIZE, .expected_size = PROBE_SIZE};
	const struct upload_slot slot = {.number = 1};
	struct upload_part part;
	struct err err = {0};
	if (!source || answered(trial, ops->upload_begin(trial->backend, trial->call, &put, &id, &err), &err) < 0)
		return;
	if (answered(trial, ops->upload_part_copy(trial->backend, trial->call, key, id, &copied, &slot, &part, &err),
		     &err) == 0) {
		trial->capabilities |= BACKEND_PART_COPY;
		upload_part_clear(&part);
	}
	(void)ops->upload_abort(trial->backend, trial->call, key, id, NULL); /* a store may expire it */
}

/* A whole upload of one part, with what `features` holds now. True when it arrived with what it promised. */
static bool try_upload_once(struct trial *trial, const char *key)
{
	const struct backend_ops *ops = trial->s3->ops;
	uint32_t features = trial->s3->features;
	const struct put_request put = {
		.key = key,
		.source = probe_source,
		.size = PROBE_SIZE,
		.crc32c = crc32c_update(0, PROBE_TEXT, PROBE_SIZE),
		.has_crc32c = features & S3_FEATURE_CRC32C,
	};
	const struct upload_slot slot = {.number = 1};
	AUTO_FREE char *id = NULL;
	struct upload_part part = {0};
	struct object_info info;
	struct err err = {0};

	if (answered(trial, ops->upload_begin(trial->backend, trial->call, &put, &id, &err), &err) < 0)
		return false;
	int r = ops->upload_part(trial->backend, trial->call, key, id, &put, &slot, &part, &err);
	if (r == 0)
		r = ops->upload_complete(trial->backend, trial->call, &put, id, &part, 1, &info, &err);
	upload_part_clear(&part);
	if (answered(trial, r, &err) < 0) {
		(void)ops->upload_abort(trial->backend, trial->call, key, id, NULL); /* as above */
		return false;
	}
	object_info_clear(&info);
	if (!(features & S3_FEATURE_FULL_CRC32C))
		return true;
	const struct object_ref ref = {.key = key};
	if (answered(trial, ops->head(trial->backend, trial->call, &ref, &info, &err), &err) < 0)
		return false;
	bool whole = info.flags & OBJECT_CRC32C;
	object_info_clear(&info);
	return whole;
}

/* Uploads with the whole object's checksum, with checksums of parts, without any: the first that works is used. */
static void try_upload(struct trial *trial)
{
	const uint32_t ladder[] = {S3_FEATURE_CRC32C | S3_FEATURE_FULL_CRC32C, S3_FEATURE_CRC32C, 0};
	AUTO_FREE char *key = trial_key(trial, "upload");
	size_t first = trial->features & S3_FEATURE_CRC32C ? 0 : ARRAY_SIZE(ladder) - 1;
	for (size_t i = first; key && i < ARRAY_SIZE(ladder); i++) {
		trial->s3->features = ladder[i];
		if (!try_upload_once(trial, key))
			continue;
		trial->capabilities |= BACKEND_MULTIPART;
		trial->features = (trial->features & ~(uint32_t)S3_FEATURE_CRC32C) | ladder[i];
		try_part_copy(trial, key);
		return;
	}
}

static void try_names(struct trial *trial)
{
	char segment[PROBE_SEGMENT + 1];
	struct err err = {0};
	memset(segment, 'a', PROBE_SEGMENT);
	segment[PROBE_SEGMENT] = '\0';
	if (trial_put(trial, segment, (struct put_condition){0}, &err) < 0)
		trial->max_component = PROBE_SEGMENT - 1;
	if (trial_put(trial, "object/below", (struct put_condition){0}, &err) < 0)
		trial->capabilities |= BACKEND_TREE_KEYS;
}

/* An object with metadata. Proxies (nginx, unless told otherwise) drop headers with '_' or '.' in their names, and what
 * is left has another signature. */
static int try_meta_names(struct trial *trial, const char *name)
{
	const struct put_condition none = {0};
	struct meta plain = {0}, odd = {0};
	struct err err = {0};
	int r = meta_set(&plain, "varve-probe", "told");

	if (r == 0)
		r = meta_set(&odd, "varve-probe", "told");
	if (r == 0)
		r = meta_set(&odd, "varve-probe_odd.name", "told");
	if (r == 0 && trial_put_with(trial, name, none, &odd, &err) == 0)
		trial->capabilities |= BACKEND_META_NAMES;
	else if (r == 0)
		r = trial_put_with(trial, name, none, &plain, &err);
	meta_clear(&plain);
	meta_clear(&odd);
	return r;
}

/* MinIO's listings tell metadata to who asks; others ignore the question or refuse it. */
static void try_list_meta(struct trial *trial, const char *name)
{
	struct s3 *s3 = trial->s3;
	AUTO_FREE char *key = trial_key(trial, name);
	uint32_t features = s3->features;
	struct list_request list = {.prefix = key, .meta = true};
	struct list_page page;
	const char *told = NULL;
	struct err err = {0};

	if (!key || try_meta_names(trial, name) < 0)
		return;
	s3->features = features | S3_FEATURE_LIST_META;
	if (answered(trial, s3->ops->list(trial->backend, trial->call, &list, &page, &err), &err) == 0) {
		if (page.count == 1 && (page.entries[0].flags & OBJECT_META))
			told = meta_get(&page.entries[0].meta, "varve-probe");
		if (told && strcmp(told, "told") == 0)
			trial->features |= S3_FEATURE_LIST_META;
		list_page_clear(&page);
	}
	s3->features = features;
}

/* Removes what a listing shows. How much that was, or -1: not even the listing worked. */
static int remove_listed(struct trial *trial, enum s3_listing_kind kind)
{
	const struct backend_ops *ops = trial->s3->ops;
	AUTO_FREE char *prefix = trial_key(trial, "");
	AUTO_FREE char *token = NULL;
	struct err err;
	int count = 0;
	do {
		struct list_request list = {.prefix = prefix, .versions = kind == S3_LIST_VERSIONS, .token = token};
		struct list_page page;
		if (!prefix || ops->list(trial->backend, trial->call, &list, &page, &err) < 0)
			return -1;
		count += (int)page.count;
		/* Backwards: stores whose keys are paths refuse to remove what has something below. */
		for (size_t i = page.count; i-- > 0;) {
			const struct object_ref ref = {.key = page.entries[i].key,
						       .native_id = page.entries[i].native_id};
			if (ops->remove(trial->backend, trial->call, &ref, NULL, &err) < 0)
				log_debug("s3", "probe object %s stays: %s", ref.key, err.message);
		}
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (token);
	return count;
}

/* Best effort: what stays is small, marked and harmless. Some stores (MinIO) list "object/below" only once "object" is
 * gone, hence the rounds; a store without any versions may not know their listing. */
static void remove_trials(struct trial *trial)
{
	int count = 1;
	for (unsigned round = 0; round < PROBE_CLEANUPS && count > 0; round++)
		count = remove_listed(trial, S3_LIST_VERSIONS);
	if (count < 0)
		(void)remove_listed(trial, S3_LIST_OBJECTS);
}

static int run_trials(struct trial *trial, struct err *err)
{
	uint8_t random[8];
	char hex[2 * sizeof(random) + 1];
	random_bytes(random, sizeof(random));
	hex_encode(random, sizeof(random), hex);
	(void)snprintf(trial->base, sizeof(trial->base), ".varve/probe/%s", hex); /* fits */

	int r = trial_put(trial, "object", (struct put_condition){0}, err);
	if (r < 0)
		return err_wrap(err, "writing to %s", trial->s3->description);
	try_conditions(trial);
	try_checksum(trial);
	try_copy(trial);
	try_upload(trial);
	try_names(trial);
	try_list_meta(trial, "meta");
	try_remove_condition(trial); /* last: where it is ignored, the object is gone */
	trial->s3->features = trial->features;
	trial->known = !trial->doubtful;
	remove_trials(trial);
	free(trial->etag);
	return 0;
}

/* --- what is known of another time -------------------------------------------------------------------------- */

#define KNOWN_FORM 2 /* of the text and of the trials: another number tells nothing */

/* Malloc'd, or NULL. */
static char *write_known(const struct trial *trial)
{
	AUTO_BUF text = BUF_INIT;

	buf_addf(&text, "%u %x %x %u %s", KNOWN_FORM, trial->capabilities, trial->features, trial->max_component,
		 trial->s3->description);
	return buf_detach(&text);
}

static bool believe(struct trial *trial)
{
	struct s3 *s3 = trial->s3;
	unsigned form, capabilities, features, max_component;
	int end = 0;

	if (!s3->believed ||
	    sscanf(s3->believed, "%u %x %x %u %n", &form, &capabilities, &features, &max_component, &end) != 4 ||
	    form != KNOWN_FORM || !end || strcmp(s3->believed + end, s3->description) != 0)
		return false;
	trial->capabilities = capabilities;
	trial->max_component = max_component;
	s3->features = trial->features = features;
	return trial->known = true;
}

static int find_out(struct trial *trial, struct err *err)
{
	return believe(trial) || trial->s3->read_only ? 0 : run_trials(trial, err);
}

/* --- the probe --------------------------------------------------------------------------------------------------- */

static const struct backend_limits s3_limits = {
	.max_object = UINT64_C(5) << 40,
	.max_put = S3_MAX_PUT,
	.max_copy = UINT64_C(5) << 30,
	.min_part = UINT64_C(5) << 20,
	.max_part = UINT64_C(5) << 30,
	.max_parts = 10000,
	.max_meta = S3_META_MAX,
};

int s3_probe(struct backend *backend, const struct call *call, struct backend_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct trial trial = {.backend = backend, .s3 = s3, .call = call};
	uint32_t versioning = 0, locking = 0;
	bool tried;
	struct err own;
	if (!err)
		err = &own;

	int r = check_bucket(s3, call, err);
	if (r == 0)
		r = check_versioning(s3, call, &versioning, err);
	if (r == 0 && versioning)
		r = s3_probe_lock(s3, call, &locking, err);
	if (r < 0)
		return r;
	{
		LOCK_GUARD(&s3->lock);
		tried = s3->tried;
	}
	if (!tried)
		r = find_out(&trial, err);
	if (r < 0)
		return r;

	LOCK_GUARD(&s3->lock);
	if (!tried) {
		s3->info.capabilities = trial.capabilities;
		s3->info.limits = s3_limits;
		s3->info.limits.max_key = s3->max_key;
		s3->info.limits.max_component = trial.max_component;
		s3->info.description = s3->description;
		s3->tried = trial.known || !s3->read_only;
		if (trial.known && !s3->known)
			s3->info.known = s3->known = write_known(&trial);
	}
	s3->info.capabilities &= ~(uint32_t)(BACKEND_VERSIONS | BACKEND_LOCK);
	s3->info.capabilities |= versioning | locking;
	*ret_info = s3->info;
	return 0;
}
