package quiesce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a whole machine: it plays every part, writes down what is done to it, and checks the safety
// order at each step, whatever the test is about.
type fake struct {
	t  *testing.T
	mu sync.Mutex

	id, reseeded string
	bumped       string // the id of the last bump
	counter      uint32
	gate         GateState
	frozen       bool
	connections  int
	watchers     map[string]bool // name -> outdated
	mute         map[string]bool // never acknowledge
	ackAfter     time.Duration
	busy         []int // sockets busy at each look; the last value stays
	looks        int
	working      int // a service computes until that many looks were taken
	trace        []string
	errs         map[string][]error // by step; one is used up at each call
	on           map[string]func()  // called at the step, without the lock
	stepper      func(string) error // the same, and its error counts
}

func newFake(t *testing.T) *fake {
	return &fake{t: t, id: "A", reseeded: "A", gate: GateOpen, connections: 3, watchers: map[string]bool{"w": false},
		mute: map[string]bool{}, errs: map[string][]error{}, on: map[string]func(){}, ackAfter: 5 * time.Millisecond}
}

func (f *fake) step(name string) error {
	f.mu.Lock()
	f.trace = append(f.trace, name)
	hook, stepper := f.on[name], f.stepper
	var err error
	if e := f.errs[name]; len(e) > 0 {
		err, f.errs[name] = e[0], e[1:]
	}
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	if stepper != nil {
		err = errors.Join(err, stepper(name))
	}
	return err
}

func (f *fake) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Steps are judged by the generation they began in: one that comes in the middle is for the next step.
func (f *fake) Set(to GateState) error {
	f.mu.Lock()
	opens := to == GateOpen && f.gate != GateOpen || to == GateHold && f.gate == GateShut
	if opens && f.reseeded != f.id {
		f.t.Errorf("gate %s in generation %q, but the kernel was reseeded for %q", to, f.id, f.reseeded)
	}
	f.mu.Unlock()
	if err := f.step("gate " + string(to)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = to
	for name, outdated := range f.watchers {
		if to == GateOpen && outdated && !f.mute["released"] {
			f.t.Errorf("gate opened with %s outdated", name)
		}
	}
	return nil
}

func (f *fake) Busy(context.Context) ([]Leftover, error) {
	err := f.step("busy")
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	if len(f.busy) > 0 {
		n = f.busy[min(f.looks, len(f.busy)-1)]
	}
	f.looks++
	var list []Leftover
	for i := range n {
		list = append(list, Leftover{Protocol: "tcp", Unread: 10, PID: 7, Command: "slow", Handle: i})
	}
	return list, err
}

func (f *fake) Barrier() error { return f.step("barrier") }

func (f *fake) Destroy(_ context.Context, l []Leftover) ([]Leftover, error) {
	return l[1:], f.step("destroy")
}

func (f *fake) Sever(context.Context) (int, error) {
	err := f.step("sever")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gate != GateShut {
		f.t.Error("sever with the gate not shut: resets escape")
	}
	n := f.connections
	f.connections = 0
	return n, err
}

func (f *fake) BeforeSnapshot(context.Context) (any, error) { return nil, f.step("before") }
func (f *fake) AfterRestore(context.Context) (any, error)   { return nil, f.step("after") }
func (f *fake) Resting() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks >= f.working, nil
}
func (f *fake) Aborted(context.Context) (any, error)  { return nil, f.step("aborted") }
func (f *fake) Released(context.Context) (any, error) { return nil, f.step("released") }
func (f *fake) Settle(context.Context) error          { return f.step("settle") }

func (f *fake) Freeze(context.Context) error {
	err := f.step("freeze")
	f.with(func() { f.frozen = err == nil })
	return err
}

func (f *fake) Thaw(context.Context) error {
	err := f.step("thaw")
	if err == nil {
		f.with(func() { f.frozen = false })
	}
	return err
}

func (f *fake) RestartOwners(_ context.Context, late []Watcher) error {
	err := f.step("restart")
	f.with(func() {
		for _, w := range late {
			f.watchers[w.Command] = false
		}
	})
	return err
}

