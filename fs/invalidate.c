/*
 * invalidate.c - a queue and the thread that empties it.
 *
 * Lock: LOCK_LEAF, held only to take an item out.
 */
#include "fs/invalidate.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "lock.h"
#include "table.h"

struct item {
	struct list node;
	uint64_t parent, ino;
	char *name;
	struct range pages; /* of ino; none: its attributes */
};

struct invalidate {
	struct lock lock;
	pthread_cond_t cond;
	struct list items; /* guarded by lock, as all below */
	struct fuse_session *fuse;
	bool started, stop;
	pthread_t thread;
};

static void item_free(struct item *item)
{
	free(item->name);
	free(item);
}

static void send(struct fuse_session *fuse, const struct item *item)
{
	/* -ENOENT: the kernel did not know it. Anything else: it is going away. */
	if (item->name)
		(void)fuse_lowlevel_notify_inval_entry(fuse, item->parent, item->name, strlen(item->name));
	if (item->parent)
		(void)fuse_lowlevel_notify_inval_inode(fuse, item->parent, 0, 0);
	if (item->ino && item->pages.end)
		(void)fuse_lowlevel_notify_inval_inode(fuse, item->ino, (off_t)item->pages.start,
						       (off_t)(item->pages.end - item->pages.start));
	else if (item->ino)
		(void)fuse_lowlevel_notify_inval_inode(fuse, item->ino, -1, 0);
}

static void *run(void *arg)
{
	struct invalidate *invalidate = arg;

	for (;;) {
		struct item *item;

		lock_acquire(&invalidate->lock);
		while (!invalidate->stop && list_empty(&invalidate->items))
			(void)lock_wait(&invalidate->lock, &invalidate->cond, 0);
		if (invalidate->stop) {
			lock_release(&invalidate->lock);
			return NULL;
		}
		item = list_entry(invalidate->items.next, struct item, node);
		list_remove(&item->node);
		lock_release(&invalidate->lock);
		send(invalidate->fuse, item);
		item_free(item);
	}
}

static void add(struct invalidate *invalidate, const struct item *what)
{
	struct item *item = malloc(sizeof(*item));

	if (!item)
		return; /* the kernel's own timeout must do */
	*item = *what;
	item->name = what->name ? strdup(what->name) : NULL;
	LOCK_GUARD(&invalidate->lock);
	if (!invalidate->started || invalidate->stop) {
		item_free(item);
		return;
	}
	list_add_tail(&invalidate->items, &item->node);
	(void)pthread_cond_signal(&invalidate->cond);
}

void invalidate_add(struct invalidate *invalidate, uint64_t parent, const char *name, uint64_t ino)
{
	add(invalidate, &(struct item){.parent = parent, .name = (char *)name, .ino = ino});
}

void invalidate_pages(struct invalidate *invalidate, uint64_t ino, const struct range *pages)
{
	add(invalidate, &(struct item){.ino = ino, .pages = *pages});
}

int invalidate_new(struct invalidate **ret_invalidate)
{
	struct invalidate *invalidate = calloc(1, sizeof(*invalidate));

	if (!invalidate)
		return -ENOMEM;
	lock_init(&invalidate->lock, LOCK_LEAF);
	lock_cond_init(&invalidate->cond);
	list_init(&invalidate->items);
	*ret_invalidate = invalidate;
	return 0;
}

void invalidate_start(struct invalidate *invalidate, struct fuse_session *fuse)
{
	LOCK_GUARD(&invalidate->lock);
	invalidate->fuse = fuse;
	invalidate->started = pthread_create(&invalidate->thread, NULL, run, invalidate) == 0;
}

void invalidate_stop(struct invalidate *invalidate)
{
	bool started;

	{
		LOCK_GUARD(&invalidate->lock);
		started = invalidate->started && !invalidate->stop;
		invalidate->stop = true;
		(void)pthread_cond_signal(&invalidate->cond);
	}
	if (started)
		(void)pthread_join(invalidate->thread, NULL);
}

void invalidate_free(struct invalidate *invalidate)
{
	if (!invalidate)
		return;
	invalidate_stop(invalidate);
	list_each_safe(at, after, &invalidate->items)
	{
		list_remove(at);
		item_free(list_entry(at, struct item, node));
	}
	(void)pthread_cond_destroy(&invalidate->cond);
	lock_destroy(&invalidate->lock);
	free(invalidate);
}
