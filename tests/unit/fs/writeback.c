/* Tests of fs/writeback.c and the claims of fs/placement.c, on a memory store that fails when told to. */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/content.h"
#include "fs/writeback.h"
#include "tests/unit/fs/fixture.h"

struct world {
	struct store *store;
	struct machine machine;
	struct contents *contents;
	struct writeback *writeback;
};

static struct world world_on(enum store_kind kind, uint32_t hidden)
{
	struct world world = {.store = store_new(kind)};
	AUTO_FREE char *cache = fixture_path(world.store->dir, "cache");
	struct contents_options options = {.cache_dir = cache, .cache_limit = 64 << 20};

	world.store->hidden = hidden;
	world.machine = machine_on(world.store, "here");
	options.catalog = world.machine.catalog;
	options.transfer = world.machine.transfer;
	cr_assert(zero(int, contents_new(&options, &world.contents)));
	return world;
}

static struct world world_new(void)
{
	return world_on(STORE_MEMORY, 0);
}

static void world_start(struct world *world)
{
	struct writeback_options options = {
		.catalog = world->machine.catalog, .transfer = world->machine.transfer, .contents = world->contents};

	cr_assert(zero(int, writeback_new(&options, &world->writeback)));
}

static void world_free(struct world *world)
{
	contents_cancel(world->contents);
	writeback_free(world->writeback);
	transfer_free(world->machine.transfer);
	contents_free(world->contents);
	catalog_close(world->machine.catalog);
	free(world->machine.dir);
	store_free(world->store);
}

static uint64_t make_file(const struct world *world, const char *name)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFREG | 0644};
	struct cat_inode inode;

	cr_assert(zero(int, catalog_create(world->machine.catalog, &create, &inode)));
	return inode.ino;
}

static ssize_t fill(void *arg, int fd, uint64_t offset, size_t len)
{
	return pwrite(fd, arg, len, (off_t)offset);
}

/* A file that was closed; its version. */
static uint64_t save(const struct world *world, uint64_t ino, const char *text)
{
	struct content_write write = {.len = strlen(text), .fill = fill, .arg = (void *)text};
	struct content *content;
	uint64_t seq;

	cr_assert(zero(int, content_get(world->contents, ino, 0, &content)));
	cr_assert(eq(i64, (int64_t)content_write(content, &write), (int64_t)strlen(text)));
	cr_assert(zero(int, content_commit(content, CAT_ORIGIN_CLOSE, 0, &seq)));
	content_put(content);
	return seq;
}

/* --- claims ---------------------------------------------------------------------------------------------------- */

/* All are made before the first is removed: between a file's jobs lie those of all others. */
static void make_removed(const struct world *world, unsigned count)
{
	struct cat_unlinked removed;
	char name[16];

	for (unsigned i = 0; i < count; i++) {
		struct cat_commit commit = {.size = 1};

		(void)snprintf(name, sizeof(name), "f%u", i);
		commit.ino = make_file(world, name);
		cr_assert(zero(int, catalog_commit(world->machine.catalog, &commit, NULL)));
	}
	for (unsigned i = 0; i < count; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		cr_assert(zero(int, catalog_unlink(world->machine.catalog, CAT_ROOT_INO, name, (struct cat_actor){0},
						   &removed)));
	}
}

static int take_upload(void *arg, struct cat_job *job)
{
	struct cat_job *into = arg;

	if (job->type != CAT_JOB_UPLOAD)
		return 0;
	cat_job_clear(into);
	*into = *job;
	job->key = job->note = job->sent = NULL;
	return 1;
}

static int64_t claims_ns(const struct world *world)
{
	struct placement_options options = {
		.catalog = world->machine.catalog, .transfer = world->machine.transfer, .contents = world->contents};
	struct placement_claims claims;
	struct placement *placement;
	struct timespec before, after;
	struct cat_job job = {0};

	cr_assert(zero(int, placement_new(&options, &placement)));
	cr_assert(eq(int, catalog_jobs(world->machine.catalog, 0, 0, take_upload, &job), 1));
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	for (int i = 0; i < 50; i++)
		placement_claims(placement, &job, &claims);
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	cr_assert(eq(u32, claims.count, 2), "the key that its name left is not claimed");
	cat_job_clear(&job);
	placement_free(placement);
	return clock_from_timespec(after) - clock_from_timespec(before);
}

/* The oldest job was the one to walk past all others, in search of where its file had been. */
Test(writeback, claims_of_a_removed_file_do_not_cost_more_in_a_long_journal)
{
	struct world few = world_new(), many = world_new();
	int64_t in_few, in_many;

	make_removed(&few, 20);
	make_removed(&many, 2000);
	in_few = claims_ns(&few);
	in_many = claims_ns(&many);
	cr_assert(lt(i64, in_many, 10 * in_few), "%ld us instead of %ld us", (long)(in_many / 1000),
		  (long)(in_few / 1000));
	world_free(&few);
	world_free(&many);
}

