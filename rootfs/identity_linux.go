package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// overlays is where files lie that could not be written in place because the root is read-only.
const overlays = "/run/rouse/files"

// SetHostname sets the kernel's host name, which must pass [CheckHostname].
func SetHostname(name string) error {
	if err := CheckHostname(name); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname %s: %w", name, err)
	}
	return nil
}

// WriteHosts makes /etc/hosts resolve localhost and hostname; lines of others stay.
func WriteHosts(hostname string) error {
	old, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read /etc/hosts: %w", err)
	}
	return WriteSystemFile("/etc/hosts", []byte(hosts(string(old), hostname)), 0o644)
}

// WriteResolver writes /etc/resolv.conf.
func WriteResolver(r Resolver) error {
	return WriteSystemFile("/etc/resolv.conf", []byte(r.String()), 0o644)
}

// SetMachineID writes /etc/machine-id; id must pass [CheckMachineID].
func SetMachineID(id string) error {
	if err := CheckMachineID(id); err != nil {
		return err
	}
	return WriteSystemFile("/etc/machine-id", []byte(id+"\n"), 0o444)
}

const kernelBootID = "/proc/sys/kernel/random/boot_id"

// BootID is what /proc/sys/kernel/random/boot_id shows: a file mounted over the kernel's, which makes the value once a boot, so
// that twins have the same one.
type BootID struct{ file *os.File }

// CoverBootID mounts the file, with the kernel's value. A mount namespace that is made later sees each change too, so it comes
// before the first service; who mounts another proc sees the kernel's value.
func CoverBootID() (BootID, error) {
	id, err := os.ReadFile(kernelBootID)
	if err == nil {
		err = bindOver(kernelBootID, id, 0o444)
	}
	if err != nil {
		return BootID{}, err
	}
	f, err := os.OpenFile(copyOf(kernelBootID), os.O_WRONLY, 0)
	return BootID{f}, err
}

// Set makes the boot id read as id, 32 digits, as a machine id. It is an error if somebody has unmounted the file since.
func (b BootID) Set(id string) error {
	if err := CheckMachineID(id); err != nil {
		return err
	}
	if b.file == nil {
		return errors.New("the kernel's boot id is not covered")
	}
	if _, err := b.file.WriteAt([]byte(bootID(id)+"\n"), 0); err != nil {
		return err
	}
	if !sameFile(copyOf(kernelBootID), kernelBootID) {
		return fmt.Errorf("%s is the kernel's: somebody has unmounted the file over it", kernelBootID)
	}
	return nil
}

// WriteSystemFile replaces the file at path atomically. Where that cannot be, because path is a mount point (a container's
// /etc/resolv.conf) or the file system is read-only, it is written in place, or a file in /run is
// bind-mounted over it; then path must exist.
func WriteSystemFile(path string, data []byte, mode fs.FileMode) error {
	err := replaceFile(path, data, mode)
	switch {
	case errors.Is(err, unix.EBUSY):
		err = os.WriteFile(path, data, mode)
	case errors.Is(err, unix.EROFS):
		return bindOver(path, data, mode)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".rouse"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	err := os.Chmod(temporary, mode)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// bindOver mounts a copy of data over path, or changes the copy if it is mounted there already.
func bindOver(path string, data []byte, mode fs.FileMode) error {
	copied := copyOf(path)
	if err := os.MkdirAll(overlays, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	mounted := sameFile(copied, path)
	if err := writeCopy(copied, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if mounted {
		return nil
	}
	if err := unix.Mount(copied, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", copied, path, err)
	}
	return nil
}

func copyOf(path string) string {
	return filepath.Join(overlays, strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
}

// writeCopy writes in place: a new file would not be the mounted one.
func writeCopy(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

func sameFile(a, b string) bool {
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}
