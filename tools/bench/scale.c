/*
 * scale.c - what a mount costs when there is much of everything: files, names in one directory, versions of one file,
 * bytes in one file. Writes straight into catalogs, mounts them, measures through the kernel; not part of varve.
 *
 *     scale VARVE NEW-DIR [--quick] [directories] [versions] [past] [sparse] [trees]
 *
 * The large file has 20 GiB, VARVE_SCALE_GIB if that is set; the store's directory takes twice as much meanwhile.
 *
 * Prints a table to stderr and JSON to stdout. The comparison is made within one run: the same work on a small catalog
 * and on a large one, by the time that the daemon computes. Ends with 1 when a ratio is missed, or, but for --quick,
 * one of the times that are promised.
 *
 * The store is a directory that holds none of the objects: what the catalogs say of them is never asked for, since
 * every directory counts as listed just now, and measuring ends before that is too long ago.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "catalog.h"
#include "clock.h"

#define IN_DIR 100   /* files of a directory */
#define LOOK_DIRS 20 /* of which all files are looked up */
#define WAIT_NS (600 * NS_PER_SEC)
/* A listing is young for a minute; one from the near future for two. */
#define LISTED_AHEAD_NS (55 * NS_PER_SEC)

struct sizes {
	uint64_t small, large;    /* files */
	uint64_t wide, narrow;    /* names in one directory */
	uint64_t many, few;       /* versions of one file */
	uint64_t forest, grove;   /* files of a tree whose past is looked at */
	uint64_t sparse, written; /* bytes */
};

static const struct sizes full = {
	10000, 1000000, 100000, 1000, 10000, 100, 100000, 4000, UINT64_C(20) << 30, UINT64_C(64) << 20};
static const struct sizes quick = {
	4000, 80000, 20000, 1000, 2000, 100, 40000, 4000, UINT64_C(96) << 20, UINT64_C(10) << 20};

static const char *varve;
static char base[300];
static int missed;
static bool first_figure = true;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "scale: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void must_rc(int rc, const char *what)
{
	errno = -rc;
	must(rc == 0, what);
}

/* --- figures --------------------------------------------------------------------------------------------- */

/* `most` 0: only told. */
static void figure(const char *name, double value, const char *unit, double most)
{
	bool bad = most > 0 && value > most;

	missed += bad;
	(void)printf("%s\n  \"%s\": %.6g", first_figure ? "{" : ",", name, value);
	(void)fprintf(stderr, "%-44s %12.3f %-5s", name, value, unit);
	if (most > 0)
		(void)fprintf(stderr, " %s %.3f", bad ? "MISSED" : "within", most);
	(void)fprintf(stderr, "\n");
	first_figure = false;
}

/* Under a sanitizer memory is its own. */
static double memory_bound(double mib)
{
	const char *sanitizer = getenv("SAN");

	return sanitizer && *sanitizer ? 0 : mib;
}

static double us_since(int64_t began, uint64_t each)
{
	return (double)(clock_monotonic() - began) / 1000.0 / (double)(each ? each : 1);
}

static double seconds_since(int64_t began)
{
	return (double)(clock_monotonic() - began) / (double)NS_PER_SEC;
}

/* --- a mount --------------------------------------------------------------------------------------------- */

struct place {
	char state[320], store[320], mnt[320], url[340];
	const char *options;
	pid_t pid;
};

static void place_init(struct place *place, const char *name, const char *options)
{
	char dir[310];

	*place = (struct place){.options = options};
	(void)snprintf(dir, sizeof(dir), "%s/%s", base, name);
	must(mkdir(dir, 0700) == 0, dir);
	(void)snprintf(place->state, sizeof(place->state), "%s/state", dir);
	(void)snprintf(place->store, sizeof(place->store), "%s/store", dir);
	(void)snprintf(place->mnt, sizeof(place->mnt), "%s/mnt", dir);
	(void)snprintf(place->url, sizeof(place->url), "file://%s", place->store);
	must(mkdir(place->mnt, 0700) == 0, place->mnt);
}

