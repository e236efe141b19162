/*
 * cli.h - what the verbs of `varve` share. One file a verb; main.c finds them.
 *
 * A verb gets argv with its own name first and returns the exit status. It
 * prints results to stdout and one line per failure to stderr.
 */
#ifndef VARVE_TOOLS_CLI_H
#define VARVE_TOOLS_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLI_FAILED 1
#define CLI_USAGE 2

int verb_mount(int argc, char **argv);
int verb_mount_helper(int argc, char **argv); /* as mount.fuse.varve, started by mount(8) */
int verb_umount(int argc, char **argv);
int verb_status(int argc, char **argv);
int verb_log(int argc, char **argv);
int verb_diff(int argc, char **argv);
int verb_restore(int argc, char **argv);
int verb_undelete(int argc, char **argv);
int verb_prune(int argc, char **argv);
int verb_hold(int argc, char **argv);
int verb_retain(int argc, char **argv);
int verb_rebuild(int argc, char **argv);
int verb_fsck(int argc, char **argv);
int verb_sweep(int argc, char **argv);

/* "varve: …" on stderr, as one write. Returns CLI_FAILED. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As cli_fail, and where help is. Returns CLI_USAGE. */
int cli_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Long options of a verb, some with a letter: a flag sets *flag, the others take an argument into *value. */
struct cli_option {
	const char *name;
	char letter;
	bool *flag;
	const char **value;
};
/*
 * Takes the options off argv; what is left are *ret_words, ret_count of them, between min and max. "-1" is a word.
 * -1 to go on, else the exit status: 0 when help was asked for and printed, CLI_USAGE after a complaint.
 */
struct cli_syntax {
	const char *verb;
	const char *help;
	const struct cli_option *options; /* ends with name NULL; at most 12 */
	int min, max;
};
int cli_parse(const struct cli_syntax *syntax, int argc, char **argv, char ***ret_words, int *ret_count);

/* Flushes stdout: `status`, or `trouble` with a complaint when not everything could be written. */
int cli_finish(int status, int trouble);
/* As many open files as the system lets us have: a walk keeps a few for each level. */
void cli_raise_files(void);
/* A time as people write it, for option --`option`. 0, or CLI_USAGE after a complaint. */
int cli_parse_when(const char *verb, const char *option, const char *when, int64_t *ret_ns);

struct buf;
/* Appends the text as a JSON string with its quotes; bytes that are not UTF-8 as \xNN, escaped. */
void cli_json_string(struct buf *json, const char *text);

/* "1.5 GiB" */
#define CLI_SIZE_TEXT 24
void cli_format_size(uint64_t bytes, char ret_text[static CLI_SIZE_TEXT]);

/* --- the daemon of a mount, by fs/control ---------------------------------------------------------- */

struct mountinfo;
struct cli_daemon {
	int fd;          /* -1: not connected */
	int pidfd;       /* -1: unknown */
	char *line;      /* the last reply, without its newline; the daemon's to reuse */
	size_t len, cap; /* of what was received into line */
	size_t consumed; /* up to here it was returned */
};
/* 0, or -errno of control_connect. */
int cli_daemon_open(const struct mountinfo *mount, struct cli_daemon *ret_daemon);
void cli_daemon_close(struct cli_daemon *daemon);
/* Sends {"op":op}. */
int cli_daemon_ask(struct cli_daemon *daemon, const char *op);
/* Sends a request, which becomes one line; frees it. 0 or -errno. */
int cli_daemon_send(struct cli_daemon *daemon, json_t *request);
/* Waits for one line: 0, -ENODATA at the end, -ETIMEDOUT after timeout_ms (-1: waits for good), -EINTR, … */
int cli_daemon_read(struct cli_daemon *daemon, int timeout_ms, const char **ret_line);
/* Waits until the process has ended. 0 or -ETIMEDOUT. */
int cli_daemon_wait(struct cli_daemon *daemon, int timeout_ms);

#endif
