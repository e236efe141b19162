/*
 * schema.c - keys and records as bytes; see schema.h.
 *
 * Records only grow at their end, under a new version byte: a decoder knows
 * every version up to its own. Pure functions, no state, any thread.
 */
#include "catalog/schema.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "buf.h"
#include "checksum.h"

#define RECORD_VERSION 1
#define VOLUME 0
#define OBJECT_KEY_CUT 384 /* longer object keys are cut here and completed by a digest */
#define PLACE_KEY_CUT 128  /* keeps places of neighbours together; the digest tells them apart */
#define PLACE_DIGEST 16
#define FLAGS_KNOWN (CAT_DIRTY | CAT_LISTED | CAT_UNRESOLVED | CAT_OWN_ATTRS | CAT_FLUSHED | CAT_DISCARDED | CAT_TAKEN)

/* --- keys --------------------------------------------------------------------------------------- */

void schema_key_begin(struct schema_key *key, enum schema_tag tag)
{
	key->len = 0;
	schema_key_u32(key, VOLUME);
	schema_key_u8(key, (uint8_t)tag);
}

void schema_key_bytes(struct schema_key *key, const void *bytes, size_t len)
{
	assert(len <= sizeof(key->bytes) - key->len);
	memcpy(key->bytes + key->len, bytes, len);
	key->len += len;
}

void schema_key_u8(struct schema_key *key, uint8_t value)
{
	schema_key_bytes(key, &value, 1);
}

void schema_key_u32(struct schema_key *key, uint32_t value)
{
	const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
				  (uint8_t)value};

	schema_key_bytes(key, bytes, sizeof(bytes));
}

void schema_key_u64(struct schema_key *key, uint64_t value)
{
	schema_key_u32(key, (uint32_t)(value >> 32));
	schema_key_u32(key, (uint32_t)value);
}

void schema_key_meta(struct schema_key *key, enum schema_meta which)
{
	schema_key_begin(key, SCHEMA_META);
	schema_key_u8(key, (uint8_t)which);
}

void schema_key_number(struct schema_key *key, enum schema_tag tag, uint64_t number)
{
	schema_key_begin(key, tag);
	schema_key_u64(key, number);
}

void schema_key_pair(struct schema_key *key, enum schema_tag tag, uint64_t first, uint64_t second)
{
	schema_key_number(key, tag, first);
	schema_key_u64(key, second);
}

void schema_key_named(struct schema_key *key, enum schema_tag tag, uint64_t number, const char *name)
{
	schema_key_number(key, tag, number);
	schema_key_bytes(key, name, strlen(name));
}

void schema_key_link(struct schema_key *key, uint64_t ino, uint64_t since, uint64_t parent)
{
	schema_key_pair(key, SCHEMA_LINK, ino, since);
	schema_key_u64(key, parent);
}

void schema_key_past(struct schema_key *key, uint64_t parent, const char *name, uint64_t until)
{
	schema_key_named(key, SCHEMA_PAST, parent, name);
	schema_key_u8(key, 0); /* "a" with its times sorts before "ab" */
	schema_key_u64(key, until);
}

void schema_key_copy(struct schema_key *key, uint64_t ino, uint64_t seq, uint32_t n)
{
	schema_key_pair(key, SCHEMA_COPY, ino, seq);
	schema_key_u32(key, n);
}

static void add_object_key(struct schema_key *key, const char *object_key)
{
	size_t len = strlen(object_key);
	uint8_t digest[SHA256_SIZE];

	if (len <= OBJECT_KEY_CUT) {
		schema_key_bytes(key, object_key, len);
		return;
	}
	sha256_of(object_key, len, digest);
	schema_key_bytes(key, object_key, OBJECT_KEY_CUT);
	schema_key_u8(key, 0);
	schema_key_bytes(key, digest, sizeof(digest));
}

void schema_key_object(struct schema_key *key, uint32_t backend, const char *object_key)
{
	schema_key_begin(key, SCHEMA_KEY);
	schema_key_u32(key, backend);
	add_object_key(key, object_key);
}

