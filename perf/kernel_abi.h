/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DP_PERF_KERNEL_ABI_H
#define DP_PERF_KERNEL_ABI_H

#include <linux/types.h>

/*
 * What the BPF programs (perf/kernel.bpf.c) and perf/kernel share: every map's contents and every
 * record. No pointers, no implicit padding.
 */

/* Processes that the programs serve at once, and functions probed in each. */
#define DP_KERNEL_MAX_SLOTS 64
#define DP_KERNEL_MAX_SITES 128

/* Threads with an allocation or a futex call under way, of all processes. */
#define DP_KERNEL_MAX_CALLS 65536

/* Goroutines of one process that wait, and addresses of one's stack. */
#define DP_KERNEL_MAX_PARKED (1u << 20)
#define DP_KERNEL_GO_FRAMES 128

/* Live sampled objects of one process. */
#define DP_KERNEL_MAX_LIVE (1u << 20)

/* Threads whose newest entry is known, of all processes, where returns are not probed. */
#define DP_KERNEL_NEWEST_BITS 13

/* Steps of the table of logarithms, see exponential(). */
#define DP_KERNEL_LOG_STEPS 1024

/* What a probed function does, as src/allocator.h has it. */
enum dp_kernel_kind {
	DP_KERNEL_NEW,
	DP_KERNEL_RESIZE,
	DP_KERNEL_OUT,
	DP_KERNEL_FREE,
	DP_KERNEL_GO_PARK,    /* a goroutine begins to wait: runtime.gopark */
	DP_KERNEL_GO_READY,   /* ... may go on: runtime.ready */
	DP_KERNEL_GO_ACQUIRE, /* it asks for a semaphore: runtime.semacquire1 */
};

/* Of a Go runtime's function, which only its entry is probed of. */
static inline int dp_kernel_kind_is_go(enum dp_kernel_kind kind)
{
	return kind >= DP_KERNEL_GO_PARK;
}

/* A probe's cookie: 8 bits of each, from the lowest. An argument's position is -1 for none. */
#define DP_KERNEL_COOKIE_SLOT 0
#define DP_KERNEL_COOKIE_SITE 8
#define DP_KERNEL_COOKIE_KIND 16
#define DP_KERNEL_COOKIE_SIZE 24
#define DP_KERNEL_COOKIE_COUNT 32
#define DP_KERNEL_COOKIE_POINTER 40
#define DP_KERNEL_COOKIE_ALIGN 48
#define DP_KERNEL_COOKIE_ALIGNED 56 /* dp_probe_site.aligned */

/* How one process is observed. */
struct dp_kernel_config {
	__u32 tgid;	      /* 0: no process */
	__u32 except_tid;     /* of a thread that is left out; 0: none */
	__u32 enabled;	      /* events flow */
	__u32 exact;	      /* every hit is delivered as it is */
	__u64 rate_ln2_fixed; /* heap rate in bytes times ln 2, in units of 2^-16 */
	__u64 block_rate_ns;
	__u32 contention;
	__u32 generation;    /* of the slot: what it remembers of an earlier process is void */
	__u32 traps_all;     /* returns are trapped whatever the programs answer */
	__u32 go_pc_offset;  /* in a goroutine: where it goes on, and its frame pointer then */
	__u64 go_reasons;    /* bit: of a wait reason that counts */
	__u64 go_semaphores; /* ... and is a semaphore's */
	__u32 go_bp_offset;
	__u32 pad;
};

/* Counters, of one process and one CPU. */
struct dp_kernel_counts {
	/* Entries: n_entries = n_nested + n_failed + n_skipped + n_entry_lost + n_no_room +
	 * those delivered. */
	__u64 n_entries;
	__u64 n_nested;
	__u64 n_failed;	       /* for certain: size times count is beyond 64 bits; without returns
				  also a resize to nothing */
	__u64 n_skipped;       /* drawn, and neither sampled nor of interest */
	__u64 n_entry_lost;    /* to be delivered, no room in the ring */
	__u64 n_no_room;       /* to be delivered, no room in the table of calls */
	__u64 n_drawn;	       /* outermost calls delivered or skipped */
	__u64 n_sampled;       /* of these, sampled */
	__u64 n_returns;       /* returns that were trapped */
	__u64 n_returns_out;   /* of these, to be delivered */
	__u64 n_return_lost;   /* of these, no room in the ring */
	__u64 n_live_overflow; /* sampled, no room in the set of live objects */
	__u64 n_frees;
	__u64 n_frees_out; /* of these, to be delivered */
	__u64 n_free_lost; /* of these, no room in the ring */
	/* Futex calls: as in src/contention.h. */
	__u64 n_calls;
	__u64 n_waits; /* of these n_kept and n_kept_lost, the others are skipped */
	__u64 n_kept;
	__u64 n_not_slept;
	__u64 n_other_calls;
	__u64 n_released;
	__u64 n_ended_otherwise;
	__u64 n_unpaired_exits;
	__u64 n_forgotten;
	__u64 n_abandoned;
	__u64 n_calls_no_room;
	__u64 n_waits_out;  /* records of waits and releases to be delivered */
	__u64 n_waits_lost; /* of these, no room in the ring */
	__u64 n_kept_lost;  /* kept waits that are in no profile, as one of their records is lost */
	/* Goroutines: n_go_parks = n_go_other + n_go_waits + n_go_forgotten + n_go_no_room + those
	 * that wait now. */
	__u64 n_go_parks;
	__u64 n_go_other;     /* for a reason that does not count */
	__u64 n_go_forgotten; /* parked again, the end of the wait before not seen */
	__u64 n_go_no_room;   /* no room in the table of those that wait, or had to go on waiting */
	__u64 n_go_readies;
	__u64 n_go_waits;     /* of these the ends of waits that count; drawn */
	__u64 n_go_going_on;  /* of these, parts of a longer one */
	__u64 n_go_kept;      /* of these, delivered */
	__u64 n_go_kept_lost; /* of these, to be delivered, no room in the ring */
};

