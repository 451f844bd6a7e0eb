package rootfs

import (
	"encoding/binary"
	"net/netip"
)

// A host without an address speaks DHCP in whole Ethernet frames: its own IPv4 and UDP headers (RFC 791, RFC 768), because the
// kernel's would want an address of it.

const (
	etherIPv4            = 0x0800
	ip4Len, udpLen       = 20, 8
	protoUDP             = 17
	portClient, portServ = 68, 67
)

// dhcpFrame is a broadcast to all servers.
func dhcpFrame(mac hardware, own netip.Addr, payload []byte) []byte {
	f := make([]byte, etherLen+ip4Len+udpLen, etherLen+ip4Len+udpLen+len(payload))
	ethernet(f, hardware{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, etherIPv4)
	ip := f[etherLen:]
	ip[0], ip[8], ip[9] = 4<<4|ip4Len/4, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ip4Len+udpLen+len(payload)))
	if own.IsValid() {
		copy(ip[12:], own.AsSlice())
	}
	copy(ip[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(ip[10:], ^sum16(0, ip[:ip4Len]))
	udp := ip[ip4Len:]
	binary.BigEndian.PutUint16(udp, portClient)
	binary.BigEndian.PutUint16(udp[2:], portServ)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(payload)))
	return append(f, payload...) // a UDP checksum of zero is none
}

// dhcpPayload finds the UDP payload for the client's port in a frame. The checksum of UDP is not looked at: from a host on the same
// machine it is often not there yet (offloading).
func dhcpPayload(f []byte) ([]byte, bool) {
	if len(f) < etherLen+ip4Len || binary.BigEndian.Uint16(f[12:]) != etherIPv4 {
		return nil, false
	}
	ip := f[etherLen:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || head < ip4Len || total > len(ip) || total < head+udpLen || ip[9] != protoUDP ||
		binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 || sum16(0, ip[:head]) != 0xffff { // a fragment, or damaged
		return nil, false
	}
	udp := ip[head:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != portClient || length < udpLen || length > len(udp) {
		return nil, false
	}
	return udp[udpLen:length], true
}

// sum16 is the Internet's ones' complement sum (RFC 1071), going on from an earlier one.
func sum16(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
