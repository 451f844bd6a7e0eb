package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// MountEarly mounts [EarlyMounts] in order and makes the usual links in /dev. A row that is mounted already
// is left alone. All rows are tried; the errors are joined, each with what the row is for.
func MountEarly() error {
	return errors.Join(MountAll(EarlyMounts()), linkDevices("/dev"))
}

// MountLate mounts [LateMounts]; call it after LoadModules.
func MountLate() error { return MountAll(LateMounts()) }

// MountAll mounts the rows in order, each unless it is there already.
func MountAll(rows []Mount) error {
	var errs []error
	for n := range rows {
		if err := rows[n].Create(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Create makes the target folder if need be and mounts the row, unless it is mounted already.
func (m *Mount) Create() error {
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		if m.MayLack {
			return nil // sysfs lets nobody make a folder: the feature that would have made it is not there
		}
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	if m.present() {
		return nil
	}
	if m.Mode != 0 {
		// For the case that the mount fails and services use the bare folder: /tmp must be sticky then too.
		_ = unix.Chmod(m.Target, m.Mode)
	}
	err := unix.Mount(m.Source, m.Target, m.Type, uintptr(m.Flags), m.Options)
	if errors.Is(err, unix.ENODEV) && m.MayLack {
		return nil
	}
	if errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("this kernel has no file system %s: %w", m.Type, err)
	}
	if err != nil {
		return fmt.Errorf("mount %s (%s): %w", m.Target, m.reason(), err)
	}
	return nil
}

func (m *Mount) reason() string {
	if m.Why != "" {
		return m.Why
	}
	return "from the configuration"
}

// present tells whether the target is a mount point already, of the row's type if that has a magic number. It
// works before /proc is there, hence not from mountinfo. It does not see a bind mount from the same file system.
func (m *Mount) present() bool {
	var here, parent unix.Stat_t
	if unix.Stat(m.Target, &here) != nil || unix.Stat(filepath.Dir(m.Target), &parent) != nil || here.Dev == parent.Dev {
		return false
	}
	if m.Magic == 0 {
		return true
	}
	var fs unix.Statfs_t
	return unix.Statfs(m.Target, &fs) == nil && int64(fs.Type) == m.Magic
}

// linkDevices makes the names in dev that the kernel does not: services open /dev/stdout and /dev/fd/N.
func linkDevices(dev string) error {
	var errs []error
	for _, l := range [][2]string{
		{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
	} {
		if err := os.Symlink(l[1], filepath.Join(dev, l[0])); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// EnableControllers lets the children of the cgroup at root use every controller that it has (memory, cpu, pids,
// io, ...), and returns those that are enabled then. Each is asked for by itself, as one that is taken by a v1
// hierarchy must not cost the others. The freezer is no controller: it works where this list is empty.
func EnableControllers(root string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("cgroup controllers: %w", err)
	}
	control := filepath.Join(root, "cgroup.subtree_control")
	var errs []error
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(control, []byte("+"+c), 0); err != nil {
			errs = append(errs, fmt.Errorf("cgroup controller %s: %w", c, err))
		}
	}
	got, err := os.ReadFile(control)
	if err != nil {
		errs = append(errs, fmt.Errorf("cgroup controllers: %w", err))
	}
	return strings.Fields(string(got)), errors.Join(errs...)
}

// OpenConsole makes /dev/console descriptors 0, 1 and 2 of this process. An init that the kernel started
// before /dev was mounted has the initramfs's own node, or nothing at all, there.
func OpenConsole() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	for to := range 3 {
		if fd == to {
			continue
		}
		if err := unix.Dup3(fd, to, 0); err != nil {
			return fmt.Errorf("open /dev/console as descriptor %d: %w", to, err)
		}
	}
	if fd > 2 {
		return unix.Close(fd)
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0) // it is one of the three: children inherit it
	return err
}
