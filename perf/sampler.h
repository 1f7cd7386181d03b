/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_SAMPLER_H
#define DP_PERF_SAMPLER_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/kernel_abi.h"
#include "perf/record.h"
#include "src/base/error.h"

/*
 * The sampler: puts probes into one process and gives what they see as events in time order. There
 * are two behind one face. The direct one delivers every hit. The kernel one decides in the kernel:
 * of allocations it delivers those that are sampled, with their returns and frees (all, as they
 * are, at a rate of 1), and of waits those that are kept, with what ended them.
 */

struct dp_sampler;

enum dp_sampler_mode {
	DP_SAMPLER_AUTO, /* the kernel sampler where it can be had, else the direct one */
	DP_SAMPLER_KERNEL,
	DP_SAMPLER_DIRECT,
	DP_SAMPLER_KERNEL_EVENTS, /* as on kernels without sessions; for tests */
};

/*
 * Where one function is probed: @file_off is the chosen instruction (perf/arch.h). The positions of
 * its arguments, -1 for none, and the rest are what the kernel sampler decides by.
 */
struct dp_probe_site {
	int fd; /* the file that holds the code; needed until dp_sampler_close() */
	uint64_t file_off;
	enum dp_kernel_kind kind; /* DP_KERNEL_FREE: entry only, no callchain; DP_KERNEL_GO_*: entry
				   * only, with the callchain */
	int8_t i_size, i_count, i_pointer, i_align;
	bool aligned;		       /* as in src/allocator.h */
	uint64_t start_avma, end_avma; /* the function in the process; equal: not known */
};

struct dp_sampler_options {
	pid_t pid;
	enum dp_sampler_mode mode;
	uint64_t heap_rate_bytes; /* for the kernel sampler, and the next two; at least 1 */
	uint64_t block_rate_ns;	  /* at least 1 */
	uint64_t seed;		  /* of its generators */
	const struct dp_probe_site *sites; /* allocation functions and frees, at least one of each
					    * or none (no heap events); and a Go runtime's */
	size_t n_sites;
	struct dp_go_park_options {
		uint64_t reasons; /* bit: of a wait reason that counts, by the runtime's number */
		uint64_t semaphores;		   /* of these, semaphores' */
		uint32_t g_pc_offset, g_bp_offset; /* in a g: sched.pc and sched.bp */
	} go;					   /* with sites of DP_KERNEL_GO_* */
	bool without_returns; /* only entries of allocation functions: no returns, no frees */
	bool contention;  /* futex calls and wake-ups too, with registers and a copy of the stack */
	bool heap_stacks; /* allocations come with these too, instead of the callchain alone */
	uint32_t stack_bytes; /* of each copy; a multiple of 8 below 64 KiB; 0: 8 KiB */
	/*
	 * Asked of every allocation that brings a copy, as it is read and before it is put in
	 * order: whether the copy is wanted. Else it is left out (user.left_out), which saves most
	 * of the work. NULL: always. The kernel sampler does not ask.
	 */
	bool (*wants_stack)(void *context, const struct dp_event *entry);
	void *context;
	pid_t except_tid;  /* a thread of the process that is left out; 0: none */
	size_t ring_bytes; /* per CPU, a power of two; 0: chosen from the number of CPUs */
};

/*
 * Everything since dp_sampler_open(). hits = delivered + lost + dropped + duplicates + malformed,
 * once the rings are drained (dropped and malformed may be of the sideband too).
 */
struct dp_sampler_stats {
	uint64_t n_entry_hits, n_return_hits, n_free_hits; /* as the kernel counted them */
	uint64_t n_entry_lost, n_return_lost, n_free_lost; /* of these, no room in a ring */
	uint64_t n_hits, n_hits_lost; /* of every sort of event, the sideband left out */
	uint64_t n_delivered;	      /* samples given by dp_sampler_next() */
	uint64_t n_lost;	      /* records that LOST records spoke of, sideband included */
	uint64_t n_dropped;	      /* records that our own queues had no room or memory for */
	uint64_t n_duplicates;	      /* hits of a thread that two event sets cover */
	uint64_t n_entry_duplicates;  /* of these, entries */
	uint64_t n_malformed;
	uint64_t n_out_of_order; /* records that came after a younger one had been given */
	uint64_t n_gaps; /* times that no thread kept the probes in, so that hits may be missing */
	struct dp_kernel_counts
		kernel; /* what the kernel sampler decided; zeros for the direct one */
};

