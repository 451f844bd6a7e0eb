package rootfs

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// MoveRoot makes the file system mounted at target the root of this mount namespace and goes on in it. /dev, /proc, /sys
// and /run move along with all that is mounted in them; what an initramfs holds is deleted, which gives its memory
// back. After an error the old root may be half emptied: power off. The initramfs cannot be left by
// pivot_root(2), as the kernel's own root has no parent (linux/Documentation/filesystems/ramfs-rootfs-initramfs.rst).
func MoveRoot(target string) error {
	old, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switch root: open the old root: %w", err)
	}
	defer unix.Close(old)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := moveMount(dir, filepath.Join(target, dir)); err != nil {
			return fmt.Errorf("switch root: %w", err)
		}
	}
	if err := unix.Chdir(target); err != nil {
		return fmt.Errorf("switch root: %s: %w", target, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: move %s to the root: %w", target, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: chroot: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if inMemory(old) && os.Getpid() == 1 { // any other process may have taken a part of a machine that lives on
		empty(old)
	}
	return nil
}

// moveMount moves what is mounted at from. A read-only root without the folder is an error: it could not work either.
func moveMount(from, to string) error {
	m := &Mount{Target: from}
	if !m.present() {
		return nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("the new root lacks %s: %w", from, err)
	}
	if err := unix.Mount(from, to, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	return nil
}

// inMemory guards empty: only an initramfs is thrown away, never a disk.
func inMemory(fd int) bool {
	const ramfs = 0x858458f6 // RAMFS_MAGIC, include/uapi/linux/magic.h
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && (int64(st.Type) == ramfs || int64(st.Type) == magicTmpfs)
}

// empty deletes everything in the folder fd, on its own file system only. What cannot be deleted costs memory and no more.
func empty(fd int) {
	var own unix.Stat_t
	if unix.Fstat(fd, &own) != nil {
		return
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	dir := os.NewFile(uintptr(dup), "old root")
	names, _ := dir.Readdirnames(-1)
	dir.Close()
	for _, name := range names {
		child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			_ = unix.Unlinkat(fd, name, 0)
			continue
		}
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(child, &st) == nil && st.Dev == own.Dev {
			empty(child)
		}
		unix.Close(child)
		_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
}
