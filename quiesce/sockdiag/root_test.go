//go:build root

package sockdiag

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds waits for what the kernel does when it pleases, on a machine that may be busy with other tests; nothing is
// asserted about time.
const patience = time.Minute

// enterNetns puts the test into a network namespace of its own, with lo up. The thread is never given back.
func enterNetns(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot make a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	linkUp(t, "lo")
}

func linkUp(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
}

// peerNs is a second host: a namespace at the other end of a veth. near is 10.9.0.1 and fd09::1, far is .2 and ::2.
type peerNs struct {
	t         *testing.T
	near, far int // descriptors of the namespaces
}

func newPeer(t *testing.T) *peerNs {
	t.Helper()
	enterNetns(t)
	p := &peerNs{t: t, near: openNs(t)}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	p.far = openNs(t)
	linkUp(t, "lo")
	p.enter(p.near)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsFd(p.far)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("veth: %v", err)
	}
	addAddresses(t, "near", 1)
	p.there(func() { addAddresses(t, "far", 2) })
	awaitLink(t, "near", "fd09::1")
	p.there(func() { awaitLink(t, "far", "fd09::2") })
	return p
}

// awaitLink waits until a link carries packets and its IPv6 address is the machine's own. One that was set up before its other end
// is told of the carrier by a worker of the kernel's (linkwatch_do_dev, net/core/link_watch.c, v6.12) and drops what is sent until
// then; another worker makes the address's route after that (addrconf_dad_work, net/ipv6/addrconf.c).
func awaitLink(t *testing.T, name, ip string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatalf("link %s: %v", name, err)
		}
		routes, err := netlink.RouteGet(net.ParseIP(ip))
		switch {
		case link.Attrs().OperState == netlink.OperUp && err == nil && routes[0].Type == unix.RTN_LOCAL:
			return
		case time.Now().After(end):
			t.Fatalf("link %s carries nothing, or %s is not its own", name, ip)
		}
	}
}

func addAddresses(t *testing.T, name string, n int) {
	t.Helper()
	linkUp(t, name)
	link, _ := netlink.LinkByName(name)
	for _, s := range []string{fmt.Sprintf("10.9.0.%d/24", n), fmt.Sprintf("fd09::%d/64", n)} {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Fatalf("address %s: %v", s, err)
		}
	}
}

func openNs(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (p *peerNs) enter(ns int) {
	p.t.Helper()
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		p.t.Fatalf("setns: %v", err)
	}
}

func (p *peerNs) there(f func()) {
	p.t.Helper()
	p.enter(p.far)
	defer p.enter(p.near)
	f()
}

// inspect opens an Inspector that counts this process's own sockets.
func inspect(t *testing.T, o Options) *Inspector {
	t.Helper()
	if o.ExcludePIDs == nil {
		o.ExcludePIDs = []int{}
	}
	ins, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { ins.Close() })
	return ins
}

func busy(t *testing.T, ins *Inspector) []Socket {
	t.Helper()
	ins.owners.took = 0 // however slow the machine, owners are looked for
	found, err := ins.Busy(context.Background())
	if err != nil {
		t.Fatalf("Busy: %v", err)
	}
	return found
}

// until looks until the condition holds: the kernel moves packets when it pleases, and tells nobody.
func until(t *testing.T, ins *Inspector, what string, is func([]Socket) bool) []Socket {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		found := busy(t, ins)
		if is(found) {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s; left:\n%s", what, list(found))
		}
		time.Sleep(time.Millisecond)
	}
}

func untilIdle(t *testing.T, ins *Inspector) {
	t.Helper()
	until(t, ins, "idle", func(s []Socket) bool { return len(s) == 0 })
}

// untilOne waits for a row of that protocol, state and reason, and returns it.
func untilOne(t *testing.T, ins *Inspector, protocol, state, reason string) Socket {
	t.Helper()
	var out Socket
	until(t, ins, fmt.Sprintf("%s %s %q", protocol, state, reason), func(found []Socket) bool {
		for _, s := range found {
			if s.Protocol == protocol && s.State == state && s.Reason == reason {
				out = s
				return true
			}
		}
		return false
	})
	return out
}

func list(found []Socket) string {
	var b strings.Builder
	for _, s := range found {
		fmt.Fprintln(&b, " ", s)
	}
	return b.String()
}

// sock is one raw socket, so that a test decides what is read, accepted and closed, and when.
type sock struct {
	t  *testing.T
	fd int
}

func newSock(t *testing.T, family, kind, proto int) *sock {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	return own(t, fd)
}

func own(t *testing.T, fd int) *sock {
	s := &sock{t, fd}
	t.Cleanup(s.close)
	return s
}

func (s *sock) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	s.fd = -1
}

func (s *sock) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func toSockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// bindTo binds and returns the address it got.
func (s *sock) bindTo(addr string) netip.AddrPort {
	s.t.Helper()
	a := netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
	s.must(unix.Bind(s.fd, toSockaddr(a)))
	return s.name()
}

func (s *sock) name() netip.AddrPort {
	s.t.Helper()
	sa, err := unix.Getsockname(s.fd)
	s.must(err)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	s.t.Fatalf("no address: %T", sa)
	return netip.AddrPort{}
}

func (s *sock) write(b string) { s.t.Helper(); _, err := unix.Write(s.fd, []byte(b)); s.must(err) }

func (s *sock) readAll(n int) {
	s.t.Helper()
	buf := make([]byte, n)
	for n > 0 {
		got, err := unix.Read(s.fd, buf[:n])
		s.must(err)
		if got == 0 {
			s.t.Fatalf("end with %d bytes to come", n)
		}
		n -= got
	}
}

func (s *sock) accept() *sock {
	s.t.Helper()
	fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
	s.must(err)
	return own(s.t, fd)
}

// deaf makes the socket drop arriving packets of at least that many bytes (TCP header included): a classic BPF filter,
// which TCP runs before it looks at the packet. deaf(0) drops everything.
func (s *sock) deaf(from uint32) {
	s.t.Helper()
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 1, K: from},
		{Code: unix.BPF_RET, K: 0},
		{Code: unix.BPF_RET, K: 0xffffffff},
	}
	s.must(unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}

func (s *sock) hear() {
	s.t.Helper()
	s.must(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

// tcpPair is a listening socket and one connection through it.
func tcpPair(t *testing.T, addr string) (listener, client, server *sock) {
	t.Helper()
	listener = tcpListener(t, addr)
	client = tcpSock(t, addr)
	client.must(unix.Connect(client.fd, toSockaddr(listener.name())))
	return listener, client, listener.accept()
}

func tcpSock(t *testing.T, addr string) *sock {
	t.Helper()
	family := unix.AF_INET
	if !netip.MustParseAddr(addr).Is4() {
		family = unix.AF_INET6
	}
	return newSock(t, family, unix.SOCK_STREAM, 0)
}

func tcpListener(t *testing.T, addr string) *sock {
	t.Helper()
	s := tcpSock(t, addr)
	s.bindTo(addr)
	s.must(unix.Listen(s.fd, 16))
	return s
}
