//go:build root

package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outside are the two hosts of newPeer: near (here), far.
var outside = map[string][2]string{
	"v4": {"10.9.0.1", "10.9.0.2"}, "v6": {"fd09::1", "fd09::2"}, "mapped": {"::ffff:10.9.0.1", "::ffff:10.9.0.2"},
}

func eachOutside(t *testing.T, f func(t *testing.T, p *peerNs, near, far string)) {
	for name, addrs := range outside {
		t.Run(name, func(t *testing.T) { f(t, newPeer(t), addrs[0], addrs[1]) })
	}
}

func inherited(t *testing.T, ins *Inspector) []Socket {
	t.Helper()
	found, err := ins.Inherited(context.Background())
	if err != nil {
		t.Fatalf("Inherited: %v", err)
	}
	return found
}

// capture listens on the far side for TCP packets of the near one.
func capture(t *testing.T, p *peerNs) *sock {
	t.Helper()
	var s *sock
	p.there(func() { s = newSock(t, unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0x0300) })
	return s
}

// resets counts the RSTs captured so far.
func (s *sock) resets() (n int) {
	s.t.Helper()
	buf := make([]byte, 4096)
	for {
		got, from, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		s.must(err)
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if flags, ok := tcpFlags(buf[:got]); ok && flags&4 != 0 {
			n++
		}
	}
}

func tcpFlags(ip []byte) (byte, bool) {
	switch {
	case len(ip) >= 40 && ip[0]>>4 == 4 && ip[9] == unix.IPPROTO_TCP:
		at := int(ip[0]&15) * 4
		return ip[at+13], true
	case len(ip) >= 60 && ip[0]>>4 == 6 && ip[6] == unix.IPPROTO_TCP:
		return ip[40+13], true
	}
	return 0, false
}

func TestDestroyTCP(t *testing.T) {
	eachOutside(t, func(t *testing.T, p *peerNs, near, far string) {
		ins := inspect(t, Options{})
		var listener, client *sock
		p.there(func() { listener, client = tcpListener(t, far), tcpSock(t, near) })
		server := tcpListener(t, near)
		out := tcpSock(t, far)
		out.must(unix.Connect(out.fd, toSockaddr(listener.name())))     // one that we made
		client.must(unix.Connect(client.fd, toSockaddr(server.name()))) // one that we accepted
		in := server.accept()
		_, loopClient, loopServer := tcpPair(t, "127.0.0.1") // not to be touched
		_, selfClient, selfServer := tcpPair(t, near)        // nor this

		found := inherited(t, ins)
		if len(found) != 2 {
			t.Fatalf("inherited:\n%s", list(found))
		}
		eye := capture(t, p)
		left, err := ins.Destroy(context.Background(), found)
		if err != nil || len(left) != 0 {
			t.Fatalf("Destroy: %v, left:\n%s", err, list(left))
		}
		if again := inherited(t, ins); len(again) != 0 {
			t.Errorf("still there:\n%s", list(again))
		}
		for name, s := range map[string]*sock{"out": out, "in": in} {
			if _, err := unix.Read(s.fd, make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) && !withheld(ins, "tcp") {
				t.Errorf("%s: read: %v", name, err)
			}
		}
		if n := eye.resets(); n != 2 {
			t.Errorf("%d resets left the machine, want 2: the caller shuts the gate for that", n)
		}
		loopClient.write("x")
		loopServer.readAll(1)
		selfClient.write("x")
		selfServer.readAll(1)
	})
}

func TestDestroyLeavesNewerConnection(t *testing.T) {
	p := newPeer(t)
	ins := inspect(t, Options{})
	var listener *sock
	p.there(func() { listener = tcpListener(t, "10.9.0.2") })
	c := tcpSock(t, "10.9.0.1")
	c.must(unix.Connect(c.fd, toSockaddr(listener.name())))
	found := inherited(t, ins)
	if len(found) != 1 {
		t.Fatalf("inherited:\n%s", list(found))
	}
	stale := found[0]
	binary.NativeEndian.PutUint32(stale.id[40:], uint32(stale.Cookie)+1) // another socket's name
	stale.Cookie++
	if left, err := ins.Destroy(context.Background(), []Socket{stale}); err != nil || len(left) != 0 {
		t.Errorf("Destroy: %v, left:\n%s", err, list(left))
	}
	if len(inherited(t, ins)) != 1 {
		t.Error("a connection of another cookie was destroyed")
	}
}

