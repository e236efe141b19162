/*
 * prune.c - see prune.h.
 *
 * States: a stack of directories still to be read, and the names of the one
 * being read. A step takes the next name, or the next directory.
 *
 * Invariants
 *  1. A directory is walked once, under whatever name it is met first.
 *  2. What is refused (current, held, retained, not stored) is decided by catalog_prune alone, but for a dry run,
 *     which asks the same questions without changing anything.
 *
 * Threads: the caller's.
 */
#include "fs/prune.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"

struct directory {
	uint64_t ino;
	char *path; /* "" or with a slash at its end */
};

struct prune {
	struct catalog *catalog;
	struct policy policy;
	bool dry_run;
	struct directory *stack;
	size_t depth, stack_cap;
	struct numbers walked; /* directories, by past_dir: one that was made again has the past of the one before */
	struct directory at;   /* the one being read */
	char **names;          /* of it, still to be looked at */
	size_t name_count, name_cap;
	uint64_t seen, kept, removed, refused, bytes; /* for the last line */
};

/* --- the walk ----------------------------------------------------------------------------------- */

static int push(struct prune *prune, uint64_t ino, const char *name)
{
	struct directory *directory;
	uint64_t past_dir;
	int result = catalog_past_dir(prune->catalog, ino, &past_dir);

	if (!result)
		result = numbers_add(&prune->walked, past_dir);
	if (result)
		return result < 0 ? result : 0;
	if (ARRAY_ROOM(prune->stack, prune->stack_cap, prune->depth))
		return -ENOMEM;
	directory = &prune->stack[prune->depth];
	directory->ino = ino;
	if (asprintf(&directory->path, "%s%s%s", prune->at.path ? prune->at.path : "", name, *name ? "/" : "") < 0)
		return -ENOMEM;
	prune->depth++;
	return 0;
}

static int add_name(struct prune *prune, const char *name)
{
	if (ARRAY_ROOM(prune->names, prune->name_cap, prune->name_count))
		return -ENOMEM;
	prune->names[prune->name_count] = strdup(name);
	return prune->names[prune->name_count] ? (int)(prune->name_count++, 0) : -ENOMEM;
}

static int take_name(void *arg, const char *name, uint32_t type, bool live)
{
	(void)type;
	(void)live;
	return add_name(arg, name);
}

static int next_directory(struct prune *prune)
{
	free(prune->at.path);
	prune->at = prune->stack[--prune->depth];
	return catalog_names_ever(prune->catalog, prune->at.ino, take_name, prune);
}

/* --- one name ----------------------------------------------------------------------------------- */

/* The files and directories that were removed under the name or live there. */
struct owners {
	uint64_t *files, *directories;
	size_t file_count, file_cap, directory_count, directory_cap;
};

static void owners_free(struct owners *owners)
{
	free(owners->files);
	free(owners->directories);
}

static int add_file(struct owners *owners, uint64_t ino)
{
	if (ARRAY_ROOM(owners->files, owners->file_cap, owners->file_count))
		return -ENOMEM;
	owners->files[owners->file_count++] = ino;
	return 0;
}

static int add_directory(struct owners *owners, uint64_t ino)
{
	if (ARRAY_ROOM(owners->directories, owners->directory_cap, owners->directory_count))
		return -ENOMEM;
	owners->directories[owners->directory_count++] = ino;
	return 0;
}

static int take_past(void *arg, const struct cat_past *past)
{
	/* What was renamed away belongs to the name it went to. */
	if (past->ended == CAT_HOW_RENAME)
		return 0;
	if (S_ISDIR(past->type))
		return add_directory(arg, past->ino);
	return S_ISREG(past->type) ? add_file(arg, past->ino) : 0;
}

struct name_at {
	uint64_t dir;
	const char *name;
	struct owners *owners;
	size_t past_count; /* files found in the past; those with a name by now are not this name's */
};

static int is_this(void *arg, const struct cat_name *link)
{
	const struct name_at *at = arg;

	/* Oldest first: the first one decides. */
	return link->parent == at->dir && strcmp(link->name, at->name) == 0 ? 1 : 2;
}

/* Does the file belong to this name? */
static int judge(struct cat_txn *txn, struct name_at *at, uint64_t ino, bool live)
{
	struct cat_inode inode;
	int result = cat_inode_get(txn, ino, &inode);

	if (result)
		return result == -ENOENT ? 0 : result;
	if (!inode.nlink)
		return !live;
	result = cat_link_each(txn, ino, is_this, at);
	return result < 0 ? result : result == 1;
}

