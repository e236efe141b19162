/*
 * verb_log.c - `varve log`: the versions one name had, newest last.
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
#include "tools/past.h"

static const char help[] = "varve log PATH [--json]\n"
			   "\n"
			   "Lists every version the name PATH had, newest last; PATH may be deleted by now.\n"
			   "A table on a terminal, tab-separated lines without a heading otherwise.\n"
			   "\n"
			   "  --json  an array with one object for each version\n";

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
	json_t *list = json_array();
	int rc = list ? 0 : -ENOMEM;

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
			else if (columns[j].right)
				value = json_integer(strtoll(cell->data, NULL, 10));
			else
				value = json_of(cell);
			(void)json_object_set_new(object, fact, value); /* a missing one shows below */
		}
		rc = json_array_append_new(list, object) < 0 ? -ENOMEM : 0;
	}
	if (rc == 0 && json_dumpf(list, stdout, JSON_INDENT(2)) == 0)
		(void)putchar('\n');
	json_decref(list);
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

int verb_log(int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {{.name = "json", .flag = &as_json}, {0}};
	const struct cli_syntax syntax = {.verb = "log", .help = help, .options = options, .min = 1, .max = 1};
	struct past_version *versions = NULL;
	struct row *rows = NULL;
	struct past past;
	size_t versions_count = 0;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	rc = past_open(words[0], &past);
	if (rc != 0)
		return rc;
	rc = past_list(&past, &versions, &versions_count);
	if (rc == 0) {
		rows = rows_of(&past, versions, versions_count);
		rc = rows ? 0 : -ENOMEM;
	}
	if (rc == 0 && as_json)
		rc = print_json(rows, versions_count);
	else if (rc == 0 && isatty(STDOUT_FILENO))
		print_table(rows, versions_count);
	else if (rc == 0)
		print_lines(rows, versions_count);
	if (rc < 0)
		rc = cli_fail("history of %s: %s", past.name, strerror(-rc));
	else if (fflush(stdout) != 0 || ferror(stdout))
		rc = cli_fail("cannot write: %s", strerror(errno));
	rows_free(rows, rows ? versions_count : 0);
	past_versions_free(versions, versions_count);
	past_close(&past);
	return rc;
}
