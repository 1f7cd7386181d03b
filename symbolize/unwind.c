/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: the only memory is the copy of the stack. A word beyond it ends the stack, marked;
 * it never makes a frame of what happens to lie elsewhere.
 */
#include "symbolize/unwind.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/frame.h"
#include "src/base/trampoline.h"
#include "symbolize/cfi.h"
#include "symbolize/expression.h"

enum { REG_BP = 6, REG_SP = 7, REG_PC = 16 };

struct dp_unwinder {
	struct dp_cfi *cfi;
	struct dp_unwind_stats stats;
};

/* One stack as it is being unwound. */
struct walk {
	struct dp_unwinder *unwinder;
	const struct dp_space *space;
	const struct dp_unwind_sample *sample;
	uint64_t regs[DP_UNWIND_REGS];
	bool is_call; /* the pc is a return address */
};

int dp_unwinder_new(struct dp_unwinder **ret, struct dp_modules *modules)
{
	struct dp_unwinder *unwinder = calloc(1, sizeof(*unwinder));
	int r;

	if (!unwinder)
		return -ENOMEM;
	r = dp_cfi_new(&unwinder->cfi, modules);
	if (r < 0) {
		free(unwinder);
		return r;
	}
	*ret = unwinder;
	return 0;
}

void dp_unwinder_free(struct dp_unwinder *unwinder)
{
	if (!unwinder)
		return;
	dp_cfi_free(unwinder->cfi);
	free(unwinder);
}

/* One word of the target's stack; false beyond the copy. For struct dp_expression_context. */
static bool read_word(const void *memory, uint64_t avma, uint64_t *ret)
{
	const struct dp_unwind_sample *sample = memory;
	uint64_t at = avma - sample->regs[REG_SP];

	if (sample->stack_bytes < sizeof(*ret) || at > sample->stack_bytes - sizeof(*ret))
		return false;
	memcpy(ret, sample->stack + at, sizeof(*ret));
	return true;
}

static enum dp_unwind_end end_of(int code)
{
	return code == -ENODATA ? DP_UNWIND_STACK_CUT : DP_UNWIND_BROKEN;
}

static int evaluate(const struct walk *walk, int32_t i, uint64_t cfa, uint64_t *ret)
{
	const struct dp_expression_context context = {
		.regs = walk->regs, .cfa = cfa, .read = read_word, .memory = walk->sample};
	size_t n;
	const Dwarf_Op *operations = dp_cfi_expression(walk->unwinder->cfi, i, &n);

	return dp_expression_evaluate(&context, operations, n, ret);
}

/* The caller's register @i. A register that is not kept is given as 0. */
static int restore(const struct walk *walk, const struct dp_cfi_rule *rule, size_t i, uint64_t cfa,
		   uint64_t *ret)
{
	uint64_t at;
	int r;

	switch ((enum dp_cfi_where)rule->where[i]) {
	case DP_CFI_UNDEFINED:
		*ret = 0;
		return 0;
	case DP_CFI_SAME:
		*ret = walk->regs[i];
		return 0;
	case DP_CFI_IS_CFA:
		*ret = cfa + (uint64_t)rule->offset[i];
		return 0;
	case DP_CFI_AT_CFA:
		at = cfa + (uint64_t)rule->offset[i];
		return read_word(walk->sample, at, ret) ? 0 : -ENODATA;
	case DP_CFI_IS_EXPRESSION:
		return evaluate(walk, rule->offset[i], cfa, ret);
	case DP_CFI_AT_EXPRESSION:
		r = evaluate(walk, rule->offset[i], cfa, &at);
		if (r < 0)
			return r;
		return read_word(walk->sample, at, ret) ? 0 : -ENODATA;
	}
	return -ENOEXEC;
}

/*
 * Goes on to the caller by @rule. Returns 0, or 1 with the reason in *@ret_end.
 */
static int step_by_rule(struct walk *walk, const struct dp_cfi_rule *rule,
			enum dp_unwind_end *ret_end)
{
	uint64_t caller[DP_UNWIND_REGS] = {0};
	uint64_t cfa = 0;
	int r = 0;

