/*
 * verb_undelete.c - `varve undelete`: brings back what was deleted, as it was when it was deleted.
 *
 * The log of the directory tells when the name was deleted; what it was is in
 * +at, a nanosecond before. A directory is deleted name by name, in a moment or
 * in a year, and was empty at last: as it was means after the last change beneath
 * it that was no deletion. With --all it is everything that was ever deleted from
 * it, which is +deleted of that very directory: what had its name before or has it
 * since is another one.
 *
 * A directory that lives is walked for what was deleted beneath it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "tools/bring.h"
#include "tools/cli.h"
#include "tools/destination.h"
#include "tools/events.h"
#include "tools/listing.h"
#include "tools/past.h"
#include "tools/revive.h"

static const char help[] =
	"varve undelete PATH [--at TIME] [--to DEST] [--dry-run] [--json]\n"
	"varve undelete -r PATH [--all] [--at TIME] [--to DEST] [--dry-run] [--json]\n"
	"\n"
	"Brings the deleted file PATH back as it was when it was deleted. What lives there now is never overwritten.\n"
	"With -r PATH is a deleted directory, which comes back as it was before the first of the deletions that ended\n"
	"it; or a directory that lives, beneath which everything deleted comes back whose name is free.\n"
	"\n"
	"  --at TIME  what was deleted last until then: 2026-11-21T10:00:00Z, 2026-11-20, 2h, 3d\n"
	"  --to DEST  write it there instead, or into it when it is a directory\n"
	"  -r         directories too\n"
	"  --all      of deleted directories, everything that was ever deleted from them, each name as it was last\n"
	"  --dry-run  only tell what would be done\n"
	"  --json     one object a line\n"
	"\n"
	"Tells each change as a line \"OP<tab>PATH\": write, mkdir, make (a symlink or node), link, keep.\n"
	"Exit status: 0 done, 1 something failed, 2 wrong usage.\n";

struct options {
	const char *path, *at, *to;
	bool recursive, all, dry_run, as_json;
	int64_t until_ns; /* of --at */
};

struct undelete {
	const struct options *options;
	struct report report;
};

/* --- what was deleted ----------------------------------------------------------------------------------- */

/* The last deletion of each name until then; names that were there then are none. */
struct deletions {
	struct bindings bindings;
	int64_t until_ns;
};

static int note(void *arg, const struct event *event)
{
	struct deletions *deletions = arg;

	return event->time_ns <= deletions->until_ns ? bindings_note(&deletions->bindings, event) : 0;
}

static int read_deletions(int versions, struct deletions *deletions)
{
	int rc = events_each(versions, note, deletions);

	return rc < 0 ? rc : bindings_settle(&deletions->bindings);
}

struct use {
	struct bindings dirs;
	int64_t last_ns;
};

static int note_use(void *arg, const struct event *event)
{
	struct use *use = arg;

	if (strcmp(event->op, "delete") != 0 && strcmp(event->op, "vanish") != 0 && event->time_ns > use->last_ns)
		use->last_ns = event->time_ns;
	return bindings_note(&use->dirs, event);
}

struct within {
	int versions;
	int64_t *last_ns;
};

static int find_last_use(int versions, int64_t *last_ns);

