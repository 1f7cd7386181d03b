// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The programs that run at every hit, in the kernel. They decide; what they keep they hand to perf,
 * which adds the registers and the copy of the stack.
 *
 * The hard idea: the return of an allocation is trapped only where something hangs on it. It is
 * needed for the object's address, of a sampled call, and to know when an outermost call is over,
 * so that calls inside it are not taken for calls of their own. Most functions call no other probed
 * function. One that has been seen to return alone LEARN times is taken for such a leaf; from then
 * on its unsampled returns are trapped once in AUDIT times only, to be found out if it is none.
 *
 * Counters are atomic: a program can be interrupted by another one's on the same CPU.
 */
#include "perf/kernel_abi.h"

#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "perf/entry_rules.h"
#include "perf/futex_rules.h"
#include "src/base/trampoline.h"

#define LEARN 256
#define AUDIT_MASK 1023
#define MAX_NESTED 1000

#define count(counts, name) __sync_fetch_and_add(&(counts)->name, 1)

/* log2(1 + i / DP_KERNEL_LOG_STEPS) in units of 2^-32. */
const volatile __u64 log_table[DP_KERNEL_LOG_STEPS + 1];
/* CPU numbers are below it. */
const volatile __u32 n_cpu_ids = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct dp_kernel_config);
} configs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct dp_kernel_cpu);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS *DP_KERNEL_MAX_SITES);
	__type(key, __u32);
	__type(value, struct dp_kernel_site);
} sites SEC(".maps");

/* Process → the slot that observes its waits. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

/* Live sampled objects by address, a map for each slot. */
struct live_objects {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DP_KERNEL_MAX_LIVE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} no_objects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__uint(key_size, sizeof(__u32));
	__array(values, struct live_objects);
} live SEC(".maps");

/* The outermost allocation call of a thread whose return is trapped. */
struct allocation {
	__u64 probe_avma;
	__u64 sp;
	__u64 stack0;
	__u64 old;	  /* of a resize: the live object that it takes; 0: none */
	__u64 out;	  /* where the object's address is stored, of DP_KERNEL_OUT */
	__u32 cookie_low; /* slot, site and kind */
	__u32 generation;
	__u16 n_nested;
	__u8 sampled;
	__u8 delivered;
	__u8 frees; /* a resize to nothing: if it gives nothing, the old object is gone */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DP_KERNEL_MAX_CALLS);
	__type(key, __u32);
	__type(value, struct allocation);
} allocations SEC(".maps");

/* The newest entry of a thread whose returns are not probed; what it has jumped into since counts
 * with it. */
struct newest_entry {
	__u32 tid;
	__u32 generation;
	__u64 sp;
	__u64 stack0;
	__u64 visited[2]; /* sites, a bit each */
	struct dp_entry_call asked;
};

/* By a hash of the thread's id. Of two threads that share a place the one forgets the other, and so
 * takes a jump that came in between for a call. Nothing worse comes of a place that both write at
 * once: they have different stacks. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DP_KERNEL_NEWEST_BITS);
	__type(key, __u32);
	__type(value, struct newest_entry);
} newest_entries SEC(".maps");

/* Where the allocation functions of each slot lie. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DP_KERNEL_MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct dp_kernel_code);
} codes SEC(".maps");

/* A futex call under way. */
struct futex_call {
	__u64 enter_ns;
	__u64 threshold_ns; /* a wait is kept if it is longer */
	__u64 release_delay_ns;
	__u32 generation;
	__u32 pad;
	__u64 ours_ns; /* what the record of a release has held the wait up for */
	__u32 slot;
	__u8 role;
	__u8 woken; /* by whomever */
	__u8 released;
	__u8 release_lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DP_KERNEL_MAX_CALLS);
	__type(key, __u32);
	__type(value, struct futex_call);
} futex_calls SEC(".maps");

/* Where records go: the event of each slot and CPU. Allocations with their stacks; waits with
 * theirs; and what needs none. */
#define OUTPUT(name)                                         \
	struct {                                             \
		__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); \
		__uint(key_size, sizeof(__u32));             \
		__uint(value_size, sizeof(__u32));           \
	} name SEC(".maps")
OUTPUT(heap_output);
OUTPUT(wait_output);
OUTPUT(plain_output);
OUTPUT(go_output);

extern bool bpf_session_is_return(void) __ksym __weak;
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/* What is read of the kernel's own. */
struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

static __always_inline __u32 output_index(__u32 slot)
{
	return slot * n_cpu_ids + bpf_get_smp_processor_id();
}

