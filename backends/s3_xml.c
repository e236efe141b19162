/*
 * s3_xml.c - the one S3 file that knows libxml2.
 *
 * A SAX push parser walks the document and hands over each leaf's path and text; no tree is built. There is nothing
 * to expand or fetch: a DTD ends the parse at its first token, so no entity beyond XML's own five can exist, and no
 * option that loads anything is set.
 *
 * Invariants: at most S3_XML_MAX bytes, XML_DEPTH_MAX levels and XML_TEXT_MAX bytes of text are accepted; outputs are
 * written only for documents that were well-formed to their last byte.
 * Threads: pure; libxml2's own start is done once.
 */
#include "s3_xml.h"

#include <endian.h>
#include <errno.h>
#include <libxml/parser.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "array.h"
#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "s3_reply.h"
#include "s3_url.h"

#define XML_DEPTH_MAX 12
#define XML_NAME_MAX 64
#define XML_TEXT_MAX (16 * 1024)
#define XML_CHUNK (64 * 1024)

#define S3_NAMESPACE "http://s3.amazonaws.com/doc/2006-03-01/"

struct walk;

struct walk_handler {
	/* An element begins; path as in "ListBucketResult/Contents". 0 or -errno. */
	int (*open)(struct walk *walk, void *arg);
	/* An element ends; walk->text is its text when it was a leaf. */
	int (*close)(struct walk *walk, void *arg);
	void *arg;
};

struct walk {
	const struct walk_handler *handler;
	xmlParserCtxt *parser;
	struct buf path; /* names from the root, joined by '/' */
	struct buf text;
	unsigned depth;
	bool leaf;          /* the innermost element has had no child */
	int error;          /* -errno; the first one wins and stops the parser */
	const char *reason; /* for -EBADMSG */
};

static void walk_fail(struct walk *walk, int error, const char *reason)
{
	if (walk->error)
		return;
	walk->error = error;
	walk->reason = reason;
	xmlStopParser(walk->parser);
}

static void on_open(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri, int namespaces,
		    const xmlChar **namespace_list, int attributes, int defaulted, const xmlChar **attribute_list)
{
	(void)prefix;
	(void)uri;
	(void)namespaces;
	(void)namespace_list;
	(void)attributes;
	(void)defaulted;
	(void)attribute_list;
	struct walk *walk = ((xmlParserCtxt *)arg)->_private;
	if (walk->error)
		return;
	if (++walk->depth > XML_DEPTH_MAX || xmlStrlen(name) > XML_NAME_MAX) {
		walk_fail(walk, -EBADMSG, "elements too deep or names too long");
		return;
	}
	if (walk->path.len > 0)
		buf_addc(&walk->path, '/');
	buf_adds(&walk->path, (const char *)name);
	buf_reset(&walk->text);
	walk->leaf = true;
	int r = buf_failed(&walk->path) ? -ENOMEM : 0;
	if (r == 0 && walk->handler->open)
		r = walk->handler->open(walk, walk->handler->arg);
	if (r < 0)
		walk_fail(walk, r, "unexpected element");
}

static void on_close(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
	(void)name;
	(void)prefix;
	(void)uri;
	struct walk *walk = ((xmlParserCtxt *)arg)->_private;
	if (walk->error)
		return;
	int r = buf_failed(&walk->text) ? -ENOMEM : walk->handler->close(walk, walk->handler->arg);
	if (r < 0) {
		walk_fail(walk, r, "a value that cannot be");
		return;
	}
	const char *slash = memrchr(walk->path.data, '/', walk->path.len);
	walk->path.len = slash ? (size_t)(slash - walk->path.data) : 0;
	if (walk->path.data != buf_empty)
		walk->path.data[walk->path.len] = '\0';
	buf_reset(&walk->text);
	walk->depth--;
	walk->leaf = false;
}

static void on_text(void *arg, const xmlChar *text, int len)
{
	struct walk *walk = ((xmlParserCtxt *)arg)->_private;
	if (walk->error || !walk->leaf)
		return;
	if (walk->text.len + (size_t)len > XML_TEXT_MAX)
		walk_fail(walk, -EBADMSG, "text too long");
	else
		buf_add(&walk->text, text, (size_t)len);
}

