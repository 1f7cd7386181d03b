/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_DELIVERED_H
#define DP_TESTS_DELIVERED_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What profiles delivered, added up: a deltaprof_writer, and the sums that it keeps. The profiles
 * are decoded by protobuf-c and zlib alone.
 */

#define DELIVERED_MAX_VALUES 4

struct delivered {
	pthread_mutex_t lock;
	unsigned n_fail;	/* in: of every @n_fail calls one fails; 0: none */
	unsigned n_calls;	/* of the writer */
	unsigned n_profiles;	/* that were delivered */
	unsigned n_of_contents; /* of these, with a sample */
	int64_t sums[DELIVERED_MAX_VALUES];
	int64_t last[DELIVERED_MAX_VALUES]; /* the totals of the last one */
	int64_t end_ns;			    /* where it ended, since the epoch */
	unsigned n_gaps; /* profiles that did not begin where the one before them ended */
};

/* What a call that was to fail returns. */
#define DELIVERED_FAILS (-1234)

/* deltaprof_writer; @context: a struct delivered. Any thread. */
int deliver(void *context, const void *data, size_t n_bytes, char *error);

#endif
