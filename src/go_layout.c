/* SPDX-License-Identifier: MIT */
/*
 * Data, not code: one line per version in which something changed.
 */
#include "src/go_layout.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define NONE DP_GO_NO_REASON

/* Source: each version's src/runtime/runtime2.go, waitReason. In the order of enum dp_go_reason. */
static const uint8_t reasons_16[DP_GO_N_REASONS] = {14,	  15,	9,    18,   20,	  NONE, NONE,
						    NONE, NONE, NONE, NONE, NONE, NONE};
static const uint8_t reasons_20[DP_GO_N_REASONS] = {14, 15,   9,    18,	  20,	21,  22,
						    23, NONE, NONE, NONE, NONE, NONE};
static const uint8_t reasons_24[DP_GO_N_REASONS] = {14, 15, 9,	18, 20, 21,  22,
						    23, 24, 41, 42, 43, NONE};
static const uint8_t reasons_25[DP_GO_N_REASONS] = {14, 15, 9,	19, 21, 22, 23,
						    24, 25, 42, 43, 44, 45};
static const uint8_t reasons_26[DP_GO_N_REASONS] = {19, 20, 18, 13, 21, 22, 23,
						    24, 25, 42, 43, 44, 45};

/*
 * Ascending; each holds up to the next. Source: each version's src/runtime/mprof.go (bucket,
 * memRecordCycle, blockRecord, saveblockevent), runtime.go (ticks), runtime2.go (g, gobuf), and
 * src/runtime/pprof/protomem.go.
 */
#define PARK_104(goid) .g_sched_sp = 56, .g_sched_pc = 64, .g_sched_bp = 104, .g_goid = (goid)
#define PARK_96(goid) .g_sched_sp = 56, .g_sched_pc = 64, .g_sched_bp = 96, .g_goid = (goid)
#define TICKS_NEW .ticks_value = 24, .ticks_start = 8, .ticks_start_time = 16

static const struct dp_go_layout layouts[] = {
	{16, 32, false, false, false, .ticks_value = 16, PARK_104(152), reasons_16},
	{17, 32, true, false, false, .ticks_value = 16, PARK_104(152), reasons_16},
	{20, 32, true, true, false, .ticks_value = 8, PARK_104(152), reasons_20},
	{22, 32, true, true, false, TICKS_NEW, PARK_104(152), reasons_20},
	{23, 32, true, true, false, TICKS_NEW, PARK_104(160), reasons_20},
	{24, 32, true, true, true, TICKS_NEW, PARK_104(160), reasons_24},
	{25, 32, true, true, true, TICKS_NEW, PARK_96(152), reasons_25},
	{26, 32, true, true, true, TICKS_NEW, PARK_96(152), reasons_26},
	{27, 16, true, true, true, TICKS_NEW, PARK_96(152), reasons_26},
};

int dp_go_layout_get(unsigned minor, struct dp_go_layout *ret)
{
	size_t i = sizeof(layouts) / sizeof(*layouts);

	if (minor < DP_GO_MIN_MINOR)
		return -ENOTSUP;
	while (i > 1 && layouts[i - 1].minor > minor)
		i--;
	*ret = layouts[i - 1];
	ret->minor = minor;
	return minor > DP_GO_MAX_MINOR;
}

int dp_go_layout_parse(const char *version, unsigned *ret_minor)
{
	static const char devel[] = "devel ", prefix[] = "go1.";
	unsigned minor = 0;
	const char *at = version;

	if (strncmp(at, devel, sizeof(devel) - 1) == 0)
		at += sizeof(devel) - 1;
	if (strncmp(at, prefix, sizeof(prefix) - 1) != 0)
		return -ENOTSUP;
	at += sizeof(prefix) - 1;
	if (*at < '0' || *at > '9')
		return -ENOTSUP;
	for (; *at >= '0' && *at <= '9' && minor < 1000; at++)
		minor = minor * 10 + (unsigned)(*at - '0');
	*ret_minor = minor;
	return 0;
}
