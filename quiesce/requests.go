package quiesce

import (
	"context"
	"errors"
	"slices"
	"time"

	"rouse/internal/fmt"
)

// ErrBusy is a request that the state at hand does not allow.
var ErrBusy = errors.New("not possible now")

// QuiesceOptions override the configuration for one quiesce; zero fields keep it.
type QuiesceOptions struct {
	Timeout   time.Duration
	Leftovers Policy
}

type quiesceJob struct {
	QuiesceOptions
	done chan quiesceResult
}

type quiesceResult struct {
	report *Report
	err    error
}

// Ready says that all services are up: booting ends.
func (m *Machine) Ready() error { return m.post(EventReady) }

// Quiesce brings the machine to where a snapshot may be taken and returns the report. On an error the
// machine has been thawed and opened again, unless the report's outcome says otherwise. When ctx ends
// first, the quiesce is given up and undone.
func (m *Machine) Quiesce(ctx context.Context, o QuiesceOptions) (*Report, error) {
	if o.Timeout <= 0 {
		o.Timeout = m.o.DrainTimeout
	}
	if o.Leftovers == "" {
		o.Leftovers = m.o.Leftovers
	}
	if !slices.Contains([]Policy{Abort, Destroy, Keep}, o.Leftovers) {
		return &Report{}, fmt.Errorf("leftovers %q: unknown; use abort, destroy or keep", o.Leftovers)
	}
	job := &quiesceJob{o, make(chan quiesceResult, 1)}
	m.mu.Lock()
	if m.state != Running || m.pending != "" {
		state := m.state
		m.mu.Unlock()
		return &Report{}, fmt.Errorf("quiesce while %s: %w; it is possible while running", state, ErrBusy)
	}
	m.job = job
	err := m.postLocked(EventQuiesce)
	m.mu.Unlock()
	if err != nil {
		return &Report{}, err
	}
	select {
	case r := <-job.done:
		return r.report, r.err
	case <-ctx.Done():
		// Refused means that the quiesce has just ended by itself, or not begun: then it is undone below.
		_ = m.post(EventRelease)
		r := <-job.done
		if r.err == nil {
			_ = m.post(EventRelease)
			r.err = fmt.Errorf("quiesce given up: %w", context.Cause(ctx))
		}
		return r.report, r.err
	}
}

// Release lets a quiesced machine go on: the same generation is thawed and opened, a new one adjusted.
// Held, it tries the adjust again. It returns when the machine runs, with the report; running, it
// does nothing.
func (m *Machine) Release(ctx context.Context) (*Report, error) {
	m.look() // a new generation must win over the release, whoever is first
	if err := m.post(EventRelease); err != nil {
		switch m.State() {
		case Running:
			return m.lastReport(), nil
		case Adjusting, Thawing: // on its way
		default:
			return &Report{}, fmt.Errorf("release while %s: %w", m.State(), ErrBusy)
		}
	}
	return m.landed(ctx)
}

// landed waits until the machine runs or is held.
func (m *Machine) landed(ctx context.Context) (*Report, error) {
	state, err := m.WaitFor(ctx, func(s State) bool { return s == Running || s == Held })
	if err != nil {
		return &Report{}, fmt.Errorf("still %s: %w", state, err)
	}
	if state == Held {
		return m.lastReport(), fmt.Errorf("held: %s", m.Reason())
	}
	return m.lastReport(), nil
}

// WaitFor waits until no event is pending and want says yes to the state. A new generation that the
// watch has not seen yet counts as pending.
func (m *Machine) WaitFor(ctx context.Context, want func(State) bool) (State, error) {
	for {
		m.look()
		m.mu.Lock()
		state, pending, changed := m.state, m.pending, m.changed
		m.mu.Unlock()
		if pending == "" && want(state) {
			return state, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state, context.Cause(ctx)
		}
	}
}

// Resumed takes what the host hands over at a resume. A generation that is neither the one the machine
// sees by itself nor the last one that the host named is a new one: it starts an adjust. Without a
// generation the seed is mixed into the random pool at once and the rest is kept for the next adjust.
func (m *Machine) Resumed(resume Resume) error {
	m.mu.Lock()
	m.resume = resume
	fresh := resume.Generation != "" && resume.Generation != m.hostGen && resume.Generation != m.parts.Generation.ID()
	var err error
	if fresh {
		m.hostGen = resume.Generation
		err = m.postLocked(EventNewGeneration)
	}
	m.mu.Unlock()
	if err != nil || fresh || len(resume.Seed) == 0 {
		return err
	}
	if _, err := m.parts.Kernel.Reseed(m.parts.Generation.ID(), resume.Seed); err != nil {
		return fmt.Errorf("mix in the host's seed: %w", err)
	}
	return nil
}

// State is the state at this instant.
func (m *Machine) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Reason is why the machine is held, or "".
func (m *Machine) Reason() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != Held {
		return ""
	}
	return m.reason
}

// Reports are the last reports, oldest first.
func (m *Machine) Reports() []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.reports)
}

func (m *Machine) lastReport() *Report {
	if all := m.Reports(); len(all) > 0 {
		return &all[len(all)-1]
	}
	return &Report{}
}
