/*
 * config.c - options and paths of one mount.
 *
 * Every option is a row of `options`: its name, what it takes (shown in --help
 * and in every complaint) and a function that takes it or says -EINVAL. So a
 * complaint always names the option, the value and what is allowed, and a new
 * option is one row and one function.
 *
 * URLs may be typed with a password in them by mistake: no message here repeats
 * a URL or endpoint before it was checked for that.
 *
 * No shared state; the password and group databases are asked by their
 * reentrant calls.
 */
#include "fs/config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "cleanup.h"
#include "clock.h"
#include "escape.h"
#include "fs/mountinfo.h"
#include "varve/backend.h"

#define DEFAULT_RESERVE (UINT64_C(256) << 20)
#define DEFAULT_FSYNC_TIMEOUT (60 * NS_PER_SEC)
#define DEFAULT_SWEEP (3600 * NS_PER_SEC)
#define LEAST_CACHE (UINT64_C(16) << 20) /* what fetches and uploads under way need beside each other */
#define LEAST_RATE (UINT64_C(256) << 10)
#define LEAST_THREADS 4
#define MOST_THREADS 256
#define ID_READABLE 40 /* bytes of a state id before its hash */
#define ID_HASH_BYTES 4

void config_init(struct config *config)
{
	*config = (struct config){
		.log_level = LOG_LEVEL_INFO,
		.fsync_timeout_ns = DEFAULT_FSYNC_TIMEOUT,
		.sweep_ns = DEFAULT_SWEEP,
		.reserve = DEFAULT_RESERVE,
		.uid = getuid(),
		.gid = getgid(),
		.umask = 022,
	};
}

void config_clear(struct config *config)
{
	free(config->url);
	free(config->mountpoint);
	free(config->state_dir);
	free(config->endpoint);
	free(config->region);
	free(config->profile);
	free(config->snapdir_name);
	*config = (struct config){0};
}

