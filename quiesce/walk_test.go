package quiesce

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var (
	walkSeed  = flag.Uint64("walk.seed", 0, "replay one walk")
	walkSteps = flag.Int("walk.steps", 40, "events a walk")
	walks     = flag.Uint64("walk.n", 60, "how many walks")
)

// events are what may happen to a machine from outside, at any moment.
var walkEvents = []struct {
	name string
	do   func(w *walk)
}{
	{"clone", func(w *walk) { w.next++; w.f.clone(fmt.Sprintf("ID%d", w.next)) }},
	{"clone back", func(w *walk) { w.f.clone("A") }},
	{"quiesce", func(w *walk) { w.call(func(ctx context.Context) { _, _ = w.m.Quiesce(ctx, QuiesceOptions{}) }) }},
	{"impatient quiesce", func(w *walk) {
		w.call(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			_, _ = w.m.Quiesce(ctx, QuiesceOptions{})
		})
	}},
	{"release", func(w *walk) { w.call(func(ctx context.Context) { _, _ = w.m.Release(ctx) }) }},
	{"resumed", func(w *walk) { w.next++; _ = w.m.Resumed(Resume{Generation: fmt.Sprintf("host%d", w.next)}) }},
	{"mute", func(w *walk) { w.f.with(func() { w.f.mute["w"] = true }) }},
	{"speak", func(w *walk) { w.f.with(func() { w.f.mute["w"] = false }) }},
	{"busy", func(w *walk) { w.f.with(func() { w.f.busy = []int{1} }) }},
	{"idle", func(w *walk) { w.f.with(func() { w.f.busy = nil }) }},
	{"fail", func(w *walk) {
		s := seams[w.r.IntN(len(seams))]
		step, errno := s.steps[w.r.IntN(len(s.steps))], s.errnos[w.r.IntN(len(s.errnos))]
		w.f.with(func() { w.f.errs[step] = append(w.f.errs[step], errno) })
	}},
	{"hook fails", func(w *walk) {
		step := []string{"before", "after", "announce", "aborted", "released"}[w.r.IntN(5)]
		w.f.with(func() { w.f.errs[step] = append(w.f.errs[step], errInjected) })
	}},
	{"panic", func(w *walk) {
		step := []string{"before", "links", "gate hold", "gate shut", "settle", "freeze", "reseed", "sever", "bump", "thaw", "wait", "after", "gate open"}[w.r.IntN(13)]
		w.f.with(func() { w.f.on[step] = func() { w.f.with(func() { delete(w.f.on, step) }); panic(step) } })
	}},
	{"fault", func(w *walk) { w.m.Fail("fault") }},
	{"instant", func(*walk) { time.Sleep(300 * time.Microsecond) }},
	{"moment", func(*walk) { time.Sleep(7 * time.Millisecond) }},
	{"second", func(*walk) { time.Sleep(time.Second) }},
	{"minutes", func(*walk) { time.Sleep(2 * time.Minute) }},
}

// walk is one random life of a machine.
type walk struct {
	f    *fake
	m    *Machine
	r    *rand.Rand
	next int
	log  []string
	wg   sync.WaitGroup
	ctx  context.Context
}

func (w *walk) call(f func(context.Context)) { w.wg.Go(func() { f(w.ctx) }) }

// TestRandomWalks lets machines live through random events. The fakes check the safety order at every
// step; here it is checked that whatever happened, a machine that is then left alone, with watchers that
// answer, comes to run with the gate open, nothing frozen, and in the generation that it has.
func TestRandomWalks(t *testing.T) {
	if *walkSeed != 0 {
		randomWalk(t, *walkSeed)
		return
	}
	for seed := uint64(1); seed <= *walks && !t.Failed(); seed++ {
		randomWalk(t, seed)
	}
}

func randomWalk(t *testing.T, seed uint64) {
	run(t, nil, func(t *testing.T, f *fake, m *Machine) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &walk{f: f, m: m, r: rand.New(rand.NewPCG(seed, 0)), ctx: ctx}
		for range *walkSteps {
			e := walkEvents[w.r.IntN(len(walkEvents))]
			w.log = append(w.log, e.name)
			e.do(w)
		}
		f.with(func() {
			f.mute, f.busy, f.errs, f.on = map[string]bool{}, nil, map[string][]error{}, map[string]func(){}
		})
		// A held machine tries again when it is asked; a quiesced one goes on by its watchdog.
		for range 3 {
			time.Sleep(5 * time.Minute)
			_, _ = m.Release(ctx)
		}
		state, id := m.State(), f.ID()
		if state != Running || f.gate != GateOpen || f.frozen || f.reseeded != id {
			t.Errorf("seed %d: state %s (%s), gate %s, frozen %v, reseeded for %q in %q", seed, state, m.Reason(), f.gate, f.frozen, f.reseeded, id)
		}
		cancel()
		w.wg.Wait()
		if t.Failed() {
			t.Logf("replay with -walk.seed=%d: %q", seed, w.log)
		}
	})
}
