/*
 * Tests of kv.h on LMDB: the contract of transactions and scans, beside a model;
 * crashes, full disks, growth, and threads.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "catalog/kv.h"
#include "clock.h"
#include "kv_support.h"

#define NEVER (3600 * NS_PER_SEC)

static _Atomic bool sync_fails;

int fdatasync(int fd)
{
	if (atomic_load(&sync_fails)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* --- helpers -------------------------------------------------------------------------------------- */

struct pair {
	const char *key, *value; /* value NULL: delete */
};

struct writes {
	const struct pair *pairs;
	size_t count;
	int result;
};

static int do_writes(struct kv_txn *txn, void *arg)
{
	struct writes *writes = arg;

	for (size_t i = 0; i < writes->count; i++) {
		const struct pair *pair = &writes->pairs[i];
		int rc = pair->value ? kv_put(txn, bytes_of(pair->key), bytes_of(pair->value))
				     : kv_delete(txn, bytes_of(pair->key));
		if (rc)
			return rc;
	}
	return writes->result;
}

static int put(struct kv *kv, const char *key, const char *value)
{
	struct pair pair = {key, value};
	struct writes writes = {.pairs = &pair, .count = 1};

	return kv_update(kv, do_writes, &writes);
}

struct got {
	const char *key;
	char value[256];
};

static int do_get(struct kv_txn *txn, void *arg)
{
	struct got *got = arg;
	struct kv_bytes value;
	int rc = kv_get(txn, bytes_of(got->key), &value);

	if (!rc)
		snprintf(got->value, sizeof(got->value), "%.*s", (int)value.len, (const char *)value.data);
	return rc;
}

static void expect(struct kv *kv, const char *key, const char *value)
{
	struct got got = {.key = key};
	int rc = kv_view(kv, do_get, &got);

	cr_assert_eq(rc, value ? 0 : -ENOENT, "%s: %d", key, rc);
	if (value)
		cr_assert_str_eq(got.value, value);
}

static struct kv *must_open(const char *dir, int64_t fold_interval)
{
	struct kv_options options = {.fold_interval_ns = fold_interval, .log_segment_size = 256 << 10};
	struct kv *kv;
	int rc = kv_open(dir, &options, &kv);

	cr_assert_eq(rc, 0, "kv_open: %s", strerror(-rc));
	return kv;
}

static uint64_t folds(struct kv *kv)
{
	struct kv_figures figures;

	kv_figures(kv, &figures);
	return figures.folds;
}

static void wait_for_fold(struct kv *kv)
{
	struct kv_figures figures;

	do {
		usleep(1000);
		kv_figures(kv, &figures);
	} while (figures.memtable_bytes > 4096 || figures.folds == 0);
}

struct seen {
	struct buf rows; /* "key=value " */
	int stop_with;
};

static int see(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct seen *seen = arg;

	buf_addf(&seen->rows, "%.*s=%.*s ", (int)key.len, (const char *)key.data, (int)value.len,
		 (const char *)value.data);
	return seen->stop_with;
}

struct scan {
	const char *from, *to;
	enum kv_direction direction;
	size_t max;
	struct seen seen;
};

static int do_scan(struct kv_txn *txn, void *arg)
{
	struct scan *scan = arg;

	buf_reset(&scan->seen.rows);
	return kv_scan(txn, bytes_of(scan->from), bytes_of(scan->to), scan->direction, scan->max, see, &scan->seen);
}

static void expect_scan(struct kv *kv, struct scan scan, const char *rows)
{
	buf_init(&scan.seen.rows);
	cr_assert_eq(kv_view(kv, do_scan, &scan), scan.seen.stop_with);
	cr_assert_str_eq(scan.seen.rows.data, rows);
	buf_free(&scan.seen.rows);
}

/* --- the contract ------------------------------------------------------------------------------------ */

Test(kv, keeps_what_was_put_over_closing)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);

	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(put(kv, "b", ""), 0);
	cr_assert_eq(put(kv, "c", "3"), 0);
	cr_assert_eq(put(kv, "c", NULL), 0);
	cr_assert_eq(put(kv, "never there", NULL), 0);
	for (int round = 0; round < 3; round++) {
		expect(kv, "a", "1");
		expect(kv, "b", "");
		expect(kv, "c", NULL);
		cr_assert_eq(kv_number(kv), 5, "opening changes nothing");
		kv_close(kv);
		kv = must_open(dir, NEVER);
	}
	kv_close(kv);
	free_temp_dir(dir);
}

Test(kv, a_failed_update_leaves_nothing_behind)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);
	struct pair pairs[] = {{"a", "new"}, {"b", "new"}};
	struct writes writes = {.pairs = pairs, .count = 2, .result = -EEXIST};

	cr_assert_eq(put(kv, "a", "old"), 0);
	cr_assert_eq(kv_update(kv, do_writes, &writes), -EEXIST);
	writes.result = 5;
	cr_assert_eq(kv_update(kv, do_writes, &writes), 5);
	expect(kv, "a", "old");
	expect(kv, "b", NULL);
	cr_assert_eq(kv_number(kv), 1);
	writes = (struct writes){0};
	cr_assert_eq(kv_update(kv, do_writes, &writes), 0);
	cr_assert_eq(kv_number(kv), 1, "an update that changes nothing has no number");
	kv_close(kv);
	free_temp_dir(dir);
}

