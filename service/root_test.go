//go:build root

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStartOrderAndEnvironment(t *testing.T) {
	once := shell("once", "echo $PATH; pwd; id -u; id -g; echo $X; cat /proc/self/cgroup | grep ^0::")
	once.Oneshot, once.Dir, once.User, once.Env = true, "/tmp", "12345:12346", []string{"X=y z"}
	later := shell("later", "echo later; exec sleep 1000")
	later.After = []string{"once"}
	l := newLab(t, later, once)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.printed(t, "later", 1)
	want := []string{standardPath, "/tmp", "12345", "12346", "y z", "0::" + l.base + "/once"}
	if got := l.printed(t, "once", len(want)); !slices.Equal(got, want) {
		t.Errorf("once printed %q, want %q", got, want)
	}
	if s := l.state("once"); s.State != Done || !s.Ready || s.ExitCode != 0 {
		t.Errorf("once: %+v", s)
	}
	s := l.state("later")
	if s.State != Running || !s.Ready || s.PID == 0 {
		t.Errorf("later: %+v", s)
	}
	if name := l.ServiceOf(s.PID); name != "later" {
		t.Errorf("ServiceOf: %q", name)
	}
	if name := l.ServiceOf(os.Getpid()); name != "" {
		t.Errorf("ServiceOf(self): %q", name)
	}
}

