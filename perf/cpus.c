/* SPDX-License-Identifier: MIT */
#include "perf/cpus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/array.h"

#define MAX_CPU 65535

static int append_range(int **cpus, size_t *capacity, size_t *n, long first, long last)
{
	int r;

	if (first < 0 || last < first || last > MAX_CPU)
		return -EBADMSG;
	for (long cpu = first; cpu <= last; cpu++) {
		r = dp_array_reserve((void **)cpus, capacity, *n + 1, sizeof(**cpus));
		if (r < 0)
			return r;
		(*cpus)[(*n)++] = (int)cpu;
	}
	return 0;
}

int dp_cpus_parse(const char *text, int **ret, size_t *ret_n)
{
	int *cpus = NULL;
	size_t capacity = 0, n = 0;
	int r = 0;

	while (r == 0) {
		char *end;
		long first = strtol(text, &end, 10);
		long last = first;

		if (end == text) {
			r = -EBADMSG;
			break;
		}
		if (*end == '-') {
			text = end + 1;
			last = strtol(text, &end, 10);
			if (end == text)
				last = -1;
		}
		r = append_range(&cpus, &capacity, &n, first, last);
		text = end + 1;
		if (*end == '\0' || *end == '\n')
			break;
		if (*end != ',')
			r = -EBADMSG;
	}
	if (r < 0) {
		free(cpus);
		return r;
	}
	*ret = cpus;
	*ret_n = n;
	return 0;
}

int dp_cpus_online(int **ret, size_t *ret_n)
{
	FILE *file = fopen("/sys/devices/system/cpu/online", "re");
	char text[4096];
	int r = -EIO;

	if (!file)
		return -errno;
	if (fgets(text, sizeof(text), file))
		r = dp_cpus_parse(text, ret, ret_n);
	fclose(file);
	return r;
}
