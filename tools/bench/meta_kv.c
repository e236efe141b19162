/*
 * meta_kv.c - what the key-value store under the catalog costs, next to bare
 * LMDB. Prints one line per measurement; not part of varve.
 *
 *     meta_kv DIR [UPDATES]      DIR must not exist; it is left behind
 */
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog/kv.h"
#include "clock.h"

#define PUTS 5
#define VALUE_SIZE 100
#define KEYS 200000

struct key {
	uint8_t bytes[13];
};

static struct key make_key(uint32_t n)
{
	struct key key = {.bytes = {0, 0, 0, 0, 'i'}};

	for (int i = 12; i > 8; i--, n >>= 8)
		key.bytes[i] = (uint8_t)n;
	return key;
}

static uint32_t scatter(uint64_t n)
{
	return (uint32_t)((n * UINT64_C(0x9e3779b97f4a7c15)) >> 33) % KEYS;
}

static void must(int rc, const char *what)
{
	if (rc) {
		(void)fprintf(stderr, "%s: %d (%s)\n", what, rc, rc < 0 ? strerror(-rc) : mdb_strerror(rc));
		exit(1);
	}
}

static void report(const char *what, int64_t began, uint64_t count)
{
	double ns = (double)(clock_monotonic() - began);

	(void)printf("%-58s %9.3f us\n", what, ns / 1000 / (double)count);
	(void)fflush(stdout);
}

static int put_five(struct kv_txn *txn, void *arg)
{
	uint64_t *n = arg;
	uint8_t value[VALUE_SIZE] = {0};

	for (int i = 0; i < PUTS; i++) {
		struct key key = make_key(scatter(*n * PUTS + (uint64_t)i));
		int rc = kv_put(txn, (struct kv_bytes){key.bytes, sizeof(key.bytes)},
				(struct kv_bytes){value, sizeof(value)});
		if (rc)
			return rc;
	}
	return 0;
}

struct gets {
	uint64_t first, count, found;
};

static int get_some(struct kv_txn *txn, void *arg)
{
	struct gets *gets = arg;

	for (uint64_t i = 0; i < gets->count; i++) {
		struct key key = make_key(scatter(gets->first + i));
		struct kv_bytes value;

		gets->found += kv_get(txn, (struct kv_bytes){key.bytes, sizeof(key.bytes)}, &value) == 0;
	}
	return 0;
}

static int count_row(void *arg, struct kv_bytes key, struct kv_bytes value)
{
	(void)key;
	(void)value;
	++*(uint64_t *)arg;
	return 0;
}

static int scan_all(struct kv_txn *txn, void *arg)
{
	enum kv_direction direction = *(uint64_t *)arg ? KV_BACKWARD : KV_FORWARD;
	uint64_t *count = arg;

	*count = 0;
	return kv_scan(txn, (struct kv_bytes){"", 0}, (struct kv_bytes){"\xff", 1}, direction, 0, count_row, count);
}

static void bench_reads(struct kv *kv, const char *where)
{
	struct gets gets = {.count = 1};
	char what[64];
	uint64_t rows = 0;
	int64_t began = clock_monotonic();

	for (gets.first = 0; gets.first < 500000; gets.first++)
		must(kv_view(kv, get_some, &gets), "view");
	(void)snprintf(what, sizeof(what), "view with one get, %s", where);
	report(what, began, 500000);
	gets = (struct gets){.count = 500000};
	began = clock_monotonic();
	must(kv_view(kv, get_some, &gets), "view");
	(void)snprintf(what, sizeof(what), "get inside a view, %s", where);
	report(what, began, gets.count);
	began = clock_monotonic();
	must(kv_view(kv, scan_all, &rows), "scan");
	(void)snprintf(what, sizeof(what), "row of a scan, %s", where);
	report(what, began, rows);
	began = clock_monotonic();
	must(kv_view(kv, scan_all, &rows), "scan"); /* rows > 0: backward */
	(void)snprintf(what, sizeof(what), "row of a backward scan, %s", where);
	report(what, began, rows);
}

