/*
 * local_io.c - moving content: source to file, file to file, file to sink.
 *
 * Blocks of zeros are holes in the store, and so are the holes of what is copied: a sparse file takes there what it
 * takes anywhere.
 *
 * Between two chunks the call's deadline and cancellation are looked at.
 * Threads: no state here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backends/local.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

#define LOCAL_BLOCK 4096u /* of every filesystem that knows holes, or a part of one */

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

static bool is_zero(const char *bytes, size_t len)
{
	return !bytes[0] && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* From `at` to the end of its block of the file. */
static size_t block_at(size_t at, size_t len, uint64_t offset)
{
	size_t block = LOCAL_BLOCK - (size_t)((offset + at) % LOCAL_BLOCK);

	return block < len - at ? block : len - at;
}

/* All but the blocks of zeros. */
static int write_sparse(int fd, const char *bytes, size_t len, uint64_t offset)
{
	int rc = 0;

	for (size_t at = 0, end; at < len && !rc; at = end) {
		size_t block = block_at(at, len, offset);

		end = at + block;
		if (is_zero(bytes + at, block))
			continue;
		for (; end < len; end += block) {
			block = block_at(end, len, offset);
			if (is_zero(bytes + end, block))
				break;
		}
		rc = local_write_all(fd, bytes + at, end - at, offset + at);
	}
	return rc;
}

int local_store(const struct call *call, const struct put_request *request, const struct local_spot *to,
		uint32_t *ret_crc32c, struct err *err)
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
		rc = write_sparse(to->fd, chunk, len, to->offset + at);
		if (rc)
			return local_fail(err, rc, "storing", request->key);
		at += len;
	}
	if (request->has_crc32c && request->crc32c != crc)
		return err_set(err, ERR_CORRUPT, "content for %s has CRC-32C %08x, not %08x as said", request->key, crc,
			       request->crc32c);
	*ret_crc32c = crc;
	return 0;
}

int local_fill(const struct call *call, const struct put_request *request, struct local_temp *temp, struct err *err)
{
	const struct local_spot start = {.fd = temp->fd};
	int rc = local_store(call, request, &start, &temp->crc32c, err);

	if (rc)
		return rc;
	if (ftruncate(temp->fd, (off_t)request->size))
		return local_fail(err, -errno, "storing", request->key);
	temp->size = request->size;
	temp->has_crc32c = true;
	return 0;
}

static int write_zeros(const struct local_range *range)
{
	AUTO_FREE char *zeros = calloc(1, LOCAL_CHUNK);
	int rc = zeros ? 0 : -ENOMEM;

	for (uint64_t done = 0; done < range->length && !rc; done += LOCAL_CHUNK)
		rc = local_write_all(range->fd, zeros, chunk_of(range->length - done), range->offset + done);
	return rc;
}

int local_clear(const struct local_range *range)
{
	struct local_range old = *range;
	off_t data = lseek(range->fd, (off_t)range->offset, SEEK_DATA);
	struct stat st;

	if (data < 0 && errno == ENXIO) /* from there on it is a hole */
		return 0;
	if (data >= 0 && (uint64_t)data >= range->offset + range->length)
		return 0;
	if (fallocate(range->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range->offset,
		      (off_t)range->length) == 0)
		return 0;
	if (fstat(range->fd, &st))
		return -errno;
	if ((uint64_t)st.st_size <= old.offset)
		return 0;
	if (old.length > (uint64_t)st.st_size - old.offset)
		old.length = (uint64_t)st.st_size - old.offset;
	return write_zeros(&old);
}

/* One step of a copy inside the kernel; -EXDEV and the like when it cannot. */
static ssize_t kernel_copy(const struct local_range *from, const struct local_spot *to)
{
	off_t in = (off_t)from->offset;
	off_t out = (off_t)to->offset;
	/* Bounded, so that the deadline is looked at. */
	ssize_t n = copy_file_range(from->fd, &in, to->fd, &out,
				    from->length < 64 * LOCAL_CHUNK ? from->length : 64 * LOCAL_CHUNK, 0);

	return n < 0 ? -errno : n;
}

static ssize_t plain_copy(const struct local_range *from, const struct local_spot *to)
{
	size_t len = chunk_of(from->length);
	AUTO_FREE char *chunk = malloc(len);
	int rc = chunk ? read_all(from->fd, chunk, len, from->offset) : -ENOMEM;

	if (!rc)
		rc = local_write_all(to->fd, chunk, len, to->offset);
	return rc ? rc : (ssize_t)len;
}

