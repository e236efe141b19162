/*
 * reconcile.h - what the store holds against what the catalog knows.
 *
 * The store's listings, HEADs and versions are taken into the catalog here,
 * and nowhere else. Nothing asked twice at once is asked twice of the store:
 * callers who want the same directory or inode share one answer.
 *
 * Thread-safe. No lock is held across a backend call or a catalog call.
 */
#ifndef VARVE_FS_RECONCILE_H
#define VARVE_FS_RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "catalog.h"
#include "transfer.h"

struct reconcile;

struct reconcile_options {
	struct catalog *catalog;
	struct transfer *transfer;
	uint32_t file_mode, dir_mode; /* permissions of what says nothing; 0: 0644, 0755 */
	uint32_t uid, gid;            /* its owner */
	int64_t max_age_ns;           /* a listing older than this is refreshed; 0: 60 s */
	uint64_t max_entries; /* of one directory, some 400 bytes of memory each while it is listed; 0: 4 million */
	/* Names and inodes the kernel must forget; without locks, on any thread. May be NULL. */
	void (*changed)(void *arg, uint64_t parent, const char *name, uint64_t ino);
	void *changed_arg;
};
int reconcile_new(const struct reconcile_options *options, struct reconcile **ret_reconcile);
/* Cancels what runs in the background and waits for it; nothing begins there any more. NULL is fine. */
void reconcile_stop(struct reconcile *reconcile);
/* The same, and frees it. NULL is fine. */
void reconcile_free(struct reconcile *reconcile);

/* Lists the directory completely and adopts it. Whoever calls while it is being listed gets that listing's outcome. */
int reconcile_directory(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err);
/* In the background, when the last listing is older than max_age. Cheap when it is not. */
void reconcile_refresh_soon(struct reconcile *reconcile, uint64_t dir);
/*
 * HEAD for a CAT_UNRESOLVED inode, and for the next of its unresolved siblings
 * in the background. An inode that is resolved already is success. -ESTALE: the
 * store has something else there by now and the directory was listed anew; look
 * the name up again. ret_inode may be NULL.
 */
int reconcile_resolve(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct cat_inode *ret_inode,
		      struct err *err);
/* Older versions the store holds of this file's key; asks at most once per max_age. Success without doing anything on a
 * store without versions. */
int reconcile_versions(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err);

/* The same whenever it is asked: who calls knows of a version that the catalog does not. */
int reconcile_versions_now(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err);
void reconcile_versions_soon(struct reconcile *reconcile, uint64_t ino);

/*
 * Names of the directory that the store knows only from the past: deleted by
 * others before we saw them, directories of which nothing is left among them.
 * `dir` may itself be such a directory. Asks again only after some time, however
 * it went; success without doing anything on a store without versions.
 */
int reconcile_past(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err);
int reconcile_past_now(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err);

/*
 * Everything that can be known of the directory, for who rebuilds a catalog: its listing, the attributes of all it
 * shows, older versions of its files, names that others deleted.
 */
struct reconcile_whole {
	uint64_t versions;          /* that were not known */
	int64_t since_ns, until_ns; /* first change, and last removal, of what is deleted in it; 0: nothing is */
};
int reconcile_whole(struct reconcile *reconcile, uint64_t dir, const struct call *call,
		    struct reconcile_whole *ret_whole, struct err *err);
/* May the store list a directory of which everything was deleted? */
bool reconcile_has_phantoms(struct reconcile *reconcile);
/*
 * Versions that lie under `.varve/versions/`, by their file's id, and that the catalog does not know: conflicts of
 * another writer, and what was preserved on a store without versions. `key`: one of them; NULL: all.
 */
int reconcile_asides(struct reconcile *reconcile, const char *key, const struct call *call, uint64_t *ret_adopted,
		     struct err *err);
/* Is it the key of such a version, and of which file's? */
bool reconcile_is_aside(const char *key, uint8_t ret_file_id[static CAT_FILE_ID_SIZE]);

/*
 * A read found that the store no longer has this object, or another in its
 * place. Asks once more; when it is so, the copy is dropped, a version without
 * any other expires, and the directory that shows it is listed anew in the
 * background. *ret_gone: it was so. RECONCILE_LISTED: a complete listing of the
 * store has just shown that the store itself is there, and that this is not.
 */
enum reconcile_doubt { RECONCILE_READ, RECONCILE_LISTED };
int reconcile_gone(struct reconcile *reconcile, const struct cat_gone *gone, enum reconcile_doubt doubt,
		   const struct call *call, bool *ret_gone);

/* The last that was heard of the store is that it cannot be reached. */
bool reconcile_offline(struct reconcile *reconcile);

/* Lists a directory that shows the inode, in the background. */
void reconcile_names_soon(struct reconcile *reconcile, uint64_t ino);

struct reconcile_figures {
	uint64_t listings, pages, entries, heads, failures;
	uint64_t expired; /* versions that the store no longer has */
	unsigned running; /* in the background */
};
void reconcile_figures(struct reconcile *reconcile, struct reconcile_figures *ret_figures);

#endif
