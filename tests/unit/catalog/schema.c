/* schema.c - keys sort as their fields, records come back as they went, and no bytes whatever can hurt a decoder. */
#include "catalog/schema.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kv_support.h"

static int order(const struct schema_key *a, const struct schema_key *b)
{
	int result = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);

	return result ? result : (a->len > b->len) - (a->len < b->len);
}

static struct kv_bytes value_of(const struct buf *buf)
{
	cr_assert_not(buf_failed(buf));
	return (struct kv_bytes){.data = buf->data, .len = buf->len};
}

Test(schema, keys_sort_as_their_numbers)
{
	static const uint64_t numbers[] = {0, 1, 255, 256, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};
	struct schema_key a, b;

	for (size_t i = 1; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		schema_key_pair(&a, SCHEMA_COOKIE, 5, numbers[i - 1]);
		schema_key_pair(&b, SCHEMA_COOKIE, 5, numbers[i]);
		cr_assert_lt(order(&a, &b), 0);
	}
}

Test(schema, past_of_a_name_lies_together_before_longer_names)
{
	struct schema_key a_last, ab_first, a_first;

	schema_key_past(&a_first, 1, "a", 1);
	schema_key_past(&a_last, 1, "a", UINT64_MAX);
	schema_key_past(&ab_first, 1, "a\001", 0);
	cr_assert_lt(order(&a_first, &a_last), 0);
	cr_assert_lt(order(&a_last, &ab_first), 0);
}

Test(schema, end_of_a_prefix_is_after_all_that_begins_with_it)
{
	struct schema_key prefix, inside, end, next;

	schema_key_number(&prefix, SCHEMA_NAME, 0x1ff);
	schema_key_named(&inside, SCHEMA_NAME, 0x1ff, "\xff\xff\xff");
	schema_key_number(&next, SCHEMA_NAME, 0x200);
	schema_key_after(&end, &prefix);
	cr_assert_lt(order(&inside, &end), 0);
	cr_assert_leq(order(&end, &next), 0);
}

Test(schema, parse_gives_back_what_keys_were_made_of)
{
	struct schema_parts parts;
	struct schema_key key;

	schema_key_link(&key, 1, 2, 3);
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), 0);
	cr_assert(parts.tag == SCHEMA_LINK && parts.number == 1 && parts.second == 2 && parts.third == 3);
	schema_key_past(&key, 7, "name", 9);
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), 0);
	cr_assert(parts.number == 7 && parts.second == 9 && parts.name_len == 4);
	cr_assert_arr_eq(parts.name, "name", 4);
	schema_key_copy(&key, 4, 5, 6);
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), 0);
	cr_assert(parts.number == 4 && parts.second == 5 && parts.third == 6);
	schema_key_object(&key, 8, "d/a");
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), 0);
	cr_assert(parts.backend == 8 && parts.name_len == 3);
	schema_key_job_key(&key, "d/a", 77);
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), 0);
	cr_assert(parts.second == 77 && parts.name_len == 3);
	key.len--;
	cr_assert_eq(schema_parse(schema_bytes(&key), &parts), -EBADMSG);
}

Test(schema, longest_keys_fit)
{
	struct schema_key key, other;
	char name[CAT_NAME_MAX + 1], object[5000];

	memset(name, 'n', sizeof(name) - 1);
	name[CAT_NAME_MAX] = '\0';
	memset(object, 'o', sizeof(object) - 1);
	object[sizeof(object) - 1] = '\0';
	schema_key_past(&key, UINT64_MAX, name, UINT64_MAX);
	schema_key_object(&key, 1, object);
	schema_key_place(&key, 1, object, object);
	schema_key_job_key(&key, object, 1);
	cr_assert_leq(key.len, KV_KEY_MAX);
	object[4998] = 'x';
	schema_key_job_key(&other, object, 1);
	cr_assert_neq(order(&key, &other), 0);
}

