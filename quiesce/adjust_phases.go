package quiesce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"rouse/internal/fmt"
)

// The phases after a resume with a new generation. Their order is law: reseed before bump, bump before
// thaw, the gate shut until every tracked watcher has acknowledged, and nothing from an inherited
// connection leaves. A step that fails leaves the machine Held, shut, with everything behind it undone.

// errLate is a wait that ended with tracked watchers outdated.
var errLate = errors.New("watchers are late")

// runAdjust is the state Adjusting.
func (m *Machine) runAdjust(run context.Context) Event {
	if m.o.Faults != nil && m.atRest == (Faults{}) {
		m.atRest = m.faults()
	}
	m.abandonThaw()
	r := m.adjusting
	m.adjusting = nil
	var resume Resume
	if r == nil {
		resume = m.beginGeneration()
		r = m.newReport("adjust")
		r.Uncontrolled = m.uncontrolled
		if r.Uncontrolled {
			m.mu.Lock()
			r.UnguardedNS = int64(time.Since(m.lastSame))
			m.mu.Unlock()
		}
	}
	ctx, done := m.interruptible(run)
	defer done()
	return m.concludeAdjust(ctx, r, m.adjustPhases(ctx, r, resume))
}

// abandonThaw ends a quiesce that had failed and was about to be undone when the new generation came: the
// adjust thaws and opens, and the caller is answered now.
func (m *Machine) abandonThaw() {
	r, cause := m.thawing, m.thawCause
	m.thawing, m.thawCause = nil, nil
	if r == nil {
		return
	}
	r.finish("superseded", cause.Error(), m.elapsed())
	m.keep(r)
	m.owe(r, cause)
	m.owed()
	m.owed = nil
}

// beginGeneration makes the generation at hand the known one and takes what the host handed over. From
// here on, any other id interrupts.
func (m *Machine) beginGeneration() Resume {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = m.parts.Generation.ID()
	if m.pending == EventNewGeneration {
		m.pending = ""
	}
	m.watchersLate = false
	resume := m.resume
	m.resume = Resume{}
	return resume
}

// concludeAdjust writes the outcome down and says what comes next.
func (m *Machine) concludeAdjust(ctx context.Context, r *Report, err error) Event {
	r.Generation = m.parts.Generation.Counter()
	switch {
	case err == nil:
		r.finish("open", "", m.elapsed())
		m.keep(r)
		m.uncontrolled = false
		return EventOpened
	case interrupted(ctx) == EventNewGeneration:
		r.finish("superseded", err.Error(), m.elapsed())
		m.keep(r)
		return EventNewGeneration
	}
	r.finish("held", err.Error(), m.elapsed())
	m.keep(r)
	m.setReason(err.Error())
	m.o.Log("held: %v", err)
	if errors.Is(err, errLate) {
		m.watchersLate, m.adjusting = true, r
	}
	return EventFailed
}

func (m *Machine) adjustPhases(ctx context.Context, r *Report, resume Resume) error {
	if len(r.Phases) == 0 { // else it was held for late watchers and everything up to them is done
		if err := m.guard(ctx, r, resume); err != nil {
			return err
		}
	}
	return m.admit(ctx, r)
}

// guard makes the copy a machine of its own, while nobody can hear it.
func (m *Machine) guard(ctx context.Context, r *Report, resume Resume) error {
	steps := []struct {
		name string
		run  func(context.Context) (any, error)
	}{
		// Proved, not assumed: the snapshot may be of a machine that was not quiesced.
		{"shut", func(ctx context.Context) (any, error) { return nil, m.shut(ctx, r) }},
		// Before the bump: a watcher reseeds from the kernel as soon as it sees the new generation.
		{"entropy", func(context.Context) (any, error) {
			return m.parts.Kernel.Reseed(r.VMGenID+resume.Generation, resume.Seed)
		}},
		// Names are written to files, and a write to a frozen filesystem waits for its thaw for ever. The services, whose
		// data these are, stay frozen.
		{"identity", func(ctx context.Context) (any, error) {
			if err := m.parts.Filesystems.Thaw(ctx); err != nil {
				return nil, err
			}
			return m.parts.Kernel.Identify(ctx, resume)
		}},
		// While shut, so that not even a reset escapes. Two clones must never retransmit the same record.
		{"sever", func(ctx context.Context) (any, error) {
			n, err := m.parts.Queues.Sever(ctx)
			r.Severed = n
			return nil, err
		}},
		// Before the thaw: no service may run a single instruction believing in the old generation.
		{"bump", func(context.Context) (any, error) {
			n, err := m.parts.Generation.Bump()
			r.Generation = n
			return nil, err
		}},
		{"thaw", func(ctx context.Context) (any, error) {
			return nil, m.parts.Services.Thaw(ctx)
		}},
	}
	for _, s := range steps {
		if err := m.phase(ctx, r, s.name, m.o.AdjustTimeout, s.run); err != nil {
			return err
		}
	}
	return nil
}

