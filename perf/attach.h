/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_ATTACH_H
#define DP_PERF_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * Perf events on every thread of a process, one per thread, CPU and sort of event, inherited by
 * threads that are created later, all events of a CPU written into that CPU's ring.
 */

struct dp_attach;

/* One sort of event. */
struct dp_event_spec {
	bool sideband; /* a dummy that brings MMAP2, COMM, FORK and EXIT; else a tracepoint */
	uint64_t tracepoint_id;
	bool in_kernel; /* it fires in the midst of the kernel, not at a system call or a probe */
	bool callchain; /* the user's callchain is wanted in its samples */
	uint32_t stack_bytes; /* how much of the user's stack, with the registers; 0: neither */
	const char *filter;   /* on the tracepoint's fields, as the kernel reads it; NULL: none */
};

struct dp_attach_options {
	pid_t pid;
	const struct dp_event_spec *specs;
	size_t n_specs;
	const int *cpus;     /* CPU numbers */
	const int *ring_fds; /* per CPU: the event whose ring takes the records */
	size_t n_cpus;
	pid_t except_tid;		/* a thread that is left out; 0: none */
	void (*between)(void *context); /* called after each thread, for whoever has something to do
					 * meanwhile; NULL: nobody */
	void *context;
};

/*
 * Opens the events on every thread that lives, disabled, again until no thread is new. Raises
 * RLIMIT_NOFILE if it is too low for threads x CPUs x sorts.
 *
 * Returns 0 or a negative errno with a sentence in @err: -ESRCH (the process is gone), -EMFILE,
 * -EPERM/-EACCES, -EINVAL (kernel older than 5.13).
 */
int dp_attach_open(struct dp_attach **ret, const struct dp_attach_options *options,
		   struct dp_error *err);

/* Closes every event; this is what takes the breakpoints out of the target. NULL is allowed. */
void dp_attach_close(struct dp_attach *attach);

/*
 * Closes up to @n_max events. Returns whether there are more; when not, dp_attach_close() has only
 * memory left to free.
 */
bool dp_attach_close_some(struct dp_attach *attach, size_t n_max);

/* Enables the events of sort @i_spec on all threads, but perhaps for one that is just being created
 * and its descendants: until it is done again, see dp_sampler_enable(). */
void dp_attach_enable(struct dp_attach *attach, size_t i_spec);

/* Disables the events of sort @i_spec on all threads; breakpoints stay in the target's text until
 * the close. */
void dp_attach_disable(struct dp_attach *attach, size_t i_spec);

/*
 * What the kernel itself counted for sort @i_spec, over all threads that live or lived: hits, and
 * of these the records that found no room in a ring (0 where the kernel cannot say: before 6.0).
 */
void dp_attach_counts(const struct dp_attach *attach, size_t i_spec, uint64_t *ret_hits,
		      uint64_t *ret_lost);

/*
 * Which thread event id @id (PERF_SAMPLE_IDENTIFIER) was opened on, for threads that were found
 * only after the first pass: such a thread may have inherited the events of its creator as well,
 * and then every hit is recorded twice. Returns 0 for any other id.
 */
pid_t dp_attach_late_owner(const struct dp_attach *attach, uint64_t id);

/* Threads found after the first pass. Borrowed until dp_attach_close(). */
const pid_t *dp_attach_late_threads(const struct dp_attach *attach, size_t *ret_n);

/* File descriptors held and threads that events were opened on. */
size_t dp_attach_n_fds(const struct dp_attach *attach);
size_t dp_attach_n_threads(const struct dp_attach *attach);

#endif
