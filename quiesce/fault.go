package quiesce

import (
	"context"
	"errors"
	"runtime/debug"

	"rouse/internal/fmt"
)

// Faults of rouse itself: a panic, in the flow or in a goroutine of some part. What has a mistake in it is not trusted to
// open the gate. The machine is held, shut, and says why; the control channel goes on, and a host that knows better
// may release it.

// Fail holds the machine because of a fault of rouse itself.
func (m *Machine) Fail(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = reason
	// Every state knows this event.
	_ = m.postLocked(EventFault)
}

// panicked makes a fault of a panic of the flow.
func (m *Machine) panicked(p any) {
	m.o.Log("panic: %v\n%s", p, debug.Stack())
	m.Fail(fmt.Sprintf("panic: %v", p))
	m.mu.Lock()
	job := m.job
	m.job = nil
	m.mu.Unlock()
	if job != nil && m.owed == nil {
		job.done <- quiesceResult{&Report{}, fmt.Errorf("quiesce: panic: %v", p)}
	}
}

// faulted shuts the gate before anybody can see the state Held, and slows down a fault that comes again and again, which
// must not take all the time.
func (m *Machine) faulted(ctx context.Context) {
	again := m.faultSeen
	m.safely(ctx, func(ctx context.Context) Event { m.reportFault(ctx); return "" })
	if again {
		_ = sleep(ctx, m.o.SlowLook)
	}
}

// reportFault shuts the gate and tells of a fault, once. The state Held begins with it too: where a new generation came in
// the fault's way it is an adjust that ends there.
func (m *Machine) reportFault(ctx context.Context) {
	m.mu.Lock()
	fault := m.fault
	m.mu.Unlock()
	if fault == "" || m.faultSeen {
		return
	}
	m.faultSeen = true // also if what follows panics
	m.setReason(fault)
	r := m.newReport("fault")
	if err := m.phase(ctx, r, "shut", m.o.AdjustTimeout, func(context.Context) (any, error) {
		return nil, m.parts.Gate.Set(GateShut)
	}); err != nil {
		r.warn(err.Error())
	}
	r.finish("held", fault, m.elapsed())
	m.keep(r)
}

// forgive is what a release by the host does.
func (m *Machine) forgive() {
	m.mu.Lock()
	m.fault = ""
	m.mu.Unlock()
	m.faultSeen = false
}

// openGate opens the gate, unless a fault stands.
func (m *Machine) openGate() error {
	m.mu.Lock()
	fault := m.fault
	m.mu.Unlock()
	if fault != "" {
		return errors.New(fault)
	}
	return m.parts.Gate.Set(GateOpen)
}

// Warn puts something that went wrong and endangers nothing into the report at hand.
func (m *Machine) Warn(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warnings = append(m.warnings, message)
}

// faults reads the page faults so far.
func (m *Machine) faults() (f Faults) {
	if m.o.Faults != nil {
		f.Minor, f.Major = m.o.Faults()
	}
	return f
}

// countFaults writes into the report of an adjust what was faulted in since the resume.
func (m *Machine) countFaults(r *Report) {
	if m.o.Faults == nil {
		return
	}
	now := m.faults()
	r.Faults = &Faults{now.Minor - m.atRest.Minor, now.Major - m.atRest.Major}
	m.atRest = Faults{}
}
