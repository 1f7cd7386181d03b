/* SPDX-License-Identifier: MIT */
#include "tests/pairing_program.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

/* What one call does, step by step. */

#define TRAMPOLINE UINT64_C(0x7fffffffe000)

static const struct dp_alloc_function *function(const char *name)
{
	size_t n;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(functions[i].name, name) == 0)
			return &functions[i];
	}
	fail_msg("%s is not in the table", name);
	return NULL;
}

/* Where one call happens: its probes' library, stack pointer and return address. */
struct place {
	uint64_t library;
	uint64_t sp;
	uint64_t stack0;
};

static struct step *add_step(struct thread *t, enum step_kind kind)
{
	struct step *step = &t->steps[t->n_steps++];

	assert_true(t->n_steps <= MAX_STEPS);
	memset(step, 0, sizeof(*step));
	step->kind = kind;
	step->event.tid = t->tid;
	return step;
}

static uint64_t probe_of(struct place place, const struct dp_alloc_function *f)
{
	size_t n;

	return place.library + 64 * (uint64_t)(f - dp_alloc_functions(&n));
}

static void add_entry(struct thread *t, struct place place, const char *name, uint64_t a0,
		      uint64_t a1, uint64_t a2)
{
	struct step *step = add_step(t, STEP_ENTRY);

	step->function = function(name);
	step->event.type = DP_EVENT_ALLOC_ENTRY;
	step->event.entry.probe_avma = probe_of(place, step->function);
	step->event.entry.sp = place.sp;
	step->event.entry.stack0 = place.stack0;
	step->event.entry.args[0] = a0;
	step->event.entry.args[1] = a1;
	step->event.entry.args[2] = a2;
}

static struct step *add_return(struct thread *t, struct place place, const char *name)
{
	struct step *step = add_step(t, STEP_RETURN);

	step->function = function(name);
	step->event.type = DP_EVENT_ALLOC_RETURN;
	step->event.ret.probe_avma = probe_of(place, step->function);
	step->event.ret.sp = place.sp + 8;
	return step;
}

static void add_return_of_object(struct thread *t, struct place place, const char *name,
				 uint64_t offset)
{
	struct step *step = add_return(t, place, name);

	step->returns_object = true;
	step->offset = offset;
}

static void add_free(struct thread *t, uint64_t addr)
{
	struct step *step = add_step(t, STEP_FREE);

	step->function = function("free");
	step->event.type = DP_EVENT_FREE;
	step->event.entry.args[0] = addr;
}

static void add_give(struct thread *t, const struct object *old)
{
	add_step(t, STEP_GIVE)->object = *old;
}

static void add_old(struct thread *t, enum step_kind kind, const struct object *old)
{
	add_step(t, kind)->object = *old;
}

static void add_count(struct thread *t, uint32_t site, uint64_t size, uint64_t offset, bool tracked)
{
	struct step *step = add_step(t, STEP_COUNT);

	step->object = (struct object){.site = site, .size = size, .tracked = tracked};
	step->offset = offset;
}

/* A random place in the program that calls functions of kind @kind, and its site. */
static struct place pick_place(struct program *p, struct thread *t, enum site kind,
			       uint32_t *ret_site)
{
	uint64_t depth = t->jumped_out ? 0 : program_below(p, 8);

	t->jumped_out = false;
	*ret_site = p->first_site + kind * 3 + (uint32_t)program_below(p, 3);
	return (struct place){0x7f1000000000, t->stack_top - 256 * depth, CODE + *ret_site};
}

static struct place inside(struct place place, uint64_t library)
{
	return (struct place){library, place.sp - 64, INNER_CODE};
}

static struct place jumped(struct place place)
{
	return (struct place){place.library, place.sp, TRAMPOLINE};
}

/* Takes a random object out of the program's hands; false if there is none. */
static bool pick_object(struct program *p, struct object *ret)
{
	size_t i;

	if (p->n_objects == 0)
		return false;
	i = program_below(p, p->n_objects);
	*ret = p->objects[i];
	p->objects[i] = p->objects[--p->n_objects];
	return true;
}

