//go:build root

package firewall

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// guarded starts a guard and gives a channel of what it found.
func guarded(t *testing.T, g *Gate) <-chan State {
	found := make(chan State, 64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Guard(ctx, func(s State) { found <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return found
}

func TestGuardShutsAgain(t *testing.T) {
	for _, c := range []struct {
		name, mechanism string
		tamper          func(*testing.T, *host, *Gate)
	}{
		{"table deleted", "nftables", func(t *testing.T, h *host, _ *Gate) { h.sh(t, "nft delete table inet rouse") }},
		{"ruleset flushed", "nftables", func(t *testing.T, h *host, _ *Gate) { h.sh(t, "nft flush ruleset") }},
		{"filter deleted", "nftables+tc", func(t *testing.T, h *host, _ *Gate) { h.sh(t, "tc filter del dev to-b egress") }},
		{"qdisc deleted", "tc", func(t *testing.T, h *host, _ *Gate) { h.sh(t, "tc qdisc del dev to-b clsact") }},
		{"program detached", "cgroup", func(t *testing.T, _ *host, g *Gate) {
			c := g.mech.(*cgroup)
			if err := c.detachProgram(1, c.valve.progs[1]); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _, g := pair(t, Options{Mechanism: c.mechanism})
			found := guarded(t, g)
			set(t, g, Shut)
			for range 5 {
				c.tamper(t, a, g)
				began := time.Now()
				select {
				case s := <-found:
					t.Logf("found %v, shut again %v after the tampering command ended", s, time.Since(began))
					if s != Open {
						t.Errorf("found %v", s)
					}
				case <-time.After(patience):
					t.Fatal("nobody noticed")
				}
				wantState(t, g, Shut)
			}
			set(t, g, Open)
		})
	}
}

// A link that appears while the gate is shut is gated too, and is nobody's
// tampering.
func TestNewLinkIsGated(t *testing.T) {
	a, _, g := pair(t, Options{Mechanism: "nftables+tc"})
	found := guarded(t, g)
	set(t, g, Shut)
	a.must(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "late"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "later"})
	})
	await(t, "the link to be gated", func() bool { s, err := g.State(); return s == Shut && err == nil })
	select {
	case s := <-found:
		t.Errorf("reported as tampering: found %v", s)
	default:
	}
	set(t, g, Open)
}