static int replace(char **slot, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

/* --- values -------------------------------------------------------------------------------------- */

static int take_text(char **slot, const char *value)
{
	return *value ? replace(slot, value) : -EINVAL;
}

/* A whole decimal number and the rest of the text. */
static int take_number(const char *value, uint64_t *ret_number, const char **ret_rest)
{
	char *end;
	uint64_t number;

	if (!isdigit((unsigned char)*value))
		return -EINVAL;
	errno = 0;
	number = strtoull(value, &end, 10);
	if (errno)
		return -EINVAL;
	*ret_number = number;
	*ret_rest = end;
	return 0;
}

static int take_size(const char *value, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	const char *rest, *unit;
	uint64_t number;
	unsigned shift = 0;

	if (take_number(value, &number, &rest) < 0)
		return -EINVAL;
	if (*rest) {
		unit = strchr(units, toupper((unsigned char)*rest));
		if (!unit || rest[1])
			return -EINVAL;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (number > (uint64_t)INT64_MAX >> shift)
		return -EINVAL;
	*ret_bytes = number << shift;
	return 0;
}

static int take_duration(const char *value, int64_t *ret_ns)
{
	const char *rest;
	uint64_t number, unit = 1;

	if (take_number(value, &number, &rest) < 0)
		return -EINVAL;
	if (*rest) {
		if (rest[1] || !strchr("smh", *rest))
			return -EINVAL;
		unit = *rest == 'h' ? 3600 : *rest == 'm' ? 60 : 1;
	}
	if (number == 0 || number > (uint64_t)(INT64_MAX / NS_PER_SEC) / unit)
		return -EINVAL;
	*ret_ns = (int64_t)(number * unit) * NS_PER_SEC;
	return 0;
}

static int take_word(const char *value, const char *const words[], size_t count, unsigned *ret_index)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(value, words[i]) == 0) {
			*ret_index = (unsigned)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* --- options ----------------------------------------------------------------------------------- */

static int set_endpoint(struct config *config, const char *value)
{
	return take_text(&config->endpoint, value);
}

static int set_region(struct config *config, const char *value)
{
	for (const char *at = value; *at; at++) {
		if (!isalnum((unsigned char)*at) && *at != '-' && *at != '_')
			return -EINVAL;
	}
	return take_text(&config->region, value);
}

static int set_profile(struct config *config, const char *value)
{
	return take_text(&config->profile, value);
}

static int set_state(struct config *config, const char *value)
{
	return take_text(&config->state_dir, value);
}

static int set_create(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->create = true;
	return 0;
}

static int set_takeover(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->takeover = true;
	return 0;
}

static int set_close(struct config *config, const char *value)
{
	static const char *const words[] = {[CONFIG_CLOSE_JOURNAL] = "journal", [CONFIG_CLOSE_STORE] = "store"};
	unsigned index;
	int rc = take_word(value, words, ARRAY_SIZE(words), &index);

	if (rc == 0)
		config->close = (enum config_close)index;
	return rc;
}

static int set_fsync(struct config *config, const char *value)
{
	static const char *const words[] = {[CONFIG_FSYNC_STORE] = "store", [CONFIG_FSYNC_DISK] = "disk"};
	unsigned index;
	int rc = take_word(value, words, ARRAY_SIZE(words), &index);

	if (rc == 0)
		config->fsync = (enum config_fsync)index;
	return rc;
}

static int set_fsync_timeout(struct config *config, const char *value)
{
	return take_duration(value, &config->fsync_timeout_ns);
}

static int set_sweep(struct config *config, const char *value)
{
	if (strcmp(value, "0") == 0) {
		config->sweep_ns = 0;
		return 0;
	}
	return take_duration(value, &config->sweep_ns);
}

static int set_snapdir(struct config *config, const char *value)
{
	static const char *const words[] = {
		[CONFIG_SNAPDIR_HIDDEN] = "hidden", [CONFIG_SNAPDIR_VISIBLE] = "visible", [CONFIG_SNAPDIR_OFF] = "off"};
	unsigned index;
	int rc = take_word(value, words, ARRAY_SIZE(words), &index);

	if (rc == 0)
		config->snapdir = (enum config_snapdir)index;
	return rc;
}

/* What a program could also make a directory of, and would not mistake for an escaped key. */
static int set_snapdir_name(struct config *config, const char *value)
{
	AUTO_BUF shown = BUF_INIT;
	bool is_default = strcmp(value, ESCAPE_SNAPDIR) == 0;
	bool bad = !is_default && escape_component(value, strlen(value), &shown);

	if (bad || strcmp(value, ".varve") == 0)
		return -EINVAL;
	return take_text(&config->snapdir_name, value);
}

static int set_cache_size(struct config *config, const char *value)
{
	uint64_t size;
	int rc = take_size(value, &size);

	if (rc == 0 && size < LEAST_CACHE)
		rc = -EINVAL;
	if (rc == 0)
		config->cache_size = size;
	return rc;
}

static int set_reserve(struct config *config, const char *value)
{
	return take_size(value, &config->reserve);
}

/* Ids are 32 bits, and -1 means "no change" to chown. */
static int take_id(const char *value, uint32_t *ret_id)
{
	uint64_t number;
	const char *rest;

	if (take_number(value, &number, &rest) < 0 || *rest || number >= UINT32_MAX)
		return -EINVAL;
	*ret_id = (uint32_t)number;
	return 0;
}

static int set_uid(struct config *config, const char *value)
{
	struct passwd entry, *found = NULL;
	char strings[4096];

	if (take_id(value, &config->uid) == 0)
		return 0;
	if (getpwnam_r(value, &entry, strings, sizeof(strings), &found) != 0 || !found)
		return -EINVAL;
	config->uid = found->pw_uid;
	return 0;
}

static int set_gid(struct config *config, const char *value)
{
	struct group entry, *found = NULL;
	char strings[16384]; /* all the members, too */

	if (take_id(value, &config->gid) == 0)
		return 0;
	if (getgrnam_r(value, &entry, strings, sizeof(strings), &found) != 0 || !found)
		return -EINVAL;
	config->gid = found->gr_gid;
	return 0;
}

static int set_umask(struct config *config, const char *value)
{
	mode_t mask = 0;

	if (!*value || strlen(value) > 4)
		return -EINVAL;
	for (const char *at = value; *at; at++) {
		if (*at < '0' || *at > '7')
			return -EINVAL;
		mask = mask << 3 | (mode_t)(*at - '0');
	}
	if (mask > 0777)
		return -EINVAL;
	config->umask = mask;
	return 0;
}

static int set_threads(struct config *config, const char *value)
{
	uint64_t number;
	const char *rest;

	if (take_number(value, &number, &rest) < 0 || *rest || number < LEAST_THREADS || number > MOST_THREADS)
		return -EINVAL;
	config->threads = (unsigned)number;
	return 0;
}

static int take_rate(const char *value, uint64_t *ret_rate)
{
	uint64_t rate;
	int rc = take_size(value, &rate);

	if (rc == 0 && rate < LEAST_RATE)
		rc = -EINVAL;
	if (rc == 0)
		*ret_rate = rate;
	return rc;
}

static int set_max_upload_rate(struct config *config, const char *value)
{
	return take_rate(value, &config->max_upload_rate);
}

static int set_max_download_rate(struct config *config, const char *value)
{
	return take_rate(value, &config->max_download_rate);
}

static int set_max_requests(struct config *config, const char *value)
{
	uint64_t number;
	const char *rest;

	if (take_number(value, &number, &rest) < 0 || *rest || !number || number > MOST_THREADS)
		return -EINVAL;
	config->max_requests = (unsigned)number;
	return 0;
}

static int set_debug(struct config *config, const char *value)
{
	static const char *const words[] = {[LOG_LEVEL_ERROR] = "error",
					    [LOG_LEVEL_WARN] = "warn",
					    [LOG_LEVEL_INFO] = "info",
					    [LOG_LEVEL_DEBUG] = "debug"};
	unsigned index = LOG_LEVEL_DEBUG;

	if (value && strcmp(value, "fuse") == 0)
		config->debug_fuse = true;
	else if (value && take_word(value, words, ARRAY_SIZE(words), &index) < 0)
		return -EINVAL;
	config->log_level = (enum log_level)index;
	return 0;
}

static int set_allow_other(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->allow_other = true;
	return 0;
}

static int set_foreground(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->foreground = true;
	return 0;
}

static int set_ro(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->read_only = true;
	return 0;
}

static int set_rw(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->read_only = false;
	return 0;
}

static int set_noexec(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->noexec = true;
	return 0;
}

static int set_exec(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->noexec = false;
	return 0;
}

static int set_noatime(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->noatime = true;
	return 0;
}

static int set_atime(struct config *config, const char *value)
{
	(void)value; /* a flag */
	config->noatime = false;
	return 0;
}

/* Options of mount(8) that concern others, or ask for what always holds (nosuid, nodev) or never will (suid, dev). */
static int set_nothing(struct config *config, const char *value)
{
	(void)config;
	(void)value;
	return 0;
}

enum takes { TAKES_NOTHING, TAKES_VALUE, TAKES_OPTIONAL, TAKES_ANYTHING };

static const struct option_row {
	const char *name;
	enum takes takes;
	const char *allowed;                                  /* NULL: a plain mount option, not in --help */
	int (*set)(struct config *config, const char *value); /* value NULL when there is none */
} options[] = {
	{"endpoint", TAKES_VALUE, "the store's http:// or https:// address, without user or query", set_endpoint},
	{"region", TAKES_VALUE, "the store's region, as in eu-central-1", set_region},
	{"profile", TAKES_VALUE, "a profile of ~/.aws/config and ~/.aws/credentials", set_profile},
	{"state", TAKES_VALUE, "a directory for the catalog and the cache", set_state},
	{"create", TAKES_NOTHING, "make the bucket or directory, with versioning, when it is missing", set_create},
	{"takeover", TAKES_NOTHING,
	 "take the store from a mount that still holds it: from then on that one writes nothing", set_takeover},
	{"close", TAKES_VALUE, "journal or store: what close() of a changed file waits for", set_close},
	{"fsync", TAKES_VALUE, "store or disk: what fsync() waits for", set_fsync},
	{"fsync_timeout", TAKES_VALUE, "a time without progress, as in 90, 90s, 5m or 1h", set_fsync_timeout},
	{"sweep", TAKES_VALUE, "a time between comparisons of the whole store, as in 90, 90s, 5m or 1h; 0: none",
	 set_sweep},
	{"snapdir", TAKES_VALUE, "hidden, visible or off: .versions in listings", set_snapdir},
	{"snapdir_name", TAKES_VALUE, "a file name, for .versions", set_snapdir_name},
	{"cache_size", TAKES_VALUE, "bytes, or a number with K, M, G or T; at least 16M", set_cache_size},
	{"reserve", TAKES_VALUE, "bytes of the cache's disk to leave free, or a number with K, M, G or T", set_reserve},
	{"uid", TAKES_VALUE, "a user's name or number: owner of files that have none in the store", set_uid},
	{"gid", TAKES_VALUE, "a group's name or number, likewise", set_gid},
	{"umask", TAKES_VALUE, "an octal mask up to 777 for files without a mode in the store", set_umask},
	{"threads", TAKES_VALUE, "4 to 256 requests to the store at once", set_threads},
	{"max_requests", TAKES_VALUE, "1 to 256 requests under way at once", set_max_requests},
	{"max_upload_rate", TAKES_VALUE, "bytes a second, or a number with K, M, G or T; at least 256K",
	 set_max_upload_rate},
	{"max_download_rate", TAKES_VALUE, "bytes a second, or a number with K, M, G or T; at least 256K",
	 set_max_download_rate},
	{"allow_other", TAKES_NOTHING, "other users may use the mount", set_allow_other},
	{"ro", TAKES_NOTHING, "read only", set_ro},
	{"foreground", TAKES_NOTHING, "stay in front and log to stderr, as -f", set_foreground},
	{"debug", TAKES_OPTIONAL, "error, warn, info, debug (the default of this option) or fuse", set_debug},
	{"rw", TAKES_NOTHING, NULL, set_rw},
	{"exec", TAKES_NOTHING, NULL, set_exec},
	{"noexec", TAKES_NOTHING, NULL, set_noexec},
	{"atime", TAKES_NOTHING, NULL, set_atime},
	{"noatime", TAKES_NOTHING, NULL, set_noatime},
	{"relatime", TAKES_NOTHING, NULL, set_atime},
	{"nodiratime", TAKES_NOTHING, NULL, set_nothing},
	{"dev", TAKES_NOTHING, NULL, set_nothing},
	{"nodev", TAKES_NOTHING, NULL, set_nothing},
	{"suid", TAKES_NOTHING, NULL, set_nothing},
	{"nosuid", TAKES_NOTHING, NULL, set_nothing},
	{"async", TAKES_NOTHING, NULL, set_nothing},
	{"auto", TAKES_NOTHING, NULL, set_nothing},
	{"noauto", TAKES_NOTHING, NULL, set_nothing},
	{"user", TAKES_ANYTHING, NULL, set_nothing},
	{"nouser", TAKES_NOTHING, NULL, set_nothing},
	{"users", TAKES_NOTHING, NULL, set_nothing},
	{"owner", TAKES_NOTHING, NULL, set_nothing},
	{"group", TAKES_NOTHING, NULL, set_nothing},
	{"nofail", TAKES_NOTHING, NULL, set_nothing},
	{"_netdev", TAKES_NOTHING, NULL, set_nothing},
	{"defaults", TAKES_NOTHING, NULL, set_nothing},
	{"comment", TAKES_ANYTHING, NULL, set_nothing},
};

const char *config_option_help(void)
{
	return "  endpoint=URL         the store's address, http:// or https://; default: Amazon's\n"
	       "  region=NAME          the store's region\n"
	       "  profile=NAME         a profile of ~/.aws/config and ~/.aws/credentials\n"
	       "  state=DIR            catalog and cache; default below /var/lib/varve (root)\n"
	       "                       or $XDG_STATE_HOME/varve\n"
	       "  create               make the bucket or directory when it is missing\n"
	       "  takeover             take the store from a mount that still holds it\n"
	       "  close=journal|store  what close() of a changed file waits for\n"
	       "  fsync=store|disk     what fsync() waits for\n"
	       "  fsync_timeout=TIME   fsync() fails after so long without progress; default 60s\n"
	       "  sweep=TIME           the whole store is looked through for others' changes so\n"
	       "                       often; default 1h, 0: never\n"
	       "  snapdir=hidden|visible|off\n"
	       "                       .versions: reached by name, also listed, or not there\n"
	       "  snapdir_name=NAME    another name for it\n"
	       "  cache_size=SIZE      most bytes cached (K M G T), at least 16M; default: what the disk has\n"
	       "  reserve=SIZE         bytes of that disk left free; default 256M\n"
	       "  uid=USER gid=GROUP umask=OCTAL\n"
	       "                       for files whose owner and mode the store does not know\n"
	       "  threads=N            threads that talk to the store, 4 to 256\n"
	       "  max_requests=N       requests under way at once, 1 to 256; default: no limit.\n"
	       "                       A store that throttles gets fewer by itself\n"
	       "  max_upload_rate=SIZE max_download_rate=SIZE\n"
	       "                       bytes a second (K M G T), at least 256K; default: no limit\n"
	       "  allow_other          other users may use the mount\n"
	       "  ro                   read only\n"
	       "  foreground           as -f\n"
	       "  debug[=LEVEL]        error, warn, info, debug; or fuse: every request\n"
	       "Options of mount(8) such as noexec, noatime, nofail, _netdev and x-* are accepted.\n"
	       "A comma within a value is written \\, and a backslash \\\\.\n";
}

#define DISTANCE_MAX 32

static size_t least(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Edits from a to b (Levenshtein), one row at a time. Longer words are just far away. */
static size_t distance(const char *a, const char *b)
{
	size_t row[DISTANCE_MAX + 1], len = strlen(b);

	if (len > DISTANCE_MAX || strlen(a) > DISTANCE_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= len; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < len; j++) {
			size_t above = row[j + 1];

			row[j + 1] = least(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
			diagonal = above;
		}
	}
	return row[len];
}

static int unknown_option(const char *name, struct err *err)
{
	const char *nearest = options[0].name;
	size_t best = SIZE_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		size_t far = distance(name, options[i].name);

		if (far < best) {
			best = far;
			nearest = options[i].name;
		}
	}
	if (strcmp(name, "remount") == 0)
		return err_set(err, ERR_CONFIGURATION,
			       "option remount: a mount cannot be changed; unmount and mount again");
	return err_set(err, ERR_CONFIGURATION, "unknown option \"%.64s\"; did you mean \"%s\"?", name, nearest);
}

static int check_endpoint(const char *endpoint, struct err *err);

static int one_option(struct config *config, char *word, struct err *err)
{
	char *value = strchr(word, '=');
	const struct option_row *row = options;
	int rc;

	if (value)
		*value++ = '\0';
	if (strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0)
		return 0;
	while (row < options + ARRAY_SIZE(options) && strcmp(row->name, word) != 0)
		row++;
	if (row == options + ARRAY_SIZE(options))
		return unknown_option(word, err);
	if (value && row->takes == TAKES_NOTHING)
		return err_set(err, ERR_CONFIGURATION, "option %s takes no value, got \"%.64s\"", word, value);
	if (!value && row->takes == TAKES_VALUE)
		return err_set(err, ERR_CONFIGURATION, "option %s needs a value: %s", word, row->allowed);
	if (value && row->set == set_endpoint) {
		rc = check_endpoint(value, err);
		if (rc < 0)
			return rc;
	}
	rc = row->set(config, value);
	if (rc == -ENOMEM)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	if (rc < 0)
		return err_set(err, ERR_CONFIGURATION, "option %s=%.64s: allowed is %s", word, value ? value : "",
			       row->allowed);
	return 0;
}

int config_options(struct config *config, const char *list, struct err *err)
{
	AUTO_BUF word = BUF_INIT;
	int rc = 0;

	for (const char *at = list; rc == 0; at++) {
		if (*at == '\\' && (at[1] == ',' || at[1] == '\\')) {
			buf_addc(&word, *++at);
			continue;
		}
		if (*at && *at != ',') {
			buf_addc(&word, *at);
			continue;
		}
		if (buf_failed(&word))
			return err_set(err, ERR_NO_MEMORY, "out of memory");
		if (word.len)
			rc = one_option(config, word.data, err);
		buf_reset(&word);
		if (!*at)
			break;
	}
	return rc;
}

/* --- URLs -------------------------------------------------------------------------------------- */

static bool has_control(const char *text)
{
	for (; *text; text++) {
		if (iscntrl((unsigned char)*text))
			return true;
	}
	return false;
}

#define NO_CREDENTIALS "credentials do not belong in a URL: use the environment or ~/.aws/credentials"

static int check_endpoint(const char *endpoint, struct err *err)
{
	static const char *const schemes[] = {"http://", "https://"};
	const char *host = NULL;

	if (strpbrk(endpoint, "@?#"))
		return err_set(err, ERR_CONFIGURATION, "option endpoint: " NO_CREDENTIALS);
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (strncasecmp(endpoint, schemes[i], strlen(schemes[i])) == 0)
			host = endpoint + strlen(schemes[i]);
	}
	if (!host || !*host || *host == '/' || *host == ':' || has_control(endpoint) || strchr(endpoint, ' '))
		return err_set(err, ERR_CONFIGURATION,
			       "option endpoint=%.64s: allowed is the store's http:// or https:// address", endpoint);
	return 0;
}

/* Does the text carry the parameters of a signed URL? */
static bool is_signed(const char *text)
{
	static const char *const marks[] = {"X-Amz-", "AWSAccessKeyId=", "Signature=", "sig=", "X-Goog-"};
	const char *query = strchr(text, '?');

	for (size_t i = 0; query && i < ARRAY_SIZE(marks); i++) {
		if (strcasestr(query, marks[i]))
			return true;
	}
	return false;
}

/* The rules for S3 buckets; Google's are the same but for the underscore. */
static bool bucket_name_ok(const char *name, size_t len)
{
	if (len < 3 || len > 63 || !isalnum((unsigned char)name[0]) || !isalnum((unsigned char)name[len - 1]))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];

		if (!islower(c) && !isdigit(c) && c != '-' && c != '.')
			return false;
		if (c == '.' && name[i + 1] == '.')
			return false;
	}
	return true;
}

