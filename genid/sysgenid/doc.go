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
// What it costs. A load is a load. A bump costs each watcher two FUSE requests if it blocks in read (the read and
// the acknowledgement) and three if it polls (poll asks before it sleeps and when it wakes), and each makes its
// thread sleep and wake once more. An eventfd that is answered through a pipe has one such cycle, and gives no
// verdict on the answer: beside one that does, 1000 readers take 1.6 to 1.8 times as long until the last
// acknowledgement, beside one that does not 2.5 to 3 (BenchmarkFanout, Linux 6.18, two processors). Of the server's time
// then, seven tenths are the scheduler's (waking threads, and being preempted by them), an eighth is the kernel's
// FUSE, and a ninth this package's and Go's. Real-time priority, batches of requests and busy waiting were tried, and
// move less than the measurement's noise.
//
// The state of all open file descriptions is in core, which is pure and knows
// neither FUSE nor files; wire has the layouts; *_linux.go has the effects.
package sysgenid