void schema_key_object_prefix(struct schema_key *key, uint32_t backend, const char *prefix)
{
	size_t len = strlen(prefix);

	schema_key_begin(key, SCHEMA_KEY);
	schema_key_u32(key, backend);
	schema_key_bytes(key, prefix, len < OBJECT_KEY_CUT ? len : OBJECT_KEY_CUT);
}

void schema_key_place(struct schema_key *key, uint32_t backend, const char *object_key, const char *id)
{
	size_t key_len = strlen(object_key), cut = key_len < PLACE_KEY_CUT ? key_len : PLACE_KEY_CUT;
	uint8_t digests[2 * SHA256_SIZE], digest[SHA256_SIZE];

	/* A digest of digests needs no memory, whatever the lengths. */
	sha256_of(object_key, key_len, digests);
	sha256_of(id, strlen(id), digests + SHA256_SIZE);
	sha256_of(digests, sizeof(digests), digest);
	schema_key_begin(key, SCHEMA_PLACE);
	schema_key_u32(key, backend);
	schema_key_bytes(key, object_key, cut);
	schema_key_u8(key, 0);
	schema_key_bytes(key, digest, PLACE_DIGEST);
}

void schema_key_place_prefix(struct schema_key *key, uint32_t backend, const char *prefix)
{
	size_t len = strlen(prefix);

	schema_key_begin(key, SCHEMA_PLACE);
	schema_key_u32(key, backend);
	schema_key_bytes(key, prefix, len < PLACE_KEY_CUT ? len : PLACE_KEY_CUT);
}

void schema_key_job_prefix(struct schema_key *key, const char *prefix)
{
	size_t len = strlen(prefix);

	schema_key_begin(key, SCHEMA_JOB_KEY);
	schema_key_bytes(key, prefix, len < OBJECT_KEY_CUT ? len : OBJECT_KEY_CUT);
}

void schema_key_job_key(struct schema_key *key, const char *object_key, uint64_t seq)
{
	schema_key_begin(key, SCHEMA_JOB_KEY);
	add_object_key(key, object_key);
	schema_key_u8(key, 0);
	schema_key_u64(key, seq);
}

void schema_key_file(struct schema_key *key, const uint8_t file_id[static CAT_FILE_ID_SIZE])
{
	schema_key_begin(key, SCHEMA_FILE);
	schema_key_bytes(key, file_id, CAT_FILE_ID_SIZE);
}

void schema_key_awaited(struct schema_key *key, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t ino)
{
	schema_key_begin(key, SCHEMA_AWAITED);
	schema_key_bytes(key, file_id, CAT_FILE_ID_SIZE);
	if (ino)
		schema_key_u64(key, ino);
}

void schema_key_setting(struct schema_key *key, const char *name)
{
	schema_key_begin(key, SCHEMA_SETTING);
	schema_key_bytes(key, name, strlen(name));
}

void schema_key_after(struct schema_key *ret_key, const struct schema_key *prefix)
{
	*ret_key = *prefix;
	while (ret_key->len > 0 && ret_key->bytes[ret_key->len - 1] == 0xff)
		ret_key->len--;
	assert(ret_key->len > 0); /* the volume is never ffffffff */
	ret_key->bytes[ret_key->len - 1]++;
}

/* What follows the tag in keys of each kind. */
struct layout {
	enum schema_tag tag;
	const char *name;
	uint8_t numbers; /* u64 fields */
	enum { TAIL_NONE, TAIL_U8, TAIL_U32, TAIL_NAME, TAIL_NAME_NUMBER, TAIL_OBJECT } tail;
	bool portable;
};

