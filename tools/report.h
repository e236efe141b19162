/*
 * report.h - what a verb does to many files, told while it does it.
 *
 * Each change is a line on stdout: for people and scripts alike "OP\tPATH", with
 * "\tFROM" where it came from somewhere; as JSON one object. Failures are lines on
 * stderr. On a terminal a bar on stderr tells how far it is, and a sum ends it.
 */
#ifndef VARVE_TOOLS_REPORT_H
#define VARVE_TOOLS_REPORT_H

#include <stdbool.h>
#include <stdint.h>

struct report {
	bool as_json, is_dry;
	/* Private: */
	bool has_bar;
	uint64_t total, done; /* files */
	uint64_t written, made, linked, removed, same, kept, failed;
	uint64_t bytes;
	int64_t next_ns; /* when the bar is drawn again */
};
void report_begin(struct report *report);
/* So many more files are to be looked at. */
void report_expect(struct report *report, uint64_t files);
/* One of them was. */
void report_step(struct report *report);

enum report_op { REPORT_WRITE, REPORT_MKDIR, REPORT_MAKE, REPORT_LINK, REPORT_REMOVE, REPORT_KEEP, REPORT_SAME };
struct report_change {
	enum report_op op;
	const char *path;
	const char *from; /* of a link; or NULL */
	uint64_t size;    /* of what was written */
};
void report_change(struct report *report, const struct report_change *change);
void report_failure(struct report *report, const char *path, int rc);
/* The exit status: 0, or CLI_FAILED when something failed. */
int report_end(struct report *report);

#endif
