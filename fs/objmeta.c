/*
 * objmeta.c - see objmeta.h.
 *
 * Two tables say it all: FIELDS pairs each metadata name with the function
 * that writes it and the one that reads it. A reader returns false for what it
 * cannot take; the field is then absent.
 *
 * Forms met in the wild
 *  - s3fs: mode "33188" (decimal, with type); mtime "1700000000" or "1700000000.000000001".
 *  - rclone: mtime "1700000000.123456789"; with --metadata also mode "100644" (octal, with type).
 *    An octal mode read as decimal has no valid type, but for one: a directory's 41471 is taken for a symlink's.
 */
#include "fs/objmeta.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "transfer.h"

#define VALUE_MAX 96

/* 1901 to 2261: what fits int64 nanoseconds, and no further back than a 32-bit time_t. */
#define SECONDS_MIN (-(INT64_C(1) << 31))
#define SECONDS_MAX INT64_C(9200000000)

static const char *const origin_names[] = {
	[CAT_ORIGIN_CLOSE] = "close",     [CAT_ORIGIN_FSYNC] = "fsync",       [CAT_ORIGIN_RECOVERED] = "recovered",
	[CAT_ORIGIN_SUSPECT] = "suspect", [CAT_ORIGIN_EXTERNAL] = "external", [CAT_ORIGIN_CONFLICT] = "conflict",
};

/* --- numbers and times ------------------------------------------------------------------------- */

/* Digits of `base` and nothing else, at most `max`. */
static bool read_number(const char *text, unsigned base, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned digit = (unsigned char)*text - '0';

		if (digit >= base || value > (max - digit) / base)
			return false;
		value = value * base + digit;
	}
	*ret_value = value;
	return true;
}

static bool read_u32(const char *text, uint32_t *ret_value)
{
	uint64_t value;

	if (!read_number(text, 10, UINT32_MAX, &value))
		return false;
	*ret_value = (uint32_t)value;
	return true;
}

/* "[-]seconds[.fraction]"; digits past the ninth are cut off. */
static bool read_time(const char *text, int64_t *ret_ns)
{
	bool negative = *text == '-';
	int64_t seconds = 0, fraction = 0, unit = NS_PER_SEC;

	text += negative;
	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		seconds = seconds * 10 + (*text - '0');
		if (seconds > SECONDS_MAX)
			return false;
	}
	if (*text == '.') {
		for (text++; *text >= '0' && *text <= '9'; text++) {
			unit /= 10;
			fraction += (*text - '0') * unit;
		}
	}
	if (*text || (negative && -seconds < SECONDS_MIN))
		return false;
	*ret_ns = (negative ? -1 : 1) * (seconds * NS_PER_SEC + fraction);
	return true;
}

static void write_time(int64_t ns, char *ret_text)
{
	uint64_t magnitude = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
	uint64_t fraction = magnitude % (uint64_t)NS_PER_SEC;
	int len = snprintf(ret_text, VALUE_MAX, "%s%" PRIu64, ns < 0 ? "-" : "", magnitude / (uint64_t)NS_PER_SEC);

	if (fraction)
		(void)snprintf(ret_text + len, VALUE_MAX - (size_t)len, ".%09" PRIu64, fraction); /* fits by far */
}

/* --- mode -------------------------------------------------------------------------------------- */

/* A type we take, or none. Symlinks have all permissions everywhere. */
static bool is_mode(uint64_t value)
{
	if (value & ~(uint64_t)(S_IFMT | 07777))
		return false;
	switch (value & S_IFMT) {
	case 0:
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	case S_IFLNK:
		return (value & 07777) == 0777;
	default: /* devices, and what is no type at all */
		return false;
	}
}

static bool read_mode(const char *text, uint32_t *ret_mode)
{
	uint64_t value;
	bool octal = text[0] == '0' && text[1];
	bool ok = !octal && read_number(text, 10, UINT32_MAX, &value) && is_mode(value);

	if (!ok)
		ok = read_number(text, 8, UINT32_MAX, &value) && is_mode(value) && (octal || (value & S_IFMT));
	if (ok)
		*ret_mode = (uint32_t)value & ~(uint32_t)(S_ISUID | S_ISGID);
	return ok;
}

/* --- one reader and one writer a field ----------------------------------------------------------- */

static void write_mode(const struct objmeta *meta, char *ret_text)
{
	(void)snprintf(ret_text, VALUE_MAX, "%" PRIu32, meta->mode);
}

