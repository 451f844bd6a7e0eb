package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Families of tables: NFPROTO_* in include/uapi/linux/netfilter.h.
var protocolNumbers = map[string]byte{"inet": unix.NFPROTO_INET, "arp": unix.NFPROTO_ARP, "bridge": unix.NFPROTO_BRIDGE}

// Hooks by name: enum nf_inet_hooks, enum nf_arp_hooks' NF_ARP_*, NF_BR_*.
var hookNumbers = map[string]map[string]uint32{
	"inet":   {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4},
	"arp":    {"input": 0, "output": 1},
	"bridge": {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4},
}

// compileRule gives the expressions that nft makes of the rule's text.
func compileRule(r rule) []expression {
	var es []expression
	for _, m := range r.matches {
		es = append(es, compileMatch(m)...)
	}
	return append(es, verdict(r.accept))
}

func compileMatch(m match) []expression {
	switch m := m.(type) {
	case loopback:
		key := pick(m.out, unix.NFT_META_OIFTYPE, unix.NFT_META_IIFTYPE)
		return metaIs(key, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK))
	case ifName:
		name := make([]byte, ifNameSize)
		copy(name, m.name)
		return metaIs(pick(m.out, unix.NFT_META_OIFNAME, unix.NFT_META_IIFNAME), name)
	case protocol:
		return upper(m.name)
	case tcpSyn:
		es := append(upper("tcp"), payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, tcpFlags, 1), mask([]byte{flagSyn | flagAck}))
		return append(es, equal([]byte{flagSyn}))
	case ctNew:
		state := binary.NativeEndian.AppendUint32(nil, ctStateNew)
		return []expression{conntrack(unix.NFT_CT_STATE), mask(state), compare(unix.NFT_CMP_NEQ, make([]byte, 4))}
	case address:
		return matchAddress(m)
	case port:
		at := pick(m.dst, destPort, sourcePort)
		number := binary.BigEndian.AppendUint16(nil, m.port)
		return append(upper(m.protocol), payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, at, 2), equal(number))
	case arpAddress:
		return matchARP(pick(m.target, arpTarget, arpSender), m.prefix)
	case icmp6Type:
		return append(upper("icmpv6"), payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1), equal([]byte{m.typ}))
	case ndTarget:
		return targetAt(m)
	}
	panic(fmt.Sprintf("firewall: no expressions for %T", m))
}

// pick chooses by direction.
func pick(out bool, outward, inward uint32) uint32 {
	if out {
		return outward
	}
	return inward
}

func metaIs(key uint32, want []byte) []expression { return []expression{meta(key), equal(want)} }

func upper(name string) []expression {
	return metaIs(unix.NFT_META_L4PROTO, []byte{protocols[name]})
}

func matchAddress(m address) []expression {
	nfproto, at := byte(unix.NFPROTO_IPV4), pick(m.dst, ip4Target, ip4Source)
	if m.prefix.Addr().Is6() {
		nfproto, at = unix.NFPROTO_IPV6, pick(m.dst, ip6Target, ip6Source)
	}
	return append(metaIs(unix.NFT_META_NFPROTO, []byte{nfproto}), prefixAt(at, m.prefix)...)
}

// matchARP asks first whether the packet is ARP for Ethernet and IPv4: the
// addresses stand elsewhere in any other.
func matchARP(at uint32, p netip.Prefix) []expression {
	kind := []byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4}
	es := []expression{payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 0, uint32(len(kind))), equal(kind)}
	return append(es, prefixAt(at, p)...)
}

func prefixAt(at uint32, p netip.Prefix) []expression {
	addr := p.Addr().AsSlice()
	es := []expression{payload(unix.NFT_PAYLOAD_NETWORK_HEADER, at, uint32(len(addr)))}
	if !p.IsSingleIP() {
		es = append(es, mask(maskBytes(p.Bits(), len(addr))))
	}
	return append(es, equal(addr))
}

func targetAt(m ndTarget) []expression {
	want, bits := m.bytes()
	es := []expression{payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, solicitTarget, uint32(len(want)))}
	if bits != nil {
		es = append(es, mask(bits))
	}
	return append(es, equal(want))
}
