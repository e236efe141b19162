/*
 * local_list.c - listings of the tree, and of the past beside it, in key order.
 *
 * A walker goes down the tree with a stack of sorted directories. A directory
 * sorts as its name with '/', which is where its keys lie among its neighbours'
 * keys; odd keys, of which there are few, are read whole and merged in. What
 * the walker yields are candidates: each is looked up when its turn comes, and
 * what is no object any more is passed over.
 *
 * Between two pages the walker waits in local->walkers under a serial number
 * that the token carries, so that a directory is read and sorted once however
 * many pages it takes. A token whose walker is gone still holds the last key
 * and version, and a new walker finds its way back there.
 *
 * Threads: a walker belongs to one call at a time; local->lock guards the array
 * they wait in.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "array.h"
#include "backends/local.h"
#include "buf.h"
#include "cleanup.h"

#define PAGE_DEFAULT 5000
#define PAGE_MAX 100000

struct names {
	char **items; /* sorted; directories end in '/' */
	size_t count, cap, at;
};

struct level {
	char *prefix; /* of all its keys: "" or ends in '/' */
	struct names names;
};

/* The last thing a page gave. */
struct position {
	uint64_t serial;
	char kind; /* 'k' key, 'v' one version of it, 'p' common prefix */
	char *id, *key;
};

struct local_walker {
	uint64_t serial;
	bool versions, grouped; /* grouped: delimiter '/' */
	char *prefix;
	struct level *levels;
	size_t depth;
	struct names odd;
	char *tree;                /* the tree's next candidate, not given yet */
	struct position after;     /* key NULL: give everything */
	struct object_info *ready; /* of one key, not given yet */
	size_t ready_count, ready_at;
};

/* --- names -------------------------------------------------------------------------------------------- */

static void names_clear(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->items[i]);
	free(names->items);
	*names = (struct names){0};
}

static int names_add(struct names *names, const char *name, const char *suffix)
{
	char *item;

	if (ARRAY_ROOM(names->items, names->cap, names->count))
		return -ENOMEM;
	if (asprintf(&item, "%s%s", name, suffix) < 0)
		return -ENOMEM;
	names->items[names->count++] = item;
	return 0;
}

static void names_sort(struct names *names)
{
	size_t kept = 0;

	if (names->count < 2)
		return;
	qsort(names->items, names->count, sizeof(*names->items), array_by_string);
	for (size_t i = 1; i < names->count; i++) {
		if (strcmp(names->items[kept], names->items[i]) == 0)
			free(names->items[i]);
		else
			names->items[++kept] = names->items[i];
	}
	names->count = kept + 1;
}

/* --- directories ---------------------------------------------------------------------------------------- */

/* S_IFREG, S_IFDIR, or 0 for what is nothing to us. */
static mode_t entry_type(int dir, const struct dirent *entry)
{
	struct stat st;

	switch (entry->d_type) {
	case DT_REG:
		return S_IFREG;
	case DT_DIR:
		return S_IFDIR;
	case DT_UNKNOWN:
		if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			return 0;
		return S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) ? st.st_mode & S_IFMT : 0;
	default:
		return 0;
	}
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* An entry of the directory whose keys begin with `prefix`, as we see it. */
static mode_t visible_type(int dir, const char *prefix, const struct dirent *entry)
{
	char key[sizeof(LOCAL_OWN "/") + LOCAL_NAME_MAX + 1];

	if (is_dot(entry->d_name))
		return 0;
	if (strcmp(prefix, LOCAL_OWN "/") == 0) {
		(void)snprintf(key, sizeof(key), "%s%s", prefix, entry->d_name); /* names are bounded */
		if (local_is_private(key))
			return 0;
	}
	return entry_type(dir, entry);
}

/* A stream of its own, so that the caller's descriptor keeps its offset. -errno as well. */
static int open_stream(int root, const char *path, DIR **ret_dir)
{
	int fd = local_open(root, path, O_RDONLY | O_DIRECTORY, 0);
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd); /* only read */
		return -ENOMEM;
	}
	*ret_dir = dir;
	return 0;
}

