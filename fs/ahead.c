/*
 * ahead.c - see ahead.h.
 *
 *   GROWING  --commit--> BOUND (seq set) --ahead_take--> the uploader's --ahead_end--> gone
 *      |                   |
 *      +------- dead: the file is gone, or the store refused: aborted by the last helper
 *
 * Invariants
 *  1. A part is `sending` in its stream before the first of its bytes is read, and the content notes writes over it
 *     from then on: a part that is neither stale nor sending holds the bytes that the version has.
 *  2. An upload that was begun stands in a setting of the catalog (its slot) until it is completed or aborted, so that
 *     a restart aborts it. In between lies only the reply to its beginning.
 *  3. A stream is freed by who takes it off the list. Helpers run only for streams on the list.
 *
 * Threads: FUSE workers (under the content's lock), transfer pool. ahead->lock (LOCK_AHEAD) guards the list and all of
 * every stream on it; it is not held across a call of store, catalog or content.
 */
#include "fs/ahead.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "fs/content.h"
#include "fs/killpoint.h"
#include "fs/lease.h"
#include "fs/objmeta.h"
#include "fs/plan.h"
#include "lock.h"
#include "log.h"
#include "table.h"

#define SLOTS 8    /* files at a time */
#define PARALLEL 4 /* parts of each */
#define MARK_BYTES 16
#define MARK_SIZE (2 * MARK_BYTES + 1)
#define PART_PATIENCE_NS (300 * NS_PER_SEC)

struct part {
	uint64_t start, size;
	struct upload_part sent;
	bool sending, stale;
};

struct helper {
	struct transfer_task task;
	struct stream *stream;
	bool busy;
};

struct stream {
	struct list node;
	struct ahead *ahead;
	uint64_t ino, seq;       /* seq 0: not committed yet */
	struct content *content; /* the live one, a reference; NULL: left by a process before */
	char *key, *id;          /* id NULL: not begun */
	char mark[MARK_SIZE];
	unsigned slot;
	bool dead, in_doubt;
	uint64_t available;     /* bytes written so far */
	_Atomic uint64_t moved; /* bytes sent: no lock */
	struct part *parts;     /* taken, in order */
	size_t count, cap;
	unsigned busy; /* helpers */
	struct helper helpers[PARALLEL];
};

struct ahead {
	struct catalog *catalog;
	struct transfer *transfer;
	struct contents *contents;
	struct lease *lease;
	atomic_bool cancelled;
	struct lock lock;
	pthread_cond_t idle;
	struct contents_watch watch; /* constant */
	struct list streams;
	bool slots[SLOTS]; /* taken */
	unsigned ending;   /* dead streams, off the list, that their last helper ends */
};

/* --- slots ------------------------------------------------------------------------------------------- */

static void slot_name(unsigned slot, char ret_name[static 16])
{
	(void)snprintf(ret_name, 16, "ahead.%u", slot);
}

static int slot_write(const struct stream *stream)
{
	AUTO_BUF text = BUF_INIT;
	char name[16];

	slot_name(stream->slot, name);
	buf_addf(&text, "%s %" PRIu64 " %" PRIu64 " %s %s", stream->mark, stream->ino, stream->seq, stream->id,
		 stream->key);
	return buf_failed(&text) ? -ENOMEM : catalog_setting_put(stream->ahead->catalog, name, text.data);
}

static void slot_clear(struct ahead *ahead, unsigned slot)
{
	char name[16];
	int err;

	slot_name(slot, name);
	err = catalog_setting_put(ahead->catalog, name, "");
	if (err) /* the next mount aborts what is gone: no harm */
		log_warn("ahead", "cannot forget an upload: %s", strerror(-err));
	LOCK_GUARD(&ahead->lock);
	ahead->slots[slot] = false;
}

/* --- streams ------------------------------------------------------------------------------------------ */

static void stream_free(struct stream *stream)
{
	for (size_t i = 0; i < stream->count; i++)
		upload_part_clear(&stream->parts[i].sent);
	if (stream->content)
		content_put(stream->content);
	free(stream->parts);
	free(stream->key);
	free(stream->id);
	free(stream);
}

