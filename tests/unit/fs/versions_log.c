/* Unit tests of fs/versions_log.c: +log tells what happened, once. */
#include "fs/versions_log.h"
#include "tests/unit/fs/versions_fixture.h"

#define ROOT CAT_ROOT_INO

static struct world world;

static void setup(void)
{
	world_open(&world);
}

static void teardown(void)
{
	world_close(&world);
}

TestSuite(versions_log, .init = setup, .fini = teardown);

/* The text with the fields that differ from run to run taken out: time, host and version. */
static void read_log(uint64_t dir, struct buf *ret_lines)
{
	AUTO_BUF text = BUF_INIT;
	char *rest, *line;

	cr_assert_eq(versions_log_text(world.catalog, world.versions, dir, &text), 0);
	rest = text.data;
	line = strsep(&rest, "\n");
	cr_assert_str_eq(line, "time\top\tname\tsize\tuid\thost\tversion\tother\ttype");
	while ((line = strsep(&rest, "\n")) && *line) {
		char *fields[9];

		for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
			fields[i] = strsep(&line, "\t");
			cr_assert_not_null(fields[i]);
			cr_assert_neq(fields[i][0], '\0', "no empty field");
		}
		cr_assert_null(line);
		cr_assert_eq(strlen(fields[0]), CLOCK_RFC3339_SIZE - 1, "%s", fields[0]);
		cr_assert(!strcmp(fields[8], "file") || !strcmp(fields[8], "dir") || !strcmp(fields[8], "link"), "%s",
			  fields[8]);
		buf_addf(ret_lines, "%s %s %s %s %s\n", fields[1], fields[2], fields[3], fields[4], fields[7]);
	}
}

static void expect_log(uint64_t dir, const char *expected)
{
	AUTO_BUF lines = BUF_INIT;

	read_log(dir, &lines);
	cr_assert_str_eq(lines.data, expected);
}

Test(versions_log, tells_a_file_s_life)
{
	struct cat_version version = make_file(&world, ROOT, "f", 10);

	commit(&world, version.ino, 20);
	move_to(&world, ROOT, "f", ROOT, "g");
	drop(&world, ROOT, "g");
	expect_log(ROOT, "create f - - -\n"
			 "write f 10 1000 -\n"
			 "write f 20 1000 -\n"
			 "rename f - 1001 to:g\n"
			 "delete g - 1001 -\n");
}

Test(versions_log, tells_a_save_by_rename)
{
	make_file(&world, ROOT, "f", 1);
	make_file(&world, ROOT, "f.tmp", 2);
	move_to(&world, ROOT, "f.tmp", ROOT, "f");
	expect_log(ROOT, "create f - - -\n"
			 "write f 1 1000 -\n"
			 "create f.tmp - - -\n"
			 "write f.tmp 2 1000 -\n"
			 "replace f - 1001 -\n"
			 "rename f.tmp - 1001 to:f\n");
}

Test(versions_log, both_directories_tell_of_a_move)
{
	uint64_t a = make_dir(&world, ROOT, "a"), b = make_dir(&world, ROOT, "b");

	make_file(&world, a, "f", 1);
	move_to(&world, a, "f", b, "g");
	expect_log(a, "create f - - -\nwrite f 1 1000 -\nrename f - 1001 to:/b/g\n");
	expect_log(b, "rename g - - from:/a/f\n");
	expect_log(ROOT, "create a - - -\ncreate b - - -\n");
}

Test(versions_log, names_are_escaped)
{
	make_file(&world, ROOT, "tab\there", 1);
	move_to(&world, ROOT, "tab\there", ROOT, "back\\slash");
	expect_log(ROOT, "create tab\\there - - -\nwrite tab\\there 1 1000 -\n"
			 "rename tab\\there - 1001 to:back\\\\slash\n");
}

Test(versions_log, an_empty_directory_has_only_the_heading)
{
	expect_log(ROOT, "");
}
