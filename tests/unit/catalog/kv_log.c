/* Tests of the redo log: replay, torn tails, damage, full disks, failed syncs, retention. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "catalog/kv_log.h"
#include "kv_support.h"

/* The archive's calls come here: a sync that fails, or counts, on demand. */
static _Atomic bool sync_fails;
static _Atomic unsigned sync_count;
static _Atomic unsigned sync_delay_us;

int fdatasync(int fd)
{
	atomic_fetch_add(&sync_count, 1);
	if (atomic_load(&sync_delay_us))
		usleep(atomic_load(&sync_delay_us));
	if (atomic_load(&sync_fails)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

struct fixture {
	char *dir;
	int dir_fd;
	struct kvlog_options options;
	struct kvlog *log;
	struct buf seen; /* "number:key=value " or "number:-key " of what was replayed or visited */
};

static int see(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	struct buf *seen = arg;

	buf_addf(seen, "%lu:%s%.*s", number, value ? "" : "-", (int)key.len, (const char *)key.data);
	if (value)
		buf_addf(seen, "=%.*s", (int)value->len, (const char *)value->data);
	buf_addc(seen, ' ');
	return 0;
}

static void setup_fixture(struct fixture *fixture)
{
	*fixture = (struct fixture){.dir = make_temp_dir(), .seen = BUF_INIT};
	fixture->dir_fd = open(fixture->dir, O_RDONLY | O_DIRECTORY);
	cr_assert(fixture->dir_fd >= 0);
	fixture->options = (struct kvlog_options){
		.dir_fd = fixture->dir_fd, .segment_size = 1 << 20, .replay = see, .arg = &fixture->seen};
}

static void teardown_fixture(struct fixture *fixture)
{
	kvlog_close(fixture->log);
	close(fixture->dir_fd);
	buf_free(&fixture->seen);
	free_temp_dir(fixture->dir);
}

static int reopen(struct fixture *fixture)
{
	kvlog_close(fixture->log);
	fixture->log = NULL;
	buf_reset(&fixture->seen);
	return kvlog_open(&fixture->options, &fixture->log);
}

/* One put of key -> value (deleted when NULL). */
static int append(struct kvlog *log, const char *key, const char *value)
{
	struct kv_bytes bytes = bytes_of(value ? value : "");
	AUTO_BUF record = BUF_INIT;

	kvlog_record_begin(&record);
	kvlog_record_add(&record, bytes_of(key), value ? &bytes : NULL);
	return kvlog_append(log, &record);
}

static void append_many(struct kvlog *log, unsigned count)
{
	char value[256];

	memset(value, 'v', sizeof(value));
	value[255] = '\0';
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(append(log, "key", value), 0);
}

static int each(struct fixture *fixture, uint64_t after, uint64_t upto)
{
	buf_reset(&fixture->seen);
	return kvlog_each(fixture->log, after, upto, see, &fixture->seen);
}

Test(kv_log, replays_what_was_appended_in_order)
{
	struct fixture f;
	struct kv_bytes value = bytes_of("2"), empty = {.data = "", .len = 0};
	AUTO_BUF record = BUF_INIT;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "1"), 0);
	kvlog_record_begin(&record);
	kvlog_record_add(&record, bytes_of("b"), &value);
	kvlog_record_add(&record, bytes_of("c"), NULL);
	kvlog_record_add(&record, bytes_of("d"), &empty);
	cr_assert_eq(kvlog_append(f.log, &record), 0);
	cr_assert_eq(kvlog_number(f.log), 2);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=1 2:b=2 2:-c 2:d= ");
	cr_assert_eq(kvlog_number(f.log), 2);
	f.options.folded = 1;
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "2:b=2 2:-c 2:d= ");
	cr_assert_eq(append(f.log, "e", "3"), 0);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "2:b=2 2:-c 2:d= 3:e=3 ");
	teardown_fixture(&f);
}

