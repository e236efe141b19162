/* reconcile: what the store holds is what the catalog shows, whatever its keys are; and nothing is asked twice. */
#include "fs/reconcile.h"

#include <errno.h>
#include <sys/stat.h>

#include "escape.h"
#include "fixture.h"
#include "fs/objmeta.h"

static const struct call forever;

static atomic_uint changes;

static void count_change(void *arg, uint64_t parent, const char *name, uint64_t ino)
{
	(void)arg;
	(void)parent;
	(void)name;
	(void)ino;
	atomic_fetch_add(&changes, 1);
}

struct bench {
	struct store *store;
	struct machine machine;
	struct reconcile *reconcile;
};

static struct bench bench_on_aged(enum store_kind kind, int64_t max_age_ns)
{
	struct store *store = store_new(kind);
	struct bench bench = {.store = store, .machine = machine_on(store, "state")};
	struct reconcile_options options = {
		.catalog = bench.machine.catalog,
		.transfer = bench.machine.transfer,
		.file_mode = 0640,
		.dir_mode = 0750,
		.uid = 501,
		.gid = 502,
		.max_age_ns = max_age_ns,
		.changed = count_change,
	};

	cr_assert(zero(int, reconcile_new(&options, &bench.reconcile)));
	atomic_store(&changes, 0);
	return bench;
}

static struct bench bench_on(enum store_kind kind)
{
	return bench_on_aged(kind, 0);
}

static void bench_off(struct bench *bench)
{
	reconcile_free(bench->reconcile);
	machine_off(&bench->machine);
	store_free(bench->store);
}

static void list_dir(struct bench *bench, uint64_t dir)
{
	struct err err = {0};

	cr_assert(zero(int, reconcile_directory(bench->reconcile, dir, &forever, &err)), "%s", err.message);
}

static struct cat_inode lookup(struct bench *bench, uint64_t parent, const char *name)
{
	struct cat_inode inode = {0};

	cr_assert(zero(int, catalog_lookup(bench->machine.catalog, parent, name, &inode)), "%s", name);
	return inode;
}

static bool exists(struct bench *bench, uint64_t parent, const char *name)
{
	struct cat_inode inode;
	int rc = catalog_lookup(bench->machine.catalog, parent, name, &inode);

	cr_assert(ne(int, !!(rc == 0 || rc == -ENOENT), 0), "%s: %d", name, rc);
	return !rc;
}

static struct cat_inode resolved(struct bench *bench, uint64_t parent, const char *name)
{
	struct cat_inode inode = lookup(bench, parent, name);
	struct err err = {0};

	cr_assert(zero(int, reconcile_resolve(bench->reconcile, inode.ino, &forever, &inode, &err)), "%s: %s", name,
		  err.message);
	cr_assert(zero(u32, inode.flags & CAT_UNRESOLVED), "%s", name);
	return inode;
}

static int count_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)name;
	(void)inode;
	++*(unsigned *)arg;
	return 0;
}

static unsigned names_in(struct bench *bench, uint64_t dir)
{
	struct cat_readdir request = {.parent = dir, .max = 1000000};
	unsigned count = 0;

	cr_assert(zero(int, catalog_readdir(bench->machine.catalog, &request, count_name, &count)));
	return count;
}

static void put_with(struct store *store, const char *key, const char *content, const struct objmeta *says)
{
	struct meta meta = {0};

	cr_assert(zero(int, objmeta_encode(says, &meta)));
	store_put(store, key, content, &meta);
	meta_clear(&meta);
}

/* --- listings ------------------------------------------------------------------------------------ */

Test(reconcile, lists_one_directory_after_the_other)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct cat_inode dir, root;

		store_put(bench.store, "a.txt", "hello", NULL);
		store_put(bench.store, "d/b.txt", "world!", NULL);
		store_put(bench.store, "d/e/c.txt", "", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		cr_expect(eq(uint, names_in(&bench, CAT_ROOT_INO), 2));
		cr_expect(eq(u64, lookup(&bench, CAT_ROOT_INO, "a.txt").size, 5));
		cr_expect(eq(u32, lookup(&bench, CAT_ROOT_INO, "a.txt").mode, S_IFREG | 0640));
		dir = lookup(&bench, CAT_ROOT_INO, "d");
		cr_expect(eq(u32, dir.mode, S_IFDIR | 0750));
		cr_expect(eq(u32, dir.uid, 501));
		cr_expect(zero(uint, names_in(&bench, dir.ino)), "not listed yet");
		list_dir(&bench, dir.ino);
		cr_expect(eq(u64, lookup(&bench, dir.ino, "b.txt").size, 6));
		dir = lookup(&bench, dir.ino, "e");
		list_dir(&bench, dir.ino);
		cr_expect(zero(u64, lookup(&bench, dir.ino, "c.txt").size));
		cr_assert(zero(int, catalog_getattr(bench.machine.catalog, CAT_ROOT_INO, &root)));
		cr_expect(ne(int, !!(root.flags & CAT_LISTED), 0));
		cr_expect(gt(i64, root.listed_at, clock_wall() - 60 * NS_PER_SEC));
		bench_off(&bench);
	}
}

