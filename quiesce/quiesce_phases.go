package quiesce

import (
	"context"
	"errors"
	"time"

	"rouse/internal/fmt"
)

// The phases before a snapshot. Failing in any of them undoes them all: a snapshot that was not
// prepared is worth nothing, and a guest that stays shut is an outage.

// runQuiesce is the state Quiescing.
func (m *Machine) runQuiesce(run context.Context) Event {
	ctx, done := m.interruptible(run)
	defer done()
	m.mu.Lock()
	job := m.job
	m.mu.Unlock()
	r := m.newReport("quiesce")
	err := m.quiescePhases(ctx, r, job)
	if err == nil {
		r.finish("ready", "", m.elapsed())
		m.keep(r)
		m.owe(r, nil)
		return EventEmptied
	}
	if interrupted(ctx) == EventNewGeneration {
		// A snapshot was taken in the middle and this is the copy: the adjust takes over as it is.
		r.finish("superseded", err.Error(), m.elapsed())
		m.keep(r)
		m.owe(r, err)
		return EventNewGeneration
	}
	if interrupted(ctx) == EventFault {
		r.finish("held", err.Error(), m.elapsed())
		m.keep(r)
		m.owe(r, err)
		return EventFault
	}
	m.thawing, m.thawCause = r, err
	if interrupted(ctx) == EventRelease {
		return EventRelease
	}
	return EventFailed
}

// owe puts the answer to the quiesce at hand off until the next state is reached: a caller who is told
// that the guest is quiesced, or thawed again, must find it so. The job is taken here: in the next state
// somebody may already ask for another quiesce.
func (m *Machine) owe(r *Report, err error) {
	m.mu.Lock()
	job := m.job
	m.job = nil
	m.mu.Unlock()
	m.owed = func() { job.done <- quiesceResult{r, err} }
}

func (m *Machine) quiescePhases(ctx context.Context, r *Report, job *quiesceJob) error {
	// First, because hooks may talk to other machines.
	if err := m.phase(ctx, r, "hooks", m.o.HooksTimeout, m.parts.Services.BeforeSnapshot); err != nil {
		return err
	}
	// Each copy of a machine whose links are only coming up would wait for them anew.
	if err := m.phase(ctx, r, "links", m.o.AdjustTimeout, func(context.Context) (any, error) {
		return nil, m.parts.Network.AwaitLinks()
	}); err != nil {
		return err
	}
	deadline := time.Now().Add(job.Timeout)
	// Services that keep refilling the queues behind our back are in the middle of a conversation, with
	// pauses: each time, the pause that counts as its end is longer.
	for quiet := 2; ; quiet = min(2*quiet, mostQuiet) {
		refilled, err := m.empty(ctx, r, job, deadline, quiet)
		if err != nil {
			return err
		}
		if !refilled {
			break
		}
	}
	if err := m.phase(ctx, r, "sync", m.o.SyncTimeout, func(ctx context.Context) (any, error) {
		n, detail, err := m.parts.Filesystems.Freeze(ctx)
		r.Filesystems = n
		return detail, err
	}); err != nil {
		return err
	}
	// A marker of its own, so that the report says when the guest was at rest.
	return m.phase(ctx, r, "ready", m.o.AdjustTimeout, func(context.Context) (any, error) { return nil, nil })
}

// empty goes once from hold to frozen. refilled says that something was found in a queue after the
// gate was shut: a service had read a request and was still about to answer it, so the queues were
// empty and the work was not done. The way back is to thaw and drain again.
func (m *Machine) empty(ctx context.Context, r *Report, job *quiesceJob, deadline time.Time, quiet int) (refilled bool, err error) {
	gate := func(name string, to GateState) error {
		return m.phase(ctx, r, name, m.o.AdjustTimeout, func(context.Context) (any, error) {
			return nil, m.parts.Gate.Set(to)
		})
	}
	// Established flows go on, so that replies and acknowledgements still travel.
	if err := gate("hold", GateHold); err != nil {
		return false, err
	}
	if err := m.drain(ctx, r, job, deadline, quiet); err != nil {
		return false, err
	}
	if err := gate("shut", GateShut); err != nil {
		return false, err
	}
	refilled, err = m.recheck(ctx, r, "barrier")
	if err != nil || refilled {
		return refilled, err
	}
	// A thread frozen halfway through drawing random bytes would wake with half an old answer.
	if err := m.phase(ctx, r, "settle", m.o.SettleTimeout, none(m.parts.Services.Settle)); err != nil {
		return false, err
	}
	if err := m.phase(ctx, r, "freeze", m.o.FreezeTimeout, none(m.parts.Services.Freeze)); err != nil {
		return false, err
	}
	// Now nobody can fill anything any more: the one look that proves it.
	refilled, err = m.recheck(ctx, r, "verify")
	if err != nil || !refilled {
		return false, err
	}
	return true, m.phase(ctx, r, "refilled", m.o.FreezeTimeout, none(m.parts.Services.Thaw))
}