// shut shuts the gate and, where services still run, stops them: what they would do now they would do
// with their twin's secrets. The gate is what protects; a service that will not freeze is a warning.
func (m *Machine) shut(ctx context.Context, r *Report) error {
	if err := m.parts.Gate.Set(GateShut); err != nil {
		return err
	}
	if !r.Uncontrolled {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.FreezeTimeout)
	defer cancel()
	if err := m.parts.Services.Freeze(ctx); err != nil {
		r.warn("services ran on during the adjust: " + err.Error())
	}
	return nil
}

// admit lets services meet the network again.
func (m *Machine) admit(ctx context.Context, r *Report) error {
	if err := m.watchers(ctx, r); err != nil {
		return err
	}
	if err := m.phase(ctx, r, "hooks", m.o.HooksTimeout, m.parts.Services.AfterRestore); err != nil {
		return err
	}
	// A hook may have made a service a watcher, or bumped: it is the state at the opening that counts, but
	// for those that the policy has already let go.
	if !m.letGo(r, m.parts.Generation.Outdated()) {
		if err := m.watchers(ctx, r); err != nil {
			return err
		}
	}
	return m.phase(ctx, r, "open", m.o.AdjustTimeout, func(context.Context) (any, error) {
		// The last moment at which nothing may have left: the gate is open somewhere within the call, which reads
		// it back before it returns.
		openedNS := int64(m.elapsed())
		if err := m.openGate(); err != nil {
			return nil, err
		}
		m.countFaults(r)
		if err := m.parts.Network.Announce(); err != nil {
			r.warn("neighbours were not told where this machine is: " + err.Error())
		}
		return map[string]any{"opened-ns": openedNS, "announced-ns": int64(m.elapsed())}, nil
	})
}

// letGo says that the policy lets the gate open with these watchers outdated.
func (m *Machine) letGo(r *Report, outdated []Watcher) bool {
	for _, w := range outdated {
		known := func(late Watcher) bool { return late.ID == w.ID }
		if m.o.Late != Release || !slices.ContainsFunc(r.Late, known) {
			return false
		}
	}
	return true
}

// watchers waits until no tracked watcher is outdated, then the policy for late ones.
func (m *Machine) watchers(ctx context.Context, r *Report) error {
	late, err := m.waitWatchers(ctx, r)
	if err != nil || len(late) == 0 {
		return err
	}
	switch m.o.Late {
	case Release:
		r.Late = late
		r.warn("opened although watchers are late: " + names(late))
		return nil
	case Restart:
		r.Late = late
		if err := m.phase(ctx, r, "restart", m.o.HooksTimeout, func(ctx context.Context) (any, error) {
			return nil, m.parts.Services.RestartOwners(ctx, late)
		}); err != nil {
			return fmt.Errorf("%w: %s: %w", errLate, names(late), err)
		}
		if late, err = m.waitWatchers(ctx, r); err != nil || len(late) == 0 {
			return err
		}
	}
	r.Late = late
	return fmt.Errorf("%w: %s", errLate, names(late))
}

// waitWatchers waits for all and returns those that are late.
func (m *Machine) waitWatchers(ctx context.Context, r *Report) (late []Watcher, err error) {
	err = m.phase(ctx, r, "wait", m.o.WatcherTimeout, func(ctx context.Context) (any, error) {
		return nil, m.parts.Generation.Wait(ctx)
	})
	if err == nil || ctx.Err() != nil {
		return nil, err
	}
	if late = m.parts.Generation.Outdated(); len(late) > 0 {
		return late, nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil // the last one came with the deadline
	}
	return nil, err
}

func names(watchers []Watcher) string {
	var list []string
	for _, w := range watchers {
		s := fmt.Sprintf("%s[%d]", w.Command, w.PID)
		if w.Service != "" {
			s += " in service " + w.Service
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// runHeld is the state Held: shut until there is a reason to try again.
func (m *Machine) runHeld(run context.Context) Event {
	m.reportFault(run)
	ctx, done := m.interruptible(run)
	defer done()
	if m.watchersLate {
		if err := m.parts.Generation.Wait(ctx); err == nil {
			return EventCleared
		}
		if e := interrupted(ctx); e != "" {
			m.adjusting = nil
			return e
		}
	}
	<-ctx.Done()
	m.adjusting = nil
	e := interrupted(ctx)
	if e == EventRelease {
		m.forgive()
	}
	return e
}
