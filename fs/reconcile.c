/*
 * reconcile.c - see reconcile.h.
 *
 * Every piece of work is a flight: (kind, ino) with one answer for all who ask
 * while it is under way.
 *
 *	          flight_start                 pool thread
 *	(none) ------------------> QUEUED ---------------------> RUNNING ---> landed: out of the table,
 *	   |                          |  flight_join withdraws      ^         its waiters take rc and err
 *	   +--------------------------+-----------------------------+
 *	        flight_join: run by the one who needs it
 *
 * So nobody waits behind a queue: who needs a queued flight runs it himself.
 * A flight that ended only because its own runner gave up (interrupted, out of
 * time) is no answer for the others; the next of them flies again.
 *
 * Invariants
 *  1. A listing is adopted whole or not at all, and `listed_at` is from before its first page.
 *  2. What HEAD and GET say is taken only for the very object the catalog knows: pinned by native id and ETag.
 *  3. The reserved prefix `.varve/` is never shown.
 *
 * Threads: the callers', and pool threads in the background. `lock` guards the
 * tables and all fields of flights but what only their runner uses; it ranks
 * before the transfer's queue and is never held across a call of the store or
 * the catalog.
 */
#include "fs/reconcile.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/ahead.h"
#include "fs/objmeta.h"
#include "fs/unlisted.h"
#include "lock.h"
#include "log.h"
#include "table.h"

#define MODULE "reconcile"
#define MAX_AGE_DEFAULT (60 * NS_PER_SEC)
#define ENTRIES_DEFAULT (UINT64_C(4) << 20)
#define FILE_MODE_DEFAULT 0644
#define DIR_MODE_DEFAULT 0755
#define IDLE_PAGES_MAX 100     /* of a listing, in a row */
#define PREFETCH 64            /* siblings resolved with one that is asked for */
#define PREFETCH_LOOK 512      /* names looked at to find them */
#define VERSION_HEADS_MAX 1024 /* older ones are taken as the listing shows them */
#define VERSIONS_MAX 65536
#define ASKED_MAX 65536
#define PAST_AGES 10                 /* the past of a directory is asked for again after so many max_age */
#define EXTENT_PAGES_MAX 64          /* of a deleted directory, looked through for when it was deleted */
#define RETRY_PAUSE (5 * NS_PER_SEC) /* after a failure in the background */
#define CANCEL_POLL (200 * NS_PER_MS)
#define ARENA_CHUNK (256 << 10)
#define RESERVED ".varve/"

enum kind { KIND_LIST, KIND_HEAD, KIND_VERSIONS, KIND_PAST };
enum flight_state { FLIGHT_QUEUED, FLIGHT_RUNNING, FLIGHT_LANDED };

struct flight {
	struct table_node node;
	struct reconcile *owner;
	enum kind kind;
	uint64_t ino;
	enum flight_state state;
	unsigned refs; /* the runner's and each waiter's */
	int rc;
	struct err err;
	struct transfer_task task;
};

/* When an inode's versions were last asked for. */
struct asked {
	struct table_node node;
	uint64_t ino;
	int64_t at; /* monotonic */
};

struct reconcile {
	struct reconcile_options options;
	atomic_bool stop;
	_Atomic int64_t quiet_until; /* monotonic: no background work before */

	struct lock lock;
	pthread_cond_t landed;
	struct table flights; /* lock */
	struct table asked;   /* lock */
	unsigned background;  /* lock: tasks submitted and not ended */

	_Atomic uint64_t listings, pages, entries, heads, failures, expired;
};

static const struct call patient_call;

/* --- arena: many small strings that go together -------------------------------------------------- */

struct chunk {
	struct chunk *next;
	size_t used, size;
	char bytes[];
};

struct arena {
	struct chunk *chunks;
};

static void arena_free(struct arena *arena)
{
	while (arena->chunks) {
		struct chunk *next = arena->chunks->next;

		free(arena->chunks);
		arena->chunks = next;
	}
}

/* A copy with a NUL behind it, or NULL. */
static char *arena_copy(struct arena *arena, const void *bytes, size_t len)
{
	struct chunk *chunk = arena->chunks;
	char *copy;

	if (!chunk || chunk->size - chunk->used < len + 1) {
		size_t size = len + 1 > ARENA_CHUNK ? len + 1 : ARENA_CHUNK;

		chunk = malloc(sizeof(*chunk) + size);
		if (!chunk)
			return NULL;
		*chunk = (struct chunk){.next = arena->chunks, .size = size};
		arena->chunks = chunk;
	}
	copy = chunk->bytes + chunk->used;
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	chunk->used += len + 1;
	return copy;
}

/* NULL stays NULL. -ENOMEM. */
static int arena_string(struct arena *arena, const char *string, const char **ret_copy)
{
	const char *copy = string ? arena_copy(arena, string, strlen(string)) : NULL;

	if (string && !copy)
		return -ENOMEM;
	*ret_copy = copy;
	return 0;
}

/* What a listing or a set of HEADs found. */
struct findings {
	struct arena arena;
	struct cat_found *found;
	size_t count, cap;
};

static void findings_clear(struct findings *findings)
{
	arena_free(&findings->arena);
	free(findings->found);
	*findings = (struct findings){0};
}

static int findings_add(struct findings *findings, const struct cat_found *found, uint64_t max)
{
	if (findings->count >= max)
		return -E2BIG;
	if (ARRAY_ROOM(findings->found, findings->cap, findings->count))
		return -ENOMEM;
	findings->found[findings->count++] = *found;
	return 0;
}

/* The facts of the store that listings and HEADs share. */
static int found_store_facts(struct arena *arena, const struct object_info *info, struct cat_found *ret_found)
{
	int rc = arena_string(arena, info->key, &ret_found->key);

	if (!rc)
		rc = arena_string(arena, info->native_id, &ret_found->native_id);
	if (!rc)
		rc = arena_string(arena, info->etag, &ret_found->etag);
	if (!rc)
		rc = arena_string(arena, info->storage_class, &ret_found->storage_class);
	ret_found->size = info->size;
	ret_found->modified_ns = info->modified_ns;
	return rc;
}

/* --- metadata --------------------------------------------------------------------------------------------- */

/* Type and permissions of what HEAD showed. A key with a '/' behind it is a directory, all others are none. */
static uint32_t mode_of(const struct reconcile_options *options, const struct objmeta *meta, bool directory)
{
	bool said = meta->has & OBJMETA_MODE;
	uint32_t type = said ? meta->mode & S_IFMT : 0;

	if (directory)
		return S_IFDIR | (said && (!type || S_ISDIR(type)) ? meta->mode & 07777 : options->dir_mode);
	if (!said || S_ISDIR(type))
		return S_IFREG | options->file_mode;
	return (type ? type : S_IFREG) | (meta->mode & 07777);
}

static bool never_was_content(enum cat_origin origin)
{
	return origin == CAT_ORIGIN_SUSPECT || origin == CAT_ORIGIN_CONFLICT;
}

/* `meta` must live as long as *ret_found: ids and the host's name are borrowed from it. */
static void found_meta(const struct reconcile_options *options, const struct objmeta *meta, struct cat_found *ret_found)
{
	ret_found->resolved = true;
	ret_found->mode = mode_of(options, meta, ret_found->directory);
	ret_found->uid = meta->has & OBJMETA_UID ? meta->uid : options->uid;
	ret_found->gid = meta->has & OBJMETA_GID ? meta->gid : options->gid;
	ret_found->mtime = meta->has & OBJMETA_MTIME ? meta->mtime : ret_found->modified_ns;
	ret_found->file_id = meta->has & OBJMETA_FILE_ID ? meta->file_id : NULL;
	ret_found->seq = meta->has & OBJMETA_SEQ ? meta->seq : 0;
	ret_found->commit_ns = meta->has & OBJMETA_COMMIT ? meta->commit_ns : 0;
	ret_found->has_author = meta->has & OBJMETA_AUTHOR;
	ret_found->author = meta->author;
	ret_found->has_crc32c = meta->has & OBJMETA_CRC32C;
	ret_found->crc32c = meta->crc32c;
	ret_found->host = meta->has & OBJMETA_HOST ? meta->host : NULL;
	ret_found->origin = meta->has & OBJMETA_ORIGIN ? meta->origin : CAT_ORIGIN_CLOSE;
	if (never_was_content(ret_found->origin) && strncmp(ret_found->key, RESERVED, strlen(RESERVED)) != 0)
		ret_found->origin = CAT_ORIGIN_CLOSE; /* somebody made it the file's content */
	if ((meta->has & OBJMETA_LINK) && !ret_found->directory) {
		ret_found->link_id = meta->link_id;
		ret_found->mode = S_IFREG | (ret_found->mode & 07777);
	}
}

/* What a listing tells of metadata, copied. What takes another request to know stays unresolved: a symlink's target,
 * the facts of an upload begun before its version. */
static int found_told(const struct reconcile_options *options, struct arena *arena, const struct object_info *info,
		      struct cat_found *found)
{
	struct cat_found told = *found;
	struct objmeta meta;
	int rc = 0;

	if (!(info->flags & OBJECT_META) || meta_get(&info->meta, AHEAD_FACTS_META))
		return 0;
	objmeta_decode(&info->meta, &meta);
	found_meta(options, &meta, &told);
	if (S_ISLNK(told.mode))
		return 0;
	if (told.file_id)
		told.file_id = (uint8_t *)arena_copy(arena, told.file_id, CAT_FILE_ID_SIZE);
	if (told.link_id)
		told.link_id = (uint8_t *)arena_copy(arena, told.link_id, CAT_FILE_ID_SIZE);
	if ((!told.file_id && meta.has & OBJMETA_FILE_ID) || (!told.link_id && meta.has & OBJMETA_LINK))
		rc = -ENOMEM;
	if (!rc)
		rc = arena_string(arena, told.host, &told.host);
	if (!rc)
		*found = told;
	return rc;
}

/* --- listing a directory ------------------------------------------------------------------------------ */

/* Where to list, and since when what it shows holds. */
struct place {
	uint64_t dir;
	struct buf prefix; /* of every key beneath */
	int64_t now;
	bool listed; /* before */
};

static int place_closure(struct cat_txn *txn, void *arg)
{
	struct place *place = arg;
	struct cat_inode inode;
	int rc;

	buf_reset(&place->prefix); /* the closure may run again */
	place->now = cat_now(txn); /* the catalog's clock can be ahead of the wall's; names are compared by it */
	if (place->dir == CAT_ROOT_INO)
		return 0;
	rc = cat_inode_get(txn, place->dir, &inode);
	if (rc)
		return rc;
	place->listed = inode.flags & CAT_LISTED;
	rc = cat_key_of(txn, place->dir, &place->prefix);
	buf_addc(&place->prefix, '/');
	return !rc && buf_failed(&place->prefix) ? -ENOMEM : rc;
}

struct listing {
	struct reconcile *reconcile;
	const char *prefix;
	size_t prefix_len;
	bool meta;   /* wished for */
	bool marker; /* the directory's own was there */
	struct findings findings;
};