/* `path` comes behind the bucket and begins with '/', or is empty. */
static int check_prefix(const char *path, struct err *err)
{
	while (*path) {
		size_t len = strcspn(++path, "/");

		if (len == 0 || (len == 1 && *path == '.') || (len == 2 && path[0] == '.' && path[1] == '.'))
			return err_set(err, ERR_CONFIGURATION,
				       "the prefix in the URL has an empty, \".\" or \"..\" component");
		if (len == 6 && memcmp(path, ".varve", 6) == 0)
			return err_set(err, ERR_CONFIGURATION,
				       "the prefix in the URL lies in .varve/, which varve keeps for itself");
		path += len;
	}
	return 0;
}

static const char file_scheme[] = "file://";

/* The directory of a file:// URL, else NULL. */
static const char *store_dir(const char *url)
{
	size_t len = sizeof(file_scheme) - 1;

	return strncmp(url, file_scheme, len) == 0 ? url + len : NULL;
}

static int check_url(const char *url, struct err *err)
{
	const char *authority = strstr(url, "://"), *path = store_dir(url);
	size_t len;

	if (!authority)
		return err_set(err, ERR_CONFIGURATION,
			       "the first argument is no URL: write s3://BUCKET/PREFIX or file:///DIR");
	authority += 3;
	len = strcspn(authority, "/");
	if (memchr(authority, '@', len) || memchr(authority, ':', len) || memchr(authority, '?', len) || is_signed(url))
		return err_set(err, ERR_CONFIGURATION, NO_CREDENTIALS);
	if (has_control(url))
		return err_set(err, ERR_CONFIGURATION, "the URL has control characters in it");
	if (!backend_find(url, err))
		return -EINVAL;
	if (path) {
		if (*path != '/')
			return err_set(err, ERR_CONFIGURATION,
				       "file:// needs an absolute path: file:///DIR, three slashes");
		return 0;
	}
	if (strncmp(url, "s3://", 5) == 0 && !bucket_name_ok(authority, len))
		return err_set(
			err, ERR_CONFIGURATION,
			"\"%.*s\" is no bucket name: 3 to 63 of a-z 0-9 - and ., begun and ended by a letter or digit",
			len > 64 ? 64 : (int)len, authority);
	return check_prefix(authority + len, err);
}

