/*
 * escape.c - key components to file names and back.
 *
 * The forms of a name:
 *     text                  the component itself
 *     %~ESC                 escaped: ESC does not begin with '='
 *     %~=ESC                the clash form of any component
 *     %~[=]ESC%#DIGEST      too long: ESC is a prefix, DIGEST 32 hex digits of the whole component's SHA-256
 * In ESC every byte that cannot be shown, and every '%', is %XX in capitals.
 * So "%#" occurs in the digest form alone, and the forms cannot be mistaken
 * for one another. Decoding accepts only what encoding gives: for every
 * component C decode(encode(C)) == C, and for every escaped name N that is
 * accepted encode(decode(N)) == N.
 *
 * A plain name is its own component even when encoding would show that
 * component otherwise (an application may create a name with a control byte).
 *
 * Threads: all functions are pure.
 */
#include "escape.h"
#include "buf.h"
#include "checksum.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define MARK "%~"
#define MARK_LEN 2
#define CLASH_MARK "%~="
#define CLASH_MARK_LEN 3
#define DIGEST_MARK "%#"
#define DIGEST_MARK_LEN 2
#define DIGEST_HEX_LEN 32
#define DIGEST_LEN (DIGEST_MARK_LEN + DIGEST_HEX_LEN)

/* Length of the well-formed UTF-8 character at `at` (Unicode table 3-7: shortest forms, no surrogates), or 0. */
static size_t utf8_char(const uint8_t *at, size_t len)
{
	uint8_t low = 0x80;
	uint8_t high = 0xbf;
	size_t size;

	if (at[0] < 0x80)
		return 1;
	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		size = 2;
	else if (at[0] >= 0xe0 && at[0] <= 0xef)
		size = 3;
	else if (at[0] >= 0xf0 && at[0] <= 0xf4)
		size = 4;
	else
		return 0;
	if (at[0] == 0xe0)
		low = 0xa0;
	else if (at[0] == 0xed)
		high = 0x9f;
	else if (at[0] == 0xf0)
		low = 0x90;
	else if (at[0] == 0xf4)
		high = 0x8f;
	if (len < size || at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < size; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	return size;
}

bool utf8_valid(const char *bytes, size_t len)
{
	const uint8_t *at = (const uint8_t *)bytes;

	while (len) {
		size_t size = utf8_char(at, len);

		if (!size)
			return false;
		at += size;
		len -= size;
	}
	return true;
}

static bool is_control(uint8_t byte)
{
	return byte < 0x20 || byte == 0x7f;
}

static bool is_dots(const char *text, size_t len)
{
	return (len == 1 && text[0] == '.') || (len == 2 && text[0] == '.' && text[1] == '.');
}

static bool starts_with(const char *text, size_t len, const char *start)
{
	size_t start_len = strlen(start);

	return len >= start_len && memcmp(text, start, start_len) == 0;
}

/* Can the component stand as a name as it is? */
static bool is_plain(const char *component, size_t len)
{
	if (len == 0 || len > ESCAPE_NAME_MAX || is_dots(component, len) || starts_with(component, len, MARK))
		return false;
	if (len == strlen(ESCAPE_SNAPDIR) && starts_with(component, len, ESCAPE_SNAPDIR))
		return false;
	for (size_t i = 0; i < len; i++)
		if (is_control((uint8_t)component[i]) || component[i] == '/')
			return false;
	return utf8_valid(component, len);
}

enum form { FORM_ESCAPED, FORM_CLASH };

/* What stands for one character at `at` in ESC: its size in the component is returned, the text goes to `piece`. */
static size_t escape_char(const uint8_t *at, size_t len, bool must_escape, struct buf *piece)
{
	size_t size = utf8_char(at, len);

	buf_reset(piece);
	if (size == 0 || must_escape || is_control(at[0]) || at[0] == '%' || at[0] == '/') {
		buf_addf(piece, "%%%02X", at[0]);
		return 1;
	}
	buf_add(piece, at, size);
	return size;
}

/* Appends the escaped or clash form, or their digest form when that is longer than a name can be. */
static void encode(const char *component, size_t len, enum form form, struct buf *ret_name)
{
	const char *mark = form == FORM_CLASH ? CLASH_MARK : MARK;
	bool dots = is_dots(component, len);
	size_t start = ret_name->len;
	AUTO_BUF piece = BUF_INIT;
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];
	size_t prefix_end;

	buf_adds(ret_name, mark);
	prefix_end = ret_name->len;
	for (size_t i = 0; i < len && ret_name->len - start <= ESCAPE_NAME_MAX && !buf_failed(ret_name);) {
		bool must_escape = dots || (i == 0 && component[0] == '=' && form == FORM_ESCAPED);

		i += escape_char((const uint8_t *)component + i, len - i, must_escape, &piece);
		buf_add(ret_name, piece.data, piece.len);
		if (ret_name->len - start <= ESCAPE_NAME_MAX - DIGEST_LEN)
			prefix_end = ret_name->len;
	}
	if (buf_failed(&piece))
		ret_name->failed = true;
	if (buf_failed(ret_name) || ret_name->len - start <= ESCAPE_NAME_MAX)
		return;
	sha256_of(component, len, digest);
	hex_encode(digest, sizeof(digest), hex);
	ret_name->len = prefix_end;
	buf_adds(ret_name, DIGEST_MARK);
	buf_add(ret_name, hex, DIGEST_HEX_LEN);
}

