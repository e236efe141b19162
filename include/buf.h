/*
 * buf.h - a growable byte string.
 *
 * Invariant: data is never NULL after buf_init/BUF_INIT and data[len] == '\0',
 * so a buf without NUL bytes is a C string at any time.
 * Allocation failure is sticky: the buf keeps what it had, `failed` is set and
 * further appends do nothing; check buf_failed() once at the end.
 */
#ifndef VARVE_BUF_H
#define VARVE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data;
	size_t len;
	size_t cap; /* 0: data is the shared empty string */
	bool failed;
};

extern char buf_empty[1];
#define BUF_INIT                                                                                                       \
	{                                                                                                              \
		.data = buf_empty                                                                                      \
	}

void buf_init(struct buf *buf);
void buf_free(struct buf *buf);  /* back to empty; may be used again */
void buf_reset(struct buf *buf); /* length 0, memory and no failure kept */
bool buf_failed(const struct buf *buf);

/* Room for `more` bytes beyond len; 0 or -ENOMEM. */
int buf_reserve(struct buf *buf, size_t more);
void buf_add(struct buf *buf, const void *bytes, size_t len);
void buf_adds(struct buf *buf, const char *string);
void buf_addc(struct buf *buf, char c);
void buf_addf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Big-endian fixed-width integers: sort as bytes as they do as numbers. */
void buf_add_u8(struct buf *buf, uint8_t value);
void buf_add_u16(struct buf *buf, uint16_t value);
void buf_add_u32(struct buf *buf, uint32_t value);
void buf_add_u64(struct buf *buf, uint64_t value);
/* u32 length, then the bytes. */
void buf_add_blob(struct buf *buf, const void *bytes, size_t len);

/* Gives the heap string away (malloc'd even when empty); the buf is empty after. NULL when failed. */
char *buf_detach(struct buf *buf);

static inline void cleanup_buf(struct buf *buf)
{
	buf_free(buf);
}
#define AUTO_BUF __attribute__((cleanup(cleanup_buf))) struct buf

/*
 * A bounds-checked reader of such bytes. Reading past the end sets `failed`,
 * yields zeros and stays failed: decode all fields, check once.
 */
struct cursor {
	const uint8_t *at;
	const uint8_t *end;
	bool failed;
};

static inline struct cursor cursor_of(const void *bytes, size_t len)
{
	return (struct cursor){.at = bytes, .end = (const uint8_t *)bytes + len};
}
uint8_t cursor_u8(struct cursor *cursor);
uint16_t cursor_u16(struct cursor *cursor);
uint32_t cursor_u32(struct cursor *cursor);
uint64_t cursor_u64(struct cursor *cursor);
/* A u32 length and that many bytes, not copied: valid as long as the source. */
const uint8_t *cursor_blob(struct cursor *cursor, size_t *ret_len);
const uint8_t *cursor_bytes(struct cursor *cursor, size_t len);

#endif
