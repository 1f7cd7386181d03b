/* SPDX-License-Identifier: MIT */
#include "symbolize/debuginfod_client.h"

#include <dlfcn.h>
#include <elfutils/debuginfod.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The one hard idea: the library is never unloaded again, because what it loads in its turn (curl,
 * a TLS library) cannot be.
 */

struct dp_debuginfod_client {
	debuginfod_client *handle;
	const atomic_bool *stop;
	typeof(debuginfod_begin) *begin;
	typeof(debuginfod_end) *end;
	typeof(debuginfod_find_debuginfo) *find_debuginfo;
	typeof(debuginfod_set_progressfn) *set_progressfn;
	typeof(debuginfod_set_user_data) *set_user_data;
	typeof(debuginfod_get_user_data) *get_user_data;
};

bool dp_debuginfod_client_is_wanted(void)
{
	const char *urls = getenv(DEBUGINFOD_URLS_ENV_VAR);

	return urls && urls[strspn(urls, " ")];
}

static bool find_function(void *library, const char *name, void *ret)
{
	void *function = dlsym(library, name);

	memcpy(ret, &function, sizeof(function));
	return function;
}

static bool find_functions(struct dp_debuginfod_client *client, void *library)
{
	return find_function(library, "debuginfod_begin", &client->begin) &&
	       find_function(library, "debuginfod_end", &client->end) &&
	       find_function(library, "debuginfod_find_debuginfo", &client->find_debuginfo) &&
	       find_function(library, "debuginfod_set_progressfn", &client->set_progressfn) &&
	       find_function(library, "debuginfod_set_user_data", &client->set_user_data) &&
	       find_function(library, "debuginfod_get_user_data", &client->get_user_data);
}

/* What the client was opened with. The callback knows the library's handle only. */
static const atomic_bool *current_stop(debuginfod_client *handle)
{
	typeof(debuginfod_get_user_data) *get_user_data;
	void *library = dlopen(DEBUGINFOD_SONAME, RTLD_LAZY | RTLD_NOLOAD);
	const atomic_bool *stop = NULL;

	if (library && find_function(library, "debuginfod_get_user_data", &get_user_data))
		stop = get_user_data(handle);
	if (library)
		dlclose(library);
	return stop;
}

static int progress(debuginfod_client *handle, long a, long b)
{
	const atomic_bool *stop = current_stop(handle);

	(void)a;
	(void)b;
	return stop && atomic_load(stop);
}

int dp_debuginfod_client_open(struct dp_debuginfod_client **ret, const atomic_bool *stop)
{
	struct dp_debuginfod_client *client = calloc(1, sizeof(*client));
	void *library;

	if (!client)
		return -ENOMEM;
	client->stop = stop;
	library = dlopen(DEBUGINFOD_SONAME, RTLD_NOW | RTLD_NODELETE);
	if (library && find_functions(client, library))
		client->handle = client->begin();
	if (!client->handle) {
		free(client);
		return -ENOPKG;
	}
	client->set_progressfn(client->handle, progress);
	client->set_user_data(client->handle, (void *)stop);
	*ret = client;
	return 0;
}

void dp_debuginfod_client_close(struct dp_debuginfod_client *client)
{
	if (!client)
		return;
	client->end(client->handle);
	free(client);
}

int dp_debuginfod_client_find(struct dp_debuginfod_client *client, const uint8_t *build_id,
			      size_t n_bytes)
{
	return client->find_debuginfo(client->handle, build_id, (int)n_bytes, NULL);
}