func (f *fake) Events() <-chan struct{} { return nil }

func (f *fake) ID() string { f.mu.Lock(); defer f.mu.Unlock(); return f.id }

func (f *fake) Bump() (uint32, error) {
	if id := f.ID(); f.reseeded != id {
		f.t.Errorf("bump for %q before the reseed", id)
	}
	err := f.step("bump")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gate != GateShut {
		f.t.Errorf("bump with the gate %s", f.gate)
	}
	f.counter++
	f.bumped = f.reseeded
	for name := range f.watchers {
		f.watchers[name] = true
	}
	return f.counter, err
}

func (f *fake) Counter() uint32 { f.mu.Lock(); defer f.mu.Unlock(); return f.counter }

func (f *fake) Outdated() []Watcher {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Watcher
	for name, outdated := range f.watchers {
		if outdated {
			list = append(list, Watcher{PID: 9, Command: name})
		}
	}
	return list
}

// Wait lets every watcher that is not mute acknowledge after ackAfter; a frozen one cannot.
func (f *fake) Wait(ctx context.Context) error {
	_ = f.step("wait")
	for {
		if len(f.Outdated()) == 0 {
			return nil
		}
		if err := sleep(ctx, f.ackAfter); err != nil {
			return ctx.Err()
		}
		f.with(func() {
			for name := range f.watchers {
				if !f.mute[name] && !f.frozen {
					f.watchers[name] = false
				}
			}
		})
	}
}

func (f *fake) Reseed(id string, _ []byte) (any, error) {
	err := f.step("reseed")
	if err == nil {
		f.with(func() { f.reseeded, _, _ = strings.Cut(id, "host") })
	}
	return nil, err
}

func (f *fake) Identify(context.Context, Resume) (any, error) { return nil, f.step("identify") }
func (f *fake) AwaitLinks() error                             { return f.step("links") }
func (f *fake) Announce() error                               { return f.step("announce") }

// filesystems is a type of its own because Services has the same method names.
type filesystems struct{ f *fake }

func (x filesystems) Freeze(context.Context) (int, any, error) { return 1, nil, x.f.step("fsfreeze") }
func (x filesystems) Thaw(context.Context) error               { return x.f.step("fsthaw") }

func (f *fake) parts() Parts {
	return Parts{Gate: f, Queues: f, Services: f, Filesystems: filesystems{f}, Generation: f, Kernel: f, Network: f}
}

func (f *fake) clone(id string) { f.with(func() { f.id = id }) }

// since is what was done from the first step of that name on, looks at queues left out.
func (f *fake) since(first string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.trace, first)
	if i < 0 {
		return fmt.Sprintf("no %s in %q", first, f.trace)
	}
	steps := slices.DeleteFunc(slices.Clone(f.trace[i:]), func(s string) bool { return s == "busy" || s == "barrier" })
	return strings.Join(steps, ", ")
}

const slowLook = 100 * time.Millisecond

func testOptions() Options {
	return Options{HooksTimeout: time.Second, DrainTimeout: time.Second, SettleTimeout: time.Second, FreezeTimeout: time.Second,
		SyncTimeout: time.Second, AdjustTimeout: time.Second, WatcherTimeout: time.Second, Watchdog: time.Minute, SlowLook: slowLook, Leftovers: Abort, Late: Hold}
}

// run gives body a running machine on a fake clock, and checks at the end that what is open is safe.
func run(t *testing.T, change func(*fake, *Options), body func(*testing.T, *fake, *Machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f, o := newFake(t), testOptions()
		if change != nil {
			change(f, &o)
		}
		m := New(f.parts(), o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		if err := m.Ready(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		body(t, f, m)
		cancel()
		<-done
	})
}

func reach(t *testing.T, m *Machine, want State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if got, err := m.WaitFor(ctx, func(s State) bool { return s == want }); err != nil {
		t.Fatalf("still %s, want %s: %v", got, want, err)
	}
}

var errInjected = errors.New("injected")
