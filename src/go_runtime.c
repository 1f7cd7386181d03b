/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: the file says where the variables are, with symbols or without, and the memory
 * says whether that is true; nothing is used that did not look right there.
 */
#include "src/go_runtime.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "perf/arch.h"
#include "src/base/clock.h"
#include "src/go_build_info.h"
#include "src/go_check.h"
#include "src/go_code.h"
#include "src/go_memory.h"
#include "symbolize/go_binary.h"
#include "symbolize/go_file.h"
#include "symbolize/go_table.h"
#include "symbolize/go_variables.h"

/* Source: the runtime's usleep(100 * 1000) in tickspersecond(), and minTimeForTicksPerSecond. */
#define OWN_CALIBRATION_NS 100000000
#define THEIR_CALIBRATION_NS 5000000

enum symbol {
	S_HEAP,
	S_BLOCK,
	S_MUTEX,
	S_CYCLE,
	S_OLD_CYCLE,
	S_HEAP_RATE,
	S_BLOCK_RATE,
	S_MUTEX_FRACTION,
	S_HEAP_DISABLED,
	S_TICKS,
	S_HEAP_LOCK,
	S_EVENTS_LOCK,
	S_OLD_LOCK,
	S_CGO,
	N_SYMBOLS
};

static const char *const symbol_names[N_SYMBOLS] = {
	[S_HEAP] = "runtime.mbuckets",
	[S_BLOCK] = "runtime.bbuckets",
	[S_MUTEX] = "runtime.xbuckets",
	[S_CYCLE] = "runtime.mProfCycle",
	[S_OLD_CYCLE] = "runtime.mProf",
	[S_HEAP_RATE] = "runtime.MemProfileRate",
	[S_BLOCK_RATE] = "runtime.blockprofilerate",
	[S_MUTEX_FRACTION] = "runtime.mutexprofilerate",
	[S_HEAP_DISABLED] = "runtime.disableMemoryProfiling",
	[S_TICKS] = "runtime.ticks",
	[S_HEAP_LOCK] = "runtime.profMemActiveLock",
	[S_EVENTS_LOCK] = "runtime.profBlockLock",
	[S_OLD_LOCK] = "runtime.proflock",
	[S_CGO] = "crosscall2",
};

/* A function of runtime/cgo's that is in the function table too. */
#define CGO_FUNCTION "crosscall2"

/* Where the program's own code is loaded. Returns whether the main mapping is of its file. */
static bool place(struct dp_go_runtime *runtime, const struct dp_go_file *file,
		  const struct dp_space_range *range)
{
	for (size_t i = 0; i < file->n_segments; i++) {
		const struct dp_go_segment *s = &file->segments[i];
		uint64_t page_off = s->file_off & ~(uint64_t)4095;

		if (!s->is_code || range->file_off < page_off ||
		    range->file_off >= s->file_off + s->n_bytes)
			continue;
		runtime->bias = range->start - (s->svma + (range->file_off - s->file_off));
		runtime->text_start = s->svma + runtime->bias;
		runtime->text_end = runtime->text_start + s->n_bytes;
		return true;
	}
	return false;
}

static uint64_t either(const uint64_t *symbols, enum symbol a, enum symbol b, uint64_t bias)
{
	uint64_t svma = symbols[a] ? symbols[a] : symbols[b];

	return svma ? svma + bias : 0;
}

static void use_symbols(struct dp_go_runtime *runtime, const uint64_t *symbols)
{
	struct dp_go_variables *v = &runtime->variables;
	uint64_t bias = runtime->bias;

	for (unsigned i = 0; i < 3; i++)
		v->buckets[i] = either(symbols, S_HEAP + i, S_HEAP + i, bias);
	v->heap_cycle = either(symbols, S_CYCLE, S_OLD_CYCLE, bias);
	v->heap_rate = either(symbols, S_HEAP_RATE, S_HEAP_RATE, bias);
	v->block_rate = either(symbols, S_BLOCK_RATE, S_BLOCK_RATE, bias);
	v->mutex_fraction = either(symbols, S_MUTEX_FRACTION, S_MUTEX_FRACTION, bias);
	v->heap_disabled = either(symbols, S_HEAP_DISABLED, S_HEAP_DISABLED, bias);
	v->ticks = either(symbols, S_TICKS, S_TICKS, bias);
	v->heap_lock = either(symbols, S_HEAP_LOCK, S_OLD_LOCK, bias);
	v->events_lock = either(symbols, S_EVENTS_LOCK, S_OLD_LOCK, bias);
	runtime->has_cgo = symbols[S_CGO] != 0;
}