/* --- order ------------------------------------------------------------------------------------------------------ */

Test(writeback, jobs_of_one_file_go_in_order_and_all_of_them_go)
{
	struct world world = world_new();
	uint64_t ino = make_file(&world, "f");
	struct writeback_figures figures;
	AUTO_BUF content = BUF_INIT;

	for (int i = 0; i < 5; i++) {
		char text[32];

		(void)snprintf(text, sizeof(text), "text %d", i);
		(void)save(&world, ino, text);
	}
	world_start(&world);
	cr_assert(zero(int, writeback_drain(world.writeback, 20 * NS_PER_SEC, NULL)));
	writeback_figures(world.writeback, &figures);
	cr_assert(eq(u64, figures.jobs, 0));
	cr_assert(eq(u64, figures.done, 5));
	cr_assert(zero(u64, figures.bytes));
	cr_assert(store_get(world.store, "f", &content));
	cr_assert(eq(sz, content.len, 6));
	cr_assert(zero(int, memcmp(content.data, "text 4", 6)));
	world_free(&world);
}

/* --- patience ------------------------------------------------------------------------------------------------------
 */

/* Whatever is called "bad" cannot be put. */
static int store_is_away(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	return call == SHIM_PUT && strcmp(key, "bad") == 0 ? err_set(err, ERR_UNAVAILABLE, "no answer") : 0;
}

static int store_refuses(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	return call == SHIM_PUT && strcmp(key, "bad") == 0 ? err_set(err, ERR_DENIED, "not this one") : 0;
}

/* Others who use the same store all the time. */
struct traffic {
	struct transfer *transfer;
	pthread_t thread;
	atomic_bool stop;
};

static int drop(void *arg, const void *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	(void)len;
	return 0;
}

static void *read_on(void *arg)
{
	struct traffic *traffic = arg;
	struct get_request request = {
		.object = {.key = "other"}, .length = UINT64_MAX, .expected_size = UINT64_MAX, .sink = drop};

	while (!traffic->stop) {
		(void)transfer_get(traffic->transfer, &(struct call){0}, &request, NULL, NULL);
		pause_ms(20);
	}
	return NULL;
}

static void traffic_begin(struct traffic *traffic, const struct world *world)
{
	store_put(world->store, "other", "somebody else's bytes", NULL);
	*traffic = (struct traffic){.transfer = world->machine.transfer};
	cr_assert(zero(int, pthread_create(&traffic->thread, NULL, read_on, traffic)));
}

static void traffic_end(struct traffic *traffic)
{
	traffic->stop = true;
	cr_assert(zero(int, pthread_join(traffic->thread, NULL)));
}

/* Both would wait for ever if what others move were progress: the suite's time limit ends them then. */
Test(writeback, a_wait_for_a_file_that_cannot_be_stored_ends_whatever_else_moves, .timeout = 60)
{
	struct world world = world_new();
	uint64_t ino = make_file(&world, "bad"), seq = save(&world, ino, "text");
	struct traffic traffic;

	world.store->hook = store_is_away;
	world_start(&world);
	traffic_begin(&traffic, &world);
	cr_assert(eq(int, writeback_wait(world.writeback, ino, seq, NS_PER_SEC, NULL), -EIO));
	cr_assert(eq(int, writeback_drain(world.writeback, NS_PER_SEC, NULL), -ETIMEDOUT));
	traffic_end(&traffic);
	world_free(&world);
}

Test(writeback, a_drain_ends_when_only_what_the_store_refuses_is_left, .timeout = 60)
{
	struct world world = world_new();
	uint64_t bad = make_file(&world, "bad"), good = make_file(&world, "good");
	struct writeback_figures figures;
	AUTO_BUF content = BUF_INIT;

	(void)save(&world, bad, "text");
	(void)save(&world, bad, "newer text");
	(void)save(&world, good, "text");
	world.store->hook = store_refuses;
	world_start(&world);
	cr_assert(eq(int, writeback_drain(world.writeback, 50 * NS_PER_SEC, NULL), -EIO));
	cr_assert(store_get(world.store, "good", &content));
	writeback_figures(world.writeback, &figures);
	cr_assert(eq(u64, figures.jobs, 2));
	cr_assert(eq(u64, figures.failed, 1));
	world.store->hook = NULL;
	writeback_hurry(world.writeback);
	cr_assert(zero(int, writeback_drain(world.writeback, 50 * NS_PER_SEC, NULL)));
	writeback_figures(world.writeback, &figures);
	cr_assert(zero(u64, figures.failed));
	world_free(&world);
}

/* Its turn comes late, but it comes: others' progress is a reason to be patient. */
static int store_is_slow(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)key;
	(void)err;
	if (call == SHIM_PUT)
		pause_ms(600);
	return 0;
}

