/* SPDX-License-Identifier: Apache-2.0 */
/*
 * N watchers, each a thread: woken, and answering.
 *
 *   fanout read PATH N   each blocks in read, and acknowledges with write
 *   fanout poll PATH N   each blocks in poll, reads the mapped page, acknowledges
 *   fanout page PATH N   each waits by futex on the mapped page, and acknowledges
 *   fanout floor - N     the same work without a device: an eventfd per watcher,
 *                        answers through a pipe; does rounds as told on stdin and
 *                        prints their nanoseconds, and those of CPU time
 *   fanout confirm - N   as floor, but each watcher says who it is and waits for
 *                        the verdict on its answer, as write on the device does
 *
 * Prints "ready" when all are tracked.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include "sysgenid.h"

static const char *path;
static int by_poll, by_page, confirmed;
static int answers[2];
static const volatile uint32_t *page;
static uint32_t first; /* generation before any thread began: a bump may come before it runs */

static void __attribute__((noreturn)) fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *watch(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint32_t generation, seen = first;

	for (;;) {
		if (by_page) {
			if ((generation = *page) == seen) {
				syscall(SYS_futex, page, FUTEX_WAIT, seen, 0, 0, 0);
				continue;
			}
			seen = generation;
		} else if (by_poll) {
			if (poll(&p, 1, -1) != 1)
				continue;
			generation = *page;
		} else if (read(fd, &generation, 4) != 4) {
			continue;
		}
		while (write(fd, &generation, 4) != 4 && errno == EINTR)
			;
	}
	return 0;
}

static void *answer(void *arg)
{
	int fd = (int)(intptr_t)arg;
	uint64_t n;

	for (;;) {
		if (read(fd, &n, 8) != 8)
			continue;
		if (write(answers[1], &fd, sizeof(fd)) != sizeof(fd))
			return 0;
		while (confirmed && read(fd, &n, 8) != 8)
			;
	}
}

static void threads(int n, const int *fds, void *(*f)(void *))
{
	pthread_attr_t attr;
	pthread_t t;
	int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16384);
	for (i = 0; i < n; i++)
		if (pthread_create(&t, &attr, f, (void *)(intptr_t)fds[i]))
			fail("pthread_create");
}

static long long nanoseconds(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		fail("clock_gettime");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void round_floor(int n, const int *fds, clockid_t theirs)
{
	static int buf[16384];
	uint64_t one = 1;
	long long began, spent;
	int i, j, got;

	began = nanoseconds(CLOCK_MONOTONIC);
	spent = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) + nanoseconds(theirs);
	for (i = 0; i < n; i++)
		if (write(fds[i], &one, 8) != 8)
			fail("write");
	for (i = 0; i < n; i += got) {
		if ((got = read(answers[0], buf, sizeof(buf))) <= 0)
			fail("read");
		got /= sizeof(*buf); /* writes of so few bytes are atomic */
		for (j = 0; confirmed && j < got; j++)
			if (write(buf[j], &one, 8) != 8)
				fail("write");
	}
	began = nanoseconds(CLOCK_MONOTONIC) - began;
	printf("%lld %lld\n", began, nanoseconds(CLOCK_PROCESS_CPUTIME_ID) + nanoseconds(theirs) - spent);
}

int main(int argc, char **argv)
{
	char line[64];
	int i, n, *fds;
	struct sysgenid s;
	clockid_t theirs;
	pid_t child;

	if (argc != 4)
		return 2;
	path = argv[2];
	n = atoi(argv[3]);
	fds = calloc(n, sizeof(int));
	setvbuf(stdout, 0, _IOLBF, 0);
	confirmed = !strcmp(argv[1], "confirm");
	if (!confirmed && strcmp(argv[1], "floor")) {
		by_poll = !strcmp(argv[1], "poll");
		by_page = !strcmp(argv[1], "page");
		if (sysgenid_open(&s, path))
			fail(path);
		page = s.page;
		first = *page;
		for (i = 0; i < n; i++)
			if ((fds[i] = open(path, O_RDWR)) < 0 || ioctl(fds[i], SYSGENID_SET_WATCHER_TRACKING, 1UL))
				fail(path);
		threads(n, fds, watch);
		printf("ready\n");
		while (fgets(line, sizeof(line), stdin))
			;
		return 0;
	}
	if (pipe(answers))
		fail("pipe");
	for (i = 0; i < n; i++)
		/* a verdict and the next round's wake may both be waiting */
		if ((fds[i] = eventfd(0, confirmed ? EFD_SEMAPHORE : 0)) < 0)
			fail("eventfd");
	switch (child = fork()) {
	case -1:
		fail("fork");
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		threads(n, fds, answer);
		pause();
	}
	if (clock_getcpuclockid(child, &theirs))
		fail("clock_getcpuclockid");
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin))
		round_floor(n, fds, theirs);
	kill(0, SIGTERM);
	return 0;
}