func TestStartFailures(t *testing.T) {
	missing := Spec{Name: "missing", Exec: []string{"/nonexistent/x"}, Restart: "always"}
	dir := shell("dir", "true")
	dir.Dir = "/nonexistent"
	after := shell("after", "true")
	after.After = []string{"missing"}
	mute := helperSpec("mute", "sleep")
	mute.Ready.Kind, mute.ReadyTimeout = "notify", 50*time.Millisecond
	loop := shell("loop", "exit 3")
	loop.Restart, loop.RestartDelay, loop.StartLimit, loop.Ready.Kind = "on-failure", time.Millisecond, 3, "notify"
	loop.StartWindow = time.Hour
	stop := shell("stop", "exit 125")
	stop.Restart, stop.Ready.Kind = "always", "notify"
	l := newLab(t, missing, dir, after, mute, loop, stop)
	err := l.Start(testContext(t))
	for _, want := range []string{
		"service missing: start: fork/exec /nonexistent/x: no such file",
		"service dir: working directory /nonexistent: no such file",
		"service after: not started, for missing is not ready",
		"service mute: not ready within 50ms",
		"service loop: exit status 3; started 3 times within 1h0m0s",
		"service stop: exit status 125; which asks for no restart",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if s := l.state("loop"); s.Restarts != 2 || s.State != Failed {
		t.Errorf("loop: %+v", s)
	}
}

func TestNotify(t *testing.T) {
	a := helperSpec("a", "notify", "READY=1", "STATUS=at work")
	a.Ready.Kind, a.User = "notify", "12345"
	a.Exec[0] = "/proc/self/exe"
	a = withExe(t, a)
	l := newLab(t, a)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if s := l.state("a"); !s.Ready || s.Text != "at work" {
		t.Errorf("%+v", s)
	}
}

func TestPortReadiness(t *testing.T) {
	port := ownPort(t)
	s := helperSpec("web", "listen", fmt.Sprint(port))
	s.Ready = Ready{Kind: "port", Port: uint16(port)}
	lab := newLab(t, s)
	if err := lab.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if listening(lab.byName["web"].cg.path, os.Getpid(), uint16(port)) != true {
		t.Error("not found from here")
	}
	if listening(lab.byName["web"].hookCg.path, os.Getpid(), uint16(port)) {
		t.Error("found in a cgroup that does not hold it")
	}
}

func TestRestartAndStop(t *testing.T) {
	var s = shell("s", "sleep 1000 & exec sleep 1000")
	s.Restart, s.RestartDelay = "on-failure", time.Millisecond
	deaf := helperSpec("deaf", "deaf")
	deaf.Ready.Kind, deaf.StopTimeout, deaf.After = "notify", 20*time.Millisecond, []string{"s"}
	l := newLab(t, s, deaf)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := l.state("s").PID
	if err := l.Signal("s", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", func() bool { s := l.state("s"); return s.Restarts == 1 && s.State == Running })
	if err := l.Restart(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	if st := l.state("s"); st.PID == first || st.State != Running {
		t.Errorf("after Restart: %+v", st)
	}
	if err := l.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, st := range l.Status() {
		if st.State != Stopped || st.PID != 0 {
			t.Errorf("after Stop: %+v", st)
		}
	}
	if busy, err := l.services.populated(); busy || err != nil {
		t.Errorf("processes left: %v, %v", busy, err)
	}
	if !strings.Contains(l.logged(), "still there after 20ms, killed") {
		t.Errorf("log: %s", l.logged())
	}
}

func TestFloodOfOutput(t *testing.T) {
	s := helperSpec("flood", "flood")
	s.Oneshot = true
	gate := make(chan struct{})
	l := &lab{}
	o := Options{CgroupRoot: cgroup2(t), Reaper: testReaper, RunDir: t.TempDir(), Output: func(string, []byte) { <-gate }}
	m, err := New(o, []Spec{s})
	if err != nil {
		t.Fatal(err)
	}
	l.Manager = m
	if err := m.Start(testContext(t)); err != nil { // it ends although nobody takes its lines
		t.Fatal(err)
	}
	eventually(t, "last line", func() bool {
		last := m.Log("flood", 1)
		return len(last) == 1 && string(last[0]) == "flooding line 299999"
	})
	if n := len(m.byName["flood"].journal.ring.buf); n != DefaultLogBytes {
		t.Errorf("ring of %d bytes", n)
	}
	close(gate)
	eventually(t, "count of what nobody took", func() bool { return l.state("flood").Dropped > 290000 })
	if err := errors.Join(m.Stop(testContext(t)), m.Close()); err != nil {
		t.Error(err)
	}
}

func TestFreezeThaw(t *testing.T) {
	l := newLab(t, shell("a", "sleep 1000 & while :; do sleep 0.01; done"), shell("b", "exec sleep 1000"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := errors.Join(l.Settle(ctx), l.Freeze(ctx)); err != nil {
			t.Fatal(err)
		}
		if on, err := l.Frozen(); !on || err != nil {
			t.Fatalf("frozen: %v, %v", on, err)
		}
		if err := l.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
		if on, err := l.Frozen(); on || err != nil {
			t.Fatalf("frozen after thaw: %v, %v", on, err)
		}
	}
}

func TestFreezeWithNothingToFreeze(t *testing.T) {
	gone := shell("gone", "true")
	for _, l := range []*lab{newLab(t), newLab(t, gone)} {
		ctx := testContext(t)
		if err := errors.Join(l.Start(ctx), l.Settle(ctx), l.Freeze(ctx)); err != nil {
			t.Fatal(err)
		}
		if on, err := l.Frozen(); !on || err != nil {
			t.Errorf("%v, %v", on, err)
		}
		if err := l.Thaw(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestStartIntoFrozenCgroup shows that a child which cannot come to its exec does not hold up the reaping. No garbage is
// collected meanwhile: that would have to stop the thread that is with the child, and everything with it. So what asks for a start
// refuses a frozen cgroup beforehand, and this is for what freezes just then.
func TestStartIntoFrozenCgroup(t *testing.T) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	cg, err := makeCgroup(filepath.Join(cgroup2(t), "ice"))
	if err != nil {
		t.Fatal(err)
	}
	defer cg.close()
	if err := os.WriteFile(filepath.Join(cg.path, "cgroup.freeze"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := cg.checkThawed(); err == nil || !strings.Contains(err.Error(), cg.path+"/cgroup.freeze") {
		t.Errorf("%v, want the file that thaws it", err)
	}
	testReaper.mu.Lock()
	testReaper.patience = 20 * time.Millisecond
	testReaper.mu.Unlock()
	defer func() {
		testReaper.mu.Lock()
		testReaper.patience = execPatience
		testReaper.mu.Unlock()
	}()
	cmd := helper("sleep")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cg.fd()}
	p, err := testReaper.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(testContext(t)); err != nil || status.Signal() != unix.SIGKILL {
		t.Errorf("%s, %v", describe(status), err)
	}
}

// TestKillEach is the way of kernels without cgroup.kill, against a service that forks as fast as it can.
func TestKillEach(t *testing.T) {
	// In no service's cgroup: its supervisor would end and renew that at the same time.
	cg, err := makeCgroup(filepath.Join(cgroup2(t), "forker"))
	if err != nil {
		t.Fatal(err)
	}
	defer cg.close()
	p, err := testReaper.Start(&Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "i=0; while [ $i -lt 50 ]; do (sleep 1000 &) ; i=$((i+1)); done; while :; do (sleep 0.01 &); done"},
		Env:         []string{"PATH=" + standardPath},
		SysProcAttr: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cg.fd()},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "forks", func() bool { n := 0; eachID(cg.path, "cgroup.procs", func(int) { n++ }); return n > 50 })
	if err := cg.killEach(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(testContext(t)); err != nil || status.Signal() != unix.SIGKILL {
		t.Errorf("%s, %v", describe(status), err)
	}
	eventually(t, "end of all", func() bool { busy, err := cg.populated(); return !busy && err == nil })
}

// TestReaperAsPID1 runs the reaper as PID 1 of a pid namespace, with orphans, and without becoming a subreaper.
func TestReaperAsPID1(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := helper("pid1")
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	p, err := testReaper.Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := readTail(r, 4096)
	if status, err := p.Wait(testContext(t)); err != nil || status != 0 || string(out) != "pid 1: exit status 7, 1 orphan\n" {
		t.Errorf("%s, %v\n%s", describe(status), err, out)
	}
}

func TestSettleNamesWhoSpins(t *testing.T) {
	l := newLab(t, spin(), shell("calm", "exec sleep 1000"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "rest of the calm", func() bool {
		tasks, err := newLooker().restless("calm", l.byName["calm"].cg.path, watching)
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", l.state("calm").PID))
		return len(tasks) == 0 && err == nil && string(comm) == "sleep\n"
	})
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	var se *SettleError
	if err := l.Settle(short); !errors.As(err, &se) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	pid := l.state("spin").PID
	for _, task := range se.Tasks {
		if task.Service != "spin" || task.PID != pid || task.Comm == "" {
			t.Errorf("%+v", task)
		}
	}
	short, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := l.Freeze(short); !errors.As(err, &se) {
		t.Errorf("freeze: %v", err)
	}
	if on, err := l.Frozen(); on || err != nil {
		t.Errorf("still frozen after a refused freeze: %v, %v", on, err)
	}
}

func TestSettleOff(t *testing.T) {
	s := spin()
	s.Settle = "off"
	l := newLab(t, s)
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.Settle(ctx), l.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := l.Thaw(ctx); err != nil {
		t.Error(err)
	}
}

func TestRestartWaitsForThaw(t *testing.T) {
	s := shell("s", "exec sleep 1000")
	s.Restart, s.RestartDelay = "always", time.Millisecond
	l := newLab(t, s)
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	l.HoldRestarts()
	if err := unix.Kill(l.state("s").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "backoff", func() bool { return l.state("s").State == Backoff })
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	if busy, err := l.services.populated(); busy || err != nil {
		t.Errorf("started while held: %v", err)
	}
	l.ReleaseRestarts()
	eventually(t, "restart", func() bool { return l.state("s").State == Running })
}

func TestHooks(t *testing.T) {
	hook := func(script string) []Hook { return []Hook{{Exec: []string{"sh", "-c", script}}} }
	a, b := shell("a", "exec sleep 1000"), shell("b", "exec sleep 1000")
	b.After = []string{"a"}
	a.BeforeSnapshot, b.BeforeSnapshot = hook("echo $ROUSE_HOOK $ROUSE_SERVICE"), hook("echo $ROUSE_HOOK $ROUSE_SERVICE")
	a.AfterRestore, b.AfterRestore = hook("sleep 1000 & exit 7"), hook("echo done; yes | head -c 100000 | tr -d y")
	l := newLab(t, b, a)
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	res, err := l.Hooks(ctx, BeforeSnapshot)
	if err != nil || len(res) != 2 || res[0].Output != "before-snapshot b\n" || res[1].Output != "before-snapshot a\n" {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = l.Hooks(ctx, AfterRestore)
	if err == nil || err.Error() != "after-restore hook of service a: exit status 7" {
		t.Errorf("error %v", err)
	}
	if len(res) != 2 || res[0].Service != "a" || res[0].ExitCode != 7 || res[1].ExitCode != 0 || len(res[1].Output) != hookOutput {
		t.Errorf("%+v", res)
	}
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestHookRefusesAndHangs(t *testing.T) {
	a := shell("a", "exec sleep 1000")
	a.BeforeSnapshot = []Hook{{Exec: []string{"sh", "-c", "echo busy; echo backup is running; exit 75"}}}
	a.AfterRestore = []Hook{{Exec: []string{"sh", "-c", "trap '' TERM; sleep 1000; sleep 1000"}, Timeout: 30 * time.Millisecond}}
	l := newLab(t, a)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Hooks(ctx, BeforeSnapshot); !errors.Is(err, ErrNotNow) || !strings.HasSuffix(err.Error(), "not now: backup is running") {
		t.Errorf("%v", err)
	}
	res, err := l.Hooks(ctx, AfterRestore)
	if !errors.Is(err, context.DeadlineExceeded) || len(res) != 1 || res[0].ExitCode != 137 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestNoCgroupFailsLoudly(t *testing.T) {
	for _, root := range []string{"", "/tmp"} {
		m, err := New(Options{Reaper: testReaper, CgroupRoot: root}, []Spec{shell("a", "true")})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "cgroup v2") {
			t.Errorf("%q: error %v", root, err)
		}
	}
}

func TestEscapeIsFound(t *testing.T) {
	l := newLab(t, shell("a", "(sleep 1000 &) ; exec sleep 1000"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "double fork", func() bool { n := 0; eachID(l.byName["a"].cg.path, "cgroup.procs", func(int) { n++ }); return n == 2 })
	eventually(t, "exec", func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", l.state("a").PID))
		return string(comm) == "sleep\n"
	})
	if found, err := l.Escaped(); len(found) != 0 || err != nil {
		t.Fatalf("a double fork counts as escaped: %+v, %v", found, err)
	}
	away := filepath.Join(l.o.CgroupRoot, "away")
	if err := os.Mkdir(away, 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, l.state("a").PID), 0); err != nil {
			t.Fatal(err)
		}
	}
	move(away)
	var ee *EscapeError
	if err := l.Freeze(ctx); !errors.As(err, &ee) || len(ee.Processes) != 1 || ee.Processes[0].Comm != "sleep" {
		t.Errorf("freeze: %v", err)
	}
	if on, err := l.Frozen(); on || err != nil {
		t.Errorf("frozen: %v, %v", on, err)
	}
	move(l.byName["a"].cg.path)
}
