/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "symbolize/demangle.h"
#include "tests/alloc_fail.h"

static void assert_demangled(const char *name, const char *wanted)
{
	char *text = dp_demangle(name);

	assert_non_null(text);
	assert_string_equal(text, wanted);
	free(text);
}

static void demangle_gives_cxx_names_with_their_parameters(void **state)
{
	(void)state;
	assert_demangled("_ZN3foo3barEi", "foo::bar(int)");
	assert_demangled("_ZNSt6vectorIiSaIiEE9push_backERKi",
			 "std::vector<int, std::allocator<int> >::push_back(int const&)");
	assert_demangled("_Z3maxIiET_S0_S0_", "int max<int>(int, int)");
	assert_demangled("_ZN12_GLOBAL__N_16hiddenEv", "(anonymous namespace)::hidden()");
	assert_demangled("_ZN3FooC2Ev", "Foo::Foo()");
	assert_demangled("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()() const");
	assert_demangled("_Znwm", "operator new(unsigned long)");
}

static void demangle_drops_the_hash_of_old_rust_names(void **state)
{
	(void)state;
	assert_demangled("_ZN4core3ptr13drop_in_place17h0123456789abcdefE",
			 "core::ptr::drop_in_place");
	assert_demangled("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$"
			 "GT$3bar17h930b740aa94f1d3aE",
			 "<Test + 'static as foo::Bar<Test>>::bar");
}

static void demangle_gives_new_rust_names(void **state)
{
	(void)state;
	assert_demangled("_RNvCs1234_7mycrate3foo", "mycrate::foo");
	assert_demangled("_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>");
}

static void demangle_leaves_other_names_alone(void **state)
{
	static const char *const names[] = {
		"",    "_",  "main",	      "_start", "Z3foov",      "_Z",
		"_ZN", "_R", "__libc_malloc", "_Zfoo",	"_ZN3foo3bar", "main.main",
		"@plt"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_null(dp_demangle(names[i]));
}

/* _Z1f, then @n pointers to int. */
static char *pointer_name(size_t n)
{
	char *name = malloc(n + 6);

	assert_non_null(name);
	memcpy(name, "_Z1f", 4);
	memset(name + 4, 'P', n);
	memcpy(name + 4 + n, "i", 2);
	return name;
}

static void demangle_takes_long_names_up_to_its_limit(void **state)
{
	char *name = malloc(8001 + 16), *text;

	(void)state;
	assert_non_null(name);
	memcpy(name, "_Z8000", 6);
	memset(name + 6, 'a', 8000);
	memcpy(name + 8006, "v", 2);
	text = dp_demangle(name);
	assert_non_null(text);
	assert_int_equal(strlen(text), 8002);
	free(text);
	free(name);

	name = pointer_name(65 << 10);
	assert_null(dp_demangle(name));
	free(name);
}

static void demangle_survives_deep_nesting(void **state)
{
	(void)state;
	for (size_t n = 100; n <= 8000; n *= 2) {
		char *name = pointer_name(n);

		free(dp_demangle(name));
		free(name);
	}
}

/* f(A<int, int>, A<that, that>, ...): @n parameters, each twice as long as the one before. */
static void exploding_name(size_t n, char *ret, size_t ret_bytes)
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t at = (size_t)snprintf(ret, ret_bytes, "_Z1f1AIiiE");

	for (size_t i = 1; i < n; i++) {
		char last = letters[i - 1];

		at += (size_t)snprintf(ret + at, ret_bytes - at, "S_IS%c_S%c_E", last, last);
	}
}

static void demangle_gives_up_on_names_that_explode(void **state)
{
	char name[1024];

	(void)state;
	exploding_name(3, name, sizeof(name));
	assert_demangled(name, "f(A<int, int>, A<A<int, int>, A<int, int> >, "
			       "A<A<A<int, int>, A<int, int> >, A<A<int, int>, A<int, int> > >)");
	exploding_name(34, name, sizeof(name));
	assert_null(dp_demangle(name));
}

static void demangle_gives_nothing_when_memory_is_out(void **state)
{
	char *text = NULL;
	unsigned long k = 0;

	(void)state;
	do {
		free(text);
		alloc_fail_at(++k);
		text = dp_demangle("_ZNSt6vectorIiSaIiEE9push_backERKi");
		if (alloc_fail_happened())
			assert_null(text);
	} while (alloc_fail_happened());
	alloc_fail_at(0);
	assert_non_null(text);
	assert_true(k > 1);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(demangle_gives_cxx_names_with_their_parameters),
		cmocka_unit_test(demangle_drops_the_hash_of_old_rust_names),
		cmocka_unit_test(demangle_gives_new_rust_names),
		cmocka_unit_test(demangle_leaves_other_names_alone),
		cmocka_unit_test(demangle_takes_long_names_up_to_its_limit),
		cmocka_unit_test(demangle_survives_deep_nesting),
		cmocka_unit_test(demangle_gives_up_on_names_that_explode),
		cmocka_unit_test(demangle_gives_nothing_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
