/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: the function table survives every strip, and in a few small functions of the
 * runtime the only variable of a width is the one that is looked for. Those functions have not
 * changed that from Go 1.16 to 1.27, whatever else did in them.
 */
#include "src/go_code.h"

#include <string.h>

#include "perf/operands.h"
#include "src/go_memory.h"

#define MAX_CODE_BYTES (16u << 10)
#define MAX_OPERANDS 256

struct code {
	struct dp_operand operands[MAX_OPERANDS];
	size_t n;
	uint8_t bytes[MAX_CODE_BYTES];
};

/* Reads the first function of @names (NULL-terminated) that there is; none: no operands. */
static void read_code(const struct dp_go_runtime *runtime, const struct dp_go_table *table,
		      const char *const *names, struct code *ret)
{
	struct dp_go_function function;
	size_t n_bytes;

	ret->n = 0;
	for (; *names; names++) {
		if (!dp_go_table_find(table, *names, &function))
			continue;
		n_bytes = function.end - function.entry;
		if (n_bytes > MAX_CODE_BYTES)
			n_bytes = MAX_CODE_BYTES;
		if (dp_go_memory_read(runtime->pid, function.entry + runtime->bias, ret->bytes,
				      n_bytes) < 0)
			continue;
		ret->n = dp_arch_operands(ret->bytes, n_bytes, function.entry + runtime->bias,
					  ret->operands, MAX_OPERANDS);
		return;
	}
}

#define READ_CODE(...) read_code(runtime, table, (const char *const[]){__VA_ARGS__, NULL}, &code)

/* The @i-th different address (from 0) that is loaded with @bits; 0: there is none. */
static uint64_t loaded(const struct code *code, unsigned bits, unsigned i)
{
	uint64_t seen = 0;

	for (size_t at = 0; at < code->n; at++) {
		const struct dp_operand *o = &code->operands[at];

		if (o->kind != DP_OPERAND_LOAD || o->bits != bits || o->address == seen)
			continue;
		if (i == 0)
			return o->address;
		seen = o->address;
		i--;
	}
	return 0;
}

/* The first address that is taken twice: a lock is locked and unlocked. */
static uint64_t taken_twice(const struct code *code)
{
	for (size_t i = 0; i < code->n; i++) {
		if (code->operands[i].kind != DP_OPERAND_ADDRESS)
			continue;
		for (size_t k = i + 1; k < code->n; k++) {
			if (code->operands[k].kind == DP_OPERAND_ADDRESS &&
			    code->operands[k].address == code->operands[i].address)
				return code->operands[i].address;
		}
	}
	return 0;
}

/*
 * Mutex's and block's heads come after the heap's in the same chain of ifs: loaded, or their
 * addresses taken since they are atomic (Go 1.19).
 */
static void find_heads(const struct code *code, const struct dp_go_layout *layout,
		       struct dp_go_variables *ret)
{
	enum dp_operand_kind kind = layout->minor >= 19 ? DP_OPERAND_ADDRESS : DP_OPERAND_LOAD;
	static const enum dp_go_list order[] = {DP_GO_MUTEX, DP_GO_BLOCK};
	size_t n_found = 0;
	bool is_after = false;

	for (size_t i = 0; i < code->n && n_found < 2; i++) {
		const struct dp_operand *o = &code->operands[i];

		if (o->kind != kind || o->bits != 64)
			continue;
		if (is_after)
			ret->buckets[order[n_found++]] = o->address;
		else
			is_after = o->address == ret->buckets[DP_GO_HEAP];
	}
}

/* A test of disableMemoryProfiling comes before MemProfileRate is set. */
static uint64_t tested_before_store(const struct code *code, uint64_t stored)
{
	uint64_t tested = 0;

	for (size_t i = 0; i < code->n; i++) {
		const struct dp_operand *o = &code->operands[i];

		if (o->kind == DP_OPERAND_STORE && o->address == stored)
			return tested;
		if (o->kind == DP_OPERAND_LOAD && o->bits == 8)
			tested = o->address;
	}
	return 0;
}

void dp_go_code_find(struct dp_go_runtime *runtime, const struct dp_go_table *table)
{
	struct dp_go_variables *v = &runtime->variables;
	uint64_t value;
	struct code code;

	READ_CODE("runtime.mProf_FlushLocked");
	v->buckets[DP_GO_HEAP] = loaded(&code, 64, 0);
	READ_CODE("runtime.stkbucket");
	find_heads(&code, &runtime->layout, v);
	/* The first is only there when something calls runtime.GC(). */
	READ_CODE("runtime.mProf_PostSweep", "runtime.mProf_Flush");
	v->heap_cycle = loaded(&code, 32, 0);
	v->heap_lock = taken_twice(&code);
	READ_CODE("runtime.saveBlockEventStack", "runtime.saveblockevent");
	v->events_lock = taken_twice(&code);
	READ_CODE("runtime.profilealloc");
	/* The first is mcache0, since Go 1.17. */
	v->heap_rate = loaded(&code, 64, runtime->layout.minor >= 17);
	READ_CODE("runtime.blockevent");
	v->block_rate = loaded(&code, 64, 0);
	READ_CODE("runtime.mutexevent", "sync.event");
	v->mutex_fraction = loaded(&code, 64, 0);
	READ_CODE("runtime.schedinit");
	v->heap_disabled = tested_before_store(&code, v->heap_rate);
	if (v->heap_disabled == 0) {
		READ_CODE("runtime.init"); /* up to Go 1.20 */
		v->heap_disabled = tested_before_store(&code, v->heap_rate);
	}
	READ_CODE("runtime.ticksPerSecond", "runtime.tickspersecond");
	value = loaded(&code, 64, 0);
	v->ticks = value > runtime->layout.ticks_value ? value - runtime->layout.ticks_value : 0;
	if (v->ticks == 0) {
		READ_CODE("runtime.(*ticksType).init");
		v->ticks = taken_twice(&code);
	}
}
