package roster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper is a process of ours that does nothing; the test ends it.
func sleeper(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestReserve(t *testing.T) {
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"web-0", "web-1"} {
		if e, err := r.Reserve("web", false, Entry{}); err != nil || e.Name != want || e.State != Starting {
			t.Errorf("%+v, %v, want %s", e, err, want)
		}
	}
	if _, err := r.Reserve("web-1", true, Entry{}); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a name twice: %v", err)
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", ".hidden", strings.Repeat("x", 65), "a b"} {
		if _, err := r.Reserve(bad, true, Entry{}); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if err := r.Strike(bad); err == nil {
			t.Errorf("%q was struck", bad)
		}
	}
	list, err := r.List()
	if err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := r.Find("nobody"); err == nil || !strings.Contains(err.Error(), "web-0, web-1") {
		t.Errorf("%v, want those that there are", err)
	}
}

// TestList has a clone in each condition that a killed command can leave.
func TestList(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	_, living := sleeper(t)
	orphanCmd, orphan := sleeper(t)
	gone := Process{living.PID, living.Start - 1} // its id is another's now
	for _, e := range []Entry{
		{Name: "running", State: Ready, QEMU: living, Owner: me},
		{Name: "detached", State: Ready, QEMU: living, Owner: gone, Detached: true},
		{Name: "detached-ended", State: Ready, QEMU: gone, Owner: gone, Detached: true},
		{Name: "left-behind", State: Ready, QEMU: gone, Owner: gone},
		{Name: "half-started", State: Starting, QEMU: orphan, Owner: gone, Detached: true},
	} {
		if err := os.Mkdir(r.Folder(e.Name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Update(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"just-made", "broken"} {
		if err := os.Mkdir(r.Folder(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "broken", entryFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "broken"), old, old); err != nil {
		t.Fatal(err)
	}
	list, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name+" "+e.State)
	}
	if want := "detached ready, detached-ended exited, running ready"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
	for name, want := range map[string]bool{"left-behind": false, "half-started": false, "broken": false, "just-made": true} {
		if _, err := os.Stat(r.Folder(name)); (err == nil) != want {
			t.Errorf("folder of %s: %v, want it there: %v", name, err, want)
		}
	}
	// The QEMU of a clone whose command was killed half-way is ended; others are not.
	orphanCmd.Wait()
	if !living.Alive() {
		t.Error("a process that only shares a number was ended")
	}
}

func TestProcess(t *testing.T) {
	cmd, p := sleeper(t)
	other := Process{p.PID, p.Start + 1}
	if err := other.Signal(unix.SIGKILL); err == nil || other.Alive() || !p.Alive() {
		t.Errorf("a signal for another process: %v", err)
	}
	if p.Await(0) {
		t.Error("a living process has ended")
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if !p.Await(time.Minute) {
		t.Error("the signal did not arrive")
	}
	cmd.Wait()
	if p.Alive() || !p.Await(0) || p.Signal(unix.SIGTERM) == nil {
		t.Error("a process that has ended is alive")
	}
	for _, nobody := range []Process{{}, {PID: 1}} {
		if nobody.Signal(0) == nil {
			t.Errorf("%+v got a signal", nobody)
		}
	}
}

func FuzzStartTime(f *testing.F) {
	f.Add("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20")
	f.Add(")")
	f.Fuzz(func(t *testing.T, stat string) { startTime(stat) })
}

func TestStartTime(t *testing.T) {
	if n, err := startTime("12 (a) b) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 777 23"); err != nil || n != 777 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := startTime("12 (a) Z 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 777 23"); err == nil {
		t.Error("a zombie is alive")
	}
}

func TestDefaultDir(t *testing.T) {
	if got := defaultDir("/run/user/7", 7); got != "/run/user/7/rouse" {
		t.Error(got)
	}
	if got := defaultDir("", 0); got != "/run/rouse-host" {
		t.Error(got)
	}
	if got := defaultDir("", 7); filepath.Base(got) != "rouse-7" {
		t.Error(got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{open, link} {
		if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