/* SplitMix64, as in src/base/random.c. */
static __always_inline __u64 next_random(struct dp_kernel_cpu *cpu)
{
	__u64 z = cpu->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* @x times @fraction / 2^32. */
static __always_inline __u64 times_fraction(__u64 x, __u32 fraction)
{
	return (x >> 32) * fraction + (((x & 0xffffffff) * fraction) >> 32);
}

/* The position of the highest bit of @x, which is not 0. */
static __always_inline __u32 highest_bit(__u64 x)
{
	__u32 n = 0;

#define STEP(bits)            \
	if (x >> (bits)) {    \
		x >>= (bits); \
		n += (bits);  \
	}
	STEP(32)
	STEP(16)
	STEP(8)
	STEP(4)
	STEP(2)
	STEP(1)
#undef STEP
	return n;
}

/*
 * The next distance between samples, at least 1: exponential with the mean of the heap rate,
 * rounded up, which leaves the probability of every whole size as it is.
 */
static __always_inline __s64 exponential(struct dp_kernel_cpu *cpu, __u64 rate_ln2_fixed)
{
	__u64 random = next_random(cpu) | 1;
	__u32 top = highest_bit(random);
	__u64 mantissa = random << (63 - top); /* in [2^63, 2^64) */
	__u32 step = (mantissa >> 53) & (DP_KERNEL_LOG_STEPS - 1);
	__u32 rest = (__u32)(mantissa >> 21);
	__u64 low = log_table[step];
	__u64 log2 = low + (((log_table[step + 1] - low) * rest) >> 32);
	/* -log2 of the random number as a fraction of 2^64: between 0 and 64. */
	__u64 minus_log2 = ((__u64)(64 - top) << 32) - log2;
	__u64 distance_fixed = (minus_log2 >> 32) * rate_ln2_fixed +
			       times_fraction(rate_ln2_fixed, (__u32)minus_log2);

	return (distance_fixed >> 16) + 1;
}

static __always_inline bool draw(struct dp_kernel_cpu *cpu, __u64 size, __u64 rate_ln2_fixed)
{
	__s64 left;

	/* A size beyond 2^62 fails anyway. */
	if (size >= 1ull << 62)
		return true;
	left = cpu->countdown_bytes - (__s64)(size ? size : 1);
	if (left > 0) {
		cpu->countdown_bytes = left;
		return false;
	}
	cpu->countdown_bytes = exponential(cpu, rate_ln2_fixed);
	return true;
}

/* What a probe's cookie says. */
struct probe {
	__u32 slot, site, kind;
	__u64 cookie;
	struct dp_kernel_config *config;
	struct dp_kernel_cpu *cpu;
};

static __always_inline bool open_probe(void *ctx, struct probe *ret)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);

	ret->cookie = cookie;
	ret->slot = (__u8)(cookie >> DP_KERNEL_COOKIE_SLOT);
	ret->site = (__u8)(cookie >> DP_KERNEL_COOKIE_SITE);
	ret->kind = (__u8)(cookie >> DP_KERNEL_COOKIE_KIND);
	ret->config = bpf_map_lookup_elem(&configs, &ret->slot);
	if (!ret->config || !ret->config->enabled)
		return false;
	ret->cpu = bpf_map_lookup_elem(&cpus, &ret->slot);
	return ret->cpu != NULL;
}

static __always_inline struct dp_kernel_site *find_site(__u32 slot, __u32 site)
{
	__u32 key = slot * DP_KERNEL_MAX_SITES + site;

	return bpf_map_lookup_elem(&sites, &key);
}

/* Argument @i; 0 if there is none. */
static __always_inline __u64 argument(struct pt_regs *ctx, __s8 i)
{
	__u64 first = PT_REGS_PARM1(ctx), second = PT_REGS_PARM2(ctx), third = PT_REGS_PARM3(ctx);

	/* All are read before one is chosen: the verifier refuses a chosen address. */
	asm volatile("" : "+r"(first), "+r"(second), "+r"(third));
	return i == 0 ? first : i == 1 ? second : i == 2 ? third : 0;
}

static __always_inline __u64 stack_word(struct pt_regs *ctx)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)PT_REGS_SP(ctx));
	return word;
}

static __always_inline void fill_entry(struct pt_regs *ctx, __u32 decided,
				       struct dp_kernel_entry *ret)
{
	ret->type = DP_KERNEL_RECORD_ENTRY;
	ret->pad = 0;
	ret->decided = decided;
	ret->probe_avma = PT_REGS_IP(ctx);
	ret->args[0] = PT_REGS_PARM1(ctx);
	ret->args[1] = PT_REGS_PARM2(ctx);
	ret->args[2] = PT_REGS_PARM3(ctx);
	ret->sp = PT_REGS_SP(ctx);
	ret->stack0 = stack_word(ctx);
}

/* Returns whether there was room. */
static __always_inline bool put_entry(struct pt_regs *ctx, const struct probe *probe,
				      struct dp_kernel_entry *entry, bool with_stack)
{
	long r;

	if (with_stack)
		r = bpf_perf_event_output(ctx, &heap_output, output_index(probe->slot), entry,
					  sizeof(*entry));
	else
		r = bpf_perf_event_output(ctx, &plain_output, output_index(probe->slot), entry,
					  sizeof(*entry));
	return r == 0;
}

