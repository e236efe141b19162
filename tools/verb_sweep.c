/*
 * verb_sweep.c - `varve sweep`: the daemon compares the whole store with its catalog now, and this waits and tells.
 *
 * The daemon's status counts passes from the mount on. A pass that runs already may have begun before whatever the
 * caller wants to see: then the one after it is waited for.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "escape.h"
#include "fs/control.h"
#include "tools/cli.h"

#define ANSWER_TIMEOUT_MS 10000
#define POLL_MS 100

static const char help[] =
	"varve sweep DIR [--json]\n"
	"\n"
	"Compares everything in the store with what the mount at DIR knows of it, now: what other\n"
	"programs wrote, replaced or removed is taken in, also where nobody has looked since. Tells\n"
	"what was found when that is done. Directories that nobody ever opened are passed over.\n"
	"\n"
	"  --json  the figures as one JSON object\n"
	"\n"
	"Exit status: 0 done; 1 failed, or the store could not be listed to its end; 2 usage.\n";

/* What the status tells of sweeps, counted from the mount on. */
struct figures {
	json_int_t passes, broken_off, seen, listed, found, expired;
	bool sweeping;
	char last_error[256];
};

static json_int_t member(json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static int ask_figures(struct cli_daemon *daemon, struct figures *ret_figures)
{
	const char *line, *error;
	json_t *status, *others;
	int rc = cli_daemon_ask(daemon, "status");

	if (!rc)
		rc = cli_daemon_read(daemon, ANSWER_TIMEOUT_MS, &line);
	if (rc)
		return rc;
	status = json_loads(line, 0, NULL);
	others = json_object_get(status, "others");
	*ret_figures = (struct figures){.passes = member(others, "sweeps"),
					.broken_off = member(others, "broken_off"),
					.seen = member(others, "seen"),
					.listed = member(others, "listed"),
					.found = member(others, "found"),
					.expired = member(others, "expired"),
					.sweeping = json_is_true(json_object_get(others, "sweeping"))};
	error = json_string_value(json_object_get(others, "last_error"));
	(void)snprintf(ret_figures->last_error, sizeof(ret_figures->last_error), "%s", error ? error : "");
	rc = json_is_object(others) ? 0 : -EBADMSG;
	json_decref(status);
	return rc;
}

static int request(struct cli_daemon *daemon)
{
	const char *line;
	int rc = cli_daemon_ask(daemon, "sweep");

	return rc ? rc : cli_daemon_read(daemon, ANSWER_TIMEOUT_MS, &line);
}

static json_int_t ended(const struct figures *figures)
{
	return figures->passes + figures->broken_off;
}

static void show(const struct figures *before, const struct figures *now)
{
	if (isatty(STDERR_FILENO))
		(void)fprintf(stderr, "\r\033[K%" JSON_INTEGER_FORMAT " objects and versions compared",
			      now->seen - before->seen); /* decoration */
}

/* Until a pass has ended that began after this was called; *before is what the figures were when it did. */
static int wait_for_pass(struct cli_daemon *daemon, struct figures *before, struct figures *now)
{
	json_int_t begins_at, ends_at;
	int rc = ask_figures(daemon, before);

	if (!rc)
		rc = request(daemon);
	begins_at = ended(before) + before->sweeping;
	ends_at = begins_at + 1;
	while (!rc) {
		rc = ask_figures(daemon, now);
		if (rc || ended(now) >= ends_at)
			break;
		if (ended(now) < begins_at || (ended(before) < begins_at && ended(now) == begins_at))
			*before = *now;
		show(before, now);
		(void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL); /* less is no matter */
	}
	if (isatty(STDERR_FILENO))
		(void)fputs("\r\033[K", stderr); /* likewise */
	return rc;
}

static void print_json(const struct figures *before, const struct figures *now)
{
	bool whole = now->passes > before->passes;
	json_t *told =
		json_pack("{s:I, s:I, s:I, s:I, s:b, s:s}", "seen", now->seen - before->seen, "listed",
			  now->listed - before->listed, "found", now->found - before->found, "expired",
			  now->expired - before->expired, "complete", whole, "error", whole ? "" : now->last_error);

	(void)json_dumpf(told, stdout, JSON_COMPACT); /* stdout is checked at the end */
	(void)putchar('\n');
	json_decref(told);
}

static void print_text(const struct figures *before, const struct figures *now)
{
	(void)printf("%" JSON_INTEGER_FORMAT " objects and versions compared\n"
		     "%" JSON_INTEGER_FORMAT " directories differed, and were listed anew\n"
		     "%" JSON_INTEGER_FORMAT " files or directories had a past that was not known\n"
		     "%" JSON_INTEGER_FORMAT " versions are gone from the store\n",
		     now->seen - before->seen, now->listed - before->listed, now->found - before->found,
		     now->expired - before->expired);
}

static int sweep(struct cli_daemon *daemon, const char *mountpoint, bool as_json)
{
	struct figures before, now;
	AUTO_BUF error = BUF_INIT;

	if (wait_for_pass(daemon, &before, &now))
		return cli_fail("%s: its daemon does not answer", mountpoint);
	if (as_json)
		print_json(&before, &now);
	else
		print_text(&before, &now);
	if (fflush(stdout) != 0)
		return cli_fail("cannot write: %s", strerror(errno));
	if (now.passes > before.passes)
		return 0;
	escape_text(now.last_error, strlen(now.last_error), &error);
	return cli_fail("the store could not be listed to its end: %s", error.len ? error.data : "-");
}

int verb_sweep(int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {{.name = "json", .flag = &as_json}, {0}};
	const struct cli_syntax syntax = {.verb = "sweep", .help = help, .options = options, .min = 1, .max = 1};
	struct cli_daemon daemon = {.fd = -1, .pidfd = -1};
	struct mountinfo mount;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (mountinfo_of(words[0], &mount) < 0)
		return cli_fail("%s is not on a varve mount", words[0]);
	rc = cli_daemon_open(&mount, &daemon);
	if (rc < 0)
		rc = cli_fail("%s: %s", mount.mountpoint,
			      rc == -EACCES ? "belongs to another user" : "its daemon does not answer; is it gone?");
	else
		rc = sweep(&daemon, mount.mountpoint, as_json);
	cli_daemon_close(&daemon);
	mountinfo_clear(&mount);
	return rc;
}
