/*
 * verb_hold.c - `varve hold` and `varve retain`: versions that nothing may remove.
 *
 * The daemon keeps the fact in its catalog and tells the store where that can
 * enforce it (S3 Object Lock). Who enforces it in the end is looked up in each
 * version's user.varve.protected_by, and said.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "array.h"
#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/control.h"
#include "policy.h"
#include "tools/cli.h"
#include "tools/past.h"

#define BATCH 200 /* versions in one request */
#define ANSWER_TIMEOUT_MS 30000
#define STORE_PATIENCE_NS (30 * NS_PER_SEC)
#define POLL_NS (50 * NS_PER_MS)

static const char hold_help[] =
	"varve hold PATH [--version V] [-r] [--release] [--json]\n"
	"\n"
	"Keeps the current version of PATH from being pruned until the hold is lifted.\n"
	"\n"
	"  --version V  another one: a name in .versions, its 8 hex digits, -1, -2, … or @TIME\n"
	"  -r           of every file beneath the directory PATH\n"
	"  --release    lifts the hold\n"
	"  --json       an object for each version, and one at the end\n"
	"\n"
	"Exit status: 0 done; 1 failed for some; 2 usage.\n";

static const char retain_help[] =
	"varve retain PATH --until TIME | --for SPAN [--version V] [-r] [--compliance] [--json]\n"
	"\n"
	"Keeps the current version of PATH from being pruned until TIME, which later can be\n"
	"moved on but not back.\n"
	"\n"
	"  --until TIME  2030-01-01, 2030-01-01T00:00:00Z\n"
	"  --for SPAN    from now: 7y, 6m, 30d, 12h, or several of them\n"
	"  --version V   another one: a name in .versions, its 8 hex digits, -1, -2, … or @TIME\n"
	"  -r            of every file beneath the directory PATH\n"
	"  --compliance  so that in the store nobody at all can shorten it (S3 COMPLIANCE mode)\n"
	"  --json        an object for each version, and one at the end\n"
	"\n"
	"Exit status: 0 done; 1 failed for some; 2 usage.\n";

/* One version to be protected, and the path that shows its attributes. */
struct target {
	uint64_t file, seq;
	char *path;
	char *refused; /* why, in the daemon's word; NULL: done */
};

struct targets {
	struct target *cells;
	size_t count, cap;
	int failed; /* files that have no version to protect */
};

static void targets_free(struct targets *targets)
{
	for (size_t i = 0; i < targets->count; i++) {
		free(targets->cells[i].path);
		free(targets->cells[i].refused);
	}
	free(targets->cells);
}

/* --- which ----------------------------------------------------------------------------------------- */

static int number_at(const char *path, const char *attribute, uint64_t *ret_number)
{
	char text[32];
	ssize_t n = lgetxattr(path, attribute, text, sizeof(text) - 1);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	*ret_number = strtoull(text, NULL, 10);
	return *ret_number ? 0 : -ENODATA;
}

static int add_target(struct targets *targets, const char *path)
{
	struct target target = {0};
	int rc = number_at(path, "user.varve.file", &target.file);

	if (rc == 0)
		rc = number_at(path, "user.varve.seq", &target.seq);
	if (rc < 0) {
		targets->failed++;
		return cli_fail("%s: %s", path, rc == -ENODATA ? "it has no version yet" : strerror(-rc));
	}
	if (ARRAY_ROOM(targets->cells, targets->cap, targets->count))
		return cli_fail("out of memory");
	target.path = strdup(path);
	if (!target.path)
		return cli_fail("out of memory");
	targets->cells[targets->count++] = target;
	return 0;
}

/* The entry of .versions that has these 8 hex digits; else `wanted` itself, which may be an alias. */
static char *entry_of(const struct past *past, const char *wanted)
{
	struct past_version *versions;
	char *entry = NULL;
	size_t count;

	if (strlen(wanted) == PAST_IDENTITY_SIZE - 1 && past_list(past, &versions, &count) == 0) {
		for (size_t i = 0; i < count && !entry; i++)
			if (strcasecmp(versions[i].identity, wanted) == 0)
				entry = strdup(versions[i].entry);
		past_versions_free(versions, count);
	}
	return entry ? entry : strdup(wanted);
}

static int add_version(struct targets *targets, const char *path, const char *wanted)
{
	AUTO_FREE char *entry = NULL, *shown = NULL;
	struct past past;
	int rc = past_open(path, &past);

	if (rc > 0)
		return rc;
	entry = entry_of(&past, wanted);
	if (!entry || strchr(entry, '/'))
		rc = cli_fail("%s has no version %s", path, wanted);
	else if (asprintf(&shown, "%s/%s/%s/%s", past.dir, past_versions(past.fd), past.name, entry) < 0)
		rc = cli_fail("out of memory");
	else
		rc = add_target(targets, shown);
	past_close(&past);
	return rc;
}

static struct targets *walked; /* nftw hands nothing through */

static int add_walked(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_F && S_ISREG(st->st_mode))
		(void)add_target(walked, path); /* says and counts what fails */
	return 0;
}