	if (rule->where[REG_PC] == DP_CFI_UNDEFINED) {
		*ret_end = DP_UNWIND_OUTERMOST;
		return 1;
	}
	if (rule->cfa_is_expression)
		r = evaluate(walk, rule->cfa_offset, 0, &cfa);
	else
		cfa = walk->regs[rule->cfa_register] + (uint64_t)rule->cfa_offset;
	for (size_t i = 0; r == 0 && i < DP_UNWIND_REGS; i++)
		r = restore(walk, rule, i, cfa, &caller[i]);
	if (r < 0) {
		*ret_end = end_of(r);
		return 1;
	}
	/* The CFA is by definition the caller's stack pointer, but where the rule says otherwise.
	 */
	if (rule->where[REG_SP] == DP_CFI_UNDEFINED || rule->where[REG_SP] == DP_CFI_SAME)
		caller[REG_SP] = cfa;
	/* A signal may have come on a stack of its own: below or above, as it likes. */
	if (!rule->is_signal && caller[REG_SP] <= walk->regs[REG_SP]) {
		*ret_end = DP_UNWIND_BROKEN;
		return 1;
	}
	memcpy(walk->regs, caller, sizeof(caller));
	walk->is_call = !rule->is_signal;
	return 0;
}

/* Goes on to the caller by the frame pointer, if it looks like one. Returns whether it did. */
static bool step_by_frame_pointer(struct walk *walk)
{
	uint64_t bp = walk->regs[REG_BP];
	uint64_t next_bp, pc;

	if (bp < walk->regs[REG_SP] || bp % sizeof(uint64_t) != 0 ||
	    !read_word(walk->sample, bp, &next_bp) || !read_word(walk->sample, bp + 8, &pc) ||
	    !(dp_space_holds(walk->space, pc - 1) || dp_is_return_trampoline(pc)))
		return false;
	walk->regs[REG_BP] = next_bp;
	walk->regs[REG_SP] = bp + 16;
	walk->regs[REG_PC] = pc;
	walk->is_call = true;
	walk->unwinder->stats.n_fp_steps++;
	return true;
}

/* Puts back what a pending return probe has replaced. */
static void resolve_trampoline(struct walk *walk)
{
	const struct dp_unwind_sample *sample = walk->sample;
	uint64_t address;

	if (!sample->pending || !dp_is_return_trampoline(walk->regs[REG_PC]))
		return;
	address = sample->pending(sample->context, walk->regs[REG_SP] - sizeof(uint64_t));
	if (address == 0)
		return;
	walk->regs[REG_PC] = address;
	walk->unwinder->stats.n_trampolines++;
}

/*
 * Goes on to the caller of the function at @frame. Returns 0; 1 with the reason in *@ret_end;
 * -ENOMEM.
 */
static int step(struct walk *walk, uint64_t frame, enum dp_unwind_end *ret_end)
{
	const struct dp_cfi_rule *rule;
	uint64_t lookup;
	int r = dp_cfi_find(walk->unwinder->cfi, frame, &rule);

	if (r == -ENOMEM)
		return r;
	if (r == 0) {
		r = step_by_rule(walk, rule, ret_end);
		if (r != 0)
			return r;
	} else if (!step_by_frame_pointer(walk)) {
		*ret_end = DP_UNWIND_NO_CFI;
		return 1;
	}
	if (walk->regs[REG_PC] == 0) {
		*ret_end = DP_UNWIND_OUTERMOST;
		return 1;
	}
	resolve_trampoline(walk);
	lookup = walk->regs[REG_PC] - walk->is_call;
	/* Among others another tool's trampoline. */
	if (!dp_space_holds(walk->space, lookup)) {
		*ret_end = DP_UNWIND_BROKEN;
		return 1;
	}
	return 0;
}

ptrdiff_t dp_unwind(struct dp_unwinder *unwinder, const struct dp_space *space,
		    const struct dp_unwind_sample *sample, uint64_t *ret_frames, size_t max_frames,
		    enum dp_unwind_end *ret_end)
{
	struct walk walk = {.unwinder = unwinder,
			    .space = space,
			    .sample = sample,
			    .is_call = sample->leaf_is_call};
	enum dp_unwind_end end = DP_UNWIND_LIMIT;
	size_t n = 0;
	int r = 0;

	memcpy(walk.regs, sample->regs, sizeof(walk.regs));
	while (r == 0 && n < max_frames) {
		ret_frames[n] = dp_space_frame(space, walk.regs[REG_PC] - walk.is_call);
		r = step(&walk, ret_frames[n++], &end);
	}
	if (r < 0)
		return r;
	unwinder->stats.n_stacks++;
	unwinder->stats.n_ends[end]++;
	*ret_end = end;
	return (ptrdiff_t)n;
}

void dp_unwinder_get_stats(const struct dp_unwinder *unwinder, struct dp_unwind_stats *ret)
{
	*ret = unwinder->stats;
	ret->n_no_room = dp_cfi_no_room(unwinder->cfi);
}
