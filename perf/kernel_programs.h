/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_KERNEL_PROGRAMS_H
#define DP_PERF_KERNEL_PROGRAMS_H

#include <stddef.h>
#include <stdint.h>

#include "perf/kernel_abi.h"
#include "src/base/error.h"

/*
 * The BPF programs and their maps, loaded once for all processes that are profiled at a time, each
 * of which has a slot. A part of perf/kernel.
 */

struct dp_kernel_programs;

/* Source: the kernel's include/uapi/linux/bpf.h, enum bpf_attach_type; newer than libbpf 1.1. */
#define DP_ATTACH_UPROBE_MULTI 48
#define DP_ATTACH_UPROBE_SESSION 57

enum dp_kernel_program {
	DP_KERNEL_PROGRAM_SESSION,    /* entry and return of an allocation function, by one link */
	DP_KERNEL_PROGRAM_FREED_LINK, /* a free, by such a link */
	DP_KERNEL_PROGRAM_ENTERED,    /* entry, return and free by perf events */
	DP_KERNEL_PROGRAM_RETURNED,
	DP_KERNEL_PROGRAM_FREED,
	DP_KERNEL_PROGRAM_GO_LINK, /* gopark and ready, by a link and by perf events */
	DP_KERNEL_PROGRAM_GO,
	DP_KERNEL_PROGRAM_ALONE, /* an entry whose return is not probed, by a perf event and a link
				  */
	DP_KERNEL_PROGRAM_ALONE_LINK,
};

enum dp_kernel_output {
	DP_KERNEL_OUTPUT_HEAP,
	DP_KERNEL_OUTPUT_WAIT,
	DP_KERNEL_OUTPUT_PLAIN,
	DP_KERNEL_OUTPUT_GO,
	DP_KERNEL_N_OUTPUTS,
};

/*
 * Loads the programs, or takes part in those that are loaded, and takes a slot.
 *
 * Any thread. Blocks for some 100 ms if they are to be loaded. Returns 0 or a negative errno with a
 * sentence in @err.
 */
int dp_kernel_programs_get(struct dp_kernel_programs **ret, uint32_t *ret_slot,
			   struct dp_error *err);

/* File descriptors that the programs hold, all processes together. */
size_t dp_kernel_programs_n_fds(const struct dp_kernel_programs *programs);

/* Gives the slot back, which nothing may be attached with any more; the last one unloads them. */
void dp_kernel_programs_put(struct dp_kernel_programs *programs, uint32_t slot);

/* A number that no slot's configuration has had before. */
uint32_t dp_kernel_programs_next_generation(struct dp_kernel_programs *programs);

/* The program's descriptor, -1 if the kernel does not have its sort. */
int dp_kernel_programs_fd(const struct dp_kernel_programs *programs,
			  enum dp_kernel_program program);

/*
 * Lets futex calls and wake-ups of the whole machine run the programs, until @slot is given back;
 * those of process @tgid are the slot's. Returns 0 or a negative errno with a sentence in @err;
 * -EEXIST if they are another slot's.
 */
int dp_kernel_programs_watch_waits(struct dp_kernel_programs *programs, uint32_t slot,
				   uint32_t tgid, struct dp_error *err);

/*
 * Readies the slot: no counts, nothing known of functions, generators that begin with @seed, a set
 * of at most @max_live live objects.
 *
 * @rate_bytes: of the heap. Returns 0 or a negative errno with a sentence in @err.
 */
int dp_kernel_programs_reset(struct dp_kernel_programs *programs, uint32_t slot, uint64_t seed,
			     uint64_t rate_bytes, uint32_t max_live, struct dp_error *err);

/* Makes room for the goroutines that wait. Returns 0 or a negative errno with a sentence in @err.
 */
int dp_kernel_programs_watch_go(struct dp_kernel_programs *programs, uint32_t slot,
				struct dp_error *err);

/* Says where the allocation functions of the slot's process lie. Returns 0 or a negative errno. */
int dp_kernel_programs_set_code(struct dp_kernel_programs *programs, uint32_t slot,
				const struct dp_kernel_code *code);

/* Returns 0 or a negative errno. */
int dp_kernel_programs_configure(struct dp_kernel_programs *programs, uint32_t slot,
				 const struct dp_kernel_config *config);

/* Lets the slot's records of @cpu go to the event @fd. Returns 0 or a negative errno. */
int dp_kernel_programs_set_output(struct dp_kernel_programs *programs, uint32_t slot,
				  enum dp_kernel_output output, int cpu, int fd);

/* The sum over CPUs. */
void dp_kernel_programs_count(const struct dp_kernel_programs *programs, uint32_t slot,
			      struct dp_kernel_counts *ret);

#endif
