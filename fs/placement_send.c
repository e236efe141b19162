/*
 * placement_send.c - the bytes of a content to a key: in one piece, or in parts of which the store copies what has not
 * changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content.h"
#include "fs/placement_internal.h"
#include "fs/plan.h"
#include "log.h"

#define PUT_MAX (UINT64_C(16) << 20) /* larger goes up in parts */
#define READ_STEP (256u << 10)

int placement_read_content(void *arg, void *ret_bytes, size_t len, uint64_t offset)
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
	return err ? err : placement_read_content(parted->content, ret_bytes, len, offset);
}

static int crc_of(struct content *content, uint64_t size, uint32_t *ret_crc)
{
	AUTO_FREE char *bytes = malloc(READ_STEP);
	uint32_t crc = 0;

	if (!bytes)
		return -ENOMEM;
	for (uint64_t at = 0; at < size;) {
		size_t len = size - at < READ_STEP ? (size_t)(size - at) : READ_STEP;
		int err = placement_read_content(content, bytes, len, at);

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
	struct call call = placement_call(placement, request->size);
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

bool placement_is_missing(const struct err *err)
{
	return err->kind == ERR_NOT_FOUND || err->kind == ERR_PRECONDITION;
}

/* Is it no more where it, or parts of it, were to be copied from? Others or a rule of the bucket may have removed it.
 */
bool placement_copy_is_gone(struct placement *placement, const struct cat_copy *copy)
{
	struct call call = placement_call(placement, 0);
	const struct object_ref ref = {
		.key = copy->key, .native_id = copy->native_id, .etag = placement_pin_of(copy->native_id, copy->etag)};
	struct object_info info;
	struct err err = {0};

	if (transfer_head(placement->transfer, &call, &ref, &info, &err) == 0) {
		object_info_clear(&info);
		return false;
	}
	return placement_is_missing(&err);
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
	if (result && known.copy.key && placement_is_missing(err) && placement_copy_is_gone(placement, &known.copy)) {
		log_info("placement", "%s: the version that parts were to be copied from is gone: all of it is sent",
			 request->key);
		cat_copy_clear(&known.copy);
		*err = (struct err){0};
		result = send_planned(placement, content, &known, request, ret_info, err);
	}
	content_plan_clear(&known);
	return result;
}

int placement_send(struct placement *placement, struct content *content, struct put_request *request,
		   struct object_info *ret_info, struct err *err)
{
	struct call call = placement_call(placement, request->size);
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
