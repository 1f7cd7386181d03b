/* SPDX-License-Identifier: MIT */
#include "src/probes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/arch.h"
#include "src/base/array.h"
#include "src/base/frame.h"

/* As much of a function as the choice of the instruction looks at. */
#define MAX_CODE_BYTES 4096
/* Where a symbol does not say how long the function is. */
#define UNSIZED_CODE_BYTES 64

struct dp_probes {
	struct dp_probe *list;
	size_t n, capacity;
};

static unsigned arg_mask(const struct dp_alloc_function *function)
{
	const int used[] = {function->i_size, function->i_count, function->i_pointer,
			    function->i_align};
	unsigned mask = 0;

	for (size_t i = 0; i < sizeof(used) / sizeof(*used); i++)
		mask |= used[i] >= 0 ? DP_ARG((unsigned)used[i]) : 0;
	return mask;
}

static int add(struct dp_probes *probes, struct dp_modules *modules, uint32_t module,
	       const struct dp_found_symbol *symbol, const struct dp_alloc_function *function,
	       bool is_glibc)
{
	uint8_t code[MAX_CODE_BYTES];
	size_t wanted = symbol->size_bytes ? symbol->size_bytes : UNSIZED_CODE_BYTES;
	struct dp_placement place = {0};
	ptrdiff_t n;
	int r;

	n = dp_module_read(modules, module, symbol->file_off, code,
			   wanted < sizeof(code) ? wanted : sizeof(code));
	if (n <= 0)
		return 0;
	/* Code that cannot be decoded is probed at its entry, where nothing has run yet. */
	dp_arch_place(code, (size_t)n, arg_mask(function), &place);
	r = dp_array_reserve((void **)&probes->list, &probes->capacity, probes->n + 1,
			     sizeof(*probes->list));
	if (r < 0)
		return r;
	probes->list[probes->n++] = (struct dp_probe){
		.function = function,
		.frame = dp_frame_make(module, symbol->file_off + place.offset_bytes),
		.offset_bytes = place.offset_bytes,
		.size_bytes = symbol->size_bytes,
		.emulated = place.emulated,
		.dx_is_result = is_glibc && function->kind == DP_ALLOC_OUT,
	};
	return 0;
}

/* Functions that only glibc's own malloc comes with, dynamic and static. */
static bool is_glibc(struct dp_modules *modules, uint32_t module)
{
	static const char *const names[] = {"gnu_get_libc_version", "__libc_mallopt"};
	struct dp_found_symbol *found = NULL;
	size_t n = 0;

	if (dp_module_find_functions(modules, module, names, 2, &found, &n) < 0)
		return false;
	free(found);
	return n > 0;
}

static int find_in_module(struct dp_probes *probes, struct dp_modules *modules, uint32_t module)
{
	size_t n_functions, n_found = 0;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n_functions);
	struct dp_found_symbol *found = NULL;
	const char *names[32];
	bool glibc;
	int r;

	for (size_t i = 0; i < n_functions && i < 32; i++)
		names[i] = functions[i].name;
	r = dp_module_find_functions(modules, module, names, n_functions, &found, &n_found);
	if (r == -ENOEXEC || n_found == 0)
		return 0;
	if (r < 0)
		return r;
	glibc = is_glibc(modules, module);
	for (size_t i = 0; r == 0 && i < n_found; i++)
		r = add(probes, modules, module, &found[i], &functions[found[i].i_name], glibc);
	free(found);
	return r;
}

static int by_frame(const void *a, const void *b)
{
	const struct dp_probe *x = a, *y = b;

	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* Sorts, and keeps one of several names of the same instruction. */
static void sort(struct dp_probes *probes)
{
	size_t n = 0;

	if (probes->n == 0)
		return;
	qsort(probes->list, probes->n, sizeof(*probes->list), by_frame);
	for (size_t i = 1; i < probes->n; i++) {
		if (probes->list[i].frame != probes->list[n].frame)
			probes->list[++n] = probes->list[i];
	}
	probes->n = n + 1;
}

static int check(const struct dp_probes *probes, const struct dp_modules *modules, pid_t pid,
		 struct dp_error *err)
{
	bool allocates = false, frees = false, readable = false;
	struct dp_module_info info;

	for (size_t i = 0; i < probes->n; i++) {
		if (probes->list[i].function->kind == DP_ALLOC_FREE)
			frees = true;
		else
			allocates = true;
	}
	if (allocates && frees)
		return 0;
	for (uint32_t id = 1; !readable && id <= dp_modules_count(modules); id++)
		readable = dp_module_get(modules, id, &info) && info.kind == DP_MODULE_ELF;
	if (!readable)
		return dp_error_set(
			err, -EACCES,
			"pid %d: none of its %u mapped files can be read; run as root, or "
			"with CAP_SYS_PTRACE",
			pid, dp_modules_count(modules));
	return dp_error_set(
		err, -ENOENT,
		"pid %d: none of its %u mapped files defines malloc and free (a 32-bit or "
		"stripped static program, or another allocator); a build that keeps its "
		"symbol table can be profiled; its waits can: --profiles mutex,block",
		pid, dp_modules_count(modules));
}

int dp_probes_find(struct dp_probes **ret, struct dp_modules *modules, pid_t pid,
		   struct dp_error *err)
{
	struct dp_probes *probes = calloc(1, sizeof(*probes));
	int r = probes ? 0 : -ENOMEM;

	for (uint32_t id = 1; r == 0 && id <= dp_modules_count(modules); id++) {
		struct dp_module_info info;

		if (dp_module_get(modules, id, &info) && info.kind == DP_MODULE_ELF &&
		    info.machine == dp_arch.elf_machine)
			r = find_in_module(probes, modules, id);
	}
	if (r == -ENOMEM)
		dp_error_set(err, r, "pid %d: out of memory", pid);
	if (r == 0) {
		sort(probes);
		r = check(probes, modules, pid, err);
	}
	if (r < 0) {
		dp_probes_free(probes);
		return r;
	}
	*ret = probes;
	return 0;
}

void dp_probes_free(struct dp_probes *probes)
{
	if (!probes)
		return;
	free(probes->list);
	free(probes);
}

const struct dp_probe *dp_probes_list(const struct dp_probes *probes, size_t *ret_n)
{
	*ret_n = probes->n;
	return probes->list;
}

const struct dp_probe *dp_probes_at(const struct dp_probes *probes, uint64_t frame)
{
	const struct dp_probe key = {.frame = frame};

	return bsearch(&key, probes->list, probes->n, sizeof(key), by_frame);
}

static bool holds(const struct dp_probe *probe, uint64_t frame)
{
	uint64_t entry = probe->frame - probe->offset_bytes;

	return probe->function->kind != DP_ALLOC_FREE &&
	       dp_frame_module(frame) == dp_frame_module(entry) && frame >= entry &&
	       (frame <= probe->frame || frame - entry < probe->size_bytes);
}

/*
 * Functions do not overlap and each is probed inside, so only the neighbours in the list can hold
 * @frame; but the same instruction may lie before or behind it.
 */
bool dp_probes_is_allocating(const struct dp_probes *probes, uint64_t frame)
{
	size_t low = 0, high = probes->n; /* ends as the first probe behind @frame */

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (probes->list[middle].frame <= frame)
			low = middle + 1;
		else
			high = middle;
	}
	return (low > 0 && holds(&probes->list[low - 1], frame)) ||
	       (low < probes->n && holds(&probes->list[low], frame));
}

bool dp_probes_equal(const struct dp_probes *a, const struct dp_probes *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (a->list[i].frame != b->list[i].frame)
			return false;
	}
	return true;
}
