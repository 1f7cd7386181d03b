/* SPDX-License-Identifier: MIT */
#include "symbolize/debuginfod.h"

#include <errno.h>
#include <gelf.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "symbolize/debuginfod_client.h"
#include "symbolize/elf_image.h"
#include "symbolize/module.h"

/*
 * The one hard idea: a question is written by the caller before the thread sees it, and its answer
 * by the thread before the caller sees it; the counters under the lock say how far each has come.
 * So a question's place never moves, and what is seen never changes.
 */

#define MAX_QUESTIONS 4096u
#define PATIENCE_S 2

struct question {
	uint8_t build_id[DP_MODULE_BUILD_ID_MAX];
	size_t n_bytes;
	enum dp_debuginfod_state state;
	struct dp_separate_files files;
};

struct dp_debuginfod {
	pthread_mutex_t lock;
	pthread_cond_t wake, ended; /* for the thread; by the thread */
	atomic_bool stop;
	bool has_thread;
	bool has_ended, is_abandoned; /* the thread; by the caller */
	pthread_t thread;
	size_t n_asked, n_answered; /* questions below n_answered belong to the caller */
	struct dp_debuginfod_stats stats;
	struct question questions[MAX_QUESTIONS];
};

int dp_debuginfod_new(struct dp_debuginfod **ret)
{
	struct dp_debuginfod *debuginfod;
	pthread_condattr_t monotonic;

	if (!dp_debuginfod_client_is_wanted())
		return 1;
	debuginfod = calloc(1, sizeof(*debuginfod));
	if (!debuginfod)
		return -ENOMEM;
	pthread_mutex_init(&debuginfod->lock, NULL);
	pthread_cond_init(&debuginfod->wake, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&debuginfod->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	*ret = debuginfod;
	return 0;
}

static void close_files(const struct dp_separate_files *files)
{
	if (files->debug_fd >= 0)
		close(files->debug_fd);
	if (files->alt_fd >= 0)
		close(files->alt_fd);
}

static void destroy(struct dp_debuginfod *debuginfod)
{
	for (size_t i = 0; i < debuginfod->n_answered; i++)
		close_files(&debuginfod->questions[i].files);
	pthread_cond_destroy(&debuginfod->wake);
	pthread_cond_destroy(&debuginfod->ended);
	pthread_mutex_destroy(&debuginfod->lock);
	free(debuginfod);
}

/*
 * The build-id of the file that dwz has moved common parts to. The section holds its name, a NUL,
 * and that. Source: GDB manual, "Separate Debug Files", .gnu_debugaltlink.
 */
static size_t read_alt_build_id(Elf *elf, uint8_t *ret)
{
	Elf_Scn *section = NULL;
	const char *name, *nul;
	size_t strings, n_bytes;
	Elf_Data *data;
	GElf_Shdr shdr;

	if (elf_getshdrstrndx(elf, &strings) < 0)
		return 0;
	while ((section = elf_nextscn(elf, section))) {
		if (!gelf_getshdr(section, &shdr) || shdr.sh_type != SHT_PROGBITS ||
		    !(name = elf_strptr(elf, strings, shdr.sh_name)) ||
		    strcmp(name, ".gnu_debugaltlink") != 0)
			continue;
		data = elf_rawdata(section, NULL);
		nul = data && data->d_buf ? memchr(data->d_buf, '\0', data->d_size) : NULL;
		if (!nul)
			return 0;
		n_bytes = data->d_size - (size_t)(nul + 1 - (const char *)data->d_buf);
		if (n_bytes == 0 || n_bytes > DP_MODULE_BUILD_ID_MAX)
			return 0;
		memcpy(ret, nul + 1, n_bytes);
		return n_bytes;
	}
	return 0;
}

/*
 * Fetches a file, which must be the one that was asked for. @ret_alt: for the build-id of its
 * alternate file, or NULL. Returns the descriptor or a negative errno.
 */
static int fetch_one(struct dp_debuginfod_client *client, const uint8_t *build_id, size_t n_bytes,
		     uint8_t *ret_alt, size_t *ret_alt_bytes)
{
	int fd = dp_debuginfod_client_find(client, build_id, n_bytes);
	bool is_right;
	Elf *elf;

	if (fd < 0)
		return fd;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	is_right = elf && dp_elf_has_build_id(elf, build_id, n_bytes);
	if (is_right && ret_alt)
		*ret_alt_bytes = read_alt_build_id(elf, ret_alt);
	elf_end(elf);
	if (!is_right) {
		close(fd);
		return -EBADMSG;
	}
	return fd;
}

/* Answers a question, but for its state. Returns 0 or a negative errno. */
static int fetch(struct dp_debuginfod_client *client, const struct question *question,
		 struct dp_separate_files *ret)
{
	uint8_t alt[DP_MODULE_BUILD_ID_MAX];
	size_t alt_bytes = 0;

	*ret = (struct dp_separate_files){-1, -1};
	if (!client)
		return -ENOPKG;
	ret->debug_fd = fetch_one(client, question->build_id, question->n_bytes, alt, &alt_bytes);
	if (ret->debug_fd < 0)
		return ret->debug_fd;
	if (alt_bytes > 0)
		ret->alt_fd = fetch_one(client, alt, alt_bytes, NULL, NULL);
	return 0;
}

static void answer(struct dp_debuginfod *debuginfod, const struct dp_separate_files *files, int r)
{
	struct question *question = &debuginfod->questions[debuginfod->n_answered];

	question->files = *files;
	question->state = r == 0 ? DP_DEBUGINFOD_FOUND : DP_DEBUGINFOD_MISSING;
	debuginfod->stats.n_found += r == 0;
	debuginfod->stats.n_missing += r == -ENOENT;
	debuginfod->stats.n_failed += r != 0 && r != -ENOENT;
	debuginfod->n_answered++;
}

/* Called with the lock held, and returns so. */
static void answer_all(struct dp_debuginfod *debuginfod, struct dp_debuginfod_client *client)
{
	while (!atomic_load(&debuginfod->stop)) {
		struct question *question = &debuginfod->questions[debuginfod->n_answered];
		struct dp_separate_files files;
		int r;

		if (debuginfod->n_answered == debuginfod->n_asked) {
			pthread_cond_wait(&debuginfod->wake, &debuginfod->lock);
			continue;
		}
		pthread_mutex_unlock(&debuginfod->lock);
		r = fetch(client, question, &files);
		pthread_mutex_lock(&debuginfod->lock);
		answer(debuginfod, &files, r);
	}
}

static void *run(void *argument)
{
	struct dp_debuginfod *debuginfod = argument;
	struct dp_debuginfod_client *client = NULL;
	bool is_abandoned;

	dp_debuginfod_client_open(&client, &debuginfod->stop);
	pthread_mutex_lock(&debuginfod->lock);
	answer_all(debuginfod, client);
	pthread_mutex_unlock(&debuginfod->lock);
	dp_debuginfod_client_close(client);
	pthread_mutex_lock(&debuginfod->lock);
	debuginfod->has_ended = true;
	pthread_cond_signal(&debuginfod->ended);
	is_abandoned = debuginfod->is_abandoned;
	pthread_mutex_unlock(&debuginfod->lock);
	if (is_abandoned)
		destroy(debuginfod);
	return NULL;
}

/* With all signals blocked, which are for the threads of the program. */
static int start_thread(struct dp_debuginfod *debuginfod)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&debuginfod->thread, NULL, run, debuginfod);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	debuginfod->has_thread = r == 0;
	return -r;
}

