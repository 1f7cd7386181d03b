/* SPDX-License-Identifier: MIT */
#include "symbolize/symbolizer.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/map.h"
#include "symbolize/arena.h"
#include "symbolize/debug_file.h"
#include "symbolize/debuginfod.h"
#include "symbolize/demangle.h"
#include "symbolize/dwarf_lines.h"
#include "symbolize/generated.h"
#include "symbolize/go_table.h"
#include "symbolize/symbol_table.h"

/*
 * The one hard idea: a frame is a file offset, DWARF and symbols speak svma, libdwfl speaks of
 * addresses where it believes the file to be loaded. Each module is reported where it was linked,
 * and every step adds the bias that libdwfl states, so that it holds for ET_EXEC, for ET_DYN, and
 * for a debug file that was split off before prelinking.
 */

#define DEFAULT_MAX_FRAMES (4u << 20)

/* What is open of one module. */
struct names {
	uint32_t module;
	bool go_tried;
	struct dp_go_table *go;			  /* NULL: no Go code, as far as is known */
	bool tried;				  /* opened, or known not to open */
	bool pending;				  /* debuginfod was asked for a debug file */
	uint32_t n_reopened;			  /* with a debug file that has come */
	const struct dp_separate_files *separate; /* that file; NULL: none */
	struct dp_debug_file file;		  /* none: nothing can be known */
	uint64_t bias;
	const struct dp_elf_image *image;
	struct dp_symbol_table symbols;
	struct dp_dwarf dwarf;
};

/* What a frame is called, and when that was found out. */
struct known {
	struct dp_symbol symbol;
	uint32_t n_reopened; /* of its module then */
};

struct dp_symbolizer {
	struct dp_modules *modules;
	pthread_mutex_t lock; /* of what follows */
	struct names **names; /* module id - 1 → or NULL */
	size_t n_names, names_capacity;
	struct known *known;
	size_t n_known, known_capacity;
	struct dp_map by_frame; /* frame → index into known */
	struct dp_arena arena;
	struct dp_map
		demangled; /* address of a system name in arena → of its demangled form, or 0 */
	struct dp_generated generated;
	struct dp_debuginfod *debuginfod; /* or NULL */
	uint64_t n_answered;		  /* of its questions, at the last update */
	size_t max_frames;
	uint64_t n_over_limit;
	struct dp_dwarf_line scratch[DP_DWARF_MAX_LINES];
	struct dp_go_line go_scratch[DP_GO_MAX_LINES];
};

int dp_symbolizer_new(struct dp_symbolizer **ret, struct dp_modules *modules)
{
	struct dp_symbolizer *symbolizer = calloc(1, sizeof(*symbolizer));

	if (!symbolizer)
		return -ENOMEM;
	symbolizer->modules = modules;
	symbolizer->max_frames = DEFAULT_MAX_FRAMES;
	pthread_mutex_init(&symbolizer->lock, NULL);
	*ret = symbolizer;
	return 0;
}

static void names_close(struct names *names)
{
	dp_symbol_table_clear(&names->symbols);
	dp_dwarf_clear(&names->dwarf);
	dp_debug_file_close(&names->file);
}

static void names_free(struct names *names)
{
	names_close(names);
	dp_go_table_free(names->go);
	free(names);
}

void dp_symbolizer_free(struct dp_symbolizer *symbolizer)
{
	if (!symbolizer)
		return;
	for (size_t i = 0; i < symbolizer->n_names; i++) {
		if (symbolizer->names[i])
			names_free(symbolizer->names[i]);
	}
	free(symbolizer->names);
	free(symbolizer->known);
	dp_map_clear(&symbolizer->by_frame);
	dp_map_clear(&symbolizer->demangled);
	dp_generated_clear(&symbolizer->generated);
	dp_arena_clear(&symbolizer->arena);
	dp_debuginfod_free(symbolizer->debuginfod);
	pthread_mutex_destroy(&symbolizer->lock);
	free(symbolizer);
}

void dp_symbolizer_set_max_frames(struct dp_symbolizer *symbolizer, size_t max_frames)
{
	symbolizer->max_frames = max_frames;
}

uint64_t dp_symbolizer_over_limit(const struct dp_symbolizer *symbolizer)
{
	return symbolizer->n_over_limit + symbolizer->generated.n_over_limit;
}

