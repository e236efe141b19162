/*
 * session.c - one mount: brings the layers up from the store to the kernel, serves, and takes them down again.
 *
 *   open:  store -> catalog -> identity, lease -> rebuild when new -> reconcile, contents, recovery -> writeback, ship
 *          -> versions -> kernel
 *   run:   serves until the directory is unmounted or a signal came; then drains, ships, releases the lease
 *   close: the same way back
 *
 * Invariants
 *  1. Nothing runs before the state directory is known to belong to the store and the lease is held.
 *  2. The kernel sees the mount only when everything beneath it works.
 *  3. Whatever could not be stored is in the journal when the process ends.
 *  4. A signal ends whatever is going on: before the kernel has the mount, calls of the store; then the mount; and then
 *     the draining.
 *
 * Threads: open, run and close on the main one. Signals are blocked in all and waited for by `watch_signals`.
 */
#include "fs/session.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/cache.h"
#include "fs/crawl.h"
#include "fs/fs.h"
#include "fs/invalidate.h"
#include "fs/kernel.h"
#include "fs/killpoint.h"
#include "fs/lease.h"
#include "fs/prefetch.h"
#include "fs/prune.h"
#include "fs/reconcile.h"
#include "fs/ship.h"
#include "fs/stale.h"
#include "fs/sweep.h"
#include "fs/writeback.h"
#include "fs/xattr_varve.h"
#include "log.h"
#include "transfer.h"
#include "version.h"

#define OPEN_PATIENCE_NS (30 * NS_PER_SEC)
#define KNOWN_MAX_AGE_NS (24 * 3600 * NS_PER_SEC)
#define NEVER_NS (INT64_MAX / 4)
#define DRAIN_PATIENCE_NS (60 * NS_PER_SEC) /* without any progress */
#define SAY_EVERY_NS (5 * NS_PER_SEC)
#define RELEASE_PATIENCE_NS (5 * NS_PER_SEC)
#define POOL_THREADS 64

struct session {
	struct fs fs;
	struct backend *backend;
	struct sweep *sweep;
	struct fuse_lowlevel_ops operations;
	char *tmp_dir;
	struct lock lock; /* LOCK_SESSION: guards mounted */
	bool mounted;     /* libfuse must be told to unmount, once */
	bool rebuilding;  /* not mounted: nothing goes on beside */
	int signal_fd;
	pthread_t signal_thread;
	bool signals_watched;
	atomic_bool serving; /* the directory is mounted: a signal unmounts it */
	atomic_bool served;  /* it is unmounted: what comes now is draining */
	atomic_bool hurried; /* a signal while opening or draining: stop at once */
	int stop_watching;   /* eventfd */
	int64_t started_wall;
};

/* --- opening ---------------------------------------------------------------------------------------------- */

static int make_dir(const char *base, const char *name, char **ret_path, struct err *err)
{
	AUTO_BUF path = BUF_INIT;

	buf_addf(&path, "%s%s%s", base, name ? "/" : "", name ? name : "");
	if (buf_failed(&path))
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	for (char *slash = strchr(path.data + 1, '/'); slash && !name; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(path.data, 0700); /* the last one tells */
		*slash = '/';
	}
	if (mkdir(path.data, 0700) && errno != EEXIST)
		return err_from_errno(err, errno, "cannot make %s", path.data);
	*ret_path = buf_detach(&path);
	return 0;
}

/* What the store was found able to do, and when: "nanoseconds text". Tried again after KNOWN_MAX_AGE_NS. */
#define STORE_KNOWN "store.known"

static char *recall_known(struct catalog *catalog)
{
	AUTO_FREE char *value = NULL;
	int64_t age;
	char *text;

	if (catalog_setting_get(catalog, STORE_KNOWN, &value))
		return NULL;
	age = clock_wall() - strtoll(value, &text, 10);
	return *text == ' ' && age >= 0 && age < KNOWN_MAX_AGE_NS ? strdup(text + 1) : NULL;
}

/* Best effort: what is not kept is tried again. */
static void keep_known(struct catalog *catalog, const char *known)
{
	AUTO_BUF value = BUF_INIT;

	buf_addf(&value, "%" PRId64 " %s", clock_wall(), known);
	if (buf_failed(&value) || catalog_setting_put(catalog, STORE_KNOWN, value.data))
		log_warn("session", "what the store can do is not kept");
}

