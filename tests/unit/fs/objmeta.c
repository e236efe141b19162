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
	cr_expect(eq(str, (char *)objmeta_content_type(S_IFDIR | 0755), "application/x-directory"));
	cr_expect(zero(ptr, (void *)objmeta_content_type(S_IFREG | 0644)));
	cr_expect(ne(int, !!(objmeta_key_is_directory("a/")), 0));
	cr_expect(ne(int, !!(objmeta_key_is_directory("a//")), 0));
	cr_expect(zero(int, !!(objmeta_key_is_directory("a"))));
	cr_expect(zero(int, !!(objmeta_key_is_directory(""))));
}

Test(objmeta, what_users_said_is_told_apart_from_what_we_say)
{
	static const char expected[] = "user.colour\0blue\0user.note\0\0";
	struct meta meta = {0};
	AUTO_BUF attributes = BUF_INIT;

	cr_assert_eq(meta_set(&meta, "mode", "33188"), 0);
	cr_assert_eq(meta_set(&meta, "colour", "blue"), 0);
	cr_assert_eq(meta_set(&meta, "varve-anything", "x"), 0);
	cr_assert_eq(meta_set(&meta, "varve.state", "stored"), 0);
	cr_assert_eq(meta_set(&meta, "mtime", "no time"), 0);
	cr_assert_eq(meta_set(&meta, "note", ""), 0);
	cr_assert_eq(objmeta_user(&meta, &attributes), 0);
	cr_assert_eq(attributes.len, sizeof(expected) - 1);
	cr_assert_eq(memcmp(attributes.data, expected, attributes.len), 0);
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