static int find_owners(struct cat_txn *txn, void *arg)
{
	struct name_at *at = arg;
	struct owners *owners = at->owners;
	struct cat_name name;
	size_t kept = 0;
	int result;

	for (size_t i = 0; i < at->past_count; i++) {
		result = judge(txn, at, owners->files[i], false);
		if (result < 0)
			return result;
		if (result)
			owners->files[kept++] = owners->files[i];
	}
	owners->file_count = kept;
	result = cat_name_get(txn, at->dir, at->name, &name);
	if (result)
		return result == -ENOENT ? 0 : result;
	if (S_ISDIR(name.type))
		return add_directory(owners, name.ino);
	result = S_ISREG(name.type) ? judge(txn, at, name.ino, true) : 0;
	return result == 1 ? add_file(owners, name.ino) : result;
}

static int owners_of(struct prune *prune, const char *name, struct owners *ret_owners)
{
	struct name_at at = {.dir = prune->at.ino, .name = name, .owners = ret_owners};
	int result = catalog_past(prune->catalog, prune->at.ino, name, take_past, ret_owners);

	if (result && result != -ENOENT)
		return result;
	at.past_count = ret_owners->file_count;
	return catalog_view(prune->catalog, find_owners, &at);
}

static bool owns(const struct owners *owners, uint64_t ino)
{
	for (size_t i = 0; i < owners->file_count; i++)
		if (owners->files[i] == ino)
			return true;
	return false;
}

/* --- its history -------------------------------------------------------------------------------- */

struct history {
	struct cat_version *versions;
	int64_t *times;
	size_t count, versions_cap, times_cap;
};

static int take_entry(void *arg, const struct cat_entry *entry)
{
	struct history *history = arg;

	if (entry->version.state == CAT_EXPIRED)
		return 0;
	if (ARRAY_ROOM(history->versions, history->versions_cap, history->count) ||
	    ARRAY_ROOM(history->times, history->times_cap, history->count))
		return -ENOMEM;
	history->versions[history->count] = entry->version;
	history->times[history->count++] = entry->time_ns;
	return 0;
}

static const char *why_not(int error, const struct cat_version *version)
{
	switch (error) {
	case -EBUSY:
		return "current";
	case -EPERM:
		return version->flags & CAT_HELD ? "held" : "retained";
	case -EAGAIN:
		return "not stored yet";
	default:
		return NULL;
	}
}

static int say_version(struct prune *prune, const char *name, const struct cat_version *version, int64_t time_ns,
		       const char *refused, struct buf *ret_lines)
{
	char time[CLOCK_RFC3339_SIZE], identity[9];
	AUTO_BUF path = BUF_INIT, shown = BUF_INIT;
	AUTO_FREE char *text = NULL;
	json_t *line;

	buf_addf(&path, "%s%s", prune->at.path, name);
	escape_text(path.data, path.len, &shown);
	clock_format_rfc3339(time_ns, time);
	(void)snprintf(identity, sizeof(identity), "%08" PRIx32, version->identity); /* fits */
	line = json_pack("{s:s, s:s, s:s, s:I}", "path", utf8_valid(path.data, path.len) ? path.data : shown.data,
			 "time", time, "version", identity, "size", (json_int_t)version->size);
	if (line && refused)
		(void)json_object_set_new(line, "refused", json_string(refused)); /* shows below */
	text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	json_decref(line);
	if (!text)
		return -ENOMEM;
	buf_adds(ret_lines, text);
	buf_addc(ret_lines, '\n');
	return 0;
}

static int expire(struct prune *prune, const char *name, const struct cat_version *version, int64_t time_ns,
		  struct buf *ret_lines)
{
	int result = prune->dry_run ? catalog_prunable(prune->catalog, version->ino, version->seq)
				    : catalog_prune(prune->catalog, version->ino, version->seq);

	if (result == -ENOENT)
		return 0; /* somebody else was faster */
	if (result && !why_not(result, version))
		return result;
	if (result == -EBUSY) { /* nobody expects it to go */
		prune->kept++;
		return 0;
	}
	prune->refused += result != 0;
	prune->removed += result == 0;
	prune->bytes += result == 0 ? version->size : 0;
	return say_version(prune, name, version, time_ns, why_not(result, version), ret_lines);
}

static int prune_history(struct prune *prune, const char *name, const struct owners *owners, struct buf *ret_lines)
{
	struct history history = {0};
	const char **keep = NULL;
	int result = catalog_history(prune->catalog, prune->at.ino, name, take_entry, &history);

	if (result == -ENOENT)
		result = 0;
	if (!result && history.count) {
		keep = calloc(history.count, sizeof(*keep));
		if (keep)
			policy_apply(&prune->policy, history.times, history.count, keep);
		else
			result = -ENOMEM;
	}
	for (size_t i = 0; i < history.count && !result; i++) {
		const struct cat_version *version = &history.versions[i];

		if (!keep[i] && owns(owners, version->ino))
			result = expire(prune, name, version, history.times[i], ret_lines);
		else
			prune->kept += keep[i] != NULL;
	}
	free(keep);
	free(history.versions);
	free(history.times);
	return result;
}