static int see_own_writes(struct kv_txn *txn, void *arg)
{
	struct kv_bytes value;
	struct scan scan = {.from = "", .to = "z", .seen = {.rows = BUF_INIT}};

	(void)arg;
	cr_assert_eq(kv_get(txn, bytes_of("old"), &value), 0);
	cr_assert_eq(kv_delete(txn, bytes_of("old")), 0);
	cr_assert_eq(kv_get(txn, bytes_of("old"), &value), -ENOENT);
	cr_assert_eq(kv_put(txn, bytes_of("new"), bytes_of("1")), 0);
	cr_assert_eq(kv_put(txn, bytes_of("new"), bytes_of("2")), 0);
	cr_assert_eq(kv_get(txn, bytes_of("new"), &value), 0);
	cr_assert_eq(memcmp(value.data, "2", 1), 0);
	cr_assert_eq(do_scan(txn, &scan), 0);
	cr_assert_str_eq(scan.seen.rows.data, "new=2 other=x ");
	scan.direction = KV_BACKWARD;
	cr_assert_eq(do_scan(txn, &scan), 0);
	cr_assert_str_eq(scan.seen.rows.data, "other=x new=2 ");
	buf_free(&scan.seen.rows);
	return 0;
}

Test(kv, an_update_sees_its_own_writes)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);

	cr_assert_eq(put(kv, "old", "x"), 0);
	cr_assert_eq(put(kv, "other", "x"), 0);
	cr_assert_eq(kv_update(kv, see_own_writes, NULL), 0);
	expect_scan(kv, (struct scan){.from = "", .to = "z"}, "new=2 other=x ");
	kv_close(kv);
	free_temp_dir(dir);
}

Test(kv, scans_merge_all_layers)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);
	static const char *const folded[] = {"a", "b", "c", "d", "f"};

	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(put(kv, folded[i], "lmdb"), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(put(kv, "b", NULL), 0);
	cr_assert_eq(put(kv, "c", "mem"), 0);
	cr_assert_eq(put(kv, "e", "mem"), 0);
	cr_assert_eq(put(kv, "f", NULL), 0);
	cr_assert_eq(put(kv, "0", "mem"), 0);
	expect_scan(kv, (struct scan){.from = "", .to = "z"}, "0=mem a=lmdb c=mem d=lmdb e=mem ");
	expect_scan(kv, (struct scan){.from = "", .to = "z", .direction = KV_BACKWARD},
		    "e=mem d=lmdb c=mem a=lmdb 0=mem ");
	expect_scan(kv, (struct scan){.from = "a", .to = "e"}, "a=lmdb c=mem d=lmdb ");
	expect_scan(kv, (struct scan){.from = "a", .to = "e", .direction = KV_BACKWARD}, "d=lmdb c=mem a=lmdb ");
	expect_scan(kv, (struct scan){.from = "a", .to = "z", .max = 2}, "a=lmdb c=mem ");
	expect_scan(kv, (struct scan){.from = "a", .to = "z", .max = 2, .direction = KV_BACKWARD}, "e=mem d=lmdb ");
	expect_scan(kv, (struct scan){.from = "b", .to = "c"}, "");
	expect_scan(kv, (struct scan){.from = "c", .to = "c"}, "");
	expect_scan(kv, (struct scan){.from = "d", .to = "c"}, "");
	expect_scan(kv, (struct scan){.from = "a", .to = "z", .seen = {.stop_with = 9}}, "a=lmdb ");
	kv_close(kv);
	free_temp_dir(dir);
}

struct nested {
	struct kv_txn *txn;
	struct seen inner;
};

static int scan_again(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct nested *nested = arg;
	int rc = kv_scan(nested->txn, key, bytes_of("z"), KV_FORWARD, 1, see, &nested->inner);

	(void)value;
	return rc ? rc : kv_get(nested->txn, key, &value);
}

static int do_nested(struct kv_txn *txn, void *arg)
{
	struct nested *nested = arg;

	nested->txn = txn;
	return kv_scan(txn, bytes_of("a"), bytes_of("z"), KV_FORWARD, 0, scan_again, nested);
}

Test(kv, a_visitor_may_read)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);
	struct nested nested = {.inner = {.rows = BUF_INIT}};

	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(put(kv, "b", "2"), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(put(kv, "c", "3"), 0);
	for (int i = 0; i < 2; i++) {
		buf_reset(&nested.inner.rows);
		cr_assert_eq(kv_view(kv, do_nested, &nested), 0);
		cr_assert_str_eq(nested.inner.rows.data, "a=1 b=2 c=3 ");
	}
	buf_free(&nested.inner.rows);
	kv_close(kv);
	free_temp_dir(dir);
}

