/* SPDX-License-Identifier: MIT */
#include "src/go_names.h"

#include <errno.h>
#include <string.h>

#include "src/base/frame.h"

static uint64_t frame_at(const struct dp_go_table_names *names, uint64_t svma)
{
	return dp_frame_make(names->module, svma - names->svma_minus_offset);
}

static bool find(void *context, const char *name, uint64_t *ret_frame, uint64_t *ret_bytes)
{
	const struct dp_go_table_names *names = context;
	struct dp_go_function function;

	if (!dp_go_table_find(names->table, name, &function))
		return false;
	*ret_frame = frame_at(names, function.entry);
	*ret_bytes = function.end - function.entry;
	return true;
}

static uint64_t caller_of_inlined(void *context, uint64_t frame, const char *name)
{
	const struct dp_go_table_names *names = context;
	struct dp_go_line lines[DP_GO_MAX_LINES];
	uint64_t svma = dp_frame_offset(frame) + names->svma_minus_offset;

	if (dp_frame_module(frame) != names->module ||
	    dp_go_table_lines(names->table, svma, lines) < 2 || lines[0].parent == 0 ||
	    strcmp(lines[0].function, name) != 0)
		return frame;
	return frame_at(names, lines[0].parent);
}

int dp_go_table_names(struct dp_go_names *ret, struct dp_go_table_names *ret_context,
		      const struct dp_go_table *table, const struct dp_space *space, uint64_t bias)
{
	struct dp_go_function function;
	uint64_t frame;

	if (!dp_go_table_find(table, "runtime.gopark", &function))
		return -ENOENT;
	frame = dp_space_frame(space, function.entry + bias);
	if (dp_frame_module(frame) == 0)
		return -ENOENT;
	*ret_context = (struct dp_go_table_names){.table = table,
						  .module = dp_frame_module(frame),
						  .svma_minus_offset =
							  function.entry - dp_frame_offset(frame)};
	*ret = (struct dp_go_names){
		.find = find, .caller_of_inlined = caller_of_inlined, .context = ret_context};
	return 0;
}
