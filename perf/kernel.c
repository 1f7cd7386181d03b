/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: what the programs keep they hand to an event of the kernel's own (BPF_OUTPUT) on
 * the CPU they run on, and that event's sample_type says what perf adds. So there are as many
 * events as CPUs, whatever the number of threads, and to copy more of each stack they are
 * exchanged.
 */
#include "perf/kernel.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "perf/arch.h"
#include "perf/fd_limit.h"
#include "perf/kernel_probes.h"
#include "perf/kernel_programs.h"
#include "src/base/proc_stat.h"

/* A set of so many live objects covers 128 GiB at the default rate; a finer rate has the most. */
#define MAX_LIVE_COARSE (1u << 18)
#define FINE_RATE_BYTES (512u << 10)

/* Source: the kernel's include/linux/proc_ns.h, PROC_PID_INIT_INO. */
#define INITIAL_PID_NAMESPACE 0xeffffffcu

#define LN2 0.693147180559945309417

struct dp_kernel {
	pid_t pid;
	struct dp_probe_site *sites;
	size_t n_sites;
	bool has_go;
	bool without_returns;
	bool copies_heap; /* allocations come with a copy of their stack, else a callchain */
	bool has_slot;
	struct dp_kernel_programs *programs;
	uint32_t slot;
	struct dp_kernel_config config;
	struct dp_kernel_links links;
	struct dp_kernel_events *events; /* instead of links, or to keep them alive */
	bool main_ended;		 /* the process's main thread */
	const struct dp_rings *rings;
	int *output_fds; /* for each output and CPU; -1: none */
	uint32_t stack_bytes;
};

static struct perf_event_attr output_attr(uint32_t stack_bytes, bool callchain)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_BPF_OUTPUT,
		.sample_period = 1,
		.sample_type = DP_SAMPLE_TYPE_BITS,
		.exclude_callchain_kernel = 1,
		.exclude_callchain_user = !callchain,
		.sample_id_all = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
	};

	if (stack_bytes) {
		attr.sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
		attr.sample_regs_user = dp_arch.user_regs_mask;
		attr.sample_stack_user = stack_bytes;
	}
	return attr;
}

static int open_output(struct dp_kernel *kernel, enum dp_kernel_output output, size_t i_cpu,
		       uint32_t stack_bytes, bool callchain)
{
	struct perf_event_attr attr = output_attr(stack_bytes, callchain);
	int cpu = kernel->rings->cpus[i_cpu];
	int *slot = &kernel->output_fds[(size_t)output * kernel->rings->n_cpus + i_cpu];
	long fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (ioctl((int)fd, PERF_EVENT_IOC_SET_OUTPUT, kernel->rings->fds[i_cpu]) < 0)
		r = -errno;
	if (r == 0)
		r = dp_kernel_programs_set_output(kernel->programs, kernel->slot, output, cpu,
						  (int)fd);
	if (r < 0) {
		close((int)fd);
		return r;
	}
	if (*slot >= 0)
		close(*slot);
	*slot = (int)fd;
	return 0;
}

/* Opens or exchanges the events of every CPU. */
static int open_outputs(struct dp_kernel *kernel, enum dp_kernel_output output,
			uint32_t stack_bytes, bool callchain, struct dp_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < kernel->rings->n_cpus; i++)
		r = open_output(kernel, output, i, stack_bytes, callchain);
	if (r < 0)
		dp_error_set(err, r, "pid %d: perf_event_open for what BPF programs keep: %s",
			     kernel->pid, strerror(-r));
	return r;
}

/* Opens those that copy stacks; the plain one never changes. */
static int open_stack_outputs(struct dp_kernel *kernel, uint32_t stack_bytes, bool callchain,
			      struct dp_error *err)
{
	int r = open_outputs(kernel, DP_KERNEL_OUTPUT_WAIT, stack_bytes, callchain, err);

	if (r == 0 && kernel->copies_heap)
		r = open_outputs(kernel, DP_KERNEL_OUTPUT_HEAP, stack_bytes, callchain, err);
	return r;
}