/* --- arguments --------------------------------------------------------------------------------- */

static int take_url(struct config *config, const char *word, struct err *err)
{
	AUTO_FREE char *url = strdup(word);
	const char *authority;
	size_t len, keep;
	int rc;

	if (!url)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	authority = strstr(url, "://");
	keep = authority ? (size_t)(authority - url) + 3 : 0;
	if (store_dir(url))
		keep++; /* file:/// is the root directory */
	for (len = strlen(url); len > keep && url[len - 1] == '/'; len--)
		url[len - 1] = '\0';
	rc = check_url(url, err);
	if (rc == 0 && replace(&config->url, url) < 0)
		rc = err_set(err, ERR_NO_MEMORY, "out of memory");
	return rc;
}

static int take_flags(int argc, char **argv, enum config_form form, struct config *config, struct err *err)
{
	/* mount(8) runs a helper as: SPEC DIR [-sfnv] [-N namespace] [-o options] [-t type] */
	const char *letters = form == CONFIG_HELPER ? ":o:fsnvt:N:" : ":o:f";
	int letter, rc = 0;

	optind = 0; /* start over, and forget an earlier permutation */
	opterr = 0;
	while (rc == 0 && (letter = getopt(argc, argv, letters)) != -1) {
		switch (letter) {
		case 'o':
			rc = config_options(config, optarg, err);
			break;
		case 'f':
			if (form == CONFIG_HELPER)
				config->fake = true;
			else
				config->foreground = true;
			break;
		case ':':
			rc = err_set(err, ERR_CONFIGURATION, "-%c needs an argument", optopt);
			break;
		case '?':
			if (isgraph(optopt))
				rc = err_set(err, ERR_CONFIGURATION, "unknown flag -%c", optopt);
			else
				rc = err_set(err, ERR_CONFIGURATION, "unknown flag %.64s", argv[optind - 1]);
			break;
		default:
			break; /* -s -n -v -t -N: mount(8)'s own affairs */
		}
	}
	return rc;
}

