/*
 * versions_history.c - a name's history as entries: their order, their names, and the other words for them.
 *
 * Invariant of a loaded history: shown_ms grows strictly from item to item, so
 * no two entries have one name and a time finds its entry by bisection.
 * Nothing is written after loading but the reference count.
 */
#include "fs/versions_history.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"

#define IDENTITY_DIGITS 8
#define TIME_LEN (CLOCK_NAME_SIZE - 1)

/* --- loading -------------------------------------------------------------------------------------- */

struct loaded_item {
	struct versions_history_item item;
	int64_t time_ns; /* when the name began to show it */
	bool expired;
};

/* What the loading closures fill; a closure that is run again starts it anew. */
struct loader {
	uint64_t dir;
	const char *name;
	struct loaded_item *items;
	size_t count, cap;
	size_t contents; /* of these, content versions: they come first, symlinks are put among them later */
};

static int append(struct loader *loader, const struct loaded_item *loaded)
{
	if (ARRAY_ROOM(loader->items, loader->cap, loader->count))
		return -ENOMEM;
	loader->items[loader->count++] = *loaded;
	return 0;
}

static int take_entry(void *arg, const struct cat_entry *entry)
{
	const struct cat_version *version = &entry->version;
	int64_t time_ms = entry->time_ns / NS_PER_MS;
	struct loaded_item loaded = {
		.item =
			{
				.ino = version->ino,
				.seq = version->seq,
				.shown_ms = version->shown_ms > time_ms ? version->shown_ms : time_ms,
				.identity = version->identity,
				.how = entry->how,
				.is_current = entry->is_current,
			},
		.time_ns = entry->time_ns,
		.expired = version->state == CAT_EXPIRED,
	};

	return append(arg, &loaded);
}

static int add_symlink(struct cat_txn *txn, struct loader *loader, const struct cat_past *held, bool live)
{
	struct loaded_item loaded = {
		.item =
			{
				.ino = held->ino,
				.shown_ms = held->since_ns / NS_PER_MS,
				.how = held->began,
				.is_current = live,
			},
		.time_ns = held->since_ns,
	};
	struct cat_inode inode;
	int ret = cat_inode_get(txn, held->ino, &inode);

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	loaded.item.identity = crc32c_update(0, inode.file_id, sizeof(inode.file_id));
	return append(loader, &loaded);
}

/* Past symlinks were gathered without a transaction: now with one, and the live name's. */
struct symlinks {
	struct loader *loader;
	struct cat_past *held; /* past intervals in which a symlink had the name */
	size_t count;
};

static int take_past_symlink(void *arg, const struct cat_past *past)
{
	struct symlinks *symlinks = arg;
	struct cat_past *held;

	if (!S_ISLNK(past->type))
		return 0;
	held = reallocarray(symlinks->held, symlinks->count + 1, sizeof(*held));
	if (!held)
		return -ENOMEM;
	symlinks->held = held;
	held[symlinks->count++] = *past;
	return 0;
}

static int add_symlinks(struct cat_txn *txn, void *arg)
{
	struct symlinks *symlinks = arg;
	struct loader *loader = symlinks->loader;
	struct cat_name name;
	int ret = 0;

	loader->count = loader->contents;
	for (size_t i = 0; !ret && i < symlinks->count; i++)
		ret = add_symlink(txn, loader, &symlinks->held[i], false);
	if (ret)
		return ret;
	ret = cat_name_get(txn, loader->dir, loader->name, &name);
	if (!ret && S_ISLNK(name.type)) {
		struct cat_past held = {.ino = name.ino, .since_ns = name.since_ns, .began = name.how};

		ret = add_symlink(txn, loader, &held, true);
	}
	return ret == -ENOENT ? 0 : ret;
}

/* Each symlink behind the contents that were there before it; contents keep the catalog's order. */
static void merge_symlinks(struct loader *loader)
{
	for (size_t i = loader->contents; i < loader->count; i++) {
		struct loaded_item link = loader->items[i];
		size_t at = i;

		for (; at > 0 && loader->items[at - 1].time_ns > link.time_ns; at--)
			loader->items[at] = loader->items[at - 1];
		loader->items[at] = link;
	}
}

static int gather(struct catalog *catalog, struct loader *loader)
{
	struct symlinks symlinks = {.loader = loader};
	int ret = catalog_history(catalog, loader->dir, loader->name, take_entry, loader);

	if (ret)
		return ret;
	loader->contents = loader->count;
	ret = catalog_past(catalog, loader->dir, loader->name, take_past_symlink, &symlinks);
	if (!ret || ret == -ENOENT)
		ret = catalog_view(catalog, add_symlinks, &symlinks);
	free(symlinks.held);
	if (!ret)
		merge_symlinks(loader);
	return ret;
}

/* Times are settled before expired items are left out, so that pruning renames nothing. */
static size_t settle(const struct loader *loader, struct versions_history_item *items)
{
	int64_t last = INT64_MIN;
	size_t count = 0;

	for (size_t i = 0; i < loader->count; i++) {
		struct versions_history_item item = loader->items[i].item;

		if (item.shown_ms <= last)
			item.shown_ms = last + 1;
		last = item.shown_ms;
		if (!loader->items[i].expired)
			items[count++] = item;
	}
	return count;
}

int versions_history_load(struct catalog *catalog, uint64_t dir, const char *name,
			  struct versions_history **ret_history)
{
	struct loader loader = {.dir = dir, .name = name};
	struct versions_history *history = calloc(1, sizeof(*history));
	int ret = -ENOMEM;

