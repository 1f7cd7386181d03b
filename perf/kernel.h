/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_KERNEL_H
#define DP_PERF_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/kernel_abi.h"
#include "perf/record.h"
#include "perf/rings.h"
#include "perf/sampler.h"
#include "src/base/error.h"

/*
 * The kernel sampler of one process, a part of perf/sampler: BPF programs decide what is kept
 * (perf/kernel.bpf.c), and perf delivers that with registers and a copy of the stack. What it needs
 * does not depend on the number of threads. Its functions are those of perf/sampler.h, as far as
 * they differ from the direct sampler's.
 */

struct dp_kernel;

/*
 * Attaches the programs, idle, and tells @layout of their records.
 *
 * @options: its stack_bytes is set; sites are needed during the call only. @rings: outlive it, and
 * are told of the sideband.
 * Returns 0 or a negative errno with a sentence in @err: -EOPNOTSUPP where kernel or build lack
 * what it takes, -EPERM.
 */
int dp_kernel_open(struct dp_kernel **ret, const struct dp_sampler_options *options,
		   const struct dp_rings *rings, struct dp_record_layout *layout,
		   struct dp_error *err);
void dp_kernel_close(struct dp_kernel *kernel); /* NULL is allowed */

void dp_kernel_enable(struct dp_kernel *kernel);
void dp_kernel_disable(struct dp_kernel *kernel);
int dp_kernel_resize(struct dp_kernel *kernel, uint32_t stack_bytes, bool callchain,
		     struct dp_error *err);
uint32_t dp_kernel_stack_bytes(const struct dp_kernel *kernel);

/* Takes note of what the sideband tells of threads. */
void dp_kernel_follow(struct dp_kernel *kernel, const struct dp_event *event);

/* Whether the process is held by threads that may end, so that they must be looked after often. */
bool dp_kernel_is_anchored(const struct dp_kernel *kernel);
uint64_t dp_kernel_n_gaps(const struct dp_kernel *kernel); /* as dp_anchors_n_gaps() */

/* What the programs counted since the opening. */
void dp_kernel_count(const struct dp_kernel *kernel, struct dp_kernel_counts *ret);

void dp_kernel_get_size(const struct dp_kernel *kernel, size_t *ret_threads, size_t *ret_fds);

#endif
