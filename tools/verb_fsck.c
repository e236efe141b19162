/*
 * verb_fsck.c - `varve fsck`: checks the catalog of a state directory that is not mounted.
 *
 * Opens it read-only: what a killed daemon had logged is read with it, and
 * nothing is changed, repaired or made.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "catalog.h"
#include "cleanup.h"
#include "escape.h"
#include "log.h"
#include "tools/cli.h"

#define FSCK_PROBLEMS 1
#define FSCK_CANNOT 2

static const char help[] = "varve fsck STATE\n"
			   "\n"
			   "Checks the catalog in the state directory STATE of a mount that is not mounted now.\n"
			   "Exit status 0: clean; 1: problems, one line each; 2: could not check.\n";

static void print_problem(void *arg, const struct cat_problem *problem)
{
	AUTO_BUF detail = BUF_INIT;

	(void)arg; /* nothing to carry along */
	escape_text(problem->detail, strlen(problem->detail), &detail);
	(void)printf("%s: inode %" PRIu64 ": %s\n", problem->kind, problem->ino, detail.data); /* checked at the end */
}

static int check(struct catalog *catalog)
{
	struct cat_check found = {0};
	int rc = catalog_check(catalog, print_problem, NULL, &found);

	if (rc < 0) {
		(void)cli_fail("the catalog cannot be read: %s", strerror(-rc));
		return FSCK_CANNOT;
	}
	(void)printf("%" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64 " past names, %" PRIu64 " versions, %" PRIu64
		     " copies, %" PRIu64 " jobs: ",
		     found.inodes, found.names, found.past_names, found.versions, found.copies, found.jobs);
	if (found.problems)
		(void)printf("%" PRIu64 " problems\n", found.problems);
	else
		(void)puts("clean");
	return found.problems ? FSCK_PROBLEMS : 0;
}

static int cannot_open(const char *state, int rc)
{
	if (rc == -EBUSY)
		(void)cli_fail("%s is in use: unmount it first", state);
	else if (rc == -ENOENT)
		(void)cli_fail("%s holds no catalog: it is no state directory", state);
	else if (rc == -EPROTO)
		(void)cli_fail("%s was written by a newer varve", state);
	else
		(void)cli_fail("%s: the catalog cannot be opened: %s", state, strerror(-rc));
	return FSCK_CANNOT;
}

int verb_fsck(int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	const struct cli_syntax syntax = {.verb = "fsck", .help = help, .options = options, .min = 1, .max = 1};
	const struct catalog_options how = {.read_only = true};
	AUTO_FREE char *dir = NULL;
	struct catalog *catalog;
	char **words;
	int count, rc;

	rc = cli_parse(&syntax, argc, argv, &words, &count);
	if (rc >= 0)
		return rc;
	if (asprintf(&dir, "%s/catalog", words[0]) < 0) {
		(void)cli_fail("out of memory");
		return FSCK_CANNOT;
	}
	log_setup(LOG_LEVEL_WARN, LOG_SINK_STDERR);
	rc = catalog_open(dir, &how, &catalog);
	if (rc < 0)
		return cannot_open(words[0], rc);
	rc = check(catalog);
	catalog_close(catalog);
	if (fflush(stdout) != 0) {
		(void)cli_fail("cannot write: %s", strerror(errno));
		return FSCK_CANNOT;
	}
	return rc;
}