	if (!history)
		return ret;
	atomic_init(&history->refs, 1);
	history->dir = dir;
	history->number = catalog_number(catalog);
	(void)snprintf(history->name, sizeof(history->name), "%s", name); /* a name of the catalog fits */
	(void)snprintf(history->ext, sizeof(history->ext), "%s", versions_history_ext(name));
	ret = gather(catalog, &loader);
	if (ret)
		goto out;
	history->items = calloc(loader.count ? loader.count : 1, sizeof(*history->items));
	if (!history->items) {
		ret = -ENOMEM;
		goto out;
	}
	history->count = settle(&loader, history->items);
	*ret_history = history;
	history = NULL;
out:
	free(loader.items);
	versions_history_put(history);
	return ret;
}

struct versions_history *versions_history_ref(struct versions_history *history)
{
	atomic_fetch_add(&history->refs, 1);
	return history;
}

void versions_history_put(struct versions_history *history)
{
	if (!history || atomic_fetch_sub(&history->refs, 1) != 1)
		return;
	free(history->items);
	free(history);
}

/* --- names ---------------------------------------------------------------------------------------- */

const char *versions_history_ext(const char *name)
{
	const char *end = name + strlen(name);
	const char *dot = strrchr(name, '.');

	if (!dot || dot == name || end - dot < 2 || end - dot > VERSIONS_HISTORY_EXT_MAX)
		return end;
	return dot;
}

void versions_history_entry_name(const struct versions_history *history, const struct versions_history_item *item,
				 char ret_name[static VERSIONS_HISTORY_NAME_SIZE])
{
	char time[CLOCK_NAME_SIZE];

	clock_format_name(item->shown_ms * NS_PER_MS, time);
	(void)snprintf(ret_name, VERSIONS_HISTORY_NAME_SIZE, "%s~%08x%s", time, item->identity, history->ext);
}

/* The newest item shown not later than that, or NULL. */
static const struct versions_history_item *item_as_of(const struct versions_history *history, int64_t when_ns)
{
	size_t low = 0, high = history->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (history->items[middle].shown_ms <= when_ns / NS_PER_MS)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &history->items[low - 1] : NULL;
}

const struct versions_history_item *versions_history_find(const struct versions_history *history, const char *entry)
{
	char time[CLOCK_NAME_SIZE], name[VERSIONS_HISTORY_NAME_SIZE];
	const struct versions_history_item *item;
	int64_t when_ns;

	if (strlen(entry) <= TIME_LEN || entry[TIME_LEN] != '~')
		return NULL;
	memcpy(time, entry, TIME_LEN);
	time[TIME_LEN] = '\0';
	if (clock_parse_when(time, 0, &when_ns))
		return NULL;
	item = item_as_of(history, when_ns);
	if (!item)
		return NULL;
	versions_history_entry_name(history, item, name);
	return strcmp(name, entry) ? NULL : item;
}

/* --- aliases --------------------------------------------------------------------------------------- */

static const struct versions_history_item *find_counted(const struct versions_history *history, const char *digits)
{
	unsigned long back;
	char *end;

	if (!isdigit((unsigned char)digits[0]))
		return NULL;
	errno = 0;
	back = strtoul(digits, &end, 10);
	if (*end || errno || !back || back > history->count)
		return NULL;
	return &history->items[history->count - back];
}

static const struct versions_history_item *find_identity(const struct versions_history *history, const char *digits)
{
	const struct versions_history_item *found = NULL;
	uint8_t bytes[IDENTITY_DIGITS / 2];
	uint32_t identity;

	if (strlen(digits) != IDENTITY_DIGITS || hex_decode(digits, sizeof(bytes), bytes))
		return NULL;
	identity = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
	for (size_t i = history->count; i-- > 0;) {
		const struct versions_history_item *item = &history->items[i];

		if (item->identity != identity)
			continue;
		if (found && (found->ino != item->ino || found->seq != item->seq))
			return NULL;
		if (!found)
			found = item;
	}
	return found;
}

static const struct versions_history_item *find_word(const struct versions_history *history, const char *word,
						     int64_t now_ns)
{
	const struct versions_history_item *item;
	char entry[VERSIONS_HISTORY_NAME_SIZE];
	int64_t when_ns;
	int len;

	if (word[0] == '-')
		return find_counted(history, word + 1);
	item = find_identity(history, word);
	if (item)
		return item;
	if (!clock_parse_when(word[0] == '@' && word[1] != 'G' ? word + 1 : word, now_ns, &when_ns))
		return item_as_of(history, when_ns);
	len = snprintf(entry, sizeof(entry), "%s%s", word, history->ext);
	return len < (int)sizeof(entry) ? versions_history_find(history, entry) : NULL;
}

const struct versions_history_item *versions_history_alias(const struct versions_history *history, const char *alias,
							   int64_t now_ns)
{
	const struct versions_history_item *item = find_word(history, alias, now_ns);
	size_t len = strlen(alias), ext = strlen(history->ext);
	AUTO_FREE char *word = NULL;

	if (item || !ext || len <= ext || strcmp(alias + len - ext, history->ext) != 0)
		return item;
	word = strndup(alias, len - ext);
	return word ? find_word(history, word, now_ns) : NULL;
}

const struct versions_history_item *versions_history_of(const struct versions_history *history, uint64_t ino,
							uint64_t seq)
{
	for (size_t i = history->count; i-- > 0;) {
		if (history->items[i].ino == ino && history->items[i].seq == seq)
			return &history->items[i];
	}
	return NULL;
}
