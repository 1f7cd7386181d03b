/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_TARGETS_TURNS_H
#define DP_TESTS_TARGETS_TURNS_H

/* How much the target `turns` does for each byte (turns.c). Allocations are made by keep_block(),
 * waits by wait_mutex(), and ended by release_mutex(). */
#define TURNS_THREADS 4
#define TURNS_BLOCKS 500
#define TURNS_BLOCK_BYTES 64
#define TURNS_WAITS 10

void *keep_block(void);
void wait_mutex(void);
void release_mutex(void);

#endif