/* False: the store could not be told. Its slot stays as it is, and the next mount tells it. */
static bool abort_upload(const struct stream *stream)
{
	struct err err = {0};

	if (transfer_upload_abort(stream->ahead->transfer, stream->key, stream->id, &err) == 0)
		return true;
	log_warn("ahead", "the upload of %s that was begun is removed at the next mount: %s", stream->key, err.message);
	return false;
}

void ahead_end(struct stream *stream, enum ahead_outcome outcome)
{
	struct ahead *ahead = stream->ahead;

	if (outcome == AHEAD_DOUBT) {
		struct content *content = stream->content;

		stream->content = NULL;
		{
			LOCK_GUARD(&ahead->lock);
			stream->in_doubt = true;
			list_add_tail(&ahead->streams, &stream->node);
		}
		if (content)
			content_put(content);
		return;
	}
	if (outcome != AHEAD_ABORT || !stream->id || abort_upload(stream))
		slot_clear(ahead, stream->slot);
	stream_free(stream);
}

/* With the lock held. */
static struct stream *find(struct ahead *ahead, uint64_t ino, uint64_t seq)
{
	for (struct list *at = ahead->streams.next; at != &ahead->streams; at = at->next) {
		struct stream *stream = list_entry(at, struct stream, node);

		if (stream->ino == ino && stream->seq == seq && !stream->dead)
			return stream;
	}
	return NULL;
}

/* --- sending, on the pool --------------------------------------------------------------------------------- */

struct beginning {
	uint64_t ino;
	struct cat_inode inode;
	struct buf key, attributes;
};

static int read_beginning(struct cat_txn *txn, void *arg)
{
	struct beginning *beginning = arg;
	int err = cat_inode_get(txn, beginning->ino, &beginning->inode);

	if (!err)
		err = cat_key_of(txn, beginning->ino, &beginning->key);
	return err ? err : cat_xattr_each(txn, beginning->ino, objmeta_take_attribute, &beginning->attributes);
}

static int first_meta(const struct stream *stream, const struct beginning *beginning, struct meta *ret_meta)
{
	const struct cat_inode *inode = &beginning->inode;
	struct objmeta meta = {
		.has = OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME | OBJMETA_FILE_ID | OBJMETA_EPOCH,
		.mode = inode->mode,
		.uid = inode->uid,
		.gid = inode->gid,
		.mtime = clock_wall(),
		.epoch = stream->ahead->lease ? lease_epoch(stream->ahead->lease) : 0,
	};
	struct objmeta_room room = objmeta_room_in(stream->ahead->transfer);
	int err;

	memcpy(meta.file_id, inode->file_id, sizeof(meta.file_id));
	err = objmeta_encode(&meta, ret_meta);
	if (!err)
		err = meta_set(ret_meta, AHEAD_FACTS_META, stream->mark);
	if (!err)
		err = meta_set(ret_meta, TRANSFER_UPLOAD_META, stream->mark);
	if (!err)
		err = objmeta_add_user(&beginning->attributes, inode->mode, room, ret_meta);
	return err;
}

/* One helper alone; nobody else looks at key and id before they are set under the lock. */
static int begin(struct stream *stream, struct err *err)
{
	struct ahead *ahead = stream->ahead;
	struct beginning beginning = {.ino = stream->ino, .key = BUF_INIT, .attributes = BUF_INIT};
	struct call call = {.cancelled = &ahead->cancelled};
	struct meta meta = {0};
	struct put_request request = {.meta = &meta};
	char *id = NULL;
	int result = ahead->lease ? lease_check(ahead->lease, err) : 0;

	if (!result)
		result = catalog_view(ahead->catalog, read_beginning, &beginning);
	if (!result && (buf_failed(&beginning.key) || beginning.key.len > transfer_limits(ahead->transfer)->max_key))
		result = -ENAMETOOLONG;
	if (!result)
		result = first_meta(stream, &beginning, &meta);
	if (result)
		goto out;
	request.key = beginning.key.data;
	request.content_type = objmeta_content_type(beginning.inode.mode, &beginning.attributes);
	result = transfer_upload_begin(ahead->transfer, &call, &request, &id, err);
	if (!result) {
		LOCK_GUARD(&ahead->lock);
		stream->key = buf_detach(&beginning.key);
		stream->id = id;
	}
	if (!result)
		result = slot_write(stream);
	killpoint("stream-begun");
out:
	meta_clear(&meta);
	buf_free(&beginning.key);
	buf_free(&beginning.attributes);
	return result;
}

