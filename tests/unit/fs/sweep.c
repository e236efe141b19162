/* sweep: what nobody looks at is found all the same; what a listing does not say is not concluded from it. */
#include "fs/sweep.h"

#include <errno.h>
#include <sys/stat.h>

#include "fixture.h"
#include "fs/objmeta.h"
#include "fs/reconcile.h"

struct bench {
	struct store *store;
	struct machine machine;
	struct reconcile *reconcile;
	struct sweep *sweep;
};

static const struct call forever;

static struct bench bench_on(enum store_kind kind)
{
	struct store *store = store_new(kind);
	struct bench bench = {.store = store, .machine = machine_on(store, "state")};
	struct reconcile_options options = {.catalog = bench.machine.catalog, .transfer = bench.machine.transfer};
	struct sweep_options sweep = {.catalog = bench.machine.catalog, .transfer = bench.machine.transfer};

	cr_assert(zero(int, reconcile_new(&options, &bench.reconcile)));
	sweep.reconcile = bench.reconcile;
	cr_assert(zero(int, sweep_new(&sweep, &bench.sweep)));
	store->page = 3;
	store_put(store, ".varve/id", "0123456789abcdef", NULL);
	return bench;
}

static void bench_off(struct bench *bench)
{
	struct cat_check check;

	sweep_free(bench->sweep);
	cr_expect(zero(int, catalog_check(bench->machine.catalog, NULL, NULL, &check)));
	cr_expect(zero(u64, check.problems));
	reconcile_free(bench->reconcile);
	machine_off(&bench->machine);
	store_free(bench->store);
}

static struct sweep_figures sweep_now(struct bench *bench)
{
	struct sweep_figures before, now;

	sweep_figures(bench->sweep, &before);
	sweep_hurry(bench->sweep);
	do {
		pause_ms(5);
		sweep_figures(bench->sweep, &now);
	} while (now.running || now.passes + now.broken_off == before.passes + before.broken_off);
	return now;
}

static void list_dir(struct bench *bench, uint64_t dir)
{
	struct err err = {0};

	cr_assert(zero(int, reconcile_directory(bench->reconcile, dir, &forever, &err)), "%s", err.message);
}

static bool lookup(struct bench *bench, uint64_t parent, const char *name, struct cat_inode *ret_inode)
{
	return catalog_lookup(bench->machine.catalog, parent, name, ret_inode) == 0;
}

Test(sweep, finds_what_is_new_replaced_and_gone_where_somebody_has_looked)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct sweep_figures figures;
		struct cat_inode inode, dir, sub;
		unsigned lists;

		for (unsigned i = 0; i < 10; i++) {
			char key[16];

			(void)snprintf(key, sizeof(key), "d/f%u", i);
			store_put(bench.store, key, "same", NULL);
		}
		store_put(bench.store, "unseen/f", "same", NULL);
		list_dir(&bench, CAT_ROOT_INO);
		cr_assert(lookup(&bench, CAT_ROOT_INO, "d", &dir) && lookup(&bench, CAT_ROOT_INO, "unseen", &sub));
		list_dir(&bench, dir.ino);
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.passes, 1));
		cr_expect(zero(u64, figures.listed), "nothing has changed");

		pause_ms(3);
		store_put(bench.store, "d/f3", "replaced", NULL);
		store_remove(bench.store, "d/f5");
		store_put(bench.store, "d/new", "new", NULL);
		store_put(bench.store, "unseen/g", "nobody looks", NULL);
		lists = atomic_load(&bench.store->calls[SHIM_LIST]);
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.listed, 1), "each directory once");
		cr_expect(lt(uint, atomic_load(&bench.store->calls[SHIM_LIST]) - lists, 40));
		cr_expect(lookup(&bench, dir.ino, "f3", &inode));
		cr_expect(eq(u64, inode.size, 8));
		cr_expect(not(lookup(&bench, dir.ino, "f5", &inode)));
		cr_expect(lookup(&bench, dir.ino, "new", &inode));
		cr_expect(not(lookup(&bench, sub.ino, "g", &inode)), "listed when somebody looks");
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.listed, 1), "and now all is known");
		bench_off(&bench);
	}
}

static int remember(void *arg, const struct cat_copy *copy)
{
	struct cat_copy *oldest = arg;

	if (strcmp(copy->key, "f") != 0 || (oldest->key && oldest->stored_ns <= copy->stored_ns))
		return 0;
	cat_copy_clear(oldest);
	oldest->key = strdup(copy->key);
	oldest->native_id = copy->native_id ? strdup(copy->native_id) : NULL;
	oldest->stored_ns = copy->stored_ns;
	return 0;
}

