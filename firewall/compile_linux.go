package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var protocolNumbers = map[string]byte{"inet": unix.NFPROTO_INET, "arp": unix.NFPROTO_ARP, "bridge": unix.NFPROTO_BRIDGE}

// Hooks by name: enum nf_inet_hooks, enum nf_arp_hooks' NF_ARP_*, NF_BR_*.
var hookNumbers = map[string]map[string]uint32{
	"inet":   {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4},
	"arp":    {"input": 0, "output": 1},
	"bridge": {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4},
}

// compileRule gives the expressions that nft makes of the rule's text.
func compileRule(r rule) []expr.Any {
	var es []expr.Any
	for _, m := range r.matches {
		es = append(es, compileMatch(m)...)
	}
	kind := expr.VerdictDrop
	if r.accept {
		kind = expr.VerdictAccept
	}
	return append(es, &expr.Verdict{Kind: kind})
}

func compileMatch(m match) []expr.Any {
	switch m := m.(type) {
	case loopback:
		key := meta(m.out, expr.MetaKeyIIFTYPE, expr.MetaKeyOIFTYPE)
		return load(key, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK))
	case ifName:
		name := make([]byte, ifNameSize)
		copy(name, m.name)
		return load(meta(m.out, expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME), name)
	case protocol:
		return upper(m.name)
	case tcpSyn:
		es := append(upper("tcp"), field(expr.PayloadBaseTransportHeader, tcpFlags, 1), mask([]byte{flagSyn | flagAck}))
		return append(es, equal([]byte{flagSyn}))
	case ctNew:
		state := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
		return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, mask(state),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
	case address:
		return matchAddress(m)
	case port:
		at := uint32(sourcePort)
		if m.dst {
			at = destPort
		}
		number := binary.BigEndian.AppendUint16(nil, m.port)
		return append(upper(m.protocol), field(expr.PayloadBaseTransportHeader, at, 2), equal(number))
	case arpAddress:
		at := uint32(arpSender)
		if m.target {
			at = arpTarget
		}
		return matchARP(at, m.prefix)
	case icmp6Type:
		return append(upper("icmpv6"), field(expr.PayloadBaseTransportHeader, 0, 1), equal([]byte{m.typ}))
	case ndTarget:
		return targetAt(m)
	}
	panic(fmt.Sprintf("firewall: no expressions for %T", m))
}

func meta(out bool, in, outKey expr.MetaKey) *expr.Meta {
	if out {
		in = outKey
	}
	return &expr.Meta{Key: in, Register: 1}
}

func load(key expr.Any, want []byte) []expr.Any { return []expr.Any{key, equal(want)} }

func equal(want []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want} }

func field(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

func mask(bits []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bits)), Mask: bits, Xor: make([]byte, len(bits))}
}

func upper(name string) []expr.Any {
	return load(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{protocols[name]})
}

func matchAddress(m address) []expr.Any {
	nfproto, at := byte(unix.NFPROTO_IPV4), uint32(ip4Source)
	switch {
	case m.prefix.Addr().Is6() && m.dst:
		nfproto, at = unix.NFPROTO_IPV6, ip6Target
	case m.prefix.Addr().Is6():
		nfproto, at = unix.NFPROTO_IPV6, ip6Source
	case m.dst:
		at = ip4Target
	}
	es := load(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{nfproto})
	return append(es, prefixAt(expr.PayloadBaseNetworkHeader, at, m.prefix)...)
}

// matchARP asks first whether the packet is ARP for Ethernet and IPv4: the
// addresses stand elsewhere in any other.
func matchARP(at uint32, p netip.Prefix) []expr.Any {
	kind := []byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4}
	es := []expr.Any{field(expr.PayloadBaseNetworkHeader, 0, uint32(len(kind))), equal(kind)}
	return append(es, prefixAt(expr.PayloadBaseNetworkHeader, at, p)...)
}

func prefixAt(base expr.PayloadBase, at uint32, p netip.Prefix) []expr.Any {
	addr := p.Addr().AsSlice()
	es := []expr.Any{field(base, at, uint32(len(addr)))}
	if !p.IsSingleIP() {
		es = append(es, mask(maskBytes(p.Bits(), len(addr))))
	}
	return append(es, equal(addr))
}

func targetAt(m ndTarget) []expr.Any {
	want, bits := m.bytes()
	es := []expr.Any{field(expr.PayloadBaseTransportHeader, solicitTarget, uint32(len(want)))}
	if bits != nil {
		es = append(es, mask(bits))
	}
	return append(es, equal(want))
}
