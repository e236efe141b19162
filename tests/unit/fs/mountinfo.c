/*
 * The kernel's table of mounts.
 */
#include "fs/mountinfo.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "cleanup.h"

static struct mountinfo info;

Test(mountinfo, reads_a_line)
{
	cr_assert_eq(mountinfo_parse("98 30 0:52 / /mnt/data rw,nosuid,nodev shared:5 master:1 - fuse.varve s3://b/p "
				     "rw,user_id=1000,group_id=1000,default_permissions\n",
				     &info),
		     0);
	cr_assert_str_eq(info.mountpoint, "/mnt/data");
	cr_assert_str_eq(info.type, "fuse.varve");
	cr_assert_str_eq(info.source, "s3://b/p");
	cr_assert_eq(info.user, 1000);
	mountinfo_clear(&info);
}

Test(mountinfo, undoes_octal_escapes)
{
	cr_assert_eq(
		mountinfo_parse("98 30 0:52 / /a\\040b\\011\\134\\012c\\04 rw - fuse.varve file:///x\\040y rw", &info),
		0);
	cr_assert_str_eq(info.mountpoint, "/a b\t\\\nc\\04");
	cr_assert_str_eq(info.source, "file:///x y");
	cr_assert_eq(info.user, 0);
	mountinfo_clear(&info);
}

Test(mountinfo, a_mountpoint_named_dash_is_no_separator)
{
	cr_assert_eq(mountinfo_parse("98 30 0:52 / - rw - fuse.varve x rw", &info), 0);
	cr_assert_str_eq(info.mountpoint, "-");
	cr_assert_str_eq(info.type, "fuse.varve");
	mountinfo_clear(&info);
}

Test(mountinfo, an_empty_source_is_a_field)
{
	cr_assert_eq(mountinfo_parse("98 30 0:52 / /m rw - tmpfs  rw", &info), 0);
	cr_assert_str_eq(info.source, "");
	mountinfo_clear(&info);
}

Test(mountinfo, refuses_what_is_no_line)
{
	static const char *const lines[] = {"",
					    "\n",
					    "98 30 0:52 / /m rw",
					    "98 30 0:52 / /m rw -",
					    "98 30 0:52 / /m rw - tmpfs",
					    "98 30 0:52 / /m rw - tmpfs none"};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		cr_assert_eq(mountinfo_parse(lines[i], &info), -EINVAL, "\"%s\"", lines[i]);
}

Test(mountinfo, finds_what_is_mounted)
{
	cr_assert_eq(mountinfo_at("/proc", &info), 0);
	cr_assert_str_eq(info.mountpoint, "/proc");
	cr_assert_str_eq(info.type, "proc");
	mountinfo_clear(&info);
	cr_assert_eq(mountinfo_at("/proc/self", &info), -ENOENT);
}

Test(mountinfo, only_varve_counts_as_varve)
{
	cr_assert_eq(mountinfo_named("/proc", &info), -ENOENT);
	cr_assert_eq(mountinfo_of("/proc/self", &info), -ENOENT);
	cr_assert_eq(mountinfo_of("/no/such/place", &info), -ENOENT);
}
