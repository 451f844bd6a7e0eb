package sysgenid

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMayTrigger(t *testing.T) {
	for _, row := range []struct {
		name, status string
		want         bool
	}{
		{"all", "Name:\tx\nCapEff:\t000001ffffffffff\n", true},
		{"none", "CapEff:\t0000000000000000\n", false},
		{"CAP_SYS_ADMIN", "CapEff:\t0000000000200000\n", true},
		{"CAP_CHECKPOINT_RESTORE", "CapEff:\t0000010000000000\n", true},
		{"all others", "CapEff:\t000000ffffdfffff\n", false},
		{"permitted only", "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n", false},
		{"a name that lies", "Name:\tCapEff:\t000001ffffffffff\nCapEff:\t0000000000000000\n", false},
		{"nothing", "", false},
		{"rubbish", "CapEff:\tall\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := mayTrigger([]byte(row.status)); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
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
		status := []byte("Name:\tproc\nTgid:\t9\nCapEff:\t000001ffffffffff\n")
		if err := os.WriteFile(filepath.Join(dir, "status"), status, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{options: Options{Proc: proc}}
	for pid, want := range map[uint32]bool{0: false, 10: true, 11: false, 12: false} {
		if got := s.privileged(pid); got != want {
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