static bool is_mounted(const struct place *place)
{
	struct stat dir, parent;
	char path[330];

	(void)snprintf(path, sizeof(path), "%s/..", place->mnt);
	return stat(place->mnt, &dir) == 0 && stat(place->state, &parent) == 0 && dir.st_dev != parent.st_dev;
}

static struct place *mounted_place;

static void unmount_at_exit(void)
{
	if (!mounted_place)
		return;
	(void)umount2(mounted_place->mnt, MNT_DETACH);
	(void)kill(mounted_place->pid, SIGKILL);
}

/* Returns the seconds until it answers. */
static double place_mount(struct place *place)
{
	int64_t began = clock_monotonic();
	char options[700];

	(void)snprintf(options, sizeof(options), "state=%s,create%s%s", place->state, place->options ? "," : "",
		       place->options ? place->options : "");
	(void)fflush(NULL);
	place->pid = fork();
	must(place->pid >= 0, "fork");
	if (place->pid == 0) {
		(void)dup2(STDERR_FILENO, STDOUT_FILENO);
		(void)execl(varve, "varve", "mount", place->url, place->mnt, "-f", "-o", options, (char *)NULL);
		_exit(127);
	}
	mounted_place = place;
	while (!is_mounted(place)) {
		must(waitpid(place->pid, NULL, WNOHANG) == 0 && clock_monotonic() - began < WAIT_NS, "mount");
		(void)usleep(2000);
	}
	return seconds_since(began);
}

static void run_verb(const struct place *place, const char *verb)
{
	pid_t pid = fork();
	int status;

	must(pid >= 0, "fork");
	if (pid == 0) {
		(void)dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		(void)execl(varve, "varve", verb, place->mnt, (char *)NULL);
		_exit(127);
	}
	must(waitpid(pid, &status, 0) == pid && status == 0, verb);
}

static void place_unmount(struct place *place)
{
	run_verb(place, "umount");
	(void)waitpid(place->pid, NULL, 0);
	mounted_place = NULL;
}

/* What the daemon has computed so far: what is compared is its work, whatever else the machine does. */
static int64_t work_ns(const struct place *place)
{
	clockid_t clock;
	struct timespec now;

	must(clock_getcpuclockid(place->pid, &clock) == 0 && clock_gettime(clock, &now) == 0, "cpu time");
	return clock_from_timespec(now);
}

/* KiB of a line of /proc/PID/status. */
static double memory_of(const struct place *place, const char *line)
{
	char path[64], text[256];
	size_t len = strlen(line);
	double kib = 0;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", place->pid);
	file = fopen(path, "r");
	must(file, path);
	while (fgets(text, sizeof(text), file))
		if (strncmp(text, line, len) == 0)
			kib = strtod(text + len + 1, NULL);
	(void)fclose(file);
	return kib;
}

static uint64_t disk_bytes;

static int add_blocks(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)path;
	(void)flag;
	(void)ftw;
	disk_bytes += (uint64_t)st->st_blocks * 512;
	return 0;
}

static double disk_of(const struct place *place, const char *part)
{
	char path[340];

	(void)snprintf(path, sizeof(path), "%s/%s", place->state, part);
	disk_bytes = 0;
	must(nftw(path, add_blocks, 16, FTW_PHYS) == 0, path);
	return (double)disk_bytes / (1 << 20);
}

/* --- catalogs -------------------------------------------------------------------------------------------- */

static struct catalog *catalog;

static void open_catalog(const struct place *place)
{
	const struct catalog_options options = {.root_mode = S_IFDIR | 0755};
	char dir[340];

	(void)snprintf(dir, sizeof(dir), "%s/catalog", place->state);
	must_rc(catalog_open(dir, &options, &catalog), "catalog");
}

static void close_catalog(void)
{
	catalog_close(catalog);
	catalog = NULL;
}

struct found {
	struct cat_found *found;
	char (*names)[24], (*keys)[48], (*ids)[40];
};

static struct found found_new(uint64_t count)
{
	struct found found = {calloc(count, sizeof(struct cat_found)), calloc(count, 24), calloc(count, 48),
			      calloc(count, 40)};

	must(found.found && found.names && found.keys && found.ids, "memory");
	return found;
}

static void found_free(struct found *found)
{
	free(found->found);
	free(found->names);
	free(found->keys);
	free(found->ids);
}

