/*
 * model.c - random work on the real engine against a model in memory: the tree,
 * every name's history and the names that ever lived, through reopening; and a
 * directory of 100,000 entries.
 *
 * The model knows files as rows of versions, and names as rows of intervals in
 * which a file held them, and derives histories from their definition, without
 * any thought of speed.
 */
#include "catalog_fixture.h"

TestSuite(model, .init = setup, .fini = teardown);

enum { DIRS = 3, NAMES = 4, PLACES = DIRS * NAMES, FILES = 1200, VERSIONS = 64, INTERVALS = 2000, ENTRIES = 20000 };

struct model_file {
	uint64_t ino;
	unsigned versions, nlink;
	uint64_t size[VERSIONS];
	int step[VERSIONS];
};

struct interval {
	int file, since, until; /* until INT_MAX: lives */
	int from;               /* place it was renamed from, or -1 */
	int rank;               /* among what one step bound: an exchange takes the first name first */
	bool link, free_name;   /* free_name: nobody held the place before it */
};

struct place {
	struct interval intervals[INTERVALS];
	int count;
};

static struct {
	uint64_t dirs[DIRS];
	int dir_parent[DIRS], dir_name[DIRS]; /* of dirs 1…: index of the parent and the number in its name */
	struct model_file files[FILES];
	int file_count, step;
	struct place places[PLACES];
	unsigned seed;
} * model;

static int pick(int limit)
{
	return (int)((unsigned)rand_r(&model->seed) % (unsigned)limit);
}

static uint64_t dir_of(int place)
{
	return model->dirs[place / NAMES];
}

static const char *name_of(int place)
{
	static const char *const names[NAMES] = {"a", "b", "ba", "b.tmp"};

	return names[place % NAMES];
}

static struct interval *live(int place)
{
	struct place *at = &model->places[place];

	if (!at->count || at->intervals[at->count - 1].until != INT_MAX)
		return NULL;
	return &at->intervals[at->count - 1];
}

static void begin(int place, int file, int from, bool link, bool free_name)
{
	struct place *at = &model->places[place];

	cr_assert_lt(at->count, INTERVALS);
	at->intervals[at->count++] = (struct interval){.file = file,
						       .since = model->step,
						       .until = INT_MAX,
						       .from = from,
						       .link = link,
						       .free_name = free_name};
}

/* --- operations: each does the same to both and compares the result ----------------------------- */

static void do_create(void)
{
	int place = pick(PLACES);
	struct cat_create request = {.parent = dir_of(place), .name = name_of(place), .mode = S_IFREG | 0644};
	struct cat_inode inode;
	int rc = catalog_create(catalog, &request, &inode);

	if (live(place)) {
		cr_assert_eq(rc, -EEXIST);
		return;
	}
	cr_assert_eq(rc, 0);
	cr_assert_lt(model->file_count, FILES);
	model->files[model->file_count] = (struct model_file){.ino = inode.ino, .nlink = 1};
	begin(place, model->file_count++, -1, false, true);
}

static void do_commit(void)
{
	struct model_file *file;
	struct cat_commit request = {.size = (uint64_t)model->step};
	int rc;

	if (!model->file_count)
		return;
	file = &model->files[pick(model->file_count)];
	if (file->versions == VERSIONS)
		return;
	request.ino = file->ino;
	rc = catalog_commit(catalog, &request, NULL);
	if (!file->nlink && !file->versions) {
		cr_assert_eq(rc, -ENOENT, "unlinked before its first close");
		return;
	}
	cr_assert_eq(rc, 0);
	file->size[file->versions] = request.size;
	file->step[file->versions++] = model->step;
}

static void do_unlink(void)
{
	int place = pick(PLACES), rc = remove_file(dir_of(place), name_of(place));
	struct interval *held = live(place);

	cr_assert_eq(rc, held ? 0 : -ENOENT);
	if (held) {
		held->until = model->step;
		model->files[held->file].nlink--;
	}
}

static void do_link(void)
{
	int from = pick(PLACES), to = pick(PLACES);
	struct interval *held = live(from);
	struct cat_inode inode;
	int rc;

	if (!held)
		return;
	rc = catalog_link(catalog, model->files[held->file].ino, dir_of(to), name_of(to), actor, &inode);
	cr_assert_eq(rc, live(to) ? -EEXIST : 0);
	if (rc == 0) {
		model->files[held->file].nlink++;
		cr_assert_eq(inode.nlink, model->files[held->file].nlink);
		begin(to, held->file, -1, true, true);
	}
}

static void model_exchange(int from, int to)
{
	struct interval *a = live(from), *b = live(to);
	int file_a = a->file, file_b = b->file;

	a->until = b->until = model->step;
	begin(from, file_b, to, false, false);
	begin(to, file_a, from, false, false);
	live(to)->rank = 1;
}