/*
 * Asks debuginfod for the debug file of the module, or for the answer. When the file is there the
 * module is closed, to be opened with it by the next frame.
 */
static void ask(struct dp_symbolizer *symbolizer, struct names *names)
{
	const struct dp_separate_files *separate = NULL;
	enum dp_debuginfod_state state;
	struct dp_module_info info;

	if (!dp_module_get(symbolizer->modules, names->module, &info) ||
	    info.kind != DP_MODULE_ELF || !info.build_id)
		return;
	state = dp_debuginfod_ask(symbolizer->debuginfod, info.build_id, info.build_id_bytes,
				  &separate);
	names->pending = state == DP_DEBUGINFOD_PENDING;
	if (state != DP_DEBUGINFOD_FOUND)
		return;
	names_close(names);
	names->tried = false;
	names->separate = separate;
	names->n_reopened++;
}

static void update(struct dp_symbolizer *symbolizer)
{
	uint64_t n_answered;

	symbolizer->generated.is_current = false;
	if (!symbolizer->debuginfod)
		return;
	n_answered = dp_debuginfod_n_answered(symbolizer->debuginfod);
	if (n_answered == symbolizer->n_answered)
		return;
	symbolizer->n_answered = n_answered;
	for (size_t i = 0; i < symbolizer->n_names; i++) {
		if (symbolizer->names[i] && symbolizer->names[i]->pending)
			ask(symbolizer, symbolizer->names[i]);
	}
}

void dp_symbolizer_update(struct dp_symbolizer *symbolizer)
{
	pthread_mutex_lock(&symbolizer->lock);
	update(symbolizer);
	pthread_mutex_unlock(&symbolizer->lock);
}

int dp_symbolizer_use_debuginfod(struct dp_symbolizer *symbolizer)
{
	return symbolizer->debuginfod ? 0 : dp_debuginfod_new(&symbolizer->debuginfod);
}

bool dp_symbolizer_get_debuginfod_stats(struct dp_symbolizer *symbolizer,
					struct dp_debuginfod_stats *ret)
{
	pthread_mutex_lock(&symbolizer->lock);
	if (symbolizer->debuginfod)
		dp_debuginfod_get_stats(symbolizer->debuginfod, ret);
	pthread_mutex_unlock(&symbolizer->lock);
	return symbolizer->debuginfod;
}

void dp_symbolizer_get_perf_map_stats(struct dp_symbolizer *symbolizer,
				      struct dp_perf_map_stats *ret)
{
	*ret = (struct dp_perf_map_stats){0};
	pthread_mutex_lock(&symbolizer->lock);
	if (symbolizer->generated.map)
		dp_perf_map_get_stats(symbolizer->generated.map, ret);
	pthread_mutex_unlock(&symbolizer->lock);
}

void dp_symbolizer_set_perf_map(struct dp_symbolizer *symbolizer, struct dp_perf_map *map)
{
	symbolizer->generated.map = map;
	symbolizer->generated.is_current = false;
}

int dp_symbolizer_resolve_generated(struct dp_symbolizer *symbolizer, uint64_t avma,
				    struct dp_symbol *ret)
{
	int r;

	pthread_mutex_lock(&symbolizer->lock);
	r = dp_generated_resolve(&symbolizer->generated, &symbolizer->arena, symbolizer->max_frames,
				 avma, ret);
	pthread_mutex_unlock(&symbolizer->lock);
	return r;
}

/* Opens what can be had of the module. Returns 0 or -ENOMEM (to be tried again). */
static int names_open(struct names *names, struct dp_modules *modules)
{
	int r = dp_debug_file_open(&names->file, modules, names->module, names->separate);

	if (r == 0) {
		dwfl_module_getelf(names->file.module, &names->bias);
		r = dp_symbol_table_build(&names->symbols, names->file.module, names->image);
	}
	if (r == 0)
		r = dp_dwarf_build(&names->dwarf, names->file.module, names->image);
	if (r < 0)
		names_close(names);
	names->tried = r != -ENOMEM;
	return names->tried ? 0 : r;
}

