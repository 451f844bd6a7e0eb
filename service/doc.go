// Package service runs the services of a guest: it starts them in the order of their
// dependencies, each in a cgroup of its own, restarts them when they fail, keeps the tail of what
// they print, runs their hooks, and makes all of them stand still for a snapshot.
//
// The easy case is a table of [Spec] values, [New], [Manager.Start] and, at the end,
// [Manager.Stop]. A [Reaper] must be running beside it, for it is the one place of a process that
// waits for children:
//
//	r := service.NewReaper()
//	go r.Run(ctx)
//	m, err := service.New(service.Options{CgroupRoot: "/sys/fs/cgroup", Reaper: r}, specs)
//	err = m.Start(ctx)
//
// There are three races, and each one shaped the code.
//
// A child may end before anybody has noted its pid. PID 1 has to wait for every process of the
// guest, so wait4(-1) can meet a pid that nobody knows yet, and that exit status would be lost.
// [Reaper.Start] forks and registers under the lock that the reaping holds too.
//
// A thread may be stopped halfway through drawing random bytes. It would wake in a clone with half
// an answer of the twin's generator; AWS-LC aborts the process when it notices. [Manager.Settle]
// waits until every thread sleeps in a system call that waits for something from outside. Looking
// at threads one after the other is a race in itself, so [Manager.Freeze] looks again when nothing
// can move any more: each thread must have been stopped where it was seen asleep, or all are
// thawed and it tries again. What it sees of a service is its threads. A process that schedules
// work of its own on them (goroutines) may hold some back; such a service rests for sure only by a
// before-snapshot hook.
//
// A service may be started while all are being frozen: the new process would freeze before its
// exec, with PID 1 waiting for that exec for ever. Starting and freezing exclude each other, and
// restarts that fall due while frozen wait for the thaw.
//
// What a service prints goes through one pipe into one ring, of which everybody else is a reader: the console, the log
// file, [Manager.LogSince]. A reader that is too slow misses lines and is told how many; the service
// never waits, and nothing grows.
//
// PID 1 is shielded from its services: see shield_linux.go for what Go, the scheduler and the process table would let
// them do.
//
// The mechanism is cgroup v2: clone3 puts a child into its cgroup before its first instruction,
// cgroup.freeze on the one parent of all services stops everything with one write, and
// cgroup.kill ends what a service left behind. Thawing is two system calls on descriptors that are
// kept open: it forks nothing, opens nothing and allocates nothing.
package service
