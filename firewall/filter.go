package firewall

import (
	"encoding/binary"
	"net/netip"

	"rouse/internal/fmt"
)

// A filter is the gate as an eBPF program, the same for cgroups and for tc.
//
// The program does not say which state it is in: it reads that from one word in
// a map. Programs are attached, in both directions and on every link, while the
// word says open; one store then shuts all of them at one instant.
type filter struct {
	out     bool
	tc      bool // else cgroup_skb
	mapFD   int32
	allow   []Allow
	indexOf func(name string) int // of an interface; 0 if there is none
}

// Verdicts. A tc program that lets pass leaves the word to the filters after
// it. One that drops what goes out says that it took it (TC_ACT_STOLEN): the
// sender believes it sent. A drop that tells of congestion (TC_ACT_SHOT there, 2
// in a cgroup) must not be: TCP then probes twice a second, and gives a
// connection up after 15 of them (tcp_send_probe0, net/ipv4/tcp_output.c, 6.18).
// A cgroup's plain drop is an error to the sender, which TCP backs off from.
const (
	tcPass, tcDropIn, tcDropOut = -1, 2, 4 // TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_STOLEN
	cgroupPass, cgroupDrop      = 1, 0
)

// Offsets in struct __sk_buff and struct bpf_sock.
const (
	skbProtocol, skbIfindex, skbSock = 16, 40, 168
	sockState                        = 72
)

const (
	helperLoadBytesRelative = 68 // bpf_skb_load_bytes_relative
	headerNet               = 1  // BPF_HDR_START_NET
	loopbackIndex           = 1  // LOOPBACK_IFINDEX, in every network namespace
	stateEstablished        = 1  // TCP_ESTABLISHED; a connected UDP socket's too
	// parsedHeaders is how many IPv6 extension headers are looked past.
	parsedHeaders = 4
)

// Offsets within headers: IPv4 (RFC 791), IPv6 (RFC 8200), ARP for Ethernet
// and IPv4 (RFC 826), TCP (RFC 9293).
const (
	ip4Source, ip4Target = 12, 16
	ip6Source, ip6Target = 8, 24
	arpSender, arpTarget = 14, 24
	sourcePort, destPort = 0, 2
	tcpFlags             = 13
	flagSyn, flagAck     = 0x02, 0x10
)

// Ether types and where on the stack things are kept: peer for the peer's
// address, scratch for what a match loads.
const (
	etherIPv4, etherARP, etherIPv6 = 0x0800, 0x0806, 0x86dd
	peerSlot, scratchSlot          = -16, -32
)

// program assembles: r6 the packet, r7 the state, r8 the upper protocol (0 if
// unknown), r9 where its header begins (0 if it is not in this packet).
func (f filter) program() ([]byte, error) {
	a := &assembler{}
	a.emit(opMovReg, r6, r1, 0, 0)
	a.emit(opLoadImm, r1, pseudoMapValue, 0, f.mapFD)
	a.emit(0, 0, 0, 0, 0)
	a.emit(opLoad32, r7, r1, 0, 0)
	a.jump(opJeqImm, r7, int32(Open), "pass")
	a.emit(opLoad32, r1, r6, skbIfindex, 0)
	a.jump(opJeqImm, r1, loopbackIndex, "pass")
	if len(f.allow) == 0 {
		a.jump(opJeqImm, r7, int32(Shut), "drop")
	}
	f.parse(a)
	for _, r := range f.allowed() {
		f.rule(a, r)
	}
	a.jump(opJeqImm, r7, int32(Shut), "drop")
	f.rule(a, rule{matches: []match{tcpSyn{}}})
	f.holdUDP(a)
	f.verdicts(a)
	return a.bytes()
}

func (f filter) allowed() ruleList {
	var l ruleList
	l.ip(f.allow, f.out)
	if f.tc {
		first := len(l)
		l.arp(f.allow, f.out)
		for i := first; i < len(l); i++ {
			l[i].when(isARP{})
			m := l[i].matches
			m[0], m[len(m)-1] = m[len(m)-1], m[0] // asked first: the others look at what only ARP has
		}
	}
	return l
}

func (f filter) verdicts(a *assembler) {
	pass, drop := int32(cgroupPass), int32(cgroupDrop)
	switch {
	case f.tc && f.out:
		pass, drop = tcPass, tcDropOut
	case f.tc:
		pass, drop = tcPass, tcDropIn
	}
	a.label("pass")
	a.emit(opMovImm, r0, 0, 0, pass)
	a.emit(opExit, 0, 0, 0, 0)
	a.label("drop")
	a.emit(opMovImm, r0, 0, 0, drop)
	a.emit(opExit, 0, 0, 0, 0)
}