static const struct layout layouts[] = {
	{SCHEMA_META, "meta", 0, TAIL_U8, false},
	{SCHEMA_INODE, "inode", 1, TAIL_NONE, true},
	{SCHEMA_NAME, "name", 1, TAIL_NAME, true},
	{SCHEMA_COOKIE, "cookie", 2, TAIL_NONE, true},
	{SCHEMA_LINK, "link", 3, TAIL_NONE, true},
	{SCHEMA_PAST, "past name", 1, TAIL_NAME_NUMBER, true},
	{SCHEMA_COMPONENT, "component", 1, TAIL_NAME, true},
	{SCHEMA_VERSION_RECORD, "version", 2, TAIL_NONE, true},
	{SCHEMA_COPY, "copy", 2, TAIL_U32, true},
	{SCHEMA_PLACE, "place", 0, TAIL_OBJECT, true},
	{SCHEMA_XATTR, "xattr", 1, TAIL_NAME, true},
	{SCHEMA_SYMLINK, "symlink", 1, TAIL_NONE, true},
	{SCHEMA_KEY, "key", 0, TAIL_OBJECT, true},
	{SCHEMA_JOB, "job", 1, TAIL_NONE, false},
	{SCHEMA_JOB_INODE, "job of inode", 2, TAIL_NONE, false},
	{SCHEMA_JOB_KEY, "job of key", 0, TAIL_NAME_NUMBER, false},
	{SCHEMA_EXTENT, "extent", 1, TAIL_NONE, false},
	{SCHEMA_BASED, "based on", 2, TAIL_NONE, false},
	{SCHEMA_DIRTY, "dirty", 1, TAIL_NONE, false},
	{SCHEMA_SETTING, "setting", 0, TAIL_NAME, false},
	{SCHEMA_FILE, "file id", 0, TAIL_NAME, true},
	{SCHEMA_AWAITED, "awaited file", 0, TAIL_NAME, true},
};

static const struct layout *layout_of(uint8_t tag)
{
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		if ((uint8_t)layouts[i].tag == tag)
			return &layouts[i];
	}
	return NULL;
}

const char *schema_tag_name(enum schema_tag tag)
{
	const struct layout *layout = layout_of((uint8_t)tag);

	return layout ? layout->name : "unknown";
}

static void parse_tail(struct cursor *at, const struct layout *layout, struct schema_parts *parts)
{
	size_t left = (size_t)(at->end - at->at), suffix = 0;

	switch (layout->tail) {
	case TAIL_NONE:
		return;
	case TAIL_U8:
		parts->number = cursor_u8(at);
		return;
	case TAIL_U32:
		parts->third = cursor_u32(at);
		return;
	case TAIL_OBJECT:
		parts->backend = cursor_u32(at);
		left -= left < 4 ? left : 4;
		break;
	case TAIL_NAME_NUMBER:
		suffix = 9;
		break;
	case TAIL_NAME:
		break;
	}
	if (at->failed || left <= suffix) {
		at->failed = true;
		return;
	}
	parts->name_len = left - suffix;
	parts->name = (const char *)cursor_bytes(at, parts->name_len);
	if (suffix) {
		if (cursor_u8(at) != 0)
			at->failed = true;
		parts->second = cursor_u64(at);
	}
}

int schema_parse(struct kv_bytes key, struct schema_parts *ret_parts)
{
	struct cursor at = cursor_of(key.data, key.len);
	uint32_t volume = cursor_u32(&at);
	uint8_t tag = cursor_u8(&at);
	const struct layout *layout = layout_of(tag);
	struct schema_parts parts = {0};

	if (at.failed || volume != VOLUME || !layout)
		return -EBADMSG;
	parts.tag = layout->tag;
	if (layout->numbers > 0)
		parts.number = cursor_u64(&at);
	if (layout->numbers > 1)
		parts.second = cursor_u64(&at);
	if (layout->numbers > 2)
		parts.third = cursor_u64(&at);
	parse_tail(&at, layout, &parts);
	if (at.failed || at.at != at.end)
		return -EBADMSG;
	*ret_parts = parts;
	return 0;
}

bool schema_is_portable(struct kv_bytes key)
{
	const uint8_t *bytes = key.data;
	const struct layout *layout;

	if (key.len < 5)
		return false;
	layout = layout_of(bytes[4]);
	if (!layout)
		return false;
	if (layout->tag == SCHEMA_META)
		return key.len == 6 &&
		       (bytes[5] == SCHEMA_META_SEQ || bytes[5] == SCHEMA_META_INO || bytes[5] == SCHEMA_META_CLOCK);
	return layout->portable;
}

/* --- pieces of records -------------------------------------------------------------------------- */

static struct cursor record_begin(struct kv_bytes value)
{
	struct cursor at = cursor_of(value.data, value.len);

	if (cursor_u8(&at) != RECORD_VERSION)
		at.failed = true;
	return at;
}

static int record_end(const struct cursor *at)
{
	return at->failed || at->at != at->end ? -EBADMSG : 0;
}

