/*
 * fsx.c - random operations on files of a mount against a copy in memory, after Apple's and SGI's fsx.
 *
 * A trial has one mount and several subjects, each a file and a process that works on it. Time is cut into phases. In a
 * phase every process does random operations and compares what it reads; then the mount goes, in one of these ways, and
 * comes again, and every file and every version made so far is compared:
 *   STAY     not at all
 *   REMOUNT  varve umount
 *   KILL     kill -9 in the midst of the phase
 *   REBUILD  varve umount, and the state directory is removed
 *
 * What the reference promises after KILL: a byte that was not changed since the last acknowledgement (close, fsync) is
 * what it was then; one changed once since is that or the newer; one changed more often may be anything between.
 *
 * Every close and fsync is followed by a look at the history: a version that is new there is kept as a file of its own
 * and compared again later, up to a number of them, drawn at random.
 *
 * VARVE_FSX_SECONDS is how long each trial goes on (12), VARVE_FSX_SEED begins the numbers (random). A failure tells
 * the seed and the operations. Subjects live in shared memory, since processes come and go.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define SUBJECTS_MAX 4
#define KEPT_MAX 24
#define SIZES_MAX 128
#define NAMES_MAX 200 /* versions of one file before the subject takes a new one */
#define LOG_LINES 400
#define LOG_WIDTH 96
#define PHASE_MS 2500
#define STORED_MAX (UINT64_C(2) << 30) /* a trial ends before its time when it has filled the store so far */

enum touched { AS_ACKNOWLEDGED, CHANGED_ONCE, CHANGED_OFTEN };

struct kept {
	char name[96];
	uint64_t number; /* of its file below `kept` */
};

struct subject {
	unsigned id;
	uint64_t random;
	unsigned generation; /* of the file's name */
	uint64_t next_kept;
	struct kept kept[KEPT_MAX];
	unsigned kept_count;
	char newest[96]; /* version */
	unsigned versions;

	uint64_t size, acknowledged_size;
	uint64_t sizes[SIZES_MAX]; /* since the acknowledgement */
	unsigned sizes_count;
	uint64_t doing, doing_end; /* what the operation under way changes */
	uint8_t *bytes, *acknowledged, *touched;

	bool appends;
	uint64_t operations;
	char log[LOG_LINES][LOG_WIDTH];
	char failure[512];
};

/* All of a trial; in shared memory. */
struct trial {
	uint64_t max_size, step; /* bytes: of a file, of an operation */
	uint64_t kept_max;
	unsigned subjects;
	_Atomic uint64_t stored; /* bytes of versions */
	volatile bool killing;
	volatile bool ending; /* of the phase */
	struct subject subject[SUBJECTS_MAX];
};

static struct mounted m;
static struct trial *trial;
static struct subject *self; /* of this process */
static int root = -1, file = -1;
static uint64_t seed;
static uint8_t *scratch;

/* --- chance ------------------------------------------------------------------------------------------------ */

static uint64_t chance(uint64_t below)
{
	uint64_t z = self->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return below ? z % below : 0;
}

/* Small numbers as often as large ones, and every other time a whole number of pages. */
static uint64_t some(uint64_t below)
{
	uint64_t n = chance(chance(3) ? below : below / 64 + 1);

	return chance(3) ? n : n & ~UINT64_C(4095);
}

/* --- telling ----------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static void did(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(self->log[self->operations++ % LOG_LINES], LOG_WIDTH, format, args);
	va_end(args);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(self->failure, sizeof(self->failure), format, args);
	va_end(args);
	_exit(1);
}

/* An operation failed: when the daemon was just killed that is what is expected, and the end of this phase. */
__attribute__((noreturn)) static void failed(const char *what)
{
	int err = errno;

	for (int tries = 0; err != ENOSPC && !trial->killing && tries < 10; tries++)
		usleep(1000);
	if (trial->killing)
		_exit(0);
	fail("%s: %s", what, strerror(err));
}

/* A mapping of a dead mount. */
static void on_bus_error(int number)
{
	(void)number;
	usleep(10000);
	if (trial->killing)
		_exit(0);
	(void)snprintf(self->failure, sizeof(self->failure), "SIGBUS");
	_exit(1);
}