Test(writeback, a_wait_in_line_is_as_patient_as_the_line_moves, .timeout = 60)
{
	struct world world = world_new();
	uint64_t ino, seq;

	ino = make_file(&world, "f");
	for (int i = 0; i < 10; i++) /* one after the other, longer in all than anybody waits for one */
		seq = save(&world, ino, "text");
	world.store->hook = store_is_slow;
	world_start(&world);
	cr_assert(zero(int, writeback_wait(world.writeback, ino, seq, 5 * NS_PER_SEC, NULL)));
	world_free(&world);
}

/* --- what a failed attempt leaves ------------------------------------------------------------------------------------
 */

static int moved_marker_fails(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	return call == SHIM_PUT && strcmp(key, "e/") == 0 ? err_set(err, ERR_DENIED, "not this one") : 0;
}

static int take_any(void *arg, struct cat_job *job)
{
	*(struct cat_job *)arg = *job;
	job->key = job->note = job->sent = NULL;
	return 1;
}

/* An object may lie where it was about to be put: whoever runs the job again must know, by another name too. */
Test(writeback, a_renamed_directory_s_job_remembers_where_its_marker_may_be, .timeout = 60)
{
	struct cat_create dir = {.parent = CAT_ROOT_INO, .name = "d", .mode = S_IFDIR | 0755};
	struct cat_rename rename = {.parent = CAT_ROOT_INO, .name = "d", .new_parent = CAT_ROOT_INO, .new_name = "e"};
	struct world world = world_new();
	struct cat_unlinked replaced;
	struct cat_inode inode;
	struct cat_job job;

	cr_assert(zero(int, catalog_create(world.machine.catalog, &dir, &inode)));
	world_start(&world);
	cr_assert(zero(int, writeback_drain(world.writeback, 50 * NS_PER_SEC, NULL)));
	cr_assert(eq(sz, store_count(world.store, "d/", false, NULL), 1));
	world.store->hook = moved_marker_fails;
	cr_assert(zero(int, catalog_rename(world.machine.catalog, &rename, &replaced)));
	writeback_renamed(world.writeback, 0);
	cr_assert(eq(int, writeback_drain(world.writeback, 50 * NS_PER_SEC, NULL), -EIO));
	cr_assert(eq(int, catalog_jobs(world.machine.catalog, 0, 0, take_any, &job), 1));
	cr_assert(eq(int, job.type, CAT_JOB_TREE));
	cr_assert(ne(ptr, job.sent, NULL));
	cr_assert(eq(str, job.sent, "e/"));
	cr_assert(eq(u32, job.attempts, 1));
	cat_job_clear(&job);
	world.store->hook = NULL;
	writeback_hurry(world.writeback);
	cr_assert(zero(int, writeback_drain(world.writeback, 50 * NS_PER_SEC, NULL)));
	cr_assert(eq(sz, store_count(world.store, "e/", false, NULL), 1));
	cr_assert(zero(sz, store_count(world.store, "d/", false, NULL)));
	world_free(&world);
}

/* --- a file and a directory that change places -----------------------------------------------------------------------
 * Where keys are paths, one cannot come before the other has gone. What is done while nothing can be sent meets all of
 * it at once.
 */

static uint64_t dir_and_name(const struct world *world, const char *path, const char **ret_name)
{
	uint64_t dir = CAT_ROOT_INO;
	const char *slash;

	for (; (slash = strchr(path, '/')); path = slash + 1) {
		char name[32];
		struct cat_inode inode;

		(void)snprintf(name, sizeof(name), "%.*s", (int)(slash - path), path);
		cr_assert(zero(int, catalog_lookup(world->machine.catalog, dir, name, &inode)), "%s", name);
		dir = inode.ino;
	}
	*ret_name = path;
	return dir;
}

static void make_directory(const struct world *world, const char *path)
{
	struct cat_create create = {.mode = S_IFDIR | 0755};
	struct cat_inode inode;

	create.parent = dir_and_name(world, path, &create.name);
	cr_assert(zero(int, catalog_create(world->machine.catalog, &create, &inode)), "%s", path);
}

static void write_to(const struct world *world, const char *path, const char *text)
{
	struct cat_create create = {.mode = S_IFREG | 0644};
	struct cat_inode inode;

	create.parent = dir_and_name(world, path, &create.name);
	if (catalog_lookup(world->machine.catalog, create.parent, create.name, &inode))
		cr_assert(zero(int, catalog_create(world->machine.catalog, &create, &inode)), "%s", path);
	(void)save(world, inode.ino, text);
}

static void move(const struct world *world, const char *from, const char *to)
{
	struct cat_unlinked replaced;
	struct cat_rename rename = {0};

	rename.parent = dir_and_name(world, from, &rename.name);
	rename.new_parent = dir_and_name(world, to, &rename.new_name);
	cr_assert(zero(int, catalog_rename(world->machine.catalog, &rename, &replaced)), "%s to %s", from, to);
}

