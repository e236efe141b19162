/*
 * liar.c - a store that lies, and one that holds what no sane store would: wrong bytes are never shown, nothing hangs
 * or grows, and every key is reachable under a name of its own.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define SMALL 70000
#define LARGE (12 << 20)
#define PATIENCE_MS 40000
#define MEMORY_KIB (300 << 10)

static struct mounted m;
static struct fake_s3 fake;

static void setup(void)
{
	fake_s3_start(&fake);
	mounted_new(&m, MOUNTED_S3);
}

static void teardown(void)
{
	mounted_free(&m);
	fake_s3_stop(&fake);
}

TestSuite(liar, .init = setup, .fini = teardown, .timeout = 120);

static const char *at(const char *path)
{
	return mounted_path(&m, path);
}

/* `size` bytes in WORK's file `name`, made of `seed`, and the object `key` with them. */
static char *put_random(const char *key, size_t size, uint64_t seed)
{
	char *bytes = malloc(size), path[400], words[700];

	fill_random(bytes, size, seed);
	snprintf(path, sizeof(path), "%s/upload", m.root);
	file_write(path, bytes, size);
	snprintf(words, sizeof(words), "put '%s' <'%s'", key, path);
	s3_do(&m, words);
	return bytes;
}

static long peak_kib(void)
{
	char path[64], line[128];
	long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", m.pid);
	file = fopen(path, "r");
	cr_assert(file);
	while (fgets(line, sizeof(line), file))
		(void)sscanf(line, "VmHWM: %ld", &kib);
	fclose(file);
	return kib;
}

/* Reads [offset, offset + len): every byte that comes must be right. 0, or the error it ended with. */
static int read_honestly(const char *name, const char *bytes, size_t len, off_t offset)
{
	static char got[LARGE];
	int fd = open(at(name), O_RDONLY);
	ssize_t n = 1;
	size_t done;

	if (fd < 0)
		return errno;
	for (done = 0; done < len && n > 0; done += n > 0 ? (size_t)n : 0)
		n = pread(fd, got + done, len - done, offset + (off_t)done);
	if (n < 0)
		n = -errno;
	close(fd);
	cr_assert_eq(memcmp(got, bytes + offset, done), 0, "wrong bytes were shown");
	cr_assert(n < 0 || done == len, "the file seems shorter than it is: %zu", done);
	return n < 0 ? (int)-n : 0;
}

/* --- content ---------------------------------------------------------------------------------------------- */

struct lie {
	char kind[16];
};

/* What only a checksum finds. The object carries ours: varve wrote it. */
static struct lie whole_lies[] = {{"flip"}, {"cut"}, {"short"}, {"long"}, {"empty"}, {"other-object"}};

ParameterizedTestParameters(liar, about_a_small_file)
{
	return cr_make_param_array(struct lie, whole_lies, sizeof(whole_lies) / sizeof(*whole_lies));
}

ParameterizedTest(struct lie *lie, liar, about_a_small_file, .timeout = 120)
{
	static char bytes[SMALL];
	long began;
	int error;

	fill_random(bytes, sizeof(bytes), 5);
	mounted_start(&m, NULL);
	file_write(at("f"), bytes, sizeof(bytes));
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0), 0);
	mounted_start(&m, NULL);
	fake_s3_lie(&fake, lie->kind, "f");
	began = now_ms();
	error = read_honestly("f", bytes, sizeof(bytes), 0);
	cr_assert_eq(error, EIO, "%s: %s", lie->kind, strerror(error));
	cr_assert_lt(now_ms() - began, PATIENCE_MS);
	fake_s3_truth(&fake);
	/* Whoever comes within a second of somebody's giving up waits no longer than that. */
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 200000000}, NULL);
	cr_assert_eq(read_honestly("f", bytes, sizeof(bytes), 0), 0, "%s: the truth is not believed", lie->kind);
	cr_assert_lt(peak_kib(), MEMORY_KIB);
	cr_assert_eq(mounted_stop(&m), 0);
}

static struct lie range_lies[] = {{"cut"},   {"short"},       {"long"},        {"empty"},
				  {"whole"}, {"other-range"}, {"other-object"}};

ParameterizedTestParameters(liar, about_a_range)
{
	return cr_make_param_array(struct lie, range_lies, sizeof(range_lies) / sizeof(*range_lies));
}