/* Whatever is left of the last record, the ones before it stay and the log goes on from there. */
static void check_tail(struct fixture *f, const char *path, const struct buf *bytes, const char *what)
{
	write_whole(path, bytes->data, bytes->len);
	cr_assert_eq(reopen(f), 0, "%s", what);
	cr_assert_str_eq(f->seen.data, "1:a=one 2:b=two ", "%s: %s", what, f->seen.data);
	cr_assert_eq(append(f->log, "n", "new"), 0);
	cr_assert_eq(reopen(f), 0, "%s", what);
	cr_assert_str_eq(f->seen.data, "1:a=one 2:b=two 3:n=new ", "%s: %s", what, f->seen.data);
}

Test(kv_log, drops_a_torn_tail_wherever_it_is_torn, .timeout = 120)
{
	struct fixture f;
	AUTO_BUF whole = BUF_INIT;
	AUTO_BUF damaged = BUF_INIT;
	char *path[1], what[64];
	off_t two;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "one"), 0);
	cr_assert_eq(append(f.log, "b", "two"), 0);
	cr_assert_eq(list_logs(f.dir, path, 1), 1);
	two = size_of(path[0]);
	cr_assert_eq(append(f.log, "c", "three"), 0);
	kvlog_close(f.log);
	f.log = NULL;
	read_whole(path[0], &whole);
	for (size_t at = (size_t)two; at < whole.len; at++) {
		buf_reset(&damaged);
		buf_add(&damaged, whole.data, at);
		snprintf(what, sizeof(what), "cut at %zu", at);
		check_tail(&f, path[0], &damaged, what);
		buf_add(&damaged, whole.data + at, whole.len - at);
		damaged.data[at] ^= (char)(1 << (at % 8));
		snprintf(what, sizeof(what), "flipped at %zu", at);
		check_tail(&f, path[0], &damaged, what);
		memset(damaged.data + at, 0, damaged.len - at); /* a file that grew before its data arrived */
		buf_add(&damaged, "\0\0\0\0\0\0\0\0", 8);
		snprintf(what, sizeof(what), "zeros from %zu", at);
		check_tail(&f, path[0], &damaged, what);
	}
	free(path[0]);
	teardown_fixture(&f);
}

Test(kv_log, leaves_a_torn_tail_alone_when_read_only)
{
	struct fixture f;
	char *path[1];
	off_t size;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "one"), 0);
	cr_assert_eq(append(f.log, "b", "two"), 0);
	cr_assert_eq(list_logs(f.dir, path, 1), 1);
	size = size_of(path[0]) - 1;
	cr_assert_eq(truncate(path[0], size), 0);
	f.options.read_only = true;
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=one ");
	cr_assert_eq(size_of(path[0]), size);
	free(path[0]);
	teardown_fixture(&f);
}

Test(kv_log, reports_damage_before_the_last_file)
{
	struct fixture f;
	AUTO_BUF bytes = BUF_INIT;
	char *paths[8];
	size_t count;

	setup_fixture(&f);
	f.options.segment_size = 2000;
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 20);
	count = list_logs(f.dir, paths, 8);
	cr_assert_geq(count, 3);
	kvlog_close(f.log);
	f.log = NULL;
	read_whole(paths[1], &bytes);
	bytes.data[bytes.len - 1] ^= 1;
	write_whole(paths[1], bytes.data, bytes.len);
	cr_assert_eq(reopen(&f), -EBADMSG);
	bytes.data[bytes.len - 1] ^= 1;
	write_whole(paths[1], bytes.data, bytes.len - 3);
	cr_assert_eq(reopen(&f), -EBADMSG);
	cr_assert_eq(unlink(paths[1]), 0);
	cr_assert_eq(reopen(&f), -EBADMSG);
	write_whole(paths[1], bytes.data, bytes.len);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(kvlog_number(f.log), 20);
	/* Damage in what is folded needs no replay, and does not keep anybody from opening. */
	bytes.data[bytes.len - 1] ^= 1;
	write_whole(paths[0], bytes.data, bytes.len);
	f.options.folded = 20;
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(each(&f, 0, 20), -EBADMSG);
	cr_assert_eq(unlink(paths[0]), 0);
	f.options.folded = 0;
	cr_assert_eq(reopen(&f), -EBADMSG, "the first records are gone");
	for (size_t i = 0; i < count; i++)
		free(paths[i]);
	teardown_fixture(&f);
}