static void do_rename(void)
{
	static const unsigned flag_set[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	unsigned flags = flag_set[pick(6)];
	int from = pick(PLACES), to = pick(PLACES), file;
	int rc = rename_flags(dir_of(from), name_of(from), dir_of(to), name_of(to), flags);
	struct interval *source = live(from), *target = live(to);

	if (!source) {
		cr_assert_eq(rc, -ENOENT);
		return;
	}
	if (target && flags == RENAME_NOREPLACE) {
		cr_assert_eq(rc, -EEXIST);
		return;
	}
	if (!target && flags == RENAME_EXCHANGE) {
		cr_assert_eq(rc, -ENOENT);
		return;
	}
	cr_assert_eq(rc, 0);
	if (target && target->file == source->file)
		return;
	if (flags == RENAME_EXCHANGE) {
		model_exchange(from, to);
		return;
	}
	file = source->file;
	source->until = model->step;
	if (target) {
		target->until = model->step;
		model->files[target->file].nlink--;
	}
	begin(to, file, from, false, !target);
}

/* Directories 1… move about with all they hold. */
static void do_move_dir(void)
{
	int dir = 1 + pick(DIRS - 1), to = pick(DIRS), number = pick(DIRS), rc;
	bool taken = false, inside = to == dir || (to != 0 && model->dir_parent[to] == dir);
	char old_name[16], new_name[16];

	for (int i = 1; i < DIRS; i++)
		taken = taken || (i != dir && model->dir_parent[i] == to && model->dir_name[i] == number);
	if (taken)
		return;
	(void)snprintf(old_name, sizeof(old_name), "x%d", model->dir_name[dir]);
	(void)snprintf(new_name, sizeof(new_name), "x%d", number);
	rc = move(model->dirs[model->dir_parent[dir]], old_name, model->dirs[to], new_name);
	cr_assert_eq(rc, inside ? -EINVAL : 0);
	if (rc == 0) {
		model->dir_parent[dir] = to;
		model->dir_name[dir] = number;
	}
}

/* --- histories by definition -------------------------------------------------------------------- */

struct entry {
	uint64_t size;
	int time, rank, file, version;
	bool brought, bound, linked;
};

struct entries {
	struct entry cells[ENTRIES];
	int count;
};

static void add(struct entries *entries, struct entry entry)
{
	cr_assert_lt(entries->count, ENTRIES);
	entries->cells[entries->count++] = entry;
}

static void expect_place(struct entries *entries, int place, int upto, bool brought, bool seen[PLACES][INTERVALS])
{
	const struct place *at = &model->places[place];

	for (int i = 0; i < at->count; i++) {
		const struct interval *held = &at->intervals[i];
		const struct model_file *file = &model->files[held->file];
		bool pure = held->from >= 0 && held->free_name;
		int binding = -1;

		if ((held->until > upto) || seen[place][i])
			continue;
		seen[place][i] = true;
		for (int v = 0; v < (int)file->versions; v++) {
			if (file->step[v] < held->since)
				binding = v;
			else if (file->step[v] < held->until)
				add(entries, (struct entry){.size = file->size[v],
							    .time = file->step[v],
							    .file = held->file,
							    .version = v,
							    .brought = brought});
		}
		if (pure)
			expect_place(entries, held->from, held->since, true, seen);
		else if (binding >= 0)
			add(entries, (struct entry){.size = file->size[binding],
						    .time = held->since,
						    .rank = held->rank,
						    .file = held->file,
						    .version = binding,
						    .brought = brought,
						    .bound = held->from >= 0,
						    .linked = held->link});
	}
}

static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->time != y->time)
		return x->time - y->time;
	return x->rank - y->rank;
}

static void expect_history(int place, struct buf *ret_text)
{
	static struct entries entries;
	static bool seen[PLACES][INTERVALS];
	const struct interval *held = live(place);
	int current = -1;

	entries.count = 0;
	memset(seen, 0, sizeof(seen));
	buf_reset(ret_text);
	if (!model->places[place].count) {
		buf_adds(ret_text, "never");
		return;
	}
	expect_place(&entries, place, INT_MAX, false, seen);
	qsort(entries.cells, (size_t)entries.count, sizeof(entries.cells[0]), entry_compare);
	for (int i = 0; held && i < entries.count; i++) {
		if (entries.cells[i].file == held->file &&
		    entries.cells[i].version == (int)model->files[held->file].versions - 1)
			current = i;
	}
	for (int i = 0; i < entries.count; i++) {
		const struct entry *entry = &entries.cells[i];
		const char *letter = entry->bound || entry->brought ? "R" : entry->linked ? "L" : "";

		buf_addf(ret_text, "%s%s%" PRIu64 "%s", i ? " " : "", letter, entry->size, i == current ? "*" : "");
	}
}

/* --- comparing ---------------------------------------------------------------------------------- */