static int open_store(struct session *session, const struct config *config, struct err *err)
{
	AUTO_FREE char *known = recall_known(session->fs.catalog);
	struct backend_options options = {.url = config->url,
					  .endpoint = config->endpoint,
					  .region = config->region,
					  .profile = config->profile,
					  .create = config->create,
					  .read_only = config->read_only,
					  .known = known};
	struct transfer_options transfer = {.threads = config->threads ? config->threads : POOL_THREADS,
					    .bytes_per_second_up = config->max_upload_rate,
					    .bytes_per_second_down = config->max_download_rate,
					    .max_requests = config->max_requests};
	struct call call = {.deadline_ns = clock_monotonic() + OPEN_PATIENCE_NS, .cancelled = &session->hurried};
	const struct backend_ops *ops = backend_find(config->url, err);
	int result;

	if (!ops)
		return -EINVAL;
	result = ops->open(&options, &session->backend, err);
	if (!result)
		result = transfer_new(session->backend, &transfer, &session->fs.transfer, err);
	if (!result)
		result = transfer_probe(session->fs.transfer, &call, err);
	if (!result && !config->read_only && transfer_known(session->fs.transfer) &&
	    (!known || strcmp(known, transfer_known(session->fs.transfer)) != 0))
		keep_known(session->fs.catalog, transfer_known(session->fs.transfer));
	return result;
}

/* A rebuild that a crash cut short left half a catalog, of which nothing is worth keeping. */
#define REBUILD_BEGUN "rebuild.begun"

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	return ftw->level > 0 ? remove(path) : 0;
}

static bool half_rebuilt(struct catalog *catalog)
{
	AUTO_FREE char *begun = NULL;

	return catalog_setting_get(catalog, REBUILD_BEGUN, &begun) == 0 && begun[0];
}

