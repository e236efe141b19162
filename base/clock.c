/*
 * clock.c - clocks, and times as text.
 *
 * Times are int64_t nanoseconds, which reach from 1677 to 2262; text beyond
 * the whole years in between is refused. The parsers are pure, take only what
 * their format allows and know nothing of locales or of the local time zone.
 */
#include "clock.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define AT_BEST_MEMORY 64 /* measurements */
#define YEAR_MIN 1678
#define YEAR_MAX 2261

static int64_t clock_now(clockid_t id)
{
	struct timespec now;

	(void)clock_gettime(id, &now); /* cannot fail for the ids below */
	return clock_from_timespec(now);
}

int64_t clock_wall(void)
{
	return clock_now(CLOCK_REALTIME);
}

int64_t clock_monotonic(void)
{
	return clock_now(CLOCK_MONOTONIC);
}

int64_t clock_boottime(void)
{
	return clock_now(CLOCK_BOOTTIME);
}

int64_t clock_at_best(int64_t before_ns, int64_t took_ns)
{
	return before_ns && took_ns > before_ns ? before_ns + (took_ns - before_ns) / AT_BEST_MEMORY : took_ns;
}

/* Rounds down, also before the epoch: tv_nsec is never negative. */
struct timespec clock_to_timespec(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / NS_PER_SEC, .tv_nsec = ns % NS_PER_SEC};

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += NS_PER_SEC;
	}
	return ts;
}

