//go:build root

package sockdiag

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rouse/internal/rcu"
)

var loopbacks = map[string]string{"v4": "127.0.0.1", "v6": "::1", "mapped": "::ffff:127.0.0.1"}

// eachLoopback runs a test once for each kind of address and each way to look, in a namespace of its own.
func eachLoopback(t *testing.T, f func(t *testing.T, ins *Inspector, addr string)) {
	for name, addr := range loopbacks {
		for way, o := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel() // they wait for retransmissions
				enterNetns(t)
				ins := inspect(t, o)
				untilIdle(t, ins)
				f(t, ins, addr)
				untilIdle(t, ins)
			})
		}
	}
}

var ways = map[string]Options{"diag": {}, "without": {Withhold: []string{"all"}}}

// withheld tells whether the Inspector must do without that protocol's diag.
func withheld(ins *Inspector, protocol string) bool {
	return !slices.Contains(ins.Sources(), protocol+": "+byDiag)
}

func TestTCPAcceptQueue(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		l := tcpListener(t, addr)
		c := tcpSock(t, addr)
		c.must(unix.Connect(c.fd, toSockaddr(l.name())))
		s := untilOne(t, ins, "tcp", "LISTEN", whyAccept)
		if s.Queued != 1 || s.PID != os.Getpid() || s.Comm == "" || s.Remote != "" {
			t.Errorf("listening socket: %+v", s)
		}
		l.accept()
	})
}

func TestTCPUnread(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		_, client, server := tcpPair(t, addr)
		untilIdle(t, ins) // an idle connection holds nothing
		client.write("hello")
		s := untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
		if s.Unread != 5 || s.Local != server.name().String() || s.Remote != client.name().String() || s.PID != os.Getpid() {
			t.Errorf("server: %+v", s)
		}
		server.readAll(5)
	})
}

func TestTCPSlowReader(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		_, client, server := tcpPair(t, addr)
		client.must(unix.SetNonblock(client.fd, true))
		chunk, sent := strings.Repeat("x", 65536), 0
		for {
			n, err := unix.Write(client.fd, []byte(chunk))
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			client.must(err)
			sent += n
		}
		if s := untilOne(t, ins, "tcp", "ESTABLISHED", whyUnsent); s.Local != client.name().String() || s.Unsent == 0 {
			t.Errorf("writer: %+v", s)
		}
		untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
		server.readAll(sent)
	})
}

func TestTCPHandshake(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		l := tcpListener(t, addr)
		c := tcpSock(t, addr)
		c.must(unix.SetNonblock(c.fd, true))
		c.deaf(0) // hears no SYN-ACK
		if err := unix.Connect(c.fd, toSockaddr(l.name())); !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
		if s := untilOne(t, ins, "tcp", "SYN_RECV", whyHalfOpen); s.Remote != c.name().String() || (s.Cookie == 0) != withheld(ins, "tcp") {
			t.Errorf("request socket: %+v", s)
		}
		untilOne(t, ins, "tcp", "SYN_SENT", whyConnect)
		lenient := inspect(t, Options{IgnoreConnecting: true})
		if found := only(busy(t, lenient), func(s Socket) bool { return s.State != "SYN_RECV" }); len(found) != 0 {
			t.Errorf("not ignored:\n%s", list(found))
		}
		c.hear()
		l.accept()
	})
}

func TestTCPClosing(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		_, a, b := tcpPair(t, addr)
		b.deaf(0)
		a.must(unix.Shutdown(a.fd, unix.SHUT_WR))
		if s := untilOne(t, ins, "tcp", "FIN_WAIT1", whyClosing); s.Unsent != 0 {
			t.Errorf("a lone FIN counted as data: %+v", s)
		}
		a.deaf(0)
		b.must(unix.Shutdown(b.fd, unix.SHUT_WR))
		until(t, ins, "two in FIN_WAIT1", func(f []Socket) bool {
			return len(f) == 2 && f[0].State == "FIN_WAIT1" && f[1].State == "FIN_WAIT1"
		})
		a.hear()
		if s := untilOne(t, ins, "tcp", "CLOSING", whyClosing); s.Local != a.name().String() || s.Unread != 0 {
			t.Errorf("closing: %+v", s)
		}
		b.hear()
	})
}

