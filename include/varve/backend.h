/*
 * backend.h - what a store must be able to do. Public: third-party backends
 * include this header and err.h's types through it, and nothing else.
 *
 * A backend moves whole objects and ranges of them, blocking, on the caller's
 * thread. It knows no catalog, no files and no retries: each call is one
 * attempt (a listing: one page), and the error's kind says what happened.
 *
 * Rules for every operation
 *  - Thread-safe: any number of calls run at once on one struct backend.
 *  - MUST return within call->deadline_ns, and soon after *call->cancelled is set.
 *  - MUST use ERR_INDETERMINATE once a changing request may have reached the
 *    store and its reply did not reach us; ERR_UNAVAILABLE only when it did not.
 *  - MUST NOT trust the store: lengths, ranges, checksums and echoed keys are
 *    compared, and a mismatch is ERR_CORRUPT. Bytes handed to a sink before the
 *    mismatch was seen are void: the caller drops them when the call fails.
 *  - Keys are byte strings, NUL-terminated, 1..max_key bytes, relative to the
 *    URL's prefix (the backend adds and strips the prefix).
 *  - Outputs are written on success only; what they point to is malloc'd and
 *    the caller's, freed by the _clear functions below.
 *  - Strings in requests are borrowed for the duration of the call.
 */
#ifndef VARVE_BACKEND_H
#define VARVE_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define VARVE_BACKEND_ABI 4

struct backend; /* each backend's own; its first member is `const struct backend_ops *ops` */

/* The frame of one call. */
struct call {
	int64_t deadline_ns;          /* CLOCK_MONOTONIC; 0: the backend's own patience */
	const atomic_bool *cancelled; /* may be NULL */
	bool essential;               /* waits for no room among limited requests: others depend on it */
	bool hasty;                   /* worth no wait for a store that cannot be reached: see transfer.h */
	_Atomic uint64_t *moved;      /* grows by what moves further than any attempt before: transfer's; may be NULL */
};

/* One "name: value" of user metadata. Names are lower case ASCII without the store's prefix (x-amz-meta-). */
struct meta_pair {
	char *name;
	char *value; /* any bytes but NUL; a backend encodes what its protocol cannot carry, and decodes it again */
};
struct meta {
	struct meta_pair *pairs;
	size_t count;
};
/* Borrowed value or NULL. */
const char *meta_get(const struct meta *meta, const char *name);
/* Adds or replaces; copies both. 0 or -ENOMEM. */
int meta_set(struct meta *meta, const char *name, const char *value);
int meta_copy(struct meta *ret_meta, const struct meta *meta);
void meta_clear(struct meta *meta);

enum object_flag {
	OBJECT_LATEST = 1 << 0,        /* the key's current version (listings of versions) */
	OBJECT_DELETE_MARKER = 1 << 1, /* no content; the key was deleted here */
	OBJECT_CRC32C = 1 << 2,        /* crc32c is the store's word for the full content */
	OBJECT_PREFIX = 1 << 3,        /* a common prefix of a delimited listing, key ends in the delimiter */
	OBJECT_META = 1 << 4,          /* in a listing: meta is filled */
};

struct object_info {
	char *key;
	char *native_id;     /* the store's version id; NULL where it has none. S3 "null" is an id like another */
	char *etag;          /* opaque, unquoted; NULL for prefixes and delete markers */
	char *storage_class; /* NULL: the default */
	char *content_type;  /* told where meta is; NULL: the default, or not known */
	uint64_t size;
	int64_t modified_ns; /* the store's time; for S3 multipart the time of initiation */
	uint32_t flags;      /* enum object_flag */
	uint32_t crc32c;
	struct meta meta; /* filled by head and get, by listings only with OBJECT_META */
};
void object_info_clear(struct object_info *info);

/* Names one stored object. native_id NULL: the current one. etag: also must match, else ERR_PRECONDITION. */
struct object_ref {
	const char *key;
	const char *native_id;
	const char *etag;
};

/* Gets content in order, without gaps. Non-zero aborts the call with ERR_CANCELLED. */
typedef int (*backend_sink_fn)(void *arg, const void *bytes, size_t len);

/* Where content comes from: may be asked for any range again (a retry, a second hash). Short only at an error;
 * returns 0 or -errno. */
typedef int (*backend_source_fn)(void *arg, void *ret_bytes, size_t len, uint64_t offset);

struct get_request {
	struct object_ref object;
	uint64_t offset;
	uint64_t length;        /* exactly so many bytes are delivered or the call fails; UINT64_MAX: to the end */
	uint64_t expected_size; /* of the whole object; UINT64_MAX: unknown. Differs -> ERR_CORRUPT */
	backend_sink_fn sink;
	void *sink_arg;
};

