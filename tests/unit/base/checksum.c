/* Unit tests of base/checksum.c, which is included so that both ways to a CRC are tested on any processor. */
#include "base/checksum.c"

#include <criterion/criterion.h>

#define BIG (3 * LANE_LONG + 3 * LANE_SHORT + 1000)

static uint8_t big[2 * BIG];

static void fill(void)
{
	uint32_t state = 1;

	for (size_t i = 0; i < sizeof(big); i++) {
		state = state * 1664525 + 1013904223;
		big[i] = (uint8_t)(state >> 24);
	}
}

static uint32_t crc_bit_by_bit(uint32_t crc, const uint8_t *bytes, size_t len)
{
	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_POLY : 0);
	}
	return ~crc;
}

/* RFC 3720, B.4, and the check value of the CRC catalogues. */
Test(crc32c, known_values)
{
	uint8_t bytes[32] = {0};

	cr_assert_eq(crc32c_update(0, "", 0), 0);
	cr_assert_eq(crc32c_update(0, "123456789", 9), UINT32_C(0xe3069283));
	cr_assert_eq(crc32c_update(0, bytes, 32), UINT32_C(0x8a9136aa));
	memset(bytes, 0xff, 32);
	cr_assert_eq(crc32c_update(0, bytes, 32), UINT32_C(0x62a8ab43));
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	cr_assert_eq(crc32c_update(0, bytes, 32), UINT32_C(0x46dd794e));
}

Test(crc32c, table_and_instruction_agree_at_every_length_and_alignment, .init = fill)
{
	static const size_t around[] = {
		0, 3 * LANE_SHORT, 6 * LANE_SHORT, 3 * LANE_LONG, 3 * LANE_LONG + 3 * LANE_SHORT, BIG};

	(void)crc32c_update(0, "", 0); /* makes the tables */
	for (size_t i = 0; i < ARRAY_SIZE(around); i++) {
		for (size_t more = 0; more < 20; more++) {
			size_t len = around[i] + more;
			const uint8_t *at = big + more % 9;
			uint32_t expected = crc_bit_by_bit(0x12345678, at, len);

			cr_assert_eq(~crc_by_table(~UINT32_C(0x12345678), at, len), expected);
			cr_assert_eq(crc32c_update(0x12345678, at, len), expected);
			if (have_instruction)
				cr_assert_eq(~crc_by_instruction(~UINT32_C(0x12345678), at, len), expected);
		}
	}
}

Test(crc32c, continues_and_combines, .init = fill)
{
	uint32_t whole = crc32c_update(0, big, BIG);

	for (size_t cut = 0; cut <= BIG; cut += 641) {
		uint32_t first = crc32c_update(0, big, cut);
		uint32_t second = crc32c_update(0, big + cut, BIG - cut);

		cr_assert_eq(crc32c_update(first, big + cut, BIG - cut), whole);
		cr_assert_eq(crc32c_combine(first, second, BIG - cut), whole);
	}
}

/* A terabyte of zeros, doubled up from one zero byte: lengths beyond 32 bits. */
Test(crc32c, combines_over_long_lengths)
{
	uint32_t doubled = crc32c_update(0, "", 1);
	uint32_t prefix = crc32c_update(0, "x", 1);
	uint32_t expected = prefix;

	for (int power = 0; power < 40; power++) {
		expected = crc32c_combine(expected, doubled, UINT64_C(1) << power);
		doubled = crc32c_combine(doubled, doubled, UINT64_C(1) << power);
	}
	/* 1 + 2 + … + 2^39 zeros after the x: one short of 2^40. */
	expected = crc32c_combine(expected, crc32c_update(0, "", 1), 1);
	cr_assert_eq(crc32c_combine(prefix, doubled, UINT64_C(1) << 40), expected);
}

static void expect_hex(const uint8_t *digest, size_t len, const char *expected)
{
	char text[SHA256_HEX_SIZE];

	hex_encode(digest, len, text);
	cr_assert_str_eq(text, expected);
}