static __always_inline __u32 site_of(const struct allocation *call)
{
	return (__u8)(call->cookie_low >> DP_KERNEL_COOKIE_SITE);
}

/* Whether the outermost call that is known of a thread can still be there as another one begins.
 * The rules are those of src/pairing.c. */
static __always_inline bool is_alive(const struct allocation *outer, struct pt_regs *ctx,
				     const struct probe *probe)
{
	__u64 sp = PT_REGS_SP(ctx);
	__u64 stack0;

	if (sp > outer->sp || outer->n_nested >= MAX_NESTED)
		return false;
	if (sp < outer->sp)
		return true;
	if (site_of(outer) == probe->site)
		return false;
	stack0 = stack_word(ctx);
	return stack0 == outer->stack0 || dp_is_return_trampoline(stack0);
}

/* The call is one inside another. Returns false if the other is over. */
static __always_inline bool is_nested(struct pt_regs *ctx, const struct probe *probe, __u32 tid)
{
	struct allocation *outer = bpf_map_lookup_elem(&allocations, &tid);
	struct dp_kernel_site *site;

	if (!outer)
		return false;
	if (outer->generation != probe->config->generation || !is_alive(outer, ctx, probe)) {
		bpf_map_delete_elem(&allocations, &tid);
		return false;
	}
	outer->n_nested++;
	site = find_site(probe->slot, site_of(outer));
	if (site)
		site->nests = 1;
	return true;
}

/* The live object that a resize takes away; 0: none. */
static __always_inline __u64 taken_object(struct pt_regs *ctx, const struct probe *probe,
					  void *objects)
{
	__u64 old = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_POINTER));

	if (probe->kind != DP_KERNEL_RESIZE || !old || !bpf_map_lookup_elem(objects, &old))
		return 0;
	return old;
}

/* Whether the return of a call that nothing else hangs on is to be trapped. */
static __always_inline bool wants_return(const struct probe *probe)
{
	const struct dp_kernel_site *site = find_site(probe->slot, probe->site);

	/* Of what is trapped anyway the return address must be known. */
	if (probe->config->traps_all)
		return true;
	return site && (site->nests || site->n_alone < LEARN ||
			(next_random(probe->cpu) & AUDIT_MASK) == 0);
}

/* -1 for a product that is beyond 64 bits. */
static __always_inline __u64 product(__u64 a, __u64 b)
{
	__u64 large = a > b ? a : b, small = a > b ? b : a;
	__u64 high = (large >> 32) * small, low = (large & 0xffffffff) * small;

	if (small >> 32 || high >> 32 || low + (high << 32) < low)
		return ~0ull;
	return low + (high << 32);
}

/* Returns the size that is asked for, or -1 if it is beyond 64 bits. */
static __always_inline __u64 asked_size(struct pt_regs *ctx, const struct probe *probe)
{
	__s8 i_count = (__s8)(probe->cookie >> DP_KERNEL_COOKIE_COUNT);
	__u64 size = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_SIZE));

	return i_count < 0 ? size : product(size, argument(ctx, i_count));
}

/*
 * An outermost call. Its place in the table comes first, so that a record that was delivered has
 * its return. Returns whether the return is to be trapped.
 */
static __always_inline bool begin_allocation(struct pt_regs *ctx, const struct probe *probe,
					     __u32 tid, __u64 size, void *objects)
{
	bool sampled = draw(probe->cpu, size, probe->config->rate_ln2_fixed);
	struct dp_kernel_counts *counts = &probe->cpu->counts;
	struct allocation call = {.cookie_low = (__u32)probe->cookie,
				  .generation = probe->config->generation,
				  .sampled = sampled,
				  .frees = size == 0};
	struct dp_kernel_entry entry;

	call.old = taken_object(ctx, probe, objects);
	call.delivered = sampled || call.old != 0;
	if (!call.delivered)
		count(counts, n_skipped);
	if (!call.delivered && !wants_return(probe)) {
		count(counts, n_drawn);
		return false;
	}
	fill_entry(ctx, DP_KERNEL_DECIDED | (sampled ? DP_KERNEL_SAMPLED : 0), &entry);
	call.probe_avma = entry.probe_avma;
	call.sp = entry.sp;
	call.stack0 = entry.stack0;
	if (probe->kind == DP_KERNEL_OUT)
		call.out = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_POINTER));
	if (bpf_map_update_elem(&allocations, &tid, &call, BPF_ANY) != 0) {
		if (call.delivered)
			count(counts, n_no_room);
		else
			count(counts, n_drawn);
		return false;
	}
	if (call.delivered && !put_entry(ctx, probe, &entry, sampled)) {
		count(counts, n_entry_lost);
		bpf_map_delete_elem(&allocations, &tid);
		return false;
	}
	if (call.old)
		bpf_map_delete_elem(objects, &call.old);
	count(counts, n_drawn);
	if (sampled)
		count(counts, n_sampled);
	return true;
}

