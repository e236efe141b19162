/*
 * listings.c - conformance: prefixes, delimiters, pages, versions in pages.
 */
#include "conformance/suite.h"

#include "cleanup.h"

static const char *const tree[] = {
	"a.txt", "a/b/c", "a/b/d", "a/e", "a0", "b/x", "b/y/z", "c d/e f", "über/w", "z",
};

static void put_tree(struct fixture *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(tree); i++)
		OK(do_put_text(f, tree[i], tree[i], NULL));
}

/* `expected`: keys and prefixes, blank-separated by '|'. */
static void expect_listing(struct fixture *f, const struct list_request *request, const char *expected)
{
	struct list_page all = list_all(f, request);
	char text[1024] = "";
	size_t len = 0;

	for (size_t i = 0; i < all.count; i++) {
		const struct object_info *entry = &all.entries[i];
		bool prefix = request->delimiter && entry->key[strlen(entry->key) - 1] == request->delimiter;

		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? "|" : "", entry->key);
		cr_assert(!prefix == !(entry->flags & OBJECT_PREFIX), "%s: flags", entry->key);
		cr_assert(prefix || (entry->etag && entry->size == strlen(entry->key)), "%s: facts", entry->key);
	}
	cr_assert(strcmp(text, expected) == 0, "prefix \"%s\", pages of %u: %s", request->prefix, request->max, text);
	list_page_clear(&all);
}

CONFORMANCE(listing_is_complete_and_in_order)
{
	static const unsigned pages[] = {0, 1, 2, 3, 1000};

	put_tree(f);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		expect_listing(f, &(struct list_request){.prefix = "", .max = pages[i]},
			       "a.txt|a/b/c|a/b/d|a/e|a0|b/x|b/y/z|c d/e f|z|über/w");
		expect_listing(f, &(struct list_request){.prefix = "a/", .max = pages[i]}, "a/b/c|a/b/d|a/e");
		expect_listing(f, &(struct list_request){.prefix = "a/b", .max = pages[i]}, "a/b/c|a/b/d");
		expect_listing(f, &(struct list_request){.prefix = "a", .max = pages[i]}, "a.txt|a/b/c|a/b/d|a/e|a0");
		expect_listing(f, &(struct list_request){.prefix = "c d/e ", .max = pages[i]}, "c d/e f");
		expect_listing(f, &(struct list_request){.prefix = "nothing/", .max = pages[i]}, "");
		expect_listing(f, &(struct list_request){.prefix = "z/", .max = pages[i]}, "");
	}
}

CONFORMANCE(delimiter_groups)
{
	static const unsigned pages[] = {0, 1, 2, 1000};

	put_tree(f);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		struct list_request request = {.prefix = "", .delimiter = '/', .max = pages[i]};

		expect_listing(f, &request, "a.txt|a/|a0|b/|c d/|z|über/");
		request.prefix = "a/";
		expect_listing(f, &request, "a/b/|a/e");
		request.prefix = "a/b/";
		expect_listing(f, &request, "a/b/c|a/b/d");
		request.prefix = "a";
		expect_listing(f, &request, "a.txt|a/|a0");
	}
}

CONFORMANCE(pages_survive_changes_between_them)
{
	struct list_request request = {.prefix = "", .max = 4};
	struct list_page page = {0};
	AUTO_FREE char *token = NULL;

	put_tree(f);
	OK(do_list(f, &request, &page));
	cr_assert(page.count == 4 && page.next, "%zu entries", page.count);
	token = strdup(page.next);
	list_page_clear(&page);
	OK(do_remove(f, &(struct object_ref){.key = "a/e"}, NULL)); /* the last one given */
	OK(do_remove(f, &(struct object_ref){.key = "b/x"}, NULL)); /* one to come */
	request.token = token;
	OK(do_list(f, &request, &page));
	cr_assert(page.count >= 2 && strcmp(page.entries[0].key, "a0") == 0, "went on at another place");
	cr_assert(strcmp(page.entries[1].key, "b/y/z") == 0, "%s after a0", page.entries[1].key);
	list_page_clear(&page);
	/* The same token again, as after a lost reply. */
	OK(do_list(f, &request, &page));
	cr_assert(page.count >= 2 && strcmp(page.entries[0].key, "a0") == 0, "a token serves once only");
	list_page_clear(&page);
}

