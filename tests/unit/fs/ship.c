/* ship: what only the catalog knows is in the store when ship_now returns, and comes back from there. */
#include "fs/ship.h"

#include <errno.h>
#include <sys/stat.h>

#include "fixture.h"

#define NEVER (3600 * NS_PER_SEC) /* the thread stays out of it */

static const struct call forever;

/* A machine that holds the lease and ships. */
struct shipper {
	struct machine machine;
	struct lease *lease;
	struct ship *ship;
};

static struct shipper shipper_on(struct store *store, const char *name, const struct ship_options *with)
{
	struct shipper shipper = {.machine = machine_on(store, name)};
	struct lease_options lease_options = {.catalog = shipper.machine.catalog,
					      .transfer = shipper.machine.transfer,
					      .duration_ns = 600 * NS_PER_SEC}; /* it has not to be renewed */
	struct ship_options options = *with;
	struct err err = {0};

	cr_assert(zero(int, lease_check_identity(&lease_options, LEASE_IDENTITY_CREATE, &forever, &err)), "%s",
		  err.message);
	cr_assert(zero(int, lease_acquire(&lease_options, &forever, &shipper.lease, &err)), "%s", err.message);
	options.catalog = shipper.machine.catalog;
	options.transfer = shipper.machine.transfer;
	options.lease = shipper.lease;
	options.tmp_dir = store->dir;
	cr_assert(zero(int, ship_new(&options, &shipper.ship, &err)), "%s", err.message);
	return shipper;
}

static void shipper_off(struct shipper *shipper)
{
	ship_free(shipper->ship);
	lease_release(shipper->lease, &forever);
	lease_free(shipper->lease);
	machine_off(&shipper->machine);
}

static void make_dir(struct machine *machine, const char *name)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFDIR | 0750, .uid = 7, .gid = 8};
	struct cat_inode inode;

	cr_assert(zero(int, catalog_create(machine->catalog, &create, &inode)));
}

static void make_dirs(struct machine *machine, unsigned from, unsigned count)
{
	char name[32];

	for (unsigned i = from; i < from + count; i++) {
		(void)snprintf(name, sizeof(name), "d%u", i);
		make_dir(machine, name);
	}
}

static bool has_dir(struct machine *machine, const char *name)
{
	struct cat_inode inode;

	return !catalog_lookup(machine->catalog, CAT_ROOT_INO, name, &inode) && inode.mode == (S_IFDIR | 0750) &&
	       inode.uid == 7;
}

static void now(struct shipper *shipper)
{
	struct err err = {0};

	cr_assert(zero(int, ship_now(shipper->ship, &forever, &err)), "%s", err.message);
}

static int rebuild(struct machine *machine, struct ship_rebuilt *ret_rebuilt, struct err *err)
{
	struct ship_rebuild request = {
		.catalog = machine->catalog, .transfer = machine->transfer, .tmp_dir = machine->store->dir};
	struct lease_options options = {.catalog = machine->catalog, .transfer = machine->transfer};

	cr_assert(zero(int, lease_check_identity(&options, LEASE_IDENTITY_READ, &forever, err)), "%s", err->message);
	return ship_rebuild(&request, &forever, ret_rebuilt, err);
}

/* The newest key that ends so; malloc'd. */
static char *newest(struct store *store, const char *suffix)
{
	AUTO_BUF keys = BUF_INIT;
	char *found = NULL, *at;

	(void)store_count(store, SHIP_PREFIX, false, &keys);
	at = keys.data;
	for (char *end; (end = strchr(at, '\n')); at = end + 1) {
		*end = '\0';
		if (strlen(at) > strlen(suffix) && !strcmp(at + strlen(at) - strlen(suffix), suffix)) {
			free(found);
			found = strdup(at);
		}
	}
	cr_assert(ne(int, !!(found), 0), "nothing ends in %s", suffix);
	return found;
}

