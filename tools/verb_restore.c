/*
 * verb_restore.c - `varve restore`: brings a version, or a whole tree, back by writing it anew.
 *
 * Nothing of the past is touched: what is restored becomes one more version, and
 * what a tree restore removes is unlinked like anything else. bring.h says how a
 * file is written, revive.h how a tree is.
 *
 * A single file is in the store when this returns (fsync); a tree is in the
 * journal, as after cp, or every file would wait for the store in turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "tools/bring.h"
#include "tools/cli.h"
#include "tools/destination.h"
#include "tools/past.h"
#include "tools/revive.h"

static const char help[] =
	"varve restore PATH --version V | --at TIME [--to DEST] [--dry-run] [--json]\n"
	"varve restore -r PATH --at TIME [--to DEST] [--dry-run] [--json]\n"
	"\n"
	"Writes an old version of PATH back, as one more version; PATH may be deleted by now. With -r PATH is a\n"
	"directory: what differs is written, what was not there then is removed, directories, links and hard links "
	"are\n"
	"made again; equal files are left alone. Run it again to complete what was interrupted.\n"
	"\n"
	"  --version V  a name in .versions, its 8 hex digits, -1 (the newest), -2, …, @TIME or a time\n"
	"  --at TIME    as it was then: 2026-11-21T10:00:00Z, 2026-11-20, 2h, 3d\n"
	"  --to DEST    write it there instead, or into it when it is a directory; nothing is removed there\n"
	"  -r           the directory PATH and everything beneath it\n"
	"  --dry-run    only tell what would be done\n"
	"  --json       one object a line\n"
	"\n"
	"Tells each change as a line \"OP<tab>PATH\": write, mkdir, make (a symlink or node), link, remove.\n"
	"Exit status: 0 done, 1 something failed, 2 wrong usage.\n";

struct options {
	const char *path, *version, *at, *to;
	bool recursive, dry_run, as_json;
};

/* --- one file --------------------------------------------------------------------------------------- */

static void tell_file(const struct options *options, const struct past *past, const struct past_pick *pick,
		      const struct bring *done, const char *dest)
{
	char size[CLI_SIZE_TEXT];
	AUTO_BUF line = BUF_INIT;

	if (options->as_json) {
		buf_adds(&line, "{\"op\":\"write\",\"path\":");
		cli_json_string(&line, dest);
		buf_adds(&line, ",\"version\":");
		cli_json_string(&line, pick->entry);
		buf_addf(&line, ",\"size\":%" PRIu64 ",\"in_place\":%s,\"dry_run\":%s}", (uint64_t)pick->st.st_size,
			 done->way == BRING_IN_PLACE ? "true" : "false", options->dry_run ? "true" : "false");
		(void)puts(line.data); /* checked by cli_finish */
		return;
	}
	cli_format_size((uint64_t)pick->st.st_size, size);
	(void)printf("%s%s: version %s of %s, %s%s\n", options->dry_run ? "would write " : "", dest, pick->entry,
		     past->name, size,
		     done->way == BRING_IN_PLACE ? ", rewritten in place for its other hard links" : ""); /* as above */
}

static int write_back(const struct options *options, const struct past *past, const struct past_pick *pick)
{
	struct destination dest;
	struct bring one;
	int rc;

	if (!S_ISREG(pick->st.st_mode) && !S_ISLNK(pick->st.st_mode))
		return cli_fail("version %s of %s is not a file", pick->entry, past->name);
	rc = options->to ? destination_find(options->to, past->name, &dest) : destination_itself(options->path, &dest);
	if (rc != 0)
		return rc;
	one = (struct bring){.source = pick->fd,
			     .st = pick->st,
			     .dir = dest.dir,
			     .name = dest.name,
			     .live = dest.exists ? &dest.live : NULL,
			     .sync = BRING_STORED};
	if (dest.exists && S_ISREG(dest.live.st_mode) && dest.live.st_nlink > 1 && S_ISREG(pick->st.st_mode))
		one.way = BRING_IN_PLACE;
	if (dest.exists && !S_ISREG(dest.live.st_mode) && !S_ISLNK(dest.live.st_mode))
		rc = cli_fail("%s is there and is not a file; move it away or use --to", dest.path);
	if (rc == 0 && !options->dry_run)
		rc = bring(&one);
	if (rc < 0)
		rc = cli_fail("%s: %s%s", dest.path, strerror(-rc),
			      one.way == BRING_IN_PLACE ? "; it was being rewritten in place" : "; unchanged");
	else if (rc == 0)
		tell_file(options, past, pick, &one, dest.path);
	destination_close(&dest);
	return cli_finish(rc, CLI_FAILED);
}