static int count_name(void *arg, const struct cat_name *name, const struct cat_inode *inode)
{
	cr_assert_eq(inode->ino, name->ino);
	if (name->type == S_IFREG)
		(*(int *)arg)++;
	return 0;
}

static int ever_name(void *arg, const char *name, uint32_t type, bool alive)
{
	if (type == S_IFREG)
		buf_addf(arg, "%s%s ", name, alive ? "" : "-");
	return 0;
}

static void compare_dir(int dir)
{
	static const int sorted[NAMES] = {0, 1, 3, 2}; /* "a" "b" "b.tmp" "ba" */
	struct cat_readdir request = {.parent = model->dirs[dir], .max = 1000, .with_inodes = true};
	struct buf wanted = BUF_INIT, found = BUF_INIT;
	int alive = 0, listed = 0;

	for (int i = 0; i < NAMES; i++) {
		int place = dir * NAMES + sorted[i];

		alive += live(place) != NULL;
		if (model->places[place].count)
			buf_addf(&wanted, "%s%s ", name_of(place), live(place) ? "" : "-");
	}
	cr_assert_eq(catalog_readdir(catalog, &request, count_name, &listed), 0);
	cr_assert_eq(listed, alive);
	cr_assert_eq(catalog_names_ever(catalog, model->dirs[dir], ever_name, &found), 0);
	cr_assert_str_eq(found.data, wanted.data);
	buf_free(&wanted);
	buf_free(&found);
}

static void compare(void)
{
	struct buf wanted = BUF_INIT, found = BUF_INIT;

	(void)assert_clean();
	for (int dir = 0; dir < DIRS; dir++)
		compare_dir(dir);
	for (int place = 0; place < PLACES; place++) {
		const struct interval *held = live(place);

		cr_assert_eq(ino_of(dir_of(place), name_of(place)), held ? model->files[held->file].ino : 0);
		expect_history(place, &wanted);
		history_text(dir_of(place), name_of(place), &found);
		cr_assert_str_eq(found.data, wanted.data, "step %d, place %d:\n%s\n%s", model->step, place, found.data,
				 wanted.data);
	}
	for (int i = 0; i < model->file_count; i++)
		cr_assert_eq(inode_of(model->files[i].ino).nlink, model->files[i].nlink);
	buf_free(&wanted);
	buf_free(&found);
}

static void run(unsigned seed, int steps)
{
	static void (*const operations[])(void) = {do_create, do_create, do_commit, do_commit, do_commit,  do_rename,
						   do_rename, do_rename, do_unlink, do_link,   do_move_dir};

	model = calloc(1, sizeof(*model));
	cr_assert_not_null(model);
	model->seed = seed;
	model->dirs[0] = ROOT;
	for (int i = 1; i < DIRS; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "x%d", i);
		model->dirs[i] = make_dir(ROOT, name);
		model->dir_name[i] = i;
	}
	for (model->step = 1; model->step <= steps; model->step++) {
		operations[pick((int)(sizeof(operations) / sizeof(operations[0])))]();
		if (model->step % 100 == 0)
			compare();
		if (model->step % 250 == 0)
			reopen();
		if (model->step % 170 == 0)
			finish_jobs();
	}
	compare();
	free(model);
}

Test(model, random_work_agrees_with_the_model_1)
{
	run(1, 2000);
}

Test(model, random_work_agrees_with_the_model_2)
{
	run(20261121, 2000);
}

Test(model, random_work_agrees_with_the_model_3)
{
	run(77, 2000);
}

/* --- at scale ----------------------------------------------------------------------------------- */

Test(model, directory_of_a_hundred_thousand_entries_is_adopted)
{
	enum { COUNT = 100000 };
	struct cat_found *found = calloc(COUNT, sizeof(*found));
	char(*names)[16] = calloc(COUNT, sizeof(*names));
	struct cat_adopt request = {.dir = ROOT, .found = found, .count = COUNT, .file_mode = 0640, .dir_mode = 0750};
	int64_t start = cpu_ns();

	for (int i = 0; i < COUNT; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "n%06d", i);
		found[i] =
			(struct cat_found){.name = names[i], .key = names[i], .etag = "e", .size = 1, .modified_ns = 1};
	}
	request.listed_at = clock_wall();
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	cr_log_info("100,000 entries adopted in %.2f s", seconds_since(start));
	start = cpu_ns();
	request.listed_at = clock_wall();
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	cr_log_info("100,000 known entries seen again in %.2f s", seconds_since(start));
	request.listed_at = clock_wall();
	request.found = found + 1;
	request.count = COUNT - 2;
	cr_assert_eq(catalog_adopt(catalog, &request), 0);
	cr_assert_eq(ino_of(ROOT, "n000000"), 0);
	cr_assert_eq(ino_of(ROOT, "n099999"), 0);
	cr_assert_neq(ino_of(ROOT, "n000001"), 0);
	free(found);
	free(names);
}
