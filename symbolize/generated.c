/* SPDX-License-Identifier: MIT */
#include "symbolize/generated.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "symbolize/demangle.h"

/*
 * The one hard idea: addresses are not remembered, because other code will be there; names are,
 * because a profile's strings must outlive the map's next reading.
 */

#define MAX_NAME_BYTES ((size_t)64 << 20)

void dp_generated_clear(struct dp_generated *generated)
{
	dp_map_clear(&generated->lines);
	*generated = (struct dp_generated){0};
}

static uint64_t hash_name(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3ULL;
	return hash;
}

static int make_line(struct dp_arena *arena, const char *name, struct dp_line **ret)
{
	struct dp_line *line = dp_arena_alloc(arena, sizeof(*line));
	char *demangled;

	if (!line)
		return -ENOMEM;
	*line = (struct dp_line){.system_name = dp_arena_intern(arena, name), .file = ""};
	demangled = dp_demangle(name);
	line->function = demangled ? dp_arena_intern(arena, demangled) : line->system_name;
	free(demangled);
	if (!line->function || !line->system_name)
		return -ENOMEM;
	*ret = line;
	return 0;
}

/* The line of @name; *@ret is NULL where there is no room for another one. */
static int line_of(struct dp_generated *generated, struct dp_arena *arena, size_t max_names,
		   const char *name, struct dp_line **ret)
{
	uint64_t hash = hash_name(name), known;
	size_t n_bytes = strlen(name);
	struct dp_line *line = NULL;
	int r;

	if (dp_map_get(&generated->lines, hash, &known))
		line = (struct dp_line *)(uintptr_t)known;
	if (line && strcmp(line->system_name, name) == 0) {
		*ret = line;
		return 0;
	}
	if (n_bytes > MAX_NAME_BYTES - generated->n_bytes || generated->lines.n >= max_names) {
		generated->n_over_limit++;
		*ret = NULL;
		return 0;
	}
	r = make_line(arena, name, &line);
	if (r == 0)
		r = dp_map_set(&generated->lines, hash, (uint64_t)(uintptr_t)line);
	if (r < 0)
		return r;
	generated->n_bytes += n_bytes;
	*ret = line;
	return 0;
}

int dp_generated_resolve(struct dp_generated *generated, struct dp_arena *arena, size_t max_names,
			 uint64_t avma, struct dp_symbol *ret)
{
	struct dp_line *line = NULL;
	const char *name;
	int r = 0;

	if (generated->map && !generated->is_current)
		r = dp_perf_map_refresh(generated->map);
	if (r < 0)
		return r;
	generated->is_current = true;
	name = generated->map ? dp_perf_map_find(generated->map, avma) : NULL;
	if (name)
		r = line_of(generated, arena, max_names, name, &line);
	if (r < 0)
		return r;
	*ret = (struct dp_symbol){.source = DP_SYMBOL_NONE};
	if (line)
		*ret = (struct dp_symbol){line, 1, DP_SYMBOL_TABLE};
	return 0;
}