/* Removes the oldest version of f for good. */
static void lose_oldest(struct bench *bench)
{
	struct cat_cursor cursor = {0};
	struct cat_copy oldest = {0};
	struct object_ref object = {.key = "f"};
	struct err err = {0};

	cr_assert(zero(int, catalog_copies(bench->machine.catalog, &cursor, 1000, remember, &oldest)));
	cr_assert(cursor.done && oldest.native_id);
	object.native_id = oldest.native_id;
	cr_assert(zero(int, transfer_remove(bench->machine.transfer, &forever, &object, NULL, &err)));
	cat_copy_clear(&oldest);
}

/* Five versions, all known. */
static void make_versions(struct bench *bench)
{
	struct cat_inode inode;
	struct err err = {0};

	for (unsigned i = 0; i < 5; i++) {
		store_put(bench->store, "f", "one more", NULL);
		pause_ms(3);
	}
	list_dir(bench, CAT_ROOT_INO);
	cr_assert(lookup(bench, CAT_ROOT_INO, "f", &inode));
	cr_assert(zero(int, reconcile_versions(bench->reconcile, inode.ino, &forever, &err)));
	pause_ms(3);
}

static int fails_late(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)key;
	if (call != SHIM_LIST || atomic_fetch_sub(&store->countdown, 1) != 1)
		return 0;
	atomic_store(&store->countdown, 1);
	return err_set(err, ERR_DENIED, "not today");
}

Test(sweep, expires_what_is_gone_but_only_when_it_saw_everything)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct sweep_figures figures;

		if (!store_has_versions(&bench.machine)) {
			bench_off(&bench);
			continue;
		}
		make_versions(&bench);
		lose_oldest(&bench);
		atomic_store(&bench.store->countdown, 2);
		atomic_store(&bench.store->hook, fails_late);
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.broken_off, 1));
		cr_expect(zero(u64, figures.expired));
		atomic_store(&bench.store->hook, NULL);
		store_remove(bench.store, ".varve/id");
		figures = sweep_now(&bench);
		cr_expect(zero(u64, figures.expired), "that was no listing of our store");
		store_put(bench.store, ".varve/id", "0123456789abcdef", NULL);
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.expired, 1));
		figures = sweep_now(&bench);
		cr_expect(eq(u64, figures.expired, 1), "once");
		bench_off(&bench);
	}
}

/* Puts a version of the file with id "iiii…" at the key, as a writer would that has lost its lease. */
static void put_ours(struct bench *bench, const char *key, const char *content, struct objmeta meta)
{
	struct meta encoded;

	meta.has = OBJMETA_MODE | OBJMETA_FILE_ID | OBJMETA_SEQ | OBJMETA_COMMIT | OBJMETA_ORIGIN;
	meta.mode = S_IFREG | 0644;
	memset(meta.file_id, 'i', sizeof(meta.file_id));
	cr_assert(zero(int, objmeta_encode(&meta, &encoded)));
	store_put(bench->store, key, content, &encoded);
	meta_clear(&encoded);
}

struct origins {
	unsigned versions, conflicts;
};

static int count_origins(void *arg, const struct cat_entry *entry)
{
	struct origins *origins = arg;

	origins->versions++;
	origins->conflicts += entry->version.origin == CAT_ORIGIN_CONFLICT;
	cr_expect(eq(int, entry->is_current, entry->version.origin != CAT_ORIGIN_CONFLICT));
	return 0;
}

Test(sweep, finds_the_conflicts_of_a_writer_that_was_fenced)
{
	EVERY_STORE(kind)
	{
		struct bench bench = bench_on(kind);
		struct sweep_figures figures;
		struct cat_inode inode;
		struct err err = {0};

		put_ours(&bench, "f", "current", (struct objmeta){.seq = 7, .commit_ns = NS_PER_SEC});
		list_dir(&bench, CAT_ROOT_INO);
		cr_assert(lookup(&bench, CAT_ROOT_INO, "f", &inode));
		cr_assert(zero(int, reconcile_resolve(bench.reconcile, inode.ino, &forever, NULL, &err)));
		put_ours(&bench, ".varve/versions/69696969696969696969696969696969/0000000000000007", "late",
			 (struct objmeta){.seq = 7, .commit_ns = 2 * NS_PER_SEC, .origin = CAT_ORIGIN_CONFLICT});
		put_ours(&bench, ".varve/versions/external/x", "whose?", (struct objmeta){.seq = 9});
		for (int again = 0; again < 2; again++) {
			struct origins origins = {0};

			figures = sweep_now(&bench);
			cr_expect(eq(u64, figures.found, 1), "once");
			cr_assert(zero(int, catalog_history(bench.machine.catalog, CAT_ROOT_INO, "f", count_origins,
							    &origins)));
			cr_expect(eq(uint, origins.versions, 2));
			cr_expect(eq(uint, origins.conflicts, 1));
		}
		bench_off(&bench);
	}
}

Test(sweep, may_be_freed_while_it_works)
{
	struct bench bench = bench_on(STORE_MEMORY);

	make_versions(&bench);
	sweep_hurry(bench.sweep);
	bench_off(&bench);
}
