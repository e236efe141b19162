/*
 * readahead.c - which reader of a file a read belongs to, and where that one will read next.
 *
 * The kernel cuts what a program reads into requests of its own, sends several at once, and they arrive in any order.
 * So a read goes on a stream when it begins near where the stream ends, near being a few requests either way; slack in
 * proportion to the request keeps small random reads from looking like a sequence.
 *
 * Invariants
 *  1. A stream's ahead never passes limits->size; what it asked for is asked once, unless readahead_short gives it
 * back.
 *  2. The window of a stream is at most WINDOW_FACTOR times what it has read, so a reader that stops has cost at most
 *     that factor in bytes, and one that goes on reaches the full window after a few round trips.
 *  3. Streams do not touch each other but for the slots: a new one takes that of the lone read longest ago, if there is
 *     any, else that of the sequence unused for longest. Each step of a strided reader is a stream of its own, for it
 * may as well be the first read of one of several sequences that begin at equal distances.
 */
#include "fs/readahead.h"

#include <string.h>

#define LONE_BLOCK (UINT64_C(64) << 10)  /* a lone read brings this much, aligned */
#define NEED_BLOCK (UINT64_C(1) << 20)   /* one that goes on a sequence this much */
#define WINDOW_FIRST (UINT64_C(1) << 20) /* ahead of a reader that began */
#define WINDOW_FACTOR 4
#define PIECE_MIN (UINT64_C(1) << 20)
#define PIECE_MAX (UINT64_C(16) << 20)
#define SLACK_REQUESTS 4
#define SLACK_MAX (UINT64_C(4) << 20)
#define STRIDE_MAX (INT64_C(256) << 20)
#define STRIDES_SURE 2
#define BEHIND (UINT64_C(1) << 20)         /* what a reader has just passed may be read again */
#define PASSED_STEP (UINT64_C(8) << 20)    /* told at a time */
#define PASSED_KEPT (UINT64_C(8) << 20)    /* more than the kernel may ask for out of turn */
#define GONE_AFTER (4 * READAHEAD_STREAMS) /* reads of others */
#define READAHEAD_MISSES 8                 /* before these a reader may be after a header and an index only */

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t slack(const struct readahead_stream *stream, uint64_t len)
{
	return smaller(SLACK_REQUESTS * (stream->len > len ? stream->len : len), SLACK_MAX);
}

/* The stream that the read goes on in sequence, the nearest; NULL: none. */
static struct readahead_stream *find_sequence(struct readahead *readahead, uint64_t start, uint64_t len)
{
	struct readahead_stream *best = NULL;

	for (unsigned i = 0; i < readahead->count; i++) {
		struct readahead_stream *stream = &readahead->streams[i];
		uint64_t off = distance(start, stream->next);

		if (off <= slack(stream, len) && (!best || off < distance(start, best->next)))
			best = stream;
	}
	return best;
}

/* The stream whose next block begins here. */
static struct readahead_stream *find_stride(struct readahead *readahead, uint64_t start)
{
	for (unsigned i = 0; i < readahead->count; i++) {
		struct readahead_stream *stream = &readahead->streams[i];

		if (stream->stride && !stream->consumed && stream->last + (uint64_t)stream->stride == start)
			return stream;
	}
	return NULL;
}

static bool is_better_victim(const struct readahead_stream *one, const struct readahead_stream *other)
{
	if (!one->consumed != !other->consumed)
		return !one->consumed;
	return one->used < other->used;
}

static struct readahead_stream *take_slot(struct readahead *readahead)
{
	struct readahead_stream *victim = &readahead->streams[0];

	if (readahead->count < READAHEAD_STREAMS)
		return &readahead->streams[readahead->count++];
	for (unsigned i = 1; i < readahead->count; i++)
		if (is_better_victim(&readahead->streams[i], victim))
			victim = &readahead->streams[i];
	return victim;
}

