/* SPDX-License-Identifier: MIT */
/*
 * The output buffer has deflateBound()'s size, so one call to deflate() always finishes. zlib
 * counts a call's bytes in 32 bits, which is where the limit comes from.
 */
#include "encode/gzip.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#define LEVEL 1
#define GZIP_WINDOW_BITS (15 + 16) /* + 16: a gzip wrapper instead of a zlib one */
#define MEM_LEVEL 8

static voidpf allocate(voidpf opaque, uInt n, uInt n_bytes)
{
	(void)opaque;
	return calloc(n, n_bytes);
}

static void release(voidpf opaque, voidpf memory)
{
	(void)opaque;
	free(memory);
}

int dp_gzip(const void *data, size_t n_bytes, uint8_t **ret, size_t *ret_bytes)
{
	z_stream stream = {.zalloc = allocate, .zfree = release};
	uint8_t *out = NULL;
	uLong bound;
	int r = -ENOMEM;

	if (n_bytes > UINT_MAX)
		return -EFBIG;
	if (deflateInit2(&stream, LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS, MEM_LEVEL,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	bound = deflateBound(&stream, n_bytes);
	if (bound > UINT_MAX) {
		r = -EFBIG;
		goto out;
	}
	out = malloc(bound);
	if (!out)
		goto out;
	stream.next_in = (Bytef *)data; /* zlib only reads it */
	stream.avail_in = (uInt)n_bytes;
	stream.next_out = out;
	stream.avail_out = (uInt)bound;
	if (deflate(&stream, Z_FINISH) != Z_STREAM_END)
		goto out;

	*ret = out;
	*ret_bytes = stream.total_out;
	out = NULL;
	r = 0;
out:
	free(out);
	deflateEnd(&stream);
	return r;
}