Test(ship, what_was_shipped_is_rebuilt)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
		struct ship_rebuilt done = {0};
		struct err err = {0};

		make_dirs(&one.machine, 0, 3);
		now(&one);
		for (unsigned i = 3; i < 20; i++) {
			make_dirs(&one.machine, i, 1);
			now(&one);
		}
		make_dirs(&one.machine, 20, 1); /* not shipped: a machine that is gone takes it along */
		struct machine two = machine_on(store, "two");
		unsigned heads = atomic_load(&store->calls[SHIM_HEAD]);

		cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
		cr_expect(le(uint, atomic_load(&store->calls[SHIM_HEAD]) - heads, 4), "each piece was asked about");
		for (unsigned i = 0; i < 20; i++) {
			char name[32];

			(void)snprintf(name, sizeof(name), "d%u", i);
			cr_expect(ne(int, !!(has_dir(&two, name)), 0), "%s", name);
		}
		cr_expect(zero(int, !!(has_dir(&two, "d20"))));
		cr_expect(eq(u64, done.segments, 17));
		cr_expect(eq(u64, done.epoch, 1));
		cr_expect(zero(int, !!(done.gap)));
		machine_off(&two);
		shipper_off(&one);
		store_free(store);
	}
}

static atomic_uint replaced;

/* Every piece was put again between the listing and the first look at it. */
static int is_replaced(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	if (call != SHIM_GET || strncmp(key, SHIP_PREFIX, strlen(SHIP_PREFIX)) != 0)
		return 0;
	return atomic_fetch_add(&replaced, 1) % 2 ? 0 : err_set(err, ERR_PRECONDITION, "another etag");
}

Test(ship, a_piece_put_again_since_it_was_listed_counts)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
	struct ship_rebuilt done = {0};
	struct err err = {0};

	for (unsigned i = 0; i < 5; i++) {
		make_dirs(&one.machine, i, 1);
		now(&one);
	}
	struct machine two = machine_on(store, "two");

	atomic_store(&store->hook, is_replaced);
	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	atomic_store(&store->hook, NULL);
	cr_expect(ne(int, !!(has_dir(&two, "d4")), 0));
	cr_expect(zero(int, !!(done.gap)));
	cr_expect(eq(uint, atomic_load(&replaced), 2 * (unsigned)(done.segments + 1)));
	machine_off(&two);
	shipper_off(&one);
	store_free(store);
}

Test(ship, nothing_is_sent_when_nothing_changed)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = 20 * NS_PER_MS});
	struct ship_figures before, after;

	make_dir(&one.machine, "d");
	now(&one);
	ship_figures(one.ship, &after);
	for (int tries = 0; tries < 30; tries++) { /* what it notes itself may still be to be shipped */
		before = after;
		pause_ms(300);
		ship_figures(one.ship, &after);
		if (after.number == before.number && after.bytes == before.bytes)
			break;
	}
	cr_expect(eq(u64, after.number, before.number), "shipping makes updates that make shipping");
	cr_expect(eq(u64, after.shipped, after.number));
	cr_expect(eq(u64, after.bytes, before.bytes));
	cr_expect(le(u64, after.snapshots + after.segments, 2));
	/* Local settings are not for shipping, and what follows them must still follow on. */
	for (int i = 0; i < 5; i++) {
		cr_assert(zero(int, catalog_setting_put(one.machine.catalog, "here", "only")));
		pause_ms(50);
	}
	make_dir(&one.machine, "e");
	now(&one);
	struct machine two = machine_on(store, "two");
	struct ship_rebuilt done = {0};
	struct err err = {0};

	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&two, "e")), 0));
	cr_expect(zero(int, !!(done.gap)));
	machine_off(&two);
	shipper_off(&one);
	store_free(store);
}

Test(ship, the_thread_ships_by_itself)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = 20 * NS_PER_MS});
	struct ship_figures figures;

	make_dir(&one.machine, "d");
	for (int i = 0; i < 3000; i++) {
		pause_ms(20);
		ship_figures(one.ship, &figures);
		if (figures.shipped == figures.number)
			break;
	}
	cr_expect(eq(u64, figures.shipped, figures.number));
	shipper_off(&one);
	store_free(store);
}