/* The name under which a component is shown, and the component itself where the name does not tell it. */
static int found_name(struct arena *arena, const char *component, size_t len, struct cat_found *ret_found)
{
	AUTO_BUF name = BUF_INIT;

	(void)escape_component(component, len, &name); /* whether it differs is of no interest here */
	if (buf_failed(&name))
		return -ENOMEM;
	ret_found->name = arena_copy(arena, name.data, name.len);
	if (!ret_found->name)
		return -ENOMEM;
	if (!escape_is_digest(name.data, name.len))
		return 0;
	ret_found->component = arena_copy(arena, component, len);
	return ret_found->component ? 0 : -ENOMEM;
}

static int list_entry_add(struct listing *list, const struct object_info *info)
{
	struct findings *findings = &list->findings;
	struct cat_found found = {0};
	const char *component = info->key + list->prefix_len;
	size_t len;
	int rc;

	if (strncmp(info->key, list->prefix, list->prefix_len) != 0)
		return -EBADMSG;
	len = strlen(component);
	if (!len) {
		list->marker = true; /* HEAD asks for it */
		return 0;
	}
	if (!list->prefix_len && !strcmp(component, RESERVED))
		return 0;
	found.directory = component[len - 1] == '/';
	len -= found.directory;
	if (memchr(component, '/', len) || (!found.directory && (info->flags & OBJECT_PREFIX)))
		return -EBADMSG; /* a store that does not know delimiters */
	rc = found_name(&findings->arena, component, len, &found);
	if (!rc)
		rc = found_store_facts(&findings->arena, info, &found);
	if (found.directory) /* a common prefix has no facts of an object */
		found.size = 0;
	else if (!rc)
		rc = found_told(&list->reconcile->options, &findings->arena, info, &found);
	return rc ? rc : findings_add(findings, &found, list->reconcile->options.max_entries);
}

/* Keys come in byte order. A page may bring nothing new when all of it was deleted meanwhile, but not one page after
 * another: a store that lies could go on like that for ever. */
static bool listing_stalls(const struct list_page *page, struct buf *last, unsigned *idle)
{
	const char *newest = page->count ? page->entries[page->count - 1].key : "";

	if (strcmp(newest, last->len ? last->data : "") <= 0)
		return ++*idle > IDLE_PAGES_MAX;
	*idle = 0;
	buf_reset(last);
	buf_adds(last, newest);
	return false;
}

static int list_pages(struct listing *list, const struct call *call, struct err *err)
{
	AUTO_FREE char *token = NULL;
	AUTO_BUF last = BUF_INIT;
	struct list_request request = {.prefix = list->prefix, .delimiter = '/', .meta = list->meta};
	unsigned idle = 0;
	int rc;

	do {
		struct list_page page = {0};

		request.token = token;
		rc = transfer_list(list->reconcile->options.transfer, call, &request, &page, err);
		if (rc)
			return rc;
		atomic_fetch_add(&list->reconcile->pages, 1);
		for (size_t i = 0; i < page.count && !rc; i++)
			rc = list_entry_add(list, &page.entries[i]);
		if (!rc && listing_stalls(&page, &last, &idle))
			rc = -ELOOP;
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (!rc && token);
	if (rc == -EBADMSG)
		return err_set(err, ERR_CORRUPT, "listing of %s: a key that was not asked for", list->prefix);
	if (rc == -ELOOP)
		return err_set(err, ERR_CORRUPT, "listing of %s: page after page brings nothing new", list->prefix);
	if (rc == -E2BIG)
		return err_set(err, ERR_TOO_LARGE, "%s has more than %zu entries", list->prefix, list->findings.count);
	return rc ? err_from_errno(err, -rc, "listing of %s", list->prefix) : 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct cat_found *)a)->key, ((const struct cat_found *)b)->key);
}

/* What a store listed twice, on two pages while it changed, stays once. `a` beside `a/` are two: the catalog has the
 * names for both. */
static void list_dedupe(struct findings *findings)
{
	size_t kept = 0;

	if (findings->count)
		qsort(findings->found, findings->count, sizeof(*findings->found), by_key);
	for (size_t i = 0; i < findings->count; i++) {
		if (!kept || by_key(&findings->found[kept - 1], &findings->found[i]))
			findings->found[kept++] = findings->found[i];
	}
	findings->count = kept;
}

static int any_past(void *arg, const struct cat_past *past)
{
	(void)arg;
	(void)past; /* that there is one says it all */
	return 1;
}

static int any_place(struct cat_txn *txn, void *arg)
{
	const struct cat_found *found = arg;

	return cat_place_any(txn, 0, found->key);
}

/* May there be nothing beneath the prefix? So it may when all that it had here vanished, and when it is news in a
 * directory whose names we know, or the name of what was here before, or where versions lie whose files went on
 * elsewhere. 1, 0, -errno. */
static int is_doubtful(struct catalog *catalog, uint64_t dir, const struct cat_found *found)
{
	struct cat_inode inode;
	int rc;

	if (!found->directory || found->etag)
		return 0;
	if (catalog_lookup(catalog, dir, found->name, &inode) == 0)
		return S_ISDIR(inode.mode) && inode.flags & CAT_LISTED ? unlisted_is_bare(catalog, inode.ino) : 0;
	rc = catalog_getattr(catalog, dir, &inode);
	if (rc || inode.flags & CAT_LISTED)
		return rc ? rc : 1;
	rc = catalog_past(catalog, dir, found->name, any_past, NULL);
	return rc ? rc : catalog_view(catalog, any_place, (void *)found); /* only read */
}

static int is_phantom(struct reconcile *reconcile, const struct call *call, uint64_t dir, const struct cat_found *found,
		      struct err *err)
{
	struct list_request request = {.prefix = found->key, .max = 1};
	struct list_page page = {0};
	int rc = is_doubtful(reconcile->options.catalog, dir, found);

	if (rc <= 0)
		return rc;
	rc = transfer_list(reconcile->options.transfer, call, &request, &page, err);
	if (rc)
		return rc;
	rc = !page.count && !page.next;
	list_page_clear(&page);
	return rc;
}

/* MinIO lists a prefix under which everything is deleted as if something were there, and any listing may be older than
 * the end of a removal: a directory that was removed or renamed must not come back so. */
static int drop_phantoms(struct reconcile *reconcile, const struct call *call, uint64_t dir, struct findings *findings,
			 struct err *err)
{
	size_t kept = 0;
	int rc = 0;

	for (size_t i = 0; i < findings->count && rc >= 0; i++) {
		rc = is_phantom(reconcile, call, dir, &findings->found[i], err);
		if (!rc)
			findings->found[kept++] = findings->found[i];
	}
	if (rc < 0)
		return err->kind ? rc : err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
	findings->count = kept;
	return 0;
}

/* What the catalog knows of the inode to be resolved. */
struct subject {
	uint64_t ino;
	struct cat_inode inode;
	struct cat_name name; /* its oldest */
	struct cat_copy copy; /* key NULL: none */
	struct buf key;       /* where it belongs */
};

static int first_link(void *arg, const struct cat_name *name)
{
	struct subject *subject = arg;

	subject->name = *name;
	return 1; /* the oldest is enough */
}

static int name_closure(struct cat_txn *txn, void *arg)
{
	struct subject *subject = arg;
	int rc = cat_link_each(txn, subject->ino, first_link, subject);

	return rc == 1 ? 0 : rc ? rc : -ENOENT;
}

struct hidden {
	const struct unlisted *unlisted;
	const char *prefix;
	struct findings *findings;
	uint64_t max;
};

static int keep_hidden(void *arg, const struct cat_name *name)
{
	const struct hidden *hidden = arg;
	struct cat_found found = {.directory = true};
	AUTO_BUF key = BUF_INIT;
	int rc = unlisted_is_there(hidden->unlisted, name->ino);

	if (rc <= 0)
		return rc;
	buf_addf(&key, "%s%s/", hidden->prefix, name->name); /* of no interest but where it begins */
	if (buf_failed(&key))
		return -ENOMEM;
	rc = arena_string(&hidden->findings->arena, name->name, &found.name);
	if (!rc)
		rc = arena_string(&hidden->findings->arena, key.data, &found.key);
	return rc ? rc : findings_add(hidden->findings, &found, hidden->max);
}

static int by_string(const void *a, const void *b);

/* Directories that are there and not in the listing are added to it. */
static int add_hidden(struct reconcile *reconcile, const struct call *call, uint64_t dir, struct listing *list)
{
	const struct unlisted unlisted = {
		.catalog = reconcile->options.catalog, .transfer = reconcile->options.transfer, .call = call};
	struct hidden hidden = {.unlisted = &unlisted,
				.prefix = list->prefix,
				.findings = &list->findings,
				.max = reconcile->options.max_entries};
	AUTO_FREE const char **names = calloc(list->findings.count + 1, sizeof(*names));
	size_t count = 0;

	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < list->findings.count; i++) {
		if (list->findings.found[i].directory)
			names[count++] = list->findings.found[i].name;
	}
	qsort(names, count, sizeof(*names), by_string);
	return unlisted_each(unlisted.catalog, dir, names, count, keep_hidden, &hidden);
}

/* Where the listing may hide something: stores with delete markers. */
static int mind_hidden(struct reconcile *reconcile, const struct call *call, struct listing *list,
		       struct cat_adopt *adopt, struct err *err)
{
	const struct unlisted unlisted = {
		.catalog = reconcile->options.catalog, .transfer = reconcile->options.transfer, .call = call};
	int rc = 0;

	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	if (!list->findings.count)
		rc = unlisted_is_there(&unlisted, adopt->dir);
	adopt->hidden = rc == 1;
	if (!rc)
		rc = add_hidden(reconcile, call, adopt->dir, list);
	if (rc < 0)
		return err_from_errno(err, -rc, "what a listing of %s may hide", list->prefix);
	if (adopt->hidden)
		log_debug(MODULE, "the store lists nothing beneath %s, where there is something", list->prefix);
	return 0;
}

static int flight_join(struct reconcile *reconcile, enum kind kind, uint64_t ino, const struct call *call,
		       struct err *err);

/* A directory that others emptied, or in which there was nothing from the first look on, and that has no object of its
 * own, is no directory (any more): where it has its name that is seen. */
static void list_above(struct reconcile *reconcile, const struct call *call, uint64_t dir)
{
	struct subject subject = {.ino = dir};
	struct err why = {0};

	if (unlisted_is_bare(reconcile->options.catalog, dir) != 1 ||
	    catalog_view(reconcile->options.catalog, name_closure, &subject))
		return;
	if (flight_join(reconcile, KIND_LIST, subject.name.parent, call, &why))
		log_debug(MODULE, "above a directory that others emptied: %s", why.message);
}

/*
 * Listings of objects tell no native ids, so what they alone tell of an object on a store with versions is not enough
 * to know it again beneath a newer one: only who asks for the versions next wishes for metadata.
 */
