/*
 * checksum.h - CRC-32C (hardware where there is) and SHA-256 / HMAC-SHA-256 (OpenSSL).
 */
#ifndef VARVE_CHECKSUM_H
#define VARVE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli) of bytes continuing `crc`; start with 0. crc32c_update(crc32c_update(0,a),b) == crc of ab. */
uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t len);
/* CRC of a||b from the CRCs of a and b and b's length. */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

#define SHA256_SIZE 32
#define SHA256_HEX_SIZE 65       /* with the NUL */
struct sha256;                   /* opaque, streaming */
struct sha256 *sha256_new(void); /* NULL: no memory */
void sha256_free(struct sha256 *sha);
void sha256_update(struct sha256 *sha, const void *bytes, size_t len);
void sha256_final(struct sha256 *sha, uint8_t ret_digest[static SHA256_SIZE]);
void sha256_of(const void *bytes, size_t len, uint8_t ret_digest[static SHA256_SIZE]);
void hmac_sha256(const void *key, size_t key_len, const void *bytes, size_t len,
		 uint8_t ret_digest[static SHA256_SIZE]);
void md5_of(const void *bytes, size_t len, uint8_t ret_digest[static 16]); /* Content-MD5 where a store asks for it */

void hex_encode(const void *bytes, size_t len, char *ret_text);      /* 2*len+1 bytes */
int hex_decode(const char *text, size_t bytes_len, void *ret_bytes); /* exactly 2*bytes_len digits; 0 or -EINVAL */
size_t base64_encoded_size(size_t len);                              /* with the NUL */
void base64_encode(const void *bytes, size_t len, char *ret_text);
int base64_decode(const char *text, void *ret_bytes, size_t cap, size_t *ret_len); /* 0 or -EINVAL */

/* Fills with the kernel's randomness; never fails (aborts if the kernel has none). */
void random_bytes(void *ret_bytes, size_t len);

#endif
