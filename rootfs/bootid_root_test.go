//go:build root

package rootfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readBootID is the boot id as this thread's mounts show it.
func readBootID(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(kernelBootID)
	must(t, err)
	return string(b)
}

func TestBootID(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	kernels := readBootID(t)
	b, err := CoverBootID()
	must(t, err)
	if got := readBootID(t); got != kernels {
		t.Errorf("covered: %q, want the kernel's %q", got, kernels)
	}
	// A service with mounts of its own, which is there before the copy is made.
	service := exec.Command("/bin/sh", "-c", "echo; read line; cat "+kernelBootID)
	service.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	in, err := service.StdinPipe()
	must(t, err)
	out, err := service.StdoutPipe()
	must(t, err)
	must(t, service.Start())
	_, err = out.Read(make([]byte, 1))
	must(t, err)

	var seen []string
	for n := range byte(2) { // a copy of a copy
		id := MachineID([16]byte{n + 1})
		must(t, b.Set(id))
		if got := readBootID(t); got != bootID(id)+"\n" {
			t.Errorf("%q, want %s", got, bootID(id))
		}
		seen = append(seen, bootID(id))
	}
	_, err = in.Write([]byte("\n"))
	must(t, err)
	theirs := make([]byte, 64)
	n, err := out.Read(theirs)
	must(t, err)
	must(t, service.Wait())
	if got := strings.TrimSpace(string(theirs[:n])); got != seen[1] {
		t.Errorf("the service reads %q, want %s", got, seen[1])
	}
	if err := b.Set("0123"); err == nil || readBootID(t) != seen[1]+"\n" {
		t.Errorf("what is no id was taken: %v", err)
	}
	must(t, unix.Unmount(kernelBootID, 0))
	if got := readBootID(t); got != kernels {
		t.Errorf("the kernel's was changed: %q, want %q", got, kernels)
	}
	if err := b.Set(MachineID([16]byte{1})); err == nil || !strings.Contains(err.Error(), "unmounted") {
		t.Errorf("set where nobody sees it: %v", err)
	}
	if err := (BootID{}).Set(MachineID([16]byte{1})); err == nil {
		t.Error("set without a cover")
	}
}

// The clock that is found works, or says what it misses; PTP clocks of network cards are not taken for the host's.
func TestFindHostClock(t *testing.T) {
	c := FindHostClock()
	now, err := c.Now()
	if err == nil && now.Year() < 2000 || err != nil && !strings.Contains(err.Error(), c.Path) {
		t.Errorf("%s: %v, %v", c.Path, now, err)
	}
	if name, err := os.ReadFile(filepath.Join("/sys/class/ptp", filepath.Base(c.Path), "clock_name")); err == nil && !isHostClock(string(name)) {
		t.Errorf("%s is %q", c.Path, name)
	}
}