enum wish { WISH_NAMES, WISH_META };

static int list_directory(struct reconcile *reconcile, uint64_t dir, enum wish wish, const struct call *call,
			  struct err *err)
{
	const struct reconcile_options *options = &reconcile->options;
	struct place place = {.dir = dir, .prefix = BUF_INIT};
	struct listing list = {.reconcile = reconcile, .meta = wish == WISH_META};
	struct cat_adopt adopt = {
		.dir = dir,
		.file_mode = options->file_mode,
		.dir_mode = options->dir_mode,
		.uid = options->uid,
		.gid = options->gid,
		.changed = options->changed,
		.changed_arg = options->changed_arg,
	};
	int rc = catalog_view(options->catalog, place_closure, &place);
	bool was_bare = unlisted_is_bare(options->catalog, dir) != 0;

	if (rc) {
		rc = err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
		goto out;
	}
	adopt.listed_at = place.now;
	list.prefix = place.prefix.data;
	list.prefix_len = place.prefix.len;
	atomic_fetch_add(&reconcile->listings, 1);
	rc = list_pages(&list, call, err);
	if (rc)
		goto out;
	list_dedupe(&list.findings);
	rc = drop_phantoms(reconcile, call, dir, &list.findings, err);
	if (!rc)
		rc = mind_hidden(reconcile, call, &list, &adopt, err);
	if (rc)
		goto out;
	adopt.found = list.findings.found;
	adopt.count = list.findings.count;
	rc = catalog_adopt(options->catalog, &adopt);
	if (rc)
		rc = err_from_errno(err, -rc, "listing of %s", list.prefix);
	else
		atomic_fetch_add(&reconcile->entries, adopt.count);
	if (!rc && !list.marker && !(place.listed && was_bare))
		list_above(reconcile, call, dir);
out:
	findings_clear(&list.findings);
	buf_free(&place.prefix);
	return rc;
}

static int list_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	return list_directory(reconcile, dir, WISH_NAMES, call, err);
}

/* --- HEADs ------------------------------------------------------------------------------------------------- */

static int subject_closure(struct cat_txn *txn, void *arg)
{
	struct subject *subject = arg;
	int rc;

	buf_reset(&subject->key); /* the closure may run again */
	cat_copy_clear(&subject->copy);
	subject->copy = (struct cat_copy){0};
	rc = cat_inode_get(txn, subject->ino, &subject->inode);
	if (rc || !(subject->inode.flags & CAT_UNRESOLVED))
		return rc;
	rc = cat_link_each(txn, subject->ino, first_link, subject);
	if (rc != 1)
		return rc ? rc : -ENOENT;
	rc = cat_key_of(txn, subject->ino, &subject->key);
	if (!rc && S_ISDIR(subject->inode.mode))
		buf_addc(&subject->key, '/');
	if (!rc && subject->inode.version) {
		rc = cat_copy_get(txn, subject->ino, subject->inode.version, &subject->copy);
		rc = rc == -ENOENT ? 0 : rc;
	}
	return !rc && buf_failed(&subject->key) ? -ENOMEM : rc;
}

static void subject_clear(struct subject *subject)
{
	buf_free(&subject->key);
	cat_copy_clear(&subject->copy);
}

/* The object to ask about: what we know lies there, and nothing that took its place. */
static struct object_ref subject_object(const struct subject *subject)
{
	if (!subject->copy.key)
		return (struct object_ref){.key = subject->key.data};
	return (struct object_ref){
		.key = subject->copy.key,
		.native_id = subject->copy.native_id,
		.etag = subject->copy.etag,
	};
}

struct body {
	char bytes[OBJMETA_TARGET_MAX + 1];
	size_t len;
};

static int body_sink(void *arg, const void *bytes, size_t len)
{
	struct body *body = arg;

	if (len > sizeof(body->bytes) - 1 - body->len)
		return -EFBIG;
	memcpy(body->bytes + body->len, bytes, len);
	body->len += len;
	return 0;
}

/* *ret_body is the target with its NUL; len 0 when the object holds none. */
static int target_get(struct reconcile *reconcile, const struct call *call, const struct object_info *info,
		      struct body *ret_body, struct err *err)
{
	struct objmeta meta;
	struct get_request request = {
		.object = {.key = info->key, .native_id = info->native_id, .etag = info->etag},
		.length = UINT64_MAX,
		.expected_size = info->size,
		.sink = body_sink,
		.sink_arg = ret_body,
	};
	size_t len = 0;
	int rc;

	ret_body->len = 0;
	if (!info->size || info->size > OBJMETA_TARGET_MAX)
		return 0;
	rc = transfer_get(reconcile->options.transfer, call, &request, NULL, err);
	if (rc)
		return rc;
	objmeta_decode(&info->meta, &meta);
	if (!objmeta_symlink_target(&meta, ret_body->bytes, ret_body->len, &len))
		len = 0;
	ret_body->len = len;
	ret_body->bytes[len] = '\0';
	return 0;
}

static void tell_changed(struct reconcile *reconcile, const struct subject *subject)
{
	if (reconcile->options.changed)
		reconcile->options.changed(reconcile->options.changed_arg, subject->name.parent, subject->name.name,
					   subject->ino);
}

/* HEAD tells whole seconds where the listing told milliseconds; a version's time, and so its name, must not change. */
static int64_t finer_time(int64_t head_ns, int64_t listed_ns)
{
	return head_ns % NS_PER_SEC == 0 && listed_ns / NS_PER_SEC == head_ns / NS_PER_SEC ? listed_ns : head_ns;
}

/* HEAD's answer into the catalog. */
static int head_take(struct reconcile *reconcile, const struct call *call, const struct subject *subject,
		     const struct object_info *info, struct err *err)
{
	struct cat_found found = {
		.name = subject->name.name,
		.key = info->key ? info->key : subject->key.data,
		.native_id = info->native_id,
		.etag = info->etag,
		.storage_class = info->storage_class,
		.size = info->size,
		.modified_ns = finer_time(info->modified_ns, subject->copy.key ? subject->copy.stored_ns : 0),
		.directory = S_ISDIR(subject->inode.mode),
	};
	const struct cat_watcher watcher = {.changed = reconcile->options.changed,
					    .arg = reconcile->options.changed_arg};
	struct objmeta meta;
	struct cat_inode inode;
	struct body body;
	int rc = 0;

	objmeta_decode(&info->meta, &meta);
	found_meta(&reconcile->options, &meta, &found);
	if (S_ISLNK(found.mode)) {
		rc = target_get(reconcile, call, info, &body, err);
		if (rc)
			return rc;
		found.target = body.len ? body.bytes : NULL;
		if (!found.target)
			found.mode = S_IFREG | reconcile->options.file_mode;
	}
	rc = catalog_resolve(reconcile->options.catalog, subject->ino, &found, &watcher, &inode);
	if (rc == -ESTALE)
		return err_set(err, ERR_PRECONDITION, "%s is another object now", found.key);
	if (rc)
		return err_from_errno(err, -rc, "%s", found.key);
	if ((inode.mode ^ subject->inode.mode) & S_IFMT) /* a listing took it for a plain file */
		tell_changed(reconcile, subject);
	return 0;
}

static int resolved_closure(struct cat_txn *txn, void *arg)
{
	const struct subject *subject = arg;
	struct cat_inode inode;
	int rc = cat_inode_get(txn, subject->ino, &inode);

	if (rc || !(inode.flags & CAT_UNRESOLVED))
		return rc;
	inode.flags &= ~(uint32_t)CAT_UNRESOLVED;
	return cat_inode_put(txn, &inode);
}

/* A directory that is only a common prefix: nothing says anything of it, and no object is to be recorded at its key. */
static int head_nothing(struct reconcile *reconcile, struct subject *subject, struct err *err)
{
	int rc = catalog_update(reconcile->options.catalog, resolved_closure, subject);

	return rc ? err_from_errno(err, -rc, "%s", subject->key.data) : 0;
}

static int head_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	struct subject subject = {.ino = ino, .key = BUF_INIT};
	struct object_info info = {0};
	struct object_ref object;
	struct err why = {0};
	int rc = catalog_view(reconcile->options.catalog, subject_closure, &subject);

	if (rc)
		rc = err_from_errno(&why, -rc, "inode %llu", (unsigned long long)ino);
	if (rc || !(subject.inode.flags & CAT_UNRESOLVED))
		goto out;
	object = subject_object(&subject);
	atomic_fetch_add(&reconcile->heads, 1);
	rc = ahead_head(reconcile->options.transfer, call, &object, &info, &why);
	if (!rc)
		rc = head_take(reconcile, call, &subject, &info, &why);
	else if (why.kind == ERR_NOT_FOUND && S_ISDIR(subject.inode.mode))
		rc = head_nothing(reconcile, &subject, &why);
	if (rc && (why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION)) {
		rc = flight_join(reconcile, KIND_LIST, subject.name.parent, call, &why);
		if (!rc)
			rc = err_set(&why, ERR_PRECONDITION, "%s was replaced in the store", object.key);
	}
out:
	if (rc && err)
		*err = why;
	object_info_clear(&info);
	subject_clear(&subject);
	return rc;
}

/* --- versions -------------------------------------------------------------------------------------------------- */

/* What tells the versions of one inode apart that the catalog knows (cat_object_id). */
struct known {
	uint64_t ino;
	struct buf key;
	struct cat_txn *txn;
	char **ids;
	size_t count, cap;
};

static void known_clear(struct known *known)
{
	for (size_t i = 0; i < known->count; i++)
		free(known->ids[i]);
	free(known->ids);
	known->ids = NULL;
	known->count = known->cap = 0;
	buf_reset(&known->key);
}

static int known_version(void *arg, const struct cat_version *version)
{
	struct known *known = arg;
	struct cat_copy copy = {0};
	int rc = cat_copy_get(known->txn, version->ino, version->seq, &copy);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (!copy.native_id)
		goto out;
	rc = ARRAY_ROOM(known->ids, known->cap, known->count);
	if (rc)
		goto out;
	known->ids[known->count] = strdup(cat_object_id(copy.native_id, copy.etag));
	rc = known->ids[known->count] ? 0 : -ENOMEM;
	known->count += !rc;
out:
	cat_copy_clear(&copy);
	return rc;
}

/* A file without a live name is looked for where its newest version lies. */
static int last_key(struct cat_txn *txn, const struct cat_inode *inode, struct buf *ret_key)
{
	struct cat_copy copy = {0};
	int rc = cat_copy_get(txn, inode->ino, inode->version, &copy);

	if (rc)
		return rc;
	buf_adds(ret_key, copy.key);
	cat_copy_clear(&copy);
	return 0;
}