static bool read_mode_field(const char *text, struct objmeta *ret_meta)
{
	return read_mode(text, &ret_meta->mode);
}

#define FIELD_U32(field)                                                                                               \
	static void write_##field(const struct objmeta *meta, char *ret_text)                                          \
	{                                                                                                              \
		(void)snprintf(ret_text, VALUE_MAX, "%" PRIu32, meta->field);                                          \
	}                                                                                                              \
	static bool read_##field(const char *text, struct objmeta *ret_meta)                                           \
	{                                                                                                              \
		return read_u32(text, &ret_meta->field);                                                               \
	}
FIELD_U32(uid)
FIELD_U32(gid)
FIELD_U32(author)

#define FIELD_U64(field)                                                                                               \
	static void write_##field(const struct objmeta *meta, char *ret_text)                                          \
	{                                                                                                              \
		(void)snprintf(ret_text, VALUE_MAX, "%" PRIu64, meta->field);                                          \
	}                                                                                                              \
	static bool read_##field(const char *text, struct objmeta *ret_meta)                                           \
	{                                                                                                              \
		return read_number(text, 10, UINT64_MAX, &ret_meta->field) && ret_meta->field != 0;                    \
	}
FIELD_U64(seq)
FIELD_U64(epoch)

#define FIELD_TIME(field)                                                                                              \
	static void write_##field(const struct objmeta *meta, char *ret_text)                                          \
	{                                                                                                              \
		write_time(meta->field, ret_text);                                                                     \
	}                                                                                                              \
	static bool read_##field(const char *text, struct objmeta *ret_meta)                                           \
	{                                                                                                              \
		return read_time(text, &ret_meta->field);                                                              \
	}
FIELD_TIME(mtime)
FIELD_TIME(atime)
FIELD_TIME(ctime)

#define FIELD_ID(field)                                                                                                \
	static void write_##field(const struct objmeta *meta, char *ret_text)                                          \
	{                                                                                                              \
		hex_encode(meta->field, CAT_FILE_ID_SIZE, ret_text);                                                   \
	}                                                                                                              \
	static bool read_##field(const char *text, struct objmeta *ret_meta)                                           \
	{                                                                                                              \
		return !hex_decode(text, CAT_FILE_ID_SIZE, ret_meta->field);                                           \
	}
FIELD_ID(file_id)
FIELD_ID(link_id)

static void write_commit(const struct objmeta *meta, char *ret_text)
{
	(void)snprintf(ret_text, VALUE_MAX, "%" PRId64, meta->commit_ns);
}

static bool read_commit(const char *text, struct objmeta *ret_meta)
{
	uint64_t ns;

	if (!read_number(text, 10, (uint64_t)(SECONDS_MAX * NS_PER_SEC), &ns))
		return false;
	ret_meta->commit_ns = (int64_t)ns;
	return true;
}

static void write_crc32c(const struct objmeta *meta, char *ret_text)
{
	(void)snprintf(ret_text, VALUE_MAX, "%08" PRIx32, meta->crc32c);
}

static bool read_crc32c(const char *text, struct objmeta *ret_meta)
{
	uint8_t bytes[4];

	if (hex_decode(text, sizeof(bytes), bytes))
		return false;
	ret_meta->crc32c =
		(uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | (uint32_t)bytes[3];
	return true;
}

static void write_origin(const struct objmeta *meta, char *ret_text)
{
	(void)snprintf(ret_text, VALUE_MAX, "%s", origin_names[meta->origin]);
}

static bool read_origin(const char *text, struct objmeta *ret_meta)
{
	for (size_t i = 0; i < ARRAY_SIZE(origin_names); i++) {
		if (!strcmp(text, origin_names[i])) {
			ret_meta->origin = (enum cat_origin)i;
			return true;
		}
	}
	return false;
}

static bool is_printable(char c)
{
	return c > ' ' && c < 0x7f;
}

/* A header must carry it anywhere: what is not printable ASCII becomes '_'. */
static void write_host(const struct objmeta *meta, char *ret_text)
{
	size_t len = strnlen(meta->host, sizeof(meta->host) - 1);

	for (size_t i = 0; i < len; i++)
		ret_text[i] = is_printable(meta->host[i]) ? meta->host[i] : '_';
	ret_text[len] = '\0';
}

static bool read_host(const char *text, struct objmeta *ret_meta)
{
	size_t len = strlen(text);

	if (!len || len >= sizeof(ret_meta->host))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_printable(text[i]))
			return false;
	}
	memcpy(ret_meta->host, text, len + 1);
	return true;
}

