//go:build root

package firewall

import (
	"runtime"
	"testing"
)

// While a Guard runs, to open is to let everything through; what that leaves the Guard removes by itself, and no
// later than when it ends.
func TestGuardClearsAnOpenGate(t *testing.T) {
	for _, name := range append([]string{"fib"}, mechanisms...) {
		t.Run(name, func(t *testing.T) {
			a, b, g := pair(t, Options{Mechanism: name})
			permanentNeighbours(t, a, b)
			look := func() string { return a.sh(t, "nft list ruleset; tc qdisc; ip rule; ip -6 rule") }
			before := look()
			w := newWays(t, a, b)
			guarded(t, g)
			await(t, "the guard", func() bool { return g.guardsNow() == 1 })
			for range 5 {
				set(t, g, Shut)
				if err := g.Set(Open); err != nil {
					t.Fatal(err)
				}
				if n := w.free(t); n != 4 {
					t.Errorf("%d of 4 ways are free", n)
				}
				await(t, "nothing to be left", func() bool { return look() == before })
			}
		})
	}
}

func (g *Gate) guardsNow() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guards
}

// heldBack is a gate with a guard that never gets to clear.
func heldBack(t *testing.T) (a, b *host, g *Gate) {
	a, b, g = pair(t, Options{Mechanism: "nftables+tc"})
	g.mu.Lock()
	g.guards++
	g.mu.Unlock()
	return a, b, g
}

// What is left of an opened gate is no gate, is used again by the next switch, and is gone after whatever asks.
func TestWhatIsLeftOfAnOpenGate(t *testing.T) {
	for name, then := range map[string]func(*testing.T, *Gate){
		"state":     func(t *testing.T, g *Gate) { wantState(t, g, Open) },
		"open":      func(t *testing.T, g *Gate) { set(t, g, Open) },
		"guard end": func(t *testing.T, g *Gate) { g.endGuard() },
		"shut": func(t *testing.T, g *Gate) {
			for _, s := range []State{Shut, Hold, Shut, Open} {
				if err := g.Set(s); err != nil {
					t.Fatal(err)
				}
				if got, err := g.read(); s != Open && (got != s || err != nil) {
					t.Errorf("%v, %v, want %v", got, err, s)
				}
			}
			g.endGuard()
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, g := heldBack(t)
			permanentNeighbours(t, a, b)
			look := func() string { return a.sh(t, "nft list ruleset; tc qdisc; ip rule; ip -6 rule") }
			before := look()
			w := newWays(t, a, b)
			set(t, g, Shut)
			if n := w.free(t); n != 0 {
				t.Errorf("%d ways are free", n)
			}
			if err := g.Set(Open); err != nil {
				t.Fatal(err)
			}
			if !g.inert || w.free(t) != 4 {
				t.Errorf("left %t, %d ways are free", g.inert, w.free(t))
			}
			for _, r := range status(t, a, Options{Mechanism: "nftables+tc"}) { // another process
				if r.State != "open" {
					t.Errorf("%+v", r)
				}
			}
			then(t, g)
			if after := look(); after != before || g.inert {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// An opening that finds that its tables are not empty takes the long way.
func TestOpenProves(t *testing.T) {
	a, b, g := heldBack(t)
	permanentNeighbours(t, a, b)
	w := newWays(t, a, b)
	set(t, g, Shut)
	n := g.mech.(combined)[0].(*nft)
	empty := n.empty
	n.empty = beginEndOf(n) // a kernel that acknowledges, and does nothing
	if err := n.open(); err == nil {
		t.Error("a gate that is shut counts as opened")
	}
	if err := g.Set(Open); err != nil || g.inert {
		t.Errorf("left %t: %v", g.inert, err)
	}
	if free := w.free(t); free != 4 {
		t.Errorf("%d ways are free", free)
	}
	n.empty = empty
}

// beginEndOf is a batch that changes nothing: the table is there.
func beginEndOf(n *nft) batch {
	b := beginBatch()
	b.addTable(n.families[0])
	return b.end()
}

// TestOpenAllocates keeps budgets for the first and the last step of a resume.
func TestOpenAllocates(t *testing.T) {
	_, _, g := heldBack(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	set(t, g, Shut)
	shut := testing.AllocsPerRun(10, func() {
		if err := g.Set(Shut); err != nil {
			t.Fatal(err)
		}
	})
	if shut > proveBudget {
		t.Errorf("%v allocations to see that it is shut, budget %d", shut, proveBudget)
	}
	least := ^uint64(0)
	for range 10 {
		set(t, g, Shut)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := g.Set(Open); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if least > openBudget {
		t.Errorf("%d allocations to open, budget %d", least, openBudget)
	}
	t.Logf("%v and %d allocations", shut, least)
}

// 2026-11, Linux 6.18, nftables and tc on one link: 19 and 56 were measured.
const (
	openBudget  = 24
	proveBudget = 64
)
