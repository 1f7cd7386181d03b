/* SPDX-License-Identifier: MIT */
/* A library that sym_host opens late. */

int sym_library_function(int x);

__attribute__((noinline)) int sym_library_function(int x)
{
	return x * 3;
}

/* One name with two versions, each a function of its own. */
#ifdef SYM_VERSIONS
int sym_versioned_1(int x);
int sym_versioned_2(int x);

__attribute__((symver("sym_versioned@SYM_1"))) int sym_versioned_1(int x)
{
	return x + 1;
}

__attribute__((symver("sym_versioned@@SYM_2"))) int sym_versioned_2(int x)
{
	return x + 2;
}
#endif