// none is a step without detail for the report.
func none(f func(context.Context) error) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) { return nil, f(ctx) }
}

// recheck looks at the queues again behind the shut gate. Once the policy has decided at the deadline,
// nothing is tried again: what is there then is added to the leftovers.
func (m *Machine) recheck(ctx context.Context, r *Report, name string) (refilled bool, err error) {
	err = m.phase(ctx, r, name, m.o.AdjustTimeout, func(ctx context.Context) (any, error) {
		if err := m.parts.Queues.Barrier(); err != nil {
			return nil, err
		}
		busy, err := m.parts.Queues.Busy(ctx)
		if err != nil || len(busy) == 0 {
			return nil, err
		}
		if len(r.Leftovers)+len(r.Destroyed) > 0 {
			r.Leftovers = busy
			return nil, nil
		}
		refilled = true
		return map[string]any{"refilled": busy}, nil
	})
	return refilled, err
}

// mostQuiet is the longest row of empty looks that a drain asks for: with a pause of a millisecond
// between them, about a tenth of a second.
const mostQuiet = 64

// drain waits until nothing holds anything at quiet looks in a row, and lets the policy decide at the
// deadline.
func (m *Machine) drain(ctx context.Context, r *Report, job *quiesceJob, deadline time.Time, quiet int) error {
	// The grace keeps the phase's own deadline from cutting off the policy's work at the drain's.
	timeout := max(time.Until(deadline), 0) + m.o.AdjustTimeout
	return m.phase(ctx, r, "drain", timeout, func(ctx context.Context) (any, error) {
		looks, busy, err := m.untilEmpty(ctx, deadline, quiet)
		detail := map[string]any{"looks": looks}
		if err != nil || len(busy) == 0 {
			return detail, err
		}
		return detail, m.leftover(ctx, r, job, busy)
	})
}

// untilEmpty looks at once, then ever more rarely, so that an idle machine does not wait and a busy one
// is not slowed by our looking. One empty look proves little: the kernel walks its tables one after the
// other while services move bytes between them, and a service that computes its answer holds it in no
// queue at all. So the services have to rest, too, and more than once.
func (m *Machine) untilEmpty(ctx context.Context, deadline time.Time, quiet int) (looks int, busy []Leftover, err error) {
	pause, empty := fastLook, 0
	for {
		began := time.Now()
		busy, err = m.parts.Queues.Busy(ctx)
		looks++
		if err != nil {
			return looks, busy, err
		}
		rest, err := m.parts.Services.Resting()
		if err != nil {
			return looks, busy, err
		}
		if empty++; len(busy) > 0 || !rest {
			empty = 0
		}
		late := !time.Now().Before(deadline)
		if empty >= quiet || late {
			return looks, busy, nil
		}
		wait := min(pause, time.Until(deadline))
		if empty > 0 {
			wait = fastLook
		} else {
			pause = min(pause*3/2, 20*time.Millisecond)
		}
		// Looking takes at most a fifth of the time, however many sockets there are.
		wait = max(wait, min(4*time.Since(began), 100*time.Millisecond))
		if err := sleep(ctx, wait); err != nil {
			return looks, busy, err
		}
	}
}

// leftover applies the policy at the drain's deadline.
func (m *Machine) leftover(ctx context.Context, r *Report, job *quiesceJob, busy []Leftover) error {
	switch job.Leftovers {
	case Destroy:
		left, err := m.parts.Queues.Destroy(ctx, busy)
		if err != nil {
			return err
		}
		r.Destroyed = append(r.Destroyed, without(busy, left)...)
		r.Leftovers = left
		return nil
	case Keep:
		r.Leftovers = busy
		return nil
	default:
		r.Leftovers = busy
		return fmt.Errorf("%d sockets still hold something after %v, the first: %s; give them more time (timeout), or choose leftovers = \"destroy\" or \"keep\"",
			len(busy), job.Timeout, busy[0])
	}
}

