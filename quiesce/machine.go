package quiesce

import (
	"context"
	"errors"
	"sync"
	"time"

	"rouse/internal/fmt"
)

// Policy for leftovers of a drain and for late watchers.
type Policy string

// The policies.
const (
	Abort   Policy = "abort"   // leftovers: thaw and report
	Destroy Policy = "destroy" // leftovers: end those connections
	Keep    Policy = "keep"    // leftovers: go on and report
	Hold    Policy = "hold"    // late watchers: stay shut
	Restart Policy = "restart" // late watchers: restart their services
	Release Policy = "release" // late watchers: open with a warning
)

// Options are the flow's times and policies. Every duration has to be positive, except Watchdog, whose 0 is never.
type Options struct {
	HooksTimeout   time.Duration // all hooks of one phase together
	DrainTimeout   time.Duration
	SettleTimeout  time.Duration
	FreezeTimeout  time.Duration
	SyncTimeout    time.Duration
	AdjustTimeout  time.Duration // each step of an adjust that is not a wait
	WatcherTimeout time.Duration
	Watchdog       time.Duration
	// SlowLook is how often the generation is looked at while running, where no event tells of a new one:
	// idle wakeups against how long a clone of a snapshot that nobody announced runs unguarded.
	SlowLook  time.Duration
	Leftovers Policy
	Late      Policy
	// Log takes one line of text for people.
	Log func(format string, args ...any)
	// Faults counts the page faults of this process so far, without and with reading from a disk; nil if nobody can say.
	Faults func() (minor, major int64)
}

// fastLook is how often the generation is looked at around a snapshot: nothing else runs, and a resume
// is to be noticed at once. While running, Options.SlowLook says how often.
const fastLook = time.Millisecond

// keptReports is how many reports Reports remembers.
const keptReports = 16

// Machine is the flow. Make it with New, start it with Run; all methods may be called from any goroutine.
type Machine struct {
	parts Parts
	o     Options
	began time.Time

	// The fields below are guarded by mu. While it is held nothing is called but the sources' ID.
	mu       sync.Mutex
	state    State
	pending  Event         // what interrupts the state at hand; "" is nothing
	changed  chan struct{} // closed and replaced at every change of state
	wake     chan struct{} // one poke for the flow, buffered
	cancel   context.CancelCauseFunc
	job      *quiesceJob
	resume   Resume
	hostGen  string
	known    string    // the ID that was last adjusted to
	lastSame time.Time // when ID was last seen to be known
	reports  []Report
	kept     int      // how many reports there have been
	warnings []string // of Warn, for the next report
	reason   string   // why it is held
	fault    string   // what went wrong in rouse itself; while it stands, nothing opens the gate

	// These belong to the flow's goroutine alone.
	uncontrolled bool
	watchersLate bool    // held for watchers only: the rest of the adjust can go on once they are done
	adjusting    *Report // the adjust that was held, to be continued
	owed         func()  // the answer to a quiesce, due once the next state is reached
	thawing      *Report // the quiesce that failed, so that its report tells of the thaw too
	thawCause    error   // why the machine is thawed, if nobody asked for it
	faultSeen    bool    // the fault that stands was reported
	atRest       Faults  // the page faults when the machine was last seen quiesced
}

// New makes a machine that is booting.
func New(parts Parts, o Options) *Machine {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	now := time.Now()
	return &Machine{parts: parts, o: o, began: now, state: Booting, lastSame: now,
		changed: make(chan struct{}), wake: make(chan struct{}, 1), known: parts.Generation.ID()}
}

// Run is the flow; it returns when ctx ends.
func (m *Machine) Run(ctx context.Context) {
	go m.keepWatching(ctx)
	for ctx.Err() == nil {
		e := m.safely(ctx, m.step)
		if e == EventFault {
			m.faulted(ctx)
		}
		if ctx.Err() == nil {
			m.transition(e)
		}
	}
}

// safely runs f, of which a panic is a fault: the flow goes on, held.
func (m *Machine) safely(ctx context.Context, f func(context.Context) Event) (e Event) {
	defer func() {
		if p := recover(); p != nil {
			m.panicked(p)
			e = EventFault
		}
	}()
	return f(ctx)
}

// step does what the state at hand is for and returns the event that ended it.
func (m *Machine) step(ctx context.Context) Event {
	if m.owed != nil {
		m.owed()
		m.owed = nil
	}
	switch m.State() {
	case Quiescing:
		return m.runQuiesce(ctx)
	case Quiesced:
		return m.runQuiesced(ctx)
	case Thawing:
		return m.runThaw(ctx)
	case Adjusting:
		return m.runAdjust(ctx)
	case Held:
		return m.runHeld(ctx)
	default:
		return m.await(ctx)
	}
}

// await sleeps until an event is posted.
func (m *Machine) await(ctx context.Context) Event {
	for {
		if e := m.posted(); e != "" {
			return e
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return ""
		}
	}
}

// posted is the pending event.
func (m *Machine) posted() Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending
}

// transition applies an event. A new generation that came meanwhile goes first: it is the one event
// that every state knows, and nothing that was decided before it still holds. Another event that came
// too late for the old state is kept if the new one knows it.
func (m *Machine) transition(e Event) {
	m.mu.Lock()
	from, to, err := m.advance(e)
	m.mu.Unlock()
	if err != nil {
		m.o.Log("ignored: %v", err)
	} else {
		m.o.Log("%s -> %s", from, to)
	}
}

