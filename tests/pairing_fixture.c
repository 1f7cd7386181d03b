/* SPDX-License-Identifier: MIT */
#include "tests/pairing_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

#include "src/delta.h"

uint32_t fixture_intern(void *context, const struct dp_event *event)
{
	struct fixture *f = context;

	f->n_interned++;
	return (uint32_t)(event->entry.stack0 - CODE) % N_STACKS;
}

void set_up_with(struct fixture *f, uint64_t rate_bytes, size_t max_threads)
{
	const struct dp_heap_options options = {.rate_bytes = rate_bytes, .max_live = 1000};
	const struct dp_delta_spec spec = dp_heap_delta_spec(N_STACKS);

	memset(f, 0, sizeof(*f));
	assert_int_equal(dp_heap_new(&f->heap, &options), 0);
	assert_int_equal(dp_pairing_new(&f->pairing, f->heap, max_threads, fixture_intern, f), 0);
	assert_int_equal(dp_delta_new(&f->delta, &spec), 0);
}

void set_up(struct fixture *f)
{
	set_up_with(f, 1, 100);
}

static bool is_inside(void *context, uint64_t avma)
{
	(void)context;
	return avma >= INSIDE && avma < INSIDE + INSIDE_BYTES;
}

void set_up_without_returns(struct fixture *f, size_t max_threads)
{
	set_up_with(f, 1, max_threads);
	dp_pairing_without_returns(f->pairing, is_inside, f);
}

void tear_down(struct fixture *f)
{
	const struct dp_pairing_stats *s = dp_pairing_get_stats(f->pairing);

	assert_int_equal(s->n_entries, s->n_calls + s->n_failed + s->n_nested + s->n_abandoned +
					       s->n_forgotten + s->n_no_room +
					       dp_pairing_pending(f->pairing));
	dp_pairing_free(f->pairing);
	dp_delta_free(f->delta);
	dp_heap_free_all(f->heap);
}

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

static const struct dp_alloc_function *resolve(const char *name, uint64_t *ret_avma)
{
	char plain[32];
	size_t n = strlen(name);
	bool other = name[n - 1] == '2';
	size_t n_functions;
	const struct dp_alloc_function *first = dp_alloc_functions(&n_functions);
	const struct dp_alloc_function *found;

	memcpy(plain, name, n + 1);
	if (other)
		plain[n - 1] = '\0';
	found = function(plain);
	*ret_avma = (other ? 0x7f2000000000u : 0x7f1000000000u) + 64 * (uint64_t)(found - first);
	return found;
}

int try_enter(struct fixture *f, uint32_t tid, const char *name, uint64_t sp, uint64_t stack0,
	      uint64_t a0, uint64_t a1, uint64_t a2)
{
	struct dp_event event = {.type = DP_EVENT_ALLOC_ENTRY,
				 .tid = tid,
				 .entry = {.args = {a0, a1, a2}, .sp = sp, .stack0 = stack0}};
	const struct dp_alloc_function *found = resolve(name, &event.entry.probe_avma);

	return dp_pairing_entry(f->pairing, &event, found);
}

void enter(struct fixture *f, const char *name, uint64_t sp, uint32_t stack, uint64_t a0,
	   uint64_t a1, uint64_t a2)
{
	assert_int_equal(try_enter(f, 1, name, sp, CODE + stack, a0, a1, a2), 0);
}

void jump_into(struct fixture *f, const char *name, uint64_t sp, uint64_t a0, uint64_t a1)
{
	assert_int_equal(try_enter(f, 1, name, sp, TRAMPOLINE, a0, a1, 0), 0);
}

int try_leave(struct fixture *f, uint32_t tid, const char *name, uint64_t entry_sp, uint64_t retval,
	      uint64_t dx)
{
	struct dp_event event = {.type = DP_EVENT_ALLOC_RETURN,
				 .tid = tid,
				 .ret = {.retval = retval, .dx = dx, .sp = entry_sp + 8}};
	const struct dp_alloc_function *found = resolve(name, &event.ret.probe_avma);

	return dp_pairing_return(f->pairing, &event, found, dx != 0);
}

void leave(struct fixture *f, const char *name, uint64_t entry_sp, uint64_t retval)
{
	assert_int_equal(try_leave(f, 1, name, entry_sp, retval, 0), 0);
}

void free_at(struct fixture *f, uint64_t addr)
{
	struct dp_event event = {.type = DP_EVENT_FREE, .tid = 2, .entry = {.args = {addr}}};
	const struct dp_alloc_function *found = resolve("free", &event.entry.probe_avma);

	dp_pairing_free_call(f->pairing, &event, found);
}

void allocate(struct fixture *f, uint32_t stack, uint64_t size, uint64_t addr)
{
	enter(f, "malloc", SP, stack, size, 0, 0);
	leave(f, "malloc", SP, addr);
}

void assert_stack(struct fixture *f, uint32_t stack, int64_t alloc_objects, int64_t alloc_space,
		  int64_t inuse_objects, int64_t inuse_space)
{
	const int64_t expected[] = {alloc_objects, alloc_space, inuse_objects, inuse_space};
	int64_t values[DP_DELTA_MAX_VALUES] = {0};
	const struct dp_delta_row *rows;
	size_t n;

	dp_delta_begin(f->delta);
	assert_int_equal(dp_heap_feed(f->heap, f->delta), 0);
	assert_int_equal(dp_delta_end(f->delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++) {
		if (rows[i].stack == stack)
			memcpy(values, rows[i].values, sizeof(values));
	}
	dp_delta_abort(f->delta);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(values[i], expected[i]);
}

const struct dp_pairing_stats *stats(const struct fixture *f)
{
	return dp_pairing_get_stats(f->pairing);
}
