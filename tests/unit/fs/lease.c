/* lease: one writer at a time, whatever dies or is cut off; and a state directory stays with its store. */
#include "fs/lease.h"

#include <signal.h>
#include <sys/wait.h>

#include "fixture.h"

#define LIFE (1500 * NS_PER_MS) /* long enough for a machine that does much else */
#define LONG_LIFE (4 * LIFE)    /* where whoever is alive must show it in time */
#define TEN_MINUTES (600 * NS_PER_SEC)

/* Whoever waits for the end of a life of ten minutes, and should not, is ended by this. */
TestSuite(lease, .timeout = 120);

static const struct call forever;

static int acquire_for(struct machine *machine, int64_t life, struct lease **ret_lease, struct err *err)
{
	struct lease_options options = {
		.catalog = machine->catalog, .transfer = machine->transfer, .duration_ns = life};

	return lease_acquire(&options, &forever, ret_lease, err);
}

static int acquire(struct machine *machine, struct lease **ret_lease, struct err *err)
{
	return acquire_for(machine, LIFE, ret_lease, err);
}

static struct lease *acquired_for(struct machine *machine, int64_t life)
{
	struct lease *lease = NULL;
	struct err err = {0};

	cr_assert(zero(int, acquire_for(machine, life, &lease, &err)), "%s", err.message);
	return lease;
}

static struct lease *acquired(struct machine *machine)
{
	return acquired_for(machine, LIFE);
}

/* However late its thread comes to run, it renews, and with that may write again. */
static void wait_until_renewed(struct lease *lease, unsigned times)
{
	struct lease_figures before, now;

	lease_figures(lease, &before);
	do {
		pause_ms(10);
		lease_figures(lease, &now);
		cr_assert(zero(int, !!(lease_lost(lease))));
	} while (now.renewals < before.renewals + times || !lease_may_write(lease));
}

static void wait_until_lost(struct lease *lease)
{
	while (!lease_lost(lease))
		pause_ms(10);
}

static int deny_lease_puts(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	(void)store;
	if (call == SHIM_PUT && !strcmp(key, LEASE_KEY))
		return err_set(err, ERR_DENIED, "not now");
	return 0;
}

Test(lease, is_taken_on_an_empty_store_and_renewed)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one");
		struct lease *lease = acquired(&one);
		struct lease_figures figures;

		cr_expect(eq(u64, lease_epoch(lease), 1));
		cr_expect(zero(int, !!(lease_was_foreign(lease))));
		wait_until_renewed(lease, 3);
		lease_figures(lease, &figures);
		cr_expect(eq(int, figures.guarantee, LEASE_CONDITIONAL));
		cr_expect(eq(str, figures.last_error, ""));
		lease_release(lease, &forever);
		cr_expect(zero(int, !!(lease_may_write(lease))));
		lease_free(lease);
		cr_expect(eq(sz, store_count(store, LEASE_KEY, store_has_versions(&one), NULL), 1),
			  "renewals leave old versions behind");
		machine_off(&one);
		store_free(store);
	}
}

Test(lease, of_a_living_holder_is_refused_with_who_it_is)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
		struct lease *lease = acquired_for(&one, LONG_LIFE), *other = NULL;
		struct err err = {0};
		char host[65] = "", pid[32];

		cr_assert(zero(int, gethostname(host, sizeof(host) - 1)));
		(void)snprintf(pid, sizeof(pid), "(pid %d), lease epoch 1;", (int)getpid());
		cr_expect(lt(int, acquire(&two, &other, &err), 0));
		cr_expect(eq(int, err.kind, ERR_CONFLICT));
		cr_expect(ne(int, !!(strstr(err.message, "is mounted for writing by")), 0), "%s", err.message);
		cr_expect(ne(int, !!(strstr(err.message, host)), 0), "%s", err.message);
		cr_expect(ne(int, !!(strstr(err.message, pid)), 0), "%s", err.message);
		wait_until_renewed(lease, 1);
		lease_free(lease);
		machine_off(&one);
		machine_off(&two);
		store_free(store);
	}
}

/* Each of them notes a nonce of its own before it knows that it will fail. */
Test(lease, mounts_that_failed_do_not_make_our_own_lease_foreign)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct lease *lease = acquired(&one);

	lease_release(lease, &forever);
	lease_free(lease);
	atomic_store(&store->hook, deny_lease_puts);
	for (int i = 0; i < 50; i++) {
		struct err err = {0};

		cr_assert(lt(int, acquire(&one, &lease, &err), 0));
	}
	atomic_store(&store->hook, NULL);
	lease = acquired(&one);
	cr_expect(zero(int, !!(lease_was_foreign(lease))));
	lease_free(lease);
	machine_off(&one);
	store_free(store);
}

