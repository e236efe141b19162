/*
 * local.c - what is the directory store's own: the tree as other tools see and
 * change it, keys no path can hold, states a crash leaves, several processes.
 * The rest is in tests/conformance.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/local.h"
#include "buf.h"
#include "clock.h"

static const struct call now = {0};
static char dir[256];
static char url[300];
static struct backend *backend;
static _Thread_local struct err err;

#define OK(expression)                                                                                                 \
	do {                                                                                                           \
		int ok_rc = (expression);                                                                              \
		cr_assert(ok_rc == 0, #expression ": %s: %s", err_kind_name(err.kind), err.message);                   \
	} while (0)
#define FAILS(expected, expression)                                                                                    \
	do {                                                                                                           \
		err = (struct err){0};                                                                                 \
		cr_assert((expression) < 0, #expression " succeeded");                                                 \
		cr_assert(err.kind == (expected), #expression ": %s (%s)", err_kind_name(err.kind), err.message);      \
	} while (0)

static struct backend *open_store(bool create)
{
	struct backend_options options = {.url = url, .create = create};
	struct backend *opened = NULL;

	OK(local_backend_ops.open(&options, &opened, &err));
	return opened;
}

static int probe(struct backend *opened)
{
	struct backend_info info;

	return local_backend_ops.probe(opened, &now, &info, &err);
}

static void start_in(const char *parent)
{
	(void)snprintf(dir, sizeof(dir), "%s/varve-local-%d", parent, (int)getpid());
	(void)snprintf(url, sizeof(url), "file://%s", dir);
	backend = open_store(true);
	OK(probe(backend));
}

static void start(void)
{
	const char *tmp = getenv("TMPDIR");

	start_in(tmp ? tmp : "/tmp");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

static void stop(void)
{
	local_backend_ops.close(backend);
	(void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(local_store, .init = start, .fini = stop);

/* --- short forms ---------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
	static char path[5000];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "w");

	cr_assert(file, "%s: %s", name, strerror(errno));
	(void)fputs(text, file);
	cr_assert_eq(fclose(file), 0);
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(path_of(name), &st) == 0;
}

static int text_source(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	memcpy(ret_bytes, (const char *)arg + offset, len);
	return 0;
}

static int put_meta(const char *key, const char *text, const struct meta *meta, struct object_info *ret_info)
{
	struct put_request request = {
		.key = key, .source = text_source, .source_arg = (void *)text, .size = strlen(text), .meta = meta};

	return local_backend_ops.put(backend, &now, &request, ret_info, &err);
}

static int put(const char *key, const char *text)
{
	return put_meta(key, text, NULL, NULL);
}

static int add_text(void *arg, const void *bytes, size_t len)
{
	buf_add(arg, bytes, len);
	return 0;
}

static void expect(const char *key, const char *id, const char *text)
{
	struct buf got = BUF_INIT;
	struct get_request request = {
		.object = {.key = key, .native_id = id},
		.length = UINT64_MAX,
		.expected_size = UINT64_MAX,
		.sink = add_text,
		.sink_arg = &got,
	};

	OK(local_backend_ops.get(backend, &now, &request, NULL, &err));
	cr_assert_str_eq(got.data, text, "%s is \"%s\"", key, got.data);
	buf_free(&got);
}

static int head(const char *key, struct object_info *ret_info)
{
	return local_backend_ops.head(backend, &now, &(struct object_ref){.key = key}, ret_info, &err);
}

static int drop(const char *key, const char *id)
{
	return local_backend_ops.remove(backend, &now, &(struct object_ref){.key = key, .native_id = id}, NULL, &err);
}

/* "key key …", with versions "key:size key:x …", '*' at what is current. */
static void expect_list(struct list_request request, const char *expected)
{
	struct buf text = BUF_INIT;
	char *token = NULL;

	do {
		struct list_page page = {0};

		request.token = token;
		OK(local_backend_ops.list(backend, &now, &request, &page, &err));
		for (size_t i = 0; i < page.count; i++) {
			const struct object_info *entry = &page.entries[i];

			buf_addf(&text, "%s%s", text.len ? " " : "", entry->key);
			if (request.versions && entry->flags & OBJECT_DELETE_MARKER)
				buf_adds(&text, ":x");
			else if (request.versions)
				buf_addf(&text, ":%llu", (unsigned long long)entry->size);
			if (request.versions && entry->flags & OBJECT_LATEST)
				buf_addc(&text, '*');
		}
		free(token);
		token = page.next ? strdup(page.next) : NULL;
		list_page_clear(&page);
	} while (token);
	cr_assert_str_eq(text.data, expected, "listed: %s", text.data);
	buf_free(&text);
}

