package genid

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A source that tells nobody is noticed by looking alone.
func TestWatch(t *testing.T) {
	h := newHypervisor(t, clockHasCounter)
	s := open(t, Options{VMClock: h.path})
	if err := s.Watch(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 5; n++ {
		h.clone(n)
		<-s.Events()
		expect(t, s, fmt.Sprintf("vmclock:%d", n))
	}
}

func TestWatchNeedsAnInterval(t *testing.T) {
	s := open(t, Options{})
	if err := s.Watch(-time.Second); err == nil {
		t.Error("a negative interval was taken")
	}
}

// watching makes a child of the test watch.
const watching = "GENID_TEST_WATCH"

// TestWatchIsOneWakeup counts, in a process of its own, how often its threads go to sleep while it watches. A busy machine only adds
// to that: while a thread with work waits for a processor the runtime's monitor naps, again and again. So the least of
// many counts is taken. What it says of CPU time is only told.
func TestWatchIsOneWakeup(t *testing.T) {
	if os.Getenv(watching) != "" {
		watchForTest(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestWatchIsOneWakeup$", "-test.v")
	cmd.Env = append(os.Environ(), watching+"=1", "GOMAXPROCS=1")
	text, err := cmd.CombinedOutput()
	if t.Logf("%s", text); err != nil {
		t.Error(err)
	}
}

func watchForTest(t *testing.T) {
	const interval, looks, windows = 20 * time.Millisecond, 25, 100
	h := newHypervisor(t, clockHasCounter)
	s := open(t, Options{VMClock: h.path})
	seen := make(chan struct{}, 1)
	var n, until atomic.Int64
	read := s.all.members[0].read
	s.all.members[0].read = func() reading {
		if now, end := n.Add(1), until.Load(); end != 0 && now >= end && until.CompareAndSwap(end, 0) {
			seen <- struct{}{}
		}
		return read()
	}
	if err := s.Watch(interval); err != nil {
		t.Fatal(err)
	}
	for range windows {
		from, before, used := n.Load(), sleeps(t), cpuTime(t)
		until.Store(from + looks)
		<-seen
		slept, took := sleeps(t)-before, (cpuTime(t)-used)/looks
		t.Logf("%d looks: threads went to sleep %d times, %v CPU per look, which is %.4f %% of a core at four a second",
			looks, slept, took, 100*4*took.Seconds())
		// At four looks a second, ten wakeups are two and a half each.
		if slept <= looks*5/2 {
			return
		}
	}
	t.Errorf("threads went to sleep more than %d times in each of %d times %d looks", looks*5/2, windows, looks)
}

// sleeps is how often the threads of this process have gone to sleep.
func sleeps(t *testing.T) (n int) {
	t.Helper()
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range tasks {
		text, _ := os.ReadFile(file) // none of a thread that has ended
		for line := range bytes.Lines(text) {
			if rest, ok := strings.CutPrefix(string(line), "voluntary_ctxt_switches:"); ok {
				v, err := strconv.Atoi(strings.TrimSpace(rest))
				if err != nil {
					t.Fatal(err)
				}
				n += v
			}
		}
	}
	return n
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}
