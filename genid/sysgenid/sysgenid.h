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
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SYSGENID_PATH "/dev/sysgenid"

/* Arguments are passed by value. */
#define SYSGENID_SET_WATCHER_TRACKING _IO(0xE4, 1) /* a bool */
#define SYSGENID_WAIT_WATCHERS        _IO(0xE4, 2) /* milliseconds, 0 is for ever */
#define SYSGENID_TRIGGER_GEN_UPDATE   _IO(0xE4, 3) /* the least generation wanted */

struct sysgenid {
	int fd;                        /* reads, acknowledges, polls */
	const volatile uint32_t *page; /* the counter */
};

static inline int sysgenid_close(struct sysgenid *s)
{
	if (s->page)
		munmap((void *)s->page, 4096);
	s->page = 0;
	return close(s->fd);
}

/* A descriptor for reading is mapped and closed: one for writing need not be
 * mappable. */
static inline int sysgenid_open(struct sysgenid *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *page;

	if (fd < 0)
		return -1;
	page = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return -1;
	s->page = (const volatile uint32_t *)page;
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

/* Blocks until there is a generation that was not acknowledged. Freezing the
 * process, as a snapshot does, interrupts the read: hence the loop. */
static inline int sysgenid_wait(struct sysgenid *s, uint32_t *generation)
{
	ssize_t n;

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
	return n == (ssize_t)sizeof(generation) ? 0 : -1;
}

#endif
