/*
 * schema.h - how the catalog's records lie in the key-value store.
 *
 * Every key is: volume (u32, 0 for now), tag (one byte), then fixed-width
 * big-endian numbers and at most one byte string, so that keys sort as their
 * fields do. Every value begins with a version byte of its own kind.
 *
 *   tag        key fields                    value
 *   META       which                         schema version | store id | a counter
 *   INODE      ino                           the inode
 *   NAME       parent, name                  the live name
 *   COOKIE     parent, cookie                name: readdir order
 *   LINK       ino, since, parent            name: live names of an inode, oldest first
 *   PAST       parent, name, 0, until        the ended name
 *   COMPONENT  parent, name                  key component of a digest name (escape.h); never removed
 *   VERSION    ino, seq                      the version's facts
 *   COPY       ino, seq, n                   where it lies
 *   PLACE      backend, key, native id *     ino, seq of the version lying there: "do we know this object?"
 *   XATTR      ino, name                     value
 *   SYMLINK    ino                           target
 *   KEY        backend, key *                the current object of a key
 *   JOB        seq                           unfinished work
 *   JOB_INODE  ino, seq                      - (index of JOB)
 *   JOB_KEY    key *, 0, seq                 - (index of JOB)
 *   EXTENT     ino                           what the cache file holds
 *   BASED      seq, ino                      - (index of EXTENTs with bytes in another file's version)
 *   DIRTY      ino                           - (index of inodes with CAT_DIRTY)
 *   SETTING    name                          value
 *   FILE       file id                       ino: the first inode that had it
 *   AWAITED    file id, ino                  - an empty file that is a hard link of a file nobody knows yet
 *
 *   * an object key may exceed KV_KEY_MAX: a long one is cut and ends in NUL
 *     and its SHA-256; object keys hold no NUL, so the two never meet.
 *
 * Pure functions on bytes, thread-safe. Decoders check every bound and every
 * enumeration and return -EBADMSG, never trusting the bytes.
 */
#ifndef VARVE_CATALOG_SCHEMA_H
#define VARVE_CATALOG_SCHEMA_H

#include "catalog.h"
#include "catalog/kv.h"

#define SCHEMA_VERSION 1

enum schema_tag {
	SCHEMA_META = 'M',
	SCHEMA_INODE = 'i',
	SCHEMA_NAME = 'n',
	SCHEMA_COOKIE = 'c',
	SCHEMA_LINK = 'l',
	SCHEMA_PAST = 'p',
	SCHEMA_COMPONENT = 'o',
	SCHEMA_VERSION_RECORD = 'v',
	SCHEMA_COPY = 'y',
	SCHEMA_PLACE = 'a',
	SCHEMA_XATTR = 'x',
	SCHEMA_SYMLINK = 's',
	SCHEMA_KEY = 'k',
	SCHEMA_JOB = 'j',
	SCHEMA_JOB_INODE = 'J',
	SCHEMA_JOB_KEY = 'K',
	SCHEMA_EXTENT = 'e',
	SCHEMA_BASED = 'b',
	SCHEMA_DIRTY = 'd',
	SCHEMA_SETTING = 't',
	SCHEMA_FILE = 'f', /* file id -> inode */
	SCHEMA_AWAITED = 'w',
};

enum schema_meta {
	SCHEMA_META_SCHEMA, /* u32 schema, u32 least schema a reader must know */
	SCHEMA_META_STORE,  /* 16 bytes store id */
	SCHEMA_META_SEQ,    /* u64: every sequence number handed out is below */
	SCHEMA_META_INO,    /* u64: likewise for inode numbers */
	SCHEMA_META_CLOCK,  /* u64: every time handed out is below */
};

/* May the record of this key leave the machine? Journal, extents, dirty marks, settings, schema and store id stay;
 * the counters travel, so that a rebuilt catalog never gives a number twice. */
bool schema_is_portable(struct kv_bytes key);

/* --- keys --------------------------------------------------------------------------------------- */

struct schema_key {
	uint8_t bytes[KV_KEY_MAX];
	size_t len;
};
static inline struct kv_bytes schema_bytes(const struct schema_key *key)
{
	return (struct kv_bytes){.data = key->bytes, .len = key->len};
}

/* Up to three numbers and a string, for every tag whose strings are file names. */
void schema_key_begin(struct schema_key *key, enum schema_tag tag);
void schema_key_u8(struct schema_key *key, uint8_t value);
void schema_key_u32(struct schema_key *key, uint32_t value);
void schema_key_u64(struct schema_key *key, uint64_t value);
void schema_key_bytes(struct schema_key *key, const void *bytes, size_t len); /* must fit: names are <= 255 */

