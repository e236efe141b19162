/*
 * fake_session.h - a session without a filesystem: for testing what stands around one.
 *
 * Link it before the real one. Its functions are those of fs/session.h.
 */
#ifndef VARVE_TESTS_FAKE_SESSION_H
#define VARVE_TESTS_FAKE_SESSION_H

#include <stdint.h>

#include "fs/session.h"

struct session *fake_session_new(void);
void fake_session_free(struct session *session);

void fake_session_set_pending(struct session *session, const struct session_pending *pending);
/* Not owned; may be as long and as oddly laid out as it likes. */
void fake_session_set_status(struct session *session, const char *json);
unsigned fake_session_hurried(struct session *session);

#endif
