package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// FindDevice waits for the device that text names (see ParseDevice), and returns its path and what it holds. With wait 0 it looks
// once. The error lists the devices there are, with their labels.
func FindDevice(text string, wait time.Duration) (path string, fs Filesystem, err error) {
	spec, err := ParseDevice(text)
	if err != nil {
		return "", fs, err
	}
	// Events are subscribed to before the first look, so that none is missed between the two.
	events, err := openUevents()
	if err == nil {
		defer unix.Close(events)
	}
	for deadline := time.Now().Add(wait); err == nil; {
		var seen string
		if path, seen = look(&spec, &fs); path != "" {
			return path, fs, nil
		}
		left := time.Until(deadline)
		if left > 0 {
			err = awaitUevent(events, left)
		} else {
			err = errors.New("not there within " + wait.String() + "; there are: " + seen + "; is its driver's module loaded (virtio_blk, virtio_scsi, nvme)?")
		}
	}
	return "", fs, fmt.Errorf("device %s: %w", text, err)
}

// openUevents listens to the kernel's own announcements of devices (multicast group 1).
func openUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("listen to uevents: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return -1, errors.Join(fmt.Errorf("listen to uevents: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// awaitUevent returns when something was announced, or after the time left. What it was does not matter: the caller looks again.
func awaitUevent(fd int, left time.Duration) error {
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for uevents: %w", err)
	}
	buf := make([]byte, 8192)
	for {
		if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
			return nil // EAGAIN: all read. ENOBUFS: some were lost, which changes nothing.
		}
	}
}

// look goes through the block devices of sysfs; seen are those with a size, for the error.
func look(spec *DeviceSpec, fs *Filesystem) (path, seen string) {
	list, _ := filepath.Glob("/sys/class/block/*")
	for _, sys := range list {
		if size, _ := os.ReadFile(sys + "/size"); strings.TrimSpace(string(size)) == "0" {
			continue // a loop or ram device without backing
		}
		dev := "/dev/" + strings.ReplaceAll(filepath.Base(sys), "!", "/") // sysfs cannot have the slash of cciss/c0d0
		uevent, _ := os.ReadFile(sys + "/uevent")
		if lookAt(dev, fs, &seen) && (dev == spec.Value && spec.Tag == "" || spec.matches(*fs, string(uevent))) {
			return dev, seen
		}
	}
	// Links in /dev that lead to a device, such as those of udev.
	if st, err := os.Stat(spec.Value); spec.Tag == "" && err == nil && st.Mode()&os.ModeDevice != 0 && lookAt(spec.Value, fs, &seen) {
		return spec.Value, seen
	}
	return "", seen
}

// lookAt says in seen what it found, and whether it could read the device.
func lookAt(dev string, fs *Filesystem, seen *string) bool {
	var err error
	what := ""
	if *fs, err = probeFile(dev); err != nil {
		what = err.Error()
	} else {
		what = fs.Type + " label " + strconv.Quote(fs.Label) + " uuid " + strconv.Quote(fs.UUID)
	}
	if *seen != "" {
		*seen += ", "
	}
	*seen += dev + " (" + what + ")"
	return err == nil
}

func probeFile(name string) (Filesystem, error) {
	f, err := os.Open(name)
	if err != nil {
		return Filesystem{}, err
	}
	defer f.Close()
	return Probe(f), nil
}

// Mount mounts the root at target: waits for the device, finds its type, loads what modules that takes and, with Overlay,
// puts a tmpfs above it. Errors say what to look at.
func (r *Root) Mount(target string) error {
	device, kind := r.Device, r.Type
	if !r.shared() {
		path, fs, err := FindDevice(r.Device, r.Wait)
		if err != nil {
			return fmt.Errorf("root: %w", err)
		}
		device = path
		if kind == "" {
			kind = fs.Type
		}
		if kind == "" {
			return fmt.Errorf("root: %s holds no file system that is known; give its type by rootfstype=, or check the disk", path)
		}
	}
	m := &Mount{Source: device, Target: target, Type: kind, Options: r.Options, Mode: modeDirectory, Why: "the root"}
	if r.ReadOnly || r.Overlay || immutable(kind) {
		m.Flags |= ReadOnly
	}
	if r.Overlay {
		return mountOverlay(m)
	}
	loadForType(kind)
	return m.Create()
}