func TestTCPCloseWaitAndLastAck(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		_, a, b := tcpPair(t, addr)
		a.must(unix.Shutdown(a.fd, unix.SHUT_WR))
		untilIdle(t, ins) // CLOSE_WAIT with an unread end, and FIN_WAIT2: nothing in them
		a.deaf(0)
		b.write("bye")
		if s := untilOne(t, ins, "tcp", "CLOSE_WAIT", whyUnsent); s.Unsent != 3 || s.Unread != 0 {
			t.Errorf("close wait: %+v", s)
		}
		b.readEnd()
		b.close()
		if s := untilOne(t, ins, "tcp", "LAST_ACK", whyClosing); s.Unsent != 3 || s.Inode != 0 || s.PID != 0 {
			t.Errorf("last ack: %+v", s)
		}
		a.hear()
		a.readAll(3)
	})
}

func (s *sock) readEnd() {
	s.t.Helper()
	var b [1]byte
	if n, err := unix.Read(s.fd, b[:]); n != 0 || err != nil {
		s.t.Fatalf("read at the end: %d, %v", n, err)
	}
}

func TestTCPOutOfOrder(t *testing.T) {
	eachLoopback(t, func(t *testing.T, ins *Inspector, addr string) {
		_, client, server := tcpPair(t, addr)
		client.must(unix.SetsockoptInt(client.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
		server.deaf(500)
		client.write(strings.Repeat("x", 1000)) // lost
		client.write("y")                       // kept, behind the gap
		if withheld(ins, "tcp") {               // /proc/net/tcp does not show it
			client.deaf(0)
			untilOne(t, ins, "tcp", "ESTABLISHED", whyUnsent)
			client.hear()
		} else if s := untilOne(t, ins, "tcp", "ESTABLISHED", whyGap); s.Local != server.name().String() || s.Unread == 0 {
			t.Errorf("behind a gap: %+v", s)
		}
		server.hear()
		server.readAll(1001)
	})
}

func TestUDP(t *testing.T) {
	for name, addr := range loopbacks {
		for _, proto := range []struct {
			name   string
			number int
		}{{"udp", unix.IPPROTO_UDP}, {"udplite", unix.IPPROTO_UDPLITE}} {
			eachWay(t, name+"/"+proto.name, func(t *testing.T, ins *Inspector) {
				family := unix.AF_INET
				if name != "v4" {
					family = unix.AF_INET6
				}
				a, b := newSock(t, family, unix.SOCK_DGRAM, proto.number), newSock(t, family, unix.SOCK_DGRAM, proto.number)
				at := a.bindTo(addr)
				b.must(unix.Connect(b.fd, toSockaddr(at)))
				untilIdle(t, ins)
				b.write("") // holds memory though it has no byte
				if s := untilOne(t, ins, proto.name, "CLOSE", whyUnread); s.Local != at.String() || s.PID != os.Getpid() {
					t.Errorf("receiver: %+v", s)
				}
				_, err := unix.Read(a.fd, make([]byte, 1))
				a.must(err)
				untilIdle(t, ins)
			})
		}
	}
}

// TestMPTCP: the bytes wait in the connection, not in the TCP subflow that brought them.
func TestMPTCP(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protoMPTCP)
	if err != nil {
		t.Skipf("kernel without CONFIG_MPTCP: %v", err)
	}
	if withheld(ins, "mptcp") {
		t.Skip("kernel without the mptcp_diag module (CONFIG_INET_MPTCP_DIAG)")
	}
	exchangeMPTCP(t, ins, own(t, l))
}

func exchangeMPTCP(t *testing.T, ins *Inspector, listener *sock) {
	t.Helper()
	client := newSock(t, unix.AF_INET, unix.SOCK_STREAM, protoMPTCP)
	at := listener.bindTo("127.0.0.1")
	listener.must(unix.Listen(listener.fd, 1))
	client.must(unix.Connect(client.fd, toSockaddr(at)))
	server := listener.accept()
	untilIdle(t, ins)
	client.write("hello")
	s := untilOne(t, ins, "mptcp", "ESTABLISHED", whyUnread)
	if s.Local != at.String() || s.PID != os.Getpid() {
		t.Errorf("%+v", s)
	}
	server.readAll(5)
	untilIdle(t, ins)
}

// eachWay runs a test with diag and without.
func eachWay(t *testing.T, name string, f func(t *testing.T, ins *Inspector)) {
	for way, o := range ways {
		t.Run(name+"/"+way, func(t *testing.T) {
			enterNetns(t)
			f(t, inspect(t, o))
		})
	}
}

// TestRawAndICMP: sockets that get a copy of every packet of their protocol.
func TestRawAndICMP(t *testing.T) {
	for _, c := range []struct {
		protocol             string
		family, kind, number int
		addr                 string
	}{
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP, "127.0.0.1"},
		{"raw", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_UDP, "::1"},
		{"icmp", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, "127.0.0.1"},
		{"icmp", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, "::1"},
	} {
		eachWay(t, c.protocol+c.addr, func(t *testing.T, ins *Inspector) {
			if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
				t.Skipf("ping sockets cannot be allowed: %v", err)
			}
			s := newSock(t, c.family, c.kind, c.number)
			untilIdle(t, ins)
			if c.protocol == "raw" {
				u := newSock(t, c.family, unix.SOCK_DGRAM, 0)
				at := u.bindTo(c.addr)
				u.must(unix.Connect(u.fd, toSockaddr(at)))
				u.write("x")
				u.readAll(1)
			} else {
				echo := map[int]byte{unix.AF_INET: 8, unix.AF_INET6: 128}[c.family]
				s.must(unix.Sendto(s.fd, []byte{echo, 0, 0, 0, 0, 0, 0, 1}, 0, toSockaddr(netip.AddrPortFrom(netip.MustParseAddr(c.addr), 0))))
			}
			row := untilOne(t, ins, c.protocol, "CLOSE", whyUnread)
			if row.PID != os.Getpid() || row.Unread == 0 {
				t.Errorf("%+v", row)
			}
			_, err := unix.Read(s.fd, make([]byte, 2048))
			s.must(err)
			untilIdle(t, ins)
		})
	}
}

