/*
 * session.h - one mount: from its options to a served directory to nothing left to store.
 *
 * Call order: session_open, session_run, session_close. The other three may be
 * called from any thread between open and close; they take their locks briefly
 * and never wait for the store.
 */
#ifndef VARVE_FS_SESSION_H
#define VARVE_FS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "fs/crawl.h"

struct cat_protection; /* catalog.h */
struct config;         /* fs/config.h */
struct prune;          /* fs/prune.h */
struct prune_request;  /* fs/prune.h */
struct session;

/* Opens state, store, catalog; recovers; mounts. On return 0 the directory is ready. ret_session. Error: one clear line
 * in err->message. */
int session_open(const struct config *config, struct session **ret_session, struct err *err);

/* Serves until unmounted or told to stop (SIGTERM/SIGINT unmount); drains; 0 when all is stored. A signal that comes
 * while it drains ends the draining (`varve umount --no-wait`): what is left stays in the journal. */
int session_run(struct session *session);

void session_close(struct session *session);

/*
 * A whole catalog in an empty state directory, without mounting: from what was
 * shipped to the store, then every directory listed. Takes the lease meanwhile.
 * ERR_CONFLICT: there is a catalog already, or somebody has the store mounted.
 */
struct session_rebuild {
	void (*progress)(void *arg, const struct crawl_figures *so_far); /* may be NULL */
	void *arg;
};
int session_rebuild(const struct config *config, const struct session_rebuild *request,
		    struct crawl_figures *ret_figures, struct err *err);

/* Writes the status object of `varve status --json` (jansson not needed here: a JSON text). */
void session_status_json(struct session *session, struct buf *ret_json);

/* Number of journal jobs not done, bytes not stored. */
struct session_pending {
	uint64_t jobs;
	uint64_t bytes;
	uint64_t failed;
	char last_error[256];
};
void session_pending(struct session *session, struct session_pending *ret_pending);

/* prune_new and catalog_protect of a mount that may write: else -EROFS. Jobs do the rest. */
int session_prune(struct session *session, const struct prune_request *request, struct prune **ret_prune);
int session_protect(struct session *session, const struct cat_protection *request);
/* Can the store itself keep versions from being removed? */
bool session_store_locks(struct session *session);

/* Compare the whole store with the catalog now: `others` of the status tells how it went. */
void session_sweep(struct session *session);

/* Try all waiting jobs now, not at their next_try (umount asks for it). */
void session_hurry(struct session *session);

#endif
