/* SPDX-License-Identifier: MIT */
/*
 * The unwinder on other processes, against what these say themselves through their own unwinder
 * (gcc's), against eu-stack, and against a record of every call of a program that is stepped
 * through.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "tests/stopped.h"
#include "tests/sym_oracle.h"

static struct stopped *stop_at_breakpoint(const char *name, const char *situation)
{
	struct stopped *s = stopped_start(name, situation);

	stopped_run_to_breakpoint(s);
	stopped_load(s);
	stopped_take(s, STOPPED_MAX_STACK_BYTES, false);
	stopped_unwind(s);
	return s;
}

/* The module that holds the frame, by its file's name. */
static bool is_in(const struct stopped *s, size_t i, const char *file)
{
	struct dp_module_info info;

	return dp_module_get(s->modules, dp_frame_module(s->frames[i]), &info) &&
	       strstr(info.path, file);
}

static void expect_own_report(const char *name, const char *situation)
{
	struct stopped *s = stop_at_breakpoint(name, situation);
	struct stopped_oracle oracle;
	struct dp_unwind_stats stats;

	print_message("%s: %s\n", name, situation);
	stopped_read_report(s, &oracle);
	assert_true(oracle.n > 4);
	stopped_expect(s, &oracle, oracle.n, false);
	assert_int_equal(s->result.end, DP_UNWIND_OUTERMOST);
	dp_unwinder_get_stats(s->unwinder, &stats);
	assert_int_equal(stats.counts.n_stacks, 1);
	assert_int_equal(stats.counts.n_ends[DP_UNWIND_OUTERMOST], 1);
	assert_int_equal(stats.counts.n_fp_steps, 0);
	stopped_end(s);
}

static const char *const situations[] = {"deep",     "alloca", "alignment", "both", "arguments",
					 "callback", "thread", "signal",    "trap"};
#define N_SITUATIONS (sizeof(situations) / sizeof(*situations))

static void every_situation_is_what_the_program_says_itself(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SITUATIONS; i++)
		expect_own_report("unw", situations[i]);
}

static void static_programs_are_unwound_too(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SITUATIONS; i++) {
		expect_own_report("unw-static", situations[i]);
		expect_own_report("unw-static-pie", situations[i]);
	}
}

static void a_file_without_section_headers_is_unwound(void **state)
{
	(void)state;
	expect_own_report("unw-sectionless", "both");
	expect_own_report("unw-sectionless", "signal");
}

static void what_runs_on_a_signal_stack_ends_behind_what_it_interrupted(void **state)
{
	struct stopped *s = stop_at_breakpoint("unw", "signal-stack");
	struct stopped_oracle oracle;
	size_t i = 0;

	(void)state;
	stopped_read_report(s, &oracle);
	while (i < oracle.n && oracle.addresses[i] != oracle.trampoline)
		i++;
	assert_true(i + 2 < oracle.n);
	/* The trampoline, and the function that was interrupted: its frame is on the other stack.
	 */
	stopped_expect(s, &oracle, i + 2, false);
	assert_int_equal(s->result.end, DP_UNWIND_STACK_CUT);
	stopped_end(s);
}

static void expect_eu_stack(struct stopped *s)
{
	struct stopped_oracle oracle;

	stopped_run_eu_stack(s, &oracle);
	assert_true(oracle.n > 4);
	stopped_expect(s, &oracle, oracle.n, true);
	assert_int_equal(s->result.end, DP_UNWIND_OUTERMOST);
}

static void assert_function(const struct stopped *s, size_t i, const char *name)
{
	uint32_t module = dp_frame_module(s->frames[i]);
	struct dp_found_symbol *found;
	uint64_t offset = dp_frame_offset(s->frames[i]);
	bool is_inside = false;
	size_t n;

	assert_int_equal(dp_module_find_functions(s->modules, module, &name, 1, &found, &n), 0);
	for (size_t j = 0; j < n; j++)
		is_inside |= offset - found[j].file_off < found[j].size_bytes;
	free(found);
	if (!is_inside)
		fail_msg("frame %zu is not in %s", i, name);
}

static void a_thread_that_waits_for_a_mutex_is_whole(void **state)
{
	struct stopped *s = stopped_start("unw", "lock");

	(void)state;
	stopped_run_to_syscall(s, SYS_futex, true);
	stopped_load(s);
	stopped_take(s, STOPPED_MAX_STACK_BYTES, true);
	stopped_unwind(s);
	/* Behind the C library's inner functions, which are nameless where it is stripped. */
	assert_int_equal(s->n_frames, 9);
	assert_function(s, 1, "pthread_mutex_lock");
	for (size_t i = 2; i < 6; i++)
		assert_function(s, i, "lock_at_depth");
	assert_function(s, 6, "wait_for_lock");
	assert_true(is_in(s, 7, "libc.so") && is_in(s, 8, "libc.so"));
	expect_eu_stack(s);
	stopped_end(s);
}

/* It has taken its return address off the stack, into a register. */
static void a_thread_inside_vfork_is_whole(void **state)
{
	struct stopped *s = stopped_start("unw", "vfork");

	(void)state;
	stopped_run_to_syscall(s, SYS_vfork, false);
	stopped_load(s);
	stopped_take(s, STOPPED_MAX_STACK_BYTES, true);
	stopped_unwind(s);
	assert_function(s, 0, "vfork");
	assert_function(s, 1, "fork_at_depth");
	expect_eu_stack(s);
	stopped_end(s);
}

