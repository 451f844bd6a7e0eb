package sysgenid

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A server that dies wakes nobody, and its successor wakes only who came after.
// So sleepers look at the path now and then, and more often while it shows
// nothing, or another page. Tests change these.
var (
	lookEvery = 5 * time.Second
	lookAgain = time.Second
)

// sleeper is the one thread of this process that waits for a page to change.
// However many clients the process has, a bump wakes one thread of it.
type sleeper struct {
	page *mapping
	path string
	end  *atomic.Uint32 // 1 when the last client left; a futex of this process

	every, again time.Duration // lookEvery and lookAgain when it began

	clients int // guarded by sleepers.mu

	mu     sync.Mutex
	woken  chan struct{} // closed, and replaced, when clients shall look
	moved  bool          // the path shows another page
	failed bool          // the kernel refuses such waits: clients poll
}

var sleepers struct {
	mu sync.Mutex
	of map[pageID]*sleeper
}

// join returns the sleeper of the client's page; nil if nobody is woken there.
func (c *Client) join() *sleeper {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sleeper == nil && !c.closed && c.kind != kindAbsent {
		if m := c.pages[len(c.pages)-1]; m.wakes() {
			c.sleeper = joinSleeper(m, c.path)
		}
	}
	if c.sleeper == nil || c.sleeper.isFailed() {
		return nil
	}
	return c.sleeper
}

// leave ends the sleeper if this is its last client. c.mu is held.
func (c *Client) leave() {
	s := c.sleeper
	c.sleeper = nil
	if s == nil {
		return
	}
	sleepers.mu.Lock()
	defer sleepers.mu.Unlock()
	if s.clients--; s.clients == 0 {
		delete(sleepers.of, s.page.id)
		s.end.Store(1)
		_, _, _ = unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(s.end)), futexWake|futexPrivateFlag, 1)
	}
}

// sleep waits until there may be another generation than acked.
func (c *Client) sleep(ctx context.Context, s *sleeper, device *os.File, acked uint32) error {
	woken, moved := s.state()
	if c.Generation() != acked {
		return nil
	}
	if moved && device != nil {
		return c.renew(ctx, device)
	}
	select {
	case <-woken:
		return nil
	case <-c.done: // Wait will see it
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sleeper) state() (woken <-chan struct{}, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.woken, s.moved
}

func (s *sleeper) isFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// tell has the clients look.
func (s *sleeper) tell(moved, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved, s.failed = moved, failed
	close(s.woken)
	s.woken = make(chan struct{})
}

// run sleeps until the last client leaves.
func (s *sleeper) run(seen uint32) {
	for was := false; ; {
		if gen := s.page.generation(); gen != seen {
			seen = gen
			s.tell(was, false)
		}
		moved, pause := s.look()
		if moved != was {
			was = moved
			s.tell(moved, false)
		}
		errno := s.futex(seen, pause)
		if s.end.Load() != 0 {
			return
		}
		switch errno {
		case 0, unix.EAGAIN, unix.EINTR, unix.ETIMEDOUT:
		default: // ENOSYS before Linux 5.16, EPERM by a filter of system calls
			s.tell(false, true)
			return
		}
	}
}

// look says whether the path shows another file than the one that is mapped,
// and when to look again. What it asks for, the kernel knows without the server.
func (s *sleeper) look() (moved bool, pause time.Duration) {
	var st unix.Statx_t
	switch err := unix.Statx(unix.AT_FDCWD, s.path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); {
	case err != nil:
		return false, s.again
	case s.page.kind == kindDevice && s.page.id != pageID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}:
		return true, s.again
	}
	return false, s.every
}

// futexWaitv is struct futex_waitv of Linux include/uapi/linux/futex.h.
type futexWaitv struct {
	value    uint64
	address  uint64
	flags    uint32
	reserved uint32
}

// futex32 is FUTEX_32, the size of the word, in futexWaitv.
const futex32 = 2

// futex sleeps while the page shows seen and a client is left. It wants the
// time-out as a point in time.
func (s *sleeper) futex(seen uint32, pause time.Duration) syscall.Errno {
	var until unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &until) // fails for unknown clocks only
	until = unix.NsecToTimespec(until.Nano() + pause.Nanoseconds())
	words := [...]futexWaitv{
		{value: uint64(seen), address: uint64(uintptr(unsafe.Pointer(&s.page.page[0]))), flags: futex32},
		{value: 0, address: uint64(uintptr(unsafe.Pointer(s.end))), flags: futex32 | futexPrivateFlag},
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX_WAITV, uintptr(unsafe.Pointer(&words[0])), uintptr(len(words)), 0,
		uintptr(unsafe.Pointer(&until)), unix.CLOCK_MONOTONIC, 0)
	runtime.KeepAlive(s)
	return errno
}