static int open_all_outputs(struct dp_kernel *kernel, struct dp_error *err)
{
	size_t n = kernel->rings->n_cpus * DP_KERNEL_N_OUTPUTS;
	int r;

	kernel->output_fds = calloc(n, sizeof(*kernel->output_fds));
	if (!kernel->output_fds)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", kernel->pid);
	for (size_t i = 0; i < n; i++)
		kernel->output_fds[i] = -1;
	r = open_outputs(kernel, DP_KERNEL_OUTPUT_PLAIN, 0, false, err);
	if (r == 0)
		r = open_stack_outputs(kernel, kernel->stack_bytes, false, err);
	if (r == 0 && !kernel->copies_heap)
		r = open_outputs(kernel, DP_KERNEL_OUTPUT_HEAP, 0, true, err);
	if (r == 0 && kernel->has_go)
		r = open_outputs(kernel, DP_KERNEL_OUTPUT_GO, 0, true, err);
	return r;
}

#define FIELD(record, name)                                                       \
	{                                                                         \
		offsetof(struct record, name), sizeof(((struct record *)0)->name) \
	}

/* How the programs' records are to be read. */
static void add_layouts(struct dp_record_layout *layout)
{
	static const struct dp_raw_layout layouts[] = {
		{.id = DP_KERNEL_RECORD_ENTRY,
		 .type = DP_EVENT_ALLOC_ENTRY,
		 .probe = FIELD(dp_kernel_entry, probe_avma),
		 .fields = {FIELD(dp_kernel_entry, args[0]), FIELD(dp_kernel_entry, args[1]),
			    FIELD(dp_kernel_entry, args[2]), FIELD(dp_kernel_entry, sp),
			    FIELD(dp_kernel_entry, stack0)},
		 .decided = FIELD(dp_kernel_entry, decided)},
		{.id = DP_KERNEL_RECORD_RETURN,
		 .type = DP_EVENT_ALLOC_RETURN,
		 .probe = FIELD(dp_kernel_return, probe_avma),
		 .fields = {FIELD(dp_kernel_return, retval), FIELD(dp_kernel_return, dx),
			    FIELD(dp_kernel_return, sp)},
		 .decided = FIELD(dp_kernel_return, decided)},
		{.id = DP_KERNEL_RECORD_FREE,
		 .type = DP_EVENT_FREE,
		 .probe = FIELD(dp_kernel_free, probe_avma),
		 .fields = {FIELD(dp_kernel_free, args[0]), FIELD(dp_kernel_free, args[1]),
			    FIELD(dp_kernel_free, args[2]), FIELD(dp_kernel_free, sp)},
		 .decided = FIELD(dp_kernel_free, decided)},
		{.id = DP_KERNEL_RECORD_RELEASE,
		 .type = DP_EVENT_RELEASE,
		 .fields = {FIELD(dp_kernel_release, wakee_tid),
			    FIELD(dp_kernel_release, pending.sp),
			    FIELD(dp_kernel_release, pending.stack0)}},
		{.id = DP_KERNEL_RECORD_WAIT,
		 .type = DP_EVENT_WAIT,
		 .fields = {FIELD(dp_kernel_wait, released), FIELD(dp_kernel_wait, delay_ns),
			    FIELD(dp_kernel_wait, drawn_ns), FIELD(dp_kernel_wait, pending.sp),
			    FIELD(dp_kernel_wait, pending.stack0)}},
		{.id = DP_KERNEL_RECORD_GO_WAIT,
		 .type = DP_EVENT_GO_WAIT,
		 .fields = {FIELD(dp_kernel_go_wait, g), FIELD(dp_kernel_go_wait, reason),
			    FIELD(dp_kernel_go_wait, n_frames), FIELD(dp_kernel_go_wait, delay_ns),
			    FIELD(dp_kernel_go_wait, goes_on)},
		 .frames = {offsetof(struct dp_kernel_go_wait, frames), sizeof(uint64_t)}},
	};

	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		layout->raw[layout->n_raw++] = layouts[i];
}

/* The programs see threads as the first namespace numbers them. */
static int check_namespace(struct dp_error *err)
{
	struct stat status;

	if (stat("/proc/self/ns/pid", &status) == 0 && status.st_ino == INITIAL_PID_NAMESPACE)
		return 0;
	return dp_error_set(
		err, -EOPNOTSUPP,
		"BPF programs tell processes apart by their numbers on the host, and we "
		"run in another pid namespace; use --sampler direct");
}

static bool has_go(const struct dp_sampler_options *options)
{
	for (size_t i = 0; i < options->n_sites; i++) {
		if (dp_kernel_kind_is_go(options->sites[i].kind))
			return true;
	}
	return false;
}

