/*
 * local_io.c - moving content: source to file, file to file, file to sink.
 *
 * Between two chunks the call's deadline and cancellation are looked at.
 * Threads: no state here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backends/local.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

int local_check(const struct call *call, struct err *err)
{
	if (call->cancelled && atomic_load_explicit(call->cancelled, memory_order_relaxed))
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (call->deadline_ns && clock_monotonic() >= call->deadline_ns)
		return err_set(err, ERR_TIMED_OUT, "the deadline passed");
	return 0;
}

int local_write_all(int fd, const void *bytes, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)bytes + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int read_all(int fd, void *ret_bytes, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)ret_bytes + done, len - done, (off_t)(offset + done));

		if (n == 0)
			return -ENODATA;
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static size_t chunk_of(uint64_t left)
{
	return left < LOCAL_CHUNK ? (size_t)left : LOCAL_CHUNK;
}

int local_fill(const struct call *call, const struct put_request *request, struct local_temp *temp, struct err *err)
{
	AUTO_FREE char *chunk = malloc(chunk_of(request->size) + 1);
	uint32_t crc = 0;

	if (!chunk)
		return err_set(err, ERR_NO_MEMORY, "no memory to store %s", request->key);
	for (uint64_t at = 0; at < request->size;) {
		size_t len = chunk_of(request->size - at);
		int rc = local_check(call, err);

		if (rc)
			return rc;
		rc = request->source(request->source_arg, chunk, len, at);
		if (rc)
			return err_from_errno(err, -rc, "reading what to store at %s", request->key);
		crc = crc32c_update(crc, chunk, len);
		rc = local_write_all(temp->fd, chunk, len, at);
		if (rc)
			return local_fail(err, rc, "storing", request->key);
		at += len;
	}
	if (request->has_crc32c && request->crc32c != crc)
		return err_set(err, ERR_CORRUPT, "content for %s has CRC-32C %08x, not %08x as said", request->key, crc,
			       request->crc32c);
	temp->size = request->size;
	temp->crc32c = crc;
	temp->has_crc32c = true;
	return 0;
}

/* One step of a copy inside the kernel; -EXDEV and the like when it cannot. */
static ssize_t kernel_copy(const struct local_range *from, uint64_t done, int to, uint64_t at)
{
	off_t in = (off_t)(from->offset + done);
	off_t out = (off_t)at;
	uint64_t left = from->length - done;
	/* Bounded, so that the deadline is looked at. */
	ssize_t n = copy_file_range(from->fd, &in, to, &out, left < 64 * LOCAL_CHUNK ? left : 64 * LOCAL_CHUNK, 0);

	return n < 0 ? -errno : n;
}

static ssize_t plain_copy(const struct local_range *from, uint64_t done, int to, uint64_t at)
{
	size_t len = chunk_of(from->length - done);
	AUTO_FREE char *chunk = malloc(len);
	int rc = chunk ? read_all(from->fd, chunk, len, from->offset + done) : -ENOMEM;

	if (!rc)
		rc = local_write_all(to, chunk, len, at);
	return rc ? rc : (ssize_t)len;
}

static bool try_clone(const struct local_range *from, const struct local_temp *temp)
{
	struct file_clone_range range = {
		.src_fd = from->fd,
		.src_offset = from->offset,
		.src_length = from->length,
		.dest_offset = temp->size,
	};

	return from->length > 0 && ioctl(temp->fd, FICLONERANGE, &range) == 0;
}

int local_append(const struct call *call, const struct local_range *from, struct local_temp *temp, struct err *err)
{
	bool in_kernel = true;

	if (try_clone(from, temp)) {
		temp->size += from->length;
		return 0;
	}
	for (uint64_t done = 0; done < from->length;) {
		int rc = local_check(call, err);
		ssize_t n;

		if (rc)
			return rc;
		n = in_kernel ? kernel_copy(from, done, temp->fd, temp->size + done) : -EXDEV;
		if (n == -EINTR)
			continue;
		if (n < 0 && n != -ENOSPC && n != -EDQUOT && n != -EIO) {
			in_kernel = false;
			n = plain_copy(from, done, temp->fd, temp->size + done);
		}
		if (n <= 0)
			return n ? err_from_errno(err, (int)-n, "copying within the store")
				 : err_set(err, ERR_CORRUPT, "a file shrank while it was copied");
		done += (uint64_t)n;
	}
	temp->size += from->length;
	return 0;
}

int local_drain(const struct call *call, const struct local_range *from, const struct get_request *request,
		uint32_t *ret_crc32c, struct err *err)
{
	AUTO_FREE char *chunk = malloc(chunk_of(from->length) + 1);
	uint32_t crc = 0;

	if (!chunk)
		return err_set(err, ERR_NO_MEMORY, "no memory to read %s", request->object.key);
	for (uint64_t done = 0; done < from->length;) {
		size_t len = chunk_of(from->length - done);
		int rc = local_check(call, err);

		if (rc)
			return rc;
		rc = read_all(from->fd, chunk, len, from->offset + done);
		if (rc == -ENODATA)
			return err_set(err, ERR_CORRUPT, "%s shrank while it was read", request->object.key);
		if (rc == -EBADF) /* local_current could only open it by path */
			rc = -EACCES;
		if (rc)
			return err_from_errno(err, -rc, "reading %s", request->object.key);
		crc = crc32c_update(crc, chunk, len);
		if (request->sink(request->sink_arg, chunk, len))
			return err_set(err, ERR_CANCELLED, "the reader of %s wants no more", request->object.key);
		done += len;
	}
	*ret_crc32c = crc;
	return 0;
}

int local_range_of(const struct get_request *request, uint64_t size, struct local_range *ret_range, struct err *err)
{
	uint64_t length = request->length;

	if (request->expected_size != UINT64_MAX && request->expected_size != size)
		return err_set(err, ERR_CORRUPT, "%s has %llu bytes, not %llu", request->object.key,
			       (unsigned long long)size, (unsigned long long)request->expected_size);
	if (request->offset > size || (length != UINT64_MAX && length > size - request->offset))
		return err_set(err, ERR_CORRUPT, "%s ends at %llu, before the range asked for", request->object.key,
			       (unsigned long long)size);
	ret_range->offset = request->offset;
	ret_range->length = length == UINT64_MAX ? size - request->offset : length;
	return 0;
}