static void take(uint64_t dir, const struct found *found, uint64_t count)
{
	struct cat_adopt adopt = {.dir = dir,
				  .found = found->found,
				  .count = count,
				  .file_mode = 0644,
				  .dir_mode = 0755,
				  .listed_at = clock_wall()};

	must_rc(catalog_adopt(catalog, &adopt), "adopt");
}

/* `count` subdirectories, or files, named by their number. */
static void fill(uint64_t dir, const char *prefix, uint64_t count, bool directories)
{
	struct found found = found_new(count);

	for (uint64_t i = 0; i < count; i++) {
		(void)snprintf(found.names[i], 24, "%c%06" PRIu64, directories ? 'd' : 'f', i);
		(void)snprintf(found.keys[i], 48, "%s%s%s", prefix, found.names[i], directories ? "/" : "");
		(void)snprintf(found.ids[i], 40, "%016" PRIx64 "%08" PRIx64, (uint64_t)clock_wall(), i);
		found.found[i] = (struct cat_found){
			.name = found.names[i],
			.key = found.keys[i],
			.native_id = directories ? NULL : found.ids[i],
			.etag = directories ? NULL : found.ids[i],
			.size = directories ? 0 : 4096,
			.modified_ns = clock_wall(),
			.directory = directories,
			.resolved = true,
			.mode = directories ? S_IFDIR | 0755 : S_IFREG | 0644,
			.mtime = clock_wall(),
		};
	}
	take(dir, &found, count);
	found_free(&found);
}

static uint64_t find(uint64_t parent, const char *name)
{
	struct cat_inode inode;

	must_rc(catalog_lookup(catalog, parent, name, &inode), name);
	return inode.ino;
}

static void fill_tree(uint64_t dirs)
{
	char name[24], prefix[32];

	fill(CAT_ROOT_INO, "", dirs, true);
	for (uint64_t i = 0; i < dirs; i++) {
		(void)snprintf(name, sizeof(name), "d%06" PRIu64, i);
		(void)snprintf(prefix, sizeof(prefix), "%s/", name);
		fill(find(CAT_ROOT_INO, name), prefix, IN_DIR, false);
	}
}

struct dirs {
	uint64_t *inos;
	size_t count;
};

static int take_dir(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	struct dirs *dirs = arg;

	(void)inode;
	if (S_ISDIR(name->type))
		dirs->inos[dirs->count++] = name->ino;
	return 0;
}

static int list_now(struct cat_txn *txn, void *arg)
{
	const struct dirs *dirs = arg;
	struct cat_inode inode;
	int rc = 0;

	for (size_t i = 0; i < dirs->count && !rc; i++) {
		rc = cat_inode_get(txn, dirs->inos[i], &inode);
		inode.listed_at = clock_wall() + LISTED_AHEAD_NS;
		inode.flags |= CAT_LISTED;
		rc = rc ? rc : cat_inode_put(txn, &inode);
	}
	return rc;
}

/* Nobody shall look into the store soon. */
static void freshen(const struct place *place, uint64_t dirs_max)
{
	struct dirs dirs = {.inos = calloc(dirs_max + 1, sizeof(uint64_t))};
	struct cat_readdir request = {.parent = CAT_ROOT_INO, .max = dirs_max};

	must(dirs.inos, "memory");
	open_catalog(place);
	dirs.inos[dirs.count++] = CAT_ROOT_INO;
	must_rc(catalog_readdir(catalog, &request, take_dir, &dirs), "readdir");
	must_rc(catalog_update(catalog, list_now, &dirs), "listed");
	close_catalog();
	free(dirs.inos);
}

/* What is compared is work, not the disk: both catalogs are in the page cache. */
static void warm(const struct place *place)
{
	char path[340], bytes[4096];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/catalog/data.mdb", place->state);
	fd = open(path, O_RDONLY);
	must(fd >= 0, path);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
	(void)close(fd);
}

/* --- measuring through the kernel -------------------------------------------------------------------------- */

/* What one operation costs: until the answer is there, and of the daemon's time. */
struct cost {
	double us, work_us;
};