func TestDestroyUDP(t *testing.T) {
	eachOutside(t, func(t *testing.T, p *peerNs, near, far string) {
		ins := inspect(t, Options{})
		family := unix.AF_INET6
		if netip.MustParseAddr(near).Is4() {
			family = unix.AF_INET
		}
		for _, proto := range []int{unix.IPPROTO_UDP} {
			u := newSock(t, family, unix.SOCK_DGRAM, proto)
			u.must(unix.Connect(u.fd, toSockaddr(netip.AddrPortFrom(netip.MustParseAddr(far), 4433))))
			loop := newSock(t, family, unix.SOCK_DGRAM, proto)
			loop.must(unix.Connect(loop.fd, toSockaddr(netip.AddrPortFrom(netip.MustParseAddr(near), 4433))))
			found := inherited(t, ins)
			if len(found) != 1 || found[0].Remote != netip.AddrPortFrom(netip.MustParseAddr(far), 4433).String() {
				t.Fatalf("inherited:\n%s", list(found))
			}
			left, err := ins.Destroy(context.Background(), found)
			if err != nil || len(left) != 0 || len(inherited(t, ins)) != 0 {
				t.Fatalf("Destroy: %v, left:\n%s", err, list(left))
			}
			if _, err := unix.Write(u.fd, []byte("x")); err == nil {
				t.Error("a destroyed socket can still send")
			}
			if _, err := unix.Getpeername(loop.fd); err != nil {
				t.Errorf("the local one was disconnected: %v", err)
			}
		}
	})
}

// TestDestroyEveryState: half-open both ways, orphans and TIME_WAIT.
func TestDestroyEveryState(t *testing.T) {
	eachOutside(t, func(t *testing.T, p *peerNs, near, far string) {
		ins := inspect(t, Options{})
		if withheld(ins, "tcp") {
			t.Skip("kernel without the tcp_diag module (CONFIG_INET_TCP_DIAG): what no process has open cannot be destroyed")
		}
		server := tcpListener(t, near)
		var stuck, closing, halfClosed, listener *sock
		p.there(func() {
			stuck, closing, halfClosed, listener = tcpSock(t, near), tcpSock(t, near), tcpSock(t, near), tcpListener(t, far)
		})
		stuck.must(unix.SetNonblock(stuck.fd, true))
		stuck.deaf(0)
		_ = unix.Connect(stuck.fd, toSockaddr(server.name())) // SYN_RECV here
		for _, c := range []*sock{closing, halfClosed} {
			c.must(unix.Connect(c.fd, toSockaddr(server.name())))
		}
		one, two := server.accept(), server.accept()
		closing.deaf(0)
		one.write("unsent")
		one.close() // FIN_WAIT1, orphan
		halfClosed.must(unix.Shutdown(halfClosed.fd, unix.SHUT_WR))
		two.readEnd()
		halfClosed.deaf(0)
		two.close() // LAST_ACK
		out := tcpSock(t, far)
		out.must(unix.SetNonblock(out.fd, true))
		out.deaf(0)
		_ = unix.Connect(out.fd, toSockaddr(listener.name())) // SYN_SENT
		first := tcpSock(t, far)
		first.must(unix.Connect(first.fd, toSockaddr(listener.name())))
		first.must(unix.Shutdown(first.fd, unix.SHUT_WR))
		p.there(func() { listener.accept().close() })
		want := map[string]int{"SYN_RECV": 1, "FIN_WAIT1": 1, "LAST_ACK": 1, "SYN_SENT": 1, "TIME_WAIT": 1}
		until(t, ins, "in every state", func([]Socket) bool {
			have := map[string]int{}
			for _, s := range inherited(t, ins) {
				have[s.State]++
			}
			for state, n := range want {
				if have[state] != n {
					return false
				}
			}
			return true
		})
		eye := capture(t, p)
		left, err := ins.Destroy(context.Background(), inherited(t, ins))
		if err != nil || len(left) != 0 {
			t.Fatalf("Destroy: %v, left:\n%s", err, list(left))
		}
		for _, s := range inherited(t, ins) {
			if s.State != "TIME_WAIT" {
				t.Errorf("still there: %v", s)
			}
		}
		t.Logf("%d resets left the machine", eye.resets())
	})
}

// TestInheritedAfterIdentityChange: an own address that was given up is a stranger's.
func TestInheritedAfterIdentityChange(t *testing.T) {
	newPeer(t)
	ins := inspect(t, Options{})
	_, client, _ := tcpPair(t, "10.9.0.1")
	if found := inherited(t, ins); len(found) != 0 {
		t.Fatalf("inherited:\n%s", list(found))
	}
	link, err := netlink.LinkByName("near")
	client.must(err)
	addr, err := netlink.ParseAddr("10.9.0.1/24")
	client.must(err)
	client.must(netlink.AddrDel(link, addr))
	if found := inherited(t, ins); len(found) != 2 {
		t.Errorf("want both ends:\n%s", list(found))
	}
}

func TestDestroyOtherKinds(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	in := []Socket{{Protocol: "unix", Cookie: 1, Inode: 2}, {Protocol: "tcp", Local: "made up"}}
	left, err := ins.Destroy(context.Background(), in)
	if err != nil || len(left) != 2 || left[0].Reason == "" {
		t.Errorf("%v, left:\n%s", err, list(left))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ins.Busy(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled look: %v", err)
	}
}
