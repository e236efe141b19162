/* objmeta: what is written is read back, what s3fs and rclone write is understood, what a stranger writes is not
 * believed. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "clock.h"
#include "fs/objmeta.h"
#include "transfer.h"

static struct objmeta decoded(const char *const pairs[], size_t count)
{
	struct meta meta = {0};
	struct objmeta ret;

	for (size_t i = 0; i + 1 < count; i += 2)
		cr_assert(eq(int, meta_set(&meta, pairs[i], pairs[i + 1]), 0));
	objmeta_decode(&meta, &ret);
	meta_clear(&meta);
	return ret;
}
#define DECODED(...)                                                                                                   \
	decoded((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static struct objmeta full(void)
{
	struct objmeta meta = {
		.has = (OBJMETA_HOST << 1) - 1,
		.mode = S_IFREG | 0640,
		.uid = 1000,
		.gid = UINT32_MAX,
		.mtime = INT64_C(1700000000000000001),
		.atime = INT64_C(1700000000) * NS_PER_SEC,
		.ctime = -1500 * NS_PER_MS,
		.seq = UINT64_MAX,
		.commit_ns = INT64_C(1700000001123456789),
		.origin = CAT_ORIGIN_RECOVERED,
		.epoch = 7,
		.crc32c = 0x00c0ffee,
		.author = 33,
		.host = "varve.example",
	};

	memset(meta.file_id, 0xa5, sizeof(meta.file_id));
	memset(meta.link_id, 0x5a, sizeof(meta.link_id));
	return meta;
}

Test(objmeta, reads_back_what_it_writes)
{
	struct objmeta before = full(), after;
	struct meta meta;

	cr_assert(eq(int, objmeta_encode(&before, &meta), 0));
	objmeta_decode(&meta, &after);
	cr_expect(eq(uint, after.has, before.has));
	cr_expect(eq(u32, after.mode, before.mode));
	cr_expect(eq(u32, after.uid, before.uid));
	cr_expect(eq(u32, after.gid, before.gid));
	cr_expect(eq(i64, after.mtime, before.mtime));
	cr_expect(eq(i64, after.atime, before.atime));
	cr_expect(eq(i64, after.ctime, before.ctime));
	cr_expect(eq(u64, after.seq, before.seq));
	cr_expect(eq(i64, after.commit_ns, before.commit_ns));
	cr_expect(eq(int, (int)after.origin, (int)before.origin));
	cr_expect(eq(u64, after.epoch, before.epoch));
	cr_expect(eq(u32, after.crc32c, before.crc32c));
	cr_expect(eq(u32, after.author, before.author));
	cr_expect(eq(str, after.host, before.host));
	cr_expect(zero(int, memcmp(after.file_id, before.file_id, sizeof(after.file_id))));
	cr_expect(zero(int, memcmp(after.link_id, before.link_id, sizeof(after.link_id))));
	meta_clear(&meta);
}

Test(objmeta, writes_the_forms_of_s3fs)
{
	struct objmeta before = full();
	struct meta meta;

	cr_assert(eq(int, objmeta_encode(&before, &meta), 0));
	cr_expect(eq(str, (char *)meta_get(&meta, "mode"), "33184"));
	cr_expect(eq(str, (char *)meta_get(&meta, "uid"), "1000"));
	cr_expect(eq(str, (char *)meta_get(&meta, "mtime"), "1700000000.000000001"));
	cr_expect(eq(str, (char *)meta_get(&meta, "atime"), "1700000000"));
	cr_expect(eq(str, (char *)meta_get(&meta, "ctime"), "-1.500000000"));
	cr_expect(eq(str, (char *)meta_get(&meta, "varve-crc32c"), "00c0ffee"));
	cr_expect(eq(str, (char *)meta_get(&meta, TRANSFER_UPLOAD_META),
		     "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5-18446744073709551615-7"));
	meta_clear(&meta);
}

Test(objmeta, writes_only_what_is_set)
{
	struct objmeta before = {.has = OBJMETA_MODE, .mode = S_IFDIR | 0755, .uid = 5};
	struct meta meta;

	cr_assert(eq(int, objmeta_encode(&before, &meta), 0));
	cr_expect(eq(sz, meta.count, 1));
	cr_expect(eq(str, (char *)meta_get(&meta, "mode"), "16877"));
	meta_clear(&meta);
	before.has = 0;
	cr_assert(eq(int, objmeta_encode(&before, &meta), 0));
	cr_expect(eq(sz, meta.count, 0));
	meta_clear(&meta);
}

Test(objmeta, makes_a_host_fit_for_a_header)
{
	struct objmeta before = {.has = OBJMETA_HOST, .host = "a b\n\xc3\xa9"};
	struct meta meta;

	cr_assert(eq(int, objmeta_encode(&before, &meta), 0));
	cr_expect(eq(str, (char *)meta_get(&meta, "varve-host"), "a_b___"));
	meta_clear(&meta);
}

Test(objmeta, reads_s3fs)
{
	struct objmeta meta =
		DECODED("mode", "33188", "uid", "0", "gid", "100", "mtime", "1577934245", "ctime", "1577934245.5");

	cr_expect(eq(uint, meta.has, OBJMETA_MODE | OBJMETA_UID | OBJMETA_GID | OBJMETA_MTIME | OBJMETA_CTIME));
	cr_expect(eq(u32, meta.mode, S_IFREG | 0644));
	cr_expect(eq(i64, meta.mtime, INT64_C(1577934245000000000)));
	cr_expect(eq(i64, meta.ctime, INT64_C(1577934245500000000)));
}

Test(objmeta, reads_rclone)
{
	struct objmeta meta = DECODED("mtime", "1577934245.1234567891", "mode", "100644");

	cr_expect(eq(i64, meta.mtime, INT64_C(1577934245123456789)));
	cr_expect(eq(u32, meta.mode, S_IFREG | 0644));
	cr_expect(eq(u32, DECODED("mode", "40755").mode, S_IFDIR | 0755));
	cr_expect(eq(u32, DECODED("mode", "120777").mode, S_IFLNK | 0777));
	cr_expect(eq(u32, DECODED("mode", "0100600").mode, S_IFREG | 0600));
}

Test(objmeta, octal_and_decimal_modes_are_not_confused)
{
	const uint32_t types[] = {S_IFREG, S_IFDIR, S_IFSOCK};
	char text[16];

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		for (uint32_t mode = 0; mode <= 07777; mode++) {
			uint32_t want = types[i] | (mode & 01777);

			(void)snprintf(text, sizeof(text), "%u", types[i] | mode);
			cr_assert(eq(u32, DECODED("mode", text).mode, want), "decimal %s", text);
			(void)snprintf(text, sizeof(text), "%o", types[i] | mode);
			if (strcmp(text, "41471") != 0) /* what s3fs writes for every symlink */
				cr_assert(eq(u32, DECODED("mode", text).mode, want), "octal %s", text);
		}
	}
	cr_expect(eq(u32, DECODED("mode", "41471").mode, S_IFLNK | 0777));
}