static int prune_name(struct prune *prune, const char *name, struct buf *ret_lines)
{
	struct owners owners = {0};
	int result = owners_of(prune, name, &owners);

	prune->seen++;
	for (size_t i = owners.directory_count; i-- > 0 && !result;) /* of those with one past, the newest */
		result = push(prune, owners.directories[i], name);
	if (!result && owners.file_count)
		result = prune_history(prune, name, &owners, ret_lines);
	owners_free(&owners);
	return result;
}

/* --- public ------------------------------------------------------------------------------------- */

/* A component of the path that may be deleted by now: the live directory, or the one removed last. */
struct last_directory {
	uint64_t ino;
};

static int take_last_directory(void *arg, const struct cat_past *past)
{
	struct last_directory *last = arg;

	if (S_ISDIR(past->type) && past->ended != CAT_HOW_RENAME)
		last->ino = past->ino;
	return 0;
}

static int enter(struct prune *prune, const char *name)
{
	struct last_directory last = {0};
	struct cat_inode inode;
	AUTO_FREE char *before = prune->at.path;
	int result = catalog_lookup(prune->catalog, prune->at.ino, name, &inode);

	prune->at.path = NULL;
	if (result == -ENOENT) {
		result = catalog_past(prune->catalog, prune->at.ino, name, take_last_directory, &last);
		if (!result && !last.ino)
			result = -ENOENT;
	} else if (!result) {
		last.ino = S_ISDIR(inode.mode) ? inode.ino : 0;
		result = last.ino ? 0 : -ENOTDIR;
	}
	if (result)
		return result;
	prune->at.ino = last.ino;
	return asprintf(&prune->at.path, "%s%s/", before ? before : "", name) < 0 ? -ENOMEM : 0;
}

/* The last component is looked at like any other name of its directory. */
static int find_start(struct prune *prune, const char *path)
{
	AUTO_FREE char *copy = strdup(path), *rest = NULL;
	char *name = copy, *slash;
	int result = copy ? 0 : -ENOMEM;

	prune->at.ino = CAT_ROOT_INO;
	prune->at.path = strdup("");
	if (!prune->at.path)
		return -ENOMEM;
	while (!result && (slash = strchr(name, '/'))) {
		*slash = '\0';
		result = enter(prune, name);
		name = slash + 1;
	}
	if (result)
		return result;
	if (!*name)
		return push(prune, prune->at.ino, "");
	{
		struct owners owners = {0};

		result = owners_of(prune, name, &owners);
		if (!result && !owners.file_count && !owners.directory_count)
			result = -ENOENT;
		owners_free(&owners);
	}
	return result ? result : add_name(prune, name);
}

int prune_new(struct catalog *catalog, const struct prune_request *request, struct prune **ret_prune)
{
	struct prune *prune = calloc(1, sizeof(*prune));
	int result;

	if (!prune)
		return -ENOMEM;
	*prune = (struct prune){.catalog = catalog, .policy = request->policy, .dry_run = request->dry_run};
	result = policy_is_empty(&request->policy) ? -EINVAL : find_start(prune, request->path);
	if (result)
		prune_free(prune);
	else
		*ret_prune = prune;
	return result;
}

void prune_free(struct prune *prune)
{
	if (!prune)
		return;
	for (size_t i = 0; i < prune->depth; i++)
		free(prune->stack[i].path);
	for (size_t i = 0; i < prune->name_count; i++)
		free(prune->names[i]);
	free(prune->stack);
	numbers_clear(&prune->walked);
	free(prune->names);
	free(prune->at.path);
	free(prune);
}

uint64_t prune_seen(const struct prune *prune)
{
	return prune->seen;
}

int prune_step(struct prune *prune, struct buf *ret_lines)
{
	if (prune->name_count) {
		AUTO_FREE char *name = prune->names[--prune->name_count];
		int result = prune_name(prune, name, ret_lines);

		return result ? result : 1;
	}
	if (prune->depth) {
		int result = next_directory(prune);

		return result < 0 ? result : 1;
	}
	buf_addf(ret_lines,
		 "{\"done\":true,\"names\":%" PRIu64 ",\"kept\":%" PRIu64 ",\"removed\":%" PRIu64
		 ",\"refused\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n",
		 prune->seen, prune->kept, prune->removed, prune->refused, prune->bytes);
	return 0;
}
