/*
 * registry.c - finding backends by URL.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "varve/backend.h"

Test(registry, knows_its_schemes)
{
	static const struct {
		const char *url, *name;
	} known[] = {{"s3://bucket/prefix", "s3"}, {"file:///dir", "local"}, {"memory://name", "memory"}};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		const struct backend_ops *ops = backend_find(known[i].url, NULL);

		cr_assert(ops && strcmp(ops->name, known[i].name) == 0, "%s", known[i].url);
		cr_assert_eq(ops->abi, VARVE_BACKEND_ABI);
	}
}

Test(registry, names_the_schemes_when_there_is_none)
{
	static const char *const unknown[] = {"ftp://host/dir", "s3",      "://x", "/dir",
					      "s://x",          "s33://x", "",     "file:/dir"};

	for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
		struct err err = {0};

		cr_assert_null(backend_find(unknown[i], &err), "%s", unknown[i]);
		cr_assert_eq(err.kind, ERR_CONFIGURATION);
		cr_assert(strstr(err.message, "s3") && strstr(err.message, "file"), "%s", err.message);
		cr_assert(!strstr(err.message, "memory"), "the tests' store is named to users: %s", err.message);
	}
}