static void on_dtd(void *arg, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
	(void)name;
	(void)external;
	(void)system;
	struct walk *walk = ((xmlParserCtxt *)arg)->_private;
	walk_fail(walk, -EBADMSG, "document type declaration");
}

static pthread_once_t xml_once = PTHREAD_ONCE_INIT;

static void xml_start(void)
{
	xmlInitParser();
}

/* Feeds it all; the parser judges well-formedness. */
static void walk_feed(struct walk *walk, const char *bytes, size_t len)
{
	int code = XML_ERR_OK;
	while (len > 0 && !walk->error && code == XML_ERR_OK) {
		size_t n = len < XML_CHUNK ? len : XML_CHUNK;
		code = xmlParseChunk(walk->parser, bytes, (int)n, 0);
		bytes += n;
		len -= n;
	}
	if (!walk->error && code == XML_ERR_OK)
		code = xmlParseChunk(walk->parser, NULL, 0, 1);
	if (!walk->error && (code != XML_ERR_OK || !walk->parser->wellFormed))
		walk_fail(walk, code == XML_ERR_NO_MEMORY ? -ENOMEM : -EBADMSG, "malformed or truncated XML");
}

static int walk_document(const void *bytes, size_t len, const struct walk_handler *handler, struct err *err)
{
	xmlSAXHandler sax = {
		.initialized = XML_SAX2_MAGIC,
		.startElementNs = on_open,
		.endElementNs = on_close,
		.characters = on_text,
		.cdataBlock = on_text,
		.internalSubset = on_dtd,
	};
	struct walk walk = {.handler = handler, .path = BUF_INIT, .text = BUF_INIT};
	const char *start = bytes;

	/* AWS sends blanks while it thinks, before or after the declaration. */
	while (len > 0 && (*start == ' ' || *start == '\n' || *start == '\r' || *start == '\t')) {
		start++;
		len--;
	}
	if (len > S3_XML_MAX)
		return err_set(err, ERR_CORRUPT, "XML over %d bytes", S3_XML_MAX);
	pthread_once(&xml_once, xml_start);
	walk.parser = xmlCreatePushParserCtxt(&sax, NULL, NULL, 0, NULL);
	if (!walk.parser)
		return err_set(err, ERR_NO_MEMORY, "XML parser");
	walk.parser->_private = &walk;
	(void)xmlCtxtUseOptions(walk.parser, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	walk_feed(&walk, start, len);
	xmlFreeParserCtxt(walk.parser);
	buf_free(&walk.path);
	buf_free(&walk.text);
	if (walk.error == 0)
		return 0;
	if (walk.error == -ENOMEM)
		return err_set(err, ERR_NO_MEMORY, "XML reply");
	return err_set(err, ERR_CORRUPT, "XML reply: %s", walk.reason);
}

/* The path below the root's name, or NULL at the root itself. */
static const char *below_root(const struct walk *walk)
{
	const char *slash = strchr(walk->path.data, '/');
	return slash ? slash + 1 : NULL;
}

/* --- flat documents ------------------------------------------------------------------------------------ */

struct flat {
	const char *root;
	struct s3_xml_leaf *leaves;
	size_t count;
};

static int flat_open(struct walk *walk, void *arg)
{
	const struct flat *flat = arg;
	return walk->depth > 1 || strcmp(walk->path.data, flat->root) == 0 ? 0 : -EBADMSG;
}

static int flat_close(struct walk *walk, void *arg)
{
	const struct flat *flat = arg;
	const char *name = below_root(walk);
	for (size_t i = 0; name && walk->leaf && i < flat->count; i++) {
		struct s3_xml_leaf *leaf = &flat->leaves[i];
		if (strcmp(leaf->name, name) != 0 || leaf->value)
			continue;
		leaf->value = strdup(walk->text.data);
		if (!leaf->value)
			return -ENOMEM;
	}
	return 0;
}

void s3_xml_leaves_clear(struct s3_xml_leaf *leaves, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(leaves[i].value);
		leaves[i].value = NULL;
	}
}

