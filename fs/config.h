/*
 * config.h - what one mount was asked to do: URL, directory and options, all of them checked.
 *
 * config_parse reads the words and touches nothing; config_check looks at this
 * machine (directories, mounts, who asks) and fills in what was left open.
 * After both a config is complete and never changes, so every thread may read it.
 */
#ifndef VARVE_FS_CONFIG_H
#define VARVE_FS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"
#include "log.h"

enum config_close { CONFIG_CLOSE_JOURNAL, CONFIG_CLOSE_STORE };
enum config_fsync { CONFIG_FSYNC_STORE, CONFIG_FSYNC_DISK };
enum config_snapdir { CONFIG_SNAPDIR_HIDDEN, CONFIG_SNAPDIR_VISIBLE, CONFIG_SNAPDIR_OFF };

struct config {
	char *url;        /* without trailing slashes */
	char *mountpoint; /* after config_check: absolute, without symbolic links */
	char *state_dir;  /* after config_check: absolute; holds catalog/ and cache/; need not exist yet */
	char *endpoint;   /* these three NULL when not given */
	char *region;
	char *profile;

	bool create;
	bool takeover; /* of the lease, from a living holder */
	bool read_only;
	bool allow_other;
	bool foreground;
	bool noexec;
	bool noatime;
	bool fake;       /* mount(8) -f: check everything, mount nothing */
	bool debug_fuse; /* libfuse's own trace of every request */
	enum log_level log_level;

	enum config_close close;
	enum config_fsync fsync;
	enum config_snapdir snapdir;
	char *snapdir_name;       /* NULL: ".versions" */
	int64_t fsync_timeout_ns; /* > 0: without progress for so long, fsync gives EIO */
	int64_t sweep_ns;         /* between passes over the whole store; 0: none */
	uint64_t cache_size;      /* bytes; 0: what the disk has, less the reserve */
	uint64_t reserve;         /* bytes of that disk always left free */
	uid_t uid;                /* owner and mode of what the store says nothing about */
	gid_t gid;
	mode_t umask;
	uint64_t max_upload_rate, max_download_rate; /* bytes a second; 0: no limit */
	unsigned max_requests;                       /* at once, of all kinds; 0: no limit */
	unsigned threads;                            /* requests to the store at once; 0: the transfer pool's default */
};

/* How the words are read: as `varve mount` or as mount(8) runs its helpers, where -f means fake. */
enum config_form { CONFIG_VERB, CONFIG_HELPER };

/* argv[0] is skipped. Permutes argv as getopt does, and uses getopt's globals. -EINVAL with one line in err. */
int config_parse(int argc, char **argv, enum config_form form, struct config *ret_config, struct err *err);

/* One list of options, "a=b,c": a comma or backslash in a value is written behind a backslash. Later ones win. */
int config_options(struct config *config, const char *list, struct err *err);

/* Makes the paths canonical, finds the default state directory, and refuses directories that cannot work. mountpoint
 * may be NULL: nothing is to be mounted. */
int config_check(struct config *config, struct err *err);

/* Every option at its default: what config_parse starts from. */
void config_init(struct config *config);
void config_clear(struct config *config);

/* "s3-bucket-prefix-1f2e3d4c": stable for a URL and endpoint, safe as one file name. */
void config_state_id(const char *url, const char *endpoint, struct buf *ret_id);

/* Where state directories lie by default, for the user `uid`: also the last resort for control sockets. */
int config_state_base(uid_t uid, struct buf *ret_dir);

/* The options and what each takes, one line each, for --help. */
const char *config_option_help(void);

#endif
