package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// ErrNotInit is PowerOff's answer to any process but PID 1.
var ErrNotInit = errors.New("only PID 1 may end the machine")

// PowerOff syncs, unmounts what holds data, and ends the machine; it returns only if that does not work. Services
// must have been stopped before. kind is one of
//
//	"", poweroff   the machine ends; on Firecracker x86, which has no power switch, by the reset that it takes for one
//	               (the kernel's command line must have reboot=k)
//	reboot         boots again; Firecracker ends
//	halt           the CPU stops, the VMM goes on
//	kexec          starts the kernel that kexec_file_load(2) has put there
//
// In a pid namespace of its own the kernel ends the namespace instead (pid_namespaces(7)).
func PowerOff(kind string) error {
	command, err := rebootCommand(kind, runtime.GOARCH, os.DirFS("/sys/firmware/acpi/tables"))
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("power off: %w", ErrNotInit)
	}
	unix.Sync()
	// Best effort: a mount that stays busy is synced at least, and the machine has to end.
	unmounted := Unmount()
	unix.Sync()
	return errors.Join(unmounted, fmt.Errorf("power off (%s): %w", kind, unix.Reboot(command)))
}

// rebootCommand is what to ask reboot(2) for. Firecracker on x86 stays behind with a halted CPU after a power-off, and ends
// when the keyboard controller resets (its docs/getting-started.md has reboot=k for that). It is known by
// the OEM of its ACPI tables, bytes 10 to 15 of each (ACPI 6.5, 5.2.6), or, before its version 1.8, by having none.
func rebootCommand(kind, arch string, acpi fs.FS) (int, error) {
	switch kind {
	case "reboot":
		return unix.LINUX_REBOOT_CMD_RESTART, nil
	case "halt":
		return unix.LINUX_REBOOT_CMD_HALT, nil
	case "kexec":
		return unix.LINUX_REBOOT_CMD_KEXEC, nil
	case "", "poweroff":
	default:
		return 0, fmt.Errorf("power off: unknown kind %q; use poweroff, reboot, halt or kexec", kind)
	}
	table, err := fs.ReadFile(acpi, "FACP")
	none := errors.Is(err, fs.ErrNotExist)
	if arch == "amd64" && (none || isFirecracker(table)) {
		return unix.LINUX_REBOOT_CMD_RESTART, nil
	}
	return unix.LINUX_REBOOT_CMD_POWER_OFF, nil
}

// Unmount unmounts, last first, every file system that keeps data beyond this boot, and makes those read-only that are
// busy, the root above all. All are tried; the errors are joined.
func Unmount() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	var errs []error
	for _, m := range persistent(parseMountinfo(string(b))) {
		if m.Target != "/" && unix.Unmount(m.Target, unix.UMOUNT_NOFOLLOW) == nil {
			continue
		}
		err := unix.Mount("", m.Target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Target, err))
		}
	}
	return errors.Join(errs...)
}
