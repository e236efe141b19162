/*
 * memory.h - a store in this process's memory: the twin of a versioned S3, for
 * tests.
 *
 * memory://NAME?OPTION=VALUE&…   All opens of one NAME share the store, so a
 * "remount" finds what was stored; it lasts until memory_forget or exit. A NAME
 * not seen before is a bucket that does not exist: probe says ERR_NOT_FOUND
 * unless options.create. Options belong to the handle, not to the store:
 *      versions=0        overwrite and remove keep nothing, native ids are NULL
 *      if_match=0 if_none_match=0 remove_if_match=0 copy=0 part_copy=0 multipart=0 crc32c=0
 *                        the capability is missing; a condition sent all the same is ERR_UNSUPPORTED
 *      part_min=BYTES    limits.min_part, 5 MiB unless said
 *      page=N            entries in a listing's page when the request names none, 1000 unless said
 *
 * Like S3: keys of 1..1024 bytes, 2 KiB of metadata, etags that are the
 * content's MD5 (the same content, the same etag), ids in no order, a delete
 * marker even for a key that was not there.
 *
 * Thread-safe.
 */
#ifndef VARVE_BACKENDS_MEMORY_H
#define VARVE_BACKENDS_MEMORY_H

#include "varve/backend.h"

extern const struct backend_ops memory_backend_ops;

/* Empties the store and makes it missing again. Unknown names are fine. */
void memory_forget(const char *name);

#endif