static void expect_keys(const char *expected)
{
	static const unsigned pages[] = {0, 1, 2};

	for (size_t i = 0; i < 3; i++)
		expect_list((struct list_request){.prefix = "", .max = pages[i]}, expected);
}

static void expect_versions(const char *expected)
{
	static const unsigned pages[] = {0, 1, 2};

	for (size_t i = 0; i < 3; i++)
		expect_list((struct list_request){.prefix = "", .versions = true, .max = pages[i]}, expected);
}

/* How many files lie in .varve/tmp. */
static int leftovers(void)
{
	DIR *tmp = opendir(path_of(LOCAL_TMP));
	int count = 0;

	cr_assert(tmp, "no %s", LOCAL_TMP);
	while (readdir(tmp))
		count++;
	(void)closedir(tmp);
	return count - 2;
}

/* --- the tree ----------------------------------------------------------------------------------------------- */

Test(local_store, is_a_readable_tree)
{
	char text[16] = {0};
	FILE *file;

	OK(put("a/b/c.txt", "content"));
	file = fopen(path_of("a/b/c.txt"), "r");
	cr_assert(file, "no file");
	cr_assert_eq(fread(text, 1, sizeof(text) - 1, file), 7);
	(void)fclose(file);
	cr_assert_str_eq(text, "content");
	cr_assert_eq(leftovers(), 0);
}

Test(local_store, directories_come_and_go_with_their_keys)
{
	OK(put("a/b/c", "x"));
	OK(put("kept/", ""));
	OK(put("kept/x", "x"));
	OK(drop("a/b/c", NULL));
	OK(drop("kept/x", NULL));
	cr_assert(!exists("a"), "an empty directory that was no object is left");
	cr_assert(exists("kept"), "a marker went with its last file");
	expect_keys("kept/");
}

Test(local_store, other_tools_files_are_objects)
{
	struct object_info first = {0}, again = {0}, edited = {0};

	write_file("theirs", "one");
	cr_assert_eq(mkdir(path_of("empty"), 0777), 0);
	OK(head("theirs", &first));
	OK(head("theirs", &again));
	cr_assert(first.size == 3 && strlen(first.native_id) >= 16, "facts");
	cr_assert_str_eq(first.etag, again.etag);
	write_file("theirs", "two!");
	OK(head("theirs", &edited));
	cr_assert_str_neq(first.etag, edited.etag);
	expect_keys("empty/ theirs");
	/* Our overwrite keeps it, under the id it had. */
	OK(put("theirs", "three"));
	expect("theirs", edited.native_id, "two!");
	expect("theirs", NULL, "three");
	expect_versions("empty/:0* theirs:5* theirs:4");
	object_info_clear(&first);
	object_info_clear(&again);
	object_info_clear(&edited);
}

Test(local_store, edits_of_our_files_are_theirs)
{
	struct object_info ours = {0}, edited = {0};
	struct meta meta = {0};

	cr_assert_eq(meta_set(&meta, "color", "red"), 0);
	OK(put_meta("k", "one", &meta, &ours));
	write_file("k", "edited");
	OK(head("k", &edited));
	cr_assert_str_neq(ours.native_id, edited.native_id);
	cr_assert(!meta_get(&edited.meta, "color") && !(edited.flags & OBJECT_CRC32C), "facts of other content");
	OK(put("k", "three"));
	expect("k", edited.native_id, "edited");
	object_info_clear(&ours);
	object_info_clear(&edited);
	meta_clear(&meta);
}

Test(local_store, hard_links_do_not_reach_the_past)
{
	struct object_info info = {0};
	FILE *file;

	OK(put("k", "one"));
	OK(head("k", &info));
	cr_assert_eq(link(path_of("k"), "other-name-of-k"), 0);
	OK(put("k", "two"));
	file = fopen("other-name-of-k", "w");
	cr_assert(file, "no link");
	(void)fputs("spoiled", file);
	(void)fclose(file);
	expect("k", info.native_id, "one");
	(void)unlink("other-name-of-k");
	object_info_clear(&info);
}

