/*
 * registry.c - the backends built in, by URL scheme. No state, no threads.
 */
#include <string.h>

#include "backends/memory.h"
#include "buf.h"
#include "cleanup.h"
#include "varve/backend.h"

extern const struct backend_ops s3_backend_ops;
extern const struct backend_ops local_backend_ops;

static const struct backend_ops *const built_in[] = {
	&s3_backend_ops, &local_backend_ops, &memory_backend_ops, /* for tests: what it holds ends with the process */
};

/* Is `scheme` one of the comma-separated names? */
static bool names_scheme(const char *schemes, const char *scheme, size_t len)
{
	for (;;) {
		size_t item = strcspn(schemes, ",");

		if (item == len && strncmp(schemes, scheme, len) == 0)
			return true;
		if (schemes[item] == '\0')
			return false;
		schemes += item + 1;
	}
}

const struct backend_ops *backend_find(const char *url, struct err *err)
{
	const char *end = strstr(url, "://");
	AUTO_BUF known = BUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++) {
		if (end && end > url && names_scheme(built_in[i]->schemes, url, (size_t)(end - url)))
			return built_in[i];
		if (built_in[i] != &memory_backend_ops)
			buf_addf(&known, "%s%s", known.len ? "," : "", built_in[i]->schemes);
	}
	(void)err_set(err, ERR_CONFIGURATION, "%s: the stores known are %s", url,
		      buf_failed(&known) ? "(no memory)" : known.data);
	return NULL;
}
