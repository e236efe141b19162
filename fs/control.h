/*
 * control.h - a mount's control socket: how `varve status` and `varve umount` talk to the daemon.
 *
 * One UNIX stream socket per mount, named by a hash of its canonical mountpoint,
 * open to root and to the user who mounted. One JSON object per line, both ways:
 *
 *	{"op":"status"}	the status object
 *	{"op":"sweep"}	the store is looked through for others' changes now; {"ok":true}
 *	{"op":"hurry"}	waiting jobs are tried now; {"ok":true}
 *	{"op":"drain"}	a line of pending figures at once and every 200 ms, the last with "done":true
 *	{"op":"finish"}	{"ok":true,…}, then figures as for drain while the filesystem is unmounted and drained, and at
 *			the very end of the daemon {"done":…,"pending":N}: done is true when nothing is left
 *	{"op":"prune","path":"hex of the path below the mount","dry_run":false,"policy":{"last":N,"hourly":N,"daily":N,
 *			"weekly":N,"monthly":N,"yearly":N,"within":"1y6m10d12h"}}
 *			the lines of prune_step (prune.h); among them now and then {"seen":N}, names so far
 *	{"op":"protect","versions":[[FILE,SEQ],…],"hold":true,"until":NS,"compliance":true}
 *			each of the last three may be left out: {"ok":true,"done":N,"store":true,"refused":[[FILE,SEQ,
 *			"why"],…]}; store: the store itself will enforce it; why is shorter (than the retention it has),
 *			gone, read-only or failed
 *	{"op":"leave"}	as finish, but the daemon stops draining once the directory is unmounted
 *
 * Figures are {"pending":jobs,"bytes":n,"failed":n,"error":"…"}; a request that makes no sense gets {"error":"…"}.
 */
#ifndef VARVE_FS_CONTROL_H
#define VARVE_FS_CONTROL_H

#include "err.h"
#include "fs/mountinfo.h"

struct control;
struct session;
struct session_pending;

/* Binds the socket and starts the thread that serves it. `session` is used until control_detach returns. */
int control_start(struct session *session, const char *mountpoint, struct control **ret_control, struct err *err);

/* The session may be closed after this: no new request is taken, the socket's name is gone. Clients that wait for the
 * end stay connected. */
void control_detach(struct control *control);

/* Tells the clients that waited what is left, hangs up and frees. */
void control_stop(struct control *control, const struct session_pending *left);

/* The client's side: a connected, blocking socket to the daemon of `mount`. -ENOENT or -ECONNREFUSED: nobody serves it.
 */
int control_connect(const struct mountinfo *mount, int *ret_fd);

#endif
