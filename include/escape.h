/*
 * escape.h - object keys to file names and back, losing nothing.
 *
 * A key component is an arbitrary byte string; a file name is 1..255 bytes
 * without '/' and NUL and is not "." or "..". What cannot be a name is shown
 * as "%XX" escapes behind the marker "%~" and maps back to exactly the key it
 * came from; a plain name that itself starts with "%~" is escaped too, so the
 * mapping is a bijection. Over-long components are shown as a prefix plus a
 * digest, and only the catalog can tell their key (escape_is_digest).
 *
 * Escaped: empty components ("a//b" has one), ".", "..", bytes < 0x20, 0x7f,
 * invalid UTF-8 bytes, components over 255 bytes (after escaping), and the name
 * by which every directory has its past: an object of that name is no way there.
 */
#ifndef VARVE_ESCAPE_H
#define VARVE_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

#define ESCAPE_NAME_MAX 255
#define ESCAPE_SNAPDIR ".versions"

struct buf;

/* Appends the file name for one key component. True when it differs from the component. */
bool escape_component(const char *component, size_t len, struct buf *ret_name);

/* Appends the key component for a file name. 0, or -EINVAL when the name is a digest form or a malformed escape. */
int escape_decode(const char *name, size_t len, struct buf *ret_component);

/* An object `a` beside objects `a/…` cannot have the directory's name: it is shown under this one ("%~=" and the name).
 * escape_decode gives the plain component back. */
void escape_clash(const char *component, size_t len, struct buf *ret_name);
bool escape_is_clash(const char *name, size_t len);

bool escape_is_digest(const char *name, size_t len);
bool utf8_valid(const char *bytes, size_t len);

/* For TSV and logs: tab, newline, backslash and control bytes as \t \n \\ \xNN. */
void escape_text(const char *bytes, size_t len, struct buf *ret_text);

#endif
