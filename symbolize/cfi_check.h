/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_CFI_CHECK_H
#define DP_SYMBOLIZE_CFI_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A section of an ELF file, copied so that it may be changed. */
struct dp_cfi_section {
	uint8_t *bytes;
	size_t n_bytes; /* below 4 GiB; 0: there is none */
	uint64_t svma;
};

/*
 * Changes call frame information in place so that libdw can be let loose on it whatever the file
 * says: an entry that it could stumble over becomes one that it refuses, a section ends where its
 * entries stop making sense, and a search table that does not lead to entries goes.
 *
 * @frames: .eh_frame, or .debug_frame if !@is_eh.
 * @table: .eh_frame_hdr; NULL if there is none.
 * *@n_bad: grows by what was refused: each entry, a section's end, the table.
 * Returns 0 or -ENOMEM. Source: Linux Standard Base Core 5.0, section 10.6; DWARF 5, section 6.4.1.
 */
int dp_cfi_check(struct dp_cfi_section *frames, bool is_eh, struct dp_cfi_section *table,
		 uint64_t *n_bad);

#endif