static void remove_path(const struct world *world, const char *path)
{
	struct cat_unlinked removed;
	const char *name;
	uint64_t dir = dir_and_name(world, path, &name);
	int err = catalog_rmdir(world->machine.catalog, dir, name, (struct cat_actor){0}, &removed);

	if (err == -ENOTDIR)
		err = catalog_unlink(world->machine.catalog, dir, name, (struct cat_actor){0}, &removed);
	cr_assert(zero(int, err), "%s", path);
}

/* Backoffs add up to any time, by chance; what cannot be stored at all is not stored by hurrying either. */
static void store_all(struct world *world)
{
	int rc;

	world_start(world);
	for (int tries = 0; (rc = writeback_drain(world->writeback, NS_PER_SEC / 4, NULL)) == -ETIMEDOUT; tries++) {
		cr_assert(lt(int, tries, 200), "not everything was stored");
		writeback_hurry(world->writeback);
	}
	cr_assert(zero(int, rc));
	writeback_free(world->writeback);
	world->writeback = NULL;
}

static void expect_stored(const struct world *world, const char *path, const char *text)
{
	AUTO_BUF content = BUF_INIT;

	cr_assert(store_get(world->store, path, &content), "%s is not in the store", path);
	cr_assert(eq(sz, content.len, strlen(text)));
	cr_assert(zero(int, memcmp(content.data, text, content.len)), "%s is not %s", path, text);
}

/* Each had to go where what the other left still lay, and left it only after it had gone there. */
Test(writeback, changed_files_take_the_names_of_each_other_s_directories, .timeout = 120)
{
	struct world world = world_on(STORE_FILE, 0);

	make_directory(&world, "a");
	make_directory(&world, "b");
	write_to(&world, "a/x", "1");
	write_to(&world, "b/y", "1");
	store_all(&world);
	write_to(&world, "a/x", "22");
	write_to(&world, "b/y", "333");
	move(&world, "a/x", "s");
	move(&world, "b/y", "t");
	remove_path(&world, "a");
	remove_path(&world, "b");
	move(&world, "s", "b");
	move(&world, "t", "a");
	store_all(&world);
	expect_stored(&world, "b", "22");
	expect_stored(&world, "a", "333");
	cr_assert(eq(sz, store_count(world.store, "", false, NULL), 2));
	world_free(&world);
}

Test(writeback, a_changed_file_goes_into_a_directory_of_its_own_old_name, .timeout = 120)
{
	struct world world = world_on(STORE_FILE, 0);

	write_to(&world, "a", "1");
	store_all(&world);
	write_to(&world, "a", "22");
	move(&world, "a", "t");
	make_directory(&world, "a");
	move(&world, "t", "a/x");
	store_all(&world);
	expect_stored(&world, "a/x", "22");
	cr_assert(eq(sz, store_count(world.store, "", false, NULL), 1));
	world_free(&world);
}

/* The marker's removal waited behind a job that waited behind the upload that waited for the marker's removal. */
Test(writeback, a_changed_and_moved_file_takes_the_name_of_an_empty_directory, .timeout = 120)
{
	struct world world = world_on(STORE_FILE, 0);

	make_directory(&world, "b");
	write_to(&world, "x", "1");
	store_all(&world);
	write_to(&world, "x", "22");
	move(&world, "x", "t");
	remove_path(&world, "b");
	move(&world, "t", "b");
	store_all(&world);
	expect_stored(&world, "b", "22");
	cr_assert(eq(sz, store_count(world.store, "", false, NULL), 1));
	world_free(&world);
}

static int removal_is_slower_than_five_puts(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	if (call == SHIM_PUT && strcmp(key, "b") == 0)
		atomic_fetch_add(&store->countdown, 1);
	if (call == SHIM_LIST) {
		AUTO_FREE char *empty = fixture_path(store->dir, "store/b/z");

		(void)mkdir(empty, 0755); /* it is there from the look before, maybe */
	}
	return call == SHIM_REMOVE && strcmp(key, "b/y") == 0 && atomic_load(&store->countdown) < 5
		       ? err_set(err, ERR_UNAVAILABLE, "no answer")
		       : 0;
}

/* An empty directory, as one is for a moment whenever its last file is removed, is nothing to give way to. */
Test(writeback, what_is_in_the_way_for_long_is_not_taken_for_others_work, .timeout = 120)
{
	struct world world = world_on(STORE_FILE, 0);

	make_directory(&world, "b");
	write_to(&world, "b/y", "1");
	store_all(&world);
	remove_path(&world, "b/y");
	remove_path(&world, "b");
	write_to(&world, "b", "22");
	world.store->hook = removal_is_slower_than_five_puts;
	store_all(&world);
	cr_assert(ge(u32, world.store->countdown, 5));
	expect_stored(&world, "b", "22");
	world_free(&world);
}