/* Three keys: three versions, a marker over two, one version. */
static void put_versions(struct fixture *f)
{
	for (int i = 0; i < 3; i++)
		OK(do_put_text(f, "v/a", (const char *[]){"1", "22", "333"}[i], NULL));
	OK(do_put_text(f, "v/b/c", "1", NULL));
	OK(do_put_text(f, "v/b/c", "22", NULL));
	OK(do_remove(f, &(struct object_ref){.key = "v/b/c"}, NULL));
	OK(do_put_text(f, "v/d", "1", NULL));
}

static void describe(const struct list_page *all, char *ret_text, size_t size)
{
	size_t len = 0;

	ret_text[0] = '\0';
	for (size_t i = 0; i < all->count; i++) {
		const struct object_info *entry = &all->entries[i];
		const char *mark = entry->flags & OBJECT_LATEST ? "*" : "";

		if (entry->flags & OBJECT_PREFIX)
			len += (size_t)snprintf(ret_text + len, size - len, "%s ", entry->key);
		else if (entry->flags & OBJECT_DELETE_MARKER)
			len += (size_t)snprintf(ret_text + len, size - len, "%s:x%s ", entry->key, mark);
		else
			len += (size_t)snprintf(ret_text + len, size - len, "%s:%llu%s ", entry->key,
						(unsigned long long)entry->size, mark);
	}
}

static void expect_versions(struct fixture *f, const struct list_request *request, const char *expected)
{
	struct list_page all = list_all(f, request);
	char text[512];

	describe(&all, text, sizeof(text));
	cr_assert(strcmp(text, expected) == 0, "prefix \"%s\", pages of %u: %s", request->prefix, request->max, text);
	list_page_clear(&all);
}

CONFORMANCE(versions_page_by_page)
{
	/* versitygw's ListObjectVersions is broken for small pages: see the table in tests/servers. */
	static const unsigned sizes[] = {0, 1000, 1, 2, 3, 5};
	size_t count = f->store == STORE_VERSITYGW ? 2 : ARRAY_SIZE(sizes);

	put_versions(f);
	for (size_t i = 0; i < count; i++) {
		struct list_request request = {.prefix = "v/", .versions = true, .max = sizes[i]};

		if (!can(f, BACKEND_VERSIONS)) {
			expect_versions(f, &request, "v/a:3* v/d:1* ");
			continue;
		}
		expect_versions(f, &request, "v/a:3* v/a:2 v/a:1 v/b/c:x* v/b/c:2 v/b/c:1 v/d:1* ");
		request.prefix = "v/b/c";
		expect_versions(f, &request, "v/b/c:x* v/b/c:2 v/b/c:1 ");
		request.prefix = "v/";
		request.delimiter = '/';
		expect_versions(f, &request, "v/a:3* v/a:2 v/a:1 v/b/ v/d:1* ");
	}
}

#define MANY 1500

CONFORMANCE(many_keys)
{
	struct list_page all;

	for (int i = 0; i < MANY; i++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "many/%d/%04d", i % 7, i);
		OK(do_put_text(f, key, key, NULL));
	}
	all = list_all(f, &(struct list_request){.prefix = ""});
	cr_assert(all.count == MANY, "%zu keys", all.count);
	list_page_clear(&all);
	all = list_all(f, &(struct list_request){.prefix = "many/3/", .max = 100});
	cr_assert(all.count == MANY / 7 + (3 < MANY % 7), "%zu keys", all.count);
	list_page_clear(&all);
}
