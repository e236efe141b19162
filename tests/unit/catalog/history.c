/* history.c - what a name showed over time: replacements, renames, deletions, rings, and that it stays quick. */
#include "catalog_fixture.h"

TestSuite(history, .init = setup, .fini = teardown);

Test(history, name_that_never_lived_has_none)
{
	assert_history(ROOT, "a", "never");
	assert_history(ROOT, "..", "never");
}

Test(history, name_that_never_had_content_lived_all_the_same)
{
	make_file(ROOT, "a");
	assert_history(ROOT, "a", "");
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	assert_history(ROOT, "a", "");
}

Test(history, commits_come_oldest_first_and_the_last_is_current)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	commit(ino, 2);
	commit(ino, 3);
	assert_history(ROOT, "a", "1 2 3*");
}

Test(history, deleted_and_made_again_is_one_history)
{
	commit(make_file(ROOT, "a"), 1);
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	assert_history(ROOT, "a", "1");
	commit(make_file(ROOT, "a"), 2);
	assert_history(ROOT, "a", "1 2*");
}

Test(history, version_made_after_the_name_ended_is_not_its)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	commit(ino, 2);
	assert_history(ROOT, "a", "1");
}

Test(history, pure_rename_takes_the_history_along)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(ROOT, "a");

	commit(ino, 1);
	commit(ino, 2);
	cr_assert_eq(move(ROOT, "a", dir, "b"), 0);
	assert_history(dir, "b", "R1 R2*");
	commit(ino, 3);
	assert_history(dir, "b", "R1 R2 3*");
	assert_history(ROOT, "a", "1 2");
}

Test(history, renamed_directory_takes_its_names_along)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");

	commit(ino, 1);
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	commit(ino, 2);
	assert_history(dir, "a", "1 2*");
}

Test(history, name_used_before_keeps_what_it_had_when_a_file_is_renamed_to_it)
{
	uint64_t ino;

	commit(make_file(ROOT, "a"), 1);
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	ino = make_file(ROOT, "b");
	commit(ino, 2);
	cr_assert_eq(move(ROOT, "b", ROOT, "a"), 0);
	commit(ino, 3);
	assert_history(ROOT, "a", "1 R2 3*");
}

Test(history, old_content_that_comes_back_is_shown_again)
{
	uint64_t first = make_file(ROOT, "a"), second;

	commit(first, 1);
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	second = make_file(ROOT, "a");
	commit(second, 2);
	cr_assert_eq(move(ROOT, "b", ROOT, "a"), 0);
	assert_history(ROOT, "a", "1 2 R1*");
}

Test(history, exchange_is_a_replacement_in_both)
{
	commit(make_file(ROOT, "a"), 1);
	commit(make_file(ROOT, "b"), 2);
	cr_assert_eq(rename_flags(ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
	assert_history(ROOT, "a", "1 R2*");
	assert_history(ROOT, "b", "2 R1*");
}

Test(history, hard_link_starts_with_what_the_file_was_then)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_inode inode;

	commit(ino, 1);
	commit(ino, 2);
	cr_assert_eq(catalog_link(catalog, ino, ROOT, "b", actor, &inode), 0);
	commit(ino, 3);
	assert_history(ROOT, "b", "L2 3*");
	assert_history(ROOT, "a", "1 2 3*");
}

Test(history, rename_back_and_forth_shows_each_version_once)
{
	uint64_t ino = make_file(ROOT, "a");

	commit(ino, 1);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
		cr_assert_eq(move(ROOT, "b", ROOT, "a"), 0);
	}
	commit(ino, 2);
	assert_history(ROOT, "a", "1 2*");
}

