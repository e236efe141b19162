/*
 * network.h - what stands between varve and its store in a test: a proxy that cuts and slows (toxiproxy, started by
 * tests/run), an S3 server that lies (fake_s3.py), and a second S3 client (s3.py).
 *
 * Functions fail the running test where it could not go on.
 */
#ifndef VARVE_TESTS_NETWORK_H
#define VARVE_TESTS_NETWORK_H

#include <stdbool.h>
#include <sys/types.h>

#include "support/mounted.h"

struct proxy {
	char name[64];
	char endpoint[64]; /* to be mounted instead of VARVE_TEST_S3_ENDPOINT */
};

void proxy_new(struct proxy *proxy);
void proxy_free(struct proxy *proxy);
void proxy_cut(const struct proxy *proxy); /* connections break, new ones are refused */
void proxy_restore(const struct proxy *proxy);
/* On what comes from the store. `attributes` as in toxiproxy's JSON: "\"latency\":200". */
void proxy_toxic(const struct proxy *proxy, const char *type, const char *attributes);
/* What goes to the store, at so many KB a second. */
void proxy_slow_down(const struct proxy *proxy, unsigned rate);
void proxy_clear(struct proxy *proxy); /* takes all toxics away, and cuts the connections there are */

struct fake_s3 {
	char dir[256];
	char endpoint[64];
	pid_t pid;
};

/* From now on VARVE_TEST_S3_ENDPOINT is this server, for mounts and s3.py. */
void fake_s3_start(struct fake_s3 *fake);
void fake_s3_stop(struct fake_s3 *fake);
/* See fake_s3.py; the key percent-encoded, NULL for lies about listings. */
void fake_s3_lie(const struct fake_s3 *fake, const char *kind, const char *key);
void fake_s3_truth(const struct fake_s3 *fake);
/* "honoured", "ignored" or "refused" */
void fake_s3_conditions(const struct fake_s3 *fake, const char *how);
void fake_s3_fill(const struct fake_s3 *fake, const char *prefix, unsigned count);

/* s3.py on the mount's bucket. `words`: a shell word for each argument, and redirections. */
void s3_do(const struct mounted *mounted, const char *words);
/* The same; what it printed, malloc'd, without the last newline. */
char *s3_ask(const struct mounted *mounted, const char *words);

/* Milliseconds, monotonic. */
long now_ms(void);

#endif