func TestUnix(t *testing.T) {
	for name, kind := range map[string]int{"stream": unix.SOCK_STREAM, "dgram": unix.SOCK_DGRAM, "seqpacket": unix.SOCK_SEQPACKET} {
		eachWay(t, name, func(t *testing.T, ins *Inspector) {
			a, b := unixPair(t, kind)
			own := func(s Socket) bool { return s.PID == os.Getpid() }
			a.write("12345")
			found := only(busy(t, ins), own)
			if len(found) != 2 {
				t.Fatalf("want both ends:\n%s", list(found))
			}
			for _, s := range found {
				if s.Type != name || (s.Unread == 5) == (s.Reason == whyPeer) {
					t.Errorf("%+v", s)
				}
			}
			b.readAll(5)
			until(t, ins, "read", func(f []Socket) bool { return len(only(f, own)) == 0 })
		})
	}
}

func unixPair(t *testing.T, kind int) (a, b *sock) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return own(t, fds[0]), own(t, fds[1])
}

func only(found []Socket, is func(Socket) bool) []Socket {
	return slices.DeleteFunc(found, func(s Socket) bool { return !is(s) })
}

func TestUnixEmptyMessage(t *testing.T) {
	eachWay(t, "dgram", func(t *testing.T, ins *Inspector) {
		a, b := unixPair(t, unix.SOCK_DGRAM)
		untilIdle(t, ins)
		a.write("")
		if found := busy(t, ins); len(found) == 0 {
			t.Error("a message of no bytes is not seen")
		}
		_, err := unix.Read(b.fd, make([]byte, 1))
		b.must(err)
		untilIdle(t, ins)
	})
}

func TestUnixInFlight(t *testing.T) {
	eachWay(t, "stream", func(t *testing.T, ins *Inspector) {
		a, b := unixPair(t, unix.SOCK_STREAM)
		c, d := unixPair(t, unix.SOCK_STREAM)
		d.write("held by a descriptor on its way")
		a.must(unix.Sendmsg(a.fd, []byte("x"), unix.UnixRights(c.fd), nil, 0))
		c.close()
		flying := only(busy(t, ins), func(s Socket) bool { return s.InFlight > 0 })
		if len(flying) != 1 || flying[0].InFlight != 1 || flying[0].Unread != 1 {
			t.Errorf("in flight:\n%s", list(flying))
		}
		b.readAll(1) // without room for the descriptor: the kernel closes it, and what it held is gone
		untilIdle(t, ins)
	})
}

