/* The first service of every init that is compared: it says when it began, what the init holds in memory,
 * and how long the init takes to reap orphans. Static and in C, so that it adds as little as can be. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int console = 1;

static void say(const char *format, ...)
{
	char line[256];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	if (write(console, line, n) != n)
		_exit(111);
}

/* The kernel's log has both moments by one clock: when it ran the init, and when we wrote our line. */
static long handover_us(int kmsg)
{
	char record[8192];
	long long run = -1, first = -1;
	ssize_t n;
	while ((n = read(kmsg, record, sizeof record - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		record[n] = 0;
		long long us;
		if (sscanf(record, "%*d,%*d,%lld", &us) != 1)
			continue;
		if (strstr(record, " as init process"))
			run = us;
		if (strstr(record, "bench: first"))
			first = us;
	}
	return run < 0 || first < 0 ? -1 : (long)(first - run);
}

static long pss_of(const char *pid)
{
	char path[64], line[256];
	long kb = 0;
	snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pid);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Pss: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

/* All processes but this program's own: some inits are several. */
static void memory(long *first, long *all)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	char path[300], name[32] = "";
	*all = 0;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
		FILE *f = fopen(path, "r");
		if (!f)
			continue;
		if (!fgets(name, sizeof name, f))
			name[0] = 0;
		fclose(f);
		if (strcmp(name, "probe\n") && strcmp(name, "uinit\n") && strcmp(name, "run\n"))
			*all += pss_of(e->d_name);
	}
	if (d)
		closedir(d);
	*first = pss_of("1");
}

static long long now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* n orphans, each made by a child that is gone at once; until the last of them is reaped. */
static long reap_us(int n)
{
	volatile pid_t *orphan = mmap(NULL, n * sizeof *orphan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long long began = now_us();
	for (int i = 0; i < n; i++) {
		pid_t child = vfork();
		if (child < 0)
			return -1;
		if (child == 0) {
			pid_t p = vfork();
			if (p == 0)
				_exit(0);
			orphan[i] = p;
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	for (int i = 0; i < n; i++)
		while (orphan[i] > 0 && kill(orphan[i], 0) == 0)
			usleep(1000);
	return now_us() - began;
}

static long parameter(const char *name, long otherwise)
{
	char line[4096] = "", *at;
	int fd = open("/proc/cmdline", O_RDONLY);
	if (fd >= 0 && read(fd, line, sizeof line - 1) > 0 && (at = strstr(line, name)))
		return atol(at + strlen(name));
	return otherwise;
}

/* What all threads of PID 1 have done so far: times that one went to sleep, and ns on a processor. */
static void usage(long long *wakeups, long long *ns)
{
	DIR *d = opendir("/proc/1/task");
	struct dirent *e;
	char path[300], line[256];
	long long v;
	*wakeups = *ns = 0;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/1/task/%s/status", e->d_name);
		FILE *f = fopen(path, "r");
		while (f && fgets(line, sizeof line, f))
			if (sscanf(line, "voluntary_ctxt_switches: %lld", &v) == 1)
				*wakeups += v;
		if (f)
			fclose(f);
		snprintf(path, sizeof path, "/proc/1/task/%s/schedstat", e->d_name);
		f = fopen(path, "r");
		if (f && fscanf(f, "%lld", &v) == 1)
			*ns += v;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
}

static void idle(long seconds)
{
	long long w0, w1, c0, c1;
	sleep(5); /* what booting leaves behind */
	usage(&w0, &c0);
	sleep(seconds);
	usage(&w1, &c1);
	say("BENCH idle-wakeups %g per_second\r\nBENCH idle-cpu %g per_mille_of_a_core\r\n", (double)(w1 - w0) / seconds,
	    (double)(c1 - c0) / seconds / 1e6);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "sleep"))
		for (;;)
			pause();
	mknod("/.kmsg", S_IFCHR | 0600, makedev(1, 11));
	int kmsg = open("/.kmsg", O_RDWR | O_NONBLOCK);
	if (write(kmsg, "bench: first\n", 13) != 13)
		return 112;
	mknod("/.console", S_IFCHR | 0600, makedev(5, 1));
	console = open("/.console", O_WRONLY);
	mkdir("/proc", 0555);
	if (access("/proc/self", F_OK))
		mount("proc", "/proc", "proc", 0, NULL);
	usleep(parameter("probe.rest=", 0) * 1000);
	long first, all;
	memory(&first, &all);
	say("\r\nBENCH handover %ld us\r\nBENCH pss-pid1 %ld KiB\r\nBENCH pss-init %ld KiB\r\n", handover_us(kmsg), first, all);
	long n = parameter("probe.orphans=", 0);
	if (n > 0)
		say("BENCH reap %ld us\r\n", reap_us(n));
	if (parameter("probe.idle=", 0) > 0)
		idle(parameter("probe.idle=", 0));
	say("BENCH end 0 -\r\n");
	for (;;)
		pause();
}
