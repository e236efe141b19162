/*
 * checksum.c - CRC-32C, SHA-256, HMAC, MD5, hexadecimal, base64, randomness.
 *
 * CRCs are polynomials over GF(2) modulo P with the bits reflected: bit 31 is
 * the coefficient of x^0. Following bytes multiply what came before by x^8
 * each, so "shift a CRC over n bytes" is one multiplication by x^(8n), and
 * three streams computed side by side can be joined to one afterwards. That
 * hides the latency of the crc32 instruction (3 cycles, 1 a cycle).
 *
 * Threads: all functions may run concurrently; the tables are made once.
 */
#include "checksum.h"
#include "cleanup.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CRC32C_POLY UINT32_C(0x82f63b78)
#define CRC32C_ONE UINT32_C(0x80000000)  /* x^0 */
#define CRC32C_BYTE UINT32_C(0x00800000) /* x^8 */

/* Bytes of one of the three streams: long ones for bulk, short ones for what is left. */
#define LANE_LONG 8192
#define LANE_SHORT 256

static pthread_once_t tables_once = PTHREAD_ONCE_INIT;
static uint32_t step_table[8][256]; /* [i][b]: byte b followed by i zero bytes */
static uint32_t shift_long[4][256]; /* [i][b]: byte i of a CRC, shifted over LANE_LONG bytes */
static uint32_t shift_short[4][256];
static bool have_instruction;

static uint32_t poly_multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (uint32_t bit = CRC32C_ONE; bit; bit >>= 1) {
		if (a & bit)
			product ^= b;
		b = b >> 1 ^ (b & 1 ? CRC32C_POLY : 0);
	}
	return product;
}

/* x^(8 * bytes) modulo P, by repeated squaring. */
static uint32_t poly_shift(uint64_t bytes)
{
	uint32_t square = CRC32C_BYTE;
	uint32_t result = CRC32C_ONE;

	for (; bytes; bytes >>= 1) {
		if (bytes & 1)
			result = poly_multiply(result, square);
		square = poly_multiply(square, square);
	}
	return result;
}

static void shift_table_make(uint32_t table[4][256], uint64_t bytes)
{
	uint32_t factor = poly_shift(bytes);

	for (uint32_t i = 0; i < 4; i++)
		for (uint32_t byte = 0; byte < 256; byte++)
			table[i][byte] = poly_multiply(factor, byte << (8 * i));
}

static void tables_make(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		step_table[0][byte] = poly_multiply(CRC32C_BYTE, byte);
		for (int i = 1; i < 8; i++) {
			uint32_t before = step_table[i - 1][byte];

			step_table[i][byte] = poly_multiply(CRC32C_BYTE, before);
		}
	}
	shift_table_make(shift_long, LANE_LONG);
	shift_table_make(shift_short, LANE_SHORT);
#ifdef __x86_64__
	have_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

/* Eight bytes at a time; the raw register in and out, without the inversions at both ends. */
static uint32_t crc_by_table(uint32_t crc, const uint8_t *at, size_t len)
{
	for (; len >= 8; at += 8, len -= 8) {
		uint32_t low =
			crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);

		crc = step_table[7][low & 0xff] ^ step_table[6][low >> 8 & 0xff] ^ step_table[5][low >> 16 & 0xff] ^
		      step_table[4][low >> 24] ^ step_table[3][at[4]] ^ step_table[2][at[5]] ^ step_table[1][at[6]] ^
		      step_table[0][at[7]];
	}
	for (; len; at++, len--)
		crc = crc >> 8 ^ step_table[0][(crc ^ *at) & 0xff];
	return crc;
}

#ifdef __x86_64__
static inline uint64_t load64(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

static inline uint32_t shift(const uint32_t table[4][256], uint32_t crc)
{
	return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

/* Three neighbouring lanes at once; returns the CRC of all three in a row. */
__attribute__((target("sse4.2"))) static uint32_t crc_three_lanes(uint32_t crc, const uint8_t *at, size_t lane,
								  const uint32_t table[4][256])
{
	uint64_t first = crc;
	uint64_t second = 0;
	uint64_t third = 0;

	for (const uint8_t *end = at + lane; at < end; at += 8) {
		first = __builtin_ia32_crc32di(first, load64(at));
		second = __builtin_ia32_crc32di(second, load64(at + lane));
		third = __builtin_ia32_crc32di(third, load64(at + 2 * lane));
	}
	return shift(table, shift(table, (uint32_t)first) ^ (uint32_t)second) ^ (uint32_t)third;
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *at, size_t len)
{
	uint64_t wide;

	for (; len >= 3 * LANE_LONG; at += 3 * LANE_LONG, len -= 3 * LANE_LONG)
		crc = crc_three_lanes(crc, at, LANE_LONG, shift_long);
	for (; len >= 3 * LANE_SHORT; at += 3 * LANE_SHORT, len -= 3 * LANE_SHORT)
		crc = crc_three_lanes(crc, at, LANE_SHORT, shift_short);
	wide = crc;
	for (; len >= 8; at += 8, len -= 8)
		wide = __builtin_ia32_crc32di(wide, load64(at));
	crc = (uint32_t)wide;
	for (; len; at++, len--)
		crc = __builtin_ia32_crc32qi(crc, *at);
	return crc;
}
#else
static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *at, size_t len)
{
	return crc_by_table(crc, at, len);
}
#endif

uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t len)
{
	(void)pthread_once(&tables_once, tables_make); /* cannot fail with a static once */
	return ~(have_instruction ? crc_by_instruction(~crc, bytes, len) : crc_by_table(~crc, bytes, len));
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
	/* The inversions at both ends of each CRC cancel out. */
	return poly_multiply(poly_shift(len_b), crc_a) ^ crc_b;
}

