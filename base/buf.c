/*
 * buf.c - growable byte strings and the bounds-checked reader of them.
 *
 * Invariants: data[len] == '\0'; cap == 0 exactly when data is buf_empty, else
 * len < cap. Not thread-safe; buf_empty is shared by all and never written.
 */
#include "buf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 64

char buf_empty[1];

void buf_init(struct buf *buf)
{
	*buf = (struct buf)BUF_INIT;
}

void buf_free(struct buf *buf)
{
	if (buf->cap)
		free(buf->data);
	buf_init(buf);
}

void buf_reset(struct buf *buf)
{
	buf->len = 0;
	buf->failed = false;
	if (buf->cap)
		buf->data[0] = '\0';
}

bool buf_failed(const struct buf *buf)
{
	return buf->failed;
}

int buf_reserve(struct buf *buf, size_t more)
{
	size_t cap = buf->cap ? buf->cap : FIRST_CAP;
	size_t need;
	char *data;

	if (buf->failed || __builtin_add_overflow(buf->len, more, &need) || need >= SIZE_MAX / 2)
		goto failed;
	if (need < buf->cap)
		return 0;
	while (cap <= need)
		cap *= 2;
	data = realloc(buf->cap ? buf->data : NULL, cap);
	if (!data)
		goto failed;
	data[buf->len] = '\0';
	buf->data = data;
	buf->cap = cap;
	return 0;
failed:
	buf->failed = true;
	return -ENOMEM;
}

void buf_add(struct buf *buf, const void *bytes, size_t len)
{
	if (len == 0 || buf_reserve(buf, len))
		return;
	memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void buf_adds(struct buf *buf, const char *string)
{
	buf_add(buf, string, strlen(string));
}

void buf_addc(struct buf *buf, char c)
{
	if (buf->failed || (buf->len + 1 >= buf->cap && buf_reserve(buf, 1)))
		return;
	buf->data[buf->len++] = c;
	buf->data[buf->len] = '\0';
}

void buf_addf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0) {
		buf->failed = true;
		return;
	}
	if (buf_reserve(buf, (size_t)len))
		return;
	va_start(args, format);
	(void)vsnprintf(buf->data + buf->len, (size_t)len + 1, format, args); /* measured just before */
	va_end(args);
	buf->len += (size_t)len;
}

static void add_big_endian(struct buf *buf, uint64_t value, size_t size)
{
	uint8_t bytes[sizeof(value)];

	for (size_t i = size; i-- > 0; value >>= 8)
		bytes[i] = (uint8_t)value;
	buf_add(buf, bytes, size);
}

void buf_add_u8(struct buf *buf, uint8_t value)
{
	buf_add(buf, &value, 1);
}

void buf_add_u16(struct buf *buf, uint16_t value)
{
	add_big_endian(buf, value, sizeof(value));
}

void buf_add_u32(struct buf *buf, uint32_t value)
{
	add_big_endian(buf, value, sizeof(value));
}

void buf_add_u64(struct buf *buf, uint64_t value)
{
	add_big_endian(buf, value, sizeof(value));
}

void buf_add_blob(struct buf *buf, const void *bytes, size_t len)
{
	if (len > UINT32_MAX) {
		buf->failed = true;
		return;
	}
	buf_add_u32(buf, (uint32_t)len);
	buf_add(buf, bytes, len);
}

char *buf_detach(struct buf *buf)
{
	char *data;

	if (buf->failed || (!buf->cap && buf_reserve(buf, 0))) {
		buf_free(buf);
		return NULL;
	}
	data = buf->data;
	buf_init(buf);
	return data;
}

const uint8_t *cursor_bytes(struct cursor *cursor, size_t len)
{
	const uint8_t *at = cursor->at;

	if (cursor->failed || (size_t)(cursor->end - at) < len) {
		cursor->failed = true;
		return NULL;
	}
	cursor->at += len;
	return at;
}

static uint64_t read_big_endian(struct cursor *cursor, size_t size)
{
	const uint8_t *at = cursor_bytes(cursor, size);
	uint64_t value = 0;

	if (!at)
		return 0;
	for (size_t i = 0; i < size; i++)
		value = value << 8 | at[i];
	return value;
}

uint8_t cursor_u8(struct cursor *cursor)
{
	return (uint8_t)read_big_endian(cursor, sizeof(uint8_t));
}

uint16_t cursor_u16(struct cursor *cursor)
{
	return (uint16_t)read_big_endian(cursor, sizeof(uint16_t));
}

uint32_t cursor_u32(struct cursor *cursor)
{
	return (uint32_t)read_big_endian(cursor, sizeof(uint32_t));
}

uint64_t cursor_u64(struct cursor *cursor)
{
	return read_big_endian(cursor, sizeof(uint64_t));
}

const uint8_t *cursor_blob(struct cursor *cursor, size_t *ret_len)
{
	uint32_t len = cursor_u32(cursor);
	const uint8_t *at = cursor_bytes(cursor, len);

	*ret_len = at ? len : 0; /* like the integers: zero once failed, so that a caller may check late */
	return at;
}