/* A number below `limit`. */
static uint32_t take_enum(struct cursor *at, uint32_t limit)
{
	uint8_t value = cursor_u8(at);

	if (value >= limit) {
		at->failed = true;
		return 0;
	}
	return value;
}

static bool is_type(uint32_t type)
{
	switch (type) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return true;
	default:
		return false;
	}
}

static uint32_t take_type(struct cursor *at)
{
	uint32_t type = (uint32_t)cursor_u16(at);

	if (!is_type(type))
		at->failed = true;
	return type;
}

/* A name of at most CAT_NAME_MAX bytes without NUL and '/'; empty is allowed. */
static void take_name(struct cursor *at, char *ret_name)
{
	size_t len = 0;
	const uint8_t *bytes = cursor_blob(at, &len);

	if (at->failed || len > CAT_NAME_MAX || (len && (memchr(bytes, 0, len) || memchr(bytes, '/', len)))) {
		at->failed = true;
		return;
	}
	if (len)
		memcpy(ret_name, bytes, len);
	ret_name[len] = '\0';
}

static int name_from_parts(const struct schema_parts *parts, char *ret_name)
{
	if (parts->name_len == 0 || parts->name_len > CAT_NAME_MAX || memchr(parts->name, 0, parts->name_len) ||
	    memchr(parts->name, '/', parts->name_len))
		return -EBADMSG;
	memcpy(ret_name, parts->name, parts->name_len);
	ret_name[parts->name_len] = '\0';
	return 0;
}

static void add_string(struct buf *value, const char *string)
{
	buf_add_u8(value, string != NULL);
	if (string)
		buf_add_blob(value, string, strlen(string));
}

/* A malloc'd string or NULL. */
static int take_string(struct cursor *at, char **ret_string)
{
	uint8_t there = cursor_u8(at);
	const uint8_t *bytes;
	char *string;
	size_t len = 0;

	*ret_string = NULL;
	if (there > 1)
		at->failed = true;
	if (at->failed || !there)
		return 0;
	bytes = cursor_blob(at, &len);
	if (at->failed || (len && memchr(bytes, 0, len))) {
		at->failed = true;
		return 0;
	}
	string = malloc(len + 1);
	if (!string)
		return -ENOMEM;
	if (len)
		memcpy(string, bytes, len);
	string[len] = '\0';
	*ret_string = string;
	return 0;
}

static int parse_as(struct kv_bytes key, enum schema_tag tag, struct schema_parts *ret_parts)
{
	struct schema_parts parts;
	int rc = schema_parse(key, &parts);

	if (rc < 0)
		return rc;
	if (parts.tag != tag)
		return -EBADMSG;
	*ret_parts = parts;
	return 0;
}

/* --- small records ------------------------------------------------------------------------------ */

void schema_encode_u64(uint64_t value, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u64(ret_value, value);
}

int schema_decode_u64(struct kv_bytes value, uint64_t *ret_number)
{
	struct cursor at = record_begin(value);
	uint64_t number = cursor_u64(&at);

	if (record_end(&at) < 0)
		return -EBADMSG;
	*ret_number = number;
	return 0;
}

void schema_encode_blob(const void *bytes, size_t len, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_blob(ret_value, bytes, len);
}

int schema_decode_blob(struct kv_bytes value, struct kv_bytes *ret_blob)
{
	struct cursor at = record_begin(value);
	size_t len = 0;
	const uint8_t *bytes = cursor_blob(&at, &len);

	if (record_end(&at) < 0)
		return -EBADMSG;
	*ret_blob = (struct kv_bytes){.data = bytes, .len = len};
	return 0;
}

int schema_decode_filename(struct kv_bytes value, char ret_name[static CAT_NAME_MAX + 1])
{
	struct cursor at = record_begin(value);
	char name[CAT_NAME_MAX + 1] = "";

	take_name(&at, name);
	if (record_end(&at) < 0 || !name[0])
		return -EBADMSG;
	memcpy(ret_name, name, sizeof(name));
	return 0;
}

void schema_encode_place(uint64_t ino, uint64_t seq, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u64(ret_value, ino);
	buf_add_u64(ret_value, seq);
}

