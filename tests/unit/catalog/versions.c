/* versions.c - from the first change to the stored version: flags, identity, order, extents, copies. */
#define FIXTURE_MEMORY
#include "catalog_fixture.h"

#include "checksum.h"

TestSuite(versions, .init = setup, .fini = teardown);

static int extent_closure(struct cat_txn *txn, void *arg)
{
	return cat_extent_get(txn, ROOT + 1, arg);
}

static int get_extent(struct cat_extent *ret_extent)
{
	return catalog_view(catalog, extent_closure, ret_extent);
}

static struct cat_extent extent_with(uint64_t present, uint64_t dirty)
{
	struct cat_extent extent = {.base_limit = 3, .boot_id = "boot", .synced = true};

	cr_assert_eq(ranges_add(&extent.present, 0, present), 0);
	cr_assert_eq(ranges_add(&extent.dirty, 0, dirty), 0);
	return extent;
}

static int count_inode(void *arg, const struct cat_inode *inode)
{
	(void)inode;
	(*(int *)arg)++;
	return 0;
}

static int dirty_count(void)
{
	int count = 0;

	cr_assert_eq(catalog_each_dirty(catalog, count_inode, &count), 0);
	return count;
}

Test(versions, dirty_is_recorded_with_the_extent_before_the_first_change)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_extent extent = extent_with(10, 5), read;

	cr_assert_eq(dirty_count(), 0);
	cr_assert_eq(catalog_mark_dirty(catalog, ino, &extent), 0);
	cr_assert_eq(inode_of(ino).flags & (CAT_DIRTY | CAT_FLUSHED), CAT_DIRTY);
	cr_assert_eq(dirty_count(), 1);
	cr_assert_eq(get_extent(&read), 0);
	cr_assert(ranges_contains(&read.present, 0, 10));
	cr_assert_eq(ranges_total(&read.dirty), 5);
	cr_assert_eq(read.base_limit, 3);
	cr_assert_str_eq((char *)read.boot_id, "boot");
	cr_assert(read.synced);
	cat_extent_clear(&read);
	cat_extent_clear(&extent);
}

Test(versions, flush_acknowledges_size_and_time)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_extent extent = extent_with(10, 10);

	cr_assert_eq(catalog_flush(catalog, ino, 10, 1234, &extent), 0);
	cr_assert_eq(inode_of(ino).flags, CAT_DIRTY | CAT_FLUSHED);
	cr_assert_eq(inode_of(ino).size, 10);
	cr_assert_eq(inode_of(ino).mtime, 1234);
	cr_assert_eq(inode_of(ino).version, 0);
	cat_extent_clear(&extent);
}

Test(versions, commit_makes_the_current_version_and_its_upload)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_extent extent = extent_with(10, 10), read;
	struct cat_commit request = {
		.ino = ino, .size = 10, .mtime = 77, .author = 5, .crc32c = 9, .has_crc32c = true, .extent = &extent};
	struct cat_version version;
	struct cat_job job;

	cr_assert_eq(catalog_mark_dirty(catalog, ino, &extent), 0);
	cr_assert_eq(catalog_commit(catalog, &request, &version), 0);
	cr_assert_eq(inode_of(ino).version, version.seq);
	cr_assert_eq(inode_of(ino).flags, 0);
	cr_assert_eq(inode_of(ino).mtime, 77);
	cr_assert_eq(version.state, CAT_LOCAL);
	cr_assert_eq(version.crc32c, 9);
	cr_assert_eq(version.flags, CAT_HAS_CRC32C);
	cr_assert_eq(version.author, 5);
	cr_assert_neq(version.host[0], '\0');
	cr_assert_eq(dirty_count(), 0);
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(job.type, CAT_JOB_UPLOAD);
	cr_assert_eq(job.ino, ino);
	cr_assert_eq(job.version, version.seq);
	cr_assert_eq(get_extent(&read), 0);
	cr_assert_eq(ranges_total(&read.dirty), 10, "needed until it is stored");
	cr_assert_eq(read.base, 0);
	cat_extent_clear(&read);
	request.size = 11;
	cr_assert_eq(catalog_commit(catalog, &request, NULL), 0);
	cr_assert_eq(get_extent(&read), 0);
	cr_assert_eq(read.base, 0, "what is not stored cannot be a base");
	cat_extent_clear(&read);
	cat_extent_clear(&extent);
}