static int check_limits(struct kv_txn *txn, void *arg)
{
	struct kv_bytes key = {.data = arg, .len = KV_KEY_MAX}, value = {.data = arg, .len = 16 << 20}, got;

	cr_assert_eq(kv_put(txn, key, value), 0);
	key.len++;
	cr_assert_eq(kv_put(txn, key, value), -EINVAL);
	cr_assert_eq(kv_delete(txn, key), -EINVAL);
	cr_assert_eq(kv_get(txn, key, &got), -EINVAL);
	key.len = 0;
	cr_assert_eq(kv_put(txn, key, value), -EINVAL);
	key.len = 1;
	value.len++;
	cr_assert_eq(kv_put(txn, key, value), -EINVAL);
	return 0;
}

static int check_largest(struct kv_txn *txn, void *arg)
{
	struct kv_bytes key = {.data = arg, .len = KV_KEY_MAX}, got;

	cr_assert_eq(kv_get(txn, key, &got), 0);
	cr_assert_eq(got.len, 16 << 20);
	cr_assert_eq(memcmp(got.data, arg, got.len), 0);
	cr_assert_eq(kv_put(txn, key, got), -EROFS, "a view cannot write");
	return 0;
}

Test(kv, takes_the_largest_and_refuses_larger, .timeout = 60)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);
	uint8_t *bytes = calloc(1, (16 << 20) + 1);

	memset(bytes, 0xff, KV_KEY_MAX + 1);
	cr_assert_eq(kv_update(kv, check_limits, bytes), 0);
	cr_assert_eq(kv_view(kv, check_largest, bytes), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(kv_view(kv, check_largest, bytes), 0);
	kv_close(kv);
	free(bytes);
	free_temp_dir(dir);
}

Test(kv, files_are_private)
{
	char *dir = make_temp_dir(), *inner = path_join(dir, "kv");
	static const char *const names[] = {"LOCK", "data.mdb", "lock.mdb", "redo-0000000000000001.log"};
	struct stat st;
	struct kv *kv;

	umask(0);
	kv = must_open(inner, NEVER);
	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(stat(inner, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	for (size_t i = 0; i < 4; i++) {
		char *path = path_join(inner, names[i]);

		cr_assert_eq(stat(path, &st), 0, "%s", path);
		cr_assert_eq(st.st_mode & 07777, 0600, "%s", path);
		free(path);
	}
	kv_close(kv);
	free(inner);
	free_temp_dir(dir);
}

Test(kv, is_open_only_once)
{
	char *dir = make_temp_dir();
	struct kv_options options = {0};
	struct kv *kv = must_open(dir, NEVER), *second;
	int status;
	pid_t child;

	cr_assert_eq(kv_open(dir, &options, &second), -EBUSY);
	child = fork();
	if (child == 0)
		_exit(kv_open(dir, &options, &second) == -EBUSY ? 0 : 1);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	kv_close(kv);
	free_temp_dir(dir);
}

Test(kv, read_only_changes_nothing)
{
	char *dir = make_temp_dir(), *copy = path_join(dir, "copy"), *data;
	struct kv_options options = {.read_only = true};
	AUTO_BUF before = BUF_INIT;
	AUTO_BUF after = BUF_INIT;
	struct kv *kv;

	cr_assert_eq(kv_open(copy, &options, &kv), -ENOENT);
	kv = must_open(dir, NEVER);
	cr_assert_eq(put(kv, "folded", "1"), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(put(kv, "logged", "2"), 0);
	copy_dir(dir, copy); /* as kill -9 would leave it now */
	kv_close(kv);
	data = path_join(copy, "data.mdb");
	read_whole(data, &before);
	cr_assert_eq(kv_open(copy, &options, &kv), 0);
	expect(kv, "folded", "1");
	expect(kv, "logged", "2");
	cr_assert_eq(kv_number(kv), 2);
	cr_assert_eq(put(kv, "a", "1"), -EROFS);
	cr_assert_eq(kv_sync(kv), 0);
	kv_close(kv);
	read_whole(data, &after);
	cr_assert_eq(before.len, after.len);
	cr_assert_eq(memcmp(before.data, after.data, after.len), 0);
	kv = must_open(copy, NEVER);
	expect(kv, "logged", "2");
	kv_close(kv);
	free(data);
	free(copy);
	free_temp_dir(dir);
}

static int note_mutation(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	buf_addf(arg, "%lu%s%.*s ", number, value ? "+" : "-", (int)key.len, (const char *)key.data);
	return 0;
}

Test(kv, the_log_tells_what_happened)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1);
	struct pair pairs[] = {{"b", "1"}, {"a", "1"}, {"b", NULL}, {"c", "1"}};
	struct writes writes = {.pairs = pairs, .count = 4};
	AUTO_BUF seen = BUF_INIT;

	cr_assert_eq(put(kv, "x", "1"), 0);
	cr_assert_eq(kv_update(kv, do_writes, &writes), 0);
	cr_assert_eq(put(kv, "x", NULL), 0);
	wait_for_fold(kv);
	cr_assert_eq(kv_log_each(kv, 0, 3, note_mutation, &seen), 0);
	cr_assert_str_eq(seen.data, "1+x 2+a 2-b 2+c 3-x ");
	kv_close(kv);
	kv = must_open(dir, 1);
	buf_reset(&seen);
	cr_assert_eq(kv_log_each(kv, 2, 3, note_mutation, &seen), 0);
	cr_assert_str_eq(seen.data, "3-x ");
	kv_close(kv);
	free_temp_dir(dir);
}

Test(kv, refuses_updates_after_a_failed_sync)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, NEVER);

	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(kv_sync(kv), 0);
	cr_assert_eq(put(kv, "b", "2"), 0);
	atomic_store(&sync_fails, true);
	cr_assert_eq(kv_sync(kv), -EIO);
	atomic_store(&sync_fails, false);
	cr_assert_eq(put(kv, "c", "3"), -EIO);
	cr_assert_eq(kv_sync(kv), -EIO);
	expect(kv, "b", "2");
	kv_close(kv);
	kv = must_open(dir, NEVER);
	expect(kv, "a", "1");
	expect(kv, "b", "2");
	expect(kv, "c", NULL);
	cr_assert_eq(put(kv, "c", "3"), 0);
	kv_close(kv);
	free_temp_dir(dir);
}

