package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// github.com/google/nftables writes and reads the same expressions: what we
// write is what it writes, and what we take for ours it takes for ours.

// oracleRules are all rules of the goldens and of more exceptions.
func oracleRules() map[string][]rule {
	allow := []Allow{
		{Interface: "a-name-of-15-by"},
		{Interface: "eth0", Prefix: netip.MustParsePrefix("10.0.0.0/9"), Protocol: "udp", Port: 65535},
		{Prefix: netip.MustParsePrefix("::/0")},
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Protocol: "icmp"},
		{Prefix: netip.MustParsePrefix("::ffff:192.0.2.0/120")},
	}
	for bits := 1; bits <= 128; bits += 3 {
		p := netip.MustParsePrefix("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128")
		allow = append(allow, Allow{Prefix: netip.PrefixFrom(p.Addr(), bits), Protocol: "tcp"}, Allow{Prefix: netip.PrefixFrom(p.Addr(), bits)})
	}
	rules := map[string][]rule{}
	add := func(p plan) {
		for _, t := range p {
			for _, c := range t.chains {
				rules[t.family] = append(rules[t.family], c.rules...)
			}
		}
	}
	for _, c := range planCases {
		add(planFor(c.state, c.caps, c.track, c.allow))
	}
	for _, s := range []State{Shut, Hold} {
		add(planFor(s, allCapabilities, true, allow))
	}
	return rules
}

func TestSameBytesAsLibrary(t *testing.T) {
	kinds := map[string]int{}
	for family, rules := range oracleRules() {
		for _, r := range rules {
			ours, theirs := compileRule(r), oracleRule(r)
			if len(ours) != len(theirs) {
				t.Fatalf("%s %q: %d expressions, the library has %d", family, r, len(ours), len(theirs))
			}
			for i := range ours {
				want, err := expr.Marshal(protocolNumber(family), theirs[i])
				if err != nil {
					t.Fatal(err)
				}
				var e encoder
				e.expression(ours[i])
				if !bytes.Equal(e.b, want) {
					t.Errorf("%s %q: %s is\n%x, the library's is\n%x", family, r, ours[i].name, e.b, want)
				}
				kinds[ours[i].name]++
			}
		}
	}
	for _, name := range []string{"meta", "cmp", "payload", "bitwise", "ct", "immediate"} {
		if kinds[name] == 0 {
			t.Errorf("no rule has %q", name)
		}
	}
}

// oracleSame decodes what the kernel lists by the library and encodes it again.
func oracleSame(live []byte, r rule) bool {
	const family = unix.NFPROTO_INET
	want, i := oracleRule(r), 0
	err := attributes(live, func(_ uint16, elem []byte) error {
		if i >= len(want) {
			return errOther
		}
		ours, err := expr.Marshal(family, want[i])
		if err != nil {
			return err
		}
		if cString(attribute(elem, unix.NFTA_EXPR_NAME)) != cString(attribute(ours, unix.NFTA_EXPR_NAME)) {
			return errOther
		}
		got := newLike(want[i])
		if err := expr.Unmarshal(family, attribute(elem, unix.NFTA_EXPR_DATA), got); err != nil {
			return err
		}
		i++
		if theirs, err := expr.Marshal(family, got); err != nil || !bytes.Equal(theirs, ours) {
			return errOther
		}
		return nil
	})
	return err == nil && i == len(want)
}

// oracleRule gives the same rule by the library.
func oracleRule(r rule) []expr.Any {
	var es []expr.Any
	for _, m := range r.matches {
		es = append(es, oracleMatch(m)...)
	}
	kind := expr.VerdictDrop
	if r.accept {
		kind = expr.VerdictAccept
	}
	return append(es, &expr.Verdict{Kind: kind})
}

func oracleMatch(m match) []expr.Any {
	switch m := m.(type) {
	case loopback:
		key := oracleMeta(m.out, expr.MetaKeyIIFTYPE, expr.MetaKeyOIFTYPE)
		return oracleLoad(key, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK))
	case ifName:
		name := make([]byte, ifNameSize)
		copy(name, m.name)
		return oracleLoad(oracleMeta(m.out, expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME), name)
	case protocol:
		return oracleUpper(m.name)
	case tcpSyn:
		es := append(oracleUpper("tcp"), oracleField(expr.PayloadBaseTransportHeader, tcpFlags, 1), oracleMask([]byte{flagSyn | flagAck}))
		return append(es, oracleEqual([]byte{flagSyn}))
	case ctNew:
		state := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
		return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, oracleMask(state),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
	case address:
		return oracleAddress(m)
	case port:
		at := uint32(sourcePort)
		if m.dst {
			at = destPort
		}
		number := binary.BigEndian.AppendUint16(nil, m.port)
		return append(oracleUpper(m.protocol), oracleField(expr.PayloadBaseTransportHeader, at, 2), oracleEqual(number))
	case arpAddress:
		at := uint32(arpSender)
		if m.target {
			at = arpTarget
		}
		return oracleARP(at, m.prefix)
	case icmp6Type:
		return append(oracleUpper("icmpv6"), oracleField(expr.PayloadBaseTransportHeader, 0, 1), oracleEqual([]byte{m.typ}))
	case ndTarget:
		return oracleTarget(m)
	}
	panic(fmt.Sprintf("firewall: no expressions for %T", m))
}

func oracleMeta(out bool, in, outKey expr.MetaKey) *expr.Meta {
	if out {
		in = outKey
	}
	return &expr.Meta{Key: in, Register: 1}
}

func oracleLoad(key expr.Any, want []byte) []expr.Any { return []expr.Any{key, oracleEqual(want)} }

