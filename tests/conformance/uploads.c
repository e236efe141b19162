/*
 * uploads.c - conformance: multipart uploads.
 */
#include "conformance/suite.h"

#include "cleanup.h"

#define PARTS 3

struct upload {
	const char *key;
	char *id;
	struct blob whole;
	size_t part_size; /* of all but the last */
	struct upload_part parts[PARTS];
};

static void begin(struct fixture *f, struct upload *upload, const char *key)
{
	static struct meta meta;
	struct put_request request = {.key = key, .meta = &meta, .content_type = "video/mp4"};

	cr_assert(can(f, BACKEND_MULTIPART), "every store here has multipart");
	if (meta.count == 0)
		meta_set(&meta, "color", "red");
	*upload = (struct upload){.key = key, .part_size = (size_t)f->info.limits.min_part};
	if (upload->part_size < 65536)
		upload->part_size = 65536;
	upload->whole = blob_make((PARTS - 1) * upload->part_size + 1000, 7);
	OK(f->ops->upload_begin(f->backend, &f->call, &request, &upload->id, &f->err));
	cr_assert(upload->id && *upload->id, "no upload id");
}

static void finish(struct upload *upload)
{
	for (size_t i = 0; i < PARTS; i++)
		upload_part_clear(&upload->parts[i]);
	free(upload->id);
	free(upload->whole.data);
}

static struct blob part_blob(const struct upload *upload, unsigned number)
{
	size_t offset = (number - 1) * upload->part_size;
	size_t left = upload->whole.size - offset;

	return (struct blob){
		.data = upload->whole.data + offset,
		.size = left < upload->part_size ? left : upload->part_size,
	};
}

static struct upload_slot slot_of(const struct upload *upload, unsigned number)
{
	return (struct upload_slot){.number = number, .offset = (number - 1) * upload->part_size};
}

static int send_part(struct fixture *f, struct upload *upload, unsigned number)
{
	const struct upload_slot slot = slot_of(upload, number);
	struct blob blob = part_blob(upload, number);
	struct upload_part *part = &upload->parts[number - 1];
	struct put_request body = {
		.key = upload->key,
		.source = blob_source,
		.source_arg = &blob,
		.size = blob.size,
		.crc32c = blob_crc(&blob),
		.has_crc32c = true,
	};

	upload_part_clear(part);
	*part = (struct upload_part){0};
	return f->ops->upload_part(f->backend, &f->call, upload->key, upload->id, &body, &slot, part, &f->err);
}

static int complete(struct fixture *f, struct upload *upload, struct object_info *info)
{
	struct put_request request = {.key = upload->key, .size = upload->whole.size};
	struct object_info made = {0};
	int rc = f->ops->upload_complete(f->backend, &f->call, &request, upload->id, upload->parts, PARTS, &made,
					 &f->err);

	if (!rc && info)
		*info = made;
	else
		object_info_clear(&made);
	return rc;
}

CONFORMANCE(parts_in_any_order)
{
	struct upload upload;
	struct object_info info = {0};
	struct object_info head = {0};

	begin(f, &upload, "dir/large");
	OK(send_part(f, &upload, 3));
	OK(send_part(f, &upload, 1));
	OK(send_part(f, &upload, 2));
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "dir/large"}, &head));
	OK(complete(f, &upload, &info));
	cr_assert(info.etag && strcmp(info.key, "dir/large") == 0, "facts of the completion");
	cr_assert(!can(f, BACKEND_VERSIONS) == !info.native_id, "a version id just where there are versions");
	expect_content(f, &(struct object_ref){.key = "dir/large", .etag = info.etag}, &upload.whole);
	OK(do_head(f, &(struct object_ref){.key = "dir/large"}, &head));
	cr_assert(meta_get(&head.meta, "color") && strcmp(meta_get(&head.meta, "color"), "red") == 0, "metadata");
	cr_assert(head.content_type && strcmp(head.content_type, "video/mp4") == 0, "type");
	object_info_clear(&info);
	object_info_clear(&head);
	finish(&upload);
}

CONFORMANCE(a_part_sent_again_replaces)
{
	struct upload upload;

	begin(f, &upload, "large");
	upload.whole.data[0] ^= 1;
	OK(send_part(f, &upload, 1));
	upload.whole.data[0] ^= 1;
	for (unsigned i = 1; i <= PARTS; i++)
		OK(send_part(f, &upload, i));
	OK(complete(f, &upload, NULL));
	expect_content(f, &(struct object_ref){.key = "large"}, &upload.whole);
	finish(&upload);
}

CONFORMANCE(aborted_upload_leaves_nothing)
{
	struct upload upload;
	struct list_page all;

	begin(f, &upload, "large");
	OK(send_part(f, &upload, 1));
	OK(send_part(f, &upload, 2));
	OK(f->ops->upload_abort(f->backend, &f->call, upload.key, upload.id, &f->err));
	cr_assert(send_part(f, &upload, 3) < 0, "a part of an aborted upload was taken");
	all = list_all(f, &(struct list_request){.prefix = "", .versions = true});
	cr_assert(all.count == 0, "%s is left", all.entries[0].key);
	list_page_clear(&all);
	finish(&upload);
}

