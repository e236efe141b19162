/*
 * s3_xml.c - replies as stores send them, and as nobody should.
 */
#include "backends/s3_xml.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DECLARATION "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

static int parse(const char *text, enum s3_listing_kind kind, struct s3_listing *listing, struct err *err)
{
	*err = (struct err){0};
	return s3_xml_listing(text, strlen(text), kind, listing, err);
}

static void expect_corrupt(const char *text, enum s3_listing_kind kind)
{
	struct s3_listing listing;
	struct err err;
	cr_assert_lt(parse(text, kind, &listing, &err), 0, "%.200s", text);
	cr_assert_eq(err.kind, ERR_CORRUPT, "%s: %.200s", err_kind_name(err.kind), text);
}

Test(s3_xml, lists_objects_and_prefixes_in_key_order)
{
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(parse(DECLARATION
			   "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
			   "<Contents><Key>a%2Bb+c</Key><LastModified>2026-11-21T10:00:00.250Z</LastModified>"
			   "<ETag>&quot;e1&quot;</ETag><Size>5</Size><Owner><ID>x</ID></Owner>"
			   "<StorageClass>STANDARD</StorageClass></Contents>"
			   "<Contents><Key>z</Key><Size>0</Size><ETag>e2</ETag><StorageClass>GLACIER</StorageClass></"
			   "Contents>"
			   "<CommonPrefixes><Prefix>m%2F</Prefix></CommonPrefixes>"
			   "<IsTruncated>true</IsTruncated><NextContinuationToken>a+b/%41==</NextContinuationToken>"
			   "<EncodingType>url</EncodingType></ListBucketResult>",
			   S3_LIST_OBJECTS, &listing, &err),
		     0, "%s", err.message);
	cr_assert_eq(listing.count, 3);
	cr_assert_str_eq(listing.entries[0].key, "a+b c");
	cr_assert_str_eq(listing.entries[0].etag, "e1");
	cr_assert_eq(listing.entries[0].size, 5);
	cr_assert_eq(listing.entries[0].modified_ns, INT64_C(1795255200250000000));
	cr_assert_null(listing.entries[0].storage_class);
	cr_assert_str_eq(listing.entries[1].key, "m/");
	cr_assert_eq(listing.entries[1].flags, OBJECT_PREFIX);
	cr_assert_str_eq(listing.entries[2].storage_class, "GLACIER");
	cr_assert(listing.truncated);
	cr_assert_str_eq(listing.next, "a+b/%41==", "the token is opaque");
	s3_listing_clear(&listing);
}

Test(s3_xml, lists_versions_with_markers_and_hands_the_key_marker_back_verbatim)
{
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(parse("<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
			   "<NextKeyMarker>k%5Bminio_cache:v2,return:%5D</NextKeyMarker>"
			   "<NextVersionIdMarker>null</NextVersionIdMarker>"
			   "<DeleteMarker><Key>k</Key><VersionId>3</VersionId><IsLatest>true</IsLatest></DeleteMarker>"
			   "<Version><Key>k</Key><VersionId>null</VersionId><IsLatest>false</IsLatest><Size>1</Size>"
			   "<ETag>\"e\"</ETag></Version></ListVersionsResult>",
			   S3_LIST_VERSIONS, &listing, &err),
		     0, "%s", err.message);
	cr_assert_eq(listing.count, 2);
	cr_assert_eq(listing.entries[0].flags, OBJECT_DELETE_MARKER | OBJECT_LATEST);
	cr_assert_null(listing.entries[0].etag);
	cr_assert_str_eq(listing.entries[1].native_id, "null");
	cr_assert_str_eq(listing.next, "k[minio_cache:v2,return:]");
	cr_assert_str_eq(listing.next_version, "null");
	s3_listing_clear(&listing);
}

#define VERSION(key, id, latest, day)                                                                                  \
	"<Version><Key>" key "</Key><VersionId>" id "</VersionId><IsLatest>" latest                                    \
	"</IsLatest><LastModified>2026-01-0" day "T00:00:00Z</LastModified></Version>"
#define MARKER(key, id, latest, day)                                                                                   \
	"<DeleteMarker><Key>" key "</Key><VersionId>" id "</VersionId><IsLatest>" latest                               \
	"</IsLatest><LastModified>2026-01-0" day "T00:00:00Z</LastModified></DeleteMarker>"

