/*
 * banned.h - calls that have no safe use here, turned into compile errors.
 *
 * The Makefile includes it before every source file. The headers that declare
 * the banned functions come first, so that only our own code meets the macros.
 */
#ifndef VARVE_BANNED_H
#define VARVE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define BANNED(function) sorry_##function##_is_banned

/* No bound on what is written. */
#undef strcpy
#define strcpy(...) BANNED(strcpy)
#undef stpcpy
#define stpcpy(...) BANNED(stpcpy)
#undef strcat
#define strcat(...) BANNED(strcat)
#undef sprintf
#define sprintf(...) BANNED(sprintf)
#undef vsprintf
#define vsprintf(...) BANNED(vsprintf)
#undef gets
#define gets(...) BANNED(gets)

/* A bound that is not what it seems: no NUL when full, or a count of what is left. */
#undef strncpy
#define strncpy(...) BANNED(strncpy)
#undef stpncpy
#define stpncpy(...) BANNED(stpncpy)
#undef strncat
#define strncat(...) BANNED(strncat)

/* Hidden static state: not for a program with threads. */
#undef strtok
#define strtok(...) BANNED(strtok)
#undef localtime
#define localtime(...) BANNED(localtime)
#undef gmtime
#define gmtime(...) BANNED(gmtime)
#undef ctime
#define ctime(...) BANNED(ctime)
#undef ctime_r
#define ctime_r(...) BANNED(ctime_r)
#undef asctime
#define asctime(...) BANNED(asctime)
#undef asctime_r
#define asctime_r(...) BANNED(asctime_r)

/* No way to tell an error from a number. */
#undef atoi
#define atoi(...) BANNED(atoi)
#undef atol
#define atol(...) BANNED(atol)
#undef atoll
#define atoll(...) BANNED(atoll)
#undef atof
#define atof(...) BANNED(atof)

/* Names that others can guess, and memory that no one can bound. */
#undef mktemp
#define mktemp(...) BANNED(mktemp)
#undef tmpnam
#define tmpnam(...) BANNED(tmpnam)
#undef tempnam
#define tempnam(...) BANNED(tempnam)
#undef alloca
#define alloca(...) BANNED(alloca)

#endif
