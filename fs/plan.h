/*
 * plan.h - into which parts an object goes up, and which of them the store copies from what it has already.
 *
 * Pure: knows neither network nor files.
 */
#ifndef VARVE_FS_PLAN_H
#define VARVE_FS_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "fs/content.h"
#include "transfer.h"

struct plan {
	struct transfer_part *cells; /* borrow the strings of the content_plan they were made of */
	size_t count;
};

/*
 * The parts of the content, contiguous and in order. Clean stretches of content->copy are copied (its key NULL: nothing
 * can be), each dirty range is sent with as much around it as the store's least part asks for. All parts but the last
 * are at least limits->min_part. -ENOMEM, -EFBIG when it does not fit the number of parts.
 */
int plan_parts(const struct content_plan *content, const struct backend_limits *limits, struct plan *ret_plan);
void plan_clear(struct plan *plan);

/* The part [*ret_start, *ret_start + *ret_size) number `index` (from 0) of a content of which nothing can be copied,
 * as long as it is not the last: where the parts begin does not depend on how large the content becomes. */
void plan_grid(const struct backend_limits *limits, size_t index, uint64_t *ret_start, uint64_t *ret_size);

#endif