static int use_instructions(struct dp_go_runtime *runtime, int fd, struct dp_error *err)
{
	struct dp_go_table *table;
	struct dp_go_function function;
	int r = dp_go_table_open(&table, fd);

	if (r < 0)
		return dp_error_set(err, r == -ENOENT ? -ENOEXEC : r,
				    "process %d: its Go function table cannot be read: %s",
				    runtime->pid, strerror(-r));
	runtime->is_stripped = true;
	runtime->has_cgo = dp_go_table_find(table, CGO_FUNCTION, &function);
	dp_go_code_find(runtime, table);
	dp_go_table_free(table);
	return 0;
}

static int find_version(struct dp_go_runtime *runtime, int fd, struct dp_error *err)
{
	unsigned minor;
	uint64_t svma;
	int r = dp_go_find_build_info(fd, &svma);

	if (r == 0)
		r = dp_go_build_info_version(runtime->pid, svma + runtime->bias, runtime->version,
					     sizeof(runtime->version));
	if (r < 0)
		return dp_error_set(err, r == -ENOENT || r == -EBADMSG ? -ENOEXEC : r,
				    "process %d: the version of Go cannot be read from it: %s",
				    runtime->pid, strerror(-r));
	r = dp_go_layout_parse(runtime->version, &minor);
	if (r == 0)
		r = dp_go_layout_get(minor, &runtime->layout);
	if (r < 0)
		return dp_error_set(
			err, r, "process %d is made with %s; Go 1.%d to 1.%d are supported",
			runtime->pid, runtime->version, DP_GO_MIN_MINOR, DP_GO_MAX_MINOR);
	return r;
}

static int find_variables(struct dp_go_runtime *runtime, int fd, struct dp_error *err)
{
	const struct dp_go_variables *v = &runtime->variables;
	uint64_t symbols[N_SYMBOLS];
	int r = 0;

	dp_go_find_variables(fd, symbol_names, N_SYMBOLS, symbols);
	if (symbols[S_HEAP] != 0)
		use_symbols(runtime, symbols);
	else
		r = use_instructions(runtime, fd, err);
	if (r < 0)
		return r;
	if (!dp_go_check_heads(runtime) || v->heap_cycle == 0 || v->heap_rate == 0)
		return dp_error_set(err, -ENOEXEC,
				    "process %d (%s): the runtime's profile was not found in its "
				    "memory where this version keeps it",
				    runtime->pid, runtime->version);
	return 0;
}

static int find(struct dp_go_runtime *runtime, int fd, const struct dp_space_range *range,
		struct dp_error *err)
{
	struct dp_go_file file;
	bool is_newer;
	int r = dp_go_file_read(&file, fd);

	if (r < 0 || !place(runtime, &file, range))
		return dp_error_set(err, -ENOEXEC,
				    "process %d: its Go program is not laid out as its file says",
				    runtime->pid);
	r = find_version(runtime, fd, err);
	if (r < 0)
		return r;
	is_newer = r == 1;
	r = find_variables(runtime, fd, err);
	if (is_newer && (r == -ENOEXEC || (r == 0 && !dp_go_check_records(runtime))))
		return dp_error_set(err, -ENOTSUP,
				    "process %d is made with %s, newer than the newest known Go "
				    "1.%d, and its profile does not look as that one's does",
				    runtime->pid, runtime->version, DP_GO_MAX_MINOR);
	return r;
}