/* Of `from`, which is all there and no hole. */
static int copy_bytes(const struct call *call, struct local_range from, struct local_spot to, struct err *err)
{
	bool in_kernel = true;

	while (from.length > 0) {
		int rc = local_check(call, err);
		ssize_t n;

		if (rc)
			return rc;
		n = in_kernel ? kernel_copy(&from, &to) : -EXDEV;
		if (n == -EINTR)
			continue;
		if (n < 0 && n != -ENOSPC && n != -EDQUOT && n != -EIO) {
			in_kernel = false;
			n = plain_copy(&from, &to);
		}
		if (n <= 0)
			return n ? err_from_errno(err, (int)-n, "copying within the store")
				 : err_set(err, ERR_CORRUPT, "a file shrank while it was copied");
		from.offset += (uint64_t)n;
		from.length -= (uint64_t)n;
		to.offset += (uint64_t)n;
	}
	return 0;
}

/* The first stretch of data of the range, empty at its end when there is none. What cannot be told apart is data. */
static struct local_range next_data(const struct local_range *range)
{
	uint64_t end = range->offset + range->length;
	off_t data = lseek(range->fd, (off_t)range->offset, SEEK_DATA);
	off_t hole;

	if (data < 0 && errno != ENXIO)
		return *range;
	if (data < 0 || (uint64_t)data >= end)
		return (struct local_range){.fd = range->fd, .offset = end};
	hole = lseek(range->fd, data, SEEK_HOLE);
	if (hole > data && (uint64_t)hole < end)
		end = (uint64_t)hole;
	return (struct local_range){.fd = range->fd, .offset = (uint64_t)data, .length = end - (uint64_t)data};
}

static int copy_data(const struct call *call, struct local_range from, struct local_spot to, struct err *err)
{
	uint64_t end = from.offset + from.length;
	int rc = 0;

	while (from.length > 0 && !rc) {
		struct local_range data = next_data(&from);

		to.offset += data.offset - from.offset;
		rc = copy_bytes(call, data, to, err);
		to.offset += data.length;
		from.offset = data.offset + data.length;
		from.length = end - from.offset;
	}
	return rc;
}

static int try_clone(const struct local_range *from, const struct local_spot *to)
{
	struct file_clone_range range = {
		.src_fd = from->fd,
		.src_offset = from->offset,
		.src_length = from->length,
		.dest_offset = to->offset,
	};

	return ioctl(to->fd, FICLONERANGE, &range) ? -errno : 0;
}

/* What of the range shares its blocks with the spot from now on: all of it, its whole blocks, or (empty, at its end)
 * nothing. */
static struct local_range share(const struct local_range *from, const struct local_spot *to)
{
	uint64_t end = from->offset + from->length;
	struct local_range none = {.fd = from->fd, .offset = end};
	struct local_range blocks = *from;
	struct local_spot at = *to;
	int rc = from->length ? try_clone(from, to) : -ENODATA;

	if (rc == 0)
		return *from;
	blocks.offset = (from->offset + LOCAL_BLOCK - 1) / LOCAL_BLOCK * LOCAL_BLOCK;
	at.offset += blocks.offset - from->offset;
	blocks.length = end / LOCAL_BLOCK * LOCAL_BLOCK - blocks.offset;
	if (rc != -EINVAL || at.offset % LOCAL_BLOCK || end / LOCAL_BLOCK * LOCAL_BLOCK <= blocks.offset ||
	    try_clone(&blocks, &at))
		return none;
	return blocks;
}

int local_copy(const struct call *call, const struct local_range *from, const struct local_spot *to, struct err *err)
{
	struct local_range head = *from, tail = *from, shared;
	struct local_spot after = *to;
	struct stat st;
	int rc;

	if (fstat(from->fd, &st))
		return err_from_errno(err, errno, "copying within the store");
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < from->offset + from->length)
		return err_set(err, ERR_CORRUPT, "a file shrank while it was copied");
	shared = share(from, to);
	head.length = shared.offset - from->offset;
	tail.offset = shared.offset + shared.length;
	tail.length -= tail.offset - from->offset;
	after.offset += tail.offset - from->offset;
	rc = copy_data(call, head, *to, err);
	return rc ? rc : copy_data(call, tail, after, err);
}

int local_append(const struct call *call, const struct local_range *from, struct local_temp *temp, struct err *err)
{
	const struct local_spot end = {.fd = temp->fd, .offset = temp->size};
	int rc = local_copy(call, from, &end, err);

	if (!rc && ftruncate(temp->fd, (off_t)(temp->size + from->length)))
		rc = err_from_errno(err, errno, "copying within the store");
	if (!rc)
		temp->size += from->length;
	return rc;
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
