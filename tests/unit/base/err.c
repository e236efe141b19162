/* Unit tests of base/err.c. */
#include "err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(err, set_fills_everything_and_returns_the_errno)
{
	struct err err = {.kind = ERR_QUOTA, .http_status = 500, .retry_after_ms = 7, .message = "old"};

	cr_assert_eq(err_set(&err, ERR_NOT_FOUND, "no object %s of %d", "k", 3), -ENOENT);
	cr_assert_eq(err.kind, ERR_NOT_FOUND);
	cr_assert_eq(err.http_status, 0);
	cr_assert_eq(err.retry_after_ms, 0);
	cr_assert_str_eq(err.message, "no object k of 3");
}

Test(err, a_null_err_is_only_an_errno)
{
	cr_assert_eq(err_set(NULL, ERR_QUOTA, "x"), -ENOSPC);
	cr_assert_eq(err_from_errno(NULL, ENOTDIR, "x"), -ENOTDIR);
}

Test(err, an_argument_may_be_the_old_message)
{
	struct err err;

	err_set(&err, ERR_DENIED, "inner");
	err_set(&err, ERR_CONFLICT, "outer (%s)", err.message);
	cr_assert_str_eq(err.message, "outer (inner)");
}

Test(err, from_errno_picks_the_kind_and_keeps_the_errno)
{
	static const struct {
		int errnum;
		enum err_kind kind;
	} cases[] = {
		{ENOENT, ERR_NOT_FOUND},     {ENOTDIR, ERR_NOT_FOUND},   {EEXIST, ERR_CONFLICT},
		{EISDIR, ERR_CONFLICT},      {EACCES, ERR_DENIED},       {EROFS, ERR_DENIED},
		{ENOSPC, ERR_QUOTA},         {EDQUOT, ERR_QUOTA},        {ENOMEM, ERR_NO_MEMORY},
		{EINTR, ERR_CANCELLED},      {ETIMEDOUT, ERR_TIMED_OUT}, {ECONNREFUSED, ERR_UNAVAILABLE},
		{EFBIG, ERR_TOO_LARGE},      {EBADMSG, ERR_CORRUPT},     {EOPNOTSUPP, ERR_UNSUPPORTED},
		{EINVAL, ERR_CONFIGURATION}, {EIO, ERR_INTERNAL},        {EBADF, ERR_INTERNAL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err;

		cr_assert_eq(err_from_errno(&err, cases[i].errnum, "open %s", "f"), -cases[i].errnum);
		cr_assert_eq(err.kind, cases[i].kind, "errno %d gives %s", cases[i].errnum, err_kind_name(err.kind));
	}
}

Test(err, from_errno_says_the_reason)
{
	struct err err;

	err_from_errno(&err, ENOENT, "open %s", "f");
	cr_assert_str_eq(err.message, "open f: No such file or directory");
}

Test(err, wrap_puts_context_first_and_keeps_the_rest)
{
	struct err err;

	err_set(&err, ERR_THROTTLED, "slow down");
	err.http_status = 503;
	err.retry_after_ms = 1500;
	cr_assert_eq(err_wrap(&err, "upload of %s", "a/b"), -EIO);
	cr_assert_str_eq(err.message, "upload of a/b: slow down");
	cr_assert_eq(err.kind, ERR_THROTTLED);
	cr_assert_eq(err.http_status, 503);
	cr_assert_eq(err.retry_after_ms, 1500);
}

Test(err, a_message_is_one_printable_line)
{
	struct err err;

	err_set(&err, ERR_INTERNAL, "a\nb\r\033[31mc\x7f");
	cr_assert_str_eq(err.message, "a b  [31mc ");
}

Test(err, a_long_message_is_cut_between_characters)
{
	struct err err;
	char text[400];

	/* 'x' and then two-byte characters: byte 255 is in the middle of one. */
	text[0] = 'x';
	for (size_t i = 1; i + 2 < sizeof(text); i += 2)
		memcpy(text + i, "\xc3\xa9", 2);
	text[399] = '\0';
	text[398] = '\0';
	text[397] = '\0';
	for (size_t shift = 0; shift < 2; shift++) {
		size_t len;

		err_set(&err, ERR_INTERNAL, "%s", text + shift);
		len = strlen(err.message);
		cr_assert_geq(len, 252);
		cr_assert_eq((unsigned char)err.message[len - 1], 0xa9);
		cr_assert_eq((unsigned char)err.message[len - 2], 0xc3);
	}
}

Test(err, wrapping_again_and_again_stays_within_the_message)
{
	struct err err;

	err_set(&err, ERR_INTERNAL, "core");
	for (int i = 0; i < 100; i++)
		err_wrap(&err, "layer %d", i);
	cr_assert_eq(strlen(err.message), sizeof(err.message) - 1);
	cr_assert_eq(strncmp(err.message, "layer 99: layer 98: ", 20), 0);
}

Test(err, every_kind_has_a_name_and_an_errno)
{
	for (int kind = ERR_NONE; kind <= ERR_INTERNAL; kind++) {
		cr_assert_not_null(err_kind_name(kind));
		cr_assert_eq(err_errno(kind) == 0, kind == ERR_NONE);
		cr_assert_not(err_is_transient(kind) && err_is_permanent(kind));
		for (int other = ERR_NONE; other < kind; other++)
			cr_assert_str_neq(err_kind_name(kind), err_kind_name(other));
	}
}

Test(err, kinds_divide_into_transient_permanent_and_neither)
{
	static const enum err_kind transient[] = {ERR_THROTTLED, ERR_UNAVAILABLE, ERR_TIMED_OUT, ERR_INDETERMINATE,
						  ERR_CORRUPT};
	static const enum err_kind permanent[] = {ERR_DENIED, ERR_QUOTA, ERR_CONFIGURATION, ERR_UNSUPPORTED,
						  ERR_TOO_LARGE};
	int count = 0;

	for (size_t i = 0; i < 5; i++) {
		cr_assert(err_is_transient(transient[i]));
		cr_assert(err_is_permanent(permanent[i]));
	}
	for (int kind = ERR_NONE; kind <= ERR_INTERNAL; kind++)
		count += err_is_transient(kind) + err_is_permanent(kind);
	cr_assert_eq(count, 10);
}
