/* SPDX-License-Identifier: MIT */
#include "tests/hostile.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/base/frame.h"
#include "symbolize/module.h"
#include "symbolize/proc.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

#define CODE_AVMA UINT64_C(0x10000000000)
#define CODE_BYTES UINT64_C(0x10000000)
#define STACK_AVMA UINT64_C(0x7ffd00000000)
#define STACK_WORDS 256
#define MAX_FRAMES 128
#define MAX_NAME_BYTES (1u << 20)

struct look {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_symbolizer *symbolizer;
	struct dp_unwinder *unwinder;
	const uint64_t *file_off;
	size_t n;
	struct hostile_result result;
};

/* The file that is mapped, for the space, which would look for it in /proc. */
static int mapped_fd = -1;

int __wrap_dp_proc_open_mapping(pid_t tid, const struct dp_maps_line *line);
int __wrap_dp_proc_read_maps(pid_t pid, char **ret, size_t *ret_bytes, pid_t *ret_tid);

int __wrap_dp_proc_open_mapping(pid_t tid, const struct dp_maps_line *line)
{
	(void)tid;
	(void)line;
	return mapped_fd;
}

int __wrap_dp_proc_read_maps(pid_t pid, char **ret, size_t *ret_bytes, pid_t *ret_tid)
{
	(void)pid;
	(void)ret;
	(void)ret_bytes;
	(void)ret_tid;
	return -ESRCH;
}

static void look_for_names(struct look *look)
{
	static const char *const names[] = {"malloc", "pthread_mutex_lock", "hostile_caller",
					    "hostile_leaf"};
	struct dp_found_symbol *found;
	size_t n_found;

	if (dp_module_find_functions(look->modules, 1, names, 4, &found, &n_found) < 0)
		return;
	for (size_t i = 0; i < n_found; i++)
		assert(found[i].i_name < 4);
	look->result.n_found += n_found;
	free(found);
}

static void check_text(const char *text)
{
	assert(text && strlen(text) < MAX_NAME_BYTES);
}

static void name(struct look *look, uint64_t frame)
{
	struct dp_symbol symbol;

	assert(dp_symbolizer_resolve(look->symbolizer, frame, &symbol) == 0);
	for (size_t i = 0; i < symbol.n_lines; i++) {
		check_text(symbol.lines[i].function);
		check_text(symbol.lines[i].system_name);
		check_text(symbol.lines[i].file);
		assert(symbol.lines[i].function[0] && symbol.lines[i].line >= 0);
	}
	look->result.n_named += symbol.n_lines > 0;
}

static void unwind(struct look *look, size_t i_first)
{
	uint64_t words[STACK_WORDS], frames[MAX_FRAMES];
	struct dp_unwind_sample sample = {.stack = (const uint8_t *)words,
					  .stack_bytes = sizeof(words)};
	struct dp_unwind_result result;
	ptrdiff_t n;

	for (size_t i = 0; i < STACK_WORDS; i++) {
		uint64_t next = STACK_AVMA + 8 * (i + 3);

		words[i] = i % 4 == 3 ? next : CODE_AVMA + look->file_off[(i + i_first) % look->n];
	}
	for (size_t i = 0; i < DP_UNWIND_REGS; i++)
		sample.regs[i] = STACK_AVMA + 16 * i;
	sample.regs[DP_UNWIND_REG_SP] = STACK_AVMA;
	sample.regs[DP_UNWIND_REG_BP] = STACK_AVMA + 64;
	sample.regs[DP_UNWIND_REG_PC] = CODE_AVMA + look->file_off[i_first];
	n = dp_unwind(look->unwinder, look->space, &sample, frames, MAX_FRAMES, &result);
	assert(n >= 1 && n <= MAX_FRAMES && result.end <= DP_UNWIND_BROKEN);
	for (ptrdiff_t i = 1; i < n; i++)
		assert(dp_frame_module(frames[i]) == 1);
	look->result.n_unwound += (size_t)n - 1;
}

void hostile_look(int fd, const uint64_t *file_off, size_t n, struct hostile_result *ret)
{
	struct look look = {.file_off = file_off, .n = n};

	mapped_fd = fd;
	assert(dp_modules_new(&look.modules) == 0);
	assert(dp_space_new(&look.space, look.modules, getpid()) == 0);
	assert(dp_symbolizer_new(&look.symbolizer, look.modules) == 0);
	assert(dp_unwinder_new(&look.unwinder, look.modules) == 0);
	assert(dp_space_add(look.space, CODE_AVMA, CODE_AVMA + CODE_BYTES, 0, "/hostile", NULL) ==
	       0);
	assert(dp_modules_count(look.modules) == 1);
	look_for_names(&look);
	for (size_t i = 0; i < n; i++) {
		name(&look, dp_frame_make(1, file_off[i]));
		unwind(&look, i);
	}
	dp_unwinder_get_stats(look.unwinder, &look.result.unwinder);
	dp_unwinder_free(look.unwinder);
	dp_symbolizer_free(look.symbolizer);
	dp_space_free(look.space);
	dp_modules_free(look.modules);
	*ret = look.result;
}

void hostile_look_at_bytes(const uint8_t *bytes, size_t n_bytes, const uint64_t *file_off, size_t n,
			   struct hostile_result *ret)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);

	assert(fd >= 0 && write(fd, bytes, n_bytes) == (ssize_t)n_bytes);
	hostile_look(fd, file_off, n, ret);
}