struct selection {
	const char *path, *version;
	bool tree, as_json;
};

static int find_targets(const struct selection *selection, struct targets *targets)
{
	struct stat st;

	if (selection->version)
		return add_version(targets, selection->path, selection->version);
	if (lstat(selection->path, &st) < 0)
		return cli_fail("%s: %s", selection->path, strerror(errno));
	if (S_ISREG(st.st_mode))
		return add_target(targets, selection->path);
	if (!S_ISDIR(st.st_mode))
		return cli_fail("%s is not a file", selection->path);
	if (!selection->tree)
		return cli_fail("%s is a directory: say -r for the files beneath it", selection->path);
	walked = targets;
	if (nftw(selection->path, add_walked, 32, FTW_PHYS | FTW_MOUNT) < 0)
		return cli_fail("%s: %s", selection->path, strerror(errno));
	return 0;
}

/* --- telling the daemon ---------------------------------------------------------------------------- */

struct outcome {
	size_t done, failed;
	bool store;
};

static const char *explain(const char *refused)
{
	if (strcmp(refused, "shorter") == 0)
		return "it is retained for longer already";
	if (strcmp(refused, "gone") == 0)
		return "it is gone";
	if (strcmp(refused, "read-only") == 0)
		return "the mount is read-only";
	return "the mount cannot do it";
}

/* [FILE, SEQ, "why"] of one that was asked for. */
static void take_refusal(struct targets *targets, const json_t *one)
{
	uint64_t file = (uint64_t)json_integer_value(json_array_get(one, 0));
	uint64_t seq = (uint64_t)json_integer_value(json_array_get(one, 1));
	const char *why = json_string_value(json_array_get(one, 2));

	for (size_t i = 0; i < targets->count; i++) {
		struct target *target = &targets->cells[i];

		if (target->file != file || target->seq != seq || target->refused)
			continue;
		target->refused = strdup(why ? why : "failed");
		(void)cli_fail("%s: %s", target->path, explain(why ? why : "failed"));
	}
}

static int take_reply(const char *line, struct targets *targets, struct outcome *outcome)
{
	json_t *reply = json_loads(line, 0, NULL), *refused = json_object_get(reply, "refused"), *one;
	const char *error = json_string_value(json_object_get(reply, "error"));
	bool readable = json_is_true(json_object_get(reply, "ok"));
	size_t i;

	if (!readable)
		(void)cli_fail("the mount refuses: %s", error ? error : "no answer that can be read");
	outcome->store = json_is_true(json_object_get(reply, "store"));
	outcome->done += (size_t)json_integer_value(json_object_get(reply, "done"));
	json_array_foreach(refused, i, one)
	{
		outcome->failed++;
		take_refusal(targets, one);
	}
	json_decref(reply);
	return readable ? 0 : -EPROTO;
}

static int tell(struct cli_daemon *daemon, struct targets *targets, const json_t *what, struct outcome *outcome)
{
	int rc = 0;

	for (size_t at = 0; at < targets->count && rc == 0; at += BATCH) {
		size_t end = at + BATCH < targets->count ? at + BATCH : targets->count;
		json_t *request = json_deep_copy(what), *versions = json_array();
		const char *line;

		for (size_t i = at; i < end; i++) /* what is missing shows in the count */
			(void)json_array_append_new(versions, json_pack("[I, I]", (json_int_t)targets->cells[i].file,
									(json_int_t)targets->cells[i].seq));
		(void)json_object_set_new(request, "versions", versions);
		rc = cli_daemon_send(daemon, request);
		if (rc == 0)
			rc = cli_daemon_read(daemon, ANSWER_TIMEOUT_MS, &line);
		if (rc == 0)
			rc = take_reply(line, targets, outcome);
	}
	return rc;
}

static bool kept_by_store(const char *path)
{
	char value[16] = "";

	return lgetxattr(path, "user.varve.protected_by", value, sizeof(value) - 1) == 5 && strcmp(value, "store") == 0;
}

/* How many the store enforces by now; those that are new may take a moment. */
static size_t count_enforced(const struct targets *targets)
{
	int64_t deadline = clock_monotonic() + STORE_PATIENCE_NS;
	struct timespec pause = clock_to_timespec(POLL_NS);
	size_t enforced = 0;

	for (size_t i = 0; i < targets->count; i++) {
		if (targets->cells[i].refused)
			continue;
		while (!kept_by_store(targets->cells[i].path) && clock_monotonic() < deadline)
			(void)nanosleep(&pause, NULL);
		enforced += kept_by_store(targets->cells[i].path);
	}
	return enforced;
}

static void say(const struct targets *targets, const struct outcome *outcome, const char *done, bool lifted)
{
	size_t enforced = outcome->store && !lifted ? count_enforced(targets) : 0;

	(void)printf("%zu %s %s", outcome->done, outcome->done == 1 ? "version" : "versions", done);
	if (lifted)
		(void)puts("");
	else if (!outcome->store)
		(void)puts("; this store cannot lock versions, so only varve keeps them");
	else if (enforced == outcome->done)
		(void)puts("; the store enforces it");
	else
		(void)printf("; the store enforces it for %zu so far, varve for all\n", enforced);
}