Test(versions, fsync_of_an_open_file_leaves_it_dirty)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_commit request = {.ino = ino, .size = 1, .origin = CAT_ORIGIN_FSYNC, .still_dirty = true};

	cr_assert_eq(catalog_mark_dirty(catalog, ino, NULL), 0);
	cr_assert_eq(catalog_commit(catalog, &request, NULL), 0);
	cr_assert_eq(inode_of(ino).flags, CAT_DIRTY);
	cr_assert_eq(dirty_count(), 1);
}

Test(versions, times_sequence_and_shown_names_grow_strictly)
{
	uint64_t ino = make_file(ROOT, "a"), other = make_file(ROOT, "b");
	struct cat_version last = commit(ino, 1);
	int64_t shown = last.shown_ms;

	for (int i = 0; i < 2000; i++) {
		struct cat_version version = commit(i % 2 ? ino : other, 2);

		cr_assert_gt(version.commit_ns, last.commit_ns);
		cr_assert_gt(version.seq, last.seq);
		if (i % 2) {
			cr_assert_gt(version.shown_ms, shown);
			shown = version.shown_ms;
		}
		last = version;
	}
}

Test(versions, numbers_and_times_are_never_given_again_after_reopening)
{
	uint64_t ino = make_file(ROOT, "a"), again;
	struct cat_version before = commit(ino, 1), after;

	reopen();
	again = make_file(ROOT, "b");
	after = commit(again, 1);
	cr_assert_gt(again, ino);
	cr_assert_gt(after.seq, before.seq);
	cr_assert_gt(after.commit_ns, before.commit_ns);
}

Test(versions, failed_update_does_not_make_a_lease_count)
{
	uint64_t first = make_file(ROOT, "a"), last = first;
	char name[16];

	/* Fail around the end of the range of inode numbers, so that the update with the lease is among the failed. */
	for (int i = 0; i < 3000; i++) {
		struct cat_create request = {.parent = ROOT, .name = name, .mode = S_IFREG};
		struct cat_inode inode;

		(void)snprintf(name, sizeof(name), "n%d", i);
		kv_memory_fail_at(i % 12);
		if (catalog_create(catalog, &request, &inode) == 0)
			last = inode.ino;
		kv_memory_fail_at(-1);
	}
	cr_assert_gt(last, first);
	reopen();
	cr_assert_gt(make_file(ROOT, "after"), last);
}

Test(versions, identity_is_of_file_id_and_sequence)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 1);
	uint8_t bytes[24], digest[SHA256_SIZE];
	uint32_t identity;

	memcpy(bytes, inode_of(ino).file_id, 16);
	for (int i = 0; i < 8; i++)
		bytes[16 + i] = (uint8_t)(version.seq >> (8 * (7 - i)));
	sha256_of(bytes, sizeof(bytes), digest);
	identity = (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 | digest[3];
	cr_assert_eq(version.identity, identity);
}

Test(versions, discarded_file_makes_no_version)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_commit request = {.ino = ino, .size = 1};

	cr_assert_eq(remove_file(ROOT, "a"), 0);
	cr_assert_eq(catalog_commit(catalog, &request, NULL), -ENOENT);
	request.ino = ROOT;
	cr_assert_eq(catalog_commit(catalog, &request, NULL), -EISDIR);
	cr_assert_eq(catalog_mark_dirty(catalog, 999, NULL), -ENOENT);
}

/* --- stored ------------------------------------------------------------------------------------- */

struct facts {
	uint64_t ino, seq;
	struct cat_version version;
	struct cat_copy copy;
	struct cat_key key;
	int copy_rc, key_rc;
};

