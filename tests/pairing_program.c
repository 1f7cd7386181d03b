/* SPDX-License-Identifier: MIT */
#include "tests/pairing_program.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

uint64_t program_below(struct program *p, uint64_t n)
{
	return dp_random_u64(&p->random) % n;
}

static uint32_t intern(void *context, const struct dp_event *event)
{
	uint64_t site = event->entry.stack0 - CODE;

	(void)context;
	return site < N_SITES ? (uint32_t)site : N_SITES;
}

static bool is_of_program(uint64_t return_address)
{
	return return_address >= CODE && return_address < CODE + N_SITES;
}

/*
 * A call that the program itself makes is entered, and it is to be counted there, unless that it
 * returns nothing can be seen already. Where no return is trapped, a jump leaves the return
 * address.
 */
static void enter(struct program *p, struct thread *t, struct step *step)
{
	uint64_t size = dp_alloc_size(step->function, step->event.entry.args);
	bool frees = step->function->kind == DP_ALLOC_RESIZE && size == 0 &&
		     step->event.entry.args[step->function->i_pointer];
	int64_t *entered;

	if (step->event.entry.stack0 == INNER_CODE)
		return;
	if (!is_of_program(step->event.entry.stack0)) {
		step->event.entry.stack0 = t->return_address;
		return;
	}
	t->return_address = step->event.entry.stack0;
	entered = p->truth.entered[t->return_address - CODE];
	if (size != UINT64_MAX && !frees) {
		entered[0]++;
		entered[1] += (int64_t)size;
	}
}

static void deliver(struct program *p, struct thread *t, struct step *step)
{
	if (p->entries_only && step->event.type != DP_EVENT_ALLOC_ENTRY)
		return;
	if (p->entries_only)
		enter(p, t, step);
	if (program_below(p, 100) < p->drop_percent)
		return;
	switch (step->event.type) {
	case DP_EVENT_ALLOC_ENTRY:
		assert_int_equal(dp_pairing_entry(p->pairing, &step->event, step->function), 0);
		return;
	case DP_EVENT_ALLOC_RETURN:
		assert_int_equal(dp_pairing_return(p->pairing, &step->event, step->function,
						   step->dx_is_object),
				 0);
		return;
	default:
		dp_pairing_free_call(p->pairing, &step->event, step->function);
	}
}

static uint64_t take_addr(struct program *p)
{
	uint64_t addr;
	size_t i;

	if (p->n_free_addrs == 0 || program_below(p, 8) == 0)
		return UINT64_C(0x10000000) + 4096 * p->n_addrs++;
	i = program_below(p, p->n_free_addrs);
	addr = p->free_addrs[i];
	p->free_addrs[i] = p->free_addrs[--p->n_free_addrs];
	return addr;
}

static void count(struct program *p, const struct object *object)
{
	int64_t *values = p->truth.values[object->site];

	assert_true(p->n_objects < MAX_OBJECTS);
	p->objects[p->n_objects++] = *object;
	p->truth.n_calls++;
	values[0]++;
	values[1] += (int64_t)object->size;
	if (object->tracked) {
		values[2]++;
		values[3] += (int64_t)object->size;
	}
}

static void end_object(struct program *p, const struct object *object)
{
	int64_t *values = p->truth.values[object->site];

	if (object->tracked) {
		values[2]--;
		values[3] -= (int64_t)object->size;
	}
}

static void run_step(struct program *p, struct thread *t, struct step *step)
{
	switch (step->kind) {
	case STEP_RETURN:
		if (step->returns_object)
			step->event.ret.retval = t->addr + step->offset;
		if (step->dx_is_object)
			step->event.ret.dx = t->addr;
		deliver(p, t, step);
		return;
	case STEP_ENTRY:
	case STEP_FREE:
		deliver(p, t, step);
		return;
	case STEP_TAKE:
		t->addr = take_addr(p);
		return;
	case STEP_GIVE:
		assert_true(p->n_free_addrs < MAX_ADDRS);
		p->free_addrs[p->n_free_addrs++] = step->object.base_addr;
		return;
	case STEP_COUNT:
		step->object.base_addr = t->addr;
		step->object.addr = t->addr + step->offset;
		count(p, &step->object);
		return;
	case STEP_ENDED:
		end_object(p, &step->object);
		return;
	case STEP_RESIZED:
		end_object(p, &step->object);
		step->object.site = step->site;
		step->object.size = step->size;
		step->object.tracked = true;
		count(p, &step->object);
		return;
	case STEP_ALIVE:
		p->objects[p->n_objects++] = step->object;
		return;
	case STEP_EXIT:
		dp_pairing_thread_exit(p->pairing, t->tid);
		t->tid = p->next_tid++;
		return;
	}
}

static bool is_idle(const struct thread *t)
{
	return t->next_step == t->n_steps;
}

void program_run(struct program *p, size_t n_calls)
{
	size_t n_idle = 0;

	while (n_calls > 0 || n_idle < N_THREADS) {
		struct thread *t = &p->threads[program_below(p, N_THREADS)];

		if (is_idle(t) && n_calls > 0) {
			program_write_script(p, t);
			n_calls--;
		} else if (!is_idle(t)) {
			run_step(p, t, &t->steps[t->next_step++]);
		}
		n_idle = 0;
		for (size_t i = 0; i < N_THREADS; i++)
			n_idle += is_idle(&p->threads[i]);
	}
}

void program_return_to_the_top(struct program *p)
{
	for (size_t i = 0; i < N_THREADS; i++)
		program_write_call_at_the_top(p, &p->threads[i]);
	program_run(p, 0);
}

void program_open(struct program *p, uint64_t seed)
{
	const struct dp_heap_options options = {.rate_bytes = 1, .max_live = 100000};

	memset(p, 0, sizeof(*p));
	dp_random_seed(&p->random, seed);
	assert_int_equal(dp_heap_new(&p->heap, &options), 0);
	assert_int_equal(dp_pairing_new(&p->pairing, p->heap, 16, intern, NULL), 0);
	for (size_t i = 0; i < N_THREADS; i++) {
		p->threads[i].tid = p->next_tid++;
		p->threads[i].stack_top = UINT64_C(0x7f5000000000) + (i << 20);
	}
}

static bool is_inside(void *context, uint64_t avma)
{
	(void)context;
	return avma == INNER_CODE - 1;
}

void program_deliver_entries_only(struct program *p)
{
	p->entries_only = true;
	dp_pairing_without_returns(p->pairing, is_inside, p);
}

void program_close(struct program *p)
{
	dp_pairing_free(p->pairing);
	dp_heap_free_all(p->heap);
}