/* The file that had the name before was stored under it after the one that has it now, and removed there. */
Test(writeback, a_replaced_file_s_last_version_does_not_take_the_name_back, .timeout = 120)
{
	struct world world = world_new();

	write_to(&world, "c", "1");
	store_all(&world);
	write_to(&world, "c", "22");
	write_to(&world, "b", "333");
	move(&world, "c", "b");
	store_all(&world);
	expect_stored(&world, "b", "22");
	world_free(&world);
}

static int removal_takes_long(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)err;
	if (call == SHIM_REMOVE && strcmp(key, "c") == 0)
		pause_ms(300);
	return 0;
}

/* What lay beneath the directory's old key was looked for when another's object was there already. */
Test(writeback, a_file_of_a_renamed_directory_is_moved_though_another_was_written_over_it, .timeout = 120)
{
	struct world world = world_new();

	make_directory(&world, "b");
	write_to(&world, "b/a", "1");
	write_to(&world, "c", "1");
	write_to(&world, "x", "1");
	store_all(&world);
	world.store->hook = removal_takes_long;
	write_to(&world, "x", "22");
	remove_path(&world, "c");
	move(&world, "b", "c");
	make_directory(&world, "b");
	move(&world, "x", "b/a");
	store_all(&world);
	expect_stored(&world, "b/a", "22");
	expect_stored(&world, "c/a", "1");
	world_free(&world);
}

/* Random work on few names; what each inode holds is told by a number. */
#define PLAY_INODES 65536

struct play {
	struct world world;
	uint64_t dice;
	unsigned number, held[PLAY_INODES];
	struct buf keys; /* in the store, each between newlines */
	size_t count;    /* of keys that should be */
	char path[512];
};

static unsigned roll(struct play *play, unsigned sides)
{
	play->dice = play->dice * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(play->dice >> 33) % sides;
}

static void roll_path(struct play *play, char ret_path[static 8])
{
	unsigned depth = 1 + roll(play, 3);

	for (unsigned i = 0; i < depth; i++)
		(void)snprintf(ret_path + 2 * i, 3, "%c/", 'a' + (char)roll(play, 3));
	ret_path[2 * depth - 1] = '\0';
}

/* 0: there is nothing; -ENOTDIR: nothing can be there. */
static int type_of(struct play *play, const char *path, uint64_t *ret_parent, const char **ret_name, uint64_t *ret_ino)
{
	struct cat_inode inode = {.ino = CAT_ROOT_INO, .mode = S_IFDIR};
	char names[8];
	char *rest = NULL;

	(void)snprintf(names, sizeof(names), "%s", path);
	for (char *name = strtok_r(names, "/", &rest); name; name = strtok_r(NULL, "/", &rest)) {
		if (!S_ISDIR(inode.mode))
			return -ENOTDIR;
		*ret_parent = inode.ino;
		if (catalog_lookup(play->world.machine.catalog, inode.ino, name, &inode)) {
			*ret_name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
			return strtok_r(NULL, "/", &rest) ? -ENOTDIR : 0;
		}
	}
	*ret_name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	*ret_ino = inode.ino;
	return (int)(inode.mode & S_IFMT);
}

static void write_number(struct play *play, uint64_t ino)
{
	char text[32];

	cr_assert(lt(u64, ino, PLAY_INODES));
	play->held[ino] = ++play->number;
	(void)snprintf(text, sizeof(text), "%u", play->number);
	(void)save(&play->world, ino, text);
}

static void play_rename(struct play *play, uint64_t parent, const char *name)
{
	char path[8];
	struct cat_unlinked replaced;
	struct cat_rename rename = {.parent = parent, .name = name};
	uint64_t ino;

	roll_path(play, path);
	if (type_of(play, path, &rename.new_parent, &rename.new_name, &ino) >= 0) /* else what the catalog refuses */
		(void)catalog_rename(play->world.machine.catalog, &rename, &replaced);
}

static void play_once(struct play *play)
{
	struct catalog *catalog = play->world.machine.catalog;
	struct cat_create create = {0};
	struct cat_unlinked removed;
	struct cat_inode inode;
	char path[8];
	uint64_t ino = 0;
	int type;

	roll_path(play, path);
	type = type_of(play, path, &create.parent, &create.name, &ino);
	if (type == 0) {
		create.mode = roll(play, 2) ? S_IFDIR | 0755 : S_IFREG | 0644;
		cr_assert(zero(int, catalog_create(catalog, &create, &inode)));
		if (S_ISREG(create.mode))
			write_number(play, inode.ino);
	} else if (type > 0 && roll(play, 2)) {
		play_rename(play, create.parent, create.name);
	} else if (type == S_IFREG && roll(play, 3)) {
		write_number(play, ino);
	} else if (type == S_IFREG) {
		cr_assert(zero(int,
			       catalog_unlink(catalog, create.parent, create.name, (struct cat_actor){0}, &removed)));
	} else if (type == S_IFDIR) { /* unless something is in it */
		(void)catalog_rmdir(catalog, create.parent, create.name, (struct cat_actor){0}, &removed);
	}
}