static int open_whole_catalog(const char *dir, const struct catalog_options *options, struct catalog **ret_catalog)
{
	int result = catalog_open(dir, options, ret_catalog);

	if (result || !half_rebuilt(*ret_catalog))
		return result;
	log_warn("session", "the last rebuild of the catalog was cut short; it begins anew");
	catalog_close(*ret_catalog);
	*ret_catalog = NULL;
	if (nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
		return -errno;
	return catalog_open(dir, options, ret_catalog);
}

static int open_catalog(struct session *session, const struct config *config, bool *ret_new, struct err *err)
{
	struct catalog_options options = {
		.root_uid = config->uid, .root_gid = config->gid, .root_mode = 0777 & ~config->umask};
	static const uint8_t none[CAT_STORE_ID_SIZE];
	uint8_t id[CAT_STORE_ID_SIZE];
	AUTO_FREE char *dir = NULL;
	int result = make_dir(config->state_dir, "catalog", &dir, err);

	if (result)
		return result;
	result = open_whole_catalog(dir, &options, &session->fs.catalog);
	if (result == -EBUSY)
		return err_set(err, ERR_CONFLICT, "state directory %s is in use by another varve mount",
			       config->state_dir);
	if (result == -EPROTO)
		return err_set(err, ERR_CONFIGURATION, "state directory %s was written by a newer varve",
			       config->state_dir);
	if (!result)
		result = catalog_store_id(session->fs.catalog, id);
	if (result)
		return err_from_errno(err, -result, "cannot open the catalog in %s", dir);
	*ret_new = memcmp(id, none, sizeof(id)) == 0;
	return 0;
}

/* The arg is when this was last said. */
static void say_rebuilt(void *arg, const struct ship_rebuilt *so_far)
{
	int64_t *said = arg, now = clock_monotonic();

	if (now - *said < SAY_EVERY_NS)
		return;
	*said = now;
	log_info("session", "rebuilding the catalog from the store: %" PRIu64 " segments, %" PRIu64 " bytes so far",
		 so_far->segments, so_far->bytes);
}

static int end_rebuild(struct session *session)
{
	return catalog_setting_put(session->fs.catalog, REBUILD_BEGUN, "");
}

static int rebuild(struct session *session, struct err *err)
{
	struct catalog *catalog = session->fs.catalog;
	int64_t said = clock_monotonic();
	struct ship_rebuild request = {.catalog = catalog,
				       .transfer = session->fs.transfer,
				       .tmp_dir = session->tmp_dir,
				       .progress = say_rebuilt,
				       .progress_arg = &said};
	struct call call = {.cancelled = &session->hurried}; /* each request has a patience of its own */
	struct ship_rebuilt rebuilt;
	int result = ship_rebuild(&request, &call, &rebuilt, err);
	bool from_log = result != -ENOENT; /* else the listing alone must do, directory by directory */

	if (!from_log) {
		*err = (struct err){0};
		result = 0;
	} else if (!result) {
		result = catalog_rebuilt(catalog);
	}
	if (!result && !session->rebuilding) /* else it is whole only after the crawl */
		result = end_rebuild(session);
	if (result)
		return err->kind ? result : err_from_errno(err, -result, "cannot rebuild the catalog");
	if (from_log)
		log_info("session", "catalog rebuilt from the store up to update %" PRIu64 "%s", rebuilt.number,
			 rebuilt.gap ? "; something newer there could not be used" : "");
	return 0;
}

static int claim_store(struct session *session, bool is_new, struct err *err)
{
	const struct config *config = session->fs.config;
	struct lease_options options = {
		.catalog = session->fs.catalog, .transfer = session->fs.transfer, .takeover = config->takeover};
	/* A dead holder's lease is waited for. */
	struct call call = {.deadline_ns = clock_monotonic() + 3 * OPEN_PATIENCE_NS, .cancelled = &session->hurried};
	int result = is_new ? catalog_setting_put(session->fs.catalog, REBUILD_BEGUN, "1") : 0;

	if (result)
		return err_from_errno(err, -result, "cannot write the catalog");
	result = lease_check_identity(&options, config->read_only ? LEASE_IDENTITY_READ : LEASE_IDENTITY_CREATE, &call,
				      err);
	if (!result && !config->read_only)
		result = lease_acquire(&options, &call, &session->fs.lease, err);
	if (!result && is_new)
		result = rebuild(session, err);
	if (!result && is_new && session->fs.lease && lease_caught_up(session->fs.lease))
		result = err_set(err, ERR_INTERNAL, "cannot write the catalog");
	return result;
}

/* Another wrote to the store since: what was never sent from here is saved beside, and the catalog built anew. */
static int begin_anew(struct session *session, struct err *err)
{
	const struct config *config = session->fs.config;
	struct stale stale = {
		.catalog = session->fs.catalog, .transfer = session->fs.transfer, .state_dir = config->state_dir};
	struct call call = {.deadline_ns = clock_monotonic() + OPEN_PATIENCE_NS};
	struct stale_saved saved = {0};
	bool is_new;
	int result = stale_save(&stale, &saved, err);

	if (result)
		return result;
	log_warn("session",
		 "another mount wrote to the store since this state directory was used: the catalog is built anew");
	if (saved.dir)
		log_warn("session", "%" PRIu64 " versions and %" PRIu64 " other changes that were never sent are in %s",
			 saved.files, saved.changes, saved.dir);
	free(saved.dir);
	lease_release(session->fs.lease, &call); /* the new catalog takes it again, under its own name */
	lease_free(session->fs.lease);
	session->fs.lease = NULL;
	catalog_close(session->fs.catalog);
	session->fs.catalog = NULL;
	result = stale_discard(config->state_dir, err);
	if (!result)
		result = open_catalog(session, config, &is_new, err);
	return result ? result : claim_store(session, true, err);
}

static void store_changed(void *arg, uint64_t parent, const char *name, uint64_t ino)
{
	struct session *session = arg;

	/* While the layers come up there is no kernel to tell. */
	if (session->fs.versions && name)
		name = versions_shown(session->fs.versions, name);
	invalidate_add(session->fs.invalidate, parent, name, ino);
}

/* --- what others do in the store ------------------------------------------------------------------------------ */

static bool copy_gone(void *arg, const struct cat_gone *gone, const atomic_bool *cancelled)
{
	const struct session *session = arg;
	struct call call = {.cancelled = cancelled};
	bool is_gone;

	return reconcile_gone(session->fs.reconcile, gone, RECONCILE_READ, &call, &is_gone) == 0 && is_gone;
}

static bool uploads_come_on(void *arg, uint64_t *ret_moved)
{
	const struct session *session = arg;

	return session->fs.writeback && writeback_uploading(session->fs.writeback, ret_moved);
}

static void upload_contested(void *arg, uint64_t ino)
{
	const struct session *session = arg;

	reconcile_names_soon(session->fs.reconcile, ino);
}

static void upload_overwrote(void *arg, uint64_t ino)
{
	const struct session *session = arg;

	reconcile_versions_soon(session->fs.reconcile, ino);
}

static int open_sweep(struct session *session)
{
	const struct config *config = session->fs.config;
	struct sweep_options options = {.catalog = session->fs.catalog,
					.transfer = session->fs.transfer,
					.reconcile = session->fs.reconcile,
					.period_ns = session->rebuilding ? 0 : config->sweep_ns};

	return sweep_new(&options, &session->sweep);
}

static int open_contents(struct session *session, struct err *err)
{
	const struct config *config = session->fs.config;
	AUTO_FREE char *cache_dir = NULL;
	uint64_t recovered = 0;
	struct contents_options options = {.catalog = session->fs.catalog,
					   .transfer = session->fs.transfer,
					   .cache_limit = config->cache_size,
					   .cache_reserve = config->reserve,
					   .gone = copy_gone,
					   .gone_arg = session,
					   .uploading = uploads_come_on,
					   .uploading_arg = session,
					   .stalled_ns = config->fsync_timeout_ns};
	int result = make_dir(config->state_dir, "cache", &cache_dir, err);

	if (result)
		return result;
	options.cache_dir = cache_dir;
	result = contents_new(&options, &session->fs.contents);
	if (!result && !config->read_only)
		result = contents_recover(session->fs.contents, &recovered);
	if (result)
		return err_from_errno(err, -result, "cannot use the cache in %s", cache_dir);
	if (recovered)
		log_info("session",
			 "%" PRIu64 " files were being changed when the last mount ended; each has a version now",
			 recovered);
	return 0;
}

/* What the attribute `backend` tells; without it that is a number. */
static void note_url(struct catalog *catalog, const char *url)
{
	AUTO_FREE char *noted = NULL;

	if (catalog_setting_get(catalog, XATTR_VARVE_BACKEND "0", &noted) || strcmp(noted, url) != 0)
		(void)catalog_setting_put(catalog, XATTR_VARVE_BACKEND "0", url);
}

static int open_upper(struct session *session, struct err *err)
{
	const struct config *config = session->fs.config;
	struct fs *fs = &session->fs;
	struct reconcile_options reconcile = {.catalog = fs->catalog,
					      .transfer = fs->transfer,
					      .file_mode = 0666 & ~config->umask,
					      .dir_mode = 0777 & ~config->umask,
					      .uid = config->uid,
					      .gid = config->gid,
					      .changed = store_changed,
					      .changed_arg = session};
	struct ship_options ship = {
		.catalog = fs->catalog, .transfer = fs->transfer, .lease = fs->lease, .tmp_dir = session->tmp_dir};
	struct versions_options versions = {.catalog = fs->catalog,
					    .snapdir_name = config->snapdir_name,
					    .snapdir = (enum versions_snapdir)config->snapdir};
	int result;

	if (session->rebuilding) /* once, when all is there */
		ship.interval_ns = NEVER_NS;
	note_url(fs->catalog, config->url);
	result = reconcile_new(&reconcile, &fs->reconcile);
	if (!result)
		result = open_contents(session, err);
	if (!result) {
		struct writeback_options writeback = {
			.catalog = fs->catalog,
			.transfer = fs->transfer,
			.contents = fs->contents,
			.lease = fs->lease,
			.read_only = config->read_only,
			.others = {.contested = upload_contested, .overwrote = upload_overwrote, .arg = session}};

		result = writeback_new(&writeback, &fs->writeback);
	}
	ship.facts_put = writeback_facts_put;
	ship.facts_arg = fs->writeback;
	if (!result && !config->read_only)
		result = ship_new(&ship, &fs->ship, err);
	if (!result)
		result = prefetch_new(&(struct prefetch_options){.catalog = fs->catalog,
								 .contents = fs->contents,
								 .transfer = fs->transfer},
				      &fs->prefetch);
	versions.contents = fs->contents;
	versions.reconcile = fs->reconcile;
	if (!result)
		result = versions_new(&versions, &fs->versions);
	if (!result)
		result = open_sweep(session);
	return result && !err->kind ? err_from_errno(err, -result, "cannot start") : result;
}

/* --- the kernel ------------------------------------------------------------------------------------------------- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct kernel_agreed agreed = kernel_negotiate(conn);
	struct fs *fs = userdata;

	atomic_store(&fs->passthrough, agreed.passthrough);
	fs->uncached_writes = agreed.uncached_writes;
	fs->killpriv = agreed.killpriv;
}

static int add_args(const struct config *config, struct fuse_args *args)
{
	AUTO_BUF options = BUF_INIT;

	buf_adds(&options, "-odefault_permissions,nosuid,nodev,subtype=varve,fsname=");
	for (const char *at = config->url; *at; at++) {
		if (*at == ',' || *at == '\\')
			buf_addc(&options, '\\');
		buf_addc(&options, *at);
	}
	buf_adds(&options, config->allow_other ? ",allow_other" : "");
	buf_adds(&options, config->read_only ? ",ro" : "");
	buf_adds(&options, config->noexec ? ",noexec" : "");
	buf_adds(&options, config->noatime ? ",noatime" : "");
	if (buf_failed(&options) || fuse_opt_add_arg(args, "varve") || fuse_opt_add_arg(args, options.data) ||
	    (config->debug_fuse && fuse_opt_add_arg(args, "-odebug")))
		return -ENOMEM;
	return 0;
}

static int mount_kernel(struct session *session, struct err *err)
{
	const struct config *config = session->fs.config;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int result = add_args(config, &args);

	ops_meta_register(&session->operations);
	ops_data_register(&session->operations);
	ops_dir_register(&session->operations);
	ops_xattr_register(&session->operations);
	session->operations.init = op_init;
	if (!result) {
		session->fs.fuse =
			fuse_session_new(&args, &session->operations, sizeof(session->operations), &session->fs);
		result = session->fs.fuse ? 0 : -EIO;
	}
	fuse_opt_free_args(&args);
	if (result)
		return err_set(err, ERR_CONFIGURATION, "libfuse does not start: is /dev/fuse there and accessible?");
	if (fuse_session_mount(session->fs.fuse, config->mountpoint))
		return err_set(err, ERR_CONFIGURATION, "cannot mount on %s: %s", config->mountpoint, strerror(errno));
	lock_acquire(&session->lock);
	session->mounted = true;
	lock_release(&session->lock);
	kernel_set_readahead(config->mountpoint);
	invalidate_start(session->fs.invalidate, session->fs.fuse);
	return 0;
}

/* --- signals ---------------------------------------------------------------------------------------------------------
 */

/* Some libfuse frees the mountpoint's name as often as it is told. */
static void unmount_kernel(struct session *session)
{
	LOCK_GUARD(&session->lock);
	if (session->mounted)
		fuse_session_unmount(session->fs.fuse);
	session->mounted = false;
}

static void on_signal(struct session *session)
{
	const char *dir = session->fs.config->mountpoint;

	if (!atomic_load(&session->serving) || atomic_load(&session->served)) {
		atomic_store(&session->hurried, true);
		return;
	}
	log_info("session", "told to stop: unmounting %s", dir);
	fuse_session_exit(session->fs.fuse);
	/* The loop's threads wait for requests: the end of the mount wakes them. While a file is open only the end of
	 * the connection does: its user gets an error, what he wrote is kept. */
	if (umount2(dir, 0) == 0)
		return;
	if (errno == EPERM)
		unmount_kernel(session);
	else if (umount2(dir, MNT_FORCE | MNT_DETACH))
		log_warn("session", "cannot unmount %s: %s", dir, strerror(errno));
}

static void *watch_signals(void *arg)
{
	struct session *session = arg;
	struct pollfd wait[] = {{.fd = session->signal_fd, .events = POLLIN},
				{.fd = session->stop_watching, .events = POLLIN}};

	for (;;) {
		struct signalfd_siginfo info;

		if (poll(wait, ARRAY_SIZE(wait), -1) < 0 && errno != EINTR)
			return NULL; /* cannot be: both are ours */
		if (wait[1].revents)
			return NULL;
		if (read(session->signal_fd, &info, sizeof(info)) == sizeof(info))
			on_signal(session);
	}
}

/* Before any other thread: all inherit the mask. */
static int take_signals(struct session *session, struct err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write, not the end of the mount */
	(void)signal(SIGIO, SIG_IGN);   /* a lease that backing.c holds for an instant may be broken */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		return err_set(err, ERR_INTERNAL, "cannot block signals");
	session->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	session->stop_watching = eventfd(0, EFD_CLOEXEC);
	if (session->signal_fd < 0 || session->stop_watching < 0 ||
	    pthread_create(&session->signal_thread, NULL, watch_signals, session))
		return err_from_errno(err, errno, "cannot watch signals");
	session->signals_watched = true;
	return 0;
}

/* --- life
 * --------------------------------------------------------------------------------------------------------------- */

static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* the old limit is only smaller */
	}
}