/* What the return of a call that is delivered as it is cannot tell: where it was, on kernels before
 * 6.6, and where the object's address is stored. */
static __always_inline void remember_exact(struct pt_regs *ctx, const struct probe *probe,
					   __u32 tid)
{
	struct dp_kernel_site *site = find_site(probe->slot, probe->site);
	struct allocation call = {.cookie_low = (__u32)probe->cookie, .sp = PT_REGS_SP(ctx)};

	if (site && site->probe_avma != PT_REGS_IP(ctx))
		site->probe_avma = PT_REGS_IP(ctx);
	if (probe->kind != DP_KERNEL_OUT)
		return;
	call.out = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_POINTER));
	bpf_map_update_elem(&allocations, &tid, &call, BPF_ANY);
}

static __always_inline bool enter_exact(struct pt_regs *ctx, const struct probe *probe, __u32 tid)
{
	struct dp_kernel_entry entry;

	remember_exact(ctx, probe, tid);
	fill_entry(ctx, 0, &entry);
	if (!put_entry(ctx, probe, &entry, true))
		count(&probe->cpu->counts, n_entry_lost);
	return true;
}

/* An allocation function is entered. Returns whether its return is to be trapped. */
static __always_inline bool enter(struct pt_regs *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct probe probe;
	void *objects;
	__u64 size;

	if (!open_probe(ctx, &probe) || tid == probe.config->except_tid)
		return false;
	count(&probe.cpu->counts, n_entries);
	if (probe.config->exact)
		return enter_exact(ctx, &probe, tid);
	if (is_nested(ctx, &probe, tid)) {
		count(&probe.cpu->counts, n_nested);
		return false;
	}
	size = asked_size(ctx, &probe);
	if (size == ~0ull) {
		count(&probe.cpu->counts, n_failed);
		return false;
	}
	objects = bpf_map_lookup_elem(&live, &probe.slot);
	if (!objects)
		return false;
	return begin_allocation(ctx, &probe, tid, size, objects);
}

/* ---- entries alone: what is without returns ---- */

/* Whether the call that returns to @address is made from inside an allocation function. */
static __always_inline bool is_inside(__u32 slot, __u64 address)
{
	const struct dp_kernel_code *code = bpf_map_lookup_elem(&codes, &slot);
	__u32 i = 0; /* becomes that of the last range which begins before the call */

	if (!code)
		return false;
	address--;
#pragma unroll
	for (__u32 step = DP_KERNEL_MAX_SITES / 2; step > 0; step /= 2) {
		if (code->ranges[(i + step) & (DP_KERNEL_MAX_SITES - 1)].start <= address)
			i += step;
	}
	i &= DP_KERNEL_MAX_SITES - 1;
	return address >= code->ranges[i].start && address < code->ranges[i].end;
}

static __always_inline struct dp_entry_call asked_of(struct pt_regs *ctx, const struct probe *probe)
{
	__u64 pointer = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_POINTER));

	return (struct dp_entry_call){
		.function = probe->cookie >> DP_KERNEL_COOKIE_KIND,
		.size = asked_size(ctx, probe),
		.pointer = probe->kind == DP_KERNEL_RESIZE ? pointer : 0,
		.align = argument(ctx, (__s8)(probe->cookie >> DP_KERNEL_COOKIE_ALIGN)),
		.resizes = probe->kind == DP_KERNEL_RESIZE,
		.stores = probe->kind == DP_KERNEL_OUT,
		.aligned = probe->cookie >> DP_KERNEL_COOKIE_ALIGNED & 1,
		.counts = (__s8)(probe->cookie >> DP_KERNEL_COOKIE_COUNT) >= 0,
	};
}

static __always_inline struct newest_entry *newest_of(__u32 tid)
{
	__u32 key = tid * 0x9e3779b1u >> (32 - DP_KERNEL_NEWEST_BITS);

	return bpf_map_lookup_elem(&newest_entries, &key);
}

/* Remembers an entry as the newest of its thread; says whether it was jumped to. As in
 * src/pairing.c. */
static __always_inline bool follow(const struct probe *probe, const struct dp_kernel_entry *entry,
				   const struct dp_entry_call *asked, __u32 tid)
{
	struct newest_entry *newest = newest_of(tid);
	__u64 visited = 1ull << (probe->site % 64);
	__u32 word = probe->site / 64 & 1;
	bool jumped;

	if (!newest)
		return false;
	jumped = newest->tid == tid && newest->generation == probe->config->generation &&
		 newest->sp == entry->sp &&
		 (newest->stack0 == entry->stack0 || dp_is_return_trampoline(entry->stack0)) &&
		 !(newest->visited[word] & visited) && dp_entry_may_jump(&newest->asked, asked);
	if (!jumped) {
		newest->tid = tid;
		newest->generation = probe->config->generation;
		newest->sp = entry->sp;
		newest->stack0 = entry->stack0;
		newest->visited[0] = newest->visited[1] = 0;
	}
	newest->visited[word] |= visited;
	newest->asked = *asked;
	return jumped;
}