/* --- recovery ------------------------------------------------------------------------------------------ */

Test(kv, replays_what_lmdb_has_not)
{
	char *dir = make_temp_dir(), *data = path_join(dir, "data.mdb");
	AUTO_BUF old = BUF_INIT;
	struct kv *kv = must_open(dir, NEVER);

	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(put(kv, "gone", "1"), 0);
	kv_close(kv);
	read_whole(data, &old);
	kv = must_open(dir, NEVER);
	cr_assert_eq(put(kv, "a", "2"), 0);
	cr_assert_eq(put(kv, "gone", NULL), 0);
	cr_assert_eq(put(kv, "b", "1"), 0);
	kv_close(kv);
	write_whole(data, old.data, old.len); /* LMDB goes back in time; its log has two records more than it knows */
	kv = must_open(dir, NEVER);
	cr_assert_eq(kv_number(kv), 5);
	expect(kv, "a", "2");
	expect(kv, "gone", NULL);
	expect(kv, "b", "1");
	kv_close(kv);
	cr_assert_eq(unlink(data), 0);
	kv = must_open(dir, NEVER);
	expect_scan(kv, (struct scan){.from = "", .to = "z"}, "a=2 b=1 ");
	kv_close(kv);
	free(data);
	free_temp_dir(dir);
}

Test(kv, numbers_go_on_when_the_log_is_lost)
{
	char *dir = make_temp_dir(), *path[1];
	struct kv *kv = must_open(dir, NEVER);

	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(put(kv, "b", "1"), 0);
	kv_close(kv);
	cr_assert_eq(list_logs(dir, path, 1), 1);
	cr_assert_eq(unlink(path[0]), 0);
	free(path[0]);
	kv = must_open(dir, NEVER);
	cr_assert_eq(kv_number(kv), 2);
	cr_assert_eq(put(kv, "c", "1"), 0);
	cr_assert_eq(kv_number(kv), 3);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	expect_scan(kv, (struct scan){.from = "", .to = "z"}, "a=1 b=1 c=1 ");
	kv_close(kv);
	free_temp_dir(dir);
}

/* As a power cut may leave it: the last record torn at any byte. The state is whole and one update older. */
Test(kv, a_torn_log_costs_the_last_update_only, .timeout = 300)
{
	char *dir = make_temp_dir(), *live = path_join(dir, "live"), *work = path_join(dir, "work"), *path[1];
	struct pair first[] = {{"left", "1"}, {"right", "1"}}, second[] = {{"left", "2"}, {"right", "2"}};
	struct writes writes = {.pairs = first, .count = 2};
	struct kv *kv = must_open(live, NEVER);
	off_t one, two;

	cr_assert_eq(kv_update(kv, do_writes, &writes), 0);
	cr_assert_eq(list_logs(live, path, 1), 1);
	one = size_of(path[0]);
	writes.pairs = second;
	cr_assert_eq(kv_update(kv, do_writes, &writes), 0);
	two = size_of(path[0]);
	free(path[0]);
	for (off_t at = one; at <= two; at++) {
		remove_tree(work);
		copy_dir(live, work);
		cr_assert_eq(list_logs(work, path, 1), 1);
		cr_assert_eq(truncate(path[0], at), 0);
		free(path[0]);
		struct kv *torn = must_open(work, NEVER);
		cr_assert_eq(kv_number(torn), at == two ? 2 : 1);
		expect(torn, "left", at == two ? "2" : "1");
		expect(torn, "right", at == two ? "2" : "1");
		kv_close(torn);
	}
	kv_close(kv);
	free(live);
	free(work);
	free_temp_dir(dir);
}