static void same(const uint8_t *have, uint64_t offset, uint64_t len, const char *what)
{
	const uint8_t *want = self->bytes + offset;
	uint64_t at = 0, end = len;

	if (memcmp(have, want, len) == 0)
		return;
	while (have[at] == want[at])
		at++;
	while (have[end - 1] == want[end - 1])
		end--;
	fail("%s: differs in %#lx..%#lx of %#lx+%#lx, size %#lx: there %02x for %02x, at the end %02x for %02x", what,
	     offset + at, offset + end, offset, len, self->size, have[at], want[at], have[end - 1], want[end - 1]);
}

/* --- the reference ----------------------------------------------------------------------------------------- */

/* Before the operation: it may stop halfway. */
static void touch(uint64_t start, uint64_t end)
{
	if (start < end && start < self->doing)
		self->doing = start;
	if (start < end && end > self->doing_end)
		self->doing_end = end;
	for (uint64_t at = start; at < end; at++)
		self->touched[at] = self->touched[at] == AS_ACKNOWLEDGED ? CHANGED_ONCE : CHANGED_OFTEN;
}

static void will_be(uint64_t size)
{
	if (self->sizes_count < SIZES_MAX)
		self->sizes[self->sizes_count++] = size;
	if (size > self->size)
		touch(self->size, size);
	else
		touch(size, self->size);
}

static void is_now(uint64_t size)
{
	if (size < self->size)
		memset(self->bytes + size, 0, self->size - size);
	self->size = size;
}

static void acknowledge(void)
{
	uint64_t end = self->size > self->acknowledged_size ? self->size : self->acknowledged_size;

	memcpy(self->acknowledged, self->bytes, end);
	self->acknowledged_size = self->size;
	self->sizes_count = 0;
	memset(self->touched, AS_ACKNOWLEDGED, trial->max_size);
}

/* --- history ----------------------------------------------------------------------------------------------- */

static const char *name(void)
{
	static char text[32];

	(void)snprintf(text, sizeof(text), "f%u-%u", self->id, self->generation);
	return text;
}

static char *kept_path(uint64_t number)
{
	static char text[400];

	(void)snprintf(text, sizeof(text), "%s/kept/%u-%lu", m.root, self->id, number);
	return text;
}