Test(local_store, links_and_devices_are_no_objects)
{
	struct object_info info;

	OK(put("real/file", "x"));
	cr_assert_eq(symlink("/etc", path_of("etc")), 0);
	cr_assert_eq(symlink("real", path_of("inside")), 0);
	cr_assert_eq(symlink("real/file", path_of("link")), 0);
	cr_assert_eq(mkfifo(path_of("fifo"), 0666), 0);
	expect_keys("real/file");
	FAILS(ERR_NOT_FOUND, head("etc/hostname", &info));
	FAILS(ERR_NOT_FOUND, head("inside/file", &info));
	FAILS(ERR_NOT_FOUND, head("link", &info));
	FAILS(ERR_NOT_FOUND, head("fifo", &info));
	FAILS(ERR_CONFLICT, put("etc/new", "x"));
	FAILS(ERR_CONFLICT, put("inside/new", "x"));
	FAILS(ERR_CONFLICT, put("link", "x"));
	FAILS(ERR_CONFLICT, put("fifo", "x"));
	cr_assert(!exists("real/new"), "written through a link");
	cr_assert_eq(leftovers(), 0);
}

Test(local_store, file_and_directory_clash)
{
	OK(put("a", "x"));
	FAILS(ERR_CONFLICT, put("a/b", "x"));
	FAILS(ERR_CONFLICT, put("a/", ""));
	OK(put("d/e", "x"));
	FAILS(ERR_CONFLICT, put("d", "x"));
	OK(put("m/", ""));
	FAILS(ERR_CONFLICT, put("m", "x"));
	expect_keys("a d/e m/");
	cr_assert_eq(leftovers(), 0);
}

/* What a kill leaves between the making of directories and the placing of what is to lie in them, or at their end. */
Test(local_store, directories_without_anything_give_way_to_a_file)
{
	cr_assert_eq(mkdir(path_of("s"), 0755), 0);
	cr_assert_eq(mkdir(path_of("s/t"), 0755), 0);
	cr_assert_eq(mkdir(path_of("s/u"), 0755), 0);
	OK(put("s", "x"));
	expect_keys("s");
	OK(put("n/m/", ""));
	FAILS(ERR_CONFLICT, put("n", "x"));
	cr_assert_eq(mkdir(path_of("o"), 0755), 0);
	cr_assert_eq(mkfifo(path_of("o/fifo"), 0666), 0);
	FAILS(ERR_CONFLICT, put("o", "x"));
	expect_keys("n/m/ o/ s");
	cr_assert_eq(leftovers(), 0);
}

static void *come_and_go(void *arg)
{
	for (int i = 0; i < 3000; i++) {
		(void)put("n/m/o/p", "x"); /* refused while the file is there */
		(void)drop("n/m/o/p", NULL);
	}
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

/* Directories that go while they are looked through are no error of the file that needs their name. */
Test(local_store, a_file_meets_directories_that_go_by_themselves)
{
	atomic_bool done = false;
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, come_and_go, &done), 0);
	while (!atomic_load(&done)) {
		if (put("n/m", "y"))
			cr_assert_eq(err.kind, ERR_CONFLICT, "%s", err.message);
		else
			OK(drop("n/m", NULL));
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(local_store, own_folders_are_closed_to_keys)
{
	struct object_info info;

	FAILS(ERR_CONFLICT, put(".varve/tmp/x", "x"));
	FAILS(ERR_CONFLICT, put(".varve/odd", "x"));
	FAILS(ERR_CONFLICT, head(".varve/objects/lock", &info));
	OK(put(".varve/catalog/1", "x"));
	OK(put(".varve/objects-2", "x"));
	expect_keys(".varve/catalog/1 .varve/objects-2");
	expect_list((struct list_request){.prefix = "", .delimiter = '/'}, ".varve/");
	expect_list((struct list_request){.prefix = ".varve/", .delimiter = '/'}, ".varve/catalog/ .varve/objects-2");
	OK(drop(".varve/catalog/1", NULL));
	OK(drop(".varve/objects-2", NULL));
	expect_keys("");
	expect_list((struct list_request){.prefix = "", .delimiter = '/'}, "");
}

Test(local_store, keys_no_path_can_hold)
{
	static const char *const keys[] = {"/lead", "a//b", "a/../b", "a/./c", "..", "d/"};
	char text[8];

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		OK(put(keys[i], "old"));
		(void)snprintf(text, sizeof(text), "new %zu", i);
		OK(put(keys[i], text));
		expect(keys[i], NULL, text);
	}
	OK(put("a/x", "tree"));
	expect_keys(".. /lead a/../b a/./c a//b a/x d/");
	expect_list((struct list_request){.prefix = "", .delimiter = '/'}, ".. / a/ d/");
	expect_list((struct list_request){.prefix = "a/", .delimiter = '/', .max = 1}, "a/../ a/./ a// a/x");
	expect_list((struct list_request){.prefix = "a//"}, "a//b");
	expect_versions("..:5* ..:3 /lead:5* /lead:3 a/../b:5* a/../b:3 a/./c:5* a/./c:3 a//b:5* a//b:3 a/x:4* d/:5* "
			"d/:3");
	OK(drop("a//b", NULL));
	OK(drop("d/", NULL));
	expect_keys(".. /lead a/../b a/./c a/x");
	cr_assert(!exists("b") && !exists("d"), "an odd key reached the tree");
}