Test(reconcile, hides_what_is_reserved_and_nothing_else)
{
	struct bench bench = bench_on(STORE_MEMORY);

	store_put(bench.store, ".varve/id", "x", NULL);
	store_put(bench.store, ".varve", "an object of that name", NULL);
	store_put(bench.store, ".varvel/x", "x", NULL);
	store_put(bench.store, "d/.varve/x", "x", NULL);
	list_dir(&bench, CAT_ROOT_INO);
	cr_expect(eq(uint, names_in(&bench, CAT_ROOT_INO), 3));
	cr_expect(ne(int, !!(S_ISREG(lookup(&bench, CAT_ROOT_INO, ".varve").mode)), 0));
	cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, ".varvel")), 0));
	uint64_t d = lookup(&bench, CAT_ROOT_INO, "d").ino;

	list_dir(&bench, d);
	cr_expect(ne(int, !!(exists(&bench, d, ".varve")), 0));
	bench_off(&bench);
}

Test(reconcile, takes_all_pages)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct reconcile_figures figures;
	char key[64];

	bench.store->page = 7;
	for (unsigned i = 0; i < 500; i++) {
		(void)snprintf(key, sizeof(key), i % 3 ? "f%03u" : "f%03u/x", i);
		store_put(bench.store, key, "x", NULL);
	}
	list_dir(&bench, CAT_ROOT_INO);
	cr_expect(eq(uint, names_in(&bench, CAT_ROOT_INO), 500));
	reconcile_figures(bench.reconcile, &figures);
	cr_expect(ge(u64, figures.pages, 500 / 7));
	cr_expect(eq(u64, figures.entries, 500));
	bench_off(&bench);
}

Test(reconcile, refuses_a_directory_beyond_all_bounds)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct reconcile_options options = {
		.catalog = bench.machine.catalog, .transfer = bench.machine.transfer, .max_entries = 3};
	struct reconcile *small = NULL;
	struct err err = {0};
	char key[8];

	for (unsigned i = 0; i < 4; i++) {
		(void)snprintf(key, sizeof(key), "f%u", i);
		store_put(bench.store, key, "x", NULL);
	}
	cr_assert(zero(int, reconcile_new(&options, &small)));
	cr_expect(lt(int, reconcile_directory(small, CAT_ROOT_INO, &forever, &err), 0));
	cr_expect(eq(int, err.kind, ERR_TOO_LARGE));
	cr_expect(zero(uint, names_in(&bench, CAT_ROOT_INO)), "nothing of half a listing");
	reconcile_free(small);
	bench_off(&bench);
}

Test(reconcile, sees_what_others_changed)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		uint64_t before;

		store_put(bench.store, "same", "1", NULL);
		store_put(bench.store, "gone", "1", NULL);
		store_put(bench.store, "other", "1", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		before = lookup(&bench, CAT_ROOT_INO, "other").ino;
		uint64_t same = lookup(&bench, CAT_ROOT_INO, "same").ino;

		atomic_store(&changes, 0);
		pause_ms(5);
		store_remove(bench.store, "gone");
		store_put(bench.store, "other", "22", NULL);
		store_put(bench.store, "new", "1", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		cr_expect(zero(int, !!(exists(&bench, CAT_ROOT_INO, "gone"))));
		cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, "new")), 0));
		cr_expect(eq(u64, lookup(&bench, CAT_ROOT_INO, "other").size, 2));
		cr_expect(ne(u64, lookup(&bench, CAT_ROOT_INO, "other").ino, before));
		cr_expect(eq(u64, lookup(&bench, CAT_ROOT_INO, "same").ino, same));
		cr_expect(ge(uint, atomic_load(&changes), 2), "the kernel is told");
		bench_off(&bench);
	}
}

/* --- odd keys -------------------------------------------------------------------------------------- */

struct key_query {
	uint64_t parent;
	const char *name;
	struct buf *key;
};

static int key_of(struct cat_txn *txn, void *arg)
{
	struct key_query *query = arg;

	buf_reset(query->key);
	return cat_key_of_name(txn, query->parent, query->name, query->key);
}

struct walk {
	struct bench *bench;
	struct buf *keys;
	uint64_t parent;
	unsigned depth;
	struct {
		uint64_t ino;
		char name[CAT_NAME_MAX + 1];
		bool directory;
	} seen[64];
	unsigned count;
};

static int walk_visit(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct walk *walk = arg;
	size_t len = strlen(name->name);

	(void)inode;
	cr_assert(lt(uint, walk->count, 64));
	cr_expect(ne(int, !!(utf8_valid(name->name, len)), 0), "%s", name->name);
	cr_expect(zero(int, !!(memchr(name->name, '/', len))));
	cr_expect(ne(str, (char *)name->name, ".."));
	cr_expect(ne(str, (char *)name->name, "."));
	cr_expect(le(sz, len, CAT_NAME_MAX));
	walk->seen[walk->count].ino = name->ino;
	walk->seen[walk->count].directory = name->type == S_IFDIR;
	memcpy(walk->seen[walk->count++].name, name->name, len + 1);
	return 0;
}

