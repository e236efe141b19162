/*
 * limits.c - what -o max_upload_rate, max_download_rate and max_requests ask for holds between the mount and its store.
 * Time is judged from below only: nothing can be faster than its limit.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

#define SIZE (1u << 20)
#define COUNT 4
/* What was asked for last is paid for after it, and a quarter of a second's worth is saved up. */
#define LEAST_MS ((COUNT - 1) * 1000 - 250)

static struct mounted m;
static struct proxy proxy;
static char bytes[SIZE];

static void leave(void)
{
	if (m.pid)
		cr_assert_eq(mounted_stop(&m), 0);
	mounted_free(&m);
	if (proxy.name[0])
		proxy_free(&proxy);
}

TestSuite(limits, .fini = leave, .timeout = 120);

static const char *file_at(int i)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "f%d", i);
	return mounted_path(&m, name);
}

static void both_ways(enum mounted_store store)
{
	long began;

	fill_random(bytes, SIZE, 1);
	mounted_new(&m, store);
	mounted_start(&m, "max_upload_rate=1M");
	began = now_ms();
	for (int i = 0; i < COUNT; i++)
		file_write(file_at(i), bytes, SIZE);
	mounted_settle(&m, 60);
	cr_assert_geq(now_ms() - began, LEAST_MS, "faster up than allowed");
	cr_assert_eq(mounted_stop(&m), 0);
	cr_assert_eq(mounted_shell(&m, "rm -rf \"$STATE\"", NULL, 0), 0);
	mounted_start(&m, "max_download_rate=1M");
	began = now_ms();
	for (int i = 0; i < COUNT; i++)
		cr_assert(file_is(file_at(i), bytes, SIZE));
	cr_assert_geq(now_ms() - began, LEAST_MS, "faster down than allowed");
}

Test(limits, bytes_to_and_from_a_bucket_have_their_rate)
{
	both_ways(MOUNTED_S3);
}

Test(limits, bytes_to_and_from_a_directory_have_their_rate)
{
	both_ways(MOUNTED_LOCAL);
}

#define FILES 12
#define DELAY_MS 100

/* One after the other each waits for the way there and back. */
static long time_to_store(const char *more)
{
	char options[200];
	long began;

	(void)snprintf(options, sizeof(options), "endpoint=%s%s", proxy.endpoint, more);
	mounted_start(&m, options);
	began = now_ms();
	for (int i = 0; i < FILES; i++)
		file_puts(file_at(i), options);
	mounted_settle(&m, 60);
	began = now_ms() - began;
	cr_assert_eq(mounted_stop(&m), 0);
	return began;
}

Test(limits, requests_at_once_are_no_more_than_allowed)
{
	long one_by_one;

	proxy_new(&proxy);
	proxy_toxic(&proxy, "latency", "\"latency\":100"); /* DELAY_MS */
	mounted_new(&m, MOUNTED_S3);
	one_by_one = time_to_store(",max_requests=1");
	cr_assert_geq(one_by_one, (long)FILES * DELAY_MS);
	cr_assert_lt(time_to_store(""), one_by_one, "without a limit it takes as long");
}
