package quiesce

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

const (
	fullQuiesce = "before, links, gate hold, gate shut, settle, freeze, fsfreeze"
	fullAdjust  = "gate shut, reseed, fsthaw, identify, sever, bump, thaw, wait, after, gate open, announce"
)

func TestSnapshotAndClone(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		r, err := m.Quiesce(t.Context(), QuiesceOptions{})
		if err != nil || r.Outcome != "ready" || m.State() != Quiesced {
			t.Fatalf("quiesce: %v, outcome %q, state %s", err, r.Outcome, m.State())
		}
		if got := f.since("before"); got != fullQuiesce {
			t.Errorf("quiesce did %s, want %s", got, fullQuiesce)
		}
		f.with(func() { f.trace = nil })
		f.clone("B")
		reach(t, m, Running)
		if got := f.since("gate shut"); got != fullAdjust {
			t.Errorf("adjust did %s, want %s", got, fullAdjust)
		}
		r = m.lastReport()
		if r.Kind != "adjust" || r.Outcome != "open" || r.Generation != 1 || r.Severed != 3 || r.Uncontrolled || r.VMGenID != "B" {
			t.Errorf("report = %+v", r)
		}
	})
}

func TestNoticedWithinTwoMilliseconds(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		start := time.Now() // the fake clock's
		f.clone("B")
		reach(t, m, Adjusting)
		if d := time.Since(start); d > 2*time.Millisecond {
			t.Errorf("noticed after %v", d)
		}
	})
}

func TestSameGenerationOnlyThawsAndOpens(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		r, err := m.Release(t.Context())
		if err != nil || m.State() != Running || r.Outcome != "open" || r.Kind != "thaw" {
			t.Fatalf("release: %v, state %s, report %+v", err, m.State(), r)
		}
		if got, want := f.since("fsthaw"), "fsthaw, thaw, gate open, released"; got != want {
			t.Errorf("release did %s, want %s", got, want)
		}
		if f.counter != 0 || f.connections != 3 {
			t.Errorf("counter %d, connections %d: a release touches neither", f.counter, f.connections)
		}
	})
}

// A host may say "thaw" to a clone before the guest has looked at its generation.
func TestReleaseOfACloneAdjusts(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		f.clone("B")
		r, err := m.Release(t.Context())
		if err != nil || r.Kind != "adjust" || f.counter != 1 {
			t.Errorf("release: %v, report %q, counter %d", err, r.Kind, f.counter)
		}
	})
}

func TestUncontrolledSnapshot(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		time.Sleep(time.Second + slowLook/2) // between two looks
		f.clone("B")
		reach(t, m, Adjusting)
		reach(t, m, Running)
		if got, want := f.since("gate shut"), strings.Replace(fullAdjust, "gate shut", "gate shut, freeze", 1); got != want {
			t.Errorf("did %s, want %s", got, want)
		}
		r := m.lastReport()
		if !r.Uncontrolled || r.UnguardedNS <= 0 || r.UnguardedNS > int64(slowLook)+int64(time.Millisecond) {
			t.Errorf("uncontrolled %v, unguarded %v, want true and at most one slow look", r.Uncontrolled, time.Duration(r.UnguardedNS))
		}
	})
}

// Every phase of the quiesce may fail; afterwards nothing is shut or frozen.
func TestQuiesceFailureIsUndone(t *testing.T) {
	for _, step := range []string{"before", "links", "gate hold", "busy", "gate shut", "barrier", "settle", "freeze", "fsfreeze"} {
		t.Run(step, func(t *testing.T) {
			run(t, func(f *fake, _ *Options) { f.errs[step] = []error{errInjected} }, func(t *testing.T, f *fake, m *Machine) {
				r, err := m.Quiesce(t.Context(), QuiesceOptions{})
				if !errors.Is(err, errInjected) || r.Outcome != "aborted" || !strings.Contains(r.Reason, "injected") {
					t.Errorf("error %v, outcome %q, reason %q", err, r.Outcome, r.Reason)
				}
				reach(t, m, Running)
				if f.gate != GateOpen || f.frozen {
					t.Errorf("gate %s, frozen %v", f.gate, f.frozen)
				}
				if got := f.since("fsthaw"); got != "fsthaw, thaw, gate open, aborted" {
					t.Errorf("undone by %s", got)
				}
			})
		})
	}
}