static int facts_closure(struct cat_txn *txn, void *arg)
{
	struct facts *facts = arg;

	facts->copy_rc = cat_copy_get(txn, facts->ino, facts->seq, &facts->copy);
	facts->key_rc = cat_key_get(txn, 0, "a", &facts->key);
	return cat_version_get(txn, facts->ino, facts->seq, &facts->version);
}

static struct facts facts_of(uint64_t ino, uint64_t seq)
{
	struct facts facts = {.ino = ino, .seq = seq};

	cr_assert_eq(catalog_view(catalog, facts_closure, &facts), 0);
	return facts;
}

static void clear(struct facts *facts)
{
	if (facts->copy_rc == 0)
		cat_copy_clear(&facts->copy);
	if (facts->key_rc == 0)
		cat_key_clear(&facts->key);
}

Test(versions, arrival_records_copy_and_key_and_ends_the_job)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 1);
	struct cat_copy copy = {.ino = ino,
				.seq = version.seq,
				.key = (char *)"a",
				.native_id = (char *)"v1",
				.etag = (char *)"e1",
				.storage_class = (char *)"COLD"};
	struct cat_extent extent = extent_with(4, 0), read;
	struct facts facts = facts_of(ino, version.seq);
	struct cat_job job;

	cr_assert_eq(facts.copy_rc, -ENOENT);
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, &extent), 0);
	facts = facts_of(ino, version.seq);
	cr_assert_eq(facts.version.state, CAT_STORED);
	cr_assert_eq(facts.copy.n, 0);
	cr_assert_str_eq(facts.copy.key, "a");
	cr_assert_str_eq(facts.copy.storage_class, "COLD");
	cr_assert_gt(facts.copy.stored_ns, 0);
	cr_assert_eq(facts.key.kind, CAT_KEY_DATA);
	cr_assert_eq(facts.key.seq, version.seq);
	cr_assert_str_eq(facts.key.native_id, "v1");
	clear(&facts);
	cr_assert_eq(get_extent(&read), 0);
	cr_assert_eq(ranges_total(&read.dirty), 0);
	cat_extent_clear(&read);
	cat_extent_clear(&extent);
	assert_jobs("");
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, NULL), -ENOENT, "a job arrives once");
}

struct copies {
	uint64_t ino, seq;
};

static int relocate_closure(struct cat_txn *txn, void *arg)
{
	const struct copies *copies = arg;
	struct cat_copy copy = {.ino = copies->ino, .seq = copies->seq, .state = CAT_STORED, .key = (char *)"b"};

	return cat_copy_add(txn, &copy);
}

static int drop_closure(struct cat_txn *txn, void *arg)
{
	const struct copies *copies = arg;

	return cat_copy_drop(txn, copies->ino, copies->seq, "b", NULL);
}

Test(versions, what_arrives_where_no_name_is_any_more_is_to_be_moved)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a");
	struct cat_version version;
	struct cat_copy copy = {.ino = ino, .key = (char *)"d/a", .etag = (char *)"e"};
	struct cat_job job;
	char expected[64];

	finish_jobs();
	version = commit(ino, 1);
	copy.seq = version.seq;
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0); /* while its upload is running */
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, NULL), 0);
	cat_job_clear(&job);
	(void)snprintf(expected, sizeof(expected), "tree %" PRIu64 " d; place %" PRIu64 " d/a; ", dir, ino);
	assert_jobs(expected);
	finish_jobs();
}

/* The job of who has the key's name now would not clear it. */
Test(versions, what_arrives_where_another_is_to_come_is_to_be_moved)
{
	uint64_t dir = make_dir(ROOT, "d"), ino = make_file(dir, "a"), again, other;
	struct cat_version version;
	struct cat_copy copy = {.ino = ino, .key = (char *)"d/a", .etag = (char *)"e"};
	struct cat_job job;
	char expected[100];

	finish_jobs();
	version = commit(ino, 1);
	copy.seq = version.seq;
	cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0); /* while its upload is running */
	again = make_dir(ROOT, "d");
	other = make_file(again, "a");
	(void)commit(other, 2);
	cr_assert_eq(remove_file(again, "a"), 0);
	cr_assert_eq(catalog_stored(catalog, job.seq, &copy, NULL), 0);
	cat_job_clear(&job);
	(void)snprintf(expected, sizeof(expected), "place %" PRIu64 " d/a; ", ino);
	{
		struct buf text = BUF_INIT;

		jobs_text(&text);
		cr_assert(strstr(text.data, expected), "%s: %s", expected, text.data);
		buf_free(&text);
	}
	finish_jobs();
}