/* Whether an entry is to be delivered. What it is part of is decided first, so that every call is
 * drawn once. */
static __always_inline bool draw_alone(struct pt_regs *ctx, const struct probe *probe,
				       const struct dp_kernel_entry *entry, __u32 tid)
{
	struct dp_kernel_counts *counts = &probe->cpu->counts;
	struct dp_entry_call asked = asked_of(ctx, probe);

	if (is_inside(probe->slot, entry->stack0) || follow(probe, entry, &asked, tid)) {
		count(counts, n_nested);
		return false;
	}
	if (dp_entry_fails(&asked)) {
		count(counts, n_failed);
		return false;
	}
	if (draw(probe->cpu, asked.size, probe->config->rate_ln2_fixed))
		return true;
	count(counts, n_skipped);
	count(counts, n_drawn);
	return false;
}

/* An allocation function is entered whose return is not probed. */
static __always_inline void enter_alone(struct pt_regs *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct dp_kernel_counts *counts;
	struct dp_kernel_entry entry;
	struct probe probe;
	bool exact;

	if (!open_probe(ctx, &probe) || tid == probe.config->except_tid)
		return;
	counts = &probe.cpu->counts;
	exact = probe.config->exact;
	count(counts, n_entries);
	fill_entry(ctx, exact ? 0 : DP_KERNEL_DECIDED | DP_KERNEL_SAMPLED, &entry);
	if (!exact && !draw_alone(ctx, &probe, &entry, tid))
		return;
	if (!put_entry(ctx, &probe, &entry, true)) {
		count(counts, n_entry_lost);
	} else if (!exact) {
		count(counts, n_drawn);
		count(counts, n_sampled);
	}
}

/* ---- returns and frees ---- */

/* Returns whether there was room. */
static __always_inline bool put_return(struct pt_regs *ctx, const struct probe *probe,
				       struct dp_kernel_return *record)
{
	record->type = DP_KERNEL_RECORD_RETURN;
	record->pad = 0;
	record->sp = PT_REGS_SP(ctx);
	count(&probe->cpu->counts, n_returns_out);
	if (bpf_perf_event_output(ctx, &plain_output, output_index(probe->slot), record,
				  sizeof(*record)) == 0)
		return true;
	count(&probe->cpu->counts, n_return_lost);
	return false;
}

/* The object that a call which returned gave; 0: none. */
static __always_inline __u64 given_object(struct pt_regs *ctx, const struct allocation *call,
					  __u32 kind)
{
	__u64 object = PT_REGS_RC(ctx);

	if (kind != DP_KERNEL_OUT)
		return object;
	if ((__u32)object != 0)
		return 0;
	object = 0;
	bpf_probe_read_user(&object, sizeof(object), (void *)call->out);
	return object;
}

static __always_inline void end_allocation(struct pt_regs *ctx, const struct probe *probe,
					   const struct allocation *call, void *objects)
{
	struct dp_kernel_return record = {.decided = DP_KERNEL_DECIDED | DP_KERNEL_RESULT,
					  .probe_avma = call->probe_avma,
					  .retval = PT_REGS_RC(ctx)};
	__u64 object = given_object(ctx, call, probe->kind);
	__u64 one = 1;

	record.dx = object;
	if (!object && call->old && !call->frees) {
		/* The resize failed. */
		if (bpf_map_update_elem(objects, &call->old, &one, BPF_ANY) != 0)
			count(&probe->cpu->counts, n_live_overflow);
	} else if (object && call->sampled &&
		   bpf_map_update_elem(objects, &object, &one, BPF_ANY) != 0) {
		count(&probe->cpu->counts, n_live_overflow);
		record.decided |= DP_KERNEL_UNTRACKED;
	}
	if (!put_return(ctx, probe, &record) && object && call->sampled)
		bpf_map_delete_elem(objects, &object);
}

static __always_inline void leave_exact(struct pt_regs *ctx, const struct probe *probe, __u32 tid)
{
	struct dp_kernel_return record = {.probe_avma = bpf_get_func_ip(ctx),
					  .retval = PT_REGS_RC(ctx),
					  .dx = PT_REGS_PARM3(ctx)};
	const struct dp_kernel_site *site = find_site(probe->slot, probe->site);
	const struct allocation *call;

	if (!record.probe_avma && site)
		record.probe_avma = site->probe_avma;
	call = probe->kind == DP_KERNEL_OUT ? bpf_map_lookup_elem(&allocations, &tid) : NULL;
	if (call && call->sp + sizeof(__u64) == PT_REGS_SP(ctx)) {
		record.decided = DP_KERNEL_RESULT;
		record.dx = given_object(ctx, call, DP_KERNEL_OUT);
	}
	if (call)
		bpf_map_delete_elem(&allocations, &tid);
	put_return(ctx, probe, &record);
}