static int take_name(void *arg, const struct cat_name *name)
{
	struct cat_name *names = arg;

	for (; names->ino; names++)
		;
	*names = *name;
	return 0;
}

static void expect_beneath(struct play *play, uint64_t dir)
{
	struct cat_name *names = calloc(8, sizeof(*names)); /* of three there may be */
	size_t len = strlen(play->path);

	cr_assert(ne(ptr, names, NULL));
	cr_assert(zero(int, catalog_each_name(play->world.machine.catalog, dir, take_name, names)));
	for (const struct cat_name *name = names; name->ino; name++) {
		bool directory = name->type == S_IFDIR;
		size_t before = play->count;
		char text[sizeof(play->path) + 2];

		(void)snprintf(play->path + len, sizeof(play->path) - len, "%s%s", name->name, directory ? "/" : "");
		if (directory)
			expect_beneath(play, name->ino);
		(void)snprintf(text, sizeof(text), "\n%s\n", play->path);
		if (strstr(play->keys.data, text))
			play->count++;
		else /* a directory with something in it needs no object */
			cr_assert(lt(sz, before, play->count), "%s is not among%s", play->path, play->keys.data);
		(void)snprintf(text, sizeof(text), "%u", play->held[name->ino % PLAY_INODES]);
		if (!directory)
			expect_stored(&play->world, play->path, text);
		play->path[len] = '\0';
	}
	free(names);
}

static void expect_tree(struct play *play)
{
	size_t found;

	play->count = 0;
	buf_reset(&play->keys);
	buf_addc(&play->keys, '\n');
	found = store_count(play->world.store, "", false, &play->keys) -
		store_count(play->world.store, ".varve/", false, NULL);
	buf_addc(&play->keys, '\0');
	expect_beneath(play, CAT_ROOT_INO);
	cr_assert(eq(sz, found, play->count), "%s", play->keys.data);
}

/* Nothing can be put or removed but now and then. */
static int store_is_away_mostly(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)key;
	return call != SHIM_HEAD && atomic_fetch_add(&store->countdown, 1) % 3
		       ? err_set(err, ERR_UNAVAILABLE, "no answer")
		       : 0;
}

/* Some of it is done, and then the journal is found again. */
static void store_some(struct play *play)
{
	play->world.store->hook = store_is_away_mostly;
	world_start(&play->world);
	cr_assert(ne(int, writeback_drain(play->world.writeback, 50 * NS_PER_MS, NULL), -EIO));
	writeback_free(play->world.writeback);
	play->world.writeback = NULL;
	play->world.store->hook = NULL;
}

static void play_through(struct world world, uint64_t seed)
{
	struct play *play = calloc(1, sizeof(*play));

	cr_assert(ne(ptr, play, NULL));
	play->world = world;
	play->dice = seed;
	for (unsigned round = 0; round < 25; round++) {
		for (unsigned i = roll(play, 40); i; i--)
			play_once(play);
		if (roll(play, 3) == 0)
			store_some(play);
		for (unsigned i = roll(play, 10); i; i--)
			play_once(play);
		store_all(&play->world);
		expect_tree(play);
	}
	world_free(&play->world);
	buf_free(&play->keys);
	free(play);
}

static void play_on(enum store_kind kind, uint32_t hidden)
{
	const char *seed = getenv("VARVE_TEST_SEED");

	for (uint64_t i = 1; i <= (seed ? 1 : 2); i++)
		play_through(world_on(kind, hidden), seed ? strtoull(seed, NULL, 10) : i);
}

Test(writeback, whatever_takes_whose_name_all_of_it_is_stored_in_a_directory, .timeout = 300)
{
	play_on(STORE_FILE, 0);
}

Test(writeback, whatever_takes_whose_name_all_of_it_is_stored_with_versions, .timeout = 300)
{
	play_on(STORE_MEMORY, 0);
}

Test(writeback, whatever_takes_whose_name_all_of_it_is_stored_without_versions, .timeout = 300)
{
	play_on(STORE_MEMORY, BACKEND_VERSIONS);
}

/* --- what an attempt put and did not record ----------------------------------------------------------------------- */

static int forget_key(struct cat_txn *txn, void *arg)
{
	return cat_key_delete(txn, 0, arg);
}

static int has_key(struct cat_txn *txn, void *arg)
{
	struct cat_key record;
	int err = cat_key_get(txn, 0, arg, &record);

	if (!err)
		cat_key_clear(&record);
	return err;
}

static int place_again(struct cat_txn *txn, void *arg)
{
	struct cat_job job = {.type = CAT_JOB_PLACE, .ino = *(const uint64_t *)arg};

	return cat_job_put(txn, &job);
}