Test(versions, what_is_written_over_before_it_followed_its_directory_is_to_be_placed)
{
	uint64_t dir = make_dir(ROOT, "d"), moved = make_file(dir, "a"), removed = make_file(dir, "b"), again;
	struct cat_job job;
	char expected[64];

	(void)commit(moved, 1);
	(void)commit(removed, 1);
	finish_jobs();
	cr_assert_eq(move(ROOT, "d", ROOT, "e"), 0);
	cr_assert_eq(remove_file(dir, "b"), 0);
	again = make_dir(ROOT, "d");
	finish_jobs(); /* without doing what they are for */
	(void)commit(make_file(again, "a"), 1);
	(void)commit(make_file(again, "b"), 1);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(catalog_jobs(catalog, 0, 1, take_job, &job), 1);
		cr_assert_eq(job.type, CAT_JOB_UPLOAD);
		finish_job(&job);
		cat_job_clear(&job);
	}
	(void)snprintf(expected, sizeof(expected), "place %" PRIu64 "; ", moved);
	assert_jobs(expected);
	finish_jobs();
}

Test(versions, newest_stored_copy_is_the_live_one)
{
	uint64_t ino = make_file(ROOT, "a");
	struct copies copies = {.ino = ino, .seq = commit(ino, 1).seq};
	struct facts facts;

	finish_jobs();
	cr_assert_eq(catalog_update(catalog, relocate_closure, &copies), 0);
	facts = facts_of(ino, copies.seq);
	cr_assert_str_eq(facts.copy.key, "b");
	cr_assert_eq(facts.copy.n, 1);
	clear(&facts);
	cr_assert_eq(catalog_update(catalog, drop_closure, &copies), 0);
	facts = facts_of(ino, copies.seq);
	cr_assert_str_eq(facts.copy.key, "a");
	clear(&facts);
	cr_assert_eq(catalog_update(catalog, drop_closure, &copies), -ENOENT);
}

static int long_keys_closure(struct cat_txn *txn, void *arg)
{
	struct cat_key first = {.ino = ROOT, .kind = CAT_KEY_DIRECTORY}, second = {.ino = ROOT, .kind = CAT_KEY_LINK};
	char one[1025], other[1025];
	struct cat_key read;

	(void)arg;
	memset(one, 'k', sizeof(one) - 1);
	one[1024] = '\0';
	memcpy(other, one, sizeof(one));
	other[1023] = 'l';
	cr_assert_eq(cat_key_put(txn, one, &first), 0);
	cr_assert_eq(cat_key_put(txn, other, &second), 0);
	cr_assert_eq(cat_key_get(txn, 0, one, &read), 0);
	cr_assert_eq(read.kind, CAT_KEY_DIRECTORY);
	cr_assert_eq(cat_key_delete(txn, 0, one), 0);
	cr_assert_eq(cat_key_get(txn, 0, one, &read), -ENOENT);
	cr_assert_eq(cat_key_get(txn, 0, other, &read), 0);
	cr_assert_eq(read.kind, CAT_KEY_LINK);
	return cat_key_get(txn, 1, other, &read);
}

Test(versions, object_keys_longer_than_a_kv_key_are_told_apart)
{
	cr_assert_eq(catalog_update(catalog, long_keys_closure, NULL), -ENOENT, "another backend's key is another key");
}

/* --- protection and pruning -------------------------------------------------------------------------------- */

