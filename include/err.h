/*
 * err.h - the typed error that travels from a store up to whoever decides.
 *
 * Convention of the whole program: a function returns 0 or -errno, outputs come
 * last and are written only on success. From the backends up a function also
 * fills a `struct err`; its kind alone decides whether a call is tried again
 * (err_is_transient) and which errno an application sees (err_errno).
 *
 * Thread-safety: a struct err belongs to one thread; nothing here is shared.
 */
#ifndef VARVE_ERR_H
#define VARVE_ERR_H

#include <stdbool.h>
#include <stdint.h>

enum err_kind {
	ERR_NONE = 0,
	ERR_NOT_FOUND,     /* no such object, version, bucket (ENOENT) */
	ERR_CONFLICT,      /* the store's state forbids it: key is a directory, bucket not empty (EEXIST) */
	ERR_PRECONDITION,  /* If-Match / If-None-Match failed (ESTALE) */
	ERR_DENIED,        /* credentials or policy (EACCES) */
	ERR_THROTTLED,     /* slow down; retry_after_ms may be set (EAGAIN -> EIO) */
	ERR_UNAVAILABLE,   /* refused, reset, DNS, 5xx: nothing was done (EIO) */
	ERR_INDETERMINATE, /* request sent, reply lost: it may have been done (EIO) */
	ERR_TIMED_OUT,     /* the deadline passed (ETIMEDOUT -> EIO) */
	ERR_CORRUPT,       /* bytes, lengths, checksums or XML that cannot be (EIO) */
	ERR_QUOTA,         /* store, quota or disk full (ENOSPC) */
	ERR_TOO_LARGE,     /* over a limit of the store (EFBIG) */
	ERR_UNSUPPORTED,   /* this store cannot (EOPNOTSUPP) */
	ERR_CONFIGURATION, /* URL, option, missing library: the admin must act (EINVAL) */
	ERR_ARCHIVED,      /* in a cold tier; must be restored first (EIO) */
	ERR_CANCELLED,     /* interrupted or shutting down (EINTR) */
	ERR_NO_MEMORY,     /* ENOMEM */
	ERR_INTERNAL,      /* our own bug or the local disk (EIO) */
};

struct err {
	enum err_kind kind;
	int http_status;         /* 0 when there was none */
	uint32_t retry_after_ms; /* 0: not said */
	char message[256];       /* one line, no secrets, no newline */
};

/* Fills *err (which may be NULL) and returns -err_errno(kind), so that `return err_set(...)` reads well. */
int err_set(struct err *err, enum err_kind kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As err_set with the kind that fits a local errno (ENOSPC -> QUOTA, ENOENT -> NOT_FOUND, …); returns -errnum.
 * The reason is added: "open x" becomes "open x: No such file or directory". */
int err_from_errno(struct err *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "format: " before the message that is there: context on the way up. Returns -err_errno(err->kind). */
int err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The one mapping from kind to the (positive) errno an application sees. */
int err_errno(enum err_kind kind);

/* May the same call be sent again and hope to succeed? Throttled, unavailable, timed out, indeterminate, corrupt. */
bool err_is_transient(enum err_kind kind);

/* Can only an administrator mend it? Denied, quota, configuration, unsupported, too large. */
bool err_is_permanent(enum err_kind kind);

/* "not found", "throttled", … : stable words for logs and JSON. */
const char *err_kind_name(enum err_kind kind);

#endif