Test(objmeta, drops_setuid_and_setgid_keeps_sticky)
{
	cr_expect(eq(u32, DECODED("mode", "36333").mode, S_IFREG | 0755)); /* 0106755 */
	cr_expect(eq(u32, DECODED("mode", "17407").mode, S_IFDIR | 01777));
}

Test(objmeta, takes_no_devices_and_no_nonsense_for_a_mode)
{
	const char *const bad[] = {"24996",  "8612",   "-1",   "", "rw-r--r--", "99999999999999999999",
				   "33188 ", "0x81a4", "57772"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_expect(zero(uint, DECODED("mode", bad[i]).has), "%s", bad[i]);
}

Test(objmeta, keeps_fifos_and_sockets)
{
	cr_expect(eq(u32, DECODED("mode", "4516").mode, S_IFIFO | 0644));
	cr_expect(eq(u32, DECODED("mode", "49645").mode, S_IFSOCK | 0755));
}

Test(objmeta, ignores_absurd_times)
{
	const char *const bad[] = {
		"9300000000", "-9300000000",  "99999999999999999999999", "nan",           "",   "-", ".5",
		"1e9",        "1577934245,5", "2020-01-02T03:04:05Z",    "1577934245.5x", "- 5"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_expect(zero(uint, DECODED("mtime", bad[i]).has), "%s", bad[i]);
	cr_expect(eq(i64, DECODED("mtime", "-86400").mtime, -86400 * NS_PER_SEC));
	cr_expect(eq(i64, DECODED("mtime", "0").mtime, 0));
}

Test(objmeta, ignores_what_is_not_ours_to_the_letter)
{
	cr_expect(zero(uint, DECODED("varve-id", "a5").has));
	cr_expect(zero(uint, DECODED("varve-id", "zza5a5a5a5a5a5a5a5a5a5a5a5a5a5a5").has));
	cr_expect(zero(uint, DECODED("varve-seq", "0").has));
	cr_expect(zero(uint, DECODED("varve-seq", "18446744073709551616").has));
	cr_expect(zero(uint, DECODED("varve-commit", "-5").has));
	cr_expect(zero(uint, DECODED("varve-commit", "9223372036854775807").has));
	cr_expect(zero(uint, DECODED("varve-origin", "heaven").has));
	cr_expect(zero(uint, DECODED("varve-crc32c", "123").has));
	cr_expect(zero(uint, DECODED("varve-host", "two words").has));
	cr_expect(zero(uint,
		       DECODED("varve-host", "0123456789012345678901234567890123456789012345678901234567890123").has));
	cr_expect(zero(uint, DECODED("uid", "4294967296").has));
	cr_expect(zero(uint, DECODED("something", "else").has));
}

Test(objmeta, one_bad_value_spoils_no_other)
{
	struct objmeta meta = DECODED("mode", "junk", "uid", "12", "mtime", "junk", "varve-seq", "9");

	cr_expect(eq(uint, meta.has, OBJMETA_UID | OBJMETA_SEQ));
	cr_expect(eq(u32, meta.uid, 12));
	cr_expect(eq(u64, meta.seq, 9));
}

Test(objmeta, knows_directories)
{
	cr_expect(eq(str, (char *)objmeta_content_type(S_IFDIR | 0755, NULL), "application/x-directory"));
	cr_expect(zero(ptr, (void *)objmeta_content_type(S_IFREG | 0644, NULL)));
	cr_expect(ne(int, !!(objmeta_key_is_directory("a/")), 0));
	cr_expect(ne(int, !!(objmeta_key_is_directory("a//")), 0));
	cr_expect(zero(int, !!(objmeta_key_is_directory("a"))));
	cr_expect(zero(int, !!(objmeta_key_is_directory(""))));
}

static void expect_pairs(const struct buf *attributes, const char *expected, size_t size)
{
	cr_assert(eq(sz, attributes->len, size - 1));
	cr_assert(zero(int, memcmp(attributes->data, expected, size - 1)));
}

Test(objmeta, what_users_said_is_told_apart_from_what_we_say)
{
	static const char expected[] = "user.colour\0blue\0user.note\0\0";
	struct object_info info = {0};
	AUTO_BUF attributes = BUF_INIT;

	cr_assert_eq(meta_set(&info.meta, "mode", "33188"), 0);
	cr_assert_eq(meta_set(&info.meta, "colour", "blue"), 0);
	cr_assert_eq(meta_set(&info.meta, "varve-anything", "x"), 0);
	cr_assert_eq(meta_set(&info.meta, "varve.state", "stored"), 0);
	cr_assert_eq(meta_set(&info.meta, "mtime", "no time"), 0);
	cr_assert_eq(meta_set(&info.meta, "note", ""), 0);
	cr_assert_eq(objmeta_user(&info, S_IFREG | 0644, &attributes), 0);
	expect_pairs(&attributes, expected, sizeof(expected));
	object_info_clear(&info);
}

static void expect_type(const char *type, uint32_t mode, const char *expected, size_t size)
{
	struct object_info info = {.content_type = (char *)type}; /* only read */
	AUTO_BUF attributes = BUF_INIT;

	cr_assert_eq(meta_set(&info.meta, "mime_type", "said/twice"), 0);
	cr_assert_eq(objmeta_user(&info, mode, &attributes), 0);
	expect_pairs(&attributes, expected, size);
	meta_clear(&info.meta);
}

Test(objmeta, a_content_type_that_somebody_chose_is_an_attribute)
{
	static const char chosen[] = "user.mime_type\0text/html; charset=utf-8\0";
	static const char none[] = "user.mime_type\0said/twice\0";

	expect_type("text/html; charset=utf-8", S_IFREG | 0644, chosen, sizeof(chosen));
	expect_type("text/html; charset=utf-8", S_IFDIR | 0755, none, sizeof(none));
	expect_type("application/octet-stream", S_IFREG | 0644, none, sizeof(none));
	expect_type("binary/octet-stream", S_IFREG | 0644, none, sizeof(none));
	expect_type("", S_IFREG | 0644, none, sizeof(none));
	expect_type("html", S_IFREG | 0644, none, sizeof(none));
	expect_type(NULL, S_IFREG | 0644, none, sizeof(none));
}

static void take(struct buf *attributes, const char *name, const char *value)
{
	cr_assert(zero(int, objmeta_take_attribute(attributes, name, value, strlen(value))));
}

Test(objmeta, attributes_that_an_object_can_carry)
{
	static const char expected[] = "user.a-b_c.9\0\0user.colour\0gr\xc3\xbcn\0";
	AUTO_BUF attributes = BUF_INIT;

	take(&attributes, "user.a-b_c.9", "");
	take(&attributes, "user.colour", "gr\xc3\xbcn");
	take(&attributes, "user.", "x");
	take(&attributes, "user.Colour", "x");
	take(&attributes, "user.two words", "x");
	take(&attributes, "user.\xc3\xbc", "x");
	take(&attributes, "user.mtime", "x");
	take(&attributes, "user.varve.seq", "x");
	take(&attributes, "user.varve-upload", "x");
	take(&attributes, "security.selinux", "x");
	take(&attributes, "trusted.colour", "x");
	cr_assert(zero(int, objmeta_take_attribute(&attributes, "user.binary", "a\0b", 3)));
	expect_pairs(&attributes, expected, sizeof(expected));
}

#define ROOM 400

/* What fits is said, by name; what we say is said in any case. */
Test(objmeta, attributes_fill_the_room_there_is)
{
	char value[ROOM];
	struct meta meta = {0};
	AUTO_BUF attributes = BUF_INIT;

	memset(value, 'v', sizeof(value));
	value[ROOM - 1] = '\0';
	cr_assert_eq(meta_set(&meta, "mode", "33188"), 0);
	take(&attributes, "user.a", value);
	take(&attributes, "user.b", "short");
	value[ROOM / 3] = '\0';
	take(&attributes, "user.c", value);
	take(&attributes, "user.d", value);
	take(&attributes, "user.e", value);
	cr_assert(zero(int, objmeta_add_user(&attributes, S_IFREG | 0644, (struct objmeta_room){ROOM, true}, &meta)));
	cr_assert(eq(sz, meta.count, 4));
	cr_assert(eq(str, meta.pairs[0].name, "mode"));
	cr_assert(eq(str, meta.pairs[1].name, "b"));
	cr_assert(eq(str, meta.pairs[2].name, "c"));
	cr_assert(eq(str, meta.pairs[3].name, "d"));
	meta_clear(&meta);
}

static const struct objmeta_room roomy = {2048, true};

Test(objmeta, names_that_a_proxy_may_drop_are_sent_where_they_arrive)
{
	struct meta meta = {0};
	AUTO_BUF attributes = BUF_INIT;

	take(&attributes, "user.plain-1", "v");
	take(&attributes, "user.under_score", "v");
	take(&attributes, "user.xdg.origin.url", "v");
	cr_assert(zero(int, objmeta_add_user(&attributes, S_IFREG | 0644, (struct objmeta_room){2048, false}, &meta)));
	cr_assert(eq(sz, meta.count, 1));
	cr_assert(eq(str, meta.pairs[0].name, "plain-1"));
	cr_assert(zero(int, objmeta_add_user(&attributes, S_IFREG | 0644, roomy, &meta)));
	cr_assert(eq(sz, meta.count, 3));
	meta_clear(&meta);
}

/* A store may have to escape each byte of a value, and may count the names as headers. */
Test(objmeta, the_room_is_enough_however_it_is_counted)
{
	struct meta meta = {0};
	AUTO_BUF attributes = BUF_INIT;
	char name[32];
	size_t bytes = 0;

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "user.n%03d", i);
		take(&attributes, name, "\xc3\xbc \xc3\xbc");
	}
	cr_assert(zero(int, objmeta_add_user(&attributes, S_IFREG | 0644, roomy, &meta)));
	for (size_t i = 0; i < meta.count; i++)
		bytes += strlen("x-amz-meta-") + strlen(meta.pairs[i].name) + strlen("%~%C3%BC%20%C3%BC");
	cr_expect(le(sz, bytes, 2048));
	cr_expect(gt(sz, bytes, 1800));
	meta_clear(&meta);
}

