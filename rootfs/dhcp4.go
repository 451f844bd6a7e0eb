package rootfs

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Lease is what a DHCP server or a router has lent.
type Lease struct {
	Address  netip.Prefix // the zero Prefix: only what else there is
	Gateway4 netip.Addr
	Routes   []Route // of option 121, the default route excepted, which is Gateway4
	DNS      []netip.Addr
	Search   []string
	Hostname string     // "" if none was given
	MTU      int        // bytes; 0 if none was given
	Server   netip.Addr // who lent it; for DHCPv4
	// Valid is for how long, counted from the request; from T1 on it is asked to be prolonged.
	Valid, T1 time.Duration
}

// forever is the lease without an end: 0xffffffff seconds on the wire (RFC 2131, section 3.3).
const forever = 0xffffffff * time.Second

// shortest is what a lease is taken to last at least: a server that lends for a second would have us do nothing else.
const shortest = time.Minute

// DHCP's message types (RFC 2132, section 9.6), options (the number's section of RFC 2132; 121: RFC 3442) and fixed sizes (RFC 2131, section 2).
const (
	dhcpDiscover, dhcpOffer, dhcpRequest, dhcpAck, dhcpNak = 1, 2, 3, 5, 6

	optMask, optRouter, optDNS, optHostname, optDomain, optMTU = 1, 3, 6, 12, 15, 26
	optRequested, optLease, optOverload, optKind, optServer    = 50, 51, 52, 53, 54
	optList, optSize, optT1, optClient, optRoutes              = 55, 57, 58, 61, 121
	optWanted                                                  = "\x01\x79\x03\x06\x0c\x0f\x1a\x33\x36\x3a" // those that parseDHCP reads
	optEnd                                                     = 255

	dhcpFixed  = 240 // up to the options, the magic cookie included
	dhcpCookie = 0x63825363
	dhcpLeast  = 300 // BOOTP's packet (RFC 1542, section 2.1): some relays drop shorter ones
	mostRoutes = 64
	mostDNS    = 3 // what resolv.conf(5) reads
	mostSearch = 6
)

// dhcpQuery is what the client says.
type dhcpQuery struct {
	kind      byte
	xid       uint32
	secs      uint16 // since the client began
	mac       hardware
	hostname  string
	own       netip.Addr // the address that is in use and to be prolonged
	requested netip.Addr // the address that was offered, by server
	server    netip.Addr
}

func (q *dhcpQuery) bytes() []byte {
	b := make([]byte, dhcpFixed, dhcpLeast)
	b[0], b[1], b[2] = 1, 1, 6 // BOOTREQUEST, Ethernet, its length
	binary.BigEndian.PutUint32(b[4:], q.xid)
	binary.BigEndian.PutUint16(b[8:], q.secs)
	copy(b[12:], q.own.AsSlice())
	copy(b[28:], q.mac[:])
	binary.BigEndian.PutUint32(b[236:], dhcpCookie)
	b = option4(b, optKind, string([]byte{q.kind}))
	b = option4(b, optClient, "\x01"+string(q.mac[:])) // 1 is Ethernet
	b = option4(b, optSize, "\x05\xdc")                // 1500
	b = option4(b, optList, optWanted)
	b = option4(b, optHostname, q.hostname)
	b = option4(b, optRequested, string(q.requested.AsSlice()))
	b = option4(b, optServer, string(q.server.AsSlice()))
	b = append(b, optEnd)
	return b[:max(dhcpLeast, len(b))] // what is beyond is zero: padding
}

// option4 adds an option, unless it says nothing.
func option4(b []byte, code byte, value string) []byte {
	if value == "" {
		return b
	}
	return append(append(b, code, byte(len(value))), value...)
}

// parseDHCP reads a server's message to the client mac about xid. What a server says is believed only as far as it can be right: a
// field that cannot is left out, an address that cannot makes the message unusable: l is nil then.
func parseDHCP(b []byte, xid uint32, mac hardware) (kind byte, l *Lease) {
	if len(b) < dhcpFixed || b[0] != 2 || binary.BigEndian.Uint32(b[4:]) != xid || hardware(b[28:34]) != mac ||
		binary.BigEndian.Uint32(b[236:]) != dhcpCookie {
		return 0, nil
	}
	options := new([256][]byte)
	gather(options, b[dhcpFixed:])
	if o := options[optOverload]; len(o) == 1 && o[0]&1 != 0 {
		gather(options, b[108:236])
	}
	if o := options[optOverload]; len(o) == 1 && o[0]&2 != 0 {
		gather(options, b[44:108])
	}
	if len(options[optKind]) != 1 {
		return 0, nil
	}
	kind, l = options[optKind][0], &Lease{Server: firstAddr(options[optServer])}
	if kind == dhcpNak {
		return kind, l
	}
	own := firstAddr(b[16:])
	if !own.IsValid() || !l.Server.IsValid() {
		return 0, nil
	}
	l.Address = netip.PrefixFrom(own, prefixBits(own, options[optMask]))
	l.fill(options)
	return kind, l
}

