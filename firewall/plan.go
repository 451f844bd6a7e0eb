package firewall

import "net/netip"

// TableName is the name of every nftables table of ours, in all families.
const TableName = "rouse"

// A plan is what nftables holds in one state of the gate: pure values, the
// same for the same input everywhere. In tests it prints itself as `nft list`
// would, so that people can read its goldens and nft itself can check them.
type plan []table

type table struct {
	family string // inet, arp, bridge
	chains []chain
}

type chain struct {
	name     string
	hook     string
	priority int
	rules    []rule
}

// A rule accepts or drops what meets all of its matches.
type rule struct {
	matches []match
	accept  bool
}

// match is one condition, of the types below.
type match any

type (
	// loopback matches the type of an interface, not its name: a link that
	// someone renames to "lo" stays shut.
	loopback struct{ out bool }
	// ifName matches an interface by name.
	ifName struct {
		out  bool
		name string
	}
	// protocol matches the upper protocol, past IPv6's extension headers.
	protocol struct{ name string }
	// tcpSyn matches the first packet of a connection: SYN without ACK.
	tcpSyn struct{}
	// ctNew matches a flow that conntrack has not seen in both directions.
	ctNew struct{}
	// address matches the peer: the source coming in, the destination going out.
	address struct {
		dst    bool
		prefix netip.Prefix
	}
	// port matches the guest's own port of a protocol that has ports.
	port struct {
		dst      bool
		protocol string
		port     uint16
	}
	// arpAddress matches the peer in an ARP packet: sender coming in, target going out.
	arpAddress struct {
		target bool
		prefix netip.Prefix
	}
	// icmp6Type matches one kind of neighbour discovery message.
	icmp6Type struct{ typ uint8 }
	// ndTarget matches the address that a neighbour solicitation asks for.
	ndTarget struct{ prefix netip.Prefix }
)

// Neighbour discovery, RFC 4861 section 4.
const (
	ndSolicit   = 135
	ndAdvertise = 136
	// solicitTarget is where a solicitation's target stands, section 4.3.
	solicitTarget = 8
)

// bytes are the leading bytes to compare; mask is nil if all their bits count.
func (m ndTarget) bytes() (want, mask []byte) {
	n := (m.prefix.Bits() + 7) / 8
	want = m.prefix.Addr().AsSlice()[:n]
	if m.prefix.Bits()%8 != 0 {
		mask = maskBytes(m.prefix.Bits(), n)
	}
	return want, mask
}

// maskBytes is a mask of some leading bits in n bytes.
func maskBytes(bits, n int) []byte {
	b := make([]byte, n)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}
