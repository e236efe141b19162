/*
 * drill.c - the parts of a restore drill (bench/rebuild.sh): fills a store as a mount would have left it after some
 * years, and compares what was rebuilt from it with what was put there. Not part of varve.
 *
 *     drill fill URL ENDPOINT FILES VERSIONS      that many versions of that many files, the oldest first
 *     drill forget URL ENDPOINT PREFIX            removes all beneath the prefix, with every version
 *     drill time COMMAND…                         runs it; prints wall and processor seconds and its peak memory in MiB
 *     drill catalog STATE FILES VERSIONS          every version in the catalog: its identity, times, size and place
 *     drill look MNT FILES VERSIONS               some of the files through the kernel: names of versions, and bytes
 *
 * What version v of file f is follows from the two numbers, so nothing need be kept to compare with.
 *
 * Threads: WRITERS for fill and forget, each with requests of its own; the rest on the main one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "catalog/catalog_internal.h"
#include "checksum.h"
#include "clock.h"
#include "fs/objmeta.h"
#include "transfer.h"

#define WRITERS 48
#define IN_DIR 100 /* files of a directory */
#define SAMPLES 40
#define BEGAN INT64_C(1577836800000) /* ms: 2020-01-01 */

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "drill: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 10);
}

/* --- what a version is --------------------------------------------------------------------------------------- */

struct drill {
	uint64_t files, versions;
	struct transfer *transfer;
	struct backend *backend;
	_Atomic uint64_t next;
	struct object_info *objects; /* forget: to be removed */
	size_t count, cap;
};

static void file_id(uint64_t file, uint8_t ret_id[static CAT_FILE_ID_SIZE])
{
	uint8_t digest[SHA256_SIZE];

	sha256_of(&file, sizeof(file), digest);
	memcpy(ret_id, digest, CAT_FILE_ID_SIZE);
}

static uint64_t seq_of(const struct drill *drill, uint64_t file, uint64_t version)
{
	return 1000 + 10 * (version * drill->files + file);
}

static int64_t commit_ms(const struct drill *drill, uint64_t file, uint64_t version)
{
	return BEGAN + (int64_t)seq_of(drill, file, version);
}

static void key_of(uint64_t file, char ret_key[static 48])
{
	(void)snprintf(ret_key, 48, "d%06" PRIu64 "/f%06" PRIu64 ".txt", file / IN_DIR, file);
}

static int body_of(uint64_t file, uint64_t version, char ret_body[static 64])
{
	return snprintf(ret_body, 64, "file %" PRIu64 ", version %" PRIu64 "%.*s\n", file, version, (int)version % 8,
			"........");
}

/* --- filling ------------------------------------------------------------------------------------------------- */

static void open_store(struct drill *drill, const char *url, const char *endpoint)
{
	const struct backend_options options = {.url = url, .endpoint = endpoint, .create = true};
	const struct transfer_options transfer = {.threads = 4};
	struct call call = {.deadline_ns = clock_monotonic() + 60 * NS_PER_SEC};
	struct err err = {0};
	const struct backend_ops *ops = backend_find(url, &err);

	if (!ops || ops->open(&options, &drill->backend, &err) ||
	    transfer_new(drill->backend, &transfer, &drill->transfer, &err) ||
	    transfer_probe(drill->transfer, &call, &err)) {
		(void)fprintf(stderr, "drill: %s: %s\n", url, err.message);
		exit(2);
	}
}

static void close_store(struct drill *drill)
{
	transfer_free(drill->transfer);
	backend_ops(drill->backend)->close(drill->backend);
}

static void on_writers(struct drill *drill, void *(*work)(void *arg))
{
	pthread_t threads[WRITERS];

	for (int i = 0; i < WRITERS; i++)
		must(pthread_create(&threads[i], NULL, work, drill) == 0, "thread");
	for (int i = 0; i < WRITERS; i++)
		(void)pthread_join(threads[i], NULL);
}

