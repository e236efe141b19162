/*
 * s3_credentials.h - who asks: access keys from the environment or the AWS configuration files.
 *
 * A `struct secret` has no printable form: it is opaque, wiped when freed, and only the signer looks inside.
 * Thread-safe.
 */
#ifndef VARVE_S3_CREDENTIALS_H
#define VARVE_S3_CREDENTIALS_H

#include <stddef.h>

#include "err.h"

struct secret;
const char *secret_reveal(const struct secret *secret); /* for signing only: never into a message, log or file */

/* One set of keys. */
struct s3_credentials {
	char *access_key; /* NULL: none were found, requests go unsigned */
	struct secret *secret;
	struct secret *session_token; /* NULL: long-lived keys */
};
void s3_credentials_clear(struct s3_credentials *credentials);

/*
 * Where credentials come from. `fetch` gets new ones: 0; -EAGAIN when those last fetched are still the newest and
 * `force` is false; else err is filled. IMDS, container and web identity providers are further structs like this.
 */
struct s3_provider {
	const char *name;
	int (*fetch)(struct s3_provider *provider, bool force, struct s3_credentials *ret_credentials, struct err *err);
	void (*free)(struct s3_provider *provider);
};

/* `profile` NULL: AWS_PROFILE, else "default"; a profile named by option goes before the keys of the environment. */
int s3_provider_new(const char *profile, struct s3_provider **ret_provider, struct err *err);

/* What a profile says besides keys ("region", "endpoint_url"): malloc'd, NULL when it says nothing. */
char *s3_profile_setting(const char *profile, const char *name);

/* The current credentials of a store, fetched again when their source changed. */
struct s3_identity;
int s3_identity_new(struct s3_provider *provider, struct s3_identity **ret_identity, struct err *err);
void s3_identity_free(struct s3_identity *identity); /* with its provider */
enum s3_freshness { S3_CREDENTIALS_CURRENT, S3_CREDENTIALS_REFRESHED };
/* REFRESHED: the store said that they expired. */
int s3_identity_get(struct s3_identity *identity, enum s3_freshness freshness, struct s3_credentials *ret_credentials,
		    struct err *err);

/* Pure: the value of `name` in section `profile` of an AWS file. In `config` files sections are called
 * "profile NAME", but the default one. Borrowed range in text, or NULL. */
enum s3_file { S3_FILE_CREDENTIALS, S3_FILE_CONFIG };
const char *s3_ini_find(const char *text, enum s3_file file, const char *profile, const char *name, size_t *ret_len);

#endif
