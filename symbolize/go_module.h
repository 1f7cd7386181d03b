/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_MODULE_H
#define DP_SYMBOLIZE_GO_MODULE_H

#include "symbolize/go_format.h"

/*
 * Looks for the module data of @table, whose header was read, in @file, and takes from it what the
 * table alone does not say: module_data, text, and tree_base (*@ret_has_trees: whether that was
 * found; not looked for where trees are pointers, before 1.18).
 *
 * Returns 0, also when there is none, or -ENOMEM. Source: runtime.moduledata of each version.
 */
int dp_go_module_find(struct dp_go_table *table, const struct dp_go_file *file,
		      bool *ret_has_trees);

#endif
