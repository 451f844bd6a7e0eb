package service

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/guard"
)

// Reaper waits for all children of this process, as PID 1 must: those it started, and orphans
// that the kernel handed over. While it runs, nobody else in the process may wait for a child;
// (*Command).Wait, Run and Output would lose the race for the exit status.
type Reaper struct {
	// mu is held across fork, exec and registration, and across each wait4. Hence a pid that
	// wait4 returns is either registered or nobody's. The price: nothing is reaped while a child
	// is between fork and exec. Signals to our children are sent under it too, so that a pid
	// cannot be reused in between: it is free only once wait4 has returned it.
	mu       sync.Mutex
	children map[int]*Process
	orphans  uint64
	patience time.Duration // with a child between fork and exec
}

// execPatience is how long a child may take from fork to exec. Usually that is a millisecond; a child that was
// frozen there, or stopped by a process of the user whom it has just become, would keep the lock for ever.
const execPatience = 5 * time.Second

// Process is a child that a Reaper watches.
type Process struct {
	_      incomparable
	reaper *Reaper
	pid    int
	done   chan struct{}
	status unix.WaitStatus
	usage  unix.Rusage
	gone   bool // under reaper.mu
	// Of a process that was not started here but adopted:
	pidfd   *os.File
	unknown bool // its status went to its parent
}

// NewReaper returns a Reaper that reaps nothing until Run is called. Children may be started
// before: they stay zombies, and so keep their exit status, until Run finds them.
//
// It sees to it that Go code can run on two threads at once. One that waits for a child's exec holds its processor
// all the time (package syscall forks by vfork, and tells the scheduler nothing of it), so that on a
// machine with one CPU nobody would be left to help a child that does not get there.
//
// PID 1 is shielded from signals now and not in Run, which runs beside the start of the first service.
func NewReaper() *Reaper {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	if os.Getpid() == 1 {
		shieldSignals()
	} else {
		_ = becomeSubreaper() // Run says why not
	}
	return &Reaper{children: make(map[int]*Process), patience: execPatience}
}

func becomeSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Run reaps until ctx ends. A process other than PID 1 is a child subreaper (prctl(2)), so that orphans of services arrive
// here and not at the real PID 1; an error says that it cannot be.
func (r *Reaper) Run(ctx context.Context) error {
	if os.Getpid() != 1 {
		if err := becomeSubreaper(); err != nil {
			return about("reaper: become child subreaper", "", err)
		}
	}
	// One pending signal is enough: a sweep reaps all there are.
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCHLD)
	defer signal.Stop(ch)
	for {
		r.sweep()
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Reaper) sweep() {
	for r.reapOne() {
	}
}

// reapOne takes the lock for one child only, so that a flood of orphans does not keep Start out.
func (r *Reaper) reapOne() bool {
	r.mu.Lock()
	var status unix.WaitStatus
	var usage unix.Rusage
	// With WNOHANG it is never interrupted.
	pid, _ := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
	if p := r.children[pid]; p != nil {
		r.finish(p, status, &usage)
	} else if pid > 0 {
		r.orphans++
	}
	r.mu.Unlock()
	return pid > 0
}

// finish runs under r.mu.
func (r *Reaper) finish(p *Process, status unix.WaitStatus, usage *unix.Rusage) {
	if p.gone {
		return
	}
	p.gone, p.status, p.usage = true, status, *usage
	delete(r.children, p.pid)
	close(p.done)
}

// Orphans returns how many processes were reaped that nobody had registered.
func (r *Reaper) Orphans() uint64 {
	r.mu.Lock()
	n := r.orphans
	r.mu.Unlock()
	return n
}

// Start starts c and returns when its program was executed. Only the returned Process tells how it ended.
func (r *Reaper) Start(c *Command) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	over := make(chan struct{})
	defer close(over)
	patience := r.patience
	go guard.Do(func() {
		// More than once, for it may not even have forked when patience ends first.
		for !awaitClosed(patience, over) {
			killUnexecuted()
		}
	})
	pid, err := c.start()
	if err != nil {
		return nil, err
	}
	p := &Process{reaper: r, pid: pid, done: make(chan struct{})}
	r.children[pid] = p
	return p, nil
}

// killUnexecuted kills our children that have forked but not executed: only the one that a Start is waiting
// for can be such. The kernel then reports it as started, and killed.
func killUnexecuted() {
	l, self := newLooker(), os.Getpid()
	for _, n := range entries("/proc") {
		pid, _ := strconv.Atoi(n)
		if pid <= 0 {
			continue
		}
		data, err := l.read(pid, "stat")
		if err != nil {
			continue
		}
		if s, err := parseStat(data); err == nil && s.ppid == self && s.flags&pfForkNoExec != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// entries returns what is in a directory, in no order; nothing if it cannot be read.
func entries(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	list, _ := d.Readdirnames(-1)
	d.Close()
	return list
}

// PID returns the process id, which is valid until Done is closed.
func (p *Process) PID() int { return p.pid }

// Done is closed once the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the process has ended and returns its wait status (wait(2)), or ctx's error.
func (p *Process) Wait(ctx context.Context) (unix.WaitStatus, error) {
	select {
	case <-p.done:
		return p.status, nil
	case <-ctx.Done():
		return 0, about("wait for pid", strconv.Itoa(p.pid), ctx.Err())
	}
}

// Status returns the wait status; it may be called once Done is closed.
func (p *Process) Status() unix.WaitStatus { return p.status }

// Usage returns what the process used; it may be called once Done is closed.
func (p *Process) Usage() unix.Rusage { return p.usage }

// Signal sends sig to the process. After its end it returns os.ErrProcessDone: never does a
// signal hit another process that was given the same pid.
func (p *Process) Signal(sig syscall.Signal) error {
	p.reaper.mu.Lock()
	var err error
	switch {
	case p.gone:
		err = unix.ESRCH
	case p.pidfd != nil: // its pid is not ours to keep from being used again
		err = unix.PidfdSendSignal(int(p.pidfd.Fd()), sig, nil, 0)
	default:
		err = unix.Kill(p.pid, sig)
	}
	p.reaper.mu.Unlock()
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return about("signal pid", strconv.Itoa(p.pid), err)
}

// exitCode maps a wait status to one number as shells do: 128 + signal for a killed process.
func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// describe says how a process ended, for people.
func describe(s unix.WaitStatus) string {
	switch {
	case s.Signaled() && s.CoreDump():
		return "killed by " + unix.SignalName(s.Signal()) + ", core dumped"
	case s.Signaled():
		return "killed by " + unix.SignalName(s.Signal())
	}
	return "exit status " + strconv.Itoa(s.ExitStatus())
}

// registered tells whether pid is a child that was started here and has not ended.
func (r *Reaper) registered(pid int) bool {
	r.mu.Lock()
	p := r.children[pid]
	r.mu.Unlock()
	return p != nil
}