// advance is transition under the lock.
func (m *Machine) advance(e Event) (from, to State, err error) {
	pending := m.pending
	m.pending = ""
	if pending == EventNewGeneration {
		e = pending
	}
	from = m.state
	if to, err = next(from, e); err != nil {
		return from, to, err
	}
	if e == EventNewGeneration {
		// Only a finished quiesce guards what a copy of the machine could say before it notices.
		guarded := from == Quiesced || from == Held || from == Adjusting && !m.uncontrolled
		m.uncontrolled = !guarded
	}
	if _, err := next(to, pending); err == nil && pending != e {
		m.pending = pending
	}
	if m.job != nil && from == Running && to != Quiescing {
		m.job.done <- quiesceResult{&Report{}, fmt.Errorf("quiesce: %w: %s", ErrBusy, e)}
		m.job = nil
	}
	m.state = to
	close(m.changed)
	m.changed = make(chan struct{})
	return from, to, nil
}

// post hands an event to the flow: it ends what the state at hand is doing. It is refused where the
// table has no such event.
func (m *Machine) post(e Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.postLocked(e)
}

func (m *Machine) postLocked(e Event) error {
	if _, err := next(m.state, e); err != nil {
		return err
	}
	if m.pending == EventNewGeneration {
		return nil
	}
	m.pending = e
	if m.cancel != nil {
		m.cancel(interruption{e})
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return nil
}

// interruption is the cause of a phase's cancelled context.
type interruption struct{ event Event }

func (i interruption) Error() string { return "interrupted: " + string(i.event) }

// interrupted is the event that cut ctx short, or "".
func interrupted(ctx context.Context) Event {
	var i interruption
	if errors.As(context.Cause(ctx), &i) {
		return i.event
	}
	return ""
}

// interruptible makes the context for the work of one state; an event that is already pending has cut it short.
func (m *Machine) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	m.mu.Lock()
	m.cancel = cancel
	if m.pending != "" {
		cancel(interruption{m.pending})
	}
	m.mu.Unlock()
	return ctx, func() {
		m.mu.Lock()
		m.cancel = nil
		m.mu.Unlock()
		cancel(nil)
	}
}

// keepWatching begins again after a panic: a machine whose generation nobody looks at is no longer guarded.
func (m *Machine) keepWatching(ctx context.Context) {
	for ctx.Err() == nil {
		func() {
			defer func() {
				if p := recover(); p != nil {
					m.panicked(p)
					_ = sleep(ctx, m.o.SlowLook)
				}
			}()
			m.watch(ctx)
		}()
	}
}

// watch looks at the generation beside everything else.
func (m *Machine) watch(ctx context.Context) {
	for {
		changed, every := m.look()
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			timer.Stop()
		case <-m.parts.Generation.Events():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look compares the generation with the one that was last adjusted to. It returns how long to wait
// until the next look, and a channel that says earlier that this is no longer right.
func (m *Machine) look() (changed <-chan struct{}, every time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	every = fastLook
	if m.state == Running || m.state == Booting || m.state == Held {
		every = m.o.SlowLook
	}
	id := m.parts.Generation.ID()
	if id == m.known || id == "" {
		m.lastSame = time.Now()
		return m.changed, every
	}
	if m.pending != EventNewGeneration {
		// Every state knows this event, so it cannot be refused.
		_ = m.postLocked(EventNewGeneration)
	}
	return m.changed, every
}

// elapsed is the time since the flow began, on the monotonic clock.
func (m *Machine) elapsed() time.Duration { return time.Since(m.began) }

func (m *Machine) newReport(kind string) *Report {
	return &Report{Version: ReportVersion, Kind: kind, StartNS: int64(m.elapsed()),
		VMGenID: m.parts.Generation.ID(), Generation: m.parts.Generation.Counter()}
}

// phase runs one step within its deadline and writes it into the report. It looks at the generation
// first: a copy that was resumed between two steps must not take the next one, least of all one that
// opens the gate, even if the watch has not run yet.
func (m *Machine) phase(ctx context.Context, r *Report, name string, timeout time.Duration, run func(context.Context) (any, error)) error {
	m.look()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	deadline, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	p := Phase{Name: name, StartNS: int64(m.elapsed())}
	detail, err := run(deadline)
	p.DurationNS = int64(m.elapsed()) - p.StartNS
	p.Detail = detail
	if err == nil && ctx.Err() != nil {
		// Done, but for a state that is over: nothing may build on it.
		err = context.Cause(ctx)
	}
	if err != nil {
		if err == deadline.Err() {
			err = context.Cause(deadline)
		}
		err = fmt.Errorf("%s: %w", name, err)
		p.Error = err.Error()
	}
	r.Phases = append(r.Phases, p)
	return err
}

// keep remembers a finished report.
func (m *Machine) keep(r *Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept++
	r.Index = m.kept
	r.Warnings = append(r.Warnings, m.warnings...)
	m.warnings = nil
	m.reports = append(m.reports, *r)
	if len(m.reports) > keptReports {
		m.reports = append(m.reports[:0:0], m.reports[len(m.reports)-keptReports:]...)
	}
}