/* Lists everything from `dir` on; each file's key as the catalog computes it goes into keys, with a newline. */
static void walk_tree(struct bench *bench, uint64_t dir, struct buf *keys, unsigned depth)
{
	struct walk walk = {.bench = bench};
	struct cat_readdir request = {.parent = dir, .max = 1000};

	cr_assert(lt(uint, depth, 16));
	list_dir(bench, dir);
	cr_assert(zero(int, catalog_readdir(bench->machine.catalog, &request, walk_visit, &walk)));
	for (unsigned i = 0; i < walk.count; i++) {
		AUTO_BUF key = BUF_INIT;
		struct key_query query = {.parent = dir, .name = walk.seen[i].name, .key = &key};

		if (walk.seen[i].directory) {
			walk_tree(bench, walk.seen[i].ino, keys, depth + 1);
			continue;
		}
		cr_assert(zero(int, catalog_view(bench->machine.catalog, key_of, &query)), "%s", walk.seen[i].name);
		(void)resolved(bench, dir, walk.seen[i].name);
		buf_add(keys, key.data, key.len);
		buf_addc(keys, '\n');
	}
}

static void expect_keys(const struct buf *keys, const char *const *want, size_t count)
{
	size_t found = 0;

	for (const char *at = keys->data, *end; (end = strchr(at, '\n')); at = end + 1)
		found++;
	cr_expect(eq(sz, found, count), "%s", keys->data);
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(want[i]);
		bool there = false;

		for (const char *at = keys->data, *end; (end = strchr(at, '\n')); at = end + 1)
			there |= (size_t)(end - at) == len && !memcmp(at, want[i], len);
		cr_expect(ne(int, !!(there), 0), "key %s is lost", want[i]);
	}
}

static char long_component[601];

Test(reconcile, odd_keys_are_shown_escaped_and_come_back_as_they_are)
{
	struct bench bench = bench_on(STORE_MEMORY);
	AUTO_BUF keys = BUF_INIT;

	memset(long_component, 'L', sizeof(long_component) - 1);
	const char *const want[] = {
		"/leading", "a//b",          "a///c",         "..",           "../up",         "x/../y",
		"x/./z",    "ctl\x01\x7fx",  "tab\tname",     "bad\xff\xfe",  "%~already",     "clash",
		"clash/in", "clash/in/deep", "utf8-\xc3\xa9", long_component, "dir/with/\x02",
	};
	const size_t count = sizeof(want) / sizeof(*want);

	for (size_t i = 0; i < count; i++)
		store_put(bench.store, want[i], "x", NULL);
	walk_tree(&bench, CAT_ROOT_INO, &keys, 0);
	expect_keys(&keys, want, count);
	buf_reset(&keys);
	atomic_store(&changes, 0);
	walk_tree(&bench, CAT_ROOT_INO, &keys, 0); /* a second time nothing changes */
	expect_keys(&keys, want, count);
	cr_expect(zero(uint, atomic_load(&changes)));
	bench_off(&bench);
}

Test(reconcile, markers_make_directories_and_no_files)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct objmeta says = {
		.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME,
		.mode = S_IFDIR | S_ISGID | 0711,
		.uid = 1,
		.gid = 2,
		.mtime = INT64_C(1500000000) * NS_PER_SEC,
	};
	struct cat_inode inode;

	put_with(bench.store, "empty/", "", &says);
	put_with(bench.store, "full/", "", &says);
	store_put(bench.store, "full/f", "x", NULL);
	store_put(bench.store, "implied/f", "x", NULL);
	list_dir(&bench, CAT_ROOT_INO);
	cr_expect(eq(uint, names_in(&bench, CAT_ROOT_INO), 3));
	inode = resolved(&bench, CAT_ROOT_INO, "empty");
	cr_expect(eq(u32, inode.mode, S_IFDIR | 0711));
	cr_expect(eq(u32, inode.uid, 1));
	cr_expect(eq(i64, inode.mtime, says.mtime));
	list_dir(&bench, inode.ino);
	cr_expect(zero(uint, names_in(&bench, inode.ino)));
	inode = resolved(&bench, CAT_ROOT_INO, "full");
	cr_expect(eq(u32, inode.mode, S_IFDIR | 0711));
	list_dir(&bench, inode.ino);
	cr_expect(eq(uint, names_in(&bench, inode.ino), 1));
	inode = resolved(&bench, CAT_ROOT_INO, "implied");
	cr_expect(eq(u32, inode.mode, S_IFDIR | 0750));
	cr_expect(eq(u32, inode.uid, 501));
	bench_off(&bench);
}

/* --- resolving --------------------------------------------------------------------------------------- */

Test(reconcile, resolves_what_metadata_says)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct objmeta says = {
			.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME,
			.mode = S_IFREG | S_ISUID | 0755,
			.uid = 33,
			.gid = 44,
			.mtime = INT64_C(1500000000123456789),
		};
		struct cat_inode inode;

		put_with(bench.store, "file", "abc", &says);
		store_put(bench.store, "plain", "abc", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		inode = resolved(&bench, CAT_ROOT_INO, "file");
		cr_expect(eq(u32, inode.mode, S_IFREG | 0755), "%o", inode.mode);
		cr_expect(eq(u32, inode.uid, 33));
		cr_expect(eq(u32, inode.gid, 44));
		cr_expect(eq(i64, inode.mtime, says.mtime));
		cr_expect(eq(u64, inode.size, 3));
		inode = resolved(&bench, CAT_ROOT_INO, "plain");
		cr_expect(eq(u32, inode.mode, S_IFREG | 0640));
		cr_expect(eq(u32, inode.uid, 501));
		bench_off(&bench);
	}
}

static int read_target(struct cat_txn *txn, void *arg)
{
	struct key_query *query = arg;

	buf_reset(query->key);
	return cat_symlink_get(txn, query->parent, query->key);
}

