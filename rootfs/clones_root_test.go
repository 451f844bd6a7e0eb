//go:build root

package rootfs

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// site is a bridge in a namespace of its own with guests plugged in, each in its own namespace as well.
type site struct {
	t      *testing.T
	hub    int
	guests []int
}

func (s *site) newNamespace() int {
	s.t.Helper()
	must(s.t, unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(s.t, err)
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (s *site) in(ns int, do func()) {
	s.t.Helper()
	must(s.t, unix.Setns(ns, unix.CLONE_NEWNET))
	do()
}

// plug gives a guest an eth0 with the MAC that all of them have, on the bridge but with the port still down: a gate that is shut.
func (s *site) plug(n int) {
	s.t.Helper()
	guest := s.newNamespace()
	s.guests = append(s.guests, guest)
	s.in(s.hub, func() {
		br, err := netlink.LinkByName("br0")
		must(s.t, err)
		la := netlink.NewLinkAttrs()
		la.Name, la.MasterIndex = fmt.Sprintf("port%d", n), br.Attrs().Index
		must(s.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerHardwareAddr: []byte{2, 0, 0, 0, 0, 1}}))
		peer, err := netlink.LinkByName("eth0")
		must(s.t, err)
		must(s.t, netlink.LinkSetNsFd(peer, guest))
	})
}

func (s *site) portUp(n int) {
	s.t.Helper()
	s.in(s.hub, func() {
		l, err := netlink.LinkByName(fmt.Sprintf("port%d", n))
		must(s.t, err)
		must(s.t, netlink.LinkSetUp(l))
	})
}

func identityOf(n int) Interface {
	p := netip.MustParsePrefix
	return Interface{SetMAC: fmt.Sprintf("02:00:00:00:00:%02x", 1+n), Addresses: []netip.Prefix{p(fmt.Sprintf("192.0.2.%d/24", 10+n)), p(fmt.Sprintf("2001:db8::%x/64", 0x10+n))}}
}

// Three clones of a source that goes on, on one bridge: each is given its own identity while it is shut off, and then everybody
// reaches everybody, by either family.
func TestThreeClonesOneBridge(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	s := &site{t: t}
	s.hub = s.newNamespace()
	br := netlink.NewLinkAttrs()
	br.Name = "br0"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: br}))
	l, err := netlink.LinkByName("br0")
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	for n := range 4 {
		s.plug(n)
		s.in(s.guests[n], func() { // all alike: the snapshot's state
			must(t, ConfigureNetwork([]Interface{identityOf(0)}))
			listen(t)
		})
	}
	s.portUp(0)
	s.in(s.guests[0], func() { must(t, Announce()) })
	for n := 1; n < 4; n++ {
		s.in(s.guests[n], func() {
			must(t, ReplaceNetwork([]Interface{identityOf(n)}))
		})
		s.portUp(n)
		s.in(s.guests[n], func() { must(t, Announce()) })
	}
	for from := range 4 {
		for to := range 4 {
			for _, p := range identityOf(to).Addresses {
				s.in(s.guests[from], func() { reach(t, from, to, p.Addr()) })
			}
		}
	}
}

const clonePort = 7777

func listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", clonePort))
	must(t, err)
	t.Cleanup(func() { l.Close() })
}

// reach connects; the listener's backlog answers. An IPv6 address is unreachable until a worker of the kernel's has made its
// route (addrconf_dad_work, net/ipv6/addrconf.c).
func reach(t *testing.T, from, to int, ip netip.Addr) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, clonePort).String(), patience)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d to %d: %v", from, to, err)
			return
		}
	}
}
