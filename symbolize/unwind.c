/* SPDX-License-Identifier: MIT */
#include "symbolize/unwind.h"

#include <errno.h>
#include <stdlib.h>

#include "src/base/frame.h"
#include "src/base/trampoline.h"
#include "symbolize/calls.h"
#include "symbolize/cfi.h"
#include "symbolize/chain.h"
#include "symbolize/expression.h"
#include "symbolize/module_registry.h"

/*
 * The one hard idea: a stack that ends early is worth more than one with a frame that was never
 * there. So nothing is guessed: a word beyond the copy, a register that no one saved and an address
 * that is no code all end it, and each says why.
 */

#define WORD sizeof(uint64_t)

struct dp_unwinder {
	struct dp_modules *modules;
	struct dp_cfi *cfi;
	struct dp_chain_ends ends;
	struct dp_calls calls;
	struct dp_unwind_stats stats;
};

/* One stack as it is being unwound: the registers of the frame that was reached. */
struct walk {
	struct dp_unwinder *unwinder;
	const struct dp_space *space;
	const struct dp_unwind_sample *sample;
	struct dp_registers regs;
	bool is_leaf;
	bool is_call; /* the pc is a return address */
	uint64_t frame;
	uint32_t n_fp_steps;
};

/* What a step ends in: another frame, an end (enum dp_unwind_end), or -ENOMEM. */
#define GO_ON (DP_UNWIND_BROKEN + 1)

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
	unwinder->modules = modules;
	*ret = unwinder;
	return 0;
}

void dp_unwinder_free(struct dp_unwinder *unwinder)
{
	if (!unwinder)
		return;
	dp_cfi_free(unwinder->cfi);
	dp_chain_ends_clear(&unwinder->ends);
	dp_calls_clear(&unwinder->calls);
	free(unwinder);
}

static uint32_t bit(unsigned int i)
{
	return UINT32_C(1) << i;
}

static uint64_t stack_pointer(const struct walk *walk)
{
	return walk->regs.value[DP_UNWIND_REG_SP];
}

static bool read_word(const struct walk *walk, uint64_t avma, uint64_t *ret)
{
	return dp_stack_read(walk->sample, avma, WORD, ret);
}

/*
 * Whether @cfa can be where the frame begins: above the stack pointer, for a call has pushed
 * something. The leaf may have taken its return address off the stack already (vfork() does).
 */
static bool is_above(const struct walk *walk, uint64_t cfa)
{
	return cfa > stack_pointer(walk) || (walk->is_leaf && cfa == stack_pointer(walk));
}

/*
 * Whether the register that is saved at @avma has been taken off the stack again: in a function's
 * epilogue, where compilers do not say so, and then the register holds it.
 */
static bool was_popped(const struct walk *walk, uint64_t avma)
{
	return avma < stack_pointer(walk);
}

static int step_usual(struct walk *walk, uint64_t rule)
{
	const uint32_t kept = bit(DP_UNWIND_REG_SP) | bit(DP_UNWIND_REG_PC);
	unsigned int cfa_register = dp_cfi_usual_register(rule);
	struct dp_registers *regs = &walk->regs;
	uint32_t known = kept;
	uint64_t cfa;

	if (!dp_registers_know(regs, cfa_register))
		return DP_UNWIND_BROKEN;
	cfa = regs->value[cfa_register] + dp_cfi_usual_offset(rule);
	if (!is_above(walk, cfa))
		return DP_UNWIND_BROKEN;
	if (!read_word(walk, cfa - WORD, &regs->value[DP_UNWIND_REG_PC]))
		return DP_UNWIND_STACK_CUT;
	for (unsigned int i = 0; i < DP_CFI_N_SAVED_REGS; i++) {
		unsigned int reg = dp_cfi_saved_regs[i];
		uint64_t below = dp_cfi_usual_saved(rule, i);

		if (below == 0 || was_popped(walk, cfa - below)) {
			known |= regs->known & bit(reg);
			continue;
		}
		if (!read_word(walk, cfa - below, &regs->value[reg]))
			return DP_UNWIND_STACK_CUT;
		known |= bit(reg);
	}
	regs->value[DP_UNWIND_REG_SP] = cfa;
	regs->known = known;
	walk->is_call = true;
	return GO_ON;
}

static int end_of(int code)
{
	return code == -ENODATA ? DP_UNWIND_STACK_CUT : DP_UNWIND_BROKEN;
}