Test(lease, released_is_taken_at_once_with_the_next_epoch)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
		struct lease *lease = acquired_for(&one, TEN_MINUTES);

		lease_release(lease, &forever);
		lease_free(lease);
		lease = acquired_for(&two, TEN_MINUTES);
		cr_expect(eq(u64, lease_epoch(lease), 2));
		cr_expect(ne(int, !!(lease_was_foreign(lease)), 0));
		lease_release(lease, &forever);
		lease_free(lease);
		lease = acquired(&two);
		cr_expect(eq(u64, lease_epoch(lease), 3));
		cr_expect(ne(int, !!(lease_was_foreign(lease)), 0), "until somebody caught up, whatever restarts");
		cr_expect(zero(int, lease_caught_up(lease)));
		lease_release(lease, &forever);
		lease_free(lease);
		lease = acquired(&two);
		cr_expect(zero(int, !!(lease_was_foreign(lease))));
		lease_free(lease);
		machine_off(&one);
		machine_off(&two);
		store_free(store);
	}
}

Test(lease, of_a_dead_holder_is_taken_after_its_life_and_not_before)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
		int64_t begun;

		lease_free(acquired(&one)); /* without release: it is as if the machine were off */
		begun = clock_monotonic();
		struct lease *lease = acquired(&two);
		cr_expect(ge(i64, clock_monotonic() - begun, LIFE));
		cr_expect(eq(u64, lease_epoch(lease), 2));
		lease_free(lease);
		machine_off(&one);
		machine_off(&two);
		store_free(store);
	}
}

Test(lease, of_our_own_killed_process_is_taken_at_once)
{
	struct store *store = store_new(STORE_FILE);
	pid_t child = fork();
	int status;

	if (!child) {
		struct machine machine = machine_on(store, "state");
		struct lease *lease = NULL;

		if (acquire_for(&machine, TEN_MINUTES, &lease, NULL))
			_exit(1);
		(void)kill(getpid(), SIGKILL);
	}
	cr_assert(eq(int, waitpid(child, &status, 0), child));
	cr_assert(ne(int, !!(WIFSIGNALED(status)), 0));

	struct machine again = machine_on(store, "state");
	struct lease *lease = acquired_for(&again, TEN_MINUTES);

	cr_expect(eq(u64, lease_epoch(lease), 2));
	cr_expect(zero(int, !!(lease_was_foreign(lease))));
	lease_free(lease);
	machine_off(&again);
	store_free(store);
}

Test(lease, is_taken_by_force_and_the_loser_finds_out)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
		struct lease *lease = acquired(&one), *thief = NULL;
		struct lease_options options = {
			.catalog = two.catalog, .transfer = two.transfer, .duration_ns = LIFE, .takeover = true};
		struct err err = {0};

		cr_assert(zero(int, lease_acquire(&options, &forever, &thief, &err)), "%s", err.message);
		wait_until_lost(lease);
		cr_expect(zero(int, !!(lease_may_write(lease))));
		cr_expect(lt(int, lease_check(lease, &err), 0));
		cr_expect(eq(int, err.kind, ERR_PRECONDITION));
		lease_release(lease, &forever); /* must not touch what is another's */
		wait_until_renewed(thief, 3);
		lease_free(lease);
		lease_free(thief);
		machine_off(&one);
		machine_off(&two);
		store_free(store);
	}
}

Test(lease, stops_writing_at_half_its_life_without_renewal_and_comes_back)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct lease *lease = acquired(&one);
	struct lease_figures figures;
	struct err err = {0};

	atomic_store(&store->hook, deny_lease_puts);
	pause_ms(LIFE / NS_PER_MS);
	cr_expect(zero(int, !!(lease_may_write(lease))));
	cr_expect(zero(int, !!(lease_lost(lease))));
	cr_expect(lt(int, lease_check(lease, &err), 0));
	cr_expect(eq(int, err.kind, ERR_UNAVAILABLE));
	do {
		pause_ms(10);
		lease_figures(lease, &figures);
	} while (!figures.failures);
	cr_expect(ne(int, !!(strstr(figures.last_error, "not now")), 0), "%s", figures.last_error);
	atomic_store(&store->hook, NULL);
	wait_until_renewed(lease, 1);
	lease_figures(lease, &figures);
	cr_expect(eq(str, figures.last_error, ""));
	lease_free(lease);
	machine_off(&one);
	store_free(store);
}

