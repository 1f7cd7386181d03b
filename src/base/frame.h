/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_FRAME_H
#define DP_BASE_FRAME_H

#include <stdint.h>

/*
 * A frame is one normalised code address: a module's id in the upper 16 bits and the offset in that
 * module's file (file_off) in the lower 48. Module 0 means that no mapped file is known there, and
 * the lower bits are then the address in the process itself (avma). User addresses and file offsets
 * fit 48 bits on every architecture that is supported (47-bit user space).
 *
 * A frame is a *lookup* address: for a return address the normaliser has already subtracted 1.
 */
#define DP_FRAME_OFFSET_BITS 48
#define DP_FRAME_OFFSET_MASK ((UINT64_C(1) << DP_FRAME_OFFSET_BITS) - 1)
#define DP_FRAME_MAX_MODULE 0xffffu

/*
 * Marks: frames that stand outermost in a stack of which not all is known, at addresses where no
 * code can be.
 */
enum dp_frame_mark {
	DP_FRAME_MARK_CUT = 1, /* more lies beyond what was copied or walked */
	DP_FRAME_MARK_NO_CFI,  /* ended in code without unwind tables or frame pointer */
	DP_FRAME_MARK_BROKEN,  /* ended where the next frame made no sense */
	DP_FRAME_MARK_GUESSED, /* frames were found by frame pointer without tables */
	DP_FRAME_MARKS_END,
};

/* The mark that @frame is, or 0. */
static inline enum dp_frame_mark dp_frame_mark(uint64_t frame)
{
	return frame < DP_FRAME_MARKS_END ? (enum dp_frame_mark)frame : (enum dp_frame_mark)0;
}

static inline uint64_t dp_frame_make(uint32_t module, uint64_t offset)
{
	return ((uint64_t)module << DP_FRAME_OFFSET_BITS) | (offset & DP_FRAME_OFFSET_MASK);
}

static inline uint32_t dp_frame_module(uint64_t frame)
{
	return (uint32_t)(frame >> DP_FRAME_OFFSET_BITS);
}

static inline uint64_t dp_frame_offset(uint64_t frame)
{
	return frame & DP_FRAME_OFFSET_MASK;
}

#endif
