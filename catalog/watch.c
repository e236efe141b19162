/*
 * watch.c - the jobs that ended while a directory was being listed.
 *
 * A listing tells of a key what was so at some moment since it was begun. Where a job of ours was pending then and has
 * ended by the time the listing is adopted, nothing in the catalog says any more that the two need not agree: a name
 * removed long before would come back with its object, a symlink's that moved would go. So the jobs that end meanwhile
 * are noted: their inodes, their keys, and the names in the listed directory beneath which those lie, as hashes. Two
 * with one hash leave a name alone that could have been adopted: the next listing does it.
 *
 * A watch is begun before the first page is asked for. A job that ended before that had its effect before that, too.
 *
 * Threads: `watches` and their chain are guarded by watch_lock. What a watch holds is written by the catalog's one
 * writer, wherever a job is deleted, and read in the updates that adopt, which are the writer's as well.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "catalog/catalog_internal.h"
#include "table.h"

struct cat_watch {
	struct catalog *catalog;
	struct cat_watch *next;
	char *prefix; /* of the listing, with its '/', or empty for the root */
	size_t prefix_len;
	struct numbers inos, keys;
	bool above; /* a job on a directory above has ended: nothing of the listing need be so */
};

int catalog_watch(struct catalog *catalog, const char *prefix, struct cat_watch **ret)
{
	struct cat_watch *watch = calloc(1, sizeof(*watch));

	if (!watch || !(watch->prefix = strdup(prefix))) {
		free(watch);
		return -ENOMEM;
	}
	watch->catalog = catalog;
	watch->prefix_len = strlen(prefix);
	LOCK_GUARD(&catalog->watch_lock);
	watch->next = catalog->watches;
	catalog->watches = watch;
	*ret = watch;
	return 0;
}

void cat_watch_free(struct cat_watch *watch)
{
	struct cat_watch **link;

	if (!watch)
		return;
	lock_acquire(&watch->catalog->watch_lock);
	link = &watch->catalog->watches;
	while (*link != watch)
		link = &(*link)->next;
	*link = watch->next;
	lock_release(&watch->catalog->watch_lock);
	numbers_clear(&watch->inos);
	numbers_clear(&watch->keys);
	free(watch->prefix);
	free(watch);
}

static int note_key(struct cat_watch *watch, const char *key)
{
	size_t len = strlen(key);
	const char *slash;
	int rc;

	if (len < watch->prefix_len) { /* a directory above, or something elsewhere */
		watch->above |= strncmp(watch->prefix, key, len) == 0 && watch->prefix[len] == '/';
		return 0;
	}
	if (strncmp(watch->prefix, key, watch->prefix_len) != 0)
		return 0;
	rc = numbers_add(&watch->keys, hash_bytes(key, len));
	slash = strchr(key + watch->prefix_len, '/');
	if (rc >= 0 && slash) /* with its '/': nothing has a key like that which is not a directory */
		rc = numbers_add(&watch->keys, hash_bytes(key, (size_t)(slash + 1 - key)));
	return rc < 0 ? rc : 0;
}

void cat_watch_note(struct cat_txn *txn, const struct cat_job *job)
{
	LOCK_GUARD(&txn->catalog->watch_lock);

	for (struct cat_watch *watch = txn->catalog->watches; watch; watch = watch->next) {
		int rc = job->ino ? numbers_add(&watch->inos, job->ino) : 0;

		if (rc >= 0 && job->key)
			rc = note_key(watch, job->key);
		watch->above |= rc < 0; /* not known, then */
	}
}

bool cat_watch_above(const struct cat_watch *watch)
{
	return watch && watch->above;
}

bool cat_watch_inode(const struct cat_watch *watch, uint64_t ino)
{
	return watch && numbers_has(&watch->inos, ino);
}

bool cat_watch_key(const struct cat_watch *watch, const char *key)
{
	return watch && numbers_has(&watch->keys, hash_bytes(key, strlen(key)));
}