/* Conditions on the key's current object. At most one. */
struct put_condition {
	bool if_none_match;   /* the key must be free */
	const char *if_match; /* the current etag must be this */
};

struct put_request {
	const char *key;
	backend_source_fn source;
	void *source_arg;
	uint64_t size;
	const struct meta *meta;
	const char *content_type;  /* NULL: application/octet-stream */
	const char *storage_class; /* NULL: the store's default */
	struct put_condition condition;
	uint32_t crc32c; /* of the content; sent for the store to verify where it can, compared otherwise */
	bool has_crc32c;
};

/* Server-side copy of one object, at most limits.max_copy bytes. */
struct copy_request {
	struct object_ref source; /* pinned by native_id or etag */
	const char *key;
	const struct meta *meta; /* restated, never inherited */
	const char *content_type;
	const char *storage_class;
	struct put_condition condition;
};

/* A multipart upload. Parts are numbered from 1 and may be sent in any order, in parallel; their numbers grow with
 * their offsets, and no two of one upload overlap but a part sent again, which replaces the one of its number. */
struct upload_slot {
	unsigned number;
	uint64_t offset; /* where the part begins in the object: a store of files writes it there */
};
struct upload_part {
	unsigned number;
	uint64_t size;
	char *etag;      /* malloc'd by the part calls */
	uint32_t crc32c; /* of this part, when has_crc32c */
	bool has_crc32c;
};
void upload_part_clear(struct upload_part *part);

struct list_request {
	const char *prefix; /* "" : everything */
	char delimiter;     /* '/' or '\0' for none */
	bool versions;      /* every version and delete marker, newest first within a key */
	bool meta;          /* with their metadata, where the store's listings have it (OBJECT_META) */
	const char *token;  /* NULL: from the start; else ret_page->next of the page before, verbatim */
	unsigned max;       /* entries wished for; 0: the store's page */
};
struct list_page {
	struct object_info *entries;
	size_t count;
	char *next; /* NULL: that was the last page */
};
void list_page_clear(struct list_page *page);

/* What keeps one stored version from being removed (S3 Object Lock). */
struct object_lock {
	bool hold;               /* until it is lifted */
	int64_t retain_until_ns; /* wall; 0: leave the retention as it is */
	bool compliance;         /* nobody can shorten the retention; else those with a special right can */
};

enum backend_capability {
	BACKEND_VERSIONS = 1 << 0,        /* overwrite and delete keep what was, under a native id */
	BACKEND_IF_NONE_MATCH = 1 << 1,   /* put with condition.if_none_match */
	BACKEND_IF_MATCH = 1 << 2,        /* put with condition.if_match */
	BACKEND_REMOVE_IF_MATCH = 1 << 3, /* remove honours object.etag */
	BACKEND_COPY = 1 << 4,
	BACKEND_PART_COPY = 1 << 5,
	BACKEND_MULTIPART = 1 << 6,
	BACKEND_CRC32C = 1 << 7,      /* verifies the CRC-32C we send */
	BACKEND_TREE_KEYS = 1 << 8,   /* keys are paths: `a` and `a/b` cannot both exist */
	BACKEND_LOCAL_READ = 1 << 9,  /* open_local works: objects are files of this machine */
	BACKEND_LOCK = 1 << 10,       /* lock works: the store itself refuses to remove what is locked */
	BACKEND_META_NAMES = 1 << 11, /* metadata may have '_' and '.' in its names: proxies drop such headers */
};

struct backend_limits {
	uint64_t max_object; /* bytes */
	uint64_t max_put;    /* in one put */
	uint64_t max_copy;   /* in one copy */
	uint64_t min_part;   /* all parts but the last, copied ones too */
	uint64_t max_part;
	unsigned max_parts;
	unsigned max_key;       /* bytes, prefix not counted */
	unsigned max_component; /* bytes between slashes; 0: no such limit */
	unsigned max_meta;      /* bytes of names and values together */
};

struct backend_info {
	uint32_t capabilities; /* enum backend_capability, as probed */
	struct backend_limits limits;
	char *description; /* "s3://bucket/prefix at http://host:9000", no secrets; the backend's, valid while it is
			      open */
	char *known;       /* what was found out by trying, for backend_options.known; valid likewise. NULL: nothing */
};

/* Where and how. All strings borrowed for open() only; NULL when not given. */
struct backend_options {
	const char *url; /* "s3://bucket/prefix", "file:///dir", … */
	const char *endpoint;
	const char *region;
	const char *profile;        /* credentials profile */
	bool create;                /* make the bucket/directory, with versioning, when it is missing */
	bool read_only;             /* the probe must not write */
	const char *known;          /* backend_info.known of another time, if the caller trusts it yet: what it tells is
				       not tried again. What is not of this store, or not understood, tells nothing */
	int64_t connect_timeout_ns; /* 0: default 10 s */
	int64_t stall_timeout_ns;   /* no byte moved for so long ends an attempt; 0: default 20 s */
};

