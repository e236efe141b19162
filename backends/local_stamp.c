/*
 * local_stamp.c - what we know of an object beyond its bytes.
 *
 * A stamp is text, one "name value" a line with '%XX' for what would break a
 * line, so that getfattr shows it to people. It lies in the extended attribute
 * user.varve.stamp of the file itself, or where that cannot be (no attributes,
 * too long, not our file) beside the key's past, under a name made of the
 * file's inode, mtime and size, so that it is found from the file alone and
 * stays right when the file moves into the past.
 *
 * A stamp says which file it is of. Once inode, size or mtime differ another
 * tool has been here and the stamp is void. (A directory's size and mtime
 * change with its entries and do not count.)
 *
 * Threads: no state but the clock of ids, under local->lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backends/local.h"
#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

#define STAMP_ATTRIBUTE "user.varve.stamp"
#define STAMP_MAX (4 * LOCAL_META_MAX)
#define STAMP_FIRST_LINE "varve 1"

/* What must not have changed since the stamp was written. */
struct identity {
	uint64_t ino, size;
	int64_t mtime;
};

static struct identity identity_of(const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return (struct identity){.ino = st->st_ino};
	return (struct identity){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime = clock_from_timespec(st->st_mtim),
	};
}

static char *sidecar_name(const struct stat *st)
{
	struct identity id = identity_of(st);
	AUTO_BUF name = BUF_INIT;

	buf_addf(&name, "%" PRIx64 "-%" PRIx64 "-%" PRIx64 ".s", id.ino, (uint64_t)id.mtime, id.size);
	return buf_detach(&name);
}

/* --- text ---------------------------------------------------------------------------------------- */

static void add_escaped(struct buf *buf, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f || c == '%' || c == '=')
			buf_addf(buf, "%%%02x", c);
		else
			buf_addc(buf, *text);
	}
}

static void add_line(struct buf *buf, const char *name, const char *value)
{
	if (!value)
		return;
	buf_addf(buf, "%s ", name);
	add_escaped(buf, value);
	buf_addc(buf, '\n');
}

static void encode(const struct local_object *object, struct buf *buf)
{
	const struct object_info *info = &object->info;
	struct identity id = identity_of(&object->stat);

	buf_addf(buf, STAMP_FIRST_LINE "\ninode %" PRIu64 "\nsize %" PRIu64 "\nmtime %" PRId64 "\n", id.ino, id.size,
		 id.mtime);
	buf_addf(buf, "modified %" PRId64 "\n", info->modified_ns);
	add_line(buf, "id", info->native_id);
	if (info->flags & OBJECT_CRC32C)
		buf_addf(buf, "crc32c %08" PRIx32 "\n", info->crc32c);
	add_line(buf, "class", info->storage_class);
	add_line(buf, "type", info->content_type);
	for (size_t i = 0; i < info->meta.count; i++) {
		buf_adds(buf, "meta ");
		add_escaped(buf, info->meta.pairs[i].name);
		buf_addc(buf, '=');
		add_escaped(buf, info->meta.pairs[i].value);
		buf_addc(buf, '\n');
	}
}

/* In place. */
static int unescape(char *text)
{
	char *to = text;

	for (const char *at = text; *at; at++) {
		uint8_t byte;

		if (*at != '%') {
			*to++ = *at;
			continue;
		}
		if (at[1] == '\0' || hex_decode((char[]){at[1], at[2], '\0'}, 1, &byte) || byte == 0)
			return -EBADMSG;
		*to++ = (char)byte;
		at += 2;
	}
	*to = '\0';
	return 0;
}

static int parse_number(const char *text, int base, uint64_t *ret_value)
{
	char *end;

	errno = 0;
	*ret_value = (uint64_t)strtoull(text, &end, base);
	return errno || end == text || *end ? -EBADMSG : 0;
}

static int decode_text(char *value, char **ret_text)
{
	int rc = unescape(value);

	if (rc)
		return rc;
	free(*ret_text);
	*ret_text = strdup(value);
	return *ret_text ? 0 : -ENOMEM;
}

static int decode_meta(char *value, struct meta *meta)
{
	char *equals = strchr(value, '=');
	int rc;

	if (!equals)
		return -EBADMSG;
	*equals = '\0';
	rc = unescape(value);
	if (!rc)
		rc = unescape(equals + 1);
	return rc ? rc : meta_set(meta, value, equals + 1);
}

