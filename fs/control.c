/*
 * control.c - the control socket of one mount.
 *
 * One thread, one poll loop. It never blocks the filesystem: it asks the
 * session for figures and writes to non-blocking sockets; a client that does
 * not read what it asked for, or says nothing, is dropped.
 *
 * Life of the thread: SERVING until control_detach, which ends it. What is left
 * then are the descriptors of the clients that wait for the end; control_stop
 * writes the last line to them on its caller's thread. So after control_detach
 * nothing here touches the session, and no lock is needed: everything but
 * `wake` belongs to the thread while it lives and to the caller afterwards.
 *
 * The socket's directory is opened once and named as /proc/self/fd/N/…, because
 * sun_path has room for 107 bytes only and state directories may be deeper.
 */
#include "fs/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "buf.h"
#include "catalog.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/config.h"
#include "fs/prune.h"
#include "fs/session.h"
#include "log.h"

#define CLIENTS_MAX 16
#define REQUEST_MAX 16384         /* bytes of one request line */
#define REPLY_MAX (1 << 20)       /* bytes waiting for one client */
#define TICK_NS (200 * NS_PER_MS) /* figures to those who asked for them */
#define LOOK_NS (10 * NS_PER_MS)  /* whether what somebody waits for is done */
#define STUCK_NS (5 * NS_PER_SEC) /* a client that takes nothing for so long is dropped */
#define IDLE_NS (60 * NS_PER_SEC) /* so is one that asks nothing */
#define PRUNE_SLICE_NS (5 * NS_PER_MS)
#define PRUNE_SLICE (64u << 10) /* bytes of lines */
#define NAME_HASH_BYTES 8
#define NAME_SIZE (2 * NAME_HASH_BYTES + sizeof(".sock"))

enum client_mode {
	CLIENT_ASKING,    /* between requests */
	CLIENT_DRAINING,  /* gets figures until there is nothing left */
	CLIENT_FINISHING, /* gets figures until the daemon ends */
	CLIENT_PRUNING,   /* gets what its prune does */
};

struct client {
	int fd; /* -1: free */
	enum client_mode mode;
	bool closing; /* once `out` is written */
	bool leave;   /* finishing, but without draining */
	struct buf in;
	struct buf out;
	size_t written; /* of out */
	struct prune *prune;
	int64_t active_ns; /* monotonic: last request, or progress of output */
	int64_t told_ns;   /* likewise: how far its prune is */
};

struct control {
	struct session *session;
	char *mountpoint;
	int dir;
	char name[NAME_SIZE];
	ino_t ino; /* of the socket's name, so that a successor's is not removed */
	int listener;
	int wake; /* eventfd: the thread is to end */
	bool running;
	pthread_t thread;
	int64_t next_tick_ns;
	struct client clients[CLIENTS_MAX];
};

/* --- where the socket lies --------------------------------------------------------------------- */

static void socket_name(const char *mountpoint, char ret_name[static NAME_SIZE])
{
	uint8_t digest[SHA256_SIZE];
	char hex[2 * NAME_HASH_BYTES + 1];

	sha256_of(mountpoint, strlen(mountpoint), digest);
	hex_encode(digest, NAME_HASH_BYTES, hex);
	(void)snprintf(ret_name, NAME_SIZE, "%s.sock", hex); /* fits by construction */
}

enum place { PLACE_RUN, PLACE_RUNTIME_DIR, PLACE_STATE, PLACE_COUNT };

/* The directory for sockets of user `uid` at one of the places. -ENOENT: this place is not for that user. */
static int socket_dir(enum place place, uid_t uid, struct buf *ret_dir)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int rc;

	switch (place) {
	case PLACE_RUN:
		if (uid != 0)
			return -ENOENT;
		buf_adds(ret_dir, "/run/varve");
		break;
	case PLACE_RUNTIME_DIR:
		if (uid == 0)
			return -ENOENT;
		if (uid == getuid() && runtime && *runtime == '/')
			buf_addf(ret_dir, "%s/varve", runtime);
		else if (uid != getuid())
			buf_addf(ret_dir, "/run/user/%u/varve", uid);
		else
			return -ENOENT;
		break;
	default:
		if (uid == 0)
			return -ENOENT;
		rc = config_state_base(uid, ret_dir);
		if (rc < 0)
			return rc;
		buf_adds(ret_dir, "/control");
		break;
	}
	return buf_failed(ret_dir) ? -ENOMEM : 0;
}

