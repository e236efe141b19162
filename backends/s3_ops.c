/*
 * s3_ops.c - S3 and everything that speaks like it, as a backend.
 *
 * s3://bucket/prefix; AWS by default, or the endpoint of the option, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the
 * profile's endpoint_url. Each operation builds one request, has it exchanged (s3_request.c) and judges the reply.
 *
 * Invariants: whatever leaves or enters carries the URL's prefix, callers never see it; a reply is compared with what
 * was asked before its bytes are passed on; no operation is tried again here.
 * Threads: all calls may run at once; struct s3 names the guard of each field.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "s3.h"

/* --- open, close ------------------------------------------------------------------------------------------- */

static const char *first_env(const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *value = getenv(names[i]);
		if (value && *value)
			return value;
	}
	return NULL;
}

/* Option, environment, profile: the first that says something. Malloc'd or NULL. */
static char *find_setting(const char *option, const char *const *env_names, size_t env_count, const char *profile,
			  const char *profile_name)
{
	if (option && *option)
		return strdup(option);
	const char *env = first_env(env_names, env_count);
	return env ? strdup(env) : s3_profile_setting(profile, profile_name);
}

static int find_place(struct s3 *s3, const struct backend_options *options, struct err *err)
{
	static const char *const endpoint_env[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"};
	static const char *const region_env[] = {"AWS_REGION", "AWS_DEFAULT_REGION"};
	AUTO_FREE char *endpoint = find_setting(options->endpoint, endpoint_env, ARRAY_SIZE(endpoint_env),
						options->profile, "endpoint_url");
	AUTO_FREE char *region =
		find_setting(options->region, region_env, ARRAY_SIZE(region_env), options->profile, "region");

	int r = s3_location_parse(options->url, &s3->location, err);
	if (r == 0)
		r = s3_endpoint_parse(endpoint, s3->location.bucket, &s3->endpoint, err);
	if (r < 0)
		return r;
	const char *name = region ? region : "us-east-1";
	if (strlen(name) >= S3_REGION_SIZE || strpbrk(name, "/.:@ "))
		return err_set(err, ERR_CONFIGURATION, "not a region: \"%.64s\"", name);
	memcpy(s3->region, name, strlen(name) + 1);
	if (strlen(s3->location.prefix) >= 1000)
		return err_set(err, ERR_CONFIGURATION, "prefix leaves no room for keys");
	s3->max_key = 1024 - (unsigned)strlen(s3->location.prefix);
	return 0;
}

static int describe_store(struct s3 *s3, struct err *err)
{
	AUTO_BUF text = BUF_INIT;
	buf_addf(&text, "s3://%s/%s", s3->location.bucket, s3->location.prefix);
	if (s3->endpoint.custom)
		buf_addf(&text, " at http%s://%s%s", s3->endpoint.https ? "s" : "", s3->endpoint.host,
			 s3->endpoint.path);
	s3->description = buf_detach(&text);
	return s3->description ? 0 : err_set(err, ERR_NO_MEMORY, "S3");
}

static void s3_close(struct backend *backend)
{
	struct s3 *s3 = s3_of(backend);
	http_free(s3->http);
	s3_identity_free(s3->identity);
	s3_sign_cache_clear(&s3->sign_cache);
	s3_location_clear(&s3->location);
	s3_endpoint_clear(&s3->endpoint);
	lock_destroy(&s3->lock);
	free(s3->description);
	free(s3->believed);
	free(s3->known);
	free(s3);
}

static int find_identity(struct s3 *s3, const struct backend_options *options, struct err *err)
{
	struct s3_provider *provider;
	int r = s3_provider_new(options->profile, &provider, err);
	if (r < 0)
		return r;
	r = s3_identity_new(provider, &s3->identity, err);
	if (r < 0)
		provider->free(provider);
	return r;
}

static int s3_open(const struct backend_options *options, struct backend **ret_backend, struct err *err)
{
	struct s3 *s3 = calloc(1, sizeof(*s3));
	if (!s3)
		return err_set(err, ERR_NO_MEMORY, "S3");
	s3->ops = &s3_backend_ops;
	s3->create = options->create;
	s3->read_only = options->read_only;
	lock_init(&s3->lock, LOCK_BACKEND);
	s3_sign_cache_init(&s3->sign_cache);

	const struct http_options http = {
		.connect_timeout_ns = options->connect_timeout_ns,
		.stall_timeout_ns = options->stall_timeout_ns,
		.counters = &s3->counters,
	};
	int r = find_place(s3, options, err);
	if (r == 0)
		r = describe_store(s3, err);
	if (r == 0 && options->known && !(s3->believed = strdup(options->known)))
		r = err_set(err, ERR_NO_MEMORY, "S3");
	if (r == 0)
		r = find_identity(s3, options, err);
	if (r == 0)
		r = http_new(&http, &s3->http, err);
	if (r < 0) {
		s3_close((struct backend *)s3);
		return r;
	}
	*ret_backend = (struct backend *)s3;
	return 0;
}

static const struct backend_counters *s3_counters(struct backend *backend)
{
	return &s3_of(backend)->counters;
}

/* --- head, get ------------------------------------------------------------------------------------------------ */

static void name_object(struct s3_request *request, const struct object_ref *object)
{
	request->key = object->key;
	if (object->native_id)
		http_fields_add(&request->query, "versionId", object->native_id);
	if (object->etag)
		s3_quote_etag(&request->headers, "if-match", object->etag);
	http_fields_add(&request->headers, "x-amz-checksum-mode", "ENABLED");
}

/* Stores that ignore versionId or If-Match hand out another object with a 200. */
static int check_identity(const struct object_ref *object, const struct object_info *info, struct err *err)
{
	if (object->native_id && info->native_id && strcmp(object->native_id, info->native_id) != 0)
		return err_set(err, ERR_CORRUPT, "asked for version %.64s, got %.64s", object->native_id,
			       info->native_id);
	if (object->etag && info->etag && strcmp(object->etag, info->etag) != 0)
		return err_set(err, ERR_PRECONDITION, "etag is %.64s, not %.64s", info->etag, object->etag);
	return 0;
}

/* A 400 that says nothing better, to a request that names a version: an id that this store never gave out. */
static int judge_version(const struct object_ref *object, int r, struct err *err)
{
	if (r < 0 && err->http_status == 400 && err->kind == ERR_UNSUPPORTED && object->native_id)
		return err_set(err, ERR_NOT_FOUND, "no version %.64s", object->native_id);
	return r;
}

static int s3_head(struct backend *backend, const struct call *call, const struct object_ref *object,
		   struct object_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_HEAD};
	struct http_reply reply = {.body = BUF_INIT};
	struct object_info info = {0};
	struct err own;
	if (!err)
		err = &own;

	int r = s3_check_key(s3, object->key, err);
	if (r < 0)
		return r;
	name_object(&request, object);
	r = judge_version(object, s3_exchange(s3, call, &request, &reply, err), err);
	if (r == 0)
		r = s3_reply_info(&reply, &info, err);
	if (r == 0)
		r = check_identity(object, &info, err);
	if (r == 0)
		r = s3_finish_info(&info, object->key, err);
	if (r == 0) {
		*ret_info = info;
		info = (struct object_info){0};
	}
	object_info_clear(&info);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

struct get_state {
	const struct get_request *request;
	bool ranged; /* a Range header was sent */
	struct object_info info;
	uint64_t expected; /* bytes to deliver; known once the headers are accepted */
	uint64_t delivered;
	uint32_t crc32c;
};

static int get_expected(struct get_state *state, const struct http_reply *reply, struct err *err)
{
	const struct get_request *request = state->request;
	struct s3_range range;
	if (!state->ranged) {
		if (reply->status != 200)
			return err_set(err, ERR_CORRUPT, "HTTP %d to a request for the whole object", reply->status);
		state->expected = state->info.size;
		return 0;
	}
	const char *text = http_reply_header(reply, "content-range");
	if (reply->status != 206 || !text || s3_parse_range(text, &range) < 0)
		return err_set(err, ERR_CORRUPT, "HTTP %d without the range asked for", reply->status);
	uint64_t last = request->length == UINT64_MAX ? range.total - 1 : request->offset + request->length - 1;
	if (range.first != request->offset || range.last != last)
		return err_set(err, ERR_CORRUPT, "asked for bytes %llu-%llu, got %.64s",
			       (unsigned long long)request->offset, (unsigned long long)last, text);
	state->expected = range.last - range.first + 1;
	return 0;
}

static int get_accept(void *arg, const struct http_reply *reply, struct err *err)
{
	struct get_state *state = arg;
	const struct get_request *request = state->request;
	uint64_t announced;
	object_info_clear(&state->info);
	int r = s3_reply_info(reply, &state->info, err);
	if (r == 0)
		r = check_identity(&request->object, &state->info, err);
	if (r < 0)
		return r;
	if (http_reply_length(reply, &announced) < 0)
		return err_set(err, ERR_CORRUPT, "object without a length");
	if (request->expected_size != UINT64_MAX && request->expected_size != state->info.size)
		return err_set(err, ERR_CORRUPT, "object has %llu bytes, not %llu",
			       (unsigned long long)state->info.size, (unsigned long long)request->expected_size);
	r = get_expected(state, reply, err);
	if (r == 0 && announced != state->expected)
		r = err_set(err, ERR_CORRUPT, "%llu bytes announced for a range of %llu", (unsigned long long)announced,
			    (unsigned long long)state->expected);
	return r;
}

static int get_sink(void *arg, const void *bytes, size_t len)
{
	struct get_state *state = arg;
	if (len > state->expected - state->delivered)
		return -EOVERFLOW;
	if (!state->ranged)
		state->crc32c = crc32c_update(state->crc32c, bytes, len);
	state->delivered += len;
	return state->request->sink(state->request->sink_arg, bytes, len);
}

/* A range of nothing cannot be asked for over HTTP; that the object is there and long enough still can. */
static int get_nothing(struct backend *backend, const struct call *call, const struct get_request *request,
		       struct object_info *ret_info, struct err *err)
{
	struct object_info info;
	int r = s3_head(backend, call, &request->object, &info, err);
	if (r < 0)
		return r;
	if (request->offset > info.size ||
	    (request->expected_size != UINT64_MAX && request->expected_size != info.size))
		r = err_set(err, ERR_CORRUPT, "object has %llu bytes", (unsigned long long)info.size);
	if (r == 0 && ret_info)
		*ret_info = info;
	else
		object_info_clear(&info);
	return r;
}

static int get_check(const struct get_state *state, struct err *err)
{
	if (state->delivered != state->expected)
		return err_set(err, ERR_CORRUPT, "%llu bytes came, %llu were due", (unsigned long long)state->delivered,
			       (unsigned long long)state->expected);
	if (!state->ranged && (state->info.flags & OBJECT_CRC32C) && state->info.crc32c != state->crc32c)
		return err_set(err, ERR_CORRUPT, "content does not have its checksum");
	return 0;
}

/* To the end of an object that ends exactly at the offset: stores call that an invalid range. */
static bool get_is_at_end(const struct get_request *request, const struct err *err)
{
	return err->http_status == 416 && request->length == UINT64_MAX;
}

static int s3_get(struct backend *backend, const struct call *call, const struct get_request *request,
		  struct object_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct get_state state = {.request = request};
	struct http_reply reply = {.body = BUF_INIT};
	struct err own;
	if (!err)
		err = &own;
	int r = s3_check_key(s3, request->object.key, err);
	if (r < 0)
		return r;
	if (request->length != UINT64_MAX && request->length > INT64_MAX - request->offset)
		return err_set(err, ERR_INTERNAL, "range beyond all objects");
	if (request->length == 0)
		return get_nothing(backend, call, request, ret_info, err);

	struct s3_request http = {
		.method = HTTP_GET,
		.http = {.accept = get_accept, .accept_arg = &state, .sink = get_sink, .sink_arg = &state}};
	name_object(&http, &request->object);
	http.http.expected = request->length == UINT64_MAX ? 0 : request->length;
	bool whole =
		request->offset == 0 && (request->length == UINT64_MAX || request->length == request->expected_size);
	state.ranged = !whole;
	if (state.ranged && request->length == UINT64_MAX)
		http_fields_addf(&http.headers, "range", "bytes=%llu-", (unsigned long long)request->offset);
	else if (state.ranged)
		http_fields_addf(&http.headers, "range", "bytes=%llu-%llu", (unsigned long long)request->offset,
				 (unsigned long long)(request->offset + request->length - 1));
	r = judge_version(&request->object, s3_exchange(s3, call, &http, &reply, err), err);
	if (r < 0 && get_is_at_end(request, err)) {
		r = get_nothing(backend, call, request, ret_info, err);
		goto out;
	}
	if (r == 0)
		r = get_check(&state, err);
	if (r == 0)
		r = s3_finish_info(&state.info, request->object.key, err);
	if (r == 0 && ret_info) {
		*ret_info = state.info;
		state.info = (struct object_info){0};
	}
out:
	object_info_clear(&state.info);
	http_reply_clear(&reply);
	s3_request_clear(&http);
	return r;
}

/* --- put, copy --------------------------------------------------------------------------------------------------- */

/* If-Match on a key that holds nothing is answered "no such key": the condition failed all the same. */
static int judge_condition(const struct put_condition *condition, int r, struct err *err)
{
	if (r < 0 && condition->if_match && err->kind == ERR_NOT_FOUND)
		return err_set(err, ERR_PRECONDITION, "no object has etag %.64s", condition->if_match);
	return r;
}

static int s3_put(struct backend *backend, const struct call *call, const struct put_request *request,
		  struct object_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request http = {.method = HTTP_PUT, .key = request->key};
	struct http_reply reply = {.body = BUF_INIT};
	struct object_info info = {0};
	struct s3_body body;
	struct err own;
	if (!err)
		err = &own;
	int r = s3_check_key(s3, request->key, err);
	if (r < 0)
		return r;
	if (request->size > S3_MAX_PUT)
		return err_set(err, ERR_TOO_LARGE, "%llu bytes in one put", (unsigned long long)request->size);
	r = s3_body_open(s3, &body, request, err);
	if (r < 0)
		return r;

	s3_body_attach(&body, &http);
	s3_body_declare(&body, &http);
	s3_condition(&http, &request->condition);
	r = s3_describe(&http, request, err);
	if (r == 0)
		r = judge_condition(&request->condition, s3_exchange(s3, call, &http, &reply, err), err);
	if (r == 0)
		r = s3_body_check(&body, &reply, err);
	if (r == 0)
		r = s3_reply_info(&reply, &info, err);
	if (r == 0)
		r = s3_finish_info(&info, request->key, err);
	if (r == 0) {
		const char *when = http_reply_header(&reply, "date");
		if (when)
			(void)clock_parse_http(when, &info.modified_ns); /* near enough; 0: unknown */
		info.size = request->size;
		if (ret_info) {
			*ret_info = info;
			info = (struct object_info){0};
		}
	}
	object_info_clear(&info);
	http_reply_clear(&reply);
	s3_request_clear(&http);
	s3_body_close(&body);
	return r;
}

/* For stores whose CopyObject knows no conditions on its destination: asked first, so not atomic. */
static int check_destination(struct backend *backend, const struct call *call, const struct copy_request *request,
			     struct err *err)
{
	const struct put_condition *condition = &request->condition;
	const struct object_ref ref = {.key = request->key};
	struct object_info info;
	if (!condition->if_none_match && !condition->if_match)
		return 0;
	if (s3_of(backend)->features & S3_FEATURE_COPY_CONDITION)
		return 0;
	int r = s3_head(backend, call, &ref, &info, err);
	if (r < 0 && err->kind != ERR_NOT_FOUND)
		return r;
	bool exists = r == 0;
	bool matches = exists && condition->if_match && info.etag && strcmp(info.etag, condition->if_match) == 0;
	if (exists)
		object_info_clear(&info);
	if (condition->if_none_match ? exists : !matches)
		return err_set(err, ERR_PRECONDITION, "the destination of the copy is not as expected");
	return 0;
}

static int copied_info(const struct copy_request *request, const struct http_reply *reply, struct object_info *ret_info,
		       struct err *err)
{
	const char *version = http_reply_header(reply, "x-amz-version-id");
	struct s3_xml_leaf leaves[] = {{.name = "ETag"}};
	int r = s3_xml_leaves(reply->body.data, reply->body.len, "CopyObjectResult", leaves, ARRAY_SIZE(leaves), err);
	if (r < 0) {
		err->kind = ERR_INDETERMINATE;
		return err_wrap(err, "copied, perhaps");
	}
	struct object_info info = {
		.flags = OBJECT_LATEST, .key = strdup(request->key), .native_id = version ? strdup(version) : NULL};
	if (request->storage_class)
		info.storage_class = strdup(request->storage_class);
	if (leaves[0].value && *leaves[0].value) {
		info.etag = leaves[0].value;
		leaves[0].value = NULL;
		s3_strip_quotes(info.etag);
	}
	s3_xml_leaves_clear(leaves, ARRAY_SIZE(leaves));
	if (info.key && (!version || info.native_id) && (!request->storage_class || info.storage_class)) {
		*ret_info = info;
		return 0;
	}
	object_info_clear(&info);
	return err_set(err, ERR_NO_MEMORY, "copy");
}

static int s3_copy(struct backend *backend, const struct call *call, const struct copy_request *request,
		   struct object_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request http = {
		.method = HTTP_PUT, .key = request->key, .http = {.stall_timeout_ns = S3_SLOW_STALL_NS}};
	const struct put_request put = {
		.meta = request->meta, .content_type = request->content_type, .storage_class = request->storage_class};
	struct http_reply reply = {.body = BUF_INIT};
	struct err own;
	if (!err)
		err = &own;
	int r = s3_check_key(s3, request->key, err);
	if (r == 0)
		r = check_destination(backend, call, request, err);
	if (r < 0)
		return r;

	http_fields_add(&http.headers, "x-amz-metadata-directive", "REPLACE");
	if (s3->features & S3_FEATURE_COPY_CONDITION)
		s3_condition(&http, &request->condition);
	r = s3_copy_source(s3, &http, &request->source, err);
	if (r == 0)
		r = s3_describe(&http, &put, err);
	if (r == 0)
		r = judge_condition(&request->condition, s3_exchange(s3, call, &http, &reply, err), err);
	if (r == 0)
		r = s3_reply_check_late(&reply, err);
	if (r == 0 && ret_info)
		r = copied_info(request, &reply, ret_info, err);
	http_reply_clear(&reply);
	s3_request_clear(&http);
	return r;
}

/* --- remove ----------------------------------------------------------------------------------------------------------
 */

/* Where DELETE ignores If-Match it is asked first, so not atomic: BACKEND_REMOVE_IF_MATCH is missing there. */
static int check_removable(struct backend *backend, const struct call *call, const struct object_ref *object,
			   struct err *err)
{
	struct object_info info;
	if (!object->etag || (s3_of(backend)->features & S3_FEATURE_REMOVE_IF_MATCH))
		return 0;
	int r = s3_head(backend, call, object, &info, err);
	if (r == 0)
		object_info_clear(&info);
	return r;
}

static int marker_of(const struct object_ref *object, const struct http_reply *reply, char **ret_marker_id,
		     struct err *err)
{
	const char *is_marker = http_reply_header(reply, "x-amz-delete-marker");
	const char *id = http_reply_header(reply, "x-amz-version-id");
	char *marker = NULL;
	if (!object->native_id && is_marker && strcmp(is_marker, "true") == 0 && id) {
		marker = strdup(id);
		if (!marker)
			return err_set(err, ERR_NO_MEMORY, "delete marker");
	}
	*ret_marker_id = marker;
	return 0;
}

/* 400 is said of ids that cannot be, and by MinIO of versions that are locked: a HEAD tells which. */
static int judge_removal(struct backend *backend, const struct call *call, const struct object_ref *object, int r,
			 struct err *err)
{
	struct object_info info;
	struct err absent;

	if (r == 0 || err->http_status != 400 || err->kind != ERR_UNSUPPORTED || !object->native_id)
		return r;
	if (s3_head(backend, call, object, &info, &absent) < 0)
		return judge_version(object, r, err);
	object_info_clear(&info);
	err->kind = ERR_DENIED;
	return -err_errno(ERR_DENIED);
}

static int s3_remove(struct backend *backend, const struct call *call, const struct object_ref *object,
		     char **ret_marker_id, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_DELETE, .key = object->key};
	struct http_reply reply = {.body = BUF_INIT};
	char *marker = NULL;
	struct err own;
	if (!err)
		err = &own;
	int r = s3_check_key(s3, object->key, err);
	if (r < 0)
		return r;
	r = check_removable(backend, call, object, err);
	if (r == 0) {
		if (object->native_id)
			http_fields_add(&request.query, "versionId", object->native_id);
		if (object->etag && (s3->features & S3_FEATURE_REMOVE_IF_MATCH))
			s3_quote_etag(&request.headers, "if-match", object->etag);
		r = judge_removal(backend, call, object, s3_exchange(s3, call, &request, &reply, err), err);
		if (r == 0)
			r = marker_of(object, &reply, &marker, err);
	}
	if (r < 0 && err->kind == ERR_NOT_FOUND)
		r = 0;
	if (r == 0 && ret_marker_id)
		*ret_marker_id = marker;
	else
		free(marker);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

/* --- list
 * ---------------------------------------------------------------------------------------------------------------- */

/* The token of a listing of versions: the version marker, a line break (no store's ids have one), the key marker. */
static int add_version_token(struct s3_request *request, const char *token, struct err *err)
{
	const char *key = strchr(token, '\n');
	AUTO_FREE char *version = key ? strndup(token, (size_t)(key - token)) : NULL;
	if (!key)
		return err_set(err, ERR_INTERNAL, "listing token of another listing");
	if (!version)
		return err_set(err, ERR_NO_MEMORY, "listing");
	http_fields_add(&request->query, "key-marker", key + 1);
	if (*version)
		http_fields_add(&request->query, "version-id-marker", version);
	return 0;
}

enum list_meta { LIST_BARE, LIST_META };

static int build_list(struct s3 *s3, const struct list_request *list, enum list_meta meta, struct s3_request *request,
		      struct err *err)
{
	AUTO_BUF prefix = BUF_INIT;
	buf_addf(&prefix, "%s%s", s3->location.prefix, list->prefix ? list->prefix : "");
	if (buf_failed(&prefix))
		return err_set(err, ERR_NO_MEMORY, "listing");
	http_fields_add(&request->query, "prefix", prefix.data);
	http_fields_add(&request->query, "encoding-type", "url");
	if (meta == LIST_META)
		http_fields_add(&request->query, "metadata", "true");
	if (list->delimiter)
		http_fields_addf(&request->query, "delimiter", "%c", list->delimiter);
	if (list->max)
		http_fields_addf(&request->query, "max-keys", "%u", list->max < 1000 ? list->max : 1000);
	if (list->versions) {
		http_fields_add(&request->query, "versions", "");
		return list->token ? add_version_token(request, list->token, err) : 0;
	}
	http_fields_add(&request->query, "list-type", "2");
	if (list->token)
		http_fields_add(&request->query, "continuation-token", list->token);
	return 0;
}

/* Without the store's prefix; entries that are nothing but it (a marker object of the root) are dropped. */
static int strip_prefix(struct s3 *s3, const char *wanted, struct s3_listing *listing, struct err *err)
{
	size_t own = strlen(s3->location.prefix), kept = 0;
	for (size_t i = 0; i < listing->count; i++) {
		struct object_info *entry = &listing->entries[i];
		if (strncmp(entry->key, s3->location.prefix, own) != 0 ||
		    strncmp(entry->key + own, wanted, strlen(wanted)) != 0)
			return err_set(err, ERR_CORRUPT, "listing of \"%.64s\" holds a key outside of it", wanted);
		if (entry->key[own] == '\0') {
			object_info_clear(entry);
			continue;
		}
		memmove(entry->key, entry->key + own, strlen(entry->key + own) + 1);
		if (kept != i) {
			listing->entries[kept] = *entry;
			*entry = (struct object_info){0};
		}
		kept++;
	}
	listing->count = kept;
	return 0;
}

static int next_token(const struct list_request *list, const struct s3_listing *listing, char **ret_next,
		      struct err *err)
{
	AUTO_BUF token = BUF_INIT;
	if (!listing->truncated) {
		*ret_next = NULL;
		return 0;
	}
	if (list->versions)
		buf_addf(&token, "%s\n", listing->next_version ? listing->next_version : "");
	buf_adds(&token, listing->next);
	if (buf_failed(&token))
		return err_set(err, ERR_NO_MEMORY, "listing");
	if (list->token && strcmp(list->token, token.data) == 0)
		return err_set(err, ERR_CORRUPT, "listing makes no progress");
	*ret_next = buf_detach(&token);
	return *ret_next ? 0 : err_set(err, ERR_NO_MEMORY, "listing");
}

static int list_once(struct s3 *s3, const struct call *call, const struct list_request *list, enum list_meta meta,
		     struct s3_listing *ret_listing, struct err *err)
{
	struct s3_request request = {.method = HTTP_GET, .http = {.max_body = S3_XML_MAX}};
	struct http_reply reply = {.body = BUF_INIT};

	int r = build_list(s3, list, meta, &request, err);
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = s3_xml_listing(reply.body.data, reply.body.len, list->versions ? S3_LIST_VERSIONS : S3_LIST_OBJECTS,
				   ret_listing, err);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

static int s3_list(struct backend *backend, const struct call *call, const struct list_request *list,
		   struct list_page *ret_page, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_listing listing = {0};
	struct err why = {0};
	char *next = NULL;
	bool meta = list->meta && (s3->features & S3_FEATURE_LIST_META);

	int r = meta ? list_once(s3, call, list, LIST_META, &listing, &why) : 0;
	/* Names of metadata become names of elements, and not every one can: what is refused whole is asked for bare.
	 */
	if (!meta || (r < 0 && why.kind == ERR_CORRUPT))
		r = list_once(s3, call, list, LIST_BARE, &listing, &why);
	if (r == 0)
		r = strip_prefix(s3, list->prefix ? list->prefix : "", &listing, &why);
	if (r == 0)
		r = next_token(list, &listing, &next, &why);
	if (r == 0) {
		*ret_page = (struct list_page){.entries = listing.entries, .count = listing.count, .next = next};
		listing.entries = NULL;
		listing.count = 0;
	} else if (err) {
		*err = why;
	}
	s3_listing_clear(&listing);
	return r;
}

const struct backend_ops s3_backend_ops = {
	.abi = VARVE_BACKEND_ABI,
	.name = "s3",
	.schemes = "s3",
	.open = s3_open,
	.close = s3_close,
	.probe = s3_probe,
	.head = s3_head,
	.get = s3_get,
	.put = s3_put,
	.copy = s3_copy,
	.remove = s3_remove,
	.list = s3_list,
	.upload_begin = s3_upload_begin,
	.upload_part = s3_upload_part,
	.upload_part_copy = s3_upload_part_copy,
	.upload_complete = s3_upload_complete,
	.upload_abort = s3_upload_abort,
	.lock = s3_lock,
	.counters = s3_counters,
};
