//go:build root

package service

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// Says its arguments, each once there is a byte in the fifo of the first.
	helpers["talk"] = func(args []string) {
		f, err := os.Open(args[0])
		if err != nil {
			panic(err)
		}
		for _, say := range args[1:] {
			var b [1]byte
			if _, err := f.Read(b[:]); err != nil {
				panic(err)
			}
			sayNotify(strings.ReplaceAll(say, "|", "\n"))
		}
		time.Sleep(time.Hour)
	}
}

// conversation is a service that says what it is told to.
type conversation struct {
	*lab
	t    *testing.T
	fifo *os.File
}

func talk(t *testing.T, change func(*Spec), words ...string) conversation {
	t.Helper()
	path := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fifo.Close() })
	s := helperSpec("talk", "talk", append([]string{path}, words...)...)
	s.Ready.Kind = "notify"
	if change != nil {
		change(&s)
	}
	return conversation{newLab(t, s), t, fifo}
}

// next lets the service speak, and waits until it shows.
func (c conversation) next(what string, shows func(Status) bool) {
	c.t.Helper()
	if _, err := c.fifo.WriteString("x"); err != nil {
		c.t.Fatal(err)
	}
	if shows != nil {
		eventually(c.t, what, func() bool { return shows(c.state("talk")) })
	}
}

func TestNotifyProtocol(t *testing.T) {
	c := talk(t, nil, "STATUS=early|EXTEND_TIMEOUT_USEC=1", "READY=1|STATUS=up", "RELOADING=1|MONOTONIC_USEC=1", "READY=1|STATUS=again",
		"READY=0|WATCHDOG=0|FOO=bar|STATUS=still", "STOPPING=1|ERRNO=2|STATUS=bye")
	started := make(chan error, 1)
	go func() { started <- c.Start(testContext(t)) }()
	// Extending by a microsecond must not shorten what there is.
	c.next("status before ready", func(s Status) bool { return s.Text == "early" && s.State == Starting && !s.Ready })
	c.next("ready", func(s Status) bool { return s.Text == "up" && s.State == Running && s.Ready })
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	c.next("reloading", func(s Status) bool { return s.State == Running && !s.Ready && s.Reason == "reloading" })
	c.next("reloaded", func(s Status) bool { return s.Text == "again" && s.Ready && s.Reason == "" })
	c.next("what means nothing", func(s Status) bool { return s.Text == "still" && s.State == Running && s.Ready })
	c.next("stopping", func(s Status) bool { return s.Text == "bye" && s.State == Stopping && !s.Ready })
}

// TestNotifyExtends has a service ask for more time than it has to become ready. It must ask within that, and on a busy machine
// its start alone may take as long; so it is given more until it is quick enough.
func TestNotifyExtends(t *testing.T) {
	for limit := 300 * time.Millisecond; !extends(t, limit); limit *= 4 {
		if limit > 10*time.Second {
			t.Fatalf("not extended with %v", limit)
		}
	}
}

// extends is false if the service had not asked for more when its limit was over.
func extends(t *testing.T, limit time.Duration) bool {
	c := talk(t, func(s *Spec) { s.ReadyTimeout = limit }, "EXTEND_TIMEOUT_USEC=60000000", "STATUS=asked", "READY=1")
	started := make(chan error, 1)
	go func() { started <- c.Start(testContext(t)) }()
	c.next("", nil)
	c.next("", nil) // the message after it shows that the first has had its effect
	late := false
	eventually(t, "message", func() bool { late = len(started) > 0; return late || c.state("talk").Text == "asked" })
	began := c.state("talk").Since
	if late || time.Since(began) > limit {
		t.Logf("did not ask within %v", limit)
		return false
	}
	eventually(t, "time", func() bool { return time.Since(began) > limit+100*time.Millisecond })
	if s := c.state("talk"); s.State != Starting {
		t.Errorf("%+v", s)
	}
	c.next("ready", func(s Status) bool { return s.Ready })
	if err := <-started; err != nil {
		t.Error(err)
	}
	return true
}