static int known_closure(struct cat_txn *txn, void *arg)
{
	struct known *known = arg;
	struct cat_inode inode;
	int rc;

	known_clear(known); /* the closure may run again */
	known->txn = txn;
	rc = cat_inode_get(txn, known->ino, &inode);
	if (rc)
		return rc;
	if (!S_ISREG(inode.mode))
		return 0; /* only content has versions; no key, nothing to ask */
	rc = cat_key_of(txn, known->ino, &known->key);
	if (rc == -ENOENT)
		rc = last_key(txn, &inode, &known->key);
	if (rc)
		return rc == -ENOENT ? 0 : rc; /* never stored anywhere */
	if (buf_failed(&known->key))
		return -ENOMEM;
	return cat_version_each(txn, known->ino, 0, UINT64_MAX, known_version, known);
}

static int by_string(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool known_has(const struct known *known, const struct object_info *info)
{
	const char *id = cat_object_id(info->native_id, info->etag);

	return known->count && bsearch(&id, known->ids, known->count, sizeof(*known->ids), by_string);
}

/* One entry of a listing of versions. 1: past the key, nothing more of it follows. */
static int version_add(struct findings *findings, const struct known *known, const struct object_info *info)
{
	struct cat_found found = {0};
	int rc;

	if (strcmp(info->key, known->key.data) != 0)
		return 1; /* the key itself is the first of all that begin with it */
	if ((info->flags & OBJECT_DELETE_MARKER) || !info->native_id || known_has(known, info))
		return 0;
	rc = found_store_facts(&findings->arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = findings_add(findings, &found, VERSIONS_MAX);
	return rc == -E2BIG ? 1 : rc;
}

static int versions_list(struct reconcile *reconcile, const struct call *call, const struct known *known,
			 struct findings *findings, struct err *err)
{
	AUTO_FREE char *token = NULL;
	struct list_request request = {.prefix = known->key.data, .versions = true};
	int rc;

	do {
		struct list_page page = {0};

		request.token = token;
		rc = transfer_list(reconcile->options.transfer, call, &request, &page, err);
		if (rc)
			return rc;
		atomic_fetch_add(&reconcile->pages, 1);
		for (size_t i = 0; i < page.count && !rc; i++)
			rc = version_add(findings, known, &page.entries[i]);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
	} while (!rc && token);
	return rc < 0 ? err_from_errno(err, -rc, "versions of %s", known->key.data) : 0;
}

/* HEADs of many at once: the caller and helpers on the pool each take the next until none is left. */
struct batch {
	struct reconcile *reconcile;
	const struct call *call;
	int (*one)(struct batch *batch, size_t i, struct err *err);
	/* Of versions: */
	struct findings *findings;
	struct objmeta *metas; /* one a finding; cat_found borrows from them */
	bool as_said;          /* what metadata calls no file stays none */
	/* Of inodes: */
	const uint64_t *inos;

	size_t count;
	atomic_size_t next;
	struct lock lock;
	pthread_cond_t idle;
	unsigned helpers; /* lock: not ended */
	int rc;           /* lock: the first failure */
	struct err err;   /* lock */
};

struct helper {
	struct transfer_task task;
	struct batch *batch;
};

#define HELPERS 15

/* What we put there for a symlink, a directory or a further hard link is no content of the file that came after it. */
static bool is_placeholder(const struct objmeta *meta)
{
	if (!(meta->has & OBJMETA_FILE_ID))
		return false;
	return (meta->has & OBJMETA_LINK) || ((meta->has & OBJMETA_MODE) && !S_ISREG(meta->mode));
}

static int version_head(struct batch *batch, size_t i, struct err *err)
{
	struct cat_found *found = &batch->findings->found[i];
	struct object_ref object = {.key = found->key, .native_id = found->native_id};
	struct object_info info = {0};
	struct err why = {0};
	int rc;

	if (found->resolved) /* by the listing */
		return 0;
	rc = ahead_head(batch->reconcile->options.transfer, batch->call, &object, &info, &why);
	atomic_fetch_add(&batch->reconcile->heads, 1);
	if (rc) {
		if (why.kind == ERR_NOT_FOUND)
			return 0; /* removed just now: it stays as the listing showed it */
		if (err)
			*err = why;
		return rc;
	}
	objmeta_decode(&info.meta, &batch->metas[i]);
	found_meta(&batch->reconcile->options, &batch->metas[i], found);
	if (is_placeholder(&batch->metas[i]) && !batch->as_said)
		found->key = NULL;
	else if (!S_ISREG(found->mode) && !batch->as_said) /* content is shown as content, whatever its metadata says */
		found->mode = S_IFREG | batch->reconcile->options.file_mode;
	object_info_clear(&info);
	return 0;
}

static void batch_work(struct batch *batch)
{
	for (;;) {
		size_t i = atomic_fetch_add(&batch->next, 1);
		struct err why = {0};
		int rc;

		if (i >= batch->count)
			return;
		rc = batch->one(batch, i, &why);
		if (!rc)
			continue;
		atomic_store(&batch->next, batch->count); /* the others need not go on */
		lock_acquire(&batch->lock);
		if (!batch->rc) {
			batch->rc = rc;
			batch->err = why;
		}
		lock_release(&batch->lock);
		return;
	}
}

static void helper_ended(struct batch *batch)
{
	lock_acquire(&batch->lock);
	batch->helpers--;
	(void)pthread_cond_broadcast(&batch->idle);
	lock_release(&batch->lock);
}

static void helper_run(struct transfer_task *task)
{
	struct helper *helper = container_of(task, struct helper, task);

	batch_work(helper->batch);
	helper_ended(helper->batch);
}

static void helper_dropped(struct transfer_task *task)
{
	helper_ended(container_of(task, struct helper, task)->batch);
}

static int batch_run(struct batch *batch, struct err *err)
{
	struct transfer *transfer = batch->reconcile->options.transfer;
	struct helper helpers[HELPERS];
	unsigned count = batch->count > HELPERS ? HELPERS : (unsigned)batch->count - 1;
	int rc;

	lock_init(&batch->lock, LOCK_LEAF);
	lock_cond_init(&batch->idle);
	batch->helpers = count;
	for (unsigned i = 0; i < count; i++) {
		helpers[i] = (struct helper){
			.batch = batch,
			.task = {.class = TRANSFER_URGENT, .run = helper_run, .dropped = helper_dropped},
		};
		transfer_submit(transfer, &helpers[i].task);
	}
	batch_work(batch);
	for (unsigned i = 0; i < count; i++) {
		if (transfer_withdraw(transfer, &helpers[i].task))
			helper_ended(batch);
	}
	lock_acquire(&batch->lock);
	while (batch->helpers)
		(void)lock_wait(&batch->lock, &batch->idle, 0); /* each ends with its own call */
	lock_release(&batch->lock);
	rc = batch->rc;
	if (rc && err)
		*err = batch->err;
	(void)pthread_cond_destroy(&batch->idle); /* nobody waits */
	lock_destroy(&batch->lock);
	return rc;
}

static void drop_placeholders(struct findings *findings)
{
	size_t kept = 0;

	for (size_t i = 0; i < findings->count; i++)
		if (findings->found[i].key)
			findings->found[kept++] = findings->found[i];
	findings->count = kept;
}

static int versions_take(struct reconcile *reconcile, const struct call *call, uint64_t ino, struct findings *findings,
			 struct err *err)
{
	size_t count = findings->count < VERSION_HEADS_MAX ? findings->count : VERSION_HEADS_MAX;
	struct batch batch = {
		.reconcile = reconcile, .call = call, .one = version_head, .findings = findings, .count = count};
	int rc;

	if (!findings->count)
		return 0;
	batch.metas = calloc(count, sizeof(*batch.metas));
	if (!batch.metas)
		return err_set(err, ERR_NO_MEMORY, "versions");
	rc = batch_run(&batch, err);
	drop_placeholders(findings);
	if (!rc && findings->count) {
		rc = catalog_adopt_versions(reconcile->options.catalog, ino, findings->found, findings->count);
		if (rc)
			rc = err_from_errno(err, -rc, "versions of %s", findings->found[0].key);
	}
	free(batch.metas);
	return rc;
}

static int versions_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	struct known known = {.ino = ino, .key = BUF_INIT};
	struct findings findings = {0};
	int rc = catalog_view(reconcile->options.catalog, known_closure, &known);

	if (rc)
		rc = err_from_errno(err, -rc, "inode %llu", (unsigned long long)ino);
	if (rc || !known.key.len)
		goto out;
	if (known.count)
		qsort(known.ids, known.count, sizeof(*known.ids), by_string);
	rc = versions_list(reconcile, call, &known, &findings, err);
	if (!rc)
		rc = versions_take(reconcile, call, ino, &findings, err);
out:
	findings_clear(&findings);
	known_clear(&known);
	buf_free(&known.key);
	return rc;
}

/* --- the past of a directory -------------------------------------------------------------------------------------- */

/* One name that is not there any more. */
struct lost {
	struct cat_found named; /* name, component, key, directory */
	int64_t deleted_ns, since_ns;
	size_t first, count; /* of findings */
	bool live;           /* of a whole directory: the key has a current object */
	bool latest;         /* the first of the findings is that */
	uint64_t ino;        /* whose; 0: no file's */
};

struct losses {
	struct reconcile *reconcile;
	const struct call *call;
	uint64_t dir;
	struct buf prefix;
	struct findings findings; /* versions; its arena holds all strings */
	struct lost *cells;
	size_t count, cap;
	/* The key whose entries are coming: */
	struct buf key;
	struct lost now;
	bool current; /* something lives there */
	/* Of a whole directory: */
	struct buf carried_key; /* its entries may go on in the next page */
	struct lost carried;
	struct reconcile_whole whole;
};

static void losses_clear(struct losses *losses)
{
	findings_clear(&losses->findings);
	free(losses->cells);
	buf_free(&losses->prefix);
	buf_free(&losses->key);
	buf_free(&losses->carried_key);
}

static int loss_add(struct losses *losses, const struct lost *lost)
{
	if (ARRAY_ROOM(losses->cells, losses->cap, losses->count))
		return -ENOMEM;
	losses->cells[losses->count++] = *lost;
	return 0;
}

/* The entries of one key have come to their end, or to that of their page. */
static int loss_end(struct losses *losses)
{
	struct lost *lost = &losses->now;
	bool wanted = losses->key.len && !losses->current && (lost->count || (lost->named.directory && !lost->live));
	int rc = 0;

	if (wanted)
		rc = loss_add(losses, lost);
	else
		losses->findings.count = lost->first;
	buf_reset(&losses->key);
	return rc;
}

static int loss_begin(struct losses *losses, const struct object_info *info)
{
	struct arena *arena = &losses->findings.arena;
	const char *component = info->key + losses->prefix.len;
	size_t len = strlen(component);
	struct cat_found *named = &losses->now.named;
	int rc;

	losses->now = (struct lost){.first = losses->findings.count};
	losses->current = !len || (!losses->prefix.len && !strcmp(component, RESERVED)); /* of no interest */
	buf_adds(&losses->key, info->key);
	if (buf_failed(&losses->key))
		return -ENOMEM;
	if (losses->current)
		return 0;
	named->directory = component[len - 1] == '/';
	len -= named->directory;
	if (!len || memchr(component, '/', len))
		return -EBADMSG; /* a store that does not know delimiters */
	rc = found_name(arena, component, len, named);
	return rc ? rc : arena_string(arena, info->key, &named->key);
}

static int loss_entry(struct losses *losses, const struct object_info *info)
{
	struct lost *lost = &losses->now;
	struct cat_found found = {0};
	int rc = 0;

	if (strncmp(info->key, losses->prefix.data, losses->prefix.len) != 0)
		return -EBADMSG;
	if (!losses->key.len || strcmp(losses->key.data, info->key) != 0) {
		rc = loss_end(losses);
		if (!rc)
			rc = loss_begin(losses, info);
	}
	if (rc || losses->current || (info->flags & OBJECT_PREFIX))
		return rc;
	if (info->flags & OBJECT_DELETE_MARKER) {
		if (info->modified_ns > lost->deleted_ns)
			lost->deleted_ns = info->modified_ns;
		return 0;
	}
	losses->current = info->flags & OBJECT_LATEST;
	if (losses->current || lost->named.directory || !info->native_id)
		return 0;
	rc = found_store_facts(&losses->findings.arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = findings_add(&losses->findings, &found, losses->reconcile->options.max_entries);
	lost->count += !rc;
	return rc;
}

/* Every page of a listing of versions, entry by entry, until `take` returns non-zero. */
struct version_walk {
	struct list_request request;
	int (*take)(void *arg, const struct object_info *info);
	int (*page)(void *arg, struct err *err); /* at the end of each, unless NULL */
	void *arg;
	unsigned max_pages; /* 0: all */
};

static int version_pages(struct reconcile *reconcile, const struct call *call, struct version_walk *walk,
			 struct err *err)
{
	AUTO_FREE char *token = NULL;
	unsigned pages = 0;
	int rc = 0;

	do {
		struct list_page page = {0};

		walk->request.token = token;
		rc = transfer_list(reconcile->options.transfer, call, &walk->request, &page, err);
		if (rc)
			return rc;
		atomic_fetch_add(&reconcile->pages, 1);
		for (size_t i = 0; i < page.count && !rc; i++)
			rc = walk->take(walk->arg, &page.entries[i]);
		free(token);
		token = page.next;
		page.next = NULL;
		list_page_clear(&page);
		if (!rc && walk->page)
			rc = walk->page(walk->arg, err);
	} while (!rc && token && ++pages != walk->max_pages);
	if (rc < 0 && walk->page && err->kind)
		return rc;
	return rc < 0 ? err_from_errno(err, -rc, "versions under %s", walk->request.prefix) : 0;
}

static int take_loss(void *arg, const struct object_info *info)
{
	return loss_entry(arg, info);
}

/* What of a lost name nobody knows yet: 1; nothing: 0. The findings that are known go to the end. */
struct unknown {
	struct losses *losses;
	struct lost *lost;
	bool any;
};

static int unknown_closure(struct cat_txn *txn, void *arg)
{
	struct unknown *unknown = arg;
	struct lost *lost = unknown->lost;
	struct cat_found *found = unknown->losses->findings.found + lost->first;
	struct cat_name name;
	int rc = cat_name_get(txn, unknown->losses->dir, lost->named.name, &name);

	unknown->any = false;
	if (rc != -ENOENT)
		return rc;
	unknown->any = lost->named.directory;
	for (size_t i = 0; i < lost->count; i++) {
		uint64_t ino, seq;

		rc = cat_place_get(txn, 0, found[i].key, cat_object_id(found[i].native_id, found[i].etag), &ino, &seq);
		if (rc && rc != -ENOENT)
			return rc;
		unknown->any |= rc == -ENOENT;
	}
	return 0;
}

/* Those of one key move down to where those before it end. */
static void pack_findings(struct findings *findings, struct lost *lost, size_t *used)
{
	if (lost->count) /* of a directory alone there may be none */
		memmove(findings->found + *used, findings->found + lost->first, lost->count * sizeof(*findings->found));
	lost->first = *used;
	*used += lost->count;
}

/* Keeps the losses that tell something new, and packs their versions. */
static int losses_sift(struct losses *losses)
{
	size_t kept = 0, used = 0;

	for (size_t i = 0; i < losses->count; i++) {
		struct unknown unknown = {.losses = losses, .lost = &losses->cells[i]};
		int rc = catalog_view(losses->reconcile->options.catalog, unknown_closure, &unknown);

		if (rc)
			return rc;
		if (!unknown.any)
			continue;
		pack_findings(&losses->findings, &losses->cells[i], &used);
		losses->cells[kept++] = losses->cells[i];
	}
	losses->count = kept;
	losses->findings.count = used;
	return 0;
}

struct span {
	int64_t since_ns, until_ns;
	bool current;
};

static int take_span(void *arg, const struct object_info *info)
{
	struct span *span = arg;

	if (!(info->flags & OBJECT_DELETE_MARKER) && (info->flags & OBJECT_LATEST)) {
		span->current = true;
		return 1;
	}
	if (!span->since_ns || info->modified_ns < span->since_ns)
		span->since_ns = info->modified_ns;
	if ((info->flags & OBJECT_DELETE_MARKER) && info->modified_ns > span->until_ns)
		span->until_ns = info->modified_ns;
	return 0;
}

/* From when to when a directory was there, of which nothing is left. 1: something is. */
static int loss_span(struct losses *losses, struct lost *lost, struct err *err)
{
	struct span span = {0};
	struct version_walk walk = {
		.request = {.prefix = lost->named.key, .versions = true},
		.take = take_span,
		.arg = &span,
		.max_pages = EXTENT_PAGES_MAX,
	};
	int rc = version_pages(losses->reconcile, losses->call, &walk, err);

	lost->since_ns = span.since_ns;
	lost->deleted_ns = span.until_ns;
	return rc ? rc : span.current;
}

/* Symlinks, special files and markers of links hold nothing that is a file's content. */
static void drop_no_files(struct losses *losses, struct lost *lost)
{
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;

	for (size_t i = 0; i < lost->count; i++) {
		if (!found[i].resolved || (S_ISREG(found[i].mode) && !found[i].link_id))
			found[kept++] = found[i];
	}
	lost->count = kept;
}

static int loss_take(struct losses *losses, struct lost *lost, struct err *err)
{
	const struct reconcile_options *options = &losses->reconcile->options;
	struct cat_deleted deleted = {
		.dir = losses->dir,
		.name = lost->named.name,
		.component = lost->named.component,
		.key = lost->named.key,
		.directory = lost->named.directory,
		.file_mode = options->file_mode,
		.dir_mode = options->dir_mode,
		.uid = options->uid,
		.gid = options->gid,
	};
	int rc = 0;

	if (deleted.directory)
		rc = loss_span(losses, lost, err);
	else
		drop_no_files(losses, lost);
	if (rc || (!deleted.directory && !lost->count))
		return rc < 0 ? rc : 0;
	deleted.since_ns = lost->since_ns;
	deleted.until_ns = lost->deleted_ns;
	deleted.versions = losses->findings.found + lost->first;
	deleted.count = lost->count;
	rc = catalog_adopt_deleted(options->catalog, &deleted);
	return rc ? err_from_errno(err, -rc, "the past of %s", deleted.key) : 0;
}

static int losses_take(struct losses *losses, struct err *err)
{
	size_t count = losses->findings.count < VERSION_HEADS_MAX ? losses->findings.count : VERSION_HEADS_MAX;
	struct batch batch = {.reconcile = losses->reconcile,
			      .call = losses->call,
			      .one = version_head,
			      .findings = &losses->findings,
			      .count = count,
			      .as_said = true};
	int rc = 0;

	batch.metas = calloc(count + 1, sizeof(*batch.metas));
	if (!batch.metas)
		return err_set(err, ERR_NO_MEMORY, "versions");
	if (count)
		rc = batch_run(&batch, err);
	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = loss_take(losses, &losses->cells[i], err);
	free(batch.metas);
	return rc;
}

static int past_closure(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;

	buf_reset(&losses->prefix);
	return cat_key_ever(txn, losses->dir, &losses->prefix);
}

static int past_run(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	struct losses losses = {.reconcile = reconcile, .call = call, .dir = dir, .prefix = BUF_INIT, .key = BUF_INIT};
	struct version_walk walk = {.request = {.delimiter = '/', .versions = true}, .take = take_loss, .arg = &losses};
	int rc = catalog_view(reconcile->options.catalog, past_closure, &losses);

	if (rc == -ENOENT) { /* removed here: all of its past is known */
		rc = 0;
		goto out;
	}
	if (rc) {
		rc = err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir);
		goto out;
	}
	walk.request.prefix = losses.prefix.data ? losses.prefix.data : "";
	rc = version_pages(reconcile, call, &walk, err);
	if (!rc)
		rc = loss_end(&losses);
	if (!rc)
		rc = losses_sift(&losses);
	if (rc && !err->kind)
		rc = err_from_errno(err, -rc, "the past under %s", walk.request.prefix);
	if (!rc && losses.count)
		rc = losses_take(&losses, err);
out:
	losses_clear(&losses);
	return rc;
}

static bool asked_match(const struct table_node *node, const void *key)
{
	return container_of(node, struct asked, node)->ino == *(const uint64_t *)key;
}

static struct asked *asked_find(struct reconcile *reconcile, uint64_t ino)
{
	struct table_node *node = table_find(&reconcile->asked, hash_u64(ino), asked_match, &ino);

	return node ? container_of(node, struct asked, node) : NULL;
}

static void asked_drop(struct table_node *node, void *arg)
{
	struct reconcile *reconcile = arg;

	table_remove(&reconcile->asked, node);
	free(container_of(node, struct asked, node));
}

static bool asked_lately(struct reconcile *reconcile, uint64_t ino, unsigned ages)
{
	LOCK_GUARD(&reconcile->lock);
	const struct asked *asked = asked_find(reconcile, ino);

	return asked && clock_monotonic() - asked->at < ages * reconcile->options.max_age_ns;
}

static void asked_note(struct reconcile *reconcile, uint64_t ino)
{
	LOCK_GUARD(&reconcile->lock);
	struct asked *asked = asked_find(reconcile, ino);

	if (!asked) {
		if (reconcile->asked.count >= ASKED_MAX) /* forgetting only means asking again */
			table_each(&reconcile->asked, asked_drop, reconcile);
		asked = calloc(1, sizeof(*asked));
		if (!asked)
			return; /* as above */
		asked->ino = ino;
		table_insert(&reconcile->asked, &asked->node, hash_u64(ino));
	}
	asked->at = clock_monotonic();
}

/* --- flights ------------------------------------------------------------------------------------------------------ */

struct flight_key {
	enum kind kind;
	uint64_t ino;
};

static bool flight_match(const struct table_node *node, const void *arg)
{
	const struct flight *flight = container_of(node, struct flight, node);
	const struct flight_key *key = arg;

	return flight->kind == key->kind && flight->ino == key->ino;
}

static uint64_t flight_hash(enum kind kind, uint64_t ino)
{
	return hash_u64(ino << 2 | kind);
}

static struct flight *flight_find(struct reconcile *reconcile, enum kind kind, uint64_t ino)
{
	struct flight_key key = {.kind = kind, .ino = ino};
	struct table_node *node = table_find(&reconcile->flights, flight_hash(kind, ino), flight_match, &key);

	return node ? container_of(node, struct flight, node) : NULL;
}

/* Into the table, with one reference: the runner's. NULL: no memory. */
static struct flight *flight_new(struct reconcile *reconcile, enum kind kind, uint64_t ino, enum flight_state state)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	flight->owner = reconcile;
	flight->kind = kind;
	flight->ino = ino;
	flight->state = state;
	flight->refs = 1;
	table_insert(&reconcile->flights, &flight->node, flight_hash(kind, ino));
	return flight;
}

