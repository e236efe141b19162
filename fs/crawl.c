/*
 * crawl.c - see crawl.h.
 *
 * Directories still to be listed are a stack; a worker takes one, lists it and puts its children there. It is over when
 * the stack is empty and nobody is busy, or at the first failure. What lies beside the files comes last, when they are
 * known.
 *
 * Threads: WORKERS of its own. Lock: LOCK_LEAF, never held across a call of the store or the catalog.
 */
#include "fs/crawl.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "array.h"
#include "clock.h"
#include "fs/reconcile.h"
#include "lock.h"

#define WORKERS 8
#define TELL_NS (500 * NS_PER_MS)
#define PATIENCE_NS (3600 * NS_PER_SEC) /* with one directory, however many there are */

/* Directories in which nothing was found. */
struct empties {
	struct cat_phantom *cells;
	size_t count, cap;
};

struct crawling {
	const struct crawl *crawl;
	const struct call *call;
	bool unlisted_only;
	struct lock lock; /* guards all below */
	pthread_cond_t changed;
	uint64_t *stack;
	size_t depth, cap;
	struct empties empties;
	unsigned busy;
	int result;
	struct err err;
	struct crawl_figures figures;
};

/* --- with the lock held ------------------------------------------------------------------------------ */

static void fail(struct crawling *crawling, int result, const struct err *err)
{
	if (!crawling->result) {
		crawling->result = result;
		crawling->err = *err;
	}
}

static bool is_over(const struct crawling *crawling)
{
	return crawling->result || (!crawling->depth && !crawling->busy);
}

static int push(struct crawling *crawling, uint64_t ino)
{
	if (ARRAY_ROOM(crawling->stack, crawling->cap, crawling->depth))
		return -ENOMEM;
	crawling->stack[crawling->depth++] = ino;
	return 0;
}

static int note_empty(struct crawling *crawling, uint64_t ino, const struct reconcile_whole *whole)
{
	struct empties *empties = &crawling->empties;

	if (ARRAY_ROOM(empties->cells, empties->cap, empties->count))
		return -ENOMEM;
	empties->cells[empties->count++] =
		(struct cat_phantom){.ino = ino, .since_ns = whole->since_ns, .until_ns = whole->until_ns};
	return 0;
}

/* --- one directory ------------------------------------------------------------------------------------- */

struct children {
	struct crawling *crawling;
	uint64_t count, files;
};

static int take_name(void *arg, const struct cat_name *name)
{
	struct children *children = arg;

	children->count++;
	if (!S_ISDIR(name->type)) {
		children->files++;
		return 0;
	}
	LOCK_GUARD(&children->crawling->lock);
	return push(children->crawling, name->ino);
}

/* What is no live directory needs no listing. */
static bool is_listed(const struct crawling *crawling, uint64_t ino, struct cat_inode *ret_inode)
{
	return catalog_getattr(crawling->crawl->catalog, ino, ret_inode) || !S_ISDIR(ret_inode->mode) ||
	       !ret_inode->nlink || ret_inode->flags & CAT_LISTED;
}

/* Puts the directories in it on the stack. */
static int enter(struct crawling *crawling, uint64_t ino, struct children *ret_children)
{
	*ret_children = (struct children){.crawling = crawling};
	return catalog_each_name(crawling->crawl->catalog, ino, take_name, ret_children);
}

static int list_one(struct crawling *crawling, uint64_t ino, struct err *err)
{
	const struct crawl *crawl = crawling->crawl;
	struct call call = *crawling->call;
	struct reconcile_whole whole = {0};
	struct children children = {0};
	struct cat_inode inode;
	int result = 0;

	if (!crawling->unlisted_only) { /* all of them have no end */
		call.deadline_ns = clock_monotonic() + PATIENCE_NS;
		result = reconcile_whole(crawl->reconcile, ino, &call, &whole, err);
	} else if (!is_listed(crawling, ino, &inode)) {
		result = reconcile_directory(crawl->reconcile, ino, &call, err);
	}
	if (!result)
		result = enter(crawling, ino, &children);
	if (result && !err->kind)
		(void)err_from_errno(err, -result, "directory %llu", (unsigned long long)ino);
	LOCK_GUARD(&crawling->lock);
	crawling->figures.directories++;
	crawling->figures.files += children.files;
	crawling->figures.versions += whole.versions;
	if (!result && !children.count && !crawling->unlisted_only)
		result = note_empty(crawling, ino, &whole);
	return result;
}

