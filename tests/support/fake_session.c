/*
 * fake_session.c - says what a test told it to say. Guarded by one mutex: the control thread asks while a test changes
 * it.
 */
#include "support/fake_session.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct session {
	pthread_mutex_t mutex;
	struct session_pending pending;
	const char *status;
	unsigned hurried;
};

struct session *fake_session_new(void)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		abort();
	pthread_mutex_init(&session->mutex, NULL);
	session->status = "{}";
	return session;
}

void fake_session_free(struct session *session)
{
	pthread_mutex_destroy(&session->mutex);
	free(session);
}

void fake_session_set_pending(struct session *session, const struct session_pending *pending)
{
	pthread_mutex_lock(&session->mutex);
	session->pending = *pending;
	pthread_mutex_unlock(&session->mutex);
}

void fake_session_set_status(struct session *session, const char *json)
{
	pthread_mutex_lock(&session->mutex);
	session->status = json;
	pthread_mutex_unlock(&session->mutex);
}

unsigned fake_session_hurried(struct session *session)
{
	unsigned hurried;

	pthread_mutex_lock(&session->mutex);
	hurried = session->hurried;
	pthread_mutex_unlock(&session->mutex);
	return hurried;
}

void session_pending(struct session *session, struct session_pending *ret_pending)
{
	pthread_mutex_lock(&session->mutex);
	*ret_pending = session->pending;
	pthread_mutex_unlock(&session->mutex);
}

void session_status_json(struct session *session, struct buf *ret_json)
{
	pthread_mutex_lock(&session->mutex);
	buf_adds(ret_json, session->status);
	pthread_mutex_unlock(&session->mutex);
}

void session_hurry(struct session *session)
{
	pthread_mutex_lock(&session->mutex);
	session->hurried++;
	pthread_mutex_unlock(&session->mutex);
}

int session_prune(struct session *session, const struct prune_request *request, struct prune **ret_prune)
{
	(void)session;
	(void)request;
	(void)ret_prune;
	return -EROFS;
}

int session_protect(struct session *session, const struct cat_protection *request)
{
	(void)session;
	(void)request;
	return -EROFS;
}

bool session_store_locks(struct session *session)
{
	(void)session;
	return false;
}

void session_sweep(struct session *session)
{
	(void)session;
}
