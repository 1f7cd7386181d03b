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
 * Call frame information by code address: how the caller's registers are found from those of a
 * function. A part of symbolize/unwind; each address is looked up in its file once and remembered.
 */

struct dp_cfi;

/*
 * A rule in one word, so that to remember it takes one slot of a hash table. Bits 0-1: the shape.
 *
 * DP_CFI_USUAL: CFA = register (bits 2-5) + 8 * number (bits 6-33). The return address lies at
 * CFA - 8, and the caller's stack pointer is the CFA. Register dp_cfi_saved_regs[i] is unchanged if
 * the five bits from 34 + 5 * i are 0, else they are k and it lies at CFA - 8 * k. All others are
 * unknown.
 * DP_CFI_OTHER: any other; dp_cfi_other() has it.
 */
enum dp_cfi_shape {
	DP_CFI_NO_RULE,	  /* no CFI there, or none that makes sense */
	DP_CFI_OUTERMOST, /* there is no caller */
	DP_CFI_USUAL,
	DP_CFI_OTHER,
};

/* What a function preserves, but the stack pointer. Source: System V ABI, AMD64 supplement, figure
 * 3.4. */
#define DP_CFI_N_SAVED_REGS 6
static const uint8_t dp_cfi_saved_regs[DP_CFI_N_SAVED_REGS] = {3, 6, 12, 13, 14, 15};

static inline enum dp_cfi_shape dp_cfi_shape(uint64_t rule)
{
	return (enum dp_cfi_shape)(rule & 3);
}

static inline unsigned int dp_cfi_usual_register(uint64_t rule)
{
	return rule >> 2 & 15;
}

static inline uint64_t dp_cfi_usual_offset(uint64_t rule)
{
	return (rule >> 6 & 0xfffffff) * 8;
}

static inline uint64_t dp_cfi_usual_saved(uint64_t rule, unsigned int i)
{
	return (rule >> (34 + 5 * i) & 31) * 8;
}

/* Where the caller's register is. */
enum dp_cfi_where {
	DP_CFI_UNKNOWN,	      /* not kept */
	DP_CFI_SAME,	      /* in the register itself */
	DP_CFI_IN_REGISTER,   /* in register number offset */
	DP_CFI_AT_CFA,	      /* in memory at CFA + offset */
	DP_CFI_IS_CFA,	      /* it is CFA + offset */
	DP_CFI_AT_EXPRESSION, /* in memory at what expression number offset gives */
	DP_CFI_IS_EXPRESSION, /* it is what expression number offset gives */
};

/* A rule of any shape. */
struct dp_cfi_other {
	bool is_signal;		/* the caller was interrupted: its pc is no return address */
	bool cfa_is_expression; /* CFA = expression number cfa_offset, else register + cfa_offset */
	uint8_t cfa_register;
	int32_t cfa_offset;
	uint8_t where[DP_UNWIND_REGS];
	int32_t offset[DP_UNWIND_REGS];
};

/* @modules: borrowed, must outlive it. Returns 0 or -ENOMEM. */
int dp_cfi_new(struct dp_cfi **ret, const struct dp_modules *modules);

/* Frees it. NULL is allowed. */
void dp_cfi_free(struct dp_cfi *cfi);

/*
 * Reads the CFI of module @id, which is else done at the first address in it. Returns 0 or -ENOMEM.
 */
int dp_cfi_load(struct dp_cfi *cfi, uint32_t id);

/*
 * The rule for @frame (src/base/frame.h), a lookup address. Where it is not remembered, blocks on
 * file reads and allocates.
 *
 * *@ret: valid until the next call. Returns 0 or -ENOMEM.
 */
int dp_cfi_find(struct dp_cfi *cfi, uint64_t frame, uint64_t *ret);

/* The rule of shape DP_CFI_OTHER that dp_cfi_find() gave last. */
const struct dp_cfi_other *dp_cfi_other(const struct dp_cfi *cfi, uint64_t rule);

/* Expression @i of that rule, of *@ret_n operations. */
const Dwarf_Op *dp_cfi_expression(const struct dp_cfi *cfi, int32_t i, size_t *ret_n);

struct dp_cfi_stats {
	uint64_t n_flushes;	  /* all rules forgotten to make room for new ones */
	uint64_t n_files_no_room; /* files whose CFI is not used for its size */
	uint64_t n_entries_bad;	  /* corrupt CFI that was refused (cfi_check.h) */
};

void dp_cfi_get_stats(const struct dp_cfi *cfi, struct dp_cfi_stats *ret);

#endif
