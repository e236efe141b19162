/* Unit tests of base/clock.c. */
#include "clock.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

/* 2026-11-21T10:00:00Z */
#define NOON (INT64_C(1795255200) * NS_PER_SEC)

Test(clock, runs)
{
	int64_t wall = clock_wall();
	int64_t monotonic = clock_monotonic();
	int64_t boot = clock_boottime();

	cr_assert_gt(wall, INT64_C(1700000000) * NS_PER_SEC);
	cr_assert_geq(clock_monotonic(), monotonic);
	cr_assert_geq(clock_boottime(), boot);
	cr_assert_geq(boot, monotonic, "the boot time counts suspended time too");
}

Test(clock, timespecs_round_down_and_back)
{
	static const int64_t values[] = {0,          1,         -1,       NS_PER_SEC, -NS_PER_SEC, -NS_PER_SEC - 1,
					 NOON + 123, INT64_MAX, INT64_MIN};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct timespec ts = clock_to_timespec(values[i]);

		cr_assert_geq(ts.tv_nsec, 0);
		cr_assert_lt(ts.tv_nsec, NS_PER_SEC);
		cr_assert_eq(clock_from_timespec(ts), values[i]);
	}
	cr_assert_eq(clock_to_timespec(-1).tv_sec, -1);
	cr_assert_eq(clock_from_timespec((struct timespec){.tv_sec = INT64_MAX}), INT64_MAX);
	cr_assert_eq(clock_from_timespec((struct timespec){.tv_sec = INT64_MIN}), INT64_MIN);
}

Test(clock, at_best_follows_what_is_quicker_at_once_and_what_is_slower_in_time)
{
	int64_t best = clock_at_best(0, 20 * NS_PER_MS);

	cr_assert_eq(best, 20 * NS_PER_MS, "the first is the best so far");
	best = clock_at_best(best, 2 * NS_PER_MS);
	cr_assert_eq(best, 2 * NS_PER_MS);
	best = clock_at_best(best, 20 * NS_PER_MS);
	cr_assert(best > 2 * NS_PER_MS && best < 3 * NS_PER_MS, "one slow answer says nothing of the way");
	for (int i = 0; i < 1000; i++)
		best = clock_at_best(best, 20 * NS_PER_MS);
	cr_assert(best > 19 * NS_PER_MS && best <= 20 * NS_PER_MS, "the way has become longer");
}

Test(clock, formats)
{
	char name[CLOCK_NAME_SIZE];
	char text[CLOCK_RFC3339_SIZE];

	clock_format_name(NOON + 123456789, name);
	cr_assert_str_eq(name, "2026-11-21T10-00-00.123Z");
	clock_format_rfc3339(NOON + 123456789, text);
	cr_assert_str_eq(text, "2026-11-21T10:00:00.123456789Z");
	clock_format_name(0, name);
	cr_assert_str_eq(name, "1970-01-01T00-00-00.000Z");
	clock_format_rfc3339(-1, text);
	cr_assert_str_eq(text, "1969-12-31T23:59:59.999999999Z");
	clock_format_rfc3339(INT64_MAX, text);
	cr_assert_str_eq(text, "2262-04-11T23:47:16.854775807Z");
	clock_format_rfc3339(INT64_MIN, text);
	cr_assert_str_eq(text, "1677-09-21T00:12:43.145224192Z");
}

Test(clock, reads_the_three_http_forms)
{
	static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
					    "Sun Nov  6 08:49:37 1994"};
	int64_t ns;

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		cr_assert_eq(clock_parse_http(forms[i], &ns), 0, "%s", forms[i]);
		cr_assert_eq(ns, 784111777 * NS_PER_SEC);
	}
	cr_assert_eq(clock_parse_http("Sat Nov 21 10:00:00 2026", &ns), 0);
	cr_assert_eq(ns, NOON);
	cr_assert_eq(clock_parse_http("Thu, 29 Feb 2024 00:00:00 GMT", &ns), 0);
	cr_assert_eq(ns, INT64_C(1709164800) * NS_PER_SEC);
}

Test(clock, refuses_what_is_no_http_date)
{
	static const char *const wrong[] = {"",
					    "Sun, 06 Nov 1994 08:49:37",
					    "Sun, 06 Nov 1994 08:49:37 GMT ",
					    "Sun, 6 Nov 1994 08:49:37 GMT",
					    "Sun, 06 nov 1994 08:49:37 GMT",
					    "Sun, 06 Nov 1994 24:00:00 GMT",
					    "Sun, 31 Nov 1994 08:49:37 GMT",
					    "Wed, 29 Feb 2023 00:00:00 GMT",
					    "Sun, 00 Nov 1994 08:49:37 GMT",
					    "Sun, 06 Nov 9999 08:49:37 GMT",
					    "Sun, 06 Nov 1994 08:49:37 EST",
					    "Sun Nov 06 08:49:37 94",
					    "784111777"};
	int64_t ns = 5;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_assert_eq(clock_parse_http(wrong[i], &ns), -EINVAL, "%s", wrong[i]);
	cr_assert_eq(ns, 5);
}

