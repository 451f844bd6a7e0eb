package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// inetTest is a socket as a look finds it.
func inetTest(proto uint16, local, remote string) *Socket {
	l, r := netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
	s := &Socket{proto: proto, family: afInet}
	if l.Addr().Is6() {
		s.family = afInet6
	}
	copy(s.id[4:20], l.Addr().AsSlice())
	copy(s.id[20:36], r.Addr().AsSlice())
	binary.BigEndian.PutUint16(s.id[0:], l.Port())
	binary.BigEndian.PutUint16(s.id[2:], r.Port())
	return s
}

func TestAllowed(t *testing.T) {
	own := func(a netip.Addr, name string) bool { return name == "mgmt0" && a == netip.MustParseAddr("10.9.0.1") }
	prefix := netip.MustParsePrefix
	conn := inetTest(protoTCP, "10.9.0.1:22", "10.9.0.2:5000")
	listener := inetTest(protoTCP, "0.0.0.0:22", "0.0.0.0:0")
	mapped := inetTest(protoTCP, "[::ffff:10.9.0.1]:22", "[::ffff:10.9.0.2]:5000")
	udp := inetTest(protoUDP, "[fd09::1]:53", "[fd09::2]:5000")
	elsewhere := inetTest(protoTCP, "10.9.0.1:22", "10.9.0.2:5000")
	elsewhere.Netns = 5
	for name, c := range map[string]struct {
		a    Allowed
		s    *Socket
		want bool
	}{
		"port":                          {Allowed{Port: 22}, conn, true},
		"port of a listening socket":    {Allowed{Port: 22}, listener, true},
		"other port":                    {Allowed{Port: 5000}, conn, false},
		"port and protocol":             {Allowed{Protocol: "tcp", Port: 22}, conn, true},
		"port and other protocol":       {Allowed{Protocol: "udp", Port: 22}, conn, false},
		"prefix":                        {Allowed{Prefix: prefix("10.9.0.0/24")}, conn, true},
		"mapped peer":                   {Allowed{Prefix: prefix("10.9.0.0/24")}, mapped, true},
		"mapped prefix":                 {Allowed{Prefix: prefix("::ffff:10.9.0.0/120")}, conn, true},
		"other prefix":                  {Allowed{Prefix: prefix("10.8.0.0/24")}, conn, false},
		"other family":                  {Allowed{Prefix: prefix("fd09::/64")}, conn, false},
		"no peer, prefix":               {Allowed{Prefix: prefix("0.0.0.0/0")}, listener, false},
		"IPv6":                          {Allowed{Prefix: prefix("fd09::/64"), Port: 53}, udp, true},
		"interface":                     {Allowed{Interface: "mgmt0"}, conn, true},
		"mapped address of interface":   {Allowed{Interface: "mgmt0"}, mapped, true},
		"other interface":               {Allowed{Interface: "eth0"}, conn, false},
		"interface of another netns":    {Allowed{Interface: "mgmt0"}, elsewhere, false},
		"port in another netns":         {Allowed{Port: 22}, elsewhere, true},
		"raw socket":                    {Allowed{Port: 22}, inetTest(protoRaw, "10.9.0.1:22", "10.9.0.2:0"), false},
		"ping":                          {Allowed{Protocol: "icmp"}, inetTest(protoICMP, "10.9.0.1:7", "10.9.0.2:0"), true},
		"ping of IPv6":                  {Allowed{Protocol: "icmpv6"}, inetTest(protoICMP, "[fd09::1]:7", "[fd09::2]:0"), true},
		"ping of the other IP":          {Allowed{Protocol: "icmp"}, inetTest(protoICMP, "[fd09::1]:7", "[fd09::2]:0"), false},
		"unix":                          {Allowed{Prefix: prefix("0.0.0.0/0")}, &Socket{family: afUnix}, false},
		"its queue":                     {Allowed{Interface: "mgmt0"}, &Socket{Interface: "mgmt0"}, true},
		"its queue holds others":        {Allowed{Interface: "mgmt0", Port: 22}, &Socket{Interface: "mgmt0"}, false},
		"queue of another":              {Allowed{Interface: "mgmt0"}, &Socket{Interface: "eth0"}, false},
		"found by its descriptor alone": {Allowed{Port: 22}, &Socket{Protocol: "tcp", Local: "10.9.0.1:22"}, false},
	} {
		if got := c.a.covers(c.s, own); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestSummarize(t *testing.T) {
	sums := Summarize([]Socket{{PID: 1, Unread: 3}, {PID: 2, Queued: 1}, {PID: 1, Unread: 4, Unsent: 5}},
		func(s *Socket) string { return map[int]string{1: "web", 2: "db"}[s.PID] })
	if len(sums) != 2 || sums[0] != (Summary{"web", 2, 7, 5, 0}) || sums[1] != (Summary{"db", 1, 0, 0, 1}) {
		t.Errorf("%+v", sums)
	}
}
