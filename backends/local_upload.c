/*
 * local_upload.c - multipart uploads: a folder per upload, and in it the object
 * to come, into which every part is written at its offset.
 *
 * .varve/tmp/uID-KEY/      KEY: 16 hex digits of the key's hash, so that an upload is of one key only
 *      begin               an empty file with the stamp of the object to come: metadata, class, type
 *      whole               its content; what no part was written to is a hole
 *      NUMBER.OFFSET.SIZE.ID       a part is being written, or its writer failed
 *      NUMBER.OFFSET.SIZE.ID-CRC   a part that is whole; ID-CRC is its etag, CRC empty where it is not known
 *
 * Completion moves `whole` to its place like any other object's temp file: no
 * byte is copied. A completion that failed may be tried again.
 *
 * Invariants
 *  1. Who writes to `whole` holds the range of it locked: two writers never meet, and who completes holds it all.
 *  2. A part's ID is taken with its range locked. So of two notes whose ranges overlap the later ID wrote later, and a
 *     part counts only while no note over its range is later, not even one whose writer failed.
 *  3. `whole` is written to only while it is in its folder; the completed object never is.
 *
 * Threads: no state here; parts of one upload may come in parallel.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/local.h"
#include "checksum.h"
#include "cleanup.h"

#define BEGIN "begin"
#define WHOLE "whole"
#define PART_MAX 100000
#define NOTE_SIZE 96
#define NOTE_ID_AT (6 + 1 + 16 + 1 + 16 + 1)
#define UPLOAD_ID_SIZE (1 + LOCAL_ID_SIZE + 17)

/* An upload, found. */
struct upload {
	int dir;
	struct local_place place;
};

static void upload_clear(struct upload *upload)
{
	if (upload->dir >= 0)
		(void)close(upload->dir); /* a directory: nothing to lose */
	local_place_clear(&upload->place);
}

static bool id_is_of(const char *id, const struct local_place *place)
{
	char time[LOCAL_ID_SIZE] = {0};
	char key[18];

	if (strlen(id) != UPLOAD_ID_SIZE - 1 || id[0] != 'u')
		return false;
	memcpy(time, id + 1, LOCAL_ID_SIZE - 1);
	(void)snprintf(key, sizeof(key), "-%016" PRIx64, place->lock); /* just fits */
	return local_id_valid(time) && strcmp(id + LOCAL_ID_SIZE, key) == 0;
}

static int upload_open(struct local *local, const char *key, const char *id, struct upload *ret_upload, struct err *err)
{
	struct upload upload = {.dir = -1};
	AUTO_FREE char *path = NULL;
	int rc = local_place_init(&upload.place, key, err);

	if (rc)
		return rc;
	if (id_is_of(id, &upload.place) && asprintf(&path, LOCAL_TMP "/%s", id) >= 0)
		upload.dir = local_open(local->root, path, O_RDONLY | O_DIRECTORY, 0);
	if (upload.dir < 0) {
		upload_clear(&upload);
		return err_set(err, ERR_NOT_FOUND, "no upload %s for %s", id, key);
	}
	*ret_upload = upload;
	return 0;
}

void local_upload_sweep(int tmp_fd, const char *name)
{
	int fd;
	const struct dirent *entry;
	DIR *dir;

	if (unlinkat(tmp_fd, name, 0) == 0 || errno != EISDIR)
		return;
	fd = local_open(tmp_fd, name, O_RDONLY | O_DIRECTORY, 0);
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		if (fd >= 0)
			(void)close(fd); /* only read */
		return;
	}
	while ((entry = readdir(dir)))
		(void)unlinkat(fd, entry->d_name, 0); /* "." and ".." refuse, and that is right */
	(void)closedir(dir);
	(void)unlinkat(tmp_fd, name, AT_REMOVEDIR); /* a part that came just now keeps it until the next sweep */
}

static int make_whole(int dir)
{
	int fd = local_open(dir, WHOLE, O_WRONLY | O_CREAT | O_EXCL, 0666);

	if (fd < 0)
		return fd;
	(void)close(fd); /* empty */
	return 0;
}