Test(history, suspect_version_is_listed_but_never_current)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_commit request = {.ino = ino, .size = 2, .origin = CAT_ORIGIN_SUSPECT};
	struct cat_version version;

	commit(ino, 1);
	cr_assert_eq(catalog_commit(catalog, &request, &version), 0);
	assert_history(ROOT, "a", "1* 2");
	cr_assert_eq(inode_of(ino).size, 1);
	commit(make_file(ROOT, "b"), 3);
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	assert_history(ROOT, "b", "3 R1*");
}

Test(history, a_conflicting_version_is_what_its_file_held)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version;

	commit(ino, 1);
	version = commit(ino, 2);
	cr_assert_eq(catalog_conflict(catalog, ino, version.seq), 0);
	commit(make_file(ROOT, "b"), 3);
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	assert_history(ROOT, "b", "3 R2*");
}

static int keep_entry(void *arg, const struct cat_entry *entry)
{
	*(struct cat_entry *)arg = *entry;
	return 0;
}

Test(history, time_of_an_entry_is_the_later_of_commit_and_binding)
{
	uint64_t ino = make_file(ROOT, "tmp");
	struct cat_version version = commit(ino, 1);
	struct cat_entry entry;

	commit(make_file(ROOT, "a"), 2);
	cr_assert_eq(catalog_history(catalog, ROOT, "tmp", keep_entry, &entry), 0);
	cr_assert_eq(entry.time_ns, version.commit_ns);
	cr_assert_eq(move(ROOT, "tmp", ROOT, "a"), 0);
	cr_assert_eq(catalog_history(catalog, ROOT, "a", keep_entry, &entry), 0);
	cr_assert_gt(entry.time_ns, version.commit_ns);
	cr_assert_str_eq(entry.from_name, "tmp");
	cr_assert_eq(entry.how, CAT_HOW_RENAME);
	cr_assert_eq(entry.version.seq, version.seq);
}

/* --- names ever and past names ------------------------------------------------------------------ */

static int ever_word(void *arg, const char *name, uint32_t type, bool live)
{
	buf_addf(arg, "%s%s%s ", name, type == S_IFDIR ? "/" : "", live ? "" : "-");
	return 0;
}

Test(history, names_ever_shows_each_name_once_with_its_last_type)
{
	uint64_t dir = make_dir(ROOT, "d"), other = make_dir(ROOT, "other");
	struct cat_unlinked unlinked;
	struct buf text = BUF_INIT;

	make_file(dir, "b");
	make_file(dir, "ab");
	make_file(dir, "a");
	make_file(other, "elsewhere");
	cr_assert_eq(remove_file(dir, "a"), 0);
	make_file(dir, "a");
	cr_assert_eq(remove_file(dir, "a"), 0);
	cr_assert_eq(remove_file(dir, "b"), 0);
	make_dir(dir, "b");
	make_file(dir, "was");
	cr_assert_eq(remove_file(dir, "was"), 0);
	make_dir(dir, "was");
	cr_assert_eq(catalog_rmdir(catalog, dir, "was", actor, &unlinked), 0);
	make_file(dir, "z");
	cr_assert_eq(catalog_names_ever(catalog, dir, ever_word, &text), 0);
	cr_assert_str_eq(text.data, "a- ab b/ was/- z ");
	buf_free(&text);
}

static int past_word(void *arg, const struct cat_past *past)
{
	static const char letters[] = "CLRPUAV"; /* enum cat_how */

	cr_assert_lt(past->since, past->until);
	cr_assert_lt(past->since_ns, past->until_ns);
	cr_assert_eq(past->actor, actor.uid);
	buf_addf(arg, "%s:%c%c%s%s ", past->name, letters[past->began], letters[past->ended],
		 past->to_name[0] ? ">" : "", past->to_name);
	return 0;
}