// EnterRoot leaves an initramfs for the root that the kernel command line names, and goes on there without an exec: see
// [ParseRoot], [Root.Mount] and [MoveRoot]. It loads drivers for the devices that are there (Coldplug). A root that the kernel or
// another initramfs has mounted stays, under the overlay if one is asked for. False: there is nothing to do.
// Modules and files of the initramfs are gone afterwards: load and read before. An error is one to power off for.
func EnterRoot(cmdline map[string][]string) (bool, error) {
	root, ok, err := ParseRoot(cmdline)
	if err != nil || !ok {
		return false, err
	}
	if !IsInitramfs() {
		return root.Overlay, root.coverSelf()
	}
	// What fails of it shows when the device does not come; the driver may as well be built in.
	plugged := Coldplug("")
	if err := root.Mount(newRoot); err != nil {
		return false, errors.Join(err, plugged)
	}
	if err := MoveRoot(newRoot); err != nil {
		return false, err
	}
	return true, nil
}

// newRoot is in /tmp, which is a tmpfs by now: a root that is read-only has no place for it, and /run moves along.
const newRoot = "/tmp/newroot"

// coverSelf puts the overlay over the root that this process lives on.
func (r *Root) coverSelf() error {
	if !r.Overlay {
		return nil
	}
	if err := overlay("/", newRoot); err != nil {
		return err
	}
	return MoveRoot(newRoot)
}

// IsInitramfs tells whether the root is the memory that the kernel unpacked its initramfs into.
func IsInitramfs() bool {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return inMemory(fd)
}

// layers holds an overlay's parts. They move along with /run when the root is switched.
const layers = "/run/rouse/root"

func mountOverlay(lower *Mount) error {
	loadForType(lower.Type)
	target := lower.Target
	lower.Target = filepath.Join(layers, "lower")
	if err := lower.Create(); err != nil {
		return err
	}
	return overlay(lower.Target, target)
}

// overlay mounts the folder lower with a tmpfs above it at target.
func overlay(lower, target string) error {
	loadForType("overlay")
	above := filepath.Join(layers, "above")
	upper, work := filepath.Join(above, "upper"), filepath.Join(above, "work")
	err := (&Mount{Source: "above", Target: above, Type: "tmpfs", Flags: NoDevices, Options: "mode=0755", Mode: modeDirectory, Why: "changes to the root"}).Create()
	if err != nil {
		return err
	}
	options := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	for _, dir := range overlayDirs(options) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return (&Mount{Source: "overlay", Target: target, Type: "overlay", Options: options, Mode: modeDirectory, Why: "the root"}).Create()
}

// loadForType is best effort: a type that is not there fails to mount, and that error says so.
func loadForType(kind string) {
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && hasLine(strings.ReplaceAll(string(b), "nodev", ""), "\t"+kind) {
		return
	}
	names := []string{kind}
	if kind == "9p" {
		names = append(names, "9pnet_virtio")
	}
	_ = LoadModules("", names)
}

// MountExtra mounts rows that a configuration asks for, in order. What fails of rows with NoFail is returned apart: the
// guest goes on without them.
func MountExtra(rows []Mount) (skipped []error, err error) {
	var errs []error
	for n := range rows {
		m := &rows[n]
		err := m.createExtra()
		if err != nil && m.NoFail {
			skipped = append(skipped, err)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return skipped, errors.Join(errs...)
}

func (m *Mount) createExtra() error {
	switch {
	case m.Flags&Bind != 0:
		return m.bind()
	case strings.HasPrefix(m.Source, "/dev/") || strings.Contains(m.Source, "="):
		path, fs, err := FindDevice(m.Source, DeviceTimeout)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		m.Source = path
		if m.Type == "auto" {
			m.Type = fs.Type
		}
		if m.Type == "" {
			return fmt.Errorf("mount %s: %s holds no file system that is known; give its type", m.Target, path)
		}
		if immutable(m.Type) {
			m.Flags |= ReadOnly
		}
	case m.Type == "9p" && !strings.Contains(m.Options, "trans="):
		m.Options = strings.Trim(m.Options+",trans=virtio", ",") // what a VMM's share is; the default is tcp
	case m.Type == "overlay":
		for _, dir := range overlayDirs(m.Options) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("mount %s: %w", m.Target, err)
			}
		}
	}
	loadForType(m.Type)
	return m.Create()
}

// bind makes the target like the source, a folder or a file. Flags need a second call: the first one ignores them.
func (m *Mount) bind() error {
	st, err := os.Stat(m.Source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	if err := makeTarget(m.Target, st.IsDir()); err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	if err := unix.Mount(m.Source, m.Target, "", uintptr(m.Flags&(Bind|Recursive)), ""); err != nil {
		return fmt.Errorf("mount %s: bind %s: %w", m.Target, m.Source, err)
	}
	if more := m.Flags &^ (Bind | Recursive); more != 0 {
		if err := unix.Mount("", m.Target, "", uintptr(more|Bind|Remount), ""); err != nil {
			return fmt.Errorf("mount %s: set its options: %w", m.Target, err)
		}
	}
	return nil
}

func makeTarget(target string, dir bool) error {
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
