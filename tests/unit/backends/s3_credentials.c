/*
 * s3_credentials.c - keys from the environment and the AWS files, and their refresh.
 */
#include "backends/s3_credentials.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/varve-credentials-XXXXXX";

static void write_file(const char *name, const char *text)
{
	char path[128], temp[128];
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(temp, sizeof(temp), "%s/%s.new", dir, name);
	FILE *stream = fopen(temp, "we");
	cr_assert_not_null(stream);
	cr_assert_geq(fputs(text, stream), 0);
	cr_assert_eq(fclose(stream), 0);
	cr_assert_eq(rename(temp, path), 0);
}

static void begin(void)
{
	char path[128];
	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/credentials", dir);
	setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
	(void)snprintf(path, sizeof(path), "%s/config", dir);
	setenv("AWS_CONFIG_FILE", path, 1);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_SESSION_TOKEN");
	unsetenv("AWS_PROFILE");
}

static void end(void)
{
	char path[128];
	(void)snprintf(path, sizeof(path), "%s/credentials", dir);
	(void)unlink(path); /* not every test makes both */
	(void)snprintf(path, sizeof(path), "%s/config", dir);
	(void)unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}

TestSuite(s3_credentials, .init = begin, .fini = end);

static struct s3_identity *identity_of(const char *profile)
{
	struct s3_provider *provider;
	struct s3_identity *identity;
	struct err err = {0};
	cr_assert_eq(s3_provider_new(profile, &provider, &err), 0);
	cr_assert_eq(s3_identity_new(provider, &identity, &err), 0, "%s", err.message);
	return identity;
}

static void expect_keys(struct s3_identity *identity, enum s3_freshness freshness, const char *access,
			const char *secret, const char *token)
{
	struct s3_credentials credentials;
	struct err err;
	cr_assert_eq(s3_identity_get(identity, freshness, &credentials, &err), 0);
	cr_assert_str_eq(credentials.access_key, access);
	cr_assert_str_eq(secret_reveal(credentials.secret), secret);
	if (token)
		cr_assert_str_eq(secret_reveal(credentials.session_token), token);
	else
		cr_assert_null(credentials.session_token);
	s3_credentials_clear(&credentials);
}

Test(s3_credentials, environment_goes_before_files)
{
	write_file("credentials", "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n");
	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "envsecret", 1);
	setenv("AWS_SESSION_TOKEN", "envtoken", 1);
	struct s3_identity *identity = identity_of(NULL);
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "ENV", "envsecret", "envtoken");
	s3_identity_free(identity);
	identity = identity_of("default"); /* named by option: asked for, so it wins */
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "FILE", "s", NULL);
	s3_identity_free(identity);
}

Test(s3_credentials, profiles_of_both_files)
{
	write_file("credentials", "# comment\n[default]\naws_access_key_id=D\naws_secret_access_key=ds\n"
				  "[ other ]\r\naws_access_key_id = O\r\naws_secret_access_key = os\r\n"
				  "aws_session_token = ot\r\n");
	write_file("config", "[default]\nregion = eu-north-1\ns3 =\n  endpoint_url = http://nested\n"
			     "[profile cfg]\naws_access_key_id=C\naws_secret_access_key=cs\nregion=ap-south-1\n"
			     "endpoint_url = http://store:9000\n");
	struct s3_identity *identity = identity_of(NULL);
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "D", "ds", NULL);
	s3_identity_free(identity);
	setenv("AWS_PROFILE", "other", 1);
	identity = identity_of(NULL);
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "O", "os", "ot");
	s3_identity_free(identity);
	identity = identity_of("cfg");
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "C", "cs", NULL);
	s3_identity_free(identity);

	char *region = s3_profile_setting("cfg", "region");
	char *endpoint = s3_profile_setting("cfg", "endpoint_url");
	cr_assert_str_eq(region, "ap-south-1");
	cr_assert_str_eq(endpoint, "http://store:9000");
	cr_assert_null(s3_profile_setting("default", "endpoint_url"), "a nested setting is another's");
	cr_assert_null(s3_profile_setting("absent", "region"));
	free(region);
	free(endpoint);
}

Test(s3_credentials, none_at_all_is_said)
{
	struct s3_provider *provider;
	struct s3_identity *identity;
	struct err err;
	cr_assert_eq(s3_provider_new("absent", &provider, &err), 0);
	cr_assert_lt(s3_identity_new(provider, &identity, &err), 0);
	cr_assert_eq(err.kind, ERR_CONFIGURATION);
	provider->free(provider);
	write_file("credentials", "[default]\naws_access_key_id=HALF\n");
	cr_assert_eq(s3_provider_new(NULL, &provider, &err), 0);
	cr_assert_lt(s3_identity_new(provider, &identity, &err), 0);
	cr_assert_eq(err.kind, ERR_CONFIGURATION);
	provider->free(provider);
}

Test(s3_credentials, a_changed_file_is_read_again)
{
	write_file("credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=a\n");
	struct s3_identity *identity = identity_of(NULL);
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "A", "a", NULL);
	write_file("credentials", "[default]\naws_access_key_id=B\naws_secret_access_key=b\n");
	expect_keys(identity, S3_CREDENTIALS_REFRESHED, "B", "b", NULL);
	/* Broken for a moment, as while somebody edits it: what is known stays. */
	write_file("credentials", "");
	expect_keys(identity, S3_CREDENTIALS_REFRESHED, "B", "b", NULL);
	s3_identity_free(identity);
}

Test(s3_credentials, the_newer_file_is_noticed_without_being_told)
{
	write_file("credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=a\n");
	struct s3_identity *identity = identity_of(NULL);
	write_file("credentials", "[default]\naws_access_key_id=B\naws_secret_access_key=b\n");
	usleep(1100 * 1000);
	expect_keys(identity, S3_CREDENTIALS_CURRENT, "B", "b", NULL);
	s3_identity_free(identity);
}