/* stat of every file of some directories, each asked for the first time. */
static struct cost lookup_cost(const struct place *place, uint64_t dirs)
{
	uint64_t looked = 0;
	char path[400];
	struct stat st;
	int64_t began = 0, worked = work_ns(place);
	double us = 0;

	for (uint64_t i = 0; i < LOOK_DIRS && i < dirs; i++) {
		uint64_t dir = i * (dirs / (LOOK_DIRS < dirs ? LOOK_DIRS : dirs));

		(void)snprintf(path, sizeof(path), "%s/d%06" PRIu64, place->mnt, dir);
		must(stat(path, &st) == 0, path);
		began = clock_monotonic();
		for (uint64_t f = 0; f < IN_DIR; f++, looked++) {
			(void)snprintf(path, sizeof(path), "%s/d%06" PRIu64 "/f%06" PRIu64, place->mnt, dir,
				       f * 37 % IN_DIR);
			must(stat(path, &st) == 0, path);
		}
		us += us_since(began, 1);
	}
	return (struct cost){us / (double)looked, (double)(work_ns(place) - worked) / 1000.0 / (double)looked};
}

static uint64_t read_directory(const char *path)
{
	uint64_t count = 0;
	DIR *dir = opendir(path);

	must(dir, path);
	for (struct dirent *at = readdir(dir); at; at = readdir(dir))
		count += at->d_name[0] != '.';
	(void)closedir(dir);
	return count;
}

static struct cost readdir_cost(const struct place *place, uint64_t dirs)
{
	uint64_t names = 0;
	char path[400];
	int64_t began = clock_monotonic(), worked = work_ns(place);

	for (uint64_t i = 0; i < LOOK_DIRS && i < dirs; i++) {
		uint64_t dir = i * (dirs / (LOOK_DIRS < dirs ? LOOK_DIRS : dirs)) + dirs / LOOK_DIRS / 2;

		(void)snprintf(path, sizeof(path), "%s/d%06" PRIu64, place->mnt, dir % dirs);
		names += read_directory(path);
	}
	return (struct cost){us_since(began, names), (double)(work_ns(place) - worked) / 1000.0 / (double)names};
}

struct tree {
	double mount_s, rss_kib, anon_kib, catalog_mib, fill_s;
	struct cost lookup, readdir;
};

/* Until it has nothing to do: it ships its catalog after a fill. */
static void rest(const struct place *place)
{
	for (int tries = 0; tries < 200; tries++) {
		int64_t before = work_ns(place);

		(void)usleep(300000);
		if (work_ns(place) - before < 2 * NS_PER_MS)
			break;
	}
}

/* Once mounted and unmounted, so that what is owed to the store after a fill is no part of the measurement. */
static void settle(struct place *place, uint64_t dirs)
{
	freshen(place, dirs);
	(void)place_mount(place);
	rest(place);
	place_unmount(place);
	freshen(place, dirs);
}

static struct tree measure_tree(const char *name, uint64_t files)
{
	uint64_t dirs = files / IN_DIR;
	struct place place;
	struct tree tree = {0};
	int64_t began;

	place_init(&place, name, NULL);
	(void)place_mount(&place);
	place_unmount(&place);
	began = clock_monotonic();
	open_catalog(&place);
	fill_tree(dirs);
	close_catalog();
	tree.fill_s = seconds_since(began);
	settle(&place, dirs);
	warm(&place);
	tree.mount_s = place_mount(&place);
	rest(&place);
	tree.lookup = lookup_cost(&place, dirs);
	tree.readdir = readdir_cost(&place, dirs);
	tree.rss_kib = memory_of(&place, "VmRSS");
	tree.anon_kib = memory_of(&place, "RssAnon");
	place_unmount(&place);
	tree.catalog_mib = disk_of(&place, "catalog");
	return tree;
}