static int restore_file(const struct options *options)
{
	struct past_pick pick;
	struct past past;
	int rc = past_open(options->path, &past);

	if (rc != 0)
		return rc;
	rc = options->version ? past_pick(&past, "restore", options->version, &pick)
			      : past_pick_at(&past, "restore", options->at, &pick);
	if (rc == 0) {
		rc = write_back(options, &past, &pick);
		past_pick_close(&pick);
	}
	past_close(&past);
	return rc;
}

/* --- a tree ------------------------------------------------------------------------------------------- */

static int restore_tree(const struct options *options, int source)
{
	struct report report = {.as_json = options->as_json, .is_dry = options->dry_run};
	struct destination dest;
	struct revive request;
	int rc = options->to ? destination_copy(options->to, options->path, &dest)
			     : destination_itself(options->path, &dest);

	if (rc != 0)
		return rc;
	request = (struct revive){.mode = options->to ? REVIVE_COPY : REVIVE_EXACT,
				  .path = dest.path,
				  .source = source,
				  .dir = dest.dir,
				  .name = dest.name,
				  .report = &report};
	report_begin(&report);
	bring_catch_signals();
	rc = revive(&request);
	destination_close(&dest);
	if (report_end(&report) != 0 || rc < 0)
		return rc == -EINTR ? cli_fail("interrupted; run it again to complete it") : CLI_FAILED;
	return 0;
}

/* *ret_tree: what is to be restored as a tree, or -1. */
static int find_tree(const struct options *options, int *ret_tree)
{
	struct stat st;
	int64_t when_ns;
	int fd, rc;

	*ret_tree = -1;
	if (!options->at)
		return options->recursive ? cli_usage("restore", "-r goes with --at: directories have no versions") : 0;
	rc = cli_parse_when("restore", "at", options->at, &when_ns);
	if (rc != 0)
		return rc;
	fd = past_tree_open(options->path, when_ns);
	if (fd < 0 && options->recursive)
		return fd == -ENOENT ? cli_fail("%s was not there then", options->path)
				     : past_complain(options->path, fd);
	if (fd >= 0 && options->recursive && !options->to && past_is_before_all(options->path, fd)) {
		(void)close(fd); /* only a path */
		return cli_fail(
			"nothing was in %s then, or nothing is known of it: all would be removed; use rm for that",
			options->path);
	}
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		*ret_tree = fd;
		return options->recursive ? 0 : cli_usage("restore", "%s was a directory: say -r", options->path);
	}
	if (fd >= 0)
		(void)close(fd); /* only a path */
	return 0;
}

int verb_restore(int argc, char **argv)
{
	struct options options = {0};
	const struct cli_option known[] = {{.name = "version", .value = &options.version},
					   {.name = "at", .value = &options.at},
					   {.name = "to", .value = &options.to},
					   {.name = "recursive", .letter = 'r', .flag = &options.recursive},
					   {.name = "dry-run", .letter = 'n', .flag = &options.dry_run},
					   {.name = "json", .flag = &options.as_json},
					   {0}};
	const struct cli_syntax syntax = {.verb = "restore", .help = help, .options = known, .min = 1, .max = 1};
	AUTO_CLOSE int tree = -1;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	options.path = words[0];
	if (!options.version == !options.at)
		return cli_usage("restore", "say either --version V or --at TIME");
	rc = find_tree(&options, &tree);
	if (rc != 0)
		return rc;
	return tree >= 0 ? restore_tree(&options, tree) : restore_file(&options);
}