static int was_interrupted(const struct session *session, int result, struct err *err)
{
	return atomic_load(&session->hurried) ? err_set(err, ERR_CANCELLED, "interrupted") : result;
}

/* Everything but the kernel. */
static int bring_up(struct session *session, struct err *err)
{
	const struct config *config = session->fs.config;
	AUTO_FREE char *state = NULL;
	bool is_new = false;
	int result;

	killpoint_setup();
	raise_descriptor_limit();
	lock_init(&session->lock, LOCK_SESSION);
	lock_init(&session->fs.handles_lock, LOCK_HANDLE);
	list_init(&session->fs.files);
	list_init(&session->fs.dirs);
	session->signal_fd = session->stop_watching = -1;
	session->started_wall = clock_wall();
	result = take_signals(session, err);
	if (!result)
		result = make_dir(config->state_dir, NULL, &state, err);
	if (!result)
		result = make_dir(config->state_dir, "tmp", &session->tmp_dir, err);
	if (!result && invalidate_new(&session->fs.invalidate))
		result = err_set(err, ERR_NO_MEMORY, "out of memory");
	if (!result)
		result = open_catalog(session, config, &is_new, err);
	if (!result && session->rebuilding && !is_new)
		result = err_set(err, ERR_CONFLICT,
				 "state directory %s has a catalog already: name another, or remove it",
				 config->state_dir);
	if (!result)
		result = open_store(session, config, err);
	if (!result)
		result = claim_store(session, is_new, err);
	if (!result && session->fs.lease && lease_was_foreign(session->fs.lease))
		result = begin_anew(session, err);
	if (!result)
		result = open_upper(session, err);
	return was_interrupted(session, result, err);
}

