/*
 * killpoint.h - where the crash tests pull the plug.
 *
 * VARVE_KILL_AT=name[:n] in the environment makes the n-th pass (default the
 * first) of the named point a SIGKILL of the process. Without it a point costs
 * one test of a variable. Names are listed in tests/crash.
 */
#ifndef VARVE_FS_KILLPOINT_H
#define VARVE_FS_KILLPOINT_H

#include <stdbool.h>

extern bool killpoint_armed;
void killpoint_setup(void); /* reads the environment; before any thread starts */
void killpoint_pass(const char *name);

static inline void killpoint(const char *name)
{
	if (__builtin_expect(killpoint_armed, false))
		killpoint_pass(name);
}

#endif