static void *work(void *arg)
{
	struct crawling *crawling = arg;

	lock_acquire(&crawling->lock);
	while (!is_over(crawling)) {
		struct err err = {0};
		uint64_t ino;
		int result;

		if (!crawling->depth) {
			(void)lock_wait(&crawling->lock, &crawling->changed, 0);
			continue;
		}
		ino = crawling->stack[--crawling->depth];
		crawling->busy++;
		lock_release(&crawling->lock);
		result = list_one(crawling, ino, &err);
		lock_acquire(&crawling->lock);
		crawling->busy--;
		if (result)
			fail(crawling, result, &err);
		(void)pthread_cond_broadcast(&crawling->changed);
	}
	lock_release(&crawling->lock);
	return NULL;
}

/* What is listed though everything in it was deleted goes to the past, and so does what holds nothing else. */
static int drop_phantoms(struct crawling *crawling)
{
	const struct crawl *crawl = crawling->crawl;
	int result = 0;

	if (!reconcile_has_phantoms(crawl->reconcile))
		return 0;
	for (size_t i = 0; i < crawling->empties.count && !result; i++) {
		struct cat_phantom phantom = crawling->empties.cells[i];

		while ((result = catalog_phantom(crawl->catalog, &phantom, &phantom.ino)) == 1)
			crawling->figures.directories--;
	}
	return result ? err_from_errno(&crawling->err, -result, "directories of the past") : 0;
}

static void take_asides(struct crawling *crawling)
{
	const struct crawl *crawl = crawling->crawl;
	uint64_t adopted = 0;

	crawling->result = reconcile_asides(crawl->reconcile, NULL, crawling->call, &adopted, &crawling->err);
	crawling->figures.versions += adopted;
}

/* --- all of them --------------------------------------------------------------------------------------- */

static void watch(struct crawling *crawling)
{
	lock_acquire(&crawling->lock);
	while (!is_over(crawling)) {
		struct crawl_figures figures = crawling->figures;

		figures.waiting = crawling->depth;
		lock_release(&crawling->lock);
		if (crawling->crawl->progress)
			crawling->crawl->progress(crawling->crawl->arg, &figures);
		lock_acquire(&crawling->lock);
		if (!is_over(crawling))
			(void)lock_wait(&crawling->lock, &crawling->changed, clock_monotonic() + TELL_NS);
	}
	lock_release(&crawling->lock);
}

static void run(struct crawling *crawling)
{
	pthread_t workers[WORKERS];
	unsigned count = 0;

	while (count < WORKERS && pthread_create(&workers[count], NULL, work, crawling) == 0)
		count++;
	if (count)
		watch(crawling);
	else
		(void)work(crawling);
	for (unsigned i = 0; i < count; i++)
		(void)pthread_join(workers[i], NULL); /* cannot fail: ours, and not joined yet */
}

static int begin(struct crawling *crawling, uint64_t top, struct err *err)
{
	int result = push(crawling, top);

	if (result)
		return err_from_errno(err, -result, "crawl");
	lock_init(&crawling->lock, LOCK_LEAF);
	lock_cond_init(&crawling->changed);
	return 0;
}

static int end(struct crawling *crawling, struct err *err)
{
	if (crawling->result && err)
		*err = crawling->err;
	(void)pthread_cond_destroy(&crawling->changed); /* nobody waits */
	lock_destroy(&crawling->lock);
	free(crawling->stack);
	free(crawling->empties.cells);
	return crawling->result;
}

int crawl_all(const struct crawl *crawl, const struct call *call, struct crawl_figures *ret_figures, struct err *err)
{
	struct crawling crawling = {.crawl = crawl, .call = call};
	int result = begin(&crawling, CAT_ROOT_INO, err);

	if (result)
		return result;
	run(&crawling);
	if (!crawling.result)
		crawling.result = drop_phantoms(&crawling);
	if (!crawling.result)
		take_asides(&crawling);
	*ret_figures = crawling.figures;
	return end(&crawling, err);
}

int crawl_unlisted(const struct crawl *crawl, uint64_t dir, const struct call *call, struct err *err)
{
	struct crawling crawling = {.crawl = crawl, .call = call, .unlisted_only = true};
	int result = begin(&crawling, dir, err);

	if (result)
		return result;
	/* Mostly everything is listed: that is found out here. */
	while (crawling.depth && !crawling.result) {
		uint64_t ino = crawling.stack[crawling.depth - 1];
		struct cat_inode inode = {0};
		struct children children;

		if (!is_listed(&crawling, ino, &inode))
			break;
		crawling.depth--;
		if (inode.nlink > 2) /* there are directories in it */
			crawling.result = enter(&crawling, ino, &children);
	}
	if (crawling.result)
		(void)err_from_errno(&crawling.err, -crawling.result, "directory %llu", (unsigned long long)dir);
	else if (crawling.depth)
		run(&crawling);
	return end(&crawling, err);
}