static int read_body(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	memcpy(ret_bytes, (const char *)arg + offset, len);
	return 0;
}

static void put_one(struct drill *drill, uint64_t file, uint64_t version)
{
	char key[48], body[64];
	struct objmeta facts = {
		.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME | OBJMETA_FILE_ID | OBJMETA_SEQ |
		       OBJMETA_COMMIT | OBJMETA_ORIGIN | OBJMETA_EPOCH | OBJMETA_CRC32C,
		.mode = S_IFREG | 0640,
		.mtime = commit_ms(drill, file, version) * NS_PER_MS,
		.commit_ns = commit_ms(drill, file, version) * NS_PER_MS,
		.seq = seq_of(drill, file, version),
		.epoch = 1,
	};
	struct put_request request = {.key = key, .source = read_body, .source_arg = body, .has_crc32c = true};
	struct object_info info = {0};
	struct call call = {0};
	struct err err = {0};
	struct meta meta;

	key_of(file, key);
	request.size = (uint64_t)body_of(file, version, body);
	request.crc32c = facts.crc32c = crc32c_update(0, body, request.size);
	file_id(file, facts.file_id);
	must(objmeta_encode(&facts, &meta) == 0, "memory");
	request.meta = &meta;
	if (transfer_put(drill->transfer, &call, &request, &info, &err)) {
		(void)fprintf(stderr, "drill: %s: %s\n", key, err.message);
		exit(2);
	}
	object_info_clear(&info);
	meta_clear(&meta);
}

static void *fill_work(void *arg)
{
	struct drill *drill = arg;
	uint64_t at;

	while ((at = atomic_fetch_add(&drill->next, 1)) < drill->files * drill->versions) {
		put_one(drill, at % drill->files, at / drill->files);
		if (at % 20000 == 0)
			(void)fprintf(stderr, "%" PRIu64 " of %" PRIu64 " versions\n", at,
				      drill->files * drill->versions);
	}
	return NULL;
}

static int fill(char **argv)
{
	struct drill drill = {.files = number(argv[2]), .versions = number(argv[3])};

	open_store(&drill, argv[0], argv[1]);
	on_writers(&drill, fill_work);
	close_store(&drill);
	return 0;
}

/* --- forgetting ---------------------------------------------------------------------------------------------- */

static void *forget_work(void *arg)
{
	struct drill *drill = arg;
	uint64_t at;

	while ((at = atomic_fetch_add(&drill->next, 1)) < drill->count) {
		struct object_info *info = &drill->objects[at];
		struct object_ref object = {.key = info->key, .native_id = info->native_id};
		struct err err = {0};
		struct call call = {0};

		if (transfer_remove(drill->transfer, &call, &object, NULL, &err)) {
			(void)fprintf(stderr, "drill: %s: %s\n", info->key, err.message);
			exit(2);
		}
		object_info_clear(info);
	}
	return NULL;
}

static void take_page(struct drill *drill, struct list_page *page)
{
	for (size_t i = 0; i < page->count; i++) {
		if (drill->count == drill->cap) {
			drill->cap = drill->cap ? 2 * drill->cap : 1024;
			drill->objects = reallocarray(drill->objects, drill->cap, sizeof(*drill->objects));
			must(drill->objects, "memory");
		}
		drill->objects[drill->count++] = page->entries[i];
		page->entries[i] = (struct object_info){0};
	}
	list_page_clear(page);
}

static int forget(char **argv)
{
	struct drill drill = {0};
	struct list_request request = {.prefix = argv[2]};
	char *token = NULL;

	open_store(&drill, argv[0], argv[1]);
	request.versions = transfer_can(drill.transfer, BACKEND_VERSIONS);
	do {
		struct list_page page = {0};
		struct call call = {0};
		struct err err = {0};

		request.token = token;
		if (transfer_list(drill.transfer, &call, &request, &page, &err)) {
			(void)fprintf(stderr, "drill: %s\n", err.message);
			exit(2);
		}
		free(token);
		token = page.next;
		page.next = NULL;
		take_page(&drill, &page);
	} while (token);
	on_writers(&drill, forget_work);
	(void)printf("%zu objects removed\n", drill.count);
	free(drill.objects);
	close_store(&drill);
	return 0;
}

