/* SPDX-License-Identifier: MIT */
#include "src/base/random.h"

#include <math.h>

static uint64_t rotate_left(uint64_t x, unsigned n_bits)
{
	return (x << n_bits) | (x >> (64 - n_bits));
}

/* SplitMix64: a bijection of a counter, so that four calls cannot all give 0. */
static uint64_t split_mix(uint64_t *counter)
{
	uint64_t z = *counter += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void dp_random_seed(struct dp_random *random, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		random->s[i] = split_mix(&seed);
}

uint64_t dp_random_u64(struct dp_random *random)
{
	uint64_t *s = random->s;
	uint64_t result = rotate_left(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate_left(s[3], 45);
	return result;
}

double dp_random_exponential(struct dp_random *random, double mean)
{
	/* In (0, 1]: the top 53 bits, which a double holds exactly, plus one. */
	double uniform = (double)((dp_random_u64(random) >> 11) + 1) * 0x1p-53;

	return -log(uniform) * mean;
}