static void bench_kv(const char *dir, uint64_t updates)
{
	struct kv_options options = {.fold_interval_ns = 3600 * NS_PER_SEC};
	struct kv_figures figures;
	struct kv *kv;
	int64_t began;
	uint64_t n = 0, few = 30000;

	must(kv_open(dir, &options, &kv), "open");
	began = clock_monotonic();
	for (; n < few; n++)
		must(kv_update(kv, put_five, &n), "update");
	report("update of 5 puts of 100 bytes, nothing folded", began, few);
	bench_reads(kv, "memtable only");
	began = clock_monotonic();
	kv_close(kv);
	report("close: folds it all", began, 1);
	options.fold_interval_ns = 0;
	must(kv_open(dir, &options, &kv), "open");
	bench_reads(kv, "LMDB only");
	began = clock_monotonic();
	for (; n < few + updates; n++)
		must(kv_update(kv, put_five, &n), "update");
	report("update of 5 puts of 100 bytes, folder running", began, updates);
	bench_reads(kv, "mixed");
	began = clock_monotonic();
	for (uint64_t end = n + 1000; n < end; n++) {
		must(kv_update(kv, put_five, &n), "update");
		must(kv_sync(kv), "sync");
	}
	report("update and sync, one thread", began, 1000);
	kv_figures(kv, &figures);
	(void)printf("%" PRIu64 " updates, %" PRIu64 " folds, %" PRIu64 " bytes of log, map %" PRIu64 "\n",
		     figures.updates, figures.folds, figures.log_bytes, figures.map_bytes);
	kv_close(kv);
}

static void bare_put_five(MDB_env *env, MDB_dbi dbi, uint64_t n)
{
	uint8_t value[VALUE_SIZE] = {0};
	MDB_txn *txn;

	must(mdb_txn_begin(env, NULL, 0, &txn), "bare begin");
	for (int i = 0; i < PUTS; i++) {
		struct key key = make_key(scatter(n * PUTS + (uint64_t)i));
		MDB_val k = {sizeof(key.bytes), key.bytes}, v = {sizeof(value), value};

		must(mdb_put(txn, dbi, &k, &v, 0), "bare put");
	}
	must(mdb_txn_commit(txn), "bare commit");
}

static void bench_bare(const char *dir)
{
	uint64_t few = 3000, found = 0;
	int64_t began;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	must(mdb_env_create(&env), "bare env");
	must(mdb_env_set_mapsize(env, (size_t)1 << 30), "bare map");
	must(mdb_env_set_maxdbs(env, 2), "bare dbs");
	must(mdb_env_open(env, dir, MDB_NOTLS, 0600), "bare open");
	must(mdb_txn_begin(env, NULL, 0, &txn), "bare begin");
	must(mdb_dbi_open(txn, "data", MDB_CREATE, &dbi), "bare dbi");
	must(mdb_txn_commit(txn), "bare commit");
	began = clock_monotonic();
	for (uint64_t n = 0; n < few; n++)
		bare_put_five(env, dbi, n);
	report("bare LMDB: durable transaction of 5 puts", began, few);
	began = clock_monotonic();
	must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "bare begin");
	for (uint64_t n = 0; n < 500000; n++) {
		struct key key = make_key(scatter(n));
		MDB_val k = {sizeof(key.bytes), key.bytes}, v;

		found += mdb_get(txn, dbi, &k, &v) == 0;
	}
	mdb_txn_abort(txn);
	report("bare LMDB: get inside a transaction", began, 500000);
	mdb_env_close(env);
}

int main(int argc, char **argv)
{
	if (argc < 2 || mkdir(argv[1], 0700) < 0) {
		(void)fprintf(stderr, "usage: meta_kv NEW-DIR [UPDATES]\n");
		return 2;
	}
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/kv", argv[1]);
	bench_kv(path, argc > 2 ? strtoull(argv[2], NULL, 10) : 300000);
	bench_bare(path);
	return 0;
}
