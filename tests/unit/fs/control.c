/*
 * The control socket, between a client as the CLI is one and a session that says what it is told.
 *
 * The fake session is compiled in here, so that the archive's real one is not
 * taken. As root the tests become somebody else first: root's sockets have a
 * fixed place, and that is the machine's.
 */
#include "fs/control.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "support/fake_session.c"

#define SOMEBODY 1234
#define SOMEBODY_ELSE 5678
#define PATIENCE_MS 10000
#define SLOTS 16 /* clients served at once */

static char top[] = "/tmp/varve-control-XXXXXX";
static char runtime[PATH_MAX];
static struct session *session;
static struct control *control;
static struct err err;
static struct mountinfo mount = {.mountpoint = "/varve/test/mountpoint"};

static void enter(void)
{
	cr_assert_not_null(mkdtemp(top));
	if (getuid() == 0) {
		cr_assert_eq(chown(top, SOMEBODY, SOMEBODY), 0);
		cr_assert_eq(setresuid(SOMEBODY, SOMEBODY, SOMEBODY), 0);
	}
	mount.user = getuid();
	snprintf(runtime, sizeof(runtime), "%s/run", top);
	cr_assert_eq(mkdir(runtime, 0700), 0);
	setenv("XDG_RUNTIME_DIR", runtime, 1);
	setenv("XDG_STATE_HOME", top, 1);
	session = fake_session_new();
}

static void start(void)
{
	enter();
	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
}

static void clean(void)
{
	char command[PATH_MAX + 16];

	fake_session_free(session);
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	cr_assert_eq(system(command), 0);
}

static void stop(void)
{
	control_stop(control, &(struct session_pending){0});
	clean();
}

TestSuite(control, .init = start, .fini = stop, .timeout = 60);
TestSuite(control_places, .init = enter, .fini = clean, .timeout = 60);

