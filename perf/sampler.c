/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: three trace events (entry, return, free) carry all probed functions, so a thread
 * costs four perf events per CPU however many functions are probed; and all records of a CPU share
 * one ring, whose owner is a dummy event of that CPU that lives as long as we do.
 */
#include "perf/sampler.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "perf/arch.h"
#include "perf/attach.h"
#include "perf/cpus.h"
#include "perf/merge.h"
#include "perf/ring.h"
#include "perf/tracefs.h"
#include "src/base/clock.h"
#include "src/base/map.h"

/* All rings together; each at least MIN_RING_BYTES and at most MAX_RING_BYTES. */
#define RINGS_BYTES ((size_t)64 << 20)
#define MIN_RING_BYTES ((size_t)512 << 10)
#define MAX_RING_BYTES ((size_t)8 << 20)

/* Per ring, of records that wait for their turn. */
#define MAX_QUEUE_BYTES ((size_t)64 << 20)

/*
 * The sorts of events, in the order in which they are enabled: no object is seen whose free would
 * be missed, no wait whose end would.
 */
enum sort {
	SORT_SIDEBAND,
	SORT_FREE,
	SORT_RETURN,
	SORT_ENTRY,
	SORT_WAKING,
	SORT_FUTEX_WOKE, /* a futex call returned that had woken someone, or did not wait (EAGAIN):
			  * no stack is wanted */
	SORT_FUTEX_EXIT,
	SORT_FUTEX_ENTER,
	N_SORTS
};

/* Copied of the user's stack at a wake-up and at the end of a wait: libc has no frame pointers. */
#define STACK_BYTES 8192

struct dp_sampler {
	pid_t pid;
	struct dp_tracefs *tracefs;
	struct dp_attach *attach;
	struct dp_merge *merge;
	struct dp_record_layout layout;
	struct dp_event_spec specs[N_SORTS]; /* of those that are used */
	int i_spec[N_SORTS];		     /* a sort's index there; -1: not used */
	size_t n_specs;
	int *cpus;
	size_t n_cpus;
	size_t n_rings; /* mapped so far, ≤ n_cpus */
	struct dp_ring *rings;
	int *ring_fds;
	struct pollfd *pollfds;
	uint64_t round_ns;	 /* start of the last round */
	uint64_t horizon_ns;	 /* start of the one before */
	struct dp_map owners;	 /* thread found late, and its descendants → whose events count */
	uint64_t attached_ns;	 /* when the threads were listed for the last time, or later */
	unsigned n_enable_again; /* rounds */
	struct dp_sampler_stats stats;
};

static size_t choose_ring_bytes(size_t n_cpus)
{
	size_t bytes = MAX_RING_BYTES;

	while (bytes > MIN_RING_BYTES && bytes * n_cpus > RINGS_BYTES)
		bytes /= 2;
	return bytes;
}

static int open_ring(struct dp_sampler *sampler, size_t i, size_t ring_bytes, struct dp_error *err)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = DP_SAMPLE_TYPE_BITS,
		.sample_id_all = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = (uint32_t)(ring_bytes / 8),
	};
	long fd =
		syscall(SYS_perf_event_open, &attr, -1, sampler->cpus[i], -1, PERF_FLAG_FD_CLOEXEC);
	int r;

	if (fd < 0)
		return dp_error_set(
			err, -errno,
			"perf_event_open on CPU %d: %s; run as root, or with CAP_PERFMON and "
			"sysctl kernel.perf_event_paranoid at 0 or lower",
			sampler->cpus[i], strerror(errno));
	r = dp_ring_map(&sampler->rings[i], (int)fd, ring_bytes);
	if (r < 0) {
		close((int)fd);
		return dp_error_set(err, r,
				    "mapping a perf ring of %zu bytes on CPU %d: %s; raise sysctl "
				    "kernel.perf_event_mlock_kb or run with CAP_IPC_LOCK",
				    ring_bytes, sampler->cpus[i], strerror(-r));
	}
	sampler->ring_fds[i] = (int)fd;
	sampler->pollfds[i] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
	sampler->n_rings = i + 1;
	return 0;
}

