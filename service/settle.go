package service

import (
	"bytes"
	"strconv"
	"strings"

	"rouse/internal/fmt"
)

// Task is a thread that would not rest.
type Task struct {
	Service string `json:"service"`
	PID     int    `json:"pid"`
	TID     int    `json:"tid"`
	Comm    string `json:"comm"`
	State   string `json:"state"`   // one letter as in proc(5): R, D, S, ...
	Syscall int    `json:"syscall"` // number on this architecture; -1: in its own code
	Reason  string `json:"reason"`
}

func (t Task) String() string {
	return fmt.Sprintf("%s: pid %d tid %d (%s) state %s syscall %d: %s", t.Service, t.PID, t.TID, t.Comm, t.State, t.Syscall, t.Reason)
}

// SettleError names the threads that did not rest before the deadline.
type SettleError struct {
	Tasks []Task
	Err   error // the context's
}

func (e *SettleError) Error() string {
	return "settle: " + listTasks(e.Tasks) + ": " + e.Err.Error()
}

func (e *SettleError) Unwrap() error { return e.Err }

// FreezeError names the threads that did not freeze before the deadline.
type FreezeError struct {
	Tasks []Task
	Err   error
}

func (e *FreezeError) Error() string {
	return "freeze: " + listTasks(e.Tasks) + ": " + e.Err.Error()
}

func (e *FreezeError) Unwrap() error { return e.Err }

// maxNamed keeps an error for a fork bomb readable.
const maxNamed = 8

func listTasks(tasks []Task) string {
	if len(tasks) == 0 {
		return "no task found that is to blame"
	}
	var b strings.Builder
	for i, t := range tasks {
		if i == maxNamed {
			fmt.Fprintf(&b, "; and %d more", len(tasks)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(t.String())
	}
	return b.String()
}

// taskStat is what we need of /proc/TID/stat.
type taskStat struct {
	comm  string
	state byte
	ppid  int
	flags uint64
}

// Flags of a task, include/linux/sched.h (Linux 6.12).
const (
	pfIOWorker   = 0x00000010 // these three run kernel code only
	pfUserWorker = 0x00004000
	pfKthread    = 0x00200000
	pfForkNoExec = 0x00000040 // has not executed anything since it was forked
)

// parseStat reads /proc/TID/stat (proc_pid_stat(5)). The name may hold anything, blanks and
// parentheses too, so its end is the last parenthesis.
func parseStat(data []byte) (taskStat, error) {
	open := bytes.IndexByte(data, '(')
	end := bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return taskStat{}, fmt.Errorf("stat %.40q: no name in it", data)
	}
	f := bytes.Fields(data[end+1:])
	if len(f) < 7 || len(f[0]) != 1 {
		return taskStat{}, fmt.Errorf("stat %.40q: too few fields", data)
	}
	s := taskStat{comm: string(data[open+1 : end]), state: f[0][0]}
	var err1, err2 error
	s.ppid, err1 = strconv.Atoi(string(f[1]))
	s.flags, err2 = strconv.ParseUint(string(f[6]), 10, 64)
	if err1 != nil || err2 != nil {
		return taskStat{}, fmt.Errorf("stat %.40q: not numbers", data)
	}
	return s, nil
}

// Values of taskCall.nr that are no system call.
const (
	callRunning = -2 // the kernel says "running": it cannot look
	callNone    = -1 // stopped or asleep, but not in a system call: in the program's own code
)

// taskCall is what we need of /proc/TID/syscall.
type taskCall struct {
	nr   int
	arg0 uint64
}

// parseCall reads /proc/TID/syscall (fs/proc/base.c, proc_pid_syscall): "running", or "-1 SP PC",
// or the number and six arguments in hexadecimal, SP and PC.
func parseCall(data []byte) (taskCall, error) {
	f := bytes.Fields(data)
	if len(f) == 1 && string(f[0]) == "running" {
		return taskCall{nr: callRunning}, nil
	}
	if len(f) < 2 {
		return taskCall{}, fmt.Errorf("syscall %.40q: too few fields", data)
	}
	nr, err := strconv.Atoi(string(f[0]))
	if err != nil || nr < callNone {
		return taskCall{}, fmt.Errorf("syscall %.40q: no number", data)
	}
	c := taskCall{nr: nr}
	if nr >= 0 {
		if c.arg0, err = strconv.ParseUint(string(bytes.TrimPrefix(f[1], []byte("0x"))), 16, 64); err != nil {
			return taskCall{}, fmt.Errorf("syscall %.40q: bad argument", data)
		}
	}
	return c, nil
}

// inert tells whether a thread runs no code of the service, now or later.
func (s taskStat) inert() bool {
	return s.state == 'Z' || s.state == 'X' || s.flags&(pfIOWorker|pfUserWorker|pfKthread) != 0
}

// judge says why a thread in system call c is not at rest, or "". source tells what file descriptor fd of the
// thread is open on. The kernel shows the system call only of a thread that is off the CPU for a
// reason, so the state of proc(5) adds nothing.
func judge(c taskCall, source func(fd uint64) string) string {
	switch c.nr {
	case callRunning:
		return "running"
	case callNone:
		return "stopped in its own code"
	}
	kind, ok := restful[c.nr]
	switch {
	case !ok:
		return "in a system call that is no rest"
	case kind == restReads && drawsRandom(source(c.arg0)):
		return "reading random bytes"
	}
	return ""
}

func drawsRandom(path string) bool {
	switch path {
	case "/dev/urandom", "/dev/random", "/dev/hwrng", "/dev/hw_random":
		return true
	}
	return false
}

// How a system call counts as rest. A thread rests when it sleeps until something outside of it
// happens, so that what it does next begins with looking at what that was. Not in the list and so
// never at rest: getrandom, and all that a program calls in passing (mmap, openat, fsync, ...): a
// thread there is in the middle of something.
const (
	restWaits = iota // waits for an event, a lock, a child, the time
	restReads        // the same if its first argument is not a source of random bytes
)
