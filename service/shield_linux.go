package service

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
)

// What follows keeps services from bringing PID 1 down. Those of other users than root cannot signal or trace it anyway.
// Root's can still reboot(2); what they may not is to end or stop PID 1 by the way. The out-of-memory
// killer needs no telling: it passes over a global init (mm/oom_kill.c, oom_unkillable_task).

// shieldSignals gives every signal that would end a Go program a handler that does nothing. The kernel drops what init has
// no handler for (kernel/signal.c, sig_task_ignored), but Go's runtime has one for nearly all: a SIGHUP or
// SIGQUIT from a service makes it exit, and the kernel panic. They are not ignored, because children would
// inherit that over exec.
func shieldSignals() {
	var list []os.Signal
	for n := syscall.Signal(1); n < 32; n++ {
		switch n {
		case unix.SIGCHLD: // ours
		case unix.SIGURG: // the runtime's own: a hundred a second under load
		case unix.SIGPROF: // does nothing unless profiled
		default:
			list = append(list, n)
		}
	}
	signal.Notify(make(chan os.Signal, 1), list...) // full after the first, and nobody reads it
}

// shield is best effort: without a part of it services run too.
func (m *Manager) shield() {
	for _, name := range []string{"cpu", "pids"} {
		// Already on, or not there.
		_ = writeKernel(m.o.CgroupRoot+"/cgroup.subtree_control", "+"+name)
	}
	// With the controller the services together weigh as much as one thread of PID 1, however many they are.
	// Of processes they get three quarters of what the kernel has, because a PID 1 that cannot make a thread dies.
	if most := min(number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")) / 4 * 3; most > 0 {
		_ = writeKernel(m.services.path+"/pids.max", strconv.Itoa(most))
	}
	if m.o.NoTrace && !m.traces() {
		// Children lose it at their exec, and with it the right to trace who has it; we keep ours, to look at their system calls.
		_, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0)
		if e != 0 {
			m.logf("services may trace PID 1: %v", e)
		}
	}
}

// traces tells whether a service asks for the right to trace others.
func (m *Manager) traces() bool {
	for _, u := range m.units {
		for _, name := range u.spec.Confine.Capabilities {
			if definition.Capability(name) == unix.CAP_SYS_PTRACE {
				return true
			}
		}
	}
	return false
}

// number reads a file of one number, 0 if there is none.
func number(path string) int {
	data, _ := readKernel(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}
