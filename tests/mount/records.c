/*
 * records.c - a writer and two readers, one by read and one by a mapping, of files that are larger than the cache.
 *
 * Every 4 KiB block is a record that says where it lies and in which generation it was written, with a checksum. The
 * writer tells in shared memory which generation it has begun and which it has closed.
 *   In place: some records of the file in each generation. A record is never one that nobody wrote; one that a reader
 *     found half written is whole when it looks again (the kernel copies from a page that is being written, on every
 *     filesystem); after an open it is not older than the generation that was closed before.
 *   Replaced by rename: all records of an open file are of one generation.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checksum.h"
#include "support/mounted.h"

#define RECORD 4096u
#define RECORDS 3072u /* 12 MiB */
#define EACH 24u      /* records changed in one generation */
#define SECONDS 6     /* at least, and until so much was seen: */
#define GENERATIONS 4
#define LOOKED 200
#define LOOKS 50

struct record {
	uint64_t number, generation;
	uint32_t checksum; /* of all but itself */
	uint8_t bytes[RECORD - 20];
} __attribute__((packed));

struct board {
	volatile bool over;
	volatile uint64_t begun[RECORDS], closed[RECORDS]; /* generations of each record */
	volatile uint64_t replaced;                        /* of the file replaced by rename */
	volatile uint64_t looked[2];
	char failure[2][256];
};

static struct mounted m;
static struct board *board;

static void leave(void)
{
	mounted_free(&m);
}

TestSuite(records, .fini = leave, .timeout = 300);

static uint64_t chance(uint64_t *state, uint64_t below)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (*state >> 33) % below;
}

static uint32_t checksum_of(const struct record *record)
{
	uint32_t crc = crc32c_update(0, record, offsetof(struct record, checksum));

	return crc32c_update(crc, record->bytes, sizeof(record->bytes));
}

static void make(struct record *record, uint64_t number, uint64_t generation)
{
	fill_random(record->bytes, sizeof(record->bytes), number * 1000003 + generation);
	record->number = number;
	record->generation = generation;
	record->checksum = checksum_of(record);
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int reader, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(board->failure[reader], sizeof(board->failure[0]), format, args);
	va_end(args);
	_exit(1);
}

/* One opened file, read by pread (`map` NULL) or through the mapping. */
struct view {
	int reader, fd;
	const uint8_t *map;
};

static void look(const struct view *view, uint64_t number, struct record *ret_record)
{
	for (int tries = 0; tries < LOOKS; tries++) {
		if (view->map)
			memcpy(ret_record, view->map + number * RECORD, RECORD);
		else if (pread(view->fd, ret_record, RECORD, (off_t)(number * RECORD)) != RECORD)
			fail(view->reader, "record %lu: %s", number, strerror(errno));
		if (ret_record->checksum == checksum_of(ret_record))
			break;
		usleep(1000);
	}
	if (ret_record->checksum != checksum_of(ret_record))
		fail(view->reader, "record %lu stays torn (says %lu of generation %lu)", number, ret_record->number,
		     ret_record->generation);
	if (ret_record->number != number)
		fail(view->reader, "record %lu is where %lu was", ret_record->number, number);
	board->looked[view->reader]++;
}

static struct view view_open(const char *path, int reader)
{
	struct view view = {.reader = reader, .fd = open(path, O_RDONLY)};

	if (view.fd < 0)
		fail(reader, "open: %s", strerror(errno));
	if (reader == 1)
		view.map = mmap(NULL, (size_t)RECORDS * RECORD, PROT_READ, MAP_SHARED, view.fd, 0);
	if (view.map == MAP_FAILED)
		fail(reader, "mmap: %s", strerror(errno));
	return view;
}

static void view_close(const struct view *view)
{
	if (view->map)
		(void)munmap((void *)(uintptr_t)view->map, (size_t)RECORDS * RECORD);
	(void)close(view->fd);
}

static void read_in_place(const char *path, int reader, uint64_t *random)
{
	static uint64_t closed[RECORDS];
	struct record record;
	struct view view;

	memcpy(closed, (const void *)(uintptr_t)board->closed, sizeof(closed));
	view = view_open(path, reader);
	for (int i = 0; i < 64; i++) {
		uint64_t number = chance(random, RECORDS);

		look(&view, number, &record);
		if (record.generation < closed[number] || record.generation > board->begun[number])
			fail(reader, "record %lu is of generation %lu; closed before the open was %lu, begun is %lu",
			     number, record.generation, closed[number], board->begun[number]);
	}
	view_close(&view);
}

