package quiesce

import (
	"strings"
	"testing"
	"time"
)

// A fault of rouse itself holds the machine in every state; only the host's release opens it again.
func TestFaultHolds(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		m.Fail("panic: in the reaper")
		reach(t, m, Held)
		if f.gate != GateShut || m.Reason() != "panic: in the reaper" {
			t.Errorf("gate %s, reason %q", f.gate, m.Reason())
		}
		if r := m.lastReport(); r.Kind != "fault" || r.Outcome != "held" || r.Reason != m.Reason() {
			t.Errorf("report %+v", r)
		}
		// A copy of it is adjusted in all but the opening.
		f.clone("B")
		time.Sleep(time.Hour)
		if m.State() != Held || f.gate != GateShut || f.reseeded != "B" {
			t.Errorf("a copy: %s, gate %s, reseeded for %q", m.State(), f.gate, f.reseeded)
		}
		if _, err := m.Release(t.Context()); err != nil || f.gate != GateOpen {
			t.Errorf("released: %v, gate %s", err, f.gate)
		}
	})
}

// A panic in any part is a fault and ends nothing.
func TestPanicHolds(t *testing.T) {
	for _, step := range []string{"before", "links", "gate hold", "busy", "gate shut", "barrier", "settle", "freeze", "fsfreeze",
		"reseed", "identify", "sever", "bump", "fsthaw", "thaw", "wait", "after", "gate open", "announce"} {
		t.Run(step, func(t *testing.T) {
			run(t, nil, func(t *testing.T, f *fake, m *Machine) {
				f.with(func() { f.on[step] = func() { f.with(func() { delete(f.on, step) }); panic("in " + step) } })
				if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil && !strings.Contains(err.Error(), "panic: in "+step) {
					t.Errorf("quiesce: %v", err)
				}
				if m.State() != Held {
					f.clone("B")
				}
				reach(t, m, Held)
				if f.gate != GateShut || !strings.Contains(m.Reason(), "panic: in "+step) {
					t.Errorf("gate %s, reason %q", f.gate, m.Reason())
				}
				if _, err := m.Release(t.Context()); err != nil || f.gate != GateOpen || f.frozen {
					t.Errorf("released: %v, gate %s, frozen %v", err, f.gate, f.frozen)
				}
			})
		})
	}
}

func TestPageFaults(t *testing.T) {
	minor := int64(100)
	run(t, func(f *fake, o *Options) {
		o.Faults = func() (int64, int64) { return minor, 1 }
		f.on["gate open"] = func() { minor += 7 }
	}, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		f.clone("B")
		reach(t, m, Adjusting)
		reach(t, m, Running)
		if r := m.lastReport(); r.Faults == nil || *r.Faults != (Faults{7, 0}) {
			t.Errorf("faults %+v", r.Faults)
		}
	})
}

func TestWarningsAndIndex(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		f.on["reseed"] = func() { m.Warn("guessable") }
		f.clone("B")
		reach(t, m, Adjusting)
		reach(t, m, Running)
		f.with(func() { delete(f.on, "reseed") })
		f.clone("C")
		reach(t, m, Adjusting)
		reach(t, m, Running)
		r := m.Reports()
		if len(r) != 2 || len(r[0].Warnings) != 1 || len(r[1].Warnings) != 0 || r[0].Index != 1 || r[1].Index != 2 {
			t.Errorf("reports %+v", r)
		}
	})
}