Test(kv_log, forgets_a_last_file_without_header)
{
	struct fixture f;
	char *path;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "one"), 0);
	path = path_join(f.dir, "redo-0000000000000002.log");
	write_whole(path, "varve", 5);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=one ");
	cr_assert_eq(access(path, F_OK), -1);
	cr_assert_eq(append(f.log, "b", "two"), 0);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=one 2:b=two ");
	free(path);
	teardown_fixture(&f);
}

Test(kv_log, refuses_the_files_of_a_newer_format)
{
	struct fixture f;
	AUTO_BUF bytes = BUF_INIT;
	char *path[1];

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "one"), 0);
	cr_assert_eq(list_logs(f.dir, path, 1), 1);
	read_whole(path[0], &bytes);
	bytes.data[11]++;
	write_whole(path[0], bytes.data, bytes.len);
	cr_assert_eq(reopen(&f), -EPROTO);
	free(path[0]);
	teardown_fixture(&f);
}

/* The folded store is synced by itself: after a power cut it may know more than the log. */
Test(kv_log, goes_on_after_what_is_folded_when_the_log_lost_its_tail)
{
	struct fixture f;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 3);
	f.options.folded = 7;
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(kvlog_number(f.log), 7);
	cr_assert_str_eq(f.seen.data, "");
	cr_assert_eq(append(f.log, "x", "8"), 0);
	cr_assert_eq(each(&f, 6, 8), -ESTALE);
	cr_assert_eq(each(&f, 7, 8), 0);
	cr_assert_str_eq(f.seen.data, "8:x=8 ");
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "8:x=8 ");
	teardown_fixture(&f);
}

Test(kv_log, each_visits_exactly_the_range)
{
	struct fixture f;
	char key[16], want[64];

	setup_fixture(&f);
	f.options.segment_size = 200;
	cr_assert_eq(reopen(&f), 0);
	for (unsigned i = 1; i <= 50; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		cr_assert_eq(append(f.log, key, i % 2 ? "v" : NULL), 0);
	}
	for (uint64_t after = 0; after < 50; after++) {
		cr_assert_eq(each(&f, after, after + 1), 0);
		snprintf(want, sizeof(want), after % 2 ? "%lu:-k%lu " : "%lu:k%lu=v ", after + 1, after + 1);
		cr_assert_str_eq(f.seen.data, want);
	}
	/* Back again, so that the place noted for the next one is of no use. */
	cr_assert_eq(each(&f, 10, 13), 0);
	cr_assert_str_eq(f.seen.data, "11:k11=v 12:-k12 13:k13=v ");
	cr_assert_eq(each(&f, 48, 1000), 0);
	cr_assert_str_eq(f.seen.data, "49:k49=v 50:-k50 ");
	cr_assert_eq(each(&f, 50, 1000), 0);
	cr_assert_eq(each(&f, 5, 5), 0);
	cr_assert_str_eq(f.seen.data, "");
	cr_assert_eq(each(&f, 51, 1000), -ESTALE, "a cursor from a future that was lost");
	teardown_fixture(&f);
}

static int stop_at_once(void *arg, uint64_t number, struct kv_bytes key, const struct kv_bytes *value)
{
	(void)number;
	(void)key;
	(void)value;
	return *(int *)arg;
}

Test(kv_log, each_returns_what_the_visitor_returned)
{
	struct fixture f;
	int codes[] = {7, -ENODATA, -EBADMSG};

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 2);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(kvlog_each(f.log, 0, 2, stop_at_once, &codes[i]), codes[i]);
	teardown_fixture(&f);
}

