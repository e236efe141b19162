/*
 * s3_credentials.c - access keys from the environment or the AWS configuration files.
 *
 * Order: a profile named by option; AWS_ACCESS_KEY_ID and its companions; the profile of AWS_PROFILE or "default" in
 * the credentials file, then in the config file. The files are looked at again when their mtime changes (checked at
 * most once a second) and when the store calls the credentials expired.
 *
 * Threads: a provider is called with its identity's lock held, so it needs none of its own. The files are local and
 * small; nothing here touches the network.
 */
#include "s3_credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "lock.h"

#define CREDENTIALS_FILE_MAX (1024 * 1024)
#define CREDENTIALS_CHECK_NS NS_PER_SEC

struct secret {
	size_t len;
	char text[];
};

static struct secret *secret_new(const char *text, size_t len)
{
	struct secret *secret = malloc(sizeof(*secret) + len + 1);
	if (!secret)
		return NULL;
	secret->len = len;
	memcpy(secret->text, text, len);
	secret->text[len] = '\0';
	return secret;
}

static void secret_free(struct secret *secret)
{
	if (!secret)
		return;
	explicit_bzero(secret->text, secret->len);
	free(secret);
}

const char *secret_reveal(const struct secret *secret)
{
	return secret->text;
}

void s3_credentials_clear(struct s3_credentials *credentials)
{
	free(credentials->access_key);
	secret_free(credentials->secret);
	secret_free(credentials->session_token);
	*credentials = (struct s3_credentials){0};
}

/* From text ranges; session may be NULL. */
static int credentials_make(const char *access, size_t access_len, struct secret *secret, struct secret *session,
			    struct s3_credentials *ret_credentials)
{
	struct s3_credentials made = {
		.access_key = strndup(access, access_len), .secret = secret, .session_token = session};
	if (!made.access_key || !secret) {
		s3_credentials_clear(&made);
		return -ENOMEM;
	}
	*ret_credentials = made;
	return 0;
}

static int s3_credentials_copy(struct s3_credentials *ret_copy, const struct s3_credentials *credentials)
{
	if (!credentials->access_key) {
		*ret_copy = (struct s3_credentials){0};
		return 0;
	}
	const struct secret *token = credentials->session_token;
	struct secret *secret = secret_new(credentials->secret->text, credentials->secret->len);
	struct secret *session = token ? secret_new(token->text, token->len) : NULL;
	if (token && !session) {
		secret_free(secret);
		return -ENOMEM;
	}
	return credentials_make(credentials->access_key, strlen(credentials->access_key), secret, session, ret_copy);
}

/* --- AWS files --------------------------------------------------------------------------------------- */

static void trim(const char **at, const char **end)
{
	while (*at < *end && (**at == ' ' || **at == '\t'))
		(*at)++;
	while (*end > *at && ((*end)[-1] == ' ' || (*end)[-1] == '\t' || (*end)[-1] == '\r'))
		(*end)--;
}

static bool is_word(const char *at, const char *end, const char *word)
{
	return (size_t)(end - at) == strlen(word) && memcmp(at, word, (size_t)(end - at)) == 0;
}

/* "[NAME]" or, in config files, "[profile NAME]"; [at, end) is what stands between the brackets. */
static bool is_section(const char *at, const char *end, enum s3_file file, const char *profile)
{
	static const char lead[] = "profile";
	trim(&at, &end);
	if (file == S3_FILE_CONFIG && (size_t)(end - at) > sizeof(lead) && memcmp(at, lead, sizeof(lead) - 1) == 0 &&
	    (at[sizeof(lead) - 1] == ' ' || at[sizeof(lead) - 1] == '\t')) {
		at += sizeof(lead) - 1;
		trim(&at, &end);
		return is_word(at, end, profile);
	}
	return is_word(at, end, profile) && (file == S3_FILE_CREDENTIALS || strcmp(profile, "default") == 0);
}

const char *s3_ini_find(const char *text, enum s3_file file, const char *profile, const char *name, size_t *ret_len)
{
	bool inside = false;
	for (const char *line = text; *line;) {
		const char *end = line + strcspn(line, "\n");
		const char *next = *end ? end + 1 : end;
		bool nested = *line == ' ' || *line == '\t'; /* "s3 =" and lines below it: settings of others */
		const char *at = line;
		trim(&at, &end);
		const char *equals = memchr(at, '=', (size_t)(end - at));
		if (at < end && *at == '[' && end[-1] == ']') {
			inside = is_section(at + 1, end - 1, file, profile);
		} else if (inside && !nested && equals && *at != '#' && *at != ';') {
			const char *name_end = equals, *value = equals + 1;
			trim(&at, &name_end);
			trim(&value, &end);
			if (is_word(at, name_end, name)) {
				*ret_len = (size_t)(end - value);
				return value;
			}
		}
		line = next;
	}
	return NULL;
}

