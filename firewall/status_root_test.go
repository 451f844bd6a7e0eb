//go:build root

package firewall

import (
	"strings"
	"testing"
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
