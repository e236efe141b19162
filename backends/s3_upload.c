/*
 * s3_upload.c - multipart uploads.
 *
 * Checksums: an upload whose begin announces them (request->has_crc32c) declares CRC-32C, where the store can with type
 * FULL_OBJECT, so that the finished object carries the checksum of its whole content. Parts of such an upload must all
 * carry one: MinIO then refuses copied parts, AWS refuses a checksum in an upload that declared none. Which kind an
 * upload is stands in the first byte of the upload id that we hand out: nothing needs to be remembered between calls.
 * Threads: parts of one upload may be sent at once; no state is kept between calls, the upload id is the caller's.
 */
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cleanup.h"
#include "s3.h"

#define ID_CHECKED 'c'
#define ID_PLAIN '-'

static bool id_is_checked(const char *upload_id)
{
	return upload_id[0] == ID_CHECKED;
}

/* The store's own id. */
static int add_upload_id(struct s3_request *request, const char *upload_id, struct err *err)
{
	if (upload_id[0] != ID_CHECKED && upload_id[0] != ID_PLAIN)
		return err_set(err, ERR_NOT_FOUND, "no upload of this store: \"%.64s\"", upload_id);
	http_fields_add(&request->query, "uploadId", upload_id + 1);
	return 0;
}

static int make_upload_id(const char *id, bool checked, char **ret_upload_id, struct err *err)
{
	if (!id || !*id)
		return err_set(err, ERR_CORRUPT, "upload without an id");
	if (asprintf(ret_upload_id, "%c%s", checked ? ID_CHECKED : ID_PLAIN, id) < 0)
		return err_set(err, ERR_NO_MEMORY, "upload");
	return 0;
}

int s3_upload_begin(struct backend *backend, const struct call *call, const struct put_request *put,
		    char **ret_upload_id, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_POST, .key = put->key};
	struct http_reply reply = {.body = BUF_INIT};
	struct s3_xml_leaf id = {.name = "UploadId"};

	int r = s3_check_key(s3, put->key, err);
	if (r < 0)
		return r;
	http_fields_add(&request.query, "uploads", "");
	uint32_t features = s3->features;
	bool checked = put->has_crc32c && (features & S3_FEATURE_CRC32C);
	if (checked)
		http_fields_add(&request.headers, "x-amz-checksum-algorithm", "CRC32C");
	if (checked && (features & S3_FEATURE_FULL_CRC32C))
		http_fields_add(&request.headers, "x-amz-checksum-type", "FULL_OBJECT");
	r = s3_describe(&request, put, err);
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = s3_xml_leaves(reply.body.data, reply.body.len, "InitiateMultipartUploadResult", &id, 1, err);
	if (r == 0)
		r = make_upload_id(id.value, checked, ret_upload_id, err);
	s3_xml_leaves_clear(&id, 1);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

static int name_part(struct s3_request *request, const char *upload_id, unsigned number, struct err *err)
{
	http_fields_addf(&request->query, "partNumber", "%u", number);
	return add_upload_id(request, upload_id, err);
}

int s3_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		   const struct put_request *put, const struct upload_slot *slot, struct upload_part *ret_part,
		   struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_PUT, .key = key};
	struct http_reply reply = {.body = BUF_INIT};
	struct object_info info = {0};
	struct s3_body body;

	int r = s3_check_key(s3, key, err);
	if (r < 0)
		return r;
	if (put->size > S3_MAX_PUT)
		return err_set(err, ERR_TOO_LARGE, "%llu bytes in one part", (unsigned long long)put->size);
	r = s3_body_open(s3, &body, put, err);
	if (r < 0)
		return r;
	r = name_part(&request, upload_id, slot->number, err);
	s3_body_attach(&body, &request);
	if (id_is_checked(upload_id))
		s3_body_declare(&body, &request);
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = s3_body_check(&body, &reply, err);
	if (r == 0)
		r = s3_reply_info(&reply, &info, err);
	if (r == 0 && !info.etag)
		r = err_set(err, ERR_CORRUPT, "part without an etag");
	if (r == 0) {
		*ret_part = (struct upload_part){.number = slot->number,
						 .size = put->size,
						 .etag = info.etag,
						 .crc32c = body.crc32c,
						 .has_crc32c = body.has_crc32c};
		info.etag = NULL;
	}
	object_info_clear(&info);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	s3_body_close(&body);
	return r;
}