static int lose_one_reply(struct store *store, enum shim_call call, const char *key, struct err *err)
{
	if (call == SHIM_PUT && !strcmp(key, LEASE_KEY) && atomic_load(&store->countdown)) {
		atomic_fetch_sub(&store->countdown, 1);
		return err_set(err, ERR_INDETERMINATE, "reply lost");
	}
	return 0;
}

Test(lease, survives_lost_replies)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct lease *lease = acquired(&one);

	for (int i = 0; i < 3; i++) {
		atomic_store(&store->countdown, 1);
		atomic_store(&store->hook, lose_one_reply);
		while (atomic_load(&store->countdown))
			pause_ms(10);
		wait_until_renewed(lease, 1);
	}
	lease_free(lease);
	machine_off(&one);
	store_free(store);
}

Test(lease, on_a_store_without_conditions_is_weaker_but_kept)
{
	struct store *store = store_new(STORE_MEMORY);

	store->hidden = BACKEND_IF_NONE_MATCH | BACKEND_IF_MATCH;
	struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
	struct lease *lease = acquired_for(&one, LONG_LIFE), *other = NULL;
	struct lease_figures figures;
	struct err err = {0};

	lease_figures(lease, &figures);
	cr_expect(eq(int, figures.guarantee, LEASE_WEAK));
	cr_expect(lt(int, acquire(&two, &other, &err), 0));
	cr_expect(eq(int, err.kind, ERR_CONFLICT));
	wait_until_renewed(lease, 1);
	lease_free(lease);
	machine_off(&one);
	machine_off(&two);
	store_free(store);
}

Test(lease, object_of_a_stranger_is_waited_for_and_replaced)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct meta meta = {0};

	cr_assert(zero(int, meta_set(&meta, "varve-epoch", "41")));
	store_put(store, LEASE_KEY, "{\"epoch\": \"many\", broken", &meta);
	meta_clear(&meta);
	int64_t begun = clock_monotonic();
	struct lease *lease = acquired(&one);

	cr_expect(ge(i64, clock_monotonic() - begun, LIFE));
	cr_expect(eq(u64, lease_epoch(lease), 42));
	lease_free(lease);
	machine_off(&one);
	store_free(store);
}

Test(lease, removed_never_turns_epochs_back)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");

	store_put(store, ".varve/catalog/0000000000000011-0000000000000005.snap", "x", NULL);
	struct lease *lease = acquired(&one);

	cr_expect(eq(u64, lease_epoch(lease), 0x12));
	store_remove(store, LEASE_KEY);
	wait_until_lost(lease);
	lease_free(lease);
	machine_off(&one);
	store_free(store);
}

Test(lease, wait_ends_with_the_call)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
	struct lease_options options = {.catalog = two.catalog, .transfer = two.transfer, .duration_ns = LIFE};
	struct call call = {.deadline_ns = clock_monotonic() + LIFE / 3};
	atomic_bool cancelled = true;
	struct lease *lease = NULL;
	struct err err = {0};

	lease_free(acquired(&one));
	cr_expect(lt(int, lease_acquire(&options, &call, &lease, &err), 0));
	cr_expect(eq(int, err.kind, ERR_TIMED_OUT));
	call = (struct call){.cancelled = &cancelled};
	cr_expect(lt(int, lease_acquire(&options, &call, &lease, &err), 0));
	cr_expect(eq(int, err.kind, ERR_CANCELLED));
	machine_off(&one);
	machine_off(&two);
	store_free(store);
}

/* Racers on threads: exactly one wins, each time. */
struct racer {
	struct machine machine;
	struct lease *lease;
	struct err err;
	int rc;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	racer->rc = acquire_for(&racer->machine, LONG_LIFE, &racer->lease, &racer->err);
	return NULL;
}

Test(lease, has_one_winner)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct racer racers[4] = {0};
		pthread_t threads[4];
		unsigned winners = 0;
		char name[16];

		for (unsigned i = 0; i < 4; i++) {
			(void)snprintf(name, sizeof(name), "racer%u", i);
			racers[i].machine = machine_on(store, name);
		}
		for (unsigned i = 0; i < 4; i++)
			cr_assert(zero(int, pthread_create(&threads[i], NULL, race, &racers[i])));
		for (unsigned i = 0; i < 4; i++) {
			cr_assert(zero(int, pthread_join(threads[i], NULL)));
			winners += !racers[i].rc;
			if (racers[i].rc)
				cr_expect(eq(int, racers[i].err.kind, ERR_CONFLICT), "%s", racers[i].err.message);
		}
		cr_expect(eq(uint, winners, 1));
		for (unsigned i = 0; i < 4; i++) {
			lease_free(racers[i].lease);
			machine_off(&racers[i].machine);
		}
		store_free(store);
	}
}

