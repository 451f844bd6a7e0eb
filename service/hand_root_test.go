//go:build root

package service

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestByHand(t *testing.T) {
	s := shell("s", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.01; done")
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.StartService(ctx, "s"); !errors.Is(err, errNotStarted) {
		t.Errorf("before the start: %v", err)
	}
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := l.state("s").PID
	if _, _, err := l.LogSince(ctx, "s", 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Signal("s", unix.SIGUSR1), l.StartService(ctx, "s")); err != nil {
		t.Fatal(err)
	}
	if pid := l.state("s").PID; pid != first {
		t.Errorf("started again although it runs: pid %d, was %d", pid, first)
	}
	eventually(t, "signal", func() bool { return strings.Contains(string(join(l.Log("s", 0))), "usr1") })
	if err := l.StopService(ctx, "s"); err != nil || l.state("s").State != Stopped {
		t.Errorf("%v, %+v", err, l.state("s"))
	}
	if err := l.Signal("s", unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a stopped service: %v", err)
	}
	if err := l.Restart(ctx, "s"); err != nil || l.state("s").State != Running {
		t.Errorf("%v, %+v", err, l.state("s"))
	}
	if err := l.Restart(ctx, "t"); err == nil || err.Error() != "service t: no such service" {
		t.Errorf("unknown service: %v", err)
	}
}

func join(lines [][]byte) (all []byte) {
	for _, l := range lines {
		all = append(append(all, l...), '\n')
	}
	return all
}

func TestByHandRefusedWhileHeld(t *testing.T) {
	l := newLab(t, shell("s", "exec sleep 1000"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	refused := func(state string) {
		t.Helper()
		for name, err := range map[string]error{"start": l.StartService(ctx, "s"), "stop": l.StopService(ctx, "s"),
			"restart": l.Restart(ctx, "s"), "signal": l.Signal("s", unix.SIGTERM)} {
			if !errors.Is(err, ErrHeld) {
				t.Errorf("%s while %s: %v", name, state, err)
			}
		}
	}
	pid := l.state("s").PID
	l.HoldRestarts()
	refused("held")
	if err := l.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	refused("frozen")
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	if now := l.state("s").PID; now != pid {
		t.Errorf("pid %d, was %d", now, pid)
	}
	l.HoldRestarts() // as the adjust does, which proves that the gate is shut
	if err := l.Restart(ctx, "s"); err != nil {
		t.Errorf("restart in the adjust: %v", err)
	}
	l.ReleaseRestarts()
	l.HoldRestarts() // the next snapshot
	refused("held again")
	l.ReleaseRestarts()
}

// TestStartByHandWaitsForRelease is a start that was allowed, with a snapshot beginning before it could fork.
func TestStartByHandWaitsForRelease(t *testing.T) {
	l := newLab(t, shell("s", "exec sleep 1000"))
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.StopService(ctx, "s")); err != nil {
		t.Fatal(err)
	}
	l.HoldRestarts()
	done := make(chan error, 1)
	go func() { done <- l.byName["s"].start(ctx, byHand) }()
	eventually(t, "a run", func() bool { u := l.byName["s"]; u.mu.Lock(); defer u.mu.Unlock(); return !closed(u.run.done) })
	if busy, err := l.services.populated(); busy || err != nil {
		t.Errorf("started while held: %v", err)
	}
	l.ReleaseRestarts()
	if err := <-done; err != nil || l.state("s").State != Running {
		t.Errorf("%v, %+v", err, l.state("s"))
	}
}

// TestLogSince follows a service that prints faster than anybody reads: it is not held up, every line that arrives
// has its number, and what is missing shows as a gap.
func TestLogSince(t *testing.T) {
	s := shell("s", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; read x </proc/self/fd/0; exec sleep 1000")
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var next uint64
	got := 0
	for next < 20000 {
		lines, to, err := l.LogSince(ctx, "s", next, 100)
		if err != nil || len(lines) == 0 || len(lines) > 100 || lines[0].Seq <= next || to != lines[len(lines)-1].Seq {
			t.Fatalf("after %d: %d lines to %d, %v", next, len(lines), to, err)
		}
		for i, line := range lines {
			if line.Seq != lines[0].Seq+uint64(i) || line.Text != strings.TrimSpace(line.Text) || atoi(line.Text) != line.Seq {
				t.Fatalf("%+v", line)
			}
		}
		next, got = to, got+len(lines)
	}
	t.Logf("%d of 20000 lines", got)
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if lines, to, err := l.LogSince(short, "s", next, 0); !errors.Is(err, context.DeadlineExceeded) || lines != nil || to != next {
		t.Errorf("at the end: %v, %d, %v", lines, to, err)
	}
	if _, _, err := l.LogSince(ctx, "t", 0, 0); err == nil {
		t.Error("unknown service: no error")
	}
}

func atoi(s string) (n uint64) {
	for _, c := range s {
		n = n*10 + uint64(c-'0')
	}
	return n
}
