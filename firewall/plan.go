package firewall

import (
	"fmt"
	"net/netip"
	"strings"
)

// TableName is the name of every nftables table of ours, in all families.
const TableName = "rouse"

// A plan is what nftables holds in one state of the gate: pure values, the
// same for the same input everywhere. It prints itself as `nft list` would, so
// that people can read its goldens and nft itself can check them.
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

// match is one condition; its String is nft's way to write it.
type match interface{ String() string }

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

func direction(out bool) string {
	if out {
		return "o"
	}
	return "i"
}

func side(dst bool, what string) string {
	if dst {
		return "d" + what
	}
	return "s" + what
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ip"
	}
	return "ip6"
}

func (m loopback) String() string { return "meta " + direction(m.out) + "iftype loopback" }
func (m ifName) String() string   { return direction(m.out) + "ifname " + `"` + m.name + `"` }
func (m protocol) String() string { return "meta l4proto " + nftProtocol(m.name) }
func (tcpSyn) String() string     { return "tcp flags syn / syn,ack" }
func (ctNew) String() string      { return "ct state new" }
func (m address) String() string {
	return family(m.prefix) + " " + side(m.dst, "addr") + " " + nftPrefix(m.prefix)
}
func (m port) String() string {
	return fmt.Sprintf("%s %s %d", m.protocol, side(m.dst, "port"), m.port)
}
func (m arpAddress) String() string {
	return "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp " + side(m.target, "addr") + " ip " + nftPrefix(m.prefix)
}
func (m icmp6Type) String() string {
	if m.typ == ndSolicit {
		return "icmpv6 type nd-neighbor-solicit"
	}
	return "icmpv6 type nd-neighbor-advert"
}

// String is raw: nft knows "icmpv6 taddr" only since 1.0.7.
func (m ndTarget) String() string {
	want, mask := m.bytes()
	if mask == nil {
		return fmt.Sprintf("@th,%d,%d %#x", 8*solicitTarget, 8*len(want), want)
	}
	return fmt.Sprintf("@th,%d,%d & %#x == %#x", 8*solicitTarget, 8*len(want), mask, want)
}

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

// nftProtocol is the name that nft prints for a protocol.
func nftProtocol(name string) string {
	if name == "icmpv6" {
		return "ipv6-icmp"
	}
	return name
}

// nftPrefix leaves out the length of a prefix that is one address, as nft does.
func nftPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func (r rule) String() string {
	var b strings.Builder
	for _, m := range r.matches {
		b.WriteString(m.String())
		b.WriteByte(' ')
	}
	if r.accept {
		return b.String() + "accept"
	}
	return b.String() + "drop"
}

func (p plan) String() string {
	var b strings.Builder
	for _, t := range p {
		t.print(&b)
	}
	return b.String()
}

func (t table) print(b *strings.Builder) {
	fmt.Fprintf(b, "table %s %s {\n", t.family, TableName)
	for i, c := range t.chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "\tchain %s {\n\t\ttype filter hook %s priority %d; policy accept;\n", c.name, c.hook, c.priority)
		for _, r := range c.rules {
			fmt.Fprintf(b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
}
