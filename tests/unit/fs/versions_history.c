/* Unit tests of fs/versions_history.c: the order of entries, their names and other words for them. */
#include "fs/versions_history.h"
#include "tests/unit/fs/versions_fixture.h"

#define ROOT CAT_ROOT_INO
/* 2026-11-21T10:00:00Z */
#define TEN INT64_C(1795255200)

static struct world world;

static void setup(void)
{
	world_open(&world);
}

static void teardown(void)
{
	world_close(&world);
}

TestSuite(versions_history, .init = setup, .fini = teardown);

struct backdated {
	struct cat_version version;
	int64_t commit_ns;
};

static int set_time(struct cat_txn *txn, void *arg)
{
	struct backdated *backdated = arg;

	backdated->version.commit_ns = backdated->commit_ns;
	backdated->version.shown_ms = backdated->commit_ns / NS_PER_MS;
	return cat_version_put(txn, &backdated->version);
}

/* A version as if committed then: the name counts as adopted, so that it may be older than the name. */
static void commit_at(uint64_t ino, uint64_t size, int64_t ns)
{
	struct backdated backdated = {.version = commit(&world, ino, size), .commit_ns = ns};

	cr_assert_eq(catalog_update(world.catalog, set_time, &backdated), 0);
}

static struct versions_history *loaded(const char *name)
{
	struct versions_history *history;

	cr_assert_eq(versions_history_load(world.catalog, ROOT, name, &history), 0);
	return history;
}

static long index_of(const struct versions_history *history, const struct versions_history_item *item)
{
	return item ? item - history->items : -1;
}

Test(versions_history, extension_is_the_last_short_one)
{
	cr_assert_str_eq(versions_history_ext("report.doc"), ".doc");
	cr_assert_str_eq(versions_history_ext("archive.tar.gz"), ".gz");
	cr_assert_str_eq(versions_history_ext("plain"), "");
	cr_assert_str_eq(versions_history_ext(".bashrc"), "");
	cr_assert_str_eq(versions_history_ext(".config.yml"), ".yml");
	cr_assert_str_eq(versions_history_ext("ends."), "");
	cr_assert_str_eq(versions_history_ext("a.123456789012345"), ".123456789012345");
	cr_assert_str_eq(versions_history_ext("a.1234567890123456"), "");
}

Test(versions_history, a_name_that_never_lived_has_none)
{
	struct versions_history *history;

	cr_assert_eq(versions_history_load(world.catalog, ROOT, "nobody", &history), -ENOENT);
}

Test(versions_history, times_in_one_millisecond_are_shown_apart)
{
	uint64_t ino = make(&world, ROOT, "f.x", S_IFREG | 0644).ino;
	struct versions_history *history;
	char name[VERSIONS_HISTORY_NAME_SIZE];

	for (int i = 0; i < 50; i++)
		commit(&world, ino, (uint64_t)i);
	history = loaded("f.x");
	cr_assert_eq(history->count, 50);
	for (size_t i = 1; i < history->count; i++)
		cr_assert_gt(history->items[i].shown_ms, history->items[i - 1].shown_ms);
	for (size_t i = 0; i < history->count; i++) {
		versions_history_entry_name(history, &history->items[i], name);
		cr_assert_eq(index_of(history, versions_history_find(history, name)), (long)i, "%s", name);
	}
	name[0] = '1';
	cr_assert_null(versions_history_find(history, name));
	cr_assert_null(versions_history_find(history, ""));
	cr_assert_null(versions_history_find(history, "2026-11-21T10-00-00.000Z~"));
	versions_history_put(history);
}

/* Versions of 10:00:00, 10:00:30, 11:00:00 that day, and of the day after. */
static struct versions_history *four_versions(const char *name)
{
	uint64_t ino = make(&world, ROOT, name, S_IFREG | 0644).ino;
	static const int64_t seconds[] = {0, 30, 3600, 86400};
	struct versions_history *history;

	for (size_t i = 0; i < ARRAY_SIZE(seconds); i++)
		commit_at(ino, i, (TEN + seconds[i]) * NS_PER_SEC);
	history = loaded(name);
	cr_assert_eq(history->count, ARRAY_SIZE(seconds));
	return history;
}

