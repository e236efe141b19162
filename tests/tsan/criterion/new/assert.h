/*
 * assert.h - Criterion's newer assertions, as far as our tests use them: see ../criterion.h.
 *
 * A criterion such as eq(u64, a, b) is an expression here, and its type only says how strings are compared.
 */
#ifndef VARVE_TSAN_CRITERION_NEW_ASSERT_H
#define VARVE_TSAN_CRITERION_NEW_ASSERT_H

#include "../criterion.h"

#define RUNNER_COMPARE_int(a, op, b) ((a)op(b))
#define RUNNER_COMPARE_uint RUNNER_COMPARE_int
#define RUNNER_COMPARE_i64 RUNNER_COMPARE_int
#define RUNNER_COMPARE_u32 RUNNER_COMPARE_int
#define RUNNER_COMPARE_u64 RUNNER_COMPARE_int
#define RUNNER_COMPARE_sz RUNNER_COMPARE_int
#define RUNNER_COMPARE_ptr RUNNER_COMPARE_int
#define RUNNER_COMPARE_str(a, op, b) (strcmp((a), (b)) op 0)

#define eq(type, a, b) RUNNER_COMPARE_##type(a, ==, b)
#define ne(type, a, b) RUNNER_COMPARE_##type(a, !=, b)
#define lt(type, a, b) RUNNER_COMPARE_##type(a, <, b)
#define le(type, a, b) RUNNER_COMPARE_##type(a, <=, b)
#define gt(type, a, b) RUNNER_COMPARE_##type(a, >, b)
#define ge(type, a, b) RUNNER_COMPARE_##type(a, >=, b)
#define zero(type, a) (!(a))
#define not(a) (!(a))

#endif