// network is a number in network order as the program's 32-bit loads see it.
func network(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}))
}

// load copies bytes of the packet, counted from the network header, to the
// stack: from a fixed offset, or from one beyond r9. What is not there is not
// what was looked for.
func (f filter) load(a *assembler, upper bool, offset, length int, slot int32, missing string) {
	a.emit(opMovReg, r1, r6, 0, 0)
	if upper {
		a.emit(opMovReg, r2, r9, 0, 0)
		a.emit(opAddImm, r2, 0, 0, int32(offset))
	} else {
		a.emit(opMovImm, r2, 0, 0, int32(offset))
	}
	a.emit(opMovReg, r3, frame, 0, 0)
	a.emit(opAddImm, r3, 0, 0, slot)
	a.emit(opMovImm, r4, 0, 0, int32(length))
	a.emit(opMovImm, r5, 0, 0, headerNet)
	a.emit(opCall, 0, 0, 0, helperLoadBytesRelative)
	a.jump(opJsltImm, r0, 0, missing)
}

// parse finds the peer's address and the upper protocol.
func (f filter) parse(a *assembler) {
	for _, slot := range []int16{peerSlot, peerSlot + 8, scratchSlot, scratchSlot + 8} {
		a.emit(opStore64, frame, 0, slot, 0)
	}
	a.emit(opMovImm, r8, 0, 0, 0)
	a.emit(opMovImm, r9, 0, 0, 0)
	a.emit(opLoad32, r1, r6, skbProtocol, 0)
	a.jump(opJeqImm, r1, network(etherIPv4), "ipv4")
	a.jump(opJeqImm, r1, network(etherIPv6), "ipv6")
	a.jump(opJump, 0, 0, "parsed")
	a.label("ipv4")
	f.parseIPv4(a)
	a.label("ipv6")
	f.parseIPv6(a)
	a.label("parsed")
}

func (f filter) parseIPv4(a *assembler) {
	at := ip4Source
	if f.out {
		at = ip4Target
	}
	f.load(a, false, at, 4, peerSlot, "drop")
	f.load(a, false, 0, 10, scratchSlot, "drop")
	a.emit(opLoad8, r8, frame, scratchSlot+9, 0)
	a.emit(opLoad16, r1, frame, scratchSlot+6, 0)
	a.emit(opAndImm, r1, 0, 0, network(0x1fff))
	a.jump(opJneImm, r1, 0, "parsed") // a later fragment has no upper header
	a.emit(opLoad8, r9, frame, scratchSlot, 0)
	a.emit(opAndImm, r9, 0, 0, 0x0f)
	a.emit(opShlImm, r9, 0, 0, 2)
	a.jump(opJump, 0, 0, "parsed")
}

// parseIPv6 looks past extension headers (RFC 8200, section 4).
func (f filter) parseIPv6(a *assembler) {
	at := ip6Source
	if f.out {
		at = ip6Target
	}
	f.load(a, false, at, 16, peerSlot, "drop")
	f.load(a, false, 6, 1, scratchSlot, "drop")
	a.emit(opLoad8, r8, frame, scratchSlot, 0)
	a.emit(opMovImm, r9, 0, 0, 40)
	for range parsedHeaders {
		f.skipHeader(a)
	}
}

func (f filter) skipHeader(a *assembler) {
	options, fragment, next := a.unique("options"), a.unique("fragment"), a.unique("next")
	for _, header := range []int32{0, 43, 60} { // hop-by-hop, routing, destination options
		a.jump(opJeqImm, r8, header, options)
	}
	a.jump(opJeqImm, r8, 44, fragment)
	a.jump(opJump, 0, 0, "parsed")
	a.label(fragment)
	f.load(a, true, 0, 4, scratchSlot, "drop")
	a.emit(opLoad8, r8, frame, scratchSlot, 0)
	a.emit(opAddImm, r9, 0, 0, 8)
	a.emit(opLoad16, r1, frame, scratchSlot+2, 0)
	a.emit(opAndImm, r1, 0, 0, network(0xfff8))
	a.jump(opJeqImm, r1, 0, next)
	a.emit(opMovImm, r9, 0, 0, 0)
	a.jump(opJump, 0, 0, "parsed")
	a.label(options)
	f.load(a, true, 0, 2, scratchSlot, "drop")
	a.emit(opLoad8, r8, frame, scratchSlot, 0)
	a.emit(opLoad8, r1, frame, scratchSlot+1, 0)
	a.emit(opAddImm, r1, 0, 0, 1)
	a.emit(opShlImm, r1, 0, 0, 3)
	a.emit(opAddReg, r9, r1, 0, 0)
	a.label(next)
}

