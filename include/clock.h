/*
 * clock.h - time. All times are int64_t nanoseconds; wall times since the epoch, UTC.
 */
#ifndef VARVE_CLOCK_H
#define VARVE_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_SEC INT64_C(1000000000)

int64_t clock_wall(void);      /* CLOCK_REALTIME */
int64_t clock_monotonic(void); /* CLOCK_MONOTONIC: deadlines, waits */
int64_t clock_boottime(void);  /* CLOCK_BOOTTIME: leases, counts through suspend */

/* What something takes at best, of late: near the least of the measurements so far, whatever a busy machine adds to
 * some of them, and slow to forget. 0: none yet. */
int64_t clock_at_best(int64_t before_ns, int64_t took_ns);

struct timespec clock_to_timespec(int64_t ns);
int64_t clock_from_timespec(struct timespec ts);

/* "2026-11-21T10-00-00.123Z": sorts by time, no ':' (shells cannot complete past it). */
#define CLOCK_NAME_SIZE 25
void clock_format_name(int64_t wall_ns, char ret_text[static CLOCK_NAME_SIZE]);

/* "2026-11-21T10:00:00.123456789Z" */
#define CLOCK_RFC3339_SIZE 31
void clock_format_rfc3339(int64_t wall_ns, char ret_text[static CLOCK_RFC3339_SIZE]);

/* HTTP-date (RFC 9110, the three forms) to wall ns. 0 or -EINVAL. */
int clock_parse_http(const char *text, int64_t *ret_ns);

/*
 * A point in time as people write it, as of the END of the unit written
 * ("2026-11-20" is the last nanosecond of that day, "…T10:00Z" of that minute):
 * RFC 3339 with any offset or Z (':' or '-' between time fields, fraction optional,
 * seconds optional), a whole date (UTC), "@GMT-2026.11.21-10.00.00", or an age
 * before now_ns: "90s" "15m" "2h" "3d" "2w". A time of day without a zone is refused.
 * 0 or -EINVAL.
 */
int clock_parse_when(const char *text, int64_t now_ns, int64_t *ret_ns);

#endif
