/* facts: they go when the log tells the same, and not a moment before; what nobody knows stays. */
#include "fs/facts.h"

#include <errno.h>
#include <sys/stat.h>

#include "fixture.h"
#include "fs/ahead.h"
#include "fs/lease.h"
#include "fs/objmeta.h"

static const struct call forever;

struct bench {
	struct machine machine;
	struct lease *lease;
	unsigned shipped;
	bool refuse;
};

static void bench_on(struct store *store, struct bench *bench)
{
	struct lease_options options;
	struct err err = {0};

	*bench = (struct bench){.machine = machine_on(store, "state")};
	options = (struct lease_options){.catalog = bench->machine.catalog, .transfer = bench->machine.transfer};
	cr_assert(zero(int, lease_check_identity(&options, LEASE_IDENTITY_CREATE, &forever, &err)), "%s", err.message);
	cr_assert(zero(int, lease_acquire(&options, &forever, &bench->lease, &err)), "%s", err.message);
}

static void bench_off(struct bench *bench)
{
	struct store *store = bench->machine.store;

	lease_release(bench->lease, &forever);
	lease_free(bench->lease);
	machine_off(&bench->machine);
	store_free(store);
}

static int ship(void *arg, const struct call *call, struct err *err)
{
	struct bench *bench = arg;

	(void)call;
	if (bench->refuse)
		return err_set(err, ERR_UNAVAILABLE, "not now");
	bench->shipped++;
	return 0;
}

static int tidy(struct bench *bench, uint64_t *ret_waiting)
{
	const struct facts_tidy tidy = {.catalog = bench->machine.catalog,
					.transfer = bench->machine.transfer,
					.lease = bench->lease,
					.ship = ship,
					.ship_arg = bench};
	struct err err = {0};

	return facts_tidy(&tidy, &forever, ret_waiting, &err);
}

/* A version of a new file, and the facts that an upload begun before it left. */
static struct cat_version make_version(struct bench *bench, const char *name)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFREG | 0644};
	struct cat_extent extent = {0};
	struct cat_commit commit = {.size = 1, .extent = &extent};
	struct objmeta facts = {.has = OBJMETA_FILE_ID | OBJMETA_SEQ | OBJMETA_COMMIT};
	struct cat_version version;
	struct cat_inode inode;
	struct meta meta;
	char key[64];

	cr_assert(zero(int, catalog_create(bench->machine.catalog, &create, &inode)));
	commit.ino = inode.ino;
	cr_assert(zero(int, catalog_commit(bench->machine.catalog, &commit, &version)));
	memcpy(facts.file_id, inode.file_id, sizeof(facts.file_id));
	facts.seq = version.seq;
	facts.commit_ns = version.commit_ns;
	cr_assert(zero(int, objmeta_encode(&facts, &meta)));
	(void)snprintf(key, sizeof(key), AHEAD_FACTS_PREFIX "%s", name);
	store_put(bench->machine.store, key, "", &meta);
	meta_clear(&meta);
	return version;
}

static int take_job(void *arg, struct cat_job *job)
{
	struct cat_job *wanted = arg;

	if (job->ino == wanted->ino)
		wanted->seq = job->seq;
	return 0;
}

static void store_version(struct bench *bench, const struct cat_version *version)
{
	struct cat_job job = {.ino = version->ino};
	struct cat_copy copy = {.ino = version->ino, .seq = version->seq, .state = CAT_STORED, .key = (char *)"f"};

	cr_assert(zero(int, catalog_jobs(bench->machine.catalog, 0, 0, take_job, &job)));
	cr_assert(zero(int, catalog_stored(bench->machine.catalog, job.seq, &copy, NULL)));
}

static size_t left(struct bench *bench)
{
	return store_count(bench->machine.store, AHEAD_FACTS_PREFIX, store_has_versions(&bench->machine), NULL);
}

Test(facts, go_when_the_log_tells_them)
{
	EVERY_STORE(kind)
	{
		struct bench bench;
		struct cat_version version;
		uint64_t waiting = 7;

		bench_on(store_new(kind), &bench);
		version = make_version(&bench, "f");
		store_put(bench.machine.store, AHEAD_FACTS_PREFIX "others", "", NULL);
		cr_assert(zero(int, tidy(&bench, &waiting)));
		cr_expect(eq(u64, waiting, 1));
		cr_expect(eq(sz, left(&bench), 2));
		cr_expect(zero(uint, bench.shipped), "for nothing");
		store_version(&bench, &version);
		bench.refuse = true;
		cr_expect(ne(int, tidy(&bench, &waiting), 0));
		cr_expect(eq(sz, left(&bench), 2), "the log does not tell yet");
		bench.refuse = false;
		cr_assert(zero(int, tidy(&bench, &waiting)));
		cr_expect(zero(u64, waiting));
		cr_expect(eq(uint, bench.shipped, 1));
		cr_expect(eq(sz, left(&bench), 1), "nobody knows of which version they are");
		bench_off(&bench);
	}
}