static void keep(const char *version)
{
	struct kept *kept = &self->kept[self->kept_count];
	int fd;

	if (self->kept_count == trial->kept_max) {
		kept = &self->kept[chance(self->kept_count)];
		(void)unlink(kept_path(kept->number));
	} else {
		self->kept_count++;
	}
	trial->stored += self->size;
	kept->number = self->next_kept++;
	did("new: %s, %#lx bytes", version, self->size);
	(void)snprintf(kept->name, sizeof(kept->name), "%s", version);
	fd = open(kept_path(kept->number), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (uint64_t done = 0; fd >= 0 && done < self->size;) {
		ssize_t n = write(fd, self->bytes + done, self->size - done);

		if (n <= 0)
			fail("the reference cannot be kept: %s", strerror(errno));
		done += (uint64_t)n;
	}
	if (fd < 0 || close(fd))
		fail("the reference cannot be kept: %s", strerror(errno));
}

static DIR *open_history(void)
{
	char path[64];
	DIR *dir;
	int fd;

	(void)snprintf(path, sizeof(path), ".versions/%s", name());
	fd = openat(root, path, O_RDONLY | O_DIRECTORY);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		failed(path);
	return dir;
}

static bool is_kept(const struct kept *kept, DIR *history)
{
	struct dirent *at;

	rewinddir(history);
	while ((at = readdir(history)))
		if (strcmp(at->d_name, kept->name) == 0)
			return true;
	return false;
}

/* How many versions there are; *ret_newest is the name of the newest. */
static unsigned read_history(char ret_newest[static 96])
{
	DIR *history = open_history();
	unsigned count = 0;
	struct dirent *at;

	ret_newest[0] = '\0';
	errno = 0;
	while ((at = readdir(history))) {
		count += at->d_name[0] != '.';
		if (at->d_name[0] != '.' && strcmp(at->d_name, ret_newest) > 0)
			(void)snprintf(ret_newest, 96, "%.95s", at->d_name);
	}
	if (errno)
		failed("readdir of the history");
	(void)closedir(history);
	return count;
}

static uint64_t read_all(int fd, uint8_t *ret_bytes, uint64_t cap, const char *what)
{
	uint64_t done = 0;

	while (done < cap) {
		ssize_t n = pread(fd, ret_bytes + done, cap - done, (off_t)done);

		if (n < 0)
			failed(what);
		if (n == 0)
			break;
		done += (uint64_t)n;
	}
	return done;
}

static int open_version(const char *version)
{
	char path[200];
	int fd;

	(void)snprintf(path, sizeof(path), ".versions/%s/%s", name(), version);
	fd = openat(root, path, O_RDONLY);
	if (fd < 0)
		failed(path);
	return fd;
}

static void check_version(const struct kept *kept)
{
	int fd = open_version(kept->name), reference = open(kept_path(kept->number), O_RDONLY);
	uint64_t size = read_all(fd, scratch, trial->max_size + 1, "read of a version"), at = 0;
	struct stat st;
	uint8_t *want;

	if (reference < 0 || fstat(reference, &st))
		fail("the reference is gone: %s", strerror(errno));
	if ((uint64_t)st.st_size != size)
		fail("version %s has %#lx bytes and had %#lx", kept->name, size, (uint64_t)st.st_size);
	want = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, reference, 0) : NULL;
	if (size && memcmp(scratch, want, size)) {
		while (scratch[at] == want[at])
			at++;
		fail("version %s (%#lx bytes) differs at %#lx: %02x, and was %02x; now that is %02x", kept->name, size,
		     at, scratch[at], want[at], self->bytes[at]);
	}
	if (size)
		(void)munmap(want, size);
	(void)close(reference);
	(void)close(fd);
}

/* After an acknowledgement: the newest version is what the file holds. */
static void look_at_history(void)
{
	char newest[96];
	unsigned count = read_history(newest);

	if (!count)
		fail("%s has no version", name());
	if (count < self->versions)
		fail("%u versions, and there were %u", count, self->versions);
	if (strcmp(newest, self->newest) < 0)
		fail("the newest version was %s and now is %s", self->newest, newest);
	if (strcmp(newest, self->newest))
		keep(newest);
	self->versions = count;
	memcpy(self->newest, newest, sizeof(newest));
}

static void check_all_versions(void)
{
	DIR *history;

	if (!self->versions)
		return;
	history = open_history();
	for (unsigned i = 0; i < self->kept_count; i++) {
		if (!is_kept(&self->kept[i], history))
			fail("version %s is gone", self->kept[i].name);
		check_version(&self->kept[i]);
	}
	(void)closedir(history);
}

/* Every version of a large file stays in the store: it makes fewer of them. */
static bool spares_a_version(void)
{
	return trial->max_size > (1 << 20) && chance(4);
}

/* --- operations -------------------------------------------------------------------------------------------- */

static void open_again(int flags)
{
	self->appends = flags & O_APPEND;
	file = openat(root, name(), O_RDWR | flags, 0644);
	if (file < 0)
		failed("open");
}

static void check_size(void)
{
	struct stat st;

	if (fstat(file, &st))
		failed("fstat");
	if ((uint64_t)st.st_size != self->size)
		fail("%#lx bytes instead of %#lx", (uint64_t)st.st_size, self->size);
}

static void check_content(const char *what)
{
	uint64_t size = read_all(file, scratch, trial->max_size + 1, what);

	if (size != self->size)
		fail("%s: %#lx bytes were read instead of %#lx", what, size, self->size);
	if (size)
		same(scratch, 0, size, what);
	check_size();
}