int schema_decode_place(struct kv_bytes value, uint64_t *ret_ino, uint64_t *ret_seq)
{
	struct cursor at = record_begin(value);
	uint64_t ino = cursor_u64(&at), seq = cursor_u64(&at);

	if (record_end(&at) < 0)
		return -EBADMSG;
	*ret_ino = ino;
	*ret_seq = seq;
	return 0;
}

/* --- inode -------------------------------------------------------------------------------------- */

void schema_encode_inode(const struct cat_inode *inode, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u32(ret_value, inode->flags);
	buf_add(ret_value, inode->file_id, sizeof(inode->file_id));
	buf_add_u32(ret_value, inode->mode);
	buf_add_u32(ret_value, inode->uid);
	buf_add_u32(ret_value, inode->gid);
	buf_add_u32(ret_value, inode->nlink);
	buf_add_u32(ret_value, inode->rdev);
	buf_add_u64(ret_value, inode->size);
	buf_add_u64(ret_value, (uint64_t)inode->atime);
	buf_add_u64(ret_value, (uint64_t)inode->mtime);
	buf_add_u64(ret_value, (uint64_t)inode->ctime);
	buf_add_u64(ret_value, (uint64_t)inode->btime);
	buf_add_u64(ret_value, inode->parent);
	buf_add_u64(ret_value, S_ISDIR(inode->mode) ? inode->past_dir : inode->version);
	buf_add_u64(ret_value, S_ISDIR(inode->mode) ? (uint64_t)inode->listed_at : inode->taken);
}

int schema_decode_inode(struct kv_bytes key, struct kv_bytes value, struct cat_inode *ret_inode)
{
	struct cursor at = record_begin(value);
	struct cat_inode inode = {0};
	struct schema_parts parts;
	const uint8_t *file_id;
	int rc = parse_as(key, SCHEMA_INODE, &parts);

	if (rc < 0)
		return rc;
	inode.ino = parts.number;
	inode.flags = cursor_u32(&at);
	file_id = cursor_bytes(&at, sizeof(inode.file_id));
	if (file_id)
		memcpy(inode.file_id, file_id, sizeof(inode.file_id));
	inode.mode = cursor_u32(&at);
	inode.uid = cursor_u32(&at);
	inode.gid = cursor_u32(&at);
	inode.nlink = cursor_u32(&at);
	inode.rdev = cursor_u32(&at);
	inode.size = cursor_u64(&at);
	inode.atime = (int64_t)cursor_u64(&at);
	inode.mtime = (int64_t)cursor_u64(&at);
	inode.ctime = (int64_t)cursor_u64(&at);
	inode.btime = (int64_t)cursor_u64(&at);
	inode.parent = cursor_u64(&at);
	*(S_ISDIR(inode.mode) ? &inode.past_dir : &inode.version) = cursor_u64(&at);
	if (S_ISDIR(inode.mode))
		inode.listed_at = (int64_t)cursor_u64(&at);
	else
		inode.taken = cursor_u64(&at);
	if (record_end(&at) < 0 || !is_type(inode.mode & S_IFMT) || inode.flags & ~(uint32_t)FLAGS_KNOWN)
		return -EBADMSG;
	*ret_inode = inode;
	return 0;
}

/* --- names -------------------------------------------------------------------------------------- */

void schema_encode_name(const struct cat_name *name, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u64(ret_value, name->ino);
	buf_add_u64(ret_value, name->since);
	buf_add_u64(ret_value, (uint64_t)name->since_ns);
	buf_add_u64(ret_value, name->cookie);
	buf_add_u16(ret_value, (uint16_t)name->type);
	buf_add_u8(ret_value, (uint8_t)name->how);
	buf_add_u64(ret_value, name->from_parent);
	buf_add_blob(ret_value, name->from_name, strlen(name->from_name));
}

