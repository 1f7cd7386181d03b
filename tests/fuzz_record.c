/* SPDX-License-Identifier: MIT */
/*
 * Gives arbitrary bytes to the record parser: it must neither read outside them (the sanitizers see
 * to that) nor hand out a pointer that leaves them. fuzz_record_seeds writes inputs to begin with.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "perf/record.h"
#include "tests/sample_builder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void require_inside(const void *part, size_t part_bytes, const uint8_t *bytes,
			   size_t n_bytes)
{
	size_t offset = (size_t)((const uint8_t *)part - bytes);

	REQUIRE(offset <= n_bytes && part_bytes <= n_bytes - offset);
}

static void require_string_inside(const char *text, const uint8_t *bytes, size_t n_bytes)
{
	require_inside(text, 1, bytes, n_bytes);
	REQUIRE(memchr(text, '\0', n_bytes - (size_t)((const uint8_t *)text - bytes)));
}

static void check_user(const struct dp_user_state *user, const uint8_t *bytes, size_t n_bytes)
{
	if (user->stack)
		require_inside(user->stack, user->stack_bytes, bytes, n_bytes);
	else
		REQUIRE(user->stack_bytes == 0);
}

static void check_event(const struct dp_event *event, const uint8_t *bytes, size_t n_bytes)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		require_inside(event->entry.user.callchain,
			       event->entry.user.n_callchain * sizeof(uint64_t), bytes, n_bytes);
		REQUIRE((uintptr_t)event->entry.user.callchain % sizeof(uint64_t) == 0);
		break;
	case DP_EVENT_FREE:
		REQUIRE(event->entry.user.n_callchain == 0);
		break;
	case DP_EVENT_MMAP:
		require_string_inside(event->mmap.path, bytes, n_bytes);
		REQUIRE(event->mmap.build_id_bytes <= DP_BUILD_ID_MAX);
		break;
	case DP_EVENT_COMM:
		require_string_inside(event->comm.name, bytes, n_bytes);
		break;
	case DP_EVENT_FUTEX_EXIT:
		check_user(&event->futex_exit.user, bytes, n_bytes);
		break;
	case DP_EVENT_WAKING:
		check_user(&event->waking.user, bytes, n_bytes);
		break;
	default:
		break;
	}
}

static void parse_one(const struct dp_record_layout *layout, const uint8_t *bytes, size_t n_bytes)
{
	struct dp_event event;
	uint64_t time_ns;
	int r = dp_record_parse(layout, bytes, n_bytes, &event);

	REQUIRE(r == 0 || r == 1 || r == -EBADMSG);
	if (dp_record_time(bytes, n_bytes, &time_ns))
		REQUIRE(r == -EBADMSG);
	else if (r == 0)
		REQUIRE(time_ns == event.time_ns);
	if (r == 0)
		check_event(&event, bytes, n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct dp_record_layout odd = sample_layout;
	uint16_t size = (uint16_t)n_bytes;
	uint8_t *bytes;

	if (n_bytes == 0 || n_bytes > UINT16_MAX)
		return 0;
	bytes = malloc(n_bytes); /* exactly as long, and aligned */
	if (!bytes)
		return 0;
	memcpy(bytes, data, n_bytes);
	parse_one(&sample_layout, bytes, n_bytes);
	/* A ring hands over records whose length agrees, so most tries are with such. */
	if (n_bytes >= 8) {
		memcpy(bytes + 6, &size, sizeof(size));
		odd.raw[0].fields[1].size_bytes = 4;
		odd.raw[1].fields[3] = (struct dp_raw_field){.offset_bytes = 1000, .size_bytes = 8};
		parse_one(&sample_layout, bytes, n_bytes);
		parse_one(&odd, bytes, n_bytes);
	}
	free(bytes);
	return 0;
}
