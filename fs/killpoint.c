/* killpoint.c - see killpoint.h. Threads: any; the count is atomic. */
#include "fs/killpoint.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool killpoint_armed;

static char armed_name[64];
static atomic_int passes_left;

void killpoint_setup(void)
{
	const char *wish = getenv("VARVE_KILL_AT");
	const char *colon = wish ? strchr(wish, ':') : NULL;
	size_t len = wish ? (colon ? (size_t)(colon - wish) : strlen(wish)) : 0;

	if (!len || len >= sizeof(armed_name))
		return;
	memcpy(armed_name, wish, len);
	atomic_store(&passes_left, colon ? (int)strtol(colon + 1, NULL, 10) : 1);
	killpoint_armed = true;
}

void killpoint_pass(const char *name)
{
	if (strcmp(name, armed_name) == 0 && atomic_fetch_sub(&passes_left, 1) == 1)
		(void)kill(getpid(), SIGKILL);
}
