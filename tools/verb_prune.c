/*
 * verb_prune.c - `varve prune`: lets the daemon expire what a policy does not keep, and shows it.
 *
 * The daemon walks and decides (fs/prune.h), since deleted trees have no path
 * that a program could walk. Here the policy is read and the lines are laid out.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "checksum.h"
#include "cleanup.h"
#include "escape.h"
#include "fs/control.h"
#include "policy.h"
#include "tools/cli.h"

static const char help[] =
	"varve prune PATH --keep-… N [--dry-run] [--json]\n"
	"\n"
	"Removes old versions of a file, or of everything that is or ever was beneath a directory,\n"
	"which no --keep option keeps. Never the current version of a file, never one that is held\n"
	"or retained. What a name shows in .versions is one history. Days and weeks are those of UTC.\n"
	"\n"
	"  --keep-last N         the newest N versions\n"
	"  --keep-hourly N       the newest version of each of the last N hours that have one\n"
	"  --keep-daily N, --keep-weekly N, --keep-monthly N, --keep-yearly N\n"
	"                        likewise\n"
	"  --keep-within SPAN    all made within 1y6m10d12h before the newest one\n"
	"  --dry-run             only tell what would go\n"
	"  --json                one object for each version that goes, and one at the end\n"
	"\n"
	"A table on a terminal; otherwise a tab-separated line for each version: goes (would go, stays),\n"
	"time, version, size, path, and why it stays (held, retained, not stored yet), else \"-\".\n"
	"Exit status: 0 done; 1 failed, or a held version would have gone; 2 usage.\n";

/* --- where ---------------------------------------------------------------------------------------- */

/* The path below its mount, which may be deleted by now: the longest part that is there tells the mount. */
static int find_mount(const char *path, struct mountinfo *ret_mount, struct buf *ret_below)
{
	AUTO_FREE char *copy = strdup(path), *there = NULL;
	size_t len = copy ? strlen(copy) : 0, end;
	const char *below;

	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	for (end = len; copy && !there;) {
		there = realpath(end ? copy : ".", NULL);
		if (there)
			break;
		while (end && copy[end - 1] != '/')
			end--;
		while (end > 1 && copy[end - 1] == '/')
			end--;
		if (!end && copy[0] == '/')
			return -ENOENT;
		copy[end] = '\0';
	}
	if (!there)
		return -ENOMEM;
	if (mountinfo_of(there, ret_mount) < 0)
		return -ENOENT;
	below = there + strlen(ret_mount->mountpoint);
	buf_adds(ret_below, *below == '/' ? below + 1 : below);
	for (const char *at = path + end; *at;) { /* what is not there any more, without doubled slashes */
		size_t slashes = strspn(at, "/"), name = strcspn(at + slashes, "/");

		if (name && ret_below->len)
			buf_addc(ret_below, '/');
		buf_add(ret_below, at + slashes, name);
		at += slashes + name;
	}
	return buf_failed(ret_below) ? -ENOMEM : 0;
}

/* --- the policy ------------------------------------------------------------------------------------ */

struct keep {
	const char *last, *hourly, *daily, *weekly, *monthly, *yearly, *within;
};

static int add_number(json_t *policy, const char *name, const char *text)
{
	unsigned long number;
	char *end;

	if (!text)
		return 0;
	number = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || number > UINT32_MAX)
		return cli_usage("prune", "--keep-%s %s is no number", name, text);
	return json_object_set_new(policy, name, json_integer((json_int_t)number)) < 0 ? CLI_FAILED : 0;
}

static bool keeps_any(json_t *policy)
{
	struct policy_span nothing = {0}, span;
	const char *name;
	json_t *value;

	json_object_foreach(policy, name, value)
	{
		if (json_integer_value(value) > 0 ||
		    (json_is_string(value) && policy_parse_span(json_string_value(value), &span) == 0 &&
		     memcmp(&span, &nothing, sizeof(span)) != 0))
			return true;
	}
	return false;
}

static int policy_of(const struct keep *keep, json_t *policy)
{
	const struct {
		const char *name, *text;
	} numbers[] = {{"last", keep->last},     {"hourly", keep->hourly},   {"daily", keep->daily},
		       {"weekly", keep->weekly}, {"monthly", keep->monthly}, {"yearly", keep->yearly}};
	struct policy_span span;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(numbers) && !rc; i++)
		rc = add_number(policy, numbers[i].name, numbers[i].text);
	if (!rc && keep->within) {
		if (policy_parse_span(keep->within, &span) < 0)
			return cli_usage("prune", "--keep-within %s: write 1y6m10d12h, or a part of it", keep->within);
		rc = json_object_set_new(policy, "within", json_string(keep->within)) < 0 ? CLI_FAILED : 0;
	}
	if (!rc && !json_object_size(policy))
		return cli_usage("prune", "without any --keep option nothing would be kept");
	if (!rc && !keeps_any(policy))
		return cli_usage("prune", "nothing would be kept");
	return rc;
}

/* --- the answer ------------------------------------------------------------------------------------ */

struct shown {
	bool dry_run, json, is_table, has_bar;
	uint64_t refused;
};

static void clear_bar(const struct shown *shown)
{
	if (shown->has_bar)
		(void)fputs("\r\033[K", stderr); /* a bar that is lost is no loss */
}