/* The module's names, of which nothing need be open yet. */
static int names_of(struct dp_symbolizer *symbolizer, uint32_t module, struct names **ret)
{
	struct names *names;
	int r = dp_array_reserve((void **)&symbolizer->names, &symbolizer->names_capacity, module,
				 sizeof(struct names *));

	if (r < 0)
		return -ENOMEM;
	while (symbolizer->n_names < module)
		symbolizer->names[symbolizer->n_names++] = NULL;
	names = symbolizer->names[module - 1];
	if (!names) {
		names = calloc(1, sizeof(*names));
		if (!names)
			return -ENOMEM;
		names->module = module;
		names->image = dp_module_image(symbolizer->modules, module);
		symbolizer->names[module - 1] = names;
	}
	*ret = names;
	return 0;
}

static int names_open_all(struct dp_symbolizer *symbolizer, struct names *names)
{
	while (!names->tried) {
		int r = names_open(names, symbolizer->modules);

		if (r < 0)
			return r;
		if (symbolizer->debuginfod && !names->dwarf.dwarf && !names->separate)
			ask(symbolizer, names);
	}
	return 0;
}

/*
 * The calls at @frame by the Go table of its module, which is opened first. What is wrong with a
 * table is no matter: there are DWARF and symbols.
 */
static int go_lines(struct dp_symbolizer *symbolizer, struct names *names, uint64_t frame,
		    size_t *ret_n)
{
	int fd = dp_module_fd(symbolizer->modules, names->module);
	uint64_t svma;

	*ret_n = 0;
	if (!names->go_tried) {
		if (names->image && fd >= 0 && dp_go_table_open(&names->go, fd) == -ENOMEM)
			return -ENOMEM;
		names->go_tried = true;
	}
	if (names->go && dp_elf_svma_of(names->image, dp_frame_offset(frame), &svma))
		*ret_n = dp_go_table_lines(names->go, svma, symbolizer->go_scratch);
	return 0;
}

/* Interns @raw up to a symbol version ("@@GLIBC_2.2.5"). */
static const char *intern_unversioned(struct dp_arena *arena, const char *raw)
{
	const char *at = strchr(raw, '@');
	const char *result;
	char *copy;

	if (!at || at == raw)
		return dp_arena_intern(arena, raw);
	copy = malloc((size_t)(at - raw) + 1);
	if (!copy)
		return NULL;
	memcpy(copy, raw, (size_t)(at - raw));
	copy[at - raw] = '\0';
	result = dp_arena_intern(arena, copy);
	free(copy);
	return result;
}

/* Demangles @name, which is in the arena, once. *@ret: in the arena, too; NULL if it is not
 * mangled. */
static int demangle(struct dp_symbolizer *symbolizer, const char *name, const char **ret)
{
	const char *result = NULL;
	uint64_t known = 0;
	char *text;

	if (name[0] != '_' || dp_map_get(&symbolizer->demangled, (uintptr_t)name, &known)) {
		*ret = (const char *)(uintptr_t)known;
		return 0;
	}
	text = dp_demangle(name);
	if (text)
		result = dp_arena_intern(&symbolizer->arena, text);
	if ((text && !result) ||
	    dp_map_set(&symbolizer->demangled, (uintptr_t)name, (uintptr_t)result) < 0) {
		free(text);
		return -ENOMEM;
	}
	free(text);
	*ret = result;
	return 0;
}

static const char *intern_path(struct dp_arena *arena, const char *directory, const char *file)
{
	char path[PATH_MAX];
	int n;

	if (!directory || !directory[0])
		return dp_arena_intern(arena, file);
	n = snprintf(path, sizeof(path), "%s/%s", directory, file);
	return dp_arena_intern(arena, n > 0 && (size_t)n < sizeof(path) ? path : file);
}

static int make_line(struct dp_symbolizer *symbolizer, const struct dp_dwarf_line *from,
		     struct dp_line *ret)
{
	const char *raw = from->linkage_name ? from->linkage_name : from->name;

	ret->system_name = intern_unversioned(&symbolizer->arena, raw);
	if (!ret->system_name || demangle(symbolizer, ret->system_name, &ret->function) < 0)
		return -ENOMEM;
	if (!ret->function)
		ret->function =
			intern_unversioned(&symbolizer->arena, from->name ? from->name : raw);
	ret->file = intern_path(&symbolizer->arena, from->directory, from->file);
	ret->line = from->line;
	ret->start_line = from->start_line;
	return ret->function && ret->file ? 0 : -ENOMEM;
}