int local_dir_bare(int fd, const char *path, bool *ret_bare)
{
	const char *prefix = strcmp(path, LOCAL_OWN) == 0 ? LOCAL_OWN "/" : "";
	const struct dirent *entry;
	bool bare = true;
	DIR *dir;
	int rc = open_stream(fd, "", &dir);

	if (rc)
		return rc;
	while (bare && (entry = readdir(dir)))
		bare = visible_type(dirfd(dir), prefix, entry) == 0;
	(void)closedir(dir);
	*ret_bare = bare;
	return 0;
}

/* What is no directory, or none that may be entered, has no entries. */
static bool no_such_level(int rc)
{
	return rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP || rc == -EXDEV;
}

static int read_tree(struct local *local, const char *path, const char *prefix, struct names *names)
{
	const struct dirent *entry;
	DIR *dir;
	int rc = open_stream(local->root, path, &dir);

	if (rc)
		return no_such_level(rc) ? 0 : rc;
	while (!rc && (entry = readdir(dir))) {
		mode_t type = visible_type(dirfd(dir), prefix, entry);

		if (type)
			rc = names_add(names, entry->d_name, type == S_IFDIR ? "/" : "");
	}
	(void)closedir(dir);
	return rc;
}

static int read_past(struct local *local, const char *past, const char *folder, struct names *names)
{
	const char *suffix = strcmp(folder, "d") == 0 ? "/" : "";
	AUTO_FREE char *path = NULL;
	const struct dirent *entry;
	DIR *dir;
	int rc;

	if (asprintf(&path, "%s/%s", past, folder) < 0)
		return -ENOMEM;
	rc = open_stream(local->root, path, &dir);
	if (rc)
		return no_such_level(rc) ? 0 : rc;
	while (!rc && (entry = readdir(dir)))
		if (!is_dot(entry->d_name))
			rc = names_add(names, entry->d_name, suffix);
	(void)closedir(dir);
	return rc;
}

static int read_small(struct local *local, const char *path, char ret_text[static LOCAL_KEY_MAX + 1])
{
	AUTO_CLOSE int fd = local_open(local->root, path, O_RDONLY, 0);
	ssize_t len;

	if (fd < 0)
		return fd;
	len = pread(fd, ret_text, LOCAL_KEY_MAX, 0);
	if (len < 0)
		return -errno;
	ret_text[len] = '\0';
	return 0;
}

/* Adds the key that each file FOLDER/…SUFFIX holds. */
static int read_odd(struct local *local, const char *folder, const char *suffix, struct local_walker *walker)
{
	char key[LOCAL_KEY_MAX + 1];
	const struct dirent *entry;
	DIR *dir;
	int rc = open_stream(local->root, folder, &dir);

	if (rc)
		return no_such_level(rc) ? 0 : rc;
	while (!rc && (entry = readdir(dir))) {
		AUTO_FREE char *path = NULL;

		if (is_dot(entry->d_name))
			continue;
		if (asprintf(&path, "%s/%s%s", folder, entry->d_name, suffix) < 0)
			rc = -ENOMEM;
		else if (*suffix == '\0' && !strstr(entry->d_name, ".key"))
			continue;
		else if (read_small(local, path, key) == 0 && strncmp(key, walker->prefix, strlen(walker->prefix)) == 0)
			rc = names_add(&walker->odd, key, "");
	}
	(void)closedir(dir);
	return rc;
}

/* --- the walker -------------------------------------------------------------------------------------------- */

static void position_clear(struct position *position)
{
	free(position->id);
	free(position->key);
	*position = (struct position){0};
}

static void ready_clear(struct local_walker *walker)
{
	for (size_t i = walker->ready_at; i < walker->ready_count; i++)
		object_info_clear(&walker->ready[i]);
	free(walker->ready);
	walker->ready = NULL;
	walker->ready_at = walker->ready_count = 0;
}

static void pop_level(struct local_walker *walker)
{
	struct level *level = &walker->levels[--walker->depth];

	free(level->prefix);
	names_clear(&level->names);
}

void local_walker_free(struct local_walker *walker)
{
	if (!walker)
		return;
	while (walker->depth > 0)
		pop_level(walker);
	free(walker->levels);
	names_clear(&walker->odd);
	ready_clear(walker);
	position_clear(&walker->after);
	free(walker->tree);
	free(walker->prefix);
	free(walker);
}

