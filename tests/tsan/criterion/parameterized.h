/* parameterized.h - tests that run once for each of some values: see criterion.h. */
#ifndef VARVE_TSAN_CRITERION_PARAMETERIZED_H
#define VARVE_TSAN_CRITERION_PARAMETERIZED_H

#include "criterion.h"

#define cr_make_param_array(type, values, length) ((struct runner_values){(values), sizeof(type), (length)})

#define ParameterizedTestParameters(test_suite, test_name)                                                             \
	static struct runner_values test_suite##_##test_name##_values(void)

#define ParameterizedTest(parameter, test_suite, test_name, ...)                                                       \
	static void test_suite##_##test_name##_run(parameter);                                                         \
	RUNNER_REGISTER(test_suite##_##test_name, .suite = #test_suite, .name = #test_name,                            \
			.run = (void (*)(void))test_suite##_##test_name##_run,                                         \
			.values = test_suite##_##test_name##_values, .options = {.given = true, __VA_ARGS__})          \
	static void test_suite##_##test_name##_run(parameter)

#endif
