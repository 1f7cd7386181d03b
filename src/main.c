/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "src/launch.h"
#include "src/options.h"
#include "src/run.h"

#define EXIT_RUN 1
#define EXIT_USAGE 2

int main(int argc, char **argv)
{
	struct dp_options options;
	struct dp_error err;
	int status = 0;
	int r = dp_options_parse(argc, argv, &options, &err);

	if (r == 1) {
		fputs(dp_options_help(), stdout);
		return fflush(stdout) == 0 ? 0 : EXIT_RUN;
	}
	if (r == 2) {
		puts("deltaprof-perf " DP_VERSION);
		return fflush(stdout) == 0 ? 0 : EXIT_RUN;
	}
	if (r < 0) {
		fprintf(stderr, "deltaprof-perf: %s\n", err.text);
		return EXIT_USAGE;
	}
	r = dp_run(&options, &status, &err);
	if (r < 0) {
		fprintf(stderr, "deltaprof-perf: %s\n", err.text);
		return status;
	}
	return options.command ? dp_launch_mirror(status) : 0;
}
