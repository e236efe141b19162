/*
 * findings.h - what listings and HEADs showed, as the catalog adopts it (struct cat_found), with the memory of its
 * strings.
 *
 * Not thread-safe: one owner each. All functions return 0 or -errno, -ENOMEM above all.
 */
#ifndef VARVE_FS_FINDINGS_H
#define VARVE_FS_FINDINGS_H

#include "catalog.h"
#include "fs/objmeta.h"
#include "fs/reconcile.h"
#include "varve/backend.h"

/* Many small strings that go together. */
struct arena {
	struct chunk *chunks;
};
/* NULL stays NULL. */
int arena_string(struct arena *arena, const char *string, const char **ret_copy);

struct findings {
	struct arena arena;
	struct cat_found *found;
	size_t count, cap;
};
void findings_clear(struct findings *findings);
/* -E2BIG: there are `max` already. */
int findings_add(struct findings *findings, const struct cat_found *found, uint64_t max);

/* The facts of the store that listings and HEADs share. */
int found_store_facts(struct arena *arena, const struct object_info *info, struct cat_found *ret_found);
/* The name under which a component is shown, and the component itself where the name does not tell it. */
int found_name(struct arena *arena, const char *component, size_t len, struct cat_found *ret_found);
/* `meta` must live as long as *ret_found: ids and the host's name are borrowed from it. */
void found_meta(const struct reconcile_options *options, const struct objmeta *meta, struct cat_found *ret_found);
/* What a listing tells of metadata, copied. What takes another request to know stays unresolved: a symlink's target,
 * the facts of an upload begun before its version. */
int found_told(const struct reconcile_options *options, struct arena *arena, const struct object_info *info,
	       struct cat_found *found);

#endif