/* Waits for the thread to end. Returns false if it does not, and then it has got @debuginfod. */
static bool end_thread(struct dp_debuginfod *debuginfod)
{
	struct timespec end;
	bool has_ended;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&debuginfod->lock);
	atomic_store(&debuginfod->stop, true);
	pthread_cond_signal(&debuginfod->wake);
	while (r == 0 && !debuginfod->has_ended)
		r = pthread_cond_timedwait(&debuginfod->ended, &debuginfod->lock, &end);
	has_ended = debuginfod->has_ended;
	debuginfod->is_abandoned = !has_ended;
	if (!has_ended)
		pthread_detach(debuginfod->thread);
	pthread_mutex_unlock(&debuginfod->lock);
	if (has_ended)
		pthread_join(debuginfod->thread, NULL);
	return has_ended;
}

void dp_debuginfod_free(struct dp_debuginfod *debuginfod)
{
	if (!debuginfod || (debuginfod->has_thread && !end_thread(debuginfod)))
		return;
	destroy(debuginfod);
}

/* Puts a question at the end. Returns false if there is no room or no thread for it. */
static bool add_question(struct dp_debuginfod *debuginfod, const uint8_t *build_id, size_t n_bytes)
{
	struct question *question = &debuginfod->questions[debuginfod->n_asked];

	if (debuginfod->n_asked == MAX_QUESTIONS ||
	    (!debuginfod->has_thread && start_thread(debuginfod) < 0)) {
		debuginfod->stats.n_over_limit++;
		return false;
	}
	memcpy(question->build_id, build_id, n_bytes);
	question->n_bytes = n_bytes;
	question->state = DP_DEBUGINFOD_PENDING;
	debuginfod->n_asked++;
	debuginfod->stats.n_asked++;
	pthread_cond_signal(&debuginfod->wake);
	return true;
}

enum dp_debuginfod_state dp_debuginfod_ask(struct dp_debuginfod *debuginfod,
					   const uint8_t *build_id, size_t n_bytes,
					   const struct dp_separate_files **ret)
{
	enum dp_debuginfod_state state = DP_DEBUGINFOD_MISSING;
	struct question *question = debuginfod->questions;
	size_t i = 0;

	if (n_bytes == 0 || n_bytes > DP_MODULE_BUILD_ID_MAX)
		return state;
	pthread_mutex_lock(&debuginfod->lock);
	while (i < debuginfod->n_asked && (question[i].n_bytes != n_bytes ||
					   memcmp(question[i].build_id, build_id, n_bytes) != 0))
		i++;
	if (i < debuginfod->n_asked || add_question(debuginfod, build_id, n_bytes))
		state = question[i].state;
	if (state == DP_DEBUGINFOD_FOUND)
		*ret = &question[i].files;
	pthread_mutex_unlock(&debuginfod->lock);
	return state;
}

uint64_t dp_debuginfod_n_answered(struct dp_debuginfod *debuginfod)
{
	uint64_t n;

	pthread_mutex_lock(&debuginfod->lock);
	n = debuginfod->n_answered;
	pthread_mutex_unlock(&debuginfod->lock);
	return n;
}

void dp_debuginfod_get_stats(struct dp_debuginfod *debuginfod, struct dp_debuginfod_stats *ret)
{
	pthread_mutex_lock(&debuginfod->lock);
	*ret = debuginfod->stats;
	pthread_mutex_unlock(&debuginfod->lock);
}