int session_open(const struct config *config, struct session **ret_session, struct err *err)
{
	struct session *session = calloc(1, sizeof(*session));
	int result;

	if (!session)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	session->fs.config = config;
	result = bring_up(session, err);
	if (!result)
		result = mount_kernel(session, err);
	if (!result) {
		atomic_store(&session->serving, true);
		result = was_interrupted(session, 0, err);
	}
	if (result) {
		session_close(session);
		return result;
	}
	*ret_session = session;
	return 0;
}

static void say_left(struct session *session, const char *why)
{
	struct session_pending left;

	session_pending(session, &left);
	log_warn("session",
		 "%" PRIu64 " changes (%" PRIu64
		 " bytes) are not in the store yet; they stay in %s for the next mount%s%s",
		 left.jobs, left.bytes, session->fs.config->state_dir, why[0] ? ": " : "", why);
}

/* Until nothing is left, nothing moves any more, or a signal says that what is left may stay in the journal. */
static int drain(struct session *session)
{
	struct writeback_figures figures;
	int result;

	writeback_hurry(session->fs.writeback);
	result = writeback_drain(session->fs.writeback, DRAIN_PATIENCE_NS, &session->hurried);
	writeback_figures(session->fs.writeback, &figures);
	if (result == -EIO)
		log_warn("session", "the store refuses what is left: %s", figures.last_error);
	if (result)
		say_left(session, result == -EIO || atomic_load(&session->hurried) ? "" : figures.last_error);
	return result;
}