static int by_start(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Tells the programs where the allocation functions lie. */
static int set_code(const struct dp_kernel *kernel)
{
	struct dp_kernel_code code;
	size_t n = 0;

	memset(&code, 0xff, sizeof(code));
	for (size_t i = 0; i < kernel->n_sites; i++) {
		const struct dp_probe_site *site = &kernel->sites[i];

		if (site->kind == DP_KERNEL_FREE || site->start_avma == site->end_avma)
			continue;
		code.ranges[n].start = site->start_avma;
		code.ranges[n++].end = site->end_avma;
	}
	qsort(code.ranges, n, sizeof(code.ranges[0]), by_start);
	return dp_kernel_programs_set_code(kernel->programs, kernel->slot, &code);
}

static int open_probes(struct dp_kernel *kernel, const struct dp_sampler_options *options,
		       struct dp_error *err)
{
	int r = 0;

	if (options->n_sites == 0)
		return 0;
	kernel->sites = malloc(options->n_sites * sizeof(*kernel->sites));
	if (!kernel->sites)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	memcpy(kernel->sites, options->sites, options->n_sites * sizeof(*kernel->sites));
	kernel->n_sites = options->n_sites;
	if (options->n_sites > DP_KERNEL_MAX_SITES)
		return dp_error_set(err, -ENOSPC, "pid %d: more than %d functions to be probed",
				    options->pid, DP_KERNEL_MAX_SITES);
	kernel->without_returns = options->without_returns;
	if (options->without_returns)
		r = set_code(kernel);
	if (r < 0)
		return dp_error_set(err, r, "pid %d: preparing BPF maps: %s", options->pid,
				    strerror(-r));
	kernel->main_ended = !dp_thread_is_alive(options->pid, options->pid);
	/* A link cannot be bound to a main thread that has ended. */
	if (options->mode != DP_SAMPLER_KERNEL_EVENTS &&
	    dp_kernel_programs_fd(kernel->programs, DP_KERNEL_PROGRAM_SESSION) >= 0 &&
	    !kernel->main_ended)
		return dp_kernel_links_open(&kernel->links, kernel->programs, kernel->slot, options,
					    err);
	kernel->config.traps_all = 1;
	return dp_kernel_events_open(&kernel->events, kernel->programs, kernel->slot, options, err);
}

static int configure(struct dp_kernel *kernel, const struct dp_sampler_options *options,
		     struct dp_error *err)
{
	bool exact = options->heap_rate_bytes <= 1;
	uint32_t max_live = exact || options->without_returns		  ? 1
			    : options->heap_rate_bytes >= FINE_RATE_BYTES ? MAX_LIVE_COARSE
									  : DP_KERNEL_MAX_LIVE;
	int r;

	kernel->config = (struct dp_kernel_config){
		.tgid = (uint32_t)options->pid,
		.except_tid = (uint32_t)options->except_tid,
		.exact = exact,
		.rate_ln2_fixed =
			(uint64_t)llround(LN2 * 0x1p16 * (double)options->heap_rate_bytes),
		.block_rate_ns = options->block_rate_ns,
		.contention = options->contention,
		.go_reasons = options->go.reasons,
		.go_semaphores = options->go.semaphores,
		.go_pc_offset = options->go.g_pc_offset,
		.go_bp_offset = options->go.g_bp_offset,
		.generation = dp_kernel_programs_next_generation(kernel->programs),
	};
	r = dp_kernel_programs_reset(kernel->programs, kernel->slot, options->seed,
				     options->heap_rate_bytes, max_live, err);
	if (r == 0 && kernel->has_go)
		r = dp_kernel_programs_watch_go(kernel->programs, kernel->slot, err);
	if (r == 0) {
		r = dp_kernel_programs_configure(kernel->programs, kernel->slot, &kernel->config);
		if (r < 0)
			dp_error_set(err, r, "pid %d: preparing BPF maps: %s", options->pid,
				     strerror(-r));
	}
	return r;
}

int dp_kernel_open(struct dp_kernel **ret, const struct dp_sampler_options *options,
		   const struct dp_rings *rings, struct dp_record_layout *layout,
		   struct dp_error *err)
{
	struct dp_kernel *kernel = calloc(1, sizeof(*kernel));
	int r;

	if (!kernel)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	kernel->pid = options->pid;
	kernel->copies_heap = options->heap_stacks;
	kernel->has_go = has_go(options);
	kernel->stack_bytes = options->stack_bytes;
	kernel->rings = rings;
	dp_raise_fd_limit((DP_KERNEL_N_OUTPUTS + 1) * rings->n_cpus);
	r = check_namespace(err);
	if (r == 0)
		r = dp_kernel_programs_get(&kernel->programs, &kernel->slot, err);
	kernel->has_slot = r == 0;
	if (r == 0)
		r = configure(kernel, options, err);
	if (r == 0)
		r = open_all_outputs(kernel, err);
	if (r == 0 && options->contention)
		r = dp_kernel_programs_watch_waits(kernel->programs, kernel->slot,
						   (uint32_t)options->pid, err);
	if (r == 0)
		r = open_probes(kernel, options, err);
	if (r < 0) {
		dp_kernel_close(kernel);
		return r;
	}
	add_layouts(layout);
	*ret = kernel;
	return 0;
}

static void set_enabled(struct dp_kernel *kernel, bool enabled)
{
	kernel->config.enabled = enabled;
	/* Cannot fail: the elements are there. */
	dp_kernel_programs_configure(kernel->programs, kernel->slot, &kernel->config);
}

void dp_kernel_enable(struct dp_kernel *kernel)
{
	set_enabled(kernel, true);
}

void dp_kernel_disable(struct dp_kernel *kernel)
{
	set_enabled(kernel, false);
}

void dp_kernel_close(struct dp_kernel *kernel)
{
	if (!kernel)
		return;
	if (kernel->has_slot) {
		kernel->config.tgid = 0;
		dp_kernel_disable(kernel);
	}
	dp_kernel_links_close(&kernel->links);
	dp_kernel_events_close(kernel->events);
	for (size_t i = 0; kernel->output_fds && i < kernel->rings->n_cpus * DP_KERNEL_N_OUTPUTS;
	     i++) {
		if (kernel->output_fds[i] >= 0)
			close(kernel->output_fds[i]);
	}
	if (kernel->has_slot)
		dp_kernel_programs_put(kernel->programs, kernel->slot);
	free(kernel->output_fds);
	free(kernel->sites);
	free(kernel);
}

int dp_kernel_resize(struct dp_kernel *kernel, uint32_t stack_bytes, bool callchain,
		     struct dp_error *err)
{
	int r = open_stack_outputs(kernel, stack_bytes, callchain, err);

	if (r == 0)
		kernel->stack_bytes = stack_bytes;
	return r;
}

uint32_t dp_kernel_stack_bytes(const struct dp_kernel *kernel)
{
	return kernel->stack_bytes;
}

/* The main thread has ended, and others go on; see perf/kernel_probes.h. */
static void keep_links(struct dp_kernel *kernel)
{
	const struct dp_sampler_options options = {.pid = kernel->pid,
						   .sites = kernel->sites,
						   .n_sites = kernel->n_sites,
						   .without_returns = kernel->without_returns};
	struct dp_error unused;

	/* Where this fails the process has ended, or we are where we were without. */
	if (kernel->links.n > 0)
		dp_kernel_events_open(&kernel->events, NULL, kernel->slot, &options, &unused);
}

void dp_kernel_follow(struct dp_kernel *kernel, const struct dp_event *event)
{
	bool main_ends = event->type == DP_EVENT_EXIT && event->pid == (uint32_t)kernel->pid &&
			 event->tid == event->pid;

	kernel->main_ended |= main_ends;
	if (kernel->events)
		dp_kernel_events_follow(kernel->events, event);
	else if (main_ends)
		keep_links(kernel);
}

bool dp_kernel_is_anchored(const struct dp_kernel *kernel)
{
	return kernel->events && kernel->main_ended;
}

uint64_t dp_kernel_n_gaps(const struct dp_kernel *kernel)
{
	return kernel->events ? dp_kernel_events_n_gaps(kernel->events) : 0;
}

void dp_kernel_count(const struct dp_kernel *kernel, struct dp_kernel_counts *ret)
{
	dp_kernel_programs_count(kernel->programs, kernel->slot, ret);
}

void dp_kernel_get_size(const struct dp_kernel *kernel, size_t *ret_threads, size_t *ret_fds)
{
	struct dp_proc_stat stat = {.n_threads = 0};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", kernel->pid);
	dp_proc_stat_read(path, &stat);
	*ret_threads = (size_t)stat.n_threads;
	*ret_fds = kernel->links.n + dp_kernel_programs_n_fds(kernel->programs);
	for (size_t i = 0; i < kernel->rings->n_cpus * DP_KERNEL_N_OUTPUTS; i++)
		*ret_fds += kernel->output_fds[i] >= 0;
	if (kernel->events)
		*ret_fds += dp_kernel_events_n_fds(kernel->events);
}
