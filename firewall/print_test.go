package firewall

import (
	"fmt"
	"net/netip"
	"strings"
)

// How plans print themselves. It is nothing that the init needs.

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
		b.WriteString(m.(fmt.Stringer).String())
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
