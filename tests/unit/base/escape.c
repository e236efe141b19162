/* Unit tests of base/escape.c: the forms, and the bijection over random byte strings. */
#include "escape.h"
#include "buf.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static const struct {
	const char *component;
	const char *name;
	const char *clash;
} forms[] = {
	{"report.doc", "report.doc", "%~=report.doc"},
	{"b\xc3\xa4r \xe2\x82\xac \xf0\x9f\x98\x80", "b\xc3\xa4r \xe2\x82\xac \xf0\x9f\x98\x80",
	 "%~=b\xc3\xa4r \xe2\x82\xac \xf0\x9f\x98\x80"},
	{"100%", "100%", "%~=100%25"},
	{"", "%~", "%~="},
	{".", "%~%2E", "%~=%2E"},
	{"..", "%~%2E%2E", "%~=%2E%2E"},
	{"...", "...", "%~=..."},
	{".versions", "%~.versions", "%~=.versions"},
	{".versions2", ".versions2", "%~=.versions2"},
	{"a\nb", "%~a%0Ab", "%~=a%0Ab"},
	{"\x7f", "%~%7F", "%~=%7F"},
	{"=\x01", "%~%3D%01", "%~==%01"},
	{"%~x", "%~%25~x", "%~=%25~x"},
	{"%~", "%~%25~", "%~=%25~"},
	{"\xff\xc3\xa4", "%~%FF\xc3\xa4", "%~=%FF\xc3\xa4"},
	{"\xc0\xaf", "%~%C0%AF", "%~=%C0%AF"},
	{"\xed\xa0\x80", "%~%ED%A0%80", "%~=%ED%A0%80"},
	{"\xf4\x90\x80\x80", "%~%F4%90%80%80", "%~=%F4%90%80%80"},
	{"a/b", "%~a%2Fb", "%~=a%2Fb"},
	{"cut\xe2\x82", "%~cut%E2%82", "%~=cut%E2%82"},
};

static void expect_decoded(const struct buf *name, const char *component, size_t len)
{
	AUTO_BUF decoded = BUF_INIT;

	cr_assert_eq(escape_decode(name->data, name->len, &decoded), 0, "%s", name->data);
	cr_assert_eq(decoded.len, len);
	cr_assert_eq(memcmp(decoded.data, component, len), 0);
}

Test(escape, each_form_is_as_documented_and_comes_back)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		size_t len = strlen(forms[i].component);
		AUTO_BUF name = BUF_INIT;
		AUTO_BUF clash = BUF_INIT;

		cr_assert_eq(escape_component(forms[i].component, len, &name),
			     strcmp(forms[i].component, forms[i].name) != 0);
		cr_assert_str_eq(name.data, forms[i].name);
		cr_assert_not(escape_is_clash(name.data, name.len));
		cr_assert_not(escape_is_digest(name.data, name.len));
		expect_decoded(&name, forms[i].component, len);
		escape_clash(forms[i].component, len, &clash);
		cr_assert_str_eq(clash.data, forms[i].clash);
		cr_assert(escape_is_clash(clash.data, clash.len));
		cr_assert_not(escape_is_digest(clash.data, clash.len));
		expect_decoded(&clash, forms[i].component, len);
	}
}

Test(escape, appends_and_keeps_what_was_there)
{
	AUTO_BUF name = BUF_INIT;

	buf_adds(&name, "d/");
	escape_component("\x01", 1, &name);
	escape_component("x", 1, &name);
	escape_clash("y", 1, &name);
	cr_assert_str_eq(name.data, "d/%~%01x%~=y");
}

Test(escape, a_nul_in_a_component_is_escaped)
{
	AUTO_BUF name = BUF_INIT;

	cr_assert(escape_component("a\0b", 3, &name));
	cr_assert_str_eq(name.data, "%~a%00b");
	expect_decoded(&name, "a\0b", 3);
}

