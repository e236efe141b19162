/*
 * events.h - DIR/.versions/+log, line by line, and what it says of the names of a directory.
 */
#ifndef VARVE_TOOLS_EVENTS_H
#define VARVE_TOOLS_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Strings are valid during the visit; what is not known is "". name and other are as they are on disk. */
struct event {
	int64_t time_ns;
	const char *time, *op, *name, *size, *uid, *host, *version;
	const char *other; /* of a rename: "from:NAME" or "to:NAME", with its path when in another directory */
	const char *type;  /* file dir link other */
};
/* Oldest first, without holding them. 0, what visit returned, or -errno; -EPROTO for what is no such file. */
int events_each(int versions, int (*visit)(void *arg, const struct event *event), void *arg);

/* The reverse of escape_text, in place. */
void events_unescape(char *text);

/*
 * When each name began and ended. Events that are told are those of names that
 * wanted() takes, so that nothing is kept of others.
 */
struct binding {
	char *name;
	int64_t since_ns; /* INT64_MIN: before varve looked */
	int64_t until_ns; /* INT64_MAX: lives */
	bool is_dir;
	bool was_deleted; /* it ended by that, not by a rename */
};
struct bindings {
	void *tree;       /* of struct binding, by name: the last of each */
	const char *only; /* this name only; NULL: all */
	bool only_dirs;
	int (*ended)(void *arg, const struct binding *binding); /* each that ended; NULL: none of interest */
	void *arg;
	/* Private: names that begin at `at_ns`, once all that end there have ended. */
	struct binding *beginning;
	size_t beginning_count, beginning_cap;
	int64_t at_ns;
};
/* 0, what ended() returned, or -errno. */
int bindings_note(struct bindings *bindings, const struct event *event);
/* To be called after the last event, before looking at them. */
int bindings_settle(struct bindings *bindings);
/* In order of name. */
int bindings_each(struct bindings *bindings, int (*visit)(void *arg, const struct binding *binding), void *arg);
void bindings_free(struct bindings *bindings);

/* The instant at which a name that has ended was there last. */
static inline int64_t binding_last_ns(const struct binding *binding)
{
	return binding->until_ns - 1;
}

#endif
