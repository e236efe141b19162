/*
 * local_upload.c - multipart uploads: a folder per upload, a file per part.
 *
 * .varve/tmp/uID-KEY/      KEY: 16 hex digits of the key's hash, so that an upload is of one key only
 *      begin           an empty file with the stamp of the object to come: metadata, class, type
 *      NUMBER.ETAG     a part, whole (it comes here by rename); ETAG ends in its CRC-32C where that is known
 *
 * Completion strings the parts together in a temp file, sharing blocks where
 * the filesystem can, and commits it like any put. Only then does the folder
 * go: a completion that failed may be tried again.
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
#define PART_MAX 100000
#define PART_NAME_SIZE 64
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

static int write_begin(struct local *local, int dir, const struct local_place *place, const struct put_request *request)
{
	struct local_object object = {
		.fd = local_open(dir, BEGIN, O_RDWR | O_CREAT | O_EXCL, 0600),
		.content_type = request->content_type ? strdup(request->content_type) : NULL,
	};
	char id[LOCAL_ID_SIZE];
	int rc = object.fd < 0 ? object.fd : fstat(object.fd, &object.stat) ? -errno : 0;

	local_new_id(local, NULL, id);
	object.info.native_id = strdup(id);
	object.info.storage_class = request->storage_class ? strdup(request->storage_class) : NULL;
	if (!object.info.native_id || (request->content_type && !object.content_type) ||
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
		rc = dir < 0 ? dir : write_begin(local, dir, &place, request);
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

static bool part_name(unsigned number, const char *etag, char ret_name[static PART_NAME_SIZE])
{
	if (!etag || strchr(etag, '/'))
		return false;
	return snprintf(ret_name, PART_NAME_SIZE, "%06u.%s", number, etag) < PART_NAME_SIZE;
}

/* The temp file becomes a part, on disk: the sync at completion is short then. */
static int keep_part(struct local *local, const struct upload *upload, struct local_temp *temp, unsigned number,
		     struct upload_part *ret_part)
{
	AUTO_CLOSE int tmp = local_open(local->root, LOCAL_TMP, O_RDONLY | O_DIRECTORY, 0);
	struct upload_part part = {
		.number = number,
		.size = temp->size,
		.crc32c = temp->crc32c,
		.has_crc32c = temp->has_crc32c,
	};
	char name[PART_NAME_SIZE];
	char id[LOCAL_ID_SIZE];
	int rc = 0;

	local_new_id(local, NULL, id);
	if (temp->has_crc32c ? asprintf(&part.etag, "%s-%08" PRIx32, id, temp->crc32c) < 0
			     : asprintf(&part.etag, "%s", id) < 0)
		return -ENOMEM;
	if (tmp < 0)
		rc = tmp;
	else if (fdatasync(temp->fd))
		rc = -errno;
	else if (!part_name(number, part.etag, name) || renameat(tmp, temp->name, upload->dir, name))
		rc = -errno;
	if (rc) {
		free(part.etag);
		return rc;
	}
	temp->name[0] = '\0';
	*ret_part = part;
	return 0;
}

static int check_number(unsigned number, struct err *err)
{
	if (number >= 1 && number <= PART_MAX)
		return 0;
	return err_set(err, ERR_TOO_LARGE, "part number %u is not 1..%d", number, PART_MAX);
}

int local_upload_part(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
		      const struct put_request *body, unsigned number, struct upload_part *ret_part, struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_temp temp = LOCAL_TEMP_NONE;
	struct put_request request = *body;
	struct upload upload;
	int rc = check_number(number, err);

	request.key = key;
	if (!rc)
		rc = local_check(call, err);
	if (!rc)
		rc = upload_open(local, key, upload_id, &upload, err);
	if (rc)
		return rc;
	rc = local_temp_make(local, &temp);
	if (rc) {
		(void)local_fail(err, rc, "storing a part of", key);
		goto out;
	}
	rc = local_fill(call, &request, &temp, err);
	if (rc)
		goto out;
	rc = keep_part(local, &upload, &temp, number, ret_part);
	if (rc)
		(void)local_fail(err, rc, "storing a part of", key);
	else
		atomic_fetch_add(&local->counters.bytes_sent, body->size);
out:
	local_temp_discard(local, &temp);
	upload_clear(&upload);
	return rc;
}