Test(reconcile, symlinks_are_links_and_broken_ones_are_files)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct objmeta says = {.has = OBJMETA_MODE, .mode = S_IFLNK | 0777};
		AUTO_BUF target = BUF_INIT;
		struct key_query query = {.key = &target};
		char *huge = calloc(1, 6000);
		struct cat_inode inode;

		cr_assert(ne(int, !!(huge), 0));
		memset(huge, 'a', 5999);
		put_with(bench.store, "link", "../some/where\n", &says);
		put_with(bench.store, "hollow", "", &says);
		put_with(bench.store, "huge", huge, &says);
		free(huge);
		list_dir(&bench, CAT_ROOT_INO);
		inode = resolved(&bench, CAT_ROOT_INO, "link");
		cr_expect(ne(int, !!(S_ISLNK(inode.mode)), 0));
		query.parent = inode.ino;
		cr_assert(zero(int, catalog_view(bench.machine.catalog, read_target, &query)));
		cr_expect(eq(str, target.data, "../some/where"));
		cr_expect(ne(int, !!(S_ISREG(resolved(&bench, CAT_ROOT_INO, "hollow").mode)), 0));
		cr_expect(ne(int, !!(S_ISREG(resolved(&bench, CAT_ROOT_INO, "huge").mode)), 0));
		cr_expect(eq(u64, lookup(&bench, CAT_ROOT_INO, "huge").size, 5999));
		cr_expect(ge(uint, atomic_load(&changes), 1), "a file became a link: the kernel must know");
		bench_off(&bench);
	}
}

Test(reconcile, a_file_that_calls_itself_a_directory_or_device_is_a_file)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct objmeta dir = {.has = OBJMETA_MODE, .mode = S_IFDIR | 0777},
		       device = {.has = OBJMETA_MODE, .mode = S_IFBLK | 0666};
	struct objmeta file = {.has = OBJMETA_MODE, .mode = S_IFREG | 0600};

	put_with(bench.store, "d", "x", &dir);
	put_with(bench.store, "b", "x", &device);
	put_with(bench.store, "f/", "", &file);
	list_dir(&bench, CAT_ROOT_INO);
	cr_expect(eq(u32, resolved(&bench, CAT_ROOT_INO, "d").mode, S_IFREG | 0640));
	cr_expect(eq(u32, resolved(&bench, CAT_ROOT_INO, "b").mode, S_IFREG | 0640));
	cr_expect(eq(u32, resolved(&bench, CAT_ROOT_INO, "f").mode, S_IFDIR | 0750));
	bench_off(&bench);
}

Test(reconcile, takes_our_own_identity_from_metadata)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct objmeta says = {
			.has = OBJMETA_FILE_ID | OBJMETA_SEQ | OBJMETA_COMMIT | OBJMETA_EPOCH,
			.seq = 77,
			.commit_ns = INT64_C(1600000000123000000),
			.epoch = 3,
		};
		struct cat_inode inode;

		memset(says.file_id, 0xcd, sizeof(says.file_id));
		put_with(bench.store, "ours", "abc", &says);
		list_dir(&bench, CAT_ROOT_INO);
		inode = resolved(&bench, CAT_ROOT_INO, "ours");
		cr_expect(zero(int, memcmp(inode.file_id, says.file_id, sizeof(says.file_id))));
		bench_off(&bench);
	}
}

static int all_resolved(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	(void)name;
	*(unsigned *)arg += !!(inode->flags & CAT_UNRESOLVED);
	return 0;
}

Test(reconcile, resolving_one_brings_its_next_siblings)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct cat_readdir request = {.parent = CAT_ROOT_INO, .max = 1000, .with_inodes = true};
		unsigned left = 0;
		char key[16];

		for (unsigned i = 0; i < 100; i++) {
			(void)snprintf(key, sizeof(key), "f%03u", i);
			store_put(bench.store, key, "x", NULL);
		}
		list_dir(&bench, CAT_ROOT_INO);
		cr_assert(zero(int, catalog_readdir(bench.machine.catalog, &request, all_resolved, &left)));
		cr_assert(eq(uint, left, 100));
		(void)resolved(&bench, CAT_ROOT_INO, "f000");
		for (int i = 0; i < 6000 && left > 35; i++) {
			pause_ms(10);
			left = 0;
			cr_assert(zero(int, catalog_readdir(bench.machine.catalog, &request, all_resolved, &left)));
		}
		cr_expect(eq(uint, left, 35), "one and 64 after it");
		bench_off(&bench);
	}
}

/* Where a listing tells native ids what it showed can be asked for by them whatever came after; else it is stale. */
static void expect_stale(struct bench *bench, uint64_t ino, uint64_t size)
{
	struct cat_inode inode;
	struct err err = {0};
	int rc = reconcile_resolve(bench->reconcile, ino, &forever, &inode, &err);

	if (rc || !store_has_versions(&bench->machine)) {
		cr_expect(eq(int, rc, -ESTALE), "%s", err.message);
		return;
	}
	cr_expect(eq(u64, inode.size, size));
	list_dir(bench, CAT_ROOT_INO);
}

Test(reconcile, an_object_replaced_meanwhile_is_stale)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct cat_inode before, after;

		store_put(bench.store, "f", "one", NULL);
		store_put(bench.store, "g", "x", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		pause_ms(5);
		before = lookup(&bench, CAT_ROOT_INO, "f");
		store_put(bench.store, "f", "three", NULL);
		expect_stale(&bench, before.ino, 3);
		after = resolved(&bench, CAT_ROOT_INO, "f");
		cr_expect(ne(u64, after.ino, before.ino));
		cr_expect(eq(u64, after.size, 5));
		bench_off(&bench);
	}
}

