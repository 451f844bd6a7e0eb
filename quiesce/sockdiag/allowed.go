package sockdiag

import "net/netip"

// Allowed is traffic that a gate lets through in every state: a management network. It may go on while
// everything else drains, so what its sockets hold does not count as busy. An empty field is any. The fields mean
// what they mean to the gate.
type Allowed struct {
	Interface string       // of this machine
	Prefix    netip.Prefix // the peer's address is in it
	Protocol  string       // tcp, udp, icmp or icmpv6
	Port      uint16       // the machine's own; without a protocol it is one of TCP or UDP
}

// covers is careful: a socket whose peer is not known, such as a listening or an unconnected one, is not covered by
// a rule about peers. own tells whether an address belongs to an interface; it is asked only about rules that name one.
func (a Allowed) covers(s *Socket, own func(netip.Addr, string) bool) bool {
	if s.Interface != "" { // a qdisc
		return a == Allowed{Interface: s.Interface}
	}
	if s.family != afInet && s.family != afInet6 || !a.speaks(s) {
		return false
	}
	id := sockid(s.id[:])
	local, remote := id.local(s.family), id.remote(s.family)
	return (a.Port == 0 || a.Port == local.Port()) &&
		(a.Prefix == netip.Prefix{} || !remote.Addr().IsUnspecified() && unmapped(a.Prefix).Contains(remote.Addr().Unmap())) &&
		(a.Interface == "" || s.Netns == 0 && own(local.Addr().Unmap(), a.Interface))
}

// speaks tells whether a socket is of the rule's protocol.
func (a Allowed) speaks(s *Socket) bool {
	tcp, udp := s.proto == protoTCP || s.proto == protoMPTCP, s.proto == protoUDP
	switch a.Protocol {
	case "":
		return a.Port == 0 || tcp || udp
	case "tcp":
		return tcp
	case "udp":
		return udp
	case "icmp":
		return s.proto == protoICMP && s.family == afInet
	}
	return a.Protocol == "icmpv6" && s.proto == protoICMP && s.family == afInet6
}

// unmapped is an IPv4 prefix in its own family.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