static void trees(const struct sizes *sizes, bool promised)
{
	struct tree small = measure_tree("small", sizes->small), large = measure_tree("large", sizes->large);

	figure("small.files", (double)sizes->small, "", 0);
	figure("large.files", (double)sizes->large, "", 0);
	figure("large.fill_s", large.fill_s, "s", 0);
	figure("small.mount_s", small.mount_s, "s", 0);
	figure("large.mount_s", large.mount_s, "s", promised ? 1 : 0);
	figure("small.lookup_us", small.lookup.us, "us", 0);
	figure("large.lookup_us", large.lookup.us, "us", 0);
	figure("small.lookup_work_us", small.lookup.work_us, "us", 0);
	figure("large.lookup_work_us", large.lookup.work_us, "us", small.lookup.work_us * (promised ? 1.5 : 6));
	figure("small.readdir_us", small.readdir.us, "us", 0);
	figure("large.readdir_us", large.readdir.us, "us", 0);
	figure("small.readdir_work_us", small.readdir.work_us, "us", 0);
	figure("large.readdir_work_us", large.readdir.work_us, "us", small.readdir.work_us * (promised ? 1.5 : 6));
	figure("small.rss_mib", small.rss_kib / 1024, "MiB", 0);
	figure("large.rss_mib", large.rss_kib / 1024, "MiB", 0);
	figure("small.anonymous_mib", small.anon_kib / 1024, "MiB", 0);
	figure("large.anonymous_mib", large.anon_kib / 1024, "MiB", memory_bound(small.anon_kib / 1024 + 64));
	figure("large.catalog_mib", large.catalog_mib, "MiB", 0);
	figure("large.catalog_bytes_per_file", large.catalog_mib * (1 << 20) / (double)sizes->large, "B", 0);
}

/* --- one directory with many names --------------------------------------------------------------------------- */

struct directory {
	double first_page_us;
	struct cost readdir, lookup, create, unlink;
};

static struct cost cost_since(const struct place *place, int64_t began, int64_t worked, uint64_t each)
{
	return (struct cost){us_since(began, each), (double)(work_ns(place) - worked) / 1000.0 / (double)each};
}

#define CREATES 200
#define LOOKUPS 1000

static struct directory measure_directory(const struct place *place, const char *name, uint64_t count)
{
	struct directory figures;
	char path[400];
	struct stat st;
	int64_t began, worked;
	int fds[CREATES];
	DIR *dir;

	(void)snprintf(path, sizeof(path), "%s/%s", place->mnt, name);
	must(stat(path, &st) == 0, path);
	began = clock_monotonic();
	worked = work_ns(place);
	for (uint64_t i = 0; i < LOOKUPS; i++) { /* each asked for the first time */
		(void)snprintf(path, sizeof(path), "%s/%s/f%06" PRIu64, place->mnt, name, i * (count / LOOKUPS));
		must(stat(path, &st) == 0, path);
	}
	figures.lookup = cost_since(place, began, worked, LOOKUPS);
	(void)snprintf(path, sizeof(path), "%s/%s", place->mnt, name);
	began = clock_monotonic();
	dir = opendir(path);
	must(dir && readdir(dir), path);
	(void)closedir(dir);
	figures.first_page_us = us_since(began, 1);
	(void)snprintf(path, sizeof(path), "%s/%s", place->mnt, name);
	began = clock_monotonic();
	worked = work_ns(place);
	must(read_directory(path) == count, path);
	figures.readdir = cost_since(place, began, worked, count);
	began = clock_monotonic();
	worked = work_ns(place);
	for (uint64_t i = 0; i < CREATES; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s/new%" PRIu64, place->mnt, name, i);
		fds[i] = open(path, O_WRONLY | O_CREAT, 0644); /* removed before it is closed: never to be stored */
		must(fds[i] >= 0, path);
	}
	figures.create = cost_since(place, began, worked, CREATES);
	began = clock_monotonic();
	worked = work_ns(place);
	for (uint64_t i = 0; i < CREATES; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s/new%" PRIu64, place->mnt, name, i);
		must(unlink(path) == 0, path);
	}
	figures.unlink = cost_since(place, began, worked, CREATES);
	for (uint64_t i = 0; i < CREATES; i++)
		(void)close(fds[i]);
	return figures;
}