// String names a leftover for people.
func (l Leftover) String() string {
	s := fmt.Sprintf("%s %s %s -> %s (%d unread, %d unsent; %s)", l.Protocol, l.State, l.Local, l.Remote, l.Unread, l.Unsent, l.Reason)
	if l.PID != 0 {
		s += fmt.Sprintf(" of %s[%d]", l.Command, l.PID)
	}
	if l.Service != "" {
		s += " in service " + l.Service
	}
	return s
}

// without is all but those in drop, compared by their handles.
func without(all, drop []Leftover) []Leftover {
	gone := map[any]bool{}
	for _, l := range drop {
		gone[l.Handle] = true
	}
	var rest []Leftover
	for _, l := range all {
		if !gone[l.Handle] {
			rest = append(rest, l)
		}
	}
	return rest
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runQuiesced is the state Quiesced: the watch looks every millisecond; here only the watchdog runs. It
// counts the time that the guest ran, not the time that passed: a snapshot resumed a year later must
// show its new generation before the watchdog believes that nobody came.
func (m *Machine) runQuiesced(run context.Context) Event {
	ctx, done := m.interruptible(run)
	defer done()
	const tick = 10 * fastLook
	var ran time.Duration
	for last := time.Now(); ; {
		m.atRest = m.faults()
		if err := sleep(ctx, tick); err != nil {
			return interrupted(ctx)
		}
		now := time.Now()
		ran += min(now.Sub(last), 2*tick)
		last = now
		if m.o.Watchdog > 0 && ran >= m.o.Watchdog {
			m.look()
			if e := m.posted(); e != "" {
				return e
			}
			m.thawCause = fmt.Errorf("watchdog: neither a new generation nor a release within %v", m.o.Watchdog)
			return EventWatchdog
		}
	}
}

// runThaw is the state Thawing: the same machine goes on. Nothing is severed or bumped; what was shut
// and frozen is as it was before.
func (m *Machine) runThaw(run context.Context) Event {
	ctx, done := m.interruptible(run)
	defer done()
	r, cause := m.thawing, m.thawCause
	m.thawing, m.thawCause = nil, nil
	if r == nil {
		r = m.newReport("thaw")
	}
	reason := ""
	if cause != nil {
		reason = cause.Error()
	}
	err := m.thawPhases(ctx, r)
	if err == nil {
		name, tell := "hooks", m.parts.Services.Released
		if r.Kind == "quiesce" {
			name, tell = "aborted", m.parts.Services.Aborted
		}
		// The guest runs again; a hook that fails now is told of and changes nothing.
		if err := m.phase(ctx, r, name, m.o.HooksTimeout, tell); err != nil && ctx.Err() == nil {
			r.warn(err.Error())
		}
	}
	switch {
	case interrupted(ctx) == EventNewGeneration:
		r.finish("superseded", string(EventNewGeneration), m.elapsed())
	case err != nil:
		cause = errors.Join(cause, err)
		r.finish("held", cause.Error(), m.elapsed())
		m.setReason(cause.Error())
	case r.Kind == "quiesce":
		r.finish("aborted", reason, m.elapsed())
	default:
		r.finish("open", reason, m.elapsed())
	}
	m.keep(r)
	if r.Kind == "quiesce" {
		m.owe(r, cause)
	}
	switch r.Outcome {
	case "superseded":
		return EventNewGeneration
	case "held":
		return EventFailed
	}
	return EventThawed
}

// thawPhases tries each step a few times: a guest that stays frozen because one call failed once would
// be an outage that rouse itself made.
func (m *Machine) thawPhases(ctx context.Context, r *Report) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"thaw", func(ctx context.Context) error {
			return errors.Join(m.parts.Filesystems.Thaw(ctx), m.parts.Services.Thaw(ctx))
		}},
		{"open", func(context.Context) error { return m.openGate() }},
	}
	for _, s := range steps {
		var err error
		for range 3 {
			if err = m.phase(ctx, r, s.name, m.o.AdjustTimeout, none(s.run)); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) setReason(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reason = reason
}
