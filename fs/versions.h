/*
 * versions.h - the past as directories: the tree under `.versions` of every directory.
 *
 *	d/.versions/			every name that ever lived in d
 *	d/.versions/NAME/		its history, oldest first: 2026-11-20T08-00-00.000Z~77aa0b91.doc
 *	d/.versions/NAME/ALIAS		-1 (the newest) -2 …; @TIME or TIME (clock_parse_when: the newest not later than
 *the end of the unit written); 77aa0b91. Each also with the extension of NAME
 *	d/.versions/+log		what happened to the names of d, as TSV
 *	d/.versions/+deleted/		what was deleted from d and is not there again, as it was last; deleted
 *directories show what was deleted from them; live ones are there by name
 *	d/.versions/+at/TIME/		d at that instant, and everything beneath it
 *	d/.versions/+gmt/@GMT-…/	the same, under the names Samba asks for
 *
 * The `+…` entries are found by name and never listed. A name of d that is
 * itself one of them is shown with one more '+' in front.
 * A directory has no history of content: `.versions/SUB/` is empty; its past is
 * at `SUB/.versions/`, and once it is gone at `+deleted/SUB/` and `+at/TIME/SUB/`.
 * Those have a `.versions` by name too, whatever `snapdir` lists: the history of
 * that very directory, whoever has its name today.
 *
 * Everything here is read-only: whoever asks to write gets EROFS from the caller.
 *
 * Who may read: everything is reported so that default_permissions decides. A
 * directory has the mode of the live (or last) directory without write bits. A
 * version has its recorded owner and group, and the bits of its recorded mode
 * without write, setuid, setgid and sticky that grant nobody what the file it
 * belongs to as it is now, or the file that now has the name, refuses: see
 * versions_attr.h.
 *
 * Nodes are named by numbers with bit 62 set; they are derived from what the
 * node is, so the same thing has the same number in every mount. st_ino is
 * the node's number, but a version's is CACHE_VERSION | seq: the same version
 * under two names has two nodes, because their permissions may differ.
 *
 * Thread-safe. Waits for the store only through `reconcile`, up to
 * store_patience_ns, and holds no lock meanwhile. Errors: 0 or -errno; -ESTALE
 * for a node number that was forgotten.
 */
#ifndef VARVE_FS_VERSIONS_H
#define VARVE_FS_VERSIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "buf.h"

struct catalog;
struct content;
struct contents;
struct reconcile;
struct versions;
struct versions_dir;

#define VERSIONS_NODE (UINT64_C(1) << 62)

enum versions_snapdir {
	VERSIONS_SNAPDIR_HIDDEN,  /* there by name */
	VERSIONS_SNAPDIR_VISIBLE, /* and in readdir of every live directory */
	VERSIONS_SNAPDIR_OFF,
};

struct versions_options {
	struct catalog *catalog;
	struct contents *contents;   /* NULL: versions_open is -EOPNOTSUPP */
	struct reconcile *reconcile; /* NULL: what the catalog knows is all there is */
	const char *snapdir_name;    /* copied; NULL: ".versions" */
	enum versions_snapdir snapdir;
	int64_t store_patience_ns; /* 0: 10 s */
};
int versions_new(const struct versions_options *options, struct versions **ret_versions);
void versions_free(struct versions *versions); /* NULL is fine. All directories are closed. */

/* Is this the name under which a live directory has its past? Never with snapdir off. */
bool versions_is_snapdir(const struct versions *versions, const char *name);
/* Does readdir of a live directory show it? */
bool versions_is_visible(const struct versions *versions);
const char *versions_snapdir_name(const struct versions *versions);
/* A live file or directory that has the snapdir's name, because it was there before or others made it, is shown under
 * an escaped one (escape_clash). What `name` is shown as; and the reverse, "" for a name that stands for itself. */
const char *versions_shown(const struct versions *versions, const char *name);
const char *versions_meant(const struct versions *versions, const char *name);
/* What st_ino of the snapdir of live directory `dir` will be: for readdir where it is visible. */
uint64_t versions_snapdir_ino(uint64_t dir);
/* Bit 62 or 63: a number that no live inode has. */
bool versions_is_node(uint64_t nodeid);

struct versions_entry {
	uint64_t nodeid;
	struct stat stat;
	/* The name will mean this node for good: long entry timeout. Attributes follow the live file's mode: not
	 * theirs. */
	bool immutable;
};
/*
 * `parent` is one of our nodes, or a live directory's ino when `name` is the
 * snapdir name. "." in one of our nodes is itself. Counts one lookup.
 * -ENOENT, -ENOTDIR, -ESTALE; -EIO and others when a directory that was never listed cannot be.
 */
int versions_lookup(struct versions *versions, uint64_t parent, const char *name, struct versions_entry *ret_entry);
void versions_forget(struct versions *versions, uint64_t nodeid, uint64_t count);
int versions_getattr(struct versions *versions, uint64_t nodeid, struct stat *ret_stat);
int versions_readlink(struct versions *versions, uint64_t nodeid, struct buf *ret_target);

/* The entries as they are now; later changes do not show in this one. */
int versions_opendir(struct versions *versions, uint64_t nodeid, struct versions_dir **ret_dir);
void versions_closedir(struct versions_dir *dir);
/*
 * Entries behind `offset` (0: the first), "." and ".." first. stat has st_ino
 * and the type in st_mode, no more: readdirplus asks versions_lookup, which is
 * cheap after opendir. next_offset names the position behind the entry, for
 * this handle. Non-zero from visit stops and is returned: that entry was not taken.
 */
typedef int (*versions_visit)(void *arg, const char *name, const struct stat *stat, uint64_t next_offset);
int versions_readdir(struct versions_dir *dir, uint64_t offset, versions_visit visit, void *arg);

/* The content of a version file, a reference of the caller's (content_put). -EISDIR, -EINVAL for what has no content,
 * -EOPNOTSUPP for a text (below). */
int versions_open(struct versions *versions, uint64_t nodeid, struct content **ret_content);
/* `+log` is made when asked for: open it with direct_io and keep the text in the handle. */
bool versions_is_text(struct versions *versions, uint64_t nodeid);
int versions_text(struct versions *versions, uint64_t nodeid, struct buf *ret_text);

/* Full names ("user.varve.seq"). -ENODATA: no such attribute here. Listed are those that have a value, each with its
 * NUL. ret is appended to. */
int versions_getxattr(struct versions *versions, uint64_t nodeid, const char *name, struct buf *ret_value);
int versions_listxattr(struct versions *versions, uint64_t nodeid, struct buf *ret_names);

#endif