/* Drops names that do not begin as the listing's prefix goes on in this level. */
static void filter_names(struct names *names, const char *rest)
{
	size_t kept = 0;

	for (size_t i = 0; i < names->count; i++) {
		if (strncmp(names->items[i], rest, strlen(rest)) == 0)
			names->items[kept++] = names->items[i];
		else
			free(names->items[i]);
	}
	names->count = kept;
}

/* Takes over `prefix`. */
static int push_level(struct local *local, struct local_walker *walker, char *prefix)
{
	struct level level = {.prefix = prefix};
	struct level *levels = reallocarray(walker->levels, walker->depth + 1, sizeof(*levels));
	AUTO_FREE char *path = NULL;
	AUTO_FREE char *past = NULL;
	int rc = levels ? local_level_paths(prefix, &path, &past) : -ENOMEM;

	if (levels)
		walker->levels = levels;
	if (rc) {
		free(prefix);
		return rc == -EINVAL ? 0 : rc; /* no path, so nothing in the tree */
	}
	rc = read_tree(local, path, prefix, &level.names);
	if (!rc && walker->versions)
		rc = read_past(local, past, "d", &level.names);
	if (!rc && walker->versions)
		rc = read_past(local, past, "k", &level.names);
	if (strlen(prefix) < strlen(walker->prefix))
		filter_names(&level.names, walker->prefix + strlen(prefix));
	names_sort(&level.names);
	walker->levels[walker->depth++] = level;
	return rc;
}

/* Was this candidate given before the walker's starting position? */
static bool passed(const struct local_walker *walker, const char *text)
{
	int order;

	if (!walker->after.key)
		return false;
	order = strcmp(text, walker->after.key);
	return order < 0 || (order == 0 && walker->after.kind != 'v');
}

/* May a directory's keys, which all begin with `text`, lie after the starting position? */
static bool subtree_passed(const struct local_walker *walker, const char *text)
{
	const char *after = walker->after.key;

	return after && strcmp(text, after) < 0 && strncmp(after, text, strlen(text)) != 0;
}

static bool is_group(const struct local_walker *walker, const char *text)
{
	return walker->grouped && strchr(text + strlen(walker->prefix), '/');
}

/* Fills walker->tree; leaves it NULL at the end. */
static int advance_tree(struct local *local, struct local_walker *walker)
{
	while (!walker->tree && walker->depth > 0) {
		struct level *top = &walker->levels[walker->depth - 1];
		char *text;
		bool directory;
		int rc = 0;

		if (top->names.at == top->names.count) {
			pop_level(walker);
			continue;
		}
		if (asprintf(&text, "%s%s", top->prefix, top->names.items[top->names.at++]) < 0)
			return -ENOMEM;
		directory = text[strlen(text) - 1] == '/';
		if (directory && !is_group(walker, text) && !subtree_passed(walker, text)) {
			char *prefix = strdup(text);

			rc = prefix ? push_level(local, walker, prefix) : -ENOMEM;
		}
		if (rc || passed(walker, text))
			free(text);
		else
			walker->tree = text;
		if (rc)
			return rc;
	}
	return 0;
}

/* An odd key as it counts in the listing: itself or its group. */
static char *odd_text(const struct local_walker *walker, const char *key)
{
	const char *slash = walker->grouped ? strchr(key + strlen(walker->prefix), '/') : NULL;

	return slash ? strndup(key, (size_t)(slash + 1 - key)) : strdup(key);
}

/* The next candidate in order, the caller's; NULL at the end. */
static int walker_next(struct local *local, struct local_walker *walker, char **ret_text)
{
	int rc = advance_tree(local, walker);
	char *text = walker->tree;

	if (rc)
		return rc;
	/* Groups repeat among odd keys; the same text in tree and odd is one. */
	while (walker->odd.at < walker->odd.count) {
		char *odd = odd_text(walker, walker->odd.items[walker->odd.at]);
		int order;

		if (!odd)
			return -ENOMEM;
		order = text ? strcmp(odd, text) : -1;
		if (order > 0) {
			free(odd);
			break;
		}
		walker->odd.at++;
		if (order == 0 || passed(walker, odd)) {
			free(odd);
			continue;
		}
		if (is_group(walker, odd)) {
			free(walker->after.key);
			free(walker->after.id);
			walker->after = (struct position){.kind = 'p', .key = strdup(odd)};
		}
		*ret_text = odd;
		return 0;
	}
	walker->tree = NULL;
	*ret_text = text;
	return 0;
}