int s3_xml_leaves(const void *bytes, size_t len, const char *root, struct s3_xml_leaf *leaves, size_t count,
		  struct err *err)
{
	struct flat flat = {.root = root, .leaves = leaves, .count = count};
	const struct walk_handler handler = {.open = flat_open, .close = flat_close, .arg = &flat};
	int r = walk_document(bytes, len, &handler, err);
	if (r < 0)
		s3_xml_leaves_clear(leaves, count);
	return r;
}

/* --- <Error> ----------------------------------------------------------------------------------------------- */

struct error_walk {
	struct s3_error error;
	bool other; /* the root is something else */
};

static int error_open(struct walk *walk, void *arg)
{
	struct error_walk *state = arg;
	if (walk->depth == 1 && strcmp(walk->path.data, "Error") != 0)
		state->other = true;
	return 0;
}

/* Cut to fit, and on one line. */
static void copy_line(char *ret_text, size_t size, const char *text)
{
	size_t n = 0;
	for (; text[n] && n + 1 < size; n++)
		ret_text[n] = (unsigned char)text[n] < ' ' || text[n] == 0x7f ? ' ' : text[n];
	ret_text[n] = '\0';
}

static int error_close(struct walk *walk, void *arg)
{
	struct error_walk *state = arg;
	const char *name = below_root(walk);
	if (state->other || !name || !walk->leaf)
		return 0;
	if (strcmp(name, "Code") == 0)
		copy_line(state->error.code, sizeof(state->error.code), walk->text.data);
	else if (strcmp(name, "Message") == 0)
		copy_line(state->error.message, sizeof(state->error.message), walk->text.data);
	else if (strcmp(name, "Region") == 0)
		copy_line(state->error.region, sizeof(state->error.region), walk->text.data);
	return 0;
}

int s3_xml_error(const void *bytes, size_t len, struct s3_error *ret_error, struct err *err)
{
	struct error_walk state = {0};
	const struct walk_handler handler = {.open = error_open, .close = error_close, .arg = &state};
	int r = walk_document(bytes, len, &handler, err);
	if (r < 0)
		return r;
	if (state.other)
		return -ENOENT;
	*ret_error = state.error;
	return 0;
}

/* --- listings ------------------------------------------------------------------------------------------------ */

struct list_walk {
	const char *root;
	struct s3_listing listing;
	size_t room;
	bool encoded; /* <EncodingType>url: known only at the end */
};

static int list_add(struct list_walk *state, uint32_t flags)
{
	struct s3_listing *listing = &state->listing;
	if (ARRAY_ROOM(listing->entries, state->room, listing->count))
		return -ENOMEM;
	listing->entries[listing->count++] = (struct object_info){.flags = flags};
	return 0;
}

/* Contents/UserMetadata/… and Version/UserMetadata/…, as MinIO says it. NULL: something else. */
static const char *below_metadata(const char *name)
{
	static const char *const kinds[] = {"Contents/UserMetadata", "Version/UserMetadata"};
	for (size_t i = 0; name && i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i]);
		if (strncmp(name, kinds[i], n) == 0 && (!name[n] || name[n] == '/'))
			return name + n;
	}
	return NULL;
}

static int list_open(struct walk *walk, void *arg)
{
	struct list_walk *state = arg;
	if (walk->depth == 1)
		return strcmp(walk->path.data, state->root) == 0 ? 0 : -EBADMSG;
	const char *name = below_root(walk);
	if (walk->depth == 3 && below_metadata(name))
		state->listing.entries[state->listing.count - 1].flags |= OBJECT_META;
	if (walk->depth != 2)
		return 0;
	if (strcmp(name, "Contents") == 0)
		return list_add(state, OBJECT_LATEST);
	if (strcmp(name, "Version") == 0)
		return list_add(state, 0);
	if (strcmp(name, "DeleteMarker") == 0)
		return list_add(state, OBJECT_DELETE_MARKER);
	if (strcmp(name, "CommonPrefixes") == 0)
		return list_add(state, OBJECT_PREFIX);
	return 0;
}

