/*
 * s3_reply.c - codes to kinds, headers to objects, metadata there and back.
 */
#include "backends/s3_reply.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct http_reply reply_of(int status, const char *code)
{
	struct http_reply reply = {.status = status, .body = BUF_INIT};
	if (code)
		buf_addf(&reply.body, "<Error><Code>%s</Code><Message>m</Message></Error>", code);
	return reply;
}

Test(s3_reply, codes_and_statuses_have_kinds)
{
	static const struct {
		int status;
		const char *code;
		enum s3_intent intent;
		enum err_kind kind;
	} cases[] = {
		{404, "NoSuchKey", S3_READS, ERR_NOT_FOUND},
		{404, NULL, S3_READS, ERR_NOT_FOUND},
		{403, "AccessDenied", S3_READS, ERR_DENIED},
		{403, "SignatureDoesNotMatch", S3_CHANGES, ERR_DENIED},
		{403, "InvalidAccessKeyId", S3_READS, ERR_DENIED},
		{403, "InvalidObjectState", S3_READS, ERR_ARCHIVED},
		{503, "SlowDown", S3_CHANGES, ERR_THROTTLED},
		{503, NULL, S3_CHANGES, ERR_THROTTLED},
		{429, NULL, S3_READS, ERR_THROTTLED},
		{500, "InternalError", S3_READS, ERR_UNAVAILABLE},
		{500, "InternalError", S3_CHANGES, ERR_INDETERMINATE},
		{502, NULL, S3_READS, ERR_UNAVAILABLE},
		{504, NULL, S3_CHANGES, ERR_INDETERMINATE},
		{412, "PreconditionFailed", S3_CHANGES, ERR_PRECONDITION},
		{409, "ConditionalRequestConflict", S3_CHANGES, ERR_UNAVAILABLE},
		{409, "BucketNotEmpty", S3_CHANGES, ERR_CONFLICT},
		{400, "EntityTooLarge", S3_CHANGES, ERR_TOO_LARGE},
		{400, "BadDigest", S3_CHANGES, ERR_CORRUPT},
		{400, "XAmzContentChecksumMismatch", S3_CHANGES, ERR_CORRUPT},
		{403, "QuotaExceeded", S3_CHANGES, ERR_QUOTA},
		{507, "XMinioStorageFull", S3_CHANGES, ERR_QUOTA},
		{400, "RequestTimeout", S3_CHANGES, ERR_UNAVAILABLE},
		{501, "NotImplemented", S3_CHANGES, ERR_UNSUPPORTED},
		{301, NULL, S3_READS, ERR_CONFIGURATION},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct http_reply reply = reply_of(cases[i].status, cases[i].code);
		struct s3_error error;
		struct err err = {0};
		reply.retry_after_ms = 1234;
		cr_assert_lt(s3_reply_check(&reply, cases[i].intent, &error, &err), 0);
		cr_assert_eq(err.kind, cases[i].kind, "%d %s: %s", cases[i].status, cases[i].code ? cases[i].code : "-",
			     err_kind_name(err.kind));
		cr_assert_eq(err.http_status, cases[i].status);
		cr_assert_eq(err.retry_after_ms, 1234);
		http_reply_clear(&reply);
	}
}

