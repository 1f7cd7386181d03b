/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_GZIP_H
#define DP_ENCODE_GZIP_H

#include <stddef.h>
#include <stdint.h>

/*
 * Compresses @n_bytes at @data into one gzip member without name and time, so that equal input
 * gives equal output (level 1: profiles are small and the CPU is the target's). *@ret of
 * *@ret_bytes is to be freed with free(). Returns 0, -ENOMEM, or -EFBIG.
 */
int dp_gzip(const void *data, size_t n_bytes, uint8_t **ret, size_t *ret_bytes);

#endif