/* The next part that is wholly written, marked as being sent. With the lock held. */
static bool take_part(struct stream *stream, size_t *ret_index)
{
	struct part part = {.sending = true};

	if (stream->dead || stream->seq || atomic_load(&stream->ahead->cancelled))
		return false;
	plan_grid(transfer_limits(stream->ahead->transfer), stream->count, &part.start, &part.size);
	if (part.start + part.size > stream->available)
		return false;
	if (ARRAY_ROOM(stream->parts, stream->cap, stream->count))
		return false;
	stream->parts[stream->count] = part;
	*ret_index = stream->count++;
	return true;
}

static int read_live(void *arg, void *ret_bytes, size_t len, uint64_t offset)
{
	return content_pread_all(arg, ret_bytes, len, offset, NULL);
}

static int send_part(struct stream *stream, const struct part *part, size_t index, struct upload_part *ret_sent,
		     struct err *err)
{
	struct ahead *ahead = stream->ahead;
	struct call call = {.deadline_ns = clock_monotonic() + PART_PATIENCE_NS,
			    .cancelled = &ahead->cancelled,
			    .moved = &stream->moved};
	const struct put_request request = {.key = stream->key, .source = read_live, .source_arg = stream->content};
	const struct transfer_part cell = {.offset = part->start, .size = part->size};
	int result = ahead->lease ? lease_check(ahead->lease, err) : 0;

	if (!result)
		result = content_take_ahead(stream->content, part->start + part->size);
	if (!result)
		result = transfer_upload_part(ahead->transfer, &call, &request, stream->id, &cell, (unsigned)index + 1,
					      ret_sent, err);
	killpoint("stream-part-sent");
	return result;
}

static void start_helpers(struct stream *stream);

/* With the lock held. The helper that found nothing to do leaves; of a dead stream the last one ends it. */
static bool leave(struct helper *helper)
{
	struct stream *stream = helper->stream;
	struct ahead *ahead = stream->ahead;
	bool last;

	helper->busy = false;
	last = --stream->busy == 0 && stream->dead;
	if (last) {
		list_remove(&stream->node);
		ahead->ending++;
	}
	(void)pthread_cond_broadcast(&ahead->idle);
	return last;
}

static void send_all(struct helper *helper)
{
	struct stream *stream = helper->stream;
	struct ahead *ahead = stream->ahead;
	bool last = false;

	for (;;) {
		struct upload_part sent = {0};
		struct err err = {0};
		struct part part;
		size_t index = 0;
		int result;

		{
			LOCK_GUARD(&ahead->lock);
			if (!take_part(stream, &index)) {
				last = leave(helper);
				break;
			}
			part = stream->parts[index];
		}
		result = send_part(stream, &part, index, &sent, &err);
		LOCK_GUARD(&ahead->lock);
		stream->parts[index].sending = false;
		if (result)
			stream->parts[index].stale = true;
		else
			stream->parts[index].sent = sent;
	}
	if (!last)
		return;
	ahead_end(stream, AHEAD_ABORT);
	LOCK_GUARD(&ahead->lock);
	ahead->ending--;
	(void)pthread_cond_broadcast(&ahead->idle);
}

static void helper_run(struct transfer_task *task)
{
	struct helper *helper = container_of(task, struct helper, task);
	struct stream *stream = helper->stream;
	struct err err = {0};
	bool begun;

	{
		LOCK_GUARD(&stream->ahead->lock);
		begun = stream->id || stream->dead || stream->seq;
	}
	if (!begun) {
		int result = begin(stream, &err);

		if (result) {
			log_debug("ahead", "file %" PRIu64 " is not sent ahead: %s", stream->ino, err.message);
			content_stop_ahead(stream->content);
		}
		LOCK_GUARD(&stream->ahead->lock);
		if (result)
			stream->dead = true;
		else
			start_helpers(stream);
	}
	send_all(helper);
}

static void helper_dropped(struct transfer_task *task)
{
	struct helper *helper = container_of(task, struct helper, task);

	LOCK_GUARD(&helper->stream->ahead->lock);
	helper->stream->dead = false; /* ahead_free ends what is on the list */
	(void)leave(helper);
}

/* As many as there are parts for; one alone begins the upload. With the lock held: nothing is dropped while the pool
 * lives, and it outlives us. */