/* --- time ---------------------------------------------------------------------------------------------------- */

static double seconds_of(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int run_timed(char **argv)
{
	int64_t began = clock_monotonic();
	struct rusage usage;
	int status;
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		(void)execvp(argv[0], argv);
		_exit(127);
	}
	must(wait4(pid, &status, 0, &usage) == pid, argv[0]);
	(void)printf("%.1f s, %.1f s of processor time (%.1f system), %.0f MiB at most\n",
		     (double)(clock_monotonic() - began) / (double)NS_PER_SEC,
		     seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime), seconds_of(usage.ru_stime),
		     (double)usage.ru_maxrss / 1024);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* --- the catalog --------------------------------------------------------------------------------------------- */

struct checked {
	const struct drill *drill;
	uint64_t file, at; /* at: the version that should come next */
	struct cat_txn *txn;
	uint64_t good, wrong;
};

static void tell_wrong(struct checked *checked, const char *what, uint64_t version)
{
	if (checked->wrong++ < 10)
		(void)fprintf(stderr, "file %" PRIu64 ", version %" PRIu64 ": %s\n", checked->file, version, what);
}

static int take_version(void *arg, const struct cat_version *version)
{
	struct checked *checked = arg;
	const struct drill *drill = checked->drill;
	uint64_t at = checked->at++;
	uint8_t id[CAT_FILE_ID_SIZE];
	struct cat_copy copy = {0};
	char body[64], key[48];
	const char *what = NULL;

	file_id(checked->file, id);
	key_of(checked->file, key);
	if (cat_copy_get(checked->txn, version->ino, version->seq, &copy) || strcmp(copy.key, key) != 0)
		what = "no copy at its key";
	else if (version->identity != cat_identity_own(id, seq_of(drill, checked->file, at)))
		what = "another identity";
	else if (version->shown_ms != commit_ms(drill, checked->file, at))
		what = "another time";
	else if (version->mtime != commit_ms(drill, checked->file, at) * NS_PER_MS)
		what = "another mtime";
	else if (version->size != (uint64_t)body_of(checked->file, at, body))
		what = "another size";
	cat_copy_clear(&copy);
	if (what)
		tell_wrong(checked, what, at);
	else
		checked->good++;
	return 0;
}

static int check_file(struct cat_txn *txn, void *arg)
{
	struct checked *checked = arg;
	struct cat_name dir, name;
	struct cat_inode inode;
	char key[48];
	int rc;

	checked->at = 0;
	checked->txn = txn;
	key_of(checked->file, key);
	*strchr(key, '/') = '\0';
	rc = cat_name_get(txn, CAT_ROOT_INO, key, &dir);
	if (!rc)
		rc = cat_name_get(txn, dir.ino, strchr(key, '\0') + 1, &name);
	if (!rc)
		rc = cat_inode_get(txn, name.ino, &inode);
	if (rc) {
		tell_wrong(checked, "is missing", 0);
		return rc == -ENOENT ? 0 : rc;
	}
	if ((inode.mode & 07777) != 0640)
		tell_wrong(checked, "another mode", 0);
	rc = cat_version_each(txn, inode.ino, 0, UINT64_MAX, take_version, checked);
	if (checked->at != checked->drill->versions)
		tell_wrong(checked, "so many versions, and no more", checked->at);
	return rc;
}

