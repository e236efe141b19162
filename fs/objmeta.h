/*
 * objmeta.h - what an object's user metadata says of a file, and how it says it.
 *
 * Written so that s3fs and rclone read the same bucket: `mode` in decimal with
 * its type bits, `uid`, `gid`, `mtime` `atime` `ctime` as seconds with an
 * optional fraction. Ours are beside them under "varve-…".
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
 * -ENOMEM. */
int objmeta_user(const struct meta *meta, struct buf *ret_attributes);

/* "<file id>-<seq>-<epoch>": the mark under which a lost reply is looked for. */
#define OBJMETA_MARK_SIZE 80
void objmeta_upload_mark(const struct objmeta *meta, char ret_mark[static OBJMETA_MARK_SIZE]);

/* What an object of this mode is sent as; NULL: the store's default. */
const char *objmeta_content_type(uint32_t mode);

/* A directory's object is its key with a '/' behind it, as s3fs, the consoles and rclone make them. */
bool objmeta_key_is_directory(const char *key);

/* The length of the target in a symlink object's body. False: it cannot be one. */
#define OBJMETA_TARGET_MAX 4095
bool objmeta_symlink_target(const struct objmeta *meta, const char *body, size_t len, size_t *ret_len);

#endif