func TestNotifyWatchdog(t *testing.T) {
	// An hour, which the service itself makes shorter.
	c := talk(t, func(s *Spec) { s.Watchdog, s.Restart, s.RestartDelay = time.Hour, "on-failure", time.Hour }, "READY=1", "WATCHDOG=1|STATUS=fed", "WATCHDOG_USEC=20000")
	started := make(chan error, 1)
	go func() { started <- c.Start(testContext(t)) }()
	c.next("ready", func(s Status) bool { return s.Ready })
	c.next("fed", func(s Status) bool { return s.Text == "fed" && s.State == Running })
	c.next("bite", func(s Status) bool {
		return s.State == Backoff && s.Reason == "no WATCHDOG=1 within 20ms" && s.ExitCode == 128+int(unix.SIGABRT) || s.ExitCode == 2
	})
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// TestSystemdNotify has Debian's own client speak, whose every message is followed by a barrier that we have to answer.
func TestSystemdNotify(t *testing.T) {
	if _, err := exec.LookPath("systemd-notify"); err != nil {
		t.Skip("no systemd-notify (Debian package systemd)")
	}
	s := shell("s", `systemd-notify --ready --status="from systemd" && systemd-notify RELOADING=1 && systemd-notify READY=1 STATUS=again &&
systemd-notify WATCHDOG=1 && systemd-notify --pid=$$ && echo all said && exec sleep 1000`)
	s.Ready.Kind, s.Watchdog = "notify", time.Minute
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	lines, _, err := l.LogSince(ctx, "s", 0, 0)
	if err != nil || lines[0].Text != "all said" {
		t.Errorf("%+v, %v", lines, err)
	}
	if st := l.state("s"); !st.Ready || st.Text != "again" || st.State != Running {
		t.Errorf("%+v", st)
	}
}

func TestEnded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		code   int
		action string
	}{
		"status":     {func(s *Spec) { s.Exec, s.OnExit = []string{"/bin/sh", "-c", "exit 7"}, "poweroff" }, 7, "poweroff"},
		"good":       {func(s *Spec) { s.Exec, s.OnExit = []string{"/bin/true"}, "reboot" }, 0, "reboot"},
		"killed":     {func(s *Spec) { s.Exec, s.OnExit = []string{"/bin/sh", "-c", "kill -9 $$"}, "poweroff" }, 137, "poweroff"},
		"no program": {func(s *Spec) { s.Exec, s.OnExit = []string{"/nonexistent"}, "poweroff" }, 127, "poweroff"},
		"start limit": {func(s *Spec) {
			s.OnExit, s.Restart, s.StartLimit, s.RestartDelay = "poweroff", "always", 3, time.Millisecond
			s.StartWindow = time.Hour
			s.Exec = []string{"/bin/sh", "-c", "exit 3"}
		}, 3, "poweroff"},
		"nothing said": {func(s *Spec) { s.Exec = []string{"/bin/false"} }, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			type end struct {
				service, action string
				code            int
			}
			ends := make(chan end, 10)
			s := Spec{Name: "main"}
			c.change(&s)
			m, err := New(Options{CgroupRoot: cgroup2(t), Reaper: testReaper, RunDir: t.TempDir(),
				Ended: func(service, action string, code int) { ends <- end{service, action, code} }}, []Spec{s})
			if err != nil {
				t.Fatal(err)
			}
			ctx := testContext(t)
			_ = m.Start(ctx)
			u := m.byName["main"]
			u.mu.Lock()
			r := u.run
			u.mu.Unlock()
			<-r.done
			if err := m.Stop(ctx); err != nil {
				t.Error(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			close(ends)
			got, want := <-ends, end{}
			if c.action != "" {
				want = end{"main", c.action, c.code}
			}
			if got != want || len(ends) > 0 {
				t.Errorf("%+v and %d more, want %+v", got, len(ends), want)
			}
		})
	}
}

// TestStopByHandIsNoEnd is a main service that is stopped: the machine goes on.
func TestStopByHandIsNoEnd(t *testing.T) {
	s := shell("s", "exec sleep 1000")
	s.OnExit = "poweroff"
	l := newLab(t, s)
	ctx := testContext(t)
	ended := false
	l.o.Ended = func(string, string, int) { ended = true }
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.StopService(ctx, "s"); err != nil || ended {
		t.Errorf("ended: %v, %v", ended, err)
	}
}

// TestFolderThatCannotBeEntered is refused with and without the shim.
func TestFolderThatCannotBeEntered(t *testing.T) {
	dir := publicDir(t) + "/secret"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	plain, confined := shell("plain", "true"), shell("confined", "true")
	plain.Dir, plain.User = dir, "12345"
	confined.Dir, confined.User, confined.Confine.Nice = dir, "12345", 1
	l := newLab(t, plain, confined)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	err = l.Start(testContext(t))
	for _, want := range []string{"service plain: start: fork/exec " + sh + " in " + dir + ": permission denied",
		"service confined: start: working directory " + dir + ": permission denied"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
}

func TestSupplementaryGroups(t *testing.T) {
	s := shell("s", "id -G")
	s.User, s.Groups, s.Oneshot = "12345:12346", []string{"7", "9"}, true
	confined := s
	confined.Name, confined.Confine.NoNewPrivs = "confined", true
	l := newLab(t, s, confined)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s", "confined"} {
		eventually(t, name, func() bool { return len(l.Log(name, 1)) == 1 })
		if got := string(l.Log(name, 1)[0]); got != "12346 7 9" {
			t.Errorf("%s: groups %q", name, got)
		}
	}
}