Test(schema, places_tell_key_from_id)
{
	struct schema_key a, b;

	schema_key_place(&a, 0, "ab", "c");
	schema_key_place(&b, 0, "a", "bc");
	cr_assert_neq(order(&a, &b), 0);
	schema_key_place(&b, 0, "ab", "c");
	cr_assert_eq(order(&a, &b), 0);
}

Test(schema, only_what_others_need_is_portable)
{
	static const struct {
		enum schema_tag tag;
		bool portable;
	} cases[] = {
		{SCHEMA_INODE, true},   {SCHEMA_NAME, true},           {SCHEMA_COOKIE, true},
		{SCHEMA_LINK, true},    {SCHEMA_PAST, true},           {SCHEMA_COMPONENT, true},
		{SCHEMA_COPY, true},    {SCHEMA_VERSION_RECORD, true}, {SCHEMA_PLACE, true},
		{SCHEMA_XATTR, true},   {SCHEMA_SYMLINK, true},        {SCHEMA_KEY, true},
		{SCHEMA_JOB, false},    {SCHEMA_JOB_INODE, false},     {SCHEMA_JOB_KEY, false},
		{SCHEMA_EXTENT, false}, {SCHEMA_DIRTY, false},         {SCHEMA_SETTING, false},
	};
	struct schema_key key;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		schema_key_number(&key, cases[i].tag, 1);
		cr_assert_eq(schema_is_portable(schema_bytes(&key)), cases[i].portable, "%s",
			     schema_tag_name(cases[i].tag));
	}
	schema_key_meta(&key, SCHEMA_META_STORE);
	cr_assert_not(schema_is_portable(schema_bytes(&key)));
	schema_key_meta(&key, SCHEMA_META_SCHEMA);
	cr_assert_not(schema_is_portable(schema_bytes(&key)));
	schema_key_meta(&key, SCHEMA_META_SEQ);
	cr_assert(schema_is_portable(schema_bytes(&key)), "a rebuilt catalog must not count from the start");
	cr_assert_not(schema_is_portable((struct kv_bytes){.data = "abc", .len = 3}));
	cr_assert_not(schema_is_portable((struct kv_bytes){.data = "\0\0\0\0?x", .len = 6}));
}

Test(schema, inode_comes_back)
{
	struct cat_inode inode = {.ino = 5,
				  .file_id = "0123456789abcde",
				  .mode = S_IFREG | 0644,
				  .uid = 1,
				  .gid = 2,
				  .nlink = 3,
				  .rdev = 4,
				  .flags = CAT_DIRTY | CAT_FLUSHED,
				  .size = UINT64_MAX,
				  .atime = -1,
				  .mtime = 7,
				  .ctime = 8,
				  .btime = INT64_MIN,
				  .parent = 9,
				  .version = 10,
				  .taken = 11};
	struct cat_inode read;
	struct buf buf = BUF_INIT, again = BUF_INIT;
	struct schema_key key;

	schema_key_number(&key, SCHEMA_INODE, 5);
	schema_encode_inode(&inode, &buf);
	cr_assert_eq(schema_decode_inode(schema_bytes(&key), value_of(&buf), &read), 0);
	cr_assert(read.ino == 5 && read.atime == -1 && read.btime == INT64_MIN && read.taken == 11);
	schema_encode_inode(&read, &again);
	cr_assert_eq(again.len, buf.len);
	cr_assert_arr_eq(again.data, buf.data, buf.len);
	buf_free(&again);
	buf_addc(&buf, 'x');
	cr_assert_eq(schema_decode_inode(schema_bytes(&key), value_of(&buf), &read), -EBADMSG, "trailing bytes");
	buf_free(&buf);
}