void schema_key_meta(struct schema_key *key, enum schema_meta which);
void schema_key_number(struct schema_key *key, enum schema_tag tag, uint64_t number);
void schema_key_pair(struct schema_key *key, enum schema_tag tag, uint64_t first, uint64_t second);
void schema_key_named(struct schema_key *key, enum schema_tag tag, uint64_t number, const char *name);
void schema_key_link(struct schema_key *key, uint64_t ino, uint64_t since, uint64_t parent);
void schema_key_past(struct schema_key *key, uint64_t parent, const char *name, uint64_t until);
void schema_key_copy(struct schema_key *key, uint64_t ino, uint64_t seq, uint32_t n);
void schema_key_object(struct schema_key *key, uint32_t backend, const char *object_key);
/* What all keys that begin with `prefix` begin with; of a long prefix, more than those. */
void schema_key_object_prefix(struct schema_key *key, uint32_t backend, const char *prefix);
void schema_key_place(struct schema_key *key, uint32_t backend, const char *object_key, const char *id);
/* All places of keys that begin so; of a very long prefix some others, too. */
void schema_key_place_prefix(struct schema_key *key, uint32_t backend, const char *prefix);
/* Of all jobs whose keys begin so, as far as is told by the first bytes. */
void schema_key_job_prefix(struct schema_key *key, const char *prefix);
void schema_key_job_key(struct schema_key *key, const char *object_key, uint64_t seq);
void schema_key_file(struct schema_key *key, const uint8_t file_id[static CAT_FILE_ID_SIZE]);
/* ino 0: what all of the file id begin with. */
void schema_key_awaited(struct schema_key *key, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t ino);
void schema_key_setting(struct schema_key *key, const char *name);

/* The least key greater than every key that begins with `prefix`: the end of its scan. */
void schema_key_after(struct schema_key *ret_key, const struct schema_key *prefix);

/* What a key says; fields its tag does not have are 0. */
struct schema_parts {
	enum schema_tag tag;
	uint64_t number; /* ino or parent; the job's seq; META: which */
	uint64_t second; /* seq, cookie, since, until */
	uint64_t third;  /* LINK: parent; COPY: n */
	uint32_t backend;
	const char *name; /* not NUL-terminated; borrowed from the key */
	size_t name_len;
};
int schema_parse(struct kv_bytes key, struct schema_parts *ret_parts);
const char *schema_tag_name(enum schema_tag tag);

/* --- records: encode appends to a buf, decode takes the whole row ---------------------------------- */

void schema_encode_u64(uint64_t value, struct buf *ret_value);
int schema_decode_u64(struct kv_bytes value, uint64_t *ret_number);
void schema_encode_blob(const void *bytes, size_t len, struct buf *ret_value); /* name, target, xattr, setting */
int schema_decode_blob(struct kv_bytes value, struct kv_bytes *ret_blob);      /* borrowed */
/* A blob that is a file name. */
int schema_decode_filename(struct kv_bytes value, char ret_name[static CAT_NAME_MAX + 1]);
void schema_encode_place(uint64_t ino, uint64_t seq, struct buf *ret_value);
int schema_decode_place(struct kv_bytes value, uint64_t *ret_ino, uint64_t *ret_seq);

void schema_encode_inode(const struct cat_inode *inode, struct buf *ret_value);
int schema_decode_inode(struct kv_bytes key, struct kv_bytes value, struct cat_inode *ret_inode);
void schema_encode_name(const struct cat_name *name, struct buf *ret_value);
int schema_decode_name(struct kv_bytes key, struct kv_bytes value, struct cat_name *ret_name);
void schema_encode_past(const struct cat_past *past, struct buf *ret_value);
int schema_decode_past(struct kv_bytes key, struct kv_bytes value, struct cat_past *ret_past);
void schema_encode_version(const struct cat_version *version, struct buf *ret_value);
int schema_decode_version(struct kv_bytes key, struct kv_bytes value, struct cat_version *ret_version);
/* The four below allocate: -ENOMEM. */
void schema_encode_copy(const struct cat_copy *copy, struct buf *ret_value);
int schema_decode_copy(struct kv_bytes key, struct kv_bytes value, struct cat_copy *ret_copy);
/* The object key stands in the record, because the kv key may be a cut one. ret_object_key may be NULL. */
void schema_encode_key(const char *object_key, const struct cat_key *record, struct buf *ret_value);
int schema_decode_key(struct kv_bytes key, struct kv_bytes value, struct cat_key *ret_record, char **ret_object_key);
void schema_encode_job(const struct cat_job *job, struct buf *ret_value);
int schema_decode_job(struct kv_bytes key, struct kv_bytes value, struct cat_job *ret_job);
void schema_encode_extent(const struct cat_extent *extent, struct buf *ret_value);
int schema_decode_extent(struct kv_bytes value, struct cat_extent *ret_extent);
/* The base of one whose base is another file's version; else 0. */
uint64_t schema_extent_based(struct kv_bytes value);

#endif