/* FIPS 180-2 examples. */
Test(sha256, known_values_at_once_and_in_pieces)
{
	static const char text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	uint8_t digest[SHA256_SIZE];
	struct sha256 *sha;

	sha256_of("", 0, digest);
	expect_hex(digest, SHA256_SIZE, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256_of("abc", 3, digest);
	expect_hex(digest, SHA256_SIZE, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha = sha256_new();
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		sha256_update(sha, text + i, 1);
	sha256_final(sha, digest);
	sha256_free(sha);
	expect_hex(digest, SHA256_SIZE, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	sha256_free(NULL);
}

/* RFC 4231, cases 2 and 6; the empty key from the definition with a key of zeros. */
Test(hmac, known_values)
{
	static const char text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
	uint8_t key[131];
	uint8_t zeros[64] = {0};
	uint8_t digest[SHA256_SIZE];
	uint8_t other[SHA256_SIZE];

	hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, digest);
	expect_hex(digest, SHA256_SIZE, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof(key));
	hmac_sha256(key, sizeof(key), text, sizeof(text) - 1, digest);
	expect_hex(digest, SHA256_SIZE, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	hmac_sha256(NULL, 0, "x", 1, digest);
	hmac_sha256(zeros, sizeof(zeros), "x", 1, other);
	cr_assert_arr_eq(digest, other, SHA256_SIZE);
}

/* RFC 1321, A.5. */
Test(md5, known_values)
{
	uint8_t digest[16];

	md5_of("", 0, digest);
	expect_hex(digest, 16, "d41d8cd98f00b204e9800998ecf8427e");
	md5_of("message digest", 14, digest);
	expect_hex(digest, 16, "f96b697d7cb7938d525a2f31aaf161d0");
}

Test(hex, both_ways)
{
	uint8_t bytes[4] = {9, 9, 9, 9};
	char text[9];

	hex_encode("\x00\x7f\x80\xff", 4, text);
	cr_assert_str_eq(text, "007f80ff");
	cr_assert_eq(hex_decode("007F80fF", 4, bytes), 0);
	cr_assert_arr_eq(bytes, "\x00\x7f\x80\xff", 4);
	hex_encode("", 0, text);
	cr_assert_str_eq(text, "");
	cr_assert_eq(hex_decode("", 0, bytes), 0);
}

Test(hex, refuses_other_lengths_and_digits_and_writes_nothing)
{
	static const char *const wrong[] = {"", "007f80f", "007f80ff0", "007f80fg", "007f80f ", "0x7f80ff"};
	uint8_t bytes[4] = {9, 9, 9, 9};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_assert_eq(hex_decode(wrong[i], 4, bytes), -EINVAL, "%s", wrong[i]);
	cr_assert_arr_eq(bytes, "\x09\x09\x09\x09", 4);
}

/* RFC 4648, section 10. */
Test(base64, known_values_both_ways)
{
	static const char *const cases[][2] = {{"", ""},
					       {"f", "Zg=="},
					       {"fo", "Zm8="},
					       {"foo", "Zm9v"},
					       {"foob", "Zm9vYg=="},
					       {"fooba", "Zm9vYmE="},
					       {"foobar", "Zm9vYmFy"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = strlen(cases[i][0]);
		uint8_t bytes[16];
		char text[16];
		size_t got;

		base64_encode(cases[i][0], len, text);
		cr_assert_str_eq(text, cases[i][1]);
		cr_assert_eq(base64_encoded_size(len), strlen(text) + 1);
		cr_assert_eq(base64_decode(text, bytes, len, &got), 0);
		cr_assert_eq(got, len);
		cr_assert_eq(memcmp(bytes, cases[i][0], len), 0);
	}
}

Test(base64, round_trips_all_bytes, .init = fill)
{
	char text[1400];
	uint8_t bytes[1024];
	size_t got;

	for (size_t len = 0; len <= 1024; len++) {
		base64_encode(big + len, len, text);
		cr_assert_eq(base64_decode(text, bytes, sizeof(bytes), &got), 0);
		cr_assert_eq(got, len);
		cr_assert_eq(memcmp(bytes, big + len, len), 0);
	}
}

Test(base64, refuses_what_no_encoder_writes)
{
	static const char *const wrong[] = {"Z",    "Zg",   "Zg=",  "Zg===",  "=",    "====",  "Zg==Zg==", "Z===",
					    "Zh==", "Zm9=", "Zm 8", "Zm8=\n", "Zm-_", "Zm9v=", "Zg=g"};
	uint8_t bytes[16];
	size_t got = 77;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_assert_eq(base64_decode(wrong[i], bytes, sizeof(bytes), &got), -EINVAL, "%s", wrong[i]);
	cr_assert_eq(base64_decode("Zm9v", bytes, 2, &got), -EINVAL);
	cr_assert_eq(got, 77);
}

Test(random, differs)
{
	uint8_t a[32];
	uint8_t b[32];

	random_bytes(a, sizeof(a));
	random_bytes(b, sizeof(b));
	cr_assert_neq(memcmp(a, b, sizeof(a)), 0);
	random_bytes(a, 0);
}
