/*
 * criterion.h - the part of Criterion's interface that our tests use, for ThreadSanitizer.
 *
 * Criterion runs each test in a process that maps its memory at addresses
 * which ThreadSanitizer keeps for itself, so no test starts. With SAN=thread
 * this header and runner.c stand in: each test is a fork of a process with one
 * thread. Same assertions, same summary line.
 */
#ifndef VARVE_TSAN_CRITERION_H
#define VARVE_TSAN_CRITERION_H

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct runner_options {
	bool given; /* so that no test's options are an empty initializer */
	void (*init)(void);
	void (*fini)(void);
	int signal;     /* the test must die by it */
	int exit_code;  /* the test must exit with it */
	double timeout; /* seconds; 0: none */
	const char *description;
};

struct runner_values {
	void *first;
	size_t size, count;
};

struct runner_entry {
	const char *suite;
	const char *name;                     /* NULL: the options of a whole suite */
	void (*run)(void);                    /* with values: a void (*)(TYPE *) */
	struct runner_values (*values)(void); /* it runs once for each; NULL: once */
	struct runner_options options;
	struct runner_entry *next;
};

void runner_register(struct runner_entry *entry);
void runner_fail(const char *file, int line, const char *what, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
_Noreturn void runner_stop(void);
_Noreturn void runner_skip(void);

#define RUNNER_REGISTER(id, ...)                                                                                       \
	static struct runner_entry id##_entry = {__VA_ARGS__};                                                         \
	static __attribute__((constructor)) void id##_register(void)                                                   \
	{                                                                                                              \
		runner_register(&id##_entry);                                                                          \
	}

#define Test(test_suite, test_name, ...)                                                                               \
	static void test_suite##_##test_name##_run(void);                                                              \
	RUNNER_REGISTER(test_suite##_##test_name, .suite = #test_suite, .name = #test_name,                            \
			.run = test_suite##_##test_name##_run, .options = {.given = true, __VA_ARGS__})                \
	static void test_suite##_##test_name##_run(void)

#define TestSuite(test_suite, ...)                                                                                     \
	RUNNER_REGISTER(test_suite##_suite, .suite = #test_suite, .options = {.given = true, __VA_ARGS__})             \
	struct runner_entry

#define RUNNER_EXPECT(condition, what, ...)                                                                            \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			runner_fail(__FILE__, __LINE__, what, " " __VA_ARGS__);                                        \
	} while (0)
#define RUNNER_ASSERT(condition, what, ...)                                                                            \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			runner_fail(__FILE__, __LINE__, what, " " __VA_ARGS__);                                        \
			runner_stop();                                                                                 \
		}                                                                                                      \
	} while (0)

#define cr_fail(...) RUNNER_EXPECT(false, "fail", __VA_ARGS__)
#define cr_fatal(...) RUNNER_ASSERT(false, "fatal", __VA_ARGS__)
#define cr_assert_fail(...) RUNNER_ASSERT(false, "fail", __VA_ARGS__)
#define cr_skip_test(...)                                                                                              \
	do {                                                                                                           \
		(void)fprintf(stderr, "skipped: " __VA_ARGS__);                                                        \
		runner_skip();                                                                                         \
	} while (0)
#define cr_log_info(...) ((void)fprintf(stderr, " " __VA_ARGS__), (void)fputc('\n', stderr))
#define cr_log_warn cr_log_info
#define cr_log_error cr_log_info

#define cr_assert(a, ...) RUNNER_ASSERT((a), #a, __VA_ARGS__)
#define cr_assert_not(a, ...) RUNNER_ASSERT(!(a), "not " #a, __VA_ARGS__)
#define cr_assert_null(a, ...) RUNNER_ASSERT((a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) RUNNER_ASSERT((a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) RUNNER_ASSERT((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) RUNNER_ASSERT((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) RUNNER_ASSERT((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) RUNNER_ASSERT((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) RUNNER_ASSERT((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) RUNNER_ASSERT((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) RUNNER_ASSERT(strcmp((a), (b)) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) RUNNER_ASSERT(strcmp((a), (b)) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...) RUNNER_ASSERT(*(a) == '\0', #a " is empty", __VA_ARGS__)
#define cr_assert_str_not_empty(a, ...) RUNNER_ASSERT(*(a) != '\0', #a " is not empty", __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) RUNNER_ASSERT(memcmp((a), (b), (n)) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_arr_neq(a, b, n, ...) RUNNER_ASSERT(memcmp((a), (b), (n)) != 0, #a " is not " #b, __VA_ARGS__)

#define cr_expect(a, ...) RUNNER_EXPECT((a), #a, __VA_ARGS__)
#define cr_expect_not(a, ...) RUNNER_EXPECT(!(a), "not " #a, __VA_ARGS__)
#define cr_expect_null(a, ...) RUNNER_EXPECT((a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...) RUNNER_EXPECT((a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_expect_eq(a, b, ...) RUNNER_EXPECT((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) RUNNER_EXPECT((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) RUNNER_EXPECT((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) RUNNER_EXPECT((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) RUNNER_EXPECT((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) RUNNER_EXPECT((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) RUNNER_EXPECT(strcmp((a), (b)) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) RUNNER_EXPECT(strcmp((a), (b)) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) RUNNER_EXPECT(memcmp((a), (b), (n)) == 0, #a " is " #b, __VA_ARGS__)

#endif
