//go:build root

package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Management traffic works through a shut gate, from address resolution to the
// last byte, and nothing else does.
func TestAllowListWorksWhileShut(t *testing.T) {
	for _, c := range []struct {
		name    string
		allow   Allow
		address string // what the peer connects to
		port    uint16
		free    bool
	}{
		{"port", Allow{Protocol: "tcp", Port: 2222}, "10.1.0.1", 2222, true},
		{"port over IPv6", Allow{Protocol: "tcp", Port: 2222}, "fd00:1::1", 2222, true},
		{"other port", Allow{Protocol: "tcp", Port: 2222}, "10.1.0.1", 2223, false},
		{"other protocol", Allow{Protocol: "udp", Port: 2222}, "10.1.0.1", 2222, false},
		{"prefix", Allow{Prefix: netip.MustParsePrefix("10.1.0.0/28")}, "10.1.0.1", 2222, true},
		{"prefix of one", Allow{Prefix: netip.MustParsePrefix("10.1.0.2/32"), Port: 2222}, "10.1.0.1", 2222, true},
		{"IPv6 prefix", Allow{Prefix: netip.MustParsePrefix("fd00:1::/33")}, "fd00:1::1", 2222, true},
		{"IPv6 prefix and port", Allow{Prefix: netip.MustParsePrefix("fd00:1::2/128"), Protocol: "tcp", Port: 2222}, "fd00:1::1", 2222, true},
		{"other prefix", Allow{Prefix: netip.MustParsePrefix("10.1.0.128/25")}, "10.1.0.1", 2222, false},
		{"other family", Allow{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, "fd00:1::1", 2222, false},
		{"interface", Allow{Interface: "to-b"}, "10.1.0.1", 2222, true},
		{"other interface", Allow{Interface: "to-c"}, "10.1.0.1", 2222, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachMechanism(t, func(t *testing.T, name string) {
				a, b, g := pair(t, Options{Mechanism: name, Allow: []Allow{c.allow}})
				l := a.listen(t, net.JoinHostPort(c.address, fmt.Sprint(c.port)))
				if !c.free { // who is allowed in finds the neighbour itself
					connected(t, b, l)
				}
				set(t, g, Shut)
				got := b.reaches(l.Addr().String(), c.free)
				if got != c.free {
					t.Errorf("reached: %t, want %t", got, c.free)
				}
			})
		})
	}
}

// reaches waits for a connection as long as it takes if one is expected, else
// for as long as one takes that succeeds at once.
func (h *host) reaches(address string, expected bool) bool {
	wait := 100 * time.Millisecond
	if expected {
		wait = patience
	}
	err := h.run(func() error {
		c, err := net.DialTimeout("tcp", address, wait)
		if err == nil {
			c.Close()
		}
		return err
	})
	return err == nil
}

// What a hold takes for a new UDP flow: to the cgroup rung, what comes in to a
// socket that is connected to nobody.
func TestCgroupHoldKnowsConnectedUDP(t *testing.T) {
	a, b, g := pair(t, Options{Mechanism: "cgroup"})
	server := a.udp(t, "10.1.0.1:7000", "")
	peer := b.udp(t, "10.1.0.2:7001", "")
	client := a.udp(t, "10.1.0.1:7002", "10.1.0.2:7001")
	set(t, g, Hold)
	sendTo(t, peer, "10.1.0.1:7000", "new flow")
	sendTo(t, peer, "10.1.0.1:7002", "reply")
	receive(t, client, "reply")
	sendTo(t, server, "10.1.0.2:7001", "reply of a server")
	receive(t, peer, "reply of a server")
	set(t, g, Open)
	sendTo(t, peer, "10.1.0.1:7000", "after")
	receive(t, server, "after")
}

// Where conntrack runs already, nftables refuses the flows that it does not
// know, in both directions, and lets the others go on.
func TestNftHoldKnowsTrackedUDP(t *testing.T) {
	need(t, "nft")
	a, b, g := pair(t, Options{Mechanism: "nftables"})
	a.sh(t, "nft 'table inet other { chain c { type filter hook input priority 0; policy accept; ct state established accept; }; }'")
	server, peer, late := a.udp(t, "10.1.0.1:7000", ""), b.udp(t, "10.1.0.2:7001", ""), b.udp(t, "10.1.0.2:7003", "")
	sendTo(t, peer, "10.1.0.1:7000", "before")
	receive(t, server, "before")
	sendTo(t, server, "10.1.0.2:7001", "answer")
	receive(t, peer, "answer")
	set(t, g, Hold)
	sendTo(t, late, "10.1.0.1:7000", "new flow in")
	_ = a.run(func() error { return send(server, "10.1.0.2:7003", "new flow out") })
	sendTo(t, peer, "10.1.0.1:7000", "known")
	receive(t, server, "known")
	sendTo(t, server, "10.1.0.2:7001", "known too")
	receive(t, peer, "known too")
	set(t, g, Open)
	sendTo(t, server, "10.1.0.2:7003", "after")
	receive(t, late, "after")
}