Test(schema, name_and_past_come_back)
{
	struct cat_name name = {.parent = 1,
				.ino = 2,
				.since = 3,
				.since_ns = 4,
				.cookie = 5,
				.type = S_IFDIR,
				.how = CAT_HOW_RENAME,
				.from_parent = 6,
				.from_name = "from",
				.name = "n"};
	struct cat_past past = {.parent = 1,
				.ino = 2,
				.since = 3,
				.until = 4,
				.since_ns = 5,
				.until_ns = 6,
				.type = S_IFLNK,
				.began = CAT_HOW_ADOPT,
				.ended = CAT_HOW_VANISH,
				.from_parent = 7,
				.to_parent = 8,
				.actor = 9,
				.from_name = "from",
				.to_name = "to",
				.name = "n"};
	struct cat_name read_name;
	struct cat_past read_past;
	struct buf buf = BUF_INIT;
	struct schema_key key;

	schema_key_named(&key, SCHEMA_NAME, 1, "n");
	schema_encode_name(&name, &buf);
	cr_assert_eq(schema_decode_name(schema_bytes(&key), value_of(&buf), &read_name), 0);
	cr_assert(read_name.parent == 1 && read_name.ino == 2 && read_name.since == 3 && read_name.since_ns == 4);
	cr_assert(read_name.cookie == 5 && read_name.type == S_IFDIR && read_name.how == CAT_HOW_RENAME);
	cr_assert_eq(read_name.from_parent, 6);
	cr_assert_str_eq(read_name.from_name, "from");
	cr_assert_str_eq(read_name.name, "n");
	buf_reset(&buf);
	schema_key_past(&key, 1, "n", 4);
	schema_encode_past(&past, &buf);
	cr_assert_eq(schema_decode_past(schema_bytes(&key), value_of(&buf), &read_past), 0);
	cr_assert(read_past.until == 4 && read_past.since_ns == 5 && read_past.until_ns == 6);
	cr_assert(read_past.began == CAT_HOW_ADOPT && read_past.ended == CAT_HOW_VANISH && read_past.actor == 9);
	cr_assert_str_eq(read_past.to_name, "to");
	cr_assert_eq(schema_decode_name(schema_bytes(&key), value_of(&buf), &read_name), -EBADMSG,
		     "another kind's key");
	buf_free(&buf);
}

Test(schema, version_copy_and_key_come_back)
{
	struct cat_version version = {.ino = 1,
				      .seq = 2,
				      .size = 3,
				      .mtime = 4,
				      .commit_ns = 5,
				      .shown_ms = 6,
				      .identity = 7,
				      .mode = 8,
				      .uid = 9,
				      .gid = 10,
				      .author = 11,
				      .crc32c = 12,
				      .flags = CAT_HAS_CRC32C,
				      .state = CAT_EXPIRED,
				      .origin = CAT_ORIGIN_CONFLICT,
				      .host = "h"};
	struct cat_copy copy = {.ino = 1,
				.seq = 2,
				.n = 3,
				.backend = 4,
				.state = CAT_STORED,
				.stored_ns = 5,
				.key = (char *)"k",
				.etag = (char *)""};
	struct cat_key record = {.backend = 6, .kind = CAT_KEY_LINK, .ino = 1, .seq = 2, .native_id = (char *)"id"};
	struct cat_version read_version;
	struct cat_copy read_copy;
	struct cat_key read_key;
	struct buf buf = BUF_INIT, again = BUF_INIT;
	struct schema_key key;
	char *object_key;

	schema_key_pair(&key, SCHEMA_VERSION_RECORD, 1, 2);
	schema_encode_version(&version, &buf);
	cr_assert_eq(schema_decode_version(schema_bytes(&key), value_of(&buf), &read_version), 0);
	cr_assert(read_version.ino == 1 && read_version.seq == 2 && read_version.state == CAT_EXPIRED);
	schema_encode_version(&read_version, &again);
	cr_assert_eq(again.len, buf.len);
	cr_assert_arr_eq(again.data, buf.data, buf.len);
	buf_free(&again);
	buf_reset(&buf);
	schema_key_copy(&key, 1, 2, 3);
	schema_encode_copy(&copy, &buf);
	cr_assert_eq(schema_decode_copy(schema_bytes(&key), value_of(&buf), &read_copy), 0);
	cr_assert(read_copy.n == 3 && read_copy.backend == 4 && read_copy.stored_ns == 5 && !read_copy.native_id);
	cr_assert_str_eq(read_copy.key, "k");
	cr_assert_str_eq(read_copy.etag, "");
	cat_copy_clear(&read_copy);
	buf_reset(&buf);
	schema_key_object(&key, 6, "obj");
	schema_encode_key("obj", &record, &buf);
	cr_assert_eq(schema_decode_key(schema_bytes(&key), value_of(&buf), &read_key, &object_key), 0);
	cr_assert(read_key.backend == 6 && read_key.kind == CAT_KEY_LINK && read_key.seq == 2 && !read_key.etag);
	cr_assert_str_eq(object_key, "obj");
	cr_assert_str_eq(read_key.native_id, "id");
	free(object_key);
	cat_key_clear(&read_key);
	buf_free(&buf);
}