static int look_within(void *arg, const struct binding *binding)
{
	const struct within *within = arg;
	AUTO_CLOSE int was = -1;
	AUTO_CLOSE int versions = -1;

	if (!binding->was_deleted || binding->until_ns == INT64_MAX)
		return 0;
	was = past_at_open(within->versions, binding_last_ns(binding), binding->name);
	if (was < 0)
		return was == -ENOENT ? 0 : was;
	versions = openat(was, past_versions(was), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* What is passed over here may be what was made last: then less would come back, and nothing would say so. */
	return versions < 0 ? -errno : find_last_use(versions, within->last_ns);
}

/* When something beneath a deleted directory changed last, but by deletion. */
static int find_last_use(int versions, int64_t *last_ns)
{
	struct use use = {.dirs = {.only_dirs = true}, .last_ns = *last_ns};
	struct within within = {.versions = versions, .last_ns = last_ns};
	int rc = events_each(versions, note_use, &use);

	if (rc == 0)
		rc = bindings_settle(&use.dirs);
	*last_ns = use.last_ns;
	if (rc == 0)
		rc = bindings_each(&use.dirs, look_within, &within);
	bindings_free(&use.dirs);
	return rc;
}

static int open_as_used(int above, int was, const struct binding *binding)
{
	AUTO_CLOSE int versions = openat(was, past_versions(was), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t last_ns = binding->since_ns;
	int rc = versions < 0 ? -errno : find_last_use(versions, &last_ns);

	if (rc < 0)
		return rc;
	if (last_ns == INT64_MIN || last_ns > binding_last_ns(binding))
		last_ns = binding_last_ns(binding);
	return past_at_open(above, last_ns, binding->name);
}

/* What it was: O_PATH. */
static int open_deleted(const struct options *options, int versions, const struct binding *binding)
{
	AUTO_CLOSE int was = past_at_open(versions, binding_last_ns(binding), binding->name);
	struct stat st;
	AUTO_BUF all = BUF_INIT;
	int fd;

	if (was < 0)
		return was;
	if (fstat(was, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode) && !options->all)
		return open_as_used(versions, was, binding);
	buf_addf(&all, "%s/+deleted", past_versions(was));
	if (buf_failed(&all))
		return -ENOMEM;
	if (S_ISDIR(st.st_mode))
		fd = openat(was, all.data, O_PATH | O_DIRECTORY | O_CLOEXEC);
	else
		fd = fcntl(was, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

/* --- one name -------------------------------------------------------------------------------------------- */

static int undelete_to(struct undelete *undelete, int source, const struct destination *dest)
{
	struct revive request = {.mode = REVIVE_ADD,
				 .path = dest->path,
				 .source = source,
				 .dir = dest->dir,
				 .name = dest->name,
				 .report = &undelete->report};

	return revive(&request);
}

static int undelete_binding(struct undelete *undelete, const struct past *past, int versions,
			    const struct binding *binding)
{
	const struct options *options = undelete->options;
	AUTO_CLOSE int source = open_deleted(options, versions, binding);
	struct destination dest;
	struct stat st;
	int rc;

	if (source < 0)
		return source == -ENOENT ? cli_fail("%s: nothing is left of it", options->path)
					 : cli_fail("%s: %s", options->path, strerror(-source));
	if (fstat(source, &st) == 0 && S_ISDIR(st.st_mode) && !options->recursive)
		return cli_usage("undelete", "%s was a directory: say -r", options->path);
	rc = options->to ? destination_find(options->to, past->name, &dest) : destination_itself(options->path, &dest);
	if (rc != 0)
		return rc;
	if (dest.exists && !bring_is_unfinished(&dest.live, source) &&
	    !(S_ISDIR(dest.live.st_mode) && S_ISDIR(st.st_mode)))
		rc = cli_fail("%s is there; use --to to bring the deleted one back elsewhere", dest.path);
	else
		rc = undelete_to(undelete, source, &dest);
	destination_close(&dest);
	return rc;
}

/* Whatever has the name since: the newest deletion counts. */
static int take_deletion(void *arg, const struct binding *binding)
{
	struct binding *found = arg;

	if (!binding->was_deleted)
		return 0;
	*found = *binding;
	found->name = NULL; /* that is the tree's */
	return 0;
}

static int undelete_name(struct undelete *undelete)
{
	const struct options *options = undelete->options;
	struct deletions deletions = {.until_ns = options->until_ns};
	AUTO_CLOSE int versions = -1;
	struct past past = {.fd = -1};
	struct binding found = {0};
	int rc = past_open(options->path, &past);

	if (rc != 0)
		return rc;
	versions = past_versions_open(past.dir);
	deletions.bindings = (struct bindings){.only = past.name, .ended = take_deletion, .arg = &found};
	rc = versions < 0 ? versions : read_deletions(versions, &deletions);
	found.name = past.name;
	if (rc < 0)
		rc = past_complain(past.dir, rc);
	else if (!found.was_deleted)
		rc = cli_fail("%s was never deleted%s", options->path, options->at ? " until then" : "");
	else
		rc = undelete_binding(undelete, &past, versions, &found);
	bindings_free(&deletions.bindings);
	past_close(&past);
	return rc;
}

/* --- beneath a directory that lives ------------------------------------------------------------------------ */

struct beneath {
	struct undelete *undelete;
	int dir, versions;
	const char *path;
};

static int undelete_found(void *arg, const struct binding *binding)
{
	struct beneath *beneath = arg;
	struct undelete *undelete = beneath->undelete;
	AUTO_CLOSE int source = -1;
	AUTO_BUF path = BUF_INIT;
	struct destination dest = {.dir = beneath->dir, .name = binding->name};

	if (bring_was_interrupted())
		return -EINTR;
	if (!binding->was_deleted || binding->until_ns == INT64_MAX ||
	    (fstatat(beneath->dir, binding->name, &dest.live, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(dest.live.st_mode)))
		return 0;
	source = open_deleted(undelete->options, beneath->versions, binding);
	if (source == -ENOENT && !binding->is_dir)
		return 0; /* it never had content, or that was pruned */
	buf_addf(&path, "%s/%s", beneath->path, binding->name);
	dest.path = path.data;
	if (source < 0) {
		report_failure(&undelete->report, path.data, source);
		return 0;
	}
	return undelete_to(undelete, source, &dest);
}

static int undelete_beneath(struct undelete *undelete, int dir, const char *path)
{
	struct deletions deletions = {.until_ns = undelete->options->until_ns};
	AUTO_CLOSE int versions = openat(dir, past_versions(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct beneath beneath = {.undelete = undelete, .dir = dir, .versions = versions, .path = path};
	struct listing live = {.names = BUF_INIT};
	int rc = versions < 0 ? -errno : listing_read(dir, &live);

	/* What lives is listed first: what comes back now has come back whole. */
	if (rc == 0)
		rc = read_deletions(versions, &deletions);
	if (rc == 0)
		rc = bindings_each(&deletions.bindings, undelete_found, &beneath);
	else
		report_failure(&undelete->report, path, rc), rc = 0;
	bindings_free(&deletions.bindings);
	for (size_t i = 0; rc == 0 && i < live.count; i++) {
		AUTO_BUF below = BUF_INIT;
		AUTO_CLOSE int sub = -1;

		if (!S_ISDIR(live.entries[i].type))
			continue;
		sub = openat(dir, listing_name(&live, i), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		buf_addf(&below, "%s/%s", path, listing_name(&live, i));
		if (sub >= 0)
			rc = undelete_beneath(undelete, sub, below.data);
		else
			report_failure(&undelete->report, below.data, -errno);
	}
	listing_free(&live);
	return rc;
}

static int undelete_tree(struct undelete *undelete, int dir)
{
	if (undelete->options->to)
		return cli_usage("undelete", "%s lives: --to is for what does not", undelete->options->path);
	if (faccessat(dir, past_versions(dir), F_OK, 0) < 0)
		return past_complain(undelete->options->path, -EOPNOTSUPP);
	return undelete_beneath(undelete, dir, undelete->options->path);
}

int verb_undelete(int argc, char **argv)
{
	struct options options = {.until_ns = INT64_MAX};
	const struct cli_option known[] = {{.name = "at", .value = &options.at},
					   {.name = "to", .value = &options.to},
					   {.name = "recursive", .letter = 'r', .flag = &options.recursive},
					   {.name = "all", .flag = &options.all},
					   {.name = "dry-run", .letter = 'n', .flag = &options.dry_run},
					   {.name = "json", .flag = &options.as_json},
					   {0}};
	const struct cli_syntax syntax = {.verb = "undelete", .help = help, .options = known, .min = 1, .max = 1};
	struct undelete undelete = {.options = &options};
	AUTO_CLOSE int dir = -1;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	options.path = words[0];
	if (options.at && (rc = cli_parse_when("undelete", "at", options.at, &options.until_ns)) != 0)
		return rc;
	undelete.report = (struct report){.as_json = options.as_json, .is_dry = options.dry_run};
	report_begin(&undelete.report);
	bring_catch_signals();
	if (options.recursive && !options.to)
		dir = open(options.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rc = dir >= 0 ? undelete_tree(&undelete, dir) : undelete_name(&undelete);
	if (rc > 0)
		return rc;
	if (report_end(&undelete.report) != 0 || rc < 0)
		return rc == -EINTR ? cli_fail("interrupted; run it again to complete it") : CLI_FAILED;
	return 0;
}
