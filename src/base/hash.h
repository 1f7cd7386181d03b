/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_HASH_H
#define DP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Mixes one word so that every input bit reaches every output bit (the finaliser of MurmurHash3).
 */
static inline uint64_t dp_hash_u64(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	x ^= x >> 33;
	return x;
}

/* Hashes @n_words words at @words (may be NULL if @n_words is 0); not for keys an attacker picks.
 */
static inline uint64_t dp_hash_words(const uint64_t *words, size_t n_words)
{
	uint64_t h = 0x9e3779b97f4a7c15ULL ^ n_words;

	for (size_t i = 0; i < n_words; i++)
		h = (h ^ words[i]) * 0x9fb21c651e98df25ULL + (h >> 29);
	return dp_hash_u64(h);
}

#endif