Test(s3_reply, delete_markers_are_not_found)
{
	struct http_reply reply = reply_of(405, "MethodNotAllowed");
	struct s3_error error;
	struct err err = {0};
	cr_assert_lt(s3_reply_check(&reply, S3_READS, &error, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	http_fields_add(&reply.headers, "X-Amz-Delete-Marker", "true");
	cr_assert_lt(s3_reply_check(&reply, S3_READS, &error, &err), 0);
	cr_assert_eq(err.kind, ERR_NOT_FOUND);
	http_reply_clear(&reply);
}

Test(s3_reply, a_200_may_hold_an_error)
{
	static const struct {
		const char *code;
		enum err_kind kind;
	} cases[] = {{"SlowDown", ERR_THROTTLED}, {"InternalError", ERR_INDETERMINATE}, {"NoSuchKey", ERR_NOT_FOUND}};
	struct err err = {0};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct http_reply reply = reply_of(200, cases[i].code);
		cr_assert_lt(s3_reply_check_late(&reply, &err), 0);
		cr_assert_eq(err.kind, cases[i].kind);
		http_reply_clear(&reply);
	}
	struct http_reply empty = reply_of(200, NULL);
	cr_assert_lt(s3_reply_check_late(&empty, &err), 0);
	cr_assert_eq(err.kind, ERR_INDETERMINATE, "nothing was said: it may have been done");
	buf_adds(&empty.body, "<CopyObjectResult/>");
	cr_assert_eq(s3_reply_check_late(&empty, &err), 0);
	http_reply_clear(&empty);
}

Test(s3_reply, headers_make_an_object)
{
	struct http_reply reply = {.status = 200, .body = BUF_INIT};
	struct object_info info;
	struct err err;
	http_fields_add(&reply.headers, "ETag", "\"abc\"");
	http_fields_add(&reply.headers, "Content-Length", "12");
	http_fields_add(&reply.headers, "Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT");
	http_fields_add(&reply.headers, "X-Amz-Version-Id", "v1");
	http_fields_add(&reply.headers, "X-Amz-Meta-Mode", "33188");
	http_fields_add(&reply.headers, "x-amz-meta-x", "%~%C3%A4%20");
	http_fields_add(&reply.headers, "x-amz-checksum-crc32c", "AQIDBA==");
	cr_assert_eq(s3_reply_info(&reply, &info, &err), 0);
	cr_assert_str_eq(info.etag, "abc");
	cr_assert_str_eq(info.native_id, "v1");
	cr_assert_eq(info.size, 12);
	cr_assert_eq(info.modified_ns, INT64_C(1795255200000000000));
	cr_assert_str_eq(meta_get(&info.meta, "mode"), "33188");
	cr_assert_str_eq(meta_get(&info.meta, "x"), "ä ");
	cr_assert_eq(info.flags & OBJECT_CRC32C, OBJECT_CRC32C);
	cr_assert_eq(info.crc32c, 0x01020304);
	object_info_clear(&info);

	reply.status = 206;
	cr_assert_lt(s3_reply_info(&reply, &info, &err), 0, "a partial reply must say of how much");
	cr_assert_eq(err.kind, ERR_CORRUPT);
	http_fields_add(&reply.headers, "Content-Range", "bytes 0-11/100");
	cr_assert_eq(s3_reply_info(&reply, &info, &err), 0);
	cr_assert_eq(info.size, 100);
	cr_assert_eq(info.flags & OBJECT_CRC32C, 0, "the checksum may be the range's");
	object_info_clear(&info);
	http_reply_clear(&reply);
}

Test(s3_reply, ranges_that_cannot_be)
{
	static const char *const bad[] = {"bytes 5-4/10",  "bytes 0-10/10", "bytes 0-9/*",
					  "bytes */10",    "bytes 0-9",     "0-9/10",
					  "bytes -1-9/10", "bytes 0-9/10x", "bytes 0-9/99999999999999999999"};
	struct s3_range range;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_lt(s3_parse_range(bad[i], &range), 0, "%s", bad[i]);
	cr_assert_eq(s3_parse_range("bytes 3-9/10", &range), 0);
	cr_assert(range.first == 3 && range.last == 9 && range.total == 10);
}

Test(s3_reply, composite_checksums_are_not_the_content_s)
{
	uint32_t crc;
	cr_assert_not(s3_parse_crc32c("AQIDBA==-3", &crc));
	cr_assert_not(s3_parse_crc32c(NULL, &crc));
	cr_assert_not(s3_parse_crc32c("AQID", &crc));
	cr_assert(s3_parse_crc32c("AQIDBA==", &crc));
}

Test(s3_reply, metadata_survives_whatever_it_is)
{
	static const char *const values[] = {"plain",
					     "with space",
					     "",
					     " lead",
					     "trail ",
					     "two  blanks",
					     "tab\tin",
					     "line\nbreak",
					     "ümlaut",
					     "%~fake",
					     "%~",
					     "%41",
					     "a+b",
					     "=?UTF-8?Q?x?=",
					     "\x01\x7f",
					     "\xff\xfe",
					     "~!@#$^&*(){}|\"<>"};
	char all[256];
	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	for (size_t i = 0; i <= sizeof(values) / sizeof(values[0]); i++) {
		const char *value = i < sizeof(values) / sizeof(values[0]) ? values[i] : all;
		struct buf encoded = BUF_INIT, decoded = BUF_INIT;
		cr_assert_eq(s3_meta_encode(&encoded, value), 0);
		cr_assert_gt(encoded.len, 0);
		for (size_t at = 0; at < encoded.len; at++)
			cr_assert(encoded.data[at] >= 0x20 && encoded.data[at] < 0x7f);
		cr_assert_eq(s3_meta_decode(&decoded, encoded.data), 0);
		cr_assert_str_eq(decoded.data, value);
		buf_free(&encoded);
		buf_free(&decoded);
	}
}

Test(s3_reply, metadata_has_a_limit_and_names_a_form)
{
	struct http_fields headers = {0};
	struct meta meta = {0};
	struct err err;
	cr_assert_eq(meta_set(&meta, "mode", "33188"), 0);
	cr_assert_eq(s3_meta_headers(&headers, &meta, 9, &err), 0);
	cr_assert_str_eq(http_fields_get(&headers, "x-amz-meta-mode"), "33188");
	cr_assert_lt(s3_meta_headers(&headers, &meta, 8, &err), 0);
	cr_assert_eq(err.kind, ERR_TOO_LARGE);
	cr_assert_eq(meta_set(&meta, "bad\r\nname", "x"), 0);
	cr_assert_lt(s3_meta_headers(&headers, &meta, 2048, &err), 0);
	cr_assert_eq(err.kind, ERR_UNSUPPORTED);
	http_fields_clear(&headers);
	meta_clear(&meta);
}
