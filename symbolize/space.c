/* SPDX-License-Identifier: MIT */
#include "symbolize/space.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "symbolize/appeared.h"
#include "symbolize/maps.h"
#include "symbolize/module_registry.h"
#include "symbolize/proc.h"
#include "symbolize/space_history.h"

/*
 * The one hard idea: every change first makes all it needs (room, opened modules) and then swaps or
 * splices in steps that cannot fail, so that a failure leaves the old view whole.
 */

#define MAX_RANGES (1u << 17)

/* What tells that a mapping is the one that was there before. */
struct identity {
	uint32_t major, minor;
	uint64_t inode;
	uint64_t added; /* order of appearance */
};

/* Two parallel arrays: the first one is given out. */
struct table {
	struct dp_space_range *ranges;
	struct identity *identities;
	size_t n, ranges_capacity, identities_capacity;
};

struct dp_space {
	struct dp_modules *modules;
	pid_t pid;
	/* Held for every change of what follows, by the one thread that changes it, and by others
	 * that look. */
	pthread_mutex_t lock;
	struct table table;
	uint64_t generation;
	uint64_t n_added;
	struct dp_space_stats stats;
	struct dp_space_history history;
};

static void table_free(struct table *table)
{
	free(table->ranges);
	free(table->identities);
}

static int table_reserve(struct table *table, size_t n)
{
	int r = dp_array_reserve((void **)&table->ranges, &table->ranges_capacity, n,
				 sizeof(*table->ranges));

	if (r == 0)
		r = dp_array_reserve((void **)&table->identities, &table->identities_capacity, n,
				     sizeof(*table->identities));
	return r;
}

int dp_space_new(struct dp_space **ret, struct dp_modules *modules, pid_t pid)
{
	struct dp_space *space = calloc(1, sizeof(*space));

	if (!space)
		return -ENOMEM;
	space->modules = modules;
	space->pid = pid;
	pthread_mutex_init(&space->lock, NULL);
	*ret = space;
	return 0;
}

void dp_space_free(struct dp_space *space)
{
	if (!space)
		return;
	table_free(&space->table);
	pthread_mutex_destroy(&space->lock);
	free(space);
}