static void show_version(const struct shown *shown, const json_t *line)
{
	const char *refused = json_string_value(json_object_get(line, "refused"));
	const char *word = refused ? "stays" : shown->dry_run ? "would go" : "goes";
	const char *time = json_string_value(json_object_get(line, "time"));
	const char *version = json_string_value(json_object_get(line, "version"));
	const char *name = json_string_value(json_object_get(line, "path"));
	uint64_t bytes = (uint64_t)json_integer_value(json_object_get(line, "size"));
	char size[CLI_SIZE_TEXT];
	AUTO_BUF path = BUF_INIT;

	escape_text(name, strlen(name), &path);
	if (buf_failed(&path))
		return; /* the sum tells it */
	cli_format_size(bytes, size);
	if (shown->is_table) /* stdout is checked at the end */
		(void)printf("%-9s %s  %s  %10s  %s%s%s%s\n", word, time, version, size, path.data, refused ? " (" : "",
			     refused ? refused : "", refused ? ")" : "");
	else
		(void)printf("%s\t%s\t%s\t%" PRIu64 "\t%s\t%s\n", word, time, version, bytes, path.data,
			     refused ? refused : "-");
}

static void show_end(const struct shown *shown, const json_t *line)
{
	json_int_t removed = json_integer_value(json_object_get(line, "removed"));
	char size[CLI_SIZE_TEXT];

	cli_format_size((uint64_t)json_integer_value(json_object_get(line, "bytes")), size);
	(void)printf("%s%" JSON_INTEGER_FORMAT " version%s, %s; %" JSON_INTEGER_FORMAT " kept, %" JSON_INTEGER_FORMAT
		     " that no policy keeps stay\n",
		     shown->dry_run ? "would remove " : "removed ", removed, removed == 1 ? "" : "s", size,
		     json_integer_value(json_object_get(line, "kept")),
		     json_integer_value(json_object_get(line, "refused")));
}

static void show(const struct shown *shown, const char *text, const json_t *line)
{
	const json_t *seen = json_object_get(line, "seen");

	clear_bar(shown);
	if (seen && shown->has_bar)
		(void)fprintf(stderr, "%" JSON_INTEGER_FORMAT " names looked at", json_integer_value(seen));
	else if (seen)
		return;
	else if (shown->json)
		(void)puts(text);
	else if (!json_object_get(line, "done"))
		show_version(shown, line);
	else if (shown->is_table)
		show_end(shown, line);
}

/* 1: that was the last line. */
static int take_line(struct shown *shown, const char *text)
{
	json_t *line = json_loads(text, 0, NULL);
	const char *error = json_string_value(json_object_get(line, "error"));
	bool done = json_is_true(json_object_get(line, "done"));

	if (error || !line)
		(void)cli_fail("the mount refuses: %s", error ? error : "no answer that can be read");
	else
		show(shown, text, line);
	if (!error && done)
		shown->refused = (uint64_t)json_integer_value(json_object_get(line, "refused"));
	json_decref(line);
	return error || !line ? -EPROTO : done;
}

static int converse(struct cli_daemon *daemon, json_t *request, struct shown *shown)
{
	const char *line;
	int rc = cli_daemon_send(daemon, request);

	while (rc == 0) {
		rc = cli_daemon_read(daemon, -1, &line);
		if (rc == -EINTR)
			rc = 0;
		else if (rc == 0)
			rc = take_line(shown, line);
	}
	if (rc < 0 && rc != -EPROTO)
		(void)cli_fail("the mount does not answer: %s", strerror(-rc));
	return rc < 0 || shown->refused ? CLI_FAILED : 0;
}

static int prune(const char *path, json_t *policy, struct shown *shown)
{
	struct cli_daemon daemon = {.fd = -1, .pidfd = -1};
	struct mountinfo mount = {0};
	AUTO_BUF below = BUF_INIT;
	AUTO_FREE char *hex = NULL;
	int rc = find_mount(path, &mount, &below);

	if (rc < 0) {
		json_decref(policy);
		return cli_fail("%s is not on a varve mount", path);
	}
	hex = malloc(2 * below.len + 1);
	if (hex)
		hex_encode(below.data ? (const uint8_t *)below.data : (const uint8_t *)"", below.len, hex);
	rc = hex ? cli_daemon_open(&mount, &daemon) : -ENOMEM;
	mountinfo_clear(&mount);
	if (rc < 0) {
		json_decref(policy);
		return cli_fail("cannot reach the daemon of %s: %s", path, strerror(-rc));
	}
	rc = converse(&daemon,
		      json_pack("{s:s, s:s, s:b, s:o}", "op", "prune", "path", hex, "dry_run", shown->dry_run, "policy",
				policy),
		      shown);
	cli_daemon_close(&daemon);
	return fflush(stdout) == 0 ? rc : CLI_FAILED;
}

int verb_prune(int argc, char **argv)
{
	struct keep keep = {0};
	struct shown shown = {0};
	const struct cli_option options[] = {
		{.name = "keep-last", .value = &keep.last},
		{.name = "keep-hourly", .value = &keep.hourly},
		{.name = "keep-daily", .value = &keep.daily},
		{.name = "keep-weekly", .value = &keep.weekly},
		{.name = "keep-monthly", .value = &keep.monthly},
		{.name = "keep-yearly", .value = &keep.yearly},
		{.name = "keep-within", .value = &keep.within},
		{.name = "dry-run", .flag = &shown.dry_run},
		{.name = "json", .flag = &shown.json},
		{0},
	};
	const struct cli_syntax syntax = {.verb = "prune", .help = help, .options = options, .min = 1, .max = 1};
	json_t *policy;
	char **words;
	int count, rc = cli_parse(&syntax, argc, argv, &words, &count);

	if (rc >= 0)
		return rc;
	policy = json_object();
	rc = policy ? policy_of(&keep, policy) : cli_fail("out of memory");
	if (rc) {
		json_decref(policy);
		return rc;
	}
	shown.is_table = isatty(STDOUT_FILENO);
	shown.has_bar = isatty(STDERR_FILENO) && !shown.json;
	return prune(words[0], policy, &shown);
}