static void op_read(void)
{
	uint64_t offset = some(self->size + 4096), len = 1 + some(trial->step);
	uint64_t have = offset >= self->size ? 0 : self->size - offset < len ? self->size - offset : len;
	ssize_t n;

	did("read %#lx+%#lx", offset, len);
	n = pread(file, scratch, len, (off_t)offset);
	if (n < 0)
		failed("read");
	if ((uint64_t)n < have) /* the daemon may just have been killed: what the next one says decides */
		usleep(10000);
	if ((uint64_t)n != have && trial->killing)
		_exit(0);
	if ((uint64_t)n != have)
		fail("read of %#lx+%#lx gave %#lx of %#lx bytes", offset, len, (uint64_t)n, have);
	if (n)
		same(scratch, offset, have, "read");
}

static void fill(uint8_t *bytes, uint64_t len)
{
	fill_random(bytes, len, self->random);
	if (chance(16) == 0)
		memset(bytes, 0, len);
}

static void write_at(uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;

	fill(scratch, len);
	if (end > self->size)
		will_be(end);
	touch(offset, end);
	for (uint64_t done = 0; done < len;) {
		ssize_t n = self->appends ? write(file, scratch + done, len - done)
					  : pwrite(file, scratch + done, len - done, (off_t)(offset + done));

		if (n < 0)
			failed("write");
		done += (uint64_t)n;
	}
	memcpy(self->bytes + offset, scratch, len);
	if (end > self->size)
		self->size = end;
}

static void op_write(void)
{
	uint64_t offset = self->appends ? self->size : some(trial->max_size - 1);
	uint64_t len = 1 + some(trial->step);

	if (offset + len > trial->max_size)
		len = trial->max_size - offset;
	did("%s %#lx+%#lx", self->appends ? "append" : "write", offset, len);
	if (len)
		write_at(offset, len);
}

static void op_map(bool writes)
{
	uint64_t offset = some(self->size), len = 1 + some(trial->step), page = offset & ~UINT64_C(4095);
	uint8_t *at;

	if (!self->size)
		return;
	if (len > self->size - offset)
		len = self->size - offset;
	did("%s %#lx+%#lx", writes ? "mapwrite" : "mapread", offset, len);
	at = mmap(NULL, offset - page + len, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, file, (off_t)page);
	if (at == MAP_FAILED)
		failed("mmap");
	if (!writes) {
		same(at + (offset - page), offset, len, "mapread");
	} else {
		fill(scratch, len);
		touch(offset, offset + len);
		memcpy(at + (offset - page), scratch, len);
		if (msync(at, offset - page + len, MS_SYNC))
			failed("msync");
		memcpy(self->bytes + offset, scratch, len);
	}
	(void)munmap(at, offset - page + len);
}

static void op_map_read(void)
{
	op_map(false);
}

static void op_map_write(void)
{
	op_map(true);
}

static void op_truncate(void)
{
	uint64_t size = some(chance(2) ? self->size + 1 : trial->max_size);

	did("truncate %#lx to %#lx", self->size, size);
	will_be(size);
	if (ftruncate(file, (off_t)size))
		failed("truncate");
	is_now(size);
}