int config_parse(int argc, char **argv, enum config_form form, struct config *ret_config, struct err *err)
{
	struct config config;
	int rc;

	config_init(&config);
	rc = take_flags(argc, argv, form, &config, err);
	if (rc < 0)
		goto out;
	if (argc - optind != 2) {
		rc = err_set(err, ERR_CONFIGURATION, "%s: a URL and a directory, as in s3://BUCKET/PREFIX /mnt",
			     argc - optind < 2 ? "something is missing" : "too many arguments");
		goto out;
	}
	rc = take_url(&config, argv[optind], err);
	if (rc < 0)
		goto out;
	if (replace(&config.mountpoint, argv[optind + 1]) < 0)
		rc = err_set(err, ERR_NO_MEMORY, "out of memory");
	else if (config.create && config.read_only)
		rc = err_set(err, ERR_CONFIGURATION, "options create and ro exclude each other");
	else if (config.takeover && config.read_only)
		rc = err_set(err, ERR_CONFIGURATION, "options takeover and ro exclude each other");
out:
	if (rc == 0)
		*ret_config = config;
	else
		config_clear(&config);
	return rc;
}

/* --- state directory --------------------------------------------------------------------------- */

void config_state_id(const char *url, const char *endpoint, struct buf *ret_id)
{
	uint8_t digest[SHA256_SIZE];
	char hex[2 * ID_HASH_BYTES + 1];
	size_t start = ret_id->len;
	AUTO_BUF whole = BUF_INIT;

	for (const char *at = url; *at && ret_id->len - start < ID_READABLE; at++) {
		if (isalnum((unsigned char)*at) || *at == '.' || *at == '_')
			buf_addc(ret_id, *at);
		else if (ret_id->len > start && ret_id->data[ret_id->len - 1] != '-')
			buf_addc(ret_id, '-'); /* one for a run of whatever else there is */
	}
	buf_adds(&whole, url);
	buf_addc(&whole, '\0');
	buf_adds(&whole, endpoint ? endpoint : "");
	if (buf_failed(&whole)) {
		ret_id->failed = true;
		return;
	}
	sha256_of(whole.data, whole.len, digest);
	hex_encode(digest, ID_HASH_BYTES, hex);
	buf_addf(ret_id, "-%s", hex);
}

