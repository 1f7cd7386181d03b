/* SPDX-License-Identifier: MIT */
#include "tests/delivered.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "encode/profile.pb-c.h"
#include "src/deltaprof.h"

#define MAX_BYTES (1 << 20)

static void require(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "delivered profile: %s\n", what);
	abort();
}

static Perftools__Profiles__Profile *decode(const void *data, size_t n_bytes)
{
	z_stream stream = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n_bytes};
	unsigned char *plain = malloc(MAX_BYTES);
	Perftools__Profiles__Profile *profile;

	require(plain != NULL, "out of memory");
	stream.next_out = plain;
	stream.avail_out = MAX_BYTES;
	require(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK, "zlib");
	require(inflate(&stream, Z_FINISH) == Z_STREAM_END, "not one whole gzip member");
	inflateEnd(&stream);
	profile = perftools__profiles__profile__unpack(NULL, stream.total_out, plain);
	free(plain);
	require(profile != NULL, "not a profile");
	return profile;
}

/* Under the lock. */
static void take(struct delivered *delivered, const Perftools__Profiles__Profile *profile)
{
	memset(delivered->last, 0, sizeof(delivered->last));
	for (size_t i = 0; i < profile->n_sample; i++) {
		for (size_t k = 0; k < profile->sample[i]->n_value; k++)
			delivered->last[k] += profile->sample[i]->value[k];
	}
	for (size_t k = 0; k < DELIVERED_MAX_VALUES; k++)
		delivered->sums[k] += delivered->last[k];
	if (delivered->n_profiles > 0)
		delivered->n_gaps += profile->time_nanos != delivered->end_ns;
	delivered->end_ns = profile->time_nanos + profile->duration_nanos;
	delivered->n_profiles++;
	delivered->n_of_contents += profile->n_sample > 0;
}

int deliver(void *context, const void *data, size_t n_bytes, char *error)
{
	struct delivered *delivered = context;
	Perftools__Profiles__Profile *profile;
	int fails;

	pthread_mutex_lock(&delivered->lock);
	delivered->n_calls++;
	fails = delivered->n_fail != 0 && delivered->n_calls % delivered->n_fail == 0;
	if (!fails) {
		profile = decode(data, n_bytes);
		take(delivered, profile);
		perftools__profiles__profile__free_unpacked(profile, NULL);
	}
	pthread_mutex_unlock(&delivered->lock);
	if (fails)
		snprintf(error, DELTAPROF_ERROR_BYTES, "told to fail");
	return fails ? DELIVERED_FAILS : 0;
}