/* The same for programs. */
static void say_json(const struct targets *targets, const struct outcome *outcome, bool lifted)
{
	if (outcome->store && !lifted)
		(void)count_enforced(targets); /* for its patience */
	for (size_t i = 0; i < targets->count; i++) {
		const struct target *target = &targets->cells[i];
		AUTO_BUF line = BUF_INIT;

		buf_adds(&line, "{\"path\":");
		cli_json_string(&line, target->path);
		buf_addf(&line, ",\"seq\":%" PRIu64, target->seq);
		if (target->refused)
			buf_addf(&line, ",\"refused\":\"%s\"}", target->refused);
		else if (lifted)
			buf_adds(&line, "}");
		else
			buf_addf(&line, ",\"protected_by\":\"%s\"}", kept_by_store(target->path) ? "store" : "catalog");
		if (!buf_failed(&line))
			(void)puts(line.data); /* stdout is checked at the end */
	}
	(void)printf("{\"done\":%zu,\"failed\":%zu,\"store\":%s}\n", outcome->done,
		     outcome->failed + (size_t)targets->failed, outcome->store ? "true" : "false");
}

static int protect(const struct selection *selection, json_t *what, const char *done, bool lifted)
{
	struct cli_daemon daemon = {.fd = -1, .pidfd = -1};
	AUTO_FREE char *real = NULL;
	struct targets targets = {0};
	struct mountinfo mount = {0};
	struct outcome outcome = {0};
	int rc = find_targets(selection, &targets);

	if (rc || !targets.count)
		goto out;
	real = realpath(targets.cells[0].path, NULL);
	rc = real ? mountinfo_of(real, &mount) : -errno;
	if (rc == 0)
		rc = cli_daemon_open(&mount, &daemon);
	mountinfo_clear(&mount);
	if (rc == 0)
		rc = tell(&daemon, &targets, what, &outcome);
	if (rc < 0 && rc != -EPROTO)
		(void)cli_fail("cannot reach the daemon of %s: %s", selection->path, strerror(-rc));
	if (rc == 0 && selection->as_json)
		say_json(&targets, &outcome, lifted);
	else if (rc == 0 && (outcome.done || !outcome.failed))
		say(&targets, &outcome, done, lifted);
	if (rc < 0 || outcome.failed || targets.failed)
		rc = CLI_FAILED;
out:
	cli_daemon_close(&daemon);
	targets_free(&targets);
	json_decref(what);
	return fflush(stdout) == 0 ? rc : CLI_FAILED;
}

int verb_hold(int argc, char **argv)
{
	struct selection selection = {0};
	bool release = false;
	const struct cli_option options[] = {{.name = "version", .value = &selection.version},
					     {.name = "recursive", .letter = 'r', .flag = &selection.tree},
					     {.name = "release", .flag = &release},
					     {.name = "json", .flag = &selection.as_json},
					     {0}};
	const struct cli_syntax syntax = {.verb = "hold", .help = hold_help, .options = options, .min = 1, .max = 1};
	char **words;
	int count, rc = cli_parse(&syntax, argc, argv, &words, &count);

	if (rc >= 0)
		return rc;
	selection.path = words[0];
	return protect(&selection, json_pack("{s:s, s:b}", "op", "protect", "hold", !release),
		       release ? "released" : "held", release);
}

/* The instant that --until or --for means; 0: none that lies ahead. */
static int64_t until_of(const char *until, const char *span_text)
{
	int64_t now = clock_wall(), ns = 0;
	struct policy_span span;

	if (until)
		return clock_parse_when(until, now, &ns) == 0 && ns > now ? ns : 0;
	if (policy_parse_span(span_text, &span) < 0)
		return 0;
	return policy_after(now, &span);
}

int verb_retain(int argc, char **argv)
{
	struct selection selection = {0};
	const char *until = NULL, *span = NULL;
	bool compliance = false;
	const struct cli_option options[] = {{.name = "version", .value = &selection.version},
					     {.name = "until", .value = &until},
					     {.name = "for", .value = &span},
					     {.name = "recursive", .letter = 'r', .flag = &selection.tree},
					     {.name = "compliance", .flag = &compliance},
					     {.name = "json", .flag = &selection.as_json},
					     {0}};
	const struct cli_syntax syntax = {
		.verb = "retain", .help = retain_help, .options = options, .min = 1, .max = 1};
	char time[CLOCK_RFC3339_SIZE], done[CLOCK_RFC3339_SIZE + 32];
	char **words;
	int64_t ns;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (!until == !span)
		return cli_usage("retain", "say either --until TIME or --for SPAN");
	ns = until_of(until, span);
	if (!ns)
		return cli_usage("retain", "%s is no time that lies ahead", until ? until : span);
	selection.path = words[0];
	clock_format_rfc3339(ns, time);
	(void)snprintf(done, sizeof(done), "retained until %s", time); /* fits */
	return protect(&selection,
		       json_pack("{s:s, s:I, s:b}", "op", "protect", "until", (json_int_t)ns, "compliance", compliance),
		       done, false);
}