static void compare(const char *what, const struct cost *narrow, const struct cost *wide)
{
	const struct {
		const char *prefix, *suffix;
		double value, most;
	} figures[] = {
		{"narrow", "us", narrow->us, 0},
		{"wide", "us", wide->us, 0},
		{"narrow", "work_us", narrow->work_us, 0},
		{"wide", "work_us", wide->work_us, narrow->work_us * 6},
	};
	char name[64];

	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
		(void)snprintf(name, sizeof(name), "%s.%s_%s", figures[i].prefix, what, figures[i].suffix);
		figure(name, figures[i].value, "us", figures[i].most);
	}
}

static void directories(const struct sizes *sizes)
{
	struct directory narrow, wide;
	struct place place;

	place_init(&place, "directories", NULL);
	(void)place_mount(&place);
	place_unmount(&place);
	open_catalog(&place);
	fill(CAT_ROOT_INO, "", 2, true);
	fill(find(CAT_ROOT_INO, "d000000"), "d000000/", sizes->narrow, false);
	fill(find(CAT_ROOT_INO, "d000001"), "d000001/", sizes->wide, false);
	close_catalog();
	settle(&place, 2);
	warm(&place);
	(void)place_mount(&place);
	rest(&place);
	narrow = measure_directory(&place, "d000000", sizes->narrow);
	wide = measure_directory(&place, "d000001", sizes->wide);
	place_unmount(&place);
	figure("wide.names", (double)sizes->wide, "", 0);
	figure("wide.readdir_s", wide.readdir.us * (double)sizes->wide / 1e6, "s", 0);
	figure("wide.first_page_us", wide.first_page_us, "us", 0);
	compare("readdir", &narrow.readdir, &wide.readdir);
	compare("lookup", &narrow.lookup, &wide.lookup);
	compare("create", &narrow.create, &wide.create);
	compare("unlink", &narrow.unlink, &wide.unlink);
}

/* --- one file with many versions ------------------------------------------------------------------------------ */

struct job_of {
	uint64_t ino, version, seq;
};

static int take_job(void *arg, struct cat_job *job)
{
	struct job_of *of = arg;

	if (job->type == CAT_JOB_UPLOAD && job->ino == of->ino && job->version == of->version)
		of->seq = job->seq;
	return 0;
}

static void add_versions(const char *name, uint64_t count)
{
	struct cat_create create = {.parent = CAT_ROOT_INO, .name = name, .mode = S_IFREG | 0644};
	struct cat_inode inode;
	char id[40];

	must_rc(catalog_create(catalog, &create, &inode), "create");
	for (uint64_t i = 0; i < count; i++) {
		struct cat_extent extent = {0};
		struct cat_commit commit = {
			.ino = inode.ino, .size = 100 + i, .mtime = clock_wall(), .extent = &extent};
		struct job_of of = {.ino = inode.ino};
		struct cat_copy copy = {.ino = inode.ino,
					.state = CAT_STORED,
					.stored_ns = clock_wall(),
					.key = (char *)(uintptr_t)name};
		struct cat_version version;

		must_rc(catalog_commit(catalog, &commit, &version), "commit");
		(void)snprintf(id, sizeof(id), "%016" PRIx64 "%08" PRIx64, (uint64_t)clock_wall(), i);
		copy.seq = of.version = version.seq;
		copy.native_id = copy.etag = id;
		must_rc(catalog_jobs(catalog, 0, 0, take_job, &of), "jobs");
		extent.base = version.seq;
		extent.base_limit = commit.size;
		must_rc(catalog_stored(catalog, of.seq, &copy, &extent), "stored");
	}
}

static void versions(const struct sizes *sizes, bool promised)
{
	struct place place;
	char path[400];
	int64_t began;
	double few, many, again;

	place_init(&place, "versions", NULL);
	(void)place_mount(&place);
	place_unmount(&place);
	open_catalog(&place);
	add_versions("few", sizes->few);
	add_versions("many", sizes->many);
	close_catalog();
	settle(&place, 2);
	(void)place_mount(&place);
	rest(&place);
	(void)snprintf(path, sizeof(path), "%s/.versions/few", place.mnt);
	began = clock_monotonic();
	must(read_directory(path) == sizes->few, path);
	few = seconds_since(began);
	(void)snprintf(path, sizeof(path), "%s/.versions/many", place.mnt);
	began = clock_monotonic();
	must(read_directory(path) == sizes->many, path);
	many = seconds_since(began);
	began = clock_monotonic();
	must(read_directory(path) == sizes->many, path);
	again = seconds_since(began);
	place_unmount(&place);
	figure("versions", (double)sizes->many, "", 0);
	figure("versions.list_few_s", few, "s", 0);
	figure("versions.list_s", many, "s", promised ? 0.2 : 0);
	figure("versions.list_again_s", again, "s", 0);
	/* Listing is linear: as many times as there are more versions, with something for what each listing costs. */
	figure("versions.list_ratio", many / (few + 0.001), "", 2.0 * (double)sizes->many / (double)sizes->few);
}

