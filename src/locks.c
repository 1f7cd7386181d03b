/* SPDX-License-Identifier: MIT */
#include "src/locks.h"

#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/tail_calls.h"

/*
 * The hard idea: names are looked for once per file, and from then on a stack is told by comparing
 * its frames with the files' ranges. A stripped library names only what it exports, and many of
 * these functions end in a jump to one that it does not: without following the jumps, a join or a
 * semaphore's wait in Debian's libc would leave no frame that is known (src/tail_calls.c).
 */

/* Where a symbol does not say how long the function is, and at most in any case. */
#define UNSIZED_BYTES 4096
#define MAX_FUNCTION_BYTES 65536
/* More functions than any one of these jumps to. */
#define MAX_TAIL_CALLS 16

struct lock_function {
	const char *name;
	enum dp_wait_kind kind;
};

/*
 * Exported names first; those that begin with underscores are internal to glibc and musl, and seen
 * where the file has a symbol table. __lock() is musl's lock for itself, whose holder may be
 * anything: it ends the search. Source: glibc 2.31 to 2.36, directories nptl and sysdeps/nptl; musl
 * 1.2, src/thread.
 */
static const struct lock_function functions[] = {
	{"pthread_mutex_lock", DP_WAIT_MUTEX},
	{"pthread_mutex_timedlock", DP_WAIT_MUTEX},
	{"pthread_mutex_clocklock", DP_WAIT_MUTEX},
	{"pthread_mutex_unlock", DP_WAIT_MUTEX},
	{"mtx_lock", DP_WAIT_MUTEX},
	{"mtx_timedlock", DP_WAIT_MUTEX},
	{"mtx_unlock", DP_WAIT_MUTEX},
	{"__pthread_mutex_lock", DP_WAIT_MUTEX},
	{"__pthread_mutex_lock_full", DP_WAIT_MUTEX},
	{"__pthread_mutex_timedlock", DP_WAIT_MUTEX},
	{"__pthread_mutex_clocklock", DP_WAIT_MUTEX},
	{"__pthread_mutex_clocklock_common", DP_WAIT_MUTEX},
	{"__pthread_mutex_cond_lock", DP_WAIT_MUTEX},
	{"__pthread_mutex_cond_lock_full", DP_WAIT_MUTEX},
	{"__pthread_mutex_unlock", DP_WAIT_MUTEX},
	{"__pthread_mutex_unlock_usercnt", DP_WAIT_MUTEX},
	{"__pthread_mutex_unlock_full", DP_WAIT_MUTEX},
	{"__lll_lock_wait", DP_WAIT_MUTEX},
	{"__lll_lock_wait_private", DP_WAIT_MUTEX},
	{"__lll_timedlock_wait", DP_WAIT_MUTEX},
	{"__lll_clocklock_wait", DP_WAIT_MUTEX},
	{"__lll_lock_elision", DP_WAIT_MUTEX},
	{"__lll_timedlock_elision", DP_WAIT_MUTEX},
	{"__lll_clocklock_elision", DP_WAIT_MUTEX},
	{"__lll_unlock_elision", DP_WAIT_MUTEX},
	{"__lll_lock_wake", DP_WAIT_MUTEX},
	{"__lll_lock_wake_private", DP_WAIT_MUTEX},

	{"pthread_rwlock_rdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_wrlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_timedrdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_timedwrlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_clockrdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_clockwrlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_unlock", DP_WAIT_RWLOCK},
	{"__pthread_rwlock_rdlock", DP_WAIT_RWLOCK},
	{"__pthread_rwlock_wrlock", DP_WAIT_RWLOCK},
	{"__pthread_rwlock_timedrdlock", DP_WAIT_RWLOCK},
	{"__pthread_rwlock_timedwrlock", DP_WAIT_RWLOCK},
	{"__pthread_rwlock_unlock", DP_WAIT_RWLOCK},

	{"pthread_cond_wait", DP_WAIT_CONDVAR},
	{"pthread_cond_timedwait", DP_WAIT_CONDVAR},
	{"pthread_cond_clockwait", DP_WAIT_CONDVAR},
	{"pthread_cond_signal", DP_WAIT_CONDVAR},
	{"pthread_cond_broadcast", DP_WAIT_CONDVAR},
	{"cnd_wait", DP_WAIT_CONDVAR},
	{"cnd_timedwait", DP_WAIT_CONDVAR},
	{"cnd_signal", DP_WAIT_CONDVAR},
	{"cnd_broadcast", DP_WAIT_CONDVAR},
	{"__pthread_cond_wait", DP_WAIT_CONDVAR},
	{"__pthread_cond_timedwait", DP_WAIT_CONDVAR},
	{"__pthread_cond_clockwait", DP_WAIT_CONDVAR},
	{"__pthread_cond_signal", DP_WAIT_CONDVAR},
	{"__pthread_cond_broadcast", DP_WAIT_CONDVAR},
	{"__private_cond_signal", DP_WAIT_CONDVAR},

	{"sem_wait", DP_WAIT_SEMAPHORE},
	{"sem_timedwait", DP_WAIT_SEMAPHORE},
	{"sem_clockwait", DP_WAIT_SEMAPHORE},
	{"sem_post", DP_WAIT_SEMAPHORE},
	{"__new_sem_wait", DP_WAIT_SEMAPHORE},
	{"__new_sem_wait_slow", DP_WAIT_SEMAPHORE},
	{"__new_sem_wait_slow.constprop.0", DP_WAIT_SEMAPHORE},
	{"__new_sem_wait_slow64", DP_WAIT_SEMAPHORE},
	{"__new_sem_wait_slow64.constprop.0", DP_WAIT_SEMAPHORE},
	{"__new_sem_post", DP_WAIT_SEMAPHORE},

	{"pthread_barrier_wait", DP_WAIT_BARRIER},
	{"pthread_barrier_destroy", DP_WAIT_BARRIER},
	{"__pthread_barrier_wait", DP_WAIT_BARRIER},

	{"pthread_join", DP_WAIT_JOIN},
	{"pthread_timedjoin_np", DP_WAIT_JOIN},
	{"pthread_clockjoin_np", DP_WAIT_JOIN},
	{"thrd_join", DP_WAIT_JOIN},
	{"__pthread_join", DP_WAIT_JOIN},
	{"__pthread_timedjoin_np", DP_WAIT_JOIN},
	{"__pthread_timedjoin_ex", DP_WAIT_JOIN},
	{"__pthread_clockjoin_ex", DP_WAIT_JOIN},

	{"__lock", DP_WAIT_FUTEX},
	{"__unlock", DP_WAIT_FUTEX},
};
#define N_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