static int open_rings(struct dp_sampler *sampler, size_t ring_bytes, struct dp_error *err)
{
	int r = dp_cpus_online(&sampler->cpus, &sampler->n_cpus);

	if (r < 0)
		return dp_error_set(err, r, "/sys/devices/system/cpu/online: %s", strerror(-r));
	sampler->rings = calloc(sampler->n_cpus, sizeof(*sampler->rings));
	sampler->ring_fds = calloc(sampler->n_cpus, sizeof(*sampler->ring_fds));
	sampler->pollfds = calloc(sampler->n_cpus, sizeof(*sampler->pollfds));
	if (!sampler->rings || !sampler->ring_fds || !sampler->pollfds ||
	    dp_merge_new(&sampler->merge, (unsigned)sampler->n_cpus, MAX_QUEUE_BYTES) < 0)
		return dp_error_set(err, -ENOMEM, "rings of %zu CPUs: out of memory",
				    sampler->n_cpus);
	if (ring_bytes == 0)
		ring_bytes = choose_ring_bytes(sampler->n_cpus);
	for (size_t i = 0; r == 0 && i < sampler->n_cpus; i++)
		r = open_ring(sampler, i, ring_bytes, err);
	return r;
}

/* What is opened for each sort. */
static const struct trace_event {
	const char *group; /* NULL: a probe of our own */
	const char *name;
	enum dp_event_type type;
	bool is_return;
	const struct dp_arch_fetch *fetch;   /* of a probe */
	const char *probe_field;	     /* holds the address of the probed instruction */
	const char *fields[DP_N_RAW_FIELDS]; /* of a tracepoint */
	const char *filter;
	uint32_t stack_bytes;
	bool in_kernel;
} trace_events[N_SORTS] = {
	[SORT_FREE] = {.name = "free",
		       .type = DP_EVENT_FREE,
		       .fetch = &dp_arch.free_entry,
		       .probe_field = "__probe_ip"},
	[SORT_RETURN] = {.name = "ret",
			 .type = DP_EVENT_ALLOC_RETURN,
			 .is_return = true,
			 .fetch = &dp_arch.alloc_return,
			 .probe_field = "__probe_func"},
	[SORT_ENTRY] = {.name = "entry",
			.type = DP_EVENT_ALLOC_ENTRY,
			.fetch = &dp_arch.alloc_entry,
			.probe_field = "__probe_ip"},
	[SORT_WAKING] = {.group = "sched",
			 .name = "sched_waking",
			 .type = DP_EVENT_WAKING,
			 .fields = {"pid"},
			 .stack_bytes = STACK_BYTES,
			 .in_kernel = true},
	[SORT_FUTEX_WOKE] = {.group = "syscalls",
			     .name = "sys_exit_futex",
			     .type = DP_EVENT_FUTEX_EXIT,
			     .fields = {"ret"},
			     .filter = "ret > 0 || ret == -11"},
	[SORT_FUTEX_EXIT] = {.group = "syscalls",
			     .name = "sys_exit_futex",
			     .type = DP_EVENT_FUTEX_EXIT,
			     .fields = {"ret"},
			     .filter = "ret <= 0 && ret != -11",
			     .stack_bytes = STACK_BYTES},
	[SORT_FUTEX_ENTER] = {.group = "syscalls",
			      .name = "sys_enter_futex",
			      .type = DP_EVENT_FUTEX_ENTER,
			      .fields = {"uaddr", "op", "val"}},
};

/* Puts the sort's probe on every site that is of its sort. */
static int define_probes(struct dp_sampler *sampler, const struct dp_sampler_options *options,
			 const struct trace_event *event, struct dp_error *err)
{
	bool frees = event->type == DP_EVENT_FREE;
	size_t n_defined = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
		if (options->sites[i].is_free != frees)
			continue;
		r = dp_tracefs_define(sampler->tracefs, event->name, event->is_return,
				      options->sites[i].fd, options->sites[i].file_off,
				      event->fetch->definition, err);
		n_defined++;
	}
	if (r == 0 && n_defined == 0)
		r = dp_error_set(err, -ENOENT, "no function to probe (%s)", event->name);
	return r;
}

/* Whether the parser knows the layout already: two sorts may be of one tracepoint. */
static bool has_layout(const struct dp_record_layout *layout, uint16_t id)
{
	for (size_t i = 0; i < layout->n_raw; i++) {
		if (layout->raw[i].id == id)
			return true;
	}
	return false;
}

static int add_sort(struct dp_sampler *sampler, const struct dp_sampler_options *options,
		    enum sort sort, struct dp_error *err)
{
	const struct trace_event *event = &trace_events[sort];
	struct dp_event_spec spec = {.sideband = sort == SORT_SIDEBAND,
				     .callchain = event->type == DP_EVENT_ALLOC_ENTRY,
				     .in_kernel = event->in_kernel,
				     .stack_bytes = event->stack_bytes,
				     .filter = event->filter};
	struct dp_raw_layout layout = {0};
	int r = 0;

