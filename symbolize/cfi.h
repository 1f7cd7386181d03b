/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_CFI_H
#define DP_SYMBOLIZE_CFI_H

#include <elfutils/libdw.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"
#include "symbolize/unwind.h"

/*
 * Call frame information per code address: how the caller's registers are found from those of a
 * function. A part of symbolize/unwind; each address is looked up in the file once and remembered.
 */

struct dp_cfi;

/* Where the caller's register is. */
enum dp_cfi_where {
	DP_CFI_UNDEFINED,     /* not kept; for the return address: there is no caller */
	DP_CFI_SAME,	      /* in the register itself */
	DP_CFI_AT_CFA,	      /* in memory at CFA + offset */
	DP_CFI_IS_CFA,	      /* it is CFA + offset */
	DP_CFI_AT_EXPRESSION, /* in memory at what expressions[offset] gives */
	DP_CFI_IS_EXPRESSION, /* it is what expressions[offset] gives */
};

struct dp_cfi_rule {
	bool is_signal;		/* the caller was interrupted: its pc is no return address */
	bool cfa_is_expression; /* then expressions[cfa_offset] gives the CFA */
	uint8_t cfa_register;	/* CFA = register + cfa_offset */
	int32_t cfa_offset;
	uint8_t where[DP_UNWIND_REGS];
	int32_t offset[DP_UNWIND_REGS];
};

/* @modules: borrowed, must outlive it. Returns 0 or -ENOMEM. */
int dp_cfi_new(struct dp_cfi **ret, struct dp_modules *modules);

/* Frees it. NULL is allowed. */
void dp_cfi_free(struct dp_cfi *cfi);

/*
 * The rule for @frame (src/base/frame.h), a lookup address.
 *
 * *@ret: borrowed until the next call. Returns 0, -ENOENT (no CFI there, or none that makes sense)
 * or -ENOMEM.
 */
int dp_cfi_find(struct dp_cfi *cfi, uint64_t frame, const struct dp_cfi_rule **ret);

/* Expression @i of a rule, of *@ret_n operations; valid as long as @cfi. */
const Dwarf_Op *dp_cfi_expression(const struct dp_cfi *cfi, int32_t i, size_t *ret_n);

/* Rules that were not remembered because the cache was full. */
uint64_t dp_cfi_no_room(const struct dp_cfi *cfi);

#endif
