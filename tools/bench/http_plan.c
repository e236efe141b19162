/*
 * http_plan.c - sends a list of HTTP requests over kept-alive connections and says how long they took: the floor
 * beneath which no filesystem can be that needs the same requests. Not part of varve.
 *
 *     http_plan HOST PORT CONNECTIONS [FILE] <PLAN
 *     http_plan crc32c SIZE        (of a body of so many bytes, in hexadecimal)
 *
 * A line of the plan is METHOD, target, bytes of body and any headers ("Name: value"), with tabs between; whoever wrote
 * it has signed the target. Everything is parsed, and every connection open, before the clock starts. Prints the
 * seconds, then status and ETag of each request in the order of the plan. Exit status 1 when one was not answered 2xx,
 * or, a HEAD, 404 either: that nothing is there is an answer.
 *
 * With a FILE, what the requests for ranges fetch is kept there, and somebody reads it as it comes, from its beginning
 * to its end: what no filesystem can do without that keeps what it fetched, were the way through the kernel for
 * nothing.
 *
 * Threads: one for each connection; they share the plan, each request belongs to who drew its number, but for `kept`,
 * which the reader watches.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "checksum.h"
#include "clock.h"

#define BODY_MAX ((size_t)64 << 20)
#define BUFFER_SIZE ((size_t)1 << 20)
#define CONNECTIONS_MAX 256
#define READ_SIZE ((size_t)128 << 10)
#define LOOK_AGAIN_US 100

struct request {
	char *head;
	size_t head_len, body_len;
	bool no_reply_body; /* HEAD */
	int status;
	char etag[128];
	uint64_t offset, size; /* of its range */
	_Atomic uint64_t kept; /* of it */
};

static struct {
	const char *host, *port;
	struct request *requests;
	size_t count;
	uint8_t *body; /* what every request sends a prefix of */
	int file;      /* -1: nothing is kept */
	atomic_size_t next;
	pthread_barrier_t ready;
} plan;

static void die(const char *what)
{
	(void)fprintf(stderr, "http_plan: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* --- the plan ---------------------------------------------------------------------------------- */

static void build_head(struct request *request, char *line)
{
	char *rest = line, *method = strsep(&rest, "\t"), *target = strsep(&rest, "\t"), *size = strsep(&rest, "\t");
	char *header;
	FILE *out = open_memstream(&request->head, &request->head_len);

	if (!out || !size || strtoull(size, NULL, 10) > BODY_MAX)
		die("a line of the plan");
	request->body_len = strtoull(size, NULL, 10);
	request->no_reply_body = strcmp(method, "HEAD") == 0;
	(void)fprintf(out, "%s %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: %zu\r\n", method, target, plan.host,
		      plan.port, request->body_len);
	while ((header = strsep(&rest, "\t"))) {
		uint64_t last;

		(void)fprintf(out, "%s\r\n", header);
		if (sscanf(header, "Range: bytes=%" SCNu64 "-%" SCNu64, &request->offset, &last) == 2)
			request->size = last + 1 - request->offset;
	}
	(void)fputs("\r\n", out);
	if (fclose(out) != 0)
		die("memory");
}

static void read_plan(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while ((n = getline(&line, &cap, stdin)) > 0) {
		if ((plan.count & (plan.count - 1)) == 0) {
			size_t room = plan.count ? plan.count * 2 : 1;

			plan.requests = reallocarray(plan.requests, room, sizeof(*plan.requests));
			if (!plan.requests)
				die("memory");
		}
		line[strcspn(line, "\n")] = '\0';
		plan.requests[plan.count] = (struct request){0};
		build_head(&plan.requests[plan.count++], line);
	}
	free(line);
}

/* Bytes that no store can compress. */
static void make_body(void)
{
	uint64_t state = UINT64_C(0x9e3779b97f4a7c15), *words;

	plan.body = malloc(BODY_MAX);
	if (!plan.body)
		die("memory");
	words = (uint64_t *)(void *)plan.body; /* malloc aligns */
	for (size_t i = 0; i < BODY_MAX / sizeof(*words); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = state;
	}
}

/* --- one connection ---------------------------------------------------------------------------- */

static int open_connection(void)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
	int fd, on = 1;

	if (getaddrinfo(plan.host, plan.port, &hints, &list) != 0)
		die("the host's address");
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen) < 0)
		die("connect");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		die("TCP_NODELAY");
	freeaddrinfo(list);
	return fd;
}

