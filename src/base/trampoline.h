/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_TRAMPOLINE_H
#define DP_BASE_TRAMPOLINE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether @word is in the page where the kernel lets trapped functions return to, and so stands for
 * a return address that only the owner of the return probe knows: the last but one below 2^47, or
 * 2^56 with 5 levels of page tables. (Where something else is mapped there the kernel takes another
 * page; such a word is not recognised.)
 * Source: kernel/events/uprobes.c, xol_add_vma(); arch/x86/include/asm/page_64.h, TASK_SIZE_MAX.
 */
static inline bool dp_is_return_trampoline(uint64_t word)
{
	uint64_t page = word & ~UINT64_C(0xfff);

	return page == (UINT64_C(1) << 47) - 0x2000 || page == (UINT64_C(1) << 56) - 0x2000;
}

#endif