Test(escape, what_encoding_never_gives_is_refused)
{
	static const char *const wrong[] = {
		"%~abc",                                  /* needs no escape */
		"%~%41",                                  /* neither does this */
		"%~a%0ab",                                /* small digits */
		"%~a%0",                                  /* half an escape */
		"%~%",     "%~%%",    "%~%GG",  "%~%2Ex", /* dots only in "." and ".." */
		"%~a\nb",                                 /* unescaped */
		"%~=%41",  "%~=\x01", "%~=%3D", "%~%01%3D", "", ".", "..", "a/b",
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		AUTO_BUF component = BUF_INIT;

		cr_assert_eq(escape_decode(wrong[i], strlen(wrong[i]), &component), -EINVAL, "%s", wrong[i]);
		cr_assert_eq(component.len, 0);
		cr_assert_not(buf_failed(&component));
	}
}

Test(escape, a_plain_name_is_its_own_component)
{
	static const char *const names[] = {"a\x01", "\xff", "100%41", "%", "a%~b"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_BUF component = BUF_INIT;

		cr_assert_eq(escape_decode(names[i], strlen(names[i]), &component), 0);
		cr_assert_str_eq(component.data, names[i]);
	}
}

Test(escape, too_long_is_a_prefix_and_a_digest)
{
	char long_a[300];
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF other = BUF_INIT;
	AUTO_BUF component = BUF_INIT;

	memset(long_a, 'a', sizeof(long_a));
	cr_assert_not(escape_component(long_a, 255, &name));
	cr_assert_eq(name.len, 255);
	buf_reset(&name);
	cr_assert(escape_component(long_a, 256, &name));
	cr_assert_eq(name.len, 255);
	cr_assert_eq(strncmp(name.data, "%~aaaa", 6), 0);
	cr_assert(escape_is_digest(name.data, name.len));
	cr_assert_eq(escape_decode(name.data, name.len, &component), -EINVAL);
	escape_component(long_a, 257, &other);
	cr_assert_str_neq(name.data, other.data);
	buf_reset(&other);
	/* 253 bytes fit behind no mark, but not behind the three of a clash. */
	escape_clash(long_a, 253, &other);
	cr_assert(escape_is_digest(other.data, other.len));
	cr_assert(escape_is_clash(other.data, other.len));
	buf_reset(&other);
	escape_clash(long_a, 252, &other);
	cr_assert_not(escape_is_digest(other.data, other.len));
	expect_decoded(&other, long_a, 252);
}

Test(escape, a_digest_prefix_ends_between_characters)
{
	AUTO_BUF component = BUF_INIT;

	for (int shift = 0; shift < 4; shift++) {
		AUTO_BUF name = BUF_INIT;

		buf_reset(&component);
		for (int i = 0; i < shift; i++)
			buf_addc(&component, 'x');
		for (int i = 0; i < 100; i++)
			buf_adds(&component, i % 2 ? "\xf0\x9f\x98\x80" : "\xff");
		escape_component(component.data, component.len, &name);
		cr_assert(escape_is_digest(name.data, name.len));
		cr_assert_leq(name.len, ESCAPE_NAME_MAX);
		cr_assert_gt(name.len, ESCAPE_NAME_MAX - 4);
		cr_assert(utf8_valid(name.data, name.len));
		/* The text before the digest is whole escapes. */
		cr_assert_neq(name.data[name.len - 35], '%');
		cr_assert_neq(name.data[name.len - 36], '%');
	}
}

/* xorshift: the same sequence every time. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Random bytes, but often those that mean something here. */
static void draw_component(uint64_t *state, struct buf *ret)
{
	static const char special[] = "%~=#.%25E./\n\x7f\0a";
	static const char *const pieces[] = {"%~", "%#", "%~=", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "%2E"};
	size_t count = draw(state) % (draw(state) % 8 == 0 ? 300 : 6);

	buf_reset(ret);
	for (size_t i = 0; i < count; i++) {
		uint64_t choice = draw(state) % 4;

		if (choice == 0)
			buf_addc(ret, (char)draw(state));
		else if (choice == 1)
			buf_addc(ret, special[draw(state) % (sizeof(special) - 1)]);
		else if (choice == 2)
			buf_adds(ret, pieces[draw(state) % ARRAY_SIZE(pieces)]);
		else
			buf_addc(ret, (char)('a' + draw(state) % 26));
	}
}