Test(ship, snapshots_replace_segments_and_nothing_piles_up)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct shipper one = shipper_on(
			store, "one", &(struct ship_options){.interval_ns = 20 * NS_PER_MS, .snapshot_min = 40 << 10});
		struct ship_figures figures;
		struct ship_rebuilt done = {0};
		struct err err = {0};
		size_t left = 0;

		for (unsigned i = 0; i < 80; i++) {
			make_dirs(&one.machine, i, 1);
			now(&one);
			pause_ms(5);
		}
		for (int tries = 0; tries < 1000; tries++) { /* the thread tidies when it has nothing else to do */
			left = store_count(store, SHIP_PREFIX, store_has_versions(&one.machine), NULL);
			if (left <= 60)
				break;
			pause_ms(20);
		}
		ship_figures(one.ship, &figures);
		cr_expect(ge(u64, figures.snapshots, 3), "%lu", figures.snapshots);
		cr_expect(le(sz, left, 60), "%zu left of %lu", left, figures.segments + figures.snapshots);
		struct machine two = machine_on(store, "two");

		cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
		cr_expect(ne(int, !!(has_dir(&two, "d0")), 0));
		cr_expect(ne(int, !!(has_dir(&two, "d79")), 0));
		cr_expect(zero(int, !!(done.gap)));
		machine_off(&two);
		shipper_off(&one);
		store_free(store);
	}
}

Test(ship, a_damaged_snapshot_falls_back_to_the_one_before_and_loses_nothing)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct shipper one = shipper_on(
			store, "one", &(struct ship_options){.interval_ns = 20 * NS_PER_MS, .snapshot_min = 40 << 10});
		struct ship_figures figures = {0};
		struct ship_rebuilt done = {0};
		struct err err = {0};
		unsigned count = 0;

		while (figures.snapshots < 3 && count < 1000) {
			make_dirs(&one.machine, count++, 1);
			now(&one);
			ship_figures(one.ship, &figures);
		}
		make_dirs(&one.machine, count++, 1);
		now(&one);
		ship_free(one.ship);
		one.ship = NULL;
		AUTO_FREE char *key = newest(store, ".snap");

		store_put(store, key, "this was a snapshot", NULL);
		struct machine two = machine_on(store, "two");

		cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
		for (unsigned i = 0; i < count; i++) {
			char name[32];

			(void)snprintf(name, sizeof(name), "d%u", i);
			cr_expect(ne(int, !!(has_dir(&two, name)), 0), "%s", name);
		}
		cr_expect(ne(int, !!(done.gap), 0), "the damage is told");
		machine_off(&two);
		shipper_off(&one);
		store_free(store);
	}
}

Test(ship, a_missing_segment_ends_the_replay)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
	struct ship_rebuilt done = {0};
	struct err err = {0};

	now(&one);
	make_dirs(&one.machine, 0, 1);
	now(&one);
	make_dirs(&one.machine, 1, 1);
	now(&one);
	AUTO_FREE char *key = newest(store, ".seg");

	make_dirs(&one.machine, 2, 1);
	now(&one);
	store_remove(store, key);
	struct machine two = machine_on(store, "two");

	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&two, "d0")), 0));
	cr_expect(zero(int, !!(has_dir(&two, "d1"))));
	cr_expect(zero(int, !!(has_dir(&two, "d2"))));
	cr_expect(ne(int, !!(done.gap), 0));
	machine_off(&two);
	shipper_off(&one);
	store_free(store);
}

Test(ship, an_empty_store_has_nothing_to_rebuild_from)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one");
		struct ship_rebuilt done;
		struct err err = {0};

		cr_expect(eq(int, rebuild(&one, &done, &err), -ENOENT));
		cr_expect(eq(int, err.kind, ERR_NOT_FOUND));
		store_put(store, SHIP_PREFIX "readme", "not ours", NULL);
		cr_expect(eq(int, rebuild(&one, &done, &err), -ENOENT));
		machine_off(&one);
		store_free(store);
	}
}

Test(ship, the_line_goes_on_in_the_next_mount)
{
	struct store *store = store_new(STORE_MEMORY);
	struct ship_options options = {.interval_ns = NEVER};
	struct ship_figures figures;
	struct ship_rebuilt done = {0};
	struct err err = {0};

	for (unsigned i = 0; i < 4; i++) {
		struct shipper one = shipper_on(store, "one", &options);

		make_dirs(&one.machine, i, 1);
		cr_assert(zero(int, ship_finish(one.ship, &forever, &err)), "%s", err.message);
		ship_figures(one.ship, &figures);
		cr_expect(eq(u64, figures.snapshots, i == 0), "mount %u", i);
		shipper_off(&one);
	}
	struct machine two = machine_on(store, "two");

	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&two, "d0")), 0));
	cr_expect(ne(int, !!(has_dir(&two, "d3")), 0));
	cr_expect(eq(u64, done.segments, 3));
	cr_expect(eq(u64, done.epoch, 4));
	machine_off(&two);
	store_free(store);
}