Test(local_store, components_too_long_for_a_name)
{
	char key[4001] = {0};
	struct object_info info;

	memset(key, 'k', 256);
	OK(put(key, "x"));
	expect(key, NULL, "x");
	memset(key, 'k', 4000);
	for (size_t i = 100; i < 4000; i += 101)
		key[i] = '/';
	OK(put(key, "y"));
	expect(key, NULL, "y");
	OK(drop(key, NULL));
	FAILS(ERR_NOT_FOUND, head(key, &info));
}

Test(local_store, marker_content_moves_between_forms)
{
	OK(put("d/", ""));
	OK(put("d/", "content"));
	expect("d/", NULL, "content");
	OK(put("d/", ""));
	expect("d/", NULL, "");
	expect_versions("d/:0* d/:7 d/:0");
	OK(drop("d/", NULL));
	expect_keys("");
}

Test(local_store, opens_a_file)
{
	int fd = -1;
	char text[8] = {0};

	OK(put("k", "text"));
	OK(local_backend_ops.open_local(backend, &(struct object_ref){.key = "k"}, &fd, &err));
	cr_assert_eq(read(fd, text, sizeof(text)), 4);
	cr_assert_lt(write(fd, "x", 1), 0);
	(void)close(fd);
	FAILS(ERR_NOT_FOUND, local_backend_ops.open_local(backend, &(struct object_ref){.key = "none"}, &fd, &err));
}

/* --- stamps --------------------------------------------------------------------------------------------------- */

/* Everything the store does with metadata, which may lie in an attribute or beside. */
static void exercise_stamps(size_t value_size)
{
	char *value = malloc(value_size + 1);
	struct meta meta = {0};
	struct object_info first = {0}, info = {0};

	memset(value, 'v', value_size);
	value[value_size] = '\0';
	cr_assert_eq(meta_set(&meta, "value", value), 0);
	OK(put_meta("k", "one", &meta, &first));
	OK(put_meta("d/", "", &meta, NULL));
	OK(head("k", &info));
	cr_assert_str_eq(info.native_id, first.native_id);
	cr_assert_str_eq(meta_get(&info.meta, "value"), value);
	object_info_clear(&info);
	OK(head("d/", &info));
	cr_assert_str_eq(meta_get(&info.meta, "value"), value);
	object_info_clear(&info);
	OK(put("k", "two"));
	OK(local_backend_ops.head(backend, &now, &(struct object_ref){.key = "k", .native_id = first.native_id}, &info,
				  &err));
	cr_assert_str_eq(info.etag, first.etag);
	cr_assert_str_eq(meta_get(&info.meta, "value"), value);
	object_info_clear(&info);
	expect_versions("d/:0* k:3* k:3");
	OK(put("d/f", "x"));
	OK(drop("d/f", NULL));
	expect_keys("d/ k");
	OK(head("k", &info));
	OK(drop("k", info.native_id));
	expect("k", first.native_id, "one");
	OK(drop("k", first.native_id));
	expect_list((struct list_request){.prefix = "k", .versions = true}, "");
	object_info_clear(&info);
	object_info_clear(&first);
	meta_clear(&meta);
	free(value);
}

Test(local_store, metadata_in_attributes)
{
	exercise_stamps(100);
}

Test(local_store, metadata_too_long_for_attributes)
{
	exercise_stamps(30000);
}

/* Mounts a filesystem of its own at `point`; false where that is not allowed. */
static bool mount_own(const char *type, const char *options, char *point)
{
	cr_assert(mkdtemp(point), "no directory");
	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	return mount("varve-test", point, type, 0, options) == 0;
}