Test(reconcile, an_object_removed_meanwhile_is_stale)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct cat_inode before;

		store_put(bench.store, "g", "x", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		pause_ms(5);
		before = lookup(&bench, CAT_ROOT_INO, "g");
		store_remove(bench.store, "g");
		expect_stale(&bench, before.ino, 1);
		cr_expect(zero(int, exists(&bench, CAT_ROOT_INO, "g")));
		bench_off(&bench);
	}
}

/* --- sharing ------------------------------------------------------------------------------------------- */

static atomic_bool let_go;  /* whoever is asked waits for it, */
static atomic_uint waiting; /* and is counted */
static atomic_uint asking;  /* threads that are about to ask */

static int held_back(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)call;
	(void)key;
	(void)err;
	atomic_fetch_add(&waiting, 1);
	while (!atomic_load(&let_go))
		pause_ms(1);
	return 0;
}

struct asker {
	struct bench *bench;
	uint64_t ino;
	struct call call;
	struct err err;
	int rc;
};

static void *ask_list(void *arg)
{
	struct asker *asker = arg;

	atomic_fetch_add(&asking, 1);
	asker->rc = reconcile_directory(asker->bench->reconcile, asker->ino, &asker->call, &asker->err);
	return NULL;
}

static void *ask_head(void *arg)
{
	struct asker *asker = arg;

	atomic_fetch_add(&asking, 1);
	asker->rc = reconcile_resolve(asker->bench->reconcile, asker->ino, &asker->call, NULL, &asker->err);
	return NULL;
}

static void ask_all(struct bench *bench, uint64_t ino, void *(*ask)(void *))
{
	struct asker askers[8];
	pthread_t threads[8];

	atomic_store(&let_go, false);
	atomic_store(&asking, 0);
	for (unsigned i = 0; i < 8; i++) {
		askers[i] = (struct asker){.bench = bench, .ino = ino};
		cr_assert(zero(int, pthread_create(&threads[i], NULL, ask, &askers[i])));
	}
	while (atomic_load(&asking) < 8)
		pause_ms(1);
	pause_ms(100);
	atomic_store(&let_go, true);
	for (unsigned i = 0; i < 8; i++) {
		cr_assert(zero(int, pthread_join(threads[i], NULL)));
		cr_expect(zero(int, askers[i].rc), "%s", askers[i].err.message);
	}
}

Test(reconcile, callers_at_once_share_one_answer)
{
	struct bench bench = bench_on(STORE_MEMORY);

	store_put(bench.store, "f", "x", NULL);
	atomic_store(&bench.store->hook, held_back);
	ask_all(&bench, CAT_ROOT_INO, ask_list);
	/* Two: one of them came to ask when the others had their answer already. */
	cr_expect(le(uint, atomic_load(&bench.store->calls[SHIM_LIST]), 2));
	ask_all(&bench, lookup(&bench, CAT_ROOT_INO, "f").ino, ask_head);
	cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_HEAD]), 1));
	bench_off(&bench);
}

Test(reconcile, one_who_gives_up_does_not_fail_the_others)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct asker hurried = {.bench = &bench, .ino = CAT_ROOT_INO}, patient = hurried;
	atomic_bool cancelled = false;
	pthread_t first, second;

	store_put(bench.store, "f", "x", NULL);
	bench.store->page = 1; /* several pages, so that there is something to break off */
	store_put(bench.store, "g", "x", NULL);
	store_put(bench.store, "h", "x", NULL);
	atomic_store(&bench.store->hook, held_back);
	hurried.call.cancelled = &cancelled;
	cr_assert(zero(int, pthread_create(&first, NULL, ask_list, &hurried)));
	while (!atomic_load(&waiting))
		pause_ms(1);
	cr_assert(zero(int, pthread_create(&second, NULL, ask_list, &patient)));
	while (atomic_load(&asking) < 2)
		pause_ms(1);
	pause_ms(50);
	atomic_store(&cancelled, true);
	atomic_store(&let_go, true);
	cr_assert(zero(int, pthread_join(first, NULL)));
	cr_assert(zero(int, pthread_join(second, NULL)));
	cr_expect(lt(int, hurried.rc, 0));
	cr_expect(eq(int, hurried.err.kind, ERR_CANCELLED));
	cr_expect(zero(int, patient.rc), "%s", patient.err.message);
	cr_expect(eq(uint, names_in(&bench, CAT_ROOT_INO), 3));
	bench_off(&bench);
}

/* --- refreshing ------------------------------------------------------------------------------------------ */

static bool wait_listed_after(struct bench *bench, int64_t when)
{
	struct cat_inode root;

	for (int i = 0; i < 6000; i++) {
		cr_assert(zero(int, catalog_getattr(bench->machine.catalog, CAT_ROOT_INO, &root)));
		if (root.listed_at >= when)
			return true;
		pause_ms(10);
	}
	return false;
}