Test(schema, job_and_extent_come_back)
{
	struct cat_job job = {.seq = 1,
			      .type = CAT_JOB_TREE,
			      .ino = 2,
			      .version = 3,
			      .key = (char *)"k",
			      .stage = 4,
			      .attempts = 5,
			      .next_try_ns = 6,
			      .note = (char *)"n"};
	struct cat_extent extent = {.base = 7, .base_limit = 8, .boot_id = "boot", .synced = true}, read_extent;
	struct buf buf = BUF_INIT;
	struct schema_key key;
	struct cat_job read;

	schema_key_number(&key, SCHEMA_JOB, 1);
	schema_encode_job(&job, &buf);
	cr_assert_eq(schema_decode_job(schema_bytes(&key), value_of(&buf), &read), 0);
	cr_assert(read.seq == 1 && read.type == CAT_JOB_TREE && read.version == 3 && read.stage == 4);
	cr_assert(read.attempts == 5 && read.next_try_ns == 6);
	cr_assert_str_eq(read.key, "k");
	cr_assert_str_eq(read.note, "n");
	cat_job_clear(&read);
	buf_reset(&buf);
	cr_assert_eq(ranges_add(&extent.present, 1, 5), 0);
	cr_assert_eq(ranges_add(&extent.dirty, 2, 3), 0);
	schema_encode_extent(&extent, &buf);
	cr_assert_eq(schema_decode_extent(value_of(&buf), &read_extent), 0);
	cr_assert(read_extent.base == 7 && read_extent.base_limit == 8 && read_extent.synced);
	cr_assert_eq(ranges_total(&read_extent.present), 4);
	cr_assert_eq(ranges_total(&read_extent.dirty), 1);
	cr_assert_eq(schema_extent_based(value_of(&buf)), 0);
	cat_extent_clear(&read_extent);
	extent.base_ino = 9;
	extent.base_after = 10;
	buf_reset(&buf);
	schema_encode_extent(&extent, &buf);
	cr_assert_eq(schema_extent_based(value_of(&buf)), 7);
	cr_assert_eq(schema_decode_extent(value_of(&buf), &read_extent), 0);
	cr_assert(read_extent.base_ino == 9 && read_extent.base_after == 10);
	cat_extent_clear(&read_extent);
	cat_extent_clear(&extent);
	buf_free(&buf);
}

/* --- hostile bytes ------------------------------------------------------------------------------ */