struct range {
	uint64_t start, end; /* offsets in the file, end exclusive */
	uint64_t entry;	     /* where the function of the table begins */
	size_t i_function;
	bool is_tail; /* it jumps here */
};

/* Of one module; sorted, none overlaps another. */
struct ranges {
	struct range *list;
	size_t n, capacity;
};

struct dp_locks {
	struct dp_modules *modules;
	struct ranges *by_module; /* id - 1 → its ranges */
	size_t capacity;
	uint32_t n_modules; /* looked at */
};

const char *dp_wait_kind_name(enum dp_wait_kind kind)
{
	switch (kind) {
	case DP_WAIT_MUTEX:
		return "mutex";
	case DP_WAIT_RWLOCK:
		return "rwlock";
	case DP_WAIT_CONDVAR:
		return "condvar";
	case DP_WAIT_SEMAPHORE:
		return "semaphore";
	case DP_WAIT_BARRIER:
		return "barrier";
	case DP_WAIT_JOIN:
		return "join";
	case DP_WAIT_FUTEX:
	case DP_N_WAIT_KINDS:
		break;
	}
	return "futex";
}

bool dp_wait_kind_is_lock(enum dp_wait_kind kind)
{
	return kind == DP_WAIT_MUTEX || kind == DP_WAIT_RWLOCK;
}

int dp_locks_new(struct dp_locks **ret, struct dp_modules *modules)
{
	struct dp_locks *locks = calloc(1, sizeof(*locks));

	if (!locks)
		return -ENOMEM;
	locks->modules = modules;
	*ret = locks;
	return 0;
}

void dp_locks_free(struct dp_locks *locks)
{
	if (!locks)
		return;
	for (uint32_t i = 0; i < locks->n_modules; i++)
		free(locks->by_module[i].list);
	free(locks->by_module);
	free(locks);
}

static int add_range(struct ranges *ranges, const struct range *range)
{
	int r = dp_array_reserve((void **)&ranges->list, &ranges->capacity, ranges->n + 1,
				 sizeof(*ranges->list));

	if (r < 0)
		return r;
	ranges->list[ranges->n++] = *range;
	return 0;
}

/* Adds the functions that the one at @function jumps to. */
static int add_tails(struct ranges *ranges, const struct dp_tail_calls *tail_calls,
		     const struct range *function)
{
	struct dp_tail_call tails[MAX_TAIL_CALLS];
	size_t n = dp_tail_calls_find(tail_calls, function->start, function->end - function->start,
				      tails, MAX_TAIL_CALLS);

	for (size_t i = 0; i < n; i++) {
		struct range range = *function;
		int r;

		range.start = tails[i].file_off;
		range.end = range.start + tails[i].size_bytes;
		range.is_tail = true;
		r = add_range(ranges, &range);
		if (r < 0)
			return r;
	}
	return 0;
}