static void start_helpers(struct stream *stream)
{
	struct ahead *ahead = stream->ahead;
	unsigned most = stream->id && !stream->dead ? transfer_parallel(ahead->transfer) : 1;
	size_t next = stream->count;

	for (size_t i = 0; i < PARALLEL && stream->busy < most; i++) {
		struct helper *helper = &stream->helpers[i];
		uint64_t start, size;

		plan_grid(transfer_limits(ahead->transfer), next, &start, &size);
		if (helper->busy || (!stream->dead && start + size > stream->available))
			continue;
		next++;
		*helper = (struct helper){
			.task = {.class = TRANSFER_BACKGROUND, .run = helper_run, .dropped = helper_dropped},
			.stream = stream,
			.busy = true};
		list_init(&helper->task.node);
		stream->busy++;
		transfer_submit(ahead->transfer, &helper->task);
	}
}

/* --- what contents tell ------------------------------------------------------------------------------------ */

static bool may_stream(const struct ahead *ahead)
{
	return transfer_can(ahead->transfer, BACKEND_MULTIPART) && transfer_can(ahead->transfer, BACKEND_CRC32C) &&
	       !transfer_can(ahead->transfer, BACKEND_LOCAL_READ);
}

/* With the lock held. */
static struct stream *add_stream(struct ahead *ahead, struct content *content, uint64_t ino)
{
	uint8_t mark[MARK_BYTES];
	struct stream *stream;
	unsigned slot = 0;

	while (slot < SLOTS && ahead->slots[slot])
		slot++;
	stream = slot < SLOTS ? calloc(1, sizeof(*stream)) : NULL;
	if (!stream)
		return NULL;
	*stream = (struct stream){.ahead = ahead, .ino = ino, .content = content, .slot = slot};
	random_bytes(mark, sizeof(mark));
	hex_encode(mark, sizeof(mark), stream->mark);
	content_hold(content);
	ahead->slots[slot] = true;
	list_add_tail(&ahead->streams, &stream->node);
	return stream;
}

static void on_grown(void *arg, struct content *content, uint64_t ino, uint64_t size)
{
	struct ahead *ahead = arg;
	struct stream *stream;

	if (!may_stream(ahead) || atomic_load(&ahead->cancelled))
		return;
	LOCK_GUARD(&ahead->lock);
	stream = find(ahead, ino, 0);
	if (!stream)
		stream = add_stream(ahead, content, ino);
	if (!stream)
		return;
	stream->available = size;
	start_helpers(stream);
}

static void on_committed(void *arg, uint64_t ino, uint64_t seq, const struct ranges *rewritten)
{
	struct ahead *ahead = arg;

	LOCK_GUARD(&ahead->lock);
	struct stream *stream = find(ahead, ino, 0);

	if (!stream)
		return;
	stream->seq = seq;
	for (size_t i = 0; i < stream->count; i++) {
		struct part *part = &stream->parts[i];

		part->stale |= !rewritten || ranges_intersects(rewritten, part->start, part->start + part->size);
	}
}

/* The bytes of the newest version are about to change in the live file: what is still being read of it is spoilt. */
static void on_changing(void *arg, uint64_t ino)
{
	struct ahead *ahead = arg;

	LOCK_GUARD(&ahead->lock);
	for (struct list *at = ahead->streams.next; at != &ahead->streams; at = at->next) {
		struct stream *stream = list_entry(at, struct stream, node);

		for (size_t i = 0; stream->ino == ino && stream->seq && i < stream->count; i++)
			stream->parts[i].stale |= stream->parts[i].sending;
	}
}

static void on_discarded(void *arg, uint64_t ino)
{
	struct ahead *ahead = arg;
	struct stream *stream;

	LOCK_GUARD(&ahead->lock);
	stream = find(ahead, ino, 0);
	if (!stream)
		return;
	stream->dead = true;
	if (!stream->busy) /* else the last of them ends it */
		start_helpers(stream);
}

/* --- for the uploader ---------------------------------------------------------------------------------------- */

struct stream *ahead_take(struct ahead *ahead, uint64_t ino, uint64_t seq)
{
	struct stream *stream;
	bool useful = false;