static int write_begin(struct local *local, int dir, const struct local_place *place, const struct put_request *request)
{
	struct local_object object = {
		.fd = local_open(dir, BEGIN, O_RDWR | O_CREAT | O_EXCL, 0600),
	};
	char id[LOCAL_ID_SIZE];
	int rc = object.fd < 0 ? object.fd : fstat(object.fd, &object.stat) ? -errno : 0;

	local_new_id(local, NULL, id);
	object.info.native_id = strdup(id);
	object.info.storage_class = request->storage_class ? strdup(request->storage_class) : NULL;
	object.info.content_type = request->content_type ? strdup(request->content_type) : NULL;
	if (!object.info.native_id || (request->content_type && !object.info.content_type) ||
	    (request->storage_class && !object.info.storage_class))
		rc = rc ? rc : -ENOMEM;
	if (!rc && request->meta)
		rc = meta_copy(&object.info.meta, request->meta);
	if (!rc)
		rc = local_stamp_write(local, object.fd, place, &object);
	local_object_clear(&object);
	return rc;
}

int local_upload_begin(struct backend *backend, const struct call *call, const struct put_request *request,
		       char **ret_upload_id, struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_place place;
	AUTO_CLOSE int tmp = -1;
	AUTO_CLOSE int dir = -1;
	char time[LOCAL_ID_SIZE];
	char *id = NULL;
	int rc = local_check(call, err);

	if (!rc)
		rc = local_place_init(&place, request->key, err);
	if (rc)
		return rc;
	local_new_id(local, NULL, time);
	tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	rc = asprintf(&id, "u%s-%016" PRIx64, time, place.lock) < 0 ? -ENOMEM : 0;
	if (!rc)
		rc = tmp < 0 ? tmp : mkdirat(tmp, id, 0700) ? -errno : 0;
	if (!rc) {
		dir = local_open(tmp, id, O_RDONLY | O_DIRECTORY, 0);
		rc = dir < 0 ? dir : make_whole(dir);
		if (!rc)
			rc = write_begin(local, dir, &place, request);
		if (rc)
			local_upload_sweep(tmp, id);
	}
	local_place_clear(&place);
	if (rc) {
		free(id);
		return local_fail(err, rc, "starting an upload to", request->key);
	}
	*ret_upload_id = id;
	return 0;
}

/* --- parts ------------------------------------------------------------------------------------------------ */

/* A part, or what its writer left. */
struct note {
	unsigned number;
	uint64_t offset, size;
	char id[LOCAL_ID_SIZE];
	bool done, has_crc32c;
	uint32_t crc32c;
};

static void note_name(const struct note *note, char ret_name[static NOTE_SIZE])
{
	int len = snprintf(ret_name, NOTE_SIZE, "%06u.%016" PRIx64 ".%016" PRIx64 ".%s", note->number, note->offset,
			   note->size, note->id);

	if (note->done && note->has_crc32c)
		(void)snprintf(ret_name + len, NOTE_SIZE - (size_t)len, "-%08" PRIx32, note->crc32c); /* fits */
	else if (note->done)
		(void)snprintf(ret_name + len, NOTE_SIZE - (size_t)len, "-"); /* fits */
}

static bool note_parse(const char *name, struct note *ret_note)
{
	struct note note = {0};
	int len = 0;

	if (sscanf(name, "%6u.%16" SCNx64 ".%16" SCNx64 ".%24[0-9a-f]%n", &note.number, &note.offset, &note.size,
		   note.id, &len) != 4 ||
	    !local_id_valid(note.id))
		return false;
	note.done = name[len] == '-';
	note.has_crc32c = note.done && sscanf(name + len, "-%8" SCNx32, &note.crc32c) == 1;
	*ret_note = note;
	return true;
}

static int set_lock(int fd, short type, uint64_t offset, uint64_t length)
{
	struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)length};

	return fcntl(fd, F_OFD_SETLK, &range) ? -errno : 0;
}

/* `whole`, with a range of it locked (length 0: all of it) until it is closed. A descriptor or -errno. */
static int open_whole(const struct upload *upload, uint64_t offset, uint64_t length)
{
	int fd = local_open(upload->dir, WHOLE, O_RDWR, 0);
	struct stat ours, there;
	int rc;

	if (fd < 0)
		return fd;
	rc = set_lock(fd, F_WRLCK, offset, length);
	/* Invariant 3: it may have been completed before we had the lock. */
	if (!rc && (fstat(fd, &ours) || fstatat(upload->dir, WHOLE, &there, AT_SYMLINK_NOFOLLOW) ||
		    ours.st_ino != there.st_ino))
		rc = -ENOENT;
	if (!rc)
		return fd;
	(void)close(fd); /* nothing was written */
	return rc;
}

/* A part on its way. */
struct writing {
	struct upload upload;
	struct note note;
	struct local_spot spot; /* fd -1: not open */
};

