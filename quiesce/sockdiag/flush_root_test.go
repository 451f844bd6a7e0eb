//go:build root

package sockdiag

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestFlushNeighbours(t *testing.T) {
	newPeer(t)
	near, err := netlink.LinkByName("near")
	if err != nil {
		t.Fatal(err)
	}
	mac, _ := net.ParseMAC("02:00:00:00:00:09")
	for _, n := range []netlink.Neigh{
		{IP: net.ParseIP("10.9.0.9"), State: netlink.NUD_PERMANENT},
		{IP: net.ParseIP("10.9.0.10"), State: netlink.NUD_REACHABLE},
		{IP: net.ParseIP("fd09::10"), State: netlink.NUD_STALE},
		{IP: net.ParseIP("10.9.0.11"), State: netlink.NUD_REACHABLE, Flags: unix.NTF_EXT_LEARNED},
	} {
		n.LinkIndex, n.HardwareAddr = near.Attrs().Index, mac
		if err := netlink.NeighAdd(&n); err != nil {
			t.Fatalf("neighbour %s: %v", n.IP, err)
		}
	}
	if err := FlushNeighbours(); err != nil {
		t.Fatal(err)
	}
	left, err := netlink.NeighList(near.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range left {
		if n.State&netlink.NUD_NOARP == 0 {
			names = append(names, n.IP.String())
		}
	}
	if got := strings.Join(names, " "); got != "10.9.0.11 10.9.0.9" && got != "10.9.0.9 10.9.0.11" {
		t.Errorf("left: %q", got)
	}
}

func TestFlushConntrack(t *testing.T) {
	enterNetns(t)
	if err := FlushConntrack(); err != nil {
		t.Fatalf("nothing tracked: %v", err)
	}
	trackEverything(t)
	_, client, server := tcpPair(t, "127.0.0.1")
	if n := tracked(t); n == "0" {
		t.Fatal("nothing is tracked: the test tests nothing")
	}
	err := FlushConntrack()
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := tracked(t); n != "0" {
		t.Errorf("%s connections still tracked", n)
	}
	client.write("x")
	server.readAll(1)
}

func tracked(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		t.Skipf("kernel without CONFIG_NF_CONNTRACK: %v", err)
	}
	return strings.TrimSpace(string(b))
}

// trackEverything makes conntrack work in this namespace: it does only where a rule looks at its state.
func trackEverything(t *testing.T) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "track"})
	chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}}})
	if err := c.Flush(); err != nil {
		t.Fatalf("nftables: %v", err)
	}
}
