/*
 * runner.c - runs the tests of a program one after the other, each in a fork.
 *
 * Invariant: the parent never has a second thread, so that the fork is clean.
 * A report of ThreadSanitizer makes the test's process exit with its own
 * status, and thereby fail.
 */
#include "criterion/criterion.h"

#include <sys/wait.h>
#include <unistd.h>

enum exit_status { EXIT_PASSED = 0, EXIT_FAILED = 1 };

static struct runner_entry *first;
static struct runner_entry **last = &first;
static int failures; /* atomic: threads of a test may assert too */

void runner_register(struct runner_entry *entry)
{
	*last = entry;
	last = &entry->next;
}

void runner_fail(const char *file, int line, const char *what, const char *format, ...)
{
	va_list args;

	__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	(void)fprintf(stderr, "%s:%d: Assertion failed: %s:", file, line, what);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputc('\n', stderr);
}

_Noreturn void runner_stop(void)
{
	exit(EXIT_FAILED);
}

_Noreturn void runner_skip(void)
{
	(void)fputc('\n', stderr);
	exit(EXIT_PASSED);
}

static const struct runner_options *suite_options(const char *suite)
{
	static const struct runner_options none;

	for (const struct runner_entry *entry = first; entry; entry = entry->next)
		if (!entry->name && strcmp(entry->suite, suite) == 0)
			return &entry->options;
	return &none;
}

static _Noreturn void run_in_child(const struct runner_entry *test, void *value)
{
	const struct runner_options *suite = suite_options(test->suite);
	void (*init)(void) = test->options.init ? test->options.init : suite->init;
	void (*fini)(void) = test->options.fini ? test->options.fini : suite->fini;
	double timeout = test->options.timeout > 0 ? test->options.timeout : suite->timeout;

	if (timeout > 0)
		(void)alarm((unsigned int)timeout + 1); /* no earlier alarm to care about */
	if (init)
		init();
	if (value)
		((void (*)(void *))test->run)(value);
	else
		test->run();
	if (fini)
		fini();
	exit(failures ? EXIT_FAILED : EXIT_PASSED);
}

enum outcome { PASSED, FAILED, CRASHED };

static enum outcome run(const struct runner_entry *test, void *value)
{
	int status;
	pid_t child;

	(void)fflush(NULL); /* what is buffered must not be written twice */
	child = fork();
	if (child == 0)
		run_in_child(test, value);
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("fork");
		return CRASHED;
	}
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == test->options.signal ? PASSED : CRASHED;
	if (test->options.signal)
		return FAILED;
	return WEXITSTATUS(status) == test->options.exit_code ? PASSED : FAILED;
}

static void count(const struct runner_entry *test, void *value, int counts[static 3])
{
	static const char *const words[] = {[PASSED] = "PASS", [FAILED] = "FAIL", [CRASHED] = "CRASH"};
	enum outcome outcome = run(test, value);

	counts[outcome]++;
	if (outcome != PASSED)
		(void)fprintf(stderr, "[%s] %s::%s\n", words[outcome], test->suite, test->name);
}

int main(void)
{
	int counts[3] = {0};

	for (const struct runner_entry *test = first; test; test = test->next) {
		struct runner_values values = {0};

		if (test->values)
			values = test->values();
		else if (test->name)
			count(test, NULL, counts);
		for (size_t i = 0; i < values.count; i++)
			count(test, (char *)values.first + i * values.size, counts);
	}
	(void)fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d\n",
		      counts[PASSED] + counts[FAILED] + counts[CRASHED], counts[PASSED], counts[FAILED],
		      counts[CRASHED]);
	return counts[FAILED] || counts[CRASHED];
}