static uint64_t pick_size(struct program *p)
{
	return program_below(p, 10) ? 1 + program_below(p, 1000) : 0;
}

static void write_new(struct program *p, struct thread *t)
{
	bool counted = program_below(p, 2);
	uint32_t site;
	struct place place = pick_place(p, t, counted ? SITE_CALLOC : SITE_MALLOC, &site);
	const char *name = counted ? "calloc" : "malloc";
	uint64_t size = pick_size(p);

	switch (program_below(p, 8)) {
	case 0:
		add_entry(t, place, name, size, 1, 0);
		add_return(t, place, name);
		return;
	case 1: /* too much; for calloc, a product that overflows */
		add_entry(t, place, name, UINT64_MAX, 2, 0);
		add_return(t, place, name);
		return;
	default:
		add_entry(t, place, name, size, 3, 0);
		add_step(t, STEP_TAKE);
		add_return_of_object(t, place, name, 0);
		add_count(t, site, counted ? size * 3 : size, 0, true);
	}
}

/* realloc(NULL), as three functions that jump into each other. */
static void write_chain(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place = pick_place(p, t, SITE_ARRAY, &site);
	uint64_t size = pick_size(p);

	add_entry(t, place, "reallocarray", 0, size, 2);
	add_entry(t, jumped(place), "realloc", 0, size * 2, 0);
	add_entry(t, jumped(place), "malloc", size * 2, 0, 0);
	add_step(t, STEP_TAKE);
	add_return_of_object(t, place, "malloc", 0);
	add_return_of_object(t, place, "realloc", 0);
	add_return_of_object(t, place, "reallocarray", 0);
	add_count(t, site, size * 2, 0, true);
}

/* The old object is freed and a new one made, by the allocator or by malloc and free. */
static void write_move(struct thread *t, struct place place, uint32_t site, bool by_malloc,
		       const struct object *old, uint64_t size)
{
	struct place inner = inside(place, place.library);

	add_entry(t, place, "realloc", old->addr, size, 0);
	if (by_malloc)
		add_entry(t, inner, "malloc", size, 0, 0);
	add_step(t, STEP_TAKE);
	if (by_malloc) {
		add_return_of_object(t, inner, "malloc", 0);
		add_free(t, old->addr);
	}
	add_give(t, old);
	add_return_of_object(t, place, "realloc", 0);
	add_old(t, STEP_ENDED, old);
	add_count(t, site, size, 0, true);
}

static void write_resize(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place;
	uint64_t size = 1 + pick_size(p);
	struct object old;
	struct step *step;

	if (!pick_object(p, &old))
		return;
	place = pick_place(p, t, SITE_REALLOC, &site);
	switch (program_below(p, 6)) {
	case 0: /* fails */
		add_entry(t, place, "realloc", old.addr, size, 0);
		add_return(t, place, "realloc");
		add_old(t, STEP_ALIVE, &old);
		return;
	case 1: /* frees */
		add_entry(t, place, "realloc", old.addr, 0, 0);
		add_give(t, &old);
		add_return(t, place, "realloc");
		add_old(t, STEP_ENDED, &old);
		return;
	case 2: /* stays where it is */
		add_entry(t, place, "realloc", old.addr, size, 0);
		add_return(t, place, "realloc")->event.ret.retval = old.addr;
		step = add_step(t, STEP_RESIZED);
		step->object = old;
		step->site = site;
		step->size = size;
		return;
	default:
		write_move(t, place, site, program_below(p, 2), &old, size);
	}
}

/* reallocarray, which jumps into realloc. */
static void write_chained_resize(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place;
	uint64_t size = 1 + pick_size(p);
	struct object old;

	if (!pick_object(p, &old))
		return;
	place = pick_place(p, t, SITE_ARRAY, &site);
	add_entry(t, place, "reallocarray", old.addr, 2, size);
	add_entry(t, jumped(place), "realloc", old.addr, 2 * size, 0);
	if (program_below(p, 4) == 0) {
		add_return(t, place, "realloc");
		add_return(t, place, "reallocarray");
		add_old(t, STEP_ALIVE, &old);
		return;
	}
	add_step(t, STEP_TAKE);
	add_give(t, &old);
	add_return_of_object(t, place, "realloc", 0);
	add_return_of_object(t, place, "reallocarray", 0);
	add_old(t, STEP_ENDED, &old);
	add_count(t, site, 2 * size, 0, true);
}

