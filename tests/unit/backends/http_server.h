/*
 * http_server.h - a server inside the test that misbehaves on purpose.
 *
 * One thread; each connection is read one request at a time and answered as the test says, one connection after the
 * other.
 */
#ifndef VARVE_TEST_HTTP_SERVER_H
#define VARVE_TEST_HTTP_SERVER_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum behaviour {
	REPLY_AND_CLOSE,
	REPLY_AND_KEEP,
	REPLY_AND_RESET,
	HANG,            /* read the request, say nothing */
	TRICKLE,         /* the reply one byte at a time, for ever */
	DIE_ON_SECOND,   /* answer the first request of a connection, close on the second unanswered */
	CLOSE_AT_HEADER, /* close as soon as the headers were read, before the body */
};

struct server {
	int fd;
	uint16_t port;
	pthread_t thread;
	enum behaviour behaviour;
	const char *reply;
	const char *const *replies; /* if set, one for each request in turn, ended by NULL; then `reply` again */
	size_t repeat;              /* so many bytes 'x' follow the reply */
	atomic_uint requests;
	atomic_bool stop;
	char last[65536]; /* the last request's head; read after its reply came */
	char first[65536];
};

static void send_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		bytes += n;
		len -= (size_t)n;
	}
}

/* One request's head, then its body unless told not to. False: the client is gone. */
static bool read_request(struct server *server, int fd)
{
	char head[sizeof(server->last)];
	size_t len = 0;
	do {
		if (len + 1 == sizeof(head) || recv(fd, head + len, 1, 0) != 1)
			return false;
		head[++len] = '\0';
	} while (!strstr(head, "\r\n\r\n"));
	memcpy(server->last, head, len + 1);
	if (server->requests == 0)
		memcpy(server->first, head, len + 1);
	const char *length = strcasestr(head, "content-length:");
	unsigned long long left = length ? strtoull(length + strlen("content-length:"), NULL, 10) : 0;
	if (server->behaviour == CLOSE_AT_HEADER)
		left = 0;
	while (left > 0) {
		char body[4096];
		ssize_t n = recv(fd, body, left < sizeof(body) ? (size_t)left : sizeof(body), 0);
		if (n <= 0)
			return false;
		left -= (size_t)n;
	}
	server->requests++;
	return true;
}

static void send_reply(struct server *server, int fd)
{
	char chunk[4096];
	const char *reply = server->replies && *server->replies ? *server->replies++ : server->reply;
	memset(chunk, 'x', sizeof(chunk));
	send_all(fd, reply, strlen(reply));
	for (size_t left = server->repeat; left > 0 && !server->stop;) {
		size_t n = left < sizeof(chunk) ? left : sizeof(chunk);
		send_all(fd, chunk, n);
		left -= n;
	}
}

static void serve_slowly(struct server *server, int fd)
{
	if (server->behaviour == TRICKLE)
		send_all(fd, server->reply, strlen(server->reply));
	while (!server->stop) {
		if (server->behaviour == TRICKLE)
			send_all(fd, "x", 1);
		usleep(20 * 1000);
	}
}

static void serve(struct server *server, int fd)
{
	for (unsigned number = 1; read_request(server, fd); number++) {
		switch (server->behaviour) {
		case HANG:
		case TRICKLE:
			serve_slowly(server, fd);
			return;
		case CLOSE_AT_HEADER:
			return;
		case DIE_ON_SECOND:
			if (number > 1)
				return;
			send_reply(server, fd);
			break;
		case REPLY_AND_KEEP:
			send_reply(server, fd);
			break;
		case REPLY_AND_RESET: {
			const struct linger hard = {.l_onoff = 1};
			send_reply(server, fd);
			usleep(50 * 1000); /* let it arrive before the reset overtakes it */
			(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
			return;
		}
		case REPLY_AND_CLOSE:
			send_reply(server, fd);
			return;
		}
	}
}

static void *server_main(void *arg)
{
	struct server *server = arg;
	while (!server->stop) {
		int fd = accept(server->fd, NULL, NULL);
		if (fd < 0)
			break;
		const struct timeval patience = {.tv_sec = 5};
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		serve(server, fd);
		(void)close(fd);
	}
	return NULL;
}

static struct server *server_start(enum behaviour behaviour, const char *reply)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct server *server = calloc(1, sizeof(*server));
	cr_assert_not_null(server);
	server->behaviour = behaviour;
	server->reply = reply;
	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_geq(server->fd, 0);
	cr_assert_eq(bind(server->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(server->fd, 16), 0);
	cr_assert_eq(getsockname(server->fd, (struct sockaddr *)&address, &len), 0);
	server->port = ntohs(address.sin_port);
	cr_assert_eq(pthread_create(&server->thread, NULL, server_main, server), 0);
	return server;
}

static void server_stop(struct server *server)
{
	server->stop = true;
	(void)shutdown(server->fd, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	(void)close(server->fd);
	free(server);
}

#endif