/* mkdir -p, private to us. */
static int make_dirs(char *path)
{
	for (char *at = path + 1;; at++) {
		char end = *at;

		if (end != '/' && end != '\0')
			continue;
		*at = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*at = end;
		if (!end)
			return 0;
	}
}

/* A directory in which only `uid` can put sockets: else anybody could stand in for the daemon, or take its name. */
static int open_private(const char *path, uid_t uid, int *ret_dir)
{
	AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (dir < 0 || fstat(dir, &st) < 0)
		return -errno;
	if (st.st_uid != uid || (st.st_mode & 022))
		return -EPERM;
	*ret_dir = dir;
	dir = -1;
	return 0;
}

/* Opens the first place that there is or can be. */
static int open_socket_dir(uid_t uid, int *ret_dir, struct err *err)
{
	int rc = -ENOENT;

	for (enum place place = PLACE_RUN; place < PLACE_COUNT; place++) {
		AUTO_BUF path = BUF_INIT;

		rc = socket_dir(place, uid, &path);
		if (rc == -ENOENT)
			continue;
		if (rc == 0)
			rc = make_dirs(path.data);
		if (rc == 0)
			rc = open_private(path.data, uid, ret_dir);
		if (rc == 0)
			return 0;
		(void)err_from_errno(err, -rc, "control socket in %.128s",
				     path.data); /* told if no other place is left */
	}
	return rc == -ENOENT ? err_set(err, ERR_CONFIGURATION, "no place for the control socket") : rc;
}

static void socket_address(int dir, const char *name, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	(void)snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s", dir, name);
}

static int listen_at(struct control *control, struct err *err)
{
	struct sockaddr_un address;
	struct stat st;

	control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->listener < 0)
		return err_from_errno(err, errno, "control socket");
	socket_address(control->dir, control->name, &address);
	/* Left by a daemon that was killed: config_check saw that nothing is mounted here any more. */
	if (unlinkat(control->dir, control->name, 0) < 0 && errno != ENOENT)
		return err_from_errno(err, errno, "control socket %s", control->name);
	/* fchmod before bind sets the mode the name is made with: there is no moment when others could connect. */
	if (fchmod(control->listener, 0600) < 0 ||
	    bind(control->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    fchmodat(control->dir, control->name, 0600, 0) < 0 ||
	    fstatat(control->dir, control->name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    listen(control->listener, CLIENTS_MAX) < 0)
		return err_from_errno(err, errno, "control socket %s", control->name);
	control->ino = st.st_ino;
	return 0;
}

/* --- clients ----------------------------------------------------------------------------------- */

static void client_drop(struct client *client)
{
	if (client->fd >= 0)
		(void)close(client->fd); /* a socket: nothing is lost that the peer did not refuse */
	buf_free(&client->in);
	buf_free(&client->out);
	prune_free(client->prune);
	*client = (struct client){.fd = -1};
}

/* Writes what the socket takes. */
static void client_flush(struct client *client)
{
	while (client->fd >= 0 && client->written < client->out.len) {
		ssize_t n = send(client->fd, client->out.data + client->written, client->out.len - client->written,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n < 0) {
			client_drop(client);
			return;
		}
		client->written += (size_t)n;
		client->active_ns = clock_monotonic();
	}
	buf_reset(&client->out);
	client->written = 0;
	if (client->closing)
		client_drop(client);
}

static void client_say(struct client *client, const char *line, size_t len)
{
	buf_add(&client->out, line, len);
	buf_addc(&client->out, '\n');
	if (buf_failed(&client->out) || client->out.len > REPLY_MAX)
		client_drop(client);
	else
		client_flush(client);
}

static void client_say_json(struct client *client, json_t *object)
{
	AUTO_FREE char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

	json_decref(object);
	if (text)
		client_say(client, text, strlen(text));
	else
		client_drop(client); /* out of memory */
}

static json_t *figures(const struct session_pending *pending)
{
	json_t *object = json_pack("{s:I, s:I, s:I}", "pending", (json_int_t)pending->jobs, "bytes",
				   (json_int_t)pending->bytes, "failed", (json_int_t)pending->failed);

	/* A store's own words may not be UTF-8; the figures go out without them. */
	if (object && pending->last_error[0])
		(void)json_object_set_new(object, "error", json_string(pending->last_error));
	return object;
}

static void say_figures(struct control *control, struct client *client)
{
	struct session_pending pending = {0};
	json_t *object;

	session_pending(control->session, &pending);
	object = figures(&pending);
	if (client->mode == CLIENT_DRAINING && pending.jobs == 0) {
		client->mode = CLIENT_ASKING;
		(void)json_object_set_new(object, "done", json_true());
	}
	client_say_json(client, object);
}

static void say_status(struct control *control, struct client *client)
{
	AUTO_BUF text = BUF_INIT;

	session_status_json(control->session, &text);
	/* Newlines can stand in JSON between tokens only, where a space does as well. */
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '\n' || text.data[i] == '\r')
			text.data[i] = ' ';
	}
	if (buf_failed(&text))
		client_drop(client);
	else
		client_say(client, text.data, text.len);
}

