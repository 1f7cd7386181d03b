/* SPDX-License-Identifier: MIT */
/*
 * The workload of `make demo`: a toy server without a network. A few workers parse requests, keep
 * sessions and look things up in a cache; requests and sessions are freed, the cache only grows,
 * and now and then a snapshot is saved while the workers wait for the lock. The profiles should say
 * so: parse_* high in alloc_space, cache_insert highest in inuse_space, save_snapshot first in
 * mutex, handle_request in block.
 *
 * Prints `ready PID`, runs until stdin is closed or SIGTERM or SIGINT arrives.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define N_WORKERS 3
#define REQUESTS_PER_SECOND 500 /* of each worker; some 10 allocations a request */
#define N_HEADERS 6
#define SNAPSHOT_EVERY_NS 10000000
#define SNAPSHOT_TAKES_NS 1000000
#define N_SESSIONS 2048
#define CACHE_MAX_BYTES (256u << 20) /* a demo that is forgotten must not eat the machine */

struct request {
	char *path;
	char *headers[N_HEADERS];
	char *body;
	size_t body_bytes;
};

struct session {
	uint64_t user;
	char *token;
	char *cart;
};

struct cache_entry {
	struct cache_entry *next;
	char *page;
};

struct server {
	pthread_mutex_t lock; /* of sessions and cache */
	struct session *sessions[N_SESSIONS];
	struct cache_entry *cache;
	size_t cache_bytes;
	atomic_bool stop;
	atomic_ulong n_requests;
	atomic_ulong n_snapshots;
};

struct worker {
	pthread_t thread;
	struct server *server;
	uint64_t random;
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

__attribute__((noinline)) static char *copy_string(const char *text, size_t pad_bytes)
{
	size_t n = strlen(text);
	char *copy = must(malloc(n + pad_bytes + 1));

	memcpy(copy, text, n);
	memset(copy + n, '.', pad_bytes);
	copy[n + pad_bytes] = '\0';
	return copy;
}

__attribute__((noinline)) static void parse_headers(struct request *request, uint64_t *random)
{
	static const char *const names[N_HEADERS] = {"Host",   "Accept", "Cookie",
						     "Origin", "Range",	 "User-Agent"};

	for (size_t i = 0; i < N_HEADERS; i++)
		request->headers[i] = copy_string(names[i], next_random(random) % 200);
}

__attribute__((noinline)) static void parse_body(struct request *request, uint64_t *random)
{
	request->body_bytes = 512 + next_random(random) % 8192;
	request->body = must(malloc(request->body_bytes));
	memset(request->body, 'x', request->body_bytes);
}

__attribute__((noinline)) static struct request *parse_request(uint64_t *random)
{
	struct request *request = must(malloc(sizeof(*request)));

	request->path = copy_string("/index", next_random(random) % 60);
	parse_headers(request, random);
	parse_body(request, random);
	return request;
}

static void request_free(struct request *request)
{
	for (size_t i = 0; i < N_HEADERS; i++)
		free(request->headers[i]);
	free(request->path);
	free(request->body);
	free(request);
}

__attribute__((noinline)) static struct session *session_create(uint64_t user)
{
	struct session *session = must(malloc(sizeof(*session)));

	session->user = user;
	session->token = copy_string("token", 32);
	session->cart = copy_string("cart", 900);
	return session;
}

static void session_free(struct session *session)
{
	if (!session)
		return;
	free(session->token);
	free(session->cart);
	free(session);
}

/* The slot's session, replaced when it is another user's: as many are freed as are made. */
__attribute__((noinline)) static void session_touch(struct server *server, uint64_t user)
{
	struct session **slot = &server->sessions[user % N_SESSIONS];

	if (*slot && (*slot)->user == user)
		return;
	session_free(*slot);
	*slot = session_create(user);
}

/* Nothing is ever taken out: this is the leak to be found. */
__attribute__((noinline)) static void cache_insert(struct server *server, size_t page_bytes)
{
	struct cache_entry *entry = must(malloc(sizeof(*entry)));

	entry->page = must(malloc(page_bytes));
	memset(entry->page, 'p', page_bytes);
	entry->next = server->cache;
	server->cache = entry;
	server->cache_bytes += page_bytes;
}

__attribute__((noinline)) static void cache_lookup(struct server *server, uint64_t *random)
{
	int hit = next_random(random) % 8 != 0;

	if (!hit && server->cache_bytes < CACHE_MAX_BYTES)
		cache_insert(server, 2048 + next_random(random) % 4096);
}

__attribute__((noinline)) static void handle_request(struct worker *worker)
{
	struct request *request = parse_request(&worker->random);
	struct server *server = worker->server;

	pthread_mutex_lock(&server->lock);
	session_touch(server, next_random(&worker->random) % (2 * N_SESSIONS));
	cache_lookup(server, &worker->random);
	pthread_mutex_unlock(&server->lock);
	request_free(request);
	atomic_fetch_add(&server->n_requests, 1);
}

static void sleep_ns(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Writes all to a slow disk, and holds the lock for so long: this is the stall to be found. */
__attribute__((noinline)) static void save_snapshot(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	sleep_ns(SNAPSHOT_TAKES_NS);
	pthread_mutex_unlock(&server->lock);
	atomic_fetch_add(&server->n_snapshots, 1);
}

static void *run_saver(void *context)
{
	struct server *server = context;

	while (!atomic_load(&server->stop)) {
		save_snapshot(server);
		sleep_ns(SNAPSHOT_EVERY_NS);
	}
	return NULL;
}

static void *run_worker(void *context)
{
	const long pause_ns = 1000000000 / REQUESTS_PER_SECOND;
	struct worker *worker = context;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	while (!atomic_load(&worker->server->stop)) {
		handle_request(worker);
		next.tv_nsec += pause_ns;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return NULL;
}

/* Waits until stdin is closed or a signal of @signals, which are blocked, arrives. */
static int wait_for_the_end(const sigset_t *signals)
{
	struct pollfd fds[2] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = signalfd(-1, signals, SFD_CLOEXEC), .events = POLLIN},
	};
	char ignored[256];

	if (fds[1].fd < 0)
		return -1;
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			return -1;
		if (fds[1].revents)
			return 0;
		if (fds[0].revents && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
			return 0;
	}
}

int main(void)
{
	static struct server server = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct worker workers[N_WORKERS];
	pthread_t saver;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);

	for (size_t i = 0; i < N_WORKERS; i++) {
		workers[i] = (struct worker){.server = &server, .random = i + 1};
		if (pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]) != 0) {
			perror("demo: pthread_create");
			return 1;
		}
	}
	if (pthread_create(&saver, NULL, run_saver, &server) != 0) {
		perror("demo: pthread_create");
		return 1;
	}
	printf("ready %d\n", (int)getpid());
	fflush(stdout);

	if (wait_for_the_end(&signals) < 0) {
		perror("demo: poll");
		return 1;
	}
	atomic_store(&server.stop, true);
	for (size_t i = 0; i < N_WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_join(saver, NULL);
	for (size_t i = 0; i < N_SESSIONS; i++)
		session_free(server.sessions[i]);
	fprintf(stderr, "demo: %lu requests, %zu bytes cached\n", atomic_load(&server.n_requests),
		server.cache_bytes);
	return 0;
}
