/*
 * kv_memory.c - the in-memory twin of kv.h, for tests: no files, no threads of
 * its own, and any call can be made to fail.
 *
 * A store is a treap, kept by directory name until kv_memory_reset, so that
 * closing and opening again finds what was there. An update works in place and
 * is undone from a list of what it replaced when its closure fails. Updates are
 * logged whole in memory for kv_log_each.
 *
 * Threads: a rwlock per store; updates exclude everything else.
 */
#include "support/kv_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/kv.h"

struct node {
	struct node *left, *right;
	uint64_t priority; /* a parent's is never smaller */
	size_t key_len, value_len;
	unsigned char *key, *value;
};

struct change {
	struct change *next;
	uint64_t number;
	size_t key_len, value_len;
	unsigned char *key, *value; /* value NULL: there was none (undo), deleted (log) */
};

struct kv {
	struct kv *next;
	char *dir;
	int open, read_only;
	pthread_rwlock_t lock; /* guards all below */
	struct node *root;
	struct change *log, **log_end;
	uint64_t number, released;
	uint64_t random;
};

struct kv_txn {
	struct kv *kv;
	int writing;
	struct change *undo;                   /* newest first */
	struct change *changes, **changes_end; /* in order */
};

static pthread_mutex_t stores_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kv *stores; /* guarded by stores_lock */
static atomic_long fail_in = -1;
static atomic_int failed;

void kv_memory_fail_at(long nth)
{
	atomic_store(&failed, 0);
	atomic_store(&fail_in, nth);
}

int kv_memory_failed(void)
{
	return atomic_load(&failed);
}

static int fault(void)
{
	long left = atomic_load(&fail_in);

	if (left < 0)
		return 0;
	atomic_store(&fail_in, left - 1);
	if (left > 0)
		return 0;
	atomic_store(&failed, 1);
	return -EIO;
}

static void *copy_of(const void *bytes, size_t len)
{
	unsigned char *copy = malloc(len + 1);

	if (!copy)
		abort(); /* a test machine without memory proves nothing */
	if (len)
		memcpy(copy, bytes, len);
	return copy;
}

/* --- the treap ---------------------------------------------------------------------------------- */

static int compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

static struct node *find(struct node *node, struct kv_bytes key)
{
	while (node) {
		int order = compare(key.data, key.len, node->key, node->key_len);

		if (order == 0)
			return node;
		node = order < 0 ? node->left : node->right;
	}
	return NULL;
}

/* Keys < key to the left, all others to the right. */
static void split(struct node *node, struct kv_bytes key, struct node **ret_left, struct node **ret_right)
{
	while (node) {
		if (compare(node->key, node->key_len, key.data, key.len) < 0) {
			*ret_left = node;
			ret_left = &node->right;
			node = node->right;
		} else {
			*ret_right = node;
			ret_right = &node->left;
			node = node->left;
		}
	}
	*ret_left = *ret_right = NULL;
}

static struct node *merge(struct node *left, struct node *right)
{
	struct node *root, **at = &root;

	while (left && right) {
		if (left->priority >= right->priority) {
			*at = left;
			at = &left->right;
			left = left->right;
		} else {
			*at = right;
			at = &right->left;
			right = right->left;
		}
	}
	*at = left ? left : right;
	return root;
}

static void insert(struct kv *kv, struct node *node)
{
	struct kv_bytes key = {.data = node->key, .len = node->key_len};
	struct node **at = &kv->root;

	while (*at && (*at)->priority >= node->priority)
		at = compare(key.data, key.len, (*at)->key, (*at)->key_len) < 0 ? &(*at)->left : &(*at)->right;
	split(*at, key, &node->left, &node->right);
	*at = node;
}

static void node_free(struct node *node)
{
	free(node->key);
	free(node->value);
	free(node);
}

static void discard(struct kv *kv, struct kv_bytes key)
{
	struct node **at = &kv->root, *node;

	while (*at) {
		int order = compare(key.data, key.len, (*at)->key, (*at)->key_len);

		if (order == 0)
			break;
		at = order < 0 ? &(*at)->left : &(*at)->right;
	}
	node = *at;
	if (!node)
		return;
	*at = merge(node->left, node->right);
	node_free(node);
}

/* Turns left children up until there are none, so that no depth is too deep. */
static void tree_free(struct node *node)
{
	while (node) {
		struct node *left = node->left, *right = node->right;

		if (left) {
			node->left = left->right;
			left->right = node;
			node = left;
		} else {
			node_free(node);
			node = right;
		}
	}
}