static int keep_text(char **ret_text, const char *text)
{
	char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(*ret_text); /* an element given twice: the last one counts */
	*ret_text = copy;
	return 0;
}

static int parse_size(const char *text, uint64_t *ret_size)
{
	if (*text < '0' || *text > '9')
		return -EBADMSG;
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end || value > INT64_MAX)
		return -EBADMSG;
	*ret_size = value;
	return 0;
}

/* Some stores quote ETags, some do not; quotes are never part of one. */
static int keep_etag(char **ret_etag, const char *text)
{
	size_t len = strlen(text);
	bool quoted = len >= 2 && text[0] == '"' && text[len - 1] == '"';
	AUTO_FREE char *bare = quoted ? strndup(text + 1, len - 2) : strdup(text);
	return bare ? keep_text(ret_etag, bare) : -ENOMEM;
}

/* "2026-11-21T10:00:00.123Z" to wall ns. 0 or -EINVAL. */
static int parse_time(const char *text, int64_t *ret_ns)
{
	struct tm tm = {0};
	const char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	/* Years whose nanoseconds fit 64 bits. */
	if (!at || tm.tm_year < 0 || tm.tm_year > 350)
		return -EINVAL;
	int64_t fraction = 0;
	if (*at == '.') {
		int64_t unit = NS_PER_SEC;
		for (at++; *at >= '0' && *at <= '9'; at++) {
			unit /= 10;
			fraction += (*at - '0') * unit;
		}
	}
	if (strcmp(at, "Z") != 0 && strcmp(at, "+00:00") != 0)
		return -EINVAL;
	*ret_ns = (int64_t)timegm(&tm) * NS_PER_SEC + fraction;
	return 0;
}

static int entry_field(struct object_info *entry, const char *name, const char *text)
{
	if (strcmp(name, "Key") == 0 || strcmp(name, "Prefix") == 0)
		return keep_text(&entry->key, text);
	if (strcmp(name, "VersionId") == 0)
		return keep_text(&entry->native_id, text);
	if (strcmp(name, "ETag") == 0)
		return keep_etag(&entry->etag, text);
	if (strcmp(name, "Size") == 0)
		return parse_size(text, &entry->size);
	if (strcmp(name, "LastModified") == 0)
		return parse_time(text, &entry->modified_ns) < 0 ? -EBADMSG : 0;
	if (strcmp(name, "StorageClass") == 0)
		return strcmp(text, "STANDARD") == 0 ? 0 : keep_text(&entry->storage_class, text);
	if (strcmp(name, "IsLatest") == 0 && strcmp(text, "true") == 0)
		entry->flags |= OBJECT_LATEST;
	return 0;
}

/* "X-Amz-Meta-Name", and other headers, of which one is of interest. */
static int entry_metadata(struct object_info *entry, const char *name, const char *text)
{
	static const char mark[] = "x-amz-meta-";
	char lower[XML_NAME_MAX + 1];
	AUTO_BUF value = BUF_INIT;
	size_t n = 0;

	for (; name[n] && n < XML_NAME_MAX; n++)
		lower[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] - 'A' + 'a') : name[n];
	lower[n] = '\0';
	if (strcmp(lower, "content-type") == 0)
		return keep_text(&entry->content_type, text);
	if (strncmp(lower, mark, sizeof(mark) - 1) != 0 || s3_meta_decode(&value, text) < 0)
		return 0;
	return buf_failed(&value) ? -ENOMEM : meta_set(&entry->meta, lower + sizeof(mark) - 1, value.data);
}

