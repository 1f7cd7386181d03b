/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DP_PERF_KERNEL_GO_BPF_H
#define DP_PERF_KERNEL_GO_BPF_H

/*
 * The part of perf/kernel.bpf.c for Go's goroutines.
 *
 * The hard idea: the stack of a goroutine that waits is read when its wait ends, and only if that
 * is kept. It does not run, and its frame pointers lead through memory of the very process that
 * ends the wait, from what the runtime has saved of it in its g.
 */

/* A goroutine that waits. */
struct parked {
	__u64 time_ns;
	__u32 reason;
	__u8 goes_on; /* with the wait before */
	__u8 ended;   /* it was readied; if it parks again before it asks for another semaphore, it
		       * has not got this one */
	__u8 pad[2];
};

/* By address, a map for each slot that has any. */
struct parked_goroutines {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DP_KERNEL_MAX_PARKED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct parked);
} no_goroutines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__uint(key_size, sizeof(__u32));
	__array(values, struct parked_goroutines);
} parked SEC(".maps");

/* A record is too large for a program's stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dp_kernel_go_wait);
} go_records SEC(".maps");

/* runtime.gopark, behind its stack check: the g is in r14, the reason in cl. Whatever the goroutine
 * waits for, the end of an earlier wait can no longer come. */
static __always_inline void park(struct pt_regs *ctx, const struct probe *probe, void *goroutines)
{
	struct parked parked = {.time_ns = bpf_ktime_get_ns(), .reason = (__u8)ctx->rcx};
	const struct parked *before;
	struct dp_kernel_counts *counts = &probe->cpu->counts;
	__u64 g = ctx->r14;

	count(counts, n_go_parks);
	if (parked.reason >= 64 || !(probe->config->go_reasons >> parked.reason & 1)) {
		count(counts, n_go_other);
		before = bpf_map_lookup_elem(goroutines, &g);
		if (before && !before->ended)
			count(counts, n_go_forgotten);
		if (before)
			bpf_map_delete_elem(goroutines, &g);
		return;
	}
	before = bpf_map_lookup_elem(goroutines, &g);
	if (before && !before->ended) {
		count(counts, n_go_forgotten);
	} else if (before && probe->config->go_semaphores >> parked.reason & 1) {
		parked.time_ns = before->time_ns;
		parked.goes_on = 1;
	}
	if (bpf_map_update_elem(goroutines, &g, &parked, BPF_ANY) != 0)
		count(counts, n_go_no_room);
}

/* Where the goroutine at @g, which does not run, goes on, and who called that. */
static __always_inline void fill_go_frames(const struct dp_kernel_config *config, __u64 g,
					   struct dp_kernel_go_wait *record)
{
	struct {
		__u64 bp, pc;
	} frame = {0, 0};
	__u32 n = 0;

	bpf_probe_read_user(&frame.pc, sizeof(frame.pc), (void *)(g + config->go_pc_offset));
	bpf_probe_read_user(&frame.bp, sizeof(frame.bp), (void *)(g + config->go_bp_offset));
	for (__u32 i = 0; i < DP_KERNEL_GO_FRAMES; i++) {
		if (!frame.pc)
			break;
		record->frames[i] = frame.pc;
		n = i + 1;
		if (!frame.bp || bpf_probe_read_user(&frame, sizeof(frame), (void *)frame.bp) != 0)
			break;
	}
	record->n_frames = n;
}

static __always_inline void put_go_wait(struct pt_regs *ctx, const struct probe *probe, __u64 g,
					const struct parked *parked, __u64 delay_ns)
{
	struct dp_kernel_counts *counts = &probe->cpu->counts;
	__u32 key = 0, n;
	struct dp_kernel_go_wait *record = bpf_map_lookup_elem(&go_records, &key);

	if (!record)
		return;
	record->type = DP_KERNEL_RECORD_GO_WAIT;
	record->pad = 0;
	record->reason = parked->reason;
	record->g = g;
	record->delay_ns = delay_ns;
	record->goes_on = parked->goes_on;
	fill_go_frames(probe->config, g, record);
	n = record->n_frames;
	if (n > DP_KERNEL_GO_FRAMES)
		n = DP_KERNEL_GO_FRAMES;
	if (bpf_perf_event_output(ctx, &go_output, output_index(probe->slot), record,
				  offsetof(struct dp_kernel_go_wait, frames) + n * sizeof(__u64)) ==
	    0)
		count(counts, n_go_kept);
	else
		count(counts, n_go_kept_lost);
}

/* runtime.ready, behind its stack check: the g is in ax. */
static __always_inline void ready(struct pt_regs *ctx, const struct probe *probe, void *goroutines)
{
	__u64 now_ns = bpf_ktime_get_ns();
	__u64 g = ctx->rax;
	struct dp_kernel_counts *counts = &probe->cpu->counts;
	struct parked *found = bpf_map_lookup_elem(goroutines, &g), parked;
	__s64 delay_ns;

	count(counts, n_go_readies);
	if (!found || found->ended)
		return;
	parked = *found;
	delay_ns = now_ns - parked.time_ns;
	if (delay_ns <= 0)
		delay_ns = 1;
	if (probe->config->go_semaphores >> (parked.reason & 63) & 1) {
		found->ended = 1;
		found->time_ns = now_ns;
	} else {
		bpf_map_delete_elem(goroutines, &g);
	}
	count(counts, n_go_waits);
	if (parked.goes_on)
		count(counts, n_go_going_on);
	if (delay_ns >
	    times_fraction(probe->config->block_rate_ns, (__u32)(next_random(probe->cpu) >> 32)))
		put_go_wait(ctx, probe, g, &parked, delay_ns);
}

/* runtime.semacquire1, behind its stack check: the semaphore before has been got. */
static __always_inline void acquire(struct pt_regs *ctx, void *goroutines)
{
	__u64 g = ctx->r14;

	bpf_map_delete_elem(goroutines, &g);
}

static __always_inline void hit_go(struct pt_regs *ctx)
{
	struct probe probe;
	void *goroutines;

	if (!open_probe(ctx, &probe))
		return;
	goroutines = bpf_map_lookup_elem(&parked, &probe.slot);
	if (!goroutines)
		return;
	if (probe.kind == DP_KERNEL_GO_PARK)
		park(ctx, &probe, goroutines);
	else if (probe.kind == DP_KERNEL_GO_ACQUIRE)
		acquire(ctx, goroutines);
	else
		ready(ctx, &probe, goroutines);
}

static __noinline int go_hit_unpreempted(struct pt_regs *ctx)
{
	hit_go(ctx);
	return 0;
}

static __noinline int go_link_unpreempted(struct pt_regs *ctx)
{
	hit_go(ctx);
	return 0;
}

WITHOUT_PREEMPTION(go_hit)
WITHOUT_PREEMPTION(go_link)

#endif