static int finish(struct session *session)
{
	struct call call = {.cancelled = &session->hurried};
	struct err error = {0};
	int result;

	if (session->fs.config->read_only)
		return 0;
	result = drain(session);
	if (result || !session->fs.ship)
		return result;
	call.deadline_ns = clock_monotonic() + DRAIN_PATIENCE_NS;
	result = ship_finish(session->fs.ship, &call, &error);
	if (result)
		say_left(session, error.message);
	return result;
}

int session_rebuild(const struct config *config, const struct session_rebuild *request,
		    struct crawl_figures *ret_figures, struct err *err)
{
	struct session *session = calloc(1, sizeof(*session));
	struct call call = {0};
	struct crawl crawl = {.progress = request->progress, .arg = request->arg};
	int result;

	if (!session)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	session->fs.config = config;
	session->rebuilding = true;
	call.cancelled = &session->hurried;
	result = bring_up(session, err);
	crawl.catalog = session->fs.catalog;
	crawl.reconcile = session->fs.reconcile;
	if (!result)
		result = was_interrupted(session, crawl_all(&crawl, &call, ret_figures, err), err);
	if (!result && end_rebuild(session))
		result = err_set(err, ERR_INTERNAL, "cannot write the catalog");
	if (!result && finish(session))
		result = err_set(err, ERR_UNAVAILABLE,
				 "the store does not take what the rebuild made right; the next mount does");
	session_close(session);
	return result;
}