static int put_numbered(struct kv_txn *txn, void *arg)
{
	uint64_t number = *(uint64_t *)arg;
	char key[32], value[32];
	int rc;

	snprintf(value, sizeof(value), "%lu", number);
	snprintf(key, sizeof(key), "n%010lu", number);
	rc = kv_put(txn, bytes_of("head"), bytes_of(value));
	if (!rc)
		rc = kv_put(txn, bytes_of(key), bytes_of(value));
	snprintf(key, sizeof(key), "t%010lu", number - 1); /* a trail of one: deletes the one before */
	if (!rc)
		rc = kv_delete(txn, bytes_of(key));
	snprintf(key, sizeof(key), "t%010lu", number);
	if (!rc)
		rc = kv_put(txn, bytes_of(key), bytes_of(value));
	if (!rc)
		rc = kv_put(txn, bytes_of("tail"), bytes_of(value));
	return rc;
}

static void update_until_killed(const char *dir, int pipe_fd)
{
	struct kv_options options = {.fold_interval_ns = NS_PER_MS, .log_segment_size = 64 << 10};
	struct kv *kv;

	if (kv_open(dir, &options, &kv))
		_exit(1);
	for (uint64_t number = kv_number(kv) + 1;; number++) {
		if (kv_update(kv, put_numbered, &number))
			_exit(2);
		if (number % 64 == 0)
			kv_log_release(kv, number);
		if (write(pipe_fd, &number, sizeof(number)) != sizeof(number))
			_exit(3);
	}
}

struct numbered {
	uint64_t count, last;
	char prefix;
};

static int count_numbered(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct numbered *numbered = arg;
	char want[32];

	numbered->count++;
	numbered->last++;
	if (numbered->prefix == 'n') {
		snprintf(want, sizeof(want), "n%010lu", numbered->last);
		cr_assert_eq(kv_compare_string(key, want), 0);
		snprintf(want, sizeof(want), "%lu", numbered->last);
		cr_assert_eq(kv_compare_string(value, want), 0);
	}
	return 0;
}

static int check_numbered(struct kv_txn *txn, void *arg)
{
	uint64_t number = *(uint64_t *)arg;
	struct numbered all = {.prefix = 'n'}, trail = {.prefix = 't'};
	struct kv_bytes head, tail;
	char want[32];

	if (number) {
		snprintf(want, sizeof(want), "%lu", number);
		cr_assert_eq(kv_get(txn, bytes_of("head"), &head), 0);
		cr_assert_eq(kv_get(txn, bytes_of("tail"), &tail), 0);
		cr_assert_eq(kv_compare_string(head, want), 0);
		cr_assert_eq(kv_compare_string(tail, want), 0);
	}
	cr_assert_eq(kv_scan(txn, bytes_of("n"), bytes_of("o"), KV_FORWARD, 0, count_numbered, &all), 0);
	cr_assert_eq(all.count, number, "every update up to the last is there, and none after it");
	cr_assert_eq(kv_scan(txn, bytes_of("t0"), bytes_of("t:"), KV_FORWARD, 0, count_numbered, &trail), 0);
	cr_assert_eq(trail.count, number ? 1 : 0);
	return 0;
}

Test(kv, kill_9_loses_nothing_acknowledged, .timeout = 300)
{
	char *dir = make_temp_dir();
	uint64_t random = (uint64_t)clock_wall() | 1, seed = random, acknowledged = 0, number;

	for (int round = 0; round < 40; round++) {
		int fds[2], status;
		pid_t child;
		struct kv *kv;

		cr_assert_eq(pipe(fds), 0);
		cr_assert_eq(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) > 0, 1);
		child = fork();
		if (child == 0) {
			close(fds[0]);
			update_until_killed(dir, fds[1]);
		}
		close(fds[1]);
		cr_assert_eq(read(fds[0], &acknowledged, sizeof(acknowledged)), (ssize_t)sizeof(acknowledged));
		usleep((useconds_t)(next_random(&random) % 60000));
		kill(child, SIGKILL);
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_assert(WIFSIGNALED(status), "the child failed by itself: %x (seed %lu)", status, seed);
		while (read(fds[0], &number, sizeof(number)) == sizeof(number))
			acknowledged = number;
		close(fds[0]);
		kv = must_open(dir, NEVER);
		number = kv_number(kv);
		cr_assert_geq(number, acknowledged, "seed %lu", seed);
		cr_assert_leq(number, acknowledged + 1, "seed %lu", seed);
		cr_assert_eq(kv_view(kv, check_numbered, &number), 0);
		kv_close(kv);
		acknowledged = number;
	}
	free_temp_dir(dir);
}

/* --- full disks ------------------------------------------------------------------------------------------- */

