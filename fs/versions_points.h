/*
 * versions_points.h - the instants worth showing under `+at`: when something changed beneath a directory.
 *
 * Thinned by age: the last change of each minute for an hour, of each hour for a week, then of each day.
 */
#ifndef VARVE_FS_VERSIONS_POINTS_H
#define VARVE_FS_VERSIONS_POINTS_H

#include <stddef.h>
#include <stdint.h>

struct catalog;

struct versions_points {
	int64_t *times; /* wall ns, ascending */
	size_t count, cap;
	int64_t now_ns; /* ages are counted from here */
	size_t thin_at; /* length at which to thin next */
};
void versions_points_clear(struct versions_points *points);

/* -ENOMEM. */
int versions_points_note(struct versions_points *points, int64_t ns);
/* Sorts, and keeps the last of each minute, hour or day. */
void versions_points_thin(struct versions_points *points);

/*
 * Reads the whole tree that is and was beneath `dir`, for at most patience_ns:
 * of a tree too large for that, some points are missing from the listing. Any
 * instant can be asked for all the same.
 */
int versions_points_find(struct catalog *catalog, uint64_t dir, int64_t patience_ns,
			 struct versions_points *ret_points);

#endif