	if (!spec.sideband) {
		if (event->fetch)
			r = define_probes(sampler, options, event, err);
		if (r == 0)
			r = dp_tracefs_layout(sampler->tracefs, event->group, event->name,
					      event->type, event->probe_field,
					      event->fetch ? event->fetch->fields : event->fields,
					      &layout, err);
		if (r < 0)
			return r;
		spec.tracepoint_id = layout.id;
		if (!has_layout(&sampler->layout, layout.id))
			sampler->layout.raw[sampler->layout.n_raw++] = layout;
	}
	sampler->i_spec[sort] = (int)sampler->n_specs;
	sampler->specs[sampler->n_specs++] = spec;
	return 0;
}

static bool is_wanted(const struct dp_sampler_options *options, enum sort sort)
{
	if (sort == SORT_SIDEBAND)
		return true;
	return trace_events[sort].fetch ? options->n_sites > 0 : options->contention;
}

static int open_events(struct dp_sampler *sampler, const struct dp_sampler_options *options,
		       struct dp_error *err)
{
	struct dp_attach_options attach = {.pid = options->pid,
					   .specs = sampler->specs,
					   .cpus = sampler->cpus,
					   .ring_fds = sampler->ring_fds,
					   .n_cpus = sampler->n_cpus,
					   .except_tid = options->except_tid};
	const pid_t *late;
	size_t n_late;
	int r = 0;

	for (enum sort sort = 0; r == 0 && sort < N_SORTS; sort++) {
		sampler->i_spec[sort] = -1;
		if (is_wanted(options, sort))
			r = add_sort(sampler, options, sort, err);
	}
	if (r < 0)
		return r;
	attach.n_specs = sampler->n_specs;
	r = dp_attach_open(&sampler->attach, &attach, err);
	if (r < 0)
		return r;
	sampler->attached_ns = dp_monotonic_ns();
	late = dp_attach_late_threads(sampler->attach, &n_late);
	for (size_t i = 0; i < n_late; i++) {
		if (dp_map_set(&sampler->owners, (uint64_t)late[i], (uint64_t)late[i]) < 0)
			return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	}
	return 0;
}

int dp_sampler_open(struct dp_sampler **ret, const struct dp_sampler_options *options,
		    struct dp_error *err)
{
	struct dp_sampler *sampler = calloc(1, sizeof(*sampler));
	int r;

	if (!sampler)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	sampler->pid = options->pid;
	r = dp_tracefs_open(&sampler->tracefs, err);
	if (r == 0)
		r = open_rings(sampler, options->ring_bytes, err);
	if (r == 0)
		r = open_events(sampler, options, err);
	if (r < 0) {
		dp_sampler_close(sampler);
		return r;
	}
	*ret = sampler;
	return 0;
}

static void enable_all(struct dp_sampler *sampler)
{
	for (size_t i = 0; i < sampler->n_specs; i++)
		dp_attach_enable(sampler->attach, i);
}

/*
 * A thread that is just being created while its creator's events are enabled may get them disabled
 * (the kernel's inherit_event() reads the state long before the new event can be found from its
 * parent), and so would all its descendants. Done again once such creations are over, enabling
 * finds them; it costs next to nothing then.
 */
void dp_sampler_enable(struct dp_sampler *sampler)
{
	for (int i = 0; i < 3; i++)
		enable_all(sampler);
	sampler->n_enable_again = 3;
}

void dp_sampler_disable(struct dp_sampler *sampler)
{
	sampler->n_enable_again = 0;
	/* The sideband, first of all, goes on. */
	for (size_t i = sampler->n_specs; i-- > 1;)
		dp_attach_disable(sampler->attach, i);
}

void dp_sampler_close(struct dp_sampler *sampler)
{
	if (!sampler)
		return;
	dp_attach_close(sampler->attach);
	dp_tracefs_close(sampler->tracefs);
	for (size_t i = 0; i < sampler->n_rings; i++) {
		dp_ring_unmap(&sampler->rings[i]);
		close(sampler->ring_fds[i]);
	}
	dp_merge_free(sampler->merge);
	dp_map_clear(&sampler->owners);
	free(sampler->cpus);
	free(sampler->rings);
	free(sampler->ring_fds);
	free(sampler->pollfds);
	free(sampler);
}

const struct pollfd *dp_sampler_pollfds(const struct dp_sampler *sampler, size_t *ret_n)
{
	*ret_n = sampler->n_rings;
	return sampler->pollfds;
}

static void read_ring(struct dp_sampler *sampler, size_t i)
{
	struct dp_ring *ring = &sampler->rings[i];
	const void *record;
	uint64_t time_ns;
	size_t n_bytes;
	int r;

	dp_ring_refresh(ring);
	while ((r = dp_ring_next(ring, &record, &n_bytes)) != 0) {
		if (r < 0 || dp_record_time(record, n_bytes, &time_ns) < 0)
			sampler->stats.n_malformed++;
		else if (dp_merge_push(sampler->merge, (unsigned)i, record, n_bytes, time_ns) < 0)
			sampler->stats.n_dropped++;
	}
	dp_ring_release(ring);
}