Test(kv_log, keeps_files_until_folded_and_released)
{
	struct fixture f;
	size_t all, left;

	setup_fixture(&f);
	f.options.segment_size = 1000;
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 40);
	all = count_logs(f.dir);
	cr_assert_geq(all, 8);
	kvlog_release(f.log, 40);
	cr_assert_eq(count_logs(f.dir), all, "released, but nothing folded");
	kvlog_folded(f.log, 20);
	left = count_logs(f.dir);
	cr_assert(left < all && left > all / 3);
	cr_assert_eq(each(&f, 20, 40), 0);
	cr_assert_eq(each(&f, 0, 40), -ESTALE);
	kvlog_folded(f.log, 40);
	cr_assert_eq(count_logs(f.dir), 1, "the last one stays");
	f.options.folded = 40;
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(kvlog_number(f.log), 40);
	append_many(f.log, 40);
	kvlog_folded(f.log, 80);
	cr_assert_geq(count_logs(f.dir), 8, "folded, but never released");
	teardown_fixture(&f);
}

Test(kv_log, is_bounded_when_nobody_releases)
{
	struct fixture f;
	uint64_t bytes, syncs;
	struct stat st;

	setup_fixture(&f);
	f.options.segment_size = 1000;
	f.options.keep_size = 5000;
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 100);
	kvlog_figures(f.log, &bytes, &syncs);
	cr_assert_gt(bytes, 20000, "what is not folded is kept whatever its size");
	kvlog_folded(f.log, 100);
	kvlog_figures(f.log, &bytes, &syncs);
	cr_assert_leq(bytes, 5000);
	cr_assert_gt(bytes, 3000);
	cr_assert_eq(each(&f, 0, 100), -ESTALE);
	cr_assert_eq(fstat(f.dir_fd, &st), 0);
	teardown_fixture(&f);
}

/* The limit stands for a full disk: a short write, then an error. */
Test(kv_log, takes_a_short_write_back, .timeout = 60)
{
	struct fixture f;
	struct rlimit limit = {.rlim_max = RLIM_INFINITY};
	char *path[1], value[101];
	off_t size;

	memset(value, 'w', 100);
	value[100] = '\0';
	setup_fixture(&f);
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "one"), 0);
	cr_assert_eq(list_logs(f.dir, path, 1), 1);
	size = size_of(path[0]);
	for (off_t room = 0; room < 120; room += 7) {
		limit.rlim_cur = (rlim_t)(size + room);
		cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
		cr_assert_eq(append(f.log, "b", value), -ENOSPC);
		cr_assert_eq(size_of(path[0]), size, "the half record is gone");
		cr_assert_eq(kvlog_number(f.log), 1);
	}
	limit.rlim_cur = RLIM_INFINITY;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(append(f.log, "b", "two"), 0);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=one 2:b=two ");
	free(path[0]);
	teardown_fixture(&f);
}

/* No room for a new file's header: the old one grows on. */
Test(kv_log, stays_in_the_old_file_when_no_new_one_can_be_made)
{
	struct fixture f;

	setup_fixture(&f);
	f.options.segment_size = 100;
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 1);
	/* Something that is in the way of the next name and cannot be opened for writing. */
	cr_assert_eq(mkdirat(f.dir_fd, "redo-0000000000000002.log", 0700), 0);
	append_many(f.log, 1);
	cr_assert_eq(kvlog_number(f.log), 2);
	cr_assert_eq(unlinkat(f.dir_fd, "redo-0000000000000002.log", AT_REMOVEDIR), 0);
	append_many(f.log, 1);
	cr_assert_eq(count_logs(f.dir), 2);
	cr_assert_eq(each(&f, 0, 3), 0);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(kvlog_number(f.log), 3);
	teardown_fixture(&f);
}

Test(kv_log, refuses_a_record_that_is_too_long)
{
	struct fixture f;
	struct kv_bytes value = {.len = 16 << 20};
	AUTO_BUF record = BUF_INIT;

	setup_fixture(&f);
	value.data = calloc(1, value.len);
	cr_assert_eq(reopen(&f), 0);
	kvlog_record_begin(&record);
	for (int i = 0; i < 17; i++)
		kvlog_record_add(&record, bytes_of("k"), &value);
	cr_assert_eq(kvlog_append(f.log, &record), -E2BIG);
	cr_assert_eq(append(f.log, "a", "1"), 0);
	cr_assert_eq(kvlog_number(f.log), 1);
	free((void *)value.data);
	teardown_fixture(&f);
}

