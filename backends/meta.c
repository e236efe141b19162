/*
 * meta.c - the helpers of backend.h that own and release what backends hand out.
 *
 * No state, no threads: each works on what it is given.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "varve/backend.h"

static struct meta_pair *meta_find(const struct meta *meta, const char *name)
{
	for (size_t i = 0; i < meta->count; i++)
		if (strcmp(meta->pairs[i].name, name) == 0)
			return &meta->pairs[i];
	return NULL;
}

const char *meta_get(const struct meta *meta, const char *name)
{
	const struct meta_pair *pair = meta_find(meta, name);
	return pair ? pair->value : NULL;
}

int meta_set(struct meta *meta, const char *name, const char *value)
{
	char *new_value = strdup(value);
	if (!new_value)
		return -ENOMEM;

	struct meta_pair *pair = meta_find(meta, name);
	if (pair) {
		free(pair->value);
		pair->value = new_value;
		return 0;
	}

	char *new_name = strdup(name);
	struct meta_pair *pairs = reallocarray(meta->pairs, meta->count + 1, sizeof(*pairs));
	if (pairs)
		meta->pairs = pairs;
	if (!new_name || !pairs) {
		free(new_name);
		free(new_value);
		return -ENOMEM;
	}
	meta->pairs[meta->count++] = (struct meta_pair){.name = new_name, .value = new_value};
	return 0;
}

int meta_copy(struct meta *ret_meta, const struct meta *meta)
{
	struct meta copy = {0};
	for (size_t i = 0; i < meta->count; i++) {
		int r = meta_set(&copy, meta->pairs[i].name, meta->pairs[i].value);
		if (r < 0) {
			meta_clear(&copy);
			return r;
		}
	}
	*ret_meta = copy;
	return 0;
}

void meta_clear(struct meta *meta)
{
	for (size_t i = 0; i < meta->count; i++) {
		free(meta->pairs[i].name);
		free(meta->pairs[i].value);
	}
	free(meta->pairs);
	*meta = (struct meta){0};
}

void object_info_clear(struct object_info *info)
{
	free(info->key);
	free(info->native_id);
	free(info->etag);
	free(info->storage_class);
	free(info->content_type);
	meta_clear(&info->meta);
	*info = (struct object_info){0};
}

void list_page_clear(struct list_page *page)
{
	for (size_t i = 0; i < page->count; i++)
		object_info_clear(&page->entries[i]);
	free(page->entries);
	free(page->next);
	*page = (struct list_page){0};
}

void upload_part_clear(struct upload_part *part)
{
	free(part->etag);
	*part = (struct upload_part){0};
}