struct wanted_job {
	enum cat_job_type type;
	uint64_t version, seq;
	unsigned count;
};

static int find_job(void *arg, struct cat_job *job)
{
	struct wanted_job *wanted = arg;

	if (job->type == wanted->type && job->version == wanted->version) {
		wanted->seq = job->seq;
		wanted->count++;
	}
	return 0;
}

/* 0: there is none. */
static uint64_t job_of(enum cat_job_type type, uint64_t seq)
{
	struct wanted_job wanted = {.type = type, .version = seq};

	cr_assert_eq(catalog_jobs(catalog, 0, 0, find_job, &wanted), 0);
	cr_assert_leq(wanted.count, 1);
	return wanted.seq;
}

static void store(const struct cat_version *version, const char *id)
{
	struct cat_copy copy = {.ino = version->ino, .seq = version->seq, .key = "a", .native_id = (char *)id};

	cr_assert_eq(catalog_stored(catalog, job_of(CAT_JOB_UPLOAD, version->seq), &copy, NULL), 0);
}

static int get_version(struct cat_txn *txn, void *arg)
{
	struct cat_version *version = arg;

	return cat_version_get(txn, version->ino, version->seq, version);
}

static struct cat_version again(struct cat_version version)
{
	cr_assert_eq(catalog_view(catalog, get_version, &version), 0);
	return version;
}

Test(versions, what_is_needed_is_not_pruned)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version v[4];

	for (unsigned i = 0; i < 4; i++)
		v[i] = commit(ino, i + 1);
	cr_assert_eq(catalog_prune(catalog, ino, v[0].seq), -EBUSY, "nothing newer is in the store");
	store(&v[0], "1");
	cr_assert_eq(catalog_prune(catalog, ino, v[0].seq), -EBUSY, "the newest in the store");
	store(&v[1], "2");
	cr_assert_eq(catalog_prune(catalog, ino, v[1].seq), -EBUSY);
	cr_assert_eq(catalog_prune(catalog, ino, v[2].seq), -EBUSY);
	cr_assert_eq(catalog_prunable(catalog, ino, v[0].seq), 0);
	cr_assert_eq(again(v[0]).state, CAT_STORED, "asking changes nothing");
	cr_assert_eq(catalog_prune(catalog, ino, v[0].seq), 0);
	cr_assert_eq(again(v[0]).state, CAT_EXPIRED);
	cr_assert_eq(catalog_prune(catalog, ino, v[0].seq), -ENOENT, "once is enough");
	store(&v[3], "4");
	cr_assert_eq(catalog_prune(catalog, ino, v[2].seq), -EAGAIN, "its bytes are on their way");
	store(&v[2], "3");
	cr_assert_eq(catalog_prune(catalog, ino, v[2].seq), 0);
	cr_assert_eq(catalog_prune(catalog, ino, v[3].seq), -EBUSY, "current");
	cr_assert_eq(remove_file(ROOT, "a"), 0);
	cr_assert_eq(catalog_prune(catalog, ino, v[3].seq), 0, "current of nothing any more");
	cr_assert(job_of(CAT_JOB_PRUNE, v[0].seq) && job_of(CAT_JOB_PRUNE, v[2].seq) &&
		  job_of(CAT_JOB_PRUNE, v[3].seq) && !job_of(CAT_JOB_PRUNE, v[1].seq));
}

Test(versions, a_prune_that_the_store_refuses_is_taken_back)
{
	uint64_t ino = make_file(ROOT, "a"), job;
	struct cat_version old = commit(ino, 1), newer = commit(ino, 2);

	store(&old, "1");
	store(&newer, "2");
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), 0);
	job = job_of(CAT_JOB_PRUNE, old.seq);
	cr_assert_eq(catalog_prune_refused(catalog, job, ino, old.seq), 0);
	cr_assert(again(old).state == CAT_STORED && !(again(old).flags & CAT_PRUNED));
	cr_assert_eq(job_of(CAT_JOB_PRUNE, old.seq), 0);
}

