/*
 * log.c - leveled log lines.
 *
 * Invariants: a line is one write (lines of two threads never mix), holds no
 * control bytes but its newline (what stores and file names contain cannot
 * forge lines or drive a terminal), and leaves errno as it was.
 *
 * Threads: log_setup runs before there are others; after that level and sink
 * are only read. Nothing is locked, so any lock may be held while logging.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_SIZE 1024

static enum log_level current_level = LOG_LEVEL_INFO;
static enum log_sink current_sink = LOG_SINK_STDERR;

void log_setup(enum log_level level, enum log_sink sink)
{
	current_level = level;
	current_sink = sink;
	if (sink == LOG_SINK_SYSLOG)
		openlog("varve", LOG_PID, LOG_DAEMON);
}

enum log_level log_level(void)
{
	return current_level;
}

static void line_tidy(char *line)
{
	for (; *line; line++)
		if ((unsigned char)*line < 0x20 || *line == 0x7f)
			*line = '?';
}

static void write_stderr(enum log_level level, char *line, size_t len)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char out[LINE_SIZE + 32];
	int out_len = snprintf(out, sizeof(out), "varve: %s: %.*s\n", names[level], (int)len, line);
	ssize_t written;

	do
		written = write(STDERR_FILENO, out, (size_t)out_len);
	while (written < 0 && errno == EINTR);
	/* A log that cannot be written has nowhere to say so. */
}

void log_at(enum log_level level, const char *module, const char *format, ...)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	int saved_errno = errno;
	char line[LINE_SIZE];
	size_t used;
	va_list args;
	int len;

	if (level > current_level)
		return;
	len = snprintf(line, sizeof(line), "%s: ", module);
	used = (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1;
	errno = saved_errno; /* for %m */
	va_start(args, format);
	(void)vsnprintf(line + used, sizeof(line) - used, format, args); /* a line too long is cut */
	va_end(args);
	line_tidy(line);
	if (current_sink == LOG_SINK_SYSLOG)
		syslog(priorities[level], "%s", line);
	else
		write_stderr(level, line, strlen(line));
	errno = saved_errno;
}
