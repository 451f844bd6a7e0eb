package genid

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The sources that only say "now". Each has a goroutine that sleeps in Go's poller, without a thread of
// its own, until its descriptor becomes readable; epoll's state is memory, and so is restored with a VM.

// follow calls drain whenever f may have become readable, until drain says that f has ended or f is
// closed. f has to be non-blocking, and drain must read until nothing is left: the poller tells of edges.
// A descriptor that cannot be awaited has nothing to tell.
func (s *Sources) follow(f *os.File, drain func(fd int) (ended bool)) {
	s.files = append(s.files, f)
	raw, err := f.SyscallConn()
	if err != nil {
		s.log("wait for %s: %v", f.Name(), err)
		return
	}
	s.running.Go(func() {
		// The error says that f is closed, or that it cannot be awaited, such as the vmclock device of
		// kernels whose driver has no poll.
		_ = raw.Read(func(fd uintptr) bool { return drain(int(fd)) })
	})
}

// tale counts the clones that an event source has told of. Where counting is false, another source has
// the identity and the tale is only a hint.
type tale struct {
	s      *Sources
	clones atomic.Uint64
}

func (s *Sources) newTale(name string, counting bool) *tale {
	t := &tale{s: s}
	s.prompt = true
	if counting {
		s.all.members = append(s.all.members, member{name: name, format: func(v reading) string {
			if v[0] == 0 {
				return "" // no clone yet, and nothing that would tell this machine from another
			}
			return counterFormat(name)(v)
		}, read: func() reading { return reading{t.clones.Load()} }})
	}
	return t
}

func (t *tale) clone() {
	t.clones.Add(1)
	t.s.poke()
}

func (s *Sources) addKernelLog(path string, counting bool) error {
	if path == "" {
		return errAbsent
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	// Only what is logged from now on: the boot's lines, and an earlier clone's, are known.
	if _, err := f.Seek(0, unix.SEEK_END); err != nil {
		f.Close()
		return err
	}
	s.followKernelLog(f, unix.Read, counting)
	return nil
}

// kernelRecord is more than any record of /dev/kmsg has (kernel/printk: PRINTK_MESSAGE_MAX is 2048, its
// predecessor CONSOLE_EXT_LOG_MAX 8192).
const kernelRecord = 8192

// followKernelLog reads records with read, which is unix.Read.
func (s *Sources) followKernelLog(f *os.File, read func(fd int, p []byte) (int, error), counting bool) {
	t := s.newTale(SourceKernel, counting)
	buf := make([]byte, kernelRecord)
	s.follow(f, func(fd int) (ended bool) {
		for {
			n, err := read(fd, buf)
			switch {
			case err == unix.EINTR:
			case err == unix.EPIPE:
				// Records were overwritten before we could read them; the next read goes on behind.
				if counting {
					s.log("%s: records were lost; a clone that they told of is not noticed", f.Name())
				}
				s.poke()
			case err != nil || n == 0:
				return err != unix.EAGAIN
			case isCloneRecord(buf[:n]):
				t.clone()
			}
		}
	})
}

func (s *Sources) addUevents(on, counting bool) error {
	if !on {
		return errAbsent
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// Group 1 is the kernel's, 2 is udev's.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("bind", err)
	}
	s.followUevents(os.NewFile(uintptr(fd), SourceUevent), counting)
	return nil
}

// ueventSize is more than any uevent has (include/linux/kobject.h: UEVENT_BUFFER_SIZE is 2048, before
// which stands action@path).
const ueventSize = 8192

func (s *Sources) followUevents(f *os.File, counting bool) {
	t := s.newTale(SourceUevent, counting)
	buf := make([]byte, ueventSize)
	s.follow(f, func(fd int) (ended bool) {
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			switch {
			case err == unix.EINTR:
			case err == unix.ENOBUFS: // events were lost
				s.poke()
			case err != nil || n == 0:
				return err != unix.EAGAIN
			case fromKernel(from) && isCloneUevent(buf[:n]):
				t.clone()
			}
		}
	})
}

// fromKernel refuses what other processes send: the kernel's port is 0.
func fromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}
