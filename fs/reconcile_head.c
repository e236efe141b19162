/*
 * reconcile_head.c - an inode by HEAD: what a listing leaves open.
 *
 * Invariant: what HEAD and GET say is taken only for the very object the catalog knows, pinned by native id and etag.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/ahead.h"
#include "fs/reconcile_internal.h"

/* What the catalog knows of the inode to be resolved. */
struct subject {
	uint64_t ino;
	struct cat_inode inode;
	struct cat_name name; /* its oldest */
	struct cat_copy copy; /* key NULL: none */
	struct buf key;       /* where it belongs */
};

static int name_closure(struct cat_txn *txn, void *arg)
{
	struct subject *subject = arg;

	return cat_first_name(txn, subject->ino, &subject->name);
}

int reconcile_name_of(struct reconcile *reconcile, uint64_t ino, struct cat_name *ret_name)
{
	struct subject subject = {.ino = ino};
	int rc = catalog_view(reconcile->options.catalog, name_closure, &subject);

	*ret_name = subject.name;
	return rc;
}

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
	rc = cat_first_name(txn, subject->ino, &subject->name);
	if (rc)
		return rc;
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
	AUTO_BUF attributes = BUF_INIT;
	struct objmeta meta;
	struct cat_inode inode;
	struct body body;
	int rc = 0;

	objmeta_decode(&info->meta, &meta);
	found_meta(&reconcile->options, &meta, &found);
	if (objmeta_user(info, found.mode, &attributes))
		return err_from_errno(err, ENOMEM, "%s", found.key);
	found.attributes = attributes.data;
	found.attributes_len = attributes.len;
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

int reconcile_head_run(struct reconcile *reconcile, uint64_t ino, const struct call *call, struct err *err)
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
		rc = reconcile_join(reconcile, RECONCILE_KIND_LIST, subject.name.parent, call, &why);
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
