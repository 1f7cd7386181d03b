// SPDX-License-Identifier: MIT
/*
 * futexes: waits of known number, length and end, made with the raw system calls.
 *
 *   go NAME[,NAME...] ROUNDS HOLD_US  plays each of these scenes so often; answers when done
 *   report                            the truth of every scene so far
 *   names                             what scenes there are
 *   quit                              exit
 *
 * "old" stands for all scenes of futex(2), "newer" for all of later kernels' calls.
 *
 * A scene is one releaser's thread and one or more waiters. The releaser acts when the kernel says
 * that every waiter sleeps, and HOLD_US later; so how often each of them sleeps in a round is known
 * exactly, and so is the function in which each sleep is ended. Threads tell one another through
 * pipes: no futex call is made but those of the scenes.
 *
 * The functions that make the calls bear, in the symbol table, names of the C library's own for a
 * mutex: what waits there waits for a lock, and whoever wakes it is charged.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "futexes.h"

#define MAX_SCENES 40

static struct play plays[MAX_SCENES];
static int done[2], to_child[2];
static _Atomic uint32_t *shared_words;

void fail(const char *what, long result)
{
	target_say("{\"error\":\"%s: %ld\"}", what, result);
	_exit(4);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

struct timespec after_us(clockid_t clock, unsigned us)
{
	struct timespec time = {0};

	if (clock >= 0)
		clock_gettime(clock, &time);
	time.tv_nsec += (long)us * 1000;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	return time;
}

static void make_pipe(int ends[2])
{
	if (pipe(ends) < 0)
		fail("pipe", -errno);
}

void tell(const int ends[2])
{
	if (write(ends[1], "x", 1) != 1)
		_exit(3);
}

static void hear(const int ends[2])
{
	char byte;
	ssize_t n;

	do
		n = read(ends[0], &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(3);
}
/* "__lll_lock_wait" and "_wake": how the C library calls where it waits for and wakes from a lock.
 */
KEEP long lock_call(const struct call *call)
{
	long r = syscall(call->number, call->word, call->a, call->b, call->c, call->other, call->d);

	STAY();
	return r < 0 ? -errno : r;
}

KEEP long unlock_call(const struct call *call)
{
	long r = syscall(call->number, call->word, call->a, call->b, call->c, call->other, call->d);

	STAY();
	return r < 0 ? -errno : r;
}

KEEP long plain_call(const struct call *call)
{
	long r = syscall(call->number, call->word, call->a, call->b, call->c, call->other, call->d);

	STAY();
	return r < 0 ? -errno : r;
}

/* Whether the kernel says that the thread sleeps. Between telling so and its call, it cannot. */
static bool is_asleep(int tid)
{
	char path[64], text[256];
	const char *end;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		fail("stat", tid);
	close(fd);
	text[n] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' && end[2] == 'S';
}

/* Waits until all waiters sleep, and then for the time to hold. */
void hold_on(struct play *play)
{
	for (unsigned i = 0; i < play->scene->n_waiters; i++)
		while (!is_asleep(atomic_load(&play->waiters[i].tid)))
			usleep(100);
	usleep(play->hold_us);
}
/* That it sleeps again can only be told from that it has slept twice. */
unsigned long count_sleeps(int tid)
{
	static const char key[] = "voluntary_ctxt_switches:";
	char path[64], text[4096], *line;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		fail("status", tid);
	close(fd);
	text[n] = 0;
	line = strstr(text, key);
	return line ? strtoul(line + sizeof(key) - 1, NULL, 10) : 0;
}

void no_act(struct play *play)
{
	(void)play;
}

void act_elsewhere(struct play *play)
{
	(void)play;
	tell(to_child);
}