/* The step from the newest lone read. */
static int64_t find_step(const struct readahead *readahead, uint64_t start)
{
	const struct readahead_stream *newest = NULL;
	int64_t step;

	for (unsigned i = 0; i < readahead->count; i++) {
		const struct readahead_stream *stream = &readahead->streams[i];

		if (!stream->consumed && (!newest || stream->used > newest->used))
			newest = stream;
	}
	step = newest ? (int64_t)(start - newest->last) : 0;
	return step > STRIDE_MAX || step < -STRIDE_MAX ? 0 : step;
}

/* A read that goes on no sequence: perhaps the first of one, perhaps one step from a read before. */
static struct readahead_stream *begin_stream(struct readahead *readahead, uint64_t start)
{
	struct readahead_stream *before = find_stride(readahead, start), *stream;
	struct readahead_stream fresh = {.next = start, .ahead = start, .passed = start};

	if (before) {
		fresh.stride = before->stride;
		fresh.strides = before->strides + 1;
		before->stride = 0;
	} else {
		fresh.stride = find_step(readahead, start);
		fresh.strides = fresh.stride != 0;
	}
	stream = take_slot(readahead);
	*stream = fresh;
	return stream;
}

static void plan_lone(uint64_t start, uint64_t end, uint64_t size, struct readahead_plan *plan)
{
	uint64_t to = (end + LONE_BLOCK - 1) & ~(LONE_BLOCK - 1);

	plan->pattern = READAHEAD_LONE;
	plan->need = (struct range){start & ~(LONE_BLOCK - 1), smaller(to, size)};
}

static uint64_t window_of(const struct readahead_stream *stream, uint64_t most)
{
	uint64_t window = stream->consumed * WINDOW_FACTOR;

	return smaller(window > WINDOW_FIRST ? window : WINDOW_FIRST, most);
}

static uint64_t piece_of(uint64_t window)
{
	uint64_t piece = PIECE_MIN;

	while (piece < PIECE_MAX && piece * 4 <= window)
		piece *= 2;
	return piece;
}

static void plan_sequence(struct readahead_stream *stream, uint64_t start, const struct readahead_limits *limits,
			  struct readahead_plan *plan)
{
	uint64_t window = window_of(stream, limits->window), piece = piece_of(window), target;
	uint64_t to = (start + stream->len + NEED_BLOCK - 1) & ~(NEED_BLOCK - 1);

	plan->pattern = READAHEAD_SEQUENTIAL;
	plan->piece = piece;
	if (window < NEED_BLOCK)
		to = start + stream->len;
	plan->need = (struct range){start, smaller(to, limits->size)};
	if (stream->ahead < plan->need.end)
		stream->ahead = plan->need.end;
	/* Whole pieces, the last one of the file excepted. */
	target = (stream->next + window) & ~(piece - 1);
	if (stream->next + window >= limits->size)
		target = limits->size;
	if (target <= stream->ahead)
		return;
	plan->ahead[plan->count++] = (struct range){stream->ahead, target};
	stream->ahead = target;
}

static void plan_strides(const struct readahead_stream *stream, const struct readahead_limits *limits,
			 struct readahead_plan *plan)
{
	uint64_t depth = UINT64_C(1) << smaller(stream->strides - STRIDES_SURE, 5);
	uint64_t at = stream->last;

	plan->pattern = READAHEAD_STRIDED;
	plan->piece = PIECE_MAX;
	depth = smaller(smaller(depth, READAHEAD_DEPTH), limits->window / stream->len);
	for (uint64_t i = 0; i < depth; i++) {
		at += (uint64_t)stream->stride; /* a step back wraps to the right number */
		if (at >= limits->size)
			break;
		plan->ahead[plan->count++] = (struct range){at, smaller(at + stream->len, limits->size)};
	}
}

