/*
 * cli.c - what the verbs share: complaints, arguments, sizes, and talking to the daemon of a mount.
 *
 * Single-threaded.
 */
#include "tools/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/control.h"

#define OPTIONS_MAX 12
#define LINE_MAX_BYTES (4 << 20)

static void complain(const char *format, va_list args, const char *hint)
{
	AUTO_FREE char *text = NULL;

	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
		return;
	}
	(void)fprintf(stderr, "varve: %s%s\n", text, hint); /* nowhere left to complain */
}

int cli_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args, "");
	va_end(args);
	return CLI_FAILED;
}

int cli_usage(const char *verb, const char *format, ...)
{
	char hint[64];
	va_list args;

	(void)snprintf(hint, sizeof(hint), "; see `varve %s --help`", verb); /* verbs are short */
	va_start(args, format);
	complain(format, args, hint);
	va_end(args);
	return CLI_USAGE;
}

#define HIDDEN '\001'

/* "-1" and so on count versions from the newest; getopt would take them for options. */
static void hide_positions(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-' && argv[i][1] && !argv[i][1 + strspn(argv[i] + 1, "0123456789")])
			argv[i][0] = HIDDEN;
	}
}

static void show_positions(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == HIDDEN)
			argv[i][0] = '-';
	}
}

static const struct cli_option *option_of(const struct cli_syntax *syntax, int letter)
{
	const struct cli_option *option = syntax->options;

	while (option->letter != letter)
		option++;
	return option;
}

int cli_parse(const struct cli_syntax *syntax, int argc, char **argv, char ***ret_words, int *ret_count)
{
	struct option longs[OPTIONS_MAX + 2] = {{"help", no_argument, NULL, 0}};
	char letters[2 * OPTIONS_MAX + 3] = ":h";
	int letter;

	for (int i = 0; syntax->options[i].name; i++) {
		assert(i < OPTIONS_MAX);
		longs[i + 1] = (struct option){.name = syntax->options[i].name,
					       .has_arg = syntax->options[i].value ? required_argument : no_argument};
		letters[strlen(letters)] = syntax->options[i].letter;
		if (syntax->options[i].letter && syntax->options[i].value)
			letters[strlen(letters)] = ':';
	}
	optind = 0; /* start over, as glibc wants it */
	opterr = 0;
	hide_positions(argc, argv);
	for (int which = -1; (letter = getopt_long(argc, argv, letters, longs, &which)) != -1; which = -1) {
		const struct cli_option *option;

		if (letter == ':')
			return cli_usage(syntax->verb, "%s needs an argument", argv[optind - 1]);
		if (letter == '?')
			return cli_usage(syntax->verb, "unknown option %s", argv[optind - 1]);
		if (letter == 'h' || which == 0) {
			(void)fputs(syntax->help, stdout);
			return fflush(stdout) == 0 ? 0 : CLI_FAILED;
		}
		option = which > 0 ? &syntax->options[which - 1] : option_of(syntax, letter);
		if (option->value)
			*option->value = optarg;
		else
			*option->flag = true;
	}
	show_positions(argc, argv);
	if (argc - optind < syntax->min)
		return cli_usage(syntax->verb, "something is missing");
	if (argc - optind > syntax->max)
		return cli_usage(syntax->verb, "too many arguments");
	*ret_words = argv + optind;
	*ret_count = argc - optind;
	return -1;
}

int cli_finish(int status, int trouble)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	(void)cli_fail("cannot write: %s", strerror(errno)); /* `trouble` is what counts */
	return trouble;
}

void cli_raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit); /* only very deep trees would miss it */
}

int cli_parse_when(const char *verb, const char *option, const char *when, int64_t *ret_ns)
{
	if (clock_parse_when(when, clock_wall(), ret_ns) == 0)
		return 0;
	return cli_usage(verb, "%s%s %s is no time: write 2026-11-21T10:00:00Z, 2026-11-20, 2h or 3d",
			 islower((unsigned char)*option) ? "--" : "", option, when);
}

void cli_json_string(struct buf *json, const char *text)
{
	size_t len = strlen(text);
	bool valid = utf8_valid(text, len);

	buf_addc(json, '"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			buf_addf(json, "\\%c", c);
		else if (c < 0x20)
			buf_addf(json, "\\u%04x", c);
		else if (c >= 0x80 && !valid)
			buf_addf(json, "\\\\x%02x", c);
		else
			buf_addc(json, (char)c);
	}
	buf_addc(json, '"');
}

