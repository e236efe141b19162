/*
 * log_tree.c - puts the logs of all directories that are and were beneath one into one order.
 *
 * Each directory tells only of its own names, so the walk follows directories
 * through the logs: while a directory had a name here, what happened in it
 * happened beneath us, under that path. A directory that was moved within the tree
 * is read once for each place it had, and each change is told once.
 *
 * Changes are sorted by time, which no catalog gives twice. They are not held in
 * memory beyond a bound (spill.h); of each directory on the way down its
 * subdirectories' names are. A rename between two directories of the tree is in
 * both logs: the one that tells who did it is shown.
 */
#include "tools/log_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "tools/cli.h"
#include "tools/events.h"
#include "tools/past.h"
#include "tools/spill.h"

#define MEMORY (32 << 20)
#define FIELDS 9
#define LATER (INT64_C(7258118400) * NS_PER_SEC) /* 2200: what lives, whatever the catalog's clock says */
#define UPDATE_MAX 16                            /* lines that one update can be told by, and more */

/* A record is the line that programs get. */
enum field { TIME, OP, PATH, SIZE, AUTHOR, HOST, VERSION, OTHER, TYPE };

struct walk {
	const struct log_tree *request;
	struct spill *spill;
	bool failed; /* something could not be read: told */
};

/* A directory while it had a name: [from, to). */
struct directory {
	struct walk *walk;
	int versions;
	const char *path;
	int64_t from_ns, to_ns;
	struct bindings bindings;
};

/* --- gathering -------------------------------------------------------------------------------------- */

static int keep(const struct directory *directory, const struct event *event)
{
	const struct log_tree *request = directory->walk->request;
	AUTO_BUF path = BUF_INIT;
	AUTO_BUF record = BUF_INIT;
	const char *const fields[FIELDS] = {[TIME] = event->time,       [OP] = event->op,       [PATH] = "",
					    [SIZE] = event->size,       [AUTHOR] = event->uid,  [HOST] = event->host,
					    [VERSION] = event->version, [OTHER] = event->other, [TYPE] = event->type};

	if (event->time_ns < directory->from_ns || event->time_ns >= directory->to_ns ||
	    event->time_ns < request->since_ns || event->time_ns > request->until_ns)
		return 0;
	buf_addf(&path, "%s/%s", directory->path, event->name);
	for (size_t i = 0; i < FIELDS; i++) {
		const char *field = i == PATH ? path.data : fields[i];

		if (i)
			buf_addc(&record, '\t');
		escape_text(*field ? field : "-", *field ? strlen(field) : 1, &record);
	}
	if (buf_failed(&record) || buf_failed(&path))
		return -ENOMEM;
	return spill_add(directory->walk->spill, event->time_ns, record.data);
}

static int note(void *arg, const struct event *event)
{
	struct directory *directory = arg;
	int rc = keep(directory, event);

	return rc < 0 ? rc : bindings_note(&directory->bindings, event);
}

static int read_directory(struct directory *directory);

/* Told once and gone on from; running out of memory or disk is the end. */
static int complain(struct walk *walk, const char *path, int rc)
{
	if (rc == -ENOMEM || rc == -ENOSPC)
		return rc;
	walk->failed = true;
	(void)cli_fail("%s: %s", path, strerror(-rc)); /* noted */
	return 0;
}

