/* SPDX-License-Identifier: MIT */
#ifndef DP_PROBES_H
#define DP_PROBES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/allocator.h"
#include "src/base/error.h"
#include "symbolize/module.h"

/*
 * Where a process is probed: every allocation function of every mapped file that defines one.
 */

struct dp_probe {
	const struct dp_alloc_function *function;
	uint64_t frame;	       /* module and file offset of the probed instruction */
	uint64_t size_bytes;   /* of the function, as its symbol says; 0: not known */
	uint32_t offset_bytes; /* of that instruction from the function's entry */
	bool emulated;	       /* the kernel need not single-step it */
	bool dx_is_result;     /* at return, dx holds what was stored through the pointer argument
				  (glibc) */
};

struct dp_probes;

/*
 * Looks through all modules. A function with several names is probed once.
 *
 * Returns 0, -ENOMEM, or -ENOENT with a sentence in @err: no module defines both an allocation
 * function and free.
 */
int dp_probes_find(struct dp_probes **ret, struct dp_modules *modules, pid_t pid,
		   struct dp_error *err);

/* Frees it. NULL is allowed. */
void dp_probes_free(struct dp_probes *probes);

/* All of them, ascending by frame, *@ret_n in number; borrowed. */
const struct dp_probe *dp_probes_list(const struct dp_probes *probes, size_t *ret_n);

/* The probe at @frame, or NULL. */
const struct dp_probe *dp_probes_at(const struct dp_probes *probes, uint64_t frame);

/*
 * Whether the code at @frame is part of a probed allocation function, free left out. A function of
 * unknown size is taken to end where it is probed.
 */
bool dp_probes_is_allocating(const struct dp_probes *probes, uint64_t frame);

/* Whether both lists have the same instructions. */
bool dp_probes_equal(const struct dp_probes *a, const struct dp_probes *b);

#endif
