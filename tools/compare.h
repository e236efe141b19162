/*
 * compare.h - do two files, past or live, hold the same bytes? By what is known of them first.
 */
#ifndef VARVE_TOOLS_COMPARE_H
#define VARVE_TOOLS_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Descriptors of regular files, O_PATH too; -1 is an empty one. 1, 0 or -errno. */
int compare_files(int a, int b);
/* Are both known to differ, or to be the same, without reading either? 1 the same, 0 different, -EAGAIN not known. */
int compare_known(int a, int b);
/* Are the recorded checksums there and equal, and do they stand for what the files hold? */
bool compare_checksums(int a, int b);

/* As pread, until `size` or the end. fd -1: nothing. */
ssize_t compare_read(int fd, void *ret_bytes, size_t size, off_t at);

#endif
