/*
 * verb_rebuild.c - `varve rebuild`: a whole catalog from the store alone, before anybody mounts it.
 *
 * A mount with an empty state directory does the same by itself, but lists
 * directories only as people look into them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fs/config.h"
#include "fs/session.h"
#include "tools/cli.h"

#define BAR_WIDTH 30
#define PLAIN_INTERVAL (5 * NS_PER_SEC) /* between lines that nobody watches */

static const char help[] =
	"varve rebuild URL --state DIR [-o OPTIONS]\n"
	"\n"
	"Makes the catalog of a store anew in DIR, which must have none: from what varve keeps in\n"
	"the store, and from all that its listings and objects tell: names, attributes, hard links,\n"
	"older versions, what was deleted. Then mount with -o state=DIR.\n"
	"\n"
	"  --state DIR  the state directory\n"
	"  -o OPTIONS   as for mount: endpoint=, region=, profile=, takeover, …\n"
	"\n"
	"Exit status: 0 done; 1 failed; 2 usage.\n";

struct bar {
	bool terminal;
	int64_t begun_ns, shown_ns;
};

/* Of the directories known so far: more may turn up in each of them. */
static void draw(const struct crawl_figures *figures)
{
	uint64_t all = figures->directories + figures->waiting;
	unsigned filled = all ? (unsigned)(figures->directories * BAR_WIDTH / all) : 0;

	(void)fprintf(stderr, "\r\033[K[%.*s%*s] ", (int)filled, "##############################",
		      (int)(BAR_WIDTH - filled), ""); /* decoration, all of it */
}

static void show(void *arg, const struct crawl_figures *figures)
{
	struct bar *bar = arg;
	int64_t now = clock_monotonic();

	if (!bar->terminal && bar->shown_ns && now - bar->shown_ns < PLAIN_INTERVAL)
		return;
	bar->shown_ns = now;
	if (bar->terminal)
		draw(figures);
	(void)fprintf(stderr,
		      "%" PRIu64 " of %" PRIu64 " directories, %" PRIu64 " files, %" PRIu64 " versions more, %" PRId64
		      " s%s",
		      figures->directories, figures->directories + figures->waiting, figures->files, figures->versions,
		      (now - bar->begun_ns) / NS_PER_SEC, bar->terminal ? "" : "\n");
	(void)fflush(stderr); /* likewise */
}

static int rebuild(const struct config *config)
{
	struct bar bar = {.terminal = isatty(STDERR_FILENO), .begun_ns = clock_monotonic()};
	struct session_rebuild request = {.progress = show, .arg = &bar};
	struct crawl_figures figures = {0};
	struct err err = {0};
	int rc = session_rebuild(config, &request, &figures, &err);

	if (bar.terminal && bar.shown_ns)
		(void)fputs("\r\033[K", stderr); /* likewise */
	if (rc < 0)
		return cli_fail("%s", err.message[0] ? err.message : strerror(-rc));
	(void)printf("%" PRIu64 " directories, %" PRIu64 " files, %" PRIu64 " versions beyond what the log tells\n",
		     figures.directories, figures.files, figures.versions);
	return fflush(stdout) == 0 ? 0 : CLI_FAILED;
}

/* The words of a mount, with the state directory among its options and nowhere to mount. */
static int configure(const char *url, const char *state, const char *options, struct config *ret_config)
{
	char *argv[] = {"rebuild", (char *)url, "/", NULL}; /* not written to, but by getopt's permuting */
	struct err err = {0};

	if (config_parse(3, argv, CONFIG_VERB, ret_config, &err) < 0)
		return cli_usage("rebuild", "%s", err.message);
	free(ret_config->mountpoint);
	free(ret_config->state_dir);
	ret_config->mountpoint = NULL;
	ret_config->state_dir = strdup(state);
	if (!ret_config->state_dir)
		return cli_fail("out of memory");
	if (options && config_options(ret_config, options, &err) < 0)
		return cli_usage("rebuild", "%s", err.message);
	if (ret_config->read_only)
		return cli_usage("rebuild", "option ro makes no sense here");
	return config_check(ret_config, &err) < 0 ? cli_fail("%s", err.message) : 0;
}

int verb_rebuild(int argc, char **argv)
{
	const char *state = NULL, *list = NULL;
	const struct cli_option options[] = {
		{.name = "state", .value = &state}, {.name = "options", .letter = 'o', .value = &list}, {0}};
	const struct cli_syntax syntax = {.verb = "rebuild", .help = help, .options = options, .min = 1, .max = 1};
	struct config config;
	char **words;
	int count, rc = cli_parse(&syntax, argc, argv, &words, &count);

	if (rc >= 0)
		return rc;
	if (!state)
		return cli_usage("rebuild", "say --state DIR");
	config_init(&config);
	rc = configure(words[0], state, list, &config);
	if (rc == 0)
		rc = rebuild(&config);
	config_clear(&config);
	return rc;
}
