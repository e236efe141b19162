/*
 * version.h - the one place that says which varve this is; a build may override it by -DVARVE_VERSION.
 */
#ifndef VARVE_VERSION_H
#define VARVE_VERSION_H

#ifndef VARVE_VERSION
#define VARVE_VERSION "0.1.0"
#endif

#endif