static void limit_files(rlim_t size)
{
	struct rlimit limit = {.rlim_cur = size, .rlim_max = RLIM_INFINITY};

	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(kv, a_full_disk_fails_the_update_only)
{
	char *dir = make_temp_dir(), *path[1], value[2001];
	struct kv *kv = must_open(dir, NEVER);

	memset(value, 'v', 2000);
	value[2000] = '\0';
	cr_assert_eq(put(kv, "a", "1"), 0);
	cr_assert_eq(list_logs(dir, path, 1), 1);
	limit_files((rlim_t)size_of(path[0]) + 1000);
	cr_assert_eq(put(kv, "b", value), -ENOSPC);
	cr_assert_eq(put(kv, "b", value), -ENOSPC);
	expect(kv, "b", NULL);
	cr_assert_eq(put(kv, "c", "fits"), 0);
	expect(kv, "c", "fits");
	cr_assert_eq(kv_number(kv), 2);
	limit_files(RLIM_INFINITY);
	cr_assert_eq(put(kv, "b", "now"), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	expect_scan(kv, (struct scan){.from = "", .to = "z"}, "a=1 b=now c=fits ");
	kv_close(kv);
	free(path[0]);
	free_temp_dir(dir);
}

static int put_large(struct kv_txn *txn, void *arg)
{
	unsigned n = *(unsigned *)arg;
	struct kv_bytes value = {.len = 100000, .data = calloc(1, 100000)};
	char key[16];
	int rc;

	snprintf(key, sizeof(key), "%08u", n);
	memcpy((void *)value.data, key, 9);
	rc = kv_put(txn, bytes_of(key), value);
	free((void *)value.data);
	return rc;
}

static int count_large(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	cr_assert_eq(value.len, 100000);
	cr_assert_eq(memcmp(key.data, value.data, key.len), 0);
	++*(unsigned *)arg;
	return 0;
}

static int scan_large(struct kv_txn *txn, void *arg)
{
	*(unsigned *)arg = 0;
	return kv_scan(txn, bytes_of("0"), bytes_of("9"), KV_FORWARD, 0, count_large, arg);
}

/* The log's files stay below the limit, LMDB's does not: folding fails, memory fills, and then updates are refused
 * rather than kept waiting. With room again everything goes on. */
Test(kv, refuses_updates_when_it_cannot_fold, .timeout = 120)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1);
	unsigned n, rows;
	int rc;

	limit_files(1 << 20);
	for (n = 0; n < 2000; n++) {
		rc = kv_update(kv, put_large, &n);
		if (rc)
			break;
	}
	cr_assert(rc == -ENOSPC || rc == -EIO, "%d", rc); /* LMDB calls a short write EIO */
	cr_assert(n > 50 && n < 1000, "bounded memory: %u", n);
	cr_assert_eq(kv_view(kv, scan_large, &rows), 0);
	cr_assert_eq(rows, n);
	limit_files(RLIM_INFINITY);
	while ((rc = kv_update(kv, put_large, &n)) == -ENOSPC || rc == -EIO)
		usleep(10000);
	cr_assert_eq(rc, 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(kv_view(kv, scan_large, &rows), 0);
	cr_assert_eq(rows, n + 1);
	kv_close(kv);
	free_temp_dir(dir);
}

/* --- growth and threads -------------------------------------------------------------------------------------- */

struct readers {
	struct kv *kv;
	_Atomic bool stop;
	_Atomic uint64_t rounds, wrong;
	_Atomic unsigned least; /* rows that must be there */
};

static void *read_large(void *arg)
{
	struct readers *readers = arg;
	unsigned rows;

	while (!atomic_load(&readers->stop)) {
		unsigned least = atomic_load(&readers->least);

		if (kv_view(readers->kv, scan_large, &rows) || rows < least)
			atomic_fetch_add(&readers->wrong, 1);
		atomic_fetch_add(&readers->rounds, 1);
	}
	return NULL;
}

Test(kv, the_map_grows_beside_readers, .timeout = 300)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1);
	struct readers readers = {.kv = kv};
	struct kv_figures before, after;
	pthread_t threads[2];
	unsigned rows;

	kv_figures(kv, &before);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_large, &readers), 0);
	for (unsigned n = 0; n < 800; n++) {
		cr_assert_eq(kv_update(kv, put_large, &n), 0);
		atomic_store(&readers.least, n + 1);
		kv_log_release(kv, n);
	}
	while (atomic_load(&readers.rounds) < 10)
		usleep(1000);
	atomic_store(&readers.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(atomic_load(&readers.wrong), 0);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	kv_figures(kv, &after);
	cr_assert_geq(after.map_bytes, 80000000);
	cr_assert_gt(after.map_bytes, before.map_bytes);
	cr_assert_eq(kv_view(kv, scan_large, &rows), 0);
	cr_assert_eq(rows, 800);
	kv_close(kv);
	free_temp_dir(dir);
}

#define SWAP_KEYS 16

static int swap_two(struct kv_txn *txn, void *arg)
{
	uint64_t *random = arg;
	char left[8], right[8], values[2][8];
	struct kv_bytes value;

	snprintf(left, sizeof(left), "s%02lu", next_random(random) % SWAP_KEYS);
	snprintf(right, sizeof(right), "s%02lu", next_random(random) % SWAP_KEYS);
	cr_assert_eq(kv_get(txn, bytes_of(left), &value), 0);
	snprintf(values[0], 8, "%.*s", (int)value.len, (const char *)value.data);
	cr_assert_eq(kv_get(txn, bytes_of(right), &value), 0);
	snprintf(values[1], 8, "%.*s", (int)value.len, (const char *)value.data);
	if (strcmp(left, right) == 0)
		return 0;
	/* Now and then a key is away for the length of an update; never for a reader. */
	cr_assert_eq(kv_delete(txn, bytes_of(left)), 0);
	cr_assert_eq(kv_put(txn, bytes_of(left), bytes_of(values[1])), 0);
	return kv_put(txn, bytes_of(right), bytes_of(values[0]));
}

