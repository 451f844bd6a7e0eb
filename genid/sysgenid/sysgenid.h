/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysgenid.h: notice that this (virtual) machine was cloned.
 *
 * A generation counter that goes up at every clone, read from a mapped page
 * without a system call; and, for who wants others to wait for it, a way to
 * acknowledge. Works with rouse's /dev/sysgenid and with the kernel driver.
 *
 *   struct sysgenid s;
 *   if (sysgenid_open(&s, SYSGENID_PATH) == 0 && sysgenid_track(&s, 1) == 0)
 *       while (sysgenid_wait(&s, &generation) == 0) {
 *           ... new keys, new seeds ...
 *           sysgenid_ack(&s, generation);
 *       }
 *
 * Functions return 0, or -1 with errno. All in this file; link nothing.
 */
#ifndef SYSGENID_H
#define SYSGENID_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SYSGENID_PATH "/dev/sysgenid"

/* Arguments are passed by value. */
#define SYSGENID_SET_WATCHER_TRACKING _IO(0xE4, 1) /* a bool */
#define SYSGENID_WAIT_WATCHERS        _IO(0xE4, 2) /* milliseconds, 0 is for ever */
#define SYSGENID_TRIGGER_GEN_UPDATE   _IO(0xE4, 3) /* the least generation wanted */

/* In the page's second word: FUTEX_WAIT on the first one is woken after it
 * changed. The kernel driver has zero there. */
#define SYSGENID_PAGE_WAKES 1

struct sysgenid {
	int fd;                        /* reads, acknowledges, polls */
	const volatile uint32_t *page; /* the counter */
	uint32_t acknowledged;
	const char *path; /* the caller's */
	struct stat file; /* what was mapped */
};

static inline int sysgenid_close(struct sysgenid *s)
{
	if (s->page)
		munmap((void *)s->page, 4096);
	s->page = 0;
	return close(s->fd);
}

/* A descriptor for reading is mapped and closed: one for writing need not be
 * mappable. path must stay valid. */
static inline int sysgenid_open(struct sysgenid *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *page;

	if (fd < 0)
		return -1;
	page = fstat(fd, &s->file) ? MAP_FAILED : mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return -1;
	s->path = path;
	s->page = (const volatile uint32_t *)page;
	s->acknowledged = *s->page;
	s->fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->fd >= 0)
		return 0;
	fd = errno;
	munmap(page, 4096);
	errno = fd;
	return -1;
}

/* The current generation. Compare for equality only. */
static inline uint32_t sysgenid_generation(const struct sysgenid *s)
{
	return *s->page;
}

/* Whether others shall wait for our acknowledgements. */
static inline int sysgenid_track(struct sysgenid *s, int on)
{
	return ioctl(s->fd, SYSGENID_SET_WATCHER_TRACKING, (unsigned long)on);
}

/* Sleeps until the page shows another generation than the acknowledged one.
 * Returns 1 if the kernel cannot. Who dies wakes nobody, so the path is looked
 * at now and then; ENOTCONN: another server has come, open again. */
static inline int sysgenid_sleep(struct sysgenid *s, uint32_t *generation)
{
	struct timespec pause = {5, 0};
	struct stat now;

	while ((*generation = *s->page) == s->acknowledged) {
		if (syscall(SYS_futex, s->page, FUTEX_WAIT, s->acknowledged, &pause, 0, 0) &&
		    errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT)
			return 1;
		if (*s->page == s->acknowledged && !stat(s->path, &now) &&
		    (now.st_dev != s->file.st_dev || now.st_ino != s->file.st_ino)) {
			errno = ENOTCONN;
			return -1;
		}
	}
	return 0;
}

/* Blocks until there is a generation that was not acknowledged. Freezing the
 * process, as a snapshot does, interrupts the read: hence the loop. */
static inline int sysgenid_wait(struct sysgenid *s, uint32_t *generation)
{
	ssize_t n = 1;

	if (s->page[1] & SYSGENID_PAGE_WAKES)
		n = sysgenid_sleep(s, generation);
	if (n <= 0)
		return n;
	do
		n = read(s->fd, generation, sizeof(*generation));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*generation) ? 0 : -1;
}

/* Everything has been adjusted to this generation. EINVAL: there is a newer
 * one; adjust again. */
static inline int sysgenid_ack(struct sysgenid *s, uint32_t generation)
{
	ssize_t n;

	do
		n = write(s->fd, &generation, sizeof(generation));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(generation))
		return -1;
	s->acknowledged = generation;
	return 0;
}

#endif
