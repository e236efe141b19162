/* Unit tests of base/buf.c. */
#include "buf.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

Test(buf, an_empty_one_is_an_empty_string)
{
	struct buf a = BUF_INIT;
	struct buf b;

	buf_init(&b);
	cr_assert_str_eq(a.data, "");
	cr_assert_str_eq(b.data, "");
	buf_reset(&a);
	buf_free(&a);
	buf_free(&a);
	cr_assert_str_eq(a.data, "");
}

Test(buf, is_a_string_after_every_append)
{
	AUTO_BUF buf = BUF_INIT;

	for (size_t i = 0; i < 1000; i++) {
		buf_addc(&buf, 'x');
		cr_assert_eq(buf.len, i + 1);
		cr_assert_lt(buf.len, buf.cap);
		cr_assert_eq(strlen(buf.data), i + 1);
	}
	buf_reset(&buf);
	cr_assert_str_eq(buf.data, "");
	buf_adds(&buf, "ab");
	buf_add(&buf, "\0c", 2);
	buf_addf(&buf, "%s-%d", "de", 42);
	cr_assert_eq(buf.len, 9);
	cr_assert_arr_eq(buf.data, "ab\0cde-42", 10);
	cr_assert_not(buf_failed(&buf));
}

Test(buf, a_format_longer_than_the_room_fits)
{
	AUTO_BUF buf = BUF_INIT;
	char text[5000];

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	buf_addf(&buf, "[%s]", text);
	cr_assert_eq(buf.len, sizeof(text) + 1);
	cr_assert_eq(buf.data[0], '[');
	cr_assert_eq(buf.data[buf.len - 1], ']');
}

Test(buf, failure_is_sticky_and_keeps_what_was_there)
{
	AUTO_BUF buf = BUF_INIT;

	buf_adds(&buf, "kept");
	cr_assert_eq(buf_reserve(&buf, SIZE_MAX), -ENOMEM);
	cr_assert(buf_failed(&buf));
	buf_adds(&buf, "more");
	buf_addf(&buf, "%d", 1);
	buf_add_u64(&buf, 1);
	cr_assert_str_eq(buf.data, "kept");
	cr_assert_null(buf_detach(&buf));
	cr_assert_not(buf_failed(&buf));
	cr_assert_str_eq(buf.data, "");
}

Test(buf, reset_forgets_a_failure)
{
	AUTO_BUF buf = BUF_INIT;

	(void)buf_reserve(&buf, SIZE_MAX / 2);
	cr_assert(buf_failed(&buf));
	buf_reset(&buf);
	cr_assert_eq(buf_reserve(&buf, SIZE_MAX - 10), -ENOMEM, "no power of two is that large");
	buf_reset(&buf);
	buf_adds(&buf, "again");
	cr_assert_not(buf_failed(&buf));
	cr_assert_str_eq(buf.data, "again");
}

Test(buf, detach_gives_the_heap_string_away)
{
	struct buf buf = BUF_INIT;
	AUTO_FREE char *empty = buf_detach(&buf);
	AUTO_FREE char *text = NULL;

	cr_assert_str_eq(empty, "");
	buf_adds(&buf, "text");
	text = buf_detach(&buf);
	cr_assert_str_eq(text, "text");
	cr_assert_str_eq(buf.data, "");
	cr_assert_eq(buf.cap, 0);
}

Test(buf, integers_are_big_endian_and_sort_as_numbers)
{
	AUTO_BUF buf = BUF_INIT;
	AUTO_BUF bigger = BUF_INIT;
	static const uint8_t expected[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
					   0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f};

	buf_add_u8(&buf, 0x01);
	buf_add_u16(&buf, 0x0203);
	buf_add_u32(&buf, 0x04050607);
	buf_add_u64(&buf, UINT64_C(0x08090a0b0c0d0e0f));
	cr_assert_eq(buf.len, sizeof(expected));
	cr_assert_arr_eq(buf.data, expected, sizeof(expected));
	buf_reset(&buf);
	buf_add_u64(&buf, 255);
	buf_add_u64(&bigger, 256);
	cr_assert_lt(memcmp(buf.data, bigger.data, 8), 0);
}

Test(cursor, reads_back_what_was_written)
{
	AUTO_BUF buf = BUF_INIT;
	struct cursor cursor;
	const uint8_t *blob;
	size_t len;

	buf_add_u8(&buf, UINT8_MAX);
	buf_add_u16(&buf, UINT16_MAX - 1);
	buf_add_u32(&buf, UINT32_MAX - 2);
	buf_add_u64(&buf, UINT64_MAX - 3);
	buf_add_blob(&buf, "a\0b", 3);
	buf_add_blob(&buf, "", 0);
	buf_adds(&buf, "raw");
	cursor = cursor_of(buf.data, buf.len);
	cr_assert_eq(cursor_u8(&cursor), UINT8_MAX);
	cr_assert_eq(cursor_u16(&cursor), UINT16_MAX - 1);
	cr_assert_eq(cursor_u32(&cursor), UINT32_MAX - 2);
	cr_assert_eq(cursor_u64(&cursor), UINT64_MAX - 3);
	blob = cursor_blob(&cursor, &len);
	cr_assert_eq(len, 3);
	cr_assert_arr_eq(blob, "a\0b", 3);
	cr_assert_not_null(cursor_blob(&cursor, &len));
	cr_assert_eq(len, 0);
	cr_assert_arr_eq(cursor_bytes(&cursor, 3), "raw", 3);
	cr_assert_not(cursor.failed);
	cr_assert_eq(cursor.at, cursor.end);
}

Test(cursor, past_the_end_it_yields_zeros_and_stays_failed)
{
	static const uint8_t bytes[] = {1, 2, 3};
	struct cursor cursor = cursor_of(bytes, sizeof(bytes));
	size_t len = 99;

	cr_assert_eq(cursor_u32(&cursor), 0);
	cr_assert(cursor.failed);
	cr_assert_eq(cursor_u8(&cursor), 0);
	cr_assert_null(cursor_bytes(&cursor, 0));
	cr_assert_null(cursor_blob(&cursor, &len));
	cr_assert_eq(len, 0);
}

Test(cursor, a_blob_longer_than_the_bytes_fails)
{
	static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0xff, 'x'};
	struct cursor cursor = cursor_of(bytes, sizeof(bytes));
	size_t len = 99;

	cr_assert_null(cursor_blob(&cursor, &len));
	cr_assert(cursor.failed);
	cr_assert_eq(len, 0);
}
