package service

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Between two looks at threads that do not rest: short at first, since an event loop dries up
// within microseconds, then longer, since our looking costs the CPU that they need.
const (
	settleFirst = 100 * time.Microsecond
	settleLast  = time.Millisecond
	// settleTry bounds what is waited for services with Settle "try".
	settleTry = 500 * time.Millisecond
)

// phase is what a look at the threads is for.
type phase int

const (
	watching phase = iota // is each thread at rest now? Remember where it is.
	again                 // has each slept since it was watched?
	frozen                // was each stopped where it slept?
)

// sighting is a thread at rest: where, and how often the scheduler had let it run by then.
type sighting struct {
	where   uint64 // of the system call, its arguments, stack and instruction pointer
	runs    uint64
	stopped bool // there, when it was frozen with its cgroup
}

// looker reads /proc with one buffer, so that a look at a thousand threads is no work for the collector.
type looker struct {
	buf  []byte
	path []byte
	seed maphash.Seed
	seen map[int]sighting // by thread, of the last watching
	// strict also wants that no thread has run since it was seen, not only that it is where it was.
	strict bool
}

func newLooker() *looker {
	return &looker{buf: make([]byte, 4096), path: make([]byte, 0, 64), seed: maphash.MakeSeed(), seen: make(map[int]sighting)}
}