int config_state_base(uid_t uid, struct buf *ret_dir)
{
	const char *own = uid == getuid() ? getenv("XDG_STATE_HOME") : NULL;
	const char *home = uid == getuid() ? getenv("HOME") : NULL;
	struct passwd entry, *found = NULL;
	char strings[4096];

	if (uid == 0) {
		buf_adds(ret_dir, "/var/lib/varve");
	} else if (own && *own == '/') { /* the XDG specification: relative ones are to be ignored */
		buf_addf(ret_dir, "%s/varve", own);
	} else {
		if (!home || *home != '/') {
			if (getpwuid_r(uid, &entry, strings, sizeof(strings), &found) != 0 || !found)
				return -ENOENT;
			home = found->pw_dir;
		}
		buf_addf(ret_dir, "%s/.local/state/varve", home);
	}
	return buf_failed(ret_dir) ? -ENOMEM : 0;
}

static int default_state(struct config *config, struct err *err)
{
	AUTO_BUF dir = BUF_INIT;
	int rc = config_state_base(getuid(), &dir);

	if (rc == -ENOENT)
		return err_set(err, ERR_CONFIGURATION, "no home directory to keep state in: say -o state=DIR");
	buf_addc(&dir, '/');
	config_state_id(config->url, config->endpoint, &dir);
	if (buf_failed(&dir) || replace(&config->state_dir, dir.data) < 0)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	return 0;
}