static void flight_unref(struct flight *flight)
{
	if (!--flight->refs)
		free(flight);
}

static void flight_land(struct flight *flight, int rc, const struct err *err)
{
	struct reconcile *reconcile = flight->owner;

	table_remove(&reconcile->flights, &flight->node);
	flight->state = FLIGHT_LANDED;
	flight->rc = rc;
	flight->err = *err;
	(void)pthread_cond_broadcast(&reconcile->landed);
	flight_unref(flight);
}

static bool gave_up(const struct err *err)
{
	return err->kind == ERR_CANCELLED || err->kind == ERR_TIMED_OUT;
}

static int flight_fly(struct flight *flight, const struct call *call, struct err *err)
{
	static int (*const run[])(struct reconcile * reconcile, uint64_t ino, const struct call *call,
				  struct err *err) = {
		[KIND_LIST] = list_run,
		[KIND_HEAD] = head_run,
		[KIND_VERSIONS] = versions_run,
		[KIND_PAST] = past_run,
	};
	struct reconcile *reconcile = flight->owner;
	int rc = run[flight->kind](reconcile, flight->ino, call, err);

	if (rc && !gave_up(err))
		atomic_fetch_add(&reconcile->failures, 1);
	/* A past that is too long to be listed in time must not be waited for again and again. */
	if ((!rc && flight->kind == KIND_VERSIONS) || flight->kind == KIND_PAST)
		asked_note(reconcile, flight->ino);
	return rc;
}

