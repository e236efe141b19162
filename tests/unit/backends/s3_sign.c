/*
 * s3_sign.c - signatures against the vectors AWS publishes.
 */
#include "backends/s3_sign.h"

#include <criterion/criterion.h>
#include <string.h>

#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define S3_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void expect_signature(const struct s3_sign_request *request, const char *access, const char *secret,
			     const char *signature)
{
	uint8_t key[SHA256_SIZE];
	struct buf value = BUF_INIT;
	s3_sign_derive(secret, request, key);
	cr_assert_eq(s3_sign_authorization(request, access, key, &value), 0);
	const char *found = strstr(value.data, "Signature=");
	cr_assert_not_null(found);
	cr_assert_str_eq(found + strlen("Signature="), signature);
	buf_free(&value);
}

static struct s3_sign_request s3_example(const struct http_fields *headers)
{
	return (struct s3_sign_request){.method = "GET",
					.path = "/",
					.query = "",
					.headers = headers,
					.payload = EMPTY,
					.date = "20130524T000000Z",
					.region = "us-east-1",
					.service = "s3"};
}

static void add_example_headers(struct http_fields *headers)
{
	http_fields_add(headers, "Host", "examplebucket.s3.amazonaws.com");
	http_fields_add(headers, "x-amz-date", "20130524T000000Z");
}

Test(s3_sign, derives_the_published_key)
{
	const struct s3_sign_request request = {.date = "20150830T000000Z", .region = "us-east-1", .service = "iam"};
	uint8_t key[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];
	s3_sign_derive(SECRET, &request, key);
	hex_encode(key, sizeof(key), hex);
	cr_assert_str_eq(hex, "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
}

Test(s3_sign, get_vanilla)
{
	struct http_fields headers = {0};
	http_fields_add(&headers, "Host", "example.amazonaws.com");
	http_fields_add(&headers, "X-Amz-Date", "20150830T123600Z");
	const struct s3_sign_request request = {.method = "GET",
						.path = "/",
						.query = "",
						.headers = &headers,
						.payload = EMPTY,
						.date = "20150830T123600Z",
						.region = "us-east-1",
						.service = "service"};
	expect_signature(&request, "AKIDEXAMPLE", SECRET,
			 "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	http_fields_clear(&headers);
}

Test(s3_sign, s3_get_object)
{
	struct http_fields headers = {0};
	add_example_headers(&headers);
	http_fields_add(&headers, "Range", "bytes=0-9");
	http_fields_add(&headers, "x-amz-content-sha256", EMPTY);
	struct s3_sign_request request = s3_example(&headers);
	request.path = "/test.txt";
	expect_signature(&request, "AKIAIOSFODNN7EXAMPLE", S3_SECRET,
			 "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	http_fields_clear(&headers);
}

Test(s3_sign, s3_put_object)
{
	static const char payload[] = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	struct http_fields headers = {0};
	add_example_headers(&headers);
	http_fields_add(&headers, "Date", "Fri, 24 May 2013 00:00:00 GMT");
	http_fields_add(&headers, "x-amz-storage-class", "REDUCED_REDUNDANCY");
	http_fields_add(&headers, "x-amz-content-sha256", payload);
	struct s3_sign_request request = s3_example(&headers);
	request.method = "PUT";
	request.path = "/test%24file.text";
	request.payload = payload;
	expect_signature(&request, "AKIAIOSFODNN7EXAMPLE", S3_SECRET,
			 "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	http_fields_clear(&headers);
}

Test(s3_sign, s3_queries)
{
	struct http_fields headers = {0};
	add_example_headers(&headers);
	http_fields_add(&headers, "x-amz-content-sha256", EMPTY);
	struct s3_sign_request request = s3_example(&headers);
	request.query = "lifecycle=";
	expect_signature(&request, "AKIAIOSFODNN7EXAMPLE", S3_SECRET,
			 "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	request.query = "max-keys=2&prefix=J";
	expect_signature(&request, "AKIAIOSFODNN7EXAMPLE", S3_SECRET,
			 "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
	http_fields_clear(&headers);
}

Test(s3_sign, header_values_are_folded_and_names_sorted)
{
	struct http_fields headers = {0};
	struct buf canonical = BUF_INIT, names = BUF_INIT;
	http_fields_add(&headers, "My-Header2", "  \"a   b   c\" ");
	http_fields_add(&headers, "Host", "h");
	http_fields_add(&headers, "My-Header1", "");
	struct s3_sign_request request = s3_example(&headers);
	cr_assert_eq(s3_sign_canonical(&request, &canonical, &names), 0);
	cr_assert_str_eq(names.data, "host;my-header1;my-header2");
	cr_assert_str_eq(canonical.data, "GET\n/\n\nhost:h\nmy-header1:\nmy-header2:\"a b c\"\n\n"
					 "host;my-header1;my-header2\n" EMPTY);
	buf_free(&canonical);
	buf_free(&names);
	http_fields_clear(&headers);
}

Test(s3_sign, cached_key_follows_day_region_and_secret)
{
	struct s3_sign_cache cache;
	uint8_t key[SHA256_SIZE], expected[SHA256_SIZE];
	s3_sign_cache_init(&cache);
	struct s3_sign_request request = {.date = "20150830T123600Z", .region = "us-east-1", .service = "s3"};
	const struct {
		const char *date, *region, *secret;
	} steps[] = {
		{"20150830T123600Z", "us-east-1", "a"}, {"20150830T235959Z", "us-east-1", "a"},
		{"20150831T000000Z", "us-east-1", "a"}, {"20150831T000000Z", "eu-west-1", "a"},
		{"20150831T000000Z", "eu-west-1", "b"},
	};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		request.date = steps[i].date;
		request.region = steps[i].region;
		s3_sign_cache_key(&cache, steps[i].secret, &request, key);
		s3_sign_derive(steps[i].secret, &request, expected);
		cr_assert_arr_eq(key, expected, sizeof(key), "step %zu", i);
	}
	s3_sign_cache_clear(&cache);
}

Test(s3_sign, dates_are_utc)
{
	char date[S3_DATE_SIZE];
	s3_sign_date(INT64_C(1440938160) * 1000000000, date);
	cr_assert_str_eq(date, "20150830T123600Z");
}