// lendable are addresses that a host may have.
func lendable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// gather collects options; those that come in parts are joined (RFC 3396). A list that is cut off ends there.
func gather(options *[256][]byte, b []byte) {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return
		}
		n := 2 + int(b[1])
		options[b[0]] = append(options[b[0]], b[2:n]...)
		b = b[n:]
	}
}

func (l *Lease) fill(options *[256][]byte) {
	l.Gateway4 = firstAddr(options[optRouter])
	if routes := options[optRoutes]; len(routes) > 0 { // then option 3 does not count (RFC 3442)
		l.Gateway4 = netip.Addr{}
		l.classless(routes)
	}
	for dns := options[optDNS]; len(dns) >= 4; dns = dns[4:] {
		l.addDNS(firstAddr(dns))
	}
	// Both go into files where a line break or a space would begin something else.
	if name := trimmed(options[optHostname]); CheckHostname(name) == nil {
		l.Hostname = name
	}
	for _, name := range strings.Fields(trimmed(options[optDomain])) { // more than one is common practice
		l.addSearch(name)
	}
	// Below 576 (RFC 791: what every host takes) a server would only slow us down.
	if m := options[optMTU]; len(m) == 2 && binary.BigEndian.Uint16(m) >= 576 {
		l.MTU = int(binary.BigEndian.Uint16(m))
	}
	l.times(seconds(options[optLease]), seconds(options[optT1]))
}

// times sets the lease's own, and half of it for what is missing or cannot be (RFC 2131, section 4.4.5).
func (l *Lease) times(valid, t1 time.Duration) {
	l.Valid = max(valid, shortest)
	if l.T1 = t1; t1 <= 0 || t1 >= l.Valid {
		l.T1 = l.Valid / 2
	}
	l.T1 = max(l.T1, shortest/4)
}

func (l *Lease) addDNS(a netip.Addr) {
	if lendable(a) && len(l.DNS) < mostDNS && !slices.Contains(l.DNS, a) {
		l.DNS = append(l.DNS, a)
	}
}

func (l *Lease) addSearch(name string) {
	if CheckHostname(name) == nil && len(l.Search) < mostSearch && !slices.Contains(l.Search, name) {
		l.Search = append(l.Search, name)
	}
}

// merge adds the names and name servers of another lease, each once, as many as resolv.conf(5) has use for.
func (l *Lease) merge(more *Lease) {
	for _, a := range more.DNS {
		l.addDNS(a)
	}
	for _, name := range more.Search {
		l.addSearch(name)
	}
}

// classless reads option 121: a prefix length, as many bytes of the destination as it covers, a gateway; 0.0.0.0 is on the link.
func (l *Lease) classless(b []byte) {
	for len(b) > 0 && b[0] <= 32 && len(l.Routes) < mostRoutes {
		bits, n := int(b[0]), 1+(int(b[0])+7)/8
		if len(b) < n+4 {
			return
		}
		var to [4]byte
		copy(to[:], b[1:n])
		gateway := firstAddr(b[n:])
		b = b[n+4:]
		if bits == 0 {
			l.Gateway4 = gateway
		} else {
			l.Routes = append(l.Routes, Route{Destination: netip.PrefixFrom(netip.AddrFrom4(to), bits).Masked(), Gateway: gateway})
		}
	}
}

// firstAddr is the address at the start of b; the zero one if there is none that a host may have.
func firstAddr(b []byte) netip.Addr {
	if len(b) < 4 {
		return netip.Addr{}
	}
	if a := netip.AddrFrom4([4]byte(b)); lendable(a) {
		return a
	}
	return netip.Addr{}
}

// prefixBits falls back to the address's class, as for a mask that was not given.
func prefixBits(a netip.Addr, mask []byte) int {
	if len(mask) == 4 {
		if bits, err := dottedBits(netip.AddrFrom4([4]byte(mask))); err == nil && bits > 0 {
			return bits
		}
	}
	return classBits(a)
}

func trimmed(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func seconds(b []byte) time.Duration {
	if len(b) != 4 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
}
