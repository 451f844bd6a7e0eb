package service

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// watcher follows one attempt from its start to its end.
type watcher struct {
	u     *unit
	r     *run
	a     *attempt
	ready bool
	// The timers' channels are nil while they do not apply.
	late  *time.Timer // readiness, at the time due
	due   time.Time
	watch *time.Timer // watchdog
	every time.Duration
	fault error // why we killed it
}

// watch returns when the attempt is over, by itself or by us.
func (u *unit) watch(r *run, a *attempt) ending {
	w := &watcher{u: u, r: r, a: a, every: u.spec.Watchdog}
	defer close(a.gone)
	defer w.stopTimers()
	w.late = time.NewTimer(u.spec.ReadyTimeout)
	w.due = u.m.now().Add(u.spec.ReadyTimeout)
	switch look := u.looker(u.spec.Ready); {
	case u.spec.Oneshot:
	case u.spec.Ready.Kind == "":
		w.becomeReady()
	case u.spec.Ready.Kind == "fd":
		go guard.Do(func() { u.awaitLine(a) })
	case look != nil:
		go guard.Do(func() { u.probe(a, look) })
	}
	return w.loop()
}

func (w *watcher) stopTimers() {
	w.late.Stop()
	if w.watch != nil {
		w.watch.Stop()
	}
}

func (w *watcher) loop() ending {
	for {
		var watchdog <-chan time.Time
		if w.watch != nil {
			watchdog = w.watch.C
		}
		select {
		case <-w.a.main.Done():
			if w.catchUp(); !closed(w.a.main.Done()) {
				continue // there is another main process now
			}
			return w.ended()
		case <-w.r.stop:
			w.terminate()
			return w.ended()
		case <-w.a.found:
			w.a.found = nil
			w.becomeReady()
		case m := <-w.a.events:
			w.message(m)
		case err := <-w.a.sick:
			w.fail(err, w.u.spec.StopSignal)
		case <-w.late.C:
			w.tooLate()
		case <-watchdog:
			w.silent()
		}
	}
}

func (w *watcher) ended() ending {
	return ending{err: w.fault, status: w.a.main.Status(), known: !w.a.main.unknown}
}

// catchUpTimeout bounds the wait for our own message; it is there within microseconds.
const catchUpTimeout = time.Second

// catchUp takes all messages that the service sent before now. The end of a daemon's first process must not be
// seen before the MAINPID that it sent last, although they come by different ways: a message of ours
// at the end of the same queue tells that all others were taken.
func (w *watcher) catchUp() {
	n := w.u.notify
	if n == nil {
		return
	}
	mark := n.mark()
	patience := time.NewTimer(catchUpTimeout)
	defer patience.Stop()
	for {
		select {
		case m := <-w.a.events:
			w.message(m)
		case <-mark:
			return
		case <-patience.C:
			return
		}
	}
}

func (w *watcher) becomeReady() {
	if w.ready {
		return
	}
	w.ready = true
	w.late.Stop()
	w.feed()
	w.u.become(Running, true, "")
	select {
	case <-w.r.ready:
	default:
		close(w.r.ready)
	}
	if w.u.spec.Health.Check.Kind != "" {
		go guard.Do(func() { w.u.checkHealth(w.a) })
	}
}

// feed starts the watchdog's time anew.
func (w *watcher) feed() {
	if w.every <= 0 || !w.ready {
		return
	}
	if w.watch == nil {
		w.watch = time.NewTimer(w.every)
		return
	}
	w.watch.Reset(w.every)
}

func (w *watcher) message(m *message) {
	if m.watchdogEvery > 0 {
		w.every = m.watchdogEvery
		w.feed()
	}
	if m.mainPID > 0 {
		w.u.logError(w.u.adopt(w.a, m.mainPID))
	}
	switch {
	case m.trigger:
		w.fail(errors.New("reported a fault by WATCHDOG=trigger"), unix.SIGABRT)
	case m.stopping:
		w.u.become(Stopping, false, "")
	case m.reloading:
		w.u.become(Running, false, "reloading")
	case m.ready && w.ready: // the end of a reload
		w.u.become(Running, true, "")
	case m.ready:
		w.becomeReady()
	}
	if m.watchdog {
		w.feed()
	}
	if !w.ready {
		w.due = w.u.extend(w.late, w.due, m.extend)
	}
}

// extend moves a timer by EXTEND_TIMEOUT_USEC: never to an earlier time than it was due anyway (sd_notify(3)).
func (u *unit) extend(t *time.Timer, due time.Time, by time.Duration) time.Time {
	now := u.m.now()
	if by <= 0 || !now.Add(by).After(due) {
		return due
	}
	t.Reset(by)
	return now.Add(by)
}

// tooLate ends a service that does not become ready. While frozen it could not, so its time starts
// again: a snapshot taken in between must not count against it.
func (w *watcher) tooLate() {
	if w.u.m.frozenNow() {
		w.late.Reset(w.u.spec.ReadyTimeout)
		return
	}
	err := fmt.Errorf("not ready within %v", w.u.spec.ReadyTimeout)
	select {
	case w.r.late <- err:
	default:
	}
	w.fail(err, w.u.spec.StopSignal)
}

// silent is the watchdog's bite: SIGABRT, so that there is a core or a stack to look at.
func (w *watcher) silent() {
	if w.u.m.frozenNow() {
		w.feed()
		return
	}
	w.fail(fmt.Errorf("no WATCHDOG=1 within %v", w.every), unix.SIGABRT)
}

func (w *watcher) fail(why error, sig unix.Signal) {
	w.fault = why
	w.u.logError(why)
	w.end(sig)
}

// terminate is a stop that somebody asked for.
func (w *watcher) terminate() {
	w.u.become(Stopping, false, "")
	w.end(w.u.spec.StopSignal)
}

// end signals the main process and kills the whole cgroup if it has not ended within StopTimeout, which
// the service may extend. It returns when the main process has ended.
func (w *watcher) end(sig unix.Signal) {
	w.u.logError(w.a.signal(sig))
	// A stopped process would take no signal but this one.
	_ = w.a.signal(unix.SIGCONT)
	patience := time.NewTimer(w.u.spec.StopTimeout)
	defer patience.Stop()
	due := w.u.m.now().Add(w.u.spec.StopTimeout)
	for {
		select {
		case <-w.a.main.Done():
			return
		case m := <-w.a.events:
			due = w.u.extend(patience, due, m.extend)
			continue
		case <-patience.C:
			w.u.log("still there after " + w.u.spec.StopTimeout.String() + ", killed")
		case <-w.r.kill.Done():
		}
		// By itself too, should it have left its cgroup.
		w.u.logError(w.u.cg.kill())
		w.u.logError(w.a.signal(unix.SIGKILL))
		<-w.a.main.Done()
		return
	}
}

func (u *unit) listens(port uint16) bool {
	pid := u.status().PID
	if u.m.o.Listening != nil {
		return u.m.o.Listening(pid, port)
	}
	return listening(u.cg.path, pid, port)
}
