/*
 * err.c - typed errors: filling, wrapping, and the two mappings to and from errno.
 *
 * Invariant: message is one printable line, cut at a character boundary when
 * it is too long; what a store sent may hold newlines or escape sequences and
 * goes to logs and terminals.
 */
#include "err.h"
#include "cleanup.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	int errnum;
	bool transient;
	bool permanent;
	const char *name;
} kinds[] = {
	[ERR_NONE] = {0, false, false, "none"},
	[ERR_NOT_FOUND] = {ENOENT, false, false, "not found"},
	[ERR_CONFLICT] = {EEXIST, false, false, "conflict"},
	[ERR_PRECONDITION] = {ESTALE, false, false, "precondition failed"},
	[ERR_DENIED] = {EACCES, false, true, "denied"},
	[ERR_THROTTLED] = {EIO, true, false, "throttled"},
	[ERR_UNAVAILABLE] = {EIO, true, false, "unavailable"},
	[ERR_INDETERMINATE] = {EIO, true, false, "indeterminate"},
	[ERR_TIMED_OUT] = {EIO, true, false, "timed out"},
	[ERR_CORRUPT] = {EIO, true, false, "corrupt"},
	[ERR_QUOTA] = {ENOSPC, false, true, "quota"},
	[ERR_TOO_LARGE] = {EFBIG, false, true, "too large"},
	[ERR_UNSUPPORTED] = {EOPNOTSUPP, false, true, "unsupported"},
	[ERR_CONFIGURATION] = {EINVAL, false, true, "configuration"},
	[ERR_ARCHIVED] = {EIO, false, false, "archived"},
	[ERR_CANCELLED] = {EINTR, false, false, "cancelled"},
	[ERR_NO_MEMORY] = {ENOMEM, false, false, "no memory"},
	[ERR_INTERNAL] = {EIO, false, false, "internal"},
};

int err_errno(enum err_kind kind)
{
	assert((size_t)kind < ARRAY_SIZE(kinds));
	return kinds[kind].errnum;
}

bool err_is_transient(enum err_kind kind)
{
	assert((size_t)kind < ARRAY_SIZE(kinds));
	return kinds[kind].transient;
}

bool err_is_permanent(enum err_kind kind)
{
	assert((size_t)kind < ARRAY_SIZE(kinds));
	return kinds[kind].permanent;
}

const char *err_kind_name(enum err_kind kind)
{
	assert((size_t)kind < ARRAY_SIZE(kinds));
	return kinds[kind].name;
}

/* EMFILE and ENFILE: descriptors come back, so another try may do. */
static const struct {
	int errnum;
	enum err_kind kind;
} errnums[] = {
	{ENOENT, ERR_NOT_FOUND},
	{ENOTDIR, ERR_NOT_FOUND},
	{ENODATA, ERR_NOT_FOUND},
	{EEXIST, ERR_CONFLICT},
	{EISDIR, ERR_CONFLICT},
	{ENOTEMPTY, ERR_CONFLICT},
	{ESTALE, ERR_PRECONDITION},
	{EACCES, ERR_DENIED},
	{EPERM, ERR_DENIED},
	{EROFS, ERR_DENIED},
	{EAGAIN, ERR_THROTTLED},
	{EBUSY, ERR_THROTTLED},
	{ECONNREFUSED, ERR_UNAVAILABLE},
	{ECONNRESET, ERR_UNAVAILABLE},
	{ECONNABORTED, ERR_UNAVAILABLE},
	{EHOSTUNREACH, ERR_UNAVAILABLE},
	{EHOSTDOWN, ERR_UNAVAILABLE},
	{ENETUNREACH, ERR_UNAVAILABLE},
	{ENETDOWN, ERR_UNAVAILABLE},
	{ENOTCONN, ERR_UNAVAILABLE},
	{EPIPE, ERR_UNAVAILABLE},
	{EMFILE, ERR_UNAVAILABLE},
	{ENFILE, ERR_UNAVAILABLE},
	{ETIMEDOUT, ERR_TIMED_OUT},
	{ETIME, ERR_TIMED_OUT},
	{EBADMSG, ERR_CORRUPT},
	{EPROTO, ERR_CORRUPT},
	{ENOSPC, ERR_QUOTA},
	{EDQUOT, ERR_QUOTA},
	{EFBIG, ERR_TOO_LARGE},
	{ENAMETOOLONG, ERR_TOO_LARGE},
	{E2BIG, ERR_TOO_LARGE},
	{EOVERFLOW, ERR_TOO_LARGE},
	{EOPNOTSUPP, ERR_UNSUPPORTED},
	{ENOSYS, ERR_UNSUPPORTED},
	{EXDEV, ERR_UNSUPPORTED},
	{EINVAL, ERR_CONFIGURATION},
	{EINTR, ERR_CANCELLED},
	{ECANCELED, ERR_CANCELLED},
	{ENOMEM, ERR_NO_MEMORY},
};

static enum err_kind kind_of_errno(int errnum)
{
	for (size_t i = 0; i < ARRAY_SIZE(errnums); i++)
		if (errnums[i].errnum == errnum)
			return errnums[i].kind;
	return ERR_INTERNAL;
}

/* Makes it one printable line. A multi-byte character at the end of a cut message is dropped: it may be half of one. */
static void message_tidy(char *message, bool cut)
{
	size_t len = strlen(message);

	if (cut) {
		size_t start = len;

		while (start > 0 && (message[start - 1] & 0xc0) == 0x80)
			start--;
		if (start > 0 && (message[start - 1] & 0xc0) == 0xc0)
			message[start - 1] = '\0';
	}
	for (char *at = message; *at; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = ' ';
}

static void message_format(struct err *err, const char *format, va_list args)
{
	int len = vsnprintf(err->message, sizeof(err->message), format, args);

	message_tidy(err->message, len >= (int)sizeof(err->message));
}

int err_set(struct err *err, enum err_kind kind, const char *format, ...)
{
	struct err new = {.kind = kind};
	va_list args;

	if (err) {
		va_start(args, format);
		message_format(&new, format, args); /* aside: an argument may be the old message */
		va_end(args);
		*err = new;
	}
	return -err_errno(kind);
}

/* Appends ": text" to the message. */
static void message_append(struct err *err, const char *text)
{
	size_t used = strlen(err->message);
	int len = snprintf(err->message + used, sizeof(err->message) - used, "%s%s", used ? ": " : "", text);

	message_tidy(err->message, (size_t)len >= sizeof(err->message) - used);
}

int err_from_errno(struct err *err, int errnum, const char *format, ...)
{
	struct err new = {.kind = kind_of_errno(errnum)};
	char text[64];
	va_list args;

	assert(errnum > 0);
	if (err) {
		va_start(args, format);
		message_format(&new, format, args);
		va_end(args);
		message_append(&new, strerror_r(errnum, text, sizeof(text)));
		*err = new;
	}
	return -errnum;
}

int err_wrap(struct err *err, const char *format, ...)
{
	struct err outer = *err;
	va_list args;

	va_start(args, format);
	message_format(&outer, format, args);
	va_end(args);
	message_append(&outer, err->message);
	*err = outer;
	return -err_errno(err->kind);
}
