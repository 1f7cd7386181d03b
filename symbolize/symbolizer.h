/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_SYMBOLIZER_H
#define DP_SYMBOLIZE_SYMBOLIZER_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/debuginfod.h"
#include "symbolize/module.h"
#include "symbolize/perf_map.h"

/*
 * Frames to names: function, file and line, with every inlined call, from DWARF where there is some
 * and from the symbol table where not; Go code from the table that its runtime itself goes by, also
 * where everything else was stripped. Each frame is resolved once and remembered.
 */

struct dp_symbolizer;

struct dp_line {
	const char *function;	 /* demangled; "" is never given */
	const char *system_name; /* as the linker knows it; often equal to function */
	const char *file;	 /* source path; "" if unknown */
	int64_t line;		 /* 0 if unknown */
	int64_t start_line;	 /* of the function; 0 if unknown */
};

enum dp_symbol_source {
	DP_SYMBOL_DWARF,
	DP_SYMBOL_TABLE, /* .symtab, .dynsym or a perf map */
	DP_SYMBOL_GO,	 /* Go's own table: as runtime/pprof says it */
	DP_SYMBOL_NONE,	 /* nothing known: the caller shows module+0xoffset */
};

struct dp_symbol {
	const struct dp_line *lines; /* innermost inlined call first */
	size_t n_lines;		     /* 0 if and only if source is NONE */
	enum dp_symbol_source source;
};

/*
 * Any thread, where nothing else is said.
 *
 * Creates a symbolizer over @modules (borrowed; must outlive it). Returns 0 or -ENOMEM.
 */
int dp_symbolizer_new(struct dp_symbolizer **ret, struct dp_modules *modules);

/* Frees it and every string that it gave. NULL is allowed. */
void dp_symbolizer_free(struct dp_symbolizer *symbolizer);

/*
 * Resolves @frame (a lookup address: 1 is already subtracted from return addresses).
 *
 * @ret: lives as long as @symbolizer. Corrupt debug information gives what can be had, never an
 * error. May read files at the first frame of a module. Any thread. Returns 0 or -ENOMEM.
 */
int dp_symbolizer_resolve(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_symbol *ret);

/* One of the calls that a frame of Go code stands for. */
struct dp_go_call {
	const char *function; /* full name; lives as long as the symbolizer */
	/*
	 * The frame that a recorded stack has for this call alone: for the innermost the one that
	 * was asked for, for a caller that it is inlined into the one of its virtual pc. 0: none
	 * can be.
	 */
	uint64_t frame;
};

/* Room that every answer fits into. */
#define DP_GO_MAX_CALLS 64

/*
 * The logical calls at @frame (a lookup address), innermost first, at @ret; no calls where there is
 * no Go code. The same calls as dp_symbolizer_resolve() has lines; nothing is remembered.
 *
 * @ret: room for DP_GO_MAX_CALLS. *@ret_n: set on success. Any thread. Returns 0 or -ENOMEM.
 */
int dp_symbolizer_go_calls(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_go_call *ret,
			   size_t *ret_n);

/*
 * To be called before the names of a profile are asked for: what has become known since the last
 * call counts from here on. Does not block and reads no file by itself.
 */
void dp_symbolizer_update(struct dp_symbolizer *symbolizer);

/*
 * The map that code in anonymous memory is named from; NULL: none. Borrowed until @symbolizer is
 * freed; used by nothing else meanwhile.
 */
void dp_symbolizer_set_perf_map(struct dp_symbolizer *symbolizer, struct dp_perf_map *map);

/*
 * Lets the servers in DEBUGINFOD_URLS be asked for the debug files of modules that have a build-id
 * and no DWARF on this machine's disks; without this call no network is ever used. They are asked
 * in the background (a thread, see symbolize/debuginfod.h): meanwhile a frame is called what the
 * disks know, and once the file is there it is named anew after the next dp_symbolizer_update().
 *
 * Not for the profile of one's own process. dp_symbolizer_free() then takes up to two seconds.
 * Returns 0, 1 when there is nobody to ask, or -ENOMEM.
 */
int dp_symbolizer_use_debuginfod(struct dp_symbolizer *symbolizer);

/* Fills @ret and returns true, or returns false when debuginfod is not used. */
bool dp_symbolizer_get_debuginfod_stats(struct dp_symbolizer *symbolizer,
					struct dp_debuginfod_stats *ret);

/* Fills @ret, with zeros when there is no map. */
void dp_symbolizer_get_perf_map_stats(struct dp_symbolizer *symbolizer,
				      struct dp_perf_map_stats *ret);

/*
 * Names code that was generated at run time, by the address in the process itself (avma; a lookup
 * address as above). Code is replaced, so nothing is remembered: the answer is that of the map as
 * of the first call after dp_symbolizer_update(). May read the map's file then.
 *
 * @ret: lives as long as @symbolizer. Returns 0 or -ENOMEM.
 */
int dp_symbolizer_resolve_generated(struct dp_symbolizer *symbolizer, uint64_t avma,
				    struct dp_symbol *ret);

/*
 * At most @max_frames distinct frames are resolved from now on (at first 4 Mi); every further one
 * is DP_SYMBOL_NONE, and counted. A frame that was resolved stays. The same holds for the distinct
 * names of generated code, of which no more than 64 MiB are kept besides.
 */
void dp_symbolizer_set_max_frames(struct dp_symbolizer *symbolizer, size_t max_frames);

/* Frames given as DP_SYMBOL_NONE only because of these bounds (calls, not distinct frames). */
uint64_t dp_symbolizer_over_limit(const struct dp_symbolizer *symbolizer);

#endif