/* The path of one of the files, malloc'd; NULL without a home. */
static char *file_path(enum s3_file file)
{
	const char *own = getenv(file == S3_FILE_CONFIG ? "AWS_CONFIG_FILE" : "AWS_SHARED_CREDENTIALS_FILE");
	if (own && *own)
		return strdup(own);
	const char *home = getenv("HOME");
	char *path;
	if (!home || !*home ||
	    asprintf(&path, "%s/.aws/%s", home, file == S3_FILE_CONFIG ? "config" : "credentials") < 0)
		return NULL;
	return path;
}

/* The whole file as a secret, since it holds some; NULL when there is none to read. */
static struct secret *file_read(const char *path)
{
	FILE *stream = path ? fopen(path, "re") : NULL;
	if (!stream)
		return NULL;
	/* Unbuffered: no copy of the keys stays behind in stdio's memory. */
	(void)setvbuf(stream, NULL, _IONBF, 0);
	struct stat st;
	struct secret *text = NULL;
	if (fstat(fileno(stream), &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= CREDENTIALS_FILE_MAX)
		text = malloc(sizeof(*text) + (size_t)st.st_size + 1);
	if (text) {
		text->len = fread(text->text, 1, (size_t)st.st_size, stream);
		text->text[text->len] = '\0';
	}
	(void)fclose(stream); /* only read */
	return text;
}

static const char *profile_name(const char *profile)
{
	if (profile && *profile)
		return profile;
	const char *from_env = getenv("AWS_PROFILE");
	return from_env && *from_env ? from_env : "default";
}

char *s3_profile_setting(const char *profile, const char *name)
{
	static const enum s3_file files[] = {S3_FILE_CONFIG, S3_FILE_CREDENTIALS};
	char *value = NULL;
	for (size_t i = 0; !value && i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *path = file_path(files[i]);
		struct secret *text = file_read(path);
		size_t len;
		const char *found = text ? s3_ini_find(text->text, files[i], profile_name(profile), name, &len) : NULL;
		if (found && len > 0)
			value = strndup(found, len);
		secret_free(text);
	}
	return value;
}

/* --- providers ------------------------------------------------------------------------------------------ */

struct local_provider {
	struct s3_provider base;
	char *profile;           /* NULL: none was named by option */
	struct timespec seen[2]; /* mtimes of the two files when they were read, by enum s3_file */
	bool fetched;
};

static struct secret *ini_secret(const char *text, enum s3_file file, const char *profile, const char *name)
{
	size_t len;
	const char *value = s3_ini_find(text, file, profile, name, &len);
	return value && len > 0 ? secret_new(value, len) : NULL;
}

static int fetch_from_file(enum s3_file file, const char *profile, struct s3_credentials *ret_credentials)
{
	AUTO_FREE char *path = file_path(file);
	struct secret *text = file_read(path);
	size_t len = 0;
	const char *access = text ? s3_ini_find(text->text, file, profile, "aws_access_key_id", &len) : NULL;
	int r = -ENOENT;
	if (access && len > 0)
		r = credentials_make(access, len, ini_secret(text->text, file, profile, "aws_secret_access_key"),
				     ini_secret(text->text, file, profile, "aws_session_token"), ret_credentials);
	secret_free(text);
	return r;
}

static int fetch_from_env(struct s3_credentials *ret_credentials)
{
	const char *access = getenv("AWS_ACCESS_KEY_ID");
	const char *secret = getenv("AWS_SECRET_ACCESS_KEY");
	const char *token = getenv("AWS_SESSION_TOKEN");
	if (!access || !*access || !secret || !*secret)
		return -ENOENT;
	return credentials_make(access, strlen(access), secret_new(secret, strlen(secret)),
				token && *token ? secret_new(token, strlen(token)) : NULL, ret_credentials);
}

static bool files_changed(struct local_provider *local)
{
	bool changed = !local->fetched;
	for (enum s3_file file = S3_FILE_CREDENTIALS; file <= S3_FILE_CONFIG; file++) {
		AUTO_FREE char *path = file_path(file);
		struct stat st;
		struct timespec mtime = {0};
		if (path && stat(path, &st) == 0)
			mtime = st.st_mtim;
		if (mtime.tv_sec != local->seen[file].tv_sec || mtime.tv_nsec != local->seen[file].tv_nsec)
			changed = true;
		local->seen[file] = mtime;
	}
	return changed;
}

static int local_fetch(struct s3_provider *provider, bool force, struct s3_credentials *ret_credentials,
		       struct err *err)
{
	struct local_provider *local = container_of(provider, struct local_provider, base);
	bool changed = files_changed(local);
	if (!changed && !force)
		return -EAGAIN;
	const char *profile = profile_name(local->profile);
	int r = local->profile ? -ENOENT : fetch_from_env(ret_credentials);
	if (r == -ENOENT)
		r = fetch_from_file(S3_FILE_CREDENTIALS, profile, ret_credentials);
	if (r == -ENOENT)
		r = fetch_from_file(S3_FILE_CONFIG, profile, ret_credentials);
	if (r == -ENOENT && local->profile)
		return err_set(err, ERR_CONFIGURATION, "no keys for profile \"%.64s\" in the AWS files", profile);
	if (r == -ENOENT)
		return err_set(err, ERR_CONFIGURATION,
			       "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile");
	if (r < 0)
		return err_set(err, ERR_CONFIGURATION, "an access key without a secret key");
	local->fetched = true;
	return 0;
}

static void local_free(struct s3_provider *provider)
{
	struct local_provider *local = container_of(provider, struct local_provider, base);
	free(local->profile);
	free(local);
}

int s3_provider_new(const char *profile, struct s3_provider **ret_provider, struct err *err)
{
	struct local_provider *local = calloc(1, sizeof(*local));
	if (!local)
		return err_set(err, ERR_NO_MEMORY, "credentials");
	local->base = (struct s3_provider){.name = "local", .fetch = local_fetch, .free = local_free};
	if (profile && *profile) {
		local->profile = strdup(profile);
		if (!local->profile) {
			free(local);
			return err_set(err, ERR_NO_MEMORY, "credentials");
		}
	}
	*ret_provider = &local->base;
	return 0;
}

/* --- the identity in use -------------------------------------------------------------------------------------- */

struct s3_identity {
	struct lock lock;
	struct s3_provider *provider;
	struct s3_credentials current; /* guarded by lock */
	int64_t checked_ns;            /* guarded by lock: CLOCK_MONOTONIC of the last look at the source */
};

int s3_identity_new(struct s3_provider *provider, struct s3_identity **ret_identity, struct err *err)
{
	struct s3_identity *identity = calloc(1, sizeof(*identity));
	if (!identity)
		return err_set(err, ERR_NO_MEMORY, "credentials");
	struct s3_credentials first = {0};
	int r = provider->fetch(provider, true, &first, err);
	if (r < 0) {
		free(identity);
		return r;
	}
	lock_init(&identity->lock, LOCK_BACKEND);
	identity->provider = provider;
	identity->current = first;
	identity->checked_ns = clock_monotonic();
	*ret_identity = identity;
	return 0;
}

void s3_identity_free(struct s3_identity *identity)
{
	if (!identity)
		return;
	s3_credentials_clear(&identity->current);
	identity->provider->free(identity->provider);
	lock_destroy(&identity->lock);
	free(identity);
}

int s3_identity_get(struct s3_identity *identity, enum s3_freshness freshness, struct s3_credentials *ret_credentials,
		    struct err *err)
{
	LOCK_GUARD(&identity->lock);
	int64_t now = clock_monotonic();
	bool force = freshness == S3_CREDENTIALS_REFRESHED;
	if (force || now - identity->checked_ns > CREDENTIALS_CHECK_NS) {
		struct s3_credentials newer = {0};
		/* A source that cannot be read just now (a file being replaced) leaves us what we have. */
		if (identity->provider->fetch(identity->provider, force, &newer, NULL) == 0) {
			s3_credentials_clear(&identity->current);
			identity->current = newer;
		}
		identity->checked_ns = now;
	}
	if (s3_credentials_copy(ret_credentials, &identity->current) < 0)
		return err_set(err, ERR_NO_MEMORY, "credentials");
	return 0;
}
