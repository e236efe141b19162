/*
 * policy.h - which versions of one history a prune keeps, in restic's words.
 *
 * Pure: no state, no I/O, safe from any thread. All calendars are UTC.
 */
#ifndef VARVE_POLICY_H
#define VARVE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "1y6m10d12h": calendar years and months, days, hours. */
struct policy_span {
	unsigned years, months, days, hours;
};
/* 0 or -EINVAL. */
int policy_parse_span(const char *text, struct policy_span *ret_span);
/* The instant that much after `ns`. */
int64_t policy_after(int64_t ns, const struct policy_span *span);

struct policy {
	unsigned last; /* the newest so many */
	unsigned hourly, daily, weekly, monthly,
		yearly;            /* the newest of each of the last so many periods that have one */
	struct policy_span within; /* all made within this before the newest one */
};
/* Would it keep anything? One that would not is never meant. */
bool policy_is_empty(const struct policy *policy);

/* `times` are those of one history, oldest first. ret_keep[i] says why version i is kept; NULL: it is not. */
void policy_apply(const struct policy *policy, const int64_t *times_ns, size_t count, const char **ret_keep);

#endif
