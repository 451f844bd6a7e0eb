package sysgenid

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSufficient(t *testing.T) {
	for _, row := range []struct {
		name string
		caps uint64
		want bool
	}{
		{"all", 1<<41 - 1, true},
		{"none", 0, false},
		{"CAP_SYS_ADMIN", 1 << 21, true},
		{"CAP_CHECKPOINT_RESTORE", 1 << 40, true},
		{"all others", 1<<40 - 1 - 1<<21, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := sufficient(uint32(row.caps), uint32(row.caps>>32)); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

// TestMayTrigger compares what capget says of a thread with its status in procfs.
func TestMayTrigger(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Skipf("no procfs: %v", err)
	}
	caps, err := strconv.ParseUint(field(status, "CapEff"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := mayTrigger(uint32(unix.Gettid())), sufficient(uint32(caps), uint32(caps>>32)); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if mayTrigger(1 << 30) {
		t.Error("nobody may trigger")
	}
}

// TestPrivilegedNamespace: all capabilities in a user namespace of one's own
// are worth nothing.
func TestPrivilegedNamespace(t *testing.T) {
	proc := t.TempDir()
	for _, p := range []struct{ pid, ns string }{{"self", "user:[1]"}, {"10", "user:[1]"}, {"11", "user:[2]"}} {
		dir := filepath.Join(proc, p.pid)
		if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p.ns, filepath.Join(dir, "ns/user")); err != nil {
			t.Fatal(err)
		}
		status := []byte("Name:\tproc\nTgid:\t9\n")
		if err := os.WriteFile(filepath.Join(dir, "status"), status, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{options: Options{Proc: proc}}
	for pid, want := range map[uint32]bool{10: true, 11: false, 12: false} {
		if got := s.inOurNamespace(pid); got != want {
			t.Errorf("pid %d: %v, want %v", pid, got, want)
		}
	}
	if pid, comm := s.who(10); pid != 9 || comm != "proc" {
		t.Errorf("who: %d, %q", pid, comm)
	}
	if pid, comm := s.who(12); pid != 12 || comm != "" {
		t.Errorf("who, of a process that is gone: %d, %q", pid, comm)
	}
}