/* @decided: DP_KERNEL_DECIDED if nothing was called to free it. Returns whether there was room. */
static __always_inline bool put_free(struct pt_regs *ctx, const struct probe *probe, __u64 address,
				     __u32 decided)
{
	struct dp_kernel_free record = {.type = DP_KERNEL_RECORD_FREE,
					.decided = decided,
					.probe_avma = PT_REGS_IP(ctx),
					.args = {address, PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx)},
					.sp = PT_REGS_SP(ctx)};
	struct dp_kernel_counts *counts = &probe->cpu->counts;

	count(counts, n_frees_out);
	if (bpf_perf_event_output(ctx, &plain_output, output_index(probe->slot), &record,
				  sizeof(record)) == 0)
		return true;
	count(counts, n_free_lost);
	return false;
}

/* A call that was not sampled gave @object. If that is a live one, it was freed unseen. */
static __always_inline void replace(struct pt_regs *ctx, const struct probe *probe, __u64 object,
				    void *objects)
{
	if (!object || !bpf_map_lookup_elem(objects, &object))
		return;
	if (put_free(ctx, probe, object, DP_KERNEL_DECIDED))
		bpf_map_delete_elem(objects, &object);
}

/* An allocation function returns. */
static __always_inline void leave(struct pt_regs *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct dp_kernel_site *site;
	struct allocation *call;
	struct probe probe;
	void *objects;
	__u64 sp;

	if (!open_probe(ctx, &probe) || tid == probe.config->except_tid)
		return;
	count(&probe.cpu->counts, n_returns);
	if (probe.config->exact) {
		leave_exact(ctx, &probe, tid);
		return;
	}
	call = bpf_map_lookup_elem(&allocations, &tid);
	if (!call || call->generation != probe.config->generation)
		return;
	sp = PT_REGS_SP(ctx) - sizeof(__u64);
	/* Of a call inside it. */
	if (sp < call->sp || (sp == call->sp && site_of(call) != probe.site))
		return;
	objects = bpf_map_lookup_elem(&live, &probe.slot);
	if (sp == call->sp && objects) {
		site = find_site(probe.slot, probe.site);
		if (site && call->n_nested == 0 && site->n_alone < LEARN)
			__sync_fetch_and_add(&site->n_alone, 1);
		if (call->delivered)
			end_allocation(ctx, &probe, call, objects);
		else
			replace(ctx, &probe, given_object(ctx, call, probe.kind), objects);
	}
	bpf_map_delete_elem(&allocations, &tid);
}

/* Something is freed. */
static __always_inline void release(struct pt_regs *ctx)
{
	void *objects = NULL;
	struct probe probe;
	__u64 address;

	if (!open_probe(ctx, &probe) ||
	    (__u32)bpf_get_current_pid_tgid() == probe.config->except_tid)
		return;
	count(&probe.cpu->counts, n_frees);
	address = argument(ctx, (__s8)(probe.cookie >> DP_KERNEL_COOKIE_POINTER));
	if (!probe.config->exact) {
		objects = bpf_map_lookup_elem(&live, &probe.slot);
		if (!objects || !bpf_map_lookup_elem(objects, &address))
			return;
	}
	/* What was not delivered stays in the set: the next free of that address is. */
	if (put_free(ctx, &probe, address, 0) && objects)
		bpf_map_delete_elem(objects, &address);
}

/*
 * From Linux 6.13 on a program with a deep stack has it in one place for each CPU, and programs on
 * probes can be preempted by another run of themselves, which would use the same place. So the
 * outer function has hardly any stack, and runs the inner one without preemption. (Before there is
 * neither the danger nor, before 6.10, the call.) Source: commits a76ab5731e32 and fc7566ad0a82.
 */
#define WITHOUT_PREEMPTION(name)               \
	SEC("kprobe")                          \
	int name(struct pt_regs *ctx)          \
	{                                      \
		int r;                         \
                                               \
		if (bpf_preempt_disable)       \
			bpf_preempt_disable(); \
		r = name##_unpreempted(ctx);   \
		if (bpf_preempt_disable)       \
			bpf_preempt_enable();  \
		return r;                      \
	}

/* Entry and return in one; the entry's answer is whether the return is left alone. */
static __noinline int session_unpreempted(struct pt_regs *ctx)
{
	if (bpf_session_is_return()) {
		leave(ctx);
		return 0;
	}
	return !enter(ctx);
}

static __noinline int entered_unpreempted(struct pt_regs *ctx)
{
	enter(ctx);
	return 0;
}