Test(clock, when_means_the_end_of_the_unit_written)
{
	static const struct {
		const char *text;
		int64_t ns; /* relative to NOON */
	} cases[] = {
		{"2026-11-21T10:00:00Z", NS_PER_SEC - 1},
		{"2026-11-21T10-00-00Z", NS_PER_SEC - 1},
		{"2026-11-21t10:00:00z", NS_PER_SEC - 1},
		{"2026-11-21 10:00:00Z", NS_PER_SEC - 1},
		{"2026-11-21T10:00:00.123Z", 124 * NS_PER_MS - 1},
		{"2026-11-21T10-00-00.123Z", 124 * NS_PER_MS - 1},
		{"2026-11-21T10:00:00.123456789Z", 123456789},
		{"2026-11-21T10:00:00.1234567891Z", 123456789},
		{"2026-11-21T10:00Z", 60 * NS_PER_SEC - 1},
		{"2026-11-21T10-00Z", 60 * NS_PER_SEC - 1},
		{"2026-11-21T12:00:00+02:00", NS_PER_SEC - 1},
		{"2026-11-21T12:00:00+0200", NS_PER_SEC - 1},
		{"2026-11-21T04:30:00-05:30", NS_PER_SEC - 1},
		{"2026-11-20T22-00-00-12:00", NS_PER_SEC - 1},
		{"2026-11-21T05:00-05:00", 60 * NS_PER_SEC - 1},
		{"2026-11-21T05-00-05:00", 60 * NS_PER_SEC - 1},
		{"2026-11-21T05-00-0500", 60 * NS_PER_SEC - 1},
		{"2026-11-21", 14 * 3600 * NS_PER_SEC - 1},
		{"2026-11-20", -10 * 3600 * NS_PER_SEC - 1},
		{"@GMT-2026.11.21-10.00.00", NS_PER_SEC - 1},
		{"90s", -90 * NS_PER_SEC},
		{"0s", 0},
		{"15m", -900 * NS_PER_SEC},
		{"2h", -7200 * NS_PER_SEC},
		{"3d", -3 * 86400 * NS_PER_SEC},
		{"2w", -14 * 86400 * NS_PER_SEC},
		{"20260s", -20260 * NS_PER_SEC},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t ns = 0;

		cr_assert_eq(clock_parse_when(cases[i].text, NOON, &ns), 0, "%s", cases[i].text);
		cr_assert_eq(ns - NOON, cases[i].ns, "%s: %jd", cases[i].text, (intmax_t)(ns - NOON));
	}
}

Test(clock, when_refuses_the_rest)
{
	static const char *const wrong[] = {
		"",
		"now",
		"2026",
		"2026-11",
		"2026-11-31",
		"2026-13-01",
		"2026-00-10",
		"2026-02-29",
		"2026-11-21T",
		"2026-11-21T10:00:00",
		"2026-11-21T10:00",
		"2026-11-21T10-00-00",
		"2026-11-21Z",
		"2026-11-21T10Z",
		"2026-11-21T24:00:00Z",
		"2026-11-21T10:60:00Z",
		"2026-11-21T10:00:61Z",
		"2026-11-21T10:00:00.Z",
		"2026-11-21T10:00-00Z",
		"2026-11-21T10:00:00Zx",
		"2026-11-21T10:00:00+2",
		"2026-11-21T10:00:00+24:00",
		"2026-11-21T10:00:00+02:60",
		"2026-11-21  ",
		"@2026.11.21-10.00.00",
		"@GMT-2026-11-21-10.00.00",
		"@GMT-2026.11.21-10.00.00x",
		"@GMT-2026.11.31-10.00.00",
		"5",
		"h",
		"-5h",
		"5h30m",
		"5 h",
		"5y",
		"99999999999999999999s",
		"9223372036854775807w",
		"9999-01-01",
		"0000-01-01",
		" 5h",
		"5H",
	};
	int64_t ns = 5;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_assert_eq(clock_parse_when(wrong[i], NOON, &ns), -EINVAL, "%s", wrong[i]);
	cr_assert_eq(ns, 5);
}

Test(clock, a_version_name_resolves_to_its_own_millisecond)
{
	char name[CLOCK_NAME_SIZE];
	int64_t start = INT64_C(-2000000000) * NS_PER_SEC;

	for (int64_t step = 0; step < 2000; step++) {
		int64_t time = start + step * 3456789 * NS_PER_SEC + step * 999983;
		int64_t ns;

		clock_format_name(time, name);
		cr_assert_eq(clock_parse_when(name, NOON, &ns), 0);
		cr_assert_geq(ns, time);
		cr_assert_lt(ns - time, NS_PER_MS);
	}
}