/* "_RAISE" is not, though Rust's names begin so. */
static bool is_mangled(const char *name)
{
	char *text;

	if (strncmp(name, "_Z", 2) != 0 && strncmp(name, "_R", 2) != 0)
		return false;
	text = dp_demangle(name);
	free(text);
	return text != NULL;
}

/*
 * Where the symbol's name is the better one for the outermost function. Compilers give no linkage
 * name to C++ functions that are not seen outside (gcc: anonymous namespaces), so that only "f"
 * would be left of "(anonymous namespace)::f(int)". And a C library calls its functions by internal
 * names ("__GI___libc_malloc") of which a global symbol is the public one ("malloc"), the same as
 * without DWARF. Any other C name stays, without the suffix of a clone ("f.constprop.0"): a local
 * symbol may be that of another function that a linker found to be the same code.
 */
static void name_outermost(struct dp_dwarf_line *line, const char *symbol, bool is_global)
{
	const char *name = line->linkage_name ? line->linkage_name : line->name;

	if (!symbol)
		return;
	if (!name || (!line->linkage_name && is_mangled(symbol)) ||
	    (is_global && strspn(symbol, "_") < strspn(name, "_") && !is_mangled(name))) {
		line->linkage_name = symbol;
		line->name = NULL;
	}
}

/*
 * Drops calls without a name: an inlined one is as if it were part of its caller, whose place in
 * the source is known. Returns how many are left.
 */
static size_t drop_nameless(struct dp_dwarf_line *lines, size_t n)
{
	size_t n_kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (lines[i].linkage_name || lines[i].name)
			lines[n_kept++] = lines[i];
	}
	return n_kept;
}

static int make_symbol(struct dp_symbolizer *symbolizer, const struct dp_dwarf_line *from, size_t n,
		       struct dp_symbol *ret)
{
	struct dp_line *lines = dp_arena_alloc(&symbolizer->arena, n * sizeof(*lines));

	if (!lines)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		int r = make_line(symbolizer, &from[i], &lines[i]);

		if (r < 0)
			return r;
	}
	ret->lines = lines;
	ret->n_lines = n;
	return 0;
}

/* From go_scratch. Go's names are not mangled, and its table keeps them as long as we live. */
static int make_go_symbol(struct dp_symbolizer *symbolizer, size_t n, struct dp_symbol *ret)
{
	struct dp_line *lines = dp_arena_alloc(&symbolizer->arena, n * sizeof(*lines));

	if (!lines)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct dp_go_line *from = &symbolizer->go_scratch[i];

		lines[i] = (struct dp_line){
			.function = from->function,
			.system_name = from->function,
			.file = from->file,
			.line = from->line,
			.start_line = from->start_line,
		};
	}
	*ret = (struct dp_symbol){lines, n, DP_SYMBOL_GO};
	return 0;
}

static int resolve_opened(struct dp_symbolizer *symbolizer, struct names *names, uint64_t frame,
			  struct dp_symbol *ret)
{
	struct dp_dwarf_line *lines = symbolizer->scratch;
	bool is_global = false;
	const char *symbol;
	uint64_t svma;
	size_t n;
	int r;

	*ret = (struct dp_symbol){.source = DP_SYMBOL_NONE};
	if (!names->file.dwfl || !dp_elf_svma_of(names->image, dp_frame_offset(frame), &svma))
		return 0;
	symbol = dp_symbol_table_find(&names->symbols, svma + names->bias, &is_global);
	r = dp_dwarf_lines(&names->dwarf, svma + names->bias, lines, &n);
	if (r < 0)
		return r;
	if (n > 0)
		name_outermost(&lines[n - 1], symbol, is_global);
	n = drop_nameless(lines, n);
	ret->source = DP_SYMBOL_DWARF;
	if (n == 0 && symbol) {
		lines[0] = (struct dp_dwarf_line){.linkage_name = symbol, .file = ""};
		ret->source = DP_SYMBOL_TABLE;
		n = 1;
	}
	if (n == 0) {
		ret->source = DP_SYMBOL_NONE;
		return 0;
	}
	return make_symbol(symbolizer, lines, n, ret);
}

