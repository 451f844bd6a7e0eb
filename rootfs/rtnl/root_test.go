//go:build root

package rtnl

import (
	"bytes"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespace is an empty network namespace for the test's thread, which dies with it.
func namespace(t *testing.T) *Conn {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("unshare: %v: run as root", err)
	}
	c, err := Dial(0)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func veth(t *testing.T, a, b string) int {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU = a, 1300
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: b}))
	l, err := netlink.LinkByName(a)
	must(t, err)
	return l.Attrs().Index
}

// What we list is what the library lists, and what we have set is what it sees.
func TestAsLibrary(t *testing.T) {
	c := namespace(t)
	index := veth(t, "a0", "b0")
	must(t, c.SetLink(index, LinkChange{Name: "lan0"})) // while it is down
	must(t, c.SetLink(index, LinkChange{MTU: 1280, MAC: []byte{2, 0, 0, 0, 0, 5}, Up: true}))
	p := netip.MustParsePrefix
	must(t, c.AddAddress(index, p("192.0.2.7/24"), 0))
	must(t, c.AddAddress(index, p("2001:db8::7/64"), unix.IFA_F_NODAD))
	routes := []Route{{Index: index, Destination: p("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1")},
		{Index: index, Destination: p("198.51.100.0/24"), Gateway: netip.MustParseAddr("203.0.113.9"), Metric: 77, OnLink: true},
		{Index: index, Destination: p("::/0"), Gateway: netip.MustParseAddr("fe80::1")}, {Index: index, Destination: p("2001:db8:1::/48"), Metric: 5}}
	for _, r := range routes {
		must(t, c.ReplaceRoute(r))
		must(t, c.ReplaceRoute(r))
	}
	compareLinks(t, c)
	compareAddresses(t, c)
	compareRoutes(t, c, index, routes)
	for _, r := range routes {
		must(t, c.RemoveRoute(r))
		if err := c.RemoveRoute(r); !errors.Is(err, unix.ESRCH) {
			t.Errorf("removed twice: %v", err)
		}
	}
	must(t, c.RemoveAddress(index, p("192.0.2.7/24")))
	if err := c.RemoveAddress(index, p("192.0.2.7/24")); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("removed twice: %v", err)
	}
	must(t, c.SetLink(index, LinkChange{Down: true}))
	compareLinks(t, c)
}

func compareLinks(t *testing.T, c *Conn) {
	t.Helper()
	ours, err := c.Links()
	must(t, err)
	theirs, err := netlink.LinkList()
	must(t, err)
	if len(ours) != len(theirs) {
		t.Fatalf("%d links, the library has %d", len(ours), len(theirs))
	}
	for n, l := range ours {
		a := theirs[n].Attrs()
		kind := strings.Replace(theirs[n].Type(), "device", "", 1)
		if l.Index != a.Index || l.Name != a.Name || l.MTU != a.MTU || !bytes.Equal(l.MAC, a.HardwareAddr) || l.Kind != kind ||
			l.Up != (a.RawFlags&unix.IFF_UP != 0) || l.Ethernet != (a.EncapType == "ether") || l.Loopback != (a.EncapType == "loopback") {
			t.Errorf("%+v, the library says %s %+v", l, kind, a)
		}
	}
}

func compareAddresses(t *testing.T, c *Conn) {
	t.Helper()
	ours, err := c.Addresses(0)
	must(t, err)
	theirs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	must(t, err)
	if len(ours) != len(theirs) || len(ours) < 2 {
		t.Fatalf("%v, the library has %v", ours, theirs)
	}
	for n, a := range ours {
		b := theirs[n]
		if a.Prefix.String() != b.IPNet.String() || a.Index != b.LinkIndex || a.Flags != uint32(b.Flags) {
			t.Errorf("%+v, the library says %+v", a, b)
		}
		if a.Prefix.Addr().Is4() && b.Broadcast.String() != "192.0.2.255" {
			t.Errorf("broadcast %s", b.Broadcast)
		}
	}
}

func compareRoutes(t *testing.T, c *Conn, index int, want []Route) {
	t.Helper()
	ours, err := c.Routes(index)
	must(t, err)
	l, err := netlink.LinkByIndex(index)
	must(t, err)
	theirs, err := netlink.RouteList(l, netlink.FAMILY_ALL)
	must(t, err)
	if len(ours) != len(theirs) {
		t.Errorf("%v, the library has %v", ours, theirs)
	}
	for _, r := range want {
		if !slices.ContainsFunc(ours, func(o Route) bool {
			return o.Destination == r.Destination && o.Gateway == r.Gateway && o.OnLink == r.OnLink && (o.Metric == r.Metric || r.Metric == 0)
		}) {
			t.Errorf("%+v is not in %+v", r, ours)
		}
	}
}

func TestKernelsWords(t *testing.T) {
	c := namespace(t)
	index := veth(t, "a0", "b0")
	must(t, c.SetLink(index, LinkChange{Up: true}))
	err := c.ReplaceRoute(Route{Index: index, Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1")})
	if err == nil || !strings.Contains(err.Error(), "kernel: ") {
		t.Errorf("error %v does not carry the kernel's words", err)
	}
}

// A dump of more links than one datagram holds.
func TestLongDump(t *testing.T) {
	c := namespace(t)
	for n := range 60 {
		veth(t, "a"+string(rune('A'+n)), "b"+string(rune('A'+n)))
	}
	compareLinks(t, c)
}