static void expect_name(const struct buf *name)
{
	cr_assert_geq(name->len, 1);
	cr_assert_leq(name->len, ESCAPE_NAME_MAX);
	cr_assert_not(buf_failed(name));
	cr_assert_null(memchr(name->data, '/', name->len));
	cr_assert_null(memchr(name->data, '\0', name->len));
	cr_assert_str_neq(name->data, ".");
	cr_assert_str_neq(name->data, "..");
	cr_assert(utf8_valid(name->data, name->len));
	for (size_t i = 0; i < name->len; i++)
		cr_assert((unsigned char)name->data[i] >= 0x20 && name->data[i] != 0x7f);
}

Test(escape, random_components_become_names_and_come_back)
{
	uint64_t state = UINT64_C(0x853c49e6748fea9b);
	AUTO_BUF component = BUF_INIT;
	size_t digests = 0;
	size_t escaped = 0;

	for (int i = 0; i < 200000; i++) {
		AUTO_BUF name = BUF_INIT;
		bool differs;
		bool clash = draw(&state) % 4 == 0;

		draw_component(&state, &component);
		if (clash)
			escape_clash(component.data, component.len, &name);
		differs = !clash && escape_component(component.data, component.len, &name);
		expect_name(&name);
		cr_assert_eq(escape_is_clash(name.data, name.len), clash);
		if (!clash)
			cr_assert_eq(differs,
				     name.len != component.len || memcmp(name.data, component.data, name.len) != 0);
		escaped += differs;
		if (escape_is_digest(name.data, name.len))
			digests++;
		else
			expect_decoded(&name, component.data, component.len);
	}
	cr_assert_gt(digests, 100);
	cr_assert_gt(escaped, 1000);
}

/* The other direction: an escaped name that is accepted is what its component encodes to. */
Test(escape, random_names_decode_only_from_the_one_encoding)
{
	uint64_t state = UINT64_C(0xda942042e4dd58b5);
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF tail = BUF_INIT;
	size_t accepted = 0;

	for (int i = 0; i < 200000; i++) {
		AUTO_BUF component = BUF_INIT;
		AUTO_BUF again = BUF_INIT;

		draw_component(&state, &tail);
		buf_reset(&name);
		buf_adds(&name, draw(&state) % 2 ? "%~" : "%~=");
		buf_add(&name, tail.data, tail.len);
		if (escape_decode(name.data, name.len, &component))
			continue;
		accepted++;
		if (escape_is_clash(name.data, name.len))
			escape_clash(component.data, component.len, &again);
		else
			escape_component(component.data, component.len, &again);
		cr_assert_eq(again.len, name.len);
		cr_assert_eq(memcmp(again.data, name.data, name.len), 0);
	}
	cr_assert_gt(accepted, 1000);
}

Test(utf8, well_formed_and_not)
{
	static const char *const good[] = {"",
					   "a",
					   "\xc2\x80",
					   "\xdf\xbf",
					   "\xe0\xa0\x80",
					   "\xed\x9f\xbf",
					   "\xee\x80\x80",
					   "\xf0\x90\x80\x80",
					   "\xf4\x8f\xbf\xbf"};
	static const char *const bad[] = {"\x80",
					  "\xbf",
					  "\xc0\x80",
					  "\xc1\xbf",
					  "\xe0\x9f\xbf",
					  "\xed\xa0\x80",
					  "\xf0\x8f\xbf\xbf",
					  "\xf4\x90\x80\x80",
					  "\xf5\x80\x80\x80",
					  "\xff",
					  "\xc2",
					  "\xe2\x82",
					  "\xf0\x9f\x98",
					  "\xc2"
					  "a",
					  "\xe2\x82"
					  "a"};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		cr_assert(utf8_valid(good[i], strlen(good[i])), "good %zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_not(utf8_valid(bad[i], strlen(bad[i])), "bad %zu", i);
}

Test(escape, text_for_tables_and_logs)
{
	AUTO_BUF text = BUF_INIT;

	escape_text("a\tb\nc\\d\r\x1b\x7f\xc3\xa4\0e", 14, &text);
	cr_assert_str_eq(text.data, "a\\tb\\nc\\\\d\\x0d\\x1b\\x7f\xc3\xa4\\x00e");
}