static void request_finish(struct control *control, struct client *client)
{
	struct session_pending pending = {0};
	json_t *object;

	session_pending(control->session, &pending);
	client->mode = CLIENT_FINISHING;
	object = figures(&pending);
	(void)json_object_set_new(object, "ok", json_true());
	client_say_json(client, object);
}

/* --- protecting versions --------------------------------------------------------------------- */

static int protect_version(struct control *control, const json_t *request, const json_t *version)
{
	const json_t *hold = json_object_get(request, "hold");
	struct cat_protection protection = {
		.ino = (uint64_t)json_integer_value(json_array_get(version, 0)),
		.seq = (uint64_t)json_integer_value(json_array_get(version, 1)),
		.set_hold = hold != NULL,
		.hold = json_is_true(hold),
		.retain_until_ns = json_integer_value(json_object_get(request, "until")),
		.compliance = json_is_true(json_object_get(request, "compliance")),
	};

	return session_protect(control->session, &protection);
}

static const char *refusal_of(int error)
{
	switch (-error) {
	case EPERM:
		return "shorter";
	case ENOENT:
		return "gone";
	case EROFS:
		return "read-only";
	default:
		return "failed";
	}
}

/* Catalog updates take microseconds each and a request has room for some hundred. */
static void request_protect(struct control *control, struct client *client, const json_t *request)
{
	json_t *versions = json_object_get(request, "versions"), *refused = json_array();
	json_int_t done = 0;

	for (size_t i = 0; i < json_array_size(versions); i++) {
		json_t *version = json_array_get(versions, i);
		int error = protect_version(control, request, version);

		done += error == 0;
		if (!error || !json_is_array(version))
			continue;
		(void)json_array_append_new(version, json_string(refusal_of(error))); /* `done` tells as well */
		(void)json_array_append(refused, version);
	}
	client_say_json(client, json_pack("{s:b, s:I, s:b, s:o}", "ok", 1, "done", done, "store",
					  session_store_locks(control->session), "refused", refused));
}

/* --- pruning ----------------------------------------------------------------------------------- */

static unsigned number_of(const json_t *policy, const char *name)
{
	json_int_t number = json_integer_value(json_object_get(policy, name));

	return number < 0 ? 0 : number > UINT32_MAX ? UINT32_MAX : (unsigned)number;
}

static int read_policy(const json_t *json, struct policy *ret_policy)
{
	const char *within = json_string_value(json_object_get(json, "within"));

	*ret_policy = (struct policy){
		.last = number_of(json, "last"),
		.hourly = number_of(json, "hourly"),
		.daily = number_of(json, "daily"),
		.weekly = number_of(json, "weekly"),
		.monthly = number_of(json, "monthly"),
		.yearly = number_of(json, "yearly"),
	};
	return within ? policy_parse_span(within, &ret_policy->within) : 0;
}

