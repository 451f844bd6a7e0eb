//go:build root

package service

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	helpers["dog"] = func(args []string) { // feeds its watchdog a few times, then no more
		sayNotify("READY=1")
		for range 3 {
			time.Sleep(20 * time.Millisecond)
			sayNotify("WATCHDOG=1")
		}
		time.Sleep(time.Hour)
	}
	helpers["reload"] = func(args []string) {
		sayNotify("READY=1")
		sayNotify("RELOADING=1\nSTATUS=reading")
		for {
			time.Sleep(10 * time.Millisecond)
			if _, err := os.Stat(args[0]); err == nil {
				break
			}
		}
		sayNotify("READY=1\nSTATUS=done")
		sayNotify("STOPPING=1")
		time.Sleep(time.Hour)
	}
}

func TestWatchdog(t *testing.T) {
	s := helperSpec("dog", "dog")
	s.Ready.Kind, s.Watchdog = "notify", 2*time.Second
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bite", func() bool { return l.state("dog").State == Failed })
	if st := l.state("dog"); st.Reason != "no WATCHDOG=1 within 2s" || st.ExitCode == 0 {
		t.Errorf("%+v", st)
	}
}

func TestWatchdogSleepsWhileFrozen(t *testing.T) {
	s := helperSpec("dog", "notify", "READY=1")
	s.Ready.Kind, s.Watchdog, s.Settle = "notify", time.Hour, "off"
	l := newLab(t, s)
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	// As if it had asked for it just before: however long the freeze took, none of it counts.
	l.byName["dog"].deliver(l.state("dog").PID, message{watchdogEvery: 20 * time.Millisecond}, nil)
	time.Sleep(300 * time.Millisecond) // the watchdog's own time is what is tried here
	if st := l.state("dog"); st.State != Running {
		t.Errorf("bitten while frozen: %+v", st)
	}
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bite", func() bool { return l.state("dog").State == Failed })
}

func TestReloadAndStopping(t *testing.T) {
	flag := publicDir(t) + "/go"
	s := helperSpec("r", "reload", flag)
	s.Ready.Kind = "notify"
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reloading", func() bool { st := l.state("r"); return st.Text == "reading" && !st.Ready })
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopping", func() bool { st := l.state("r"); return st.Text == "done" && st.State == Stopping })
}

// TestNotifyFromOutside sends to a service's socket from a process that is not of the service.
func TestNotifyFromOutside(t *testing.T) {
	c := talk(t, nil, "STATUS=one", "STATUS=two", "READY=1")
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	eventually(t, "socket", func() bool { return c.state("talk").PID != 0 })
	liar := helper("notify", "READY=1")
	liar.Env = append(liar.Env, "NOTIFY_SOCKET="+c.byName["talk"].notify.path)
	p, err := testReaper.Start(liar)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "line in the log", func() bool { return strings.Contains(c.logged(), "passed over") })
	// One message after the other: when the second shows, all before the first have had their effect.
	c.next("one", func(s Status) bool { return s.Text == "one" })
	c.next("two", func(s Status) bool { return s.Text == "two" })
	if st := c.state("talk"); st.Ready || st.State != Starting {
		t.Errorf("a stranger's READY=1 counted: %+v", st)
	}
	c.next("ready", func(s Status) bool { return s.Ready })
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// TestChaos does everything at once, from a seed that is logged: kills, restarts, hooks, settling,
// freezing and thawing. In the end everything must still stop, and nothing be left frozen.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	specs := []Spec{
		shell("quiet", "exec sleep 1000"),
		shell("busy", "while :; do sleep 0.01; done"),
		shell("forker", "while :; do (sleep 0.02 &); sleep 0.005; done"),
		shell("mortal", "sleep 0.03; exit 3"),
		helperSpec("notify", "notify", "READY=1"),
	}
	for i := range specs {
		specs[i].Restart, specs[i].RestartDelay, specs[i].RestartMax, specs[i].StartLimit = "always", time.Millisecond, 10*time.Millisecond, -1
		specs[i].BeforeSnapshot = []Hook{{Exec: []string{"true"}}}
		specs[i].AfterRestore = []Hook{{Exec: []string{"sh", "-c", "sleep 1000 & true"}}}
	}
	specs[4].Ready.Kind = "notify"
	l := newLab(t, specs...)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	act := func(n uint64, do func(r *rand.Rand)) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, n))
			for over.Err() == nil {
				do(r)
				_ = sleep(over, time.Duration(r.IntN(5000))*time.Microsecond)
			}
		})
	}
	act(1, func(r *rand.Rand) {
		if pid := l.Status()[r.IntN(len(specs))].PID; pid > 1 && l.ServiceOf(pid) != "" {
			_ = unix.Kill(pid, []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGSTOP, unix.SIGCONT}[r.IntN(4)])
		}
	})
	frozen := 0
	act(2, func(r *rand.Rand) {
		short, cancel := context.WithTimeout(over, time.Duration(r.IntN(100))*time.Millisecond)
		defer cancel()
		_ = l.Settle(short)
		if l.Freeze(short) == nil {
			frozen++
			// A process that is killed meanwhile runs for the moment of its end.
			if err := l.freezer.events.wait(ctx, "frozen", true); err != nil {
				t.Errorf("not frozen: %v", err)
			}
			_ = sleep(over, time.Duration(r.IntN(3000))*time.Microsecond)
			if err := l.Thaw(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	act(3, func(r *rand.Rand) {
		short, cancel := context.WithTimeout(over, 50*time.Millisecond)
		defer cancel()
		_ = l.Restart(short, specs[r.IntN(len(specs))].Name)
	})
	act(4, func(r *rand.Rand) {
		_, _ = l.Hooks(over, []string{BeforeSnapshot, AfterRestore}[r.IntN(2)])
	})
	act(5, func(r *rand.Rand) {
		l.HoldRestarts()
		_ = sleep(over, time.Duration(r.IntN(2000))*time.Microsecond)
		l.ReleaseRestarts()
	})
	wg.Wait()
	if on, err := l.Frozen(); on || err != nil {
		t.Errorf("frozen in the end: %v, %v", on, err)
	}
	stop, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.Stop(stop); err != nil {
		t.Error(err)
	}
	if busy, err := l.services.populated(); busy || err != nil {
		t.Errorf("processes left: %v, %v", busy, err)
	}
	t.Logf("frozen %d times", frozen)
}