Test(local_filesystem, without_attributes)
{
	char point[] = "/tmp/varve-ramfs-XXXXXX";

	cr_assert(mount_own("ramfs", NULL, point), "mounting: %s", strerror(errno));
	start_in(point);
	exercise_stamps(100);
	stop();
	(void)umount(point);
	(void)rmdir(point);
}

static int noise(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	(void)arg;
	(void)offset;
	memset(ret_bytes, 'n', len);
	return 0;
}

Test(local_filesystem, full)
{
	char point[] = "/tmp/varve-tmpfs-XXXXXX";
	struct put_request large = {.key = "new/large", .source = noise, .size = 4 << 20};

	cr_assert(mount_own("tmpfs", "size=2m", point), "mounting: %s", strerror(errno));
	start_in(point);
	OK(put("k", "one"));
	FAILS(ERR_QUOTA, local_backend_ops.put(backend, &now, &large, NULL, &err));
	large.key = "k";
	FAILS(ERR_QUOTA, local_backend_ops.put(backend, &now, &large, NULL, &err));
	expect("k", NULL, "one");
	expect_versions("k:3*");
	cr_assert_eq(leftovers(), 0);
	OK(put("k", "two"));
	stop();
	(void)umount(point);
	(void)rmdir(point);
}

/* --- probing ---------------------------------------------------------------------------------------------------- */

Test(local_store, probe_tells_what_is_wrong)
{
	struct backend *other;

	(void)snprintf(url, sizeof(url), "file://%s/missing/deeper", dir);
	other = open_store(false);
	FAILS(ERR_NOT_FOUND, probe(other));
	local_backend_ops.close(other);
	other = open_store(true);
	OK(probe(other));
	local_backend_ops.close(other);
	write_file("plain", "x");
	(void)snprintf(url, sizeof(url), "file://%s/plain", dir);
	other = open_store(false);
	FAILS(ERR_CONFIGURATION, probe(other));
	local_backend_ops.close(other);
}

Test(local_store, unwritable_directory_is_denied)
{
	struct backend *other = open_store(false);

	cr_assert_eq(chmod(dir, 0555), 0);
	if (geteuid() == 0)
		cr_assert_eq(seteuid(65534), 0);
	FAILS(ERR_DENIED, probe(other));
	if (getuid() == 0)
		cr_assert_eq(seteuid(0), 0);
	local_backend_ops.close(other);
	cr_assert_eq(chmod(dir, 0755), 0);
}

Test(local_store, reads_without_writing)
{
	struct backend_options options = {.url = url, .read_only = true};
	struct backend *reader = NULL;

	OK(put("k", "x"));
	OK(local_backend_ops.open(&options, &reader, &err));
	OK(probe(reader));
	local_backend_ops.close(backend);
	backend = reader;
	expect("k", NULL, "x");
	FAILS(ERR_DENIED, drop("k", NULL));
}

Test(local_store, urls)
{
	static const char *const wrong[] = {"file:/dir", "file://host/dir", "file://dir", "file://", "dir"};
	struct backend *other = NULL;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		FAILS(ERR_CONFIGURATION,
		      local_backend_ops.open(&(struct backend_options){.url = wrong[i]}, &other, &err));
	(void)snprintf(url, sizeof(url), "file://localhost%s/with%%20space/", dir);
	other = open_store(true);
	OK(probe(other));
	cr_assert(exists("with space"), "no decoding");
	local_backend_ops.close(other);
}

/* --- crashes ------------------------------------------------------------------------------------------------------ */

static void make_old(const char *name)
{
	struct timespec times[2] = {{.tv_sec = time(NULL) - 7200}, {.tv_sec = time(NULL) - 7200}};

	cr_assert_eq(utimensat(AT_FDCWD, path_of(name), times, 0), 0);
}

Test(local_store, sweeps_old_leftovers_only)
{
	struct backend *next;

	write_file(LOCAL_TMP "/told", "x");
	cr_assert_eq(mkdir(path_of(LOCAL_TMP "/uold"), 0700), 0);
	write_file(LOCAL_TMP "/uold/000001.x", "x");
	write_file(LOCAL_TMP "/tnew", "x");
	make_old(LOCAL_TMP "/told");
	make_old(LOCAL_TMP "/uold");
	next = open_store(false);
	OK(probe(next));
	local_backend_ops.close(next);
	cr_assert(!exists(LOCAL_TMP "/told") && !exists(LOCAL_TMP "/uold"), "old leftovers");
	cr_assert(exists(LOCAL_TMP "/tnew"), "a live process's file");
}