int session_run(struct session *session)
{
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	int result;

	if (!loop)
		return -ENOMEM;
	kernel_configure_loop(loop);
	result = fuse_session_loop_mt(session->fs.fuse, loop);
	fuse_loop_cfg_destroy(loop);
	if (result < 0)
		log_error("session", "serving the kernel ended: %s", strerror(-result));
	atomic_store(&session->served, true);
	invalidate_stop(session->fs.invalidate);
	unmount_kernel(session);
	/* An unmount drops requests under way, releases too: what they owed is paid here. */
	if (!session->fs.config->read_only)
		contents_commit_all(session->fs.contents);
	return finish(session);
}

void session_close(struct session *session)
{
	struct call call = {0};
	struct fs *fs;

	if (!session)
		return;
	fs = &session->fs;
	unmount_kernel(session);
	if (session->fs.invalidate)
		invalidate_stop(session->fs.invalidate);
	if (session->signals_watched) {
		(void)eventfd_write(session->stop_watching, 1); /* a first write cannot block or fail */
		(void)pthread_join(session->signal_thread, NULL);
	}
	if (fs->fuse)
		fuse_session_destroy(fs->fuse); /* drops the nodes the kernel still knew */
	ops_data_abandon(fs);
	ops_dir_abandon(fs);
	versions_free(fs->versions);
	sweep_free(session->sweep);
	ship_free(fs->ship);
	if (fs->contents)
		contents_cancel(fs->contents);
	reconcile_stop(fs->reconcile);
	writeback_free(fs->writeback);
	if (fs->lease) {
		call.deadline_ns = clock_monotonic() + RELEASE_PATIENCE_NS;
		lease_release(fs->lease, &call);
		lease_free(fs->lease);
	}
	transfer_free(fs->transfer);
	prefetch_free(fs->prefetch);
	reconcile_free(fs->reconcile); /* jobs and fetches may have asked it until now */
	contents_free(fs->contents);
	catalog_close(fs->catalog);
	if (session->backend)
		backend_ops(session->backend)->close(session->backend);
	invalidate_free(session->fs.invalidate);
	if (session->signal_fd >= 0)
		(void)close(session->signal_fd);
	if (session->stop_watching >= 0)
		(void)close(session->stop_watching);
	free(session->tmp_dir);
	free(session);
}

/* --- what the CLI asks
 * ------------------------------------------------------------------------------------------------------- */

/* The journal's jobs, and what is closed but has none yet. */
static void pending_figures(struct session *session, struct writeback_figures *ret_figures)
{
	/* Counted first: what becomes a job in between is seen as one. */
	uint64_t unsettled = contents_unsettled(session->fs.contents);

	writeback_figures(session->fs.writeback, ret_figures);
	ret_figures->jobs += unsettled;
}

void session_pending(struct session *session, struct session_pending *ret_pending)
{
	struct writeback_figures figures;

	pending_figures(session, &figures);
	*ret_pending = (struct session_pending){.jobs = figures.jobs, .bytes = figures.bytes, .failed = figures.failed};
	memcpy(ret_pending->last_error, figures.last_error, sizeof(ret_pending->last_error));
}

int session_prune(struct session *session, const struct prune_request *request, struct prune **ret_prune)
{
	if (session->fs.config->read_only && !request->dry_run)
		return -EROFS;
	return prune_new(session->fs.catalog, request, ret_prune);
}

int session_protect(struct session *session, const struct cat_protection *request)
{
	return session->fs.config->read_only ? -EROFS : catalog_protect(session->fs.catalog, request);
}

bool session_store_locks(struct session *session)
{
	return transfer_can(session->fs.transfer, BACKEND_LOCK);
}

