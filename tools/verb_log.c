/*
 * verb_log.c - `varve log`: the versions one name had, newest last. log_tree.c has -r.
 *
 * A table for people, tab-separated lines for programs, JSON when asked for.
 * All three come from the same rows of text: a fact a version does not have is
 * "-", and in JSON absent.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "tools/cli.h"
#include "tools/log_tree.h"
#include "tools/past.h"

static const char help[] =
	"varve log PATH [--since TIME] [--until TIME] [--json]\n"
	"varve log -r PATH [--since TIME] [--until TIME] [--json]\n"
	"\n"
	"Lists every version the name PATH had, newest last; PATH may be deleted by now. With -r PATH is a directory, "
	"and\n"
	"everything that happened beneath it is listed, whatever lives there now, each change under the path it had "
	"then.\n"
	"A table on a terminal; otherwise tab-separated lines without a heading, in which \"-\" is what is not known:\n"
	"\n"
	"  time version size author host op state current entry         a version\n"
	"  time op path size author host version from/to type           a change, with -r\n"
	"\n"
	"  -r            the directory PATH and everything beneath it\n"
	"  --since TIME  from then on: 2026-11-21T10:00:00Z, 2026-11-20, 2h, 3d\n"
	"  --until TIME  until then\n"
	"  --json        one object a line\n"
	"\n"
	"Exit status: 0 listed, 1 something could not be read, 2 wrong usage.\n";

/* Columns of the table and of the lines; the rest goes to JSON only. */
static const struct column {
	const char *fact;
	const char *title; /* NULL: JSON only */
	int right;         /* numbers stand at the right */
} columns[] = {
	{"commit_time", "TIME", 0}, {"version", "VERSION", 0},
	{"size", "SIZE", 1},        {"author", "AUTHOR", 0},
	{"host", "HOST", 0},        {"op", "OP", 0},
	{"state", "STATE", 0},      {"is_current", "CURRENT", 0},
	{"entry", "NAME", 0},       {"version_id", NULL, 0},
	{"seq", NULL, 1},           {"mtime", NULL, 0},
	{"etag", NULL, 0},          {"storage_class", NULL, 0},
	{"origin", NULL, 0},
};
#define COLUMNS ARRAY_SIZE(columns)

struct row {
	struct buf cells[COLUMNS]; /* empty: unknown */
};

static void cell_of(const struct past *past, const struct past_version *version, const char *fact, struct buf *ret_cell)
{
	char time[CLOCK_RFC3339_SIZE];

	if (strcmp(fact, "version") == 0) {
		buf_adds(ret_cell, version->identity);
	} else if (strcmp(fact, "entry") == 0) {
		buf_adds(ret_cell, version->entry);
	} else if (strcmp(fact, "size") == 0) {
		buf_addf(ret_cell, "%" PRIu64, (uint64_t)version->st.st_size);
	} else if (strcmp(fact, "mtime") == 0) {
		clock_format_rfc3339(clock_from_timespec(version->st.st_mtim), time);
		buf_adds(ret_cell, time);
	} else {
		(void)past_fact(past, version->entry, fact, ret_cell); /* it may not have it */
	}
}

static void rows_free(struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < COLUMNS; j++)
			buf_free(&rows[i].cells[j]);
	}
	free(rows);
}

static struct row *rows_of(const struct past *past, const struct past_version *versions, size_t count)
{
	struct row *rows = calloc(count + 1, sizeof(*rows));

	for (size_t i = 0; rows && i < count; i++) {
		for (size_t j = 0; j < COLUMNS; j++) {
			buf_init(&rows[i].cells[j]);
			cell_of(past, &versions[i], columns[j].fact, &rows[i].cells[j]);
		}
	}
	return rows;
}

/* --- for programs ---------------------------------------------------------------------------------- */

static void print_lines(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < COLUMNS && columns[j].title; j++) {
			AUTO_BUF text = BUF_INIT;

			escape_text(rows[i].cells[j].data, rows[i].cells[j].len, &text);
			(void)printf("%s%s", j ? "\t" : "", text.len ? text.data : "-"); /* checked at the end */
		}
		(void)putchar('\n');
	}
}

/* Text that is not UTF-8 cannot stand in JSON; it goes there as the other forms show it, escaped. */
static json_t *json_of(const struct buf *cell)
{
	AUTO_BUF text = BUF_INIT;

	if (utf8_valid(cell->data, cell->len))
		return json_stringn(cell->data, cell->len);
	for (size_t i = 0; i < cell->len; i++) {
		if ((unsigned char)cell->data[i] < 0x80)
			buf_addc(&text, cell->data[i]);
		else
			buf_addf(&text, "\\x%02x", (unsigned char)cell->data[i]);
	}
	return json_stringn(text.data, text.len);
}

static int print_json(const struct row *rows, size_t count)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < count; i++) {
		json_t *object = json_object();

		for (size_t j = 0; object && j < COLUMNS; j++) {
			const struct buf *cell = &rows[i].cells[j];
			const char *fact = columns[j].fact;
			json_t *value;

			if (!cell->len)
				continue;
			if (strcmp(fact, "is_current") == 0)
				value = json_boolean(strcmp(cell->data, "1") == 0);
			else if (columns[j].right || strcmp(fact, "author") == 0)
				value = json_integer(strtoll(cell->data, NULL, 10));
			else
				value = json_of(cell);
			(void)json_object_set_new(object, fact, value); /* a missing one shows below */
		}
		rc = object ? 0 : -ENOMEM;
		if (object && json_dumpf(object, stdout, JSON_COMPACT) == 0)
			(void)putchar('\n'); /* checked at the end */
		json_decref(object);
	}
	return rc;
}