Test(versions_history, words_mean_entries)
{
	static const struct {
		const char *word;
		long expected;
	} cases[] = {
		{"-1", 3},
		{"-4", 0},
		{"-5", -1},
		{"-0", -1},
		{"-", -1},
		{"--1", -1},
		{"-1x", -1},
		{"-99999999999999999999", -1},
		{"-2.doc", 2},
		{"@2026-11-21T10:00:00Z", 0},
		{"2026-11-21T10:00:00Z", 0},
		{"2026-11-21T10:00Z", 1},
		{"2026-11-21T12:00:00+02:00", 0},
		{"2026-11-21T10-00-31Z", 1},
		{"2026-11-21T10-00-29.999Z", 0},
		{"2026-11-21", 2},
		{"@2026-11-21.doc", 2},
		{"2026-11-20", -1},
		{"2026-11-22", 3},
		{"@GMT-2026.11.21-10.30.00", 1},
		{"2h", 2},
		{"@2h", 2},
		{"2h.doc", 2},
		{"23h", 2},
		{"24h", 1},
		{"25h", -1},
		{"30m", 3},
		{"1w", -1},
		{"2026-11-21T10:00", -1},
		{"yesterday", -1},
		{"@", -1},
		{"", -1},
		{".doc", -1},
	};
	struct versions_history *history = four_versions("report.doc");
	int64_t now = (TEN + 86400 + 3599) * NS_PER_SEC;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert_eq(index_of(history, versions_history_alias(history, cases[i].word, now)), cases[i].expected,
			     "%s", cases[i].word);
	}
	versions_history_put(history);
}

Test(versions_history, an_identity_means_its_entry)
{
	struct versions_history *history = four_versions("report.doc");
	char word[VERSIONS_HISTORY_NAME_SIZE];

	for (size_t i = 0; i < history->count; i++) {
		(void)snprintf(word, sizeof(word), "%08x", history->items[i].identity);
		cr_assert_eq(index_of(history, versions_history_alias(history, word, 0)), (long)i);
		(void)snprintf(word, sizeof(word), "%08x.doc", history->items[i].identity);
		cr_assert_eq(index_of(history, versions_history_alias(history, word, 0)), (long)i);
		(void)snprintf(word, sizeof(word), "%08x.txt", history->items[i].identity);
		cr_assert_eq(index_of(history, versions_history_alias(history, word, 0)), -1);
		versions_history_entry_name(history, &history->items[i], word);
		*strrchr(word, '.') = '\0';
		cr_assert_null(versions_history_find(history, word));
		cr_assert_eq(index_of(history, versions_history_alias(history, word, 0)), (long)i);
	}
	history->items[1].identity = history->items[0].identity;
	(void)snprintf(word, sizeof(word), "%08x", history->items[0].identity);
	cr_assert_null(versions_history_alias(history, word, 0), "it could be either");
	history->items[1].ino = history->items[0].ino;
	history->items[1].seq = history->items[0].seq;
	cr_assert_eq(index_of(history, versions_history_alias(history, word, 0)), 1, "the same version twice");
	versions_history_put(history);
}

static int expire(struct cat_txn *txn, void *arg)
{
	struct cat_version version = *(const struct cat_version *)arg;

	version.state = CAT_EXPIRED;
	return cat_version_put(txn, &version);
}

Test(versions_history, pruned_versions_are_left_out_and_rename_nobody)
{
	struct cat_version first = make_file(&world, ROOT, "f", 1), second;
	struct versions_history *before, *after;

	second = commit(&world, first.ino, 2);
	commit(&world, first.ino, 3);
	before = loaded("f");
	cr_assert_eq(catalog_update(world.catalog, expire, &second), 0);
	after = loaded("f");
	cr_assert_eq(after->count, 2);
	cr_assert_eq(after->items[1].shown_ms, before->items[2].shown_ms);
	cr_assert_null(versions_history_of(after, second.ino, second.seq));
	versions_history_put(before);
	versions_history_put(after);
}

Test(versions_history, a_rename_brings_the_old_name_s_history)
{
	struct cat_version first = make_file(&world, ROOT, "draft", 1);
	struct versions_history *history;

	commit(&world, first.ino, 2);
	move_to(&world, ROOT, "draft", ROOT, "final");
	commit(&world, first.ino, 3);
	history = loaded("final");
	cr_assert_eq(history->count, 3);
	cr_assert(history->items[2].is_current);
	versions_history_put(history);
	history = loaded("draft");
	cr_assert_eq(history->count, 2);
	cr_assert_not(history->items[1].is_current);
	versions_history_put(history);
}