// Every step of an adjust fails closed, says why, and can be tried again.
func TestAdjustFailureHolds(t *testing.T) {
	for _, step := range []string{"gate shut", "reseed", "identify", "sever", "bump", "fsthaw", "thaw", "after", "gate open"} {
		t.Run(step, func(t *testing.T) {
			run(t, nil, func(t *testing.T, f *fake, m *Machine) {
				if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
					t.Fatal(err)
				}
				f.with(func() { f.errs[step] = []error{errInjected} })
				f.clone("B")
				reach(t, m, Held)
				if f.gate != GateShut || !strings.Contains(m.Reason(), "injected") {
					t.Errorf("gate %s, reason %q", f.gate, m.Reason())
				}
				if _, err := m.Release(t.Context()); err != nil || f.gate != GateOpen {
					t.Errorf("second try: %v, gate %s", err, f.gate)
				}
			})
		})
	}
}

func TestThawIsTriedAgain(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		f.with(func() { f.errs["gate open"] = []error{errInjected, errInjected} })
		if _, err := m.Release(t.Context()); err != nil || f.gate != GateOpen {
			t.Errorf("release: %v, gate %s", err, f.gate)
		}
	})
}

func TestLeftovers(t *testing.T) {
	tests := map[string]struct {
		policy          Policy
		outcome         string
		left, destroyed int
		state           State
	}{
		"abort":   {Abort, "aborted", 2, 0, Running},
		"destroy": {Destroy, "ready", 2, 1, Quiesced}, // the fake cannot destroy all, and shows two again
		"keep":    {Keep, "ready", 2, 0, Quiesced},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, func(f *fake, _ *Options) { f.busy = []int{2} }, func(t *testing.T, f *fake, m *Machine) {
				start := time.Now()
				r, err := m.Quiesce(t.Context(), QuiesceOptions{Timeout: 300 * time.Millisecond, Leftovers: tt.policy})
				if (err == nil) != (tt.outcome == "ready") || r.Outcome != tt.outcome || m.State() != tt.state {
					t.Errorf("error %v, outcome %q, state %s", err, r.Outcome, m.State())
				}
				if len(r.Leftovers) != tt.left || len(r.Destroyed) != tt.destroyed {
					t.Errorf("%d left, %d destroyed", len(r.Leftovers), len(r.Destroyed))
				}
				if d := time.Since(start); d < 300*time.Millisecond || d > 400*time.Millisecond {
					t.Errorf("decided after %v, want the asked timeout", d)
				}
				if tt.policy == Abort && !strings.Contains(err.Error(), "slow[7]") {
					t.Errorf("error %q does not name the owner", err)
				}
			})
		})
	}
}

// A service that has read a request and not yet answered leaves every queue empty; the answer that it
// writes behind the shut gate is seen, let out, and drained.
func TestAnswerBehindTheShutGateIsLetOut(t *testing.T) {
	// looks: two to drain, barrier, verify (the answer is there), drain
	run(t, func(f *fake, _ *Options) { f.busy = []int{0, 0, 0, 1, 1, 0} }, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		want := "before, links, gate hold, gate shut, settle, freeze, thaw, gate hold, gate shut, settle, freeze, fsfreeze"
		if got := f.since("before"); got != want {
			t.Errorf("did %s, want %s", got, want)
		}
	})
}

// A conversation with pauses is waited out with ever longer rows of empty looks, not with ever more
// switches of the gate.
func TestPausesAreWaitedOut(t *testing.T) {
	var busy []int
	for range 50 {
		busy = append(busy, 1, 0, 0, 0, 0, 0, 0, 0) // a pause of seven looks
	}
	run(t, func(f *fake, _ *Options) { f.busy = append(busy, 0) }, func(t *testing.T, f *fake, m *Machine) {
		r, err := m.Quiesce(t.Context(), QuiesceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range r.Phases {
			if p.Name == "drain" {
				n++
			}
		}
		if n > 4 {
			t.Errorf("%d drains", n)
		}
	})
}

// Empty queues of a service that is still computing are no end of the drain; one that computes for ever
// is left to the phase settle, which names it.
func TestDrainWaitsForWork(t *testing.T) {
	for _, working := range []int{100, 1 << 30} {
		run(t, func(f *fake, _ *Options) { f.working = working }, func(t *testing.T, f *fake, m *Machine) {
			if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
				t.Fatal(err)
			}
			if min(working, 50) > f.looks {
				t.Errorf("drained after %d looks while a service computed", f.looks)
			}
		})
	}
}

