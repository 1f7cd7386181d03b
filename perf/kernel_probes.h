/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_KERNEL_PROBES_H
#define DP_PERF_KERNEL_PROBES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/kernel_programs.h"
#include "perf/sampler.h"
#include "src/base/error.h"

/*
 * The probes of one process that run the BPF programs. A part of perf/kernel.
 */

/* Probes by links: one for the frees of each file, one for its allocation functions. */
struct dp_kernel_links {
	int *fds;
	size_t n;
};

/*
 * @ret: zeroed; to be closed in every case. @sites: as in dp_sampler_options. Returns 0 or a
 * negative errno with a sentence in @err.
 */
int dp_kernel_links_open(struct dp_kernel_links *ret, const struct dp_kernel_programs *programs,
			 uint32_t slot, const struct dp_sampler_options *options,
			 struct dp_error *err);
void dp_kernel_links_close(struct dp_kernel_links *links);

/* The cookie of the @i-th site. */
uint64_t dp_kernel_cookie(uint32_t slot, const struct dp_probe_site *sites, size_t i);

/*
 * Probes by perf events, for kernels without sessions and for processes whose main thread has
 * ended. Such an event is bound to a thread, and covers the others as long as that lives
 * (perf/anchors.h).
 */
struct dp_kernel_events;
int dp_kernel_events_open(struct dp_kernel_events **ret, const struct dp_kernel_programs *programs,
			  uint32_t slot, const struct dp_sampler_options *options,
			  struct dp_error *err);
void dp_kernel_events_close(struct dp_kernel_events *events); /* NULL is allowed */

/* Takes note of a thread's beginning or end. */
void dp_kernel_events_follow(struct dp_kernel_events *events, const struct dp_event *event);

/* As dp_anchors_n_gaps(). */
uint64_t dp_kernel_events_n_gaps(const struct dp_kernel_events *events);

size_t dp_kernel_events_n_fds(const struct dp_kernel_events *events);

#endif
