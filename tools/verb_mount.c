/*
 * verb_mount.c - `varve mount`: from words to a directory that is ready, and the life of the daemon behind it.
 *
 * Without -f the work is done by a child that lives on. A pipe tells the parent
 * how it went: one byte READY, or the line to complain with; closed without a
 * word means that the child died. Threads start in the child only, after fork.
 *
 * The child keeps stderr until the directory is ready, so that what libraries
 * and fusermount3 complain about reaches somebody; its own log goes to syslog.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fs/config.h"
#include "fs/control.h"
#include "fs/session.h"
#include "log.h"
#include "tools/cli.h"

#define READY '\0'       /* begins no complaint */
#define HELPER_FAILED 32 /* mount(8): "mount failure" */
#define HELPER_USAGE 1   /* mount(8): "incorrect invocation or permissions" */

static const char help_start[] = "varve mount URL DIR [-o OPTION,…] [-f]\n"
				 "\n"
				 "Mounts the store at URL (s3://BUCKET/PREFIX, file:///DIR) on the directory DIR.\n"
				 "Returns when DIR is ready; with -f it stays in front and logs to stderr.\n"
				 "\n";

/* Memory of this process holds keys: it is not for core dumps. */
static void protect(void)
{
#ifndef __SANITIZE_ADDRESS__ /* whose leak checker traces its own process */
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		log_warn("mount", "cannot forbid core dumps: %m");
#endif
	(void)umask(077); /* what we create is state; modes of files in the mount come with each request */
}

/* To an end that is told to whoever waits for it. `told` is called once the directory is ready. */
static int serve(const struct config *config, void (*told)(void *arg), void *arg, struct err *err)
{
	struct session_pending left = {0};
	struct control *control = NULL;
	struct session *session = NULL;
	int rc, stopped;

	protect();
	rc = session_open(config, &session, err);
	if (rc < 0)
		return rc;
	rc = control_start(session, config->mountpoint, &control, err);
	if (rc < 0) {
		session_close(session);
		return rc;
	}
	told(arg);
	stopped = session_run(session);
	session_pending(session, &left);
	control_detach(control);
	session_close(session);
	control_stop(control, &left);
	if (stopped != 0)
		log_warn("mount", "%s: ended with %llu jobs in the journal; the next mount goes on with them",
			 config->mountpoint, (unsigned long long)left.jobs);
	return stopped;
}

static void tell_nobody(void *arg)
{
	const struct config *config = arg;

	log_info("mount", "%s is mounted on %s", config->url, config->mountpoint);
}

static int foreground(struct config *config)
{
	struct err err = {0};
	int rc;

	log_setup(config->log_level, LOG_SINK_STDERR);
	rc = serve(config, tell_nobody, config, &err);
	if (rc < 0 && err.message[0])
		return cli_fail("%s", err.message);
	return rc == 0 ? 0 : CLI_FAILED;
}

/* --- the daemon -------------------------------------------------------------------------------- */

static void write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno != EINTR)
			return; /* the parent is gone: nobody is left to tell */
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
}

static void detach_stdio(void)
{
	AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		(void)dup2(null, fd); /* of two valid descriptors */
}

static void tell_parent(void *arg)
{
	int *pipe_end = arg;
	const char ready = READY;

	(void)prctl(PR_SET_PDEATHSIG, 0); /* from here on we live without it */
	detach_stdio();
	write_all(*pipe_end, &ready, 1);
	(void)close(*pipe_end); /* a pipe: what was written has arrived */
	*pipe_end = -1;
}

static int daemon_main(const struct config *config, int pipe_end, pid_t parent)
{
	struct err err = {0};
	int rc;

	/* Whoever breaks off the command means the mount, too. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return CLI_FAILED;
	if (setsid() < 0 || chdir("/") < 0) {
		(void)err_from_errno(&err, errno, "cannot become a daemon"); /* returned as text */
		write_all(pipe_end, err.message, strlen(err.message));
		return CLI_FAILED;
	}
	(void)signal(SIGPIPE, SIG_IGN); /* the parent may be gone when we tell it */
	log_setup(config->log_level, LOG_SINK_SYSLOG);
	rc = serve(config, tell_parent, &pipe_end, &err);
	if (rc < 0 && pipe_end >= 0) {
		if (!err.message[0])
			(void)err_from_errno(&err, -rc, "mount"); /* returned as text */
		write_all(pipe_end, err.message, strlen(err.message));
	}
	return rc == 0 ? 0 : CLI_FAILED;
}

static int wait_until_ready(pid_t child, int pipe_end)
{
	char text[sizeof(((struct err *)NULL)->message) + 1];
	size_t len = 0;
	ssize_t n;
	int status = 0;

	while (len < sizeof(text) - 1) {
		n = read(pipe_end, text + len, sizeof(text) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	if (len > 0 && text[0] == READY)
		return 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (len > 0)
		return cli_fail("%s", text);
	if (WIFSIGNALED(status))
		return cli_fail("the daemon was killed by signal %d while it mounted", WTERMSIG(status));
	return cli_fail("the daemon ended while it mounted");
}

static int background(struct config *config)
{
	pid_t parent = getpid(), child;
	int ends[2], rc;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return cli_fail("pipe: %s", strerror(errno));
	(void)fflush(NULL); /* what stdio holds would be written twice */
	child = fork();
	if (child < 0) {
		rc = cli_fail("fork: %s", strerror(errno));
		(void)close(ends[0]); /* nothing went through them */
		(void)close(ends[1]);
		return rc;
	}
	if (child == 0) {
		(void)close(ends[0]); /* the parent's */
		rc = daemon_main(config, ends[1], parent);
		config_clear(config);
		exit(rc);
	}
	(void)close(ends[1]); /* the child's */
	rc = wait_until_ready(child, ends[0]);
	(void)close(ends[0]); /* read to the end */
	return rc;
}

/* --- the verb ---------------------------------------------------------------------------------- */

/* `usage` and `failed` are the exit statuses of this form. */
static int mount_as(enum config_form form, int argc, char **argv)
{
	const int usage = form == CONFIG_HELPER ? HELPER_USAGE : CLI_USAGE;
	const int failed = form == CONFIG_HELPER ? HELPER_FAILED : CLI_FAILED;
	struct config config;
	struct err err = {0};
	int rc;

	if (config_parse(argc, argv, form, &config, &err) < 0) {
		(void)cli_usage("mount", "%s", err.message);
		return usage;
	}
	if (config_check(&config, &err) < 0)
		rc = cli_fail("%s", err.message);
	else if (config.fake)
		rc = 0;
	else
		rc = config.foreground ? foreground(&config) : background(&config);
	config_clear(&config);
	return rc == 0 ? 0 : failed;
}

int verb_mount(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			(void)printf("%s%s", help_start, config_option_help());
			return fflush(stdout) == 0 ? 0 : CLI_FAILED;
		}
	}
	return mount_as(CONFIG_VERB, argc, argv);
}

int verb_mount_helper(int argc, char **argv)
{
	return mount_as(CONFIG_HELPER, argc, argv);
}