static int list_close(struct walk *walk, void *arg)
{
	struct list_walk *state = arg;
	struct s3_listing *listing = &state->listing;
	const char *name = below_root(walk);
	if (!name || !walk->leaf)
		return 0;
	if (walk->depth == 2) {
		if (strcmp(name, "IsTruncated") == 0)
			listing->truncated = strcmp(walk->text.data, "true") == 0;
		else if (strcmp(name, "EncodingType") == 0)
			state->encoded = strcmp(walk->text.data, "url") == 0;
		else if (strcmp(name, "NextContinuationToken") == 0 || strcmp(name, "NextKeyMarker") == 0)
			return keep_text(&listing->next, walk->text.data);
		else if (strcmp(name, "NextVersionIdMarker") == 0)
			return keep_text(&listing->next_version, walk->text.data);
		return 0;
	}
	const char *metadata = walk->depth == 4 ? below_metadata(name) : NULL;
	if (metadata)
		return entry_metadata(&listing->entries[listing->count - 1], metadata + 1, walk->text.data);
	static const char *const kinds[] = {"Contents/", "Version/", "DeleteMarker/", "CommonPrefixes/"};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i]);
		/* Version/Owner/ID and the like lie deeper and are of no interest. */
		if (strncmp(name, kinds[i], n) == 0 && walk->depth == 3)
			return entry_field(&listing->entries[listing->count - 1], name + n, walk->text.data);
	}
	return 0;
}

static int decode_text(char **text)
{
	struct buf decoded = BUF_INIT;
	int r = s3_url_decode(&decoded, *text);
	char *plain = r == 0 ? buf_detach(&decoded) : NULL;
	buf_free(&decoded);
	if (r == 0 && !plain)
		r = -ENOMEM;
	if (r < 0)
		return r;
	free(*text);
	*text = plain;
	return 0;
}

/* What no listing may lack, and keys as they are. */
static int finish_entries(struct list_walk *state, enum s3_listing_kind kind)
{
	struct s3_listing *listing = &state->listing;
	for (size_t i = 0; i < listing->count; i++) {
		struct object_info *entry = &listing->entries[i];
		if (!entry->key || !*entry->key)
			return -EBADMSG;
		int r = state->encoded ? decode_text(&entry->key) : 0;
		if (r < 0)
			return r;
		bool prefix = entry->flags & OBJECT_PREFIX;
		if (kind == S3_LIST_VERSIONS && !prefix && !entry->native_id)
			return -EBADMSG;
		if (entry->flags & (OBJECT_DELETE_MARKER | OBJECT_PREFIX)) {
			free(entry->etag);
			entry->etag = NULL;
		}
	}
	/* The key marker is a key; the continuation token is opaque. */
	if (kind == S3_LIST_VERSIONS && state->encoded && listing->next)
		return decode_text(&listing->next);
	return 0;
}

struct ranked {
	struct object_info info;
	size_t position;
};

/* Newest first: the latest, then by time, then as the store had them. */
static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	int order = strcmp(x->info.key, y->info.key);
	if (order)
		return order;
	order = (int)!!(y->info.flags & OBJECT_LATEST) - (int)!!(x->info.flags & OBJECT_LATEST);
	if (order)
		return order;
	if (x->info.modified_ns != y->info.modified_ns)
		return x->info.modified_ns > y->info.modified_ns ? -1 : 1;
	return x->position < y->position ? -1 : 1;
}

/* Of one key the latest comes first, and a delete marker, whose time is true, after nothing older. */
static bool in_order(const struct object_info *before, const struct object_info *entry)
{
	int order = strcmp(before->key, entry->key);
	if (order)
		return order < 0;
	if ((entry->flags & OBJECT_LATEST) && !(before->flags & OBJECT_LATEST))
		return false;
	return !(entry->flags & OBJECT_DELETE_MARKER) || entry->modified_ns <= before->modified_ns;
}

/*
 * Stores list in order, but some give all versions before all delete markers,
 * and prefixes come last everywhere. A list already in order is left alone:
 * times would rank versions worse than the store does (a multipart upload
 * carries the time of its start).
 */
static int sort_entries(struct s3_listing *listing)
{
	bool sorted = true;
	for (size_t i = 1; i < listing->count && sorted; i++)
		sorted = in_order(&listing->entries[i - 1], &listing->entries[i]);
	if (sorted)
		return 0;
	AUTO_FREE struct ranked *ranked = calloc(listing->count, sizeof(*ranked));
	if (!ranked)
		return -ENOMEM;
	for (size_t i = 0; i < listing->count; i++)
		ranked[i] = (struct ranked){.info = listing->entries[i], .position = i};
	qsort(ranked, listing->count, sizeof(*ranked), compare_ranked);
	for (size_t i = 0; i < listing->count; i++)
		listing->entries[i] = ranked[i].info;
	return 0;
}