Test(versions, held_and_retained_versions_stay)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version old = commit(ino, 1), newer = commit(ino, 2);
	struct cat_protection hold = {.ino = ino, .seq = old.seq, .set_hold = true, .hold = true};
	struct cat_protection retain = {
		.ino = ino, .seq = old.seq, .retain_until_ns = clock_wall() + 3600 * NS_PER_SEC};

	store(&old, "1");
	store(&newer, "2");
	cr_assert_eq(catalog_protect(catalog, &hold), 0);
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), -EPERM);
	hold.hold = false;
	cr_assert_eq(catalog_protect(catalog, &hold), 0);
	cr_assert_eq(catalog_prunable(catalog, ino, old.seq), 0);
	cr_assert_eq(catalog_protect(catalog, &retain), 0);
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), -EPERM);
	retain.retain_until_ns -= NS_PER_SEC;
	cr_assert_eq(catalog_protect(catalog, &retain), -EPERM, "retention is never shortened");
	retain.retain_until_ns += 2 * NS_PER_SEC;
	cr_assert_eq(catalog_protect(catalog, &retain), 0);
	reopen();
	cr_assert_eq(again(old).retain_until_ns, retain.retain_until_ns, "it is written down");
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), -EPERM);
	retain.seq = newer.seq + 100;
	cr_assert_eq(catalog_protect(catalog, &retain), -ENOENT);
}

Test(versions, retention_that_is_over_keeps_nothing)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version old = commit(ino, 1), newer = commit(ino, 2);
	struct cat_protection retain = {.ino = ino, .seq = old.seq, .retain_until_ns = clock_wall() - 1};

	store(&old, "1");
	store(&newer, "2");
	cr_assert_eq(catalog_protect(catalog, &retain), 0);
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), 0);
}

Test(versions, the_store_is_told_of_each_copy_and_only_of_what_is_still_so)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version version = commit(ino, 1), told;
	struct cat_protection hold = {.ino = ino, .seq = version.seq, .set_hold = true, .hold = true};
	uint64_t job;

	cr_assert_eq(catalog_protect(catalog, &hold), 0);
	job = job_of(CAT_JOB_LOCK, version.seq);
	cr_assert_neq(job, 0);
	cr_assert_eq(catalog_protected(catalog, job, &version, false), 0, "nothing is stored yet");
	cr_assert_eq(job_of(CAT_JOB_LOCK, version.seq), 0);
	store(&version, "1");
	job = job_of(CAT_JOB_LOCK, version.seq);
	cr_assert_neq(job, 0, "a copy came");
	cr_assert_not(again(version).flags & CAT_LOCKED);
	told = again(version);
	told.flags &= ~(uint32_t)CAT_HELD;
	cr_assert_eq(catalog_protected(catalog, job, &told, true), -EAGAIN, "something else was told");
	told = again(version);
	cr_assert_eq(catalog_protected(catalog, job, &told, true), 0);
	cr_assert(again(version).flags & CAT_LOCKED);
	hold.hold = false;
	cr_assert_eq(catalog_protect(catalog, &hold), 0);
	cr_assert_not(again(version).flags & CAT_LOCKED, "until the store knows");
	cr_assert_neq(job_of(CAT_JOB_LOCK, version.seq), 0);
}

/* Written again while its version was being uploaded, a file still has its absent bytes in the version before. */
Test(versions, what_the_cache_is_based_on_is_not_pruned)
{
	uint64_t ino = make_file(ROOT, "a");
	struct cat_version old = commit(ino, 1), newer = commit(ino, 2);
	struct cat_extent extent = extent_with(10, 5);

	store(&old, "1");
	store(&newer, "2");
	extent.base = old.seq;
	cr_assert_eq(catalog_mark_dirty(catalog, ino, &extent), 0);
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), -EBUSY);
	extent.base = newer.seq;
	cr_assert_eq(catalog_mark_dirty(catalog, ino, &extent), 0);
	cr_assert_eq(catalog_prune(catalog, ino, old.seq), 0);
	cat_extent_clear(&extent);
}