int dp_go_runtime_find(struct dp_go_runtime *ret, struct dp_modules *modules,
		       struct dp_space *space, pid_t pid, struct dp_error *err)
{
	struct dp_go_runtime runtime = {.pid = pid};
	struct dp_space_range range;
	struct dp_module_info info;
	int fd, r;

	if (dp_space_main_mapping(space, &range) < 0)
		return 1;
	fd = dp_module_fd(modules, range.module);
	if (fd < 0 || !dp_file_is_go(fd))
		return 1;
	if (!dp_module_get(modules, range.module, &info) || info.machine != dp_arch.elf_machine)
		return dp_error_set(err, -ENOTSUP,
				    "process %d is a Go program for another kind of processor",
				    pid);
	runtime.module = range.module;
	r = find(&runtime, fd, &range, err);
	if (r < 0)
		return r;
	runtime.ticks_at_find = dp_arch_ticks();
	runtime.ns_at_find = dp_monotonic_ns();
	*ret = runtime;
	return 0;
}

static int read_word(const struct dp_go_runtime *runtime, uint64_t avma, void *ret, size_t n_bytes)
{
	return avma == 0 ? 0 : dp_go_memory_read(runtime->pid, avma, ret, n_bytes);
}

/* Ticks in a nanosecond since the counter was @ticks and the clock @ns, at least @min_ns ago. */
static double calibrate(uint64_t ticks, uint64_t ns, uint64_t min_ns)
{
	uint64_t past = dp_monotonic_ns() - ns;

	if (past < min_ns)
		nanosleep(&(struct timespec){.tv_nsec = (long)(min_ns - past)}, NULL);
	ns = dp_monotonic_ns() - ns;
	return (double)(dp_arch_ticks() - ticks) / (double)ns;
}

static int read_ticks(const struct dp_go_runtime *runtime, double *ret)
{
	const struct dp_go_layout *layout = &runtime->layout;
	uint64_t ticks = runtime->variables.ticks;
	uint64_t value = 0, start = 0, start_time = 0;
	int r = 0;

	if (ticks != 0)
		r = read_word(runtime, ticks + layout->ticks_value, &value, sizeof(value));
	if (r == 0 && ticks != 0 && layout->ticks_start != 0)
		r = read_word(runtime, ticks + layout->ticks_start, &start, sizeof(start));
	if (r == 0 && ticks != 0 && layout->ticks_start != 0)
		r = read_word(runtime, ticks + layout->ticks_start_time, &start_time,
			      sizeof(start_time));
	if (r < 0)
		return r;
	if (value > 0 && value <= INT64_MAX)
		*ret = (double)value / 1e9;
	else if (start != 0 && start_time != 0 && start_time < dp_monotonic_ns())
		*ret = calibrate(start, start_time, THEIR_CALIBRATION_NS);
	else
		*ret = calibrate(runtime->ticks_at_find, runtime->ns_at_find, OWN_CALIBRATION_NS);
	return 0;
}

int dp_go_read_rates(const struct dp_go_runtime *runtime, struct dp_go_rates *ret)
{
	const struct dp_go_variables *v = &runtime->variables;
	struct dp_go_rates rates = {0};
	uint8_t disabled = 0;
	int r = read_word(runtime, v->heap_rate, &rates.heap_bytes, sizeof(rates.heap_bytes));

	if (r == 0)
		r = read_word(runtime, v->block_rate, &rates.block_ticks,
			      sizeof(rates.block_ticks));
	if (r == 0)
		r = read_word(runtime, v->mutex_fraction, &rates.mutex_fraction,
			      sizeof(rates.mutex_fraction));
	if (r == 0)
		r = read_word(runtime, v->heap_disabled, &disabled, sizeof(disabled));
	if (r == 0)
		r = read_ticks(runtime, &rates.ticks_per_ns);
	if (r < 0)
		return r;
	rates.heap_disabled = disabled == 1;
	*ret = rates;
	return 0;
}