static int make_note(const struct writing *writing)
{
	char name[NOTE_SIZE];
	int fd;

	note_name(&writing->note, name);
	fd = local_open(writing->upload.dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return fd;
	(void)close(fd); /* empty */
	return 0;
}

static int writing_begin(struct local *local, const struct upload_slot *slot, uint64_t size, struct writing *writing)
{
	const struct local_range range = {.offset = slot->offset, .length = size};
	struct local_range target = range;
	int rc;

	writing->note = (struct note){.number = slot->number, .offset = slot->offset, .size = size};
	target.fd = open_whole(&writing->upload, range.offset, range.length ? range.length : 1);
	if (target.fd < 0)
		return target.fd;
	writing->spot = (struct local_spot){.fd = target.fd, .offset = range.offset};
	local_new_id(local, NULL, writing->note.id);
	rc = make_note(writing);
	return rc || !range.length ? rc : local_clear(&target);
}

/* All is written: it becomes a part, and goes to disk, so that the sync at completion is short. */
static int writing_end(struct writing *writing, struct upload_part *ret_part)
{
	struct note *note = &writing->note;
	struct upload_part part = {
		.number = note->number,
		.size = note->size,
		.crc32c = note->crc32c,
		.has_crc32c = note->has_crc32c,
	};
	char from[NOTE_SIZE], to[NOTE_SIZE];

	note_name(note, from);
	note->done = true;
	note_name(note, to);
	part.etag = strdup(to + NOTE_ID_AT);
	if (!part.etag)
		return -ENOMEM;
	if ((note->size && sync_file_range(writing->spot.fd, (off_t)note->offset, (off_t)note->size,
					   SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER)) ||
	    renameat(writing->upload.dir, from, writing->upload.dir, to)) {
		int rc = -errno;

		free(part.etag);
		return rc;
	}
	*ret_part = part;
	return 0;
}

static void writing_clear(struct writing *writing)
{
	if (writing->spot.fd >= 0)
		(void)close(writing->spot.fd); /* what has to last is synced by the completion */
	upload_clear(&writing->upload);
}

static int part_fail(struct err *err, int error, const struct upload_slot *slot, const char *key)
{
	if (error == -EAGAIN)
		return err_set(err, ERR_CONFLICT, "another part of %s is being written where part %u goes", key,
			       slot->number);
	if (error == -ENOENT)
		return err_set(err, ERR_NOT_FOUND, "the upload of %s is completed or gone", key);
	return local_fail(err, error, "storing a part of", key);
}

static int check_slot(const struct upload_slot *slot, uint64_t size, struct err *err)
{
	if (slot->number < 1 || slot->number > PART_MAX)
		return err_set(err, ERR_TOO_LARGE, "part number %u is not 1..%d", slot->number, PART_MAX);
	if (slot->offset > INT64_MAX - 1 || size > INT64_MAX - 1 - slot->offset)
		return err_set(err, ERR_TOO_LARGE, "part %u ends past what a file can have", slot->number);
	return 0;
}

int local_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		      const struct put_request *body, const struct upload_slot *slot, struct upload_part *ret_part,
		      struct err *err)
{
	struct local *local = (struct local *)backend;
	struct writing writing = {.spot.fd = -1};
	struct put_request request = *body;
	int rc = check_slot(slot, body->size, err);

	request.key = key;
	if (!rc)
		rc = local_check(call, err);
	if (!rc)
		rc = upload_open(local, key, upload_id, &writing.upload, err);
	if (rc)
		return rc;
	rc = writing_begin(local, slot, body->size, &writing);
	if (rc) {
		(void)part_fail(err, rc, slot, key);
		goto out;
	}
	rc = local_store(call, &request, &writing.spot, &writing.note.crc32c, err);
	if (rc)
		goto out;
	writing.note.has_crc32c = true;
	rc = writing_end(&writing, ret_part);
	if (rc)
		(void)part_fail(err, rc, slot, key);
	else
		atomic_fetch_add(&local->counters.bytes_sent, body->size);
out:
	writing_clear(&writing);
	return rc;
}