struct dp_kernel_cpu {
	__u64 random;
	__s64 countdown_bytes; /* to the next sample */
	struct dp_kernel_counts counts;
};

/* What is known of one probed function. */
struct dp_kernel_site {
	__u32 n_alone; /* calls seen to return without a probed call inside */
	__u32 nests;   /* one was seen to call another probed function */
	__u64 probe_avma;
};

/* The code of a process's allocation functions, ascending; what is left is empty, at the end. */
struct dp_kernel_code {
	struct {
		__u64 start, end; /* avma */
	} ranges[DP_KERNEL_MAX_SITES];
};

/* Records, as they are in a sample's raw part. Their types are beyond those of tracepoints, which
 * count from 1; a raw part begins 4 bytes off an 8-byte boundary. */
enum dp_kernel_record_type {
	DP_KERNEL_RECORD_ENTRY = 0xff00,
	DP_KERNEL_RECORD_RETURN,
	DP_KERNEL_RECORD_FREE,
	DP_KERNEL_RECORD_RELEASE,
	DP_KERNEL_RECORD_WAIT,
	DP_KERNEL_RECORD_GO_WAIT,
};

/* What the kernel has decided about an entry or a return. */
#define DP_KERNEL_DECIDED 1u   /* the following hold: an outermost call */
#define DP_KERNEL_SAMPLED 2u   /* drawn, and hit */
#define DP_KERNEL_UNTRACKED 4u /* the object's free will not be seen */
#define DP_KERNEL_RESULT 8u    /* holds, decided or not: dx of a return is the object's address */

struct dp_kernel_entry {
	__u16 type;
	__u16 pad;
	__u32 decided;
	__u64 probe_avma;
	__u64 args[3];
	__u64 sp;
	__u64 stack0;
};

struct dp_kernel_return {
	__u16 type;
	__u16 pad;
	__u32 decided;
	__u64 probe_avma;
	__u64 retval;
	__u64 dx; /* with DP_KERNEL_RESULT the object's address, 0 for none */
	__u64 sp;
};

struct dp_kernel_free {
	__u16 type;
	__u16 pad;
	__u32 decided; /* args[0] was a live object and has been given again: its free was missed */
	__u64 probe_avma;
	__u64 args[3];
	__u64 sp;
};

/* The allocation call that the thread is inside of, if its return is trapped: the word at @sp, a
 * return address, is replaced by a trampoline until then. 0, 0: none is known. */
struct dp_kernel_pending {
	__u64 sp;
	__u64 stack0;
};

/* A thread releases another one whose wait would be kept. */
struct dp_kernel_release {
	__u16 type;
	__u16 pad;
	__u32 wakee_tid;
	struct dp_kernel_pending pending;
};

/* A wait that is kept, at its end. */
struct dp_kernel_wait {
	__u16 type;
	__u16 pad;
	__u32 released; /* by a thread of the process, whose record came before */
	__u64 delay_ns;
	__u64 drawn_ns; /* what decided: to the release, else to the end */
	struct dp_kernel_pending pending;
};

/* A goroutine's wait that is kept, at its end. The first @n_frames of @frames are delivered: the
 * addresses that it returns to, leaf first. */
struct dp_kernel_go_wait {
	__u16 type;
	__u16 pad;
	__u32 reason; /* the runtime's number */
	__u64 g;
	__u64 delay_ns;
	__u32 n_frames;
	__u32 goes_on; /* with the wait before, which its semaphore was not got by */
	__u64 frames[DP_KERNEL_GO_FRAMES];
};

#endif
