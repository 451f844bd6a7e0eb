package sysgenid

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// IsNative says whether path is a kernel driver's device: it is to be used, and
// nothing served over it.
func IsNative(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR
}

// Native is a kernel driver's device, seen by who bumps it. Its methods may be
// used concurrently. The driver tells nobody who its watchers are.
type Native struct {
	path string
	file *os.File
	page *mapping

	mu sync.Mutex // one bump, with its acknowledgement, at a time
}

// OpenNative opens a kernel driver's device, makes it usable by everyone (mode
// 0666), and maps its counter. Our own description stays untracked.
func OpenNative(path string) (*Native, error) {
	if !IsNative(path) {
		return nil, fmt.Errorf("open %s as a kernel driver's device: not a character device: %w", path, unix.ENODEV)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, wrap("open to everyone", err)
	}
	return openNative(path)
}

func openNative(path string) (*Native, error) {
	page, err := mapCounter(path)
	if err != nil {
		return nil, err
	}
	if page.kind != kindDevice {
		unmap(page.page)
		return nil, fmt.Errorf("open %s: %w", path, ErrNoAcknowledge)
	}
	file, err := openDevice(path)
	if err != nil {
		unmap(page.page)
		return nil, err
	}
	return &Native{path: path, file: file, page: page}, nil
}

// Generation returns the current generation.
func (n *Native) Generation() uint32 { return n.page.generation() }

// Path returns the device's path.
func (n *Native) Path() string { return n.path }

// Bump raises the generation to max(least, current+1) and returns the new one.
// An error means that nothing changed, such as EACCES without
// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
func (n *Native) Bump(least uint32) (uint32, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := control(n.file, func(fd uintptr) error { return ioctl(fd, TriggerGenUpdate, uintptr(least)) })
	if err != nil {
		return n.Generation(), wrap("bump "+n.path, err)
	}
	return n.acknowledge()
}

// acknowledge brings our own description up to date, for who is outdated may not
// wait. It goes round again if somebody else bumps in between.
func (n *Native) acknowledge() (uint32, error) {
	for {
		gen := n.Generation()
		err := control(n.file, func(fd uintptr) error { return acknowledge(fd, gen) })
		if !errors.Is(err, unix.EINVAL) {
			return gen, err
		}
	}
}

// nativeSlice is how long one WAIT_WATCHERS lasts. The driver's wait cannot be
// ended from outside but by a signal, so this is how late an ended context is
// noticed; it costs nothing unless somebody waits.
const nativeSlice = 100 * time.Millisecond

// Wait returns once no tracked watcher is outdated, or with the context's error
// up to 100 ms after it ended.
func (n *Native) Wait(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := control(n.file, func(fd uintptr) error {
			return ioctlOnce(fd, WaitWatchers, uintptr(nativeSlice.Milliseconds()))
		})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR): // a signal, or another one's bump
			if _, err := n.acknowledge(); err != nil {
				return wrap("wait for watchers of "+n.path, err)
			}
		case !errors.Is(err, unix.ETIME):
			return wrap("wait for watchers of "+n.path, err)
		}
	}
}

// Watchers returns nothing: the driver does not tell.
func (n *Native) Watchers() []Watcher { return nil }

// Outdated returns nothing: the driver tells only whether there are any (Wait).
func (n *Native) Outdated() []Watcher { return nil }

// Close closes the device, which stays as it is. Generation must not be used
// after it.
func (n *Native) Close() error {
	err := n.file.Close()
	unmap(n.page.page)
	return err
}