static __noinline int returned_unpreempted(struct pt_regs *ctx)
{
	leave(ctx);
	return 0;
}

static __noinline int freed_unpreempted(struct pt_regs *ctx)
{
	release(ctx);
	return 0;
}

static __noinline int alone_unpreempted(struct pt_regs *ctx)
{
	enter_alone(ctx);
	return 0;
}

WITHOUT_PREEMPTION(session)
WITHOUT_PREEMPTION(entered)
WITHOUT_PREEMPTION(returned)
WITHOUT_PREEMPTION(freed)
WITHOUT_PREEMPTION(alone)

/* The same for another sort of link. */
static __noinline int freed_link_unpreempted(struct pt_regs *ctx)
{
	release(ctx);
	return 0;
}

static __noinline int alone_link_unpreempted(struct pt_regs *ctx)
{
	enter_alone(ctx);
	return 0;
}

WITHOUT_PREEMPTION(freed_link)
WITHOUT_PREEMPTION(alone_link)

#include "perf/kernel_go.bpf.h"

/* ---- contention ---- */

static __always_inline struct dp_kernel_cpu *cpu_of(__u32 slot)
{
	return bpf_map_lookup_elem(&cpus, &slot);
}

/* Where the call counts; NULL if its slot has stopped or is another process's by now. */
static __always_inline struct dp_kernel_cpu *cpu_of_call(const struct futex_call *call)
{
	__u32 slot = call->slot;
	const struct dp_kernel_config *config = bpf_map_lookup_elem(&configs, &slot);

	if (!config || !config->enabled || config->generation != call->generation)
		return NULL;
	return cpu_of(slot);
}

/* The slot of the running process, if its waits are observed. */
static __always_inline struct dp_kernel_config *observed(__u32 tgid, __u32 tid, __u32 *ret_slot)
{
	__u32 *slot = bpf_map_lookup_elem(&targets, &tgid);
	struct dp_kernel_config *config;

	if (!slot)
		return NULL;
	config = bpf_map_lookup_elem(&configs, slot);
	if (!config || !config->enabled || !config->contention || config->except_tid == tid)
		return NULL;
	*ret_slot = *slot;
	return config;
}

static __always_inline void enter_futex(__u8 role)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)id;
	struct futex_call call = {.role = role};
	struct dp_kernel_config *config;
	struct dp_kernel_cpu *cpu;

	config = observed(id >> 32, tid, &call.slot);
	if (!config)
		return;
	cpu = cpu_of(call.slot);
	if (!cpu)
		return;
	call.generation = config->generation;
	count(&cpu->counts, n_calls);
	if (bpf_map_lookup_elem(&futex_calls, &tid))
		count(&cpu->counts, n_forgotten);
	call.enter_ns = bpf_ktime_get_ns();
	if (dp_futex_is_wait(call.role))
		call.threshold_ns =
			times_fraction(config->block_rate_ns, (__u32)(next_random(cpu) >> 32));
	if (bpf_map_update_elem(&futex_calls, &tid, &call, BPF_ANY) != 0)
		count(&cpu->counts, n_calls_no_room);
}

static __always_inline void fill_pending(__u32 tid, struct dp_kernel_pending *ret)
{
	const struct allocation *call = bpf_map_lookup_elem(&allocations, &tid);

	ret->sp = call ? call->sp : 0;
	ret->stack0 = call ? call->stack0 : 0;
}