/* --- paths ------------------------------------------------------------------------------------- */

/*
 * Absolute and without symbolic links, as far as it exists; what does not exist
 * yet is kept as written. So two ways to write one directory compare equal.
 * NULL with errno.
 */
static char *canonical(const char *path)
{
	AUTO_FREE char *existing = strdup(path);
	AUTO_FREE char *real = NULL;
	char *joined = NULL;
	size_t len;

	if (!existing)
		return NULL;
	len = strlen(existing);
	while (!(real = realpath(len ? existing : ".", NULL))) {
		if (errno != ENOENT || len == 0)
			return NULL;
		while (len > 1 && existing[len - 1] == '/')
			len--;
		while (len > 0 && existing[len - 1] != '/')
			len--;
		existing[len] = '\0';
	}
	path += len;
	while (*path == '/')
		path++;
	if (asprintf(&joined, "%s%s%s", real, *path && strcmp(real, "/") != 0 ? "/" : "", path) < 0)
		return NULL;
	len = strlen(joined);
	while (len > 1 && joined[len - 1] == '/')
		joined[--len] = '\0';
	return joined;
}

static bool lies_in(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1)
		return true;
	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static int check_apart(const char *path, const char *what, const char *other, const char *other_what, struct err *err)
{
	if (lies_in(path, other) || lies_in(other, path))
		return err_set(err, ERR_CONFIGURATION, "%s %.80s and %s %.80s must not lie in one another", what, path,
			       other_what, other);
	return 0;
}

