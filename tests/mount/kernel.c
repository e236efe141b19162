/*
 * kernel.c - what the kernel may keep and need not ask us again, counted in libfuse's trace of every request; and what
 * it must ask again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/mounted.h"

static struct mounted m;

static void setup(void)
{
	mounted_new(&m, MOUNTED_LOCAL);
	mounted_start(&m, "debug=fuse");
}

static void teardown(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	mounted_free(&m);
}

TestSuite(kernel, .init = setup, .fini = teardown, .timeout = 60);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

/* Requests of this kind so far. */
static unsigned asked(const char *kind)
{
	char word[40];
	unsigned count = 0;
	size_t len;
	char *trace = file_read(m.log, &len);

	cr_assert_not_null(trace);
	(void)snprintf(word, sizeof(word), "opcode: %s (", kind);
	for (const char *found = trace; (found = strstr(found, word)); found++)
		count++;
	free(trace);
	return count;
}

static bool is(const char *path, const char *text)
{
	return file_is(at(path), text, strlen(text));
}

Test(kernel, an_old_version_is_looked_up_and_read_once)
{
	char path[300], *names, *rest;
	unsigned lookups, reads;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	file_puts(at("d/f"), "two");
	names = dir_names(at("d/.versions/f"));
	rest = names;
	(void)snprintf(path, sizeof(path), "d/.versions/f/%s", strsep(&rest, "\n"));
	cr_assert(is(path, "one"));
	lookups = asked("LOOKUP");
	reads = asked("READ");
	cr_assert_gt(lookups, 0);
	cr_assert_gt(reads, 0);
	for (int i = 0; i < 20; i++)
		cr_assert(is(path, "one"));
	cr_assert_eq(asked("LOOKUP"), lookups);
	cr_assert_eq(asked("READ"), reads);
	free(names);
}

Test(kernel, an_instant_of_the_past_is_looked_up_once)
{
	char path[300], text[100];
	unsigned lookups;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	cr_assert_eq(mounted_text(&m, "sleep 0.3; date -u +%Y-%m-%dT%H:%M:%S.%NZ; sleep 0.3", text, sizeof(text)), 0);
	file_puts(at("d/f"), "two");
	(void)snprintf(path, sizeof(path), ".versions/+at/%s/d/f", text);
	cr_assert(is(path, "one"));
	lookups = asked("LOOKUP");
	for (int i = 0; i < 20; i++)
		cr_assert(is(path, "one"));
	cr_assert_eq(asked("LOOKUP"), lookups);
}

Test(kernel, what_means_another_version_tomorrow_is_asked_each_time)
{
	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("f"), "one");
	cr_assert(is(".versions/f/-1", "one"));
	cr_assert(is(".versions/f/0s", "one"));
	file_puts(at("f"), "two");
	cr_assert(is(".versions/f/-1", "two"));
	cr_assert(is(".versions/f/-2", "one"));
	cr_assert_not(is(".versions/f/-3", "one"));
	file_puts(at("f"), "three");
	cr_assert(is(".versions/f/-3", "one"), "that there was none was remembered");
}

Test(kernel, live_names_files_and_absences_are_kept)
{
	struct stat st;
	unsigned lookups, attributes;

	cr_assert_eq(mkdir(at("d"), 0755), 0);
	file_puts(at("d/f"), "one");
	mounted_settle(&m, 30);
	cr_assert_eq(stat(at("d/f"), &st), 0);
	cr_assert_neq(stat(at("d/none"), &st), 0);
	lookups = asked("LOOKUP");
	cr_assert_gt(lookups, 0);
	attributes = asked("GETATTR");
	sleep(2); /* longer than a second, which is what others would keep it */
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(stat(at("d/f"), &st), 0);
		cr_assert_neq(stat(at("d/none"), &st), 0);
	}
	cr_assert_eq(asked("LOOKUP"), lookups);
	cr_assert_leq(asked("GETATTR"), attributes + 2); /* of the directories on the way, which changed */
	file_puts(at("d/none"), "now");
	cr_assert(is("d/none", "now"));
}