int schema_decode_name(struct kv_bytes key, struct kv_bytes value, struct cat_name *ret_name)
{
	struct cursor at = record_begin(value);
	struct cat_name name;
	struct schema_parts parts;
	int rc = parse_as(key, SCHEMA_NAME, &parts);

	if (rc == 0)
		rc = name_from_parts(&parts, name.name);
	if (rc < 0)
		return rc;
	name.parent = parts.number;
	name.ino = cursor_u64(&at);
	name.since = cursor_u64(&at);
	name.since_ns = (int64_t)cursor_u64(&at);
	name.cookie = cursor_u64(&at);
	name.type = take_type(&at);
	name.how = (enum cat_how)take_enum(&at, CAT_HOW_VANISH + 1);
	name.from_parent = cursor_u64(&at);
	take_name(&at, name.from_name);
	if (record_end(&at) < 0)
		return -EBADMSG;
	*ret_name = name;
	return 0;
}

void schema_encode_past(const struct cat_past *past, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u64(ret_value, past->ino);
	buf_add_u64(ret_value, past->since);
	buf_add_u64(ret_value, (uint64_t)past->since_ns);
	buf_add_u64(ret_value, (uint64_t)past->until_ns);
	buf_add_u16(ret_value, (uint16_t)past->type);
	buf_add_u8(ret_value, (uint8_t)past->began);
	buf_add_u8(ret_value, (uint8_t)past->ended);
	buf_add_u32(ret_value, past->actor);
	buf_add_u64(ret_value, past->from_parent);
	buf_add_u64(ret_value, past->to_parent);
	buf_add_blob(ret_value, past->from_name, strlen(past->from_name));
	buf_add_blob(ret_value, past->to_name, strlen(past->to_name));
}

int schema_decode_past(struct kv_bytes key, struct kv_bytes value, struct cat_past *ret_past)
{
	struct cursor at = record_begin(value);
	struct cat_past past;
	struct schema_parts parts;
	int rc = parse_as(key, SCHEMA_PAST, &parts);

	if (rc == 0)
		rc = name_from_parts(&parts, past.name);
	if (rc < 0)
		return rc;
	past.parent = parts.number;
	past.until = parts.second;
	past.ino = cursor_u64(&at);
	past.since = cursor_u64(&at);
	past.since_ns = (int64_t)cursor_u64(&at);
	past.until_ns = (int64_t)cursor_u64(&at);
	past.type = take_type(&at);
	past.began = (enum cat_how)take_enum(&at, CAT_HOW_VANISH + 1);
	past.ended = (enum cat_how)take_enum(&at, CAT_HOW_VANISH + 1);
	past.actor = cursor_u32(&at);
	past.from_parent = cursor_u64(&at);
	past.to_parent = cursor_u64(&at);
	take_name(&at, past.from_name);
	take_name(&at, past.to_name);
	if (record_end(&at) < 0)
		return -EBADMSG;
	*ret_past = past;
	return 0;
}

/* --- versions and copies ------------------------------------------------------------------------ */

void schema_encode_version(const struct cat_version *version, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u8(ret_value, (uint8_t)version->state);
	buf_add_u8(ret_value, (uint8_t)version->origin);
	buf_add_u32(ret_value, version->flags);
	buf_add_u64(ret_value, version->size);
	buf_add_u64(ret_value, (uint64_t)version->mtime);
	buf_add_u64(ret_value, (uint64_t)version->commit_ns);
	buf_add_u64(ret_value, (uint64_t)version->shown_ms);
	buf_add_u32(ret_value, version->identity);
	buf_add_u32(ret_value, version->mode);
	buf_add_u32(ret_value, version->uid);
	buf_add_u32(ret_value, version->gid);
	buf_add_u32(ret_value, version->author);
	buf_add_u32(ret_value, version->crc32c);
	buf_add_blob(ret_value, version->host, strnlen(version->host, sizeof(version->host) - 1));
	if (version->flags & CAT_RETAINED)
		buf_add_u64(ret_value, (uint64_t)version->retain_until_ns);
}

