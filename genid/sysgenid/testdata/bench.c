/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each call costs a client: bench PATH ROUNDS. Prints "name nanoseconds" a line:
 *
 *   load         the mapped counter
 *   read         of an outdated description
 *   poll         of an outdated description, without waiting
 *   acknowledge  the current generation
 *   trigger      a new generation, nobody waiting
 *   wake         from just before another process's trigger until poll has returned: the median
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "sysgenid.h"

static int rounds;
static const volatile uint32_t *page;

static void __attribute__((noreturn)) fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int described(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK);

	if (fd < 0)
		fail(path);
	return fd;
}

static void trigger(int fd)
{
	if (ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL))
		fail("trigger");
}

static void loads(void)
{
	long long n = 1000LL * rounds, i, began = now();
	uint32_t sum = 0;

	for (i = 0; i < n; i++)
		sum += *page;
	printf("load %.2f\n", (double)(now() - began) / n);
	if (sum == 1)
		printf("\n");
}

static void calls(const char *path)
{
	int fd = described(path), other = described(path), i;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint32_t generation;
	long long began;

	trigger(other);
	began = now();
	for (i = 0; i < rounds; i++)
		if (read(fd, &generation, 4) != 4)
			fail("read");
	printf("read %.0f\n", (double)(now() - began) / rounds);
	began = now();
	for (i = 0; i < rounds; i++)
		if (poll(&p, 1, 0) != 1)
			fail("poll");
	printf("poll %.0f\n", (double)(now() - began) / rounds);
	began = now();
	for (i = 0; i < rounds; i++)
		if (write(fd, &generation, 4) != 4)
			fail("acknowledge");
	printf("acknowledge %.0f\n", (double)(now() - began) / rounds);
	began = now();
	for (i = 0; i < rounds; i++)
		trigger(other);
	printf("trigger %.0f\n", (double)(now() - began) / rounds);
	close(fd);
	close(other);
}

static int ascending(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

static void wakes(const char *path)
{
	volatile long long *begun = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long long *took = calloc(rounds, sizeof(*took));
	int fd = described(path), go[2], i;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint32_t generation;
	char c = 0;

	if (begun == MAP_FAILED || !took || pipe(go))
		fail("wake");
	switch (fork()) {
	case -1:
		fail("fork");
	case 0:
		close(go[1]);
		while (read(go[0], &c, 1) == 1) {
			usleep(200); /* by then the other one sleeps in poll */
			*begun = now();
			trigger(fd);
		}
		_exit(0);
	}
	close(go[0]);
	for (i = 0; i < rounds; i++) {
		if (write(go[1], &c, 1) != 1)
			fail("write");
		if (poll(&p, 1, -1) != 1)
			fail("poll");
		took[i] = now() - *begun;
		generation = *page;
		if (write(fd, &generation, 4) != 4)
			fail("acknowledge");
	}
	close(go[1]);
	wait(0);
	qsort(took, rounds, sizeof(*took), ascending);
	printf("wake %lld\n", took[rounds / 2]);
}

int main(int argc, char **argv)
{
	struct sysgenid s;

	if (argc != 3 || (rounds = atoi(argv[2])) <= 0)
		return 2;
	if (sysgenid_open(&s, argv[1]))
		fail(argv[1]);
	page = s.page;
	loads();
	calls(argv[1]);
	wakes(argv[1]);
	return 0;
}