/* The directory in which the prefix ends; its own marker is a key of the listing when the prefix ends there. */
static int walker_start(struct local *local, struct local_walker *walker)
{
	const char *slash = strrchr(walker->prefix, '/');
	size_t len = slash ? (size_t)(slash + 1 - walker->prefix) : 0;
	char *level = strndup(walker->prefix, len);
	int rc = level ? push_level(local, walker, level) : -ENOMEM;

	if (!rc && len > 0 && walker->prefix[len] == '\0' && walker->depth > 0 && !passed(walker, walker->prefix)) {
		walker->tree = strdup(walker->prefix);
		rc = walker->tree ? 0 : -ENOMEM;
	}
	if (!rc)
		rc = read_odd(local, LOCAL_ODD, "", walker);
	if (!rc && walker->versions)
		rc = read_odd(local, LOCAL_PAST "/odd", "/key", walker);
	names_sort(&walker->odd);
	return rc;
}

/* --- between pages ------------------------------------------------------------------------------------------- */

/* "SERIAL:KIND:ID:KEY" */
static int position_parse(const char *token, struct position *ret_position)
{
	struct position position = {0};
	const char *key;
	int at = 0;

	if (sscanf(token, "%" SCNx64 ":%c:%n", &position.serial, &position.kind, &at) != 2 || at == 0)
		return -EINVAL;
	key = strchr(token + at, ':');
	if (!key || !strchr("kvp", position.kind))
		return -EINVAL;
	position.id = strndup(token + at, (size_t)(key - token - at));
	position.key = strdup(key + 1);
	if (!position.id || !position.key) {
		position_clear(&position);
		return -ENOMEM;
	}
	*ret_position = position;
	return 0;
}

static struct local_walker *take_waiting(struct local *local, const struct list_request *request, uint64_t serial)
{
	struct local_walker *walker = NULL;

	LOCK_GUARD(&local->lock);
	for (size_t i = 0; i < LOCAL_WALKERS; i++) {
		struct local_walker *waiting = local->walkers[i];

		if (!waiting || waiting->serial != serial || waiting->versions != request->versions ||
		    waiting->grouped != (request->delimiter == '/') || strcmp(waiting->prefix, request->prefix) != 0)
			continue;
		walker = waiting;
		memmove(&local->walkers[i], &local->walkers[i + 1], (LOCAL_WALKERS - 1 - i) * sizeof(walker));
		local->walkers[LOCAL_WALKERS - 1] = NULL;
		break;
	}
	return walker;
}

/* Lets the walker wait under a new serial; the oldest goes when there are too many. */
static uint64_t let_wait(struct local *local, struct local_walker *walker)
{
	struct local_walker *oldest = NULL;
	uint64_t serial;
	size_t i = 0;

	lock_acquire(&local->lock);
	while (i < LOCAL_WALKERS && local->walkers[i])
		i++;
	if (i == LOCAL_WALKERS) {
		oldest = local->walkers[0];
		memmove(&local->walkers[0], &local->walkers[1], (LOCAL_WALKERS - 1) * sizeof(walker));
		i--;
	}
	serial = walker->serial = ++local->walker_serial;
	local->walkers[i] = walker;
	lock_release(&local->lock);
	local_walker_free(oldest);
	return serial;
}

static int walker_for(struct local *local, const struct list_request *request, struct local_walker **ret_walker)
{
	struct position after = {0};
	struct local_walker *walker = NULL;
	int rc = request->token ? position_parse(request->token, &after) : 0;

	if (rc)
		return rc;
	if (request->token)
		walker = take_waiting(local, request, after.serial);
	if (walker) {
		position_clear(&after);
		*ret_walker = walker;
		return 0;
	}
	walker = calloc(1, sizeof(*walker));
	if (!walker) {
		position_clear(&after);
		return -ENOMEM;
	}
	walker->versions = request->versions;
	walker->grouped = request->delimiter == '/';
	walker->after = after;
	walker->prefix = strdup(request->prefix);
	rc = walker->prefix ? walker_start(local, walker) : -ENOMEM;
	if (rc) {
		local_walker_free(walker);
		return rc;
	}
	*ret_walker = walker;
	return 0;
}