Test(reconcile, what_was_listed_a_moment_ago_is_not_refreshed)
{
	struct bench bench = bench_on_aged(STORE_MEMORY, 3600 * NS_PER_SEC);
	unsigned lists;

	list_dir(&bench, CAT_ROOT_INO);
	lists = atomic_load(&bench.store->calls[SHIM_LIST]);
	for (int i = 0; i < 10; i++)
		reconcile_refresh_soon(bench.reconcile, CAT_ROOT_INO);
	pause_ms(50);
	cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_LIST]), lists), "still young");
	bench_off(&bench);
}

/* Nobody waits for it: nothing is answered before all have asked. */
Test(reconcile, what_is_old_is_refreshed_in_the_background)
{
	struct bench bench = bench_on_aged(STORE_MEMORY, NS_PER_MS);
	unsigned lists;
	int64_t begun;

	list_dir(&bench, CAT_ROOT_INO);
	lists = atomic_load(&bench.store->calls[SHIM_LIST]);
	pause_ms(5);
	store_put(bench.store, "f", "x", NULL);
	atomic_store(&bench.store->hook, held_back);
	begun = clock_wall();
	for (int i = 0; i < 10; i++)
		reconcile_refresh_soon(bench.reconcile, CAT_ROOT_INO);
	atomic_store(&let_go, true);
	cr_expect(ne(int, !!(wait_listed_after(&bench, begun)), 0));
	cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_LIST]), lists + 1), "one for all");
	cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, "f")), 0));
	bench_off(&bench);
}

/* Something of others comes between two pages of a listing, where the first has gone by, and an upload tells of it. */
static struct bench *told;

static int missed_by_first_page(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	struct bench *bench = told;

	(void)key;
	(void)err;
	if (call != SHIM_LIST || atomic_load(&store->calls[SHIM_LIST]) != 3)
		return 0;
	atomic_store(&store->hook, NULL);
	store_put(store, "a", "x", NULL);
	reconcile_names_soon(bench->reconcile, lookup(bench, CAT_ROOT_INO, "f").ino);
	return 0;
}

Test(reconcile, what_is_told_of_during_a_listing_is_seen_by_another)
{
	struct bench bench = bench_on(STORE_MEMORY);

	told = &bench;
	store_put(bench.store, "f", "x", NULL);
	list_dir(&bench, CAT_ROOT_INO); /* the first call */
	store_put(bench.store, "g", "x", NULL);
	bench.store->page = 1;
	atomic_store(&bench.store->hook, missed_by_first_page);
	list_dir(&bench, CAT_ROOT_INO); /* the second and the third */
	for (int i = 0; i < 6000 && !exists(&bench, CAT_ROOT_INO, "a"); i++)
		pause_ms(10);
	cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, "a")), 0));
	cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, "g")), 0));
	bench_off(&bench);
}

static int outage(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)call;
	(void)key;
	return err_set(err, ERR_DENIED, "closed");
}

Test(reconcile, a_failed_listing_changes_nothing)
{
	struct bench bench = bench_on(STORE_MEMORY);
	struct err err = {0};

	store_put(bench.store, "f", "x", NULL);
	list_dir(&bench, CAT_ROOT_INO);
	atomic_store(&bench.store->hook, outage);
	cr_expect(lt(int, reconcile_directory(bench.reconcile, CAT_ROOT_INO, &forever, &err), 0));
	cr_expect(eq(int, err.kind, ERR_DENIED));
	cr_expect(ne(int, !!(exists(&bench, CAT_ROOT_INO, "f")), 0));
	bench_off(&bench);
}

static int slow(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)call;
	(void)key;
	(void)err;
	pause_ms(150);
	return 0;
}

Test(reconcile, may_be_freed_while_it_works)
{
	struct bench bench = bench_on(STORE_MEMORY);
	char key[16];

	for (unsigned i = 0; i < 100; i++) {
		(void)snprintf(key, sizeof(key), "f%03u", i);
		store_put(bench.store, key, "x", NULL);
	}
	list_dir(&bench, CAT_ROOT_INO);
	atomic_store(&bench.store->hook, slow);
	(void)resolved(&bench, CAT_ROOT_INO, "f000"); /* leaves 64 under way */
	bench_off(&bench);
}

/* --- versions ---------------------------------------------------------------------------------------------- */

static int count_version(void *arg, const struct cat_version *version)
{
	(void)version;
	++*(unsigned *)arg;
	return 0;
}

struct versions_query {
	uint64_t ino;
	unsigned count;
};

static int count_versions(struct cat_txn *txn, void *arg)
{
	struct versions_query *query = arg;

	query->count = 0;
	return cat_version_each(txn, query->ino, 0, UINT64_MAX, count_version, &query->count);
}

static unsigned versions_of(struct bench *bench, uint64_t ino)
{
	struct versions_query query = {.ino = ino};

	cr_assert(zero(int, catalog_view(bench->machine.catalog, count_versions, &query)));
	return query.count;
}