ParameterizedTest(struct lie *lie, liar, about_a_range, .timeout = 120)
{
	char *bytes = put_random("f", LARGE, 6);
	long began;
	int error;

	mounted_start(&m, NULL);
	fake_s3_lie(&fake, lie->kind, "f");
	began = now_ms();
	error = read_honestly("f", bytes, 100000, 5000000);
	/* What came before the lie was seen may do, as it is right; of others nothing is. */
	cr_assert(error == EIO || (error == 0 && (strcmp(lie->kind, "whole") == 0 || strcmp(lie->kind, "cut") == 0)),
		  "%s: %s", lie->kind, strerror(error));
	cr_assert_lt(now_ms() - began, PATIENCE_MS);
	fake_s3_truth(&fake);
	cr_assert_eq(read_honestly("f", bytes, LARGE, 0), 0);
	cr_assert_lt(peak_kib(), MEMORY_KIB);
	cr_assert_eq(mounted_stop(&m), 0);
	free(bytes);
}

/* --- listings --------------------------------------------------------------------------------------------- */

static struct lie listing_lies[] = {{"malformed"}, {"unfinished"},  {"dtd"},      {"entity"},       {"same-token"},
				    {"endless"},   {"no-progress"}, {"repeated"}, {"other-prefix"}, {"deep"}};

ParameterizedTestParameters(liar, about_a_listing)
{
	return cr_make_param_array(struct lie, listing_lies, sizeof(listing_lies) / sizeof(*listing_lies));
}

static int list(const char *path)
{
	DIR *dir = opendir(path);
	int error;

	if (!dir)
		return errno;
	errno = 0;
	while (readdir(dir))
		errno = 0;
	error = errno;
	closedir(dir);
	return error;
}

ParameterizedTest(struct lie *lie, liar, about_a_listing, .timeout = 120)
{
	long began;
	char *names, *bytes = put_random("d/f", 100, 1);
	int error;

	mounted_start(&m, NULL);
	fake_s3_lie(&fake, lie->kind, NULL);
	began = now_ms();
	error = list(m.dir);
	cr_assert_eq(error, EIO, "%s: %s", lie->kind, strerror(error));
	cr_assert_lt(now_ms() - began, PATIENCE_MS, "%s took %ld ms", lie->kind, now_ms() - began);
	cr_assert_lt(peak_kib(), MEMORY_KIB, "%s: %ld KiB", lie->kind, peak_kib());
	fake_s3_truth(&fake);
	names = dir_names(m.dir);
	cr_assert_str_eq(names, "d");
	free(names);
	cr_assert(file_is(at("d/f"), bytes, 100));
	cr_assert_eq(mounted_stop(&m), 0);
	free(bytes);
}

/* --- keys that are no paths -------------------------------------------------------------------------------- */

/* As s3.py prints them. Real stores refuse most of these, and hold them where others have put them by other ways. */
static const char *const odd_keys[] = {
	"../up",
	"a/../b",
	"a/./c",
	"a//d",
	"/lead",
	"//x",
	"ctl%01%1B%7F",
	"bad%FF%FE%80",
	"new%0Aline",
	"tab%09",
	"clash",
	"clash/inner",
	"clash/inner/most",
	"%25~literal",
	"per%25cent",
	"plus%2B%20space",
	"back%5Cslash",
	"..",
	".",
	"...",
	"quote%27%22",
	"a/.versions/x",
	"%C3%A9",
	"e%CC%81",
	"sub/clash",
	"sub/clash/..",
};
#define ODD_KEYS (sizeof(odd_keys) / sizeof(*odd_keys))

static char *etags(void)
{
	return s3_ask(&m, "etags");
}

/* The checksums of all files, sorted: through the mount, or of all objects. */
static char *sums(const char *command)
{
	char *text = malloc(1 << 20);

	cr_assert_eq(mounted_shell(&m, command, text, 1 << 20), 0);
	return text;
}

static void put_text(const char *key, const char *text)
{
	char words[1400];

	snprintf(words, sizeof(words), "put \"%s\" <<'END'\n%s\nEND", key, text);
	s3_do(&m, words);
}