Test(ship, lines_of_two_machines_are_never_mixed)
{
	struct store *store = store_new(STORE_MEMORY);
	struct ship_options options = {.interval_ns = NEVER};
	struct ship_rebuilt done = {0};
	struct err err = {0};
	struct shipper one = shipper_on(store, "one", &options);

	make_dir(&one.machine, "first");
	now(&one);
	shipper_off(&one);
	struct shipper two = shipper_on(store, "two", &options);

	make_dir(&two.machine, "second");
	now(&two);
	shipper_off(&two);
	one = shipper_on(store, "one", &options); /* knows nothing of the second */
	make_dir(&one.machine, "third");
	now(&one);
	make_dir(&one.machine, "fourth");
	now(&one);
	shipper_off(&one);
	struct machine three = machine_on(store, "three");

	cr_assert(zero(int, rebuild(&three, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&three, "first")), 0));
	cr_expect(zero(int, !!(has_dir(&three, "second"))));
	cr_expect(ne(int, !!(has_dir(&three, "third")), 0));
	cr_expect(ne(int, !!(has_dir(&three, "fourth")), 0));
	cr_expect(eq(u64, done.epoch, 3));
	cr_expect(zero(int, !!(done.gap)));
	machine_off(&three);
	/* And with the newest snapshot gone bad, the segments of the first do not land on the second's. */
	AUTO_FREE char *key = newest(store, ".snap");

	store_put(store, key, "bad", NULL);
	struct machine four = machine_on(store, "four");

	cr_assert(zero(int, rebuild(&four, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&four, "second")), 0));
	cr_expect(zero(int, !!(has_dir(&four, "fourth"))));
	cr_expect(ne(int, !!(done.gap), 0));
	machine_off(&four);
	store_free(store);
}

static int refuse_catalog(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	if (call == SHIM_PUT && !strncmp(key, SHIP_PREFIX, strlen(SHIP_PREFIX)))
		return err_set(err, ERR_DENIED, "no shipping today");
	return 0;
}

Test(ship, a_failure_is_told_and_made_good_in_a_later_round)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
	struct ship_figures figures;
	struct ship_rebuilt done = {0};
	struct err err = {0};

	now(&one);
	atomic_store(&store->hook, refuse_catalog);
	make_dirs(&one.machine, 0, 1);
	cr_expect(lt(int, ship_now(one.ship, &forever, &err), 0));
	cr_expect(eq(int, err.kind, ERR_DENIED));
	ship_figures(one.ship, &figures);
	cr_expect(eq(u64, figures.failures, 1));
	cr_expect(ne(int, !!(strstr(figures.last_error, "no shipping today")), 0), "%s", figures.last_error);
	cr_expect(lt(u64, figures.shipped, figures.number));
	atomic_store(&store->hook, NULL);
	make_dirs(&one.machine, 1, 1);
	now(&one);
	ship_figures(one.ship, &figures);
	cr_expect(eq(str, figures.last_error, ""));
	struct machine two = machine_on(store, "two");

	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	cr_expect(ne(int, !!(has_dir(&two, "d0")), 0));
	cr_expect(ne(int, !!(has_dir(&two, "d1")), 0));
	machine_off(&two);
	shipper_off(&one);
	store_free(store);
}

Test(ship, nothing_is_shipped_without_the_lease)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = 20 * NS_PER_MS});
	struct err err = {0};
	size_t before;

	now(&one);
	pause_ms(100);
	lease_release(one.lease, &forever);
	before = store_count(store, SHIP_PREFIX, false, NULL);
	make_dir(&one.machine, "d");
	cr_expect(lt(int, ship_now(one.ship, &forever, &err), 0));
	cr_expect(eq(int, err.kind, ERR_PRECONDITION));
	pause_ms(100);
	cr_expect(eq(sz, store_count(store, SHIP_PREFIX, false, NULL), before));
	shipper_off(&one);
	store_free(store);
}

/* --- many who wait ------------------------------------------------------------------------------ */

enum { WAITERS = 24 };

static atomic_uint made;       /* by those who wait */
static atomic_bool on_its_way; /* something of the log is being put, and */
static atomic_bool let_go;     /* waits for this */

static int held_back(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	(void)err;
	if (call != SHIM_PUT || strncmp(key, SHIP_PREFIX, strlen(SHIP_PREFIX)) != 0)
		return 0;
	atomic_store(&on_its_way, true);
	while (!atomic_load(&let_go))
		pause_ms(1);
	return 0;
}