/* --- for people ------------------------------------------------------------------------------------ */

static void author_name(struct buf *cell)
{
	struct passwd entry, *found = NULL;
	char strings[4096], *end;
	unsigned long uid = strtoul(cell->data, &end, 10);

	if (!cell->len || *end)
		return;
	if (getpwuid_r((uid_t)uid, &entry, strings, sizeof(strings), &found) == 0 && found) {
		buf_reset(cell);
		buf_adds(cell, found->pw_name);
	}
}

/* Digits of a second behind the milliseconds tell people nothing: 2026-11-21T10:00:00.123456789Z. */
static void short_time(struct buf *cell)
{
	char *dot = strchr(cell->data, '.');

	if (dot && cell->data[cell->len - 1] == 'Z' && strlen(dot) > 5) {
		memcpy(dot + 4, "Z", 2);
		cell->len = (size_t)(dot - cell->data) + 5;
	}
}

static void readable(struct row *row)
{
	for (size_t j = 0; j < COLUMNS; j++) {
		AUTO_BUF text = BUF_INIT;
		struct buf *cell = &row->cells[j];

		if (strcmp(columns[j].fact, "author") == 0)
			author_name(cell);
		if (strcmp(columns[j].fact, "commit_time") == 0)
			short_time(cell);
		if (strcmp(columns[j].fact, "is_current") == 0 && cell->len) {
			bool current = strcmp(cell->data, "1") == 0;

			buf_reset(cell);
			buf_addc(cell, current ? '*' : ' ');
		}
		escape_text(cell->data, cell->len, &text);
		if (!text.len)
			buf_addc(&text, '-');
		buf_reset(cell);
		buf_add(cell, text.data, text.len);
	}
}

/* Width on the terminal, near enough: characters, not bytes. */
static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

static void print_cell(const struct column *column, const char *text, int width)
{
	int pad = width - width_of(text);

	(void)printf("%*s%s%*s  ", column->right ? pad : 0, "", text, column->right ? 0 : pad, "");
}

/* The entry's own name comes last and is what one copies; it is as wide as the rest together, so it is left out. */
static bool in_table(const struct column *column)
{
	return column->title && strcmp(column->fact, "entry") != 0;
}

static void print_table(struct row *rows, size_t count)
{
	int widths[COLUMNS] = {0};

	for (size_t j = 0; j < COLUMNS && columns[j].title; j++)
		widths[j] = width_of(columns[j].title);
	for (size_t i = 0; i < count; i++) {
		readable(&rows[i]);
		for (size_t j = 0; j < COLUMNS; j++) {
			int width = width_of(rows[i].cells[j].data);

			widths[j] = width > widths[j] ? width : widths[j];
		}
	}
	for (size_t j = 0; j < COLUMNS; j++) {
		if (in_table(&columns[j]))
			print_cell(&columns[j], columns[j].title, widths[j]);
	}
	(void)putchar('\n');
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < COLUMNS; j++) {
			if (in_table(&columns[j]))
				print_cell(&columns[j], rows[i].cells[j].data, widths[j]);
		}
		(void)putchar('\n');
	}
}

/* Those that were made in the time that was asked for, in place. */
static size_t within(struct past_version *versions, size_t count, const struct log_tree *request)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		int64_t ns = clock_from_timespec(versions[i].st.st_ctim); /* of the commit */

		if (ns >= request->since_ns && ns <= request->until_ns)
			versions[kept++] = versions[i];
		else
			free(versions[i].entry);
	}
	return kept;
}

static int log_name(const struct log_tree *request)
{
	struct past_version *versions = NULL;
	struct row *rows = NULL;
	struct past past;
	struct stat st;
	size_t count = 0;
	int rc = past_open(request->path, &past);

	if (rc != 0)
		return rc;
	rc = past_list(&past, &versions, &count);
	if (rc == 0 && count == 0 && lstat(request->path, &st) == 0 && S_ISDIR(st.st_mode))
		rc = cli_usage("log", "%s is a directory: say -r", request->path);
	if (rc == 0) {
		count = within(versions, count, request);
		rows = rows_of(&past, versions, count);
		rc = rows ? 0 : -ENOMEM;
	}
	if (rc == 0 && request->form == LOG_JSON)
		rc = print_json(rows, count);
	else if (rc == 0 && request->form == LOG_TABLE)
		print_table(rows, count);
	else if (rc == 0)
		print_lines(rows, count);
	if (rc < 0)
		rc = cli_fail("history of %s: %s", past.name, strerror(-rc));
	rows_free(rows, rows ? count : 0);
	past_versions_free(versions, count);
	past_close(&past);
	return rc;
}

int verb_log(int argc, char **argv)
{
	struct log_tree request = {.since_ns = INT64_MIN, .until_ns = INT64_MAX};
	bool as_json = false, recursive = false;
	const char *since = NULL, *until = NULL;
	const struct cli_option options[] = {{.name = "json", .flag = &as_json},
					     {.name = "recursive", .letter = 'r', .flag = &recursive},
					     {.name = "since", .value = &since},
					     {.name = "until", .value = &until},
					     {0}};
	const struct cli_syntax syntax = {.verb = "log", .help = help, .options = options, .min = 1, .max = 1};
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (since && (rc = cli_parse_when("log", "since", since, &request.since_ns)) != 0)
		return rc;
	if (until && (rc = cli_parse_when("log", "until", until, &request.until_ns)) != 0)
		return rc;
	request.path = words[0];
	request.form = as_json ? LOG_JSON : isatty(STDOUT_FILENO) ? LOG_TABLE : LOG_LINES;
	return cli_finish(recursive ? log_tree(&request) : log_name(&request), CLI_FAILED);
}
