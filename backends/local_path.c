/*
 * local_path.c - keys to paths, and walking paths without leaving the store.
 *
 * Keys come from strangers and other tools change the tree while we walk it, so
 * every path is resolved by openat2 beneath the root and without symlinks; what
 * changes a directory goes through a descriptor of the parent got that way.
 *
 * Threads: no state here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backends/local.h"
#include "buf.h"
#include "checksum.h"
#include "cleanup.h"

#define OPEN_TRIES 128

static bool component_possible(const char *component, size_t len)
{
	if (len == 0 || len > LOCAL_NAME_MAX)
		return false;
	return !(component[0] == '.' && (len == 1 || (len == 2 && component[1] == '.')));
}

/* All components up to the last slash, and what follows unless it is empty. */
static bool path_possible(const char *key)
{
	if (strlen(key) > LOCAL_TREE_KEY_MAX)
		return false;
	for (const char *at = key;;) {
		size_t len = strcspn(at, "/");

		if (at[len] == '\0')
			return len == 0 ? at != key : component_possible(at, len);
		if (!component_possible(at, len))
			return false;
		at += len + 1;
	}
}

bool local_is_private(const char *key)
{
	static const char *const folders[] = {LOCAL_TMP, LOCAL_ODD, LOCAL_PAST};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		size_t len = strlen(folders[i]);

		if (strncmp(key, folders[i], len) == 0 && (key[len] == '/' || key[len] == '\0'))
			return true;
	}
	return false;
}

/* The folder of the past for the directories of `key`; what follows the last slash is returned. */
static const char *add_past_dirs(struct buf *past, const char *key)
{
	const char *slash;

	buf_adds(past, LOCAL_PAST);
	for (; (slash = strchr(key, '/')); key = slash + 1) {
		buf_adds(past, "/d/");
		buf_add(past, key, (size_t)(slash - key));
	}
	return key;
}

static int place_paths(struct local_place *place, const char *digest)
{
	AUTO_BUF past = BUF_INIT;
	AUTO_BUF odd = BUF_INIT;
	const char *key = place->key;
	const char *name;

	if (place->kind == LOCAL_UNPATHED) {
		buf_addf(&past, LOCAL_PAST "/odd/%s", digest);
	} else {
		name = add_past_dirs(&past, key);
		buf_adds(&past, *name ? "/k/" : "/m");
		buf_adds(&past, name);
		place->path = strndup(key, strlen(key) - (place->kind == LOCAL_DIRECTORY));
		if (!place->path)
			return -ENOMEM;
	}
	if (place->kind != LOCAL_FILE) {
		buf_addf(&odd, LOCAL_ODD "/%s", digest);
		place->odd = buf_detach(&odd);
		if (!place->odd)
			return -ENOMEM;
	}
	place->past = buf_detach(&past);
	return place->past ? 0 : -ENOMEM;
}

int local_place_init(struct local_place *ret_place, const char *key, struct err *err)
{
	struct local_place place = {.key = key};
	uint8_t sha[SHA256_SIZE];
	char digest[SHA256_HEX_SIZE];
	size_t len = strlen(key);

	if (len == 0)
		return err_set(err, ERR_CONFIGURATION, "an object needs a key");
	if (len > LOCAL_KEY_MAX)
		return err_set(err, ERR_TOO_LARGE, "a key of %zu bytes: at most %d", len, LOCAL_KEY_MAX);
	if (local_is_private(key))
		return err_set(err, ERR_CONFLICT, "%s: the store's own folder", key);
	if (!path_possible(key))
		place.kind = LOCAL_UNPATHED;
	else
		place.kind = key[len - 1] == '/' ? LOCAL_DIRECTORY : LOCAL_FILE;
	sha256_of(key, len, sha);
	hex_encode(sha, sizeof(sha), digest);
	memcpy(&place.lock, sha, sizeof(place.lock));
	place.lock >>= 2; /* an off_t with room for its length */
	if (place_paths(&place, digest)) {
		local_place_clear(&place);
		return err_set(err, ERR_NO_MEMORY, "no memory for the path of a key");
	}
	*ret_place = place;
	return 0;
}

void local_place_clear(struct local_place *place)
{
	free(place->path);
	free(place->odd);
	free(place->past);
	*place = (struct local_place){0};
}

int local_level_paths(const char *prefix, char **ret_path, char **ret_past)
{
	AUTO_BUF past = BUF_INIT;
	size_t len = strlen(prefix);
	char *path;

	if (len > 0 && (!path_possible(prefix) || local_is_private(prefix)))
		return -EINVAL;
	(void)add_past_dirs(&past, prefix); /* nothing follows the last slash */
	path = strndup(prefix, len ? len - 1 : 0);
	if (!path || buf_failed(&past)) {
		free(path);
		return -ENOMEM;
	}
	*ret_path = path;
	*ret_past = buf_detach(&past);
	return 0;
}

