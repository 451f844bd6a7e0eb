package rootfs

import (
	"context"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// ioctl numbers of linux/include/uapi/linux/fs.h (v6.12): _IOWR('X', 119, int), _IOWR('X', 120, int) and
// _IOWR('X', 121, struct fstrim_range). The same on amd64 and arm64.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
	fiTrim   = 0xC0185879
)

// Freezer freezes file systems for a snapshot and thaws them. While they are frozen, whoever writes to one of them waits:
// services are frozen before, and rouse itself must not write there until Thaw.
type Freezer struct {
	// Want are mount points, or "all". Keep are paths that rouse writes to at any time: their file systems are left out.
	Want, Keep []string

	mu     sync.Mutex // not held while the kernel freezes
	frozen []*os.File // in the order in which they were frozen
}

// Frozen tells what a Freeze did.
type Frozen struct {
	Targets []string `json:"frozen,omitempty"`
	Skipped []Skip   `json:"skipped,omitempty"`
}

// each opens what Want names and calls do with it, a file system before the one that it, its loop device's file or its upper
// layer lies on. Those were mounted before it, so it is the reverse order of first mounts. What is mounted is read in the
// mount namespace of the calling thread. do takes dir over; an error of it
// that is no reason to go on ends it.
func (f *Freezer) each(done *Frozen, do func(dir *os.File) error) error {
	if len(f.Want) == 0 {
		return nil
	}
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	all := parseFilesystems(string(text))
	done.Skipped = planFreeze(all, f.Want, f.Keep)
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		if s.chosen {
			err = s.with(do)
		}
		at := s.targets[0]
		switch {
		case s.chosen && err == nil:
			done.Targets = append(done.Targets, at)
		case s.chosen && s.reason == "":
			return fmt.Errorf("%s: %w", at, err)
		case s.reason != "":
			done.Skipped = append(done.Skipped, Skip{at, s.reason})
		}
	}
	return nil
}

// with opens a place of s where nothing else is mounted above, and calls do.
func (s *filesystem) with(do func(*os.File) error) error {
	err := error(unix.ENOENT)
	s.reason = "other mounts cover it"
	for i := len(s.targets) - 1; i >= 0; i-- {
		fd, oerr := unix.Open(s.targets[i], unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if oerr != nil {
			continue
		}
		dir := os.NewFile(uintptr(fd), s.targets[i])
		var st unix.Stat_t
		// Subvolumes of btrfs show other numbers than mountinfo; there is no asking.
		if unix.Fstat(fd, &st) != nil || s.kind != "btrfs" && s.device != deviceName(st.Dev) {
			dir.Close()
			continue
		}
		switch err = do(dir); err {
		case unix.EOPNOTSUPP, unix.ENOTTY:
			s.reason = "it cannot be frozen"
		case unix.EBUSY:
			s.reason = "somebody else has frozen it"
		default:
			s.reason = ""
		}
		return err
	}
	return err
}

func deviceName(dev uint64) string {
	return strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev)))
}

// Freeze writes everything back and freezes what Want names, each once. On an error all are thawed again. The kernel
// cannot be interrupted in it: one that is not frozen when ctx ends is thawed as soon as it is.
func (f *Freezer) Freeze(ctx context.Context) (done Frozen, err error) {
	err = f.each(&done, func(dir *os.File) error { return f.freeze(ctx, dir) })
	if err != nil {
		_ = f.Thaw() // what it could not thaw it tries again when it is called next
	}
	return done, err
}

func (f *Freezer) freeze(ctx context.Context, dir *os.File) error {
	result := make(chan error, 1)
	go guard.Do(func() { result <- control(dir, fiFreeze, nil) }) // it sleeps in the kernel until all is written
	select {
	case err := <-result:
		if err != nil {
			dir.Close()
			return err
		}
		f.mu.Lock()
		f.frozen = append(f.frozen, dir)
		f.mu.Unlock()
		return nil
	case <-ctx.Done():
		go guard.Do(func() {
			if <-result == nil {
				_ = control(dir, fiThaw, nil)
			}
			dir.Close()
		})
		return context.Cause(ctx)
	}
}

// Thaw thaws what Freeze has frozen, the last first. Called again it does nothing. What fails is tried again by the next
// Thaw.
func (f *Freezer) Thaw() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.frozen) - 1; i >= 0; i-- {
		dir := f.frozen[i]
		// EINVAL is one that somebody else has thawed.
		if err := control(dir, fiThaw, nil); err != nil && err != unix.EINVAL {
			return fmt.Errorf("thaw %s: %w", dir.Name(), err)
		}
		dir.Close()
		f.frozen = f.frozen[:i]
	}
	return nil
}

// ThawAll thaws every file system that Want names, whoever has frozen it: one may be left frozen by a rouse that was killed,
// and nobody would ever thaw it.
func (f *Freezer) ThawAll() error {
	return f.each(&Frozen{}, func(dir *os.File) error {
		_ = control(dir, fiThaw, nil) // EINVAL: it was not frozen
		return dir.Close()
	})
}

// Trim tells the devices below what Want names which blocks are free, and returns how many bytes that were. A device
// that cannot be told is passed over.
func (f *Freezer) Trim() (total uint64, err error) {
	err = f.each(&Frozen{}, func(dir *os.File) error {
		// struct fstrim_range { __u64 start; __u64 len; __u64 minlen; }; len comes back as what was trimmed.
		area := [3]uint64{0, 1<<64 - 1, 0}
		if control(dir, fiTrim, unsafe.Pointer(&area)) == nil {
			total += area[1]
		}
		return dir.Close()
	})
	return total, err
}

func control(dir *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// Sync writes all file systems back; what does not come to its end is left alone with it when ctx ends.
func Sync(ctx context.Context) error {
	done := make(chan struct{})
	go guard.Do(func() { unix.Sync(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