int local_upload_part_copy(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			   const struct get_request *source, unsigned number, struct upload_part *ret_part,
			   struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_object object = LOCAL_OBJECT_NONE;
	struct local_temp temp = LOCAL_TEMP_NONE;
	struct local_place place = {0};
	struct local_range range = {0};
	struct upload upload;
	int rc = check_number(number, err);

	if (!rc)
		rc = local_check(call, err);
	if (!rc)
		rc = upload_open(local, key, upload_id, &upload, err);
	if (rc)
		return rc;
	rc = local_place_init(&place, source->object.key, err);
	if (!rc)
		rc = local_find(local, &place, &source->object, &object, err);
	if (!rc)
		rc = local_range_of(source, object.info.size, &range, err);
	if (rc)
		goto out;
	range.fd = object.fd;
	rc = local_temp_make(local, &temp);
	if (rc) {
		(void)local_fail(err, rc, "storing a part of", key);
		goto out;
	}
	rc = local_append(call, &range, &temp, err);
	if (rc)
		goto out;
	rc = keep_part(local, &upload, &temp, number, ret_part);
	if (rc)
		(void)local_fail(err, rc, "storing a part of", key);
out:
	local_temp_discard(local, &temp);
	local_object_clear(&object);
	local_place_clear(&place);
	upload_clear(&upload);
	return rc;
}

/* --- completion --------------------------------------------------------------------------------------------- */

/* The CRC in a part's etag; false when it has none. */
static bool etag_crc(const char *etag, uint32_t *ret_crc)
{
	const char *dash = strchr(etag, '-');

	return dash && sscanf(dash, "-%8" SCNx32, ret_crc) == 1;
}

static int append_part(const struct call *call, const struct upload *upload, const struct upload_part *part,
		       struct local_temp *temp, struct err *err)
{
	struct local_range range = {.fd = -1};
	char name[PART_NAME_SIZE];
	struct stat st;
	uint32_t crc;
	int rc;

	if (part_name(part->number, part->etag, name))
		range.fd = local_open(upload->dir, name, O_RDONLY, 0);
	if (range.fd < 0 || fstat(range.fd, &st) || (uint64_t)st.st_size != part->size) {
		if (range.fd >= 0)
			(void)close(range.fd); /* only read */
		return err_set(err, ERR_CONFLICT, "part %u is not in the upload as stated", part->number);
	}
	range.length = part->size;
	temp->has_crc32c = temp->has_crc32c && etag_crc(part->etag, &crc);
	if (temp->has_crc32c)
		temp->crc32c = crc32c_combine(temp->crc32c, crc, part->size);
	rc = local_append(call, &range, temp, err);
	(void)close(range.fd); /* only read */
	return rc;
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

static int assemble(const struct call *call, const struct upload *upload, const struct upload_part *parts, size_t count,
		    struct local_temp *temp, struct err *err)
{
	if (count == 0)
		return err_set(err, ERR_CONFLICT, "an upload without parts");
	temp->has_crc32c = true;
	for (size_t i = 0; i < count; i++) {
		int rc;

		if (i > 0 && parts[i].number <= parts[i - 1].number)
			return err_set(err, ERR_CONFLICT, "the parts of an upload are not in order");
		rc = append_part(call, upload, &parts[i], temp, err);
		if (rc)
			return rc;
	}
	return 0;
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
	commit.content_type = begin.content_type;
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
	struct upload upload;
	int rc = local_check(call, err);

	if (!rc)
		rc = upload_open(local, request->key, upload_id, &upload, err);
	if (rc)
		return rc;
	rc = local_temp_make(local, &temp);
	if (rc) {
		(void)local_fail(err, rc, "completing the upload to", request->key);
		goto out;
	}
	rc = assemble(call, &upload, parts, count, &temp, err);
	if (!rc)
		rc = check_whole(call, request, &temp, err);
	if (!rc)
		rc = commit_upload(local, call, request, &upload, &temp, ret_info, err);
	if (!rc)
		sweep(local, upload_id);
out:
	local_temp_discard(local, &temp);
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
