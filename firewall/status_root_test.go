//go:build root

package firewall

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A gate that one process shut, by whatever mechanism and with whatever allow
// list, is seen and opened by another, which leaves nothing behind.
func TestStatusAndForceOpen(t *testing.T) {
	for _, name := range []string{"nftables", "tc", "nftables+tc", "cgroup"} {
		t.Run(name, func(t *testing.T) {
			a, _, g := pair(t, Options{Mechanism: name, Allow: []Allow{{Protocol: "tcp", Port: 22}}})
			o := Options{cgroup: a.cgroup}
			look := func() string {
				return a.sh(t, "nft list ruleset; tc qdisc; tc filter show dev to-b ingress; ip rule; ip -6 rule")
			}
			if a.cgroup == "" {
				o.Mechanism = "nftables+tc+fib" // the machine's own root cgroup is not the test's
			}
			before := look()
			set(t, g, Shut)
			for _, r := range status(t, a, o) {
				want := "open"
				if strings.Contains("+"+name+"+", "+"+r.Mechanism+"+") {
					want = "shut"
				}
				if r.State != want {
					t.Errorf("%+v, want %s", r, want)
				}
			}
			a.must(t, func() error { return ForceOpen(o) })
			for _, r := range status(t, a, o) {
				if r.State != "open" || r.Problem != "" {
					t.Errorf("after opening: %+v", r)
				}
			}
			wantState(t, g, Open)
			if after := look(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func status(t *testing.T, h *host, o Options) (reports []Report) {
	h.must(t, func() error {
		reports = Status(o)
		return nil
	})
	return reports
}

// A process may die at any step of a switch: the next gate says that what it
// left is no gate, and sets or removes it.
func TestHalfMadeGates(t *testing.T) {
	for _, c := range []struct {
		name, mechanism string
		half            func(m mechanism) error
	}{
		{"nftables emptied, not deleted", "nftables", func(m mechanism) error {
			n := m.(*nft)
			return errors.Join(n.set(Shut), n.send(n.empty))
		}},
		{"tc attached, not turned", "tc", func(m mechanism) error {
			return errors.Join(m.set(Shut), m.(*tc).valve.set(Open))
		}},
		{"tc on one link of two", "tc", func(m mechanism) error {
			links, err := m.(*tc).links()
			return errors.Join(err, m.(*tc).attach(links[0]))
		}},
		{"tc in one direction", "tc", func(m mechanism) error {
			links, err := m.(*tc).links()
			return errors.Join(err, m.set(Shut), m.(*tc).dropFilter(links[0], 1))
		}},
		{"cgroup attached, not turned", "cgroup", func(m mechanism) error {
			return errors.Join(m.set(Shut), m.(*cgroup).valve.set(Open))
		}},
		{"cgroup in one direction", "cgroup", func(m mechanism) error {
			c := m.(*cgroup)
			return errors.Join(m.set(Shut), c.detachProgram(0, c.valve.progs[0]))
		}},
		{"routing rules in part", "fib", func(m mechanism) error {
			return m.(*fib).change(fibChange{unix.RTM_NEWRULE, fibLocal.in(unix.AF_INET)})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _, dies := pair(t, Options{Mechanism: c.mechanism})
			third := newHosts(t, 1)[0]
			third.name = "c"
			wire(t, a, third, 2)
			look := func() string { return a.sh(t, "nft list ruleset; tc qdisc; ip rule; ip -6 rule") }
			before := look()
			for _, next := range []State{Open, Shut} {
				if err := c.half(dies.mech); err != nil {
					t.Fatal(err)
				}
				g := a.gate(t, Options{Mechanism: c.mechanism, cgroup: a.cgroup})
				if s, err := g.State(); s != Open || !errors.Is(err, ErrTampered) {
					t.Errorf("state %v, %v", s, err)
				}
				set(t, g, next)
				set(t, g, Open)
				if after := look(); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			}
		})
	}
}

func (c *tc) dropFilter(l link, direction int) error {
	e := &encoder{}
	c.request(e, unix.RTM_DELTFILTER, 0, filterHead(l.index, direction), "bpf")
	return c.sock.transact(e.finish(), c.sock.seq)
}