/* The first range that ends above @avma, or n. */
static size_t first_above(const struct table *table, uint64_t avma)
{
	size_t low = 0, high = table->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (table->ranges[middle].end <= avma)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Anonymous code and the kernel's own pages: "", [heap], [stack], [uprobes], [anon:…], //anon. */
static bool is_anonymous(const struct dp_maps_line *line)
{
	return line->inode == 0 && (line->path_bytes == 0 || line->path[0] == '[' ||
				    (line->path_bytes > 1 && line->path[1] == '/'));
}

static bool path_is(const struct dp_maps_line *line, const char *path)
{
	return line->path_bytes == strlen(path) && memcmp(line->path, path, line->path_bytes) == 0;
}

static int add_opaque(struct dp_space *space, const struct dp_maps_line *line, int open_errno,
		      uint32_t *ret_module)
{
	return dp_modules_add_opaque(space->modules, makedev(line->major, line->minor), line->inode,
				     line->path, line->path_bytes, open_errno, ret_module);
}

static int add_vdso(struct dp_space *space, pid_t tid, const struct dp_maps_line *line,
		    uint32_t *ret_module)
{
	void *bytes;
	int r = dp_proc_read_memory(tid, line->start, line->end - line->start, &bytes);

	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return add_opaque(space, line, -r, ret_module);
	return dp_modules_add_vdso(space->modules, bytes, line->end - line->start, ret_module);
}

/* Opens what is mapped at @line. */
static int open_module(struct dp_space *space, pid_t tid, const struct dp_maps_line *line,
		       uint32_t *ret_module)
{
	int fd;

	if (path_is(line, "[vdso]"))
		return add_vdso(space, tid, line, ret_module);
	if (is_anonymous(line)) {
		*ret_module = 0;
		return 0;
	}
	fd = dp_proc_open_mapping(tid, line);
	if (fd < 0)
		return add_opaque(space, line, -fd, ret_module);
	return dp_modules_add_file(space->modules, fd, line->path, line->path_bytes, ret_module);
}

/* Whether the mapping at @line was there before, with its module. */
static bool known_module(const struct dp_space *space, const struct dp_maps_line *line,
			 uint32_t *ret_module)
{
	size_t i = first_above(&space->table, line->start);
	const struct dp_space_range *range;
	const struct identity *identity;

	if (line->inode == 0 || i == space->table.n)
		return false;
	range = &space->table.ranges[i];
	identity = &space->table.identities[i];
	if (range->start != line->start || range->end != line->end ||
	    range->file_off != line->file_off || identity->major != line->major ||
	    identity->minor != line->minor || identity->inode != line->inode)
		return false;
	*ret_module = range->module;
	return true;
}

static int append_line(struct dp_space *space, struct table *table, pid_t tid,
		       const struct dp_maps_line *line)
{
	uint32_t module;
	int r = 0;

	if (table->n == MAX_RANGES) {
		space->stats.n_ranges_over_limit++;
		return 0;
	}
	/* Mappings that were united while the kernel listed them can be listed twice. */
	if (table->n > 0 && line->start < table->ranges[table->n - 1].end)
		return 0;
	if (!known_module(space, line, &module))
		r = open_module(space, tid, line, &module);
	if (r == 0)
		r = table_reserve(table, table->n + 1);
	if (r < 0)
		return -ENOMEM;
	assert(table->ranges && table->identities);
	table->ranges[table->n] =
		(struct dp_space_range){line->start, line->end, line->file_off, module};
	table->identities[table->n++] =
		(struct identity){line->major, line->minor, line->inode, space->n_added};
	return 0;
}

static int read_table(struct dp_space *space, pid_t tid, const char *text, size_t n_bytes,
		      struct table *table)
{
	const char *end = text + n_bytes;

	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *next = newline ? newline + 1 : end;
		struct dp_maps_line line;
		int r = dp_maps_parse_line(text, (size_t)(next - text), &line);

		text = next;
		if (r < 0)
			space->stats.n_lines_bad++;
		if (r < 0 || !line.executable)
			continue;
		r = append_line(space, table, tid, &line);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool same_range(const struct dp_space_range *a, const struct dp_space_range *b)
{
	return a->start == b->start && a->end == b->end && a->file_off == b->file_off &&
	       a->module == b->module;
}

/* Puts @table in the place of the old one; what is gone goes to the history. */
static void swap_table(struct dp_space *space, struct table *table)
{
	struct table *old = &space->table;
	bool changed = old->n != table->n;

	pthread_mutex_lock(&space->lock);
	for (size_t i = 0; i < old->n; i++) {
		size_t j = first_above(table, old->ranges[i].start);

		if (j < table->n && same_range(&old->ranges[i], &table->ranges[j])) {
			table->identities[j].added = old->identities[i].added;
			continue;
		}
		dp_space_history_add(&space->history, &old->ranges[i]);
		changed = true;
	}
	space->generation += changed;
	table_free(old);
	*old = *table;
	pthread_mutex_unlock(&space->lock);
}

static int load_error(struct dp_error *err, pid_t pid, int r)
{
	switch (r) {
	case -ESRCH:
		return dp_error_set(err, r, "process %d is gone or has no memory of its own", pid);
	case -EACCES:
	case -EPERM:
		return dp_error_set(err, r,
				    "cannot read the memory map of process %d (/proc/%d/maps): "
				    "permission denied; run as root or with CAP_SYS_PTRACE",
				    pid, pid);
	case -ENOMEM:
		return dp_error_set(err, r, "no memory is left for the memory map of process %d",
				    pid);
	default:
		return dp_error_set(err, r,
				    "cannot read the memory map of process %d (/proc/%d/maps): %s",
				    pid, pid, strerror(-r));
	}
}

int dp_space_load(struct dp_space *space, struct dp_error *err)
{
	struct table table = {0};
	size_t n_bytes;
	char *text;
	pid_t tid;
	int r = dp_proc_read_maps(space->pid, &text, &n_bytes, &tid);

	if (r < 0)
		return load_error(err, space->pid, r);
	space->n_added++;
	r = read_table(space, tid, text, n_bytes, &table);
	free(text);
	if (r < 0) {
		table_free(&table);
		return load_error(err, space->pid, r);
	}
	swap_table(space, &table);
	dp_modules_set_root(space->modules, dp_proc_open_root(tid));
	return 0;
}

/* Puts @range over the ranges first … last - 1, of which what sticks out stays. Room is there. */
static void splice(struct table *table, size_t first, size_t last,
		   const struct dp_space_range *range, const struct identity *identity)
{
	struct dp_space_range parts[3];
	struct identity identities[3];
	size_t n_parts = 0;

	if (first < last && table->ranges[first].start < range->start) {
		parts[n_parts] = table->ranges[first];
		parts[n_parts].end = range->start;
		identities[n_parts++] = table->identities[first];
	}
	parts[n_parts] = *range;
	identities[n_parts++] = *identity;
	if (first < last && table->ranges[last - 1].end > range->end) {
		parts[n_parts] = table->ranges[last - 1];
		parts[n_parts].file_off += range->end - parts[n_parts].start;
		parts[n_parts].start = range->end;
		identities[n_parts++] = table->identities[last - 1];
	}
	memmove(table->ranges + first + n_parts, table->ranges + last,
		(table->n - last) * sizeof(*table->ranges));
	memmove(table->identities + first + n_parts, table->identities + last,
		(table->n - last) * sizeof(*table->identities));
	memcpy(table->ranges + first, parts, n_parts * sizeof(*parts));
	memcpy(table->identities + first, identities, n_parts * sizeof(*identities));
	table->n = table->n - (last - first) + n_parts;
}

/* Puts in a range whose module is known. */
static int insert(struct dp_space *space, const struct dp_space_range *range,
		  const struct dp_maps_line *line)
{
	struct table *table = &space->table;
	struct identity identity = {line->major, line->minor, line->inode, ++space->n_added};
	size_t first = first_above(table, range->start), last = first;

	if (first < table->n && same_range(&table->ranges[first], range))
		return 0;
	if (table->n + 2 > MAX_RANGES) {
		space->stats.n_ranges_over_limit++;
		return 0;
	}
	if (table_reserve(table, table->n + 2) < 0)
		return -ENOMEM;
	for (; last < table->n && table->ranges[last].start < range->end; last++)
		dp_space_history_add(&space->history, &table->ranges[last]);
	splice(table, first, last, range, &identity);
	space->generation++;
	return 0;
}

int dp_space_add(struct dp_space *space, uint64_t start, uint64_t end, uint64_t file_off,
		 const char *path, const struct dp_file_identity *identity)
{
	static const char deleted[] = " (deleted)";
	struct dp_space_range range = {start, end, file_off, 0};
	struct dp_maps_line line = {.start = start,
				    .end = end,
				    .file_off = file_off,
				    .path = path,
				    .path_bytes = strlen(path)};
	int r = 0;

	if (start >= end)
		return 0;
	line.deleted = line.path_bytes >= sizeof(deleted) &&
		       strcmp(path + line.path_bytes - (sizeof(deleted) - 1), deleted) == 0;
	if (line.deleted)
		line.path_bytes -= sizeof(deleted) - 1;
	if (path_is(&line, "[vdso]"))
		r = add_vdso(space, space->pid, &line, &range.module);
	else if (!is_anonymous(&line))
		r = dp_appeared_open(space->modules, space->pid, &line, identity, &range.module);
	if (r < 0)
		return r;
	pthread_mutex_lock(&space->lock);
	r = insert(space, &range, &line);
	pthread_mutex_unlock(&space->lock);
	return r;
}

uint64_t dp_space_generation(const struct dp_space *space)
{
	return space->generation;
}

uint64_t dp_space_frame(const struct dp_space *space, uint64_t avma)
{
	size_t i = first_above(&space->table, avma);
	const struct dp_space_range *range;

	if (i == space->table.n)
		return dp_frame_make(0, avma);
	range = &space->table.ranges[i];
	if (avma < range->start || range->module == 0)
		return dp_frame_make(0, avma);
	return dp_frame_make(range->module, range->file_off + (avma - range->start));
}

bool dp_space_holds(const struct dp_space *space, uint64_t avma)
{
	size_t i = first_above(&space->table, avma);

	return i < space->table.n && avma >= space->table.ranges[i].start;
}

const struct dp_space_range *dp_space_ranges(const struct dp_space *space, size_t *ret_n)
{
	*ret_n = space->table.n;
	return space->table.ranges;
}

/* The latest mapping that held @frame, or NULL. */
static const struct dp_space_range *find_mapping(const struct dp_space *space, uint64_t frame)
{
	const struct table *table = &space->table;
	const struct dp_space_range *found = NULL;
	uint64_t added = 0;

	for (size_t i = 0; i < table->n; i++) {
		if (!dp_space_range_holds(&table->ranges[i], frame) ||
		    (found && table->identities[i].added <= added))
			continue;
		found = &table->ranges[i];
		added = table->identities[i].added;
	}
	return found ? found : dp_space_history_find(&space->history, frame);
}

int dp_space_mapping_of(struct dp_space *space, uint64_t frame, struct dp_space_range *ret)
{
	const struct dp_space_range *found;

	pthread_mutex_lock(&space->lock);
	found = find_mapping(space, frame);
	if (found)
		*ret = *found;
	pthread_mutex_unlock(&space->lock);
	return found ? 0 : -ENOENT;
}

int dp_space_main_mapping(struct dp_space *space, struct dp_space_range *ret)
{
	const struct dp_space_range *found = NULL;

	pthread_mutex_lock(&space->lock);
	for (size_t i = 0; !found && i < space->table.n; i++) {
		if (space->table.ranges[i].module != 0)
			found = &space->table.ranges[i];
	}
	if (found)
		*ret = *found;
	pthread_mutex_unlock(&space->lock);
	return found ? 0 : -ENOENT;
}

void dp_space_get_stats(const struct dp_space *space, struct dp_space_stats *ret)
{
	*ret = space->stats;
	ret->n_history_lost = space->history.n_lost;
}