int schema_decode_version(struct kv_bytes key, struct kv_bytes value, struct cat_version *ret_version)
{
	struct cursor at = record_begin(value);
	struct cat_version version = {0};
	struct schema_parts parts;
	const uint8_t *host;
	size_t host_len = 0;
	int rc = parse_as(key, SCHEMA_VERSION_RECORD, &parts);

	if (rc < 0)
		return rc;
	version.ino = parts.number;
	version.seq = parts.second;
	version.state = (enum cat_state)take_enum(&at, CAT_EXPIRED + 1);
	version.origin = (enum cat_origin)take_enum(&at, CAT_ORIGIN_CONFLICT + 1);
	version.flags = cursor_u32(&at);
	version.size = cursor_u64(&at);
	version.mtime = (int64_t)cursor_u64(&at);
	version.commit_ns = (int64_t)cursor_u64(&at);
	version.shown_ms = (int64_t)cursor_u64(&at);
	version.identity = cursor_u32(&at);
	version.mode = cursor_u32(&at);
	version.uid = cursor_u32(&at);
	version.gid = cursor_u32(&at);
	version.author = cursor_u32(&at);
	version.crc32c = cursor_u32(&at);
	host = cursor_blob(&at, &host_len);
	if (version.flags & CAT_RETAINED)
		version.retain_until_ns = (int64_t)cursor_u64(&at);
	if (record_end(&at) < 0 || host_len >= sizeof(version.host) || (host_len && memchr(host, 0, host_len)))
		return -EBADMSG;
	if (host_len)
		memcpy(version.host, host, host_len);
	*ret_version = version;
	return 0;
}

void schema_encode_copy(const struct cat_copy *copy, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u32(ret_value, copy->backend);
	buf_add_u8(ret_value, (uint8_t)copy->state);
	buf_add_u64(ret_value, (uint64_t)copy->stored_ns);
	add_string(ret_value, copy->key);
	add_string(ret_value, copy->native_id);
	add_string(ret_value, copy->etag);
	add_string(ret_value, copy->storage_class);
}

int schema_decode_copy(struct kv_bytes key, struct kv_bytes value, struct cat_copy *ret_copy)
{
	struct cursor at = record_begin(value);
	struct cat_copy copy = {0};
	struct schema_parts parts;
	int rc = parse_as(key, SCHEMA_COPY, &parts);

	if (rc < 0)
		return rc;
	copy.ino = parts.number;
	copy.seq = parts.second;
	copy.n = (uint32_t)parts.third;
	copy.backend = cursor_u32(&at);
	copy.state = (enum cat_state)take_enum(&at, CAT_EXPIRED + 1);
	copy.stored_ns = (int64_t)cursor_u64(&at);
	rc = take_string(&at, &copy.key);
	if (rc == 0)
		rc = take_string(&at, &copy.native_id);
	if (rc == 0)
		rc = take_string(&at, &copy.etag);
	if (rc == 0)
		rc = take_string(&at, &copy.storage_class);
	if (rc == 0 && (record_end(&at) < 0 || !copy.key))
		rc = -EBADMSG;
	if (rc < 0)
		cat_copy_clear(&copy);
	else
		*ret_copy = copy;
	return rc;
}

void schema_encode_key(const char *object_key, const struct cat_key *record, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u8(ret_value, (uint8_t)record->kind);
	buf_add_u64(ret_value, record->ino);
	buf_add_u64(ret_value, record->seq);
	add_string(ret_value, object_key);
	add_string(ret_value, record->native_id);
	add_string(ret_value, record->etag);
}

int schema_decode_key(struct kv_bytes key, struct kv_bytes value, struct cat_key *ret_record, char **ret_object_key)
{
	struct cursor at = record_begin(value);
	struct cat_key record = {0};
	struct schema_parts parts;
	char *object_key = NULL;
	int rc = parse_as(key, SCHEMA_KEY, &parts);

	if (rc < 0)
		return rc;
	record.backend = parts.backend;
	record.kind = (enum cat_key_kind)take_enum(&at, CAT_KEY_SPECIAL + 1);
	record.ino = cursor_u64(&at);
	record.seq = cursor_u64(&at);
	rc = take_string(&at, &object_key);
	if (rc == 0)
		rc = take_string(&at, &record.native_id);
	if (rc == 0)
		rc = take_string(&at, &record.etag);
	if (rc == 0 && (record_end(&at) < 0 || !object_key))
		rc = -EBADMSG;
	if (rc < 0 || !ret_object_key)
		free(object_key);
	if (rc < 0) {
		cat_key_clear(&record);
		return rc;
	}
	*ret_record = record;
	if (ret_object_key)
		*ret_object_key = object_key;
	return 0;
}

/* --- journal and cache -------------------------------------------------------------------------- */

