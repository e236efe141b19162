/*
 * meta_catalog.c - what the catalog's own operations cost: rate, median and 99th percentile. Prints one line per
 * measurement; not part of varve.
 *
 *     meta_catalog DIR [NAMES]      DIR must not exist; it is left behind
 *
 * One directory gets NAMES names (100,000). A commit is what closing a changed file costs: its dirty mark, its flush
 * and its version with the job to store it. Durable means that catalog_sync has returned after it.
 *
 * Threads: those of the durable commits, each with a file and a cell of its own; otherwise one.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "catalog.h"
#include "clock.h"

#define NAMES 100000
#define DURABLE_COMMITS 500
#define COMMITTERS_MAX 16
#define FILE_SIZE 8192
#define PAGE 128 /* names that one readdirplus reply of the kernel's usual size takes */

static struct catalog *catalog;
static uint64_t directory;

static void must(int rc, const char *what)
{
	if (rc) {
		(void)fprintf(stderr, "meta_catalog: %s: %s\n", what, strerror(-rc));
		exit(1);
	}
}

/* --- samples ----------------------------------------------------------------------------------- */

struct samples {
	int64_t *ns;
	size_t count;
	int64_t began, took;
};

static void samples_begin(struct samples *samples, size_t max)
{
	*samples = (struct samples){.ns = calloc(max, sizeof(int64_t)), .began = clock_monotonic()};
	must(samples->ns ? 0 : -ENOMEM, "memory");
}

static int compare_ns(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

/* `each` operations belong to one sample. */
static void samples_report(struct samples *samples, const char *what, size_t each)
{
	double us = (double)(NS_PER_MS / 1000);

	if (!samples->took)
		samples->took = clock_monotonic() - samples->began;
	qsort(samples->ns, samples->count, sizeof(int64_t), compare_ns);
	(void)printf("%-48s %10.0f /s   p50 %9.1f us   p99 %9.1f us\n", what,
		     (double)(samples->count * each) * (double)NS_PER_SEC / (double)samples->took,
		     (double)samples->ns[samples->count / 2] / us, (double)samples->ns[samples->count * 99 / 100] / us);
	(void)fflush(stdout);
	free(samples->ns);
}

/* --- names ------------------------------------------------------------------------------------- */

struct name {
	char text[16];
};

static struct name name_of(uint64_t n)
{
	struct name name;

	(void)snprintf(name.text, sizeof(name.text), "file%08" PRIu64, n % 100000000);
	return name;
}

static uint64_t scatter(uint64_t n, uint64_t below)
{
	return ((n * UINT64_C(0x9e3779b97f4a7c15)) >> 33) % below;
}

static uint64_t create(uint64_t parent, const char *name, uint32_t mode)
{
	struct cat_create request = {.parent = parent, .name = name, .mode = mode};
	struct cat_inode inode;

	must(catalog_create(catalog, &request, &inode), "create");
	return inode.ino;
}

static void bench_create(uint64_t names)
{
	struct samples samples;

	samples_begin(&samples, names);
	for (uint64_t n = 0; n < names; n++) {
		struct name name = name_of(n);
		int64_t began = clock_monotonic();

		(void)create(directory, name.text, S_IFREG | 0644);
		samples.ns[samples.count++] = clock_monotonic() - began;
	}
	samples_report(&samples, "create (survives kill -9)", 1);
}

static void bench_lookup(uint64_t names, const char *what)
{
	struct samples samples;
	struct cat_inode inode;

	samples_begin(&samples, names);
	for (uint64_t n = 0; n < names; n++) {
		struct name name = name_of(scatter(n, names));
		int64_t began = clock_monotonic();

		must(catalog_lookup(catalog, directory, name.text, &inode), "lookup");
		samples.ns[samples.count++] = clock_monotonic() - began;
	}
	samples_report(&samples, what, 1);
}

struct page {
	uint64_t last, seen;
};

static int visit_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct page *page = arg;

	page->last = name->cookie;
	page->seen += inode != NULL;
	return 0;
}