/* MinIO's way of telling metadata. What is not in the element was not told; what is there and is none is no matter. */
Test(s3_xml, lists_metadata_where_it_is_told)
{
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(
		parse("<ListVersionsResult><IsTruncated>false</IsTruncated>"
		      "<Version><Key>a</Key><VersionId>1</VersionId><UserMetadata><content-type>x/y</content-type>"
		      "<X-Amz-Meta-Varve-Id>id &amp; more</X-Amz-Meta-Varve-Id><X-Amz-Meta-Mode>33188</X-Amz-Meta-Mode>"
		      "</UserMetadata><Internal><K>1</K></Internal></Version>"
		      "<Version><Key>b</Key><VersionId>1</VersionId><UserMetadata/></Version>"
		      "<Version><Key>c</Key><VersionId>1</VersionId></Version></ListVersionsResult>",
		      S3_LIST_VERSIONS, &listing, &err),
		0, "%s", err.message);
	cr_assert_eq(listing.count, 3);
	cr_assert(listing.entries[0].flags & OBJECT_META);
	cr_assert_eq(listing.entries[0].meta.count, 2);
	cr_assert_str_eq(meta_get(&listing.entries[0].meta, "varve-id"), "id & more");
	cr_assert_str_eq(meta_get(&listing.entries[0].meta, "mode"), "33188");
	cr_assert_str_eq(listing.entries[0].content_type, "x/y");
	cr_assert(listing.entries[1].flags & OBJECT_META);
	cr_assert_eq(listing.entries[1].meta.count, 0);
	cr_assert_null(listing.entries[1].content_type);
	cr_assert(!(listing.entries[2].flags & OBJECT_META));
	s3_listing_clear(&listing);
	expect_corrupt("<ListBucketResult><Contents><Key>a</Key><UserMetadata><X-Amz-Meta-a+b>x</X-Amz-Meta-a+b>"
		       "</UserMetadata></Contents></ListBucketResult>",
		       S3_LIST_OBJECTS);
}

Test(s3_xml, versions_and_markers_in_separate_lists_are_merged)
{
	static const char *const expected[] = {"a2", "a1", "b3", "b2", "b1"};
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(parse("<ListVersionsResult>" VERSION("a", "a2", "true", "2") VERSION("a", "a1", "false", "1")
				   VERSION("b", "b1", "false", "1") MARKER("b", "b2", "false", "2")
					   MARKER("b", "b3", "true", "3") "</ListVersionsResult>",
			   S3_LIST_VERSIONS, &listing, &err),
		     0, "%s", err.message);
	cr_assert_eq(listing.count, 5);
	for (size_t i = 0; i < 5; i++)
		cr_assert_str_eq(listing.entries[i].native_id, expected[i]);
	s3_listing_clear(&listing);
}

Test(s3_xml, order_of_the_store_outranks_times)
{
	/* The newer version is a multipart upload that began before the older one. */
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(parse("<ListVersionsResult>" VERSION("a", "newer", "true", "1") VERSION("a", "older", "false", "5")
				   VERSION("b", "b1", "true", "1") "</ListVersionsResult>",
			   S3_LIST_VERSIONS, &listing, &err),
		     0);
	cr_assert_str_eq(listing.entries[0].native_id, "newer");
	s3_listing_clear(&listing);
}