func TestMuteWatcherHolds(t *testing.T) {
	run(t, func(f *fake, _ *Options) { f.mute["w"] = true }, func(t *testing.T, f *fake, m *Machine) {
		f.clone("B")
		reach(t, m, Held)
		if f.gate != GateShut || !strings.Contains(m.Reason(), "w[9]") {
			t.Errorf("gate %s, reason %q", f.gate, m.Reason())
		}
		if r := m.lastReport(); r.Outcome != "held" || len(r.Late) != 1 {
			t.Errorf("report %+v", r)
		}
		time.Sleep(time.Hour)
		if f.gate != GateShut || m.State() != Held {
			t.Errorf("after an hour: gate %s, state %s", f.gate, m.State())
		}
		// It speaks at last: the rest of the adjust follows, without another bump.
		f.with(func() { f.mute["w"] = false })
		reach(t, m, Running)
		if f.gate != GateOpen || f.counter != 1 {
			t.Errorf("gate %s, counter %d", f.gate, f.counter)
		}
	})
}

func TestLatePolicies(t *testing.T) {
	for _, policy := range []Policy{Restart, Release} {
		t.Run(string(policy), func(t *testing.T) {
			run(t, func(f *fake, o *Options) {
				f.mute["w"] = true
				f.mute["released"] = policy == Release
				o.Late = policy
			}, func(t *testing.T, f *fake, m *Machine) {
				f.clone("B")
				reach(t, m, Adjusting)
				reach(t, m, Running)
				r := m.lastReport()
				if len(r.Late) != 1 || (policy == Release) != (len(r.Warnings) == 1) {
					t.Errorf("late %v, warnings %q", r.Late, r.Warnings)
				}
			})
		})
	}
}

// A second new generation at any step of the adjust starts it again, from shut, with another bump.
func TestGenerationChangesWhileAdjusting(t *testing.T) {
	for _, step := range []string{"gate shut", "reseed", "identify", "sever", "bump", "fsthaw", "thaw", "wait", "after"} {
		t.Run(step, func(t *testing.T) {
			run(t, nil, func(t *testing.T, f *fake, m *Machine) {
				if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
					t.Fatal(err)
				}
				again := false
				f.with(func() {
					f.trace = nil
					f.on[step] = func() {
						if !again {
							again = true
							f.clone("C")
							time.Sleep(2 * fastLook)
						}
					}
				})
				f.clone("B")
				reach(t, m, Running)
				if f.reseeded != "C" || f.gate != GateOpen {
					t.Errorf("reseeded for %q, gate %s", f.reseeded, f.gate)
				}
				if got := f.since("gate shut"); !strings.HasSuffix(got, fullAdjust) {
					t.Errorf("did %s, want the whole adjust at the end", got)
				}
			})
		})
	}
}

// A snapshot taken in the middle of a quiesce: its copy adjusts, wherever the quiesce stood.
func TestGenerationChangesWhileQuiescing(t *testing.T) {
	for _, step := range []string{"before", "links", "gate hold", "gate shut", "settle", "freeze", "fsfreeze"} {
		t.Run(step, func(t *testing.T) {
			run(t, func(f *fake, _ *Options) {
				f.on[step] = func() { f.with(func() { delete(f.on, step) }); f.clone("B"); time.Sleep(2 * fastLook) }
			}, func(t *testing.T, f *fake, m *Machine) {
				r, err := m.Quiesce(t.Context(), QuiesceOptions{})
				if err == nil || r.Outcome != "superseded" {
					t.Errorf("quiesce: %v, outcome %q", err, r.Outcome)
				}
				reach(t, m, Running)
				if r := m.lastReport(); r.Kind != "adjust" || !r.Uncontrolled || f.frozen {
					t.Errorf("kind %q, uncontrolled %v, frozen %v", r.Kind, r.Uncontrolled, f.frozen)
				}
			})
		})
	}
}