static int decode_line(const char *name, char *value, struct local_object *object, struct identity *id)
{
	struct object_info *info = &object->info;
	uint64_t number = 0;
	int rc = 0;

	if (strcmp(name, "inode") == 0) {
		rc = parse_number(value, 10, &id->ino);
	} else if (strcmp(name, "size") == 0) {
		rc = parse_number(value, 10, &id->size);
	} else if (strcmp(name, "mtime") == 0) {
		rc = parse_number(value, 10, &number);
		id->mtime = (int64_t)number;
	} else if (strcmp(name, "modified") == 0) {
		rc = parse_number(value, 10, &number);
		info->modified_ns = (int64_t)number;
	} else if (strcmp(name, "id") == 0) {
		rc = decode_text(value, &info->native_id);
	} else if (strcmp(name, "crc32c") == 0) {
		rc = parse_number(value, 16, &number);
		info->crc32c = (uint32_t)number;
		info->flags |= OBJECT_CRC32C;
	} else if (strcmp(name, "class") == 0) {
		rc = decode_text(value, &info->storage_class);
	} else if (strcmp(name, "type") == 0) {
		rc = decode_text(value, &info->content_type);
	} else if (strcmp(name, "meta") == 0) {
		rc = decode_meta(value, &info->meta);
	} /* else: a later varve's line */
	return rc;
}

/* Fills the object when the text is a stamp of just this file. -ESTALE, -EBADMSG, -ENOMEM. Spoils the text. */
static int decode(char *text, struct local_object *object)
{
	struct identity now = identity_of(&object->stat);
	struct identity then = {0};
	char *line = strsep(&text, "\n");

	if (strcmp(line, STAMP_FIRST_LINE) != 0)
		return -EBADMSG;
	while ((line = strsep(&text, "\n")) && *line) {
		char *value = strchr(line, ' ');
		int rc;

		if (!value)
			return -EBADMSG;
		*value = '\0';
		rc = decode_line(line, value + 1, object, &then);
		if (rc)
			return rc;
	}
	if (then.ino != now.ino || then.size != now.size || then.mtime != now.mtime)
		return -ESTALE;
	return local_id_valid(object->info.native_id) ? 0 : -EBADMSG;
}

/* --- ids ------------------------------------------------------------------------------------------- */

bool local_id_valid(const char *id)
{
	return id && strlen(id) == LOCAL_ID_SIZE - 1 && strspn(id, "0123456789abcdef") == LOCAL_ID_SIZE - 1;
}

static void format_id(int64_t ns, uint32_t rest, char ret_id[static LOCAL_ID_SIZE])
{
	(void)snprintf(ret_id, LOCAL_ID_SIZE, "%016" PRIx64 "%08" PRIx32, (uint64_t)ns, rest); /* always fits */
}

void local_new_id(struct local *local, const char *after, char ret_id[static LOCAL_ID_SIZE])
{
	int64_t ns = clock_wall();
	char digits[17] = {0};
	uint64_t floor;
	uint32_t rest;

	lock_acquire(&local->lock);
	if (ns <= local->last_ns)
		ns = local->last_ns + 1;
	local->last_ns = ns;
	lock_release(&local->lock);
	/* Not remembered in last_ns: one object from the future must not take all others along. */
	if (after) {
		memcpy(digits, after, sizeof(digits) - 1);
		if (!parse_number(digits, 16, &floor) && floor < INT64_MAX && ns <= (int64_t)floor)
			ns = (int64_t)floor + 1;
	}
	random_bytes(&rest, sizeof(rest));
	format_id(ns, rest, ret_id);
}

/* The identity of what another tool put there. */
static int derive(struct local_object *object)
{
	struct identity id = identity_of(&object->stat);
	char text[LOCAL_ID_SIZE];

	format_id(clock_from_timespec(object->stat.st_ctim), crc32c_update(0, &id, sizeof(id)), text);
	object_info_clear(&object->info);
	object->info = (struct object_info){
		.native_id = strdup(text),
		.modified_ns = clock_from_timespec(object->stat.st_mtim),
	};
	return object->info.native_id ? 0 : -ENOMEM;
}

/* --- reading and writing ----------------------------------------------------------------------------- */