static void bench_readdirplus(uint64_t names, const char *what)
{
	struct samples samples;
	struct page page = {0};
	uint64_t before;

	samples_begin(&samples, names / PAGE + 2);
	do {
		struct cat_readdir request = {
			.parent = directory, .after = page.last, .max = PAGE, .with_inodes = true};
		int64_t began = clock_monotonic();

		before = page.seen;
		must(catalog_readdir(catalog, &request, visit_name, &page), "readdir");
		samples.ns[samples.count++] = clock_monotonic() - began;
	} while (page.seen > before);
	must(page.seen == names ? 0 : -EIO, "names of the directory");
	(void)printf("%-48s %10.4f s\n", what, (double)(clock_monotonic() - samples.began) / (double)NS_PER_SEC);
	samples_report(&samples, "  a page of it, 128 names", 1);
}

/* --- commits ----------------------------------------------------------------------------------- */

static void commit(uint64_t ino)
{
	struct cat_extent extent = {.base_limit = 0};
	struct cat_commit request = {.ino = ino, .size = FILE_SIZE, .mtime = clock_wall(), .extent = &extent};
	struct cat_version version;

	must(catalog_mark_dirty(catalog, ino, &extent), "mark dirty");
	must(ranges_add(&extent.present, 0, FILE_SIZE), "present");
	must(ranges_add(&extent.dirty, 0, FILE_SIZE), "dirty");
	must(catalog_flush(catalog, ino, FILE_SIZE, request.mtime, &extent), "flush");
	must(catalog_commit(catalog, &request, &version), "commit");
	cat_extent_clear(&extent);
}

static void bench_commit(uint64_t names)
{
	struct samples samples;
	struct cat_inode inode;

	samples_begin(&samples, names);
	for (uint64_t n = 0; n < names; n++) {
		struct name name = name_of(n);
		int64_t began;

		must(catalog_lookup(catalog, directory, name.text, &inode), "lookup");
		began = clock_monotonic();
		commit(inode.ino);
		samples.ns[samples.count++] = clock_monotonic() - began;
	}
	samples_report(&samples, "commit of a changed file (survives kill -9)", 1);
}

struct committer {
	pthread_t thread;
	uint64_t ino;
	struct samples samples;
};

static void *commit_durably(void *arg)
{
	struct committer *committer = arg;

	for (size_t n = 0; n < DURABLE_COMMITS; n++) {
		int64_t began = clock_monotonic();

		commit(committer->ino);
		must(catalog_sync(catalog), "sync");
		committer->samples.ns[committer->samples.count++] = clock_monotonic() - began;
	}
	return NULL;
}

static void bench_durable(unsigned threads)
{
	struct committer committers[COMMITTERS_MAX] = {0};
	struct samples all;
	char what[64];

	samples_begin(&all, (size_t)threads * DURABLE_COMMITS);
	for (unsigned i = 0; i < threads; i++) {
		struct name name = name_of(i);
		struct cat_inode inode;

		must(catalog_lookup(catalog, directory, name.text, &inode), "lookup");
		committers[i].ino = inode.ino;
		committers[i].samples.ns = all.ns + (size_t)i * DURABLE_COMMITS;
	}
	all.began = clock_monotonic();
	for (unsigned i = 0; i < threads; i++)
		must(-pthread_create(&committers[i].thread, NULL, commit_durably, &committers[i]), "thread");
	for (unsigned i = 0; i < threads; i++) {
		must(-pthread_join(committers[i].thread, NULL), "join");
		all.count += committers[i].samples.count;
	}
	(void)snprintf(what, sizeof(what), "durable commit, %u thread%s", threads, threads == 1 ? "" : "s");
	samples_report(&all, what, 1);
}

int main(int argc, char **argv)
{
	const struct catalog_options options = {.root_mode = S_IFDIR | 0755};
	uint64_t names = argc > 2 ? strtoull(argv[2], NULL, 10) : NAMES;

	if (argc < 2 || names < COMMITTERS_MAX || mkdir(argv[1], 0700) < 0) {
		(void)fprintf(stderr, "usage: meta_catalog NEW-DIR [NAMES]\n");
		return 2;
	}
	must(catalog_open(argv[1], &options, &catalog), "open");
	directory = create(CAT_ROOT_INO, "directory", S_IFDIR | 0755);
	bench_create(names);
	bench_lookup(names, "lookup, just created");
	bench_readdirplus(names, "readdirplus of all, just created");
	bench_commit(names / 10);
	bench_durable(1);
	bench_durable(COMMITTERS_MAX);
	catalog_close(catalog);
	must(catalog_open(argv[1], &options, &catalog), "open again");
	bench_lookup(names, "lookup, opened anew");
	bench_readdirplus(names, "readdirplus of all, opened anew");
	catalog_close(catalog);
	return 0;
}