CONFORMANCE(wrong_part_fails_completion)
{
	struct upload upload;
	struct object_info head = {0};

	begin(f, &upload, "large");
	for (unsigned i = 1; i <= PARTS; i++)
		OK(send_part(f, &upload, i));
	for (char *c = upload.parts[1].etag; *c; c++)
		*c = *c == '0' ? '1' : '0';
	cr_assert(complete(f, &upload, NULL) < 0, "an upload with a wrong part was completed");
	FAILS(ERR_NOT_FOUND, do_head(f, &(struct object_ref){.key = "large"}, &head));
	OK(f->ops->upload_abort(f->backend, &f->call, upload.key, upload.id, &f->err));
	finish(&upload);
}

CONFORMANCE(wrong_crc_of_a_part_is_refused)
{
	struct upload upload;
	const struct upload_slot slot = {.number = 1};
	struct blob blob;
	struct put_request body = {.source = blob_source, .source_arg = &blob, .has_crc32c = true};

	begin(f, &upload, "large");
	blob = part_blob(&upload, 1);
	body.size = blob.size;
	body.crc32c = blob_crc(&blob) ^ 1;
	FAILS(ERR_CORRUPT, f->ops->upload_part(f->backend, &f->call, upload.key, upload.id, &body, &slot,
					       &upload.parts[0], &f->err));
	OK(f->ops->upload_abort(f->backend, &f->call, upload.key, upload.id, &f->err));
	finish(&upload);
}

CONFORMANCE(parts_copied_from_ranges)
{
	struct upload upload;
	struct upload_slot slot;
	struct blob source;
	struct get_request range = {.expected_size = UINT64_MAX};
	struct object_info info = {0};

	cr_assert(can(f, BACKEND_PART_COPY), "every store here copies parts");
	begin(f, &upload, "large");
	/* The middle part comes from within another object, which then changes: the pin keeps its bytes. */
	source = blob_make(upload.part_size + 5000, 11);
	memcpy(source.data + 3000, upload.whole.data + upload.part_size, upload.part_size);
	OK(do_put(f, "source", &source, &info));
	range.object = (struct object_ref){.key = "source", .native_id = info.native_id, .etag = info.etag};
	range.offset = 3000;
	range.length = upload.part_size;
	if (info.native_id)
		OK(do_put_text(f, "source", "changed", NULL));
	slot = slot_of(&upload, 2);
	OK(send_part(f, &upload, 1));
	OK(f->ops->upload_part_copy(f->backend, &f->call, upload.key, upload.id, &range, &slot, &upload.parts[1],
				    &f->err));
	cr_assert(upload.parts[1].etag && upload.parts[1].number == 2, "facts of the part");
	OK(send_part(f, &upload, 3));
	upload.parts[1].size = upload.part_size;
	OK(complete(f, &upload, NULL));
	expect_content(f, &(struct object_ref){.key = "large"}, &upload.whole);
	object_info_clear(&info);
	free(source.data);
	finish(&upload);
}

CONFORMANCE(part_copy_minds_the_pin)
{
	const struct upload_slot slot = {.number = 1};
	struct upload upload;
	struct get_request range = {.expected_size = UINT64_MAX, .length = 3};
	struct object_info info = {0};

	begin(f, &upload, "large");
	OK(do_put_text(f, "source", "one", &info));
	OK(do_put_text(f, "source", "two", NULL));
	range.object = (struct object_ref){.key = "source", .etag = info.etag};
	FAILS(ERR_PRECONDITION, f->ops->upload_part_copy(f->backend, &f->call, upload.key, upload.id, &range, &slot,
							 &upload.parts[0], &f->err));
	OK(f->ops->upload_abort(f->backend, &f->call, upload.key, upload.id, &f->err));
	object_info_clear(&info);
	finish(&upload);
}

/* What it was to replace is gone by the time: that is no lost upload. */
CONFORMANCE(a_completion_minds_its_condition)
{
	struct upload upload;
	struct object_info info = {0};
	struct put_request request = {.key = "large"};

	/* versitygw minds conditions of a put, and not those of a completion. */
	if (!can(f, BACKEND_IF_MATCH) || f->store == STORE_VERSITYGW)
		return;
	OK(do_put_text(f, "large", "small", &info));
	begin(f, &upload, "large");
	for (unsigned i = 1; i <= PARTS; i++)
		OK(send_part(f, &upload, i));
	OK(f->ops->remove(f->backend, &f->call, &(struct object_ref){.key = "large"}, NULL, &f->err));
	request.size = upload.whole.size;
	request.condition.if_match = info.etag;
	FAILS(ERR_PRECONDITION,
	      f->ops->upload_complete(f->backend, &f->call, &request, upload.id, upload.parts, PARTS, NULL, &f->err));
	OK(complete(f, &upload, NULL));
	expect_content(f, &(struct object_ref){.key = "large"}, &upload.whole);
	object_info_clear(&info);
	finish(&upload);
}

CONFORMANCE(upload_over_an_object_keeps_it)
{
	struct upload upload;
	struct list_page all;

	OK(do_put_text(f, "large", "small", NULL));
	begin(f, &upload, "large");
	for (unsigned i = 1; i <= PARTS; i++)
		OK(send_part(f, &upload, i));
	expect_text(f, "large", "small");
	OK(complete(f, &upload, NULL));
	expect_content(f, &(struct object_ref){.key = "large"}, &upload.whole);
	all = list_all(f, &(struct list_request){.prefix = "large", .versions = true});
	cr_assert(all.count == (can(f, BACKEND_VERSIONS) ? 2 : 1), "%zu versions", all.count);
	list_page_clear(&all);
	finish(&upload);
}