/* splitmix64: a weaker one falls into step with the keys and the tree becomes a list. */
static uint64_t kv_memory_random(struct kv *kv)
{
	uint64_t mixed = kv->random += UINT64_C(0x9e3779b97f4a7c15);

	mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
	return mixed ^ (mixed >> 31);
}

static void set(struct kv *kv, struct kv_bytes key, struct kv_bytes value)
{
	struct node *node = find(kv->root, key);

	if (node) {
		free(node->value);
	} else {
		node = calloc(1, sizeof(*node));
		if (!node)
			abort();
		node->key = copy_of(key.data, key.len);
		node->key_len = key.len;
		node->priority = kv_memory_random(kv);
		insert(kv, node);
	}
	node->value = copy_of(value.data, value.len);
	node->value_len = value.len;
}

/* The first node >= key, or the last one < key. */
static struct node *bound(struct node *node, struct kv_bytes key, enum kv_direction direction)
{
	struct node *best = NULL;

	while (node) {
		int below = compare(node->key, node->key_len, key.data, key.len) < 0;

		if (below == (direction == KV_BACKWARD))
			best = node;
		node = below ? node->right : node->left;
	}
	return best;
}

/* --- transactions ------------------------------------------------------------------------------- */

static struct change *change_new(struct kv_bytes key, const void *value, size_t value_len)
{
	struct change *change = calloc(1, sizeof(*change));

	if (!change)
		abort();
	change->key = copy_of(key.data, key.len);
	change->key_len = key.len;
	change->value = value ? copy_of(value, value_len) : NULL;
	change->value_len = value_len;
	return change;
}

static void changes_free(struct change *change)
{
	while (change) {
		struct change *next = change->next;

		free(change->key);
		free(change->value);
		free(change);
		change = next;
	}
}

static void remember(struct kv_txn *txn, struct kv_bytes key, const struct kv_bytes *value)
{
	const struct node *before = find(txn->kv->root, key);
	struct change *undo = before ? change_new(key, before->value, before->value_len) : change_new(key, NULL, 0);
	struct change *change =
		value ? change_new(key, value->data ? value->data : "", value->len) : change_new(key, NULL, 0);

	undo->next = txn->undo;
	txn->undo = undo;
	*txn->changes_end = change;
	txn->changes_end = &change->next;
}

int kv_get(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes *ret_value)
{
	const struct node *node = find(txn->kv->root, key);

	if (fault())
		return -EIO;
	if (!node)
		return -ENOENT;
	*ret_value = (struct kv_bytes){.data = node->value, .len = node->value_len};
	return 0;
}

int kv_put(struct kv_txn *txn, struct kv_bytes key, struct kv_bytes value)
{
	if (fault())
		return -EIO;
	if (!txn->writing || key.len == 0 || key.len > KV_KEY_MAX)
		return -EINVAL;
	remember(txn, key, &value);
	set(txn->kv, key, value);
	return 0;
}

int kv_delete(struct kv_txn *txn, struct kv_bytes key)
{
	if (fault())
		return -EIO;
	if (!txn->writing)
		return -EINVAL;
	if (!find(txn->kv->root, key))
		return 0;
	remember(txn, key, NULL);
	discard(txn->kv, key);
	return 0;
}

int kv_scan(struct kv_txn *txn, struct kv_bytes from, struct kv_bytes to, enum kv_direction direction, size_t max,
	    kv_visit visit, void *arg)
{
	unsigned char at[KV_KEY_MAX + 1];
	struct kv_bytes next = direction == KV_FORWARD ? from : to;

	if (fault())
		return -EIO;
	for (size_t count = 0; max == 0 || count < max; count++) {
		const struct node *node = bound(txn->kv->root, next, direction);
		int rc;

		if (!node || (direction == KV_FORWARD ? compare(node->key, node->key_len, to.data, to.len) >= 0
						      : compare(node->key, node->key_len, from.data, from.len) < 0))
			return 0;
		memcpy(at, node->key, node->key_len);
		at[node->key_len] = 0; /* the least key after it, for going forward */
		rc = visit(arg, (struct kv_bytes){.data = node->key, .len = node->key_len},
			   (struct kv_bytes){.data = node->value, .len = node->value_len});
		if (rc)
			return rc;
		next = (struct kv_bytes){.data = at, .len = node->key_len + (direction == KV_FORWARD)};
	}
	return 0;
}

int kv_view(struct kv *kv, kv_closure closure, void *arg)
{
	struct kv_txn txn = {.kv = kv};
	int rc;

	(void)pthread_rwlock_rdlock(&kv->lock); /* fails for misuse only */
	rc = closure(&txn, arg);
	(void)pthread_rwlock_unlock(&kv->lock);
	return rc;
}