void dp_sampler_round(struct dp_sampler *sampler)
{
	uint64_t now_ns = dp_monotonic_ns();

	if (sampler->n_enable_again > 0) {
		sampler->n_enable_again--;
		enable_all(sampler);
	}
	for (size_t i = 0; i < sampler->n_rings; i++)
		read_ring(sampler, i);
	sampler->horizon_ns = sampler->round_ns;
	sampler->round_ns = now_ns;
}

uint64_t dp_sampler_horizon_ns(const struct dp_sampler *sampler)
{
	return sampler->horizon_ns;
}

/* Whether a sample is of an event set that does not count for its thread, see perf/attach.h. */
static bool is_duplicate(struct dp_sampler *sampler, const struct dp_event *event)
{
	uint64_t owner;

	if (!dp_map_get(&sampler->owners, event->tid, &owner))
		return false;
	return dp_attach_late_owner(sampler->attach, event->id) != (pid_t)owner;
}

/*
 * A thread whose creator has events of its own beside inherited ones inherits both; only the former
 * count. But a thread that was itself found late has its own, whoever created it: what is told of
 * its creation lies before the attaching was over.
 */
static void follow_owners(struct dp_sampler *sampler, const struct dp_event *event)
{
	uint64_t owner;

	if (event->type == DP_EVENT_EXIT) {
		dp_map_remove(&sampler->owners, event->tid);
		return;
	}
	if (event->type != DP_EVENT_FORK || event->pid != event->task.parent_pid)
		return;
	if (event->time_ns <= sampler->attached_ns &&
	    dp_map_get(&sampler->owners, event->tid, NULL))
		return;
	if (dp_map_get(&sampler->owners, event->task.parent_tid, &owner))
		dp_map_set(&sampler->owners, event->tid, owner);
	else
		dp_map_remove(&sampler->owners, event->tid);
}

/* Returns whether the event is for the caller. */
static bool account(struct dp_sampler *sampler, const struct dp_event *event)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
	case DP_EVENT_ALLOC_RETURN:
	case DP_EVENT_FREE:
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
		if (sampler->owners.n > 0 && is_duplicate(sampler, event)) {
			sampler->stats.n_duplicates++;
			return false;
		}
		sampler->stats.n_delivered++;
		return true;
	case DP_EVENT_LOST:
		sampler->stats.n_lost += event->lost.n_records;
		return true;
	default:
		if (sampler->owners.n > 0)
			follow_owners(sampler, event);
		return true;
	}
}

int dp_sampler_next(struct dp_sampler *sampler, uint64_t before_ns, struct dp_event *ret)
{
	uint64_t limit_ns = before_ns < sampler->horizon_ns ? before_ns : sampler->horizon_ns;
	const void *record;
	size_t n_bytes;

	while (dp_merge_pop(sampler->merge, limit_ns, &record, &n_bytes)) {
		int r = dp_record_parse(&sampler->layout, record, n_bytes, ret);

		if (r < 0)
			sampler->stats.n_malformed++;
		else if (r == 0 && account(sampler, ret))
			return 1;
	}
	return 0;
}

static void count(const struct dp_sampler *sampler, enum sort sort, uint64_t *ret_hits,
		  uint64_t *ret_lost)
{
	if (sampler->i_spec[sort] >= 0)
		dp_attach_counts(sampler->attach, (size_t)sampler->i_spec[sort], ret_hits,
				 ret_lost);
}

void dp_sampler_get_stats(struct dp_sampler *sampler, struct dp_sampler_stats *ret)
{
	struct dp_sampler_stats *stats = &sampler->stats;

	stats->n_hits = stats->n_hits_lost = 0;
	for (size_t i = 1; i < sampler->n_specs; i++) {
		uint64_t hits, lost;

		dp_attach_counts(sampler->attach, i, &hits, &lost);
		stats->n_hits += hits;
		stats->n_hits_lost += lost;
	}
	count(sampler, SORT_ENTRY, &stats->n_entry_hits, &stats->n_entry_lost);
	count(sampler, SORT_RETURN, &stats->n_return_hits, &stats->n_return_lost);
	count(sampler, SORT_FREE, &stats->n_free_hits, &stats->n_free_lost);
	stats->n_out_of_order = dp_merge_get_stats(sampler->merge)->n_released_late;
	*ret = *stats;
}

void dp_sampler_get_size(const struct dp_sampler *sampler, size_t *ret_threads, size_t *ret_fds)
{
	*ret_threads = dp_attach_n_threads(sampler->attach);
	*ret_fds = dp_attach_n_fds(sampler->attach) + sampler->n_rings;
}
