/*
 * listing.c - see listing.h. Single-threaded.
 */
#include "tools/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "tools/past.h"

static int add(struct listing *listing, int dir, const struct dirent *entry)
{
	struct listing_entry added = {.name = listing->names.len, .number = entry->d_ino};

	added.type = DTTOIF(entry->d_type);
	if (entry->d_type == DT_UNKNOWN) {
		struct stat st;

		if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return errno == ENOENT ? 0 : -errno;
		added.type = st.st_mode & S_IFMT;
	}
	if (ARRAY_ROOM(listing->entries, listing->cap, listing->count))
		return -ENOMEM;
	buf_add(&listing->names, entry->d_name, strlen(entry->d_name) + 1);
	if (buf_failed(&listing->names))
		return -ENOMEM;
	listing->entries[listing->count++] = added;
	return 0;
}

static int compare(const void *left, const void *right, void *arg)
{
	const struct listing *listing = arg;
	const struct listing_entry *a = left, *b = right;

	return strcmp(listing->names.data + a->name, listing->names.data + b->name);
}

int listing_read(int dir, struct listing *ret_listing)
{
	struct listing listing = {.names = BUF_INIT};
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!stream) {
		rc = -errno;
		if (fd >= 0)
			(void)close(fd); /* only read */
		return rc;
	}
	while (rc == 0 && (errno = 0, entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    strcmp(entry->d_name, past_versions(fd)) != 0)
			rc = add(&listing, fd, entry);
	}
	if (rc == 0)
		rc = -errno;
	(void)closedir(stream); /* only read */
	if (rc < 0) {
		listing_free(&listing);
		return rc;
	}
	if (listing.count)
		qsort_r(listing.entries, listing.count, sizeof(*listing.entries), compare, &listing);
	*ret_listing = listing;
	return 0;
}

void listing_free(struct listing *listing)
{
	free(listing->entries);
	buf_free(&listing->names);
	*listing = (struct listing){.names = BUF_INIT};
}

const struct listing_entry *listing_find(const struct listing *listing, const char *name)
{
	size_t low = 0, high = listing->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(listing_name(listing, middle), name);

		if (order == 0)
			return &listing->entries[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
