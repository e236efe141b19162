/*
 * reconcile_versions.c - the older versions of one file, and HEADs of many versions at once.
 *
 * Invariant: a version that the catalog knows, by its native id, is not asked about again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "cleanup.h"
#include "fs/ahead.h"
#include "fs/reconcile_internal.h"

#define VERSIONS_MAX 65536

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

static bool known_has(const struct known *known, const struct object_info *info)
{
	const char *id = cat_object_id(info->native_id, info->etag);

	return known->count && bsearch(&id, known->ids, known->count, sizeof(*known->ids), array_by_string);
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

struct helper {
	struct transfer_task task;
	struct reconcile_batch *batch;
};

#define HELPERS 15

/* What we put there for a symlink, a directory or a further hard link is no content of the file that came after it. */
static bool is_placeholder(const struct objmeta *meta)
{
	if (!(meta->has & OBJMETA_FILE_ID))
		return false;
	return (meta->has & OBJMETA_LINK) || ((meta->has & OBJMETA_MODE) && !S_ISREG(meta->mode));
}

int reconcile_version_head(struct reconcile_batch *batch, size_t i, struct err *err)
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

static void batch_work(struct reconcile_batch *batch)
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

static void helper_ended(struct reconcile_batch *batch)
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

int reconcile_batch_run(struct reconcile_batch *batch, struct err *err)
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
	struct reconcile_batch batch = {.reconcile = reconcile,
					.call = call,
					.one = reconcile_version_head,
					.findings = findings,
					.count = count};
	int rc;

	if (!findings->count)
		return 0;
	batch.metas = calloc(count, sizeof(*batch.metas));
	if (!batch.metas)
		return err_set(err, ERR_NO_MEMORY, "versions");
	rc = reconcile_batch_run(&batch, err);
	drop_placeholders(findings);
	if (!rc && findings->count) {
		rc = catalog_adopt_versions(reconcile->options.catalog, ino, findings->found, findings->count);
		if (rc)
			rc = err_from_errno(err, -rc, "versions of %s", findings->found[0].key);
	}
	free(batch.metas);
	return rc;
}

int reconcile_versions_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
{
	struct known known = {.ino = ino, .key = BUF_INIT};
	struct findings findings = {0};
	int rc = catalog_view(reconcile->options.catalog, known_closure, &known);

	if (rc)
		rc = err_from_errno(err, -rc, "inode %llu", (unsigned long long)ino);
	if (rc || !known.key.len)
		goto out;
	if (known.count)
		qsort(known.ids, known.count, sizeof(*known.ids), array_by_string);
	rc = versions_list(reconcile, call, &known, &findings, err);
	if (!rc)
		rc = versions_take(reconcile, call, ino, &findings, err);
out:
	findings_clear(&findings);
	known_clear(&known);
	buf_free(&known.key);
	return rc;
}