static void send_request(int fd, const struct request *request)
{
	struct iovec parts[2] = {{request->head, request->head_len}, {plan.body, request->body_len}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	while (message.msg_iovlen > 0) {
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (n < 0)
			die("send");
		while (message.msg_iovlen > 0 && (size_t)n >= message.msg_iov->iov_len) {
			n -= (ssize_t)message.msg_iov->iov_len;
			message.msg_iov++;
			message.msg_iovlen--;
		}
		if (message.msg_iovlen > 0) {
			message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
			message.msg_iov->iov_len -= (size_t)n;
		}
	}
}

static size_t receive(int fd, char *bytes, size_t cap)
{
	ssize_t n = recv(fd, bytes, cap, 0);

	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		die("receive");
	return (size_t)n;
}

static bool header_value(const char *head, const char *name, char *ret_value, size_t cap)
{
	const char *found = strcasestr(head, name);

	if (!found)
		return false;
	found += strlen(name);
	found += strspn(found, " ");
	(void)snprintf(ret_value, cap, "%.*s", (int)strcspn(found, "\r"), found); /* cut */
	return true;
}

static void keep(struct request *request, const char *bytes, size_t len)
{
	if (plan.file < 0 || !request->size)
		return;
	if (pwrite(plan.file, bytes, len, (off_t)(request->offset + request->kept)) != (ssize_t)len)
		die("what is kept");
	atomic_fetch_add(&request->kept, len);
}

/* Only lengths given beforehand are understood: a chunked reply would make this wait for ever, so it is refused. */
static void take_reply(int fd, struct request *request, char *buffer)
{
	size_t have = 0, left = 0;
	char *end = NULL, length[32];

	while (!end) {
		if (have == BUFFER_SIZE - 1)
			die("a header without an end");
		have += receive(fd, buffer + have, BUFFER_SIZE - 1 - have);
		buffer[have] = '\0';
		end = strstr(buffer, "\r\n\r\n");
	}
	end[2] = '\0';
	request->status = (int)strtol(buffer + strlen("HTTP/1.1 "), NULL, 10);
	(void)header_value(buffer, "\r\nETag:", request->etag, sizeof(request->etag)); /* not all have one */
	if (header_value(buffer, "\r\nContent-Length:", length, sizeof(length)))
		left = strtoull(length, NULL, 10);
	else if (request->status != 204 && !request->no_reply_body)
		die("a reply without a length");
	if (request->no_reply_body)
		left = 0;
	left -= have - (size_t)(end + 4 - buffer);
	keep(request, end + 4, have - (size_t)(end + 4 - buffer));
	/* A part that was copied has its tag in the body. */
	while (request->etag[0] == '\0' && left > 0 && left < BUFFER_SIZE - have) {
		size_t n = receive(fd, buffer + have, left);

		have += n;
		left -= n;
		buffer[have] = '\0';
	}
	if (request->etag[0] == '\0' && (end = strstr(end + 4, "ETag>")))
		(void)snprintf(request->etag, sizeof(request->etag), "%.*s", (int)strcspn(end + 5, "<"), end + 5);
	while (left > 0) {
		size_t n = receive(fd, buffer, left < BUFFER_SIZE ? left : BUFFER_SIZE);

		keep(request, buffer, n);
		left -= n;
	}
}

/* Each takes its own times: whoever would do it for all may be the last to run after the barrier. */
struct worker {
	pthread_t thread;
	int64_t began, ended;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	int fd = open_connection();
	char *buffer = malloc(BUFFER_SIZE);
	size_t n;

	if (!buffer)
		die("memory");
	(void)pthread_barrier_wait(&plan.ready); /* which thread is the serial one does not matter */
	worker->began = clock_monotonic();
	while ((n = atomic_fetch_add(&plan.next, 1)) < plan.count) {
		send_request(fd, &plan.requests[n]);
		take_reply(fd, &plan.requests[n], buffer);
	}
	worker->ended = clock_monotonic();
	free(buffer);
	(void)close(fd); /* nothing more to learn */
	return NULL;
}

static void *read_kept(void *arg)
{
	struct worker *reader = arg;
	char *buffer = malloc(READ_SIZE);

	if (!buffer)
		die("memory");
	for (size_t n = 0; n < plan.count; n++) {
		struct request *request = &plan.requests[n];

		for (uint64_t done = 0, want; done < request->size; done += want) {
			want = request->size - done < READ_SIZE ? request->size - done : READ_SIZE;
			while (request->kept < done + want)
				(void)usleep(LOOK_AGAIN_US); /* too short a sleep is as good */
			if (pread(plan.file, buffer, want, (off_t)(request->offset + done)) != (ssize_t)want)
				die("reading what is kept");
		}
	}
	reader->ended = clock_monotonic();
	free(buffer);
	return NULL;
}

static double run(unsigned connections)
{
	struct worker workers[CONNECTIONS_MAX] = {0}, reader = {0};
	int64_t began = INT64_MAX, ended = 0;

	if (plan.file >= 0) {
		errno = pthread_create(&reader.thread, NULL, read_kept, &reader);
		if (errno)
			die("thread");
	}
	errno = pthread_barrier_init(&plan.ready, NULL, connections);
	if (errno)
		die("barrier");
	for (unsigned i = 0; i < connections; i++) {
		errno = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		if (errno)
			die("thread");
	}
	for (unsigned i = 0; i < connections; i++) {
		(void)pthread_join(workers[i].thread, NULL); /* they end or the process does */
		began = workers[i].began < began ? workers[i].began : began;
		ended = workers[i].ended > ended ? workers[i].ended : ended;
	}
	if (plan.file >= 0) {
		(void)pthread_join(reader.thread, NULL);
		ended = reader.ended > ended ? reader.ended : ended;
	}
	return (double)(ended - began) / (double)NS_PER_SEC;
}

static bool is_answered(const struct request *request)
{
	return (request->status >= 200 && request->status <= 299) || (request->no_reply_body && request->status == 404);
}

static int say_checksum(const char *size)
{
	size_t len = strtoull(size, NULL, 10);

	if (len > BODY_MAX)
		die("a size");
	make_body();
	(void)printf("%08x\n", crc32c_update(0, plan.body, len));
	free(plan.body);
	return fflush(stdout) != 0;
}

int main(int argc, char **argv)
{
	unsigned connections = argc == 4 || argc == 5 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	bool failed = false;

	if (argc == 3 && strcmp(argv[1], "crc32c") == 0)
		return say_checksum(argv[2]);
	if (connections < 1 || connections > CONNECTIONS_MAX) {
		(void)fprintf(stderr, "usage: http_plan HOST PORT CONNECTIONS [FILE] <PLAN\n");
		return 2;
	}
	plan.host = argv[1];
	plan.port = argv[2];
	plan.file = argc == 5 ? open(argv[4], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (argc == 5 && plan.file < 0)
		die(argv[4]);
	make_body();
	read_plan();
	(void)printf("%.6f\n", run(connections));
	for (size_t i = 0; i < plan.count; i++) {
		const struct request *request = &plan.requests[i];

		failed = failed || !is_answered(request);
		(void)printf("%d %s\n", request->status, request->etag[0] ? request->etag : "-");
		free(request->head);
	}
	free(plan.requests);
	free(plan.body);
	return fflush(stdout) != 0 || failed;
}
