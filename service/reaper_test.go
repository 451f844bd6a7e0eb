package service

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	helpers["exit"] = func(args []string) {
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	}
	// Children by plain fork with the reaper as their parent, as orphans of a double fork are; without
	// exec, since it is the reaping that is to be tried, at a rate that outruns pid_max.
	helpers["orphans"] = func(args []string) {
		n, _ := strconv.Atoi(args[0])
		for range n {
			pid, _, err := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if err != 0 {
				os.Exit(1)
			}
			if pid == 0 {
				_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
	}
	helpers["sleep"] = func([]string) { time.Sleep(time.Hour) }
}

// TestReaperLosesNoStatus starts children that end at once, from many goroutines, while
// orphans come in; every status must arrive at its owner.
func TestReaperLosesNoStatus(t *testing.T) {
	ctx := testContext(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 100 {
				want := (worker*100 + i) % 124
				p, err := testReaper.Start(&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "true & exit " + strconv.Itoa(want)}})
				if err != nil {
					t.Error(err)
					return
				}
				status, err := p.Wait(ctx)
				if err != nil || status.ExitStatus() != want {
					t.Errorf("status %v, %v, want %d", status, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestReaperSignal(t *testing.T) {
	p, err := testReaper.Start(helper("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status, err := p.Wait(testContext(t))
	if err != nil || exitCode(status) != 137 || describe(status) != "killed by SIGKILL" {
		t.Errorf("%s, %v", describe(status), err)
	}
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestReaperRefuses(t *testing.T) {
	if _, err := testReaper.Start(&Command{Path: "/nonexistent"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing program: %v", err)
	}
}

// TestCommandGivesDescriptors also shows that our environment does not get into the process.
func TestCommandGivesDescriptors(t *testing.T) {
	t.Setenv("ROUSE_OURS", "x")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	extra, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	p, err := testReaper.Start(&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "env; pwd; readlink /proc/self/fd/0; head -c5 <&3"},
		Env: []string{"A=b", "PWD=/tmp"}, Dir: "/tmp", Stdout: w, Stderr: w, ExtraFiles: []*os.File{extra}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	out := string(readTail(r, 4096))
	for _, want := range []string{"A=b\n", "\n/tmp\n/dev/null\nName:"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "ROUSE_OURS") {
		t.Errorf("our environment got out:\n%s", out)
	}
}

// floodSize is small in plain tests and 100 000 in those for root: three times the usual pid_max. In a guest, where a fork
// takes fifty times as long, ROUSE_FLOOD and a smaller pid_max say the same.
var floodSize = 5_000

func init() {
	if n, err := strconv.Atoi(os.Getenv("ROUSE_FLOOD")); err == nil {
		floodSize = n
	}
}

// TestReaperFlood lets many orphans end, so that pids are used several times over, while
// registered children come and go; none of theirs may be taken for an orphan's.
func TestReaperFlood(t *testing.T) {
	n := floodSize
	// An emulated CPU takes minutes for what takes ten seconds otherwise.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	before := testReaper.Orphans()
	flood, err := testReaper.Start(helper("orphans", strconv.Itoa(n)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flood.Signal(unix.SIGKILL) }() // or it goes on beside all tests that follow
	children := 0
	for over := false; !over; children++ {
		want := children % 124
		p, err := testReaper.Start(&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit " + strconv.Itoa(want)}})
		if err != nil {
			t.Fatal(err)
		}
		if status, err := p.Wait(ctx); err != nil || status.ExitStatus() != want {
			t.Fatalf("child %d: status %v, %v", children, status, err)
		}
		select {
		case <-flood.Done():
			over = true
		default:
		}
	}
	if status := flood.Status(); status != 0 {
		t.Fatalf("flood: %s", describe(status))
	}
	for testReaper.Orphans()-before < uint64(n) {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d orphans reaped", testReaper.Orphans()-before, n)
		}
		time.Sleep(time.Millisecond)
	}
	testReaper.mu.Lock()
	left := len(testReaper.children)
	testReaper.mu.Unlock()
	if left != 0 {
		t.Errorf("%d children still registered", left)
	}
	t.Logf("%d orphans beside %d children", n, children)
}
