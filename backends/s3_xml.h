/*
 * s3_xml.h - the XML that S3 speaks: replies to structures, structures to requests.
 *
 * Pure functions on bytes from strangers. Whatever is malformed, truncated,
 * carries a DTD, is too deep or holds a number that cannot be is ERR_CORRUPT.
 */
#ifndef VARVE_S3_XML_H
#define VARVE_S3_XML_H

#include "buf.h"
#include "varve/backend.h"

#define S3_XML_MAX (16 * 1024 * 1024) /* bytes of one reply */

/* <Error>. Fields are cut to fit and "" when absent. */
struct s3_error {
	char code[64];
	char message[192];
	char region[64];
};
/* 0; -ENOENT when the document is no <Error>; ERR_CORRUPT's errno when it is no document. err may be NULL. */
int s3_xml_error(const void *bytes, size_t len, struct s3_error *ret_error, struct err *err);

/* Text of leaf elements right below the root. */
struct s3_xml_leaf {
	const char *name;
	char *value; /* malloc'd; NULL when the document has none */
};
int s3_xml_leaves(const void *bytes, size_t len, const char *root, struct s3_xml_leaf *leaves, size_t count,
		  struct err *err);
void s3_xml_leaves_clear(struct s3_xml_leaf *leaves, size_t count);

/* ListObjectsV2 and ListObjectVersions. Keys are decoded; entries stand in byte order of keys, newest first within. */
struct s3_listing {
	struct object_info *entries;
	size_t count;
	bool truncated;
	char *next;         /* NextContinuationToken, or NextKeyMarker */
	char *next_version; /* NextVersionIdMarker */
};
enum s3_listing_kind { S3_LIST_OBJECTS, S3_LIST_VERSIONS };
int s3_xml_listing(const void *bytes, size_t len, enum s3_listing_kind kind, struct s3_listing *ret_listing,
		   struct err *err);
void s3_listing_clear(struct s3_listing *listing);

/* Bodies of requests. */
enum s3_xml_checksums { S3_XML_NO_CHECKSUMS, S3_XML_CHECKSUMS };
void s3_xml_complete_upload(struct buf *out, const struct upload_part *parts, size_t count,
			    enum s3_xml_checksums checksums);
void s3_xml_create_bucket(struct buf *out, const char *region);
void s3_xml_legal_hold(struct buf *out, bool hold);
/* `until` in RFC 3339. */
void s3_xml_retention(struct buf *out, const char *until, bool compliance);
void s3_xml_enable_versioning(struct buf *out);

#endif