func TestReleaseDuringQuiesce(t *testing.T) {
	run(t, func(f *fake, _ *Options) { f.busy = []int{1} }, func(t *testing.T, f *fake, m *Machine) {
		quiesced := make(chan error)
		go func() {
			_, err := m.Quiesce(t.Context(), QuiesceOptions{})
			quiesced <- err
		}()
		reach(t, m, Quiescing)
		if _, err := m.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		if err := <-quiesced; err == nil {
			t.Error("the quiesce that was released says that it is ready")
		}
		if f.gate != GateOpen || m.State() != Running {
			t.Errorf("gate %s, state %s", f.gate, m.State())
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	run(t, func(f *fake, _ *Options) { f.busy = []int{1} }, func(t *testing.T, f *fake, m *Machine) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := m.Quiesce(ctx, QuiesceOptions{}); err == nil {
			t.Error("no error")
		}
		reach(t, m, Running)
		if f.gate != GateOpen {
			t.Errorf("gate %s", f.gate)
		}
	})
}

func TestSecondQuiesceIsRefused(t *testing.T) {
	run(t, nil, func(t *testing.T, _ *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want ErrBusy", err)
		}
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{Leftovers: "drop"}); err == nil || errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want the unknown policy named", err)
		}
	})
}

func TestWatchdog(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if m.State() != Quiesced {
			t.Errorf("state %s before the watchdog's time", m.State())
		}
		time.Sleep(2 * time.Second)
		if m.State() != Running || f.gate != GateOpen {
			t.Errorf("state %s, gate %s", m.State(), f.gate)
		}
		if r := m.lastReport(); !strings.Contains(r.Reason, "watchdog") {
			t.Errorf("reason %q", r.Reason)
		}
	})
}

func TestHostsWord(t *testing.T) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		for _, generation := range []string{"A", "", "host", "host"} {
			if err := m.Resumed(Resume{Generation: generation}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if f.counter != 1 {
			t.Errorf("counter %d, want one bump: the page's own id, none, and a repetition are not new", f.counter)
		}
	})
}

// What a hook does to a watcher counts, also where watchers were late before.
func TestWatcherMadeOutdatedByHook(t *testing.T) {
	for _, late := range []bool{false, true} {
		run(t, func(f *fake, _ *Options) {
			f.mute["w"] = late
			f.on["after"] = func() { f.with(func() { f.watchers["x"] = true; f.mute["x"] = true }) }
		}, func(t *testing.T, f *fake, m *Machine) {
			f.clone("B")
			if late {
				reach(t, m, Held)
				f.with(func() { f.mute["w"] = false })
				reach(t, m, Adjusting)
			}
			reach(t, m, Held)
			if f.gate != GateShut || !strings.Contains(m.Reason(), "x[9]") {
				t.Errorf("gate %s, reason %q", f.gate, m.Reason())
			}
		})
	}
}

func TestTransitionTable(t *testing.T) {
	states := map[State]bool{}
	for _, row := range transitions {
		states[row.from] = true
	}
	delete(states, "")
	for _, row := range transitions {
		if !states[row.to] {
			t.Errorf("%s on %s leads to %s, which has no row", row.from, row.on, row.to)
		}
	}
	for from := range states {
		if to, err := next(from, EventNewGeneration); to != Adjusting || err != nil {
			t.Errorf("%s does not answer a new generation with an adjust", from)
		}
		if to, err := next(from, EventFault); to != Held || err != nil {
			t.Errorf("%s does not answer a fault by holding", from)
		}
	}
	if _, err := next(Booting, EventRelease); err == nil || !strings.Contains(err.Error(), "services ready") {
		t.Errorf("error %v, want what is possible", err)
	}
}

func TestReportsAreBounded(t *testing.T) {
	run(t, nil, func(t *testing.T, _ *fake, m *Machine) {
		for range keptReports + 5 {
			if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(m.Reports()); n != keptReports {
			t.Errorf("%d reports kept, want %d", n, keptReports)
		}
	})
}
