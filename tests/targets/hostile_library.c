/* SPDX-License-Identifier: MIT */
/*
 * A small library whose debug and call frame information are to be spoiled: inlined calls, a frame
 * of variable size, one that aligns the stack (gcc describes it by expressions) and, in the PLT,
 * another expression.
 */
int hostile_outside(int *numbers);
int hostile_leaf(int x);
int hostile_caller(int x);
int hostile_variable(int n);
int hostile_aligned(int x);

static inline __attribute__((always_inline)) int inner(int x)
{
	return x * x + 1;
}

static inline __attribute__((always_inline)) int outer(int x)
{
	return inner(x) ^ inner(x + 1);
}

__attribute__((noinline)) int hostile_leaf(int x)
{
	return outer(x) + 3;
}

__attribute__((noinline)) int hostile_caller(int x)
{
	int numbers[8] = {x};

	return hostile_outside(numbers) + hostile_leaf(numbers[x & 7]) + outer(numbers[1]);
}

__attribute__((noinline)) int hostile_variable(int n)
{
	int *numbers = __builtin_alloca((unsigned int)n);

	return hostile_outside(numbers) + numbers[0];
}

__attribute__((noinline)) int hostile_aligned(int x)
{
	_Alignas(64) int numbers[16] = {x};
	int *more = __builtin_alloca((unsigned int)x);

	more[0] = x;
	return hostile_outside(numbers) + hostile_outside(more) + numbers[3];
}
