package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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

// plan reads what is mounted now, in the mount namespace of the calling thread.
func (f *Freezer) plan() ([]filesystem, []Skip, error) {
	if len(f.Want) == 0 {
		return nil, nil, nil
	}
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	plan, skipped := planFreeze(parseFilesystems(string(text)), f.Want, f.Keep)
	return plan, skipped, nil
}

// Freeze writes everything back and freezes what Want names, each once, and after all that lie on it. On an error all are
// thawed again. The kernel cannot be interrupted in it: one that is not frozen when ctx ends is thawed as soon as it is.
func (f *Freezer) Freeze(ctx context.Context) (Frozen, error) {
	var done Frozen
	plan, skipped, err := f.plan()
	if err != nil {
		return done, err
	}
	done.Skipped = skipped
	for _, s := range plan {
		dir, err := s.open()
		if err == nil {
			err = f.freeze(ctx, dir)
		}
		at := s.targets[0]
		switch {
		case err == nil:
			done.Targets = append(done.Targets, at)
			continue
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY):
			done.Skipped = append(done.Skipped, Skip{at, s.kind, "it cannot be frozen"})
		case errors.Is(err, unix.EBUSY):
			done.Skipped = append(done.Skipped, Skip{at, s.kind, "somebody else has frozen it"})
		case errors.Is(err, errCovered):
			done.Skipped = append(done.Skipped, Skip{at, s.kind, err.Error()})
		default:
			return done, errors.Join(fmt.Errorf("freeze %s: %w", at, err), f.Thaw())
		}
	}
	return done, nil
}

var errCovered = errors.New("other mounts cover it")

// open opens a place of s where nothing else is mounted above.
func (s filesystem) open() (*os.File, error) {
	for i := len(s.targets) - 1; i >= 0; i-- {
		fd, err := unix.Open(s.targets[i], unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && s.is(st.Dev) {
			return os.NewFile(uintptr(fd), s.targets[i]), nil
		}
		unix.Close(fd)
	}
	return nil, errCovered
}

// is says that dev is s's. Subvolumes of btrfs show other numbers than mountinfo; there is no asking.
func (s filesystem) is(dev uint64) bool {
	return s.kind == "btrfs" || s.device == fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// freeze takes dir over. The call sleeps in the kernel until all is written, so it has a thread of its own.
func (f *Freezer) freeze(ctx context.Context, dir *os.File) error {
	result := make(chan error, 1)
	go func() { result <- control(dir, fiFreeze, nil) }()
	select {
	case err := <-result:
		if err != nil {
			dir.Close()
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.frozen = append(f.frozen, dir)
		return nil
	case <-ctx.Done():
		go func() {
			if err := <-result; err == nil {
				_ = control(dir, fiThaw, nil)
			}
			dir.Close()
		}()
		return context.Cause(ctx)
	}
}

// Thaw thaws what Freeze has frozen, the last first. Called again it does nothing. One that fails is tried again by the
// next Thaw.
func (f *Freezer) Thaw() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []*os.File
	var errs []error
	for i := len(f.frozen) - 1; i >= 0; i-- {
		dir := f.frozen[i]
		// EINVAL is one that somebody else has thawed.
		if err := control(dir, fiThaw, nil); err != nil && err != unix.EINVAL {
			errs = append(errs, fmt.Errorf("thaw %s: %w", dir.Name(), err))
			left = append([]*os.File{dir}, left...)
			continue
		}
		dir.Close()
	}
	f.frozen = left
	return errors.Join(errs...)
}

// ThawAll thaws every file system that Want names, whoever has frozen it: one may be left frozen by a rouse that was killed,
// and nobody would ever thaw it.
func (f *Freezer) ThawAll() error {
	plan, _, err := f.plan()
	for _, s := range plan {
		if dir, oerr := s.open(); oerr == nil {
			_ = control(dir, fiThaw, nil) // EINVAL: it was not frozen
			dir.Close()
		}
	}
	return err
}

// Trim tells the devices below what Want names which blocks are free, and returns how many bytes that were. A device
// that cannot be told is passed over.
func (f *Freezer) Trim(ctx context.Context) (uint64, error) {
	plan, _, err := f.plan()
	var total uint64
	for _, s := range plan {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		dir, oerr := s.open()
		if oerr != nil {
			continue
		}
		// struct fstrim_range { __u64 start; __u64 len; __u64 minlen; }; len comes back as what was trimmed.
		area := [3]uint64{0, 1<<64 - 1, 0}
		if control(dir, fiTrim, unsafe.Pointer(&area)) == nil {
			total += area[1]
		}
		dir.Close()
	}
	return total, err
}

func control(dir *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// Sync writes all file systems back; one that does not come to its end is left alone with it when ctx ends.
func Sync(ctx context.Context) error {
	done := make(chan struct{})
	began := time.Now()
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sync: not done after %v: %w", time.Since(began).Round(time.Millisecond), context.Cause(ctx))
	}
}