bool escape_component(const char *component, size_t len, struct buf *ret_name)
{
	if (is_plain(component, len)) {
		buf_add(ret_name, component, len);
		return false;
	}
	encode(component, len, FORM_ESCAPED, ret_name);
	return true;
}

void escape_clash(const char *component, size_t len, struct buf *ret_name)
{
	encode(component, len, FORM_CLASH, ret_name);
}

bool escape_is_clash(const char *name, size_t len)
{
	return starts_with(name, len, CLASH_MARK);
}

bool escape_is_digest(const char *name, size_t len)
{
	if (!starts_with(name, len, MARK) || len < MARK_LEN + DIGEST_LEN ||
	    !starts_with(name + len - DIGEST_LEN, DIGEST_LEN, DIGEST_MARK))
		return false;
	for (size_t i = len - DIGEST_HEX_LEN; i < len; i++)
		if (!(name[i] >= '0' && name[i] <= '9') && !(name[i] >= 'a' && name[i] <= 'f'))
			return false;
	return true;
}

static int hex_capital(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Undoes every %XX. 0, or -EINVAL at a '%' without two capital digits. */
static int unescape(const char *text, size_t len, struct buf *component)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '%') {
			buf_addc(component, text[i]);
			continue;
		}
		if (len - i < 3 || hex_capital(text[i + 1]) < 0 || hex_capital(text[i + 2]) < 0)
			return -EINVAL;
		buf_addc(component, (char)(hex_capital(text[i + 1]) << 4 | hex_capital(text[i + 2])));
		i += 2;
	}
	return 0;
}

static int decode_escaped(const char *name, size_t len, struct buf *ret_component)
{
	enum form form = escape_is_clash(name, len) ? FORM_CLASH : FORM_ESCAPED;
	size_t mark_len = form == FORM_CLASH ? CLASH_MARK_LEN : MARK_LEN;
	AUTO_BUF component = BUF_INIT;
	AUTO_BUF again = BUF_INIT;

	if (escape_is_digest(name, len) || unescape(name + mark_len, len - mark_len, &component))
		return -EINVAL;
	/* Only the one form that encoding gives: what it would show otherwise, or needs no escape, is refused. */
	if (form == FORM_CLASH)
		escape_clash(component.data, component.len, &again);
	else
		(void)escape_component(component.data, component.len, &again); /* the comparison below tells */
	if (buf_failed(&component) || buf_failed(&again))
		ret_component->failed = true;
	else if (again.len != len || memcmp(again.data, name, len) != 0)
		return -EINVAL;
	buf_add(ret_component, component.data, component.len);
	return 0;
}

int escape_decode(const char *name, size_t len, struct buf *ret_component)
{
	if (len == 0 || len > ESCAPE_NAME_MAX || is_dots(name, len) || memchr(name, '/', len) ||
	    memchr(name, '\0', len))
		return -EINVAL;
	if (starts_with(name, len, MARK))
		return decode_escaped(name, len, ret_component);
	buf_add(ret_component, name, len);
	return 0;
}

void escape_text(const char *bytes, size_t len, struct buf *ret_text)
{
	for (size_t i = 0; i < len; i++) {
		switch (bytes[i]) {
		case '\t':
			buf_adds(ret_text, "\\t");
			break;
		case '\n':
			buf_adds(ret_text, "\\n");
			break;
		case '\\':
			buf_adds(ret_text, "\\\\");
			break;
		default:
			if (is_control((uint8_t)bytes[i]))
				buf_addf(ret_text, "\\x%02x", (uint8_t)bytes[i]);
			else
				buf_addc(ret_text, bytes[i]);
		}
	}
}