static int copied_part(const struct http_reply *reply, const struct get_request *source, unsigned number,
		       struct upload_part *ret_part, struct err *err)
{
	struct s3_xml_leaf leaves[] = {{.name = "ETag"}, {.name = "ChecksumCRC32C"}};
	struct upload_part part = {.number = number, .size = source->length};
	int r = s3_reply_check_late(reply, err);
	if (r == 0)
		r = s3_xml_leaves(reply->body.data, reply->body.len, "CopyPartResult", leaves, ARRAY_SIZE(leaves), err);
	if (r == 0 && (!leaves[0].value || !*leaves[0].value))
		r = err_set(err, ERR_CORRUPT, "copied part without an etag");
	if (r == 0) {
		s3_strip_quotes(leaves[0].value);
		part.etag = leaves[0].value;
		leaves[0].value = NULL;
		part.has_crc32c = s3_parse_crc32c(leaves[1].value, &part.crc32c);
		*ret_part = part;
	}
	s3_xml_leaves_clear(leaves, ARRAY_SIZE(leaves));
	return r;
}

int s3_upload_part_copy(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			const struct get_request *source, const struct upload_slot *slot, struct upload_part *ret_part,
			struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_PUT, .key = key, .http = {.stall_timeout_ns = S3_SLOW_STALL_NS}};
	struct http_reply reply = {.body = BUF_INIT};

	if (source->length == 0 || source->length > INT64_MAX - source->offset)
		return err_set(err, ERR_INTERNAL, "a copied part must be a range of known length");
	int r = s3_check_key(s3, key, err);
	if (r < 0)
		return r;
	r = name_part(&request, upload_id, slot->number, err);
	if (r == 0)
		r = s3_copy_source(s3, &request, &source->object, err);
	/* AWS refuses ranges of sources up to 5 MiB; a whole object needs none. */
	if (source->offset != 0 || source->length != source->expected_size)
		http_fields_addf(&request.headers, "x-amz-copy-source-range", "bytes=%llu-%llu",
				 (unsigned long long)source->offset,
				 (unsigned long long)(source->offset + source->length - 1));
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = copied_part(&reply, source, slot->number, ret_part, err);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

/* The whole content's checksum when every part's is known, else that of the request, if any. */
static bool whole_crc32c(const struct put_request *put, const struct upload_part *parts, size_t count,
			 uint32_t *ret_crc)
{
	uint32_t crc = 0;
	bool known = true;
	for (size_t i = 0; i < count && known; i++) {
		known = parts[i].has_crc32c;
		crc = crc32c_combine(crc, parts[i].crc32c, parts[i].size);
	}
	if (!known)
		crc = put->crc32c;
	*ret_crc = crc;
	return known || put->has_crc32c;
}

static int completed_info(const struct http_reply *reply, const struct put_request *put, uint64_t size,
			  struct object_info *ret_info, struct err *err)
{
	struct s3_xml_leaf leaves[] = {{.name = "ETag"}, {.name = "ChecksumCRC32C"}, {.name = "VersionId"}};
	const char *version = http_reply_header(reply, "x-amz-version-id");
	struct object_info info = {.flags = OBJECT_LATEST, .size = size};

