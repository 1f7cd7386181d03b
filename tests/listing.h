/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_LISTING_H
#define DP_TESTS_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What `objdump -d` prints of a file, as a second opinion on its instructions that shares no code
 * with the decoder under test: everything here is concluded from the text.
 */

struct listing_line {
	uint64_t address;
	char text[96]; /* mnemonic and operands, AT&T syntax; cut if longer */
};

struct listing {
	struct listing_line *lines;
	size_t n, capacity;
};

/* Runs objdump on @path. Returns whether it printed any instruction. */
bool listing_load(struct listing *listing, const char *path);
void listing_free(struct listing *listing);

/* The instruction at @address, or NULL; the next one is behind it. */
const struct listing_line *listing_find(const struct listing *listing, uint64_t address);

/* Whether a jump or call anywhere in the file leads to an address from @first to @last. */
bool listing_jumps_into(const struct listing *listing, uint64_t first, uint64_t last);

/* Whether the text is that of an instruction that the kernel emulates. */
bool listing_is_emulated(const char *text);

/*
 * Whether the text is that of an instruction of a well-known kind that goes on with the next one
 * and writes neither the stack pointer nor one of the argument registers of @arg_mask (bit i: the
 * i-th integer argument, 3 of them).
 */
bool listing_keeps(const char *text, unsigned arg_mask);

#endif
