/* Unit tests of base/log.c: what arrives on stderr. */
#include "log.h"
#include "buf.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static int pipe_fds[2];
static int saved_stderr;

static void capture(void)
{
	cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	cr_assert_eq(dup2(pipe_fds[1], STDERR_FILENO), STDERR_FILENO);
}

/* What was written to stderr since capture(); stderr is the old one after. */
static void captured(char *ret_text, size_t size)
{
	ssize_t got;

	dup2(saved_stderr, STDERR_FILENO);
	got = read(pipe_fds[0], ret_text, size - 1);
	ret_text[got > 0 ? got : 0] = '\0';
}

Test(log, a_line_says_level_module_and_text)
{
	char text[4096];

	capture();
	log_error("cache", "lost %d of %s", 3, "x");
	log_warn("cache", "w");
	log_info("cache", "i");
	captured(text, sizeof(text));
	cr_assert_str_eq(text, "varve: error: cache: lost 3 of x\nvarve: warning: cache: w\nvarve: info: cache: i\n");
}

Test(log, what_is_above_the_level_is_left_out)
{
	char text[4096];

	log_setup(LOG_LEVEL_WARN, LOG_SINK_STDERR);
	cr_assert_eq(log_level(), LOG_LEVEL_WARN);
	capture();
	log_info("m", "no");
	log_debug("m", "no");
	log_warn("m", "yes");
	captured(text, sizeof(text));
	cr_assert_str_eq(text, "varve: warning: m: yes\n");
}

static int evaluated;

static int evaluate(void)
{
	return ++evaluated;
}

Test(log, debug_evaluates_its_arguments_only_when_wanted)
{
	char text[4096];

	capture();
	log_debug("m", "%d", evaluate());
	cr_assert_eq(evaluated, 0);
	log_setup(LOG_LEVEL_DEBUG, LOG_SINK_STDERR);
	log_debug("m", "%d", evaluate());
	captured(text, sizeof(text));
	cr_assert_str_eq(text, "varve: debug: m: 1\n");
}

Test(log, errno_survives_and_can_be_printed)
{
	char text[4096];

	capture();
	errno = EACCES;
	log_error("m", "%m");
	cr_assert_eq(errno, EACCES);
	captured(text, sizeof(text));
	cr_assert_str_eq(text, "varve: error: m: Permission denied\n");
}

Test(log, control_bytes_cannot_forge_a_line)
{
	char text[4096];

	capture();
	log_info("m", "%s", "name\nvarve: error: forged\033[2J");
	captured(text, sizeof(text));
	cr_assert_str_eq(text, "varve: info: m: name?varve: error: forged?[2J\n");
}

Test(log, a_long_line_is_cut_and_still_ends)
{
	char text[4096];
	char name[3000];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	capture();
	log_info("m", "%s", name);
	captured(text, sizeof(text));
	cr_assert_gt(strlen(text), 1000);
	cr_assert_lt(strlen(text), 1200);
	cr_assert_eq(text[strlen(text) - 1], '\n');
}

#define THREADS 4
#define LINES 50

static void *log_many(void *letter)
{
	char text[101];

	memset(text, *(const char *)letter, 100);
	text[100] = '\0';
	for (int i = 0; i < LINES; i++)
		log_info("m", "%s", text);
	return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
	static char letters[THREADS] = {'a', 'b', 'c', 'd'};
	static char text[65536];
	pthread_t threads[THREADS];
	int lines = 0;

	capture();
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, log_many, &letters[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	captured(text, sizeof(text));
	for (char *at = text, *end; *at; at = end + 1, lines++) {
		end = strchr(at, '\n');
		cr_assert_not_null(end);
		cr_assert_eq(end - at, (ptrdiff_t)strlen("varve: info: m: ") + 100);
		for (char *c = end - 100; c < end; c++)
			cr_assert_eq(*c, end[-1]);
	}
	cr_assert_eq(lines, THREADS * LINES);
}
