package quiesce

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var exploreDepth = flag.Int("explore.depth", standardDepth, "explore that many actions from a machine that runs, and two less from each other start")

// explorer is a machine whose every step waits for leave. What may happen next is a list of actions: leave
// for the step at hand, its failure, and whatever the world may do meanwhile.
type explorer struct {
	t      *testing.T
	f      *fake
	m      *Machine
	begun  chan string // the step that waits
	leave  chan error
	at     string
	asked  int // calls that were not answered yet
	giveUp context.CancelFunc
	ctx    context.Context
	ids    int
}

type exploreAction struct {
	name string
	// can says whether the action means anything now; nil is always.
	can func(x *explorer) bool
	do  func(x *explorer)
}

var exploreActions = []exploreAction{
	{"ok", func(x *explorer) bool { return x.at != "" }, func(x *explorer) { x.leave <- nil }},
	{"fail", func(x *explorer) bool { return x.at != "" }, func(x *explorer) { x.leave <- errInjected }},
	{"panic", func(x *explorer) bool { return x.at != "" }, func(x *explorer) { x.leave <- errPanic }},
	{"tick", nil, func(*explorer) { time.Sleep(2 * fastLook) }},
	{"long", nil, func(*explorer) { time.Sleep(exploreLong) }},
	{"clone", func(x *explorer) bool { return x.f.ID() == x.known() }, func(x *explorer) { x.ids++; x.f.clone(fmt.Sprintf("ID%d", x.ids)) }},
	{"back", func(x *explorer) bool { return x.f.ID() != "A" }, func(x *explorer) { x.f.clone("A") }},
	{"resumed", nil, func(x *explorer) { x.ids++; _ = x.m.Resumed(Resume{Generation: fmt.Sprintf("host%d", x.ids)}) }},
	{"quiesce", func(x *explorer) bool { return x.asked == 0 }, func(x *explorer) {
		ctx, cancel := context.WithCancel(x.ctx)
		x.giveUp = cancel
		x.call(func() { _, _ = x.m.Quiesce(ctx, QuiesceOptions{}) })
	}},
	{"give up", func(x *explorer) bool { return x.asked > 0 && x.giveUp != nil }, func(x *explorer) { x.giveUp(); x.giveUp = nil }},
	{"release", func(x *explorer) bool { return x.asked < 2 }, func(x *explorer) { x.call(func() { _, _ = x.m.Release(x.ctx) }) }},
	{"mute", func(x *explorer) bool { return !x.muted() }, func(x *explorer) { x.f.with(func() { x.f.mute["w"] = true }) }},
	{"speak", func(x *explorer) bool { return x.muted() }, func(x *explorer) { x.f.with(func() { x.f.mute["w"] = false }) }},
	{"fault", nil, func(x *explorer) { x.m.Fail("fault") }},
}

// exploreLong is longer than everything that exploreOptions bound.
const exploreLong = 100 * time.Millisecond

// exploreOptions are short, because in every millisecond somebody looks at the generation.
func exploreOptions() Options {
	const bound = 15 * time.Millisecond
	return Options{HooksTimeout: bound, DrainTimeout: bound, SettleTimeout: bound, FreezeTimeout: bound, SyncTimeout: bound,
		AdjustTimeout: bound, WatcherTimeout: bound, Watchdog: bound, SlowLook: bound, Leftovers: Abort, Late: Hold}
}

var errPanic = fmt.Errorf("panic")

func (x *explorer) call(f func()) {
	x.f.with(func() { x.asked++ })
	go func() { f(); x.f.with(func() { x.asked-- }) }()
}

func (x *explorer) known() string { x.m.mu.Lock(); defer x.m.mu.Unlock(); return x.m.known }

func (x *explorer) muted() bool { x.f.mu.Lock(); defer x.f.mu.Unlock(); return x.f.mute["w"] }

// wait is what the fake does at each step.
func (x *explorer) wait(name string) error {
	if name == "busy" {
		return nil
	}
	x.m.mu.Lock()
	state, known, fault := x.m.state, x.m.known, x.m.fault
	x.m.mu.Unlock()
	x.f.mu.Lock()
	if name == "gate open" && fault != "" {
		x.t.Errorf("the gate is opened in spite of the fault %q", fault)
	}
	if (name == "thaw" || name == "gate open") && state == Adjusting && (x.f.reseeded != known || x.f.bumped != known) {
		x.t.Errorf("%s in %q, reseeded for %q, bumped for %q", name, known, x.f.reseeded, x.f.bumped)
	}
	x.f.mu.Unlock()
	x.begun <- name
	err := <-x.leave
	if err == errPanic {
		panic(name)
	}
	return err
}

// rest lets everything happen that happens by itself without time passing.
func (x *explorer) rest() {
	synctest.Wait()
	select {
	case x.at = <-x.begun:
		// It took the step's name; the step waits for leave.
		synctest.Wait()
	default:
	}
}

func (x *explorer) do(a exploreAction) {
	at := x.at
	if a.can != nil && !a.can(x) {
		x.t.Errorf("%s is not possible at step %q", a.name, at)
		return
	}
	if slices.Contains([]string{"ok", "fail", "panic"}, a.name) {
		x.at = ""
	}
	a.do(x)
	x.rest()
	if x.t.Failed() {
		x.t.Logf("%s at step %q", a.name, at)
	}
}

// key is all of the machine's and the world's state that makes a difference to what can happen; it is read at rest.
func (x *explorer) key() string {
	m, f := x.m, x.f
	id := f.ID()
	m.mu.Lock()
	defer m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintln(m.state, m.pending, m.job != nil, m.fault != "", m.hostGen == "", id == m.known, id == f.reseeded, id == "A",
		m.uncontrolled, m.watchersLate, m.adjusting != nil, m.owed != nil, m.thawing != nil, m.thawCause != nil, m.faultSeen,
		x.at, x.asked, x.giveUp != nil, f.gate, f.frozen, f.mute["w"], f.watchers["w"])
}

