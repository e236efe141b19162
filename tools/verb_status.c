/*
 * verb_status.c - `varve status`: the daemon's own account, as JSON or for people.
 *
 * The daemon decides what there is to tell. This file only lays it out: one
 * line a member, objects indented beneath their name, sizes readable.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "escape.h"
#include "fs/control.h"
#include "tools/cli.h"

#define ANSWER_TIMEOUT_MS 10000
#define NAME_WIDTH 24
#define INDENT 2
#define DEPTH_MAX 8
#define NO_LIMIT (INT64_C(1) << 60) /* bytes that no disk has */

static const char help[] = "varve status DIR [--json]\n"
			   "\n"
			   "Tells what the mount at DIR is doing: its store, what waits to be stored, errors.\n"
			   "\n"
			   "  --json  the same as one JSON object\n";

static bool ends_in(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);

	return len >= end_len && strcmp(name + len - end_len, end) == 0;
}

/* Which numbers count bytes, by their names in session_status_json. */
static bool is_size(const char *name)
{
	static const char *const sizes[] = {"bytes", "used", "limit", "evicted"};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (strcmp(name, sizes[i]) == 0)
			return true;
	}
	return strncmp(name, "bytes_", 6) == 0 || ends_in(name, "_bytes") || ends_in(name, "_size");
}

static void print_text(const char *text)
{
	AUTO_BUF shown = BUF_INIT;

	escape_text(text, strlen(text), &shown);
	(void)fputs(shown.len ? shown.data : "-", stdout); /* stdout is checked once, at the end */
}

static void print_value(const char *name, const json_t *value)
{
	char size[CLI_SIZE_TEXT];

	switch (json_typeof(value)) {
	case JSON_STRING:
		print_text(json_string_value(value));
		break;
	case JSON_INTEGER:
		if (is_size(name) && json_integer_value(value) >= NO_LIMIT) {
			(void)fputs("none", stdout);
		} else if (is_size(name) && json_integer_value(value) >= 0) {
			cli_format_size((uint64_t)json_integer_value(value), size);
			(void)fputs(size, stdout);
		} else {
			(void)printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
		}
		break;
	case JSON_REAL:
		(void)printf("%g", json_real_value(value));
		break;
	case JSON_TRUE:
		(void)fputs("yes", stdout);
		break;
	case JSON_FALSE:
		(void)fputs("no", stdout);
		break;
	default:
		(void)fputs("-", stdout);
		break;
	}
}

static int print_name(const char *name, int depth)
{
	int width = printf("%*s", depth * INDENT, ""); /* stdout is checked once, at the end */

	for (; *name; name++, width++)
		(void)putchar(*name == '_' ? ' ' : *name);
	return width;
}

static void print_object(json_t *object, int depth);

static void print_scalar(const char *name, const json_t *value, int depth)
{
	int width = print_name(name, depth);

	(void)printf("%*s", width < NAME_WIDTH ? NAME_WIDTH - width : 1, "");
	print_value(name, value);
	(void)putchar('\n');
}

static void print_member(const char *name, json_t *value, int depth)
{
	size_t index;
	json_t *item;

	if (depth >= DEPTH_MAX)
		return;
	if (json_is_object(value)) {
		(void)print_name(name, depth);
		(void)putchar('\n');
		print_object(value, depth + 1);
	} else if (json_is_array(value)) {
		(void)print_name(name, depth);
		(void)putchar('\n');
		json_array_foreach(value, index, item)
		{
			if (json_is_object(item))
				print_object(item, depth + 1);
			else
				print_member("", item, depth + 1);
		}
	} else {
		print_scalar(name, value, depth);
	}
}

static void print_object(json_t *object, int depth)
{
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value) print_member(name, value, depth);
}

static int print_status(const char *line, bool as_json)
{
	json_t *status = json_loads(line, 0, NULL);
	int rc = 0;

	if (!json_is_object(status))
		rc = cli_fail("the daemon's answer is not an object");
	else if (as_json)
		(void)puts(line);
	else
		print_object(status, 0);
	json_decref(status);
	if (fflush(stdout) != 0)
		return cli_fail("cannot write: %s", strerror(errno));
	return rc;
}

int verb_status(int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {{.name = "json", .flag = &as_json}, {0}};
	const struct cli_syntax syntax = {.verb = "status", .help = help, .options = options, .min = 1, .max = 1};
	struct cli_daemon daemon;
	struct mountinfo mount;
	const char *line;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	rc = cli_daemon_of(words[0], &mount, &daemon);
	if (rc)
		return rc;
	if (cli_daemon_ask(&daemon, "status") < 0 || cli_daemon_read(&daemon, ANSWER_TIMEOUT_MS, &line) < 0)
		rc = cli_fail("%s: its daemon does not answer", mount.mountpoint);
	else
		rc = print_status(line, as_json);
	cli_daemon_close(&daemon);
	mountinfo_clear(&mount);
	return rc;
}
