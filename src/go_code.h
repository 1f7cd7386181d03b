/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_CODE_H
#define DP_GO_CODE_H

#include "src/go_runtime.h"
#include "symbolize/go_table.h"

/*
 * Finds the runtime's variables of a program without symbols, from the instructions that use them.
 * @runtime: pid, layout and bias are read, variables are set; what was not found is 0. Reads the
 * process's memory.
 */
void dp_go_code_find(struct dp_go_runtime *runtime, const struct dp_go_table *table);

#endif
