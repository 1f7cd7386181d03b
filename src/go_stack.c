/* SPDX-License-Identifier: MIT */
#include "src/go_stack.h"

#include <string.h>

/*
 * The one hard idea: a recorded stack has either one pc for each logical call (heap; block and
 * mutex before Go 1.23), those of inlined callers being virtual ones that follow from the first,
 * or one for each physical frame (block and mutex from 1.23 on, but for the first few frames). A
 * frame is looked up with everything that it is inlined into, so both come out alike once the
 * virtual pcs that follow a frame are dropped. It is the rule of runtime.Frames.Next of Go 1.21 and
 * later, which inserts an inlined caller unless the next recorded pc is its own.
 *
 * Equal to runtime/pprof of Go 1.19 to 1.27: the calls of each sample in their order, with file
 * and line; a stack whose last frame was cut inside of inlined calls
 * (runtime_expandFinalInlineFrame); wrappers, which are left out where they are inlined into or
 * inline something and which the runtime's tracebackers do not record otherwise, but which stay
 * where block and mutex profiles record physical frames; runtime.goexit, which gets no location.
 *
 * Not equal: how calls are grouped to locations where a function is inlined into itself: there
 * pcDeck begins a location ("maybe recursion") and we do not. And a pc that is in no Go function
 * stays, as in runtime/pprof's heap profile; in block and mutex profiles from Go 1.23 on
 * runtime.CallersFrames drops it.
 */

static bool begins_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/*
 * Whether the heap profile hides the frame if it leads. The name is that of the innermost call at
 * the return address itself, not before it: so runtime/pprof asks runtime.FuncForPC(), and at the
 * end of an inlined body, or of a function, the answers differ.
 */
static int is_of_runtime(struct dp_symbolizer *symbolizer, enum dp_go_trim trim, uint64_t frame,
			 bool *ret)
{
	struct dp_go_call calls[DP_GO_MAX_CALLS];
	size_t n;
	int r = dp_symbolizer_go_calls(symbolizer, frame + 1, calls, &n);

	if (r < 0)
		return r;
	*ret = n > 0 && (begins_with(calls[0].function, "runtime.") ||
			 (trim == DP_GO_TRIM_INTERNAL_RUNTIME &&
			  begins_with(calls[0].function, "internal/runtime/")));
	return 0;
}

/* How many leading frames are hidden; 0 if all would be. */
static int count_trimmed(struct dp_symbolizer *symbolizer, enum dp_go_trim trim,
			 const uint64_t *frames, size_t n, size_t *ret)
{
	bool is_hidden = trim != DP_GO_TRIM_NOTHING;
	size_t i = 0;
	int r = 0;

	while (is_hidden && i < n && r == 0) {
		r = is_of_runtime(symbolizer, trim, frames[i], &is_hidden);
		i += is_hidden;
	}
	*ret = i < n ? i : 0;
	return r;
}

/* How many of the @n frames at @frames the first one stands for: itself, and its callers' virtual
 * ones that follow. */
static size_t count_covered(const struct dp_go_call *calls, size_t n_calls, const uint64_t *frames,
			    size_t n)
{
	size_t n_covered = 1;

	for (size_t i = 1; i < n_calls && n_covered < n; i++)
		n_covered += calls[i].frame == frames[n_covered];
	return n_covered;
}

static int fold(struct dp_symbolizer *symbolizer, const uint64_t *from, size_t n, uint64_t *to,
		size_t *ret_n)
{
	struct dp_go_call calls[DP_GO_MAX_CALLS];
	size_t n_calls, n_kept = 0;

	for (size_t i = 0; i < n;) {
		uint64_t frame = from[i];
		int r = dp_symbolizer_go_calls(symbolizer, frame, calls, &n_calls);

		if (r < 0)
			return r;
		i += count_covered(calls, n_calls, from + i, n - i);
		if (n_calls == 0 || strcmp(calls[0].function, "runtime.goexit") != 0)
			to[n_kept++] = frame;
	}
	*ret_n = n_kept;
	return 0;
}

int dp_go_fold(struct dp_symbolizer *symbolizer, enum dp_go_trim trim, uint64_t *frames, size_t n,
	       size_t *ret_n)
{
	size_t n_trimmed, n_kept;
	int r = count_trimmed(symbolizer, trim, frames, n, &n_trimmed);

	if (r == 0)
		r = fold(symbolizer, frames + n_trimmed, n - n_trimmed, frames, &n_kept);
	if (r == 0)
		*ret_n = n_kept;
	return r;
}
