/*
 * http_fields.c - lists of names and values: headers of requests and replies, parameters of queries.
 *
 * Invariant: every item owns both of its strings; after a failed allocation the list keeps what it had and `failed`
 * is set. No threads: a list belongs to one request.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "array.h"
#include "http.h"

static struct http_field *fields_find(const struct http_fields *fields, const char *name)
{
	for (size_t i = 0; i < fields->count; i++)
		if (strcasecmp(fields->items[i].name, name) == 0)
			return &fields->items[i];
	return NULL;
}

/* Takes over value, NULL included (no memory). */
static void fields_put(struct http_fields *fields, const char *name, char *value)
{
	char *copy = strdup(name);
	if (!copy || !value || ARRAY_ROOM(fields->items, fields->room, fields->count)) {
		free(copy);
		free(value);
		fields->failed = true;
		return;
	}
	fields->items[fields->count++] = (struct http_field){.name = copy, .value = value};
}

void http_fields_add(struct http_fields *fields, const char *name, const char *value)
{
	fields_put(fields, name, strdup(value));
}

void http_fields_addf(struct http_fields *fields, const char *name, const char *format, ...)
{
	char *value;
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(&value, format, ap);
	va_end(ap);
	fields_put(fields, name, n < 0 ? NULL : value);
}

const char *http_fields_get(const struct http_fields *fields, const char *name)
{
	const struct http_field *field = fields_find(fields, name);
	return field ? field->value : NULL;
}

void http_fields_clear(struct http_fields *fields)
{
	for (size_t i = 0; i < fields->count; i++) {
		free(fields->items[i].name);
		free(fields->items[i].value);
	}
	free(fields->items);
	*fields = (struct http_fields){0};
}