static void op_allocate(void)
{
	static const int modes[] = {0,
				    FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int mode = modes[chance(6)];
	uint64_t offset = some(trial->max_size - 1), len = 1 + some(trial->step), end, inside;

	if (offset + len > trial->max_size)
		len = trial->max_size - offset;
	end = offset + len;
	inside = end < self->size ? end : self->size;
	did("fallocate %#x %#lx+%#lx", (unsigned)mode, offset, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > self->size)
		will_be(end);
	if ((mode & ~FALLOC_FL_KEEP_SIZE) && offset < inside)
		touch(offset, inside);
	if (fallocate(file, mode, (off_t)offset, (off_t)len))
		failed("fallocate");
	if ((mode & ~FALLOC_FL_KEEP_SIZE) && offset < inside)
		memset(self->bytes + offset, 0, inside - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > self->size)
		self->size = end;
}

static void holds_zeros(uint64_t start, uint64_t end, const char *what)
{
	for (uint64_t at = start; at < end; at++)
		if (self->bytes[at])
			fail("%s: data at %#lx of the hole %#lx..%#lx", what, at, start, end);
}

/* SEEK_DATA, and past the end of data the end of the file. */
static uint64_t next_data(uint64_t offset)
{
	off_t found = lseek(file, (off_t)offset, SEEK_DATA);

	if (found < 0 && errno != ENXIO)
		failed("SEEK_DATA");
	return found < 0 ? self->size : (uint64_t)found;
}

static void op_seek(void)
{
	uint64_t offset = chance(self->size + 1), data, hole;
	off_t found;

	did("seek %#lx", offset);
	data = next_data(offset);
	if (data < offset || data > self->size)
		fail("SEEK_DATA of %#lx gave %#lx, size %#lx", offset, data, self->size);
	holds_zeros(offset, data, "SEEK_DATA");
	found = lseek(file, (off_t)offset, SEEK_HOLE);
	if (found < 0 && (errno != ENXIO || offset < self->size))
		failed("SEEK_HOLE");
	hole = found < 0 ? self->size : (uint64_t)found;
	if (hole < offset || hole > self->size)
		fail("SEEK_HOLE of %#lx gave %#lx, size %#lx", offset, hole, self->size);
	holds_zeros(hole, next_data(hole), "SEEK_HOLE");
}

static void op_copy_range(void)
{
	uint64_t from = some(self->size), len = 1 + some(trial->step / 2), to, end;
	loff_t in = (loff_t)from, out;

	if (self->appends || !self->size)
		return;
	len = len > self->size - from ? self->size - from : len;
	to = some(trial->max_size - len);
	end = to + len;
	if (to < from + len && from < end)
		return;
	did("copy %#lx+%#lx to %#lx", from, len, to);
	out = (loff_t)to;
	if (end > self->size)
		will_be(end);
	touch(to, end);
	for (uint64_t done = 0; done < len;) {
		ssize_t n = copy_file_range(file, &in, file, &out, len - done, 0);

		if (n <= 0)
			failed("copy_file_range");
		done += (uint64_t)n;
	}
	memcpy(self->bytes + to, self->bytes + from, len);
	if (end > self->size)
		self->size = end;
}

static void op_drop_pages(void)
{
	did("drop pages");
	if (posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
		failed("fadvise");
}

static void op_fsync(void)
{
	if (chance(3) || spares_a_version())
		return;
	did("fsync");
	if (fsync(file))
		failed("fsync");
	acknowledge();
	look_at_history();
}

static void close_it(void)
{
	did("close");
	if (close(file))
		failed("close");
	file = -1;
	acknowledge();
	look_at_history();
}

static void op_close(void)
{
	if (spares_a_version())
		return;
	close_it();
	open_again(chance(6) ? 0 : O_APPEND);
	check_size();
}

static void op_open_empty(void)
{
	if (chance(4))
		return;
	close_it();
	did("open with O_TRUNC");
	will_be(0);
	open_again(O_TRUNC);
	is_now(0);
	check_size();
}

/* The close of a second descriptor acknowledges too. */
static void op_close_other(void)
{
	int other;

	if (spares_a_version())
		return;
	did("dup, close");
	other = dup(file);
	if (other < 0 || close(other))
		failed("close of a second descriptor");
	acknowledge();
	look_at_history();
}

static void op_truncate_closed(void)
{
	uint64_t size = some(trial->max_size);
	char path[400];

	if (spares_a_version())
		return;
	close_it();
	did("truncate closed to %#lx", size);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", root, name());
	will_be(size);
	if (truncate(path, (off_t)size))
		failed("truncate by name");
	is_now(size);
	acknowledge();
	look_at_history();
	open_again(0);
}

static void op_replace(void)
{
	uint64_t len = some(trial->step);
	char other[40];

	close_it();
	did("replace with %#lx bytes", len);
	(void)snprintf(other, sizeof(other), "%s.tmp", name());
	fill(scratch, len + 1);
	/* At a kill it is the one or the other: no byte is known. */
	self->sizes_count = SIZES_MAX;
	memset(self->touched, CHANGED_OFTEN, trial->max_size);
	file = openat(root, other, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (file < 0)
		failed("open of the replacement");
	for (uint64_t done = 0; done < len;) {
		ssize_t n = write(file, scratch + done, len - done);

		if (n < 0)
			failed("write of the replacement");
		done += (uint64_t)n;
	}
	if (close(file))
		failed("close of the replacement");
	if (renameat(root, other, root, name()))
		failed("rename");
	is_now(0);
	memcpy(self->bytes, scratch, len);
	self->size = len;
	acknowledge();
	look_at_history();
	open_again(0);
}

static void op_restore(void)
{
	struct kept kept;
	uint64_t done = 0;
	struct stat st;
	int from;

	if (!self->kept_count || spares_a_version())
		return;
	kept = self->kept[chance(self->kept_count)];
	check_version(&kept); /* which leaves it in scratch */
	close_it();
	open_again(0);
	from = open_version(kept.name);
	if (fstat(from, &st))
		failed("fstat of a version");
	did("restore %s, %#lx bytes", kept.name, (uint64_t)st.st_size);
	will_be(0);
	if (ftruncate(file, 0))
		failed("truncate");
	is_now(0);
	will_be((uint64_t)st.st_size);
	while (done < (uint64_t)st.st_size) {
		ssize_t n = copy_file_range(from, NULL, file, NULL, (size_t)st.st_size - done, 0);

		if (n <= 0)
			failed("copy_file_range from a version");
		done += (uint64_t)n;
	}
	memcpy(self->bytes, scratch, done);
	self->size = done;
	(void)close(from);
}

static void op_check(void)
{
	did("check");
	check_content("check");
}

static void op_check_version(void)
{
	if (!self->kept_count)
		return;
	did("check a version");
	check_version(&self->kept[chance(self->kept_count)]);
}

static const struct {
	unsigned weight;
	void (*run)(void);
} operations[] = {
	{14, op_read},    {16, op_write},     {6, op_map_read},      {6, op_map_write},       {6, op_truncate},
	{9, op_allocate}, {5, op_seek},       {4, op_copy_range},    {4, op_drop_pages},      {2, op_fsync},
	{5, op_close},    {1, op_open_empty}, {2, op_close_other},   {1, op_truncate_closed}, {1, op_replace},
	{1, op_restore},  {2, op_check},      {2, op_check_version},
};

static void operate(void)
{
	unsigned all = 0, at = 0, pick;

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		all += operations[i].weight;
	for (pick = (unsigned)chance(all); pick >= operations[at].weight; at++)
		pick -= operations[at].weight;
	self->doing = UINT64_MAX;
	self->doing_end = 0;
	operations[at].run();
	self->doing_end = 0;
}

/* --- phases ------------------------------------------------------------------------------------------------ */

static void be(struct subject *subject)
{
	self = subject;
	signal(SIGBUS, on_bus_error);
	alarm(300);
	scratch = malloc(trial->max_size + 4096);
	root = open(m.dir, O_RDONLY | O_DIRECTORY);
	if (!scratch || root < 0)
		failed("open of the mount");
}

static void begin_anew(void)
{
	for (unsigned i = 0; i < self->kept_count; i++)
		(void)unlink(kept_path(self->kept[i].number));
	self->generation++;
	self->kept_count = self->versions = 0;
	self->newest[0] = '\0';
	self->acknowledged_size = self->size = 0;
	memset(self->bytes, 0, trial->max_size);
	memset(self->acknowledged, 0, trial->max_size);
	memset(self->touched, CHANGED_OFTEN, trial->max_size); /* until its first close */
	self->sizes_count = SIZES_MAX;
}

/* A process of its own. */
static void work(struct subject *subject)
{
	be(subject);
	if (!self->versions || self->versions > NAMES_MAX) {
		begin_anew();
		did("create %s", name());
	}
	open_again(O_CREAT);
	while (!trial->ending)
		operate();
	check_content("the end of the phase");
	close_it();
	_exit(0);
}

static bool may_have(uint64_t at, uint8_t byte)
{
	uint8_t before = at < self->acknowledged_size ? self->acknowledged[at] : 0;
	bool under_way = at >= self->doing && at < self->doing_end;

	if (self->touched[at] == CHANGED_OFTEN || (self->touched[at] == CHANGED_ONCE && under_way))
		return true;
	return byte == before || (self->touched[at] == CHANGED_ONCE && byte == self->bytes[at]);
}

static bool may_be(uint64_t size)
{
	if (size == self->acknowledged_size || self->sizes_count == SIZES_MAX)
		return true;
	for (unsigned i = 0; i < self->sizes_count; i++)
		if (self->sizes[i] == size)
			return true;
	/* A long write in several requests. */
	return size >= self->doing && size <= self->doing_end;
}

/* After a kill: is it something it may be? From here on it is. */
static void settle_for(void)
{
	uint64_t size = read_all(file, scratch, trial->max_size + 1, "read after the kill");

	if (!may_be(size))
		fail("after the kill it has %#lx bytes, acknowledged were %#lx", size, self->acknowledged_size);
	for (uint64_t at = 0; at < size; at++)
		if (!may_have(at, scratch[at]))
			fail("after the kill %#lx has %02x, and %02x was acknowledged (%#lx bytes, were %#lx)", at,
			     scratch[at], self->acknowledged[at], size, self->acknowledged_size);
	memset(self->bytes, 0, trial->max_size);
	memcpy(self->bytes, scratch, size);
	self->size = size;
	acknowledge();
}

static void after_kill(struct subject *subject)
{
	be(subject);
	did("killed");
	file = openat(root, name(), O_RDONLY);
	if (file < 0 && errno == ENOENT && !self->versions) /* created, not closed: it may not be */
		_exit(0);
	if (file < 0)
		failed("open after the kill");
	settle_for();
	if (read_history(self->newest)) { /* the newest may be one that was not looked at: it is what the file holds */
		self->versions = 0;
		self->newest[0] = '\0';
		look_at_history();
	}
	check_all_versions();
	_exit(0);
}

static void after_remount(struct subject *subject)
{
	be(subject);
	did("remounted");
	if (!self->versions)
		_exit(0);
	open_again(0);
	check_content("after the remount");
	(void)close(file);
	look_at_history();
	check_all_versions();
	_exit(0);
}

static void show(const struct subject *subject)
{
	uint64_t from = subject->operations > LOG_LINES ? subject->operations - LOG_LINES : 0;

	fprintf(stderr, "seed %lu, subject %u (f%u-%u), %lu operations; the last:\n", seed, subject->id, subject->id,
		subject->generation, subject->operations);
	for (uint64_t at = from; at < subject->operations; at++)
		fprintf(stderr, "  %lu %s\n", at, subject->log[at % LOG_LINES]);
}

static void start_each(void (*run)(struct subject *), pid_t *ret_pids)
{
	fflush(NULL);
	for (unsigned i = 0; i < trial->subjects; i++) {
		ret_pids[i] = fork();
		cr_assert_geq(ret_pids[i], 0);
		if (ret_pids[i] == 0)
			run(&trial->subject[i]);
	}
}

static void wait_each(const pid_t *pids)
{
	unsigned bad = 0;
	int status;

	for (unsigned i = 0; i < trial->subjects; i++) {
		cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
		if (status == 0)
			continue;
		show(&trial->subject[i]);
		fprintf(stderr, "f%u: status %#x: %s\n", i, (unsigned)status, trial->subject[i].failure);
		bad++;
	}
	if (bad)
		(void)mounted_shell(&m, "tail -n 20 \"$ROOT/varve.log\" >&2", NULL, 0);
	cr_assert_eq(bad, 0, "seed %lu: %u files are not what they must be", seed, bad);
}

enum way { STAY, REMOUNT, KILL, REBUILD, WAYS };

static void phase(enum way way, const char *options, struct subject *dice)
{
	pid_t pids[SUBJECTS_MAX];
	uint64_t kill_after;

	self = dice;
	kill_after = chance(PHASE_MS);
	trial->killing = trial->ending = false;
	start_each(work, pids);
	if (way == KILL) {
		usleep((useconds_t)kill_after * 1000);
		trial->killing = true;
		mounted_kill(&m);
	} else {
		usleep(PHASE_MS * 1000);
	}
	trial->ending = true;
	wait_each(pids);
	trial->killing = false;
	if (way == REMOUNT || way == REBUILD)
		cr_assert_eq(mounted_stop(&m), 0, "seed %lu", seed);
	if (way != STAY)
		cr_assert_eq(mounted_shell(
				     &m,
				     "\"$VARVE\" fsck \"$STATE\" >\"$ROOT/fsck\" || { cat \"$ROOT/fsck\"; false; } >&2",
				     NULL, 0),
			     0, "seed %lu: fsck is not clean", seed);
	if (way == REBUILD)
		cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0), 0);
	if (way != STAY)
		mounted_start(&m, options);
	start_each(way == KILL ? after_kill : after_remount, pids);
	wait_each(pids);
}

struct plan {
	enum mounted_store store;
	const char *options;
	unsigned subjects;
	uint64_t max_size, step, kept_max;
};

static void *shared(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(at, MAP_FAILED);
	return at;
}

static void set_up(const struct plan *plan)
{
	const char *given = getenv("VARVE_FSX_SEED");
	char path[300];

	seed = given ? strtoull(given, NULL, 10) : (uint64_t)now_ms() * 1000 + (uint64_t)getpid() % 1000;
	trial = shared(sizeof(*trial));
	trial->max_size = plan->max_size;
	trial->step = plan->step;
	trial->kept_max = plan->kept_max;
	trial->subjects = plan->subjects;
	for (unsigned i = 0; i < plan->subjects; i++) {
		struct subject *subject = &trial->subject[i];

		subject->id = i;
		subject->random = seed * 1000 + i;
		subject->bytes = shared(plan->max_size);
		subject->acknowledged = shared(plan->max_size);
		subject->touched = shared(plan->max_size);
	}
	mounted_new(&m, plan->store);
	(void)snprintf(path, sizeof(path), "%s/kept", m.root);
	cr_assert_eq(mkdir(path, 0700), 0);
	mounted_start(&m, plan->options);
}

static uint64_t work_done(void)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < trial->subjects; i++)
		count += trial->subject[i].operations;
	return count;
}

