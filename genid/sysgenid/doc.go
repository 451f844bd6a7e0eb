// Package sysgenid is /dev/sysgenid: the device served to others, and the
// client that services import.
//
// The easy case. A service opens the device, asks to be tracked, and waits.
// When the virtual machine was cloned the counter goes up; the service throws
// away what a twin also holds (PRNG state, keys, nonces, identifiers) and
// acknowledges. Nothing leaves the guest until all tracked watchers have.
//
//	c, err := sysgenid.Open(sysgenid.Path)
//	...
//	err = c.Watch(ctx, func(ctx context.Context, gen uint32) error { return reseed() })
//
// A library that cannot run a loop compares Generation(), one load from a
// mapped page, with the value it remembers, and is not tracked.
//
// The race. A generation may come at any instruction. So whoever compares
// before an irrevocable step must compare again after having computed what it
// sends (SealThenCheck), and an acknowledgement names the generation it is
// for: one that is no longer current is refused, and the loop goes round once
// more. In the server the order of a bump is counter, page, then wake-ups, so
// that who is woken finds both the counter and the page new.
//
// The mechanism. Where a kernel driver serves the device it is used as it is.
// Else a FUSE mount whose root is one regular file is put over the path,
// straight from /dev/fuse. Three ways, the best that works and cannot be forged:
//
//   - FUSE_PASSTHROUGH (Linux 6.9) to a sealed memfd: a bump is one store.
//   - FUSE_PASSTHROUGH to a second FUSE file that is mounted nowhere (shelf),
//     where the kernel does not apply the seal: seen on 6.12 and 6.18.
//   - The page cache of the device's own file, up to Linux 6.8.
//
// In the latter two FUSE_NOTIFY_STORE changes the page under all mappings. Under
// the mount lies a plain file that holds the counter too: it serves who opens in
// the instant when a broken connection is being replaced, and everyone where the
// kernel has no FUSE.
//
// What differs from the driver: a call that a signal, SIGSTOP or the freezer
// interrupts ends with EINTR and is not restarted; a write of 0 bytes returns 0;
// pread and pwrite may fail with ESPIPE. By page cache, a descriptor opened for
// reading reads the current counter at once instead of blocking (it polls and
// maps as it should), and one opened for writing cannot be mapped. By
// passthrough, only the privileged can map one opened for writing, and a read
// that blocks holds up other reads and writes through the same description, as
// the VFS does for any regular file.
//
// Sleeping on the page. This is more than the driver's interface offers. If bit 0
// of the page's second word is set, whoever waits with FUTEX_WAIT (or
// FUTEX_WAITV), without the private flag, on the counter in a mapping of his is
// woken after every change of it: by one FUTEX_WAKE on the same inode, without a
// request to the server. What one may rely on: the counter is new before the
// wake, an acknowledgement of it is taken at once, and read-only mappings do.
// What not: a wake may come without a change (compare, and sleep again), it is no
// news of a server that died, and a device that is served anew has another page.
// So one sleeps with a time-out, or beside something that ends, and looks then
// whether the path still shows the file that was mapped; statx with
// AT_STATX_DONT_SYNC asks no server. Client does that every 5 s; who slept while
// the connection broke is woken when it is served again, but by page cache learns
// it so. The bit must be looked at in each mapping: it is zero in a kernel
// driver's page, and by page cache from Linux 6.9 on, where each acknowledgement
// drops the page from the cache and all who sleep would fault it in anew (10
// times the floor below; polling 7).
//
// The server names the page by a mapping of its own, of the memfd, the shelf's
// file or the plain file, and by page cache one that it makes for the moment,
// since a lasting one would keep the mount alive after an unmount. Only the
// kernel touches it, in a system call made by the goroutine that bumps: a page
// that had been evicted is faulted in by the goroutine that serves, as for a
// store.
//
// What it costs. A load is a load. A bump costs each watcher one FUSE request,
// the acknowledgement, if it sleeps on the page, two if it blocks in read, and
// three if it polls (poll asks before it sleeps and when it wakes), and each
// makes its thread sleep and wake once more. An eventfd that is answered through
// a pipe has one such cycle, and gives no verdict on the answer. Until the last
// acknowledgement of 1000, one thread each, sleepers take 1.1 to 1.2 times as
// long as an eventfd that does give one, and 2.1 to 2.6 times as long as one that
// does not; readers 1.3 to 1.7 and 2.5 to 3, pollers 2.7 to 2.9 and 3.5 to 3.7
// (BenchmarkFanout, by passthrough, Linux 6.18, two processors, loaded). A Go
// process has one sleeping thread for all its Clients. Of the server's time, most
// is the scheduler's (waking threads, and being preempted by them). Real-time
// priority, batches of requests and busy waiting were tried, and move less than
// the measurement's noise.
//
// The state of all open file descriptions is in core, which is pure and knows
// neither FUSE nor files; wire has the layouts; *_linux.go has the effects.
package sysgenid