Test(local_store, sweeps_all_leftovers_when_nobody_else_is_there)
{
	write_file(LOCAL_TMP "/tnew", "x");
	cr_assert_eq(mkdir(path_of(LOCAL_TMP "/unew"), 0700), 0);
	write_file(LOCAL_TMP "/unew/whole", "x");
	local_backend_ops.close(backend);
	backend = open_store(false);
	OK(probe(backend));
	cr_assert_eq(leftovers(), 0);
}

/* --- uploads --------------------------------------------------------------------------------------------------- */

#define PART ((size_t)8 << 20)

/* 64 KiB of 'n' at the beginning of every 4 MiB, zeros between. */
static int sparse(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	char *bytes = ret_bytes;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (*(const uint64_t *)arg + offset + i) % (4 << 20) < 65536 ? 'n' : 0;
	return 0;
}

static char *begin(const char *key)
{
	char *id = NULL;

	OK(local_backend_ops.upload_begin(backend, &now, &(struct put_request){.key = key}, &id, &err));
	return id;
}

static int send(const char *key, const char *id, unsigned number, backend_source_fn source, struct upload_part *part)
{
	const struct upload_slot slot = {.number = number, .offset = (number - 1) * PART};
	uint64_t offset = slot.offset;
	const struct put_request body = {.source = source, .source_arg = &offset, .size = PART};

	return local_backend_ops.upload_part(backend, &now, key, id, &body, &slot, part, &err);
}

static int complete(const char *key, const char *id, const struct upload_part *parts, size_t count)
{
	const struct put_request request = {.key = key, .size = count * PART};

	return local_backend_ops.upload_complete(backend, &now, &request, id, parts, count, NULL, &err);
}

static struct stat stat_of(const char *name)
{
	struct stat st;

	cr_assert_eq(stat(path_of(name), &st), 0, "%s: %s", name, strerror(errno));
	return st;
}

static const char *in_upload(const char *id, const char *name)
{
	static char path[200];

	(void)snprintf(path, sizeof(path), LOCAL_TMP "/%s/%s", id, name);
	return path;
}

static void expect_sparse(const char *key, uint64_t size)
{
	struct stat st = stat_of(key);
	int fd = open(path_of(key), O_RDONLY);
	char byte;

	cr_assert_eq((uint64_t)st.st_size, size);
	cr_assert((uint64_t)st.st_blocks * 512 <= size / (4 << 20) * 65536 * 2, "%s takes %llu bytes", key,
		  (unsigned long long)st.st_blocks * 512);
	for (uint64_t at = 0; at < size; at += 4 << 20) {
		cr_assert(pread(fd, &byte, 1, (off_t)(at + 65535)) == 1 && byte == 'n');
		cr_assert(pread(fd, &byte, 1, (off_t)(at + 65536)) == 1 && byte == 0);
	}
	(void)close(fd);
}

Test(local_store, parts_are_written_where_they_stay)
{
	struct upload_part parts[2] = {0};
	char *id = begin("large");
	struct stat whole;

	OK(send("large", id, 2, noise, &parts[1]));
	OK(send("large", id, 1, noise, &parts[0]));
	whole = stat_of(in_upload(id, "whole"));
	OK(complete("large", id, parts, 2));
	cr_assert_eq(stat_of("large").st_ino, whole.st_ino, "it was copied");
	cr_assert_eq(leftovers(), 0);
	free(id);
	upload_part_clear(&parts[0]);
	upload_part_clear(&parts[1]);
}

Test(local_store, holes_stay_holes)
{
	const struct upload_slot third = {.number = 3, .offset = 2 * PART};
	struct get_request copied = {.object.key = "put", .length = PART, .expected_size = UINT64_MAX};
	uint64_t zero = 0;
	struct put_request whole = {.key = "put", .source = sparse, .source_arg = &zero, .size = 2 * PART};
	struct copy_request copy = {.source.key = "put", .key = "copy"};
	struct upload_part parts[3] = {0};
	char *id = begin("large");

	OK(local_backend_ops.put(backend, &now, &whole, NULL, &err));
	expect_sparse("put", 2 * PART);
	OK(local_backend_ops.copy(backend, &now, &copy, NULL, &err));
	expect_sparse("copy", 2 * PART);
	OK(send("large", id, 1, noise, &parts[0])); /* and again: what the first one left becomes holes */
	upload_part_clear(&parts[0]);
	OK(send("large", id, 1, sparse, &parts[0]));
	OK(send("large", id, 2, sparse, &parts[1]));
	copied.offset = PART;
	OK(local_backend_ops.upload_part_copy(backend, &now, "large", id, &copied, &third, &parts[2], &err));
	OK(complete("large", id, parts, 3));
	expect_sparse("large", 3 * PART);
	free(id);
	for (size_t i = 0; i < 3; i++)
		upload_part_clear(&parts[i]);
}

