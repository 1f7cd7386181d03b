/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SAMPLING_H
#define DP_TESTS_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

/*
 * What tests/targets/sampling.c does each time that it is asked to: for the target and the test
 * alike.
 */

/* Allocations of one size along one stack: of @n the first @n_freed are freed again. */
struct sampling_mix {
	unsigned stack; /* they are made by leaf_STACK() */
	uint32_t size;
	unsigned n, n_freed;
};

static const struct sampling_mix sampling_mixes[] = {
	{0, 8, 4000, 1200},
	{1, 64, 1200, 400},
	{2, 256, 400, 200},
	{3, 1024, 160, 80},
	{4, 4096, 80, 20},
	{5, 16384, 40, 8},
	{6, 65536, 20, 8},
	{7, 131072, 12, 4},
	{8, 524288, 8, 4},
	{9, 1048576, 4, 0},
	{10, 4194304, 4, 2},
	{11, 67108864, 2, 1},
	/* Stacks whose sizes are far apart. */
	{12, 32, 600, 200},
	{12, 65536, 8, 4},
	{13, 512, 200, 100},
	{13, 262144, 4, 2},
	{14, 100, 400, 400}, /* nothing of it stays */
};
#define SAMPLING_N_MIXES (sizeof(sampling_mixes) / sizeof(sampling_mixes[0]))
#define SAMPLING_N_STACKS 15

/*
 * Waits that end by themselves, made by wait_KIND(), and those that the other thread ends; one
 * after the other, in this order.
 */
struct sampling_wait {
	unsigned us; /* how long it is meant to be */
	unsigned n;
};

static const struct sampling_wait sampling_waits[] = {
	{1, 100}, {5, 60}, {20, 60}, {50, 40}, {100, 30}, {30, 60},
};
#define SAMPLING_N_WAITS (sizeof(sampling_waits) / sizeof(sampling_waits[0]))
/* The last kind is released, by release_5(). */
#define SAMPLING_RELEASED (SAMPLING_N_WAITS - 1)
#define SAMPLING_ALL_WAITS 350

#endif