int local_upload_part_copy(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			   const struct get_request *source, const struct upload_slot *slot,
			   struct upload_part *ret_part, struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_object object = LOCAL_OBJECT_NONE;
	struct writing writing = {.spot.fd = -1};
	struct local_place place = {0};
	struct local_range range = {0};
	int rc = local_check(call, err);

	if (!rc)
		rc = upload_open(local, key, upload_id, &writing.upload, err);
	if (rc)
		return rc;
	rc = local_place_init(&place, source->object.key, err);
	if (!rc)
		rc = local_find(local, &place, &source->object, &object, err);
	if (!rc)
		rc = local_range_of(source, object.info.size, &range, err);
	if (!rc)
		rc = check_slot(slot, range.length, err);
	if (rc)
		goto out;
	range.fd = object.fd;
	rc = writing_begin(local, slot, range.length, &writing);
	if (rc) {
		(void)part_fail(err, rc, slot, key);
		goto out;
	}
	rc = local_copy(call, &range, &writing.spot, err);
	if (rc)
		goto out;
	rc = writing_end(&writing, ret_part);
	if (rc)
		(void)part_fail(err, rc, slot, key);
out:
	local_object_clear(&object);
	local_place_clear(&place);
	writing_clear(&writing);
	return rc;
}

/* --- completion --------------------------------------------------------------------------------------------- */

/* What the caller says the object is made of. */
struct stated {
	const struct upload_part *parts;
	size_t count;
	struct note *notes; /* of each; id "": not found yet */
	uint64_t size;      /* of them all */
};

static int by_number(const void *key, const void *part)
{
	unsigned number = *(const unsigned *)key;
	const struct upload_part *stated = part;

	return number < stated->number ? -1 : number > stated->number;
}

static int state(const struct upload_part *parts, size_t count, struct stated *stated, struct err *err)
{
	if (count == 0)
		return err_set(err, ERR_CONFLICT, "an upload without parts");
	*stated = (struct stated){.parts = parts, .count = count, .notes = calloc(count, sizeof(*stated->notes))};
	if (!stated->notes)
		return err_set(err, ERR_NO_MEMORY, "%zu parts", count);
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && parts[i].number <= parts[i - 1].number)
			return err_set(err, ERR_CONFLICT, "the parts of an upload are not in order");
		stated->notes[i].offset = stated->size;
		stated->notes[i].size = parts[i].size;
		stated->size += parts[i].size;
	}
	return 0;
}