static int start_prune(struct control *control, struct client *client, const json_t *request)
{
	const char *hex = json_string_value(json_object_get(request, "path"));
	struct prune_request prune = {.dry_run = json_is_true(json_object_get(request, "dry_run"))};
	size_t len = hex ? strlen(hex) / 2 : 0;
	char path[REQUEST_MAX / 2];
	int rc = hex && len < sizeof(path) ? hex_decode(hex, len, (uint8_t *)path) : -EINVAL;

	if (rc == 0)
		rc = read_policy(json_object_get(request, "policy"), &prune.policy);
	if (rc < 0)
		return rc;
	path[len] = '\0';
	prune.path = path;
	return session_prune(control->session, &prune, &client->prune);
}

static void request_prune(struct control *control, struct client *client, const json_t *request)
{
	int rc = client->prune ? -EBUSY : start_prune(control, client, request);

	if (rc < 0)
		client_say_json(client, json_pack("{s:s}", "error", strerror(-rc)));
	else
		client->mode = CLIENT_PRUNING;
}

/* Goes on for a moment; what it said must be taken before it is asked again. */
static void prune_some(struct client *client)
{
	int64_t until = clock_monotonic() + PRUNE_SLICE_NS;
	AUTO_BUF lines = BUF_INIT;
	int rc;

	do {
		rc = prune_step(client->prune, &lines);
	} while (rc > 0 && lines.len < PRUNE_SLICE && clock_monotonic() < until);
	if (rc > 0 && until - client->told_ns > TICK_NS) {
		client->told_ns = until;
		buf_addf(&lines, "{\"seen\":%" PRIu64 "}\n", prune_seen(client->prune));
	}
	if (rc < 0)
		buf_addf(&lines, "{\"error\":\"%s\"}\n", strerror(-rc));
	if (rc <= 0) {
		prune_free(client->prune);
		client->prune = NULL;
		client->mode = CLIENT_ASKING;
	}
	client->active_ns = clock_monotonic();
	if (buf_failed(&lines))
		client_drop(client);
	else if (lines.len)
		client_say(client, lines.data, lines.len - 1);
}

static bool prune_goes_on(const struct client *client)
{
	return client->fd >= 0 && client->mode == CLIENT_PRUNING && client->out.len == 0;
}

static void serve_request(struct control *control, struct client *client, const char *line, size_t len)
{
	json_t *request = json_loadb(line, len, 0, NULL);
	const char *op = json_string_value(json_object_get(request, "op"));

	client->active_ns = clock_monotonic();
	if (!op) {
		client->closing = true;
		client_say_json(client, json_pack("{s:s}", "error", "not a request: {\"op\":…} expected"));
	} else if (strcmp(op, "status") == 0) {
		say_status(control, client);
	} else if (strcmp(op, "hurry") == 0) {
		session_hurry(control->session);
		client_say_json(client, json_pack("{s:b}", "ok", 1));
	} else if (strcmp(op, "sweep") == 0) {
		session_sweep(control->session);
		client_say_json(client, json_pack("{s:b}", "ok", 1));
	} else if (strcmp(op, "drain") == 0) {
		client->mode = CLIENT_DRAINING;
		say_figures(control, client);
	} else if (strcmp(op, "finish") == 0) {
		request_finish(control, client);
	} else if (strcmp(op, "prune") == 0) {
		request_prune(control, client, request);
	} else if (strcmp(op, "protect") == 0) {
		request_protect(control, client, request);
	} else if (strcmp(op, "leave") == 0) {
		client->leave = true;
		request_finish(control, client);
	} else {
		client_say_json(client, json_pack("{s:s}", "error", "unknown op"));
	}
	json_decref(request);
}

/* Takes whole lines off the input. */
static void serve_lines(struct control *control, struct client *client)
{
	char *end;

	while (client->fd >= 0 && !client->closing && (end = memchr(client->in.data, '\n', client->in.len))) {
		size_t len = (size_t)(end - client->in.data), rest = client->in.len - len - 1;
		char line[REQUEST_MAX];

		memcpy(line, client->in.data, len);
		memmove(client->in.data, end + 1, rest);
		client->in.len = rest;
		client->in.data[rest] = '\0';
		serve_request(control, client, line, len);
	}
}

static void client_read(struct control *control, struct client *client)
{
	char bytes[512];
	ssize_t n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		client_drop(client);
		return;
	}
	/* So that a line always fits REQUEST_MAX. */
	if (client->in.len + (size_t)n > REQUEST_MAX) {
		client_drop(client);
		return;
	}
	buf_add(&client->in, bytes, (size_t)n);
	if (buf_failed(&client->in))
		client_drop(client);
	else
		serve_lines(control, client);
}

