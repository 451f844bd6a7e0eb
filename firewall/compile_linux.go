package firewall

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// protocolNumber is a family of tables: NFPROTO_* in include/uapi/linux/netfilter.h.
func protocolNumber(family string) byte {
	switch family {
	case "arp":
		return unix.NFPROTO_ARP
	case "bridge":
		return unix.NFPROTO_BRIDGE
	}
	return unix.NFPROTO_INET
}

// hookNumber is a hook by name: enum nf_inet_hooks (NF_BR_* are the same), or NF_ARP_*.
func hookNumber(family, hook string) uint32 {
	switch {
	case family == "arp" && hook == "input", hook == "prerouting":
		return 0
	case family == "arp" && hook == "output", hook == "input":
		return 1
	case hook == "forward":
		return 2
	case hook == "output":
		return 3
	}
	return 4 // postrouting
}

// compiled are the expressions of one rule.
type compiled []expression

func (c *compiled) add(x expression) { *c = append(*c, x) }

func (c *compiled) meta(key uint32, want []byte) {
	c.add(meta(key))
	c.add(equal(want))
}

func (c *compiled) payload(base, offset uint32, want, bits []byte) {
	c.add(payload(base, offset, uint32(len(want))))
	if bits != nil {
		c.add(mask(bits))
	}
	c.add(equal(want))
}

func (c *compiled) upper(name string) { c.meta(unix.NFT_META_L4PROTO, []byte{protocolOf(name)}) }

// transport looks into the header of one upper protocol.
func (c *compiled) transport(name string, offset uint32, want, bits []byte) {
	c.upper(name)
	c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, want, bits)
}

// prefix looks for an address in the network header.
func (c *compiled) prefix(at uint32, p netip.Prefix) {
	addr := p.Addr().AsSlice()
	var bits []byte
	if !p.IsSingleIP() {
		bits = maskBytes(p.Bits(), len(addr))
	}
	c.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, at, addr, bits)
}

// compileRule gives the expressions that nft makes of the rule's text.
func compileRule(r rule) []expression {
	var c compiled
	for _, m := range r.matches {
		c.match(m)
	}
	c.add(verdict(r.accept))
	return c
}

func (c *compiled) match(m match) {
	switch m := m.(type) {
	case loopback:
		key := pick(m.out, unix.NFT_META_OIFTYPE, unix.NFT_META_IIFTYPE)
		c.meta(key, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK))
	case ifName:
		name := make([]byte, ifNameSize)
		copy(name, m.name)
		c.meta(pick(m.out, unix.NFT_META_OIFNAME, unix.NFT_META_IIFNAME), name)
	case protocol:
		c.upper(m.name)
	case tcpSyn:
		c.transport("tcp", tcpFlags, []byte{flagSyn}, []byte{flagSyn | flagAck})
	case ctNew:
		c.add(conntrack(unix.NFT_CT_STATE))
		c.add(mask(binary.NativeEndian.AppendUint32(nil, ctStateNew)))
		c.add(compare(unix.NFT_CMP_NEQ, make([]byte, 4)))
	case address:
		c.address(m)
	case port:
		c.transport(m.protocol, pick(m.dst, destPort, sourcePort), []byte{byte(m.port >> 8), byte(m.port)}, nil)
	case arpAddress:
		// The addresses stand elsewhere in any ARP but that for Ethernet and IPv4.
		kind := []byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4}
		c.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 0, kind, nil)
		c.prefix(pick(m.target, arpTarget, arpSender), m.prefix)
	case icmp6Type:
		c.transport("icmpv6", 0, []byte{m.typ}, nil)
	case ndTarget:
		want, bits := m.bytes()
		c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, solicitTarget, want, bits)
	default:
		panic(fmt.Sprintf("firewall: no expressions for %T", m))
	}
}

func (c *compiled) address(m address) {
	nfproto, at := byte(unix.NFPROTO_IPV4), pick(m.dst, ip4Target, ip4Source)
	if m.prefix.Addr().Is6() {
		nfproto, at = unix.NFPROTO_IPV6, pick(m.dst, ip6Target, ip6Source)
	}
	c.meta(unix.NFT_META_NFPROTO, []byte{nfproto})
	c.prefix(at, m.prefix)
}

// pick chooses by direction.
func pick(out bool, outward, inward uint32) uint32 {
	if out {
		return outward
	}
	return inward
}