/* The first of the stated parts that ends after `offset`. */
static size_t first_after(const struct stated *stated, uint64_t offset)
{
	size_t low = 0, high = stated->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (stated->notes[middle].offset + stated->notes[middle].size > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

typedef void (*note_fn)(struct stated *stated, const char *name, const struct note *note);

static void take_note(struct stated *stated, const char *name, const struct note *note)
{
	const struct upload_part *part =
		bsearch(&note->number, stated->parts, stated->count, sizeof(*stated->parts), by_number);
	struct note *place = part ? &stated->notes[part - stated->parts] : NULL;

	if (place && note->done && note->offset == place->offset && note->size == place->size && part->etag &&
	    strcmp(name + NOTE_ID_AT, part->etag) == 0)
		*place = *note;
}

/* Invariant 2. */
static void mind_later(struct stated *stated, const char *name, const struct note *note)
{
	(void)name;
	for (size_t i = first_after(stated, note->offset);
	     i < stated->count && stated->notes[i].offset < note->offset + note->size; i++)
		if (strcmp(note->id, stated->notes[i].id) > 0)
			stated->notes[i].id[0] = '\0';
}

static int each_note(const struct upload *upload, struct stated *stated, note_fn fn)
{
	int fd = local_open(upload->dir, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	struct note note;

	if (!dir) {
		int rc = fd < 0 ? fd : -errno;

		if (fd >= 0)
			(void)close(fd); /* only read */
		return rc;
	}
	while ((entry = readdir(dir)))
		if (note_parse(entry->d_name, &note))
			fn(stated, entry->d_name, &note);
	(void)closedir(dir);
	return 0;
}

/* The parts stated are there, whole, and side by side; with the CRC of them all where every one's is known. */
static int check_parts(const struct upload *upload, struct stated *stated, struct local_temp *temp, struct err *err)
{
	int rc = each_note(upload, stated, take_note);

	if (!rc)
		rc = each_note(upload, stated, mind_later);
	if (rc)
		return err_from_errno(err, -rc, "looking for the parts of an upload");
	temp->size = stated->size;
	temp->has_crc32c = true;
	for (size_t i = 0; i < stated->count; i++) {
		const struct note *note = &stated->notes[i];

		if (!note->id[0])
			return err_set(err, ERR_CONFLICT, "part %u is not in the upload as stated",
				       stated->parts[i].number);
		temp->has_crc32c &= note->has_crc32c;
		temp->crc32c = crc32c_combine(temp->crc32c, note->crc32c, note->size);
	}
	return 0;
}

static int ignore_bytes(void *arg, const void *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	(void)len;
	return 0;
}

/* Content without a known CRC is read once more, but only when the caller states what it must be. */
static int check_whole(const struct call *call, const struct put_request *request, struct local_temp *temp,
		       struct err *err)
{
	struct local_range all = {.fd = temp->fd, .length = temp->size};
	struct get_request reading = {.object.key = request->key, .sink = ignore_bytes};
	int rc = 0;

	if (!request->has_crc32c)
		return 0;
	if (!temp->has_crc32c)
		rc = local_drain(call, &all, &reading, &temp->crc32c, err);
	if (rc)
		return rc;
	temp->has_crc32c = true;
	if (temp->crc32c == request->crc32c)
		return 0;
	return err_set(err, ERR_CORRUPT, "the parts of %s have CRC-32C %08x, not %08x as said", request->key,
		       temp->crc32c, request->crc32c);
}

/* `whole` as the temp file that it is, exactly as long as its parts. */
static int assemble(const struct upload *upload, const char *upload_id, struct stated *stated, struct local_temp *temp,
		    struct err *err)
{
	int rc;

	temp->fd = open_whole(upload, 0, 0);
	if (temp->fd == -EAGAIN)
		return err_set(err, ERR_CONFLICT, "parts of the upload are still being written");
	if (temp->fd < 0 || snprintf(temp->name, sizeof(temp->name), "%s/" WHOLE, upload_id) >= (int)sizeof(temp->name))
		return err_set(err, ERR_NOT_FOUND, "the upload is completed or gone");
	rc = check_parts(upload, stated, temp, err);
	if (!rc && ftruncate(temp->fd, (off_t)temp->size))
		rc = err_from_errno(err, errno, "completing an upload");
	return rc;
}

static int commit_upload(struct local *local, const struct call *call, const struct put_request *request,
			 const struct upload *upload, struct local_temp *temp, struct object_info *ret_info,
			 struct err *err)
{
	struct local_object begin = {.fd = local_open(upload->dir, BEGIN, O_RDONLY, 0)};
	struct local_commit commit = {.place = &upload->place, .temp = temp, .condition = request->condition};
	int rc = begin.fd < 0 ? begin.fd : local_stamp_read(local, &upload->place, &begin);

	if (!rc && !begin.stamped)
		rc = -EBADMSG;
	if (rc) {
		local_object_clear(&begin);
		return local_fail(err, rc, "completing the upload to", request->key);
	}
	commit.meta = &begin.info.meta;
	commit.content_type = begin.info.content_type;
	commit.storage_class = begin.info.storage_class;
	rc = local_commit(local, call, &commit, ret_info, err);
	if (!rc)
		local_stamp_drop(local, &upload->place, begin.fd);
	local_object_clear(&begin);
	return rc;
}

static void sweep(struct local *local, const char *upload_id)
{
	AUTO_CLOSE int tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);

	if (tmp >= 0)
		local_upload_sweep(tmp, upload_id);
}

int local_upload_complete(struct backend *backend, const struct call *call, const struct put_request *request,
			  const char *upload_id, const struct upload_part *parts, size_t count,
			  struct object_info *ret_info, struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_temp temp = LOCAL_TEMP_NONE;
	struct stated stated = {0};
	struct upload upload;
	int rc = local_check(call, err);

	if (!rc)
		rc = upload_open(local, request->key, upload_id, &upload, err);
	if (rc)
		return rc;
	rc = state(parts, count, &stated, err);
	if (!rc)
		rc = assemble(&upload, upload_id, &stated, &temp, err);
	if (!rc)
		rc = check_whole(call, request, &temp, err);
	if (!rc)
		rc = commit_upload(local, call, request, &upload, &temp, ret_info, err);
	if (!rc)
		sweep(local, upload_id);
	temp.name[0] = '\0'; /* what was not completed stays in the upload */
	local_temp_discard(local, &temp);
	free(stated.notes);
	upload_clear(&upload);
	return rc;
}

int local_upload_abort(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		       struct err *err)
{
	struct local *local = (struct local *)backend;
	struct upload upload;
	int rc = local_check(call, err);

	if (!rc)
		rc = upload_open(local, key, upload_id, &upload, err);
	if (rc)
		return rc;
	sweep(local, upload_id);
	upload_clear(&upload);
	return 0;
}
