/* SPDX-License-Identifier: MIT */
#include "symbolize/debuginfod_client.h"

#include <errno.h>

/* What debuginfod_client.c is without libdebuginfod's header. */

bool dp_debuginfod_client_is_wanted(void)
{
	return false;
}

int dp_debuginfod_client_open(struct dp_debuginfod_client **ret, const atomic_bool *stop)
{
	(void)ret;
	(void)stop;
	return -ENOPKG;
}

void dp_debuginfod_client_close(struct dp_debuginfod_client *client)
{
	(void)client;
}

int dp_debuginfod_client_find(struct dp_debuginfod_client *client, const uint8_t *build_id,
			      size_t n_bytes)
{
	(void)client;
	(void)build_id;
	(void)n_bytes;
	return -ENOPKG;
}
