/*
 * reconcile_internal.h - what the files of reconcile share.
 *
 *	reconcile.c           flights: who asks for what, and that it is asked once; what is gone
 *	reconcile_list.c      a directory by its listing
 *	reconcile_head.c      an inode by HEAD
 *	reconcile_versions.c  a file's older versions
 *	reconcile_past.c      names of a directory that are no more, and all of it at once
 *
 * The locks and threads are those of reconcile.c. Functions return 0 or -errno with *err filled.
 */
#ifndef VARVE_FS_RECONCILE_INTERNAL_H
#define VARVE_FS_RECONCILE_INTERNAL_H

#include <stdatomic.h>

#include "fs/findings.h"
#include "fs/reconcile.h"
#include "lock.h"
#include "table.h"

#define RECONCILE_MODULE "reconcile"
#define VERSION_HEADS_MAX 1024 /* older ones are taken as the listing shows them */

struct reconcile {
	struct reconcile_options options;
	atomic_bool stop;
	_Atomic int64_t quiet_until; /* monotonic: no background work before */

	struct lock lock;
	pthread_cond_t landed;
	struct table flights; /* lock */
	struct table asked;   /* lock: when an inode's versions were last asked for */
	unsigned background;  /* lock: tasks submitted and not ended */

	_Atomic uint64_t listings, pages, entries, heads, failures, expired;
};

/* --- flights: (kind, ino) -------------------------------------------------------------------------- */

enum reconcile_kind { RECONCILE_KIND_LIST, RECONCILE_KIND_HEAD, RECONCILE_KIND_VERSIONS, RECONCILE_KIND_PAST };

/* The answer: of whoever gets it already, else of our own. */
int reconcile_join(struct reconcile *reconcile, enum reconcile_kind kind, uint64_t ino, const struct call *call,
		   struct err *err);

/* What they do. */
int reconcile_list_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err);
int reconcile_head_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err);
int reconcile_versions_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err);
int reconcile_past_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err);

/* Of who waits as long as it takes. */
extern const struct call reconcile_patient;

/* --- shared steps ------------------------------------------------------------------------------------ */

/*
 * Listings of objects tell no native ids, so what they alone tell of an object on a store with versions is not enough
 * to know it again beneath a newer one: only who asks for the versions next wishes for metadata.
 */
enum reconcile_wish { RECONCILE_WISH_NAMES, RECONCILE_WISH_META };

int reconcile_list_directory(struct reconcile *reconcile, uint64_t dir, enum reconcile_wish wish,
			     const struct call *call, struct err *err);

/* The oldest name of an inode. -errno alone. */
int reconcile_name_of(struct reconcile *reconcile, uint64_t ino, struct cat_name *ret_name);

/* HEADs of many at once: the caller and helpers on the pool each take the next until none is left. */
struct reconcile_batch {
	struct reconcile *reconcile;
	const struct call *call;
	int (*one)(struct reconcile_batch *batch, size_t i, struct err *err);
	/* Of versions: */
	struct findings *findings;
	struct objmeta *metas; /* one a finding; cat_found borrows from them */
	bool as_said;          /* what metadata calls no file stays none */
	/* Of inodes: */
	const uint64_t *inos;

	size_t count;
	atomic_size_t next;
	struct lock lock;
	pthread_cond_t idle;
	unsigned helpers; /* lock: not ended */
	int rc;           /* lock: the first failure */
	struct err err;   /* lock */
};
int reconcile_batch_run(struct reconcile_batch *batch, struct err *err);
/* `one` of versions. */
int reconcile_version_head(struct reconcile_batch *batch, size_t i, struct err *err);

/* Did anything have the name before, and lost it? 1, 0, -errno. */
int reconcile_had_name(struct reconcile *reconcile, uint64_t dir, const char *name);

/* Every page of a listing of versions, entry by entry, until `take` returns non-zero. */
struct reconcile_walk {
	struct list_request request;
	int (*take)(void *arg, const struct object_info *info);
	int (*page)(void *arg, struct err *err); /* at the end of each, unless NULL */
	void *arg;
	unsigned max_pages; /* 0: all */
};
int reconcile_walk(struct reconcile *reconcile, const struct call *call, struct reconcile_walk *walk, struct err *err);

#endif