void readahead_note(struct readahead *readahead, uint64_t start, uint64_t end, const struct readahead_limits *limits,
		    struct readahead_plan *ret_plan)
{
	uint64_t len = end - start;
	struct readahead_stream *stream = find_sequence(readahead, start, len);
	bool sequential = stream != NULL;

	memset(ret_plan, 0, sizeof(*ret_plan));
	if (stream) {
		stream->strides = 0;
		stream->stride = 0;
		if (!stream->consumed && stream->next > stream->last)
			stream->consumed = stream->next - stream->last;
		stream->consumed += end > stream->next ? end - stream->next : 0;
	} else {
		stream = begin_stream(readahead, start);
		sequential = start == 0; /* whoever begins at the beginning goes on, more often than not */
		stream->consumed = sequential ? len : 0;
	}
	stream->used = ++readahead->tick;
	stream->last = start;
	stream->len = len;
	if (!sequential || end > stream->next)
		stream->next = end;
	ret_plan->stream = (unsigned)(stream - readahead->streams);
	plan_lone(start, end, limits->size, ret_plan);
	if (sequential)
		plan_sequence(stream, start, limits, ret_plan);
	else if (stream->strides > STRIDES_SURE)
		plan_strides(stream, limits, ret_plan);
}

void readahead_short(struct readahead *readahead, const struct readahead_plan *plan, uint64_t at)
{
	struct readahead_stream *stream = &readahead->streams[plan->stream];

	if (plan->pattern == READAHEAD_SEQUENTIAL && at < stream->ahead)
		stream->ahead = at;
}

static bool is_active(const struct readahead *readahead, const struct readahead_stream *stream)
{
	return stream->consumed && readahead->tick - stream->used < GONE_AFTER;
}

unsigned readahead_active(const struct readahead *readahead)
{
	unsigned active = 0;

	for (unsigned i = 0; i < readahead->count; i++)
		active += is_active(readahead, &readahead->streams[i]);
	return active;
}

/* NULL: none, or several. */
static struct readahead_stream *only_active(struct readahead *readahead)
{
	struct readahead_stream *only = NULL;

	for (unsigned i = 0; i < readahead->count; i++) {
		if (!is_active(readahead, &readahead->streams[i]))
			continue;
		if (only)
			return NULL;
		only = &readahead->streams[i];
	}
	return only;
}

bool readahead_passed(struct readahead *readahead, struct range *ret_passed)
{
	struct readahead_stream *stream = only_active(readahead);

	if (!stream || stream->next < stream->passed + PASSED_STEP + PASSED_KEPT)
		return false;
	*ret_passed = (struct range){stream->passed, stream->next - PASSED_KEPT};
	stream->passed = ret_passed->end;
	return true;
}

int readahead_keep(const struct readahead *readahead, struct ranges *kept)
{
	int err = 0;

	for (unsigned i = 0; i < readahead->count && !err; i++) {
		const struct readahead_stream *stream = &readahead->streams[i];
		uint64_t from = stream->next > BEHIND ? stream->next - BEHIND : 0;

		if (is_active(readahead, stream))
			err = ranges_add(kept, from, stream->ahead > stream->next ? stream->ahead : stream->next);
	}
	return err;
}

/* --- ski rental ------------------------------------------------------------------------------------------------- */

void readahead_paid(struct readahead *readahead, int64_t waited_ns)
{
	readahead->misses++;
	readahead->paid_ns += waited_ns;
}

uint64_t readahead_allowance(const struct readahead *readahead, uint64_t size, uint64_t cap, uint64_t bandwidth)
{
	double worth = (double)readahead->paid_ns * (double)bandwidth / 1e9;
	uint64_t most;

	if (size > cap || readahead->misses < READAHEAD_MISSES)
		return 0;
	most = worth < (double)size ? (uint64_t)worth : size;
	return most > readahead->speculated ? most - readahead->speculated : 0;
}

void readahead_speculated(struct readahead *readahead, uint64_t bytes)
{
	readahead->speculated += bytes;
}
