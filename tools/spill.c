/*
 * spill.c - an external merge sort.
 *
 * In memory and in the file a record is its header, then the line with its NUL.
 * A run is what was in memory when that was full, sorted; runs follow one another
 * in the file. Keys are (key, order of adding), so no two records are equal.
 * Single-threaded.
 */
#include "tools/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "array.h"
#include "buf.h"
#include "cleanup.h"

#define WINDOW (64 << 10)

struct header {
	int64_t key;
	uint64_t order;
	uint64_t len; /* of the line, with its NUL */
};

struct run {
	off_t at, end; /* what of it was not read yet */
	struct buf window;
	size_t used; /* of the window */
	struct header header;
};

struct spill {
	size_t memory;
	struct buf lines; /* records */
	size_t *offsets;
	size_t count, cap;
	uint64_t order;
	int fd; /* -1: everything fits */
	off_t size;
	struct run *runs;
	size_t run_count;
};

struct spill *spill_new(size_t memory)
{
	struct spill *spill = calloc(1, sizeof(*spill));

	if (!spill)
		return NULL;
	spill->memory = memory;
	spill->fd = -1;
	buf_init(&spill->lines);
	return spill;
}

void spill_free(struct spill *spill)
{
	if (!spill)
		return;
	for (size_t i = 0; i < spill->run_count; i++)
		buf_free(&spill->runs[i].window);
	if (spill->fd >= 0)
		(void)close(spill->fd); /* nobody's any more */
	buf_free(&spill->lines);
	free(spill->runs);
	free(spill->offsets);
	free(spill);
}

static struct header header_at(const struct spill *spill, size_t offset)
{
	struct header header;

	memcpy(&header, spill->lines.data + offset, sizeof(header));
	return header;
}

static int compare_headers(const struct header *a, const struct header *b)
{
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return (a->order > b->order) - (a->order < b->order);
}

static int compare(const void *left, const void *right, void *arg)
{
	struct header a = header_at(arg, *(const size_t *)left), b = header_at(arg, *(const size_t *)right);

	return compare_headers(&a, &b);
}

static void sort(struct spill *spill)
{
	if (spill->count)
		qsort_r(spill->offsets, spill->count, sizeof(*spill->offsets), compare, spill);
}

/* --- out ------------------------------------------------------------------------------------------ */

static int open_file(void)
{
	const char *dir = getenv("TMPDIR");
	AUTO_FREE char *path = NULL;
	int fd;

	if (!dir || !*dir)
		dir = "/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	if (asprintf(&path, "%s/varve-log-XXXXXX", dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)unlink(path); /* else it stays behind, and that is all */
	return fd;
}

static int write_out(struct spill *spill, const struct buf *bytes)
{
	for (size_t done = 0; done < bytes->len;) {
		ssize_t n = pwrite(spill->fd, bytes->data + done, bytes->len - done, spill->size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			done += (size_t)n;
			spill->size += n;
		}
	}
	return 0;
}

static int write_run(struct spill *spill)
{
	struct run *runs = reallocarray(spill->runs, spill->run_count + 1, sizeof(*runs));
	struct run run = {.at = spill->size, .window = BUF_INIT};
	AUTO_BUF out = BUF_INIT;
	int rc = 0;

	if (!runs)
		return -ENOMEM;
	spill->runs = runs;
	if (spill->fd < 0)
		spill->fd = open_file();
	if (spill->fd < 0)
		return spill->fd;
	sort(spill);
	for (size_t i = 0; rc == 0 && i < spill->count; i++) {
		struct header header = header_at(spill, spill->offsets[i]);

		buf_add(&out, spill->lines.data + spill->offsets[i], sizeof(header) + header.len);
		if (out.len < WINDOW && i + 1 < spill->count)
			continue;
		rc = buf_failed(&out) ? -ENOMEM : write_out(spill, &out);
		buf_reset(&out);
	}
	run.end = spill->size;
	if (rc == 0)
		spill->runs[spill->run_count++] = run;
	spill->count = 0;
	buf_reset(&spill->lines);
	return rc;
}

int spill_add(struct spill *spill, int64_t key, const char *line)
{
	struct header header = {.key = key, .order = spill->order++, .len = strlen(line) + 1};

	if (spill->count && spill->lines.len + sizeof(header) + header.len > spill->memory) {
		int rc = write_run(spill);

		if (rc < 0)
			return rc;
	}
	if (ARRAY_ROOM(spill->offsets, spill->cap, spill->count))
		return -ENOMEM;
	spill->offsets[spill->count] = spill->lines.len;
	buf_add(&spill->lines, &header, sizeof(header));
	buf_add(&spill->lines, line, header.len);
	if (buf_failed(&spill->lines))
		return -ENOMEM;
	spill->count++;
	return 0;
}

/* --- in ------------------------------------------------------------------------------------------- */

/* Makes `len` bytes beyond `used` available in the window. */
static int need(const struct spill *spill, struct run *run, size_t len)
{
	size_t want = len > WINDOW ? len : WINDOW, room;

	if (run->window.len - run->used >= len)
		return 0;
	memmove(run->window.data, run->window.data + run->used, run->window.len - run->used);
	run->window.len -= run->used;
	run->used = 0;
	if (buf_reserve(&run->window, want) < 0)
		return -ENOMEM;
	room = run->window.len + want;
	while (run->window.len < len && run->at < run->end) {
		size_t left = (size_t)(run->end - run->at), free_room = room - run->window.len;
		ssize_t n = pread(spill->fd, run->window.data + run->window.len, left < free_room ? left : free_room,
				  run->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		run->window.len += (size_t)n;
		run->at += n;
	}
	return run->window.len < len ? -ENODATA : 0;
}

/* The next record to the front of the window: 0, -ENODATA at the end. */
static int advance(const struct spill *spill, struct run *run)
{
	int rc = need(spill, run, sizeof(run->header));

	if (rc < 0)
		return rc;
	memcpy(&run->header, run->window.data + run->used, sizeof(run->header));
	return need(spill, run, sizeof(run->header) + run->header.len);
}

static int merge(struct spill *spill, int (*visit)(void *arg, const char *line), void *arg)
{
	size_t left = spill->run_count;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < left; i++)
		rc = advance(spill, &spill->runs[i]); /* no run is empty */
	while (rc == 0 && left > 0) {
		struct run *first = spill->runs, last;

		for (size_t i = 1; i < left; i++) {
			if (compare_headers(&spill->runs[i].header, &first->header) < 0)
				first = &spill->runs[i];
		}
		rc = visit(arg, first->window.data + first->used + sizeof(first->header));
		if (rc != 0)
			break;
		first->used += sizeof(first->header) + first->header.len;
		rc = advance(spill, first);
		if (rc == -ENODATA) {
			last = spill->runs[--left];
			spill->runs[left] = *first;
			*first = last;
			rc = 0;
		}
	}
	return rc;
}

int spill_each(struct spill *spill, int (*visit)(void *arg, const char *line), void *arg)
{
	int rc = 0;

	if (spill->run_count) {
		rc = spill->count ? write_run(spill) : 0;
		return rc < 0 ? rc : merge(spill, visit, arg);
	}
	sort(spill);
	for (size_t i = 0; rc == 0 && i < spill->count; i++)
		rc = visit(arg, spill->lines.data + spill->offsets[i] + sizeof(struct header));
	return rc;
}