struct backend_counters {
	_Atomic uint64_t requests; /* sent, each attempt counted */
	_Atomic uint64_t bytes_sent;
	_Atomic uint64_t bytes_received;
	_Atomic uint64_t errors; /* attempts that failed; that nothing is there, or another object, is an answer */
};

struct backend_ops {
	unsigned abi;        /* VARVE_BACKEND_ABI */
	const char *name;    /* "s3" */
	const char *schemes; /* "s3" or "gs,gcs": URL schemes, comma separated */

	/* Parses the URL, finds credentials, touches nothing remote. */
	int (*open)(const struct backend_options *options, struct backend **ret_backend, struct err *err);
	/* After every call has returned. */
	void (*close)(struct backend *backend);

	/* Checks that the store exists and answers (creating it if asked), and finds out what it can. May be called
	 * again later (versioning can be switched). ret_info stays valid until the next probe or close. */
	int (*probe)(struct backend *backend, const struct call *call, struct backend_info *ret_info, struct err *err);

	int (*head)(struct backend *backend, const struct call *call, const struct object_ref *object,
		    struct object_info *ret_info, struct err *err);
	/* ret_info may be NULL. */
	int (*get)(struct backend *backend, const struct call *call, const struct get_request *request,
		   struct object_info *ret_info, struct err *err);
	/* Atomic: readers see the old object or the whole new one. ret_info: key, native_id, etag, size at least. */
	int (*put)(struct backend *backend, const struct call *call, const struct put_request *request,
		   struct object_info *ret_info, struct err *err);
	/* ret_info: key, native_id, and the etag if the store tells it; whoever doubts the copy asks. May be NULL. */
	int (*copy)(struct backend *backend, const struct call *call, const struct copy_request *request,
		    struct object_info *ret_info, struct err *err);
	/* native_id NULL: the current object (with BACKEND_VERSIONS a delete marker is left, whose id is
	 * *ret_marker_id, else NULL). With native_id: that version for good. A key that is not there is success.
	 * ret_marker_id may be NULL. */
	int (*remove)(struct backend *backend, const struct call *call, const struct object_ref *object,
		      char **ret_marker_id, struct err *err);
	/* One page. Keys in byte order. MUST make progress: a page whose next equals the token given is ERR_CORRUPT. */
	int (*list)(struct backend *backend, const struct call *call, const struct list_request *request,
		    struct list_page *ret_page, struct err *err);

	/* Multipart; all NULL without BACKEND_MULTIPART. request->source is not used by begin; there has_crc32c only
	 * announces that every part will be sent with its checksum, and none copied (crc32c itself is not looked at).
	 */
	int (*upload_begin)(struct backend *backend, const struct call *call, const struct put_request *request,
			    char **ret_upload_id, struct err *err);
	int (*upload_part)(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			   const struct put_request *body, const struct upload_slot *slot, struct upload_part *ret_part,
			   struct err *err);
	int (*upload_part_copy)(struct backend *backend, const struct call *call, const char *key,
				const char *upload_id, const struct get_request *source, const struct upload_slot *slot,
				struct upload_part *ret_part, struct err *err);
	int (*upload_complete)(struct backend *backend, const struct call *call, const struct put_request *request,
			       const char *upload_id, const struct upload_part *parts, size_t count,
			       struct object_info *ret_info, struct err *err);
	int (*upload_abort)(struct backend *backend, const struct call *call, const char *key, const char *upload_id,
			    struct err *err);

	/* Optional (BACKEND_LOCAL_READ): a read-only descriptor of the object's content, the caller's to close. */
	int (*open_local)(struct backend *backend, const struct object_ref *object, int *ret_fd, struct err *err);

	/* Optional (BACKEND_LOCK): sets or lifts the hold of the version, which must be named by its native_id, and
	 * sets or extends its retention. ERR_DENIED: it may not be shortened. */
	int (*lock)(struct backend *backend, const struct call *call, const struct object_ref *object,
		    const struct object_lock *lock, struct err *err);

	/* Live figures, the backend's own storage. */
	const struct backend_counters *(*counters)(struct backend *backend);
};

/* Inline wrapper for the one member every backend shares. */
static inline const struct backend_ops *backend_ops(const struct backend *backend)
{
	return *(const struct backend_ops *const *)backend;
}

/* --- registry: the backends built in, by URL scheme ------------------------------------------- */

/* NULL with ERR_CONFIGURATION and the list of schemes when there is none. */
const struct backend_ops *backend_find(const char *url, struct err *err);

#endif
