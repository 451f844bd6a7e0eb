//go:build root

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// away is a cgroup beside those of services.
func away(t *testing.T, l *lab) string {
	t.Helper()
	dir := filepath.Join(l.o.CgroupRoot, "away")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func moveTo(t *testing.T, pid int, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		t.Fatal(err)
	}
}

// orphan is the pid of the process that is not the service's main one.
func (l *lab) orphan(t *testing.T, service string) (pid int) {
	t.Helper()
	eventually(t, "double fork and exec", func() bool {
		n := 0
		eachID(l.byName[service].cg.path, "cgroup.procs", func(id int) {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", id))
			if string(comm) == "sleep\n" {
				n++
			}
			if id != l.state(service).PID {
				pid = id
			}
		})
		return n == 2
	})
	return pid
}

// An orphan that has left is found whether or not the threads of its service are looked at.
func TestOrphanEscapes(t *testing.T) {
	for _, settle := range []string{"require", "try", "off"} {
		t.Run(settle, func(t *testing.T) {
			spec := shell("a", "(sleep 1000 &) ; exec sleep 1000")
			spec.Settle = settle
			l := newLab(t, spec)
			ctx := testContext(t)
			if err := l.Start(ctx); err != nil {
				t.Fatal(err)
			}
			pid := l.orphan(t, "a")
			if err := errors.Join(l.Freeze(ctx), l.Thaw(ctx)); err != nil {
				t.Fatal(err)
			}
			moveTo(t, pid, away(t, l))
			var e *EscapeError
			if err := l.Freeze(ctx); !errors.As(err, &e) || len(e.Processes) != 1 || e.Processes[0].PID != pid {
				t.Errorf("freeze: %v", err)
			}
			moveTo(t, pid, l.byName["a"].cg.path)
		})
	}
}

// A process that leaves between the look at its thread and the freeze was seen at rest, and is not stopped.
func TestEscapeInTheMiddle(t *testing.T) {
	l := newLab(t, shell("a", "(sleep 1000 &) ; exec sleep 1000"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	pid, main := l.orphan(t, "a"), l.state("a").PID
	k := newLooker()
	eventually(t, "rest", func() bool {
		must, _, err := l.unsettled(k, watching)
		return err == nil && len(must) == 0
	})
	moveTo(t, pid, away(t, l))
	if err := l.freezer.set(ctx, true); err != nil {
		t.Fatal(err)
	}
	if must, _, err := l.unsettled(k, frozen); len(must) > 0 || err != nil {
		t.Fatalf("%v, %v", must, err)
	}
	if !k.seen[main].stopped || k.seen[pid].stopped {
		t.Errorf("stopped: %+v", k.seen)
	}
	if found, err := l.escaped(k); err != nil || len(found) != 1 || found[0].PID != pid {
		t.Errorf("escaped: %+v, %v", found, err)
	}
	moveTo(t, pid, l.byName["a"].cg.path)
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
}

// The short way to see that nobody has run says what the long way says.
func TestStillSlept(t *testing.T) {
	l := newLab(t, shell("a", "trap : USR1; while :; do sleep 1000 & wait; done"))
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	k := newLooker()
	k.strict = true
	rest := func() bool {
		clear(k.seen)
		must, _, err := l.unsettled(k, watching)
		return err == nil && len(must) == 0 && len(k.seen) > 1 && k.stillSlept()
	}
	eventually(t, "rest", rest)
	was := k.seen[l.state("a").PID]
	if err := unix.Kill(l.state("a").PID, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shell to run", func() bool {
		runs, err := k.runs(l.state("a").PID)
		return err == nil && runs != was.runs
	})
	if k.stillSlept() {
		t.Error("who has run counts as asleep")
	}
	if must, _, err := l.unsettled(k, again); len(must) == 0 || err != nil {
		t.Errorf("the long way: %v, %v", must, err)
	}
	eventually(t, "rest again", rest)
}

// What is taken for the kernel's own is nothing that descends from us.
func TestKernelThreads(t *testing.T) {
	f := family{l: newLooker(), stats: make(map[int]taskStat)}
	kernel := f.kernelThreads()
	if len(kernel) == 0 {
		t.Skip("process 2 is not kthreadd here, or the kernel lists no children (CONFIG_PROC_CHILDREN)")
	}
	for pid := range kernel {
		if s, ok := f.stat(pid); ok && s.ppid != 2 {
			t.Errorf("process %d: %+v", pid, s)
		}
	}
	if kernel[os.Getpid()] || kernel[1] {
		t.Error("user processes among them")
	}
}
