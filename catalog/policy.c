/* policy.c - see policy.h. */
#include "policy.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"

#define NUMBER_MAX 100000
#define SECONDS_PER_HOUR 3600
#define SECONDS_PER_DAY (24 * SECONDS_PER_HOUR)
#define MONDAY_OF_WEEK_0 3 /* 1970-01-01 was a Thursday: days to add for weeks that begin on Mondays */

int policy_parse_span(const char *text, struct policy_span *ret_span)
{
	struct policy_span span = {0};

	if (!*text)
		return -EINVAL;
	while (*text) {
		unsigned *field;
		unsigned long number;
		char *end;

		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		number = strtoul(text, &end, 10);
		field = *end == 'y'   ? &span.years
			: *end == 'm' ? &span.months
			: *end == 'd' ? &span.days
			: *end == 'h' ? &span.hours
				      : NULL;
		if (!field || *field || number > NUMBER_MAX)
			return -EINVAL;
		*field = (unsigned)number;
		text = end + 1;
	}
	*ret_span = span;
	return 0;
}

static bool span_is_empty(const struct policy_span *span)
{
	return !span->years && !span->months && !span->days && !span->hours;
}

bool policy_is_empty(const struct policy *policy)
{
	return !policy->last && !policy->hourly && !policy->daily && !policy->weekly && !policy->monthly &&
	       !policy->yearly && span_is_empty(&policy->within);
}

/* The instant `sign` times `span` from `ns`; days that a month does not have run over into the next, as timegm does. */
static int64_t shift(int64_t ns, const struct policy_span *span, int sign)
{
	time_t seconds = (time_t)(ns / NS_PER_SEC);
	struct tm at;

	if (!gmtime_r(&seconds, &at))
		return sign < 0 ? INT64_MIN : INT64_MAX;
	at.tm_year += sign * (int)span->years;
	at.tm_mon += sign * (int)span->months;
	at.tm_mday += sign * (int)span->days;
	at.tm_hour += sign * (int)span->hours;
	seconds = timegm(&at);
	if (seconds > INT64_MAX / NS_PER_SEC - 1)
		return INT64_MAX;
	if (seconds < INT64_MIN / NS_PER_SEC + 1)
		return INT64_MIN;
	return (int64_t)seconds * NS_PER_SEC + ns % NS_PER_SEC;
}

int64_t policy_after(int64_t ns, const struct policy_span *span)
{
	return shift(ns, span, 1);
}

/* --- periods: numbers that are equal for times within one ------------------------------------------- */

static int64_t hour_of(int64_t seconds)
{
	return seconds / SECONDS_PER_HOUR;
}

static int64_t day_of(int64_t seconds)
{
	return seconds / SECONDS_PER_DAY;
}

static int64_t week_of(int64_t seconds)
{
	return (seconds / SECONDS_PER_DAY + MONDAY_OF_WEEK_0) / 7;
}

static int64_t month_of(int64_t seconds)
{
	time_t time = (time_t)seconds;
	struct tm at;

	return gmtime_r(&time, &at) ? (int64_t)at.tm_year * 12 + at.tm_mon : 0;
}

static int64_t year_of(int64_t seconds)
{
	return month_of(seconds) / 12;
}

/* The newest of each of the last `wanted` periods. */
static void keep_periods(int64_t (*period_of)(int64_t seconds), unsigned wanted, const char *why,
			 const int64_t *times_ns, size_t count, const char **ret_keep)
{
	int64_t seen = 0;
	bool any = false;

	for (size_t i = count; i-- > 0 && wanted;) {
		int64_t period = period_of(times_ns[i] / NS_PER_SEC);

		if (any && period == seen)
			continue;
		any = true;
		seen = period;
		wanted--;
		if (!ret_keep[i])
			ret_keep[i] = why;
	}
}

void policy_apply(const struct policy *policy, const int64_t *times_ns, size_t count, const char **ret_keep)
{
	for (size_t i = 0; i < count; i++)
		ret_keep[i] = count - i <= policy->last ? "last" : NULL;
	keep_periods(hour_of, policy->hourly, "hourly", times_ns, count, ret_keep);
	keep_periods(day_of, policy->daily, "daily", times_ns, count, ret_keep);
	keep_periods(week_of, policy->weekly, "weekly", times_ns, count, ret_keep);
	keep_periods(month_of, policy->monthly, "monthly", times_ns, count, ret_keep);
	keep_periods(year_of, policy->yearly, "yearly", times_ns, count, ret_keep);
	if (count && !span_is_empty(&policy->within)) {
		int64_t from = shift(times_ns[count - 1], &policy->within, -1);

		for (size_t i = 0; i < count; i++)
			if (times_ns[i] >= from && !ret_keep[i])
				ret_keep[i] = "within";
	}
}