static int check_catalog(char **argv)
{
	struct drill drill = {.files = number(argv[1]), .versions = number(argv[2])};
	const struct catalog_options options = {.read_only = true};
	struct checked checked = {.drill = &drill};
	struct catalog *catalog;
	char dir[4096];

	(void)snprintf(dir, sizeof(dir), "%s/catalog", argv[0]);
	must(catalog_open(dir, &options, &catalog) == 0, dir);
	for (checked.file = 0; checked.file < drill.files; checked.file++)
		must(catalog_view(catalog, check_file, &checked) == 0, "catalog");
	catalog_close(catalog);
	(void)printf("%" PRIu64 " of %" PRIu64 " versions as they were put\n", checked.good,
		     drill.files * drill.versions);
	return checked.wrong ? 1 : 0;
}

/* --- through the kernel ---------------------------------------------------------------------------------------- */

static void version_name(const struct drill *drill, uint64_t file, uint64_t version, char ret_name[static 64])
{
	int64_t ms = commit_ms(drill, file, version);
	time_t seconds = (time_t)(ms / 1000);
	uint8_t id[CAT_FILE_ID_SIZE];
	struct tm tm;
	char text[32];

	file_id(file, id);
	(void)gmtime_r(&seconds, &tm);
	(void)strftime(text, sizeof(text), "%Y-%m-%dT%H-%M-%S", &tm);
	(void)snprintf(ret_name, 64, "%s.%03dZ~%08" PRIx32 ".txt", text, (int)(ms % 1000),
		       cat_identity_own(id, seq_of(drill, file, version)));
}

static uint64_t count_names(const char *path)
{
	uint64_t count = 0;
	DIR *dir = opendir(path);

	must(dir, path);
	for (struct dirent *at = readdir(dir); at; at = readdir(dir))
		count += at->d_name[0] != '.';
	(void)closedir(dir);
	return count;
}

static bool has_bytes(const char *path, const char *expected)
{
	char bytes[128];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	must(fd >= 0, path);
	n = read(fd, bytes, sizeof(bytes));
	(void)close(fd);
	return n == (ssize_t)strlen(expected) && memcmp(bytes, expected, (size_t)n) == 0;
}

static uint64_t look_at(const struct drill *drill, const char *mnt, uint64_t file)
{
	char key[48], path[600], name[64], body[64];
	uint64_t wrong = 0;

	key_of(file, key);
	*strchr(key, '/') = '\0';
	(void)snprintf(path, sizeof(path), "%s/%s/.versions/%s", mnt, key, strchr(key, '\0') + 1);
	wrong += count_names(path) != drill->versions;
	for (uint64_t version = 0; version < drill->versions; version++) {
		version_name(drill, file, version, name);
		(void)snprintf(path, sizeof(path), "%s/%s/.versions/%s/%s", mnt, key, strchr(key, '\0') + 1, name);
		(void)body_of(file, version, body);
		wrong += !has_bytes(path, body);
	}
	(void)snprintf(path, sizeof(path), "%s/%s/%s", mnt, key, strchr(key, '\0') + 1);
	return wrong + !has_bytes(path, body);
}

static int look(char **argv)
{
	struct drill drill = {.files = number(argv[1]), .versions = number(argv[2])};
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < SAMPLES; i++)
		wrong += look_at(&drill, argv[0], (i * UINT64_C(2654435761)) % drill.files);
	(void)printf("%d files looked at, %" PRIu64 " wrong\n", SAMPLES, wrong);
	return wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(char **argv);
		int words;
	} parts[] = {
		{"fill", fill, 4}, {"forget", forget, 3}, {"time", run_timed, 0}, {"catalog", check_catalog, 3},
		{"look", look, 3},
	};

	for (size_t i = 0; argc > 2 && i < sizeof(parts) / sizeof(parts[0]); i++)
		if (strcmp(argv[1], parts[i].word) == 0 && (!parts[i].words || argc == parts[i].words + 2))
			return parts[i].run(argv + 2);
	(void)fprintf(stderr, "usage: see tools/bench/drill.c\n");
	return 2;
}