static int breaks(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	return offset ? -EIO : noise(arg, ret_bytes, len, offset);
}

Test(local_store, a_part_partly_overwritten_does_not_count)
{
	struct upload_part part = {0}, again = {0};
	char *id = begin("large");

	OK(send("large", id, 1, sparse, &part));
	cr_assert(send("large", id, 1, breaks, &again) < 0);
	FAILS(ERR_CONFLICT, complete("large", id, &part, 1));
	cr_assert(!exists("large"));
	upload_part_clear(&part);
	OK(send("large", id, 1, sparse, &part));
	OK(complete("large", id, &part, 1));
	expect_sparse("large", PART);
	upload_part_clear(&part);
	free(id);
}

struct meddler {
	const char *id;
	const struct upload_part *part;
	bool has_run;
};

/* While it is read the other part is completed, which must not be. */
static int completes(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	struct meddler *meddler = arg;

	if (!meddler->has_run)
		FAILS(ERR_CONFLICT, complete("large", meddler->id, meddler->part, 1));
	meddler->has_run = true;
	return noise(NULL, ret_bytes, len, offset);
}

Test(local_store, nothing_is_completed_under_a_writer)
{
	const struct upload_slot second = {.number = 2, .offset = PART};
	struct upload_part parts[2] = {0};
	char *id = begin("large");
	struct meddler meddler = {.id = id, .part = &parts[0]};
	const struct put_request body = {.source = completes, .source_arg = &meddler, .size = PART};

	OK(send("large", id, 1, noise, &parts[0]));
	OK(local_backend_ops.upload_part(backend, &now, "large", id, &body, &second, &parts[1], &err));
	cr_assert(meddler.has_run && !exists("large"));
	OK(complete("large", id, parts, 2));
	FAILS(ERR_NOT_FOUND, send("large", id, 1, sparse, &parts[0]));
	cr_assert_geq(stat_of("large").st_blocks * 512, 2 * (blkcnt_t)PART, "its bytes were taken away");
	free(id);
	upload_part_clear(&parts[0]);
	upload_part_clear(&parts[1]);
}

Test(local_store, crash_before_the_deletion)
{
	/* The marker is placed and the object still there: it was not deleted. */
	OK(put("k", "one"));
	OK(put("k", "two"));
	write_file(LOCAL_PAST "/k/k/deleting", "ffffffffffffffff00000000");
	expect("k", NULL, "two");
	expect_versions("k:3* k:3");
	OK(put("k", "three"));
	expect_versions("k:5* k:3 k:3");
}

Test(local_store, crash_after_the_deletion)
{
	struct object_info info = {0};
	char id[] = "0000000000000000ffffffff";

	OK(put("k", "one"));
	OK(put("k", "two"));
	OK(head("k", &info));
	(void)snprintf(id, sizeof(id), "%.16s", info.native_id);
	memset(id + 16, 'f', 8);
	OK(drop("k", info.native_id)); /* "one" is current again */
	OK(drop("k", NULL));
	OK(put("other", "x"));
	expect_versions("k:x* k:3 other:1*");
	object_info_clear(&info);
}

Test(local_store, crash_between_keeping_and_replacing)
{
	char kept[200];
	char current[400];
	struct object_info info = {0};

	OK(put("k", "one"));
	OK(put("k", "two"));
	OK(head("k", &info));
	(void)snprintf(kept, sizeof(kept), LOCAL_PAST "/k/k/%s", info.native_id);
	(void)snprintf(current, sizeof(current), "%s/k", dir);
	cr_assert_eq(link(current, path_of(kept)), 0);
	expect_versions("k:3* k:3");
	OK(put("k", "three"));
	expect_versions("k:5* k:3 k:3");
	expect("k", info.native_id, "two");
	object_info_clear(&info);
}

static void overwrite_for_ever(const char *other)
{
	const char *texts[] = {"old content", "new"};

	backend = open_store(false);
	if (probe(backend))
		_exit(1);
	for (int i = 0;; i++)
		if (put("dir/k", texts[i % 2]) || put(other, "x") || drop(other, NULL))
			_exit(1);
}

