package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotInit is PowerOff's answer to any process but PID 1.
var ErrNotInit = errors.New("only PID 1 may end the machine")

// PowerOff syncs, unmounts what holds data, and ends the machine; it returns only if that does not work. Services
// must have been stopped before. kind is one of
//
//	"", poweroff   QEMU and Cloud Hypervisor end; Firecracker on x86 goes on with a halted CPU
//	reboot         Firecracker on x86 ends (with reboot=k on the kernel's command line); others boot again
//	halt           the CPU stops, the VMM goes on
//	kexec          starts the kernel that kexec_file_load(2) has put there
//
// In a pid namespace of its own the kernel ends the namespace instead (pid_namespaces(7)).
func PowerOff(kind string) error {
	command, ok := map[string]int{"": unix.LINUX_REBOOT_CMD_POWER_OFF, "poweroff": unix.LINUX_REBOOT_CMD_POWER_OFF,
		"reboot": unix.LINUX_REBOOT_CMD_RESTART, "halt": unix.LINUX_REBOOT_CMD_HALT, "kexec": unix.LINUX_REBOOT_CMD_KEXEC}[kind]
	if !ok {
		return fmt.Errorf("power off: unknown kind %q; use poweroff, reboot, halt or kexec", kind)
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