static int check_mountpoint(struct config *config, struct err *err)
{
	struct mountinfo info;
	struct stat st;
	char *real;
	int rc;

	rc = mountinfo_named(config->mountpoint, &info);
	if (rc == 0) {
		mountinfo_clear(&info);
		return err_set(err, ERR_CONFIGURATION, "%.128s is a varve mount already; `varve umount` it first",
			       config->mountpoint);
	}
	if (stat(config->mountpoint, &st) < 0)
		return err_from_errno(err, errno, "mount directory %.128s", config->mountpoint);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_CONFIGURATION, "%.128s is not a directory", config->mountpoint);
	real = realpath(config->mountpoint, NULL);
	if (!real)
		return err_from_errno(err, errno, "mount directory %.128s", config->mountpoint);
	free(config->mountpoint);
	config->mountpoint = real;
	return 0;
}

/* An existing store keeps one id however its path was written. */
static int canonical_store(struct config *config, struct err *err)
{
	const char *dir = store_dir(config->url);
	AUTO_FREE char *real = NULL;
	char *url = NULL;

	if (!dir)
		return 0;
	real = canonical(dir);
	if (!real)
		return err_from_errno(err, errno, "store %.128s", dir);
	if (asprintf(&url, "%s%s", file_scheme, real) < 0)
		return err_set(err, ERR_NO_MEMORY, "out of memory");
	free(config->url);
	config->url = url;
	return 0;
}

int config_check(struct config *config, struct err *err)
{
	const char *store;
	char *state;
	int rc = config->mountpoint ? check_mountpoint(config, err) : 0;

	if (rc < 0)
		return rc;
	rc = canonical_store(config, err);
	if (rc < 0)
		return rc;
	if (!config->state_dir) {
		rc = default_state(config, err);
		if (rc < 0)
			return rc;
	}
	state = canonical(config->state_dir);
	if (!state)
		return err_from_errno(err, errno, "state directory %.128s", config->state_dir);
	free(config->state_dir);
	config->state_dir = state;
	store = store_dir(config->url);
	if (config->mountpoint)
		rc = check_apart(config->mountpoint, "the mount directory", state, "the state directory", err);
	if (rc == 0 && config->mountpoint && store)
		rc = check_apart(config->mountpoint, "the mount directory", store, "the store", err);
	if (rc == 0 && store)
		rc = check_apart(state, "the state directory", store, "the store", err);
	return rc;
}
