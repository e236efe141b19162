/*
 * findings.c - see findings.h. Strings live in chunks that go together, for a listing has millions of them.
 */
#include "fs/findings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "cleanup.h"
#include "escape.h"
#include "fs/ahead.h"

#define ARENA_CHUNK (256 << 10)

struct chunk {
	struct chunk *next;
	size_t used, size;
	char bytes[];
};

static void arena_free(struct arena *arena)
{
	while (arena->chunks) {
		struct chunk *next = arena->chunks->next;

		free(arena->chunks);
		arena->chunks = next;
	}
}

/* A copy with a NUL behind it, or NULL. */
static char *arena_copy(struct arena *arena, const void *bytes, size_t len)
{
	struct chunk *chunk = arena->chunks;
	char *copy;

	if (!chunk || chunk->size - chunk->used < len + 1) {
		size_t size = len + 1 > ARENA_CHUNK ? len + 1 : ARENA_CHUNK;

		chunk = malloc(sizeof(*chunk) + size);
		if (!chunk)
			return NULL;
		*chunk = (struct chunk){.next = arena->chunks, .size = size};
		arena->chunks = chunk;
	}
	copy = chunk->bytes + chunk->used;
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	chunk->used += len + 1;
	return copy;
}

int arena_string(struct arena *arena, const char *string, const char **ret_copy)
{
	const char *copy = string ? arena_copy(arena, string, strlen(string)) : NULL;

	if (string && !copy)
		return -ENOMEM;
	*ret_copy = copy;
	return 0;
}

void findings_clear(struct findings *findings)
{
	arena_free(&findings->arena);
	free(findings->found);
	*findings = (struct findings){0};
}

int findings_add(struct findings *findings, const struct cat_found *found, uint64_t max)
{
	if (findings->count >= max)
		return -E2BIG;
	if (ARRAY_ROOM(findings->found, findings->cap, findings->count))
		return -ENOMEM;
	findings->found[findings->count++] = *found;
	return 0;
}

int found_store_facts(struct arena *arena, const struct object_info *info, struct cat_found *ret_found)
{
	int rc = arena_string(arena, info->key, &ret_found->key);

	if (!rc)
		rc = arena_string(arena, info->native_id, &ret_found->native_id);
	if (!rc)
		rc = arena_string(arena, info->etag, &ret_found->etag);
	if (!rc)
		rc = arena_string(arena, info->storage_class, &ret_found->storage_class);
	ret_found->size = info->size;
	ret_found->modified_ns = info->modified_ns;
	return rc;
}

int found_name(struct arena *arena, const char *component, size_t len, struct cat_found *ret_found)
{
	AUTO_BUF name = BUF_INIT;

	(void)escape_component(component, len, &name); /* whether it differs is of no interest here */
	if (buf_failed(&name))
		return -ENOMEM;
	ret_found->name = arena_copy(arena, name.data, name.len);
	if (!ret_found->name)
		return -ENOMEM;
	if (!escape_is_digest(name.data, name.len))
		return 0;
	ret_found->component = arena_copy(arena, component, len);
	return ret_found->component ? 0 : -ENOMEM;
}

/* --- metadata --------------------------------------------------------------------------------------------- */

/* Type and permissions of what HEAD showed. A key with a '/' behind it is a directory, all others are none. */
static uint32_t mode_of(const struct reconcile_options *options, const struct objmeta *meta, bool directory)
{
	bool said = meta->has & OBJMETA_MODE;
	uint32_t type = said ? meta->mode & S_IFMT : 0;

	if (directory)
		return S_IFDIR | (said && (!type || S_ISDIR(type)) ? meta->mode & 07777 : options->dir_mode);
	if (!said || S_ISDIR(type))
		return S_IFREG | options->file_mode;
	return (type ? type : S_IFREG) | (meta->mode & 07777);
}

static bool never_was_content(enum cat_origin origin)
{
	return origin == CAT_ORIGIN_SUSPECT || origin == CAT_ORIGIN_CONFLICT;
}

void found_meta(const struct reconcile_options *options, const struct objmeta *meta, struct cat_found *ret_found)
{
	ret_found->resolved = true;
	ret_found->mode = mode_of(options, meta, ret_found->directory);
	ret_found->uid = meta->has & OBJMETA_UID ? meta->uid : options->uid;
	ret_found->gid = meta->has & OBJMETA_GID ? meta->gid : options->gid;
	ret_found->mtime = meta->has & OBJMETA_MTIME ? meta->mtime : ret_found->modified_ns;
	ret_found->file_id = meta->has & OBJMETA_FILE_ID ? meta->file_id : NULL;
	ret_found->seq = meta->has & OBJMETA_SEQ ? meta->seq : 0;
	ret_found->commit_ns = meta->has & OBJMETA_COMMIT ? meta->commit_ns : 0;
	ret_found->has_author = meta->has & OBJMETA_AUTHOR;
	ret_found->author = meta->author;
	ret_found->has_crc32c = meta->has & OBJMETA_CRC32C;
	ret_found->crc32c = meta->crc32c;
	ret_found->host = meta->has & OBJMETA_HOST ? meta->host : NULL;
	ret_found->origin = meta->has & OBJMETA_ORIGIN ? meta->origin : CAT_ORIGIN_CLOSE;
	if (never_was_content(ret_found->origin) && strncmp(ret_found->key, CAT_OWN_KEYS, strlen(CAT_OWN_KEYS)) != 0)
		ret_found->origin = CAT_ORIGIN_CLOSE; /* somebody made it the file's content */
	if ((meta->has & OBJMETA_LINK) && !ret_found->directory) {
		ret_found->link_id = meta->link_id;
		ret_found->mode = S_IFREG | (ret_found->mode & 07777);
	}
}

int found_told(const struct reconcile_options *options, struct arena *arena, const struct object_info *info,
	       struct cat_found *found)
{
	struct cat_found told = *found;
	AUTO_BUF attributes = BUF_INIT;
	struct objmeta meta;
	int rc = 0;

	if (!(info->flags & OBJECT_META) || meta_get(&info->meta, AHEAD_FACTS_META))
		return 0;
	objmeta_decode(&info->meta, &meta);
	found_meta(options, &meta, &told);
	if (S_ISLNK(told.mode))
		return 0;
	if (told.file_id)
		told.file_id = (uint8_t *)arena_copy(arena, told.file_id, CAT_FILE_ID_SIZE);
	if (told.link_id)
		told.link_id = (uint8_t *)arena_copy(arena, told.link_id, CAT_FILE_ID_SIZE);
	if ((!told.file_id && meta.has & OBJMETA_FILE_ID) || (!told.link_id && meta.has & OBJMETA_LINK))
		rc = -ENOMEM;
	if (!rc)
		rc = arena_string(arena, told.host, &told.host);
	if (!rc)
		rc = objmeta_user(info, told.mode, &attributes);
	if (!rc && attributes.len) {
		told.attributes = arena_copy(arena, attributes.data, attributes.len);
		told.attributes_len = attributes.len;
		rc = told.attributes ? 0 : -ENOMEM;
	}
	if (!rc)
		*found = told;
	return rc;
}