Test(s3_xml, refuses_what_cannot_be)
{
	static const char *const bad[] = {
		"",
		"   ",
		"hello",
		"<ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key></Contents>",
		"<ListBucketResult></ListBucketResult><x/>",
		"<ListBucketResult/>garbage",
		"<html><body>proxy error</body></html>",
		"<ListBucketResult><Contents><Size>5</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key></Key></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>9223372036854775808</Size></Contents></"
		"ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999999</Size></Contents></"
		"ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>1e3</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><LastModified>yesterday</LastModified></Contents></"
		"ListBucketResult>",
		"<ListBucketResult><Contents><Key>%zz</Key></Contents><EncodingType>url</EncodingType></"
		"ListBucketResult>",
		"<ListBucketResult><Contents><Key>%00</Key></Contents><EncodingType>url</EncodingType></"
		"ListBucketResult>",
		"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
		"<!DOCTYPE ListBucketResult><ListBucketResult/>",
		"<!DOCTYPE l [<!ENTITY a "
		"\"aaaaaaaaaa\">]><ListBucketResult><Contents><Key>&a;</Key></Contents></ListBucketResult>",
		"<!DOCTYPE l SYSTEM \"file:///etc/passwd\"><ListBucketResult/>",
		"<ListBucketResult><Contents><Key>&undefined;</Key></Contents></ListBucketResult>",
		"<ListBucketResult><a><a><a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a></a></a></"
		"a></a></ListBucketResult>",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_corrupt(bad[i], S3_LIST_OBJECTS);
	expect_corrupt("<ListVersionsResult><Version><Key>a</Key></Version></ListVersionsResult>", S3_LIST_VERSIONS);
}

Test(s3_xml, every_truncation_is_refused)
{
	static const char whole[] =
		DECLARATION "<ListBucketResult><Contents><Key>a&amp;b</Key><Size>5</Size></Contents>"
			    "<IsTruncated>false</IsTruncated></ListBucketResult>";
	struct s3_listing listing;
	struct err err;
	cr_assert_eq(parse(whole, S3_LIST_OBJECTS, &listing, &err), 0);
	cr_assert_str_eq(listing.entries[0].key, "a&b");
	s3_listing_clear(&listing);
	for (size_t len = 0; len + 1 < sizeof(whole); len++) {
		char *copy = malloc(len ? len : 1); /* exactly so long: a read beyond is seen by the sanitizer */
		cr_assert_not_null(copy);
		memcpy(copy, whole, len);
		cr_assert_lt(s3_xml_listing(copy, len, S3_LIST_OBJECTS, &listing, &err), 0, "%zu bytes", len);
		free(copy);
	}
}

Test(s3_xml, refuses_the_giant)
{
	size_t len = S3_XML_MAX + 1;
	char *text = malloc(len);
	struct s3_listing listing;
	struct err err;
	cr_assert_not_null(text);
	memset(text, '<', len);
	cr_assert_lt(s3_xml_listing(text, len, S3_LIST_OBJECTS, &listing, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_not_null(strstr(err.message, "over"));
	free(text);
}

Test(s3_xml, tells_errors_from_results)
{
	static const char error[] = DECLARATION "<Error><Code>NoSuchKey</Code><Message>not\nhere</Message>"
						"<Region>eu-west-1</Region></Error>";
	static const char result[] = "  \n" DECLARATION "<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>";
	struct s3_error parsed;
	cr_assert_eq(s3_xml_error(error, strlen(error), &parsed, NULL), 0);
	cr_assert_str_eq(parsed.code, "NoSuchKey");
	cr_assert_str_eq(parsed.message, "not here", "messages are one line");
	cr_assert_str_eq(parsed.region, "eu-west-1");
	cr_assert_eq(s3_xml_error(result, strlen(result), &parsed, NULL), -ENOENT);
	cr_assert_lt(s3_xml_error("<Error><Code>", 13, &parsed, NULL), 0);
}

Test(s3_xml, leaves_take_only_their_own_root)
{
	static const char text[] = "<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>u&lt;1</UploadId>"
				   "<Deep><UploadId>no</UploadId></Deep></InitiateMultipartUploadResult>";
	struct s3_xml_leaf leaves[] = {{.name = "UploadId"}, {.name = "Absent"}};
	cr_assert_eq(s3_xml_leaves(text, strlen(text), "InitiateMultipartUploadResult", leaves, 2, NULL), 0);
	cr_assert_str_eq(leaves[0].value, "u<1");
	cr_assert_null(leaves[1].value);
	s3_xml_leaves_clear(leaves, 2);
	struct err err;
	cr_assert_lt(s3_xml_leaves(text, strlen(text), "CopyPartResult", leaves, 2, &err), 0);
	cr_assert_eq(err.kind, ERR_CORRUPT);
	cr_assert_null(leaves[0].value);
}

Test(s3_xml, completion_names_parts_and_escapes_etags)
{
	const struct upload_part parts[] = {
		{.number = 1, .etag = (char *)"a<&\"", .crc32c = 0x01020304, .has_crc32c = true},
		{.number = 2, .etag = (char *)"b"},
	};
	struct buf body = BUF_INIT;
	s3_xml_complete_upload(&body, parts, 2, S3_XML_CHECKSUMS);
	cr_assert_not_null(strstr(body.data, "<PartNumber>1</PartNumber><ETag>&quot;a&lt;&amp;&quot;&quot;</ETag>"
					     "<ChecksumCRC32C>AQIDBA==</ChecksumCRC32C></Part>"));
	cr_assert_not_null(strstr(body.data, "<PartNumber>2</PartNumber><ETag>&quot;b&quot;</ETag></Part>"));
	buf_reset(&body);
	s3_xml_complete_upload(&body, parts, 2, S3_XML_NO_CHECKSUMS);
	cr_assert_null(strstr(body.data, "Checksum"));
	buf_free(&body);
}