	{
		LOCK_GUARD(&ahead->lock);
		stream = find(ahead, ino, seq);
		if (!stream || stream->in_doubt)
			return NULL;
		for (size_t i = 0; i < PARALLEL; i++)
			if (stream->helpers[i].busy && transfer_withdraw(ahead->transfer, &stream->helpers[i].task))
				(void)leave(&stream->helpers[i]);
		/* A part ends by its deadline at the latest. One that died is freed by its last helper, and not found.
		 */
		while (stream && stream->busy) {
			(void)lock_wait(&ahead->lock, &ahead->idle, 0);
			stream = find(ahead, ino, seq);
		}
		if (!stream || stream->in_doubt)
			return NULL;
		list_remove(&stream->node);
		for (size_t i = 0; i < stream->count; i++)
			useful |= stream->parts[i].sent.etag && !stream->parts[i].stale;
	}
	if (!useful) {
		ahead_end(stream, AHEAD_ABORT);
		return NULL;
	}
	return stream;
}

const char *ahead_key(const struct stream *stream)
{
	return stream->key;
}

const char *ahead_mark(const struct stream *stream)
{
	return stream->mark;
}

int ahead_claim(struct stream *stream)
{
	return slot_write(stream);
}

void ahead_begun(struct stream *stream, const struct transfer_part *parts, size_t count, struct upload_part *done,
		 struct transfer_begun *ret_begun)
{
	for (size_t i = 0; i < count; i++) {
		struct part *part = i < stream->count ? &stream->parts[i] : NULL;

		done[i] = (struct upload_part){0};
		if (!part || part->stale || part->start != parts[i].offset || part->size != parts[i].size)
			continue;
		done[i] = part->sent;
		part->sent = (struct upload_part){0};
	}
	*ret_begun = (struct transfer_begun){.id = stream->id, .done = done};
}

struct stream *ahead_left(struct ahead *ahead, uint64_t ino, uint64_t seq)
{
	LOCK_GUARD(&ahead->lock);
	struct stream *stream = find(ahead, ino, seq);

	if (!stream || !stream->in_doubt)
		return NULL;
	list_remove(&stream->node);
	return stream;
}

uint64_t ahead_moved(struct ahead *ahead, uint64_t ino)
{
	uint64_t moved = 0;

	LOCK_GUARD(&ahead->lock);
	for (struct list *at = ahead->streams.next; at != &ahead->streams; at = at->next) {
		struct stream *stream = list_entry(at, struct stream, node);

		if (!ino || stream->ino == ino)
			moved += stream->moved;
	}
	return moved;
}

int ahead_head(struct transfer *transfer, const struct call *call, const struct object_ref *object,
	       struct object_info *ret_info, struct err *err)
{
	struct object_info info = {0}, facts = {0};
	char key[sizeof(AHEAD_FACTS_PREFIX) + MARK_SIZE];
	uint8_t mark[MARK_BYTES];
	struct err why = {0};
	const char *text;
	int result = transfer_head(transfer, call, object, &info, err);

	if (result)
		return result;
	text = meta_get(&info.meta, AHEAD_FACTS_META);
	if (text && strlen(text) == 2 * MARK_BYTES && !hex_decode(text, MARK_BYTES, mark)) {
		const struct object_ref ref = {.key = key};

		(void)snprintf(key, sizeof(key), AHEAD_FACTS_PREFIX "%s", text);
		result = transfer_head(transfer, call, &ref, &facts, &why);
		if (!result) {
			meta_clear(&info.meta);
			info.meta = facts.meta;
			facts.meta = (struct meta){0};
			free(info.content_type);
			info.content_type = facts.content_type;
			facts.content_type = NULL;
		} else if (why.kind == ERR_NOT_FOUND) {
			result = 0; /* somebody copied the object to another bucket: what it says itself must do */
		} else if (err) {
			*err = why;
		}
	}
	object_info_clear(&facts);
	if (result)
		object_info_clear(&info);
	else
		*ret_info = info;
	return result;
}

/* --- life ------------------------------------------------------------------------------------------------------ */

static int parse_slot(struct ahead *ahead, unsigned slot, const char *text, struct stream **ret_stream)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int at = 0, err = stream ? 0 : -ENOMEM;

	if (err)
		return err;
	*stream = (struct stream){.ahead = ahead, .slot = slot, .in_doubt = true};
	if (sscanf(text, "%32[0-9a-f] %" SCNu64 " %" SCNu64 " %ms%n", stream->mark, &stream->ino, &stream->seq,
		   &stream->id, &at) != 4 ||
	    text[at] != ' ')
		err = -EBADMSG;
	stream->key = err ? NULL : strdup(text + at + 1);
	if (!err && !stream->key)
		err = -ENOMEM;
	if (err)
		stream_free(stream);
	else
		*ret_stream = stream;
	return err;
}