Test(local_store, killed_at_any_moment)
{
	for (int round = 0; round < 20; round++) {
		struct list_page page = {0};
		struct object_info info = {0};
		pid_t child;

		OK(put("dir/k", "old content"));
		child = fork();
		if (child == 0)
			overwrite_for_ever("dir/other");
		(void)usleep(2000 + (useconds_t)round * 1700);
		cr_assert_eq(waitpid(child, NULL, WNOHANG), 0, "the child failed");
		(void)kill(child, SIGKILL);
		(void)waitpid(child, NULL, 0);
		OK(head("dir/k", &info));
		cr_assert(info.flags & OBJECT_CRC32C, "the stamp is void");
		expect("dir/k", NULL, info.size == 3 ? "new" : "old content");
		object_info_clear(&info);
		OK(local_backend_ops.list(backend, &now, &(struct list_request){.prefix = "dir/k", .versions = true},
					  &page, &err));
		for (size_t i = 0; i < page.count; i++) {
			const struct object_info *entry = &page.entries[i];

			cr_assert(entry->flags & OBJECT_CRC32C, "a version without its stamp");
			expect("dir/k", entry->native_id, entry->size == 3 ? "new" : "old content");
			cr_assert(i == 0 || strcmp(page.entries[i - 1].native_id, entry->native_id) > 0, "order");
		}
		list_page_clear(&page);
	}
}

/* --- several processes -----------------------------------------------------------------------------------------------
 */

#define PROCESSES 4
#define PUTS 25

static int compete(int number)
{
	struct put_request once = {.key = "once", .source = noise, .size = 10, .condition.if_none_match = true};
	char text[32];
	int wins = 0;

	backend = open_store(false);
	if (probe(backend))
		return 99;
	for (int i = 0; i < PUTS; i++) {
		(void)snprintf(text, sizeof(text), "%d %d", number, i);
		if (put("shared/key", text))
			return 98;
	}
	wins = local_backend_ops.put(backend, &now, &once, NULL, &err) == 0;
	if (!wins && err.kind != ERR_PRECONDITION)
		return 97;
	local_backend_ops.close(backend);
	return wins;
}

Test(local_store, processes_share_a_key)
{
	pid_t children[PROCESSES];
	struct list_page page = {0};
	int wins = 0;

	for (int i = 0; i < PROCESSES; i++) {
		children[i] = fork();
		if (children[i] == 0)
			_exit(compete(i));
	}
	for (int i = 0; i < PROCESSES; i++) {
		int status;

		(void)waitpid(children[i], &status, 0);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2, "child %d: status %d", i, status);
		wins += WEXITSTATUS(status);
	}
	cr_assert_eq(wins, 1, "%d winners", wins);
	OK(local_backend_ops.list(backend, &now, &(struct list_request){.prefix = "shared/", .versions = true}, &page,
				  &err));
	cr_assert_eq(page.count, PROCESSES * PUTS, "%zu versions", page.count);
	for (size_t i = 1; i < page.count; i++)
		cr_assert(strcmp(page.entries[i - 1].native_id, page.entries[i].native_id) > 0, "order");
	list_page_clear(&page);
}

Test(local_store, more_listings_than_wait)
{
	char *tokens[3 * LOCAL_WALKERS];

	for (int i = 0; i < 6; i++)
		OK(put((const char *[]){"a", "b/c", "b/d", "e", "f/g/h", "i"}[i], "x"));
	for (size_t i = 0; i < 3 * LOCAL_WALKERS; i++) {
		struct list_page page = {0};

		OK(local_backend_ops.list(backend, &now, &(struct list_request){.prefix = "", .max = 2}, &page, &err));
		tokens[i] = page.next;
		page.next = NULL;
		list_page_clear(&page);
	}
	for (size_t i = 0; i < 3 * LOCAL_WALKERS; i++) {
		struct list_page page = {0};

		OK(local_backend_ops.list(backend, &now,
					  &(struct list_request){.prefix = "", .max = 2, .token = tokens[i]}, &page,
					  &err));
		cr_assert(page.count == 2 && strcmp(page.entries[0].key, "b/d") == 0, "listing %zu", i);
		list_page_clear(&page);
		free(tokens[i]);
	}
	FAILS(ERR_CONFIGURATION,
	      local_backend_ops.list(backend, &now, &(struct list_request){.prefix = "", .token = "rubbish"},
				     &(struct list_page){0}, &err));
}