/* --- entries ---------------------------------------------------------------------------------------------------- */

static int add_ready(struct local_walker *walker, struct object_info *info)
{
	struct object_info *ready = reallocarray(walker->ready, walker->ready_count + 1, sizeof(*ready));

	if (!ready)
		return -ENOMEM;
	meta_clear(&info->meta); /* listings of other stores have none: nobody shall rely on it */
	walker->ready = ready;
	walker->ready[walker->ready_count++] = *info;
	*info = (struct object_info){0};
	return 0;
}

static int add_group(struct local *local, struct local_walker *walker, const char *text)
{
	struct object_info info = {.flags = OBJECT_PREFIX};
	AUTO_CLOSE int own = -1;
	bool bare = false;
	int rc = 0;

	/* Only our own folder can be there without anything in it that lists. */
	if (strcmp(text, LOCAL_OWN "/") == 0) {
		own = local_open(local->root, LOCAL_OWN, O_RDONLY | O_DIRECTORY, 0);
		rc = own < 0 || local_stamped_dir(local, LOCAL_OWN) ? 0 : local_dir_bare(own, LOCAL_OWN, &bare);
		if (rc || (bare && !walker->versions))
			return rc;
	}
	info.key = strdup(text);
	rc = info.key ? add_ready(walker, &info) : -ENOMEM;
	object_info_clear(&info);
	return rc;
}

static int add_marker(struct local_walker *walker, const char *key, const struct local_version *version)
{
	struct object_info info = {
		.key = strdup(key),
		.native_id = strdup(version->id),
		.flags = OBJECT_DELETE_MARKER,
	};
	uint64_t ns = 0;
	int rc;

	(void)sscanf(version->id, "%16" SCNx64, &ns); /* its first half is its time: see local_new_id */
	info.modified_ns = (int64_t)ns;
	rc = info.key && info.native_id ? add_ready(walker, &info) : -ENOMEM;
	object_info_clear(&info);
	return rc;
}

static int add_versions(struct local *local, struct local_walker *walker, const struct local_place *place,
			const struct local_object *current)
{
	struct local_versions versions = {0};
	int rc = local_past_load(local, place, current, &versions);

	for (size_t i = 0; !rc && i < versions.count; i++) {
		struct local_object object = LOCAL_OBJECT_NONE;

		if (versions.items[i].marker) {
			rc = add_marker(walker, place->key, &versions.items[i]);
			if (!rc && i == 0 && current->fd < 0)
				walker->ready[walker->ready_count - 1].flags |= OBJECT_LATEST;
			continue;
		}
		rc = local_past_open(local, place, versions.items[i].id, &object);
		if (!rc)
			rc = add_ready(walker, &object.info);
		else if (rc == -ENOENT)
			rc = 0; /* removed since */
		local_object_clear(&object);
	}
	local_versions_clear(&versions);
	return rc;
}

/* Drops the versions that the page before gave already. */
static void skip_given(struct local_walker *walker)
{
	const char *id = walker->after.id;
	size_t at = walker->ready_at;

	while (at < walker->ready_count && strcmp(walker->ready[at].native_id, id) != 0)
		at++;
	if (at == walker->ready_count) { /* that version is gone: go on with the older ones */
		at = walker->ready_at;
		while (at < walker->ready_count && strcmp(walker->ready[at].native_id, id) > 0)
			at++;
	} else {
		at++;
	}
	for (; walker->ready_at < at; walker->ready_at++)
		object_info_clear(&walker->ready[walker->ready_at]);
}

