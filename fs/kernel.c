/* kernel.c - see kernel.h. Threads: any; the wishes are read before the first of them starts. */
#include "fs/kernel.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cleanup.h"
#include "fs/fs.h"

#define BIG_REQUEST (512u << 10)
#define SMALL_REQUEST (128u << 10)
#define MAX_BACKGROUND 64
#define MAX_THREADS 128
#define IDLE_THREADS 16

static const char *const names[KERNEL_WISHES] = {
	[KERNEL_PASSTHROUGH] = "passthrough",
	[KERNEL_SPLICE] = "splice",
	[KERNEL_READDIRPLUS] = "readdirplus",
	[KERNEL_PARALLEL_DIROPS] = "parallel-dirops",
	[KERNEL_BIG_REQUESTS] = "big-requests",
	[KERNEL_READAHEAD] = "readahead",
	[KERNEL_KILLPRIV_V2] = "killpriv-v2",
	[KERNEL_KEEP_CACHE] = "keep-cache",
	[KERNEL_CLONE_FD] = "clone-fd",
	[KERNEL_UNCACHED_WRITES] = "uncached-writes",
	[KERNEL_WRITEBACK_CACHE] = "writeback-cache",
};
static bool wished[KERNEL_WISHES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
		if (strncmp(at, word, len) == 0 && (at[len] == ',' || !at[len]))
			return true;
	return false;
}

static void read_wishes(void)
{
	const char *list = getenv("VARVE_KERNEL");

	for (int i = 0; i < KERNEL_WISHES; i++) {
		char no[32];

		(void)snprintf(no, sizeof(no), "no-%s", names[i]);
		wished[i] = i == KERNEL_WRITEBACK_CACHE ? listed(list, names[i]) : !listed(list, no);
	}
}

bool kernel_wants(enum kernel_wish wish)
{
	(void)pthread_once(&once, read_wishes); /* fails for a bad argument only */
	return wished[wish];
}

/* By `want` alone: libfuse 3.17 refuses a connection for which its successor was set as well. */
static bool want(struct fuse_conn_info *conn, enum kernel_wish wish, unsigned capability)
{
	unsigned can = kernel_wants(wish) ? conn->capable & capability : 0;

	conn->want = (conn->want & ~capability) | can;
	return can == capability;
}

bool kernel_drops_what_is_written(const char *release)
{
	static const unsigned repaired[][3] = {{6, 6, 120}, {6, 12, 65}, {6, 18, 3}};
	unsigned major = 0, minor = 0, patch = 0;

	if (sscanf(release, "%u.%u.%u", &major, &minor, &patch) < 2)
		return false;
	for (size_t i = 0; i < sizeof(repaired) / sizeof(repaired[0]); i++)
		if (major == repaired[i][0] && minor == repaired[i][1])
			return patch >= repaired[i][2];
	return major > 6 || (major == 6 && minor >= 19);
}

static bool drops_what_is_written(void)
{
	struct utsname name;

	return uname(&name) == 0 && kernel_drops_what_is_written(name.release);
}

struct kernel_agreed kernel_negotiate(struct fuse_conn_info *conn)
{
	struct kernel_agreed agreed = {0};

	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_EXPORT_SUPPORT |
				       FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA);
	/* The kernel's own guess by mtime would drop pages of a file each time it is changed here. Locks stay in the
	 * kernel: all who can lock are on this machine. */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
	(void)want(conn, KERNEL_PARALLEL_DIROPS, FUSE_CAP_PARALLEL_DIROPS);
	(void)want(conn, KERNEL_READDIRPLUS, FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
	(void)want(conn, KERNEL_SPLICE, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	(void)want(conn, KERNEL_WRITEBACK_CACHE, FUSE_CAP_WRITEBACK_CACHE);
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	/* Without it the kernel asks for security.capability before every single write. */
	agreed.killpriv = want(conn, KERNEL_KILLPRIV_V2, FUSE_CAP_HANDLE_KILLPRIV_V2);
#endif
#ifdef FUSE_CAP_PASSTHROUGH
	/* The two exclude each other. */
	agreed.passthrough =
		!(conn->want & FUSE_CAP_WRITEBACK_CACHE) && want(conn, KERNEL_PASSTHROUGH, FUSE_CAP_PASSTHROUGH);
#endif
	/* The writeback cache is there to gather what is written. */
	agreed.uncached_writes = kernel_wants(KERNEL_UNCACHED_WRITES) && !(conn->want & FUSE_CAP_WRITEBACK_CACHE) &&
				 drops_what_is_written();
	conn->max_write = kernel_wants(KERNEL_BIG_REQUESTS) ? BIG_REQUEST : SMALL_REQUEST;
	conn->max_readahead = BIG_REQUEST;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
	return agreed;
}

void kernel_configure_loop(struct fuse_loop_config *loop)
{
	fuse_loop_cfg_set_clone_fd(loop, kernel_wants(KERNEL_CLONE_FD));
	fuse_loop_cfg_set_max_threads(loop, MAX_THREADS);
	fuse_loop_cfg_set_idle_threads(loop, IDLE_THREADS);
}

/* The answer to INIT can only make the readahead smaller than the kernel's 128 KiB. Nobody serves the mount yet, so
 * its device number must come without a request. */
void kernel_set_readahead(const char *mountpoint)
{
	AUTO_CLOSE int fd = -1;
	struct statx st;
	char path[64];

	if (!kernel_wants(KERNEL_READAHEAD) || statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &st))
		return;
	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major, st.stx_dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1024", 4) < 0)
		return; /* slower reads are no reason not to mount */
}