static int connected(void)
{
	int fd, rc = control_connect(&mount, &fd);

	cr_assert_eq(rc, 0, "connect: %s", strerror(-rc));
	return fd;
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* One line without its newline; "" when the other side hung up. */
static const char *line_of(int fd)
{
	static char line[1 << 20];
	size_t len = 0;

	for (;;) {
		struct pollfd polled = {.fd = fd, .events = POLLIN};
		ssize_t n;

		cr_assert_eq(poll(&polled, 1, PATIENCE_MS), 1, "no answer");
		cr_assert_lt(len, sizeof(line) - 1);
		n = recv(fd, line + len, 1, 0);
		if (n <= 0) {
			cr_assert_eq(len, 0, "cut off");
			return "";
		}
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return line;
}

static const char *asked(int fd, const char *request)
{
	say(fd, request);
	return line_of(fd);
}

static void set_jobs(uint64_t jobs, uint64_t bytes)
{
	fake_session_set_pending(session, &(struct session_pending){.jobs = jobs, .bytes = bytes});
}

Test(control, status_is_one_line_however_it_is_laid_out)
{
	int fd = connected();

	fake_session_set_status(session, "{\n  \"a\": 1,\r\n  \"b\": \"x\\ny\"\n}\n");
	cr_assert_str_eq(asked(fd, "{\"op\":\"status\"}\n"), "{   \"a\": 1,    \"b\": \"x\\ny\" } ");
	close(fd);
}

Test(control, several_requests_may_come_at_once_or_in_pieces)
{
	int fd = connected();

	say(fd, "{\"op\":\"status\"}\n{\"op\":\"hurry\"}\n{\"op\":");
	cr_assert_str_eq(line_of(fd), "{}");
	cr_assert_str_eq(line_of(fd), "{\"ok\":true}");
	cr_assert_eq(fake_session_hurried(session), 1);
	cr_assert_str_eq(asked(fd, "\"status\"}\n"), "{}");
	close(fd);
}

Test(control, drain_tells_until_nothing_is_left)
{
	int fd = connected();

	fake_session_set_pending(
		session, &(struct session_pending){.jobs = 3, .bytes = 7, .failed = 1, .last_error = "denied: \"x\""});
	cr_assert_str_eq(asked(fd, "{\"op\":\"drain\"}\n"),
			 "{\"pending\":3,\"bytes\":7,\"failed\":1,\"error\":\"denied: \\\"x\\\"\"}");
	set_jobs(1, 5);
	cr_assert_str_eq(line_of(fd), "{\"pending\":1,\"bytes\":5,\"failed\":0}");
	cr_assert_str_eq(line_of(fd), "{\"pending\":1,\"bytes\":5,\"failed\":0}", "it keeps telling");
	set_jobs(0, 0);
	cr_assert_str_eq(line_of(fd), "{\"pending\":0,\"bytes\":0,\"failed\":0,\"done\":true}");
	cr_assert_str_eq(asked(fd, "{\"op\":\"status\"}\n"), "{}", "and can be asked again");
	close(fd);
}

Test(control, drain_of_nothing_is_done_at_once)
{
	int fd = connected();

	cr_assert_str_eq(asked(fd, "{\"op\":\"drain\"}\n"), "{\"pending\":0,\"bytes\":0,\"failed\":0,\"done\":true}");
	close(fd);
}

Test(control, figures_come_every_200_ms)
{
	int fd = connected();
	int64_t begun = clock_monotonic();

	set_jobs(1, 1);
	(void)asked(fd, "{\"op\":\"drain\"}\n");
	for (int i = 0; i < 5; i++)
		(void)line_of(fd);
	begun = clock_monotonic() - begun;
	cr_assert_geq(begun, 700 * NS_PER_MS);
	cr_assert_leq(begun, 5 * NS_PER_SEC);
	close(fd);
}

Test(control, words_of_a_store_that_are_not_utf8_do_not_spoil_the_figures)
{
	int fd = connected();

	fake_session_set_pending(session, &(struct session_pending){.jobs = 2, .last_error = "\xff\xfe"});
	cr_assert_str_eq(asked(fd, "{\"op\":\"drain\"}\n"), "{\"pending\":2,\"bytes\":0,\"failed\":0}");
	close(fd);
}

Test(control_places, finish_stays_until_the_very_end)
{
	int finisher, asker;

	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	finisher = connected();
	asker = connected();
	set_jobs(2, 9);
	cr_assert_str_eq(asked(asker, "{\"op\":\"status\"}\n"), "{}");
	cr_assert_str_eq(asked(finisher, "{\"op\":\"finish\"}\n"),
			 "{\"pending\":2,\"bytes\":9,\"failed\":0,\"ok\":true}");
	cr_assert_str_eq(line_of(finisher), "{\"pending\":2,\"bytes\":9,\"failed\":0}");
	control_detach(control);
	cr_assert_str_eq(line_of(asker), "", "who does not wait for the end is hung up on");
	cr_assert_eq(control_connect(&mount, &asker), -ENOENT, "the name is gone");
	control_stop(control, &(struct session_pending){0});
	while (strstr(line_of(finisher), "\"pending\":2"))
		;
	cr_assert_str_eq(line_of(finisher), "");
	close(finisher);
}

/* `umount` says it and unmounts at once, and a busy machine lets the end come first. */
Test(control_places, finish_is_heard_however_soon_the_end_comes)
{
	for (int i = 0; i < 200; i++) {
		bool done = false;
		int fd;

		cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
		fd = connected();
		(void)asked(fd, "{\"op\":\"status\"}\n");
		say(fd, "{\"op\":\"finish\"}\n");
		control_stop(control, &(struct session_pending){0});
		for (const char *line = line_of(fd); *line && !done; line = line_of(fd))
			done = strstr(line, "\"done\":true") != NULL;
		cr_assert(done, "the %dth time nothing was said", i);
		close(fd);
	}
}

Test(control_places, finish_says_truly_what_is_left)
{
	static const char done[] = "{\"pending\":0,\"bytes\":0,\"failed\":0,\"done\":true}";
	static const char left[] = "{\"pending\":4,\"bytes\":8,\"failed\":0,\"done\":false}";

	for (int i = 0; i < 2; i++) {
		struct session_pending pending = {.jobs = i ? 4 : 0, .bytes = i ? 8 : 0};
		const char *line;
		int fd;

		cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
		fd = connected();
		cr_assert(strstr(asked(fd, "{\"op\":\"finish\"}\n"), "\"ok\":true"));
		control_stop(control, &pending);
		while (!strstr(line = line_of(fd), "\"done\""))
			cr_assert_neq(*line, '\0', "hung up without a last word");
		cr_assert_str_eq(line, i ? left : done);
		close(fd);
	}
}

/* The directory of these tests is not mounted, so the daemon is told to stop draining at once. */
/* Who says it unmounts at once: the end may come before the request is read. */
Test(control_places, finish_said_just_before_the_end_is_heard)
{
	static const char finish[] = "{\"op\":\"finish\"}\n";

	for (int i = 0; i < 300; i++) {
		const char *line;
		int fd;

		cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
		fd = connected();
		cr_assert_str_eq(asked(fd, "{\"op\":\"status\"}\n"), "{}");
		cr_assert_eq(write(fd, finish, sizeof(finish) - 1), (ssize_t)sizeof(finish) - 1);
		control_stop(control, &(struct session_pending){0});
		while (!strstr(line = line_of(fd), "\"done\""))
			cr_assert_neq(*line, '\0', "round %d: hung up without a last word", i);
		close(fd);
	}
}

Test(control, leave_ends_the_draining_by_a_signal)
{
	const struct timespec patience = {.tv_sec = 10};
	sigset_t term;
	int fd;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	cr_assert_eq(sigprocmask(SIG_BLOCK, &term, NULL), 0);
	set_jobs(1, 1);
	fd = connected();
	cr_assert(strstr(asked(fd, "{\"op\":\"leave\"}\n"), "\"ok\":true"));
	cr_assert_eq(sigtimedwait(&term, NULL, &patience), SIGTERM);
	close(fd);
}

Test(control, leave_with_nothing_left_signals_nobody)
{
	const struct timespec moment = {.tv_nsec = 600 * NS_PER_MS};
	sigset_t term;
	int fd;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	cr_assert_eq(sigprocmask(SIG_BLOCK, &term, NULL), 0);
	fd = connected();
	cr_assert(strstr(asked(fd, "{\"op\":\"leave\"}\n"), "\"ok\":true"));
	cr_assert_eq(sigtimedwait(&term, NULL, &moment), -1);
	close(fd);
}

Test(control, nonsense_is_answered_and_hung_up_on)
{
	static const char *const requests[] = {"hello\n",      "{}\n", "[1]\n",
					       "{\"op\":5}\n", "\n",   "{\"op\":\"status\"\n"};

	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		int fd = connected();

		cr_assert(strstr(asked(fd, requests[i]), "\"error\""), "%s", requests[i]);
		cr_assert_str_eq(line_of(fd), "");
		close(fd);
	}
}

Test(control, an_unknown_op_is_only_an_error)
{
	int fd = connected();

	cr_assert_str_eq(asked(fd, "{\"op\":\"explode\"}\n"), "{\"error\":\"unknown op\"}");
	cr_assert_str_eq(asked(fd, "{\"op\":\"status\"}\n"), "{}");
	close(fd);
}

Test(control, a_request_without_end_is_dropped)
{
	char junk[32768];
	int fd = connected();

	memset(junk, 'x', sizeof(junk));
	(void)send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
	cr_assert_str_eq(line_of(fd), "");
	close(fd);
}

static char *long_status(size_t len)
{
	char *text = malloc(len + 1);

	cr_assert_not_null(text);
	memset(text, ' ', len);
	memcpy(text, "{\"a\":\"", 6);
	memcpy(text + len - 2, "\"}", 3);
	return text;
}

static bool hung_up(int fd, int timeout_ms)
{
	struct pollfd polled = {.fd = fd}; /* POLLHUP alone: nothing is read */

	return poll(&polled, 1, timeout_ms) == 1 && (polled.revents & POLLHUP);
}

Test(control, who_does_not_read_is_dropped_and_holds_up_nobody)
{
	char *status = long_status(700000);
	int stuck = connected(), other = connected();

	fake_session_set_status(session, status);
	say(stuck, "{\"op\":\"status\"}\n");
	cr_assert_eq(strlen(asked(other, "{\"op\":\"status\"}\n")), 700000);
	cr_assert(hung_up(stuck, 9000));
	cr_assert_not(hung_up(other, 0));
	close(stuck);
	close(other);
	fake_session_set_status(session, "{}");
	free(status);
}

Test(control, who_asks_without_reading_costs_bounded_memory)
{
	char *status = long_status(700000);
	int greedy = connected();

	fake_session_set_status(session, status);
	say(greedy, "{\"op\":\"status\"}\n{\"op\":\"status\"}\n{\"op\":\"status\"}\n");
	cr_assert(hung_up(greedy, 3000), "dropped before the time of a stuck one");
	close(greedy);
	fake_session_set_status(session, "{}");
	free(status);
}

Test(control, a_crowd_is_turned_away_and_room_is_used_again)
{
	int fds[SLOTS], more;

	for (int i = 0; i < SLOTS; i++) {
		fds[i] = connected();
		cr_assert_str_eq(asked(fds[i], "{\"op\":\"status\"}\n"), "{}");
	}
	more = connected();
	cr_assert_str_eq(line_of(more), "");
	close(more);
	close(fds[3]);
	/* The daemon sees the hang-up and the next one in either order. */
	for (int tries = 0;; tries++) {
		more = connected();
		(void)send(more, "{\"op\":\"status\"}\n", 16, MSG_NOSIGNAL);
		if (strcmp(line_of(more), "{}") == 0)
			break;
		cr_assert_lt(tries, 100);
		close(more);
		usleep(10000);
	}
	close(more);
	for (int i = 0; i < SLOTS; i++) {
		if (i != 3)
			close(fds[i]);
	}
}

/* --- where it lies ----------------------------------------------------------------------------- */

static void served(void)
{
	int fd = connected();

	cr_assert_str_eq(asked(fd, "{\"op\":\"status\"}\n"), "{}");
	close(fd);
}

Test(control_places, socket_and_directory_are_private)
{
	char path[2 * PATH_MAX];
	struct stat st;

	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	snprintf(path, sizeof(path), "%s/varve", runtime);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "cd '%s/varve' && test \"$(stat -c %%a *.sock)\" = 600", runtime);
	cr_assert_eq(system(path), 0);
	control_stop(control, NULL);
}