static int evaluate(const struct walk *walk, int32_t i, const uint64_t *cfa, uint64_t *ret)
{
	const struct dp_expression_context context = {
		.sample = walk->sample, .registers = &walk->regs, .cfa = cfa};
	size_t n;
	const Dwarf_Op *operations = dp_cfi_expression(walk->unwinder->cfi, i, &n);

	return dp_expression_evaluate(&context, operations, n, ret);
}

/* The caller's register @i. Returns 1 (known), 0 (not known), or as dp_expression_evaluate() fails.
 */
static int restore(const struct walk *walk, const struct dp_cfi_other *rule, size_t i, uint64_t cfa,
		   uint64_t *ret)
{
	int32_t offset = rule->offset[i];
	uint64_t at = cfa + (uint64_t)(int64_t)offset;
	int r = 0;

	switch ((enum dp_cfi_where)rule->where[i]) {
	case DP_CFI_UNKNOWN:
		return 0;
	case DP_CFI_SAME:
	case DP_CFI_IN_REGISTER:
		if (rule->where[i] == DP_CFI_SAME)
			offset = (int32_t)i;
		*ret = walk->regs.value[offset];
		return dp_registers_know(&walk->regs, (uint64_t)offset);
	case DP_CFI_IS_CFA:
		*ret = at;
		return 1;
	case DP_CFI_IS_EXPRESSION:
		r = evaluate(walk, offset, &cfa, ret);
		return r < 0 ? r : 1;
	case DP_CFI_AT_EXPRESSION:
		r = evaluate(walk, offset, &cfa, &at);
		break;
	case DP_CFI_AT_CFA:
		if (!was_popped(walk, at))
			break;
		*ret = walk->regs.value[i];
		return dp_registers_know(&walk->regs, i);
	}
	if (r < 0)
		return r;
	return read_word(walk, at, ret) ? 1 : -ENODATA;
}

static int find_cfa(const struct walk *walk, const struct dp_cfi_other *rule, uint64_t *ret)
{
	if (rule->cfa_is_expression)
		return evaluate(walk, rule->cfa_offset, NULL, ret);
	if (!dp_registers_know(&walk->regs, rule->cfa_register))
		return -ENOEXEC;
	*ret = walk->regs.value[rule->cfa_register] + (uint64_t)(int64_t)rule->cfa_offset;
	return 0;
}

/*
 * Whether the caller's stack pointer @sp is a step outwards. A signal handler may have run on a
 * stack of its own, and the interrupted one lie anywhere but within the copy below it.
 */
static bool is_outwards(const struct walk *walk, const struct dp_cfi_other *rule, uint64_t sp)
{
	uint64_t start = walk->sample->regs[DP_UNWIND_REG_SP];

	return is_above(walk, sp) || (rule->is_signal && sp - start >= walk->sample->stack_bytes);
}

static int step_other(struct walk *walk, const struct dp_cfi_other *rule)
{
	struct dp_registers caller = {.known = 0};
	uint64_t cfa, *sp = &caller.value[DP_UNWIND_REG_SP];
	int r = find_cfa(walk, rule, &cfa);

	if (r < 0)
		return end_of(r);
	for (unsigned int i = 0; i < DP_UNWIND_REGS; i++) {
		r = restore(walk, rule, i, cfa, &caller.value[i]);
		if (r < 0)
			return end_of(r);
		caller.known |= r ? bit(i) : 0;
	}
	/* The CFA is by definition the caller's stack pointer, where the rule does not say else. */
	if (!dp_registers_know(&caller, DP_UNWIND_REG_SP) ||
	    rule->where[DP_UNWIND_REG_SP] == DP_CFI_SAME)
		*sp = cfa;
	caller.known |= bit(DP_UNWIND_REG_SP);
	if (!dp_registers_know(&caller, DP_UNWIND_REG_PC) || !is_outwards(walk, rule, *sp))
		return DP_UNWIND_BROKEN;
	if (rule->is_signal)
		walk->frame = dp_space_frame(walk->space, walk->regs.value[DP_UNWIND_REG_PC]);
	walk->regs = caller;
	walk->is_call = !rule->is_signal;
	return GO_ON;
}

