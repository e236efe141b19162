/* Unit tests of fs/versions_attr.c: who may read the past. */
#include "fs/versions_attr.h"

#include <criterion/criterion.h>

struct user {
	uint32_t uid;
	unsigned groups; /* bit g: member of group g */
};

static uint32_t allowed(struct versions_owner file, struct user user)
{
	if (user.uid == file.uid)
		return file.mode >> 6 & 7;
	return user.groups & 1u << file.gid ? file.mode >> 3 & 7 : file.mode & 7;
}

/* Every user there can be among three owners and three groups. */
static void check_all_users(struct versions_owner shown, struct versions_owner other)
{
	struct versions_owner both = versions_attr_both(shown, other);

	cr_assert_eq(both.uid, shown.uid);
	cr_assert_eq(both.gid, shown.gid);
	for (uint32_t uid = 0; uid < 3; uid++) {
		for (unsigned groups = 0; groups < 8; groups++) {
			struct user user = {.uid = uid, .groups = groups};
			uint32_t may = allowed(both, user);

			cr_assert_eq(may & ~(allowed(shown, user) & allowed(other, user)), 0,
				     "%o %u:%u and %o %u:%u let user %u groups %x have %o", shown.mode, shown.uid,
				     shown.gid, other.mode, other.uid, other.gid, uid, groups, may);
			if (shown.uid == other.uid && shown.gid == other.gid)
				cr_assert_eq(may, allowed(shown, user) & allowed(other, user));
		}
	}
}

Test(versions_attr, nobody_gets_what_either_refuses)
{
	for (uint32_t mode = 0; mode < 01000; mode += 7) {
		for (uint32_t other = 0; other < 01000; other += 5) {
			for (uint32_t owner = 0; owner < 4; owner++) {
				struct versions_owner shown = {.mode = mode, .uid = 1, .gid = 1};
				struct versions_owner live = {
					.mode = other, .uid = owner & 1 ? 1 : 2, .gid = owner & 2 ? 1 : 2};

				check_all_users(shown, live);
			}
		}
	}
}

Test(versions_attr, same_owners_are_the_plain_intersection)
{
	struct versions_owner then = {.mode = 0644, .uid = 1, .gid = 1};
	struct versions_owner now = {.mode = 0750, .uid = 1, .gid = 1};

	cr_assert_eq(versions_attr_both(then, now).mode, 0640);
	cr_assert_eq(versions_attr_both(now, then).mode, 0640);
}

Test(versions_attr, a_new_owner_keeps_readable_what_all_may_read)
{
	struct versions_owner then = {.mode = 0644, .uid = 1, .gid = 1};
	struct versions_owner now = {.mode = 0644, .uid = 2, .gid = 2};

	cr_assert_eq(versions_attr_both(then, now).mode, 0444, "writing is the new owner's");
	now.mode = 0600;
	cr_assert_eq(versions_attr_both(then, now).mode, 0, "the old owner may not read it now");
	now.mode = 0604;
	cr_assert_eq(versions_attr_both(then, now).mode, 0, "anybody might be in the group that may not");
}