static char *read_attribute(int fd)
{
	char *text = malloc(4096);
	ssize_t len = text ? fgetxattr(fd, STAMP_ATTRIBUTE, text, 4095) : -1;

	if (len < 0 && errno == ERANGE) {
		free(text);
		text = malloc(STAMP_MAX + 1);
		len = text ? fgetxattr(fd, STAMP_ATTRIBUTE, text, STAMP_MAX) : -1;
	}
	if (len < 0) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

static char *sidecar_path(const struct local_place *place, const struct stat *st)
{
	AUTO_FREE char *name = sidecar_name(st);
	AUTO_BUF path = BUF_INIT;

	if (!name)
		return NULL;
	buf_addf(&path, "%s/%s", place->past, name);
	return buf_detach(&path);
}

static char *read_sidecar(struct local *local, const struct local_place *place, const struct stat *st)
{
	AUTO_FREE char *path = sidecar_path(place, st);
	AUTO_CLOSE int fd = path ? local_open(local->root, path, O_RDONLY, 0) : -1;
	struct stat own;
	char *text;

	if (fd < 0 || fstat(fd, &own) || !S_ISREG(own.st_mode) || own.st_size > STAMP_MAX)
		return NULL;
	text = calloc(1, (size_t)own.st_size + 1);
	if (text && pread(fd, text, (size_t)own.st_size, 0) != own.st_size) {
		free(text);
		text = NULL;
	}
	return text;
}

static int try_stamp(char *text, struct local_object *object)
{
	int rc = text ? decode(text, object) : -ENODATA;

	if (rc) {
		object_info_clear(&object->info);
		object->info = (struct object_info){0};
	}
	return rc;
}

int local_stamp_read(struct local *local, const struct local_place *place, struct local_object *object)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *beside = NULL;
	int rc;

	if (fstat(object->fd, &object->stat))
		return -errno;
	text = read_attribute(object->fd);
	rc = try_stamp(text, object);
	if (rc && rc != -ENOMEM) {
		beside = read_sidecar(local, place, &object->stat);
		rc = try_stamp(beside, object);
	}
	object->stamped = rc == 0;
	if (rc && rc != -ENOMEM)
		rc = derive(object);
	if (rc)
		return rc;
	object->info.size = S_ISDIR(object->stat.st_mode) ? 0 : (uint64_t)object->stat.st_size;
	object->info.key = strdup(place->key);
	object->info.etag = strdup(object->info.native_id);
	return object->info.key && object->info.etag ? 0 : -ENOMEM;
}

/* Written aside and renamed: a reader sees the old stamp or the new. */
static int write_sidecar(struct local *local, const struct local_place *place, const struct stat *st,
			 const struct buf *text)
{
	struct local_temp temp = LOCAL_TEMP_NONE;
	AUTO_CLOSE int past = -1;
	AUTO_CLOSE int tmp = -1;
	AUTO_FREE char *name = sidecar_name(st);
	int rc;

	if (!name)
		return -ENOMEM;
	rc = local_past_make(local, place, &past);
	if (rc)
		return rc;
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	rc = tmp < 0 ? tmp : local_temp_make(local, &temp);
	if (rc)
		return rc;
	rc = local_write_all(temp.fd, text->data, text->len, 0);
	if (!rc && fsync(temp.fd))
		rc = -errno;
	if (!rc && renameat(tmp, temp.name, past, name))
		rc = -errno;
	if (!rc) {
		temp.name[0] = '\0';
		rc = fsync(past) ? -errno : 0;
	}
	local_temp_discard(local, &temp);
	return rc;
}

int local_stamp_write(struct local *local, int fd, const struct local_place *place, const struct local_object *object)
{
	AUTO_BUF text = BUF_INIT;

	encode(object, &text);
	if (buf_failed(&text))
		return -ENOMEM;
	if (fsetxattr(fd, STAMP_ATTRIBUTE, text.data, text.len, 0) == 0)
		return 0;
	switch (errno) {
	case ENOTSUP: /* no attributes here */
	case ENOSPC:  /* no room for this one; a full disk will fail the other way as well */
	case E2BIG:
	case ERANGE:
	case EPERM: /* another user's file */
	case EACCES:
		return write_sidecar(local, place, &object->stat, &text);
	default:
		return -errno;
	}
}

void local_stamp_drop(struct local *local, const struct local_place *place, int fd)
{
	AUTO_CLOSE int past = local_open(local->root, place->past, O_RDONLY | O_DIRECTORY, 0);
	AUTO_FREE char *name = NULL;
	struct stat st;

	if (fstat(fd, &st))
		return;
	/* A stamp that stays behind is void or harmless: failures are for the next reader to judge. */
	if (S_ISDIR(st.st_mode))
		(void)fremovexattr(fd, STAMP_ATTRIBUTE);
	name = past >= 0 ? sidecar_name(&st) : NULL;
	if (name)
		(void)unlinkat(past, name, 0);
}

bool local_stamped_dir(struct local *local, const char *path)
{
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_place place;
	AUTO_BUF key = BUF_INIT;
	bool stamped;

	buf_addf(&key, "%s/", path);
	if (buf_failed(&key) || local_place_init(&place, key.data, NULL))
		return false; /* one of our own folders */
	object.fd = local_open(local->root, path, O_RDONLY | O_DIRECTORY, 0);
	stamped = object.fd >= 0 && !local_stamp_read(local, &place, &object) && object.stamped;
	local_object_clear(&object);
	local_place_clear(&place);
	return stamped;
}

void local_object_clear(struct local_object *object)
{
	if (object->fd >= 0)
		(void)close(object->fd); /* only read */
	object_info_clear(&object->info);
	*object = (struct local_object)LOCAL_OBJECT_NONE;
}
