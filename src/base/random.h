/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_RANDOM_H
#define DP_BASE_RANDOM_H

#include <stdint.h>

/*
 * A small, fast, seedable generator of random numbers for sampling; not for secrets. The same seed
 * gives the same numbers on every machine.
 *
 * Source: xoshiro256** 1.0 and SplitMix64, D. Blackman and S. Vigna, "Scrambled Linear Pseudorandom
 * Number Generators", ACM TOMS 47 (2021); https://prng.di.unimi.it/.
 */
struct dp_random {
	uint64_t s[4]; /* not all zero */
};

/* Starts the sequence that belongs to @seed; every seed is good, 0 too. */
void dp_random_seed(struct dp_random *random, uint64_t seed);

/* The next 64 uniformly distributed bits. */
uint64_t dp_random_u64(struct dp_random *random);

/*
 * The next exponentially distributed number of mean @mean: the distance to the next point of a
 * Poisson process. Never negative, never infinite (at most 37 times the mean).
 */
double dp_random_exponential(struct dp_random *random, double mean);

#endif