/* From the call's entry until now without what we took, at least 1. */
static __always_inline __u64 delay(const struct futex_call *call)
{
	__s64 delay_ns = bpf_ktime_get_ns() - call->enter_ns - call->ours_ns;

	return delay_ns > 0 ? delay_ns : 1;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(wakes, struct task_struct *woken)
{
	__u32 wakee = (__u32)woken->pid;
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct dp_kernel_release record = {.type = DP_KERNEL_RECORD_RELEASE, .wakee_tid = wakee};
	struct futex_call *wait = bpf_map_lookup_elem(&futex_calls, &wakee);
	struct futex_call *waker;
	struct dp_kernel_cpu *cpu;

	if (!wait || !dp_futex_is_wait(wait->role))
		return 0;
	wait->woken = 1;
	waker = bpf_map_lookup_elem(&futex_calls, &tid);
	if (!waker || waker->role != DP_FUTEX_WAKES || waker->slot != wait->slot)
		return 0;
	cpu = cpu_of_call(wait);
	if (!cpu)
		return 0;
	wait->released = 1;
	wait->release_delay_ns = delay(wait);
	wait->release_lost = 0;
	if (wait->release_delay_ns <= wait->threshold_ns)
		return 0;
	fill_pending(tid, &record.pending);
	count(&cpu->counts, n_waits_out);
	if (bpf_perf_event_output(ctx, &wait_output, output_index(wait->slot), &record,
				  sizeof(record)) != 0) {
		count(&cpu->counts, n_waits_lost);
		wait->release_lost = 1;
	}
	/* The thread is woken after us. Only waits that are kept pay for that, so it would not even
	 * out. */
	wait->ours_ns +=
		bpf_ktime_get_ns() - wait->enter_ns - wait->ours_ns - wait->release_delay_ns;
	return 0;
}

/* A wait that is kept: on both sides or on none. */
static __always_inline void put_wait(void *ctx, const struct futex_call *call,
				     struct dp_kernel_wait *record, struct dp_kernel_counts *counts)
{
	long r = -ENOSPC;

	if (!record->released || !call->release_lost) {
		fill_pending((__u32)bpf_get_current_pid_tgid(), &record->pending);
		count(counts, n_waits_out);
		r = bpf_perf_event_output(ctx, &wait_output, output_index(call->slot), record,
					  sizeof(*record));
		if (r != 0)
			count(counts, n_waits_lost);
	}
	if (r == 0)
		count(counts, n_kept);
	else
		count(counts, n_kept_lost);
}

static __always_inline void end_wait(void *ctx, const struct futex_call *call, __s64 result,
				     struct dp_kernel_counts *counts)
{
	struct dp_kernel_wait record = {.type = DP_KERNEL_RECORD_WAIT};

	record.released = call->released && result >= 0;
	record.delay_ns = delay(call);
	record.drawn_ns = record.released ? call->release_delay_ns : record.delay_ns;
	if (record.drawn_ns > call->threshold_ns)
		put_wait(ctx, call, &record, counts);
	count(counts, n_waits);
	if (record.released)
		count(counts, n_released);
	else
		count(counts, n_ended_otherwise);
}

static __always_inline void leave_futex(void *ctx, __s64 result)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)id, slot;
	struct futex_call *call = bpf_map_lookup_elem(&futex_calls, &tid);
	struct dp_kernel_cpu *cpu;

	if (!call) {
		if (observed(id >> 32, tid, &slot) && (cpu = cpu_of(slot)))
			count(&cpu->counts, n_unpaired_exits);
		return;
	}
	cpu = cpu_of_call(call);
	if (cpu) {
		if (!dp_futex_is_wait(call->role))
			count(&cpu->counts, n_other_calls);
		/* futex_waitv(2) says which of its words it was woken for. */
		else if (!dp_futex_has_slept(call->role, call->woken, result > 0 ? 0 : result))
			count(&cpu->counts, n_not_slept);
		else
			end_wait(ctx, call, result, &cpu->counts);
	}
	bpf_map_delete_elem(&futex_calls, &tid);
}

/*
 * These answer 1: perf events of others on the same tracepoint are to get the call too.
 */
struct syscall_enter {
	__u64 common;
	__s64 number;
	__u64 args[6];
};

struct syscall_exit {
	__u64 common;
	__s64 number;
	__s64 result;
};

SEC("tracepoint/syscalls/sys_enter_futex")
int futex_enter(struct syscall_enter *ctx)
{
	enter_futex(dp_futex_role((__u32)ctx->args[1]));
	return 1;
}

SEC("tracepoint/syscalls/sys_enter_futex_wait")
int futex_wait_enter(struct syscall_enter *ctx)
{
	enter_futex(DP_FUTEX_WAITS);
	return 1;
}

SEC("tracepoint/syscalls/sys_enter_futex_wake")
int futex_wake_enter(struct syscall_enter *ctx)
{
	enter_futex(DP_FUTEX_WAKES);
	return 1;
}

SEC("tracepoint/syscalls/sys_exit_futex")
int futex_exit(struct syscall_exit *ctx)
{
	leave_futex(ctx, ctx->result);
	return 1;
}

/* A thread ends: what it was in the midst of does not return. */
SEC("tp_btf/sched_process_exit")
int thread_exit(void *ctx)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct futex_call *call = bpf_map_lookup_elem(&futex_calls, &tid);
	struct newest_entry *newest = newest_of(tid);
	struct dp_kernel_cpu *cpu;

	if (newest && newest->tid == tid)
		newest->tid = 0;
	bpf_map_delete_elem(&allocations, &tid);
	if (!call)
		return 0;
	cpu = cpu_of_call(call);
	if (cpu)
		count(&cpu->counts, n_abandoned);
	bpf_map_delete_elem(&futex_calls, &tid);
	return 0;
}

/* The process becomes another program, which nobody asked to profile. */
SEC("tp_btf/sched_process_exec")
int process_exec(void *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	for (__u32 slot = 0; slot < DP_KERNEL_MAX_SLOTS; slot++) {
		__u32 key = slot;
		struct dp_kernel_config *config = bpf_map_lookup_elem(&configs, &key);

		if (config && config->tgid == tgid)
			config->enabled = 0;
	}
	return 0;
}

char license_text[] SEC("license") = "Dual MIT/GPL";
