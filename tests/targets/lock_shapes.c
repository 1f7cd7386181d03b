/* SPDX-License-Identifier: MIT */
/*
 * A library with functions of known names in shapes that a real one has, or might have: made for
 * being looked at, not for being called. What is called shape_* is not known. Compile it with
 * -fno-toplevel-reorder: who is whose neighbour matters.
 */

/* A function with call frame information; jumps lead to its local name. */
#define BEGIN(name)                              \
	".p2align 4\n"                           \
	".globl " name "\n"                      \
	".type " name ", @function\n" name ":\n" \
	".L" name ":\n"                          \
	".cfi_startproc\n"
#define UNSIZED(name, code) __asm__(BEGIN(name) code "\n.cfi_endproc")
#define SIZED(name, code) __asm__(BEGIN(name) code "\n.cfi_endproc\n.size " name ", . - " name)
/* Another name of the function that follows, one with a size. */
#define ALSO(name)                                                                                 \
	__asm__(".p2align 4\n.globl " name "\n.type " name ", @function\n.size " name ", 1\n" name \
		":")

__asm__(".text");

/* Ends in a jump to a function that is not known. */
SIZED("sem_wait", "test %edi, %edi\n jne 1f\n ret\n 1: jmp .Lshape_sem_slow");
SIZED("shape_sem_slow", ".fill 100, 1, 0x90\n ret");
SIZED("shape_neighbour", "nop\n ret");

/* Two of one kind jump to one function, the second with the long form. */
SIZED("pthread_timedjoin_np", "jmp .Lshape_join");
SIZED("pthread_join", ".byte 0xe9\n .long .Lshape_join - . - 4");
SIZED("shape_join", "nop\n ret");

/* Two of different kinds do, to one behind a function without a size. */
SIZED("pthread_cond_wait", "jmp .Lshape_common");
SIZED("pthread_rwlock_rdlock", "jmp .Lshape_common");
UNSIZED("cnd_wait", "nop\n ret");
SIZED("shape_common", "nop\n ret");

/* Jumps into itself, into the middle of a function, and to a known one. */
SIZED("pthread_mutex_lock", "1: nop\n"
			    ".byte 0xe9\n .long 1b - . - 4\n"
			    ".byte 0xe9\n .long .Lshape_middle + 1 - . - 4\n"
			    ".byte 0xe9\n .long .Lmtx_lock - . - 4");
SIZED("shape_middle", "nop\n nop\n ret");
SIZED("mtx_lock", "nop\n ret");

/* Without a size: up to the next known one, or for a while. */
ALSO("shape_barrier");
UNSIZED("pthread_barrier_wait", "nop");
SIZED("shape_behind_barrier", "nop\n ret");
ALSO("shape_post");
UNSIZED("sem_post", "nop\n ret");
__asm__(".fill 8192, 1, 0x90");
SIZED("shape_far", "nop\n ret");