/* OpenSSL fails here only when it is broken or has no memory for a context: without digests nothing can be verified. */
static void must(int ok, const char *what)
{
	if (ok != 1) {
		(void)fprintf(stderr, "varve: %s failed\n", what);
		abort();
	}
}

struct sha256 {
	EVP_MD_CTX *context;
};

struct sha256 *sha256_new(void)
{
	struct sha256 *sha = malloc(sizeof(*sha));

	if (!sha)
		return NULL;
	sha->context = EVP_MD_CTX_new();
	if (!sha->context || EVP_DigestInit_ex(sha->context, EVP_sha256(), NULL) != 1) {
		sha256_free(sha);
		return NULL;
	}
	return sha;
}

void sha256_free(struct sha256 *sha)
{
	if (!sha)
		return;
	EVP_MD_CTX_free(sha->context);
	free(sha);
}

void sha256_update(struct sha256 *sha, const void *bytes, size_t len)
{
	must(EVP_DigestUpdate(sha->context, bytes, len), "SHA-256");
}

void sha256_final(struct sha256 *sha, uint8_t ret_digest[static SHA256_SIZE])
{
	must(EVP_DigestFinal_ex(sha->context, ret_digest, NULL), "SHA-256");
}

void sha256_of(const void *bytes, size_t len, uint8_t ret_digest[static SHA256_SIZE])
{
	must(EVP_Digest(bytes, len, ret_digest, NULL, EVP_sha256(), NULL), "SHA-256");
}

void hmac_sha256(const void *key, size_t key_len, const void *bytes, size_t len, uint8_t ret_digest[static SHA256_SIZE])
{
	assert(key_len <= INT32_MAX);
	/* A NULL key would mean "the key of last time". */
	must(HMAC(EVP_sha256(), key_len ? key : "", (int)key_len, bytes, len, ret_digest, NULL) == ret_digest,
	     "HMAC-SHA-256");
}

void md5_of(const void *bytes, size_t len, uint8_t ret_digest[static 16])
{
	must(EVP_Digest(bytes, len, ret_digest, NULL, EVP_md5(), NULL), "MD5");
}

void hex_encode(const void *bytes, size_t len, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *at = bytes;

	for (size_t i = 0; i < len; i++) {
		*ret_text++ = digits[at[i] >> 4];
		*ret_text++ = digits[at[i] & 15];
	}
	*ret_text = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *text, size_t bytes_len, void *ret_bytes)
{
	uint8_t *out = ret_bytes;

	for (size_t i = 0; i < 2 * bytes_len; i++)
		if (hex_digit(text[i]) < 0) /* the NUL of a text that is too short is no digit either */
			return -EINVAL;
	if (text[2 * bytes_len])
		return -EINVAL;
	for (size_t i = 0; i < bytes_len; i++)
		out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return 0;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encoded_size(size_t len)
{
	return (len + 2) / 3 * 4 + 1;
}

void base64_encode(const void *bytes, size_t len, char *ret_text)
{
	const uint8_t *at = bytes;

	for (; len; at += 3) {
		size_t take = len < 3 ? len : 3;
		uint32_t group = (uint32_t)at[0] << 16;

		if (take > 1)
			group |= (uint32_t)at[1] << 8;
		if (take > 2)
			group |= at[2];
		*ret_text++ = base64_digits[group >> 18];
		*ret_text++ = base64_digits[group >> 12 & 63];
		*ret_text++ = take > 1 ? base64_digits[group >> 6 & 63] : '=';
		*ret_text++ = take > 2 ? base64_digits[group & 63] : '=';
		len -= take;
	}
	*ret_text = '\0';
}

static int base64_digit(char c)
{
	const char *found = c ? strchr(base64_digits, c) : NULL;

	return found ? (int)(found - base64_digits) : -1;
}

/* Strict: padded, no white space, unused bits zero; so every byte string has one encoding. */
int base64_decode(const char *text, void *ret_bytes, size_t cap, size_t *ret_len)
{
	size_t text_len = strlen(text);
	size_t padding = 0;
	uint32_t group = 0;
	uint8_t *out = ret_bytes;
	size_t len;

	if (text_len % 4)
		return -EINVAL;
	while (padding < 2 && padding < text_len && text[text_len - 1 - padding] == '=')
		padding++;
	len = text_len / 4 * 3 - padding;
	if (len > cap)
		return -EINVAL;
	for (size_t i = 0; i < text_len - padding; i++)
		if (base64_digit(text[i]) < 0)
			return -EINVAL;
	if (padding && base64_digit(text[text_len - padding - 1]) & (padding == 2 ? 15 : 3))
		return -EINVAL;
	for (size_t i = 0; i < text_len; i++) {
		group = group << 6 | (uint32_t)(i < text_len - padding ? base64_digit(text[i]) : 0);
		if (i % 4 != 3)
			continue;
		for (size_t k = 0; k < 3 && i / 4 * 3 + k < len; k++)
			out[i / 4 * 3 + k] = (uint8_t)(group >> (16 - 8 * k));
		group = 0;
	}
	*ret_len = len;
	return 0;
}

void random_bytes(void *ret_bytes, size_t len)
{
	uint8_t *at = ret_bytes;

	while (len) {
		ssize_t got = getrandom(at, len, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			(void)fprintf(stderr, "varve: the kernel gives no randomness: %s\n", strerror(errno));
			abort();
		}
		at += got;
		len -= (size_t)got;
	}
}