/* --- identity ------------------------------------------------------------------------------------ */

static int identity(struct machine *machine, enum lease_identity_mode mode, struct err *err)
{
	struct lease_options options = {.catalog = machine->catalog, .transfer = machine->transfer};

	return lease_check_identity(&options, mode, &forever, err);
}

Test(identity, is_made_once_and_shared)
{
	EVERY_STORE(kind)
	{
		struct store *store = store_new(kind);
		struct machine one = machine_on(store, "one"), two = machine_on(store, "two");
		uint8_t a[CAT_STORE_ID_SIZE], b[CAT_STORE_ID_SIZE];
		struct err err = {0};

		cr_assert(zero(int, identity(&one, LEASE_IDENTITY_CREATE, &err)), "%s", err.message);
		cr_assert(zero(int, identity(&two, LEASE_IDENTITY_CREATE, &err)), "%s", err.message);
		cr_assert(zero(int, identity(&one, LEASE_IDENTITY_CREATE, &err)), "%s", err.message);
		cr_assert(zero(int, catalog_store_id(one.catalog, a)));
		cr_assert(zero(int, catalog_store_id(two.catalog, b)));
		cr_expect(zero(int, memcmp(a, b, sizeof(a))));
		machine_off(&one);
		machine_off(&two);
		store_free(store);
	}
}

Test(identity, reading_writes_nothing)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct err err = {0};

	cr_expect(zero(int, identity(&one, LEASE_IDENTITY_READ, &err)), "%s", err.message);
	cr_expect(zero(sz, store_count(store, "", false, NULL)));
	cr_expect(zero(int, identity(&one, LEASE_IDENTITY_CREATE, &err)), "%s", err.message);
	cr_expect(eq(sz, store_count(store, LEASE_ID_KEY, false, NULL), 1));
	machine_off(&one);
	store_free(store);
}

Test(identity, refuses_another_store)
{
	struct store *store = store_new(STORE_MEMORY), *other = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct err err = {0};

	cr_assert(zero(int, identity(&one, LEASE_IDENTITY_CREATE, &err)), "%s", err.message);
	struct machine stray = one;

	stray.store = other;
	cr_assert(
		zero(int, transfer_new((struct backend *)other, &(struct transfer_options){0}, &stray.transfer, &err)));
	cr_assert(zero(int, transfer_probe(stray.transfer, &forever, &err)));
	cr_expect(lt(int, identity(&stray, LEASE_IDENTITY_CREATE, &err), 0), "a store without an id");
	cr_expect(eq(int, err.kind, ERR_CONFIGURATION));
	cr_expect(ne(int, !!(strstr(err.message, "state directory belongs to another store")), 0), "%s", err.message);
	cr_expect(zero(sz, store_count(other, "", false, NULL)));
	store_put(other, LEASE_ID_KEY, "{\"id\": \"00112233445566778899aabbccddeeff\"}", NULL);
	cr_expect(lt(int, identity(&stray, LEASE_IDENTITY_READ, &err), 0), "a store with another id");
	cr_expect(ne(int, !!(strstr(err.message, "00112233445566778899aabbccddeeff")), 0), "%s", err.message);
	store_put(store, LEASE_ID_KEY, "not an id", NULL);
	cr_expect(lt(int, identity(&one, LEASE_IDENTITY_CREATE, &err), 0), "a broken id");
	cr_expect(eq(int, err.kind, ERR_CONFIGURATION));
	transfer_free(stray.transfer);
	machine_off(&one);
	store_free(store);
	store_free(other);
}

Test(identity, refuses_a_filled_catalog_of_a_store_without_a_name)
{
	struct store *store = store_new(STORE_MEMORY);
	struct machine one = machine_on(store, "one");
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = "d", .mode = S_IFDIR | 0755};
	struct cat_inode inode;
	struct err err = {0};

	cr_assert(zero(int, catalog_create(one.catalog, &create, &inode)));
	cr_expect(lt(int, identity(&one, LEASE_IDENTITY_CREATE, &err), 0));
	cr_expect(eq(int, err.kind, ERR_CONFIGURATION));
	machine_off(&one);
	store_free(store);
}
