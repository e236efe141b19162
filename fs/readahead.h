/*
 * readahead.h - recognises how a file is read, and says what to fetch for it.
 *
 * Pure: reads go in, ranges come out; no I/O, no clock, no lock. Not
 * thread-safe: whoever owns it guards it. All numbers are bytes of the file.
 */
#ifndef VARVE_FS_READAHEAD_H
#define VARVE_FS_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "ranges.h"

#define READAHEAD_STREAMS 64
#define READAHEAD_DEPTH 32 /* blocks ahead of a strided reader, at most */

/* One reader's trace. */
struct readahead_stream {
	uint64_t last, len; /* the newest read: where it began, how long it was */
	uint64_t next;      /* end of the furthest read */
	uint64_t consumed;  /* bytes read in sequence; 0: a lone read so far */
	uint64_t ahead;     /* fetched, or being fetched, up to here */
	uint64_t passed;    /* told by readahead_passed, up to here */
	int64_t stride;     /* from the read before to this one; 0: unknown */
	unsigned strides;   /* how often in a row it was that */
	uint64_t used;      /* tick of its newest read */
};

struct readahead {
	struct readahead_stream streams[READAHEAD_STREAMS];
	unsigned count;
	uint64_t tick; /* reads noted */
	/* What random reads have cost, see readahead_allowance. */
	uint64_t misses;
	int64_t paid_ns;
	uint64_t speculated;
};

struct readahead_limits {
	uint64_t size;   /* nothing at or past it is to be fetched */
	uint64_t window; /* most bytes ahead of one reader */
};

enum readahead_pattern { READAHEAD_LONE, READAHEAD_SEQUENTIAL, READAHEAD_STRIDED };

struct readahead_plan {
	enum readahead_pattern pattern;
	struct range need;                   /* holds the read: at once */
	struct range ahead[READAHEAD_DEPTH]; /* not overlapping `need` */
	unsigned count;
	uint64_t piece; /* `ahead` in requests of this size */
	unsigned stream;
};

/* A read of [start, end), start < end <= limits->size. */
void readahead_note(struct readahead *readahead, uint64_t start, uint64_t end, const struct readahead_limits *limits,
		    struct readahead_plan *ret_plan);

/* Of the plan's ahead nothing from `at` on was begun: it is asked for again. */
void readahead_short(struct readahead *readahead, const struct readahead_plan *plan, uint64_t at);

/* Readers in sequence that still come. */
unsigned readahead_active(const struct readahead *readahead);

/* Adds what these are about to read, or have just read. 0 or -ENOMEM. */
int readahead_keep(const struct readahead *readahead, struct ranges *kept);

/* When one sequence is all that is read: what it has left behind for good since this was last asked. False: not worth a
 * word yet. */
bool readahead_passed(struct readahead *readahead, struct range *ret_passed);

/* A lone read waited so long for the store. */
void readahead_paid(struct readahead *readahead, int64_t waited_ns);

/*
 * How many bytes of the file may be fetched now that nobody has asked for yet,
 * at `bandwidth` bytes a second. The caller says what of it was begun.
 *
 * It is the ski rental: rent is the round trip of a miss, to buy is to fetch the
 * rest of the file. Speculation is never worth more time than misses have cost
 * so far, so with the true bandwidth the reads together never take more than
 * twice what the misses alone would, and never more than twice what fetching the
 * file at once would have, plus READAHEAD_MISSES round trips. Files over `cap`
 * get nothing: of an object that is not fetched to its end random reads find
 * little.
 */
uint64_t readahead_allowance(const struct readahead *readahead, uint64_t size, uint64_t cap, uint64_t bandwidth);
void readahead_speculated(struct readahead *readahead, uint64_t bytes);

#endif
