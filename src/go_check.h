/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_CHECK_H
#define DP_GO_CHECK_H

#include <stdbool.h>

#include "src/go_runtime.h"

/*
 * Whether what was found looks as it must: each list's newest bucket, if there is one, is of the
 * list's type, with a stack of the program's code. What does not is set to 0 in @runtime's
 * variables; the heads of block and mutex are exchanged if they are only that way right.
 * Returns whether the heap's is right.
 */
bool dp_go_check_heads(struct dp_go_runtime *runtime);

/*
 * Whether the heap's records have the layout's size of a cycle: enough of them have figures, and
 * those make sense in this layout and in no other. For versions that are newer than known.
 */
bool dp_go_check_records(const struct dp_go_runtime *runtime);

#endif
