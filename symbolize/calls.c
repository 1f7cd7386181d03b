/* SPDX-License-Identifier: MIT */
#include "symbolize/calls.h"

#include "src/base/frame.h"

/*
 * The one hard idea: instructions cannot be decoded backwards, but a call has few forms: E8 and
 * four bytes, or FF with a ModR/M byte whose middle bits are 2, whose other bits say how long it
 * is. That such bytes end here by chance is possible; that a return address has none before it is
 * not.
 */

#define MAX_CALL_BYTES 7
#define MAX_KNOWN ((size_t)1 << 16)

/* How long `FF /2` with this ModR/M byte is, its SIB byte @sib where it has one. */
static size_t indirect_bytes(uint8_t modrm, uint8_t sib)
{
	unsigned int mod = modrm >> 6, rm = modrm & 7;
	size_t n = 2;

	if (mod == 3)
		return n;
	n += rm == 4;
	if (mod == 0)
		return n + (rm == 5 || (rm == 4 && (sib & 7) == 5) ? 4 : 0);
	return n + (mod == 1 ? 1 : 4);
}

bool dp_calls_end_of_code(const uint8_t *code, size_t n_bytes)
{
	if (n_bytes >= 5 && code[n_bytes - 5] == 0xe8)
		return true;
	for (size_t n = 2; n <= MAX_CALL_BYTES && n <= n_bytes; n++) {
		const uint8_t *at = code + n_bytes - n;

		if (at[0] == 0xff && (at[1] >> 3 & 7) == 2 &&
		    indirect_bytes(at[1], n > 2 ? at[2] : 0) == n)
			return true;
	}
	return false;
}

static bool look(struct dp_modules *modules, uint64_t frame)
{
	uint64_t end = dp_frame_offset(frame) + 1;
	size_t n_bytes = end < MAX_CALL_BYTES ? (size_t)end : MAX_CALL_BYTES;
	uint8_t code[MAX_CALL_BYTES];

	return dp_module_read(modules, dp_frame_module(frame), end - n_bytes, code, n_bytes) !=
		       (ptrdiff_t)n_bytes ||
	       dp_calls_end_of_code(code, n_bytes);
}

bool dp_calls_stand_before(struct dp_calls *calls, struct dp_modules *modules, uint64_t frame)
{
	uint64_t known;

	if (dp_frame_module(frame) == 0)
		return true;
	if (dp_map_get(&calls->known, frame, &known))
		return known;
	known = look(modules, frame);
	if (calls->known.n >= MAX_KNOWN)
		dp_map_clear(&calls->known);
	/* Where there is no memory for it, it is looked at again. */
	dp_map_set(&calls->known, frame, known);
	return known;
}

void dp_calls_clear(struct dp_calls *calls)
{
	dp_map_clear(&calls->known);
}