Test(kv_log, promises_nothing_after_a_failed_sync)
{
	struct fixture f;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "1"), 0);
	atomic_store(&sync_fails, true);
	cr_assert_eq(kvlog_sync(f.log), -EIO);
	atomic_store(&sync_fails, false);
	cr_assert_eq(kvlog_sync(f.log), -EIO, "a second sync would succeed and mean nothing");
	cr_assert_eq(append(f.log, "b", "2"), -EIO);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_str_eq(f.seen.data, "1:a=1 ");
	cr_assert_eq(append(f.log, "b", "2"), 0);
	teardown_fixture(&f);
}

Test(kv_log, a_failed_sync_at_the_change_of_files_stops_it)
{
	struct fixture f;

	setup_fixture(&f);
	f.options.segment_size = 100;
	cr_assert_eq(reopen(&f), 0);
	append_many(f.log, 1);
	atomic_store(&sync_fails, true);
	cr_assert_eq(append(f.log, "b", "2"), -EIO);
	atomic_store(&sync_fails, false);
	cr_assert_eq(append(f.log, "b", "2"), -EIO);
	teardown_fixture(&f);
}

static void *sync_once(void *arg)
{
	return (void *)(intptr_t)kvlog_sync(arg);
}

Test(kv_log, waiters_share_one_sync, .timeout = 60)
{
	struct fixture f;
	pthread_t threads[16];
	unsigned before;

	setup_fixture(&f);
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(append(f.log, "a", "1"), 0);
	before = atomic_load(&sync_count);
	cr_assert_eq(kvlog_sync(f.log), 0);
	cr_assert_eq(kvlog_sync(f.log), 0);
	cr_assert_eq(atomic_load(&sync_count), before + 1, "nothing new: nothing to sync");
	cr_assert_eq(append(f.log, "b", "2"), 0);
	atomic_store(&sync_delay_us, 200000);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, sync_once, f.log), 0);
	for (int i = 0; i < 16; i++) {
		void *rc;

		pthread_join(threads[i], &rc);
		cr_assert_null(rc);
	}
	cr_assert_leq(atomic_load(&sync_count), before + 3);
	teardown_fixture(&f);
}

struct writing {
	struct kvlog *log;
	_Atomic bool stop;
	_Atomic int wrong;
};

static void *sync_and_read(void *arg)
{
	struct writing *writing = arg;

	while (!atomic_load(&writing->stop)) {
		uint64_t number = kvlog_number(writing->log);
		AUTO_BUF seen = BUF_INIT;
		int rc = 0;

		if (kvlog_sync(writing->log))
			atomic_fetch_add(&writing->wrong, 1);
		if (number > 5)
			rc = kvlog_each(writing->log, number - 5, number, see, &seen);
		if (rc && rc != -ESTALE) /* the others may have come so far meanwhile that it was trimmed */
			atomic_fetch_add(&writing->wrong, 1);
		kvlog_folded(writing->log, number / 2);
		kvlog_release(writing->log, number / 2);
	}
	return NULL;
}

Test(kv_log, syncs_reads_and_trims_beside_the_appender, .timeout = 60)
{
	struct fixture f;
	struct writing writing = {0};
	pthread_t threads[3];

	setup_fixture(&f);
	f.options.segment_size = 5000;
	cr_assert_eq(reopen(&f), 0);
	writing.log = f.log;
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, sync_and_read, &writing), 0);
	append_many(f.log, 3000);
	atomic_store(&writing.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(atomic_load(&writing.wrong), 0);
	f.options.folded = 1500; /* the most that number / 2 came to */
	cr_assert_eq(reopen(&f), 0);
	cr_assert_eq(kvlog_number(f.log), 3000);
	teardown_fixture(&f);
}