static void debug_frame_does_where_there_is_no_eh_frame(void **state)
{
	static const char *const names[] = {"unw-debug-frame", "unw-debug-frame-zlib"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct stopped *s = stop_at_breakpoint(names[i], "both");
		struct dp_unwind_stats stats;

		expect_eu_stack(s);
		dp_unwinder_get_stats(s->unwinder, &stats);
		assert_int_equal(stats.counts.n_fp_steps, 0);
		stopped_end(s);
	}
}

static void code_without_cfi_is_unwound_by_its_frame_pointers(void **state)
{
	struct stopped *s = stop_at_breakpoint("unw-frame-pointers", "deep");
	struct dp_unwind_stats stats;
	size_t n_program = 0;

	(void)state;
	expect_eu_stack(s);
	dp_unwinder_get_stats(s->unwinder, &stats);
	for (size_t i = 0; i < s->n_frames; i++)
		n_program += is_in(s, i, "unw-frame-pointers");
	/* All of the program's, but for _start, which the C library brings with CFI. */
	assert_true(n_program > 300);
	assert_int_equal(stats.counts.n_fp_steps, n_program - 1);
	stopped_end(s);
}

/* The return addresses of all calls that have not returned, by where they lie on the stack. */
struct calls {
	size_t n;
	struct {
		uint64_t at, address;
	} calls[STOPPED_MAX_FRAMES];
};

/* Follows the step from @before to where @s is now. */
static void note_step(struct calls *calls, const struct stopped *s,
		      const struct user_regs_struct *before)
{
	while (calls->n > 0 && calls->calls[calls->n - 1].at < s->regs.rsp)
		calls->n--;
	if (s->regs.rsp == before->rsp - 8) {
		uint64_t address = stopped_word(s, s->regs.rsp);

		if (address - before->rip < 2 || address - before->rip > 7)
			return;
		assert_true(calls->n < STOPPED_MAX_FRAMES);
		calls->calls[calls->n].at = s->regs.rsp;
		calls->calls[calls->n++].address = address;
	}
}

/* The frames must be the place itself, the @calls, and the callers of the first place, @base. */
static bool is_as_noted(const struct stopped *s, const struct calls *calls, const uint64_t *base,
			size_t n_base)
{
	if (s->result.end != DP_UNWIND_OUTERMOST || s->n_frames != calls->n + n_base ||
	    s->frames[0] != dp_space_frame(s->space, s->regs.rip))
		return false;
	for (size_t i = 1; i <= calls->n; i++) {
		if (s->frames[i] !=
		    dp_space_frame(s->space, calls->calls[calls->n - i].address - 1))
			return false;
	}
	return memcmp(s->frames + calls->n + 1, base + 1, (n_base - 1) * sizeof(*base)) == 0;
}

static void report_difference(const struct stopped *s, const struct calls *calls)
{
	print_message("at 0x%" PRIx64 ": end %d, %zu frames, %zu calls:", s->frames[0],
		      s->result.end, s->n_frames, calls->n);
	for (size_t i = 1; i < s->n_frames && i <= calls->n; i++)
		print_message(" 0x%" PRIx64, s->frames[i]);
	print_message("\n");
}

static void at_every_instruction_the_stack_is_that_of_the_calls_made(void **state)
{
	struct stopped *s = stop_at_breakpoint("unw", "walk");
	uint64_t base[STOPPED_MAX_FRAMES];
	struct calls calls = {0};
	size_t n_base = s->n_frames, n_steps = 0, n_vdso = 0, n_loader = 0, n_different = 0;

	(void)state;
	assert_int_equal(s->result.end, DP_UNWIND_OUTERMOST);
	memcpy(base, s->frames, n_base * sizeof(*base));
	for (;; n_steps++) {
		struct user_regs_struct before = s->regs;

		stopped_step(s);
		/* The second breakpoint is where the calls are over; its byte was run. */
		if (calls.n == 0 && n_steps > 1000 && s->regs.rip == before.rip + 1 &&
		    (uint8_t)stopped_word(s, before.rip) == 0xcc)
			break;
		note_step(&calls, s, &before);
		stopped_take(s, 16384, false);
		stopped_unwind(s);
		n_vdso += is_in(s, 0, "[vdso]");
		n_loader += is_in(s, 0, "ld-linux");
		if (is_as_noted(s, &calls, base, n_base))
			continue;
		if (n_different++ < 20)
			report_difference(s, &calls);
	}
	print_message("%zu steps, %zu in the loader, %zu in the vdso; %zu differ\n", n_steps,
		      n_loader, n_vdso, n_different);
	assert_true(n_vdso > 10 && n_loader > 1000);
	assert_int_equal(n_different, 0);
	stopped_end(s);
}

/* Only told, not judged. */
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_situation_is_what_the_program_says_itself),
		cmocka_unit_test(static_programs_are_unwound_too),
		cmocka_unit_test(a_file_without_section_headers_is_unwound),
		cmocka_unit_test(what_runs_on_a_signal_stack_ends_behind_what_it_interrupted),
		cmocka_unit_test(a_thread_that_waits_for_a_mutex_is_whole),
		cmocka_unit_test(a_thread_inside_vfork_is_whole),
		cmocka_unit_test(debug_frame_does_where_there_is_no_eh_frame),
		cmocka_unit_test(code_without_cfi_is_unwound_by_its_frame_pointers),
		cmocka_unit_test(at_every_instruction_the_stack_is_that_of_the_calls_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