func oracleEqual(want []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want} }

func oracleField(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

func oracleMask(bits []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bits)), Mask: bits, Xor: make([]byte, len(bits))}
}

func oracleUpper(name string) []expr.Any {
	return oracleLoad(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{protocolOf(name)})
}

func oracleAddress(m address) []expr.Any {
	nfproto, at := byte(unix.NFPROTO_IPV4), uint32(ip4Source)
	switch {
	case m.prefix.Addr().Is6() && m.dst:
		nfproto, at = unix.NFPROTO_IPV6, ip6Target
	case m.prefix.Addr().Is6():
		nfproto, at = unix.NFPROTO_IPV6, ip6Source
	case m.dst:
		at = ip4Target
	}
	es := oracleLoad(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{nfproto})
	return append(es, oraclePrefix(expr.PayloadBaseNetworkHeader, at, m.prefix)...)
}

func oracleARP(at uint32, p netip.Prefix) []expr.Any {
	kind := []byte{0, unix.ARPHRD_ETHER, unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff, 6, 4}
	es := []expr.Any{oracleField(expr.PayloadBaseNetworkHeader, 0, uint32(len(kind))), oracleEqual(kind)}
	return append(es, oraclePrefix(expr.PayloadBaseNetworkHeader, at, p)...)
}

func oraclePrefix(base expr.PayloadBase, at uint32, p netip.Prefix) []expr.Any {
	addr := p.Addr().AsSlice()
	es := []expr.Any{oracleField(base, at, uint32(len(addr)))}
	if !p.IsSingleIP() {
		es = append(es, oracleMask(maskBytes(p.Bits(), len(addr))))
	}
	return append(es, oracleEqual(addr))
}

func oracleTarget(m ndTarget) []expr.Any {
	want, bits := m.bytes()
	es := []expr.Any{oracleField(expr.PayloadBaseTransportHeader, solicitTarget, uint32(len(want)))}
	if bits != nil {
		es = append(es, oracleMask(bits))
	}
	return append(es, oracleEqual(want))
}

// newLike gives an empty expression of the same type.
func newLike(e expr.Any) expr.Any {
	switch e.(type) {
	case *expr.Meta:
		return &expr.Meta{}
	case *expr.Cmp:
		return &expr.Cmp{}
	case *expr.Payload:
		return &expr.Payload{}
	case *expr.Bitwise:
		return &expr.Bitwise{}
	case *expr.Ct:
		return &expr.Ct{}
	case *expr.Verdict:
		return &expr.Verdict{}
	}
	panic(fmt.Sprintf("firewall: nothing like %T", e))
}

// everyKind has an expression of each kind.
var everyKind = rule{matches: []match{tcpSyn{}, ctNew{}, address{true, netip.MustParsePrefix("10.0.0.0/9")}}}

// FuzzSameExpressions: what we take for ours, the library takes for ours too.
// It is less strict, so the reverse does not hold.
func FuzzSameExpressions(f *testing.F) {
	es := compileRule(everyKind)
	var plain, listed encoder
	for _, x := range es {
		plain.nest(unix.NFTA_LIST_ELEM, func() { plain.expression(x) })
		listed.nest(unix.NFTA_LIST_ELEM, func() { listed.expression(asListed(x)) })
	}
	f.Add(plain.b)
	f.Add(listed.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if sameExpressions(b, es) && !oracleSame(b, everyKind) {
			t.Errorf("%x is ours, but not by the library", b)
		}
	})
}

// asListed turns the order of attributes around, for no order counts, and adds
// what newer kernels add.
func asListed(x expression) expression {
	y := expression{name: x.name}
	for i := len(x.attrs) - 1; i >= 0; i-- {
		a := x.attrs[i]
		a.listed = false
		y.attrs = append(y.attrs, a)
	}
	return y
}

// Each change makes a rule another one.
func TestOtherExpressions(t *testing.T) {
	change := func(kind string, f func([]attr) []attr) []byte {
		var e encoder
		for _, x := range compileRule(everyKind) {
			x = asListed(x)
			if x.name == kind {
				x.attrs = f(x.attrs)
			}
			e.nest(unix.NFTA_LIST_ELEM, func() { e.expression(x) })
		}
		return e.b
	}
	add := func(a attr) func([]attr) []attr { return func(l []attr) []attr { return append(l, a) } }
	es := compileRule(everyKind)
	if !sameExpressions(change("none", nil), es) {
		t.Fatal("a rule as the kernel lists it is not ours")
	}
	for _, c := range []struct {
		name, kind string
		change     func([]attr) []attr
	}{
		{"a shift instead of a mask", "bitwise", func(l []attr) []attr { return append(l[1:], number(nftaBitwiseOp, 1)) }},
		{"twice, and not the same", "meta", add(number(unix.NFTA_META_KEY, 99))},
		{"unknown attribute", "cmp", add(number(77, 0))},
		{"written, not read", "payload", add(number(unix.NFTA_PAYLOAD_SREG, 1))},
		{"one attribute less", "ct", func(l []attr) []attr { return l[1:] }},
		{"another verdict", "immediate", func([]attr) []attr { return verdict(true).attrs }},
		{"a verdict for another register", "immediate", func(l []attr) []attr {
			return []attr{l[0], number(unix.NFTA_IMMEDIATE_DREG, 1)}
		}},
		{"a shorter value", "cmp", func(l []attr) []attr { return append([]attr{value(unix.NFTA_CMP_DATA, nil)}, l[1:]...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if sameExpressions(change(c.kind, c.change), es) {
				t.Error("is taken for ours")
			}
		})
	}
}