static int read_below(void *arg, const struct binding *binding)
{
	const struct directory *above = arg;
	struct directory below = {
		.walk = above->walk, .from_ns = above->from_ns, .to_ns = above->to_ns, .bindings = {.only_dirs = true}};
	AUTO_BUF path = BUF_INIT;
	AUTO_CLOSE int versions = -1;
	AUTO_CLOSE int was = -1;

	if (binding->since_ns > below.from_ns)
		below.from_ns = binding->since_ns;
	if (binding->until_ns < below.to_ns)
		below.to_ns = binding->until_ns;
	if (below.from_ns >= below.to_ns)
		return 0;
	was = past_at_open(above->versions, binding->until_ns == INT64_MAX ? LATER : binding_last_ns(binding),
			   binding->name);
	if (was == -ENOENT)
		return 0; /* it went meanwhile */
	buf_addf(&path, "%s/%s", above->path, binding->name);
	if (was >= 0)
		versions = openat(was, past_versions(was), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (versions < 0)
		return complain(above->walk, path.data, was < 0 ? was : -errno);
	below.versions = versions;
	below.path = path.data;
	return read_directory(&below);
}

static int read_living(void *arg, const struct binding *binding)
{
	return binding->until_ns == INT64_MAX ? read_below(arg, binding) : 0;
}

static int read_directory(struct directory *directory)
{
	int rc;

	directory->bindings.ended = read_below;
	directory->bindings.arg = directory;
	rc = events_each(directory->versions, note, directory);
	if (rc == 0)
		rc = bindings_settle(&directory->bindings);
	else
		rc = complain(directory->walk, directory->path, rc);
	directory->bindings.ended = NULL;
	if (rc == 0)
		rc = bindings_each(&directory->bindings, read_living, directory);
	bindings_free(&directory->bindings);
	return rc;
}

/* --- printing ----------------------------------------------------------------------------------------- */

/* The lines of one update, which are printed when the next begins. */
struct printer {
	enum log_form form;
	char *lines[UPDATE_MAX];
	size_t count;
};

static void print_json(char *const *fields)
{
	static const char *const names[] = {"time", "op", "path", "size", "author", "host", "version", NULL, "type"};
	AUTO_BUF json = BUF_INIT;

	for (size_t i = 0; i < FIELDS; i++) {
		const char *name = names[i], *text = fields[i];

		if (strcmp(text, "-") == 0 && i != PATH)
			continue;
		events_unescape(fields[i]);
		if (i == OTHER) {
			name = strncmp(text, "to:", 3) == 0 ? "to" : "from";
			text += strlen(name) + 1;
		}
		buf_addf(&json, "%c\"%s\":", json.len ? ',' : '{', name);
		if (i == SIZE || i == AUTHOR)
			buf_adds(&json, text);
		else
			cli_json_string(&json, text);
	}
	(void)printf("%s}\n", json.data); /* stdout is checked at the end */
}

static const char *author_name(const char *uid, char ret_name[static 64])
{
	struct passwd entry, *found = NULL;
	char strings[4096], *end;
	unsigned long number = strtoul(uid, &end, 10);

	if (!*uid || *end || getpwuid_r((uid_t)number, &entry, strings, sizeof(strings), &found) != 0 || !found)
		return uid;
	(void)snprintf(ret_name, 64, "%s", found->pw_name); /* cut where longer */
	return ret_name;
}

/* Widths are fixed: nothing is known of the lines to come. */
static void print_row(char *const *fields)
{
	char size[CLI_SIZE_TEXT] = "", author[64];
	char *end;
	unsigned long long bytes = strtoull(fields[SIZE], &end, 10);

	if (end != fields[SIZE] && !*end)
		cli_format_size(bytes, size);
	(void)printf("%.10s %.8s  %-8s %10s  %-8s %-10.10s  %s", fields[TIME], fields[TIME] + 11,
		     strcmp(fields[VERSION], "-") == 0 ? "" : fields[VERSION], size, fields[OP],
		     author_name(fields[AUTHOR], author), fields[PATH]); /* as above */
	(void)printf("%s%s\n", strcmp(fields[OTHER], "-") == 0 ? "" : "  ",
		     strcmp(fields[OTHER], "-") == 0 ? "" : fields[OTHER]); /* as above */
}

static void print_record(enum log_form form, char *line)
{
	char *fields[FIELDS], *rest = line;

	if (form == LOG_LINES) {
		(void)puts(line); /* as above */
		return;
	}
	for (size_t i = 0; i < FIELDS; i++)
		fields[i] = strsep(&rest, "\t");
	if (form == LOG_JSON)
		print_json(fields);
	else
		print_row(fields);
}

/* A rename between two directories is in the logs of both. */
static void print_update(struct printer *printer)
{
	bool is_told = false;

	for (size_t i = 0; i < printer->count; i++)
		is_told |= strstr(printer->lines[i], "\tto:") != NULL;
	for (size_t i = 0; i < printer->count; i++) {
		if (!is_told || !strstr(printer->lines[i], "\tfrom:"))
			print_record(printer->form, printer->lines[i]);
		free(printer->lines[i]);
	}
	printer->count = 0;
}

static int print(void *arg, const char *line)
{
	struct printer *printer = arg;
	size_t time_len = strcspn(line, "\t");

	if (printer->count == UPDATE_MAX || (printer->count && strncmp(printer->lines[0], line, time_len + 1) != 0))
		print_update(printer);
	printer->lines[printer->count] = strdup(line);
	if (!printer->lines[printer->count])
		return -ENOMEM;
	printer->count++;
	return ferror(stdout) ? -EPIPE : 0;
}

/* --- the tree -------------------------------------------------------------------------------------------- */

/* For tests: how much is held in memory. */
static size_t memory(void)
{
	const char *text = getenv("VARVE_TEST_SORT_MEMORY");

	return text ? strtoul(text, NULL, 10) : MEMORY;
}

int log_tree(const struct log_tree *request)
{
	struct walk walk = {.request = request, .spill = spill_new(memory())};
	struct directory top = {.walk = &walk,
				.path = request->path,
				.from_ns = INT64_MIN,
				.to_ns = INT64_MAX,
				.bindings = {.only_dirs = true}};
	struct printer printer = {.form = request->form};
	size_t len = strlen(request->path);
	AUTO_FREE char *path = strndup(request->path, len > 1 && request->path[len - 1] == '/' ? len - 1 : len);
	AUTO_CLOSE int versions = past_versions_open(request->path);
	int rc = versions;

	cli_raise_files();
	top.versions = versions;
	top.path = path;
	if (rc < 0)
		rc = past_complain(request->path, rc);
	else if (!walk.spill || !path)
		rc = cli_fail("out of memory");
	else
		rc = read_directory(&top);
	if (rc == 0)
		rc = spill_each(walk.spill, print, &printer);
	print_update(&printer);
	spill_free(walk.spill);
	if (rc < 0 && rc != -EPIPE)
		rc = cli_fail("%s: %s", request->path, strerror(-rc));
	return rc ? CLI_FAILED : walk.failed ? CLI_FAILED : 0;
}