Test(history, past_tells_how_each_name_began_and_ended)
{
	struct buf text = BUF_INIT;

	make_file(ROOT, "b");
	make_file(ROOT, "a");
	cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
	cr_assert_eq(remove_file(ROOT, "b"), 0);
	make_file(ROOT, "a");
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	cr_assert_eq(catalog_past(catalog, ROOT, NULL, past_word, &text), 0);
	cr_assert_str_eq(text.data, "a:CR>b a:CU b:CP b:RU ");
	buf_reset(&text);
	cr_assert_eq(catalog_past(catalog, ROOT, "b", past_word, &text), 0);
	cr_assert_str_eq(text.data, "b:CP b:RU ");
	cr_assert_eq(catalog_past(catalog, ROOT, "bb", past_word, &text), 0);
	cr_assert_str_eq(text.data, "b:CP b:RU ");
	buf_free(&text);
}

/* --- at scale ----------------------------------------------------------------------------------- */

static int count_entry(void *arg, const struct cat_entry *entry)
{
	(*(size_t *)arg)++;
	cr_assert_gt(entry->version.size, 0);
	return 0;
}

Test(history, ten_thousand_versions_are_listed_at_once)
{
	uint64_t ino = make_file(ROOT, "a");
	size_t count = 0;
	int64_t start;

	for (uint64_t i = 1; i <= 10000; i++)
		commit(ino, i);
	start = cpu_ns();
	cr_assert_eq(catalog_history(catalog, ROOT, "a", count_entry, &count), 0);
	cr_assert_eq(count, 10000);
	cr_assert_lt(seconds_since(start), 2.0);
	cr_log_info("10,000 versions listed in %.0f ms", 1000 * seconds_since(start));
}

Test(history, ten_thousand_saves_by_rename_are_listed_at_once)
{
	size_t count = 0;
	int64_t start;

	commit(make_file(ROOT, "a"), 1);
	for (uint64_t i = 2; i <= 10000; i++) {
		commit(make_file(ROOT, "tmp"), i);
		cr_assert_eq(move(ROOT, "tmp", ROOT, "a"), 0);
	}
	start = cpu_ns();
	cr_assert_eq(catalog_history(catalog, ROOT, "a", count_entry, &count), 0);
	cr_assert_eq(count, 10000);
	cr_assert_lt(seconds_since(start), 2.0);
	cr_log_info("10,000 saves by rename listed in %.0f ms", 1000 * seconds_since(start));
}

Test(history, long_ring_of_renames_costs_its_length_only)
{
	uint64_t ino = make_file(ROOT, "a");
	size_t count = 0;
	int64_t start;

	commit(ino, 1);
	for (int i = 0; i < 5000; i++) {
		cr_assert_eq(move(ROOT, "a", ROOT, "b"), 0);
		cr_assert_eq(move(ROOT, "b", ROOT, "a"), 0);
	}
	start = cpu_ns();
	cr_assert_eq(catalog_history(catalog, ROOT, "a", count_entry, &count), 0);
	cr_assert_eq(count, 1);
	cr_assert_lt(seconds_since(start), 2.0);
}

static int count_ever(void *arg, const char *name, uint32_t type, bool live)
{
	(void)name;
	(void)type;
	(void)live;
	(*(size_t *)arg)++;
	return 0;
}

Test(history, hundred_thousand_past_names_are_no_burden)
{
	size_t count = 0, entries = 0;
	char name[32];
	int64_t start;

	for (int i = 0; i < 100000; i++) {
		(void)snprintf(name, sizeof(name), "n%d", i % 25000);
		make_file(ROOT, name);
		cr_assert_eq(remove_file(ROOT, name), 0);
	}
	start = cpu_ns();
	cr_assert_eq(catalog_names_ever(catalog, ROOT, count_ever, &count), 0);
	cr_assert_eq(count, 25000);
	cr_assert_lt(seconds_since(start), 2.0);
	cr_log_info("100,000 past names read in %.0f ms", 1000 * seconds_since(start));
	start = cpu_ns();
	cr_assert_eq(catalog_history(catalog, ROOT, "n7", count_entry, &entries), 0);
	cr_assert_lt(seconds_since(start), 0.1);
}
