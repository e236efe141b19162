/*
 * report.c - lines, JSON lines and the bar. stdout is checked once, by report_end.
 *
 * Single-threaded.
 */
#include "tools/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "escape.h"
#include "tools/cli.h"

#define BAR_EVERY (100 * NS_PER_MS)

void report_begin(struct report *report)
{
	report->has_bar = isatty(STDERR_FILENO) && !report->as_json;
	report->next_ns = clock_monotonic() + 5 * BAR_EVERY; /* short work needs none */
}

static void clear_bar(const struct report *report)
{
	if (report->has_bar)
		(void)fputs("\r\033[K", stderr); /* a bar that is lost is no loss */
}

static void draw_bar(struct report *report)
{
	int64_t now = clock_monotonic();
	char size[CLI_SIZE_TEXT];

	if (!report->has_bar || now < report->next_ns)
		return;
	report->next_ns = now + BAR_EVERY;
	cli_format_size(report->bytes, size);
	(void)fprintf(stderr, "\r\033[K%" PRIu64 " of %" PRIu64 " files, %" PRIu64 "%%, %s written", report->done,
		      report->total, report->total ? report->done * 100 / report->total : 100, size); /* as above */
}

void report_expect(struct report *report, uint64_t files)
{
	report->total += files;
}

void report_step(struct report *report)
{
	report->done++;
	draw_bar(report);
}

static void count(struct report *report, const struct report_change *change)
{
	switch (change->op) {
	case REPORT_WRITE:
		report->written++;
		report->bytes += change->size;
		break;
	case REPORT_MKDIR:
	case REPORT_MAKE:
		report->made++;
		break;
	case REPORT_LINK:
		report->linked++;
		break;
	case REPORT_REMOVE:
		report->removed++;
		break;
	case REPORT_KEEP:
		report->kept++;
		break;
	case REPORT_SAME:
		report->same++;
		break;
	}
}

void report_change(struct report *report, const struct report_change *change)
{
	static const char *const words[] = {
		[REPORT_WRITE] = "write", [REPORT_MKDIR] = "mkdir",   [REPORT_MAKE] = "make",
		[REPORT_LINK] = "link",   [REPORT_REMOVE] = "remove", [REPORT_KEEP] = "keep",
	};
	AUTO_BUF line = BUF_INIT;

	count(report, change);
	if (change->op == REPORT_SAME)
		return;
	if (report->as_json) {
		buf_addf(&line, "{\"op\":\"%s\",\"path\":", words[change->op]);
		cli_json_string(&line, change->path);
		if (change->op == REPORT_WRITE)
			buf_addf(&line, ",\"size\":%" PRIu64, change->size);
		if (change->from) {
			buf_adds(&line, ",\"from\":");
			cli_json_string(&line, change->from);
		}
		buf_adds(&line, "}");
	} else {
		buf_addf(&line, "%s\t", words[change->op]);
		escape_text(change->path, strlen(change->path), &line);
		if (change->from) {
			buf_addc(&line, '\t');
			escape_text(change->from, strlen(change->from), &line);
		}
	}
	clear_bar(report);
	(void)puts(line.data); /* checked at the end */
}

void report_failure(struct report *report, const char *path, int rc)
{
	report->failed++;
	clear_bar(report);
	(void)cli_fail("%s: %s", path, strerror(-rc)); /* counted */
}

static void print_sum(const struct report *report)
{
	char size[CLI_SIZE_TEXT];

	cli_format_size(report->bytes, size);
	(void)printf("%s%" PRIu64 " written, %s; %" PRIu64 " made, %" PRIu64 " linked, %" PRIu64 " removed, %" PRIu64
		     " kept, %" PRIu64 " the same, %" PRIu64 " failed\n",
		     report->is_dry ? "would be: " : "", report->written, size, report->made, report->linked,
		     report->removed, report->kept, report->same, report->failed); /* checked below */
}

int report_end(struct report *report)
{
	clear_bar(report);
	if (report->as_json)
		(void)printf("{\"op\":\"done\",\"written\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"made\":%" PRIu64
			     ",\"linked\":%" PRIu64 ",\"removed\":%" PRIu64 ",\"kept\":%" PRIu64 ",\"same\":%" PRIu64
			     ",\"failed\":%" PRIu64 ",\"dry_run\":%s}\n",
			     report->written, report->bytes, report->made, report->linked, report->removed,
			     report->kept, report->same, report->failed,
			     report->is_dry ? "true" : "false"); /* checked below */
	else if (isatty(STDOUT_FILENO))
		print_sum(report);
	return cli_finish(report->failed ? CLI_FAILED : 0, CLI_FAILED);
}