/* Killed between putting a link's marker and recording it; then the first name goes. */
Test(writeback, a_marker_of_the_file_itself_is_nobody_else_s_object, .timeout = 60)
{
	struct world world = world_new();
	uint64_t ino = make_file(&world, "a");
	struct writeback_figures figures;
	struct cat_unlinked removed;
	struct cat_inode inode;
	AUTO_BUF content = BUF_INIT;

	(void)save(&world, ino, "text");
	cr_assert(
		zero(int, catalog_link(world.machine.catalog, ino, CAT_ROOT_INO, "b", (struct cat_actor){0}, &inode)));
	world_start(&world);
	cr_assert(zero(int, writeback_drain(world.writeback, 20 * NS_PER_SEC, NULL)));
	cr_assert(zero(int, catalog_update(world.machine.catalog, forget_key, "b")));
	cr_assert(zero(int, catalog_unlink(world.machine.catalog, CAT_ROOT_INO, "a", (struct cat_actor){0}, &removed)));
	cr_assert(zero(int, writeback_drain(world.writeback, 20 * NS_PER_SEC, NULL)));
	cr_assert(store_get(world.store, "b", &content));
	cr_assert(eq(str, content.data, "text"));
	writeback_figures(world.writeback, &figures);
	cr_assert(zero(u64, figures.conflicts), "our own marker was taken for others' file");
	world_free(&world);
}

struct recorded {
	const char *key;
	struct cat_key record;
};

static int read_record(struct cat_txn *txn, void *arg)
{
	struct recorded *recorded = arg;

	return cat_key_get(txn, 0, recorded->key, &recorded->record);
}

static int write_record(struct cat_txn *txn, void *arg)
{
	struct recorded *recorded = arg;

	return cat_key_put(txn, recorded->key, &recorded->record);
}

static void remove_unrecorded(uint32_t hidden)
{
	struct world world = world_on(STORE_MEMORY, hidden);
	struct recorded first = {.key = "f"};
	AUTO_BUF content = BUF_INIT;

	write_to(&world, "f", "1");
	store_all(&world);
	cr_assert(zero(int, catalog_view(world.machine.catalog, read_record, &first)));
	write_to(&world, "f", "22");
	store_all(&world);
	cr_assert(zero(int, catalog_update(world.machine.catalog, write_record, &first)));
	cat_key_clear(&first.record);
	remove_path(&world, "f");
	store_all(&world);
	cr_assert(zero(int, !!store_get(world.store, "f", &content)), "our own version was taken for others' object");
	world_free(&world);
}

/* Killed between putting the second version and recording it; then the file goes. */
Test(writeback, a_version_nobody_recorded_is_not_left_behind, .timeout = 60)
{
	remove_unrecorded(0);
	remove_unrecorded(BACKEND_REMOVE_IF_MATCH);
	remove_unrecorded(BACKEND_VERSIONS);
}

/* --- what others put first ------------------------------------------------------------------------------------------
 */

static void expect_object(const struct world *world, const char *key, const char *text)
{
	AUTO_BUF content = BUF_INIT;

	cr_assert(store_get(world->store, key, &content), "%s", key);
	buf_addc(&content, '\0');
	cr_assert(eq(str, content.data, (char *)text), "%s", key);
}

static void make_small(const struct world *world)
{
	struct cat_create symlink = {
		.parent = CAT_ROOT_INO, .name = "s", .mode = S_IFLNK | 0777, .target = "somewhere"};
	struct cat_inode inode;
	uint64_t ino = make_file(world, "f");

	(void)save(world, ino, "text");
	make_directory(world, "d");
	cr_assert(zero(int, catalog_create(world->machine.catalog, &symlink, &inode)));
	cr_assert(
		zero(int, catalog_link(world->machine.catalog, ino, CAT_ROOT_INO, "l", (struct cat_actor){0}, &inode)));
}

static void meet_others(enum store_kind kind, uint32_t hidden)
{
	struct world world = world_on(kind, hidden);

	make_small(&world);
	store_put(world.store, "d/", "a directory", NULL);
	store_put(world.store, "s", "no symlink", NULL);
	store_put(world.store, "l", "another file", NULL);
	store_all(&world);
	expect_object(&world, "f", "text");
	expect_object(&world, "d/", "a directory");
	expect_object(&world, "s", "no symlink");
	expect_object(&world, "l", "another file");
	world_free(&world);
}

Test(writeback, what_is_made_from_the_catalog_alone_is_not_put_over_others_objects, .timeout = 60)
{
	meet_others(STORE_MEMORY, 0);
	meet_others(STORE_MEMORY, BACKEND_VERSIONS);
}