Test(reconcile, finds_the_versions_of_exactly_this_key_once)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct err err = {0};
		struct cat_inode inode;
		unsigned lists;

		for (unsigned i = 0; i < 5; i++) {
			char content[2] = {(char)('a' + i), '\0'};

			store_put(bench.store, "f", content, NULL);
			store_put(bench.store, "f2", content, NULL);
			store_put(bench.store, "f.d/x", content, NULL);
			pause_ms(3);
		}
		store_remove(bench.store, "f");
		store_put(bench.store, "f", "zz", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		inode = resolved(&bench, CAT_ROOT_INO, "f");
		cr_expect(eq(uint, versions_of(&bench, inode.ino), 1));
		lists = atomic_load(&bench.store->calls[SHIM_LIST]);
		cr_assert(zero(int, reconcile_versions(bench.reconcile, inode.ino, &forever, &err)), "%s", err.message);
		if (!store_has_versions(&bench.machine)) {
			cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_LIST]), lists));
			cr_expect(eq(uint, versions_of(&bench, inode.ino), 1));
			bench_off(&bench);
			continue;
		}
		cr_expect(eq(uint, versions_of(&bench, inode.ino), 6));
		lists = atomic_load(&bench.store->calls[SHIM_LIST]);
		cr_assert(zero(int, reconcile_versions(bench.reconcile, inode.ino, &forever, &err)));
		cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_LIST]), lists), "asked a moment ago");
		bench_off(&bench);
	}
}

Test(reconcile, many_versions_keep_their_own_times)
{
	struct bench bench = bench_on_aged(STORE_MEMORY, 1);
	struct objmeta says = {.has = OBJMETA_MTIME};
	struct err err = {0};
	struct cat_inode inode;

	for (unsigned i = 0; i < 60; i++) {
		says.mtime = (INT64_C(1500000000) + i) * NS_PER_SEC;
		put_with(bench.store, "f", "same", &says);
		pause_ms(2);
	}
	list_dir(&bench, CAT_ROOT_INO);
	inode = resolved(&bench, CAT_ROOT_INO, "f");
	cr_expect(eq(i64, inode.mtime, says.mtime));
	cr_assert(zero(int, reconcile_versions(bench.reconcile, inode.ino, &forever, &err)), "%s", err.message);
	cr_expect(eq(uint, versions_of(&bench, inode.ino), 60));
	cr_assert(zero(int, reconcile_versions(bench.reconcile, inode.ino, &forever, &err)), "%s", err.message);
	cr_expect(eq(uint, versions_of(&bench, inode.ino), 60), "nothing is taken twice");
	bench_off(&bench);
}

/* --- the past ------------------------------------------------------------------------------------------------ */

static int take_past(void *arg, const struct cat_past *past)
{
	*(struct cat_past *)arg = *past;
	return 0;
}

static int count_past(void *arg, const struct cat_past *past)
{
	(void)past; /* that there is one */
	++*(unsigned *)arg;
	return 0;
}

/* ino 0: none. */
static struct cat_past past_of(struct bench *bench, uint64_t dir, const char *name)
{
	struct cat_past past = {0};

	cr_assert(zero(int, catalog_past(bench->machine.catalog, dir, name, take_past, &past)));
	return past;
}

static void ask_past(struct bench *bench, uint64_t dir)
{
	struct err err = {0};

	cr_assert(zero(int, reconcile_past_now(bench->reconcile, dir, &forever, &err)), "%s", err.message);
}

Test(reconcile, what_others_deleted_before_is_in_the_past)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct objmeta link = {.has = OBJMETA_MODE, .mode = S_IFLNK | 0777};
		struct cat_past past;
		uint64_t dir;

		store_put(bench.store, "alive", "1", NULL);
		store_put(bench.store, "gone", "1", NULL);
		pause_ms(3);
		store_put(bench.store, "gone", "22", NULL);
		store_remove(bench.store, "gone");
		put_with(bench.store, "link", "target", &link);
		store_remove(bench.store, "link");
		store_put(bench.store, "d/e/f", "333", NULL);
		store_remove(bench.store, "d/e/f");
		list_dir(&bench, CAT_ROOT_INO);
		ask_past(&bench, CAT_ROOT_INO);
		past = past_of(&bench, CAT_ROOT_INO, "gone");
		if (!store_has_versions(&bench.machine)) {
			cr_expect(zero(u64, past.ino));
			bench_off(&bench);
			continue;
		}
		cr_assert(ne(u64, past.ino, 0));
		cr_expect(eq(uint, versions_of(&bench, past.ino), 2));
		cr_expect(zero(u64, past_of(&bench, CAT_ROOT_INO, "alive").ino));
		cr_expect(zero(u64, past_of(&bench, CAT_ROOT_INO, "link").ino), "its body is no file's content");
		/* Some stores list a prefix beneath which all is deleted as if something were there. */
		dir = past_of(&bench, CAT_ROOT_INO, "d").ino;
		dir = dir ? dir : lookup(&bench, CAT_ROOT_INO, "d").ino;
		ask_past(&bench, dir);
		dir = past_of(&bench, dir, "e").ino;
		cr_assert(ne(u64, dir, 0));
		ask_past(&bench, dir);
		past = past_of(&bench, dir, "f");
		cr_assert(ne(u64, past.ino, 0));
		cr_expect(eq(uint, versions_of(&bench, past.ino), 1));
		ask_past(&bench, CAT_ROOT_INO);
		cr_expect(eq(uint, versions_of(&bench, past_of(&bench, CAT_ROOT_INO, "gone").ino), 2), "once");
		bench_off(&bench);
	}
}

static int end_job(void *arg, struct cat_job *job)
{
	*(uint64_t *)arg = job->seq;
	return 1;
}

static unsigned pasts_of(struct bench *bench, const char *name)
{
	unsigned count = 0;

	cr_assert(zero(int, catalog_past(bench->machine.catalog, CAT_ROOT_INO, name, count_past, &count)));
	return count;
}