static void write_out(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place = pick_place(p, t, SITE_OUT, &site);
	struct place inner = inside(place, 0x7f1000000000);
	uint64_t how = program_below(p, 4);
	uint64_t align = UINT64_C(16) << program_below(p, 5);
	uint64_t size = pick_size(p);

	add_entry(t, place, "posix_memalign", t->stack_top - 32, align, size);
	if (how == 0) {
		add_return(t, place, "posix_memalign")->event.ret.retval = 12;
		return;
	}
	if (how == 1)
		add_entry(t, inner, "memalign", align, size, 0);
	add_step(t, STEP_TAKE);
	if (how == 1)
		add_return_of_object(t, inner, "memalign", 0);
	add_return(t, place, "posix_memalign")->dx_is_object = how == 2;
	add_count(t, site, size, 0, how != 3);
}

/* Another library's malloc, which puts a header before what it gets from the first. */
static void write_wrapper(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place = pick_place(p, t, SITE_WRAPPER, &site);
	struct place inner = inside(place, 0x7f1000000000);
	uint64_t size = pick_size(p);

	place.library = 0x7f2000000000;
	add_entry(t, place, "malloc", size, 0, 0);
	add_entry(t, inner, "malloc", size + 16, 0, 0);
	add_step(t, STEP_TAKE);
	add_return_of_object(t, inner, "malloc", 0);
	add_return_of_object(t, place, "malloc", 16);
	add_count(t, site, size, 16, true);
}

static void write_free(struct program *p, struct thread *t)
{
	struct object old;

	if (program_below(p, 10) == 0) {
		add_free(t, 0);
		return;
	}
	if (!pick_object(p, &old))
		return;
	add_free(t, old.addr);
	add_old(t, STEP_ENDED, &old);
	if (old.addr != old.base_addr)
		add_free(t, old.base_addr);
	add_give(t, &old);
}

/* The call does not return: its thread jumps out of it, or ends in it. */
static void write_abandoned(struct program *p, struct thread *t)
{
	uint32_t site;
	struct object old;
	bool resize = program_below(p, 2) && pick_object(p, &old);
	struct place place = pick_place(p, t, resize ? SITE_REALLOC : SITE_MALLOC, &site);

	if (resize) {
		add_entry(t, place, "realloc", old.addr, 500, 0);
		add_old(t, STEP_ENDED, &old);
	} else {
		add_entry(t, place, "malloc", 500, 0, 0);
		add_entry(t, inside(place, 0x7f2000000000), "malloc", 516, 0, 0);
	}
	if (program_below(p, 2))
		add_step(t, STEP_EXIT);
	else
		t->jumped_out = true;
}

void program_write_script(struct program *p, struct thread *t)
{
	t->n_steps = 0;
	t->next_step = 0;
	switch (p->n_objects + 4 * N_THREADS >= MAX_OBJECTS ? 9 : program_below(p, 13)) {
	case 0:
	case 1:
	case 2:
		write_new(p, t);
		return;
	case 3:
		write_chain(p, t);
		return;
	case 4:
	case 5:
		write_resize(p, t);
		return;
	case 6:
		write_out(p, t);
		return;
	case 7:
		write_wrapper(p, t);
		return;
	case 8:
		if (program_below(p, 4) == 0)
			write_abandoned(p, t);
		else
			write_chained_resize(p, t);
		return;
	default:
		write_free(p, t);
	}
}

void program_write_call_at_the_top(struct program *p, struct thread *t)
{
	uint32_t site;
	struct place place;

	t->n_steps = t->next_step = 0;
	t->jumped_out = true;
	place = pick_place(p, t, SITE_MALLOC, &site);
	add_entry(t, place, "malloc", 8, 0, 0);
	add_step(t, STEP_TAKE);
	add_return_of_object(t, place, "malloc", 0);
	add_count(t, site, 8, 0, true);
}