void schema_encode_job(const struct cat_job *job, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u8(ret_value, (uint8_t)job->type);
	buf_add_u64(ret_value, job->ino);
	buf_add_u64(ret_value, job->version);
	buf_add_u32(ret_value, job->stage);
	buf_add_u32(ret_value, job->attempts);
	buf_add_u64(ret_value, (uint64_t)job->next_try_ns);
	add_string(ret_value, job->key);
	add_string(ret_value, job->note);
	if (job->sent)
		add_string(ret_value, job->sent);
}

int schema_decode_job(struct kv_bytes key, struct kv_bytes value, struct cat_job *ret_job)
{
	struct cursor at = record_begin(value);
	struct cat_job job = {0};
	struct schema_parts parts;
	int rc = parse_as(key, SCHEMA_JOB, &parts);

	if (rc < 0)
		return rc;
	job.seq = parts.number;
	job.type = (enum cat_job_type)take_enum(&at, CAT_JOB_LOCK + 1);
	job.ino = cursor_u64(&at);
	job.version = cursor_u64(&at);
	job.stage = cursor_u32(&at);
	job.attempts = cursor_u32(&at);
	job.next_try_ns = (int64_t)cursor_u64(&at);
	rc = take_string(&at, &job.key);
	if (rc == 0)
		rc = take_string(&at, &job.note);
	if (rc == 0 && at.at < at.end)
		rc = take_string(&at, &job.sent);
	if (rc == 0)
		rc = record_end(&at);
	if (rc < 0)
		cat_job_clear(&job);
	else
		*ret_job = job;
	return rc;
}

#define EXTENT_SYNCED 1
#define EXTENT_BASED 2 /* base_ino and base_after follow at the end */

void schema_encode_extent(const struct cat_extent *extent, struct buf *ret_value)
{
	buf_add_u8(ret_value, RECORD_VERSION);
	buf_add_u64(ret_value, extent->base);
	buf_add_u64(ret_value, extent->base_limit);
	buf_add(ret_value, extent->boot_id, sizeof(extent->boot_id));
	buf_add_u8(ret_value, (extent->synced ? EXTENT_SYNCED : 0) | (extent->base_ino ? EXTENT_BASED : 0));
	ranges_encode(&extent->present, ret_value);
	ranges_encode(&extent->dirty, ret_value);
	if (!extent->base_ino)
		return;
	buf_add_u64(ret_value, extent->base_ino);
	buf_add_u64(ret_value, extent->base_after);
}

/* What comes before the ranges. */
static struct cursor extent_begin(struct kv_bytes value, struct cat_extent *ret_extent, uint8_t *ret_flags)
{
	struct cursor at = record_begin(value);
	const uint8_t *boot_id;

	ret_extent->base = cursor_u64(&at);
	ret_extent->base_limit = cursor_u64(&at);
	boot_id = cursor_bytes(&at, sizeof(ret_extent->boot_id));
	if (boot_id)
		memcpy(ret_extent->boot_id, boot_id, sizeof(ret_extent->boot_id));
	*ret_flags = take_enum(&at, 2 * EXTENT_BASED);
	ret_extent->synced = *ret_flags & EXTENT_SYNCED;
	return at;
}

uint64_t schema_extent_based(struct kv_bytes value)
{
	struct cat_extent extent = {0};
	uint8_t flags;
	struct cursor at = extent_begin(value, &extent, &flags);

	return !at.failed && flags & EXTENT_BASED ? extent.base : 0;
}

int schema_decode_extent(struct kv_bytes value, struct cat_extent *ret_extent)
{
	struct cat_extent extent = {0};
	uint8_t flags;
	struct cursor at = extent_begin(value, &extent, &flags);
	int rc;

	rc = at.failed ? -EBADMSG : ranges_decode(&extent.present, &at);
	if (rc == 0)
		rc = ranges_decode(&extent.dirty, &at);
	if (rc == 0 && flags & EXTENT_BASED) {
		extent.base_ino = cursor_u64(&at);
		extent.base_after = cursor_u64(&at);
	}
	if (rc == 0)
		rc = record_end(&at);
	if (rc < 0)
		cat_extent_clear(&extent);
	else
		*ret_extent = extent;
	return rc;
}