static int add_key(struct local *local, struct local_walker *walker, const char *key)
{
	struct local_object current = LOCAL_OBJECT_NONE;
	struct object_info info = {0};
	struct local_place place;
	int rc = local_place_init(&place, key, NULL);

	if (rc)
		return rc == -ENOMEM ? rc : 0;
	rc = local_current(local, &place, &current);
	if (rc == -ENOENT)
		rc = 0;
	if (!rc && current.fd >= 0) {
		/* The object keeps its id: the past is compared with it. */
		info = current.info;
		info.native_id = strdup(current.info.native_id);
		current.info = (struct object_info){.native_id = current.info.native_id};
		rc = info.native_id ? add_ready(walker, &info) : -ENOMEM;
		object_info_clear(&info);
	}
	if (!rc && walker->versions)
		rc = add_versions(local, walker, &place, &current);
	if (!rc && walker->after.key && walker->after.kind == 'v' && strcmp(walker->after.key, key) == 0)
		skip_given(walker);
	local_object_clear(&current);
	local_place_clear(&place);
	return rc;
}

/* The next entry; 1 at the end. */
static int next_entry(struct local *local, struct local_walker *walker, struct object_info *ret_info)
{
	while (walker->ready_at == walker->ready_count) {
		char *text = NULL;
		int rc;

		ready_clear(walker);
		rc = walker_next(local, walker, &text);
		if (rc || !text)
			return rc ? rc : 1;
		rc = is_group(walker, text) ? add_group(local, walker, text) : add_key(local, walker, text);
		free(text);
		if (rc)
			return rc;
	}
	*ret_info = walker->ready[walker->ready_at++];
	return 0;
}

static int fill_page(struct local *local, const struct call *call, struct local_walker *walker, size_t max,
		     struct list_page *page, struct err *err)
{
	size_t cap = 0;

	while (page->count < max) {
		int rc = local_check(call, err);

		if (rc)
			return rc;
		if (ARRAY_ROOM(page->entries, cap, page->count))
			return err_set(err, ERR_NO_MEMORY, "no memory for a listing");
		rc = next_entry(local, walker, &page->entries[page->count]);
		if (rc < 0)
			return local_fail(err, rc, "listing", walker->prefix);
		if (rc)
			return 0;
		page->count++;
	}
	return 0;
}

/* Is there a candidate left? It may yet turn out to be no object: then the last page is empty. */
static int more(struct local *local, struct local_walker *walker, bool *ret_more)
{
	int rc = walker->ready_at < walker->ready_count ? 0 : advance_tree(local, walker);

	*ret_more = walker->ready_at < walker->ready_count || walker->tree || walker->odd.at < walker->odd.count;
	return rc;
}

static int make_token(struct local *local, struct local_walker *walker, struct list_page *page)
{
	const struct object_info *last = &page->entries[page->count - 1];
	char kind = last->flags & OBJECT_PREFIX ? 'p' : walker->versions ? 'v' : 'k';

	if (asprintf(&page->next, "%016" PRIx64 ":%c:%s:%s", let_wait(local, walker), kind,
		     kind == 'v' ? last->native_id : "", last->key) < 0) {
		page->next = NULL;
		return -ENOMEM;
	}
	return 0;
}

int local_list(struct backend *backend, const struct call *call, const struct list_request *request,
	       struct list_page *ret_page, struct err *err)
{
	struct local *local = (struct local *)backend;
	struct local_walker *walker = NULL;
	struct list_page page = {0};
	size_t max = request->max ? request->max : PAGE_DEFAULT;
	bool again = false;
	int rc = local_check(call, err);

	if (rc)
		return rc;
	if (request->delimiter != '\0' && request->delimiter != '/')
		return err_set(err, ERR_UNSUPPORTED, "directories are delimited by '/' only");
	rc = walker_for(local, request, &walker);
	if (rc)
		return local_fail(err, rc, "listing", request->prefix);
	rc = fill_page(local, call, walker, max < PAGE_MAX ? max : PAGE_MAX, &page, err);
	if (!rc && page.count > 0) {
		rc = more(local, walker, &again);
		if (!rc && again) {
			rc = make_token(local, walker, &page);
			walker = NULL; /* waits for the next page, maybe in another thread's hands already */
		}
		if (rc)
			(void)local_fail(err, rc, "listing", request->prefix);
	}
	local_walker_free(walker);
	if (rc) {
		list_page_clear(&page);
		return rc;
	}
	*ret_page = page;
	return 0;
}
