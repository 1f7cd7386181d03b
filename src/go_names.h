/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_NAMES_H
#define DP_GO_NAMES_H

#include <stdint.h>

#include "src/go_places.h"
#include "symbolize/go_table.h"
#include "symbolize/space.h"

/* Functions of a Go program by its own table: what src/go_places and dp_go_waits_find_sites() ask.
 */
struct dp_go_table_names {
	const struct dp_go_table *table;
	uint32_t module;
	uint64_t svma_minus_offset; /* of the program's code */
};

/*
 * @table: of the program's file; borrowed as long as *@ret is used. @bias: avma minus svma, in
 * @space, which is needed during the call only. @ret_context: what *@ret borrows; not to be moved.
 * Returns 0, or -ENOENT if the program is not mapped there.
 */
int dp_go_table_names(struct dp_go_names *ret, struct dp_go_table_names *ret_context,
		      const struct dp_go_table *table, const struct dp_space *space, uint64_t bias);

#endif