static void read_replaced(const char *path, int reader, uint64_t *random)
{
	uint64_t replaced = board->replaced, first;
	struct view view = view_open(path, reader);
	struct record record;

	look(&view, 0, &record);
	first = record.generation;
	if (first < replaced)
		fail(reader, "generation %lu was replaced by %lu before the open", first, replaced);
	for (int i = 0; i < 64; i++) {
		look(&view, chance(random, RECORDS), &record);
		if (record.generation != first)
			fail(reader, "generations %lu and %lu in one file", first, record.generation);
	}
	view_close(&view);
}

static pid_t start_reader(void (*run)(const char *, int, uint64_t *), const char *path, int reader)
{
	uint64_t random = (uint64_t)reader + 1;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid)
		return pid;
	alarm(120);
	while (!board->over)
		run(path, reader, &random);
	_exit(0);
}

static void write_whole(const char *path, uint64_t generation)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	struct record record;

	for (uint64_t number = 0; number < RECORDS; number++) {
		make(&record, number, generation);
		cr_assert_eq(write(fd, &record, RECORD), RECORD, "%s", strerror(errno));
	}
	cr_assert_eq(close(fd), 0);
}

static void write_some(const char *path, uint64_t generation)
{
	uint64_t random = generation, numbers[EACH];
	int fd = open(path, O_RDWR);
	struct record record;

	cr_assert_geq(fd, 0);
	for (unsigned i = 0; i < EACH; i++) {
		numbers[i] = chance(&random, RECORDS);
		make(&record, numbers[i], generation);
		board->begun[numbers[i]] = generation;
		cr_assert_eq(pwrite(fd, &record, RECORD, (off_t)(numbers[i] * RECORD)), RECORD, "%s", strerror(errno));
	}
	cr_assert_eq(close(fd), 0);
	for (unsigned i = 0; i < EACH; i++)
		board->closed[numbers[i]] = generation;
}

static void replace(const char *path, uint64_t generation)
{
	char other[400];

	(void)snprintf(other, sizeof(other), "%s.new", path);
	write_whole(other, generation);
	cr_assert_eq(rename(other, path), 0, "%s", strerror(errno));
	board->replaced = generation;
}

static void begin(enum mounted_store store, const char *options, char *ret_path)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(board, MAP_FAILED);
	mounted_new(&m, store);
	mounted_start(&m, "reserve=1M");
	(void)snprintf(ret_path, 400, "%s", mounted_path(&m, "file"));
	write_whole(ret_path, 0);
	cr_assert_eq(mounted_stop(&m), 0);
	mounted_start(&m, options);
}

static void run(void (*change)(const char *, uint64_t), void (*check)(const char *, int, uint64_t *), const char *path)
{
	long evicted = mounted_status(&m, "cache.evicted");
	pid_t readers[2] = {start_reader(check, path, 0), start_reader(check, path, 1)};
	time_t end = time(NULL) + SECONDS;
	uint64_t generation = 0;
	int status;

	while ((time(NULL) < end || generation < GENERATIONS || board->looked[0] < LOOKED ||
		board->looked[1] < LOOKED) &&
	       waitpid(-1, &status, WNOHANG) == 0)
		change(path, ++generation);
	board->over = true;
	for (int i = 0; i < 2; i++) {
		(void)waitpid(readers[i], &status, 0); /* an early one has left its words */
		cr_assert(!board->failure[i][0], "%s reader, generation %lu: %s", i ? "mapping" : "reading", generation,
			  board->failure[i]);
	}
	cr_assert_gt(mounted_status(&m, "cache.evicted"), evicted, "nothing was evicted: the trial says nothing");
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0);
}

Test(records, changed_in_place_are_never_torn_or_old)
{
	char path[400];

	begin(MOUNTED_LOCAL, "cache_size=16M,reserve=1M", path);
	run(write_some, read_in_place, path);
}

Test(records, changed_in_place_on_a_bucket_are_never_torn_or_old)
{
	char path[400];

	begin(MOUNTED_S3, "cache_size=16M,reserve=1M", path);
	run(write_some, read_in_place, path);
}

/* The new file is in the cache whole until it is stored; the old ones must go. */
Test(records, of_a_replaced_file_are_of_one_generation)
{
	char path[400];

	begin(MOUNTED_S3_UNVERSIONED, "cache_size=16M,reserve=1M", path);
	run(replace, read_replaced, path);
}
