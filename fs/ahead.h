/*
 * ahead.h - parts of a large new file are in the store before the file is closed.
 *
 * While a file grows at its end, its parts are sent to a multipart upload of its key. Nobody sees such an upload; it
 * becomes the object only when the version that the close made is uploaded, and then each part must still be what was
 * sent: a part that was written over is sent again (told by the content, which notes such writes, and found by its
 * checksum besides, for whatever may have bypassed the content). Where names changed meanwhile, or nothing is left to
 * use, the upload is aborted and the version goes up as any other.
 *
 * An object's metadata is fixed when its upload begins, but the version's sequence, commit time and checksum are only
 * known at its commit. So the object carries, with the file id and the attributes of then, AHEAD_FACTS_META: the name
 * of an empty object under `.varve/facts/`, put before the upload is completed, whose metadata is the version's own.
 * Whoever reads the metadata of objects asks through ahead_head, and sees what he would see of any other. The facts go
 * when the shipped log tells the same (fs/facts.h).
 *
 * Threads: the watch functions run under the content's lock; sending on the transfer pool.
 */
#ifndef VARVE_FS_AHEAD_H
#define VARVE_FS_AHEAD_H

#include "catalog.h"
#include "transfer.h"

struct ahead;
struct contents;
struct lease;
struct stream;

#define AHEAD_FACTS_META "varve-facts"
#define AHEAD_FACTS_PREFIX ".varve/facts/"

struct ahead_options {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
};
/* Uploads that the last mount left are aborted, or found again by ahead_left. */
int ahead_new(const struct ahead_options *options, struct ahead **ret_ahead);
/* Parts under way end soon, as failed, and no further ones are sent. */
void ahead_cancel(struct ahead *ahead);
/* Aborts what no commit has claimed. Nothing is sent any more when it returns. */
void ahead_free(struct ahead *ahead);

/* The upload made for this version, now the caller's, who ends it by ahead_end; NULL: none. Waits for its parts under
 * way. */
struct stream *ahead_take(struct ahead *ahead, uint64_t ino, uint64_t seq);
const char *ahead_key(const struct stream *stream);
const char *ahead_mark(const struct stream *stream); /* of the facts, and the object's TRANSFER_UPLOAD_META */
/* From here on a restart must look for the object. */
int ahead_claim(struct stream *stream);
/* What was sent of these parts, for transfer_upload_finish. `done` has room for count. */
void ahead_begun(struct stream *stream, const struct transfer_part *parts, size_t count, struct upload_part *done,
		 struct transfer_begun *ret_begun);
/* ABORT: the store is told. GONE: it became the object or was aborted. DOUBT: ahead_left tells of it. */
enum ahead_outcome { AHEAD_ABORT, AHEAD_GONE, AHEAD_DOUBT };
void ahead_end(struct stream *stream, enum ahead_outcome outcome);

/* An upload for this version whose completion nobody saw, by this process or the one before; as ahead_take. */
struct stream *ahead_left(struct ahead *ahead, uint64_t ino, uint64_t seq);

/* Changes while parts of the file are under way; 0: of any file. */
uint64_t ahead_moved(struct ahead *ahead, uint64_t ino);

/* HEAD, with the metadata that the object's facts say. */
int ahead_head(struct transfer *transfer, const struct call *call, const struct object_ref *object,
	       struct object_info *ret_info, struct err *err);

#endif