func TestUnixAcceptQueue(t *testing.T) {
	eachWay(t, "listen", func(t *testing.T, ins *Inspector) {
		l, c := newSock(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), newSock(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
		at := &unix.SockaddrUnix{Name: "@sockdiag"}
		l.must(unix.Bind(l.fd, at))
		l.must(unix.Listen(l.fd, 5))
		untilIdle(t, ins)
		c.must(unix.Connect(c.fd, at))
		s := untilOne(t, ins, "unix", "LISTEN", whyAccept)
		if s.Queued != 1 || s.Local != "@sockdiag" || s.PID != os.Getpid() {
			t.Errorf("%+v", s)
		}
		l.accept()
		untilIdle(t, ins)
	})
}

func TestPacket(t *testing.T) {
	eachWay(t, "raw", func(t *testing.T, ins *Inspector) {
		p := newSock(t, unix.AF_PACKET, unix.SOCK_RAW, 0x0300) // ETH_P_ALL
		u := newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		at := u.bindTo("127.0.0.1")
		u.must(unix.Connect(u.fd, toSockaddr(at)))
		u.write("x")
		u.readAll(1)
		s := untilOne(t, ins, "packet", "", whyUnread)
		if s.Unread == 0 || s.PID != os.Getpid() || s.Type != "raw" || s.Local != "ethertype 0x0003" {
			t.Errorf("%+v", s)
		}
		p.must(unix.SetNonblock(p.fd, true))
		until(t, ins, "idle", func(f []Socket) bool {
			_, err := unix.Read(p.fd, make([]byte, 2048))
			return errors.Is(err, unix.EAGAIN) && len(f) == 0
		})
	})
}

func TestNetlink(t *testing.T) {
	eachWay(t, "route", func(t *testing.T, ins *Inspector) {
		n := newSock(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		n.must(unix.Bind(n.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR}))
		untilIdle(t, ins)
		lo, err := netlink.LinkByName("lo")
		n.must(err)
		a, err := netlink.ParseAddr("127.9.9.9/32")
		n.must(err)
		n.must(netlink.AddrAdd(lo, a))
		s := untilOne(t, ins, "netlink", "", whyUnread)
		if s.PID != os.Getpid() || !strings.HasPrefix(s.Local, "protocol 0 port ") {
			t.Errorf("%+v", s)
		}
		_, err = unix.Read(n.fd, make([]byte, 4096))
		n.must(err)
		untilIdle(t, ins)
	})
}

func TestQdisc(t *testing.T) {
	newPeer(t)
	ins := inspect(t, Options{})
	near, err := netlink.LinkByName("near")
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.QdiscAttrs{LinkIndex: near.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	const rate, burst = 1000, 2000 // bytes a second, bytes
	slow := &netlink.Tbf{QdiscAttrs: attrs, Rate: rate, Limit: 1 << 20, Buffer: netlink.Xmittime(rate, burst)}
	if err := netlink.QdiscAdd(slow); err != nil {
		t.Fatalf("tbf: %v", err)
	}
	u := newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	for range 8 {
		_ = unix.Sendto(u.fd, make([]byte, 1000), 0, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 2}, Port: 9})
	}
	untilOne(t, ins, "udp", "CLOSE", whyQueued)
	s := untilOne(t, ins, "qdisc", "", whyDevice)
	if s.Interface != "near" || s.Type != "tbf" || s.Queued == 0 || s.Unsent < 1000 {
		t.Errorf("%+v", s)
	}
	if err := netlink.QdiscDel(slow); err != nil {
		t.Fatal(err)
	}
	untilIdle(t, ins)
}

func TestExcludedOwner(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{ExcludePIDs: []int{os.Getpid()}})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own(t, fds[0]).write("x")
	own(t, fds[1])
	if found := busy(t, ins); len(found) != 0 {
		t.Errorf("own sockets counted:\n%s", list(found))
	}
	ignoring := inspect(t, Options{Ignore: func(s *Socket) bool { return s.PID == os.Getpid() }})
	if found := busy(t, ignoring); len(found) != 0 {
		t.Errorf("ignored sockets counted:\n%s", list(found))
	}
}

func TestBarrier(t *testing.T) {
	enterNetns(t)
	if err := inspect(t, Options{}).Barrier(); err != nil {
		t.Error(err)
	}
	if err := membarrier(); err != nil {
		t.Error(err)
	}
}

// TestExpediteIsPutBack changes a setting of the machine, so it runs only in a guest (as VM tests run it) or where it is allowed.
func TestExpediteIsPutBack(t *testing.T) {
	const setting = "/sys/kernel/rcu_expedited"
	if os.Getenv("SOCKDIAG_OWN_MACHINE") == "" {
		t.Skip("changes a setting of the machine: only where SOCKDIAG_OWN_MACHINE says that it is the test's own")
	}
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Skip(err)
	}
	one, two := rcu.Expedite(), rcu.Expedite()
	one()
	if now, _ := os.ReadFile(setting); strings.TrimSpace(string(now)) != "1" {
		t.Errorf("under way: %q", now)
	}
	two()
	if after, _ := os.ReadFile(setting); string(after) != string(before) {
		t.Errorf("%q before, %q after", before, after)
	}
}
