/*
 * kernel.h - what is asked of the kernel's side of FUSE when it is mounted.
 *
 * Each request can be taken back by a word in VARVE_KERNEL (bench/kernel.sh measures them one by one):
 *
 *	no-passthrough  no-splice  no-readdirplus  no-parallel-dirops  no-big-requests  no-readahead  no-killpriv-v2
 *	no-keep-cache  no-clone-fd  no-uncached-writes        and, off unless asked for: writeback-cache
 *
 * Read once; constant from then on. The null filesystem of tools/bench asks by the same functions.
 */
#ifndef VARVE_FS_KERNEL_H
#define VARVE_FS_KERNEL_H

#include <stdbool.h>

struct fuse_conn_info;
struct fuse_loop_config;

enum kernel_wish {
	KERNEL_PASSTHROUGH,
	KERNEL_SPLICE,
	KERNEL_READDIRPLUS,
	KERNEL_PARALLEL_DIROPS,
	KERNEL_BIG_REQUESTS,
	KERNEL_READAHEAD,
	KERNEL_KILLPRIV_V2,
	KERNEL_KEEP_CACHE,
	KERNEL_CLONE_FD,
	KERNEL_UNCACHED_WRITES,
	KERNEL_WRITEBACK_CACHE,
	KERNEL_WISHES
};

/* Is it wished for? Whether the kernel and libfuse can do it is another question. */
bool kernel_wants(enum kernel_wish wish);

/* What the two sides agreed on, as far as operations must know. */
struct kernel_agreed {
	bool passthrough;
	bool killpriv;        /* we take setuid and setgid away where a write, a truncation or a chown does */
	bool uncached_writes; /* BACKING_UNCACHED in fs/backing.h */
};

/* Whether what is written past the page cache also drops what others read into it meanwhile: before Linux 6.19, and
 * what of it was brought to 6.18.3, 6.12.65 and 6.6.120 ("fuse: Invalidate the page cache after FOPEN_DIRECT_IO
 * write"), who reads beside such a writer may be shown the old bytes for ever. `release` is uname's. */
bool kernel_drops_what_is_written(const char *release);

/* For init of the low-level operations. */
struct kernel_agreed kernel_negotiate(struct fuse_conn_info *conn);

/* Threads that serve. */
void kernel_configure_loop(struct fuse_loop_config *loop);

/* After the mount; only root may, and otherwise it stays as it is. */
void kernel_set_readahead(const char *mountpoint);

#endif