/* The path under which the file with this line is shown. */
static void path_of(const char *text, char *ret_path, size_t size)
{
	char command[128];
	size_t len;

	snprintf(command, sizeof(command), "grep -rlxFZ '%s' \"$MNT\" | tr -d '\\0'", text);
	cr_assert_eq(mounted_shell(&m, command, ret_path, size), 0);
	len = strlen(ret_path);
	cr_assert(len, "no file shows \"%s\"", text);
	cr_assert_null(strstr(ret_path + strlen(m.dir), "/../"), "%s leads out of its directory", ret_path);
}

/* Of two etags() texts exactly the line of `key` differs. */
static void only_differs(const char *before, const char *after, const char *key)
{
	size_t key_len = strlen(key);
	unsigned differ = 0;

	while (*before && *after) {
		size_t a = strcspn(before, "\n"), b = strcspn(after, "\n");

		if (a != b || memcmp(before, after, a) != 0) {
			differ++;
			cr_assert(strncmp(before, key, key_len) == 0 && before[key_len] == ' ' &&
					  strncmp(after, key, key_len) == 0,
				  "writing %s changed %.*s to %.*s", key, (int)a, before, (int)b, after);
		}
		before += a + (before[a] == '\n');
		after += b + (after[b] == '\n');
	}
	cr_assert(!*before && !*after && differ == 1, "%u keys changed, not %s alone", differ, key);
}

/* `before`: etags() as they are; they are replaced by those of afterwards. */
static void rewrite(const char *key, const char *text, char **before)
{
	char path[1024], *after;

	path_of(text, path, sizeof(path));
	file_puts(path, "rewritten\n");
	mounted_settle(&m, 30);
	after = etags();
	only_differs(*before, after, key);
	free(*before);
	*before = after;
}

static void move_away_and_back(const char *text)
{
	char path[1024], away[400], *after;

	path_of(text, path, sizeof(path));
	snprintf(away, sizeof(away), "%s/away", m.dir);
	cr_assert_eq(rename(path, away), 0, "%s: %s", path, strerror(errno));
	mounted_settle(&m, 30);
	after = s3_ask(&m, "get away");
	cr_assert_str_eq(after, text);
	free(after);
	cr_assert_eq(rename(away, path), 0, "back to %s: %s", path, strerror(errno));
	mounted_settle(&m, 30);
}

static void text_of(size_t i, char ret_text[static 16])
{
	snprintf(ret_text, 16, "odd-%02zu", i);
}

static char *longest_key(void)
{
	static char key[400];

	memset(key, 'l', 300);
	memcpy(key + 300, "/tail", 6);
	return key;
}

static void start_odd(void)
{
	char text[16], *a, *b;

	for (size_t i = 0; i < ODD_KEYS; i++) {
		text_of(i, text);
		put_text(odd_keys[i], text);
	}
	put_text(longest_key(), "odd-long");
	mounted_start(&m, NULL);
	a = sums("\"$VARVE_TEST_SOURCE/tests/support/s3.py\" \"$BUCKET\" etags | cut -d' ' -f2 | sort");
	b = sums("cd \"$MNT\" && find . -type f -exec md5sum {} + | sed 's/^\\\\//' | cut -c1-32 | sort");
	cr_assert_str_eq(a, b, "not every object is a file, and once");
	free(a);
	free(b);
}

Test(liar, odd_keys_are_written_where_they_are)
{
	char text[16], *before;

	start_odd();
	before = etags();
	for (size_t i = 0; i < ODD_KEYS; i++) {
		text_of(i, text);
		rewrite(odd_keys[i], text, &before);
	}
	rewrite(longest_key(), "odd-long", &before);
	free(before);
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0);
}

Test(liar, odd_keys_are_renamed_and_removed)
{
	char text[16], path[1024], *left, *before;

	start_odd();
	before = etags();
	for (size_t i = 0; i < ODD_KEYS; i++) {
		text_of(i, text);
		move_away_and_back(text);
	}
	left = etags();
	cr_assert_str_eq(before, left);
	free(before);
	free(left);
	for (size_t i = 0; i < ODD_KEYS; i++) {
		text_of(i, text);
		path_of(text, path, sizeof(path));
		cr_assert_eq(unlink(path), 0, "%s: %s", path, strerror(errno));
	}
	path_of("odd-long", path, sizeof(path));
	cr_assert_eq(unlink(path), 0, "%s: %s", path, strerror(errno));
	mounted_settle(&m, 60);
	left = etags();
	cr_assert_str_empty(left);
	free(left);
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "\"$VARVE\" fsck \"$STATE\"", NULL, 0), 0);
}