static int version_of(struct cat_txn *txn, void *arg)
{
	struct cat_version *version = arg;

	return cat_version_get(txn, version->ino, version->seq, version);
}

/* A version that is not stored looks for it by itself; nobody else will. */
static bool is_awaited(struct ahead *ahead, const struct stream *stream)
{
	struct cat_version version = {.ino = stream->ino, .seq = stream->seq};

	return stream->seq && catalog_view(ahead->catalog, version_of, &version) == 0 && version.state != CAT_STORED &&
	       version.state != CAT_EXPIRED;
}

static int load_slots(struct ahead *ahead)
{
	int err = 0;

	for (unsigned slot = 0; slot < SLOTS && (!err || err == -ENOENT); slot++) {
		AUTO_FREE char *text = NULL;
		struct stream *stream = NULL;
		char name[16];

		slot_name(slot, name);
		err = catalog_setting_get(ahead->catalog, name, &text);
		if (err || !*text)
			continue;
		err = parse_slot(ahead, slot, text, &stream);
		if (err == -EBADMSG) {
			log_warn("ahead", "the record of an upload makes no sense: %s", text);
			err = 0;
		}
		if (!stream)
			continue;
		bool awaited = is_awaited(ahead, stream);

		LOCK_GUARD(&ahead->lock);
		ahead->slots[slot] = true;
		list_add_tail(&ahead->streams, &stream->node);
		stream->dead = !awaited;
		if (!awaited)
			start_helpers(stream); /* which aborts it */
	}
	return err == -ENOENT ? 0 : err;
}

int ahead_new(const struct ahead_options *options, struct ahead **ret_ahead)
{
	struct ahead *ahead = calloc(1, sizeof(*ahead));
	int err;

	if (!ahead)
		return -ENOMEM;
	ahead->catalog = options->catalog;
	ahead->transfer = options->transfer;
	ahead->contents = options->contents;
	ahead->lease = options->lease;
	lock_init(&ahead->lock, LOCK_AHEAD);
	lock_cond_init(&ahead->idle);
	list_init(&ahead->streams);
	err = load_slots(ahead);
	if (err) {
		ahead_free(ahead);
		return err;
	}
	ahead->watch = (struct contents_watch){.grown = on_grown,
					       .committed = on_committed,
					       .changing = on_changing,
					       .discarded = on_discarded,
					       .arg = ahead};
	contents_watch(ahead->contents, &ahead->watch);
	*ret_ahead = ahead;
	return 0;
}

/* The next stream, idle and off the list. */
static struct stream *next_idle(struct ahead *ahead)
{
	LOCK_GUARD(&ahead->lock);
	while (!list_empty(&ahead->streams)) {
		struct stream *stream = list_entry(ahead->streams.next, struct stream, node);

		for (size_t i = 0; i < PARALLEL; i++)
			if (stream->helpers[i].busy && transfer_withdraw(ahead->transfer, &stream->helpers[i].task) &&
			    leave(&stream->helpers[i])) {
				ahead->ending--;
				return stream;
			}
		if (!stream->busy) {
			list_remove(&stream->node);
			return stream;
		}
		(void)lock_wait(&ahead->lock, &ahead->idle, 0);
	}
	while (ahead->ending)
		(void)lock_wait(&ahead->lock, &ahead->idle, 0);
	return NULL;
}

void ahead_cancel(struct ahead *ahead)
{
	atomic_store(&ahead->cancelled, true);
}

void ahead_free(struct ahead *ahead)
{
	struct stream *stream;

	if (!ahead)
		return;
	contents_watch(ahead->contents, NULL);
	ahead_cancel(ahead);
	while ((stream = next_idle(ahead))) {
		if (stream->in_doubt && !stream->dead)
			stream_free(stream); /* its slot tells the next mount */
		else
			ahead_end(stream, AHEAD_ABORT);
	}
	(void)pthread_cond_destroy(&ahead->idle);
	lock_destroy(&ahead->lock);
	free(ahead);
}
