/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the whole interface in C, run by TestC: prints what is wrong. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "sysgenid.h"

static int failed;

static void expect(const char *what, long got, int err, long want, int want_err)
{
	if (got == want && (got >= 0 || err == want_err))
		return;
	printf("%s: %ld (%s), want %ld (%s)\n", what, got, strerror(err), want, strerror(want_err));
	failed = 1;
}

#define OK(what, call, want)  do { errno = 0; long r_ = (call); expect(what, r_, errno, want, 0); } while (0)
#define ERR(what, call, want) do { errno = 0; long r_ = (call); expect(what, r_, errno, -1, want); } while (0)

int main(int argc, char **argv)
{
	struct sysgenid s;
	struct pollfd p;
	uint32_t word[2] = {0, 0};
	int fd, copy;
	void *page;

	if (argc < 2 || sysgenid_open(&s, argv[1])) {
		perror("open");
		return 1;
	}
	OK("generation", sysgenid_generation(&s), 0);
	fd = open(argv[1], O_RDWR | O_NONBLOCK);
	OK("open", fd < 0, 0);
	p.fd = fd;
	p.events = POLLIN;

	OK("read of 0", read(fd, word, 0), 0);
	ERR("read of 3", read(fd, word, 3), EINVAL);
	ERR("read up to date", read(fd, word, 4), EAGAIN);
	OK("poll up to date", poll(&p, 1, 0), 0);
	OK("trigger", ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 5UL), 0);
	OK("mapped", sysgenid_generation(&s), 5);
	OK("poll outdated", poll(&p, 1, 0), 1);
	OK("events", p.revents, POLLIN);
	OK("read", read(fd, word, 8), 4);
	OK("value", word[0], 5);
	OK("read again", read(fd, word, 4), 4);
	ERR("write of 8", write(fd, word, 8), ENOBUFS);
	word[1] = 4;
	ERR("write of another value", write(fd, &word[1], 4), EINVAL);
	OK("track", ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1UL), 0);
	ERR("wait, outdated oneself", ioctl(fd, SYSGENID_WAIT_WATCHERS, 0UL), EINTR);
	OK("acknowledge elsewhere", sysgenid_ack(&s, 5), 0);
	ERR("wait for another", ioctl(s.fd, SYSGENID_WAIT_WATCHERS, 10UL), ETIME);
	copy = dup(fd);
	OK("acknowledge the copy", write(copy, word, 4), 4);
	ERR("read the original", read(fd, word, 4), EAGAIN);
	OK("wait for nobody", ioctl(s.fd, SYSGENID_WAIT_WATCHERS, 0UL), 0);
	ERR("other ioctl", ioctl(fd, _IO(0xE4, 4), 0UL), EINVAL);
	OK("trigger", ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL), 0);
	OK("wait", sysgenid_wait(&s, word), 0);
	OK("value", word[0], 6);
	OK("close", close(fd), 0);
	OK("acknowledge", sysgenid_ack(&s, 6), 0);
	ERR("the copy is still tracked", ioctl(s.fd, SYSGENID_WAIT_WATCHERS, 10UL), ETIME);
	OK("close", close(copy), 0);
	OK("nobody is", ioctl(s.fd, SYSGENID_WAIT_WATCHERS, 60000UL), 0);

	fd = open(argv[1], O_RDONLY);
	page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK("writable mapping", page == MAP_FAILED, 1);
	page = mmap(0, 4, PROT_READ, MAP_SHARED, fd, 0);
	OK("mapping", page == MAP_FAILED, 0);
	close(fd);
	OK("trigger", ioctl(s.fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL), 0);
	OK("mapping outlives close", *(volatile uint32_t *)page, 7);
	OK("close", sysgenid_close(&s), 0);
	if (!failed)
		printf("conforms\n");
	return failed;
}
