/*
 * events.c - reads +log (fs/versions_log.h tells its columns) and follows names through it.
 *
 * Times of one catalog never repeat between updates, so events of one instant
 * are one update: an exchange ends two names and begins two. What begins at an
 * instant is therefore put aside until all that ends at it has ended.
 * Single-threaded.
 */
#include "tools/events.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "array.h"
#include "cleanup.h"
#include "clock.h"

#define COLUMNS 9
#define NAME_COLUMN 2 /* always there, and may be "-" */
#define LOG "+log"

/* --- lines ---------------------------------------------------------------------------------------- */

static int digit_of(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

void events_unescape(char *text)
{
	char *out = text;

	for (const char *in = text; *in; in++) {
		if (*in != '\\') {
			*out++ = *in;
		} else if (in[1] == 'x' && isxdigit((unsigned char)in[2]) && isxdigit((unsigned char)in[3])) {
			*out++ = (char)(digit_of(in[2]) << 4 | digit_of(in[3]));
			in += 3;
		} else if (in[1]) {
			in++;
			*out++ = *in == 't' ? '\t' : *in == 'n' ? '\n' : *in;
		}
	}
	*out = '\0';
}

static int parse(char *line, struct event *ret_event)
{
	char *fields[COLUMNS], *rest = line;
	struct event event;

	for (size_t i = 0; i < COLUMNS; i++) {
		fields[i] = strsep(&rest, "\t");
		if (!fields[i])
			return -EPROTO;
		if (i != NAME_COLUMN && strcmp(fields[i], "-") == 0)
			fields[i][0] = '\0';
	}
	events_unescape(fields[NAME_COLUMN]);
	events_unescape(fields[5]);
	events_unescape(fields[7]);
	event = (struct event){.time = fields[0],
			       .op = fields[1],
			       .name = fields[NAME_COLUMN],
			       .size = fields[3],
			       .uid = fields[4],
			       .host = fields[5],
			       .version = fields[6],
			       .other = fields[7],
			       .type = fields[8]};
	if (clock_parse_when(event.time, 0, &event.time_ns) < 0)
		return -EPROTO;
	*ret_event = event;
	return 0;
}

int events_each(int versions, int (*visit)(void *arg, const struct event *event), void *arg)
{
	int fd = openat(versions, LOG, O_RDONLY | O_CLOEXEC), rc = 0;
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	AUTO_FREE char *line = NULL;
	size_t cap = 0;
	ssize_t len;

	if (!file) {
		rc = -errno;
		if (fd >= 0)
			(void)close(fd); /* only read */
		return rc;
	}
	for (bool is_heading = true; rc == 0 && (errno = 0, len = getline(&line, &cap, file)) >= 0;
	     is_heading = false) {
		struct event event;

		if (len && line[len - 1] == '\n')
			line[len - 1] = '\0';
		if (!is_heading)
			rc = parse(line, &event);
		if (!is_heading && rc == 0)
			rc = visit(arg, &event);
	}
	if (rc == 0 && ferror(file))
		rc = errno ? -errno : -EIO;
	(void)fclose(file); /* only read */
	return rc;
}

/* --- names ------------------------------------------------------------------------------------------ */

static int compare_names(const void *left, const void *right)
{
	const struct binding *a = left, *b = right;

	return strcmp(a->name, b->name);
}

static bool is_wanted(const struct bindings *bindings, const char *name, bool is_dir)
{
	return (!bindings->only || strcmp(bindings->only, name) == 0) && (!bindings->only_dirs || is_dir);
}

static struct binding *binding_of(struct bindings *bindings, const char *name)
{
	struct binding wanted = {.name = (char *)name}; /* only compared */
	struct binding **found = tfind(&wanted, &bindings->tree, compare_names);

	return found ? *found : NULL;
}

static int begin(struct bindings *bindings, const struct binding *began)
{
	struct binding *binding = binding_of(bindings, began->name);
	char *name = began->name;

	if (!binding) {
		binding = calloc(1, sizeof(*binding));
		name = strdup(began->name);
		if (binding && name)
			binding->name = name;
		if (!binding || !name || !tsearch(binding, &bindings->tree, compare_names)) {
			free(name);
			free(binding);
			return -ENOMEM;
		}
	}
	name = binding->name;
	*binding = *began;
	binding->name = name;
	return 0;
}

int bindings_settle(struct bindings *bindings)
{
	int rc = 0;

	for (size_t i = 0; i < bindings->beginning_count; i++) {
		if (rc == 0)
			rc = begin(bindings, &bindings->beginning[i]);
		free(bindings->beginning[i].name);
	}
	bindings->beginning_count = 0;
	return rc;
}

static int put_aside(struct bindings *bindings, const struct event *event, const char *name)
{
	struct binding binding = {
		.since_ns = strcmp(event->op, "adopt") == 0 ? INT64_MIN : event->time_ns,
		.until_ns = INT64_MAX,
		.is_dir = strcmp(event->type, "dir") == 0,
	};

	if (!is_wanted(bindings, name, binding.is_dir))
		return 0;
	if (ARRAY_ROOM(bindings->beginning, bindings->beginning_cap, bindings->beginning_count))
		return -ENOMEM;
	binding.name = strdup(name);
	if (!binding.name)
		return -ENOMEM;
	bindings->beginning[bindings->beginning_count++] = binding;
	return 0;
}

static int end(struct bindings *bindings, const struct event *event)
{
	struct binding *binding;

	if (!is_wanted(bindings, event->name, strcmp(event->type, "dir") == 0))
		return 0;
	binding = binding_of(bindings, event->name);
	if (!binding || binding->until_ns != INT64_MAX)
		return 0; /* its beginning is not in the log */
	binding->until_ns = event->time_ns;
	binding->was_deleted = strcmp(event->op, "delete") == 0 || strcmp(event->op, "vanish") == 0;
	return bindings->ended ? bindings->ended(bindings->arg, binding) : 0;
}

int bindings_note(struct bindings *bindings, const struct event *event)
{
	bool is_rename = strcmp(event->op, "rename") == 0;
	bool is_to = is_rename && strncmp(event->other, "to:", 3) == 0;
	int rc = 0;

	if (strcmp(event->op, "write") == 0)
		return 0;
	if (event->time_ns != bindings->at_ns)
		rc = bindings_settle(bindings);
	bindings->at_ns = event->time_ns;
	if (rc == 0 && (is_to || strcmp(event->op, "delete") == 0 || strcmp(event->op, "vanish") == 0 ||
			strcmp(event->op, "replace") == 0))
		rc = end(bindings, event);
	else if (rc == 0)
		rc = put_aside(bindings, event, event->name);
	if (rc == 0 && is_to && event->other[3] != '/')
		rc = put_aside(bindings, event, event->other + 3);
	return rc;
}

struct visiting {
	int (*visit)(void *arg, const struct binding *binding);
	void *arg;
	int rc;
};

static void visit_node(const void *node, VISIT when, void *closure)
{
	struct visiting *visiting = closure;

	if ((when == postorder || when == leaf) && visiting->rc == 0)
		visiting->rc = visiting->visit(visiting->arg, *(const struct binding *const *)node);
}

int bindings_each(struct bindings *bindings, int (*visit)(void *arg, const struct binding *binding), void *arg)
{
	struct visiting visiting = {.visit = visit, .arg = arg};

	twalk_r(bindings->tree, visit_node, &visiting);
	return visiting.rc;
}

static void free_binding(void *node)
{
	struct binding *binding = node;

	free(binding->name);
	free(binding);
}

void bindings_free(struct bindings *bindings)
{
	for (size_t i = 0; i < bindings->beginning_count; i++)
		free(bindings->beginning[i].name);
	free(bindings->beginning);
	tdestroy(bindings->tree, free_binding);
	*bindings = (struct bindings){0};
}