static void background_ended(struct reconcile *reconcile)
{
	reconcile->background--;
	(void)pthread_cond_broadcast(&reconcile->landed);
}

static void flight_task_run(struct transfer_task *task)
{
	struct flight *flight = container_of(task, struct flight, task);
	struct reconcile *reconcile = flight->owner;
	struct call call = {.cancelled = &reconcile->stop};
	struct err why = {0};
	int rc;

	lock_acquire(&reconcile->lock);
	flight->state = FLIGHT_RUNNING;
	lock_release(&reconcile->lock);
	rc = flight_fly(flight, &call, &why);
	if (rc && !atomic_load(&reconcile->stop)) {
		if (err_is_transient(why.kind))
			atomic_store(&reconcile->quiet_until, clock_monotonic() + RETRY_PAUSE);
		log_debug(MODULE, "in the background: %s", why.message);
	}
	lock_acquire(&reconcile->lock);
	flight_land(flight, rc, &why);
	background_ended(reconcile);
	lock_release(&reconcile->lock);
}

static void flight_task_dropped(struct transfer_task *task)
{
	struct flight *flight = container_of(task, struct flight, task);
	struct reconcile *reconcile = flight->owner;
	struct err why = {.kind = ERR_CANCELLED, .message = "shutting down"};

	lock_acquire(&reconcile->lock);
	flight_land(flight, -err_errno(why.kind), &why);
	background_ended(reconcile);
	lock_release(&reconcile->lock);
}

/* In the background, unless it flies already. Best effort. */
static void flight_start(struct reconcile *reconcile, enum kind kind, uint64_t ino, enum transfer_class class)
{
	LOCK_GUARD(&reconcile->lock);
	struct flight *flight;

	if (atomic_load(&reconcile->stop) || flight_find(reconcile, kind, ino))
		return;
	flight = flight_new(reconcile, kind, ino, FLIGHT_QUEUED);
	if (!flight)
		return;
	flight->task.class = class;
	flight->task.run = flight_task_run;
	flight->task.dropped = flight_task_dropped;
	reconcile->background++;
	transfer_submit(reconcile->options.transfer, &flight->task);
}

/* Waits for the landing. 0, or this call is over: -errno. */
static int flight_wait(struct flight *flight, const struct call *call, struct err *err)
{
	while (flight->state != FLIGHT_LANDED) {
		int64_t now = clock_monotonic();
		int64_t poll = now + CANCEL_POLL;

		if (call->cancelled && atomic_load(call->cancelled))
			return err_set(err, ERR_CANCELLED, "interrupted");
		if (call->deadline_ns && now >= call->deadline_ns)
			return err_set(err, ERR_TIMED_OUT, "no time left");
		if (call->deadline_ns && call->deadline_ns < poll)
			poll = call->deadline_ns;
		(void)lock_wait(&flight->owner->lock, &flight->owner->landed, poll); /* the loop looks itself */
	}
	return 0;
}

/* The flight to run on this thread: a new one, or a queued one taken from the pool. NULL: it flies with another. */
static struct flight *flight_take(struct reconcile *reconcile, struct flight *flight, const struct flight_key *key)
{
	if (!flight)
		return flight_new(reconcile, key->kind, key->ino, FLIGHT_RUNNING);
	if (flight->state != FLIGHT_QUEUED || !transfer_withdraw(reconcile->options.transfer, &flight->task))
		return NULL;
	flight->state = FLIGHT_RUNNING;
	background_ended(reconcile);
	return flight;
}

/* The answer of (kind, ino): of whoever gets it already, else of our own. */
static int flight_join(struct reconcile *reconcile, enum kind kind, uint64_t ino, const struct call *call,
		       struct err *err)
{
	struct flight_key key = {.kind = kind, .ino = ino};
	struct err why = {0};
	int rc;

	lock_acquire(&reconcile->lock);
	for (;;) {
		struct flight *flight = flight_find(reconcile, kind, ino);
		struct flight *ours = flight_take(reconcile, flight, &key);

		if (ours) {
			lock_release(&reconcile->lock);
			rc = flight_fly(ours, call, &why);
			lock_acquire(&reconcile->lock);
			flight_land(ours, rc, &why);
			break;
		}
		if (!flight) {
			rc = err_set(&why, ERR_NO_MEMORY, "reconcile");
			break;
		}
		flight->refs++;
		rc = flight_wait(flight, call, &why);
		if (!rc && !(flight->rc && gave_up(&flight->err))) {
			rc = flight->rc;
			why = flight->err;
			flight_unref(flight);
			break;
		}
		flight_unref(flight);
		if (rc)
			break;
	}
	lock_release(&reconcile->lock);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- public
 * ------------------------------------------------------------------------------------------------------------ */

int reconcile_new(const struct reconcile_options *options, struct reconcile **ret_reconcile)
{
	struct reconcile *reconcile = calloc(1, sizeof(*reconcile));

	if (!reconcile)
		return -ENOMEM;
	reconcile->options = *options;
	if (!reconcile->options.file_mode)
		reconcile->options.file_mode = FILE_MODE_DEFAULT;
	if (!reconcile->options.dir_mode)
		reconcile->options.dir_mode = DIR_MODE_DEFAULT;
	if (!reconcile->options.max_age_ns)
		reconcile->options.max_age_ns = MAX_AGE_DEFAULT;
	if (!reconcile->options.max_entries)
		reconcile->options.max_entries = ENTRIES_DEFAULT;
	if (table_init(&reconcile->flights, 64) || table_init(&reconcile->asked, 64)) {
		table_destroy(&reconcile->flights);
		free(reconcile);
		return -ENOMEM;
	}
	lock_init(&reconcile->lock, LOCK_QUEUE);
	lock_cond_init(&reconcile->landed);
	*ret_reconcile = reconcile;
	return 0;
}

static void flight_recall(struct table_node *node, void *arg)
{
	struct flight *flight = container_of(node, struct flight, node);
	struct reconcile *reconcile = arg;
	struct err why = {.kind = ERR_CANCELLED, .message = "shutting down"};

	if (flight->state != FLIGHT_QUEUED || !transfer_withdraw(reconcile->options.transfer, &flight->task))
		return;
	flight_land(flight, -err_errno(why.kind), &why);
	background_ended(reconcile);
}

void reconcile_stop(struct reconcile *reconcile)
{
	if (!reconcile)
		return;
	lock_acquire(&reconcile->lock);
	atomic_store(&reconcile->stop, true);
	table_each(&reconcile->flights, flight_recall, reconcile);
	while (reconcile->background)
		(void)lock_wait(&reconcile->lock, &reconcile->landed, 0); /* stop cancels their calls */
	lock_release(&reconcile->lock);
}

void reconcile_free(struct reconcile *reconcile)
{
	if (!reconcile)
		return;
	reconcile_stop(reconcile);
	lock_acquire(&reconcile->lock);
	table_each(&reconcile->asked, asked_drop, reconcile);
	lock_release(&reconcile->lock);
	table_destroy(&reconcile->flights);
	table_destroy(&reconcile->asked);
	(void)pthread_cond_destroy(&reconcile->landed); /* nobody waits */
	lock_destroy(&reconcile->lock);
	free(reconcile);
}

int reconcile_directory(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	return flight_join(reconcile, KIND_LIST, dir, call ? call : &patient_call, err);
}

void reconcile_refresh_soon(struct reconcile *reconcile, uint64_t dir)
{
	struct cat_inode inode;
	int64_t age;

	if (clock_monotonic() < atomic_load(&reconcile->quiet_until) ||
	    catalog_getattr(reconcile->options.catalog, dir, &inode))
		return;
	age = clock_wall() - inode.listed_at;
	/* The catalog's clock may be a little ahead; but one that was set back must not keep a listing young for ever.
	 */
	if ((inode.flags & CAT_LISTED) && age > -reconcile->options.max_age_ns && age < reconcile->options.max_age_ns)
		return;
	flight_start(reconcile, KIND_LIST, dir, TRANSFER_BACKGROUND);
}

struct siblings {
	uint64_t inos[PREFETCH];
	size_t count;
};

static int sibling_visit(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct siblings *siblings = arg;

	(void)name;
	if (!(inode->flags & CAT_UNRESOLVED))
		return 0;
	siblings->inos[siblings->count++] = inode->ino;
	return siblings->count == PREFETCH;
}

/* Whoever looks at one soon looks at the next ones. */
static void prefetch(struct reconcile *reconcile, uint64_t ino)
{
	struct subject subject = {.ino = ino, .key = BUF_INIT};
	struct siblings siblings = {0};
	struct cat_readdir request = {.max = PREFETCH_LOOK, .with_inodes = true};

	if (clock_monotonic() < atomic_load(&reconcile->quiet_until) ||
	    catalog_view(reconcile->options.catalog, name_closure, &subject))
		return;
	request.parent = subject.name.parent;
	request.after = subject.name.cookie;
	if (catalog_readdir(reconcile->options.catalog, &request, sibling_visit, &siblings) < 0)
		return;
	for (size_t i = 0; i < siblings.count; i++)
		flight_start(reconcile, KIND_HEAD, siblings.inos[i], TRANSFER_NORMAL);
}

int reconcile_resolve(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct cat_inode *ret_inode,
		      struct err *err)
{
	struct cat_inode inode;
	bool flying, named;
	int rc = catalog_getattr(reconcile->options.catalog, ino, &inode);

