//go:build root

package firewall

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// The best mechanism of this kernel goes through all the states that it knows.
// Where that is the cgroup rung it gates the whole machine, so it is tried
// only where GATE_MACHINE says that the machine is the test's: in a guest.
// There GATE_WANT says which mechanism must come out, with modules withheld.
func TestBestMechanism(t *testing.T) {
	hosts := newHosts(t, 2)
	wire(t, hosts[0], hosts[1], 1)
	g := hosts[0].gate(t, Options{Log: t.Logf})
	t.Logf("mechanism %s covers %v", g.Mechanism(), g.Coverage())
	if want := os.Getenv("GATE_WANT"); want != "" && g.Mechanism() != want {
		t.Errorf("mechanism %q, want %q", g.Mechanism(), want)
	}
	if strings.Contains(g.Mechanism(), "cgroup") && os.Getenv("GATE_MACHINE") == "" {
		t.Skip("would gate the whole machine: GATE_MACHINE is not set")
	}
	for _, s := range []State{Shut, Open, Hold, Shut, Open} {
		if err := g.Set(s); err != nil && !errors.Is(err, ErrNoHold) {
			t.Fatal(err)
		}
	}
	wantState(t, g, Open)
}
