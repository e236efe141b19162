/* policy.c - restic's words: which of a history is kept, and why. */
#include <criterion/criterion.h>
#include <string.h>

#include "clock.h"
#include "policy.h"

#define MAX 64

static int64_t at(const char *text)
{
	int64_t ns;

	cr_assert_eq(clock_parse_when(text, 0, &ns), 0, "%s", text);
	return ns;
}

/* One letter for each version: the first of its reason, '.' when it goes. */
static const char *applied(const struct policy *policy, const char *const *times, size_t count)
{
	static char letters[MAX + 1];
	const char *keep[MAX];
	int64_t ns[MAX];

	for (size_t i = 0; i < count; i++)
		ns[i] = at(times[i]);
	policy_apply(policy, ns, count, keep);
	for (size_t i = 0; i < count; i++)
		letters[i] = keep[i] ? keep[i][0] : '.';
	letters[count] = '\0';
	return letters;
}

#define APPLIED(times, ...) applied(&(struct policy){__VA_ARGS__}, times, sizeof(times) / sizeof(*(times)))

static const char *const history[] = {
	"2024-12-31T23:59:00Z", "2025-06-01T00:00:00Z", "2025-06-01T00:30:00Z", "2025-06-01T01:00:00Z",
	"2025-06-02T10:00:00Z", "2025-06-09T10:00:00Z", "2025-06-09T10:59:59Z",
};

Test(policy, last_counts_from_the_newest)
{
	cr_assert_str_eq(APPLIED(history, .last = 1), "......l");
	cr_assert_str_eq(APPLIED(history, .last = 3), "....lll");
	cr_assert_str_eq(APPLIED(history, .last = 100), "lllllll");
}

Test(policy, of_each_period_the_newest_stays_and_empty_ones_do_not_count)
{
	cr_assert_str_eq(APPLIED(history, .hourly = 3), "...hh.h");
	cr_assert_str_eq(APPLIED(history, .daily = 3), "...dd.d");
	cr_assert_str_eq(APPLIED(history, .daily = 100), "d..dd.d");
	cr_assert_str_eq(APPLIED(history, .monthly = 2), "m.....m");
	cr_assert_str_eq(APPLIED(history, .yearly = 2), "y.....y");
}

Test(policy, weeks_begin_on_mondays)
{
	/* 2025-06-01 is a Sunday, the 2nd and the 9th are Mondays. */
	cr_assert_str_eq(APPLIED(history, .weekly = 3), "...ww.w");
	static const char *const days[] = {"2025-06-02T00:00:00Z", "2025-06-08T23:59:59Z", "2025-06-09T00:00:00Z"};
	cr_assert_str_eq(APPLIED(days, .weekly = 5), ".ww");
}

Test(policy, within_is_measured_from_the_newest_version)
{
	cr_assert_str_eq(APPLIED(history, .within = {.days = 7, .hours = 1}), "....www");
	cr_assert_str_eq(APPLIED(history, .within = {.hours = 1}), ".....ww");
	cr_assert_str_eq(APPLIED(history, .within = {.months = 5}), ".wwwwww");
	cr_assert_str_eq(APPLIED(history, .within = {.years = 1}), "wwwwwww");
}

Test(policy, words_add_up)
{
	cr_assert_str_eq(APPLIED(history, .last = 1, .daily = 2, .yearly = 2), "y...d.l");
}

Test(policy, an_empty_history_keeps_nothing)
{
	policy_apply(&(struct policy){.last = 3, .within = {.days = 1}}, NULL, 0, NULL);
}

Test(policy, spans_are_read_strictly)
{
	struct policy_span span;

	cr_assert_eq(policy_parse_span("1y6m10d12h", &span), 0);
	cr_assert(span.years == 1 && span.months == 6 && span.days == 10 && span.hours == 12);
	cr_assert_eq(policy_parse_span("3d", &span), 0);
	cr_assert(span.days == 3 && !span.hours && !span.years && !span.months);
	const char *const bad[] = {"", "3", "d", "3w", "-3d", "3d 4h", "3d3d", "999999999999999999999d", "0x3d"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_assert_neq(policy_parse_span(bad[i], &span), 0, "%s", bad[i]);
	cr_assert(policy_is_empty(&(struct policy){0}));
	cr_assert_not(policy_is_empty(&(struct policy){.within = {.hours = 1}}));
	cr_assert_eq(policy_after(at("2024-02-29"), &(struct policy_span){.hours = 0}), at("2024-02-29"));
	cr_assert_eq(policy_after(at("2025-01-31T00:00:00Z"), &(struct policy_span){.years = 1, .days = 1}),
		     at("2026-02-01T00:00:00Z"));
}