/* Saturates: timespecs come from files and may hold any second. */
int64_t clock_from_timespec(struct timespec ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts.tv_sec, NS_PER_SEC, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
		return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static void put_digits(char *ret_text, int count, long value)
{
	while (count-- > 0) {
		ret_text[count] = (char)('0' + value % 10);
		value /= 10;
	}
}

/* The 19 bytes "2026-11-21?10?00?00" with the separators given; returns the nanoseconds that are left. */
static long format_seconds(int64_t wall_ns, char separator, char *ret_text)
{
	struct timespec ts = clock_to_timespec(wall_ns);
	struct tm tm;

	(void)gmtime_r(&ts.tv_sec, &tm); /* every int64_t of nanoseconds has a four-digit year */
	put_digits(ret_text, 4, tm.tm_year + 1900L);
	ret_text[4] = '-';
	put_digits(ret_text + 5, 2, tm.tm_mon + 1L);
	ret_text[7] = '-';
	put_digits(ret_text + 8, 2, tm.tm_mday);
	ret_text[10] = 'T';
	put_digits(ret_text + 11, 2, tm.tm_hour);
	ret_text[13] = separator;
	put_digits(ret_text + 14, 2, tm.tm_min);
	ret_text[16] = separator;
	put_digits(ret_text + 17, 2, tm.tm_sec);
	return ts.tv_nsec;
}

void clock_format_name(int64_t wall_ns, char ret_text[static CLOCK_NAME_SIZE])
{
	long ns = format_seconds(wall_ns, '-', ret_text);

	ret_text[19] = '.';
	put_digits(ret_text + 20, 3, ns / (long)NS_PER_MS);
	ret_text[23] = 'Z';
	ret_text[24] = '\0';
}

void clock_format_rfc3339(int64_t wall_ns, char ret_text[static CLOCK_RFC3339_SIZE])
{
	long ns = format_seconds(wall_ns, ':', ret_text);

	ret_text[19] = '.';
	put_digits(ret_text + 20, 9, ns);
	ret_text[29] = 'Z';
	ret_text[30] = '\0';
}

/* A place in a text. A take_ function consumes what it names; once one said false the place means nothing. The
 * take_ functions that are tried as alternatives (char, text, number, name) then stay where they were. */
struct scan {
	const char *at;
};

static bool take_char(struct scan *scan, const char *any_of)
{
	if (!*scan->at || !strchr(any_of, *scan->at))
		return false;
	scan->at++;
	return true;
}

static bool take_text(struct scan *scan, const char *text)
{
	size_t len = strlen(text);

	if (strncmp(scan->at, text, len) != 0)
		return false;
	scan->at += len;
	return true;
}

/* Exactly `count` digits. */
static bool take_number(struct scan *scan, int count, int *ret_value)
{
	int value = 0;

	for (int i = 0; i < count; i++) {
		if (scan->at[i] < '0' || scan->at[i] > '9')
			return false;
		value = value * 10 + (scan->at[i] - '0');
	}
	scan->at += count;
	*ret_value = value;
	return true;
}

/* One of the names; its index. */
static bool take_name(struct scan *scan, const char *const names[], int count, int *ret_index)
{
	for (int i = 0; i < count; i++) {
		if (take_text(scan, names[i])) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

static bool at_end(const struct scan *scan)
{
	return !*scan->at;
}

struct civil {
	int year;
	int month; /* 1..12 */
	int day;
	int hour;
	int minute;
	int second; /* 60 in a leap second: counted as the second after it, as POSIX time does */
};

static int civil_to_ns(const struct civil *civil, int64_t *ret_ns)
{
	struct tm tm = {
		.tm_year = civil->year - 1900,
		.tm_mon = civil->month - 1,
		.tm_mday = civil->day,
		.tm_hour = civil->hour,
		.tm_min = civil->minute,
		.tm_sec = civil->second,
	};
	struct tm day = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday};

	if (civil->year < YEAR_MIN || civil->year > YEAR_MAX || civil->month < 1 || civil->month > 12 ||
	    civil->day < 1 || civil->hour > 23 || civil->minute > 59 || civil->second > 60)
		return -EINVAL;
	(void)timegm(&day); /* for what it makes of the 31st of a shorter month */
	if (day.tm_mday != civil->day)
		return -EINVAL;
	*ret_ns = (int64_t)timegm(&tm) * NS_PER_SEC;
	return 0;
}

static const char *const month_names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const day_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const day_long_names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
					     "Thursday", "Friday", "Saturday"};

static bool take_month(struct scan *scan, int *ret_month)
{
	int index;

	if (!take_name(scan, month_names, 12, &index))
		return false;
	*ret_month = index + 1;
	return true;
}

static bool take_http_clock(struct scan *scan, struct civil *civil)
{
	return take_number(scan, 2, &civil->hour) && take_text(scan, ":") && take_number(scan, 2, &civil->minute) &&
	       take_text(scan, ":") && take_number(scan, 2, &civil->second);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool parse_imf_fixdate(struct scan scan, struct civil *civil)
{
	int weekday;

	return take_name(&scan, day_names, 7, &weekday) && take_text(&scan, ", ") &&
	       take_number(&scan, 2, &civil->day) && take_text(&scan, " ") && take_month(&scan, &civil->month) &&
	       take_text(&scan, " ") && take_number(&scan, 4, &civil->year) && take_text(&scan, " ") &&
	       take_http_clock(&scan, civil) && take_text(&scan, " GMT") && at_end(&scan);
}

/* RFC 9110, 5.6.7: a two-digit year that seems more than 50 years ahead means the most recent past one that ends so. */
static int full_year(int two_digits)
{
	time_t now = clock_to_timespec(clock_wall()).tv_sec;
	struct tm tm;
	int year;

	(void)gmtime_r(&now, &tm); /* the year of a running clock fits */
	year = (tm.tm_year + 1900) / 100 * 100 + two_digits;
	return year > tm.tm_year + 1900 + 50 ? year - 100 : year;
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" */
static bool parse_rfc850(struct scan scan, struct civil *civil)
{
	int weekday;
	int two_digits;

	if (!(take_name(&scan, day_long_names, 7, &weekday) && take_text(&scan, ", ") &&
	      take_number(&scan, 2, &civil->day) && take_text(&scan, "-") && take_month(&scan, &civil->month) &&
	      take_text(&scan, "-") && take_number(&scan, 2, &two_digits) && take_text(&scan, " ") &&
	      take_http_clock(&scan, civil) && take_text(&scan, " GMT") && at_end(&scan)))
		return false;
	civil->year = full_year(two_digits);
	return true;
}

/* "Sun Nov  6 08:49:37 1994" */
static bool parse_asctime(struct scan scan, struct civil *civil)
{
	int weekday;

	return take_name(&scan, day_names, 7, &weekday) && take_text(&scan, " ") && take_month(&scan, &civil->month) &&
	       take_text(&scan, " ") &&
	       (take_text(&scan, " ") ? take_number(&scan, 1, &civil->day) : take_number(&scan, 2, &civil->day)) &&
	       take_text(&scan, " ") && take_http_clock(&scan, civil) && take_text(&scan, " ") &&
	       take_number(&scan, 4, &civil->year) && at_end(&scan);
}

int clock_parse_http(const char *text, int64_t *ret_ns)
{
	struct civil civil = {0};
	struct scan scan = {text};

	if (!parse_imf_fixdate(scan, &civil) && !parse_rfc850(scan, &civil) && !parse_asctime(scan, &civil))
		return -EINVAL;
	return civil_to_ns(&civil, ret_ns);
}

static bool take_date(struct scan *scan, const char *separator, struct civil *civil)
{
	return take_number(scan, 4, &civil->year) && take_text(scan, separator) &&
	       take_number(scan, 2, &civil->month) && take_text(scan, separator) && take_number(scan, 2, &civil->day);
}

/* Up to nine digits count; the unit is that of the last one. */
static bool take_fraction(struct scan *scan, int64_t *ret_ns, int64_t *ret_unit)
{
	int64_t unit = NS_PER_SEC;
	int64_t ns = 0;
	int digit;

	if (!take_number(scan, 1, &digit))
		return false;
	do {
		if (unit > 1) {
			unit /= 10;
			ns += digit * unit;
		}
	} while (take_number(scan, 1, &digit));
	*ret_ns = ns;
	*ret_unit = unit;
	return true;
}

/* "Z", "+02:00", "-0530"; how far local time is ahead of UTC. */
static bool take_zone(struct scan *scan, int64_t *ret_offset_ns)
{
	bool west = *scan->at == '-';
	int hours;
	int minutes;
	int64_t offset;

	if (take_char(scan, "Zz")) {
		*ret_offset_ns = 0;
		return true;
	}
	if (!take_char(scan, "+-") || !take_number(scan, 2, &hours))
		return false;
	(void)take_char(scan, ":"); /* optional */
	if (!take_number(scan, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	offset = (hours * INT64_C(3600) + minutes * INT64_C(60)) * NS_PER_SEC;
	*ret_offset_ns = west ? -offset : offset;
	return true;
}

enum precision { TO_MINUTES, TO_SECONDS };

/* "T10:00Z", "T10-00-00.123+02:00": the rest of an RFC 3339 text, with or without seconds. */
static int parse_time_of_day(struct scan scan, struct civil civil, enum precision precision, int64_t *ret_ns)
{
	int64_t unit = 60 * NS_PER_SEC;
	int64_t fraction = 0;
	char separator[2] = "";
	int64_t offset;
	int64_t ns;
	int res;

	if (!take_char(&scan, "Tt ") || !take_number(&scan, 2, &civil.hour))
		return -EINVAL;
	separator[0] = *scan.at;
	if (!take_char(&scan, ":-") || !take_number(&scan, 2, &civil.minute))
		return -EINVAL;
	if (precision == TO_SECONDS) {
		unit = NS_PER_SEC;
		if (!take_text(&scan, separator) || !take_number(&scan, 2, &civil.second))
			return -EINVAL;
		if (take_char(&scan, ".,") && !take_fraction(&scan, &fraction, &unit))
			return -EINVAL;
	}
	if (!take_zone(&scan, &offset) || !at_end(&scan))
		return -EINVAL;
	res = civil_to_ns(&civil, &ns);
	if (res)
		return res;
	*ret_ns = ns - offset + fraction + unit - 1;
	return 0;
}

/* Samba's names of previous versions: "@GMT-2026.11.21-10.00.00". */
static int parse_gmt_token(struct scan scan, int64_t *ret_ns)
{
	struct civil civil = {0};
	int64_t ns;
	int res;

	if (!take_text(&scan, "@GMT-") || !take_date(&scan, ".", &civil) || !take_text(&scan, "-") ||
	    !take_number(&scan, 2, &civil.hour) || !take_text(&scan, ".") || !take_number(&scan, 2, &civil.minute) ||
	    !take_text(&scan, ".") || !take_number(&scan, 2, &civil.second) || !at_end(&scan))
		return -EINVAL;
	res = civil_to_ns(&civil, &ns);
	if (res)
		return res;
	*ret_ns = ns + NS_PER_SEC - 1;
	return 0;
}

/* "90s": so long before now. */
static int parse_age(struct scan scan, int64_t now_ns, int64_t *ret_ns)
{
	static const struct {
		const char *letter;
		int64_t seconds;
	} units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 7 * 86400}};
	int64_t age = 0;
	int64_t ns;
	int digit;

	if (!take_number(&scan, 1, &digit))
		return -EINVAL;
	do {
		if (__builtin_mul_overflow(age, 10, &age) || __builtin_add_overflow(age, digit, &age))
			return -EINVAL;
	} while (take_number(&scan, 1, &digit));
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (!take_text(&scan, units[i].letter))
			continue;
		if (!at_end(&scan) || __builtin_mul_overflow(age, units[i].seconds * NS_PER_SEC, &age) ||
		    __builtin_sub_overflow(now_ns, age, &ns))
			return -EINVAL;
		*ret_ns = ns;
		return 0;
	}
	return -EINVAL;
}

int clock_parse_when(const char *text, int64_t now_ns, int64_t *ret_ns)
{
	struct scan scan = {text};
	struct civil civil = {0};
	int64_t ns;

	if (*text == '@')
		return parse_gmt_token(scan, ret_ns);
	if (!take_date(&scan, "-", &civil))
		return parse_age((struct scan){text}, now_ns, ret_ns);
	if (at_end(&scan)) {
		if (civil_to_ns(&civil, &ns))
			return -EINVAL;
		*ret_ns = ns + 86400 * NS_PER_SEC - 1;
		return 0;
	}
	/* With '-' between the fields "T10-00-0500" may be minutes and a zone: seconds are tried first. */
	if (parse_time_of_day(scan, civil, TO_SECONDS, ret_ns) == 0)
		return 0;
	return parse_time_of_day(scan, civil, TO_MINUTES, ret_ns);
}