Test(control_places, takes_over_what_a_killed_daemon_left)
{
	struct control *killed;

	cr_assert_eq(control_start(session, mount.mountpoint, &killed, &err), 0, "%s", err.message);
	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	control_stop(killed, NULL); /* its name is the successor's now and stays */
	served();
	control_stop(control, NULL);
}

Test(control_places, a_path_longer_than_sun_path_works)
{
	char path[PATH_MAX];
	int len = snprintf(path, sizeof(path), "%s", runtime);

	for (int i = 0; i < 10; i++) {
		len += snprintf(path + len, sizeof(path) - (size_t)len, "/a-rather-long-name-of-a-directory");
		cr_assert_eq(mkdir(path, 0700), 0);
	}
	setenv("XDG_RUNTIME_DIR", path, 1);
	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	served();
	control_stop(control, NULL);
}

Test(control_places, without_a_runtime_directory_it_lies_with_the_state)
{
	unsetenv("XDG_RUNTIME_DIR");
	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	served();
	control_stop(control, NULL);
}

Test(control_places, a_directory_others_can_write_to_is_not_used)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/varve", runtime);
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_assert_eq(chmod(path, 0777), 0);
	cr_assert_eq(control_start(session, mount.mountpoint, &control, &err), 0, "%s", err.message);
	served();
	cr_assert_eq(rmdir(path), 0, "something was put there");
	control_stop(control, NULL);
}