// TestExploreStarts keeps the starts where their names say.
func TestExploreStarts(t *testing.T) {
	for name, words := range exploreStarts {
		state, step, _ := strings.Cut(map[string]string{"running": "running", "draining": "quiescing", "freezing": "quiescing freeze", "quiesced": "quiesced",
			"thawing": "thawing thaw", "adjusting": "adjusting fsthaw", "waiting": "adjusting", "faulted": "adjusting after", "held": "held"}[name], " ")
		if key, _ := explorePath(t, parsePath(words)); !strings.HasPrefix(key, state) || !strings.Contains(key, " "+step) {
			t.Errorf("%s: %s", name, key)
		}
	}
}

// finish leaves the machine alone, with steps that succeed and watchers that answer, and checks where it comes to.
func (x *explorer) finish() {
	x.f.with(func() { x.f.mute = map[string]bool{}; x.f.stepper = nil })
	if x.at != "" {
		x.leave <- nil
	}
	go func() { // a step that began in the meantime
		for range x.begun {
			x.leave <- nil
		}
	}()
	for range 3 {
		time.Sleep(exploreLong)
		ctx, cancel := context.WithTimeout(x.ctx, exploreLong)
		_, _ = x.m.Release(ctx)
		cancel()
	}
	time.Sleep(exploreLong)
	id := x.f.ID()
	if s := x.m.State(); s != Running && s != Booting || x.f.gate != GateOpen || x.f.frozen || x.f.reseeded != id || x.asked != 0 {
		x.t.Errorf("left alone: %s (%s), gate %s, frozen %v, reseeded for %q in %q, %d calls without an answer",
			s, x.m.Reason(), x.f.gate, x.f.frozen, x.f.reseeded, id, x.asked)
	}
	for _, r := range x.m.Reports() {
		if (r.Outcome != "open" && r.Outcome != "ready") != (r.Reason != "") && r.Kind != "thaw" {
			x.t.Errorf("report %s, outcome %s, reason %q", r.Kind, r.Outcome, r.Reason)
		}
	}
	close(x.begun)
}

// explorePath lives through a path and returns the key of its end and what can be done there.
func explorePath(t *testing.T, path []int) (key string, next []int) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		x := &explorer{t: t, f: f, begun: make(chan string), leave: make(chan error)}
		f.stepper = x.wait
		m := New(f.parts(), exploreOptions())
		x.m = m
		ctx, cancel := context.WithCancel(t.Context())
		x.ctx = ctx
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		if err := m.Ready(); err != nil {
			t.Error(err)
		}
		x.rest()
		for _, i := range path {
			x.do(exploreActions[i])
		}
		key = x.key()
		for i, a := range exploreActions {
			if a.can == nil || a.can(x) {
				next = append(next, i)
			}
		}
		x.finish()
		cancel()
		<-done
	})
	return key, next
}

// exploreStarts are where an exploration begins: a machine that runs, and the steps that take it further.
var exploreStarts = map[string]string{
	"running":   "",
	"draining":  "quiesce ok ok ok",
	"freezing":  "quiesce ok ok ok tick tick ok ok ok",
	"quiesced":  "quiesce ok ok ok tick tick ok ok ok ok ok ok",
	"thawing":   "quiesce ok ok ok tick tick ok ok ok ok ok ok release ok",
	"adjusting": "quiesce ok ok ok tick tick ok ok ok ok ok ok clone tick ok ok",
	"waiting":   "mute quiesce ok ok ok tick tick ok ok ok ok ok ok clone tick ok ok ok ok ok ok ok ok",
	"faulted":   "fault ok clone long ok ok ok ok ok ok ok ok tick tick tick",
	"held":      "mute quiesce ok ok ok tick tick ok ok ok ok ok ok clone tick ok ok ok ok ok ok ok ok long",
}

func parsePath(words string) (path []int) {
	for _, w := range strings.Fields(words) {
		path = append(path, slices.IndexFunc(exploreActions, func(a exploreAction) bool { return a.name == w }))
	}
	return path
}

// TestExplore lets everything happen in every state: from each state that was found, each action is tried, to a depth
// from several starts. The fake checks the safety order at every step; each path ends with a machine that is left alone and
// has to come back to life.
func TestExplore(t *testing.T) {
	seen := map[string]bool{}
	began := time.Now()
	n := explore(t, seen, [][]int{nil}, *exploreDepth)
	var starts [][]int
	for _, start := range exploreStarts {
		starts = append(starts, parsePath(start))
	}
	n += explore(t, seen, starts, *exploreDepth-2)
	t.Logf("%d states, %d paths in %v", len(seen), n, time.Since(began).Round(time.Millisecond))
}

// explore goes from each start to all states that were not seen, and returns how many paths it took.
func explore(t *testing.T, seen map[string]bool, level [][]int, most int) (paths int) {
	for depth := 0; depth <= most; depth++ {
		var deeper [][]int
		for _, path := range level {
			key, next := explorePath(t, path)
			paths++
			if t.Failed() {
				t.Fatalf("path: %s", pathNames(path))
			}
			if seen[key] {
				continue
			}
			seen[key] = true
			for _, i := range next {
				deeper = append(deeper, append(slices.Clone(path), i))
			}
		}
		level = deeper
	}
	return paths
}

func pathNames(path []int) string {
	var names []string
	for _, i := range path {
		names = append(names, exploreActions[i].name)
	}
	return strings.Join(names, ", ")
}
