package firewall

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens of this package anew")

var allCapabilities = capabilities{arp: true, bridge: true, conntrack: true}

// planCases are the goldens under testdata: NAME.nft is what nft lists.
var planCases = []struct {
	name  string
	state State
	caps  capabilities
	track bool
	allow []Allow
}{
	{"open", Open, allCapabilities, false, nil},
	{"shut", Shut, allCapabilities, true, nil},
	{"shut-inet-only", Shut, capabilities{}, false, nil},
	{"hold", Hold, allCapabilities, true, nil},
	{"hold-no-tracking", Hold, allCapabilities, false, nil},
	{"hold-inet-only", Hold, capabilities{}, false, nil},
	{"shut-allow-interface", Shut, allCapabilities, true, []Allow{{Interface: "eth1"}}},
	{"shut-allow-prefix", Shut, allCapabilities, true, []Allow{
		{Prefix: netip.MustParsePrefix("10.1.2.3/8")},
		{Prefix: netip.MustParsePrefix("fd00:1::/30")},
		{Prefix: netip.MustParsePrefix("192.0.2.7/32")},
	}},
	{"shut-allow-port", Shut, allCapabilities, true, []Allow{
		{Interface: "eth0", Prefix: netip.MustParsePrefix("10.0.0.0/24"), Protocol: "tcp", Port: 22},
		{Prefix: netip.MustParsePrefix("2001:db8::/64"), Port: 53},
		{Interface: "eth2", Protocol: "icmpv6"},
	}},
	{"hold-allow-port", Hold, allCapabilities, true, []Allow{{Protocol: "tcp", Port: 22}}},
}

func TestPlanGolden(t *testing.T) {
	for _, c := range planCases {
		t.Run(c.name, func(t *testing.T) {
			got := planFor(c.state, c.caps, c.track, c.allow).String()
			path := filepath.Join("testdata", c.name+".nft")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("plan:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestEveryShutChainFreesLoopbackAndDrops(t *testing.T) {
	for _, tab := range planFor(Shut, allCapabilities, true, nil) {
		for _, c := range tab.chains {
			if c.priority == afterConntrack {
				continue // stands behind one that drops
			}
			last := c.rules[len(c.rules)-1]
			if last.accept || len(last.matches) != 0 {
				t.Errorf("%s %s ends with %q, not with a plain drop", tab.family, c.name, last)
			}
			if tab.family == "inet" && !c.rules[0].accept {
				t.Errorf("%s %s begins with %q, not with loopback", tab.family, c.name, c.rules[0])
			}
		}
	}
}

func TestAllowCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		allow Allow
		ok    bool
	}{
		{"nothing", Allow{}, false},
		{"interface", Allow{Interface: "eth1"}, true},
		{"interface too long", Allow{Interface: "abcdefghijklmnop"}, false},
		{"prefix", Allow{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, true},
		{"mapped prefix", Allow{Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")}, true},
		{"mapped prefix too wide", Allow{Prefix: netip.MustParsePrefix("::ffff:0.0.0.0/90")}, false},
		{"unknown protocol", Allow{Protocol: "sctp"}, false},
		{"port alone", Allow{Port: 22}, true},
		{"port of icmp", Allow{Protocol: "icmp", Port: 1}, false},
		{"icmp with IPv6", Allow{Protocol: "icmp", Prefix: netip.MustParsePrefix("::/0")}, false},
		{"icmpv6 with IPv4", Allow{Protocol: "icmpv6", Prefix: netip.MustParsePrefix("0.0.0.0/0")}, false},
		{"interface with quote", Allow{Interface: `a"b`}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.allow.check(); (err == nil) != c.ok {
				t.Errorf("%+v: %v", c.allow, err)
			}
		})
	}
}

func TestParseState(t *testing.T) {
	for _, s := range []State{Open, Hold, Shut} {
		if got, err := ParseState(s.String()); got != s || err != nil {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	if _, err := ParseState("ajar"); err == nil {
		t.Error("ajar is a state")
	}
}