static const struct field {
	const char *name;
	enum objmeta_field bit;
	void (*write)(const struct objmeta *meta, char *ret_text); /* at most VALUE_MAX bytes */
	bool (*read)(const char *text, struct objmeta *ret_meta);
} fields[] = {
	{"mode", OBJMETA_MODE, write_mode, read_mode_field},
	{"uid", OBJMETA_UID, write_uid, read_uid},
	{"gid", OBJMETA_GID, write_gid, read_gid},
	{"mtime", OBJMETA_MTIME, write_mtime, read_mtime},
	{"atime", OBJMETA_ATIME, write_atime, read_atime},
	{"ctime", OBJMETA_CTIME, write_ctime, read_ctime},
	{"varve-id", OBJMETA_FILE_ID, write_file_id, read_file_id},
	{"varve-seq", OBJMETA_SEQ, write_seq, read_seq},
	{"varve-commit", OBJMETA_COMMIT, write_commit, read_commit},
	{"varve-origin", OBJMETA_ORIGIN, write_origin, read_origin},
	{"varve-epoch", OBJMETA_EPOCH, write_epoch, read_epoch},
	{"varve-crc32c", OBJMETA_CRC32C, write_crc32c, read_crc32c},
	{"varve-link", OBJMETA_LINK, write_link_id, read_link_id},
	{"varve-author", OBJMETA_AUTHOR, write_author, read_author},
	{"varve-host", OBJMETA_HOST, write_host, read_host},
};

/* --- public ---------------------------------------------------------------------------------------- */

int objmeta_encode(const struct objmeta *meta, struct meta *ret_meta)
{
	const unsigned mark_fields = OBJMETA_FILE_ID | OBJMETA_SEQ | OBJMETA_EPOCH;
	char text[VALUE_MAX];
	int rc = 0;

	*ret_meta = (struct meta){0};
	for (size_t i = 0; i < ARRAY_SIZE(fields) && !rc; i++) {
		if (!(meta->has & fields[i].bit))
			continue;
		fields[i].write(meta, text);
		if (*text)
			rc = meta_set(ret_meta, fields[i].name, text);
	}
	if (!rc && (meta->has & mark_fields) == mark_fields) {
		objmeta_upload_mark(meta, text);
		rc = meta_set(ret_meta, TRANSFER_UPLOAD_META, text);
	}
	if (rc)
		meta_clear(ret_meta);
	return rc;
}

void objmeta_decode(const struct meta *meta, struct objmeta *ret_meta)
{
	struct objmeta decoded = {0};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const char *text = meta_get(meta, fields[i].name);

		if (text && fields[i].read(text, &decoded))
			decoded.has |= fields[i].bit;
	}
	*ret_meta = decoded;
}

#define OWN_MARK "varve"
#define USER "user."
#define TYPE_ATTRIBUTE "user.mime_type"
#define CONTENT_TYPE_MAX 255
#define PAIR_COST 16

static bool is_field(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (!strcmp(name, fields[i].name))
			return true;
	}
	return !strncmp(name, OWN_MARK, strlen(OWN_MARK));
}

/* A media type with its parameters, as any header carries it. */
static bool is_media_type(const char *text)
{
	static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+";
	size_t type = strspn(text, token), len = strlen(text);
	size_t subtype = type && text[type] == '/' ? strspn(text + type + 1, token) : 0;
	const char *rest = text + type + 1 + subtype;

	if (!subtype || len > CONTENT_TYPE_MAX || (*rest && *rest != ';' && *rest != ' '))
		return false;
	for (const char *at = text; *at; at++)
		if (*at < ' ' || *at > '~')
			return false;
	return text[len - 1] != ' ' && !strstr(text, "  ");
}

/* What stores say of an object of which nobody said anything is left out. */
static bool is_chosen_type(const char *text)
{
	return is_media_type(text) && strcmp(text, "application/octet-stream") && strcmp(text, "binary/octet-stream");
}

static void append_pair(struct buf *attributes, const char *name, const char *value)
{
	buf_add(attributes, name, strlen(name) + 1);
	buf_add(attributes, value, strlen(value) + 1);
}

