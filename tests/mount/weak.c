/*
 * weak.c - a versioned store without conditional writes, whether it ignores them or refuses them: the guarantee is
 * weaker and says so, but one still writes at a time, and what two wrote over each other is in the history.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/mounted.h"
#include "support/network.h"

static struct mounted one, two;
static struct fake_s3 fake;
static char out[8192];

static void leave(void)
{
	if (two.root[0])
		mounted_free(&two);
	mounted_free(&one);
	fake_s3_stop(&fake);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, strerror(errno))

static int shell(const struct mounted *mounted, const char *command)
{
	return mounted_text(mounted, command, out, sizeof(out));
}

#define SAYS(mounted, command, text)                                                                                   \
	do {                                                                                                           \
		int status_ = shell(mounted, command);                                                                 \
		cr_assert_str_eq(out, text, "%s (%d): %s", command, status_, out);                                     \
	} while (0)

struct how {
	char word[16];
};

static struct how ways[] = {{"ignored"}, {"refused"}};

#define EITHER_WAY(name)                                                                                               \
	ParameterizedTestParameters(weak, name)                                                                        \
	{                                                                                                              \
		return cr_make_param_array(struct how, ways, sizeof(ways) / sizeof(*ways));                            \
	}                                                                                                              \
	ParameterizedTest(struct how *how, weak, name, .timeout = 240, .fini = leave)

static void begin(const struct how *how)
{
	fake_s3_start(&fake);
	fake_s3_conditions(&fake, how->word);
	mounted_new(&one, MOUNTED_S3);
}

/* A second machine: everything of its own but the store. */
static void second_machine(void)
{
	mounted_new(&two, MOUNTED_S3);
	memcpy(two.url, one.url, sizeof(two.url));
	memcpy(two.bucket, one.bucket, sizeof(two.bucket));
}

#define GUARANTEE "\"$VARVE\" status \"$MNT\" --json | grep -o '\"guarantee\": *\"[a-z]*\"' | cut -d'\"' -f4"

EITHER_WAY(it_works_and_says_what_it_cannot_promise)
{
	begin(how);
	mounted_start(&one, NULL);
	SAYS(&one, GUARANTEE, "weak");
	OK(shell(&one, "cd \"$MNT\" && mkdir d && echo 1 >d/f && sync d/f && echo 2 >d/f && mv d e && ln e/f g && echo "
		       "x >h && "
		       "rm h && echo y >h"));
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, "rm -rf \"$STATE\""));
	mounted_start(&one, NULL);
	SAYS(&one, "cd \"$MNT\" && cat e/f g h .versions/h/* && ls", "2\n2\ny\nx\ny\ne\ng\nh");
	cr_assert_eq(mounted_stop(&one), 0);
	OK(shell(&one, "\"$VARVE\" fsck \"$STATE\""));
}

/* What a mount found out is believed by the next ones, but not what it could not. */
Test(weak, what_a_busy_store_did_not_answer_is_tried_again, .timeout = 240, .fini = leave)
{
	begin(&(struct how){"busy"});
	mounted_start(&one, NULL);
	SAYS(&one, GUARANTEE, "weak");
	cr_assert_eq(mounted_stop(&one), 0);
	fake_s3_conditions(&fake, "honoured");
	mounted_start(&one, NULL);
	SAYS(&one, GUARANTEE, "conditional");
	cr_assert_eq(mounted_stop(&one), 0);
	fake_s3_conditions(&fake, "ignored");
	mounted_start(&one, NULL);
	SAYS(&one, GUARANTEE, "conditional");
	cr_assert_eq(mounted_stop(&one), 0);
}

EITHER_WAY(one_holds_it_until_another_is_told_to_take_it)
{
	char line[1024];

	begin(how);
	mounted_start(&one, NULL);
	OK(shell(&one, "echo one >\"$MNT/f\""));
	mounted_settle(&one, 30);
	second_machine();
	cr_assert_neq(mounted_start_fails(&two, NULL, line, sizeof(line)), 0);
	mounted_start(&two, "takeover");
	OK(shell(&two, "cat \"$MNT/f\" && echo two >\"$MNT/f\""));
	mounted_settle(&two, 30);
	/* Whoever renews looks first whose it is. */
	for (int tries = 0; tries < 600 && shell(&one, "\"$VARVE\" status \"$MNT\" --json | grep -o '\"lost\": *true'");
	     tries++)
		usleep(100000);
	OK(shell(&one, "echo late >\"$MNT/f\" && ls \"$MNT/.versions/f\""));
	sleep(1);
	SAYS(&two, "cat \"$MNT/f\"", "two");
	cr_assert_gt(mounted_status(&one, "writeback.pending"), 0, "the loser writes on");
	cr_assert_eq(mounted_stop(&two), 0);
	mounted_kill(&one);
	mounted_start(&one, NULL);
	SAYS(&one, "cat \"$MNT/f\" && cat \"$STATE\"/unsent/*/f~*", "two\nlate");
	cr_assert_eq(mounted_stop(&one), 0);
}

/* Nobody can refuse the later of two, but the store keeps both, and so does the history. */
EITHER_WAY(what_was_written_over_is_in_the_history)
{
	struct proxy proxy;
	char options[128];

	begin(how);
	proxy_new(&proxy);
	snprintf(options, sizeof(options), "endpoint=%s", proxy.endpoint);
	mounted_start(&one, options);
	OK(shell(&one, "echo base >\"$MNT/f\""));
	mounted_settle(&one, 30);
	proxy_cut(&proxy);
	OK(shell(&one, "echo ours >\"$MNT/f\" && ls \"$MNT/.versions/f\""));
	s3_do(&one, "put f <<'E'\ntheirs\nE");
	proxy_restore(&proxy);
	mounted_settle(&one, 60);
	for (int tries = 0; tries < 300; tries++) {
		OK(shell(&one, "cd \"$MNT\" && cat f && cat .versions/f/* | sort"));
		if (strcmp(out, "ours\nbase\nours\ntheirs") == 0)
			break;
		usleep(100000);
	}
	cr_assert_str_eq(out, "ours\nbase\nours\ntheirs");
	cr_assert_eq(mounted_stop(&one), 0);
	proxy_free(&proxy);
}