struct swapped {
	unsigned seen;
	unsigned count;
};

static int note_swapped(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct swapped *swapped = arg;

	(void)key;
	swapped->seen |= 1u << (((const char *)value.data)[0] - 'a');
	swapped->count++;
	return 0;
}

static int check_swapped(struct kv_txn *txn, void *arg)
{
	for (int i = 0; i < 4; i++) {
		struct swapped swapped = {0};
		int rc = kv_scan(txn, bytes_of("s"), bytes_of("t"), i % 2 ? KV_FORWARD : KV_BACKWARD, 0, note_swapped,
				 &swapped);
		if (rc)
			return rc;
		if (swapped.count != SWAP_KEYS || swapped.seen != (1u << SWAP_KEYS) - 1)
			return -EILSEQ;
	}
	(void)arg;
	return 0;
}

static void *read_swapped(void *arg)
{
	struct readers *readers = arg;

	while (!atomic_load(&readers->stop)) {
		if (kv_view(readers->kv, check_swapped, NULL))
			atomic_fetch_add(&readers->wrong, 1);
		atomic_fetch_add(&readers->rounds, 1);
	}
	return NULL;
}

Test(kv, readers_never_see_half_an_update, .timeout = 120)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1); /* folds without a pause */
	struct readers readers = {.kv = kv};
	uint64_t random = 99;
	pthread_t threads[3];

	for (unsigned i = 0; i < SWAP_KEYS; i++) {
		char key[16], value[2] = {(char)('a' + i), '\0'};

		snprintf(key, sizeof(key), "s%02u", i);
		cr_assert_eq(put(kv, key, value), 0);
	}
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_swapped, &readers), 0);
	for (int i = 0; i < 20000 || atomic_load(&readers.rounds) < 300 || folds(kv) <= 5; i++)
		cr_assert_eq(kv_update(kv, swap_two, &random), 0);
	atomic_store(&readers.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(atomic_load(&readers.wrong), 0, "%lu of %lu", readers.wrong, readers.rounds);
	kv_close(kv);
	kv = must_open(dir, NEVER);
	cr_assert_eq(kv_view(kv, check_swapped, NULL), 0);
	kv_close(kv);
	free_temp_dir(dir);
}

static void *put_and_fold(void *arg)
{
	struct kv *kv = arg;
	uint64_t before = folds(kv);

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(put(kv, "k", "new"), 0);
		cr_assert_eq(put(kv, "other", "new"), 0);
		while (folds(kv) == before)
			usleep(1000);
		before = folds(kv);
	}
	return NULL;
}

/* The whole of another thread's life happens inside this view. */
static int look_twice(struct kv_txn *txn, void *arg)
{
	struct scan scan = {.from = "", .to = "z", .seen = {.rows = BUF_INIT}};
	struct kv_bytes value;
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, put_and_fold, arg), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(kv_get(txn, bytes_of("k"), &value), 0);
	cr_assert_eq(value.len, 3);
	cr_assert_eq(memcmp(value.data, "old", 3), 0);
	cr_assert_eq(kv_get(txn, bytes_of("other"), &value), -ENOENT);
	cr_assert_eq(do_scan(txn, &scan), 0);
	cr_assert_str_eq(scan.seen.rows.data, "k=old ");
	buf_free(&scan.seen.rows);
	return 0;
}

Test(kv, a_view_stays_as_it_was_over_updates_and_folds, .timeout = 60)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1);

	cr_assert_eq(put(kv, "k", "old"), 0);
	cr_assert_eq(kv_view(kv, look_twice, kv), 0);
	expect(kv, "k", "new");
	expect(kv, "other", "new");
	kv_close(kv);
	free_temp_dir(dir);
}

static int add_one(struct kv_txn *txn, void *arg)
{
	struct kv_bytes value;
	char text[24];
	long count = 0;

	(void)arg;
	if (kv_get(txn, bytes_of("count"), &value) == 0) {
		snprintf(text, sizeof(text), "%.*s", (int)value.len, (const char *)value.data);
		count = strtol(text, NULL, 10);
	}
	snprintf(text, sizeof(text), "%ld", count + 1);
	return kv_put(txn, bytes_of("count"), bytes_of(text));
}

static void *add_many(void *arg)
{
	for (int i = 0; i < 500; i++) {
		cr_assert_eq(kv_update(arg, add_one, NULL), 0);
		if (i % 50 == 0)
			cr_assert_eq(kv_sync(arg), 0);
	}
	return NULL;
}