Test(objmeta, the_attribute_that_is_the_content_type)
{
	struct meta meta = {0};
	AUTO_BUF chosen = BUF_INIT;
	AUTO_BUF standard = BUF_INIT;
	AUTO_BUF odd = BUF_INIT;

	take(&chosen, "user.a", "text/plain");
	take(&chosen, "user.mime_type", "text/css");
	cr_expect(eq(str, (char *)objmeta_content_type(S_IFREG | 0644, &chosen), "text/css"));
	cr_expect(eq(str, (char *)objmeta_content_type(S_IFDIR | 0755, &chosen), "application/x-directory"));
	cr_expect(zero(ptr, (void *)objmeta_content_type(S_IFLNK | 0777, &chosen)));
	cr_assert(zero(int, objmeta_add_user(&chosen, S_IFREG | 0644, roomy, &meta)));
	cr_assert(eq(sz, meta.count, 1));
	cr_assert(zero(int, objmeta_add_user(&chosen, S_IFDIR | 0755, roomy, &meta)));
	cr_assert(eq(str, (char *)meta_get(&meta, "mime_type"), "text/css"),
		  "a directory's object has a type of its own");
	meta_clear(&meta);

	take(&standard, "user.mime_type", "application/octet-stream");
	cr_expect(zero(ptr, (void *)objmeta_content_type(S_IFREG | 0644, &standard)));
	cr_assert(zero(int, objmeta_add_user(&standard, S_IFREG | 0644, roomy, &meta)));
	cr_assert(eq(sz, meta.count, 1), "or nothing would tell that it was set");
	meta_clear(&meta);

	take(&odd, "user.mime_type", "text/css\r\nx-amz-acl: public-read");
	cr_expect(zero(ptr, (void *)objmeta_content_type(S_IFREG | 0644, &odd)));
	cr_assert(zero(int, objmeta_add_user(&odd, S_IFREG | 0644, roomy, &meta)));
	cr_assert(eq(sz, meta.count, 1), "what is no type is an attribute like others");
	meta_clear(&meta);
}