func (h *host) udp(t *testing.T, local, remote string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.must(t, func() (err error) {
		from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
		if remote == "" {
			c, err = net.ListenUDP("udp", from)
			return err
		}
		c, err = net.DialUDP("udp", from, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func send(c *net.UDPConn, to, text string) error {
	_, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to))
	return err
}

func sendTo(t *testing.T, c *net.UDPConn, to, text string) {
	t.Helper()
	if err := send(c, to, text); err != nil {
		t.Fatal(err)
	}
}

// receive wants this datagram and none before it.
func receive(t *testing.T, c *net.UDPConn, want string) {
	t.Helper()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("received %q, %v; want %q", b[:n], err, want)
	}
}

// Forwarded traffic, a container's behind a veth say, is held and shut too.
func TestForwardedTrafficIsGated(t *testing.T) {
	for _, name := range []string{"nftables", "nftables+tc", "tc", "fib"} {
		t.Run(name, func(t *testing.T) {
			hosts := newHosts(t, 3)
			container, guest, outside := hosts[0], hosts[1], hosts[2]
			wire(t, container, guest, 1)
			wire(t, guest, outside, 2)
			guest.sh(t, "sysctl -qw net.ipv4.ip_forward=1 || echo 1 > /proc/sys/net/ipv4/ip_forward")
			container.sh(t, "ip route add default via 10.1.0.2")
			outside.sh(t, "ip route add default via 10.2.0.1")
			g := guest.gate(t, Options{Mechanism: name})
			client, server := connected(t, container, outside.listen(t, "10.2.0.2:0"))
			if name != "fib" {
				set(t, g, Hold)
				exchange(t, client, server, "while held")
			}
			set(t, g, Shut)
			tap := outside.tap(t, "to-b")
			write(t, client, "must wait")
			await(t, "a retransmission", func() bool { return tcpInfo(t, client).Total_retrans > 0 })
			for _, f := range tap.drain(t) {
				if f[23] == unix.IPPROTO_TCP && f[12] == 8 && f[13] == 0 {
					t.Errorf("forwarded while shut: %x", f)
				}
			}
			set(t, g, Open)
			read(t, server, "must wait")
		})
	}
}

// What passes between the ports of a bridge never meets the guest's own IP.
func TestBridgedTrafficIsGated(t *testing.T) {
	for _, name := range []string{"nftables", "nftables+tc", "tc"} {
		t.Run(name, func(t *testing.T) {
			hosts := newHosts(t, 3)
			left, guest, right := hosts[0], hosts[1], hosts[2]
			wire(t, left, guest, 1)
			wire(t, guest, right, 2)
			guest.sh(t, "ip addr flush dev to-a; ip addr flush dev to-c; ip link add br0 type bridge; ip link set to-a master br0; ip link set to-c master br0; ip link set br0 up")
			right.sh(t, "ip addr add 10.1.0.9/24 dev to-b")
			g := guest.gate(t, Options{Mechanism: name})
			if !g.Coverage().Bridged {
				t.Skipf("%s does not see bridged frames here (CONFIG_NF_TABLES_BRIDGE)", name)
			}
			client, server := connected(t, left, right.listen(t, "10.1.0.9:0"))
			set(t, g, Shut)
			tap := right.tap(t, "to-b")
			write(t, client, "must wait")
			await(t, "a retransmission", func() bool { return tcpInfo(t, client).Total_retrans > 0 })
			for _, f := range tap.drain(t) {
				if f[12] == 8 && f[13] == 0 && f[23] == unix.IPPROTO_TCP {
					t.Errorf("bridged while shut: %x", f)
				}
			}
			set(t, g, Open)
			read(t, server, "must wait")
			exchange(t, client, server, "after")
		})
	}
}

// A packet socket goes around the IP stack; tc stands in its way.
func TestPacketSocketsAreGated(t *testing.T) {
	for _, name := range []string{"nftables+tc", "tc", "cgroup+tc", ""} {
		t.Run(name, func(t *testing.T) {
			hosts := newHosts(t, 2)
			a, b := hosts[0], hosts[1]
			wire(t, a, b, 1)
			o := Options{Mechanism: name}
			if name == "cgroup+tc" {
				a.joinCgroup(t)
				o.cgroup = a.cgroup
			}
			g := a.gate(t, o)
			if missing := g.Coverage().Missing(); missing != nil {
				t.Errorf("%s misses %q", g.Mechanism(), missing)
			}
			outside := b.tap(t, "to-a")
			set(t, g, Shut)
			outside.drain(t)
			a.must(t, func() error { return sendFrame("to-b") })
			for _, f := range outside.drain(t) {
				t.Errorf("left while shut: %x", f)
			}
			set(t, g, Open)
			a.must(t, func() error { return sendFrame("to-b") })
			if len(outside.drain(t)) == 0 {
				t.Error("nothing left after opening either")
			}
		})
	}
}

// sendFrame sends a broadcast of an experimental ether type.
func sendFrame(link string) error {
	ifi, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := make([]byte, 60)
	for i := range 6 {
		frame[i] = 0xff
	}
	copy(frame[6:], ifi.HardwareAddr)
	frame[12], frame[13] = 0x88, 0xb5
	err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	if errors.Is(err, unix.ENOBUFS) { // dropped, in silence but for us
		return nil
	}
	return err
}