/*
 * Defines the probes and opens the events, disabled: nothing reaches the target's code path yet but
 * the breakpoints.
 *
 * Blocks for about 0.1 ms per thread and CPU. Returns 0 or a negative errno with a sentence in
 * @err.
 */
int dp_sampler_open(struct dp_sampler **ret, const struct dp_sampler_options *options,
		    struct dp_error *err);

/* Whether it is the kernel sampler. */
bool dp_sampler_is_kernel(const struct dp_sampler *sampler);

/*
 * Why it is the direct one though the kernel sampler was preferred: a sentence, borrowed; NULL if
 * it was not, or if it is the kernel's.
 */
const char *dp_sampler_why_direct(const struct dp_sampler *sampler);

/*
 * Lets events flow: frees first, then returns, then entries, so that no object is seen whose free
 * would be missed.
 */
void dp_sampler_enable(struct dp_sampler *sampler);

/*
 * Copies @stack_bytes (not what they are) of each stack from now on, with the callchain beside it
 * or not. Done beside the flow, over
 * some rounds; hits that the old and the new events both record are given once and counted as
 * duplicates.
 *
 * Blocks as dp_sampler_open() does. Returns 0; 1 if the last change is not over yet or there is
 * nothing to change; or a negative errno with a sentence in @err, and all is as before.
 */
int dp_sampler_resize(struct dp_sampler *sampler, uint32_t stack_bytes, bool callchain,
		      struct dp_error *err);

/* Whether rounds are wanted often: a change is under way, or threads that the probes hang on may
 * end. */
bool dp_sampler_is_changing(const struct dp_sampler *sampler);

/* How much is copied of each stack. */
uint32_t dp_sampler_stack_bytes(const struct dp_sampler *sampler);

/* Stops the flow, in the opposite order. What is in the rings can still be read. */
void dp_sampler_disable(struct dp_sampler *sampler);

/* Closes the events (that takes the breakpoints out), then removes the definitions. NULL is
 * allowed. */
void dp_sampler_close(struct dp_sampler *sampler);

/*
 * Descriptors that become readable when a ring is an eighth full; *@ret_n of them, borrowed. Poll
 * them with a time-out too: a ring that fills slowly does not wake anyone.
 */
const struct pollfd *dp_sampler_pollfds(const struct dp_sampler *sampler, size_t *ret_n);

/*
 * Reads every ring as far as the kernel has written. Afterwards events older than the *previous*
 * round's start can be taken with dp_sampler_next(): no older one can still appear.
 */
void dp_sampler_round(struct dp_sampler *sampler);

/* The time, in CLOCK_MONOTONIC nanoseconds, up to which dp_sampler_next() can give events now. */
uint64_t dp_sampler_horizon_ns(const struct dp_sampler *sampler);

/*
 * The oldest event, if it is older than both the horizon and @before_ns (UINT64_MAX: no limit).
 *
 * @ret: borrows from the sampler until its next call.
 * Returns 1 with an event, 0 if there is none.
 */
int dp_sampler_next(struct dp_sampler *sampler, uint64_t before_ns, struct dp_event *ret);

/* Fills @ret; reads the kernel's counters (a system call per event descriptor). */
void dp_sampler_get_stats(struct dp_sampler *sampler, struct dp_sampler_stats *ret);

/* Threads that events were opened on, and file descriptors held. */
void dp_sampler_get_size(const struct dp_sampler *sampler, size_t *ret_threads, size_t *ret_fds);

#endif
