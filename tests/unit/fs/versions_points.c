/* Unit tests of fs/versions_points.c: which instants are worth showing. */
#include "fs/versions_points.h"
#include "tests/unit/fs/versions_fixture.h"

#define ROOT CAT_ROOT_INO
#define MINUTE (60 * NS_PER_SEC)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define PATIENCE (10 * NS_PER_SEC)
/* 2026-11-21T10:00:00Z */
#define NOW (INT64_C(1795255200) * NS_PER_SEC)

static void note_all(struct versions_points *points, int64_t from, int64_t to, int64_t step)
{
	for (int64_t ns = from; ns < to; ns += step)
		cr_assert_eq(versions_points_note(points, ns), 0);
}

Test(versions_points, each_minute_of_an_hour_each_hour_of_a_week_then_each_day)
{
	struct versions_points points = {.now_ns = NOW};

	note_all(&points, NOW - 30 * DAY, NOW, MINUTE / 2);
	versions_points_thin(&points);
	/* The hour and the week begin within a unit of the coarser kind: one more each at most. */
	cr_assert_geq(points.count, 60 + 167 + 23);
	cr_assert_leq(points.count, 60 + 168 + 24 + 2);
	cr_assert_eq(points.times[points.count - 1], NOW - MINUTE / 2, "the last of its minute");
	for (size_t i = 1; i < points.count; i++)
		cr_assert_gt(points.times[i], points.times[i - 1]);
	versions_points_clear(&points);
}

Test(versions_points, order_of_noting_does_not_matter)
{
	struct versions_points up = {.now_ns = NOW, .thin_at = 64}, down = {.now_ns = NOW, .thin_at = 64};

	note_all(&up, NOW - 10 * DAY, NOW, 7 * MINUTE);
	for (size_t i = 10 * DAY / (7 * MINUTE) + 1; i-- > 0;)
		cr_assert_eq(versions_points_note(&down, NOW - 10 * DAY + (int64_t)i * 7 * MINUTE), 0);
	versions_points_thin(&up);
	versions_points_thin(&down);
	cr_assert_eq(up.count, down.count);
	cr_assert_arr_eq(up.times, down.times, up.count * sizeof(*up.times));
	versions_points_clear(&up);
	versions_points_clear(&down);
}

Test(versions_points, nothing_noted_is_nothing_shown)
{
	struct versions_points points = {.now_ns = NOW};

	versions_points_thin(&points);
	cr_assert_eq(points.count, 0);
}

/* How many points, and whether all are of this hour. */
static size_t count_points(struct world *world, uint64_t dir, bool *ret_recent)
{
	struct versions_points points;
	size_t count;

	cr_assert_eq(versions_points_find(world->catalog, dir, PATIENCE, &points), 0);
	count = points.count;
	*ret_recent = !count || points.times[0] > clock_wall() - HOUR;
	versions_points_clear(&points);
	return count;
}

static int shift_back(struct cat_txn *txn, void *arg)
{
	struct cat_version version = *(const struct cat_version *)arg;

	version.commit_ns -= 3 * DAY;
	return cat_version_put(txn, &version);
}

Test(versions_points, only_what_happened_beneath_counts)
{
	struct world world;
	uint64_t sub, inner;
	struct cat_version version;
	bool recent;

	world_open(&world);
	sub = make_dir(&world, ROOT, "sub");
	inner = make_dir(&world, sub, "inner");
	cr_assert_eq(count_points(&world, inner, &recent), 0);
	cr_assert_neq(count_points(&world, sub, &recent), 0);
	version = make_file(&world, ROOT, "elsewhere", 1);
	cr_assert_eq(count_points(&world, inner, &recent), 0);
	make_file(&world, inner, "file", 1);
	cr_assert_neq(count_points(&world, inner, &recent), 0);
	/* A commit from before the file had its name here happened elsewhere. */
	cr_assert_eq(catalog_update(world.catalog, shift_back, &version), 0);
	move_to(&world, ROOT, "elsewhere", inner, "here");
	(void)count_points(&world, inner, &recent);
	cr_assert(recent);
	(void)count_points(&world, ROOT, &recent);
	cr_assert(recent, "the name is younger than the commit");
	world_close(&world);
}