void session_sweep(struct session *session)
{
	sweep_hurry(session->sweep);
}

void session_hurry(struct session *session)
{
	writeback_hurry(session->fs.writeback);
}

static json_t *store_json(struct session *session)
{
	struct transfer_figures figures;

	transfer_figures(session->fs.transfer, &figures);
	return json_pack("{s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:s}", "description",
			 transfer_description(session->fs.transfer), "online", figures.online, "versions",
			 transfer_can(session->fs.transfer, BACKEND_VERSIONS), "requests", (json_int_t)figures.requests,
			 "heads", (json_int_t)figures.heads, "gets", (json_int_t)figures.gets, "lists",
			 (json_int_t)figures.lists, "bytes_sent", (json_int_t)figures.bytes_sent, "bytes_received",
			 (json_int_t)figures.bytes_received, "errors", (json_int_t)figures.errors, "retries",
			 (json_int_t)figures.retries, "queued", (int)figures.queued, "running", (int)figures.running,
			 "last_error", figures.last_error);
}

static json_t *writeback_json(struct session *session)
{
	struct writeback_figures figures;

	pending_figures(session, &figures);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "pending", (json_int_t)figures.jobs, "bytes",
			 (json_int_t)figures.bytes, "running", (json_int_t)figures.running, "failed",
			 (json_int_t)figures.failed, "done", (json_int_t)figures.done, "conflicts",
			 (json_int_t)figures.conflicts, "last_error", figures.last_error);
}

static json_t *cache_json(struct session *session)
{
	struct cache_figures figures;

	cache_figures(contents_cache(session->fs.contents), &figures);
	return json_pack("{s:I, s:I, s:I, s:I}", "used", (json_int_t)figures.used, "limit", (json_int_t)figures.limit,
			 "files", (json_int_t)figures.files, "evicted", (json_int_t)figures.evicted);
}

static json_t *catalog_json(struct session *session)
{
	struct ship_figures ship = {0};
	struct cat_figures figures;

	catalog_figures(session->fs.catalog, &figures);
	if (session->fs.ship)
		ship_figures(session->fs.ship, &ship);
	return json_pack("{s:I, s:I, s:I, s:I, s:s}", "updates", (json_int_t)figures.updates, "map_bytes",
			 (json_int_t)figures.map_bytes, "log_bytes", (json_int_t)figures.log_bytes, "shipped",
			 (json_int_t)ship.shipped, "ship_error", ship.last_error);
}

static json_t *others_json(struct session *session)
{
	struct reconcile_figures reconcile;
	struct sweep_figures sweep;

	reconcile_figures(session->fs.reconcile, &reconcile);
	sweep_figures(session->sweep, &sweep);
	return json_pack("{s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:s}", "sweeps", (json_int_t)sweep.passes, "sweeping",
			 sweep.running, "broken_off", (json_int_t)sweep.broken_off, "seen", (json_int_t)sweep.seen,
			 "listed", (json_int_t)sweep.listed, "found", (json_int_t)sweep.found, "expired",
			 (json_int_t)reconcile.expired, "last_error", sweep.last_error);
}

static json_t *lease_json(struct session *session)
{
	struct lease_figures figures = {0};

	if (!session->fs.lease)
		return json_null();
	lease_figures(session->fs.lease, &figures);
	return json_pack("{s:I, s:b, s:b, s:s, s:s}", "epoch", (json_int_t)figures.epoch, "held",
			 lease_may_write(session->fs.lease), "lost", figures.lost, "guarantee",
			 figures.guarantee == LEASE_CONDITIONAL ? "conditional" : "weak", "last_error",
			 figures.last_error);
}

void session_status_json(struct session *session, struct buf *ret_json)
{
	const struct config *config = session->fs.config;
	json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:i, s:b, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "version",
				 VARVE_VERSION, "url", config->url, "mountpoint", config->mountpoint, "state_dir",
				 config->state_dir, "pid", (int)getpid(), "read_only", config->read_only,
				 "uptime_seconds", (json_int_t)((clock_wall() - session->started_wall) / NS_PER_SEC),
				 "store", store_json(session), "writeback", writeback_json(session), "cache",
				 cache_json(session), "catalog", catalog_json(session), "lease", lease_json(session),
				 "others", others_json(session));
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	buf_adds(ret_json, text ? text : "{}");
	free(text);
	json_decref(root);
}