	if (!rc && (inode.flags & CAT_UNRESOLVED)) {
		lock_acquire(&reconcile->lock);
		flying = flight_find(reconcile, KIND_HEAD, ino) != NULL;
		lock_release(&reconcile->lock);
		if (!flying)
			prefetch(reconcile, ino);
		named = inode.nlink;
		rc = flight_join(reconcile, KIND_HEAD, ino, call ? call : &patient_call, err);
		if (rc)
			return rc;
		rc = catalog_getattr(reconcile->options.catalog, ino, &inode);
		if (!rc && named && !inode.nlink) /* it was a hard link: the name is its file's now */
			return err_set(err, ERR_PRECONDITION, "inode %llu is another's name", (unsigned long long)ino);
	}
	if (rc)
		return err_from_errno(err, -rc, "inode %llu", (unsigned long long)ino);
	if (ret_inode)
		*ret_inode = inode;
	return 0;
}

void reconcile_names_soon(struct reconcile *reconcile, uint64_t ino)
{
	struct subject subject = {.ino = ino, .key = BUF_INIT};

	if (!catalog_view(reconcile->options.catalog, name_closure, &subject))
		flight_start(reconcile, KIND_LIST, subject.name.parent, TRANSFER_NORMAL);
}

int reconcile_versions(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	if (asked_lately(reconcile, ino, 1))
		return 0;
	return reconcile_versions_now(reconcile, ino, call, err);
}

int reconcile_versions_now(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	return flight_join(reconcile, KIND_VERSIONS, ino, call ? call : &patient_call, err);
}

void reconcile_versions_soon(struct reconcile *reconcile, uint64_t ino)
{
	if (transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		flight_start(reconcile, KIND_VERSIONS, ino, TRANSFER_BACKGROUND);
}

int reconcile_past(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	if (asked_lately(reconcile, dir, PAST_AGES))
		return 0;
	return reconcile_past_now(reconcile, dir, call, err);
}

int reconcile_past_now(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	if (!transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	return flight_join(reconcile, KIND_PAST, dir, call ? call : &patient_call, err);
}

/* --- everything that is to be known of a directory
 * ---------------------------------------------------------------------
 *
 * For who rebuilds a catalog: a listing, what it left unresolved, and one listing of all versions, which is worked off
 * page by page, so that memory does not grow with them.
 */

static int resolve_one(struct batch *batch, size_t i, struct err *err)
{
	struct err why = {0};
	int rc = flight_join(batch->reconcile, KIND_HEAD, batch->inos[i], batch->call, &why);

	if (!rc || why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION) /* replaced just now, and listed anew */
		return 0;
	*err = why;
	return rc;
}

#define RESOLVE_PAGE 1000

struct unresolved {
	uint64_t inos[RESOLVE_PAGE], last;
	size_t count, seen;
};

static int take_unresolved(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct unresolved *unresolved = arg;

	unresolved->last = name->cookie;
	unresolved->seen++;
	if (inode->flags & CAT_UNRESOLVED)
		unresolved->inos[unresolved->count++] = inode->ino;
	return 0;
}

static int resolve_children(struct reconcile *reconcile, uint64_t dir, const struct call *call, struct err *err)
{
	struct unresolved *unresolved = calloc(1, sizeof(*unresolved));
	struct cat_readdir request = {.parent = dir, .max = RESOLVE_PAGE, .with_inodes = true};
	int rc = unresolved ? 0 : -ENOMEM;

	do {
		if (rc)
			break;
		unresolved->count = unresolved->seen = 0;
		request.after = unresolved->last;
		rc = catalog_readdir(reconcile->options.catalog, &request, take_unresolved, unresolved);
		if (!rc && unresolved->count) {
			struct batch batch = {.reconcile = reconcile,
					      .call = call,
					      .one = resolve_one,
					      .inos = unresolved->inos,
					      .count = unresolved->count};

			rc = batch_run(&batch, err);
		}
	} while (!rc && unresolved->seen == RESOLVE_PAGE);
	free(unresolved);
	return rc && !err->kind ? err_from_errno(err, -rc, "directory %llu", (unsigned long long)dir) : rc;
}

static int whole_entry(void *arg, const struct object_info *info)
{
	struct losses *losses = arg;
	struct lost *lost = &losses->now;
	struct cat_found found = {0};
	int rc = 0;

	if (strncmp(info->key, losses->prefix.data ? losses->prefix.data : "", losses->prefix.len) != 0)
		return -EBADMSG;
	if (!losses->key.len || strcmp(losses->key.data, info->key) != 0) {
		rc = loss_end(losses);
		if (!rc)
			rc = loss_begin(losses, info);
		if (!rc && losses->carried_key.len && strcmp(losses->carried_key.data, info->key) == 0) {
			lost->live = losses->carried.live;
			lost->deleted_ns = losses->carried.deleted_ns;
		}
	}
	if (rc || losses->current || (info->flags & OBJECT_PREFIX))
		return rc;
	if (!losses->whole.since_ns || info->modified_ns < losses->whole.since_ns)
		losses->whole.since_ns = info->modified_ns;
	if (info->flags & OBJECT_DELETE_MARKER) {
		if (info->modified_ns > lost->deleted_ns)
			lost->deleted_ns = info->modified_ns;
		if (lost->deleted_ns > losses->whole.until_ns)
			losses->whole.until_ns = lost->deleted_ns;
		return 0;
	}
	if (info->flags & OBJECT_LATEST)
		lost->live = lost->latest = true;
	if (lost->named.directory || !info->native_id)
		return 0;
	rc = found_store_facts(&losses->findings.arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = found_told(&losses->reconcile->options, &losses->findings.arena, info, &found);
	if (!rc)
		rc = findings_add(&losses->findings, &found, losses->reconcile->options.max_entries);
	lost->count += !rc;
	return rc;
}

/* Leaves those versions of a key that nobody knows yet. */
static int sift_versions(struct cat_txn *txn, struct losses *losses, struct lost *lost)
{
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;

	for (size_t i = 0; i < lost->count; i++) {
		uint64_t ino, seq;
		int rc = cat_place_get(txn, 0, found[i].key, cat_object_id(found[i].native_id, found[i].etag), &ino,
				       &seq);

		if (rc && rc != -ENOENT)
			return rc;
		if (rc)
			found[kept++] = found[i];
		else if (!i)
			lost->latest = false;
	}
	lost->count = kept;
	return 0;
}

static int sift_one(struct cat_txn *txn, struct losses *losses, struct lost *lost)
{
	struct cat_name name;
	struct cat_key record;
	int rc = lost->live ? cat_key_get(txn, 0, lost->named.key, &record)
			    : cat_name_get(txn, losses->dir, lost->named.name, &name);

	if (rc && rc != -ENOENT)
		return rc;
	lost->ino = 0;
	if (lost->live && !rc) {
		lost->ino = record.kind == CAT_KEY_DATA ? record.ino : 0;
		cat_key_clear(&record);
	}
	/* A name that lives though its object does not: what we changed, the store will hear of. */
	if (lost->live ? !lost->ino : !rc) {
		lost->count = 0;
		lost->named.directory = false;
	}
	return sift_versions(txn, losses, lost);
}

static int whole_sift(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;
	int rc = 0;

	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = sift_one(txn, losses, &losses->cells[i]);
	return rc;
}

/* The findings of the keys, without gaps between them. */
static void whole_pack(struct losses *losses)
{
	size_t kept = 0, used = 0;

	for (size_t i = 0; i < losses->count; i++) {
		struct lost *lost = &losses->cells[i];

		if (!lost->count && !lost->named.directory)
			continue;
		pack_findings(&losses->findings, lost, &used);
		losses->cells[kept++] = *lost;
	}
	losses->count = kept;
	losses->findings.count = used;
}

static size_t unresolved_versions(const struct findings *findings)
{
	size_t count = 0;

	for (size_t i = 0; i < findings->count; i++)
		count += !findings->found[i].resolved;
	return count;
}

/* Is it content of a file? What we put there for something else is not; all else is shown as content. */
static bool as_content(const struct reconcile_options *options, struct cat_found *found)
{
	if (!found->resolved)
		return true;
	if (found->file_id && (found->link_id || !S_ISREG(found->mode)))
		return false;
	if (!S_ISREG(found->mode))
		found->mode = S_IFREG | options->file_mode;
	return true;
}

static int take_live(struct losses *losses, struct lost *lost, struct err *err)
{
	const struct reconcile_options *options = &losses->reconcile->options;
	struct cat_found *found = losses->findings.found + lost->first;
	size_t kept = 0;
	int rc;

	for (size_t i = 0; i < lost->count; i++)
		if (as_content(options, &found[i]))
			found[kept++] = found[i];
	losses->whole.versions += kept > lost->latest ? kept - lost->latest : 0;
	rc = kept ? catalog_adopt_versions(options->catalog, lost->ino, found, kept) : 0;
	return rc ? err_from_errno(err, -rc, "versions of %s", lost->named.key) : 0;
}

static int take_lost(struct losses *losses, struct lost *lost, struct err *err)
{
	if (lost->live)
		return take_live(losses, lost, err);
	losses->whole.versions += lost->count;
	return loss_take(losses, lost, err);
}

static int heads_of(struct losses *losses, struct objmeta **ret_metas, struct err *err)
{
	struct batch batch = {.reconcile = losses->reconcile,
			      .call = losses->call,
			      .one = version_head,
			      .findings = &losses->findings,
			      .count = losses->findings.count,
			      .as_said = true};

	if (!unresolved_versions(&losses->findings))
		return 0;
	*ret_metas = batch.metas = calloc(batch.count, sizeof(*batch.metas));
	return batch.metas ? batch_run(&batch, err) : err_set(err, ERR_NO_MEMORY, "versions");
}

static void whole_forget(struct losses *losses)
{
	findings_clear(&losses->findings);
	losses->count = 0;
}

static int whole_page(void *arg, struct err *err)
{
	struct losses *losses = arg;
	AUTO_FREE struct objmeta *metas = NULL;
	int rc;

	buf_reset(&losses->carried_key);
	buf_adds(&losses->carried_key, losses->key.len ? losses->key.data : "");
	losses->carried = losses->now;
	rc = buf_failed(&losses->carried_key) ? -ENOMEM : loss_end(losses);
	if (!rc)
		rc = catalog_view(losses->reconcile->options.catalog, whole_sift, losses);
	if (rc)
		return err_from_errno(err, -rc, "versions under %s", losses->prefix.data);
	whole_pack(losses);
	rc = heads_of(losses, &metas, err);
	for (size_t i = 0; i < losses->count && !rc; i++)
		rc = take_lost(losses, &losses->cells[i], err);
	whole_forget(losses);
	return rc;
}

bool reconcile_has_phantoms(struct reconcile *reconcile)
{
	return transfer_can(reconcile->options.transfer, BACKEND_VERSIONS) &&
	       !transfer_can(reconcile->options.transfer, BACKEND_TREE_KEYS);
}

int reconcile_whole(struct reconcile *reconcile, uint64_t dir, const struct call *call,
		    struct reconcile_whole *ret_whole, struct err *err)
{
	struct losses losses = {.reconcile = reconcile,
				.call = call ? call : &patient_call,
				.dir = dir,
				.prefix = BUF_INIT,
				.key = BUF_INIT,
				.carried_key = BUF_INIT};
	struct version_walk walk = {.request = {.delimiter = '/', .versions = true, .meta = true},
				    .take = whole_entry,
				    .page = whole_page,
				    .arg = &losses};
	struct err why = {0};
	int rc = list_directory(reconcile, dir, WISH_META, losses.call, &why);

	if (!rc)
		rc = resolve_children(reconcile, dir, losses.call, &why);
	if (!rc && transfer_can(reconcile->options.transfer, BACKEND_VERSIONS)) {
		rc = catalog_view(reconcile->options.catalog, past_closure, &losses);
		walk.request.prefix = losses.prefix.data ? losses.prefix.data : "";
		if (!rc)
			rc = version_pages(reconcile, losses.call, &walk, &why);
	}
	if (rc && !why.kind)
		rc = err_from_errno(&why, -rc, "directory %llu", (unsigned long long)dir);
	*ret_whole = losses.whole;
	losses_clear(&losses);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- versions beside their files' keys ---------------------------------------------------------------------------- */

#define ASIDE ".varve/versions/"

/* ".varve/versions/<file id>/…": whose it is. What was preserved of others' objects lies elsewhere there. */
bool reconcile_is_aside(const char *key, uint8_t ret_file_id[static CAT_FILE_ID_SIZE])
{
	char hex[2 * CAT_FILE_ID_SIZE + 1];
	const char *slash;

	if (strncmp(key, ASIDE, strlen(ASIDE)) != 0)
		return false;
	key += strlen(ASIDE);
	slash = strchr(key, '/');
	if (!slash || slash - key != 2 * CAT_FILE_ID_SIZE || !slash[1])
		return false;
	memcpy(hex, key, 2 * CAT_FILE_ID_SIZE);
	hex[2 * CAT_FILE_ID_SIZE] = '\0';
	return hex_decode(hex, CAT_FILE_ID_SIZE, ret_file_id) == 0;
}

struct asides {
	struct losses losses; /* its findings alone */
	uint64_t adopted;
};

static int aside_entry(void *arg, const struct object_info *info)
{
	struct asides *asides = arg;
	struct findings *findings = &asides->losses.findings;
	uint8_t file_id[CAT_FILE_ID_SIZE];
	struct cat_found found = {0};
	int rc;

	if ((info->flags & (OBJECT_DELETE_MARKER | OBJECT_PREFIX)) || !reconcile_is_aside(info->key, file_id))
		return 0;
	rc = found_store_facts(&findings->arena, info, &found);
	found.mtime = info->modified_ns;
	if (!rc)
		rc = found_told(&asides->losses.reconcile->options, &findings->arena, info, &found);
	return rc ? rc : findings_add(findings, &found, asides->losses.reconcile->options.max_entries);
}

static int asides_sift(struct cat_txn *txn, void *arg)
{
	struct losses *losses = arg;
	struct lost all = {.count = losses->findings.count};
	int rc = sift_versions(txn, losses, &all);

	losses->findings.count = all.count;
	return rc;
}

/* Those of one file lie together. A file that nobody knows has no name to show them under. */
static int asides_take(struct asides *asides, struct err *err)
{
	struct catalog *catalog = asides->losses.reconcile->options.catalog;
	struct cat_found *found = asides->losses.findings.found;
	size_t count = asides->losses.findings.count;
	int rc = 0;

	for (size_t i = 0, end; i < count && !rc; i = end) {
		uint8_t file_id[CAT_FILE_ID_SIZE], other[CAT_FILE_ID_SIZE];

		(void)reconcile_is_aside(found[i].key, file_id); /* or it were not among them */
		for (end = i + 1; end < count; end++)
			if (!reconcile_is_aside(found[end].key, other) || memcmp(other, file_id, sizeof(other)) != 0)
				break;
		rc = catalog_adopt_aside(catalog, file_id, found + i, end - i);
		asides->adopted += rc ? 0 : end - i;
		rc = rc == -ENOENT ? 0 : rc;
	}
	return rc ? err_from_errno(err, -rc, "versions under %s", ASIDE) : 0;
}

static int aside_page(void *arg, struct err *err)
{
	struct asides *asides = arg;
	AUTO_FREE struct objmeta *metas = NULL;
	int rc = catalog_view(asides->losses.reconcile->options.catalog, asides_sift, &asides->losses);

	if (rc)
		return err_from_errno(err, -rc, "versions under %s", ASIDE);
	rc = heads_of(&asides->losses, &metas, err);
	if (!rc)
		rc = asides_take(asides, err);
	whole_forget(&asides->losses);
	return rc;
}

int reconcile_asides(struct reconcile *reconcile, const char *key, const struct call *call, uint64_t *ret_adopted,
		     struct err *err)
{
	struct asides asides = {.losses = {.reconcile = reconcile, .call = call ? call : &patient_call}};
	struct version_walk walk = {.request = {.prefix = key ? key : ASIDE,
						.versions = transfer_can(reconcile->options.transfer, BACKEND_VERSIONS),
						.meta = true},
				    .take = aside_entry,
				    .page = aside_page,
				    .arg = &asides};
	struct err why = {0};
	int rc = version_pages(reconcile, asides.losses.call, &walk, &why);

	*ret_adopted = asides.adopted;
	findings_clear(&asides.losses.findings);
	if (rc && err)
		*err = why;
	return rc;
}

/* --- gone ------------------------------------------------------------------------------------------------------------
 */

/* Is the object there? 1, 0; -errno: nobody can say. */
static int still_there(struct reconcile *reconcile, const struct cat_gone *gone, const char *native_id,
		       const struct call *call)
{
	struct object_ref object = {.key = gone->key, .native_id = native_id, .etag = gone->etag};
	struct object_info info = {0};
	struct err why = {0};
	int rc = transfer_head(reconcile->options.transfer, call, &object, &info, &why);

	atomic_fetch_add(&reconcile->heads, 1);
	object_info_clear(&info);
	if (!rc)
		return 1;
	return why.kind == ERR_NOT_FOUND || why.kind == ERR_PRECONDITION ? 0 : rc;
}

/* A bucket that is not there has no objects either, and that says nothing about them. */
static int store_answers(struct reconcile *reconcile, const struct call *call)
{
	struct list_request request = {.prefix = "", .max = 1};
	struct list_page page = {0};
	struct err why = {0};
	int rc = transfer_list(reconcile->options.transfer, call, &request, &page, &why);

	list_page_clear(&page);
	return rc;
}

struct unnamed {
	const struct cat_gone *gone;
	char *native_id; /* malloc'd; NULL: not found */
};

static int take_unnamed(void *arg, const struct object_info *info)
{
	struct unnamed *unnamed = arg;

	if (strcmp(info->key, unnamed->gone->key) != 0)
		return 1; /* the key itself is the first of all that begin with it */
	if ((info->flags & OBJECT_DELETE_MARKER) || !info->native_id || !info->etag ||
	    strcmp(info->etag, unnamed->gone->etag) != 0)
		return 0;
	unnamed->native_id = strdup(info->native_id);
	return unnamed->native_id ? 1 : -ENOMEM;
}

/* Known from a plain listing, or stored before versioning was switched on: the catalog has no id of it. Once there is
 * something newer at the key it is found among its versions. 1: it was, and has its id now; 0; -errno. */
static int found_beneath(struct reconcile *reconcile, const struct cat_gone *gone, const struct call *call)
{
	struct unnamed unnamed = {.gone = gone};
	struct version_walk walk = {
		.request = {.prefix = gone->key, .versions = true}, .take = take_unnamed, .arg = &unnamed};
	struct err why = {0};
	int rc;

	if (gone->native_id || !gone->etag || !transfer_can(reconcile->options.transfer, BACKEND_VERSIONS))
		return 0;
	rc = version_pages(reconcile, call, &walk, &why);
	if (!rc && unnamed.native_id) {
		rc = catalog_copy_named(reconcile->options.catalog, gone, unnamed.native_id);
		rc = rc ? rc : 1;
	}
	free(unnamed.native_id);
	return rc;
}

int reconcile_gone(struct reconcile *reconcile, const struct cat_gone *gone, enum reconcile_doubt doubt,
		   const struct call *call, bool *ret_gone)
{
	const struct reconcile_options *options = &reconcile->options;
	struct cat_gone_effect effect = {0};
	int rc = still_there(reconcile, gone, gone->native_id, call);

	*ret_gone = false;
	if (!rc)
		rc = found_beneath(reconcile, gone, call);
	if (!rc && doubt == RECONCILE_READ)
		rc = store_answers(reconcile, call);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = catalog_gone(options->catalog, gone, &effect);
	if (rc)
		return rc;
	*ret_gone = true;
	if (!effect.dropped)
		return 0;
	atomic_fetch_add(&reconcile->expired, effect.expired);
	if (doubt == RECONCILE_READ)
		log_warn(MODULE, "the store no longer has %s%s%s%s: removed by others%s", gone->key,
			 gone->native_id ? " (version " : "", gone->native_id ? gone->native_id : "",
			 gone->native_id ? ")" : "", effect.expired ? "" : "; another copy is used");
	if (effect.parent)
		flight_start(reconcile, KIND_LIST, effect.parent, TRANSFER_NORMAL);
	return 0;
}

bool reconcile_offline(struct reconcile *reconcile)
{
	struct transfer_figures figures;

	transfer_figures(reconcile->options.transfer, &figures);
	return !figures.online;
}

void reconcile_figures(struct reconcile *reconcile, struct reconcile_figures *ret_figures)
{
	struct reconcile_figures figures = {
		.listings = atomic_load(&reconcile->listings),
		.pages = atomic_load(&reconcile->pages),
		.entries = atomic_load(&reconcile->entries),
		.heads = atomic_load(&reconcile->heads),
		.failures = atomic_load(&reconcile->failures),
		.expired = atomic_load(&reconcile->expired),
	};

	lock_acquire(&reconcile->lock);
	figures.running = reconcile->background;
	lock_release(&reconcile->lock);
	*ret_figures = figures;
}
