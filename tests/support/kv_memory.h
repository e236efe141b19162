/*
 * kv_memory.h - switches of the in-memory twin of kv.h (kv_memory.c).
 *
 * A test that wants the twin includes "support/kv_memory.c" itself: the symbols
 * of kv.h are then defined in the test and the linker takes no engine from
 * libcatalog.a.
 */
#ifndef VARVE_TESTS_KV_MEMORY_H
#define VARVE_TESTS_KV_MEMORY_H

/* The nth (from 0) of the coming kv_get, kv_put, kv_delete and kv_scan calls, and only it, gives -EIO. -1: none. */
void kv_memory_fail_at(long nth);
/* Did that call come? */
int kv_memory_failed(void);
/* Forgets the store of every directory; none may be open. */
void kv_memory_reset(void);

#endif