Test(control_places, nobody_there_is_an_error_of_its_own)
{
	int fd;

	cr_assert_eq(control_connect(&mount, &fd), -ENOENT);
}

/* Becomes somebody else, connects to the address it is told, and exits 0 when it is hung up on unheard. */
static int intruder(int told)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;

	if (setresuid(SOMEBODY_ELSE, SOMEBODY_ELSE, SOMEBODY_ELSE) < 0)
		return 2;
	if (read(told, &address, sizeof(address)) != sizeof(address))
		return 3;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 4;
	(void)send(fd, "{\"op\":\"status\"}\n", 16, MSG_NOSIGNAL);
	return recv(fd, &byte, 1, 0) == 1;
}

/* Takes away what file modes protect, and gives the socket's address. */
static struct sockaddr_un laid_open(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char pattern[PATH_MAX + 16];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/varve/*.sock", runtime);
	cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
	cr_assert_eq(found.gl_pathc, 1);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", found.gl_pathv[0]);
	cr_assert_eq(chmod(address.sun_path, 0666), 0);
	globfree(&found);
	snprintf(pattern, sizeof(pattern), "%s/varve", runtime);
	cr_assert_eq(chmod(pattern, 0755), 0);
	cr_assert_eq(chmod(runtime, 0755), 0);
	cr_assert_eq(chmod(top, 0755), 0);
	return address;
}

Test(control_peers, another_user_is_not_heard, .timeout = 60)
{
	struct sockaddr_un address;
	int tell[2], status;
	pid_t child;

	if (getuid() != 0)
		cr_skip_test("only root can become another user");
	cr_assert_eq(pipe(tell), 0);
	child = fork();
	if (child == 0)
		_exit(intruder(tell[0]));
	start();
	address = laid_open();
	cr_assert_eq(write(tell[1], &address, sizeof(address)), sizeof(address));
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
	served();
	stop();
}