static void be_the_other_process(void)
{
	close(to_child[1]);
	for (;;) {
		hear(to_child);
		syscall(SYS_futex, shared_words, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

KEEP void *waiter_main(void *arg);
KEEP void *waiter_main(void *arg)
{
	struct waiter *waiter = arg;

	atomic_store(&waiter->tid, (int)syscall(SYS_gettid));
	tell(waiter->play->told);
	for (;;) {
		hear(waiter->start);
		tell(waiter->play->told);
		waiter->play->scene->wait(waiter);
		tell(waiter->play->told);
	}
	return NULL;
}

static void hear_all(struct play *play)
{
	for (unsigned i = 0; i < play->scene->n_waiters; i++)
		hear(play->told);
}

/* Whether the waiters are to be found asleep: else they end by themselves. */
static bool is_ended(const struct scene *scene)
{
	return scene->act != no_act;
}

KEEP void *releaser_main(void *arg);
KEEP void *releaser_main(void *arg)
{
	struct play *play = arg;
	const struct scene *scene = play->scene;

	play->tid = (int)syscall(SYS_gettid);
	tell(done);
	for (;;) {
		hear(play->start);
		for (unsigned i = 0; i < play->rounds; i++) {
			scene->hold(play);
			for (unsigned k = 0; k < scene->n_waiters; k++)
				tell(play->waiters[k].start);
			hear_all(play);
			if (is_ended(scene))
				hold_on(play);
			scene->act(play);
			hear_all(play);
			play->n_played++;
			play->held_ns += (uint64_t)scene->n_sleeps * play->hold_us * 1000;
		}
		tell(done);
	}
	return NULL;
}

static void start_thread(void *(*body)(void *), void *arg)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, body, arg);

	if (r)
		fail("pthread_create", r);
}

static void make_play(struct play *play, const struct scene *scene)
{
	play->scene = scene;
	play->word = scene->act == act_elsewhere ? shared_words : &play->own_words[0];
	play->other = &play->own_words[1];
	make_pipe(play->start);
	make_pipe(play->told);
	for (unsigned i = 0; i < scene->n_waiters; i++) {
		play->waiters[i].play = play;
		make_pipe(play->waiters[i].start);
		start_thread(waiter_main, &play->waiters[i]);
	}
	hear_all(play);
	start_thread(releaser_main, play);
	hear(done);
}

/* By its own name, or by that of its sort. */
static bool is_called(const struct scene *scene, const char *name)
{
	return strcmp(name, scene->name) == 0 ||
	       strcmp(name, scene->is_newer ? "newer" : "old") == 0;
}

static void go(char *arguments)
{
	char *list = strtok(arguments, " "), *rounds = strtok(NULL, " "), *hold = strtok(NULL, " ");
	unsigned n_started = 0;

	if (!list || !rounds || !hold)
		fail("go NAME[,NAME...] ROUNDS HOLD_US", 0);
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		unsigned n = 0;

		for (size_t i = 0; i < n_scenes; i++) {
			if (!is_called(&scenes[i], name))
				continue;
			plays[i].rounds = (unsigned)atoi(rounds);
			plays[i].hold_us = (unsigned)atoi(hold);
			tell(plays[i].start);
			n++;
		}
		if (n == 0)
			fail("no such scene", 0);
		n_started += n;
	}
	while (n_started-- > 0)
		hear(done);
	target_say("{}");
}

__attribute__((format(printf, 1, 2))) static void say_part(const char *format, ...)
{
	char text[256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	target_write(text, (size_t)n);
}

static void report_play(const struct play *play)
{
	const struct scene *scene = play->scene;
	uint64_t waited_ns = 0;

	for (unsigned i = 0; i < scene->n_waiters; i++)
		waited_ns += play->waiters[i].waited_ns;
	say_part("\"%s\":{\"waiter\":\"%s\",\"label\":\"%s\",\"sleeps\":%u,\"not_slept\":%u,"
		 "\"waited_ns\":%llu,\"held_ns\":%llu,\"charged\":{",
		 scene->name, scene->waiter_name, scene->is_plain ? "futex" : "mutex",
		 scene->n_sleeps * play->n_played, scene->n_not_slept * play->n_played,
		 (unsigned long long)waited_ns, (unsigned long long)play->held_ns);
	for (unsigned i = 0; i < MAX_CHARGED && scene->charged[i].function; i++)
		say_part("%s\"%s\":%u", i ? "," : "", scene->charged[i].function,
			 scene->charged[i].n * play->n_played);
	say_part("}},");
}

static void report(void)
{
	say_part("{");
	for (size_t i = 0; i < n_scenes; i++)
		report_play(&plays[i]);
	say_part("\"pid\":%d}\n", (int)getpid());
}

static void say_names(bool newer)
{
	bool first = true;

	for (size_t i = 0; i < n_scenes; i++) {
		if (scenes[i].is_newer != newer)
			continue;
		say_part("%s\"%s\"", first ? "" : ",", scenes[i].name);
		first = false;
	}
}

static void make_child(void)
{
	pid_t pid;

	shared_words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared_words == MAP_FAILED)
		fail("mmap", -errno);
	make_pipe(to_child);
	pid = fork();
	if (pid == 0)
		be_the_other_process();
	if (pid < 0)
		fail("fork", -errno);
	close(to_child[0]);
}

static void on_signal(int number)
{
	(void)number;
}

/* The first one interrupts calls, after the second one they are made again. */
static void catch_signals(void)
{
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART},
		  NULL);
}

int main(void)
{
	char line[TARGET_LINE_MAX];

	if (n_scenes > MAX_SCENES)
		return 2;
	make_child();
	catch_signals();
	make_pipe(done);
	for (size_t i = 0; i < n_scenes; i++)
		make_play(&plays[i], &scenes[i]);
	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strncmp(line, "go ", 3) == 0) {
			go(line + 3);
		} else if (strcmp(line, "report") == 0) {
			report();
		} else if (strcmp(line, "names") == 0) {
			say_part("{\"old\":[");
			say_names(false);
			say_part("],\"newer\":[");
			say_names(true);
			say_part("]}\n");
		} else {
			fail("unknown command", 0);
		}
	}
	return 0;
}
