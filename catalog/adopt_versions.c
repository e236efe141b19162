/*
 * adopt_versions.c - versions that the store has of a file, and that are older than our knowledge or were set aside.
 *
 * Invariants
 *  1. An old version is not news: it comes before the current one, and where time leaves it no room, further down.
 *     What never was the content (suspect, conflict) may be newer.
 *  2. No version that is known gets another number, time or name.
 *  3. What we made ourselves and only did not record is no further version.
 *  4. What lay at the file's key before its directory came there is another's past (is_of_another_directory).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "array.h"
#include "catalog/catalog_internal.h"
#include "cleanup.h"
#include "clock.h"

#define BATCH 500

struct known { /* of an inode's versions, what placing another needs */
	uint64_t seq;
	int64_t commit_ns, shown_ms;
};

struct versions {
	uint64_t ino;
	const struct cat_found **sorted; /* newest first */
	size_t count, next, taken;
	struct known *known; /* by seq */
	size_t known_count, known_cap;
	bool aside; /* not objects of the file's own key */
};

static bool same_string(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static int take_known(void *arg, const struct cat_version *version)
{
	struct versions *versions = arg;
	int rc = ARRAY_ROOM(versions->known, versions->known_cap, versions->known_count);

	if (rc < 0)
		return rc;
	versions->known[versions->known_count++] =
		(struct known){.seq = version->seq, .commit_ns = version->commit_ns, .shown_ms = version->shown_ms};
	return 0;
}

static int time_compare(const void *a, const void *b)
{
	const struct cat_found *x = *(const struct cat_found *const *)a, *y = *(const struct cat_found *const *)b;

	return (x->modified_ns < y->modified_ns) - (x->modified_ns > y->modified_ns);
}

/*
 * A number between the two that no version of any inode has: cache files and
 * inode numbers of versions are by it. The numbers given are multiples of the
 * stride, and the ones right below a version's are nobody else's; below the
 * oldest, it is the reflection of a new one. 0: there is none.
 */
static uint64_t number_between(struct cat_txn *txn, uint64_t low, uint64_t high)
{
	uint64_t given = low ? UINT64_MAX : cat_next_seq(txn);
	uint64_t mirrored = given < 2 * CAT_SEQ_FIRST ? 2 * CAT_SEQ_FIRST - given : UINT64_MAX;

	if (mirrored < high)
		return mirrored;
	if (high - low >= 2 && (high - 1) % CAT_SEQ_STRIDE)
		return high - 1;
	/* A stranger's metadata drove the numbers up so far: better one that may not be alone than no history. */
	return !low && high > CAT_SEQ_STRIDE ? high - CAT_SEQ_STRIDE : 0;
}

/*
 * Where by its time a version belongs among the known ones, and a sequence
 * number and shown time between its neighbours'. Where they leave no room, the
 * next place below is taken; below the oldest there is always room. Never after
 * the current version: an old version is not news. Returns the index, or -ENOSPC.
 */
static ssize_t choose_place(struct cat_txn *txn, const struct versions *versions, uint64_t current,
			    struct cat_version *version)
{
	const struct known *known = versions->known;
	size_t at = 0;

	while (at < versions->known_count && known[at].seq < current && known[at].commit_ns <= version->commit_ns)
		at++;
	if (at == versions->known_count) { /* the current version is not among them: damaged */
		if (at == 0)
			return -EBADMSG;
		at--;
	}
	for (;; at--) {
		const struct known *high = &known[at];
		uint64_t low_seq = at ? known[at - 1].seq : 0;
		int64_t low_ms = at ? known[at - 1].shown_ms : INT64_MIN / 2;
		int64_t ms = version->commit_ns / NS_PER_MS;

		version->seq = high->shown_ms - low_ms >= 2 ? number_between(txn, low_seq, high->seq) : 0;
		if (version->seq) {
			version->shown_ms = ms <= low_ms ? low_ms + 1 : ms >= high->shown_ms ? high->shown_ms - 1 : ms;
			return (ssize_t)at;
		}
		if (at == 0)
			return -ENOSPC;
	}
}

/* The copy turns out to have this native id. */
static int learn_id(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode,
		    const struct cat_copy *copy)
{
	struct cat_copy better = *copy;
	int rc;

	better.native_id = (char *)found->native_id;
	rc = cat_copy_replace(txn, copy, &better);
	if (rc == 0 && inode->nlink && copy->seq == inode->version) /* else the key is another's by now, or nobody's */
		rc = cat_found_put_key(txn, found, inode);
	return rc;
}

/* The copy of a version that is known from a listing of objects, which tells no native ids, is at the place of its
 * etag. Older ones are known by their time as well: the same content may have come back. */
static int find_nameless(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode,
			 struct cat_copy *ret_copy)
{
	uint64_t ino, seq = inode->version;
	int rc = cat_copy_get(txn, inode->ino, seq, ret_copy);

	if (rc == 0 && !ret_copy->native_id && same_string(ret_copy->etag, found->etag) &&
	    strcmp(ret_copy->key, found->key) == 0)
		return 0;
	if (rc == 0)
		cat_copy_clear(ret_copy);
	if (rc == 0 || rc == -ENOENT)
		rc = cat_place_get(txn, 0, found->key, found->etag, &ino, &seq);
	if (rc == 0 && ino == inode->ino)
		rc = cat_copy_get(txn, ino, seq, ret_copy);
	else if (rc == 0)
		rc = -ENOENT;
	if (rc == 0 && (ret_copy->native_id || ret_copy->stored_ns != found->modified_ns)) {
		cat_copy_clear(ret_copy);
		rc = -ENOENT;
	}
	return rc;
}

/* Is this object one of the versions we know? A copy without native id learns it here. 1, 0, -errno. */
static int is_known(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_copy copy;
	uint64_t ino, seq;
	int rc = cat_place_get(txn, 0, found->key, cat_object_id(found->native_id, found->etag), &ino, &seq);

	if (rc == 0)
		return 1;
	if (rc != -ENOENT || !found->native_id || !found->etag)
		return rc == -ENOENT ? 0 : rc;
	rc = find_nameless(txn, found, inode, &copy);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	rc = learn_id(txn, found, inode, &copy);
	cat_copy_clear(&copy);
	return rc ? rc : 1;
}

/* Of another inode: the key's object now, or one that came after this one had lost its name. 1, 0, -errno. */
static int is_anothers(struct cat_txn *txn, const struct cat_found *found, const struct cat_inode *inode)
{
	struct cat_version newest;
	struct cat_key record;
	bool others;
	int rc = cat_key_get(txn, 0, found->key, &record);

	if (rc == 0) {
		others = record.ino != inode->ino && cat_found_is_at(found, &record);
		cat_key_clear(&record);
		if (others)
			return 1;
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = inode->nlink ? -ENOENT : cat_version_get(txn, inode->ino, inode->version, &newest);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return found->modified_ns > newest.commit_ns;
}

static int is_at_key_of(struct cat_txn *txn, const struct cat_found *found, uint64_t ino)
{
	AUTO_BUF key = BUF_INIT;
	int rc = cat_key_of(txn, ino, &key);

	if (rc)
		return rc == -EINVAL ? 0 : rc; /* no key maps to its name */
	return buf_failed(&key) ? -ENOMEM : key.len && strcmp(key.data, found->key) == 0;
}

/* Did it lie at the file's key when that was beneath another directory of the name? What we stored of the file did not,
 * whatever the clocks say, nor what came before others' object that lay there first and was found in it later. 1, 0,
 * -errno. */
static int is_of_another_directory(struct cat_txn *txn, const struct versions *versions, const struct cat_found *found,
				   const struct cat_inode *inode)
{
	struct cat_name name;
	int rc;

	if (!inode->nlink || (cat_found_is_ours(found) && !memcmp(found->file_id, inode->file_id, CAT_FILE_ID_SIZE)))
		return 0;
	rc = cat_first_name(txn, inode->ino, &name);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_dir_came_after(txn, name.parent, found->modified_ns);
	if (rc == 1)
		rc = is_at_key_of(txn, found, inode->ino);
	if (rc <= 0 || name.how != CAT_HOW_ADOPT || !versions->known_count)
		return rc;
	rc = cat_dir_came_after(txn, name.parent, name.since_ns); /* then the file came with it */
	if (rc == 0) {
		rc = cat_dir_came_after(txn, name.parent, versions->known[0].commit_ns);
		rc = rc < 0 ? rc : !rc;
	}
	return rc;
}

struct same_version {
	uint32_t identity;
	int64_t commit_ns; /* 0: any. Two machines may have given one number to two versions of a file */
};

static int is_same_version(void *arg, const struct cat_version *version)
{
	const struct same_version *same = arg;

	return version->identity == same->identity && (!same->commit_ns || version->commit_ns == same->commit_ns);
}

/* What others made keeps the identity of its first place when we move it and give the copy our metadata: its number is
 * ours, and where a rebuilt catalog gave it to another version the time tells. */
static bool is_same_found(const struct same_version *same, const struct cat_version *version)
{
	return version->origin == CAT_ORIGIN_EXTERNAL && same->commit_ns && version->commit_ns == same->commit_ns;
}

int cat_holds_known(struct cat_txn *txn, const uint8_t file_id[static CAT_FILE_ID_SIZE], uint64_t seq,
		    int64_t commit_ns)
{
	struct same_version same = {.identity = cat_identity_own(file_id, seq), .commit_ns = commit_ns};
	struct cat_version version;
	uint64_t ino;
	int rc = cat_file_find(txn, file_id, &ino);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = cat_version_get(txn, ino, seq, &version);
	if (rc == 0 && (is_same_version(&same, &version) || is_same_found(&same, &version)))
		return 1;
	if (rc == 0 || rc == -ENOENT) /* in a catalog rebuilt from the listing it has another number */
		rc = cat_version_each(txn, ino, 0, UINT64_MAX, is_same_version, &same);
	return rc == -ENOENT ? 0 : rc;
}

int cat_holds_found(struct cat_txn *txn, const struct cat_found *found)
{
	return cat_found_is_ours(found) ? cat_holds_known(txn, found->file_id, found->seq, found->commit_ns) : 0;
}

/* Suspect and conflicting versions never were the file's content, so that they may be newer than what is. */
static ssize_t place_version(struct cat_txn *txn, const struct versions *versions, const struct cat_inode *inode,
			     struct cat_version *version)
{
	const struct known *last = versions->known_count ? &versions->known[versions->known_count - 1] : NULL;
	bool aside = version->origin == CAT_ORIGIN_SUSPECT || version->origin == CAT_ORIGIN_CONFLICT;
	int64_t now_ms = cat_now(txn) / NS_PER_MS;

	if (!aside || !last || version->commit_ns < last->commit_ns)
		return choose_place(txn, versions, inode->version, version);
	version->seq = cat_next_seq(txn);
	version->shown_ms = version->commit_ns / NS_PER_MS;
	if (version->shown_ms > now_ms) /* a clock that runs ahead must not push later versions' times */
		version->shown_ms = now_ms;
	if (version->shown_ms <= last->shown_ms)
		version->shown_ms = last->shown_ms + 1;
	return (ssize_t)versions->known_count;
}

/* Is a version of this inode called so already? Then its object's place names this one. */
static int make_distinct(struct cat_txn *txn, const struct cat_found *found, struct cat_version *version)
{
	struct same_version same = {.identity = version->identity};
	int rc = cat_found_is_ours(found) ? cat_version_each(txn, version->ino, 0, UINT64_MAX, is_same_version, &same)
					  : 0;

	if (rc == 1)
		version->identity = cat_identity_foreign(found->key, found->native_id ? found->native_id : found->etag);
	return rc < 0 ? rc : 0;
}

static int add_older(struct cat_txn *txn, struct versions *versions, const struct cat_found *found,
		     const struct cat_inode *inode)
{
	struct cat_version version = {.ino = inode->ino};
	struct cat_copy copy;
	ssize_t at;
	int rc = is_known(txn, found, inode);

	if (rc == 0)
		rc = cat_holds_found(txn, found);
	if (rc == 0 && !versions->aside)
		rc = is_anothers(txn, found, inode);
	if (rc == 0 && !versions->aside)
		rc = is_of_another_directory(txn, versions, found, inode);
	if (rc)
		return rc < 0 ? rc : 0;
	cat_found_version(found, inode, &version);
	if (cat_found_is_ours(found))
		cat_seq_above(txn, found->seq);
	if (versions->aside)
		rc = make_distinct(txn, found, &version);
	if (rc < 0)
		return rc;
	at = place_version(txn, versions, inode, &version);
	if (at < 0)
		return (int)at;
	cat_found_copy(found, version.ino, version.seq, &copy);
	rc = cat_version_put(txn, &version);
	if (rc == 0)
		rc = cat_copy_add(txn, &copy);
	if (rc == 0 && cat_found_is_ours(found))
		rc = cat_file_claim(txn, found->file_id, version.ino);
	if (rc == 0)
		rc = ARRAY_ROOM(versions->known, versions->known_cap, versions->known_count);
	if (rc < 0)
		return rc;
	memmove(versions->known + at + 1, versions->known + at,
		(versions->known_count - (size_t)at) * sizeof(*versions->known));
	versions->known_count++;
	versions->known[at] =
		(struct known){.seq = version.seq, .commit_ns = version.commit_ns, .shown_ms = version.shown_ms};
	return 0;
}

static int versions_closure(struct cat_txn *txn, void *arg)
{
	struct versions *versions = arg;
	struct cat_inode inode;
	int rc = cat_inode_get(txn, versions->ino, &inode);

	versions->taken = 0;
	versions->known_count = 0;
	if (rc == 0)
		rc = cat_version_each(txn, versions->ino, 0, UINT64_MAX, take_known, versions);
	if (rc < 0)
		return rc;
	if (!inode.version) { /* nothing to place them before: no file, or never stored */
		versions->taken = versions->count - versions->next;
		return 0;
	}
	while (rc == 0 && versions->taken < BATCH && versions->next + versions->taken < versions->count)
		rc = add_older(txn, versions, versions->sorted[versions->next + versions->taken++], &inode);
	return rc;
}

static int adopt_versions(struct catalog *catalog, struct versions *versions, const struct cat_found *found)
{
	int rc = -ENOMEM;

	versions->sorted = malloc((versions->count + 1) * sizeof(*versions->sorted));
	if (!versions->sorted)
		return rc;
	for (size_t i = 0; i < versions->count; i++)
		versions->sorted[i] = &found[i];
	qsort(versions->sorted, versions->count, sizeof(*versions->sorted), time_compare);
	for (rc = 0; rc == 0 && versions->next < versions->count; versions->next += versions->taken)
		rc = catalog_update(catalog, versions_closure, versions);
	free(versions->sorted);
	free(versions->known);
	return rc;
}

int catalog_adopt_versions(struct catalog *catalog, uint64_t ino, const struct cat_found *found, size_t count)
{
	return adopt_versions(catalog, &(struct versions){.ino = ino, .count = count}, found);
}

struct file_search {
	const uint8_t *file_id;
	uint64_t ino;
};

static int file_closure(struct cat_txn *txn, void *arg)
{
	struct file_search *search = arg;

	return cat_file_find(txn, search->file_id, &search->ino);
}

int catalog_adopt_aside(struct catalog *catalog, const uint8_t file_id[static CAT_FILE_ID_SIZE],
			const struct cat_found *found, size_t count)
{
	struct file_search search = {.file_id = file_id};
	int rc = catalog_view(catalog, file_closure, &search);

	return rc ? rc
		  : adopt_versions(catalog, &(struct versions){.ino = search.ino, .count = count, .aside = true},
				   found);
}