// rule leaves the program if all matches are met.
func (f filter) rule(a *assembler, r rule) {
	next := a.unique("next")
	for _, m := range r.matches {
		f.match(a, m, next)
	}
	verdict := "drop"
	if r.accept {
		verdict = "pass"
	}
	a.jump(opJump, 0, 0, verdict)
	a.label(next)
}

func (f filter) match(a *assembler, m match, next string) {
	switch m := m.(type) {
	case ifName:
		a.emit(opLoad32, r1, r6, skbIfindex, 0)
		a.jump(opJneImm, r1, int32(f.indexOf(m.name)), next)
	case protocol:
		a.jump(opJneImm, r8, int32(protocolOf(m.name)), next)
	case address:
		f.ether(a, m.prefix, next)
		comparePrefix(a, peerSlot, m.prefix, next)
	case tcpSyn:
		f.upper(a, "tcp", tcpFlags, 1, next)
		a.emit(opLoad8, r1, frame, scratchSlot, 0)
		a.emit(opAndImm, r1, 0, 0, flagSyn|flagAck)
		a.jump(opJneImm, r1, flagSyn, next)
	case port:
		at := sourcePort
		if m.dst {
			at = destPort
		}
		f.upper(a, m.protocol, at, 2, next)
		a.emit(opLoad16, r1, frame, scratchSlot, 0)
		a.jump(opJneImm, r1, network(m.port), next)
	case isARP:
		a.emit(opLoad32, r1, r6, skbProtocol, 0)
		a.jump(opJneImm, r1, network(etherARP), next)
	case arpAddress:
		at := arpSender
		if m.target {
			at = arpTarget
		}
		f.load(a, false, at, 4, scratchSlot, next)
		comparePrefix(a, scratchSlot, m.prefix, next)
	case icmp6Type:
		f.upper(a, "icmpv6", 0, 1, next)
		a.emit(opLoad8, r1, frame, scratchSlot, 0)
		a.jump(opJneImm, r1, int32(m.typ), next)
	case ndTarget:
		f.upper(a, "icmpv6", solicitTarget, 16, next)
		comparePrefix(a, scratchSlot, m.prefix, next)
	default:
		panic(fmt.Sprintf("firewall: no instructions for %T", m))
	}
}

// isARP is what a table of the arp family need not ask.
type isARP struct{}

// ether asks for a prefix's family.
func (f filter) ether(a *assembler, p netip.Prefix, next string) {
	kind := uint16(etherIPv4)
	if p.Addr().Is6() {
		kind = etherIPv6
	}
	a.emit(opLoad32, r1, r6, skbProtocol, 0)
	a.jump(opJneImm, r1, network(kind), next)
}

// upper loads from the header of one upper protocol.
func (f filter) upper(a *assembler, name string, offset, length int, next string) {
	a.jump(opJneImm, r8, int32(protocolOf(name)), next)
	a.jump(opJeqImm, r9, 0, next)
	f.load(a, true, offset, length, scratchSlot, next)
}

// comparePrefix compares an address on the stack word by word.
func comparePrefix(a *assembler, slot int16, p netip.Prefix, next string) {
	want := p.Addr().AsSlice()
	mask := maskBytes(p.Bits(), len(want))
	for i := 0; i < len(want) && i*8 < p.Bits(); i += 4 {
		a.emit(opLoad32, r1, frame, slot+int16(i), 0)
		if m := binary.NativeEndian.Uint32(mask[i:]); m != 0xffffffff {
			a.emit(opAndImm, r1, 0, 0, int32(m))
		}
		a.jump(opJneImm, r1, int32(binary.NativeEndian.Uint32(want[i:])), next)
	}
}

// holdUDP refuses what comes in to a socket that is connected to nobody: a
// request to a server. What goes out passes; it may be a reply. Only a cgroup
// program knows the socket.
func (f filter) holdUDP(a *assembler) {
	if f.tc || f.out {
		return
	}
	a.jump(opJneImm, r8, int32(protocolOf("udp")), "pass")
	a.emit(opLoad64, r1, r6, skbSock, 0)
	a.jump(opJeqImm64, r1, 0, "drop")
	a.emit(opLoad32, r1, r1, sockState, 0)
	a.jump(opJneImm, r1, stateEstablished, "drop")
}
