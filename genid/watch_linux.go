package genid

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch has the identity looked at every interval, and a hint on Events when it has changed. It is for the time
// when nothing is expected: a timer of the kernel's wakes one thread once per look. Go's own timers wake three
// or more, for the runtime's monitor wakes at each of them too.
func (s *Sources) Watch(interval time.Duration) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	every := unix.NsecToTimespec(int64(interval))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("timerfd_settime", err)
	}
	last := s.ID()
	s.follow(os.NewFile(uintptr(fd), "timer"), func(fd int) (ended bool) {
		// Raw: an ordinary system call would wake the monitor. It does not block.
		var expired [8]byte
		_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&expired[0])), uintptr(len(expired)))
		if id := s.ID(); id != last {
			last = id
			s.poke()
		}
		return false
	})
	return nil
}