/* File modes keep others out already; a descriptor passed to somebody else's process does not. */
static bool peer_is_allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == 0 || peer.uid == getuid());
}

static struct client *free_client(struct control *control)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (control->clients[i].fd < 0)
			return &control->clients[i];
	}
	return NULL;
}

static void accept_client(struct control *control)
{
	struct client *client = free_client(control);
	int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return; /* gone again, or out of descriptors: poll tells again */
	if (!client || !peer_is_allowed(fd)) {
		(void)close(fd); /* never served */
		return;
	}
	*client = (struct client){.fd = fd, .active_ns = clock_monotonic()};
	buf_init(&client->in);
	buf_init(&client->out);
}

/* --- the thread -------------------------------------------------------------------------------- */

static bool still_mounted(const char *mountpoint)
{
	struct mountinfo info;
	int rc = mountinfo_at(mountpoint, &info);
	bool varve = rc == 0 && strcmp(info.type, MOUNTINFO_TYPE) == 0;

	if (rc == 0)
		mountinfo_clear(&info);
	return varve;
}

/*
 * The session takes a signal while it drains as "no longer"; one that came
 * before would unmount, so wait for that. Said again at each tick: the kernel
 * forgets a mount a moment before the session knows. A client that hung up,
 * because the directory was in use, no longer asks for it.
 */
static void leave(struct control *control)
{
	struct session_pending pending = {0};

	if (still_mounted(control->mountpoint))
		return;
	session_pending(control->session, &pending);
	if (pending.jobs > 0)
		(void)kill(getpid(), SIGTERM); /* cannot fail: it is ourselves */
}

static bool is_drained(struct control *control)
{
	struct session_pending pending = {0};

	session_pending(control->session, &pending);
	return pending.jobs == 0;
}

/* What is due by the clock: figures, and the end of clients that do not behave. */
static void tick(struct control *control, int64_t now)
{
	bool due = now >= control->next_tick_ns;

	if (due)
		control->next_tick_ns = now + TICK_NS;
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &control->clients[i];
		bool waits = client->fd >= 0 && client->out.len > 0;

		if (client->fd < 0)
			continue;
		if (waits && now - client->active_ns > STUCK_NS)
			client_drop(client);
		else if (client->mode == CLIENT_ASKING && now - client->active_ns > IDLE_NS)
			client_drop(client);
		else if (prune_goes_on(client))
			prune_some(client);
		else if (!waits && ((due && (client->mode == CLIENT_DRAINING || client->mode == CLIENT_FINISHING)) ||
				    (client->mode == CLIENT_DRAINING && is_drained(control))))
			say_figures(control, client);
		if (due && client->leave)
			leave(control);
	}
}

static int patience_ms(const struct control *control, int64_t now)
{
	bool ticking = false, draining = false;
	int64_t left;

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		const struct client *client = &control->clients[i];

		if (prune_goes_on(client))
			return 0;
		ticking |= client->fd >= 0 && client->mode != CLIENT_ASKING;
		draining |= client->fd >= 0 && client->mode == CLIENT_DRAINING;
	}
	if (!ticking)
		return (int)(STUCK_NS / NS_PER_MS);
	left = control->next_tick_ns - now;
	if (draining && left > LOOK_NS)
		left = LOOK_NS;
	return left > 0 ? (int)(left / NS_PER_MS) + 1 : 0;
}

/* What was asked before the end began is heard: `umount` says "finish", unmounts, and waits for the last figures. */
static void hear_last_words(struct control *control)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (control->clients[i].fd >= 0)
			client_read(control, &control->clients[i]);
	}
}

