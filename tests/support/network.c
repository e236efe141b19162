/* network.c - see network.h. One thread; toxiproxy and the fake server are told by curl. */
#include "support/network.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *need(const char *name)
{
	const char *value = getenv(name);

	cr_assert(value && *value, "%s is not set: run this through tests/run", name);
	return value;
}

long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- the proxy -------------------------------------------------------------------------------------------- */

/* One request to toxiproxy's API; `body` NULL: none. The reply is in a static buffer. */
static const char *ask_proxy(const char *method, const char *resource, const char *body)
{
	static char reply[4096];
	char command[1024];
	size_t len;
	FILE *pipe;

	snprintf(command, sizeof(command), "curl -sf --retry 3 --retry-connrefused -X %s %s%s%s '%s/%s'", method,
		 body ? "-d '" : "", body ? body : "", body ? "'" : "", need("VARVE_TEST_TOXIPROXY"), resource);
	pipe = popen(command, "r");
	cr_assert(pipe);
	len = fread(reply, 1, sizeof(reply) - 1, pipe);
	reply[len] = '\0';
	cr_assert_eq(pclose(pipe), 0, "%s", command);
	return reply;
}

/* A proxy of this name that listens at `listen`; its endpoint is noted. */
static void create(struct proxy *proxy, const char *listen)
{
	const char *upstream = strstr(need("VARVE_TEST_S3_ENDPOINT"), "://") + 3;
	char body[256];
	json_t *made;

	snprintf(body, sizeof(body), "{\"name\":\"%s\",\"listen\":\"%s\",\"upstream\":\"%s\"}", proxy->name, listen,
		 upstream);
	made = json_loads(ask_proxy("POST", "proxies", body), 0, NULL);
	cr_assert(made && json_string_value(json_object_get(made, "listen")));
	snprintf(proxy->endpoint, sizeof(proxy->endpoint), "http://%s",
		 json_string_value(json_object_get(made, "listen")));
	json_decref(made);
}

void proxy_new(struct proxy *proxy)
{
	static int count;

	snprintf(proxy->name, sizeof(proxy->name), "p%d-%d", getpid(), ++count);
	create(proxy, "127.0.0.1:0");
}

void proxy_free(struct proxy *proxy)
{
	char resource[128];

	snprintf(resource, sizeof(resource), "proxies/%s", proxy->name);
	(void)ask_proxy("DELETE", resource, NULL);
}

static void enable(const struct proxy *proxy, const char *how)
{
	char resource[128], body[64];

	snprintf(resource, sizeof(resource), "proxies/%s", proxy->name);
	snprintf(body, sizeof(body), "{\"enabled\":%s}", how);
	(void)ask_proxy("POST", resource, body);
}

void proxy_cut(const struct proxy *proxy)
{
	enable(proxy, "false");
}

void proxy_restore(const struct proxy *proxy)
{
	enable(proxy, "true");
}

void proxy_toxic(const struct proxy *proxy, const char *type, const char *attributes)
{
	char resource[128], body[256];

	snprintf(resource, sizeof(resource), "proxies/%s/toxics", proxy->name);
	snprintf(body, sizeof(body), "{\"name\":\"%s\",\"type\":\"%s\",\"attributes\":{%s}}", type, type, attributes);
	(void)ask_proxy("POST", resource, body);
}

void proxy_slow_down(const struct proxy *proxy, unsigned rate)
{
	char resource[128], body[256];

	snprintf(resource, sizeof(resource), "proxies/%s/toxics", proxy->name);
	snprintf(body, sizeof(body),
		 "{\"name\":\"up\",\"type\":\"bandwidth\",\"stream\":\"upstream\",\"attributes\":{\"rate\":%u}}", rate);
	(void)ask_proxy("POST", resource, body);
}

/* toxiproxy 2.12 waits for ever when a toxic is taken from a connection whose client just went away (its writer waits
 * for the lock under which the toxic is flushed into it), so the whole proxy goes and comes back at its port. */
void proxy_clear(struct proxy *proxy)
{
	char listen[sizeof(proxy->endpoint)];

	snprintf(listen, sizeof(listen), "%s", strstr(proxy->endpoint, "://") + 3);
	proxy_free(proxy);
	create(proxy, listen);
}

/* --- the liar --------------------------------------------------------------------------------------------- */

void fake_s3_start(struct fake_s3 *fake)
{
	const char *tmp = getenv("TMPDIR");
	char script[512], file[300];
	char *endpoint = NULL;

	snprintf(fake->dir, sizeof(fake->dir), "%s/fake-%d-XXXXXX", tmp ? tmp : "/tmp", getpid());
	cr_assert(mkdtemp(fake->dir), "mkdtemp: %s", strerror(errno));
	snprintf(file, sizeof(file), "%s/endpoint", fake->dir);
	snprintf(script, sizeof(script), "%s/tests/support/fake_s3.py", need("VARVE_TEST_SOURCE"));
	fake->pid = fork();
	cr_assert_geq(fake->pid, 0);
	if (fake->pid == 0) {
		execlp(script, script, file, (char *)NULL);
		_exit(127);
	}
	for (int tries = 0; !endpoint && tries < 400; tries++) {
		nanosleep(&(struct timespec){.tv_nsec = 25000000}, NULL);
		endpoint = file_read(file, NULL);
	}
	cr_assert(endpoint, "fake_s3.py does not start");
	snprintf(fake->endpoint, sizeof(fake->endpoint), "%s", endpoint);
	free(endpoint);
	setenv("VARVE_TEST_S3_ENDPOINT", fake->endpoint, 1);
}

void fake_s3_stop(struct fake_s3 *fake)
{
	char command[300];

	kill(fake->pid, SIGKILL);
	waitpid(fake->pid, NULL, 0);
	snprintf(command, sizeof(command), "rm -rf '%s'", fake->dir);
	cr_assert_eq(system(command), 0);
}

static void tell(const struct fake_s3 *fake, const char *words)
{
	char command[1024];

	snprintf(command, sizeof(command), "curl -sf -X POST '%s/-/%s'", fake->endpoint, words);
	cr_assert_eq(system(command), 0, "%s", command);
}

void fake_s3_lie(const struct fake_s3 *fake, const char *kind, const char *key)
{
	char words[700];

	snprintf(words, sizeof(words), "lie?%s&%s", kind, key ? key : "");
	tell(fake, words);
}

void fake_s3_truth(const struct fake_s3 *fake)
{
	tell(fake, "truth");
}

void fake_s3_conditions(const struct fake_s3 *fake, const char *how)
{
	char words[64];

	snprintf(words, sizeof(words), "conditions?%s", how);
	tell(fake, words);
}

void fake_s3_fill(const struct fake_s3 *fake, const char *prefix, unsigned count)
{
	char words[300];

	snprintf(words, sizeof(words), "fill?%s&%u", prefix, count);
	tell(fake, words);
}

/* --- the other client ------------------------------------------------------------------------------------- */

char *s3_ask(const struct mounted *mounted, const char *words)
{
	size_t size = 1 << 20, len;
	char *text = malloc(size), *command = NULL;

	cr_assert(text &&
		  asprintf(&command, "'%s/tests/support/s3.py' \"$BUCKET\" %s", need("VARVE_TEST_SOURCE"), words) > 0);
	cr_assert_eq(mounted_shell(mounted, command, text, size), 0, "%s: %s", command, text);
	len = strlen(text);
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	free(command);
	return text;
}

void s3_do(const struct mounted *mounted, const char *words)
{
	free(s3_ask(mounted, words));
}