static void finish(struct kv_txn *txn, int rc)
{
	struct kv *kv = txn->kv;

	for (const struct change *undo = txn->undo; rc && undo; undo = undo->next) {
		struct kv_bytes key = {.data = undo->key, .len = undo->key_len};

		if (undo->value)
			set(kv, key, (struct kv_bytes){.data = undo->value, .len = undo->value_len});
		else
			discard(kv, key);
	}
	if (rc == 0 && txn->changes) {
		kv->number++;
		for (struct change *change = txn->changes; change; change = change->next)
			change->number = kv->number;
		*kv->log_end = txn->changes;
		kv->log_end = txn->changes_end;
		txn->changes = NULL;
	}
	changes_free(txn->undo);
	changes_free(txn->changes);
}

int kv_update(struct kv *kv, kv_closure closure, void *arg)
{
	struct kv_txn txn = {.kv = kv, .writing = 1};
	int rc;

	if (kv->read_only)
		return -EROFS;
	txn.changes_end = &txn.changes;
	(void)pthread_rwlock_wrlock(&kv->lock);
	rc = closure(&txn, arg);
	finish(&txn, rc);
	(void)pthread_rwlock_unlock(&kv->lock);
	return rc;
}

/* --- the store ---------------------------------------------------------------------------------- */

int kv_open(const char *dir, const struct kv_options *options, struct kv **ret_kv)
{
	struct kv *kv;
	int rc = 0;

	(void)pthread_mutex_lock(&stores_lock);
	for (kv = stores; kv && strcmp(kv->dir, dir) != 0; kv = kv->next)
		;
	if (kv && kv->open) {
		rc = -EBUSY;
		goto out;
	}
	if (!kv) {
		kv = calloc(1, sizeof(*kv));
		if (!kv)
			abort();
		kv->dir = copy_of(dir, strlen(dir));
		kv->dir[strlen(dir)] = '\0';
		kv->log_end = &kv->log;
		(void)pthread_rwlock_init(&kv->lock, NULL);
		kv->next = stores;
		stores = kv;
	}
	kv->open = 1;
	kv->read_only = options && options->read_only;
	*ret_kv = kv;
out:
	(void)pthread_mutex_unlock(&stores_lock);
	return rc;
}

void kv_close(struct kv *kv)
{
	(void)pthread_mutex_lock(&stores_lock);
	kv->open = 0;
	(void)pthread_mutex_unlock(&stores_lock);
}

void kv_memory_reset(void)
{
	(void)pthread_mutex_lock(&stores_lock);
	while (stores) {
		struct kv *kv = stores;

		stores = kv->next;
		tree_free(kv->root);
		changes_free(kv->log);
		(void)pthread_rwlock_destroy(&kv->lock);
		free(kv->dir);
		free(kv);
	}
	(void)pthread_mutex_unlock(&stores_lock);
}

uint64_t kv_number(struct kv *kv)
{
	uint64_t number;

	(void)pthread_rwlock_rdlock(&kv->lock);
	number = kv->number;
	(void)pthread_rwlock_unlock(&kv->lock);
	return number;
}

int kv_sync(struct kv *kv)
{
	(void)kv; /* nothing outlives the process anyway */
	return 0;
}

int kv_log_each(struct kv *kv, uint64_t after, uint64_t upto, kv_mutation_visit visit, void *arg)
{
	int rc = 0;

	(void)pthread_rwlock_rdlock(&kv->lock);
	if (after < kv->released)
		rc = -ESTALE;
	for (const struct change *change = kv->log; rc == 0 && change && change->number <= upto;
	     change = change->next) {
		struct kv_bytes value = {.data = change->value, .len = change->value_len};

		if (change->number > after)
			rc = visit(arg, change->number, (struct kv_bytes){.data = change->key, .len = change->key_len},
				   change->value ? &value : NULL);
	}
	(void)pthread_rwlock_unlock(&kv->lock);
	return rc;
}

void kv_log_release(struct kv *kv, uint64_t upto)
{
	(void)pthread_rwlock_wrlock(&kv->lock);
	while (kv->log && kv->log->number <= upto) {
		struct change *first = kv->log;

		kv->log = first->next;
		first->next = NULL;
		changes_free(first);
	}
	if (!kv->log)
		kv->log_end = &kv->log;
	if (kv->released < upto)
		kv->released = upto < kv->number ? upto : kv->number;
	(void)pthread_rwlock_unlock(&kv->lock);
}

void kv_figures(struct kv *kv, struct kv_figures *ret_figures)
{
	*ret_figures = (struct kv_figures){.updates = kv_number(kv)};
}