/* @tail_calls: NULL where they cannot be found. */
static int add_function(struct ranges *ranges, const struct dp_found_symbol *symbol,
			const struct dp_tail_calls *tail_calls)
{
	uint64_t size_bytes = symbol->size_bytes ? symbol->size_bytes : UNSIZED_BYTES;
	struct range range = {
		.start = symbol->file_off, .entry = symbol->file_off, .i_function = symbol->i_name};
	int r;

	if (size_bytes > MAX_FUNCTION_BYTES)
		size_bytes = MAX_FUNCTION_BYTES;
	range.end = range.start + size_bytes;
	r = add_range(ranges, &range);
	/* Without a size there is no telling whether a jump leads out. */
	if (r == 0 && tail_calls && symbol->size_bytes)
		r = add_tails(ranges, tail_calls, &range);
	return r;
}

/* By where they start; a function of its own before one that is jumped to, then as in the table. */
static int compare_ranges(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->is_tail != y->is_tail)
		return x->is_tail ? 1 : -1;
	return x->i_function < y->i_function ? -1 : x->i_function > y->i_function;
}

/*
 * Of the ranges that start at one place, which begin at @list and are @n, whether the first one
 * stands for all: a function that functions of several kinds jump to says nothing.
 */
static bool is_unambiguous(const struct range *list, size_t n)
{
	for (size_t i = 1; i < n && list[0].is_tail; i++) {
		if (functions[list[i].i_function].kind != functions[list[0].i_function].kind)
			return false;
	}
	return true;
}

/* Leaves one range for each start, and none that reaches into the next. */
static void sort_and_unite(struct ranges *ranges)
{
	size_t n_kept = 0, n_same;

	if (ranges->n > 1)
		qsort(ranges->list, ranges->n, sizeof(*ranges->list), compare_ranges);
	for (size_t i = 0; i < ranges->n; i += n_same) {
		struct range *first = &ranges->list[i];

		for (n_same = 1; i + n_same < ranges->n && first[n_same].start == first->start;)
			n_same++;
		if (n_kept > 0 && ranges->list[n_kept - 1].end > first->start)
			ranges->list[n_kept - 1].end = first->start;
		if (is_unambiguous(first, n_same))
			ranges->list[n_kept++] = *first;
	}
	ranges->n = n_kept;
}

static int find_ranges(struct dp_modules *modules, uint32_t id, struct ranges *ret)
{
	const char *names[N_FUNCTIONS];
	struct ranges ranges = {0};
	struct dp_tail_calls tail_calls;
	struct dp_found_symbol *found = NULL;
	size_t n_found = 0;
	bool has_tail_calls;
	int r;

	for (size_t i = 0; i < N_FUNCTIONS; i++)
		names[i] = functions[i].name;
	r = dp_module_find_functions(modules, id, names, N_FUNCTIONS, &found, &n_found);
	if (r == -ENOMEM)
		return r;
	/* Otherwise there is nothing to be found in it. */
	has_tail_calls = n_found > 0 && dp_tail_calls_open(&tail_calls, modules, id);
	r = 0;
	for (size_t i = 0; i < n_found && r == 0; i++)
		r = add_function(&ranges, &found[i], has_tail_calls ? &tail_calls : NULL);
	free(found);
	if (r < 0) {
		free(ranges.list);
		return -ENOMEM;
	}
	sort_and_unite(&ranges);
	*ret = ranges;
	return 0;
}

int dp_locks_update(struct dp_locks *locks)
{
	uint32_t n_modules = dp_modules_count(locks->modules);
	int r = dp_array_reserve((void **)&locks->by_module, &locks->capacity, n_modules,
				 sizeof(*locks->by_module));

	if (r < 0)
		return r;
	while (locks->n_modules < n_modules) {
		r = find_ranges(locks->modules, locks->n_modules + 1,
				&locks->by_module[locks->n_modules]);
		if (r < 0)
			return r;
		locks->n_modules++;
	}
	return 0;
}

/* The range that @frame lies in, or NULL. */
static const struct range *find_range(const struct dp_locks *locks, uint64_t frame)
{
	uint32_t module = dp_frame_module(frame);
	uint64_t file_off = dp_frame_offset(frame);
	const struct ranges *ranges;
	size_t low = 0, high;

	if (module == 0 || module > locks->n_modules)
		return NULL;
	ranges = &locks->by_module[module - 1];
	high = ranges->n;
	/* The first range that starts behind it. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges->list[middle].start <= file_off)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && file_off < ranges->list[low - 1].end ? &ranges->list[low - 1] : NULL;
}

enum dp_wait_kind dp_locks_classify(const struct dp_locks *locks, const uint64_t *frames,
				    size_t n_frames, size_t *ret_i_frame)
{
	for (size_t i = 0; i < n_frames; i++) {
		const struct range *range = find_range(locks, frames[i]);

		if (range) {
			*ret_i_frame = i;
			return functions[range->i_function].kind;
		}
	}
	*ret_i_frame = 0;
	return DP_WAIT_FUTEX;
}

uint64_t dp_locks_entry(const struct dp_locks *locks, uint64_t frame)
{
	const struct range *range = find_range(locks, frame);

	return range ? dp_frame_make(dp_frame_module(frame), range->entry) : frame;
}