struct waiter_arg {
	struct shipper *shipper;
	unsigned number;
	int rc;
};

static void *make_and_wait(void *arg)
{
	struct waiter_arg *waiter = arg;

	make_dirs(&waiter->shipper->machine, waiter->number, 1);
	atomic_fetch_add(&made, 1);
	waiter->rc = ship_now(waiter->shipper->ship, &forever, NULL);
	return NULL;
}

Test(ship, all_who_wait_share_a_put)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
	struct waiter_arg args[WAITERS];
	pthread_t threads[WAITERS];
	struct ship_figures figures;
	struct ship_rebuilt done = {0};
	struct err err = {0};

	now(&one);
	atomic_store(&store->hook, held_back);
	for (unsigned i = 0; i < WAITERS; i++) {
		args[i] = (struct waiter_arg){.shipper = &one, .number = i};
		cr_assert(zero(int, pthread_create(&threads[i], NULL, make_and_wait, &args[i])));
	}
	while (atomic_load(&made) < WAITERS)
		pause_ms(1);
	atomic_store(&let_go, true);
	for (unsigned i = 0; i < WAITERS; i++) {
		cr_assert(zero(int, pthread_join(threads[i], NULL)));
		cr_expect(zero(int, args[i].rc));
	}
	ship_figures(one.ship, &figures);
	/* The one that was held back, and one with all that was made meanwhile. */
	cr_expect(le(u64, figures.segments, 2), "%lu PUTs for %d waiters", figures.segments, WAITERS);
	struct machine two = machine_on(store, "two");

	cr_assert(zero(int, rebuild(&two, &done, &err)), "%s", err.message);
	for (unsigned i = 0; i < WAITERS; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "d%u", i);
		cr_expect(ne(int, !!(has_dir(&two, name)), 0), "%s", name);
	}
	machine_off(&two);
	shipper_off(&one);
	store_free(store);
}

Test(ship, who_waits_may_give_up_and_the_others_go_on)
{
	struct store *store = store_new(STORE_MEMORY);
	struct shipper one = shipper_on(store, "one", &(struct ship_options){.interval_ns = NEVER});
	struct waiter_arg patient = {.shipper = &one, .number = 1};
	struct call hurried = {0};
	struct err err = {0};
	pthread_t thread;

	now(&one);
	atomic_store(&store->hook, held_back);
	cr_assert(zero(int, pthread_create(&thread, NULL, make_and_wait, &patient)));
	while (!atomic_load(&on_its_way))
		pause_ms(1);
	make_dirs(&one.machine, 2, 1);
	hurried.deadline_ns = clock_monotonic() + 10 * NS_PER_MS;
	cr_expect(lt(int, ship_now(one.ship, &hurried, &err), 0));
	cr_expect(eq(int, err.kind, ERR_TIMED_OUT));
	atomic_store(&let_go, true);
	cr_assert(zero(int, pthread_join(thread, NULL)));
	cr_expect(zero(int, patient.rc));
	shipper_off(&one);
	store_free(store);
}

Test(ship, highest_epoch_reads_only_names_that_are_ours)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	uint64_t epoch = 99;
	struct err err = {0};

	cr_assert(zero(int, ship_highest_epoch(one.transfer, &forever, &epoch, &err)));
	cr_expect(eq(u64, epoch, 0));
	store_put(store, SHIP_PREFIX "0000000000000007-0000000000000001.snap", "", NULL);
	store_put(store, SHIP_PREFIX "0000000000000009-0000000000000001-0000000000000002.seg", "", NULL);
	store_put(store, SHIP_PREFIX "00000000000000aa-0000000000000001-0000000000000001.seg", "", NULL);
	store_put(store, SHIP_PREFIX "00000000000000AB-0000000000000001.snap", "", NULL);
	store_put(store, SHIP_PREFIX "00000000000000ac-1.snap", "", NULL);
	store_put(store, SHIP_PREFIX "00000000000000ad-0000000000000001.snap2", "", NULL);
	store_put(store, SHIP_PREFIX "ffffffffffffffff-0000000000000001.snap", "", NULL);
	cr_assert(zero(int, ship_highest_epoch(one.transfer, &forever, &epoch, &err)));
	cr_expect(eq(u64, epoch, 9));
	machine_off(&one);
	store_free(store);
}
