package sysgenid

import (
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/guard"
)

// Operations of futex(2), from Linux include/uapi/linux/futex.h. Without the
// private flag, a word in a shared file mapping is known by the file's inode
// and the offset, whoever maps it, and read-only mappings do.
const (
	futexWake        = 1
	futexPrivateFlag = 128
)

// wakeMapped wakes who waits by futex on the counter of the mapped page, which
// is named by a mapping of the very file that clients map. bumps is held.
func (s *Server) wakeMapped() {
	wakeWord(s.base.mem)
	s.mu.Lock()
	c, h := s.conn, s.shelf
	s.mu.Unlock()
	switch {
	case s.memory != nil:
		wakeWord(s.memory.mem)
	case h != nil:
		wakeWord(h.mem)
	case c != nil && c.bits != 0 && s.core.isOpen(): // else nobody sleeps: no mapping without a description
		// Nobody waits for it: the open is answered by another thread of ours, and while the runtime's poller and the
		// kernel's scheduler settle which, a resume would stand still (1 to 15 ms on one processor).
		s.waking.Add(1)
		go guard.Do(func() {
			defer s.waking.Done()
			c.wakeOwn()
		})
	}
}

// wakeOwn wakes who sleeps on the device's own file. It maps that file for a
// moment only: a lasting mapping would keep the mount alive after an unmount.
// The descriptor is nobody's in core: the request to open it is known by its
// thread.
func (c *conn) wakeOwn() {
	c.opening.Lock()
	defer c.opening.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.own.Store(uint32(unix.Gettid()))
	fd, err := unix.Open(c.server.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	c.own.Store(0)
	if err != nil { // not there, hence nobody to wake
		return
	}
	if page, err := unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED); err == nil {
		wakeWord(page)
		unmap(page)
	}
	unix.Close(fd)
}

// wakeWord does the waking. Only the kernel touches the page, in a system call
// that leaves Go's scheduler free: should the page have been evicted, the
// goroutine that serves brings it back meanwhile.
func wakeWord(page []byte) {
	_, _, _ = unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&page[0])), futexWake, math.MaxInt32)
}