Test(objmeta, symlink_bodies)
{
	struct objmeta theirs = {0}, ours = {.has = OBJMETA_FILE_ID};
	static char long_one[OBJMETA_TARGET_MAX + 1];
	size_t len = 0;

	cr_expect(ne(int, !!(objmeta_symlink_target(&theirs, "../a", 4, &len)), 0));
	cr_expect(eq(sz, len, 4));
	cr_expect(ne(int, !!(objmeta_symlink_target(&theirs, "../a\n\0", 6, &len)), 0));
	cr_expect(eq(sz, len, 4));
	cr_expect(ne(int, !!(objmeta_symlink_target(&ours, "odd\n", 4, &len)), 0));
	cr_expect(eq(sz, len, 4));
	cr_expect(zero(int, !!(objmeta_symlink_target(&theirs, "a\0b", 3, &len))));
	cr_expect(zero(int, !!(objmeta_symlink_target(&ours, "a\0", 2, &len))));
	cr_expect(zero(int, !!(objmeta_symlink_target(&theirs, "\n", 1, &len))));
	cr_expect(zero(int, !!(objmeta_symlink_target(&theirs, "", 0, &len))));
	memset(long_one, 'a', sizeof(long_one));
	cr_expect(ne(int, !!(objmeta_symlink_target(&theirs, long_one, OBJMETA_TARGET_MAX, &len)), 0));
	cr_expect(zero(int, !!(objmeta_symlink_target(&theirs, long_one, OBJMETA_TARGET_MAX + 1, &len))));
}