int objmeta_user(const struct object_info *info, uint32_t mode, struct buf *ret_attributes)
{
	bool typed = S_ISREG(mode) && info->content_type && is_chosen_type(info->content_type);

	if (typed)
		append_pair(ret_attributes, TYPE_ATTRIBUTE, info->content_type);
	for (size_t i = 0; i < info->meta.count; i++) {
		const char *name = info->meta.pairs[i].name;

		if (!*name || is_field(name) || strlen(name) > CAT_NAME_MAX - strlen(USER))
			continue;
		if (typed && !strcmp(name, TYPE_ATTRIBUTE + strlen(USER)))
			continue;
		buf_adds(ret_attributes, USER);
		append_pair(ret_attributes, name, info->meta.pairs[i].value);
	}
	return buf_failed(ret_attributes) ? -ENOMEM : 0;
}

int objmeta_take_attribute(void *attributes, const char *name, const void *value, size_t len)
{
	static const char token[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
	const char *own = name + strlen(USER);

	if (strncmp(name, USER, strlen(USER)) || !*own || own[strspn(own, token)] || is_field(own))
		return 0;
	if (len && memchr(value, 0, len))
		return 0;
	buf_add(attributes, name, strlen(name) + 1);
	buf_add(attributes, value, len);
	buf_addc(attributes, '\0');
	return buf_failed(attributes) ? -ENOMEM : 0;
}

/* At the most: stores count the header's prefix or not, and what a header cannot carry is escaped behind a mark. */
static size_t cost(const char *name, const char *value)
{
	size_t bytes = PAIR_COST + strlen(name);

	for (; *value; value++)
		bytes += isalnum((unsigned char)*value) || strchr("-_.~", *value) ? 1 : 3;
	return bytes;
}

static bool is_type_pair(uint32_t mode, const char *name, const char *value)
{
	return S_ISREG(mode) && !strcmp(name, TYPE_ATTRIBUTE) && is_chosen_type(value);
}

struct objmeta_room objmeta_room_in(const struct transfer *transfer)
{
	return (struct objmeta_room){.bytes = transfer_limits(transfer)->max_meta,
				     .any_name = transfer_can(transfer, BACKEND_META_NAMES)};
}

static bool is_taken(const char *name, const char *value, struct objmeta_room room, size_t used)
{
	return used + cost(name, value) <= room.bytes && (room.any_name || !strpbrk(name, "_."));
}

int objmeta_add_user(const struct buf *attributes, uint32_t mode, struct objmeta_room room, struct meta *meta)
{
	const char *value, *end = attributes->data + attributes->len;
	size_t used = 0;
	int rc = 0;

	for (size_t i = 0; i < meta->count; i++)
		used += cost(meta->pairs[i].name, meta->pairs[i].value);
	for (const char *at = attributes->data; !rc && at < end; at = value + strlen(value) + 1) {
		const char *name = at + strlen(USER);

		value = at + strlen(at) + 1;
		if (is_type_pair(mode, at, value) || !is_taken(name, value, room, used))
			continue;
		used += cost(name, value);
		rc = meta_set(meta, name, value);
	}
	return rc;
}

const char *objmeta_content_type(uint32_t mode, const struct buf *attributes)
{
	const char *value, *end = attributes ? attributes->data + attributes->len : NULL;

	if (S_ISDIR(mode))
		return "application/x-directory";
	for (const char *at = attributes ? attributes->data : NULL; at < end; at = value + strlen(value) + 1) {
		value = at + strlen(at) + 1;
		if (is_type_pair(mode, at, value))
			return value;
	}
	return NULL;
}

void objmeta_upload_mark(const struct objmeta *meta, char ret_mark[static OBJMETA_MARK_SIZE])
{
	char id[2 * CAT_FILE_ID_SIZE + 1];

	hex_encode(meta->file_id, CAT_FILE_ID_SIZE, id);
	(void)snprintf(ret_mark, OBJMETA_MARK_SIZE, "%s-%" PRIu64 "-%" PRIu64, id, meta->seq, meta->epoch);
}

bool objmeta_key_is_directory(const char *key)
{
	size_t len = strlen(key);

	return len > 0 && key[len - 1] == '/';
}

bool objmeta_symlink_target(const struct objmeta *meta, const char *body, size_t len, size_t *ret_len)
{
	/* Old versions of s3fs padded the body; ours is the target to the byte, a trailing newline included. */
	if (!(meta->has & OBJMETA_FILE_ID)) {
		while (len > 0 && (!body[len - 1] || body[len - 1] == '\n'))
			len--;
	}
	if (!len || len > OBJMETA_TARGET_MAX || memchr(body, 0, len))
		return false;
	*ret_len = len;
	return true;
}