Test(kv, updates_are_serialised, .timeout = 60)
{
	char *dir = make_temp_dir();
	struct kv *kv = must_open(dir, 1);
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, add_many, kv), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	expect(kv, "count", "2000");
	cr_assert_eq(kv_number(kv), 2000);
	kv_close(kv);
	free_temp_dir(dir);
}

/* --- the model ------------------------------------------------------------------------------------------------ */

#define MODEL_KEYS 300

struct model {
	uint32_t values[MODEL_KEYS]; /* 0: absent */
};

struct batch {
	struct model *model, draft;
	uint64_t *random;
	int result;
};

static void model_key(unsigned n, char ret_key[static 16])
{
	snprintf(ret_key, 16, n % 3 ? "k%03u" : "k%03u.x", n); /* lengths differ, order is by n */
}

struct model_scan {
	const struct model *model;
	unsigned at, end; /* next n to come, exclusive end; backward: at counts down */
	int step;
};

static int check_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	struct model_scan *scan = arg;
	char want[16];

	while (scan->at != scan->end && !scan->model->values[scan->at])
		scan->at += (unsigned)scan->step;
	cr_assert_neq(scan->at, scan->end, "a row too many");
	model_key(scan->at, want);
	cr_assert_eq(kv_compare_string(key, want), 0);
	snprintf(want, sizeof(want), "%u", scan->model->values[scan->at]);
	cr_assert_eq(kv_compare_string(value, want), 0);
	scan->at += (unsigned)scan->step;
	return 0;
}

static void check_range(struct kv_txn *txn, const struct model *model, uint64_t *random)
{
	unsigned from = (unsigned)(next_random(random) % MODEL_KEYS), to = (unsigned)(next_random(random) % MODEL_KEYS);
	bool backward = next_random(random) % 2;
	struct model_scan scan = {.model = model, .at = from, .end = to, .step = 1};
	char from_key[16], to_key[16];

	if (from >= to)
		return;
	if (backward)
		scan = (struct model_scan){.model = model, .at = to - 1, .end = from - 1, .step = -1};
	model_key(from, from_key);
	model_key(to, to_key);
	cr_assert_eq(kv_scan(txn, bytes_of(from_key), bytes_of(to_key), backward ? KV_BACKWARD : KV_FORWARD, 0,
			     check_row, &scan),
		     0);
	for (; scan.at != scan.end; scan.at += (unsigned)scan.step)
		cr_assert_eq(model->values[scan.at], 0, "a row too few");
}

static int check_model(struct kv_txn *txn, void *arg)
{
	struct batch *batch = arg;

	for (int i = 0; i < 5; i++)
		check_range(txn, batch->model, batch->random);
	for (int i = 0; i < 20; i++) {
		unsigned n = (unsigned)(next_random(batch->random) % MODEL_KEYS);
		struct kv_bytes value;
		char key[16], want[16];
		int rc;

		model_key(n, key);
		rc = kv_get(txn, bytes_of(key), &value);
		cr_assert_eq(rc, batch->model->values[n] ? 0 : -ENOENT);
		snprintf(want, sizeof(want), "%u", batch->model->values[n]);
		cr_assert(rc || kv_compare_string(value, want) == 0);
	}
	return 0;
}

static int change_model(struct kv_txn *txn, void *arg)
{
	struct batch *batch = arg;
	unsigned count = (unsigned)(next_random(batch->random) % 30);

	batch->draft = *batch->model;
	for (unsigned i = 0; i < count; i++) {
		unsigned n = (unsigned)(next_random(batch->random) % MODEL_KEYS);
		uint32_t value = next_random(batch->random) % 3 ? (uint32_t)next_random(batch->random) | 1 : 0;
		char key[16], text[16];

		model_key(n, key);
		snprintf(text, sizeof(text), "%u", value);
		cr_assert_eq(value ? kv_put(txn, bytes_of(key), bytes_of(text)) : kv_delete(txn, bytes_of(key)), 0);
		batch->draft.values[n] = value;
	}
	check_range(txn, &batch->draft, batch->random);
	return batch->result;
}

Test(kv, agrees_with_a_model, .timeout = 300)
{
	static const int64_t intervals[] = {1, NEVER, 2 * NS_PER_MS};
	char *dir = make_temp_dir();
	uint64_t random = (uint64_t)clock_wall() | 1;
	struct model model = {0};
	struct batch batch = {.model = &model, .random = &random};
	uint64_t number = 0;

	fprintf(stderr, "seed %lu\n", random); /* to run a failure again */
	for (int round = 0; round < 12; round++) {
		struct kv *kv = must_open(dir, intervals[round % 3]);

		cr_assert_eq(kv_number(kv), number);
		cr_assert_eq(kv_view(kv, check_model, &batch), 0);
		for (int i = 0; i < 400; i++) {
			batch.result = next_random(&random) % 8 ? 0 : -ECANCELED;
			cr_assert_eq(kv_update(kv, change_model, &batch), batch.result);
			if (!batch.result)
				model = batch.draft;
			cr_assert_eq(kv_view(kv, check_model, &batch), 0);
		}
		number = kv_number(kv);
		kv_close(kv);
	}
	free_temp_dir(dir);
}