static int resolve(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_symbol *ret)
{
	struct names *names;
	size_t n = 0;
	int r = names_of(symbolizer, dp_frame_module(frame), &names);

	if (r == 0)
		r = go_lines(symbolizer, names, frame, &n);
	if (r < 0)
		return r;
	if (n > 0)
		return make_go_symbol(symbolizer, n, ret);
	r = names_open_all(symbolizer, names);
	return r < 0 ? r : resolve_opened(symbolizer, names, frame, ret);
}

/* Whether @known may be less than what is known now. */
static bool is_outdated(const struct dp_symbolizer *symbolizer, uint64_t frame,
			const struct known *known)
{
	const struct names *names = symbolizer->names[dp_frame_module(frame) - 1];

	return known->symbol.source != DP_SYMBOL_DWARF && known->symbol.source != DP_SYMBOL_GO &&
	       known->n_reopened != names->n_reopened;
}

/* Resolves @frame into @known, which it is until then. */
static int resolve_known(struct dp_symbolizer *symbolizer, uint64_t frame, struct known *known)
{
	struct dp_symbol symbol;
	int r = resolve(symbolizer, frame, &symbol);

	if (r < 0)
		return r;
	known->symbol = symbol;
	known->n_reopened = symbolizer->names[dp_frame_module(frame) - 1]->n_reopened;
	return 0;
}

static int resolve_once(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_symbol *ret)
{
	uint32_t module = dp_frame_module(frame);
	struct known known = {.symbol.source = DP_SYMBOL_NONE};
	uint64_t i;
	int r = 0;

	if (module == 0 || module > dp_modules_count(symbolizer->modules)) {
		*ret = known.symbol;
		return 0;
	}
	if (dp_map_get(&symbolizer->by_frame, frame, &i)) {
		if (is_outdated(symbolizer, frame, &symbolizer->known[i]))
			r = resolve_known(symbolizer, frame, &symbolizer->known[i]);
		if (r == 0)
			*ret = symbolizer->known[i].symbol;
		return r;
	}
	if (symbolizer->n_known >= symbolizer->max_frames) {
		symbolizer->n_over_limit++;
		*ret = known.symbol;
		return 0;
	}
	r = dp_array_reserve((void **)&symbolizer->known, &symbolizer->known_capacity,
			     symbolizer->n_known + 1, sizeof(*symbolizer->known));
	if (r == 0)
		r = resolve_known(symbolizer, frame, &known);
	if (r == 0)
		r = dp_map_set(&symbolizer->by_frame, frame, symbolizer->n_known);
	if (r < 0)
		return -ENOMEM;
	symbolizer->known[symbolizer->n_known++] = known;
	*ret = known.symbol;
	return 0;
}

int dp_symbolizer_resolve(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_symbol *ret)
{
	int r;

	pthread_mutex_lock(&symbolizer->lock);
	r = resolve_once(symbolizer, frame, ret);
	pthread_mutex_unlock(&symbolizer->lock);
	return r;
}

static int go_calls(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_go_call *ret,
		    size_t *ret_n)
{
	uint32_t module = dp_frame_module(frame);
	struct names *names;
	size_t n = 0;
	int r = 0;

	if (module > 0 && module <= dp_modules_count(symbolizer->modules)) {
		r = names_of(symbolizer, module, &names);
		if (r == 0)
			r = go_lines(symbolizer, names, frame, &n);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		uint64_t file_off;

		ret[i] = (struct dp_go_call){symbolizer->go_scratch[i].function, frame};
		frame = 0;
		if (i + 1 < n &&
		    dp_elf_file_off_of(names->image, symbolizer->go_scratch[i].parent, &file_off))
			frame = dp_frame_make(module, file_off);
	}
	*ret_n = n;
	return 0;
}

int dp_symbolizer_go_calls(struct dp_symbolizer *symbolizer, uint64_t frame, struct dp_go_call *ret,
			   size_t *ret_n)
{
	int r;

	_Static_assert(DP_GO_MAX_CALLS >= DP_GO_MAX_LINES, "every call has room");
	pthread_mutex_lock(&symbolizer->lock);
	r = go_calls(symbolizer, frame, ret, ret_n);
	pthread_mutex_unlock(&symbolizer->lock);
	return r;
}