	int r = s3_reply_check_late(reply, err);
	if (r == 0)
		r = s3_xml_leaves(reply->body.data, reply->body.len, "CompleteMultipartUploadResult", leaves,
				  ARRAY_SIZE(leaves), err);
	if (r < 0)
		return r;
	if (!version)
		version = leaves[2].value;
	info.native_id = version ? strdup(version) : NULL;
	info.key = strdup(put->key);
	if (!leaves[0].value || !*leaves[0].value) {
		r = err_set(err, ERR_INDETERMINATE, "completed, but without an etag");
	} else if (!info.key || (version && !info.native_id)) {
		r = err_set(err, ERR_NO_MEMORY, "upload");
	} else {
		s3_strip_quotes(leaves[0].value);
		info.etag = leaves[0].value;
		leaves[0].value = NULL;
		if (s3_parse_crc32c(leaves[1].value, &info.crc32c))
			info.flags |= OBJECT_CRC32C;
	}
	s3_xml_leaves_clear(leaves, ARRAY_SIZE(leaves));
	if (r < 0) {
		object_info_clear(&info);
		return r;
	}
	*ret_info = info;
	return 0;
}

static void add_whole_checksum(struct s3 *s3, struct s3_request *request, bool known, uint32_t crc)
{
	char text[S3_CRC32C_SIZE];
	if (!known || !(s3->features & S3_FEATURE_FULL_CRC32C))
		return;
	s3_format_crc32c(crc, text);
	http_fields_add(&request->headers, "x-amz-checksum-crc32c", text);
	http_fields_add(&request->headers, "x-amz-checksum-type", "FULL_OBJECT");
}

int s3_upload_complete(struct backend *backend, const struct call *call, const struct put_request *put,
		       const char *upload_id, const struct upload_part *parts, size_t count,
		       struct object_info *ret_info, struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {
		.method = HTTP_POST, .key = put->key, .http = {.stall_timeout_ns = S3_SLOW_STALL_NS}};
	struct http_reply reply = {.body = BUF_INIT};
	struct object_info info = {0};
	AUTO_BUF body = BUF_INIT;
	uint64_t size = 0;
	uint32_t crc;

	int r = s3_check_key(s3, put->key, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		size += parts[i].size;
	bool known = whole_crc32c(put, parts, count, &crc);
	if (known && put->has_crc32c && crc != put->crc32c)
		return err_set(err, ERR_CORRUPT, "parts sent do not make up the content promised");
	bool checked = id_is_checked(upload_id);
	s3_xml_complete_upload(&body, parts, count, checked ? S3_XML_CHECKSUMS : S3_XML_NO_CHECKSUMS);
	if (buf_failed(&body))
		return err_set(err, ERR_NO_MEMORY, "upload");
	http_fields_add(&request.headers, "content-type", "application/xml");
	request.http.body = body.data;
	request.http.body_size = body.len;
	add_whole_checksum(s3, &request, known && checked, crc);
	s3_condition(&request, &put->condition);
	r = add_upload_id(&request, upload_id, err);
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r == 0)
		r = completed_info(&reply, put, size, &info, err);
	if (r == 0 && known && (info.flags & OBJECT_CRC32C) && info.crc32c != crc)
		r = err_set(err, ERR_CORRUPT, "the store put together content with another checksum");
	if (r == 0 && ret_info) {
		*ret_info = info;
		info = (struct object_info){0};
	}
	object_info_clear(&info);
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}

int s3_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		    struct err *err)
{
	struct s3 *s3 = s3_of(backend);
	struct s3_request request = {.method = HTTP_DELETE, .key = key};
	struct http_reply reply = {.body = BUF_INIT};
	struct err own;
	if (!err)
		err = &own;
	int r = s3_check_key(s3, key, err);
	if (r < 0)
		return r;
	r = add_upload_id(&request, upload_id, err);
	if (r == 0)
		r = s3_exchange(s3, call, &request, &reply, err);
	if (r < 0 && err->kind == ERR_NOT_FOUND)
		r = 0;
	http_reply_clear(&reply);
	s3_request_clear(&request);
	return r;
}