/* A directory that was there goes elsewhere, and all is done that this takes. */
static void move_directory(struct bench *bench, const char *name, const char *to)
{
	struct cat_rename request = {.parent = CAT_ROOT_INO, .name = name, .new_parent = CAT_ROOT_INO, .new_name = to};
	struct cat_unlinked replaced;
	AUTO_BUF key = BUF_INIT;
	uint64_t job;

	buf_addf(&key, "%s/x", name);
	store_put(bench->store, key.data, "1", NULL);
	list_dir(bench, CAT_ROOT_INO);
	list_dir(bench, lookup(bench, CAT_ROOT_INO, name).ino);
	cr_assert(zero(int, catalog_rename(bench->machine.catalog, &request, &replaced)));
	while (catalog_jobs(bench->machine.catalog, 0, 1, end_job, &job) == 1)
		cr_assert(zero(int, catalog_job_done(bench->machine.catalog, job)));
	store_remove(bench->store, key.data);
	pause_ms(3);
}

Test(reconcile, a_directory_of_others_that_came_and_went_where_ours_was_is_in_the_past)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct objmeta ours = {.has = OBJMETA_FILE_ID | OBJMETA_MODE, .mode = S_IFREG | 0644};
		const struct call hasty = {.hasty = true};
		struct cat_past past;
		struct err err = {0};
		unsigned lists;

		move_directory(&bench, "d", "e");
		store_put(bench.store, "d/y", "theirs", NULL);
		store_remove(bench.store, "d/y");
		move_directory(&bench, "f", "g");
		put_with(bench.store, "f/late", "ours", &ours);
		store_remove(bench.store, "f/late");
		ask_past(&bench, CAT_ROOT_INO);
		if (store_has_versions(&bench.machine)) {
			ask_past(&bench, CAT_ROOT_INO);
			past = past_of(&bench, CAT_ROOT_INO, "d");
			cr_expect(eq(uint, pasts_of(&bench, "d"), 2), "ours, and theirs once");
			cr_expect(eq(int, (int)past.ended, CAT_HOW_VANISH));
			lists = atomic_load(&bench.store->calls[SHIM_LIST]);
			cr_assert(zero(int, reconcile_past_now(bench.reconcile, CAT_ROOT_INO, &hasty, &err)));
			cr_expect(eq(uint, atomic_load(&bench.store->calls[SHIM_LIST]) - lists, 1),
				  "whoever waits waits for each directory that is gone");
			ask_past(&bench, past.ino);
			cr_expect(eq(uint, versions_of(&bench, past_of(&bench, past.ino, "y").ino), 1));
		}
		cr_expect(eq(uint, pasts_of(&bench, "f"), 1), "what we sent too late is no directory of others");
		bench_off(&bench);
	}
}

/* --- gone ---------------------------------------------------------------------------------------------------- */

struct first_copy {
	uint64_t ino, seq;
	struct cat_copy copy;
};

static int oldest_version(void *arg, const struct cat_version *version)
{
	((struct first_copy *)arg)->seq = version->seq;
	return 1;
}

static int get_first_copy(struct cat_txn *txn, void *arg)
{
	struct first_copy *first = arg;
	int rc = cat_version_each(txn, first->ino, 0, UINT64_MAX, oldest_version, first);

	return rc == 1 ? cat_copy_get(txn, first->ino, first->seq, &first->copy) : -ENOENT;
}

static int no_bucket(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)call;
	return err_set(err, ERR_NOT_FOUND, "no such bucket: %s", key ? key : "");
}

Test(reconcile, gone_is_only_what_a_store_that_answers_does_not_have)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct first_copy first = {0};
		struct cat_gone gone;
		struct object_ref object;
		struct err err = {0};
		bool is_gone = true;

		store_put(bench.store, "f", "1", NULL);
		pause_ms(3);
		store_put(bench.store, "f", "22", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		first.ino = resolved(&bench, CAT_ROOT_INO, "f").ino;
		cr_assert(zero(int, reconcile_versions(bench.reconcile, first.ino, &forever, &err)));
		cr_assert(zero(int, catalog_view(bench.machine.catalog, get_first_copy, &first)));
		gone = (struct cat_gone){.ino = first.ino,
					 .seq = first.seq,
					 .key = first.copy.key,
					 .native_id = first.copy.native_id,
					 .etag = first.copy.etag};
		cr_assert(zero(int, reconcile_gone(bench.reconcile, &gone, RECONCILE_READ, &forever, &is_gone)));
		cr_expect(not(is_gone), "it is there");
		atomic_store(&bench.store->hook, no_bucket);
		cr_expect(ne(int, reconcile_gone(bench.reconcile, &gone, RECONCILE_READ, &forever, &is_gone), 0));
		cr_expect(not(is_gone), "nothing is there, and so nothing is known");
		atomic_store(&bench.store->hook, NULL);
		object = (struct object_ref){.key = "f", .native_id = first.copy.native_id};
		cr_assert(zero(int, transfer_remove(bench.machine.transfer, &forever, &object, NULL, &err)));
		cr_assert(zero(int, reconcile_gone(bench.reconcile, &gone, RECONCILE_READ, &forever, &is_gone)));
		cr_expect(is_gone);
		cat_copy_clear(&first.copy);
		first.copy = (struct cat_copy){0};
		cr_expect(eq(int, catalog_view(bench.machine.catalog, get_first_copy, &first), -ENOENT));
		bench_off(&bench);
	}
}