/* Runs every decoder on the row; how many took it. */
static unsigned decode_all(struct kv_bytes key, struct kv_bytes value)
{
	struct schema_parts parts;
	struct kv_bytes blob;
	struct cat_version version;
	struct cat_extent extent;
	struct cat_inode inode;
	struct cat_name name;
	struct cat_past past;
	struct cat_copy copy;
	struct cat_key record;
	struct cat_job job;
	char filename[CAT_NAME_MAX + 1], *object_key;
	uint64_t a, b;
	unsigned taken = 0;

	taken += schema_parse(key, &parts) == 0;
	taken += schema_decode_u64(value, &a) == 0;
	taken += schema_decode_blob(value, &blob) == 0;
	taken += schema_decode_filename(value, filename) == 0;
	taken += schema_decode_place(value, &a, &b) == 0;
	taken += schema_decode_inode(key, value, &inode) == 0;
	taken += schema_decode_name(key, value, &name) == 0;
	taken += schema_decode_past(key, value, &past) == 0;
	taken += schema_decode_version(key, value, &version) == 0;
	if (schema_decode_copy(key, value, &copy) == 0) {
		cr_assert_not_null(copy.key);
		cat_copy_clear(&copy);
		taken++;
	}
	if (schema_decode_key(key, value, &record, &object_key) == 0) {
		free(object_key);
		cat_key_clear(&record);
		taken++;
	}
	if (schema_decode_job(key, value, &job) == 0) {
		cat_job_clear(&job);
		taken++;
	}
	if (schema_decode_extent(value, &extent) == 0) {
		cat_extent_clear(&extent);
		taken++;
	}
	(void)schema_is_portable(key);
	return taken;
}

/* The bytes at the very end of a heap block, so that a sanitizer sees a read past them. */
static unsigned decode_exact(const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
	uint8_t *k = malloc(key_len ? key_len : 1), *v = malloc(value_len ? value_len : 1);
	unsigned taken;

	cr_assert(k && v);
	memcpy(k, key, key_len);
	memcpy(v, value, value_len);
	taken = decode_all((struct kv_bytes){.data = k, .len = key_len},
			   (struct kv_bytes){.data = v, .len = value_len});
	free(k);
	free(v);
	return taken;
}

Test(schema, random_bytes_do_no_harm)
{
	static const char tags[] = "MinclpovyaxskjJKedt";
	uint8_t key[64] = {0}, value[256];
	unsigned seed = 1, taken = 0;

	for (int round = 0; round < 200000; round++) {
		size_t key_len = (size_t)(rand_r(&seed) % 40), value_len = (size_t)(rand_r(&seed) % 160);

		for (size_t i = 5; i < sizeof(key); i++)
			key[i] = (uint8_t)rand_r(&seed);
		key[4] = (uint8_t)tags[(size_t)rand_r(&seed) % (sizeof(tags) - 1)];
		for (size_t i = 0; i < value_len; i++)
			value[i] = rand_r(&seed) % 3 ? (uint8_t)rand_r(&seed) : 0;
		value[0] = 1;
		taken += decode_exact(key, key_len, value, value_len);
	}
	cr_assert_gt(taken, 0, "the bytes must reach beyond the first check");
}

Test(schema, every_cut_and_every_changed_byte_of_a_good_record_is_survived)
{
	struct cat_copy copy = {.ino = 1,
				.seq = 2,
				.state = CAT_STORED,
				.key = (char *)"key",
				.native_id = (char *)"id",
				.etag = (char *)"etag",
				.storage_class = (char *)"class"};
	struct buf buf = BUF_INIT;
	struct schema_key key;
	struct cat_copy read;

	schema_key_copy(&key, 1, 2, 3);
	schema_encode_copy(&copy, &buf);
	for (size_t len = 0; len < buf.len; len++) {
		cr_assert_eq(
			schema_decode_copy(schema_bytes(&key), (struct kv_bytes){.data = buf.data, .len = len}, &read),
			-EBADMSG);
		(void)decode_exact(key.bytes, key.len, (const uint8_t *)buf.data, len);
	}
	for (size_t at = 0; at < buf.len; at++) {
		for (int change = 1; change < 256; change++) {
			buf.data[at] = (char)(buf.data[at] ^ change);
			(void)decode_exact(key.bytes, key.len, (const uint8_t *)buf.data, buf.len);
			buf.data[at] = (char)(buf.data[at] ^ change);
		}
	}
	buf_free(&buf);
}