/* Goes by the frame pointer, if it looks like one: the last resort. */
static int step_by_frame_pointer(struct walk *walk)
{
	struct dp_registers *regs = &walk->regs;
	uint64_t bp = regs->value[DP_UNWIND_REG_BP], pc, caller_bp;

	if (!dp_registers_know(regs, DP_UNWIND_REG_BP) || bp < stack_pointer(walk) ||
	    bp % WORD != 0 || !read_word(walk, bp, &caller_bp))
		return DP_UNWIND_NO_CFI;
	if (!read_word(walk, bp + WORD, &pc))
		return DP_UNWIND_STACK_CUT;
	if (!dp_is_return_trampoline(pc) &&
	    (!dp_space_holds(walk->space, pc - 1) ||
	     !dp_calls_stand_before(&walk->unwinder->calls, walk->unwinder->modules,
				    dp_space_frame(walk->space, pc - 1))))
		return DP_UNWIND_NO_CFI;
	regs->value[DP_UNWIND_REG_BP] = caller_bp;
	regs->value[DP_UNWIND_REG_SP] = bp + 2 * WORD;
	regs->value[DP_UNWIND_REG_PC] = pc;
	regs->known = bit(DP_UNWIND_REG_BP) | bit(DP_UNWIND_REG_SP) | bit(DP_UNWIND_REG_PC);
	walk->is_call = true;
	walk->n_fp_steps++;
	return GO_ON;
}

/* Leaves a function that has done nothing to its stack yet. */
static int step_from_entry(struct walk *walk)
{
	struct dp_registers *regs = &walk->regs;

	if (!read_word(walk, stack_pointer(walk), &regs->value[DP_UNWIND_REG_PC]))
		return DP_UNWIND_STACK_CUT;
	regs->value[DP_UNWIND_REG_SP] += WORD;
	walk->is_call = true;
	return GO_ON;
}

/* Whether what is returned to is the very beginning of a function that nothing calls: where
 * makecontext() lets a coroutine's function return to. */
static bool starts_the_stack(const struct walk *walk)
{
	uint64_t rule;

	return walk->is_call && dp_frame_module(walk->frame) != 0 &&
	       dp_cfi_find(walk->unwinder->cfi, walk->frame + 1, &rule) == 0 &&
	       dp_cfi_shape(rule) == DP_CFI_OUTERMOST;
}

static int step_by_rule(struct walk *walk)
{
	struct dp_cfi *cfi = walk->unwinder->cfi;
	uint64_t rule = DP_CFI_NO_RULE;

	if (walk->is_leaf && walk->sample->at_entry)
		return step_from_entry(walk);
	if (dp_frame_module(walk->frame) != 0 && dp_cfi_find(cfi, walk->frame, &rule) < 0)
		return -ENOMEM;
	switch (dp_cfi_shape(rule)) {
	case DP_CFI_USUAL:
		return step_usual(walk, rule);
	case DP_CFI_OTHER:
		return step_other(walk, dp_cfi_other(cfi, rule));
	case DP_CFI_OUTERMOST:
		return DP_UNWIND_OUTERMOST;
	case DP_CFI_NO_RULE:
		break;
	}
	if (starts_the_stack(walk))
		return DP_UNWIND_OUTERMOST;
	return step_by_frame_pointer(walk);
}

/* Puts back what a pending return probe has replaced. Returns whether it is known. */
static bool see_through(struct walk *walk)
{
	const struct dp_unwind_sample *sample = walk->sample;
	uint64_t address = 0;

	if (sample->pending)
		address = sample->pending(sample->context, stack_pointer(walk) - WORD);
	if (address == 0)
		return false;
	walk->regs.value[DP_UNWIND_REG_PC] = address;
	walk->unwinder->stats.n_trampolines++;
	return true;
}

/* Goes on to the caller. *@ret_frame: the frame that is left, corrected if it turns out to be a
 * trampoline's. */
static int step(struct walk *walk, uint64_t *ret_frame)
{
	int r = step_by_rule(walk);
	uint64_t lookup;

	*ret_frame = walk->frame;
	if (r != GO_ON)
		return r;
	if (walk->regs.value[DP_UNWIND_REG_PC] == 0)
		return DP_UNWIND_OUTERMOST;
	if (dp_is_return_trampoline(walk->regs.value[DP_UNWIND_REG_PC]) && !see_through(walk))
		return DP_UNWIND_BROKEN;
	lookup = walk->regs.value[DP_UNWIND_REG_PC] - walk->is_call;
	walk->frame = dp_space_frame(walk->space, lookup);
	if (dp_frame_module(walk->frame) == 0 && !dp_space_holds(walk->space, lookup))
		return DP_UNWIND_BROKEN;
	walk->is_leaf = false;
	return GO_ON;
}

/*
 * Goes on beyond the copy, whose last frame had the frame pointer @bp. Returns how many frames were
 * added, or -ENOMEM.
 */
