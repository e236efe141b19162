/*
 * main.c - `varve`: finds the verb and runs it.
 *
 * Also runs as mount.fuse.varve, the name under which mount(8) looks for it.
 */
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "tools/cli.h"
#include "version.h"

static const struct verb {
	const char *name;
	const char *summary;
	int (*run)(int argc, char **argv);
} verbs[] = {
	{"mount", "mount a store as a directory", verb_mount},
	{"umount", "store what is left, then unmount", verb_umount},
	{"status", "what a mount is doing", verb_status},
	{"log", "the history of a name, or of a tree", verb_log},
	{"diff", "what changed between versions, or in a tree since", verb_diff},
	{"restore", "bring a version or a whole tree back", verb_restore},
	{"undelete", "bring back what was deleted", verb_undelete},
	{"prune", "let go of versions that a policy does not keep", verb_prune},
	{"hold", "keep versions until the hold is lifted", verb_hold},
	{"retain", "keep versions until a time", verb_retain},
	{"sweep", "compare the whole store with what a mount knows, now", verb_sweep},
	{"rebuild", "make a lost catalog anew from the store", verb_rebuild},
	{"fsck", "check the catalog of an unmounted state directory", verb_fsck},
};

static int help(FILE *out)
{
	(void)fputs("varve mounts versioned cloud storage as an ordinary directory.\n\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		(void)fprintf(out, "  varve %-8s %s\n", verbs[i].name, verbs[i].summary);
	(void)fputs("\n`varve VERB --help` tells more about one of them; so does varve(1).\n", out);
	return fflush(out) == 0 ? 0 : CLI_FAILED;
}

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "varve";

	if (strncmp(name, "mount.", 6) == 0)
		return verb_mount_helper(argc, argv);
	if (argc < 2) {
		(void)help(stderr); /* the exit status tells already */
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
		return help(stdout);
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		(void)puts("varve " VARVE_VERSION);
		return fflush(stdout) == 0 ? 0 : CLI_FAILED;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	}
	(void)cli_fail("no verb \"%s\"; `varve --help` lists them", argv[1]);
	return CLI_USAGE;
}