/* An attempt that was not recorded put it: nobody else's. */
Test(writeback, what_is_made_from_the_catalog_alone_is_known_for_ours, .timeout = 60)
{
	static const char *const keys[] = {"d/", "s", "l"};
	struct world world = world_on(STORE_MEMORY, 0);

	make_small(&world);
	store_all(&world);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct cat_inode inode;
		const char *name;
		uint64_t dir = dir_and_name(&world, i ? keys[i] : "d", &name);

		cr_assert(zero(int, catalog_update(world.machine.catalog, forget_key, (void *)keys[i])));
		cr_assert(zero(int, catalog_lookup(world.machine.catalog, dir, name, &inode)));
		cr_assert(zero(int, catalog_update(world.machine.catalog, place_again, &inode.ino)));
	}
	store_all(&world);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		cr_assert(zero(int, catalog_view(world.machine.catalog, has_key, (void *)keys[i])), "%s", keys[i]);
	world_free(&world);
}

/* --- what users say of a file --------------------------------------------------------------------------------------
 */

static void set_attribute(const struct world *world, uint64_t ino, const char *name, const char *value)
{
	cr_assert(zero(int, catalog_xattr_set(world->machine.catalog, ino, name, value, strlen(value), CAT_XATTR_SET)));
}

/* Of the object: user metadata and type; NULL: none. */
static void expect_said(const struct world *world, const char *key, const char *colour, const char *type)
{
	struct object_info info = {0};
	struct err err = {0};
	const char *told;

	cr_assert(zero(int, transfer_head(world->machine.transfer, &(struct call){0}, &(struct object_ref){.key = key},
					  &info, &err)),
		  "%s: %s", key, err.message);
	told = meta_get(&info.meta, "colour");
	cr_assert(colour ? told && strcmp(told, colour) == 0 : !told, "%s is %s", key, told ? told : "(none)");
	cr_assert(type ? info.content_type && strcmp(info.content_type, type) == 0 : !info.content_type, "%s is %s",
		  key, info.content_type ? info.content_type : "(none)");
	cr_assert_not_null(meta_get(&info.meta, "varve-id"));
	cr_assert_null(meta_get(&info.meta, "mime_type"));
	cr_assert_null(meta_get(&info.meta, "large"));
	cr_assert_null(meta_get(&info.meta, "Odd"));
	object_info_clear(&info);
}

static void say_it(enum store_kind kind, uint32_t hidden)
{
	struct world world = world_on(kind, hidden);
	AUTO_FREE char *large = calloc(1, 60001);
	struct cat_inode inode;
	uint64_t ino = make_file(&world, "f");

	cr_assert_not_null(large);
	memset(large, ' ', 60000); /* escaped, too large for any store */
	set_attribute(&world, ino, "user.colour", "blue");
	set_attribute(&world, ino, "user.mime_type", "text/html");
	set_attribute(&world, ino, "user.large", large);
	set_attribute(&world, ino, "user.Odd", "x");
	(void)save(&world, ino, "one");
	store_all(&world);
	expect_said(&world, "f", "blue", "text/html");

	move(&world, "f", "g");
	cr_assert(
		zero(int, catalog_link(world.machine.catalog, ino, CAT_ROOT_INO, "l", (struct cat_actor){0}, &inode)));
	store_all(&world);
	expect_said(&world, "g", "blue", "text/html");
	expect_said(&world, "l", NULL, NULL);

	set_attribute(&world, ino, "user.colour", "red");
	cr_assert(zero(int, catalog_xattr_remove(world.machine.catalog, ino, "user.mime_type")));
	(void)save(&world, ino, "two");
	store_all(&world);
	expect_said(&world, "g", "red", NULL);
	world_free(&world);
}

Test(writeback, what_users_say_of_a_file_its_object_says, .timeout = 60)
{
	say_it(STORE_MEMORY, 0);
	say_it(STORE_MEMORY, BACKEND_COPY);
	say_it(STORE_FILE, 0);
}

/* What lies beneath on a store without versions is kept as it was. */
Test(writeback, what_others_said_of_what_is_kept_is_kept, .timeout = 60)
{
	struct world world = world_on(STORE_MEMORY, BACKEND_VERSIONS);
	uint64_t ino = make_file(&world, "f");
	struct cat_inode inode;
	AUTO_BUF kept = BUF_INIT;
	char hex[2 * CAT_FILE_ID_SIZE + 1];
	uint64_t seq;

	set_attribute(&world, ino, "user.colour", "blue");
	set_attribute(&world, ino, "user.mime_type", "text/html");
	seq = save(&world, ino, "one");
	store_all(&world);
	(void)save(&world, ino, "two");
	store_all(&world);
	cr_assert(zero(int, catalog_getattr(world.machine.catalog, ino, &inode)));
	hex_encode(inode.file_id, CAT_FILE_ID_SIZE, hex);
	buf_addf(&kept, CAT_OWN_VERSIONS "%s/%016" PRIx64, hex, seq);
	expect_said(&world, kept.data, "blue", "text/html");
	world_free(&world);
}