/* For so long, and on a busy machine until something was done. */
static void run(const struct plan *plan)
{
	const char *given = getenv("VARVE_FSX_SECONDS");
	long end = now_ms() + (given ? strtol(given, NULL, 10) : 12) * 1000;
	static struct subject dice;

	(void)setenv("VARVE_TEST_REFER_LEAST", "0", 1); /* copies of little carry no bytes either */
	set_up(plan);
	dice.random = seed;
	for (unsigned n = 0; n < WAYS || work_done() <= 100 || (now_ms() < end && trial->stored < STORED_MAX); n++) {
		self = &dice;
		phase(n < WAYS ? n : (enum way)chance(WAYS), plan->options, &dice);
	}
	cr_assert_eq(mounted_stop(&m), 0);
	fprintf(stderr, "fsx: seed %lu, %lu operations\n", seed, work_done());
}

static void leave(void)
{
	if (m.root[0])
		mounted_free(&m);
}

TestSuite(fsx, .fini = leave, .timeout = 3600);

#define SMALL .max_size = 96 << 10, .step = 24 << 10, .kept_max = KEPT_MAX
#define LARGE .max_size = 24 << 20, .step = 2 << 20, .kept_max = 5

Test(fsx, small_files_on_a_directory_with_hardly_a_cache)
{
	run(&(struct plan){MOUNTED_LOCAL, "cache_size=16M,reserve=1M", 3, SMALL});
}

Test(fsx, small_files_on_a_versioned_bucket)
{
	run(&(struct plan){MOUNTED_S3, "reserve=1M", 3, SMALL});
}

Test(fsx, small_files_on_a_bucket_without_versions)
{
	run(&(struct plan){MOUNTED_S3_UNVERSIONED, "cache_size=16M,reserve=1M", 2, SMALL});
}

Test(fsx, large_files_on_a_directory)
{
	run(&(struct plan){MOUNTED_LOCAL, "cache_size=1G,reserve=1M", 2, LARGE});
}

Test(fsx, large_files_on_a_versioned_bucket)
{
	run(&(struct plan){MOUNTED_S3, "cache_size=1G,reserve=1M", 1, LARGE});
}
