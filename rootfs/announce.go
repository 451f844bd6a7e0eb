package rootfs

import (
	"encoding/binary"
	"net/netip"
)

// Ethernet, ARP and ICMPv6 numbers: RFC 826, RFC 894, RFC 2464, RFC 4861.
const (
	etherARP   = 0x0806
	etherIPv6  = 0x86dd
	etherLen   = 14
	arpLen     = 28
	ip6Len     = 40
	naLen      = 24 + 8 // neighbour advertisement and one target link-layer address option
	protoICMP6 = 58
	typeNA     = 136
)

type hardware = [6]byte

// gratuitousARP is an ARP announcement (RFC 5227, section 3): a broadcast request for the sender's own address. Neighbours
// that know the address take the new MAC from it, and bridges learn the port.
func gratuitousARP(mac hardware, ip netip.Addr) []byte {
	f := make([]byte, etherLen+arpLen)
	ethernet(f, hardware{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, etherARP)
	a := f[etherLen:]
	copy(a, []byte{0, 1, 8, 0, 6, 4, 0, 1}) // Ethernet, IPv4, lengths of both, request
	addr := ip.As4()
	copy(a[8:], mac[:])
	copy(a[14:], addr[:])
	copy(a[24:], addr[:]) // the target's MAC stays zero
	return f
}

// unsolicitedNA is a neighbour advertisement to all nodes (RFC 4861, section 7.2.6) with the override flag, so
// that neighbours replace the MAC they hold. The hop limit must be 255, or it is dropped.
func unsolicitedNA(mac hardware, ip netip.Addr) []byte {
	allNodes := [16]byte{0: 0xff, 1: 0x02, 15: 1}
	f := make([]byte, etherLen+ip6Len+naLen)
	ethernet(f, hardware{0x33, 0x33, 0, 0, 0, 1}, mac, etherIPv6)
	h, na := f[etherLen:etherLen+ip6Len], f[etherLen+ip6Len:]
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], naLen)
	h[6], h[7] = protoICMP6, 255
	src := ip.As16()
	copy(h[8:], src[:])
	copy(h[24:], allNodes[:])
	na[0] = typeNA
	na[4] = 1 << 5 // override
	copy(na[8:], src[:])
	na[24], na[25] = 2, 1 // target link-layer address, in units of 8 bytes
	copy(na[26:], mac[:])
	binary.BigEndian.PutUint16(na[2:], checksum6(src, allNodes, na))
	return f
}

func ethernet(f []byte, to, from hardware, kind uint16) {
	copy(f, to[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], kind)
}

// checksum6 is the Internet checksum with IPv6's pseudo header (RFC 8200, section 8.1). The field itself must be zero.
func checksum6(src, dst [16]byte, payload []byte) uint16 {
	sum := sum16(uint32(len(payload))+protoICMP6, src[:])
	sum = sum16(uint32(sum), dst[:])
	return ^sum16(uint32(sum), payload)
}
