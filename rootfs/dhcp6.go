package rootfs

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// DHCPv6's messages and options (RFC 8415, sections 7.3 and 21; RFC 3646 for names), and what routers say (RFC 8106).
const (
	v6Solicit, v6Advertise, v6Request, v6Renew, v6Rebind, v6Reply, v6Information = 1, 2, 3, 5, 6, 7, 11

	v6ClientID, v6ServerID, v6IANA, v6IAAddr, v6ORO, v6Elapsed, v6Status, v6Rapid = 1, 2, 3, 5, 6, 8, 13, 14
	v6DNS, v6Domains                                                              = 23, 24

	raRDNSS, raDNSSL = 25, 31

	mostServerID = 130 // RFC 8415, section 11.1: a DUID has at most 128 bytes and its type
)

// dhcp6Query is what the client says.
type dhcp6Query struct {
	kind    byte
	xid     uint32 // 24 bits
	elapsed time.Duration
	mac     hardware
	server  []byte         // its DUID, or nil
	address bool           // ask for an address
	own     []netip.Prefix // the one that there is, or was offered
}

func (q dhcp6Query) bytes() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(q.kind)<<24|q.xid&0xffffff)
	b = option6(b, v6ClientID, append([]byte{0, 3, 0, 1}, q.mac[:]...)) // DUID-LL, Ethernet: what a copy with a new MAC has new
	b = option6(b, v6Elapsed, binary.BigEndian.AppendUint16(nil, uint16(min(q.elapsed/(10*time.Millisecond), 0xffff))))
	b = option6(b, v6ORO, []byte{0, v6DNS, 0, v6Domains})
	if q.kind == v6Solicit {
		b = option6(b, v6Rapid, nil)
	}
	if q.server != nil {
		b = option6(b, v6ServerID, q.server)
	}
	if !q.address {
		return b
	}
	ia := make([]byte, 12) // identity association 1, times left to the server
	ia[3] = 1
	for _, p := range q.own {
		ia = option6(ia, v6IAAddr, append(p.Addr().AsSlice(), make([]byte, 8)...))
	}
	return option6(b, v6IANA, ia)
}

func option6(b []byte, code uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// each6 calls each with every option; a list that is cut off ends there.
func each6(b []byte, each func(code uint16, value []byte)) {
	for len(b) >= 4 {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) {
			return
		}
		each(binary.BigEndian.Uint16(b), b[4:n])
		b = b[n:]
	}
}

// dhcp6Answer is what a server says.
type dhcp6Answer struct {
	kind   byte
	server []byte
	rapid  bool
	status uint16 // of the message or its association; 0 is success
	lease  Lease
}

// parseDHCP6 reads a server's message to the client mac about xid; false if it is not one.
func parseDHCP6(b []byte, xid uint32, mac hardware) (a dhcp6Answer, ok bool) {
	if len(b) < 4 || binary.BigEndian.Uint32(b)&0xffffff != xid&0xffffff {
		return a, false
	}
	a.kind = b[0]
	mine := false
	each6(b[4:], func(code uint16, value []byte) {
		switch code {
		case v6ClientID:
			mine = string(value) == string(append([]byte{0, 3, 0, 1}, mac[:]...))
		case v6ServerID:
			if len(value) <= mostServerID {
				a.server = slices.Clone(value)
			}
		case v6Rapid:
			a.rapid = true
		case v6IANA:
			a.association(value)
		case v6DNS:
			a.lease.addDNS(value)
		case v6Domains:
			a.lease.addSearch(value)
		case v6Status:
			a.note(value)
		}
	})
	return a, mine && len(a.server) > 0 && (a.kind == v6Advertise || a.kind == v6Reply)
}

func (a *dhcp6Answer) note(status []byte) {
	if len(status) >= 2 && a.status == 0 {
		a.status = binary.BigEndian.Uint16(status)
	}
}

// association reads the one identity association that was asked for, and of it one address that may be used.
func (a *dhcp6Answer) association(b []byte) {
	if len(b) < 12 || binary.BigEndian.Uint32(b) != 1 {
		return
	}
	each6(b[12:], func(code uint16, value []byte) {
		if code == v6Status {
			a.note(value)
		}
		if code != v6IAAddr || len(value) < 24 || len(a.lease.Addresses) > 0 {
			return
		}
		ip, valid := netip.AddrFrom16([16]byte(value)), seconds(value[20:24])
		if !lendable(ip) || ip.Is4In6() || ip.IsLinkLocalUnicast() || valid == 0 {
			return
		}
		// The prefix of the link is the router's to tell (RFC 5942).
		a.lease.Addresses = []netip.Prefix{netip.PrefixFrom(ip, 128)}
		a.lease.times(valid, seconds(b[4:8]), seconds(b[8:12]))
	})
}

func (l *Lease) addDNS(b []byte) {
	for ; len(b) >= 16; b = b[16:] {
		l.merge(Lease{DNS: []netip.Addr{netip.AddrFrom16([16]byte(b))}})
	}
}

// merge adds the names and name servers of another lease, each once, as many as resolv.conf(5) has use for.
func (l *Lease) merge(more Lease) {
	for _, a := range more.DNS {
		if lendable(a) && len(l.DNS) < mostDNS && !slices.Contains(l.DNS, a) {
			l.DNS = append(l.DNS, a)
		}
	}
	for _, name := range more.Search {
		if CheckHostname(name) == nil && len(l.Search) < mostSearch && !slices.Contains(l.Search, name) {
			l.Search = append(l.Search, name)
		}
	}
}

// addSearch reads names in DNS's form without compression (RFC 8415, section 10); zero bytes between them are padding (RFC 8106).
func (l *Lease) addSearch(b []byte) {
	var labels []string
	for len(b) > 0 {
		n := int(b[0])
		if n >= len(b) || n > 63 {
			return
		}
		if n > 0 {
			labels = append(labels, string(b[1:1+n]))
		} else {
			l.merge(Lease{Search: []string{strings.Join(labels, ".")}})
			labels = nil
		}
		b = b[1+n:]
	}
}

// parseRouterOption reads RDNSS and DNSSL as they stand in a router advertisement: type, length in units of eight bytes, two bytes
// reserved, seconds of life. Those without life are left out.
func (l *Lease) parseRouterOption(b []byte) {
	if len(b) < 8 || len(b) < int(b[1])*8 || b[1] == 0 || binary.BigEndian.Uint32(b[4:]) == 0 {
		return
	}
	value := b[8 : int(b[1])*8]
	switch b[0] {
	case raRDNSS:
		l.addDNS(value)
	case raDNSSL:
		l.addSearch(value)
	}
}
