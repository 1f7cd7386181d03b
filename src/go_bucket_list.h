/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_BUCKET_LIST_H
#define DP_GO_BUCKET_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/map.h"

/*
 * The nodes of one of the runtime's bucket lists: what never changes in them. Used by go_buckets.c.
 */

/* A bucket's header; the stack's words and then the record come after it. */
#define DP_GO_HEADER_BYTES 48
#define DP_GO_MAX_STACK 1024
#define DP_GO_MAX_NODES (1u << 20)
#define DP_GO_MAX_PCS (32u << 20)

struct dp_go_node {
	uint64_t address, record; /* avma of the bucket and of the record in it */
	uint64_t size;
	uint32_t first_pc, n_pcs; /* in the list's pcs, the sentinel left out */
};

struct dp_go_window; /* a piece of the target's memory, read ahead */

struct dp_go_list_reader {
	pid_t pid;
	uint64_t head_avma; /* of the variable */
	uint64_t head;	    /* the newest node that is known; 0: none yet */
	uint64_t type;	    /* that its nodes have */
	struct dp_go_node *nodes;
	size_t n_nodes, capacity; /* oldest first */
	uint64_t *pcs;
	size_t n_pcs, pcs_capacity;
	struct dp_map known; /* by address */
	struct dp_go_window *window;
	uint64_t n_refused, n_without_room, n_unreadable;
};

/* Takes zeroed memory. Returns 0 or -ENOMEM. */
int dp_go_list_init(struct dp_go_list_reader *list, pid_t pid, uint64_t head_avma, uint64_t type);

void dp_go_list_destroy(struct dp_go_list_reader *list);

/*
 * Adds the nodes that are new since the last walk. A node that makes no sense ends the list; those
 * before it are kept. Returns 0, or a negative errno (-ENOMEM, or the process cannot be read), and
 * then nothing was added.
 */
int dp_go_list_walk(struct dp_go_list_reader *list);

#endif