static ptrdiff_t go_on_by_chain(const struct walk *walk, uint64_t bp, uint64_t *ret_frames,
				size_t max_frames, enum dp_unwind_end *ret_end)
{
	const struct dp_chain chain = {.space = walk->space,
				       .cfi = walk->unwinder->cfi,
				       .ends = &walk->unwinder->ends,
				       .sample = walk->sample};

	return dp_chain_go_on(&chain, walk->frame, bp, ret_frames, max_frames, ret_end);
}

void dp_unwind_count(struct dp_unwind_counts *counts, const struct dp_unwind_result *result)
{
	counts->n_stacks++;
	counts->n_ends[result->end]++;
	counts->n_fp_steps += result->n_fp_steps;
	counts->n_chain_steps += result->n_chain_steps;
}

ptrdiff_t dp_unwind(struct dp_unwinder *unwinder, const struct dp_space *space,
		    const struct dp_unwind_sample *sample, uint64_t *ret_frames, size_t max_frames,
		    struct dp_unwind_result *ret)
{
	struct walk walk = {
		.unwinder = unwinder,
		.space = space,
		.sample = sample,
		.regs = {.known = bit(DP_UNWIND_REGS) - 1},
		.is_leaf = true,
		.is_call = sample->leaf_is_call,
	};
	struct dp_unwind_result result = {.end = DP_UNWIND_LIMIT};
	uint64_t bp = 0;
	ptrdiff_t n_more;
	size_t n = 0;
	int r = GO_ON;

	for (size_t i = 0; i < DP_UNWIND_REGS; i++)
		walk.regs.value[i] = sample->regs[i];
	walk.frame = dp_space_frame(space, sample->regs[DP_UNWIND_REG_PC] - walk.is_call);
	while (r == GO_ON && n < max_frames) {
		bp = dp_registers_know(&walk.regs, DP_UNWIND_REG_BP)
			     ? walk.regs.value[DP_UNWIND_REG_BP]
			     : 0;
		r = step(&walk, &ret_frames[n++]);
	}
	if (r < 0)
		return r;
	if (r != GO_ON)
		result.end = (enum dp_unwind_end)r;
	if (result.end == DP_UNWIND_STACK_CUT && sample->callchain) {
		n_more = go_on_by_chain(&walk, bp, ret_frames + n, max_frames - n, &result.end);
		if (n_more < 0)
			return n_more;
		n += (size_t)n_more;
		result.n_chain_steps = (uint32_t)n_more;
	}
	result.n_fp_steps = walk.n_fp_steps;
	result.n_bytes = stack_pointer(&walk) - sample->regs[DP_UNWIND_REG_SP];
	if (sample->callchain && result.end == DP_UNWIND_OUTERMOST && result.n_fp_steps == 0 &&
	    result.n_chain_steps == 0)
		dp_chain_learn(&unwinder->ends, ret_frames, n);
	dp_unwind_count(&unwinder->stats.counts, &result);
	*ret = result;
	return (ptrdiff_t)n;
}

int dp_unwinder_prepare(struct dp_unwinder *unwinder)
{
	uint32_t n = dp_modules_count(unwinder->modules);
	int r = 0;

	for (uint32_t id = 1; r == 0 && id <= n; id++)
		r = dp_cfi_load(unwinder->cfi, id);
	return r;
}

#define N_PLACES 256

int dp_unwinder_keeps_frame_pointers(struct dp_unwinder *unwinder, uint32_t id)
{
	const struct dp_elf_image *image = dp_module_image(unwinder->modules, id);
	size_t n_with_rule = 0, n_kept = 0;
	uint64_t rule;

	for (size_t i = 0; image && i < image->n_segments; i++) {
		const struct dp_elf_segment *segment = &image->segments[i];
		uint64_t apart = segment->n_bytes / N_PLACES + 1;

		for (uint64_t at = 0; at < segment->n_bytes; at += apart) {
			if (dp_cfi_find(unwinder->cfi, dp_frame_make(id, segment->file_off + at),
					&rule) < 0)
				return -ENOMEM;
			n_with_rule += dp_cfi_shape(rule) != DP_CFI_NO_RULE;
			n_kept += dp_cfi_keeps_frame_pointer(rule);
		}
	}
	return n_kept * 2 > n_with_rule;
}

void dp_unwinder_get_stats(const struct dp_unwinder *unwinder, struct dp_unwind_stats *ret)
{
	struct dp_cfi_stats cfi;

	dp_cfi_get_stats(unwinder->cfi, &cfi);
	*ret = unwinder->stats;
	ret->n_no_room = cfi.n_flushes;
	ret->n_files_no_room = cfi.n_files_no_room;
	ret->n_cfi_bad = cfi.n_entries_bad;
}
