package service

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// run is the time in which a service is wanted.
type run struct {
	stop     chan struct{} // closed to end it
	stopOnce sync.Once
	cause    cause           // of its first process
	kill     context.Context // ended when patience with the stop is over
	killNow  context.CancelFunc
	ready    chan struct{} // closed when ready for the first time
	late     chan error    // capacity 1: not ready in time, the first time
	done     chan struct{} // closed when it is over
	err      error         // before done is closed: why it failed
}

func newRun() *run {
	r := &run{stop: make(chan struct{}), ready: make(chan struct{}), late: make(chan error, 1), done: make(chan struct{})}
	r.kill, r.killNow = context.WithCancel(context.Background())
	return r
}

func (r *run) end() { r.stopOnce.Do(func() { close(r.stop) }) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// awaitClosed waits until c is closed, but no longer than d, and tells whether it is.
func awaitClosed(d time.Duration, c <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// start begins a run unless one is under way, and waits until it is ready. c says what its
// first process may have to wait for.
func (u *unit) start(ctx context.Context, c cause) error {
	u.mu.Lock()
	r := u.run
	if r == nil || closed(r.done) {
		r = newRun()
		r.cause = c
		u.run = r
		go guard.Do(func() { u.supervise(r) })
	}
	u.mu.Unlock()
	select {
	case <-r.ready:
		return nil
	case err := <-r.late:
		return err
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("not ready: %s: %w", u.status().why(), ctx.Err())
	}
}

func (s Status) why() string {
	if s.Reason != "" {
		return s.State + ", " + s.Reason
	}
	return s.State
}

// stop ends the run. When ctx ends first, everything of the service is killed.
func (u *unit) stop(ctx context.Context) error {
	u.mu.Lock()
	r := u.run
	u.mu.Unlock()
	if r == nil {
		return nil
	}
	r.end()
	select {
	case <-r.done:
	case <-ctx.Done():
		r.killNow()
		return r.gone(buryTimeout)
	}
	return nil
}

// gone waits for the end of the run after a kill. A process that hangs in the kernel must not keep
// the guest from powering off.
func (r *run) gone(patience time.Duration) error {
	if awaitClosed(2*patience, r.done) { // for the main process, and what it left behind
		return nil
	}
	return errors.New("killed, but still there")
}

// supervise keeps the service alive as its restart policy says until r is stopped.
func (u *unit) supervise(r *run) {
	defer close(r.done)
	defer r.killNow()
	var p policy
	for c := r.cause; ; c = bySupervisor {
		if !u.m.beginSpawn(c, r.stop) {
			u.become(Stopped, false, "")
			return
		}
		began := u.m.now()
		a, err := u.spawn()
		u.m.endSpawn()
		end := ending{err: err, permanent: permanent(err)}
		if err == nil {
			end = u.watch(r, a)
		}
		u.bury(&end)
		if closed(r.stop) {
			u.become(Stopped, false, end.String())
			return
		}
		delay, again, why := p.next(&u.spec, &end, began, u.m.now())
		if !again {
			u.conclude(r, &end, why)
			return
		}
		u.log(end.String() + "; starting again in " + delay.String())
		u.change(func(s *Status) { s.State = Backoff; s.Restarts++ })
		awaitClosed(u.m.jitter(delay), r.stop)
	}
}

// conclude records the end of a service that will not be started again.
func (u *unit) conclude(r *run, end *ending, why string) {
	if end.good() && why == "" {
		if u.spec.Oneshot {
			close(r.ready)
		}
		u.become(Done, u.spec.Oneshot, "")
	} else {
		r.err = end.err
		text := end.String()
		if why != "" {
			text += "; " + why
		}
		if why != "" || r.err == nil {
			r.err = errors.New(text)
		}
		u.log("failed: " + text)
		u.become(Failed, false, text)
	}
	if u.spec.OnExit != "none" && u.m.o.Ended != nil {
		code := end.code()
		if !end.known && end.err != nil {
			code = notExecuted
		}
		u.m.o.Ended(u.spec.Name, u.spec.OnExit, code)
	}
}

// notExecuted is the status by which shells say that there was no such program (POSIX.1-2017, 2.8.2).
const notExecuted = 127

// bury ends what the main process left in the cgroup, so that a new life starts alone.
func (u *unit) bury(end *ending) {
	u.mu.Lock()
	u.attempt = nil
	u.mu.Unlock()
	kills := u.cg.oomKills()
	u.change(func(s *Status) {
		s.PID, s.Ready, s.ExitCode = 0, false, end.code()
		s.Reason = end.String()
		s.OOMKills += kills
	})
	if kills > 0 {
		u.log("out of memory: the kernel killed " + strconv.Itoa(kills) + " of its processes")
		u.cg.killed = true // so that its counters start at 0 again
	}
	ctx, cancel := context.WithTimeout(context.Background(), buryTimeout)
	defer cancel()
	if err := u.cg.reap(ctx); err != nil {
		u.log("processes left behind: " + err.Error())
	}
}

// buryTimeout bounds the wait for killed processes, which can hang in the kernel for as long as a
// dead disk or network file system makes them.
const buryTimeout = 5 * time.Second
