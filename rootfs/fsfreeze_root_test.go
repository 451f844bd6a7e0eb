//go:build root

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ext4 makes a file system in a file and mounts it by a loop device, in the thread's mount namespace.
func ext4(t *testing.T, file, target string) {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("loop devices: %v (CONFIG_BLK_DEV_LOOP)", err)
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		if mkfs, err = exec.LookPath("/sbin/mkfs.ext4"); err != nil {
			t.Skipf("%v (Debian package e2fsprogs)", err)
		}
	}
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 16<<20))
	if text, err := exec.Command(mkfs, "-q", "-F", "-O", "^has_journal", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	must(t, os.MkdirAll(target, 0o755))
	must(t, unix.Mount(attachLoop(t, file), target, "ext4", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

// attachLoop returns a free loop device with the file in it; it is released with its last user.
func attachLoop(t *testing.T, file string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer backing.Close()
	for range 20 { // others may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		must(t, err)
		path := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
			dev.Close()
			continue
		}
		must(t, unix.IoctlLoopSetStatus64(int(dev.Fd()), &unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}))
		t.Cleanup(func() { dev.Close() }) // after the unmount: the last user clears it
		return path
	}
	t.Fatal("no free loop device")
	return ""
}

// writes says whether a write to dir comes to its end; one that waits for a thaw is left to it.
func writes(t *testing.T, dir string) (done <-chan error) {
	t.Helper()
	result := make(chan error, 1)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	go func() {
		file, err := unix.Openat(fd, "written", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		unix.Close(fd)
		if err == nil {
			unix.Close(file)
		}
		result <- err
	}()
	return result
}

func isFrozen(t *testing.T, dir string) bool {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	if err := control(f, fiFreeze, nil); err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	must(t, control(f, fiThaw, nil))
	return false
}

func TestFreezeNestedLoopOverlay(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	dir := t.TempDir()
	outer, inner, merged := filepath.Join(dir, "outer"), filepath.Join(dir, "inner"), filepath.Join(dir, "merged")
	ext4(t, filepath.Join(dir, "outer.img"), outer)
	// Its file lies on the outer one: frozen in the wrong order, the inner one could not write back.
	must(t, os.WriteFile(filepath.Join(outer, "x"), nil, 0o600))
	innerImage := filepath.Join(outer, "inner.img")
	must(t, os.WriteFile(innerImage, nil, 0o600))
	must(t, os.Truncate(innerImage, 8<<20))
	if text, err := exec.Command("/sbin/mkfs.ext4", "-q", "-F", innerImage).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	must(t, os.MkdirAll(inner, 0o755))
	must(t, unix.Mount(attachLoop(t, innerImage), inner, "ext4", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(inner, 0)) })
	for _, d := range []string{merged, inner + "/up", inner + "/work"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/up,workdir=%s/work", outer, inner, inner)))
	t.Cleanup(func() { must(t, unix.Unmount(merged, 0)) })

	f := Freezer{Want: []string{outer, merged, "/proc", dir}}
	// Data that has not been written yet must reach the outer file system through the loop before that is frozen.
	must(t, os.WriteFile(filepath.Join(merged, "dirty"), make([]byte, 1<<20), 0o600))
	done, err := f.Freeze(t.Context())
	must(t, err)
	t.Cleanup(func() { must(t, f.Thaw()) })
	if !slices.Equal(done.Targets, []string{inner, outer}) || len(done.Skipped) != 2 {
		t.Errorf("frozen %+v, want inner before outer, and /proc and the folder skipped", done)
	}
	wrote := writes(t, merged)
	if !isFrozen(t, inner) || !isFrozen(t, outer) {
		t.Error("not frozen")
	}
	must(t, f.Thaw())
	must(t, f.Thaw())
	must(t, <-wrote)
	if isFrozen(t, inner) || isFrozen(t, outer) {
		t.Error("still frozen")
	}
	n, err := f.Trim()
	t.Logf("trimmed %d bytes, %v", n, err)
	must(t, err)
}

// What is undone: a failure in the middle, somebody else's freeze, a rouse that was killed, and a freeze beyond its time.
func TestFreezeIsUndone(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ext4(t, a+".img", a)
	ext4(t, b+".img", b)
	f := Freezer{Want: []string{a, b}}
	fa, err := os.Open(a)
	must(t, err)
	defer fa.Close()

	must(t, control(fa, fiFreeze, nil))
	done, err := f.Freeze(t.Context())
	if err != nil || !slices.Equal(done.Targets, []string{b}) || len(done.Skipped) != 1 || done.Skipped[0].Target != a {
		t.Errorf("beside somebody else's freeze: %+v, %v", done, err)
	}
	must(t, f.Thaw())
	if !isFrozen(t, a) || isFrozen(t, b) {
		t.Error("thawed what was not ours, or left ours frozen")
	}
	must(t, f.ThawAll())
	if isFrozen(t, a) {
		t.Error("ThawAll left it frozen")
	}

	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := f.Freeze(late); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	must(t, f.Thaw())
	for deadline := time.Now().Add(patience); isFrozen(t, a) || isFrozen(t, b); {
		if time.Now().After(deadline) {
			t.Fatal("frozen too late, and left so")
		}
	}

	// Covered by another mount, it can be opened nowhere.
	must(t, unix.Mount("cover", b, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(b, 0)) }()
	if done, err := f.Freeze(t.Context()); err != nil || !slices.Equal(done.Targets, []string{a}) {
		t.Errorf("covered: %+v, %v", done, err)
	}
	must(t, f.Thaw())
}

func TestSyncGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Sync(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, Sync(t.Context()))
}