static void *control_main(void *arg)
{
	struct control *control = arg;

	for (;;) {
		struct pollfd polled[2 + CLIENTS_MAX] = {{.fd = control->wake, .events = POLLIN},
							 {.fd = control->listener, .events = POLLIN}};

		for (size_t i = 0; i < CLIENTS_MAX; i++) {
			const struct client *client = &control->clients[i];

			polled[2 + i].fd = client->fd;
			polled[2 + i].events = client->out.len ? POLLOUT : POLLIN;
		}
		if (poll(polled, ARRAY_SIZE(polled), patience_ms(control, clock_monotonic())) < 0 && errno != EINTR) {
			log_error("control", "poll: %m; the control socket is not served any more");
			return NULL;
		}
		if (polled[0].revents) {
			hear_last_words(control);
			return NULL;
		}
		for (size_t i = 0; i < CLIENTS_MAX; i++) {
			if (polled[2 + i].revents & POLLOUT)
				client_flush(&control->clients[i]);
			else if (polled[2 + i].revents)
				client_read(control, &control->clients[i]);
		}
		if (polled[1].revents)
			accept_client(control);
		tick(control, clock_monotonic());
	}
}

/* Signals are the session's: none may be delivered to this thread. */
static int start_thread(struct control *control)
{
	sigset_t all, before;
	int rc;

	(void)sigfillset(&all); /* cannot fail with these arguments, nor can the next two */
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&control->thread, NULL, control_main, control);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	control->running = rc == 0;
	return -rc;
}

int control_start(struct session *session, const char *mountpoint, struct control **ret_control, struct err *err)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	if (!control)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	control->session = session;
	control->dir = control->listener = control->wake = -1;
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		control->clients[i].fd = -1;
	socket_name(mountpoint, control->name);
	control->mountpoint = strdup(mountpoint);
	control->wake = eventfd(0, EFD_CLOEXEC);
	if (!control->mountpoint || control->wake < 0) {
		rc = err_from_errno(err, errno, "control socket");
		goto out;
	}
	rc = open_socket_dir(getuid(), &control->dir, err);
	if (rc == 0)
		rc = listen_at(control, err);
	if (rc == 0) {
		rc = start_thread(control);
		if (rc < 0)
			(void)err_from_errno(err, -rc, "control thread"); /* rc says the same */
	}
out:
	if (rc == 0)
		*ret_control = control;
	else
		control_stop(control, NULL);
	return rc;
}

void control_detach(struct control *control)
{
	struct stat st;

	if (control->running) {
		(void)eventfd_write(control->wake, 1); /* the counter is far from full */
		(void)pthread_join(control->thread, NULL);
		control->running = false;
	}
	/* The name may be a successor's by now; then it is not ours to remove. */
	if (control->ino && fstatat(control->dir, control->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_ino == control->ino)
		(void)unlinkat(control->dir, control->name, 0); /* else the next daemon does */
	control->ino = 0;
	if (control->listener >= 0)
		(void)close(control->listener); /* nobody is connected through it */
	control->listener = -1;
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (control->clients[i].mode != CLIENT_FINISHING)
			client_drop(&control->clients[i]);
	}
}

void control_stop(struct control *control, const struct session_pending *left)
{
	if (!control)
		return;
	control_detach(control);
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &control->clients[i];
		json_t *object = NULL;

		if (client->fd >= 0 && left) {
			object = figures(left);
			(void)json_object_set_new(object, "done", json_boolean(left->jobs == 0));
			client_say_json(client, object);
		}
		client_drop(client);
	}
	if (control->dir >= 0)
		(void)close(control->dir); /* O_PATH: nothing to lose */
	if (control->wake >= 0)
		(void)close(control->wake); /* likewise */
	free(control->mountpoint);
	free(control);
}

/* --- the client's side --------------------------------------------------------------------------- */

static int connect_in(const char *path, uid_t user, const char *name, int *ret_fd)
{
	AUTO_CLOSE int dir = -1;
	AUTO_CLOSE int fd = -1;
	struct sockaddr_un address;
	int rc = open_private(path, user, &dir);

	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	socket_address(dir, name, &address);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int control_connect(const struct mountinfo *mount, int *ret_fd)
{
	char name[NAME_SIZE];
	int rc = -ENOENT;

	socket_name(mount->mountpoint, name);
	for (enum place place = PLACE_RUN; place < PLACE_COUNT; place++) {
		AUTO_BUF path = BUF_INIT;
		int found = socket_dir(place, mount->user, &path);

		if (found == -ENOENT)
			continue;
		rc = found < 0 ? found : connect_in(path.data, mount->user, name, ret_fd);
		if (rc != -ENOENT && rc != -EPERM)
			return rc;
	}
	return rc;
}