// read returns the content of /proc/ID/file, valid until the next read. A thread that has ended
// gives an error: ENOENT before the open, ESRCH after.
func (l *looker) read(id int, file string) ([]byte, error) {
	l.path = append(l.path[:0], "/proc/"...)
	l.path = strconv.AppendInt(l.path, int64(id), 10)
	l.path = append(append(l.path, '/'), file...)
	fd, err := unix.Open(string(l.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, l.buf)
	if err != nil {
		return nil, err
	}
	return l.buf[:n], nil
}

func ended(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// look returns thread tid if it is not at rest. An error is not about the thread but about our view: without
// CONFIG_HAVE_ARCH_TRACEHOOK or the right to ptrace nothing can be said, and silence would be a lie.
func (l *looker) look(service string, tid int, p phase) (*Task, error) {
	data, err := l.read(tid, "syscall")
	if ended(err) {
		if _, gone := l.read(tid, "stat"); ended(gone) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/syscall: %w", tid, err)
	}
	c, err := parseCall(data)
	if err != nil {
		return nil, err
	}
	where := maphash.Bytes(l.seed, data)
	why := judge(c, func(fd uint64) string {
		target, _ := os.Readlink("/proc/" + strconv.Itoa(tid) + "/fd/" + strconv.FormatUint(fd, 10))
		return target
	})
	if why == "" {
		if why, err = l.compare(tid, where, p); err != nil {
			return nil, err
		}
	}
	if why == "" {
		return nil, nil
	}
	return l.name(service, tid, c, why)
}

// compare holds a thread in a restful system call against its last sighting.
func (l *looker) compare(tid int, where uint64, p phase) (string, error) {
	runs, err := l.runs(tid)
	if ended(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	was, ok := l.seen[tid]
	switch {
	case p == watching:
		l.seen[tid] = sighting{where: where, runs: runs}
	case !ok:
		return "new", nil
	case where != was.where:
		return "on its way through another system call", nil
	// To be stopped a sleeper is woken once.
	case l.strict && runs != was.runs && !(p == frozen && runs == was.runs+1):
		return "awake a moment ago", nil
	case p == frozen:
		was.stopped = true
		l.seen[tid] = was
	}
	return "", nil
}

// stillSlept is the short way to see that none has run since it was watched: who has not is where it was, and
// nobody has started a thread. If one has, the long way says which.
func (l *looker) stillSlept() bool {
	for tid, was := range l.seen {
		if runs, err := l.runs(tid); err != nil || runs != was.runs {
			return false
		}
	}
	return true
}

// runs returns how often a thread was given a CPU: the third number of /proc/TID/schedstat, or, in kernels without
// CONFIG_SCHED_INFO, where that is 0, how often it went to sleep.
func (l *looker) runs(tid int) (uint64, error) {
	data, err := l.read(tid, "schedstat")
	if err == nil {
		if f := bytes.Fields(data); len(f) == 3 && string(f[2]) != "0" {
			return strconv.ParseUint(string(f[2]), 10, 64)
		}
	}
	text, err := l.status(tid, "voluntary_ctxt_switches:")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// status returns the value of one line of /proc/TID/status, "" if there is none.
func (l *looker) status(tid int, key string) (string, error) {
	data, err := l.read(tid, "status")
	if err != nil {
		return "", err
	}
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if v, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return string(bytes.TrimSpace(v)), nil
		}
	}
	return "", nil
}

// name describes a thread that is not at rest, unless it is one that runs no code of the service, now or later.
func (l *looker) name(service string, tid int, c taskCall, why string) (*Task, error) {
	data, err := l.read(tid, "stat")
	if ended(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := parseStat(data)
	if err != nil {
		return nil, err
	}
	if s.inert() {
		return nil, nil
	}
	return &Task{Service: service, PID: l.tgid(tid), TID: tid, Comm: s.comm, State: string(rune(s.state)), Syscall: max(c.nr, callNone), Reason: why}, nil
}

// tgid returns the process of thread tid, or tid itself if it has gone.
func (l *looker) tgid(tid int) int {
	text, err := l.status(tid, "Tgid:")
	if n, aerr := strconv.Atoi(text); err == nil && aerr == nil {
		return n
	}
	return tid
}

// restless returns all threads below cgroup path that are not at rest.
func (l *looker) restless(service, path string, p phase) ([]Task, error) {
	var tasks []Task
	var first error
	eachID(path, "cgroup.threads", func(tid int) {
		t, err := l.look(service, tid, p)
		if err != nil && first == nil {
			first = err
		}
		if t != nil {
			tasks = append(tasks, *t)
		}
	})
	return tasks, first
}

// Settle waits until every thread of every service rests: it sleeps in a system call that waits
// for something outside of it. Services with Settle "off" are not looked at; those with "try" are
// waited for half a second at most, then logged. For the others the error at the end of ctx is
// a *SettleError with the threads of the last look.
//
// This is a good moment to freeze and no more: a thread seen asleep may be woken by one that is looked
// at after it. Freeze proves it.
func (m *Manager) Settle(ctx context.Context) error {
	l := newLooker()
	start := m.now()
	for wait := settleFirst; ; wait = min(2*wait, settleLast) {
		must, try, err := m.unsettled(l, watching)
		if err != nil {
			return err
		}
		if len(must) == 0 && len(try) > 0 && m.now().Sub(start) >= settleTry {
			m.logf("settle: going on without rest: %s", listTasks(try))
			return nil
		}
		if len(must)+len(try) == 0 {
			return nil
		}
		// Jitter, so as not to fall into step with what the thread does.
		if err := sleep(ctx, m.jitter(wait)); err != nil {
			return &SettleError{Tasks: append(must, try...), Err: err}
		}
	}
}

// unsettled returns the threads not at rest, those of services that require it apart from those that
// only try.
func (m *Manager) unsettled(l *looker, p phase) (must, try []Task, err error) {
	if !m.prepared.Load() {
		return nil, nil, nil // nothing runs
	}
	for _, u := range m.units {
		if u.spec.Settle == "off" {
			continue
		}
		tasks, err := l.restless(u.spec.Name, u.cg.path, p)
		switch {
		case err != nil && u.spec.Settle == "require":
			return nil, nil, fmt.Errorf("settle %s: cannot see its threads: %w", u.spec.Name, err)
		case u.spec.Settle == "try":
			try = append(try, tasks...)
		default:
			must = append(must, tasks...)
		}
	}
	return must, try, nil
}

// sleep waits for d or until ctx ends, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unfrozen returns the threads below cgroup path that keep it from being frozen. The freezer parks a
// thread as an interruptible sleeper in do_freezer_trap (kernel/signal.c); one that runs, or
// that waits uninterruptibly, is not parked.
func (l *looker) unfrozen(service, path string) []Task {
	var tasks []Task
	eachID(path, "cgroup.threads", func(tid int) {
		data, err := l.read(tid, "stat")
		if err != nil {
			return
		}
		s, err := parseStat(data)
		if err != nil || s.state != 'R' && s.state != 'D' {
			return
		}
		t := Task{Service: service, TID: tid, Comm: s.comm, State: string(rune(s.state)), Syscall: callNone, Reason: "not frozen"}
		if data, err = l.read(tid, "syscall"); err == nil {
			if c, err := parseCall(data); err == nil {
				t.Syscall = max(c.nr, callNone)
			}
		}
		if data, err = l.read(tid, "wchan"); err == nil && len(data) > 1 {
			t.Reason = "not frozen, waits in " + clean(string(data))
		}
		t.PID = l.tgid(tid)
		tasks = append(tasks, t)
	})
	return tasks
}

// serviceOfPath finds the service whose cgroup holds path, as /proc/PID/cgroup prints it.
func serviceOfPath(base, path string) string {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(base, "/")+"/")
	name, _, _ := strings.Cut(rest, "/")
	if !ok || name == ".." { // above the root of our cgroup namespace
		return ""
	}
	return name
}
