/*
 * objmeta.h - what an object's user metadata says of a file, and how it says it.
 *
 * Written so that s3fs and rclone read the same bucket: `mode` in decimal with
 * its type bits, `uid`, `gid`, `mtime` `atime` `ctime` as seconds with an
 * optional fraction. Ours are beside them under "varve-…".
 *
 * Beside those lies what users say of the file: metadata that is no field is
 * the attribute user.NAME and back again, and the object's content type is
 * user.mime_type, as the desktops name it.
 *
 * Decoding is tolerant and trusts nothing: a value that makes no sense is as if
 * it were absent; setuid, setgid and device nodes never come from a bucket.
 * Pure functions: no state, no threads.
 */
#ifndef VARVE_FS_OBJMETA_H
#define VARVE_FS_OBJMETA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "catalog.h"
#include "varve/backend.h"

struct transfer;

/* Which fields of a struct objmeta are set. */
enum objmeta_field {
	OBJMETA_MODE = 1 << 0,
	OBJMETA_UID = 1 << 1,
	OBJMETA_GID = 1 << 2,
	OBJMETA_MTIME = 1 << 3,
	OBJMETA_ATIME = 1 << 4,
	OBJMETA_CTIME = 1 << 5,
	OBJMETA_FILE_ID = 1 << 6,
	OBJMETA_SEQ = 1 << 7,
	OBJMETA_COMMIT = 1 << 8,
	OBJMETA_ORIGIN = 1 << 9,
	OBJMETA_EPOCH = 1 << 10,
	OBJMETA_CRC32C = 1 << 11,
	OBJMETA_LINK = 1 << 12,
	OBJMETA_AUTHOR = 1 << 13,
	OBJMETA_HOST = 1 << 14,
};

struct objmeta {
	unsigned has;  /* enum objmeta_field */
	uint32_t mode; /* with type; type 0 when the object says only permissions */
	uint32_t uid, gid;
	int64_t mtime, atime, ctime;       /* wall ns */
	uint8_t file_id[CAT_FILE_ID_SIZE]; /* varve-id */
	uint64_t seq;                      /* varve-seq */
	int64_t commit_ns;                 /* varve-commit */
	enum cat_origin origin;            /* varve-origin */
	uint64_t epoch;                    /* varve-epoch: of the lease under which it was written */
	uint32_t crc32c;                   /* varve-crc32c */
	uint8_t link_id[CAT_FILE_ID_SIZE]; /* varve-link: the object is a hard-link marker naming this file */
	uint32_t author;                   /* varve-author: uid */
	char host[64];                     /* varve-host: printable ASCII */
};

/* Sets what `meta` has; with file id, seq and epoch also TRANSFER_UPLOAD_META. *ret_meta is new: the caller clears it.
 * -ENOMEM, and then *ret_meta is empty. */
int objmeta_encode(const struct objmeta *meta, struct meta *ret_meta);

/* Always succeeds: what cannot be understood is absent. */
void objmeta_decode(const struct meta *meta, struct objmeta *ret_meta);

/* Appends what users said of the object, by which nobody means a field of ours: "user.NAME", NUL, value, NUL for each.
 * With the mode that a file has by the metadata. -ENOMEM. */
int objmeta_user(const struct object_info *info, uint32_t mode, struct buf *ret_attributes);

/* The way back. Appends an attribute in that form to `attributes`, a struct buf, if an object could carry it: for
 * cat_xattr_each. -ENOMEM. */
int objmeta_take_attribute(void *attributes, const char *name, const void *value, size_t len);
/* Adds those to *meta, in their order, that the store takes beside what it has already. The one that is the object's
 * content type is none of them. -ENOMEM. */
struct objmeta_room {
	size_t bytes;  /* backend_limits.max_meta */
	bool any_name; /* BACKEND_META_NAMES */
};
struct objmeta_room objmeta_room_in(const struct transfer *transfer);
int objmeta_add_user(const struct buf *attributes, uint32_t mode, struct objmeta_room room, struct meta *meta);

/* "<file id>-<seq>-<epoch>": the mark under which a lost reply is looked for. */
#define OBJMETA_MARK_SIZE 80
void objmeta_upload_mark(const struct objmeta *meta, char ret_mark[static OBJMETA_MARK_SIZE]);

/* What an object of this mode, with what objmeta_take_attribute gathered, is sent as; NULL: the store's default.
 * Borrowed from `attributes`, which may be NULL. */
const char *objmeta_content_type(uint32_t mode, const struct buf *attributes);

/* A directory's object is its key with a '/' behind it, as s3fs, the consoles and rclone make them. */
bool objmeta_key_is_directory(const char *key);

/* The length of the target in a symlink object's body. False: it cannot be one. */
#define OBJMETA_TARGET_MAX 4095
bool objmeta_symlink_target(const struct objmeta *meta, const char *body, size_t len, size_t *ret_len);

#endif