/* --- a large tree as it was ------------------------------------------------------------------------------------ */

struct past {
	struct cost first, list; /* of a directory, at an instant nobody asked about before; the second time mapped */
	double slowest_s;        /* of all these listings */
};

/* Now, as +at takes it. */
static void instant(char ret_text[static 32])
{
	time_t then = (time_t)(clock_wall() / NS_PER_SEC);
	struct tm tm;

	(void)gmtime_r(&then, &tm);
	must(strftime(ret_text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0, "strftime");
}

static struct cost list_past(const struct place *place, uint64_t dirs, double *slowest_s)
{
	int64_t began = clock_monotonic(), worked = work_ns(place);
	uint64_t names = 0;
	char path[480], text[32];

	instant(text);
	for (uint64_t i = 0; i < LOOK_DIRS; i++) {
		int64_t one = clock_monotonic();

		(void)snprintf(path, sizeof(path), "%s/.versions/+at/%s/d%06" PRIu64, place->mnt, text,
			       i * (dirs / LOOK_DIRS));
		names += read_directory(path);
		if (seconds_since(one) > *slowest_s)
			*slowest_s = seconds_since(one);
	}
	must(names == LOOK_DIRS * IN_DIR, "other names than there were");
	return cost_since(place, began, worked, LOOK_DIRS);
}

static struct past measure_past(const char *name, uint64_t files)
{
	uint64_t dirs = files / IN_DIR;
	struct past past = {0};
	struct place place;

	place_init(&place, name, NULL);
	(void)place_mount(&place);
	place_unmount(&place);
	open_catalog(&place);
	fill_tree(dirs);
	close_catalog();
	settle(&place, dirs);
	warm(&place);
	(void)place_mount(&place);
	rest(&place);
	(void)usleep(1100000); /* an instant is a whole second, and all were made before it */
	past.first = list_past(&place, dirs, &past.slowest_s);
	(void)usleep(1100000);
	past.list = list_past(&place, dirs, &past.slowest_s);
	place_unmount(&place);
	return past;
}

static void pasts(const struct sizes *sizes, bool promised)
{
	struct past grove = measure_past("grove", sizes->grove), forest = measure_past("forest", sizes->forest);

	figure("past.files", (double)sizes->forest, "", 0);
	figure("past.small_list_us", grove.list.us, "us", 0);
	figure("past.first_list_us", forest.first.us, "us", promised ? 50000 : 0);
	figure("past.list_us", forest.list.us, "us", promised ? 50000 : 0);
	figure("past.slowest_list_s", forest.slowest_s, "s", promised ? 0.05 : 0);
	figure("past.first_list_work_us", forest.first.work_us, "us", 0);
	figure("past.small_list_work_us", grove.list.work_us, "us", 0);
	figure("past.list_work_us", forest.list.work_us, "us", grove.list.work_us * (promised ? 2 : 6));
}

/* --- one large file through a small cache ----------------------------------------------------------------------- */

#define CHUNK (1u << 20)

static void make_chunk(uint8_t *bytes, uint64_t n)
{
	for (size_t i = 0; i < CHUNK; i += 8) {
		uint64_t word = (n + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;

		memcpy(bytes + i, &word, 8);
	}
}

static uint64_t chunk_offset(const struct sizes *sizes, uint64_t n)
{
	return n * (sizes->sparse / (sizes->written / CHUNK)) / 4096 * 4096;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return !bytes[0] && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static void sparse(const struct sizes *sizes, bool is_quick)
{
	uint64_t chunks = sizes->written / CHUNK;
	uint8_t *bytes = malloc(CHUNK), *expected = malloc(CHUNK);
	struct place place;
	char path[400];
	int64_t began;
	double stored, memory;
	int fd;

	must(bytes && expected, "memory");
	place_init(&place, "sparse", is_quick ? "cache_size=16M" : "cache_size=256M");
	(void)place_mount(&place);
	(void)snprintf(path, sizeof(path), "%s/file", place.mnt);
	began = clock_monotonic();
	fd = open(path, O_RDWR | O_CREAT, 0644);
	must(fd >= 0 && ftruncate(fd, (off_t)sizes->sparse) == 0, path);
	for (uint64_t n = 0; n < chunks; n++) {
		make_chunk(bytes, n);
		must(pwrite(fd, bytes, CHUNK, (off_t)chunk_offset(sizes, n)) == CHUNK, "write");
	}
	must(close(fd) == 0, "close");
	figure("sparse.gib", (double)sizes->sparse / (double)(UINT64_C(1) << 30), "GiB", 0);
	figure("sparse.write_s", seconds_since(began), "s", 0);
	began = clock_monotonic();
	memory = memory_of(&place, "VmHWM");
	place_unmount(&place);
	stored = seconds_since(began);
	(void)place_mount(&place);
	fd = open(path, O_RDONLY);
	must(fd >= 0, path);
	began = clock_monotonic();
	for (uint64_t n = 0; n < chunks; n++) {
		make_chunk(expected, n);
		must(pread(fd, bytes, CHUNK, (off_t)chunk_offset(sizes, n)) == CHUNK, "read");
		must(memcmp(bytes, expected, CHUNK) == 0, "other bytes than were written");
		must(pread(fd, bytes, 4096, (off_t)(chunk_offset(sizes, n) + CHUNK)) == 4096, "read");
		must(is_zero(bytes, 4096), "a hole that is not zeros");
	}
	(void)close(fd);
	figure("sparse.store_s", stored, "s", 0);
	figure("sparse.read_s", seconds_since(began), "s", 0);
	figure("sparse.writing_peak_mib", memory / 1024, "MiB", memory_bound(256));
	figure("sparse.reading_peak_mib", memory_of(&place, "VmHWM") / 1024, "MiB", memory_bound(256));
	figure("sparse.cache_mib", disk_of(&place, "cache"), "MiB", is_quick ? 48 : 300);
	place_unmount(&place);
	free(bytes);
	free(expected);
}

static bool is_asked(int argc, char **argv, const char *word)
{
	bool any = false;

	for (int i = 3; i < argc; i++) {
		if (strcmp(argv[i], word) == 0)
			return true;
		any |= argv[i][0] != '-';
	}
	return word[0] != '-' && !any;
}

int main(int argc, char **argv)
{
	bool is_quick = is_asked(argc, argv, "--quick");
	struct sizes chosen = is_quick ? quick : full;
	const struct sizes *sizes = &chosen;
	const char *gib = getenv("VARVE_SCALE_GIB");
	char *path;

	if (argc < 3) {
		(void)fprintf(
			stderr,
			"usage: scale VARVE NEW-DIR [--quick] [directories] [versions] [past] [sparse] [trees]\n");
		return 2;
	}
	if (gib)
		chosen.sparse = strtoull(gib, NULL, 10) << 30;
	varve = argv[1];
	must(mkdir(argv[2], 0700) == 0, argv[2]);
	path = realpath(argv[2], NULL);
	must(path && strlen(path) < sizeof(base), argv[2]);
	(void)snprintf(base, sizeof(base), "%s", path);
	free(path);
	(void)atexit(unmount_at_exit);
	if (is_asked(argc, argv, "directories"))
		directories(sizes);
	if (is_asked(argc, argv, "versions"))
		versions(sizes, !is_quick);
	if (is_asked(argc, argv, "past"))
		pasts(sizes, !is_quick);
	if (is_asked(argc, argv, "sparse"))
		sparse(sizes, is_quick);
	if (is_asked(argc, argv, "trees"))
		trees(sizes, !is_quick);
	(void)printf("\n}\n");
	return missed ? 1 : 0;
}
