package rootfs

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// DHCPv6's messages and options (RFC 8415, sections 7.3 and 21; RFC 3646 for names), and what routers say (RFC 8106).
const (
	v6Solicit, v6Advertise, v6Request, v6Reply, v6Information = 1, 2, 3, 7, 11

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
	server  []byte       // its DUID, or nil
	address bool         // ask for an address
	own     netip.Prefix // the one that there is, or was offered
}

func (q *dhcp6Query) bytes() []byte {
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
	if q.own.IsValid() {
		ia = option6(ia, v6IAAddr, append(q.own.Addr().AsSlice(), make([]byte, 8)...))
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

// parseDHCP6 reads a server's message to the client mac about xid; nil if it is not one.
func parseDHCP6(b []byte, xid uint32, mac hardware) *dhcp6Answer {
	if len(b) < 4 || binary.BigEndian.Uint32(b)&0xffffff != xid&0xffffff {
		return nil
	}
	a := &dhcp6Answer{kind: b[0]}
	a.lease.times(stateless, 0)
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
			if len(value) >= 12 && binary.BigEndian.Uint32(value) == 1 {
				a.association(value)
			}
		case v6DNS:
			a.lease.addServers(value)
		case v6Domains:
			a.lease.addNames(value)
		case v6Status:
			a.note(value)
		}
	})
	if !mine || len(a.server) == 0 || a.kind != v6Advertise && a.kind != v6Reply {
		return nil
	}
	return a
}

// stateless is how long what comes without an address is held to be true (RFC 8415, section 21.23).
const stateless = 24 * time.Hour

func (a *dhcp6Answer) lends() bool { return a.status == 0 && a.lease.Address.IsValid() }

func (a *dhcp6Answer) note(status []byte) {
	if len(status) >= 2 && a.status == 0 {
		a.status = binary.BigEndian.Uint16(status)
	}
}

// association reads the one identity association that was asked for, and of it one address that may be used.
func (a *dhcp6Answer) association(b []byte) {
	each6(b[12:], func(code uint16, value []byte) {
		if code == v6Status {
			a.note(value)
		}
		if code != v6IAAddr || len(value) < 24 || a.lease.Address.IsValid() {
			return
		}
		ip, valid := netip.AddrFrom16([16]byte(value)), seconds(value[20:24])
		if !lendable(ip) || ip.Is4In6() || ip.IsLinkLocalUnicast() || valid == 0 {
			return
		}
		// The prefix of the link is the router's to tell (RFC 5942).
		a.lease.Address = netip.PrefixFrom(ip, 128)
		a.lease.times(valid, seconds(b[4:8]))
	})
}

func (l *Lease) addServers(b []byte) {
	for ; len(b) >= 16; b = b[16:] {
		l.addDNS(netip.AddrFrom16([16]byte(b)))
	}
}

// addNames reads names in DNS's form without compression (RFC 8415, section 10); zero bytes between them are padding (RFC 8106).
func (l *Lease) addNames(b []byte) {
	name := ""
	for len(b) > 0 {
		n := int(b[0])
		if n >= len(b) {
			return
		}
		if n > 0 {
			name += "." + string(b[1:1+n])
		} else if name != "" {
			l.addSearch(name[1:])
			name = ""
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
		l.addServers(value)
	case raDNSSL:
		l.addNames(value)
	}
}