void cli_format_size(uint64_t bytes, char ret_text[static CLI_SIZE_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double shown = (double)bytes;
	size_t unit = 0;

	while (shown >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		shown /= 1024;
		unit++;
	}
	(void)snprintf(ret_text, CLI_SIZE_TEXT, unit ? "%.1f %s" : "%.0f %s", shown, units[unit]); /* fits */
}

/* --- the daemon -------------------------------------------------------------------------------- */

int cli_daemon_open(const struct mountinfo *mount, struct cli_daemon *ret_daemon)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct cli_daemon daemon = {.fd = -1, .pidfd = -1};
	int rc = control_connect(mount, &daemon.fd);

	if (rc < 0)
		return rc;
	/* A daemon of another pid namespace shows as 0, and then only its hanging up tells that it ended. */
	if (getsockopt(daemon.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0)
		daemon.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	*ret_daemon = daemon;
	return 0;
}

int cli_daemon_of(const char *path, struct mountinfo *ret_mount, struct cli_daemon *ret_daemon)
{
	int rc;

	if (mountinfo_of(path, ret_mount) < 0)
		return cli_fail("%s is not on a varve mount", path);
	rc = cli_daemon_open(ret_mount, ret_daemon);
	if (rc == 0)
		return 0;
	rc = cli_fail("%s: %s", ret_mount->mountpoint,
		      rc == -EACCES ? "belongs to another user" : "its daemon does not answer; is it gone?");
	mountinfo_clear(ret_mount);
	return rc;
}

void cli_daemon_close(struct cli_daemon *daemon)
{
	if (daemon->fd >= 0)
		(void)close(daemon->fd); /* a reader's end */
	if (daemon->pidfd >= 0)
		(void)close(daemon->pidfd); /* likewise */
	free(daemon->line);
	*daemon = (struct cli_daemon){.fd = -1, .pidfd = -1};
}

int cli_daemon_ask(struct cli_daemon *daemon, const char *op)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "{\"op\":\"%s\"}\n", op);

	assert(len > 0 && (size_t)len < sizeof(text));
	/* A line is far smaller than a socket's buffer: it goes at once or not at all. */
	if (send(daemon->fd, text, (size_t)len, MSG_NOSIGNAL) != len)
		return -EPIPE;
	return 0;
}

int cli_daemon_send(struct cli_daemon *daemon, json_t *request)
{
	AUTO_FREE char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(request);
	if (!text)
		return -ENOMEM;
	text[len++] = '\n'; /* in place of the end */
	for (size_t sent = 0; sent < len;) {
		ssize_t n = send(daemon->fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -errno;
		sent += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int receive(struct cli_daemon *daemon, int timeout_ms)
{
	struct pollfd polled = {.fd = daemon->fd, .events = POLLIN};
	int ready = poll(&polled, 1, timeout_ms);
	ssize_t n;

	if (ready < 0)
		return -errno;
	if (ready == 0)
		return -ETIMEDOUT;
	if (daemon->len + 1 >= daemon->cap) {
		size_t cap = daemon->cap ? daemon->cap * 2 : 4096;
		char *line = cap <= LINE_MAX_BYTES ? realloc(daemon->line, cap) : NULL;

		if (!line)
			return -ENOMEM;
		daemon->line = line;
		daemon->cap = cap;
	}
	n = recv(daemon->fd, daemon->line + daemon->len, daemon->cap - daemon->len - 1, 0);
	if (n < 0)
		return errno == ECONNRESET ? -ENODATA : -errno;
	daemon->len += (size_t)n;
	return n == 0 ? -ENODATA : 0;
}

int cli_daemon_read(struct cli_daemon *daemon, int timeout_ms, const char **ret_line)
{
	int64_t deadline = clock_monotonic() + timeout_ms * NS_PER_MS;
	char *end;

	if (daemon->consumed) {
		memmove(daemon->line, daemon->line + daemon->consumed, daemon->len - daemon->consumed);
		daemon->len -= daemon->consumed;
		daemon->consumed = 0;
	}
	while (!(end = daemon->len ? memchr(daemon->line, '\n', daemon->len) : NULL)) {
		int64_t left = (deadline - clock_monotonic()) / NS_PER_MS;
		int rc = receive(daemon, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);

		if (rc < 0)
			return rc;
	}
	*end = '\0';
	daemon->consumed = (size_t)(end - daemon->line) + 1;
	*ret_line = daemon->line;
	return 0;
}

int cli_daemon_wait(struct cli_daemon *daemon, int timeout_ms)
{
	struct pollfd polled = {.fd = daemon->pidfd, .events = POLLIN};

	if (daemon->pidfd < 0)
		return 0;
	return poll(&polled, 1, timeout_ms) == 0 ? -ETIMEDOUT : 0;
}