void s3_listing_clear(struct s3_listing *listing)
{
	struct list_page page = {.entries = listing->entries, .count = listing->count};
	list_page_clear(&page);
	free(listing->next);
	free(listing->next_version);
	*listing = (struct s3_listing){0};
}

int s3_xml_listing(const void *bytes, size_t len, enum s3_listing_kind kind, struct s3_listing *ret_listing,
		   struct err *err)
{
	struct list_walk state = {.root = kind == S3_LIST_VERSIONS ? "ListVersionsResult" : "ListBucketResult"};
	const struct walk_handler handler = {.open = list_open, .close = list_close, .arg = &state};
	int r = walk_document(bytes, len, &handler, err);
	if (r == 0) {
		r = finish_entries(&state, kind);
		if (r == 0)
			r = sort_entries(&state.listing);
		if (r == 0 && state.listing.truncated && !state.listing.next)
			r = -EBADMSG;
		if (r == -ENOMEM)
			err_set(err, ERR_NO_MEMORY, "listing");
		else if (r < 0)
			r = err_set(err, ERR_CORRUPT, "listing with an entry or a marker that cannot be");
	}
	if (r < 0) {
		s3_listing_clear(&state.listing);
		return r;
	}
	*ret_listing = state.listing;
	return 0;
}

/* --- requests -------------------------------------------------------------------------------------------------- */

static void add_escaped(struct buf *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			buf_adds(out, "&amp;");
			break;
		case '<':
			buf_adds(out, "&lt;");
			break;
		case '>':
			buf_adds(out, "&gt;");
			break;
		case '"':
			buf_adds(out, "&quot;");
			break;
		default:
			buf_addc(out, *text);
		}
	}
}

void s3_xml_complete_upload(struct buf *out, const struct upload_part *parts, size_t count,
			    enum s3_xml_checksums checksums)
{
	buf_adds(out, "<CompleteMultipartUpload xmlns=\"" S3_NAMESPACE "\">");
	for (size_t i = 0; i < count; i++) {
		buf_addf(out, "<Part><PartNumber>%u</PartNumber><ETag>&quot;", parts[i].number);
		add_escaped(out, parts[i].etag);
		buf_adds(out, "&quot;</ETag>");
		if (checksums == S3_XML_CHECKSUMS && parts[i].has_crc32c) {
			uint32_t big_endian = htobe32(parts[i].crc32c);
			char text[16];
			base64_encode(&big_endian, sizeof(big_endian), text);
			buf_addf(out, "<ChecksumCRC32C>%s</ChecksumCRC32C>", text);
		}
		buf_adds(out, "</Part>");
	}
	buf_adds(out, "</CompleteMultipartUpload>");
}

void s3_xml_create_bucket(struct buf *out, const char *region)
{
	buf_adds(out, "<CreateBucketConfiguration xmlns=\"" S3_NAMESPACE "\"><LocationConstraint>");
	add_escaped(out, region);
	buf_adds(out, "</LocationConstraint></CreateBucketConfiguration>");
}

void s3_xml_legal_hold(struct buf *out, bool hold)
{
	buf_addf(out, "<LegalHold xmlns=\"" S3_NAMESPACE "\"><Status>%s</Status></LegalHold>", hold ? "ON" : "OFF");
}

void s3_xml_retention(struct buf *out, const char *until, bool compliance)
{
	buf_addf(out,
		 "<Retention xmlns=\"" S3_NAMESPACE
		 "\"><Mode>%s</Mode><RetainUntilDate>%s</RetainUntilDate></Retention>",
		 compliance ? "COMPLIANCE" : "GOVERNANCE", until);
}

void s3_xml_enable_versioning(struct buf *out)
{
	buf_adds(out, "<VersioningConfiguration xmlns=\"" S3_NAMESPACE
		      "\"><Status>Enabled</Status></VersioningConfiguration>");
}