int local_open(int root, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	/* EAGAIN: a rename elsewhere made the kernel unsure whether ".." was safe; trying again is what it asks for. */
	for (int i = 0; i < OPEN_TRIES; i++) {
		long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));

		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return -EAGAIN;
}

int local_open_parent(int root, const char *path, int *ret_fd, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *parent = strndup(path, slash ? (size_t)(slash - path) : 0);
	int fd;

	if (!parent)
		return -ENOMEM;
	fd = local_open(root, parent, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	*ret_name = slash ? slash + 1 : path;
	return 0;
}

/* Opens one component below `parent`, making it when it is missing. */
static int enter_dir(int parent, const char *name, mode_t mode, bool *ret_made)
{
	int fd = local_open(parent, name, O_RDONLY | O_DIRECTORY, 0);

	*ret_made = false;
	if (fd != -ENOENT)
		return fd;
	if (mkdirat(parent, name, mode) == 0)
		*ret_made = true;
	else if (errno != EEXIST)
		return -errno;
	return local_open(parent, name, O_RDONLY | O_DIRECTORY, 0);
}

int local_mkdirs(int root, const char *path, int *ret_fd, size_t *ret_made)
{
	bool own = strncmp(path, LOCAL_OWN "/", strlen(LOCAL_OWN "/")) == 0 || strcmp(path, LOCAL_OWN) == 0;
	char name[LOCAL_NAME_MAX + 1];
	size_t made = SIZE_MAX;
	int at = local_open(root, path, O_RDONLY | O_DIRECTORY, 0);

	if (at >= 0 || at != -ENOENT || *path == '\0')
		goto out;
	at = local_open(root, "", O_RDONLY | O_DIRECTORY, 0);
	for (const char *from = path; at >= 0 && *from;) {
		size_t len = strcspn(from, "/");
		bool made_now;
		int next;

		memcpy(name, from, len);
		name[len] = '\0';
		next = enter_dir(at, name, own ? 0700 : 0777, &made_now);
		if (made_now && made == SIZE_MAX)
			made = (size_t)(from - path);
		(void)close(at); /* a directory: nothing to lose */
		at = next;
		from += len + (from[len] == '/');
	}
out:
	if (at < 0)
		return at;
	*ret_fd = at;
	*ret_made = made;
	return 0;
}

int local_sync_dir(int root, const char *path)
{
	AUTO_CLOSE int fd = local_open(root, path, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return fd;
	return fsync(fd) ? -errno : 0;
}

int local_sync_made(int root, const char *path, size_t made)
{
	AUTO_FREE char *parent = NULL;

	if (made == SIZE_MAX)
		return 0;
	parent = strdup(path);
	if (!parent)
		return -ENOMEM;
	/* The entry of each directory made is in its parent, which ends one slash before it. */
	for (size_t at = made;;) {
		size_t end = at > 0 ? at - 1 : 0;
		int rc;

		parent[end] = '\0';
		rc = local_sync_dir(root, parent);
		if (rc && rc != -ENOENT)
			return rc;
		parent[end] = path[end];
		at += strcspn(path + at, "/");
		if (path[at] == '\0')
			return 0;
		at++;
	}
}

void local_prune(struct local *local, const char *path)
{
	AUTO_FREE char *dir = strdup(path);

	while (dir && *dir) {
		AUTO_CLOSE int parent = -1;
		const char *name;
		char *slash;
		int rc = local_stamped_dir(local, dir) ? -EBUSY : local_open_parent(local->root, dir, &parent, &name);

		if (rc && rc != -ENOENT)
			return;
		if (!rc && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
			return; /* in use */
		slash = strrchr(dir, '/');
		dir[slash ? slash - dir : 0] = '\0';
	}
}

int local_fail(struct err *err, int error, const char *what, const char *key)
{
	switch (error) {
	case -ENOTDIR:
	case -EISDIR:
	case -EEXIST:
	case -ENOTEMPTY:
		return err_set(err, ERR_CONFLICT, "%s %s: a file and a directory cannot share a name", what, key);
	case -ELOOP:
	case -EXDEV:
	case -ENXIO:
		return err_set(err, ERR_CONFLICT, "%s %s: a link or special file is in the way", what, key);
	default:
		return err_from_errno(err, -error, "%s %s", what, key);
	}
}
